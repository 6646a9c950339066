/* SPDX-License-Identifier: MIT */
/* See habit.h. */
#include "habit.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "chance.h"
#include "pace.h"

#define HABIT_MECHANISMS ((int)UFFDWP_MECHANISM_REGION_COUNT - 1)
#define HABIT_CHILD_SECONDS 2 /* of a quiet machine */
#define HABIT_LONG_FACTOR 20

static struct uffdwp_probe *probe;

/* --- cases ------------------------------------------------------------------------------------------------------ */

static struct uffdwp_probe_rung habit_rung(struct habit_case which)
{
	struct uffdwp_probe_rung rung = {.sz = sizeof(rung)};
	must_be(NULL, uffdwp_probe_rung(probe, which.memory, which.mechanism, &rung), 0);
	return rung;
}

static void habit_say_what_is_missing(void)
{
	for (int index = 0; index < HABIT_CASES; index++) {
		struct habit_case which = habit_case(index);
		if (!habit_possible(which)) {
			support_note(habit_name(which), habit_rung(which).reason);
		}
	}
}

void habit_begin(const char *program, unsigned huge_pages)
{
	support_begin(program, &(struct support_needs){.huge_pages = huge_pages});
	must_be(NULL, uffdwp_probe_run(&probe), 0);
	habit_say_what_is_missing();
}

size_t habit_probed_page_bytes(enum uffdwp_memory memory)
{
	struct uffdwp_probe_memory found = {.sz = sizeof(found)};
	must_be(NULL, uffdwp_probe_memory(probe, memory, &found), 0);
	return (size_t)found.page_bytes;
}

struct habit_case habit_case(int index)
{
	static const enum uffdwp_memory memories[] = {UFFDWP_MEMORY_SHMEM, UFFDWP_MEMORY_ANON, UFFDWP_MEMORY_HUGETLB};
	return (struct habit_case){memories[index / 2 / HABIT_MECHANISMS],
	                           (enum uffdwp_mechanism)(UFFDWP_MECHANISM_MARKER + index / 2 % HABIT_MECHANISMS),
	                           index % 2 ? UFFDWP_DELIVERY_INLINE : UFFDWP_DELIVERY_THREAD};
}

static int habit_wants_mechanism(enum uffdwp_mechanism mechanism)
{
	static const char *const names[] = {"auto", "marker", "rearm", "minor", "mprotect"};
	const char *only = getenv("UFFDWP_TEST_MECHANISM");
	return only == NULL || strcmp(only, names[mechanism]) == 0;
}

static int habit_wants_delivery(enum uffdwp_delivery delivery)
{
	const char *only = getenv("UFFDWP_TEST_DELIVERY");
	return only == NULL || strcmp(only, delivery == UFFDWP_DELIVERY_THREAD ? "thread" : "inline") == 0;
}

int habit_possible(struct habit_case which)
{
	struct uffdwp_probe_rung rung = habit_rung(which);
	if (which.memory == UFFDWP_MEMORY_HUGETLB && !support_has_huge_pages()) {
		return 0;
	}
	int delivers = which.delivery == UFFDWP_DELIVERY_THREAD ? rung.thread_works != 0 : rung.inline_works != 0;
	return rung.works && delivers && habit_wants_mechanism(which.mechanism) && habit_wants_delivery(which.delivery);
}

const char *habit_name(struct habit_case which)
{
	static char name[64];
	static const char *const memories[] = {"shmem", "hugetlb", "anon"};
	static const char *const mechanisms[] = {"auto", "marker", "rearm", "minor", "mprotect"};
	static const char *const deliveries[] = {"auto", "thread", "inline"};
	(void)snprintf(name, sizeof(name), "%s, %s, %s", memories[which.memory], mechanisms[which.mechanism],
	               deliveries[which.delivery]);
	return name;
}

/* --- assertions ------------------------------------------------------------------------------------------------- */

void must_be_equal(int rc, int expected, const char *file, int line, const char *text)
{
	if (rc == expected) {
		return;
	}
	char why[512] = "";
	(void)uffdwp_error_text(why, sizeof(why));
	fprintf(stderr, "%s:%d: %s is %d (%s), not %d (%s): %s\n", file, line, text, rc, strerror(abs(rc)), expected,
	        strerror(abs(expected)), why);
	abort();
}

int is_one_of(int rc, const int *errors, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (rc == errors[i]) {
			return 1;
		}
	}
	fprintf(stderr, "unexpected: %d (%s)\n", rc, strerror(abs(rc)));
	return 0;
}

/* --- memory ----------------------------------------------------------------------------------------------------- */

