/* SPDX-License-Identifier: MIT */
/*
 * The only exporter, with api_region.c and api_snapshot.c: checks every argument and state, then calls. The logic below
 * never checks again. What can be refused is refused here before anything moves, with a text that says what to do.
 *
 * Threads: as uffdwp.h says. The slow calls on a region take its lock here.
 */
#include "api_private.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "api.h"
#include "kernel/probe.h"

#define TEXT_OF_VERSION(major, minor, patch) #major "." #minor "." #patch
#define VERSION_TEXT(major, minor, patch) TEXT_OF_VERSION(major, minor, patch)

/* The smallest structure that was ever released: what a caller's sz must reach. */
#define OPTIONS_SZ_MIN sizeof(struct uffdwp_options)

/* Why uffdwp_open() or uffdwp_probe() failed in this thread. */
static _Thread_local struct text thread_text = {.lock = PTHREAD_MUTEX_INITIALIZER};

struct text *api_thread_text(void)
{
	return &thread_text;
}

UFFDWP_EXPORT const char *uffdwp_version(void)
{
	return VERSION_TEXT(UFFDWP_VERSION_MAJOR, UFFDWP_VERSION_MINOR, UFFDWP_VERSION_PATCH);
}

/* Copies a caller's structure of whatever age over `out`, which holds the defaults. */
int api_take_options(struct text *text, const void *given, size_t least, void *out, size_t ours)
{
	size_t sz;

	if (!given)
		return 0;
	memcpy(&sz, given, sizeof(sz));
	if (sz < least)
		return text_fail(text, -EINVAL, "the options' sz is %zu, at least %zu is needed: use the *_INIT macro",
		                 sz, least);
	if (sz > 4096)
		return text_fail(text, -E2BIG, "the options' sz is %zu: not a size of options", sz);
	for (size_t i = ours; i < sz; i++) {
		if (((const unsigned char *)given)[i])
			return text_fail(text, -E2BIG,
			                 "the options hold something that this version (%s) does not know",
			                 uffdwp_version());
	}
	memcpy(out, given, sz < ours ? sz : ours);
	memcpy(out, &ours, sizeof(ours));
	return 0;
}

/* The part of an answer that the caller has room for, his sz left as it is. */
int api_give_answer(void *to, size_t least, const void *answer, size_t ours)
{
	size_t sz;

	memcpy(&sz, to, sizeof(sz));
	if (sz < least)
		return -EINVAL;
	memcpy((unsigned char *)to + sizeof(sz), (const unsigned char *)answer + sizeof(sz),
	       (sz < ours ? sz : ours) - sizeof(sz));
	return 0;
}

int api_unknown_flags(struct text *text, uint32_t flags, uint32_t known, uint32_t reserved)
{
	if (flags & ~known)
		return text_fail(text, -EINVAL, "unknown flags %#x", (unsigned)(flags & ~known));
	if (reserved)
		return text_fail(text, -EINVAL, "reserved must be 0");
	return 0;
}

/* ---- runtime ---- */

int api_open(const struct kernel_ops *k, const struct uffdwp_options *given, struct uffdwp **out)
{
	struct uffdwp_options options = UFFDWP_OPTIONS_INIT;
	struct text *text = &thread_text;

	if (!out)
		return text_fail(text, -EINVAL, "out is NULL");
	int error = api_take_options(text, given, OPTIONS_SZ_MIN, &options, sizeof(options));

	if (!error)
		error = api_unknown_flags(text, options.flags, UFFDWP_OPEN_NO_URING | UFFDWP_OPEN_USER_MODE,
		                          options.reserved);
	if (!error && options.handler_threads > RUNTIME_HANDLERS_MAX)
		error = text_fail(text, -EINVAL, "handler_threads is %u, at most %d", (unsigned)options.handler_threads,
		                  RUNTIME_HANDLERS_MAX);
	if (!error && options.numa_node < -1)
		error = text_fail(text, -EINVAL, "numa_node is %d; -1 means any", (int)options.numa_node);
	return error ? error : runtime_open(k, &options, text, out);
}

UFFDWP_EXPORT int uffdwp_open(const struct uffdwp_options *options, struct uffdwp **out)
{
	return api_open(&kernel_real, options, out);
}

/* A child of fork() has the handles, but none of the threads and none of the registrations. */
int api_is_foreign(const struct uffdwp *runtime)
{
	return runtime->process != getpid();
}

UFFDWP_EXPORT int uffdwp_close(struct uffdwp *runtime)
{
	if (!runtime)
		return 0;
	return api_is_foreign(runtime) ? -ECHILD : runtime_close(runtime);
}

UFFDWP_EXPORT size_t uffdwp_error_text(struct uffdwp *runtime, char *buffer, size_t size)
{
	return text_copy(runtime ? &runtime->text : &thread_text, buffer, size);
}

UFFDWP_EXPORT int uffdwp_probe(struct uffdwp_probe_report *report)
{
	struct uffdwp_probe_report answer = {.sz = sizeof(answer)};

	if (!report || report->sz < sizeof(answer))
		return text_fail(&thread_text, -EINVAL, "the report's sz is too small");
	int error = probe_run(&kernel_real, &answer);

	if (error)
		return text_fail(&thread_text, error, "the probe failed: %s", strerror(-error));
	return api_give_answer(report, sizeof(answer), &answer, sizeof(answer));
}
