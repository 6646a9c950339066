/* SPDX-License-Identifier: MIT */
/* See file.h. */
#include "image/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/errno_name.h"
#include "base/invariant.h"
#include "io/loop.h"
#include "kernel/own.h"

#define FILE_WRITES_MAX 256
#define FILE_MOMENT_NS 2000000ull

static _Atomic unsigned file_number;

/* ---- beginning ---- */

/* A file that a killed process of our number has left is skipped. */
static int file_open_aside(struct image_file *file, int flags)
{
	int fd;

	do {
		unsigned number = atomic_fetch_add(&file_number, 1);

		snprintf(file->aside, sizeof(file->aside), ".uffdwp-%ld-%u.tmp", (long)getpid(), number);
		fd = file->k->openat(file->folder, file->aside, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | flags,
		                     file->mode);
	} while (fd == -EEXIST);
	return fd;
}

static int file_create_aside(struct image_file *file, unsigned flags, struct text *text)
{
	file->fd = -EINVAL;
	if (!(flags & IMAGE_FILE_BUFFERED)) {
		file->fd = file_open_aside(file, O_DIRECT);
		file->direct = file->fd >= 0;
		if (file->fd == -EINVAL) /* some kernels leave the file there when the file system has no O_DIRECT */
			file->k->unlinkat(file->folder, file->aside);
	}
	if (file->fd == -EINVAL)
		file->fd = file_open_aside(file, 0);
	file->leftover = file->fd < 0 ? -1 : target_remove_at_exit(file->folder, file->aside);
	if (file->fd < 0)
		return text_fail(text, file->fd, "no file can be made in the folder of \"%s\": %s", file->name,
		                 errno_text(file->fd));
	return 0;
}

/* As soon as it is open: what has no tag would not be closed. */
static int image_file_tag(const struct image_file *file, int fd, struct text *text)
{
	return own_take(file->k, fd, file->tag) ? text_fail(text, -ENOMEM, "no memory for an image") : 0;
}

int image_file_open(struct image_file *file, const struct kernel_ops *k, const char *path, unsigned flags,
                    unsigned mode, struct text *text)
{
	file->k = k;
	file->fd = -1;
	file->folder = -1;
	file->leftover = -1;
	file->flags = flags;
	file->mode = mode ? mode : IMAGE_FILE_MODE;
	file->tag = own_new();
	int error = target_open(k, path, text, &file->folder, file->name);

	if (!error)
		error = image_file_tag(file, file->folder, text);
	if (!error)
		error = file_create_aside(file, flags, text);
	if (!error)
		error = image_file_tag(file, file->fd, text);
	if (error)
		image_file_close(file, 0);
	return error;
}

/* ---- writing ---- */

struct part {
	unsigned slot;
	size_t offset; /* in the slot */
	size_t length;
	int direct; /* it was begun with O_DIRECT */
};

#define TOKEN_DIRECT (1ull << 63)

/* A write under way, packed into its token: which slot, from where to where, in blocks. */
static uint64_t file_token_of(const struct part *part)
{
	return (part->direct ? TOKEN_DIRECT : 0) | (uint64_t)part->slot << 56 |
	       (uint64_t)(part->offset / IMAGE_ALIGN) << 28 | (uint64_t)(part->length / IMAGE_ALIGN);
}

static struct part file_part_of(uint64_t token)
{
	return (struct part){(unsigned)(token >> 56 & 0x7f), (size_t)(token >> 28 & 0xfffffff) * IMAGE_ALIGN,
	                     (size_t)(token & 0xfffffff) * IMAGE_ALIGN, (token & TOKEN_DIRECT) != 0};
}

/* The first that fails is what is reported. */
static void file_note_failure(struct image_file *file, const struct part *part)
{
	if (!file->failed)
		file->failed_at = file->slots[part->slot].offset + part->offset;
	file->failed = 1;
}

/* What the loop refuses costs a little time and nothing else. */
static void file_keep_buffers(struct image_file *file)
{
	struct iovec buffers[IMAGE_SLOTS_MAX];

	for (unsigned i = 0; i < file->slot_count; i++)
		buffers[i] = (struct iovec){file->slots[i].buffer, file->slot_bytes};
	file->kept = 1;
	(void)loop_keep(file->loop, file->fd, buffers, file->slot_count);
}

static int file_start_write(struct image_file *file, struct part *part)
{
	struct image_slot *slot = &file->slots[part->slot];
	int error = own_check(file->k, file->fd, file->tag);

	if (error) {
		file_note_failure(file, part);
		return error;
	}
	do {
		part->direct = atomic_load(&file->direct);
		error = loop_write(file->loop, file->fd, slot->buffer + part->offset, part->length,
		                   slot->offset + part->offset, file_token_of(part));
		if (error == -EAGAIN) {
			int reaped = image_file_reap(file);

			if (reaped)
				return reaped;
		}
	} while (error == -EAGAIN);
	if (error)
		file_note_failure(file, part);
	else
		slot->pending++;
	return error;
}

static int file_open_loop(struct image_file *file)
{
	int error = loop_new(file->k, FILE_WRITES_MAX, (file->flags & IMAGE_FILE_NO_URING) != 0, &file->loop);

	if (!error)
		atomic_store(&file->uring, loop_is_uring(file->loop));
	return error;
}

int image_file_submit(struct image_file *file, unsigned slot, size_t offset, size_t length)
{
	struct part part = {.slot = slot, .offset = offset, .length = length};
	int error = file->loop ? 0 : file_open_loop(file);

	if (error) {
		file_note_failure(file, &part);
		return error;
	}
	if (file->slot_bytes && !file->kept)
		file_keep_buffers(file);
	return file_start_write(file, &part);
}

