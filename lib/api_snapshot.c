/* SPDX-License-Identifier: MIT */
/* Snapshots, as api.c: checks, then calls. */
#include <errno.h>
#include <string.h>

#include "api_private.h"
#include "base/errno_name.h"
#include "cut/cut.h"
#include "snapshot/snapshot.h"

static int api_snapshot_check_delta(const struct uffdwp_snapshot_options *options, struct text *text)
{
	int error = api_check_mode(text, options->mode);

	if (error)
		return error;
	if (options->parent && (options->sink != UFFDWP_SINK_IMAGE || !*options->parent))
		return text_fail(text, -EINVAL, "a parent is the path of an image, and for the image sink only");
	return api_check_compress(text, options->compress, options->parent != NULL);
}

static int api_snapshot_check_sink(const struct uffdwp_snapshot_options *options, struct text *text)
{
	switch (options->sink) {
	case UFFDWP_SINK_IMAGE:
		return options->path && *options->path ? 0 : text_fail(text, -EINVAL, "the image sink needs a path");
	case UFFDWP_SINK_STREAM:
		return options->fd > 0 ? 0 : text_fail(text, -EBADF, "the stream sink needs an fd");
	case UFFDWP_SINK_CALLBACK:
		return options->callback ? 0 : text_fail(text, -EINVAL, "the callback sink needs a callback");
	case UFFDWP_SINK_NBD:
		return options->path && *options->path ? 0
		                                       : text_fail(text, -EINVAL, "the NBD sink needs a URI as path");
	default:
		return text_fail(text, -EINVAL, "unknown sink %u", (unsigned)options->sink);
	}
}

static int api_snapshot_check_options(const struct uffdwp_region *region, const struct uffdwp_snapshot_options *options)
{
	struct text *text = region->text;
	int error = api_unknown_flags(text, "uffdwp_snapshot_begin", options->flags,
	                              UFFDWP_SNAPSHOT_BUFFERED | UFFDWP_SNAPSHOT_KEEP | UFFDWP_SNAPSHOT_INCREMENT |
	                                      UFFDWP_SNAPSHOT_COARSE,
	                              0);

	if (!error && options->arming >= UFFDWP_ARMING_COUNT)
		error = text_fail(text, -EINVAL, "unknown arming %u", (unsigned)options->arming);

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
	if (!error && (options->flags & UFFDWP_SNAPSHOT_COARSE) && !(options->flags & UFFDWP_SNAPSHOT_KEEP))
		error = text_fail(
		        text, -EINVAL,
		        "UFFDWP_SNAPSHOT_COARSE is for snapshots with UFFDWP_SNAPSHOT_KEEP; others are so anyway");
	if (!error && (options->flags & UFFDWP_SNAPSHOT_INCREMENT) && options->sink != UFFDWP_SINK_CALLBACK)
		error = text_fail(text, -EINVAL, "UFFDWP_SNAPSHOT_INCREMENT is for the callback sink");
	if (!error && !options->cut_enter != !options->cut_leave)
		error = text_fail(text, -EINVAL, "cut_enter and cut_leave go together");
	if (!error)
		error = api_snapshot_check_delta(options, text);
	return error ? error : api_snapshot_check_sink(options, text);
}

static int api_snapshot_take_options(const struct uffdwp_region *region, const struct uffdwp_snapshot_options *given,
                                     struct uffdwp_snapshot_options *options)
{
	static const struct uffdwp_snapshot_options standard = UFFDWP_SNAPSHOT_OPTIONS_INIT;

	*options = standard;
	int error = api_take_options(region->text, given, options, sizeof(*options));

	return error ? error : api_snapshot_check_options(region, options);
}

static int api_snapshot_begin(struct uffdwp_region *const *regions, const struct uffdwp_snapshot_options *options,
                              size_t count, struct uffdwp_snapshot **out)
{
	struct uffdwp *runtime = regions[0]->runtime;
	int error = runtime_check_own_all(runtime, regions, count);

	if (!error)
		error = runtime_check_faults_all(regions, count);
	return error ? error
	             : snapshot_begin(regions, options, count, (runtime->flags & UFFDWP_OPEN_NO_URING) != 0,
	                              regions[0]->text, out);
}

UFFDWP_EXPORT int uffdwp_snapshot_begin(struct uffdwp_region *region, const struct uffdwp_snapshot_options *given,
                                        struct uffdwp_snapshot **out)
{
	API_CALL();
	struct uffdwp_snapshot_options options;

	if (api_is_foreign(region->runtime))
		return -ECHILD;
	int error = api_snapshot_take_options(region, given, &options);

	if (!error && !out)
		error = text_fail(region->text, -EINVAL, "out is NULL");
	return error ? error : api_snapshot_begin(&region, &options, 1, out);
}

static int api_snapshot_check_member(struct uffdwp_region *const *regions, size_t i,
                                     const struct uffdwp_snapshot_options *options)
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

/* The structures are as old as the caller, and may be shorter than ours. The first one's sz is the distance between
 * them, so that another sz in one of them would have bytes taken that are not its own, also beyond the last. */
