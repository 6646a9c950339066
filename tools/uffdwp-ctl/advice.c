/* SPDX-License-Identifier: MIT */
/*
 * From what was seen to what to do. Each piece of advice says what is missing, how much that matters, and lists
 * commands of which any one helps. The probe's refusals are taken as they are; the guesswork (a seccomp filter? a
 * container?) is only about what refused.
 */
#include <errno.h>
#include <linux/capability.h>
#include <stdarg.h>

#include "doctor.h"

enum memory_state memory_state(const struct found *probe, unsigned memory)
{
	const struct found_memory *found = &probe->memory[memory];
	int untried =
	        found->all.registered == 0 && found->trials[UFFDWP_TRIAL_POPULATED].answer == UFFDWP_ANSWER_UNTRIED;

	switch (found->all.mechanism) {
	case UFFDWP_MECHANISM_MARKER:
	case UFFDWP_MECHANISM_REARM:
		return MEMORY_ARMED;
	case UFFDWP_MECHANISM_MINOR:
	case UFFDWP_MECHANISM_MPROTECT:
		return MEMORY_LIMITED;
	default:
		if (memory == UFFDWP_MEMORY_HUGETLB && !probe->system.huge_pages_free)
			untried = 1;
		return untried ? MEMORY_UNTRIED : MEMORY_REFUSED;
	}
}

int tracks_only(unsigned mechanism)
{
	return mechanism == UFFDWP_MECHANISM_ASYNC || mechanism == UFFDWP_MECHANISM_SOFT_DIRTY;
}

unsigned track_mechanism(const struct found_memory *memory)
{
	return memory->rungs[UFFDWP_MECHANISM_ASYNC].works ? UFFDWP_MECHANISM_ASYNC : memory->all.mechanism;
}

__attribute__((format(printf, 4, 5))) static struct advice *
advice_advise(struct doctor *doctor, const char *id, enum advice_level level, const char *format, ...)
{
	struct advice *advice = &doctor->advice[doctor->advice_count];
	va_list arguments;

	if (doctor->advice_count < ADVICE_MAX - 1)
		doctor->advice_count++;
	advice->id = id;
	advice->level = level;
	advice->changes = 0;
	va_start(arguments, format);
	(void)vsnprintf(advice->what, sizeof advice->what, format, arguments);
	va_end(arguments);
	return advice;
}

__attribute__((format(printf, 2, 3))) static void advice_change(struct advice *advice, const char *format, ...)
{
	va_list arguments;

	if (advice->changes == ADVICE_CHANGES)
		return;
	va_start(arguments, format);
	(void)vsnprintf(advice->change[advice->changes++], sizeof advice->change[0], format, arguments);
	va_end(arguments);
}

/* The user that sets sysctls. */
static const char *advice_as_root(const struct doctor *doctor)
{
	return doctor->facts.user_namespace == 1 ? "outside of this user namespace, as root of the host" : "as root";
}

static int advice_refused(int error)
{
	return error == -EPERM || error == -EACCES;
}

/* A filter is at work, and what it refuses, the user's own rights would allow. */
static int advice_filter_refused(const struct doctor *doctor)
{
	const struct found *probe = &doctor->probe;
	/* A capability inside of a user namespace is none here. */
	int capable = facts_capable(&doctor->facts, CAP_SYS_PTRACE) && doctor->facts.user_namespace != 1;
	int allowed = probe->system.sysctl_unprivileged == 1 || capable;

	if (probe->system.seccomp <= 0 || !advice_refused(probe->access[UFFDWP_ACCESS_SYSCALL]))
		return 0;
	return allowed || advice_refused(probe->access[UFFDWP_ACCESS_USER_MODE]);
}

