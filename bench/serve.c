/* SPDX-License-Identifier: MIT */
/*
 * Question: what does it cost that the faults of another process are served by the library, as `uffdwp-ctl serve` does?
 *
 * A guest is a process with a memfd, whose userfaultfd this process has. Contenders: an adopted region of the library,
 * and the loop that a monitor's author would write (poll, read, one call), each with a guest of its own, on the same
 * CPUs; they take turns, a window of pages each. Cases:
 *  - write: the first write to a protected page, the guest on one CPU, its handler on the same or on another;
 *  - fill: the first read of a page that is not there, one of each 64 KiB; all: as long as it takes to read all pages
 * in random order. Both fetch on demand alone, from a file that is in memory. The library brings 64 KiB at a time, the
 *    bare loop a page: `fill` is more work for the library, and `all` says what it is good for;
 *  - order: pages that a guest has used a second after a lazy restore from a slow disk began (serve_slow.h);
 *  - first: from the call that begins a lazy restore until the guest has read a first page.
 *
 * Threads: the main one sends guests to work, and waits.
 */
#include "serve.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench.h"
#include "contender.h"
#include "report.h"
#include "rounds.h"
#include "serve_slow.h"

#define WINDOW 64
#define BLOCK_BYTES (64u << 10) /* what the library fetches for one access */
#define MODES_WP 2              /* UFFDIO_REGISTER_MODE_WP */
#define MODES_MISSING 1

enum contender_kind { LIBRARY, BARE, KINDS };

static const char *const kind_names[KINDS] = {"library", "bare"};

struct settings {
	struct bench_settings common;
	uint64_t size_bytes;
	unsigned rounds;
	const char *parent;
};

/* One case of write, or those of reads. */
struct match {
	const char *name;
	struct guest guests[KINDS];
	struct uffdwp *runtime;
	struct uffdwp_region *region;
	struct serve_bare bare;
	struct rounds p50[KINDS];
	struct rounds p99[KINDS];
};

static char folder[256];
static char image_path[300];

/* ---- the image ---- */

static void remove_image(void)
{
	(void)unlink(image_path);
	(void)rmdir(folder);
}

/* Each page holds its number and one. */
static void make_image(const struct settings *settings)
{
	size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
	uint64_t *page = calloc(1, page_bytes);

	snprintf(folder, sizeof(folder), "%s/uffdwp-bench-XXXXXX", settings->parent);
	if (!page || !mkdtemp(folder))
		bench_die("%s: %s", folder, strerror(errno));
	snprintf(image_path, sizeof(image_path), "%s/image", folder);
	atexit(remove_image);
	FILE *file = fopen(image_path, "we");

	for (uint64_t i = 0; file && i < settings->size_bytes / page_bytes; i++) {
		page[0] = i + 1;
		if (fwrite(page, page_bytes, 1, file) != 1)
			bench_die("%s: %s", image_path, strerror(errno));
	}
	if (!file || fclose(file))
		bench_die("%s: %s", image_path, strerror(errno));
	free(page);
}

/* ---- a match ---- */

static void shuffle_for(struct match *match, size_t pages, uint64_t seed)
{
	for (int kind = 0; kind < KINDS; kind++) {
		for (uint32_t i = 0; i < pages; i++)
			match->guests[kind].board->order[i] = i;
		contender_shuffle(match->guests[kind].board->order, pages, seed);
	}
}

/* One page of each block, in random order. */
static uint32_t shuffle_blocks(struct match *match, uint64_t seed)
{
	uint32_t per_block = (uint32_t)(BLOCK_BYTES / match->guests[0].page_bytes);
	uint32_t blocks = (uint32_t)(match->guests[0].length_bytes / BLOCK_BYTES);

	for (int kind = 0; kind < KINDS; kind++) {
		uint32_t *order = match->guests[kind].board->order;

		contender_shuffle(order, blocks, seed);
		for (uint32_t i = 0; i < blocks; i++)
			order[i] = order[i] * per_block + (uint32_t)(seed + i) % per_block;
	}
	return blocks;
}

