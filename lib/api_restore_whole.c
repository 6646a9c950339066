/* SPDX-License-Identifier: MIT */
/* Whole restores, as api.c: checks, then calls. */
#include <errno.h>

#include "api_private.h"
#include "restore/whole.h"

/* The smallest structures that were ever released. */
#define RESTORE_OPTIONS_SZ_MIN sizeof(struct uffdwp_restore_options)
#define RESTORE_PROGRESS_SZ_MIN sizeof(struct uffdwp_restore_progress)

#define THREADS_DEFAULT 4

static int check_paths(const struct uffdwp_restore_options *options, struct text *text)
{
	if (!options->path || !*options->path)
		return text_fail(text, -EINVAL, "a restore needs the path of an image");
	if (options->path_count && !options->paths)
		return text_fail(text, -EINVAL, "path_count is %zu, and paths is NULL", options->path_count);
	for (size_t i = 0; i < options->path_count; i++) {
		if (!options->paths[i])
			return text_fail(text, -EINVAL, "paths[%zu] is NULL", i);
	}
	return 0;
}

static int take_options(struct text *text, const struct uffdwp_restore_options *given,
                        struct uffdwp_restore_options *options)
{
	int error = api_take_options(text, given, RESTORE_OPTIONS_SZ_MIN, options, sizeof(*options));

	if (!error)
		error = api_unknown_flags(text, options->flags, UFFDWP_RESTORE_RAW, 0);
	if (!error && options->threads > WHOLE_THREADS_MOST)
		error = text_fail(text, -EINVAL, "threads is %u, at most %d", (unsigned)options->threads,
		                  WHOLE_THREADS_MOST);
	return error ? error : check_paths(options, text);
}

static struct whole_wish wish_of(const struct uffdwp_region *region, const struct uffdwp_restore_options *options)
{
	unsigned threads = options->threads ? options->threads : THREADS_DEFAULT;

	return (struct whole_wish){
	        .path = options->path,
	        .chain = {.flags = options->flags & UFFDWP_RESTORE_RAW ? UFFDWP_IMAGE_RAW : 0,
	                  .contexts = threads,
	                  .paths = options->paths,
	                  .path_count = options->path_count},
	        .threads = threads,
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
	int error = take_options(region->text, given, &options);

	if (!error) {
		struct whole_wish wish = wish_of(region, &options);

		error = whole_restore(region, &wish, &answer);
	}
	answer.error = error;
	if (progress)
		(void)api_give_answer(progress, RESTORE_PROGRESS_SZ_MIN, &answer, sizeof(answer));
	return error;
}
