/* SPDX-License-Identifier: MIT */
/*
 * The only exporter: checks every argument and state, then calls. The logic below never checks again. What can be
 * refused is refused here before anything moves, with a text that says what to do.
 *
 * Threads: as uffdwp.h says. The slow calls on a region take its lock here.
 */
#include "api.h"

#include <errno.h>
#include <numa.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/math.h"
#include "fault/fault.h"
#include "fault/runtime.h"
#include "kernel/maps.h"
#include "kernel/probe.h"
#include "kernel/procfs.h"
#include "snapshot/snapshot.h"

#define TEXT_OF_VERSION(major, minor, patch) #major "." #minor "." #patch
#define VERSION_TEXT(major, minor, patch) TEXT_OF_VERSION(major, minor, patch)

/* The smallest structures that were ever released: what a caller's sz must reach. */
#define OPTIONS_SZ_MIN sizeof(struct uffdwp_options)
#define REGION_OPTIONS_SZ_MIN sizeof(struct uffdwp_region_options)
#define SNAPSHOT_OPTIONS_SZ_MIN sizeof(struct uffdwp_snapshot_options)

#define NAME_MAX_BYTES 200

/* Why uffdwp_open() or uffdwp_probe() failed in this thread. */
static _Thread_local struct text thread_text = {.lock = PTHREAD_MUTEX_INITIALIZER};

UFFDWP_EXPORT const char *uffdwp_version(void)
{
	return VERSION_TEXT(UFFDWP_VERSION_MAJOR, UFFDWP_VERSION_MINOR, UFFDWP_VERSION_PATCH);
}

/* Copies a caller's structure of whatever age over `out`, which holds the defaults. */
static int take_options(struct text *text, const void *given, size_t least, void *out, size_t ours)
{
	size_t sz;

	if (!given)
		return 0;
	memcpy(&sz, given, sizeof(sz));
	if (sz < least)
		return text_fail(text, -EINVAL, "the options' sz is %zu, at least %zu is needed: use the *_INIT macro",
		                 sz, least);
	if (sz > 4096)
		return text_fail(text, -E2BIG, "the options' sz is %zu: not a size of options", sz);
	for (size_t i = ours; i < sz; i++) {
		if (((const unsigned char *)given)[i])
			return text_fail(text, -E2BIG,
			                 "the options hold something that this version (%s) does not know",
			                 uffdwp_version());
	}
	memcpy(out, given, sz < ours ? sz : ours);
	memcpy(out, &ours, sizeof(ours));
	return 0;
}

/* The part of an answer that the caller has room for, his sz left as it is. */
static int give_answer(void *to, size_t least, const void *answer, size_t ours)
{
	size_t sz;

	memcpy(&sz, to, sizeof(sz));
	if (sz < least)
		return -EINVAL;
	memcpy((unsigned char *)to + sizeof(sz), (const unsigned char *)answer + sizeof(sz),
	       (sz < ours ? sz : ours) - sizeof(sz));
	return 0;
}

static int unknown_flags(struct text *text, uint32_t flags, uint32_t known, uint32_t reserved)
{
	if (flags & ~known)
		return text_fail(text, -EINVAL, "unknown flags %#x", (unsigned)(flags & ~known));
	if (reserved)
		return text_fail(text, -EINVAL, "reserved must be 0");
	return 0;
}

/* ---- runtime ---- */

int api_open(const struct kernel_ops *k, const struct uffdwp_options *given, struct uffdwp **out)
{
	struct uffdwp_options options = UFFDWP_OPTIONS_INIT;
	struct text *text = &thread_text;

	if (!out)
		return text_fail(text, -EINVAL, "out is NULL");
	int error = take_options(text, given, OPTIONS_SZ_MIN, &options, sizeof(options));

	if (!error)
		error = unknown_flags(text, options.flags, UFFDWP_OPEN_NO_URING | UFFDWP_OPEN_USER_MODE,
		                      options.reserved);
	if (!error && options.handler_threads > RUNTIME_HANDLERS_MAX)
		error = text_fail(text, -EINVAL, "handler_threads is %u, at most %d", (unsigned)options.handler_threads,
		                  RUNTIME_HANDLERS_MAX);
	if (!error && options.numa_node < -1)
		error = text_fail(text, -EINVAL, "numa_node is %d; -1 means any", (int)options.numa_node);
	return error ? error : runtime_open(k, &options, text, out);
}

UFFDWP_EXPORT int uffdwp_open(const struct uffdwp_options *options, struct uffdwp **out)
{
	return api_open(&kernel_real, options, out);
}

/* A child of fork() has the handles, but none of the threads and none of the registrations. */
static int is_foreign_process(const struct uffdwp *runtime)
{
	return runtime->process != getpid();
}

