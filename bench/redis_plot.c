/* SPDX-License-Identifier: MIT */
/*
 * The picture of the question `redis`: the longest latency of each 10 ms over time, one picture for each side on the
 * same axes, with its saves shaded.
 *
 * Threads: the main thread only.
 */
#include <stdio.h>

#include "bench.h"
#include "redis.h"

static double redis_plot_s(const struct openloop *loop, uint64_t at_ns)
{
	return (double)bench_minus(at_ns, loop->record_from_ns) / 1e9;
}

static void redis_plot_shade(const struct openloop *loop, FILE *script)
{
	for (unsigned i = 0; i < loop->spans.count; i++)
		fprintf(script,
		        "set object %u rect from first %.4f, graph 0 to first %.4f, graph 1 back fc rgb '#e8e8e8' fs "
		        "solid noborder\n",
		        i + 1, redis_plot_s(loop, loop->spans.all[i].from_ns),
		        redis_plot_s(loop, loop->spans.all[i].until_ns));
}

/* The slots that lie in the record. */
static void redis_plot_slots(const struct openloop *loop, FILE *data)
{
	size_t first = (size_t)(bench_minus(loop->record_from_ns, loop->origin_ns) / OPENLOOP_SLOT_NS);
	size_t end = (size_t)(bench_minus(loop->record_until_ns, loop->origin_ns) / OPENLOOP_SLOT_NS);

	for (size_t slot = first; slot < end && slot < OPENLOOP_SLOTS; slot++)
		fprintf(data, "%.4f %.6g\n", redis_plot_s(loop, loop->origin_ns + slot * OPENLOOP_SLOT_NS),
		        (double)loop->slots_us[slot] / 1e3);
}

static double redis_plot_longest_ms(const struct redis_row *rows, size_t count)
{
	double longest = 1;

	for (size_t i = 0; i < count; i++) {
		for (int class = 0; class < OPENLOOP_CLASSES; class ++) {
			double most = (double)rows[i].loop.latencies[class].largest_ns / 1e6;

			longest = most > longest ? most : longest;
		}
	}
	return longest;
}

void redis_plot(const char *folder, const char *size_name, const struct redis_row *rows, size_t count)
{
	picture_folder(folder);
	for (size_t i = 0; i < count; i++) {
		struct picture picture = {.blocks = 0};
		char name[64];

		snprintf(name, sizeof(name), "%s.%s", size_name, rows[i].name);
		picture_open(&picture, "redis", name, "Longest latency of each 10 ms (grey: a save)");
		fprintf(picture.script,
		        "set logscale y\nset xlabel 'seconds'\n"
		        "set ylabel 'latency from when a request was due, milliseconds'\n"
		        "set format y '%%g'\nset yrange [0.01:%.6g]\n",
		        redis_plot_longest_ms(rows, count) * 1.5);
		redis_plot_shade(&rows[i].loop, picture.script);
		picture_curve(&picture, rows[i].look, "impulses");
		redis_plot_slots(&rows[i].loop, picture.data);
		picture_close(&picture);
	}
	picture_draw_all();
}
