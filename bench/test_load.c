/* SPDX-License-Identifier: MIT */
/*
 * What the question `snapshot` stands on: the phases, the gate, the window and the timeline of the writers, paced ones,
 * the Zipf distribution against its formula, and the sampler of memory against memory that is taken. And the clients of
 * the question `redis`: spans, due requests beside a server that stands still, and the protocol.
 */
#include <check.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "load.h"
#include "memory.h"
#include "openloop.h"
#include "resp.h"
#include "window.h"
#include "zipf.h"

static uint64_t seed_of_run(void)
{
	const char *text = getenv("UFFDWP_SEED");
	uint64_t seed = text ? strtoull(text, NULL, 0) : bench_now_ns();

	printf("UFFDWP_SEED=%llu\n", (unsigned long long)seed);
	return seed | 1;
}

/* -------------------------------------------------------------------------------------------------------- load -- */

/* Lets the writers run in a phase until at least one write of it is kept. How many are kept then. */
static uint64_t write_in(struct load *load, enum load_phase phase)
{
	static struct load_result result;
	struct timespec pause = {0, 1000000};

	do {
		load_phase(load, phase);
		nanosleep(&pause, NULL);
		load_phase(load, LOAD_HOLD);
		load_result(load, phase, &result);
	} while (!result.times.count);
	return result.times.count;
}

START_TEST(test_each_phase_keeps_its_own_writes)
{
	static char memory[1 << 16];
	static struct load_result result;
	struct load load;
	uint64_t counts[LOAD_KEPT];

	load_start(&load, LOAD_UNIFORM, memory, sizeof(memory), 2);
	for (unsigned phase = 0; phase < LOAD_KEPT; phase++)
		counts[phase] = write_in(&load, (enum load_phase)phase);
	load_phase(&load, LOAD_WARM);
	load_stop(&load);
	for (unsigned phase = 0; phase < LOAD_KEPT; phase++) {
		load_result(&load, (enum load_phase)phase, &result);
		ck_assert_uint_eq(result.times.count, counts[phase]);
	}
	load_free(&load);
}
END_TEST

/* Writers at the gate are inside of a write, whose time holds how long it was closed. */
START_TEST(test_write_that_meets_a_closed_gate_is_as_long_as_it_is_closed)
{
	static char memory[1 << 16];
	static struct load_result result;
	struct timespec pause = {0, 20000000};
	struct load load;

	load_start(&load, LOAD_SEQUENTIAL, memory, sizeof(memory), 2);
	for (int round = 0; round < 5; round++) {
		char before[sizeof(memory)];

		load_phase(&load, LOAD_DURING);
		load_close_gate(&load);
		memcpy(before, memory, sizeof(memory));
		nanosleep(&pause, NULL);
		ck_assert_mem_eq(before, memory, sizeof(memory));
		load_open_gate(&load);
	}
	load_stop(&load);
	load_result(&load, LOAD_DURING, &result);
	ck_assert_uint_ge(result.times.largest_ns, 20000000 - 1000);
	load_free(&load);
}
END_TEST

/* In HOLD no writer is at the gate, and none comes. */
START_TEST(test_gate_closes_while_writers_stand_still)
{
	static char memory[1 << 16];
	struct load load;

	load_start(&load, LOAD_UNIFORM, memory, sizeof(memory), 2);
	load_close_gate(&load);
	load_open_gate(&load);
	load_stop(&load);
	load_free(&load);
}
END_TEST

START_TEST(test_timeline_and_histogram_count_the_same_writes)
{
	static char memory[1 << 16];
	static struct load_result result;
	struct load load;
	uint64_t counted = 0;

	load_start(&load, LOAD_ZIPF, memory, sizeof(memory), 2);
	write_in(&load, LOAD_DURING);
	load_stop(&load);
	load_result(&load, LOAD_DURING, &result);
	for (size_t slot = 0; slot < LOAD_SLOTS; slot++)
		counted += load_timeline(&load, slot);
	ck_assert_uint_eq(counted, result.times.count);
	load_forget(&load, LOAD_DURING);
	load_result(&load, LOAD_DURING, &result);
	ck_assert_uint_eq(result.times.count, 0);
	load_free(&load);
}
END_TEST

