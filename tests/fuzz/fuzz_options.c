/* SPDX-License-Identifier: MIT */
/*
 * The input chooses a public function and fills its structure: any sz, flags, numbers and tail, pointers that are NULL
 * or good. The structure lies in memory of exactly sz bytes, so that the address sanitizer sees reads and writes
 * beyond. Whatever it says: no crash; no success with a flag or a tail that is not known; outputs are written on
 * success only; an error has a text of its own.
 *
 * Not asked here: huge pages, which are the machine's, and folders for control sockets are refused by the table of
 * operations.
 *
 * fuzz-options: -max_len=256 -len_control=0
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "api.h"
#include "api_private.h"
#include "forge.h"
#include "kernel/kernel.h"
#include "uffdwp.h"

#define REGION_BYTES ((size_t)1 << 18)
#define ARENA_BYTES ((size_t)1 << 17)
#define SZ_MOST 4096 /* of options: api.c */
#define OURS_MOST 512

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct kernel_ops ops;
static struct uffdwp *runtime;
static struct uffdwp_region *region;
static struct uffdwp_track *track;
static uint8_t *arena;
static char folder[64];
static char image_path[96];
static char new_path[96];
static const char never[] = "no text was formed";

static int no_huge_pages(const char *name, unsigned flags)
{
	return flags & MFD_HUGETLB ? -EINVAL : kernel_real.memfd_create(name, flags);
}

static int no_folder(int at, const char *name, unsigned mode)
{
	(void)at;
	(void)name;
	(void)mode;
	return -EACCES;
}

static void remove_files(void)
{
	(void)unlink(image_path);
	(void)unlink(new_path);
	(void)rmdir(folder);
}

/* As at the start: a snapshot of an earlier input may have put an image of another kind there. */
static void write_image(void)
{
	static const uint8_t bytes[16384] = {1, 2, 3};
	int fd = open(image_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	forge_must(fd >= 0 && write(fd, bytes, sizeof(bytes)) == (ssize_t)sizeof(bytes), "an image can be written");
	(void)close(fd);
}

static void make_files(void)
{
	(void)snprintf(folder, sizeof(folder), "%.40s/uffdwp-fuzz-XXXXXX", forge_scratch());
	forge_must(mkdtemp(folder) != NULL, "a folder can be made");
	(void)snprintf(image_path, sizeof(image_path), "%s/image", folder);
	(void)snprintf(new_path, sizeof(new_path), "%s/new", folder);
	write_image();
	(void)atexit(remove_files);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS;

	(void)argc;
	(void)argv;
	ops = kernel_real;
	ops.memfd_create = no_huge_pages;
	ops.mkdirat = no_folder;
	make_files();
	arena = mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0);
	forge_must(arena != MAP_FAILED, "there is memory");
	int error = api_open(&ops, NULL, &runtime);

	if (!error)
		error = uffdwp_region_create(runtime, REGION_BYTES, NULL, &region);
	if (!error)
		error = uffdwp_track_start(runtime, NULL, &track);
	if (error) {
		fprintf(stderr, "skipped: no region or track can be made here: %s\n", strerror(-error));
		exit(77);
	}
	return 0;
}

/* ---- a structure ---- */

struct given {
	uint8_t *bytes; /* sz of them, at least 8: that many are read of any structure */
	size_t sz;
	size_t room;
	size_t ours;
	uint8_t before[SZ_MOST];
	_Alignas(16) uint8_t mine[OURS_MOST]; /* as far as it is known to the library */
	int has_tail;
};

static size_t choose_sz(struct forge_input *input, size_t ours)
{
	uint8_t choice = forge_take8(input);

	if (choice < 128)
		return ours;
	if (choice < 160)
		return ours + 8 * (size_t)(choice & 15);
	if (choice < 224)
		return forge_take(input, 2) % (SZ_MOST + 2);
	return forge_take_number(input);
}

