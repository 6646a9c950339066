/* SPDX-License-Identifier: MIT */
/* What of a restore is fetched first, and what is recorded; see serve_order.h. */
#include "serve_order.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define TOUCHES_MAX (1u << 18) /* 2 MiB of offsets */

/* The order beside the image, or the one that an option names. */
static const char *serve_order_path(const struct serve_client *client, const char *named, char path[PATH_MAX])
{
	if (named)
		return named;
	return snprintf(path, PATH_MAX, "%s.order", client->image) < PATH_MAX ? path : NULL;
}

static void serve_order_read_one(struct serve_client *client, uint64_t page_bytes)
{
	const struct serve_settings *settings = client->settings;
	char beside[PATH_MAX];
	char text[SERVE_TEXT];
	const char *path = serve_order_path(client, settings->order, beside);
	int error =
	        path ? serve_order_load(path, client->handshake.memory.length, page_bytes, &client->order, text) : 0;

	if (error && (error != -ENOENT || settings->order))
		serve_say("%s: no order is followed: %s", client->slot->name, text);
}

/* Each page of the order that the image has, once for each time that the order names it; no more than the image has. */
static uint64_t *serve_order_expand(const struct serve_client *client, uint64_t page_bytes, size_t *count)
{
	uint64_t most = (client->image_length + page_bytes - 1) / page_bytes;
	uint64_t *offsets = client->order.count ? calloc(most, sizeof(*offsets)) : NULL;

	*count = 0;
	for (size_t i = 0; offsets && i < client->order.count; i++) {
		const struct serve_order_range *range = &client->order.ranges[i];

		for (uint64_t at = range->offset; at < range->offset + range->length && *count < most;
		     at += page_bytes) {
			if (at < client->image_length)
				offsets[(*count)++] = at;
		}
	}
	return offsets;
}

static void serve_order_choose_record(struct serve_client *client)
{
	const struct serve_settings *settings = client->settings;
	const char *path = serve_order_path(client, settings->record, client->record);

	client->records = settings->record || (!settings->order && !client->order.count && path &&
	                                       access(path, F_OK) != 0 && errno == ENOENT);
}

uint64_t *serve_order_begin(struct serve_client *client, struct uffdwp_restore_options *options)
{
	struct uffdwp_region_info info = {.sz = sizeof(info)};

	if (client->settings->no_order || uffdwp_region_info(client->region, &info) != 0)
		return NULL;
	client->page_bytes = info.page_bytes;
	serve_order_read_one(client, info.page_bytes);
	serve_order_choose_record(client);
	uint64_t *offsets = serve_order_expand(client, info.page_bytes, &options->first_count);

	options->first = options->first_count ? offsets : NULL;
	options->touches_max = client->records ? TOUCHES_MAX : 0;
	return offsets;
}

/* ---- recording ---- */

/* A range more, or the last one longer. 0: no room. */
static int serve_order_append(struct serve_order *order, size_t room, uint64_t offset, uint64_t length)
{
	struct serve_order_range *last = order->count ? &order->ranges[order->count - 1] : NULL;

	if (last && last->offset + last->length == offset) {
		last->length += length;
		return 1;
	}
	if (order->count == room)
		return 0;
	order->ranges[order->count++] = (struct serve_order_range){offset, length};
	return 1;
}

/* What was followed, whose pages were there before they were used, and then what was waited for beside it. */
static int serve_order_join(const struct serve_client *client, const uint64_t *offsets, size_t count,
                            struct serve_order *out)
{
	size_t room = client->order.count + count;

	room = room < SERVE_ORDER_RANGES_MAX ? room : SERVE_ORDER_RANGES_MAX;
	*out = (struct serve_order){.length = client->handshake.memory.length, .page_bytes = client->page_bytes};
	out->ranges = calloc(room + 1, sizeof(*out->ranges));
	for (size_t i = 0; out->ranges && i < client->order.count; i++)
		(void)serve_order_append(out, room, client->order.ranges[i].offset, client->order.ranges[i].length);
	for (size_t i = 0; out->ranges && i < count; i++)
		(void)serve_order_append(out, room, offsets[i], client->page_bytes);
	return out->ranges ? 0 : -ENOMEM;
}

static void serve_order_record(struct serve_client *client, const uint64_t *offsets, size_t count)
{
	const char *path = client->settings->record ? client->settings->record : client->record;
	struct serve_order order;
	char text[SERVE_TEXT] = "no memory";
	int error = serve_order_join(client, offsets, count, &order);

	if (!error && order.count)
		error = serve_order_save(path, &order, text);
	if (error)
		serve_say("%s: the order is not recorded: %s", client->slot->name, text);
	serve_order_free(&order);
}

void serve_order_end(struct serve_client *client, int error)
{
	uint64_t *offsets = !error && client->records ? calloc(TOUCHES_MAX, sizeof(*offsets)) : NULL;
	size_t count = 0;

	if (offsets && uffdwp_restore_touched(client->restore, offsets, TOUCHES_MAX, &count) == 0)
		serve_order_record(client, offsets, count < TOUCHES_MAX ? count : TOUCHES_MAX);
	free(offsets);
	serve_order_free(&client->order);
}
