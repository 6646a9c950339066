/* SPDX-License-Identifier: MIT */
/* Adopted regions, as api.c: checks, then calls. */
#include <errno.h>
#include <string.h>

#include "api_private.h"
#include "control/control.h"
#include "region/mapper.h"
#include "region/plan.h"
#include "track/track.h"

/* The mapper, copied, so that what is checked is what is used. */
static int api_adopt_take_mapper(struct text *text, const struct uffdwp_mapper *given, struct mapper_plan *plan)
{
	struct uffdwp_mapper mapper = UFFDWP_MAPPER_INIT;

	if (!given)
		return text_fail(text, -EINVAL, "mapper is NULL");
	int error = api_take_options(text, given, &mapper, sizeof(mapper));

	if (!error)
		error = api_unknown_flags(text, "a mapper", mapper.flags, UFFDWP_MAPPER_REGISTERED, 0);
	if (error)
		return error;
	if (!mapper.mappings || !mapper.mapping_count || mapper.mapping_count > UFFDWP_MAPPINGS_MAX)
		return text_fail(text, -EINVAL, "a mapper has 1 to %d mappings, and mapping_count is %u",
		                 UFFDWP_MAPPINGS_MAX, mapper.mappings ? (unsigned)mapper.mapping_count : 0);
	plan->uffd = mapper.uffd;
	plan->pidfd = mapper.pidfd ? mapper.pidfd : -1;
	plan->is_registered = (mapper.flags & UFFDWP_MAPPER_REGISTERED) != 0;
	plan->count = mapper.mapping_count;
	memset(plan->mappings, 0, sizeof(plan->mappings));
	memcpy(plan->mappings, mapper.mappings, mapper.mapping_count * sizeof(plan->mappings[0]));
	return 0;
}

UFFDWP_EXPORT int uffdwp_region_adopt(struct uffdwp *runtime, uint64_t length,
                                      const struct uffdwp_region_options *options, const struct uffdwp_mapper *mapper,
                                      struct uffdwp_region **out)
{
	API_CALL();
	struct mapper_plan of_mapper;
	struct region_plan plan;

	if (api_is_foreign(runtime))
		return -ECHILD;
	plan_init(&plan, runtime->k, runtime, length);
	plan.mapper = &of_mapper;
	int error = api_region_take_options(&plan, options);

	if (!error && !out)
		error = text_fail(plan.text, -EINVAL, "out is NULL");
	if (!error)
		error = api_adopt_take_mapper(plan.text, mapper, &of_mapper);
	if (!error)
		error = plan_adopt(&plan);
	return error ? error : control_open_region(runtime, &plan, out);
}

UFFDWP_EXPORT int uffdwp_region_join(struct uffdwp_region *region, const struct uffdwp_mapper *mapper)
{
	API_CALL();
	struct mapper_plan plan;

	if (api_is_foreign(region->runtime))
		return -ECHILD;
	if (!region->mappers)
		return text_fail(region->text, -EOPNOTSUPP, "only adopted regions have mappers: uffdwp_region_adopt()");
	int error = api_adopt_take_mapper(region->text, mapper, &plan);

	if (!error)
		error = mapper_check(&plan, region->capacity_bytes, region->page_bytes, region->text);
	return error ? error : runtime_join_mapper(region, &plan);
}
