/* SPDX-License-Identifier: MIT */
/*
 * How a region comes and goes, and what is done to all of it. See region.h.
 *
 * A created region maps its whole capacity at once: the memfd grows underneath, the mapping and its registration need
 * not. (F_SEAL_FUTURE_WRITE would forbid a second mapping.) Touching the mapping beyond the length is a SIGBUS of the
 * kernel, as with any file.
 */
#include "region/region.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/memfd.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/math.h"
#include "kernel/abi.h"

/* How long an arming call retries while a kernel event is on its way to the handler that must read it. */
#define EVENT_PATIENCE_NS 10000000000ull
#define EVENT_NAP_NS 20000

/* How long something that is not where it was may be on its way to another place. */
#define MOVE_PATIENCE_NS 100000000ull

void *pages_new(const struct kernel_ops *k, size_t length)
{
	int error;

	return k->mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0,
	               &error);
}

void pages_free(const struct kernel_ops *k, void *memory, size_t length)
{
	if (memory)
		k->munmap(memory, length);
}

void pages_touch(const struct kernel_ops *k, void *memory, size_t length)
{
	k->madvise(memory, length, MADV_HUGEPAGE); /* a wish */
	if (k->madvise(memory, length, MADV_POPULATE_WRITE) == 0)
		return;
	for (size_t at = 0; at < length; at += 4096) /* before 5.14 */
		((volatile unsigned char *)memory)[at] = 0;
}

static unsigned log2_of(uint64_t power_of_two)
{
	return (unsigned)__builtin_ctzll(power_of_two);
}

static unsigned memfd_flags(const struct region_plan *plan)
{
	unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;

	if (plan->memory == UFFDWP_MEMORY_HUGETLB)
		flags |= MFD_HUGETLB | (log2_of(plan->page_bytes) << MFD_HUGE_SHIFT);
	return flags;
}

static int memory_seal(struct uffdwp_region *region)
{
	int error = region->k->add_seals(region->fd, F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK);

	if (error)
		return text_fail(region->text, error,
		                 "sealing the memfd failed: this kernel lacks F_SEAL_FUTURE_WRITE "
		                 "(Linux 5.1); leave UFFDWP_REGION_SEALED out");
	region->sealed = 1;
	return 0;
}

void *region_pages_new(const struct uffdwp_region *region, size_t length)
{
	void *memory = pages_new(region->k, length);

	if (memory && region->numa_mode)
		region->k->mbind(memory, length, region->numa_mode, region->numa_nodes); /* a wish */
	return memory;
}

static int memory_place(struct uffdwp_region *region, void *memory, const struct region_plan *plan)
{
	static const int modes[] = {0, 2 /* MPOL_BIND */, 3 /* MPOL_INTERLEAVE, linux/mempolicy.h */};
	const struct uffdwp_region_options *options = &plan->options;
	int error = 0;

	region->numa_mode = modes[options->numa];
	region->numa_nodes = options->numa_nodes;
	if (region->numa_mode)
		error = region->k->mbind(memory, plan->capacity_bytes, region->numa_mode, region->numa_nodes);
	if (error)
		return text_fail(region->text, error,
		                 "the NUMA placement was refused: ask for nodes that have memory "
		                 "(numactl --hardware) or leave it out");
	if (!(options->flags & UFFDWP_REGION_INHERIT))
		error = region->k->madvise(memory, plan->capacity_bytes, MADV_DONTFORK);
	return error ? text_fail(region->text, error, "madvise(MADV_DONTFORK) was refused") : 0;
}

static int memory_map(struct uffdwp_region *region, const struct region_plan *plan)
{
	int reserve = plan->memory == UFFDWP_MEMORY_HUGETLB ? 0 : MAP_NORESERVE;
	int error = region->k->ftruncate(region->fd, plan->length_bytes);

	if (error)
		return text_fail(region->text, error, "sizing the memfd to %llu bytes failed",
		                 (unsigned long long)plan->length_bytes);
	void *memory = region->k->mmap(NULL, plan->capacity_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | reserve,
	                               region->fd, 0, &error);
	if (!memory)
		return text_fail(region->text, error,
		                 region->memory == UFFDWP_MEMORY_HUGETLB
		                         ? "not enough free huge pages for %llu bytes: raise vm.nr_hugepages"
		                         : "no address space for %llu bytes: lower the length or the capacity",
		                 (unsigned long long)plan->capacity_bytes);
	atomic_store(&region->base, (uintptr_t)memory);
	error = memory_place(region, memory, plan);
	if (!error && plan->options.flags & UFFDWP_REGION_SEALED)
		error = memory_seal(region);
	return error;
}

