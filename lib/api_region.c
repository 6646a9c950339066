/* SPDX-License-Identifier: MIT */
/* Regions, as api.c: checks, then calls. */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "api_private.h"
#include "base/math.h"
#include "control/control.h"
#include "fault/arm.h"
#include "fault/audit.h"
#include "fault/barrier.h"
#include "fault/runtime.h"
#include "kernel/caller.h"
#include "kernel/nodes.h"
#include "region/plan.h"
#include "region/registry.h"
#include "track/track.h"

#define NAME_MAX_BYTES 200

static int api_region_check_numa(const struct uffdwp_region_options *options, struct text *text)
{
	if (options->numa > UFFDWP_NUMA_INTERLEAVE)
		return text_fail(text, -EINVAL, "unknown NUMA placement %u", (unsigned)options->numa);
	if (options->numa == UFFDWP_NUMA_DEFAULT)
		return 0;
	if (!options->numa_nodes)
		return text_fail(text, -EINVAL, "a NUMA placement needs nodes: set bits in numa_nodes");
	int last = nodes_last();

	if (last == -EOPNOTSUPP)
		return text_fail(text, last, NODES_NOT_BUILT ": use UFFDWP_NUMA_DEFAULT");
	if (last < 0)
		return text_fail(text, -EINVAL, "this kernel has no NUMA placement: use UFFDWP_NUMA_DEFAULT");
	if (63 - __builtin_clzll(options->numa_nodes) > last)
		return text_fail(text, -EINVAL, "numa_nodes %#llx has a node that does not exist: the last is %d",
		                 (unsigned long long)options->numa_nodes, last);
	return 0;
}

static int api_region_check_options(const struct uffdwp_region_options *options, uint32_t flags, struct text *text)
{
	int error = api_unknown_flags(
	        text, flags & UFFDWP_REGION_ATTACH_ALIASED ? "uffdwp_region_attach" : "uffdwp_region_create",
	        options->flags, flags, options->reserved);

	if (!error && options->delivery > UFFDWP_DELIVERY_INLINE)
		error = text_fail(text, -EINVAL, "unknown delivery %u", (unsigned)options->delivery);
	if (!error && options->mechanism >= UFFDWP_MECHANISM_COUNT)
		error = text_fail(text, -EINVAL, "unknown mechanism %u", (unsigned)options->mechanism);
	if (!error && options->name && strlen(options->name) > NAME_MAX_BYTES)
		error = text_fail(text, -EINVAL, "name is longer than %d bytes", NAME_MAX_BYTES);
	return error ? error : api_region_check_numa(options, text);
}

/* Descriptor 0 means that there is none, so that zero is the default of all fields. */
int api_region_take_options(struct region_plan *plan, const struct uffdwp_region_options *given)
{
	int error = api_take_options(plan->text, given, &plan->options, sizeof(plan->options));

	if (!plan->options.fd)
		plan->options.fd = -1;
	return error;
}

UFFDWP_EXPORT int uffdwp_region_create(struct uffdwp *runtime, uint64_t length,
                                       const struct uffdwp_region_options *options, struct uffdwp_region **out)
{
	API_CALL();
	struct region_plan plan;

	text_forget();
	if (api_is_foreign(runtime))
		return -ECHILD;
	plan_init(&plan, runtime->k, runtime, length);
	int error = api_region_take_options(&plan, options);

	if (!error && !out)
		error = text_fail(plan.text, -EINVAL, "out is NULL");
	if (!error)
		error = api_region_check_options(&plan.options,
		                                 UFFDWP_REGION_CREATE_SEALED | UFFDWP_REGION_CREATE_INHERIT |
		                                         UFFDWP_REGION_CREATE_HUGETLB,
		                                 plan.text);
	if (!error)
		error = plan_create(&plan);
	return error ? error : control_open_region(runtime, &plan, out);
}

UFFDWP_EXPORT int uffdwp_region_attach(struct uffdwp *runtime, void *address, uint64_t length,
                                       const struct uffdwp_region_options *options, struct uffdwp_region **out)
{
	API_CALL();
	struct region_plan plan;

	text_forget();
	if (api_is_foreign(runtime))
		return -ECHILD;
	plan_init(&plan, runtime->k, runtime, length);
	plan.address = address;
	int error = api_region_take_options(&plan, options);

	if (!error && !out)
		error = text_fail(plan.text, -EINVAL, "out is NULL");
	if (!error)
		error = api_region_check_options(&plan.options, UFFDWP_REGION_ATTACH_ALIASED, plan.text);
	if (!error)
		error = plan_attach(&plan);
	return error ? error : control_open_region(runtime, &plan, out);
}

UFFDWP_EXPORT int uffdwp_region_close(struct uffdwp_region *region)
{
	API_CALL();
	if (!region)
		return 0;
	return api_is_foreign(region->runtime) ? -ECHILD : control_close_region(region);
}

