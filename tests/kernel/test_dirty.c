/* SPDX-License-Identifier: MIT */
/*
 * uffdwp-ctl dirty, from outside. The program that it runs is this one again, in a role of the table below.
 *
 * The writer knows how much it wrote, and that is the second witness of each figure. No figure depends on timing: a
 * writer sees in its own pagemap (bit 57) when a look has armed its pages again, and only then writes its next round;
 * after the last it ends at once, in each manner in which a program can end.
 */
#include <grp.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "filter.h"
#include "test_dirty.h"
#include "witness.h"

#define ROUNDS 3

/* ----------------------------------------------------------------------------------------------------- the roles -- */

/* Writes each page once a round; not looked at any more after the last. */
static void write_rounds(char *memory)
{
	for (int round = 1;; round++) {
		write_round(memory);
		if (round == ROUNDS) {
			return;
		}
		await_look(memory);
	}
}

static void write_school(void)
{
	write_rounds(new_memory("school", MAP_SHARED));
}

static void role_exit(void)
{
	write_school();
	exit(0);
}

static void role_quick_exit(void)
{
	write_school();
	_exit(0);
}

static void role_kill(void)
{
	write_school();
	raise(SIGKILL);
}

static void role_abort(void)
{
	struct rlimit none = {0, 0};

	setrlimit(RLIMIT_CORE, &none);
	write_school();
	abort();
}

