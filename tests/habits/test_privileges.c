/* SPDX-License-Identifier: MIT */
/*
 * A daemon opens its region as root and then gives up what it has: its user, its capabilities, its root folder; it
 * is not dumpable any more. Snapshots, tracks and new regions go on, or are refused with an error and a
 * text; no writer waits for ever, and what commits is right.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "habit.h"
#include "scratch.h"

#define DAEMON_PAGES 64u
#define UNPRIVILEGED 65534u

static struct habit_case daemon_case;
static char folder[SCRATCH_PATH];

static int drop_user(void)
{
	return setgroups(0, NULL) == 0 && setgid(UNPRIVILEGED) == 0 && setuid(UNPRIVILEGED) == 0;
}

/* As above, but it may be looked at by its own user again. */
static int drop_user_dumpable(void)
{
	return drop_user() && prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0;
}

static int drop_capabilities(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];
	memset(data, 0, sizeof(data));
	return syscall(SYS_capset, &header, data) == 0;
}

static int drop_root(void)
{
	return chroot(folder) == 0 && chdir("/") == 0;
}

static int drop_dumpable(void)
{
	return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0;
}

static int drop_new_privileges(void)
{
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
}

static int drop_all(void)
{
	return drop_root() && drop_user() && drop_new_privileges();
}

static const struct {
	const char *name;
	int (*drop)(void);
	int still_works; /* 1: a snapshot of the region that was there must work */
} drops[] = {
        {"setuid", drop_user, 1},
        {"setuid, dumpable", drop_user_dumpable, 1},
        {"no capabilities", drop_capabilities, 1},
        {"chroot", drop_root, 1},
        {"not dumpable", drop_dumpable, 1},
        {"no new privileges", drop_new_privileges, 1},
        {"chroot, setuid, no new privileges", drop_all, 1},
};
#define DROPS ((int)(sizeof(drops) / sizeof(drops[0])))

static void daemon_region(struct habit *habit)
{
	struct uffdwp_region *region;
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	options.delivery = habit->which.delivery;
	int rc = uffdwp_region_create(habit->runtime, 16 * habit->page_bytes, &options, &region);
	if (rc != 0) {
		habit_says_why();
		return;
	}
	must_be(habit->runtime, uffdwp_region_arm(region, 0, 16 * habit->page_bytes), 0);
	memset(uffdwp_region_base(region), 1, 16 * habit->page_bytes);
	must_be(habit->runtime, uffdwp_region_close(region), 0);
}

static void daemon_track(struct habit *habit)
{
	struct uffdwp_track *track;
	struct uffdwp_written range[4];
	uint8_t *memory = habit_map(16 * habit->page_bytes);
	if (uffdwp_track_start(habit->runtime, NULL, &track) != 0) {
		habit_says_why();
		return;
	}
	if (uffdwp_track_add(track, memory, 16 * habit->page_bytes, 0) != 0) {
		habit_says_why();
	} else {
		struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
		memory[0] = 1;
		collect.ranges = range;
		collect.capacity = 4;
		int rc = uffdwp_track_collect(track, &collect);
		must(rc != 0 || (collect.count >= 1 && range[0].start == (uintptr_t)memory));
	}
	must_be(habit->runtime, uffdwp_track_stop(track), 0);
}

static void daemon_run(void *index)
{
	int which = *(int *)index;
	struct habit habit;
	habit_open(&habit, daemon_case, DAEMON_PAGES);
	habit_fill(&habit, 1);
	must(drops[which].drop());
	for (uint64_t i = 0; i < 3; i++) {
		int rc = habit_try_round(&habit, i);
		must(rc == 0 || !drops[which].still_works);
	}
	daemon_region(&habit);
	daemon_track(&habit);
	must(habit_try_round(&habit, 4) == 0 || !drops[which].still_works);
	habit_close(&habit);
}

/* A snapshot runs while it happens. */
static void daemon_run_during(void *index)
{
	int which = *(int *)index;
	struct habit habit;
	habit_open(&habit, daemon_case, DAEMON_PAGES);
	habit_fill(&habit, 1);
	habit_cut(&habit);
	must(drops[which].drop());
	for (size_t i = 0; i < habit.pages; i++) {
		habit_write(&habit, i, 0, 7);
	}
	must(habit_try_end(&habit) == 0 || !drops[which].still_works);
	habit_close(&habit);
}

/* It opens the library when it has nothing left. */
static void daemon_run_late(void *index)
{
	struct habit habit;
	must(drops[*(int *)index].drop());
	int rc = habit_try(&habit, daemon_case, DAEMON_PAGES);
	if (rc != 0) {
		return;
	}
	habit_fill(&habit, 1);
	(void)habit_try_round(&habit, 1);
	habit_close(&habit);
}

START_TEST(test_a_daemon_that_gives_up_its_privileges)
{
	int index = _i % DROPS;
	daemon_case = habit_case(_i / DROPS);
	if (!habit_possible(daemon_case)) {
		return;
	}
	if (!support_may_change_user()) {
		support_note(drops[index].name, "only root has something to give up");
		return;
	}
	scratch_folder(folder);
	fprintf(stderr, "%s, %s\n", habit_name(daemon_case), drops[index].name);
	must(habit_child(daemon_run, &index) == 0);
	must(habit_child(daemon_run_during, &index) == 0);
	must(habit_child(daemon_run_late, &index) == 0);
}
END_TEST

int main(void)
{
	habit_begin(TEST_NAME, 0);
	Suite *suite = suite_create(TEST_NAME);
	TCase *tcase = tcase_create("privileges");
	tcase_set_timeout(tcase, 120);
	tcase_add_loop_test(tcase, test_a_daemon_that_gives_up_its_privileges, 0, HABIT_SMALL_CASES * DROPS);
	suite_add_tcase(suite, tcase);
	return support_run(suite);
}
