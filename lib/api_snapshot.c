/* SPDX-License-Identifier: MIT */
/* Snapshots, as api.c: checks, then calls. */
#include <errno.h>
#include <stddef.h>

#include "api_private.h"
#include "snapshot/cut.h"

/* The smallest structure that was ever released: deltas came later. */
#define SNAPSHOT_OPTIONS_SZ_MIN offsetof(struct uffdwp_snapshot_options, parent)

static int check_delta(const struct uffdwp_snapshot_options *options, struct text *text)
{
	if (options->reserved2)
		return text_fail(text, -EINVAL, "reserved2 must be 0");
	if (options->parent && (options->sink != UFFDWP_SINK_IMAGE || !*options->parent))
		return text_fail(text, -EINVAL, "a parent is the path of an image, and for the image sink only");
	return api_check_compress(text, options->compress, options->parent != NULL);
}

static int check_snapshot_sink(const struct uffdwp_snapshot_options *options, struct text *text)
{
	switch (options->sink) {
	case UFFDWP_SINK_IMAGE:
		return options->path && *options->path ? 0 : text_fail(text, -EINVAL, "the image sink needs a path");
	case UFFDWP_SINK_STREAM:
		return options->fd >= 0 ? 0 : text_fail(text, -EBADF, "the stream sink needs an fd");
	case UFFDWP_SINK_CALLBACK:
		return options->callback ? 0 : text_fail(text, -EINVAL, "the callback sink needs a callback");
	case UFFDWP_SINK_NBD:
		return options->path && *options->path ? 0
		                                       : text_fail(text, -EINVAL, "the NBD sink needs a URI as path");
	default:
		return text_fail(text, -EINVAL, "unknown sink %u", (unsigned)options->sink);
	}
}

static int check_snapshot_options(const struct uffdwp_region *region, const struct uffdwp_snapshot_options *options)
{
	struct text *text = region->text;
	int error = api_unknown_flags(text, options->flags,
	                              UFFDWP_SNAPSHOT_BUFFERED | UFFDWP_SNAPSHOT_KEEP | UFFDWP_SNAPSHOT_INCREMENT,
	                              options->reserved);

	if (!error && options->policy > UFFDWP_POLICY_ABORT)
		error = text_fail(text, -EINVAL, "unknown policy %u", (unsigned)options->policy);
	if (!error && options->window_max > FAULT_WINDOW_MAX)
		error = text_fail(text, -EINVAL, "window_max is %u, at most %d pages", (unsigned)options->window_max,
		                  FAULT_WINDOW_MAX);
	if (!error && options->pool_bytes && options->pool_bytes / 16 < region->page_bytes)
		error = text_fail(text, -EINVAL, "pool_bytes %llu is less than 16 pages of %llu bytes",
		                  (unsigned long long)options->pool_bytes, (unsigned long long)region->page_bytes);
	if (!error && options->pool_bytes / region->page_bytes > 1u << 30)
		error = text_fail(text, -EINVAL, "pool_bytes %llu is more than 2^30 pages",
		                  (unsigned long long)options->pool_bytes);
	if (!error && (options->flags & UFFDWP_SNAPSHOT_INCREMENT) && options->sink != UFFDWP_SINK_CALLBACK)
		error = text_fail(text, -EINVAL, "UFFDWP_SNAPSHOT_INCREMENT is for the callback sink");
	if (!error && !options->cut_enter != !options->cut_leave)
		error = text_fail(text, -EINVAL, "cut_enter and cut_leave go together");
	if (!error)
		error = check_delta(options, text);
	return error ? error : check_snapshot_sink(options, text);
}

static int take_snapshot_options(const struct uffdwp_region *region, const struct uffdwp_snapshot_options *given,
                                 struct uffdwp_snapshot_options *options)
{
	static const struct uffdwp_snapshot_options standard = UFFDWP_SNAPSHOT_OPTIONS_INIT;

	*options = standard;
	int error = api_take_options(region->text, given, SNAPSHOT_OPTIONS_SZ_MIN, options, sizeof(*options));

	return error ? error : check_snapshot_options(region, options);
}

static int begin(struct uffdwp_region *const *regions, const struct uffdwp_snapshot_options *options, size_t count,
                 struct uffdwp_snapshot **out)
{
	const struct uffdwp *runtime = regions[0]->runtime;

