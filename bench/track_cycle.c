/* SPDX-License-Identifier: MIT */
/*
 * Part `cycle`: write 1 % of the memory, learn which pages these were, arm again; by the library, by the bare ioctl,
 * and by the two older methods, each as bare as it can be:
 *
 * mprotect     PROT_READ over all; the handler of SIGSEGV notes the page and makes it writable; then the list is taken
 *              and all is made PROT_READ again
 * soft_dirty   /proc/self/pagemap is read, bit 55 of each entry looked at, and "4" written to /proc/self/clear_refs. It
 *              clears the soft-dirty bits of the whole process, and loses what is written between the two
 *
 * All of it is timed: the writes with their faults, too. Soft-dirty has a duel of its own, since its clearing would
 * cost the writes of the others a fault each.
 *
 * Threads: one. The handler's state is static.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "report.h"
#include "track.h"

#define PAGEMAP_SOFT_DIRTY ((uint64_t)1 << 55) /* Documentation/admin-guide/mm/soft-dirty.rst */

enum { LIBRARY, BARE, AGAIN, OLDER, SIDES };

static const struct track_density densities[] = {
        {"clustered_1", "1 % clustered", 10, PAGES_CLUSTERED},
        {"scattered_1", "1 % scattered", 10, PAGES_SCATTERED},
};

#define DENSITIES (sizeof(densities) / sizeof(densities[0]))

/* The older method has a place of its own, the others change theirs. */
static struct {
	const struct track_settings *settings;
	struct area areas[SIDES];
	struct collector collectors[OLDER];
	struct track_bout bout;
	struct duel duels[DENSITIES];
} field;

static void write_pages(const struct area *area)
{
	for (size_t i = 0; i < field.bout.pages.count; i++) {
		volatile char *byte = area->base + field.bout.pages.list[i] * area->page_bytes;

		*byte = (char)(*byte + 1);
	}
}

/* What was found must be what was written; found more: it was not the same work. */
static void judge(const char *side, const uint32_t *found, size_t count)
{
	if (count != field.bout.pages.count)
		bench_die("%s found %zu pages where %zu were written", side, count, field.bout.pages.count);
	if (count && memcmp(found, field.bout.pages.list, count * sizeof(*found)) != 0)
		bench_die("%s found other pages than were written", side);
}

/* --------------------------------------------------------------------------------------------------- mprotect -- */

static struct {
	struct area area;
	uint32_t *found; /* in the order of the writes, which is ascending */
	volatile size_t count;
} protected;

static void on_segment_violation(int number, siginfo_t *info, void *context)
{
	size_t page = (size_t)((char *)info->si_addr - protected.area.base) / protected.area.page_bytes;
	size_t pages = protected.area.length_bytes / protected.area.page_bytes;
	size_t page_bytes = protected.area.page_bytes;

	(void)context;
	if (page >= pages || protected.count >= pages ||
	    mprotect(protected.area.base + page * page_bytes, page_bytes, PROT_READ | PROT_WRITE)) {
		signal(number, SIG_DFL);
		return;
	}
	protected.found[protected.count] = (uint32_t)page;
	protected.count = protected.count + 1;
}

static void protect_all(void)
{
	if (mprotect(protected.area.base, protected.area.length_bytes, PROT_READ))
		bench_die("mprotect: %s", strerror(errno));
}

static uint64_t trial_mprotect(void *self, int *disturbed)
{
	struct sigaction action = {.sa_sigaction = on_segment_violation, .sa_flags = SA_SIGINFO};
	struct sigaction before;
	long preemptions;
	uint64_t from;
	uint64_t took_ns;

	(void)self;
	sigaction(SIGSEGV, &action, &before);
	protected.count = 0;
	preemptions = bench_preemptions();
	from = bench_now_ns();
	write_pages(&protected.area);
	protect_all();
	took_ns = bench_now_ns() - from;
	*disturbed = bench_preemptions() != preemptions;
	sigaction(SIGSEGV, &before, NULL);
	judge("mprotect", protected.found, protected.count);
	return took_ns;
}

