/* SPDX-License-Identifier: MIT */
/* See place.h. */
#include "place.h"
#include "kernel/probe.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api.h"
#include "chance.h"
#include "kernel/abi.h"
#include "kernel/kernel.h"
#include "support.h"
#include "witness.h"

/* --- cases ------------------------------------------------------------------------------------------------------ */

static struct probe_report report;
static int is_asked;

static size_t huge_page_bytes(void)
{
	FILE *meminfo = fopen("/proc/meminfo", "re");
	must(meminfo != NULL);
	char line[128];
	unsigned long kilobytes = 2048;
	while (fgets(line, sizeof(line), meminfo) != NULL) {
		if (strncmp(line, "Hugepagesize:", 13) == 0) {
			kilobytes = strtoul(line + 13, NULL, 10);
		}
	}
	(void)fclose(meminfo);
	return kilobytes << 10;
}

const char *place_memory_name(enum uffdwp_memory memory)
{
	static const char *const names[] = {"shmem", "hugetlb", "anon"};
	return names[memory];
}

const char *place_mechanism_name(enum uffdwp_mechanism mechanism)
{
	static const char *const names[] = {"auto", "marker", "rearm", "minor", "mprotect", "async", "soft-dirty"};
	return names[mechanism];
}

const char *place_delivery_name(enum uffdwp_delivery delivery)
{
	static const char *const names[] = {"auto", "thread", "inline"};
	return names[delivery];
}

const char *place_case_name(struct place_case which)
{
	static char name[64];
	(void)snprintf(name, sizeof(name), "%s, %s, %s", place_memory_name(which.memory),
	               place_mechanism_name(which.mechanism), place_delivery_name(which.delivery));
	return name;
}

size_t place_page_bytes(enum uffdwp_memory memory)
{
	return memory == UFFDWP_MEMORY_HUGETLB ? huge_page_bytes() : (size_t)sysconf(_SC_PAGESIZE);
}

static enum uffdwp_delivery delivery_of(int index)
{
	return index % 2 ? UFFDWP_DELIVERY_INLINE : UFFDWP_DELIVERY_THREAD;
}

struct place_case place_case(int index)
{
	return (struct place_case){(enum uffdwp_memory)(index / 2 / PLACE_MECHANISMS),
	                           (enum uffdwp_mechanism)(UFFDWP_MECHANISM_MARKER + index / 2 % PLACE_MECHANISMS),
	                           delivery_of(index)};
}

struct place_case place_auto_case(int index)
{
	return (struct place_case){(enum uffdwp_memory)(index / 2), UFFDWP_MECHANISM_AUTO, delivery_of(index)};
}

struct place_case place_any(enum uffdwp_memory memory)
{
	return (struct place_case){memory, UFFDWP_MECHANISM_AUTO, UFFDWP_DELIVERY_AUTO};
}

struct place_case place_by(enum uffdwp_memory memory, enum uffdwp_mechanism mechanism)
{
	return (struct place_case){memory, mechanism, UFFDWP_DELIVERY_AUTO};
}

static int inline_is_left_out(void)
{
	const char *deliveries = getenv("UFFDWP_TEST_DELIVERY");
	return deliveries != NULL && strcmp(deliveries, "thread") == 0;
}

static int is_left_out(enum uffdwp_mechanism mechanism)
{
	const char *only = getenv("UFFDWP_TEST_MECHANISM");
	return only != NULL && strcmp(only, place_mechanism_name(mechanism)) != 0;
}

enum uffdwp_mechanism place_mechanism(struct place_case which)
{
	return which.mechanism != UFFDWP_MECHANISM_AUTO ? which.mechanism
	                                                : (enum uffdwp_mechanism)report.memory[which.memory].mechanism;
}

