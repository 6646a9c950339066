/* SPDX-License-Identifier: MIT */
/*
 * Programs hand all kinds of memory to a region or to a track: what they have. Each kind either works, proved by an
 * image that is compared and by writes that a collect must contain, or is refused with one of the documented errors and
 * a text. For memory that works by the mechanism that the library chooses, each other mechanism must work as well or
 * say -EOPNOTSUPP.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "chance.h"
#include "habit.h"
#include "scratch.h"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif
#ifndef MFD_HUGETLB
#define MFD_HUGETLB 4u
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define TARGET_PAGES 64u

/* What a program has, and what attach must answer. */
struct target {
	const char *name;
	/* Maps it: base, length, fd. 0: this machine has no such memory. */
	int (*make)(struct target *target);
	int errors[3]; /* of uffdwp_region_attach(): all 0: it works */
	int may_work;  /* with errors: or it works */
	int tracks;    /* 1: a track must take it; 0: may refuse it, with a text */
	uint8_t *base;
	size_t length;
	const char *word; /* that the text of a refusal by the chosen mechanism must contain */
	int fd;
	int read_only; /* nothing can be written: what is refused */
};

static size_t page;
static uint8_t bss[TARGET_PAGES * 65536];
static uint8_t data[65536 * 4] = {1};

static int target_map(struct target *target, int protection, int flags, int fd)
{
	target->length = TARGET_PAGES * page;
	target->base = mmap(NULL, target->length, protection, flags, fd, 0);
	target->fd = -1;
	return target->base != MAP_FAILED;
}

#define READ_WRITE (PROT_READ | PROT_WRITE)

