/* SPDX-License-Identifier: MIT */
/*
 * How much memory a program has, by the kernel's account: /proc/PID/smaps_rollup, of this program and of the child that
 * it forked. Pss counts a page that n processes map as 1/n page in each, so the sum over both is what they take
 * together; Private is what only one of them has. The page tables that it takes are in /proc/PID/status.
 *
 * A look walks all page tables of the program and delays threads that change its mappings meanwhile: what runs beside a
 * sampler is not timed.
 *
 * Threads: start, child and stop are the main thread's; the sampler has one of its own, which allocates nothing.
 */
#ifndef UFFDWP_BENCH_MEMORY_H
#define UFFDWP_BENCH_MEMORY_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define MEMORY_SAMPLES 2048 /* when they are used up, every second one is dropped and the period doubled */

struct memory_use {
	uint64_t pss_bytes;
	uint64_t private_bytes;
	uint64_t anon_bytes; /* of pss_bytes, what is in no file: Pss_Anon; 0 where the kernel does not say */
};

struct memory_sample {
	uint64_t at_ns; /* on bench_now_ns(), in the middle of the look */
	struct memory_use own;
	struct memory_use child; /* 0: none */
};

struct memory_sampler {
	pthread_t thread;
	_Atomic pid_t child;
	_Atomic int end;
	_Atomic unsigned thinned; /* how often */
	uint64_t period_ns;
	size_t count;
	struct memory_sample samples[MEMORY_SAMPLES];
};

/* The text of a smaps_rollup: 0, or -EINVAL where it lacks what is asked for. */
int memory_parse(const char *text, struct memory_use *use);

/* 0, or a negative errno: no such process, or it has ended. */
int memory_read(pid_t process, struct memory_use *use);

/* A line of /proc/PID/status that is a number of kB, such as "VmPTE", in bytes; 0: there is none. */
uint64_t memory_status_bytes(pid_t process, const char *key);

/* Takes the first sample before it returns: all others are compared with it. */
void memory_sampler_start(struct memory_sampler *sampler, uint64_t period_ns);
/* From now on a child is looked at, too; 0: no more. */
void memory_sampler_child(struct memory_sampler *sampler, pid_t child);
/* Looks once more, and ends. */
void memory_sampler_stop(struct memory_sampler *sampler);

/* The most by which the sum of this program and its child exceeded the first sample. */
uint64_t memory_extra_pss(const struct memory_sampler *sampler);
uint64_t memory_extra_private(const struct memory_sampler *sampler);

#endif
