/* SPDX-License-Identifier: MIT */
/*
 * Switching on, and reporting. See adapter.h for how it works.
 *
 * All that can be refused is tried before the collector is touched. From the moment that the collector is in manual
 * mode the event is there to stay: if the track fails then, everything counts as written, which is slow and right.
 */
#include "adapter.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The smallest that a program may have been built with. */
#define STATS_SZ_MIN 104

struct adapter adapter;

static pthread_mutex_t start_mutex = PTHREAD_MUTEX_INITIALIZER;

void adapter_say(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(adapter.text, sizeof(adapter.text), format, arguments);
	va_end(arguments);
}

void adapter_say_library(const char *what)
{
	char reason[ADAPTER_TEXT_BYTES];
	uffdwp_error_text(reason, sizeof(reason));
	adapter_say("%s: %.400s", what, reason);
}

/* For callers without the allocation lock. */
static void *GC_CALLBACK adapter_put_text(void *text)
{
	adapter_say("%s", (const char *)text);
	return text;
}

__attribute__((format(printf, 2, 3))) static int adapter_refuse(int error, const char *format, ...)
{
	char text[ADAPTER_TEXT_BYTES];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	GC_call_with_alloc_lock(adapter_put_text, text);
	return error;
}

bool adapter_in_child(void)
{
	return getpid() != adapter.pid;
}

void *adapter_real_function(const char *name)
{
	void *library = dlopen("libgc.so.1", RTLD_LAZY | RTLD_NOLOAD);
	void *function = library ? dlsym(library, name) : dlsym(RTLD_NEXT, name);
	if (library)
		dlclose(library);
	return function ? function : dlsym(RTLD_DEFAULT, name);
}

int adapter_start_track(void)
{
	struct uffdwp_track_options options = UFFDWP_TRACK_OPTIONS_INIT;
	options.flags = UFFDWP_TRACK_START_POPULATED | UFFDWP_TRACK_START_NO_EVENTS | UFFDWP_TRACK_START_NO_GAPS;
	options.mechanism = UFFDWP_MECHANISM_ASYNC;
	int error = uffdwp_track_start(adapter.runtime, &options, &adapter.track);
	if (error)
		adapter_say_library("writes cannot be tracked without faults here");
	return error;
}

static int adapter_check_options(const struct uffdwp_gc_options *options)
{
	size_t known = sizeof(*options);
	if (!options)
		return 0;
	if (options->sz < known || options->reserved)
		return adapter_refuse(-EINVAL,
		                      "options: sz is too small, or reserved is not 0: use UFFDWP_GC_OPTIONS_INIT");
	if (options->flags & ~UFFDWP_GC_BLIND)
		return adapter_refuse(-EINVAL, "options: unknown flag 0x%x", options->flags & ~UFFDWP_GC_BLIND);
	for (size_t i = known; i < options->sz; i++)
		if (((const unsigned char *)options)[i])
			return adapter_refuse(-E2BIG, "options: fields that this library does not know are not 0");
	return 0;
}

/* The collector does not show its block size; its largest small object is half a block. 0: not known. */
static size_t adapter_block_bytes(void)
{
	for (size_t half = 128; half <= (1u << 16); half *= 2)
		if (GC_get_size_map_at((int)half) != (size_t)-1 && GC_get_size_map_at((int)half + 1) == (size_t)-1)
			return half * 2;
	return 0;
}

static int adapter_check_collector(void)
{
	unsigned version = GC_get_version();
	if (version >> 8 != 0x802)
		return adapter_refuse(-ENOTSUP, "this is collector %u.%u.%u, and its dirty bits are known for 8.2 only",
		                      version >> 16, version >> 8 & 255, version & 255);
	if (GC_is_init_called() && GC_is_incremental_mode())
		return adapter_refuse(-EBUSY, "the collector is incremental already, by dirty bits of its own: call "
		                              "uffdwp_gc_start() instead of GC_enable_incremental(), and leave "
		                              "GC_ENABLE_INCREMENTAL out of the environment");
	size_t page = heap_page_bytes(), block = adapter_block_bytes();
	adapter.block_bytes = block;
	adapter.step_bytes = block < page ? block : page;
	return block ? 0
	             : adapter_refuse(-ENOTSUP,
	                              "the collector does not answer as 8.2 does: its block size is not known");
}

/* Under the allocation lock, as all calls to the track. */
static void *GC_CALLBACK adapter_start_track_locked(void *error)
{
	*(int *)error = adapter_start_track();
	return error;
}

