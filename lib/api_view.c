/* SPDX-License-Identifier: MIT */
/* Views, as api.c: checks, then calls. */
#include <errno.h>

#include "api_private.h"
#include "region/view.h"
#include "view/view_open.h"

UFFDWP_EXPORT int uffdwp_view_open(struct uffdwp_region *region, const struct uffdwp_view_options *given,
                                   struct uffdwp_view **out)
{
	API_CALL();
	struct uffdwp_view_options options = UFFDWP_VIEW_OPTIONS_INIT;

	if (api_is_foreign(region->runtime))
		return -ECHILD;
	int error = api_take_options(region->text, given, &options, sizeof(options));

	if (!error)
		error = api_unknown_flags(region->text, "uffdwp_view_open", options.flags, 0, options.reserved);
	if (!error && !out)
		error = text_fail(region->text, -EINVAL, "out is NULL");
	if (!error && !options.cut_enter != !options.cut_leave)
		error = text_fail(region->text, -EINVAL, "cut_enter and cut_leave go together");
	if (error)
		return error;
	struct view_request request = {options.cut_enter, options.cut_leave, options.cut_user};

	error = runtime_check_own(region->runtime, region);
	if (!error)
		error = runtime_check_faults(region);
	return error ? error : view_open(region, &request, out);
}

UFFDWP_EXPORT const void *uffdwp_view_base(const struct uffdwp_view *view)
{
	return view->base;
}

UFFDWP_EXPORT int uffdwp_view_info(const struct uffdwp_view *view, struct uffdwp_view_info *info)
{
	API_CALL();
	struct uffdwp_view_info answer = {.sz = sizeof(answer)};

	int error = api_check_answer(NULL, info, "the info");

	if (error)
		return error;
	answer.length_bytes = view->length_bytes;
	answer.private_bytes = atomic_load(&view->pages_broken) << view->page_shift;
	answer.pause_ns = view->pause_ns;
	answer.error = atomic_load(&view->error);
	api_give_answer(info, &answer, sizeof(answer));
	return 0;
}

UFFDWP_EXPORT int uffdwp_view_close(struct uffdwp_view *view)
{
	API_CALL();
	if (!view)
		return 0;
	if (api_is_foreign(view->region->runtime))
		return -ECHILD;
	view_close(view);
	return 0;
}
