/* SPDX-License-Identifier: MIT */
/*
 * The page table of the fake kernel: see fake.h and fake_private.h.
 *
 * Only ranges that are registered for missing pages or minor faults follow which entries are empty, beginning with what
 * the real page table says when they are registered; from then on their memory must be touched through fake.h only.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "fake_private.h"
#include "kernel/maps.h"
#include "support.h"

#define RANGES_MAX 16384
#define MODES_OF_EMPTY ((uint64_t)UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR)

static struct range ranges[RANGES_MAX];
static _Atomic unsigned range_count;
static pthread_mutex_t append_lock = PTHREAD_MUTEX_INITIALIZER;

/* --- looking ---------------------------------------------------------------------------------------------------- */

struct range *table_range(uint64_t address)
{
	for (unsigned i = atomic_load(&range_count); i > 0; i--) {
		struct range *range = &ranges[i - 1];
		if (address >= atomic_load(&range->start) && address < atomic_load(&range->end)) {
			return range;
		}
	}
	return NULL;
}

struct page *table_page(const struct range *range, uint64_t address)
{
	return &range->pages[(address - atomic_load(&range->start)) / PAGE];
}

static int follows_empty(const struct range *range)
{
	return (range->modes & MODES_OF_EMPTY) != 0;
}

enum stop table_stop(const struct range *range, const struct page *page, int write)
{
	if (write && page->read_only) {
		return STOP_READ_ONLY;
	}
	if (page->resume) {
		return STOP_NOT;
	}
	if (page->empty && page->content && (range->modes & UFFDIO_REGISTER_MODE_MINOR)) {
		return STOP_MINOR;
	}
	if (page->empty && !page->content && (range->modes & UFFDIO_REGISTER_MODE_MISSING)) {
		return STOP_MISSING;
	}
	return write && page->armed ? STOP_WP : STOP_NOT;
}

void table_touch(struct page *page)
{
	page->empty = 0;
	page->content = 1;
	page->swapped = 0;
}

enum stop table_look(const struct range *range, struct page *page, int write)
{
	pthread_mutex_lock(&page->lock);
	enum stop stop = table_stop(range, page, write);
	pthread_mutex_unlock(&page->lock);
	return stop;
}

int fake_is_armed(const void *address)
{
	const struct range *range = table_range((uint64_t)(uintptr_t)address);
	if (range == NULL) {
		return 0;
	}
	struct page *page = table_page(range, (uint64_t)(uintptr_t)address);
	pthread_mutex_lock(&page->lock);
	int armed = page->armed || page->read_only;
	pthread_mutex_unlock(&page->lock);
	return armed;
}

int fake_is_empty(const void *address)
{
	const struct range *range = table_range((uint64_t)(uintptr_t)address);
	if (range == NULL) {
		return 0;
	}
	enum stop stop = table_look(range, table_page(range, (uint64_t)(uintptr_t)address), 0);
	return stop == STOP_MISSING || stop == STOP_MINOR;
}

void fake_strip(void *address)
{
	const struct range *range = table_range((uint64_t)(uintptr_t)address);
	must(range != NULL);
	struct page *page = table_page(range, (uint64_t)(uintptr_t)address);
	pthread_mutex_lock(&page->lock);
	page->armed = 0;
	pthread_mutex_unlock(&page->lock);
}

/* --- ranges ----------------------------------------------------------------------------------------------------- */

static void *allocate(uint64_t count, size_t size)
{
	void *memory = calloc(count, size);
	if (memory == NULL) {
		abort();
	}
	return memory;
}

static void read_entries(uint64_t start, uint64_t length, uint64_t *entries)
{
	int fd = kernel_real.open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC, 0);
	size_t bytes = length / PAGE * sizeof(*entries);
	must(fd >= 0);
	must(kernel_real.pread(fd, entries, bytes, start / PAGE * sizeof(*entries)) == (ssize_t)bytes);
	kernel_real.close(fd);
}

