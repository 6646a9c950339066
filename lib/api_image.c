/* SPDX-License-Identifier: MIT */
/* Images, as api.c: checks, then calls. What needs no runtime keeps its text by thread, or with the image. */
#include <errno.h>
#include <string.h>

#include "api_private.h"
#include "image/chain.h"

/* The smallest structures that were ever released. */
#define IMAGE_OPTIONS_SZ_MIN sizeof(struct uffdwp_image_options)
#define MERGE_OPTIONS_SZ_MIN sizeof(struct uffdwp_image_merge_options)

#define COMPRESS_MOST 19
#define MERGE_THREADS_MOST 64

static int check_open(const char *path, const struct uffdwp_image_options *options, struct text *text)
{
	int error = api_unknown_flags(text, options->flags, UFFDWP_IMAGE_RAW, 0);

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
	struct uffdwp_image_options options = UFFDWP_IMAGE_OPTIONS_INIT;
	struct text *text = api_thread_text();
	int error = api_take_options(text, given, IMAGE_OPTIONS_SZ_MIN, &options, sizeof(options));

	if (!error && !out)
		error = text_fail(text, -EINVAL, "out is NULL");
	if (!error)
		error = check_open(path, &options, text);
	if (error)
		return error;
	struct chain_options chain = {options.flags, options.contexts, options.paths, options.path_count};

	return chain_open(&kernel_real, path, &chain, text, out);
}

UFFDWP_EXPORT int uffdwp_image_close(struct uffdwp_image *image)
{
	if (image)
		chain_close(image);
	return 0;
}

UFFDWP_EXPORT size_t uffdwp_image_text(struct uffdwp_image *image, char *buffer, size_t size)
{
	if (!image)
		return text_copy(api_thread_text(), buffer, size);
	chain_form_text(image);
	return text_copy(&image->text, buffer, size);
}

UFFDWP_EXPORT int uffdwp_image_info(const struct uffdwp_image *image, uint32_t link, struct uffdwp_image_info *info)
{
	struct uffdwp_image_info answer = {.sz = sizeof(answer)};

	if (link >= image->link_count)
		return -ERANGE;
	chain_info(image, link, &answer);
	return api_give_answer(info, sizeof(answer), &answer, sizeof(answer));
}

UFFDWP_EXPORT int uffdwp_image_read(struct uffdwp_image *image, uint64_t offset, void *buffer, size_t length)
{
	if (offset + length < offset)
		return -EOVERFLOW;
	if (offset + length > image->length_bytes)
		return -ERANGE;
	return chain_read(image, offset, buffer, length);
}

UFFDWP_EXPORT int uffdwp_image_next(const struct uffdwp_image *image, uint64_t offset,
                                    struct uffdwp_image_extent *extent)
{
	struct uffdwp_image_extent answer = {.sz = sizeof(answer)};

	if (extent->sz < sizeof(answer))
		return -EINVAL;
	if (!chain_next(image, offset, &answer))
		return 0;
	return api_give_answer(extent, sizeof(answer), &answer, sizeof(answer)) ? -EINVAL : 1;
}

UFFDWP_EXPORT int uffdwp_image_verify(struct uffdwp_image *image, struct uffdwp_image_verified *verified)
{
	struct uffdwp_image_verified answer = {.sz = sizeof(answer)};

	if (verified->sz < sizeof(answer))
		return -EINVAL;
	int error = chain_verify(image, &answer);

	return api_give_answer(verified, sizeof(answer), &answer, sizeof(answer)) ? -EINVAL : error;
}

int api_check_compress(struct text *text, uint32_t compress, int is_delta)
{
	if (compress && !is_delta)
		return text_fail(text, -EINVAL,
		                 "only deltas are compressed: a raw image stays what other tools can open");
	if (compress > COMPRESS_MOST)
		return text_fail(text, -EINVAL, "compress is %u, at most %d", (unsigned)compress, COMPRESS_MOST);
	return 0;
}

static int check_merge(const struct uffdwp_image_merge_options *options, struct text *text)
{
	int error = api_unknown_flags(text, options->flags, UFFDWP_MERGE_BUFFERED, 0);

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
	struct uffdwp_image_merge_options options = UFFDWP_IMAGE_MERGE_OPTIONS_INIT;
	int error = api_take_options(&image->text, given, MERGE_OPTIONS_SZ_MIN, &options, sizeof(options));

	if (!error && (!path || !*path))
		error = text_fail(&image->text, -EINVAL, "the result needs a path");
	if (!error)
		error = check_merge(&options, &image->text);
	return error ? error : chain_merge(image, path, &options);
}

UFFDWP_EXPORT int uffdwp_image_diff(struct uffdwp_image *from, struct uffdwp_image *to, struct uffdwp_image_diff *diff)
{
	struct uffdwp_image_diff taken = UFFDWP_IMAGE_DIFF_INIT;
	struct text *text = &from->text;
	int error = diff ? api_take_options(text, diff, sizeof(*diff), &taken, sizeof(taken))
	                 : text_fail(text, -EINVAL, "diff is NULL");

	if (!error)
		error = api_unknown_flags(text, taken.flags, 0, 0);
	if (!error)
		error = api_check_compress(text, taken.compress, 1);
	if (!error && taken.path && !*taken.path)
		error = text_fail(text, -EINVAL, "the delta needs a path");
	if (error)
		return error;
	taken.ranges = 0;
	taken.bytes = 0;
	error = chain_diff(from, to, &taken);
	if (error)
		return error;
	return api_give_answer(diff, sizeof(taken), &taken, sizeof(taken));
}
