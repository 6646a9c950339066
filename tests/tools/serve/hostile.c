/* SPDX-License-Identifier: MIT */
/*
 * Clients that mean no good, for tools/test_serve.sh: one after the other, each a process, chosen by a seed, until a
 * file is there. What has to be refused is refused, with a text, or this program fails; and no client keeps a process
 * of the server, which the script counts at the end.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "chance.h"
#include "hostile.h"
#include "monitor.h"

#define ANSWER_MS 600000 /* against hanging alone */

/* ---- parts ---- */

void hostile_connect(struct hostile *hostile)
{
	hostile->socket = monitor_connect(hostile->path);
	if (hostile->socket < 0)
		_exit(0); /* the queue is full, or the server is gone: the script looks for it */
}

void hostile_map(struct hostile *hostile)
{
	hostile->memfd = memfd_create("hostile", MFD_CLOEXEC);
	if (hostile->memfd < 0 || ftruncate(hostile->memfd, (off_t)HOSTILE_LENGTH) != 0)
		monitor_fail("no memory");
	hostile->memory = mmap(NULL, HOSTILE_LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED, hostile->memfd, 0);
	hostile->uffd = monitor_open_uffd();
}

/* A line of the answer; empty: the connection was closed. */
const char *hostile_answer(const struct hostile *hostile)
{
	static char line[65536];
	size_t used = 0;
	struct pollfd wait = {.fd = hostile->socket, .events = POLLIN};

	while (used + 1 < sizeof(line)) {
		if (poll(&wait, 1, ANSWER_MS) <= 0)
			monitor_fail("hostile: the server does not answer");
		if (read(hostile->socket, line + used, 1) <= 0 || line[used] == '\n')
			break;
		used++;
	}
	line[used] = '\0';
	return line;
}

void hostile_send(const struct hostile *hostile, const char *text, const int *descriptors, unsigned count)
{
	(void)monitor_send(hostile->socket, text, strlen(text), descriptors, count);
}

static void hostile_expect(const struct hostile *hostile, const char *error, const char *what)
{
	const char *answer = hostile_answer(hostile);

	if (*answer && (strncmp(answer, "{\"ok\":false", 11) != 0 || !strstr(answer, error)))
		monitor_fail("hostile: %s: the answer is %s", what, answer);
}

void hostile_hello(const struct hostile *hostile, uint64_t offset, uint64_t length, const char *more,
                   const int *descriptors, unsigned count)
{
	char line[512];

	(void)snprintf(line, sizeof(line),
	               "{\"uffdwp\":1,%s\"mappings\":[{\"address\":%llu,\"offset\":%llu,\"length\":%llu}]}\n", more,
	               (unsigned long long)(uintptr_t)hostile->memory, (unsigned long long)offset,
	               (unsigned long long)length);
	hostile_send(hostile, line, descriptors, count);
}

/* A handshake that is right. */
long hostile_begin(struct hostile *hostile, const char *more)
{
	hostile_map(hostile);
	const int descriptors[2] = {hostile->uffd, hostile->memfd};

	hostile_connect(hostile);
	hostile_hello(hostile, 0, HOSTILE_LENGTH, more, descriptors, 2);
	const char *answer = hostile_answer(hostile);

	if (strncmp(answer, "{\"ok\":true", 10) != 0 && !strstr(answer, "EUSERS"))
		monitor_fail("hostile: a good handshake: %s", answer);
	(void)close(hostile->uffd);
	if (strstr(answer, "EUSERS"))
		_exit(0);
	const char *pid = strstr(answer, "\"pid\":");

	return pid ? strtol(pid + strlen("\"pid\":"), NULL, 10) : 0;
}

/* ---- before a handshake ---- */

static void hostile_garbage(struct hostile *hostile)
{
	char bytes[4096];

	chance_fill(&hostile->chance, bytes, sizeof(bytes));
	bytes[0] = 'x';
	hostile_connect(hostile);
	(void)monitor_send(hostile->socket, bytes, sizeof(bytes), NULL, 0);
	hostile_expect(hostile, "E", "garbage");
}

static void hostile_silence(struct hostile *hostile)
{
	hostile_connect(hostile);
	hostile_expect(hostile, "E", "silence");
}

static void hostile_half(struct hostile *hostile)
{
	hostile_connect(hostile);
	hostile_send(hostile, chance_below(&hostile->chance, 2) ? "{\"uffdwp\":1,\"mapp" : "[{\"base_host_virt", NULL,
	             0);
	hostile_expect(hostile, "E", "half a message");
}

