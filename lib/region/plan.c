/* SPDX-License-Identifier: MIT */
/* See plan.h. */
#include "region/plan.h"

#include <errno.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/errno_name.h"
#include "base/math.h"
#include "base/trace.h"
#include "kernel/maps.h"
#include "kernel/procfs.h"
#include "region/mapper.h"

void plan_init(struct region_plan *plan, const struct kernel_ops *k, struct uffdwp *runtime, uint64_t length_bytes)
{
	static const struct uffdwp_region_options defaults = UFFDWP_REGION_OPTIONS_INIT;

	memset(plan, 0, sizeof(*plan));
	plan->k = k;
	plan->runtime = runtime;
	plan->options = defaults;
	plan->options.fd = -1;
	plan->length_bytes = length_bytes;
}

int plan_check_length(uint64_t length, uint64_t page_bytes, const char *what, struct text *text)
{
	if (!length)
		return text_fail(text, -EINVAL, "%s is 0", what);
	if (!math_is_aligned(length, page_bytes))
		return text_fail(text, -EINVAL, "%s %llu is not a multiple of the page size %llu", what,
		                 (unsigned long long)length, (unsigned long long)page_bytes);
	return 0;
}

/* ---- created ---- */

static uint64_t plan_page_bytes(const struct kernel_ops *k, const struct uffdwp_region_options *options)
{
	uint64_t kib;

	if (!(options->flags & UFFDWP_REGION_CREATE_HUGETLB))
		return (uint64_t)sysconf(_SC_PAGESIZE);
	if (options->huge_page_bytes)
		return options->huge_page_bytes;
	return procfs_number(k, "/proc/meminfo", "Hugepagesize:", &kib) == 0 ? kib * 1024 : 2ull << 20;
}

static int plan_check_size(const struct region_plan *plan, struct text *text)
{
	int error = plan_check_length(plan->length_bytes, plan->page_bytes, "length", text);

	if (!error && plan->options.capacity_bytes)
		error = plan_check_length(plan->capacity_bytes, plan->page_bytes, "capacity_bytes", text);
	if (!error && plan->capacity_bytes < plan->length_bytes)
		error = text_fail(text, -EINVAL, "capacity_bytes %llu is below the length %llu",
		                  (unsigned long long)plan->capacity_bytes, (unsigned long long)plan->length_bytes);
	if (!error && plan->capacity_bytes > INT64_MAX / 2)
		error = text_fail(text, -EOVERFLOW, "%llu bytes are more than an address space holds",
		                  (unsigned long long)plan->capacity_bytes);
	if (!error && plan->capacity_bytes / plan->page_bytes > UINT32_MAX)
		error = text_fail(text, -EOVERFLOW, "a region has at most 2^32 - 1 pages");
	return error;
}

int plan_create(struct region_plan *plan)
{
	struct text *text = plan->text;
	struct uffdwp_region_options *options = &plan->options;

	plan->memory = options->flags & UFFDWP_REGION_CREATE_HUGETLB ? UFFDWP_MEMORY_HUGETLB : UFFDWP_MEMORY_SHMEM;
	plan->page_bytes = plan_page_bytes(plan->k, options);
	plan->capacity_bytes = options->capacity_bytes ? options->capacity_bytes : plan->length_bytes;
	if (!math_is_power_of_two(plan->page_bytes) || plan->page_bytes < (uint64_t)sysconf(_SC_PAGESIZE))
		return text_fail(text, -EINVAL, "huge_page_bytes %llu is not a size of huge pages",
		                 (unsigned long long)plan->page_bytes);
	if (!math_is_aligned((uintptr_t)options->address, plan->page_bytes))
		return text_fail(text, -EINVAL, "address %p is not a multiple of the page size %llu", options->address,
		                 (unsigned long long)plan->page_bytes);
	if (options->huge_page_bytes && plan->memory != UFFDWP_MEMORY_HUGETLB)
		return text_fail(text, -EINVAL, "huge_page_bytes goes with UFFDWP_REGION_CREATE_HUGETLB");
	return plan_check_size(plan, text);
}

/* ---- attached ---- */

