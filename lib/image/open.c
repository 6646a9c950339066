/* SPDX-License-Identifier: MIT */
/* Opening a chain: every link is checked before the next is looked for (INV-LINK). See chain.h. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/errno_name.h"
#include "base/invariant.h"
#include "base/math.h"
#include "image/base.h"
#include "image/chain.h"
#include "image/file.h"
#include "image/io.h"
#include "kernel/pages.h"

#define CONTEXTS_DEFAULT 16
#define RAW_PAGE_BYTES 4096

/* Those of the chain, and a file that may be the next one. */
#define LINKS_ROOM (CHAIN_LINKS_MAX + 1)

/* What is read of an index before it is believed. */
#define INDEX_PIECE_BYTES (1u << 20)

/* ---- one link ---- */

static size_t open_index_bytes(const struct image_link *link)
{
	return (size_t)link->header.index_count * DELTA_ENTRY_BYTES;
}

static int open_file(struct uffdwp_image *image, struct image_link *link, const char *path, struct text *text)
{
	struct stat st;

	if (strlen(path) >= sizeof(link->path))
		return text_fail(text, -ENAMETOOLONG, "the path of an image is too long");
	snprintf(link->path, sizeof(link->path), "%s", path);
	link->fd = image->k->open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);
	if (link->fd < 0)
		return text_fail(text, link->fd, "the image \"%s\" cannot be opened: %s", path, errno_text(link->fd));
	int error = image->k->fstat(link->fd, &st);

	if (error)
		return text_fail(text, error, "\"%s\" cannot be looked at: %s", path, errno_text(error));
	if (!S_ISREG(st.st_mode))
		return text_fail(text, S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL, "\"%s\" is not a regular file", path);
	link->file_bytes = (uint64_t)st.st_size;
	return 0;
}

static int open_read_failed(struct text *text, const char *path, uint64_t at, int error)
{
	return text_fail(text, error, "\"%s\" cannot be read at byte %" PRIu64 ": %s", path, at,
	                 error == -EBADMSG ? "the file ends there" : errno_text(error));
}

/* Room for `bytes` of the index, all of it at most; twice as much as before, so that it moves seldom. */
static int open_grow_index(const struct uffdwp_image *image, struct image_link *link, size_t bytes)
{
	size_t room = (size_t)math_min_u64(bytes > 2 * link->index_room ? bytes : 2 * link->index_room,
	                                   open_index_bytes(link));
	int error;

	if (bytes <= link->index_room)
		return 0;
	unsigned char *grown =
	        link->index ? image->k->mremap(link->index, link->index_room, room, MREMAP_MAYMOVE, NULL, &error)
	                    : pages_new(image->k, room);

	if (!grown)
		return -ENOMEM;
	link->index = grown;
	link->index_room = room;
	return 0;
}

/* A file's length costs nothing where it is sparse: no more memory is taken than the entries need that were found to be
 * right. */
static int open_read_entries(const struct uffdwp_image *image, struct image_link *link, struct delta_index_check *check,
                             struct text *text)
{
	size_t all = open_index_bytes(link);
	int error = 0;

	for (size_t at = 0; at < all && !error; at += INDEX_PIECE_BYTES) {
		size_t part = (size_t)math_min_u64(INDEX_PIECE_BYTES, all - at);
		uint64_t offset = link->header.index_offset + at;

		if (open_grow_index(image, link, at + part))
			return text_fail(text, -ENOMEM, "no memory for the index of \"%s\"", link->path);
		error = io_read(image->k, link->fd, link->index + at, part, offset);
		error = error ? open_read_failed(text, link->path, offset, error)
		              : delta_check_entries(check, &link->header, link->index + at, part / DELTA_ENTRY_BYTES,
		                                    link->path, text);
	}
	return error;
}

static int open_check_padding(const struct uffdwp_image *image, const struct image_link *link,
                              const struct delta_index_check *check, struct text *text)
{
	unsigned char bytes[DELTA_HEADER_BYTES];
	uint64_t end = delta_data_end(check);
	size_t length = (size_t)(link->header.index_offset - end); /* less than a page: the index was checked */
	int error = io_read(image->k, link->fd, bytes, length, end);

	return error ? open_read_failed(text, link->path, end, error)
	             : delta_check_padding(&link->header, bytes, length, link->path, text);
}