static void advice_advise_filter(struct doctor *doctor, enum advice_level level)
{
	struct advice *advice =
	        advice_advise(doctor, "seccomp", level,
	                      "a seccomp filter refuses the system call userfaultfd(2): it was refused (%s) though "
	                      "the rights of this user would allow it",
	                      word_errno(doctor->probe.access[UFFDWP_ACCESS_SYSCALL]));

	advice_change(
	        advice,
	        "docker, podman: --security-opt seccomp=PROFILE.json, a profile that lists userfaultfd as allowed");
	advice_change(advice, "systemd: SystemCallFilter=userfaultfd in the unit");
	advice_change(
	        advice,
	        "hand in the device instead, which needs no such system call: docker run --device /dev/userfaultfd");
}

static void advice_advise_device(struct doctor *doctor, struct advice *advice)
{
	const struct facts *facts = &doctor->facts;

	if (facts->device_error == -ENOENT) {
		if (facts->container)
			advice_change(advice,
			              "hand in the device: docker run --device /dev/userfaultfd (Linux 6.1 or later)");
		return;
	}
	advice_change(advice, "as root: setfacl -m u:%u:rw /dev/userfaultfd (it is mode %04o, owner %u, group %u)",
	              (unsigned)facts->uid, facts->device_mode, facts->device_owner, facts->device_group_id);
	advice_change(advice, "to stay, a file /etc/udev/rules.d/90-userfaultfd.rules: "
	                      "KERNEL==\"userfaultfd\", GROUP=\"GROUP_OF_YOUR_USERS\", MODE=\"0660\"");
}

/* In a user namespace root is none, setcap(8) is void, sysctls and the device's owner are out of reach. */
static void advice_advise_namespace(struct doctor *doctor, enum advice_level level)
{
	const struct facts *facts = &doctor->facts;
	struct advice *advice = advice_advise(
	        doctor, "user_namespace", level,
	        "this is a user namespace, whose capabilities do not count for userfaultfd(2) and whose root "
	        "cannot set sysctls: the system call answers %s, /dev/userfaultfd %s",
	        word_errno(doctor->probe.access[UFFDWP_ACCESS_SYSCALL]),
	        word_errno(doctor->probe.access[UFFDWP_ACCESS_DEVICE]));

	if (facts->device_error == 0)
		advice_change(
		        advice,
		        "outside, as root of the host: setfacl -m u:%u:rw /dev/userfaultfd (uid %u here is uid %u "
		        "there)",
		        facts->outer_uid, (unsigned)facts->uid, facts->outer_uid);
	else
		advice_change(advice,
		              "from outside, hand in the device and let uid %u have it: podman run --device "
		              "/dev/userfaultfd, bwrap --dev-bind /dev/userfaultfd /dev/userfaultfd",
		              facts->outer_uid);
	advice_change(advice, "outside, as root of the host, for every user: sysctl -w vm.unprivileged_userfaultfd=1");
	advice_change(advice, "or run the program outside of the namespace");
}

static void advice_advise_rights(struct doctor *doctor, enum advice_level level)
{
	struct advice *advice =
	        advice_advise(doctor, "rights", level,
	                      "this user may not open a userfaultfd that serves faults of the kernel: the system "
	                      "call answers %s, /dev/userfaultfd %s",
	                      word_errno(doctor->probe.access[UFFDWP_ACCESS_SYSCALL]),
	                      word_errno(doctor->probe.access[UFFDWP_ACCESS_DEVICE]));

	advice_advise_device(doctor, advice);
	if (doctor->probe.system.sysctl_unprivileged == 0)
		advice_change(advice, "as root, for every user: sysctl -w vm.unprivileged_userfaultfd=1");
	advice_change(advice, "as root, for one program: setcap cap_sys_ptrace+ep PROGRAM");
}

static void advice_advise_user_mode(struct doctor *doctor)
{
	(void)advice_advise(
	        doctor, "user_mode", ADVICE_LIMIT,
	        "only faults of user code are caught: a system call that writes into an armed page, read(2) into "
	        "it for "
	        "example, fails with EFAULT. Call uffdwp_prepare_write() on such buffers, or change the above");
}

