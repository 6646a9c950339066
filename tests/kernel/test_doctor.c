/* SPDX-License-Identifier: MIT */
/*
 * uffdwp-ctl, run as its users run it: as it is, without rights, under seccomp filters, and with command lines that it
 * cannot understand. The program is named by UFFDWP_CTL (or the first argument) and the library by UFFDWP_SHARED; both
 * are copied to where a user without rights can read them.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <json-c/json.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "filter.h"
#include "kernel/abi.h"
#include "kernel/probe.h"
#include "place.h"
#include "scratch.h"
#include "support.h"

#define UNPRIVILEGED 65534
#define OUTPUT_BYTES 65536
#define ARGUMENTS 6
static char program[SCRATCH_PATH];
static char library_folder[SCRATCH_PATH];

/* How to run it. */
#define MISSING 125 /* exit code: the machine does not let the child be as asked */

struct run {
	const char *arguments[ARGUMENTS]; /* after the program's name, NULL at the end */
	int unprivileged;
	int uffd_error;         /* userfaultfd(2) answers this */
	int device_error;       /* USERFAULTFD_IOC_NEW answers this */
	int uring_error;        /* io_uring_setup(2) answers this */
	uint32_t ioctl_refused; /* this ioctl answers EINVAL; 0: none */
	int mprotect_error;     /* mprotect(2) to readable and writable answers this */
	int user_namespace;     /* in one of its own */
	int no_proc;            /* without /proc */
	const char *stdout_path;
};

struct outcome {
	int exit_code; /* -1: it did not exit by itself */
	char out[OUTPUT_BYTES];
	char err[OUTPUT_BYTES];
};

static struct outcome outcome;

/* ---------------------------------------------------------------------------------------------------- the child -- */

#define KILLED 4095 /* instead of an error: the filter kills */

static uint32_t answer(int error)
{
	return error == KILLED ? SECCOMP_RET_KILL_PROCESS : filter_errno(error);
}

static void refuse_calls(const struct run *run)
{
	must(filter_argument(SYS_mprotect, 2, PROT_READ | PROT_WRITE, answer(run->mprotect_error)) == 0);
	must(filter_call(SYS_userfaultfd, answer(run->uffd_error)) == 0);
	must(filter_call(SYS_io_uring_setup, answer(run->uring_error)) == 0);
	must(filter_argument(SYS_ioctl, 1, USERFAULTFD_IOC_NEW, answer(run->device_error)) == 0);
	if (run->ioctl_refused)
		must(filter_argument(SYS_ioctl, 1, run->ioctl_refused, answer(EINVAL)) == 0);
}

static void redirect(int target, const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	must(fd >= 0 && dup2(fd, target) == target);
	close(fd);
}

static _Noreturn void become(const struct run *run, const char *out, const char *err)
{
	const char *arguments[ARGUMENTS + 2] = {"uffdwp-ctl"};

	memcpy(arguments + 1, run->arguments, sizeof(run->arguments));
	redirect(STDOUT_FILENO, run->stdout_path ? run->stdout_path : out);
	redirect(STDERR_FILENO, err);
	setenv("LD_LIBRARY_PATH", library_folder, 1);
	if (run->unprivileged) {
		must(setgroups(0, NULL) == 0 && setgid(UNPRIVILEGED) == 0 && setuid(UNPRIVILEGED) == 0);
	}
	if (run->user_namespace && unshare(CLONE_NEWUSER) != 0) {
		_exit(MISSING);
	}
	if (run->no_proc && (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
	                     umount2("/proc", MNT_DETACH) != 0)) {
		_exit(MISSING);
	}
	if (run->uffd_error || run->device_error || run->uring_error || run->ioctl_refused || run->mprotect_error) {
		refuse_calls(run);
	}
	execv(program, (char **)(uintptr_t)arguments);
	_exit(126);
}

static void read_text(const char *path, char text[OUTPUT_BYTES])
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length;

	ck_assert_int_ge(fd, 0);
	length = read(fd, text, OUTPUT_BYTES - 1);
	ck_assert_int_ge(length, 0);
	text[length] = '\0';
	close(fd);
}

