/* SPDX-License-Identifier: MIT */
/*
 * Snapshots to a network block device: the export is the region at its cut, byte for byte; its first block says at
 * every moment whether it is (INV-COMMIT); servers that refuse, that are slow, silent or killed fail the snapshot with
 * a text and resume every writer.
 *
 * Second witnesses: nbdcopy, the server's file, and the server's own log of requests.
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/text.h"
#include "chance.h"
#include "nbdkit.h"
#include "place.h"
#include "snapshot/nbdlink.h"
#include "support.h"

#define PAGES_MANY 1024
#define BEYOND 65536
#define OLD 0xa5
#define SIZE_TEXT 32

static struct place place;
static struct nbdkit server;
static char folder[SCRATCH_PATH];
static char file[SCRATCH_PATH];
static char size_text[SIZE_TEXT];
static uint8_t *cut;

static void setup(void)
{
	scratch_folder(folder);
	scratch_join(file, folder, "export");
}

static void teardown(void)
{
	if (cut != NULL) {
		place_close(&place);
	}
	nbdkit_kill(&server);
	free(cut);
}

/* --- the region and its server ---------------------------------------------------------------------------------- */

/* Data, short gaps, holes, and pages of zeros that are no holes. */
static void fill(void)
{
	struct chance chance = chance_new(1);
	for (size_t page = 0; page < place.pages; page++) {
		uint8_t *at = place.base + page * place.page_bytes;
		switch (chance_below(&chance, 6)) {
		case 0:
			break; /* a hole */
		case 1:
			((volatile uint8_t *)at)[5] = 0;
			break;
		case 2:
			at[place.page_bytes - 1] = 7;
			break;
		default:
			chance_fill(&chance, at, place.page_bytes);
		}
	}
	memcpy(place.base, "the first block", 15);
}

static int open_place(struct place_case which)
{
	if (!place_possible(which)) {
		return 0;
	}
	place_open(&place, which, which.memory == UFFDWP_MEMORY_HUGETLB ? 16 : PAGES_MANY);
	fill();
	cut = malloc(place.length_bytes);
	ck_assert_ptr_nonnull(cut);
	memcpy(cut, place.base, place.length_bytes);
	(void)snprintf(size_text, sizeof(size_text), "%zu", place.length_bytes + BEYOND);
	return 1;
}

static void open_shmem(void)
{
	ck_assert_int_eq(open_place(place_any(UFFDWP_MEMORY_SHMEM)), 1);
}

static void serve(const char *const *arguments)
{
	nbdkit_start(&server, folder, arguments);
}

#define SERVE(...) serve((const char *const[]){__VA_ARGS__, NULL})

/* An export that had content before, under some filters. */
static void make_file(void)
{
	size_t length = place.length_bytes + BEYOND;
	uint8_t *old = malloc(length);
	ck_assert_ptr_nonnull(old);
	memset(old, OLD, length);
	scratch_write(file, old, length);
	free(old);
}

static void read_file(uint8_t *to, size_t length)
{
	int fd = open(file, O_RDONLY | O_CLOEXEC);
	must(fd >= 0);
	must(pread(fd, to, length, 0) == (ssize_t)length);
	close(fd);
}

static struct uffdwp_snapshot_options options_of(const char *uri)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	options.sink = UFFDWP_SINK_NBD;
	options.path = uri;
	return options;
}

static struct uffdwp_snapshot *begin(const struct uffdwp_snapshot_options *options)
{
	struct uffdwp_snapshot *snapshot = NULL;
	int error = uffdwp_snapshot_begin(place.region, options, &snapshot);
	if (error != 0) {
		char text[512];
		uffdwp_error_text(text, sizeof(text));
		fprintf(stderr, "%s: %s\n", strerror(-error), text);
	}
	must(error == 0);
	return snapshot;
}

static struct uffdwp_snapshot *begin_here(void)
{
	struct uffdwp_snapshot_options options = options_of(server.uri);
	return begin(&options);
}

static void write_everywhere(uint8_t value)
{
	for (size_t page = 0; page < place.pages; page++) {
		((volatile uint8_t *)place.base)[page * place.page_bytes + 100] = value;
	}
}