	return snapshot_begin(regions, options, count, (runtime->flags & UFFDWP_OPEN_NO_URING) != 0, regions[0]->text,
	                      out);
}

UFFDWP_EXPORT int uffdwp_snapshot_begin(struct uffdwp_region *region, const struct uffdwp_snapshot_options *given,
                                        struct uffdwp_snapshot **out)
{
	struct uffdwp_snapshot_options options;

	if (api_is_foreign(region->runtime))
		return -ECHILD;
	int error = take_snapshot_options(region, given, &options);

	if (!error && !out)
		error = text_fail(region->text, -EINVAL, "out is NULL");
	return error ? error : begin(&region, &options, 1, out);
}

static int check_member(struct uffdwp_region *const *regions, size_t i, const struct uffdwp_snapshot_options *options)
{
	struct text *text = regions[0]->text;

	if (regions[i]->runtime != regions[0]->runtime)
		return text_fail(text, -EINVAL, "region %zu is of another runtime than the first", i);
	for (size_t other = 0; other < i; other++) {
		if (regions[other] == regions[i])
			return text_fail(text, -EINVAL, "regions %zu and %zu are the same", other, i);
	}
	return i > 0 && options->cut_enter
	               ? text_fail(text, -EINVAL, "cut_enter of options %zu: only the first may have one", i)
	               : 0;
}

UFFDWP_EXPORT int uffdwp_snapshot_begin_group(struct uffdwp_region *const *regions,
                                              const struct uffdwp_snapshot_options *given, size_t count,
                                              struct uffdwp_snapshot **out)
{
	struct uffdwp_snapshot_options options[CUT_COUNT_MAX];
	int error = 0;

	if (!regions || !given || !count || !regions[0])
		return -EINVAL;
	if (api_is_foreign(regions[0]->runtime))
		return -ECHILD;
	if (count > CUT_COUNT_MAX)
		return text_fail(regions[0]->text, -E2BIG, "%zu regions, at most %d share a cut", count, CUT_COUNT_MAX);
	if (!out)
		return text_fail(regions[0]->text, -EINVAL, "out is NULL");
	for (size_t i = 0; i < count && !error; i++) {
		if (!regions[i])
			return text_fail(regions[0]->text, -EINVAL, "region %zu is NULL", i);
		/* Of the caller's age: his structures may be shorter than ours. */
		error = take_snapshot_options(regions[i], (const void *)((const char *)given + i * given->sz),
		                              &options[i]);
		if (!error)
			error = check_member(regions, i, &options[i]);
	}
	return error ? error : begin(regions, options, count, out);
}

UFFDWP_EXPORT int uffdwp_snapshot_poll(const struct uffdwp_snapshot *snapshot,
                                       struct uffdwp_snapshot_progress *progress)
{
	struct uffdwp_snapshot_progress answer = {.sz = sizeof(answer)};

	snapshot_progress((struct uffdwp_snapshot *)(uintptr_t)snapshot, &answer);
	return api_give_answer(progress, sizeof(answer), &answer, sizeof(answer));
}

UFFDWP_EXPORT int uffdwp_snapshot_wait(struct uffdwp_snapshot *snapshot, int timeout_ms,
                                       struct uffdwp_snapshot_progress *progress)
{
	if (progress && progress->sz < sizeof(*progress))
		return -EINVAL;
	if (api_is_foreign(snapshot->region->runtime))
		return -ECHILD;
	int result = snapshot_wait(snapshot, timeout_ms);

	if (progress && result != -ETIMEDOUT)
		return uffdwp_snapshot_poll(snapshot, progress) ? -EINVAL : result;
	return result;
}

UFFDWP_EXPORT size_t uffdwp_snapshot_text(struct uffdwp_snapshot *snapshot, char *buffer, size_t size)
{
	return text_copy(&snapshot->text, buffer, size);
}

UFFDWP_EXPORT int uffdwp_snapshot_abort(struct uffdwp_snapshot *snapshot)
{
	snapshot_abort(snapshot);
	return 0;
}

UFFDWP_EXPORT int uffdwp_snapshot_free(struct uffdwp_snapshot *snapshot)
{
	if (!snapshot)
		return 0;
	if (api_is_foreign(snapshot->region->runtime))
		return -ECHILD;
	snapshot_free(snapshot);
	return 0;
}
