/* SPDX-License-Identifier: MIT */
/*
 * Children of uffdwp_fork(): each has the regions as of its cut, whatever its parent writes, and its own writes are its
 * own. Writers keep a shadow under a lock that cuts take, so that a child inherits, by fork(2) itself, the shadow of
 * just that moment, and compares all of the region with it: at once, later, after writes of its own, and in a
 * grandchild. They exit, are killed, become other programs or fork again at random, while writers, punches, views,
 * snapshots and a track go on in the parent. What a child costs is asked from the kernel, too.
 *
 * UFFDWP_CHILDREN=N makes so many in each case.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "chance.h"
#include "image.h"
#include "place.h"
#include "shadow.h"
#include "support.h"

#define PAGES 256
#define LIVE_MOST 5

/* Exit codes of children that are right and wrong. */
#define RIGHT 7
#define WRONG 9

static struct place place;
static struct shadow shadow = {.place = &place};

/* --- children ----------------------------------------------------------------------------------------------------- */

static int is_as_shadow(void)
{
	return memcmp(place.base, shadow.bytes, place.length_bytes) == 0;
}

static void write_own(struct chance *chance)
{
	for (int i = 0; i < 30; i++) {
		size_t at = chance_below(chance, place.length_bytes / SHADOW_STRIPE) * SHADOW_STRIPE;
		chance_fill(chance, shadow.bytes + at, SHADOW_STRIPE);
		memcpy(place.base + at, shadow.bytes + at, SHADOW_STRIPE);
	}
}

/* A grandchild has what the child has at that moment, and keeps it. */
static int fork_again(struct chance *chance)
{
	int status = 0;
	int by_us = chance_below(chance, 2) == 0;
	pid_t pid = by_us ? uffdwp_fork(place.runtime, NULL, NULL) : fork();
	if (pid == 0) {
		sleep_us(chance_below(chance, 3000));
		write_own(chance);
		_exit(is_as_shadow() ? RIGHT : WRONG);
	}
	write_own(chance);
	return pid > 0 && waitpid(pid, &status, 0) == pid && status == RIGHT << 8;
}

static int may_force_writes;

/* Takes the right to write to a few pages, which a child may see no change in either. */
static void make_read_only(struct chance *chance)
{
	size_t page = chance_below(chance, place.pages - 4);
	if (!may_force_writes) {
		return;
	}
	(void)!mprotect(place.base + page * place.page_bytes, 4 * place.page_bytes, PROT_READ);
	sleep_us(2000);
}

static void child_lives(struct chance *chance)
{
	unsigned kind = (unsigned)chance_below(chance, 16);
	int right = is_as_shadow();
	if (kind == 0) {
		_exit(right ? RIGHT : WRONG);
	}
	if (kind == 1) {
		(void)execl("/bin/sh", "sh", "-c", "exit 7", (char *)NULL);
		_exit(WRONG);
	}
	if (kind == 2 || kind == 3) {
		right = right && fork_again(chance);
	}
	if (kind >= 4 && kind < 10) {
		write_own(chance);
	}
	if (kind == 10) {
		make_read_only(chance);
	}
	if (kind == 11) { /* to be killed, or to be seen to be the same for long */
		for (int i = 0; i < 40 && right; i++) {
			sleep_us(500);
			right = is_as_shadow();
		}
		raise(SIGKILL);
	}
	sleep_us(chance_below(chance, 4000));
	_exit(right && is_as_shadow() ? RIGHT : WRONG);
}

static int enter_cut(void *user)
{
	(void)user;
	must(pthread_rwlock_wrlock(&shadow.lock) == 0);
	return 0;
}

static void leave_cut(void *user)
{
	(void)user;
	must(pthread_rwlock_unlock(&shadow.lock) == 0);
}

struct born {
	pid_t pid;
	struct uffdwp_child *child;
};

