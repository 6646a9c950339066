/* SPDX-License-Identifier: MIT */
/* How a whole restore begins and ends; see whole.h. */
#include "restore/whole.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "base/errno_name.h"
#include "base/math.h"
#include "base/trace.h"
#include "fault/fault.h"
#include "fault/handler.h"
#include "fault/phase.h"
#include "restore/whole_private.h"

/* Shorter runs of data are discarded along with what is around them. */
#define KEEP_BYTES_LEAST (256ull << 10)

/* ---- the region ---- */

static int whole_check_region(const struct uffdwp_region *region, const struct uffdwp_image *image)
{
	struct text *text = region->text;
	unsigned long long room = atomic_load(&region->length_bytes);

	if (region->is_private)
		return text_fail(text, -EOPNOTSUPP,
		                 "private memory of another process is restored lazily only: uffdwp_restore_begin()");
	if (atomic_load(&region->dead))
		return text_fail(text, -ESTALE, "%s: close it", region_death(region));
	if (region->snapshot_open || region->cut_comes)
		return text_fail(text, -EBUSY, "a snapshot of this region has not been freed: uffdwp_snapshot_free()");
	if (region->restore_open)
		return text_fail(text, -EBUSY, "a restore of this region has not been freed: uffdwp_restore_free()");
	if (atomic_load(&region->view_count))
		return text_fail(text, -EBUSY,
		                 "a view or a child has this region: uffdwp_view_close(), or wait for the child");
	if (image->link_count > 1 && chain_base(image)->length_bytes > BASE_LENGTH_MOST)
		return text_fail(text, -EFBIG, "no list of the blocks of \"%s\": %s", chain_base(image)->path,
		                 base_refusal(-EFBIG));
	if (image->length_bytes > room)
		return text_fail(text, -ERANGE, "\"%s\" shows %llu bytes, and the region has %llu",
		                 image->links[0].path, (unsigned long long)image->length_bytes, room);
	return restore_check_files(region, image);
}

/* Pages that an earlier restore could not fetch are no more than any others; their poison goes with the entries. */
static void whole_forget_failed(struct uffdwp_region *region)
{
	struct lazy *lazy = atomic_exchange(&region->lazy, NULL);

	if (!lazy)
		return;
	fault_epoch_wait();
	kernel_discard(region->k, region_address(region, 0), atomic_load(&region->length_bytes));
	lazy_free(region->k, lazy);
}

/* Nothing is armed from here on. A track sees all of it as written; no increment can follow what was before. */
static int whole_disarm(struct uffdwp_region *region)
{
	static const struct image_identity none;

	whole_forget_failed(region);
	region_unkeep(region, REGION_UNKEPT_RESTORED);
	int error = phase_quiesce(region);

	region->caller_armed = 0;
	region->last_image = none;
	region_note_written_range(region, 0, region_pages(region));
	atomic_store(&region->active, (uint32_t)(error || region_is_active(region)));
	return error ? text_fail(region->text, error, "the kernel refused to disarm the region: %s", errno_text(error))
	             : 0;
}

/* A mapping that is not watched. NULL: not available. */
static unsigned char *whole_map_file(const struct uffdwp_region *region, uint64_t length)
{
	const struct kernel_ops *k = region->k;
	int reserve = region->memory == UFFDWP_MEMORY_HUGETLB ? 0 : MAP_NORESERVE;
	int error;

	if (region->memory == UFFDWP_MEMORY_ANON || region->fd < 0 || region->sealed)
		return NULL;
	unsigned char *place = k->mmap_unlocked(length, PROT_READ | PROT_WRITE, MAP_SHARED | reserve, region->fd,
	                                        region->fd_offset, &error);

	if (place)
		k->madvise(place, length, MADV_DONTFORK);
	if (place && region->numa_mode)
		k->mbind(place, length, region->numa_mode, region->numa_nodes); /* best effort, errors ignored */
	return place;
}

static void whole_open_place(struct whole *whole)
{
	struct uffdwp_region *region = whole->region;
	uint64_t length = atomic_load(&region->length_bytes);

	whole->place = whole_map_file(region, length);
	if (whole->place)
		whole->alias_bytes = length;
	else if (!region_owns_empty(region))
		whole->place = region_address(region, 0);
}

/* Huge pages that went back to the system are reserved again by mapping them. */
static void whole_reserve_place(struct whole *whole)
{
	if (whole->region->memory != UFFDWP_MEMORY_HUGETLB || !whole->alias_bytes)
		return;
	unsigned char *place = whole_map_file(whole->region, whole->alias_bytes);

	if (place)
		whole->k->munmap(place, whole->alias_bytes);
	else
		whole_fail(whole, -ENOMEM, 0);
}

