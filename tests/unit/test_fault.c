/* SPDX-License-Identifier: MIT */
/*
 * The fault path on a fake kernel (fake.h), where every step between a wp bit and a store can be stopped: which thread
 * claims a page, which may clear a wp bit, how much a fault takes along, what is refused, and what was promised. Which
 * thread is woken by what is in test_wake.c.
 */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "chance.h"
#include "fake.h"
#include "fault/fault.h"
#include "fault/fill.h"
#include "play.h"
#include "support.h"

#define PAGES 256

/* --- one fault -------------------------------------------------------------------------------------------------- */

START_TEST(test_write_to_an_armed_page_faults_once)
{
	play_open_case(_i, PAGES);
	ck_assert_int_eq(uffdwp_region_arm(stage.region, 8 * STAGE_PAGE, 4 * STAGE_PAGE), 0);
	ck_assert_uint_eq(stage_wp_bits(&stage), 4);
	for (unsigned round = 0; round < 2; round++) {
		stage_write(&stage, 9, 1);
		stage_write(&stage, 200, 1);
		play_expect_faults(1);
		ck_assert_uint_eq(stage_stats(&stage).pages_disarmed, 1);
		ck_assert_uint_eq(play_armed_pages(), 3);
		ck_assert_uint_eq(stage_wp_bits(&stage), 3);
	}
	ck_assert_int_eq(uffdwp_region_disarm(stage.region, 0, stage.length_bytes), 0);
	ck_assert_uint_eq(stage_wp_bits(&stage), 0);
	play_close_case();
}
END_TEST

/* INV-CLAIM: whichever threads try, each page is saved once, and comes to the sink once. */
START_TEST(test_one_claimant_saves_the_page)
{
	struct writer writers[5];
	struct uffdwp_snapshot_progress progress;
	play_open_case(_i, PAGES);
	for (unsigned round = 0; round < 8; round++) {
		struct uffdwp_snapshot_options options = stage_options(&stage, 512);
		play_begin_held(&options);
		for (unsigned i = 0; i < 5; i++) {
			play_writer_start(&writers[i], 0, PAGES, (uint8_t)i, i > 2);
		}
		gate_open(&play_sink);
		for (unsigned i = 0; i < 5; i++) {
			play_writer_ends(&writers[i]);
		}
		play_end_well(&progress);
		ck_assert_uint_eq(progress.pages_total, PAGES);
		ck_assert_uint_eq(progress.pages_fault + progress.pages_prepare + progress.pages_sweep, PAGES);
		for (size_t page = 0; page < PAGES; page++) {
			ck_assert_uint_eq(stage.came[page], 1);
		}
	}
	play_close_case();
}
END_TEST

static _Atomic int stop_next_disarm;

static void stop_at_disarm(void *user, uint64_t start, uint64_t length)
{
	(void)user;
	(void)start;
	(void)length;
	if (atomic_exchange(&stop_next_disarm, 0)) {
		gate_pass(&play_step);
	}
}

/* A claimant that has saved a page and is stopped right before it clears the wp bit. */
static size_t stop_claimant(struct writer *claimant)
{
	static const struct fake_hooks hooks = {.disarming = stop_at_disarm};
	struct uffdwp_snapshot_options options = stage_options(&stage, 512);
	play_begin_held(&options);
	atomic_store(&stop_next_disarm, 1);
	fake_hook(&hooks);
	play_writer_start(claimant, stage.first + 20, stage.first + 21, 1, 1);
	gate_await(&play_step);
	ck_assert(fake_is_armed(stage.base + (stage.first + 20) * STAGE_PAGE));
	return stage.first + 20;
}