UFFDWP_EXPORT void *uffdwp_region_base(const struct uffdwp_region *region)
{
	return region->is_private ? NULL : region_address(region, 0);
}

UFFDWP_EXPORT struct uffdwp_region *uffdwp_region_locate(const void *address)
{
	return registry_locate((uintptr_t)address);
}

UFFDWP_EXPORT int uffdwp_region_info(const struct uffdwp_region *region, struct uffdwp_region_info *info)
{
	API_CALL();
	int error = api_check_answer(NULL, info, "the info");

	if (error)
		return error;
	struct uffdwp_region_info answer = {
	        .sz = sizeof(answer),
	        .base = region->is_private ? NULL : region_address(region, 0),
	        .length_bytes = atomic_load(&region->length_bytes),
	        .capacity_bytes = region->capacity_bytes,
	        .page_bytes = region->page_bytes,
	        .memory = region->memory,
	        .mechanism = region->mechanism->id,
	        .delivery = region->delivery,
	        .fd = region->fd,
	        .dead = atomic_load(&region->dead) != REGION_LIVES,
	        .aliases = region->aliases,
	        .syscalls_wait = region->syscalls_wait != 0,
	};

	api_give_answer(info, &answer, sizeof(answer));
	return 0;
}

UFFDWP_EXPORT int uffdwp_region_stats(const struct uffdwp_region *region, struct uffdwp_region_stats *stats)
{
	API_CALL();
	const struct region_counters *counters = &region->counters;
	int error = api_check_answer(NULL, stats, "stats");

	if (error)
		return error;
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

	answer.pages_lost = losses_count(&region->losses, answer.lost_by);
	api_give_answer(stats, &answer, sizeof(answer));
	return 0;
}

/* A range inside the region; no text, no lock: also for the barrier. */
static int api_region_range_error(const struct uffdwp_region *region, uint64_t offset, uint64_t length)
{
	uint64_t limit = atomic_load_explicit(&region->length_bytes, memory_order_acquire);

	if (offset + length < offset)
		return -EOVERFLOW;
	return offset + length > limit ? -ERANGE : 0;
}

static int api_region_check_pages(const struct uffdwp_region *region, uint64_t offset, uint64_t length)
{
	struct text *text = region->text;

	if (api_is_foreign(region->runtime))
		return -ECHILD;
	if (atomic_load(&region->dead))
		return text_fail(text, -ESTALE, "%s: close it", region_death(region));
	if (!math_is_aligned(offset, region->page_bytes))
		return text_fail(text, -EINVAL, "offset %llu is not a multiple of the page size %llu",
		                 (unsigned long long)offset, (unsigned long long)region->page_bytes);
	int error = plan_check_length(length, region->page_bytes, "length", text);

	if (!error)
		error = region_refuse_private(region, text);
	if (!error)
		error = api_region_range_error(region, offset, length);
	if (error == -ERANGE || error == -EOVERFLOW)
		return text_fail(text, error, "offset %llu and length %llu reach beyond the region's %llu bytes",
		                 (unsigned long long)offset, (unsigned long long)length,
		                 (unsigned long long)atomic_load(&region->length_bytes));
	return error;
}

UFFDWP_EXPORT int uffdwp_region_arm(struct uffdwp_region *region, uint64_t offset, uint64_t length)
{
	API_CALL();
	unsigned shift = region->page_shift;
	int error = api_region_check_pages(region, offset, length);

	if (!error)
		error = runtime_check_faults(region);
	return error ? error : arm_pages(region, offset >> shift, (offset + length) >> shift);
}

UFFDWP_EXPORT int uffdwp_region_disarm(struct uffdwp_region *region, uint64_t offset, uint64_t length)
{
	API_CALL();
	unsigned shift = region->page_shift;
	int error = api_region_check_pages(region, offset, length);

	if (!error)
		error = runtime_check_faults(region);
	return error ? error : arm_undo(region, offset >> shift, (offset + length) >> shift);
}

UFFDWP_EXPORT int uffdwp_region_armed(const struct uffdwp_region *region, uint64_t offset, uint64_t length,
                                      uint64_t *pages)
{
	API_CALL();
	unsigned shift = region->page_shift;
	int error = api_region_check_pages(region, offset, length);

	if (error)
		return error;
	if (!pages)
		return text_fail(region->text, -EINVAL, "pages is NULL: there is no place for the count");
	*pages = ledger_count_protected(&region->ledger, offset >> shift, (offset + length) >> shift);
	return 0;
}

static int api_region_check_grow(const struct uffdwp_region *region, uint64_t length)
{
	if (api_is_foreign(region->runtime))
		return -ECHILD;
	if (atomic_load(&region->dead))
		return text_fail(region->text, -ESTALE, "%s: close it", region_death(region));
	if (!region->owned)
		return text_fail(region->text, -EOPNOTSUPP,
		                 "an attached region cannot grow: attach the larger mapping");
	if (length > region->capacity_bytes)
		return text_fail(region->text, -ENOSPC, "%llu bytes are beyond the capacity of %llu: create with more",
		                 (unsigned long long)length, (unsigned long long)region->capacity_bytes);
	return plan_check_length(length, region->page_bytes, "length", region->text);
}