static void run(const struct run *how)
{
	char folder[SCRATCH_PATH];
	char out[SCRATCH_PATH];
	char err[SCRATCH_PATH];
	int status;
	pid_t child;

	scratch_folder(folder);
	scratch_join(out, folder, "out");
	scratch_join(err, folder, "err");
	child = fork();
	ck_assert_int_ge(child, 0);
	if (child == 0) {
		become(how, out, err);
	}
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	outcome.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	outcome.out[0] = '\0';
	if (!how->stdout_path) {
		read_text(out, outcome.out);
	}
	read_text(err, outcome.err);
}

/* ------------------------------------------------------------------------------------------------------ reading -- */

/* "a.b.c" of an object; keys with a dot in them are not asked for. NULL: no such member (or it is null). */
static struct json_object *at(struct json_object *object, const char *path)
{
	char copy[128];
	char *rest = copy;
	const char *key;

	(void)snprintf(copy, sizeof(copy), "%s", path);
	while (object && (key = strsep(&rest, "."))) {
		if (!json_object_object_get_ex(object, key, &object)) {
			ck_abort_msg("the answer has no member '%s' of '%s'", key, path);
		}
	}
	return object;
}

static const char *text_at(struct json_object *object, const char *path)
{
	const char *text = json_object_get_string(at(object, path));

	return text ? text : "(null)";
}

static struct json_object *run_json(struct run how)
{
	struct json_object *root;

	how.arguments[0] = "doctor";
	how.arguments[1] = "--json";
	run(&how);
	root = json_tokener_parse(outcome.out);
	ck_assert_msg(root != NULL, "not JSON (exit %d): %s%s", outcome.exit_code, outcome.out, outcome.err);
	ck_assert_int_eq(json_object_get_int(at(root, "exit_code")), outcome.exit_code);
	ck_assert_str_eq(outcome.err, "");
	return root;
}

static struct json_object *advice(struct json_object *root, const char *id)
{
	struct json_object *list = at(root, "advice");

	for (size_t i = 0; i < json_object_array_length(list); i++) {
		struct json_object *one = json_object_array_get_idx(list, i);

		if (strcmp(text_at(one, "id"), id) == 0) {
			return one;
		}
	}
	return NULL;
}

static void expect_change(struct json_object *root, const char *id, const char *part)
{
	struct json_object *one = advice(root, id);

	ck_assert_msg(one != NULL, "no advice '%s'", id);
	ck_assert_msg(strstr(json_object_to_json_string_ext(at(one, "changes"), JSON_C_TO_STRING_NOSLASHESCAPE), part),
	              "advice '%s' does not say '%s'", id, part);
}

static int may_drop_rights(const char *test)
{
	if (support_may_change_user()) {
		return 1;
	}
	support_note(test, "only root can become a user without rights");
	return 0;
}

/* --------------------------------------------------------------------------------------------------------- json -- */

START_TEST(test_json_has_every_documented_name)
{
	static const char *const paths[] = {"version",
	                                    "kernel.release",
	                                    "kernel.machine",
	                                    "user.uid",
	                                    "user.name",
	                                    "user.cap_sys_ptrace",
	                                    "user.cap_sys_admin",
	                                    "container",
	                                    "seccomp",
	                                    "sysctl",
	                                    "access.syscall.works",
	                                    "access.syscall.error",
	                                    "access.device.works",
	                                    "access.user_mode.works",
	                                    "access_chosen",
	                                    "features",
	                                    "memory.shmem.registration.works",
	                                    "memory.shmem.mechanism",
	                                    "memory.shmem.reason",
	                                    "memory.shmem.inline_works",
	                                    "memory.shmem.page_bytes",
	                                    "memory.shmem.fills",
	                                    "memory.shmem.ladder.marker.works",
	                                    "memory.shmem.ladder.rearm.thread_works",
	                                    "memory.shmem.ladder.minor.inline_works",
	                                    "memory.shmem.ladder.mprotect.reason",
	                                    "memory.shmem.ladder.mprotect.taken",
	                                    "memory.shmem.ladder.async.works",
	                                    "memory.shmem.ladder.async.tracks_only",
	                                    "memory.shmem.ladder.soft_dirty.reason",
	                                    "memory.shmem.track",
	                                    "memory.shmem.trials.populated.answer",
	                                    "memory.shmem.trials.unpopulated.reason",
	                                    "memory.shmem.trials.dontneed.answer",
	                                    "memory.shmem.trials.punch.answer",
	                                    "memory.shmem.trials.swap.answer",
	                                    "memory.shmem.trials.mremap.answer",
	                                    "memory.hugetlb.mechanism",
	                                    "memory.anon.mechanism",
	                                    "io_uring.works",
	                                    "pagemap_scan.works",
	                                    "pagemap_wp",
	                                    "swap_on",
	                                    "huge_pages_free",
	                                    "advice",
	                                    "verdict",
	                                    "exit_code"};
	struct json_object *root = run_json((struct run){0});

	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		(void)at(root, paths[i]);
	}
	json_object_put(root);
}
END_TEST

