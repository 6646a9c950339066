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
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/errno_name.h"
#include "base/math.h"
#include "kernel/abi.h"
#include "kernel/backoff.h"
#include "kernel/holes.h"
#include "kernel/own.h"
#include "kernel/pagemap.h"
#include "kernel/process.h"
#include "region/lazy.h"
#include "region/mapper.h"
#include "region/meter.h"
#include "region/plan.h"
#include "region/tables.h"
#include "region/view.h"

/* What is touched of a ledger when its region is opened, so that first faults do not: that of 16 GiB. A reservation
 * that is larger is sparse, most probably, and takes what it uses. */
#define LEDGER_TOUCH_BYTES (4ull << 20)

/* Between two tries of a call that an event puts off. */
#define EVENT_SLEEP_NS 20000

/* How long something that is not where it was may be moving to another place, although the kernel has no event of it; a
 * handler that gets no CPU may take longer to act on one. */
#define MOVE_RETRY_NS 100000000ull

/* How often a page is read again that was neither there nor not there. */
#define MEM_TRIES 8

static unsigned region_log2_of(uint64_t power_of_two)
{
	return (unsigned)__builtin_ctzll(power_of_two);
}

static unsigned region_memfd_flags(const struct region_plan *plan)
{
	unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;

	if (plan->memory == UFFDWP_MEMORY_HUGETLB)
		flags |= MFD_HUGETLB | (region_log2_of(plan->page_bytes) << MFD_HUGE_SHIFT);
	return flags;
}

static int region_memory_seal(struct uffdwp_region *region)
{
	int error = region->k->add_seals(region->fd, F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK);

	if (error)
		return text_fail(region->text, error,
		                 "sealing the memfd failed: this kernel lacks F_SEAL_FUTURE_WRITE "
		                 "(Linux 5.1); leave UFFDWP_REGION_CREATE_SEALED out");
	region->sealed = 1;
	return 0;
}

static int region_memory_place(struct uffdwp_region *region, void *memory, const struct region_plan *plan)
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
	region->inherits = (options->flags & UFFDWP_REGION_CREATE_INHERIT) != 0;
	if (!region->inherits)
		error = region->k->madvise(memory, plan->capacity_bytes, MADV_DONTFORK);
	return error ? text_fail(region->text, error, "madvise(MADV_DONTFORK) was refused") : 0;
}

static int region_memory_map(struct uffdwp_region *region, const struct region_plan *plan)
{
	int reserve = plan->memory == UFFDWP_MEMORY_HUGETLB ? 0 : MAP_NORESERVE;
	int error = region->k->ftruncate(region->fd, plan->length_bytes);

	if (error)
		return text_fail(region->text, error, "sizing the memfd to %llu bytes failed: %s%s",
		                 (unsigned long long)plan->length_bytes, errno_text(error), region_limit_advice(error));
	void *wanted = plan->options.address;
	void *place = wanted ? NULL : tables_place(region);
	int flags = MAP_SHARED | reserve;
	void *memory = NULL;

	/* Not by MAP_FIXED: where that fails the place may be unmapped, and another thread's by the time it is unmapped
	 * here. */
	if (place)
		region->k->munmap(place, plan->capacity_bytes);
	if (wanted || place)
		memory = region->k->mmap(wanted ? wanted : place, plan->capacity_bytes, PROT_READ | PROT_WRITE,
		                         flags | MAP_FIXED_NOREPLACE, region->fd, 0, &error);
	if (!memory && !wanted)
		memory = region->k->mmap(NULL, plan->capacity_bytes, PROT_READ | PROT_WRITE, flags, region->fd, 0,
		                         &error);
	if (wanted && memory && memory != wanted) { /* Linux before 4.17 takes the address for a hint */
		region->k->munmap(memory, plan->capacity_bytes);
		memory = NULL;
		error = -EEXIST;
	}
	if (!memory && error == -EEXIST)
		return text_fail(region->text, error, "something is mapped at %p already, or within %llu bytes of it",
		                 wanted, (unsigned long long)plan->capacity_bytes);
	if (!memory)
		return text_fail(
		        region->text, error,
		        region->memory == UFFDWP_MEMORY_HUGETLB
		                ? "not enough free huge pages for %llu bytes: raise vm.nr_hugepages"
		        : error == -EAGAIN
		                ? "%llu bytes are more than may be locked after mlockall(MCL_FUTURE): raise the "
		                  "limit of locked memory (ulimit -l)"
		                : "no address space for %llu bytes: lower the length or the capacity, or raise the "
		                  "limit of address space (ulimit -v)",
		        (unsigned long long)plan->capacity_bytes);
	atomic_store(&region->base, (uintptr_t)memory);
	error = region_memory_place(region, memory, plan);
	if (!error && plan->options.flags & UFFDWP_REGION_CREATE_SEALED)
		error = region_memory_seal(region);
	return error;
}

