/* SPDX-License-Identifier: MIT */
/*
 * Texts of /proc that are not as the kernel prints them: what the library and uffdwp-dirty read out of maps and smaps
 * is what stands there, or nothing. open(2) of the library's two files is led here by the linker (--wrap).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../tools/dirty/maps.h"
#include "kernel/maps.h"
#include "support.h"

#define START 0x10000000ull
#define HEAD "10000000-10002000 rw-s 00000000 00:01 7 /memfd:a (deleted)\n"

int __wrap_open(const char *path, int flags, ...);
int __real_open(const char *path, int flags, ...);

static const char *maps_played;
static const char *smaps_played;

static int play(const char *text)
{
	int fd = memfd_create("played", MFD_CLOEXEC);

	must(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && lseek(fd, 0, SEEK_SET) == 0);
	return fd;
}

/* They are no files of /proc: PROCMAP_QUERY is refused, and the text is asked. */
int __wrap_open(const char *path, int flags, ...)
{
	va_list arguments;

	if (maps_played && strcmp(path, "/proc/self/maps") == 0)
		return play(maps_played);
	if (maps_played && strcmp(path, "/proc/self/smaps") == 0)
		return play(smaps_played);
	va_start(arguments, flags);
	int mode = flags & O_CREAT ? va_arg(arguments, int) : 0;

	va_end(arguments);
	return __real_open(path, flags, mode);
}

static int look(const char *maps, const char *smaps, struct maps_range *range)
{
	maps_played = maps;
	smaps_played = smaps;
	int error = maps_look(START, 0x2000, range);

	maps_played = NULL;
	return error;
}

START_TEST(test_a_page_size_that_is_none_is_an_error)
{
	static const char *const sizes[] = {"0", "3", "5", "-4", "1", "18014398509481984", "x"};
	char text[400];
	struct maps_range range = {.inode = 77};

	(void)snprintf(text, sizeof(text), HEAD "KernelPageSize:  %ld kB\n", sysconf(_SC_PAGESIZE) / 1024);
	ck_assert_int_eq(look(HEAD, text, &range), 0);
	ck_assert_int_eq(range.covered && range.uniform && range.inode == 7, 1);
	range.inode = 77;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		(void)snprintf(text, sizeof(text), HEAD "KernelPageSize:  %s kB\n", sizes[i]);
		ck_assert_msg(look(HEAD, text, &range) == -ENODATA, "KernelPageSize: %s", sizes[i]);
		ck_assert_uint_eq(range.inode, 77);
	}
}
END_TEST

START_TEST(test_a_line_that_is_no_mapping_covers_nothing)
{
	static const char *const lines[] = {"10000000- 10002000 rw-s 00000000 00:01 7 /a\n",
	                                    "+10000000-10002000 rw-s 00000000 00:01 7 /a\n",
	                                    "-f0000000-10002000 rw-s 00000000 00:01 7 /a\n",
	                                    "10000000--1 rw-s 00000000 00:01 7 /a\n",
	                                    "10000000\n",
	                                    "\n"};
	struct maps_range range;

	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		ck_assert_int_eq(look(lines[i], lines[i], &range), 0);
		ck_assert_msg(!range.covered, "%s", lines[i]);
	}
}
END_TEST

static void see_nothing(void *user, uint64_t from, uint64_t to)
{
	(void)user;
	ck_abort_msg("[%llx, %llx) is no mapping", (unsigned long long)from, (unsigned long long)to);
}

START_TEST(test_a_mapping_that_ends_before_it_begins_is_none)
{
	const char *text = "10002000-10001000 rw-s 00000000 00:01 7 /a\n";

	maps_played = smaps_played = text;
	int error = maps_each_writable(START, START + 0x4000, see_nothing, NULL);

	maps_played = NULL;
	ck_assert_int_eq(error, 0);
}
END_TEST

/* ---- uffdwp-dirty ---- */

/* Reads a text into room that is filled with the rest of a longer one, as of a former read. */
static int read_dirty(struct maps *maps, const char *text)
{
	static const char former[] = "10-20 rw-p 0 0:0 0 former\n10000-20000 rw-p 0 0:0 0 former\n";
	int fd = memfd_create("maps", MFD_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	maps->text_size = 4096;
	maps->text = calloc(1, maps->text_size);
	memcpy(maps->text + strlen(text) + 1, former, sizeof(former));
	int error = maps_read(maps, fd, getpid());

	close(fd);
	return error;
}

START_TEST(test_dirty_takes_the_lines_of_the_kernel)
{
	struct maps maps = {0};

	ck_assert_int_eq(read_dirty(&maps, "00e03000-00e24000 rw-p 00000000 00:00 0           [heap]\n"
	                                   "35b1800000-35b1820000 rw-s 00001000 00:01 135522  /memfd:a b (deleted)\n"
	                                   "35b1a21000-35b1a22000 ---p 00000000 00:00 0 \n"
	                                   "35b1b21000-35b1b22000 rw-p 00000000 00:00 0\n"),
	                 0);
	ck_assert_uint_eq(maps.count, 4);
	ck_assert_int_eq(maps.list[0].kind, AREA_HEAP);
	ck_assert_int_eq(maps.list[1].kind, AREA_SHARED);
	ck_assert_str_eq(maps.list[1].name, "/memfd:a b (deleted)");
	ck_assert_uint_eq(maps.list[1].start, 0x35b1800000);
	ck_assert_uint_eq(maps.list[3].end, 0x35b1b22000);
	ck_assert_str_eq(maps.list[3].name, "anon");
	maps_fini(&maps);
}
END_TEST

START_TEST(test_dirty_refuses_a_line_that_it_does_not_understand)
{
	static const char *const lines[] = {"\n",
	                                    "10000000\n",
	                                    "1\n",
	                                    "10000000-20000000\n",
	                                    "20000000-10000000 rw-p 00000000 00:00 0\n",
	                                    "10000000-20000000 rw-p\n",
	                                    "10000000-20000000 rw-p 00000000\n",
	                                    "10000000-20000000 rw-p 00000000 00\n",
	                                    "10000000-20000000 rw-p 00000000 00:00 0"};

	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		struct maps maps = {0};

		ck_assert_msg(read_dirty(&maps, lines[i]) == -EBADMSG, "\"%s\" is taken", lines[i]);
		ck_assert_uint_eq(maps.count, 0);
		maps_fini(&maps);
	}
}
END_TEST

int main(void)
{
	support_begin("test_maps_text", &(struct support_needs){0, 0});
	Suite *suite = suite_create("maps_text");
	TCase *library = tcase_create("library");
	tcase_add_test(library, test_a_page_size_that_is_none_is_an_error);
	tcase_add_test(library, test_a_line_that_is_no_mapping_covers_nothing);
	tcase_add_test(library, test_a_mapping_that_ends_before_it_begins_is_none);
	suite_add_tcase(suite, library);
	TCase *dirty = tcase_create("dirty");
	tcase_add_test(dirty, test_dirty_takes_the_lines_of_the_kernel);
	tcase_add_test(dirty, test_dirty_refuses_a_line_that_it_does_not_understand);
	suite_add_tcase(suite, dirty);
	return support_run(suite);
}