static const char *const memory_ids[UFFDWP_MEMORY_COUNT] = {"shmem", "hugetlb", "anon"};
static const char *const mechanism_ids[UFFDWP_MECHANISM_COUNT] = {"none",     "marker", "rearm",     "minor",
                                                                  "mprotect", "async",  "soft_dirty"};

static struct json_object *memory_at(struct json_object *root, int memory, const char *path)
{
	char whole[128];

	(void)snprintf(whole, sizeof(whole), "memory.%s.%s", memory_ids[memory], path);
	return at(root, whole);
}

static void expect_ladder(struct json_object *root, int memory, const struct probe_memory *found)
{
	for (uint32_t mechanism = UFFDWP_MECHANISM_MARKER; mechanism < UFFDWP_MECHANISM_COUNT; mechanism++) {
		const struct probe_rung *rung = &found->rungs[mechanism];
		char path[64];
		struct json_object *said;

		(void)snprintf(path, sizeof(path), "ladder.%s", mechanism_ids[mechanism]);
		said = memory_at(root, memory, path);
		ck_assert_int_eq(json_object_get_boolean(at(said, "works")), (int)rung->works);
		ck_assert_int_eq(json_object_get_boolean(at(said, "thread_works")), (int)rung->thread_works);
		ck_assert_int_eq(json_object_get_boolean(at(said, "inline_works")), (int)rung->inline_works);
		ck_assert_int_eq(json_object_get_boolean(at(said, "taken")), mechanism == found->mechanism);
		ck_assert_int_eq(json_object_get_boolean(at(said, "tracks_only")),
		                 mechanism == UFFDWP_MECHANISM_ASYNC || mechanism == UFFDWP_MECHANISM_SOFT_DIRTY);
		ck_assert_str_eq(text_at(said, "reason"), rung->reason);
	}
}

/* The second witness of "a track takes async" is the library's own trial. */
static void expect_track(struct json_object *root, int memory, const struct probe_memory *found)
{
	const char *expected = found->rungs[UFFDWP_MECHANISM_ASYNC].works ? "async" : mechanism_ids[found->mechanism];
	ck_assert_str_eq(json_object_get_string(memory_at(root, memory, "track")), expected);
}

START_TEST(test_doctor_reports_what_the_library_finds)
{
	struct probe_report report = {0};
	struct json_object *root = run_json((struct run){0});

	ck_assert_int_eq(probe_run(&kernel_real, &report), 0);
	for (int memory = 0; memory < UFFDWP_MEMORY_COUNT; memory++) {
		const struct probe_memory *found = &report.memory[memory];
		ck_assert_str_eq(json_object_get_string(memory_at(root, memory, "mechanism")),
		                 mechanism_ids[found->mechanism]);
		expect_ladder(root, memory, found);
		expect_track(root, memory, found);
		struct json_object *move = memory_at(root, memory, "arming.move");
		ck_assert_int_eq(json_object_get_boolean(at(move, "works")), (int)report.moves[memory].works);
	}
	ck_assert_int_eq(json_object_get_boolean(at(root, "fork.works")), (int)report.child.works);
	ck_assert_int_eq(json_object_get_boolean(at(root, "io_uring.works")), report.uring == 0);
	json_object_put(root);
}
END_TEST