/* ---- the region's former content ---- */

/* For memory that the kernel does not take back: a sealed file, one that is not known, locked pages. */
static void whole_write_zeros(struct uffdwp_region *region, uint64_t at, uint64_t end)
{
	while ((at = region_seek(region, at, end, REGION_SEEK_DATA)) < end) {
		uint64_t until = region_seek(region, at, end, REGION_SEEK_HOLE);

		memset(region_address(region, 0) + at, 0, until - at);
		at = until;
	}
}

static void whole_clear_range(struct uffdwp_region *region, uint64_t start, uint64_t end)
{
	int has_file = region->fd >= 0 && !region->sealed;

	if (start == end)
		return;
	if ((region->memory == UFFDWP_MEMORY_ANON || has_file) && region_discard(region, start, end - start) == 0)
		return;
	whole_write_zeros(region, start, end);
}

/* What is read over anyhow, [start, end), stays, if that is worth a call; all before it goes. */
static void whole_clear_before(struct uffdwp_region *region, uint64_t *cleared, uint64_t start, uint64_t end)
{
	start = math_round_up(start, region->page_bytes);
	end -= end % region->page_bytes;
	if (end < start + KEEP_BYTES_LEAST)
		return;
	whole_clear_range(region, *cleared, start);
	*cleared = end;
}

/* New pages cost as much as reading into them: only those go of which the image does not bring every byte. */
static void whole_clear(struct whole *whole)
{
	struct uffdwp_region *region = whole->region;
	struct block block;
	uint64_t cleared = 0;
	uint64_t start = 0; /* of data that follows each other, up to `end` */
	uint64_t end = 0;

	uint64_t count = math_round_up(whole->image->length_bytes, BLOCK_BYTES) / BLOCK_BYTES;

	for (uint64_t number = 0; number < count; number++) {
		block_look(whole, number, &block);
		for (unsigned i = 0; block_is_straight(whole, &block) && i < block.count; i++) {
			if (block.offset + block.runs[i].start != end) {
				whole_clear_before(region, &cleared, start, end);
				start = block.offset + block.runs[i].start;
			}
			end = block.offset + block.runs[i].end;
		}
	}
	whole_clear_before(region, &cleared, start, end);
	whole_clear_range(region, cleared, atomic_load(&region->length_bytes));
	if (region->uffd >= 0 && region->memory == UFFDWP_MEMORY_ANON)
		handler_settle(region); /* the event was read, and must not be taken for a later one */
}

/* ---- the image ---- */

/* The same file once more, past the page cache. */
static void whole_open_direct(struct whole *whole)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", whole->base->fd);
	whole->direct_fd = whole->place ? whole->k->open(path, O_RDONLY | O_CLOEXEC | O_DIRECT, 0) : -EINVAL;
	atomic_store(&whole->direct, whole->direct_fd >= 0);
}

static void whole_close(struct whole *whole)
{
	const struct kernel_ops *k = whole->k;

	if (whole->direct_fd >= 0)
		k->close(whole->direct_fd);
	if (whole->alias_bytes)
		k->munmap(whole->place, whole->alias_bytes);
	pages_free(k, whole->orders, whole->block_count * sizeof(*whole->orders) + 1);
	pages_free(k, whole->buffer, BLOCK_BYTES);
	if (whole->list.blocks)
		base_close(&whole->list);
	pthread_cond_destroy(&whole->more);
	lock_fini(&whole->lock);
	pages_free(k, whole, sizeof(*whole));
}

/* What can fail for want of memory does so before the region is touched. */
static struct whole *whole_open(struct uffdwp_region *region, struct uffdwp_image *image)
{
	const struct kernel_ops *k = region->k;
	struct whole *whole = pages_new(k, sizeof(*whole));

	if (!whole)
		return NULL;
	whole->k = k;
	whole->region = region;
	whole->image = image;
	whole->base = chain_base(image);
	gauge_begin(&whole->gauge, image, image->length_bytes);
	whole->direct_fd = -1;
	lock_init(&whole->lock);
	pthread_cond_init(&whole->more, NULL);
	/* All of a chain's raw file is read, to know whether it is the right one. */
	uint64_t bytes =
	        image->length_bytes > whole->base->length_bytes ? image->length_bytes : whole->base->length_bytes;

	whole->block_count = math_round_up(bytes, BLOCK_BYTES) / BLOCK_BYTES;
	whole->orders = pages_new(k, whole->block_count * sizeof(*whole->orders) + 1);
	whole->buffer = pages_new(k, BLOCK_BYTES);
	int error = image->link_count > 1 ? base_open(&whole->list, k, whole->base->length_bytes) : 0;

