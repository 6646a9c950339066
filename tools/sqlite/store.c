/* SPDX-License-Identifier: MIT */
/*
 * See store.h. The world's mutex guards the list, the runtime and the counts of users; it is held while a region is
 * made, which takes about a millisecond, and not while a snapshot is waited for.
 */
#include "store.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "forked.h"

#define STEP_LEAST_BYTES (UINT64_C(16) << 20)

struct world {
	pthread_mutex_t mutex;
	struct store *stores;
	struct uffdwp *runtime;
	unsigned runtime_users;
	uint64_t last_id;
	char text[STORE_TEXT_BYTES];
};

static struct world world = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* What this thread was refused. since_ns and until_ns outlive the sleeps, so that a waiter's time is counted as a
 * whole: SQLite's busy handler adds up what it asked to sleep for, over all locks of a statement. */
struct refusal {
	uint64_t store_id; /* 0: nothing since the last sleep */
	uint64_t since_ns; /* 0: not waiting */
	uint64_t until_ns; /* when all the sleeps of the statement would have ended, each in full */
	enum lock_level wanted;
	int slept; /* 1: the next lock is what was slept for */
};

static _Thread_local struct refusal refusal;

static struct store *store_world_find(const char *name, size_t length)
{
	for (struct store *store = world.stores; store; store = store->next)
		if (strncmp(store->name, name, length) == 0 && store->name[length] == 0)
			return store;
	return NULL;
}

static struct store *store_world_find_id(uint64_t id)
{
	struct store *store = world.stores;
	while (store && store->id != id)
		store = store->next;
	return store;
}

static int store_world_fail(int error, const char *text)
{
	snprintf(world.text, sizeof(world.text), "%s", text);
	return error;
}

static int store_world_fail_library(int error)
{
	uffdwp_error_text(world.text, sizeof(world.text));
	if (!world.text[0])
		store_world_fail(error, strerror(-error));
	return error;
}

static int store_runtime_get(void)
{
	if (!world.runtime) {
		int result = uffdwp_open(NULL, &world.runtime);
		if (result < 0) {
			world.runtime = NULL;
			return store_world_fail_library(result);
		}
	}
	world.runtime_users++;
	return 0;
}

static void store_runtime_put(void)
{
	if (--world.runtime_users)
		return;
	uffdwp_close(world.runtime);
	world.runtime = NULL;
}

static uint64_t store_round_up(uint64_t value, uint64_t unit)
{
	return (value + unit - 1) / unit * unit;
}

static int store_make_region(struct store *store, const struct store_config *config)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t length = store_round_up(config->size_bytes, page_bytes);
	options.mechanism = config->mechanism;
	options.delivery = config->delivery;
	options.capacity_bytes = store_round_up(config->capacity_bytes, page_bytes);
	if (options.capacity_bytes < length)
		options.capacity_bytes = length;
	options.name = "uffdwp-sqlite";
	int result = uffdwp_region_create(world.runtime, length, &options, &store->region);
	if (result < 0)
		return store_world_fail_library(result);
	store->base = uffdwp_region_base(store->region);
	store->page_bytes = page_bytes;
	store->capacity_bytes = options.capacity_bytes;
	store->length_bytes = length;
	store->prepare = config->prepare;
	return 0;
}

static int store_make(const char *name, const struct store_config *config, struct store **out)
{
	struct store *store = calloc(1, sizeof(*store));
	char *copy = strdup(name);
	int result = store && copy ? store_runtime_get() : store_world_fail(-ENOMEM, "no memory");
	if (result < 0)
		goto free_store;
	result = store_make_region(store, config);
	if (result < 0)
		goto put_runtime;
	store->name = copy;
	store->id = ++world.last_id;
	locks_init(&store->locks);
	shots_init(&store->shots);
	store->next = world.stores;
	world.stores = store;
	*out = store;
	return 0;
put_runtime:
	store_runtime_put();
free_store:
	free(copy);
	free(store);
	return result;
}

