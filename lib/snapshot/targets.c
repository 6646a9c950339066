/* SPDX-License-Identifier: MIT */
/*
 * Whether an image would replace a file that a delta rests on, and whether the snapshots of a group would replace each
 * other's images.
 *
 * A place is a name in a folder, symbolic links followed. A delta's ancestors are looked for as they are when an image
 * is opened: beside the parent, where that really is, each by the name that its child's header has. One that is there
 * is compared by device and inode; one that is not there by its place: an image that takes its name would be read in
 * its stead.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/errno_name.h"
#include "image/chain.h"
#include "image/io.h"
#include "snapshot/snapshot.h"

struct targets_place {
	const char *name;
	struct stat folder;
	struct stat file; /* what is there now, if `exists` */
	int exists;
};

static int targets_are_same(const struct stat *one, const struct stat *other)
{
	return one->st_dev == other->st_dev && one->st_ino == other->st_ino;
}

static int targets_look(const struct kernel_ops *k, int folder, const char *name, struct targets_place *place)
{
	int fd = k->openat(folder, name, O_PATH | O_CLOEXEC | O_NOFOLLOW, 0);

	place->name = name;
	place->exists = fd >= 0 && !k->fstat(fd, &place->file);
	if (fd >= 0)
		k->close(fd);
	return k->fstat(folder, &place->folder);
}

/* ---- the ancestors of a delta ---- */

/* For a file that is not there: 1 where it would be in this place. */
static int targets_would_be(const struct kernel_ops *k, int at, const char *path, const struct targets_place *place)
{
	char name[TARGET_NAME_BYTES];
	struct text ignored;
	struct stat st;
	int folder;

	text_init_apart(&ignored);
	int error = target_find(k, at, path, &ignored, &folder, name);

	text_fini(&ignored);
	if (error)
		return 0;
	error = k->fstat(folder, &st);
	k->close(folder);
	return !error && targets_are_same(&st, &place->folder) && strcmp(name, place->name) == 0;
}

/* The name of a delta's parent; empty: it is no delta, or cannot be read. */
static void targets_name_parent(const struct kernel_ops *k, int fd, const struct stat *st, char name[DELTA_NAME_BYTES])
{
	unsigned char bytes[DELTA_HEADER_BYTES];
	struct delta_header header;
	struct text ignored;

	if (!S_ISREG(st->st_mode) || io_read(k, fd, bytes, sizeof(bytes), 0) || !delta_is_magic(bytes))
		return;
	text_init_apart(&ignored);
	if (!delta_decode_header(bytes, (uint64_t)st->st_size, "", &header, &ignored))
		memcpy(name, header.parent_name, sizeof(header.parent_name));
	text_fini(&ignored);
}

/* 1: this file of a chain is in the place. 0: it is another, and `name` is that of its parent, or empty. */
static int targets_is_link(const struct kernel_ops *k, int folder, const char *path, const struct targets_place *place,
                           char name[DELTA_NAME_BYTES])
{
	struct stat st;
	int fd = k->openat(folder, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);

	name[0] = '\0';
	if (fd < 0)
		return fd == -ENOENT && targets_would_be(k, folder, path, place);
	int error = k->fstat(fd, &st);
	int is_link = !error && place->exists && targets_are_same(&st, &place->file);

	if (!error && !is_link)
		targets_name_parent(k, fd, &st, name);
	k->close(fd);
	return is_link;
}

/* From this file of a folder on. 1: it is in the place, or one of its ancestors. -ELOOP: there are too many. */
static int targets_is_in_chain(const struct kernel_ops *k, int folder, const char *newest,
                               const struct targets_place *place)
{
	char path[DELTA_NAME_BYTES];
	char name[DELTA_NAME_BYTES];

	snprintf(path, sizeof(path), "%s", newest);
	for (unsigned links = 1; links < CHAIN_LINKS_MAX; links++) {
		if (targets_is_link(k, folder, path, place, name))
			return 1;
		if (!name[0])
			return 0;
		memcpy(path, name, sizeof(path));
	}
	return -ELOOP;
}

/* 1: an image in this place would replace the parent of the delta that this snapshot becomes, or an ancestor. 0: no.
 * -ELOOP: there are so many that the delta could not be opened. */
