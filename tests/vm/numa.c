/* SPDX-License-Identifier: MIT */
/*
 * Placement, proved on a machine of two NUMA nodes: handler threads run on the CPUs of the node that they were given,
 * with their stacks on it; a bound region, its ledger, the pre-images and buffers of its snapshot lie on its node, and
 * an interleaved region on both.
 *
 * And an image is right although the kernel moves the region's pages from node to node all the time: they look like
 * holes meanwhile (lib/kernel/holes.h).
 *
 * The thread that touches the memory is on the other node each time: where the library does nothing, memory would come
 * from there. Witnesses are move_pages(2), which says where a page is, and /proc/self/numa_maps, which knows of the
 * mappings that the library keeps to itself, by their policy.
 *
 * Prints `numa WHAT proved|failed DETAIL`. Exit code: 0, 1, or 77 on a machine of one node.
 */
#include <dirent.h>
#include <errno.h>
#include <numa.h>
#include <numaif.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "gate.h"
#include "uffdwp.h"

#define PAGES 512
#define NODES 2
#define HANDLERS 2

static size_t page_bytes;
static int failures;

static void say(int holds, const char *what, int node, const char *format, ...) __attribute__((format(printf, 4, 5)));

static void say(int holds, const char *what, int node, const char *format, ...)
{
	va_list arguments;
	char detail[200];

	va_start(arguments, format);
	(void)vsnprintf(detail, sizeof(detail), format, arguments);
	va_end(arguments);
	printf("numa %s-%d %s %s\n", what, node, holds ? "proved" : "failed", detail);
	failures += !holds;
}

/* For what must work before anything can be shown. */
static void need(int error, const char *what)
{
	if (!error)
		return;
	printf("numa %s failed %s\n", what, strerror(-error));
	exit(1);
}

static void go_to_node(int node)
{
	need(numa_run_on_node(node) ? -errno : 0, "numa_run_on_node");
}

/* The node of a page, or a negative errno. */
static int node_of(const void *address)
{
	void *page = (void *)((uintptr_t)address & ~(page_bytes - 1));
	int node = -1;

	return move_pages(0, 1, &page, NULL, &node, 0) ? -errno : node;
}

/* --- handlers ----------------------------------------------------------------------------------------------- */

static int task_file(pid_t task, const char *name, char *text, size_t size)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/self/task/%d/%s", (int)task, name);
	FILE *file = fopen(path, "re");

	if (!file)
		return -errno;
	char *got = fgets(text, (int)size, file);

	(void)fclose(file);
	return got ? 0 : -EIO;
}

static size_t find_handlers(pid_t *tasks, size_t most)
{
	size_t found = 0;
	char name[32];
	DIR *folder = opendir("/proc/self/task");

	for (struct dirent *entry; folder && found < most && (entry = readdir(folder));) {
		pid_t task = (pid_t)strtol(entry->d_name, NULL, 10);

		if (task > 0 && task_file(task, "comm", name, sizeof(name)) == 0 && !strncmp(name, "uffdwp-fault", 12))
			tasks[found++] = task;
	}
	if (folder)
		(void)closedir(folder);
	return found;
}

/* CPUs of the thread that are on another node. */
static size_t strange_cpus(pid_t task, int node)
{
	cpu_set_t cpus;
	size_t strange = 0;

	need(sched_getaffinity(task, sizeof(cpus), &cpus) ? -errno : 0, "sched_getaffinity");
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		strange += CPU_ISSET((size_t)cpu, &cpus) && numa_node_of_cpu(cpu) != node;
	return strange;
}

/* Where the stack of a sleeping thread is: its stack pointer is the last but one word of its `syscall` file. */
static int node_of_stack(pid_t task)
{
	char text[256] = "";
	char *words[16] = {NULL};
	size_t count = 0;
	char *rest = NULL;

	while (task_file(task, "syscall", text, sizeof(text)) == 0 && strncmp(text, "running", 7) == 0)
		sched_yield();
	for (char *word = strtok_r(text, " \n", &rest); word && count < 16; word = strtok_r(NULL, " \n", &rest))
		words[count++] = word;
	return count < 3 ? -ENODATA : node_of((void *)(uintptr_t)strtoull(words[count - 2], NULL, 16));
}

static void check_handlers(int node)
{
	pid_t tasks[64];
	size_t count = 0;
	size_t strange = 0;
	size_t stacks = 0;

	/* They name themselves when they begin. */
	while ((count = find_handlers(tasks, sizeof(tasks) / sizeof(tasks[0]))) < HANDLERS)
		sched_yield();

	for (size_t i = 0; i < count; i++) {
		strange += strange_cpus(tasks[i], node);
		stacks += node_of_stack(tasks[i]) == node;
	}
	say(count == HANDLERS && !strange, "handlers", node, "threads=%zu cpus-elsewhere=%zu", count, strange);
	say(count == HANDLERS && stacks == count, "stacks", node, "of %zu threads %zu there", count, stacks);
}

