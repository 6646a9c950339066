/* SPDX-License-Identifier: MIT */
/*
 * What the exporting files share: how structures of callers are taken and given.
 *
 * The rule of api.c and api_*.c: a public function checks its arguments and the state of its handle, makes one call,
 * and hands its answer over. Logic (a loop that is no check, a lock, an epoch, blocked signals, a protocol of several
 * steps) belongs to the module that it is about, and what is only true under a lock is checked by the function that
 * takes the lock. tests/check-layers.sh finds what breaks the rule.
 */
#ifndef UFFDWP_API_PRIVATE_H
#define UFFDWP_API_PRIVATE_H

#include <stddef.h>
#include <stdint.h>

#include "base/cancel.h"
#include "base/text.h"
#include "fault/runtime.h"
#include "uffdwp.h"

/* First in each exported function that may meet a cancellation point: no thread is cancelled inside of the library
 * (base/cancel.h). tests/unit/test_api_calls.sh finds one that lacks it. */
#define API_CALL() CANCEL_DISABLED()

/* The smallest sz that is taken, of options and of answers of any age: sz itself and the fields beside it. A number,
 * never the size of today's structure, which grows; tests/abi freezes it. */
#define API_SZ_LEAST 16

/* Copies a caller's structure of whatever age over `out`, which holds the defaults. -EINVAL, -E2BIG. */
int api_take_options(struct text *text, const void *given, void *out, size_t ours);

/* The options of a region, of whatever call: without a descriptor fd is -1. -EINVAL, -E2BIG. */
int api_region_take_options(struct region_plan *plan, const struct uffdwp_region_options *given);

/* 0 where `to` can take an answer of some age; `what` names it in the text. -EINVAL. */
int api_check_answer(struct text *text, const void *to, const char *what);

/* Fills `to`, which was checked, as far as its sz goes; sz is left as it is. */
void api_give_answer(void *to, const void *answer, size_t ours);

/* -EINVAL for a flag that `call` does not take, or a reserved word that is not 0. */
int api_unknown_flags(struct text *text, const char *call, uint32_t flags, uint32_t known, uint32_t reserved);

/* -EINVAL for a level that zstd has not, or for any where nothing is compressed; -EOPNOTSUPP: built without zstd. */
int api_check_compress(struct text *text, uint32_t compress, int is_delta);

/* -EINVAL for what are no permission bits. */
int api_check_mode(struct text *text, uint32_t mode);

/* A child of fork() has the handles, but none of the threads and none of the registrations; and its copies of the
 * uffds reach its parent's page tables. Async-signal-safe. */
int api_is_child(const struct uffdwp *runtime);

/* The same, and forms the text of -ECHILD. */
int api_is_foreign(const struct uffdwp *runtime);

#endif
