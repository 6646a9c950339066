/* SPDX-License-Identifier: MIT */
/*
 * A thread that waits for another one sleeps after a while: on a CPU of which it has the priority the other one runs
 * only then. Here the other thread is played by what happens when the waiter sleeps, and never before: a wait that only
 * spins or yields does not end.
 */
#include "kernel/backoff.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "api.h"
#include "chance.h"
#include "fake.h"
#include "fault/audit.h"
#include "fault/fault.h"
#include "fault/handler.h"
#include "fault/pool.h"
#include "image/chain.h"
#include "play.h"
#include "support.h"

#define PAGES 256

static _Atomic unsigned sleeps;
static _Atomic uint64_t longest_ns;
static _Atomic int refuses; /* write(2) is refused until a thread sleeps */
static void (*other)(void); /* the other thread */

static int sleep_and_let_run(const uint32_t *word, uint32_t expected, uint64_t timeout_ns)
{
	(void)word;
	(void)expected;
	if (timeout_ns > atomic_load(&longest_ns)) {
		atomic_store(&longest_ns, timeout_ns);
	}
	atomic_fetch_add(&sleeps, 1);
	atomic_store(&refuses, 0);
	if (other != NULL) {
		other();
	}
	return -ETIMEDOUT;
}

static ssize_t write_or_refuse(int fd, const void *buffer, size_t length)
{
	return atomic_load(&refuses) != 0 ? -EAGAIN : kernel_real.write(fd, buffer, length);
}

/* The real kernel, but for what is played. */
static const struct kernel_ops *played(void (*runs)(void))
{
	static struct kernel_ops table;
	table = kernel_real;
	table.futex_wait = sleep_and_let_run;
	table.write = write_or_refuse;
	other = runs;
	atomic_store(&sleeps, 0);
	return &table;
}

START_TEST(test_wait_spins_then_yields_then_sleeps_up_to_a_millisecond)
{
	const struct kernel_ops *k = played(NULL);
	unsigned turn = 0;
	for (unsigned i = 0; i < BACKOFF_SLEEP; i++) {
		kernel_back_off(k, &turn);
	}
	ck_assert_uint_eq(atomic_load(&sleeps), 0);
	for (unsigned i = 0; i < 100; i++) {
		kernel_back_off(k, &turn);
	}
	ck_assert_uint_eq(atomic_load(&sleeps), 100);
	ck_assert_uint_gt(atomic_load(&longest_ns), 100000);
	ck_assert_uint_le(atomic_load(&longest_ns), 1000000);
}
END_TEST

/* --- a slot whose cell a taker has not left --------------------------------------------------------------------- */

static struct pool pool;

static void taker_goes_on(void)
{
	uint32_t ignored;
	must(ring_pop(&pool.free, &ignored));
}

START_TEST(test_slot_is_given_back_when_its_taker_has_gone_on)
{
	static struct ring_cell cells[2];
	pool.k = played(taker_goes_on);
	ring_init(&pool.free, cells, 2);
	must(ring_push(&pool.free, 0) && ring_push(&pool.free, 1));
	pool_give(&pool, 0);
	ck_assert_uint_eq(atomic_load(&sleeps), 1);
}
END_TEST

/* --- a decompressor that another reader has --------------------------------------------------------------------- */

static struct uffdwp_image image;

static void reader_is_done(void)
{
	unpacker_give(&image, &image.unpackers[0]);
}

START_TEST(test_decompressor_is_taken_when_its_user_is_done)
{
	image.k = played(reader_is_done);
	image.unpacker_count = 1;
	ck_assert_ptr_eq(unpacker_take(&image), &image.unpackers[0]);
	ck_assert_ptr_eq(unpacker_take(&image), &image.unpackers[0]);
	ck_assert_uint_eq(atomic_load(&sleeps), 1);
}
END_TEST

/* --- a region that is being moved --------------------------------------------------------------------------------- */

static struct uffdwp_region moving;

static void handler_takes_the_event(void)
{
	atomic_store(&moving.base, 4096);
}

START_TEST(test_region_has_moved_when_the_handler_has_run)
{
	moving.k = played(handler_takes_the_event);
	/* An event was read: then it is waited for, however long the processor is another's. */
	moving.uffd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	atomic_store(&moving.events_in_hand, 1);
	ck_assert_int_eq(region_has_moved(&moving, 0), 1);
	ck_assert_uint_eq(atomic_load(&sleeps), 1);
	close(moving.uffd);
}
END_TEST

/* --- an eventfd that takes nothing for a while ---------------------------------------------------------------------
 */