/* A window over all of the time has all writes, one that has not begun has none; what is counted is never lost. */
START_TEST(test_window_counts_the_writes_that_were_done_in_it)
{
	static char memory[1 << 16];
	static struct load_result result;
	struct load load;
	uint64_t counted;

	load_start(&load, LOAD_UNIFORM, memory, sizeof(memory), 2);
	write_in(&load, LOAD_BEFORE);
	ck_assert_uint_eq(load_window_writes(&load), 0);
	load_open_window(&load, bench_now_ns(), 3600000000000u);
	write_in(&load, LOAD_DURING);
	load_result(&load, LOAD_DURING, &result);
	counted = load_window_writes(&load);
	ck_assert_uint_eq(counted, result.times.count);
	load_open_window(&load, bench_now_ns() + 3600000000000u, 3600000000000u);
	write_in(&load, LOAD_AFTER);
	ck_assert_uint_eq(load_window_writes(&load), counted);
	load_stop(&load);
	load_free(&load);
}
END_TEST

/* The window ends while the writers go on: the second witness is the timeline, in whole slots. */
START_TEST(test_window_ends_while_writers_go_on)
{
	static char memory[1 << 16];
	static struct load_result result;
	struct load load;
	uint64_t inside = 0;
	uint64_t around = 0;

	load_start(&load, LOAD_UNIFORM, memory, sizeof(memory), 1);
	load_open_window(&load, load.origin_ns + 2 * LOAD_SLOT_NS, 8 * LOAD_SLOT_NS);
	load_phase(&load, LOAD_DURING);
	while (bench_now_ns() < load.origin_ns + 12 * LOAD_SLOT_NS)
		nanosleep(&(struct timespec){0, 1000000}, NULL);
	load_stop(&load);
	load_result(&load, LOAD_DURING, &result);
	for (size_t slot = 0; slot < 12; slot++) {
		inside += slot >= 2 && slot < 10 ? load_timeline(&load, slot) : 0;
		around += load_timeline(&load, slot);
	}
	/* A write that begins in one slot may be done in the next: one at each end. */
	ck_assert_uint_le(load_window_writes(&load), inside + 1);
	ck_assert_uint_ge(load_window_writes(&load) + 1, inside);
	ck_assert_uint_le(around, result.times.count);
	load_free(&load);
}
END_TEST

static struct load_result paced[LOAD_KEPT];

/* 20 ms at a closed gate, then on: what was due meanwhile comes late, and in the phase in which it was due. */
static void write_late(struct load *load)
{
	struct timespec pause = {0, 20000000};

	load_phase(load, LOAD_DURING);
	load_close_gate(load);
	nanosleep(&pause, NULL);
	load_phase(load, LOAD_AFTER);
	nanosleep(&pause, NULL);
	load_open_gate(load);
	load_phase(load, LOAD_HOLD);
	load_result(load, LOAD_DURING, &paced[LOAD_DURING]);
	load_result(load, LOAD_AFTER, &paced[LOAD_AFTER]);
}

/* No verdict by the clock: as many times as writes were due, by the moments at which the phases changed. */
START_TEST(test_each_write_that_was_due_has_a_time_in_its_phase_however_late)
{
	static char memory[1 << 16];
	struct load load;

	load_start(&load, LOAD_PACED_100K, memory, sizeof(memory), 2);
	for (int round = 0; round < 5; round++) {
		uint64_t kept;
		uint64_t during;
		uint64_t least;
		uint64_t most;

		write_late(&load);
		during = window_due_count(load.since_ns[LOAD_DURING], load.since_ns[LOAD_AFTER], 100000);
		kept = paced[LOAD_DURING].times.count + paced[LOAD_AFTER].times.count;
		least = load_due_writes(&load, &most);
		ck_assert_uint_ge(kept, least);
		ck_assert_uint_le(kept, most);
		ck_assert_uint_eq(paced[LOAD_DURING].times.count, 2 * during);
		load_forget(&load, LOAD_DURING);
		load_forget(&load, LOAD_AFTER);
	}
	load_stop(&load);
	load_free(&load);
}
END_TEST

