/* SPDX-License-Identifier: MIT */
/*
 * Both kinds of loop keep one contract: each test runs on io_uring (where this machine has it) and on epoll. The
 * kernel is the real one, except where a test refuses io_uring or breaks a write.
 */
#include <check.h>
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

#include "io/loop.h"
#include "kernel/kernel.h"
#include "support.h"

#define FOR_EVER UINT64_MAX
#define ENTRIES 16
#define MANY 600 /* more writes than one submission queue holds */

enum { KIND_EPOLL, KIND_URING };

static struct loop *new_loop(const struct kernel_ops *k, unsigned entries, int kind)
{
	struct loop *loop = NULL;

	ck_assert_int_eq(loop_new(k, entries, kind == KIND_EPOLL, &loop), 0);
	ck_assert_int_eq(loop_is_uring(loop), kind == KIND_URING);
	return loop;
}

static int new_eventfd(void)
{
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	return fd;
}

static int new_memfd(void)
{
	int fd = memfd_create("loop", MFD_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	return fd;
}

static void signal_fd(int fd)
{
	uint64_t one = 1;

	ck_assert_int_eq((int)write(fd, &one, sizeof(one)), (int)sizeof(one));
}

static void drain_fd(int fd)
{
	uint64_t count;

	ck_assert_int_eq((int)read(fd, &count, sizeof(count)), (int)sizeof(count));
}

/* Waits for exactly one event. */
static struct loop_event wait_one(struct loop *loop)
{
	struct loop_event event;
	int n;

	do {
		n = loop_wait(loop, &event, 1, FOR_EVER);
		ck_assert_int_ge(n, 0);
	} while (n == 0);
	return event;
}

static void expect_silence(struct loop *loop)
{
	struct loop_event event;

	ck_assert_int_eq(loop_wait(loop, &event, 1, 0), 0);
	ck_assert_int_eq(loop_wait(loop, &event, 1, 1000000), 0);
}

static void expect_readable(struct loop *loop, uint64_t token)
{
	struct loop_event event = wait_one(loop);

	ck_assert_int_eq(event.kind, LOOP_READABLE);
	ck_assert_int_gt(event.result, 0);
	ck_assert_int_ne(event.result & POLLIN, 0);
	ck_assert_uint_eq(event.token, token);
}

/* -------------------------------------------------------------------------------------------------- descriptors -- */

START_TEST(test_a_descriptor_is_reported_each_time_it_becomes_readable)
{
	struct loop *loop = new_loop(&kernel_real, ENTRIES, _i);
	int fd = new_eventfd();

	ck_assert_int_eq(loop_add(loop, fd, UINT64_MAX), 0);
	expect_silence(loop);
	for (int i = 0; i < 100; i++) {
		signal_fd(fd);
		expect_readable(loop, UINT64_MAX);
		drain_fd(fd);
	}
	expect_silence(loop);
	ck_assert_int_eq(loop_remove(loop, fd, UINT64_MAX), 0);
	loop_free(loop);
	close(fd);
}
END_TEST

START_TEST(test_a_descriptor_that_is_readable_already_is_reported)
{
	struct loop *loop = new_loop(&kernel_real, ENTRIES, _i);
	int fd = new_eventfd();

	signal_fd(fd);
	ck_assert_int_eq(loop_add(loop, fd, 3), 0);
	expect_readable(loop, 3);
	loop_free(loop);
	close(fd);
}
END_TEST

static int polls_refused;

static int poll_enomem_once(int result)
{
	return polls_refused++ == 0 ? -ENOMEM : result;
}

START_TEST(test_a_poll_that_ended_with_an_error_is_begun_again)
{
	struct kernel_ops k = kernel_real;
	int fd = new_eventfd();

	k.uring_polled = poll_enomem_once;
	struct loop *loop = new_loop(&k, ENTRIES, _i);

	ck_assert_int_eq(loop_add(loop, fd, 3), 0);
	signal_fd(fd);
	struct loop_event event = wait_one(loop);

	ck_assert_int_eq(event.kind, LOOP_READABLE);
	ck_assert_uint_eq(event.token, 3);
	ck_assert(_i == KIND_EPOLL ? event.result > 0 : event.result == -ENOMEM);
	ck_assert_int_eq(loop_remove(loop, fd, 3), 0);
	ck_assert_int_eq(loop_add(loop, fd, 3), 0);
	expect_readable(loop, 3);
	loop_free(loop);
	close(fd);
}
END_TEST

START_TEST(test_more_events_than_room_come_with_the_next_waits)
{
	struct loop *loop = new_loop(&kernel_real, ENTRIES, _i);
	unsigned seen = 0;
	int fds[8];

	for (unsigned i = 0; i < 8; i++) {
		fds[i] = new_eventfd();
		ck_assert_int_eq(loop_add(loop, fds[i], i), 0);
		signal_fd(fds[i]);
	}
	for (int i = 0; i < 8; i++)
		seen |= 1u << wait_one(loop).token;
	ck_assert_uint_eq(seen, 0xff);
	loop_free(loop);
	for (int i = 0; i < 8; i++)
		close(fds[i]);
}
END_TEST

START_TEST(test_a_removed_descriptor_is_silent_even_if_its_event_was_waiting)
{
	struct loop *loop = new_loop(&kernel_real, ENTRIES, _i);
	int fd = new_eventfd();

	ck_assert_int_eq(loop_add(loop, fd, 5), 0);
	expect_silence(loop);
	signal_fd(fd);
	ck_assert_int_eq(loop_remove(loop, fd, 5), 0);
	signal_fd(fd);
	expect_silence(loop);
	ck_assert_int_lt(loop_remove(loop, fd, 5), 0);
	loop_free(loop);
	close(fd);
}
END_TEST

START_TEST(test_removal_keeps_the_events_of_others)
{
	struct loop *loop = new_loop(&kernel_real, ENTRIES, _i);
	int leaving = new_eventfd();
	int staying = new_eventfd();

	ck_assert_int_eq(loop_add(loop, leaving, 1), 0);
	ck_assert_int_eq(loop_add(loop, staying, 2), 0);
	signal_fd(leaving);
	signal_fd(staying);
	ck_assert_int_eq(loop_remove(loop, leaving, 1), 0);
	expect_readable(loop, 2);
	drain_fd(staying);
	expect_silence(loop);
	loop_free(loop);
	close(leaving);
	close(staying);
}
END_TEST

/* A poll that still held the reading end would keep the pipe whole. */
START_TEST(test_a_removed_descriptor_really_closes)
{
	struct loop *loop = new_loop(&kernel_real, ENTRIES, _i);
	int ends[2];

	signal(SIGPIPE, SIG_IGN);
	ck_assert_int_eq(pipe(ends), 0);
	ck_assert_int_eq(loop_add(loop, ends[0], 9), 0);
	expect_silence(loop);
	ck_assert_int_eq(loop_remove(loop, ends[0], 9), 0);
	close(ends[0]);
	ck_assert_int_eq((int)write(ends[1], "x", 1), -1);
	ck_assert_int_eq(errno, EPIPE);
	loop_free(loop);
	close(ends[1]);
}
END_TEST

START_TEST(test_a_descriptor_can_come_and_go_many_times)
{
	struct loop *loop = new_loop(&kernel_real, 2, _i);
	int fd = new_eventfd();

	for (uint64_t i = 0; i < 200; i++) {
		ck_assert_int_eq(loop_add(loop, fd, i), 0);
		signal_fd(fd);
		if (i % 3 != 0)
			expect_readable(loop, i);
		ck_assert_int_eq(loop_remove(loop, fd, i), 0);
		drain_fd(fd);
	}
	expect_silence(loop);
	loop_free(loop);
	close(fd);
}
END_TEST

START_TEST(test_a_bad_descriptor_is_an_error_and_can_be_removed)
{
	struct loop *loop = new_loop(&kernel_real, ENTRIES, _i);
	int fd = new_eventfd();
	int error;

	close(fd);
	error = loop_add(loop, fd, 4);
	if (error == 0) {
		struct loop_event event = wait_one(loop);

		ck_assert_int_eq(event.kind, LOOP_READABLE);
		ck_assert_uint_eq(event.token, 4);
		error = event.result;
		ck_assert_int_eq(loop_remove(loop, fd, 4), 0);
	}
	ck_assert_int_eq(error, -EBADF);
	expect_silence(loop);
	loop_free(loop);
}
END_TEST

/* -------------------------------------------------------------------------------------------------------- writes -- */

START_TEST(test_a_write_arrives_and_is_reported)
{
	struct loop *loop = new_loop(&kernel_real, ENTRIES, _i);
	struct loop_event event;
	int fd = new_memfd();
	char back[5];

	ck_assert_int_eq(loop_write(loop, fd, "hello", 5, 4096, 42), 0);
	event = wait_one(loop);
	ck_assert_int_eq(event.kind, LOOP_WRITTEN);
	ck_assert_int_eq(event.result, 5);
	ck_assert_uint_eq(event.token, 42);
	ck_assert_int_eq((int)pread(fd, back, 5, 4096), 5);
	ck_assert_mem_eq(back, "hello", 5);
	expect_silence(loop);
	loop_free(loop);
	close(fd);
}
END_TEST

START_TEST(test_more_writes_than_the_queue_holds_all_arrive)
{
	struct loop *loop = new_loop(&kernel_real, MANY, _i);
	static unsigned char seen[MANY];
	static uint32_t values[MANY];
	static uint32_t back[MANY];
	int fd = new_memfd();

	for (uint32_t i = 0; i < MANY; i++) {
		values[i] = i * 7;
		ck_assert_int_eq(loop_write(loop, fd, &values[i], 4, 4ul * i, i), 0);
	}
	ck_assert_int_eq(loop_write(loop, fd, values, 4, 0, 0), -EAGAIN);
	for (uint32_t i = 0; i < MANY; i++) {
		struct loop_event event = wait_one(loop);

		ck_assert_int_eq(event.result, 4);
		seen[event.token]++;
	}
	for (uint32_t i = 0; i < MANY; i++)
		ck_assert_uint_eq(seen[i], 1);
	ck_assert_int_eq((int)pread(fd, back, sizeof(back), 0), (int)sizeof(back));
	ck_assert_mem_eq(back, values, sizeof(back));
	loop_free(loop);
	close(fd);
}
END_TEST

START_TEST(test_entries_bound_what_is_in_flight_and_come_back)
{
	struct loop *loop = new_loop(&kernel_real, 2, _i);
	int file = new_memfd();
	int fd = new_eventfd();

	ck_assert_int_eq(loop_add(loop, fd, 1), 0);
	ck_assert_int_eq(loop_write(loop, file, "a", 1, 0, 2), 0);
	ck_assert_int_eq(loop_write(loop, file, "b", 1, 1, 3), -EAGAIN);
	ck_assert_int_eq(loop_add(loop, file, 4), -EAGAIN);
	ck_assert_uint_eq(wait_one(loop).token, 2);
	ck_assert_int_eq(loop_write(loop, file, "b", 1, 1, 3), 0);
	ck_assert_uint_eq(wait_one(loop).token, 3);
	signal_fd(fd);
	expect_readable(loop, 1);
	loop_free(loop);
	close(file);
	close(fd);
}
END_TEST

START_TEST(test_writes_and_descriptors_share_a_wait)
{
	struct loop *loop = new_loop(&kernel_real, ENTRIES, _i);
	int file = new_memfd();
	int fd = new_eventfd();
	unsigned seen = 0;

	ck_assert_int_eq(loop_add(loop, fd, 0), 0);
	signal_fd(fd);
	for (uint64_t i = 1; i < 5; i++)
		ck_assert_int_eq(loop_write(loop, file, "z", 1, i, i), 0);
	while (seen != 0x1f) {
		struct loop_event events[3];
		int n = loop_wait(loop, events, 3, FOR_EVER);

		ck_assert_int_ge(n, 0);
		for (int i = 0; i < n; i++) {
			ck_assert_int_eq(events[i].kind, events[i].token == 0 ? LOOP_READABLE : LOOP_WRITTEN);
			seen |= 1u << events[i].token;
		}
	}
	loop_free(loop);
	close(file);
	close(fd);
}
END_TEST

START_TEST(test_removal_keeps_the_writes_of_others)
{
	struct loop *loop = new_loop(&kernel_real, ENTRIES, _i);
	int file = new_memfd();
	int fd = new_eventfd();
	struct loop_event event;

	ck_assert_int_eq(loop_add(loop, fd, 1), 0);
	ck_assert_int_eq(loop_write(loop, file, "abc", 3, 0, 2), 0);
	ck_assert_int_eq(loop_remove(loop, fd, 1), 0);
	event = wait_one(loop);
	ck_assert_int_eq(event.kind, LOOP_WRITTEN);
	ck_assert_int_eq(event.result, 3);
	loop_free(loop);
	close(file);
	close(fd);
}
END_TEST

static ssize_t pwrite_eio(int fd, const void *buffer, size_t length, uint64_t offset)
{
	(void)fd, (void)buffer, (void)length, (void)offset;
	return -EIO;
}

static int result_eio(int result)
{
	(void)result;
	return -EIO;
}

START_TEST(test_an_error_of_a_write_is_its_result)
{
	struct kernel_ops k = kernel_real;
	struct loop_event event;
	struct loop *loop;
	int fd = new_memfd();

	k.pwrite = pwrite_eio;
	k.uring_result = result_eio;
	loop = new_loop(&k, ENTRIES, _i);
	ck_assert_int_eq(loop_write(loop, fd, "x", 1, 0, 8), 0);
	event = wait_one(loop);
	ck_assert_int_eq(event.kind, LOOP_WRITTEN);
	ck_assert_int_eq(event.result, -EIO);
	ck_assert_uint_eq(event.token, 8);
	loop_free(loop);
	close(fd);
}
END_TEST

START_TEST(test_a_read_brings_what_the_file_has)
{
	struct loop *loop = new_loop(&kernel_real, ENTRIES, _i);
	char bytes[16] = "untouched";
	int fd = new_memfd();

	ck_assert_int_eq((int)pwrite(fd, "hello", 5, 4096), 5);
	ck_assert_int_eq(loop_read(loop, fd, bytes, sizeof(bytes), 4096, 42), 0);
	struct loop_event event = wait_one(loop);

	ck_assert_int_eq(event.kind, LOOP_READ);
	ck_assert_int_eq(event.result, 5); /* no more is there */
	ck_assert_uint_eq(event.token, 42);
	ck_assert_mem_eq(bytes, "hello", 5);
	ck_assert_int_eq(loop_read(loop, fd, bytes, sizeof(bytes), 4101, 43), 0);
	ck_assert_int_eq(wait_one(loop).result, 0);
	ck_assert_int_eq(loop_read(loop, -1, bytes, sizeof(bytes), 0, 44), 0);
	ck_assert_int_eq(wait_one(loop).result, -EBADF);
	expect_silence(loop);
	loop_free(loop);
	close(fd);
}
END_TEST

static ssize_t pread_eio(int fd, void *buffer, size_t length, uint64_t offset)
{
	(void)fd;
	(void)buffer;
	(void)length;
	(void)offset;
	return -EIO;
}

START_TEST(test_an_error_of_a_read_is_its_result)
{
	struct kernel_ops k = kernel_real;
	char byte;
	int fd = new_memfd();

	k.pread = pread_eio;
	k.uring_result = result_eio;
	struct loop *loop = new_loop(&k, ENTRIES, _i);

	ck_assert_int_eq(loop_read(loop, fd, &byte, 1, 0, 8), 0);
	struct loop_event event = wait_one(loop);

	ck_assert_int_eq(event.kind, LOOP_READ);
	ck_assert_int_eq(event.result, -EIO);
	loop_free(loop);
	close(fd);
}
END_TEST

START_TEST(test_reads_and_writes_share_the_room)
{
	struct loop *loop = new_loop(&kernel_real, ENTRIES, _i);
	char bytes[ENTRIES];
	int fd = new_memfd();
	int kinds[2] = {0, 0};

	for (unsigned i = 0; i < ENTRIES; i++)
		ck_assert_int_eq(i % 2 ? loop_read(loop, fd, &bytes[i], 1, 0, i) : loop_write(loop, fd, "x", 1, i, i),
		                 0);
	ck_assert_int_eq(loop_read(loop, fd, bytes, 1, 0, 0), -EAGAIN);
	ck_assert_int_eq(loop_write(loop, fd, "x", 1, 0, 0), -EAGAIN);
	for (unsigned i = 0; i < ENTRIES; i++) {
		struct loop_event event = wait_one(loop);

		ck_assert_int_eq(event.kind, event.token % 2 ? LOOP_READ : LOOP_WRITTEN);
		kinds[event.token % 2]++;
	}
	ck_assert_int_eq(kinds[0], ENTRIES / 2);
	ck_assert_int_eq(kinds[1], ENTRIES / 2);
	loop_free(loop);
	close(fd);
}
END_TEST

START_TEST(test_a_loop_that_is_freed_holds_nothing)
{
	struct loop *loop = new_loop(&kernel_real, ENTRIES, _i);
	int ends[2];
	int file = new_memfd();

	signal(SIGPIPE, SIG_IGN);
	ck_assert_int_eq(pipe(ends), 0);
	ck_assert_int_eq(loop_add(loop, ends[0], 1), 0);
	ck_assert_int_eq(loop_write(loop, file, "x", 1, 0, 2), 0);
	loop_free(loop);
	close(ends[0]);
	ck_assert_int_eq((int)write(ends[1], "x", 1), -1);
	ck_assert_int_eq(errno, EPIPE);
	close(ends[1]);
	close(file);
}
END_TEST

#define KEPT_BYTES 8192

/* Kept and other descriptors and buffers, in all four pairs; the file shows what arrived. */
static void write_kept_and_others(struct loop *loop, const int files[2], char *const buffers[2])
{
	struct loop_event event;

	for (int i = 0; i < 4; i++) {
		uint64_t offset = (uint64_t)(i / 2) * KEPT_BYTES;
		char seen[KEPT_BYTES - 100];

		memset(buffers[i / 2], 'a' + i, KEPT_BYTES);
		ck_assert_int_eq(loop_write(loop, files[i % 2], buffers[i / 2] + 100, KEPT_BYTES - 100, offset, 9), 0);
		event = wait_one(loop);
		ck_assert_int_eq(event.kind, LOOP_WRITTEN);
		ck_assert_int_eq(event.result, KEPT_BYTES - 100);
		ck_assert_int_eq((int)pread(files[i % 2], seen, sizeof(seen), (off_t)offset), (int)sizeof(seen));
		ck_assert_int_eq(memcmp(seen, buffers[i / 2] + 100, sizeof(seen)), 0);
	}
}

static void keep_and_write(struct loop *loop, int expected)
{
	char *memory = mmap(NULL, 4 * KEPT_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *const buffers[2] = {memory, memory + 2 * KEPT_BYTES};
	const struct iovec kept[2] = {{memory + KEPT_BYTES, KEPT_BYTES}, {memory, KEPT_BYTES}};
	const int files[2] = {new_memfd(), new_memfd()};

	ck_assert_ptr_ne(memory, MAP_FAILED);
	ck_assert_int_eq(loop_keep(loop, files[0], kept, 2), expected);
	if (expected == 0)
		ck_assert_int_eq(loop_keep(loop, files[0], kept, 2), -EINVAL);
	write_kept_and_others(loop, files, buffers);
	loop_free(loop);
	munmap(memory, 4 * KEPT_BYTES);
	close(files[0]);
	close(files[1]);
}

START_TEST(test_what_is_kept_and_what_is_not_can_be_written)
{
	keep_and_write(new_loop(&kernel_real, ENTRIES, _i), _i == KIND_URING ? 0 : -EOPNOTSUPP);
}
END_TEST

/* Nothing may be locked: the test runs as a user for it. */
START_TEST(test_buffers_that_cannot_be_kept_are_written_all_the_same)
{
	const struct rlimit none = {0, 0};

	if (support_may_change_user())
		ck_assert_int_eq(setresuid(65534, 65534, 65534), 0);
	struct loop *loop = new_loop(&kernel_real, ENTRIES, KIND_URING);

	ck_assert_int_eq(setrlimit(RLIMIT_MEMLOCK, &none), 0);
	keep_and_write(loop, -ENOMEM);
}
END_TEST

/* ------------------------------------------------------------------------------------------- threads and refusals --
 */

struct context {
	struct loop *loop;
	int fd;
};

static void *use_elsewhere(void *argument)
{
	struct context *context = argument;

	ck_assert_int_eq(loop_add(context->loop, context->fd, 6), 0);
	signal_fd(context->fd);
	expect_readable(context->loop, 6);
	ck_assert_int_eq(loop_remove(context->loop, context->fd, 6), 0);
	return NULL;
}

START_TEST(test_a_loop_may_be_made_by_one_thread_and_used_by_another)
{
	struct context context = {new_loop(&kernel_real, ENTRIES, _i), new_eventfd()};
	pthread_t thread;

	ck_assert_int_eq(pthread_create(&thread, NULL, use_elsewhere, &context), 0);
	pthread_join(thread, NULL);
	loop_free(context.loop);
	close(context.fd);
}
END_TEST

static void on_alarm(int number)
{
	(void)number;
}

START_TEST(test_a_signal_ends_a_wait_without_an_event)
{
	struct loop *loop = new_loop(&kernel_real, ENTRIES, _i);
	struct itimerval every_ms = {{0, 1000}, {0, 1000}};
	struct sigaction action = {.sa_handler = on_alarm};
	struct loop_event event;

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &every_ms, NULL);
	ck_assert_int_eq(loop_wait(loop, &event, 1, FOR_EVER), 0);
	loop_free(loop);
}
END_TEST

static int uring_refused(unsigned entries, struct io_uring *ring, unsigned flags)
{
	(void)entries, (void)ring, (void)flags;
	return -EPERM;
}

START_TEST(test_refused_uring_means_epoll)
{
	struct kernel_ops k = kernel_real;
	struct loop *loop;
	int fd = new_eventfd();

	k.uring_init = uring_refused;
	ck_assert_int_eq(loop_new(&k, ENTRIES, 0, &loop), 0);
	ck_assert_int_eq(loop_is_uring(loop), 0);
	signal_fd(fd);
	ck_assert_int_eq(loop_add(loop, fd, 1), 0);
	expect_readable(loop, 1);
	loop_free(loop);
	close(fd);
}
END_TEST

/* As a kernel before 6.1 answers. */
static int uring_old(unsigned entries, struct io_uring *ring, unsigned flags)
{
	return flags & IORING_SETUP_SINGLE_ISSUER ? -EINVAL : io_uring_queue_init(entries, ring, flags);
}

START_TEST(test_uring_of_an_older_kernel_is_used)
{
	struct kernel_ops k = kernel_real;
	struct loop *loop;
	int fd = new_eventfd();

	k.uring_init = uring_old;
	loop = new_loop(&k, ENTRIES, KIND_URING);
	ck_assert_int_eq(loop_add(loop, fd, 1), 0);
	signal_fd(fd);
	expect_readable(loop, 1);
	drain_fd(fd);
	expect_silence(loop);
	ck_assert_int_eq(loop_remove(loop, fd, 1), 0);
	loop_free(loop);
	close(fd);
}
END_TEST

static int epoll_refused(void)
{
	return -EMFILE;
}

START_TEST(test_no_loop_at_all_is_an_error_and_no_output)
{
	struct kernel_ops k = kernel_real;
	struct loop *loop = NULL;

	k.uring_init = uring_refused;
	k.epoll_create = epoll_refused;
	ck_assert_int_eq(loop_new(&k, ENTRIES, 0, &loop), -EMFILE);
	ck_assert_int_eq(loop_new(&k, 0, 0, &loop), -EINVAL);
	ck_assert_ptr_null(loop);
}
END_TEST

/* ---------------------------------------------------------------------------------------------------------- suite --
 */

static int uring_works(void)
{
	struct loop *loop;
	int works;

	if (loop_new(&kernel_real, 2, 0, &loop) != 0)
		return 0;
	works = loop_is_uring(loop);
	loop_free(loop);
	if (!works)
		printf("%s: io_uring is refused here: only epoll is tested\n", TEST_NAME);
	return works;
}

static void add_descriptors(Suite *suite, int kinds)
{
	TCase *tcase = tcase_create("descriptors");

	tcase_set_timeout(tcase, 30);
	tcase_add_loop_test(tcase, test_a_descriptor_is_reported_each_time_it_becomes_readable, 0, kinds);
	tcase_add_loop_test(tcase, test_a_descriptor_that_is_readable_already_is_reported, 0, kinds);
	tcase_add_loop_test(tcase, test_a_poll_that_ended_with_an_error_is_begun_again, 0, kinds);
	tcase_add_loop_test(tcase, test_more_events_than_room_come_with_the_next_waits, 0, kinds);
	tcase_add_loop_test(tcase, test_a_removed_descriptor_is_silent_even_if_its_event_was_waiting, 0, kinds);
	tcase_add_loop_test(tcase, test_removal_keeps_the_events_of_others, 0, kinds);
	tcase_add_loop_test(tcase, test_a_removed_descriptor_really_closes, 0, kinds);
	tcase_add_loop_test(tcase, test_a_descriptor_can_come_and_go_many_times, 0, kinds);
	tcase_add_loop_test(tcase, test_a_bad_descriptor_is_an_error_and_can_be_removed, 0, kinds);
	suite_add_tcase(suite, tcase);
}

static void add_writes(Suite *suite, int kinds)
{
	TCase *tcase = tcase_create("writes");

	tcase_set_timeout(tcase, 30);
	tcase_add_loop_test(tcase, test_a_write_arrives_and_is_reported, 0, kinds);
	tcase_add_loop_test(tcase, test_more_writes_than_the_queue_holds_all_arrive, 0, kinds);
	tcase_add_loop_test(tcase, test_entries_bound_what_is_in_flight_and_come_back, 0, kinds);
	tcase_add_loop_test(tcase, test_writes_and_descriptors_share_a_wait, 0, kinds);
	tcase_add_loop_test(tcase, test_removal_keeps_the_writes_of_others, 0, kinds);
	tcase_add_loop_test(tcase, test_an_error_of_a_write_is_its_result, 0, kinds);
	tcase_add_loop_test(tcase, test_a_read_brings_what_the_file_has, 0, kinds);
	tcase_add_loop_test(tcase, test_an_error_of_a_read_is_its_result, 0, kinds);
	tcase_add_loop_test(tcase, test_reads_and_writes_share_the_room, 0, kinds);
	tcase_add_loop_test(tcase, test_a_loop_that_is_freed_holds_nothing, 0, kinds);
	tcase_add_loop_test(tcase, test_what_is_kept_and_what_is_not_can_be_written, 0, kinds);
	if (kinds > KIND_URING)
		tcase_add_test(tcase, test_buffers_that_cannot_be_kept_are_written_all_the_same);
	suite_add_tcase(suite, tcase);
}

static void add_threads(Suite *suite, int kinds)
{
	TCase *tcase = tcase_create("threads and refusals");

	tcase_set_timeout(tcase, 30);
	tcase_add_loop_test(tcase, test_a_loop_may_be_made_by_one_thread_and_used_by_another, 0, kinds);
	tcase_add_loop_test(tcase, test_a_signal_ends_a_wait_without_an_event, 0, kinds);
	tcase_add_test(tcase, test_refused_uring_means_epoll);
	tcase_add_test(tcase, test_no_loop_at_all_is_an_error_and_no_output);
	if (kinds > KIND_URING)
		tcase_add_test(tcase, test_uring_of_an_older_kernel_is_used);
	suite_add_tcase(suite, tcase);
}

int main(void)
{
	Suite *suite = suite_create(TEST_NAME);
	SRunner *runner = srunner_create(suite);
	int kinds = uring_works() ? KIND_URING + 1 : KIND_EPOLL + 1;
	int failed;

	add_descriptors(suite, kinds);
	add_writes(suite, kinds);
	add_threads(suite, kinds);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