/* Numbers at some places, as forge_take_number() likes them; small ones where flags and words are. */
static void given_begin(struct given *given, struct forge_input *input, size_t ours)
{
	memset(given, 0, sizeof(*given));
	given->ours = ours;
	given->sz = choose_sz(input, ours);
	given->room = given->sz < sizeof(size_t) ? sizeof(size_t) : given->sz;
	if (given->sz > SZ_MOST) /* refused as options; an answer is filled as far as it is known */
		given->room = ours;
	memcpy(given->mine, &given->sz, sizeof(given->sz));
	for (unsigned count = forge_take8(input) % 8; count; count--) {
		uint8_t where = forge_take8(input);
		size_t at = sizeof(size_t) + (where & 127) * 4 % (ours - sizeof(size_t));
		uint64_t value = where & 128 ? forge_take_number(input) : forge_take8(input);

		memcpy(given->mine + at, &value, ours - at < 8 || !(where & 128) ? 4 : 8);
	}
}

#define GIVEN_PUT(given, type, field, value)                                                                           \
	do {                                                                                                           \
		((type *)(void *)(given)->mine)->field = (value);                                                      \
	} while (0)

static uint32_t given_flags(const struct given *given)
{
	uint32_t flags = 0;

	if (given->sz >= sizeof(size_t) + sizeof(flags))
		memcpy(&flags, given->mine + sizeof(size_t), sizeof(flags));
	return flags;
}

/* With the pointers in their places: the bytes that the library gets. */
static void *given_end(struct given *given, struct forge_input *input)
{
	size_t known = given->room < given->ours ? given->room : given->ours;

	given->bytes = calloc(1, given->room);
	forge_must(given->bytes != NULL, "there is memory");
	memcpy(given->bytes, given->mine, known);
	for (size_t at = known; at < given->room && forge_take8(input) & 1; at += 1 + forge_take8(input)) {
		given->bytes[at] = forge_take8(input);
		given->has_tail |= given->bytes[at] != 0;
	}
	memcpy(given->before, given->bytes, given->room < SZ_MOST ? given->room : SZ_MOST);
	(void)text_fail(NULL, -EIO, "%s", never);
	return given->bytes;
}

static int given_is_changed(const struct given *given)
{
	return memcmp(given->before, given->bytes, given->room < SZ_MOST ? given->room : SZ_MOST) != 0;
}

static void check_text(int error)
{
	char text[512];

	if (error >= 0)
		return;
	(void)uffdwp_error_text(text, sizeof(text));
	forge_must(strcmp(text, never) != 0, "an error has a text of its own");
}

static void check_options(struct given *given, int error, uint32_t known)
{
	forge_must(error <= 0 && error > -4096, "0 or a negative errno");
	if (!error) {
		forge_must(given->sz >= 16 && given->sz <= SZ_MOST, "an sz that is none is refused");
		forge_must(!given->has_tail, "a tail that is not known is refused");
		forge_must((given_flags(given) & ~known) == 0, "a flag that is not known is refused");
	}
	check_text(error);
}

static void given_free(struct given *given)
{
	free(given->bytes);
}

/* ---- what pointers may be ---- */

static const char *choose_path(struct forge_input *input)
{
	static const char *const paths[] = {
	        NULL, "", "/", "/dev/null", "/nowhere/image", "nbd+unix:///?socket=/nowhere"};
	static char name[600];
	uint8_t choice = forge_take8(input) % 16;

	if (choice < 6)
		return paths[choice];
	if (choice < 9)
		return image_path;
	if (choice < 13)
		return new_path;
	if (choice == 13)
		return folder;
	memset(name, 'n', sizeof(name) - 1);
	name[0] = choice == 14 ? '/' : 'n';
	return name;
}

/* Any text: a list of CPUs, a name. */
static const char *choose_text(struct forge_input *input)
{
	static char text[64];
	size_t length = forge_take8(input) % sizeof(text);

	if (length == 0)
		return NULL;
	for (size_t i = 0; i < length - 1; i++)
		text[i] = (char)forge_take8(input);
	text[length - 1] = '\0';
	return text;
}

static const char *path_list[4];

