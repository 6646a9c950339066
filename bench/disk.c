/* SPDX-License-Identifier: MIT */
/*
 * Question: does an image come as fast as the disk takes it?
 *
 * The library's whole snapshot of a region that nobody writes, from the begin call until the image is durable under its
 * name, against dd with O_DIRECT, requests of 1 MiB and an fsync, which copies the same bytes (the file behind the
 * region's memory) into the same folder. Both take turns in one run, in an order that changes; a ratio is that of the
 * rates of one turn, its median over the turns stands for it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench.h"
#include "child.h"
#include "contender.h"
#include "image.h"
#include "report.h"

#define REPEAT_MAX 64
#define PATH_SIZE 300
#define DD_SECONDS_MAX 600

enum way { WAY_LIBRARY, WAY_DD, WAYS };

struct settings {
	struct bench_settings common;
	uint64_t size_bytes;
	unsigned repeat;
	const char *parent;
};

static struct {
	struct uffdwp *runtime;
	struct uffdwp_region *region;
	struct area area;
	int fd;
	int direct;
	int uring;
	uint64_t begin_ns; /* of the last begin call */
	char folder[PATH_SIZE - 16];
} disk;

enum { KEY_SIZE = 's', KEY_DIR = 'd', KEY_REPEAT = 'r' };

