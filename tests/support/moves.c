/* SPDX-License-Identifier: MIT */
/* See moves.h. */
#include "moves.h"

#include <check.h>
#include <string.h>

#define AT 100 /* the byte of a page that is written and read */

struct place_case moves_case(void)
{
	return (struct place_case){UFFDWP_MEMORY_SHMEM, UFFDWP_MECHANISM_REARM, UFFDWP_DELIVERY_THREAD};
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