static int region_memory_create(struct uffdwp_region *region, const struct region_plan *plan)
{
	const char *name = plan->options.name ? plan->options.name : "uffdwp";

	region->owned = 1;
	region->fd = region->k->memfd_create(name, region_memfd_flags(plan));
	if (region->fd < 0)
		return text_fail(region->text, region->fd, "memfd_create failed: %s", errno_text(region->fd));
	int error = region_know_file(region);

	return error ? error : region_memory_map(region, plan);
}

static int region_memory_attach(struct uffdwp_region *region, const struct region_plan *plan)
{
	atomic_store(&region->base, (uintptr_t)plan->address);
	region->prot = plan->prot;
	if (plan->options.fd < 0)
		return 0;
	int mode = region->k->access_mode(plan->options.fd);

	if (mode != O_RDWR)
		return text_fail(region->text, mode < 0 ? mode : -EACCES, "fd %d is not open for reading and writing",
		                 plan->options.fd);
	region->fd = region->k->dup(plan->options.fd, 0);
	if (region->fd < 0)
		return text_fail(region->text, region->fd, "fd %d cannot be duplicated: %s", plan->options.fd,
		                 errno_text(region->fd));
	mode = region_know_file(region);
	if (mode)
		return mode;
	region->fd_offset = plan->options.fd_offset;
	region->sealed = region->k->get_seals(region->fd) > 0 &&
	                 (region->k->get_seals(region->fd) & (F_SEAL_FUTURE_WRITE | F_SEAL_WRITE)) != 0;
	return 0;
}

/* The mapping of this process, by which content is seen; no access to it is an event. Private memory has none
 * but addresses alone, by which the registry knows the region. */
static int region_memory_adopt(struct uffdwp_region *region, const struct region_plan *plan)
{
	int is_private = plan->options.flags & UFFDWP_REGION_ADOPT_PRIVATE;
	int prot = is_private ? PROT_NONE : PROT_READ | PROT_WRITE;
	int flags = (is_private ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED) | MAP_NORESERVE;
	int error = is_private ? 0 : region_memory_attach(region, plan);

	if (error)
		return error;
	region->is_private = is_private != 0;
	atomic_store(&region->unbegun, is_private != 0);
	region->mappers = pages_new(region->k, sizeof(*region->mappers));
	if (!region->mappers)
		return text_fail(region->text, -ENOMEM, "no memory for a region");
	void *memory =
	        region->k->mmap_unlocked(region->capacity_bytes, prot, flags, region->fd, region->fd_offset, &error);

	if (!memory)
		return text_fail(region->text, error, "the %s cannot be mapped: %s%s",
		                 is_private ? "region's addresses" : "file", errno_text(error),
		                 region_limit_advice(error));
	atomic_store(&region->base, (uintptr_t)memory);
	region->k->madvise(memory, region->capacity_bytes, MADV_DONTFORK); /* best effort, errors ignored */
	return 0;
}

