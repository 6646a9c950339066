/* SPDX-License-Identifier: MIT */
/*
 * uffdwp-ctl asks a process of the library's own: this one. What it prints is compared with what the library answers by
 * its interface, an image with the memory. Skipped where the library has no control sockets.
 */
#include <fcntl.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "place.h"
#include "scratch.h"
#include "support.h"

#define OUTPUT_BYTES (1 << 20)
#define PAGES 256

static char folder[SCRATCH_PATH];
static char output[OUTPUT_BYTES];
static struct place place;
static unsigned long long region; /* its number */

/* ------------------------------------------------------------------------------------------------- the program -- */

/* In a child: by a shell, since what is run may be a pipe. */
static _Noreturn void ctl_become(const char *command, int to)
{
	must(dup2(to, STDOUT_FILENO) == STDOUT_FILENO && dup2(to, STDERR_FILENO) == STDERR_FILENO);
	execl("/bin/sh", "sh", "-c", command, (char *)NULL);
	_exit(127);
}

static void ctl_read(int from)
{
	size_t length = 0;
	ssize_t more;

	while ((more = read(from, output + length, sizeof(output) - 1 - length)) > 0)
		length += (size_t)more;
	output[length] = '\0';
}

/* Runs "uffdwp-ctl ..." with both streams in `output`; returns its exit code. Not while another thread does. */
__attribute__((format(printf, 1, 2))) static int ctl(const char *format, ...)
{
	char command[2048] = "timeout 100 \"$UFFDWP_CTL\" ";
	size_t used = strlen(command);
	va_list list;
	int pipes[2];
	int status;

	va_start(list, format);
	(void)vsnprintf(command + used, sizeof(command) - used, format, list);
	va_end(list);
	must(pipe2(pipes, O_CLOEXEC) == 0);
	pid_t child = fork();

	must(child >= 0);
	if (child == 0)
		ctl_become(command, pipes[1]);
	close(pipes[1]);
	ctl_read(pipes[0]);
	close(pipes[0]);
	must(waitpid(child, &status, 0) == child && WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void expect(int code, int expected, const char *words)
{
	if (code != expected || !strstr(output, words))
		ck_abort_msg("it ended with %d, expected %d and \"%s\":\n%s", code, expected, words, output);
}

static struct json_object *ctl_region(struct json_object **all)
{
	expect(ctl("stat --json %d:%llu", (int)getpid(), region), 0, "\"regions\"");
	*all = json_tokener_parse(output);
	ck_assert_ptr_nonnull(*all);
	struct json_object *processes = json_object_object_get(*all, "processes");

	ck_assert_uint_eq(json_object_array_length(processes), 1);
	struct json_object *regions = json_object_object_get(json_object_array_get_idx(processes, 0), "regions");

	ck_assert_uint_eq(json_object_array_length(regions), 1);
	return json_object_array_get_idx(regions, 0);
}

/* --------------------------------------------------------------------------------------------------- fixtures -- */

static void open_with(const char *allowed)
{
	char target[64];

	must(setenv("UFFDWP_CONTROL", allowed, 1) == 0);
	place_open(&place, place_any(UFFDWP_MEMORY_SHMEM), PAGES);
	(void)snprintf(target, sizeof(target), "%d:", (int)getpid());
	(void)ctl("list --targets"); /* other programs of this machine may refuse */
	expect(0, 0, target);
	must(sscanf(strstr(output, target) + strlen(target), "%llu", &region) == 1);
}

static void open_all(void)
{
	open_with("look,snapshot,arm");
}

static void close_all(void)
{
	place_close(&place);
}

/* ------------------------------------------------------------------------------------------------------- tests -- */

START_TEST(test_the_process_is_listed_with_its_region)
{
	char row[128];

	(void)snprintf(row, sizeof(row), "%d  ", (int)getpid());
	(void)ctl("list");
	expect(0, 0, row);
	expect(0, 0, "shmem");
	expect(0, 0, place_mechanism_name(place.mechanism));
	expect(ctl("stat %d:%llu", (int)getpid(), region + 1), 3, "has no region");
}
END_TEST

START_TEST(test_its_figures_are_those_of_the_interface)
{
	struct uffdwp_region_stats stats = {.sz = sizeof(stats)};
	struct json_object *all = NULL;

	ck_assert_int_eq(uffdwp_region_arm(place.region, 0, place.length_bytes), 0);
	for (size_t page = 0; page < 7; page++)
		place.base[page * place.page_bytes] = 1;
	struct json_object *shown = ctl_region(&all);

	ck_assert_int_eq(uffdwp_region_stats(place.region, &stats), 0);
	ck_assert_uint_eq(json_object_get_uint64(json_object_object_get(shown, "faults")), stats.faults);
	ck_assert_uint_eq(json_object_get_uint64(json_object_object_get(shown, "pages_disarmed")),
	                  stats.pages_disarmed);
	ck_assert_uint_eq(json_object_get_uint64(json_object_object_get(shown, "armed_pages")),
	                  place.pages - stats.pages_disarmed);
	json_object_put(all);
}
END_TEST

START_TEST(test_pages_are_armed_and_disarmed)
{
	int pid = (int)getpid();

	expect(ctl("arm %d:%llu 0 %zu", pid, region, 16 * place.page_bytes), 0, " 16 pages are armed now");
	expect(ctl("disarm %d:%llu 0 %zu", pid, region, 4 * place.page_bytes), 0, " 12 pages are armed now");
	expect(ctl("arm %d:%llu 0 1T", pid, region), 1, "(ERANGE)");
}
END_TEST

START_TEST(test_a_snapshot_has_the_memory)
{
	static uint8_t image[PAGES * 65536];
	char path[SCRATCH_PATH];

	for (size_t i = 0; i < place.length_bytes; i++)
		place.base[i] = (uint8_t)(i * 7 + i / place.page_bytes);
	scratch_join(path, folder, "image.raw");
	expect(ctl("snapshot %d:%llu '%s' --mode 640", (int)getpid(), region, path), 0, "is complete");
	ck_assert_uint_le(place.length_bytes, sizeof(image));
	ck_assert(scratch_read(path, image, place.length_bytes));
	ck_assert(memcmp(image, place.base, place.length_bytes) == 0);
	expect(ctl("stat %d:%llu", (int)getpid(), region), 0, "committed, begun by control");
	scratch_join(path, folder, "no such folder/image.raw");
	expect(ctl("snapshot %d:%llu '%s'", (int)getpid(), region, path), 1, "no such folder");
}
END_TEST

START_TEST(test_a_snapshot_beside_one_of_the_program_is_refused_in_words_of_the_tool)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot;
	char path[SCRATCH_PATH];
	char image[SCRATCH_PATH];

	scratch_join(path, folder, "own.raw");
	scratch_join(image, folder, "image.raw");
	options.path = path;
	options.rate_bytes = 1;
	memset(place.base, 1, place.length_bytes);
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, &snapshot), 0);
	expect(ctl("snapshot %d:%llu '%s'", (int)getpid(), region, image), 1, "is under way (begun by the program;");
	ck_assert_ptr_null(strstr(output, "uffdwp_"));
	expect(ctl("abort %d:%llu", (int)getpid(), region), 0, "asked to end");
	(void)uffdwp_snapshot_wait(snapshot, -1, NULL);
	expect(ctl("snapshot %d:%llu '%s'", (int)getpid(), region, image), 1, "the program has not released it");
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	expect(ctl("snapshot %d:%llu '%s'", (int)getpid(), region, image), 0, "is complete");
}
END_TEST

