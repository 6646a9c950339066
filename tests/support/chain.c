/* SPDX-License-Identifier: MIT */
/* See chain.h. */
#include "chain.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "image/base.h"
#include "image/pack.h"
#include "support.h"
#include "uffdwp.h"

#define BLOCK 4096

/* A page: zeros, noise, text that packs well, or half of each. */
static void fill_page(struct chance *chance, uint8_t *page, size_t length)
{
	memset(page, 0, length);
	switch (chance_below(chance, 4)) {
	case 0:
		break;
	case 1:
		chance_fill(chance, page, length);
		break;
	case 2:
		memset(page, (int)chance_below(chance, 255) + 1, length);
		break;
	default:
		chance_fill(chance, page, length / 2);
		break;
	}
}

struct image_id test_chain_raw_id(const char *path, size_t length)
{
	struct base_list list;
	unsigned char *buffer = malloc(BASE_BLOCK_BYTES);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	must(fd >= 0 && buffer != NULL);
	must(base_open(&list, &kernel_real, length) == 0);
	must(base_put_file(&list, fd, length, buffer, NULL, NULL) == 0);
	struct image_id id = base_id(&list, length);
	base_close(&list);
	free(buffer);
	close(fd);
	return id;
}

static void name_newest(struct test_chain *chain, const char *name, struct image_id id, int is_raw)
{
	memset(&chain->newest, 0, sizeof(chain->newest));
	chain->newest.id = id;
	chain->newest.is_raw = is_raw;
	chain->newest.length_bytes = chain->length;
	(void)snprintf(chain->newest.name, sizeof(chain->newest.name), "%s", name);
	scratch_join(chain->path, chain->folder, name);
}

void test_chain_begin(struct test_chain *chain, size_t page_bytes, size_t length, uint64_t salt)
{
	*chain = (struct test_chain){.page_bytes = page_bytes, .length = length, .chance = chance_new(salt)};
	chain->shadow = calloc(1, CHAIN_SHADOW_MOST);
	must(chain->shadow != NULL && length <= CHAIN_SHADOW_MOST);
	for (size_t at = 0; at < length; at += BLOCK) {
		fill_page(&chain->chance, chain->shadow + at, length - at < BLOCK ? length - at : BLOCK);
	}
	scratch_folder(chain->folder);
	char path[SCRATCH_PATH];
	scratch_join(path, chain->folder, "base");
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	must(fd >= 0 && ftruncate(fd, (off_t)length) == 0);
	static const uint8_t zeros[BLOCK];
	for (size_t at = 0; at < length; at += BLOCK) {
		size_t part = length - at < BLOCK ? length - at : BLOCK;
		if (memcmp(chain->shadow + at, zeros, part) != 0) {
			must(pwrite(fd, chain->shadow + at, part, (off_t)at) == (ssize_t)part);
		}
	}
	close(fd);
	name_newest(chain, "base", test_chain_raw_id(path, length), 1);
}

void test_chain_end(struct test_chain *chain)
{
	free(chain->shadow);
}

/* Shrinks to a new length: what is beyond it is zeros from now on. */
static void set_length(struct test_chain *chain, size_t length)
{
	if (length < chain->length) {
		memset(chain->shadow + length, 0, chain->length - length);
	}
	chain->length = length;
}

static void put_page(struct test_chain *chain, struct image_writer *writer, size_t page)
{
	size_t at = page * chain->page_bytes;
	size_t part = chain->length - at < chain->page_bytes ? chain->length - at : chain->page_bytes;
	fill_page(&chain->chance, chain->shadow + at, part);
	uint8_t bytes[DELTA_PAGE_BYTES_MOST] = {0};
	memcpy(bytes, chain->shadow + at, part);
	must(image_writer_put(writer, page, bytes) == 0);
}

static void put_some(struct test_chain *chain, struct image_writer *writer)
{
	size_t pages = (chain->length + chain->page_bytes - 1) / chain->page_bytes;
	size_t start = pages ? chance_below(&chain->chance, pages) : 0;
	for (size_t i = 0; i < pages; i++) { /* from anywhere, round: in no order */
		size_t page = (start + i) % pages;
		if (chance_below(&chain->chance, 4) == 0) {
			put_page(chain, writer, page);
		}
	}
}

