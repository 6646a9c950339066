/* SPDX-License-Identifier: MIT */
/*
 * Pictures of the question `snapshot`: for each, NAME.dat (its numbers), NAME.gp (how gnuplot draws them) and, where
 * gnuplot is there, NAME.svg. The first two are enough to draw it again elsewhere: gnuplot NAME.gp in their folder.
 *
 * A file appears under its name when it is whole. NAME.dat has a block for each method, whose first line is its title.
 *
 * Threads: the main thread only.
 */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench.h"
#include "child.h"
#include "snapshot.h"

#define PICTURES_MAX 512
#define PAUSES_MAX 512
#define GNUPLOT_SECONDS 60
#define TIMELINE_SLOTS 6 /* of the load's, to one of the picture: 25 ms */

/* By the number of a method: what a reader sees, and a colour that all pictures share (M. Okabe and K. Ito). */
static const struct {
	const char *title;
	const char *colour;
} looks[SNAPSHOT_METHODS] = {
        {"library, inline", "#0072B2"},  {"library, thread", "#56B4E9"}, {"fork()", "#D55E00"},
        {"fork(), O_DIRECT", "#E69F00"}, {"mprotect()", "#009E73"},      {"bare userfaultfd loop", "#CC79A7"},
        {"stop and copy", "#000000"},    {"library, moved", "#F0E442"},
};

struct picture {
	char name[96];
	FILE *data;
	FILE *script;
	unsigned blocks;
};

struct pause {
	struct snapshot_case one;
	size_t method;
	double pause_ns;
};

static struct {
	const char *folder;
	char names[PICTURES_MAX][96];
	size_t count;
	struct pause pauses[PAUSES_MAX];
	size_t pause_count;
} plot;

/* ------------------------------------------------------------------------------------------------------ files -- */

static void path_of(const char *name, const char *ending, char *path, size_t size)
{
	if ((size_t)snprintf(path, size, "%s/%s%s", plot.folder, name, ending) >= size)
		bench_die("%s: too long a path for a picture", plot.folder);
}

static FILE *create(const char *name, const char *ending)
{
	char path[PATH_MAX];
	FILE *file;

	path_of(name, ending, path, sizeof(path));
	file = fopen(path, "we");
	if (!file)
		bench_die("%s: %s", path, strerror(errno));
	return file;
}

static void publish(const char *name, const char *aside, const char *ending)
{
	char from[PATH_MAX];
	char to[PATH_MAX];

	path_of(name, aside, from, sizeof(from));
	path_of(name, ending, to, sizeof(to));
	if (rename(from, to))
		bench_die("%s: %s", to, strerror(errno));
}

static void finish(FILE *file, const char *name, const char *aside, const char *ending)
{
	int failed = fflush(file) || ferror(file);
	int error = errno;
	char path[PATH_MAX];

	path_of(name, aside, path, sizeof(path));
	fclose(file);
	if (failed) {
		unlink(path);
		bench_die("%s: %s", path, strerror(error));
	}
	publish(name, aside, ending);
}

/* A name for files: dots of a case become dashes. */
static void open_picture(struct picture *picture, const char *what, const char *name, const char *title)
{
	snprintf(picture->name, sizeof(picture->name), "%s-%s", what, name);
	for (char *at = picture->name; *at; at++)
		*at = *at == '.' ? '-' : *at;
	picture->blocks = 0;
	picture->data = create(picture->name, ".dat.tmp");
	picture->script = create(picture->name, ".gp.tmp");
	fprintf(picture->script, "# gnuplot %s.gp, in this folder, makes %s.svg.\n", picture->name, picture->name);
	fprintf(picture->script, "if (!exists(\"out\")) out = '%s.svg'\n", picture->name);
	fputs("set terminal svg size 960,560 dynamic background rgb 'white' font 'DejaVu Sans,14'\n"
	      "set output out\n"
	      "set key outside right top Left reverse noenhanced\n"
	      "set grid xtics ytics lc rgb '#d8d8d8'\n"
	      "set border 3\nset tics nomirror\n",
	      picture->script);
	fprintf(picture->script, "set title \"%s\" noenhanced\n", title);
}

/* A curve: the block of data that comes next. */
static void open_block(struct picture *picture, size_t method, const char *style)
{
	if (picture->blocks == 0)
		fprintf(picture->script, "plot ");
	else
		fputs(", \\\n     ", picture->script);
	fprintf(picture->script, "'%s.dat' index %u using 1:2 with %s lc rgb '%s' title '%s'", picture->name,
	        picture->blocks, style, looks[method].colour, looks[method].title);
	fprintf(picture->data, "%s# %s\n", picture->blocks ? "\n\n" : "", looks[method].title);
	picture->blocks++;
}

/* The same once more, without a place in the legend: signs on the curve before. */
static void open_signs(struct picture *picture, size_t method)
{
	fprintf(picture->script, ", \\\n     '%s.dat' index %u using 1:2 with points pt 7 ps 1.2 lc rgb '%s' notitle",
	        picture->name, picture->blocks, looks[method].colour);
	fprintf(picture->data, "\n\n# %s: the image is durable\n", looks[method].title);
	picture->blocks++;
}