static atomic_int in_cut;

static int stay_in_cut(void *user)
{
	(void)user;
	atomic_store(&in_cut, 1);
	sleep_us(1500000); /* longer than the tool takes to ask, as a rule: it asks again */
	return 0;
}

static void leave_cut(void *user)
{
	(void)user;
}

static void *view_slowly(void *argument)
{
	struct uffdwp_view_options options = UFFDWP_VIEW_OPTIONS_INIT;
	struct uffdwp_view *view;

	(void)argument;
	options.cut_enter = stay_in_cut;
	options.cut_leave = leave_cut;
	must(uffdwp_view_open(place.region, &options, &view) == 0);
	must(uffdwp_view_close(view) == 0);
	return NULL;
}

START_TEST(test_a_snapshot_begins_once_the_cut_of_a_view_is_over)
{
	char path[SCRATCH_PATH];
	pthread_t thread = thread_start(view_slowly, NULL);

	while (!atomic_load(&in_cut))
		sleep_us(1000);
	scratch_join(path, folder, "image.raw");
	expect(ctl("snapshot %d:%llu '%s'", (int)getpid(), region, path), 0, "is complete");
	thread_join(thread);
}
END_TEST

static atomic_int traced;

static void *trace(void *argument)
{
	(void)argument;
	expect(ctl("trace %d:%llu --seconds 2 --json", (int)getpid(), region), 0, "\"last\":true");
	atomic_store(&traced, 1);
	return NULL;
}

