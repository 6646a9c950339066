/* SPDX-License-Identifier: MIT */
/* Restores, whole and lazy, as api.c: checks, then calls. */
#include <errno.h>

#include "api_private.h"
#include "base/errno_name.h"
#include "fault/fault.h"
#include "restore/restore.h"
#include "restore/whole.h"

static int api_restore_take_options(struct text *text, const struct uffdwp_restore_options *given, uint32_t known,
                                    struct uffdwp_restore_options *options)
{
	int error = api_take_options(text, given, options, sizeof(*options));

	if (!error)
		error = api_unknown_flags(
		        text, known & UFFDWP_RESTORE_BEGIN_ON_DEMAND ? "uffdwp_restore_begin" : "uffdwp_restore",
		        options->flags, known, 0);
	if (!error && (!options->path || !*options->path))
		error = text_fail(text, -EINVAL, "a restore needs the path of an image");
	if (!error && options->threads > RESTORE_THREADS_MAX)
		error = text_fail(text, -EINVAL, "threads is %u, at most %d", (unsigned)options->threads,
		                  RESTORE_THREADS_MAX);
	if (!error && options->path_count && !options->paths)
		error = text_fail(text, -EINVAL, "path_count is %zu, and paths is NULL", options->path_count);
	for (size_t i = 0; options->paths && i < options->path_count && !error; i++) {
		if (!options->paths[i])
			error = text_fail(text, -EINVAL, "paths[%zu] is NULL", i);
	}
	if (!error && !(known & UFFDWP_RESTORE_BEGIN_ON_DEMAND) && (options->touches_max || options->first_count))
		error = text_fail(text, -EINVAL, "touches_max and first are for uffdwp_restore_begin()");
	if (!error && options->first_count && !options->first)
		error = text_fail(text, -EINVAL, "first_count is %zu, and first is NULL", options->first_count);
	if (!options->threads)
		options->threads = RESTORE_THREADS_DEFAULT;
	return error;
}

static struct whole_request api_restore_whole_request(const struct uffdwp_region *region,
                                                      const struct uffdwp_restore_options *options)
{
	return (struct whole_request){
	        .path = options->path,
	        .chain = {.flags = options->flags & UFFDWP_RESTORE_RAW ? UFFDWP_IMAGE_OPEN_RAW : 0,
	                  .contexts = options->threads,
	                  .paths = options->paths,
	                  .path_count = options->path_count},
	        .threads = options->threads,
	        .no_uring = (region->runtime->flags & UFFDWP_OPEN_NO_URING) != 0,
	        .progress = options->progress,
	        .progress_user = options->progress_user,
	};
}

UFFDWP_EXPORT int uffdwp_restore(struct uffdwp_region *region, const struct uffdwp_restore_options *given,
                                 struct uffdwp_restore_progress *progress)
{
	API_CALL();
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	struct uffdwp_restore_progress answer = {.sz = sizeof(answer), .state = UFFDWP_RESTORE_STATE_FAILED};

	if (api_is_foreign(region->runtime))
		return -ECHILD;
	int error = progress ? api_check_answer(region->text, progress, "the progress") : 0;

	if (error)
		return error;
	error = api_restore_take_options(region->text, given, UFFDWP_RESTORE_RAW, &options);
	if (!error)
		error = runtime_check_faults(region);

	if (!error) {
		struct whole_request request = api_restore_whole_request(region, &options);

		error = whole_restore(region, &request, &answer);
	}
	answer.error = error;
	if (progress)
		api_give_answer(progress, &answer, sizeof(answer));
	return error;
}

UFFDWP_EXPORT int uffdwp_restore_begin(struct uffdwp_region *region, const struct uffdwp_restore_options *given,
                                       struct uffdwp_restore **out)
{
	API_CALL();
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	struct text *text = region->text;

	if (api_is_foreign(region->runtime))
		return -ECHILD;
	int error =
	        api_restore_take_options(text, given, UFFDWP_RESTORE_RAW | UFFDWP_RESTORE_BEGIN_ON_DEMAND, &options);

