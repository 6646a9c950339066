/* SPDX-License-Identifier: MIT */
/*
 * Pictures of the question `snapshot` (picture.h): percentiles of writes, writes over time and memory over time for
 * each case, and the pause against the size where several sizes were measured.
 *
 * Threads: the main thread only.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench.h"
#include "picture.h"
#include "snapshot.h"

#define PAUSES_MAX 512
#define TIMELINE_SLOTS 6 /* of the load's, to one of the picture: 25 ms */

/* By the number of a method: what a reader sees, and a colour that all pictures share (M. Okabe and K. Ito). */
static const struct picture_look looks[SNAPSHOT_METHODS] = {
        {"library, inline", "#0072B2"},  {"library, thread", "#56B4E9"}, {"fork()", "#D55E00"},
        {"fork(), O_DIRECT", "#E69F00"}, {"mprotect()", "#009E73"},      {"bare userfaultfd loop", "#CC79A7"},
        {"stop and copy", "#000000"},    {"library, moved", "#F0E442"},  {"library, inline, moved", "#999999"},
};

struct pause {
	struct snapshot_case one;
	size_t method;
	double pause_ns;
};

static struct {
	struct pause pauses[PAUSES_MAX];
	size_t pause_count;
} plot;

/* --------------------------------------------------------------------------------------------------- pictures -- */

static void say_case(const struct snapshot_case *one, int with_size, char *text, size_t size)
{
	char bytes[32] = "";

	if (with_size)
		snprintf(bytes, sizeof(bytes), " of %.3g GiB", (double)one->size_bytes / (double)SNAPSHOT_COMMON_BYTES);
	snprintf(text, size, "%s snapshots%s, %u %s writer%s", snapshot_kind_name(one->kind), bytes, one->writer_count,
	         load_pattern_name(one->pattern), one->writer_count == 1 ? "" : "s");
}

static void open_case(struct picture *picture, const char *what, const char *subject,
                      const struct snapshot_table *table)
{
	char title[192];
	char of[128];

	say_case(&table->one, 1, of, sizeof(of));
	snprintf(title, sizeof(title), "%s: %s", subject, of);
	picture_open(picture, what, table->name, title);
}

/* Steps that lie evenly on an axis of 1 / (1 - quantile), up to the largest write. */
static void plot_latency(const struct snapshot_table *table)
{
	struct picture picture = {.blocks = 0};

	open_case(&picture, "latency", "Time of a write during a snapshot", table);
	fputs("set logscale xy\n"
	      "set xlabel 'share of the writes that took no longer'\n"
	      "set ylabel 'time of a write, microseconds'\n"
	      "set xrange [2:*]\n"
	      "set xtics ('50 %%' 2, '90 %%' 10, '99 %%' 100, '99.9 %%' 1e3, '99.99 %%' 1e4, '99.999 %%' 1e5, "
	      "'99.9999 %%' 1e6, '' 1e7, '' 1e8)\n"
	      "set format y '%g'\n",
	      picture.script);
	for (size_t i = 0; i < table->count; i++) {
		const struct histogram *during = &table->rows[i].during;
		double most = (double)during->count;

		picture_curve(&picture, looks[table->rows[i].number], "lines lw 2");
		for (unsigned step = 0; 2 * pow(1.1, step) < most; step++) {
			double x = 2 * pow(1.1, step);

			fprintf(picture.data, "%.6g %.6g\n", x, histogram_quantile(during, 1 - 1 / x) / 1e3);
		}
		fprintf(picture.data, "%.6g %.6g\n", fmax(most, 2), (double)during->largest_ns / 1e3);
	}
	picture_close(&picture);
}

/* Millions of writes per second in one slot of the picture. */
static double rate_at(const struct trial_timeline *timeline, size_t slot)
{
	uint64_t writes = 0;

	for (size_t i = 0; i < TIMELINE_SLOTS; i++)
		writes += timeline->slots[slot * TIMELINE_SLOTS + i];
	return (double)writes / (TIMELINE_SLOTS * (double)LOAD_SLOT_NS) * 1e3;
}

static void plot_timeline(const struct snapshot_table *table)
{
	const double slot_ns = TIMELINE_SLOTS * (double)LOAD_SLOT_NS;
	struct picture picture = {.blocks = 0};

	open_case(&picture, "timeline", "Writes around a snapshot", table);
	fputs("set xlabel 'seconds since the snapshot was asked for (a dot: its image is durable)'\n"
	      "set ylabel 'million writes per second'\n"
	      "set yrange [0:*]\n"
	      "set arrow from 0, graph 0 to 0, graph 1 nohead dt 2 lc rgb '#808080'\n",
	      picture.script);
	for (size_t i = 0; i < table->count; i++) {
		const struct snapshot_row *row = &table->rows[i];
		const struct trial_timeline *timeline = &row->timeline;
		size_t durable = (size_t)((double)timeline->durable_ns / slot_ns);
		double begun_ns = (double)timeline->begun_ns;
		size_t slots = timeline->count / TIMELINE_SLOTS;

		picture_curve(&picture, looks[row->number], "lines lw 2");
		for (size_t slot = 0; slot < slots; slot++)
			fprintf(picture.data, "%.4f %.6g\n", (((double)slot + 0.5) * slot_ns - begun_ns) / 1e9,
			        rate_at(timeline, slot));
		if (slots == 0)
			continue;
		picture_signs(&picture, looks[row->number], "the image is durable");
		fprintf(picture.data, "%.4f %.6g\n", ((double)timeline->durable_ns - begun_ns) / 1e9,
		        rate_at(timeline, durable < slots ? durable : slots - 1));
	}
	picture_close(&picture);
}

