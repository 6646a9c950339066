/* SPDX-License-Identifier: MIT */
/* See watch_show.h. */
#include "watch_show.h"

#include <string.h>

#include "live_say.h"
#include "reword.h"

#define SHOW_NAME "  %-9s "
#define SHOW_BAR 26

/* -------------------------------------------------------------------------------------------------- differences -- */

static uint64_t watch_show_time_ns(const struct watch_view *view)
{
	uint64_t now_ns = shape_number(view->now->stat, "now_ns");
	uint64_t before_ns = shape_number(view->before->stat, "now_ns");

	return before_ns && now_ns > before_ns ? now_ns - before_ns : 0;
}

static struct json_object *watch_show_earlier(const struct watch_view *view, struct json_object *stat)
{
	return live_stat_row(view->before, shape_number(stat, "region"));
}

/* How much a counter grew since the look before. */
static uint64_t watch_show_growth(const struct watch_view *view, struct json_object *stat, const char *key)
{
	struct json_object *earlier = watch_show_earlier(view, stat);
	uint64_t now = shape_number(stat, key);
	uint64_t before = shape_number(earlier, key);

	return earlier && now > before ? now - before : 0;
}

static const char *watch_show_per_second(char *word, const struct watch_view *view, struct json_object *stat,
                                         const char *key)
{
	uint64_t time_ns = watch_show_time_ns(view);

	if (time_ns && watch_show_earlier(view, stat))
		return live_say_rate(word, watch_show_growth(view, stat, key), time_ns);
	(void)snprintf(word, LIVE_WORD, "-/s"); /* the first look */
	return word;
}

static uint64_t watch_show_pages(const struct watch_view *view, struct json_object *stat)
{
	struct json_object *list = live_list_row(view->now, shape_number(stat, "region"));
	uint64_t page = shape_number(list, "page");

	return page ? shape_number(list, "length") / page : 0;
}

/* ---------------------------------------------------------------------------------------------------- the block -- */

static void watch_show_title(FILE *out, const struct watch_view *view, struct json_object *stat)
{
	struct json_object *list = live_list_row(view->now, shape_number(stat, "region"));
	char title[LIVE_TITLE];
	char length[LIVE_WORD];

	(void)fprintf(out, "%s", live_title(title, view->peer, shape_number(stat, "region")));
	if (list)
		(void)fprintf(out, ": %s of %s, %s, %s delivery", live_say_bytes(length, shape_number(list, "length")),
		              shape_text(list, "memory"), shape_text(list, "mechanism"), shape_text(list, "delivery"));
	if (shape_has(list, "dead"))
		(void)fprintf(out, ", dead: %s", shape_text(list, "dead"));
	(void)fputc('\n', out);
}

static void watch_show_share(FILE *out, const char *name, struct json_object *stat, const char *key, uint64_t pages)
{
	char count[LIVE_WORD];
	char percent[LIVE_WORD];

	if (shape_has(stat, key))
		(void)fprintf(out, "   %s %s (%s)", name, live_say_count(count, shape_number(stat, key)),
		              live_say_percent(percent, shape_number(stat, key), pages));
}

static void watch_show_faults(FILE *out, const struct watch_view *view, struct json_object *stat)
{
	uint64_t pages = watch_show_pages(view, stat);
	char rate[LIVE_WORD];
	char all[LIVE_WORD];

	(void)fprintf(out, SHOW_NAME "%s   all %s", "faults", watch_show_per_second(rate, view, stat, "faults"),
	              live_say_count(all, shape_number(stat, "faults")));
	watch_show_share(out, "armed", stat, "armed_pages", pages);
	watch_show_share(out, "dirty", stat, "dirty_pages", pages);
	(void)fputc('\n', out);
}

static void watch_show_losses(FILE *out, const struct watch_view *view, struct json_object *stat)
{
	struct json_object *causes = shape_object(stat, "lost_by");
	char rate[LIVE_WORD];
	char word[LIVE_WORD];
	const char *joint = ": ";

	(void)fprintf(out, SHOW_NAME "%s   all %s", "lost", watch_show_per_second(rate, view, stat, "pages_lost"),
	              live_say_count(word, shape_number(stat, "pages_lost")));
	json_object_object_foreach(causes, cause, count)
	{
		if (json_object_get_uint64(count) == 0)
			continue;
		(void)fprintf(out, "%s%s %s", joint, cause, live_say_count(word, json_object_get_uint64(count)));
		joint = ", ";
	}
	(void)fputc('\n', out);
}

