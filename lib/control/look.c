/* SPDX-License-Identifier: MIT */
/* See look.h. Names are the words of the public headers. */
#include "control/look.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/math.h"
#include "base/signals.h"
#include "control/acts.h"
#include "fault/fault.h"
#include "kernel/own.h"
#include "kernel/procfs.h"
#include "kernel/roster.h"
#include "region/mapper.h"
#include "region/meter.h"
#include "region/view.h"
#include "snapshot/snapshot.h"

/* Pages that are counted at a stretch, inside the epoch: a cut waits so long. */
#define LOOK_PAGES 4096

static const struct control_calls *look_calls;

void look_begin(const struct control_calls *calls)
{
	look_calls = calls;
}

void look_say_process(struct say *say)
{
	say_number(say, "pid", (uint64_t)getpid());
	say_text(say, "program", program_invocation_short_name);
	say_text(say, "version", look_calls->version());
}

static const char *look_name(const char *const *names, size_t count, uint32_t number)
{
	return number < count ? names[number] : NULL;
}

#define LOOK_NAME(names, number) look_name(names, sizeof(names) / sizeof((names)[0]), number)

static const char *const look_memories[] = {"shmem", "hugetlb", "anonymous"};
static const char *const look_deliveries[] = {"auto", "thread", "inline"};
static const char *const look_accesses[] = {"syscall", "device", "user-mode", "none"};
static const char *const look_losses[] = {"hole", "swap", "zap", "unmapped", "unknown"};
static const char *const look_restores[] = {"running", "done", "failed"};

static int look_may(const struct uffdwp *runtime)
{
	return (runtime->control & UFFDWP_CONTROL_LOOK) != 0;
}

/* ---- list ---- */

/* The CPU that a thread ran on last, or -errno. */
static int look_cpu_of(const struct kernel_ops *k, int tag, uint32_t thread)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/task/%u/stat", (unsigned)thread);
	int fd = k->open(path, O_RDONLY | O_CLOEXEC, 0);

	if (fd < 0 || own_take(k, fd, tag))
		return fd < 0 ? fd : -ENOMEM;
	int cpu = procfs_stat_cpu(k, fd);

	own_close(k, fd, tag);
	return cpu;
}

static void look_say_handlers(const struct uffdwp *runtime, struct say *say)
{
	say_open(say, "handlers", '[');
	for (unsigned i = 0; i < runtime->handler_count; i++) {
		uint32_t thread = handler_thread(runtime->handlers[i]);
		int cpu = look_cpu_of(runtime->k, runtime->tag, thread);

		say_open(say, NULL, '{');
		say_number(say, "tid", thread);
		if (cpu >= 0)
			say_number(say, "cpu", (uint64_t)cpu);
		else
			say_null(say, "cpu");
		say_close(say, '}');
	}
	say_close(say, ']');
}

static void look_say_runtime(const struct roster_entry *entry, struct say *say)
{
	const struct uffdwp *runtime = entry->thing;

	say_open(say, NULL, '{');
	say_number(say, "runtime", entry->number);
	say_text(say, "access", LOOK_NAME(look_accesses, runtime->access));
	say_bool(say, "uring", !(runtime->flags & UFFDWP_OPEN_NO_URING));
	look_say_handlers(runtime, say);
	say_number(say, "open_ns", runtime->opened_ns);
	say_close(say, '}');
}

/* Some part of the region is on the roster. */
static int look_has(const struct kernel_ops *k, enum roster_kind kind, const struct uffdwp_region *region)
{
	struct roster_entry *entry = roster_take(kind, 0, &region->roster);

	if (entry)
		roster_give(k, entry);
	return entry != NULL;
}

/* Processes of children that live; from inside of the epoch, where no memory of the program's may be touched. */
static unsigned look_find_children(const struct uffdwp_region *region, int *pids)
{
	unsigned count = 0;
	sigset_t before;

	signals_block(&before);
	epoch_ticket ticket = epoch_enter(&fault_epoch);

	for (unsigned i = 0; i < REGION_VIEWS_MAX; i++) {
		const struct uffdwp_view *view = atomic_load(&region->views[i]);

		if (view && view->child && atomic_load(&view->child->known))
			pids[count++] = view->child->pid;
	}
	epoch_leave(ticket);
	signals_restore(&before);
	return count;
}

