/* SPDX-License-Identifier: MIT */
/* How a lazy restore begins, is looked at, and ends; see restore.h. */
#include "restore/restore.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/errno_name.h"
#include "base/math.h"
#include "base/thread.h"
#include "base/trace.h"
#include "fault/fault.h"
#include "fault/handler.h"
#include "fault/phase.h"

static int restore_check_region(const struct uffdwp_region *region, struct text *text)
{
	if (region->mechanism->id != UFFDWP_MECHANISM_REARM)
		return text_fail(
		        text, -EOPNOTSUPP,
		        "a lazy restore needs a mechanism that sees accesses to empty pages, this is %s: name "
		        "UFFDWP_MECHANISM_REARM when the region is created or attached (AUTO takes it on older "
		        "kernels only)",
		        region->mechanism->name);
	if (!region->can_poison && region->delivery != UFFDWP_DELIVERY_INLINE)
		return text_fail(text, -EOPNOTSUPP,
		                 "this kernel lacks UFFDIO_POISON (Linux 6.6), so that a page which cannot be read "
		                 "could not raise SIGBUS: ask for UFFDWP_DELIVERY_INLINE when the region is made");
	if (region->sealed)
		return text_fail(text, -EPERM, "the content of a sealed region cannot be discarded");
	return 0;
}

/* With the region's lock held. */
static int restore_check_idle(const struct uffdwp_region *region, struct text *text)
{
	if (atomic_load(&region->dead))
		return text_fail(text, -ESTALE, "%s: close it", region_death(region));
	if (region->snapshot_open || region->cut_comes)
		return text_fail(text, -EBUSY, "a snapshot of this region has not been freed: uffdwp_snapshot_free()");
	if (atomic_load(&region->view_count))
		return text_fail(text, -EBUSY,
		                 "a view or a child has this region: uffdwp_view_close(), or wait for the child");
	if (region->is_private && !atomic_load(&region->unbegun))
		return text_fail(
		        text, -EOPNOTSUPP,
		        "private memory of another process is restored once, while it is empty: what it has got "
		        "since cannot be discarded from here");
	return 0;
}

static int restore_reserve(struct uffdwp_region *region, struct text *text)
{
	lock_take(&region->lock);
	int error = restore_check_idle(region, text);

	if (!error && region->restore_open)
		error = text_fail(text, -EBUSY, "a restore of this region has not been freed: uffdwp_restore_free()");
	if (!error)
		region->restore_open = 1;
	lock_give(&region->lock);
	return error;
}

static void restore_unreserve(struct uffdwp_region *region)
{
	lock_take(&region->lock);
	region->restore_open = 0;
	lock_give(&region->lock);
}

/* ---- what it is made of ---- */

int restore_check_files(const struct uffdwp_region *region, const struct uffdwp_image *image)
{
	struct stat own;
	struct stat other;
	int error = region->fd < 0 ? -EBADF : region->k->fstat(region->fd, &own);

	for (uint32_t i = 0; !error && i < image->link_count; i++) {
		if (!region->k->fstat(image->links[i].fd, &other) && other.st_dev == own.st_dev &&
		    other.st_ino == own.st_ino)
			return text_fail(region->text, -EINVAL, "\"%s\" is the region's own memory, not an image of it",
			                 image->links[i].path);
	}
	return 0;
}

static int restore_open_image(struct uffdwp_restore *restore, const struct restore_request *request, struct text *text)
{
	struct chain_options options = {.flags = request->flags & UFFDWP_RESTORE_RAW ? UFFDWP_IMAGE_OPEN_RAW : 0,
	                                .contexts = request->threads,
	                                .paths = request->paths,
	                                .path_count = request->path_count};
	int error = chain_open(restore->k, request->path, &options, text, &restore->image);
	unsigned long long length = atomic_load(&restore->region->length_bytes);

	if (!error && restore->image->length_bytes > length)
		return text_fail(text, -ERANGE, "the image has %llu bytes, the region %llu: grow it",
		                 (unsigned long long)restore->image->length_bytes, length);
	return error ? error : restore_check_files(restore->region, restore->image);
}