START_TEST(test_handler_is_asked_again_until_it_can_be)
{
	const struct handler_place anywhere = {.node = -1};
	struct handler *handler = NULL;
	ck_assert_int_eq(handler_start(played(NULL), &anywhere, &handler), 0);
	atomic_store(&refuses, 1);
	handler_sync(handler);
	ck_assert_uint_eq(atomic_load(&sleeps), 1);
	handler_stop(handler);
}
END_TEST

/* --- on the fake kernel ----------------------------------------------------------------------------------------- */

static _Atomic int64_t claimed = -1; /* a page that another thread has claimed and not copied */

/* Once a snapshot: when the sweep unprotects its first pages. */
static void claim_one(void *user, uint64_t start, uint64_t length)
{
	int64_t page = (int64_t)((start - (uint64_t)(uintptr_t)stage.base) / STAGE_PAGE);
	(void)user;
	(void)length;
	if (atomic_load(&sleeps) == 0 && atomic_load(&claimed) < 0) {
		page = page < PAGES / 2 ? PAGES - 1 : 0;
		must(ledger_move(&stage.region->ledger, (uint64_t)page, LEDGER_ARMED, LEDGER_CLAIMED));
		atomic_store(&claimed, page);
	}
}

static void claimant_gives_it_back(void *user)
{
	int64_t page = atomic_exchange(&claimed, -1);
	(void)user;
	if (page >= 0) {
		atomic_fetch_add(&sleeps, 1);
		ledger_set(&stage.region->ledger, (uint64_t)page, LEDGER_ARMED);
	}
}

START_TEST(test_sweep_sleeps_until_a_claimant_is_done)
{
	const struct fake_hooks hooks = {.disarming = claim_one, .sleeping = claimant_gives_it_back};
	play_open_case(_i, PAGES);
	struct uffdwp_snapshot_options options = stage_options(&stage, 64);
	memcpy(stage.cut, stage.base, stage.length_bytes);
	atomic_store(&sleeps, 0);
	fake_hook(&hooks);
	ck_assert_int_eq(stage_begin(&stage, &options), 0);
	while (uffdwp_snapshot_wait(stage.snapshot, 0, NULL) == -ETIMEDOUT) { /* 0: it does not sleep itself */
		sleep_us(1000);
	}
	fake_hook(NULL);
	ck_assert_uint_eq(atomic_load(&sleeps), 1);
	ck_assert_int_eq(stage_end(&stage, NULL), 0);
	ck_assert_mem_eq(stage.image, stage.cut, stage.length_bytes);
	play_close_case();
}
END_TEST

START_TEST(test_handler_sleeps_until_the_owner_of_an_event_has_run)
{
	struct writer writer;
	play_open_case(_i, PAGES);
	ck_assert_int_eq(uffdwp_region_arm(stage.region, 0, stage.length_bytes), 0);
	fake_again_until_sleep();
	play_writer_start(&writer, 5, 6, 1, 0);
	play_writer_ends(&writer);
	play_close_case();
}
END_TEST

START_TEST(test_audit_sleeps_until_the_owner_of_an_event_has_run)
{
	struct uffdwp_audit found = {.sz = sizeof(found)};
	play_open_case(_i, PAGES);
	ck_assert_int_eq(uffdwp_region_arm(stage.region, 0, stage.length_bytes), 0);
	ck_assert_int_eq(uffdwp_region_audit(stage.region, &found), 0); /* the first looks what this kernel shows */
	fake_strip(stage.base + 5 * STAGE_PAGE);
	fake_again_until_sleep();
	ck_assert_int_eq(uffdwp_region_audit(stage.region, &found), 0);
	ck_assert_uint_eq(found.pages_rearmed, 1);
	play_close_case();
}
END_TEST

#define CASES(test) tcase_add_loop_test(tests, test, 0, STAGE_CASES)

int main(void)
{
	support_begin("test_backoff", &(struct support_needs){0, 0});
	Suite *suite = suite_create("backoff");
	TCase *tests = tcase_create("backoff");
	tcase_set_timeout(tests, 4 * PLAY_TIME_LIMIT_S);
	tcase_add_test(tests, test_wait_spins_then_yields_then_sleeps_up_to_a_millisecond);
	tcase_add_test(tests, test_slot_is_given_back_when_its_taker_has_gone_on);
	tcase_add_test(tests, test_decompressor_is_taken_when_its_user_is_done);
	tcase_add_test(tests, test_region_has_moved_when_the_handler_has_run);
	tcase_add_test(tests, test_handler_is_asked_again_until_it_can_be);
	CASES(test_sweep_sleeps_until_a_claimant_is_done);
	CASES(test_handler_sleeps_until_the_owner_of_an_event_has_run);
	CASES(test_audit_sleeps_until_the_owner_of_an_event_has_run);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