static int make_private(struct target *target)
{
	return target_map(target, READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

static int make_noreserve(struct target *target)
{
	return target_map(target, READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
}

static int make_growing_down(struct target *target)
{
	return target_map(target, READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN, -1);
}

static int make_locked(struct target *target)
{
	return make_private(target) && mlock(target->base, target->length) == 0;
}

static int make_executable(struct target *target)
{
	return target_map(target, READ_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

static int make_populated(struct target *target)
{
	return target_map(target, READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1);
}

static int make_transparent_huge(struct target *target)
{
	size_t huge = 2ul << 20;
	uint8_t *memory = mmap(NULL, 4 * huge, READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	target->base = (uint8_t *)(((uintptr_t)memory + huge - 1) & ~(huge - 1));
	target->length = 2 * huge;
	target->fd = -1;
	return memory != MAP_FAILED && madvise(target->base, target->length, MADV_HUGEPAGE) == 0;
}

static int make_no_transparent_huge(struct target *target)
{
	return make_private(target) && madvise(target->base, target->length, MADV_NOHUGEPAGE) == 0;
}

static int make_shared(struct target *target)
{
	return target_map(target, READ_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1);
}

static int make_file(struct target *target, int fd, int flags)
{
	if (fd < 0 || ftruncate(fd, (off_t)(TARGET_PAGES * page)) != 0) {
		return 0;
	}
	int made = target_map(target, READ_WRITE, flags, fd);
	target->fd = fd;
	return made;
}

static int make_memfd(struct target *target)
{
	return make_file(target, memfd_create("target", MFD_CLOEXEC), MAP_SHARED);
}

static int make_memfd_unknown(struct target *target)
{
	int made = make_memfd(target);
	must(close(target->fd) == 0);
	target->fd = -1;
	return made;
}

static int make_memfd_private(struct target *target)
{
	return make_file(target, memfd_create("target", MFD_CLOEXEC), MAP_PRIVATE);
}

static int make_memfd_sealed(struct target *target)
{
	int fd = memfd_create("target", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	return make_file(target, fd, MAP_SHARED) &&
	       fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) == 0;
}

static int target_open(const char *folder, const char *name, int fd_flags)
{
	char path[SCRATCH_PATH];
	scratch_join(path, folder, name);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | fd_flags, 0600);
	if (fd >= 0) {
		must(unlink(path) == 0);
	}
	return fd;
}

static int make_dev_shm(struct target *target)
{
	return make_file(target, target_open("/dev/shm", "uffdwp-habit", 0), MAP_SHARED);
}

static int make_dev_shm_private(struct target *target)
{
	return make_file(target, target_open("/dev/shm", "uffdwp-habit", 0), MAP_PRIVATE);
}

static int make_disk(struct target *target, int flags)
{
	char folder[SCRATCH_PATH];
	scratch_folder(folder);
	return make_file(target, target_open(folder, "target", 0), flags);
}

static int make_disk_shared(struct target *target)
{
	return make_disk(target, MAP_SHARED);
}

static int make_disk_private(struct target *target)
{
	return make_disk(target, MAP_PRIVATE);
}

static int make_dev_zero(struct target *target, int flags)
{
	int fd = open("/dev/zero", O_RDWR | O_CLOEXEC);
	int made = fd >= 0 && target_map(target, READ_WRITE, flags, fd);
	return made && close(fd) == 0;
}

static int make_dev_zero_private(struct target *target)
{
	return make_dev_zero(target, MAP_PRIVATE);
}

static int make_dev_zero_shared(struct target *target)
{
	return make_dev_zero(target, MAP_SHARED);
}

static int make_system_v(struct target *target)
{
	int id = shmget(IPC_PRIVATE, TARGET_PAGES * page, IPC_CREAT | 0600);
	if (id < 0) {
		return 0;
	}
	target->base = shmat(id, NULL, 0);
	target->length = TARGET_PAGES * page;
	target->fd = -1;
	must(shmctl(id, IPC_RMID, NULL) == 0);
	return target->base != (void *)-1;
}

static int make_brk(struct target *target)
{
	uint8_t *memory = sbrk((intptr_t)((TARGET_PAGES + 1) * page));
	target->base = (uint8_t *)(((uintptr_t)memory + page - 1) & ~(page - 1));
	target->length = TARGET_PAGES * page;
	target->fd = -1;
	return memory != (void *)-1;
}

static int make_within(struct target *target, uint8_t *first, size_t size)
{
	target->base = (uint8_t *)(((uintptr_t)first + page - 1) & ~(page - 1));
	target->length = (size - page) / page * page;
	target->fd = -1;
	return 1;
}

static int make_bss(struct target *target)
{
	return make_within(target, bss, sizeof(bss));
}

static int make_data(struct target *target)
{
	return make_within(target, data, sizeof(data));
}

static int make_huge_private(struct target *target)
{
	size_t huge = habit_probed_page_bytes(UFFDWP_MEMORY_HUGETLB);
	target->length = 2 * huge;
	target->base = mmap(NULL, target->length, READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	target->fd = -1;
	return support_has_huge_pages() && target->base != MAP_FAILED;
}

static int make_huge_memfd(struct target *target)
{
	size_t huge = habit_probed_page_bytes(UFFDWP_MEMORY_HUGETLB);
	target->fd = memfd_create("target", MFD_CLOEXEC | MFD_HUGETLB);
	target->length = 2 * huge;
	if (!support_has_huge_pages() || target->fd < 0 || ftruncate(target->fd, (off_t)target->length) != 0) {
		return 0;
	}
	target->base = mmap(NULL, target->length, READ_WRITE, MAP_SHARED, target->fd, 0);
	return target->base != MAP_FAILED;
}

static int make_secret(struct target *target)
{
#ifdef SYS_memfd_secret
	return make_file(target, (int)syscall(SYS_memfd_secret, 0), MAP_SHARED);
#else
	return (void)target, 0;
#endif
}

static int make_reservation(struct target *target)
{
	target->read_only = 1;
	return target_map(target, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
}

static int make_read_only(struct target *target)
{
	target->read_only = 1;
	return target_map(target, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

static int make_partly_read_only(struct target *target)
{
	target->read_only = 1;
	return make_shared(target) && mprotect(target->base + 8 * page, page, PROT_READ) == 0;
}

/* Far below of where mappings go, so that a gap stays one. */
static int make_low(struct target *target)
{
	target->read_only = 1;
	target->length = TARGET_PAGES * page;
	target->fd = -1;
	target->base = mmap((void *)((uintptr_t)1 << (sizeof(void *) == 8 ? 36 : 29)), target->length, READ_WRITE,
	                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return target->base != MAP_FAILED;
}

static int make_with_a_gap(struct target *target)
{
	return make_low(target) && munmap(target->base + 8 * page, page) == 0;
}

static int make_nothing(struct target *target)
{
	return make_low(target) && munmap(target->base, target->length) == 0;
}

static int make_two_types(struct target *target)
{
	return make_private(target) && mmap(target->base + 8 * page, 8 * page, READ_WRITE,
	                                    MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED;
}

static int make_vdso(struct target *target)
{
	target->read_only = 1;
	target->base = (uint8_t *)(uintptr_t)getauxval(AT_SYSINFO_EHDR); // NOLINT(performance-no-int-to-ptr)
	target->length = page;
	target->fd = -1;
	return target->base != NULL;
}

static int make_text(struct target *target)
{
	target->read_only = 1;
	target->base = (uint8_t *)((uintptr_t)&make_text & ~(page - 1));
	target->length = page;
	target->fd = -1;
	return 1;
}

static int make_address_zero(struct target *target)
{
	target->read_only = 1;
	target->base = NULL;
	target->length = page;
	target->fd = -1;
	return 1;
}

static int make_wrapping(struct target *target)
{
	target->read_only = 1;
	target->base = (uint8_t *)(UINTPTR_MAX & ~(page - 1));
	target->length = 2 * page;
	target->fd = -1;
	return 1;
}

static int make_kernel_half(struct target *target)
{
	target->read_only = 1;
	target->base = (uint8_t *)(UINTPTR_MAX - 64 * page + 1);
	target->length = 2 * page;
	target->fd = -1;
	return 1;
}

static int make_unaligned_address(struct target *target)
{
	int made = make_private(target);
	target->read_only = 1;
	target->base += 16;
	target->length -= page;
	return made;
}

static int make_unaligned_length(struct target *target)
{
	int made = make_private(target);
	target->read_only = 1;
	target->length -= 16;
	return made;
}

static int make_empty(struct target *target)
{
	int made = make_private(target);
	target->read_only = 1;
	target->length = 0;
	return made;
}

static int make_beyond_the_file(struct target *target)
{
	int made = make_memfd(target);
	target->read_only = 1;
	return made && ftruncate(target->fd, (off_t)(8 * page)) == 0;
}

/* The program has a userfaultfd of its own there. */
static int make_registered(struct target *target)
{
	struct uffdio_api api = {.api = UFFD_API};
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) != 0 || !make_populated(target)) {
		return 0;
	}
	struct uffdio_register range = {.range = {(uintptr_t)target->base, target->length},
	                                .mode = UFFDIO_REGISTER_MODE_MISSING};
	return ioctl(uffd, UFFDIO_REGISTER, &range) == 0;
}

static struct target targets[] = {
        {.name = "anonymous private memory", .make = make_private, .tracks = 1},
        {.name = "MAP_NORESERVE", .make = make_noreserve, .tracks = 1},
        {.name = "MAP_GROWSDOWN", .make = make_growing_down, .tracks = 1},
        {.name = "locked memory", .make = make_locked, .tracks = 1},
        {.name = "executable memory", .make = make_executable, .tracks = 1},
        {.name = "MAP_POPULATE", .make = make_populated, .tracks = 1},
        {.name = "MADV_HUGEPAGE", .make = make_transparent_huge, .tracks = 1},
        {.name = "MADV_NOHUGEPAGE", .make = make_no_transparent_huge, .tracks = 1},
        {.name = "anonymous shared memory", .make = make_shared, .tracks = 1},
        {.name = "memfd", .make = make_memfd, .tracks = 1},
        {.name = "memfd, its file closed", .make = make_memfd_unknown, .tracks = 1},
        {.name = "memfd, sealed", .make = make_memfd_sealed, .tracks = 1},
        {.name = "memfd, MAP_PRIVATE", .make = make_memfd_private, .errors = {-EMEDIUMTYPE}, .tracks = 1},
        {.name = "file in /dev/shm", .make = make_dev_shm, .tracks = 1},
        {.name = "file in /dev/shm, MAP_PRIVATE", .make = make_dev_shm_private, .errors = {-EMEDIUMTYPE}, .tracks = 1},
        {.name = "file on disk, MAP_SHARED", .make = make_disk_shared, .errors = {-EMEDIUMTYPE}, .tracks = 1},
        {.name = "file on disk, MAP_PRIVATE", .make = make_disk_private, .errors = {-EMEDIUMTYPE}, .tracks = 1},
        {.name = "/dev/zero, MAP_PRIVATE", .make = make_dev_zero_private, .errors = {-EMEDIUMTYPE}, .may_work = 1},
        {.name = "/dev/zero, MAP_SHARED", .make = make_dev_zero_shared, .tracks = 1},
        {.name = "System V shared memory",
         .make = make_system_v,
         .word = "System V",
         .errors = {-EMEDIUMTYPE},
         .may_work = 1,
         .tracks = 1},
        {.name = "brk", .make = make_brk, .tracks = 1},
        {.name = ".bss", .make = make_bss, .tracks = 1},
        {.name = ".data", .make = make_data, .errors = {-EMEDIUMTYPE}, .tracks = 1},
        {.name = "hugetlb, private", .make = make_huge_private, .errors = {-EMEDIUMTYPE, -EOPNOTSUPP}, .may_work = 1},
        {.name = "hugetlb, memfd", .make = make_huge_memfd},
        {.name = "memfd_secret", .make = make_secret, .errors = {-EMEDIUMTYPE, -EOPNOTSUPP}},
        {.name = "registered by the program", .make = make_registered, .errors = {-EBUSY}, .may_work = 1},
        {.name = "PROT_NONE", .make = make_reservation, .errors = {-EACCES}},
        {.name = "read-only memory", .make = make_read_only, .errors = {-EACCES}},
        {.name = "partly read-only memory", .make = make_partly_read_only, .errors = {-EACCES}},
        {.name = "a gap inside", .make = make_with_a_gap, .errors = {-ENOENT}},
        {.name = "nothing", .make = make_nothing, .errors = {-ENOENT}},
        {.name = "two types", .make = make_two_types, .errors = {-EMEDIUMTYPE, -EINVAL}},
        {.name = "vdso", .make = make_vdso, .errors = {-EACCES, -EMEDIUMTYPE}},
        {.name = "text", .make = make_text, .errors = {-EACCES, -EMEDIUMTYPE}},
        {.name = "address 0", .make = make_address_zero, .errors = {-EINVAL, -ENOENT}},
        {.name = "a range that wraps around", .make = make_wrapping, .errors = {-EINVAL}},
        {.name = "the kernel's half", .make = make_kernel_half, .errors = {-EINVAL, -ENOENT, -EOVERFLOW}},
        {.name = "unaligned address", .make = make_unaligned_address, .errors = {-EINVAL}},
        {.name = "unaligned length", .make = make_unaligned_length, .errors = {-EINVAL}},
        {.name = "length 0", .make = make_empty, .errors = {-EINVAL}},
        {.name = "beyond the end of the file",
         .make = make_beyond_the_file,
         .errors = {-EINVAL, -ENOENT, -EACCES},
         .may_work = 1},
};
#define TARGETS ((int)(sizeof(targets) / sizeof(targets[0])))

static int target_made(struct target *target)
{
	int made = target->make(target);
	if (!made) {
		support_note(target->name, "this machine does not give a program such memory");
	}
	return made;
}

/* --- regions ---------------------------------------------------------------------------------------------------- */

static void region_round(struct target *target, struct habit_case which, int expected_to_work)
{
	struct habit habit;
	int rc = habit_try_on(&habit, which, target->base, target->length, target->fd, 0);
	if (rc != 0) {
		int by_name = which.mechanism != UFFDWP_MECHANISM_AUTO;
		fprintf(stderr, "%s, %s: %d\n", target->name, habit_name(which), rc);
		must((by_name && rc == -EOPNOTSUPP) || (!expected_to_work && is_one_of(rc, target->errors, 3)));
		must(by_name || target->word == NULL || strstr(habit.why, target->word) != NULL);
		return;
	}
	must(expected_to_work || target->may_work);
	if (!target->read_only) {
		struct uffdwp_region_info info = {.sz = sizeof(info)};
		must_be(habit.runtime, uffdwp_region_info(habit.region, &info), 0);
		habit.page_bytes = (size_t)info.page_bytes;
		habit.pages = habit.length_bytes / habit.page_bytes;
		habit_fill(&habit, 1);
		habit_round(&habit, 2);
		habit_round(&habit, 3);
	}
	habit_close(&habit);
}

START_TEST(test_a_region_takes_memory_or_says_why_not)
{
	struct target *target = &targets[_i];
	if (!target_made(target)) {
		return;
	}
	printf("%s\n", target->name);
	int works = target->errors[0] == 0;
	struct habit_case any = {UFFDWP_MEMORY_ANON, UFFDWP_MECHANISM_AUTO, UFFDWP_DELIVERY_AUTO};
	region_round(target, any, works);
	for (int index = 0; index < HABIT_CASES / 3; index++) {
		struct habit_case which = habit_case(index);
		region_round(target, which, works);
	}
}
END_TEST

/* --- tracks ----------------------------------------------------------------------------------------------------- */

static int track_contains(const struct uffdwp_written *ranges, size_t count, const void *address)
{
	for (size_t i = 0; i < count; i++) {
		if (ranges[i].start <= (uintptr_t)address && (uintptr_t)address < ranges[i].end) {
			return 1;
		}
	}
	return 0;
}

static void track_round(struct uffdwp *runtime, struct uffdwp_track *track, struct target *target, uint64_t salt)
{
	static struct uffdwp_written ranges[4096];
	struct chance chance = chance_new(salt);
	uint8_t *places[32];
	for (size_t i = 0; i < 32; i++) {
		places[i] = target->base + chance_below(&chance, target->length);
		*(volatile uint8_t *)places[i] = (uint8_t)i;
	}
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	collect.ranges = ranges;
	collect.capacity = 4096;
	must_be(runtime, uffdwp_track_collect(track, &collect), 0);
	for (size_t i = 0; i < 32; i++) {
		must(track_contains(ranges, collect.count, places[i]));
	}
}

static void track_target(struct target *target, enum uffdwp_mechanism mechanism)
{
	struct uffdwp *runtime;
	must_be(NULL, uffdwp_open(NULL, &runtime), 0);
	struct uffdwp_track_options options = UFFDWP_TRACK_OPTIONS_INIT;
	options.mechanism = mechanism;
	struct uffdwp_track *track;
	char why[512] = "";
	int rc = uffdwp_track_start(runtime, &options, &track);
	if (rc == 0) {
		rc = uffdwp_track_add(track, target->base, target->length, 0);
		if (rc == 0) {
			must(!target->read_only || target->errors[0] == -EACCES || target->may_work);
			for (uint64_t round = 0; round < 3 && !target->read_only; round++) {
				track_round(runtime, track, target, round);
			}
			must_be(runtime, uffdwp_track_remove(track, target->base, target->length), 0);
		} else {
			must(uffdwp_error_text(why, sizeof(why)) != 0);
		}
		must_be(runtime, uffdwp_track_stop(track), 0);
	} else {
		must(rc == -EOPNOTSUPP && uffdwp_error_text(why, sizeof(why)) != 0);
	}
	fprintf(stderr, "%s, mechanism %d: %d %s\n", target->name, (int)mechanism, rc, why);
	must(rc == 0 || !target->tracks || mechanism != UFFDWP_MECHANISM_AUTO);
	must_be(runtime, uffdwp_close(runtime), 0);
}

START_TEST(test_a_track_takes_memory_or_says_why_not)
{
	struct target *target = &targets[_i];
	if (!target_made(target)) {
		return;
	}
	printf("%s\n", target->name);
	for (int mechanism = UFFDWP_MECHANISM_AUTO; mechanism <= UFFDWP_MECHANISM_ASYNC; mechanism++) {
		track_target(target, (enum uffdwp_mechanism)mechanism);
	}
}
END_TEST

int main(void)
{
	page = (size_t)sysconf(_SC_PAGESIZE);
	habit_begin(TEST_NAME, 8);
	Suite *suite = suite_create(TEST_NAME);
	TCase *tcase = tcase_create("targets");
	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, test_a_region_takes_memory_or_says_why_not, 0, TARGETS);
	tcase_add_loop_test(tcase, test_a_track_takes_memory_or_says_why_not, 0, TARGETS);
	suite_add_tcase(suite, tcase);
	return support_run(suite);
}
