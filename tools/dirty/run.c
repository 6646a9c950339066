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

#define MEASURE_EVERY_S 0.25
#define MEASURE_SHARE 0.02 /* of the time, at most, goes into measuring what is populated */
#define FAULT_S 1e-6       /* what a fault costs the program, about */
#define COST_SHARE 0.03    /* the program's time: looks widen so that faults take no more */
#define WIDEST_S 2.0       /* but come so often at least */
#define COST_TOLD 0.05     /* the program's time: more of it is worth a note */
#define COLLECT_SHARE 0.25 /* and into collects: beyond that they come less often */

static double now(void)
{
	struct timespec time;

	(void)clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* ------------------------------------------------------------------------------------------------------ collects -- */

static int collect_all(struct run *run)
{
	int error = 0;

	for (size_t i = 0; i < run->target.maps.count && !error; i++) {
		record_mapping(&run->record, &run->target.maps.list[i]);
		error = target_collect(&run->target, &run->target.maps.list[i], record_written, &run->record);
	}
	return error;
}

static int measure_all(struct run *run)
{
	double started = now();
	int error = 0;

	record_measure(&run->record);
	for (size_t i = 0; i < run->target.maps.count && !error; i++) {
		record_mapping(&run->record, &run->target.maps.list[i]);
		error = target_populated(&run->target, &run->target.maps.list[i], record_populated, &run->record);
	}
	record_measured(&run->record);
	run->measured_s = now();
	run->measure_cost_s = run->measured_s - started;
	return error;
}

static int measure_is_due(const struct run *run, double at)
{
	double every = run->measure_cost_s / MEASURE_SHARE;

	return at - run->measured_s >= (every > MEASURE_EVERY_S ? every : MEASURE_EVERY_S);
}

static void note_refused(struct run *run)
{
	if (run->target.refused > run->record.refused_bytes) {
		run->record.refused_bytes = run->target.refused;
		run->record.refused_error = run->target.refused_error;
	}
}

/* One look at the program. last: also measure. 0, -ESRCH: the memory is gone, -errno. */
static int collect(struct run *run, int last)
{
	double started = now();

	run->written_before = run->record.written_bytes;
	int error = target_look(&run->target);

	if (!error)
		error = record_begin(&run->record, &run->target.maps, started - run->first_s);
	if (!error) {
		error = collect_all(run);
		record_end(&run->record, (uint64_t)((now() - started) * 1e9));
		note_refused(run);
	}
	if (!error && (last || measure_is_due(run, started)))
		error = measure_all(run);
	return error;
}

/* What the last look will cost the program again by the next: a fault for each page. It shall have COST_SHARE of its
 * time at most, unless somebody asked for an interval. */
static double cost_until(const struct run *run, double started)
{
	uint64_t pages = (run->record.written_bytes - run->written_before) / run->record.page_bytes;
	double wait_s = (double)pages * FAULT_S / COST_SHARE;

	if (!run->widens)
		return started;
	return started + (wait_s < WIDEST_S ? wait_s : WIDEST_S);
}

static void plan_next(struct run *run, double started)
{
	double spent = now() - started;
	double earliest = now() + spent * (1 / COLLECT_SHARE - 1);

	run->next_s += run->interval_s;
	if (run->next_s < earliest && spent > run->interval_s * COLLECT_SHARE)
		run->next_s = earliest;
	if (run->next_s < cost_until(run, started)) {
		run->next_s = cost_until(run, started);
		run->report.widened = 1;
	}
	if (run->next_s < now()) /* we were stopped, or the machine was busy: no hurry */
		run->next_s = started + run->interval_s;
}

/* The memory of this program is told to the end. */
static void leave(struct run *run)
{
	if (!run->target.pid)
		return;
	run->final_error = collect(run, 1);
	target_close(&run->target);
	launch_await_holder(&run->launch);
}

static void tick(struct run *run)
{
	double started = now();

	if (!run->target.pid)
		return;
	if (target_is_left(&run->target)) {
		leave(run);
		run->left_s = now() - run->first_s;
		return;
	}
	if (collect(run, 0) == -ESRCH)
		target_close(&run->target);
	plan_next(run, started);
	live_draw(&run->live, &run->record);
}

/* ----------------------------------------------------------------------------------------------------- greetings -- */

static const char *const failed_steps[HELLO_FDS] = {
        [HELLO_UFFD] = "userfaultfd", [HELLO_PAGEMAP] = "/proc/self/pagemap", [HELLO_MAPS] = "/proc/self/maps"};

/* Opens what came with a greeting. 0, or -errno with what failed. */
static int open_target(struct run *run, const struct hello *hello, const int fds[HELLO_FDS], const char **failed)
{
	if (hello->error) {
		*failed = hello->failed >= 0 && hello->failed < HELLO_HOLD ? failed_steps[hello->failed] : "something";
		return -hello->error;
	}
	run->target.maps.excluded = run->excluded;
	return target_open(&run->target, run->launch.pid, hello, fds, failed);
}

static void complain(int error, const char *failed)
{
	say("the program cannot be tracked: %s: %s", failed, strerror(-error));
	if (error == -EPERM || error == -EACCES || error == -ENOSYS || error == -EINVAL)
		say("see uffdwp-ctl doctor for what this kernel, user and container can do");
}

/* The program waits in front of its main(): all that it does from there on is seen. */
static void greet(struct run *run)
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
	leave(run);
	run->launch.holder = hello.holder;
	run->launch.holder_ended = 0;
	error = open_target(run, &hello, fds, &failed);
	if (!error) {
		if (first)
			run->first_s = now();
		record_program(&run->record);
		error = collect(run, 1);
		failed = "the first look";
	}
	run->next_s = now() + run->interval_s;
	if (error) {
		complain(error, failed);
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
static int patience(const struct run *run)
{
	double left;

	if (!run->target.pid)
		return -1;
	left = run->next_s - now();
	return left <= 0 ? 0 : (int)(left * 1000) + 1;
}

/* Everybody in the group was asked to stop, and the program has: a shell waits for us to do so, too. */
static void stop_with_program(struct run *run)
{
	if (!run->launch.stopped || !run->launch.stop_asked)
		return;
	live_clear(&run->live);
	(void)kill(getpid(), SIGSTOP);
	run->launch.stop_asked = 0;
}

static void look_after_holder(struct run *run)
{
	if (!run->launch.holder_ended || !run->target.pid || run->launch.ended)
		return;
	run->launch.holder_ended = 0;
	run->launch.holder = 0;
	target_lose_holder(&run->target);
	report_note(&run->report,
	            "The process uffdwp-hold was ended by somebody: what the program wrote after the last "
	            "look is missing.");
}

static void loop(struct run *run)
{
	struct pollfd ready[] = {{.fd = run->launch.signals, .events = POLLIN},
	                         {.fd = run->launch.listener, .events = POLLIN}};

	while (!run->launch.ended) {
		(void)poll(ready, 2, patience(run));
		launch_signals(&run->launch);
		if (run->launch.resized) {
			run->launch.resized = 0;
			live_resize(&run->live);
		}
		if (ready[1].revents & POLLIN)
			greet(run);
		if (run->launch.ended)
			break;
		look_after_holder(run);
		if (run->target.pid && now() >= run->next_s)
			tick(run);
		stop_with_program(run);
	}
}

static void note_findings(struct run *run)
{
	struct report *report = &run->report;
	char bytes[SAY_BYTES];

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
		            say_bytes(bytes, (double)run->record.refused_bytes), strerror(-run->record.refused_error));
	if (run->record.huge_bytes)
		report_note(report,
		            "%s of what was written is whole transparent huge pages, of which one byte may have been "
		            "written; --small-pages runs the program without them.",
		            say_bytes(bytes, (double)run->record.huge_bytes));
	if (report_cost(report) > COST_TOLD)
		report_note(report,
		            "The marks cost the program about %.0f %% of its time: each page that it writes is a fault "
		            "once a look. A longer --interval costs less.",
		            100 * report_cost(report));
	if (run->record.pages.dropped || run->record.heat.dropped)
		report_note(report, "Our own memory ran out: the figures are too low.");
}

static void fill_report(struct run *run)
{
	run->report.record = &run->record;
	run->report.argv = run->argv;
	run->report.pid = run->launch.pid;
	run->report.status = run->launch.status;
	run->report.run_s = now() - run->started_s;
	run->report.faults = run->record.written_bytes / run->record.page_bytes;
	run->report.complete = run->report.tracked && run->final_error == 0 && run->left_s <= 0;
	note_findings(run);
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
	run->started_s = run->measured_s = now();
	code = launch_start(&run->launch, run->argv);
	if (code)
		return code;
	live_open(&run->live, run->live_mode, run->lines);
	loop(run);
	live_clear(&run->live);
	leave(run);
	record_close(&run->record);
	fill_report(run);
	return run->refused && WIFEXITED(run->launch.status) ? run->refused : 0;
}

void run_fini(struct run *run)
{
	target_close(&run->target);
	record_fini(&run->record);
	launch_fini(&run->launch);
}
