/* SPDX-License-Identifier: MIT */
/*
 * The files that images are: which users may read them, where they go when their path is a link, what is refused as a
 * path, and that nothing is left of one whose program ended while it was being written.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "scratch.h"
#include "support.h"
#include "uffdwp.h"

#define LENGTH ((size_t)1 << 20)
#define SLOW_LENGTH ((size_t)8 << 20) /* more than a sink takes at once whatever its rate is */

static struct uffdwp *runtime;
static struct uffdwp_region *region;
static char folder[SCRATCH_PATH];

static void setup(void)
{
	must(uffdwp_open(NULL, &runtime) == 0);
	must(uffdwp_region_create(runtime, LENGTH, NULL, &region) == 0);
	memset(uffdwp_region_base(region), 7, LENGTH);
	scratch_folder(folder);
}

static void teardown(void)
{
	must(uffdwp_region_close(region) == 0);
	must(uffdwp_close(runtime) == 0);
}

static const char *in_folder(const char *name)
{
	static char paths[4][SCRATCH_PATH];
	static unsigned next;
	char *path = paths[next++ % 4];

	scratch_join(path, folder, name);
	return path;
}

static int take(const char *path, const char *parent, uint32_t mode)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot;

	options.path = path;
	options.parent = parent;
	options.mode = mode;
	options.flags = UFFDWP_SNAPSHOT_KEEP;
	int error = uffdwp_snapshot_begin(region, &options, &snapshot);

	if (error)
		return error;
	error = uffdwp_snapshot_wait(snapshot, -1, NULL);
	must(uffdwp_snapshot_free(snapshot) == 0);
	return error;
}

static unsigned mode_of(const char *name)
{
	struct stat st;

	ck_assert_int_eq(lstat(in_folder(name), &st), 0);
	return st.st_mode & 07777;
}

static int is_link(const char *name)
{
	struct stat st;

	return lstat(in_folder(name), &st) == 0 && S_ISLNK(st.st_mode);
}

static void expect_image(const char *name)
{
	struct stat st;

	ck_assert_int_eq(lstat(in_folder(name), &st), 0);
	ck_assert(S_ISREG(st.st_mode));
	ck_assert_int_eq(st.st_size, (off_t)LENGTH);
}

/* ---- modes ---- */

static void merge(const char *from, const char *to, uint32_t mode, uint32_t deltas)
{
	struct uffdwp_image_merge_options options = UFFDWP_IMAGE_MERGE_OPTIONS_INIT;
	struct uffdwp_image *image;

	options.mode = mode;
	options.deltas = deltas;
	ck_assert_int_eq(uffdwp_image_open(in_folder(from), NULL, &image), 0);
	ck_assert_int_eq(uffdwp_image_merge(image, in_folder(to), &options), 0);
	ck_assert_int_eq(uffdwp_image_close(image), 0);
}

static void diff(const char *from, const char *to, const char *delta, uint32_t mode)
{
	struct uffdwp_image_diff options = UFFDWP_IMAGE_DIFF_INIT;
	struct uffdwp_image *images[2];

	options.mode = mode;
	options.path = in_folder(delta);
	ck_assert_int_eq(uffdwp_image_open(in_folder(from), NULL, &images[0]), 0);
	ck_assert_int_eq(uffdwp_image_open(in_folder(to), NULL, &images[1]), 0);
	ck_assert_int_eq(uffdwp_image_diff(images[0], images[1], &options), 0);
	ck_assert_int_eq(uffdwp_image_close(images[0]), 0);
	ck_assert_int_eq(uffdwp_image_close(images[1]), 0);
}

START_TEST(test_images_are_for_their_owner_unless_asked)
{
	umask(0);
	ck_assert_int_eq(take(in_folder("raw"), NULL, 0), 0);
	ck_assert_int_eq(take(in_folder("delta"), in_folder("raw"), 0), 0);
	merge("delta", "merged", 0, 0);
	diff("raw", "delta", "diff", 0);
	ck_assert_uint_eq(mode_of("raw"), 0600);
	ck_assert_uint_eq(mode_of("delta"), 0600);
	ck_assert_uint_eq(mode_of("merged"), 0600);
	ck_assert_uint_eq(mode_of("diff"), 0600);
	umask(0007);
	ck_assert_int_eq(take(in_folder("raw"), NULL, 0666), 0);
	ck_assert_int_eq(take(in_folder("delta"), in_folder("raw"), 0644), 0);
	merge("delta", "merged", 0664, 0);
	diff("raw", "delta", "diff", 0640);
	ck_assert_uint_eq(mode_of("raw"), 0660);
	ck_assert_uint_eq(mode_of("delta"), 0640);
	ck_assert_uint_eq(mode_of("merged"), 0660);
	ck_assert_uint_eq(mode_of("diff"), 0640);
	ck_assert_int_eq(take(in_folder("other"), NULL, 04755), -EINVAL);
}
END_TEST

/* ---- links and what is no file ---- */

START_TEST(test_link_is_followed_and_stays)
{
	ck_assert_int_eq(mkdir(in_folder("away"), 0700), 0);
	ck_assert_int_eq(symlink("away/real", in_folder("relative")), 0);
	ck_assert_int_eq(symlink(in_folder("relative"), in_folder("chain")), 0);
	ck_assert_int_eq(take(in_folder("chain"), NULL, 0), 0); /* there is nothing yet */
	expect_image("away/real");
	ck_assert_int_eq(truncate(in_folder("away/real"), 0), 0);
	ck_assert_int_eq(take(in_folder("relative"), NULL, 0), 0);
	expect_image("away/real");
	ck_assert(is_link("relative") && is_link("chain"));
	ck_assert_uint_eq(scratch_entries(in_folder("away")), 1);
	ck_assert_int_eq(symlink("away/delta", in_folder("delta")), 0);
	ck_assert_int_eq(take(in_folder("delta"), in_folder("away/real"), 0), 0);
	ck_assert_int_eq(take(in_folder("loop"), NULL, 0), 0);
	ck_assert_int_eq(unlink(in_folder("loop")), 0);
	ck_assert_int_eq(symlink("loop", in_folder("loop")), 0);
	ck_assert_int_eq(take(in_folder("loop"), NULL, 0), -ELOOP);
}
END_TEST

