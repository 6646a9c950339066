/* SPDX-License-Identifier: MIT */
/* See track_field.h. */
#include "track_field.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "place.h"
#include "scratch.h"
#include "support.h"

#define SMALL_BLOCKS 8
#define SMALL_BLOCK_PAGES 96
#define HUGE_BLOCKS 3
#define THP_BLOCKS 2
#define THP_BYTES ((size_t)2 << 20)

#ifndef MADV_HUGEPAGE
#define MADV_HUGEPAGE 14
#endif

#define POPULATED UFFDWP_TRACK_START_POPULATED
#define THREAD UFFDWP_DELIVERY_THREAD
#define INLINE UFFDWP_DELIVERY_INLINE

const struct field_method field_methods[FIELD_METHODS] = {
        {"async", UFFDWP_MECHANISM_ASYNC, 0, 0},
        {"async, populated", UFFDWP_MECHANISM_ASYNC, 0, POPULATED},
        {"async, no events", UFFDWP_MECHANISM_ASYNC, 0, UFFDWP_TRACK_START_NO_EVENTS},
        {"marker, thread", UFFDWP_MECHANISM_MARKER, THREAD, 0},
        {"marker, inline", UFFDWP_MECHANISM_MARKER, INLINE, 0},
        {"rearm, thread", UFFDWP_MECHANISM_REARM, THREAD, 0},
        {"rearm, inline", UFFDWP_MECHANISM_REARM, INLINE, 0},
        {"minor, thread", UFFDWP_MECHANISM_MINOR, THREAD, 0},
        {"minor, inline", UFFDWP_MECHANISM_MINOR, INLINE, 0},
        {"mprotect", UFFDWP_MECHANISM_MPROTECT, INLINE, 0},
        {"soft-dirty", UFFDWP_MECHANISM_SOFT_DIRTY, 0, UFFDWP_TRACK_START_RESET_PROCESS},
};

const char *field_memory_name(enum field_memory memory)
{
	static const char *const names[FIELD_MEMORIES] = {
	        "anon",          "thp",    "memfd",           "shared anon",
	        "hugetlb",       "a file", "region of shmem", "region of hugetlb",
	        "region of anon"};
	return names[memory];
}

static int is_region(enum field_memory memory)
{
	return memory >= FIELD_REGION_SHMEM;
}

static int is_huge(enum field_memory memory)
{
	return memory == FIELD_HUGETLB || memory == FIELD_REGION_HUGETLB;
}

int field_is_async(const struct field *field)
{
	return field->method->mechanism == UFFDWP_MECHANISM_ASYNC;
}

int field_is_private(const struct field *field)
{
	return field->memory == FIELD_ANON || field->memory == FIELD_THP || field->memory == FIELD_REGION_ANON;
}

int field_pointless(enum field_memory memory, const struct field_method *method)
{
	int needs_no_region =
	        method->mechanism == UFFDWP_MECHANISM_ASYNC || method->mechanism == UFFDWP_MECHANISM_SOFT_DIRTY;
	return is_region(memory) && needs_no_region;
}

/* --- memory ------------------------------------------------------------------------------------------------------ */

static int refuse(char *reason, size_t size, int error, const char *what)
{
	(void)snprintf(reason, size, "%s: %s", what, strerror(-error));
	return error;
}

static void set_shape(struct field *field)
{
	field->page_bytes = place_page_bytes(is_huge(field->memory) ? UFFDWP_MEMORY_HUGETLB : UFFDWP_MEMORY_SHMEM);
	field->blocks = SMALL_BLOCKS;
	field->block_pages = SMALL_BLOCK_PAGES;
	if (is_huge(field->memory)) {
		field->blocks = HUGE_BLOCKS;
		field->block_pages = 1;
	} else if (field->memory == FIELD_THP) {
		field->blocks = THP_BLOCKS;
		field->block_pages = THP_BYTES / field->page_bytes;
	}
	field->pages = field->blocks * field->block_pages;
	field->block_bytes = field->block_pages * field->page_bytes;
}