static void bear(struct born *born, struct chance *chance)
{
	struct uffdwp_fork_options options = UFFDWP_FORK_OPTIONS_INIT;
	struct chance own = chance_new(chance_next(chance));
	options.cut_enter = enter_cut;
	options.cut_leave = leave_cut;
	options.flags = chance_below(chance, 2) ? UFFDWP_FORK_BARE : 0;
	options.window_max = chance_below(chance, 2) ? 1 + (uint32_t)chance_below(chance, 64) : 0;
	options.arming = (uint32_t)(chance_below(chance, 4) == 0 ? UFFDWP_ARMING_ROUNDS : UFFDWP_ARMING_AUTO);
	if (chance_below(chance, 3) == 0 && place.delivery == UFFDWP_DELIVERY_INLINE) {
		options.arming = UFFDWP_ARMING_MOVE;
	}
	pid_t pid = uffdwp_fork(place.runtime, &options, &born->child);
	if (pid == 0) {
		child_lives(&own);
	}
	if (pid == -EOPNOTSUPP) { /* no move here */
		options.arming = UFFDWP_ARMING_ROUNDS;
		pid = uffdwp_fork(place.runtime, &options, &born->child);
		if (pid == 0) {
			child_lives(&own);
		}
	}
	char text[512];
	uffdwp_error_text(text, sizeof(text));
	ck_assert_msg(pid > 0, "uffdwp_fork: %d, %s", (int)pid, pid > 0 ? "" : text);
	born->pid = pid;
}

static void bury(struct born *born, int kills)
{
	struct uffdwp_child_info info = {.sz = sizeof(info)};
	int status = 0;
	if (kills) {
		ck_assert_int_eq(kill(born->pid, SIGKILL), 0);
	}
	ck_assert_int_eq(waitpid(born->pid, &status, 0), born->pid);
	ck_assert_int_eq(uffdwp_child_info(born->child, &info), 0);
	ck_assert_int_eq(info.pid, born->pid);
	ck_assert_int_eq(info.error, 0);
	ck_assert_msg(status == RIGHT << 8 || status == SIGKILL, "a child ended with status %#x", (unsigned)status);
	ck_assert_int_eq(uffdwp_child_free(born->child), 0);
	born->pid = 0;
}

/* --- beside ------------------------------------------------------------------------------------------------------- */

static void take_snapshot(struct chance *chance)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct image image;
	uint8_t *expected = malloc(place.length_bytes);
	must(expected != NULL);
	image_prepare(&image, UFFDWP_SINK_CALLBACK, place.length_bytes);
	options.flags = chance_below(chance, 2) ? UFFDWP_SNAPSHOT_KEEP : 0;
	options.wait_ns = 60000000000u;
	must(pthread_rwlock_wrlock(&shadow.lock) == 0);
	int error = image_begin(&image, place.region, &options);
	memcpy(expected, shadow.bytes, place.length_bytes);
	must(pthread_rwlock_unlock(&shadow.lock) == 0);
	ck_assert_int_eq(error, 0);
	ck_assert_int_eq(image_finish(&image, NULL), 0);
	ck_assert(image_difference(&image, expected) == place.length_bytes);
	image_free(&image);
	free(expected);
}

static void look_at_view(void)
{
	struct uffdwp_view *view = NULL;
	must(pthread_rwlock_wrlock(&shadow.lock) == 0);
	int error = uffdwp_view_open(place.region, NULL, &view);
	uint8_t *expected = malloc(place.length_bytes);
	must(expected != NULL);
	memcpy(expected, shadow.bytes, place.length_bytes);
	must(pthread_rwlock_unlock(&shadow.lock) == 0);
	ck_assert_int_eq(error, 0);
	sleep_us(1000);
	ck_assert_int_eq(memcmp(uffdwp_view_base(view), expected, place.length_bytes), 0);
	ck_assert_int_eq(uffdwp_view_close(view), 0);
	free(expected);
}

static unsigned open_descriptors(void)
{
	DIR *folder = opendir("/proc/self/fd");
	unsigned count = 0;
	must(folder != NULL);
	while (readdir(folder) != NULL) {
		count++;
	}
	(void)closedir(folder);
	return count;
}

static int descriptors_are_back(void *before)
{
	return open_descriptors() <= *(unsigned *)before;
}

/* --- many children ------------------------------------------------------------------------------------------------ */

static void step(struct born *born, struct uffdwp_track *track, struct chance *chance)
{
	struct born *one = &born[chance_below(chance, LIVE_MOST)];
	struct uffdwp_collect nowhere = UFFDWP_COLLECT_INIT;
	if (one->pid > 0) {
		bury(one, chance_below(chance, 8) == 0);
	}
	bear(one, chance);
	if (chance_below(chance, 12) == 0) {
		take_snapshot(chance);
	}
	if (chance_below(chance, 12) == 0) {
		look_at_view();
	}
	if (chance_below(chance, 4) == 0) {
		ck_assert_int_eq(uffdwp_track_collect(track, &nowhere), 0);
	}
}

