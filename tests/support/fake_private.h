/* SPDX-License-Identifier: MIT */
/*
 * What the files of the fake kernel share: fake_table.c has ranges and pages and what fills or protects them,
 * fake_uffd.c has descriptors and the threads that wait in them, fake.c has memory as user code and the kernel see it.
 *
 * Two kinds of lock: that of a page covers its entry and orders accesses to it; another covers what waits in uffds. No
 * thread takes one while it holds the other. Ranges and uffds are appended and never reused, so that they are found
 * without a lock: one that the sanitizer would take for order between writers.
 */
#ifndef SUPPORT_FAKE_PRIVATE_H
#define SUPPORT_FAKE_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "fake.h"
#include "kernel/abi.h"

#define PAGE 4096u

/* --- fake_table.c ----------------------------------------------------------------------------------------------- */

/* A page-table entry and its page. */
struct page {
	pthread_mutex_t lock;
	int armed;     /* the wp bit */
	int empty;     /* the entry leads nowhere */
	int content;   /* there is a page to be mapped, in the file or in memory */
	int swapped;   /* it was swapped out */
	int read_only; /* by mprotect() */
	int resume;    /* taken out of the registration of its range */
};

struct range {
	_Atomic uint64_t start;
	_Atomic uint64_t end; /* 0: gone */
	struct uffd *uffd;    /* NULL: only protected by mprotect() */
	uint64_t modes;
	struct page *pages;
	int anonymous;
	uint64_t inode;
	dev_t device;
	uint64_t offset; /* in the file, of the first page */
};

/* What stops an access. */
enum stop { STOP_NOT, STOP_MISSING, STOP_MINOR, STOP_WP, STOP_READ_ONLY };

/* The newest range at this address, or NULL. */
struct range *table_range(uint64_t address);
struct page *table_page(const struct range *range, uint64_t address);

/* Under the page's lock. */
enum stop table_stop(const struct range *range, const struct page *page, int write);
void table_touch(struct page *page);

/* What stops an access now. */
enum stop table_look(const struct range *range, struct page *page, int write);

/* How entries are emptied: they keep their content, or lose it (`each` takes it away under the page's lock). */
void table_zap(const struct range *range, uint64_t start, uint64_t length, int swapped);
void table_lose(const struct range *range, uint64_t start, uint64_t length, void (*each)(void *user, uint64_t address),
                void *user);

/* A file loses its content in [offset, offset + length), wherever some range maps it. */
void table_lose_file(dev_t device, uint64_t inode, uint64_t offset, uint64_t length,
                     void (*each)(void *user, uint64_t offset), void *user);

/* Every range of a uffd (NULL: any) inside of [start, end) is gone. */
void table_forget(const struct uffd *uffd, uint64_t start, uint64_t end);

int table_register(int fd, uint64_t start, uint64_t length, uint64_t modes);
int table_unregister(int fd, uint64_t start, uint64_t length);
int table_writeprotect(int fd, uint64_t start, uint64_t length, uint64_t mode);
int table_copy(int fd, uint64_t to, const void *from, uint64_t length, uint64_t mode);
int table_zeropage(int fd, uint64_t start, uint64_t length, uint64_t mode);
int64_t table_continue(int fd, uint64_t start, uint64_t length, uint64_t mode);
int table_mprotect(void *address, size_t length, int prot);

/* --- fake_uffd.c ------------------------------------------------------------------------------------------------ */

/* A thread that waits in a uffd, on its own stack: in a fault until woken, with an event until it was read. */
struct waiter {
	struct uffd_msg message;
	int read;
	int woken;
	struct waiter *next;
};

struct uffd {
	_Atomic int fd; /* -1: closed */
	uint64_t features;
	_Atomic unsigned waiting; /* in faults */
	_Atomic unsigned changing;
	struct waiter *faults;
	struct waiter *events;
};

struct uffd *uffd_of(int fd);
int uffd_new(int flags);
int uffd_no_device(int flags);
int uffd_negotiate(int fd, uint64_t *features);
ssize_t uffd_read_messages(int fd, struct uffd_msg *messages, size_t room);
int uffd_wake_range(int fd, uint64_t start, uint64_t length);
void uffd_wake(struct uffd *uffd, uint64_t start, uint64_t length);
void uffd_close(struct uffd *uffd);

/* A thread that changes mappings sends it, and goes on when its event was read. */
void uffd_report(struct uffd *uffd, struct waiter *waiter);

/* Leaves a message and sleeps until a wake, if the access is still stopped by this. */
void uffd_sleep(const struct range *range, struct page *page, uint64_t address, enum stop stop, int write);

/* --- fake.c ----------------------------------------------------------------------------------------------------- */

/* Never NULL. */
const struct fake_hooks *fake_hooks_now(void);
const struct fake_kind *fake_kind_now(void);

/* A change of protection or a fill shall come again: an event waits to be read, or the test wants it so. */
int fake_must_come_again(const struct uffd *uffd);

/* What arming shall fail with in the middle, or 0. */
int fake_arming_error(void);
int fake_disarming_error(void);

#endif