static int open_read_index(const struct uffdwp_image *image, struct image_link *link, const unsigned char *header_bytes,
                           struct text *text)
{
	struct delta_index_check check = {0};
	int error = open_read_entries(image, link, &check, text);

	if (!error)
		error = delta_check_index(&check, &link->header, &link->trailer, header_bytes, link->index, link->path,
		                          text);
	memcpy(link->kinds, check.pages, sizeof(link->kinds));
	return error ? error : open_check_padding(image, link, &check, text);
}

static int open_load_delta(struct uffdwp_image *image, struct image_link *link, struct text *text)
{
	unsigned char bytes[DELTA_HEADER_BYTES];
	unsigned char end[DELTA_TRAILER_BYTES];

	if (link->file_bytes < DELTA_HEADER_BYTES + DELTA_TRAILER_BYTES)
		return text_fail(text, -EBADMSG, "\"%s\" is damaged at byte %" PRIu64 ": a delta is longer", link->path,
		                 link->file_bytes);
	int error = io_read(image->k, link->fd, bytes, sizeof(bytes), 0);

	if (error)
		return open_read_failed(text, link->path, 0, error);
	error = delta_decode_header(bytes, link->file_bytes, link->path, &link->header, text);
	if (error)
		return error;
	error = io_read(image->k, link->fd, end, sizeof(end), link->file_bytes - sizeof(end));
	if (error)
		return open_read_failed(text, link->path, link->file_bytes - sizeof(end), error);
	error = delta_decode_trailer(end, link->file_bytes, link->path, &link->trailer, text);
	link->length_bytes = link->header.length_bytes;
	return error ? error : open_read_index(image, link, bytes, text);
}

/* By its first bytes, or its last: a delta whose first byte is damaged must not pass for a raw image, nor one that
 * cannot be read. 1 or 0, or -errno with a text. */
static int open_is_delta(const struct uffdwp_image *image, const struct image_link *link, struct text *text)
{
	unsigned char bytes[DELTA_TRAILER_BYTES];
	size_t length = link->file_bytes < sizeof(bytes) ? 8 : sizeof(bytes);
	uint64_t last = link->file_bytes - length;

	if (link->file_bytes < length)
		return 0;
	int error = io_read(image->k, link->fd, bytes, length, 0);

	if (error)
		return open_read_failed(text, link->path, 0, error);
	if (delta_is_magic(bytes) || length < sizeof(bytes))
		return delta_is_magic(bytes);
	error = io_read(image->k, link->fd, bytes, length, last);
	return error ? open_read_failed(text, link->path, last, error) : delta_is_trailer(bytes);
}

/* A copy of an export whose snapshot did not come to its end (snapshot/nbd.c). */
static int open_check_finished(const struct uffdwp_image *image, const struct image_link *link, struct text *text)
{
	static const char label[] = UFFDWP_NBD_UNFINISHED;
	char bytes[sizeof(label) - 1];

	if (link->file_bytes < sizeof(bytes))
		return 0;
	int error = io_read(image->k, link->fd, bytes, sizeof(bytes), 0);

	if (error)
		return open_read_failed(text, link->path, 0, error);
	if (memcmp(bytes, label, sizeof(bytes)) != 0)
		return 0;
	return text_fail(text, -EBADMSG,
	                 "\"%s\" is the copy of a block device whose snapshot was not finished: take another (or, if "
	                 "memory really began with these words, open it as raw)",
	                 link->path);
}

static void open_unload(struct uffdwp_image *image, struct image_link *link)
{
	if (link->fd >= 0)
		image->k->close(link->fd);
	if (link->index)
		pages_free(image->k, link->index, link->index_room);
	memset(link, 0, sizeof(*link));
	link->fd = -1;
}

static int open_load(struct uffdwp_image *image, struct image_link *link, const char *path, int as_raw,
                     struct text *text)
{
	link->fd = -1;
	int error = open_file(image, link, path, text);
	int delta = error || as_raw ? 0 : open_is_delta(image, link, text);

	if (delta < 0)
		error = delta;
	if (!error && !delta) {
		link->is_raw = 1;
		link->length_bytes = link->file_bytes;
		error = as_raw ? 0 : open_check_finished(image, link, text);
	} else if (!error) {
		error = open_load_delta(image, link, text);
	}
	if (error)
		open_unload(image, link);
	return error;
}