static int store_open_locked(const char *name, const struct store_config *config, struct store **out)
{
	struct store *store = store_world_find(name, strlen(name));
	int result = forked_begin();
	if (result < 0)
		return store_world_fail(result, "no page that a child of fork() would be known by");
	if (!store) {
		if (access(name, F_OK) == 0)
			return store_world_fail(
			        -EEXIST, "a file of this name is on disk; choose another name for the database in "
			                 "memory, and fill it from the file with uffdwp_load()");
		if (!config)
			return store_world_fail(-ENOENT,
			                        "no connection of this process has a database of this name open");
		result = store_make(name, config, &store);
	}
	if (result == 0) {
		store->refs++;
		*out = store;
	}
	return result;
}

int store_open(const char *name, const struct store_config *config, struct store **out)
{
	pthread_mutex_lock(&world.mutex);
	int result = store_open_locked(name, config, out);
	pthread_mutex_unlock(&world.mutex);
	return result;
}

static int store_free(struct store *store)
{
	int result = shots_fini(&store->shots);
	uffdwp_restore_free(store->restore);
	locks_fini(&store->locks);
	uffdwp_region_close(store->region);
	free(store->name);
	free(store);
	pthread_mutex_lock(&world.mutex);
	store_runtime_put();
	pthread_mutex_unlock(&world.mutex);
	return result;
}

int store_close(struct store *store)
{
	pthread_mutex_lock(&world.mutex);
	unsigned refs = --store->refs;
	if (refs == 0) {
		struct store **place = &world.stores;
		while (*place != store)
			place = &(*place)->next;
		*place = store->next;
	}
	pthread_mutex_unlock(&world.mutex);
	return refs ? 0 : store_free(store);
}

int store_named(const char *name)
{
	pthread_mutex_lock(&world.mutex);
	int found = store_world_find(name, strlen(name)) != NULL;
	pthread_mutex_unlock(&world.mutex);
	return found;
}

int store_sidecar(const char *name)
{
	static const char *const endings[] = {"-journal", "-wal"};
	size_t length = strlen(name);
	int found = 0;
	pthread_mutex_lock(&world.mutex);
	for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++) {
		size_t ending = strlen(endings[i]);
		if (length > ending && strcmp(name + length - ending, endings[i]) == 0)
			found |= store_world_find(name, length - ending) != NULL;
	}
	pthread_mutex_unlock(&world.mutex);
	return found;
}

void store_error_text(char *buffer, size_t size)
{
	if (forked_is_child()) {
		snprintf(buffer, size, "%s", FORKED_TEXT);
		return;
	}
	pthread_mutex_lock(&world.mutex);
	snprintf(buffer, size, "%s", world.text);
	pthread_mutex_unlock(&world.mutex);
}

void store_error_set(const char *text)
{
	pthread_mutex_lock(&world.mutex);
	store_world_fail(0, text);
	pthread_mutex_unlock(&world.mutex);
}

void store_library_text(char *buffer, size_t size)
{
	pthread_mutex_lock(&world.mutex);
	uffdwp_error_text(buffer, size);
	pthread_mutex_unlock(&world.mutex);
}

int store_reserve(struct store *store, uint64_t length)
{
	uint64_t now = store->length_bytes;
	if (length <= now)
		return 0;
	if (length > store->capacity_bytes)
		return -ENOSPC;
	uint64_t step = now / 2 > STEP_LEAST_BYTES ? now / 2 : STEP_LEAST_BYTES;
	uint64_t wanted = length > now + step ? length : now + step;
	wanted = store_round_up(wanted, store->page_bytes);
	if (wanted > store->capacity_bytes)
		wanted = store->capacity_bytes;
	int result = uffdwp_region_grow(store->region, wanted);
	if (result == 0)
		store->length_bytes = wanted;
	return result;
}

int store_is_whole(struct store *store)
{
	struct uffdwp_restore *restore = store->restore;
	if (!restore || store->whole)
		return 1;
	store->whole = uffdwp_restore_wait(restore, 0, NULL) == 0;
	return store->whole;
}

int store_check(struct store *store, uint64_t offset, uint64_t length)
{
	return store_is_whole(store) ? 0 : uffdwp_restore_check(store->restore, offset, length);
}

static int store_prepare(struct store *store, uint64_t offset, uint64_t length)
{
	int result = store_check(store, offset, length);
	if (result < 0)
		return result;
	return store->prepare && length ? uffdwp_prepare_write(store->region, offset, length) : 0;
}