/* The fd must be what is mapped, at the offset that is said. */
static int plan_check_fd(const struct region_plan *plan, const struct maps_range *range, struct text *text)
{
	struct stat st;
	int fd = plan->options.fd;

	if (fd < 0)
		return 0;
	int error = plan->k->fstat(fd, &st);

	if (error)
		return text_fail(text, error, "fd %d is not open: %s", fd, errno_text(error));
	if (range->sysv) /* its inode is the segment's id, which a memfd may have as well */
		return text_fail(text, -EINVAL,
		                 "a System V segment is mapped there, which has no fd: attach without one");
	if (st.st_ino != range->inode || major(st.st_dev) != range->device_major ||
	    minor(st.st_dev) != range->device_minor)
		return text_fail(text, -EINVAL, "fd %d is not the file that is mapped there", fd);
	if (plan->options.fd_offset != range->offset)
		return text_fail(text, -EINVAL, "fd_offset is %llu, but the mapping begins at %llu",
		                 (unsigned long long)plan->options.fd_offset, (unsigned long long)range->offset);
	return 0;
}

static int plan_check_mapping(const struct maps_range *range, struct text *text)
{
	if (!range->covered)
		return text_fail(text, -ENOENT, "the range is not mapped, or not all of it");
	if (!range->readable || !range->writable)
		return text_fail(text, -EACCES, "the range is not mapped readable and writable");
	if (!range->uniform)
		return text_fail(text, -EINVAL, "the range spans mappings of different kinds: attach them one by one");
	if (range->has_file && !range->shared)
		return text_fail(text, -EMEDIUMTYPE,
		                 "a private mapping of a file cannot be armed: map it shared, or copy it");
	return 0;
}

/* Another mapping through which this process could write unseen. */
static int plan_check_aliases(struct region_plan *plan, const struct maps_range *range, struct text *text)
{
	struct maps_aliases aliases;
	int error = maps_find_aliases((uint64_t)(uintptr_t)plan->address, plan->length_bytes, range, &aliases);

	if (error)
		return text_fail(text, error, "/proc/self/maps cannot be read: %s", errno_text(error));
	plan->aliases = aliases.count;
	if (!aliases.count)
		return 0;
	error = text_fail(
	        text, -EADDRINUSE,
	        "%u other writable mappings of this memory are in this process, the first at %#llx-%#llx: "
	        "writes there are not seen. Unmap them, make them read-only, or say UFFDWP_REGION_ATTACH_ALIASED",
	        (unsigned)aliases.count, (unsigned long long)aliases.start, (unsigned long long)aliases.end);
	if (!(plan->options.flags & UFFDWP_REGION_ATTACH_ALIASED))
		return error;
	TRACE("attach of %p: %u other writable mappings, the first at %#llx", plan->address, (unsigned)aliases.count,
	      (unsigned long long)aliases.start);
	return 0;
}

static uint32_t plan_memory_of(const struct maps_range *range)
{
	if (range->hugetlb)
		return UFFDWP_MEMORY_HUGETLB;
	return range->has_file ? UFFDWP_MEMORY_SHMEM : UFFDWP_MEMORY_ANON;
}

int plan_attach(struct region_plan *plan)
{
	struct text *text = plan->text;
	uint64_t start = (uint64_t)(uintptr_t)plan->address;
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	struct maps_range range;
	int error = 0;

	if (!error && !plan->address)
		error = text_fail(text, -EINVAL, "address is NULL");
	if (!error)
		error = plan_check_length(plan->length_bytes, page, "length", text);
	if (!error && !math_is_aligned(start, page))
		error = text_fail(text, -EINVAL,
		                  "address %p is not aligned to a page of %llu bytes: use mmap() or aligned_alloc()",
		                  plan->address, (unsigned long long)page);
	if (!error && start + plan->length_bytes < start)
		error = text_fail(text, -EINVAL, "the range ends beyond the address space");
	if (!error && (plan->options.capacity_bytes || plan->options.huge_page_bytes || plan->options.numa ||
	               plan->options.address))
		error = text_fail(text, -EINVAL,
		                  "capacity, huge page size, NUMA placement and address are for created regions");
	if (error)
		return error;
	error = maps_look(start, plan->length_bytes, &range);
	if (error)
		return text_fail(text, error, "/proc/self/maps cannot be read: %s", errno_text(error));
	error = plan_check_mapping(&range, text);
	if (!error)
		error = plan_check_fd(plan, &range, text);
	if (!error)
		error = plan_check_aliases(plan, &range, text);
	plan->device = makedev(range.device_major, range.device_minor);
	plan->prot = PROT_READ | PROT_WRITE | (range.executable ? PROT_EXEC : 0);
	plan->page_bytes = range.page_bytes;
	plan->memory = plan_memory_of(&range);
	plan->capacity_bytes = plan->length_bytes;
	if (!error && plan->length_bytes / plan->page_bytes > UINT32_MAX)
		error = text_fail(text, -EINVAL, "a region has at most 2^32 - 1 pages");
	if (!error &&
	    (!math_is_aligned(start, plan->page_bytes) || !math_is_aligned(plan->length_bytes, plan->page_bytes)))
		error = text_fail(text, -EINVAL, "the range is not aligned to its huge pages of %llu bytes",
		                  (unsigned long long)plan->page_bytes);
	return error;
}

