/* SPDX-License-Identifier: MIT */
/* See runtime.h. */
#include "fault/runtime.h"

#include <errno.h>
#include <numa.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/trace.h"
#include "fault/inline.h"
#include "kernel/probe.h"
#include "region/registry.h"

static const char *const memory_names[UFFDWP_MEMORY_COUNT] = {"shmem", "hugetlb", "anonymous"};

/* Reads a number at *at and moves on; -1: there is none below CPU_SETSIZE. */
static long cpu_number(const char **at)
{
	char *end;

	if (**at < '0' || **at > '9')
		return -1;
	long number = strtol(*at, &end, 10);

	*at = end;
	return number < CPU_SETSIZE ? number : -1;
}

/* "0-3,8" */
static int cpus_parse(const char *list, cpu_set_t *cpus)
{
	CPU_ZERO(cpus);
	for (const char *at = list;; at++) {
		long first = cpu_number(&at);
		long last = first;

		if (first >= 0 && *at == '-') {
			at++;
			last = cpu_number(&at);
		}
		if (first < 0 || last < first || (*at != ',' && *at != '\0'))
			return -EINVAL;
		for (long cpu = first; cpu <= last; cpu++)
			CPU_SET((size_t)cpu, cpus);
		if (*at == '\0')
			return 0;
	}
}

/* Keeps the CPUs of `cpus` (all, where there is no list) that belong to the node. */
static int cpus_of_node(int node, int listed, cpu_set_t *cpus)
{
	if (numa_available() < 0 || node > numa_max_node())
		return -EINVAL;
	struct bitmask *mask = numa_allocate_cpumask();

	if (!mask || numa_node_to_cpus(node, mask)) {
		numa_free_cpumask(mask);
		return -EINVAL;
	}
	for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		int of_node = cpu < mask->size && numa_bitmask_isbitset(mask, (unsigned)cpu);

		if (!of_node)
			CPU_CLR(cpu, cpus);
		else if (!listed)
			CPU_SET(cpu, cpus);
	}
	numa_free_cpumask(mask);
	return CPU_COUNT(cpus) ? 0 : -EINVAL;
}

static int place_of(const struct uffdwp_options *options, struct text *text, cpu_set_t *cpus,
                    struct handler_place *place)
{
	int listed = options->handler_cpus != NULL;

	CPU_ZERO(cpus);
	if (listed && cpus_parse(options->handler_cpus, cpus))
		return text_fail(text, -EINVAL, "handler_cpus \"%s\" is not a list of CPUs such as 0-3,8",
		                 options->handler_cpus);
	if (options->numa_node >= 0 && cpus_of_node(options->numa_node, listed, cpus))
		return text_fail(text, -EINVAL, "numa_node %d has no CPU that may be used; -1 means any",
		                 (int)options->numa_node);
	place->cpus = listed || options->numa_node >= 0 ? cpus : NULL;
	place->node = options->numa_node;
	place->no_uring = (options->flags & UFFDWP_OPEN_NO_URING) != 0;
	return 0;
}

static int find_access(struct uffdwp *runtime, struct text *text)
{
	int errors[KERNEL_ACCESS_COUNT];
	int uffd =
	        kernel_uffd_open(runtime->k, (runtime->flags & UFFDWP_OPEN_USER_MODE) != 0, &runtime->access, errors);

	if (uffd >= 0) {
		runtime->k->close(uffd);
		return 0;
	}
	if (runtime->flags & UFFDWP_OPEN_USER_MODE)
		return text_fail(text, uffd, "userfaultfd(UFFD_USER_MODE_ONLY) is refused: %s; see uffdwp-ctl doctor",
		                 strerror(-uffd));
	if (uffd == -ENOSYS)
		return text_fail(text, uffd, "this kernel has no userfaultfd (CONFIG_USERFAULTFD)");
	return text_fail(
	        text, uffd,
	        "no userfaultfd: system call: %s; /dev/userfaultfd: %s. Allow one: sysctl "
	        "vm.unprivileged_userfaultfd=1, or read and write permission on /dev/userfaultfd, or a seccomp "
	        "profile that lets userfaultfd(2) pass; see uffdwp-ctl doctor",
	        strerror(-errors[KERNEL_ACCESS_SYSCALL]), strerror(-errors[KERNEL_ACCESS_DEVICE]));
}

static void stop_handlers(struct uffdwp *runtime)
{
	while (runtime->handler_count > 0)
		handler_stop(runtime->handlers[--runtime->handler_count]);
}

/* As was measured: bench/README.md. */
static unsigned default_handlers(void)
{
	return sysconf(_SC_NPROCESSORS_ONLN) > 1 ? 2 : 1;
}

static int start_handlers(struct uffdwp *runtime, const struct uffdwp_options *options, struct text *text)
{
	unsigned wanted = options->handler_threads ? options->handler_threads : default_handlers();
	struct handler_place place;
	cpu_set_t cpus;
	int error = place_of(options, text, &cpus, &place);

	while (!error && runtime->handler_count < wanted) {
		error = handler_start(runtime->k, &place, &runtime->handlers[runtime->handler_count]);
		if (error)
			return text_fail(text, error, "a handler thread could not be started: %s%s", strerror(-error),
			                 error == -EINVAL ? " (are all CPUs in handler_cpus there?)" : "");
		runtime->handler_count++;
	}
	return error;
}