static int restore_open_memory(struct uffdwp_restore *restore, const struct restore_request *request)
{
	const struct uffdwp_region *region = restore->region;
	uint64_t pages = math_round_up(restore->image->length_bytes, region->page_bytes) >> region->page_shift;

	restore->run_pages = RESTORE_RUN_BYTES >> region->page_shift;
	restore->run_pages = restore->run_pages ? restore->run_pages : 1;
	restore->lazy = lazy_new(restore->k, pages);
	restore->buffer_bytes = request->threads * (restore->run_pages << region->page_shift);
	restore->buffers = region_pages_new(region, restore->buffer_bytes);
	return restore->lazy && restore->buffers ? lazy_note_touches(restore->lazy, request->touches_max) : -ENOMEM;
}

/* The list of a caller, which may come from a file: each offset is looked at once. */
static int restore_take_first(struct uffdwp_restore *restore, const struct restore_request *request, struct text *text)
{
	uint64_t pages = restore->lazy->end_page;

	if (!request->first_count)
		return 0;
	if (request->first_count > pages)
		return text_fail(text, -EINVAL, "first_count is %zu, and the image has %llu pages",
		                 request->first_count, (unsigned long long)pages);
	restore->first = pages_new(restore->k, request->first_count * sizeof(*restore->first));
	if (!restore->first)
		return text_fail(text, -ENOMEM, "no memory for a restore");
	restore->first_count = request->first_count;
	for (size_t i = 0; i < request->first_count; i++) {
		uint64_t offset = request->first[i];

		restore->first[i] = offset >> restore->region->page_shift;
		if (restore->first[i] >= pages)
			return text_fail(text, -ERANGE, "first[%zu] is %llu, and the image has %llu bytes", i,
			                 (unsigned long long)offset, (unsigned long long)restore->image->length_bytes);
	}
	return 0;
}

static void restore_join_threads(struct uffdwp_restore *restore)
{
	for (unsigned i = 0; i < restore->thread_count; i++)
		pthread_join(restore->fetchers[i].thread, NULL);
	restore->thread_count = 0;
}

static int restore_start_thread(struct uffdwp_restore *restore, const struct restore_request *request)
{
	unsigned index = restore->thread_count;
	struct fetcher *fetcher = &restore->fetchers[index];

	fetcher->restore = restore;
	fetcher->buffer = restore->buffers + index * (restore->run_pages << restore->region->page_shift);
	fetcher->on_demand = request->flags & UFFDWP_RESTORE_BEGIN_ON_DEMAND || (index == 0 && request->threads > 1);
	fetcher->takes_first = index > 0 || request->threads == 1;
	fetcher->is_nice = !fetcher->on_demand && request->threads > 1;
	int error = thread_spawn(&fetcher->thread, NULL, fetch_main, fetcher);

	restore->thread_count += error == 0;
	return error;
}

static int restore_start_threads(struct uffdwp_restore *restore, const struct restore_request *request,
                                 struct text *text)
{
	int error = 0;

	while (restore->thread_count < request->threads && !error)
		error = restore_start_thread(restore, request);
	return error ? text_fail(text, error, "a thread of the restore could not be started: %s", errno_text(error))
	             : 0;
}

/* Its threads have not been asked to end, or have ended. The table of pages stays where it is published. */
static void restore_close_all(struct uffdwp_restore *restore)
{
	order_give(&restore->order, restore->k, ORDER_FORGET);
	restore_join_threads(restore);
	if (restore->image)
		chain_close(restore->image);
	pages_free(restore->k, restore->buffers, restore->buffer_bytes);
	pages_free(restore->k, restore->first, restore->first_count * sizeof(*restore->first));
	lazy_free(restore->k, restore->lazy);
	text_fini(&restore->text);
	pages_free(restore->k, restore, sizeof(*restore));
}

/* ---- begin ---- */

