/* SPDX-License-Identifier: MIT */
/* Part of uffdwp.h, whose top states what the library cannot see and the conventions that hold for all calls. Here:
 * snapshots. */
#ifndef UFFDWP_SNAPSHOT_H
#define UFFDWP_SNAPSHOT_H

#include "region.h"

#ifdef __cplusplus
extern "C" {
#endif

struct uffdwp_snapshot;

/* What writers do when the pool of pre-images is full. */
enum uffdwp_policy {
	/* They wait until the sink has taken some: the sweep empties the pool at the speed of the sink, so each waits
	 * as long as its turn takes. When none was freed for wait_ns the snapshot fails (-ETIME), and they go on. */
	UFFDWP_POLICY_WAIT = 0,
	/* The snapshot fails at once (-ENOBUFS); writers go on. */
	UFFDWP_POLICY_ABORT = 1
};

/* Where the bytes go. */
enum uffdwp_sink {
	/* A raw sparse file at `path`: appears complete and synced, or not at all. Until then it is .uffdwp-PID-N.tmp
	 * in the same folder, which is removed when the process ends by exit() or by returning from main(); only one
	 * that was killed, or ended by _exit(), leaves that file, to be removed by hand. Its permissions: `mode`.
	 * (Should only the sync of its folder fail at the very end, the snapshot fails, and its text says that the
	 * image is there. A file system that has none, CIFS for one, is no failure.) */
	UFFDWP_SINK_IMAGE = 0,
	/* `fd`, by write(2), from the first byte of the region to the last, holes as zeros: a pipe, a socket, a file
	 * from its current offset on. Nothing is synced; what was written by a snapshot that failed stays. */
	UFFDWP_SINK_STREAM = 1,
	UFFDWP_SINK_CALLBACK = 2, /* `callback`, in runs of pages, each page once, in any order */
	/* An export of a network block device, by the URI in `path`: see UFFDWP_NBD_UNFINISHED. */
	UFFDWP_SINK_NBD = 3
};

/*
 * UFFDWP_SINK_NBD writes to an export of a network block device (nbdkit, qemu-nbd, nbd-server ...) through libnbd,
 * which is loaded when it is first needed; a program that does not use this sink does not carry it. `path` is a URI as
 * libnbd takes it: nbd://host[:port]/export, nbds://... (TLS, with tls-certificates=, tls-psk-file=),
 * nbd+unix:///export?socket=PATH. The export must be writable, must be able to flush, and be as long as the image;
 * bytes beyond the image stay as they are (where the server takes whole blocks only, the rest of the last one becomes
 * zeros).
 *
 * An export cannot be renamed. So before anything else its first block (512 bytes, or one block of a server that has
 * larger ones) becomes the text UFFDWP_NBD_UNFINISHED, flushed; it becomes the image's first block last, when all else
 * is written and flushed, and is flushed again. An export that does not start with that text is what it was before, or
 * complete, at any moment and after any crash, if the server's flush can be trusted. A snapshot that fails after its
 * start leaves the export unfinished: what was there is lost; one whose server is lost while the first block is being
 * written fails, and may be complete.
 *
 * A slow server is waited for, by writers only when the pool is used up (`policy`). An error of the server ends the
 * snapshot with its text, and so does a lost connection: at once where the server is gone, within half a minute where
 * its machine is. A server that is there and silent is waited for until the snapshot is aborted, or writers have waited
 * for wait_ns. libnbd allocates in the snapshot's thread: not for programs whose heap lies in a region.
 *
 * An export gets a raw image: with a `parent` the sink is refused (-EINVAL), and such an image cannot be the parent of
 * a delta (-EXDEV), which needs to find it again as a file. Nothing of this library reads exports. A program that reads
 * one back (nbdcopy(1), qemu-img) must first refuse one that begins with UFFDWP_NBD_UNFINISHED; a copy of such an
 * export that is a file is refused by uffdwp_image_open() (-EBADMSG).
 */
#define UFFDWP_NBD_UNFINISHED "uffdwp: unfinished image\n"

/*
 * Takes [offset, offset + length) of the snapshot; data is valid during the call only. Called in the snapshot's own
 * thread, one call at a time. Ranges that hold only zeros may be left out. Returns 0, or -errno: the snapshot fails
 * with it. (A positive value is neither: the snapshot fails with -EIO; and -ETIMEDOUT becomes -ETIME, since a wait
 * answers -ETIMEDOUT for one that still runs.) Must not touch the region, nor memory of an allocator that lies in it
 * (it would wait for itself), and must not call the library.
 */
typedef int (*uffdwp_sink_fn)(void *user, uint64_t offset, const void *data, uint64_t length);

#define UFFDWP_SNAPSHOT_BUFFERED (1u << 0) /* image: through the page cache, even where O_DIRECT is available */
/*
 * The region stays protected when the snapshot has committed: the next begin only has to protect what was written
 * since, and may be an increment or a delta, which has what was written and no more. Until then the first write to each
 * page costs a fault, of that page alone (window_max counts as 1): UFFDWP_SNAPSHOT_COARSE. A later snapshot without
 * this flag, or a failed one, ends the keeping; so do a restore and closing the region. A view in between does not. The
 * memory of the pool (pool_bytes) stays for the next snapshot of the region, which finds it touched; one without this
 * flag, or closing the region, gives it back. What else happens to the region meanwhile is in the next increment: pages
 * that are written, grown, punched, disarmed. All of it is silently without effect where increments are refused with
 * -EOPNOTSUPP: see `parent`.
 */
#define UFFDWP_SNAPSHOT_KEEP (1u << 1)
/*
 * For SINK_CALLBACK only (a file with the same content is a delta, by `parent`). The callback gets only pages that were
 * written since the cut of the region's last snapshot, which must have committed with UFFDWP_SNAPSHOT_KEEP; a page may
 * come although it was not written. Pages of zeros come, too: the callback hears of every page that may differ, and of
 * no other. Refused with -ENODATA where that is not known, with -EOPNOTSUPP where it never is (huge pages, mechanisms
 * minor and mprotect, anonymous memory by marker).
 */
#define UFFDWP_SNAPSHOT_INCREMENT (1u << 2)
/*
 * With UFFDWP_SNAPSHOT_KEEP: rather fewer faults than small increments. While the snapshot runs a fault takes up to
 * window_max neighbours along, and when 8 pages of an aligned block of 64 have been written the next fault in the block
 * unprotects all of it, up to window_max pages while the snapshot runs. These count as written: the next increment may
 * have pages that were not. Without effect on blocks while the region is tracked or viewed, or has pages armed by
 * uffdwp_region_arm(). Refused with -EINVAL without UFFDWP_SNAPSHOT_KEEP.
 */
#define UFFDWP_SNAPSHOT_COARSE (1u << 3)

/*
 * `arming` says how all pages come to be protected (enum uffdwp_arming). UFFDWP_ARMING_MOVE: the page tables of the
 * region are moved away at once, so that begin makes no rounds and brakes no writer, and the pause does not grow with
 * the region but for a byte a page. Afterwards the first access to each page costs a fault, a read too, until the
 * snapshot's thread has mapped it again, which it does first of all while less than half of the pool is used. Until
 * uffdwp_snapshot_free() has returned the process has two mappings of the region, and page tables for both. After the
 * end of a snapshot that was not kept nothing is armed, and no access to a created region comes to the library; of
 * attached memory those to empty pages do.
 *
 * UFFDWP_ARMING_AUTO is MOVE where that can be, and makes no system call of the program fail: memory of
 * UFFDWP_MEMORY_SHMEM whose file is known, by UFFDWP_MECHANISM_MARKER or _REARM, delivered by a thread that system
 * calls wait for, and not protected since a snapshot with UFFDWP_SNAPSHOT_KEEP (then rounds find little to arm). Else
 * it is ROUNDS. `arming` in struct uffdwp_snapshot_progress says which. Before Linux 6.4 it is ROUNDS, because a first
 * read after a move would count as a write there. Under inline delivery MOVE is by name only: a system call that reads
 * a page which is not mapped again (write(2) from it) fails with EFAULT, unless uffdwp_prepare_read() came before.
 *
 * By name it is refused with -EOPNOTSUPP and the reason where it is not right or was not seen to work here: for huge
 * pages, other memory and mechanisms; while a lazy restore uses the region; while the process has locked memory
 * (mlock(2)); before Linux 6.4 also with UFFDWP_SNAPSHOT_KEEP, a parent or an increment, and while a track or a view
 * uses the region. -EFAULT: the region's mapping was split (mprotect(2) or madvise(2) of a part); -ENOMEM: no address
 * space. A trial of some milliseconds is made with the first such region of a runtime.
 */

struct uffdwp_snapshot_options {
	size_t sz;           /* sizeof(struct uffdwp_snapshot_options) */
	uint32_t flags;      /* UFFDWP_SNAPSHOT_* */
	uint32_t sink;       /* enum uffdwp_sink */
	uint32_t policy;     /* enum uffdwp_policy */
	uint32_t window_max; /* most pages that one fault preserves, 1 to 64; 0: 16. It adapts between 1 and this */
	uint64_t length;     /* bytes from the region's start that the image holds (a last partial page is allowed);
	                      * 0: all that the region has when begin is called */
	uint64_t pool_bytes; /* bound on memory for pre-images, with their tables; 0: 64 MiB, or 16 pages if that is
	                      * more; else at least 16 and at most 2^30 pages (-EINVAL). No more is taken than twice the
	                      * region's capacity. Writers do not wait for the sink until it is full, then `policy` says
	                      * what they do */
	uint64_t wait_ns; /* POLICY_WAIT: how long writers wait while no memory is freed; 0: 10 s. It bounds the time in
	                   * which nothing at all is freed, not one writer's wait, which has no bound of its own */
	const char *path; /* SINK_IMAGE; its folder must exist and be writable; a file there is replaced at commit,
	                   * where a symbolic link leads to (links are followed), resolved at begin if relative; nothing
	                   * but a regular file is replaced (-EINVAL), and with a `parent` no file of its chain. An
	                   * image over another one that deltas rest on makes these useless: give each its own name.
	                   * Of two snapshots to one path the later commit stays (a group refuses that). SINK_NBD: the
	                   * export's URI */
	int32_t fd;       /* SINK_STREAM; stays the caller's, and open until the snapshot has ended; blocking
	                   * or not. 0 stands for "not given": dup(2) a sink that is descriptor 0 */
	uint32_t arming;  /* enum uffdwp_arming: how pages come to be protected */
	uffdwp_sink_fn callback; /* SINK_CALLBACK */
	void *user;              /* for callback */

	/*
	 * The caller's boundary, both functions or neither: cut_enter takes the lock that the caller's writers take,
	 * right before faults are stalled, when all that takes time is done; cut_leave gives it back right after the
	 * cut. Both run in the thread that calls begin. *length comes with the value of `length`: cut_enter leaves it,
	 * or sets another, up to what the region has then (0: as if it had left it). It returns 0, or a negative errno,
	 * with which begin fails. cut_leave is called after every cut_enter that returned 0. Both may write to the
	 * region: what cut_enter writes is in the image, what cut_leave writes is not. They may call the barriers, and
	 * no other function of the library. The library holds none of its locks meanwhile. The longer cut_enter
	 * takes, the more is written anew before the cut, and has to be armed in the pause (ROUNDS).
	 */
	int (*cut_enter)(void *cut_user, uint64_t *length);
	void (*cut_leave)(void *cut_user);
	void *cut_user;

	/* SINK_IMAGE: the image that this region's last snapshot became; the new one then is a delta, which holds only
	 * what was written since (uffdwp_image_open() reads both). NULL: a raw image. The snapshot before must have
	 * committed with UFFDWP_SNAPSHOT_KEEP, and so must this one if another delta is to follow; else -ENODATA. Not
	 * for huge pages, nor by mechanisms minor and mprotect, nor for anonymous memory by marker (-EOPNOTSUPP; by
	 * UFFDWP_MECHANISM_REARM, named when it is attached, there are deltas of it). A restored region starts a new
	 * chain: its first image is raw. A snapshot that begin refused changes nothing; one that failed or was aborted
	 * after begin, one to another sink, or a restore in between ends a chain: the next image must be raw. A chain
	 * has at most 512 files (-ELOOP). Keep them in one folder: a delta remembers the name of its parent's file only
	 * (where a symbolic link leads to), and begin does not look whether older ancestors are still there. `path`
	 * must not be the file of any of them that lies beside the parent (-EINVAL). A relative path is resolved at
	 * begin. */
	const char *parent;
	uint32_t compress; /* with a parent: level of zstd, 1 to 19; 0: none. The sweep's thread does it */
	uint32_t mode;     /* SINK_IMAGE: permission bits of the file, from which the umask takes; 0: 0600 */

	/*
	 * Bytes per second that go to the sink, 0: as fast as it takes them. In any t seconds it is at most the rate
	 * times (t + 0.1 s), and one piece more (1 MiB, or a page if that is larger). Zeros that the sink leaves out do
	 * not count; pages that a delta compresses count as they were. The limit never brakes a writer: while
	 * less than half of the pool is left the sweep goes on without it, and is slower afterwards, until the rate is
	 * kept again.
	 */
	uint64_t rate_bytes;
};
#define UFFDWP_SNAPSHOT_OPTIONS_INIT UFFDWP_INIT(struct uffdwp_snapshot_options)

/*
 * Begins a snapshot of a region: makes the cut, and returns when every later write is excluded from the snapshot; the
 * saving goes on in the background. With MOVE it takes about a millisecond at any size; with ROUNDS as long as arming
 * takes, 60 to 220 ms a GiB; and with UFFDWP_SINK_NBD as long as the server takes.
 * Before the cut, rounds: pages are armed while writers go on, until little is left that was written since; writers
 * that are too fast for that are braked for moments. Then, for the pause, write faults wait until the rest is armed, so
 * that no thread sees an effect whose cause the image lacks. A caller that wants a transaction boundary holds the lock
 * that its writers take for this call, or better gives cut_enter and cut_leave.
 *
 * Errors, nothing changed (but that an arming which the kernel refuses in the pause ends a chain). The call: -EINVAL
 * (also: `path` is a file that the delta would rest on), -E2BIG, -ERANGE (length beyond the region), what cut_enter
 * refused with. The region: -EBUSY (a snapshot of it has not been freed, or a view or a child of it is just being
 * made), -ESTALE (dead), -EBADF (descriptors of the library were closed). The file: -ENOENT (the folder of `path` is
 * not there), -EACCES (the folder is not writable), -ENOTDIR, -EROFS, -EISDIR, -ENAMETOOLONG, -ENOSPC, -EDQUOT (no room
 * for the image), -EBADF (`fd` is none that can be written to). The parent, or UFFDWP_SNAPSHOT_INCREMENT:
 * -ENODATA (what was written since the last snapshot is not known: without UFFDWP_SNAPSHOT_KEEP, after a failed
 * snapshot or a restore, for example), -EXDEV (the parent is not the image of this region's last snapshot), -EBADMSG
 * (it is damaged), -ELOOP (its chain has 512 files already). What is here: -EOPNOTSUPP (there are no deltas and
 * increments of such a region, see `parent`; `arming` by name; `compress`, and the library was built without zstd),
 * -ENOMEM, -EAGAIN (no thread), -ENOBUFS (mprotect, and vm.max_map_count leaves too few mappings for so many pages: a
 * larger pool needs less), or what the kernel answered to arming. UFFDWP_SINK_NBD: -EROFS (the export is not writable),
 * -ENOSPC (the export is smaller than the image), -EOPNOTSUPP (no libnbd, or an export that cannot be flushed),
 * -ETIMEDOUT (10 s without an answer), or what libnbd says of the URI and the server (-ECONNREFUSED, ...). Since 0.1.
 */
UFFDWP_MUST_CHECK UFFDWP_EXPORT int uffdwp_snapshot_begin(struct uffdwp_region *region,
                                                          const struct uffdwp_snapshot_options *options,
                                                          struct uffdwp_snapshot **out);

/*
 * Begins snapshots of several regions with one cut: as uffdwp_snapshot_begin(); options[i] and out[i] belong to
 * regions[i]. Faults of all regions wait until all are armed, so no thread sees in one region the effect of a write to
 * another that its image lacks. cut_enter and cut_leave are those of options[0], and its *length is that of regions[0];
 * the others must have none. All are begun or none; from then on each is a
 * snapshot of its own, and may fail alone. Regions must be different, of one runtime; 1 to 64 of them. Errors: those of
 * uffdwp_snapshot_begin(), -EINVAL (NULL; regions of two runtimes; the sz of two options differs; two images at one
 * path, however it is written, or two streams to one fd; an image at the path of another one's parent, or of an
 * ancestor that lies beside that parent), -E2BIG (count is not 1 to 64). Since 0.1.
 */
UFFDWP_MUST_CHECK UFFDWP_EXPORT int uffdwp_snapshot_begin_group(struct uffdwp_region *const *regions,
                                                                const struct uffdwp_snapshot_options *options,
                                                                size_t count, struct uffdwp_snapshot **out);

enum uffdwp_snapshot_state {
	UFFDWP_SNAPSHOT_STATE_RUNNING = 0,   /* pages are being saved */
	UFFDWP_SNAPSHOT_STATE_COMMITTED = 1, /* the image is there, complete and synced */
	UFFDWP_SNAPSHOT_STATE_FAILED = 2     /* there is none to rely on; `error` says why */
};

struct uffdwp_snapshot_progress {
	size_t sz;                /* set by the caller */
	uint32_t state;           /* enum uffdwp_snapshot_state */
	int32_t error;            /* of a failed snapshot: negative errno */
	uint64_t length_bytes;    /* of the image */
	uint64_t pages_total;     /* to be saved, holes included */
	uint64_t pages_fault;     /* saved by write faults */
	uint64_t pages_prepare;   /* saved by uffdwp_prepare_write() and uffdwp_region_punch() */
	uint64_t pages_sweep;     /* saved by the sweep */
	uint64_t pages_hole;      /* holes: nothing to save */
	uint64_t faults;          /* write faults since the cut; the windows make it less than pages_fault */
	uint64_t waits;           /* writers that had to wait for pool memory */
	uint64_t pool_peak_bytes; /* most memory that pre-images took */
	uint64_t bytes_written;   /* to the sink */
	uint64_t pause_ns;        /* from when faults began to wait until the cut was made */
	uint64_t elapsed_ns;      /* from the begin call until now, or until it ended */
	uint32_t direct;          /* 1: the image is written with O_DIRECT */
	uint32_t uring;           /* 1: the image is written with io_uring */
	uint64_t pages_pause;     /* protected in the pause: written since the last round before it */
	uint64_t pages_rounds;    /* protected in the rounds before, again and again */
	uint64_t rounds_ns;       /* what they took: part of the begin call, writers went on */
	uint64_t stalled_most_ns; /* the longest time that they stalled faults at a stretch, to arm some pages */
	uint64_t braked_ns;       /* how long faults of writers slept in the rounds, all together */
	uint32_t rounds;          /* of arming before the cut, while writers go on. 0: the mechanism, the memory or
	                           * `arming` has none; all is protected in the pause */
	uint32_t arming;          /* enum uffdwp_arming: how the region was armed */
};

/* Looks at a snapshot without waiting. -EINVAL (sz too small). Since 0.1. */
UFFDWP_EXPORT int uffdwp_snapshot_poll(struct uffdwp_snapshot *snapshot, struct uffdwp_snapshot_progress *progress);

/*
 * Waits until a snapshot has ended: up to timeout_ms (-1, or any below 0: for ever; 0: only looks). `progress` may be
 * NULL; it is filled in any case, also on -ETIMEDOUT, but not on -EINVAL (sz too small) and -ECHILD. A failed
 * snapshot's text: uffdwp_snapshot_text().
 *
 * Returns 0: committed; -ETIMEDOUT: it still runs (none ends with that); else the error that ended it: -ECANCELED
 * (aborted), -ETIME (UFFDWP_POLICY_WAIT: nothing was freed for wait_ns; or a sink's own time-out), -ENOBUFS
 * (UFFDWP_POLICY_ABORT: the pool was full), -ENODATA (content or protection vanished without the library: points 5 to 7
 * at the top of uffdwp.h), -ESTALE (the region is dead), -ENOLINK (it still needed a page of a lazy restore that was
 * aborted or freed before), -EOWNERDEAD (the region's handler thread had ended or stood still while writers waited for
 * it: another has its place, and the next snapshot works; of an adopted region also: no mapper lives), -ENOMEM, -EBADF
 * (the library's descriptors were closed), or the sink's: -ENOSPC, -EDQUOT, -EIO, -EFBIG, -EPIPE, what the callback
 * returned, what the server of an export answered. Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_snapshot_wait(struct uffdwp_snapshot *snapshot, int timeout_ms,
                                       struct uffdwp_snapshot_progress *progress);

/*
 * Gives a descriptor of a snapshot for event loops: it becomes readable (POLLIN) when the snapshot has ended, and stays
 * so. An event loop (poll(2), epoll(7), io_uring) then calls uffdwp_snapshot_wait() with 0. The descriptor stays the
 * library's, until the snapshot is freed: do not read or close it, and take it out of the loop before the free. A
 * snapshot that has ended still holds the region until it is freed. Returns the descriptor (the same each time), or a
 * negative errno. -EMFILE, -ENFILE, -ENOMEM. Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_snapshot_fd(struct uffdwp_snapshot *snapshot);

/* Says why a snapshot failed, and where; empty if it did not, or not yet. Returns the length of the text, which is
 * copied as by uffdwp_error_text(). Since 0.1. */
UFFDWP_EXPORT size_t uffdwp_snapshot_text(struct uffdwp_snapshot *snapshot, char *buffer, size_t size);

/* Asks a snapshot to end without a commit; does not wait. Nothing happens if it has ended already. Since 0.1. */
UFFDWP_EXPORT int uffdwp_snapshot_abort(struct uffdwp_snapshot *snapshot);

/* Frees a snapshot; one that runs is aborted and waited for, and there is no image then: only a 0 of
 * uffdwp_snapshot_wait(), or UFFDWP_SNAPSHOT_STATE_COMMITTED, says that there is one. (A write to a stream that blocks
 * is not waited for.) One that has ended still holds the region, for which no other snapshot can begin, until it is
 * freed. NULL is ignored. Since 0.1. */
UFFDWP_EXPORT int uffdwp_snapshot_free(struct uffdwp_snapshot *snapshot);

#ifdef __cplusplus
}
#endif

#endif