START_TEST(test_user_without_rights_learns_what_to_change)
{
	struct probe_report report = {0};
	struct json_object *root;
	struct stat device;

	if (!may_drop_rights("test_user_without_rights_learns_what_to_change") ||
	    place_is_filtered("test_user_without_rights_learns_what_to_change")) {
		return;
	}
	ck_assert_int_eq(probe_run(&kernel_real, &report), 0);
	if (report.sysctl_unprivileged != 0 || (stat("/dev/userfaultfd", &device) == 0 && (device.st_mode & S_IROTH))) {
		support_note("test_user_without_rights_learns_what_to_change", "here every user has the right");
		return;
	}
	root = run_json((struct run){.unprivileged = 1});
	ck_assert_str_eq(text_at(root, "access.syscall.error"), "EPERM");
	expect_change(root, "rights", "sysctl -w vm.unprivileged_userfaultfd=1");
	if (stat("/dev/userfaultfd", &device) == 0) {
		expect_change(root, "rights", "setfacl -m u:65534:rw /dev/userfaultfd");
	}
	if (report.access[UFFDWP_ACCESS_USER_MODE] == 0 && report.memory[UFFDWP_MEMORY_SHMEM].mechanism) {
		ck_assert_str_eq(text_at(root, "access_chosen"), "user_mode");
		ck_assert_str_eq(text_at(root, "memory.shmem.mechanism"),
		                 mechanism_ids[report.memory[UFFDWP_MEMORY_SHMEM].mechanism]);
		ck_assert_ptr_nonnull(strstr(text_at(advice(root, "user_mode"), "what"), "EFAULT"));
		ck_assert_int_eq(outcome.exit_code, 3);
	}
	json_object_put(root);
}
END_TEST

START_TEST(test_filter_that_refuses_is_named)
{
	struct json_object *root = run_json((struct run){.uffd_error = EPERM, .device_error = EPERM});

	ck_assert_int_eq(outcome.exit_code, 3);
	ck_assert_str_eq(text_at(root, "verdict"), "limits");
	ck_assert_str_eq(text_at(root, "seccomp"), "filter");
	ck_assert_ptr_null(at(root, "access_chosen"));
	ck_assert_str_eq(text_at(root, "memory.shmem.mechanism"), "mprotect");
	ck_assert_str_eq(text_at(root, "memory.anon.mechanism"), "mprotect");
	ck_assert_str_eq(text_at(advice(root, "seccomp"), "level"), "limit");
	expect_change(root, "seccomp", "--security-opt seccomp=");
	expect_change(root, "seccomp", "--device /dev/userfaultfd");
	expect_change(root, "mprotect", "vm.max_map_count");
	json_object_put(root);
}
END_TEST

START_TEST(test_kernel_without_userfaultfd_is_named)
{
	struct json_object *root = run_json((struct run){.uffd_error = ENOSYS, .device_error = ENOTTY});

	ck_assert_int_eq(outcome.exit_code, 3);
	ck_assert_str_eq(text_at(root, "access.syscall.error"), "ENOSYS");
	expect_change(root, "kernel", "CONFIG_USERFAULTFD");
	json_object_put(root);
}
END_TEST

START_TEST(test_filter_that_kills_is_found_by_a_child)
{
	static const struct run hows[] = {{.uffd_error = KILLED}, {.uring_error = KILLED}};
	static const char *const names[] = {"userfaultfd", "io_uring_setup"};
	struct json_object *root = run_json(hows[_i]);

	ck_assert_int_eq(outcome.exit_code, 1);
	ck_assert_str_eq(text_at(root, "seccomp_kills"), names[_i]);
	ck_assert_str_eq(text_at(root, "seccomp"), "filter");
	ck_assert_str_eq(text_at(advice(root, "seccomp_kills"), "level"), "required");
	expect_change(root, "seccomp_kills", "SystemCallErrorNumber=EPERM");
	json_object_put(root);
	struct run how = hows[_i];

	how.arguments[0] = "doctor";
	run(&how);
	ck_assert_int_eq(outcome.exit_code, 1);
	ck_assert_ptr_nonnull(strstr(outcome.out, "filter, which kills"));
	ck_assert_ptr_nonnull(strstr(outcome.out, names[_i]));
}
END_TEST