static unsigned children_wanted(void)
{
	const char *asked = getenv("UFFDWP_CHILDREN");
	return asked != NULL ? (unsigned)strtoul(asked, NULL, 10) : support_rounds(100, 1000);
}

static void run(void)
{
	struct born born[LIVE_MOST] = {0};
	struct shadow_writer writers[SHADOW_WRITERS];
	pthread_t threads[SHADOW_WRITERS];
	struct uffdwp_track *track = NULL;
	struct chance chance = chance_new(3);
	uint64_t mapped_before = 0;
	uint64_t mapped_after = 0;
	ck_assert_int_eq(uffdwp_track_start(place.runtime, NULL, &track), 0);
	ck_assert_int_eq(uffdwp_track_add(track, place.base, place.length_bytes, 0), 0);
	atomic_store(&shadow.stop, 0);
	for (size_t i = 0; i < SHADOW_WRITERS; i++) {
		writers[i] = (struct shadow_writer){&shadow, i, chance_new(50 + i)};
		threads[i] = thread_start(shadow_write_for_ever, &writers[i]);
	}
	unsigned wanted = children_wanted();
	for (unsigned i = 0; i < wanted; i++) {
		step(born, track, &chance);
		if (i == wanted / 10) { /* whatever is made once is there by now */
			support_memory(&mapped_before, NULL);
		}
	}
	support_memory(&mapped_after, NULL);
	for (size_t i = 0; i < LIVE_MOST; i++) {
		if (born[i].pid > 0) {
			bury(&born[i], 0);
		}
	}
	atomic_store(&shadow.stop, 1);
	for (size_t i = 0; i < SHADOW_WRITERS; i++) {
		thread_join(threads[i]);
	}
	ck_assert_int_eq(uffdwp_track_stop(track), 0);
	ck_assert_int_eq(memcmp(place.base, shadow.bytes, place.length_bytes), 0);
	/* Stacks of threads that have ended are kept by the C library, and each child has mappings while it ends. */
	ck_assert_uint_le(mapped_after, mapped_before + (256u << 20));
}

START_TEST(test_children_have_their_cut)
{
	struct place_case which = place_case(_i);
	if (!place_possible(which) || which.memory != UFFDWP_MEMORY_SHMEM || !place_has_increments(which)) {
		return;
	}
	unsigned before = open_descriptors();
	lock_for_writers_init(&shadow.lock);
	place_open(&place, which, PAGES);
	shadow.bytes = calloc(1, place.length_bytes);
	ck_assert_ptr_nonnull(shadow.bytes);
	run();
	printf("%s: %u children had their cut\n", place_case_name(which), children_wanted());
	free(shadow.bytes);
	place_close(&place);
	ck_assert_msg(wait_until(descriptors_are_back, &before, 20), "%u descriptors before, %u after", before,
	              open_descriptors());
}
END_TEST

/* --- what a child costs ------------------------------------------------------------------------------------------- */

static int has_ended(void *child)
{
	struct uffdwp_child_info info = {.sz = sizeof(info)};
	must(uffdwp_child_info(child, &info) == 0);
	return info.state != UFFDWP_CHILD_STATE_RUNNING;
}

static int has_nothing_armed(void *region)
{
	uint64_t armed = 1;
	must(uffdwp_region_armed(region, 0, place.length_bytes, &armed) == 0);
	return armed == 0;
}

static pid_t sleeping_child(const struct uffdwp_fork_options *options, struct uffdwp_child **child)
{
	pid_t pid = uffdwp_fork(place.runtime, options, child);
	if (pid == 0) {
		for (;;) {
			pause();
		}
	}
	ck_assert_int_gt(pid, 0);
	return pid;
}

static void end_child(pid_t pid, struct uffdwp_child *child)
{
	int status = 0;
	(void)kill(pid, SIGKILL);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(wait_until(has_ended, child, 20));
	ck_assert_int_eq(uffdwp_child_free(child), 0);
}

START_TEST(test_a_child_costs_what_was_written)
{
	struct uffdwp_child *child = NULL;
	struct uffdwp_child_info info = {.sz = sizeof(info)};
	place_open(&place, place_any(UFFDWP_MEMORY_SHMEM), PAGES);
	place_touch(&place);
	pid_t pid = sleeping_child(NULL, &child);
	for (size_t page = 0; page < 10; page++) {
		place.base[3 * page * place.page_bytes]++;
	}
	ck_assert_int_eq(uffdwp_child_info(child, &info), 0);
	ck_assert_uint_eq(info.private_bytes, 10 * place.page_bytes);
	ck_assert_uint_eq(info.state, UFFDWP_CHILD_STATE_RUNNING);
	end_child(pid, child);
	ck_assert_msg(wait_until(has_nothing_armed, place.region, 20),
	              "pages are armed after the end of the only child");
	place_close(&place);
}
END_TEST

