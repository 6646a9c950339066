/* SPDX-License-Identifier: MIT */
/*
 * The picture: above, the rate of writing over time; below, on the same time axis, which addresses were written. Each
 * row is a run of pages, the darker the more of them each look found written; gaps between mappings are left out and
 * shown. It must be understood without this source: title, axes, units, legend, and how to read it.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "grid.h"
#include "report.h"
#include "units.h"

#define WIDTH 1080.0
#define LEFT 236.0
#define RIGHT 132.0
#define RATE_TOP 98.0
#define RATE_HEIGHT 90.0
#define MAP_TOP 252.0
#define MAP_HEIGHT 600.0
#define ROW_MIN 2.0
#define ROW_MAX 12.0
#define GAP 11.0
#define LABEL_HEIGHT 12.0
#define PLOT (WIDTH - LEFT - RIGHT)
#define LABEL_CHARACTERS 30
#define BAND_SAMPLES 4096

static const char *const colors[GRID_SHADES + 1] = {"#f3f3f0", "#fee9a8", "#fec44f", "#fe9929",
                                                    "#ec7014", "#cc4c02", "#993404", "#5a1e02"};

struct picture {
	const struct report *report;
	FILE *out;
	struct grid grid;
	double seconds; /* width of the time axis */
	double row_px;
	double map_height;
};

/* --------------------------------------------------------------------------------------------------------- parts -- */

static void report_svg_put_escaped(FILE *out, const char *text)
{
	for (; *text; text++) {
		switch (*text) {
		case '&':
			(void)fputs("&amp;", out);
			break;
		case '<':
			(void)fputs("&lt;", out);
			break;
		case '>':
			(void)fputs("&gt;", out);
			break;
		default:
			/* What is no character of XML, or only a part of one of UTF-8. */
			(void)fputc((unsigned char)*text < ' ' || (unsigned char)*text > '~' ? '?' : *text, out);
		}
	}
}

static void report_svg_put_text(const struct picture *picture, double x, double y, const char *class, const char *text)
{
	(void)fprintf(picture->out, "<text class=\"%s\" x=\"%.1f\" y=\"%.1f\">", class, x, y);
	report_svg_put_escaped(picture->out, text);
	(void)fputs("</text>\n", picture->out);
}

static void report_svg_put_line(const struct picture *picture, double x1, double y1, double x2, double y2,
                                const char *class)
{
	(void)fprintf(picture->out, "<path class=\"%s\" d=\"M%.1f %.1fL%.1f %.1f\"/>\n", class, x1, y1, x2, y2);
}

static double report_svg_x_of(const struct picture *picture, double seconds)
{
	return LEFT + PLOT * (seconds < picture->seconds ? seconds / picture->seconds : 1);
}

/* 1, 2 or 5 times a power of ten, so that there are at most `most` steps. */
static double report_svg_nice_step(double range, double most)
{
	static const double steps[] = {1, 2, 5, 10};
	double power = pow(10, floor(log10(range / most)));

	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		if (range / (steps[i] * power) <= most)
			return steps[i] * power;
	}
	return 10 * power;
}

/* "64 KiB" where units_bytes() has "64.0 KiB". */
static const char *report_svg_round_bytes(char *buffer, double bytes)
{
	char *zero = strstr(units_bytes(buffer, bytes), ".0 ");

	if (zero)
		memmove(zero, zero + 2, strlen(zero + 2) + 1);
	return buffer;
}

