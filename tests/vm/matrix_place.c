/* SPDX-License-Identifier: MIT */
/* Where a cell is played, and the treatments of its pages. See matrix.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "matrix.h"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

#define SMALL_PAGES 192
#define HUGE_PAGES 6

__attribute__((format(printf, 3, 0))) static void outcome_set(struct outcome *outcome, enum verdict verdict,
                                                              const char *format, va_list arguments)
{
	outcome->verdict = verdict;
	(void)vsnprintf(outcome->text, sizeof(outcome->text), format, arguments);
}

int outcome_fail(struct outcome *outcome, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	outcome_set(outcome, FAILED, format, arguments);
	va_end(arguments);
	return 0;
}

int outcome_refuse(struct outcome *outcome, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	outcome_set(outcome, REFUSED, format, arguments);
	va_end(arguments);
	return 0;
}

const char *treatment_name(enum treatment treatment)
{
	static const char *const names[TREAT_COUNT] = {"nothing", "punch", "zap", "swap"};

	return names[treatment];
}

/* What the library said; a refusal only where it is one. */
static int explain(const char *what, int error, struct outcome *outcome)
{
	char text[300] = "";

	(void)uffdwp_error_text(text, sizeof(text));
	if (error == -EOPNOTSUPP)
		return outcome_refuse(outcome, "%s", text[0] ? text : "no reason was given");
	return outcome_fail(outcome, "%s: %s: %s", what, strerror(-error), text);
}

static size_t huge_page_bytes(void)
{
	unsigned long kib = 2048;
	char line[128];
	FILE *file = fopen("/proc/meminfo", "re");

	while (file && fgets(line, sizeof(line), file))
		if (strncmp(line, "Hugepagesize:", 13) == 0)
			kib = strtoul(line + 13, NULL, 10);
	if (file)
		(void)fclose(file);
	return kib * 1024;
}

/* Without transparent huge pages: they would make one page of many. */
static int attach(struct place *place, const struct uffdwp_region_options *options)
{
	void *base = mmap(NULL, place->length_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (base == MAP_FAILED)
		return -errno;
	(void)madvise(base, place->length_bytes, MADV_NOHUGEPAGE);
	int error = uffdwp_region_attach(place->runtime, base, place->length_bytes, options, &place->region);

	place->attached = !error;
	if (error)
		(void)munmap(base, place->length_bytes);
	return error;
}

static int make_region(struct place *place)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;

	options.mechanism = (uint32_t)place->cell.mechanism;
	options.delivery = (uint32_t)place->cell.delivery;
	if (place->cell.memory == UFFDWP_MEMORY_ANON)
		return attach(place, &options);
	if (place->cell.memory == UFFDWP_MEMORY_HUGETLB)
		options.flags |= UFFDWP_REGION_CREATE_HUGETLB;
	return uffdwp_region_create(place->runtime, place->length_bytes, &options, &place->region);
}

/* 1: the region is what was asked for by name. */
static int check_region(struct place *place, struct outcome *outcome)
{
	struct uffdwp_region_info info = {.sz = sizeof(info)};

	if (uffdwp_region_info(place->region, &info) || info.mechanism != (uint32_t)place->cell.mechanism ||
	    info.delivery != (uint32_t)place->cell.delivery || info.memory != (uint32_t)place->cell.memory)
		return outcome_fail(outcome, "the region is not what was asked for: mechanism %u, delivery %u",
		                    (unsigned)info.mechanism, (unsigned)info.delivery);
	place->base = info.base;
	place->fd = info.fd;
	return 1;
}

static void fill(struct place *place)
{
	for (size_t page = 0; page < place->pages; page++)
		if (page % 4 != 3)
			place_write(place, &place->chance, page);
}