static void expect_committed(struct uffdwp_snapshot *snapshot)
{
	char text[512] = "";
	int result = uffdwp_snapshot_wait(snapshot, -1, NULL);
	uffdwp_snapshot_text(snapshot, text, sizeof(text));
	if (result != 0) {
		fprintf(stderr, "%s: %s\n", strerror(-result), text);
	}
	must(result == 0);
	must(uffdwp_snapshot_free(snapshot) == 0);
}

/* `named`: what the text has to say. No page is left armed and no writer is stopped any more. */
static void expect_failed(struct uffdwp_snapshot *snapshot, int error, const char *named)
{
	char text[512] = "";
	int result = uffdwp_snapshot_wait(snapshot, -1, NULL);
	uffdwp_snapshot_text(snapshot, text, sizeof(text));
	if (result != error || strstr(text, named) == NULL) {
		fprintf(stderr, "expected %d and \"%s\", got %d: %s\n", error, named, result, text);
	}
	must(result == error);
	must(strstr(text, named) != NULL);
	must(uffdwp_snapshot_free(snapshot) == 0);
	must(place_ledger(&place) == 0);
	must(place_agrees(&place));
	uint64_t faults = place_stats(&place).faults;
	write_everywhere(0x77);
	must(place_stats(&place).faults == faults);
}

/* The first `length` bytes are those of the cut, zeros follow up to the end of a block of the server, and what lies
 * beyond is as it was. */
static void expect_file_is_cut(size_t length, size_t block)
{
	size_t whole = (length + block - 1) / block * block;
	uint8_t *bytes = malloc(place.length_bytes + BEYOND);
	ck_assert_ptr_nonnull(bytes);
	read_file(bytes, place.length_bytes + BEYOND);
	must(memcmp(bytes, cut, length) == 0);
	for (size_t at = length; at < place.length_bytes + BEYOND; at++) {
		must(bytes[at] == (at < whole ? 0 : OLD));
	}
	free(bytes);
}

static int starts_with_label(void *ignored)
{
	char start[sizeof(UFFDWP_NBD_UNFINISHED)] = "";
	(void)ignored;
	read_file((uint8_t *)start, sizeof(start) - 1);
	return strcmp(start, UFFDWP_NBD_UNFINISHED) == 0;
}

static int is_old(void)
{
	uint8_t start[4096];
	read_file(start, sizeof(start));
	return start[0] == OLD && memcmp(start, start + 1, sizeof(start) - 1) == 0;
}

/* --- images ----------------------------------------------------------------------------------------------------- */

START_TEST(test_export_is_the_region_at_the_cut)
{
	if (!open_place(place_auto_case(_i))) {
		return;
	}
	SERVE("memory", size_text);
	struct uffdwp_snapshot *snapshot = begin_here();
	write_everywhere(1);
	expect_committed(snapshot);
	uint8_t *bytes = malloc(place.length_bytes);
	ck_assert_ptr_nonnull(bytes);
	nbdkit_read(&server, folder, bytes, place.length_bytes);
	ck_assert_int_eq(memcmp(bytes, cut, place.length_bytes), 0);
	free(bytes);
}
END_TEST

static const char *const refinements[][4] = {
        {"--filter=nozero", NULL},
        {"--filter=nozero", "zeromode=emulate", NULL},
        {"--filter=blocksize-policy", "blocksize-minimum=4096", "blocksize-maximum=64k", NULL},
};

#define REFINEMENTS ((int)(sizeof(refinements) / sizeof(refinements[0])))

/* Servers that cannot write zeros, or have limits; nbdkit's parameters follow the plugin. */
START_TEST(test_old_content_is_replaced_by_holes)
{
	open_shmem();
	make_file();
	const char *const *more = _i < REFINEMENTS ? refinements[_i] : (const char *const[]){NULL, NULL, NULL};
	if (more[0] == NULL) {
		SERVE("file", file);
	} else {
		SERVE(more[0], "file", file, more[1] ? more[1] : "fadvise=normal",
		      more[1] && more[2] ? more[2] : "cache=default");
	}
	struct uffdwp_snapshot *snapshot = begin_here();
	write_everywhere(1);
	expect_committed(snapshot);
	expect_file_is_cut(place.length_bytes, 1);
}
END_TEST

static const size_t shorter[] = {1000, 4095, 1, 512, 4096 * (PAGES_MANY - 1) - 100};

#define SHORTER ((int)(sizeof(shorter) / sizeof(shorter[0])))

