/* SPDX-License-Identifier: MIT */
/*
 * From what was seen to what to do. Each piece of advice says what is missing, how much that matters, and lists
 * commands of which any one helps. The probe's refusals are taken as they are; the guesswork (a seccomp filter? a
 * container?) is only about who refused.
 */
#include <errno.h>
#include <linux/capability.h>
#include <stdarg.h>

#include "doctor.h"

enum memory_state memory_state(const struct uffdwp_probe_report *probe, unsigned memory)
{
	const struct uffdwp_probe_memory *found = &probe->memory[memory];
	int untried = found->registered == 0 && found->answers[UFFDWP_TRIAL_POPULATED] == UFFDWP_ANSWER_UNTRIED;

	switch (found->mechanism) {
	case UFFDWP_MECHANISM_MARKER:
	case UFFDWP_MECHANISM_REARM:
		return MEMORY_ARMED;
	case UFFDWP_MECHANISM_MINOR:
	case UFFDWP_MECHANISM_MPROTECT:
		return MEMORY_LIMITED;
	default:
		if (memory == UFFDWP_MEMORY_HUGETLB && !probe->huge_pages_free)
			untried = 1;
		return untried ? MEMORY_UNTRIED : MEMORY_REFUSED;
	}
}

int tracks_only(unsigned mechanism)
{
	return mechanism == UFFDWP_MECHANISM_ASYNC || mechanism == UFFDWP_MECHANISM_SOFT_DIRTY;
}

unsigned track_mechanism(const struct uffdwp_probe_memory *memory)
{
	return memory->rungs[UFFDWP_MECHANISM_ASYNC].works ? UFFDWP_MECHANISM_ASYNC : memory->mechanism;
}

__attribute__((format(printf, 4, 5))) static struct advice *advise(struct doctor *doctor, const char *id,
                                                                   enum advice_level level, const char *format, ...)
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

__attribute__((format(printf, 2, 3))) static void change(struct advice *advice, const char *format, ...)
{
	va_list arguments;

	if (advice->changes == ADVICE_CHANGES)
		return;
	va_start(arguments, format);
	(void)vsnprintf(advice->change[advice->changes++], sizeof advice->change[0], format, arguments);
	va_end(arguments);
}

static int refused(int error)
{
	return error == -EPERM || error == -EACCES;
}

/* A filter is at work, and what it refuses, the user's own rights would allow. */
static int filter_refused(const struct doctor *doctor)
{
	const struct uffdwp_probe_report *probe = &doctor->probe;
	int allowed = probe->sysctl_unprivileged == 1 || facts_capable(&doctor->facts, CAP_SYS_PTRACE);

	if (probe->seccomp <= 0 || !refused(probe->access[UFFDWP_ACCESS_SYSCALL]))
		return 0;
	return allowed || refused(probe->access[UFFDWP_ACCESS_USER_MODE]);
}

static void advise_filter(struct doctor *doctor, enum advice_level level)
{
	struct advice *advice =
	        advise(doctor, "seccomp", level,
	               "a seccomp filter refuses the system call userfaultfd(2): it was refused (%s) though "
	               "the rights of this user would allow it",
	               word_errno(doctor->probe.access[UFFDWP_ACCESS_SYSCALL]));

	change(advice,
	       "docker, podman: --security-opt seccomp=PROFILE.json, a profile that lists userfaultfd as allowed");
	change(advice, "systemd: SystemCallFilter=userfaultfd in the unit");
	change(advice,
	       "hand in the device instead, which needs no such system call: docker run --device /dev/userfaultfd");
}

static void advise_device(struct doctor *doctor, struct advice *advice)
{
	const struct facts *facts = &doctor->facts;

	if (facts->device_error == -ENOENT) {
		if (facts->container)
			change(advice, "hand in the device: docker run --device /dev/userfaultfd (Linux 6.1 or later)");
		return;
	}
	change(advice, "as root: setfacl -m u:%u:rw /dev/userfaultfd (it is mode %04o, owner %u, group %u)",
	       (unsigned)facts->uid, facts->device_mode, facts->device_owner, facts->device_group_id);
	change(advice, "to stay, a file /etc/udev/rules.d/90-userfaultfd.rules: "
	               "KERNEL==\"userfaultfd\", GROUP=\"GROUP_OF_YOUR_USERS\", MODE=\"0660\"");
}