/* ---- the parent of a link ---- */

/* For a text: what stands in the place of a raw parent may be a delta, written over it. */
static int open_chain_seems_delta(const struct uffdwp_image *image, const struct image_link *link)
{
	struct text ignored;

	text_init_apart(&ignored);
	int seems = link->is_raw && open_is_delta(image, link, &ignored) > 0;

	text_fini(&ignored);
	return seems;
}

/* 0: this can be it; else which of its features says that it is not. */
static int open_judge_parent(const struct uffdwp_image *image, const struct image_link *child,
                             const struct image_link *link, struct text *text)
{
	const struct delta_header *wanted = &child->header;
	char has[DELTA_ID_TEXT];
	char wants[DELTA_ID_TEXT];

	delta_id_text(link->header.id, has);
	delta_id_text(wanted->parent, wants);
	if (link->is_raw != !!(wanted->flags & DELTA_PARENT_IS_RAW))
		return text_fail(text, -EXDEV, "\"%s\" is not the parent of \"%s\": it is %s, and the parent is %s",
		                 link->path, child->path, link->is_raw ? "a raw image" : "a delta",
		                 link->is_raw ? "a delta" : "a raw image");
	if (!link->is_raw && !identity_equal(link->header.id, wanted->parent))
		return text_fail(text, -EXDEV,
		                 "\"%s\" is not the parent of \"%s\": its id is %s, and the parent's is %s", link->path,
		                 child->path, has, wants);
	if (link->length_bytes != wanted->parent_length_bytes)
		return text_fail(text, -EXDEV,
		                 "\"%s\" is not the parent of \"%s\": it has %" PRIu64
		                 " bytes, and the parent has %" PRIu64 "%s",
		                 link->path, child->path, link->length_bytes, wanted->parent_length_bytes,
		                 open_chain_seems_delta(image, link)
		                         ? " (it seems to be a delta, written over the parent)"
		                         : "");
	if (!link->is_raw && link->header.page_bytes != wanted->page_bytes)
		return text_fail(text, -EXDEV, "\"%s\" is not the parent of \"%s\": its pages have another size",
		                 link->path, child->path);
	return 0;
}

static int open_try_parent(struct uffdwp_image *image, const struct image_link *child, struct image_link *link,
                           const char *path, struct text *text)
{
	int error = open_load(image, link, path, (child->header.flags & DELTA_PARENT_IS_RAW) != 0, text);

	if (!error)
		error = open_judge_parent(image, child, link, text);
	if (error)
		open_unload(image, link);
	return error;
}

/* The search for a parent. A delta is known by its id. A raw file is known by its length only, until it is read whole:
 * where several files have the right length, they are read until one has the right id. */
struct open_search {
	struct uffdwp_image *image;
	const struct image_link *child;
	const struct chain_options *options;
	struct image_link *link;      /* what was found; its fd is -1: nothing yet */
	struct image_link *candidate; /* where the next file is opened */
	int is_certain;               /* the link has the right id */
	int refused;                  /* raw files of the right length were read, and are not the parent */
	int failed;                   /* negative errno: one of them could not be read */
};

static int open_raw_id(const struct uffdwp_image *image, const struct image_link *link, struct image_id *id)
{
	unsigned char *buffer = pages_new(image->k, BASE_BLOCK_BYTES);
	struct base_list list;
	int error = buffer ? base_open(&list, image->k, link->length_bytes) : -ENOMEM;

	if (!error) {
		error = base_put_file(&list, link->fd, link->length_bytes, buffer, NULL, NULL);
		*id = base_id(&list, link->length_bytes);
		base_close(&list);
	}
	pages_free(image->k, buffer, BASE_BLOCK_BYTES);
	return error;
}

/* Reads the raw file that was found, which does not stay where it is not the parent. */
static void open_check_found(struct open_search *search)
{
	struct image_id id;
	int error = open_raw_id(search->image, search->link, &id);

	search->is_certain = !error && identity_equal(id, search->child->header.parent);
	if (search->is_certain)
		return;
	search->refused = 1;
	search->failed = error ? error : search->failed;
	open_unload(search->image, search->link);
}