static void report_svg_put_style(const struct picture *picture)
{
	(void)fputs("<style>"
	            "text{font-family:'DejaVu Sans',Verdana,Arial,sans-serif;font-size:11px;fill:#333}"
	            ".title{font-size:17px;font-weight:bold;fill:#111}.sub{font-size:11.5px;fill:#555}"
	            ".head{font-size:12px;font-weight:bold;fill:#222}.right{text-anchor:end}"
	            ".mid{text-anchor:middle}.small{font-size:9px;fill:#777}"
	            ".smallright{font-size:9px;fill:#777;text-anchor:end;font-family:'DejaVu Sans Mono',monospace}"
	            ".axis{stroke:#555;stroke-width:1;fill:none}.grid{stroke:#ddd;stroke-width:1;fill:none}"
	            ".gap{stroke:#b5b5b5;stroke-width:1;stroke-dasharray:2 4;fill:none}"
	            ".rate{fill:#cfdcec;stroke:#33608f;stroke-width:1.2}"
	            "</style>\n",
	            picture->out);
}

static void report_svg_put_head(const struct picture *picture)
{
	const struct report *report = picture->report;
	const struct record *record = report->record;
	char command[62];
	char most[UNITS_TEXT];
	char ending[64];
	char line[320];
	char a[UNITS_TEXT];
	char b[UNITS_TEXT];
	char c[UNITS_TEXT];

	report_command(report, command, sizeof(command));
	report_ending(report, ending, sizeof(ending));
	(void)snprintf(line, sizeof(line), "Memory written over time by: %s", command);
	report_svg_put_text(picture, 24, 32, "title", line);
	(void)snprintf(line, sizeof(line),
	               "%.2f s, %s. Looked every %s: %s written, in %s of different pages; %s populated at most.",
	               report->run_s, ending, units_seconds(a, record->interval_s),
	               units_bytes(b, (double)record->written_bytes),
	               units_bytes(c, (double)(record->pages.unique * record->page_bytes)),
	               units_bytes(most, (double)record->populated_max_bytes));
	report_svg_put_text(picture, 24, 52, "sub", line);
}

/* ------------------------------------------------------------------------------------------------------ the axes -- */

static void report_svg_put_time_axis(const struct picture *picture, double y, double top)
{
	double step = report_svg_nice_step(picture->seconds, 10);
	char text[32];

	report_svg_put_line(picture, LEFT, y, LEFT + PLOT, y, "axis");
	for (int i = 0; i * step <= picture->seconds * 1.0001; i++) {
		double at = i * step;
		double x = report_svg_x_of(picture, at);

		report_svg_put_line(picture, x, y, x, y + 4, "axis");
		if (at > 0 && top < y)
			report_svg_put_line(picture, x, top, x, y, "grid");
		(void)snprintf(text, sizeof(text), "%g", at);
		report_svg_put_text(picture, x, y + 16, "mid", text);
	}
	report_svg_put_text(picture, LEFT + PLOT + 10, y + 16, "", "seconds");
}

/* ------------------------------------------------------------------------------------------------------ the rate -- */

/* The mean rate of each of `count` equal stretches of the time axis. */
static void report_svg_resample(const struct picture *picture, double *rates, size_t count)
{
	const struct record *record = picture->report->record;
	double width = picture->seconds / (double)count;

	for (size_t i = 0; i < count; i++)
		rates[i] = 0;
	for (size_t i = 0; i < record->moment_count; i++) {
		const struct moment *moment = &record->moments[i];
		double from = moment->at_s - moment->length_s;
		double density = moment->length_s > 0 ? (double)moment->written_bytes / moment->length_s : 0;

		for (size_t at = from > 0 ? (size_t)(from / width) : 0; at < count; at++) {
			double low = fmax(from, (double)at * width);
			double high = fmin(moment->at_s, (double)(at + 1) * width);

			if (high <= low && (double)at * width > moment->at_s)
				break;
			if (high > low)
				rates[at] += density * (high - low) / width;
		}
	}
}

static void report_svg_put_rate_scale(const struct picture *picture, double step, double limit)
{
	char text[UNITS_TEXT];
	char line[UNITS_TEXT + 4];

	for (int i = 0; i * step <= limit * 1.001; i++) {
		double rate = i * step;
		double y = RATE_TOP + RATE_HEIGHT * (1 - rate / limit);

		report_svg_put_line(picture, LEFT - 4, y, LEFT + PLOT, y, rate > 0 ? "grid" : "axis");
		(void)snprintf(line, sizeof(line), "%s/s", report_svg_round_bytes(text, rate));
		report_svg_put_text(picture, LEFT - 8, y + 4, "right", rate > 0 ? line : "0");
	}
}

