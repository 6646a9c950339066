/* SPDX-License-Identifier: MIT */
/*
 * The first process of `uffdwp-ctl serve`: it takes connections, makes a process for each, and reaps; see serve.h. It
 * reads nothing that a client sends, and waits for none.
 *
 * A client whose handler (the process that serves it) ended by a signal while its guest still lacked content is killed:
 * the guest would read zeros where the image has content, or its threads would sleep for ever, which is worse than an
 * end (Firecracker's documents ask for it). The kernel takes a registration away with the last descriptor of a
 * userfaultfd, so for as long as a restore runs the first process has one, too, by which it does nothing: threads of
 * the guest sleep at missing pages until they are killed. The handler passes it over a channel of its own, and closes
 * the channel when all content is there. With --spare the threads sleep until the client's process ends by other means.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "doctor.h"
#include "serve.h"
#include "stops.h"

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

/* What the first process alone knows of a client. */
struct serve_child {
	pid_t pid; /* 0: none */
	struct ucred peer;
	int pidfd;   /* of the process that has the memory; -1: none */
	int uffd;    /* of its memory, while content is missing; -1: none */
	int channel; /* from its handler; -1: closed */
	int is_lost; /* it has no handler any more, and was not killed: its descriptors are kept until it ends */
};

struct serve_server {
	const struct serve_settings *settings;
	int listener;
	struct serve_slot *slots; /* shared; of clients_max */
	struct serve_child *children;
	struct pollfd *waits; /* one for each child, and the listener */
	sigset_t wait_mask;
};

static struct stops serve_loop_ends;

static void serve_loop_note_end(int number)
{
	(void)number;
	stops_take(&serve_loop_ends, (int64_t)serve_now_ms());
}

static void serve_loop_wake(int number)
{
	(void)number;
}

/* Signals are taken in ppoll() only. */
static void serve_loop_take_signals(struct serve_server *server)
{
	struct sigaction end = {.sa_handler = serve_loop_note_end};
	struct sigaction wake = {.sa_handler = serve_loop_wake};
	sigset_t mask;

	(void)sigemptyset(&mask);
	(void)sigaddset(&mask, SIGTERM);
	(void)sigaddset(&mask, SIGINT);
	(void)sigaddset(&mask, SIGCHLD);
	end.sa_mask = mask;
	(void)sigprocmask(SIG_BLOCK, &mask, &server->wait_mask);
	(void)sigdelset(&server->wait_mask, SIGTERM);
	(void)sigdelset(&server->wait_mask, SIGINT);
	(void)sigdelset(&server->wait_mask, SIGCHLD);
	(void)sigaction(SIGTERM, &end, NULL);
	(void)sigaction(SIGINT, &end, NULL);
	(void)sigaction(SIGCHLD, &wake, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
}

/* ---- clients come ---- */

/* The user of the server, and root. */
static int serve_loop_is_welcome(int connection, struct ucred *peer)
{
	socklen_t length = sizeof(*peer);

	return getsockopt(connection, SOL_SOCKET, SO_PEERCRED, peer, &length) == 0 &&
	       (peer->uid == geteuid() || peer->uid == 0);
}

/* The process that connected; -1: it has ended, or is not known here. Linux 6.5 and later say it themselves; by its
 * number another one may be found, if it has ended just now. */
static int serve_loop_process_of(int connection, const struct ucred *peer)
{
	int pidfd = -1;
	socklen_t length = sizeof(pidfd);

	if (getsockopt(connection, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &length) == 0)
		return pidfd;
	return errno == ENOPROTOOPT ? (int)syscall(SYS_pidfd_open, peer->pid, 0) : -1;
}

/* Processes of another PID namespace have no number here, and cannot be distinguished. */
static unsigned serve_loop_unfinished(const struct serve_server *server, pid_t peer)
{
	unsigned count = 0;

	for (unsigned i = 0; peer && i < server->settings->clients_max; i++) {
		if (server->children[i].pid && server->children[i].peer.pid == peer &&
		    atomic_load(&server->slots[i].state) == SERVE_STATE_HANDSHAKE)
			count++;
	}
	return count;
}

static unsigned serve_loop_free_slot(const struct serve_server *server)
{
	unsigned slot = 0;

	while (slot < server->settings->clients_max && (server->children[slot].pid || server->children[slot].is_lost))
		slot++;
	return slot;
}

static void serve_loop_close(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
}

static void serve_loop_close_child(struct serve_child *child)
{
	serve_loop_close(&child->pidfd);
	serve_loop_close(&child->uffd);
	serve_loop_close(&child->channel);
}

/* 1: it is killed. */
static int serve_loop_kill(int pidfd, const struct ucred *peer, const char *why)
{
	int error = syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0) != 0 ? errno : 0;

	if (!error)
		serve_say("process %d was killed: %s", (int)peer->pid, why);
	else if (error != ESRCH) /* that: it has ended */
		serve_say("process %d cannot be killed (%s): %s", (int)peer->pid, strerror(error), why);
	return !error;
}

