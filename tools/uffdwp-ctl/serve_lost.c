/* SPDX-License-Identifier: MIT */
/*
 * A client's memory that is not as it was handed over any more; see serve.h and SERVE.md.
 *
 * What the process that has the memory does to it is reported by its userfaultfd, and makes the region dead: a part was
 * unmapped or moved, or it has forked. Two things raise no event. A process that executes another program has
 * new memory: the kernel answers a call of the old userfaultfd with ESRCH. A file that was made shorter raises SIGBUS
 * where this process reads it: its length is looked at before each command. Where it is made shorter after that look,
 * the handler of SIGBUS sends what was lost, and the process ends by the signal.
 *
 * Memory that is lost ends what runs, and no connection: each further command is answered.
 *
 * Threads: the first of a client's process; the handler of SIGBUS runs in any of them.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernel/abi.h"
#include "serve.h"

#define NOT_MAPPED 65536 /* an address where no process has memory of a userfaultfd: mmap_min_addr is there */

/* ---- looks ---- */

static int serve_lost_region(struct serve_client *client)
{
	char text[SERVE_TEXT];
	struct uffdwp_region_info info = {.sz = sizeof(info)};
	uint64_t pages;

	if (uffdwp_region_info(client->region, &info) != 0 || !info.dead ||
	    uffdwp_region_armed(client->region, 0, info.page_bytes, &pages) != -ESTALE)
		return 0;
	(void)serve_fail_library(text, -ESTALE);
	char *advice = strstr(text, ": close it");

	if (advice)
		*advice = '\0';
	return serve_fail(client->lost, -ESTALE, "the memory is not as it was handed over any more: %.400s", text);
}

/* The kernel looks for the process before it looks for the memory, of which there is none. */
static int serve_lost_process(struct serve_client *client)
{
	struct uffdio_writeprotect nothing = {.range = {NOT_MAPPED, (uint64_t)sysconf(_SC_PAGESIZE)}};

	if (ioctl(client->uffd, UFFDIO_WRITEPROTECT, &nothing) == 0 || errno != ESRCH)
		return 0;
	return serve_fail(client->lost, -EOWNERDEAD,
	                  "the process that had the memory has ended, or executed another program");
}

static int serve_lost_file(struct serve_client *client)
{
	const struct serve_memory *memory = &client->handshake.memory;
	uint64_t end = memory->memfd_offset + memory->length;
	struct stat status;

	if (client->memfd < 0 || fstat(client->memfd, &status) != 0 || (uint64_t)status.st_size >= end)
		return 0;
	return serve_fail(client->lost, -ENXIO,
	                  "the file of the memory was made shorter: it has %llu bytes, and the memory ends at %llu",
	                  (unsigned long long)status.st_size, (unsigned long long)end);
}

int serve_lost_look(struct serve_client *client)
{
	int error = client->lost_error;

	if (!error)
		error = serve_lost_region(client);
	if (!error)
		error = serve_lost_process(client);
	if (!error)
		error = serve_lost_file(client);
	client->lost_error = error;
	return error;
}

/* ---- what is said at SIGBUS ---- */

static struct {
	_Atomic int is_taken;
	int connection;
	size_t length;
	char line[512];
} serve_lost_words = {.connection = -1};

/* The process ends by the signal afterwards. */
static void serve_lost_on_bus(int number)
{
	if (atomic_exchange(&serve_lost_words.is_taken, 1))
		return; /* another thread is about it, and the signal's default with it */
	(void)!send(serve_lost_words.connection, serve_lost_words.line, serve_lost_words.length,
	            MSG_NOSIGNAL | MSG_DONTWAIT);
	(void)signal(number, SIG_DFL);
	(void)raise(number);
}

void serve_lost_prepare(const struct serve_client *client, int64_t id)
{
	char number[40] = "";

	if (client->handshake.is_firecracker) /* it expects no answer */
		return;
	if (id >= 0)
		(void)snprintf(number, sizeof(number), "\"id\":%lld,", (long long)id);
	serve_lost_words.length = 0;
	serve_lost_words.connection = client->stream.fd;
	int length = snprintf(serve_lost_words.line, sizeof(serve_lost_words.line),
	                      "{\"ok\":false,%s\"error\":\"EFAULT\",\"text\":\"the file of the memory was made shorter "
	                      "while it was read: the connection ends\"}\n",
	                      number);

	serve_lost_words.length = (size_t)length;
}

void serve_lost_watch(struct serve_client *client, int uffd, int memfd)
{
	struct sigaction action = {.sa_handler = serve_lost_on_bus};

	client->uffd = fcntl(uffd, F_DUPFD_CLOEXEC, 0);
	client->memfd = memfd >= 0 ? fcntl(memfd, F_DUPFD_CLOEXEC, 0) : -1;
	serve_lost_prepare(client, -1);
	(void)sigaction(SIGBUS, &action, NULL);
}