/* Steps of the binary units, so that the labels are round. */
static double report_svg_rate_step(double top)
{
	double unit = pow(1024, floor(log(top > 1 ? top : 1) / log(1024)));

	return report_svg_nice_step(top / unit, 4) * unit;
}

static void report_svg_put_rate(const struct picture *picture)
{
	size_t count = picture->grid.columns ? picture->grid.columns : 1;
	double *rates = calloc(count, sizeof(*rates));
	double top = 1;
	double limit;

	if (!rates)
		return;
	report_svg_resample(picture, rates, count);
	for (size_t i = 0; i < count; i++)
		top = fmax(top, rates[i]);
	limit = ceil(top / report_svg_rate_step(top)) * report_svg_rate_step(top);
	report_svg_put_text(picture, 24, RATE_TOP - 16, "head", "Rate: pages written, bytes a second");
	report_svg_put_rate_scale(picture, report_svg_rate_step(top), limit);
	(void)fprintf(picture->out, "<path class=\"rate\" d=\"M%.1f %.1f", LEFT, RATE_TOP + RATE_HEIGHT);
	for (size_t i = 0; i < count; i++) {
		double y = RATE_TOP + RATE_HEIGHT * (1 - rates[i] / limit);

		(void)fprintf(picture->out, "L%.1f %.1fH%.1f", LEFT + PLOT * (double)i / (double)count, y,
		              LEFT + PLOT * (double)(i + 1) / (double)count);
	}
	(void)fprintf(picture->out, "V%.1fZ\"/>\n", RATE_TOP + RATE_HEIGHT);
	report_svg_put_time_axis(picture, RATE_TOP + RATE_HEIGHT, RATE_TOP + RATE_HEIGHT);
	free(rates);
}

/* ------------------------------------------------------------------------------------------------------- the map -- */

static double report_svg_band_top(const struct picture *picture, size_t band)
{
	return MAP_TOP + (double)picture->grid.bands[band].first_row * picture->row_px + (double)band * GAP;
}

static double report_svg_band_height(const struct picture *picture, size_t band)
{
	return (double)picture->grid.bands[band].rows * picture->row_px;
}

/* All runs of one shade in a row. */
static void report_svg_put_row(const struct picture *picture, size_t row, double y, uint8_t shade)
{
	const uint8_t *shades = picture->grid.shades + row * picture->grid.columns;
	double width = PLOT / (double)picture->grid.columns;

	for (size_t at = 0; at < picture->grid.columns;) {
		size_t end = at;

		while (end < picture->grid.columns && shades[end] == shade)
			end++;
		if (end > at)
			(void)fprintf(picture->out, "M%.1f %.1fh%.1fv%.1fh-%.1fz", LEFT + (double)at * width, y,
			              (double)(end - at) * width, picture->row_px, (double)(end - at) * width);
		at = end > at ? end : at + 1;
	}
}

static void report_svg_put_shade(const struct picture *picture, uint8_t shade)
{
	(void)fprintf(picture->out, "<path fill=\"%s\" shape-rendering=\"crispEdges\" d=\"M0 0", colors[shade]);
	for (size_t band = 0; band < picture->grid.band_count; band++) {
		for (size_t i = 0; i < picture->grid.bands[band].rows; i++)
			report_svg_put_row(picture, picture->grid.bands[band].first_row + i,
			                   report_svg_band_top(picture, band) + (double)i * picture->row_px, shade);
	}
	(void)fputs("\"/>\n", picture->out);
}

static uint64_t report_svg_row_address(const struct picture *picture, uint64_t number)
{
	return (number << picture->grid.shift) * picture->report->record->page_bytes;
}

