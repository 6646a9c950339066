/* SPDX-License-Identifier: MIT */
/* Memory as user code and the kernel see it, and the table of operations: see fake.h and fake_private.h. */
#include "fake.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "fake_private.h"
#include "support.h"

#define FILES_MAX 4096

static _Atomic uint8_t pagemaps[FILES_MAX]; /* by descriptor: 1 where it is one */
static _Atomic(const struct fake_hooks *) hooks;
static _Atomic(const struct fake_kind *) kind;
static _Atomic unsigned again_every;
static _Atomic unsigned changes;
static _Atomic int again_until_sleep;
static _Atomic int arming_error;
static _Atomic int disarming_error;
static _Atomic unsigned refusals;

/* --- what tests set --------------------------------------------------------------------------------------------- */

void fake_hook(const struct fake_hooks *wanted)
{
	atomic_store(&hooks, wanted);
}

const struct fake_hooks *fake_hooks_now(void)
{
	static const struct fake_hooks none = {0};
	const struct fake_hooks *now = atomic_load(&hooks);
	return now != NULL ? now : &none;
}

void fake_be(const struct fake_kind *wanted)
{
	atomic_store(&kind, wanted);
}

const struct fake_kind *fake_kind_now(void)
{
	static const struct fake_kind full = {0};
	const struct fake_kind *now = atomic_load(&kind);
	return now != NULL ? now : &full;
}

void fake_again_every(unsigned n)
{
	atomic_store(&again_every, n);
}

void fake_again_until_sleep(void)
{
	atomic_store(&again_until_sleep, 1);
}

static int fake_futex_wait(const uint32_t *word, uint32_t expected, uint64_t timeout_ns)
{
	const struct fake_hooks *hook = fake_hooks_now();
	if (hook->sleeping != NULL) {
		hook->sleeping(hook->user);
	}
	atomic_store(&again_until_sleep, 0);
	return kernel_real.futex_wait(word, expected, timeout_ns);
}

int fake_must_come_again(const struct uffd *uffd)
{
	unsigned every = atomic_load(&again_every);
	return atomic_load(&uffd->changing) > 0 || atomic_load(&again_until_sleep) != 0 ||
	       (every != 0 && (atomic_fetch_add(&changes, 1) + 1) % every == 0);
}

void fake_refuse_arming(int error)
{
	atomic_store(&arming_error, error);
}

void fake_refuse_disarming(int error)
{
	atomic_store(&disarming_error, error);
}

int fake_disarming_error(void)
{
	int error = atomic_load(&disarming_error);
	atomic_fetch_add(&refusals, error != 0);
	return error;
}

unsigned fake_refusals(void)
{
	return atomic_load(&refusals);
}

int fake_arming_error(void)
{
	return atomic_load(&arming_error);
}

/* --- files ------------------------------------------------------------------------------------------------------ */

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

/* The real page map knows no entries of ours: they are put in. */
static uint64_t played_entry(uint64_t address, uint64_t entry)
{
	const struct range *range = table_range(address);
	entry &= ~PAGEMAP_UFFD_WP;
	if (range == NULL) {
		return entry;
	}
	struct page *page = table_page(range, address);
	pthread_mutex_lock(&page->lock);
	if (page->armed) {
		entry |= PAGEMAP_UFFD_WP;
	}
	if (page->empty) {
		entry &= ~(PAGEMAP_PRESENT | PAGEMAP_SWAPPED);
	}
	pthread_mutex_unlock(&page->lock);
	return entry;
}

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
		entry = played_entry((offset / sizeof(entry) + i) * PAGE, entry);
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
	if (uffd != NULL) {
		table_forget(uffd, 0, UINT64_MAX);
		uffd_close(uffd);
	}
	return kernel_real.close(fd);
}

static void punch_page(void *user, uint64_t offset)
{
	int fd = *(const int *)user;
	must(kernel_real.fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, PAGE) == 0);
}

/* Page by page, so that no store lands between the hole and the emptied entry. */
static int fake_fallocate(int fd, int mode, uint64_t offset, uint64_t length)
{
	struct stat file;
	int seals = kernel_real.get_seals(fd);
	int forbidden = seals > 0 && (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) != 0;
	if ((mode & FALLOC_FL_PUNCH_HOLE) != 0 && !forbidden && fstat(fd, &file) == 0) {
		table_lose_file(file.st_dev, file.st_ino, offset, length, punch_page, &fd);
	}
	return kernel_real.fallocate(fd, mode, offset, length);
}

