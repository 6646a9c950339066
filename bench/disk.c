/* SPDX-License-Identifier: MIT */
/*
 * Question: does an image come as fast as the disk takes it, and go back as fast as the disk gives it?
 *
 * image: the library's whole snapshot of a region that is not written, from the begin call until the image is durable
 * under its name, against dd with O_DIRECT, requests of 1 MiB and an fsync, which copies the same bytes (the file of
 * the region's memory) into the same folder.
 *
 * restore: the library's whole restore of such an image into the region, against dd with O_DIRECT and requests of 1
 * MiB, which reads the same file into /dev/null. The page cache is asked to forget the file before each turn.
 *
 * lazy: when the first read is there, and the rest, of a lazy restore (disk_lazy.c).
 *
 * In the first two the library and dd take turns in one run, in an order that changes; a ratio is that of the rates of
 * one turn, its median over the turns stands for it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench.h"
#include "child.h"
#include "disk.h"
#include "image.h"

#define REPEAT_MAX 64
#define PATH_SIZE 300
#define DD_SECONDS_MAX 600

enum method { METHOD_LIBRARY, METHOD_DD, METHODS };
enum job { JOB_IMAGE, JOB_RESTORE, JOBS };

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
	uint64_t sum;      /* of the memory, as the image to be restored has it */
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
        options,  parse, NULL, "An undisturbed image, and back: the library against dd on the same disk.",
        children, NULL,  NULL};

/* ------------------------------------------------------------------------------------------------ one turn -- */

static void path_of(enum method method, char path[PATH_SIZE])
{
	snprintf(path, PATH_SIZE, "%s/%s", disk.folder, method == METHOD_DD ? "dd" : "image");
}

static void remove_folder(void)
{
	char path[PATH_SIZE];

	for (enum method method = 0; method < METHODS; method++) {
		path_of(method, path);
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
		uffdwp_error_text(text, sizeof(text));
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

static void run_dd(const char *from, const char *to, const char *flag, const char *conversion)
{
	char arguments[7][PATH_SIZE + 16] = {"/bin/dd", "", "", "", "bs=1M", "status=none", ""};
	char *const argv[] = {arguments[0],
	                      arguments[1],
	                      arguments[2],
	                      arguments[3],
	                      arguments[4],
	                      arguments[5],
	                      conversion ? arguments[6] : NULL,
	                      NULL};
	char output[64];
	int status;

	snprintf(arguments[1], sizeof(arguments[1]), "if=%s", from);
	snprintf(arguments[2], sizeof(arguments[2]), "of=%s", to);
	snprintf(arguments[3], sizeof(arguments[3]), "%s", flag);
	snprintf(arguments[6], sizeof(arguments[6]), "%s", conversion ? conversion : "");
	status = child_run(argv, DD_SECONDS_MAX, output, sizeof(output));
	if (status)
		bench_die("dd from %s to %s failed: %d", from, to, status);
}

static void by_dd(const char *path)
{
	char from[64];

	snprintf(from, sizeof(from), "/proc/%ld/fd/%d", (long)getpid(), disk.fd);
	run_dd(from, path, "oflag=direct", "conv=fsync");
}

static void back_by_library(const char *path)
{
	struct uffdwp_restore_options restore_options = UFFDWP_RESTORE_OPTIONS_INIT;
	struct uffdwp_restore_progress progress = {.sz = sizeof(progress)};
	char text[512] = "";

	restore_options.path = path;
	if (uffdwp_restore(disk.region, &restore_options, &progress)) {
		uffdwp_error_text(text, sizeof(text));
		bench_die("uffdwp_restore: %s", text);
	}
	disk.direct &= (int)progress.direct;
	disk.uring &= (int)progress.uring;
}

uint64_t disk_sum(const struct area *area)
{
	const uint64_t *words = (const uint64_t *)(const void *)area->base;
	uint64_t sum = 0;

	for (size_t i = 0; i < area->length_bytes / sizeof(*words); i++)
		sum = sum * 31 + words[i];
	return sum;
}

void disk_forget_cache(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED))
		bench_die("%s: the page cache cannot be asked to forget it", path);
	close(fd);
}

