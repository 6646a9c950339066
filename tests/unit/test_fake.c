/* SPDX-License-Identifier: MIT */
/*
 * The fake kernel does as the kernel does: other tests are worth what it is worth. What an access meets in an empty
 * entry, under a wp bit and under mprotect(); what fills an entry and what is refused; and that each kind of fake
 * kernel gives the probe the rung that a real one of that kind would.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "fake.h"
#include "kernel/abi.h"
#include "kernel/probe.h"
#include "support.h"

#define PAGE 4096u
#define TIME_LIMIT_S 60

#define WP UFFDIO_REGISTER_MODE_WP
#define MISSING UFFDIO_REGISTER_MODE_MISSING
#define MINOR UFFDIO_REGISTER_MODE_MINOR

static const struct kernel_ops *k;
static int memfd;
static uint8_t *memory; /* two pages: the first has content */
static int uffd;

static void begin(void)
{
	k = fake_kernel();
	memfd = memfd_create("test", MFD_CLOEXEC);
	ck_assert_int_eq(ftruncate(memfd, 2 * PAGE), 0);
	memory = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	ck_assert_ptr_ne(memory, MAP_FAILED);
	memory[0] = 7;
	uffd = -1;
}

static void end(void)
{
	fake_be(NULL);
	if (uffd >= 0) {
		k->close(uffd);
	}
	k->munmap(memory, 2 * PAGE);
	close(memfd);
}

static uint64_t at(size_t page)
{
	return (uint64_t)(uintptr_t)memory + page * PAGE;
}

static void watch(uint64_t modes, uint64_t features)
{
	uffd = k->uffd_open_syscall(O_CLOEXEC | O_NONBLOCK);
	ck_assert_int_ge(uffd, 0);
	ck_assert_int_eq(k->uffd_api(uffd, &features), 0);
	ck_assert_int_eq(k->uffd_register(uffd, at(0), 2 * PAGE, modes), 0);
}

static void protect(uint64_t mode)
{
	ck_assert_int_eq(k->uffd_writeprotect(uffd, at(0), 2 * PAGE, mode), 0);
}

static void empty(void)
{
	ck_assert_int_eq(k->madvise(memory, 2 * PAGE, MADV_DONTNEED), 0);
}

/* ----------------------------------------------------------------------------------------------- threads that wait --
 */

struct visitor {
	size_t page;
	int write;
	uint8_t value; /* stored, or loaded */
	pthread_t thread;
};

static void *visit(void *argument)
{
	struct visitor *visitor = argument;
	void *where = memory + visitor->page * PAGE;
	if (visitor->write) {
		fake_write(where, &visitor->value, 1);
	} else {
		fake_read(where, &visitor->value, 1);
	}
	return NULL;
}

static struct uffd_msg message;

static int message_came(void *ignored)
{
	(void)ignored;
	return k->uffd_read(uffd, &message, 1) > 0;
}

static void send_visitor(struct visitor *visitor, uint64_t flags)
{
	visitor->thread = thread_start(visit, visitor);
	must(wait_until(message_came, NULL, TIME_LIMIT_S));
	ck_assert_uint_eq(message.event, UFFD_EVENT_PAGEFAULT);
	ck_assert_uint_eq(message.arg.pagefault.address, at(visitor->page));
	ck_assert_uint_eq(message.arg.pagefault.flags, flags);
}

START_TEST(test_access_to_an_empty_entry_leaves_a_message_of_its_kind)
{
	struct visitor visitor = {.page = (size_t)_i / 2, .write = _i % 2, .value = 9};
	uint64_t flags =
	        (visitor.page == 0 ? UFFD_PAGEFAULT_FLAG_MINOR : 0u) | (visitor.write ? UFFD_PAGEFAULT_FLAG_WRITE : 0u);
	static const uint8_t zeros[PAGE];
	watch(WP | MISSING | MINOR, 0);
	empty();
	send_visitor(&visitor, flags);
	ck_assert_uint_eq(fake_asleep(), 1);
	if (visitor.page == 0) {
		ck_assert_int_eq((int)k->uffd_continue(uffd, at(0), PAGE, 0), PAGE);
	} else {
		ck_assert_int_eq(k->uffd_copy(uffd, at(1), zeros, PAGE, 0), 0);
	}
	thread_join(visitor.thread);
	ck_assert_uint_eq(visitor.value, visitor.write ? 9 : visitor.page == 0 ? 7 : 0);
}
END_TEST

