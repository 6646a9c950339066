/* SPDX-License-Identifier: MIT */
/* Children, as api.c: checks, then calls. */
#include <errno.h>

#include "api_private.h"
#include "child/child.h"
#include "kernel/process.h"

static int api_child_check_regions(const struct uffdwp *runtime, struct uffdwp_region *const *regions, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (!regions[i])
			return text_fail(NULL, -EINVAL, "region %zu is NULL", i);
		if (regions[i]->runtime != runtime)
			return text_fail(NULL, -EINVAL, "region %zu is of another runtime", i);
		for (size_t other = 0; other < i; other++) {
			if (regions[other] == regions[i])
				return text_fail(NULL, -EINVAL, "regions %zu and %zu are the same", other, i);
		}
	}
	return 0;
}

static int api_child_take(const struct uffdwp_fork_options *given, struct uffdwp_fork_options *options)
{
	int error = api_take_options(NULL, given, options, sizeof(*options));

	if (!error)
		error = api_unknown_flags(NULL, "uffdwp_fork", options->flags, UFFDWP_FORK_BARE, 0);
	if (error)
		return error;
	if (options->arming > UFFDWP_ARMING_MOVE)
		return text_fail(NULL, -EINVAL, "arming %u is none of enum uffdwp_arming", options->arming);
	if (options->policy > UFFDWP_POLICY_ABORT)
		return text_fail(NULL, -EINVAL, "policy %u is none of enum uffdwp_policy", options->policy);
	if (options->window_max > FAULT_WINDOW_MAX)
		return text_fail(NULL, -EINVAL, "window_max is %u pages, at most %d are broken off at a time",
		                 options->window_max, FAULT_WINDOW_MAX);
	if (options->reserved)
		return text_fail(NULL, -EINVAL, "reserved is %u, and has to be 0", options->reserved);
	if (!options->cut_enter != !options->cut_leave)
		return text_fail(NULL, -EINVAL, "cut_enter and cut_leave go together");
	if (!options->regions != !options->region_count)
		return text_fail(NULL, -EINVAL, "regions and region_count go together");
	if (options->region_count > UFFDWP_FORK_REGIONS_MAX)
		return text_fail(NULL, -EINVAL, "%u regions, at most %d can be in a child", options->region_count,
		                 UFFDWP_FORK_REGIONS_MAX);
	return 0;
}

/* The regions that are meant; where all are, they are in `own`, and *pinned of them have to be unpinned. */
static int api_child_request(const struct uffdwp *runtime, const struct uffdwp_fork_options *options,
                             struct uffdwp_region **own, struct child_request *request, size_t *pinned)
{
	size_t count = options->region_count;

	*request = (struct child_request){.regions = options->regions,
	                                  .bare = (options->flags & UFFDWP_FORK_BARE) != 0,
	                                  .arming = options->arming,
	                                  .policy = options->policy,
	                                  .private_bytes = options->private_bytes,
	                                  .wait_ns = options->wait_ns,
	                                  .window_max = options->window_max ? options->window_max : 1,
	                                  .cut_enter = options->cut_enter,
	                                  .cut_leave = options->cut_leave,
	                                  .cut_user = options->cut_user};
	if (!count) {
		count = child_pin_regions(runtime, own, UFFDWP_FORK_REGIONS_MAX);
		*pinned = count < UFFDWP_FORK_REGIONS_MAX ? count : UFFDWP_FORK_REGIONS_MAX;
		request->regions = own;
	}
	if (!count)
		return text_fail(NULL, -ENOENT, "the runtime has no created region of shared memory: use fork(2)");
	if (count > UFFDWP_FORK_REGIONS_MAX)
		return text_fail(NULL, -EOPNOTSUPP,
		                 "the runtime has %zu regions, at most %d can be in a child: name them", count,
		                 UFFDWP_FORK_REGIONS_MAX);
	request->count = (unsigned)count;
	return api_child_check_regions(runtime, request->regions, count);
}

UFFDWP_EXPORT pid_t uffdwp_fork(struct uffdwp *runtime, const struct uffdwp_fork_options *given,
                                struct uffdwp_child **child)
{
	API_CALL();
	struct uffdwp_fork_options options = UFFDWP_FORK_OPTIONS_INIT;
	struct uffdwp_region *own[UFFDWP_FORK_REGIONS_MAX];
	struct child_request request = {0};
	struct uffdwp_child *made = NULL;
	size_t pinned = 0;
	int error = api_child_take(given, &options);

	if (!error && child)
		*child = NULL;
	if (!error && process_is_guest())
		return text_fail(NULL, -ECHILD, "this process shares its parent's memory: it is no place to fork from");
	if (!error && api_is_child(runtime))
		return child_fork_again(runtime->k, (options.flags & UFFDWP_FORK_BARE) != 0);
	if (!error)
		error = api_child_request(runtime, &options, own, &request, &pinned);
	if (!error)
		error = runtime_check_own_all(runtime, request.regions, request.count);
	if (!error)
		error = runtime_check_faults_all(request.regions, request.count);
	pid_t pid = error ? error : child_fork(runtime, &request, NULL, &made);

	child_unpin_regions(own, pinned);
	if (pid > 0 && child)
		*child = made;
	else if (made)
		child_put(made);
	return pid;
}

UFFDWP_EXPORT int uffdwp_child_info(const struct uffdwp_child *child, struct uffdwp_child_info *info)
{
	API_CALL();
	struct uffdwp_child_info answer = {.sz = sizeof(answer)};
	int error = api_check_answer(NULL, info, "the info");

	if (error)
		return error;
	if (process_number() != child->process)
		return text_fail(NULL, -ECHILD, "the handle is the parent's");
	child_info(child, &answer);
	api_give_answer(info, &answer, sizeof(answer));
	return 0;
}

UFFDWP_EXPORT int uffdwp_child_free(struct uffdwp_child *child)
{
	API_CALL();
	if (!child)
		return 0;
	if (process_number() != child->process)
		return text_fail(NULL, -ECHILD, "the handle is the parent's");
	child_put(child);
	return 0;
}