/* INV-IDEMPOTENT: the claimant sleeps, another writer clears the wp bit in its place, and nothing is lost by both. */
START_TEST(test_saved_page_may_be_disarmed_by_any_thread)
{
	struct writer claimant;
	struct writer other;
	struct uffdwp_snapshot_progress progress;
	play_open_case(_i, PAGES);
	size_t page = stop_claimant(&claimant);
	ck_assert_int_eq(play_state_of(page), LEDGER_SAVED);
	play_writer_start(&other, page, page + 1, 2, 0);
	play_writer_ends(&other);
	ck_assert(stage_holds(&stage, page, 2));
	ck_assert(!play_is_done(&claimant));
	gate_open(&play_step);
	play_writer_ends(&claimant);
	ck_assert(stage_holds(&stage, page, 1));
	play_end_well(&progress);
	ck_assert_uint_eq(progress.pages_fault + progress.pages_prepare, 1);
	play_close_case();
}
END_TEST

/* --- INV-SAFE --------------------------------------------------------------------------------------------------- */

static _Atomic int slots_are_still; /* the sweep is stopped: no thread takes a pre-image out of its slot */
static _Atomic unsigned slots_checked;

/* A page that loses its wp bit now: its bytes are ours, and they are those of the cut. */
static void check_page_unprotected(size_t page)
{
	const struct preserve *preserve = atomic_load(&stage.region->preserve);
	enum ledger_state state = play_state_of(page);
	must(state != LEDGER_ARMED && state != LEDGER_CLAIMED);
	int has_slot = state == LEDGER_SAVED || state == LEDGER_OPEN;
	if (!has_slot || !atomic_load(&slots_are_still)) {
		return;
	}
	const unsigned char *slot = pool_slot(&preserve->pool, atomic_load(&preserve->slot_of[page]));
	must(memcmp(slot, stage.cut + page * STAGE_PAGE, STAGE_PAGE) == 0);
	atomic_fetch_add(&slots_checked, 1);
}

static void check_unprotected(void *user, uint64_t start, uint64_t length)
{
	(void)user;
	size_t from = (size_t)(start - (uintptr_t)stage.base) / STAGE_PAGE;
	for (size_t page = from; page < from + length / STAGE_PAGE; page++) {
		if (fake_is_armed(stage.base + page * STAGE_PAGE)) {
			check_page_unprotected(page);
		}
	}
}

static void write_prepare_and_punch(struct chance *chance, unsigned times)
{
	for (unsigned i = 0; i < times; i++) {
		size_t page = stage.first + chance_below(chance, stage.end - stage.first - 8);
		size_t kind = chance_below(chance, 8);
		if (kind == 0) {
			must(uffdwp_region_punch(stage.region, page * STAGE_PAGE, 8 * STAGE_PAGE) == 0);
		} else if (kind == 1) {
			must(uffdwp_prepare_write(stage.region, page * STAGE_PAGE + 1, 8 * STAGE_PAGE) == 0);
		} else {
			stage_write(&stage, page, (uint8_t)i);
		}
	}
}

START_TEST(test_page_is_unprotected_only_when_its_bytes_are_ours)
{
	static const struct fake_hooks hooks = {.disarming = check_unprotected};
	struct chance chance = chance_new(3);
	struct uffdwp_snapshot_progress progress;
	struct writer others[2];
	play_open_case(_i, PAGES);
	struct uffdwp_snapshot_options options = stage_options(&stage, 512);
	play_begin_held(&options);
	atomic_store(&slots_are_still, 1);
	fake_hook(&hooks);
	play_writer_start(&others[0], stage.first, stage.end, 1, 0);
	play_writer_start(&others[1], stage.first, stage.end, 2, 1);
	write_prepare_and_punch(&chance, 200);
	play_writer_ends(&others[0]);
	play_writer_ends(&others[1]);
	ck_assert_uint_ge(atomic_load(&slots_checked), PAGES / 2);
	atomic_store(&slots_are_still, 0);
	play_end_well(&progress);
	play_close_case();
}
END_TEST

/* --- content that goes ------------------------------------------------------------------------------------------ */