int place_possible(struct place_case which)
{
	enum uffdwp_mechanism mechanism = place_mechanism(which);
	const struct probe_rung *rung = &report.memory[which.memory].rungs[mechanism];
	must(is_asked); /* place_begin() comes first */
	if (mechanism == UFFDWP_MECHANISM_AUTO || !rung->works ||
	    (which.memory == UFFDWP_MEMORY_HUGETLB && !support_has_huge_pages()) ||
	    (which.mechanism != UFFDWP_MECHANISM_AUTO && is_left_out(mechanism))) {
		return 0;
	}
	int with_thread = rung->thread_works != 0;
	int with_inline = rung->inline_works && !inline_is_left_out();
	switch (which.delivery) {
	case UFFDWP_DELIVERY_THREAD:
		return with_thread;
	case UFFDWP_DELIVERY_INLINE:
		return with_inline;
	default:
		return with_thread || with_inline;
	}
}

enum uffdwp_delivery place_delivery(enum uffdwp_memory memory, unsigned index)
{
	struct place_case wanted = place_auto_case((int)memory * 2 + (int)(index % 2));
	return place_possible(wanted) ? wanted.delivery : UFFDWP_DELIVERY_AUTO;
}

int place_follows(struct place_case which)
{
	return place_mechanism(which) != UFFDWP_MECHANISM_MPROTECT;
}

/* For a case with a delivery that is named. A userfaultfd of user mode only leaves the kernel's own faults
 * unanswered. */
int place_system_calls_wait(struct place_case which)
{
	return which.delivery == UFFDWP_DELIVERY_THREAD && report.access_chosen != UFFDWP_ACCESS_USER_MODE;
}

int place_needs_fd(struct place_case which)
{
	enum uffdwp_mechanism mechanism = place_mechanism(which);
	return which.memory != UFFDWP_MEMORY_ANON &&
	       (mechanism == UFFDWP_MECHANISM_REARM || mechanism == UFFDWP_MECHANISM_MINOR);
}

/* Thread delivery of mprotect is nothing that could be missing. */
static void note_missing(enum uffdwp_memory memory, enum uffdwp_mechanism mechanism)
{
	const struct probe_rung *rung = &report.memory[memory].rungs[mechanism];
	char name[64];
	(void)snprintf(name, sizeof(name), "%s by %s", place_memory_name(memory), place_mechanism_name(mechanism));
	if (is_left_out(mechanism)) {
		return;
	}
	if (!rung->works) {
		support_note(name, rung->reason);
	} else if (!rung->inline_works) {
		support_note(name, "no inline delivery");
	} else if (!rung->thread_works && mechanism != UFFDWP_MECHANISM_MPROTECT) {
		support_note(name, "no delivery by a thread");
	}
}

void place_begin(void)
{
	must(probe_run(&kernel_real, &report) == 0);
	is_asked = 1;
	if (inline_is_left_out()) {
		support_note("inline delivery", "left out by UFFDWP_TEST_DELIVERY");
	}
	if (getenv("UFFDWP_TEST_MECHANISM") != NULL) {
		support_note("all mechanisms but one", "left out by UFFDWP_TEST_MECHANISM");
	}
	if ((report.features & UFFD_FEATURE_POISON) == 0) {
		support_note("lazy restores by a thread", "no UFFDIO_POISON (Linux 6.6)");
	}
	for (int memory = 0; memory < UFFDWP_MEMORY_COUNT; memory++) {
		if (memory == UFFDWP_MEMORY_HUGETLB && !support_has_huge_pages()) {
			continue; /* wanted in vain, which was said, or not wanted */
		}
		for (int mechanism = UFFDWP_MECHANISM_MARKER; mechanism < UFFDWP_MECHANISM_REGION_COUNT; mechanism++) {
			note_missing((enum uffdwp_memory)memory, (enum uffdwp_mechanism)mechanism);
		}
	}
}

int place_is_filtered(const char *test)
{
	struct probe_report now = {0};
	must(probe_run(&kernel_real, &now) == 0);
	if (now.seccomp != 2 || now.access[UFFDWP_ACCESS_SYSCALL] == 0) {
		return 0;
	}
	support_note(test, "a filter refuses userfaultfd(2) here");
	return 1;
}

const struct probe_report *place_report(void)
{
	return &report;
}

/* --- memory ----------------------------------------------------------------------------------------------------- */