/* --- regions and buffers ------------------------------------------------------------------------------------ */

static void count_nodes(const uint8_t *base, size_t count[NODES])
{
	memset(count, 0, NODES * sizeof(*count));
	for (size_t page = 0; page < PAGES; page++) {
		int node = node_of(base + page * page_bytes);

		if (node >= 0 && node < NODES)
			count[node]++;
	}
}

/* Adds the pages by node of a line " ... N0=3 N1=4 ..." of numa_maps. */
static void add_line(const char *line, size_t count[NODES])
{
	for (const char *at = strstr(line, " N"); at; at = strstr(at + 1, " N")) {
		char *end;
		unsigned long node = strtoul(at + 2, &end, 10);

		if (*end == '=' && node < NODES)
			count[node] += strtoul(end + 1, NULL, 10);
	}
}

/* Pages by node of all mappings with this policy, the region's own left out: what the library keeps beside it. */
static void count_policy(const char *policy, const uint8_t *region, size_t count[NODES])
{
	char line[1024];
	FILE *file = fopen("/proc/self/numa_maps", "re");

	need(file ? 0 : -errno, "numa_maps");
	memset(count, 0, NODES * sizeof(*count));
	while (fgets(line, sizeof(line), file))
		if (strstr(line, policy) && strtoull(line, NULL, 16) != (uintptr_t)region)
			add_line(line, count);
	(void)fclose(file);
}

struct sink {
	struct gate gate;
	uint64_t bytes;
};

static int take(void *user, uint64_t offset, const void *data, uint64_t length)
{
	struct sink *sink = user;

	(void)offset;
	(void)data;
	gate_pass(&sink->gate);
	sink->bytes += length;
	return 0;
}

/* A snapshot whose sink is stopped until the pre-images were looked at. */
static void check_buffers(struct uffdwp_region *region, uint8_t *base, int node)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot = NULL;
	struct sink sink = {.gate = GATE_INIT};
	char policy[32];
	size_t count[NODES];

	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = take;
	options.user = &sink;
	options.pool_bytes = 4 * PAGES * page_bytes;
	need(uffdwp_snapshot_begin(region, &options, &snapshot), "begin");
	for (size_t page = 0; page < PAGES; page++)
		base[page * page_bytes] = 2;
	gate_await(&sink.gate);
	(void)snprintf(policy, sizeof(policy), " bind:%d ", node);
	count_policy(policy, base, count);
	gate_open(&sink.gate);
	need(uffdwp_snapshot_wait(snapshot, -1, NULL), "wait");
	(void)uffdwp_snapshot_free(snapshot);
	say(!count[!node] && count[node] >= PAGES / 2 && sink.bytes == PAGES * page_bytes, "buffers", node,
	    "pages=%zu elsewhere=%zu", count[node], count[!node]);
}

static struct uffdwp_region *make_region(struct uffdwp *runtime, enum uffdwp_numa numa, uint64_t nodes)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	struct uffdwp_region *region = NULL;

	options.numa = (uint32_t)numa;
	options.numa_nodes = nodes;
	need(uffdwp_region_create(runtime, PAGES * page_bytes, &options, &region), "create");
	memset(uffdwp_region_base(region), 1, PAGES * page_bytes);
	return region;
}

static void check_bound(struct uffdwp *runtime, int node)
{
	struct uffdwp_region *region = make_region(runtime, UFFDWP_NUMA_BIND, 1ull << node);
	uint8_t *base = uffdwp_region_base(region);
	size_t count[NODES];

	count_nodes(base, count);
	say(count[node] == PAGES, "region", node, "pages=%zu elsewhere=%zu", count[node], count[!node]);
	check_buffers(region, base, node);
	need(uffdwp_region_close(region), "close");
}

static void check_interleaved(struct uffdwp *runtime)
{
	struct uffdwp_region *region = make_region(runtime, UFFDWP_NUMA_INTERLEAVE, 3);
	size_t count[NODES];

	count_nodes(uffdwp_region_base(region), count);
	say(count[0] == PAGES / 2 && count[1] == PAGES / 2, "interleaved", NODES, "node-0=%zu node-1=%zu", count[0],
	    count[1]);
	need(uffdwp_region_close(region), "close");
}

/* --- pages that are being moved ------------------------------------------------------------------------------- */