START_TEST(test_content_discarded_outside_ends_the_snapshot)
{
	char text[256] = "";
	char range[64];
	play_open_case(_i, PAGES);
	struct uffdwp_snapshot_options options = stage_options(&stage, 512);
	play_begin_held(&options);
	ck_assert_int_eq(
	        fake_kernel()->madvise(stage.base + (stage.first + 20) * STAGE_PAGE, STAGE_PAGE, MADV_DONTNEED), 0);
	gate_open(&play_sink);
	ck_assert_int_eq(uffdwp_snapshot_wait(stage.snapshot, -1, NULL), -ENODATA);
	(void)uffdwp_snapshot_text(stage.snapshot, text, sizeof(text));
	(void)snprintf(range, sizeof(range), "[%zu, %zu)", (stage.first + 20) * STAGE_PAGE,
	               (stage.first + 21) * STAGE_PAGE);
	ck_assert_ptr_nonnull(strstr(text, range));
	play_end_badly(-ENODATA);
	play_close_case();
}
END_TEST

START_TEST(test_punched_pages_are_in_the_image)
{
	struct uffdwp_snapshot_progress progress;
	uint8_t zeros[STAGE_PAGE] = {0};
	play_open_case(_i, PAGES);
	struct uffdwp_snapshot_options options = stage_options(&stage, 512);
	play_begin_held(&options);
	ck_assert_int_eq(uffdwp_region_punch(stage.region, (stage.first + 20) * STAGE_PAGE, 20 * STAGE_PAGE), 0);
	for (size_t page = stage.first + 20; page < stage.first + 40; page++) {
		ck_assert(memcmp(stage.base + page * STAGE_PAGE, zeros, STAGE_PAGE) == 0);
	}
	play_end_well(&progress);
	ck_assert_uint_eq(progress.pages_prepare, 20);
	play_close_case();
}
END_TEST

/* --- windows ---------------------------------------------------------------------------------------------------- */

START_TEST(test_sequential_writer_faults_at_most_once_in_8_pages)
{
	struct uffdwp_snapshot_progress progress;
	play_open_case(_i, 1024);
	struct uffdwp_snapshot_options options = stage_options(&stage, 2048);
	play_begin_held(&options);
	for (size_t page = stage.first; page < stage.end; page++) {
		stage_write(&stage, page, 1);
	}
	play_end_well(&progress);
	ck_assert_uint_eq(progress.pages_fault, stage.end - stage.first);
	ck_assert_uint_le(progress.faults, (stage.end - stage.first) / 8);
	play_close_case();
}
END_TEST

START_TEST(test_random_writer_takes_one_page_a_fault)
{
	struct uffdwp_snapshot_progress progress;
	play_open_case(_i, 1024);
	struct uffdwp_snapshot_options options = stage_options(&stage, 2048);
	play_begin_held(&options);
	for (size_t i = 0; i < 7; i++) {
		stage_write(&stage, stage.first + (i * 3 % 7) * 70, 1);
	}
	play_expect_faults(7);
	play_end_well(&progress);
	ck_assert_uint_eq(progress.faults, 7);
	ck_assert_uint_eq(progress.pages_fault, 7);
	play_close_case();
}
END_TEST

/* Eight pages of a block of 64, downwards, which is no stream. */
static uint64_t write_densely(int which, uint32_t window_max)
{
	struct uffdwp_snapshot_progress progress;
	play_open_case(which, 1024);
	struct uffdwp_snapshot_options options = stage_options(&stage, 2048);
	options.window_max = window_max;
	play_begin_held(&options);
	size_t block = (stage.first + 63) / 64 * 64;
	for (size_t i = 0; i < 8; i++) {
		stage_write(&stage, block + 63 - 9 * i, 1);
	}
	play_end_well(&progress);
	ck_assert_uint_eq(progress.faults, 8);
	play_close_case();
	return progress.pages_fault;
}