static void advise_rights(struct doctor *doctor, enum advice_level level)
{
	struct advice *advice =
	        advise(doctor, "rights", level,
	               "this user may not open a userfaultfd that serves faults of the kernel: the system "
	               "call answers %s, /dev/userfaultfd %s",
	               word_errno(doctor->probe.access[UFFDWP_ACCESS_SYSCALL]),
	               word_errno(doctor->probe.access[UFFDWP_ACCESS_DEVICE]));

	advise_device(doctor, advice);
	if (doctor->probe.sysctl_unprivileged == 0)
		change(advice, "as root, for every user: sysctl -w vm.unprivileged_userfaultfd=1");
	change(advice, "as root, for one program: setcap cap_sys_ptrace+ep PROGRAM");
}

static void advise_user_mode(struct doctor *doctor)
{
	(void)advise(doctor, "user_mode", ADVICE_LIMIT,
	             "only faults of user code are caught: a system call that writes into an armed page, read(2) into "
	             "it for "
	             "example, fails with EFAULT. Call uffdwp_prepare_write() on such buffers, or change the above");
}

static void advise_kernel(struct doctor *doctor, enum advice_level level)
{
	struct advice *advice = advise(doctor, "kernel", level, "userfaultfd(2) is not there: %s",
	                               word_errno(doctor->probe.access[UFFDWP_ACCESS_SYSCALL]));

	change(advice, "run a kernel with CONFIG_USERFAULTFD=y (the kernels of all large distributions have it)");
	if (doctor->probe.seccomp > 0)
		change(advice, "or let the seccomp filter pass userfaultfd: some filters answer ENOSYS");
}

static void advise_access(struct doctor *doctor)
{
	int chosen = doctor->probe.access_chosen;
	enum advice_level level = doctor->verdict == EXIT_NOTHING ? ADVICE_REQUIRED : ADVICE_LIMIT;

	if (chosen == UFFDWP_ACCESS_SYSCALL || chosen == UFFDWP_ACCESS_DEVICE)
		return;
	if (doctor->probe.access[UFFDWP_ACCESS_SYSCALL] == -ENOSYS)
		advise_kernel(doctor, level);
	else if (filter_refused(doctor))
		advise_filter(doctor, level);
	else
		advise_rights(doctor, level);
	if (chosen == UFFDWP_ACCESS_USER_MODE)
		advise_user_mode(doctor);
}

static void advise_huge_pages(struct doctor *doctor)
{
	struct advice *advice = advise(doctor, "huge_pages", ADVICE_OPTIONAL,
	                               "no huge page is free, so that nothing could be tried on them");

	change(advice, "as root: sysctl -w vm.nr_hugepages=8");
}

/* Why memory with a file behind it got write protection late, and what else came before that. */
static void add_releases(struct advice *advice, const struct doctor *doctor, unsigned memory)
{
	const struct uffdwp_probe_memory *found = &doctor->probe.memory[memory];

	if (found->registered != -EINVAL)
		return;
	if (memory == UFFDWP_MEMORY_ANON) {
		change(advice, "Linux 5.7 brings write protection of this memory");
		return;
	}
	change(advice, "Linux 5.19 with CONFIG_PTE_MARKER_UFFD_WP brings write protection of this memory: before it a "
	               "mark had no place to stay in when the kernel emptied the page-table entry");
	if (!found->rungs[UFFDWP_MECHANISM_MINOR].works)
		change(advice, "Linux %s brings minor faults, by which it can be watched too, reads and all",
		       memory == UFFDWP_MEMORY_SHMEM ? "5.14" : "5.18");
}

