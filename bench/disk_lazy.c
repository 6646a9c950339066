/* SPDX-License-Identifier: MIT */
/*
 * A lazy restore: the first read of a random page, counted from the call of begin; random reads of other pages for as
 * long as the restore runs, of which a new page has to be fetched; and when the last page is there. The region is new
 * each time (to discard what one held takes as long as to free memory does), and the page cache does not have the
 * image.
 */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "bench.h"
#include "disk.h"
#include "histogram.h"

#define REPEAT_MAX 64
#define SEED 88172645463325252u

static struct {
	struct uffdwp_region *region;
	struct area area;
	struct histogram reads;
	double first_ns[REPEAT_MAX];
	double begin_ns[REPEAT_MAX];
	double total_ns[REPEAT_MAX];
	uint64_t random;
} lazy;

static uint64_t read_random_page(void)
{
	size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
	uint64_t page = bench_random(&lazy.random) % (lazy.area.length_bytes / page_bytes);
	uint64_t from_ns = bench_now_ns();

	(void)*(volatile char *)(lazy.area.base + page * page_bytes);
	return bench_now_ns() - from_ns;
}

static struct uffdwp_restore *begin(const char *path)
{
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	struct uffdwp_restore *restore;
	char text[512] = "";

	options.path = path;
	if (uffdwp_restore_begin(lazy.region, &options, &restore)) {
		uffdwp_error_text(text, sizeof(text));
		bench_die("uffdwp_restore_begin: %s", text);
	}
	return restore;
}

static void open_region(struct uffdwp *runtime, size_t length_bytes)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;

	options.mechanism = UFFDWP_MECHANISM_REARM;
	bench_must(uffdwp_region_create(runtime, length_bytes, &options, &lazy.region), "uffdwp_region_create");
	lazy.area = (struct area){.base = uffdwp_region_base(lazy.region), .length_bytes = length_bytes};
}

static void run(const char *path, unsigned turn)
{
	disk_forget_cache(path);
	uint64_t from_ns = bench_now_ns();
	struct uffdwp_restore *restore = begin(path);

	lazy.begin_ns[turn] = (double)(bench_now_ns() - from_ns);
	(void)read_random_page();
	lazy.first_ns[turn] = (double)(bench_now_ns() - from_ns);
	while (uffdwp_restore_wait(restore, 0, NULL) == -ETIMEDOUT) {
		for (unsigned i = 0; i < 64; i++)
			histogram_record(&lazy.reads, read_random_page());
	}
	bench_must(uffdwp_restore_wait(restore, -1, NULL), "uffdwp_restore_wait");
	lazy.total_ns[turn] = (double)(bench_now_ns() - from_ns);
	bench_must(uffdwp_restore_free(restore), "uffdwp_restore_free");
}

static void add_figures(struct report *report, unsigned repeat, int json)
{
	double p50_ns = histogram_quantile(&lazy.reads, 0.5);
	double p99_ns = histogram_quantile(&lazy.reads, 0.99);
	double first_ns = report_add_median(report, lazy.first_ns, repeat, "lazy.library.first_read_ns");
	double begin_ns = report_add_median(report, lazy.begin_ns, repeat, "lazy.library.begin_ns");
	double total_ns = report_add_median(report, lazy.total_ns, repeat, "lazy.library.total_ns");

	report_add(report, p50_ns, "lazy.library.read_p50_ns");
	report_add(report, p99_ns, "lazy.library.read_p99_ns");
	report_add(report, (double)lazy.reads.largest_ns, "lazy.library.read_max_ns");
	if (!json)
		printf("lazy     the first read is there after %.2f ms (begin took %.2f); others: p50 %.1f us, p99 "
		       "%.1f us, max "
		       "%.1f ms; all after %.0f ms\n",
		       first_ns / 1e6, begin_ns / 1e6, p50_ns / 1e3, p99_ns / 1e3, (double)lazy.reads.largest_ns / 1e6,
		       total_ns / 1e6);
}

void disk_measure_lazy(struct report *report, struct uffdwp *runtime, const char *path, size_t length_bytes,
                       uint64_t sum, unsigned repeat, int json)
{
	const char *refused = library_refuses(UFFDWP_MEMORY_SHMEM, UFFDWP_MECHANISM_REARM, UFFDWP_DELIVERY_THREAD);

	if (refused) {
		report_note(report, "lazy", "not measured: %s", refused);
		return;
	}
	lazy.random = SEED;
	histogram_clear(&lazy.reads);
	for (unsigned turn = 0; turn < repeat; turn++) {
		open_region(runtime, length_bytes);
		run(path, turn);
		if (disk_sum(&lazy.area) != sum)
			bench_die("the memory is not what the image was made of");
		bench_must(uffdwp_region_close(lazy.region), "uffdwp_region_close");
	}
	add_figures(report, repeat, json);
}