START_TEST(test_a_trace_names_thread_and_place_of_a_write)
{
	char words[64];
	pthread_t thread = thread_start(trace, NULL);

	while (!atomic_load(&traced)) {
		ck_assert_int_eq(uffdwp_region_arm(place.region, 0, place.length_bytes), 0);
		place.base[5 * place.page_bytes + 3] = 1;
		sleep_us(1000);
	}
	thread_join(thread);
	(void)snprintf(words, sizeof(words), "\"tid\":%ld,", (long)syscall(SYS_gettid));
	expect(0, 0, words);
	expect(0, 0, "\"event\":\"write\"");
	(void)snprintf(words, sizeof(words), "\"region\":%llu,\"offset\":%zu", region, 5 * place.page_bytes);
	words[strlen(words) - 2] = '\0'; /* the byte of the page is not always known */
	expect(0, 0, words);
}
END_TEST

START_TEST(test_metrics_can_be_read)
{
	expect(ctl("metrics %d | \"${UFFDWP_PYTHON3:-/usr/bin/python3}\" "
	           "\"$UFFDWP_SOURCE\"/tests/tools/metrics_check.py",
	           (int)getpid()),
	       0, "samples of");
}
END_TEST

START_TEST(test_what_is_not_allowed_is_refused)
{
	open_with("1");
	expect(ctl("arm %d:%llu", (int)getpid(), region), 3, "(EPERM)");
	expect(ctl("audit %d:%llu", (int)getpid(), region), 0, "armed and looked at");
	place_close(&place);
	expect(ctl("stat %d", (int)getpid()), 3, "has no control socket");
}
END_TEST

/* ------------------------------------------------------------------------------------------------------- suite -- */

static Suite *suite_new(void)
{
	Suite *suite = suite_create(TEST_NAME);
	TCase *all = tcase_create("all");
	TCase *look = tcase_create("look");

	tcase_set_timeout(all, 100);
	tcase_add_checked_fixture(all, open_all, close_all);
	tcase_add_test(all, test_the_process_is_listed_with_its_region);
	tcase_add_test(all, test_its_figures_are_those_of_the_interface);
	tcase_add_test(all, test_pages_are_armed_and_disarmed);
	tcase_add_test(all, test_a_snapshot_has_the_memory);
	tcase_add_test(all, test_a_snapshot_beside_one_of_the_program_is_refused_in_words_of_the_tool);
	tcase_add_test(all, test_a_snapshot_begins_once_the_cut_of_a_view_is_over);
	tcase_add_test(all, test_a_trace_names_thread_and_place_of_a_write);
	if (access("/usr/bin/python3", X_OK) == 0 || getenv("UFFDWP_PYTHON3"))
		tcase_add_test(all, test_metrics_can_be_read);
	tcase_set_timeout(look, 100);
	tcase_add_test(look, test_what_is_not_allowed_is_refused);
	suite_add_tcase(suite, all);
	suite_add_tcase(suite, look);
	return suite;
}

/* In a child, so that no runtime is open when Check forks. */
static void probe_control(void *argument)
{
	char name[64];
	char path[SCRATCH_PATH];
	struct uffdwp *runtime;

	(void)argument;
	must(uffdwp_open(NULL, &runtime) == 0);
	(void)snprintf(name, sizeof(name), "uffdwp/%d.sock", (int)getpid());
	scratch_join(path, folder, name);
	int is_there = access(path, F_OK) == 0;

	must(uffdwp_close(runtime) == 0);
	if (!is_there)
		_exit(77);
}

int main(void)
{
	static const struct support_needs needs = {.huge_pages = 0, .swap = 0};
	const char *tool = getenv("UFFDWP_CTL");

	support_begin(TEST_NAME, &needs);
	place_begin();
	if (!tool || access(tool, X_OK) != 0)
		return support_skip("uffdwp-ctl was not built (UFFDWP_TOOLS?)");
	if (!place_possible(place_any(UFFDWP_MEMORY_SHMEM)))
		return support_skip("shared memory cannot be watched here");
	scratch_folder(folder);
	must(chmod(folder, 0700) == 0);
	must(setenv("XDG_RUNTIME_DIR", folder, 1) == 0 && setenv("UFFDWP_CONTROL", "1", 1) == 0);
	if (child_run(probe_control, NULL) != 0)
		return support_skip("the library has no control sockets (it was built without json-c)");
	return support_run(suite_new());
}
