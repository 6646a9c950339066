/* SPDX-License-Identifier: MIT */
/* Guests, and the bare loop; see serve.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "kernel/abi.h"
#include "serve.h"

struct guest_request {
	enum guest_work work;
	uint32_t first;
	uint32_t count;
};

struct guest_hello {
	uint64_t address;
	int error;
};

/* ---- in the guest ---- */

static int guest_open_uffd(char *base, size_t length_bytes, uint64_t modes)
{
	struct uffdio_api api = {.api = UFFD_API,
	                         .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM |
	                                     UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM |
	                                     UFFD_FEATURE_EVENT_REMOVE};
	struct uffdio_register range = {.range = {(uint64_t)(uintptr_t)base, length_bytes}, .mode = modes};
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) || (modes && ioctl(uffd, UFFDIO_REGISTER, &range)))
		return -errno;
	return uffd;
}

static void guest_touch(const struct guest *guest, char *base, enum guest_work work, uint32_t page)
{
	volatile uint64_t *word = (volatile uint64_t *)(void *)(base + page * guest->page_bytes);
	uint64_t from_ns = bench_now_ns();

	if (work == GUEST_READ)
		guest->board->sum += *word;
	else
		*word = page + 1;
	histogram_record(&guest->board->times, bench_now_ns() - from_ns);
}

static void guest_obey(const struct guest *guest, char *base, const struct guest_request *request)
{
	struct guest_board *board = guest->board;

	board->sum = 0;
	for (board->done = 0; board->done < request->count; board->done++) {
		if (board->until_ns && bench_now_ns() >= board->until_ns)
			break;
		guest_touch(guest, base, request->work, board->order[request->first + board->done]);
	}
	if (request->work == GUEST_FILL)
		histogram_clear(&board->times);
	board->end_ns = bench_now_ns();
}

static void guest_send_hello(int channel, int uffd, uint64_t address)
{
	struct guest_hello hello = {address, uffd < 0 ? uffd : 0};
	struct iovec bytes = {&hello, sizeof(hello)};
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {.space = {0}};
	struct msghdr message = {.msg_iov = &bytes, .msg_iovlen = 1};

	if (uffd >= 0) {
		message.msg_control = &control;
		message.msg_controllen = sizeof(control.space);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.header), &uffd, sizeof(uffd));
	}
	(void)!sendmsg(channel, &message, 0);
}

static _Noreturn void guest_run(const struct guest *guest, int channel, uint64_t modes, int cpu)
{
	char *base = mmap(NULL, guest->length_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, guest->memfd, 0);
	struct guest_request request;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	bench_pin(cpu);
	if (base == MAP_FAILED)
		_exit(1);
	int uffd = guest_open_uffd(base, guest->length_bytes, modes);

	guest_send_hello(channel, uffd, (uint64_t)(uintptr_t)base);
	if (uffd >= 0)
		close(uffd);
	while (read(channel, &request, sizeof(request)) == (ssize_t)sizeof(request)) {
		guest_obey(guest, base, &request);
		if (write(channel, "", 1) != 1)
			break;
	}
	_exit(0);
}

/* ---- in the benchmark ---- */

static void guest_receive_hello(struct guest *guest)
{
	struct guest_hello hello = {0, -EPIPE};
	struct iovec bytes = {&hello, sizeof(hello)};
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct msghdr message = {
	        .msg_iov = &bytes, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control.space)};

	if (recvmsg(guest->socket, &message, MSG_CMSG_CLOEXEC) != (ssize_t)sizeof(hello))
		bench_die("a guest has ended");
	if (hello.error)
		bench_skip("no userfaultfd of shared memory: %s", strerror(-hello.error));
	guest->address = hello.address;
	memcpy(&guest->uffd, CMSG_DATA(&control.header), sizeof(guest->uffd));
}