static void watch_show_latency(FILE *out, const struct watch_view *view, struct json_object *stat, const char *delivery)
{
	static const unsigned per_milles[] = {500, 990, 999};
	static const char *const names[] = {"p50", "p99", "p99.9"};
	struct json_object *now = shape_object(shape_object(stat, "latency"), delivery);
	struct json_object *before = shape_object(shape_object(watch_show_earlier(view, stat), "latency"), delivery);
	char word[LIVE_WORD];

	if (shape_number(now, "count") == 0)
		return;
	if (before && watch_percentile(now, before, 500) == 0) /* nothing since: all there was */
		before = NULL;
	(void)fprintf(out, SHOW_NAME "%s", "latency", delivery);
	for (int i = 0; i < 3; i++)
		(void)fprintf(out, "   %s %s", names[i],
		              live_say_time(word, watch_percentile(now, before, per_milles[i])));
	(void)fprintf(out, before ? "   in the last %s\n" : "   of all\n",
	              live_say_time(word, watch_show_time_ns(view)));
}

static void watch_show_pool(FILE *out, struct json_object *pool)
{
	uint64_t used = shape_number(pool, "used_bytes");
	uint64_t bytes = shape_number(pool, "bytes");
	char bar[SHOW_BAR + 1];
	char percent[LIVE_WORD];
	char words[3][LIVE_WORD];

	if (pool)
		(void)fprintf(out, SHOW_NAME "%s %7s   %s of %s, at most %s\n", "pool",
		              live_say_bar(bar, SHOW_BAR, used, bytes), live_say_percent(percent, used, bytes),
		              live_say_bytes(words[0], used), live_say_bytes(words[1], bytes),
		              live_say_bytes(words[2], shape_number(pool, "peak_bytes")));
}

/* Bar, percentage, and the time that is left at the pace so far. */
static void watch_show_progress(FILE *out, const char *name, uint64_t done, uint64_t total, uint64_t elapsed_ns)
{
	char bar[SHOW_BAR + 1];
	char percent[LIVE_WORD];
	char left[LIVE_WORD];

	(void)fprintf(out, SHOW_NAME "%s %7s", name, live_say_bar(bar, SHOW_BAR, done, total),
	              live_say_percent(percent, done, total));
	if (done && done < total)
		(void)fprintf(out, "   %s left", live_say_time(left, live_say_left(elapsed_ns, done, total - done)));
}

/* The bytes that were written since the look before, or on the average where there is none of this snapshot. */
static const char *watch_show_pace(char *word, const struct watch_view *view, struct json_object *stat,
                                   struct json_object *snapshot)
{
	struct json_object *earlier = shape_object(watch_show_earlier(view, stat), "snapshot");
	uint64_t bytes = shape_number(snapshot, "bytes_written");
	uint64_t time_ns = shape_number(snapshot, "elapsed_ns");
	uint64_t before_ns = shape_number(earlier, "elapsed_ns");

	if (earlier && shape_number(earlier, "snapshot") == shape_number(snapshot, "snapshot") && time_ns > before_ns &&
	    bytes >= shape_number(earlier, "bytes_written")) {
		bytes -= shape_number(earlier, "bytes_written");
		time_ns -= before_ns;
	}
	return live_say_bytes(word, live_say_pace(bytes, time_ns));
}

static int watch_show_runs(struct json_object *object)
{
	return strcmp(shape_text(object, "state"), "running") == 0;
}