static int open_are_one_file(const struct kernel_ops *k, int fd, int other_fd)
{
	struct stat one;
	struct stat other;

	return !k->fstat(fd, &one) && !k->fstat(other_fd, &other) && one.st_dev == other.st_dev &&
	       one.st_ino == other.st_ino;
}

static int open_try_candidate(struct open_search *search, const char *path, struct text *text)
{
	int error = open_try_parent(search->image, search->child, search->candidate, path, text);

	if (error)
		return error;
	if (search->candidate->is_raw && search->link->fd >= 0) {
		if (!open_are_one_file(search->image->k, search->link->fd, search->candidate->fd))
			open_check_found(search);
		if (search->link->fd >= 0) {
			open_unload(search->image, search->candidate);
			return 0;
		}
	}
	*search->link = *search->candidate;
	search->is_certain = !search->link->is_raw;
	return 0;
}

/* Looks at the paths that were given: first those with the name that the child says, then the others. */
static void open_search_given(struct open_search *search, struct text *text)
{
	const struct chain_options *options = search->options;

	for (int named = 1; named >= 0; named--) {
		for (size_t i = 0; i < options->path_count && !search->is_certain; i++) {
			const char *path = options->paths[i];

			if ((strcmp(image_name_of(path), search->child->header.parent_name) == 0) == named)
				(void)open_try_candidate(search, path, text);
		}
	}
}

/* In the folder of this path, under the name that the child says. */
static int open_try_beside(struct open_search *search, const char *beside, struct text *text)
{
	const struct image_link *child = search->child;
	char path[CHAIN_PATH_BYTES];
	size_t folder = (size_t)(image_name_of(beside) - beside);

	if (folder + strlen(child->header.parent_name) >= sizeof(path))
		return text_fail(text, -ENAMETOOLONG, "the path of the parent of \"%s\" is too long", child->path);
	snprintf(path, sizeof(path), "%.*s%s", (int)folder, beside, child->header.parent_name);
	int error = open_try_candidate(search, path, text);

	if (error == -ENOENT)
		return text_fail(text, -ENOENT,
		                 "the parent of \"%s\" is missing: there is no \"%s\"; put it there or name its path",
		                 child->path, path);
	return error;
}

/* Beside the child's file, where its path is a symbolic link to it. */
static void open_try_beside_file(struct open_search *search, struct text *text)
{
	char link[32];
	char path[CHAIN_PATH_BYTES];

	snprintf(link, sizeof(link), "/proc/self/fd/%d", search->child->fd);
	ssize_t length = search->image->k->readlinkat(AT_FDCWD, link, path, sizeof(path) - 1);

	if (length <= 0 || length == (ssize_t)sizeof(path) - 1 || path[0] != '/')
		return;
	path[length] = '\0';
	(void)open_try_beside(search, path, text);
}

static int open_search_beside(struct open_search *search, struct text *text)
{
	int error = open_try_beside(search, search->child->path, text);

	if (!search->is_certain)
		open_try_beside_file(search, text);
	return search->link->fd >= 0 ? 0 : error;
}

static int open_refuse_all(const struct open_search *search, struct text *text)
{
	const struct image_link *child = search->child;
	char wants[DELTA_ID_TEXT];

	if (search->failed)
		return text_fail(text, search->failed, "a file that may be the parent of \"%s\" cannot be read: %s",
		                 child->path, base_refusal(search->failed));
	delta_id_text(child->header.parent, wants);
	return text_fail(
	        text, -EXDEV,
	        "none of the raw images that have the length of the parent of \"%s\" is it: the parent's id is %s",
	        child->path, wants);
}

/* What is only tried leaves no text, unless nothing was found: then why the file beside the child is not the parent. */
static int open_search_parent(struct open_search *search, struct text *text)
{
	struct text unreported;

	search->link->fd = -1;
	text_init_apart(&unreported);
	(void)open_search_beside(search, &unreported);
	open_search_given(search, &unreported);
	text_fini(&unreported);
	if (search->refused && !search->is_certain)
		open_check_found(search);
	if (search->link->fd >= 0)
		return 0;
	return search->refused ? open_refuse_all(search, text) : open_try_beside(search, search->child->path, text);
}

