/* SPDX-License-Identifier: MIT */
/* See settings.h. */
#include "settings.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "scratch.h"
#include "support.h"

#define LOCK_FOLDER "UFFDWP_SETTINGS_FOLDER" /* in the environment: where the lock is, for the test of it */
#define LOCK_NAME "uffdwp-settings.lock"
#define TURN_NAME "uffdwp-settings-turn.lock"
#define LOCK_HELD "UFFDWP_SETTINGS_HELD" /* in the environment of what a holder starts */
#define SWAP_BYTES ((size_t)64 << 20)
#define GUARDIANS_MAX 4
#define TMPFS_MAGIC_NUMBER 0x01021994

/* --- the lock ----------------------------------------------------------------------------------------------- */

static int lock_fd = -1;
static int turn_fd = -1;

/* The file may be another user's, which O_CREAT refuses in a sticky folder. */
static int settings_open_lock(const char *name)
{
	const char *folder = getenv(LOCK_FOLDER);
	char path[SCRATCH_PATH];
	scratch_join(path, folder != NULL ? folder : "/var/tmp", name);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0) {
		fd = open(path, O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
	}
	if (fd < 0) {
		printf("no lock against the tests of other runs: %s: %s\n", path, strerror(errno));
		return fd;
	}
	(void)fchmod(fd, 0666);
	return fd;
}

static void settings_lock_file(int fd, const char *name, int operation)
{
	if (fd >= 0 && flock(fd, operation | LOCK_NB) != 0) {
		printf("waiting for the tests beside this one that change the machine's settings: %s\n", name);
		while (flock(fd, operation) != 0 && errno == EINTR) {
		}
	}
}

/* flock(2) is not fair: programs that share the lock and overlap would keep the one away for ever that wants it alone.
 * So each program waits in a queue, of which the first has the turn, and comes there with no lock that the first waits
 * for. */
static void settings_take_lock(int operation)
{
	settings_lock_file(lock_fd, LOCK_NAME, LOCK_UN);
	settings_lock_file(turn_fd, TURN_NAME, LOCK_EX);
	settings_lock_file(lock_fd, LOCK_NAME, operation);
	settings_lock_file(turn_fd, TURN_NAME, LOCK_UN);
}

void settings_begin(void)
{
	if (getenv(LOCK_HELD) != NULL) {
		return;
	}
	lock_fd = settings_open_lock(LOCK_NAME);
	turn_fd = settings_open_lock(TURN_NAME);
	settings_take_lock(LOCK_SH);
	must(setenv(LOCK_HELD, "1", 1) == 0);
}

/* --- guardians ---------------------------------------------------------------------------------------------- */

struct guardian {
	pid_t pid;
	int end; /* closed: undo now */
};

static struct guardian guardians[GUARDIANS_MAX];
static unsigned guardians_count;
static pid_t owner;

static void dismiss_guardians(void)
{
	if (owner != getpid()) {
		return;
	}
	for (unsigned i = 0; i < guardians_count; i++) {
		ssize_t reported = write(guardians[i].end, "", 1);
		if (reported == 1) {
			(void)waitpid(guardians[i].pid, NULL, 0);
		}
	}
}

static void guard(int end, pid_t guarded, void (*undo)(long), long argument)
{
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	int pidfd = (int)syscall(SYS_pidfd_open, guarded, 0);
	struct pollfd ends[2] = {{.fd = end, .events = POLLIN}, {.fd = pidfd, .events = POLLIN}};
	while (getppid() == guarded && poll(ends, 2, pidfd < 0 ? 200 : -1) <= 0) {
	}
	undo(argument);
	_exit(0);
}

static void watch(void (*undo)(long), long argument)
{
	int ends[2] = {-1, -1};
	must(guardians_count < GUARDIANS_MAX && pipe2(ends, O_CLOEXEC) == 0);
	fflush(NULL);
	pid_t guarded = getpid();
	pid_t pid = fork();
	if (pid == 0) {
		close(ends[1]);
		guard(ends[0], guarded, undo, argument);
	}
	must(pid > 0);
	close(ends[0]);
	guardians[guardians_count++] = (struct guardian){pid, ends[1]};
	if (owner == 0) {
		owner = guarded;
		must(atexit(dismiss_guardians) == 0);
	}
}

/* --- huge pages --------------------------------------------------------------------------------------------- */

static long read_number(int fd)
{
	char text[32] = "";
	ssize_t got = pread(fd, text, sizeof(text) - 1, 0);
	return got < 0 ? -errno : strtol(text, NULL, 10);
}

/* Changes the number by `delta` as far as the kernel goes along: the change that came of it, or -errno. */
static int change_huge_pages(long delta, long *changed)
{
	int fd = open("/proc/sys/vm/nr_hugepages", O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		return -errno;
	}
	(void)flock(fd, LOCK_EX);
	long before = read_number(fd);
	char text[32];
	int length = snprintf(text, sizeof(text), "%ld\n", before + delta < 0 ? 0 : before + delta);
	int result = pwrite(fd, text, (size_t)length, 0) == length ? 0 : -errno;
	*changed = read_number(fd) - before;
	close(fd);
	return result;
}

static void give_huge_pages_back(long pages)
{
	long changed = 0;
	(void)change_huge_pages(-pages, &changed);
}

/* Beside what a test needs: trials of tests that run at the same time take some for a moment. */
#define HUGE_PAGES_SPARE 16

int settings_huge_pages(unsigned pages)
{
	long changed = 0;
	pages += HUGE_PAGES_SPARE;
	int error = change_huge_pages((long)pages, &changed);
	if (error == 0 && changed < (long)pages) {
		(void)change_huge_pages(-changed, &changed);
		error = -ENOMEM;
	}
	if (error != 0) {
		printf("no huge pages here: %u more in /proc/sys/vm/nr_hugepages: %s\n", pages, strerror(-error));
		return error;
	}
	watch(give_huge_pages_back, (long)pages);
	return 0;
}