int store_write(struct store *store, const void *data, size_t length, uint64_t offset)
{
	if (offset > UINT64_MAX - length)
		return -ENOSPC;
	int result = store_reserve(store, offset + length);
	if (result == 0)
		result = store_prepare(store, offset, length);
	if (result < 0)
		return result;
	memcpy(store->base + offset, data, length);
	if (offset + length > store->size_bytes)
		store->size_bytes = offset + length;
	return 0;
}

size_t store_read(const struct store *store, void *buffer, size_t length, uint64_t offset)
{
	uint64_t size = store->size_bytes;
	size_t there = 0;
	if (offset < size)
		there = size - offset < length ? (size_t)(size - offset) : length;
	memcpy(buffer, store->base + offset, there);
	memset((char *)buffer + there, 0, length - there);
	return there;
}

/* Makes [length, size) read as zeros and gives its whole pages back. */
static int store_cut_tail(struct store *store, uint64_t length)
{
	uint64_t size = store->size_bytes;
	uint64_t first_page = store_round_up(length, store->page_bytes);
	uint64_t end = store_round_up(size, store->page_bytes);
	if (end > first_page) {
		int result = uffdwp_region_punch(store->region, first_page, end - first_page);
		if (result < 0)
			return result;
	}
	uint64_t part = first_page < size ? first_page - length : size - length;
	int result = store_prepare(store, length, part);
	if (result == 0)
		memset(store->base + length, 0, part);
	return result;
}

int store_truncate(struct store *store, uint64_t length)
{
	int result = 0;
	if (length > store->size_bytes)
		result = store_reserve(store, length);
	else if (length < store->size_bytes)
		result = store_cut_tail(store, length);
	if (result == 0)
		store->size_bytes = length;
	return result;
}

/* ---- lazy loads ---- */

#define HEADER_BYTES 100
#define HEADER_VERSIONS 18 /* of writing and reading; 2: WAL. https://sqlite.org/fileformat2.html, 1.3.3 */

static uint32_t store_header_number(const unsigned char *header, size_t at)
{
	return (uint32_t)header[at] << 24 | (uint32_t)header[at + 1] << 16 | (uint32_t)header[at + 2] << 8 |
	       header[at + 3];
}

/* What SQLite itself would refuse a moment later, when the database that was there is gone. (The number of pages counts
 * where the two change counters agree: SQLite before 3.7 did not write it.) */
static int store_header_check(const unsigned char *header, uint64_t length)
{
	uint64_t page_bytes = (uint64_t)header[16] << 8 | header[17];
	page_bytes = page_bytes == 1 ? 65536 : page_bytes;
	if (memcmp(header, "SQLite format 3", 16) != 0)
		return -EMEDIUMTYPE;
	if (page_bytes < 512 || page_bytes & (page_bytes - 1))
		return -EMEDIUMTYPE;
	uint64_t pages = store_header_number(header, 24) == store_header_number(header, 92)
	                         ? store_header_number(header, 28)
	                         : 1;
	return length < page_bytes * pages ? -ENODATA : 0;
}

static int store_image_look(const char *path, uint64_t *length, unsigned char *header, char *text, size_t text_bytes)
{
	struct uffdwp_image *image = NULL;
	struct uffdwp_image_info info = {.sz = sizeof(info)};
	int result = uffdwp_image_open(path, NULL, &image);
	if (result < 0) {
		uffdwp_error_text(text, text_bytes);
		return result;
	}
	uffdwp_image_info(image, 0, &info);
	*length = info.length_bytes;
	result = info.length_bytes < HEADER_BYTES ? -EMEDIUMTYPE : uffdwp_image_read(image, 0, header, HEADER_BYTES);
	if (result == 0)
		result = store_header_check(header, info.length_bytes);
	if (result == -EMEDIUMTYPE)
		snprintf(text, text_bytes, "file is not a database");
	else if (result == -ENODATA)
		snprintf(text, text_bytes, "the file is cut: it is shorter than its first page says");
	else if (result < 0)
		uffdwp_image_text(image, text, text_bytes);
	uffdwp_image_close(image);
	return result;
}