static int memory_create(struct uffdwp_region *region, const struct region_plan *plan)
{
	const char *name = plan->options.name ? plan->options.name : "uffdwp";

	region->owned = 1;
	region->fd = region->k->memfd_create(name, memfd_flags(plan));
	if (region->fd < 0)
		return text_fail(region->text, region->fd, "memfd_create failed: %s", strerror(-region->fd));
	return memory_map(region, plan);
}

static int memory_attach(struct uffdwp_region *region, const struct region_plan *plan)
{
	atomic_store(&region->base, (uintptr_t)plan->address);
	if (plan->options.fd < 0)
		return 0;
	int mode = region->k->access_mode(plan->options.fd);

	if (mode != O_RDWR)
		return text_fail(region->text, mode < 0 ? mode : -EACCES, "fd %d is not open for reading and writing",
		                 plan->options.fd);
	region->fd = region->k->dup(plan->options.fd);
	if (region->fd < 0)
		return text_fail(region->text, region->fd, "fd %d cannot be duplicated: %s", plan->options.fd,
		                 strerror(-region->fd));
	region->fd_offset = plan->options.fd_offset;
	region->sealed = region->k->get_seals(region->fd) > 0 &&
	                 (region->k->get_seals(region->fd) & (F_SEAL_FUTURE_WRITE | F_SEAL_WRITE)) != 0;
	return 0;
}

static int region_uffd(struct uffdwp_region *region, const struct region_plan *plan)
{
	uint64_t wanted = region->mechanism->features | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE |
	                  UFFD_FEATURE_EVENT_UNMAP | UFFD_FEATURE_EXACT_ADDRESS;
	uint64_t granted = 0;

	if (region->delivery == UFFDWP_DELIVERY_INLINE)
		wanted |= UFFD_FEATURE_SIGBUS;
	region->uffd = kernel_uffd_new(region->k, plan->access, wanted, &granted);
	if (region->uffd < 0)
		return text_fail(region->text, region->uffd,
		                 "no userfaultfd for this region: %s; see uffdwp-ctl doctor", strerror(-region->uffd));
	if (region->delivery == UFFDWP_DELIVERY_INLINE && !(granted & UFFD_FEATURE_SIGBUS))
		return text_fail(region->text, -EOPNOTSUPP,
		                 "this kernel lacks UFFD_FEATURE_SIGBUS, which inline delivery "
		                 "needs: ask for UFFDWP_DELIVERY_THREAD");
	return 0;
}

static int region_register(struct uffdwp_region *region)
{
	int error = region->k->uffd_register(region->uffd, (uint64_t)(uintptr_t)region_address(region, 0),
	                                     region->capacity_bytes, region->mechanism->register_mode);

	if (error == -EBUSY)
		return text_fail(region->text, error, "another userfaultfd is registered in this range");
	if (error)
		return text_fail(region->text, error, "registering the range for write protection was refused: %s",
		                 strerror(-error));
	return 0;
}

static int ledger_open(struct uffdwp_region *region)
{
	region->ledger.count = region->capacity_bytes >> region->page_shift;
	region->ledger.pages = pages_new(region->k, region->ledger.count);
	if (!region->ledger.pages)
		return text_fail(region->text, -ENOMEM, "no memory for the ledger");
	pages_touch(region->k, (void *)region->ledger.pages, region_pages(region));
	return 0;
}

static struct uffdwp_region *region_new(const struct region_plan *plan)
{
	struct uffdwp_region *region = pages_new(plan->k, sizeof(*region));