struct patch patch_map(enum uffdwp_memory memory, size_t pages)
{
	struct patch patch = {NULL, place_page_bytes(memory), 0, -1};
	patch.length_bytes = pages * patch.page_bytes;
	int flags = MAP_PRIVATE | MAP_ANONYMOUS;
	if (memory != UFFDWP_MEMORY_ANON) {
		unsigned huge = memory == UFFDWP_MEMORY_HUGETLB ? MFD_HUGETLB : 0;
		patch.fd = memfd_create("test", MFD_CLOEXEC | huge);
		must(patch.fd >= 0 && ftruncate(patch.fd, (off_t)patch.length_bytes) == 0);
		flags = MAP_SHARED;
	}
	void *base = mmap(NULL, patch.length_bytes, PROT_READ | PROT_WRITE, flags, patch.fd, 0);
	must(base != MAP_FAILED);
	patch.base = base;
	return patch;
}

void patch_unmap(const struct patch *patch)
{
	must(munmap(patch->base, patch->length_bytes) == 0);
	if (patch->fd >= 0) {
		close(patch->fd);
	}
}

int place_has_increments(struct place_case which)
{
	enum uffdwp_mechanism mechanism = place_mechanism(which);
	if (which.memory == UFFDWP_MEMORY_ANON) {
		return mechanism == UFFDWP_MECHANISM_REARM;
	}
	return which.memory == UFFDWP_MEMORY_SHMEM &&
	       (mechanism == UFFDWP_MECHANISM_MARKER || mechanism == UFFDWP_MECHANISM_REARM);
}

int place_moves(struct place_case which)
{
	return place_possible(which) && report.moves[which.memory].works &&
	       (place_mechanism(which) == UFFDWP_MECHANISM_MARKER || place_mechanism(which) == UFFDWP_MECHANISM_REARM);
}

int place_moves_unasked(struct place_case which)
{
	return place_moves(which) && place_system_calls_wait(which);
}

int place_restores_lazily(struct place_case which)
{
	return which.mechanism == UFFDWP_MECHANISM_REARM && place_possible(which) &&
	       (which.delivery == UFFDWP_DELIVERY_INLINE || (report.features & UFFD_FEATURE_POISON) != 0);
}

int place_takes_dontneed(enum uffdwp_memory memory)
{
	struct patch patch = patch_map(memory, 1);
	int takes = madvise(patch.base, patch.length_bytes, MADV_DONTNEED) == 0;
	patch_unmap(&patch);
	return takes;
}

/* --- regions ---------------------------------------------------------------------------------------------------- */

static int open_runtime(struct place *place, const struct kernel_ops *k, uint32_t flags)
{
	struct uffdwp_options options = UFFDWP_OPTIONS_INIT;
	options.flags = flags;
	return k == NULL ? uffdwp_open(&options, &place->runtime) : api_open(k, &options, &place->runtime);
}

static struct uffdwp_region_options options_of(struct place_case which, const struct uffdwp_region_options *base)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	if (base != NULL) {
		options = *base;
	}
	options.mechanism = which.mechanism;
	options.delivery = which.delivery;
	return options;
}

/* What AUTO became. */
static void note_choice(struct place *place)
{
	struct uffdwp_region_info info = {.sz = sizeof(info)};
	must(uffdwp_region_info(place->region, &info) == 0);
	place->mechanism = (enum uffdwp_mechanism)info.mechanism;
	place->delivery = (enum uffdwp_delivery)info.delivery;
}

static int create_region(struct place *place, struct place_case which, const struct uffdwp_region_options *base)
{
	struct uffdwp_region_options options = options_of(which, base);
	options.flags |= which.memory == UFFDWP_MEMORY_HUGETLB ? UFFDWP_REGION_CREATE_HUGETLB : 0;
	int error = uffdwp_region_create(place->runtime, place->length_bytes, &options, &place->region);
	if (error == 0) {
		place->base = uffdwp_region_base(place->region);
		note_choice(place);
	}
	return error;
}

