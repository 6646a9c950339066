/* SPDX-License-Identifier: MIT */
/* See cut.h. */
#include "snapshot/cut.h"

#include <errno.h>
#include <fcntl.h>

#include "base/math.h"
#include "base/probe_points.h"
#include "base/signals.h"
#include "base/trace.h"
#include "fault/audit.h"
#include "fault/handler.h"
#include "fault/runtime.h"
#include "region/run.h"
#include "region/view.h"

/* What one holding of faults may arm in the rounds: calls of the kernel, and pages. Writers wait so long. */
#define PORTION_CALLS 12
#define PORTION_PAGES 2048

/* Pages that are looked at while faults are held. */
#define PORTION_BLOCKS 64

/* Pages are armed in calls of this many, so that a call does not hold the kernel's locks for ever. */
#define ARM_PAGES 65536

/* A round of so few calls is short: the pause will be like it. */
#define SHORT_CALLS 4

/* Rounds end after so many, or so long: 0.3 s for each GiB, and a moment. */
#define ROUNDS_MAX 64
#define ROUNDS_NS_PER_MIB 290000ull
#define ROUNDS_NS_LEAST 20000000ull

/* How long the caller of begin runs at a time meanwhile. */
#define ROUNDS_SLICE_NS 300000

/* How long a fault sleeps where rounds do not get shorter. */
static const uint32_t brakes_ns[] = {0, 50000, 200000, 800000};

#define BRAKES (sizeof(brakes_ns) / sizeof(brakes_ns[0]))

/* One pass over a region, or a portion of it. */
struct pass {
	struct uffdwp_snapshot *snapshot;
	struct uffdwp_region *region;
	uint64_t end_page;
	struct run run; /* to be armed */
	uint64_t armed;
	uint64_t calls;
	uint64_t woke_ns; /* the last portion was held so long, and somebody slept meanwhile; else 0 */
	int error;
};

static uint64_t bitmap_bytes(const struct uffdwp_snapshot *snapshot)
{
	return round_up(snapshot->pages_most, 64) / 8;
}

int cut_has_rounds(const struct uffdwp_region *region)
{
	uint32_t id = region->mechanism->id;

	if (id != UFFDWP_MECHANISM_MARKER && id != UFFDWP_MECHANISM_REARM)
		return 0;
	/* Of huge pages there are few; and some are bare though they are armed (loses_mark_when_read()). */
	return region->uffd >= 0 && !region_loses_marks(region) && region->memory != UFFDWP_MEMORY_HUGETLB;
}

static int wants_kept(const struct uffdwp_snapshot *snapshot)
{
	return (snapshot->options.flags & UFFDWP_SNAPSHOT_KEEP) && cut_has_rounds(snapshot->region);
}

/* Of some discards nobody tells (fallocate(2)), of others too early: what had content at the last cut and is a hole now
 * has changed. Before the rounds: what is discarded behind the library's back after this look is seen by the next. */
static void note_discarded(struct uffdwp_snapshot *snapshot)
{
	struct uffdwp_region *region = snapshot->region;
	const _Atomic uint64_t *now = snapshot->preserve.content;

	pthread_mutex_lock(&region->lock);
	for (uint64_t word = 0; region->kept_content && word * 64 < snapshot->preserve.end_page; word++) {
		uint64_t gone = atomic_load(&region->kept_content[word]) & ~atomic_load(&now[word]);

		for (; gone; gone &= gone - 1)
			region_note_changed(region, word * 64 + (uint64_t)__builtin_ctzll(gone));
	}
	pthread_mutex_unlock(&region->lock);
	if (region->handler)
		handler_sync(region->handler); /* it acts on what it has read of discards */
}

int cut_open(struct uffdwp_snapshot *snapshot)
{
	struct uffdwp_region *region = snapshot->region;

	pthread_mutex_lock(&region->lock);
	int error = wants_kept(snapshot) ? region_note_changes(region) : 0;

	pthread_mutex_unlock(&region->lock);
	if (error || !atomic_load(&region->changed))
		return error;
	snapshot->pages_changed = pages_new(snapshot->k, bitmap_bytes(snapshot));
	if (!snapshot->pages_changed)
		return -ENOMEM;
	pages_touch(snapshot->k, (void *)snapshot->pages_changed, bitmap_bytes(snapshot));
	if (snapshot->increment)
		note_discarded(snapshot);
	return 0;
}