static void expect_refused(const char *path, int error, const char *word)
{
	char text[512];

	ck_assert_int_eq(take(path, NULL, 0), error);
	uffdwp_error_text(text, sizeof(text));
	ck_assert_msg(strstr(text, word) != NULL, "%s: %s", path, text);
}

START_TEST(test_only_files_are_replaced)
{
	char path[64];
	int ends[2];
	struct stat st;

	/* A device of the test's own: a library that got this wrong would replace the machine's. */
	if (mknod(in_folder("device"), S_IFCHR | 0600, makedev(1, 3)) == 0) {
		expect_refused(in_folder("device"), -EINVAL, "stream sink");
		ck_assert_int_eq(symlink("device", in_folder("null")), 0);
		expect_refused(in_folder("null"), -EINVAL, "stream sink");
		ck_assert_int_eq(lstat(in_folder("device"), &st), 0);
		ck_assert(S_ISCHR(st.st_mode));
	} else {
		support_note(__func__, "no device can be made here");
	}
	ck_assert_int_eq(mkfifo(in_folder("fifo"), 0600), 0);
	expect_refused(in_folder("fifo"), -EINVAL, "stream sink");
	ck_assert_int_eq(pipe(ends), 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", ends[1]); /* as /dev/stdout is */
	expect_refused(path, -EINVAL, "stream sink");
	ck_assert_int_eq(symlink(path, in_folder("stdout")), 0);
	expect_refused(in_folder("stdout"), -EINVAL, "stream sink");
	ck_assert(is_link("stdout"));
	expect_refused(folder, -EISDIR, "folder");
	/* A file that has a link of /proc, and no name any more. */
	int fd = open(in_folder("gone"), O_RDWR | O_CREAT, 0600);

	ck_assert_int_eq(unlink(in_folder("gone")), 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	expect_refused(path, -EINVAL, "no name");
}
END_TEST

/* ---- leftovers ---- */

static int leftovers(void)
{
	DIR *entries = opendir(folder);
	int count = 0;

	must(entries != NULL);
	for (struct dirent *entry; (entry = readdir(entries)) != NULL;)
		count += strncmp(entry->d_name, ".uffdwp", 7) == 0;
	closedir(entries);
	return count;
}

/* A snapshot that will not end by itself: 1 byte a second of it is written. */
static void begin_slowly(void)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot;

	must(uffdwp_open(NULL, &runtime) == 0);
	must(uffdwp_region_create(runtime, SLOW_LENGTH, NULL, &region) == 0);
	memset(uffdwp_region_base(region), 7, SLOW_LENGTH);
	options.path = in_folder("slow");
	options.rate_bytes = 1;
	must(uffdwp_snapshot_begin(region, &options, &snapshot) == 0);
	must(leftovers() == 1);
}

static int run_and_wait(void (*how)(void))
{
	int status = -1;
	pid_t child = fork();

	ck_assert_int_ge(child, 0);
	if (child == 0) {
		begin_slowly();
		how();
		exit(0);
	}
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	return status;
}

static void end_by_exit(void)
{
}

static void end_by_kill(void)
{
	kill(getpid(), SIGKILL);
}

/* A child of fork() that ends first removes nothing. */
static void fork_then_exit(void)
{
	int status = -1;
	pid_t child = fork();

	must(child >= 0);
	if (child == 0)
		exit(0);
	must(waitpid(child, &status, 0) == child && status == 0);
	must(leftovers() == 1);
}

START_TEST(test_program_that_ends_leaves_no_file)
{
	ck_assert_int_eq(run_and_wait(end_by_exit), 0);
	ck_assert_int_eq(leftovers(), 0);
	ck_assert_uint_eq(scratch_entries(folder), 0);
	ck_assert_int_eq(run_and_wait(fork_then_exit), 0);
	ck_assert_int_eq(leftovers(), 0);
	/* What is said of kill(2): the file stays, and nothing is under the name. */
	ck_assert_int_ne(run_and_wait(end_by_kill), 0);
	ck_assert_int_eq(leftovers(), 1);
	ck_assert_uint_eq(scratch_entries(folder), 1);
}
END_TEST

static void make_folder(void)
{
	scratch_folder(folder);
}

int main(void)
{
	support_begin("test_files", &(struct support_needs){.huge_pages = 0, .swap = 0});
	Suite *suite = suite_create("files");
	TCase *tests = tcase_create("files");

	tcase_set_timeout(tests, 60);
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, test_images_are_for_their_owner_unless_asked);
	tcase_add_test(tests, test_link_is_followed_and_stays);
	tcase_add_test(tests, test_only_files_are_replaced);
	suite_add_tcase(suite, tests);
	TCase *ends = tcase_create("ends");

	tcase_set_timeout(ends, 60);
	tcase_add_checked_fixture(ends, make_folder, NULL);
	tcase_add_test(ends, test_program_that_ends_leaves_no_file);
	suite_add_tcase(suite, ends);
	return support_run(suite);
}