/* Each write that was due while the gate was closed has waited until it was opened, not only the one that met it. */
START_TEST(test_delay_is_found_in_every_write_that_it_delays)
{
	static char memory[1 << 16];
	struct load load;

	load_start(&load, LOAD_PACED_20K, memory, sizeof(memory), 1);
	write_late(&load);
	load_stop(&load);
	/* Those of the first 19 of 20 ms were due at least 21 ms before. */
	ck_assert_uint_ge(paced[LOAD_DURING].times.count, 19 * 20);
	ck_assert_double_ge(histogram_quantile(&paced[LOAD_DURING].times, 0.5), 20e6 * 0.99);
	ck_assert_uint_ge(paced[LOAD_DURING].times.largest_ns, 39000000);
	load_free(&load);
}
END_TEST

START_TEST(test_moment_belongs_to_the_phase_that_began_last_before_it)
{
	static struct load load;

	memset(&load, 0, sizeof(load));
	load.since_ns[LOAD_HOLD] = 10;
	load.since_ns[LOAD_DURING] = 20;
	load.since_ns[LOAD_AFTER] = 30;
	ck_assert_uint_eq(load_phase_at(&load, 15), LOAD_HOLD);
	ck_assert_uint_eq(load_phase_at(&load, 20), LOAD_DURING);
	ck_assert_uint_eq(load_phase_at(&load, 29), LOAD_DURING);
	ck_assert_uint_eq(load_phase_at(&load, 30), LOAD_AFTER);
	load.since_ns[LOAD_HOLD] = 40;
	ck_assert_uint_eq(load_phase_at(&load, 25), LOAD_DURING);
	ck_assert_uint_eq(load_phase_at(&load, 39), LOAD_AFTER);
	ck_assert_uint_eq(load_phase_at(&load, 41), LOAD_HOLD);
}
END_TEST

/* -------------------------------------------------------------------------------------------------------- zipf -- */

/* What the table says of each page, without a draw: the second witness of the distribution. */
static void shares_of_table(const struct zipf *zipf, double *shares)
{
	memset(shares, 0, zipf->count * sizeof(*shares));
	for (uint32_t cell = 0; cell < zipf->count; cell++) {
		double keep = zipf->cells[cell].keep / 4294967296.0;

		shares[zipf->cells[cell].own] += keep / zipf->count;
		shares[zipf->cells[cell].other] += (1 - keep) / zipf->count;
	}
}

static double sum_of_powers(uint32_t count, double theta)
{
	double sum = 0;

	for (uint32_t rank = 0; rank < count; rank++)
		sum += pow(rank + 1.0, -theta);
	return sum;
}

START_TEST(test_zipf_table_has_the_share_of_each_rank)
{
	static const uint32_t counts[] = {1, 2, 3, 16, 1000, 65537};
	uint64_t seed = seed_of_run();

	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		uint32_t count = counts[i];
		double sum = sum_of_powers(count, ZIPF_THETA);
		double *shares = calloc(count, sizeof(*shares));
		struct zipf zipf;

		zipf_init(&zipf, count, ZIPF_THETA, seed);
		shares_of_table(&zipf, shares);
		for (uint32_t rank = 0; rank < count; rank++)
			ck_assert_double_eq_tol(shares[zipf.pages[rank]], pow(rank + 1.0, -ZIPF_THETA) / sum, 1e-9);
		zipf_fini(&zipf);
		free(shares);
	}
}
END_TEST

