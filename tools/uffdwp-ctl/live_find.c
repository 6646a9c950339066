/* SPDX-License-Identifier: MIT */
/* See live_find.h. */
#include "live_find.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/escape.h"
#include "live_say.h"
#include "live_stopped.h"
#include "live_wait.h"

#define FIND_FOLDERS 1024
#define FIND_OTHERS_MOST 256    /* processes in a folder of another user: each takes a descriptor here */
#define FIND_OTHERS_NAMES 65536 /* names in such a folder that are looked at */

struct find {
	struct live_peers *peers;
	int64_t pid;
	int is_of_all; /* for a command that asks all */
	unsigned folders;
	struct {
		dev_t dev;
		ino_t ino;
	} seen[FIND_FOLDERS]; /* one may have two names */
	int failed;
};

/* The folder that is looked into. */
struct find_folder {
	const char *path;
	int fd;
	uid_t owner;
	unsigned met;
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

__attribute__((format(printf, 4, 5))) static void find_leave_out(struct find *find, const struct find_folder *folder,
                                                                 const char *name, const char *format, ...)
{
	struct live_peers *peers = find->peers;
	char why[256];
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(why, sizeof(why), format, arguments);
	va_end(arguments);
	if (peers->strays < LIVE_STRAYS_MOST)
		(void)snprintf(peers->stray_texts[peers->strays], LIVE_STRAY_TEXT, "%.*s/%s: %s", LIVE_STRAY_TEXT - 320,
		               folder->path, name, why);
	peers->strays++;
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

/* Nothing to connect to: it is connected, or did not answer a moment ago, or is stopped still. (One more connection to
 * it would wait in its queue, which is full after some.) */
static int find_is_settled(const struct live_peer *peer)
{
	return peer->fd >= 0 ||
	       (peer->is_stopped ? live_is_stopped(peer->pid) : live_wait_now_ms() < peer->silent_until);
}

static void find_connect(struct find *find, const struct find_folder *folder, const char *name, struct live_peer *peer,
                         const struct stat *looked)
{
	enum live_end end;

	peer->is_one_of_all = find->is_of_all;
	find_name_program(peer);
	end = live_connect(peer, folder->fd, name, &folder->owner);
	peer->seen = end != LIVE_ABSENT && !peer->is_planted;
	if (peer->is_planted)
		find_leave_out(find, folder, name, "%s", peer->text);
	else if (end == LIVE_ABSENT && strstr(peer->text, "listens"))
		find_remove(folder->fd, name, looked);
}

/* The sockets of another user: as many are looked at as this process has descriptors to spare. */
static int find_is_too_many(struct find *find, struct find_folder *folder, const char *name)
{
	if (folder->owner == geteuid() || ++folder->met <= FIND_OTHERS_MOST)
		return 0;
	find_leave_out(find, folder, name, "user %u has more than %d sockets there", (unsigned)folder->owner,
	               FIND_OTHERS_MOST);
	return 1;
}

/* No process of that number is seen from here: it has ended, or lives in another PID namespace. */
static void find_meet_unseen(struct find *find, struct find_folder *folder, const char *name, int64_t pid,
                             const struct stat *looked)
{
	struct live_peer peer = {.pid = pid, .fd = -1, .is_one_of_all = find->is_of_all};
	enum live_end end;

	if (find_is_too_many(find, folder, name))
		return;
	end = live_connect(&peer, folder->fd, name, &folder->owner);
	live_disconnect(&peer);
	if (end == LIVE_ABSENT && strstr(peer.text, "listens"))
		find_remove(folder->fd, name, looked);
	else if (peer.is_planted)
		find_leave_out(find, folder, name, "%s", peer.text);
	else if (end != LIVE_ABSENT)
		find_leave_out(find, folder, name,
		               "process %lld is not seen from here: it has its number in another "
		               "PID namespace",
		               (long long)pid);
}

/* A socket of a process that is there, and is the folder's owner's. */
static void find_meet_process(struct find *find, struct find_folder *folder, const char *name, int64_t pid,
                              const struct stat *looked)
{
	struct live_peer *peer = find_known(find->peers, pid);

	if (find_is_too_many(find, folder, name))
		return;
	if (peer && find_is_settled(peer)) {
		peer->seen = 1;
	} else if (peer || (peer = find_add(find->peers, pid)) != NULL) {
		find_connect(find, folder, name, peer, looked);
	} else {
		find->failed = 1;
	}
}

/* Into root's folder only root writes, and its processes may have given up that user since. */
static void find_meet(struct find *find, struct find_folder *folder, const char *name, int64_t pid)
{
	struct stat looked;
	uid_t other;

	if (fstatat(folder->fd, name, &looked, AT_SYMLINK_NOFOLLOW))
		return;
	if (!S_ISSOCK(looked.st_mode))
		find_leave_out(find, folder, name, "what has the name of a socket is none");
	else if (find_is_gone(pid))
		find_meet_unseen(find, folder, name, pid, &looked);
	else if (folder->owner != 0 && !live_is_of_user(pid, folder->owner, &other))
		find_leave_out(find, folder, name, "process %lld is user %u's, and not user %u's", (long long)pid,
		               (unsigned)other, (unsigned)folder->owner);
	else
		find_meet_process(find, folder, name, pid, &looked);
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

static void find_look_at_names(struct find *find, struct find_folder *folder, DIR *list)
{
	unsigned names = 0;
	struct dirent *entry;

	while ((entry = readdir(list)) && !live_wait_stops()) {
		int64_t pid = find_pid_of_name(entry->d_name);

		if (folder->owner != geteuid() && ++names > FIND_OTHERS_NAMES) {
			find_leave_out(find, folder, "...", "user %u has more than %d names there",
			               (unsigned)folder->owner, FIND_OTHERS_NAMES);
			return;
		}
		if (pid > 0 && (!find->pid || pid == find->pid))
			find_meet(find, folder, entry->d_name, pid);
	}
}

static void find_look_into(struct find *find, const char *path, uid_t owner)
{
	struct find_folder folder = {
	        .path = path, .fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), .owner = owner};
	struct stat facts;
	DIR *list = NULL;

	if (folder.fd < 0)
		return;
	if (!fstat(folder.fd, &facts) && facts.st_uid == owner && !(facts.st_mode & 077) &&
	    !find_was_seen(find, &facts))
		list = fdopendir(folder.fd);
	if (!list) {
		(void)close(folder.fd);
		return;
	}
	find_look_at_names(find, &folder, list);
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
	if (find_is_settled(peer))
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

	find = (struct find){.peers = peers, .pid = pid, .is_of_all = !pid && !socket};
	live_talk_begin();
	peers->strays = 0;
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

void live_find_say_strays(const char *command, const struct live_peers *peers)
{
	size_t named = peers->strays < LIVE_STRAYS_MOST ? peers->strays : LIVE_STRAYS_MOST;

	for (size_t i = 0; i < named; i++)
		live_complain(command, "%s: left out", peers->stray_texts[i]);
	if (peers->strays > named)
		live_complain(command, "left out %zu more of that kind", peers->strays - named);
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
