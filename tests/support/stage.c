/* SPDX-License-Identifier: MIT */
/* See stage.h. */
#include "stage.h"

#include <string.h>
#include <sys/mman.h>

#include "api.h"
#include "chance.h"
#include "fake.h"
#include "support.h"

#define STAMP_OFFSET 1000
#define STAMP_BYTES 16

static void map_anonymous(struct stage *stage)
{
	stage->base = mmap(NULL, stage->length_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(stage->base != MAP_FAILED);
}

static void open_region(struct stage *stage)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	int error;
	options.delivery = stage->is_inline ? UFFDWP_DELIVERY_INLINE : UFFDWP_DELIVERY_THREAD;
	if (stage->attached) {
		map_anonymous(stage);
		error = uffdwp_region_attach(stage->runtime, stage->base, stage->length_bytes, &options,
		                             &stage->region);
	} else {
		error = uffdwp_region_create(stage->runtime, stage->length_bytes, &options, &stage->region);
	}
	if (error != 0) {
		char text[512];
		(void)uffdwp_error_text(text, sizeof(text));
		fprintf(stderr, "%s\n", text);
	}
	must(error == 0);
	stage->base = uffdwp_region_base(stage->region);
}

void stage_open(struct stage *stage, int which, size_t pages)
{
	struct chance chance = chance_new(1000);
	memset(stage, 0, sizeof(*stage));
	stage->attached = which % 2 == 0;
	stage->is_inline = which / 2 == 1;
	stage->pages = pages;
	stage->length_bytes = pages * STAGE_PAGE;
	must(api_open(fake_kernel(), NULL, &stage->runtime) == 0);
	open_region(stage);
	stage->image = malloc(stage->length_bytes);
	stage->cut = malloc(stage->length_bytes);
	stage->came = malloc(pages);
	must(stage->image != NULL && stage->cut != NULL && stage->came != NULL);
	chance_fill(&chance, stage->base, stage->length_bytes);
}

void stage_close(struct stage *stage)
{
	must(uffdwp_region_close(stage->region) == 0);
	must(uffdwp_close(stage->runtime) == 0);
	if (stage->attached) {
		munmap(stage->base, stage->length_bytes);
	}
	free(stage->image);
	free(stage->cut);
	free(stage->came);
}

void stage_write(struct stage *stage, size_t page, uint8_t value)
{
	uint8_t bytes[STAMP_BYTES];
	memset(bytes, value, sizeof(bytes));
	fake_write(stage->base + page * STAGE_PAGE + STAMP_OFFSET, bytes, sizeof(bytes));
}

int stage_holds(const struct stage *stage, size_t page, uint8_t value)
{
	uint8_t bytes[STAMP_BYTES];
	uint8_t wanted[STAMP_BYTES];
	memset(wanted, value, sizeof(wanted));
	fake_read(stage->base + page * STAGE_PAGE + STAMP_OFFSET, bytes, sizeof(bytes));
	return memcmp(bytes, wanted, sizeof(bytes)) == 0;
}

static int take_bytes(void *user, uint64_t offset, const void *data, uint64_t length)
{
	struct stage *stage = user;
	must(offset + length <= stage->length_bytes);
	if (stage->gate != NULL) {
		gate_pass(stage->gate);
	}
	memcpy(stage->image + offset, data, length);
	for (uint64_t page = offset / STAGE_PAGE; page * STAGE_PAGE < offset + length; page++) {
		stage->came[page]++;
		must(stage->came[page] == 1);
	}
	return 0;
}

struct uffdwp_snapshot_options stage_options(struct stage *stage, size_t pool_pages)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = take_bytes;
	options.user = stage;
	options.pool_bytes = pool_pages * STAGE_PAGE;
	options.wait_ns = 60000000000u;
	return options;
}

int stage_begin(struct stage *stage, const struct uffdwp_snapshot_options *options)
{
	memset(stage->image, 0, stage->length_bytes);
	memset(stage->came, 0, stage->pages);
	return uffdwp_snapshot_begin(stage->region, options, &stage->snapshot);
}

int stage_end(struct stage *stage, struct uffdwp_snapshot_progress *progress)
{
	int result = uffdwp_snapshot_wait(stage->snapshot, -1, progress);
	must(uffdwp_snapshot_free(stage->snapshot) == 0);
	stage->snapshot = NULL;
	return result;
}

struct uffdwp_region_stats stage_stats(const struct stage *stage)
{
	struct uffdwp_region_stats stats = {.sz = sizeof(stats)};
	must(uffdwp_region_stats(stage->region, &stats) == 0);
	return stats;
}

size_t stage_wp_bits(const struct stage *stage)
{
	size_t wp_bits = 0;
	for (size_t page = 0; page < stage->pages; page++) {
		wp_bits += (size_t)fake_is_armed(stage->base + page * STAGE_PAGE);
	}
	return wp_bits;
}
