/* SPDX-License-Identifier: MIT */
/*
 * What the tests of uffdwp-ctl dirty share: the program that it runs is the test program itself, in a role that is
 * named by --role; memory that a role writes page by page; running the command and gathering what it prints.
 */
#ifndef TEST_DIRTY_H
#define TEST_DIRTY_H

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernel/abi.h"
#include "kernel/probe.h"
#include "pace.h"
#include "scratch.h"
#include "support.h"
#include "uffdwp.h"

#define PAGES 500
#define OUTPUT_BYTES 65536
#define ARGUMENTS 16
#define TIME_LIMIT_S 60

static const char *program; /* uffdwp-ctl */
static char self[SCRATCH_PATH];
static size_t page_bytes;

/* --------------------------------------------------------------------------------------------------------- roles -- */

struct role {
	char name[16];
	void (*run)(void);
};

/* Waits until each page was looked at, and armed, since it was written. */
static void await_look(const char *memory)
{
	int pagemap = open("/proc/thread-self/pagemap", O_RDONLY | O_CLOEXEC);
	static uint64_t entries[PAGES];
	off_t at = (off_t)((uintptr_t)memory / page_bytes * sizeof(entries[0]));

	must(pagemap >= 0);
	for (int tries = 0; tries < (int)pace_seconds(TIME_LIMIT_S) * 1000; tries++) {
		size_t armed = 0;

		must(pread(pagemap, entries, sizeof(entries), at) == (ssize_t)sizeof(entries));
		for (size_t i = 0; i < PAGES; i++) {
			armed += (entries[i] & PAGEMAP_UFFD_WP) != 0;
		}
		if (armed == PAGES) {
			close(pagemap);
			return;
		}
		usleep(1000);
	}
	must(0); /* no look came */
}

/* Memory that has a name of its own in the report. */
static char *new_memory(const char *name, int sharing)
{
	int fd = memfd_create(name, MFD_CLOEXEC);
	char *memory;

	must(fd >= 0 && ftruncate(fd, (off_t)(PAGES * page_bytes)) == 0);
	memory = mmap(NULL, PAGES * page_bytes, PROT_READ | PROT_WRITE, sharing, fd, 0);
	must(memory != MAP_FAILED);
	close(fd);
	return memory;
}

static void write_round(char *memory)
{
	for (size_t i = 0; i < PAGES; i++) {
		memory[i * page_bytes]++;
	}
}

static int play(const struct role *roles, size_t count, const char *name)
{
	(void)pace_seconds(1); /* measured before a role gives its rights up */
	for (size_t i = 0; i < count; i++) {
		if (strcmp(roles[i].name, name) == 0) {
			roles[i].run();
			return 0;
		}
	}
	return 99;
}

/* ------------------------------------------------------------------------------------------------------- running -- */

struct outcome {
	int status;
	char out[OUTPUT_BYTES];
	char err[OUTPUT_BYTES];
	char folder[SCRATCH_PATH];
	char json[SCRATCH_PATH];
};

static struct outcome outcome;

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

static void redirect(int target, const char *path, int flags)
{
	int fd = open(path, flags, 0644);

	must(fd >= 0 && dup2(fd, target) == target);
	close(fd);
}

/* Runs arguments with stdin from `input` ("": none), and gathers what it prints. */
static void run(const char *const *arguments, const char *input, void (*before)(void))
{
	char out[SCRATCH_PATH];
	char err[SCRATCH_PATH];
	char in[SCRATCH_PATH];
	pid_t child;

	scratch_join(out, outcome.folder, "out");
	scratch_join(err, outcome.folder, "err");
	scratch_join(in, outcome.folder, "in");
	scratch_write(in, input, strlen(input));
	child = fork();
	ck_assert_int_ge(child, 0);
	if (child == 0) {
		redirect(STDIN_FILENO, in, O_RDONLY);
		redirect(STDOUT_FILENO, out, O_WRONLY | O_CREAT | O_TRUNC);
		redirect(STDERR_FILENO, err, O_WRONLY | O_CREAT | O_TRUNC);
		if (before) {
			before();
		}
		execv(arguments[0], (char **)(uintptr_t)arguments);
		_exit(126);
	}
	ck_assert_int_eq(waitpid(child, &outcome.status, 0), child);
	read_text(out, outcome.out);
	read_text(err, outcome.err);
}

static void new_folder(void)
{
	scratch_folder(outcome.folder);
	scratch_join(outcome.json, outcome.folder, "json");
	ck_assert_int_eq(chmod(outcome.folder, 0777), 0);
}

/* ---------------------------------------------------------------------------------------------------------- main -- */

static int async_works(void)
{
	struct probe_report probe = {0};

	return probe_run(&kernel_real, &probe) == 0 &&
	       probe.memory[UFFDWP_MEMORY_ANON].rungs[UFFDWP_MECHANISM_ASYNC].works != 0;
}

/* What a test program needs before its tests. 0, or its exit code. */
static int dirty_begin(const char *name)
{
	const char *sanitizers = getenv("UFFDWP_SANITIZE");

	support_begin(name, &(struct support_needs){.swap = 0});
	program = getenv("UFFDWP_CTL");
	if (!program || access(program, X_OK) != 0) {
		return support_skip("UFFDWP_CTL names no program (built with UFFDWP_TOOLS?)");
	}
	if (sanitizers && sanitizers[0]) {
		return support_skip("a program with a sanitizer wants to be loaded first; tools_dirty runs others");
	}
	if (!async_works()) {
		return support_skip("no asynchronous tracking here (uffdwp-ctl doctor says why)");
	}
	return 0;
}

static void find_self(void)
{
	ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);

	must(length > 0);
	page_bytes = (size_t)sysconf(_SC_PAGESIZE);
}

#endif