static int open_file(void)
{
	char folder[SCRATCH_PATH];
	char path[SCRATCH_PATH];
	struct statfs fs;
	scratch_folder(folder);
	scratch_join(path, folder, "tracked");
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0 && fstatfs(fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC) {
		close(fd);
		return -ENODEV;
	}
	return fd < 0 ? -errno : fd;
}

static int open_memory(struct field *field, char *reason, size_t size)
{
	field->fd = -1;
	if (is_huge(field->memory) && !support_has_huge_pages()) {
		return refuse(reason, size, -ENOMEM, "no huge pages here");
	}
	if (field->memory == FIELD_FILE) {
		field->fd = open_file();
		if (field->fd < 0) {
			return refuse(reason, size, field->fd, "the scratch folder is not on a disk");
		}
	} else if (field->memory == FIELD_MEMFD || field->memory == FIELD_HUGETLB) {
		field->fd = memfd_create("field", MFD_CLOEXEC | (is_huge(field->memory) ? MFD_HUGETLB : 0));
	} else {
		return 0;
	}
	must(field->fd >= 0 && ftruncate(field->fd, (off_t)(field->pages * field->page_bytes)) == 0);
	return 0;
}

/* Address space for one place of all blocks, aligned so that huge pages may lie in it. */
static uint8_t *reserve(struct field *field)
{
	size_t align = field->block_bytes > THP_BYTES ? field->block_bytes : THP_BYTES;
	field->slots_bytes = field->blocks * field->block_bytes;
	uint8_t *base = mmap(NULL, field->slots_bytes + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(base != MAP_FAILED);
	uint8_t *aligned = base + (align - (uintptr_t)base % align) % align;
	if (aligned != base) {
		must(munmap(base, (size_t)(aligned - base)) == 0);
	}
	size_t after = (size_t)(base + align - aligned);
	if (after != 0) {
		must(munmap(aligned + field->slots_bytes, after) == 0);
	}
	return aligned;
}

static void map_blocks(struct field *field)
{
	int flags = field_is_private(field) ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
	flags |= field->memory == FIELD_SHARED ? MAP_ANONYMOUS : 0;
	for (int slot = 0; slot < FIELD_SLOTS; slot++) {
		field->slots[slot] = reserve(field);
	}
	for (size_t block = 0; block < field->blocks; block++) {
		size_t offset = block * field->block_bytes;
		uint8_t *base = mmap(field->slots[0] + offset, field->block_bytes, PROT_READ | PROT_WRITE,
		                     flags | MAP_FIXED, field->fd, field->fd < 0 ? 0 : (off_t)offset);
		must(base != MAP_FAILED);
		(void)madvise(base, field->block_bytes, field->memory == FIELD_THP ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
		atomic_store(&field->at[block], base);
	}
}

static void unmap_blocks(struct field *field)
{
	for (int slot = 0; slot < FIELD_SLOTS && field->slots[slot] != NULL; slot++) {
		must(munmap(field->slots[slot], field->slots_bytes) == 0);
	}
	if (field->fd >= 0) {
		close(field->fd);
	}
}

/* --- opening ------------------------------------------------------------------------------------------------------ */

static int explain(int error, char *reason, size_t size)
{
	if (uffdwp_error_text(reason, size) == 0) {
		(void)snprintf(reason, size, "%s, without a text", strerror(-error));
	}
	return error;
}

static int open_region(struct field *field)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	size_t length = field->pages * field->page_bytes;
	options.mechanism = field->method->mechanism;
	options.delivery = field->method->delivery;
	if (field->memory == FIELD_REGION_ANON) {
		map_blocks(field);
		return uffdwp_region_attach(field->runtime, field->slots[0], length, &options, &field->region);
	}
	options.flags = is_huge(field->memory) ? UFFDWP_REGION_CREATE_HUGETLB : 0;
	int error = uffdwp_region_create(field->runtime, length, &options, &field->region);
	for (size_t block = 0; error == 0 && block < field->blocks; block++) {
		uint8_t *base = uffdwp_region_base(field->region);
		atomic_store(&field->at[block], base + block * field->block_bytes);
	}
	return error;
}

static int open_track(struct field *field)
{
	struct uffdwp_track_options options = UFFDWP_TRACK_OPTIONS_INIT;
	options.flags = field->method->flags;
	if (field->region == NULL) {
		options.mechanism = field->method->mechanism;
		options.delivery = field->method->delivery;
	}
	return uffdwp_track_start(field->runtime, &options, &field->track);
}

int field_open(struct field *field, enum field_memory memory, const struct field_method *method, char *reason,
               size_t size)
{
	memset(field, 0, sizeof(*field));
	field->memory = memory;
	field->method = method;
	set_shape(field);
	int error = open_memory(field, reason, size);
	if (error != 0) {
		return error;
	}
	must(uffdwp_open(NULL, &field->runtime) == 0);
	for (size_t block = 0; block < FIELD_BLOCKS_MAX; block++) {
		lock_for_writers_init(&field->locks[block]);
	}
	if (is_region(memory)) {
		error = open_region(field);
	} else {
		map_blocks(field);
	}
	error = error == 0 ? open_track(field) : error;
	if (error != 0) {
		(void)explain(error, reason, size);
		field_close(field);
	}
	return error;
}

void field_close(struct field *field)
{
	if (field->track != NULL) {
		must(uffdwp_track_stop(field->track) == 0);
	}
	must(uffdwp_region_close(field->region) == 0);
	must(uffdwp_close(field->runtime) == 0);
	unmap_blocks(field);
	for (size_t block = 0; block < FIELD_BLOCKS_MAX; block++) {
		must(pthread_rwlock_destroy(&field->locks[block]) == 0);
	}
}

int field_add_all(struct field *field, uint32_t flags)
{
	int error = 0;
	for (size_t block = 0; block < field->blocks && error == 0; block++) {
		error = uffdwp_track_add(field->track, atomic_load(&field->at[block]), field->block_bytes, flags);
	}
	return error;
}

/* --- addresses ---------------------------------------------------------------------------------------------------- */

uint8_t *field_address(const struct field *field, size_t page)
{
	return atomic_load(&field->at[field_block(field, page)]) + page % field->block_pages * field->page_bytes;
}

size_t field_page(const struct field *field, uint64_t address)
{
	uint64_t length = field->pages * field->page_bytes;
	uint64_t base = (uint64_t)(uintptr_t)atomic_load(&field->at[0]);
	if (field->slots[0] == NULL) {
		return address - base < length ? (address - base) / field->page_bytes : field->pages;
	}
	for (int slot = 0; slot < FIELD_SLOTS; slot++) {
		base = (uint64_t)(uintptr_t)field->slots[slot];
		if (address - base < length) {
			return (address - base) / field->page_bytes;
		}
	}
	return field->pages;
}

/* --- locks and moves ---------------------------------------------------------------------------------------------- */

void field_share(struct field *field, size_t block)
{
	must(pthread_rwlock_rdlock(&field->locks[block]) == 0);
}

void field_take(struct field *field, size_t block)
{
	must(pthread_rwlock_wrlock(&field->locks[block]) == 0);
}

void field_leave(struct field *field, size_t block)
{
	must(pthread_rwlock_unlock(&field->locks[block]) == 0);
}

int field_may_move(const struct field *field)
{
	return field->slots[0] != NULL && field->region == NULL &&
	       (field->method->flags & UFFDWP_TRACK_START_NO_EVENTS) == 0 &&
	       field->method->mechanism != UFFDWP_MECHANISM_MPROTECT &&
	       field->method->mechanism != UFFDWP_MECHANISM_SOFT_DIRTY;
}

int field_move(struct field *field, size_t block)
{
	size_t offset = block * field->block_bytes;
	uint8_t *from = atomic_load(&field->at[block]);
	uint8_t *to = (from == field->slots[0] + offset ? field->slots[1] : field->slots[0]) + offset;
	if (mremap(from, field->block_bytes, field->block_bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED) {
		return -errno;
	}
	atomic_store(&field->at[block], to);
	/* No other mapping may come to lie there. One that was faster does no harm: it is seen here. */
	must(mmap(from, field->block_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) ==
	     from);
	return 0;
}

int field_system_calls_work(const struct field *field)
{
	int user_mode = place_report()->access_chosen == UFFDWP_ACCESS_USER_MODE;
	return field_is_async(field) || (field->method->delivery == THREAD && !user_mode);
}
