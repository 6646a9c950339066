/* SPDX-License-Identifier: MIT */
/*
 * See redis.h. The server listens on a unix socket in our folder, saves only when it is asked to, and writes what it
 * has to say into a file there, whose end is shown when it fails. It dies with the benchmark, however that ends.
 *
 * Threads: the main thread only; a server is started while there is no other thread.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "child.h"
#include "memory.h"
#include "redis.h"
#include "resp.h"

#define ARGUMENTS 32
#define START_NS UINT64_C(60000000000)
#define STOP_NS UINT64_C(60000000000)
#define TRY_SECONDS 60
#define CHECK_SECONDS 3600
#define REPLY_BYTES 65536
#define CHILDREN_MAX 8
#define NOT_FOUND 127 /* of env */

static char env[] = "/usr/bin/env";

static void redis_server_path(const struct redis_plan *plan, const char *name, char *path, size_t size)
{
	if ((size_t)snprintf(path, size, "%s/%s", plan->folder, name) >= size)
		bench_die("%s: too long a path: name another folder by --dir", plan->folder);
}

/* ------------------------------------------------------------------------------------------------- starting it -- */

/* The command of a side, without options. argp has left the texts as they are. */
static size_t redis_server_command_line(const struct redis_plan *plan, enum redis_side_number side, const char **argv)
{
	size_t count = 0;

	if (side != REDIS_PLAIN) {
		argv[count++] = plan->ctl;
		argv[count++] = "fork";
		if (side == REDIS_NICE)
			argv[count++] = "--nice=10";
		argv[count++] = "--";
	}
	argv[count++] = plan->server;
	return count;
}

void redis_server_try(const struct redis_plan *plan, enum redis_side_number side)
{
	const char *argv[ARGUMENTS] = {env};
	char output[4096];
	size_t count = 1 + redis_server_command_line(plan, side, argv + 1);
	int code;

	argv[count] = "--version";
	code = child_run((char *const *)(uintptr_t)argv, TRY_SECONDS, output, sizeof(output));
	if (side == REDIS_PLAIN && code == NOT_FOUND)
		bench_skip("%s is not there: install it (Debian: redis-server), or name one by --server", plan->server);
	if (code && side != REDIS_PLAIN)
		bench_skip("uffdwp-ctl fork does not run %s here: exit code %d", plan->server, code);
	if (code)
		bench_die("%s --version has ended with %d", plan->server, code);
}

static _Noreturn void redis_server_exec(const struct redis_server *server, const char *log)
{
	const struct redis_plan *plan = server->plan;
	const char *argv[ARGUMENTS] = {NULL};
	char socket[PATH_MAX];
	size_t count = redis_server_command_line(plan, server->side, argv);
	int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	redis_server_path(plan, "socket", socket, sizeof(socket));
	const char *const options[] = {"--port",
	                               "0",
	                               "--unixsocket",
	                               socket,
	                               "--unixsocketperm",
	                               "700",
	                               "--save",
	                               "",
	                               "--appendonly",
	                               "no",
	                               "--dir",
	                               plan->folder,
	                               "--dbfilename",
	                               "dump.rdb",
	                               "--daemonize",
	                               "no",
	                               "--stop-writes-on-bgsave-error",
	                               "no",
	                               "--loglevel",
	                               "notice"};

	memcpy(&argv[count], options, sizeof(options));
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (fd < 0 || dup2(fd, STDOUT_FILENO) < 0 || dup2(fd, STDERR_FILENO) < 0)
		_exit(NOT_FOUND);
	execvp(argv[0], (char *const *)(uintptr_t)argv);
	_exit(NOT_FOUND);
}

/* The end of what the server said, then the end of the benchmark. */
static _Noreturn void redis_server_failed(const struct redis_server *server, const char *what)
{
	char path[PATH_MAX];
	char text[2048];
	ssize_t got = -1;
	int fd;

	redis_server_path(server->plan, "log", path, sizeof(path));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && (lseek(fd, 1 - (off_t)sizeof(text), SEEK_END) >= 0 || lseek(fd, 0, SEEK_SET) == 0))
		got = read(fd, text, sizeof(text) - 1);
	text[got < 0 ? 0 : got] = '\0';
	bench_die("%s %s; it said:\n%s", server->side == REDIS_PLAIN ? "redis-server" : "redis-server under uffdwp-ctl",
	          what, text);
}

static int redis_server_has_ended(const struct redis_server *server)
{
	int status;

	return waitpid(server->started, &status, WNOHANG) == server->started;
}

static int redis_server_try_to_connect(const struct redis_plan *plan)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		bench_die("socket: %s", strerror(errno));
	redis_server_path(plan, "socket", address.sun_path, sizeof(address.sun_path));
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	close(fd);
	return -1;
}

static void redis_server_pause(long ns)
{
	struct timespec pause = {0, ns};

	nanosleep(&pause, NULL);
}

int redis_server_connect(const struct redis_server *server)
{
	int fd = redis_server_try_to_connect(server->plan);

	if (fd < 0 || fcntl(fd, F_SETFL, O_NONBLOCK))
		redis_server_failed(server, "takes no connection");
	return fd;
}

static pid_t running; /* 0: none */
static int is_watched;

static void redis_server_kill(void)
{
	if (running && kill(running, SIGKILL) == 0)
		waitpid(running, NULL, 0);
}

/* A server under uffdwp-ctl that does not have the library would be compared with itself. */
static void redis_server_expect_library(const struct redis_server *server)
{
	char path[64];
	char line[PATH_MAX];
	int found = 0;
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)server->process);
	maps = fopen(path, "re");
	while (maps && !found && fgets(line, sizeof(line), maps))
		found = strstr(line, "uffdwp") != NULL;
	if (maps)
		fclose(maps);
	if (found != (server->side != REDIS_PLAIN))
		redis_server_failed(server, found ? "has the library" : "does not have the library");
}