static const char *const *choose_paths(struct forge_input *input, size_t *count)
{
	uint8_t choice = forge_take8(input);

	*count = choice & 3;
	path_list[0] = choose_path(input);
	path_list[1] = choice & 4 ? image_path : NULL;
	path_list[2] = image_path;
	return choice & 8 ? path_list : NULL;
}

static int enter_error;
static uint64_t enter_length;

static int enter(void *user, uint64_t *length)
{
	(void)user;
	if (enter_length)
		*length = enter_length;
	return enter_error;
}

static int enter_view(void *user)
{
	(void)user;
	return enter_error;
}

static void leave(void *user)
{
	(void)user;
}

static int take_bytes(void *user, uint64_t offset, const void *data, uint64_t length)
{
	(void)user;
	(void)data;
	forge_must(offset + length <= REGION_BYTES, "the sink gets nothing beyond the region");
	return 0;
}

#define NONE(type) ((type *)(uintptr_t)0x5a5a5a5aul)

/* ---- the functions ---- */

static void do_open(struct forge_input *input)
{
	struct uffdwp *out = NONE(struct uffdwp);
	struct given given;

	given_begin(&given, input, sizeof(struct uffdwp_options));
	GIVEN_PUT(&given, struct uffdwp_options, handler_cpus, choose_text(input));
	GIVEN_PUT(&given, struct uffdwp_options, control_path, choose_text(input));
	int error = api_open(&ops, given_end(&given, input), &out);

	check_options(&given, error, UFFDWP_OPEN_NO_URING | UFFDWP_OPEN_USER_MODE | UFFDWP_OPEN_CONTROL);
	if (error)
		forge_must(out == NONE(struct uffdwp), "out is written on success only");
	else
		forge_must(uffdwp_close(out) == 0, "what was opened can be closed");
	given_free(&given);
}

static void begin_region_options(struct given *given, struct forge_input *input)
{
	static const int fds[] = {0, -1, -2, 9999, 2};

	given_begin(given, input, sizeof(struct uffdwp_region_options));
	GIVEN_PUT(given, struct uffdwp_region_options, name, choose_text(input));
	GIVEN_PUT(given, struct uffdwp_region_options, fd, fds[forge_take8(input) % 5]);
	GIVEN_PUT(given, struct uffdwp_region_options, on_loss, NULL);
}

static void check_region(struct given *given, int error, struct uffdwp_region *out, uint32_t known)
{
	struct uffdwp_region_info info = {.sz = sizeof(info)};

	check_options(given, error, known);
	if (error) {
		forge_must(out == NONE(struct uffdwp_region), "out is written on success only");
	} else {
		forge_must(uffdwp_region_info(out, &info) == 0 && info.length_bytes <= info.capacity_bytes,
		           "a region says what it is");
		forge_must(uffdwp_region_close(out) == 0, "a region can be closed");
	}
	given_free(given);
}

/* Nothing is written that would take memory: only address space may be large. */
static uint64_t choose_length(struct forge_input *input)
{
	uint8_t choice = forge_take8(input);

	return choice & 1 ? forge_take_number(input) : (uint64_t)(choice / 2) * 4096;
}

static void do_create(struct forge_input *input)
{
	struct uffdwp_region *out = NONE(struct uffdwp_region);
	struct given given;

	begin_region_options(&given, input);
	uint64_t length = choose_length(input);
	int error = uffdwp_region_create(runtime, length, given_end(&given, input), &out);

	check_region(&given, error, out,
	             UFFDWP_REGION_CREATE_SEALED | UFFDWP_REGION_CREATE_INHERIT | UFFDWP_REGION_CREATE_HUGETLB);
}

static void *choose_address(struct forge_input *input)
{
	uint8_t choice = forge_take8(input);

	if (choice < 128)
		return arena + (size_t)(choice % 32) * 4096 + (choice & 64 ? 1 : 0);
	if (choice < 192)
		return (char *)uffdwp_region_base(region) + (size_t)(choice & 63) * 4096;
	return (void *)(uintptr_t)(choice < 224 ? forge_take_number(input) : 0);
}

