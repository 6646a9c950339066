/* SPDX-License-Identifier: MIT */
/*
 * A chain into one file. A raw result is made by some threads, each of which takes the next 1 MiB, reads of the base
 * what is stored there, adds it to the list that the base's id is made from, lays the deltas' pages over it, and writes
 * what is not zero: so the base is read once, in order, and proved to be the right one before anything gets its name.
 *
 * Threads: the callers' waits for all; the first error ends all of them.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>

#include "base/errno_name.h"
#include "base/math.h"
#include "base/thread.h"
#include "image/base.h"
#include "image/chain.h"
#include "image/gauge.h"
#include "image/io.h"
#include "image/zeros.h"
#include "kernel/holes.h"
#include "kernel/pages.h"

#define THREADS_DEFAULT 4
#define THREADS_MOST 64

struct merge {
	struct uffdwp_image *image;
	struct image_file file;
	struct base_list list;
	_Atomic uint64_t next; /* offset of the next block that no thread has taken */
	_Atomic int error;
	_Atomic int read_failed; /* the error is of the reading */
	uint64_t end;
	struct gauge gauge; /* counts bytes of the result, or of the raw image where that is longer: holes too */
};

/* ---- a block ---- */

static int merge_read_base_block(struct merge *merge, uint64_t offset, unsigned char *buffer)
{
	struct uffdwp_image *image = merge->image;
	const struct image_link *base = chain_base(image);
	size_t part =
	        offset < base->length_bytes ? (size_t)math_min_u64(BASE_BLOCK_BYTES, base->length_bytes - offset) : 0;
	int error = 0;

	if (part && holes_next_data(image->k, base->fd, offset, offset + part) == offset + part) {
		part = 0;
	} else if (part) {
		error = io_read(image->k, base->fd, buffer, part, offset);
		if (error)
			return chain_note_bad(image, error, image->link_count - 1, offset / image->page_bytes, offset);
		base_put(&merge->list, offset, buffer, part);
	}
	uint64_t shown = base->clip > offset ? math_min_u64(base->clip - offset, part) : 0;

	memset(buffer + shown, 0, BASE_BLOCK_BYTES - (size_t)shown);
	return 0;
}

/* Runs of pages that deltas have, read in one go each. */
static int merge_read_pieces(struct merge *merge, uint64_t offset, unsigned char *buffer, size_t length)
{
	struct uffdwp_image *image = merge->image;
	uint64_t page_bytes = image->page_bytes;
	uint64_t end_page = format_delta_pages(offset + length, page_bytes);
	uint64_t number = chain_find(image, offset / page_bytes);
	int error = 0;

	while (number < image->piece_count && image->pieces[number].page < end_page && !error) {
		uint64_t first = image->pieces[number].page;
		uint64_t page = first;

		while (number < image->piece_count && image->pieces[number].page == page && page < end_page) {
			page++;
			number++;
		}
		uint64_t until = math_min_u64(page * page_bytes, offset + length);

		error = chain_read(image, first * page_bytes, buffer + (first * page_bytes - offset),
		                   (size_t)(until - first * page_bytes));
	}
	return error;
}

static int merge_write_block(struct merge *merge, uint64_t offset, const unsigned char *buffer, size_t length)
{
	size_t at = 0;
	size_t run = 0;
	int error = 0;

	length = (size_t)math_round_up(length, IMAGE_ALIGN);
	while (!error && zeros_next_run(buffer, length, at + run, &at, &run))
		error = image_file_pwrite(&merge->file, buffer + at, run, offset + at);
	return error;
}

static int merge_block(struct merge *merge, uint64_t offset, unsigned char *buffer)
{
	uint64_t all = merge->image->length_bytes;
	size_t length = offset < all ? (size_t)math_min_u64(BASE_BLOCK_BYTES, all - offset) : 0;
	int error = merge_read_base_block(merge, offset, buffer);

	if (!error && length)
		error = merge_read_pieces(merge, offset, buffer, length);
	if (error) {
		atomic_store(&merge->read_failed, 1);
		return error;
	}
	memset(buffer + length, 0, BASE_BLOCK_BYTES - length);
	return merge_write_block(merge, offset, buffer, length);
}

/* ---- the threads ---- */

/* The next block in which the base has data, or a delta a page: what is between is zeros, however long the files say
 * that it is. */
