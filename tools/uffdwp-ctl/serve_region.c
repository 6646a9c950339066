/* SPDX-License-Identifier: MIT */
/*
 * A client's memory: its descriptors are looked at, the region is adopted, restored, closed; see serve.h.
 *
 * A descriptor of a wrong kind is refused by what the kernel says that it is (/proc/self/fd, /proc/self/fdinfo,
 * fstatfs(2)), before the library gets it; what is mapped where is checked by the library and by the kernel.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "reword.h"
#include "serve.h"
#include "serve_order.h"

#define TMPFS 0x01021994u
#define HUGETLBFS 0x958458f6u
#define DEAD_WAIT_MS 10000

/* ---- descriptors ---- */

static int serve_region_is_uffd(int fd)
{
	char path[64];
	char target[64] = "";

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ssize_t length = readlink(path, target, sizeof(target) - 1);

	return length > 0 && strcmp(target, "anon_inode:[userfaultfd]") == 0;
}

static int serve_region_is_memory(int fd)
{
	struct stat status;
	struct statfs system;

	return fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && fstatfs(fd, &system) == 0 &&
	       ((unsigned long)system.f_type == TMPFS || (unsigned long)system.f_type == HUGETLBFS);
}

/* The pid that a pidfd is of; 0: it is no pidfd. (-1: of a process that has ended.) */
static long serve_region_process_of(int fd)
{
	char path[64];
	char line[128];
	long pid = 0;

	(void)snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	FILE *file = fopen(path, "re");

	while (file && !pid && fgets(line, sizeof(line), file)) {
		if (strncmp(line, "Pid:", 4) == 0)
			pid = strtol(line + 4, NULL, 10);
	}
	if (file)
		(void)fclose(file);
	return pid;
}

static int serve_region_is_process(int fd)
{
	return serve_region_process_of(fd) != 0;
}

int serve_region_check_descriptors(const struct serve_stream *stream, const struct serve_memory *memory,
                                   int found[SERVE_KINDS], char text[SERVE_TEXT])
{
	static int (*const is_right[SERVE_KINDS])(int fd) = {serve_region_is_uffd, serve_region_is_memory,
	                                                     serve_region_is_process};
	static const char *const names[SERVE_KINDS] = {"a userfaultfd", "a memfd or a file of tmpfs or hugetlbfs",
	                                               "a pidfd"};

	for (unsigned kind = 0; kind < SERVE_KINDS; kind++)
		found[kind] = -1;
	if (stream->descriptor_count != memory->descriptor_count)
		return serve_fail(text, -EBADF, "%u descriptors came, and %u are needed", stream->descriptor_count,
		                  memory->descriptor_count);
	for (unsigned i = 0; i < memory->descriptor_count; i++) {
		enum serve_kind kind = memory->kinds[i];

		if (!is_right[kind](stream->descriptors[i]))
			return serve_fail(text, -EBADF, "descriptor %u is not %s", i, names[kind]);
		found[kind] = stream->descriptors[i];
	}
	return 0;
}

/* The client's own pidfd takes the place of that of the process that connected. */
static void serve_region_take_process(struct serve_client *client, int given)
{
	int own = given >= 0 ? fcntl(given, F_DUPFD_CLOEXEC, 0) : -1;

	if (own < 0)
		return;
	client->is_other = serve_region_process_of(own) != client->peer;
	if (client->pidfd >= 0)
		(void)close(client->pidfd);
	client->pidfd = own;
}

/* ---- the image ---- */

/* The folder of --image is that of --images where none is given. */
static int serve_region_find_image(struct serve_client *client)
{
	const struct serve_settings *settings = client->settings;
	char copy[PATH_MAX];

	if (!client->handshake.restores)
		return 0;
	if (!client->handshake.image[0]) {
		if (!settings->image)
			return serve_fail(client->text, -ENOENT,
			                  "there is no image for clients that name none: --image FILE");
		(void)snprintf(client->image, sizeof(client->image), "%s", settings->image);
		return 0;
	}
	if (settings->images)
		return serve_names_path(settings->images, client->handshake.image, client->image, client->text);
	if (!settings->image)
		return serve_fail(client->text, -ENOENT, "there is no folder of images: --images FOLDER");
	(void)snprintf(copy, sizeof(copy), "%s", settings->image);
	return serve_names_path(dirname(copy), client->handshake.image, client->image, client->text);
}

/* Firecracker's mappings are all of the image. Memory of ours may be longer: it is zeros there. */
static int serve_region_check_image(struct serve_client *client)
{
	struct uffdwp_image_options options = UFFDWP_IMAGE_OPTIONS_INIT;
	struct uffdwp_image_info info = {.sz = sizeof(info)};
	struct uffdwp_image *image = NULL;
	uint64_t length = client->handshake.memory.length;
	int error = uffdwp_image_open(client->image, &options, &image);

	if (error)
		return serve_fail_library(client->text, error);
	error = uffdwp_image_info(image, 0, &info);
	(void)uffdwp_image_close(image);
	if (error)
		return serve_fail_library(client->text, error);
	client->image_length = info.length_bytes;
	if (info.length_bytes > length || (client->handshake.is_firecracker && info.length_bytes != length))
		return serve_fail(client->text, -ERANGE, "the image \"%s\" has %llu bytes, and the memory %llu",
		                  client->image, (unsigned long long)info.length_bytes, (unsigned long long)length);
	return 0;
}