static int open_load_parent(struct uffdwp_image *image, const struct chain_options *options, struct text *text)
{
	struct image_link *child = &image->links[image->link_count - 1];
	struct image_link *link = &image->links[image->link_count];
	struct open_search search = {image, child, options, .link = link, .candidate = link + 1};

	if (image->link_count == CHAIN_LINKS_MAX)
		return text_fail(text, -ELOOP, "the chain has more than %d links: merge some", CHAIN_LINKS_MAX);
	int error = open_search_parent(&search, text);

	INVARIANT(LINK, error || link->is_raw || identity_equal(link->header.id, child->header.parent));
	INVARIANT(LINK, error || link->length_bytes == child->header.parent_length_bytes);
	if (!error)
		image->link_count++;
	return error;
}

/* ---- the table of pieces ---- */

static void open_set_clips(struct uffdwp_image *image)
{
	uint64_t clip = UINT64_MAX;

	for (uint32_t i = 0; i < image->link_count; i++) {
		clip = math_min_u64(clip, image->links[i].length_bytes);
		image->links[i].clip = clip;
	}
}

/* By page, the newest link first. */
static int open_compare_pieces(const void *a, const void *b)
{
	const struct piece *one = a;
	const struct piece *two = b;

	if (one->page != two->page)
		return one->page < two->page ? -1 : 1;
	return one->place < two->place ? -1 : one->place > two->place;
}

static void open_collect_pieces(struct uffdwp_image *image)
{
	for (uint32_t i = 0; i + 1 < image->link_count; i++) {
		const struct image_link *link = &image->links[i];

		for (uint64_t number = 0; number < link->header.index_count; number++) {
			struct delta_entry entry = delta_decode_entry(link->index + number * DELTA_ENTRY_BYTES);

			image->pieces[image->piece_count++] = (struct piece){entry.page, (uint64_t)i << 48 | number};
		}
	}
}

static void open_keep_newest(struct uffdwp_image *image)
{
	uint64_t kept = 0;

	for (uint64_t i = 0; i < image->piece_count; i++) {
		if (kept == 0 || image->pieces[kept - 1].page != image->pieces[i].page)
			image->pieces[kept++] = image->pieces[i];
	}
	image->piece_count = kept;
}

static int open_make_pieces(struct uffdwp_image *image, struct text *text)
{
	uint64_t room = 0;

	for (uint32_t i = 0; i + 1 < image->link_count; i++)
		room += image->links[i].header.index_count;
	if (room == 0)
		return 0;
	image->pieces = pages_new(image->k, room * sizeof(*image->pieces));
	image->piece_room = room;
	if (!image->pieces)
		return text_fail(text, -ENOMEM, "no memory for the index of the chain");
	open_collect_pieces(image);
	if (image->link_count > 2) { /* one delta alone is in order */
		qsort(image->pieces, image->piece_count, sizeof(*image->pieces), open_compare_pieces);
		open_keep_newest(image);
	}
	return 0;
}

/* ---- all of it ---- */

static int open_links(struct uffdwp_image *image, const char *path, const struct chain_options *options,
                      struct text *text)
{
	int error = open_load(image, &image->links[0], path, (options->flags & UFFDWP_IMAGE_OPEN_RAW) != 0, text);

	if (error)
		return error;
	image->link_count = 1;
	image->length_bytes = image->links[0].length_bytes;
	image->page_bytes = image->links[0].is_raw ? RAW_PAGE_BYTES : image->links[0].header.page_bytes;
	while (!error && !image->links[image->link_count - 1].is_raw)
		error = open_load_parent(image, options, text);
	return error;
}

static int open_unpackers(struct uffdwp_image *image, unsigned count, struct text *text)
{
	switch (unpackers_open(image, count)) {
	case 0:
		return 0;
	case -EOPNOTSUPP:
		return text_fail(
		        text, -EOPNOTSUPP,
		        "the image has compressed pages, and this library was built without zstd (UFFDWP_ZSTD)");
	default:
		return text_fail(text, -ENOMEM, "no memory for unpacking: ask for less contexts");
	}
}

int chain_open(const struct kernel_ops *k, const char *path, const struct chain_options *options, struct text *text,
               struct uffdwp_image **out)
{
	struct uffdwp_image *image = pages_new(k, sizeof(*image));

	if (!image)
		return text_fail(text, -ENOMEM, "no memory for an image");
	image->k = k;
	text_init(&image->text);
	image->links = pages_new(k, LINKS_ROOM * sizeof(*image->links));
	int error = image->links ? open_links(image, path, options, text)
	                         : text_fail(text, -ENOMEM, "no memory for an image");

