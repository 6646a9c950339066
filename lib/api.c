/* SPDX-License-Identifier: MIT */
/*
 * The exporters are this file and api_*.c: they check every argument and state, then call. The logic below never checks
 * again. What can be refused is refused here before anything moves, with a text that says what to do. The rule and the
 * shared functions are in api_private.h.
 *
 * Threads: as uffdwp.h says.
 */
#include "api_private.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/trace.h"
#include "control/ask.h"
#include "image/pack.h"
#include "kernel/nodes.h"
#include "kernel/process.h"
#include "snapshot/nbdlink.h"

#define TEXT_OF_VERSION(major, minor, patch) #major "." #minor "." #patch
#define VERSION_TEXT(major, minor, patch) TEXT_OF_VERSION(major, minor, patch)

UFFDWP_EXPORT const char *uffdwp_version(void)
{
	return VERSION_TEXT(UFFDWP_VERSION_MAJOR, UFFDWP_VERSION_MINOR, UFFDWP_VERSION_PATCH);
}

UFFDWP_EXPORT uint32_t uffdwp_built(void)
{
	return UFFDWP_BUILT_URING | (pack_built() ? UFFDWP_BUILT_ZSTD : 0) | (nodes_built() ? UFFDWP_BUILT_NUMA : 0) |
	       (nbdlink_built() ? UFFDWP_BUILT_NBD : 0) | (ask_built() ? UFFDWP_BUILT_CONTROL : 0);
}

/* Copies a caller's structure of whatever age over `out`, which holds the defaults. */
int api_take_options(struct text *text, const void *given, void *out, size_t ours)
{
	size_t sz;

	if (!given)
		return 0;
	memcpy(&sz, given, sizeof(sz));
	if (sz < API_SZ_LEAST)
		return text_fail(text, -EINVAL, "the options' sz is %zu, at least %d is needed: use the *_INIT macro",
		                 sz, API_SZ_LEAST);
	if (sz % sizeof(void *)) /* no age of them ends inside of a pointer, half of which would be taken */
		return text_fail(text, -EINVAL, "the options' sz is %zu, which is no structure's: use sizeof", sz);
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

int api_check_answer(struct text *text, const void *to, const char *what)
{
	size_t sz = 0;

	if (to)
		memcpy(&sz, to, sizeof(sz));
	if (!to)
		return text_fail(text, -EINVAL, "%s is NULL", what);
	if (sz < API_SZ_LEAST)
		return text_fail(text, -EINVAL, "the sz of %s is %zu, at least %d is needed: set it to sizeof", what,
		                 sz, API_SZ_LEAST);
	return 0;
}

/* The part of an answer that the caller has room for; the caller's sz is left as it is. */
void api_give_answer(void *to, const void *answer, size_t ours)
{
	size_t sz;

	memcpy(&sz, to, sizeof(sz));
	memcpy((unsigned char *)to + sizeof(sz), (const unsigned char *)answer + sizeof(sz),
	       (sz < ours ? sz : ours) - sizeof(sz));
}

int api_unknown_flags(struct text *text, const char *call, uint32_t flags, uint32_t known, uint32_t reserved)
{
	if (flags & ~known)
		return text_fail(text, -EINVAL,
		                 "%s() takes no flag %#x: a flag belongs to the call that its name has "
		                 "(UFFDWP_<NOUN>_<CALL>_...)",
		                 call, (unsigned)(flags & ~known));
	if (reserved)
		return text_fail(text, -EINVAL, "reserved must be 0");
	return 0;
}

int api_check_mode(struct text *text, uint32_t mode)
{
	return mode & ~0777u ? text_fail(text, -EINVAL, "mode %#o has more than permission bits (0777)", (unsigned)mode)
	                     : 0;
}

int api_is_child(const struct uffdwp *runtime)
{
	return runtime->process != getpid() || runtime->process_number != process_number();
}

int api_is_foreign(const struct uffdwp *runtime)
{
	if (!api_is_child(runtime))
		return 0;
	text_fail(NULL, -ECHILD,
	          "this is a child of fork(), and the handle is its parent's: open a runtime of its own");
	return 1;
}

UFFDWP_EXPORT int uffdwp_log_to(uffdwp_log_fn log, void *user)
{
	API_CALL();
	trace_to(log, user);
	return 0;
}

UFFDWP_EXPORT size_t uffdwp_error_text(char *buffer, size_t size)
{
	return text_copy(NULL, buffer, size);
}