/* By any server, and by one that takes whole blocks only. */
START_TEST(test_last_page_may_be_cut)
{
	open_shmem();
	make_file();
	if (_i < SHORTER) {
		SERVE("file", file);
	} else {
		SERVE("--filter=blocksize-policy", "file", file, "blocksize-minimum=512",
		      "blocksize-error-policy=error");
	}
	struct uffdwp_snapshot_options options = options_of(server.uri);
	options.length = place.length_bytes - shorter[_i % SHORTER];
	expect_committed(begin(&options));
	expect_file_is_cut(options.length, _i < SHORTER ? 1 : 512);
}
END_TEST

START_TEST(test_image_shorter_than_a_block)
{
	open_shmem();
	SERVE("memory", "10");
	struct uffdwp_snapshot_options options = options_of(server.uri);
	options.length = 10;
	expect_committed(begin(&options));
	uint8_t bytes[10];
	nbdkit_read(&server, folder, bytes, sizeof(bytes));
	ck_assert_int_eq(memcmp(bytes, cut, sizeof(bytes)), 0);
}
END_TEST

START_TEST(test_slow_server_makes_writers_wait_only_for_memory)
{
	open_shmem();
	SERVE("--filter=delay", "memory", size_text, "wdelay=20ms");
	struct uffdwp_snapshot_options options = options_of(server.uri);
	options.pool_bytes = 64 * place.page_bytes;
	struct uffdwp_snapshot *snapshot = begin(&options);
	write_everywhere(1);
	expect_committed(snapshot);
	uint8_t *bytes = malloc(place.length_bytes);
	ck_assert_ptr_nonnull(bytes);
	nbdkit_read(&server, folder, bytes, place.length_bytes);
	ck_assert_int_eq(memcmp(bytes, cut, place.length_bytes), 0);
	free(bytes);
}
END_TEST

/* A pre-shared key in a file that the URI names. */
START_TEST(test_encrypted)
{
	char key[SCRATCH_PATH];
	char option[SCRATCH_PATH + 16];
	char uri[SCRATCH_PATH * 3];
	open_shmem();
	scratch_join(key, folder, "keys");
	scratch_write(key, "alice:00112233445566778899aabbccddeeff\n", 39);
	(void)snprintf(option, sizeof(option), "--tls-psk=%s", key);
	SERVE("--tls=require", option, "memory", size_text);
	(void)snprintf(uri, sizeof(uri), "nbds+unix://alice@/?socket=%s&tls-psk-file=%s", server.socket, key);
	struct uffdwp_snapshot_options options = options_of(uri);
	struct uffdwp_snapshot *snapshot = begin(&options);
	write_everywhere(1);
	expect_committed(snapshot);
}
END_TEST

/* --- INV-COMMIT -------------------------------------------------------------------------------------------------- */

/* What the server was asked for, in its order: w: a write of the head, f: a flush, .: others, once in a row. */
static void read_log(const char *path, char *story, size_t size)
{
	char line[512];
	size_t length = 0;
	FILE *log = fopen(path, "re");
	must(log != NULL);
	while (fgets(line, sizeof(line), log) != NULL) {
		int head = strstr(line, " Write id") != NULL && strstr(line, "offset=0x0 ") != NULL;
		int other = strstr(line, " Write id") != NULL || strstr(line, " Zero id") != NULL;
		int flush = strstr(line, " Flush id") != NULL;
		char what = head ? 'w' : other ? '.' : flush ? 'f' : 0;
		if (what != 0 && (what != '.' || length == 0 || story[length - 1] != '.')) {
			must(length + 1 < size);
			story[length++] = what;
		}
	}
	story[length] = '\0';
	must(fclose(log) == 0);
}

START_TEST(test_head_comes_first_and_last)
{
	char log[SCRATCH_PATH];
	char option[SCRATCH_PATH + 16];
	char story[32];
	open_shmem();
	scratch_join(log, folder, "log");
	(void)snprintf(option, sizeof(option), "logfile=%s", log);
	SERVE("--filter=log", "memory", size_text, option);
	struct uffdwp_snapshot *snapshot = begin_here();
	write_everywhere(1);
	expect_committed(snapshot);
	ck_assert_int_eq(kill(server.pid, SIGTERM), 0);
	ck_assert_int_eq(waitpid(server.pid, NULL, 0), server.pid);
	server.pid = 0;
	read_log(log, story, sizeof(story));
	ck_assert_str_eq(story, "wf.fwf");
}
END_TEST