void cut_close(struct uffdwp_snapshot *snapshot)
{
	pages_free(snapshot->k, (void *)snapshot->pages_changed, bitmap_bytes(snapshot));
	snapshot->pages_changed = NULL;
}

/* ---- a pass, while faults are held ---- */

static void arm(struct pass *pass)
{
	if (pass->run.end > pass->run.first && !pass->error) {
		pass->error = region_arm_run(pass->region, pass->run.first, pass->run.end);
		pass->calls++;
	}
	pass->run = (struct run){0};
}

/* Of an increment what did not change is left to whoever watches it. */
static enum ledger_state state_of(const struct pass *pass, uint64_t page)
{
	_Atomic uint64_t *changed = atomic_load(&pass->region->changed);

	if (!pass->snapshot->increment)
		return LEDGER_ARMED;
	return atomic_load(&changed[page / 64]) >> (page % 64) & 1 ? LEDGER_ARMED : LEDGER_WATCHED;
}

static void look_at(struct pass *pass, uint64_t page)
{
	struct ledger *ledger = &pass->region->ledger;
	enum ledger_state state = ledger_get(ledger, page);

	if (ledger_is_marked(state)) {
		/* Only an event may be faster: then the page is LOST, and found by the next pass. */
		if (state != state_of(pass, page))
			ledger_move(ledger, page, state, state_of(pass, page));
		return;
	}
	region_note_written(pass->region, page);
	if (!run_join(&pass->run, ledger, page)) {
		arm(pass);
		run_join(&pass->run, ledger, page);
	}
	ledger_set(ledger, page, LEDGER_ARMED);
	pass->armed++;
}

static void look_at_block(struct pass *pass, uint64_t block)
{
	struct ledger *ledger = &pass->region->ledger;
	uint64_t first = block * LEDGER_BLOCK_PAGES;
	uint64_t end = min_u64(first + LEDGER_BLOCK_PAGES, pass->end_page);

	atomic_fetch_and(&ledger->touched[block / 64], ~(1ull << (block % 64)));
	for (uint64_t page = first; page < end; page++)
		look_at(pass, page);
	if (first + LEDGER_BLOCK_PAGES > pass->end_page)
		ledger_touch(ledger, first); /* what lies behind the snapshot is not armed */
}

/* The next block at or behind `from` that was touched, or lies at or behind `all_from`. */
static uint64_t next_block(const struct ledger *ledger, uint64_t from, uint64_t end, uint64_t all_from)
{
	uint64_t stop = min_u64(end, from > all_from ? from : all_from);

	for (uint64_t block = from; block < stop; block = (block / 64 + 1) * 64) {
		uint64_t bits =
		        atomic_load_explicit(&ledger->touched[block / 64], memory_order_acquire) >> (block % 64);

		if (bits)
			return min_u64(block + (uint64_t)__builtin_ctzll(bits), stop);
	}
	return stop;
}

static uint64_t block_count(uint64_t pages)
{
	return (pages + LEDGER_BLOCK_PAGES - 1) / LEDGER_BLOCK_PAGES;
}

static struct pass pass_of(struct uffdwp_snapshot *snapshot)
{
	return (struct pass){.snapshot = snapshot, .region = snapshot->region, .end_page = snapshot->preserve.end_page};
}

/* ---- rounds ---- */

