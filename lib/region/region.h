/* SPDX-License-Identifier: MIT */
/*
 * A region: one range of one kind of memory, its uffd, its ledger and its mechanism.
 *
 * Which thread may touch what:
 *  - `lock` orders the slow calls (begin, arm, grow, punch, close) among themselves. The fault path never takes it.
 *  - the fault path reads what is atomic or never changes after region_open(), inside the epoch of fault/fault.h.
 *  - `base` moves when attached memory is mremap()ed; only the handler thread that read the event writes it.
 *
 * The struct, the ledger and everything else that the fault path touches live in mappings of their own, not in the
 * caller's heap: a caller may attach its heap.
 */
#ifndef UFFDWP_REGION_REGION_H
#define UFFDWP_REGION_REGION_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "base/identity.h"
#include "base/lock.h"
#include "base/text.h"
#include "kernel/abi.h"
#include "kernel/kernel.h"
#include "kernel/pages.h"
#include "kernel/roster.h"
#include "region/ledger.h"
#include "region/loss.h"
#include "region/mechanism.h"
#include "uffdwp.h"

struct lazy;
struct meter;
struct preserve;
struct region_plan;
struct uffdwp_view;

/* What a write fault means at the moment; moved by the thread that holds `lock`, read by all. See fault.h. */
enum phase {
	PHASE_IDLE = 0,     /* no snapshot: a fault disarms its page */
	PHASE_STALL = 1,    /* pages are being armed: faults wait */
	PHASE_PRESERVE = 2, /* a snapshot runs: a fault keeps the pre-image first */
	PHASE_RELEASE = 3,  /* a snapshot failed: a fault disarms its page */
};

/* Why a region is dead. */
enum region_death {
	REGION_LIVES = 0,
	REGION_UNMAPPED = 1,     /* by this process, all or a part, or moved */
	REGION_ENDED = 2,        /* its last mapper has */
	REGION_CHANGED = 3,      /* a mapper has unmapped or moved a part, or forked */
	REGION_SHARED = 4,       /* a mapper has ended, its memory is another process's, too */
	REGION_UNSERVED = 5,     /* its handler died, or cannot read its uffd */
	REGION_CLOSED = 6,       /* its uffd, by the program */
	REGION_UNREGISTERED = 7, /* by the program */
};

/* Views in this process and in children. */
#define REGION_VIEWS_MAX (UFFDWP_VIEWS_MAX + UFFDWP_CHILDREN_MAX)

struct region_counters {
	_Atomic uint64_t faults;
	_Atomic uint64_t faults_repeated;
	_Atomic uint64_t pages_disarmed;
	_Atomic uint64_t events_remove;
	_Atomic uint64_t events_remap;
	_Atomic uint64_t events_unmap;
	_Atomic uint64_t pages_rearmed;
	_Atomic uint64_t pages_filled;
	_Atomic uint64_t snapshots;
};

/* Where the sequential writers are: what the window of a fault follows from. Hints only; races do no harm. */
#define REGION_STREAMS 8

/* Counters of refused fills: pages that many apart share one. */
#define REGION_REFUSED 64

/* How long a call is tried again while a kernel event waits for the handler that must read it. */
#define REGION_EVENT_NS 10000000000ull

/* Which pages a fault may take along beside the one that was written to, see fault/window.h. */
enum region_coarse {
	REGION_EXACT = 0,         /* none: each page that was written to is reported */
	REGION_COARSE_BLOCKS = 1, /* of its block: all pages were armed for a snapshot */
	REGION_COARSE_AREAS = 2,  /* of its area: for a child, and for no other view */
};

/* Memory of a snapshot that kept the region's protection, left to the next: touched pages. */
struct region_spare {
	void *memory; /* NULL: none */
	size_t length;
};

/* Wakes the thread that looks after handlers (fault/guard.h), when there is something to look after. */
struct region_bell {
	_Atomic uint32_t rung;
	_Atomic uint32_t awaited; /* it sleeps until it is rung */
};

