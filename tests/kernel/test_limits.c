/* SPDX-License-Identifier: MIT */
/*
 * A life of a region (open, create, grow, snapshot, delta, merges, restore) under each limit that setrlimit(2) knows,
 * set at many values: each step works or is refused with an error and a text; no signal ends the program, nothing
 * half-written stays in the folder, and no thread is left. Each run is a child's.
 *
 * And the signals that writing raises: SIGXFSZ and SIGPIPE of the library's own writing never reach the program, also
 * when it had them blocked.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "pace.h"
#include "place.h"
#include "scratch.h"
#include "support.h"

#define PAGES 256
#define RUN_SECONDS 6 /* of a quiet machine */

static char folder[SCRATCH_PATH];
static int steps_done;

static size_t count_entries(const char *path, const char *prefix)
{
	DIR *entries = opendir(path);
	size_t count = 0;

	must(entries != NULL);
	for (struct dirent *entry; (entry = readdir(entries)) != NULL;)
		count += strncmp(entry->d_name, prefix, strlen(prefix)) == 0 && entry->d_name[0] != '\0';
	closedir(entries);
	return count;
}

static size_t threads_now(void)
{
	return count_entries("/proc/self/task", "") - 2;
}

/* ---- the life of a region, as far as it gets ---- */

struct life {
	struct uffdwp *runtime;
	struct uffdwp_region *region;
	uint8_t *base;
	size_t length;
	char raw[SCRATCH_PATH];
	char delta[SCRATCH_PATH];
	char merged[SCRATCH_PATH];
};

/* A refusal has a text. */
static int reported(int error, size_t text_length)
{
	if (error && text_length == 0)
		printf("after %d steps: %s, and no text\n", steps_done, strerror(-error));
	must(error <= 0);
	must(error == 0 || text_length > 0);
	steps_done += error == 0;
	return error;
}

static int life_open(struct life *life)
{
	size_t page = (size_t)getpagesize();
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	int error = uffdwp_open(NULL, &life->runtime);

	if (reported(error, uffdwp_error_text(NULL, 0)))
		return error;
	life->length = PAGES * page;
	options.capacity_bytes = 2 * life->length;
	error = uffdwp_region_create(life->runtime, life->length, &options, &life->region);
	if (reported(error, uffdwp_error_text(NULL, 0)))
		return error;
	life->base = uffdwp_region_base(life->region);
	error = uffdwp_region_grow(life->region, 2 * life->length);
	return reported(error, uffdwp_error_text(NULL, 0));
}

static int life_snapshot(struct life *life, const char *path, const char *parent)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot;

	options.path = path;
	options.parent = parent;
	options.length = life->length;
	options.flags = UFFDWP_SNAPSHOT_KEEP;
	options.pool_bytes = 1 << 20;
	int error = uffdwp_snapshot_begin(life->region, &options, &snapshot);

	if (reported(error, uffdwp_error_text(NULL, 0)))
		return error;
	for (size_t at = 0; at < life->length; at += 3 * (size_t)getpagesize())
		((volatile uint8_t *)life->base)[at]++;
	error = uffdwp_snapshot_wait(snapshot, -1, NULL);
	reported(error, uffdwp_snapshot_text(snapshot, NULL, 0));
	must(uffdwp_snapshot_free(snapshot) == 0);
	return error;
}

static int life_merge(struct life *life, uint32_t deltas)
{
	struct uffdwp_image_merge_options options = UFFDWP_IMAGE_MERGE_OPTIONS_INIT;
	struct uffdwp_image *image;
	int error = uffdwp_image_open(life->delta, NULL, &image);

	if (reported(error, uffdwp_error_text(NULL, 0)))
		return error;
	options.deltas = deltas;
	error = uffdwp_image_merge(image, life->merged, &options);
	reported(error, uffdwp_image_text(image, NULL, 0));
	must(uffdwp_image_close(image) == 0);
	return 0;
}

static void life_close(struct life *life)
{
	if (life->region)
		must(uffdwp_region_close(life->region) == 0);
	must(uffdwp_close(life->runtime) == 0);
}

