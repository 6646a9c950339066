/* SPDX-License-Identifier: MIT */
/*
 * The picture of the question `fork`: how long the call takes, against the size of the memory.
 *
 * Threads: the main thread only.
 */
#include "bench.h"
#include "fork.h"

#define CALLS_MAX 256

static struct {
	const char *folder;
	struct {
		const struct fork_side *side;
		uint64_t size_bytes;
		double call_ns;
	} calls[CALLS_MAX];
	size_t count;
} plot;

void fork_plot_open(const char *folder)
{
	plot.folder = folder;
	picture_folder(folder);
}

void fork_plot_call(const struct fork_side *side, uint64_t size_bytes, double call_ns)
{
	if (!plot.folder)
		return;
	if (plot.count == CALLS_MAX)
		bench_die("more than %d calls in a picture", CALLS_MAX);
	plot.calls[plot.count].side = side;
	plot.calls[plot.count].size_bytes = size_bytes;
	plot.calls[plot.count++].call_ns = call_ns;
}

static size_t fork_plot_points(const struct fork_side *side, FILE *to)
{
	size_t points = 0;

	for (size_t i = 0; i < plot.count; i++) {
		if (plot.calls[i].side != side)
			continue;
		points++;
		if (to)
			fprintf(to, "%.6g %.6g\n", (double)plot.calls[i].size_bytes / (1 << 30),
			        plot.calls[i].call_ns / 1e6);
	}
	return points;
}

void fork_plot_close(void)
{
	struct picture picture = {.blocks = 0};

	if (!plot.folder)
		return;
	picture_open(&picture, "call", "fork", "How long the caller of fork() waits");
	fputs("set logscale x 2\nset logscale y\n"
	      "set xlabel 'size of the memory, GiB'\n"
	      "set ylabel 'repeated call (median), milliseconds'\n"
	      "set format y '%g'\nset offsets graph 0.05, graph 0.05, 0, 0\n",
	      picture.script);
	for (size_t i = 0; i < FORK_SIDES; i++) {
		if (!fork_plot_points(&fork_sides[i], NULL))
			continue;
		picture_curve(&picture, fork_sides[i].look, "linespoints lw 2 pt 7 ps 0.8");
		fork_plot_points(&fork_sides[i], picture.data);
	}
	picture_close(&picture);
	picture_draw_all();
}
