/* SPDX-License-Identifier: MIT */
/*
 * The sink for an export of a network block device: byte for byte the region at the cut, from the export's first byte
 * on; what the export has beyond the image stays as it is, but for the rest of a last block that the server takes as a
 * whole only: zeros. Several requests are in flight at once, from the chunks' own
 * buffers; holes are written as zeros (an export may have any content before), by a request without bytes where the
 * server has one.
 *
 * INV-COMMIT here. An export has no second name to write aside under, and nothing to rename. So its first block (the
 * head) says what the rest is worth:
 *
 *   1. before anything else is written the head becomes the label UFFDWP_NBD_UNFINISHED, and is flushed;
 *   2. everything but the head is written, and flushed;
 *   3. the head is written, and flushed.
 *
 * At any moment, also after a crash of either side, an export that does not start with the label is what it was before,
 * or the complete image. This holds as far as the server's flush means what the protocol says, and its storage writes
 * the head's 512 bytes (or one block, if its blocks are larger) all or not at all. A snapshot that fails after step 1
 * cannot bring back what was there. One that loses its server within step 3 fails, and may be there all the same.
 *
 * Threads: open in the caller of begin, all else in the snapshot's. Each wait is in pieces; between them an abort, or
 * whatever else has ended the snapshot, is seen.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/errno_name.h"
#include "base/math.h"
#include "snapshot/nbdlink.h"
#include "snapshot/snapshot.h"

#define REQUESTS_MAX 128 /* in flight at once */
#define REAP_MS 2
#define AWAIT_MS 20
#define BLOCK_LEAST_MOST 4096 /* the largest least block that the runs of a chunk fit */
#define HEAD_BYTES 512

struct nbd_request {
	struct nbdlink_answer answer;
	struct chunk *chunk; /* NULL: free */
	size_t from;         /* in the chunk */
	size_t length;
	int zero;
};

struct nbd_sink {
	struct nbdlink link;
	uint64_t image_bytes; /* in whole blocks of the server, if it has them */
	size_t head_bytes;
	int labelled;                      /* the label is there, and flushed */
	unsigned pending[CHUNK_COUNT_MAX]; /* requests of each chunk that are in flight */
	unsigned char head[BLOCK_LEAST_MOST];
	struct nbd_request requests[REQUESTS_MAX];
};

static unsigned *nbd_pending_of(struct uffdwp_snapshot *snapshot, const struct chunk *chunk)
{
	return &snapshot->sink.nbd->pending[chunk - snapshot->chunks];
}

static int nbd_stopped(const struct uffdwp_snapshot *snapshot)
{
	return atomic_load(&snapshot->preserve.error);
}

/* ---- open ---- */

static uint64_t nbd_usable_bytes(const struct nbdlink *link)
{
	return link->block_least ? link->size_bytes & ~((uint64_t)link->block_least - 1) : link->size_bytes;
}

static int nbd_check_export(const struct uffdwp_snapshot *snapshot, const struct nbdlink *link, struct text *text)
{
	const char *uri = snapshot->options.path;

	if (link->read_only)
		return text_fail(text, -EROFS, "\"%s\" is read-only", uri);
	if (!link->can_flush)
		return text_fail(text, -EOPNOTSUPP,
		                 "\"%s\" cannot flush, so it cannot be known when the image is durable", uri);
	if (nbd_usable_bytes(link) < snapshot->cut.length_bytes)
		return text_fail(text, -ENOSPC, "\"%s\" has %llu bytes, the image needs %llu", uri,
		                 (unsigned long long)nbd_usable_bytes(link),
		                 (unsigned long long)snapshot->cut.length_bytes);
	if (link->block_least > BLOCK_LEAST_MOST || link->block_most < BLOCK_LEAST_MOST)
		return text_fail(text, -EOPNOTSUPP,
		                 "\"%s\" takes requests of %u to %u bytes; %d must be among them (nbdkit: "
		                 "--filter=blocksize)",
		                 uri, link->block_least, link->block_most, BLOCK_LEAST_MOST);
	return 0;
}

static void nbd_close_sink(struct uffdwp_snapshot *snapshot, int committed)
{
	struct nbd_sink *self = snapshot->sink.nbd;

	(void)committed;
	if (!self)
		return;
	nbdlink_close(&self->link); /* after that no request reads the chunks */
	pages_free(snapshot->k, self, sizeof(*self));
	snapshot->sink.nbd = NULL;
}

static int nbd_open_sink(struct uffdwp_snapshot *snapshot, struct text *text)
{
	struct nbd_sink *self = pages_new(snapshot->k, sizeof(*self));
	int error;

	snapshot->sink.nbd = self;
	if (!self)
		return text_fail(text, -ENOMEM, "no memory for the sink");
	error = nbdlink_open(snapshot->options.path, text, &self->link);
	if (!error)
		error = nbd_check_export(snapshot, &self->link, text);
	if (error)
		nbd_close_sink(snapshot, 0);
	else
		snapshot->sink.room_bytes = nbd_usable_bytes(&self->link);
	return error;
}

