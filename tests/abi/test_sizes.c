/* SPDX-License-Identifier: MIT */
/*
 * Structures of another age: the sz of an option structure or of an answer may be any from SZ_LEAST on, whatever the
 * size of today's structure is. An old program's shorter answer is filled as far as it goes, and not a byte further;
 * what a younger program has beyond today's answer stays as it was.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "scratch.h"
#include "support.h"
#include "uffdwp.h"

/* Never to be changed: programs that were built long ago rely on it. */
#define SZ_LEAST 16
#define LENGTH_BYTES ((size_t)1 << 20)
#define ROOM_BYTES 16384
#define UNTOUCHED 0xa5

static struct uffdwp *runtime;
static struct uffdwp_region *region;
static struct uffdwp_track *track;
static struct uffdwp_image *image;
static struct uffdwp_view *view;         /* NULL: not available here */
static struct uffdwp_child *child;       /* the same; it has ended */
static struct uffdwp_restore *restore;   /* the same */
static struct uffdwp_snapshot *snapshot; /* that has ended */
static struct uffdwp_region *restored;
static struct uffdwp_probe *probe;
static char path[SCRATCH_PATH];
static char other_path[SCRATCH_PATH];

/* --- answers ----------------------------------------------------------------------------------------------------- */

static int ask_info(void *answer)
{
	return uffdwp_region_info(region, answer);
}

static int ask_stats(void *answer)
{
	return uffdwp_region_stats(region, answer);
}

static int ask_audit(void *answer)
{
	int error = uffdwp_region_audit(region, answer);
	return error == -EOPNOTSUPP ? 1 : error; /* no witness in this kernel */
}

static int ask_track(void *answer)
{
	return uffdwp_track_info(track, answer);
}

static int ask_view(void *answer)
{
	return view ? uffdwp_view_info(view, answer) : 1;
}

static int ask_child(void *answer)
{
	return child ? uffdwp_child_info(child, answer) : 1;
}

static int ask_probe_child(void *answer)
{
	return uffdwp_probe_child(probe, answer);
}

static int ask_poll(void *answer)
{
	return uffdwp_snapshot_poll(snapshot, answer);
}

static int ask_wait(void *answer)
{
	return uffdwp_snapshot_wait(snapshot, -1, answer);
}

static int ask_restore(void *answer)
{
	return restore ? uffdwp_restore_wait(restore, -1, answer) : 1;
}

static int ask_whole(void *answer)
{
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	struct uffdwp_region *target;
	options.path = path;
	must(uffdwp_region_create(runtime, LENGTH_BYTES, NULL, &target) == 0);
	int error = uffdwp_restore(target, &options, answer);
	must(uffdwp_region_close(target) == 0);
	return error;
}

static int ask_image(void *answer)
{
	return uffdwp_image_info(image, 0, answer);
}

static int ask_extent(void *answer)
{
	int found = uffdwp_image_next(image, 0, answer);
	return found == 1 ? 0 : found;
}

static int ask_verify(void *answer)
{
	return uffdwp_image_verify(image, answer);
}

static int ask_system(void *answer)
{
	return uffdwp_probe_system(probe, answer);
}

static int ask_memory(void *answer)
{
	return uffdwp_probe_memory(probe, UFFDWP_MEMORY_ANON, answer);
}

static int ask_trial(void *answer)
{
	return uffdwp_probe_trial(probe, UFFDWP_MEMORY_ANON, UFFDWP_TRIAL_POPULATED, answer);
}

static int ask_rung(void *answer)
{
	return uffdwp_probe_rung(probe, UFFDWP_MEMORY_ANON, UFFDWP_MECHANISM_MPROTECT, answer);
}

static int ask_arming(void *answer)
{
	return uffdwp_probe_arming(probe, UFFDWP_MEMORY_ANON, UFFDWP_ARMING_ROUNDS, answer);
}