static const char *const access_names[KERNEL_ACCESS_COUNT] = {"system call", "device", "system call, user mode only"};

int runtime_open(const struct kernel_ops *k, const struct uffdwp_options *options, struct text *text,
                 struct uffdwp **out)
{
	struct uffdwp *runtime = pages_new(k, sizeof(*runtime));

	if (!runtime)
		return text_fail(text, -ENOMEM, "no memory for a runtime");
	registry_init();
	runtime->k = k;
	runtime->flags = options->flags;
	runtime->process = getpid();
	pthread_mutex_init(&runtime->lock, NULL);
	text_init(&runtime->text);
	int error = find_access(runtime, text);

	if (!error)
		error = start_handlers(runtime, options, text);
	if (error) {
		runtime_close(runtime);
		return error;
	}
	TRACE("runtime %p: uffd by %s, %u handler threads", (void *)runtime, access_names[runtime->access],
	      runtime->handler_count);
	*out = runtime;
	return 0;
}

int runtime_close(struct uffdwp *runtime)
{
	pthread_mutex_lock(&runtime->lock);
	unsigned regions = runtime->regions;
	pthread_mutex_unlock(&runtime->lock);

	if (regions)
		return text_fail(&runtime->text, -EBUSY, "%u regions are still open: close them first", regions);
	stop_handlers(runtime);
	text_fini(&runtime->text);
	pthread_mutex_destroy(&runtime->lock);
	pages_free(runtime->k, runtime, sizeof(*runtime));
	return 0;
}

/* A trial that found a mechanism is kept; one that did not is made again: huge pages or rights may come. */
static void try_memory(struct uffdwp *runtime, uint32_t memory, struct uffdwp_probe_memory *trial)
{
	pthread_mutex_lock(&runtime->lock);
	if (!runtime->tried[memory]) {
		memset(&runtime->trials[memory], 0, sizeof(runtime->trials[memory]));
		int error =
		        probe_memory(runtime->k, runtime->access, (enum uffdwp_memory)memory, &runtime->trials[memory]);

		runtime->tried[memory] = !error && runtime->trials[memory].mechanism != UFFDWP_MECHANISM_AUTO;
	}
	*trial = runtime->trials[memory];
	pthread_mutex_unlock(&runtime->lock);
}

int runtime_mechanism(struct uffdwp *runtime, uint32_t memory, uint32_t asked, const struct mechanism **out)
{
	struct uffdwp_probe_memory trial;

	try_memory(runtime, memory, &trial);
	if (trial.registered == -EMFILE || trial.registered == -ENFILE || trial.registered == -ENOMEM)
		return text_fail(&runtime->text, trial.registered, "%s memory could not be tried: %s",
		                 memory_names[memory], strerror(-trial.registered));
	if (trial.mechanism == UFFDWP_MECHANISM_AUTO || (asked != UFFDWP_MECHANISM_AUTO && asked != trial.mechanism))
		return text_fail(&runtime->text, -EOPNOTSUPP, "%s memory cannot be watched %s: %s",
		                 memory_names[memory],
		                 asked == UFFDWP_MECHANISM_AUTO ? "here" : "by the mechanism asked for", trial.reason);
	*out = mechanism_by_id(trial.mechanism);
	return 0;
}

static struct handler *least_loaded(const struct uffdwp *runtime)
{
	struct handler *best = runtime->handlers[0];

	for (unsigned i = 1; i < runtime->handler_count; i++) {
		if (handler_load(runtime->handlers[i]) < handler_load(best))
			best = runtime->handlers[i];
	}
	return best;
}

static void count_region(struct uffdwp *runtime, int by)
{
	pthread_mutex_lock(&runtime->lock);
	runtime->regions += (unsigned)by;
	pthread_mutex_unlock(&runtime->lock);
}

int runtime_join(struct uffdwp *runtime, struct uffdwp_region *region)
{
	int error = region->delivery == UFFDWP_DELIVERY_INLINE ? inline_install() : 0;

	if (error)
		return text_fail(&runtime->text, error, "the SIGBUS handler could not be installed: %s",
		                 strerror(-error));
	error = registry_add(region, atomic_load(&region->base), region->capacity_bytes);
	if (error)
		return text_fail(&runtime->text, error,
		                 error == -EBUSY ? "the range overlaps a region that is open" : "too many regions (%d)",
		                 REGISTRY_MAX);
	struct handler *handler = least_loaded(runtime);

	error = handler_add(handler, region);
	if (error) {
		registry_remove(region);
		return text_fail(&runtime->text, error, "the handler thread did not take the region: %s",
		                 error == -ENFILE ? "each serves at most 1024, ask for more handler_threads"
		                                  : strerror(-error));
	}
	region->handler = handler;
	count_region(runtime, 1);
	TRACE("region %p: %llu bytes at %p, %s, mechanism %s, delivery %s", (void *)region,
	      (unsigned long long)atomic_load(&region->length_bytes), (void *)atomic_load(&region->base),
	      memory_names[region->memory], region->mechanism->name,
	      region->delivery == UFFDWP_DELIVERY_INLINE ? "inline" : "thread");
	return 0;
}

void runtime_leave(struct uffdwp *runtime, struct uffdwp_region *region)
{
	if (region->handler)
		handler_remove(region->handler, region);
	registry_remove(region);
	count_region(runtime, -1);
	TRACE("region %p: closed", (void *)region);
}