START_TEST(test_fault_in_a_densely_written_block_takes_its_neighbours)
{
	ck_assert_uint_eq(write_densely(_i, 0), 7 + 15); /* of the 16 around the eighth one was written before */
	ck_assert_uint_eq(write_densely(_i, 4), 7 + 4);
	ck_assert_uint_eq(write_densely(_i, 1), 8);
}
END_TEST

START_TEST(test_window_is_never_wider_than_was_asked)
{
	struct uffdwp_snapshot_progress progress;
	play_open_case(_i, PAGES);
	struct uffdwp_snapshot_options options = stage_options(&stage, 512);
	options.window_max = 2;
	play_begin_held(&options);
	for (size_t page = stage.first; page < stage.first + 64; page++) {
		stage_write(&stage, page, 1);
	}
	play_end_well(&progress);
	ck_assert_uint_ge(progress.faults, 32);
	ck_assert_uint_le(progress.pages_fault, 65);
	play_close_case();
}
END_TEST

/* --- refusals --------------------------------------------------------------------------------------------------- */

static int refuse_cut(void *user, uint64_t *length)
{
	*length = *(uint64_t *)user;
	return *length ? 0 : -EINTR;
}

static unsigned cuts_left;

static void leave_cut(void *user)
{
	(void)user;
	cuts_left++;
}

static void expect_refused(const struct uffdwp_snapshot_options *options, int error)
{
	struct uffdwp_snapshot *none = NULL;
	char text[256] = "";
	ck_assert_int_eq(uffdwp_snapshot_begin(stage.region, options, &none), error);
	ck_assert_ptr_null(none);
	ck_assert_uint_gt(uffdwp_error_text(text, sizeof(text)), 10);
	ck_assert_uint_eq(play_armed_pages(), 0);
	ck_assert_uint_eq(stage_wp_bits(&stage), 0);
	ck_assert_uint_eq(atomic_load(&stage.region->phase), PHASE_IDLE);
}

static struct uffdwp_snapshot_options options_with_cut(uint64_t *length)
{
	struct uffdwp_snapshot_options options = stage_options(&stage, 512);
	options.cut_enter = refuse_cut;
	options.cut_leave = leave_cut;
	options.cut_user = length;
	return options;
}

START_TEST(test_refused_begin_changes_nothing)
{
	uint64_t too_long = (uint64_t)(PAGES + 1) * STAGE_PAGE;
	uint64_t none = 0;
	play_open_case(_i, PAGES);
	struct uffdwp_snapshot_options options = stage_options(&stage, 512);
	options.length = stage.length_bytes + 1;
	expect_refused(&options, -ERANGE);
	options = stage_options(&stage, 15);
	expect_refused(&options, -EINVAL);
	options = stage_options(&stage, 512);
	options.callback = NULL;
	expect_refused(&options, -EINVAL);
	options = options_with_cut(&none);
	expect_refused(&options, -EINTR);
	ck_assert_uint_eq(cuts_left, 0);
	options = options_with_cut(&too_long);
	expect_refused(&options, -ERANGE);
	ck_assert_uint_eq(cuts_left, 1);
	options.cut_leave = NULL;
	expect_refused(&options, -EINVAL);
	play_close_case();
}
END_TEST

START_TEST(test_refused_arming_leaves_no_page_armed)
{
	struct writer writer;
	struct uffdwp_snapshot_options options;
	play_open_case(_i, PAGES);
	fake_refuse_arming(-ENOMEM);
	options = stage_options(&stage, 512);
	expect_refused(&options, -ENOMEM);
	ck_assert_int_eq(uffdwp_region_arm(stage.region, 0, stage.length_bytes), -ENOMEM);
	ck_assert_uint_eq(stage_wp_bits(&stage), 0);
	fake_refuse_arming(0);
	play_writer_start(&writer, 0, PAGES, 1, 0);
	play_writer_ends(&writer);
	ck_assert_uint_eq(stage_stats(&stage).faults, 0);
	ck_assert_uint_eq(stage_stats(&stage).snapshots, 0);
	play_close_case();
}
END_TEST