START_TEST(test_zipf_ranks_are_a_permutation_that_follows_from_the_seed)
{
	static unsigned char seen[5000];
	uint64_t seed = seed_of_run();
	struct zipf a;
	struct zipf b;
	struct zipf other;
	uint32_t neighbours = 0;

	zipf_init(&a, 5000, ZIPF_THETA, seed);
	zipf_init(&b, 5000, ZIPF_THETA, seed);
	zipf_init(&other, 5000, ZIPF_THETA, seed + 2);
	ck_assert_mem_eq(a.pages, b.pages, 5000 * sizeof(*a.pages));
	ck_assert_mem_ne(a.pages, other.pages, 5000 * sizeof(*a.pages));
	for (uint32_t rank = 0; rank < 5000; rank++) {
		ck_assert_uint_lt(a.pages[rank], 5000);
		ck_assert_uint_eq(seen[a.pages[rank]]++, 0);
		neighbours += rank && a.pages[rank] == a.pages[rank - 1] + 1;
	}
	ck_assert_uint_lt(neighbours, 50);
	zipf_fini(&a);
	zipf_fini(&b);
	zipf_fini(&other);
}
END_TEST

/* Six standard deviations: once in 500 million runs for each rank. */
START_TEST(test_zipf_draws_are_spread_as_the_table_says)
{
	static uint32_t drawn[256];
	const double draws = 2000000;
	double sum = sum_of_powers(256, ZIPF_THETA);
	uint64_t state = seed_of_run();
	struct zipf zipf;

	zipf_init(&zipf, 256, ZIPF_THETA, state);
	for (uint32_t i = 0; i < (uint32_t)draws; i++)
		drawn[zipf_draw(&zipf, &state)]++;
	for (uint32_t rank = 0; rank < 256; rank++) {
		double share = pow(rank + 1.0, -ZIPF_THETA) / sum;

		ck_assert_double_eq_tol(drawn[zipf.pages[rank]], draws * share, 6 * sqrt(draws * share * (1 - share)));
	}
	zipf_fini(&zipf);
}
END_TEST

/* ------------------------------------------------------------------------------------------------------ memory -- */

START_TEST(test_account_of_memory_is_read_from_its_text)
{
	static const char text[] =
	        "5581-7ffc ---p 00000000 00:00 0    [rollup]\n"
	        "Rss:                2000 kB\nPss:                1500 kB\nPss_Dirty:          700 kB\nPss_Anon:       "
	        "     300 kB\n"
	        "Private_Clean:         4 kB\nPrivate_Dirty:      1200 kB\nPrivate_Hugetlb:    2048 kB\n";
	struct memory_use use;

	ck_assert_int_eq(memory_parse(text, &use), 0);
	ck_assert_uint_eq(use.pss_bytes, 1500 << 10);
	ck_assert_uint_eq(use.private_bytes, (4 + 1200 + 2048) << 10);
	ck_assert_uint_eq(use.anon_bytes, 300 << 10);
	ck_assert_int_eq(memory_parse("Rss: 12 kB\n", &use), -EINVAL);
	ck_assert_int_eq(memory_parse("", &use), -EINVAL);
}
END_TEST

START_TEST(test_account_of_a_process_that_is_not_there_is_an_error)
{
	struct memory_use use;
	pid_t child = fork();

	if (child == 0)
		_exit(0);
	ck_assert_int_eq(waitpid(child, NULL, 0), child);
	ck_assert_int_lt(memory_read(child, &use), 0);
	ck_assert_uint_eq(use.pss_bytes, 0);
}
END_TEST

START_TEST(test_page_tables_of_a_process_are_in_its_status)
{
	ck_assert_uint_gt(memory_status_bytes(getpid(), "VmPTE"), 0);
	ck_assert_uint_eq(memory_status_bytes(getpid(), "VmNothing"), 0);
}
END_TEST

#define TAKEN_BYTES ((size_t)32 << 20)