/* What was written before is on the disk, and what it left is gone, before the clock runs. */
static double image_turn(enum method method)
{
	struct stat image;
	char path[PATH_SIZE];
	uint64_t from_ns;
	uint64_t took_ns;

	path_of(method, path);
	sync();
	from_ns = bench_now_ns();
	if (method == METHOD_DD)
		by_dd(path);
	else
		by_library(path);
	took_ns = bench_now_ns() - from_ns;
	if (stat(path, &image) || (uint64_t)image.st_size != disk.area.length_bytes)
		bench_die("%s is not the memory's %zu bytes", path, disk.area.length_bytes);
	unlink(path);
	return (double)took_ns;
}

/* The image stands there since before the first turn. */
static double restore_turn(enum method method)
{
	char path[PATH_SIZE];
	uint64_t from_ns;
	uint64_t took_ns;

	path_of(METHOD_LIBRARY, path);
	disk_forget_cache(path);
	from_ns = bench_now_ns();
	if (method == METHOD_DD)
		run_dd(path, "/dev/null", "iflag=direct", NULL);
	else
		back_by_library(path);
	took_ns = bench_now_ns() - from_ns;
	if (method == METHOD_LIBRARY && disk_sum(&disk.area) != disk.sum)
		bench_die("the memory is not what the image was made of");
	return (double)took_ns;
}

static void prepare_restore(void)
{
	char path[PATH_SIZE];

	disk.sum = disk_sum(&disk.area);
	path_of(METHOD_LIBRARY, path);
	by_library(path);
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

static const char *const method_names[METHODS] = {"library", "dd"};
static const char *const job_names[JOBS] = {"image", "restore"};

static void print_job(enum job job, const double medians[METHODS], double ratio, double low, double high)
{
	for (enum method method = 0; method < METHODS; method++)
		printf("%-8s %-10s %10.1f %10.0f\n", job_names[job], method_names[method], medians[method] / 1e6,
		       mib_per_s(medians[method]));
	printf("%-8s the library's rate is %.2f of dd's (%.2f to %.2f)\n", job_names[job], ratio, low, high);
}

static void measure(struct report *report, const struct settings *settings, enum job job)
{
	static double times[METHODS][REPEAT_MAX];
	static double ratios[REPEAT_MAX];
	static double begins[REPEAT_MAX];
	double medians[METHODS];
	double ratio;

	for (unsigned i = 0; i < settings->repeat; i++) {
		for (unsigned place = 0; place < METHODS; place++) {
			enum method method = (enum method)((place + i) % METHODS);

			times[method][i] = job == JOB_IMAGE ? image_turn(method) : restore_turn(method);
		}
		begins[i] = (double)disk.begin_ns;
		ratios[i] = times[METHOD_DD][i] / times[METHOD_LIBRARY][i];
	}
	ratio = report_add_median(report, ratios, settings->repeat, "%s.library.rate_ratio_dd", job_names[job]);
	if (job == JOB_IMAGE)
		report_add_median(report, begins, settings->repeat, "image.library.begin_ns");
	for (enum method method = 0; method < METHODS; method++)
		medians[method] = report_add_median(report, times[method], settings->repeat, "%s.%s.total_ns",
		                                    job_names[job], method_names[method]);
	if (!settings->common.json)
		print_job(job, medians, ratio, ratios[0], ratios[settings->repeat - 1]);
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
	report_note(&report, "rivals",
	            "dd bs=1M oflag=direct conv=fsync, of the same bytes; dd bs=1M iflag=direct of=/dev/null");
	report_note(&report, "runs", "%u of each, in turns", settings.repeat);
	if (!settings.common.json) {
		report_print_notes(&report);
		printf("\n%-8s %-10s %10s %10s\n", "job", "method", "total ms", "MiB/s");
	}
	measure(&report, &settings, JOB_IMAGE);
	prepare_restore();
	measure(&report, &settings, JOB_RESTORE);
	char path[PATH_SIZE];

	path_of(METHOD_LIBRARY, path);
	disk_measure_lazy(&report, disk.runtime, path, disk.area.length_bytes, disk.sum, settings.repeat,
	                  settings.common.json);
	if (!settings.common.json && !(disk.direct && disk.uring))
		printf("the library went %s O_DIRECT, %s io_uring\n", disk.direct ? "with" : "without",
		       disk.uring ? "with" : "without");
	close_disk();
	code = report_finish(&report, &settings.common);
	report_fini(&report);
	return code;
}
