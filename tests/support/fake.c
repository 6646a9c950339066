/* SPDX-License-Identifier: MIT */
/*
 * See fake.h. Two kinds of lock: that of a page covers its mark and orders stores to it; `table_lock` covers what waits
 * in uffds. No thread takes one while it holds the other. Ranges and uffds are appended and never reused, so that they
 * are found without a lock: one that the sanitizer would take for order between writers.
 */
#include "fake.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel/abi.h"
#include "kernel/maps.h"
#include "support.h"

#define RANGES_MAX 4096
#define UFFDS_MAX 4096
#define FILES_MAX 4096
#define PAGE 4096u

#define FEATURES                                                                                                       \
	(UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_SIGBUS | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE | \
	 UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_EXACT_ADDRESS)

/* Somebody who waits in a uffd, on his own stack: in a fault until woken, with an event until it was read. */
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

struct page {
	pthread_mutex_t lock;
	int armed;
};

struct range {
	_Atomic uint64_t start;
	_Atomic uint64_t end; /* 0: not registered any more */
	struct uffd *uffd;
	struct page *pages;
	int anonymous;
};

static struct uffd uffds[UFFDS_MAX];
static _Atomic unsigned uffd_count;
static struct range ranges[RANGES_MAX];
static _Atomic unsigned range_count;
static _Atomic uint8_t pagemaps[FILES_MAX]; /* by descriptor: 1 where it is one */
static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t table_moved = PTHREAD_COND_INITIALIZER;

static _Atomic(const struct fake_hooks *) hooks;
static _Atomic unsigned again_every;
static _Atomic unsigned changes;
static _Atomic int arming_error;

void fake_hook(const struct fake_hooks *wanted)
{
	atomic_store(&hooks, wanted);
}

void fake_again_every(unsigned n)
{
	atomic_store(&again_every, n);
}

void fake_refuse_arming(int error)
{
	atomic_store(&arming_error, error);
}

/* --- the page table --------------------------------------------------------------------------------------------- */

static struct range *range_at(uint64_t address)
{
	for (unsigned i = atomic_load(&range_count); i > 0; i--) {
		struct range *range = &ranges[i - 1];
		if (address >= atomic_load(&range->start) && address < atomic_load(&range->end)) {
			return range;
		}
	}
	return NULL;
}

static struct page *page_at(const struct range *range, uint64_t address)
{
	return &range->pages[(address - atomic_load(&range->start)) / PAGE];
}

static int page_is_armed(struct page *page)
{
	pthread_mutex_lock(&page->lock);
	int armed = page->armed;
	pthread_mutex_unlock(&page->lock);
	return armed;
}

static void set_marks(const struct range *range, uint64_t start, uint64_t length, int armed)
{
	for (uint64_t address = start; address < start + length; address += PAGE) {
		struct page *page = page_at(range, address);
		pthread_mutex_lock(&page->lock);
		page->armed = armed;
		pthread_mutex_unlock(&page->lock);
	}
}

int fake_is_armed(const void *address)
{
	const struct range *range = range_at((uint64_t)(uintptr_t)address);
	return range != NULL && page_is_armed(page_at(range, (uint64_t)(uintptr_t)address));
}

/* --- uffds ------------------------------------------------------------------------------------------------------ */

static struct uffd *uffd_of(int fd)
{
	for (unsigned i = atomic_load(&uffd_count); i > 0; i--) {
		if (atomic_load(&uffds[i - 1].fd) == fd) {
			return &uffds[i - 1];
		}
	}
	return NULL;
}

static void append(struct waiter **list, struct waiter *waiter)
{
	while (*list != NULL) {
		list = &(*list)->next;
	}
	*list = waiter;
}

static void unlink_waiter(struct waiter **list, const struct waiter *waiter)
{
	while (*list != NULL && *list != waiter) {
		list = &(*list)->next;
	}
	if (*list != NULL) {
		*list = waiter->next;
	}
}

/* Under table_lock, as is the draining: the eventfd is readable when there is something to read. */
static void make_readable(const struct uffd *uffd)
{
	static const uint64_t one = 1;
	if (atomic_load(&uffd->fd) >= 0) {
		must(write(atomic_load(&uffd->fd), &one, sizeof(one)) == sizeof(one));
	}
}

static void make_unreadable(const struct uffd *uffd)
{
	uint64_t ignored;
	must(read(atomic_load(&uffd->fd), &ignored, sizeof(ignored)) > 0 || errno == EAGAIN);
}

