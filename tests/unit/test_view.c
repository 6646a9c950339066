/* SPDX-License-Identifier: MIT */
/* What becomes of a view whose pages cannot be broken off it: no thread reads a wrong byte. */
#include "region/view.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "support.h"

#define PAGES 8

static struct uffdwp_view view;
static struct uffdwp_region region;
static size_t page_bytes;
static unsigned refused;

/* As where the process has all mappings that it may have: nothing that would split one. */
static int mprotect_without_splitting(void *address, size_t length, int prot)
{
	if (length == PAGES * page_bytes) {
		return kernel_real.mprotect(address, length, prot);
	}
	refused++;
	return -ENOMEM;
}

static void open_view(void)
{
	static struct kernel_ops table;
	static _Atomic uint64_t broken[1];
	page_bytes = (size_t)sysconf(_SC_PAGESIZE);
	table = kernel_real;
	table.mprotect = mprotect_without_splitting;
	void *base = mmap(NULL, PAGES * page_bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert(base != MAP_FAILED);
	view = (struct uffdwp_view){.k = &table,
	                            .region = &region,
	                            .base = base,
	                            .map_bytes = PAGES * page_bytes,
	                            .length_bytes = PAGES * page_bytes,
	                            .end_page = PAGES,
	                            .page_shift = (unsigned)__builtin_ctzll(page_bytes),
	                            .mem = -1,
	                            .broken = broken};
	ck_assert_int_eq(view_attach(&view), 0);
}

static int can_read(size_t page)
{
	unsigned char byte;
	return kernel_real.read_self(&byte, view.base + page * page_bytes, 1) == 1;
}

START_TEST(test_page_that_cannot_be_broken_off_cannot_be_read)
{
	open_view();
	unsigned char byte;
	if (kernel_real.read_self(&byte, view.base, 1) == -ENOSYS) { /* an emulator */
		support_note(__func__, "no process_vm_readv(2)");
		view_detach(&view);
		return;
	}
	ck_assert(can_read(3));
	view_break_all(&region, 3, 4);
	ck_assert_uint_eq(refused, 1);
	ck_assert_int_eq(atomic_load(&view.error), -EBADF);
	ck_assert(!can_read(3));
	view_detach(&view);
}
END_TEST

START_TEST(test_view_whose_region_died_cannot_be_read)
{
	open_view();
	atomic_store(&view.broken[0], 1u << 2);
	view_fail_all(&region, -ESTALE);
	ck_assert_uint_eq(refused, 2);
	ck_assert_int_eq(atomic_load(&view.error), -ESTALE);
	ck_assert(!can_read(0));
	ck_assert(!can_read(7));
	view_detach(&view);
}
END_TEST

int main(void)
{
	support_begin("test_view", &(struct support_needs){0, 0});
	Suite *suite = suite_create("view");
	TCase *tests = tcase_create("view");
	tcase_add_checked_fixture(tests, support_block_signals, NULL);
	tcase_add_test(tests, test_page_that_cannot_be_broken_off_cannot_be_read);
	tcase_add_test(tests, test_view_whose_region_died_cannot_be_read);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