static void advice_advise_kernel(struct doctor *doctor, enum advice_level level)
{
	struct advice *advice = advice_advise(doctor, "kernel", level, "userfaultfd(2) is not there: %s",
	                                      word_errno(doctor->probe.access[UFFDWP_ACCESS_SYSCALL]));

	advice_change(advice,
	              "run a kernel with CONFIG_USERFAULTFD=y (the kernels of all large distributions have it)");
	if (doctor->probe.system.seccomp > 0)
		advice_change(advice, "or let the seccomp filter pass userfaultfd: some filters answer ENOSYS");
}

static void advice_advise_access(struct doctor *doctor)
{
	int chosen = doctor->probe.system.access_chosen;
	enum advice_level level = doctor->verdict == EXIT_NOTHING ? ADVICE_REQUIRED : ADVICE_LIMIT;

	if (chosen == UFFDWP_ACCESS_SYSCALL || chosen == UFFDWP_ACCESS_DEVICE)
		return;
	if (doctor->probe.access[UFFDWP_ACCESS_SYSCALL] == -ENOSYS)
		advice_advise_kernel(doctor, level);
	else if (advice_filter_refused(doctor))
		advice_advise_filter(doctor, level);
	else if (doctor->facts.user_namespace == 1)
		advice_advise_namespace(doctor, level);
	else
		advice_advise_rights(doctor, level);
	if (chosen == UFFDWP_ACCESS_USER_MODE)
		advice_advise_user_mode(doctor);
}

static void advice_advise_huge_pages(struct doctor *doctor)
{
	struct advice *advice = advice_advise(doctor, "huge_pages", ADVICE_OPTIONAL,
	                                      "no huge page is free, so that nothing could be tried on them");

	advice_change(advice, "%s: sysctl -w vm.nr_hugepages=8", advice_as_root(doctor));
}

/* Why memory of files got write protection late, and what else came before that. */
static void advice_add_releases(struct advice *advice, const struct doctor *doctor, unsigned memory)
{
	const struct found_memory *found = &doctor->probe.memory[memory];

	if (found->all.registered != -EINVAL)
		return;
	if (memory == UFFDWP_MEMORY_ANON) {
		advice_change(advice, "Linux 5.7 brings write protection of this memory");
		return;
	}
	advice_change(advice,
	              "Linux 5.19 with CONFIG_PTE_MARKER_UFFD_WP brings write protection of this memory: before it a "
	              "uffd-wp bit had no place to stay in when the kernel emptied the page-table entry");
	if (!found->rungs[UFFDWP_MECHANISM_MINOR].works)
		advice_change(advice, "Linux %s brings minor faults, by which it can be watched too, reads and all",
		              memory == UFFDWP_MEMORY_SHMEM ? "5.14" : "5.18");
}

static void advice_advise_refused(struct doctor *doctor, unsigned memory)
{
	struct advice *advice = advice_advise(doctor, "memory", ADVICE_LIMIT, "%s: cannot be armed: %s",
	                                      word_memory(memory), doctor->probe.memory[memory].all.reason);

	advice_add_releases(advice, doctor, memory);
}

static void advice_advise_limited(struct doctor *doctor, unsigned memory)
{
	const struct found_memory *found = &doctor->probe.memory[memory];
	int minor = found->all.mechanism == UFFDWP_MECHANISM_MINOR;
	struct advice *advice;

	if (doctor->probe.system.access_chosen < 0)
		return;
	advice = advice_advise(doctor, "memory", ADVICE_LIMIT, "%s: %s%s", word_memory(memory), found->all.reason,
	                       minor ? ". Reads of armed pages fault and count as writes" : "");
	advice_add_releases(advice, doctor, memory);
}