/* --- faults ----------------------------------------------------------------------------------------------------- */

/* Intel SDM volume 3, 4.7: bit 0 an entry was present, bit 1 a write, bit 2 by user code. */
static uint64_t processor_word(enum stop stop, int write)
{
	int present = stop == STOP_WP || stop == STOP_READ_ONLY;
	return 4u | (write ? 2u : 0u) | (present ? 1u : 0u);
}

static void fill_context(ucontext_t *context, enum stop stop, int write)
{
	memset(context, 0, sizeof(*context)); /* of it the library reads these: musl has no getcontext() */
	must(pthread_sigmask(SIG_BLOCK, NULL, &context->uc_sigmask) == 0);
#if defined(__x86_64__)
	context->uc_mcontext.gregs[REG_TRAPNO] = 14;
	context->uc_mcontext.gregs[REG_ERR] = (greg_t)processor_word(stop, write);
#else
	(void)stop;
	(void)write;
	(void)processor_word;
#endif
}

static siginfo_t signal_at(int number, uint64_t address)
{
	siginfo_t info;
	memset(&info, 0, sizeof(info));
	info.si_signo = number;
	info.si_code = number == SIGBUS ? BUS_ADRERR : SEGV_ACCERR;
	info.si_addr = (void *)(uintptr_t)address;
	return info;
}

/* The handler of the process, called as the kernel would. Without one the signal is real, and ends it. */
static void signal_here(int number, uint64_t address, enum stop stop, int write)
{
	siginfo_t info = signal_at(number, address);
	struct sigaction action;
	ucontext_t context;
	must(sigaction(number, NULL, &action) == 0);
	if ((action.sa_flags & SA_SIGINFO) == 0) {
		must(syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), number, &info) == 0);
		return;
	}
	fill_context(&context, stop, write);
	sigaddset(&action.sa_mask, number);
	must(pthread_sigmask(SIG_BLOCK, &action.sa_mask, &context.uc_sigmask) == 0);
	action.sa_sigaction(number, &info, &context);
	must(pthread_sigmask(SIG_SETMASK, &context.uc_sigmask, NULL) == 0);
}

static void fault(const struct range *range, struct page *page, uint64_t address, enum stop stop, int write)
{
	const struct fake_hooks *hook = fake_hooks_now();
	if (hook->faulting != NULL) {
		hook->faulting(hook->user);
	}
	if (stop == STOP_READ_ONLY) {
		signal_here(SIGSEGV, address, stop, write);
	} else if ((range->uffd->features & UFFD_FEATURE_SIGBUS) != 0) {
		signal_here(SIGBUS, address, stop, write);
	} else {
		uffd_sleep(range, page, address, stop, write);
	}
}

/* --- user code -------------------------------------------------------------------------------------------------- */

/* An access to one page. */
struct access {
	uint8_t *memory;
	uint8_t *bytes; /* that are stored there, or loaded from there */
	size_t length;
	int write;
};

static void move_bytes(const struct access *access)
{
	if (access->write) {
		memcpy(access->memory, access->bytes, access->length);
	} else {
		memcpy(access->bytes, access->memory, access->length);
	}
}

/* 1: done; 0: it faulted, come again. */
static int try_access(const struct access *access)
{
	uint64_t address = (uint64_t)(uintptr_t)access->memory;
	const struct range *range = table_range(address);
	if (range == NULL) {
		move_bytes(access);
		return 1;
	}
	struct page *page = table_page(range, address);
	pthread_mutex_lock(&page->lock);
	enum stop stop = table_stop(range, page, access->write);
	if (stop == STOP_NOT) {
		table_touch(page);
		move_bytes(access);
	}
	pthread_mutex_unlock(&page->lock);
	if (stop != STOP_NOT) {
		fault(range, page, address, stop, access->write);
	}
	return stop == STOP_NOT;
}

static size_t left_in_page(const void *address, size_t length)
{
	size_t left = PAGE - (uintptr_t)address % PAGE;
	return length < left ? length : left;
}

