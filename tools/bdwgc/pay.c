/* SPDX-License-Identifier: MIT */
/*
 * Do generations pay? For programs that did not ask for them: the preloaded form.
 *
 * Generations make stops short and collections cost more: there are more of them, and each first write to a page is a
 * fault. A program with a small heap, or one that writes everywhere, gets nothing for that. So the collector is left as
 * it is at first (waiting), and its collections are measured by its own events: the processor time of a stop, all
 * threads of the process together, and what was allocated since the last. When stops have become long, generations are
 * switched on, and measured likewise, with the faults, of which one is timed at the start. Where that takes more than
 * what collections took before and a tenth of the program's whole time, they are left off again (resting), and tried
 * anew later, each time after twice as long.
 *
 * Resting: the collector stays incremental, it cannot be otherwise any more; but each collection is a full one
 * (GC_set_full_freq(0)), nothing is tracked or armed, and everything counts as written, so that INV-GC holds in
 * whatever it does. From the first to the last stop of a rest no dirty bit is missing; and the first stop after it
 * finds all of the heap added anew to a new track, which counts as written.
 *
 * An incremental collector collects twice as often; the free space divisor is halved to make up for that.
 *
 * Threads: everything in events, under the allocation lock, but pay_switch_on(), which may be called where a thread
 * holds no lock, and calls back once.
 */
#include "adapter.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

#define WINDOW 8 /* stops before anything is judged */
#define REST_FIRST 64
#define REST_MOST 4096
#define SHARE 10 /* of the program's time may be spent on top: one in SHARE */
#define TRIAL_PAGES 32

/* Sums over a window of stops. */
struct costs {
	uint64_t stops;
	uint64_t bytes;      /* allocated */
	uint64_t stop_ns;    /* processor time, and what the adapter does beside stops */
	uint64_t faults;     /* of the process */
	uint64_t program_ns; /* all its processor time */
};

enum phase { PHASE_NONE, PHASE_WAITING, PHASE_ON, PHASE_RESTING };

static struct {
	enum phase phase;
	void (*switch_on)(void);
	bool is_fixed;      /* never rests */
	unsigned rest_each; /* for tests: rest and resume each so many stops */
	uint64_t long_ns;
	struct costs before; /* waiting */
	struct costs now;    /* since generations were switched on */
	uint64_t fault_ns;
	uint64_t rest_stops; /* how long a rest is */
	uint64_t rested;
	int full_freq; /* the collector's */
	/* The stop under way, and the end of the last. */
	uint64_t stop_began_ns;
	uint64_t allocated_bytes;
	uint64_t last_program_ns;
	uint64_t last_faults;
} pay;

atomic_bool pay_wanted;

static uint64_t pay_cpu_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static uint64_t pay_faults(void)
{
	struct rusage usage;
	getrusage(RUSAGE_SELF, &usage);
	return (uint64_t)usage.ru_minflt;
}

/* What the write to an armed page costs here: the mean of some pages. 0: not known. */
static uint64_t pay_time_fault(void)
{
	size_t page = heap_page_bytes(), bytes = TRIAL_PAGES * page;
	volatile char *trial =
	        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	struct timespec begin, end;
	if ((void *)trial == MAP_FAILED)
		return 0;
	bool armed = uffdwp_track_add(adapter.track, (void *)trial, bytes, UFFDWP_TRACK_ADD_CLEAN) == 0;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin);
	for (size_t i = 0; i < bytes && armed; i += page)
		trial[i] = 1;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
	if (armed)
		(void)uffdwp_track_remove(adapter.track, (void *)trial, bytes);
	munmap((void *)trial, bytes);
	int64_t took = (int64_t)(end.tv_sec - begin.tv_sec) * 1000000000 + (end.tv_nsec - begin.tv_nsec);
	return (uint64_t)took / TRIAL_PAGES;
}

/* ---- judging ---- */

static uint64_t pay_collecting_ns(const struct costs *costs)
{
	return costs->stop_ns + costs->faults * pay.fault_ns;
}

/* What collecting takes now is more than before, for what was allocated, and a share of the program. */
static bool pay_is_too_dear(void)
{
	uint64_t before = pay.before.bytes ? pay_collecting_ns(&pay.before) * (pay.now.bytes >> 10) /
	                                             ((pay.before.bytes >> 10) + 1)
	                                   : 0;
	return pay_collecting_ns(&pay.now) > before + pay.now.program_ns / SHARE;
}

static void pay_rest(void)
{
	pay.phase = PHASE_RESTING;
	pay.rested = 0;
	adapter.resting = true;
	adapter.stats.rests++;
	if (adapter.track)
		(void)uffdwp_track_stop(adapter.track);
	adapter.track = NULL;
	heap_forget(&adapter.heap);
	adapter.complete = false;
	pay.full_freq = GC_get_full_freq();
	GC_set_full_freq(0);
}

