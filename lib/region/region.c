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
#include "region/lazy.h"
#include "region/view.h"

/* How long an arming call retries while a kernel event is on its way to the handler that must read it. */
#define EVENT_PATIENCE_NS 10000000000ull
#define EVENT_NAP_NS 20000

/* How long something that is not where it was may be on its way to another place. */
#define MOVE_PATIENCE_NS 100000000ull

/* How often a page is read again that was neither there nor not there. */
#define MEM_TRIES 8

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
	region->prot = plan->prot;
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
	uint64_t wanted = region->mechanism->features | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_UNMAP |
	                  UFFD_FEATURE_EXACT_ADDRESS;
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
	region->can_poison = (granted & UFFD_FEATURE_POISON) != 0;
	return 0;
}

int region_register(struct uffdwp_region *region)
{
	int error = region->k->uffd_register(region->uffd, (uint64_t)(uintptr_t)region_address(region, 0),
	                                     region->capacity_bytes, region->mechanism->register_modes[region->memory]);

	if (error == -EBUSY)
		return text_fail(region->text, error, "another userfaultfd is registered in this range");
	if (error)
		return text_fail(region->text, error, "registering the range for write protection was refused: %s",
		                 strerror(-error));
	return 0;
}

static uint64_t touched_bytes(const struct ledger *ledger)
{
	return (ledger->count / LEDGER_TOUCHED_PAGES + 1) * sizeof(*ledger->touched);
}

static int ledger_open(struct uffdwp_region *region)
{
	region->ledger.count = region->capacity_bytes >> region->page_shift;
	region->ledger.pages = pages_new(region->k, region->ledger.count);
	region->ledger.touched = pages_new(region->k, touched_bytes(&region->ledger));
	if (!region->ledger.pages || !region->ledger.touched ||
	    losses_open(&region->losses, region->k, region->ledger.count))
		return text_fail(region->text, -ENOMEM, "no memory for the ledger");
	pages_touch(region->k, (void *)region->ledger.pages, region_pages(region));
	return 0;
}

/* What the mechanism needs beside the ledger. */
static int helpers_open(struct uffdwp_region *region)
{
	int error = 0;

	if (region_owns_empty(region) && !(region->zeros = pages_new(region->k, region->page_bytes)))
		return text_fail(region->text, -ENOMEM, "no address space for a page of zeros");
	if (region->memory != UFFDWP_MEMORY_ANON || region_loses_marks(region))
		return 0;
	region->pagemap = region->k->open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC, 0);
	if (region->pagemap < 0)
		error = region->pagemap;
	if (!error && region_owns_empty(region))
		region->mem = region->k->open("/proc/self/mem", O_RDONLY | O_CLOEXEC, 0);
	if (!error && region_owns_empty(region) && region->mem < 0)
		error = region->mem;
	return error ? text_fail(region->text, error,
	                         "/proc/self/mem and /proc/self/pagemap cannot be opened, which mechanism %s "
	                         "needs for anonymous memory: %s",
	                         region->mechanism->name, strerror(-error))
	             : 0;
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
	region->fills = plan->fills;
	region->aliases = plan->aliases;
	region->prot = PROT_READ | PROT_WRITE;
	region->on_loss = plan->options.on_loss;
	region->on_loss_user = plan->options.on_loss_user;
	region->uffd = -1;
	region->fd = -1;
	region->mem = -1;
	region->pagemap = -1;
	region->wake_fd = -1;
	region->populate = region_owns_empty(region) &&
	                   (region->delivery == UFFDWP_DELIVERY_INLINE || plan->access == KERNEL_ACCESS_USER_MODE);
	atomic_store(&region->length_bytes, plan->length_bytes);
	pthread_mutex_init(&region->lock, NULL);
	return region;
}

static int needs_uffd(const struct uffdwp_region *region)
{
	return region->mechanism->register_modes[region->memory] != 0;
}

static int watch_open(struct uffdwp_region *region, const struct region_plan *plan)
{
	if (!needs_uffd(region)) {
		region->mechanism->watch(region, 1);
		return 0;
	}
	int error = region_uffd(region, plan);

	return error ? error : region_register(region);
}