static uint64_t merge_next_block(const struct merge *merge, uint64_t offset)
{
	const struct uffdwp_image *image = merge->image;
	const struct image_link *base = chain_base(image);
	uint64_t number = chain_find(image, offset / image->page_bytes);
	uint64_t next = merge->end;

	if (number < image->piece_count)
		next = math_min_u64(next, image->pieces[number].page * image->page_bytes);
	if (offset < base->length_bytes) {
		uint64_t data = holes_next_data(image->k, base->fd, offset, base->length_bytes);

		next = data < base->length_bytes ? math_min_u64(next, data) : next;
	}
	return next < merge->end ? next / BASE_BLOCK_BYTES * BASE_BLOCK_BYTES : merge->end;
}

/* 0: all blocks are taken. `passed`: bytes of it, and of the zeros before it. */
static int merge_take_block(struct merge *merge, uint64_t *offset, uint64_t *passed)
{
	uint64_t next = atomic_load(&merge->next);

	do {
		*offset = merge_next_block(merge, next);
		if (*offset >= merge->end)
			return 0;
	} while (!atomic_compare_exchange_weak(&merge->next, &next, *offset + BASE_BLOCK_BYTES));
	*passed = *offset + BASE_BLOCK_BYTES - next;
	return 1;
}

static void merge_fail(struct merge *merge, int error)
{
	int none = 0;

	atomic_compare_exchange_strong(&merge->error, &none, error);
}

static void *merge_main(void *argument)
{
	struct merge *merge = argument;
	unsigned char *buffer = pages_new(merge->image->k, BASE_BLOCK_BYTES);

	thread_begin("uffdwp-merge");
	if (!buffer) {
		merge_fail(merge, -ENOMEM);
		return NULL;
	}
	uint64_t offset;
	uint64_t passed;

	while (!atomic_load(&merge->error) && merge_take_block(merge, &offset, &passed)) {
		int error = merge_block(merge, offset, buffer);

		if (!error)
			error = gauge_add(&merge->gauge, passed);
		if (error)
			merge_fail(merge, error);
	}
	pages_free(merge->image->k, buffer, BASE_BLOCK_BYTES);
	return NULL;
}