START_TEST(test_running_snapshot_refuses_what_would_disturb_it)
{
	struct uffdwp_snapshot_progress progress;
	struct uffdwp_snapshot *second = NULL;
	play_open_case(_i, PAGES);
	struct uffdwp_snapshot_options options = stage_options(&stage, 512);
	play_begin_held(&options);
	ck_assert_int_eq(uffdwp_snapshot_begin(stage.region, &options, &second), -EBUSY);
	ck_assert_int_eq(uffdwp_region_arm(stage.region, 0, STAGE_PAGE), -EBUSY);
	ck_assert_int_eq(uffdwp_region_disarm(stage.region, 0, STAGE_PAGE), -EBUSY);
	ck_assert_int_eq(uffdwp_region_close(stage.region), -EBUSY);
	ck_assert_int_eq(uffdwp_close(stage.runtime), -EBUSY);
	play_end_well(&progress);
	play_close_case();
}
END_TEST

/* --- what was promised ------------------------------------------------------------------------------------------ */

/* A barrier promises that the page can be written, by system calls too: also while another thread is at it. */
/* INV-OPEN */
START_TEST(test_prepared_page_carries_no_wp_bit)
{
	struct writer claimant;
	struct writer other;
	struct uffdwp_snapshot_progress progress;
	play_open_case(_i, PAGES);
	size_t page = stop_claimant(&claimant);
	play_writer_start(&other, page, page + 1, 2, 1);
	sleep_us(20000); /* for it to come back too early, if that is what it does */
	gate_open(&play_step);
	play_writer_ends(&claimant);
	play_writer_ends(&other);
	ck_assert_int_eq(other.still_armed, 0);
	play_end_well(&progress);
	play_close_case();
}
END_TEST

static int punch_at_cut(void *user, uint64_t *length)
{
	(void)user;
	(void)length;
	must(uffdwp_region_punch(stage.region, 100 * STAGE_PAGE, 4 * STAGE_PAGE) == 0);
	memset(stage.cut + 100 * (size_t)STAGE_PAGE, 0, 4 * STAGE_PAGE); /* a look at the memory itself would fill it */
	return 0;
}

/* The library's own punch, after begin looked for content and before the cut, is no loss. */
START_TEST(test_pages_punched_while_a_snapshot_begins_are_holes_of_it)
{
	struct uffdwp_snapshot_progress progress;
	play_open_case(_i, PAGES);
	struct uffdwp_snapshot_options options = stage_options(&stage, 512);
	options.cut_enter = punch_at_cut;
	options.cut_leave = leave_cut;
	memcpy(stage.cut, stage.base, stage.length_bytes);
	ck_assert_int_eq(stage_begin(&stage, &options), 0);
	play_end_well(&progress);
	play_close_case();
}
END_TEST

static void *punch_page_5(void *ignored)
{
	(void)ignored;
	must(uffdwp_region_punch(stage.region, 5 * STAGE_PAGE, STAGE_PAGE) == 0);
	return NULL;
}

/* The handler has read the event of a punch, and acts on it when the next snapshot has armed the pages. */
START_TEST(test_event_of_a_punch_does_no_harm_to_a_later_snapshot)
{
	static const struct fake_hooks hooks = {.has_read = play_stop};
	struct uffdwp_snapshot_progress progress;
	play_open_case(2 * _i, PAGES);
	struct uffdwp_snapshot_options options = stage_options(&stage, 512);
	fake_hook(&hooks);
	pthread_t puncher = thread_start(punch_page_5, NULL);
	gate_await(&play_step);
	stage.gate = &play_sink;
	memcpy(stage.cut, stage.base, stage.length_bytes);
	memset(stage.cut + 5 * (size_t)STAGE_PAGE, 0, STAGE_PAGE);
	pthread_t beginner = thread_start(play_begin, &options);
	sleep_us(100000); /* for the snapshot to begin too early, if that is what it does */
	gate_open(&play_step);
	thread_join(puncher);
	thread_join(beginner);
	/* When the handler reads another event it has done with the first. */
	ck_assert_int_eq(fake_kernel()->madvise(stage.base, 0, MADV_DONTNEED), 0);
	play_end_well(&progress);
	play_close_case();
}
END_TEST