static int fake_uffd_open(int flags)
{
	(void)flags;
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	must(fd >= 0);
	pthread_mutex_lock(&table_lock);
	unsigned at = atomic_load(&uffd_count);
	must(at < UFFDS_MAX);
	atomic_store(&uffds[at].fd, fd);
	atomic_store(&uffd_count, at + 1);
	pthread_mutex_unlock(&table_lock);
	return fd;
}

static int fake_no_device(int flags)
{
	(void)flags;
	return -ENOENT;
}

static int fake_uffd_api(int fd, uint64_t *features)
{
	if ((*features & ~(uint64_t)FEATURES) != 0) {
		return -EINVAL;
	}
	struct uffd *uffd = uffd_of(fd);
	if (uffd == NULL) {
		return -EBADF;
	}
	uffd->features = *features;
	*features = FEATURES;
	return 0;
}

static void wake(struct uffd *uffd, uint64_t start, uint64_t length)
{
	/* A writer counts himself before he looks at the mark, which was taken off before this. */
	if (atomic_load(&uffd->waiting) == 0) {
		return;
	}
	pthread_mutex_lock(&table_lock);
	for (struct waiter *waiter = uffd->faults; waiter != NULL; waiter = waiter->next) {
		uint64_t address = waiter->message.arg.pagefault.address;
		waiter->woken |= address >= start && address < start + length;
	}
	pthread_cond_broadcast(&table_moved);
	pthread_mutex_unlock(&table_lock);
}

static int fake_uffd_register(int fd, uint64_t start, uint64_t length, uint64_t mode)
{
	struct maps_range map;
	must(mode == UFFDIO_REGISTER_MODE_WP);
	must(maps_look(start, length, &map) == 0);
	if (range_at(start) != NULL) {
		return -EBUSY;
	}
	struct page *pages = calloc(length / PAGE, sizeof(*pages));
	if (pages == NULL) {
		return -ENOMEM;
	}
	for (uint64_t i = 0; i < length / PAGE; i++) {
		must(pthread_mutex_init(&pages[i].lock, NULL) == 0);
	}
	pthread_mutex_lock(&table_lock);
	unsigned at = atomic_load(&range_count);
	must(at < RANGES_MAX);
	ranges[at].uffd = uffd_of(fd);
	ranges[at].pages = pages;
	ranges[at].anonymous = map.inode == 0;
	atomic_store(&ranges[at].start, start);
	atomic_store(&ranges[at].end, start + length);
	atomic_store(&range_count, at + 1);
	pthread_mutex_unlock(&table_lock);
	return 0;
}

static void forget_range(struct range *range)
{
	uint64_t start = atomic_load(&range->start);
	uint64_t length = atomic_load(&range->end) - start;
	set_marks(range, start, length, 0);
	atomic_store(&range->end, 0);
	wake(range->uffd, start, length);
}

static int fake_uffd_unregister(int fd, uint64_t start, uint64_t length)
{
	struct range *range = range_at(start);
	if (range == NULL || atomic_load(&range->uffd->fd) != fd) {
		return -EINVAL;
	}
	must(atomic_load(&range->end) == start + length);
	forget_range(range);
	return 0;
}

static int is_pagemap(int fd)
{
	return fd >= 0 && fd < FILES_MAX && atomic_load(&pagemaps[fd]);
}

static int fake_open(const char *path, int flags, unsigned mode)
{
	int fd = kernel_real.open(path, flags, mode);
	if (fd >= 0 && strcmp(path, "/proc/self/pagemap") == 0) {
		must(fd < FILES_MAX);
		atomic_store(&pagemaps[fd], 1);
	}
	return fd;
}

/* The real page map knows no marks of ours: they are put in. */
static ssize_t fake_pread(int fd, void *buffer, size_t length, uint64_t offset)
{
	ssize_t got = kernel_real.pread(fd, buffer, length, offset);
	if (got <= 0 || !is_pagemap(fd)) {
		return got;
	}
	for (size_t i = 0; i < (size_t)got / sizeof(uint64_t); i++) {
		uint64_t entry;
		uint8_t *at = (uint8_t *)buffer + i * sizeof(entry);
		memcpy(&entry, at, sizeof(entry));
		int armed = fake_is_armed((void *)(uintptr_t)((offset / sizeof(entry) + i) * PAGE));
		entry = (entry & ~PAGEMAP_UFFD_WP) | (armed ? PAGEMAP_UFFD_WP : 0);
		memcpy(at, &entry, sizeof(entry));
	}
	return got;
}