static int merge_run_threads(struct merge *merge, unsigned wanted)
{
	pthread_t threads[THREADS_MOST];
	unsigned count = 0;
	int error = 0;

	while (count < wanted && !error) {
		error = thread_spawn(&threads[count], NULL, merge_main, merge);
		count += !error;
	}
	if (count == 0)
		merge_fail(merge, error);
	for (unsigned i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	return atomic_load(&merge->error);
}

/* ---- a raw result ---- */

/* A length that the file system does not have is refused before anything is read. */
static int merge_set_length(struct merge *merge, const char *path)
{
	struct uffdwp_image *image = merge->image;
	int error = image->k->ftruncate(merge->file.fd, image->length_bytes);

	return error ? text_fail(&image->text, error, "\"%s\" cannot have the %llu bytes of the image: %s", path,
	                         (unsigned long long)image->length_bytes, errno_text(error))
	             : 0;
}

static int merge_open_list(struct merge *merge)
{
	struct uffdwp_image *image = merge->image;
	int error = base_open(&merge->list, image->k, chain_base(image)->length_bytes);

	return error ? text_fail(&image->text, error, "no list of the blocks of \"%s\": %s", chain_base(image)->path,
	                         base_refusal(error))
	             : 0;
}

static int merge_commit_raw(struct merge *merge)
{
	struct uffdwp_image *image = merge->image;
	struct image_identity identity;
	int error = chain_judge_base(image, base_id(&merge->list, chain_base(image)->length_bytes));

	return error ? error : image_file_commit(&merge->file, image->length_bytes, &identity, &image->text);
}

static int merge_raw(struct uffdwp_image *image, const char *path, const struct uffdwp_image_merge_options *options)
{
	struct merge merge = {.image = image, .end = chain_base(image)->length_bytes};
	unsigned flags = options->flags & UFFDWP_IMAGE_MERGE_BUFFERED ? IMAGE_FILE_BUFFERED : 0;
	int error = image_file_open(&merge.file, image->k, path, flags, options->mode, &image->text);

	if (error)
		return error;
	if (image->length_bytes > merge.end)
		merge.end = image->length_bytes;
	gauge_begin(&merge.gauge, image, merge.end);
	error = merge_open_list(&merge);
	if (!error)
		error = merge_set_length(&merge, path);
	if (!error) {
		error = merge_run_threads(&merge, options->threads ? options->threads : THREADS_DEFAULT);
		if (!error)
			error = gauge_end(&merge.gauge);
		if (!gauge_was_ended(&merge.gauge, &image->text) && error && !atomic_load(&merge.read_failed))
			text_fail(&image->text, error, "\"%s\" could not be written: %s", path, errno_text(error));
	}
	if (!error)
		error = merge_commit_raw(&merge);
	image_file_close(&merge.file, !error);
	base_close(&merge.list);
	return error;
}

/* ---- a delta as the result ---- */

struct delta_merge {
	struct uffdwp_image *image;
	struct image_writer *writer;
	uint32_t deltas;
	uint64_t hidden; /* the first page that the merged links cut off, wholly or in part; `shown`: there is none */
	uint64_t shown;  /* the first after the parent's last */
	unsigned char *buffer;
	struct gauge gauge; /* counts bytes of the raw image, if it is checked, and pages that deltas have, each once */
};

/* What the merged links cut off lies between the least of their lengths and the parent's end, as far as the result
 * reaches: beyond that neither shows anything. */
static void merge_find_hidden(struct delta_merge *merge)
{
	const struct uffdwp_image *image = merge->image;
	const struct image_link *oldest = &image->links[merge->deltas - 1];
	uint64_t parent_bytes = oldest->header.parent_length_bytes;
	int is_cut = oldest->clip < math_min_u64(image->length_bytes, parent_bytes);

	merge->shown = format_delta_pages(parent_bytes, image->page_bytes);
	merge->hidden = is_cut ? oldest->clip / image->page_bytes : merge->shown;
}

/* 1: a page was cut off that no delta has: then the raw image says whether the result needs it, and what it shows. */
static int merge_rests_on_base(const struct delta_merge *merge)
{
	const struct uffdwp_image *image = merge->image;
	uint64_t length_bytes = math_min_u64(image->length_bytes, chain_base(image)->length_bytes);
	uint64_t end = math_min_u64(merge->shown, format_delta_pages(length_bytes, image->page_bytes));

	return merge->hidden < end && chain_find(image, end) - chain_find(image, merge->hidden) < end - merge->hidden;
}

/* A page of the result: as the chain shows it, zeros beyond its end. */
static int merge_put_page(struct delta_merge *merge, uint64_t page)
{
	struct uffdwp_image *image = merge->image;
	uint64_t page_bytes = image->page_bytes;
	size_t part = (size_t)math_min_u64(page_bytes, image->length_bytes - page * page_bytes);
	int error = chain_read(image, page * page_bytes, merge->buffer, part);

	memset(merge->buffer + part, 0, (size_t)page_bytes - part);
	return error ? error : image_writer_put(merge->writer, page, merge->buffer);
}

/* Pages [page, end) that no delta has and the merged cut off of the raw image: those in which it has data. */
static int merge_put_hidden(struct delta_merge *merge, uint64_t page, uint64_t end)
{
	const struct uffdwp_image *image = merge->image;
	const struct image_link *base = chain_base(image);
	uint64_t page_bytes = image->page_bytes;
	int error = 0;

	page = page > merge->hidden ? page : merge->hidden;
	end = math_min_u64(math_min_u64(end, merge->shown), format_delta_pages(base->length_bytes, page_bytes));
	while (!error && page < end) {
		uint64_t data = holes_next_data(image->k, base->fd, page * page_bytes, base->length_bytes);

		page = data < base->length_bytes ? data / page_bytes : end;
		if (page < end)
			error = merge_put_page(merge, page++);
	}
	return error;
}

/* Every page that one of the merged has; and what they cut off of their parent, which would show again without them. */
static int merge_put_pages(struct delta_merge *merge)
{
	const struct uffdwp_image *image = merge->image;
	uint64_t pages = format_delta_pages(image->length_bytes, image->page_bytes);
	uint64_t after = 0; /* the last piece's page */
	int error = 0;

	for (uint64_t i = 0; i < image->piece_count && image->pieces[i].page < pages && !error; i++) {
		uint64_t page = image->pieces[i].page;

		error = merge_put_hidden(merge, after, page);
		if (!error && (chain_piece_link(&image->pieces[i]) < merge->deltas ||
		               (page >= merge->hidden && page < merge->shown)))
			error = merge_put_page(merge, page);
		after = page + 1;
		if (!error)
			error = gauge_add(&merge->gauge, image->page_bytes);
	}
	if (!error)
		error = merge_put_hidden(merge, after, pages);
	return error ? error : gauge_end(&merge->gauge);
}

/* The pages of deltas are checked as they are read, the raw image as a whole before anything of it is used. */
static int merge_begin_delta(struct delta_merge *merge)
{
	struct uffdwp_image *image = merge->image;
	int checks_base = merge_rests_on_base(merge);
	struct image_id id;

	gauge_begin(&merge->gauge, image,
	            (checks_base ? chain_base(image)->length_bytes : 0) + image->piece_count * image->page_bytes);
	return checks_base ? chain_check_base(image, &id, &merge->gauge) : 0;
}

static int merge_write_delta(struct delta_merge *merge, const char *path)
{
	struct uffdwp_image *image = merge->image;
	const struct delta_header *oldest = &image->links[merge->deltas - 1].header;
	struct image_parent parent = {.id = oldest->parent,
	                              .length_bytes = oldest->parent_length_bytes,
	                              .is_raw = (oldest->flags & DELTA_PARENT_IS_RAW) != 0};
	struct image_identity identity;

	memcpy(parent.name, oldest->parent_name, sizeof(parent.name));
	merge_find_hidden(merge);
	int error = merge_begin_delta(merge);

	if (error)
		return error;
	error = merge_put_pages(merge);
	if (gauge_was_ended(&merge->gauge, &image->text))
		return error;
	if (error) {
		if (!atomic_load(&image->bad))
			text_fail(&image->text, error, "\"%s\" could not be written: %s", path, errno_text(error));
		return error;
	}
	return image_writer_commit(merge->writer, &parent, image->length_bytes, &identity, &image->text);
}

static int merge_delta(struct uffdwp_image *image, const char *path, const struct uffdwp_image_merge_options *options,
                       unsigned flags)
{
	struct delta_merge merge = {.image = image, .deltas = options->deltas};
	struct image_writer_options writing = {
	        .path = path,
	        .flags = flags | (options->flags & UFFDWP_IMAGE_MERGE_BUFFERED ? IMAGE_FILE_BUFFERED : 0),
	        .mode = options->mode,
	        .compress = options->compress,
	        .page_bytes = image->page_bytes,
	        .region_page_bytes = image->links[0].header.region_page_bytes,
	        .pages_most = format_delta_pages(image->length_bytes, image->page_bytes),
	};
	int error = image_writer_open(image->k, &writing, &image->text, &merge.writer);

	if (error)
		return error;
	merge.buffer = pages_new(image->k, (size_t)image->page_bytes);
	error = merge.buffer ? merge_write_delta(&merge, path)
	                     : text_fail(&image->text, -ENOMEM, "no memory for merging");
	image_writer_close(merge.writer, !error);
	pages_free(image->k, merge.buffer, (size_t)image->page_bytes);
	return error;
}

struct delta_job {
	struct uffdwp_image *image;
	const char *path;
	const struct uffdwp_image_merge_options *options;
	int result;
};

static void *merge_delta_main(void *argument)
{
	struct delta_job *job = argument;

	thread_begin("uffdwp-merge");
	job->result = merge_delta(job->image, job->path, job->options, 0);
	return NULL;
}

/* By a thread of its own, which may use io_uring; where there is none the caller's writes without. */
static int merge_delta_apart(struct uffdwp_image *image, const char *path,
                             const struct uffdwp_image_merge_options *options)
{
	struct delta_job job = {.image = image, .path = path, .options = options};

	if (thread_apart(merge_delta_main, &job) != 0)
		return merge_delta(image, path, options, IMAGE_FILE_NO_URING);
	if (job.result && !atomic_load(&image->bad)) /* else it is formed at the end */
		return text_adopt(&image->text, job.result);
	return job.result;
}

/* ---- both ---- */

/* Replacing a file of the chain would leave what rests on it without it. */
int chain_check_target(struct uffdwp_image *image, const char *path, struct text *text)
{
	struct stat target;
	struct stat st;
	int fd = image->k->open(path, O_PATH | O_CLOEXEC, 0);

	if (fd == -ENOENT)
		return 0;
	if (fd < 0)
		return text_fail(text, fd, "\"%s\" cannot be looked at: %s", path, errno_text(fd));
	int error = image->k->fstat(fd, &target);

	image->k->close(fd);
	for (uint32_t i = 0; i < image->link_count && !error; i++) {
		error = image->k->fstat(image->links[i].fd, &st);
		if (!error && st.st_dev == target.st_dev && st.st_ino == target.st_ino)
			return text_fail(text, -EINVAL, "\"%s\" belongs to the chain: name another file", path);
	}
	return error ? text_fail(text, error, "\"%s\" cannot be looked at: %s", path, errno_text(error)) : 0;
}

int chain_merge(struct uffdwp_image *image, const char *path, const struct uffdwp_image_merge_options *options)
{
	int error = chain_check_target(image, path, &image->text);

	if (error)
		return error;
	if (options->deltas == 0)
		return merge_raw(image, path, options);
	if (options->deltas >= image->link_count)
		return text_fail(&image->text, -ERANGE, "the deltas asked for are %u, the chain has %u",
		                 (unsigned)options->deltas, (unsigned)image->link_count - 1);
	return merge_delta_apart(image, path, options);
}