START_TEST(test_write_under_a_wp_bit_leaves_a_message_of_its_kind)
{
	struct visitor visitor = {.page = 0, .write = 1, .value = 9};
	watch(WP | MISSING | MINOR, 0);
	protect(UFFDIO_WRITEPROTECT_MODE_WP);
	send_visitor(&visitor, UFFD_PAGEFAULT_FLAG_WP | UFFD_PAGEFAULT_FLAG_WRITE);
	protect(0);
	thread_join(visitor.thread);
	ck_assert_uint_eq(memory[0], 9);
}
END_TEST

START_TEST(test_fill_without_a_wake_leaves_the_reader_asleep)
{
	struct visitor visitor = {.page = 0};
	watch(MISSING | MINOR, 0);
	empty();
	send_visitor(&visitor, UFFD_PAGEFAULT_FLAG_MINOR);
	ck_assert_int_eq((int)k->uffd_continue(uffd, at(0), PAGE, UFFDIO_CONTINUE_MODE_DONTWAKE), PAGE);
	ck_assert_uint_eq(fake_asleep(), 1);
	ck_assert_int_eq(k->uffd_wake(uffd, at(0), PAGE), 0);
	thread_join(visitor.thread);
	ck_assert_uint_eq(visitor.value, 7);
}
END_TEST

/* --------------------------------------------------------------------------------------------------------- fills -- */

START_TEST(test_fill_with_the_wp_bit_is_read_and_not_written)
{
	static const uint8_t zeros[PAGE];
	uint8_t byte = 1;
	watch(WP | MISSING | MINOR, UFFD_FEATURE_SIGBUS);
	empty();
	ck_assert_int_eq((int)k->uffd_continue(uffd, at(0), PAGE, UFFDIO_CONTINUE_MODE_WP), PAGE);
	ck_assert_int_eq(k->uffd_copy(uffd, at(1), zeros, PAGE, UFFDIO_COPY_MODE_WP), 0);
	for (size_t page = 0; page < 2; page++) {
		fake_read(memory + page * PAGE, &byte, 1);
		ck_assert_uint_eq(byte, page == 0 ? 7 : 0);
		ck_assert_int_eq(k->try_write(memory + page * PAGE), -EFAULT);
		ck_assert_int_eq(fake_is_armed(memory + page * PAGE), 1);
	}
}
END_TEST

START_TEST(test_fill_is_refused_where_the_kernel_refuses_it)
{
	static const uint8_t zeros[PAGE];
	watch(WP | MISSING | MINOR, UFFD_FEATURE_SIGBUS);
	ck_assert_int_eq((int)k->uffd_continue(uffd, at(0), PAGE, 0), -EEXIST);
	ck_assert_int_eq((int)k->uffd_continue(uffd, at(1), PAGE, 0), -EFAULT);
	empty();
	ck_assert_int_eq(k->uffd_copy(uffd, at(0), zeros, PAGE, 0), -EEXIST);
	ck_assert_int_eq(k->uffd_zeropage(uffd, at(0), PAGE, 0), -EEXIST);
	ck_assert_int_eq(k->uffd_zeropage(uffd, at(1), PAGE, 0), 0);
	ck_assert_int_eq(k->uffd_zeropage(uffd, at(1), PAGE, 0), -EEXIST);
	ck_assert_int_eq((int)k->uffd_continue(uffd, at(0), 2 * PAGE, 0), PAGE);
}
END_TEST

START_TEST(test_plain_fill_wipes_a_wp_bit)
{
	watch(WP | MISSING | MINOR, UFFD_FEATURE_SIGBUS);
	protect(UFFDIO_WRITEPROTECT_MODE_WP);
	empty();
	ck_assert_int_eq(fake_is_armed(memory), 1);
	ck_assert_int_eq((int)k->uffd_continue(uffd, at(0), PAGE, 0), PAGE);
	ck_assert_int_eq(fake_is_armed(memory), 0);
}
END_TEST