	if (!error && !out)
		error = text_fail(text, -EINVAL, "out is NULL");
	if (!error && options.progress)
		error = text_fail(text, -EINVAL,
		                  "progress is for uffdwp_restore(): ask uffdwp_restore_poll() how far this one is");
	if (error)
		return error;
	struct restore_request request = {.path = options.path,
	                                  .flags = options.flags,
	                                  .threads = options.threads,
	                                  .paths = options.paths,
	                                  .path_count = options.path_count,
	                                  .touches_max = options.touches_max,
	                                  .first = options.first,
	                                  .first_count = options.first_count};

	error = runtime_check_own(region->runtime, region);
	if (!error)
		error = runtime_check_faults(region);
	return error ? error : restore_begin(region, &request, text, out);
}

UFFDWP_EXPORT int uffdwp_restore_wait(struct uffdwp_restore *restore, int timeout_ms,
                                      struct uffdwp_restore_progress *progress)
{
	API_CALL();
	struct uffdwp_restore_progress answer = {.sz = sizeof(answer)};

	if (api_is_foreign(restore->region->runtime))
		return -ECHILD;
	int error = progress ? api_check_answer(restore->region->text, progress, "the progress") : 0;

	if (error)
		return error;
	int result = restore_wait(restore, timeout_ms);

	restore_progress(restore, &answer);
	if (progress)
		api_give_answer(progress, &answer, sizeof(answer));
	return result;
}

UFFDWP_EXPORT int uffdwp_restore_poll(struct uffdwp_restore *restore, struct uffdwp_restore_progress *progress)
{
	API_CALL();
	struct uffdwp_restore_progress answer = {.sz = sizeof(answer)};

	if (api_is_foreign(restore->region->runtime))
		return -ECHILD;
	int error = api_check_answer(NULL, progress, "the progress");

	if (error)
		return error;
	restore_progress(restore, &answer);
	api_give_answer(progress, &answer, sizeof(answer));
	return 0;
}

UFFDWP_EXPORT int uffdwp_restore_fd(struct uffdwp_restore *restore)
{
	API_CALL();
	if (api_is_foreign(restore->region->runtime))
		return -ECHILD;
	int fd = restore_fd(restore);

	return fd < 0 ? text_fail(NULL, fd, "no descriptor for the restore's end: %s", errno_text(fd)) : fd;
}

UFFDWP_EXPORT int uffdwp_restore_abort(struct uffdwp_restore *restore)
{
	API_CALL();
	if (api_is_foreign(restore->region->runtime))
		return -ECHILD;
	lazy_stop(restore->lazy, -ECANCELED);
	return 0;
}

UFFDWP_EXPORT size_t uffdwp_restore_text(struct uffdwp_restore *restore, char *buffer, size_t size)
{
	API_CALL();
	return text_copy(api_is_foreign(restore->region->runtime) ? NULL : &restore->text, buffer, size);
}

UFFDWP_EXPORT int uffdwp_restore_check(struct uffdwp_restore *restore, uint64_t offset, uint64_t length)
{
	API_CALL();
	struct uffdwp_region *region = restore->region;

	if (api_is_child(region->runtime))
		return -ECHILD;
	if (offset + length < offset)
		return -EOVERFLOW;
	if (offset + length > atomic_load(&region->length_bytes))
		return -ERANGE;
	if (!length)
		return 0;
	return fault_await(region, offset >> region->page_shift, ((offset + length - 1) >> region->page_shift) + 1,
	                   NULL, NULL);
}

UFFDWP_EXPORT int uffdwp_restore_touched(struct uffdwp_restore *restore, uint64_t *offsets, size_t capacity,
                                         size_t *count)
{
	API_CALL();
	const struct uffdwp_region *region = restore->region;

	if (api_is_foreign(region->runtime))
		return -ECHILD;
	if (!count || (capacity && !offsets))
		return text_fail(region->text, -EINVAL, "%s is NULL: there is no place for the answer",
		                 count ? "offsets" : "count");
	*count = (size_t)lazy_touches(restore->lazy, region->page_shift, offsets, capacity);
	return 0;
}

UFFDWP_EXPORT int uffdwp_restore_free(struct uffdwp_restore *restore)
{
	API_CALL();
	if (!restore)
		return 0;
	if (api_is_foreign(restore->region->runtime))
		return -ECHILD;
	restore_free(restore);
	return 0;
}