#define REGION_SPARES 2 /* a pool, and the buffers of chunks */

struct uffdwp_region {
	/* Fixed after region_open(). */
	const struct kernel_ops *k;
	const struct mechanism *mechanism;
	uint64_t page_bytes;
	uint64_t capacity_bytes;
	uint64_t fd_offset;
	unsigned page_shift;
	uint32_t memory;    /* enum uffdwp_memory */
	uint32_t delivery;  /* enum uffdwp_delivery */
	uint32_t fills;     /* UFFDWP_PROBE_FILL_*: what the kernel can do in one step */
	uint32_t aliases;   /* other writable mappings of the memory, at the attach */
	int prot;           /* of mmap(2): as the memory was before it was armed */
	uint32_t process;   /* the process that has it, by process_number() */
	int tag;            /* of uffd, mem, pagemap, see kernel/own.h */
	uint64_t fd_device; /* which file fd is */
	uint64_t fd_inode;
	int uffd;           /* -1: the mechanism needs none */
	int fd;             /* -1: none known */
	int mem;            /* /proc/self/mem: reads that neither fault nor wait; -1: not needed */
	int pagemap;        /* /proc/self/pagemap, beside mem */
	int can_poison;     /* 1: UFFDIO_POISON is available */
	int threads_known;  /* 1: faults say which thread met them */
	int shows_writable; /* mprotect: whether a mapping is writable can be asked cheaply: (MADV_POPULATE_WRITE, 5.14)
	                     */
	int syscalls_wait;  /* 1: a system call that meets a protected or empty entry waits until it is resolved */
	int owned;          /* 1: created by us, unmapped by us */
	int sealed;
	int inherits; /* a child of fork(2) has it, too */
	int wake_tag;
	int wake_fd; /* eventfd of the handler, where writers find losses; -1 */
	uffdwp_loss_fn on_loss;
	void *on_loss_user;
	int numa_mode; /* of mbind(2); 0: the default */
	uint64_t numa_nodes;
	struct mappers *mappers; /* NULL: the memory is armed in the page tables of this process */
	int is_private;          /* 1: the memory is the mapper's alone: nothing of it is here, see mapper.h */
	struct uffdwp *runtime;  /* opaque here: its error text and handlers */
	struct text *text;       /* NULL: texts are those of the thread that calls */
	void *handler;           /* the thread that reads our uffd; its own business */
	_Atomic(struct region_bell *) bell; /* rung when something is armed; NULL: no thread listens */