static int region_uffd(struct uffdwp_region *region, const struct region_plan *plan)
{
	uint64_t wanted = region->mechanism->features | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_UNMAP |
	                  UFFD_FEATURE_EXACT_ADDRESS;
	uint64_t granted = 0;

	wanted |= region->delivery == UFFDWP_DELIVERY_INLINE ? UFFD_FEATURE_SIGBUS : UFFD_FEATURE_THREAD_ID;
	region->uffd = kernel_uffd_new(region->k, plan->access, wanted, &granted);
	if (region->uffd < 0)
		return text_fail(region->text, region->uffd,
		                 "no userfaultfd for this region: %s; see uffdwp-ctl doctor", errno_text(region->uffd));
	if (own_take(region->k, region->uffd, region->tag))
		return text_fail(region->text, -ENOMEM, "no memory for a userfaultfd");
	if (region->delivery == UFFDWP_DELIVERY_INLINE && !(granted & UFFD_FEATURE_SIGBUS))
		return text_fail(region->text, -EOPNOTSUPP,
		                 "this kernel lacks UFFD_FEATURE_SIGBUS, which inline delivery "
		                 "needs: ask for UFFDWP_DELIVERY_THREAD");
	region->can_poison = (granted & UFFD_FEATURE_POISON) != 0;
	region->threads_known = (granted & UFFD_FEATURE_THREAD_ID) != 0;
	return 0;
}

static uint64_t region_touched_bytes(const struct ledger *ledger)
{
	return (ledger->count / LEDGER_TOUCHED_PAGES + 1) * sizeof(*ledger->touched);
}

static int region_ledger_open(struct uffdwp_region *region)
{
	region->ledger.count = region->capacity_bytes >> region->page_shift;
	region->ledger.pages = pages_new(region->k, region->ledger.count);
	region->ledger.touched = pages_new(region->k, region_touched_bytes(&region->ledger));
	if (!region->ledger.pages || !region->ledger.touched ||
	    losses_open(&region->losses, region->k, region->ledger.count))
		return text_fail(region->text, -ENOMEM, "no memory for the ledger");
	pages_touch(region->k, (void *)region->ledger.pages, math_min_u64(region_pages(region), LEDGER_TOUCH_BYTES));
	return 0;
}

/* What the mechanism needs beside the ledger. */
static int region_helpers_open(struct uffdwp_region *region)
{
	int error = 0;

	if (region_owns_empty(region))
		error = region_open_zeros(region);
	if (error)
		return error;
	if (region->memory != UFFDWP_MEMORY_ANON || region_loses_wp_bits(region) || region->is_private)
		return 0;
	region->pagemap = pagemap_open(region->k);
	error = region->pagemap < 0 ? region->pagemap : own_take(region->k, region->pagemap, region->tag);
	if (!error && region_owns_empty(region))
		region->mem = region->k->open("/proc/self/mem", O_RDONLY | O_CLOEXEC, 0);
	if (!error && region_owns_empty(region))
		error = region->mem < 0 ? region->mem : own_take(region->k, region->mem, region->tag);
	return error ? text_fail(region->text, error,
	                         "/proc/self/mem and /proc/self/pagemap cannot be opened, which mechanism %s "
	                         "needs for anonymous memory: %s",
	                         region->mechanism->name, errno_text(error))
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
	region->page_shift = region_log2_of(plan->page_bytes);
	region->capacity_bytes = plan->capacity_bytes;
	region->memory = plan->memory;
	region->delivery = plan->options.delivery;
	region->runtime = plan->runtime;
	region->process = process_number();
	region->text = plan->text;
	region->fills = plan->fills;
	region->aliases = plan->aliases;
	region->prot = PROT_READ | PROT_WRITE;
	region->on_loss = plan->options.on_loss;
	region->on_loss_user = plan->options.on_loss_user;
	region->tag = own_new();
	region->uffd = -1;
	region->fd = -1;
	region->mem = -1;
	region->pagemap = -1;
	region->wake_fd = -1;
	region->syscalls_wait = plan_lets_syscalls_wait(plan);
	atomic_store(&region->owns_empty, (uint32_t)plan->mechanism->owns_empty);
	atomic_store(&region->length_bytes, plan->length_bytes);
	atomic_store(&region->merges, 1);
	lock_init(&region->lock);
	return region;
}

