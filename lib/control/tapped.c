/* SPDX-License-Identifier: MIT */
/* See tapped.h. */
#include "control/tapped.h"

#include <errno.h>
#include <stdio.h>

#include "fault/tap.h"

#define TAPPED_DEFAULT 1000
#define TAPPED_PER_SECOND_MOST 100000
#define TAPPED_TICK_NS 1000000000ull

/* An unused rate is made up for in so many parts of a second. */
#define TAPPED_SLACK 20

static const char *const tapped_kinds[] = {[TAP_WRITE] = "write", [TAP_READ] = "read", [TAP_EMPTY] = "empty"};

static int tapped_refuse(struct ask *ask, int error, const char *text)
{
	snprintf(ask->text, sizeof(ask->text), "%s", text);
	return error;
}

int tapped_begin(struct tapped *tapped, const struct kernel_ops *k, struct ask *ask)
{
	uint64_t seconds = ask->number[ASK_SECONDS];
	uint64_t per_second = ask->has & ASK_BIT(ASK_PER_SECOND) ? ask->number[ASK_PER_SECOND] : TAPPED_DEFAULT;

	if (!per_second || per_second > TAPPED_PER_SECOND_MOST)
		return tapped_refuse(ask, -EINVAL, "\"per_second\" is 1 to 100000");
	if (ask->has & ASK_BIT(ASK_SECONDS) && (!seconds || seconds > INT32_MAX))
		return tapped_refuse(ask, -EINVAL, "\"seconds\" is 1 to 2^31-1; without it the trace goes on");
	if (tapped->tap >= 0)
		return tapped_refuse(ask, -EBUSY, "a trace of this client runs: connect once more");
	int tap = tap_open(k, ask->number[ASK_REGION]);

	if (tap == -EBUSY)
		return tapped_refuse(ask, tap, "4 traces run: wait until one has ended");
	if (tap < 0)
		return tapped_refuse(ask, tap, "no memory for a trace");
	uint64_t now_ns = kernel_now_ns();

	*tapped = (struct tapped){.tap = tap,
	                          .per_second = per_second,
	                          .until_ns = seconds ? now_ns + seconds * 1000000000 : UINT64_MAX,
	                          .allowed_ns = now_ns,
	                          .tick_ns = now_ns + TAPPED_TICK_NS};
	return 0;
}

void tapped_end(struct tapped *tapped)
{
	if (tapped->tap >= 0)
		tap_close(tapped->tap);
	tapped->tap = -1;
}

static void tapped_allow(struct tapped *tapped, uint64_t now_ns)
{
	uint64_t passed_ns = now_ns - tapped->allowed_ns;
	uint64_t unit_ns = 1000000000 / tapped->per_second;
	uint64_t more = passed_ns / unit_ns;

	tap_allow(tapped->tap, more < tapped->per_second ? more : tapped->per_second,
	          tapped->per_second / TAPPED_SLACK + 1);
	tapped->allowed_ns += more * unit_ns;
}

static void tapped_say_event(struct say *say, const struct tap_event *event)
{
	say_open(say, NULL, '{');
	say_number(say, "v", 1);
	say_text(say, "event", "write");
	say_number(say, "ns", event->ns);
	say_number(say, "region", event->region);
	say_number(say, "offset", event->offset);
	say_address(say, "address", event->address);
	if (event->thread)
		say_number(say, "tid", event->thread);
	else
		say_null(say, "tid");
	say_text(say, "kind", tapped_kinds[event->kind]);
	say_close(say, '}');
	say_line_end(say);
}

static void tapped_say_tick(const struct tapped *tapped, struct say *say, uint64_t now_ns, int is_last)
{
	struct tap_counts counts;

	tap_read_counts(tapped->tap, &counts);
	say_open(say, NULL, '{');
	say_number(say, "v", 1);
	say_text(say, "event", "tick");
	say_number(say, "ns", now_ns);
	say_number(say, "seen", counts.seen);
	say_number(say, "sent", tapped->sent);
	say_number(say, "dropped", counts.dropped + tapped->dropped);
	say_bool(say, "last", is_last);
	say_close(say, '}');
	say_line_end(say);
}

/* A line that has no room (memory) is left out whole. */
static int tapped_is_whole(struct say *say, size_t before)
{
	if (!say->error)
		return 1;
	say_back_to(say, before);
	return 0;
}

void tapped_pass(struct tapped *tapped, struct say *say, size_t waiting, uint64_t now_ns)
{
	size_t begun = say->length;
	int is_last = now_ns >= tapped->until_ns;
	struct tap_event event;

	tapped_allow(tapped, now_ns);
	while (tap_take(tapped->tap, &event)) {
		size_t before = say->length;
		int fits = waiting + (before - begun) < TAPPED_BYTES_MOST;

		if (fits)
			tapped_say_event(say, &event);
		if (fits && tapped_is_whole(say, before))
			tapped->sent++;
		else
			tapped->dropped++;
	}
	if (is_last || now_ns >= tapped->tick_ns) {
		size_t before = say->length;

		if (is_last || waiting < TAPPED_BYTES_MOST)
			tapped_say_tick(tapped, say, now_ns, is_last);
		(void)tapped_is_whole(say, before);
		tapped->tick_ns += TAPPED_TICK_NS;
	}
	if (is_last)
		tapped_end(tapped);
}
