/* SPDX-License-Identifier: MIT */
/* See refusing.h. */
#include "refusing.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>

#define WORDS 2

static _Atomic uint64_t setting_ops[WORDS]; /* a bit for each operation */
static _Atomic uint64_t setting_first;
static _Atomic uint64_t setting_count;
static _Atomic int setting_error;
static _Atomic uint64_t calls;
static _Atomic uint64_t calls_of[OP_COUNT];
static _Atomic uint64_t refused;
static _Atomic int last = OP_COUNT;

static const char *const names[] = {
#define REFUSING_OP(name, error) [OP_##name] = #name,
#include "refusing_ops.h"
#undef REFUSING_OP
        [OP_COUNT] = "nothing"};

static const int errors[] = {
#define REFUSING_OP(name, error) [OP_##name] = (error),
#include "refusing_ops.h"
#undef REFUSING_OP
};

void refusing_set(const struct refusal *refusal)
{
	refusing_stop();
	for (int word = 0; word < WORDS; word++) {
		atomic_store(&setting_ops[word], (uint64_t)(refusal->ops >> (64 * word)));
	}
	atomic_store(&setting_count, refusal->count);
	atomic_store(&setting_error, refusal->error);
	atomic_store(&refused, 0);
	atomic_store(&last, OP_COUNT);
	atomic_store(&calls, 0);
	for (int op = 0; op < OP_COUNT; op++) {
		atomic_store(&calls_of[op], 0);
	}
	atomic_store(&setting_first, refusal->first);
}

void refusing_stop(void)
{
	atomic_store(&setting_first, 0);
}

void refusing_nothing(void)
{
	refusing_set(&(struct refusal){REFUSING_ALL, 0, 0, 0});
}

uint64_t refusing_calls(void)
{
	return atomic_load(&calls);
}

uint64_t refusing_calls_of(enum refusing_op op)
{
	return atomic_load(&calls_of[op]);
}

uint64_t refusing_refused(void)
{
	return atomic_load(&refused);
}

const char *refusing_last(void)
{
	return names[atomic_load(&last)];
}

_Static_assert(OP_COUNT <= 64 * WORDS && sizeof(refusing_ops) == 8 * WORDS,
               "settings have a bit of a word for each operation");

/* 0: go on; else the error to give, negative. */
static int refuse(enum refusing_op op)
{
	uint64_t first = atomic_load(&setting_first);
	if ((atomic_load(&setting_ops[op / 64]) >> (op % 64) & 1) == 0) {
		return 0;
	}
	uint64_t call = atomic_fetch_add(&calls, 1) + 1;
	atomic_fetch_add(&calls_of[op], 1);
	if (first == 0 || call < first || call - first >= atomic_load(&setting_count)) {
		return 0;
	}
	atomic_store(&last, (int)op);
	atomic_fetch_add(&refused, 1);
	int error = atomic_load(&setting_error);
	return -(error != 0 ? error : errors[op]);
}