START_TEST(test_zeropage_refuses_a_wp_bit_on_anonymous_memory)
{
	static const uint8_t zeros[PAGE];
	k->munmap(memory, 2 * PAGE);
	memory = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(memory, MAP_FAILED);
	watch(WP | MISSING, UFFD_FEATURE_SIGBUS | UFFD_FEATURE_WP_UNPOPULATED);
	protect(UFFDIO_WRITEPROTECT_MODE_WP);
	ck_assert_int_eq(k->uffd_zeropage(uffd, at(0), PAGE, 0), -EEXIST);
	ck_assert_int_eq(k->uffd_copy(uffd, at(0), zeros, PAGE, 0), 0);
	ck_assert_int_eq(fake_is_armed(memory), 0);
}
END_TEST

START_TEST(test_hole_punch_takes_entry_and_content)
{
	uint8_t byte = 1;
	watch(WP | MISSING | MINOR, UFFD_FEATURE_SIGBUS);
	ck_assert_int_eq(k->fallocate(memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 2 * PAGE), 0);
	ck_assert_int_eq(fake_is_empty(memory), 1);
	ck_assert_int_eq((int)k->read_self(&byte, memory, 1), -EFAULT);
	ck_assert_int_eq((int)k->uffd_continue(uffd, at(0), PAGE, 0), -EFAULT);
	ck_assert_int_eq(k->uffd_zeropage(uffd, at(0), PAGE, 0), 0);
	fake_read(memory, &byte, 1);
	ck_assert_uint_eq(byte, 0);
}
END_TEST

START_TEST(test_swapped_page_is_not_in_memory_until_it_is_mapped)
{
	unsigned char in_memory = 1;
	watch(MISSING | MINOR, UFFD_FEATURE_SIGBUS);
	ck_assert_int_eq(k->madvise(memory, PAGE, MADV_PAGEOUT), 0);
	ck_assert_int_eq(fake_is_empty(memory), 1);
	ck_assert_int_eq(k->mincore(memory, PAGE, &in_memory), 0);
	ck_assert_int_eq(in_memory & 1, 0);
	ck_assert_int_eq((int)k->uffd_continue(uffd, at(0), PAGE, 0), PAGE);
	ck_assert_int_eq(k->mincore(memory, PAGE, &in_memory), 0);
	ck_assert_int_eq(in_memory & 1, 1);
	ck_assert_uint_eq(memory[0], 7);
}
END_TEST

/* ------------------------------------------------------------------------------------------------------- signals -- */

static struct {
	int number;
	int code;
	void *address;
	int write;
	int blocked;
} caught;

static void resume(int number, siginfo_t *info, void *context)
{
	sigset_t mask;
	caught.number = number;
	caught.code = info->si_code;
	caught.address = info->si_addr;
#if defined(__x86_64__)
	caught.write = (((ucontext_t *)context)->uc_mcontext.gregs[REG_ERR] & 2) != 0;
#else
	(void)context;
#endif
	must(pthread_sigmask(SIG_BLOCK, NULL, &mask) == 0);
	caught.blocked = sigismember(&mask, number);
	if (number == SIGSEGV) {
		must(k->mprotect(memory, 2 * PAGE, PROT_READ | PROT_WRITE) == 0);
	} else if (fake_is_empty(memory)) {
		must(k->uffd_continue(uffd, at(0), PAGE, 0) == PAGE);
	} else {
		must(k->uffd_writeprotect(uffd, at(0), 2 * PAGE, 0) == 0);
	}
}

static void catch_signals(void)
{
	struct sigaction action = {.sa_sigaction = resume, .sa_flags = SA_SIGINFO};
	ck_assert_int_eq(sigaction(SIGBUS, &action, NULL), 0);
	ck_assert_int_eq(sigaction(SIGSEGV, &action, NULL), 0);
	memset(&caught, 0, sizeof(caught));
}

static void expect_caught(int number, int code, int write)
{
	ck_assert_int_eq(caught.number, number);
	ck_assert_int_eq(caught.code, code);
	ck_assert_ptr_eq(caught.address, memory + 5);
	ck_assert_int_eq(caught.blocked, 1);
#if defined(__x86_64__)
	ck_assert_int_eq(caught.write, write);
#else
	(void)write;
#endif
}

START_TEST(test_handler_of_sigbus_learns_address_and_access)
{
	uint8_t byte = 9;
	catch_signals();
	watch(WP | MISSING | MINOR, UFFD_FEATURE_SIGBUS);
	empty();
	fake_read(memory + 5, &byte, 1);
	expect_caught(SIGBUS, BUS_ADRERR, 0);
	protect(UFFDIO_WRITEPROTECT_MODE_WP);
	fake_write(memory + 5, &byte, 1);
	expect_caught(SIGBUS, BUS_ADRERR, 1);
}
END_TEST

