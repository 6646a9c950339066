/* SPDX-License-Identifier: MIT */
/*
 * What the image commands print, for people and as JSON. Names of the latter are only ever added (README.md). Bytes and
 * counts beyond 2^63 do not occur: lengths are at most 2^56.
 */
#include <inttypes.h>
#include <string.h>

#include "base/escape.h"
#include "image.h"
#include "json_add.h"

#define ID_TEXT 33

static const char *image_print_id_text(struct uffdwp_image_id id, char text[ID_TEXT])
{
	(void)snprintf(text, ID_TEXT, "%016" PRIx64 "%016" PRIx64, id.high, id.low);
	return text;
}

static void image_print_add_id(struct json_object *object, const char *name, struct uffdwp_image_id id)
{
	char text[ID_TEXT];

	json_add(object, name, id.low || id.high ? json_object_new_string(image_print_id_text(id, text)) : NULL);
}

/* Names are cut at NAME_TEXT, which is four times what a path has. */
#define NAME_TEXT 16400

static const char *image_print_plain(const char *name, char text[NAME_TEXT])
{
	(void)escape_text(text, NAME_TEXT, name, 0);
	return text;
}

static const char *image_print_kind_word(const struct uffdwp_image_info *info)
{
	return info->kind == UFFDWP_IMAGE_KIND_RAW ? "raw" : "delta";
}

/* ---- info ---- */

static struct json_object *image_print_link_object(const struct uffdwp_image_info *info)
{
	struct json_object *object = json_object_new_object();

	json_add_text(object, "path", info->path);
	json_add(object, "kind", json_object_new_string(image_print_kind_word(info)));
	json_add_bytes(object, "length_bytes", info->length_bytes);
	json_add_bytes(object, "file_bytes", info->file_bytes);
	json_add_bytes(object, "allocated_bytes", info->allocated_bytes);
	image_print_add_id(object, "id", info->id);
	if (info->kind == UFFDWP_IMAGE_KIND_RAW)
		return object;
	image_print_add_id(object, "parent_id", info->parent);
	json_add_text(object, "parent_name", info->parent_name);
	json_add_bytes(object, "page_bytes", info->page_bytes);
	json_add_bytes(object, "region_page_bytes", info->region_page_bytes);
	json_add_bytes(object, "compress", info->compress);
	json_add_bytes(object, "pages_raw", info->pages_raw);
	json_add_bytes(object, "pages_zeros", info->pages_zeros);
	json_add_bytes(object, "pages_compressed", info->pages_packed);
	return object;
}

static void print_link(const struct uffdwp_image_info *info, FILE *out)
{
	char id[ID_TEXT];
	char name[NAME_TEXT];

	(void)fprintf(out, "%s: %s\n", image_print_plain(info->path, name),
	              info->kind == UFFDWP_IMAGE_KIND_RAW ? "raw image" : "delta");
	(void)fprintf(out, "  shows %" PRIu64 " bytes; the file is %" PRIu64 " bytes long and takes %" PRIu64 "\n",
	              info->length_bytes, info->file_bytes, info->allocated_bytes);
	if (info->id.low || info->id.high)
		(void)fprintf(out, "  id %s%s\n", image_print_id_text(info->id, id),
		              info->kind == UFFDWP_IMAGE_KIND_RAW ? " (as its child says)" : "");
	if (info->kind == UFFDWP_IMAGE_KIND_RAW)
		return;
	(void)fprintf(out,
	              "  pages of %" PRIu64 " bytes: %" PRIu64 " stored, %" PRIu64 " compressed, %" PRIu64 " zeros\n",
	              info->page_bytes, info->pages_raw, info->pages_packed, info->pages_zeros);
	(void)fprintf(out, "  parent \"%s\", id %s\n", image_print_plain(info->parent_name, name),
	              image_print_id_text(info->parent, id));
}

