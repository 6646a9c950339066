/* SPDX-License-Identifier: MIT */
/* See track_check.h. */
#include "track_check.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "support.h"

size_t small_page(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

void touch(uint8_t *base, size_t page)
{
	volatile uint64_t *word = (volatile uint64_t *)(void *)(base + page * small_page());
	*word = *word + 1;
}

/* --- a track ------------------------------------------------------------------------------------------------------ */

int tracked_open(struct tracked *tracked, uint32_t mechanism, uint32_t flags)
{
	struct uffdwp_track_options options = UFFDWP_TRACK_OPTIONS_INIT;
	char text[256] = "";
	options.mechanism = mechanism;
	options.flags = flags;
	must(uffdwp_open(NULL, &tracked->runtime) == 0);
	int error = uffdwp_track_start(tracked->runtime, &options, &tracked->track);
	if (error == 0) {
		return 1;
	}
	(void)uffdwp_error_text(text, sizeof(text));
	ck_assert_msg(error == -EOPNOTSUPP, "uffdwp_track_start: %s: %s", strerror(-error), text);
	support_note("a track", text);
	must(uffdwp_close(tracked->runtime) == 0);
	return 0;
}

void tracked_close(struct tracked *tracked)
{
	ck_assert_int_eq(uffdwp_track_stop(tracked->track), 0);
	ck_assert_int_eq(uffdwp_close(tracked->runtime), 0);
}

uint8_t *anon_new(size_t pages, int populated)
{
	size_t length = pages * small_page();
	uint8_t *base = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(base != MAP_FAILED);
	(void)madvise(base, length, MADV_NOHUGEPAGE);
	for (size_t page = 0; page < pages && populated; page++) {
		touch(base, page);
	}
	return base;
}

void anon_free(uint8_t *base, size_t pages)
{
	must(munmap(base, pages * small_page()) == 0);
}

uint64_t collect_all(struct uffdwp_track *track)
{
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	ck_assert_int_eq(uffdwp_track_collect(track, &collect), 0);
	ck_assert_ptr_null(collect.next);
	return collect.bytes;
}

void expect_text_says(const char *part)
{
	char text[400] = "";
	(void)uffdwp_error_text(text, sizeof(text));
	ck_assert_msg(strstr(text, part) != NULL, "the text \"%s\" does not say \"%s\"", text, part);
}

/* --- sets --------------------------------------------------------------------------------------------------------- */

void pages_clear(struct pages *pages)
{
	memset(pages, 0, sizeof(*pages));
}

void pages_put(struct pages *pages, size_t first, size_t end)
{
	must(end <= PAGES_MOST);
	for (size_t page = first; page < end; page++) {
		pages->count += pages->in[page] == 0;
		pages->in[page] = 1;
	}
}

size_t pages_in(const struct pages *pages, size_t first, size_t end)
{
	size_t count = 0;
	for (size_t page = first; page < end; page++) {
		count += pages->in[page];
	}
	return count;
}

void pages_collect(struct pages *pages, struct uffdwp_track *track, const void *base, size_t count, uint32_t flags)
{
	static uint64_t bits[PAGES_MOST / 64];
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	must(count <= PAGES_MOST);
	memset(bits, 0, sizeof(bits));
	collect.flags = flags;
	collect.start = (void *)(uintptr_t)base;
	collect.length = count * small_page();
	collect.bitmap = bits;
	collect.bitmap_bytes = (count + 63) / 64 * 8;
	ck_assert_int_eq(uffdwp_track_collect(track, &collect), 0);
	ck_assert_ptr_null(collect.next);
	pages_clear(pages);
	for (size_t page = 0; page < count; page++) {
		if ((bits[page / 64] >> page % 64 & 1) != 0) {
			pages_put(pages, page, page + 1);
		}
	}
	ck_assert_uint_eq(collect.bytes, pages->count * small_page());
}

static void expect_page(const struct pages *pages, const struct pages *wanted, size_t page, const char *what)
{
	ck_assert_msg(pages->in[page] || !wanted->in[page], "%s: page %zu was written and is not reported", what, page);
	ck_assert_msg(!pages->in[page] || wanted->in[page], "%s: page %zu is reported and was not written", what, page);
}

void pages_expect(const struct pages *pages, const struct pages *wanted, size_t count, const char *what)
{
	for (size_t page = 0; page < count; page++) {
		expect_page(pages, wanted, page, what);
	}
}

/* --- cells -------------------------------------------------------------------------------------------------------- */

const char *cell_name(int cell)
{
	static char name[80];
	(void)snprintf(name, sizeof(name), "%s by %s", field_memory_name((enum field_memory)(cell / FIELD_METHODS)),
	               field_methods[cell % FIELD_METHODS].name);
	return name;
}

static int is_left_out(const struct field_method *method)
{
	const char *delivery = getenv("UFFDWP_TEST_DELIVERY");
	return delivery != NULL && strcmp(delivery, "thread") == 0 && method->delivery == UFFDWP_DELIVERY_INLINE;
}

/* By cell: 1 where it is available; in memory shared with the children that find out. */
static uint8_t *offered;

/* Opens and adds. 0: why is in the reason; empty where the cell means nothing. */
static int open_and_add(struct field *field, int cell, char *reason, size_t size)
{
	const struct field_method *method = &field_methods[cell % FIELD_METHODS];
	enum field_memory memory = (enum field_memory)(cell / FIELD_METHODS);
	reason[0] = '\0';
	if (field_pointless(memory, method) || is_left_out(method) ||
	    field_open(field, memory, method, reason, size) != 0) {
		return 0;
	}
	for (size_t page = 0; page < field->pages; page++) {
		cell_write(field, page);
	}
	if (field_add_all(field, 0) != 0) {
		(void)uffdwp_error_text(reason, size);
		field_close(field);
		return 0;
	}
	return 1;
}

int cell_open(struct field *field, int cell)
{
	char reason[400];
	must(offered != NULL); /* cells_print() comes first */
	if (!offered[cell]) {
		return 0;
	}
	ck_assert_msg(open_and_add(field, cell, reason, sizeof(reason)), "%s: %s", cell_name(cell), reason);
	(void)collect_all(field->track);
	return 1;
}

static void print_cell(void *argument)
{
	struct field field;
	char reason[400];
	int cell = *(const int *)argument;
	if (open_and_add(&field, cell, reason, sizeof(reason))) {
		offered[cell] = 1;
		field_close(&field);
	} else if (reason[0] != '\0') {
		support_note(cell_name(cell), reason);
	}
}

void cells_print(void)
{
	offered = mmap(NULL, CELLS, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(offered != MAP_FAILED);
	for (int cell = 0; cell < CELLS; cell++) {
		must(child_run(print_cell, &cell) == 0);
	}
}

void cell_write(struct field *field, size_t page)
{
	volatile uint64_t *word = (volatile uint64_t *)(void *)(field_address(field, page) + 64);
	*word = *word + 1;
}

void cell_collect(struct field *field, struct pages *pages, uint32_t flags)
{
	struct uffdwp_written ranges[16];
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	pages_clear(pages);
	collect.flags = flags;
	do {
		collect.start = collect.next;
		collect.ranges = ranges;
		collect.capacity = 16;
		ck_assert_int_eq(uffdwp_track_collect(field->track, &collect), 0);
		for (size_t i = 0; i < collect.count; i++) {
			size_t page = field_page(field, ranges[i].start);
			size_t count = (size_t)(ranges[i].end - ranges[i].start) / field->page_bytes;
			ck_assert_uint_le(page + count, field->pages);
			pages_put(pages, page, page + count);
		}
	} while (collect.next != NULL);
}

void cell_expect(const struct field *field, const struct pages *pages, const struct pages *wanted, const char *what)
{
	if (field->memory != FIELD_THP) {
		pages_expect(pages, wanted, field->pages, what);
		return;
	}
	for (size_t page = 0; page < field->pages; page++) {
		ck_assert_msg(pages->in[page] || !wanted->in[page], "%s: page %zu was written and is not reported",
		              what, page);
	}
}