	if (!error && image->links) {
		open_set_clips(image);
		error = open_make_pieces(image, text);
	}
	if (!error)
		error = open_unpackers(image, options->contexts ? options->contexts : CONTEXTS_DEFAULT, text);
	if (error)
		chain_close(image);
	else
		*out = image;
	return error;
}

void chain_close(struct uffdwp_image *image)
{
	const struct kernel_ops *k = image->k;

	unpackers_close(image);
	if (image->pieces)
		pages_free(k, image->pieces, image->piece_room * sizeof(*image->pieces));
	for (uint32_t i = 0; i < image->link_count; i++)
		open_unload(image, &image->links[i]);
	pages_free(k, image->links, LINKS_ROOM * sizeof(*image->links));
	text_fini(&image->text);
	pages_free(k, image, sizeof(*image));
}

/* ---- what it is ---- */

void chain_form_text(struct uffdwp_image *image)
{
	if (atomic_load_explicit(&image->bad, memory_order_acquire) != 1)
		return;
	const struct image_link *link = &image->links[image->bad_link];

	text_fail(&image->text, image->bad_error, "\"%s\" is damaged at byte %" PRIu64 " (page %" PRIu64 "): %s",
	          link->path, image->bad_at, image->bad_page,
	          image->bad_error == -EBADMSG ? "its content is not what its checksum says, or the file ends there"
	                                       : errno_text(image->bad_error));
	atomic_store(&image->bad, 0);
}

static struct uffdwp_image_id open_public_id(struct image_id id)
{
	return (struct uffdwp_image_id){id.low, id.high};
}

void chain_info(const struct uffdwp_image *image, uint32_t number, struct uffdwp_image_info *info)
{
	const struct image_link *link = &image->links[number];
	struct stat st;

	info->allocated_bytes = image->k->fstat(link->fd, &st) ? link->file_bytes : (uint64_t)st.st_blocks * 512;
	info->kind = link->is_raw ? UFFDWP_IMAGE_KIND_RAW : UFFDWP_IMAGE_KIND_DELTA;
	info->links = image->link_count - number;
	info->length_bytes = link->length_bytes;
	info->file_bytes = link->file_bytes;
	info->path = link->path;
	if (link->is_raw) {
		info->page_bytes = image->page_bytes;
		if (number > 0)
			info->id = open_public_id(image->links[number - 1].header.parent);
		return;
	}
	info->page_bytes = link->header.page_bytes;
	info->region_page_bytes = link->header.region_page_bytes;
	info->compress = link->header.compress;
	info->pages_raw = link->kinds[DELTA_RAW];
	info->pages_zeros = link->kinds[DELTA_ZEROS];
	info->pages_packed = link->kinds[DELTA_ZSTD];
	info->id = open_public_id(link->header.id);
	info->parent = open_public_id(link->header.parent);
	info->parent_name = link->header.parent_name;
}

/* The name of the image's file: where its path leads to, if it still leads there. */
static void open_name_file(const struct uffdwp_image *image, const struct image_link *link, char name[DELTA_NAME_BYTES])
{
	const struct kernel_ops *k = image->k;
	char found[TARGET_NAME_BYTES];
	struct text ignored;
	int folder;

	snprintf(name, DELTA_NAME_BYTES, "%.255s", image_name_of(link->path));
	text_init_apart(&ignored);
	int error = target_find(k, AT_FDCWD, link->path, &ignored, &folder, found);

	text_fini(&ignored);
	if (error)
		return;
	int fd = k->openat(folder, found, O_PATH | O_CLOEXEC | O_NOFOLLOW, 0);

	if (fd >= 0 && open_are_one_file(k, fd, link->fd))
		snprintf(name, DELTA_NAME_BYTES, "%s", found);
	if (fd >= 0)
		k->close(fd);
	k->close(folder);
}

void chain_as_parent(const struct uffdwp_image *image, struct image_id raw_id, struct image_parent *parent)
{
	const struct image_link *link = &image->links[0];

	memset(parent, 0, sizeof(*parent));
	parent->id = link->is_raw ? raw_id : link->header.id;
	parent->is_raw = link->is_raw;
	parent->length_bytes = link->length_bytes;
	open_name_file(image, link, parent->name);
}