START_TEST(test_a_region_is_closed_beside_its_child)
{
	struct uffdwp_child *child = NULL;
	int pipes[2];
	char byte = 0;
	int status = 0;
	place_open(&place, place_any(UFFDWP_MEMORY_SHMEM), PAGES);
	memset(place.base, 'a', place.length_bytes);
	ck_assert_int_eq(pipe(pipes), 0);
	pid_t pid = uffdwp_fork(place.runtime, NULL, &child);
	if (pid == 0) {
		(void)close(pipes[1]);
		(void)!read(pipes[0], &byte, 1);
		for (size_t at = 0; at < place.length_bytes; at++) {
			if (place.base[at] != 'a') {
				_exit(WRONG);
			}
		}
		_exit(RIGHT);
	}
	ck_assert_int_gt(pid, 0);
	memset(place.base, 'b', place.length_bytes / 2);
	place_close(&place);
	(void)close(pipes[0]);
	(void)close(pipes[1]);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, RIGHT << 8);
	ck_assert_int_eq(uffdwp_child_free(child), 0);
}
END_TEST

/* --- bounds ------------------------------------------------------------------------------------------------------- */

/* `more` says yes to a write beyond the bound; the child is gone when it has landed. */
static void expect_killed(const struct uffdwp_fork_options *options, int error)
{
	struct uffdwp_child *child = NULL;
	struct uffdwp_child_info info = {.sz = sizeof(info)};
	int status = 0;
	place_touch(&place);
	pid_t pid = sleeping_child(options, &child);
	for (size_t page = 0; page < 9; page++) {
		place.base[5 * page * place.page_bytes]++;
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, SIGKILL);
	ck_assert(wait_until(has_ended, child, 20));
	ck_assert_int_eq(uffdwp_child_info(child, &info), 0);
	ck_assert_uint_eq(info.state, UFFDWP_CHILD_STATE_KILLED);
	ck_assert_int_eq(info.error, error);
	ck_assert_int_eq(uffdwp_child_free(child), 0);
}

START_TEST(test_a_child_beyond_its_bound_is_ended)
{
	struct uffdwp_fork_options options = UFFDWP_FORK_OPTIONS_INIT;
	struct place_case which = place_case(_i);
	if (!place_possible(which) || which.memory != UFFDWP_MEMORY_SHMEM || !place_has_increments(which)) {
		return;
	}
	place_open(&place, which, PAGES);
	options.private_bytes = 8 * place.page_bytes;
	options.policy = UFFDWP_POLICY_ABORT;
	expect_killed(&options, -ENOBUFS);
	options.policy = UFFDWP_POLICY_WAIT;
	options.wait_ns = 1000000;
	expect_killed(&options, -ETIME);
	place_close(&place);
}
END_TEST

static void *end_soon(void *argument)
{
	sleep_us(20000);
	must(kill(*(pid_t *)argument, SIGUSR1) == 0);
	return NULL;
}

START_TEST(test_a_write_beyond_the_bound_waits_for_the_end)
{
	struct uffdwp_fork_options options = UFFDWP_FORK_OPTIONS_INIT;
	struct uffdwp_child *child = NULL;
	struct uffdwp_child_info info = {.sz = sizeof(info)};
	int status = 0;
	place_open(&place, place_any(UFFDWP_MEMORY_SHMEM), PAGES);
	place_touch(&place);
	options.private_bytes = 8 * place.page_bytes;
	options.wait_ns = 600000000000u;
	pid_t pid = sleeping_child(&options, &child);
	pthread_t thread = thread_start(end_soon, &pid);
	for (size_t page = 0; page < 9; page++) {
		place.base[5 * page * place.page_bytes]++;
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, SIGUSR1);
	thread_join(thread);
	ck_assert(wait_until(has_ended, child, 20));
	ck_assert_int_eq(uffdwp_child_info(child, &info), 0);
	ck_assert_uint_eq(info.state, UFFDWP_CHILD_STATE_ENDED);
	ck_assert_int_eq(uffdwp_child_free(child), 0);
	place_close(&place);
}
END_TEST

/* --- the C library beside it -------------------------------------------------------------------------------------- */