static int serve_region_begin_restore(struct serve_client *client)
{
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;

	if (!client->handshake.restores)
		return 0;
	options.path = client->image;
	options.threads = client->settings->threads;
	uint64_t *first = serve_order_begin(client, &options);
	int error = uffdwp_restore_begin(client->region, &options, &client->restore);

	free(first);
	client->restore_begin_ms = serve_now_ms();
	return error ? serve_fail_library(client->text, error) : 0;
}

/* The first process gets the userfaultfd before content can be missing: see serve_loop.c. */
static int serve_region_pass_guard(struct serve_client *client, const int found[SERVE_KINDS])
{
	int fds[2] = {found[SERVE_KIND_UFFD], client->pidfd};
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(fds))];
	} control = {.space = {0}};
	struct iovec part = {(void *)(uintptr_t) "", 1};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control};
	size_t bytes = client->pidfd >= 0 ? 2 * sizeof(int) : sizeof(int);

	if (!client->handshake.restores)
		return 0;
	message.msg_controllen = CMSG_SPACE(bytes);
	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_RIGHTS;
	control.header.cmsg_len = CMSG_LEN(bytes);
	memcpy(CMSG_DATA(&control.header), fds, bytes);
	if (sendmsg(client->channel, &message, MSG_NOSIGNAL) < 0 && errno != EPIPE && errno != ECONNRESET)
		return serve_fail(client->text, -errno, "the userfaultfd cannot be kept: %s", strerror(errno));
	atomic_store(&client->slot->state, SERVE_STATE_RESTORING);
	return 0; /* without a first process, which was killed, it is served all the same */
}

void serve_region_release_guard(struct serve_client *client)
{
	atomic_store(&client->slot->state, SERVE_STATE_SERVING);
	if (client->channel >= 0)
		(void)close(client->channel);
	client->channel = -1;
}

/* ---- the region ---- */

static int serve_region_adopt(struct serve_client *client, const int found[SERVE_KINDS])
{
	const struct serve_memory *memory = &client->handshake.memory;
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	struct uffdwp_mapper mapper = UFFDWP_MAPPER_INIT;

	if (found[SERVE_KIND_MEMFD] < 0) {
		options.flags = UFFDWP_REGION_ADOPT_PRIVATE;
		options.huge_page_bytes = memory->page_bytes > (uint64_t)sysconf(_SC_PAGESIZE) ? memory->page_bytes : 0;
	}
	options.fd = found[SERVE_KIND_MEMFD];
	options.fd_offset = memory->memfd_offset;
	options.mechanism = client->handshake.restores ? UFFDWP_MECHANISM_REARM : UFFDWP_MECHANISM_AUTO;
	mapper.flags = memory->is_registered ? UFFDWP_MAPPER_REGISTERED : 0;
	mapper.uffd = found[SERVE_KIND_UFFD];
	mapper.pidfd = client->pidfd;
	mapper.mapping_count = memory->mapping_count;
	mapper.mappings = memory->mappings;
	int error = uffdwp_region_adopt(client->runtime, memory->length, &options, &mapper, &client->region);

	return error ? serve_fail_library(client->text, error) : 0;
}

/* The region's granularity is the kernel's answer; a client that believes another one is wrong about its memory. */
static int serve_region_check_pages(struct serve_client *client)
{
	struct uffdwp_region_info info = {.sz = sizeof(info)};
	uint64_t page_bytes = client->handshake.memory.page_bytes;

	(void)uffdwp_region_info(client->region, &info);
	if (!page_bytes || page_bytes == info.page_bytes)
		return 0;
	return serve_fail(client->text, -EINVAL, "the memory has pages of %llu bytes, and not of %llu",
	                  (unsigned long long)info.page_bytes, (unsigned long long)page_bytes);
}

static int serve_region_begin_track(struct serve_client *client)
{
	int error;

	if (!client->handshake.tracks)
		return 0;
	error = uffdwp_track_start(client->runtime, NULL, &client->track);
	if (!error)
		error = uffdwp_track_add(client->track, uffdwp_region_base(client->region),
		                         client->handshake.memory.length, UFFDWP_TRACK_ADD_CLEAN);
	return error ? serve_fail_library(client->text, error) : 0;
}

static int serve_region_open_runtime(struct serve_client *client)
{
	struct uffdwp_options options = UFFDWP_OPTIONS_INIT;

	options.handler_threads = 1;          /* there is one region */
	if (!secure_getenv("UFFDWP_CONTROL")) /* which the library follows by itself */
		options.flags |= UFFDWP_OPEN_CONTROL;
	int error = uffdwp_open(&options, &client->runtime);

	if (error && options.flags) { /* no socket for control: it is served all the same */
		options.flags = 0;
		error = uffdwp_open(&options, &client->runtime);
	}
	return error ? serve_fail_library(client->text, error) : 0;
}