static int attach_region(struct place *place, struct place_case which, int knows_fd,
                         const struct uffdwp_region_options *base)
{
	struct patch patch = patch_map(which.memory, place->pages);
	struct uffdwp_region_options options = options_of(which, base);
	options.fd = knows_fd ? patch.fd : -1;
	int error = uffdwp_region_attach(place->runtime, patch.base, patch.length_bytes, &options, &place->region);
	if (error != 0) {
		patch_unmap(&patch);
		return error;
	}
	place->base = patch.base;
	place->fd = patch.fd;
	place->attached = 1;
	note_choice(place);
	return 0;
}

static void place_init(struct place *place, struct place_case which, size_t pages)
{
	memset(place, 0, sizeof(*place));
	place->fd = -1;
	place->pages = pages;
	place->page_bytes = place_page_bytes(which.memory);
	place->length_bytes = pages * place->page_bytes;
}

static int try_with(struct place *place, const struct kernel_ops *k, uint32_t open_flags, struct place_case which,
                    const struct uffdwp_region_options *options)
{
	int error = open_runtime(place, k, open_flags);
	if (error != 0) {
		return error;
	}
	error = which.memory == UFFDWP_MEMORY_ANON ? attach_region(place, which, 0, options)
	                                           : create_region(place, which, options);
	if (error != 0) {
		must(uffdwp_close(place->runtime) == 0);
	}
	return error;
}

int place_try(struct place *place, const struct kernel_ops *k, uint32_t open_flags, struct place_case which,
              size_t pages)
{
	place_init(place, which, pages);
	return try_with(place, k, open_flags, which, NULL);
}

void place_open_with(struct place *place, struct place_case which, size_t pages,
                     const struct uffdwp_region_options *options)
{
	place_init(place, which, pages);
	int error = try_with(place, NULL, 0, which, options);
	ck_assert_msg(error == 0, "%s: %s", place_case_name(which), strerror(-error));
}

void place_open(struct place *place, struct place_case which, size_t pages)
{
	place_open_with(place, which, pages, NULL);
}

void place_attach(struct place *place, struct place_case which, size_t pages, int knows_fd)
{
	place_init(place, which, pages);
	ck_assert_int_eq(open_runtime(place, NULL, 0), 0);
	int error = attach_region(place, which, knows_fd, NULL);
	ck_assert_msg(error == 0, "%s: %s", place_case_name(which), strerror(-error));
}

void place_touch(const struct place *place)
{
	for (size_t page = 0; page < place->pages; page++) {
		((volatile uint8_t *)place->base)[page * place->page_bytes] = (uint8_t)(page + 1);
	}
}

void place_fill(const struct place *place, uint64_t salt)
{
	struct chance chance = chance_new(salt);
	chance_fill(&chance, place->base, place->length_bytes);
}

int place_fd(const struct place *place)
{
	struct uffdwp_region_info info = {.sz = sizeof(info)};
	must(uffdwp_region_info(place->region, &info) == 0);
	return info.fd;
}

/* --- what is known ---------------------------------------------------------------------------------------------- */

uint64_t place_ledger(const struct place *place)
{
	uint64_t pages = UINT64_MAX;
	must(uffdwp_region_armed(place->region, 0, place->length_bytes, &pages) == 0);
	return pages;
}

int place_is_armed(const struct place *place, size_t page)
{
	uint64_t pages = 0;
	must(uffdwp_region_armed(place->region, page * place->page_bytes, place->page_bytes, &pages) == 0);
	return pages == 1;
}

int place_witness_knows(const struct place *place)
{
	int by_wp_bits = place->mechanism == UFFDWP_MECHANISM_MARKER || place->mechanism == UFFDWP_MECHANISM_REARM;
	return !by_wp_bits || report.pagemap_bit57 == 1;
}

static int page_agrees(enum uffdwp_mechanism mechanism, int armed, unsigned view)
{
	int wp = (view & WITNESS_WP) != 0;
	int empty = (view & (WITNESS_PRESENT | WITNESS_SWAPPED)) == 0;
	switch (mechanism) {
	case UFFDWP_MECHANISM_MARKER:
		return armed == wp;
	case UFFDWP_MECHANISM_REARM:
		return armed ? wp || empty : !wp;
	case UFFDWP_MECHANISM_MINOR:
		return !armed || empty;
	default:
		return armed == ((view & WITNESS_READ_ONLY) != 0);
	}
}

