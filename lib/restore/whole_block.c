/* SPDX-License-Identifier: MIT */
/*
 * One block of a whole restore. Straight: the raw file's data is read to its place, then the pages of deltas are read
 * over it. Not straight (an end that is not aligned, a part that was cut off later, no place): all of it is put
 * together in a buffer, and from there what is not zeros is put where it belongs.
 *
 * Threads: several, each with a block of its own.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/math.h"
#include "image/io.h"
#include "image/zeros.h"
#include "kernel/holes.h"
#include "restore/whole_private.h"

int whole_fail(struct whole *whole, int error, uint64_t offset)
{
	int none = 0;

	if (atomic_compare_exchange_strong(&whole->error, &none, error))
		atomic_store(&whole->error_offset, offset);
	return error;
}

/* ---- what there is ---- */

/* Data in [start, end) of the block: joins the last run, or begins one. A file system with blocks below BLOCK_ALIGN has
 * data and holes within one of ours, so `start` may lie before the last run's end; and when no run is left, the last
 * one reads holes along. */
static void whole_block_add_run(struct block *block, size_t start, size_t end)
{
	struct base_run *last = block->count ? &block->runs[block->count - 1] : NULL;

	if (!last || (start >= last->end + BLOCK_GAP_BYTES && block->count < BLOCK_RUNS)) {
		last = &block->runs[block->count++];
		last->start = start;
	}
	last->end = end;
}

static void whole_block_look_for_runs(const struct whole *whole, struct block *block)
{
	uint64_t end = block->offset + block->part;
	uint64_t at = block->offset;

	while ((at = holes_next_data(whole->k, whole->base->fd, at, end)) < end) {
		uint64_t until = holes_next(whole->k, whole->base->fd, at, end);

		if (until <= at) /* it became a hole meanwhile */
			until = end;
		whole_block_add_run(
		        block, (size_t)((at - block->offset) / BLOCK_ALIGN * BLOCK_ALIGN),
		        (size_t)math_min_u64(math_round_up(until - block->offset, BLOCK_ALIGN), block->part));
		at = until;
	}
}

static size_t whole_block_reach(uint64_t offset, uint64_t end)
{
	return end > offset ? (size_t)math_min_u64(BLOCK_BYTES, end - offset) : 0;
}

void block_look(const struct whole *whole, uint64_t number, struct block *block)
{
	uint64_t offset = number * BLOCK_BYTES;

	block->offset = offset;
	block->length = whole_block_reach(offset, whole->image->length_bytes);
	block->part = whole_block_reach(offset, whole->base->length_bytes);
	block->shown = whole_block_reach(offset, whole->base->clip);
	block->count = 0;
	whole_block_look_for_runs(whole, block);
}

uint64_t block_next(const struct whole *whole, uint64_t number)
{
	const struct image_link *base = whole->base;
	uint64_t offset = number * BLOCK_BYTES;

	if (offset < whole->image->length_bytes || offset >= base->length_bytes)
		return number;
	uint64_t data = holes_next_data(whole->k, base->fd, offset, base->length_bytes);

	return data < base->length_bytes ? data / BLOCK_BYTES : whole->block_count;
}

int block_is_straight(const struct whole *whole, const struct block *block)
{
	return whole->place && block->shown == block->part && math_is_aligned(block->part, BLOCK_ALIGN);
}

int block_has_pieces(const struct whole *whole, const struct block *block)
{
	const struct uffdwp_image *image = whole->image;
	uint64_t number = chain_find(image, block->offset / image->page_bytes);

	return number < image->piece_count &&
	       image->pieces[number].page * image->page_bytes < block->offset + block->length;
}

/* ---- the raw file ---- */

int block_fd(const struct whole *whole)
{
	return atomic_load(&whole->direct) ? whole->direct_fd : whole->base->fd;
}

static int whole_block_base_failed(struct whole *whole, int error, uint64_t at)
{
	if (error != -EFAULT && error != -ENOMEM) /* those are of the memory that it goes to */
		chain_note_bad(whole->image, error, whole->image->link_count - 1, at / whole->image->page_bytes, at);
	return whole_fail(whole, error == -EFAULT ? -ENOMEM : error, at);
}