static void adopt(struct match *match, uint32_t mechanism, int cpu)
{
	const struct guest *guest = &match->guests[LIBRARY];
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	struct uffdwp_mapping mapping = {.address = guest->address, .length = guest->length_bytes};
	struct uffdwp_mapper mapper = UFFDWP_MAPPER_INIT;
	char cpus[16];
	char text[512];

	snprintf(cpus, sizeof(cpus), "%d", cpu);
	match->runtime = library_runtime(1, cpus);
	options.fd = guest->memfd;
	options.mechanism = mechanism;
	mapper.uffd = guest->uffd;
	mapper.mapping_count = 1;
	mapper.mappings = &mapping;
	if (uffdwp_region_adopt(match->runtime, guest->length_bytes, &options, &mapper, &match->region)) {
		(void)uffdwp_error_text(text, sizeof(text));
		bench_skip("uffdwp_region_adopt: %s", text);
	}
}

static void open_match(struct match *match, const struct settings *settings, int reads, int guest_cpu, int handler_cpu)
{
	uint32_t pages = (uint32_t)(settings->size_bytes / (uint64_t)sysconf(_SC_PAGESIZE));

	guest_start(&match->guests[LIBRARY], settings->size_bytes, 0, guest_cpu);
	guest_start(&match->guests[BARE], settings->size_bytes, reads ? MODES_MISSING : MODES_WP, guest_cpu);
	match->bare = (struct serve_bare){.guest = &match->guests[BARE], .image = -1, .cpu = handler_cpu};
	if (reads) {
		match->bare.image = open(image_path, O_RDONLY | O_CLOEXEC);
		if (match->bare.image < 0)
			bench_die("%s: %s", image_path, strerror(errno));
	}
	adopt(match, reads ? UFFDWP_MECHANISM_REARM : UFFDWP_MECHANISM_AUTO, handler_cpu);
	serve_bare_start(&match->bare);
	shuffle_for(match, pages, 1);
	for (int kind = 0; kind < KINDS && !reads; kind++)
		guest_work(&match->guests[kind], GUEST_FILL, 0, pages);
}

static void close_match(struct match *match)
{
	bench_must(uffdwp_region_close(match->region), "uffdwp_region_close");
	bench_must(uffdwp_close(match->runtime), "uffdwp_close");
	serve_bare_stop(&match->bare);
	if (match->bare.image >= 0)
		close(match->bare.image);
	for (int kind = 0; kind < KINDS; kind++)
		guest_end(&match->guests[kind]);
}

/* Windows in turns. */
static void take_turns(struct match *match, enum guest_work work, uint32_t pages)
{
	for (int kind = 0; kind < KINDS; kind++)
		histogram_clear(&match->guests[kind].board->times);
	for (uint32_t at = 0, turn = 0; at < pages; at += WINDOW, turn++) {
		uint32_t count = pages - at < WINDOW ? pages - at : WINDOW;

		for (unsigned kind = 0; kind < KINDS; kind++)
			guest_work(&match->guests[(kind + turn) % KINDS], work, at, count);
	}
}

static void keep_quantiles(struct match *match)
{
	for (int kind = 0; kind < KINDS; kind++) {
		const struct histogram *times = &match->guests[kind].board->times;

		rounds_keep(&match->p50[kind], histogram_quantile(times, 0.5));
		rounds_keep(&match->p99[kind], histogram_quantile(times, 0.99));
	}
}

static void report_match(struct report *report, const struct match *match, int json)
{
	struct rounds ratios;
	char name[80];

	for (int kind = 0; kind < KINDS; kind++) {
		snprintf(name, sizeof(name), "%s.%s.p50_ns", match->name, kind_names[kind]);
		rounds_report(report, &match->p50[kind], name);
		snprintf(name, sizeof(name), "%s.%s.p99_ns", match->name, kind_names[kind]);
		rounds_report(report, &match->p99[kind], name);
		if (!json)
			printf("%-18s %-8s p50 %8.2f us  p99 %8.2f us\n", match->name, kind_names[kind],
			       rounds_median(&match->p50[kind]) / 1e3, rounds_median(&match->p99[kind]) / 1e3);
	}
	rounds_over(&match->p50[LIBRARY], &match->p50[BARE], &ratios);
	snprintf(name, sizeof(name), "%s.library.p50_ratio_bare", match->name);
	rounds_report(report, &ratios, name);
}