/* 1: descriptors came with the beginning of an array, as from Firecracker: whatever they are, they are closed. */
static int serve_loop_handed_over(int connection)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(SERVE_DESCRIPTORS_MAX * sizeof(int))];
	} control;
	char byte = 0;
	struct iovec part = {&byte, 1};
	struct msghdr message = {
	        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control.space)};
	const struct cmsghdr *header;

	if (recvmsg(connection, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) != 1)
		return 0;
	header = CMSG_FIRSTHDR(&message);
	if (!header || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
		return 0;
	for (size_t at = CMSG_LEN(0); at + sizeof(int) <= header->cmsg_len; at += sizeof(int)) {
		int fd;

		memcpy(&fd, (const char *)header + at, sizeof(fd));
		(void)close(fd);
	}
	return byte == '[';
}

/* A connection that gets no process. Firecracker may have sent its userfaultfd already, and waits for no answer: its
 * threads would wait for ever. What it sends from now on is refused by the kernel. */
static void serve_loop_turn_away(const struct serve_server *server, int connection, const struct ucred *peer,
                                 const char *error, const char *text)
{
	char line[256];
	int length = snprintf(line, sizeof(line), "{\"ok\":false,\"error\":\"%s\",\"text\":\"%s\"}\n", error, text);
	int pidfd = serve_loop_process_of(connection, peer);

	(void)!send(connection, line, (size_t)length, MSG_NOSIGNAL | MSG_DONTWAIT);
	(void)shutdown(connection, SHUT_RD);
	serve_say("process %d was refused: %s", (int)peer->pid, text);
	if (serve_loop_handed_over(connection) && !server->settings->spare)
		(void)serve_loop_kill(pidfd, peer, "its memory waits for a handler");
	serve_loop_close(&pidfd);
}

static void serve_loop_be_client(struct serve_server *server, unsigned slot, int connection, int channel)
{
	pid_t peer = server->children[slot].peer.pid;
	int pidfd = server->children[slot].pidfd;

	(void)signal(SIGTERM, SIG_DFL);
	(void)signal(SIGINT, SIG_DFL);
	(void)signal(SIGCHLD, SIG_DFL);
	serve_loop_close(&server->listener);
	server->children[slot].pidfd = -1;
	for (unsigned i = 0; i < server->settings->clients_max; i++)
		serve_loop_close_child(&server->children[i]);
	_exit(serve_client(server->settings, &server->slots[slot], connection, channel, peer, pidfd));
}

/* 0, or -errno: there is no process for it. */
static int serve_loop_begin_client(struct serve_server *server, unsigned slot, int connection, const struct ucred *peer)
{
	struct serve_child *child = &server->children[slot];
	int channel[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, channel) != 0)
		return -errno;
	child->channel = channel[0];
	child->peer = *peer;
	child->pidfd = serve_loop_process_of(connection, peer);
	memset(server->slots[slot].name, 0, sizeof(server->slots[slot].name));
	atomic_store(&server->slots[slot].state, SERVE_STATE_HANDSHAKE);
	child->pid = fork();
	if (child->pid == 0)
		serve_loop_be_client(server, slot, connection, channel[1]);
	int error = child->pid < 0 ? -errno : 0;

	(void)close(channel[1]);
	if (error) {
		child->pid = 0;
		serve_loop_close_child(child);
	}
	return error;
}