	if (!error && whole->orders && whole->buffer)
		return whole;
	whole_close(whole);
	return NULL;
}

/* ---- the end ---- */

static int whole_report_image(const struct uffdwp_region *region, struct uffdwp_image *image, int error)
{
	char line[512];

	chain_form_text(image);
	text_copy(&image->text, line, sizeof(line));
	return text_fail(region->text, error, "%s", line);
}

static int whole_report(struct whole *whole)
{
	struct uffdwp_image *image = whole->image;
	int error = atomic_load(&whole->error);

	if (gauge_was_ended(&whole->gauge, whole->region->text))
		return error;
	if (error && atomic_load(&image->bad))
		return whole_report_image(whole->region, image, error);
	if (error)
		return text_fail(whole->region->text, error,
		                 "\"%s\" could not be read into the region at byte %llu: %s", image->links[0].path,
		                 (unsigned long long)atomic_load(&whole->error_offset),
		                 error == -ENOMEM ? "no memory for it" : errno_text(error));
	if (whole->list.blocks)
		error = chain_judge_base(image, base_id(&whole->list, whole->base->length_bytes));
	return error ? whole_report_image(whole->region, image, whole_fail(whole, error, 0)) : 0;
}

static void whole_fill_progress(const struct whole *whole, struct uffdwp_restore_progress *progress)
{
	const struct uffdwp_region *region = whole->region;

	progress->error_offset = atomic_load(&whole->error_offset);
	progress->pages_total = math_round_up(whole->image->length_bytes, region->page_bytes) >> region->page_shift;
	progress->pages_done = atomic_load(&whole->error) ? atomic_load(&whole->bytes_done) >> region->page_shift
	                                                  : progress->pages_total;
	progress->bytes_read = atomic_load(&whole->bytes_read);
	progress->direct = (uint32_t)atomic_load(&whole->direct);
	progress->uring = (uint32_t)whole->uring;
}

/* The last report, in the caller's thread. */
static void whole_end_meter(struct whole *whole)
{
	int error = atomic_load(&whole->error) ? 0 : gauge_end(&whole->gauge);

	if (error)
		whole_fail(whole, error, 0);
}

/* With the region's lock held. */
static int restore_locked(struct uffdwp_region *region, struct uffdwp_image *image, const struct whole_request *request,
                          struct uffdwp_restore_progress *progress)
{
	int error = whole_check_region(region, image);
	struct whole *whole = error ? NULL : whole_open(region, image);

	if (error)
		return error;
	if (!whole)
		return text_fail(region->text, -ENOMEM, "no memory for a restore");
	error = whole_disarm(region);
	if (!error) {
		whole_open_place(whole);
		whole_clear(whole);
		whole_reserve_place(whole);
		whole_open_direct(whole);
		whole_read(whole, request);
		whole_end_meter(whole);
		error = whole_report(whole);
		whole_fill_progress(whole, progress);
	}
	whole_close(whole);
	return error;
}

static int whole_run(struct uffdwp_region *region, const struct whole_request *request,
                     struct uffdwp_restore_progress *progress)
{
	struct uffdwp_image *image;
	int error = chain_open(region->k, request->path, &request->chain, region->text, &image);

	if (error)
		return error;
	progress->length_bytes = image->length_bytes;
	image->progress = request->progress;
	image->progress_user = request->progress_user;
	lock_take(&region->lock);
	/* For long, so with signals open: no thread that a writer waits for wants the lock meanwhile, and a thread that
	 * wants it waits for the restore anyway. */
	signals_restore(&region->lock.before);
	error = restore_locked(region, image, request, progress);
	lock_give(&region->lock);
	chain_close(image);
	return error;
}

int whole_restore(struct uffdwp_region *region, const struct whole_request *request,
                  struct uffdwp_restore_progress *progress)
{
	uint64_t begun_ns = kernel_now_ns();
	int error = whole_run(region, request, progress);

	progress->error = error;
	progress->state = error ? UFFDWP_RESTORE_STATE_FAILED : UFFDWP_RESTORE_STATE_DONE;
	progress->elapsed_ns = kernel_now_ns() - begun_ns;
	progress->begin_ns = progress->elapsed_ns;
	TRACE("restore of region %p: %s, %llu bytes read %s io_uring", (void *)region,
	      error ? errno_text(error) : "done", (unsigned long long)progress->bytes_read,
	      progress->uring ? "with" : "without");
	return error;
}