static char *take_memory(void)
{
	char *memory = mmap(NULL, TAKEN_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ck_assert_ptr_ne(memory, MAP_FAILED);
	madvise(memory, TAKEN_BYTES, MADV_NOHUGEPAGE);
	memset(memory, 1, TAKEN_BYTES);
	return memory;
}

/* The sampler looks once more when it is asked to stop. */
START_TEST(test_sampler_finds_memory_that_was_taken)
{
	static struct memory_sampler sampler;
	char *memory;

	memory_sampler_start(&sampler, 1000000);
	memory = take_memory();
	memory_sampler_stop(&sampler);
	ck_assert_uint_ge(memory_extra_pss(&sampler), TAKEN_BYTES);
	ck_assert_uint_le(memory_extra_pss(&sampler), TAKEN_BYTES + (4 << 20));
	ck_assert_uint_ge(memory_extra_private(&sampler), TAKEN_BYTES);
	munmap(memory, TAKEN_BYTES);
}
END_TEST

/* What a child shares with its parent is counted once; what either has changed since is extra. */
START_TEST(test_sampler_adds_up_parent_and_child)
{
	static struct memory_sampler sampler;
	char *memory = take_memory();
	int ends[2];
	pid_t child;

	ck_assert_int_eq(pipe(ends), 0);
	memory_sampler_start(&sampler, 1000000);
	child = fork();
	if (child == 0) {
		char byte;

		close(ends[1]);
		_exit(read(ends[0], &byte, 1) == 0 ? 0 : 1);
	}
	memset(memory, 2, TAKEN_BYTES / 2);
	memory_sampler_child(&sampler, child);
	memory_sampler_stop(&sampler);
	close(ends[1]);
	ck_assert_int_eq(waitpid(child, NULL, 0), child);
	close(ends[0]);
	ck_assert_uint_ge(memory_extra_pss(&sampler), TAKEN_BYTES / 2 - (1 << 20));
	ck_assert_uint_le(memory_extra_pss(&sampler), TAKEN_BYTES / 2 + (4 << 20));
	munmap(memory, TAKEN_BYTES);
}
END_TEST

/* A long run keeps its first sample, its order, and room for more. */
START_TEST(test_sampler_that_is_full_drops_every_second_sample)
{
	static struct memory_sampler sampler;

	memory_sampler_start(&sampler, 1);
	while (atomic_load(&sampler.thinned) < 2)
		nanosleep(&(struct timespec){0, 1000000}, NULL);
	memory_sampler_stop(&sampler);
	ck_assert_uint_ge(sampler.count, MEMORY_SAMPLES / 2);
	ck_assert_uint_le(sampler.count, MEMORY_SAMPLES);
	for (size_t i = 1; i < sampler.count; i++)
		ck_assert_uint_gt(sampler.samples[i].at_ns, sampler.samples[i - 1].at_ns);
}
END_TEST

/* ---------------------------------------------------------------------------------------------------- open loop -- */

START_TEST(test_request_meets_a_span_if_a_moment_of_it_does)
{
	static struct openloop_spans spans;

	ck_assert_int_eq(openloop_spans_meet(&spans, 0, UINT64_MAX), 0);
	openloop_span_begin(&spans, 100);
	ck_assert_int_eq(openloop_spans_meet(&spans, 90, 99), 0);
	ck_assert_int_eq(openloop_spans_meet(&spans, 90, 100), 1);
	ck_assert_int_eq(openloop_spans_meet(&spans, 5000, 6000), 1);
	openloop_span_end(&spans, 200);
	ck_assert_int_eq(openloop_spans_meet(&spans, 199, 300), 1);
	ck_assert_int_eq(openloop_spans_meet(&spans, 200, 300), 0);
	openloop_span_begin(&spans, 400);
	openloop_span_end(&spans, 500);
	ck_assert_int_eq(openloop_spans_meet(&spans, 200, 399), 0);
	ck_assert_int_eq(openloop_spans_meet(&spans, 50, 900), 1);
	ck_assert_int_eq(openloop_spans_meet(&spans, 150, 160), 1);
}
END_TEST

START_TEST(test_latency_is_kept_in_its_class_and_its_slot)
{
	static struct openloop loop;

	loop.origin_ns = 1000;
	loop.record_from_ns = 2000;
	loop.record_until_ns = 50000000;
	openloop_span_begin(&loop.spans, 30000000);
	openloop_keep(&loop, 1500, 500000);       /* due before the record */
	openloop_keep(&loop, 20000000, 21000000); /* at rest, in slot 1 */
	openloop_keep(&loop, 20000001, 20000500); /* the same slot, not as long */
	openloop_keep(&loop, 29999999, 33000000); /* due before the span, delayed by it */
	openloop_keep(&loop, 50000000, 51000000); /* due when the record has ended */
	ck_assert_uint_eq(loop.latencies[OPENLOOP_REST].count, 2);
	ck_assert_uint_eq(loop.latencies[OPENLOOP_REST].largest_ns, 1000000);
	ck_assert_uint_eq(loop.latencies[OPENLOOP_SPAN].count, 1);
	ck_assert_uint_eq(loop.latencies[OPENLOOP_SPAN].largest_ns, 3000001);
	ck_assert_uint_eq(loop.slots_us[0], 498);
	ck_assert_uint_eq(loop.slots_us[1], 1000);
	ck_assert_uint_eq(loop.slots_us[2], 3000);
}
END_TEST

#define SERVED_VALUE_BYTES 64
#define SERVED_GET_BYTES 40
#define SERVED_SET_BYTES 111
#define SERVED_DIGITS 22 /* of a key, from the start of a command on */

/* A server of one connection, which answers as Redis does, with values that it does not keep. */
struct served {
	int fd;
	uint64_t requests;
	uint64_t stalls_at; /* 0: at no request */
	int is_wrong;
};

/* The bytes of the first command, or 0. */
static size_t serve_command(struct served *served, const char *command, size_t length)
{
	char reply[128] = "+OK\r\n";
	struct timespec stall = {0, 60000000};
	int is_read = length > 1 && command[1] == '2';
	size_t bytes = is_read ? SERVED_GET_BYTES : SERVED_SET_BYTES;

	if (length < bytes)
		return 0;
	if (++served->requests == served->stalls_at)
		nanosleep(&stall, NULL);
	if (is_read)
		snprintf(reply, sizeof(reply), "$%d\r\n%.16s%048d\r\n", SERVED_VALUE_BYTES,
		         served->is_wrong ? "0123456789abcdef" : command + SERVED_DIGITS, 0);
	ck_assert_int_eq(send(served->fd, reply, strlen(reply), MSG_NOSIGNAL), (ssize_t)strlen(reply));
	return bytes;
}

static void *serve(void *argument)
{
	static char bytes[1 << 16];
	struct served *served = argument;
	size_t used = 0;
	ssize_t got;

	while ((got = recv(served->fd, bytes + used, sizeof(bytes) - used, 0)) > 0) {
		size_t taken = 0;
		size_t command;

		used += (size_t)got;
		while ((command = serve_command(served, bytes + taken, used - taken)) > 0)
			taken += command;
		used -= taken;
		memmove(bytes, bytes + taken, used);
	}
	return NULL;
}

/* Runs `run` beside such a server. */
static void beside_server(struct openloop *loop, struct served *served, void (*run)(struct openloop *loop))
{
	pthread_t thread;
	int ends[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	served->fd = ends[1];
	loop->fds[0] = ends[0];
	loop->connection_count = 1;
	loop->keys = 1000;
	loop->value_bytes = SERVED_VALUE_BYTES;
	loop->depth = 8;
	loop->seed = seed_of_run();
	ck_assert_int_eq(pthread_create(&thread, NULL, serve, served), 0);
	run(loop);
	close(ends[0]);
	pthread_join(thread, NULL);
	close(ends[1]);
}

static void run_open(struct openloop *loop)
{
	struct timespec pause = {0, 300000000};

	loop->record_until_ns = UINT64_MAX;
	loop->record_from_ns = 1;
	openloop_start(loop);
	nanosleep(&pause, NULL);
	openloop_end_record(loop);
	openloop_stop(loop);
}

static void run_closed(struct openloop *loop)
{
	ck_assert_double_gt(openloop_run(loop), 0);
}

/* 60 ms at 2000 a second: 120 requests become due meanwhile, and each waits until the end of it. A loop that waits for
 * replies would see one. */
START_TEST(test_requests_that_are_due_while_the_server_stands_still_are_late)
{
	static struct openloop loop = {.kind = OPENLOOP_OPEN, .requests_per_s = 2000};
	struct served served = {.stalls_at = 100};
	const struct histogram *latencies = &loop.latencies[OPENLOOP_REST];

	beside_server(&loop, &served, run_open);
	ck_assert_uint_eq(latencies->count, openloop_due(&loop, loop.record_until_ns));
	ck_assert_uint_ge(latencies->largest_ns, 59000000);
	/* 100 of them wait for 10 ms or more. */
	ck_assert_double_ge(histogram_quantile(latencies, 1 - 90.0 / (double)latencies->count), 10e6);
	ck_assert_uint_eq(loop.made, loop.done);
	ck_assert_uint_eq(served.requests, loop.made);
}
END_TEST

START_TEST(test_fill_sets_each_key_once)
{
	static struct openloop loop = {.kind = OPENLOOP_FILL};
	struct served served = {.stalls_at = 0};

	beside_server(&loop, &served, run_closed);
	ck_assert_uint_eq(loop.done, 1000);
	ck_assert_uint_eq(served.requests, 1000);
}
END_TEST

START_TEST(test_closed_loop_ends_with_a_reply_to_each_request)
{
	static struct openloop loop = {.kind = OPENLOOP_CLOSED, .limit_ns = 50000000};
	struct served served = {.stalls_at = 0};

	beside_server(&loop, &served, run_closed);
	ck_assert_uint_gt(loop.done, 0);
	ck_assert_uint_eq(loop.done, loop.made);
	ck_assert_uint_eq(served.requests, loop.made);
}
END_TEST

START_TEST(test_value_of_another_key_ends_the_program)
{
	static struct openloop loop = {.kind = OPENLOOP_CLOSED, .limit_ns = 10000000000};
	struct served served = {.is_wrong = 1};

	beside_server(&loop, &served, run_closed);
}
END_TEST

/* -------------------------------------------------------------------------------------------------------- resp -- */

START_TEST(test_commands_are_arrays_of_strings)
{
	char out[RESP_HEAD_BYTES];
	size_t length = resp_command(out, "BGSAVE", NULL);

	ck_assert_mem_eq(out, "*1\r\n$6\r\nBGSAVE\r\n", length);
	length = resp_command(out, "INFO", "stats");
	ck_assert_mem_eq(out, "*2\r\n$4\r\nINFO\r\n$5\r\nstats\r\n", length);
	length = resp_get(out, 0xabc);
	ck_assert_mem_eq(out, "*2\r\n$3\r\nGET\r\n$20\r\nkey:0000000000000abc\r\n", length);
	length = resp_set_head(out, UINT64_MAX, 1024);
	ck_assert_mem_eq(out, "*3\r\n$3\r\nSET\r\n$20\r\nkey:ffffffffffffffff\r\n$1024\r\n", length);
}
END_TEST

/* However a reply is cut, it is taken when it is whole, and not before. */
START_TEST(test_reply_is_taken_when_it_is_whole)
{
	static const char *const replies[] = {"+OK\r\n", "-ERR no\r\n", ":12\r\n", "$5\r\nab\r\nc\r\n", "$-1\r\n"};
	struct resp_reply reply;

	for (size_t i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
		size_t whole = strlen(replies[i]);

		for (size_t length = 0; length < whole; length++)
			ck_assert_int_eq(resp_parse(replies[i], length, &reply), 0);
		ck_assert_int_eq(resp_parse(replies[i], whole, &reply), (ssize_t)whole);
		ck_assert_int_eq(reply.type, replies[i][0]);
	}
	ck_assert_ptr_null(reply.text);
	ck_assert_int_eq(resp_parse("*1\r\n", 4, &reply), -1);
	ck_assert_int_eq(resp_parse("$1\r\nabc", 7, &reply), -1);
	ck_assert_int_eq(resp_parse("$9999999999\r\n", 13, &reply), -1);
}
END_TEST

START_TEST(test_value_is_of_its_key)
{
	static const char bytes[] = "$20\r\n00000000000000ffrest\r\n";
	struct resp_reply reply;

	ck_assert_int_gt(resp_parse(bytes, strlen(bytes), &reply), 0);
	ck_assert_int_eq(resp_is_value(&reply, 255, 20), 1);
	ck_assert_int_eq(resp_is_value(&reply, 254, 20), 0);
	ck_assert_int_eq(resp_is_value(&reply, 255, 21), 0);
}
END_TEST

START_TEST(test_fields_of_info_are_found_by_their_whole_name)
{
	static const char info[] = "# Stats\r\nlatest_fork_usec_max:9\r\nlatest_fork_usec:1234\r\n";

	ck_assert_int_eq(resp_info(info, "latest_fork_usec"), 1234);
	ck_assert_int_eq(resp_info(info, "fork_usec"), -1);
}
END_TEST

static Suite *suite(void)
{
	Suite *suite = suite_create("load");
	TCase *load = tcase_create("load");
	TCase *zipf = tcase_create("zipf");
	TCase *memory = tcase_create("memory");
	TCase *openloop = tcase_create("openloop");
	TCase *resp = tcase_create("resp");

	tcase_add_test(load, test_each_phase_keeps_its_own_writes);
	tcase_add_test(load, test_write_that_meets_a_closed_gate_is_as_long_as_it_is_closed);
	tcase_add_test(load, test_gate_closes_while_writers_stand_still);
	tcase_add_test(load, test_timeline_and_histogram_count_the_same_writes);
	tcase_add_test(load, test_window_counts_the_writes_that_were_done_in_it);
	tcase_add_test(load, test_window_ends_while_writers_go_on);
	tcase_add_test(load, test_each_write_that_was_due_has_a_time_in_its_phase_however_late);
	tcase_add_test(load, test_delay_is_found_in_every_write_that_it_delays);
	tcase_add_test(load, test_moment_belongs_to_the_phase_that_began_last_before_it);
	tcase_set_timeout(load, 120);
	suite_add_tcase(suite, load);
	tcase_add_test(zipf, test_zipf_table_has_the_share_of_each_rank);
	tcase_add_test(zipf, test_zipf_ranks_are_a_permutation_that_follows_from_the_seed);
	tcase_add_test(zipf, test_zipf_draws_are_spread_as_the_table_says);
	suite_add_tcase(suite, zipf);
	tcase_add_test(memory, test_account_of_memory_is_read_from_its_text);
	tcase_add_test(memory, test_account_of_a_process_that_is_not_there_is_an_error);
	tcase_add_test(memory, test_page_tables_of_a_process_are_in_its_status);
	tcase_add_test(memory, test_sampler_finds_memory_that_was_taken);
	tcase_add_test(memory, test_sampler_adds_up_parent_and_child);
	tcase_add_test(memory, test_sampler_that_is_full_drops_every_second_sample);
	tcase_set_timeout(memory, 120);
	suite_add_tcase(suite, memory);
	tcase_add_test(openloop, test_request_meets_a_span_if_a_moment_of_it_does);
	tcase_add_test(openloop, test_latency_is_kept_in_its_class_and_its_slot);
	tcase_add_test(openloop, test_requests_that_are_due_while_the_server_stands_still_are_late);
	tcase_add_test(openloop, test_fill_sets_each_key_once);
	tcase_add_test(openloop, test_closed_loop_ends_with_a_reply_to_each_request);
	tcase_add_exit_test(openloop, test_value_of_another_key_ends_the_program, BENCH_EXIT_ERROR);
	tcase_set_timeout(openloop, 120);
	suite_add_tcase(suite, openloop);
	tcase_add_test(resp, test_commands_are_arrays_of_strings);
	tcase_add_test(resp, test_reply_is_taken_when_it_is_whole);
	tcase_add_test(resp, test_value_is_of_its_key);
	tcase_add_test(resp, test_fields_of_info_are_found_by_their_whole_name);
	suite_add_tcase(suite, resp);
	return suite;
}

int main(void)
{
	SRunner *runner = srunner_create(suite());
	int failed;

	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