static void advise_refused(struct doctor *doctor, unsigned memory)
{
	struct advice *advice = advise(doctor, "memory", ADVICE_LIMIT, "%s: cannot be armed: %s", word_memory(memory),
	                               doctor->probe.memory[memory].reason);

	add_releases(advice, doctor, memory);
}

static void advise_limited(struct doctor *doctor, unsigned memory)
{
	const struct uffdwp_probe_memory *found = &doctor->probe.memory[memory];
	int minor = found->mechanism == UFFDWP_MECHANISM_MINOR;
	struct advice *advice;

	if (doctor->probe.access_chosen < 0)
		return;
	advice = advise(doctor, "memory", ADVICE_LIMIT, "%s: %s%s", word_memory(memory), found->reason,
	                minor ? ". Reads of armed pages fault and count as writes" : "");
	add_releases(advice, doctor, memory);
}

static void advise_memory(struct doctor *doctor, unsigned memory)
{
	switch (memory_state(&doctor->probe, memory)) {
	case MEMORY_ARMED:
		break;
	case MEMORY_LIMITED:
		advise_limited(doctor, memory);
		break;
	case MEMORY_UNTRIED:
		if (memory == UFFDWP_MEMORY_HUGETLB)
			advise_huge_pages(doctor);
		break;
	case MEMORY_REFUSED:
		advise_refused(doctor, memory);
		break;
	}
}

static void advise_mprotect(struct doctor *doctor)
{
	const struct uffdwp_probe_report *probe = &doctor->probe;
	struct advice *advice;
	unsigned users = 0;

	for (unsigned memory = 0; memory < UFFDWP_MEMORY_COUNT; memory++)
		users += probe->memory[memory].mechanism == UFFDWP_MECHANISM_MPROTECT;
	if (!users)
		return;
	advice = advise(doctor, "mprotect", ADVICE_LIMIT,
	                "where mprotect(2) stands in, delivery is inline: a system call that writes into an armed page "
	                "fails with EFAULT, call uffdwp_prepare_write() on its buffer. Memory that is moved or "
	                "unmapped is not followed. Each run of armed pages is a mapping of its own, and "
	                "vm.max_map_count (%llu) bounds them",
	                (unsigned long long)probe->max_map_count);
	change(advice, "where many single pages are written, as root: sysctl -w vm.max_map_count=1048576");
}

static void advise_uring(struct doctor *doctor)
{
	struct advice *advice;

	if (doctor->probe.uring == 0)
		return;
	advice = advise(doctor, "io_uring", ADVICE_OPTIONAL,
	                "io_uring is refused (%s): epoll(7) and pwrite(2) take its place, with the same results",
	                word_errno(doctor->probe.uring));
	if (doctor->facts.uring_disabled > 0)
		change(advice, "as root: sysctl -w kernel.io_uring_disabled=0");
	else if (doctor->probe.seccomp > 0)
		change(advice, "let the seccomp filter pass io_uring_setup, io_uring_enter and io_uring_register");
}

static enum exit_code verdict(const struct uffdwp_probe_report *probe)
{
	unsigned armed = 0;
	unsigned limits = probe->access_chosen == UFFDWP_ACCESS_USER_MODE;

	for (unsigned memory = 0; memory < UFFDWP_MEMORY_COUNT; memory++) {
		enum memory_state state = memory_state(probe, memory);

		armed += state == MEMORY_ARMED || state == MEMORY_LIMITED;
		limits += state == MEMORY_REFUSED || state == MEMORY_LIMITED;
	}
	if (!armed)
		return EXIT_NOTHING;
	return limits ? EXIT_LIMITS : EXIT_ALL;
}

void advice_form(struct doctor *doctor)
{
	doctor->advice_count = 0;
	doctor->verdict = verdict(&doctor->probe);
	advise_access(doctor);
	for (unsigned memory = 0; memory < UFFDWP_MEMORY_COUNT; memory++)
		advise_memory(doctor, memory);
	advise_mprotect(doctor);
	advise_uring(doctor);
}
