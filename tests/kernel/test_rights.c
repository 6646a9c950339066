/* SPDX-License-Identifier: MIT */
/*
 * A process that gives up rights after it opened its runtime: by another user, or by a seccomp filter. The next region
 * takes the access to a userfaultfd that is left, or the mechanism that needs none, and a text says why.
 */
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "filter.h"
#include "kernel/kernel.h"
#include "place.h"
#include "support.h"

#define UNPRIVILEGED 65534

static int drop_user(void)
{
	return setresgid(UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED) == 0 &&
	       setresuid(UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED) == 0;
}

/* No userfaultfd(2) at all, and no device. */
static int drop_call(void)
{
	return filter_call(SYS_userfaultfd, filter_errno(EPERM)) == 0 && drop_user();
}

/* Is the system call refused to this process now, the device too, and user mode allowed? */
static int has_only_user_mode(void)
{
	int errors[KERNEL_ACCESS_COUNT];
	enum kernel_access access;
	int uffd = kernel_uffd_open(&kernel_real, 0, &access, errors);

	if (uffd >= 0)
		close(uffd);
	return uffd >= 0 && access == KERNEL_ACCESS_USER_MODE;
}

static int has_nothing(void)
{
	int errors[KERNEL_ACCESS_COUNT];
	enum kernel_access access;
	int uffd = kernel_uffd_open(&kernel_real, 0, &access, errors);

	if (uffd >= 0)
		close(uffd);
	return uffd < 0;
}

static struct uffdwp_region_info info_of(const struct uffdwp_region *region)
{
	struct uffdwp_region_info info = {.sz = sizeof(info)};

	must(uffdwp_region_info(region, &info) == 0);
	return info;
}

static void expect_text(const char *part)
{
	char text[600];

	uffdwp_error_text(text, sizeof(text));
	if (!strstr(text, part))
		printf("\"%s\" does not say \"%s\"\n", text, part);
	must(strstr(text, part) != NULL);
}

/* The second witness: every page of the region stops one write. */
static void expect_armed(struct uffdwp_region *region, size_t length)
{
	struct uffdwp_region_stats before = {.sz = sizeof(before)};
	struct uffdwp_region_stats after = {.sz = sizeof(after)};
	const size_t page = (size_t)getpagesize();
	volatile uint8_t *base = uffdwp_region_base(region);

	memset(uffdwp_region_base(region), 1, length);
	must(uffdwp_region_arm(region, 0, length) == 0);
	must(uffdwp_region_stats(region, &before) == 0);
	for (size_t at = 0; at < length; at += page)
		base[at] = 2;
	must(uffdwp_region_stats(region, &after) == 0);
	must(after.pages_disarmed - before.pages_disarmed == length / page);
}

static void drop_and_go_on(int (*drop)(void), int (*is_so)(void), int only_mprotect)
{
	const size_t length = 32 * (size_t)getpagesize();
	struct uffdwp *runtime = NULL;
	struct uffdwp_region *before = NULL;
	struct uffdwp_region *after = NULL;
	struct uffdwp_track *track = NULL;

	must(uffdwp_open(NULL, &runtime) == 0);
	must(uffdwp_region_create(runtime, length, NULL, &before) == 0);
	must(drop());
	if (!is_so()) {
		printf("not tested here: this user keeps another access to a userfaultfd, or has none\n");
		return;
	}
	must(uffdwp_region_create(runtime, length, NULL, &after) == 0);
	expect_text(only_mprotect ? "no userfaultfd" : "gave up rights");
	must((info_of(after).mechanism == UFFDWP_MECHANISM_MPROTECT) == only_mprotect);
	if (!only_mprotect)
		must(info_of(after).mechanism == info_of(before).mechanism);
	expect_armed(after, length);
	expect_armed(before, length); /* its userfaultfd stays what it was */
	must(uffdwp_track_start(runtime, NULL, &track) == 0);
	must(uffdwp_track_stop(track) == 0);
	must(uffdwp_region_close(after) == 0);
	must(uffdwp_region_close(before) == 0);
	must(uffdwp_close(runtime) == 0);
}

static void go_on_as_another_user(void *ignored)
{
	(void)ignored;
	drop_and_go_on(drop_user, has_only_user_mode, 0);
}

static void go_on_without_the_call(void *ignored)
{
	(void)ignored;
	drop_and_go_on(drop_call, has_nothing, 1);
}

START_TEST(test_user_mode_is_taken_after_setuid)
{
	ck_assert_int_eq(child_run(go_on_as_another_user, NULL), 0);
}
END_TEST

START_TEST(test_mprotect_is_taken_after_a_filter)
{
	ck_assert_int_eq(child_run(go_on_without_the_call, NULL), 0);
}
END_TEST

int main(void)
{
	support_begin("test_rights", &(struct support_needs){.huge_pages = 0, .swap = 0});
	place_begin();
	if (!support_may_change_user() || place_report()->access[UFFDWP_ACCESS_SYSCALL] != 0)
		return support_skip(
		        "only a process that has rights to a userfaultfd, and may change its user, can give them up");
	Suite *suite = suite_create("rights");
	TCase *tests = tcase_create("rights");

	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, test_user_mode_is_taken_after_setuid);
	tcase_add_test(tests, test_mprotect_is_taken_after_a_filter);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