static void *move_memory(void *to)
{
	int error = 0;
	must(fake_kernel()->mremap(stage.base, stage.length_bytes, stage.length_bytes, MREMAP_MAYMOVE | MREMAP_FIXED,
	                           to, &error) == to);
	return NULL;
}

/* The handler has read the event of a move, and acts on it long after: the sweep waits for it, however long that takes.
 */
START_TEST(test_sweep_waits_for_a_handler_that_is_slow_to_follow_a_move)
{
	static const struct fake_hooks hooks = {.has_read = play_stop};
	struct uffdwp_snapshot_progress progress;
	char byte;
	if (kernel_real.read_self(&byte, &hooks, 1) == -ENOSYS) { /* an emulator of user programs */
		support_note(__func__, "no process_vm_readv(2) here: nobody reads memory that may go away");
		return;
	}
	play_open_case(2 * _i, PAGES);
	struct uffdwp_snapshot_options options = stage_options(&stage, 64);
	void *to = mmap(NULL, stage.length_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memcpy(stage.cut, stage.base, stage.length_bytes);
	play_begin_held(&options);
	fake_hook(&hooks);
	pthread_t mover = thread_start(move_memory, to);
	gate_await(&play_step);
	gate_open(&play_sink);
	sleep_us(300000); /* for the sweep to believe too early that nothing moves, if that is what it does */
	gate_open(&play_step);
	thread_join(mover);
	stage.base = to;
	play_end_well(&progress);
	play_close_case();
}
END_TEST

/* Inline: the signal of a write was pending when the region closed. The write goes on, and so do other regions. */
START_TEST(test_late_signal_of_a_closed_region_does_no_harm)
{
	static const struct fake_hooks hooks = {.faulting = play_stop};
	struct sigaction before;
	struct sigaction after;
	struct writer writer;
	stage_open(&stage, 2, PAGES);
	ck_assert_int_eq(sigaction(SIGBUS, NULL, &before), 0);
	ck_assert_int_eq(uffdwp_region_arm(stage.region, 0, stage.length_bytes), 0);
	fake_hook(&hooks);
	play_writer_start(&writer, 5, 6, 1, 0);
	gate_await(&play_step);
	ck_assert_int_eq(uffdwp_region_close(stage.region), 0);
	gate_open(&play_step);
	play_writer_ends(&writer);
	ck_assert_int_eq(sigaction(SIGBUS, NULL, &after), 0);
	ck_assert(after.sa_sigaction == before.sa_sigaction);
	stage.region = NULL;
	stage_close(&stage);
}
END_TEST

static _Atomic int passed_on;

static void take_signal(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)info;
	(void)context;
	atomic_fetch_add(&passed_on, 1);
}

/* The same of a region that came to rest meanwhile: nothing is protected, and nothing registered that could be asked.
 */
START_TEST(test_late_signal_of_a_region_at_rest_does_no_harm)
{
	static const struct fake_hooks hooks = {.faulting = play_stop};
	const struct sigaction own = {.sa_sigaction = take_signal, .sa_flags = SA_SIGINFO};
	struct writer writer;
	ck_assert_int_eq(sigaction(SIGBUS, &own, NULL), 0);
	stage_open(&stage, 2, PAGES);
	ck_assert_int_eq(uffdwp_region_arm(stage.region, 0, stage.length_bytes), 0);
	fake_hook(&hooks);
	play_writer_start(&writer, 5, 6, 1, 0);
	gate_await(&play_step);
	ck_assert_int_eq(uffdwp_region_disarm(stage.region, 0, stage.length_bytes), 0);
	fake_refuse_disarming(-ENOENT);
	gate_open(&play_step);
	play_writer_ends(&writer);
	ck_assert(stage_holds(&stage, 5, 1));
	ck_assert_int_eq(atomic_load(&passed_on), 0);
	fake_refuse_disarming(0);
	stage_close(&stage);
}
END_TEST

