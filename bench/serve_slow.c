/* SPDX-License-Identifier: MIT */
/* See serve_slow.h. */
#include "serve_slow.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "child.h"
#include "contender.h"
#include "disk.h"
#include "report.h"
#include "rounds.h"
#include "serve.h"

#define DELAY "delay-read=5ms"
#define SIZE_BYTES ((uint64_t)256 << 20)
#define SIZE_QUICK ((uint64_t)16 << 20)
#define SECOND_NS 1000000000u
#define WAIT_TRIES 400
#define CONNECTIONS "16"
#define PATH_SIZE 400

extern char **environ;

static struct {
	char folder[PATH_SIZE];
	char image[PATH_SIZE + 16];  /* on a fast disk */
	char socket[PATH_SIZE + 16]; /* of nbdkit */
	char mount[PATH_SIZE + 16];
	char slow[PATH_SIZE + 32]; /* the same image, slow */
	pid_t nbdkit;
	pid_t nbdfuse;
} slow;

/* ---- the disk ---- */

static pid_t slow_spawn(char *const argv[])
{
	posix_spawn_file_actions_t actions;
	pid_t pid = 0;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
	int error = posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);

	posix_spawn_file_actions_destroy(&actions);
	return error ? 0 : pid;
}

static void slow_end(pid_t *pid)
{
	if (*pid <= 0)
		return;
	kill(*pid, SIGTERM);
	while (waitpid(*pid, NULL, 0) < 0 && errno == EINTR)
		;
	*pid = 0;
}

static void slow_close(void)
{
	slow_end(&slow.nbdfuse); /* it unmounts */
	slow_end(&slow.nbdkit);
	(void)unlink(slow.image);
	(void)unlink(slow.socket);
	(void)rmdir(slow.mount);
}

/* 0: the program has ended, or it took too long. */
static int slow_await(const char *path, pid_t pid)
{
	struct timespec moment = {0, 25000000};
	struct stat status;

	for (int tries = 0; tries < WAIT_TRIES && waitpid(pid, NULL, WNOHANG) == 0; tries++) {
		if (stat(path, &status) == 0)
			return 1;
		nanosleep(&moment, NULL);
	}
	return 0;
}

static void slow_make_image(uint64_t size_bytes)
{
	char *piece = malloc(1 << 20);
	FILE *file = fopen(slow.image, "we");

	if (!piece || !file)
		bench_die("%s: %s", slow.image, strerror(errno));
	for (uint64_t at = 0; at < size_bytes; at += 1 << 20) {
		area_fill(piece, 1 << 20, at + 1);
		if (fwrite(piece, 1 << 20, 1, file) != 1)
			bench_die("%s: %s", slow.image, strerror(errno));
	}
	if (fclose(file))
		bench_die("%s: %s", slow.image, strerror(errno));
	free(piece);
}

/* 1: the image is there, slow. */
static int slow_open(const char *folder, uint64_t size_bytes)
{
	static char uri[PATH_SIZE + 64];
	static char file[PATH_SIZE + 32];

	snprintf(slow.folder, sizeof(slow.folder), "%s", folder);
	snprintf(slow.image, sizeof(slow.image), "%s/fast", folder);
	snprintf(slow.socket, sizeof(slow.socket), "%s/socket", folder);
	snprintf(slow.mount, sizeof(slow.mount), "%s/mount", folder);
	snprintf(slow.slow, sizeof(slow.slow), "%s/slow", slow.mount);
	snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s", slow.socket);
	snprintf(file, sizeof(file), "file=%s", slow.image);
	char *nbdkit[] = {(char *)(uintptr_t) "nbdkit", (char *)(uintptr_t) "-f",
	                  (char *)(uintptr_t) "-U",     slow.socket,
	                  (char *)(uintptr_t) "-r",     (char *)(uintptr_t) "--filter=delay",
	                  (char *)(uintptr_t) "file",   file,
	                  (char *)(uintptr_t)DELAY,     NULL};
	char *nbdfuse[] = {(char *)(uintptr_t) "nbdfuse",
	                   (char *)(uintptr_t) "-r",
	                   (char *)(uintptr_t) "-C",
	                   (char *)(uintptr_t)CONNECTIONS,
	                   slow.slow,
	                   uri,
	                   NULL};

	atexit(slow_close);
	slow_make_image(size_bytes);
	if (mkdir(slow.mount, 0700))
		bench_die("%s: %s", slow.mount, strerror(errno));
	slow.nbdkit = slow_spawn(nbdkit);
	if (slow.nbdkit <= 0 || !slow_await(slow.socket, slow.nbdkit))
		return 0;
	slow.nbdfuse = slow_spawn(nbdfuse);
	return slow.nbdfuse > 0 && slow_await(slow.slow, slow.nbdfuse);
}

