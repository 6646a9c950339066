/* SPDX-License-Identifier: MIT */
/* The file of a region: which one its descriptor is of, how it grows and gives memory back. See region.h. */
#include <errno.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/errno_name.h"
#include "region/region.h"

/* Maybe the caller's file, duplicated: it is not tagged, its inode says which it is. */
int region_check_file(const struct uffdwp_region *region)
{
	struct stat st;
	int error = region->fd < 0 ? -ENOSYS : region->k->fstat(region->fd, &st);

	if (error)
		return error == -EBADF ? error : 0;
	return st.st_dev == region->fd_device && st.st_ino == region->fd_inode ? 0 : -ESTALE;
}

int region_know_file(struct uffdwp_region *region)
{
	struct stat st;
	int error = region->k->fstat(region->fd, &st);

	if (error) {
		region->k->close(region->fd);
		region->fd = -1;
		return text_fail(region->text, error, "the region's file cannot be looked at: %s", errno_text(error));
	}
	region->fd_device = st.st_dev;
	region->fd_inode = st.st_ino;
	return 0;
}

const char *region_limit_advice(int error)
{
	return error == -EFBIG ? "; the limit of file sizes (ulimit -f) counts for memfds, too" : "";
}

static int region_grow_locked(struct uffdwp_region *region, uint64_t length_bytes)
{
	uint64_t now = atomic_load(&region->length_bytes);

	if (length_bytes < now)
		return text_fail(region->text, -EINVAL,
		                 "%llu is less than the region's %llu bytes: regions do not shrink, "
		                 "punch the rest",
		                 (unsigned long long)length_bytes, (unsigned long long)now);
	/* hugetlbfs gave the file its full size when the capacity was mapped. */
	int error = region_check_file(region);

	if (!error && region->memory != UFFDWP_MEMORY_HUGETLB)
		error = region->k->ftruncate(region->fd, length_bytes);
	if (error)
		return text_fail(region->text, error, "growing the memfd to %llu bytes failed: %s%s",
		                 (unsigned long long)length_bytes, errno_text(error), region_limit_advice(error));
	atomic_store_explicit(&region->length_bytes, length_bytes, memory_order_release);
	return 0;
}

int region_grow(struct uffdwp_region *region, uint64_t length_bytes)
{
	lock_take(&region->lock);
	int error = region_grow_locked(region, length_bytes);

	lock_give(&region->lock);
	return error;
}

/* Where a filter of the program's refuses fallocate(2) the kernel does the same for what is mapped here. */
static int region_punch_file(struct uffdwp_region *region, uint64_t offset, uint64_t length)
{
	const struct kernel_ops *k = region->k;
	int error = k->fallocate(region->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, region->fd_offset + offset,
	                         length);

	if ((error != -EPERM && error != -ENOSYS) || region->mappers || atomic_load(&region->dead))
		return error;
	return k->madvise(region_address(region, 0) + offset, length, MADV_REMOVE) ? error : 0;
}

int region_discard(struct uffdwp_region *region, uint64_t offset, uint64_t length)
{
	int error = region_check_file(region);

	if (error)
		return text_fail(region->text, error, "the program has closed the region's file");
	atomic_fetch_add(&region->discards, 1);
	if (region->memory == UFFDWP_MEMORY_ANON)
		error = kernel_discard(region->k, region_address(region, 0) + offset, length);
	else
		error = region_punch_file(region, offset, length);
	return error ? text_fail(region->text, error, "the kernel refused to discard the range: %s", errno_text(error))
	             : 0;
}