static void look_say_children(const struct uffdwp_region *region, struct say *say)
{
	int pids[REGION_VIEWS_MAX];
	unsigned count = atomic_load(&region->child_count) ? look_find_children(region, pids) : 0;

	say_open(say, "children", '[');
	for (unsigned i = 0; i < count; i++)
		say_number(say, NULL, (uint64_t)pids[i]);
	say_close(say, ']');
}

/* What the kernel says of a pidfd; where there is none the process is not known. */
static void look_say_mappers(const struct uffdwp_region *region, struct say *say)
{
	const struct mappers *mappers = region->mappers;

	say_open(say, "mappers", '[');
	for (unsigned i = 0; mappers && i < atomic_load(&mappers->end); i++) {
		const struct mapper *mapper = &mappers->at[i];
		char path[64];
		uint64_t pid;

		if (!atomic_load(&mapper->used) || atomic_load(&mapper->gone) || mapper->pidfd < 0)
			continue;
		snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", mapper->pidfd);
		if (procfs_number(region->k, path, "Pid:", &pid) == 0)
			say_number(say, NULL, pid);
	}
	say_close(say, ']');
}

static void look_say_region(const struct roster_entry *entry, struct say *say)
{
	const struct uffdwp_region *region = entry->thing;
	int is_dead = atomic_load(&region->dead) != 0;
	uint32_t views = atomic_load(&region->view_count);
	uint32_t children = atomic_load(&region->child_count);

	say_open(say, NULL, '{');
	say_number(say, "region", entry->number);
	say_number(say, "runtime", entry->of->number);
	say_text(say, "memory", LOOK_NAME(look_memories, region->memory));
	say_text(say, "mechanism", region->mechanism->name);
	say_text(say, "delivery", LOOK_NAME(look_deliveries, region->delivery));
	say_address(say, "address", atomic_load(&region->base));
	say_number(say, "length", atomic_load(&region->length_bytes));
	say_number(say, "capacity", region->capacity_bytes);
	say_number(say, "page", region->page_bytes);
	say_text(say, "state", is_dead ? "dead" : "live");
	say_text(say, "dead",
	         !is_dead                         ? NULL
	         : atomic_load(&region->unmapped) ? "it was unmapped outside of the library"
	                                          : "its faults are not seen any more: its handler thread or its "
	                                            "userfaultfd is gone");
	look_say_mappers(region, say);
	look_say_children(region, say);
	say_bool(say, "snapshot", look_has(region->k, ROSTER_SNAPSHOT, region));
	say_bool(say, "restore", look_has(region->k, ROSTER_RESTORE, region));
	say_number(say, "tracks", atomic_load(&region->tracked));
	say_number(say, "views", views > children ? views - children : 0);
	say_close(say, '}');
}

void look_list(const struct kernel_ops *k, struct say *say)
{
	struct roster_entry *entry;

	look_say_process(say);
	say_open(say, "runtimes", '[');
	for (uint64_t from = 0; (entry = roster_take(ROSTER_RUNTIME, from, NULL)) != NULL;) {
		from = entry->number + 1;
		if (look_may(entry->thing))
			look_say_runtime(entry, say);
		roster_give(k, entry);
	}
	say_close(say, ']');
	say_open(say, "regions", '[');
	for (uint64_t from = 0; (entry = roster_take(ROSTER_REGION, from, NULL)) != NULL;) {
		from = entry->number + 1;
		if (look_may(((const struct uffdwp_region *)entry->thing)->runtime))
			look_say_region(entry, say);
		roster_give(k, entry);
	}
	say_close(say, ']');
}

/* ---- stat ---- */