/* ---- what the guest does in a second ---- */

static void slow_order(struct guest *guest, uint32_t pages)
{
	for (uint32_t i = 0; i < pages; i++)
		guest->board->order[i] = i;
	contender_shuffle(guest->board->order, pages, 77);
}

static void slow_adopt(const struct guest *guest, struct uffdwp **runtime, struct uffdwp_region **region)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	struct uffdwp_mapping mapping = {.address = guest->address, .length = guest->length_bytes};
	struct uffdwp_mapper mapper = UFFDWP_MAPPER_INIT;
	char text[512];

	*runtime = library_runtime(1, NULL);
	options.fd = guest->memfd;
	options.mechanism = UFFDWP_MECHANISM_REARM;
	mapper.uffd = guest->uffd;
	mapper.mapping_count = 1;
	mapper.mappings = &mapping;
	if (uffdwp_region_adopt(*runtime, guest->length_bytes, &options, &mapper, region)) {
		(void)uffdwp_error_text(text, sizeof(text));
		bench_skip("uffdwp_region_adopt: %s", text);
	}
}

/* with_order: the pages in the order in which the guest will use them. */
static struct uffdwp_restore *slow_begin(const struct guest *guest, struct uffdwp_region *region, int with_order,
                                         uint32_t pages)
{
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	struct uffdwp_restore *restore = NULL;
	uint64_t *first = calloc(pages, sizeof(*first));
	char text[512];

	if (!first)
		bench_die("no memory for an order");
	for (uint32_t i = 0; i < pages; i++)
		first[i] = guest->board->order[i] * (uint64_t)guest->page_bytes;
	options.path = slow.slow;
	options.flags = UFFDWP_RESTORE_RAW;
	options.first = with_order ? first : NULL;
	options.first_count = with_order ? pages : 0;
	if (uffdwp_restore_begin(region, &options, &restore)) {
		(void)uffdwp_error_text(text, sizeof(text));
		bench_die("uffdwp_restore_begin: %s", text);
	}
	free(first);
	return restore;
}

/* Pages that the guest has used a second after a restore began. */
static double slow_turn(int with_order, uint64_t size_bytes)
{
	struct guest guest;
	struct uffdwp *runtime;
	struct uffdwp_region *region;
	uint32_t pages = (uint32_t)(size_bytes / (uint64_t)sysconf(_SC_PAGESIZE));

	disk_forget_cache(slow.slow);
	guest_start(&guest, size_bytes, 0, BENCH_ANY_CPU);
	slow_order(&guest, pages);
	slow_adopt(&guest, &runtime, &region);
	guest.board->until_ns = bench_now_ns() + SECOND_NS;
	struct uffdwp_restore *restore = slow_begin(&guest, region, with_order, pages);

	guest_work(&guest, GUEST_READ, 0, pages);
	double done = guest.board->done;

	bench_must(uffdwp_restore_free(restore), "uffdwp_restore_free");
	bench_must(uffdwp_region_close(region), "uffdwp_region_close");
	bench_must(uffdwp_close(runtime), "uffdwp_close");
	guest_end(&guest);
	return done;
}

void serve_slow_measure(struct report *report, const struct bench_settings *settings, const char *folder)
{
	uint64_t size_bytes = settings->quick ? SIZE_QUICK : SIZE_BYTES;
	struct rounds plain = {.count = 0};
	struct rounds ordered = {.count = 0};
	struct rounds ratios;

	if (!slow_open(folder, size_bytes)) {
		if (settings->check)
			bench_skip("no slow disk: nbdkit with its filter delay, nbdfuse and FUSE are needed");
		report_note(report, "order", "not measured: nbdkit, nbdfuse or FUSE are missing");
		return;
	}
	for (unsigned round = 0; round < (settings->quick ? 1u : 5u); round++) {
		rounds_keep(&plain, slow_turn(0, size_bytes));
		rounds_keep(&ordered, slow_turn(1, size_bytes));
	}
	slow_close();
	rounds_report(report, &plain, "order.without.pages_first_second");
	rounds_report(report, &ordered, "order.with.pages_first_second");
	rounds_over(&ordered, &plain, &ratios);
	rounds_report(report, &ratios, "order.with.pages_ratio_without");
	if (!settings->json)
		printf("%-18s pages used in the first second: %.0f without, %.0f with an order\n", "order",
		       rounds_median(&plain), rounds_median(&ordered));
}
