/* SPDX-License-Identifier: MIT */
/* Runtimes, as api.c: checks, then calls. */
#include <errno.h>

#include "api.h"
#include "api_private.h"
#include "control/control.h"

/* What clients of the control socket have done comes through the same checks. */
static const struct control_calls api_control_calls = {.snapshot_begin = uffdwp_snapshot_begin,
                                                       .snapshot_poll = uffdwp_snapshot_poll,
                                                       .snapshot_text = uffdwp_snapshot_text,
                                                       .snapshot_abort = uffdwp_snapshot_abort,
                                                       .snapshot_free = uffdwp_snapshot_free,
                                                       .restore_poll = uffdwp_restore_poll,
                                                       .region_stats = uffdwp_region_stats,
                                                       .region_audit = uffdwp_region_audit,
                                                       .region_arm = uffdwp_region_arm,
                                                       .region_disarm = uffdwp_region_disarm,
                                                       .region_armed = uffdwp_region_armed,
                                                       .version = uffdwp_version};

static int api_check_control(const struct uffdwp_options *options, struct text *text)
{
	uint32_t known = UFFDWP_CONTROL_LOOK | UFFDWP_CONTROL_SNAPSHOT | UFFDWP_CONTROL_ARM;

	if (options->control & ~known)
		return text_fail(text, -EINVAL, "control has bits %#x that are not UFFDWP_CONTROL_*",
		                 (unsigned)(options->control & ~known));
	if ((options->control || options->control_path) && !(options->flags & UFFDWP_OPEN_CONTROL))
		return text_fail(text, -EINVAL, "control and control_path are for UFFDWP_OPEN_CONTROL");
	if (options->control_path && options->control_path[0] != '/')
		return text_fail(text, -EINVAL, "control_path \"%s\" is not absolute", options->control_path);
	return 0;
}

int api_open(const struct kernel_ops *k, const struct uffdwp_options *given, struct uffdwp **out)
{
	struct uffdwp_options options = UFFDWP_OPTIONS_INIT;
	struct text *text = NULL; /* the thread's */

	text_forget();
	if (!out)
		return text_fail(text, -EINVAL, "out is NULL");
	int error = api_take_options(text, given, &options, sizeof(options));

	if (!error)
		error = api_unknown_flags(text, "uffdwp_open", options.flags,
		                          UFFDWP_OPEN_NO_URING | UFFDWP_OPEN_USER_MODE | UFFDWP_OPEN_CONTROL,
		                          options.reserved);
	if (!error && options.handler_threads > RUNTIME_HANDLERS_MAX)
		error = text_fail(text, -EINVAL, "handler_threads is %u, at most %d", (unsigned)options.handler_threads,
		                  RUNTIME_HANDLERS_MAX);
	if (!error)
		error = api_check_control(&options, text);
	return error ? error : control_open_runtime(k, &options, &api_control_calls, text, out);
}

UFFDWP_EXPORT int uffdwp_open(const struct uffdwp_options *options, struct uffdwp **out)
{
	API_CALL();
	return api_open(&kernel_real, options, out);
}

UFFDWP_EXPORT int uffdwp_close(struct uffdwp *runtime)
{
	API_CALL();
	if (!runtime)
		return 0;
	return api_is_foreign(runtime) ? -ECHILD : control_close_runtime(runtime);
}