static int fake_close(int fd)
{
	if (is_pagemap(fd)) {
		atomic_store(&pagemaps[fd], 0);
	}
	struct uffd *uffd = uffd_of(fd);
	if (uffd == NULL) {
		return kernel_real.close(fd);
	}
	for (unsigned i = 0; i < atomic_load(&range_count); i++) {
		if (ranges[i].uffd == uffd && atomic_load(&ranges[i].end) != 0) {
			forget_range(&ranges[i]);
		}
	}
	pthread_mutex_lock(&table_lock);
	atomic_store(&uffd->fd, -1);
	pthread_cond_broadcast(&table_moved);
	pthread_mutex_unlock(&table_lock);
	return kernel_real.close(fd);
}

/* --- protection ------------------------------------------------------------------------------------------------- */

static int must_come_again(const struct uffd *uffd)
{
	unsigned every = atomic_load(&again_every);
	return atomic_load(&uffd->changing) > 0 || (every != 0 && (atomic_fetch_add(&changes, 1) + 1) % every == 0);
}

static int arm(const struct range *range, uint64_t start, uint64_t length)
{
	const struct fake_hooks *hook = atomic_load(&hooks);
	int error = atomic_load(&arming_error);
	set_marks(range, start, error != 0 ? length / PAGE / 2 * PAGE : length, 1);
	if (hook != NULL && hook->armed != NULL) {
		hook->armed(hook->user);
	}
	return error;
}

static void disarm(const struct range *range, uint64_t start, uint64_t length)
{
	const struct fake_hooks *hook = atomic_load(&hooks);
	if (hook != NULL && hook->disarming != NULL) {
		hook->disarming(hook->user, start, length);
	}
	set_marks(range, start, length, 0);
	wake(range->uffd, start, length);
}

static int fake_uffd_writeprotect(int fd, uint64_t start, uint64_t length, uint64_t mode)
{
	struct range *range = range_at(start);
	if (range == NULL || atomic_load(&range->uffd->fd) != fd || start + length > atomic_load(&range->end)) {
		return -ENOENT;
	}
	if (must_come_again(range->uffd)) {
		return -EAGAIN;
	}
	if ((mode & UFFDIO_WRITEPROTECT_MODE_WP) != 0) {
		return arm(range, start, length);
	}
	disarm(range, start, length);
	return 0;
}

static int fake_uffd_wake(int fd, uint64_t start, uint64_t length)
{
	struct uffd *uffd = uffd_of(fd);
	if (uffd == NULL) {
		return -EBADF;
	}
	wake(uffd, start, length);
	return 0;
}

/* --- messages --------------------------------------------------------------------------------------------------- */

static size_t take_unread(struct waiter *list, struct uffd_msg *messages, size_t room)
{
	size_t count = 0;
	for (struct waiter *waiter = list; waiter != NULL && count < room; waiter = waiter->next) {
		if (!waiter->read && !waiter->woken) {
			waiter->read = 1;
			messages[count++] = waiter->message;
		}
	}
	return count;
}

static ssize_t fake_uffd_read(int fd, struct uffd_msg *messages, size_t room)
{
	const struct fake_hooks *hook = atomic_load(&hooks);
	if (hook != NULL && hook->reading != NULL) {
		hook->reading(hook->user);
	}
	struct uffd *uffd = uffd_of(fd);
	if (uffd == NULL) {
		return -EBADF;
	}
	pthread_mutex_lock(&table_lock);
	size_t count = take_unread(uffd->faults, messages, room);
	count += take_unread(uffd->events, messages + count, room - count);
	if (count < room) {
		make_unreadable(uffd);
	}
	pthread_cond_broadcast(&table_moved);
	pthread_mutex_unlock(&table_lock);
	if (count > 0 && hook != NULL && hook->has_read != NULL) {
		hook->has_read(hook->user);
	}
	return count > 0 ? (ssize_t)(count * sizeof(messages[0])) : -EAGAIN;
}