/* One wrapper: its result, name, parameters and arguments. */
#define FORWARD(result, name, parameters, arguments)                                                                   \
	static result refusing_##name parameters                                                                       \
	{                                                                                                              \
		int error = refuse(OP_##name);                                                                         \
		return error != 0 ? error : kernel_real.name arguments;                                                \
	}

/* The same for operations that are done all the same. */
#define FORWARD_DONE(name, parameters, arguments)                                                                      \
	static int refusing_##name parameters                                                                          \
	{                                                                                                              \
		int error = refuse(OP_##name);                                                                         \
		int result = kernel_real.name arguments;                                                               \
		return error != 0 ? error : result;                                                                    \
	}

FORWARD(int, uffd_open_syscall, (int flags), (flags))
FORWARD(int, uffd_open_device, (int flags), (flags))
FORWARD(int, uffd_api, (int uffd, uint64_t *features), (uffd, features))
FORWARD(int, uffd_register, (int uffd, uint64_t start, uint64_t length, uint64_t mode), (uffd, start, length, mode))
FORWARD(int, uffd_unregister, (int uffd, uint64_t start, uint64_t length), (uffd, start, length))
FORWARD(int, uffd_writeprotect, (int uffd, uint64_t start, uint64_t length, uint64_t mode), (uffd, start, length, mode))
FORWARD(int, uffd_copy, (int uffd, uint64_t to, const void *from, uint64_t length, uint64_t mode),
        (uffd, to, from, length, mode))
FORWARD(int, uffd_zeropage, (int uffd, uint64_t start, uint64_t length, uint64_t mode), (uffd, start, length, mode))
FORWARD(int64_t, uffd_continue, (int uffd, uint64_t start, uint64_t length, uint64_t mode), (uffd, start, length, mode))
FORWARD(int, uffd_poison, (int uffd, uint64_t start, uint64_t length, uint64_t mode), (uffd, start, length, mode))
FORWARD_DONE(uffd_wake, (int uffd, uint64_t start, uint64_t length), (uffd, start, length))
FORWARD(ssize_t, uffd_read, (int uffd, struct uffd_msg *messages, size_t count), (uffd, messages, count))
FORWARD(ssize_t, uffd_read_shared, (int uffd, struct uffd_msg *messages, size_t count), (uffd, messages, count))
FORWARD(int, pagemap_scan, (int pagemap, struct pm_scan_arg *arg), (pagemap, arg))
FORWARD(int, munmap, (void *address, size_t length), (address, length))
FORWARD(int, madvise, (void *address, size_t length, int advice), (address, length, advice))
FORWARD(int, mprotect, (void *address, size_t length, int prot), (address, length, prot))
FORWARD(int, mincore, (void *address, size_t length, unsigned char *pages), (address, length, pages))
FORWARD(int, cachestat, (int fd, uint64_t offset, uint64_t length, uint64_t *cached, uint64_t *evicted),
        (fd, offset, length, cached, evicted))
FORWARD(int, mbind, (void *address, size_t length, int mode, uint64_t nodes), (address, length, mode, nodes))
FORWARD(int, futex_wait, (const uint32_t *word, uint32_t expected, uint64_t timeout_ns), (word, expected, timeout_ns))
FORWARD_DONE(futex_wake, (const uint32_t *word, int count), (word, count))
FORWARD(int, memfd_create, (const char *name, unsigned flags), (name, flags))
FORWARD(int, open, (const char *path, int flags, unsigned mode), (path, flags, mode))
FORWARD(int, openat, (int folder, const char *path, int flags, unsigned mode), (folder, path, flags, mode))
FORWARD_DONE(close, (int fd), (fd))
FORWARD(int, dup, (int fd, int least), (fd, least))
FORWARD(int, tag, (int fd, int tag), (fd, tag))
FORWARD(int, tagged, (int fd), (fd))
FORWARD(int, access_mode, (int fd), (fd))
FORWARD(int, change_flags, (int fd, int on, int off), (fd, on, off))
FORWARD(int, fstat, (int fd, struct stat *st), (fd, st))
FORWARD(int64_t, fs_type, (int fd), (fd))
FORWARD(int, ftruncate, (int fd, uint64_t length), (fd, length))
FORWARD(int, fallocate, (int fd, int mode, uint64_t offset, uint64_t length), (fd, mode, offset, length))
FORWARD(int, add_seals, (int fd, int seals), (fd, seals))
FORWARD(int, get_seals, (int fd), (fd))
FORWARD(int64_t, seek, (int fd, uint64_t offset, int whence), (fd, offset, whence))
FORWARD(ssize_t, read, (int fd, void *buffer, size_t length), (fd, buffer, length))
FORWARD(ssize_t, write, (int fd, const void *buffer, size_t length), (fd, buffer, length))
FORWARD(ssize_t, pread, (int fd, void *buffer, size_t length, uint64_t offset), (fd, buffer, length, offset))
FORWARD(ssize_t, pwrite, (int fd, const void *buffer, size_t length, uint64_t offset), (fd, buffer, length, offset))
FORWARD(ssize_t, read_self, (void *buffer, const void *address, size_t length), (buffer, address, length))
FORWARD(ssize_t, write_other, (int pid, const void *buffer, uint64_t address, size_t length),
        (pid, buffer, address, length))
FORWARD(int, fsync, (int fd), (fd))
FORWARD(int, renameat, (int from_folder, const char *from, int to_folder, const char *to),
        (from_folder, from, to_folder, to))
FORWARD(int, unlinkat, (int folder, const char *path), (folder, path))
FORWARD(ssize_t, readlinkat, (int folder, const char *path, char *to, size_t size), (folder, path, to, size))
FORWARD(int, mkdirat, (int folder, const char *path, unsigned mode), (folder, path, mode))
FORWARD(int, listen, (const char *path, unsigned mode), (path, mode))
FORWARD(int, connect, (const char *path), (path))
FORWARD(int, accept, (int fd, uint32_t *uid), (fd, uid))
FORWARD(int, pair, (int ends[2]), (ends))
FORWARD(int, pair_send, (int fd), (fd))
FORWARD(int, pair_receive, (int fd), (fd))
FORWARD(int, poll, (int fd, short events, int timeout_ms), (fd, events, timeout_ms))
FORWARD(int, epoll_create, (void), ())
FORWARD(int, eventfd, (void), ())
FORWARD(int, uring_init, (unsigned entries, struct io_uring *ring, unsigned flags), (entries, ring, flags))
FORWARD(int, uring_result, (int result), (result))
FORWARD(int, uring_polled, (int result), (result))
FORWARD(int64_t, sched_slice, (uint64_t slice_ns), (slice_ns))
FORWARD(int, sched_batch, (int on), (on))
FORWARD(int, fork, (enum kernel_fork how), (how))
FORWARD(int, pidfd_open, (int pid), (pid))
FORWARD(int, exited, (int pid), (pid))
FORWARD(int, kill, (int pidfd, int pid), (pidfd, pid))
FORWARD(int, wait, (int pid, enum kernel_fork how), (pid, how))
FORWARD(int, try_write, (void *address), (address))

static void *refusing_mmap(void *address, size_t length, int prot, int flags, int fd, uint64_t offset, int *error)
{
	int refusal = refuse(OP_mmap);
	if (refusal != 0) {
		*error = refusal;
		return NULL;
	}
	return kernel_real.mmap(address, length, prot, flags, fd, offset, error);
}

static void *refusing_mmap_unlocked(size_t length, int prot, int flags, int fd, uint64_t offset, int *error)
{
	int refusal = refuse(OP_mmap_unlocked);
	if (refusal != 0) {
		*error = refusal;
		return NULL;
	}
	return kernel_real.mmap_unlocked(length, prot, flags, fd, offset, error);
}

static void *refusing_mremap(void *address, size_t old_length, size_t new_length, int flags, void *target, int *error)
{
	int refusal = refuse(OP_mremap);
	if (refusal != 0) {
		*error = refusal;
		return NULL;
	}
	return kernel_real.mremap(address, old_length, new_length, flags, target, error);
}

const struct kernel_ops kernel_refusing = {
#define REFUSING_OP(name, error) .name = refusing_##name,
#include "refusing_ops.h"
#undef REFUSING_OP
};

_Static_assert(sizeof(struct kernel_ops) == OP_COUNT * sizeof(int (*)(void)),
               "refusing_ops.h names every operation of struct kernel_ops");