	/* The fault path's. */
	struct ledger ledger;
	_Atomic uintptr_t base;
	_Atomic uint64_t length_bytes;
	_Atomic uint32_t phase;              /* enum phase */
	_Atomic uint32_t active;             /* 0: nothing is armed, uffdwp_prepare_write() has nothing to do */
	_Atomic uint32_t held;               /* the handler left writers asleep: wake all when the phase changes */
	unsigned again_turns;                /* the handler's: how often in a row `again` was set */
	_Atomic uint32_t again;              /* the handler could not disarm: wake all when everything was read */
	_Atomic uint32_t unwakeable;         /* the kernel refuses to resume threads: the handler closes the uffd */
	_Atomic uint32_t starved;            /* the same, for want of pool memory: wake all when some is free */
	_Atomic uint64_t starved_since_ns;   /* valid while starved; 0: memory was freed since */
	_Atomic uint64_t starved_page;       /* one that waits */
	_Atomic uint32_t dead;               /* enum region_death */
	_Atomic uint32_t unmapped;           /* what is mapped there now is not ours */
	_Atomic(struct preserve *) preserve; /* of the running snapshot; valid inside the epoch while not IDLE */
	_Atomic(struct lazy *) lazy;         /* of the restore that runs, or has failed; used inside the epoch */
	_Atomic uint32_t merges;             /* KSM may merge pages of it, which clears wp bits */
	_Atomic uint32_t clinging;           /* a disarming was refused: pages that are LEAVING may carry the wp bit */
	_Atomic uint32_t torn;               /* a page was taken out of the registration */
	_Atomic uint64_t holes_filled;       /* entries without content that were filled with zeros */
	_Atomic uint64_t discards;           /* by the library */
	_Atomic uint32_t owns_empty;         /* accesses to empty entries come to us: region_own_empty() */
	void *_Atomic zeros;                 /* a page of zeros, for fills; there where empty entries are ours */
	_Atomic uint32_t moved;  /* a running snapshot has moved its page tables away: to be empty is to be armed */
	_Atomic uint32_t moving; /* a thread of ours is in mremap(2), and sleeps until a handler has read the event */
	_Atomic uintptr_t moved_to;      /* where to, until no event of it can be unread; 0: nowhere */
	_Atomic uint32_t events_in_hand; /* the handler has read, or is about to, and has not acted on it all */
	_Atomic uint32_t events_turns;   /* how often it had */
	_Atomic uint32_t supplying;   /* threads that may fill pages of private memory at this moment: see supply.c */
	_Atomic uint32_t unbegun;     /* private memory, of which no restore has begun yet: accesses wait for it */
	_Atomic int64_t maps;         /* mappings that mprotect makes of it, about */
	_Atomic uint64_t armed_until; /* mprotect: pages [0, armed_until) were armed one call after the other */
	/* Tracks: a bit for each page that was written although it carries a wp bit now; NULL until the first track. */
	_Atomic(_Atomic uint64_t *) written;
	/* Increments: the same since the cut of the last snapshot that kept the protection; NULL until the first. */
	_Atomic(_Atomic uint64_t *) changed;
	_Atomic uint32_t tracked; /* ranges of it that tracks watch: what a snapshot has saved stays protected */
	_Atomic(struct uffdwp_view *) views[REGION_VIEWS_MAX]; /* used inside the epoch */
	_Atomic uint32_t view_count;
	_Atomic uint32_t child_count; /* of them, those in other processes */
	_Atomic uint32_t child_users; /* threads of children, and of callers that make some, that use the region */
	_Atomic uint32_t closing;     /* it is used by none that comes later */
	_Atomic uint32_t leftovers;   /* children, also such as have ended, whose protection was not taken off yet */
	_Atomic uint32_t view_stalls; /* of these, those that no page can be broken off now: writes wait, see view.h */
	_Atomic uint32_t brake_ns;    /* rounds of arming do not get shorter: each fault sleeps so long */
	_Atomic uint64_t braked_ns;
	_Atomic uint64_t streams[REGION_STREAMS];
	_Atomic uint32_t stream_next;
	_Atomic uint32_t coarse; /* enum region_coarse: by the last cut */
	/* REGION_COARSE_AREAS. */
	_Atomic uint32_t area_window;   /* pages that one fault may break off children */
	_Atomic uint32_t area_is_busy;  /* writers fault without a pause */
	_Atomic uint64_t area_faults;   /* since the last cut */
	_Atomic uint64_t area_since_ns; /* when it was looked at last whether they do */
	_Atomic uint64_t area_hot; /* a page whose area is written densely, and 1: for the child's thread; 0: none */
	struct region_counters counters;
	struct losses losses;
	_Atomic(struct meter *) meter; /* how long faults take; NULL: the program has no control */