static void live(void)
{
	struct uffdwp_restore_options restore = UFFDWP_RESTORE_OPTIONS_INIT;
	struct life life = {0};

	scratch_join(life.raw, folder, "raw.img");
	scratch_join(life.delta, folder, "delta.img");
	scratch_join(life.merged, folder, "merged.img");
	steps_done = 0;
	if (life_open(&life) == 0) {
		for (size_t at = 0; at < life.length; at++)
			life.base[at] = (uint8_t)(at * 2654435761u >> 13 | 1);
		if (life_snapshot(&life, life.raw, NULL) == 0 && life_snapshot(&life, life.delta, life.raw) == 0) {
			life_merge(&life, 0);
			life_merge(&life, 1);
			restore.path = life.delta;
			int error = uffdwp_restore(life.region, &restore, NULL);

			reported(error, uffdwp_error_text(NULL, 0));
		}
	}
	life_close(&life);
}

/* ---- limits ---- */

#define MIB (1ul << 20)

static unsigned long in_use(const char *key)
{
	FILE *file = fopen("/proc/self/status", "re");
	char line[256];
	unsigned long kib = 0;

	must(file != NULL);
	while (fgets(line, sizeof(line), file))
		if (strncmp(line, key, strlen(key)) == 0)
			kib = strtoul(line + strlen(key), NULL, 10);
	fclose(file);
	return kib * 1024;
}

static const struct limit {
	const char *name;
	int resource;
	const char *above; /* the values are beyond what this line of /proc/self/status says; NULL: they are absolute */
	rlim_t values[16];
} limits[] = {
        {"RLIMIT_FSIZE", RLIMIT_FSIZE, NULL, {1, 4096, 65536, MIB - 4096, MIB, MIB + 4096, 2 * MIB - 1, 2 * MIB}},
        {"RLIMIT_NOFILE", RLIMIT_NOFILE, NULL, {4, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 20, 24, 32}},
        {"RLIMIT_AS", RLIMIT_AS, "VmSize:", {1, MIB, 4 * MIB, 12 * MIB, 20 * MIB, 40 * MIB, 80 * MIB, 160 * MIB}},
        {"RLIMIT_DATA", RLIMIT_DATA, "VmData:", {1, MIB, 4 * MIB, 12 * MIB, 20 * MIB, 40 * MIB, 80 * MIB}},
        {"RLIMIT_MEMLOCK", RLIMIT_MEMLOCK, NULL, {1, 65536, MIB, 4 * MIB, 16 * MIB}},
        {"RLIMIT_STACK", RLIMIT_STACK, NULL, {65536, MIB}},
        {"RLIMIT_NPROC", RLIMIT_NPROC, NULL, {1, 2, 3, 4, 5, 6, 8}},
};
#define LIMITS ((int)(sizeof(limits) / sizeof(limits[0])))

static const struct limit *limit;
static rlim_t value;

/* Root is above these. */
static int needs_other_user(void)
{
	return (limit->resource == RLIMIT_NPROC || limit->resource == RLIMIT_MEMLOCK) && support_may_change_user();
}

/* By the kernel's own call: what type a resource has, libraries do not agree upon. */
static int limit_of(int resource, const struct rlimit *set, struct rlimit *before)
{
	return (int)syscall(SYS_prlimit64, 0, resource, set, before);
}

static int has_only(void *threads)
{
	return threads_now() <= *(const size_t *)threads;
}

static void live_limited(void *ignored)
{
	rlim_t soft = value + (limit->above ? in_use(limit->above) : 0);
	size_t threads = threads_now();
	struct rlimit usual;

	(void)ignored;
	pace_alarm(RUN_SECONDS);
	must(limit_of(limit->resource, NULL, &usual) == 0);
	soft = soft < usual.rlim_max ? soft : usual.rlim_max;
	if (needs_other_user())
		must(setresuid(65534, 65534, 65534) == 0);
	/* The output of must() may need what is limited: the soft limit is put back at the end. */
	must(limit_of(limit->resource, &(struct rlimit){soft, usual.rlim_max}, NULL) == 0);
	if (limit->resource == RLIMIT_MEMLOCK)
		must(mlockall(MCL_FUTURE | MCL_ONFAULT) == 0 || errno == ENOMEM || errno == EPERM);
	live();
	must(limit_of(limit->resource, &usual, NULL) == 0);
	/* A thread that was joined may still be leaving the kernel. */
	must(wait_until(has_only, &threads, RUN_SECONDS) && threads_now() == threads);
	printf("%s %llu: %d steps worked\n", limit->name, (unsigned long long)value, steps_done);
}

