/* SPDX-License-Identifier: MIT */
/*
 * A server reads from files and sockets straight into a region while a snapshot runs, and writes from it: read(2) and
 * its kin, io_uring, O_DIRECT, pipes, another process. With a handler thread all of them simply wait; inline they may
 * fail with EFAULT and work after the barrier. The image is what the region held at the cut, and the region holds
 * afterwards what was read.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "habit.h"
#include "scratch.h"

#define IO_PAGES 64u
#define IO_TRIES 8

static struct habit habit;
static uint8_t *source; /* what is read, aligned for O_DIRECT */
static size_t size;     /* of one operation */
static int file;
static int direct; /* -1: not on this file system */

/* One operation on [at, at + size): bytes that went, or -errno. */
typedef ssize_t (*io_fn)(uint8_t *at);

static ssize_t io_result(ssize_t result)
{
	return result < 0 ? -errno : result;
}

static ssize_t io_read(uint8_t *at)
{
	return io_result(lseek(file, 0, SEEK_SET) < 0 ? -1 : read(file, at, size));
}

static ssize_t io_pread(uint8_t *at)
{
	return io_result(pread(file, at, size, 0));
}

static ssize_t io_direct_read(uint8_t *at)
{
	return io_result(pread(direct, at, size, 0));
}

static ssize_t io_readv(uint8_t *at)
{
	struct iovec parts[2] = {{at, size / 2}, {at + size / 2, size - size / 2}};
	return io_result(preadv(file, parts, 2, 0));
}

static ssize_t io_socket(uint8_t *at)
{
	int pair[2];
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
	must(write(pair[1], source, size) == (ssize_t)size);
	ssize_t got = io_result(recv(pair[0], at, size, MSG_WAITALL));
	must(close(pair[0]) == 0 && close(pair[1]) == 0);
	return got;
}

static ssize_t io_message(uint8_t *at)
{
	int pair[2];
	must(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair) == 0);
	must(send(pair[1], source, size, 0) == (ssize_t)size);
	struct iovec part = {at, size};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
	ssize_t got = io_result(recvmsg(pair[0], &message, 0));
	must(close(pair[0]) == 0 && close(pair[1]) == 0);
	return got;
}

static ssize_t io_pipe(uint8_t *at)
{
	int ends[2];
	must(pipe2(ends, O_CLOEXEC) == 0 && write(ends[1], source, size) == (ssize_t)size);
	ssize_t got = io_result(read(ends[0], at, size));
	must(close(ends[0]) == 0 && close(ends[1]) == 0);
	return got;
}

static ssize_t io_ring(uint8_t *at)
{
	struct io_uring ring;
	must(io_uring_queue_init(4, &ring, 0) == 0);
	struct io_uring_sqe *entry = io_uring_get_sqe(&ring);
	if (entry == NULL) {
		return -EBUSY;
	}
	io_uring_prep_read(entry, file, at, (unsigned)size, 0);
	must(io_uring_submit(&ring) == 1);
	struct io_uring_cqe *done = NULL;
	must(io_uring_wait_cqe(&ring, &done) == 0);
	ssize_t got = done->res;
	io_uring_queue_exit(&ring);
	return got;
}

/* --- out of the region ------------------------------------------------------------------------------------------ */

/* What came out of the pipe is what is in memory. */
static void io_drain(int pipe_end, const uint8_t *at, ssize_t length)
{
	static uint8_t buffer[65536];
	for (ssize_t got = 0; got < length;) {
		ssize_t more = read(pipe_end, buffer + got, (size_t)(length - got));
		must(more > 0);
		got += more;
	}
	must(length <= 0 || memcmp(buffer, at, (size_t)length) == 0);
}

static ssize_t io_write(uint8_t *at)
{
	int ends[2];
	must(pipe2(ends, O_CLOEXEC) == 0);
	ssize_t put = io_result(write(ends[1], at, size));
	io_drain(ends[0], at, put);
	must(close(ends[0]) == 0 && close(ends[1]) == 0);
	return put;
}

static ssize_t io_vmsplice(uint8_t *at)
{
	int ends[2];
	struct iovec part = {at, size};
	must(pipe2(ends, O_CLOEXEC) == 0);
	ssize_t put = io_result(vmsplice(ends[1], &part, 1, 0));
	io_drain(ends[0], at, put);
	must(close(ends[0]) == 0 && close(ends[1]) == 0);
	return put;
}

static ssize_t io_direct_write(uint8_t *at)
{
	return io_result(pwrite(direct, at, size, (off_t)(16 * size)));
}

/* --- another process -------------------------------------------------------------------------------------------- */

