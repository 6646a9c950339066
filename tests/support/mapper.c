/* SPDX-License-Identifier: MIT */
/* See mapper.h. */
#include "mapper.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "chance.h"
#include "kernel/abi.h"
#include "support.h"

struct mapper_board *mapper_board_new(size_t length, size_t page_bytes)
{
	struct mapper_board *board = mmap(NULL, sizeof(*board) + length, PROT_READ | PROT_WRITE,
	                                  MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	must(board != MAP_FAILED);
	board->length = length;
	board->page_bytes = page_bytes;
	return board;
}

int mapper_memory(size_t length, int huge, struct mapper_board **board)
{
	int fd = memfd_create("guest", MFD_CLOEXEC | (huge ? MFD_HUGETLB : 0));
	must(fd >= 0 && ftruncate(fd, (off_t)length) == 0);
	*board = mapper_board_new(length, huge ? 2u << 20 : (size_t)sysconf(_SC_PAGESIZE));
	return fd;
}

void mapper_board_free(struct mapper_board *board)
{
	must(munmap(board, sizeof(*board) + board->length) == 0);
}

/* --- in the mapper ----------------------------------------------------------------------------------------------- */

struct guest {
	struct mapper_board *board;
	uint8_t *half[2]; /* the same length each */
	unsigned number;
};

static uint8_t *at(const struct guest *guest, size_t offset)
{
	size_t half = guest->board->length / 2;
	return offset < half ? guest->half[0] + offset : guest->half[1] + (offset - half);
}

static void enter(const struct guest *guest)
{
	for (;;) {
		atomic_store(&guest->board->busy[guest->number], 1);
		if (!atomic_load(&guest->board->gate)) {
			return;
		}
		atomic_store(&guest->board->busy[guest->number], 0);
		sched_yield();
	}
}

static void write_for_ever(const struct guest *guest)
{
	struct mapper_board *board = guest->board;
	struct chance chance = chance_new(900 + guest->number);
	while (!atomic_load(&board->stop)) {
		size_t page = chance_below(&chance, board->length / board->page_bytes);
		size_t offset = page * board->page_bytes + guest->number * MAPPER_STRIPE;
		enter(guest);
		chance_fill(&chance, at(guest, offset), MAPPER_STRIPE);
		memcpy(board->shadow + offset, at(guest, offset), MAPPER_STRIPE);
		atomic_fetch_add(&board->writes[guest->number], 1);
		atomic_store(&board->busy[guest->number], 0);
	}
}

static void count_for_ever(const struct guest *guest, int effects)
{
	struct mapper_board *board = guest->board;
	_Atomic uint64_t *cause = (_Atomic uint64_t *)(void *)at(guest, 0);
	_Atomic uint64_t *effect = (_Atomic uint64_t *)(void *)at(guest, board->length - board->page_bytes);
	while (!atomic_load(&board->stop)) {
		if (effects) {
			atomic_store(effect, atomic_load(cause));
		} else {
			atomic_fetch_add(cause, 1);
		}
		atomic_fetch_add(&board->writes[guest->number], 1);
	}
}

static void wait_for_gate(const struct mapper_board *board)
{
	while (!atomic_load(&board->gate)) {
		sched_yield();
	}
}

static void read_once(const struct guest *guest, size_t from, size_t length)
{
	struct mapper_board *board = guest->board;
	for (size_t offset = from; offset < from + length; offset += board->page_bytes) {
		memcpy(board->shadow + offset, at(guest, offset), board->page_bytes);
	}
}

/* --- SIGBUS --- */

static sigjmp_buf bus;

static void jump_out(int signal)
{
	(void)signal;
	siglongjmp(bus, 1);
}

static void read_page_or_bus(const struct guest *guest, size_t offset)
{
	struct mapper_board *board = guest->board;
	if (sigsetjmp(bus, 1) == 0) {
		memcpy(board->shadow + offset, at(guest, offset), board->page_bytes);
	} else {
		memset(board->shadow + offset, MAPPER_BUS, board->page_bytes);
	}
}

/* As often as the test asks for it. */
static void read_down(const struct guest *guest)
{
	struct mapper_board *board = guest->board;
	must(signal(SIGBUS, jump_out) != SIG_ERR);
	while (!atomic_load(&board->stop)) {
		for (int i = 0; i < 2 && atomic_load(&board->discard); i++) {
			must(madvise(guest->half[i], board->length / 2, MADV_DONTNEED) == 0);
			atomic_fetch_add(&board->discards, 1);
		}
		for (size_t offset = board->length; offset > 0; offset -= board->page_bytes) {
			read_page_or_bus(guest, offset - board->page_bytes);
		}
		atomic_store(&board->done[guest->number], 1);
		while (!atomic_load(&board->stop) && !atomic_exchange(&board->again, 0)) {
			sched_yield();
		}
	}
}

/* --- a balloon --- */

#define BALLOON_THREADS 4
#define BALLOON_PAGES 8 /* of a block that one thread has to itself */
#define BALLOON_NEAR 4  /* blocks of each that are worked on at about the same time */

struct balloon {
	const struct guest *guest;
	unsigned number;
};

static void check_page(const struct guest *guest, size_t offset)
{
	if (memcmp(at(guest, offset), guest->board->shadow + offset, guest->board->page_bytes) != 0) {
		atomic_store(&guest->board->wrong, 1 + offset);
	}
}

static void write_page(const struct guest *guest, size_t offset, struct chance *chance)
{
	chance_fill(chance, at(guest, offset), MAPPER_STRIPE);
	memcpy(guest->board->shadow + offset, at(guest, offset), MAPPER_STRIPE);
}

/* The shadow first: no other thread looks at these pages. */
static void discard_pages(const struct guest *guest, size_t offset, size_t length)
{
	memset(guest->board->shadow + offset, 0, length);
	must(madvise(at(guest, offset), length, MADV_DONTNEED) == 0);
	atomic_fetch_add(&guest->board->discards, 1);
}

static void *inflate(void *argument)
{
	const struct balloon *balloon = argument;
	const struct guest *guest = balloon->guest;
	const struct mapper_board *board = guest->board;
	struct chance chance = chance_new(board->seed + balloon->number);
	size_t blocks = board->length / board->page_bytes / BALLOON_PAGES / BALLOON_THREADS;
	unsigned rounds = support_rounds(2000, 20000);
	for (unsigned i = 0; i < rounds && !atomic_load(&board->wrong); i++) {
		/* All go upwards at about the same pace: what one waits for another discards. */
		size_t near = (size_t)((uint64_t)i * blocks / rounds) + chance_below(&chance, BALLOON_NEAR);
		size_t block = near % blocks * BALLOON_THREADS + balloon->number;
		size_t first = chance_below(&chance, BALLOON_PAGES);
		size_t pages = 1 + chance_below(&chance, BALLOON_PAGES - first);
		size_t offset = (block * BALLOON_PAGES + first) * board->page_bytes;
		switch (chance_below(&chance, 4)) {
		case 0:
			discard_pages(guest, offset, pages * board->page_bytes);
			break;
		case 1:
			write_page(guest, offset, &chance);
			break;
		case 2: /* at once: what is being fetched for the read may be discarded by the next round */
			discard_pages(guest, offset, pages * board->page_bytes);
			check_page(guest, offset);
			break;
		default:
			check_page(guest, offset);
		}
	}
	return NULL;
}

static void work_balloon(const struct guest *guest)
{
	struct balloon balloons[BALLOON_THREADS];
	pthread_t threads[BALLOON_THREADS];
	wait_for_gate(guest->board);
	for (unsigned i = 0; i < BALLOON_THREADS; i++) {
		balloons[i] = (struct balloon){guest, i};
		must(pthread_create(&threads[i], NULL, inflate, &balloons[i]) == 0);
	}
	for (unsigned i = 0; i < BALLOON_THREADS; i++) {
		must(pthread_join(threads[i], NULL) == 0);
	}
	for (size_t offset = 0; offset < guest->board->length; offset += guest->board->page_bytes) {
		check_page(guest, offset);
	}
}

static void work_as(const struct guest *guest, enum mapper_work work)
{
	struct mapper_board *board = guest->board;
	switch (work) {
	case MAPPER_WRITES:
		write_for_ever(guest);
		break;
	case MAPPER_CAUSES:
	case MAPPER_EFFECTS:
		count_for_ever(guest, work == MAPPER_EFFECTS);
		break;
	case MAPPER_READS:
		wait_for_gate(board);
		read_once(guest, 0, board->length);
		break;
	case MAPPER_READS_HALF:
		wait_for_gate(board);
		read_once(guest, guest->number % 2 * (board->length / 2), board->length / 2);
		break;
	case MAPPER_READS_DOWN:
		wait_for_gate(board);
		read_down(guest);
		break;
	case MAPPER_BALLOON:
		work_balloon(guest);
		break;
	case MAPPER_UNMAPS:
		wait_for_gate(board);
		must(munmap(guest->half[1], board->length / 2) == 0);
		break;
	case MAPPER_WAITS:
		break;
	}
	atomic_store(&board->done[guest->number], 1);
	while (!atomic_load(&board->stop)) {
		sched_yield();
	}
}

static int open_uffd(void)
{
	struct uffdio_api api = {.api = UFFD_API,
	                         .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM |
	                                     UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP |
	                                     UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_FORK};
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	if (uffd >= 0 && ioctl(uffd, UFFDIO_API, &api) != 0) {
		(void)close(uffd);
		return -1;
	}
	return uffd;
}

static int register_half(int uffd, const void *half, size_t length, uint64_t mode)
{
	struct uffdio_register range = {.range = {.start = (uintptr_t)half, .len = length}, .mode = mode};
	return ioctl(uffd, UFFDIO_REGISTER, &range);
}

/* As documents of monitors have it: what is mapped where in the bytes, the descriptor beside them. */
static void send_to(int socket, int fd, const struct uffdwp_mapping mappings[2])
{
	char control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec bytes = {(void *)(uintptr_t)mappings, 2 * sizeof(mappings[0])};
	struct msghdr message = {.msg_iov = &bytes, .msg_iovlen = 1};
	if (fd >= 0) {
		message.msg_control = control;
		message.msg_controllen = sizeof(control);
		struct cmsghdr *header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	}
	must(sendmsg(socket, &message, 0) == (ssize_t)bytes.iov_len);
}

static void map_halves(struct guest *guest, int memory)
{
	size_t half = guest->board->length / 2;
	int huge = guest->board->page_bytes > (size_t)sysconf(_SC_PAGESIZE) ? MAP_HUGETLB : 0;
	int flags = memory < 0 ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | huge : MAP_SHARED;
	for (int i = 1; i >= 0; i--) {
		guest->half[i] = mmap(NULL, half, PROT_READ | PROT_WRITE, flags, memory,
		                      memory < 0 ? 0 : (off_t)((size_t)i * half));
		must(guest->half[i] != MAP_FAILED);
	}
}

static void run_guest(struct guest *guest, int memory, int socket, enum mapper_work work, int registers)
{
	size_t half = guest->board->length / 2;
	map_halves(guest, memory);
	int uffd = open_uffd();
	for (int i = 0; i < 2 && uffd >= 0 && registers; i++) {
		must(register_half(uffd, guest->half[i], half,
		                   memory < 0 ? UFFDIO_REGISTER_MODE_MISSING : UFFDIO_REGISTER_MODE_WP) == 0);
	}
	const struct uffdwp_mapping mappings[2] = {{(uintptr_t)guest->half[0], 0, half},
	                                           {(uintptr_t)guest->half[1], half, half}};
	char answer;
	send_to(socket, uffd, mappings);
	if (uffd >= 0 && read(socket, &answer, 1) == 1) {
		work_as(guest, work);
	}
	_exit(0);
}

/* --- in the test ------------------------------------------------------------------------------------------------- */

static int receive_from(int socket, struct uffdwp_mapping mappings[2])
{
	char control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec bytes = {mappings, 2 * sizeof(mappings[0])};
	struct msghdr message = {
	        .msg_iov = &bytes, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	int fd = -1;
	must(recvmsg(socket, &message, MSG_CMSG_CLOEXEC) == (ssize_t)bytes.iov_len);
	const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	if (header != NULL) {
		memcpy(&fd, CMSG_DATA(header), sizeof(fd));
	}
	return fd;
}

int mapper_start(struct mapper_process *process, struct mapper_board *board, int memory, unsigned number,
                 enum mapper_work work, int registers)
{
	struct guest guest = {.board = board, .number = number};
	int sockets[2];
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) == 0);
	process->pid = fork();
	must(process->pid >= 0);
	if (process->pid == 0) {
		(void)close(sockets[0]);
		run_guest(&guest, memory, sockets[1], work, registers);
	}
	(void)close(sockets[1]);
	process->uffd = receive_from(sockets[0], process->mappings);
	process->pidfd = (int)syscall(SYS_pidfd_open, process->pid, 0);
	process->mapper = (struct uffdwp_mapper){.sz = sizeof(process->mapper),
	                                         .flags = registers ? UFFDWP_MAPPER_REGISTERED : 0,
	                                         .uffd = process->uffd,
	                                         .pidfd = process->pidfd,
	                                         .mapping_count = 2,
	                                         .mappings = process->mappings};
	must(process->uffd < 0 || write(sockets[0], "", 1) == 1);
	(void)close(sockets[0]);
	return process->uffd < 0 ? -1 : 0;
}