static const struct {
	const char *name;
	int (*ask)(void *answer); /* 1: not to be tested here */
	size_t ours;              /* size of today */
	int is_steady;            /* the same answer each time */
} answers[] = {
        {"region_info", ask_info, sizeof(struct uffdwp_region_info), 1},
        {"region_stats", ask_stats, sizeof(struct uffdwp_region_stats), 0},
        {"region_audit", ask_audit, sizeof(struct uffdwp_audit), 1},
        {"track_info", ask_track, sizeof(struct uffdwp_track_info), 1},
        {"view_info", ask_view, sizeof(struct uffdwp_view_info), 1},
        {"child_info", ask_child, sizeof(struct uffdwp_child_info), 1},
        {"probe_child", ask_probe_child, sizeof(struct uffdwp_probe_arming), 1},
        {"snapshot_poll", ask_poll, sizeof(struct uffdwp_snapshot_progress), 1},
        {"snapshot_wait", ask_wait, sizeof(struct uffdwp_snapshot_progress), 1},
        {"restore_wait", ask_restore, sizeof(struct uffdwp_restore_progress), 1},
        {"restore", ask_whole, sizeof(struct uffdwp_restore_progress), 0},
        {"image_info", ask_image, sizeof(struct uffdwp_image_info), 1},
        {"image_next", ask_extent, sizeof(struct uffdwp_image_extent), 1},
        {"image_verify", ask_verify, sizeof(struct uffdwp_image_verified), 1},
        {"probe_system", ask_system, sizeof(struct uffdwp_probe_system), 1},
        {"probe_memory", ask_memory, sizeof(struct uffdwp_probe_memory), 1},
        {"probe_trial", ask_trial, sizeof(struct uffdwp_probe_trial), 1},
        {"probe_rung", ask_rung, sizeof(struct uffdwp_probe_rung), 1},
        {"probe_arming", ask_arming, sizeof(struct uffdwp_probe_arming), 1},
};

/* Asks with `sz` and gives the result; the answer is in `room`. */
static int ask(size_t which, size_t sz, unsigned char room[ROOM_BYTES])
{
	memset(room, UNTOUCHED, ROOM_BYTES);
	memcpy(room, &sz, sizeof(sz));
	return answers[which].ask(room);
}

static size_t untouched_from(const unsigned char room[ROOM_BYTES])
{
	size_t end = ROOM_BYTES;
	while (end > 0 && room[end - 1] == UNTOUCHED)
		end--;
	return end;
}

START_TEST(test_an_answer_is_filled_as_far_as_its_sz_goes)
{
	static unsigned char full[ROOM_BYTES];
	static unsigned char part[ROOM_BYTES];
	size_t which = (size_t)_i;
	size_t ours = answers[which].ours;
	const char *name = answers[which].name;
	int error = ask(which, ours, full);
	if (error == 1) {
		support_note(name, "the kernel or the memory does not offer it");
		return;
	}
	ck_assert_msg(error == 0, "%s: %d", name, error);
	for (size_t sz = SZ_LEAST; sz <= ours + 64; sz += 8) {
		size_t filled = sz < ours ? sz : ours;
		ck_assert_msg(ask(which, sz, part) == 0, "%s refuses sz %zu", name, sz);
		ck_assert_msg(memcmp(part, &sz, sizeof(sz)) == 0, "%s changed sz", name);
		ck_assert_msg(untouched_from(part) <= filled, "%s wrote beyond sz %zu", name, sz);
		if (answers[which].is_steady)
			ck_assert_msg(memcmp(part + sizeof(sz), full + sizeof(sz), filled - sizeof(sz)) == 0,
			              "%s: another answer with sz %zu", name, sz);
	}
}
END_TEST

START_TEST(test_an_answer_of_a_smaller_sz_is_refused_and_untouched)
{
	static unsigned char room[ROOM_BYTES];
	size_t which = (size_t)_i;
	for (size_t sz = 0; sz < SZ_LEAST; sz++) {
		int error = ask(which, sz, room);
		if (error == 1)
			return; /* the test before this one says so */
		ck_assert_msg(error == -EINVAL, "%s: sz %zu: %d", answers[which].name, sz, error);
		ck_assert_uint_le(untouched_from(room), sizeof(sz));
	}
}
END_TEST

/* --- options ----------------------------------------------------------------------------------------------------- */

static int give_open(const void *options)
{
	struct uffdwp *other = NULL;
	int error = uffdwp_open(options, &other);
	if (!error)
		must(uffdwp_close(other) == 0);
	return error;
}

static int give_create(const void *options)
{
	struct uffdwp_region *other = NULL;
	int error = uffdwp_region_create(runtime, LENGTH_BYTES, options, &other);
	if (!error)
		must(uffdwp_region_close(other) == 0);
	return error;
}