/* Written and read, but never to be counted: pages that are only read. */
static void role_private(void)
{
	char *memory = new_memory("school", MAP_PRIVATE);
	volatile char *idle = new_memory("idle", MAP_PRIVATE);
	volatile char *zeros =
	        mmap(NULL, PAGES * page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned sum = 0;

	must(zeros != MAP_FAILED);
	for (size_t i = 0; i < PAGES; i++) {
		sum += (unsigned)idle[i * page_bytes] + (unsigned)zeros[i * page_bytes];
	}
	must(sum == 0);
	write_rounds(memory);
}

static void *write_in_thread(void *unused)
{
	(void)unused;
	write_school();
	return NULL;
}

/* main() ends before the threads do; there must be no further thread of ours that keeps the process alive. */
static void role_last_thread(void)
{
	thread_start(write_in_thread, NULL);
	pthread_exit(NULL);
}

static void role_closes_all(void)
{
	char *memory = new_memory("school", MAP_SHARED);

	write_round(memory);
	await_look(memory);
	/* pagemap is opened and closed again in between: nothing stays open but what is needed */
	must(syscall(SYS_close_range, 0, ~0u, 0) == 0);
	must(open("/dev/null", O_RDWR) == 0);
	write_round(memory);
	await_look(memory);
	write_round(memory);
}

static void role_few_files(void)
{
	struct rlimit few = {16, 16};

	must(setrlimit(RLIMIT_NOFILE, &few) == 0);
	write_school();
}

/* Nothing is allowed but what the writer itself needs: a call by the library in this process would kill it. */
static void role_sandbox(void)
{
	static const long allowed[] = {SYS_openat,     SYS_pread64, SYS_close,      SYS_clock_nanosleep,
	                               SYS_exit_group, SYS_fstat,   SYS_newfstatat, SYS_write};
	char *memory = new_memory("school", MAP_SHARED);

	must(filter_all_but(allowed, sizeof(allowed) / sizeof(allowed[0]), SECCOMP_RET_KILL_PROCESS) == 0);
	write_rounds(memory);
	_exit(0);
}

static void role_other_user(void)
{
	char *memory = new_memory("school", MAP_SHARED);

	if (support_may_change_user()) {
		must(setgroups(0, NULL) == 0 && setgid(65534) == 0 && setuid(65534) == 0);
	}
	/* Its own pagemap is not to be opened any more: rights were dropped. */
	must(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0);
	write_rounds(memory);
}

/* A process that has one thread and may make a user namespace of its own only because of that. */
static void role_namespace(void)
{
	must(syscall(SYS_unshare, 0x10000000 /* CLONE_NEWUSER */) == 0);
	write_school();
}

/* What a child writes is not the program's, and the child lives as it always did. */
static void role_forks(void)
{
	char *memory = new_memory("school", MAP_PRIVATE);
	int status;
	pid_t child;

	write_round(memory);
	await_look(memory);
	child = fork();
	must(child >= 0);
	if (child == 0) {
		for (int i = 0; i < 10; i++) {
			write_round(memory);
		}
		_exit(memory[0] == 11 ? 0 : 1);
	}
	must(waitpid(child, &status, 0) == child && status == 0);
	must(waitpid(-1, &status, 0) == -1 && errno == ECHILD);
	must(memory[0] == 1);
	write_round(memory);
	await_look(memory);
	write_round(memory);
}

/* Memory that is moved, split and given other rights keeps being seen; moving makes all of it count once more. */
static void role_moves(void)
{
	char *memory = new_memory("school", MAP_SHARED);
	size_t half = PAGES / 2 * page_bytes;

	write_round(memory);
	await_look(memory);
	must(mprotect(memory + half, half, PROT_READ) == 0);
	must(mprotect(memory + half, half, PROT_READ | PROT_WRITE) == 0);
	write_round(memory);
	await_look(memory);
	memory = mremap(memory, PAGES * page_bytes, PAGES * page_bytes, MREMAP_MAYMOVE | MREMAP_FIXED,
	                mmap(NULL, PAGES * page_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	must(memory != MAP_FAILED);
	write_round(memory);
}

static void role_execs(void)
{
	execl("/proc/self/exe", "test_dirty", "--role", "exit", (char *)NULL);
	must(0); /* exec failed */
}

static void role_execs_by_path(void)
{
	const char *arguments[] = {"sh", "-c", "exec \"$0\" --role exit", self, NULL};

	execvp("sh", (char **)(uintptr_t)arguments);
	must(0); /* exec failed */
}

/* A vfork child shares the memory of its parent, and is another process. */
static void role_spawns(void)
{
	int status = -1;
	pid_t child = vfork(); /* NOLINT(clang-analyzer-security.insecureAPI.vfork): what is tested */

	if (child == 0) {
		execl("/bin/sh", "sh", "-c", "exit $(env | grep -c -e LD_PRELOAD -e UFFDWP_DIRTY)", (char *)NULL);
		_exit(99);
	}
	must(waitpid(child, &status, 0) == child);
	must(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	write_school();
}

static void role_own_uffd(void)
{
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_register registered = {.mode = UFFDIO_REGISTER_MODE_MISSING};
	char *memory = new_memory("school", MAP_SHARED);
	char *own = new_memory("own", MAP_SHARED);
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

	must(uffd >= 0 && ioctl(uffd, UFFDIO_API, &api) == 0);
	registered.range.start = (uintptr_t)own;
	registered.range.len = PAGES * page_bytes;
	must(ioctl(uffd, UFFDIO_REGISTER, &registered) == 0);
	write_rounds(memory);
}

static const struct role roles[] = {
        {"exit", role_exit},
        {"quick_exit", role_quick_exit},
        {"kill", role_kill},
        {"abort", role_abort},
        {"private", role_private},
        {"last_thread", role_last_thread},
        {"closes_all", role_closes_all},
        {"few_files", role_few_files},
        {"sandbox", role_sandbox},
        {"other_user", role_other_user},
        {"namespace", role_namespace},
        {"forks", role_forks},
        {"moves", role_moves},
        {"execs", role_execs},
        {"execs_by_path", role_execs_by_path},
        {"spawns", role_spawns},
        {"own_uffd", role_own_uffd},
};

/* ------------------------------------------------------------------------------------------------------- running -- */

/* Runs a role under observation, quietly. `option` may be NULL. */
static void observe(const char *role, const char *option)
{
	const char *arguments[ARGUMENTS] = {program, "dirty", "-q", "-i", "20ms", "--json", outcome.json};
	size_t count = 7;

	if (option) {
		arguments[count++] = option;
	}
	arguments[count++] = "--";
	arguments[count++] = self;
	arguments[count++] = "--role";
	arguments[count] = role;
	run(arguments, "", NULL);
}

static struct json_object *at(struct json_object *object, const char *key)
{
	struct json_object *found;

	ck_assert_msg(json_object_object_get_ex(object, key, &found), "no member '%s'", key);
	return found;
}

static int64_t number_at(struct json_object *object, const char *key)
{
	return json_object_get_int64(at(object, key));
}

static struct json_object *read_json(void)
{
	struct json_object *root = json_object_from_file(outcome.json);

	ck_assert_msg(root != NULL, "no JSON (status %x): %s", (unsigned)outcome.status, outcome.err);
	return root;
}

/* The mappings of a name. NULL: there are none. */
static struct json_object *mapping(struct json_object *root, const char *name)
{
	struct json_object *list = at(root, "mappings");

	for (size_t i = 0; i < json_object_array_length(list); i++) {
		struct json_object *one = json_object_array_get_idx(list, i);

		if (strcmp(json_object_get_string(at(one, "name")), name) == 0) {
			return one;
		}
	}
	return NULL;
}

/* One page a look may be reported twice: a look that comes when the fault of a write is over and the write itself is
 * not yet made arms the page once more. */
static int64_t bytes_reported_twice(struct json_object *root)
{
	return number_at(at(root, "collecting"), "collects") * (int64_t)page_bytes;
}

/* What the writer wrote and what is reported agree to the page. */
static void expect_school(int rounds)
{
	struct json_object *root = read_json();
	struct json_object *school = mapping(root, "memfd:school");
	int64_t exact;

	ck_assert_msg(school != NULL, "no memfd:school");
	exact = (int64_t)(PAGES * page_bytes) * rounds;
	ck_assert_int_ge(number_at(school, "written_bytes"), exact);
	ck_assert_int_le(number_at(school, "written_bytes"), exact + bytes_reported_twice(root));
	ck_assert_int_eq(number_at(school, "unique_bytes"), (int64_t)(PAGES * page_bytes));
	ck_assert_int_eq(number_at(school, "populated_bytes"), (int64_t)(PAGES * page_bytes));
	ck_assert(json_object_get_boolean(at(root, "complete")));
	ck_assert_int_ge(number_at(root, "written_bytes"), number_at(school, "written_bytes"));
	ck_assert_double_ge(json_object_get_double(at(at(root, "rate"), "peak_bytes_per_s")),
	                    json_object_get_double(at(at(root, "rate"), "mean_bytes_per_s")));
	json_object_put(root);
}

/* ------------------------------------------------------------------------------------------------------- figures -- */

static const struct {
	char role[16];
	int signal; /* 0: exit status 0 */
} endings[] = {{"exit", 0}, {"quick_exit", 0}, {"kill", SIGKILL}, {"abort", SIGABRT}};

START_TEST(test_figures_are_those_of_the_writer_however_it_ends)
{
	observe(endings[_i].role, NULL);
	ck_assert_str_eq(outcome.err, "");
	ck_assert_int_eq(WIFSIGNALED(outcome.status) ? WTERMSIG(outcome.status) : 0, endings[_i].signal);
	ck_assert_int_eq(WIFEXITED(outcome.status), endings[_i].signal == 0);
	expect_school(ROUNDS);
}
END_TEST

/* Programs that do what a foreign thread or descriptor would not survive. */
static const char hard_roles[][16] = {"last_thread",   "closes_all", "few_files", "sandbox",
                                      "other_user",    "namespace",  "forks",     "execs",
                                      "execs_by_path", "spawns",     "private"};

/* In a chroot, for one, the kernel refuses a user namespace. */
static int may_make_namespace(void)
{
	int status;
	pid_t child = fork();

	must(child >= 0);
	if (child == 0) {
		_exit(syscall(SYS_unshare, 0x10000000 /* CLONE_NEWUSER */) != 0);
	}
	must(waitpid(child, &status, 0) == child);
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

START_TEST(test_program_that_does_as_it_likes_is_still_seen)
{
	if (!strcmp(hard_roles[_i], "namespace") && !may_make_namespace()) {
		printf("not tested here: namespace: a user namespace is refused\n");
		return;
	}
	observe(hard_roles[_i], NULL);
	ck_assert_msg(WIFEXITED(outcome.status) && WEXITSTATUS(outcome.status) == 0, "%s: status %x: %s%s",
	              hard_roles[_i], (unsigned)outcome.status, outcome.out, outcome.err);
	expect_school(ROUNDS);
}
END_TEST

START_TEST(test_pages_that_are_only_read_do_not_count)
{
	struct json_object *root;
	struct json_object *idle;

	observe("private", NULL);
	root = read_json();
	idle = mapping(root, "memfd:idle");
	ck_assert_ptr_nonnull(idle);
	ck_assert_int_eq(number_at(idle, "written_bytes"), 0);
	ck_assert_int_eq(number_at(idle, "populated_bytes"), 0);
	if (witness_zero_page()) {
		ck_assert_int_lt(number_at(root, "unique_bytes"), (int64_t)(2 * PAGES * page_bytes));
	} else {
		support_note(__func__,
		             "reads of new memory: this kernel has no shared zero page, they count as writes");
	}
	json_object_put(root);
}
END_TEST

START_TEST(test_memory_that_moved_counts_again_and_no_write_is_missed)
{
	struct json_object *root;
	struct json_object *school;

	observe("moves", NULL);
	ck_assert_int_eq(outcome.status, 0);
	root = read_json();
	school = mapping(root, "memfd:school");
	ck_assert_ptr_nonnull(school);
	ck_assert_int_ge(number_at(school, "written_bytes"), (int64_t)(PAGES * page_bytes) * ROUNDS);
	ck_assert_int_le(number_at(school, "written_bytes"),
	                 (int64_t)(PAGES * page_bytes) * (ROUNDS + 1) + bytes_reported_twice(root));
	json_object_put(root);
}
END_TEST

START_TEST(test_excluded_memory_is_left_alone)
{
	struct json_object *root;
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

	if (uffd < 0) {
		support_note(__func__, strerror(errno));
		return;
	}
	close(uffd);
	observe("own_uffd", "--exclude=/memfd:own*");
	ck_assert_msg(outcome.status == 0, "%s", outcome.err);
	expect_school(ROUNDS);
	root = read_json();
	ck_assert_ptr_null(mapping(root, "memfd:own"));
	json_object_put(root);
}
END_TEST

START_TEST(test_increments_add_up_to_what_was_written)
{
	struct json_object *root;
	struct json_object *each;
	double sum;

	observe("exit", NULL);
	root = read_json();
	each = json_object_array_get_idx(at(root, "increments"), 0);
	sum = json_object_get_double(at(each, "mean_bytes")) * (double)number_at(each, "count");
	ck_assert_double_eq_tol(sum, (double)number_at(root, "written_bytes"), 1);
	ck_assert_int_ge(number_at(each, "max_bytes"), (int64_t)page_bytes);
	ck_assert_int_ge(number_at(each, "count") + 1, ROUNDS);
	json_object_put(root);
}
END_TEST

START_TEST(test_json_has_every_documented_name)
{
	static const char *const names[] = {"version",
	                                    "kernel",
	                                    "command",
	                                    "pid",
	                                    "ended",
	                                    "run_s",
	                                    "tracked",
	                                    "complete",
	                                    "programs",
	                                    "page_bytes",
	                                    "interval_s",
	                                    "measured_s",
	                                    "written_bytes",
	                                    "unique_bytes",
	                                    "huge_page_bytes",
	                                    "start_bytes",
	                                    "populated_bytes",
	                                    "populated_max_bytes",
	                                    "refused_bytes",
	                                    "rate",
	                                    "collecting",
	                                    "increments",
	                                    "mappings",
	                                    "areas",
	                                    "hottest",
	                                    "timeline",
	                                    "notes"};
	struct json_object *root;

	observe("exit", NULL);
	root = read_json();
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		(void)at(root, names[i]);
	}
	ck_assert_int_eq(number_at(at(root, "ended"), "exit_status"), 0);
	json_object_put(root);
}
END_TEST

/* ---------------------------------------------------------------------------------------------------------- main -- */

static void add_tests(TCase *tests)
{
	tcase_add_loop_test(tests, test_figures_are_those_of_the_writer_however_it_ends, 0,
	                    sizeof(endings) / sizeof(endings[0]));
	tcase_add_loop_test(tests, test_program_that_does_as_it_likes_is_still_seen, 0,
	                    sizeof(hard_roles) / sizeof(hard_roles[0]));
	tcase_add_test(tests, test_pages_that_are_only_read_do_not_count);
	tcase_add_test(tests, test_memory_that_moved_counts_again_and_no_write_is_missed);
	tcase_add_test(tests, test_excluded_memory_is_left_alone);
	tcase_add_test(tests, test_increments_add_up_to_what_was_written);
	tcase_add_test(tests, test_json_has_every_documented_name);
}

int main(int argc, char **argv)
{
	int code;

	find_self();
	if (argc == 3 && strcmp(argv[1], "--role") == 0) {
		return play(roles, sizeof(roles) / sizeof(roles[0]), argv[2]);
	}
	code = dirty_begin("test_dirty");
	if (code) {
		return code;
	}
	Suite *suite = suite_create("dirty");
	TCase *tests = tcase_create("dirty");

	tcase_set_timeout(tests, TIME_LIMIT_S * 2);
	tcase_add_checked_fixture(tests, new_folder, NULL);
	add_tests(tests);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
