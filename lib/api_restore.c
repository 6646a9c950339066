/* SPDX-License-Identifier: MIT */
/* Restores, whole and lazy, as api.c: checks, then calls. */
#include <errno.h>

#include "api_private.h"
#include "fault/fault.h"
#include "restore/restore.h"
#include "restore/whole.h"

/* The smallest structures that were ever released. */
#define RESTORE_OPTIONS_SZ_MIN sizeof(struct uffdwp_restore_options)
#define RESTORE_PROGRESS_SZ_MIN sizeof(struct uffdwp_restore_progress)

static int take_options(struct text *text, const struct uffdwp_restore_options *given, uint32_t known,
                        struct uffdwp_restore_options *options)
{
	int error = api_take_options(text, given, RESTORE_OPTIONS_SZ_MIN, options, sizeof(*options));

	if (!error)
		error = api_unknown_flags(text, options->flags, known, 0);
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
	if (!options->threads)
		options->threads = RESTORE_THREADS_DEFAULT;
	return error;
}

static struct whole_wish whole_wish_of(const struct uffdwp_region *region, const struct uffdwp_restore_options *options)
{
	return (struct whole_wish){
	        .path = options->path,
	        .chain = {.flags = options->flags & UFFDWP_RESTORE_RAW ? UFFDWP_IMAGE_RAW : 0,
	                  .contexts = options->threads,
	                  .paths = options->paths,
	                  .path_count = options->path_count},
	        .threads = options->threads,
	        .no_uring = (region->runtime->flags & UFFDWP_OPEN_NO_URING) != 0,
	};
}

UFFDWP_EXPORT int uffdwp_restore(struct uffdwp_region *region, const struct uffdwp_restore_options *given,
                                 struct uffdwp_restore_progress *progress)
{
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	struct uffdwp_restore_progress answer = {.sz = sizeof(answer), .state = UFFDWP_RESTORE_FAILED};

	if (progress && progress->sz < RESTORE_PROGRESS_SZ_MIN)
		return text_fail(region->text, -EINVAL, "the progress's sz is too small");
	if (api_is_foreign(region->runtime))
		return -ECHILD;
	int error = take_options(region->text, given, UFFDWP_RESTORE_RAW, &options);

	if (!error) {
		struct whole_wish wish = whole_wish_of(region, &options);

		error = whole_restore(region, &wish, &answer);
	}
	answer.error = error;
	if (progress)
		(void)api_give_answer(progress, RESTORE_PROGRESS_SZ_MIN, &answer, sizeof(answer));
	return error;
}

UFFDWP_EXPORT int uffdwp_restore_begin(struct uffdwp_region *region, const struct uffdwp_restore_options *given,
                                       struct uffdwp_restore **out)
{
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	struct text *text = region->text;

	if (api_is_foreign(region->runtime))
		return -ECHILD;
	int error = take_options(text, given, UFFDWP_RESTORE_RAW | UFFDWP_RESTORE_ON_DEMAND, &options);

	if (!error && !out)
		error = text_fail(text, -EINVAL, "out is NULL");
	if (error)
		return error;
	struct restore_wish wish = {.path = options.path,
	                            .flags = options.flags,
	                            .threads = options.threads,
	                            .paths = options.paths,
	                            .path_count = options.path_count};

	return restore_begin(region, &wish, text, out);
}

UFFDWP_EXPORT int uffdwp_restore_wait(struct uffdwp_restore *restore, int timeout_ms,
                                      struct uffdwp_restore_progress *progress)
{
	struct uffdwp_restore_progress answer = {.sz = sizeof(answer)};

	if (progress && progress->sz < sizeof(answer))
		return -EINVAL;
	if (api_is_foreign(restore->region->runtime))
		return -ECHILD;
	int result = restore_wait(restore, timeout_ms);

	restore_progress(restore, &answer);
	return progress && api_give_answer(progress, sizeof(answer), &answer, sizeof(answer)) ? -EINVAL : result;
}

UFFDWP_EXPORT int uffdwp_restore_check(struct uffdwp_restore *restore, uint64_t offset, uint64_t length)
{
	struct uffdwp_region *region = restore->region;

	if (offset + length < offset)
		return -EOVERFLOW;
	if (offset + length > atomic_load(&region->length_bytes))
		return -ERANGE;
	if (!length)
		return 0;
	return fault_await(region, offset >> region->page_shift, ((offset + length - 1) >> region->page_shift) + 1,
	                   NULL, NULL);
}

UFFDWP_EXPORT int uffdwp_restore_free(struct uffdwp_restore *restore)
{
	if (!restore)
		return 0;
	if (api_is_foreign(restore->region->runtime))
		return -ECHILD;
	restore_free(restore);
	return 0;
}