static void watch_show_snapshot(FILE *out, const struct watch_view *view, struct json_object *stat)
{
	struct json_object *snapshot = shape_object(stat, "snapshot");
	char pace[LIVE_WORD];
	char text[REWORD_BYTES];

	if (!snapshot)
		return;
	if (watch_show_runs(snapshot)) {
		watch_show_progress(out, "snapshot", live_written(snapshot, shape_object(stat, "pool")),
		                    shape_number(snapshot, "pages_total"), shape_number(snapshot, "elapsed_ns"));
		(void)fprintf(out, "   %s/s   %s\n", watch_show_pace(pace, view, stat, snapshot),
		              shape_text(snapshot, "path"));
	} else {
		(void)fprintf(out, SHOW_NAME "%s   %s %s\n", "snapshot", shape_text(snapshot, "state"),
		              shape_text(snapshot, "path"),
		              reword(REWORD_LIVE, shape_text(snapshot, "text"), text, sizeof(text)));
	}
}

static void watch_show_restore(FILE *out, struct json_object *stat)
{
	struct json_object *restore = shape_object(stat, "restore");

	if (!restore)
		return;
	if (watch_show_runs(restore)) {
		watch_show_progress(out, "restore", shape_number(restore, "pages_done"),
		                    shape_number(restore, "pages_total"), shape_number(restore, "elapsed_ns"));
		(void)fputc('\n', out);
	} else {
		(void)fprintf(out, SHOW_NAME "%s\n", "restore", shape_text(restore, "state"));
	}
}

void watch_show_block(FILE *out, const struct watch_view *view, struct json_object *stat)
{
	watch_show_title(out, view, stat);
	watch_show_faults(out, view, stat);
	watch_show_losses(out, view, stat);
	watch_show_latency(out, view, stat, "thread");
	watch_show_latency(out, view, stat, "inline");
	watch_show_pool(out, shape_object(stat, "pool"));
	watch_show_snapshot(out, view, stat);
	watch_show_restore(out, stat);
	(void)fputc('\n', out);
}

/* ----------------------------------------------------------------------------------------------------- the line -- */

static void watch_show_line_progress(FILE *out, const char *name, struct json_object *object, uint64_t done)
{
	char percent[LIVE_WORD];

	if (object && watch_show_runs(object))
		(void)fprintf(out, "%s %s, ", name,
		              live_say_percent(percent, done, shape_number(object, "pages_total")));
	else if (object)
		(void)fprintf(out, "%s %s, ", name, shape_text(object, "state"));
}

static void watch_show_line_latency(FILE *out, const struct watch_view *view, struct json_object *stat)
{
	static const char *const deliveries[] = {"thread", "inline"};
	struct json_object *earlier = shape_object(watch_show_earlier(view, stat), "latency");
	char word[LIVE_WORD];

	for (int i = 0; i < 2; i++) {
		uint64_t p99_ns = watch_percentile(shape_object(shape_object(stat, "latency"), deliveries[i]),
		                                   shape_object(earlier, deliveries[i]), 990);

		if (p99_ns)
			(void)fprintf(out, ", p99 %s %s", deliveries[i], live_say_time(word, p99_ns));
	}
}

void watch_show_line(FILE *out, const struct watch_view *view, struct json_object *stat)
{
	struct json_object *pool = shape_object(stat, "pool");
	char title[LIVE_TITLE];
	char word[LIVE_WORD];

	(void)fprintf(out, "%s: ", live_title(title, view->peer, shape_number(stat, "region")));
	watch_show_line_progress(out, "snapshot", shape_object(stat, "snapshot"),
	                         live_written(shape_object(stat, "snapshot"), pool));
	watch_show_line_progress(out, "restore", shape_object(stat, "restore"),
	                         shape_number(shape_object(stat, "restore"), "pages_done"));
	(void)fprintf(out, "%s faults", watch_show_per_second(word, view, stat, "faults"));
	if (shape_has(stat, "armed_pages"))
		(void)fprintf(out, ", armed %s", live_say_count(word, shape_number(stat, "armed_pages")));
	if (shape_has(stat, "dirty_pages"))
		(void)fprintf(out, ", dirty %s", live_say_count(word, shape_number(stat, "dirty_pages")));
	(void)fprintf(out, ", lost %s", live_say_count(word, shape_number(stat, "pages_lost")));
	if (pool)
		(void)fprintf(out, ", pool %s",
		              live_say_percent(word, shape_number(pool, "used_bytes"), shape_number(pool, "bytes")));
	watch_show_line_latency(out, view, stat);
	(void)fputc('\n', out);
}