/* ---- adopted ---- */

static int plan_is_private(const struct uffdwp_region_options *options)
{
	return (options->flags & UFFDWP_REGION_ADOPT_PRIVATE) != 0;
}

static int plan_check_adopt_options(const struct uffdwp_region_options *options, struct text *text)
{
	if (options->flags & ~UFFDWP_REGION_ADOPT_PRIVATE || options->capacity_bytes || options->numa ||
	    options->address || options->name || (options->huge_page_bytes && !plan_is_private(options)))
		return text_fail(
		        text, -EINVAL,
		        "other flags than UFFDWP_REGION_ADOPT_PRIVATE, capacity, NUMA placement, name and address are "
		        "for created and attached regions, and a huge page size is not for those of a file");
	if (options->mechanism > UFFDWP_MECHANISM_REARM)
		return text_fail(text, -EINVAL, "an adopted region is by mechanism marker or rearm");
	if (plan_is_private(options) && options->mechanism == UFFDWP_MECHANISM_MARKER)
		return text_fail(text, -EINVAL,
		                 "private memory is only restored, which needs mechanism rearm: name it, or none");
	if (options->delivery > UFFDWP_DELIVERY_INLINE)
		return text_fail(text, -EINVAL, "unknown delivery %u", (unsigned)options->delivery);
	if (options->delivery == UFFDWP_DELIVERY_INLINE)
		return text_fail(text, -EINVAL,
		                 "faults of another process come to a thread: ask for "
		                 "UFFDWP_DELIVERY_THREAD or _AUTO");
	return 0;
}

static int plan_adopt_file(struct region_plan *plan)
{
	int fd = plan->options.fd;
	struct stat st;
	int error = plan->k->fstat(fd, &st);

	if (error)
		return text_fail(plan->text, error, "fd %d is not open: %s", fd, errno_text(error));
	int64_t type = plan->k->fs_type(fd);

	plan->memory = type == HUGETLBFS_MAGIC ? UFFDWP_MEMORY_HUGETLB : UFFDWP_MEMORY_SHMEM;
	plan->page_bytes = type == HUGETLBFS_MAGIC ? (uint64_t)st.st_blksize : (uint64_t)sysconf(_SC_PAGESIZE);
	if (type != HUGETLBFS_MAGIC && type != TMPFS_MAGIC)
		return text_fail(plan->text, -EMEDIUMTYPE,
		                 "fd %d is no memfd, nor a file of tmpfs or hugetlbfs: such memory cannot be armed",
		                 fd);
	error = plan_check_length(plan->length_bytes, plan->page_bytes, "length", plan->text);
	if (!error && !math_is_aligned(plan->options.fd_offset, plan->page_bytes))
		error = text_fail(plan->text, -EINVAL, "fd_offset %llu is not a multiple of the page size %llu",
		                  (unsigned long long)plan->options.fd_offset, (unsigned long long)plan->page_bytes);
	if (!error && (st.st_size < 0 || plan->options.fd_offset > (uint64_t)st.st_size ||
	               plan->length_bytes > (uint64_t)st.st_size - plan->options.fd_offset))
		error = text_fail(plan->text, -ENXIO, "the file has %lld bytes, and the region would end beyond them",
		                  (long long)st.st_size);
	return error;
}