static void open_mprotect(const struct area *area)
{
	protected.area = *area;
	protected.found = calloc(area->length_bytes / area->page_bytes, sizeof(*protected.found));
	if (!protected.found)
		bench_die("no memory for a list of pages");
	protect_all();
}

static void close_mprotect(void)
{
	free(protected.found);
	if (mprotect(protected.area.base, protected.area.length_bytes, PROT_READ | PROT_WRITE))
		bench_die("mprotect: %s", strerror(errno));
}

/* ------------------------------------------------------------------------------------------------- soft-dirty -- */

static struct {
	struct area area;
	int pagemap;
	int clear_refs;
	uint64_t *entries;
	uint32_t *found;
} dirty;

static size_t read_dirty(void)
{
	size_t pages = dirty.area.length_bytes / dirty.area.page_bytes;
	size_t bytes = pages * sizeof(uint64_t);
	off_t at = (off_t)((uintptr_t)dirty.area.base / dirty.area.page_bytes * sizeof(uint64_t));
	size_t count = 0;

	for (size_t done = 0; done < bytes;) {
		ssize_t got = pread(dirty.pagemap, (char *)dirty.entries + done, bytes - done, at + (off_t)done);

		if (got <= 0)
			bench_die("reading /proc/self/pagemap: %s", got ? strerror(errno) : "it ended");
		done += (size_t)got;
	}
	for (size_t page = 0; page < pages; page++) {
		if (dirty.entries[page] & PAGEMAP_SOFT_DIRTY)
			dirty.found[count++] = (uint32_t)page;
	}
	return count;
}

static int clear(void)
{
	return pwrite(dirty.clear_refs, "4", 1, 0) == 1 ? 0 : -errno;
}

static uint64_t trial_soft_dirty(void *self, int *disturbed)
{
	long preemptions = bench_preemptions();
	uint64_t from = bench_now_ns();
	uint64_t took_ns;
	size_t count;

	(void)self;
	write_pages(&dirty.area);
	count = read_dirty();
	bench_must(clear(), "clearing the soft-dirty bits");
	took_ns = bench_now_ns() - from;
	*disturbed = bench_preemptions() != preemptions;
	judge("soft-dirty", dirty.found, count);
	return took_ns;
}

static void close_soft_dirty(void)
{
	if (dirty.pagemap >= 0)
		close(dirty.pagemap);
	if (dirty.clear_refs >= 0)
		close(dirty.clear_refs);
	free(dirty.entries);
	free(dirty.found);
}

/* By trial: after clearing no page may have the soft-dirty bit, and after a write that page alone. NULL, or why not. */
static const char *try_soft_dirty(void)
{
	if (dirty.pagemap < 0 || dirty.clear_refs < 0)
		return "no access to /proc/self/pagemap or clear_refs";
	if (clear() || read_dirty() != 0)
		return "pages keep their soft-dirty bits";
	*(volatile char *)dirty.area.base = 1;
	if (read_dirty() != 1 || dirty.found[0] != 0)
		return "a write sets no soft-dirty bit: this kernel lacks CONFIG_MEM_SOFT_DIRTY";
	return clear() ? "no clearing" : NULL;
}

static const char *open_soft_dirty(const struct area *area)
{
	size_t pages = area->length_bytes / area->page_bytes;
	const char *reason;

	dirty.area = *area;
	dirty.pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	dirty.clear_refs = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
	dirty.entries = calloc(pages, sizeof(*dirty.entries));
	dirty.found = calloc(pages, sizeof(*dirty.found));
	if (!dirty.entries || !dirty.found)
		bench_die("no memory for a list of pages");
	reason = try_soft_dirty();
	if (reason)
		close_soft_dirty();
	return reason;
}

/* -------------------------------------------------------------------------------------------------- the duels -- */