/* A thread that changes mappings tells so, and goes on when its event was read. */
static void tell(struct uffd *uffd, struct waiter *waiter)
{
	atomic_fetch_add(&uffd->changing, 1);
	pthread_mutex_lock(&table_lock);
	append(&uffd->events, waiter);
	make_readable(uffd);
	while (!waiter->read && atomic_load(&uffd->fd) >= 0) {
		pthread_cond_wait(&table_moved, &table_lock);
	}
	unlink_waiter(&uffd->events, waiter);
	pthread_mutex_unlock(&table_lock);
	atomic_fetch_sub(&uffd->changing, 1);
}

static void sleep_in_fault(struct uffd *uffd, struct page *page, uint64_t address)
{
	struct waiter waiter = {.message = {.event = UFFD_EVENT_PAGEFAULT}};
	waiter.message.arg.pagefault.address = address;
	waiter.message.arg.pagefault.flags = UFFD_PAGEFAULT_FLAG_WP | UFFD_PAGEFAULT_FLAG_WRITE;
	pthread_mutex_lock(&table_lock);
	atomic_fetch_add(&uffd->waiting, 1);
	append(&uffd->faults, &waiter);
	make_readable(uffd);
	pthread_mutex_unlock(&table_lock);
	int armed = page_is_armed(page);
	pthread_mutex_lock(&table_lock);
	while (armed && !waiter.woken) {
		pthread_cond_wait(&table_moved, &table_lock);
	}
	unlink_waiter(&uffd->faults, &waiter);
	atomic_fetch_sub(&uffd->waiting, 1);
	pthread_mutex_unlock(&table_lock);
}

unsigned fake_asleep(void)
{
	unsigned asleep = 0;
	pthread_mutex_lock(&table_lock);
	for (unsigned i = 0; i < atomic_load(&uffd_count); i++) {
		for (const struct waiter *waiter = uffds[i].faults; waiter != NULL; waiter = waiter->next) {
			asleep += waiter->read && !waiter->woken;
		}
	}
	pthread_mutex_unlock(&table_lock);
	return asleep;
}

/* --- memory ----------------------------------------------------------------------------------------------------- */

/* The kernel's own answer to a store: a signal that says where. A process may send itself any. */
static void raise_sigbus(uint64_t address)
{
	siginfo_t info;
	memset(&info, 0, sizeof(info));
	info.si_signo = SIGBUS;
	info.si_code = BUS_ADRERR;
	info.si_addr = (void *)(uintptr_t)address;
	must(syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), SIGBUS, &info) == 0);
}

static void fault(const struct range *range, struct page *page, uint64_t address)
{
	const struct fake_hooks *hook = atomic_load(&hooks);
	int inline_delivery = (range->uffd->features & UFFD_FEATURE_SIGBUS) != 0;
	if (hook != NULL && hook->faulting != NULL) {
		hook->faulting(hook->user);
	}
	if (inline_delivery) {
		raise_sigbus(address);
	} else {
		sleep_in_fault(range->uffd, page, address);
	}
}

/* 1: stored; 0: it faulted, come again. */
static int try_store(const struct range *range, void *to, const void *from, size_t length)
{
	uint64_t address = (uint64_t)(uintptr_t)to;
	struct page *page = page_at(range, address);
	pthread_mutex_lock(&page->lock);
	int armed = page->armed;
	if (!armed) {
		memcpy(to, from, length);
	}
	pthread_mutex_unlock(&page->lock);
	if (armed) {
		fault(range, page, address);
	}
	return !armed;
}

static size_t left_in_page(const void *address, size_t length)
{
	size_t left = PAGE - (uintptr_t)address % PAGE;
	return length < left ? length : left;
}

static void store_in_page(void *to, const void *from, size_t length)
{
	for (;;) {
		const struct range *range = range_at((uint64_t)(uintptr_t)to);
		if (range == NULL) {
			memcpy(to, from, length);
			return;
		}
		if (try_store(range, to, from, length)) {
			return;
		}
	}
}

void fake_write(void *to, const void *from, size_t length)
{
	uint8_t *at = to;
	const uint8_t *bytes = from;
	while (length > 0) {
		size_t part = left_in_page(at, length);
		store_in_page(at, bytes, part);
		at += part;
		bytes += part;
		length -= part;
	}
}

void fake_read(const void *from, void *to, size_t length)
{
	const struct range *range = range_at((uint64_t)(uintptr_t)from);
	must(left_in_page(from, length) == length);
	if (range == NULL) {
		memcpy(to, from, length);
		return;
	}
	struct page *page = page_at(range, (uint64_t)(uintptr_t)from);
	pthread_mutex_lock(&page->lock);
	memcpy(to, from, length);
	pthread_mutex_unlock(&page->lock);
}