static void do_attach(struct forge_input *input)
{
	struct uffdwp_region *out = NONE(struct uffdwp_region);
	struct given given;

	begin_region_options(&given, input);
	void *address = choose_address(input);
	uint64_t length = choose_length(input);
	int error = uffdwp_region_attach(runtime, address, length, given_end(&given, input), &out);

	check_region(&given, error, out, UFFDWP_REGION_ATTACH_ALIASED);
}

static void begin_snapshot_options(struct given *given, struct forge_input *input, int fd)
{
	given_begin(given, input, sizeof(struct uffdwp_snapshot_options));
	uint8_t choice = forge_take8(input);

	enter_error = choice & 1 ? -EPERM : 0;
	enter_length = choice & 2 ? forge_take_number(input) : 0;
	GIVEN_PUT(given, struct uffdwp_snapshot_options, path, choose_path(input));
	GIVEN_PUT(given, struct uffdwp_snapshot_options, parent, choice & 4 ? choose_path(input) : NULL);
	GIVEN_PUT(given, struct uffdwp_snapshot_options, fd, choice & 8 ? fd : choice & 16 ? -1 : 9999);
	GIVEN_PUT(given, struct uffdwp_snapshot_options, callback, choice & 32 ? take_bytes : NULL);
	GIVEN_PUT(given, struct uffdwp_snapshot_options, cut_enter, choice & 64 ? enter : NULL);
	GIVEN_PUT(given, struct uffdwp_snapshot_options, cut_leave, choice & 128 ? leave : NULL);
}

/* One that is slow by its options is aborted. */
static void end_snapshot(struct uffdwp_snapshot *snapshot)
{
	int error = uffdwp_snapshot_wait(snapshot, 20, NULL);

	forge_must(error <= 0, "0 or a negative errno");
	forge_must(uffdwp_snapshot_free(snapshot) == 0, "a snapshot can be freed");
}

#define SNAPSHOT_KNOWN                                                                                                 \
	(UFFDWP_SNAPSHOT_BUFFERED | UFFDWP_SNAPSHOT_KEEP | UFFDWP_SNAPSHOT_INCREMENT | UFFDWP_SNAPSHOT_COARSE)

static void do_snapshot(struct forge_input *input)
{
	struct uffdwp_snapshot *out = NONE(struct uffdwp_snapshot);
	struct given given;
	int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);

	begin_snapshot_options(&given, input, fd);
	int error = uffdwp_snapshot_begin(region, given_end(&given, input), &out);

	check_options(&given, error, SNAPSHOT_KNOWN);
	if (error)
		forge_must(out == NONE(struct uffdwp_snapshot), "out is written on success only");
	else
		end_snapshot(out);
	(void)close(fd);
	given_free(&given);
}

/* Two regions; the second one's structure follows the first, whose sz is the stride, and may say another sz. */
static void do_group(struct forge_input *input)
{
	struct uffdwp_snapshot *out[2] = {NONE(struct uffdwp_snapshot), NONE(struct uffdwp_snapshot)};
	struct uffdwp_region *regions[2] = {region, NULL};
	struct given given;

	begin_snapshot_options(&given, input, -1);
	if (given.sz > SZ_MOST / 2 || given.sz < sizeof(size_t))
		return;
	forge_must(uffdwp_region_create(runtime, 65536, NULL, &regions[1]) == 0, "a second region");
	uint8_t *first = given_end(&given, input);
	uint8_t *both = calloc(2, given.sz);
	size_t second = forge_take8(input) & 1 ? forge_take(input, 2) : given.sz;

	forge_must(both != NULL, "there is memory");
	memcpy(both, first, given.sz);
	memcpy(both + given.sz, &second, sizeof(second));
	int error = uffdwp_snapshot_begin_group(regions, (const void *)both, 2, out);

	check_options(&given, error, SNAPSHOT_KNOWN);
	forge_must(error || second == given.sz, "structures of two sizes are refused");
	for (unsigned i = 0; i < 2; i++) {
		if (error)
			forge_must(out[i] == NONE(struct uffdwp_snapshot), "out is written on success only");
		else
			end_snapshot(out[i]);
	}
	forge_must(uffdwp_region_close(regions[1]) == 0, "a region can be closed");
	free(both);
	given_free(&given);
}