/* ---- what went wrong ---- */

/* The first that fails is what is reported. */
static int nbd_refuse(struct uffdwp_snapshot *snapshot, int error, uint64_t offset, const char *what)
{
	struct sink *sink = &snapshot->sink;

	if (!sink->reason[0])
		snprintf(sink->reason, sizeof(sink->reason), "the NBD server %s %s at byte %llu: %s",
		         error == -ENOTCONN ? "was lost before it answered" : "refused", what,
		         (unsigned long long)offset, error == -ENOTCONN ? nbdlink_said() : errno_text(error));
	return error;
}

/* ---- one request after the other, for the label and the end ---- */

static int nbd_await(struct uffdwp_snapshot *snapshot, const struct nbdlink_answer *answer)
{
	while (!answer->done) {
		int stop = nbd_stopped(snapshot);
		int error = stop ? stop : nbdlink_wait(&snapshot->sink.nbd->link, AWAIT_MS);

		if (error && !answer->done)
			return error;
	}
	return answer->error;
}

/* The answer outlives a wait that is given up: the sink's first request serves, whose chunk has none in flight. */
static int nbd_flush(struct uffdwp_snapshot *snapshot)
{
	struct nbd_sink *self = snapshot->sink.nbd;
	struct nbdlink_answer *answer = &self->requests[0].answer;
	int error = nbdlink_flush(&self->link, answer);

	if (!error)
		error = nbd_await(snapshot, answer);
	return error && error != nbd_stopped(snapshot) ? nbd_refuse(snapshot, error, 0, "a flush") : error;
}

static int nbd_put_head(struct uffdwp_snapshot *snapshot)
{
	struct nbd_sink *self = snapshot->sink.nbd;
	struct nbdlink_answer *answer = &self->requests[0].answer;
	int error = nbdlink_write(&self->link, self->head, self->head_bytes, 0, answer);

	if (!error)
		error = nbd_await(snapshot, answer);
	if (error)
		return error != nbd_stopped(snapshot) ? nbd_refuse(snapshot, error, 0, "a write") : error;
	return nbd_flush(snapshot);
}

/* The length was decided at the cut. A server that states no least block takes any byte: the protocol asks that of it
 * (NBD, "Block size constraints"). */
static int nbd_put_unfinished(struct uffdwp_snapshot *snapshot)
{
	static const char label[] = UFFDWP_NBD_UNFINISHED;
	struct nbd_sink *self = snapshot->sink.nbd;
	uint32_t least = self->link.block_least;
	uint64_t whole = math_round_up(snapshot->cut.length_bytes, least ? least : 1);
	int error;

	self->image_bytes = math_min_u64(whole, nbd_usable_bytes(&self->link));
	self->head_bytes = (size_t)math_min_u64(least > HEAD_BYTES ? least : HEAD_BYTES, self->image_bytes);
	memcpy(self->head, label, sizeof(label) - 1);
	error = nbd_put_head(snapshot);
	self->labelled = !error;
	memset(self->head, 0, sizeof(self->head));
	return error;
}

/* ---- chunks ---- */

static int nbd_take_answers(struct uffdwp_snapshot *snapshot);

/* Requests under way get a moment. */
static int nbd_reap(struct uffdwp_snapshot *snapshot)
{
	int stop = nbd_stopped(snapshot);
	int lost = stop ? 0 : nbdlink_wait(&snapshot->sink.nbd->link, REAP_MS);
	int error = stop ? stop : nbd_take_answers(snapshot);

	return error || !lost ? error : nbd_refuse(snapshot, lost, 0, "a request");
}

static int nbd_free_request(struct uffdwp_snapshot *snapshot, struct nbd_request **request)
{
	struct nbd_sink *self = snapshot->sink.nbd;

	for (;;) {
		for (size_t i = 0; i < REQUESTS_MAX; i++) {
			*request = &self->requests[i];
			if (!(*request)->chunk)
				return 0;
		}
		int error = nbd_reap(snapshot);

		if (error)
			return error;
	}
}

/* Zeros are in the chunk, too, for a server that cannot write them by itself. */
static int nbd_send(struct uffdwp_snapshot *snapshot, struct nbd_request *request)
{
	struct nbdlink *link = &snapshot->sink.nbd->link;
	struct chunk *chunk = request->chunk;
	uint64_t offset = chunk->offset + request->from;

	request->zero = request->zero && link->can_zero;
	if (request->zero)
		return nbdlink_zero(link, request->length, offset, &request->answer);
	return nbdlink_write(link, chunk->buffer + request->from, request->length, offset, &request->answer);
}