/* What is left out below a band. */
static void report_svg_put_gap(const struct picture *picture, size_t band)
{
	const struct grid_band *here = &picture->grid.bands[band];
	double y = report_svg_band_top(picture, band) + report_svg_band_height(picture, band) + GAP / 2;
	char text[UNITS_TEXT];
	char line[UNITS_TEXT + 16];

	if (band + 1 == picture->grid.band_count)
		return;
	(void)snprintf(
	        line, sizeof(line), "gap of %s",
	        units_bytes(text, (double)(report_svg_row_address(picture, picture->grid.bands[band + 1].number) -
	                                   report_svg_row_address(picture, here->number + here->rows))));
	report_svg_put_line(picture, LEFT, y, LEFT + PLOT, y, "gap");
	report_svg_put_text(picture, LEFT + PLOT + 6, y + 3, "small", line);
}

/* The first page of a row may not be the one that was written. */
static const struct area *report_svg_band_area(const struct picture *picture, const struct grid_band *band)
{
	const struct record *record = picture->report->record;
	uint64_t start = report_svg_row_address(picture, band->number);
	uint64_t pages = (uint64_t)band->rows << picture->grid.shift;
	uint64_t step = (pages / BAND_SAMPLES + 1) * record->page_bytes;

	for (uint64_t at = start; at < start + pages * record->page_bytes; at += step) {
		const struct area *area = record_area_of(record, at);

		if (area && area->written_bytes)
			return area;
	}
	return NULL;
}

static void report_svg_name_band(const struct picture *picture, size_t band, char *line, size_t size)
{
	const struct area *area = report_svg_band_area(picture, &picture->grid.bands[band]);
	size_t length = area ? strlen(area->name) : 0;

	if (!area)
		(void)snprintf(line, size, "?");
	else if (length > LABEL_CHARACTERS)
		(void)snprintf(line, size, "...%s", area->name + length - (LABEL_CHARACTERS - 3));
	else
		(void)snprintf(line, size, "%s", area->name);
}

static void report_svg_put_label(const struct picture *picture, size_t band, double y)
{
	char line[AREA_NAME];
	char address[32];
	int room = report_svg_band_height(picture, band) + GAP > 2.2 * LABEL_HEIGHT;

	report_svg_name_band(picture, band, line, sizeof(line));
	report_svg_put_text(picture, LEFT - 8, y + (room ? -1 : 4), "right", line);
	if (!room)
		return;
	(void)snprintf(address, sizeof(address), "%" PRIx64,
	               report_svg_row_address(picture, picture->grid.bands[band].number));
	report_svg_put_text(picture, LEFT - 8, y + 10, "smallright", address);
}

/* 1: a label of a band that was written more stands there. */
static int report_svg_is_taken(const struct picture *picture, size_t band, double y, const uint8_t *placed)
{
	for (size_t i = 0; i < picture->grid.band_count; i++) {
		double other = report_svg_band_top(picture, i) + report_svg_band_height(picture, i) / 2;

		if (placed[i] && i != band && fabs(other - y) < LABEL_HEIGHT)
			return 1;
	}
	return 0;
}

/* Names where they have room, those of the bands that were written most first. */
static void report_svg_put_labels(const struct picture *picture)
{
	uint8_t seen[GRID_BANDS_MAX] = {0};
	uint8_t placed[GRID_BANDS_MAX] = {0};

	for (size_t turn = 0; turn < picture->grid.band_count; turn++) {
		size_t best = 0;
		double y;

		for (size_t i = 0; i < picture->grid.band_count; i++) {
			if (!seen[i] &&
			    (seen[best] || picture->grid.bands[i].weight > picture->grid.bands[best].weight))
				best = i;
		}
		seen[best] = 1;
		y = report_svg_band_top(picture, best) + report_svg_band_height(picture, best) / 2;
		if (!report_svg_is_taken(picture, best, y, placed)) {
			placed[best] = 1;
			report_svg_put_label(picture, best, y);
		}
	}
}