/* What a round has left unlooked at ends behind the blocks of this portion. */
static uint64_t hold_portion(struct pass *pass, uint64_t block, uint64_t blocks, uint64_t all_from)
{
	struct uffdwp_region *region = pass->region;
	uint64_t calls = pass->calls;
	uint64_t armed = pass->armed;
	sigset_t before;

	signals_block(&before);
	uint64_t start = kernel_now_ns();

	fault_enter_phase(region, PHASE_HOLD);
	for (unsigned i = 0; i < PORTION_BLOCKS && block < blocks && !pass->error; i++) {
		if (pass->calls - calls >= PORTION_CALLS || pass->armed - armed >= PORTION_PAGES)
			break;
		look_at_block(pass, block);
		block = next_block(&region->ledger, block + 1, blocks, all_from);
	}
	arm(pass);
	atomic_store(&region->phase, (uint32_t)PHASE_IDLE);
	uint64_t held_ns = kernel_now_ns() - start;

	pass->woke_ns = fault_wake_held(region) ? held_ns : 0;
	signals_restore(&before);
	if (held_ns > pass->snapshot->held_most_ns)
		pass->snapshot->held_most_ns = held_ns;
	return block;
}

static uint64_t bound_ns(const struct uffdwp_snapshot *snapshot)
{
	return ROUNDS_NS_LEAST + (snapshot->length_bytes >> 20) * ROUNDS_NS_PER_MIB;
}

static uint64_t spent_ns(const struct uffdwp_snapshot *snapshot)
{
	return kernel_now_ns() - snapshot->rounds_begun_ns;
}

static void brake(struct uffdwp_region *region, unsigned level)
{
	if (brakes_ns[level] > atomic_load(&region->brake_ns))
		atomic_store(&region->brake_ns, brakes_ns[level]);
}

/* Writers may also leave the rounds no CPU to be short. */
static void brake_if_slow(const struct uffdwp_snapshot *snapshot)
{
	uint64_t eighths = spent_ns(snapshot) * 8 / bound_ns(snapshot);

	brake(snapshot->region, eighths >= 4 ? 3 : eighths >= 2 ? 2 : eighths >= 1);
}

/* From block `all_from` on all are looked at. */
static void make_round(struct pass *pass, uint64_t all_from)
{
	struct uffdwp_region *region = pass->region;
	uint64_t blocks = block_count(pass->end_page);
	uint64_t block = next_block(&region->ledger, 0, blocks, all_from);

	while (block < blocks && !pass->error) {
		pthread_mutex_lock(&region->lock);
		if (atomic_load(&region->dead) || atomic_load(&region->phase) != PHASE_IDLE)
			pass->error = -ESTALE;
		else
			block = hold_portion(pass, block, blocks, all_from);
		pthread_mutex_unlock(&region->lock);
		brake_if_slow(pass->snapshot);
		if (pass->woke_ns)
			fault_let_pass(region, pass->woke_ns);
	}
}

/* A failed portion: its pages are ARMED in the ledger and bare, perhaps. */
static void take_back(struct uffdwp_snapshot *snapshot)
{
	struct uffdwp_region *region = snapshot->region;

	pthread_mutex_lock(&region->lock);
	if (!atomic_load(&region->dead))
		fault_let_all_go(region);
	pthread_mutex_unlock(&region->lock);
}

/* Whether what was left protected still is: behind our back marks may have been taken. */
static void audit_marks(struct uffdwp_region *region)
{
	struct uffdwp_audit audit = {.sz = sizeof(audit)};
	sigset_t before;
	int pagemap = runtime_shows_marks(region->runtime) > 0
	                      ? region->k->open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC, 0)
	                      : -EOPNOTSUPP;

	pthread_mutex_lock(&region->lock);
	signals_block(&before);
	if ((pagemap < 0 || audit_run(region, pagemap, &audit)) && !atomic_load(&region->dead))
		fault_let_all_go(region); /* everything counts as changed, and is armed anew */
	signals_restore(&before);
	pthread_mutex_unlock(&region->lock);
	losses_tell(region);
	if (pagemap >= 0)
		region->k->close(pagemap);
}

static void enter_rounds(struct uffdwp_snapshot *snapshot)
{
	struct uffdwp_region *region = snapshot->region;

	snapshot->rounds_begun_ns = kernel_now_ns();
	snapshot->braked_before_ns = atomic_load(&region->braked_ns);
	pthread_mutex_lock(&region->lock);
	region->rounds = 1;
	uint32_t was_active = atomic_exchange(&region->active, 1);

	pthread_mutex_unlock(&region->lock);
	if (was_active)
		audit_marks(region);
}