#define MOVED_PAGES 64
#define MOVED_SNAPSHOTS 300

struct mover {
	uint8_t *base; /* another mapping of the file: the region's entries are the library's */
	_Atomic int stop;
	uint64_t moved;
};

static void *move_for_ever(void *argument)
{
	struct mover *mover = argument;
	void *pages[MOVED_PAGES];
	int nodes[MOVED_PAGES];
	int found[MOVED_PAGES];

	for (size_t i = 0; i < MOVED_PAGES; i++)
		pages[i] = mover->base + i * page_bytes;
	for (int node = 0; !atomic_load(&mover->stop); node = !node) {
		for (size_t i = 0; i < MOVED_PAGES; i++)
			nodes[i] = node;
		need(move_pages(0, MOVED_PAGES, pages, nodes, found, MPOL_MF_MOVE_ALL) < 0 ? -errno : 0, "move_pages");
		for (size_t i = 0; i < MOVED_PAGES; i++) {
			mover->moved += found[i] == node;
			(void)*(volatile uint8_t *)pages[i]; /* what is not mapped is not moved */
		}
	}
	return NULL;
}

static int take_image(void *user, uint64_t offset, const void *data, uint64_t length)
{
	memcpy((uint8_t *)user + offset, data, length);
	return 0;
}

/* Pages of the image that are not what the region had. 1: the snapshot failed. */
static size_t count_wrong(struct uffdwp_region *region, const uint8_t *expected, uint8_t *image)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot = NULL;
	size_t wrong = 0;

	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = take_image;
	options.user = image;
	memset(image, 0, MOVED_PAGES * page_bytes);
	need(uffdwp_snapshot_begin(region, &options, &snapshot), "begin");
	if (uffdwp_snapshot_wait(snapshot, -1, NULL))
		wrong = 1;
	(void)uffdwp_snapshot_free(snapshot);
	for (size_t page = 0; page < MOVED_PAGES && !wrong; page++)
		wrong += memcmp(image + page * page_bytes, expected + page * page_bytes, page_bytes) != 0;
	return wrong;
}

static void check_moving(void)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	size_t length = MOVED_PAGES * page_bytes;
	uint8_t *image = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct uffdwp *runtime = NULL;
	struct uffdwp_region *region = NULL;
	struct mover mover = {.moved = 0};
	pthread_t thread;
	size_t wrong = 0;

	options.fd = memfd_create("moving", MFD_CLOEXEC);
	need(image != MAP_FAILED && options.fd >= 0 && !ftruncate(options.fd, (off_t)length) ? 0 : -errno, "memfd");
	uint8_t *base = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, options.fd, 0);
	need(base != MAP_FAILED ? 0 : -errno, "mmap");
	memset(base, 7, length);
	need(uffdwp_open(NULL, &runtime), "open");
	need(uffdwp_region_attach(runtime, base, length, &options, &region), "attach");
	mover.base = mmap(NULL, length, PROT_READ, MAP_SHARED, options.fd, 0);
	need(mover.base != MAP_FAILED ? 0 : -errno, "mmap");
	need(-pthread_create(&thread, NULL, move_for_ever, &mover), "pthread_create");
	for (int i = 0; i < MOVED_SNAPSHOTS; i++)
		wrong += count_wrong(region, mover.base, image);
	atomic_store(&mover.stop, 1);
	need(-pthread_join(thread, NULL), "pthread_join");
	say(!wrong && mover.moved > 0, "moving", NODES, "snapshots=%d wrong=%zu moves=%llu", MOVED_SNAPSHOTS, wrong,
	    (unsigned long long)mover.moved);
	need(uffdwp_region_close(region), "close");
	need(uffdwp_close(runtime), "close");
}

static void check_node(int node)
{
	struct uffdwp_options options = UFFDWP_OPTIONS_INIT;
	struct uffdwp *runtime = NULL;

	go_to_node(!node);
	options.numa_nodes = 1ull << node;
	options.handler_threads = HANDLERS;
	need(uffdwp_open(&options, &runtime), "open");
	check_handlers(node);
	check_bound(runtime, node);
	if (node == 0)
		check_interleaved(runtime);
	need(uffdwp_close(runtime), "close");
}

int main(void)
{
	page_bytes = (size_t)sysconf(_SC_PAGESIZE);
	if (numa_available() < 0 || numa_num_configured_nodes() < NODES) {
		printf("skipped: fewer than two NUMA nodes here\n");
		return 77;
	}
	for (int node = 0; node < NODES; node++)
		check_node(node);
	need(numa_run_on_node(-1) ? -errno : 0, "numa_run_on_node");
	check_moving();
	return failures != 0;
}
