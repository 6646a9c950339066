/* SPDX-License-Identifier: MIT */
/* See meter.h. */
#include "image/meter.h"

#include <string.h>

#include "base/math.h"

#define METER_STEP_BYTES (1ull << 20)

void meter_begin(struct meter *meter, const struct uffdwp_image *image, uint64_t total)
{
	memset(meter, 0, sizeof(*meter));
	meter->callback = image->progress;
	meter->user = image->progress_user;
	meter->total = total;
}

/* By the thread that has `is_reporting`: the one before may have reported as much, or ended the call. */
static void meter_report(struct meter *meter)
{
	if (atomic_load(&meter->answer) || atomic_load(&meter->done) < atomic_load(&meter->due))
		return;

	uint64_t done = math_min_u64(atomic_load(&meter->done), meter->total);
	int answer = meter->callback(meter->user, done, meter->total);

	atomic_store(&meter->due, done + METER_STEP_BYTES);
	if (answer)
		atomic_store(&meter->answer, answer);
}

static int meter_look(struct meter *meter)
{
	int answer = atomic_load(&meter->answer);
	int none = 0;

	if (!meter->callback || answer || atomic_load(&meter->done) < atomic_load(&meter->due))
		return answer;
	if (!atomic_compare_exchange_strong(&meter->is_reporting, &none, 1))
		return 0;
	meter_report(meter);
	atomic_store(&meter->is_reporting, 0);
	return atomic_load(&meter->answer);
}

int meter_add(struct meter *meter, uint64_t bytes)
{
	atomic_fetch_add(&meter->done, bytes);
	return meter_look(meter);
}

int meter_move(struct meter *meter, uint64_t bytes)
{
	if (bytes > atomic_load(&meter->done))
		atomic_store(&meter->done, bytes);
	return meter_look(meter);
}

int meter_end(struct meter *meter)
{
	atomic_store(&meter->done, meter->total);
	atomic_store(&meter->due, 0);
	return meter_look(meter);
}

int meter_was_ended(struct meter *meter, struct text *text)
{
	int answer = atomic_load(&meter->answer);

	if (answer)
		(void)text_fail(text, answer, "the progress callback ended the call with %d", answer);
	return answer != 0;
}
