/* SPDX-License-Identifier: MIT */
/* Part of uffdwp.h, whose top states what the library cannot see and the conventions that hold for all calls. Here:
 * what this kernel can do. */
#ifndef UFFDWP_PROBE_H
#define UFFDWP_PROBE_H

#include "runtime.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * What this kernel can do for this user, by trial on scratch memory. Each part of the answer is asked for by its index,
 * so that kinds may come: -ERANGE is the end of them.
 */
struct uffdwp_probe;

/* What a trial showed. */
enum uffdwp_answer {
	UFFDWP_ANSWER_UNTRIED = 0, /* see the reason: no swap, no huge pages, ... */
	UFFDWP_ANSWER_KEPT = 1,    /* an armed page stays armed */
	UFFDWP_ANSWER_LOST = 2,    /* the next write passes unseen */
	UFFDWP_ANSWER_FAILED = 3   /* the trial itself could not be done */
};

/* What a page went through between being armed and being written. */
enum uffdwp_trial {
	UFFDWP_TRIAL_POPULATED = 0,   /* nothing */
	UFFDWP_TRIAL_UNPOPULATED = 1, /* it was never touched before it was armed; of a file, zapped and punched then */
	UFFDWP_TRIAL_DONTNEED = 2,    /* MADV_DONTNEED */
	UFFDWP_TRIAL_PUNCH = 3,       /* FALLOC_FL_PUNCH_HOLE */
	UFFDWP_TRIAL_SWAP = 4,        /* MADV_PAGEOUT with swap on */
	UFFDWP_TRIAL_MREMAP = 5       /* mremap() to another address, EVENT_REMAP on */
};

/* The methods to open a userfaultfd. */
enum uffdwp_access {
	UFFDWP_ACCESS_SYSCALL = 0,  /* userfaultfd(0) */
	UFFDWP_ACCESS_DEVICE = 1,   /* /dev/userfaultfd (Linux 6.1) */
	UFFDWP_ACCESS_USER_MODE = 2 /* userfaultfd(UFFD_USER_MODE_ONLY) (Linux 5.11) */
};

/*
 * Tries what this kernel can do for this user. Takes some milliseconds; no runtime is needed. Returns 0 also where
 * nothing works: the answers then say why. -EINVAL (out is NULL), -ENOMEM. Any thread. Since 0.1.
 */
UFFDWP_MUST_CHECK UFFDWP_EXPORT int uffdwp_probe_run(struct uffdwp_probe **out);

/* Frees the answers of a probe. NULL is ignored. Since 0.1. */
UFFDWP_EXPORT int uffdwp_probe_free(struct uffdwp_probe *probe);

struct uffdwp_probe_system {
	size_t sz;                   /* set by the caller */
	uint64_t features;           /* UFFD_FEATURE_* that the kernel offers */
	uint64_t huge_pages_free;    /* of the default size */
	uint64_t max_map_count;      /* vm.max_map_count: bounds mprotect; 0: not known */
	int32_t access_chosen;       /* enum uffdwp_access, -1: none */
	int32_t sysctl_unprivileged; /* vm.unprivileged_userfaultfd, or -errno */
	int32_t uring;               /* io_uring_setup(2): 0 works, else -errno */
	int32_t pagemap_scan;        /* PAGEMAP_SCAN: 0 works, else -errno */
	int32_t pagemap_bit57;       /* pagemap shows the wp bit: 1 yes, 0 no, or -errno */
	int32_t scan_holes;          /* PAGEMAP_SCAN reports discarded memory without a page table: 1 yes, 0 no (tracks
	                              * work around that), or -errno */
	int32_t seccomp;             /* Seccomp: of /proc/self/status, or -errno */
	uint32_t swap_on;            /* 1: some swap is on */
};

/* Gives the answers of a probe that are the same for all memory. -EINVAL (sz too small). Since 0.1. */
UFFDWP_EXPORT int uffdwp_probe_system(const struct uffdwp_probe *probe, struct uffdwp_probe_system *system);

/* Says whether a method to open a userfaultfd works. The method is one of enum uffdwp_access; the answer goes to
 * *result: 0, else -errno. -ERANGE (no such method), -EINVAL (NULL). Since 0.1. */