UFFDWP_EXPORT int uffdwp_close(struct uffdwp *runtime)
{
	if (!runtime)
		return 0;
	return is_foreign_process(runtime) ? -ECHILD : runtime_close(runtime);
}

UFFDWP_EXPORT size_t uffdwp_error_text(struct uffdwp *runtime, char *buffer, size_t size)
{
	return text_copy(runtime ? &runtime->text : &thread_text, buffer, size);
}

UFFDWP_EXPORT int uffdwp_probe(struct uffdwp_probe_report *report)
{
	struct uffdwp_probe_report answer = {.sz = sizeof(answer)};

	if (!report || report->sz < sizeof(answer))
		return text_fail(&thread_text, -EINVAL, "the report's sz is too small");
	int error = probe_run(&kernel_real, &answer);

	if (error)
		return text_fail(&thread_text, error, "the probe failed: %s", strerror(-error));
	return give_answer(report, sizeof(answer), &answer, sizeof(answer));
}

/* ---- region ---- */

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
	int error = unknown_flags(text, options->flags, flags, options->reserved);

	if (!error && options->delivery > UFFDWP_DELIVERY_INLINE)
		error = text_fail(text, -EINVAL, "unknown delivery %u", (unsigned)options->delivery);
	if (!error && options->mechanism > UFFDWP_MECHANISM_MARKER)
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

/* Opens the region that a checked plan describes, and lets it be known. */
static int region_start(struct region_plan *plan, struct uffdwp_region **out)
{
	struct uffdwp *runtime = plan->runtime;
	struct uffdwp_region *region = NULL;
	int error = runtime_mechanism(runtime, plan->memory, plan->options.mechanism, &plan->mechanism);

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

	if (is_foreign_process(runtime))
		return -ECHILD;
	plan_init(&plan, runtime, length);
	int error = take_options(plan.text, options, REGION_OPTIONS_SZ_MIN, &plan.options, sizeof(plan.options));

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
	int error = check_region_options(&plan->options, UFFDWP_REGION_INHERIT, text);

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

	if (is_foreign_process(runtime))
		return -ECHILD;
	plan_init(&plan, runtime, length);
	plan.address = address;
	int error = take_options(plan.text, options, REGION_OPTIONS_SZ_MIN, &plan.options, sizeof(plan.options));

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

	if (is_foreign_process(runtime))
		return -ECHILD;
	pthread_mutex_lock(&region->lock);
	int busy = region->snapshot_open;
	pthread_mutex_unlock(&region->lock);
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
	sigset_t all;
	sigset_t before;

	registry_init();
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before); /* nobody may wait while he is inside the epoch */
	epoch_ticket ticket = epoch_enter(&fault_epoch);
	struct uffdwp_region *region = registry_find((uintptr_t)address);

	epoch_leave(ticket);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
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
	};

	return give_answer(info, sizeof(answer), &answer, sizeof(answer));
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
	        .pages_lost = atomic_load(&counters->pages_lost),
	        .snapshots = atomic_load(&counters->snapshots),
	};

	return give_answer(stats, sizeof(answer), &answer, sizeof(answer));
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
	if (arm)
		region->caller_armed = 1;
	atomic_store(&region->active, 1);
	fault_enter_phase(region, PHASE_HOLD);
	ledger_set_range(&region->ledger, first, end, arm ? LEDGER_ARMED : LEDGER_LEAVING);
	int error = arm ? region_arm_run(region, first, end) : region_disarm_run(region, first, end);

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

	pthread_mutex_lock(&region->lock);
	int error = check_pages(region, offset, length);

	if (!error)
		error = protect_locked(region, offset >> shift, (offset + length) >> shift, arm);
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
		*pages = ledger_count(&region->ledger, offset >> shift, (offset + length) >> shift, LEDGER_ARMED);
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

		if (state != LEDGER_FREE && state != LEDGER_OPEN && state != LEDGER_LOST) /* INV-OPEN */
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
		prepare_pages(region, offset >> shift, (offset + length) >> shift, FAULT_BY_PUNCH);
		error = region_discard(region, offset, length);
		if (region_loses_marks(region))
			handler_sync(region->handler); /* it was told of this discard, and must not take it for a later
			                                  one */
		forget_content(region, offset >> shift, (offset + length) >> shift);
	}
	pthread_mutex_unlock(&region->lock);
	return error;
}

UFFDWP_EXPORT int uffdwp_prepare_write(struct uffdwp_region *region, uint64_t offset, uint64_t length)
{
	if (!atomic_load_explicit(&region->active, memory_order_acquire) || !length)
		return 0;
	int error = range_error(region, offset, length);

	if (error)
		return -ERANGE;
	if (atomic_load_explicit(&region->dead, memory_order_relaxed))
		return -ESTALE;
	prepare_pages(region, offset >> region->page_shift, ((offset + length - 1) >> region->page_shift) + 1,
	              FAULT_BY_BARRIER);
	return 0;
}

