/* SPDX-License-Identifier: MIT */
/* See launch.h. */
#include "launch.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "beside.h"
#include "say.h"

#define SHIM "uffdwp_dirty.so"
#define HOLDER_TIME_LIMIT_MS 5000

/* ------------------------------------------------------------------------------------------------------ the shim -- */

/* The dynamic linker splits LD_PRELOAD at blanks and colons, and knows no quoting: a name for such a path, which is
 * good for as long as we are there. */
static int launch_name_shim(struct launch *launch)
{
	int fd;

	if (strcspn(launch->shim, " :") == strlen(launch->shim))
		return 0;
	fd = open(launch->shim, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	(void)snprintf(launch->shim, sizeof(launch->shim), "/proc/%d/fd/%d", (int)getpid(), fd);
	return 0;
}

static int launch_make_name(struct launch *launch)
{
	uint64_t random[2];

	if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return -1;
	(void)snprintf(launch->name, sizeof(launch->name), "uffdwp-dirty-%016llx%016llx", (unsigned long long)random[0],
	               (unsigned long long)random[1]);
	return 0;
}

static int launch_make_listener(struct launch *launch)
{
	struct sockaddr_un address;
	socklen_t length;

	if (launch_make_name(launch))
		return -1;
	length = hello_address(launch->name, &address);
	launch->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (launch->listener < 0 || bind(launch->listener, (struct sockaddr *)&address, length) != 0)
		return -1;
	return listen(launch->listener, 8);
}

int launch_prepare(struct launch *launch, unsigned flags)
{
	*launch = (struct launch){.flags = flags, .listener = -1, .signals = -1};
	if (!beside_find(SHIM, launch->shim)) {
		say("the shim " SHIM " is neither beside this program (../lib) nor at %s: install it, or run "
		    "uffdwp-dirty from its build folder",
		    launch->shim);
		return LAUNCH_BROKEN;
	}
	if (launch_name_shim(launch)) {
		say("the shim %s cannot be opened: %s", launch->shim, strerror(errno));
		return LAUNCH_BROKEN;
	}
	if (launch_make_listener(launch)) {
		say("no socket for the program to report at: %s", strerror(errno));
		return LAUNCH_BROKEN;
	}
	return 0;
}

int launch_judge(const char *file)
{
	char path[LOADABLE_PATH] = "";
	enum loadable why = loadable_look(file, getenv("PATH"), path);

	switch (why) {
	case LOADABLE_YES:
		return 0;
	case LOADABLE_NOT_FOUND:
		say("%s: %s", file, loadable_reason(why));
		return LAUNCH_NOT_FOUND;
	case LOADABLE_NOT_ALLOWED:
		say("%s %s", file, loadable_reason(why));
		return LAUNCH_NOT_RUN;
	default:
		say("%s cannot be tracked: %s %s", file, path, loadable_reason(why));
		return LAUNCH_BROKEN;
	}
}

/* --------------------------------------------------------------------------------------------------- the program -- */

/* The two words that the shim takes out again. */
static int launch_make_words(struct launch *launch, const char *others)
{
	if (asprintf(&launch->words[0], "LD_PRELOAD=%s%s%s", launch->shim, *others ? ":" : "", others) < 0)
		launch->words[0] = NULL;
	if (asprintf(&launch->words[1], HELLO_VARIABLE "=%s,%u", launch->name, launch->flags) < 0)
		launch->words[1] = NULL;
	return launch->words[0] && launch->words[1] ? 0 : -1;
}

/* Our environment with the two words; LD_PRELOAD stays where it stands. */
static char **launch_make_environment(struct launch *launch)
{
	static const char preload[] = "LD_PRELOAD=";
	const char *others = getenv("LD_PRELOAD");
	char **list;
	size_t count = 0;
	int placed = 0;

	while (environ[count])
		count++;
	list = calloc(count + 3, sizeof(*list));
	if (!list || launch_make_words(launch, others ? others : "")) {
		free(list);
		return NULL;
	}
	for (size_t i = 0; i < count; i++) {
		int is_preload = strncmp(environ[i], preload, sizeof(preload) - 1) == 0;

		list[i] = is_preload ? launch->words[0] : environ[i];
		placed |= is_preload;
	}
	if (!placed)
		list[count++] = launch->words[0];
	list[count] = launch->words[1];
	return list;
}

static _Noreturn void launch_become(const struct launch *launch, char *const *argv, char *const *list, int report)
{
	int error;

	(void)sigaction(SIGCHLD, &launch->on_child, NULL);
	(void)sigprocmask(SIG_SETMASK, &launch->mask, NULL);
	execvpe(argv[0], argv, list);
	error = errno;
	if (write(report, &error, sizeof(error)) < 0)
		_exit(LAUNCH_NOT_RUN);
	_exit(error == ENOENT ? LAUNCH_NOT_FOUND : LAUNCH_NOT_RUN);
}

/* All but those that say that we ourselves are broken. */
static int launch_take_signals(struct launch *launch)
{
	static const int left[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
	struct sigaction usual = {.sa_handler = SIG_DFL};
	sigset_t taken;

	sigfillset(&taken);
	for (size_t i = 0; i < sizeof(left) / sizeof(left[0]); i++)
		sigdelset(&taken, left[i]);
	if (sigprocmask(SIG_BLOCK, &taken, &launch->mask) != 0 || sigaction(SIGCHLD, &usual, &launch->on_child) != 0)
		return -1;
	launch->signals = signalfd(-1, &taken, SFD_CLOEXEC | SFD_NONBLOCK);
	return launch->signals < 0 ? -1 : 0;
}

static int launch_fork_program(struct launch *launch, char *const *argv, char *const *list, int report[2])
{
	int error = 0;
	ssize_t got;

	launch->pid = fork();
	if (launch->pid < 0) {
		say("no process for the program: %s", strerror(errno));
		return LAUNCH_BROKEN;
	}
	if (launch->pid == 0)
		launch_become(launch, argv, list, report[1]);
	close(report[1]);
	report[1] = -1;
	do {
		got = read(report[0], &error, sizeof(error));
	} while (got < 0 && errno == EINTR);
	if (got <= 0)
		return 0;
	say("%s: %s", argv[0], strerror(error));
	(void)waitpid(launch->pid, NULL, 0);
	return error == ENOENT ? LAUNCH_NOT_FOUND : LAUNCH_NOT_RUN;
}

int launch_start(struct launch *launch, char *const *argv)
{
	char **list = launch_make_environment(launch);
	int report[2] = {-1, -1};
	int code;

	if (!list || launch_take_signals(launch) || pipe2(report, O_CLOEXEC) != 0) {
		say("the program could not be prepared: %s", strerror(errno));
		free(list);
		return LAUNCH_BROKEN;
	}
	code = launch_fork_program(launch, argv, list, report);
	for (int i = 0; i < 2; i++) {
		if (report[i] >= 0)
			close(report[i]);
	}
	free(list);
	return code;
}

/* ----------------------------------------------------------------------------------------------------- greetings -- */

static int launch_is_program(const struct launch *launch, int connection)
{
	struct ucred peer = {0};
	socklen_t length = sizeof(peer);

	return getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && peer.pid == launch->pid;
}

static void launch_take_fds(struct msghdr *message, int fds[HELLO_FDS])
{
	for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part; part = CMSG_NXTHDR(message, part)) {
		if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < HELLO_FDS && CMSG_LEN(sizeof(int) * (i + 1)) <= part->cmsg_len; i++)
			memcpy(&fds[i], CMSG_DATA(part) + i * sizeof(int), sizeof(int));
	}
}