/* ---- write ---- */

static void measure_writes(struct report *report, const struct settings *settings, const char *name, int handler_cpu)
{
	static struct match match;
	uint32_t pages = (uint32_t)(settings->size_bytes / (uint64_t)sysconf(_SC_PAGESIZE));

	memset(&match, 0, sizeof(match));
	match.name = name;
	open_match(&match, settings, 0, bench_cpu(0), handler_cpu);
	for (unsigned round = 0; round < settings->rounds; round++) {
		shuffle_for(&match, pages, round + 1);
		bench_must(uffdwp_region_arm(match.region, 0, settings->size_bytes), "uffdwp_region_arm");
		serve_bare_arm(&match.bare);
		take_turns(&match, GUEST_WRITE, pages);
		keep_quantiles(&match);
	}
	report_match(report, &match, settings->common.json);
	close_match(&match);
}

/* ---- reads ---- */

static struct uffdwp_restore *begin_restore(const struct match *match, uint32_t flags)
{
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	struct uffdwp_restore *restore = NULL;
	char text[512];

	options.path = image_path;
	options.flags = flags | UFFDWP_RESTORE_RAW;
	if (uffdwp_restore_begin(match->region, &options, &restore)) {
		(void)uffdwp_error_text(text, sizeof(text));
		bench_die("uffdwp_restore_begin: %s", text);
	}
	return restore;
}

static void expect_sum(const struct guest *guest, uint64_t pages)
{
	if (guest->board->sum != pages * (pages + 1) / 2)
		bench_die("a guest has read other content than the image's");
}

/* All pages of one guest, in random order. */
static double read_all(const struct guest *guest, uint32_t pages)
{
	uint64_t from_ns = bench_now_ns();

	guest_work(guest, GUEST_READ, 0, pages);
	expect_sum(guest, pages);
	return (double)(guest->board->end_ns - from_ns);
}

static void measure_fills(struct match *match, unsigned round)
{
	struct uffdwp_restore *restore = begin_restore(match, UFFDWP_RESTORE_BEGIN_ON_DEMAND);

	serve_bare_arm(&match->bare);
	take_turns(match, GUEST_READ, shuffle_blocks(match, round + 1));
	keep_quantiles(match);
	bench_must(uffdwp_restore_free(restore), "uffdwp_restore_free");
}

static void measure_all(struct match *match, unsigned round, struct rounds all_ns[KINDS])
{
	uint32_t pages = (uint32_t)(match->guests[0].length_bytes / match->guests[0].page_bytes);
	struct uffdwp_restore *restore = begin_restore(match, UFFDWP_RESTORE_BEGIN_ON_DEMAND);

	shuffle_for(match, pages, round + 1);
	serve_bare_arm(&match->bare);
	for (unsigned kind = 0; kind < KINDS; kind++) {
		unsigned which = (kind + round) % KINDS;

		rounds_keep(&all_ns[which], read_all(&match->guests[which], pages));
	}
	bench_must(uffdwp_restore_free(restore), "uffdwp_restore_free");
}

/* With the threads that fetch the rest. */
static void measure_first(const struct match *match, unsigned round, struct rounds *first_ns)
{
	const struct guest *guest = &match->guests[LIBRARY];
	uint32_t pages = (uint32_t)(guest->length_bytes / guest->page_bytes);
	/* A monitor that was just started has empty memory; to discard what there is takes as long as freeing it. */
	if (fallocate(guest->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)guest->length_bytes))
		bench_die("the guest's memory cannot be discarded: %s", strerror(errno));
	uint64_t from_ns = bench_now_ns();
	struct uffdwp_restore *restore = begin_restore(match, 0);

	guest_work(guest, GUEST_READ, round % pages, 1);
	rounds_keep(first_ns, (double)(guest->board->end_ns - from_ns));
	bench_must(uffdwp_restore_wait(restore, -1, NULL), "uffdwp_restore_wait");
	bench_must(uffdwp_restore_free(restore), "uffdwp_restore_free");
}