START_TEST(test_user_namespace_gets_advice_that_helps_there)
{
	struct run how = {.unprivileged = 1, .user_namespace = 1, .arguments = {"doctor", "--json"}};
	struct json_object *root;

	if (!may_drop_rights(__func__) || place_is_filtered(__func__))
		return;
	run(&how);
	if (outcome.exit_code == MISSING) {
		support_note(__func__, "no user namespace can be made here");
		return;
	}
	root = json_tokener_parse(outcome.out);
	ck_assert_ptr_nonnull(root);
	ck_assert(json_object_get_boolean(at(root, "user_namespace")));
	if (json_object_get_boolean(at(root, "access.syscall.works")) ||
	    json_object_get_boolean(at(root, "access.device.works"))) {
		support_note(__func__, "every user has a userfaultfd here");
	} else {
		ck_assert_ptr_null(advice(root, "seccomp"));
		ck_assert_ptr_null(advice(root, "rights"));
		expect_change(root, "user_namespace", "outside, as root of the host");
		ck_assert_ptr_null(strstr(outcome.out, "setcap"));
		ck_assert_ptr_null(strstr(outcome.out, "\"as root"));
	}
	json_object_put(root);
}
END_TEST

START_TEST(test_without_proc_nothing_is_made_up)
{
	struct run how = {.no_proc = 1, .arguments = {"doctor"}};
	static const char *const unknown[] = {"seccomp",        "swap",         "huge pages",
	                                      "user namespace", "capabilities", "vm.max_map_count"};

	if (!may_drop_rights(__func__))
		return;
	run(&how);
	if (outcome.exit_code == MISSING || outcome.exit_code == 127) {
		support_note(__func__, "/proc cannot be taken away from a program here");
		return;
	}
	for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
		char line[64];

		(void)snprintf(line, sizeof(line), "\n  %-28snot known", unknown[i]);
		ck_assert_msg(strstr(outcome.out, line) != NULL, "%s: %s", unknown[i], outcome.out);
	}
	how.arguments[1] = "--json";
	run(&how);
	struct json_object *root = json_tokener_parse(outcome.out);

	ck_assert_ptr_nonnull(root);
	ck_assert_str_eq(text_at(root, "seccomp"), "unknown");
	ck_assert_ptr_null(at(root, "swap_on"));
	ck_assert_ptr_null(at(root, "huge_pages_free"));
	ck_assert_ptr_null(at(root, "user_namespace"));
	json_object_put(root);
}
END_TEST

START_TEST(test_nothing_works_where_mprotect_is_refused_too)
{
	static const struct run how = {.uffd_error = EPERM, .device_error = EPERM, .mprotect_error = EPERM};
	const char *sanitizers = getenv("UFFDWP_SANITIZE");
	struct json_object *root;

	if (sanitizers && sanitizers[0]) {
		support_note(__func__, "a sanitizer needs mprotect(2) itself");
		return;
	}
	root = run_json(how);
	ck_assert_int_eq(outcome.exit_code, 1);
	ck_assert_str_eq(text_at(root, "verdict"), "nothing");
	ck_assert_str_eq(text_at(root, "memory.shmem.mechanism"), "none");
	ck_assert_str_eq(text_at(advice(root, "seccomp"), "level"), "required");
	json_object_put(root);
}
END_TEST

START_TEST(test_memory_that_no_fault_covers_is_left_to_mprotect)
{
	struct json_object *root = run_json((struct run){.ioctl_refused = (uint32_t)UFFDIO_REGISTER});

	if (!at(root, "access_chosen")) {
		support_note(__func__, "no userfaultfd is available");
	} else {
		ck_assert_int_eq(outcome.exit_code, 3);
		ck_assert_str_eq(text_at(root, "memory.shmem.mechanism"), "mprotect");
		ck_assert_str_eq(text_at(root, "memory.shmem.registration.error"), "EINVAL");
		ck_assert_str_eq(text_at(advice(root, "memory"), "level"), "limit");
		expect_change(root, "memory", "Linux 5.19");
		expect_change(root, "memory", "Linux 5.14");
		expect_change(root, "mprotect", "vm.max_map_count");
	}
	json_object_put(root);
}
END_TEST

