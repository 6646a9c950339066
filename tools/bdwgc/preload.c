/* SPDX-License-Identifier: MIT */
/*
 * The form for programs that were not built for it: LD_PRELOAD=libuffdwp_gc_preload.so.
 *
 * It stands before the collector's GC_init(), which every program comes through, by GC_INIT(), by its first allocation
 * or by GC_enable_incremental(): the collector calls it as a symbol, too. What the program sets before (interior
 * pointers, fork handling, ...) is set by then. In programs without the collector nothing happens.
 *
 * UFFDWP_GC=off          do nothing
 * UFFDWP_GC=require      end the program (exit code 1) if the adapter is refused; otherwise a line says so, and the
 *                        program goes on with the collector as it is
 * UFFDWP_GC_STATS=1      print a line at exit
 * UFFDWP_GC_TEST_BLIND=1 for tests: UFFDWP_GC_BLIND
 */
#include "adapter.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static atomic_bool tried;

static bool is_set(const char *name)
{
	const char *value = getenv(name);
	if (!value || strcmp(value, "0") == 0 || !*value)
		return false;
	if (strcmp(value, "1") != 0)
		fprintf(stderr, "uffdwp-gc: %s takes 0 or 1, not '%s'; taken for 1\n", name, value);
	return true;
}

static void start_or_say(bool require)
{
	char text[ADAPTER_TEXT_BYTES];
	struct uffdwp_gc_options options = UFFDWP_GC_OPTIONS_INIT;
	if (is_set("UFFDWP_GC_TEST_BLIND"))
		options.flags |= UFFDWP_GC_BLIND;
	if (uffdwp_gc_start(&options) == 0)
		return;
	uffdwp_gc_error_text(text, sizeof(text));
	fprintf(stderr, "uffdwp-gc: not switched on: %s\n", text);
	if (require)
		_exit(1);
}

static void try_once(void)
{
	const char *mode = getenv("UFFDWP_GC");
	if (mode && *mode && strcmp(mode, "off") != 0 && strcmp(mode, "on") != 0 && strcmp(mode, "require") != 0) {
		fprintf(stderr, "uffdwp-gc: UFFDWP_GC takes on, off or require, not '%s'\n", mode);
		_exit(1);
	}
	if (!mode || strcmp(mode, "off") != 0)
		start_or_say(mode && strcmp(mode, "require") == 0);
}

/* The collector's own comes after us in the order of libraries. */
UFFDWP_GC_EXPORT void GC_CALL GC_init(void)
{
	void(GC_CALL * real)(void);
	*(void **)&real = dlsym(RTLD_NEXT, "GC_init");
	if (!atomic_exchange(&tried, true))
		try_once();
	real();
}

static const char *state_name(uint32_t state)
{
	static const char *const names[] = {"off", "tracking", "everything", "child", "REPLACED"};
	return state < sizeof(names) / sizeof(names[0]) ? names[state] : "?";
}

__attribute__((destructor)) static void print_stats(void)
{
	struct uffdwp_gc_stats s = {.sz = sizeof(s)};
	if (!atomic_load(&tried) || !is_set("UFFDWP_GC_STATS") || uffdwp_gc_stats(&s) != 0)
		return;
	fprintf(stderr,
	        "uffdwp-gc: pid %d: %s, %llu stops (%llu of them with everything), %llu pages fed, collected in %.3f "
	        "ms "
	        "(longest %.3f ms), heap of %llu KiB looked for %llu times in %.3f ms, %llu KiB tracked\n",
	        (int)getpid(), state_name(s.state), (unsigned long long)s.stops, (unsigned long long)s.stops_all,
	        (unsigned long long)s.pages_fed, (double)s.collect_ns / 1e6, (double)s.collect_max_ns / 1e6,
	        (unsigned long long)s.heap_bytes >> 10, (unsigned long long)s.sync_count, (double)s.sync_ns / 1e6,
	        (unsigned long long)s.tracked_bytes >> 10);
}