/* What the real page table and the real page cache hold, now. */
static void begin_entries(const struct range *range, uint64_t start, uint64_t length)
{
	uint64_t count = length / PAGE;
	uint64_t *entries = allocate(count, sizeof(*entries));
	unsigned char *cached = allocate(count, 1);
	read_entries(start, length, entries);
	must(range->anonymous || kernel_real.mincore((void *)(uintptr_t)start, length, cached) == 0);
	for (uint64_t i = 0; i < count; i++) {
		struct page *page = &range->pages[i];
		page->empty = (entries[i] & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED)) == 0;
		page->content = !page->empty || (cached[i] & 1) != 0;
	}
	free(entries);
	free(cached);
}

static struct page *new_pages(uint64_t count)
{
	struct page *pages = allocate(count, sizeof(*pages));
	for (uint64_t i = 0; i < count; i++) {
		must(pthread_mutex_init(&pages[i].lock, NULL) == 0);
		pages[i].content = 1;
	}
	return pages;
}

static void add_range(struct uffd *uffd, uint64_t start, uint64_t length, uint64_t modes, const struct maps_range *map)
{
	pthread_mutex_lock(&append_lock);
	unsigned at = atomic_load(&range_count);
	must(at < RANGES_MAX);
	struct range *range = &ranges[at];
	range->uffd = uffd;
	range->modes = modes;
	range->pages = new_pages(length / PAGE);
	range->anonymous = map->inode == 0;
	range->inode = map->inode;
	range->device = makedev(map->device_major, map->device_minor);
	range->offset = map->offset;
	if (follows_empty(range)) {
		begin_entries(range, start, length);
	}
	atomic_store(&range->start, start);
	atomic_store(&range->end, start + length);
	atomic_store(&range_count, at + 1);
	pthread_mutex_unlock(&append_lock);
}

/* A range that was only protected makes room for one that is registered. */
static int make_room(uint64_t start, uint64_t length)
{
	struct range *there = table_range(start);
	if (there == NULL) {
		return 0;
	}
	if (there->uffd != NULL) {
		return -EBUSY;
	}
	table_forget(NULL, start, start + length);
	return 0;
}

int table_register(int fd, uint64_t start, uint64_t length, uint64_t modes)
{
	struct maps_range map;
	must(maps_look(start, length, &map) == 0);
	if ((modes & fake_kind_now()->refused_modes) != 0 ||
	    (map.inode == 0 && (modes & UFFDIO_REGISTER_MODE_MINOR) != 0)) {
		return -EINVAL;
	}
	int error = make_room(start, length);
	if (error == 0) {
		add_range(uffd_of(fd), start, length, modes, &map);
	}
	return error;
}

static void resume(const struct range *range, uint64_t start, uint64_t length)
{
	for (uint64_t address = start; address < start + length; address += PAGE) {
		struct page *page = table_page(range, address);
		pthread_mutex_lock(&page->lock);
		page->armed = 0;
		page->resume = 1;
		pthread_mutex_unlock(&page->lock);
	}
}

static void forget(struct range *range)
{
	uint64_t start = atomic_load(&range->start);
	uint64_t length = atomic_load(&range->end) - start;
	resume(range, start, length);
	atomic_store(&range->end, 0);
	if (range->uffd != NULL) {
		uffd_wake(range->uffd, start, length);
	}
}

void table_forget(const struct uffd *uffd, uint64_t start, uint64_t end)
{
	for (unsigned i = 0; i < atomic_load(&range_count); i++) {
		struct range *range = &ranges[i];
		uint64_t from = atomic_load(&range->start);
		uint64_t to = atomic_load(&range->end);
		if (to != 0 && from >= start && to <= end && (uffd == NULL || range->uffd == uffd)) {
			forget(range);
		}
	}
}