static void *GC_CALLBACK adapter_stop_track(void *unused)
{
	(void)uffdwp_track_stop(adapter.track);
	adapter.track = NULL;
	heap_forget(&adapter.heap);
	adapter.complete = false;
	return unused;
}

static int adapter_open_library(void)
{
	char reason[ADAPTER_TEXT_BYTES];
	int error = uffdwp_open(NULL, &adapter.runtime);
	if (error) {
		uffdwp_error_text(reason, sizeof(reason));
		return adapter_refuse(error, "libuffdwp cannot be opened: %.400s", reason);
	}
	GC_call_with_alloc_lock(adapter_start_track_locked, &error);
	if (error)
		uffdwp_close(adapter.runtime);
	return error;
}

static void adapter_close_library(void)
{
	GC_call_with_alloc_lock(adapter_stop_track, NULL);
	uffdwp_close(adapter.runtime);
}

/* The event comes first: GC_init() itself may collect. */
static int adapter_switch_on(void)
{
	int manual_before = GC_get_manual_vdb_allowed();
	GC_set_manual_vdb_allowed(1);
	events_install();
	adapter.feeding = true;
	GC_init();
	GC_enable_incremental();
	if (GC_is_incremental_mode())
		return 0;
	adapter.feeding = false;
	events_remove();
	GC_set_manual_vdb_allowed(manual_before);
	adapter_close_library();
	return adapter_refuse(-EOPNOTSUPP,
	                      "the collector refuses to be incremental: it looks for leaks, GC_DISABLE_INCREMENTAL "
	                      "is in the environment, or it was built without");
}

static int adapter_start(const struct uffdwp_gc_options *options)
{
	if (adapter.on && adapter_in_child())
		return adapter_refuse(-ECHILD, "the adapter was switched on in the process that forked this one");
	if (adapter.on)
		return adapter_refuse(-EALREADY, "the adapter is on already");
	int error = adapter_check_options(options);
	if (!error)
		error = adapter_check_collector();
	if (error)
		return error;
	adapter.text[0] = 0;
	adapter.pid = getpid();
	adapter.blind = options && (options->flags & UFFDWP_GC_BLIND);
	adapter.exact = true;
	memset(&adapter.stats, 0, sizeof(adapter.stats));
	error = adapter_open_library();
	if (!error)
		error = adapter_switch_on();
	adapter.on = error == 0;
	return error;
}

int adapter_try(void)
{
	int error = adapter_check_collector();
	if (!error)
		error = adapter_open_library();
	if (!error)
		adapter_close_library();
	return error;
}

int uffdwp_gc_start(const struct uffdwp_gc_options *options)
{
	pthread_mutex_lock(&start_mutex);
	int error = adapter_start(options);
	pthread_mutex_unlock(&start_mutex);
	return error;
}

static void *GC_CALLBACK adapter_copy_text(void *into)
{
	return memcpy(into, adapter.text, sizeof(adapter.text));
}

size_t uffdwp_gc_error_text(char *buffer, size_t size)
{
	char text[ADAPTER_TEXT_BYTES];
	GC_call_with_alloc_lock(adapter_copy_text, text);
	return (size_t)snprintf(buffer, size, "%s", text);
}

static void *GC_CALLBACK adapter_copy_stats(void *into)
{
	struct uffdwp_gc_stats *stats = into;
	*stats = adapter.stats;
	stats->heap_bytes = adapter.heap_bytes;
	stats->tracked_bytes = heap_bytes(&adapter.heap, true);
	stats->untracked_bytes = heap_bytes(&adapter.heap, false);
	stats->state = adapter.resting ? UFFDWP_GC_RESTING : adapter.exact ? UFFDWP_GC_TRACKING : UFFDWP_GC_ALL;
	return stats;
}

static uint32_t adapter_state_of(const struct uffdwp_gc_stats *stats)
{
	if (!adapter.on)
		return pay_is_waiting() ? UFFDWP_GC_WAITING : UFFDWP_GC_OFF;
	if (!events_installed())
		return UFFDWP_GC_REPLACED;
	return adapter_in_child() ? UFFDWP_GC_CHILD : stats->state;
}

int uffdwp_gc_stats(struct uffdwp_gc_stats *stats)
{
	struct uffdwp_gc_stats all;
	size_t size = stats->sz;
	if (size < STATS_SZ_MIN)
		return -EINVAL;
	GC_call_with_alloc_lock(adapter_copy_stats, &all);
	all.state = adapter_state_of(&all);
	all.sz = size;
	memcpy(stats, &all, size < sizeof(all) ? size : sizeof(all));
	return 0;
}