static int has_written(void *argument)
{
	struct uffdwp_snapshot_progress progress = {.sz = sizeof(progress)};
	must(uffdwp_snapshot_poll(argument, &progress) == 0);
	return progress.bytes_written > 0 || progress.state != UFFDWP_SNAPSHOT_STATE_RUNNING;
}

/* Each write takes half a second: there are many more when the first has come through. */
static struct uffdwp_snapshot *begin_slow_file(void)
{
	struct uffdwp_snapshot_options options = options_of("");
	make_file();
	SERVE("--filter=noparallel", "--filter=delay", "file", file, "wdelay=500ms");
	options.path = server.uri;
	options.pool_bytes = place.length_bytes * 2;
	struct uffdwp_snapshot *snapshot = begin(&options);
	must(wait_until(has_written, snapshot, 30));
	return snapshot;
}

START_TEST(test_server_killed_in_the_middle)
{
	if (!open_place(place_auto_case(_i))) {
		return;
	}
	struct uffdwp_snapshot *snapshot = begin_slow_file();
	write_everywhere(1);
	nbdkit_kill(&server);
	expect_failed(snapshot, -ENOTCONN, "lost");
	ck_assert_int_eq(starts_with_label(NULL), 1);
}
END_TEST

START_TEST(test_aborted_in_the_middle)
{
	open_shmem();
	struct uffdwp_snapshot *snapshot = begin_slow_file();
	ck_assert_int_eq(uffdwp_snapshot_abort(snapshot), 0);
	expect_failed(snapshot, -ECANCELED, "aborted");
	ck_assert_int_eq(starts_with_label(NULL), 1);
	/* nor does its file, or a copy, pass for an image */
	struct uffdwp_image *image = NULL;
	char text[512] = "";
	ck_assert_int_eq(uffdwp_image_open(file, NULL, &image), -EBADMSG);
	(void)uffdwp_error_text(text, sizeof(text));
	ck_assert_ptr_nonnull(strstr(text, "not finished"));
}
END_TEST

static void snapshot_for_ever(void *ignored)
{
	(void)ignored;
	place_open(&place, place_any(UFFDWP_MEMORY_SHMEM), PAGES_MANY);
	place_touch(&place);
	struct uffdwp_snapshot *snapshot = begin_here();
	(void)uffdwp_snapshot_wait(snapshot, -1, NULL);
}

START_TEST(test_program_killed_in_the_middle)
{
	open_shmem();
	make_file();
	SERVE("--filter=delay", "file", file, "wdelay=1");
	pid_t child = fork();
	if (child == 0) {
		snapshot_for_ever(NULL);
		_exit(0);
	}
	ck_assert_int_gt(child, 0);
	ck_assert_int_eq(wait_until(starts_with_label, NULL, 30), 1);
	ck_assert_int_eq(kill(child, SIGKILL), 0);
	ck_assert_int_eq(waitpid(child, NULL, 0), child);
	ck_assert_int_eq(starts_with_label(NULL), 1);
}
END_TEST

/* --- servers that refuse or are silent ---------------------------------------------------------------------------- */

/* Writes are refused from the start, or when the label and more have come through. */
static void refuse_writes(const char *errno_name, int late, int error, const char *named)
{
	char what[64];
	char when[SCRATCH_PATH + 32];
	char trigger[SCRATCH_PATH];
	make_file();
	scratch_join(trigger, folder, "now");
	(void)snprintf(what, sizeof(what), "error-pwrite=%s", errno_name);
	(void)snprintf(when, sizeof(when), "error-pwrite-file=%s", trigger);
	if (!late) {
		scratch_write(trigger, "", 0);
	}
	SERVE("--filter=noparallel", "--filter=error", "--filter=delay", "file", file, "wdelay=100ms", what,
	      "error-pwrite-rate=100%", when);
	struct uffdwp_snapshot *snapshot = begin_here();
	write_everywhere(1);
	must(!late || wait_until(has_written, snapshot, 30));
	scratch_write(trigger, "", 0);
	expect_failed(snapshot, error, named);
}

