/* SPDX-License-Identifier: MIT */
/* caller.h: what the calling thread lives on is found where it is, and nowhere else. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel/caller.h"
#include "support.h"

static const char *caller_at(uintptr_t address, int waits)
{
	return caller_in(address & ~(uintptr_t)4095, (address & ~(uintptr_t)4095) + 4096, waits);
}

static int caller_names(const char *what, const char *word)
{
	return what != NULL && strstr(what, word) != NULL;
}

START_TEST(test_nothing_of_the_caller_lies_in_memory_of_the_heap)
{
	static char data[4096];
	char *heap = calloc(1, 1 << 20);
	ck_assert_ptr_nonnull(heap);
	ck_assert_ptr_null(caller_in((uintptr_t)heap, (uintptr_t)heap + (1 << 20), 0));
	ck_assert_ptr_null(caller_in((uintptr_t)data, (uintptr_t)data + sizeof(data), 0));
	ck_assert_ptr_null(caller_in(0, 0, 0));
	free(heap);
}
END_TEST

START_TEST(test_the_stack_is_found)
{
	uintptr_t here = caller_stack();
	ck_assert(caller_names(caller_in(here - 65536, here + 65536, 0), "stack of the calling thread"));
	ck_assert_ptr_null(caller_in(here + 65536, here + 65537, 0));
}
END_TEST

START_TEST(test_thread_local_memory_is_found)
{
	ck_assert(caller_names(caller_at((uintptr_t)&errno, 0), "thread-local"));
}
END_TEST

START_TEST(test_the_list_of_robust_mutexes_is_found)
{
	void *head = NULL;
	size_t length;
	if (syscall(SYS_get_robust_list, 0, &head, &length) != 0 || head == NULL) {
		support_note(TEST_NAME, "this C library registers no list of robust mutexes");
		return;
	}
	ck_assert_ptr_nonnull(caller_in((uintptr_t)head, (uintptr_t)head + 1, 0));
}
END_TEST

START_TEST(test_the_alternate_stack_is_found_where_it_matters)
{
	static char memory[65536];
	uintptr_t low = (uintptr_t)memory;
	stack_t stack = {.ss_sp = memory, .ss_size = sizeof(memory)};
	ck_assert_ptr_null(caller_in(low, low + 1, 0));
	ck_assert_int_eq(sigaltstack(&stack, NULL), 0);
	ck_assert(caller_names(caller_in(low, low + 1, 0), "alternate signal stack"));
	ck_assert(caller_names(caller_in(low + sizeof(memory) - 1, low + sizeof(memory), 0), "alternate signal stack"));
	ck_assert_ptr_null(caller_in(low, low + 1, 1));
	ck_assert_ptr_null(caller_in(low + sizeof(memory), low + sizeof(memory) + 1, 0));
	stack.ss_flags = SS_DISABLE;
	ck_assert_int_eq(sigaltstack(&stack, NULL), 0);
	ck_assert_ptr_null(caller_in(low, low + 1, 0));
}
END_TEST

int main(void)
{
	support_begin(TEST_NAME, &(struct support_needs){.huge_pages = 0});
	Suite *suite = suite_create(TEST_NAME);
	TCase *tcase = tcase_create("caller");
	tcase_add_test(tcase, test_nothing_of_the_caller_lies_in_memory_of_the_heap);
	tcase_add_test(tcase, test_the_stack_is_found);
	tcase_add_test(tcase, test_thread_local_memory_is_found);
	tcase_add_test(tcase, test_the_list_of_robust_mutexes_is_found);
	tcase_add_test(tcase, test_the_alternate_stack_is_found_where_it_matters);
	suite_add_tcase(suite, tcase);
	return support_run(suite);
}