static void close_picture(struct picture *picture)
{
	fputs("\n", picture->script);
	finish(picture->data, picture->name, ".dat.tmp", ".dat");
	finish(picture->script, picture->name, ".gp.tmp", ".gp");
	if (plot.count == PICTURES_MAX)
		bench_die("more than %d pictures", PICTURES_MAX);
	snprintf(plot.names[plot.count++], sizeof(plot.names[0]), "%s", picture->name);
}

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
	open_picture(picture, what, table->name, title);
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

		open_block(&picture, table->rows[i].number, "lines lw 2");
		for (unsigned step = 0; 2 * pow(1.1, step) < most; step++) {
			double x = 2 * pow(1.1, step);

			fprintf(picture.data, "%.6g %.6g\n", x, histogram_quantile(during, 1 - 1 / x) / 1e3);
		}
		fprintf(picture.data, "%.6g %.6g\n", fmax(most, 2), (double)during->largest_ns / 1e3);
	}
	close_picture(&picture);
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

		open_block(&picture, row->number, "lines lw 2");
		for (size_t slot = 0; slot < slots; slot++)
			fprintf(picture.data, "%.4f %.6g\n", (((double)slot + 0.5) * slot_ns - begun_ns) / 1e9,
			        rate_at(timeline, slot));
		if (slots == 0)
			continue;
		open_signs(&picture, row->number);
		fprintf(picture.data, "%.4f %.6g\n", ((double)timeline->durable_ns - begun_ns) / 1e9,
		        rate_at(timeline, durable < slots ? durable : slots - 1));
	}
	close_picture(&picture);
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

		open_block(&picture, table->rows[i].number, "lines lw 2");
		for (size_t k = 0; k < memory->count; k++) {
			const struct memory_sample *sample = &memory->samples[k];
			uint64_t sum = sample->own.pss_bytes + sample->child.pss_bytes;

			fprintf(picture.data, "%.4f %.6g\n", (double)(sample->at_ns - memory->samples[0].at_ns) / 1e9,
			        (double)bench_minus(sum, memory->samples[0].own.pss_bytes) / (1 << 20));
		}
	}
	close_picture(&picture);
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
	open_picture(&picture, "pause", name, title);
	fputs("set logscale x 2\nset logscale y\n"
	      "set xlabel 'size of the memory, GiB'\n"
	      "set ylabel 'pause (median), milliseconds'\n"
	      "set format y '%g'\nset offsets graph 0.05, graph 0.05, 0, 0\n",
	      picture.script);
	for (size_t method = 0; method < SNAPSHOT_METHODS; method++) {
		if (!sizes_of(one, method))
			continue;
		open_block(&picture, method, "linespoints lw 2 pt 7 ps 0.8");
		for (size_t i = 0; i < plot.pause_count; i++) {
			const struct pause *pause = &plot.pauses[i];

			if (pause->method == method && differ_in_size_only(&pause->one, one))
				fprintf(picture.data, "%.6g %.6g\n",
				        (double)pause->one.size_bytes / (double)SNAPSHOT_COMMON_BYTES,
				        pause->pause_ns / 1e6);
		}
	}
	close_picture(&picture);
}

/* ----------------------------------------------------------------------------------------------------- drawing -- */

static char env[] = "/usr/bin/env";
static char gnuplot[] = "gnuplot";

static int has_gnuplot(void)
{
	char version[] = "--version";
	char *argv[] = {env, gnuplot, version, NULL};
	char text[128];

	return child_run(argv, GNUPLOT_SECONDS, text, sizeof(text)) == 0;
}

/* 0, or -1: gnuplot failed, and said why on standard error. */
static int draw(const char *name)
{
	char script[128];
	char out[160];
	char aside[PATH_MAX];
	char text[256];
	char folder[PATH_MAX];
	char chdir[] = "-C";
	char command[] = "-e";
	char *argv[] = {env, chdir, folder, gnuplot, command, out, script, NULL};

	snprintf(folder, sizeof(folder), "%s", plot.folder);
	snprintf(script, sizeof(script), "%s.gp", name);
	snprintf(out, sizeof(out), "out='%s.svg.tmp'", name);
	path_of(name, ".svg.tmp", aside, sizeof(aside));
	if (child_run(argv, GNUPLOT_SECONDS, text, sizeof(text)) != 0) {
		unlink(aside);
		return -1;
	}
	publish(name, ".svg.tmp", ".svg");
	return 0;
}

void snapshot_plot_open(const char *folder)
{
	plot.folder = folder;
	if (mkdir(folder, 0777) && errno != EEXIST)
		bench_die("%s: %s", folder, strerror(errno));
	if (access(folder, W_OK))
		bench_die("%s: %s", folder, strerror(errno));
}

void snapshot_plot_close(void)
{
	size_t drawn = 0;

	for (size_t i = 0; i < plot.pause_count; i++) {
		struct pause *pauses = plot.pauses;

		if (i == 0)
			qsort(pauses, plot.pause_count, sizeof(*pauses), by_size);
		if (is_first_of_its_kind(i) && has_sizes(&pauses[i].one))
			plot_pauses_of(&pauses[i].one);
	}
	if (!has_gnuplot()) {
		fprintf(stderr,
		        "uffdwp-bench: no gnuplot here, so nothing was drawn; %s has the data (.dat) and the scripts "
		        "(.gp).\nInstall gnuplot (Debian: gnuplot-nox), then run there: for f in *.gp; do gnuplot $f; "
		        "done\n",
		        plot.folder);
		return;
	}
	for (size_t i = 0; i < plot.count; i++)
		drawn += draw(plot.names[i]) == 0;
	fprintf(stderr, "uffdwp-bench: %zu of %zu pictures drawn into %s\n", drawn, plot.count, plot.folder);
	if (drawn != plot.count)
		bench_die("gnuplot could not draw all pictures");
}