struct rounds {
	uint64_t last_armed;
	unsigned brake;
	int ended;
};

static void go_round(struct uffdwp_snapshot *snapshot, struct rounds *rounds)
{
	struct pass pass = pass_of(snapshot);

	make_round(&pass, snapshot->rounds ? UINT64_MAX : 0);
	snapshot->rounds++;
	snapshot->rounds_pages += pass.armed;
	PROBE4(round, snapshot->region, snapshot->rounds, pass.armed, pass.calls);
	if (pass.error)
		take_back(snapshot);
	else if (snapshot->rounds > 2 && pass.armed * 2 > rounds->last_armed && rounds->brake + 1 < BRAKES)
		brake(snapshot->region, ++rounds->brake);
	rounds->last_armed = pass.armed;
	/* Of the first nothing is known: a call of it may have armed very much. */
	rounds->ended =
	        pass.error || snapshot->rounds >= ROUNDS_MAX ||
	        (snapshot->rounds > 1 && (pass.calls <= SHORT_CALLS || spent_ns(snapshot) > bound_ns(snapshot)));
	if (!pass.error)
		snapshot->rounds_end_page = pass.end_page;
}

static void end_rounds(struct uffdwp_snapshot *snapshot)
{
	struct uffdwp_region *region = snapshot->region;

	atomic_store(&region->brake_ns, 0);
	snapshot->rounds_ns = kernel_now_ns() - snapshot->rounds_begun_ns;
	snapshot->braked_ns = atomic_load(&region->braked_ns) - snapshot->braked_before_ns;
}

static void run_rounds(struct uffdwp_snapshot *const *snapshots, size_t count)
{
	struct rounds rounds[CUT_COUNT_MAX] = {0};
	size_t ended = 0;

	for (size_t i = 0; i < count; i++) {
		rounds[i].ended = !cut_has_rounds(snapshots[i]->region);
		ended += (size_t)rounds[i].ended;
		if (!rounds[i].ended)
			enter_rounds(snapshots[i]);
	}
	while (ended < count) { /* in turns: what was short must not have time to grow */
		for (size_t i = 0; i < count; i++) {
			if (rounds[i].ended)
				continue;
			go_round(snapshots[i], &rounds[i]);
			ended += (size_t)rounds[i].ended;
		}
	}
	for (size_t i = 0; i < count; i++) {
		if (snapshots[i]->rounds)
			end_rounds(snapshots[i]);
	}
}

/* Where writers leave no CPU free, a thread that has let them pass would wait for milliseconds each time. */
void cut_rounds(struct uffdwp_snapshot *const *snapshots, size_t count)
{
	const struct kernel_ops *k = snapshots[0]->k;
	int64_t slice_ns = k->sched_slice(ROUNDS_SLICE_NS);

	run_rounds(snapshots, count);
	if (slice_ns >= 0)
		k->sched_slice((uint64_t)slice_ns);
}

void cut_forget(struct uffdwp_snapshot *snapshot)
{
	struct uffdwp_region *region = snapshot->region;

	if (!snapshot->rounds)
		return;
	pthread_mutex_lock(&region->lock);
	region->rounds = 0;
	if (!region_is_wanted(region) && !region->caller_armed)
		fault_let_all_go(region);
	pthread_mutex_unlock(&region->lock);
}

/* ---- the pause ---- */

/* What the rounds left, and what they have not seen: the region may have grown since. */
static int arm_rest(struct uffdwp_snapshot *snapshot)
{
	struct pass pass = pass_of(snapshot);
	struct ledger *ledger = &snapshot->region->ledger;
	uint64_t blocks = block_count(pass.end_page);
	uint64_t all_from = snapshot->rounds_end_page / LEDGER_BLOCK_PAGES;
	uint64_t block = next_block(ledger, 0, blocks, all_from);

	for (; block < blocks && !pass.error; block = next_block(ledger, block + 1, blocks, all_from))
		look_at_block(&pass, block);
	arm(&pass);
	snapshot->pause_pages = pass.armed;
	return pass.error;
}