void *habit_map(size_t length)
{
	void *memory = mmap(NULL, length != 0 ? length : 1, PROT_READ | PROT_WRITE,
	                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	must(memory != MAP_FAILED);
	return memory;
}

static size_t habit_page_bytes(enum uffdwp_memory memory)
{
	return memory == UFFDWP_MEMORY_HUGETLB ? habit_probed_page_bytes(memory) : (size_t)sysconf(_SC_PAGESIZE);
}

static void habit_init(struct habit *habit, struct habit_case which, size_t length)
{
	*habit = (struct habit){.which = which, .gate = GATE_INIT, .lock = PTHREAD_MUTEX_INITIALIZER, .fd = -1};
	habit->page_bytes = habit_page_bytes(which.memory);
	habit->length_bytes = length;
	habit->pages = length / habit->page_bytes;
	habit->copy = habit_map(length);
	habit->image = habit_map(length);
}

static void habit_drop(struct habit *habit)
{
	size_t length = habit->length_bytes != 0 ? habit->length_bytes : 1;
	must(munmap(habit->copy, length) == 0 && munmap(habit->image, length) == 0);
	if (habit->runtime != NULL) {
		must_be(habit->runtime, uffdwp_close(habit->runtime), 0);
	}
}

static struct uffdwp_region_options habit_options(struct habit_case which)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	options.mechanism = which.mechanism;
	options.delivery = which.delivery;
	return options;
}

int habit_try_on(struct habit *habit, struct habit_case which, void *base, size_t length, int fd, uint64_t fd_offset)
{
	habit_init(habit, which, length);
	must_be(NULL, uffdwp_open(NULL, &habit->runtime), 0);
	struct uffdwp_region_options options = habit_options(which);
	options.fd = fd;
	options.fd_offset = fd_offset;
	int rc = uffdwp_region_attach(habit->runtime, base, length, &options, &habit->region);
	if (rc != 0) {
		must(uffdwp_error_text(habit->why, sizeof(habit->why)) != 0); /* a refusal says why */
		habit_drop(habit);
		return rc;
	}
	habit->base = base;
	return 0;
}

void habit_open_on(struct habit *habit, struct habit_case which, void *base, size_t length, int fd)
{
	must_be(NULL, habit_try_on(habit, which, base, length, fd, 0), 0);
}

int habit_try(struct habit *habit, struct habit_case which, size_t pages)
{
	size_t length = pages * habit_page_bytes(which.memory);
	if (which.memory == UFFDWP_MEMORY_ANON) {
		void *base = habit_map(length);
		int rc = habit_try_on(habit, which, base, length, -1, 0);
		habit->attached = 1;
		return rc;
	}
	habit_init(habit, which, length);
	int rc = uffdwp_open(NULL, &habit->runtime);
	if (rc != 0) {
		return rc;
	}
	struct uffdwp_region_options options = habit_options(which);
	options.flags = which.memory == UFFDWP_MEMORY_HUGETLB ? UFFDWP_REGION_CREATE_HUGETLB : 0;
	rc = uffdwp_region_create(habit->runtime, length, &options, &habit->region);
	if (rc != 0) {
		must(uffdwp_error_text(habit->why, sizeof(habit->why)) != 0);
		fprintf(stderr, "%s: %s\n", habit_name(which), habit->why);
		habit_drop(habit);
		return rc;
	}
	habit->base = uffdwp_region_base(habit->region);
	return 0;
}

void habit_open(struct habit *habit, struct habit_case which, size_t pages)
{
	must_be(NULL, habit_try(habit, which, pages), 0);
}

void habit_close(struct habit *habit)
{
	must_be(habit->runtime, uffdwp_region_close(habit->region), 0);
	if (habit->attached) {
		must(munmap(habit->base, habit->length_bytes) == 0);
	}
	habit_drop(habit);
}

/* --- snapshots -------------------------------------------------------------------------------------------------- */

void habit_fill(struct habit *habit, uint64_t salt)
{
	for (size_t at = 0; at < habit->length_bytes; at += sizeof(uint64_t)) {
		uint64_t value = (at + 1) * 0x9e3779b97f4a7c15ull + salt;
		memcpy(habit->base + at, &value, sizeof(value));
	}
}

void habit_write(struct habit *habit, size_t page, size_t offset, uint8_t value)
{
	pthread_mutex_lock(&habit->lock);
	*(volatile uint8_t *)(habit->base + page * habit->page_bytes + offset) = value;
	pthread_mutex_unlock(&habit->lock);
}

