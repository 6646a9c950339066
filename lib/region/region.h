/* SPDX-License-Identifier: MIT */
/*
 * A region: one range of one kind of memory, its uffd, its ledger and its mechanism.
 *
 * Who may touch what:
 *  - `lock` orders the slow calls (begin, arm, grow, punch, close) among themselves. The fault path never takes it.
 *  - the fault path reads what is atomic or never changes after region_open(), inside the epoch of fault/fault.h.
 *  - `base` moves when attached memory is mremap()ed; only the handler thread that read the event writes it.
 *
 * The struct, the ledger and everything else that the fault path touches live in mappings of their own, not in the
 * caller's heap: a caller may attach his heap.
 */
#ifndef UFFDWP_REGION_REGION_H
#define UFFDWP_REGION_REGION_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "base/identity.h"
#include "base/text.h"
#include "kernel/kernel.h"
#include "region/ledger.h"
#include "region/loss.h"
#include "region/mechanism.h"
#include "uffdwp.h"

struct lazy;
struct preserve;
struct uffdwp_view;

/* What a write fault means at the moment; moved by whoever holds `lock`, read by everybody. See fault.h. */
enum phase {
	PHASE_IDLE = 0,     /* no snapshot: a fault disarms its page */
	PHASE_HOLD = 1,     /* pages are being armed: faults wait */
	PHASE_PRESERVE = 2, /* a snapshot runs: a fault keeps the pre-image first */
	PHASE_RELEASE = 3,  /* a snapshot failed: a fault disarms its page */
};

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

/* Where the sequential writers are: what the window of a fault learns from. Hints only; races do no harm. */
#define REGION_STREAMS 8

struct uffdwp_region {
	/* Fixed after region_open(). */
	const struct kernel_ops *k;
	const struct mechanism *mechanism;
	uint64_t page_bytes;
	uint64_t capacity_bytes;
	uint64_t fd_offset;
	unsigned page_shift;
	uint32_t memory;   /* enum uffdwp_memory */
	uint32_t delivery; /* enum uffdwp_delivery */
	uint32_t fills;    /* UFFDWP_FILL_*: what the kernel can do in one step */
	uint32_t aliases;  /* other writable mappings of the memory, at the attach */
	int prot;          /* of mmap(2): as the memory was before it was armed */
	int uffd;          /* -1: the mechanism needs none */
	int fd;            /* -1: none known */
	int mem;           /* /proc/self/mem: reads that neither fault nor wait; -1: not needed */
	int pagemap;       /* /proc/self/pagemap, beside mem */
	int can_poison;    /* 1: UFFDIO_POISON is to be had */
	int populate;      /* 1: a system call cannot wait for an empty entry to be filled: barriers fill it */
	void *zeros;       /* a page of zeros, for fills; NULL: not needed */
	int owned;         /* 1: created by us, unmapped by us */
	int sealed;
	int wake_fd; /* eventfd of the handler, where writers find losses; -1 */
	uffdwp_loss_fn on_loss;
	void *on_loss_user;
	int numa_mode; /* of mbind(2); 0: the default */
	uint64_t numa_nodes;
	struct uffdwp *runtime; /* opaque here: whose error text and handlers */
	struct text *text;      /* the runtime's */
	void *handler;          /* the thread that reads our uffd; its own business */