/* A gigabyte, as far as it is taken. */
static void hostile_flood(struct hostile *hostile)
{
	static char bytes[65536];

	memset(bytes, '[', sizeof(bytes));
	if (chance_below(&hostile->chance, 2))
		memset(bytes, ' ', sizeof(bytes));
	bytes[0] = '[';
	hostile_connect(hostile);
	for (int i = 0; i < 16384; i++) {
		if (monitor_send(hostile->socket, bytes, sizeof(bytes), NULL, 0) != 0)
			return;
	}
	monitor_fail("hostile: a gigabyte was taken");
}

static void hostile_no_descriptor(struct hostile *hostile)
{
	hostile_map(hostile);
	hostile_connect(hostile);
	hostile_hello(hostile, 0, HOSTILE_LENGTH, "", NULL, 0);
	hostile_expect(hostile, "EBADF", "no descriptor");
}

static void hostile_wrong_descriptors(struct hostile *hostile)
{
	hostile_map(hostile);
	const int wrong[4][2] = {{hostile->memfd, hostile->uffd},
	                         {open("/dev/null", O_RDWR | O_CLOEXEC), hostile->memfd},
	                         {hostile->uffd, open("/etc/passwd", O_RDONLY | O_CLOEXEC)},
	                         {hostile->uffd, socket(AF_UNIX, SOCK_STREAM, 0)}};

	hostile_connect(hostile);
	hostile_hello(hostile, 0, HOSTILE_LENGTH, "", wrong[chance_below(&hostile->chance, 4)], 2);
	hostile_expect(hostile, "EBADF", "a wrong descriptor");
}

static void hostile_many_descriptors(struct hostile *hostile)
{
	int many[60];
	unsigned count = chance_below(&hostile->chance, 2) ? 3 : 60;

	hostile_map(hostile);
	for (unsigned i = 0; i < 60; i++)
		many[i] = i % 2 ? hostile->memfd : hostile->uffd;
	hostile_connect(hostile);
	hostile_hello(hostile, 0, HOSTILE_LENGTH, "", many, count);
	hostile_expect(hostile, "E", "too many descriptors");
}

/* Texts have ' for ". */
static void hostile_unquote(char *to, size_t size, const char *from)
{
	(void)snprintf(to, size, "%s", from);
	for (; *to; to++) {
		if (*to == '\'')
			*to = '"';
	}
}

static void hostile_wrong_mappings(struct hostile *hostile)
{
	static const char *const wrong[] = {
	        "{'uffdwp':1,'mappings':[]}\n",
	        "{'uffdwp':1,'mappings':7}\n",
	        "{'uffdwp':1,'mappings':[7]}\n",
	        "{'uffdwp':2,'mappings':[{'address':65536,'offset':0,'length':65536}]}\n",
	        "{'uffdwp':1,'mappings':[{'address':65537,'offset':0,'length':65536}]}\n",
	        "{'uffdwp':1,'mappings':[{'address':65536,'offset':0,'length':0}]}\n",
	        "{'uffdwp':1,'mappings':[{'address':-65536,'offset':0,'length':65536}]}\n",
	        "{'uffdwp':1,'mappings':[{'address':65536.0,'offset':0,'length':65536}]}\n",
	        "{'uffdwp':1,'mappings':[{'address':72057594037862400,'offset':0,'length':1048576}]}\n",
	        "{'uffdwp':1,'mappings':[{'address':65536,'offset':18446744073709486080,'length':131072}]}\n",
	        "{'uffdwp':1,'hello':1,'mappings':[{'address':65536,'offset':0,'length':65536}]}\n",
	        "{'uffdwp':1,'page_size':5000,'mappings':[{'address':65536,'offset':0,'length':65536}]}\n",
	        "{'uffdwp':1,'image':'../base.raw','mappings':[{'address':65536,'offset':0,'length':65536}]}\n",
	        "{'uffdwp':1,'image':'/etc/passwd','mappings':[{'address':65536,'offset':0,'length':65536}]}\n",
	        "{'uffdwp':1,'mappings':[{'address':65536,'offset':0,'length':65536}]}\n", /* not its own */
	        "[{'base_host_virt_addr':65536,'size':65536,'offset':0}]",
	        "[{'base_host_virt_addr':65536,'size':65536,'offset':0,'page_size':4095}]",
	        "[{'base_host_virt_addr':65536,'size':65536,'offset':0,'page_size':4096}] and more",
	        "[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]",
	};
	char line[512];

	hostile_map(hostile);
	hostile_unquote(line, sizeof(line), wrong[chance_below(&hostile->chance, sizeof(wrong) / sizeof(wrong[0]))]);
	const int descriptors[2] = {hostile->uffd, hostile->memfd};

	hostile_connect(hostile);
	hostile_send(hostile, line, descriptors, *line == '[' ? 1 : 2);
	hostile_expect(hostile, "E", line);
}