START_TEST(test_shared_memory_without_write_protection_is_left_to_minor_faults)
{
	struct json_object *root = run_json((struct run){.ioctl_refused = (uint32_t)UFFDIO_WRITEPROTECT});

	if (!json_object_get_boolean(at(root, "memory.shmem.ladder.minor.works"))) {
		support_note(__func__, text_at(root, "memory.shmem.ladder.minor.reason"));
	} else {
		ck_assert_int_eq(outcome.exit_code, 3);
		ck_assert_str_eq(text_at(root, "memory.shmem.mechanism"), "minor");
		ck_assert_str_eq(text_at(root, "memory.anon.mechanism"), "mprotect");
		ck_assert_ptr_nonnull(strstr(text_at(advice(root, "memory"), "what"), "count as writes"));
	}
	json_object_put(root);
}
END_TEST

START_TEST(test_device_stands_in_for_a_system_call_that_is_refused)
{
	struct json_object *root;

	if (access("/dev/userfaultfd", R_OK | W_OK) != 0) {
		support_note("test_device_stands_in_for_a_system_call_that_is_refused", "no /dev/userfaultfd to open");
		return;
	}
	root = run_json((struct run){.uffd_error = EPERM});
	ck_assert_str_eq(text_at(root, "access_chosen"), "device");
	ck_assert_ptr_null(advice(root, "seccomp"));
	json_object_put(root);
}
END_TEST

START_TEST(test_refused_io_uring_is_no_obstacle)
{
	struct json_object *root = run_json((struct run){0});
	int exit_code = outcome.exit_code;

	json_object_put(root);
	root = run_json((struct run){.uring_error = EPERM});
	ck_assert_int_eq(outcome.exit_code, exit_code);
	ck_assert_str_eq(text_at(root, "io_uring.error"), "EPERM");
	ck_assert_str_eq(text_at(advice(root, "io_uring"), "level"), "optional");
	json_object_put(root);
}
END_TEST

/* --------------------------------------------------------------------------------------------------------- text -- */

static const char *last_line(const char *text)
{
	const char *line = text + strlen(text) - 1;

	while (line > text && line[-1] != '\n') {
		line--;
	}
	return line;
}

START_TEST(test_last_line_of_the_text_is_the_verdict)
{
	static const struct run cases[] = {{.arguments = {"doctor"}},
	                                   {.arguments = {"doctor"}, .uffd_error = EPERM, .device_error = EPERM}};

	run(&cases[_i]);
	ck_assert_int_ne(outcome.exit_code, -1);
	ck_assert_int_eq(strncmp(last_line(outcome.out), "verdict: ", 9), 0);
	ck_assert(!strstr(outcome.out, "filled with") || strstr(outcome.out, "filled with the wp bit by   "));
	ck_assert_int_eq(strstr(last_line(outcome.out), "nothing works") != NULL, outcome.exit_code == 1);
	ck_assert_str_eq(outcome.err, "");
}
END_TEST

START_TEST(test_lines_of_the_text_fit_a_terminal)
{
	static const struct run cases[] = {
	        {.arguments = {"doctor"}},
	        {.arguments = {"doctor"}, .uffd_error = EPERM, .device_error = EPERM, .uring_error = EPERM},
	        {.arguments = {"doctor"}, .ioctl_refused = (uint32_t)UFFDIO_REGISTER},
	        {.arguments = {"doctor"}, .ioctl_refused = (uint32_t)UFFDIO_WRITEPROTECT},
	};

	run(&cases[_i]);
	for (const char *line = outcome.out; *line; line += strcspn(line, "\n") + 1) {
		size_t length = strcspn(line, "\n");

		ck_assert_msg(length <= 80, "a line of %zu characters: %.*s", length, (int)length, line);
		ck_assert_msg(length == 0 || line[length - 1] != ' ', "a line ends with a blank: %.*s", (int)length,
		              line);
	}
}
END_TEST

