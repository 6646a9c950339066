/* SPDX-License-Identifier: MIT */
/* See visit.h. */
#include "visit.h"

#include <string.h>
#include <unistd.h>

#define PART_BYTES 65536
#define EXTENTS_MOST 256
#define PARTS_MOST 24

void visit_begin(struct visit *visit)
{
	visit->count = 0;
}

void visit_end(struct visit *visit)
{
	for (unsigned i = 0; i < visit->count; i++)
		close(visit->fds[i]);
}

void visit_add(struct visit *visit, const struct forged *forged)
{
	visit->fds[visit->count] = forge_file(forged);
	forge_path(visit->fds[visit->count], visit->paths[visit->count]);
	visit->count++;
}

void visit_build(struct visit *visit, struct forge_input *input, unsigned deltas)
{
	static uint8_t bytes[VISIT_FILES_MOST][FORGE_BYTES_MOST];
	struct forged files[VISIT_FILES_MOST];

	for (unsigned i = 0; i <= deltas; i++) {
		files[i] = (struct forged){.bytes = bytes[i]};
		if (i == 0)
			forge_raw(input, &files[0]);
		else
			forge_delta(input, &files[i - 1], &files[i]);
	}
	for (unsigned i = deltas + 1; i > 0; i--)
		visit_add(visit, &files[i - 1]);
}

struct uffdwp_image *visit_open(struct visit *visit, unsigned number)
{
	return visit_open_path(visit, visit->paths[number], 0);
}

struct uffdwp_image *visit_open_path(struct visit *visit, const char *path, uint32_t flags)
{
	const char *paths[VISIT_FILES_MOST];
	struct uffdwp_image_options options = UFFDWP_IMAGE_OPTIONS_INIT;
	struct uffdwp_image *image = NULL;
	char text[512];

	for (unsigned i = 0; i < visit->count; i++)
		paths[i] = visit->paths[i];
	options.paths = paths;
	options.path_count = visit->count;
	options.contexts = 1;
	options.flags = flags;
	int error = uffdwp_image_open(path, &options, &image);

	forge_must(error <= 0 && (error != 0) == (image == NULL), "an image is opened, or refused");
	forge_must(!error || uffdwp_error_text(text, sizeof(text)) > 0, "a refusal has a text");
	return image;
}

/* The bytes of an extent, by the file. */
static void check_extent(struct uffdwp_image *image, const struct uffdwp_image_extent *extent)
{
	static uint8_t read_bytes[PART_BYTES];
	static uint8_t file_bytes[PART_BYTES];
	size_t part = extent->length < PART_BYTES ? (size_t)extent->length : PART_BYTES;

	if (extent->kind == UFFDWP_EXTENT_PACKED || uffdwp_image_read(image, extent->offset, read_bytes, part))
		return;
	memset(file_bytes, 0, part);
	if (extent->kind == UFFDWP_EXTENT_DATA)
		forge_must(pread(extent->fd, file_bytes, part, (off_t)extent->file_offset) == (ssize_t)part,
		           "an extent's bytes are in its file");
	forge_must(memcmp(read_bytes, file_bytes, part) == 0, "an extent shows what is read");
}

void visit_look(struct uffdwp_image *image)
{
	struct uffdwp_image_info info = {.sz = sizeof(info)};
	struct uffdwp_image_extent extent = {.sz = sizeof(extent)};
	uint64_t offset = 0;

	forge_must(uffdwp_image_info(image, 0, &info) == 0, "an image can be described");
	uint64_t length = info.length_bytes;

	for (uint32_t i = 1; i < info.links; i++) {
		struct uffdwp_image_info link = {.sz = sizeof(link)};

		forge_must(uffdwp_image_info(image, i, &link) == 0, "a link can be described");
	}
	for (unsigned i = 0; i < EXTENTS_MOST && uffdwp_image_next(image, offset, &extent) == 1; i++) {
		forge_must(extent.offset == offset && extent.length > 0 && extent.length <= length - offset,
		           "extents follow each other and end with the image");
		check_extent(image, &extent);
		offset += extent.length;
	}
	uint8_t byte;

	forge_must(uffdwp_image_read(image, length, &byte, 1) < 0, "what is outside is not read");
}

int visit_verify(struct uffdwp_image *image)
{
	struct uffdwp_image_verified verified = {.sz = sizeof(verified)};
	char text[512];
	static uint8_t bytes[PART_BYTES];
	int error = uffdwp_image_verify(image, &verified);
	struct uffdwp_image_info info = {.sz = sizeof(info)};

	forge_must(!error || uffdwp_image_text(image, text, sizeof(text)) > 0, "damage has a text");
	forge_must(uffdwp_image_info(image, 0, &info) == 0, "an image can be described");
	for (uint64_t at = 0, i = 0; !error && at < info.length_bytes && i < PARTS_MOST; at += PART_BYTES, i++) {
		uint64_t left = info.length_bytes - at;

		forge_must(uffdwp_image_read(image, at, bytes, left < PART_BYTES ? (size_t)left : PART_BYTES) == 0,
		           "what is whole can be read");
	}
	return error;
}

void visit_compare(struct uffdwp_image *one, struct uffdwp_image *two)
{
	static uint8_t bytes_one[PART_BYTES];
	static uint8_t bytes_two[PART_BYTES];
	struct uffdwp_image_info info = {.sz = sizeof(info)};
	struct uffdwp_image_info other = {.sz = sizeof(other)};

	forge_must(uffdwp_image_info(one, 0, &info) == 0 && uffdwp_image_info(two, 0, &other) == 0,
	           "both are described");
	forge_must(info.length_bytes == other.length_bytes, "both are as long");
	for (uint64_t at = 0, i = 0; at < info.length_bytes && i < PARTS_MOST; at += PART_BYTES, i++) {
		uint64_t left = info.length_bytes - at;
		size_t part = left < PART_BYTES ? (size_t)left : PART_BYTES;

		if (uffdwp_image_read(one, at, bytes_one, part) == 0)
			forge_must(uffdwp_image_read(two, at, bytes_two, part) == 0 &&
			                   memcmp(bytes_one, bytes_two, part) == 0,
			           "both show the same");
	}
}