static int store_restore_begin(struct store *store, const char *path, char *text, size_t text_bytes)
{
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	struct uffdwp_restore *restore = NULL;
	options.path = path;
	int result = uffdwp_restore_begin(store->region, &options, &restore);
	if (result == 0)
		store->restore = restore;
	else if (result == -EOPNOTSUPP)
		snprintf(text, text_bytes,
		         "a lazy load needs a database that was opened with mechanism=rearm, and Linux 6.6 or "
		         "delivery=inline");
	else
		store_library_text(text, text_bytes);
	return result;
}

/* Takes a load back of which no connection has seen anything. */
static void store_restore_undo(struct store *store, uint64_t length)
{
	uffdwp_restore_free(store->restore);
	store->restore = NULL;
	uffdwp_region_punch(store->region, 0, store_round_up(length, store->page_bytes));
}

static int store_header_fix(struct store *store, const unsigned char *header)
{
	static const unsigned char versions[] = {1, 1};
	if (header[HEADER_VERSIONS] != 2 && header[HEADER_VERSIONS + 1] != 2)
		return 0;
	int result = store_prepare(store, HEADER_VERSIONS, sizeof(versions));
	if (result == 0)
		memcpy(store->base + HEADER_VERSIONS, versions, sizeof(versions));
	return result;
}

int store_load(struct store *store, const char *path, char *text, size_t text_bytes)
{
	unsigned char header[HEADER_BYTES];
	uint64_t length = 0;
	if (store->size_bytes > 0 || store->restore) {
		snprintf(text, text_bytes,
		         "a lazy load is into a database that is empty, and has been so since it was opened");
		return -EEXIST;
	}
	int result = store_image_look(path, &length, header, text, text_bytes);
	if (result < 0)
		return result;
	result = store_reserve(store, length);
	if (result < 0) {
		snprintf(text, text_bytes, "%llu bytes are more than the capacity", (unsigned long long)length);
		return result;
	}
	result = store_restore_begin(store, path, text, text_bytes);
	if (result < 0)
		return result;
	result = store_header_fix(store, header);
	if (result < 0) {
		snprintf(text, text_bytes, "its first page cannot be read");
		store_restore_undo(store, length);
		return result;
	}
	store->size_bytes = length;
	return 0;
}

/* ---- waiting for locks ---- */

static void store_refused(const struct store *store, enum lock_level wanted)
{
	if (!refusal.since_ns || refusal.wanted != wanted)
		refusal.since_ns = locks_now_ns();
	refusal.store_id = store->id;
	refusal.wanted = wanted;
}

/* The time that its sleeps were too short for is kept: the same statement may be refused another level. */
static void store_granted(enum lock_level level)
{
	if (level < refusal.wanted)
		return;
	refusal.since_ns = 0;
	refusal.wanted = LOCK_NONE;
}

int store_lock(struct store *store, struct lock_holder *holder, enum lock_level level)
{
	if (refusal.store_id) /* SQLite did not sleep after it: that statement has ended */
		refusal = (struct refusal){.store_id = 0};
	uint64_t until_ns = refusal.slept ? refusal.until_ns : 0;
	int result = locks_take(&store->locks, holder, level, refusal.since_ns, until_ns);
	refusal.slept = 0;
	if (result < 0)
		store_refused(store, level);
	else
		store_granted(level);
	return result;
}

void store_unlock(struct store *store, struct lock_holder *holder, enum lock_level level)
{
	locks_drop(&store->locks, holder, level);
	if (!refusal.store_id) /* else SQLite may be about to sleep */
		refusal = (struct refusal){.store_id = 0};
}

int store_sleep(uint64_t timeout_ns)
{
	uint64_t now_ns = locks_now_ns();
	pthread_mutex_lock(&world.mutex);
	struct store *store = refusal.store_id ? store_world_find_id(refusal.store_id) : NULL;
	if (store)
		store->refs++;
	pthread_mutex_unlock(&world.mutex);
	refusal.store_id = 0;
	refusal.until_ns = (refusal.until_ns > now_ns ? refusal.until_ns : now_ns) + timeout_ns;
	if (!store)
		return 0;
	refusal.slept = 1;
	if (refusal.wanted != LOCK_SHARED) /* nothing is held that the wait in store_lock() would keep */
		locks_wait(&store->locks, refusal.wanted, refusal.since_ns, refusal.until_ns);
	store_close(store);
	return 1;
}