	/* The slow calls'. */
	struct lock lock;
	int snapshot_open; /* a snapshot has not been freed */
	int cut_comes;     /* a cut is prepared, of whatever owner: no other meanwhile */
	int restore_open;  /* a lazy restore has not been freed */
	int soft_dirty;    /* a track's that asks the kernel's soft-dirty bits: protected only while it asks */
	int caller_armed;  /* uffdwp_region_arm() may have left pages armed */
	int kept;          /* the last snapshot has left it protected, for the next */
	struct region_spare spares[REGION_SPARES];
	unsigned moves_soon;    /* cuts that are prepared: all of it stays registered as it is */
	_Atomic uint32_t moves; /* that were made: the owner of the last fills entries, see move_fill() */
	int immovable;          /* the kernel has refused to move its page tables, and the mapping is in parts still */
	int rounds;             /* a cut comes: pages are being armed for it */
	/* Pages that had content at that cut; what is a hole now was discarded since. NULL: not known. */
	_Atomic uint64_t *kept_content;
	/* How often in a row the kernel had nothing to fill these pages with. */
	_Atomic uint8_t refused[REGION_REFUSED];
	_Atomic uint64_t
	        *content; /* of the snapshot that prepares its cut: a punch clears its pages there; else NULL */

	struct image_identity last_image; /* of the last snapshot that became an image; under `lock` */
	struct roster_entry roster;       /* there, where the program has control */
	const char *unkept;               /* why `kept` is 0, for texts; NULL: there was no snapshot of it yet */
};

/* Creates or attaches by plan: memory, uffd, registration, ledger. Not yet known to a handler nor to the registry. */
int region_open(const struct region_plan *plan, struct uffdwp_region **out);

/* The first cause counts. (signal) */
void region_die(struct uffdwp_region *region, enum region_death death);
/* The cause, for texts; of a region that lives, what -ESTALE means most often. */
const char *region_death(const struct uffdwp_region *region);

/* -EOPNOTSUPP, with text, where the memory is not here: for calls that read, protect or discard it. */
int region_refuse_private(const struct uffdwp_region *region, struct text *text);

/* Registers all of the region with its uffd, in its mechanism's modes; once more does no harm. 0 or -errno, with text.
 */
int region_register(struct uffdwp_region *region);

/* Registers what was taken out of the registration. Before pages are disarmed in bulk; region_prepare() does it, too. 0
 * or -errno, with text. With the region's lock held. */
int region_mend(struct uffdwp_region *region);

/* A page of zeros, for fills of holes. 0 or -ENOMEM, with text. */
int region_open_zeros(struct uffdwp_region *region);

/* From now on accesses to empty entries of shared memory come to us, also where the mechanism leaves them to the
 * kernel: the region is registered for them, too. 0 or -errno, with text. With the region's lock held. */
int region_own_empty(struct uffdwp_region *region);

/* The mechanism's own registration again, piece by piece from *offset on, 0 at first. Nothing may be armed. 1: there is
 * more to do; 0: it is done, or cannot be, or was registered again. With the region's lock held. */
int region_disown_piece(struct uffdwp_region *region, uint64_t *offset);

/* Before an arming, while no fault is stalled: what takes time. 0 or -errno, with text. With the region's lock held. */
int region_prepare(struct uffdwp_region *region);

/* Takes the registration away: every waiting writer goes on, no fault or event comes any more. */
void region_unregister(struct uffdwp_region *region);

/* Frees all; after region_unregister(), unknown to handler and registry. */
void region_free(struct uffdwp_region *region);

/* Reads bytes of the region by system calls, so that a mapping that vanishes is an error and not a crash, and no thread
 * waits for a fault; holes read as zeros and stay holes where fd is known. (signal) 0 or -errno; -EAGAIN: an empty
 * entry of anonymous memory was met, and the handler has not found out yet whether its content was discarded just now.
 */
int region_read(struct uffdwp_region *region, uint64_t offset, void *buffer, size_t length);

/* The same, where the caller knows that an entry without a page is one that had none at the cut. (signal) */
int region_read_empty(struct uffdwp_region *region, uint64_t offset, void *buffer, size_t length);

enum region_seek {
	REGION_SEEK_HOLE, /* may be too early, never too late */
	REGION_SEEK_DATA,
	REGION_SEEK_DATA_HINT, /* may pass a page that the kernel is moving: for hints, and while faults are stalled */
};

