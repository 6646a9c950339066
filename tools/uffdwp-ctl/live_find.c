/* SPDX-License-Identifier: MIT */
/* See live_find.h. */
#include "live_find.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/escape.h"
#include "live_say.h"
#include "live_wait.h"

#define FIND_FOLDERS 1024

struct find {
	struct live_peers *peers;
	int64_t pid;
	unsigned folders;
	struct {
		dev_t dev;
		ino_t ino;
	} seen[FIND_FOLDERS]; /* one may have two names */
	int failed;
};

/* ------------------------------------------------------------------------------------------------------- peers -- */

static void find_name_program(struct live_peer *peer)
{
	char path[64];
	char name[64] = "";
	FILE *file;

	(void)snprintf(path, sizeof(path), "/proc/%lld/comm", (long long)peer->pid);
	file = fopen(path, "re");
	if (file) {
		if (!fgets(name, sizeof(name), file))
			name[0] = '\0';
		(void)fclose(file);
	}
	name[strcspn(name, "\n")] = '\0';
	(void)escape_text(peer->program, sizeof(peer->program), name[0] ? name : "?", 0);
}

static struct live_peer *find_add(struct live_peers *peers, int64_t pid)
{
	if (peers->count == peers->room) {
		size_t room = peers->room ? 2 * peers->room : 16;
		struct live_peer *more = realloc(peers->peers, room * sizeof(*more));

		if (!more)
			return NULL;
		peers->peers = more;
		peers->room = room;
	}
	peers->peers[peers->count] = (struct live_peer){.pid = pid, .fd = -1};
	return &peers->peers[peers->count++];
}

static struct live_peer *find_known(const struct live_peers *peers, int64_t pid)
{
	for (size_t i = 0; i < peers->count; i++) {
		if (peers->peers[i].pid == pid)
			return &peers->peers[i];
	}
	return NULL;
}

/* Those that are connected to are there as long as they answer, also without a name. */
static void find_drop_unseen(struct live_peers *peers)
{
	size_t kept = 0;

	for (size_t i = 0; i < peers->count; i++) {
		if (peers->peers[i].seen || peers->peers[i].fd >= 0)
			peers->peers[kept++] = peers->peers[i];
	}
	peers->count = kept;
}

/* PID.sock, and nothing else; -1: it is no such name. */
static int64_t find_pid_of_name(const char *name)
{
	char digits[16] = "";
	size_t length = strspn(name, "0123456789");
	uint64_t pid;

	if (length == 0 || length >= sizeof(digits) || strcmp(name + length, ".sock") != 0 || name[0] == '0')
		return -1;
	memcpy(digits, name, length);
	return live_parse_number(digits, &pid) || pid > INT32_MAX ? -1 : (int64_t)pid;
}

static int find_is_gone(int64_t pid)
{
	return kill((pid_t)pid, 0) && errno == ESRCH;
}

/* Only what was looked at is removed: a process that has just begun may have made its own there. */
static void find_remove(int folder, const char *name, const struct stat *looked)
{
	struct stat now;

	if (S_ISSOCK(looked->st_mode) && fstatat(folder, name, &now, AT_SYMLINK_NOFOLLOW) == 0 &&
	    now.st_ino == looked->st_ino && now.st_dev == looked->st_dev &&
	    now.st_ctim.tv_sec == looked->st_ctim.tv_sec && now.st_ctim.tv_nsec == looked->st_ctim.tv_nsec)
		(void)unlinkat(folder, name, 0);
}

static void find_meet(struct find *find, int folder, const char *name, uid_t owner, int64_t pid)
{
	struct live_peer *peer;
	struct stat looked;

	if (fstatat(folder, name, &looked, AT_SYMLINK_NOFOLLOW))
		return;
	if (find_is_gone(pid)) {
		find_remove(folder, name, &looked);
		return;
	}
	peer = find_known(find->peers, pid);
	if (peer && (peer->fd >= 0 || live_wait_now_ms() < peer->silent_until)) {
		peer->seen = 1;
		return;
	}
	if (!peer)
		peer = find_add(find->peers, pid);
	if (!peer) {
		find->failed = 1;
		return;
	}
	peer->seen = 1;
	find_name_program(peer);
	if (live_connect(peer, folder, name, &owner) == LIVE_ABSENT) {
		if (strstr(peer->text, "listens"))
			find_remove(folder, name, &looked);
		peer->seen = 0;
	}
}

/* ----------------------------------------------------------------------------------------------------- folders -- */

static int find_was_seen(struct find *find, const struct stat *facts)
{
	for (unsigned i = 0; i < find->folders; i++) {
		if (find->seen[i].dev == facts->st_dev && find->seen[i].ino == facts->st_ino)
			return 1;
	}
	if (find->folders == FIND_FOLDERS)
		return 1;
	find->seen[find->folders].dev = facts->st_dev;
	find->seen[find->folders++].ino = facts->st_ino;
	return 0;
}

