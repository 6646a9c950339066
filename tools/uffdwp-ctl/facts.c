/* SPDX-License-Identifier: MIT */
/*
 * The system around the process: which user runs, what it may do, which switches stand how. Nothing is decided here,
 * and nothing that is missing is an error. That this is a container is a guess from what the usual tools leave, used
 * only to word advice.
 */
#include <errno.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/escape.h"
#include "doctor.h"

/* Reads a line that starts with key, without the key. 0, or -errno; -ENODATA without such a line. */
static int facts_read_line(const char *path, const char *key, char *value, size_t size)
{
	FILE *file = fopen(path, "re");
	char line[512];
	int error = -ENODATA;

	if (!file)
		return -errno;
	while (error && fgets(line, sizeof line, file)) {
		if (strncmp(line, key, strlen(key)) != 0)
			continue;
		line[strcspn(line, "\n")] = '\0';
		(void)snprintf(value, size, "%s", line + strlen(key));
		error = 0;
	}
	(void)fclose(file);
	return error;
}

static int64_t facts_read_number(const char *path)
{
	char text[64];
	int error = facts_read_line(path, "", text, sizeof text);

	return error ? error : strtoll(text, NULL, 10);
}

static void facts_look_at_user(struct facts *facts)
{
	const struct passwd *entry;
	char text[64];

	facts->uid = geteuid();
	entry = getpwuid(facts->uid);
	(void)escape_text(facts->user, sizeof facts->user, entry ? entry->pw_name : "", 0);
	facts->capabilities_known = facts_read_line("/proc/self/status", "CapEff:", text, sizeof text) == 0;
	facts->capabilities = facts->capabilities_known ? strtoull(text, NULL, 16) : 0;
}

/* "inside outside length", a line each; without a namespace there is one line: all, unchanged. */
static void facts_look_at_namespace(struct facts *facts)
{
	FILE *file = fopen("/proc/self/uid_map", "re");
	char line[128];

	facts->user_namespace = file ? 1 : -1; /* without a line no user is mapped */
	facts->outer_uid = (unsigned)facts->uid;
	while (file && fgets(line, sizeof line, file) != NULL) {
		char *text = line;
		unsigned long inside = strtoul(text, &text, 10);
		unsigned long outside = strtoul(text, &text, 10);
		unsigned long length = strtoul(text, &text, 10);

		facts->user_namespace = !(inside == 0 && outside == 0 && length == UINT32_MAX);
		if (facts->uid >= inside && facts->uid - inside < length)
			facts->outer_uid = (unsigned)(outside + (facts->uid - inside));
	}
	if (file)
		(void)fclose(file);
}

static void facts_look_at_device(struct facts *facts)
{
	struct stat st;

	if (stat("/dev/userfaultfd", &st) != 0) {
		facts->device_error = -errno;
		return;
	}
	facts->device_error = 0;
	facts->device_mode = st.st_mode & 07777;
	facts->device_owner = st.st_uid;
	facts->device_group_id = st.st_gid;
}

static const char *facts_container_name(void)
{
	static const char *const hints[] = {"docker", "kubepods", "libpod", "lxc"};
	char text[256];

	if (access("/.dockerenv", F_OK) == 0)
		return "docker";
	if (access("/run/.containerenv", F_OK) == 0)
		return "podman";
	if (facts_read_line("/proc/1/cgroup", "", text, sizeof text) != 0)
		return NULL;
	for (size_t i = 0; i < sizeof hints / sizeof hints[0]; i++)
		if (strstr(text, hints[i]))
			return hints[i];
	return NULL;
}

void facts_look(struct facts *facts)
{
	*facts = (struct facts){0};
	(void)uname(&facts->kernel);
	facts->proc_error = access("/proc/self/status", R_OK) == 0 ? 0 : -errno;
	facts_look_at_user(facts);
	facts_look_at_namespace(facts);
	facts_look_at_device(facts);
	facts->container = facts_container_name();
	facts->uring_disabled = facts_read_number("/proc/sys/kernel/io_uring_disabled");
	facts->uring_group = facts_read_number("/proc/sys/kernel/io_uring_group");
}

int facts_capable(const struct facts *facts, unsigned capability)
{
	return (int)(facts->capabilities >> capability & 1);
}