static void access_memory(struct access access, size_t length)
{
	while (length > 0) {
		access.length = left_in_page(access.memory, length);
		while (!try_access(&access)) {
		}
		access.memory += access.length;
		access.bytes += access.length;
		length -= access.length;
	}
}

void fake_write(void *to, const void *from, size_t length)
{
	/* The bytes of a store are only read. */
	access_memory((struct access){.memory = to, .bytes = (uint8_t *)(uintptr_t)from, .write = 1}, length);
}

void fake_read(const void *from, void *to, size_t length)
{
	access_memory((struct access){.memory = (uint8_t *)(uintptr_t)from, .bytes = to}, length);
}

/* --- the kernel's own accesses ---------------------------------------------------------------------------------- */

/* It cannot be resolved by a signal. */
static int fake_try_write(void *address)
{
	const struct range *range = table_range((uint64_t)(uintptr_t)address);
	if (range == NULL) {
		return kernel_real.try_write(address);
	}
	struct page *page = table_page(range, (uint64_t)(uintptr_t)address);
	pthread_mutex_lock(&page->lock);
	enum stop stop = table_stop(range, page, 1);
	if (stop == STOP_NOT) {
		table_touch(page);
	}
	pthread_mutex_unlock(&page->lock);
	return stop == STOP_NOT ? kernel_real.try_write(address) : -EFAULT;
}

/* 1: the entry is there now; 0: the read cannot be. */
static int kernel_may_read(const struct range *range, uint64_t address)
{
	struct page *page = table_page(range, address);
	for (;;) {
		pthread_mutex_lock(&page->lock);
		enum stop stop = table_stop(range, page, 0);
		if (stop == STOP_NOT) {
			table_touch(page);
		}
		pthread_mutex_unlock(&page->lock);
		if (stop == STOP_NOT) {
			return 1;
		}
		if ((range->uffd->features & UFFD_FEATURE_SIGBUS) != 0) {
			return 0;
		}
		uffd_sleep(range, page, address, stop, 0);
	}
}

static ssize_t fake_read_self(void *buffer, const void *address, size_t length)
{
	uint64_t start = (uint64_t)(uintptr_t)address;
	const struct range *range = table_range(start);
	if (range == NULL) {
		return kernel_real.read_self(buffer, address, length);
	}
	for (uint64_t at = start / PAGE * PAGE; at < start + length; at += PAGE) {
		if (!kernel_may_read(range, at)) {
			return -EFAULT;
		}
	}
	memcpy(buffer, address,
	       length); /* no page lock: a caller that reads here must have a page that no thread can write */
	return (ssize_t)length;
}

static int fake_mincore(void *address, size_t length, unsigned char *pages)
{
	int error = kernel_real.mincore(address, length, pages);
	uint64_t start = (uint64_t)(uintptr_t)address;
	const struct range *range = error ? NULL : table_range(start);
	if (range == NULL || (range->modes & ~(uint64_t)UFFDIO_REGISTER_MODE_WP) == 0) {
		return error;
	}
	for (uint64_t i = 0; i * PAGE < length && start + i * PAGE < atomic_load(&range->end); i++) {
		struct page *page = table_page(range, start + i * PAGE);
		pthread_mutex_lock(&page->lock);
		pages[i] = page->content && !page->swapped && !(range->anonymous && page->empty);
		pthread_mutex_unlock(&page->lock);
	}
	return 0;
}

/* --- mappings --------------------------------------------------------------------------------------------------- */

static void clear_page(void *user, uint64_t address)
{
	(void)user;
	memset((void *)(uintptr_t)address, 0, PAGE);
}

static void report_removal(const struct range *range, uint64_t start, uint64_t length)
{
	if (range->uffd == NULL || (range->uffd->features & UFFD_FEATURE_EVENT_REMOVE) == 0) {
		return;
	}
	struct waiter waiter = {.message = {.event = UFFD_EVENT_REMOVE}};
	waiter.message.arg.remove.start = start;
	waiter.message.arg.remove.end = start + length;
	uffd_report(range->uffd, &waiter);
}

/* Anonymous memory keeps its wp bit and its place when it is swapped out; for a file only the entry goes. */
static int swap_out(const struct range *range, void *address, size_t length)
{
	uint64_t start = (uint64_t)(uintptr_t)address;
	if (range->anonymous) {
		return kernel_real.madvise(address, length, MADV_PAGEOUT);
	}
	table_zap(range, start, length, 1);
	return kernel_real.madvise(address, length, MADV_PAGEOUT);
}