static void advice_advise_memory(struct doctor *doctor, unsigned memory)
{
	switch (memory_state(&doctor->probe, memory)) {
	case MEMORY_ARMED:
		break;
	case MEMORY_LIMITED:
		advice_advise_limited(doctor, memory);
		break;
	case MEMORY_UNTRIED:
		if (memory == UFFDWP_MEMORY_HUGETLB)
			advice_advise_huge_pages(doctor);
		break;
	case MEMORY_REFUSED:
		advice_advise_refused(doctor, memory);
		break;
	}
}

static void advice_advise_mprotect(struct doctor *doctor)
{
	const struct found *probe = &doctor->probe;
	struct advice *advice;
	unsigned users = 0;

	for (unsigned memory = 0; memory < MEMORIES; memory++)
		users += probe->memory[memory].all.mechanism == UFFDWP_MECHANISM_MPROTECT;
	if (!users)
		return;
	advice = advice_advise(
	        doctor, "mprotect", ADVICE_LIMIT,
	        "where mprotect(2) stands in, delivery is inline: a system call that writes into an armed page "
	        "fails with EFAULT, call uffdwp_prepare_write() on its buffer. Memory that is moved or "
	        "unmapped is not followed. Each run of armed pages is a mapping of its own, and "
	        "vm.max_map_count (%llu) bounds them",
	        (unsigned long long)probe->system.max_map_count);
	advice_change(advice, "where many single pages are written, %s: sysctl -w vm.max_map_count=1048576",
	              advice_as_root(doctor));
}

static void advice_advise_uring(struct doctor *doctor)
{
	struct advice *advice;

	if (doctor->probe.system.uring == 0)
		return;
	advice = advice_advise(doctor, "io_uring", ADVICE_OPTIONAL,
	                       "io_uring is refused (%s): epoll(7) and pwrite(2) take its place, with the same results",
	                       word_errno(doctor->probe.system.uring));
	if (doctor->facts.uring_disabled > 0)
		advice_change(advice, "%s: sysctl -w kernel.io_uring_disabled=0", advice_as_root(doctor));
	else if (doctor->probe.system.seccomp > 0)
		advice_change(advice,
		              "let the seccomp filter pass io_uring_setup, io_uring_enter and io_uring_register");
}

static enum exit_code advice_verdict(const struct found *probe)
{
	unsigned armed = 0;
	unsigned limits = probe->system.access_chosen == UFFDWP_ACCESS_USER_MODE;

	for (unsigned memory = 0; memory < MEMORIES; memory++) {
		enum memory_state state = memory_state(probe, memory);

		armed += state == MEMORY_ARMED || state == MEMORY_LIMITED;
		limits += state == MEMORY_REFUSED || state == MEMORY_LIMITED;
	}
	if (!armed)
		return EXIT_NOTHING;
	return limits ? EXIT_LIMITS : EXIT_ALL;
}

/* Nothing was tried: it would have ended the doctor. */
static void advice_advise_killed(struct doctor *doctor)
{
	struct advice *advice =
	        advice_advise(doctor, "seccomp_kills", ADVICE_REQUIRED,
	                      "a seccomp filter kills programs that make these system calls: %s. It would kill a "
	                      "program that opens a runtime, too; nothing else was tried",
	                      doctor->facts.killed);

	advice_change(advice,
	              "docker, podman: --security-opt seccomp=PROFILE.json, a profile that lists them as allowed");
	advice_change(advice,
	              "systemd: SystemCallFilter= with these calls in the unit, or SystemCallErrorNumber=EPERM, which "
	              "refuses instead of killing: the library then does without");
}

void advice_form(struct doctor *doctor)
{
	doctor->advice_count = 0;
	if (doctor->facts.killed[0]) {
		doctor->verdict = EXIT_NOTHING;
		advice_advise_killed(doctor);
		return;
	}
	doctor->verdict = advice_verdict(&doctor->probe);
	advice_advise_access(doctor);
	for (unsigned memory = 0; memory < MEMORIES; memory++)
		advice_advise_memory(doctor, memory);
	advice_advise_mprotect(doctor);
	advice_advise_uring(doctor);
}