/* Two threads at two pages of which the kernel gives neither: neither begins the count of the other anew. */
START_TEST(test_pages_that_are_refused_in_turns_are_refused_for_good)
{
	stage_open(&stage, 2, PAGES);
	for (uint64_t page = 3; page < 5; page++) {
		enum fault_verdict verdict = FAULT_AGAIN;
		for (unsigned round = 0; round < 1000 && verdict == FAULT_AGAIN; round++) {
			struct fault other = {.region = stage.region, .page = 7 - page, .by = FAULT_BY_WRITER};
			struct fault fault = {.region = stage.region, .page = page, .by = FAULT_BY_WRITER};
			(void)fault_unfilled(&other, -ENOMEM);
			verdict = fault_unfilled(&fault, -ENOMEM);
		}
		ck_assert_int_eq(verdict, FAULT_REFUSED);
	}
	stage_close(&stage);
}
END_TEST

static int was_refused(void *before)
{
	return fake_refusals() != *(unsigned *)before;
}

/* The sweep waits for an event to be read by a thread that waits for the epoch first. */
START_TEST(test_sweep_waits_for_an_event_outside_of_the_epoch)
{
	struct uffdwp_snapshot_progress progress;
	play_open_case(1, PAGES); /* memory that a child may come to */
	struct uffdwp_snapshot_options options = stage_options(&stage, 64);
	memcpy(stage.cut, stage.base, stage.length_bytes);
	play_begin_held(&options);
	unsigned refusals = fake_refusals();
	fake_refuse_disarming(-EAGAIN);
	gate_open(&play_sink);
	must(wait_until(was_refused, &refusals, PLAY_TIME_LIMIT_S));
	fault_epoch_wait();
	ck_assert_uint_eq(atomic_load(&stage.region->clinging), 0); /* it has not given up */
	fake_refuse_disarming(0);
	play_end_well(&progress);
	play_close_case();
}
END_TEST

/* --- disarming that is refused ---------------------------------------------------------------------------------- */

/* INV-OPEN; and after a barrier no page carries a wp bit, although nothing was armed. */
static void expect_nothing_forgotten(void)
{
	unsigned tagged = 0;
	for (size_t page = 0; page < PAGES; page++) {
		enum ledger_state state = play_state_of(page);
		int armed = fake_is_armed(stage.base + page * STAGE_PAGE);
		ck_assert_msg(!armed || (state != LEDGER_FREE && state != LEDGER_OPEN), "page %zu is armed and %d",
		              page, (int)state);
		tagged += (unsigned)armed;
	}
	ck_assert_uint_gt(tagged, 0);
	fake_refuse_disarming(0);
	ck_assert_int_eq(uffdwp_prepare_write(stage.region, 0, stage.length_bytes), 0);
	ck_assert_uint_eq(stage_wp_bits(&stage), 0);
	for (size_t page = 0; page < PAGES; page++) {
		stage_write(&stage, page, 9);
	}
}

START_TEST(test_page_that_could_not_be_disarmed_is_not_forgotten)
{
	play_open_case(_i, PAGES);
	ck_assert_int_eq(uffdwp_region_arm(stage.region, 0, stage.length_bytes), 0);
	fake_refuse_disarming(-ENOMEM);
	ck_assert_int_eq(uffdwp_region_disarm(stage.region, 0, stage.length_bytes), -ENOMEM);
	expect_nothing_forgotten();
	play_close_case();
}
END_TEST