static void do_view(struct forge_input *input)
{
	struct uffdwp_view *out = NONE(struct uffdwp_view);
	struct given given;
	uint8_t choice = forge_take8(input);

	enter_error = choice & 1 ? -EPERM : 0;
	given_begin(&given, input, sizeof(struct uffdwp_view_options));
	GIVEN_PUT(&given, struct uffdwp_view_options, cut_enter, choice & 2 ? enter_view : NULL);
	GIVEN_PUT(&given, struct uffdwp_view_options, cut_leave, choice & 4 ? leave : NULL);
	int error = uffdwp_view_open(region, given_end(&given, input), &out);

	check_options(&given, error, 0);
	if (error)
		forge_must(out == NONE(struct uffdwp_view), "out is written on success only");
	else
		forge_must(uffdwp_view_close(out) == 0, "a view can be closed");
	given_free(&given);
}

static void do_track_start(struct forge_input *input)
{
	struct uffdwp_track *out = NONE(struct uffdwp_track);
	struct given given;

	given_begin(&given, input, sizeof(struct uffdwp_track_options));
	int error = uffdwp_track_start(runtime, given_end(&given, input), &out);

	check_options(&given, error,
	              UFFDWP_TRACK_START_POPULATED | UFFDWP_TRACK_START_NO_EVENTS | UFFDWP_TRACK_START_RESET_PROCESS |
	                      UFFDWP_TRACK_START_NO_GAPS);
	if (error)
		forge_must(out == NONE(struct uffdwp_track), "out is written on success only");
	else
		forge_must(uffdwp_track_stop(out) == 0, "a track can be stopped");
	given_free(&given);
}

/* Added, collected into the one place or the other, and removed. */
static void do_collect(struct forge_input *input)
{
	static struct uffdwp_written ranges[4];
	static uint64_t bitmap[8];
	struct given given;
	uint8_t choice = forge_take8(input);
	void *address = choose_address(input);
	uint64_t length = choose_length(input);
	int added = uffdwp_track_add(track, address, length, choice & 8 ? forge_take8(input) : 0);

	given_begin(&given, input, sizeof(struct uffdwp_collect));
	GIVEN_PUT(&given, struct uffdwp_collect, ranges, choice & 1 ? ranges : NULL);
	GIVEN_PUT(&given, struct uffdwp_collect, capacity, (choice >> 4) % 5);
	GIVEN_PUT(&given, struct uffdwp_collect, bitmap, choice & 2 ? bitmap : NULL);
	GIVEN_PUT(&given, struct uffdwp_collect, bitmap_bytes, (choice >> 4) * 4);
	GIVEN_PUT(&given, struct uffdwp_collect, callback, NULL);
	if (choice & 4)
		GIVEN_PUT(&given, struct uffdwp_collect, start, choose_address(input));
	int error = uffdwp_track_collect(track, given_end(&given, input));

	check_options(&given, error, UFFDWP_TRACK_COLLECT_PEEK);
	if (error == -EOVERFLOW || error == -E2BIG || error == -ENOSPC)
		forge_must(!given_is_changed(&given), "a request that is refused is left as it is");
	if (added == 0)
		forge_must(uffdwp_track_remove(track, address, length) == 0, "what was added can be removed");
	given_free(&given);
}

static int note_progress(void *user, uint64_t done, uint64_t total)
{
	(void)user;
	forge_must(done <= total, "no more is done than there is");
	return 0;
}