static void report_svg_put_legend(const struct picture *picture, double y)
{
	double width = 74;
	char text[32];

	report_svg_put_text(picture, 24, y - 8, "head", "Share of the row's pages that a look found written");
	for (unsigned shade = 1; shade <= GRID_SHADES; shade++) {
		double x = LEFT + (shade - 1) * width;

		(void)fprintf(picture->out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"12\" fill=\"%s\"/>\n",
		              x, y, width, colors[shade]);
		(void)snprintf(text, sizeof(text), shade == 1 ? "below %g %%" : "from %g %%",
		               100 * grid_threshold(shade == 1 ? 2 : shade));
		report_svg_put_text(picture, x + width / 2, y + 26, "mid", text);
	}
	(void)fprintf(picture->out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"40\" height=\"12\" fill=\"%s\"/>\n",
	              LEFT + GRID_SHADES * width + 16, y, colors[0]);
	report_svg_put_text(picture, LEFT + GRID_SHADES * width + 36, y + 26, "mid", "none");
}

static void report_svg_put_map(const struct picture *picture)
{
	const struct record *record = picture->report->record;
	double bottom = MAP_TOP + picture->map_height + 4;
	char row[UNITS_TEXT];
	char column[UNITS_TEXT];
	char line[160];

	(void)snprintf(line, sizeof(line), "Where: a row is %s of addresses, a column %s",
	               report_svg_round_bytes(row, (double)(record->page_bytes << picture->grid.shift)),
	               units_seconds(column, picture->grid.column_s));
	report_svg_put_text(picture, 24, MAP_TOP - 26, "head", line);
	report_svg_put_text(
	        picture, 24, MAP_TOP - 11, "sub",
	        "Addresses grow downwards. Only what was written is shown: dashed lines stand for what lies between.");
	for (uint8_t shade = 0; shade <= GRID_SHADES; shade++)
		report_svg_put_shade(picture, shade);
	for (size_t band = 0; band < picture->grid.band_count; band++)
		report_svg_put_gap(picture, band);
	report_svg_put_labels(picture);
	report_svg_put_time_axis(picture, bottom, bottom);
	report_svg_put_legend(picture, bottom + 56);
}

static void report_svg_put_all(const struct picture *picture)
{
	double height = MAP_TOP + picture->map_height + 128;

	(void)fprintf(picture->out,
	              "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
	              "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" "
	              "viewBox=\"0 0 %.0f %.0f\">\n",
	              WIDTH, height, WIDTH, height);
	report_svg_put_style(picture);
	(void)fprintf(picture->out, "<rect width=\"%.0f\" height=\"%.0f\" fill=\"#ffffff\"/>\n", WIDTH, height);
	report_svg_put_head(picture);
	if (picture->grid.rows) {
		report_svg_put_rate(picture);
		report_svg_put_map(picture);
	} else {
		report_svg_put_text(picture, LEFT, MAP_TOP, "head", "No write was seen.");
	}
	(void)fputs("</svg>\n", picture->out);
}

int report_svg(const struct report *report, FILE *out)
{
	struct picture picture = {.report = report, .out = out};
	int error = grid_make(&picture.grid, &report->record->heat, ROW_MIN, GAP, MAP_HEIGHT);

	if (error)
		return -1;
	picture.seconds = (double)picture.grid.columns * picture.grid.column_s;
	if (picture.grid.rows) {
		picture.row_px = (MAP_HEIGHT - (double)picture.grid.band_count * GAP) / (double)picture.grid.rows;
		picture.row_px = fmin(floor(picture.row_px), ROW_MAX); /* whole ones: no seams */
	}
	picture.map_height = (double)picture.grid.rows * picture.row_px + (double)picture.grid.band_count * GAP;
	report_svg_put_all(&picture);
	grid_fini(&picture.grid);
	return 0;
}