/* --- swap --------------------------------------------------------------------------------------------------- */

static char swap_path[SCRATCH_PATH];

/* The header that mkswap(8) writes (include/linux/swap.h, union swap_header). */
static int write_swap_header(int fd)
{
	size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
	struct {
		uint32_t version;
		uint32_t last_page;
		uint32_t bad_pages;
	} info = {1, (uint32_t)(SWAP_BYTES / page_bytes - 1), 0};
	int whole = pwrite(fd, &info, sizeof(info), 1024) == (ssize_t)sizeof(info) &&
	            pwrite(fd, "SWAPSPACE2", 10, (off_t)page_bytes - 10) == 10 && fsync(fd) == 0;
	return whole ? 0 : -errno;
}

static int fill_file(int fd)
{
	static const uint8_t zeros[1 << 16];
	for (size_t done = 0; done < SWAP_BYTES; done += sizeof(zeros)) {
		if (write(fd, zeros, sizeof(zeros)) != (ssize_t)sizeof(zeros)) {
			return -ENOSPC;
		}
	}
	return 0;
}

static int make_swap_file(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0) {
		return -errno;
	}
	struct statfs fs;
	int error = fstatfs(fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC_NUMBER ? -EINVAL : fill_file(fd);
	if (error == 0) {
		error = write_swap_header(fd);
	}
	close(fd);
	return error;
}

static void drop_swap(long unused)
{
	(void)unused;
	(void)swapoff(swap_path);
	(void)unlink(swap_path);
}

static int swap_is_on(void)
{
	FILE *swaps = fopen("/proc/swaps", "re");
	if (swaps == NULL) {
		return 0;
	}
	char line[512];
	int lines = 0;
	while (fgets(line, sizeof(line), swaps) != NULL) {
		lines++;
	}
	(void)fclose(swaps);
	return lines > 1;
}

int settings_swap(void)
{
	settings_take_lock(LOCK_EX);
	(void)snprintf(swap_path, sizeof(swap_path), "/var/tmp/uffdwp-test-swap-%d", (int)getpid());
	int error = make_swap_file(swap_path);
	if (error == 0 && swapon(swap_path, 0) != 0) {
		error = -errno;
	}
	if (error == 0) {
		watch(drop_swap, 0);
		return 0;
	}
	if (error != -EEXIST) {
		(void)unlink(swap_path);
	}
	if (swap_is_on()) {
		return 0;
	}
	printf("no swap here: a swap file in /var/tmp: %s\n", strerror(-error));
	return error;
}

/* --- mappings ------------------------------------------------------------------------------------------------- */

static int write_max_map_count(long count)
{
	int fd = open("/proc/sys/vm/max_map_count", O_WRONLY | O_CLOEXEC);
	if (fd < 0) {
		return -errno;
	}
	char text[32];
	int length = snprintf(text, sizeof(text), "%ld\n", count);
	int result = pwrite(fd, text, (size_t)length, 0) == length ? 0 : -errno;
	close(fd);
	return result;
}

static void give_mappings_back(long before)
{
	(void)write_max_map_count(before);
}

int settings_mappings(unsigned most)
{
	settings_take_lock(LOCK_EX);
	int fd = open("/proc/sys/vm/max_map_count", O_RDONLY | O_CLOEXEC);
	long before = fd < 0 ? -errno : read_number(fd);
	if (fd >= 0) {
		close(fd);
	}
	int error = before > (long)most ? write_max_map_count((long)most) : before > 0 ? -ERANGE : (int)before;
	if (error != 0) {
		printf("vm.max_map_count stays: %s\n", strerror(-error));
		return error;
	}
	watch(give_mappings_back, before);
	return 0;
}

/* --- KSM -------------------------------------------------------------------------------------------------------- */

struct ksm_setting {
	const char *name;
	long wanted;
	long before;
};

static struct ksm_setting ksm_settings[] = {{"pages_to_scan", 20000, 0}, {"sleep_millisecs", 1, 0}, {"run", 1, 0}};

#define KSM_SETTINGS (sizeof(ksm_settings) / sizeof(ksm_settings[0]))

static int ksm_open(const struct ksm_setting *setting)
{
	char path[96];
	(void)snprintf(path, sizeof(path), "/sys/kernel/mm/ksm/%s", setting->name);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int ksm_write(const struct ksm_setting *setting, long value)
{
	int fd = ksm_open(setting);
	if (fd < 0) {
		return fd;
	}
	char text[32];
	int length = snprintf(text, sizeof(text), "%ld\n", value);
	int result = write(fd, text, (size_t)length) == length ? 0 : -errno;
	close(fd);
	return result;
}

static void give_ksm_back(long count)
{
	while (count-- > 0) {
		(void)ksm_write(&ksm_settings[count], ksm_settings[count].before);
	}
}

int settings_ksm(void)
{
	settings_take_lock(LOCK_EX);
	int error = 0;
	long changed = 0;
	for (; changed < (long)KSM_SETTINGS && error == 0; changed++) {
		struct ksm_setting *setting = &ksm_settings[changed];
		int fd = ksm_open(setting);
		setting->before = fd < 0 ? fd : read_number(fd);
		if (fd >= 0) {
			close(fd);
		}
		error = fd < 0 ? fd : setting->before < 0 ? (int)setting->before : ksm_write(setting, setting->wanted);
	}
	if (error != 0) {
		give_ksm_back(changed - 1);
		printf("no KSM here: /sys/kernel/mm/ksm: %s\n", strerror(-error));
		return error;
	}
	watch(give_ksm_back, changed);
	return 0;
}