/* The kernel's own store: it cannot be resolved by a signal. */
static int fake_try_write(void *address)
{
	return fake_is_armed(address) ? -EFAULT : kernel_real.try_write(address);
}

static ssize_t fake_read_self(void *buffer, const void *address, size_t length)
{
	if (range_at((uint64_t)(uintptr_t)address) == NULL) {
		return kernel_real.read_self(buffer, address, length);
	}
	memcpy(buffer, address, length); /* no page lock: whoever reads here must have a page that nobody can write */
	return (ssize_t)length;
}

/* Content and mark of anonymous memory go. */
static void discard(const struct range *range, void *address, size_t length)
{
	for (uint64_t at = (uint64_t)(uintptr_t)address; at < (uint64_t)(uintptr_t)address + length; at += PAGE) {
		struct page *page = page_at(range, at);
		pthread_mutex_lock(&page->lock);
		page->armed = 0;
		memset((void *)(uintptr_t)at, 0, PAGE);
		pthread_mutex_unlock(&page->lock);
	}
}

static int fake_madvise(void *address, size_t length, int advice)
{
	const struct range *range = range_at((uint64_t)(uintptr_t)address);
	if (range == NULL || advice != MADV_DONTNEED) {
		return kernel_real.madvise(address, length, advice);
	}
	if ((range->uffd->features & UFFD_FEATURE_EVENT_REMOVE) != 0) {
		struct waiter waiter = {.message = {.event = UFFD_EVENT_REMOVE}};
		waiter.message.arg.remove.start = (uint64_t)(uintptr_t)address;
		waiter.message.arg.remove.end = (uint64_t)(uintptr_t)address + length;
		tell(range->uffd, &waiter);
	}
	if (!range->anonymous) {
		return kernel_real.madvise(address, length, advice);
	}
	discard(range, address, length);
	return 0;
}

/* What is unmapped is not registered any more. */
static int fake_munmap(void *address, size_t length)
{
	struct range *range = range_at((uint64_t)(uintptr_t)address);
	if (range != NULL) {
		must(atomic_load(&range->end) == (uint64_t)(uintptr_t)address + length);
		forget_range(range);
	}
	return kernel_real.munmap(address, length);
}

static void *fake_mremap(void *address, size_t old_length, size_t new_length, int flags, void *target, int *error)
{
	struct range *range = range_at((uint64_t)(uintptr_t)address);
	void *moved = kernel_real.mremap(address, old_length, new_length, flags, target, error);
	if (moved == NULL || range == NULL) {
		return moved;
	}
	must(atomic_load(&range->start) == (uint64_t)(uintptr_t)address && old_length == new_length);
	atomic_store(&range->end, 0);
	atomic_store(&range->start, (uint64_t)(uintptr_t)moved);
	atomic_store(&range->end, (uint64_t)(uintptr_t)moved + new_length);
	if ((range->uffd->features & UFFD_FEATURE_EVENT_REMAP) != 0) {
		struct waiter waiter = {.message = {.event = UFFD_EVENT_REMAP}};
		waiter.message.arg.remap.from = (uint64_t)(uintptr_t)address;
		waiter.message.arg.remap.to = (uint64_t)(uintptr_t)moved;
		waiter.message.arg.remap.len = old_length;
		tell(range->uffd, &waiter);
	}
	return moved;
}

/* --- the table -------------------------------------------------------------------------------------------------- */

static struct kernel_ops table;
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

static void table_first(void)
{
	table = kernel_real;
	table.uffd_open_syscall = fake_uffd_open;
	table.uffd_open_device = fake_no_device;
	table.uffd_api = fake_uffd_api;
	table.uffd_register = fake_uffd_register;
	table.uffd_unregister = fake_uffd_unregister;
	table.uffd_writeprotect = fake_uffd_writeprotect;
	table.uffd_wake = fake_uffd_wake;
	table.uffd_read = fake_uffd_read;
	table.open = fake_open;
	table.pread = fake_pread;
	table.close = fake_close;
	table.try_write = fake_try_write;
	table.read_self = fake_read_self;
	table.madvise = fake_madvise;
	table.munmap = fake_munmap;
	table.mremap = fake_mremap;
}

const struct kernel_ops *fake_kernel(void)
{
	must(pthread_once(&table_once, table_first) == 0);
	return &table;
}