/* What is mapped there the caller has to say: nothing of it is here. */
static int plan_adopt_private(struct region_plan *plan)
{
	const struct uffdwp_region_options *options = &plan->options;
	uint64_t system_page = (uint64_t)sysconf(_SC_PAGESIZE);

	plan->memory = options->huge_page_bytes ? UFFDWP_MEMORY_HUGETLB : UFFDWP_MEMORY_ANON;
	plan->page_bytes = options->huge_page_bytes ? options->huge_page_bytes : system_page;
	if (options->fd > 0 || options->fd_offset)
		return text_fail(plan->text, -EINVAL,
		                 "private memory has no file: leave fd and fd_offset out, or the flag "
		                 "UFFDWP_REGION_ADOPT_PRIVATE");
	plan->options.fd = -1;
	if (!math_is_power_of_two(plan->page_bytes) || plan->page_bytes < system_page ||
	    (options->huge_page_bytes && plan->page_bytes == system_page))
		return text_fail(plan->text, -EINVAL, "huge_page_bytes %llu is not a size of huge pages",
		                 (unsigned long long)plan->page_bytes);
	return plan_check_length(plan->length_bytes, plan->page_bytes, "length", plan->text);
}

int plan_adopt(struct region_plan *plan)
{
	int error = plan_check_adopt_options(&plan->options, plan->text);

	if (!error)
		error = plan_is_private(&plan->options) ? plan_adopt_private(plan) : plan_adopt_file(plan);
	if (!error && plan->length_bytes > INT64_MAX / 2)
		error = text_fail(plan->text, -EINVAL, "%llu bytes are more than an address space holds",
		                  (unsigned long long)plan->length_bytes);
	if (!error && plan->length_bytes / plan->page_bytes > UINT32_MAX)
		error = text_fail(plan->text, -EINVAL, "a region has at most 2^32 - 1 pages");
	plan->capacity_bytes = plan->length_bytes;
	return error ? error : mapper_check(plan->mapper, plan->length_bytes, plan->page_bytes, plan->text);
}

/* ---- which file ---- */

/* The device of memfds, of shared anonymous memory and of System V segments: the kernel's own tmpfs. */
static int plan_internal_device(const struct kernel_ops *k, uint64_t *device)
{
	struct stat st = {.st_dev = 0};
	int fd = k->memfd_create("uffdwp-device", MFD_CLOEXEC);

	if (fd < 0)
		return fd;
	int error = k->fstat(fd, &st);

	k->close(fd);
	*device = st.st_dev;
	return error;
}

/* Registering with a userfaultfd refuses what is no memory; mprotect(2) does not. */
int plan_check_file(const struct region_plan *plan)
{
	uint64_t internal;

	if (plan->memory != UFFDWP_MEMORY_SHMEM || plan->mechanism->register_modes[plan->memory])
		return 0;
	if (plan->options.fd >= 0 && plan->k->fs_type(plan->options.fd) == TMPFS_MAGIC)
		return 0;
	int error = plan_internal_device(plan->k, &internal);

	if (error)
		return text_fail(plan->text, error, "what is mapped there cannot be found out: %s", errno_text(error));
	if (plan->options.fd < 0 && internal == plan->device)
		return 0;
	return text_fail(
	        plan->text, -EMEDIUMTYPE,
	        plan->options.fd < 0
	                ? "a file is mapped there: attach with its fd, so that tmpfs can be distinguished from a disk"
	                : "this is a file on disk or a device: only memfd, tmpfs, hugetlb and anonymous "
	                  "memory can be armed");
}

/* The kernel registers no such file. System V segments lie on the same device as memfds, which it does register. */
int plan_refuse_medium(const struct region_plan *plan)
{
	uint64_t internal;

	if (!plan_internal_device(plan->k, &internal) && internal == plan->device)
		return text_fail(plan->text, -EMEDIUMTYPE,
		                 "this is System V shared memory, which the kernel does not register with a "
		                 "userfaultfd: ask for UFFDWP_MECHANISM_MPROTECT by name, or use a memfd");
	return text_fail(plan->text, -EMEDIUMTYPE,
	                 "this is a file on disk or a device: only memfd, tmpfs, hugetlb and anonymous memory can be "
	                 "armed");
}