/* Next byte at or after `offset` that is data or hole, at most `end`; where the file system does not say, all is data:
 * see kernel/holes.h. */
uint64_t region_seek(struct uffdwp_region *region, uint64_t offset, uint64_t end, enum region_seek what);

/* Which of the up to 64 pages [first, end) are as good as known to have content, to be compared later: with the
 * region's lock held, or `claimed`: of pages that the caller has claimed and read. For shmem those that have data; for
 * hugetlb those that are mapped, which only a punch or MADV_DONTNEED undoes; for anonymous memory, where its pagemap is
 * open, those that are in memory or in swap. Else none. */
uint64_t region_content(struct uffdwp_region *region, uint64_t first, uint64_t end, int claimed);

/* What is left of `content` of the up to 64 pages [first, end) of shmem without pages of zeros in memory: where a hole
 * was only read the kernel may take such a page away again without swapping it out. */
uint64_t region_content_but_zeros(struct uffdwp_region *region, uint64_t first, uint64_t end, uint64_t content);

/* Which of the up to 64 pages [first, end) nothing stops a write to, although all of them should be armed: by an open
 * /proc/self/pagemap, or under mprotect by asking the kernel to populate them for writing. All where it cannot be
 * known. (signal) */
uint64_t region_bare(struct uffdwp_region *region, int pagemap, uint64_t first, uint64_t end);

/* KSM, or another userfaultfd, has taken protection: the next arming takes care that it does not merge again. */
void region_note_bare(struct uffdwp_region *region);

/* Something is not where it was: waits shortly for an event that says so. 1: the region is at another place now. */
int region_has_moved(struct uffdwp_region *region, uintptr_t base_before);

/* 0: nothing is mapped at the page's address any more. */
int region_is_mapped(struct uffdwp_region *region, uint64_t page);

/* 0, also of a region without a file; -EBADF, -ESTALE: the program has closed it, and opened another by its number. */
int region_check_file(const struct uffdwp_region *region);
/* Remembers which file region->fd is; on failure it is closed. */
int region_know_file(struct uffdwp_region *region);

/* Which of the up to 64 pages [first, end) have data: bit n is page first + n. All of them where it cannot be known. */
uint64_t region_data(struct uffdwp_region *region, uint64_t first, uint64_t end);

/* Which limit it was that a call ran into, where the error names one; else "". */
const char *region_limit_advice(int error);

/* Takes the region's lock. The length is of whole pages, and within the capacity. 0; -EINVAL: that is less than there
 * is; -errno, with text. */
int region_grow(struct uffdwp_region *region, uint64_t length_bytes);

/* Gives back the memory of a range; what a snapshot needs was preserved by the caller. */
int region_discard(struct uffdwp_region *region, uint64_t offset, uint64_t length);

/* The pagemap words of the first system page of each of the up to 64 pages [first, end). (signal) 0 or -errno. */
int region_entries(struct uffdwp_region *region, int pagemap, uint64_t first, uint64_t end, uint64_t *entries);
/* The same of `count` pages at an address of the process that the pagemap is of. */
int region_entries_at(const struct uffdwp_region *region, int pagemap, uint64_t address, size_t count,
                      uint64_t *entries);

/* 1: the page of the file at an empty entry is swapped out. (signal) */
int region_is_swapped(struct uffdwp_region *region, uint64_t page);

/* Arms or disarms [first, end), waiting (bounded) while the kernel says -EAGAIN: an event waits for the handler. */
int region_arm_run(struct uffdwp_region *region, uint64_t first, uint64_t end);
int region_disarm_run(struct uffdwp_region *region, uint64_t first, uint64_t end);