static int habit_sink(void *user, uint64_t offset, const void *data, uint64_t length)
{
	struct habit *habit = user;
	gate_pass(&habit->gate);
	must(offset <= habit->length_bytes && length <= habit->length_bytes - offset);
	memcpy(habit->image + offset, data, length);
	return 0;
}

static int habit_enter(void *user, uint64_t *length)
{
	struct habit *habit = user;
	pthread_mutex_lock(&habit->lock);
	must(*length == habit->length_bytes);
	memcpy(habit->copy, habit->base, habit->length_bytes);
	return 0;
}

static void habit_leave(void *user)
{
	struct habit *habit = user;
	pthread_mutex_unlock(&habit->lock);
}

int habit_try_cut(struct habit *habit)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = habit_sink;
	options.user = habit;
	options.cut_enter = habit_enter;
	options.cut_leave = habit_leave;
	options.cut_user = habit;
	options.length = habit->length_bytes;
	habit->gate = (struct gate)GATE_INIT;
	memset(habit->image, 0, habit->length_bytes);
	return uffdwp_snapshot_begin(habit->region, &options, &habit->snapshot);
}

void habit_cut(struct habit *habit)
{
	must_be(habit->runtime, habit_try_cut(habit), 0);
}

static void habit_compare(const struct habit *habit)
{
	size_t wrong = 0;
	size_t first = 0;
	for (size_t at = habit->length_bytes; at != 0; at -= habit->page_bytes) {
		size_t page = at - habit->page_bytes;
		if (memcmp(habit->image + page, habit->copy + page, habit->page_bytes) != 0) {
			first = page;
			wrong++;
		}
	}
	if (wrong != 0) {
		fprintf(stderr, "%s: %zu of %zu pages of the image are wrong, the first at %#zx\n",
		        habit_name(habit->which), wrong, habit->pages, first);
		abort();
	}
}

int habit_try_end(struct habit *habit)
{
	gate_open(&habit->gate);
	int rc = uffdwp_snapshot_wait(habit->snapshot, -1, NULL);
	char why[512] = "";
	if (rc != 0) {
		must(uffdwp_snapshot_text(habit->snapshot, why, sizeof(why)) != 0); /* a failure says why */
		fprintf(stderr, "%s: %s\n", habit_name(habit->which), why);
	} else {
		habit_compare(habit);
	}
	must_be(habit->runtime, uffdwp_snapshot_free(habit->snapshot), 0);
	habit->snapshot = NULL;
	return rc;
}

void habit_end(struct habit *habit)
{
	must_be(habit->runtime, habit_try_end(habit), 0);
}

static void habit_write_half(struct habit *habit, uint64_t salt)
{
	struct chance chance = chance_new(salt);
	for (size_t page = salt % 2; page < habit->pages; page += 2) {
		habit_write(habit, page, chance_below(&chance, habit->page_bytes), (uint8_t)chance_next(&chance));
	}
}

void habit_round(struct habit *habit, uint64_t salt)
{
	habit_cut(habit);
	habit_write_half(habit, salt);
	habit_end(habit);
}

void habit_says_why(void)
{
	char why[512] = "";
	must(uffdwp_error_text(why, sizeof(why)) != 0);
	fprintf(stderr, "  %s\n", why);
}

int habit_try_round(struct habit *habit, uint64_t salt)
{
	int rc = habit_try_cut(habit);
	if (rc != 0) {
		habit_says_why();
		habit_write_half(habit, salt);
		return rc;
	}
	habit_write_half(habit, salt);
	rc = habit_try_end(habit);
	habit_write_half(habit, salt + 1);
	return rc;
}

int habit_factor(void)
{
	const char *is_long = getenv("UFFDWP_TEST_LONG");
	return is_long != NULL && strcmp(is_long, "1") == 0 ? HABIT_LONG_FACTOR : 1;
}

/* --- children --------------------------------------------------------------------------------------------------- */

int habit_child(void (*function)(void *), void *argument)
{
	fflush(NULL);
	pid_t child = fork();
	if (child == 0) {
		(void)signal(SIGALRM, SIG_DFL);
		pace_alarm(HABIT_CHILD_SECONDS);
		function(argument);
		fflush(NULL);
		_exit(0);
	}
	must(child > 0);
	int status = -1;
	while (waitpid(child, &status, 0) < 0) {
		must(errno == EINTR);
	}
	if (WIFSIGNALED(status)) {
		fprintf(stderr, "the child was ended by signal %d (%s)\n", WTERMSIG(status),
		        strsignal(WTERMSIG(status)));
	}
	return status;
}