int place_open(struct place *place, struct cell cell, struct outcome *outcome)
{
	int is_huge = cell.memory == UFFDWP_MEMORY_HUGETLB;

	memset(place, 0, sizeof(*place));
	place->cell = cell;
	place->page_bytes = is_huge ? huge_page_bytes() : (size_t)sysconf(_SC_PAGESIZE);
	place->pages = is_huge ? HUGE_PAGES : SMALL_PAGES;
	place->length_bytes = place->pages * place->page_bytes;
	place->chance = chance_new((uint64_t)cell.memory << 24 | (uint64_t)cell.mechanism << 16 |
	                           (uint64_t)cell.delivery << 8 | (uint64_t)cell.job);
	place->shadow = calloc(place->pages, place->page_bytes);
	if (!place->shadow)
		return outcome_fail(outcome, "no memory for the shadow");
	int error = uffdwp_open(NULL, &place->runtime);

	if (error)
		return explain("uffdwp_open", error, outcome);
	error = make_region(place);
	if (error)
		return explain("making the region", error, outcome);
	if (!check_region(place, outcome))
		return 0;
	fill(place);
	return 1;
}

int place_close(struct place *place, struct outcome *outcome)
{
	int error = uffdwp_region_close(place->region);

	if (!error && place->attached && munmap(place->base, place->length_bytes))
		error = -errno;
	if (!error)
		error = uffdwp_close(place->runtime);
	free(place->shadow);
	return error ? outcome_fail(outcome, "closing: %s", strerror(-error)) : 1;
}

struct uffdwp_region_stats place_stats(const struct place *place)
{
	struct uffdwp_region_stats stats = {.sz = sizeof(stats)};

	(void)uffdwp_region_stats(place->region, &stats);
	return stats;
}

/*
 * Anonymous memory: MADV_DONTNEED throws the content away. The library learns of it as it does of a write under marker
 * (the page is not armed any more), and arms it again under rearm. Huge pages are never swapped out. A snapshot fails,
 * as it must, when content vanishes outside of the library; for huge pages it takes MADV_DONTNEED for that.
 */
int place_may_treat(const struct place *place, enum treatment treatment)
{
	int preserving = place->cell.job == JOB_PRESERVE;
	enum uffdwp_memory memory = place->cell.memory;

	switch (treatment) {
	case TREAT_PUNCH:
		return !preserving && memory != UFFDWP_MEMORY_ANON;
	case TREAT_ZAP:
		if (memory == UFFDWP_MEMORY_ANON)
			return !preserving && place->cell.mechanism != UFFDWP_MECHANISM_MARKER;
		return memory == UFFDWP_MEMORY_SHMEM || !preserving;
	case TREAT_SWAP:
		return memory != UFFDWP_MEMORY_HUGETLB;
	default:
		return 1;
	}
}

int place_treat(struct place *place, enum treatment treatment, size_t first, size_t end)
{
	uint8_t *from = place->base + first * place->page_bytes;
	size_t length = (end - first) * place->page_bytes;
	int result = 0;

	if (treatment == TREAT_PUNCH)
		result = fallocate(place->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		                   (off_t)(first * place->page_bytes), (off_t)length);
	else if (treatment == TREAT_ZAP)
		result = madvise(from, length, MADV_DONTNEED);
	else if (treatment == TREAT_SWAP)
		result = madvise(from, length, MADV_PAGEOUT);
	if (result)
		return -errno;
	if (treatment == TREAT_PUNCH || (treatment == TREAT_ZAP && place->cell.memory == UFFDWP_MEMORY_ANON))
		memset(place->shadow + first * place->page_bytes, 0, length);
	return 0;
}

void place_write(const struct place *place, struct chance *chance, size_t page)
{
	size_t at = page * place->page_bytes + chance_below(chance, place->page_bytes / 16) * 16;

	chance_fill(chance, place->shadow + at, 16);
	memcpy(place->base + at, place->shadow + at, 16);
}

int place_agrees(const struct place *place, size_t page)
{
	size_t at = page * place->page_bytes;

	return memcmp(place->base + at, place->shadow + at, place->page_bytes) == 0;
}

size_t place_swapped(const struct place *place)
{
	static const uint8_t zeros[4096];
	unsigned char there[SMALL_PAGES];
	size_t swapped = 0;

	if (place->page_bytes != sizeof(zeros) || mincore(place->base, place->length_bytes, there))
		return 0;
	for (size_t page = 0; page < place->pages; page++)
		if (!(there[page] & 1) && memcmp(place->shadow + page * sizeof(zeros), zeros, sizeof(zeros)) != 0)
			swapped++;
	return swapped;
}