static int region_needs_uffd(const struct uffdwp_region *region)
{
	return region->mechanism->register_modes[region->memory] != 0;
}

static int region_watch_open(struct uffdwp_region *region, const struct region_plan *plan)
{
	if (region->mappers) {
		struct mapper *mapper;
		int error = mapper_open(region, plan->mapper, &mapper);

		region->uffd = error ? -1 : mapper->uffd;
		region->can_poison = plan->can_poison;
		return error;
	}
	if (!region_needs_uffd(region)) {
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
	int error = plan->mapper    ? region_memory_adopt(region, plan)
	            : plan->address ? region_memory_attach(region, plan)
	                            : region_memory_create(region, plan);

	if (!error)
		error = region_ledger_open(region);
	if (!error && region->is_private) /* what is discarded before a restore begins */
		error = region_note_changes(region);
	if (!error)
		error = region_helpers_open(region);
	if (!error)
		error = region_watch_open(region, plan);
	if (error) {
		region_free(region);
		return error;
	}
	*out = region;
	return 0;
}

static uint64_t region_written_bytes(const struct uffdwp_region *region)
{
	return math_bitmap_bytes(region->ledger.count);
}

void region_free(struct uffdwp_region *region)
{
	const struct kernel_ops *k = region->k;
	void *base = (void *)atomic_load(&region->base);
	int is_mapped = region->mappers ? base != NULL : region->owned && base && !atomic_load(&region->unmapped);

	if (atomic_load(&region->maps))
		region->mechanism->watch(region, 0);
	if (region->mappers)
		mappers_free(region);
	else
		own_close(k, region->uffd, region->tag);
	own_close(k, region->mem, region->tag);
	own_close(k, region->pagemap, region->tag);
	if (is_mapped)
		k->munmap(base, region->capacity_bytes);
	if (region->fd >= 0 && !region_check_file(region))
		k->close(region->fd);
	lazy_free(k, atomic_load(&region->lazy));
	region_spare_forget(region);
	pages_free(k, atomic_load(&region->zeros), region->page_bytes);
	pages_free(k, atomic_load(&region->meter), sizeof(struct meter));
	losses_close(&region->losses, k);
	pages_free(k, (void *)atomic_load(&region->written), region_written_bytes(region));
	pages_free(k, (void *)atomic_load(&region->changed), region_written_bytes(region));
	pages_free(k, (void *)region->kept_content, region_written_bytes(region));
	pages_free(k, (void *)region->ledger.pages, region->ledger.count);
	pages_free(k, (void *)region->ledger.touched, region_touched_bytes(&region->ledger));
	lock_fini(&region->lock);
	pages_free(k, region, sizeof(*region));
}

/* 1: an event waits to be read (the kernel looks at that before it looks at the range, which is empty), or was read and
 * is acted on. The flag is up before the event is read. */
static int region_is_changing(struct uffdwp_region *region)
{
	uint64_t base = (uint64_t)atomic_load(&region->base);

	return region->uffd >= 0 && (region->k->uffd_writeprotect(region->uffd, base, 0, 0) == -EAGAIN ||
	                             atomic_load(&region->events_in_hand));
}

int region_has_moved(struct uffdwp_region *region, uintptr_t base_before)
{
	uint64_t start = kernel_now_ns();
	unsigned turn = BACKOFF_YIELD;

	while (!region->mappers && atomic_load(&region->base) == base_before && !atomic_load(&region->dead)) {
		uint64_t waited = kernel_now_ns() - start;

		if (waited > REGION_EVENT_NS || (waited > MOVE_RETRY_NS && !region_is_changing(region)))
			break;
		kernel_back_off(region->k, &turn);
	}
	return atomic_load(&region->base) != base_before;
}

/* What to do with an entry that has no page. */
enum empty { EMPTY_IS_ZEROS, EMPTY_IF_QUIET };

/* A page of anonymous memory that /proc/self/mem did not give: bytes of zeros, where its entry is empty. */
static ssize_t region_read_none(struct uffdwp_region *region, uint64_t offset, void *to, size_t length,
                                enum empty empty)
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
static ssize_t region_read_mem(struct uffdwp_region *region, uint64_t offset, void *to, size_t length, enum empty empty)
{
	ssize_t got = -EIO;

	for (int i = 0; i < MEM_TRIES && got == -EIO; i++) {
		got = region->k->pread(region->mem, to, length, atomic_load(&region->base) + offset);
		if (got <= 0 && got != -EINTR)
			got = region_read_none(region, offset, to, length, empty);
	}
	return got;
}

static ssize_t region_read_mapping(struct uffdwp_region *region, uint64_t offset, void *to, size_t length,
                                   enum empty empty)
{
	if (region->mem >= 0)
		return region_read_mem(region, offset, to, length, empty);
	return region->k->read_self(to, (void *)(atomic_load(&region->base) + offset), length);
}

static ssize_t region_read_once(struct uffdwp_region *region, uint64_t offset, void *to, size_t length,
                                enum empty empty)
{
	if (region->fd >= 0)
		return region->k->pread(region->fd, to, length, region->fd_offset + offset);
	ssize_t got = region_read_mapping(region, offset, to, length, empty);

	return got == -EFAULT ? -ESTALE : got; /* unmapped or moved; the event that says which is pending */
}

static int region_read_all(struct uffdwp_region *region, uint64_t offset, void *buffer, size_t length, enum empty empty)
{
	unsigned char *to = buffer;

	while (length > 0) {
		ssize_t got = region_read_once(region, offset, to, length, empty);

		if (got == -EINTR)
			continue;
		if (got <= 0)
			return got < 0 ? (int)got : -EIO; /* 0: the file was cut outside of the library */
		to += got;
		offset += (uint64_t)got;
		length -= (size_t)got;
	}
	return 0;
}

int region_read(struct uffdwp_region *region, uint64_t offset, void *buffer, size_t length)
{
	return region_read_all(region, offset, buffer, length, EMPTY_IF_QUIET);
}

int region_read_empty(struct uffdwp_region *region, uint64_t offset, void *buffer, size_t length)
{
	return region_read_all(region, offset, buffer, length, EMPTY_IS_ZEROS);
}

/* Huge pages have a word for each system page of theirs. */
int region_entries_at(const struct uffdwp_region *region, int pagemap, uint64_t address, size_t count,
                      uint64_t *entries)
{
	size_t step = region->page_bytes > (uint64_t)sysconf(_SC_PAGESIZE) ? 1 : count;
	int error = 0;

	for (size_t at = 0; at < count && !error; at += step)
		error = pagemap_read(region->k, pagemap, address + at * region->page_bytes, step, &entries[at]);
	return error;
}

int region_entries(struct uffdwp_region *region, int pagemap, uint64_t first, uint64_t end, uint64_t *entries)
{
	return region_entries_at(region, pagemap, (uint64_t)(uintptr_t)region_address(region, first),
	                         (size_t)(end - first), entries);
}

/* Which of the up to 64 pages [first, end) have one of these bits in their pagemap word; none if that is unreadable. */
static uint64_t region_pages_with(struct uffdwp_region *region, int pagemap, uint64_t first, uint64_t end,
                                  uint64_t bits)
{
	uint64_t entries[64] = {0};
	uint64_t found = 0;

	if (region_entries(region, pagemap, first, end, entries))
		return 0;
	for (uint64_t page = first; page < end; page++)
		found |= (uint64_t)((entries[page - first] & bits) != 0) << (page - first);
	return found;
}

/* Under mprotect: the kernel refuses to populate for writing what allows no write, and touches nothing then. */
static uint64_t region_writable_pages(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	uint64_t writable = 0;

	for (uint64_t page = first; page < end; page++) {
		int error = region->k->madvise(region_address(region, page), region->page_bytes, MADV_POPULATE_WRITE);

		writable |= (uint64_t)(error != -EINVAL && error != -EFAULT) << (page - first);
	}
	return writable;
}

uint64_t region_bare(struct uffdwp_region *region, int pagemap, uint64_t first, uint64_t end)
{
	uint64_t entries[64];
	uint64_t bare = 0;

	if (region->uffd < 0)
		return region->shows_writable ? region_writable_pages(region, first, end) : 0;
	if (region_entries(region, pagemap, first, end, entries))
		return math_low_bits(end - first);
	for (uint64_t page = first; page < end; page++) {
		uint64_t entry = entries[page - first];
		int is_there = (entry & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED)) != 0 || !region_owns_empty(region);

		bare |= (uint64_t)(is_there && !(entry & PAGEMAP_UFFD_WP)) << (page - first);
	}
	return bare;
}