static void do_restore(struct forge_input *input)
{
	struct uffdwp_restore *out = NONE(struct uffdwp_restore);
	struct given given;
	uint8_t lazily = forge_take8(input) & 1;
	size_t count;
	uint32_t known = UFFDWP_RESTORE_RAW | (lazily ? UFFDWP_RESTORE_BEGIN_ON_DEMAND : 0);
	int error;

	given_begin(&given, input, sizeof(struct uffdwp_restore_options));
	GIVEN_PUT(&given, struct uffdwp_restore_options, path, choose_path(input));
	GIVEN_PUT(&given, struct uffdwp_restore_options, paths, choose_paths(input, &count));
	GIVEN_PUT(&given, struct uffdwp_restore_options, path_count, count);
	uint8_t choice = forge_take8(input);
	uint64_t first[4];

	for (size_t i = 0; i < 4; i++)
		first[i] = forge_take_number(input);
	GIVEN_PUT(&given, struct uffdwp_restore_options, progress, choice & 1 ? note_progress : NULL);
	GIVEN_PUT(&given, struct uffdwp_restore_options, first, choice & 2 ? first : NULL);
	GIVEN_PUT(&given, struct uffdwp_restore_options, first_count, choice & 4 ? choice % 5 : 0);
	void *options = given_end(&given, input);

	error = lazily ? uffdwp_restore_begin(region, options, &out) : uffdwp_restore(region, options, NULL);
	check_options(&given, error, known);
	if (error || !lazily)
		forge_must(out == NONE(struct uffdwp_restore), "out is written on success only");
	else
		forge_must(uffdwp_restore_free(out) == 0, "a restore can be freed");
	given_free(&given);
}

static void do_image_open(struct forge_input *input)
{
	struct uffdwp_image *out = NONE(struct uffdwp_image);
	struct given given;
	size_t count;

	given_begin(&given, input, sizeof(struct uffdwp_image_options));
	GIVEN_PUT(&given, struct uffdwp_image_options, paths, choose_paths(input, &count));
	GIVEN_PUT(&given, struct uffdwp_image_options, path_count, count);
	int error = uffdwp_image_open(choose_path(input), given_end(&given, input), &out);

	check_options(&given, error, UFFDWP_IMAGE_OPEN_RAW);
	if (error)
		forge_must(out == NONE(struct uffdwp_image), "out is written on success only");
	else
		forge_must(uffdwp_image_close(out) == 0, "an image can be closed");
	given_free(&given);
}

static void do_image_write(struct forge_input *input)
{
	struct uffdwp_image *image;
	struct given given;
	int is_merge = forge_take8(input) & 1;
	int error;

	write_image();
	forge_must(uffdwp_image_open(image_path, NULL, &image) == 0, "the image can be opened");
	given_begin(&given, input,
	            is_merge ? sizeof(struct uffdwp_image_merge_options) : sizeof(struct uffdwp_image_diff));
	if (is_merge) {
		error = uffdwp_image_merge(image, forge_take8(input) & 1 ? new_path : image_path,
		                           given_end(&given, input));
	} else {
		GIVEN_PUT(&given, struct uffdwp_image_diff, path, forge_take8(input) & 1 ? new_path : NULL);
		GIVEN_PUT(&given, struct uffdwp_image_diff, callback, NULL);
		error = uffdwp_image_diff(image, image, (void *)given_end(&given, input));
		forge_must(!error || !given_is_changed(&given), "an answer is written on success only");
	}
	check_options(&given, error, is_merge ? UFFDWP_IMAGE_MERGE_BUFFERED : 0);
	given_free(&given);
	forge_must(uffdwp_image_close(image) == 0, "an image can be closed");
}

/* ---- answers ---- */

static int ask_probe(const struct uffdwp_probe *probe, unsigned which, uint32_t index, void *answer)
{
	switch (which % 5) {
	case 0:
		return uffdwp_probe_system(probe, answer);
	case 1:
		return uffdwp_probe_memory(probe, index, answer);
	case 2:
		return uffdwp_probe_trial(probe, index, index >> 16, answer);
	case 3:
		return uffdwp_probe_rung(probe, index, index >> 16, answer);
	default:
		return uffdwp_probe_arming(probe, index, index >> 16, answer);
	}
}