static int nbd_start(struct uffdwp_snapshot *snapshot, struct chunk *chunk, size_t from, size_t length, int zero)
{
	struct nbd_request *request;
	int error = nbd_free_request(snapshot, &request);

	if (error)
		return error;
	*request = (struct nbd_request){.chunk = chunk, .from = from, .length = length, .zero = zero};
	error = nbd_send(snapshot, request);
	if (error) {
		request->chunk = NULL;
		return nbd_refuse(snapshot, error, chunk->offset + from, zero ? "zeros" : "a write");
	}
	(*nbd_pending_of(snapshot, chunk))++;
	return 0;
}

/* Bytes [from, to) of a chunk, in requests as large as the server takes. */
static int nbd_put(struct uffdwp_snapshot *snapshot, struct chunk *chunk, size_t from, size_t to, int zero)
{
	size_t most = snapshot->sink.nbd->link.block_most / BLOCK_LEAST_MOST * BLOCK_LEAST_MOST;
	int error = 0;

	while (from < to && !error) {
		size_t length = (size_t)math_min_u64(to - from, most);

		error = nbd_start(snapshot, chunk, from, length, zero);
		from += length;
	}
	return error;
}

static int nbd_take_answer(struct uffdwp_snapshot *snapshot, struct nbd_request *request)
{
	struct chunk *chunk = request->chunk;
	uint64_t offset = chunk->offset + request->from;
	int error = request->answer.error;
	unsigned *pending = nbd_pending_of(snapshot, chunk);

	request->chunk = NULL;
	--*pending;
	if (error) {
		nbd_refuse(snapshot, error, offset, request->zero ? "zeros" : "a write");
		snapshot_sink_fail(snapshot, error, offset >> snapshot->region->page_shift);
		return error;
	}
	if (!request->zero)
		atomic_fetch_add_explicit(&snapshot->bytes_written, request->length, memory_order_relaxed);
	if (*pending == 0)
		chunk_done(chunk);
	return 0;
}

static int nbd_take_answers(struct uffdwp_snapshot *snapshot)
{
	struct nbd_sink *self = snapshot->sink.nbd;
	int error = 0;

	for (size_t i = 0; i < REQUESTS_MAX; i++) {
		if (self->requests[i].chunk && self->requests[i].answer.done) {
			int taken = nbd_take_answer(snapshot, &self->requests[i]);

			error = error ? error : taken;
		}
	}
	return error;
}

/* The end of the image within the chunk, in whole blocks of the server; what such a block has beyond it is zero. */
static size_t nbd_cut_end(const struct uffdwp_snapshot *snapshot, struct chunk *chunk)
{
	size_t useful = (size_t)math_min_u64(chunk->length, snapshot->cut.length_bytes - chunk->offset);
	size_t end = (size_t)math_min_u64(chunk->length, snapshot->sink.nbd->image_bytes - chunk->offset);

	memset(chunk->buffer + useful, 0, chunk->length - useful);
	return end;
}

/* The head waits for the commit. */
static size_t nbd_keep_head(struct nbd_sink *self, const struct chunk *chunk)
{
	if (chunk->offset > 0)
		return 0;
	memcpy(self->head, chunk->buffer, self->head_bytes);
	return self->head_bytes;
}

static int nbd_put_pieces(struct uffdwp_snapshot *snapshot, struct chunk *chunk, size_t at, size_t end)
{
	struct chunk_run run = {0, 0};
	int error = 0;

	while (at < end && !error) {
		int found = chunk_next_run(chunk, run.offset + run.length, &run);
		size_t run_from = found && run.offset < end ? run.offset : end;

		if (run_from > at) {
			error = nbd_put(snapshot, chunk, at, run_from, 1);
			at = run_from;
		}
		size_t run_end = found ? (size_t)math_min_u64(run.offset + run.length, end) : end;

		if (!error && at < run_end) {
			error = nbd_put(snapshot, chunk, at, run_end, 0);
			at = run_end;
		}
	}
	return error;
}

static int nbd_write(struct uffdwp_snapshot *snapshot, struct chunk *chunk)
{
	struct nbd_sink *self = snapshot->sink.nbd;
	int error = self->labelled ? 0 : nbd_put_unfinished(snapshot);

	if (error)
		return error;
	size_t end = nbd_cut_end(snapshot, chunk);
	size_t from = nbd_keep_head(self, chunk);
	unsigned *pending = nbd_pending_of(snapshot, chunk);

	*pending = 1; /* ours, until all requests are started */
	error = nbd_put_pieces(snapshot, chunk, from, end);
	if (--*pending == 0)
		chunk_done(chunk);
	return error;
}

/* ---- the end ---- */

static int nbd_commit(struct uffdwp_snapshot *snapshot)
{
	int error = nbd_flush(snapshot);

	if (!error)
		error = nbd_put_head(snapshot);
	if (!error)
		return 0;
	return text_fail(&snapshot->text, error, "the image could not be committed: %s",
	                 error == nbd_stopped(snapshot) ? "it was aborted" : snapshot->sink.reason);
}

const struct sink_ops sink_nbd = {
        .open = nbd_open_sink,
        .write = nbd_write,
        .reap = nbd_reap,
        .commit = nbd_commit,
        .close = nbd_close_sink,
};