static void wait_for(struct mapper_process *process, int expected)
{
	int status = 0;
	while (waitpid(process->pid, &status, 0) < 0) {
		must(errno == EINTR);
	}
	must(status == expected);
	(void)close(process->uffd);
	(void)close(process->pidfd);
}

void mapper_end(struct mapper_process *process)
{
	wait_for(process, 0);
}

void mapper_kill(struct mapper_process *process, struct mapper_board *board, unsigned number)
{
	must(kill(process->pid, SIGKILL) == 0);
	wait_for(process, SIGKILL);
	atomic_store(&board->busy[number], 0);
}

void mapper_await_all(const struct mapper_board *board, unsigned count)
{
	for (size_t at = 0; at < board->length; at += board->page_bytes) {
		for (unsigned i = 0; i < count; i++) {
			const volatile uint8_t *stripe = board->shadow + at + (size_t)i * MAPPER_STRIPE;
			for (unsigned byte = 0; !stripe[byte]; byte = (byte + 1) % MAPPER_STRIPE) {
				sched_yield();
			}
		}
	}
}

int mapper_gate_close(void *user, uint64_t *length)
{
	struct mapper_board *board = user;
	(void)length;
	atomic_store(&board->gate, 1);
	for (unsigned i = 0; i < MAPPER_MOST; i++) {
		while (atomic_load(&board->busy[i])) {
			sched_yield();
		}
	}
	return 0;
}

void mapper_gate_open(void *user)
{
	atomic_store(&((struct mapper_board *)user)->gate, 0);
}