START_TEST(test_aborted_snapshot_forgets_no_page_that_could_not_be_disarmed)
{
	play_open_case(_i, PAGES);
	struct uffdwp_snapshot_options options = stage_options(&stage, 64);
	play_begin_held(&options);
	fake_refuse_disarming(-ENOMEM);
	ck_assert_int_eq(uffdwp_snapshot_abort(stage.snapshot), 0);
	gate_open(&play_sink);
	ck_assert_int_eq(stage_end(&stage, NULL), -ECANCELED);
	stage.gate = NULL;
	expect_nothing_forgotten();
	play_close_case();
}
END_TEST

static int is_saved(void *page)
{
	return play_state_of(*(size_t *)page) == LEDGER_SAVED;
}

/* A page that a writer has saved, and that neither the writer nor the sweep could disarm. */
START_TEST(test_committed_snapshot_forgets_no_page_that_could_not_be_disarmed)
{
	struct writer writer;
	play_open_case(_i, PAGES);
	struct uffdwp_snapshot_options options = stage_options(&stage, 64);
	play_begin_held(&options);
	size_t page = stage.first + 3;
	fake_refuse_disarming(-ENOMEM);
	play_writer_start(&writer, page, page + 1, 1, 0);
	ck_assert(wait_until(is_saved, &page, PLAY_TIME_LIMIT_S));
	gate_open(&play_sink);
	ck_assert_int_eq(stage_end(&stage, NULL), 0);
	stage.gate = NULL;
	ck_assert_mem_eq(stage.image, stage.cut, stage.length_bytes);
	expect_nothing_forgotten();
	play_writer_ends(&writer);
	play_close_case();
}
END_TEST

/* --- */

#define CASES(test) tcase_add_loop_test(tests, test, 0, STAGE_CASES)

int main(void)
{
	support_begin("test_fault", &(struct support_needs){0, 0});
	Suite *suite = suite_create("fault");
	TCase *tests = tcase_create("fault");
	tcase_set_timeout(tests, 4 * PLAY_TIME_LIMIT_S);
	CASES(test_write_to_an_armed_page_faults_once);
	CASES(test_one_claimant_saves_the_page);
	CASES(test_saved_page_may_be_disarmed_by_any_thread);
	CASES(test_page_is_unprotected_only_when_its_bytes_are_ours);
	tcase_add_test(tests, test_content_discarded_outside_ends_the_snapshot);
	CASES(test_punched_pages_are_in_the_image);
	CASES(test_sequential_writer_faults_at_most_once_in_8_pages);
	CASES(test_random_writer_takes_one_page_a_fault);
	CASES(test_fault_in_a_densely_written_block_takes_its_neighbours);
	CASES(test_window_is_never_wider_than_was_asked);
	CASES(test_refused_begin_changes_nothing);
	CASES(test_refused_arming_leaves_no_page_armed);
	CASES(test_running_snapshot_refuses_what_would_disturb_it);
	CASES(test_prepared_page_carries_no_wp_bit);
	CASES(test_page_that_could_not_be_disarmed_is_not_forgotten);
	CASES(test_aborted_snapshot_forgets_no_page_that_could_not_be_disarmed);
	CASES(test_committed_snapshot_forgets_no_page_that_could_not_be_disarmed);
	CASES(test_pages_punched_while_a_snapshot_begins_are_holes_of_it);
	/* Only the discarding of anonymous memory is an event: cases 0 and 2. */
	tcase_add_loop_test(tests, test_event_of_a_punch_does_no_harm_to_a_later_snapshot, 0, 2);
	tcase_add_loop_test(tests, test_sweep_waits_for_a_handler_that_is_slow_to_follow_a_move, 0, 2);
	tcase_add_test(tests, test_late_signal_of_a_closed_region_does_no_harm);
	tcase_add_test(tests, test_late_signal_of_a_region_at_rest_does_no_harm);
	tcase_add_test(tests, test_pages_that_are_refused_in_turns_are_refused_for_good);
	tcase_add_test(tests, test_sweep_waits_for_an_event_outside_of_the_epoch);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
