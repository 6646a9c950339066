/* SPDX-License-Identifier: MIT */
/*
 * The programs that the tests of libuffdwp-fork.so run: this test program itself, in a role that is named by --role. A
 * role ends with 0, or must() ends it.
 */
#ifndef TEST_FORK_PRELOAD_H
#define TEST_FORK_PRELOAD_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "filter.h"
#include "support.h"

#define MIB ((size_t)1 << 20)

struct role {
	char name[16];
	void (*run)(void);
};

static size_t page_bytes;

static void await_right(pid_t child)
{
	int status = 0;

	must(waitpid(child, &status, 0) == child);
	if (status)
		fprintf(stderr, "child %d: wait status %#x\n", (int)child, (unsigned)status);
	must(status == 0);
}

/* ----------------------------------------------------------------------------------------------- heap and shadow -- */

#define WRITERS 3
#define SLOTS 48
#define SLOT_MOST ((size_t)96 << 10)

/* What a thread writes: where `version` is even the bytes are all of it. */
struct slot {
	_Atomic uint64_t version;
	size_t length;
	unsigned char *bytes;
};

struct writer {
	struct slot slots[SLOTS];
	_Atomic uint64_t count;
};

static struct writer *writers[WRITERS];        /* on the heap */
static _Atomic uint64_t shadow_count[WRITERS]; /* not on the heap */
static atomic_int writers_end;

static unsigned char byte_of(uint64_t version)
{
	return (unsigned char)(version * 37 % 251);
}

static void write_slot(struct slot *slot, unsigned *random)
{
	uint64_t version = atomic_load(&slot->version);
	size_t length = 16 + (size_t)rand_r(random) % SLOT_MOST;

	atomic_store(&slot->version, version + 1);
	if (rand_r(random) % 2) {
		free(slot->bytes);
		slot->bytes = malloc(length);
	} else {
		slot->bytes = realloc(slot->bytes, length);
	}
	must(slot->bytes != NULL);
	slot->length = length;
	memset(slot->bytes, byte_of(version + 2), length);
	atomic_store(&slot->version, version + 2);
}

static void *write_all(void *argument)
{
	size_t own = (size_t)(uintptr_t)argument;
	unsigned random = (unsigned)own + 1;

	for (uint64_t i = 1; !atomic_load(&writers_end); i++) {
		atomic_store(&writers[own]->count, i);
		atomic_store(&shadow_count[own], i);
		write_slot(&writers[own]->slots[(size_t)rand_r(&random) % SLOTS], &random);
	}
	return NULL;
}

static void check_slot(const struct slot *slot)
{
	uint64_t version = atomic_load(&slot->version);

	if (version % 2 || !version)
		return;
	for (size_t i = 0; i < slot->length; i++) {
		if (slot->bytes[i] != byte_of(version)) {
			fprintf(stderr, "byte %zu of %zu is %d, not %d\n", i, slot->length, slot->bytes[i],
			        byte_of(version));
			must(0);
		}
	}
}

/* One instant of the heap and of all other memory. */
static void check_heap(void)
{
	for (size_t own = 0; own < WRITERS; own++) {
		uint64_t on_heap = atomic_load(&writers[own]->count);
		uint64_t beside = atomic_load(&shadow_count[own]);

		must(on_heap == beside || on_heap == beside + 1);
		for (size_t i = 0; i < SLOTS; i++)
			check_slot(&writers[own]->slots[i]);
	}
}

/* Also what it frees and gets anew does not reach the parent. */
static void use_heap(void)
{
	for (size_t i = 0; i < SLOTS; i++) {
		struct slot *slot = &writers[0]->slots[i];
		unsigned char *more;

		if (atomic_load(&slot->version) % 2)
			continue;
		free(slot->bytes);
		more = calloc(1, slot->length + 1);
		must(more != NULL && more[0] == 0 && more[slot->length] == 0);
		memset(more, 255, slot->length);
	}
}

static void be_child(void)
{
	pid_t child = 0;

	check_heap();
	if (getpid() % 2) {
		child = fork();
		must(child >= 0);
		if (child == 0) {
			check_heap();
			use_heap();
			_exit(0);
		}
	}
	usleep(1000);
	check_heap();
	use_heap();
	if (child)
		await_right(child);
	_exit(0);
}