START_TEST(test_text_shows_the_rung_that_is_taken)
{
	run(&(struct run){.arguments = {"doctor"}, .uffd_error = EPERM, .device_error = EPERM});
	ck_assert_ptr_nonnull(strstr(outcome.out, "\n    > mprotect   inline "));
	ck_assert_ptr_nonnull(strstr(outcome.out, "\n      marker     no "));
	ck_assert_ptr_null(strstr(outcome.out, "\n    > marker"));
	ck_assert_ptr_nonnull(strstr(outcome.out, "\n      async      "));
	ck_assert_ptr_nonnull(strstr(outcome.out, "\n      soft-dirty "));
	ck_assert_ptr_nonnull(strstr(outcome.out, "private anon; a track takes mprotect\n"));
}
END_TEST

START_TEST(test_color_comes_when_asked_for)
{
	run(&(struct run){.arguments = {"doctor"}});
	ck_assert_ptr_null(strchr(outcome.out, '\033'));
	run(&(struct run){.arguments = {"doctor", "--color=never"}});
	ck_assert_ptr_null(strchr(outcome.out, '\033'));
	run(&(struct run){.arguments = {"doctor", "--color=always"}});
	ck_assert_ptr_nonnull(strchr(outcome.out, '\033'));
}
END_TEST

/* ------------------------------------------------------------------------------------------------- command line -- */

START_TEST(test_command_line_that_is_not_understood_ends_with_2)
{
	static const struct {
		struct run run;
		char said[24];
	} cases[] = {
	        {{.arguments = {NULL}}, "command is missing"}, {{.arguments = {"docter"}}, "docter"},
	        {{.arguments = {"--jason"}}, "--jason"},       {{.arguments = {"doctor", "--jason"}}, "--jason"},
	        {{.arguments = {"doctor", "me"}}, "me"},       {{.arguments = {"doctor", "--color=blue"}}, "blue"},
	        {{.arguments = {"version", "now"}}, "now"},
	};

	run(&cases[_i].run);
	ck_assert_int_eq(outcome.exit_code, 2);
	ck_assert_str_eq(outcome.out, "");
	ck_assert_msg(strstr(outcome.err, cases[_i].said) != NULL, "'%s' is not in: %s", cases[_i].said, outcome.err);
	ck_assert_ptr_nonnull(strstr(outcome.err, "--help"));
}
END_TEST

START_TEST(test_help_teaches)
{
	static const struct run cases[] = {
	        {.arguments = {"--help"}}, {.arguments = {"doctor", "--help"}}, {.arguments = {"dirty", "--help"}}};

	run(&cases[_i]);
	ck_assert_int_eq(outcome.exit_code, 0);
	ck_assert_ptr_nonnull(strstr(outcome.out, "Examples:"));
	ck_assert_ptr_nonnull(strstr(outcome.out, "Exit codes:"));
	ck_assert_ptr_nonnull(strstr(outcome.out, "--json"));
	ck_assert_str_eq(outcome.err, "");
}
END_TEST

START_TEST(test_version_is_printed_by_command_and_option)
{
	static const struct run cases[] = {{.arguments = {"version"}}, {.arguments = {"--version"}}};
	char expected[64];

	(void)snprintf(expected, sizeof(expected), "uffdwp-ctl %d.%d.%d (libuffdwp %d.%d.%d)\n", UFFDWP_VERSION_MAJOR,
	               UFFDWP_VERSION_MINOR, UFFDWP_VERSION_PATCH, UFFDWP_VERSION_MAJOR, UFFDWP_VERSION_MINOR,
	               UFFDWP_VERSION_PATCH);
	run(&cases[_i]);
	ck_assert_int_eq(outcome.exit_code, 0);
	ck_assert_str_eq(outcome.out, expected);
}
END_TEST

START_TEST(test_output_that_is_not_written_is_a_failure)
{
	static const struct run cases[] = {{.arguments = {"doctor"}, .stdout_path = "/dev/full"},
	                                   {.arguments = {"doctor", "--json"}, .stdout_path = "/dev/full"},
	                                   {.arguments = {"version"}, .stdout_path = "/dev/full"}};

	run(&cases[_i]);
	ck_assert_int_eq(outcome.exit_code, 4);
	ck_assert_ptr_nonnull(strstr(outcome.err, "written"));
}
END_TEST