/* What the last snapshot left protected is of no use to the next, and all is reported to tracks as changed. */
static void restore_forget_past(struct uffdwp_region *region)
{
	static const struct image_identity none;
	int was_active = (int)region_activate(region);

	region_unkeep(region, REGION_UNKEPT_RESTORED);
	region->last_image = none;
	region_note_written_range(region, 0, region_pages(region));
	if (was_active)
		phase_quiesce_if_unwanted(region);
}

/* A hole that is punched into a file leaves the poison of failed pages where it is. */
static int restore_discard(struct uffdwp_region *region, const struct lazy *old)
{
	uint64_t length = atomic_load(&region->length_bytes);

	if (region->is_private) /* it is empty: no access was let through */
		return 0;
	if (old && atomic_load(&old->failed) && region->memory != UFFDWP_MEMORY_ANON)
		kernel_discard(region->k, region_address(region, 0), length);
	int error = region_discard(region, 0, length);

	handler_settle(region); /* the event of this discard was read, and must not be taken for a later one */
	return error;
}

/* Private memory of another process, which has discarded some of it since it was adopted: that is zeros. The threads
 * that fetch have not begun. Partner: fault_drop(). */
static void restore_drop_discarded(struct uffdwp_region *region, struct lazy *lazy)
{
	const _Atomic uint64_t *discarded = atomic_load(&region->changed);

	for (uint64_t page = 0; region->is_private && page < lazy->end_page; page++) {
		if (atomic_load(&discarded[page / 64]) >> (page % 64) & 1)
			lazy_drop(lazy, page);
	}
}

/* From now on no thread sees a page that was not fetched. With the region's lock held. */
static int restore_publish(struct uffdwp_restore *restore, struct text *text)
{
	struct uffdwp_region *region = restore->region;
	int error = restore_check_idle(region, text);

	if (!error)
		error = region_prepare(region); /* all of it is registered */
	if (error)
		return error;
	struct lazy *old = atomic_exchange(&region->lazy, restore->lazy);

	fault_epoch_wait();
	error = restore_discard(region, old);
	if (error) {
		atomic_store(&region->lazy, old);
		fault_epoch_wait();
		fault_announce(region->k);
		fault_wake_region(region);
		return error;
	}
	lazy_free(region->k, old);
	restore_drop_discarded(region, restore->lazy);
	restore_forget_past(region);
	if (atomic_exchange(&region->unbegun, 0)) /* the accesses that have waited come again, and meet the restore */
		fault_wake_stalled(region);
	return 0;
}

static int restore_start(struct uffdwp_restore *restore, const struct restore_request *request, struct text *text)
{
	struct uffdwp_region *region = restore->region;
	int error = restore_open_image(restore, request, text);

	if (error)
		return error;
	if (restore_open_memory(restore, request))
		return text_fail(text, -ENOMEM, "no memory for a restore");
	error = restore_take_first(restore, request, text);
	if (!error)
		error = restore_start_threads(restore, request, text);
	if (error)
		return error;
	lock_take(&region->lock);
	error = restore_publish(restore, text);
	lock_give(&region->lock);
	return error;
}

int restore_begin(struct uffdwp_region *region, const struct restore_request *request, struct text *text,
                  struct uffdwp_restore **out)
{
	uint64_t begun_ns = kernel_now_ns();
	int error = restore_check_region(region, text);

	if (!error)
		error = restore_reserve(region, text);
	if (error)
		return error;
	struct uffdwp_restore *restore = pages_new(region->k, sizeof(*restore));

	if (!restore) {
		restore_unreserve(region);
		return text_fail(text, -ENOMEM, "no memory for a restore");
	}
	restore->k = region->k;
	restore->region = region;
	text_init(&restore->text);
	restore->begun_ns = begun_ns;
	error = restore_start(restore, request, text);
	if (error) {
		restore_close_all(restore);
		restore_unreserve(region);
		return error;
	}
	restore->begin_ns = kernel_now_ns() - begun_ns;
	if (roster_has(&region->roster))
		roster_add(&restore->roster, ROSTER_RESTORE, restore, &region->roster);
	order_give(&restore->order, restore->k, ORDER_GO);
	TRACE("restore of region %p: %llu bytes, begun in %llu us", (void *)region,
	      (unsigned long long)restore->image->length_bytes, (unsigned long long)restore->begin_ns / 1000);
	*out = restore;
	return 0;
}