static void plot_memory(const struct snapshot_table *table)
{
	struct picture picture = {.blocks = 0};

	open_case(&picture, "memory", "Memory that a snapshot takes", table);
	fputs("set xlabel 'seconds since the snapshot was asked for'\n"
	      "set ylabel 'extra memory of the program and its child, MiB'\n"
	      "set yrange [0:*]\n",
	      picture.script);
	for (size_t i = 0; i < table->count; i++) {
		const struct memory_sampler *memory = &table->rows[i].memory;

		picture_curve(&picture, looks[table->rows[i].number], "lines lw 2");
		for (size_t k = 0; k < memory->count; k++) {
			const struct memory_sample *sample = &memory->samples[k];
			uint64_t sum = sample->own.pss_bytes + sample->child.pss_bytes;

			fprintf(picture.data, "%.4f %.6g\n", (double)(sample->at_ns - memory->samples[0].at_ns) / 1e9,
			        (double)bench_minus(sum, memory->samples[0].own.pss_bytes) / (1 << 20));
		}
	}
	picture_close(&picture);
}

static void remember_pauses(const struct snapshot_table *table)
{
	for (size_t i = 0; i < table->count; i++) {
		const struct snapshot_row *row = &table->rows[i];

		if (plot.pause_count == PAUSES_MAX)
			bench_die("more than %d pauses in pictures", PAUSES_MAX);
		plot.pauses[plot.pause_count++] = (struct pause){table->one, row->number, row->values[TRIAL_PAUSE_NS]};
	}
}

void snapshot_plot_case(const struct snapshot_table *table)
{
	plot_latency(table);
	plot_timeline(table);
	if (table->rows[0].memory.count)
		plot_memory(table);
	remember_pauses(table);
}

/* ------------------------------------------------------------------------------------------ pause against size -- */

static int differ_in_size_only(const struct snapshot_case *a, const struct snapshot_case *b)
{
	return a->pattern == b->pattern && a->kind == b->kind && a->writer_count == b->writer_count;
}

static int is_first_of_its_kind(size_t which)
{
	for (size_t i = 0; i < which; i++) {
		if (differ_in_size_only(&plot.pauses[i].one, &plot.pauses[which].one))
			return 0;
	}
	return 1;
}

/* How many sizes a method was measured with. */
static unsigned sizes_of(const struct snapshot_case *one, size_t method)
{
	unsigned count = 0;

	for (size_t i = 0; i < plot.pause_count; i++)
		count += plot.pauses[i].method == method && differ_in_size_only(&plot.pauses[i].one, one);
	return count;
}

/* One size makes no curve. */
static int has_sizes(const struct snapshot_case *one)
{
	for (size_t method = 0; method < SNAPSHOT_METHODS; method++) {
		if (sizes_of(one, method) > 1)
			return 1;
	}
	return 0;
}

static int by_size(const void *a, const void *b)
{
	const struct pause *x = a;
	const struct pause *y = b;

	return (x->one.size_bytes > y->one.size_bytes) - (x->one.size_bytes < y->one.size_bytes);
}

static void plot_pauses_of(const struct snapshot_case *one)
{
	struct snapshot_case common = *one;
	struct picture picture = {.blocks = 0};
	char title[192];
	char name[64];
	char of[128];

	common.size_bytes = SNAPSHOT_COMMON_BYTES;
	snapshot_case_name(&common, name, sizeof(name));
	say_case(one, 0, of, sizeof(of));
	snprintf(title, sizeof(title), "How long writers stand still at the cut: %s", of);
	picture_open(&picture, "pause", name, title);
	fputs("set logscale x 2\nset logscale y\n"
	      "set xlabel 'size of the memory, GiB'\n"
	      "set ylabel 'pause (median), milliseconds'\n"
	      "set format y '%g'\nset offsets graph 0.05, graph 0.05, 0, 0\n",
	      picture.script);
	for (size_t method = 0; method < SNAPSHOT_METHODS; method++) {
		if (!sizes_of(one, method))
			continue;
		picture_curve(&picture, looks[method], "linespoints lw 2 pt 7 ps 0.8");
		for (size_t i = 0; i < plot.pause_count; i++) {
			const struct pause *pause = &plot.pauses[i];

			if (pause->method == method && differ_in_size_only(&pause->one, one))
				fprintf(picture.data, "%.6g %.6g\n",
				        (double)pause->one.size_bytes / (double)SNAPSHOT_COMMON_BYTES,
				        pause->pause_ns / 1e6);
		}
	}
	picture_close(&picture);
}

void snapshot_plot_open(const char *folder)
{
	picture_folder(folder);
}

void snapshot_plot_close(void)
{
	for (size_t i = 0; i < plot.pause_count; i++) {
		struct pause *pauses = plot.pauses;

		if (i == 0)
			qsort(pauses, plot.pause_count, sizeof(*pauses), by_size);
		if (is_first_of_its_kind(i) && has_sizes(&pauses[i].one))
			plot_pauses_of(&pauses[i].one);
	}
	picture_draw_all();
}