static int api_snapshot_take_group_options(struct uffdwp_region *const *regions,
                                           const struct uffdwp_snapshot_options *given, size_t i,
                                           struct uffdwp_snapshot_options *options)
{
	const char *own = (const char *)given + i * given->sz;
	size_t sz;

	memcpy(&sz, own, sizeof(sz));
	if (sz != given->sz)
		return text_fail(regions[0]->text, -EINVAL, "the sz of options %zu is %zu, that of the first %zu", i,
		                 sz, given->sz);
	return api_snapshot_take_options(regions[i], (const void *)own, options);
}

/* What all members ask for, each checked by itself and beside the others. */
static int api_snapshot_take_group(struct uffdwp_region *const *regions, const struct uffdwp_snapshot_options *given,
                                   size_t count, struct uffdwp_snapshot_options *options)
{
	int error = 0;

	for (size_t i = 0; i < count && !error; i++) {
		if (!regions[i])
			return text_fail(regions[0]->text, -EINVAL, "region %zu is NULL", i);
		error = api_snapshot_take_group_options(regions, given, i, &options[i]);
		if (!error)
			error = api_snapshot_check_member(regions, i, &options[i]);
	}
	return error;
}

UFFDWP_EXPORT int uffdwp_snapshot_begin_group(struct uffdwp_region *const *regions,
                                              const struct uffdwp_snapshot_options *given, size_t count,
                                              struct uffdwp_snapshot **out)
{
	API_CALL();
	struct uffdwp_snapshot_options options[CUT_COUNT_MAX] = {{.sz = 0}};

	if (!regions || !given || !count || !regions[0])
		return text_fail(NULL, -EINVAL, "a group needs a region and its options at least, and NULL is none");
	if (api_is_foreign(regions[0]->runtime))
		return -ECHILD;
	if (count > CUT_COUNT_MAX)
		return text_fail(regions[0]->text, -E2BIG, "%zu regions, at most %d share a cut", count, CUT_COUNT_MAX);
	if (!out)
		return text_fail(regions[0]->text, -EINVAL, "out is NULL");
	int error = api_snapshot_take_group(regions, given, count, options);

	return error ? error : api_snapshot_begin(regions, options, count, out);
}

UFFDWP_EXPORT int uffdwp_snapshot_poll(struct uffdwp_snapshot *snapshot, struct uffdwp_snapshot_progress *progress)
{
	API_CALL();
	struct uffdwp_snapshot_progress answer = {.sz = sizeof(answer)};

	if (api_is_foreign(snapshot->region->runtime))
		return -ECHILD;
	int error = api_check_answer(snapshot->region->text, progress, "the progress");

	if (error)
		return error;
	snapshot_progress(snapshot, &answer);
	api_give_answer(progress, &answer, sizeof(answer));
	return 0;
}

/* The snapshot's text becomes that of the thread that waited. */
static int snapshot_say(struct uffdwp_snapshot *snapshot, int error)
{
	char line[TEXT_BYTES];

	if (!error)
		return 0;
	text_copy(&snapshot->text, line, sizeof(line));
	return text_fail(NULL, error, "%s", line);
}

UFFDWP_EXPORT int uffdwp_snapshot_wait(struct uffdwp_snapshot *snapshot, int timeout_ms,
                                       struct uffdwp_snapshot_progress *progress)
{
	API_CALL();
	if (api_is_foreign(snapshot->region->runtime))
		return -ECHILD;
	int error = progress ? api_check_answer(snapshot->region->text, progress, "the progress") : 0;

	if (error)
		return error;
	int result = snapshot_wait(snapshot, timeout_ms);

	if (progress)
		error = uffdwp_snapshot_poll(snapshot, progress);
	return error || result == -ETIMEDOUT ? (error ? error : result) : snapshot_say(snapshot, result);
}

UFFDWP_EXPORT int uffdwp_snapshot_fd(struct uffdwp_snapshot *snapshot)
{
	API_CALL();
	if (api_is_foreign(snapshot->region->runtime))
		return -ECHILD;
	int fd = snapshot_fd(snapshot);

	return fd < 0 ? text_fail(NULL, fd, "no descriptor for the snapshot's end: %s", errno_text(fd)) : fd;
}

UFFDWP_EXPORT size_t uffdwp_snapshot_text(struct uffdwp_snapshot *snapshot, char *buffer, size_t size)
{
	API_CALL();
	return text_copy(api_is_foreign(snapshot->region->runtime) ? NULL : &snapshot->text, buffer, size);
}

UFFDWP_EXPORT int uffdwp_snapshot_abort(struct uffdwp_snapshot *snapshot)
{
	API_CALL();
	if (api_is_foreign(snapshot->region->runtime))
		return -ECHILD;
	snapshot_abort(snapshot);
	return 0;
}

UFFDWP_EXPORT int uffdwp_snapshot_free(struct uffdwp_snapshot *snapshot)
{
	API_CALL();
	if (!snapshot)
		return 0;
	if (api_is_foreign(snapshot->region->runtime))
		return -ECHILD;
	snapshot_free(snapshot);
	return 0;
}
