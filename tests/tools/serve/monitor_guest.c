/* SPDX-License-Identifier: MIT */
/* What the guest does: threads that write; see monitor.h. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "chance.h"
#include "monitor.h"

#define STRIPE 64 /* bytes of a write */

static uint64_t monitor_now(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- figures ---- */

static void monitor_note_latency(struct monitor *monitor, uint64_t ns)
{
	unsigned bucket = (unsigned)(2.0 * log2((double)ns + 1.0));

	atomic_fetch_add(&monitor->latency[bucket < MONITOR_BUCKETS ? bucket : MONITOR_BUCKETS - 1], 1);
}

static double monitor_quantile(const struct monitor *monitor, double share)
{
	uint64_t all = 0;
	uint64_t below = 0;

	for (unsigned i = 0; i < MONITOR_BUCKETS; i++)
		all += atomic_load(&monitor->latency[i]);
	for (unsigned i = 0; i < MONITOR_BUCKETS; i++) {
		below += atomic_load(&monitor->latency[i]);
		if ((double)below >= share * (double)all)
			return exp2((double)(i + 1) / 2.0) / 1000.0;
	}
	return 0;
}

void monitor_print_latency(struct monitor *monitor, const char *when)
{
	printf("monitor %s: %s a write takes at most %.2f us (50%%), %.1f us (99%%), %.1f us (99.9%%)\n",
	       monitor->options.name, when, monitor_quantile(monitor, 0.5), monitor_quantile(monitor, 0.99),
	       monitor_quantile(monitor, 0.999));
	for (unsigned i = 0; i < MONITOR_BUCKETS; i++)
		atomic_store(&monitor->latency[i], 0);
}

/* ---- LOCKED ---- */

static void monitor_check_page(const struct monitor *monitor, size_t page)
{
	size_t offset = page * monitor->page_bytes;

	if (memcmp(monitor->memory + offset, monitor->shadow + offset, monitor->page_bytes) != 0)
		monitor_fail("%s: the page at %zu is not what it has to be", monitor->options.name, offset);
}

static void monitor_write_once(struct monitor *monitor, struct chance *chance)
{
	size_t pages = monitor->length / monitor->page_bytes;
	size_t page = chance_below(chance, chance_below(chance, 4) ? pages / 8 + 1 : pages);
	size_t offset = page * monitor->page_bytes + chance_below(chance, monitor->page_bytes / STRIPE) * STRIPE;
	uint64_t begin = monitor_now();

	chance_fill(chance, monitor->memory + offset, STRIPE);
	monitor_note_latency(monitor, monitor_now() - begin);
	memcpy(monitor->shadow + offset, monitor->memory + offset, STRIPE);
	atomic_store(&monitor->changed[page], 1);
	atomic_fetch_add(&monitor->writes, 1);
	if (chance_below(chance, 16) == 0)
		monitor_check_page(monitor, chance_below(chance, pages));
}

static void *monitor_write(void *argument)
{
	struct monitor *monitor = argument;
	struct chance chance =
	        chance_new((uint32_t)monitor->options.seed + (uint32_t)atomic_fetch_add(&monitor->writes, 1));

	while (!atomic_load(&monitor->stop)) {
		(void)pthread_mutex_lock(&monitor->lock);
		for (int i = 0; i < 4; i++)
			monitor_write_once(monitor, &chance);
		(void)pthread_mutex_unlock(&monitor->lock);
		const struct timespec moment = {0, 200000}; /* a cut has to get the lock, and others a processor */

		(void)nanosleep(&moment, NULL);
	}
	return NULL;
}

/* ---- COUNTERS ---- */

static void *monitor_count(void *argument)
{
	struct monitor *monitor = argument;

	while (!atomic_load(&monitor->stop)) {
		uint64_t value = atomic_fetch_add(&monitor->counter, 1) + 1;

		for (unsigned i = 0; i < MONITOR_COUNTERS; i++) {
			uint8_t *at = monitor->memory + monitor->counter_pages[i] * monitor->page_bytes;
			uint64_t begin = monitor_now();

			atomic_store((_Atomic uint64_t *)(void *)at, value);
			monitor_note_latency(monitor, monitor_now() - begin);
		}
	}
	return NULL;
}

/* Their pages are all different. */
static void monitor_place_counters(struct monitor *monitor)
{
	struct chance chance = chance_new((uint32_t)monitor->options.seed);
	size_t part = monitor->length / monitor->page_bytes / MONITOR_COUNTERS;

	for (unsigned i = 0; i < MONITOR_COUNTERS; i++)
		monitor->counter_pages[i] = (i * 37u % MONITOR_COUNTERS) * part + chance_below(&chance, part);
	for (unsigned i = 0; i < MONITOR_COUNTERS; i++)
		memset(monitor->memory + monitor->counter_pages[i] * monitor->page_bytes, 0, sizeof(uint64_t));
}

void monitor_start_writers(struct monitor *monitor, pthread_t threads[MONITOR_WRITERS])
{
	if (monitor->options.counters)
		monitor_place_counters(monitor);
	for (unsigned i = 0; i < MONITOR_WRITERS; i++) {
		if (pthread_create(&threads[i], NULL,
		                   monitor->options.counters && i == 0 ? monitor_count : monitor_write, monitor) != 0)
			monitor_fail("no thread");
		if (monitor->options.counters)
			break;
	}
}

void monitor_check_memory(const struct monitor *monitor)
{
	for (size_t page = 0; page < monitor->length / monitor->page_bytes; page++)
		monitor_check_page(monitor, page);
}

void monitor_discard(struct monitor *monitor, uint64_t seed)
{
	struct chance chance = chance_new((uint32_t)seed);
	size_t count = monitor->page_count > 64 ? 16 : 1;

	for (int i = 0; i < 8; i++) {
		size_t first = chance_below(&chance, monitor->page_count - count);
		size_t offset = first * monitor->page_bytes;

		(void)pthread_mutex_lock(&monitor->lock);
		if (madvise(monitor->memory + offset, count * monitor->page_bytes, MADV_DONTNEED) != 0)
			monitor_fail("a discard failed: %s", strerror(errno));
		memset(monitor->shadow + offset, 0, count * monitor->page_bytes);
		for (size_t page = first; page < first + count; page++)
			monitor_check_page(monitor, page);
		(void)pthread_mutex_unlock(&monitor->lock);
	}
}