static void serve_loop_take_client(struct serve_server *server, int connection)
{
	struct ucred peer = {0};
	unsigned slot = serve_loop_free_slot(server);
	int error;

	if (!serve_loop_is_welcome(connection, &peer)) {
		serve_say("a process of user %ld was refused", (long)peer.uid);
	} else if (serve_loop_unfinished(server, peer.pid) >= SERVE_UNFINISHED_MAX) {
		serve_loop_turn_away(server, connection, &peer, "EUSERS",
		                     "too many handshakes of this process are under way");
	} else if (slot == server->settings->clients_max) {
		serve_loop_turn_away(server, connection, &peer, "EUSERS",
		                     "there are as many clients as --clients-max allows");
	} else if ((error = serve_loop_begin_client(server, slot, connection, &peer)) != 0) {
		serve_say("no process for a client: %s", strerror(-error));
		serve_loop_turn_away(server, connection, &peer, "EAGAIN", "the server cannot make a process");
	}
	(void)close(connection);
}

/* ---- channels ---- */

/* The userfaultfd and the pidfd of a client, from its handler. */
static void serve_loop_take_descriptors(struct serve_child *child, struct msghdr *message)
{
	const struct cmsghdr *header = CMSG_FIRSTHDR(message);
	int fds[2] = {-1, -1};

	if (!header || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
		return;
	size_t bytes = header->cmsg_len - CMSG_LEN(0);

	memcpy(fds, CMSG_DATA(header), bytes < sizeof(fds) ? bytes : sizeof(fds));
	serve_loop_close(&child->uffd);
	child->uffd = fds[0];
	if (fds[1] < 0)
		return;
	serve_loop_close(&child->pidfd);
	child->pidfd = fds[1];
}

/* Its end: all content is there; or the handler ended, and is reaped before that means anything. */
static void serve_loop_read_channel(struct serve_server *server, unsigned slot)
{
	struct serve_child *child = &server->children[slot];
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(2 * sizeof(int))];
	} control;
	char byte;
	struct iovec part = {&byte, 1};
	struct msghdr message = {
	        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control.space)};
	ssize_t got = recvmsg(child->channel, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

	if (got > 0) {
		serve_loop_take_descriptors(child, &message);
	} else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
		serve_loop_close(&child->channel);
		if (atomic_load(&server->slots[slot].state) != SERVE_STATE_RESTORING)
			serve_loop_close(&child->uffd);
	}
}

/* ---- clients end ---- */

/* What a process that ended left undone. */
static void serve_loop_reaped(struct serve_server *server, unsigned slot, int status)
{
	struct serve_child *child = &server->children[slot];
	struct serve_slot *shared = &server->slots[slot];
	uint32_t state = atomic_load(&shared->state);

	if (child->channel >= 0)
		serve_loop_read_channel(server, slot); /* what was sent */
	shared->name[SERVE_NAME_MAX] = '\0';
	if (WIFSIGNALED(status))
		serve_say("%s: its handler %d ended by signal %d", shared->name[0] ? shared->name : "a client",
		          (int)child->pid, WTERMSIG(status));
	int is_left = WIFSIGNALED(status) && state == SERVE_STATE_RESTORING;
	int is_killed = 0;

	if (is_left && !server->settings->spare)
		is_killed = serve_loop_kill(child->pidfd, &child->peer, "content of its memory was not fetched");
	if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_LIMITS && !server->settings->spare)
		(void)serve_loop_kill(child->pidfd, &child->peer,
		                      "its handshake was refused, and its memory waits for a handler");
	child->pid = 0;
	child->is_lost = is_left && !is_killed && child->uffd >= 0 && child->pidfd >= 0;
	atomic_store(&shared->state, SERVE_STATE_FREE);
	serve_loop_close(&child->channel);
	if (child->is_lost)
		serve_say("%s: its threads sleep where its memory is missing", shared->name);
	else
		serve_loop_close_child(child);
}

static void serve_loop_end_lost(struct serve_child *child)
{
	child->is_lost = 0;
	serve_loop_close_child(child);
}

