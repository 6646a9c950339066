/* SPDX-License-Identifier: MIT */
/* Images, as api.c: checks, then calls. */
#include <errno.h>
#include <string.h>

#include "api_private.h"
#include "base/signals.h"
#include "image/chain.h"
#include "image/pack.h"

#define COMPRESS_MOST 19
#define MERGE_THREADS_MOST 64

/* Damage that a read met becomes the text of the thread that calls. */
static int image_say(struct uffdwp_image *image, int error)
{
	if (error && atomic_load_explicit(&image->bad, memory_order_acquire) == 1 && image->bad_error == error)
		chain_form_text(image);
	return error;
}

static int api_image_check_open(const char *path, const struct uffdwp_image_options *options, struct text *text)
{
	int error = api_unknown_flags(text, "uffdwp_image_open", options->flags, UFFDWP_IMAGE_OPEN_RAW, 0);

	if (!error && (!path || !*path))
		error = text_fail(text, -EINVAL, "an image needs a path");
	if (!error && options->contexts > UNPACKERS_MAX)
		error = text_fail(text, -EINVAL, "contexts is %u, at most %d", (unsigned)options->contexts,
		                  UNPACKERS_MAX);
	if (!error && options->path_count && !options->paths)
		error = text_fail(text, -EINVAL, "path_count is %zu, and paths is NULL", options->path_count);
	for (size_t i = 0; options->paths && i < options->path_count && !error; i++) {
		if (!options->paths[i])
			error = text_fail(text, -EINVAL, "paths[%zu] is NULL", i);
	}
	return error;
}

UFFDWP_EXPORT int uffdwp_image_open(const char *path, const struct uffdwp_image_options *given,
                                    struct uffdwp_image **out)
{
	API_CALL();
	struct uffdwp_image_options options = UFFDWP_IMAGE_OPTIONS_INIT;
	struct text *text = NULL; /* the thread's */
	int error = api_take_options(text, given, &options, sizeof(options));

	if (!error && !out)
		error = text_fail(text, -EINVAL, "out is NULL");
	if (!error)
		error = api_image_check_open(path, &options, text);
	if (error)
		return error;
	struct chain_options chain = {options.flags, options.contexts, options.paths, options.path_count};

	return chain_open(&kernel_real, path, &chain, text, out);
}

UFFDWP_EXPORT int uffdwp_image_close(struct uffdwp_image *image)
{
	API_CALL();
	if (image)
		chain_close(image);
	return 0;
}

UFFDWP_EXPORT size_t uffdwp_image_text(struct uffdwp_image *image, char *buffer, size_t size)
{
	API_CALL();
	chain_form_text(image);
	return text_copy(&image->text, buffer, size);
}

UFFDWP_EXPORT int uffdwp_image_info(const struct uffdwp_image *image, uint32_t link, struct uffdwp_image_info *info)
{
	API_CALL();
	struct uffdwp_image_info answer = {.sz = sizeof(answer)};

	int error = api_check_answer(NULL, info, "the info");

	if (error)
		return error;
	if (link >= image->link_count)
		return text_fail(NULL, -ERANGE, "there is no link %u: the chain has %u", (unsigned)link,
		                 (unsigned)image->link_count);
	chain_info(image, link, &answer);
	api_give_answer(info, &answer, sizeof(answer));
	return 0;
}

UFFDWP_EXPORT int uffdwp_image_read(struct uffdwp_image *image, uint64_t offset, void *buffer, uint64_t length)
{
	API_CALL();
	if (offset + length < offset)
		return -EOVERFLOW;
	if (offset + length > image->length_bytes)
		return -ERANGE;
	return chain_read(image, offset, buffer, length);
}

UFFDWP_EXPORT int uffdwp_image_next(const struct uffdwp_image *image, uint64_t offset,
                                    struct uffdwp_image_extent *extent)
{
	API_CALL();
	struct uffdwp_image_extent answer = {.sz = sizeof(answer)};

	int error = api_check_answer(NULL, extent, "the extent");

