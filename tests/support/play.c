/* SPDX-License-Identifier: MIT */
/* See play.h. */
#include "play.h"

#include <stdatomic.h>
#include <string.h>

#include "fake.h"
#include "region/region.h"
#include "support.h"

struct stage stage;
struct gate play_sink = GATE_INIT;
struct gate play_step = GATE_INIT;

void play_stop(void *user)
{
	(void)user;
	gate_pass(&play_step);
}

/* --- writers ---------------------------------------------------------------------------------------------------- */

static void *write_pages(void *argument)
{
	struct writer *writer = argument;
	for (size_t page = writer->from; page < writer->to; page++) {
		if (writer->prepares) {
			must(uffdwp_prepare_write(stage.region, page * STAGE_PAGE, STAGE_PAGE) == 0);
			writer->still_armed += fake_is_armed(stage.base + page * STAGE_PAGE);
		}
		stage_write(&stage, page, writer->value);
	}
	atomic_store(&writer->done, 1);
	return NULL;
}

void play_writer_start(struct writer *writer, size_t from, size_t to, uint8_t value, int prepares)
{
	memset(writer, 0, sizeof(*writer));
	writer->from = from;
	writer->to = to;
	writer->value = value;
	writer->prepares = prepares;
	writer->thread = thread_start(write_pages, writer);
}

int play_is_done(void *writer)
{
	return atomic_load(&((struct writer *)writer)->done);
}

void play_writer_ends(struct writer *writer)
{
	must(wait_until(play_is_done, writer, PLAY_TIME_LIMIT_S));
	thread_join(writer->thread);
}

int play_writer_starves(void *ignored)
{
	(void)ignored;
	struct uffdwp_snapshot_progress progress = {.sz = sizeof(progress)};
	must(uffdwp_snapshot_poll(stage.snapshot, &progress) == 0);
	return progress.waits > 0;
}

/* --- snapshots -------------------------------------------------------------------------------------------------- */

void play_open_case(int which, size_t pages)
{
	play_step = (struct gate)GATE_INIT;
	stage_open(&stage, which, pages);
}

void play_close_case(void)
{
	fake_hook(NULL);
	stage_close(&stage);
}

enum ledger_state play_state_of(size_t page)
{
	return ledger_get(&stage.region->ledger, page);
}

/* The chunk that the sweep has taken lies at one end of the region. */
static void find_armed(void)
{
	stage.first = 0;
	stage.end = stage.pages;
	while (stage.first < stage.end && play_state_of(stage.first) != LEDGER_ARMED) {
		stage.first++;
	}
	while (stage.first < stage.end && play_state_of(stage.end - 1) != LEDGER_ARMED) {
		stage.end--;
	}
	ck_assert_uint_ge(stage.end - stage.first, stage.pages / 2);
}

void *play_begin(void *options)
{
	must(stage_begin(&stage, options) == 0);
	return NULL;
}

void play_begin_held(const struct uffdwp_snapshot_options *options)
{
	play_sink = (struct gate)GATE_INIT;
	stage.gate = &play_sink;
	memcpy(stage.cut, stage.base, stage.length_bytes);
	ck_assert_int_eq(stage_begin(&stage, options), 0);
	gate_await(&play_sink);
	find_armed();
}

void play_end_well(struct uffdwp_snapshot_progress *progress)
{
	gate_open(&play_sink);
	progress->sz = sizeof(*progress);
	ck_assert_int_eq(stage_end(&stage, progress), 0);
	ck_assert(memcmp(stage.image, stage.cut, stage.length_bytes) == 0);
	ck_assert_uint_eq(stage_wp_bits(&stage), 0);
}

void play_end_badly(int error)
{
	struct uffdwp_snapshot_progress progress;
	struct uffdwp_snapshot_options options = stage_options(&stage, 128);
	gate_open(&play_sink);
	ck_assert_int_eq(stage_end(&stage, NULL), error);
	ck_assert_uint_eq(stage_wp_bits(&stage), 0);
	memcpy(stage.cut, stage.base, stage.length_bytes);
	ck_assert_int_eq(stage_begin(&stage, &options), 0);
	play_end_well(&progress);
}

uint64_t play_armed_pages(void)
{
	uint64_t armed = UINT64_MAX;
	must(uffdwp_region_armed(stage.region, 0, stage.length_bytes, &armed) == 0);
	return armed;
}

/* A handler counts when its writer may have gone on already. */
static int counted(void *faults)
{
	return stage_stats(&stage).faults >= *(uint64_t *)faults;
}

void play_expect_faults(uint64_t faults)
{
	must(wait_until(counted, &faults, PLAY_TIME_LIMIT_S));
	ck_assert_uint_eq(stage_stats(&stage).faults, faults);
}
