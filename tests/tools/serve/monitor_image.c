/* SPDX-License-Identifier: MIT */
/* What snapshots became; see monitor.h. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "monitor.h"
#include "uffdwp.h"

static struct uffdwp_image *monitor_open_image(const struct monitor *monitor, const char *name)
{
	struct uffdwp_image_options options = UFFDWP_IMAGE_OPTIONS_INIT;
	struct uffdwp_image *image = NULL;
	char path[PATH_MAX];
	char text[512];

	(void)snprintf(path, sizeof(path), "%s/%s", monitor->options.snapshots, name);
	if (uffdwp_image_open(path, &options, &image) != 0) {
		(void)uffdwp_error_text(text, sizeof(text));
		monitor_fail("image %s: %s", name, text);
	}
	return image;
}

static void monitor_read_image(struct uffdwp_image *image, const char *name, size_t offset, void *to, size_t length)
{
	if (uffdwp_image_read(image, offset, to, length) != 0)
		monitor_fail("image %s cannot be read at %zu", name, offset);
}

void monitor_check_image(struct monitor *monitor, const char *name, const uint8_t *changed, int all)
{
	struct uffdwp_image *image = monitor_open_image(monitor, name);
	uint8_t *page = malloc(monitor->page_bytes);
	unsigned draw = (unsigned)monitor->options.seed;

	if (!page)
		monitor_fail("no memory for a page");
	for (size_t i = 0; i < monitor->length / monitor->page_bytes; i++) {
		size_t offset = i * monitor->page_bytes;

		draw = draw * 1103515245u + 12345u;
		if (!all && !changed[i] && (draw >> 16) % 32 != 0)
			continue;
		monitor_read_image(image, name, offset, page, monitor->page_bytes);
		if (memcmp(page, monitor->expected + offset, monitor->page_bytes) != 0)
			monitor_fail("image %s differs at %zu from the memory at the cut", name, offset);
	}
	free(page);
	(void)uffdwp_image_close(image);
}

void monitor_check_counters(struct monitor *monitor, const char *name, uint64_t least, uint64_t most)
{
	struct uffdwp_image *image = monitor_open_image(monitor, name);
	uint64_t first = 0;
	uint64_t before = 0;

	for (unsigned i = 0; i < MONITOR_COUNTERS; i++) {
		uint64_t value = 0;

		monitor_read_image(image, name, monitor->counter_pages[i] * monitor->page_bytes, &value, sizeof(value));
		if (i == 0)
			first = value;
		else if (value > before || value + 1 < first)
			monitor_fail("image %s is of no instant: counter %u has %llu after %llu", name, i,
			             (unsigned long long)value, (unsigned long long)before);
		before = value;
	}
	if (first + 1 < least || first > most)
		monitor_fail("image %s is of another time: %llu is not in [%llu, %llu]", name,
		             (unsigned long long)first, (unsigned long long)least, (unsigned long long)most);
	(void)uffdwp_image_close(image);
}