/* --------------------------------------------------------------------------------------------------------- main -- */

/* 1: copied. */
static int copy_file(const char *from, const char *to)
{
	int source = open(from, O_RDONLY | O_CLOEXEC);
	int target = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
	char buffer[65536];
	ssize_t length = source < 0 || target < 0 ? -1 : 1;

	while (length > 0) {
		length = read(source, buffer, sizeof(buffer));
		if (length > 0 && write(target, buffer, (size_t)length) != length) {
			length = -1;
		}
	}
	(void)close(source); /* or of -1, which does nothing */
	(void)close(target);
	return length == 0;
}

static int copy_program(const char *ctl, const char *library)
{
	char path[SCRATCH_PATH];
	char dirty[SCRATCH_PATH];  /* that `uffdwp-ctl dirty` executes */
	char beside[SCRATCH_PATH]; /* where it was built */
	char name[64];

	scratch_folder(library_folder);
	(void)snprintf(name, sizeof(name), "libuffdwp.so.%d", UFFDWP_VERSION_MAJOR);
	scratch_join(path, library_folder, name);
	scratch_join(program, library_folder, "uffdwp-ctl");
	scratch_join(dirty, library_folder, "uffdwp-dirty");
	(void)snprintf(beside, sizeof(beside), "%.*sdirty", (int)(strlen(ctl) - strlen("ctl")), ctl);
	return copy_file(ctl, program) && copy_file(beside, dirty) && copy_file(library, path);
}

static void add_tests(TCase *tests)
{
	tcase_add_test(tests, test_json_has_every_documented_name);
	tcase_add_test(tests, test_doctor_reports_what_the_library_finds);
	tcase_add_test(tests, test_user_without_rights_learns_what_to_change);
	tcase_add_test(tests, test_filter_that_refuses_is_named);
	tcase_add_test(tests, test_kernel_without_userfaultfd_is_named);
	tcase_add_loop_test(tests, test_filter_that_kills_is_found_by_a_child, 0, 2);
	tcase_add_test(tests, test_user_namespace_gets_advice_that_helps_there);
	tcase_add_test(tests, test_without_proc_nothing_is_made_up);
	tcase_add_test(tests, test_nothing_works_where_mprotect_is_refused_too);
	tcase_add_test(tests, test_memory_that_no_fault_covers_is_left_to_mprotect);
	tcase_add_test(tests, test_shared_memory_without_write_protection_is_left_to_minor_faults);
	tcase_add_test(tests, test_device_stands_in_for_a_system_call_that_is_refused);
	tcase_add_test(tests, test_refused_io_uring_is_no_obstacle);
	tcase_add_loop_test(tests, test_last_line_of_the_text_is_the_verdict, 0, 2);
	tcase_add_loop_test(tests, test_lines_of_the_text_fit_a_terminal, 0, 4);
	tcase_add_test(tests, test_text_shows_the_rung_that_is_taken);
	tcase_add_test(tests, test_color_comes_when_asked_for);
	tcase_add_loop_test(tests, test_command_line_that_is_not_understood_ends_with_2, 0, 7);
	tcase_add_loop_test(tests, test_help_teaches, 0, 3);
	tcase_add_loop_test(tests, test_version_is_printed_by_command_and_option, 0, 2);
	tcase_add_loop_test(tests, test_output_that_is_not_written_is_a_failure, 0, 3);
}

int main(int argc, char **argv)
{
	const char *ctl = argc > 1 ? argv[1] : getenv("UFFDWP_CTL");
	const char *library = getenv("UFFDWP_SHARED");
	Suite *suite = suite_create("doctor");
	TCase *tests = tcase_create("doctor");

	support_begin("test_doctor", &(struct support_needs){.huge_pages = 2});
	if (!ctl || !library || access(ctl, X_OK) != 0) {
		return support_skip(
		        "UFFDWP_CTL and UFFDWP_SHARED name no program and library (built with UFFDWP_TOOLS?)");
	}
	if (!copy_program(ctl, library)) {
		(void)fprintf(stderr, "test_doctor: the program could not be copied\n");
		return 1;
	}
	tcase_set_timeout(tests, 60);
	add_tests(tests);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