int image_print_info(const struct uffdwp_image *image, int json, FILE *out)
{
	struct uffdwp_image_info info = {.sz = sizeof(info)};
	struct json_object *chain = json ? json_object_new_array() : NULL;

	for (uint32_t i = 0; uffdwp_image_info(image, i, &info) == 0; i++) {
		if (chain)
			(void)json_object_array_add(chain, image_print_link_object(&info));
		else
			print_link(&info, out);
	}
	if (!json)
		return 0;
	struct json_object *object = json_object_new_object();

	json_add(object, "chain", chain);
	return json_write(object, JSON_C_TO_STRING_PRETTY, out);
}

/* ---- verify ---- */

int image_print_verified(const struct uffdwp_image *image, const struct uffdwp_image_verified *verified,
                         const char *wrong, int json, FILE *out)
{
	struct uffdwp_image_info info = {.sz = sizeof(info)};
	char id[ID_TEXT];
	char name[NAME_TEXT];

	if (uffdwp_image_info(image, 0, &info) != 0)
		return -1;
	if (json) {
		struct json_object *object = json_object_new_object();

		json_add(object, "whole", json_object_new_boolean(!wrong));
		json_add(object, "error", wrong ? json_object_new_string(image_print_plain(wrong, name)) : NULL);
		json_add_bytes(object, "links", info.links);
		json_add_bytes(object, "links_whole", verified->links);
		json_add_bytes(object, "pages", verified->pages);
		json_add_bytes(object, "bytes_read", verified->bytes_read);
		image_print_add_id(object, "raw_id", verified->raw_id);
		return json_write(object, JSON_C_TO_STRING_PRETTY, out);
	}
	if (!wrong)
		(void)fprintf(out,
		              "%s: whole: %u of %u files, %" PRIu64 " pages of deltas, %" PRIu64
		              " bytes; raw image %s\n",
		              image_print_plain(info.path, name), (unsigned)verified->links, (unsigned)info.links,
		              verified->pages, verified->bytes_read, image_print_id_text(verified->raw_id, id));
	return 0;
}

/* ---- diff ---- */

static int print_diff_json(const struct uffdwp_image_diff *diff, const struct image_ranges *ranges, FILE *out)
{
	struct json_object *object = json_object_new_object();
	struct json_object *list = json_object_new_array();

	for (size_t i = 0; i < ranges->count; i++) {
		struct json_object *range = json_object_new_object();

		json_add_bytes(range, "offset", ranges->ranges[i][0]);
		json_add_bytes(range, "length", ranges->ranges[i][1]);
		(void)json_object_array_add(list, range);
	}
	json_add(object, "differ", json_object_new_boolean(image_ranges_differ(ranges)));
	json_add_bytes(object, "bytes", diff->bytes);
	json_add_bytes(object, "page_bytes", diff->page_bytes);
	json_add_bytes(object, "from_length_bytes", ranges->from_bytes);
	json_add_bytes(object, "to_length_bytes", ranges->to_bytes);
	json_add(object, "ranges", list);
	return json_write(object, JSON_C_TO_STRING_PRETTY, out);
}

int image_print_diff(const struct uffdwp_image_diff *diff, const struct image_ranges *ranges, int json, FILE *out)
{
	if (json)
		return print_diff_json(diff, ranges, out);
	for (size_t i = 0; i < ranges->count; i++)
		(void)fprintf(out, "[%" PRIu64 ", %" PRIu64 ")\n", ranges->ranges[i][0],
		              ranges->ranges[i][0] + ranges->ranges[i][1]);
	(void)fprintf(out, "%" PRIu64 " ranges differ, %" PRIu64 " bytes in pages of %" PRIu64 "\n", diff->ranges,
	              diff->bytes, diff->page_bytes);
	if (ranges->from_bytes != ranges->to_bytes)
		(void)fprintf(out, "the lengths differ: %" PRIu64 " and %" PRIu64 " bytes\n", ranges->from_bytes,
		              ranges->to_bytes);
	return 0;
}
