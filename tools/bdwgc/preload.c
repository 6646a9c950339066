/* SPDX-License-Identifier: MIT */
/*
 * The form for programs that were not built for it: LD_PRELOAD=libuffdwp_gc_preload.so.
 *
 * It stands before the collector's GC_init(), which every program comes through, by GC_INIT(), by its first allocation
 * or by GC_enable_incremental(): the collector calls it as a symbol, too. What the program sets before (interior
 * pointers, fork handling, ...) is set by then. In programs without the collector nothing happens.
 *
 * UFFDWP_GC=on           (as without) leave the collector as it is until its stops are long, then switch on, and rest
 *                        where generations do not pay (pay.c)
 * UFFDWP_GC=off          do nothing
 * UFFDWP_GC=require      switch on at once and for good; end the program (exit code 1) if the adapter is refused, where
 *                        otherwise a line says so, and the program goes on with the collector as it is
 * UFFDWP_GC_LONG_MS=10   (on) stops that take this much processor time are long; 0: from the first collection
 * UFFDWP_GC_STATS=1      print a line at exit
 * UFFDWP_GC_TEST_BLIND=1 for tests: UFFDWP_GC_BLIND
 * UFFDWP_GC_TEST_REST=N  for tests: rest after each N stops, for N stops
 */
#include "adapter.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LONG_MS 10

static atomic_bool tried;
static atomic_bool asked; /* the program wants an incremental collector */

static bool preload_is_set(const char *name)
{
	const char *value = getenv(name);
	if (!value || strcmp(value, "0") == 0 || !*value)
		return false;
	if (strcmp(value, "1") != 0)
		fprintf(stderr, "uffdwp-gc: %s takes 0 or 1, not '%s'; taken for 1\n", name, value);
	return true;
}

/* A number, or `otherwise` where there is none; another text ends the program. */
static unsigned preload_number_of(const char *name, unsigned otherwise)
{
	const char *value = getenv(name);
	char *end;
	if (!value || !*value)
		return otherwise;
	unsigned long number = strtoul(value, &end, 10);
	if (*end || *value == '-' || number > 1000000) {
		fprintf(stderr, "uffdwp-gc: %s takes a number up to 1000000, not '%s'\n", name, value);
		_exit(1);
	}
	return (unsigned)number;
}

static void preload_say_why(bool require)
{
	char text[ADAPTER_TEXT_BYTES];
	uffdwp_gc_error_text(text, sizeof(text));
	fprintf(stderr, "uffdwp-gc: not switched on: %s\n", text);
	if (require)
		_exit(1);
}

static bool preload_is_asked_for(void)
{
	return atomic_load(&asked) || getenv("GC_ENABLE_INCREMENTAL");
}

static void preload_start_or_say(bool require)
{
	struct uffdwp_gc_options options = UFFDWP_GC_OPTIONS_INIT;
	if (preload_is_set("UFFDWP_GC_TEST_BLIND"))
		options.flags |= UFFDWP_GC_BLIND;
	if (uffdwp_gc_start(&options) != 0)
		preload_say_why(require);
	else /* a program that asked for generations keeps them */
		pay_started(require || preload_is_asked_for(), preload_number_of("UFFDWP_GC_TEST_REST", 0));
}

/* Its stops are long, or the program asks for an incremental collector. */
static void preload_start_late(void)
{
	preload_start_or_say(false);
}

static void preload_wait_or_say(void)
{
	uint64_t long_ns = preload_number_of("UFFDWP_GC_LONG_MS", LONG_MS) * UINT64_C(1000000);
	if (adapter_try() != 0) {
		preload_say_why(false);
		return;
	}
	events_install();
	pay_wait(long_ns, preload_start_late);
}

static void preload_try_once(void)
{
	const char *mode = getenv("UFFDWP_GC");
	if (mode && *mode && strcmp(mode, "off") != 0 && strcmp(mode, "on") != 0 && strcmp(mode, "require") != 0) {
		fprintf(stderr, "uffdwp-gc: UFFDWP_GC takes on, off or require, not '%s'\n", mode);
		_exit(1);
	}
	bool require = mode && strcmp(mode, "require") == 0;
	if (mode && strcmp(mode, "off") == 0)
		return;
	if (require || preload_is_asked_for())
		preload_start_or_say(require);
	else
		preload_wait_or_say();
}

static void *preload_next_function(const char *name)
{
	return dlsym(RTLD_NEXT, name);
}

/* The collector's own comes after us in the order of libraries. */
UFFDWP_GC_EXPORT void GC_CALL GC_init(void)
{
	void(GC_CALL * real)(void);
	*(void **)&real = preload_next_function("GC_init");
	if (!atomic_exchange(&tried, true))
		preload_try_once();
	real();
}

/* A program that asks for an incremental collector shall not get the collector's own dirty bits. */
UFFDWP_GC_EXPORT void GC_CALL GC_enable_incremental(void)
{
	void(GC_CALL * real)(void);
	*(void **)&real = preload_next_function("GC_enable_incremental");
	atomic_store(&asked, true);
	if (pay_is_waiting())
		pay_switch_on();
	real();
}

static const char *preload_state_name(uint32_t state)
{
	static const char *const names[] = {"off", "tracking", "everything", "child", "REPLACED", "waiting", "resting"};
	return state < sizeof(names) / sizeof(names[0]) ? names[state] : "?";
}

__attribute__((destructor)) static void preload_print_stats(void)
{
	struct uffdwp_gc_stats s = {.sz = sizeof(s)};
	if (!atomic_load(&tried) || !preload_is_set("UFFDWP_GC_STATS") || uffdwp_gc_stats(&s) != 0)
		return;
	fprintf(stderr,
	        "uffdwp-gc: pid %d: %s, %llu stops (%llu of them with everything), %llu pages fed, collected in %.3f "
	        "ms "
	        "(longest %.3f ms), heap of %llu KiB looked for %llu times in %.3f ms, %llu KiB tracked, %llu pages "
	        "ahead, "
	        "%llu rests\n",
	        (int)getpid(), preload_state_name(s.state), (unsigned long long)s.stops,
	        (unsigned long long)s.stops_all, (unsigned long long)s.pages_fed, (double)s.collect_ns / 1e6,
	        (double)s.collect_max_ns / 1e6, (unsigned long long)s.heap_bytes >> 10,
	        (unsigned long long)s.sync_count, (double)s.sync_ns / 1e6, (unsigned long long)s.tracked_bytes >> 10,
	        (unsigned long long)s.pages_ahead, (unsigned long long)s.rests);
}
