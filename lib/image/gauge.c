/* SPDX-License-Identifier: MIT */
/* See gauge.h. */
#include "image/gauge.h"

#include <string.h>

#include "base/math.h"

#define GAUGE_STEP_BYTES (1ull << 20)

void gauge_begin(struct gauge *gauge, const struct uffdwp_image *image, uint64_t total)
{
	memset(gauge, 0, sizeof(*gauge));
	gauge->callback = image->progress;
	gauge->user = image->progress_user;
	gauge->total = total;
}

/* By the thread that has `is_reporting`: the one before may have reported as much, or ended the call. */
static void gauge_report(struct gauge *gauge)
{
	if (atomic_load(&gauge->answer) || atomic_load(&gauge->done) < atomic_load(&gauge->due))
		return;

	uint64_t done = math_min_u64(atomic_load(&gauge->done), gauge->total);
	int answer = gauge->callback(gauge->user, done, gauge->total);

	atomic_store(&gauge->due, done + GAUGE_STEP_BYTES);
	if (answer)
		atomic_store(&gauge->answer, answer);
}

static int gauge_look(struct gauge *gauge)
{
	int answer = atomic_load(&gauge->answer);
	int none = 0;

	if (!gauge->callback || answer || atomic_load(&gauge->done) < atomic_load(&gauge->due))
		return answer;
	if (!atomic_compare_exchange_strong(&gauge->is_reporting, &none, 1))
		return 0;
	gauge_report(gauge);
	atomic_store(&gauge->is_reporting, 0);
	return atomic_load(&gauge->answer);
}

int gauge_add(struct gauge *gauge, uint64_t bytes)
{
	atomic_fetch_add(&gauge->done, bytes);
	return gauge_look(gauge);
}

int gauge_move(struct gauge *gauge, uint64_t bytes)
{
	if (bytes > atomic_load(&gauge->done))
		atomic_store(&gauge->done, bytes);
	return gauge_look(gauge);
}

int gauge_end(struct gauge *gauge)
{
	atomic_store(&gauge->done, gauge->total);
	atomic_store(&gauge->due, 0);
	return gauge_look(gauge);
}

int gauge_was_ended(struct gauge *gauge, struct text *text)
{
	int answer = atomic_load(&gauge->answer);

	if (answer)
		(void)text_fail(text, answer, "the progress callback ended the call with %d", answer);
	return answer != 0;
}