int region_open(const struct region_plan *plan, struct uffdwp_region **out)
{
	struct uffdwp_region *region = region_new(plan);

	if (!region)
		return text_fail(plan->text, -ENOMEM, "no memory for a region");
	int error = plan->address ? memory_attach(region, plan) : memory_create(region, plan);

	if (!error)
		error = ledger_open(region);
	if (!error)
		error = helpers_open(region);
	if (!error)
		error = watch_open(region, plan);
	if (error) {
		region_free(region);
		return error;
	}
	*out = region;
	return 0;
}

int region_prepare(struct uffdwp_region *region)
{
	int error = atomic_exchange(&region->torn, 0) ? region_register(region) : 0;

	if (error)
		atomic_store(&region->torn, 1);
	else if (region->mechanism->prepare)
		region->mechanism->prepare(region);
	return error;
}

void region_unregister(struct uffdwp_region *region)
{
	if (region->uffd < 0) {
		region->mechanism->disarm(region, 0, region->ledger.count);
		return;
	}
	region->k->uffd_unregister(region->uffd, (uint64_t)(uintptr_t)region_address(region, 0),
	                           region->capacity_bytes);
}

static uint64_t written_bytes(const struct uffdwp_region *region)
{
	return round_up(region->ledger.count, 64) / 8;
}

void region_free(struct uffdwp_region *region)
{
	const struct kernel_ops *k = region->k;
	void *base = (void *)atomic_load(&region->base);

	if (atomic_load(&region->maps))
		region->mechanism->watch(region, 0);
	if (region->uffd >= 0)
		k->close(region->uffd);
	if (region->mem >= 0)
		k->close(region->mem);
	if (region->pagemap >= 0)
		k->close(region->pagemap);
	if (region->owned && base && !atomic_load(&region->unmapped))
		k->munmap(base, region->capacity_bytes);
	if (region->fd >= 0)
		k->close(region->fd);
	lazy_free(k, atomic_load(&region->lazy));
	pages_free(k, region->zeros, region->page_bytes);
	losses_close(&region->losses, k);
	pages_free(k, (void *)atomic_load(&region->written), written_bytes(region));
	pages_free(k, (void *)atomic_load(&region->changed), written_bytes(region));
	pages_free(k, (void *)region->kept_content, written_bytes(region));
	pages_free(k, (void *)region->ledger.pages, region->ledger.count);
	pages_free(k, (void *)region->ledger.touched, touched_bytes(&region->ledger));
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

/* What to do with an entry that has no page. */
enum empty { EMPTY_IS_ZEROS, EMPTY_IF_QUIET };

/* A page of anonymous memory that /proc/self/mem did not give: bytes of zeros, where its entry is empty. */
static ssize_t read_none(struct uffdwp_region *region, uint64_t offset, void *to, size_t length, enum empty empty)
{
	uint64_t page = offset >> region->page_shift;
	uint64_t rest = region->page_bytes - (offset & (region->page_bytes - 1));
	uint64_t entry;
	int error = region_entries(region, region->pagemap, page, page + 1, &entry);

	if (error)
		return error;
	if (entry & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED)) /* it came meanwhile, or cannot be read */
		return -EIO;
	if (!region_is_mapped(region, page))
		return -EFAULT;
	/* MADV_DONTNEED empties an entry after its event was read. */
	if (empty == EMPTY_IF_QUIET && atomic_load(&region->events_in_hand))
		return -EAGAIN;
	length = length < rest ? length : (size_t)rest;
	memset(to, 0, length);
	return (ssize_t)length;
}

/* Anonymous memory whose empty entries are ours: a read through its mapping would wait for us. */
static ssize_t read_mem(struct uffdwp_region *region, uint64_t offset, void *to, size_t length, enum empty empty)
{
	ssize_t got = -EIO;

	for (int i = 0; i < MEM_TRIES && got == -EIO; i++) {
		got = region->k->pread(region->mem, to, length, atomic_load(&region->base) + offset);
		if (got <= 0 && got != -EINTR)
			got = read_none(region, offset, to, length, empty);
	}
	return got;
}