START_TEST(test_handler_of_sigsegv_learns_of_a_read_only_page)
{
	uint8_t byte = 9;
	catch_signals();
	ck_assert_int_eq(k->mprotect(memory, 2 * PAGE, PROT_READ), 0);
	ck_assert_int_eq(fake_is_armed(memory), 1);
	ck_assert_int_eq(k->try_write(memory), -EFAULT);
	fake_read(memory, &byte, 1);
	ck_assert_int_eq(caught.number, 0);
	fake_write(memory + 5, &byte, 1);
	expect_caught(SIGSEGV, SEGV_ACCERR, 1);
	ck_assert_uint_eq(memory[5], 7);
	ck_assert_int_eq(k->try_write(memory), 0);
}
END_TEST

/* --------------------------------------------------------------------------------------------------------- kinds -- */

static const struct {
	struct fake_kind kind;
	enum uffdwp_mechanism shmem;
	enum uffdwp_mechanism anon;
} kinds[] = {
        {{0}, UFFDWP_MECHANISM_MARKER, UFFDWP_MECHANISM_MARKER},
        {{.no_markers = 1}, UFFDWP_MECHANISM_REARM, UFFDWP_MECHANISM_REARM},
        {{.no_markers = 1, .no_wp_continue = 1}, UFFDWP_MECHANISM_REARM, UFFDWP_MECHANISM_REARM},
        {{.refused_modes = WP}, UFFDWP_MECHANISM_MINOR, UFFDWP_MECHANISM_MPROTECT},
        {{.refused_modes = WP | MINOR}, UFFDWP_MECHANISM_MPROTECT, UFFDWP_MECHANISM_MPROTECT},
        {{.no_userfaultfd = -EPERM}, UFFDWP_MECHANISM_MPROTECT, UFFDWP_MECHANISM_MPROTECT},
};
#define KINDS ((int)(sizeof(kinds) / sizeof(kinds[0])))

static void expect_rung(enum uffdwp_memory type, enum uffdwp_mechanism mechanism)
{
	struct probe_memory found;
	ck_assert_int_eq(probe_memory(k, KERNEL_ACCESS_SYSCALL, 0, type, &found), 0);
	ck_assert_msg(found.mechanism == mechanism, "mechanism %u: %s", found.mechanism, found.reason);
}

START_TEST(test_each_kind_gives_its_rung)
{
	fake_be(&kinds[_i].kind);
	expect_rung(UFFDWP_MEMORY_SHMEM, kinds[_i].shmem);
	expect_rung(UFFDWP_MEMORY_ANON, kinds[_i].anon);
}
END_TEST

static void add_tests(TCase *tests)
{
	tcase_add_loop_test(tests, test_access_to_an_empty_entry_leaves_a_message_of_its_kind, 0, 4);
	tcase_add_test(tests, test_write_under_a_wp_bit_leaves_a_message_of_its_kind);
	tcase_add_test(tests, test_fill_without_a_wake_leaves_the_reader_asleep);
	tcase_add_test(tests, test_fill_with_the_wp_bit_is_read_and_not_written);
	tcase_add_test(tests, test_fill_is_refused_where_the_kernel_refuses_it);
	tcase_add_test(tests, test_plain_fill_wipes_a_wp_bit);
	tcase_add_test(tests, test_zeropage_refuses_a_wp_bit_on_anonymous_memory);
	tcase_add_test(tests, test_hole_punch_takes_entry_and_content);
	tcase_add_test(tests, test_swapped_page_is_not_in_memory_until_it_is_mapped);
	tcase_add_test(tests, test_handler_of_sigbus_learns_address_and_access);
	tcase_add_test(tests, test_handler_of_sigsegv_learns_of_a_read_only_page);
	tcase_add_loop_test(tests, test_each_kind_gives_its_rung, 0, KINDS);
}

int main(void)
{
	Suite *suite = suite_create("fake");
	TCase *tests = tcase_create("fake");

	support_begin("test_fake", &(struct support_needs){0});
	tcase_add_checked_fixture(tests, begin, end);
	tcase_set_timeout(tests, 60);
	add_tests(tests);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