static void serve_loop_reap(struct serve_server *server)
{
	int status = 0;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (unsigned i = 0; i < server->settings->clients_max; i++) {
			if (server->children[i].pid == pid)
				serve_loop_reaped(server, i, status);
		}
	}
}

static unsigned serve_loop_signal_all(const struct serve_server *server, int number)
{
	unsigned count = 0;

	for (unsigned i = 0; i < server->settings->clients_max; i++) {
		if (server->children[i].pid && ++count && number)
			(void)kill(server->children[i].pid, number);
	}
	return count;
}

/* ---- the loop ---- */

static void serve_loop_accept(struct serve_server *server)
{
	int connection = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (connection >= 0) {
		serve_loop_take_client(server, connection);
	} else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM) {
		struct timespec moment = {0, 50000000}; /* the connection stays, and poll() would not wait */

		serve_say("a connection cannot be taken: %s", strerror(errno));
		(void)nanosleep(&moment, NULL);
	}
}

/* The listener, channels, and processes that are lost. */
static void serve_loop_wait(struct serve_server *server)
{
	unsigned count = server->settings->clients_max;
	struct pollfd *waits = server->waits;

	waits[count] = (struct pollfd){.fd = server->listener, .events = POLLIN};
	for (unsigned i = 0; i < count; i++)
		waits[i] = (struct pollfd){.fd = server->children[i].is_lost ? server->children[i].pidfd
		                                                             : server->children[i].channel,
		                           .events = POLLIN};
	if (ppoll(waits, count + 1, NULL, &server->wait_mask) > 0) {
		for (unsigned i = 0; i < count; i++) {
			if (waits[i].revents && server->children[i].is_lost)
				serve_loop_end_lost(&server->children[i]);
			else if (waits[i].revents)
				serve_loop_read_channel(server, i);
		}
		if (waits[count].revents)
			serve_loop_accept(server);
	}
	serve_loop_reap(server);
}

/* No new clients; those that are there end what runs, and their processes then. A second signal makes that short. */
static void serve_loop_stop(struct serve_server *server)
{
	int passed_on = 0;

	serve_socket_remove(server->settings->socket, server->listener);
	server->listener = -1;
	serve_say("ends; clients: %u", serve_loop_signal_all(server, 0));
	while (serve_loop_signal_all(server, 0) > 0) {
		if (passed_on != serve_loop_ends.count)
			(void)serve_loop_signal_all(server, SIGTERM);
		passed_on = serve_loop_ends.count;
		serve_loop_wait(server);
	}
}

/* Three descriptors a client, here. */
static void serve_loop_raise_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
}

static int serve_loop_open(struct serve_server *server)
{
	size_t count = server->settings->clients_max;

	server->children = calloc(count, sizeof(*server->children));
	server->waits = calloc(count + 1, sizeof(*server->waits));
	for (size_t i = 0; server->children && i < count; i++) {
		server->children[i].pidfd = -1;
		server->children[i].uffd = -1;
		server->children[i].channel = -1;
	}
	server->slots =
	        mmap(NULL, count * sizeof(*server->slots), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return server->children && server->waits && server->slots != MAP_FAILED ? 0 : -ENOMEM;
}

static void serve_loop_close_all(struct serve_server *server)
{
	if (server->slots != MAP_FAILED)
		(void)munmap(server->slots, server->settings->clients_max * sizeof(*server->slots));
	free(server->children);
	free(server->waits);
}

int serve_loop(const struct serve_settings *settings, int listener)
{
	struct serve_server server = {.settings = settings, .listener = listener};

	if (serve_loop_open(&server) != 0) {
		serve_say("no memory for %u clients", settings->clients_max);
		serve_loop_close_all(&server);
		return EXIT_BROKEN;
	}
	serve_loop_take_signals(&server);
	serve_loop_raise_limit();
	if (!settings->quiet)
		serve_say("listens at %s", settings->socket);
	while (!serve_loop_ends.count)
		serve_loop_wait(&server);
	serve_loop_stop(&server);
	serve_loop_close_all(&server);
	return EXIT_ALL;
}