int place_agrees(const struct place *place)
{
	if (!place_witness_knows(place)) {
		return 1;
	}
	uint8_t *views = calloc(place->pages, 1);
	must(views != NULL);
	size_t page = 0;
	witness_look(place->base, place->length_bytes, place->page_bytes, views);
	while (page < place->pages && page_agrees(place->mechanism, place_is_armed(place, page), views[page])) {
		page++;
	}
	if (page < place->pages) {
		fprintf(stderr, "%s: page %zu is %s in the ledger, the kernel shows %#x\n",
		        place_mechanism_name(place->mechanism), page,
		        place_is_armed(place, page) ? "armed" : "not armed", views[page]);
	}
	int agrees = page == place->pages;
	free(views);
	return agrees;
}

int place_released(const struct place *place)
{
	unsigned protection = place->mechanism == UFFDWP_MECHANISM_MPROTECT ? WITNESS_READ_ONLY : WITNESS_WP;
	return !place_witness_knows(place) ||
	       witness_count(place->base, place->length_bytes, place->page_bytes, protection) == 0;
}

void place_expect_armed(const struct place *place, size_t pages)
{
	ck_assert_uint_eq(place_ledger(place), pages);
	ck_assert_int_eq(place_agrees(place), 1);
}

struct uffdwp_region_stats place_stats(const struct place *place)
{
	struct uffdwp_region_stats stats = {.sz = sizeof(stats)};
	must(uffdwp_region_stats(place->region, &stats) == 0);
	return stats;
}

struct fault_target {
	const struct place *place;
	uint64_t faults;
};

static int has_faults(void *argument)
{
	const struct fault_target *target = argument;
	return place_stats(target->place).faults >= target->faults;
}

uint64_t place_faults(const struct place *place, uint64_t expected)
{
	struct fault_target target = {place, expected};
	(void)wait_until(has_faults, &target, 10);
	return place_stats(place).faults;
}

/* --- the end ---------------------------------------------------------------------------------------------------- */

static int is_dead(const struct place *place)
{
	struct uffdwp_region_info info = {.sz = sizeof(info)};
	must(uffdwp_region_info(place->region, &info) == 0);
	return info.dead != 0;
}

/* The witness of a kernel that shows no wp bits: every armed page stops a write. */
static void count_writes(const struct place *place)
{
	volatile uint8_t none = 0; /* what a compiler knows to be zero it may take for a load */
	uint64_t armed = place_ledger(place);
	uint64_t before = place_stats(place).pages_disarmed;
	for (size_t page = 0; page < place->pages; page++) {
		__atomic_fetch_or(place->base + page * place->page_bytes, none, __ATOMIC_RELAXED);
	}
	must(place_stats(place).pages_disarmed - before == armed);
}

void place_close(struct place *place)
{
	if (place->base != NULL && place->pages != 0 && !place_witness_knows(place) && !is_dead(place)) {
		count_writes(place);
	}
	ck_assert_int_eq(uffdwp_region_close(place->region), 0);
	ck_assert_int_eq(uffdwp_close(place->runtime), 0);
	if (place->attached && place->base != NULL) {
		struct patch patch = {place->base, place->page_bytes, place->length_bytes, place->fd};
		patch_unmap(&patch);
	}
}

/* A kernel without uffd-wp for shared memory has no children. In a child of fork(2): Check is not running yet. */
static void place_try_child(void *argument)
{
	struct uffdwp *runtime = NULL;
	struct uffdwp_region *region = NULL;
	int status = 0;
	(void)argument;
	must(uffdwp_open(NULL, &runtime) == 0);
	must(uffdwp_region_create(runtime, 256 * place_page_bytes(UFFDWP_MEMORY_SHMEM), NULL, &region) == 0);
	pid_t pid = uffdwp_fork(runtime, NULL, NULL);
	if (pid == 0) {
		_exit(7);
	}
	must(pid > 0 && waitpid(pid, &status, 0) == pid && status == 7 << 8);
	must(uffdwp_region_close(region) == 0);
	must(uffdwp_close(runtime) == 0);
}

int place_has_children(void)
{
	return child_run(place_try_child, NULL) == 0;
}