/* The shim greets at once, so waiting a moment is safe; it also may have died. */
static int launch_receive(int connection, struct hello *hello, int fds[HELLO_FDS])
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int) * HELLO_FDS)];
	} control;
	struct iovec data = {hello, sizeof(*hello)};
	struct msghdr message = {
	        .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control)};
	struct pollfd ready = {.fd = connection, .events = POLLIN};

	memset(hello, 0, sizeof(*hello));
	if (poll(&ready, 1, HELLO_TIME_LIMIT_S * 1000) != 1)
		return 0;
	if (recvmsg(connection, &message, MSG_CMSG_CLOEXEC) != (ssize_t)sizeof(*hello))
		return 0;
	launch_take_fds(&message, fds);
	return hello->magic == HELLO_MAGIC;
}

int launch_accept(struct launch *launch, struct hello *hello, int fds[HELLO_FDS])
{
	int connection = accept4(launch->listener, NULL, NULL, SOCK_CLOEXEC);

	for (int i = 0; i < HELLO_FDS; i++)
		fds[i] = -1;
	if (connection < 0)
		return -1;
	if (launch_is_program(launch, connection) && launch_receive(connection, hello, fds))
		return connection;
	for (int i = 0; i < HELLO_FDS; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
	}
	close(connection);
	return -1;
}