void guest_start(struct guest *guest, size_t length_bytes, uint64_t modes, int cpu)
{
	size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
	size_t board_bytes = sizeof(*guest->board) + length_bytes / page_bytes * sizeof(uint32_t);
	int channel[2];

	guest->length_bytes = length_bytes;
	guest->page_bytes = page_bytes;
	guest->memfd = memfd_create("bench", MFD_CLOEXEC);
	guest->board = mmap(NULL, board_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (guest->memfd < 0 || ftruncate(guest->memfd, (off_t)length_bytes) || guest->board == MAP_FAILED ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel))
		bench_die("no memory for a guest: %s", strerror(errno));
	guest->pid = fork();
	if (guest->pid < 0)
		bench_die("no process for a guest: %s", strerror(errno));
	if (!guest->pid) {
		close(channel[0]);
		guest_run(guest, channel[1], modes, cpu);
	}
	close(channel[1]);
	guest->socket = channel[0];
	guest_receive_hello(guest);
}

void guest_end(struct guest *guest)
{
	shutdown(guest->socket, SHUT_RDWR); /* the other guest has a copy */
	close(guest->socket);
	while (waitpid(guest->pid, NULL, 0) < 0 && errno == EINTR)
		;
	close(guest->uffd);
	close(guest->memfd);
}

void guest_work(const struct guest *guest, enum guest_work work, uint32_t first, uint32_t count)
{
	struct guest_request request = {work, first, count};
	char answer;

	if (write(guest->socket, &request, sizeof(request)) != (ssize_t)sizeof(request) ||
	    read(guest->socket, &answer, 1) != 1)
		bench_die("a guest has ended");
}

/* ---- the bare loop ---- */

static void serve_bare_resolve(const struct serve_bare *bare, uint64_t address)
{
	const struct guest *guest = bare->guest;
	uint64_t page = address & ~(uint64_t)(guest->page_bytes - 1);
	struct uffdio_writeprotect unprotect = {.range = {page, guest->page_bytes}};
	struct uffdio_copy copy = {
	        .dst = page, .src = (uint64_t)(uintptr_t)bare->page, .len = guest->page_bytes, .mode = 0};

	if (bare->image < 0)
		(void)ioctl(guest->uffd, UFFDIO_WRITEPROTECT, &unprotect);
	else if (pread(bare->image, bare->page, guest->page_bytes, (off_t)(page - guest->address)) > 0)
		(void)ioctl(guest->uffd, UFFDIO_COPY, &copy);
}

static void *serve_bare_run(void *argument)
{
	const struct serve_bare *bare = argument;
	struct pollfd wait = {.fd = bare->guest->uffd, .events = POLLIN};
	struct uffd_msg messages[16];

	bench_pin(bare->cpu);
	for (;;) {
		poll(&wait, 1, -1);
		ssize_t got = read(bare->guest->uffd, messages, sizeof(messages));

		for (size_t i = 0; got > 0 && i < (size_t)got / sizeof(messages[0]); i++) {
			if (messages[i].event == UFFD_EVENT_PAGEFAULT)
				serve_bare_resolve(bare, messages[i].arg.pagefault.address);
		}
	}
	return NULL;
}

void serve_bare_start(struct serve_bare *bare)
{
	bare->page = aligned_alloc(bare->guest->page_bytes, bare->guest->page_bytes);
	if (!bare->page)
		bench_die("no memory for a page");
	bench_must(-pthread_create(&bare->thread, NULL, serve_bare_run, bare), "a thread for the bare loop");
}

/* poll() is where it is cancelled. */
void serve_bare_stop(struct serve_bare *bare)
{
	pthread_cancel(bare->thread);
	pthread_join(bare->thread, NULL);
	free(bare->page);
}

void serve_bare_arm(const struct serve_bare *bare)
{
	struct uffdio_writeprotect protect = {.range = {bare->guest->address, bare->guest->length_bytes},
	                                      .mode = UFFDIO_WRITEPROTECT_MODE_WP};

	if (bare->image < 0) {
		if (ioctl(bare->guest->uffd, UFFDIO_WRITEPROTECT, &protect))
			bench_die("the bare loop cannot protect: %s", strerror(errno));
	} else if (fallocate(bare->guest->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
	                     (off_t)bare->guest->length_bytes)) {
		bench_die("the bare loop cannot discard: %s", strerror(errno));
	}
}
