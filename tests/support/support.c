/* SPDX-License-Identifier: MIT */
/* See support.h. */
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/signals.h"
#include "chance.h"
#include "pace.h"
#include "scratch.h"
#include "settings.h"

static int huge_pages_here;
static int swap_here;

void support_begin(const char *program, const struct support_needs *needs)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("%s: UFFDWP_SEED=%llu\n", program, (unsigned long long)chance_seed());
	if (scratch_begin() != 0) {
		printf("%s: no scratch folder: %s\n", program, strerror(errno));
		exit(1);
	}
	settings_begin();
	pace_check();
	if (needs->huge_pages != 0) {
		huge_pages_here = settings_huge_pages(needs->huge_pages) == 0;
		if (!huge_pages_here) {
			support_note(program, "no huge pages");
		}
	}
	if (needs->swap) {
		swap_here = settings_swap() == 0;
	}
}

int support_run(Suite *suite)
{
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

int support_has_huge_pages(void)
{
	return huge_pages_here;
}

int support_has_swap(void)
{
	return swap_here;
}

static void support_expect_wiped(void *page)
{
	must(*(volatile char *)page == 0);
}

int support_may_force_writes(void)
{
	char *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	must(page != MAP_FAILED);
	int may = mem >= 0 && pwrite(mem, "", 1, (off_t)(uintptr_t)page) == 1;
	(void)munmap(page, 4096);
	if (mem >= 0) {
		(void)close(mem);
	}
	return may;
}

int support_wipes_on_fork(void)
{
	char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(page != MAP_FAILED);
	int taken = madvise(page, 4096, MADV_WIPEONFORK) == 0;
	*page = 1;
	int wiped = taken && child_run(support_expect_wiped, page) == 0;
	(void)munmap(page, 4096);
	return wiped || !taken;
}

/* Lines of first inside, first outside, count (user_namespaces(7)); without user namespaces there is no file. */
static int is_mapped(const char *path, unsigned long wanted)
{
	unsigned long first = 0;
	unsigned long count = 0;
	FILE *map = fopen(path, "re");
	int found = map == NULL;
	while (map != NULL && !found && fscanf(map, "%lu %*u %lu", &first, &count) == 2) {
		found = wanted >= first && wanted - first < count;
	}
	if (map != NULL) {
		(void)fclose(map);
	}
	return found;
}

int support_may_change_user(void)
{
	return geteuid() == 0 && is_mapped("/proc/self/uid_map", 65534) && is_mapped("/proc/self/gid_map", 65534);
}

int support_skip(const char *reason)
{
	printf("skipped: %s\n", reason);
	return 77;
}

void support_memory(uint64_t *mapped, uint64_t *resident)
{
	unsigned long pages[2];
	FILE *file = fopen("/proc/self/statm", "re");
	must(file != NULL);
	int taken = fscanf(file, "%lu %lu", &pages[0], &pages[1]);
	int closed = fclose(file);
	must(taken == 2 && closed == 0);
	if (mapped != NULL) {
		*mapped = (uint64_t)pages[0] * (uint64_t)sysconf(_SC_PAGESIZE);
	}
	if (resident != NULL) {
		*resident = (uint64_t)pages[1] * (uint64_t)sysconf(_SC_PAGESIZE);
	}
}

void support_note(const char *test, const char *reason)
{
	printf("not tested here: %s: %s\n", test, reason);
}

void support_block_signals(void)
{
	sigset_t before;
	signals_block_but_faults(&before);
}

void must_hold(int holds, const char *file, int line, const char *text)
{
	if (!holds) {
		fprintf(stderr, "%s:%d: must hold: %s\n", file, line, text);
		abort();
	}
}

unsigned support_rounds(unsigned quick, unsigned all)
{
	return getenv("UFFDWP_TEST_LONG") != NULL ? all : quick;
}

pthread_t thread_start(void *(*function)(void *), void *argument)
{
	pthread_t thread;
	must(pthread_create(&thread, NULL, function, argument) == 0);
	return thread;
}

void thread_join(pthread_t thread)
{
	must(pthread_join(thread, NULL) == 0);
}

void lock_for_writers_init(pthread_rwlock_t *lock)
{
	pthread_rwlockattr_t attributes;
	must(pthread_rwlockattr_init(&attributes) == 0);
#ifdef PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP
	must(pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP) == 0);
#endif
	must(pthread_rwlock_init(lock, &attributes) == 0);
	(void)pthread_rwlockattr_destroy(&attributes);
}

int child_run(void (*function)(void *), void *argument)
{
	fflush(NULL);
	pid_t child = fork();
	if (child == 0) {
		function(argument);
		fflush(NULL);
		_exit(0);
	}
	must(child > 0);
	int status = -1;
	while (waitpid(child, &status, 0) < 0) {
		must(errno == EINTR);
	}
	return status;
}

void sleep_us(unsigned long microseconds)
{
	struct timespec pause = {(time_t)(microseconds / 1000000), (long)(microseconds % 1000000) * 1000};
	while (nanosleep(&pause, &pause) != 0 && errno == EINTR) {
	}
}

int wait_until(int (*ready)(void *), void *argument, unsigned seconds)
{
	unsigned long bound_us = pace_seconds(seconds) * 1000000ul;
	for (unsigned long waited_us = 0; waited_us < bound_us; waited_us += 500) {
		if (ready(argument)) {
			return 1;
		}
		sleep_us(500);
	}
	return ready(argument) != 0;
}
