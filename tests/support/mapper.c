/* SPDX-License-Identifier: MIT */
/* See mapper.h. */
#include "mapper.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sched.h>
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

int mapper_memory(size_t length, int huge, struct mapper_board **board)
{
	int fd = memfd_create("guest", MFD_CLOEXEC | (huge ? MFD_HUGETLB : 0));
	must(fd >= 0 && ftruncate(fd, (off_t)length) == 0);
	*board = mmap(NULL, sizeof(**board) + length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(*board != MAP_FAILED);
	(*board)->length = length;
	(*board)->page_bytes = huge ? 2u << 20 : (size_t)sysconf(_SC_PAGESIZE);
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
		while (!atomic_load(&board->gate)) {
			sched_yield();
		}
		for (size_t offset = 0; offset < board->length; offset += board->page_bytes) {
			memcpy(board->shadow + offset, at(guest, offset), board->page_bytes);
		}
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

static int register_half(int uffd, const void *half, size_t length)
{
	struct uffdio_register range = {.range = {.start = (uintptr_t)half, .len = length},
	                                .mode = UFFDIO_REGISTER_MODE_WP};
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
	for (int i = 1; i >= 0; i--) {
		guest->half[i] =
		        mmap(NULL, half, PROT_READ | PROT_WRITE, MAP_SHARED, memory, (off_t)((size_t)i * half));
		must(guest->half[i] != MAP_FAILED);
	}
}

static void run_guest(struct guest *guest, int memory, int socket, enum mapper_work work, int registers)
{
	size_t half = guest->board->length / 2;
	map_halves(guest, memory);
	int uffd = open_uffd();
	if (uffd >= 0 && registers) {
		must(register_half(uffd, guest->half[0], half) == 0 && register_half(uffd, guest->half[1], half) == 0);
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