START_TEST(test_every_limit_is_answered_with_an_error_and_a_text)
{
	limit = &limits[_i];
	for (unsigned i = 0; i < sizeof(limit->values) / sizeof(limit->values[0]) && limit->values[i]; i++) {
		value = limit->values[i];
		scratch_folder(folder);
		ck_assert_int_eq(child_run(live_limited, NULL), 0);
		ck_assert_uint_eq(count_entries(folder, ".uffdwp"), 0);
	}
}
END_TEST

static void live_unlimited(void *ignored)
{
	(void)ignored;
	live();
	must(steps_done >= 3);
	printf("without a limit: %d steps worked\n", steps_done);
}

START_TEST(test_life_works_without_limits)
{
	scratch_folder(folder);
	ck_assert_int_eq(child_run(live_unlimited, NULL), 0);
}
END_TEST

/* ---- signals ---- */

/* The program has blocked them, and waits for them by other means: it must not find one of ours. */
static void live_blocked(void *ignored)
{
	struct rlimit usual;
	sigset_t blocked;
	sigset_t pending;

	(void)ignored;
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGXFSZ);
	sigaddset(&blocked, SIGPIPE);
	must(sigprocmask(SIG_BLOCK, &blocked, NULL) == 0);
	must(getrlimit(RLIMIT_FSIZE, &usual) == 0);
	must(setrlimit(RLIMIT_FSIZE, &(struct rlimit){4096, usual.rlim_max}) == 0);
	live();
	must(sigpending(&pending) == 0);
	must(!sigismember(&pending, SIGXFSZ) && !sigismember(&pending, SIGPIPE));
	/* One of the program's own stays. */
	must(raise(SIGXFSZ) == 0);
	live();
	must(sigpending(&pending) == 0 && sigismember(&pending, SIGXFSZ));
}

START_TEST(test_blocked_signals_do_not_become_pending)
{
	scratch_folder(folder);
	ck_assert_int_eq(child_run(live_blocked, NULL), 0);
}
END_TEST

/* No process reads any more: a pipe, a socket. */
static void write_into_nothing(void *which)
{
	struct life life = {0};
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot = NULL;
	int ends[2];

	must((which ? socketpair(AF_UNIX, SOCK_STREAM, 0, ends) : pipe(ends)) == 0);
	close(ends[0]);
	must(life_open(&life) == 0);
	memset(life.base, 1, life.length);
	options.sink = UFFDWP_SINK_STREAM;
	options.fd = ends[1];
	int error = uffdwp_snapshot_begin(life.region, &options, &snapshot);

	if (!error) {
		error = uffdwp_snapshot_wait(snapshot, -1, NULL);
		must(uffdwp_snapshot_text(snapshot, NULL, 0) > 0);
		must(uffdwp_snapshot_free(snapshot) == 0);
	}
	must(error == -EPIPE);
	life_close(&life);
}

START_TEST(test_stream_without_a_reader_is_an_error)
{
	static int socket_wanted;

	ck_assert_int_eq(child_run(write_into_nothing, _i ? &socket_wanted : NULL), 0);
}
END_TEST

static void trace_into_nothing(void *ignored)
{
	struct life life = {0};
	int ends[2];

	(void)ignored;
	must(pipe(ends) == 0);
	close(ends[0]);
	must(setenv("UFFDWP_DEBUG", "1", 1) == 0);
	must(dup2(ends[1], STDERR_FILENO) == STDERR_FILENO);
	must(life_open(&life) == 0);
	life_close(&life);
}

START_TEST(test_trace_without_a_reader_ends_nothing)
{
	ck_assert_int_eq(child_run(trace_into_nothing, NULL), 0);
}
END_TEST

int main(void)
{
	support_begin("test_limits", &(struct support_needs){.huge_pages = 0, .swap = 0});
	place_begin();
	Suite *suite = suite_create("limits");
	TCase *tests = tcase_create("limits");

	tcase_set_timeout(tests, 100);
	tcase_add_test(tests, test_life_works_without_limits);
	tcase_add_loop_test(tests, test_every_limit_is_answered_with_an_error_and_a_text, 0, LIMITS);
	tcase_add_test(tests, test_blocked_signals_do_not_become_pending);
	tcase_add_loop_test(tests, test_stream_without_a_reader_is_an_error, 0, 2);
	tcase_add_test(tests, test_trace_without_a_reader_ends_nothing);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
