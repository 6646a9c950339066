/* SPDX-License-Identifier: MIT */
/* See handlers.h. The table only grows; an entry that was dropped has no functions any more, and its place is lost. */
#include "handlers.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#define HANDLERS_MOST 1024
#define HANDLERS_NEAREST_MOST 4

struct handlers {
	_Atomic(raw_handler *) prepare;
	_Atomic(raw_handler *) parent;
	_Atomic(raw_handler *) child;
	const void *object;
};

static struct handlers handlers_table[HANDLERS_MOST];
static _Atomic size_t handlers_count;
static struct handlers handlers_nearest[HANDLERS_NEAREST_MOST];
static _Atomic size_t handlers_nearest_count;
static pthread_mutex_t handlers_mutex = PTHREAD_MUTEX_INITIALIZER;

/* What concerns the fork by this thread that the C library makes. */
static _Thread_local int handlers_have_been_run __attribute__((tls_model("initial-exec")));
static _Thread_local size_t handlers_prepared __attribute__((tls_model("initial-exec")));

static void handlers_of_libc_prepare(void)
{
	if (!handlers_have_been_run)
		handlers_prepared = handlers_prepare();
}

static void handlers_of_libc_parent(void)
{
	if (!handlers_have_been_run)
		handlers_parent(handlers_prepared);
}

static void handlers_of_libc_child(void)
{
	if (!handlers_have_been_run)
		handlers_child(handlers_prepared);
}

void handlers_have_run(int on)
{
	handlers_have_been_run = on;
}

/* Not under the lock: the first call may come back here, by an allocator that begins meanwhile. */
static int handlers_join_libc(void)
{
	static _Atomic int joined;
	int error = atomic_exchange(&joined, 1) ? 0
	                                        : raw_register_atfork(handlers_of_libc_prepare, handlers_of_libc_parent,
	                                                              handlers_of_libc_child, NULL);

	if (error)
		atomic_store(&joined, 0);
	return error;
}

static int handlers_put(struct handlers *table, _Atomic size_t *count, size_t most, const struct handlers *added)
{
	int error = handlers_join_libc();

	if (error)
		return error;
	error = ENOMEM;
	pthread_mutex_lock(&handlers_mutex);
	size_t at = atomic_load(count);

	if (at < most) {
		atomic_store(&table[at].prepare, added->prepare);
		atomic_store(&table[at].parent, added->parent);
		atomic_store(&table[at].child, added->child);
		table[at].object = added->object;
		atomic_store(count, at + 1);
		error = 0;
	}
	pthread_mutex_unlock(&handlers_mutex);
	return error;
}

int handlers_add(raw_handler *prepare, raw_handler *parent, raw_handler *child, const void *object)
{
	const struct handlers added = {prepare, parent, child, object};

	return handlers_put(handlers_table, &handlers_count, HANDLERS_MOST, &added);
}

int handlers_add_nearest(raw_handler *prepare, raw_handler *parent, raw_handler *child)
{
	const struct handlers added = {prepare, parent, child, NULL};

	return handlers_put(handlers_nearest, &handlers_nearest_count, HANDLERS_NEAREST_MOST, &added);
}

void handlers_drop(const void *object)
{
	pthread_mutex_lock(&handlers_mutex);
	for (size_t i = 0; i < atomic_load(&handlers_count); i++) {
		struct handlers *handlers = &handlers_table[i];

		if (handlers->object != object)
			continue;
		atomic_store(&handlers->prepare, NULL);
		atomic_store(&handlers->parent, NULL);
		atomic_store(&handlers->child, NULL);
	}
	pthread_mutex_unlock(&handlers_mutex);
}

static void handlers_run(raw_handler *handler)
{
	if (handler)
		handler();
}

size_t handlers_prepare(void)
{
	size_t count = atomic_load(&handlers_count);

	for (size_t i = count; i-- > 0;)
		handlers_run(atomic_load(&handlers_table[i].prepare));
	for (size_t i = atomic_load(&handlers_nearest_count); i-- > 0;)
		handlers_run(atomic_load(&handlers_nearest[i].prepare));
	return count;
}

void handlers_parent(size_t count)
{
	for (size_t i = 0; i < atomic_load(&handlers_nearest_count); i++)
		handlers_run(atomic_load(&handlers_nearest[i].parent));
	for (size_t i = 0; i < count; i++)
		handlers_run(atomic_load(&handlers_table[i].parent));
}

void handlers_child(size_t count)
{
	static const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;

	handlers_mutex = fresh;
	for (size_t i = 0; i < atomic_load(&handlers_nearest_count); i++)
		handlers_run(atomic_load(&handlers_nearest[i].child));
	for (size_t i = 0; i < count; i++)
		handlers_run(atomic_load(&handlers_table[i].child));
}