static void role_shadow(void)
{
	pid_t children[4] = {0};
	pthread_t threads[WRITERS];
	unsigned forks = support_rounds(40, 400);

	for (size_t own = 0; own < WRITERS; own++) {
		writers[own] = calloc(1, sizeof(*writers[own]));
		must(writers[own] != NULL);
	}
	for (size_t own = 0; own < WRITERS; own++)
		threads[own] = thread_start(write_all, (void *)(uintptr_t)own);
	for (unsigned i = 0; i < forks; i++) {
		pid_t *child = &children[i % 4];

		if (*child)
			await_right(*child);
		*child = fork();
		must(*child >= 0);
		if (*child == 0)
			be_child();
	}
	for (size_t i = 0; i < 4; i++)
		await_right(children[i]);
	atomic_store(&writers_end, 1);
	for (size_t own = 0; own < WRITERS; own++)
		thread_join(threads[own]);
	check_heap();
}

/* ----------------------------------------------------------------------------------------------- calls of memory -- */

static unsigned char *map_anew(size_t length)
{
	unsigned char *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(memory != MAP_FAILED);
	return memory;
}

static int is_filled(const unsigned char *memory, size_t length, int byte)
{
	for (size_t i = 0; i < length; i++) {
		if (memory[i] != byte)
			return 0;
	}
	return 1;
}

/* 1: the thread's next access there is a SIGSEGV. The kernel says so, too. */
static int is_guarded(unsigned char *memory)
{
	int ends[2];
	ssize_t written;

	must(pipe(ends) == 0);
	written = write(ends[1], memory, 1);
	must(written == 1 || errno == EFAULT);
	close(ends[0]);
	close(ends[1]);
	return written != 1;
}