	if (error)
		return error;
	if (!chain_next(image, offset, &answer))
		return 0;
	api_give_answer(extent, &answer, sizeof(answer));
	return 1;
}

UFFDWP_EXPORT int uffdwp_image_verify(struct uffdwp_image *image, struct uffdwp_image_verified *verified)
{
	API_CALL();
	struct uffdwp_image_verified answer = {.sz = sizeof(answer)};

	int error = api_check_answer(&image->text, verified, "what was verified");

	if (error)
		return error;
	error = chain_verify(image, &answer);
	api_give_answer(verified, &answer, sizeof(answer));
	return image_say(image, error);
}

int api_check_compress(struct text *text, uint32_t compress, int is_delta)
{
	if (compress && !is_delta)
		return text_fail(text, -EINVAL,
		                 "only deltas are compressed: a raw image stays what other tools can open");
	if (compress > COMPRESS_MOST)
		return text_fail(text, -EINVAL, "compress is %u, at most %d", (unsigned)compress, COMPRESS_MOST);
	if (compress && !pack_built())
		return text_fail(text, -EOPNOTSUPP,
		                 "compress is %u, and this library was built without zstd (UFFDWP_ZSTD)",
		                 (unsigned)compress);
	return 0;
}

UFFDWP_EXPORT int uffdwp_image_progress(struct uffdwp_image *image, uffdwp_progress_fn callback, void *user)
{
	API_CALL();
	image->progress = callback;
	image->progress_user = user;
	return 0;
}

static int api_image_check_merge(const struct uffdwp_image_merge_options *options, struct text *text)
{
	int error = api_unknown_flags(text, "uffdwp_image_merge", options->flags, UFFDWP_IMAGE_MERGE_BUFFERED,
	                              options->reserved);

	if (!error)
		error = api_check_mode(text, options->mode);

	if (!error)
		error = api_check_compress(text, options->compress, options->deltas > 0);
	if (!error && options->threads > MERGE_THREADS_MOST)
		error = text_fail(text, -EINVAL, "threads is %u, at most %d", (unsigned)options->threads,
		                  MERGE_THREADS_MOST);
	return error;
}

UFFDWP_EXPORT int uffdwp_image_merge(struct uffdwp_image *image, const char *path,
                                     const struct uffdwp_image_merge_options *given)
{
	API_CALL();
	struct uffdwp_image_merge_options options = UFFDWP_IMAGE_MERGE_OPTIONS_INIT;
	int error = api_take_options(&image->text, given, &options, sizeof(options));

	if (!error && (!path || !*path))
		error = text_fail(&image->text, -EINVAL, "the result needs a path");
	if (!error)
		error = api_image_check_merge(&options, &image->text);
	if (error)
		return error;
	struct signals_held held;

	signals_hold_io(&held);
	error = chain_merge(image, path, &options);
	signals_release_io(&held, error);
	return image_say(image, error);
}

UFFDWP_EXPORT int uffdwp_image_diff(struct uffdwp_image *from, struct uffdwp_image *to, struct uffdwp_image_diff *diff)
{
	API_CALL();
	struct uffdwp_image_diff taken = UFFDWP_IMAGE_DIFF_INIT;
	struct text *text = &from->text;
	int error =
	        diff ? api_take_options(text, diff, &taken, sizeof(taken)) : text_fail(text, -EINVAL, "diff is NULL");

	if (!error)
		error = api_unknown_flags(text, "uffdwp_image_diff", taken.flags, 0, taken.reserved);
	if (!error)
		error = api_check_mode(text, taken.mode);
	if (!error)
		error = api_check_compress(text, taken.compress, 1);
	if (!error && taken.path && !*taken.path)
		error = text_fail(text, -EINVAL, "the delta needs a path");
	if (error)
		return error;
	taken.ranges = 0;
	taken.bytes = 0;
	struct signals_held held;

	signals_hold_io(&held);
	error = chain_diff(from, to, &taken);
	signals_release_io(&held, error);
	if (error)
		return error;
	api_give_answer(diff, &taken, sizeof(taken));
	return 0;
}