static int targets_is_ancestor(const struct uffdwp_snapshot *snapshot, const struct targets_place *place)
{
	const struct kernel_ops *k = snapshot->k;
	char name[TARGET_NAME_BYTES];
	struct text ignored;
	int folder;

	text_init_apart(&ignored);
	int error = target_find(k, AT_FDCWD, snapshot->options.parent, &ignored, &folder, name);

	text_fini(&ignored);
	if (error)
		return 0;
	int found = targets_is_in_chain(k, folder, name, place);

	k->close(folder);
	return found;
}

int targets_check_delta(const struct uffdwp_snapshot *snapshot, struct text *text)
{
	const struct kernel_ops *k = snapshot->k;
	const struct uffdwp_snapshot_options *options = &snapshot->options;
	char name[TARGET_NAME_BYTES];
	struct targets_place place;
	int folder;
	int error = target_open(k, options->path, text, &folder, name);

	if (error)
		return error;
	error = targets_look(k, folder, name, &place);
	k->close(folder);
	if (error)
		return text_fail(text, error, "the folder of \"%s\" cannot be looked at: %s", options->path,
		                 errno_text(error));
	int found = targets_is_ancestor(snapshot, &place);

	if (found == -ELOOP)
		return text_fail(text, found,
		                 "the chain of \"%s\" has %d images or more, and a longer one cannot be opened: take a "
		                 "snapshot without a parent",
		                 options->parent, CHAIN_LINKS_MAX);
	return found ? text_fail(text, -EINVAL,
	                         "\"%s\" is the parent, or one of its ancestors: the delta would replace what it rests "
	                         "on; give it a path that no image of its chain has",
	                         options->path)
	             : 0;
}

/* ---- the snapshots of a group ---- */

static const struct image_file *targets_file(const struct uffdwp_snapshot *snapshot)
{
	return snapshot->sink.writer ? image_writer_file(snapshot->sink.writer) : &snapshot->sink.file;
}

/* One name in one folder, however the paths lead there; one export; one descriptor. */
static int targets_are_one(const struct uffdwp_snapshot *snapshot, const struct uffdwp_snapshot *other)
{
	const struct uffdwp_snapshot_options *options = &snapshot->options;
	struct stat own;
	struct stat theirs;

	if (options->sink != other->options.sink || options->sink == UFFDWP_SINK_CALLBACK)
		return 0;
	if (options->sink == UFFDWP_SINK_STREAM)
		return options->fd == other->options.fd;
	if (options->sink == UFFDWP_SINK_NBD)
		return strcmp(options->path, other->options.path) == 0;
	const struct image_file *file = targets_file(snapshot);
	const struct image_file *file_of_other = targets_file(other);

	return strcmp(file->name, file_of_other->name) == 0 && !snapshot->k->fstat(file->folder, &own) &&
	       !snapshot->k->fstat(file_of_other->folder, &theirs) && targets_are_same(&own, &theirs);
}

/* 1: the delta `other` rests on the file that this snapshot's image will replace. */
static int targets_replaces_ancestor_of(const struct uffdwp_snapshot *snapshot, const struct uffdwp_snapshot *other)
{
	struct targets_place place;

	if (snapshot->options.sink != UFFDWP_SINK_IMAGE || !other->options.parent)
		return 0;
	const struct image_file *file = targets_file(snapshot);

	return !targets_look(snapshot->k, file->folder, file->name, &place) && targets_is_ancestor(other, &place) == 1;
}

int targets_check_group(struct uffdwp_snapshot *const *snapshots, size_t last, struct text *text)
{
	for (size_t i = 0; i < last; i++) {
		if (targets_are_one(snapshots[last], snapshots[i]))
			return text_fail(
			        text, -EINVAL,
			        "snapshots %zu and %zu go to the same place: give each a path or an fd of its own", i,
			        last);
		int last_replaces = targets_replaces_ancestor_of(snapshots[last], snapshots[i]);

		if (!last_replaces && !targets_replaces_ancestor_of(snapshots[i], snapshots[last]))
			continue;
		size_t replacing = last_replaces ? last : i;

		return text_fail(text, -EINVAL,
		                 "snapshot %zu would replace \"%s\", the parent, or an ancestor, of snapshot %zu: give "
		                 "it another path",
		                 replacing, snapshots[replacing]->options.path, last_replaces ? i : last);
	}
	return 0;
}