/* A page changed, or may have, and will carry a wp bit all the same: the next increment has it. (signal) */
static inline void region_note_changed(struct uffdwp_region *region, uint64_t page)
{
	_Atomic uint64_t *changed = atomic_load_explicit(&region->changed, memory_order_acquire);

	if (!changed)
		return;
	atomic_fetch_or(&changed[page / 64], 1ull << (page % 64));
	ledger_touch(&region->ledger, page); /* it has to be ARMED at the next cut */
}

/* The same for the next collect. (signal) */
static inline void region_note_uncollected(struct uffdwp_region *region, uint64_t page)
{
	_Atomic uint64_t *written = atomic_load_explicit(&region->written, memory_order_acquire);

	if (written)
		atomic_fetch_or(&written[page / 64], 1ull << (page % 64));
}

/* For both. (signal) */
static inline void region_note_written(struct uffdwp_region *region, uint64_t page)
{
	region_note_uncollected(region, page);
	region_note_changed(region, page);
}

/* The same of pages [first, end). */
static inline void region_note_written_range(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	if (!atomic_load(&region->written) && !atomic_load(&region->changed))
		return;
	for (uint64_t page = first; page < end; page++)
		region_note_written(region, page);
}

/* The same of pages [first, end), for the next increment only. */
static inline void region_note_changed_range(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	for (uint64_t page = first; page < end && atomic_load(&region->changed); page++)
		region_note_changed(region, page);
}

/* Another range of it is tracked from now on, or one less; with the region's lock held. -ENOMEM. */
int region_track(struct uffdwp_region *region);
void region_untrack(struct uffdwp_region *region);

/* From now on region_note_changed() notes; with the region's lock held. -ENOMEM. */
int region_note_changes(struct uffdwp_region *region);

/* Why nothing is `kept`. */
#define REGION_UNKEPT_FAILED "that snapshot failed or was aborted"
#define REGION_UNKEPT_NO_FLAG "that snapshot was begun without UFFDWP_SNAPSHOT_KEEP"
#define REGION_UNKEPT_DISARMED "the region was disarmed after it"
#define REGION_UNKEPT_RESTORED "the region was restored after it"

/* What the last snapshot left protected cannot be built on any more. */
static inline void region_unkeep(struct uffdwp_region *region, const char *why)
{
	if (region->kept)
		region->unkept = why;
	region->kept = 0;
}

/* 1: the protection of pages that are not written is wanted beyond a snapshot's end, or for the next. */
static inline int region_is_wanted(const struct uffdwp_region *region)
{
	return region->kept || region->rounds || atomic_load(&region->tracked) || atomic_load(&region->view_count);
}

/* 1: a page has to be broken off a view's private mapping of the file before its protection may go: that costs
 * memory. */
static inline int region_breaks_pages(const struct uffdwp_region *region)
{
	return atomic_load(&region->view_count) != 0;
}

/* 1: a thread may have to be stopped at a write, or to wait for a page: uffdwp_prepare_write() has work to do. With the
 * region's lock held. */
/* Moves the word, and wakes a thread that sleeps on it. */
static inline void region_ring(struct region_bell *bell, const struct kernel_ops *k)
{
	atomic_store(&bell->awaited, 0);
	atomic_fetch_add(&bell->rung, 1);
	k->futex_wake((const uint32_t *)&bell->rung, 1);
}

/* Something is about to be armed. What `active` was. */
static inline uint32_t region_activate(struct uffdwp_region *region)
{
	uint32_t before = atomic_exchange(&region->active, 1);
	struct region_bell *bell = atomic_load(&region->bell);

	if (bell && atomic_load(&bell->awaited)) /* partner: guard_sleep() */
		region_ring(bell, region->k);
	return before;
}

static inline int region_is_active(const struct uffdwp_region *region)
{
	return region->caller_armed || atomic_load(&region->clinging) || region_is_wanted(region) ||
	       atomic_load(&region->lazy) != NULL;
}