/* The marks will say that nothing was written: what a track was not told yet is noted (INV-TRACK). */
static int arm_all(struct uffdwp_snapshot *snapshot)
{
	struct uffdwp_region *region = snapshot->region;
	uint64_t end_page = snapshot->preserve.end_page;
	int error = 0;

	for (uint64_t page = 0; page < end_page && atomic_load(&region->tracked); page++) {
		if (!ledger_is_marked(ledger_get(&region->ledger, page)))
			region_note_written(region, page);
	}
	ledger_set_range(&region->ledger, 0, end_page, LEDGER_ARMED);
	for (uint64_t page = 0; page < end_page && !error; page += ARM_PAGES)
		error = region_arm_run(region, page, min_u64(page + ARM_PAGES, end_page));
	return error;
}

/* A snapshot failed, and views are open: what is protected stays so, or all of it would be broken off them. */
static void keep_for_views(struct uffdwp_snapshot *snapshot)
{
	struct uffdwp_region *region = snapshot->region;
	struct ledger *ledger = &region->ledger;

	for (uint64_t page = 0; page < snapshot->preserve.end_page; page++) {
		enum ledger_state state = ledger_get(ledger, page);

		if (state == LEDGER_WATCHED || state == LEDGER_FREE ||
		    ledger_move(ledger, page, LEDGER_ARMED, LEDGER_WATCHED))
			continue;
		ledger_set(ledger, page, LEDGER_LEAVING);
		region_disarm_run(region, page, page + 1);
		ledger_set(ledger, page, LEDGER_FREE);
	}
}

/* While faults are held or released: nothing is armed any more. */
static void disarm_all(struct uffdwp_snapshot *snapshot)
{
	uint64_t end_page = snapshot->preserve.end_page;

	struct ledger *ledger = &snapshot->region->ledger;

	ledger_set_range(ledger, 0, end_page, LEDGER_LEAVING);
	for (uint64_t page = 0; page < end_page; page += ARM_PAGES)
		region_disarm_run(snapshot->region, page, min_u64(page + ARM_PAGES, end_page));
	ledger_set_range(ledger, 0, end_page, LEDGER_FREE);
	snapshot->region->kept = 0;
}

/* With the region's lock held. */
static void leave_region(struct uffdwp_snapshot *snapshot)
{
	struct uffdwp_region *region = snapshot->region;

	fault_enter_phase(region, PHASE_IDLE);
	atomic_store(&region->preserve, NULL);
	if (snapshot->preserve.end_page >= region_pages(region))
		region->caller_armed = 0; /* what the caller had armed the snapshot has disarmed with its own */
	atomic_store(&region->active, (uint32_t)region_is_active(region));
	fault_epoch_wait(); /* and nobody holds the pool any more */
	fault_wake_held(region);
	fault_wake_starved(region);
	/* The track that wanted the marks is gone, or an earlier snapshot has left some behind the end of this one. */
	if ((snapshot->preserve.keeps || snapshot->preserve.end_page < region_pages(region)) &&
	    !region_is_wanted(region) && !region->caller_armed)
		fault_let_all_go(region);
}

/* The old one is freed with the snapshot. */
static void keep_content(struct uffdwp_snapshot *snapshot)
{
	struct uffdwp_region *region = snapshot->region;
	_Atomic uint64_t *content = snapshot->preserve.content;

	snapshot->preserve.content = region->kept_content;
	region->kept_content = content;
}

void cut_leave(struct uffdwp_snapshot *snapshot, int error)
{
	struct uffdwp_region *region = snapshot->region;

	/* The phase is RELEASE after a failure: whoever holds the lock and waits in a barrier goes on by that. */
	pthread_mutex_lock(&region->lock);
	region->kept = !error && wants_kept(snapshot);
	if (error) { /* only now: whoever had the lock may have moved the phase for a moment */
		fault_epoch_wait();
		if (atomic_load(&region->view_count))
			keep_for_views(snapshot);
		else
			disarm_all(snapshot);
	}
	leave_region(snapshot);
	if (region->kept) /* only now nobody looks at it by way of region->preserve */
		keep_content(snapshot);
	pthread_mutex_unlock(&region->lock);
}