static ssize_t read_mapping(struct uffdwp_region *region, uint64_t offset, void *to, size_t length, enum empty empty)
{
	if (region->mem >= 0)
		return read_mem(region, offset, to, length, empty);
	return region->k->read_self(to, (void *)(atomic_load(&region->base) + offset), length);
}

static ssize_t read_once(struct uffdwp_region *region, uint64_t offset, void *to, size_t length, enum empty empty,
                         int patient)
{
	uintptr_t base = atomic_load(&region->base);

	if (region->fd >= 0)
		return region->k->pread(region->fd, to, length, region->fd_offset + offset);
	ssize_t got = read_mapping(region, offset, to, length, empty);

	if (got != -EFAULT)
		return got;
	/* Unmapped or moved; the event that says which is on its way. */
	return patient && region_has_moved(region, base) ? -EINTR : -ESTALE;
}

static int read_all(struct uffdwp_region *region, uint64_t offset, void *buffer, size_t length, enum empty empty,
                    int patient)
{
	unsigned char *to = buffer;

	while (length > 0) {
		ssize_t got = read_once(region, offset, to, length, empty, patient);

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
	return read_all(region, offset, buffer, length, EMPTY_IF_QUIET, 0);
}

int region_read_empty(struct uffdwp_region *region, uint64_t offset, void *buffer, size_t length)
{
	return read_all(region, offset, buffer, length, EMPTY_IS_ZEROS, 0);
}

int region_read_patiently(struct uffdwp_region *region, uint64_t offset, void *buffer, size_t length)
{
	return read_all(region, offset, buffer, length, EMPTY_IF_QUIET, 1);
}

/* Huge pages have a word for each system page of theirs. */
int region_entries(struct uffdwp_region *region, int pagemap, uint64_t first, uint64_t end, uint64_t *entries)
{
	uint64_t system_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t at = (uint64_t)(uintptr_t)region_address(region, first) / system_bytes * sizeof(*entries);
	uint64_t step = region->page_bytes / system_bytes * sizeof(*entries);
	size_t length = step > sizeof(*entries) ? sizeof(*entries) : (size_t)(end - first) * sizeof(*entries);

	for (uint64_t page = first; page < end; page += length / sizeof(*entries)) {
		ssize_t got = region->k->pread(pagemap, &entries[page - first], length, at + (page - first) * step);

		if (got != (ssize_t)length)
			return got < 0 ? (int)got : -EIO;
	}
	return 0;
}

/* Which of the up to 64 pages [first, end) have one of these bits in their pagemap word; none where it cannot be read.
 */
static uint64_t pages_with(struct uffdwp_region *region, int pagemap, uint64_t first, uint64_t end, uint64_t bits)
{
	uint64_t entries[64];
	uint64_t found = 0;

	if (region_entries(region, pagemap, first, end, entries))
		return 0;
	for (uint64_t page = first; page < end; page++)
		found |= (uint64_t)((entries[page - first] & bits) != 0) << (page - first);
	return found;
}

uint64_t region_marks(struct uffdwp_region *region, int pagemap, uint64_t first, uint64_t end)
{
	return pages_with(region, pagemap, first, end, PAGEMAP_UFFD_WP);
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

	return region->k->mincore(region_address(region, page), 1, &ignored) != -ENOMEM;
}

/* mincore(2) takes the swap cache for memory; cachestat(2) does not, where it is to be had. */
int region_is_swapped(struct uffdwp_region *region, uint64_t page)
{
	unsigned char in_memory = 1;
	uint64_t evicted;

	if (region->memory != UFFDWP_MEMORY_SHMEM || region->fd < 0)
		return 0;
	if (!region->k->cachestat(region->fd, region->fd_offset + (page << region->page_shift), region->page_bytes,
	                          &evicted))
		return evicted != 0;
	region->k->mincore(region_address(region, page), 1, &in_memory);
	return !(in_memory & 1);
}

/* Where entries are emptied and filled by us, whether one is there says nothing; but one that is empty can be filled
 * with content only if there is some. It is filled plain: so only where nothing is armed, or the bytes are safe. What
 * cannot be asked has no content before, and has not lost it after. */
static uint64_t huge_content(struct uffdwp_region *region, uint64_t first, uint64_t end, int claimed)
{
	uint64_t content = 0;

	for (uint64_t page = first; page < end; page++) {
		if (!claimed && ledger_get(&region->ledger, page) != LEDGER_FREE)
			continue;
		int64_t filled = region->k->uffd_continue(region->uffd, (uintptr_t)region_address(region, page),
		                                          region->page_bytes, UFFDIO_CONTINUE_MODE_DONTWAKE);
		int has = filled > 0 || filled == -EEXIST || (claimed && filled != -EFAULT);

		content |= (uint64_t)has << (page - first);
	}
	return content;
}

uint64_t region_content(struct uffdwp_region *region, uint64_t first, uint64_t end, int claimed)
{
	uint64_t content = 0;
	unsigned char mapped;

	if (region->memory == UFFDWP_MEMORY_SHMEM && region->fd >= 0)
		return region_data(region, first, end);
	if (region->memory == UFFDWP_MEMORY_ANON && region->pagemap >= 0)
		return pages_with(region, region->pagemap, first, end, PAGEMAP_PRESENT | PAGEMAP_SWAPPED);
	if (region->memory != UFFDWP_MEMORY_HUGETLB)
		return 0;
	if (region_owns_empty(region))
		return huge_content(region, first, end, claimed);
	for (uint64_t page = first; page < end; page++) {
		if (!region->k->mincore(region_address(region, page), (size_t)sysconf(_SC_PAGESIZE), &mapped))
			content |= (uint64_t)(mapped & 1) << (page - first);
	}
	return content;
}

/* 1: surely all zeros. A look at the start is enough for most pages. */
static int is_zeros(struct uffdwp_region *region, uint64_t page)
{
	unsigned char bytes[4096];
	uint64_t offset = page << region->page_shift;

	for (uint64_t at = 0, step = 64; at < region->page_bytes;
	     at += step, step = min_u64(sizeof(bytes), region->page_bytes - at)) {
		if (region_read(region, offset + at, bytes, step))
			return 0;
		for (uint64_t i = 0; i < step; i++) {
			if (bytes[i])
				return 0;
		}
	}
	return 1;
}

uint64_t region_content_but_zeros(struct uffdwp_region *region, uint64_t first, uint64_t end, uint64_t content)
{
	unsigned char in_memory[64];

	if (region->memory != UFFDWP_MEMORY_SHMEM ||
	    region->k->mincore(region_address(region, first), (end - first) << region->page_shift, in_memory))
		return content;
	for (uint64_t page = first; page < end; page++) {
		if (in_memory[page - first] & 1 && content >> (page - first) & 1 && is_zeros(region, page))
			content &= ~(1ull << (page - first));
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
	view_break(region, first, end);
	return patiently(region, region->mechanism->disarm, first, end);
}

static int open_bits(const struct uffdwp_region *region, _Atomic(_Atomic uint64_t *) *bits)
{
	void *memory = atomic_load(bits) ? NULL : pages_new(region->k, written_bytes(region));

	if (memory)
		atomic_store_explicit(bits, memory, memory_order_release);
	return atomic_load(bits) ? 0 : -ENOMEM;
}

int region_note_changes(struct uffdwp_region *region)
{
	return open_bits(region, &region->changed);
}

int region_track(struct uffdwp_region *region)
{
	if (open_bits(region, &region->written))
		return -ENOMEM;
	atomic_store(&region->coarse, 0);
	atomic_fetch_add(&region->tracked, 1);
	atomic_store(&region->active, 1);
	return 0;
}

void region_untrack(struct uffdwp_region *region)
{
	atomic_fetch_sub(&region->tracked, 1);
}
