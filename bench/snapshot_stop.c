/* SPDX-License-Identifier: MIT */
/*
 * The rival that needs nothing of the kernel: stop-and-copy. The writers stand still at the gate while all memory is
 * copied; then they go on, and the copy is written to the image. The copy's pages are touched ahead, so that the pause
 * is the copying alone.
 *
 * Threads: the main thread only.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "bench.h"
#include "image.h"
#include "trial.h"

static struct {
	struct area area;
	char *copy;
	struct image image;
	char path[512];
	uint64_t pause_ns;
} stopped;

static void open_area(const struct trial_method *method, const struct trial_setup *setup, struct area *area)
{
	(void)method;
	area_map(&stopped.area, UFFDWP_MEMORY_ANON, setup->size_bytes);
	*area = stopped.area;
}

static void begin(const struct trial_method *method, const struct trial_setup *setup, const struct trial_cut *cut)
{
	size_t length = stopped.area.length_bytes;
	uint64_t from;

	(void)method;
	image_prepare(&stopped.image, setup->folder, setup->direct);
	snprintf(stopped.path, sizeof(stopped.path), "%s", cut->path);
	bench_must(image_create(&stopped.image), "creating an image");
	stopped.copy = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (stopped.copy == MAP_FAILED)
		bench_die("no memory for a copy of %zu bytes: %s", length, strerror(errno));
	from = bench_now_ns();
	load_close_gate(cut->load);
	memcpy(stopped.copy, stopped.area.base, length);
	load_open_gate(cut->load);
	stopped.pause_ns = bench_now_ns() - from;
}

static void write_copy(void)
{
	bench_must(image_append(&stopped.image, stopped.copy, stopped.area.length_bytes), "writing an image");
	bench_must(image_commit(&stopped.image, stopped.path), "committing an image");
	image_fini(&stopped.image);
}

static void result_of(const struct load_result *during, struct trial_result *result)
{
	(void)during;
	result->values[TRIAL_PAUSE_NS] = (double)stopped.pause_ns;
	result->values[TRIAL_PREIMAGE_PEAK_BYTES] = (double)stopped.area.length_bytes;
	result->values[TRIAL_WRITTEN_BYTES] = (double)stopped.area.length_bytes;
	result->direct = (uint32_t)stopped.image.direct;
}

static void end(void)
{
	munmap(stopped.copy, stopped.area.length_bytes);
}

static void close_area(void)
{
	area_unmap(&stopped.area);
}

const struct trial_method trial_stop = {"stop_copy", 0, open_area, begin, write_copy, result_of, end, close_area, NULL};