	/* The fault path's. */
	struct ledger ledger;
	_Atomic uintptr_t base;
	_Atomic uint64_t length_bytes;
	_Atomic uint32_t phase;              /* enum phase */
	_Atomic uint32_t active;             /* 0: nothing is armed, uffdwp_prepare_write() has nothing to do */
	_Atomic uint32_t held;               /* the handler left writers asleep: wake all when the phase changes */
	_Atomic uint32_t again;              /* the handler could not disarm: wake all when everything was read */
	_Atomic uint32_t starved;            /* the same, for want of pool memory: wake all when some is free */
	_Atomic uint64_t starved_since_ns;   /* valid while starved; 0: memory was freed since */
	_Atomic uint64_t starved_page;       /* one that waits */
	_Atomic uint32_t dead;               /* unmapped behind our back, or its handler died */
	_Atomic uint32_t unmapped;           /* what is mapped there now is not ours */
	_Atomic(struct preserve *) preserve; /* of the running snapshot; valid inside the epoch while not IDLE */
	_Atomic(struct lazy *) lazy;         /* of the restore that runs, or has failed; used inside the epoch */
	_Atomic uint64_t refused;            /* page << 8 | how often in a row the kernel had nothing to fill it with */
	_Atomic uint32_t torn;               /* a page was taken out of the registration */
	_Atomic uint32_t events_in_hand;     /* the handler has read, or is about to, and has not acted on it all */
	_Atomic int64_t maps;                /* mappings that mprotect makes of it, about */
	_Atomic uint64_t armed_until;        /* mprotect: pages [0, armed_until) were armed one call after the other */
	/* Tracks: a bit for each page that was written although it carries a mark now; NULL until the first track. */
	_Atomic(_Atomic uint64_t *) written;
	/* Increments: the same since the cut of the last snapshot that kept the protection; NULL until the first. */
	_Atomic(_Atomic uint64_t *) changed;
	_Atomic uint32_t tracked; /* ranges of it that tracks watch: what a snapshot has saved stays protected */
	_Atomic(struct uffdwp_view *) views[UFFDWP_VIEWS_MAX]; /* used inside the epoch */
	_Atomic uint32_t view_count;
	_Atomic uint32_t brake_ns; /* rounds of arming do not get shorter: each fault sleeps so long */
	_Atomic uint64_t braked_ns;
	_Atomic uint64_t streams[REGION_STREAMS];
	_Atomic uint32_t stream_next;
	_Atomic uint32_t coarse; /* armed for snapshots of all pages: neighbours of written pages may be let go */
	struct region_counters counters;
	struct losses losses;

	/* The slow calls'. */
	pthread_mutex_t lock;
	int snapshot_open; /* a snapshot has not been freed */
	int restore_open;  /* a lazy restore has not been freed */
	int soft_dirty;    /* a track's, who asks the kernel's soft-dirty bits: protected only while it asks */
	int caller_armed;  /* uffdwp_region_arm() may have left pages armed */
	int kept;          /* the last snapshot has left it protected, for the next */
	int exact;         /* increments are taken of it: what was not written is not let go */
	int rounds;        /* a cut comes: pages are being armed for it */
	/* Pages that had content at that cut; what is a hole now was discarded since. NULL: not known. */
	_Atomic uint64_t *kept_content;
	_Atomic uint64_t
	        *content; /* of the snapshot that prepares its cut: a punch clears its pages there; else NULL */

	struct image_identity last_image; /* of the last snapshot that became an image; under `lock` */
};

/* How a region comes to be: checked by api.c. */
struct region_plan {
	const struct kernel_ops *k;
	enum kernel_access access;
	const struct mechanism *mechanism;
	struct uffdwp *runtime;
	struct text *text;
	void *address; /* attach; NULL: create */
	uint64_t length_bytes;
	uint64_t capacity_bytes;
	uint64_t page_bytes;
	uint32_t memory;
	uint32_t fills;
	uint32_t aliases;
	uint64_t device; /* attach: of the file that is mapped there */
	int prot;
	struct uffdwp_region_options options;
};

/* Creates or attaches by plan: memory, uffd, registration, ledger. Not yet known to a handler nor to the registry. */
int region_open(const struct region_plan *plan, struct uffdwp_region **out);

/* Registers all of the region with its uffd, in its mechanism's modes; once more does no harm. 0 or -errno, with text.
 */
int region_register(struct uffdwp_region *region);

/* Before an arming, while nothing is held: what takes time. 0 or -errno, with text. With the region's lock held. */
int region_prepare(struct uffdwp_region *region);

/* Takes the registration away: every waiting writer goes on, no fault or event comes any more. */
void region_unregister(struct uffdwp_region *region);

/* Frees all; after region_unregister(), unknown to handler and registry. */
void region_free(struct uffdwp_region *region);

/* Reads bytes of the region by system calls, so that a mapping that vanishes is an error and not a crash, and nobody
 * waits for a fault; holes read as zeros and stay holes where fd is known. (signal) 0 or -errno; -EAGAIN: an empty
 * entry of anonymous memory was met, and whether its content was discarded just now the handler has not found out yet.
 */
int region_read(struct uffdwp_region *region, uint64_t offset, void *buffer, size_t length);

/* The same, where the caller knows that an entry without a page is one that had none at the cut. (signal) */
int region_read_empty(struct uffdwp_region *region, uint64_t offset, void *buffer, size_t length);

/* The first, waiting shortly for the event when the region is not where it was: not for a handler, who must read it. */
int region_read_patiently(struct uffdwp_region *region, uint64_t offset, void *buffer, size_t length);