/* 1: page tables may have been moved away by others than the cut that ends: children. */
static inline int region_shares_moves(const struct uffdwp_region *region)
{
	return atomic_load(&region->child_count) != 0;
}

/* By its memory a child of uffdwp_fork() can have it. */
static inline int region_fits_child(const struct uffdwp_region *region)
{
	return region->owned && !region->inherits && region->memory == UFFDWP_MEMORY_SHMEM;
}

/* The mechanism loses wp bits and content of this memory together, and only an event reports it. */
static inline int region_loses_wp_bits(const struct uffdwp_region *region)
{
	return (int)(region->mechanism->memory_loses_wp_bit >> region->memory & 1);
}

/* No event reports a discard, and a read fills an empty entry with zeros: whether there is content is asked before. */
static inline int region_reads_zeros(const struct uffdwp_region *region)
{
	return region->uffd < 0 && region->memory == UFFDWP_MEMORY_ANON;
}

/* The kernel has a wp bit for each armed page that is there, of small pages, and may show it in the pagemap. */
static inline int region_has_wp_bits(const struct uffdwp_region *region)
{
	return region->uffd >= 0 && region->memory != UFFDWP_MEMORY_HUGETLB && !region->is_private &&
	       (region->mechanism->register_modes[region->memory] & UFFDIO_REGISTER_MODE_WP);
}

/* The kernel clears wp bits of such memory without an event: KSM, and the split of huge pages that are mostly zeros. */
static inline int region_may_merge(const struct uffdwp_region *region)
{
	return region->memory == UFFDWP_MEMORY_ANON && region_has_wp_bits(region);
}

/* Accesses to empty entries come to us. */
static inline int region_owns_empty(const struct uffdwp_region *region)
{
	return (int)atomic_load_explicit(&region->owns_empty, memory_order_acquire);
}

/* By its mechanism they come to us always, or can from a call of region_own_empty() on. */
static inline int region_can_own_empty(const struct uffdwp_region *region)
{
	return region->memory == UFFDWP_MEMORY_SHMEM && region->mechanism->fill && region_has_wp_bits(region);
}

/* A system call cannot wait for an empty entry to be filled: barriers fill it. */
static inline int region_populates(const struct uffdwp_region *region)
{
	return !region->syscalls_wait && region_owns_empty(region);
}

/* A fault comes from a wp bit, so that the page is there. */
static inline int region_shows_page(const struct uffdwp_region *region)
{
	return region->uffd >= 0 && !region_owns_empty(region);
}

static inline uint64_t region_pages(const struct uffdwp_region *region)
{
	return atomic_load_explicit(&region->length_bytes, memory_order_acquire) >> region->page_shift;
}

static inline unsigned char *region_address(const struct uffdwp_region *region, uint64_t page)
{
	return (unsigned char *)atomic_load_explicit(&region->base, memory_order_acquire) +
	       (page << region->page_shift);
}

/* What the kernel goes through at a time where it holds the lock that faults need: old page tables that are unmapped, a
 * registration that is taken away. */
#define REGION_PIECE_BYTES (4ull << 20)

static inline uint64_t region_piece_bytes(const struct uffdwp_region *region)
{
	return region->page_bytes < REGION_PIECE_BYTES ? REGION_PIECE_BYTES : region->page_bytes;
}

/* Memory for what serves this region: on its nodes, where it was bound to some. */
void *region_pages_new(const struct uffdwp_region *region, size_t length);

/* What a snapshot left of just this length, touched; NULL: nothing. Takes the region's lock. */
void *region_spare_take(struct uffdwp_region *region, size_t length);

/* Leaves memory to the region's next snapshot; what there is no room for is freed. Takes the region's lock. */
void region_spare_give(struct uffdwp_region *region, void *memory, size_t length);

/* Frees what was left and not taken. Takes the region's lock, which is there until the region is freed. */
void region_spare_forget(struct uffdwp_region *region);

#endif