	if (!region)
		return NULL;
	region->k = plan->k;
	region->mechanism = plan->mechanism;
	region->page_bytes = plan->page_bytes;
	region->page_shift = log2_of(plan->page_bytes);
	region->capacity_bytes = plan->capacity_bytes;
	region->memory = plan->memory;
	region->delivery = plan->options.delivery;
	region->runtime = plan->runtime;
	region->text = plan->text;
	region->uffd = -1;
	region->fd = -1;
	atomic_store(&region->length_bytes, plan->length_bytes);
	pthread_mutex_init(&region->lock, NULL);
	return region;
}

int region_open(const struct region_plan *plan, struct uffdwp_region **out)
{
	struct uffdwp_region *region = region_new(plan);

	if (!region)
		return text_fail(plan->text, -ENOMEM, "no memory for a region");
	int error = plan->address ? memory_attach(region, plan) : memory_create(region, plan);

	if (!error)
		error = region_uffd(region, plan);
	if (!error)
		error = ledger_open(region);
	if (!error)
		error = region_register(region);
	if (error) {
		region_free(region);
		return error;
	}
	*out = region;
	return 0;
}

void region_unregister(struct uffdwp_region *region)
{
	region->k->uffd_unregister(region->uffd, (uint64_t)(uintptr_t)region_address(region, 0),
	                           region->capacity_bytes);
}

void region_free(struct uffdwp_region *region)
{
	const struct kernel_ops *k = region->k;
	void *base = (void *)atomic_load(&region->base);

	if (region->uffd >= 0)
		k->close(region->uffd);
	if (region->owned && base && !atomic_load(&region->unmapped))
		k->munmap(base, region->capacity_bytes);
	if (region->fd >= 0)
		k->close(region->fd);
	pages_free(k, (void *)region->ledger.pages, region->ledger.count);
	pthread_mutex_destroy(&region->lock);
	pages_free(k, region, sizeof(*region));
}

int region_has_moved(struct uffdwp_region *region, uintptr_t base_before)
{
	uint64_t until = kernel_now_ns() + MOVE_PATIENCE_NS;

	while (atomic_load(&region->base) == base_before && !atomic_load(&region->dead) && kernel_now_ns() < until)
		sched_yield();
	return atomic_load(&region->base) != base_before;
}

static ssize_t read_once(struct uffdwp_region *region, uint64_t offset, void *to, size_t length, int patient)
{
	uintptr_t base = atomic_load(&region->base);

	if (region->fd >= 0)
		return region->k->pread(region->fd, to, length, region->fd_offset + offset);
	ssize_t got = region->k->read_self(to, (void *)(base + offset), length);

	if (got != -EFAULT)
		return got;
	/* Unmapped or moved; the event that says which is on its way. */
	return patient && region_has_moved(region, base) ? -EINTR : -ESTALE;
}

static int read_all(struct uffdwp_region *region, uint64_t offset, void *buffer, size_t length, int patient)
{
	unsigned char *to = buffer;

	while (length > 0) {
		ssize_t got = read_once(region, offset, to, length, patient);

		if (got == -EINTR)
			continue;
		if (got <= 0)
			return got < 0 ? (int)got : -EIO; /* 0: the file was cut behind our back */
		to += got;
		offset += (uint64_t)got;
		length -= (size_t)got;
	}
	return 0;
}

int region_read(struct uffdwp_region *region, uint64_t offset, void *buffer, size_t length)
{
	return read_all(region, offset, buffer, length, 0);
}

int region_read_patiently(struct uffdwp_region *region, uint64_t offset, void *buffer, size_t length)
{
	return read_all(region, offset, buffer, length, 1);
}

uint64_t region_marks(struct uffdwp_region *region, int pagemap, uint64_t first, uint64_t end)
{
	uint64_t entries[64];
	uint64_t marks = 0;
	size_t length = (size_t)(end - first) * sizeof(entries[0]);
	uint64_t at = (uint64_t)(uintptr_t)region_address(region, first) >> region->page_shift;

	if (region->k->pread(pagemap, entries, length, at * sizeof(entries[0])) != (ssize_t)length)
		return 0;
	for (uint64_t page = first; page < end; page++)
		marks |= (uint64_t)((entries[page - first] & PAGEMAP_UFFD_WP) != 0) << (page - first);
	return marks;
}

