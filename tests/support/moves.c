/* SPDX-License-Identifier: MIT */
/* See moves.h. */
#include "moves.h"

#include <check.h>
#include <string.h>

#define AT 100 /* the byte of a page that is written and read */

static int running;

struct place_case moves_case_of(int i)
{
	return (struct place_case){UFFDWP_MEMORY_SHMEM, i % 2 ? UFFDWP_MECHANISM_REARM : UFFDWP_MECHANISM_MARKER,
	                           i / 2 ? UFFDWP_DELIVERY_INLINE : UFFDWP_DELIVERY_THREAD};
}

struct place_case moves_case(void)
{
	return moves_case_of(running);
}

static void begin_default(void)
{
	running = 0;
}

static void begin_rearm(void)
{
	running = 1;
}

static void begin_inline(void)
{
	running = 2;
}

static void begin_rearm_inline(void)
{
	running = 3;
}

void moves_add_cases(Suite *suite, void (*add)(TCase *))
{
	static void (*const begins[])(void) = {begin_default, begin_rearm, begin_inline, begin_rearm_inline};
	for (int i = 0; i < MOVES_CASES; i++) {
		if (!place_moves(moves_case_of(i))) {
			continue;
		}
		TCase *tests = tcase_create(place_case_name(moves_case_of(i)));
		tcase_set_timeout(tests, 120);
		tcase_add_checked_fixture(tests, begins[i], NULL);
		add(tests);
		suite_add_tcase(suite, tests);
	}
}

struct uffdwp_snapshot_options moves_options(void)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	options.arming = UFFDWP_ARMING_MOVE;
	options.wait_ns = 60000000000u;
	return options;
}

void moves_begin(struct image *image, struct uffdwp_region *region, const struct uffdwp_snapshot_options *options)
{
	char text[512] = "";
	int error = image_begin(image, region, options);
	(void)uffdwp_error_text(text, sizeof(text));
	ck_assert_msg(error == 0, "%s: %s", strerror(-error), text);
}

void moves_write(const struct place *place, size_t page)
{
	((volatile uint8_t *)place->base)[page * place->page_bytes + AT] ^= 0xff;
}

uint8_t moves_read(const struct place *place, size_t page)
{
	return ((volatile uint8_t *)place->base)[page * place->page_bytes + AT];
}
