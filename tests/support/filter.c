/* SPDX-License-Identifier: MIT */
/* See filter.h. */
#include "filter.h"

#include <errno.h>
#include <linux/filter.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel/abi.h"

#define CALLS_MOST 32

#define LOAD(field)                                                                                                    \
	((struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, field)))
#define UNLESS_EQUAL_SKIP(value, count)                                                                                \
	((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(value), 0, count))
#define ANSWER(answer) ((struct sock_filter)BPF_STMT(BPF_RET | BPF_K, answer))

static int filter_add(struct sock_filter *code, unsigned length)
{
	struct sock_fprog program = {(unsigned short)length, code};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return -1;
	long result = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);

	if (result > 0) { /* a thread that has filters of its own */
		errno = EBUSY;
		return -1;
	}
	return (int)result;
}

uint32_t filter_errno(int error)
{
	return error ? SECCOMP_RET_ERRNO | ((uint32_t)error & SECCOMP_RET_DATA) : SECCOMP_RET_ALLOW;
}

int filter_call(long call, uint32_t answer)
{
	struct sock_filter code[] = {LOAD(nr), UNLESS_EQUAL_SKIP(call, 1), ANSWER(answer), ANSWER(SECCOMP_RET_ALLOW)};

	return filter_add(code, 4);
}

int filter_argument(long call, unsigned argument, uint32_t value, uint32_t answer)
{
	struct sock_filter code[] = {
	        LOAD(nr),       UNLESS_EQUAL_SKIP(call, 3), LOAD(args[argument]), UNLESS_EQUAL_SKIP(value, 1),
	        ANSWER(answer), ANSWER(SECCOMP_RET_ALLOW)};

	return filter_add(code, 6);
}

int filter_all_but(const long *calls, unsigned count, uint32_t answer)
{
	struct sock_filter code[2 * CALLS_MOST + 2];
	unsigned length = 0;

	if (count > CALLS_MOST) {
		errno = E2BIG;
		return -1;
	}
	code[length++] = LOAD(nr);
	for (unsigned i = 0; i < count; i++) {
		code[length++] = UNLESS_EQUAL_SKIP(calls[i], 1);
		code[length++] = ANSWER(SECCOMP_RET_ALLOW);
	}
	code[length++] = ANSWER(answer);
	return filter_add(code, length);
}

int filter_userfaultfd(int error)
{
	if (filter_call(SYS_userfaultfd, filter_errno(error)) != 0)
		return -1;
	return filter_argument(SYS_ioctl, 1, USERFAULTFD_IOC_NEW, filter_errno(error));
}