static void look_say_stats(const struct uffdwp_region *region, struct say *say)
{
	struct uffdwp_region_stats stats = {.sz = sizeof(stats)};

	if (look_calls->region_stats(region, &stats))
		return;
	say_number(say, "faults", stats.faults);
	say_number(say, "faults_repeated", stats.faults_repeated);
	say_number(say, "pages_disarmed", stats.pages_disarmed);
	say_number(say, "events_remove", stats.events_remove);
	say_number(say, "events_remap", stats.events_remap);
	say_number(say, "events_unmap", stats.events_unmap);
	say_number(say, "pages_lost", stats.pages_lost);
	say_number(say, "snapshots", stats.snapshots);
	say_open(say, "lost_by", '{');
	for (unsigned cause = 0; cause < sizeof(look_losses) / sizeof(look_losses[0]); cause++)
		say_number(say, look_losses[cause], stats.lost_by[cause]);
	say_close(say, '}');
	say_number(say, "pages_rearmed", stats.pages_rearmed);
	say_number(say, "pages_filled", stats.pages_filled);
}

/* The region is protected since a snapshot: what was written since can be counted. No slow call is waited for. */
static int look_is_kept(struct uffdwp_region *region)
{
	int is_kept = 0;

	if (lock_try(&region->lock)) {
		is_kept = region->kept && !region->snapshot_open;
		lock_give(&region->lock);
	}
	return is_kept;
}

static uint64_t look_count_dirty(const struct uffdwp_region *region, const _Atomic uint64_t *changed, uint64_t first,
                                 uint64_t end)
{
	uint64_t dirty = 0;

	for (uint64_t page = first; page < end; page++) {
		uint64_t word = atomic_load_explicit(&changed[page / 64], memory_order_relaxed);

		dirty += !ledger_is_protected(ledger_get(&region->ledger, page)) || (word >> (page % 64) & 1);
	}
	return dirty;
}

/* Adds those of [first, end). 0: there is no bitmap of changed pages. Inside the epoch: a cut gives it to its snapshot,
 * which frees it. */
static int look_add_dirty(const struct uffdwp_region *region, uint64_t first, uint64_t end, uint64_t *dirty)
{
	sigset_t before;

	signals_block(&before);
	epoch_ticket ticket = epoch_enter(&fault_epoch);
	const _Atomic uint64_t *changed = atomic_load(&region->changed);

	if (changed)
		*dirty += look_count_dirty(region, changed, first, end);
	epoch_leave(ticket);
	signals_restore(&before);
	return changed != NULL;
}

/* Not known as soon as another snapshot has begun: what was counted is of the one before. */
static void look_say_dirty(struct uffdwp_region *region, struct say *say)
{
	uint64_t snapshots = atomic_load(&region->counters.snapshots);
	uint64_t pages = region_pages(region);
	uint64_t dirty = 0;
	int is_known = look_is_kept(region);

	for (uint64_t page = 0; page < pages && is_known; page += LOOK_PAGES)
		is_known = snapshots == atomic_load(&region->counters.snapshots) &&
		           look_add_dirty(region, page, math_min_u64(page + LOOK_PAGES, pages), &dirty);
	if (is_known && look_is_kept(region) && snapshots == atomic_load(&region->counters.snapshots))
		say_number(say, "dirty_pages", dirty);
	else
		say_null(say, "dirty_pages");
}

static void look_say_pool(struct uffdwp_region *region, struct say *say)
{
	struct roster_entry *entry = roster_take(ROSTER_SNAPSHOT, 0, &region->roster);

	if (!entry) {
		say_null(say, "pool");
		return;
	}
	const struct uffdwp_snapshot *snapshot = entry->thing;
	const struct pool *pool = &snapshot->preserve.pool;

	say_open(say, "pool", '{');
	say_number(say, "bytes", pool_bytes(pool));
	say_number(say, "used_bytes", atomic_load_explicit(&pool->used, memory_order_relaxed) * pool->page_bytes);
	say_number(say, "peak_bytes", atomic_load_explicit(&pool->peak, memory_order_relaxed) * pool->page_bytes);
	say_close(say, '}');
	roster_give(region->k, entry);
}

