/* SPDX-License-Identifier: MIT */
/*
 * A region whose memory other processes map: what a monitor of virtual machines has, or a process that takes snapshots
 * of its workers.
 *
 * Two child processes, the mappers, map one memfd and make a userfaultfd each, which they pass to their parent
 * (SCM_RIGHTS) together with the memfd and the address where they have it. The parent adopts the memory with the first
 * mapper, the second one joins, and snapshots are taken while both write. Each mapper writes a shadow, too, which the
 * parent copies at the cut: every image has to be that copy. Then the region is closed, and the mappers write on.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memfd_create() */
#endif
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <uffdwp.h>
#include <unistd.h>

#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1 << 12) /* Linux 5.19: older headers lack it */
#endif

#define MAPPERS 2
#define CUTS 3
#define LENGTH_BYTES ((size_t)8 << 20)
#define COUNT (LENGTH_BYTES / sizeof(uint64_t))
#define BURST 64
#define PATH "adopt.raw"

/* Shared by all three processes; it is no part of the region. */
struct board {
	pthread_mutex_t locks[MAPPERS]; /* a mapper has its own while memory and shadow differ */
	_Atomic uint64_t bursts[MAPPERS];
	_Atomic int stop;
	uint64_t shadow[COUNT];
};

/* A mapper, as its parent knows it. */
struct process {
	pid_t pid;
	int pidfd;
	int uffd;
	int memory; /* the memfd */
	struct uffdwp_mapping mapping;
};

/* The parent's. */
struct monitor {
	struct board *board;
	struct process processes[MAPPERS];
	struct uffdwp_region *region;
	uint64_t expected[COUNT]; /* the shadow at the last cut */
	uint64_t image[COUNT];
};

static int adopt_failed(const char *call, int error)
{
	char text[512];

	uffdwp_error_text(text, sizeof(text));
	fprintf(stderr, "%s: %s: %s\n", call, strerror(-error), text);
	return error == -EOPNOTSUPP || error == -EPERM ? 77 : 1; /* 77: not on this machine */
}

/* --- a mapper ----------------------------------------------------------------------------------------------------- */

static int adopt_open_uffd(void)
{
	struct uffdio_api api = {.api = UFFD_API,
	                         .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM |
	                                     UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP |
	                                     UFFD_FEATURE_EVENT_REMAP};
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);

	if (uffd >= 0 && ioctl(uffd, UFFDIO_API, &api) != 0) {
		close(uffd);
		return -1;
	}
	return uffd;
}

/* Passes the two descriptors, and where the memory is. */
static int adopt_send(int channel, int uffd, int memory, void *address)
{
	struct uffdwp_mapping mapping = {.address = (uintptr_t)address, .length = LENGTH_BYTES};
	struct iovec bytes = {&mapping, sizeof(mapping)};
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(2 * sizeof(int))];
	} control = {.space = {0}};
	struct msghdr message = {
	        .msg_iov = &bytes, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control.space)};
	int fds[2] = {uffd, memory};

	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_RIGHTS;
	control.header.cmsg_len = CMSG_LEN(sizeof(fds));
	memcpy(CMSG_DATA(&control.header), fds, sizeof(fds));
	return sendmsg(channel, &message, 0) == (ssize_t)sizeof(mapping) ? 0 : -1;
}

/* Elements at random; those of both mappers are in the same pages. */
static void adopt_write(struct board *board, uint64_t *memory, unsigned number)
{
	uint64_t value = number + 1;

	while (!atomic_load(&board->stop)) {
		pthread_mutex_lock(&board->locks[number]);
		for (int i = 0; i < BURST; i++) {
			value = value * 6364136223846793005u + 1442695040888963407u;
			size_t at = (size_t)(value >> 33) % (COUNT / MAPPERS) * MAPPERS + number;

			memory[at] = value;
			board->shadow[at] = value;
		}
		pthread_mutex_unlock(&board->locks[number]);
		atomic_fetch_add(&board->bursts[number], 1);
		sched_yield();
	}
}