/* A server in shell, whose flush fails once there is a file. */
static void refuse_flushes(int late)
{
	char write[SCRATCH_PATH + 128];
	char flush[SCRATCH_PATH + 128];
	char trigger[SCRATCH_PATH];
	char size[SIZE_TEXT + 16];
	make_file();
	scratch_join(trigger, folder, "now");
	(void)snprintf(write, sizeof(write), "pwrite=dd of=%s oflag=seek_bytes seek=$4 conv=notrunc bs=64k status=none",
	               file);
	(void)snprintf(flush, sizeof(flush), "flush=if [ -e %s ]; then echo EIO >&2; exit 1; fi", trigger);
	(void)snprintf(size, sizeof(size), "get_size=echo %s", size_text);
	if (!late) {
		scratch_write(trigger, "", 0);
	}
	SERVE("eval", size, "pread=exit 1", write, flush);
	struct uffdwp_snapshot *snapshot = begin_here();
	must(!late || wait_until(has_written, snapshot, 30));
	scratch_write(trigger, "", 0);
	expect_failed(snapshot, -EIO, "refused a flush");
}

START_TEST(test_server_refuses_the_label)
{
	open_shmem();
	refuse_writes("ENOSPC", 0, -ENOSPC, "refused a write at byte 0");
	ck_assert_int_eq(is_old(), 1);
}
END_TEST

START_TEST(test_server_refuses_in_the_middle)
{
	open_shmem();
	refuse_writes("EIO", 1, -EIO, strerror(EIO));
	ck_assert_int_eq(starts_with_label(NULL), 1);
}
END_TEST

START_TEST(test_server_refuses_to_flush)
{
	open_shmem();
	refuse_flushes(_i);
	ck_assert_int_eq(starts_with_label(NULL), 1);
}
END_TEST

/* Nothing comes back for ten minutes. */
static struct uffdwp_snapshot *begin_silent(uint64_t wait_ns)
{
	SERVE("--filter=delay", "memory", size_text, "wdelay=600");
	struct uffdwp_snapshot_options options = options_of(server.uri);
	options.pool_bytes = 16 * place.page_bytes;
	options.wait_ns = wait_ns;
	return begin(&options);
}

START_TEST(test_silent_server_stalls_writers_for_wait_ns_only)
{
	if (open_place(place_auto_case(_i))) {
		struct uffdwp_snapshot *snapshot = begin_silent(100000000);
		write_everywhere(1);
		expect_failed(snapshot, -ETIME, "a writer waited");
	}
}
END_TEST

START_TEST(test_silent_server_does_not_hold_free)
{
	if (open_place(place_auto_case(_i))) {
		ck_assert_int_eq(uffdwp_snapshot_free(begin_silent(0)), 0);
		ck_assert_uint_eq(place_ledger(&place), 0);
	}
}
END_TEST

START_TEST(test_full_pool_under_policy_abort)
{
	open_shmem();
	SERVE("--filter=delay", "memory", size_text, "wdelay=600");
	struct uffdwp_snapshot_options options = options_of(server.uri);
	options.pool_bytes = 16 * place.page_bytes;
	options.policy = UFFDWP_POLICY_ABORT;
	struct uffdwp_snapshot *snapshot = begin(&options);
	write_everywhere(1);
	expect_failed(snapshot, -ENOBUFS, "pool was full");
}
END_TEST

/* --- what begin refuses ------------------------------------------------------------------------------------------- */

static void expect_refused(const struct uffdwp_snapshot_options *options, int error, const char *named)
{
	struct uffdwp_snapshot *snapshot = NULL;
	char text[512] = "";
	size_t files = scratch_open_files();
	int result = uffdwp_snapshot_begin(place.region, options, &snapshot);
	uffdwp_error_text(text, sizeof(text));
	if (result != error || strstr(text, named) == NULL) {
		fprintf(stderr, "expected %d and \"%s\", got %d: %s\n", error, named, result, text);
	}
	must(result == error);
	must(strstr(text, named) != NULL);
	must(snapshot == NULL);
	must(scratch_open_files() == files);
	must(place_ledger(&place) == 0);
}

static void expect_uri_refused(const char *uri, int error, const char *named)
{
	struct uffdwp_snapshot_options options = options_of(uri);
	expect_refused(&options, error, named);
}