/* The next stop starts a new track. */
static void pay_resume(void)
{
	pay.phase = PHASE_ON;
	adapter.resting = false;
	adapter.complete = false;
	if (GC_get_full_freq() == 0) /* not if the program has set it meanwhile */
		GC_set_full_freq(pay.full_freq);
	memset(&pay.now, 0, sizeof(pay.now));
}

static void pay_judge_on(void)
{
	if (GC_get_time_limit() != GC_TIME_UNLIMITED)
		return; /* marking in steps, while the program runs, needs dirty bits in full collections, too */
	if (pay.is_fixed && !pay.rest_each)
		return;
	if (pay.rest_each && pay.now.stops >= pay.rest_each) {
		pay.rest_stops = pay.rest_each;
		pay_rest();
	} else if (!pay.rest_each && pay.now.stops >= WINDOW && pay_is_too_dear()) {
		pay.rest_stops = pay.rest_stops < REST_MOST ? pay.rest_stops * 2 : REST_MOST;
		pay_rest();
	}
}

/* Old figures count less and less. */
static void pay_age(struct costs *costs)
{
	if (costs->stops < 4 * WINDOW)
		return;
	costs->stops /= 2;
	costs->bytes /= 2;
	costs->stop_ns /= 2;
	costs->faults /= 2;
	costs->program_ns /= 2;
}

/* ---- events ---- */

static void pay_count(struct costs *costs)
{
	uint64_t program_ns = pay_cpu_ns(), faults = pay_faults();
	pay_age(costs);
	costs->stops++;
	costs->bytes += pay.allocated_bytes;
	costs->faults += faults > pay.last_faults ? faults - pay.last_faults : 0; /* a child begins at 0 */
	costs->program_ns += program_ns > pay.last_program_ns ? program_ns - pay.last_program_ns : 0;
	pay.last_faults = faults;
	pay.last_program_ns = program_ns;
}

void pay_stop_begins(void)
{
	if (pay.phase == PHASE_NONE)
		return;
	struct GC_prof_stats_s now;
	GC_get_prof_stats_unsafe(&now, sizeof(now));
	pay.stop_began_ns = pay_cpu_ns();
	pay.allocated_bytes = now.bytes_allocd_since_gc;
}

void pay_stop_ends(void)
{
	uint64_t took = pay.phase == PHASE_NONE ? 0 : pay_cpu_ns() - pay.stop_began_ns;
	if (pay.phase == PHASE_WAITING) {
		pay.before.stop_ns += took;
		if (took >= pay.long_ns)
			atomic_store(&pay_wanted, true);
	} else if (pay.phase == PHASE_RESTING) {
		pay.before.stop_ns += took;
	} else if (pay.phase == PHASE_ON) {
		pay.now.stop_ns += took;
	}
}

void pay_collection_ends(void)
{
	if (pay.phase == PHASE_WAITING) {
		pay_count(&pay.before);
	} else if (pay.phase == PHASE_ON && !adapter_in_child()) {
		pay_count(&pay.now);
		pay_judge_on();
	} else if (pay.phase == PHASE_RESTING && !adapter_in_child()) {
		pay_count(&pay.before);
		if (++pay.rested >= pay.rest_stops)
			pay_resume();
	}
}

/* ---- switching on ---- */

void pay_wait(uint64_t long_ns, void (*switch_on)(void))
{
	pay.long_ns = long_ns;
	pay.switch_on = switch_on;
	pay.phase = PHASE_WAITING;
	pay.last_program_ns = pay_cpu_ns();
	pay.last_faults = pay_faults();
}

bool pay_is_waiting(void)
{
	return pay.phase == PHASE_WAITING;
}

/* Under the allocation lock. 1 for one caller. */
static void *GC_CALLBACK pay_stop_waiting(void *waited)
{
	*(bool *)waited = pay.phase == PHASE_WAITING;
	pay.phase = *(bool *)waited ? PHASE_NONE : pay.phase;
	return waited;
}

void pay_switch_on(void)
{
	bool waited;
	atomic_store(&pay_wanted, false);
	GC_call_with_alloc_lock(pay_stop_waiting, &waited);
	if (waited)
		pay.switch_on();
}

struct settings {
	bool is_fixed;
	unsigned rest_each;
};

static void *GC_CALLBACK pay_begin(void *given)
{
	const struct settings *settings = given;
	GC_word divisor = GC_get_free_space_divisor();
	pay.phase = PHASE_ON;
	pay.is_fixed = settings->is_fixed;
	pay.rest_each = settings->rest_each;
	pay.fault_ns = pay_time_fault();
	pay.rest_stops = REST_FIRST / 2;
	pay.last_program_ns = pay_cpu_ns();
	pay.last_faults = pay_faults();
	memset(&pay.now, 0, sizeof(pay.now));
	GC_set_free_space_divisor(divisor > 1 ? divisor / 2 : 1);
	return given;
}

void pay_started(bool is_fixed, unsigned rest_each)
{
	struct settings settings = {is_fixed, rest_each};
	GC_call_with_alloc_lock(pay_begin, &settings);
}
