/* SPDX-License-Identifier: MIT */
/*
 * See memory.h. Private_Clean, _Dirty and _Hugetlb add up to what is private.
 */
#include "memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

/* The KiB of all lines that begin with `key`, as bytes; *found counts them. */
static uint64_t sum_of(const char *text, const char *key, int *found)
{
	uint64_t sum = 0;

	for (const char *line = text; line; line = strchr(line, '\n')) {
		const char *value;

		line += *line == '\n';
		if (strncmp(line, key, strlen(key)) != 0)
			continue;
		value = strchr(line, ':');
		if (!value)
			continue;
		sum += strtoull(value + 1, NULL, 10) << 10;
		(*found)++;
	}
	return sum;
}

int memory_parse(const char *text, struct memory_use *use)
{
	int pss = 0;
	int private = 0;
	int anon = 0;

	use->pss_bytes = sum_of(text, "Pss:", &pss);
	use->private_bytes = sum_of(text, "Private_", &private);
	use->anon_bytes = sum_of(text, "Pss_Anon:", &anon);
	return pss == 1 && private >= 2 ? 0 : -EINVAL;
}

static int memory_read_text(pid_t process, const char *name, char *text, size_t size)
{
	char path[64];
	ssize_t got;
	int error;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)process, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	got = read(fd, text, size - 1);
	error = got < 0 ? -errno : 0;
	close(fd);
	text[got < 0 ? 0 : got] = '\0';
	return error;
}

uint64_t memory_status_bytes(pid_t process, const char *key)
{
	char text[4096] = "";
	int found = 0;

	return memory_read_text(process, "status", text, sizeof(text)) ? 0 : sum_of(text, key, &found);
}

int memory_read(pid_t process, struct memory_use *use)
{
	char text[4096] = "";
	int error = memory_read_text(process, "smaps_rollup", text, sizeof(text));

	memset(use, 0, sizeof(*use));
	return error ? error : memory_parse(text, use);
}

static void thin_out(struct memory_sampler *sampler)
{
	for (size_t i = 0; i < MEMORY_SAMPLES / 2; i++)
		sampler->samples[i] = sampler->samples[2 * i];
	sampler->count = MEMORY_SAMPLES / 2;
	sampler->period_ns *= 2;
	atomic_fetch_add(&sampler->thinned, 1);
}

static int take_sample(struct memory_sampler *sampler)
{
	struct memory_sample sample = {0};
	pid_t child = atomic_load(&sampler->child);
	uint64_t from = bench_now_ns();
	int error = memory_read(getpid(), &sample.own);

	if (error)
		return error;
	if (child)
		memory_read(child, &sample.child);
	sample.at_ns = from + (bench_now_ns() - from) / 2;
	if (sampler->count == MEMORY_SAMPLES)
		thin_out(sampler);
	sampler->samples[sampler->count++] = sample;
	return 0;
}

static void *take_samples(void *argument)
{
	struct memory_sampler *sampler = argument;

	while (!atomic_load(&sampler->end)) {
		struct timespec pause = {(time_t)(sampler->period_ns / 1000000000u),
		                         (long)(sampler->period_ns % 1000000000u)};

		nanosleep(&pause, NULL);
		take_sample(sampler);
	}
	return NULL;
}

void memory_sampler_start(struct memory_sampler *sampler, uint64_t period_ns)
{
	/* Touches all of it: the sampler's own memory must not be found by its samples. */
	explicit_bzero(sampler, sizeof(*sampler));
	sampler->period_ns = period_ns;
	bench_must(take_sample(sampler), "/proc/self/smaps_rollup");
	bench_must(-pthread_create(&sampler->thread, NULL, take_samples, sampler), "a thread that looks at the memory");
}

void memory_sampler_child(struct memory_sampler *sampler, pid_t child)
{
	atomic_store(&sampler->child, child);
}

void memory_sampler_stop(struct memory_sampler *sampler)
{
	atomic_store(&sampler->end, 1);
	pthread_join(sampler->thread, NULL);
	take_sample(sampler);
}

uint64_t memory_extra_pss(const struct memory_sampler *sampler)
{
	uint64_t most = 0;

	for (size_t i = 0; i < sampler->count; i++) {
		const struct memory_sample *sample = &sampler->samples[i];
		uint64_t sum = sample->own.pss_bytes + sample->child.pss_bytes;

		sum = bench_minus(sum, sampler->samples[0].own.pss_bytes);
		most = sum > most ? sum : most;
	}
	return most;
}

uint64_t memory_extra_private(const struct memory_sampler *sampler)
{
	uint64_t most = 0;

	for (size_t i = 0; i < sampler->count; i++) {
		const struct memory_sample *sample = &sampler->samples[i];
		uint64_t sum = sample->own.private_bytes + sample->child.private_bytes;

		sum = bench_minus(sum, sampler->samples[0].own.private_bytes);
		most = sum > most ? sum : most;
	}
	return most;
}