void region_note_bare(struct uffdwp_region *region)
{
	atomic_store(&region->merges, 1);
}

uint64_t region_seek(struct uffdwp_region *region, uint64_t offset, uint64_t end, enum region_seek what)
{
	uint64_t base = region->fd_offset;
	uint64_t found;

	if (region->fd < 0 || region->memory != UFFDWP_MEMORY_SHMEM)
		return what == REGION_SEEK_HOLE ? end : offset;
	if (what == REGION_SEEK_HOLE)
		found = holes_next(region->k, region->fd, base + offset, base + end);
	else if (what == REGION_SEEK_DATA)
		found = holes_next_data(region->k, region->fd, base + offset, base + end);
	else
		found = holes_next_data_hint(region->k, region->fd, base + offset, base + end);
	return found - base;
}

/* Whether pages are in memory is cheap to ask; only of those that are not, a seek distinguishes swapped ones from
 * holes. (Never SEEK_HOLE here: it walks to the end of the data, whatever its size.) */
static uint64_t region_look_for_data(struct uffdwp_region *region, uint64_t first, uint64_t end, enum region_seek what)
{
	uint64_t data = math_low_bits(end - first);
	unsigned char in_memory[64];
	unsigned shift = region->page_shift;

	if (region->fd < 0 || region->memory != UFFDWP_MEMORY_SHMEM ||
	    region->k->mincore(region_address(region, first), (end - first) << shift, in_memory))
		return data;
	for (uint64_t page = first; page < end; page++) {
		if (in_memory[page - first] & 1)
			continue;
		uint64_t next = region_seek(region, page << shift, end << shift, what) >> shift;

		for (; page < next; page++)
			data &= ~(1ull << (page - first));
	}
	return data;
}