/* Next byte at or after `offset` that is data (hole = 0) or hole (hole = 1), at most `end`; without SEEK_DATA all is
 * data. */
uint64_t region_seek(struct uffdwp_region *region, uint64_t offset, uint64_t end, int hole);

/* Which of the up to 64 pages [first, end) are as good as known to have content, to be compared later: with the
 * region's lock held, or `claimed`: of pages that the caller has claimed and read. For shmem those that hold data; for
 * hugetlb those that are mapped, which only a punch or MADV_DONTNEED undoes; for anonymous memory, where its pagemap is
 * open, those that are in memory or in swap. Else none. */
uint64_t region_content(struct uffdwp_region *region, uint64_t first, uint64_t end, int claimed);

/* Of `content` of the up to 64 pages [first, end) of shmem, what is left without pages of zeros in memory: where a hole
 * was only read the kernel may take such a page away again without swapping it out. */
uint64_t region_content_but_zeros(struct uffdwp_region *region, uint64_t first, uint64_t end, uint64_t content);

/* Which of the up to 64 pages [first, end) carry the mark, by an open /proc/self/pagemap. (signal) */
uint64_t region_marks(struct uffdwp_region *region, int pagemap, uint64_t first, uint64_t end);

/* Something is not where it was: waits shortly for an event that says so. 1: the region is at another place now. */
int region_has_moved(struct uffdwp_region *region, uintptr_t base_before);

/* 0: nothing is mapped at the page's address any more. */
int region_is_mapped(struct uffdwp_region *region, uint64_t page);

/* Which of the up to 64 pages [first, end) hold data: bit n is page first + n. All of them where it cannot be known. */
uint64_t region_data(struct uffdwp_region *region, uint64_t first, uint64_t end);

int region_grow(struct uffdwp_region *region, uint64_t length_bytes);

/* Gives back the memory of a range; what a snapshot needs was preserved by the caller. */
int region_discard(struct uffdwp_region *region, uint64_t offset, uint64_t length);

/* The pagemap words of the first system page of each of the up to 64 pages [first, end). (signal) 0 or -errno. */
int region_entries(struct uffdwp_region *region, int pagemap, uint64_t first, uint64_t end, uint64_t *entries);

/* 1: the page of the file behind an empty entry is swapped out. (signal) */
int region_is_swapped(struct uffdwp_region *region, uint64_t page);

/* Arms or disarms [first, end), waiting (bounded) while the kernel says -EAGAIN: an event is on its way to the handler.
 */
int region_arm_run(struct uffdwp_region *region, uint64_t first, uint64_t end);
int region_disarm_run(struct uffdwp_region *region, uint64_t first, uint64_t end);

/* A page changed, or may have, and will carry a mark all the same: the next increment has it. (signal) */
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

/* 1: the protection of pages that nobody writes to is wanted beyond a snapshot's end, or for the next. */
static inline int region_is_wanted(const struct uffdwp_region *region)
{
	return region->kept || region->rounds || atomic_load(&region->tracked) || atomic_load(&region->view_count);
}

/* 1: somebody may have to be stopped at a write, or to wait for a page: uffdwp_prepare_write() has work to do. With the
 * region's lock held. */
static inline int region_is_active(const struct uffdwp_region *region)
{
	return region->caller_armed || region_is_wanted(region) || atomic_load(&region->lazy) != NULL;
}

/* The mechanism loses marks and content of this memory together, and only an event tells. */
static inline int region_loses_marks(const struct uffdwp_region *region)
{
	return (int)(region->mechanism->memory_loses_mark >> region->memory & 1);
}

/* Accesses to empty entries come to us. */
static inline int region_owns_empty(const struct uffdwp_region *region)
{
	return region->mechanism->owns_empty;
}

/* A fault comes from a mark, so that the page is there. */
static inline int region_shows_page(const struct uffdwp_region *region)
{
	return region->uffd >= 0 && !region->mechanism->owns_empty;
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

/* Zeroed memory outside the caller's heap; NULL: none. */
void *pages_new(const struct kernel_ops *k, size_t length);
void pages_free(const struct kernel_ops *k, void *memory, size_t length);

/* Memory for what serves this region: on its nodes, where it was bound to some. */
void *region_pages_new(const struct uffdwp_region *region, size_t length);

/* Touches memory of pages_new(), in transparent huge pages where they are to be had: later use will not fault. */
void pages_touch(const struct kernel_ops *k, void *memory, size_t length);

#endif