static void find_look_into(struct find *find, const char *path, uid_t owner)
{
	int folder = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct dirent *entry;
	struct stat facts;
	DIR *list;

	if (folder < 0)
		return;
	if (fstat(folder, &facts) || facts.st_uid != owner || (facts.st_mode & 077) || find_was_seen(find, &facts)) {
		(void)close(folder);
		return;
	}
	list = fdopendir(folder);
	if (!list) {
		(void)close(folder);
		return;
	}
	while ((entry = readdir(list))) {
		int64_t pid = find_pid_of_name(entry->d_name);

		if (pid > 0 && (!find->pid || pid == find->pid))
			find_meet(find, folder, entry->d_name, owner, pid);
	}
	(void)closedir(list);
}

/* The folders of all users: ABOVE/PREFIX and a user's number, and what is after that. */
static void find_look_at_users(struct find *find, const char *above, const char *prefix, const char *after)
{
	size_t length = strlen(prefix);
	struct dirent *entry;
	DIR *list = opendir(above);

	while (list && (entry = readdir(list))) {
		char path[128];
		uint64_t uid;

		if (strncmp(entry->d_name, prefix, length) != 0 || live_parse_number(entry->d_name + length, &uid) ||
		    uid > UINT32_MAX)
			continue;
		(void)snprintf(path, sizeof(path), "%s/%s%u%s", above, prefix, (unsigned)uid, after);
		find_look_into(find, path, (uid_t)uid);
	}
	if (list)
		(void)closedir(list);
}

static void find_look_everywhere(struct find *find)
{
	const char *own = getenv("XDG_RUNTIME_DIR");
	uid_t uid = geteuid();
	char path[4096];

	if (own && own[0] == '/' && snprintf(path, sizeof(path), "%s/uffdwp", own) < (int)sizeof(path))
		find_look_into(find, path, uid);
	(void)snprintf(path, sizeof(path), "/run/user/%u/uffdwp", (unsigned)uid);
	find_look_into(find, path, uid);
	(void)snprintf(path, sizeof(path), "/tmp/uffdwp-%u", (unsigned)uid);
	find_look_into(find, path, uid);
	if (uid != 0)
		return;
	find_look_into(find, "/run/uffdwp", 0);
	find_look_at_users(find, "/run/user", "", "/uffdwp");
	find_look_at_users(find, "/tmp", "uffdwp-", "");
}

/* A socket that the program put elsewhere: the process is the one that listens there. */
static void find_meet_path(struct find *find, const char *path)
{
	const char *slash = strrchr(path, '/');
	char above[4096] = ".";
	struct live_peer *peer = find->peers->count ? &find->peers->peers[0] : find_add(find->peers, 0);
	int folder;

	find->failed |= !peer;
	if (!peer)
		return;
	peer->seen = 1;
	if (peer->fd >= 0 || live_wait_now_ms() < peer->silent_until)
		return;
	if (slash)
		(void)snprintf(above, sizeof(above), "%.*s", slash == path ? 1 : (int)(slash - path), path);
	folder = open(above, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (folder < 0) {
		(void)snprintf(peer->text, sizeof(peer->text), "%s: %s", above, strerror(errno));
		peer->end = LIVE_ABSENT;
	} else if (live_connect(peer, folder, slash ? slash + 1 : path, NULL) == LIVE_DONE && find->pid &&
	           peer->pid != find->pid) {
		(void)snprintf(peer->text, sizeof(peer->text), "process %lld listens there, and not process %lld",
		               (long long)peer->pid, (long long)find->pid);
		live_disconnect(peer);
		peer->end = LIVE_ABSENT;
	}
	find_name_program(peer);
	if (folder >= 0)
		(void)close(folder);
}

static int find_compare(const void *a, const void *b)
{
	const struct live_peer *left = a;
	const struct live_peer *right = b;

	return (left->pid > right->pid) - (left->pid < right->pid);
}

int live_find(struct live_peers *peers, int64_t pid, const char *socket)
{
	static struct find find;

	find = (struct find){.peers = peers, .pid = pid};
	for (size_t i = 0; i < peers->count; i++)
		peers->peers[i].seen = 0;
	if (socket)
		find_meet_path(&find, socket);
	else
		find_look_everywhere(&find);
	find_drop_unseen(peers);
	if (peers->count)
		qsort(peers->peers, peers->count, sizeof(*peers->peers), find_compare);
	return find.failed ? -1 : 0;
}

void live_peers_free(struct live_peers *peers)
{
	for (size_t i = 0; i < peers->count; i++)
		live_disconnect(&peers->peers[i]);
	free(peers->peers);
	*peers = (struct live_peers){0};
}

void live_find_explain(int64_t pid, char *text, size_t size)
{
	struct live_peer peer = {.pid = pid};
	struct stat facts;
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/%lld", (long long)pid);
	if (pid > INT32_MAX || find_is_gone(pid)) {
		(void)snprintf(text, size, "there is no process %lld: uffdwp-ctl list shows those that can be asked",
		               (long long)pid);
		return;
	}
	find_name_program(&peer);
	if (geteuid() != 0 && stat(path, &facts) == 0 && facts.st_uid != geteuid())
		(void)snprintf(text, size, "process %lld (%s) is user %u's: only that user and root may ask it",
		               (long long)pid, peer.program, (unsigned)facts.st_uid);
	else
		(void)snprintf(text, size,
		               "process %lld (%s) has no control socket: start it with UFFDWP_CONTROL=1 in its "
		               "environment, or have it open its runtime with UFFDWP_OPEN_CONTROL",
		               (long long)pid, peer.program);
}