/* The thread for the child has just been started: setgid(2) of the C library asks all threads that it has listed, and
 * may be called in any child. */
START_TEST(test_a_bare_child_changes_its_group)
{
	struct uffdwp_fork_options options = {.sz = sizeof(options), .flags = UFFDWP_FORK_BARE};

	place_open(&place, place_any(UFFDWP_MEMORY_SHMEM), PAGES);
	for (unsigned i = 0; i < support_rounds(200, 3000); i++) {
		int status = 0;
		pid_t pid = uffdwp_fork(place.runtime, &options, NULL);

		if (pid == 0) {
			(void)alarm(20);
			_exit(setgid(getgid()) == 0 ? RIGHT : WRONG);
		}
		ck_assert_int_gt(pid, 0);
		ck_assert_int_eq(waitpid(pid, &status, 0), pid);
		ck_assert_int_eq(status, RIGHT << 8);
	}
	place_close(&place);
}
END_TEST

/* --- all regions, while some come and go -------------------------------------------------------------------------- */

static _Atomic int come_and_go;

static void *open_and_close(void *argument)
{
	(void)argument;
	while (atomic_load(&come_and_go)) {
		struct uffdwp_region *region = NULL;
		int error = 0;
		must(uffdwp_region_create(place.runtime, place.length_bytes, NULL, &region) == 0);
		do {
			error = uffdwp_region_close(region);
		} while (error == -EBUSY); /* a child is being made */
		must(error == 0);
	}
	return NULL;
}

START_TEST(test_regions_are_closed_beside_a_fork_of_all)
{
	place_open(&place, place_any(UFFDWP_MEMORY_SHMEM), PAGES);
	atomic_store(&come_and_go, 1);
	pthread_t thread = thread_start(open_and_close, NULL);
	for (unsigned i = 0; i < support_rounds(100, 1000); i++) {
		int status = 0;
		pid_t pid = uffdwp_fork(place.runtime, NULL, NULL);
		if (pid == 0) {
			_exit(RIGHT);
		}
		ck_assert_int_gt(pid, 0);
		ck_assert_int_eq(waitpid(pid, &status, 0), pid);
		ck_assert_int_eq(status, RIGHT << 8);
	}
	atomic_store(&come_and_go, 0);
	thread_join(thread);
	place_close(&place);
}
END_TEST

/* --- refusals ----------------------------------------------------------------------------------------------------- */

static int refuse(void *user)
{
	(void)user;
	return -EPERM;
}

/* No snapshot begins while a child is being made, nor is the region closed. */
static int refuse_snapshot(void *user)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct image image;
	(void)user;
	image_prepare(&image, UFFDWP_SINK_CALLBACK, place.length_bytes);
	must(image_begin(&image, place.region, &options) == -EBUSY);
	image_free(&image);
	must(uffdwp_region_close(place.region) == -EBUSY);
	return -EPERM;
}

static void leave_nothing(void *user)
{
	(void)user;
}

START_TEST(test_what_is_refused)
{
	struct uffdwp_fork_options options = UFFDWP_FORK_OPTIONS_INIT;
	struct uffdwp *runtime = NULL;
	ck_assert_int_eq(uffdwp_open(NULL, &runtime), 0);
	ck_assert_int_eq(uffdwp_fork(runtime, NULL, NULL), -ENOENT);
	ck_assert_int_eq(uffdwp_close(runtime), 0);
	place_open(&place, place_any(UFFDWP_MEMORY_SHMEM), PAGES);
	place_touch(&place);
	options.flags = 2;
	ck_assert_int_eq(uffdwp_fork(place.runtime, &options, NULL), -EINVAL);
	options.flags = 0;
	options.region_count = 1;
	ck_assert_int_eq(uffdwp_fork(place.runtime, &options, NULL), -EINVAL);
	struct uffdwp_region *twice[] = {place.region, place.region};
	options.regions = twice;
	options.region_count = 2;
	ck_assert_int_eq(uffdwp_fork(place.runtime, &options, NULL), -EINVAL);
	options.regions = NULL;
	options.region_count = 0;
	options.cut_enter = refuse;
	ck_assert_int_eq(uffdwp_fork(place.runtime, &options, NULL), -EINVAL);
	options.cut_leave = leave_nothing;
	ck_assert_int_eq(uffdwp_fork(place.runtime, &options, NULL), -EPERM);
	ck_assert(has_nothing_armed(place.region));
	options.cut_enter = refuse_snapshot;
	ck_assert_int_eq(uffdwp_fork(place.runtime, &options, NULL), -EPERM);
	struct uffdwp_child *children[UFFDWP_CHILDREN_MAX];
	pid_t pids[UFFDWP_CHILDREN_MAX];
	for (int i = 0; i < UFFDWP_CHILDREN_MAX; i++) {
		pids[i] = sleeping_child(NULL, &children[i]);
	}
	ck_assert_int_eq(uffdwp_fork(place.runtime, NULL, NULL), -EMFILE);
	for (int i = 0; i < UFFDWP_CHILDREN_MAX; i++) {
		end_child(pids[i], children[i]);
	}
	ck_assert_int_eq(uffdwp_child_free(NULL), 0);
	place_close(&place);
}
END_TEST