static ssize_t io_by_another(uint8_t *at, ssize_t (*call)(pid_t, const struct iovec *, unsigned long,
                                                          const struct iovec *, unsigned long, unsigned long))
{
	pid_t self = getpid();
	int ends[2];
	must(pipe2(ends, O_CLOEXEC) == 0);
	pid_t child = fork();
	if (child == 0) {
		struct iovec here = {source, size};
		struct iovec there = {at, size};
		ssize_t answer = io_result(call(self, &here, 1, &there, 1, 0));
		_exit(write(ends[1], &answer, sizeof(answer)) != sizeof(answer));
	}
	ssize_t answer = 0;
	must(child > 0 && read(ends[0], &answer, sizeof(answer)) == sizeof(answer));
	must(close(ends[0]) == 0 && close(ends[1]) == 0 && waitpid(child, NULL, 0) == child);
	return answer;
}

static ssize_t io_remote_write(uint8_t *at)
{
	return io_by_another(at, process_vm_writev);
}

static ssize_t io_remote_read(uint8_t *at)
{
	return io_by_another(at, process_vm_readv);
}

/* --- the test --------------------------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	io_fn run;
	int fills;        /* 1: the region holds the source afterwards */
	int wants_direct; /* 1: O_DIRECT */
} operations[] = {
        {"read", io_read, 1, 0},
        {"pread", io_pread, 1, 0},
        {"pread, O_DIRECT", io_direct_read, 1, 1},
        {"preadv", io_readv, 1, 0},
        {"recv", io_socket, 1, 0},
        {"recvmsg", io_message, 1, 0},
        {"read from a pipe", io_pipe, 1, 0},
        {"io_uring", io_ring, 1, 0},
        {"process_vm_writev", io_remote_write, 1, 0},
        {"write", io_write, 0, 0},
        {"vmsplice", io_vmsplice, 0, 0},
        {"pwrite, O_DIRECT", io_direct_write, 0, 1},
        {"process_vm_readv", io_remote_read, 0, 0},
};
#define OPERATIONS (sizeof(operations) / sizeof(operations[0]))

/* With a handler thread the call waits; inline it may need the barrier, and once more if the kernel took pages away. */
static ssize_t io_run(size_t operation, uint8_t *at)
{
	ssize_t result = operations[operation].run(at);
	if (habit.which.delivery == UFFDWP_DELIVERY_THREAD) {
		return result;
	}
	for (int i = 0; i < IO_TRIES && result != (ssize_t)size; i++) {
		must(result == -EFAULT || result >= 0);
		must_be(habit.runtime, uffdwp_prepare_write(habit.region, (uint64_t)(at - habit.base), size), 0);
		result = operations[operation].run(at);
	}
	return result;
}

static int io_possible(size_t operation)
{
	struct io_uring ring;
	if (operations[operation].run == io_ring) {
		int error = io_uring_queue_init(4, &ring, 0);
		if (error == 0) {
			io_uring_queue_exit(&ring);
		}
		return error == 0;
	}
	return !operations[operation].wants_direct || direct >= 0;
}

static void io_files(void)
{
	char folder[SCRATCH_PATH];
	char path[SCRATCH_PATH];
	scratch_folder(folder);
	scratch_join(path, folder, "source");
	size = 2 * (size_t)sysconf(_SC_PAGESIZE);
	source = habit_map(size);
	memset(source, 0xa5, size);
	scratch_write(path, source, size);
	file = open(path, O_RDONLY | O_CLOEXEC);
	direct = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	must(file >= 0);
}

/* Each operation meets pages that no other touched since the cut, populated or not. */
static void io_all(int populated)
{
	if (populated) {
		habit_fill(&habit, 3);
	}
	habit_cut(&habit);
	for (size_t operation = 0; operation < OPERATIONS; operation++) {
		uint8_t *at = habit.base + 2 * operation * size;
		if (!io_possible(operation)) {
			support_note(operations[operation].name, "not on this file system, or refused");
			continue;
		}
		memset(source, 0xa5, size);
		ssize_t result = io_run(operation, at);
		if (result != (ssize_t)size) {
			fprintf(stderr, "%s, %s: %zd\n", habit_name(habit.which), operations[operation].name, result);
		}
		must(result == (ssize_t)size);
		if (operations[operation].fills) {
			memset(source, 0xa5, size);
			must(memcmp(at, source, size) == 0);
		}
	}
	habit_end(&habit);
}

START_TEST(test_system_calls_on_a_region_while_a_snapshot_runs)
{
	struct habit_case which = habit_case(_i);
	if (!habit_possible(which)) {
		return;
	}
	io_files();
	habit_open(&habit, which, IO_PAGES);
	io_all(0);
	io_all(1);
	io_all(1);
	habit_close(&habit);
}
END_TEST

int main(void)
{
	habit_begin(TEST_NAME, 0);
	Suite *suite = suite_create(TEST_NAME);
	TCase *tcase = tcase_create("io");
	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, test_system_calls_on_a_region_while_a_snapshot_runs, 0, HABIT_SMALL_CASES);
	suite_add_tcase(suite, tcase);
	return support_run(suite);
}