/* With a runtime of its own, none of whose regions a restore uses. */
static int give_fork(const void *given)
{
	struct uffdwp *own = NULL;
	struct uffdwp_region *other = NULL;
	must(uffdwp_open(NULL, &own) == 0 && uffdwp_region_create(own, LENGTH_BYTES, NULL, &other) == 0);
	pid_t pid = uffdwp_fork(own, given, NULL);
	if (pid == 0)
		_exit(0);
	if (pid > 0)
		ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	must(uffdwp_region_close(other) == 0 && uffdwp_close(own) == 0);
	return pid > 0 || pid == -EOPNOTSUPP ? 0 : pid;
}

/* What was read of the mapper is right when its descriptor is found to be no userfaultfd. */
static int give_mapper(const void *options)
{
	static unsigned char room[ROOM_BYTES];
	struct uffdwp_region_options of_region = UFFDWP_REGION_OPTIONS_INIT;
	struct uffdwp_mapping mapping = {1 << 20, 0, 1 << 20};
	struct uffdwp_mapper *mapper = (void *)room;
	struct uffdwp_region *other = NULL;
	size_t sz;
	memcpy(&sz, options, sizeof(sz));
	memcpy(room, options, sz > sizeof(sz) ? sz : sizeof(sz));
	int fd = memfd_create("memory", MFD_CLOEXEC);
	must(fd >= 0 && ftruncate(fd, 1 << 20) == 0);
	of_region.fd = fd;
	if (sz >= sizeof(*mapper)) {
		mapper->uffd = fd;
		mapper->mapping_count = 1;
		mapper->mappings = &mapping;
	}
	int error = uffdwp_region_adopt(runtime, 1 << 20, &of_region, mapper, &other);
	(void)close(fd);
	return error == -ENOTTY || (error == -EINVAL && sz >= 16 && sz < sizeof(*mapper)) ? 0 : error;
}

static int give_track(const void *options)
{
	struct uffdwp_track *other = NULL;
	int error = uffdwp_track_start(runtime, options, &other);
	if (!error)
		must(uffdwp_track_stop(other) == 0);
	return error;
}

static int give_collect(const void *options)
{
	static unsigned char room[ROOM_BYTES];
	size_t sz;
	memcpy(&sz, options, sizeof(sz));
	memcpy(room, options, sz > sizeof(sz) ? sz : sizeof(sz)); /* it takes the answer, too */
	return uffdwp_track_collect(track, (void *)room);
}

static int give_image(const void *options)
{
	struct uffdwp_image *other = NULL;
	int error = uffdwp_image_open(path, options, &other);
	if (!error)
		must(uffdwp_image_close(other) == 0);
	return error;
}

static int give_merge(const void *options)
{
	return uffdwp_image_merge(image, other_path, options);
}

static const struct {
	const char *name;
	int (*give)(const void *options);
	size_t ours;
} options[] = {
        {"open", give_open, sizeof(struct uffdwp_options)},
        {"region_create", give_create, sizeof(struct uffdwp_region_options)},
        {"fork", give_fork, sizeof(struct uffdwp_fork_options)},
        {"mapper", give_mapper, sizeof(struct uffdwp_mapper)},
        {"track_start", give_track, sizeof(struct uffdwp_track_options)},
        {"track_collect", give_collect, sizeof(struct uffdwp_collect)},
        {"image_open", give_image, sizeof(struct uffdwp_image_options)},
        {"image_merge", give_merge, sizeof(struct uffdwp_image_merge_options)},
};

/* What lies beyond sz is not read: it would be an unknown flag, a bad descriptor, a wild pointer. */
START_TEST(test_options_of_any_age_are_taken)
{
	static unsigned char room[ROOM_BYTES];
	size_t which = (size_t)_i;
	size_t ours = options[which].ours;
	for (size_t sz = 0; sz <= ours + 16; sz += sz < SZ_LEAST ? 1 : 8) {
		memset(room, UNTOUCHED, ROOM_BYTES);
		memset(room, 0, sz > sizeof(sz) ? sz : sizeof(sz));
		memcpy(room, &sz, sizeof(sz));
		int error = options[which].give(room);
		ck_assert_msg(error == (sz < SZ_LEAST ? -EINVAL : 0), "%s: sz %zu: %d", options[which].name, sz, error);
	}
}
END_TEST

START_TEST(test_an_unknown_tail_of_options_is_refused)
{
	static unsigned char room[ROOM_BYTES];
	size_t which = (size_t)_i;
	size_t sz = options[which].ours + 8;
	memset(room, 0, ROOM_BYTES);
	memcpy(room, &sz, sizeof(sz));
	room[sz - 1] = 1;
	ck_assert_int_eq(options[which].give(room), -E2BIG);
}
END_TEST