int64_t block_read_result(struct whole *whole, int direct, uint64_t offset, size_t length, int64_t result)
{
	if (result == -EINVAL && direct) { /* O_DIRECT that wants another alignment than ours: go on without */
		atomic_store(&whole->direct, 0);
		return 0; /* as do all that were begun before the first found that */
	}
	if (result == -EINTR || result == -EAGAIN)
		return 0;
	if (result < 0)
		return whole_block_base_failed(whole, (int)result, offset);
	int64_t whole_blocks = result / BLOCK_ALIGN * BLOCK_ALIGN;

	if (whole_blocks == 0 && (uint64_t)result < length)
		return whole_block_base_failed(whole, -EBADMSG, offset);
	atomic_fetch_add(&whole->bytes_read, (uint64_t)result);
	return (uint64_t)result < length ? whole_blocks : result;
}

void block_landed(struct whole *whole, const struct block *block)
{
	if (whole->list.blocks && block->count)
		base_put_runs(&whole->list, block->offset, whole->place + block->offset, block->part, block->runs,
		              block->count);
}

static int whole_block_read_straight(struct whole *whole, const struct block *block)
{
	for (unsigned i = 0; i < block->count; i++) {
		for (size_t at = block->runs[i].start; at < block->runs[i].end;) {
			size_t length = block->runs[i].end - at;
			uint64_t offset = block->offset + at;
			int fd = block_fd(whole);
			int64_t got = whole->k->pread(fd, whole->place + offset, length, offset);

			got = block_read_result(whole, fd == whole->direct_fd, offset, length, got);
			if (got < 0)
				return (int)got;
			at += (size_t)got;
		}
	}
	block_landed(whole, block);
	return 0;
}

/* ---- the deltas ---- */

/* Memory that there is not shall be an error and not a signal. (Before Linux 5.14 there is no such call.) In whole
 * pages, which may be larger than the blocks of files. */
static int whole_block_populate(const struct whole *whole, unsigned char *at, size_t length)
{
	size_t page_bytes = (size_t)whole->region->page_bytes;
	size_t before = (uintptr_t)at & (page_bytes - 1);
	int error = whole->k->madvise(at - before, math_round_up(before + length, page_bytes), MADV_POPULATE_WRITE);

	return error == -EFAULT || error == -ENOMEM || error == -EHWPOISON ? -ENOMEM : 0;
}

/* Pieces that follow each other, of zeros or none of them. */
static uint64_t whole_block_count_alike(const struct uffdwp_image *image, uint64_t number, uint64_t end_page)
{
	const struct piece *first = &image->pieces[number];
	int zeros = chain_piece_entry(image, first).kind == DELTA_ZEROS;
	uint64_t count = 1;

	while (number + count < image->piece_count && first[count].page == first->page + count &&
	       first[count].page < end_page && (chain_piece_entry(image, &first[count]).kind == DELTA_ZEROS) == zeros)
		count++;
	return count;
}

/* One such group. What was a hole of the raw file stays one under zeros. */
static int whole_block_overlay_group(struct whole *whole, uint64_t number, uint64_t offset, unsigned char *to,
                                     size_t length)
{
	struct uffdwp_image *image = whole->image;
	int zeros = chain_piece_entry(image, &image->pieces[number]).kind == DELTA_ZEROS;
	int in_place = whole->place && to == whole->place + offset;

	if (zeros && holes_next_data(whole->k, whole->base->fd, offset, offset + length) == offset + length)
		return 0;
	int error = in_place ? whole_block_populate(whole, to, length) : 0;

	if (!error)
		error = chain_read(image, offset, to, length);
	if (!error && !zeros)
		atomic_fetch_add(&whole->bytes_read, length);
	return error ? whole_fail(whole, error, offset) : 0;
}

