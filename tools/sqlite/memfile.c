/* SPDX-License-Identifier: MIT */
/*
 * See memfile.h. One block of memory a file, which doubles when it is too small. Lock order: the list, then a file.
 */
#include "memfile.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define LEAST_BYTES ((size_t)16384)

struct memfile {
	struct memfile *next;
	char *name;
	unsigned users;  /* under the list's mutex */
	unsigned linked; /* 1: reachable by name */
	pthread_mutex_t mutex;
	unsigned char *bytes;
	size_t length_bytes;
	size_t room_bytes; /* bytes beyond length_bytes are undefined */
};

static pthread_mutex_t list_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct memfile *list;

static struct memfile *memfile_list_find(const char *name)
{
	for (struct memfile *file = list; file; file = file->next)
		if (file->linked && strcmp(file->name, name) == 0)
			return file;
	return NULL;
}

static struct memfile *memfile_new(const char *name)
{
	struct memfile *file = calloc(1, sizeof(*file));
	if (!file)
		return NULL;
	file->name = strdup(name);
	if (!file->name) {
		free(file);
		return NULL;
	}
	pthread_mutex_init(&file->mutex, NULL);
	file->linked = 1;
	file->next = list;
	list = file;
	return file;
}

static void memfile_free_unused(struct memfile *file)
{
	if (file->users || file->linked)
		return;
	struct memfile **place = &list;
	while (*place != file)
		place = &(*place)->next;
	*place = file->next;
	pthread_mutex_destroy(&file->mutex);
	free(file->bytes);
	free(file->name);
	free(file);
}

int memfile_open(const char *name, int create, struct memfile **out)
{
	int result = 0;
	pthread_mutex_lock(&list_mutex);
	struct memfile *file = memfile_list_find(name);
	if (!file && create)
		file = memfile_new(name);
	if (file) {
		file->users++;
		*out = file;
	} else {
		result = create ? -ENOMEM : -ENOENT;
	}
	pthread_mutex_unlock(&list_mutex);
	return result;
}

void memfile_close(struct memfile *file)
{
	pthread_mutex_lock(&list_mutex);
	file->users--;
	memfile_free_unused(file);
	pthread_mutex_unlock(&list_mutex);
}

int memfile_exists(const char *name)
{
	pthread_mutex_lock(&list_mutex);
	int exists = memfile_list_find(name) != NULL;
	pthread_mutex_unlock(&list_mutex);
	return exists;
}

int memfile_hot(const char *name)
{
	struct memfile *file = NULL;
	unsigned char first = 0;
	if (memfile_open(name, 0, &file) < 0)
		return 0;
	memfile_read(file, &first, 1, 0);
	memfile_close(file);
	return first != 0;
}

int memfile_unlink(const char *name)
{
	pthread_mutex_lock(&list_mutex);
	struct memfile *file = memfile_list_find(name);
	if (file) {
		file->linked = 0;
		memfile_free_unused(file);
	}
	pthread_mutex_unlock(&list_mutex);
	return file ? 0 : -ENOENT;
}

size_t memfile_read(struct memfile *file, void *buffer, size_t length, uint64_t offset)
{
	size_t there = 0;
	pthread_mutex_lock(&file->mutex);
	if (offset < file->length_bytes)
		there = file->length_bytes - (size_t)offset;
	if (there > length)
		there = length;
	if (there)
		memcpy(buffer, file->bytes + offset, there);
	pthread_mutex_unlock(&file->mutex);
	memset((char *)buffer + there, 0, length - there);
	return there;
}

static int memfile_reserve(struct memfile *file, uint64_t needed)
{
	if (needed <= file->room_bytes)
		return 0;
	size_t room = file->room_bytes ? file->room_bytes : LEAST_BYTES;
	while (room < needed) {
		if (room > SIZE_MAX / 2)
			return -EFBIG;
		room *= 2;
	}
	unsigned char *bytes = realloc(file->bytes, room);
	if (!bytes)
		return -ENOMEM;
	file->bytes = bytes;
	file->room_bytes = room;
	return 0;
}

/* To exactly `length`; what is new reads as zeros. */
static int memfile_resize(struct memfile *file, uint64_t length)
{
	int result = memfile_reserve(file, length);
	if (result < 0)
		return result;
	if (length > file->length_bytes)
		memset(file->bytes + file->length_bytes, 0, (size_t)length - file->length_bytes);
	file->length_bytes = (size_t)length;
	return 0;
}

int memfile_write(struct memfile *file, const void *data, size_t length, uint64_t offset)
{
	int result = 0;
	if (offset > UINT64_MAX - length)
		return -EFBIG;
	pthread_mutex_lock(&file->mutex);
	if (offset + length > file->length_bytes)
		result = memfile_resize(file, offset + length);
	if (result == 0 && length)
		memcpy(file->bytes + offset, data, length);
	pthread_mutex_unlock(&file->mutex);
	return result;
}

int memfile_truncate(struct memfile *file, uint64_t length)
{
	pthread_mutex_lock(&file->mutex);
	int result = memfile_resize(file, length);
	pthread_mutex_unlock(&file->mutex);
	return result;
}

uint64_t memfile_length(struct memfile *file)
{
	pthread_mutex_lock(&file->mutex);
	uint64_t length = file->length_bytes;
	pthread_mutex_unlock(&file->mutex);
	return length;
}