/* ---- snapshot ---- */

static int check_snapshot_sink(const struct uffdwp_snapshot_options *options, struct text *text)
{
	switch (options->sink) {
	case UFFDWP_SINK_IMAGE:
		return options->path && *options->path ? 0 : text_fail(text, -EINVAL, "the image sink needs a path");
	case UFFDWP_SINK_STREAM:
		return options->fd >= 0 ? 0 : text_fail(text, -EBADF, "the stream sink needs an fd");
	case UFFDWP_SINK_CALLBACK:
		return options->callback ? 0 : text_fail(text, -EINVAL, "the callback sink needs a callback");
	default:
		return text_fail(text, -EINVAL, "unknown sink %u", (unsigned)options->sink);
	}
}

static int check_snapshot_options(const struct uffdwp_region *region, const struct uffdwp_snapshot_options *options)
{
	struct text *text = region->text;
	int error = unknown_flags(text, options->flags, UFFDWP_SNAPSHOT_BUFFERED, options->reserved);

	if (!error && options->policy > UFFDWP_POLICY_ABORT)
		error = text_fail(text, -EINVAL, "unknown policy %u", (unsigned)options->policy);
	if (!error && options->window_max > FAULT_WINDOW_MAX)
		error = text_fail(text, -EINVAL, "window_max is %u, at most %d pages", (unsigned)options->window_max,
		                  FAULT_WINDOW_MAX);
	if (!error && options->pool_bytes && options->pool_bytes / 16 < region->page_bytes)
		error = text_fail(text, -EINVAL, "pool_bytes %llu is less than 16 pages of %llu bytes",
		                  (unsigned long long)options->pool_bytes, (unsigned long long)region->page_bytes);
	if (!error && options->pool_bytes / region->page_bytes > 1u << 30)
		error = text_fail(text, -EINVAL, "pool_bytes %llu is more than 2^30 pages",
		                  (unsigned long long)options->pool_bytes);
	if (!error && !options->cut_enter != !options->cut_leave)
		error = text_fail(text, -EINVAL, "cut_enter and cut_leave go together");
	return error ? error : check_snapshot_sink(options, text);
}

UFFDWP_EXPORT int uffdwp_snapshot_begin(struct uffdwp_region *region, const struct uffdwp_snapshot_options *given,
                                        struct uffdwp_snapshot **out)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	if (is_foreign_process(region->runtime))
		return -ECHILD;
	int error = take_options(region->text, given, SNAPSHOT_OPTIONS_SZ_MIN, &options, sizeof(options));

	if (!error && !out)
		error = text_fail(region->text, -EINVAL, "out is NULL");
	if (!error)
		error = check_snapshot_options(region, &options);
	if (error)
		return error;
	return snapshot_begin(region, &options, (region->runtime->flags & UFFDWP_OPEN_NO_URING) != 0, region->text,
	                      out);
}

UFFDWP_EXPORT int uffdwp_snapshot_poll(const struct uffdwp_snapshot *snapshot,
                                       struct uffdwp_snapshot_progress *progress)
{
	struct uffdwp_snapshot_progress answer = {.sz = sizeof(answer)};

	snapshot_progress((struct uffdwp_snapshot *)(uintptr_t)snapshot, &answer);
	return give_answer(progress, sizeof(answer), &answer, sizeof(answer));
}

UFFDWP_EXPORT int uffdwp_snapshot_wait(struct uffdwp_snapshot *snapshot, int timeout_ms,
                                       struct uffdwp_snapshot_progress *progress)
{
	if (progress && progress->sz < sizeof(*progress))
		return -EINVAL;
	if (is_foreign_process(snapshot->region->runtime))
		return -ECHILD;
	int result = snapshot_wait(snapshot, timeout_ms);

	if (progress && result != -ETIMEDOUT)
		return uffdwp_snapshot_poll(snapshot, progress) ? -EINVAL : result;
	return result;
}

UFFDWP_EXPORT size_t uffdwp_snapshot_text(struct uffdwp_snapshot *snapshot, char *buffer, size_t size)
{
	return text_copy(&snapshot->text, buffer, size);
}

UFFDWP_EXPORT int uffdwp_snapshot_abort(struct uffdwp_snapshot *snapshot)
{
	snapshot_abort(snapshot);
	return 0;
}

UFFDWP_EXPORT int uffdwp_snapshot_free(struct uffdwp_snapshot *snapshot)
{
	if (!snapshot)
		return 0;
	if (is_foreign_process(snapshot->region->runtime))
		return -ECHILD;
	snapshot_free(snapshot);
	return 0;
}
