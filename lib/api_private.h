/* SPDX-License-Identifier: MIT */
/* What the exporting files share: how structures of callers are taken and given. */
#ifndef UFFDWP_API_PRIVATE_H
#define UFFDWP_API_PRIVATE_H

#include <stddef.h>
#include <stdint.h>

#include "base/text.h"
#include "fault/runtime.h"
#include "uffdwp.h"

/* The text of calls of this thread that have no handle. */
struct text *api_thread_text(void);

/* Copies a caller's structure of whatever age over `out`, which holds the defaults. -EINVAL, -E2BIG. */
int api_take_options(struct text *text, const void *given, size_t least, void *out, size_t ours);

/* The part of an answer that the caller has room for, his sz left as it is. -EINVAL. */
int api_give_answer(void *to, size_t least, const void *answer, size_t ours);

/* -EINVAL for a flag that is not known, or a reserved word that is not 0. */
int api_unknown_flags(struct text *text, uint32_t flags, uint32_t known, uint32_t reserved);

/* -EINVAL for a level that zstd has not, or for any where nothing is compressed. */
int api_check_compress(struct text *text, uint32_t compress, int is_delta);

/* A child of fork() has the handles, but none of the threads and none of the registrations. */
int api_is_foreign(const struct uffdwp *runtime);

#endif
