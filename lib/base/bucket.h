/* SPDX-License-Identifier: MIT */
/*
 * A token bucket, for a bound on bytes per second, kept as the moment from which on the next bytes may go: a thread
 * that sends `bytes` moves it by the time that they take at the rate. No thread is refused; a thread that does not wait
 * is late for longer. What was not used in the last BUCKET_SLACK_NS may be made up for, what was not used before is
 * lost.
 *
 * So a thread that always waits sends in any stretch of T ns <= rate x (T + BUCKET_SLACK_NS), plus one piece.
 *
 * Threads: one at a time. The clock is the caller's.
 */
#ifndef UFFDWP_BASE_BUCKET_H
#define UFFDWP_BASE_BUCKET_H

#include <stdint.h>

#define BUCKET_SLACK_NS 100000000ull

struct bucket {
	uint64_t rate_bytes; /* per second; 0: no bound */
	uint64_t due_ns;     /* when the next bytes may go */
};

static inline void bucket_init(struct bucket *bucket, uint64_t rate_bytes)
{
	bucket->rate_bytes = rate_bytes;
	bucket->due_ns = 0;
}

/* How long to wait before something is sent; 0: not at all. */
static inline uint64_t bucket_wait_ns(const struct bucket *bucket, uint64_t now_ns)
{
	return bucket->due_ns > now_ns ? bucket->due_ns - now_ns : 0;
}

/* `bytes` are sent now. A time beyond that of the clock's numbers is their last. */
static inline void bucket_take(struct bucket *bucket, uint64_t bytes, uint64_t now_ns)
{
	uint64_t earliest_ns = now_ns > BUCKET_SLACK_NS ? now_ns - BUCKET_SLACK_NS : 0;
	uint64_t takes;

	if (!bucket->rate_bytes)
		return;
	if (bucket->due_ns < earliest_ns)
		bucket->due_ns = earliest_ns;
	if (__builtin_mul_overflow(bytes, 1000000000ull, &takes))
		takes = UINT64_MAX;
	if (__builtin_add_overflow(bucket->due_ns, takes / bucket->rate_bytes, &bucket->due_ns))
		bucket->due_ns = UINT64_MAX;
}

#endif
