/* SPDX-License-Identifier: MIT */
/* The stand-in for a monitor: its rounds of snapshots; see monitor.h. */
#include "monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "uffdwp.h"

#define CHAIN 16 /* deltas until a raw image again */
#define NAME_BYTES 64

/* SIGUSR1: from now on others disturb it. 2: said. */
static volatile sig_atomic_t monitor_disturbed;

static void monitor_note_signal(int number)
{
	(void)number;
	monitor_disturbed = 1;
}

static void monitor_name(const struct monitor *monitor, unsigned round, char name[NAME_BYTES])
{
	(void)snprintf(name, NAME_BYTES, "%.32s-%u.%s", monitor->options.name, round, round % CHAIN ? "delta" : "raw");
}

static int monitor_has_deltas(const struct monitor *monitor)
{
	return !monitor->options.is_huge;
}

static void monitor_request(const struct monitor *monitor, unsigned round, char line[512])
{
	char name[NAME_BYTES];
	char parent[NAME_BYTES];

	monitor_name(monitor, round, name);
	if (round % CHAIN && monitor_has_deltas(monitor)) {
		monitor_name(monitor, round - 1, parent);
		(void)snprintf(line, 512, "{\"do\":\"snapshot\",\"path\":\"%s\",\"parent\":\"%s\",\"keep\":true}\n",
		               name, parent);
	} else {
		(void)snprintf(line, 512, "{\"do\":\"snapshot\",\"path\":\"%s\",\"keep\":%s}\n", name,
		               monitor_has_deltas(monitor) ? "true" : "false");
	}
}

static void monitor_expect_ok(const char *answer, const char *what)
{
	if (strncmp(answer, "{\"ok\":true", 10) != 0)
		monitor_fail("%s: %s", what, answer);
}

/* LOCKED: pages that changed since the last cut go to `expected`, and are noted in `changed`. */
static void monitor_copy_shadow(struct monitor *monitor, uint8_t *changed)
{
	for (size_t i = 0; i < monitor->length / monitor->page_bytes; i++) {
		changed[i] = atomic_exchange(&monitor->changed[i], 0);
		if (changed[i])
			memcpy(monitor->expected + i * monitor->page_bytes, monitor->shadow + i * monitor->page_bytes,
			       monitor->page_bytes);
	}
}

static void monitor_remove_chain(const struct monitor *monitor, unsigned round)
{
	char path[PATH_MAX];
	char name[NAME_BYTES];

	for (unsigned i = round < CHAIN ? 0 : round - CHAIN; i < round; i++) {
		monitor_name(monitor, i, name);
		(void)snprintf(path, sizeof(path), "%s/%s", monitor->options.snapshots, name);
		(void)unlink(path);
	}
}

static void monitor_round(struct monitor *monitor, unsigned round, uint8_t *changed)
{
	char line[512];
	char name[NAME_BYTES];
	uint64_t least = 0;

	monitor_name(monitor, round, name);
	monitor_request(monitor, round, line);
	if (!monitor->options.counters) {
		(void)pthread_mutex_lock(&monitor->lock);
		monitor_copy_shadow(monitor, changed);
	} else {
		least = atomic_load(&monitor->counter);
	}
	const char *answer = monitor_ask(monitor, line);
	uint64_t most = atomic_load(&monitor->counter);

	if (!monitor->options.counters)
		(void)pthread_mutex_unlock(&monitor->lock);
	monitor_expect_ok(answer, "a snapshot");
	monitor_expect_ok(monitor_ask(monitor, "{\"do\":\"wait\"}\n"), "a snapshot failed");
	if (monitor->options.counters)
		monitor_check_counters(monitor, name, least, most);
	else
		monitor_check_image(monitor, name, changed, round % 8 == 0 || !monitor_has_deltas(monitor));
	if (round && (round % CHAIN == 0 || !monitor_has_deltas(monitor)))
		monitor_remove_chain(monitor, round);
}

static int monitor_goes_on(const struct monitor *monitor, unsigned round)
{
	return monitor->options.until ? access(monitor->options.until, F_OK) != 0 : round < monitor->options.rounds;
}

static void monitor_sleep(unsigned ms)
{
	const struct timespec time = {ms / 1000, (long)(ms % 1000) * 1000000};

	(void)nanosleep(&time, NULL);
}

