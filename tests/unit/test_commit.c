/* SPDX-License-Identifier: MIT */
/*
 * INV-COMMIT at its last step: what a commit answers when the image has its name and the folder cannot be synced. A
 * file system without fsync(2) of folders has -EINVAL for it, which is no failure; an error of the disk is one; and the
 * file itself must be synced on any.
 */
#include <errno.h>
#include <string.h>

#include "image/file.h"
#include "scratch.h"
#include "support.h"

static struct kernel_ops ops;
static struct image_file file;
static int folder_error;
static int file_error;

static int fsync_answering(int fd)
{
	int error = fd == file.folder ? folder_error : file_error;
	return error ? error : kernel_real.fsync(fd);
}

static int commit(char path[SCRATCH_PATH])
{
	static uint8_t bytes[IMAGE_ALIGN] = "an image";
	char folder[SCRATCH_PATH];
	struct image_identity identity;
	struct text text;
	text_init(&text);
	scratch_folder(folder);
	scratch_join(path, folder, "image");
	memset(&file, 0, sizeof(file));
	ops = kernel_real;
	ops.fsync = fsync_answering;
	ck_assert_int_eq(image_file_open(&file, &ops, path, IMAGE_FILE_BUFFERED, 0, &text), 0);
	ck_assert_int_eq(image_file_pwrite(&file, bytes, sizeof(bytes), 0), 0);
	int error = image_file_commit(&file, sizeof(bytes), &identity, &text);
	ck_assert_msg(!error == !text.line[0], "%d: %s", error, text.line);
	image_file_close(&file, !error);
	text_fini(&text);
	return error;
}

static int is_there(const char *path)
{
	uint8_t bytes[IMAGE_ALIGN];
	return scratch_read(path, bytes, sizeof(bytes)) && strcmp((const char *)bytes, "an image") == 0;
}

START_TEST(test_folder_that_has_no_fsync_is_no_failure)
{
	char path[SCRATCH_PATH];
	file_error = 0;
	folder_error = -EINVAL;
	ck_assert_int_eq(commit(path), 0);
	ck_assert(is_there(path));
}
END_TEST

START_TEST(test_error_of_the_folders_fsync_is_reported)
{
	static const int errors[] = {-EIO, -ENOSPC, -EOPNOTSUPP};
	char path[SCRATCH_PATH];
	file_error = 0;
	folder_error = errors[_i];
	ck_assert_int_eq(commit(path), errors[_i]);
	ck_assert(is_there(path));
}
END_TEST

START_TEST(test_error_of_the_files_fsync_leaves_nothing)
{
	static const int errors[] = {-EINVAL, -EIO};
	char path[SCRATCH_PATH];
	file_error = errors[_i];
	folder_error = 0;
	ck_assert_int_eq(commit(path), errors[_i]);
	*strrchr(path, '/') = '\0';
	ck_assert_uint_eq(scratch_entries(path), 0);
}
END_TEST

int main(void)
{
	support_begin("test_commit", &(struct support_needs){0, 0});
	Suite *suite = suite_create("commit");
	TCase *tests = tcase_create("commit");
	tcase_add_test(tests, test_folder_that_has_no_fsync_is_no_failure);
	tcase_add_loop_test(tests, test_error_of_the_folders_fsync_is_reported, 0, 3);
	tcase_add_loop_test(tests, test_error_of_the_files_fsync_leaves_nothing, 0, 2);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