static int ask(unsigned which, struct uffdwp_image *image, uint32_t index, void *answer)
{
	switch (which) {
	case 0:
		return uffdwp_region_info(region, answer);
	case 1:
		return uffdwp_region_stats(region, answer);
	case 2:
		return uffdwp_region_audit(region, answer);
	case 3:
		return uffdwp_track_info(track, answer);
	case 4:
		return uffdwp_image_info(image, index, answer);
	case 5:
		return uffdwp_image_next(image, index, answer);
	default:
		return uffdwp_image_verify(image, answer);
	}
}

static const size_t answer_sizes[] = {sizeof(struct uffdwp_region_info),   sizeof(struct uffdwp_region_stats),
                                      sizeof(struct uffdwp_audit),         sizeof(struct uffdwp_track_info),
                                      sizeof(struct uffdwp_image_info),    sizeof(struct uffdwp_image_extent),
                                      sizeof(struct uffdwp_image_verified)};

static void check_answer(struct given *given, int error)
{
	size_t sz;

	memcpy(&sz, given->bytes, sizeof(sz));
	forge_must(sz == given->sz, "the caller's sz is left as it is");
	forge_must(error >= 0 || !given_is_changed(given), "an answer is written on success only");
	forge_must(error < 0 || given->sz >= 16, "an sz that is none is refused");
	check_text(error);
	given_free(given);
}

static void do_answer(struct forge_input *input)
{
	struct uffdwp_image *image;
	struct given given;
	unsigned which = forge_take8(input) % 7;
	uint32_t index = (uint32_t)forge_take_number(input);

	write_image();
	forge_must(uffdwp_image_open(image_path, NULL, &image) == 0, "the image can be opened");
	given_begin(&given, input, answer_sizes[which]);
	void *answer = given_end(&given, input);

	check_answer(&given, ask(which, image, index, answer));
	forge_must(uffdwp_image_close(image) == 0, "an image can be closed");
}

static const size_t probe_sizes[] = {sizeof(struct uffdwp_probe_system), sizeof(struct uffdwp_probe_memory),
                                     sizeof(struct uffdwp_probe_trial), sizeof(struct uffdwp_probe_rung),
                                     sizeof(struct uffdwp_probe_arming)};

static void do_probe(struct forge_input *input)
{
	static struct uffdwp_probe *probe; /* the trials are made once */
	struct given given;
	unsigned which = forge_take8(input) % 5;
	uint32_t index = (uint32_t)forge_take_number(input);

	forge_must(probe || uffdwp_probe_run(&probe) == 0, "the probe runs");
	given_begin(&given, input, probe_sizes[which]);
	void *answer = given_end(&given, input);

	check_answer(&given, ask_probe(probe, which, index, answer));
}

/* ---- plain arguments ---- */

static void do_ranges(struct forge_input *input)
{
	uint64_t offset = choose_length(input);
	uint64_t length = choose_length(input);
	uint64_t pages = 77;

	(void)text_fail(NULL, -EIO, "%s", never);
	int error = uffdwp_region_armed(region, offset, length, &pages);

	check_text(error);
	forge_must(!error || pages == 77, "out is written on success only");
	(void)text_fail(NULL, -EIO, "%s", never);
	int armed = uffdwp_region_arm(region, offset, length);

	check_text(armed);
	forge_must((armed == 0) == (error == 0), "arm and armed refuse the same ranges");
	(void)uffdwp_prepare_write(region, offset, length);
	error = uffdwp_region_disarm(region, offset, length);
	forge_must(error == armed, "arm and disarm refuse the same ranges");
	(void)text_fail(NULL, -EIO, "%s", never);
	error = uffdwp_region_punch(region, offset, length);
	check_text(error);
	forge_must(error == armed, "arm and punch refuse the same ranges");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const functions[])(struct forge_input *) = {
	        do_open,    do_create,  do_attach,     do_snapshot,    do_group,  do_view,  do_track_start,
	        do_collect, do_restore, do_image_open, do_image_write, do_answer, do_probe, do_ranges};
	struct forge_input input = {data, size};

	functions[forge_take8(&input) % (sizeof(functions) / sizeof(functions[0]))](&input);
	return 0;
}