static void monitor_save_expected(const struct monitor *monitor)
{
	char path[PATH_MAX];
	size_t done = 0;

	(void)snprintf(path, sizeof(path), "%s/%s.expected", monitor->options.snapshots, monitor->options.name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	while (fd >= 0 && done < monitor->length) {
		ssize_t got = write(fd, monitor->expected + done, monitor->length - done);

		if (got <= 0)
			monitor_fail("%s: %s", path, strerror(errno));
		done += (size_t)got;
	}
	(void)close(fd);
}

static void monitor_run_rounds(struct monitor *monitor)
{
	uint8_t *changed = calloc(monitor->page_count + 1, 1);
	char name[NAME_BYTES];
	unsigned round = 0;

	if (!changed)
		monitor_fail("no memory");
	for (; monitor_goes_on(monitor, round); round++) {
		monitor_sleep(monitor->options.interval_ms);
		if (monitor_disturbed == 1) {
			monitor_disturbed = 2;
			monitor_print_latency(monitor, "before hostile clients");
		}
		if (monitor->options.is_firecracker)
			monitor_discard(monitor, monitor->options.seed + round);
		else
			monitor_round(monitor, round, changed);
	}
	free(changed);
	monitor_name(monitor, round - 1, name);
	printf("monitor %s: %u %s are as they have to be, the last is %s, %llu writes\n", monitor->options.name, round,
	       monitor->options.is_firecracker ? "discards" : "images", name,
	       (unsigned long long)atomic_load(&monitor->writes));
	if (monitor->options.leaves_last)
		monitor_save_expected(monitor);
	else if (!monitor->options.is_firecracker)
		monitor_remove_chain(monitor, round);
}

static void monitor_run(struct monitor *monitor)
{
	pthread_t threads[MONITOR_WRITERS];

	(void)pthread_mutex_init(&monitor->lock, NULL);
	(void)signal(SIGUSR1, monitor_note_signal);
	monitor_open(monitor);
	monitor_start_writers(monitor, threads);
	monitor_run_rounds(monitor);
	atomic_store(&monitor->stop, 1);
	for (unsigned i = 0; i < (monitor->options.counters ? 1 : MONITOR_WRITERS); i++)
		(void)pthread_join(threads[i], NULL);
	if (!monitor->options.counters)
		monitor_check_memory(monitor);
	if (monitor->socket >= 0) {
		monitor_expect_ok(monitor_ask(monitor, "{\"do\":\"status\",\"id\":7}\n"), "status");
		monitor_expect_ok(monitor_ask(monitor, "{\"do\":\"bye\"}\n"), "bye");
		if (!monitor->options.counters)
			monitor_check_memory(monitor); /* it stays */
	}
	monitor_print_latency(monitor, monitor_disturbed ? "then" : "alone");
}

static const char *monitor_value(const char *argument, const char *name)
{
	size_t length = strlen(name);

	return strncmp(argument, name, length) == 0 && argument[length] == '=' ? argument + length + 1 : NULL;
}

static int monitor_take(struct monitor_options *options, const char *argument)
{
	const struct {
		const char *name;
		const char **to;
	} texts[] = {{"socket", &options->socket}, {"name", &options->name},           {"image", &options->image},
	             {"raw", &options->raw},       {"snapshots", &options->snapshots}, {"until", &options->until}};
	const char *value;

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		if ((value = monitor_value(argument, texts[i].name)) != NULL) {
			*texts[i].to = value;
			return 0;
		}
	}
	if ((value = monitor_value(argument, "seed")) != NULL)
		options->seed = strtoull(value, NULL, 10);
	else if ((value = monitor_value(argument, "rounds")) != NULL)
		options->rounds = (unsigned)strtoul(value, NULL, 10);
	else if ((value = monitor_value(argument, "interval")) != NULL)
		options->interval_ms = (unsigned)strtoul(value, NULL, 10);
	else if (strcmp(argument, "huge") == 0)
		options->is_huge = 1;
	else if (strcmp(argument, "firecracker") == 0)
		options->is_firecracker = 1;
	else if (strcmp(argument, "counters") == 0)
		options->counters = 1;
	else if (strcmp(argument, "leave") == 0)
		options->leaves_last = 1;
	else
		return -1;
	return 0;
}

int main(int argc, char **argv)
{
	static struct monitor monitor = {.options = {.name = "vm", .rounds = 1, .interval_ms = 200}};

	for (int i = 1; i < argc; i++) {
		if (monitor_take(&monitor.options, argv[i]) != 0)
			monitor_fail("'%s' is not understood", argv[i]);
	}
	if (!monitor.options.socket || !monitor.options.raw)
		monitor_fail("socket= and raw= are missing");
	monitor_run(&monitor);
	return 0;
}