void redis_server_start(struct redis_server *server, const struct redis_plan *plan, enum redis_side_number side)
{
	uint64_t until_ns = bench_now_ns() + START_NS;
	char log[PATH_MAX];

	*server = (struct redis_server){.plan = plan, .side = side, .connection = -1};
	redis_server_path(plan, "log", log, sizeof(log));
	fflush(stdout);
	server->started = fork();
	if (server->started < 0)
		bench_die("fork: %s", strerror(errno));
	if (server->started == 0)
		redis_server_exec(server, log);
	if (!is_watched)
		atexit(redis_server_kill);
	is_watched = 1;
	running = server->started;
	while ((server->connection = redis_server_try_to_connect(plan)) < 0) {
		if (redis_server_has_ended(server))
			redis_server_failed(server, "has ended");
		if (bench_now_ns() > until_ns)
			redis_server_failed(server, "is not ready after a minute");
		redis_server_pause(10000000);
	}
	server->process = (pid_t)redis_server_info(server, "server", "process_id");
	redis_server_expect_library(server);
}

void redis_server_stop(struct redis_server *server)
{
	uint64_t until_ns = bench_now_ns() + STOP_NS;
	char command[RESP_HEAD_BYTES];
	size_t length = resp_command(command, "SHUTDOWN", "NOSAVE");

	if (write(server->connection, command, length) != (ssize_t)length)
		redis_server_failed(server, "takes no command");
	while (!redis_server_has_ended(server)) {
		if (bench_now_ns() > until_ns)
			redis_server_failed(server, "does not end");
		redis_server_pause(10000000);
	}
	close(server->connection);
	running = 0;
}

/* ---------------------------------------------------------------------------------------------- talking with it -- */

void redis_server_command(const struct redis_server *server, const char *name, const char *argument, char *text,
                          size_t size)
{
	static char bytes[REPLY_BYTES];
	char command[RESP_HEAD_BYTES];
	size_t length = resp_command(command, name, argument);
	struct resp_reply reply = {.text = NULL};
	size_t used = 0;
	ssize_t whole = 0;

	if (write(server->connection, command, length) != (ssize_t)length)
		redis_server_failed(server, "takes no command");
	while (whole == 0) {
		ssize_t got = read(server->connection, bytes + used, sizeof(bytes) - used);

		if (got <= 0 && errno != EINTR)
			redis_server_failed(server, "does not answer a command");
		used += got > 0 ? (size_t)got : 0;
		whole = resp_parse(bytes, used, &reply);
	}
	if (whole < 0 || !reply.text || reply.type == '-')
		bench_die("%s was answered with %.*s", name, (int)used, bytes);
	snprintf(text, size, "%.*s", (int)reply.text_length, reply.text);
}

long long redis_server_info(const struct redis_server *server, const char *section, const char *field)
{
	static char text[REPLY_BYTES];
	long long value;

	redis_server_command(server, "INFO", section, text, sizeof(text));
	value = resp_info(text, field);
	if (value < 0)
		bench_die("INFO %s has no number %s", section, field);
	return value;
}

/* ---------------------------------------------------------------------------------------------------- its memory -- */

/* The parent of a process; 0: there is no such process. */
static pid_t redis_server_parent(const char *process)
{
	char path[300];
	char text[512];
	const char *after;
	ssize_t got;
	int fd;

	snprintf(path, sizeof(path), "/proc/%s/stat", process);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	got = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[got < 0 ? 0 : got] = '\0';
	after = strrchr(text, ')'); /* of the name; then the state, and the parent */
	return after && strlen(after) > 4 ? (pid_t)strtol(after + 4, NULL, 10) : 0;
}

static size_t redis_server_children(pid_t parent, pid_t children[CHILDREN_MAX])
{
	DIR *folder = opendir("/proc");
	const struct dirent *entry;
	size_t count = 0;

	while (folder && count < CHILDREN_MAX && (entry = readdir(folder)) != NULL) {
		if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9' && redis_server_parent(entry->d_name) == parent)
			children[count++] = (pid_t)strtol(entry->d_name, NULL, 10);
	}
	if (folder)
		closedir(folder);
	return count;
}

/* 0 where it has ended meanwhile. */
static uint64_t redis_server_memory_of(pid_t process)
{
	struct memory_use use;

	return memory_read(process, &use) ? 0 : use.pss_bytes + memory_status_bytes(process, "VmPTE");
}

void redis_server_memory(const struct redis_server *server, struct redis_memory *memory)
{
	pid_t children[CHILDREN_MAX];
	size_t count = redis_server_children(server->process, children);

	memory->system_bytes =
	        bench_meminfo_bytes("AnonPages") + bench_meminfo_bytes("Shmem") + bench_meminfo_bytes("PageTables");
	memory->pss_bytes = redis_server_memory_of(server->process);
	while (count--)
		memory->pss_bytes += redis_server_memory_of(children[count]);
}

int redis_server_check_dump(const struct redis_server *server)
{
	char program[] = "redis-check-rdb";
	char path[PATH_MAX];
	char output[4096];
	char *argv[] = {env, program, path, NULL};
	int code;

	redis_server_path(server->plan, "dump.rdb", path, sizeof(path));
	code = child_run(argv, CHECK_SECONDS, output, sizeof(output));
	if (code == NOT_FOUND)
		return 0;
	if (code)
		redis_server_failed(server, "has made a dump that redis-check-rdb is not content with");
	unlink(path);
	return 1;
}