/* The range of this uffd that holds [start, start + length), or NULL. */
static struct range *range_of(int fd, uint64_t start, uint64_t length)
{
	struct range *range = table_range(start);
	if (range == NULL || range->uffd == NULL || atomic_load(&range->uffd->fd) != fd ||
	    start + length > atomic_load(&range->end)) {
		return NULL;
	}
	return range;
}

int table_unregister(int fd, uint64_t start, uint64_t length)
{
	struct range *range = range_of(fd, start, length);
	if (range == NULL) {
		return -EINVAL;
	}
	if (start == atomic_load(&range->start) && start + length == atomic_load(&range->end)) {
		forget(range);
	} else {
		resume(range, start, length);
		uffd_wake(range->uffd, start, length);
	}
	return 0;
}

/* --- emptying --------------------------------------------------------------------------------------------------- */

/* Under the page's lock. */
static void empty_entry(const struct range *range, struct page *page)
{
	page->empty = follows_empty(range);
	if (fake_kind_now()->no_markers) {
		page->armed = 0;
	}
}

void table_zap(const struct range *range, uint64_t start, uint64_t length, int swapped)
{
	for (uint64_t address = start; address < start + length; address += PAGE) {
		struct page *page = table_page(range, address);
		pthread_mutex_lock(&page->lock);
		empty_entry(range, page);
		page->swapped = swapped && page->content;
		pthread_mutex_unlock(&page->lock);
	}
}

void table_lose(const struct range *range, uint64_t start, uint64_t length, void (*each)(void *user, uint64_t address),
                void *user)
{
	for (uint64_t address = start; address < start + length; address += PAGE) {
		struct page *page = table_page(range, address);
		pthread_mutex_lock(&page->lock);
		empty_entry(range, page);
		page->armed = page->armed && !range->anonymous;
		page->content = !follows_empty(range);
		page->swapped = 0;
		each(user, address);
		pthread_mutex_unlock(&page->lock);
	}
}

/* The part of [offset, offset + length) of a file that a range maps, as offsets. 1: there is one. */
static int mapped_part(const struct range *range, uint64_t offset, uint64_t length, uint64_t *from, uint64_t *to)
{
	uint64_t end = range->offset + atomic_load(&range->end) - atomic_load(&range->start);
	*from = offset > range->offset ? offset : range->offset;
	*to = offset + length < end ? offset + length : end;
	return *from < *to;
}

static int maps_it(const struct range *range, dev_t device, uint64_t inode)
{
	return atomic_load(&range->end) != 0 && !range->anonymous && range->inode == inode && range->device == device;
}

/* From the address in a range to the offset in its file. */
struct loss {
	const struct range *range;
	void (*each)(void *user, uint64_t offset);
	void *user;
};

static void lose_at(void *user, uint64_t address)
{
	const struct loss *loss = user;
	loss->each(loss->user, address - atomic_load(&loss->range->start) + loss->range->offset);
}

void table_lose_file(dev_t device, uint64_t inode, uint64_t offset, uint64_t length,
                     void (*each)(void *user, uint64_t offset), void *user)
{
	for (unsigned i = 0; i < atomic_load(&range_count); i++) {
		struct loss loss = {&ranges[i], each, user};
		uint64_t from;
		uint64_t to;
		if (maps_it(&ranges[i], device, inode) && mapped_part(&ranges[i], offset, length, &from, &to)) {
			uint64_t start = atomic_load(&ranges[i].start) + from - ranges[i].offset;
			table_lose(&ranges[i], start, to - from, lose_at, &loss);
		}
	}
}

/* --- protecting ------------------------------------------------------------------------------------------------- */

/* An entry that is not followed is what the real page table says. */
static int has_entry(const struct range *range, const struct page *page, uint64_t address)
{
	uint64_t entry;
	if (follows_empty(range)) {
		return !page->empty;
	}
	read_entries(address, PAGE, &entry);
	return (entry & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED)) != 0;
}

