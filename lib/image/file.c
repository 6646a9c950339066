/* SPDX-License-Identifier: MIT */
/* See file.h. */
#include "image/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fault/loop.h"

#define FILE_WRITES_MAX 256
#define FILE_MOMENT_NS 2000000ull

static _Atomic unsigned file_number;

/* ---- beginning ---- */

static int open_folder(struct image_file *file, const char *path, struct text *text)
{
	char folder[4096];
	const char *name = image_name_of(path);
	size_t length = name > path ? (size_t)(name - path) - 1 : 0;

	if (!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return text_fail(text, -EISDIR, "\"%s\" names a folder, not a file", path);
	if (strlen(name) >= sizeof(file->name) || length >= sizeof(folder))
		return text_fail(text, -ENAMETOOLONG, "the image's path is too long");
	snprintf(file->name, sizeof(file->name), "%s", name);
	snprintf(folder, sizeof(folder), "%.*s", (int)length, path);
	file->folder = file->k->open(length ? folder : name > path ? "/" : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	if (file->folder < 0)
		return text_fail(text, file->folder, "the folder of \"%s\" cannot be opened: %s", path,
		                 strerror(-file->folder));
	return 0;
}

/* What stands under the final name may be replaced only if it is a file. */
static int check_target(struct image_file *file, struct text *text)
{
	struct stat st;
	int fd = file->k->openat(file->folder, file->name, O_PATH | O_CLOEXEC | O_NOFOLLOW, 0);

	if (fd < 0)
		return 0; /* not there */
	int error = file->k->fstat(fd, &st);

	file->k->close(fd);
	if (!error && S_ISDIR(st.st_mode))
		return text_fail(text, -EISDIR, "\"%s\" is a folder: name a file in it", file->name);
	if (!error && !S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode))
		return text_fail(text, -EINVAL,
		                 "\"%s\" is not a regular file: use the stream sink for devices and pipes", file->name);
	return 0;
}

/* A file that a killed process of our number left behind is passed by. */
static int open_aside(struct image_file *file, int flags)
{
	int fd;

	do {
		unsigned number = atomic_fetch_add(&file_number, 1);

		snprintf(file->aside, sizeof(file->aside), ".uffdwp-%ld-%u.tmp", (long)getpid(), number);
		fd = file->k->openat(file->folder, file->aside, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | flags, 0666);
	} while (fd == -EEXIST);
	return fd;
}

static int create_aside(struct image_file *file, unsigned flags, struct text *text)
{
	file->fd = -EINVAL;
	if (!(flags & IMAGE_FILE_BUFFERED)) {
		file->fd = open_aside(file, O_DIRECT);
		file->direct = file->fd >= 0;
		if (file->fd == -EINVAL) /* some kernels leave the file behind when the file system has no O_DIRECT */
			file->k->unlinkat(file->folder, file->aside);
	}
	if (file->fd == -EINVAL)
		file->fd = open_aside(file, 0);
	if (file->fd < 0)
		return text_fail(text, file->fd, "no file can be made in the folder of \"%s\": %s", file->name,
		                 strerror(-file->fd));
	return 0;
}

static int open_loop(struct image_file *file, unsigned flags, struct text *text)
{
	int error = 0;

	if (!(flags & IMAGE_FILE_NO_LOOP))
		error = loop_new(file->k, FILE_WRITES_MAX, (flags & IMAGE_FILE_NO_URING) != 0, &file->loop);
	if (error)
		return text_fail(text, error, "the image's I/O could not be set up: %s", strerror(-error));
	file->uring = file->loop ? loop_is_uring(file->loop) : 0;
	return 0;
}

int image_file_open(struct image_file *file, const struct kernel_ops *k, const char *path, unsigned flags,
                    struct text *text)
{
	file->k = k;
	file->fd = -1;
	file->folder = -1;
	int error = open_folder(file, path, text);

	if (!error)
		error = check_target(file, text);
	if (!error)
		error = create_aside(file, flags, text);
	if (!error)
		error = open_loop(file, flags, text);
	if (error)
		image_file_close(file, 0);
	return error;
}

/* ---- writing ---- */

struct part {
	unsigned slot;
	size_t offset; /* in the slot */
	size_t length;
};

/* A write under way, packed into its token: which slot, from where to where, in blocks. */
static uint64_t token_of(const struct part *part)
{
	return (uint64_t)part->slot << 56 | (uint64_t)(part->offset / IMAGE_ALIGN) << 28 |
	       (uint64_t)(part->length / IMAGE_ALIGN);
}

static struct part part_of(uint64_t token)
{
	return (struct part){(unsigned)(token >> 56), (size_t)(token >> 28 & 0xfffffff) * IMAGE_ALIGN,
	                     (size_t)(token & 0xfffffff) * IMAGE_ALIGN};
}

/* The first that fails is what is told. */
static void note_failure(struct image_file *file, const struct part *part)
{
	if (!file->failed)
		file->failed_at = file->slots[part->slot].offset + part->offset;
	file->failed = 1;
}

/* By the thread that owns the loop; what it refuses costs a little time and nothing else. */
static void keep_buffers(struct image_file *file)
{
	struct iovec buffers[IMAGE_SLOTS_MAX];

	for (unsigned i = 0; i < file->slot_count; i++)
		buffers[i] = (struct iovec){file->slots[i].buffer, file->slot_bytes};
	file->kept = 1;
	(void)loop_keep(file->loop, file->fd, buffers, file->slot_count);
}

static int start_write(struct image_file *file, const struct part *part)
{
	struct image_slot *slot = &file->slots[part->slot];
	int error;

	do {
		error = loop_write(file->loop, file->fd, slot->buffer + part->offset, part->length,
		                   slot->offset + part->offset, token_of(part));
		if (error == -EAGAIN) {
			int reaped = image_file_reap(file);

			if (reaped)
				return reaped;
		}
	} while (error == -EAGAIN);
	if (error)
		note_failure(file, part);
	else
		slot->pending++;
	return error;
}

int image_file_submit(struct image_file *file, unsigned slot, size_t offset, size_t length)
{
	if (file->slot_bytes && !file->kept)
		keep_buffers(file);
	return start_write(file, &(struct part){slot, offset, length});
}

/* O_DIRECT that turns out to want another alignment than ours: go on without. */
static int leave_direct(struct image_file *file)
{
	file->direct = 0;
	return file->k->clear_direct(file->fd);
}

static int go_on(struct image_file *file, struct part *part, int result)
{
	file->slots[part->slot].pending--;
	if (result == -EINVAL && file->direct) {
		int error = leave_direct(file);

		return error ? error : start_write(file, part);
	}
	if (result == -EINTR || result == -EAGAIN)
		return start_write(file, part);
	if (result <= 0)
		return result < 0 ? result : -ENOSPC;
	size_t whole = (size_t)result / IMAGE_ALIGN * IMAGE_ALIGN;

	atomic_fetch_add_explicit(&file->bytes_written, (size_t)result, memory_order_relaxed);
	if (whole < part->length && whole == 0)
		return -ENOSPC; /* less than a block, again and again */
	part->offset += whole;
	part->length -= whole;
	return part->length > 0 ? start_write(file, part) : 0;
}

int image_file_reap(struct image_file *file)
{
	struct loop_event events[32];
	int count = loop_wait(file->loop, events, 32, FILE_MOMENT_NS);
	int error = count < 0 ? count : 0;

	for (int i = 0; i < count; i++) {
		struct part part = part_of(events[i].token);
		int failed = go_on(file, &part, events[i].result);

		if (failed)
			note_failure(file, &part);
		error = error ? error : failed;
	}
	return error;
}

int image_file_pwrite(struct image_file *file, const void *buffer, size_t length, uint64_t offset)
{
	for (size_t at = 0; at < length;) {
		ssize_t wrote = file->k->pwrite(file->fd, (const unsigned char *)buffer + at, length - at, offset + at);

		if (wrote == -EINVAL && atomic_load(&file->direct)) {
			wrote = leave_direct(file);
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

static int finish(struct image_file *file, uint64_t length_bytes, struct image_identity *identity)
{
	const struct kernel_ops *k = file->k;
	struct stat st;
	int error = k->ftruncate(file->fd, length_bytes); /* a last page may be cut, or all behind it a hole */

	if (!error)
		error = k->fsync(file->fd);
	if (!error)
		error = k->fstat(file->fd, &st);
	if (error)
		return error;
	identity->device = st.st_dev;
	identity->inode = st.st_ino;
	identity->modified_s = st.st_mtim.tv_sec;
	identity->modified_ns = st.st_mtim.tv_nsec;
	identity->file_bytes = length_bytes;
	return k->renameat(file->folder, file->aside, file->folder, file->name);
}

int image_file_commit(struct image_file *file, uint64_t length_bytes, struct image_identity *identity,
                      struct text *text)
{
	int error = finish(file, length_bytes, identity);

	if (error)
		return text_fail(text, error, "the image could not be committed: %s", strerror(-error));
	error = file->k->fsync(file->folder);
	return error ? text_fail(
	                       text, error,
	                       "the image is there, complete, but its folder could not be synced: a power failure may "
	                       "take it away: %s",
	                       strerror(-error))
	             : 0;
}

/* The buffers must not be freed under I/O: wait for all of it, however it ends. */
static void settle(struct image_file *file)
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
		settle(file);
		loop_free(file->loop);
	}
	if (file->fd >= 0 && !committed)
		file->k->unlinkat(file->folder, file->aside);
	if (file->fd >= 0)
		file->k->close(file->fd);
	if (file->folder >= 0)
		file->k->close(file->folder);
	file->loop = NULL;
	file->fd = -1;
	file->folder = -1;
}
