/* SPDX-License-Identifier: MIT */
/*
 * A handler thread goes to the CPU of the thread whose faults it resolves, and back to all CPUs where several threads
 * meet faults. The witness is the kernel's own list of where each thread may run.
 */
#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "place.h"
#include "support.h"

#define PAGES 256

static struct place place;
static cpu_set_t all;
static int cpus[2];
static size_t here; /* the page whose turn it is */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t moved = PTHREAD_COND_INITIALIZER;

static int find_cpus(void)
{
	int count = 0;
	must(sched_getaffinity(0, sizeof(all), &all) == 0);
	for (int cpu = 0; cpu < CPU_SETSIZE && count < 2; cpu++) {
		if (CPU_ISSET((size_t)cpu, &all)) {
			cpus[count++] = cpu;
		}
	}
	return count == 2;
}

static void go_to(int cpu)
{
	cpu_set_t one;
	CPU_ZERO(&one);
	CPU_SET((size_t)cpu, &one);
	must(sched_setaffinity(0, sizeof(one), &one) == 0);
}

/* How many of our handler threads may run on this CPU alone; -1: on any of ours. */
static unsigned handlers_on(int cpu)
{
	unsigned count = 0;
	DIR *tasks = opendir("/proc/self/task");
	must(tasks != NULL);
	for (struct dirent *entry; (entry = readdir(tasks)) != NULL;) {
		char path[300];
		char name[32] = "";
		cpu_set_t may;
		(void)snprintf(path, sizeof(path), "/proc/self/task/%s/comm", entry->d_name);
		FILE *file = fopen(path, "r");
		int is_handler = file != NULL && fgets(name, sizeof(name), file) != NULL &&
		                 strncmp(name, "uffdwp-fault", 12) == 0;
		if (file != NULL) {
			(void)fclose(file);
		}
		if (!is_handler || sched_getaffinity((pid_t)strtol(entry->d_name, NULL, 10), sizeof(may), &may) != 0) {
			continue;
		}
		count += cpu < 0 ? CPU_EQUAL(&may, &all) != 0 : CPU_COUNT(&may) == 1 && CPU_ISSET((size_t)cpu, &may);
	}
	must(closedir(tasks) == 0);
	return count;
}

static void write_pages(void)
{
	must(uffdwp_region_arm(place.region, 0, place.length_bytes) == 0);
	for (size_t page = 0; page < place.pages; page++) {
		place.base[page * place.page_bytes]++;
	}
}

static void open_place(void)
{
	place_open(&place, (struct place_case){UFFDWP_MEMORY_SHMEM, UFFDWP_MECHANISM_AUTO, UFFDWP_DELIVERY_THREAD},
	           PAGES);
	place_fill(&place, 1);
}

static int possible(const char *test)
{
	if (!place_possible((struct place_case){UFFDWP_MEMORY_SHMEM, UFFDWP_MECHANISM_AUTO, UFFDWP_DELIVERY_THREAD})) {
		return 0;
	}
	if (!find_cpus()) {
		support_note(test, "one CPU");
		return 0;
	}
	return 1;
}

/* A look is made every ten milliseconds at most: the writer goes on until it has happened. */
START_TEST(test_handler_follows_the_one_writer)
{
	if (!possible(__func__)) {
		return;
	}
	open_place();
	for (int i = 0; i < 4; i++) {
		go_to(cpus[i % 2]);
		while (handlers_on(cpus[i % 2]) != 1) {
			write_pages();
		}
		ck_assert_uint_eq(handlers_on(cpus[(i + 1) % 2]), 0);
	}
	must(sched_setaffinity(0, sizeof(all), &all) == 0);
	place_close(&place);
}
END_TEST

/* In turns, so that as many faults are of each. */
static void *write_in_turns(void *argument)
{
	size_t mine = (size_t)(uintptr_t)argument;
	must(pthread_mutex_lock(&lock) == 0);
	for (size_t page = mine; page < place.pages; page += 2) {
		while (here != page) {
			must(pthread_cond_wait(&moved, &lock) == 0);
		}
		place.base[page * place.page_bytes]++;
		here++;
		must(pthread_cond_broadcast(&moved) == 0);
	}
	must(pthread_mutex_unlock(&lock) == 0);
	return NULL;
}

START_TEST(test_handler_of_two_writers_stays_anywhere)
{
	if (!possible(__func__)) {
		return;
	}
	open_place();
	unsigned handlers = handlers_on(-1);
	go_to(cpus[1]);
	while (handlers_on(cpus[1]) != 1) {
		write_pages();
	}
	must(sched_setaffinity(0, sizeof(all), &all) == 0);
	must(uffdwp_region_arm(place.region, 0, place.length_bytes) == 0);
	here = 0;
	pthread_t threads[2];
	for (size_t i = 0; i < 2; i++) {
		threads[i] = thread_start(write_in_turns, (void *)(uintptr_t)i);
	}
	for (size_t i = 0; i < 2; i++) {
		thread_join(threads[i]);
	}
	ck_assert_uint_eq(handlers_on(-1), handlers);
	place_close(&place);
}
END_TEST

/* Where the program has said where handlers may run none goes elsewhere. */
START_TEST(test_handler_stays_where_it_was_put)
{
	if (!possible(__func__)) {
		return;
	}
	struct uffdwp_options options = UFFDWP_OPTIONS_INIT;
	char name[16];
	(void)snprintf(name, sizeof(name), "%d", cpus[0]);
	options.handler_cpus = name;
	options.handler_threads = 1;
	memset(&place, 0, sizeof(place));
	ck_assert_int_eq(uffdwp_open(&options, &place.runtime), 0);
	place.page_bytes = place_page_bytes(UFFDWP_MEMORY_SHMEM);
	place.pages = PAGES;
	place.length_bytes = PAGES * place.page_bytes;
	struct uffdwp_region_options region = UFFDWP_REGION_OPTIONS_INIT;
	region.delivery = UFFDWP_DELIVERY_THREAD;
	ck_assert_int_eq(uffdwp_region_create(place.runtime, place.length_bytes, &region, &place.region), 0);
	place.base = uffdwp_region_base(place.region);
	go_to(cpus[1]);
	for (int round = 0; round < 2; round++) {
		write_pages();
	}
	ck_assert_uint_eq(handlers_on(cpus[0]), 1);
	ck_assert_uint_eq(handlers_on(cpus[1]), 0);
	must(sched_setaffinity(0, sizeof(all), &all) == 0);
	ck_assert_int_eq(uffdwp_region_close(place.region), 0);
	ck_assert_int_eq(uffdwp_close(place.runtime), 0);
}
END_TEST

int main(void)
{
	support_begin("test_follow", &(struct support_needs){0});
	place_begin();
	Suite *suite = suite_create("follow");
	TCase *tests = tcase_create("follow");
	tcase_set_timeout(tests, 300);
	tcase_add_test(tests, test_handler_follows_the_one_writer);
	tcase_add_test(tests, test_handler_of_two_writers_stays_anywhere);
	tcase_add_test(tests, test_handler_stays_where_it_was_put);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