/* ---- what callers see ---- */

void restore_progress(const struct uffdwp_restore *restore, struct uffdwp_restore_progress *progress)
{
	const struct lazy *lazy = restore->lazy;
	int ended = (int)atomic_load(&lazy->ended);
	uint64_t ended_ns = atomic_load(&restore->ended_ns);
	uint64_t failed = atomic_load(&lazy->failed);
	uint64_t absent = atomic_load(&lazy->left);

	progress->error = atomic_load(&lazy->error);
	progress->state = !ended            ? UFFDWP_RESTORE_STATE_RUNNING
	                  : progress->error ? UFFDWP_RESTORE_STATE_FAILED
	                                    : UFFDWP_RESTORE_STATE_DONE;
	progress->error_offset = atomic_load(&lazy->error_page) << restore->region->page_shift;
	progress->length_bytes = restore->image->length_bytes;
	progress->pages_total = lazy->end_page;
	progress->pages_done = lazy->end_page - math_min_u64(absent + failed, lazy->end_page);
	progress->pages_demand = atomic_load(&lazy->demanded);
	progress->pages_failed = failed;
	progress->bytes_read = atomic_load(&restore->bytes_read);
	progress->begin_ns = restore->begin_ns;
	progress->elapsed_ns = (ended && ended_ns ? ended_ns : kernel_now_ns()) - restore->begun_ns;
}

/* Forms the text of a restore that has ended with an error. */
static void restore_report(struct uffdwp_restore *restore, int error)
{
	unsigned long long at = atomic_load(&restore->lazy->error_page) << restore->region->page_shift;
	char text[512] = "";

	if (error == -ECANCELED) {
		text_fail(&restore->text, error,
		          "the restore was aborted: pages that were not fetched raise SIGBUS until they are punched "
		          "(uffdwp_region_punch()) or the region is restored anew");
		return;
	}
	chain_form_text(restore->image);
	text_copy(&restore->image->text, text, sizeof(text));
	text_fail(&restore->text, error, "the restore failed at byte %llu: %s%s%s", at, errno_text(error),
	          *text ? ": " : "", text);
}

int restore_fd(struct uffdwp_restore *restore)
{
	struct uffdwp_region *region = restore->region;

	lock_take(&region->lock);
	int fd = lazy_fd(restore->lazy);

	lock_give(&region->lock);
	return fd;
}

int restore_wait(struct uffdwp_restore *restore, int timeout_ms)
{
	struct lazy *lazy = restore->lazy;
	uint64_t until_ns = kernel_now_ns() + (uint64_t)(timeout_ms < 0 ? 0 : timeout_ms) * 1000000u;

	while (!atomic_load(&lazy->ended)) {
		uint64_t now_ns = kernel_now_ns();

		if (timeout_ms >= 0 && now_ns >= until_ns)
			return -ETIMEDOUT;
		restore->k->futex_wait((const uint32_t *)&lazy->ended, 0, timeout_ms < 0 ? 0 : until_ns - now_ns);
	}
	int error = atomic_load(&lazy->error);

	if (error)
		restore_report(restore, error);
	return error;
}

/* Unpublished, or left to the region while pages have failed. */
static void restore_leave_region(struct uffdwp_restore *restore)
{
	struct uffdwp_region *region = restore->region;

	lock_take(&region->lock);
	if (atomic_load(&restore->lazy->failed)) {
		restore->lazy = NULL;
	} else {
		atomic_store(&region->lazy, NULL);
		fault_epoch_wait();
		if (!region->snapshot_open && !region->cut_comes) /* it arms before it has begun */
			atomic_store(&region->active, (uint32_t)region_is_active(region));
	}
	region->restore_open = 0;
	lock_give(&region->lock);
}

void restore_free(struct uffdwp_restore *restore)
{
	roster_remove(restore->k, &restore->roster);
	lazy_stop(restore->lazy, -ECANCELED);
	restore_join_threads(restore);
	restore_leave_region(restore);
	restore_close_all(restore);
}