/* memory: -1 in the first mapper, which makes the memfd. */
static int adopt_be_mapper(struct board *board, unsigned number, int channel, int memory)
{
	int uffd = adopt_open_uffd();
	void *address = MAP_FAILED;

	prctl(PR_SET_PDEATHSIG, SIGKILL); /* it does not outlive its parent */
	if (uffd < 0) {
		fprintf(stderr, "a mapper has no userfaultfd that protects shared memory: %s\n", strerror(errno));
		return 77;
	}
	if (memory < 0) {
		memory = memfd_create("adopt", MFD_CLOEXEC);
		if (memory < 0 || ftruncate(memory, (off_t)LENGTH_BYTES) != 0)
			return 1;
	}
	address = mmap(NULL, LENGTH_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
	if (address == MAP_FAILED || adopt_send(channel, uffd, memory, address) != 0)
		return 1;
	adopt_write(board, address, number); /* the userfaultfd stays open as long as the parent has it */
	return 0;
}

/* --- the parent --------------------------------------------------------------------------------------------------- */

static int adopt_receive(int channel, struct process *process)
{
	struct iovec bytes = {&process->mapping, sizeof(process->mapping)};
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(2 * sizeof(int))];
	} control;
	struct msghdr message = {
	        .msg_iov = &bytes, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control.space)};
	int fds[2];

	if (recvmsg(channel, &message, MSG_CMSG_CLOEXEC) != (ssize_t)sizeof(process->mapping) ||
	    CMSG_FIRSTHDR(&message) == NULL || control.header.cmsg_len != CMSG_LEN(sizeof(fds)))
		return -1; /* the mapper ended, and its exit code says why */
	memcpy(fds, CMSG_DATA(&control.header), sizeof(fds));
	process->uffd = fds[0];
	process->memory = fds[1];
	return 0;
}

/* A fork, so before the runtime is open. The second mapper inherits the memfd that came from the first one. */
static int adopt_start(struct monitor *monitor, unsigned number)
{
	struct process *process = &monitor->processes[number];
	int channel[2];
	int error;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel) != 0)
		return -1;
	process->pid = fork();
	if (process->pid == 0) {
		close(channel[0]);
		_exit(adopt_be_mapper(monitor->board, number, channel[1],
		                      number == 0 ? -1 : monitor->processes[0].memory));
	}
	close(channel[1]);
	error = process->pid < 0 ? -1 : adopt_receive(channel[0], process);
	close(channel[0]);
	if (error == 0)
		process->pidfd = (int)syscall(SYS_pidfd_open, process->pid, 0); /* -1 where there is none: it does */
	return error;
}

/* What the library has to know of a mapper. */
static struct uffdwp_mapper adopt_describe(const struct process *process)
{
	struct uffdwp_mapper mapper = UFFDWP_MAPPER_INIT;

	mapper.uffd = process->uffd;
	mapper.pidfd = process->pidfd;
	mapper.mapping_count = 1;
	mapper.mappings = &process->mapping;
	return mapper;
}

/* Right before the cut: no mapper is between the memory and its shadow. */
static int adopt_cut_enter(void *user, uint64_t *length)
{
	struct monitor *monitor = user;

	(void)length;
	for (int i = 0; i < MAPPERS; i++)
		pthread_mutex_lock(&monitor->board->locks[i]);
	memcpy(monitor->expected, monitor->board->shadow, LENGTH_BYTES);
	return 0;
}

static void adopt_cut_leave(void *user)
{
	struct monitor *monitor = user;

	for (int i = 0; i < MAPPERS; i++)
		pthread_mutex_unlock(&monitor->board->locks[i]);
}

static void adopt_wait_for_writes(struct board *board)
{
	for (int i = 0; i < MAPPERS; i++) {
		uint64_t before = atomic_load(&board->bursts[i]);

		while (atomic_load(&board->bursts[i]) < before + 100)
			sched_yield();
	}
}

static int adopt_snapshot(struct monitor *monitor)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot;
	char text[512];
	int error;

	options.path = PATH;
	options.cut_enter = adopt_cut_enter;
	options.cut_leave = adopt_cut_leave;
	options.cut_user = monitor;
	error = uffdwp_snapshot_begin(monitor->region, &options, &snapshot);
	if (error != 0)
		return adopt_failed("uffdwp_snapshot_begin", error);
	adopt_wait_for_writes(monitor->board); /* first writes wait for a thread of this process */
	error = uffdwp_snapshot_wait(snapshot, -1, NULL);
	uffdwp_snapshot_text(snapshot, text, sizeof(text));
	uffdwp_snapshot_free(snapshot);
	if (error != 0)
		fprintf(stderr, "the snapshot failed: %s: %s\n", strerror(-error), text);
	return error != 0;
}