static void open_sides(unsigned turn)
{
	struct collector_setup setup = {.vector = field.settings->vector, .pages = &field.bout.pages};

	for (size_t i = 0; i < OLDER; i++) {
		collector_whole(&setup, &field.areas[track_place(i, turn)]);
		if (i == LIBRARY)
			collector_open_library(&field.collectors[i], &setup);
		else
			collector_open_bare(&field.collectors[i], &setup);
	}
}

static void enter_density(size_t i)
{
	field.bout.density = &densities[i];
}

static void close_sides(void)
{
	for (size_t i = 0; i < OLDER; i++)
		collector_close(&field.collectors[i]);
}

static const struct track_match match = {open_sides, enter_density, close_sides};

static void set_up(struct duel *duel, const char *name, uint64_t (*older)(void *self, int *disturbed))
{
	static const char *const names[OLDER] = {"library", "bare", "bare_again"};

	track_duel(duel, field.settings, &field.bout);
	duel->count = SIDES;
	duel->bare = BARE;
	duel->again = AGAIN;
	for (size_t i = 0; i < OLDER; i++)
		duel->sides[i] = (struct duel_side){names[i], &field.collectors[i], collector_cycle};
	duel->sides[OLDER] = (struct duel_side){name, NULL, older};
}

static void print_row(const struct duel *duel, const struct track_density *density)
{
	const char *older = duel->sides[OLDER].name;

	printf("%-15s", density->text);
	duel_print_times(duel, LIBRARY);
	duel_print_times(duel, BARE);
	printf(" %-10s", older);
	duel_print_times(duel, OLDER);
	printf("  %.3f of bare, %.3f of %s", duel_ratio(duel, LIBRARY, BARE).value,
	       duel_ratio(duel, LIBRARY, OLDER).value, older);
	duel_print_noise(duel);
	printf("\n");
}

static void measure(struct report *report, const char *name, uint64_t (*older)(void *self, int *disturbed))
{
	char prefix[64];

	for (size_t i = 0; i < DENSITIES; i++)
		set_up(&field.duels[i], name, older);
	track_fight(&match, field.duels, DENSITIES);
	for (size_t i = 0; i < DENSITIES; i++) {
		snprintf(prefix, sizeof(prefix), "cycle.against_%s.%s", name, densities[i].name);
		duel_report(&field.duels[i], report, prefix);
		duel_report_ratio(&field.duels[i], report, prefix, LIBRARY, OLDER);
		if (!field.settings->common.json)
			print_row(&field.duels[i], &densities[i]);
	}
}

static void measure_mprotect(struct report *report)
{
	open_mprotect(&field.areas[OLDER]);
	measure(report, "mprotect", trial_mprotect);
	close_mprotect();
}

static void measure_soft_dirty(struct report *report)
{
	const char *reason = open_soft_dirty(&field.areas[OLDER]);

	if (reason) {
		fprintf(field.settings->common.json ? stderr : stdout, "soft_dirty      not offered here: %s\n",
		        reason);
		return;
	}
	measure(report, "soft_dirty", trial_soft_dirty);
	close_soft_dirty();
}

void track_cycle(struct report *report, const struct track_settings *settings)
{
	field.settings = settings;
	if (!settings->common.json)
		printf("\ncycle: anon; write 1 %%, collect, arm again, microseconds\n"
		       "%-15s %10s %10s %10s %10s %-10s %10s %10s  %s\n",
		       "written", "p50", "p99", "bare p50", "bare p99", "older method", "p50", "p99",
		       "the library takes");
	for (size_t i = 0; i < SIDES; i++)
		area_map_touched(&field.areas[i], UFFDWP_MEMORY_ANON, settings->size_bytes);
	pages_init(&field.bout.pages, field.areas[0].length_bytes / field.areas[0].page_bytes);
	measure_mprotect(report);
	measure_soft_dirty(report);
	pages_fini(&field.bout.pages);
	for (size_t i = 0; i < SIDES; i++)
		area_unmap(&field.areas[i]);
}