static int whole_block_overlay(struct whole *whole, const struct block *block, unsigned char *to)
{
	const struct uffdwp_image *image = whole->image;
	uint64_t page_bytes = image->page_bytes;
	uint64_t end = block->offset + block->length;
	uint64_t end_page = format_delta_pages(end, page_bytes);
	uint64_t number = chain_find(image, block->offset / page_bytes);
	int error = 0;

	while (!error && number < image->piece_count && image->pieces[number].page < end_page) {
		uint64_t count = whole_block_count_alike(image, number, end_page);
		uint64_t first = image->pieces[number].page * page_bytes;
		uint64_t until = math_min_u64(first + count * page_bytes, end);

		error = whole_block_overlay_group(whole, number, first, to + (first - block->offset),
		                                  (size_t)(until - first));
		number += count;
	}
	return error;
}

/* ---- by a buffer ---- */

/* An entry that is not empty any more, or that the kernel does not fill now, is written like any other memory. */
static void whole_block_copy_pages(const struct whole *whole, uint64_t offset, const unsigned char *from, size_t length)
{
	const struct uffdwp_region *region = whole->region;
	unsigned char *to = region_address(region, 0) + offset;
	size_t step = region->memory == UFFDWP_MEMORY_ANON && region_owns_empty(region) ? region->page_bytes : 0;

	if (!step) {
		memcpy(to, from, length);
		return;
	}
	for (size_t at = 0; at < length; at += step) {
		if (whole->k->uffd_copy(region->uffd, (uint64_t)(uintptr_t)to + at, from + at, step, 0))
			memcpy(to + at, from + at, step);
	}
}

static int whole_block_put(struct whole *whole, uint64_t offset, const unsigned char *buffer, size_t length)
{
	size_t at = 0;
	size_t run = 0;

	while (zeros_next_run(buffer, length, at + run, &at, &run)) {
		int error = whole->place ? whole_block_populate(whole, whole->place + offset + at, run) : 0;

		if (error)
			return whole_fail(whole, error, offset + at);
		if (whole->place)
			memcpy(whole->place + offset + at, buffer + at, run);
		else
			whole_block_copy_pages(whole, offset + at, buffer + at, run);
	}
	return 0;
}

static int whole_block_read_buffered(struct whole *whole, const struct block *block, unsigned char *buffer)
{
	memset(buffer, 0, BLOCK_BYTES);
	for (unsigned i = 0; i < block->count; i++) {
		size_t start = block->runs[i].start;
		size_t length = block->runs[i].end - start;
		int error = io_read(whole->k, whole->base->fd, buffer + start, length, block->offset + start);

		if (error)
			return whole_block_base_failed(whole, error, block->offset + start);
		atomic_fetch_add(&whole->bytes_read, length);
	}
	if (whole->list.blocks && block->count)
		base_put_runs(&whole->list, block->offset, buffer, block->part, block->runs, block->count);
	memset(buffer + block->shown, 0, BLOCK_BYTES - block->shown);
	return 0;
}

static int whole_block_run_buffered(struct whole *whole, const struct block *block, unsigned char *buffer)
{
	int error = whole_block_read_buffered(whole, block, buffer);

	if (!error)
		error = whole_block_overlay(whole, block, buffer);
	return error ? error : whole_block_put(whole, block->offset, buffer, math_round_up(block->length, BLOCK_ALIGN));
}

/* ---- all of it ---- */

static int whole_block_done(struct whole *whole, const struct block *block, int error)
{
	if (error)
		return error;
	atomic_fetch_add(&whole->bytes_done, block->length);
	error = gauge_add(&whole->gauge, block->length);
	return error ? whole_fail(whole, error, block->offset) : 0;
}

int block_finish(struct whole *whole, const struct block *block)
{
	return whole_block_done(whole, block, whole_block_overlay(whole, block, whole->place + block->offset));
}

int block_run(struct whole *whole, const struct block *block, unsigned char *buffer)
{
	if (!block_is_straight(whole, block))
		return whole_block_done(whole, block, whole_block_run_buffered(whole, block, buffer));
	int error = whole_block_read_straight(whole, block);

	return error ? error : block_finish(whole, block);
}