/* --- one thread at a time ----------------------------------------------------------------------------------------- */

static _Atomic int second_id;
static _Atomic int second_signals;

static void note_signal(int number)
{
	(void)number;
	atomic_fetch_add(&second_signals, 1);
}

static void *fork_second(void *unused)
{
	struct uffdwp_child *child;
	atomic_store(&second_id, (int)syscall(SYS_gettid));
	pid_t pid = uffdwp_fork(place.runtime, NULL, &child);
	if (pid == 0) {
		_exit(0);
	}
	must(pid > 0 && waitpid(pid, NULL, 0) == pid);
	must(uffdwp_child_free(child) == 0);
	return unused;
}

static int sleeps(int id)
{
	char path[64];
	char line[256] = "";
	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", id);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	must(fd >= 0 && read(fd, line, sizeof(line) - 1) > 0);
	close(fd);
	char *name_end = strrchr(line, ')');
	return name_end != NULL && name_end[2] == 'S';
}

static pthread_t second;

/* While a fork is under way another waits for its turn, and is reached by signals: a collector may stop it. */
static int wait_for_second(void *unused)
{
	(void)unused;
	second = thread_start(fork_second, NULL);
	while (atomic_load(&second_id) == 0 || !sleeps(atomic_load(&second_id))) {
		sleep_us(200);
	}
	must(pthread_kill(second, SIGUSR1) == 0);
	while (atomic_load(&second_signals) == 0) {
		sleep_us(200);
	}
	return 0;
}

START_TEST(test_a_fork_that_waits_for_another_takes_signals)
{
	struct uffdwp_fork_options options = UFFDWP_FORK_OPTIONS_INIT;
	struct sigaction action = {.sa_handler = note_signal};
	struct uffdwp_child *child;
	place_open(&place, place_case(0), 64);
	must(sigaction(SIGUSR1, &action, NULL) == 0);
	pid_t warm = sleeping_child(NULL, &child); /* what is tried once is tried */
	end_child(warm, child);
	options.cut_enter = wait_for_second;
	options.cut_leave = leave_nothing;
	pid_t pid = uffdwp_fork(place.runtime, &options, &child);
	if (pid == 0) {
		_exit(0);
	}
	ck_assert_int_gt(pid, 0);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	thread_join(second);
	ck_assert_int_eq(atomic_load(&second_signals), 1);
	ck_assert_int_eq(uffdwp_child_free(child), 0);
	place_close(&place);
}
END_TEST

int main(void)
{
	support_begin("test_child", &(struct support_needs){.huge_pages = 0, .swap = 1});
	may_force_writes = support_may_force_writes();
	if (!may_force_writes) {
		support_note("test_children_have_their_cut",
		             "children that make pages read-only: this kernel lets nobody write there");
	}
	place_begin();
	if (!place_has_children()) {
		return support_skip(PLACE_NO_CHILDREN);
	}
	Suite *suite = suite_create("child");
	TCase *tests = tcase_create("child");
	tcase_set_timeout(tests, 600);
	tcase_add_loop_test(tests, test_children_have_their_cut, 0, PLACE_CASES);
	tcase_add_test(tests, test_a_child_costs_what_was_written);
	tcase_add_test(tests, test_a_region_is_closed_beside_its_child);
	tcase_add_loop_test(tests, test_a_child_beyond_its_bound_is_ended, 0, PLACE_CASES);
	tcase_add_test(tests, test_a_write_beyond_the_bound_waits_for_the_end);
	tcase_add_test(tests, test_regions_are_closed_beside_a_fork_of_all);
	tcase_add_test(tests, test_a_bare_child_changes_its_group);
	tcase_add_test(tests, test_a_fork_that_waits_for_another_takes_signals);
	tcase_add_test(tests, test_what_is_refused);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