static int arms_empty_entries(const struct range *range)
{
	int granted = !range->anonymous || (range->uffd->features & UFFD_FEATURE_WP_UNPOPULATED) != 0;
	return granted && !fake_kind_now()->no_markers;
}

static void set_wp_bits(const struct range *range, uint64_t start, uint64_t length, int armed)
{
	int wp_on_empty = arms_empty_entries(range);
	for (uint64_t address = start; address < start + length; address += PAGE) {
		struct page *page = table_page(range, address);
		pthread_mutex_lock(&page->lock);
		page->armed = armed && (wp_on_empty || has_entry(range, page, address));
		pthread_mutex_unlock(&page->lock);
	}
}

static int arm(const struct range *range, uint64_t start, uint64_t length)
{
	const struct fake_hooks *hook = fake_hooks_now();
	int error = fake_arming_error();
	set_wp_bits(range, start, error != 0 ? length / PAGE / 2 * PAGE : length, 1);
	if (hook->armed != NULL) {
		hook->armed(hook->user);
	}
	return error;
}

static void call_disarming(uint64_t start, uint64_t length)
{
	const struct fake_hooks *hook = fake_hooks_now();
	if (hook->disarming != NULL) {
		hook->disarming(hook->user, start, length);
	}
}

int table_writeprotect(int fd, uint64_t start, uint64_t length, uint64_t mode)
{
	struct uffd *uffd = uffd_of(fd);
	if (uffd != NULL && atomic_load(&uffd->changing) > 0) { /* before the range is looked at */
		return -EAGAIN;
	}
	if (length == 0) {
		return -EINVAL;
	}
	struct range *range = range_of(fd, start, length);
	if (range == NULL || (range->modes & UFFDIO_REGISTER_MODE_WP) == 0) {
		return -ENOENT;
	}
	if (fake_must_come_again(range->uffd)) {
		return -EAGAIN;
	}
	if ((mode & UFFDIO_WRITEPROTECT_MODE_WP) != 0) {
		return arm(range, start, length);
	}
	int error = fake_disarming_error();
	if (error != 0) {
		return error;
	}
	call_disarming(start, length);
	set_wp_bits(range, start, length, 0);
	uffd_wake(range->uffd, start, length);
	return 0;
}

/* The page of this address; a range that is only protected comes into being when it has to. */
static struct page *page_to_protect(uint64_t address, uint64_t end)
{
	struct range *range = table_range(address);
	if (range == NULL) {
		struct maps_range map = {0};
		uint64_t stop = address + PAGE;
		while (stop < end && table_range(stop) == NULL) {
			stop += PAGE;
		}
		add_range(NULL, address, stop - address, 0, &map);
		range = table_range(address);
	}
	return table_page(range, address);
}

static void set_read_only(uint64_t address, uint64_t end, int read_only)
{
	if (!read_only && table_range(address) == NULL) {
		return;
	}
	struct page *page = page_to_protect(address, end);
	pthread_mutex_lock(&page->lock);
	page->read_only = read_only;
	pthread_mutex_unlock(&page->lock);
}

int table_mprotect(void *address, size_t length, int prot)
{
	const struct fake_hooks *hook = fake_hooks_now();
	uint64_t start = (uint64_t)(uintptr_t)address;
	int read_only = (prot & PROT_WRITE) == 0;
	int error = read_only ? fake_arming_error() : 0;
	uint64_t end = start + (error != 0 ? length / PAGE / 2 * PAGE : length);
	if (!read_only) {
		call_disarming(start, length);
	}
	for (uint64_t at = start; at < end; at += PAGE) {
		set_read_only(at, end, read_only);
	}
	if (read_only && hook->armed != NULL) {
		hook->armed(hook->user);
	}
	return error;
}

/* --- filling ---------------------------------------------------------------------------------------------------- */