#define PAGES_SOME SIZE_MAX

/* A delta of one page, or of some. */
static void add_delta(struct test_chain *chain, uint32_t compress, size_t length, size_t page)
{
	struct text text;
	text_init(&text);
	char name[32];
	char path[SCRATCH_PATH];
	(void)snprintf(name, sizeof(name), "delta-%u", ++chain->count);
	scratch_join(path, chain->folder, name);
	must(length <= CHAIN_SHADOW_MOST);
	set_length(chain, length);
	struct image_writer_options options = {.path = path,
	                                       .flags = chance_below(&chain->chance, 2) ? IMAGE_FILE_BUFFERED : 0,
	                                       .compress = pack_built() ? compress : 0,
	                                       .page_bytes = chain->page_bytes,
	                                       .region_page_bytes = chain->page_bytes,
	                                       .pages_most = CHAIN_SHADOW_MOST / chain->page_bytes};
	struct image_writer *writer = NULL;
	must(image_writer_open(&kernel_real, &options, &text, &writer) == 0);
	if (page == PAGES_SOME) {
		put_some(chain, writer);
	} else {
		put_page(chain, writer, page);
	}
	struct image_identity identity;
	must(image_writer_commit(writer, &chain->newest, length, &identity, &text) == 0);
	image_writer_close(writer, 1);
	name_newest(chain, name, identity.id, 0);
	text_fini(&text);
}

void test_chain_step(struct test_chain *chain, uint32_t compress, size_t length)
{
	add_delta(chain, compress, length, PAGES_SOME);
}

void test_chain_step_page(struct test_chain *chain, size_t page, size_t length)
{
	add_delta(chain, 0, length, page);
}

static int reads_as(struct uffdwp_image *image, const uint8_t *bytes, size_t offset, size_t length)
{
	uint8_t *buffer = malloc(length + 1);
	must(buffer != NULL);
	memset(buffer, 0xa5, length + 1);
	int same = uffdwp_image_read(image, offset, buffer, length) == 0 &&
	           memcmp(buffer, bytes + offset, length) == 0 && buffer[length] == 0xa5;
	free(buffer);
	return same;
}

/* The same by extents: data where it is said to be, zeros else. */
static int extents_show(struct uffdwp_image *image, const uint8_t *bytes, size_t length)
{
	struct uffdwp_image_extent extent = {.sz = sizeof(extent)};
	uint64_t at = 0;
	while (uffdwp_image_next(image, at, &extent) == 1) {
		uint8_t *buffer = calloc(1, extent.length);
		must(buffer != NULL && extent.offset == at && extent.length > 0);
		if (extent.kind == UFFDWP_EXTENT_DATA) {
			must(pread(extent.fd, buffer, extent.length, (off_t)extent.file_offset) ==
			     (ssize_t)extent.length);
		} else if (extent.kind == UFFDWP_EXTENT_PACKED) {
			must(uffdwp_image_read(image, at, buffer, extent.length) == 0);
		}
		int same = memcmp(buffer, bytes + at, extent.length) == 0;
		free(buffer);
		if (!same) {
			return 0;
		}
		at += extent.length;
	}
	return at == length;
}

int test_chain_shows(const char *path, const uint8_t *bytes, size_t length, struct chance *chance)
{
	struct uffdwp_image *image = NULL;
	struct uffdwp_image_info info = {.sz = sizeof(info)};
	if (uffdwp_image_open(path, NULL, &image) != 0) {
		return 0;
	}
	int same = uffdwp_image_info(image, 0, &info) == 0 && info.length_bytes == length &&
	           reads_as(image, bytes, 0, length) && extents_show(image, bytes, length);
	for (int i = 0; i < 200 && same && length > 0; i++) {
		size_t offset = chance_below(chance, length);
		size_t most = length - offset < 200000 ? length - offset : 200000;
		same = reads_as(image, bytes, offset, chance_below(chance, most + 1));
	}
	(void)uffdwp_image_close(image);
	return same;
}