static void report_reads(struct report *report, const struct settings *settings, const struct rounds all_ns[KINDS],
                         const struct rounds *first_ns)
{
	struct rounds ratios;

	rounds_report(report, &all_ns[LIBRARY], "all.library.time_ns");
	rounds_report(report, &all_ns[BARE], "all.bare.time_ns");
	rounds_over(&all_ns[LIBRARY], &all_ns[BARE], &ratios);
	rounds_report(report, &ratios, "all.library.time_ratio_bare");
	rounds_report(report, first_ns, "first.library.read_ns");
	if (!settings->common.json) {
		printf("%-18s library  %.1f ms, bare %.1f ms\n", "all", rounds_median(&all_ns[LIBRARY]) / 1e6,
		       rounds_median(&all_ns[BARE]) / 1e6);
		printf("%-18s library  %.3f ms after begin was called\n", "first", rounds_median(first_ns) / 1e6);
	}
}

static void measure_reads(struct report *report, const struct settings *settings)
{
	static struct match match = {.name = "fill"};
	static struct rounds all_ns[KINDS];
	static struct rounds first_ns;

	open_match(&match, settings, 1, bench_cpu(0), bench_cpu(bench_cpus() > 1 ? 1 : 0));
	for (unsigned round = 0; round < settings->rounds; round++) {
		measure_fills(&match, round);
		measure_all(&match, round, all_ns);
		measure_first(&match, round, &first_ns);
	}
	report_match(report, &match, settings->common.json);
	report_reads(report, settings, all_ns, &first_ns);
	close_match(&match);
}

/* ---- the question ---- */

enum { KEY_SIZE = 's', KEY_ROUNDS = 'r', KEY_DIR = 'd' };

static const struct argp_option options[] = {
        {"dir", KEY_DIR, "FOLDER", 0, "Where the image lies (default /dev/shm: it is in memory)", 0},
        {"rounds", KEY_ROUNDS, "N", 0, "Times that all pages are used (default 8)", 0},
        {"size", KEY_SIZE, "BYTES", 0, "Memory of a guest (default 64M)", 0},
        {0},
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
	struct settings *settings = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &settings->common;
		return 0;
	case KEY_SIZE:
		settings->size_bytes = bench_size(argument);
		return 0;
	case KEY_ROUNDS:
		settings->rounds = bench_number(argument, ROUNDS_MAX);
		return 0;
	case KEY_DIR:
		settings->parent = argument;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp_child children[] = {{&bench_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {
        options,  parse, NULL, "Faults of another process: served by the library, and by the loop written by hand.",
        children, NULL,  NULL};

int serve_main(int argc, char **argv)
{
	struct settings settings = {.size_bytes = 64 << 20, .rounds = 8, .parent = "/dev/shm"};
	struct report report;

	bench_parse(&argp, argc, argv, &settings);
	if (settings.common.quick) {
		settings.rounds = 1;
		settings.size_bytes = 4 << 20;
	}
	if (settings.size_bytes % (1u << 20))
		bench_die("--size takes whole MiB");
	report_init(&report, "serve");
	report_note(&report, "memory", "memfds of %llu MiB, %u rounds", (unsigned long long)settings.size_bytes >> 20,
	            settings.rounds);
	report_note(&report, "placement", "guests on CPU %d, handlers there or on the next one (%d)", bench_cpu(0),
	            bench_cpu(bench_cpus() > 1 ? 1 : 0));
	make_image(&settings);
	if (!settings.common.json)
		report_print_notes(&report);
	serve_slow_measure(&report, &settings.common, folder);
	measure_writes(&report, &settings, "write.same_cpu", bench_cpu(0));
	if (bench_cpus() > 1)
		measure_writes(&report, &settings, "write.other_cpu", bench_cpu(1));
	measure_reads(&report, &settings);
	int code = report_finish(&report, &settings.common);

	report_fini(&report);
	return code;
}