/* What a fill may begin with. 0 or -errno. */
static int may_fill(int fd, uint64_t start, uint64_t length, struct range **range)
{
	*range = range_of(fd, start, length);
	if (*range == NULL) {
		return -ENOENT;
	}
	return fake_must_come_again((*range)->uffd) ? -EAGAIN : 0;
}

/* Under the page's lock: new content, for an entry that has neither page nor content. */
static int put_content(const struct range *range, struct page *page, uint64_t address, const void *from, int wp)
{
	if (!page->empty || page->content) {
		return -EEXIST;
	}
	if (from == NULL && page->armed && range->anonymous) {
		return -EEXIST;
	}
	if (from != NULL) {
		memcpy((void *)(uintptr_t)address, from, PAGE);
	} else {
		memset((void *)(uintptr_t)address, 0, PAGE);
	}
	table_touch(page);
	page->armed = wp;
	return 0;
}

static int fill_page(const struct range *range, uint64_t address, const void *from, int wp)
{
	struct page *page = table_page(range, address);
	pthread_mutex_lock(&page->lock);
	int error = put_content(range, page, address, from, wp);
	pthread_mutex_unlock(&page->lock);
	return error;
}

int table_copy(int fd, uint64_t to, const void *from, uint64_t length, uint64_t mode)
{
	struct range *range;
	int wp = (mode & UFFDIO_COPY_MODE_WP) != 0;
	int error = may_fill(fd, to, length, &range);
	if (error == 0 && wp && (range->modes & UFFDIO_REGISTER_MODE_WP) == 0) {
		error = -EINVAL;
	}
	if (error == 0) {
		must(length == PAGE);
		error = fill_page(range, to, from, wp);
	}
	if (error == 0 && (mode & UFFDIO_COPY_MODE_DONTWAKE) == 0) {
		uffd_wake(range->uffd, to, length);
	}
	return error;
}

int table_zeropage(int fd, uint64_t start, uint64_t length, uint64_t mode)
{
	struct range *range;
	int error = may_fill(fd, start, length, &range);
	if (error == 0) {
		must(length == PAGE);
		error = fill_page(range, start, NULL, 0);
	}
	if (error == 0 && (mode & UFFDIO_ZEROPAGE_MODE_DONTWAKE) == 0) {
		uffd_wake(range->uffd, start, length);
	}
	return error;
}

/* Maps the content that there is. 0 or -errno. */
static int map_page(const struct range *range, uint64_t address, int wp)
{
	struct page *page = table_page(range, address);
	int error = 0;
	pthread_mutex_lock(&page->lock);
	if (!page->content) {
		error = -EFAULT;
	} else if (!page->empty) {
		error = -EEXIST;
	} else {
		table_touch(page);
		page->armed = wp;
	}
	pthread_mutex_unlock(&page->lock);
	return error;
}

static int64_t map_pages(const struct range *range, uint64_t start, uint64_t length, int wp)
{
	uint64_t done = 0;
	int error = 0;
	while (done < length && error == 0) {
		error = map_page(range, start + done, wp);
		done += error == 0 ? PAGE : 0;
	}
	return done > 0 ? (int64_t)done : error;
}

int64_t table_continue(int fd, uint64_t start, uint64_t length, uint64_t mode)
{
	struct range *range;
	int wp = (mode & UFFDIO_CONTINUE_MODE_WP) != 0;
	if (wp && fake_kind_now()->no_wp_continue) {
		return -EINVAL;
	}
	int error = may_fill(fd, start, length, &range);
	if (error == 0 && (range->modes & UFFDIO_REGISTER_MODE_MINOR) == 0) {
		error = -EINVAL;
	}
	if (error != 0) {
		return error;
	}
	if (!wp) {
		call_disarming(start, length);
	}
	int64_t mapped = map_pages(range, start, length, wp);
	if (mapped > 0 && (mode & UFFDIO_CONTINUE_MODE_DONTWAKE) == 0) {
		uffd_wake(range->uffd, start, (uint64_t)mapped);
	}
	return mapped;
}