/* What the kernel does with private anonymous memory. The same is asked of a child. */
static void use_calls(void)
{
	unsigned char *a = map_anew(4 * MIB);
	unsigned char *b;

	must(is_filled(a, 4 * MIB, 0));
	memset(a, 1, 4 * MIB);
	must(madvise(a + MIB, MIB, MADV_DONTNEED) == 0);
	must(is_filled(a, MIB, 1) && is_filled(a + MIB, MIB, 0) && is_filled(a + 2 * MIB, 2 * MIB, 1));
	must(madvise(a, MIB, MADV_HUGEPAGE) == 0 || errno == EINVAL);
	must(madvise(a, 1, 12345) == -1 && errno == EINVAL);
	must(munmap(a + 1, MIB) == -1 && errno == EINVAL);
	must(munmap(a + 2 * MIB, MIB) == 0);
	b = mmap(a + MIB, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	must(b == a + MIB && is_filled(b, MIB, 0));
	memset(b, 2, MIB);
	must(mprotect(b, page_bytes, PROT_NONE) == 0 && is_guarded(b));
	must(mprotect(b, page_bytes, PROT_READ | PROT_WRITE) == 0 && is_filled(b, MIB, 2));
	a = mremap(b, MIB, 3 * MIB, MREMAP_MAYMOVE);
	must(a != MAP_FAILED && is_filled(a, MIB, 2) && is_filled(a + MIB, 2 * MIB, 0));
	memset(a, 3, 3 * MIB);
	must(mremap(a, 3 * MIB, MIB, 0) == a && is_filled(a, MIB, 3));
	b = mremap(a, MIB, MIB, MREMAP_MAYMOVE | MREMAP_FIXED, map_anew(8 * MIB));
	must(b != MAP_FAILED && is_filled(b, MIB, 3));
	must(munmap(b, MIB) == 0);
}

static pid_t fork_and_look(const unsigned char *kept, int byte)
{
	pid_t child = fork();

	must(child >= 0);
	if (child == 0) {
		must(is_filled(kept, MIB, 0) && is_filled(kept + 2 * MIB, MIB, 0));
		must(is_filled(kept + 5 * MIB, 3 * MIB, byte));
		_exit(0);
	}
	return child;
}

/* A child of calls: what its parent had is there, with its rights, and stays so while both go on. */
static void role_calls(void)
{
	unsigned char *kept = map_anew(8 * MIB);

	use_calls();
	for (int i = 1; i < 6; i++) {
		memset(kept, i, 8 * MIB);
		must(mprotect(kept + MIB, page_bytes, PROT_NONE) == 0);
		must(madvise(kept + 2 * MIB, MIB, MADV_DONTNEED) == 0);
		pid_t child = fork();

		must(child >= 0);
		if (child == 0) {
			use_calls();
			usleep(3000);
			must(is_filled(kept, MIB, i) && is_guarded(kept + MIB) && is_filled(kept + 2 * MIB, MIB, 0));
			must(is_filled(kept + 3 * MIB, 5 * MIB, i));
			must(munmap(kept + 3 * MIB, 2 * MIB) == 0 && is_guarded(kept + 4 * MIB));
			must(madvise(kept, MIB, MADV_DONTNEED) == 0 && is_filled(kept, MIB, 0));
			if (i % 2)
				await_right(fork_and_look(kept, i));
			_exit(0);
		}
		must(munmap(kept + 6 * MIB, MIB) == 0);
		must(mprotect(kept + MIB, page_bytes, PROT_READ | PROT_WRITE) == 0);
		memset(kept, 100 + i, 5 * MIB);
		use_calls();
		await_right(child);
		must(is_filled(kept, 5 * MIB, 100 + i));
		must(munmap(kept, 8 * MIB) == 0);
		kept = map_anew(8 * MIB);
	}
}

/* --------------------------------------------------------------------------------------------------- the process -- */

static char order[64];
static size_t order_length;

static void note(char what)
{
	if (order_length < sizeof(order) - 1)
		order[order_length++] = what;
}

#define HANDLERS(name, prepare, parent, child)                                                                         \
	static void name##_prepare(void)                                                                               \
	{                                                                                                              \
		note(prepare);                                                                                         \
	}                                                                                                              \
	static void name##_parent(void)                                                                                \
	{                                                                                                              \
		note(parent);                                                                                          \
	}                                                                                                              \
	static void name##_child(void)                                                                                 \
	{                                                                                                              \
		note(child);                                                                                           \
	}
HANDLERS(first, 'a', 'b', 'c')
HANDLERS(second, 'A', 'B', 'C')

/* The heap is large enough that a fork is ours. */
static unsigned char *fill_heap(void)
{
	unsigned char *memory = malloc(8 * MIB);

	must(memory != NULL);
	memset(memory, 7, 8 * MIB);
	return memory;
}

static void role_handlers(void)
{
	unsigned char *heap = fill_heap();

	must(pthread_atfork(first_prepare, first_parent, first_child) == 0);
	must(pthread_atfork(second_prepare, second_parent, second_child) == 0);
	pid_t child = fork();

	must(child >= 0);
	if (child == 0) {
		must(strcmp(order, "AacC") == 0 && is_filled(heap, 8 * MIB, 7));
		_exit(0);
	}
	must(strcmp(order, "AabB") == 0);
	await_right(child);
	free(heap);
}

static pthread_barrier_t locked;

static void *lock_stream(void *argument)
{
	flockfile(argument);
	pthread_barrier_wait(&locked);
	pthread_barrier_wait(&locked);
	funlockfile(argument);
	return NULL;
}

/* A stream that another thread has locked can be used by the child, as after the C library's fork. */
static void role_streams(void)
{
	unsigned char *heap = fill_heap();
	FILE *stream = tmpfile();
	pthread_t thread;

	must(stream != NULL && pthread_barrier_init(&locked, NULL, 2) == 0);
	thread = thread_start(lock_stream, stream);
	pthread_barrier_wait(&locked);
	pid_t child = fork();

	must(child >= 0);
	if (child == 0) {
		must(fputs("child", stream) >= 0 && fclose(stream) == 0);
		stream = fopen("/dev/null", "re");
		must(stream != NULL && fclose(stream) == 0);
		_exit(0);
	}
	await_right(child);
	pthread_barrier_wait(&locked);
	thread_join(thread);
	(void)fclose(stream);
	free(heap);
}

/* Other calls that begin a process, and an exec at once. */
static void role_others(void)
{
	static char name[] = "true";
	char *const arguments[] = {name, NULL};
	unsigned char *heap = fill_heap();
	FILE *pipe_end;
	pid_t child;

	for (int i = 0; i < 20; i++) {
		child = i % 2 ? fork() : vfork(); /* NOLINT */
		must(child >= 0);
		if (child == 0) {
			execv("/bin/true", arguments);
			_exit(1);
		}
		await_right(child);
	}
	must(posix_spawn(&child, "/bin/true", NULL, NULL, arguments, environ) == 0);
	await_right(child);
	must(system("exit 0") == 0);         /* NOLINT */
	pipe_end = popen("echo right", "r"); /* NOLINT */
	must(pipe_end != NULL && fgetc(pipe_end) == 'r' && pclose(pipe_end) == 0);
	must(!getenv("UFFDWP_FORK_PRELOADED") && !getenv("LD_PRELOAD"));
	must(is_filled(heap, 8 * MIB, 7));
	free(heap);
}

/* While a child lives a system call writes into the heap as ever. */
static void role_reads(void)
{
	unsigned char *heap = fill_heap();
	int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	int ends[2];
	char byte;

	must(zero >= 0 && pipe(ends) == 0);
	pid_t child = fork();

	must(child >= 0);
	if (child == 0) {
		close(ends[1]);
		must(read(ends[0], &byte, 1) == 0 && is_filled(heap, 8 * MIB, 7));
		_exit(0);
	}
	close(ends[0]);
	must(read(zero, heap, 8 * MIB) == (ssize_t)(8 * MIB) && is_filled(heap, 8 * MIB, 0));
	close(ends[1]);
	await_right(child);
	free(heap);
}

static void *count_for_ever(void *argument)
{
	for (uint64_t i = 1; !atomic_load(&writers_end); i++) {
		atomic_store((_Atomic uint64_t *)argument, i);
		atomic_store(&shadow_count[0], i);
	}
	return NULL;
}

/* More children at a time than a region may have, with another thread that writes to the heap and elsewhere. */
static void role_many(void)
{
	_Atomic uint64_t *count = calloc(1, 1 * MIB);
	pthread_t thread = thread_start(count_for_ever, count);
	unsigned char *heap = fill_heap();
	enum { CHILDREN = 70, STAMPED = 64 << 10 };
	pid_t children[CHILDREN];
	int ends[2];
	char byte;

	must(pipe(ends) == 0);
	for (int i = 0; i < CHILDREN; i++) {
		memset(heap, i, STAMPED);
		children[i] = fork();
		must(children[i] >= 0);
		if (children[i] == 0) {
			close(ends[1]);
			must(read(ends[0], &byte, 1) == 0 && is_filled(heap, STAMPED, (unsigned char)i));
			must(*count == shadow_count[0] || *count == shadow_count[0] + 1);
			memset(heap, 200, 1 * MIB);
			free(heap);
			_exit(0);
		}
	}
	memset(heap, 100, 1 * MIB);
	close(ends[0]);
	close(ends[1]);
	for (int i = 0; i < CHILDREN; i++)
		await_right(children[i]);
	must(is_filled(heap, 1 * MIB, 100));
	atomic_store(&writers_end, 1);
	thread_join(thread);
	free(heap);
}

static void *fork_often(void *argument)
{
	unsigned char *memory = malloc(2 * MIB);

	must(memory != NULL);
	for (unsigned i = 0; i < support_rounds(12, 120); i++) {
		memset(memory, (int)i, 2 * MIB);
		pid_t child = fork();

		must(child >= 0);
		if (child == 0) {
			must(is_filled(memory, 2 * MIB, (int)i));
			memset(memory, 1, 2 * MIB);
			free(memory);
			_exit(0);
		}
		memset(memory, 255, MIB);
		await_right(child);
	}
	free(memory);
	return argument;
}

/* Several threads fork. */
static void role_crowd(void)
{
	pthread_t threads[4];

	for (size_t i = 0; i < 4; i++)
		threads[i] = thread_start(fork_often, NULL);
	for (size_t i = 0; i < 4; i++)
		thread_join(threads[i]);
}

/* The child has the heap of the fork, while the parent changes it. */
static void fork_and_change(unsigned char *heap)
{
	memset(heap, 7, 8 * MIB);
	pid_t child = fork();

	must(child >= 0);
	if (child == 0) {
		usleep(20000);
		must(is_filled(heap, 8 * MIB, 7));
		_exit(0);
	}
	memset(heap, 8, 8 * MIB);
	await_right(child);
}

/* A program that gives up its rights, and then what it sees of the system, and then its descriptors. */
static void role_user(void)
{
	unsigned char *heap = fill_heap();

	must(chdir("/") == 0);
	if (support_may_change_user()) {
		must(setgid(65534) == 0 && setuid(65534) == 0);
		fork_and_change(heap);
	}
	free(heap);
}

static void role_chroot(void)
{
	unsigned char *heap = fill_heap();

	if (chroot("/var/lib") == 0)
		fork_and_change(heap);
	free(heap);
}

static void role_closes(void)
{
	unsigned char *heap = fill_heap();

	for (int fd = 3; fd < 1024; fd++)
		(void)close(fd);
	must(open("/dev/null", O_RDONLY | O_CLOEXEC) == 3);
	fork_and_change(heap);
	free(heap);
	heap = fill_heap();
	fork_and_change(heap);
	free(heap);
}

static volatile sig_atomic_t in_handler;

static void fork_in_handler(int signal)
{
	pid_t child = fork();

	(void)signal;
	must(child >= 0);
	if (child == 0)
		_exit(0);
	await_right(child);
	in_handler++;
}

/* A signal comes while memory is mapped and unmapped, and its handler forks. */
static void role_signal(void)
{
	struct sigaction action = {.sa_handler = fork_in_handler};
	unsigned char *heap = map_anew(8 * MIB);

	must(sigaction(SIGALRM, &action, NULL) == 0);
	for (unsigned i = 0; i < support_rounds(20, 200); i++) {
		must(ualarm(1000 + i * 37 % 500, 0) == 0);
		for (int last = in_handler; in_handler == last;) {
			unsigned char *memory = map_anew(MIB);

			memset(memory, 1, 4 * page_bytes);
			must(munmap(memory, MIB) == 0);
			must(madvise(heap, MIB, MADV_DONTNEED) == 0);
			memset(heap, 1, 64 * page_bytes);
		}
	}
	must(munmap(heap, 8 * MIB) == 0);
}

/* A daemon goes into the background; what it has afterwards is a region of its own. */
static void role_daemon(void)
{
	int ends[2];
	char byte = 0;

	must(pipe(ends) == 0);
	pid_t child = fork();

	must(child >= 0);
	if (child == 0) {
		must(daemon(1, 1) == 0);
		unsigned char *heap = fill_heap();
		pid_t grandchild = fork();

		must(grandchild >= 0);
		if (grandchild == 0)
			_exit(!is_filled(heap, 8 * MIB, 7));
		memset(heap, 8, 8 * MIB);
		await_right(grandchild);
		must(write(ends[1], "r", 1) == 1);
		_exit(0);
	}
	close(ends[1]);
	await_right(child);
	must(read(ends[0], &byte, 1) == 1 && byte == 'r');
}

#include "test_fork_preload_box.h"
#include "test_fork_preload_libc.h"

static const struct role roles[] = {
        {"shadow", role_shadow},   {"calls", role_calls},       {"handlers", role_handlers}, {"streams", role_streams},
        {"others", role_others},   {"reads", role_reads},       {"many", role_many},         {"daemon", role_daemon},
        {"user", role_user},       {"chroot", role_chroot},     {"closes", role_closes},     {"signal", role_signal},
        {"crowd", role_crowd},     {"setxid", role_setxid},     {"mainexit", role_mainexit}, {"timer", role_timer},
        {"faults", role_faults},   {"landlock", role_landlock}, {"ownfiles", role_ownfiles}, {"noopen", role_noopen},
        {"noremap", role_noremap}, {"nowrite", role_nowrite},   {"undump", role_undump},
};

static inline int play_role_of(const struct role *all, size_t count, const char *name)
{
	page_bytes = (size_t)sysconf(_SC_PAGESIZE);
	for (size_t i = 0; i < count; i++) {
		if (strcmp(all[i].name, name) == 0) {
			all[i].run();
			return 0;
		}
	}
	return 2;
}

static inline int play_role(const char *name)
{
	return play_role_of(roles, sizeof(roles) / sizeof(roles[0]), name);
}

#endif