/* Two that overlap, by their addresses or by their offsets. */
static void hostile_overlap(struct hostile *hostile)
{
	char line[512];
	int by_address = (int)chance_below(&hostile->chance, 2);

	hostile_map(hostile);
	const int descriptors[2] = {hostile->uffd, hostile->memfd};
	unsigned long long first = (uintptr_t)hostile->memory;
	unsigned long long second = by_address ? first + HOSTILE_PAGE : first + 4 * HOSTILE_PAGE;

	(void)snprintf(line, sizeof(line),
	               "{\"uffdwp\":1,\"mappings\":[{\"address\":%llu,\"offset\":0,\"length\":%zu},"
	               "{\"address\":%llu,\"offset\":%zu,\"length\":%zu}]}\n",
	               first, 2 * HOSTILE_PAGE, second, by_address ? 2 * HOSTILE_PAGE : HOSTILE_PAGE, 2 * HOSTILE_PAGE);
	hostile_connect(hostile);
	hostile_send(hostile, line, descriptors, 2);
	hostile_expect(hostile, "overlap", "mappings that overlap");
}

static void hostile_many_mappings(struct hostile *hostile)
{
	static char line[8192];
	size_t length = (size_t)snprintf(line, sizeof(line), "{\"uffdwp\":1,\"mappings\":[");

	hostile_map(hostile);
	for (unsigned i = 0; i < 17; i++)
		length += (size_t)snprintf(line + length, sizeof(line) - length,
		                           "%s{\"address\":%llu,\"offset\":%zu,\"length\":%zu}", i ? "," : "",
		                           (unsigned long long)(uintptr_t)hostile->memory + 2 * i * HOSTILE_PAGE,
		                           i * HOSTILE_PAGE, HOSTILE_PAGE);
	(void)snprintf(line + length, sizeof(line) - length, "]}\n");
	const int descriptors[2] = {hostile->uffd, hostile->memfd};

	hostile_connect(hostile);
	hostile_send(hostile, line, descriptors, 2);
	hostile_expect(hostile, "EINVAL", "17 mappings");
}

static void hostile_unreported(struct hostile *hostile)
{
	struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_SIGBUS};

	hostile_map(hostile);
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	const int descriptors[2] = {uffd, hostile->memfd};

	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) != 0)
		return;
	hostile_connect(hostile);
	hostile_hello(hostile, 0, HOSTILE_LENGTH, "", descriptors, 2);
	hostile_expect(hostile, "E", "a userfaultfd that reports nothing");
}

/* ---- after it ---- */

static void hostile_commands(struct hostile *hostile)
{
	static const char *const wrong[] = {"\n",
	                                    "{}\n",
	                                    "[]\n",
	                                    "null\n",
	                                    "{'do':7}\n",
	                                    "{'do':'fly'}\n",
	                                    "{'do':'snapshot'}\n",
	                                    "{'do':'snapshot','path':'../x'}\n",
	                                    "{'do':'snapshot','path':'/tmp/x'}\n",
	                                    "{'do':'snapshot','path':'.x'}\n",
	                                    "{'do':'snapshot','path':'a/b'}\n",
	                                    "{'do':'snapshot','path':'x','parent':'../base.raw'}\n",
	                                    "{'do':'snapshot','path':'x\\u0000y'}\n",
	                                    "{'do':'snapshot','path':'x','compress':99}\n",
	                                    "{'do':'dirty'}\n",
	                                    "{'do':'join'}\n",
	                                    "{'do':'status'} {}\n"};
	char line[256];

	hostile_begin(hostile, "");
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		hostile_unquote(line, sizeof(line), wrong[i]);
		hostile_send(hostile, line, NULL, 0);
		hostile_expect(hostile, "E", wrong[i]);
	}
	(void)snprintf(line, sizeof(line), "{\"do\":\"snapshot\",\"path\":\"%s\"}\n", hostile->victim);
	hostile_send(hostile, line, NULL, 0);
	hostile_expect(hostile, "EEXIST", "an image of another client");
	hostile_send(hostile, "{\"do\":\"status\"}\n", &hostile->memfd, 1);
	hostile_expect(hostile, "EBADF", "a descriptor for nothing");
}

/* Two commands are there when the server looks: the kernel gives the bytes of the first along with the descriptors of
 * the second. */