int serve_region_open(struct serve_client *client)
{
	int found[SERVE_KINDS];
	int error = serve_region_check_descriptors(&client->stream, &client->handshake.memory, found, client->text);

	if (!error)
		error = serve_region_find_image(client);
	if (!error && client->handshake.restores)
		error = serve_region_check_image(client);
	if (error)
		return error;
	serve_region_take_process(client, found[SERVE_KIND_PIDFD]);
	if (client->handshake.restores && client->pidfd < 0)
		return serve_fail(client->text, -ESRCH,
		                  "the process that connected has ended, or is of another PID namespace: hand over its "
		                  "pidfd, without which nothing could end it where its memory has no handler");
	error = serve_region_open_runtime(client);
	if (!error)
		error = serve_region_adopt(client, found);
	if (!error)
		error = serve_region_check_pages(client);
	if (!error)
		serve_lost_watch(client, found[SERVE_KIND_UFFD], found[SERVE_KIND_MEMFD]);
	if (!error)
		error = serve_region_pass_guard(client, found);
	if (!error)
		error = serve_region_begin_restore(client);
	if (!error)
		error = serve_region_begin_track(client);
	if (!error)
		serve_stream_close_descriptors(&client->stream);
	return error; /* what is open ends with the process */
}

int serve_region_join(struct serve_client *client, const struct serve_memory *memory)
{
	struct uffdwp_mapper mapper = UFFDWP_MAPPER_INIT;
	int found[SERVE_KINDS];
	int error = serve_region_check_descriptors(&client->stream, memory, found, client->text);

	if (error)
		return error;
	if (found[SERVE_KIND_MEMFD] >= 0)
		return serve_fail(client->text, -EINVAL, "a process that joins hands over no memory of its own");
	mapper.flags = memory->is_registered ? UFFDWP_MAPPER_REGISTERED : 0;
	mapper.uffd = found[SERVE_KIND_UFFD];
	mapper.pidfd = found[SERVE_KIND_PIDFD];
	mapper.mapping_count = memory->mapping_count;
	mapper.mappings = memory->mappings;
	error = uffdwp_region_join(client->region, &mapper);
	return error ? serve_fail_library(client->text, error) : 0;
}

/* ---- ends ---- */

void serve_region_end_restore(struct serve_client *client)
{
	struct uffdwp_restore_progress progress = {.sz = sizeof(progress)};
	char text[SERVE_TEXT] = "";
	char said[SERVE_TEXT];
	int error = uffdwp_restore_wait(client->restore, 0, &progress);

	if (error == -ETIMEDOUT)
		return;
	client->missing_pages = progress.pages_failed;
	if (error) {
		(void)uffdwp_restore_text(client->restore, text, sizeof(text));
		if (!client->is_gone)
			serve_say("%s: the restore failed: %s", client->slot->name,
			          text[0] ? reword(REWORD_SERVE, text, said, sizeof(said)) : strerror(-error));
	} else if (!client->settings->quiet) {
		serve_say("%s: restored in %llu ms, %llu of %llu pages when they were used", client->slot->name,
		          (unsigned long long)(serve_now_ms() - client->restore_begin_ms),
		          (unsigned long long)progress.pages_demand, (unsigned long long)progress.pages_total);
	}
	serve_order_end(client, error);
	(void)uffdwp_restore_free(client->restore);
	client->restore = NULL;
	if (!client->missing_pages) /* else they are sealed when the region is closed */
		serve_region_release_guard(client);
}

void serve_region_end_snapshot(struct serve_client *client)
{
	char text[SERVE_TEXT] = "";
	int error = uffdwp_snapshot_wait(client->snapshot, 0, NULL);

	if (error == -ETIMEDOUT)
		return;
	client->snapshot_progress.sz = sizeof(client->snapshot_progress);
	(void)uffdwp_snapshot_poll(client->snapshot, &client->snapshot_progress);
	client->snapshot_error = error;
	client->snapshot_text[0] = '\0';
	if (error) {
		(void)uffdwp_snapshot_text(client->snapshot, text, sizeof(text));
		(void)reword(REWORD_SERVE, text[0] ? text : strerror(-error), client->snapshot_text,
		             sizeof(client->snapshot_text));
		serve_say("%s: snapshot \"%s\" failed: %s", client->slot->name, client->snapshot_name,
		          client->snapshot_text);
	}
	(void)uffdwp_snapshot_free(client->snapshot);
	client->snapshot = NULL;
	(void)close(client->snapshot_lock);
	client->snapshot_lock = -1;
}

void serve_region_close(struct serve_client *client)
{
	if (client->snapshot) {
		(void)uffdwp_snapshot_wait(client->snapshot, DEAD_WAIT_MS, NULL);
		serve_region_end_snapshot(client);
	}
	if (client->track)
		(void)uffdwp_track_stop(client->track);
	client->track = NULL;
	if (uffdwp_region_close(client->region) == 0)
		(void)uffdwp_close(client->runtime);
	client->region = NULL;
}