START_TEST(test_wrong_uris)
{
	open_shmem();
	expect_uri_refused(NULL, -EINVAL, "URI");
	expect_uri_refused("", -EINVAL, "URI");
	expect_uri_refused("nbd+unix:///?socket=/nowhere/socket", -ENOENT, "/nowhere/socket");
	expect_uri_refused("nbd://127.0.0.1:1/", -ECONNREFUSED, "127.0.0.1");
	expect_uri_refused("http://127.0.0.1/", -EINVAL, "http");
	expect_uri_refused("image.raw", -EINVAL, "image.raw");
	SERVE("--filter=exportname", "memory", size_text, "exportname=good", "exportname-strict=true");
	char uri[SCRATCH_PATH * 2];
	(void)snprintf(uri, sizeof(uri), "nbd+unix:///bad?socket=%s", server.socket);
	expect_uri_refused(uri, -ENOENT, "bad");
	(void)snprintf(uri, sizeof(uri), "nbd+unix:///good?socket=%s", server.socket);
	struct uffdwp_snapshot_options options = options_of(uri);
	expect_committed(begin(&options));
}
END_TEST

START_TEST(test_export_is_no_link_of_a_chain)
{
	open_shmem();
	SERVE("memory", size_text);
	struct uffdwp_snapshot_options options = options_of(server.uri);
	options.parent = file;
	expect_refused(&options, -EINVAL, "image sink");
	options.parent = NULL;
	options.flags = UFFDWP_SNAPSHOT_KEEP;
	expect_committed(begin(&options));
	make_file();
	char delta[SCRATCH_PATH];
	scratch_join(delta, folder, "delta");
	options.sink = UFFDWP_SINK_IMAGE;
	options.path = delta;
	options.parent = file;
	struct uffdwp_snapshot *snapshot = NULL;
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, &snapshot), -EXDEV);
}
END_TEST

static int longer_cut(void *user, uint64_t *length)
{
	*length = *(const uint64_t *)user;
	return 0;
}

static void nothing(void *user)
{
	(void)user;
}

START_TEST(test_small_export)
{
	char small[SIZE_TEXT];
	open_shmem();
	(void)snprintf(small, sizeof(small), "%zu", place.length_bytes - 1);
	SERVE("memory", small);
	expect_uri_refused(server.uri, -ENOSPC, small);
	/* the length that counts is that of the cut */
	uint64_t all = place.length_bytes;
	struct uffdwp_snapshot_options options = options_of(server.uri);
	options.length = 4096;
	options.cut_enter = longer_cut;
	options.cut_leave = nothing;
	options.cut_user = &all;
	expect_refused(&options, -ENOSPC, "beyond what the sink has");
	options.length = place.length_bytes - 1;
	options.cut_enter = NULL;
	options.cut_leave = NULL;
	expect_committed(begin(&options));
}
END_TEST

START_TEST(test_exports_that_cannot_serve)
{
	open_shmem();
	SERVE("-r", "memory", size_text);
	expect_uri_refused(server.uri, -EROFS, "read-only");
	nbdkit_kill(&server);
	SERVE("eval", "get_size=echo 1G", "pread=exit 1", "pwrite=cat >/dev/null", "can_write=exit 0",
	      "can_flush=exit 3");
	expect_uri_refused(server.uri, -EOPNOTSUPP, "cannot flush");
	nbdkit_kill(&server);
	SERVE("--filter=blocksize-policy", "memory", "1G", "blocksize-minimum=64k", "blocksize-preferred=64k");
	expect_uri_refused(server.uri, -EOPNOTSUPP, "65536");
}
END_TEST

/* A server listens and never says a word. */
START_TEST(test_server_that_never_answers)
{
	open_shmem();
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	ck_assert_int_eq(listen(fd, 5), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&address, &length), 0);
	char uri[64];
	(void)snprintf(uri, sizeof(uri), "nbd://127.0.0.1:%u/", (unsigned)ntohs(address.sin_port));
	expect_uri_refused(uri, -ETIMEDOUT, "did not answer");
	close(fd);
}
END_TEST