static void hostile_pipelined(struct hostile *hostile)
{
	char line[256];
	long server = hostile_begin(hostile, "");
	uint8_t *second = mmap(NULL, HOSTILE_LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED, hostile->memfd, 0);
	int uffd = monitor_open_uffd();
	int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	const int descriptors[2] = {uffd, pidfd};

	if (server <= 0 || second == MAP_FAILED || uffd < 0 || pidfd < 0)
		monitor_fail("hostile: nothing to join with");
	(void)snprintf(line, sizeof(line),
	               "{\"do\":\"join\",\"descriptors\":[\"uffd\",\"pidfd\"],\"mappings\":[{\"address\":%llu,"
	               "\"offset\":0,\"length\":%zu}]}\n",
	               (unsigned long long)(uintptr_t)second, HOSTILE_LENGTH);
	(void)kill((pid_t)server, SIGSTOP);
	hostile_send(hostile, "{\"do\":\"status\"}\n", NULL, 0);
	hostile_send(hostile, line, descriptors, 2);
	(void)kill((pid_t)server, SIGCONT);
	for (int i = 0; i < 2; i++) {
		const char *answer = hostile_answer(hostile);

		if (strncmp(answer, "{\"ok\":true", 10) != 0)
			monitor_fail("hostile: command %d of two at once: %s", i, answer);
	}
}

/* Its end is that of its process, with a snapshot under way. */
static void hostile_leave(struct hostile *hostile)
{
	hostile_begin(hostile, "");
	memset(hostile->memory, 1, HOSTILE_LENGTH);
	hostile_send(hostile, "{\"do\":\"snapshot\",\"path\":\"left\",\"rate_bytes\":1000}\n", NULL, 0);
	if (chance_below(&hostile->chance, 2))
		(void)hostile_answer(hostile);
	(void)raise(SIGKILL);
}

/* Answers that are not read. */
static void hostile_deaf(struct hostile *hostile)
{
	hostile_begin(hostile, "");
	for (int i = 0; i < 100000; i++) {
		if (monitor_send(hostile->socket, "{\"do\":\"status\"}\n", 16, NULL, 0) != 0)
			return;
	}
}

static void hostile_discard(struct hostile *hostile)
{
	hostile_begin(hostile, "");
	for (int i = 0; i < 20000; i++) {
		hostile->memory[chance_below(&hostile->chance, HOSTILE_LENGTH)] = 1;
		(void)madvise(hostile->memory, HOSTILE_LENGTH,
		              chance_below(&hostile->chance, 2) ? MADV_DONTNEED : MADV_REMOVE);
	}
}

/* ---- all of them ---- */

static void (*const hostile_acts[])(struct hostile *hostile) = {
        hostile_garbage,
        hostile_silence,
        hostile_half,
        hostile_flood,
        hostile_no_descriptor,
        hostile_wrong_descriptors,
        hostile_many_descriptors,
        hostile_wrong_mappings,
        hostile_overlap,
        hostile_many_mappings,
        hostile_unreported,
        hostile_commands,
        hostile_pipelined,
        hostile_leave,
        hostile_deaf,
        hostile_discard,
        hostile_unmap,
        hostile_unmap_all,
        hostile_move,
        hostile_cover,
        hostile_protect,
        hostile_truncate,
        hostile_truncate_in_snapshot,
        hostile_bus,
        hostile_unregister,
        hostile_refused,
        hostile_execute,
        hostile_other_ends,
        hostile_fork,
};
#define ACTS (sizeof(hostile_acts) / sizeof(hostile_acts[0]))

static void hostile_run(struct hostile *hostile, size_t act)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		hostile_acts[act](hostile);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		monitor_fail("hostile: no process");
	if (WIFEXITED(status) && WEXITSTATUS(status) != 0)
		monitor_fail("hostile: act %zu failed", act);
}

/* socket, image of a victim, seed, and when it ends: a file that is there, a count, or "each": each act once. */
int main(int argc, char **argv)
{
	struct hostile hostile = {0};
	uint64_t done = 0;

	if (argc == 3 && strcmp(argv[1], HOSTILE_EXECUTED) == 0)
		return hostile_executed((int)strtol(argv[2], NULL, 10));
	if (argc != 5)
		monitor_fail("usage: SOCKET VICTIM SEED UNTIL|COUNT|each");
	hostile.program = argv[0];
	hostile.path = argv[1];
	hostile.victim = argv[2];
	hostile.chance = chance_new(strtoull(argv[3], NULL, 10));
	uint64_t count = strcmp(argv[4], "each") == 0 ? ACTS : strtoull(argv[4], NULL, 10);

	(void)signal(SIGPIPE, SIG_IGN);
	while (count ? done < count : access(argv[4], F_OK) != 0) {
		hostile_run(&hostile, count ? done % ACTS : chance_below(&hostile.chance, ACTS));
		(void)chance_next(&hostile.chance);
		done++;
	}
	printf("hostile: %llu clients\n", (unsigned long long)done);
	return 0;
}