UFFDWP_EXPORT int uffdwp_region_grow(struct uffdwp_region *region, uint64_t length)
{
	API_CALL();
	int error = api_region_check_grow(region, length);

	return error ? error : region_grow(region, length);
}

static int api_region_check_punch(const struct uffdwp_region *region, uint64_t offset, uint64_t length)
{
	int error = api_region_check_pages(region, offset, length);

	if (!error && region->sealed)
		return text_fail(region->text, -EPERM, "a sealed region cannot be punched");
	if (!error && region->memory != UFFDWP_MEMORY_ANON && region->fd < 0)
		return text_fail(region->text, -EOPNOTSUPP,
		                 "punching needs the file of the mapping: attach with its fd");
	return error;
}

UFFDWP_EXPORT int uffdwp_region_punch(struct uffdwp_region *region, uint64_t offset, uint64_t length)
{
	API_CALL();
	unsigned shift = region->page_shift;
	int error = api_region_check_punch(region, offset, length);

	if (!error)
		error = runtime_check_faults(region);
	return error ? error : barrier_punch(region, offset >> shift, (offset + length) >> shift);
}

/* The pages that a barrier is for. -ERANGE; -EOPNOTSUPP: they are not here; -EDEADLK: it may claim the page that the
 * calling thread stands on. */
static int api_region_check_barrier(const struct uffdwp_region *region, uint64_t offset, uint64_t length,
                                    uint64_t *first, uint64_t *end)
{
	if (api_region_range_error(region, offset, length))
		return -ERANGE;
	if (region->is_private)
		return -EOPNOTSUPP;
	if (caller_stack() - atomic_load_explicit(&region->base, memory_order_relaxed) < region->capacity_bytes)
		return -EDEADLK;
	*first = offset >> region->page_shift;
	*end = length ? ((offset + length - 1) >> region->page_shift) + 1 : *first;
	return 0;
}

UFFDWP_EXPORT int uffdwp_prepare_write(struct uffdwp_region *region, uint64_t offset, uint64_t length)
{
	uint64_t first;
	uint64_t end;
	int error = api_region_check_barrier(region, offset, length, &first, &end);

	if (error)
		return error;
	if ((!atomic_load_explicit(&region->active, memory_order_acquire) && !region_populates(region)) || !length)
		return 0;
	if (atomic_load_explicit(&region->dead, memory_order_relaxed))
		return -ESTALE;
	if (barrier_is_open(region, first, end))
		return 0;
	API_CALL(); /* not before: what does nothing is cheap */
	if (api_is_child(region->runtime))
		return -ECHILD;
	return barrier_prepare(region, first, end);
}

UFFDWP_EXPORT int uffdwp_prepare_read(struct uffdwp_region *region, uint64_t offset, uint64_t length)
{
	uint64_t first;
	uint64_t end;
	int error = api_region_check_barrier(region, offset, length, &first, &end);

	if (error)
		return error;
	if ((!region_populates(region) && !atomic_load(&region->lazy)) || !length)
		return 0;
	if (atomic_load_explicit(&region->dead, memory_order_relaxed))
		return -ESTALE;
	API_CALL(); /* not before: what does nothing is cheap */
	if (api_is_child(region->runtime))
		return -ECHILD;
	return barrier_prepare_read(region, first, end);
}

/* ---- losses ---- */

UFFDWP_EXPORT int uffdwp_region_losses(struct uffdwp_region *region, struct uffdwp_lost_range *ranges, size_t capacity)
{
	API_CALL();
	if (api_is_foreign(region->runtime))
		return -ECHILD;
	if (!capacity)
		return text_fail(region->text, -EINVAL, "capacity is 0: give room for one range at least");
	if (!ranges)
		return text_fail(region->text, -EINVAL, "ranges is NULL: there is no room for what was lost");
	return (int)losses_take(&region->losses, region->page_shift, ranges, capacity < INT_MAX ? capacity : INT_MAX);
}

UFFDWP_EXPORT int uffdwp_region_audit(struct uffdwp_region *region, struct uffdwp_audit *audit)
{
	API_CALL();
	struct uffdwp_audit answer = {.sz = sizeof(answer)};

	if (api_is_foreign(region->runtime))
		return -ECHILD;
	int error = api_check_answer(region->text, audit, "the audit");

	if (error)
		return error;
	if (atomic_load(&region->dead))
		return text_fail(region->text, -ESTALE, "%s: close it", region_death(region));
	error = region_refuse_private(region, region->text);
	if (!error)
		error = runtime_check_faults(region);
	if (!error)
		error = audit_region(region, &answer);
	if (!error)
		api_give_answer(audit, &answer, sizeof(answer));
	return error;
}