UFFDWP_EXPORT int uffdwp_probe_access(const struct uffdwp_probe *probe, uint32_t access, int32_t *result);

/* What a read fault may be filled with, in one step with the wp bit (rearm). */
#define UFFDWP_PROBE_FILL_COPY_WP (1u << 0)     /* UFFDIO_COPY_MODE_WP */
#define UFFDWP_PROBE_FILL_CONTINUE_WP (1u << 1) /* UFFDIO_CONTINUE_MODE_WP (Linux 6.4) */

struct uffdwp_probe_memory {
	size_t sz;             /* set by the caller */
	uint64_t page_bytes;   /* 0: not known */
	int32_t registered;    /* MODE_WP: 0 accepted, else -errno */
	uint32_t mechanism;    /* the one that AUTO would take; UFFDWP_MECHANISM_AUTO: none works */
	uint32_t inline_works; /* 1: UFFD_FEATURE_SIGBUS delivery was tried and works */
	uint32_t fills;        /* UFFDWP_PROBE_FILL_* */
	char reason[192];      /* why this mechanism, or why none */
};

/* Says what works for a type of memory: of enum uffdwp_memory. -ERANGE (no such type), -EINVAL (sz too small). Since
 * 0.1. */
UFFDWP_EXPORT int uffdwp_probe_memory(const struct uffdwp_probe *probe, uint32_t memory,
                                      struct uffdwp_probe_memory *answer);

struct uffdwp_probe_trial {
	size_t sz;       /* set by the caller */
	uint32_t answer; /* enum uffdwp_answer */
	uint32_t reserved;
	char reason[96]; /* why UNTRIED or FAILED; else empty */
};

/* Says what a trial of a type of memory showed: one of enum uffdwp_trial, of enum uffdwp_memory. Errors as of
 * uffdwp_probe_memory(). Since 0.1. */
UFFDWP_EXPORT int uffdwp_probe_trial(const struct uffdwp_probe *probe, uint32_t memory, uint32_t trial,
                                     struct uffdwp_probe_trial *answer);

struct uffdwp_probe_rung {
	size_t sz;             /* set by the caller */
	uint32_t works;        /* 1: seen to stop every write of the trials */
	uint32_t thread_works; /* 1: a handler thread can resolve its faults */
	uint32_t inline_works; /* 1: the writer can, in a signal handler */
	int32_t error;         /* -errno of a trial that could not be made for want of descriptors, memory or the like:
	                        * nothing is known then, ask again; else 0 */
	char reason[160];      /* why it works, or what it misses */
};

/* Says whether a mechanism works for a type of memory: one of enum uffdwp_mechanism, from _MARKER on, of enum
 * uffdwp_memory. Errors as of
 * uffdwp_probe_memory(). Since 0.1. */
UFFDWP_EXPORT int uffdwp_probe_rung(const struct uffdwp_probe *probe, uint32_t memory, uint32_t mechanism,
                                    struct uffdwp_probe_rung *answer);

struct uffdwp_probe_arming {
	size_t sz;        /* set by the caller */
	uint32_t works;   /* 1: seen to arm, and to stop each next access */
	int32_t error;    /* -errno of a trial that could not be made, as of struct uffdwp_probe_rung; else 0 */
	char reason[160]; /* why it works, or what it misses */
};

/* Says whether a method to arm works for a type of memory: one of enum uffdwp_arming, of enum uffdwp_memory, whatever
 * the mechanism. Errors as of
 * uffdwp_probe_memory(). Since 0.1. */
UFFDWP_EXPORT int uffdwp_probe_arming(const struct uffdwp_probe *probe, uint32_t memory, uint32_t arming,
                                      struct uffdwp_probe_arming *answer);

/* Says whether pages can be broken off a child: without that there is no uffdwp_fork(). The trial makes
 * a child of the calling process, as fork(2) does, which no wait(2) and no signal reports. -EINVAL (sz too small).
 * Since 0.1. */
UFFDWP_EXPORT int uffdwp_probe_child(const struct uffdwp_probe *probe, struct uffdwp_probe_arming *answer);

#ifdef __cplusplus
}
#endif

#endif
