/* SPDX-License-Identifier: MIT */
/*
 * How a region shall come to be: what the caller asks for, completed by what is mapped there, and checked before
 * anything moves. The flags and numbers of the options were checked by api_region.c.
 *
 * Threads: the caller's, without a lock. Each refusal is formed in plan->text.
 */
#ifndef UFFDWP_REGION_PLAN_H
#define UFFDWP_REGION_PLAN_H

#include "region/region.h"

struct region_plan {
	const struct kernel_ops *k;
	enum kernel_access access;
	const struct mechanism *mechanism;
	struct uffdwp *runtime;
	struct text *text;
	void *address; /* attach; NULL: create */
	uint64_t length_bytes;
	uint64_t capacity_bytes;
	uint64_t page_bytes;
	const struct mapper_plan *mapper; /* adopt; NULL: create or attach */
	int can_poison;                   /* adopt: the kernel has UFFDIO_POISON */
	uint32_t memory;
	uint32_t fills;
	uint32_t aliases;
	uint64_t device; /* attach: of the file that is mapped there */
	int prot;
	struct uffdwp_region_options options;
};

/* 1: a system call that meets a protected or empty page waits until it is resolved; 0: it fails, so that barriers come
 * before it. */
static inline int plan_lets_syscalls_wait(const struct region_plan *plan)
{
	return plan->options.delivery != UFFDWP_DELIVERY_INLINE && plan->access != KERNEL_ACCESS_USER_MODE;
}

/* A plan with the options' defaults. */
void plan_init(struct region_plan *plan, const struct kernel_ops *k, struct uffdwp *runtime, uint64_t length_bytes);

/* -EINVAL: a length of 0, or not of whole pages; `what` names it in the text. */
int plan_check_length(uint64_t length, uint64_t page_bytes, const char *what, struct text *text);

/* Completes the plan of a region that is created: page size, capacity. -EINVAL, -EOVERFLOW. */
int plan_create(struct region_plan *plan);

/* Completes the plan of a region at plan->address by what is mapped there: type of memory, page size, protection. 0, or
 * why that cannot be attached. */
int plan_attach(struct region_plan *plan);

/* Completes the plan of a region that is adopted by its file: type of memory, page size. 0, or why it cannot be. */
int plan_adopt(struct region_plan *plan);

/* mprotect(2), unlike the registration with a userfaultfd, does not refuse what is no memory: an attached range that
 * is a file on disk. After the mechanism was chosen. 0 or -EMEDIUMTYPE. */
int plan_check_file(const struct region_plan *plan);

/* The text of a registration that the kernel refused because of what is mapped there. -EMEDIUMTYPE. */
int plan_refuse_medium(const struct region_plan *plan);

#endif