uint64_t region_data(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	return region_look_for_data(region, first, end, REGION_SEEK_DATA);
}

int region_is_mapped(struct uffdwp_region *region, uint64_t page)
{
	unsigned char ignored;

	return region->k->mincore(region_address(region, page), 1, &ignored) != -ENOMEM;
}

/* mincore(2) takes the swap cache for memory; cachestat(2) does not, where it is available. */
int region_is_swapped(struct uffdwp_region *region, uint64_t page)
{
	unsigned char in_memory = 1;
	uint64_t cached;
	uint64_t evicted;

	if (region->memory != UFFDWP_MEMORY_SHMEM || region->fd < 0)
		return 0;
	if (!region->k->cachestat(region->fd, region->fd_offset + (page << region->page_shift), region->page_bytes,
	                          &cached, &evicted))
		return evicted != 0;
	region->k->mincore(region_address(region, page), 1, &in_memory);
	return !(in_memory & 1);
}

/* Where entries are emptied and filled by us, whether one is there says nothing; but one that is empty can be filled
 * with content only if there is some. It is filled plain: so only where nothing is armed, or the bytes are safe. What
 * cannot be asked has no content before, and has not lost it after. */
static uint64_t region_huge_content(struct uffdwp_region *region, uint64_t first, uint64_t end, int claimed)
{
	uint64_t content = 0;

	for (uint64_t page = first; page < end; page++) {
		if (!claimed && ledger_get(&region->ledger, page) != LEDGER_FREE)
			continue;
		int64_t filled =
		        region->mappers
		                ? mappers_continue(region, page, UFFDIO_CONTINUE_MODE_DONTWAKE)
		                : region->k->uffd_continue(region->uffd, (uintptr_t)region_address(region, page),
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
		return region_look_for_data(region, first, end, claimed ? REGION_SEEK_DATA : REGION_SEEK_DATA_HINT);
	if (region->memory == UFFDWP_MEMORY_ANON && region->pagemap >= 0)
		return region_pages_with(region, region->pagemap, first, end, PAGEMAP_PRESENT | PAGEMAP_SWAPPED);
	if (region->memory != UFFDWP_MEMORY_HUGETLB)
		return 0;
	if (region_owns_empty(region))
		return region_huge_content(region, first, end, claimed);
	for (uint64_t page = first; page < end; page++) {
		if (!region->k->mincore(region_address(region, page), (size_t)sysconf(_SC_PAGESIZE), &mapped))
			content |= (uint64_t)(mapped & 1) << (page - first);
	}
	return content;
}

/* 1: surely all zeros. A look at the start is enough for most pages. */
static int region_is_zeros(struct uffdwp_region *region, uint64_t page)
{
	unsigned char bytes[4096];
	uint64_t offset = page << region->page_shift;

	for (uint64_t at = 0, step = 64; at < region->page_bytes;
	     at += step, step = math_min_u64(sizeof(bytes), region->page_bytes - at)) {
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
		if (in_memory[page - first] & 1 && content >> (page - first) & 1 && region_is_zeros(region, page))
			content &= ~(1ull << (page - first));
	}
	return content;
}

/* The event's owner runs on when its event was read, and only then the kernel takes calls again: yield the CPU to
 * both. */
static int region_with_retry(struct uffdwp_region *region, int (*call)(struct uffdwp_region *, uint64_t, uint64_t),
                             uint64_t first, uint64_t end)
{
	const struct timespec delay = {.tv_nsec = EVENT_SLEEP_NS};
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
			until = now + REGION_EVENT_NS;
		else if (now > until)
			return -EAGAIN;
		nanosleep(&delay, NULL);
	}
}

int region_arm_run(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	return region_with_retry(region, region->mechanism->arm, first, end);
}

int region_disarm_run(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	unsigned turn = 0;

	while (view_break(region, first, end)) /* until a child is known, or has ended */
		kernel_back_off(region->k, &turn);
	int error = region_with_retry(region, region->mechanism->disarm, first, end);

	if (error)
		atomic_store(&region->clinging, 1);
	return error;
}

static int region_open_bits(const struct uffdwp_region *region, _Atomic(_Atomic uint64_t *) *bits)
{
	void *memory = atomic_load(bits) ? NULL : pages_new(region->k, region_written_bytes(region));

	if (memory)
		atomic_store_explicit(bits, memory, memory_order_release);
	return atomic_load(bits) ? 0 : -ENOMEM;
}

int region_note_changes(struct uffdwp_region *region)
{
	return region_open_bits(region, &region->changed);
}

int region_track(struct uffdwp_region *region)
{
	if (region_open_bits(region, &region->written))
		return -ENOMEM;
	atomic_store(&region->coarse, REGION_EXACT);
	atomic_fetch_add(&region->tracked, 1);
	(void)region_activate(region);
	return 0;
}

void region_untrack(struct uffdwp_region *region)
{
	atomic_fetch_sub(&region->tracked, 1);
}
