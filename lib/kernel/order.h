/* SPDX-License-Identifier: MIT */
/*
 * The first order to a thread that was started before it is known whether it will have work: threads are made while
 * that may still fail, and go, or end, when the last step has succeeded or failed.
 *
 * Threads: one gives the order, once; any number wait for it.
 */
#ifndef UFFDWP_KERNEL_ORDER_H
#define UFFDWP_KERNEL_ORDER_H

#include <stdatomic.h>
#include <stdint.h>

#include "kernel/kernel.h"

enum order_kind {
	ORDER_NONE = 0, /* wait */
	ORDER_GO,
	ORDER_FORGET, /* end, and touch nothing */
};

struct order {
	_Atomic uint32_t kind; /* enum order_kind; waiting threads sleep on it */
};

static inline void order_give(struct order *order, const struct kernel_ops *k, enum order_kind kind)
{
	atomic_store(&order->kind, (uint32_t)kind);
	k->futex_wake((const uint32_t *)&order->kind, INT32_MAX);
}

/* 1: go. 0: end. */
static inline int order_await(struct order *order, const struct kernel_ops *k)
{
	while (atomic_load(&order->kind) == ORDER_NONE)
		k->futex_wait((const uint32_t *)&order->kind, ORDER_NONE, 0);
	return atomic_load(&order->kind) == ORDER_GO;
}

#endif
