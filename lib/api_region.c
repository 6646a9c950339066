/* SPDX-License-Identifier: MIT */
/* Regions, as api.c: checks, then calls. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <numa.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "api_private.h"
#include "base/math.h"
#include "base/signals.h"
#include "base/trace.h"
#include "fault/audit.h"
#include "fault/fault.h"
#include "kernel/abi.h"
#include "kernel/maps.h"
#include "kernel/procfs.h"
#include "track/track.h"

/* The smallest structure that was ever released. */
#define REGION_OPTIONS_SZ_MIN sizeof(struct uffdwp_region_options)

#define NAME_MAX_BYTES 200

static int check_numa(const struct uffdwp_region_options *options, struct text *text)
{
	if (options->numa > UFFDWP_NUMA_INTERLEAVE)
		return text_fail(text, -EINVAL, "unknown NUMA placement %u", (unsigned)options->numa);
	if (options->numa == UFFDWP_NUMA_DEFAULT)
		return 0;
	if (!options->numa_nodes)
		return text_fail(text, -EINVAL, "a NUMA placement needs nodes: set bits in numa_nodes");
	if (numa_available() < 0)
		return text_fail(text, -EINVAL, "this kernel has no NUMA placement: use UFFDWP_NUMA_DEFAULT");
	if (63 - __builtin_clzll(options->numa_nodes) > numa_max_node())
		return text_fail(text, -EINVAL, "numa_nodes %#llx has a node that does not exist: the last is %d",
		                 (unsigned long long)options->numa_nodes, numa_max_node());
	return 0;
}

static int check_region_options(const struct uffdwp_region_options *options, uint32_t flags, struct text *text)
{
	int error = api_unknown_flags(text, options->flags, flags, options->reserved);

	if (!error && options->delivery > UFFDWP_DELIVERY_INLINE)
		error = text_fail(text, -EINVAL, "unknown delivery %u", (unsigned)options->delivery);
	if (!error && options->mechanism >= UFFDWP_MECHANISM_COUNT)
		error = text_fail(text, -EINVAL, "unknown mechanism %u", (unsigned)options->mechanism);
	if (!error && options->name && strlen(options->name) > NAME_MAX_BYTES)
		error = text_fail(text, -EINVAL, "name is longer than %d bytes", NAME_MAX_BYTES);
	return error ? error : check_numa(options, text);
}

static uint64_t created_page_bytes(const struct kernel_ops *k, const struct uffdwp_region_options *options)
{
	uint64_t kib;

	if (!(options->flags & UFFDWP_REGION_HUGETLB))
		return (uint64_t)sysconf(_SC_PAGESIZE);
	if (options->huge_page_bytes)
		return options->huge_page_bytes;
	return procfs_number(k, "/proc/meminfo", "Hugepagesize:", &kib) == 0 ? kib * 1024 : 2ull << 20;
}

static int check_length(uint64_t length, uint64_t page_bytes, const char *what, struct text *text)
{
	if (!length)
		return text_fail(text, -EINVAL, "%s is 0", what);
	if (!is_aligned(length, page_bytes))
		return text_fail(text, -EINVAL, "%s %llu is not a multiple of the page size %llu", what,
		                 (unsigned long long)length, (unsigned long long)page_bytes);
	return 0;
}