uint64_t region_seek(struct uffdwp_region *region, uint64_t offset, uint64_t end, int hole)
{
	uint64_t all_data = hole ? end : offset;

	if (region->fd < 0 || region->memory != UFFDWP_MEMORY_SHMEM)
		return all_data;
	int64_t at = region->k->seek(region->fd, region->fd_offset + offset, hole ? SEEK_HOLE : SEEK_DATA);

	if (at == -ENXIO)
		return hole ? offset : end;
	if (at < 0)
		return all_data;
	uint64_t found = (uint64_t)at - region->fd_offset;

	return found < end ? found : end;
}

/* Whether pages are in memory is cheap to ask; only of those that are not, a seek tells swapped ones from holes. (Never
 * SEEK_HOLE here: it walks to the end of the data, whatever its size.) */
uint64_t region_data(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	uint64_t data = low_bits(end - first);
	unsigned char in_memory[64];
	unsigned shift = region->page_shift;

	if (region->fd < 0 || region->memory != UFFDWP_MEMORY_SHMEM ||
	    region->k->mincore(region_address(region, first), (end - first) << shift, in_memory))
		return data;
	for (uint64_t page = first; page < end; page++) {
		if (in_memory[page - first] & 1)
			continue;
		uint64_t next = region_seek(region, page << shift, end << shift, 0) >> shift;

		for (; page < next; page++)
			data &= ~(1ull << (page - first));
	}
	return data;
}

int region_is_mapped(struct uffdwp_region *region, uint64_t page)
{
	unsigned char ignored;

	return region->k->mincore(region_address(region, page), (size_t)sysconf(_SC_PAGESIZE), &ignored) != -ENOMEM;
}

uint64_t region_content(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	uint64_t content = 0;
	unsigned char mapped;

	if (region->memory == UFFDWP_MEMORY_SHMEM && region->fd >= 0)
		return region_data(region, first, end);
	if (region->memory != UFFDWP_MEMORY_HUGETLB)
		return 0;
	for (uint64_t page = first; page < end; page++) {
		if (!region->k->mincore(region_address(region, page), (size_t)sysconf(_SC_PAGESIZE), &mapped))
			content |= (uint64_t)(mapped & 1) << (page - first);
	}
	return content;
}

int region_grow(struct uffdwp_region *region, uint64_t length_bytes)
{
	/* hugetlbfs gave the file its full size when the capacity was mapped. */
	int error = region->memory == UFFDWP_MEMORY_HUGETLB ? 0 : region->k->ftruncate(region->fd, length_bytes);

	if (error)
		return text_fail(region->text, error, "growing the memfd to %llu bytes failed: %s",
		                 (unsigned long long)length_bytes, strerror(-error));
	atomic_store_explicit(&region->length_bytes, length_bytes, memory_order_release);
	return 0;
}

int region_discard(struct uffdwp_region *region, uint64_t offset, uint64_t length)
{
	int error;

	if (region->memory == UFFDWP_MEMORY_ANON)
		error = region->k->madvise(region_address(region, 0) + offset, length, MADV_DONTNEED);
	else
		error = region->k->fallocate(region->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		                             region->fd_offset + offset, length);
	return error ? text_fail(region->text, error, "the kernel refused to discard the range: %s", strerror(-error))
	             : 0;
}

/* The event's owner runs on when its event was read, and only then the kernel takes calls again: give way to both. */
static int patiently(struct uffdwp_region *region, int (*call)(struct uffdwp_region *, uint64_t, uint64_t),
                     uint64_t first, uint64_t end)
{
	const struct timespec nap = {.tv_nsec = EVENT_NAP_NS};
	uint64_t until = 0;

	for (;;) {
		uintptr_t base = atomic_load(&region->base);
		int error = call(region, first, end);

		if (error == -ENOENT && region_has_moved(region, base))
			continue;
		if (error != -EAGAIN)
			return error;
		uint64_t now = kernel_now_ns();

		if (!until)
			until = now + EVENT_PATIENCE_NS;
		else if (now > until)
			return -EAGAIN;
		nanosleep(&nap, NULL);
	}
}

int region_arm_run(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	return patiently(region, region->mechanism->arm, first, end);
}

int region_disarm_run(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	return patiently(region, region->mechanism->disarm, first, end);
}