/* --- the stage --------------------------------------------------------------------------------------------------- */

static void take_snapshot(void)
{
	struct uffdwp_snapshot_options taken = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	taken.path = path;
	ck_assert_int_eq(uffdwp_snapshot_begin(region, &taken, &snapshot), 0);
	ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, -1, NULL), 0);
}

static void begin_restore(void)
{
	struct uffdwp_region_options created = UFFDWP_REGION_OPTIONS_INIT;
	struct uffdwp_restore_options begun = UFFDWP_RESTORE_OPTIONS_INIT;
	created.mechanism = UFFDWP_MECHANISM_REARM;
	begun.path = path;
	if (uffdwp_region_create(runtime, LENGTH_BYTES, &created, &restored) != 0)
		restored = NULL;
	else if (uffdwp_restore_begin(restored, &begun, &restore) != 0)
		restore = NULL;
}

static void setup(void)
{
	char folder[SCRATCH_PATH];
	scratch_folder(folder);
	scratch_join(path, folder, "one.img");
	scratch_join(other_path, folder, "other.img");
	ck_assert_int_eq(uffdwp_open(NULL, &runtime), 0);
	ck_assert_int_eq(uffdwp_region_create(runtime, LENGTH_BYTES, NULL, &region), 0);
	memset(uffdwp_region_base(region), 'a', LENGTH_BYTES);
	take_snapshot();
	ck_assert_int_eq(uffdwp_image_open(path, NULL, &image), 0);
	ck_assert_int_eq(uffdwp_track_start(runtime, NULL, &track), 0);
	begin_restore();
	ck_assert_int_eq(uffdwp_probe_run(&probe), 0);
}

/* It has the region that no restore uses, and ends at once. */
static void make_child(void)
{
	struct uffdwp_fork_options one = UFFDWP_FORK_OPTIONS_INIT;
	one.regions = &region;
	one.region_count = 1;
	pid_t pid = uffdwp_fork(runtime, &one, &child);
	if (pid == 0)
		_exit(0);
	if (pid < 0)
		return;
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	struct uffdwp_child_info info = {.sz = sizeof(info)};
	while (uffdwp_child_info(child, &info) == 0 && info.state == UFFDWP_CHILD_STATE_RUNNING)
		sleep_us(1000);
}

static void setup_view(void)
{
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	snapshot = NULL;
	make_child();
	if (uffdwp_view_open(region, NULL, &view) != 0)
		view = NULL;
	take_snapshot();
}

static void teardown(void)
{
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	ck_assert_int_eq(uffdwp_view_close(view), 0);
	ck_assert_int_eq(uffdwp_child_free(child), 0);
	ck_assert_int_eq(uffdwp_restore_free(restore), 0);
	ck_assert_int_eq(uffdwp_image_close(image), 0);
	ck_assert_int_eq(uffdwp_track_stop(track), 0);
	ck_assert_int_eq(uffdwp_region_close(restored), 0);
	ck_assert_int_eq(uffdwp_region_close(region), 0);
	ck_assert_int_eq(uffdwp_close(runtime), 0);
	ck_assert_int_eq(uffdwp_probe_free(probe), 0);
}

int main(void)
{
	support_begin("test_sizes", &(struct support_needs){0, 0});
	int answer_count = (int)(sizeof(answers) / sizeof(answers[0]));
	int option_count = (int)(sizeof(options) / sizeof(options[0]));
	Suite *suite = suite_create("sizes");
	TCase *given = tcase_create("answers");
	tcase_add_checked_fixture(given, setup, teardown);
	tcase_add_checked_fixture(given, setup_view, NULL);
	tcase_set_timeout(given, 120);
	tcase_add_loop_test(given, test_an_answer_is_filled_as_far_as_its_sz_goes, 0, answer_count);
	tcase_add_loop_test(given, test_an_answer_of_a_smaller_sz_is_refused_and_untouched, 0, answer_count);
	suite_add_tcase(suite, given);
	TCase *taken = tcase_create("options");
	tcase_add_checked_fixture(taken, setup, teardown);
	tcase_set_timeout(taken, 120);
	tcase_add_loop_test(taken, test_options_of_any_age_are_taken, 0, option_count);
	tcase_add_loop_test(taken, test_an_unknown_tail_of_options_is_refused, 0, option_count);
	suite_add_tcase(suite, taken);
	return support_run(suite);
}