void launch_answer(int connection, int end)
{
	struct hello_answer answer = {HELLO_MAGIC, end};

	(void)send(connection, &answer, sizeof(answer), MSG_NOSIGNAL);
	close(connection);
}

/* ------------------------------------------------------------------------------------------------------- signals -- */

static void launch_note_program(struct launch *launch, int status)
{
	if (WIFSTOPPED(status)) {
		launch->stopped = 1;
	} else if (WIFCONTINUED(status)) {
		launch->stopped = 0;
	} else {
		launch->status = status;
		launch->ended = 1;
	}
}

static void launch_reap(struct launch *launch)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG | WUNTRACED | WCONTINUED)) > 0) {
		if (pid == launch->pid)
			launch_note_program(launch, status);
		else if (pid == launch->holder && !WIFSTOPPED(status) && !WIFCONTINUED(status))
			launch->holder_ended = 1;
	}
}

static int launch_is_stop(int signal)
{
	return signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU;
}

static void launch_pass_on(const struct launch *launch, const struct signalfd_siginfo *info)
{
	int signal = (int)info->ssi_signo;

	if (launch->ended || (signal == SIGCONT && !launch->stopped))
		return;
	if (info->ssi_code == SI_QUEUE) {
		union sigval value = {.sival_ptr = (void *)(uintptr_t)info->ssi_ptr};

		(void)sigqueue(launch->pid, signal, value);
	} else {
		(void)kill(launch->pid, signal);
	}
}

/* Signals that the kernel sends come from the terminal and went to the program as well. */
static void launch_handle(struct launch *launch, const struct signalfd_siginfo *info)
{
	int signal = (int)info->ssi_signo;

	if (signal == SIGCHLD)
		return;
	if (signal == SIGWINCH)
		launch->resized = 1;
	if (launch_is_stop(signal))
		launch->stop_asked = 1;
	if (signal == SIGCONT)
		launch->stop_asked = 0;
	if (info->ssi_code <= 0) /* of a process: SI_USER, SI_QUEUE, SI_TKILL */
		launch_pass_on(launch, info);
}

void launch_signals(struct launch *launch)
{
	struct signalfd_siginfo info;

	launch_reap(launch);
	while (read(launch->signals, &info, sizeof(info)) == (ssize_t)sizeof(info))
		launch_handle(launch, &info);
	launch_reap(launch);
}

void launch_await_holder(struct launch *launch)
{
	struct pollfd ready = {.fd = launch->signals, .events = POLLIN};
	struct timespec now;
	time_t until;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	until = now.tv_sec + HOLDER_TIME_LIMIT_MS / 1000;
	while (launch->holder && !launch->holder_ended && now.tv_sec <= until) {
		launch_signals(launch);
		if (!launch->holder_ended)
			(void)poll(&ready, 1, 100);
		(void)clock_gettime(CLOCK_MONOTONIC, &now);
	}
	launch->holder = 0;
}

void launch_fini(struct launch *launch)
{
	if (launch->listener >= 0)
		close(launch->listener);
	if (launch->signals >= 0)
		close(launch->signals);
	launch->listener = launch->signals = -1;
	for (int i = 0; i < 2; i++) {
		free(launch->words[i]);
		launch->words[i] = NULL;
	}
}

_Noreturn void launch_end(const struct launch *launch)
{
	struct sigaction usual = {.sa_handler = SIG_DFL};
	struct rlimit none = {0, 0};
	sigset_t all;

	if (!WIFSIGNALED(launch->status))
		exit(WEXITSTATUS(launch->status));
	(void)setrlimit(RLIMIT_CORE, &none); /* the program's core is the one to look at */
	(void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	(void)sigaction(WTERMSIG(launch->status), &usual, NULL);
	sigfillset(&all);
	sigdelset(&all, WTERMSIG(launch->status));
	(void)sigprocmask(SIG_SETMASK, &all, NULL);
	(void)raise(WTERMSIG(launch->status));
	_exit(128 + WTERMSIG(launch->status));
}
