/* SPDX-License-Identifier: MIT */
/* See place.h. */
#include "place.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "api.h"
#include "chance.h"
#include "kernel/kernel.h"
#include "support.h"
#include "witness.h"

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

struct place_case place_case(int index)
{
	return (struct place_case){(enum uffdwp_memory)(index / 2), (enum uffdwp_delivery)(index % 2)};
}

const char *place_memory_name(enum uffdwp_memory memory)
{
	static const char *const names[] = {"shmem", "hugetlb", "anon"};
	return names[memory];
}

size_t place_page_bytes(enum uffdwp_memory memory)
{
	return memory == UFFDWP_MEMORY_HUGETLB ? huge_page_bytes() : (size_t)sysconf(_SC_PAGESIZE);
}

static int inline_is_left_out(void)
{
	const char *deliveries = getenv("UFFDWP_TEST_DELIVERY");
	return deliveries != NULL && strcmp(deliveries, "thread") == 0;
}

enum uffdwp_delivery place_delivery(unsigned index)
{
	return index % 2 == 1 && !inline_is_left_out() ? UFFDWP_DELIVERY_INLINE : UFFDWP_DELIVERY_THREAD;
}

int place_possible(const char *test, struct place_case which)
{
	if (which.delivery == UFFDWP_DELIVERY_INLINE && inline_is_left_out()) {
		support_note(test, "inline delivery, left out by UFFDWP_TEST_DELIVERY");
		return 0;
	}
	if (which.memory == UFFDWP_MEMORY_HUGETLB && !support_has_huge_pages()) {
		support_note(test, "no huge pages");
		return 0;
	}
	return 1;
}

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

static int open_runtime(struct place *place, const struct kernel_ops *k, uint32_t flags)
{
	struct uffdwp_options options = UFFDWP_OPTIONS_INIT;
	options.flags = flags;
	return k == NULL ? uffdwp_open(&options, &place->runtime) : api_open(k, &options, &place->runtime);
}

static int create_region(struct place *place, struct place_case which)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	options.delivery = which.delivery;
	options.flags = which.memory == UFFDWP_MEMORY_HUGETLB ? UFFDWP_REGION_HUGETLB : 0;
	int error = uffdwp_region_create(place->runtime, place->length_bytes, &options, &place->region);
	if (error == 0) {
		place->base = uffdwp_region_base(place->region);
	}
	return error;
}

static int attach_region(struct place *place, struct place_case which, int knows_fd)
{
	struct patch patch = patch_map(which.memory, place->pages);
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	options.delivery = which.delivery;
	options.fd = knows_fd ? patch.fd : -1;
	int error = uffdwp_region_attach(place->runtime, patch.base, patch.length_bytes, &options, &place->region);
	if (error != 0) {
		patch_unmap(&patch);
		return error;
	}
	place->base = patch.base;
	place->fd = patch.fd;
	place->attached = 1;
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

int place_try(struct place *place, const struct kernel_ops *k, uint32_t open_flags, struct place_case which,
              size_t pages)
{
	place_init(place, which, pages);
	int error = open_runtime(place, k, open_flags);
	if (error != 0) {
		return error;
	}
	error = which.memory == UFFDWP_MEMORY_ANON ? attach_region(place, which, 0) : create_region(place, which);
	if (error != 0) {
		must(uffdwp_close(place->runtime) == 0);
	}
	return error;
}

void place_open(struct place *place, struct place_case which, size_t pages)
{
	int error = place_try(place, NULL, 0, which, pages);
	ck_assert_msg(error == 0, "%s region: %s", place_memory_name(which.memory), strerror(-error));
}

void place_attach(struct place *place, struct place_case which, size_t pages, int knows_fd)
{
	place_init(place, which, pages);
	ck_assert_int_eq(open_runtime(place, NULL, 0), 0);
	ck_assert_int_eq(attach_region(place, which, knows_fd), 0);
}

void place_close(struct place *place)
{
	ck_assert_int_eq(uffdwp_region_close(place->region), 0);
	ck_assert_int_eq(uffdwp_close(place->runtime), 0);
	if (place->attached && place->base != NULL) {
		struct patch patch = {place->base, place->page_bytes, place->length_bytes, place->fd};
		patch_unmap(&patch);
	}
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

uint64_t place_ledger(const struct place *place)
{
	uint64_t pages = UINT64_MAX;
	ck_assert_int_eq(uffdwp_region_armed(place->region, 0, place->length_bytes, &pages), 0);
	return pages;
}

size_t place_witness(const struct place *place)
{
	return witness_armed(place->base, place->length_bytes, place->page_bytes);
}

struct uffdwp_region_stats place_stats(const struct place *place)
{
	struct uffdwp_region_stats stats = {.sz = sizeof(stats)};
	ck_assert_int_eq(uffdwp_region_stats(place->region, &stats), 0);
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