static void look_say_restore(struct uffdwp_region *region, struct say *say)
{
	struct roster_entry *entry = roster_take(ROSTER_RESTORE, 0, &region->roster);
	struct uffdwp_restore_progress progress = {.sz = sizeof(progress)};

	if (!entry || look_calls->restore_poll(entry->thing, &progress)) {
		say_null(say, "restore");
	} else {
		say_open(say, "restore", '{');
		say_text(say, "state", LOOK_NAME(look_restores, progress.state));
		say_number(say, "pages_total", progress.pages_total);
		say_number(say, "pages_done", progress.pages_done);
		say_number(say, "pages_failed", progress.pages_failed);
		say_number(say, "elapsed_ns", progress.elapsed_ns);
		say_close(say, '}');
	}
	if (entry)
		roster_give(region->k, entry);
}

static void look_say_histogram(const struct meter_sum *sum, const char *key, struct say *say)
{
	say_open(say, key, '{');
	say_number(say, "count", sum->count);
	say_number(say, "sum_ns", sum->sum_ns);
	say_number(say, "max_ns", sum->max_ns);
	say_number(say, "p50_ns", meter_percentile(sum, 500));
	say_number(say, "p90_ns", meter_percentile(sum, 900));
	say_number(say, "p99_ns", meter_percentile(sum, 990));
	say_number(say, "p999_ns", meter_percentile(sum, 999));
	say_open(say, "buckets", '[');
	for (unsigned i = 0; i < METER_BUCKETS; i++) {
		if (!sum->counts[i])
			continue;
		uint64_t end = meter_bucket_end(i);

		say_open(say, NULL, '[');
		say_number(say, NULL, end < INT64_MAX ? end : INT64_MAX);
		say_number(say, NULL, sum->counts[i]);
		say_close(say, ']');
	}
	say_close(say, ']');
	say_close(say, '}');
}

static void look_say_thread(uint64_t thread, uint64_t faults, struct say *say)
{
	say_open(say, NULL, '{');
	say_number(say, "tid", thread);
	say_number(say, "faults", faults);
	say_close(say, '}');
}

static void look_say_latency(const struct uffdwp_region *region, struct say *say)
{
	const struct meter *meter = atomic_load(&region->meter);
	struct meter_sum by_handler = {0};
	struct meter_sum by_writers = {0};

	if (meter)
		meter_read(&meter->by_handler, &by_handler);
	for (unsigned i = 0; meter && i < METER_SHARDS; i++)
		meter_read(&meter->by_writers[i], &by_writers);
	say_open(say, "latency", '{');
	look_say_histogram(&by_handler, "thread", say);
	look_say_histogram(&by_writers, "inline", say);
	say_close(say, '}');
	say_open(say, "threads", '[');
	if (by_handler.count && region->handler)
		look_say_thread(handler_thread(region->handler), by_handler.count, say);
	if (by_writers.count)
		look_say_thread(0, by_writers.count, say);
	say_close(say, ']');
}

static void look_stat_one(struct uffdwp_region *region, struct say *say)
{
	say_open(say, NULL, '{');
	say_number(say, "region", region->roster.number);
	look_say_stats(region, say);
	say_number(say, "armed_pages", ledger_count_protected(&region->ledger, 0, region_pages(region)));
	look_say_dirty(region, say);
	look_say_pool(region, say);
	acts_say_snapshot(region, say, "snapshot");
	look_say_restore(region, say);
	look_say_latency(region, say);
	say_close(say, '}');
}

void look_stat(const struct kernel_ops *k, struct uffdwp_region *region, struct say *say)
{
	struct roster_entry *entry;

	say_number(say, "now_ns", kernel_now_ns());
	say_open(say, "regions", '[');
	if (region)
		look_stat_one(region, say);
	for (uint64_t from = 0; !region && (entry = roster_take(ROSTER_REGION, from, NULL)) != NULL;) {
		from = entry->number + 1;
		if (look_may(((const struct uffdwp_region *)entry->thing)->runtime))
			look_stat_one(entry->thing, say);
		roster_give(k, entry);
	}
	say_close(say, ']');
	acts_say_ended(say, "ended");
}