/* O_DIRECT that turns out to want another alignment than ours: go on without. Several writes may find that, those that
 * were begun before the first did. `direct` is 0 only after the file has lost the flag: a thread that loads 0 takes a
 * refusal of its write for an error; one that loads 1 clears the flag once more and repeats the write. */
static int file_leave_direct(struct image_file *file)
{
	int error = file->k->change_flags(file->fd, 0, O_DIRECT);

	if (!error)
		atomic_store(&file->direct, 0); /* pairs with the load before a write */
	return error;
}

static int file_go_on(struct image_file *file, struct part *part, int result)
{
	file->slots[part->slot].pending--;
	if (result == -EINVAL && part->direct) {
		int error = file_leave_direct(file);

		return error ? error : file_start_write(file, part);
	}
	if (result == -EINTR || result == -EAGAIN)
		return file_start_write(file, part);
	if (result <= 0)
		return result < 0 ? result : -ENOSPC;
	size_t whole = (size_t)result / IMAGE_ALIGN * IMAGE_ALIGN;

	atomic_fetch_add_explicit(&file->bytes_written, (size_t)result, memory_order_relaxed);
	if (whole < part->length && whole == 0)
		return -ENOSPC; /* less than a block, again and again */
	part->offset += whole;
	part->length -= whole;
	return part->length > 0 ? file_start_write(file, part) : 0;
}

int image_file_reap(struct image_file *file)
{
	struct loop_event events[32];
	int count = file->loop ? loop_wait(file->loop, events, 32, FILE_MOMENT_NS) : 0;
	int error = count < 0 ? count : 0;

	for (int i = 0; i < count; i++) {
		struct part part = file_part_of(events[i].token);
		int failed = file_go_on(file, &part, events[i].result);

		if (failed)
			file_note_failure(file, &part);
		error = error ? error : failed;
	}
	return error;
}

int image_file_pwrite(struct image_file *file, const void *buffer, size_t length, uint64_t offset)
{
	for (size_t at = 0; at < length;) {
		int direct = atomic_load(&file->direct);
		ssize_t wrote = own_check(file->k, file->fd, file->tag);

		if (!wrote)
			wrote = file->k->pwrite(file->fd, (const unsigned char *)buffer + at, length - at, offset + at);
		else
			return (int)wrote;

		if (wrote == -EINVAL && direct) {
			wrote = file_leave_direct(file);
			if (wrote)
				return (int)wrote;
			continue;
		}
		if (wrote == -EINTR)
			continue;
		if (wrote <= 0)
			return wrote < 0 ? (int)wrote : -ENOSPC;
		at += (size_t)wrote;
	}
	atomic_fetch_add_explicit(&file->bytes_written, length, memory_order_relaxed);
	return 0;
}

/* ---- the end ---- */

static inline int image_file_is_settled(const struct image_file *file)
{
	for (unsigned i = 0; i < file->slot_count; i++) {
		if (file->slots[i].pending)
			return 0;
	}
	return 1;
}

static int file_finish(struct image_file *file, uint64_t length_bytes, struct image_identity *identity)
{
	const struct kernel_ops *k = file->k;
	struct stat st;
	int error = own_check(k, file->fd, file->tag);

	if (!error)
		error = own_check(k, file->folder, file->tag);
	if (!error)
		error = k->ftruncate(file->fd, length_bytes); /* a last page may be cut, or all beyond it a hole */
	if (!error)
		error = k->fsync(file->fd);
	if (!error)
		error = k->fstat(file->fd, &st);
	if (error)
		return error;
	INVARIANT(COMMIT, image_file_is_settled(file) && !file->failed);
	identity->device = st.st_dev;
	identity->inode = st.st_ino;
	identity->modified_s = st.st_mtim.tv_sec;
	identity->modified_ns = st.st_mtim.tv_nsec;
	identity->file_bytes = length_bytes;
	return k->renameat(file->folder, file->aside, file->folder, file->name);
}

/* -EINVAL: the file system has no fsync(2) of folders (CIFS, vboxsf), and no program can do more there. Any other error
 * is one: for a FUSE server that has none the kernel answers 0, and -EOPNOTSUPP may be a block device's. */
static int file_sync_folder(const struct image_file *file)
{
	int error = file->k->fsync(file->folder);

	return error == -EINVAL ? 0 : error;
}

int image_file_commit(struct image_file *file, uint64_t length_bytes, struct image_identity *identity,
                      struct text *text)
{
	int error = file_finish(file, length_bytes, identity);

	if (error)
		return text_fail(text, error, "the image could not be committed: %s", errno_text(error));
	error = file_sync_folder(file);
	return error ? text_fail(
	                       text, error,
	                       "the image is there, complete, but its folder could not be synced: a power failure may "
	                       "take it away: %s",
	                       errno_text(error))
	             : 0;
}

/* The buffers must not be freed under I/O: wait for all of it, however it ends. */
static void file_settle(struct image_file *file)
{
	struct loop_event events[32];
	unsigned pending = 0;

	for (unsigned i = 0; i < file->slot_count; i++)
		pending += file->slots[i].pending;
	while (pending > 0) {
		int count = loop_wait(file->loop, events, 32, UINT64_MAX);

		if (count < 0)
			return;
		pending -= (unsigned)count;
	}
}

void image_file_close(struct image_file *file, int committed)
{
	if (file->loop) {
		file_settle(file);
		loop_free(file->loop);
	}
	if (file->fd >= 0 && !committed && !own_check(file->k, file->folder, file->tag))
		file->k->unlinkat(file->folder, file->aside);
	target_forget(file->leftover);
	file->leftover = -1;
	own_close(file->k, file->fd, file->tag);
	own_close(file->k, file->folder, file->tag);
	file->loop = NULL;
	file->fd = -1;
	file->folder = -1;
}