/* The image is the memory at the cut, of both mappers, and no later one. */
static int adopt_check(struct monitor *monitor, int cut)
{
	FILE *file = fopen(PATH, "rb");
	size_t read = file != NULL ? fread(monitor->image, sizeof(uint64_t), COUNT, file) : 0;
	size_t wrong = COUNT - read;
	size_t later[MAPPERS] = {0};

	if (file != NULL)
		fclose(file);
	for (size_t at = 0; at < read; at++) {
		wrong += monitor->image[at] != monitor->expected[at] ? 1 : 0;
		later[at % MAPPERS] += monitor->board->shadow[at] != monitor->expected[at] ? 1 : 0;
	}
	printf("snapshot %d: %zu elements differ from the shadow at the cut; the mappers wrote %zu and %zu since\n",
	       cut, wrong, later[0], later[1]);
	return wrong == 0 && later[0] > 0 && later[1] > 0 ? 0 : 1;
}

static int adopt_run(struct monitor *monitor, struct uffdwp *runtime)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	struct uffdwp_mapper first = adopt_describe(&monitor->processes[0]);
	struct uffdwp_mapper second = adopt_describe(&monitor->processes[1]);
	int result = 0;
	int error;

	options.fd = monitor->processes[0].memory;
	error = uffdwp_region_adopt(runtime, LENGTH_BYTES, &options, &first, &monitor->region);
	if (error != 0)
		return adopt_failed("uffdwp_region_adopt", error);
	error = uffdwp_region_join(monitor->region, &second);
	if (error != 0)
		result = adopt_failed("uffdwp_region_join", error);
	for (int cut = 1; cut <= CUTS && result == 0; cut++) {
		adopt_wait_for_writes(monitor->board);
		result = adopt_snapshot(monitor);
		if (result == 0)
			result = adopt_check(monitor, cut);
	}
	unlink(PATH);
	error = uffdwp_region_close(monitor->region); /* the memory is the mappers' own again */
	if (error != 0)
		return adopt_failed("uffdwp_region_close", error);
	if (result == 0)
		adopt_wait_for_writes(monitor->board);
	return result;
}

/* Ends the mappers; the first exit code that is not 0. */
static int adopt_end(struct monitor *monitor)
{
	int result = 0;

	atomic_store(&monitor->board->stop, 1);
	for (int i = 0; i < MAPPERS; i++) {
		const struct process *process = &monitor->processes[i];
		int status;

		if (process->pid <= 0)
			continue;
		if (waitpid(process->pid, &status, 0) != process->pid || !WIFEXITED(status))
			result = 1;
		else if (result == 0)
			result = WEXITSTATUS(status);
	}
	return result;
}

static struct board *adopt_make_board(void)
{
	pthread_mutexattr_t shared;
	struct board *board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (board == MAP_FAILED)
		return NULL;
	pthread_mutexattr_init(&shared);
	pthread_mutexattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
	for (int i = 0; i < MAPPERS; i++)
		pthread_mutex_init(&board->locks[i], &shared);
	return board;
}

int main(void)
{
	static struct monitor monitor;
	struct uffdwp *runtime;
	int result = 0;
	int ended;
	int error;

	monitor.board = adopt_make_board();
	if (monitor.board == NULL)
		return 1;
	if (adopt_start(&monitor, 0) == 0 && adopt_start(&monitor, 1) == 0) {
		error = uffdwp_open(NULL, &runtime);
		result = error != 0 ? adopt_failed("uffdwp_open", error) : adopt_run(&monitor, runtime);
		if (error == 0 && uffdwp_close(runtime) != 0)
			result = 1;
	} else {
		result = -1; /* the exit code of the mapper that did not come so far */
	}
	ended = adopt_end(&monitor);
	if (result < 0)
		return ended != 0 ? ended : 1;
	return result != 0 ? result : ended;
}
