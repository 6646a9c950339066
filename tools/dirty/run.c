/* SPDX-License-Identifier: MIT */
/* See run.h. */
#include "run.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "say.h"
#include "units.h"

#define MEASURE_EVERY_S 0.25
#define MEASURE_SHARE 0.02 /* of the time, at most, goes into measuring what is populated */
#define FAULT_S 1e-6       /* what a fault costs the program, about */
#define COST_SHARE 0.03    /* the program's time: looks widen so that faults take no more */
#define WIDEST_S 2.0       /* but come so often at least */
#define COST_REPORTED 0.05 /* the program's time: more of it is worth a note */
#define COLLECT_SHARE 0.25 /* and into collects: beyond that they come less often */

static double run_now(void)
{
	struct timespec time;

	(void)clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* ------------------------------------------------------------------------------------------------------ collects -- */

static int run_collect_all(struct run *run)
{
	int error = 0;

	for (size_t i = 0; i < run->target.maps.count && !error; i++) {
		record_mapping(&run->record, &run->target.maps.list[i]);
		error = target_collect(&run->target, &run->target.maps.list[i], record_written, &run->record);
	}
	return error;
}

static int run_measure_all(struct run *run)
{
	double started = run_now();
	int error = 0;

	record_measure(&run->record);
	for (size_t i = 0; i < run->target.maps.count && !error; i++) {
		record_mapping(&run->record, &run->target.maps.list[i]);
		error = target_populated(&run->target, &run->target.maps.list[i], record_populated, &run->record);
	}
	record_measured(&run->record);
	run->measured_s = run_now();
	run->measure_cost_s = run->measured_s - started;
	return error;
}

static int run_measure_is_due(const struct run *run, double at)
{
	double every = run->measure_cost_s / MEASURE_SHARE;

	return at - run->measured_s >= (every > MEASURE_EVERY_S ? every : MEASURE_EVERY_S);
}

static void run_note_refused(struct run *run)
{
	if (run->target.refused > run->record.refused_bytes) {
		run->record.refused_bytes = run->target.refused;
		run->record.refused_error = run->target.refused_error;
	}
}

/* One look at the program. last: also measure. 0, -ESRCH: the memory is gone, -errno. */
static int run_collect(struct run *run, int last)
{
	double started = run_now();

	run->written_before = run->record.written_bytes;
	int error = target_look(&run->target);

	if (!error)
		error = record_begin(&run->record, &run->target.maps, started - run->first_s);
	if (!error) {
		error = run_collect_all(run);
		record_end(&run->record, (uint64_t)((run_now() - started) * 1e9));
		run_note_refused(run);
	}
	if (!error && (last || run_measure_is_due(run, started)))
		error = run_measure_all(run);
	return error;
}

/* What the last look will cost the program again by the next: a fault for each page. It shall have COST_SHARE of its
 * time at most, unless the user asked for an interval. */
static double run_cost_until(const struct run *run, double started)
{
	uint64_t pages = (run->record.written_bytes - run->written_before) / run->record.page_bytes;
	double wait_s = (double)pages * FAULT_S / COST_SHARE;

	if (!run->widens)
		return started;
	return started + (wait_s < WIDEST_S ? wait_s : WIDEST_S);
}

static void run_plan_next(struct run *run, double started)
{
	double spent = run_now() - started;
	double earliest = run_now() + spent * (1 / COLLECT_SHARE - 1);

	run->next_s += run->interval_s;
	if (run->next_s < earliest && spent > run->interval_s * COLLECT_SHARE)
		run->next_s = earliest;
	if (run->next_s < run_cost_until(run, started)) {
		run->next_s = run_cost_until(run, started);
		run->report.widened = 1;
	}
	if (run->next_s < run_now()) /* we were stopped, or the machine was busy: no hurry */
		run->next_s = started + run->interval_s;
}

/* The memory of this program is reported to the end. */
static void run_leave(struct run *run)
{
	if (!run->target.pid)
		return;
	run->final_error = run_collect(run, 1);
	target_close(&run->target);
	launch_await_holder(&run->launch);
}

static void run_tick(struct run *run)
{
	double started = run_now();

	if (!run->target.pid)
		return;
	if (target_is_left(&run->target)) {
		run_leave(run);
		run->left_s = run_now() - run->first_s;
		return;
	}
	if (run_collect(run, 0) == -ESRCH)
		target_close(&run->target);
	run_plan_next(run, started);
	live_draw(&run->live, &run->record);
}

/* ----------------------------------------------------------------------------------------------------- greetings -- */

static const char *const failed_steps[HELLO_FDS] = {
        [HELLO_UFFD] = "userfaultfd", [HELLO_PAGEMAP] = "/proc/self/pagemap", [HELLO_MAPS] = "/proc/self/maps"};

/* Opens what came with a greeting. 0, or -errno with what failed. */
static int run_open_target(struct run *run, const struct hello *hello, const int fds[HELLO_FDS], const char **failed)
{
	if (hello->error) {
		*failed = hello->failed >= 0 && hello->failed < HELLO_HOLD ? failed_steps[hello->failed] : "something";
		return -hello->error;
	}
	run->target.maps.excluded = run->excluded;
	return target_open(&run->target, run->launch.pid, hello, fds, failed);
}

static void run_complain(int error, const char *failed)
{
	say("the program cannot be tracked: %s: %s", failed, strerror(-error));
	if (error == -EPERM || error == -EACCES || error == -ENOSYS || error == -EINVAL)
		say("see uffdwp-ctl doctor for what this kernel, user and container can do");
}

/* The program waits in front of its main(): all that it does from there on is seen. */
static void run_greet(struct run *run)
{
	int first = !run->report.tracked;
	struct hello hello = {0};
	int fds[HELLO_FDS];
	const char *failed = "";
	int connection;
	int error;

	connection = launch_accept(&run->launch, &hello, fds);
	if (connection < 0)
		return;
	run_leave(run);
	run->launch.holder = hello.holder;
	run->launch.holder_ended = 0;
	error = run_open_target(run, &hello, fds, &failed);
	if (!error) {
		if (first)
			run->first_s = run_now();
		record_program(&run->record);
		error = run_collect(run, 1);
		failed = "the first look";
	}
	run->next_s = run_now() + run->interval_s;
	if (error) {
		run_complain(error, failed);
		target_close(&run->target);
	}
	run->report.tracked |= !error;
	run->left_s = error ? run->left_s : 0;
	run->refused = error && first ? LAUNCH_BROKEN : 0;
	if (!error && !hello.holder)
		report_note(&run->report,
		            "The memory could not be kept beyond the end (%s): what was written after "
		            "the last look is missing.",
		            strerror(hello.holder_error));
	launch_answer(connection, run->refused);
}

/* ---------------------------------------------------------------------------------------------------------- loop -- */

/* Milliseconds until the next collect, -1: for ever. */
static int run_time_limit(const struct run *run)
{
	double left;

	if (!run->target.pid)
		return -1;
	left = run->next_s - run_now();
	return left <= 0 ? 0 : (int)(left * 1000) + 1;
}

/* All processes of the group were asked to stop, and the program has: a shell waits for us to do so, too. */
static void run_stop_with_program(struct run *run)
{
	if (!run->launch.stopped || !run->launch.stop_asked)
		return;
	live_clear(&run->live);
	(void)kill(getpid(), SIGSTOP);
	run->launch.stop_asked = 0;
}

static void run_look_after_holder(struct run *run)
{
	if (!run->launch.holder_ended || !run->target.pid || run->launch.ended)
		return;
	run->launch.holder_ended = 0;
	run->launch.holder = 0;
	target_lose_holder(&run->target);
	report_note(&run->report,
	            "The process uffdwp-hold was ended from outside: what the program wrote after the last "
	            "look is missing.");
}

static void run_loop(struct run *run)
{
	struct pollfd ready[] = {{.fd = run->launch.signals, .events = POLLIN},
	                         {.fd = run->launch.listener, .events = POLLIN}};

	while (!run->launch.ended) {
		(void)poll(ready, 2, run_time_limit(run));
		launch_signals(&run->launch);
		if (run->launch.resized) {
			run->launch.resized = 0;
			live_resize(&run->live);
		}
		if (ready[1].revents & POLLIN)
			run_greet(run);
		if (run->launch.ended)
			break;
		run_look_after_holder(run);
		if (run->target.pid && run_now() >= run->next_s)
			run_tick(run);
		run_stop_with_program(run);
	}
}

static void run_note_findings(struct run *run)
{
	struct report *report = &run->report;
	char bytes[UNITS_TEXT];

	if (!report->tracked)
		report_note(report, "Nothing was measured: the program ended, or ran, without loading the shim.");
	if (run->left_s > 0)
		report_note(report,
		            "At %.1f s the program replaced itself by one that cannot be tracked, or without the C "
		            "library's exec functions: nothing was seen from there on.",
		            run->left_s);
	if (run->record.programs > 1)
		report_note(report,
		            "The program replaced itself by exec (%llu programs): the figures are of all of them.",
		            (unsigned long long)run->record.programs);
	if (run->record.refused_bytes)
		report_note(report,
		            "Up to %s could not be watched (%s): another userfaultfd has it, most likely the program's "
		            "own.",
		            units_bytes(bytes, (double)run->record.refused_bytes),
		            strerror(-run->record.refused_error));
	if (run->record.huge_bytes)
		report_note(report,
		            "%s of what was written is whole transparent huge pages, of which one byte may have been "
		            "written; --small-pages runs the program without them.",
		            units_bytes(bytes, (double)run->record.huge_bytes));
	if (report_cost(report) > COST_REPORTED)
		report_note(
		        report,
		        "The wp bits cost the program about %.0f %% of its time: each page that it writes is a fault "
		        "once a look. A longer --interval costs less.",
		        100 * report_cost(report));
	if (run->record.pages.dropped || run->record.heat.dropped)
		report_note(report, "Our own memory ran out: the figures are too low.");
}

static void run_fill_report(struct run *run)
{
	run->report.record = &run->record;
	run->report.argv = run->argv;
	run->report.pid = run->launch.pid;
	run->report.status = run->launch.status;
	run->report.run_s = run_now() - run->started_s;
	run->report.faults = run->record.written_bytes / run->record.page_bytes;
	run->report.complete = run->report.tracked && run->final_error == 0 && run->left_s <= 0;
	run_note_findings(run);
}

int run_program(struct run *run)
{
	int code = launch_prepare(&run->launch, run->flags);

	for (int i = 0; i < HELLO_FDS; i++)
		run->target.fds[i] = -1;
	if (code)
		return code;
	if (record_init(&run->record, (uint64_t)sysconf(_SC_PAGESIZE), run->interval_s)) {
		say("no memory for the record");
		return LAUNCH_BROKEN;
	}
	run->started_s = run->measured_s = run_now();
	code = launch_start(&run->launch, run->argv);
	if (code)
		return code;
	live_open(&run->live, run->live_mode, run->lines);
	run_loop(run);
	live_clear(&run->live);
	run_leave(run);
	record_close(&run->record);
	run_fill_report(run);
	return run->refused && WIFEXITED(run->launch.status) ? run->refused : 0;
}

void run_fini(struct run *run)
{
	target_close(&run->target);
	record_fini(&run->record);
	launch_fini(&run->launch);
}