static int check_created_size(const struct region_plan *plan, struct text *text)
{
	int error = check_length(plan->length_bytes, plan->page_bytes, "length", text);

	if (!error && plan->options.capacity_bytes)
		error = check_length(plan->capacity_bytes, plan->page_bytes, "capacity_bytes", text);
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

static int plan_create(struct region_plan *plan, struct text *text)
{
	struct uffdwp_region_options *options = &plan->options;
	int error = check_region_options(options, UFFDWP_REGION_SEALED | UFFDWP_REGION_INHERIT | UFFDWP_REGION_HUGETLB,
	                                 text);

	if (error)
		return error;
	plan->memory = options->flags & UFFDWP_REGION_HUGETLB ? UFFDWP_MEMORY_HUGETLB : UFFDWP_MEMORY_SHMEM;
	plan->page_bytes = created_page_bytes(plan->k, options);
	plan->capacity_bytes = options->capacity_bytes ? options->capacity_bytes : plan->length_bytes;
	if (!is_power_of_two(plan->page_bytes) || plan->page_bytes < (uint64_t)sysconf(_SC_PAGESIZE))
		return text_fail(text, -EINVAL, "huge_page_bytes %llu is not a size of huge pages",
		                 (unsigned long long)plan->page_bytes);
	if (options->huge_page_bytes && plan->memory != UFFDWP_MEMORY_HUGETLB)
		return text_fail(text, -EINVAL, "huge_page_bytes goes with UFFDWP_REGION_HUGETLB");
	return check_created_size(plan, text);
}

/* The device of memfds, of shared anonymous memory and of System V segments: the kernel's own tmpfs. */
static int internal_device(const struct kernel_ops *k, uint64_t *device)
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
static int check_memory_file(const struct region_plan *plan)
{
	uint64_t internal;

	if (plan->memory != UFFDWP_MEMORY_SHMEM || plan->mechanism->register_modes[plan->memory])
		return 0;
	if (plan->options.fd >= 0 && plan->k->fs_type(plan->options.fd) == TMPFS_MAGIC)
		return 0;
	int error = internal_device(plan->k, &internal);

	if (error)
		return text_fail(plan->text, error, "what is mapped there cannot be found out: %s", strerror(-error));
	if (plan->options.fd < 0 && internal == plan->device)
		return 0;
	return text_fail(plan->text, -EMEDIUMTYPE,
	                 plan->options.fd < 0
	                         ? "a file is mapped there: attach with its fd, so that tmpfs can be told from a disk"
	                         : "this is a file on disk or a device: only memfd, tmpfs, hugetlb and anonymous "
	                           "memory can be armed");
}

/* Opens the region that a checked plan describes, and lets it be known. */
static int region_start(struct region_plan *plan, struct uffdwp_region **out)
{
	struct uffdwp *runtime = plan->runtime;
	struct uffdwp_region *region = NULL;
	int error = runtime_choose(runtime, plan);

	if (!error && plan->address)
		error = check_memory_file(plan);
	if (!error && plan->address)
		track_yield((uintptr_t)plan->address, (uintptr_t)plan->address + plan->length_bytes);
	if (!error)
		error = region_open(plan, &region);
	if (error)
		return error;
	error = runtime_join(runtime, region);
	if (error) {
		region_unregister(region);
		region_free(region);
		return error;
	}
	*out = region;
	return 0;
}

static void plan_init(struct region_plan *plan, struct uffdwp *runtime, size_t length)
{
	static const struct uffdwp_region_options defaults = UFFDWP_REGION_OPTIONS_INIT;

	memset(plan, 0, sizeof(*plan));
	plan->k = runtime->k;
	plan->access = runtime->access;
	plan->runtime = runtime;
	plan->text = &runtime->text;
	plan->options = defaults;
	plan->length_bytes = length;
}

UFFDWP_EXPORT int uffdwp_region_create(struct uffdwp *runtime, size_t length,
                                       const struct uffdwp_region_options *options, struct uffdwp_region **out)
{
	struct region_plan plan;

	if (api_is_foreign(runtime))
		return -ECHILD;
	plan_init(&plan, runtime, length);
	int error = api_take_options(plan.text, options, REGION_OPTIONS_SZ_MIN, &plan.options, sizeof(plan.options));

	if (!error && !out)
		error = text_fail(plan.text, -EINVAL, "out is NULL");
	if (!error)
		error = plan_create(&plan, plan.text);
	return error ? error : region_start(&plan, out);
}

/* The fd must be what is mapped, at the offset that is said. */
static int check_fd(const struct region_plan *plan, const struct maps_range *range, struct text *text)
{
	struct stat st;
	int fd = plan->options.fd;

	if (fd < 0)
		return 0;
	int error = plan->k->fstat(fd, &st);

	if (error)
		return text_fail(text, error, "fd %d is not open: %s", fd, strerror(-error));
	if (st.st_ino != range->inode || major(st.st_dev) != range->device_major ||
	    minor(st.st_dev) != range->device_minor)
		return text_fail(text, -EINVAL, "fd %d is not the file that is mapped there", fd);
	if (plan->options.fd_offset != range->offset)
		return text_fail(text, -EINVAL, "fd_offset is %llu, but the mapping begins at %llu",
		                 (unsigned long long)plan->options.fd_offset, (unsigned long long)range->offset);
	return 0;
}

static int check_mapping(const struct maps_range *range, struct text *text)
{
	if (!range->covered)
		return text_fail(text, -ENOENT, "the range is not mapped, or not all of it");
	if (!range->readable || !range->writable)
		return text_fail(text, -EACCES, "the range is not mapped readable and writable");
	if (!range->uniform)
		return text_fail(text, -EINVAL, "the range spans mappings of different kinds: attach them one by one");
	if (range->inode && !range->shared)
		return text_fail(text, -EMEDIUMTYPE,
		                 "a private mapping of a file cannot be armed: map it shared, or copy it");
	return 0;
}

/* Another mapping through which this process could write unseen. */
static int check_aliases(struct region_plan *plan, const struct maps_range *range, struct text *text)
{
	struct maps_aliases aliases;
	int error = maps_find_aliases((uint64_t)(uintptr_t)plan->address, plan->length_bytes, range, &aliases);

	if (error)
		return text_fail(text, error, "/proc/self/maps cannot be read: %s", strerror(-error));
	plan->aliases = aliases.count;
	if (!aliases.count)
		return 0;
	error = text_fail(text, -EADDRINUSE,
	                  "%u other writable mappings of this memory are in this process, the first at %#llx-%#llx: "
	                  "writes there are not seen. Unmap them, make them read-only, or say UFFDWP_REGION_ALIASED",
	                  (unsigned)aliases.count, (unsigned long long)aliases.start, (unsigned long long)aliases.end);
	if (!(plan->options.flags & UFFDWP_REGION_ALIASED))
		return error;
	TRACE("attach of %p: %u other writable mappings, the first at %#llx", plan->address, (unsigned)aliases.count,
	      (unsigned long long)aliases.start);
	return 0;
}

static uint32_t memory_of(const struct maps_range *range)
{
	if (range->hugetlb)
		return UFFDWP_MEMORY_HUGETLB;
	return range->inode ? UFFDWP_MEMORY_SHMEM : UFFDWP_MEMORY_ANON;
}

static int plan_attach(struct region_plan *plan, struct text *text)
{
	uint64_t start = (uint64_t)(uintptr_t)plan->address;
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	struct maps_range range;
	int error = check_region_options(&plan->options, UFFDWP_REGION_INHERIT | UFFDWP_REGION_ALIASED, text);

	if (!error && !plan->address)
		error = text_fail(text, -EINVAL, "address is NULL");
	if (!error)
		error = check_length(plan->length_bytes, page, "length", text);
	if (!error && !is_aligned(start, page))
		error = text_fail(text, -EINVAL, "address %p is not aligned to a page", plan->address);
	if (!error && start + plan->length_bytes < start)
		error = text_fail(text, -EINVAL, "the range ends beyond the address space");
	if (!error && (plan->options.capacity_bytes || plan->options.huge_page_bytes || plan->options.numa))
		error = text_fail(text, -EINVAL, "capacity, huge page size and NUMA placement are for created regions");
	if (error)
		return error;
	error = maps_look(start, plan->length_bytes, &range);
	if (error)
		return text_fail(text, error, "/proc/self/maps cannot be read: %s", strerror(-error));
	error = check_mapping(&range, text);
	if (!error)
		error = check_fd(plan, &range, text);
	if (!error)
		error = check_aliases(plan, &range, text);
	plan->device = makedev(range.device_major, range.device_minor);
	plan->prot = PROT_READ | PROT_WRITE | (range.executable ? PROT_EXEC : 0);
	plan->page_bytes = range.page_bytes;
	plan->memory = memory_of(&range);
	plan->capacity_bytes = plan->length_bytes;
	if (!error && plan->length_bytes / plan->page_bytes > UINT32_MAX)
		error = text_fail(text, -EINVAL, "a region has at most 2^32 - 1 pages");
	if (!error && (!is_aligned(start, plan->page_bytes) || !is_aligned(plan->length_bytes, plan->page_bytes)))
		error = text_fail(text, -EINVAL, "the range is not aligned to its huge pages of %llu bytes",
		                  (unsigned long long)plan->page_bytes);
	return error;
}

UFFDWP_EXPORT int uffdwp_region_attach(struct uffdwp *runtime, void *address, size_t length,
                                       const struct uffdwp_region_options *options, struct uffdwp_region **out)
{
	struct region_plan plan;

	if (api_is_foreign(runtime))
		return -ECHILD;
	plan_init(&plan, runtime, length);
	plan.address = address;
	int error = api_take_options(plan.text, options, REGION_OPTIONS_SZ_MIN, &plan.options, sizeof(plan.options));

	if (!error && !out)
		error = text_fail(plan.text, -EINVAL, "out is NULL");
	if (!error)
		error = plan_attach(&plan, plan.text);
	if (error)
		return error;
	error = region_start(&plan, out);
	/* Other files are refused by the registration itself: only it knows which the kernel can watch. */
	if (error == -EINVAL && plan.memory == UFFDWP_MEMORY_SHMEM)
		return text_fail(plan.text, -EMEDIUMTYPE,
		                 "this is a file on disk or a device: only memfd, tmpfs, hugetlb and "
		                 "anonymous memory can be armed");
	return error;
}

UFFDWP_EXPORT int uffdwp_region_close(struct uffdwp_region *region)
{
	if (!region)
		return 0;
	struct uffdwp *runtime = region->runtime;

	if (api_is_foreign(runtime))
		return -ECHILD;
	pthread_mutex_lock(&region->lock);
	int busy = region->snapshot_open;
	int restoring = region->restore_open;
	pthread_mutex_unlock(&region->lock);
	if (restoring)
		return text_fail(region->text, -EBUSY,
		                 "a restore of this region has not been freed: uffdwp_restore_free()");
	if (atomic_load(&region->tracked))
		return text_fail(region->text, -EBUSY,
		                 "a track watches this region: uffdwp_track_remove() or uffdwp_track_stop()");
	if (atomic_load(&region->view_count))
		return text_fail(region->text, -EBUSY, "a view of this region is open: uffdwp_view_close()");
	if (busy)
		return text_fail(region->text, -EBUSY,
		                 "a snapshot of this region has not been freed: uffdwp_snapshot_free()");
	if (!atomic_load(&region->unmapped))
		region_unregister(region);
	runtime_leave(runtime, region);
	region_free(region);
	return 0;
}

UFFDWP_EXPORT void *uffdwp_region_base(const struct uffdwp_region *region)
{
	return region_address(region, 0);
}

UFFDWP_EXPORT struct uffdwp_region *uffdwp_region_locate(const void *address)
{
	sigset_t before;

	registry_init();
	signals_block(&before); /* nobody may wait while he is inside the epoch */
	epoch_ticket ticket = epoch_enter(&fault_epoch);
	struct uffdwp_region *region = registry_find((uintptr_t)address);

	epoch_leave(ticket);
	signals_restore(&before);
	return region;
}

UFFDWP_EXPORT int uffdwp_region_info(const struct uffdwp_region *region, struct uffdwp_region_info *info)
{
	struct uffdwp_region_info answer = {
	        .sz = sizeof(answer),
	        .base = region_address(region, 0),
	        .length_bytes = atomic_load(&region->length_bytes),
	        .capacity_bytes = region->capacity_bytes,
	        .page_bytes = region->page_bytes,
	        .memory = region->memory,
	        .mechanism = region->mechanism->id,
	        .delivery = region->delivery,
	        .fd = region->fd,
	        .dead = atomic_load(&region->dead),
	        .aliases = region->aliases,
	};

	return api_give_answer(info, sizeof(answer), &answer, sizeof(answer));
}

UFFDWP_EXPORT int uffdwp_region_stats(const struct uffdwp_region *region, struct uffdwp_region_stats *stats)
{
	const struct region_counters *counters = &region->counters;
	struct uffdwp_region_stats answer = {
	        .sz = sizeof(answer),
	        .faults = atomic_load(&counters->faults),
	        .faults_repeated = atomic_load(&counters->faults_repeated),
	        .pages_disarmed = atomic_load(&counters->pages_disarmed),
	        .events_remove = atomic_load(&counters->events_remove),
	        .events_remap = atomic_load(&counters->events_remap),
	        .events_unmap = atomic_load(&counters->events_unmap),
	        .snapshots = atomic_load(&counters->snapshots),
	        .pages_rearmed = atomic_load(&counters->pages_rearmed),
	        .pages_filled = atomic_load(&counters->pages_filled),
	};

	for (unsigned cause = 0; cause < UFFDWP_LOSS_COUNT; cause++) {
		answer.lost_by[cause] = atomic_load(&region->losses.count[cause]);
		answer.pages_lost += answer.lost_by[cause];
	}

	return api_give_answer(stats, sizeof(answer), &answer, sizeof(answer));
}

/* A range inside the region; no text, no lock: also for the barrier. */
static int range_error(const struct uffdwp_region *region, uint64_t offset, uint64_t length)
{
	uint64_t limit = atomic_load_explicit(&region->length_bytes, memory_order_acquire);

	if (offset + length < offset)
		return -EOVERFLOW;
	return offset + length > limit ? -ERANGE : 0;
}

static int check_pages(const struct uffdwp_region *region, uint64_t offset, uint64_t length)
{
	struct text *text = region->text;

	if (atomic_load(&region->dead))
		return text_fail(text, -ESTALE, "the region was unmapped: close it");
	if (!is_aligned(offset, region->page_bytes))
		return text_fail(text, -EINVAL, "offset %llu is not a multiple of the page size %llu",
		                 (unsigned long long)offset, (unsigned long long)region->page_bytes);
	int error = check_length(length, region->page_bytes, "length", text);

	if (!error)
		error = range_error(region, offset, length);
	if (error == -ERANGE || error == -EOVERFLOW)
		return text_fail(text, error, "offset %llu and length %llu reach beyond the region's %llu bytes",
		                 (unsigned long long)offset, (unsigned long long)length,
		                 (unsigned long long)atomic_load(&region->length_bytes));
	return error;
}

/* Arms or disarms a range while faults are held, so that none of a moment ago undoes it. */
static int protect_locked(struct uffdwp_region *region, uint64_t first, uint64_t end, int arm)
{
	if (atomic_load(&region->preserve))
		return text_fail(region->text, -EBUSY, "a snapshot of this region is running");
	if (atomic_load(&region->tracked))
		return text_fail(region->text, -EBUSY, "a track watches this region: it arms, and would miss this");
	if (arm) {
		region->caller_armed = 1;
		atomic_store(&region->coarse, 0);
	}
	int error = arm ? region_prepare(region) : 0;

	if (error)
		return error;
	atomic_store(&region->active, 1);
	fault_enter_phase(region, PHASE_HOLD);
	region_note_changed_range(region, first, end); /* perhaps: the ledger forgets it now */
	ledger_set_range(&region->ledger, first, end, arm ? LEDGER_ARMED : LEDGER_LEAVING);
	error = arm ? region_arm_run(region, first, end) : region_disarm_run(region, first, end);
	if (error && arm) { /* a part may be armed: its faults are let go, one by one */
		ledger_set_range(&region->ledger, first, end, LEDGER_LEAVING);
		region_disarm_run(region, first, end);
	}
	if (!arm)
		ledger_set_range(&region->ledger, first, end, LEDGER_FREE);
	atomic_store(&region->phase, (uint32_t)PHASE_IDLE);
	fault_wake_held(region);
	return error ? text_fail(region->text, error, "the kernel refused to %s the range: %s", arm ? "arm" : "disarm",
	                         strerror(-error))
	             : 0;
}

static int protect(struct uffdwp_region *region, uint64_t offset, uint64_t length, int arm)
{
	unsigned shift = region->page_shift;
	sigset_t before;

	pthread_mutex_lock(&region->lock);
	int error = check_pages(region, offset, length);

	signals_block(&before);
	if (!error)
		error = protect_locked(region, offset >> shift, (offset + length) >> shift, arm);
	signals_restore(&before);
	pthread_mutex_unlock(&region->lock);
	return error;
}

UFFDWP_EXPORT int uffdwp_region_arm(struct uffdwp_region *region, uint64_t offset, uint64_t length)
{
	return protect(region, offset, length, 1);
}

UFFDWP_EXPORT int uffdwp_region_disarm(struct uffdwp_region *region, uint64_t offset, uint64_t length)
{
	return protect(region, offset, length, 0);
}

UFFDWP_EXPORT int uffdwp_region_armed(const struct uffdwp_region *region, uint64_t offset, uint64_t length,
                                      uint64_t *pages)
{
	unsigned shift = region->page_shift;
	int error = check_pages(region, offset, length);

	if (!error)
		*pages = ledger_count_marked(&region->ledger, offset >> shift, (offset + length) >> shift);
	return error;
}

static int check_grow(const struct uffdwp_region *region, uint64_t length)
{
	uint64_t now = atomic_load(&region->length_bytes);

	if (atomic_load(&region->dead))
		return text_fail(region->text, -ESTALE, "the region was unmapped: close it");
	if (!region->owned)
		return text_fail(region->text, -EOPNOTSUPP,
		                 "an attached region cannot grow: attach the larger mapping");
	if (length < now)
		return text_fail(region->text, -EINVAL,
		                 "%llu is less than the region's %llu bytes: regions do not shrink, "
		                 "punch the rest",
		                 (unsigned long long)length, (unsigned long long)now);
	if (length > region->capacity_bytes)
		return text_fail(region->text, -ENOSPC, "%llu bytes are beyond the capacity of %llu: create with more",
		                 (unsigned long long)length, (unsigned long long)region->capacity_bytes);
	return check_length(length, region->page_bytes, "length", region->text);
}

UFFDWP_EXPORT int uffdwp_region_grow(struct uffdwp_region *region, uint64_t length)
{
	pthread_mutex_lock(&region->lock);
	int error = check_grow(region, length);

	if (!error)
		error = region_grow(region, length);
	pthread_mutex_unlock(&region->lock);
	return error;
}

/* Preserves what is armed in pages [first, end). */
static void prepare_pages(struct uffdwp_region *region, uint64_t first, uint64_t end, enum fault_by by)
{
	for (uint64_t page = first; page < end; page++) {
		enum ledger_state state = ledger_get(&region->ledger, page);
		int is_open = state == LEDGER_FREE || state == LEDGER_OPEN || state == LEDGER_LOST; /* INV-OPEN */

		if (!is_open || (region->populate && by == FAULT_BY_BARRIER))
			fault_barrier(region, page, end, by);
	}
}

static int check_punch(const struct uffdwp_region *region, uint64_t offset, uint64_t length)
{
	int error = check_pages(region, offset, length);

	if (!error && region->sealed)
		return text_fail(region->text, -EPERM, "a sealed region cannot be punched");
	if (!error && region->memory != UFFDWP_MEMORY_ANON && region->fd < 0)
		return text_fail(region->text, -EOPNOTSUPP,
		                 "punching needs the file behind the mapping: attach with its fd");
	return error;
}

/* A snapshot that prepares its cut shall not miss what was discarded in order. With the lock held. */
static void forget_content(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	for (uint64_t page = first; region->content && page < end; page++)
		atomic_fetch_and(&region->content[page / 64], ~(1ull << (page % 64)));
}

UFFDWP_EXPORT int uffdwp_region_punch(struct uffdwp_region *region, uint64_t offset, uint64_t length)
{
	unsigned shift = region->page_shift;

	pthread_mutex_lock(&region->lock);
	int error = check_punch(region, offset, length);

	if (!error) {
		fault_begin_punch(region, offset >> shift, (offset + length) >> shift);
		prepare_pages(region, offset >> shift, (offset + length) >> shift, FAULT_BY_PUNCH);
		error = region_discard(region, offset, length);
		fault_end_punch(region, offset >> shift, (offset + length) >> shift, error);
		if (region->uffd >= 0 && region->memory == UFFDWP_MEMORY_ANON)
			handler_sync(region->handler); /* it was told of this discard, and must not take it for a later
			                                  one */
		forget_content(region, offset >> shift, (offset + length) >> shift);
	}
	pthread_mutex_unlock(&region->lock);
	return error;
}

UFFDWP_EXPORT int uffdwp_prepare_write(struct uffdwp_region *region, uint64_t offset, uint64_t length)
{
	if ((!atomic_load_explicit(&region->active, memory_order_acquire) && !region->populate) || !length)
		return 0;
	int error = range_error(region, offset, length);

	if (error)
		return -ERANGE;
	if (atomic_load_explicit(&region->dead, memory_order_relaxed))
		return -ESTALE;
	uint64_t first = offset >> region->page_shift;
	uint64_t end = ((offset + length - 1) >> region->page_shift) + 1;

	error = fault_await(region, first, end, NULL, NULL);
	if (!error)
		prepare_pages(region, first, end, FAULT_BY_BARRIER);
	return error;
}

/* ---- losses ---- */

UFFDWP_EXPORT int uffdwp_region_losses(struct uffdwp_region *region, struct uffdwp_lost_range *ranges, size_t capacity)
{
	if (!capacity)
		return text_fail(region->text, -EINVAL, "capacity is 0: give room for one range at least");
	return (int)losses_take(&region->losses, region->page_shift, ranges, capacity < INT_MAX ? capacity : INT_MAX);
}

/* Marks are looked for in the pagemap, which an old kernel leaves out: nobody can know then. */
static int audit_witness(struct uffdwp_region *region)
{
	int has_marks =
	        region->uffd >= 0 && region->mechanism->register_modes[region->memory] & UFFDIO_REGISTER_MODE_WP;
	int shows = has_marks ? runtime_shows_marks(region->runtime) : 1;

	if (shows < 0)
		return text_fail(region->text, shows, "whether the pagemap shows marks could not be tried: %s",
		                 strerror(-shows));
	if (!shows)
		return text_fail(region->text, -EOPNOTSUPP,
		                 "this kernel's pagemap does not show uffd-wp marks (Linux 5.13 does): an audit "
		                 "cannot know");
	int pagemap = region->k->open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC, 0);

	return pagemap < 0
	               ? text_fail(region->text, pagemap, "/proc/self/pagemap cannot be opened: %s", strerror(-pagemap))
	               : pagemap;
}

UFFDWP_EXPORT int uffdwp_region_audit(struct uffdwp_region *region, struct uffdwp_audit *audit)
{
	struct uffdwp_audit answer = {.sz = sizeof(answer)};

	if (audit->sz < sizeof(answer))
		return text_fail(region->text, -EINVAL, "the audit's sz is too small");
	if (atomic_load(&region->dead))
		return text_fail(region->text, -ESTALE, "the region was unmapped: close it");
	int pagemap = audit_witness(region);

	if (pagemap < 0)
		return pagemap;
	sigset_t before;

	pthread_mutex_lock(&region->lock);
	signals_block(&before); /* nobody may wait while he is inside the epoch */
	int error = audit_run(region, pagemap, &answer);

	signals_restore(&before);
	pthread_mutex_unlock(&region->lock);
	region->k->close(pagemap);
	losses_tell(region);
	if (error)
		return text_fail(region->text, error, "the audit failed: %s",
		                 error == -ESTALE ? "the registration was taken away, the region is dead"
		                                  : strerror(-error));
	return api_give_answer(audit, sizeof(answer), &answer, sizeof(answer));
}