static const struct argp_option options[] = {
        {"size", KEY_SIZE, "BYTES", 0, "Memory of the snapshot (default 1G)", 0},
        {"dir", KEY_DIR, "DIR", 0, "Folder on the disk to measure (default: the current one)", 0},
        {"repeat", KEY_REPEAT, "N", 0, "Turns (default 5)", 0},
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
	case KEY_DIR:
		settings->parent = argument;
		return 0;
	case KEY_REPEAT:
		settings->repeat = bench_number(argument, REPEAT_MAX);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp_child children[] = {{&bench_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {
        options,  parse, NULL, "A snapshot that nobody disturbs: the library against dd on the same disk.",
        children, NULL,  NULL};

/* ------------------------------------------------------------------------------------------------ one turn -- */

static void path_of(enum way way, char path[PATH_SIZE])
{
	snprintf(path, PATH_SIZE, "%s/%s", disk.folder, way == WAY_DD ? "dd" : "image");
}

static void remove_folder(void)
{
	char path[PATH_SIZE];

	for (enum way way = 0; way < WAYS; way++) {
		path_of(way, path);
		unlink(path);
	}
	rmdir(disk.folder);
}

static void by_library(const char *path)
{
	struct uffdwp_snapshot_options snapshot_options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot_progress progress = {.sz = sizeof(progress)};
	struct uffdwp_snapshot *snapshot;
	char text[512] = "";

	uint64_t from_ns = bench_now_ns();

	snapshot_options.path = path;
	if (uffdwp_snapshot_begin(disk.region, &snapshot_options, &snapshot)) {
		uffdwp_error_text(disk.runtime, text, sizeof(text));
		bench_die("uffdwp_snapshot_begin: %s", text);
	}
	disk.begin_ns = bench_now_ns() - from_ns;
	if (uffdwp_snapshot_wait(snapshot, -1, &progress)) {
		uffdwp_snapshot_text(snapshot, text, sizeof(text));
		bench_die("the snapshot failed: %s", text);
	}
	disk.direct = (int)progress.direct;
	disk.uring = (int)progress.uring;
	bench_must(uffdwp_snapshot_free(snapshot), "uffdwp_snapshot_free");
}

static void by_dd(const char *path)
{
	char from[64];
	char to[PATH_SIZE + 4];
	char output[64];
	char program[] = "/bin/dd";
	char options_of_dd[][16] = {"bs=1M", "oflag=direct", "conv=fsync", "status=none"};
	char *const argv[] = {program,          from, to, options_of_dd[0], options_of_dd[1], options_of_dd[2],
	                      options_of_dd[3], NULL};
	int status;

	snprintf(from, sizeof(from), "if=/proc/%ld/fd/%d", (long)getpid(), disk.fd);
	snprintf(to, sizeof(to), "of=%s", path);
	status = child_run(argv, DD_SECONDS_MAX, output, sizeof(output));
	if (status)
		bench_die("dd into %s failed: %d", path, status);
}

/* What was written before is on the disk, and what it left behind is gone, before the clock runs. */
static double turn(enum way way)
{
	struct stat image;
	char path[PATH_SIZE];
	uint64_t from_ns;
	uint64_t took_ns;

	path_of(way, path);
	sync();
	from_ns = bench_now_ns();
	if (way == WAY_DD)
		by_dd(path);
	else
		by_library(path);
	took_ns = bench_now_ns() - from_ns;
	if (stat(path, &image) || (uint64_t)image.st_size != disk.area.length_bytes)
		bench_die("%s is not the memory's %zu bytes", path, disk.area.length_bytes);
	unlink(path);
	return (double)took_ns;
}

/* ------------------------------------------------------------------------------------------------ the question -- */

static void open_disk(const struct settings *settings)
{
	struct library_setup setup = {
	        .memory = UFFDWP_MEMORY_SHMEM,
	        .mechanism = library_best(UFFDWP_MEMORY_SHMEM),
	        .length_bytes = settings->size_bytes,
	        .cpu = BENCH_ANY_CPU,
	};
	struct uffdwp_region_info info = {.sz = sizeof(info)};

	snprintf(disk.folder, sizeof(disk.folder), "%s/uffdwp-bench-XXXXXX", settings->parent);
	if (!mkdtemp(disk.folder))
		bench_die("%s: %s", disk.folder, strerror(errno));
	atexit(remove_folder);
	if (!image_direct_works(disk.folder))
		bench_skip("no O_DIRECT in %s: name a folder on a disk by --dir", settings->parent);
	disk.runtime = library_runtime(0, NULL);
	library_region(disk.runtime, &setup, &disk.region, &disk.area);
	bench_must(uffdwp_region_info(disk.region, &info), "uffdwp_region_info");
	disk.fd = info.fd;
}

static void close_disk(void)
{
	bench_must(uffdwp_region_close(disk.region), "uffdwp_region_close");
	bench_must(uffdwp_close(disk.runtime), "uffdwp_close");
}

static double mib_per_s(double took_ns)
{
	return (double)disk.area.length_bytes / (1 << 20) / (took_ns / 1e9);
}

static void measure(struct report *report, const struct settings *settings)
{
	static const char *const names[WAYS] = {"library", "dd"};
	static double times[WAYS][REPEAT_MAX];
	static double ratios[REPEAT_MAX];
	static double begins[REPEAT_MAX];
	double medians[WAYS];
	double ratio;
	double begin_ns;

	for (unsigned i = 0; i < settings->repeat; i++) {
		for (unsigned place = 0; place < WAYS; place++) {
			enum way way = (enum way)((place + i) % WAYS);

			times[way][i] = turn(way);
		}
		begins[i] = (double)disk.begin_ns;
		ratios[i] = times[WAY_DD][i] / times[WAY_LIBRARY][i];
	}
	ratio = report_add_median(report, ratios, settings->repeat, "image.library.rate_ratio_dd");
	begin_ns = report_add_median(report, begins, settings->repeat, "image.library.begin_ns");
	for (enum way way = 0; way < WAYS; way++)
		medians[way] = report_add_median(report, times[way], settings->repeat, "image.%s.total_ns", names[way]);
	if (settings->common.json)
		return;
	printf("\n%-10s %10s %10s\n", "way", "total ms", "MiB/s");
	for (enum way way = 0; way < WAYS; way++)
		printf("%-10s %10.1f %10.0f\n", names[way], medians[way] / 1e6, mib_per_s(medians[way]));
	printf("\nof the library's time the begin call took %.1f ms\n", begin_ns / 1e6);
	printf("the library's rate is %.2f of dd's (%.2f to %.2f)\n", ratio, ratios[0], ratios[settings->repeat - 1]);
}

int disk_main(int argc, char **argv)
{
	static struct settings settings;
	struct report report;
	int code;

	settings = (struct settings){.size_bytes = 1 << 30, .repeat = 5, .parent = "."};
	bench_parse(&argp, argc, argv, &settings);
	if (settings.common.quick) {
		settings.size_bytes = 16 << 20;
		settings.repeat = 1;
	}
	open_disk(&settings);
	report_init(&report, "disk");
	report_note(&report, "memory", "%zu MiB of shmem, no writers", disk.area.length_bytes >> 20);
	report_note(&report, "rival", "dd bs=1M oflag=direct conv=fsync, of the same bytes");
	report_note(&report, "runs", "%u of each, in turns", settings.repeat);
	if (!settings.common.json)
		report_print_notes(&report);
	measure(&report, &settings);
	if (!settings.common.json && !(disk.direct && disk.uring))
		printf("the image was written %s O_DIRECT, %s io_uring\n", disk.direct ? "with" : "without",
		       disk.uring ? "with" : "without");
	close_disk();
	code = report_finish(&report, &settings.common);
	report_fini(&report);
	return code;
}