static int discard(const struct range *range, void *address, size_t length)
{
	uint64_t start = (uint64_t)(uintptr_t)address;
	report_removal(range, start, length);
	if (range->anonymous) {
		table_lose(range, start, length, clear_page, NULL);
		return 0;
	}
	table_zap(range, start, length, 0);
	return kernel_real.madvise(address, length, MADV_DONTNEED);
}

static int is_read_only(const struct range *range, const void *address)
{
	struct page *page = table_page(range, (uint64_t)(uintptr_t)address);
	pthread_mutex_lock(&page->lock);
	int read_only = page->read_only;
	pthread_mutex_unlock(&page->lock);
	return read_only;
}

static int fake_madvise(void *address, size_t length, int advice)
{
	const struct range *range = table_range((uint64_t)(uintptr_t)address);
	if (range != NULL && advice == MADV_POPULATE_WRITE && is_read_only(range, address)) {
		return -EINVAL;
	}
	if (range == NULL || range->uffd == NULL || (advice != MADV_DONTNEED && advice != MADV_PAGEOUT)) {
		return kernel_real.madvise(address, length, advice);
	}
	return advice == MADV_DONTNEED ? discard(range, address, length) : swap_out(range, address, length);
}

/* What is unmapped is not registered any more. */
static int fake_munmap(void *address, size_t length)
{
	table_forget(NULL, (uint64_t)(uintptr_t)address, (uint64_t)(uintptr_t)address + length);
	must(table_range((uint64_t)(uintptr_t)address) == NULL);
	return kernel_real.munmap(address, length);
}

static void report_move(const struct range *range, uint64_t from, uint64_t to, uint64_t length)
{
	if ((range->uffd->features & UFFD_FEATURE_EVENT_REMAP) == 0) {
		return;
	}
	struct waiter waiter = {.message = {.event = UFFD_EVENT_REMAP}};
	waiter.message.arg.remap.from = from;
	waiter.message.arg.remap.to = to;
	waiter.message.arg.remap.len = length;
	uffd_report(range->uffd, &waiter);
}

static void *fake_mremap(void *address, size_t old_length, size_t new_length, int flags, void *target, int *error)
{
	struct range *range = table_range((uint64_t)(uintptr_t)address);
	void *moved = kernel_real.mremap(address, old_length, new_length, flags, target, error);
	if (moved == NULL || range == NULL) {
		return moved;
	}
	must(range->uffd != NULL);
	must(atomic_load(&range->start) == (uint64_t)(uintptr_t)address && old_length == new_length);
	atomic_store(&range->end, 0);
	atomic_store(&range->start, (uint64_t)(uintptr_t)moved);
	atomic_store(&range->end, (uint64_t)(uintptr_t)moved + new_length);
	report_move(range, (uint64_t)(uintptr_t)address, (uint64_t)(uintptr_t)moved, old_length);
	return moved;
}

/* --- the table -------------------------------------------------------------------------------------------------- */

static struct kernel_ops table;
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

static void table_first(void)
{
	table = kernel_real;
	table.futex_wait = fake_futex_wait;
	table.uffd_open_syscall = uffd_new;
	table.uffd_open_device = uffd_no_device;
	table.uffd_api = uffd_negotiate;
	table.uffd_register = table_register;
	table.uffd_unregister = table_unregister;
	table.uffd_writeprotect = table_writeprotect;
	table.uffd_copy = table_copy;
	table.uffd_zeropage = table_zeropage;
	table.uffd_continue = table_continue;
	table.uffd_wake = uffd_wake_range;
	table.uffd_read = uffd_read_messages;
	table.uffd_read_shared = uffd_read_messages;
	table.open = fake_open;
	table.pread = fake_pread;
	table.close = fake_close;
	table.fallocate = fake_fallocate;
	table.try_write = fake_try_write;
	table.read_self = fake_read_self;
	table.mincore = fake_mincore;
	table.madvise = fake_madvise;
	table.mprotect = table_mprotect;
	table.munmap = fake_munmap;
	table.mremap = fake_mremap;
}

const struct kernel_ops *fake_kernel(void)
{
	must(pthread_once(&table_once, table_first) == 0);
	return &table;
}