/* libnbd is hidden, in a mount namespace of the child's own. */
static void try_without_libnbd(void *ignored)
{
	(void)ignored;
	glob_t found = {0};
	if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
	    glob("/usr/lib*/libnbd.so.0", 0, NULL, &found) == GLOB_NOSPACE ||
	    glob("/usr/lib/*/libnbd.so.0", GLOB_APPEND, NULL, &found) != 0) {
		support_note("test_without_libnbd", strerror(errno));
		return;
	}
	for (size_t i = 0; i < found.gl_pathc; i++) {
		must(mount("/dev/null", found.gl_pathv[i], NULL, MS_BIND, NULL) == 0);
	}
	globfree(&found);
	expect_uri_refused("nbd://127.0.0.1/", -EOPNOTSUPP, "install");
}

static void open_and_try_without_libnbd(void *ignored)
{
	place_open(&place, place_any(UFFDWP_MEMORY_SHMEM), 4);
	try_without_libnbd(ignored);
	place_close(&place);
}

START_TEST(test_without_libnbd)
{
	ck_assert_int_eq(child_run(open_and_try_without_libnbd, NULL), 0);
}
END_TEST

/* --- a link by itself ----------------------------------------------------------------------------------------------
 */

START_TEST(test_link_reads_what_a_snapshot_wrote)
{
	struct nbdlink link = {0};
	struct nbdlink_answer answer;
	struct text text;
	open_shmem();
	SERVE("memory", size_text);
	expect_committed(begin_here());
	text_init(&text);
	ck_assert_int_eq(nbdlink_open(server.uri, &text, &link), 0);
	ck_assert_uint_eq(link.size_bytes, place.length_bytes + BEYOND);
	uint8_t *bytes = malloc(place.length_bytes);
	ck_assert_ptr_nonnull(bytes);
	ck_assert_int_eq(nbdlink_read(&link, bytes, place.length_bytes, 0, &answer), 0);
	while (!answer.done) {
		ck_assert_int_eq(nbdlink_wait(&link, 1000), 0);
	}
	ck_assert_int_eq(answer.error, 0);
	ck_assert_int_eq(memcmp(bytes, cut, place.length_bytes), 0);
	free(bytes);
	nbdlink_close(&link);
	nbdlink_close(&link);
	text_fini(&text);
}
END_TEST

int main(void)
{
	support_begin("test_nbd", &(struct support_needs){.huge_pages = 20, .swap = 0});
	if (!nbdkit_here()) {
		return support_skip("nbdkit or nbdcopy is missing (packages nbdkit, libnbd-bin)");
	}
	place_begin();
	Suite *suite = suite_create("network block devices");
	TCase *tests = tcase_create("network block devices");
	tcase_set_timeout(tests, 60);
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_loop_test(tests, test_export_is_the_region_at_the_cut, 0, PLACE_AUTO_CASES);
	tcase_add_loop_test(tests, test_old_content_is_replaced_by_holes, 0, REFINEMENTS + 1);
	tcase_add_loop_test(tests, test_last_page_may_be_cut, 0, 2 * SHORTER);
	tcase_add_test(tests, test_image_shorter_than_a_block);
	tcase_add_test(tests, test_slow_server_makes_writers_wait_only_for_memory);
	tcase_add_test(tests, test_encrypted);
	tcase_add_test(tests, test_head_comes_first_and_last);
	tcase_add_loop_test(tests, test_server_killed_in_the_middle, 0, PLACE_AUTO_CASES);
	tcase_add_test(tests, test_aborted_in_the_middle);
	tcase_add_test(tests, test_program_killed_in_the_middle);
	tcase_add_test(tests, test_server_refuses_the_label);
	tcase_add_test(tests, test_server_refuses_in_the_middle);
	tcase_add_loop_test(tests, test_server_refuses_to_flush, 0, 2);
	tcase_add_loop_test(tests, test_silent_server_stalls_writers_for_wait_ns_only, 0, PLACE_AUTO_CASES);
	tcase_add_loop_test(tests, test_silent_server_does_not_hold_free, 0, PLACE_AUTO_CASES);
	tcase_add_test(tests, test_full_pool_under_policy_abort);
	tcase_add_test(tests, test_wrong_uris);
	tcase_add_test(tests, test_export_is_no_link_of_a_chain);
	tcase_add_test(tests, test_small_export);
	tcase_add_test(tests, test_exports_that_cannot_serve);
	tcase_add_test(tests, test_server_that_never_answers);
	tcase_add_test(tests, test_without_libnbd);
	tcase_add_test(tests, test_link_reads_what_a_snapshot_wrote);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