static void hold(struct uffdwp_snapshot *snapshot)
{
	struct uffdwp_region *region = snapshot->region;

	region->rounds = 0;
	region->exact |= snapshot->increment;
	atomic_store(&region->coarse, (uint32_t)(!snapshot->view && snapshot->preserve.window_max > 1 &&
	                                         !region->exact && !region->caller_armed &&
	                                         !atomic_load(&region->tracked) && !atomic_load(&region->view_count)));
	snapshot->preserve.keeps = region_is_wanted(region) || snapshot->increment || wants_kept(snapshot);
	atomic_store(&region->active, 1);
	atomic_store(&region->phase, (uint32_t)PHASE_HOLD);
}

static void let_loose(struct uffdwp_snapshot *snapshot)
{
	struct uffdwp_region *region = snapshot->region;
	uint32_t preserving = PHASE_PRESERVE;

	/* A failure while faults were held could not move the phase. Partner: the exchange of `error` in fault_fail().
	 */
	if (atomic_load(&snapshot->preserve.error))
		atomic_compare_exchange_strong(&region->phase, &preserving, (uint32_t)PHASE_RELEASE);
	fault_wake_held(region);
}

/* From now on what is written belongs to the next increment. While faults are held: two pointers change places. */
static void take_changes(struct uffdwp_snapshot *snapshot)
{
	if (snapshot->pages_changed)
		snapshot->pages_changed = atomic_exchange(&snapshot->region->changed, snapshot->pages_changed);
}

/* The next increment may be longer than this image: it has all that lies behind, whether written or not. With the
 * region's lock held, which a collect needs. */
static void note_behind(struct uffdwp_snapshot *snapshot)
{
	uint64_t first = snapshot->length_bytes >> snapshot->region->page_shift; /* a last partial page, too */

	region_note_changed_range(snapshot->region, first, region_pages(snapshot->region));
}

static void give_up(struct uffdwp_snapshot *const *snapshots, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		disarm_all(snapshots[i]);
		leave_region(snapshots[i]);
	}
}

/* INV-CUT holds because from HOLD to PRESERVE no fault is resolved. */
static int make(struct uffdwp_snapshot *const *snapshots, size_t count)
{
	uint64_t start = kernel_now_ns();
	int error = 0;

	for (size_t i = 0; i < count; i++)
		hold(snapshots[i]);
	fault_epoch_wait();
	for (size_t i = 0; i < count && !error; i++) {
		if (!snapshots[i]->view)
			atomic_store(&snapshots[i]->region->preserve, &snapshots[i]->preserve);
		error = cut_has_rounds(snapshots[i]->region) ? arm_rest(snapshots[i]) : arm_all(snapshots[i]);
		if (!error && snapshots[i]->view)
			error = view_attach(snapshots[i]->view);
	}
	if (error) {
		give_up(snapshots, count);
		return error;
	}
	for (size_t i = 0; i < count; i++) {
		take_changes(snapshots[i]);
		snapshots[i]->faults_before = atomic_load(&snapshots[i]->region->counters.faults);
		atomic_store(&snapshots[i]->region->phase,
		             (uint32_t)(snapshots[i]->view ? PHASE_IDLE : PHASE_PRESERVE));
	}
	uint64_t pause_ns = kernel_now_ns() - start;

	for (size_t i = 0; i < count; i++) {
		snapshots[i]->pause_ns = pause_ns;
		PROBE3(cut, snapshots[i]->region, pause_ns, snapshots[i]->pause_pages);
		let_loose(snapshots[i]);
	}
	return 0;
}

int cut_make(struct uffdwp_snapshot *const *snapshots, size_t count)
{
	sigset_t before;

	signals_block(&before);
	int error = make(snapshots, count);

	signals_restore(&before);
	for (size_t i = 0; i < count; i++) {
		if (!error && snapshots[i]->pages_changed)
			note_behind(snapshots[i]);
	}
	return error;
}
