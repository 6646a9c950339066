/* SPDX-License-Identifier: MIT */
/* The probe, as api.c: checks, then calls. Its answers are asked for by index, so that kinds may come. */
#include <errno.h>
#include <stdio.h>

#include "api_private.h"
#include "base/errno_name.h"
#include "kernel/pages.h"
#include "kernel/probe.h"

struct uffdwp_probe {
	struct probe_report report;
};

static int probe_check_index(const char *what, uint32_t index, uint32_t count)
{
	if (index < count)
		return 0;
	return text_fail(NULL, -ERANGE, "%s %u is not known to this version (%s)", what, (unsigned)index,
	                 uffdwp_version());
}

/* What is asked of one type of memory, and where the answer goes. */
static int probe_check(const void *answer, uint32_t memory, const char *what, uint32_t index, uint32_t count)
{
	int error = api_check_answer(NULL, answer, "the answer");

	if (!error)
		error = probe_check_index("memory", memory, UFFDWP_MEMORY_COUNT);
	return error ? error : probe_check_index(what, index, count);
}

UFFDWP_EXPORT int uffdwp_probe_run(struct uffdwp_probe **out)
{
	API_CALL();
	if (!out)
		return text_fail(NULL, -EINVAL, "out is NULL");
	struct uffdwp_probe *probe = pages_new(&kernel_real, sizeof(*probe));

	if (!probe)
		return text_fail(NULL, -ENOMEM, "no memory for the answers");
	int error = probe_run(&kernel_real, &probe->report);

	if (error) {
		uffdwp_probe_free(probe);
		return text_fail(NULL, error, "the probe failed: %s", errno_text(error));
	}
	*out = probe;
	return 0;
}

UFFDWP_EXPORT int uffdwp_probe_free(struct uffdwp_probe *probe)
{
	API_CALL();
	if (probe)
		pages_free(&kernel_real, probe, sizeof(*probe));
	return 0;
}

UFFDWP_EXPORT int uffdwp_probe_system(const struct uffdwp_probe *probe, struct uffdwp_probe_system *system)
{
	API_CALL();
	const struct probe_report *report = &probe->report;
	struct uffdwp_probe_system answer = {
	        .sz = sizeof(answer),
	        .features = report->features,
	        .huge_pages_free = report->huge_pages_free,
	        .max_map_count = report->max_map_count,
	        .access_chosen = report->access_chosen,
	        .sysctl_unprivileged = report->sysctl_unprivileged,
	        .uring = report->uring,
	        .pagemap_scan = report->pagemap_scan,
	        .pagemap_bit57 = report->pagemap_bit57,
	        .scan_holes = report->scan_holes,
	        .seccomp = report->seccomp,
	        .swap_on = report->swap_on,
	};
	int error = api_check_answer(NULL, system, "the answer");

	if (!error)
		api_give_answer(system, &answer, sizeof(answer));
	return error;
}

UFFDWP_EXPORT int uffdwp_probe_access(const struct uffdwp_probe *probe, uint32_t access, int32_t *result)
{
	API_CALL();
	if (!result)
		return text_fail(NULL, -EINVAL, "result is NULL");
	int error = probe_check_index("access", access, UFFDWP_ACCESS_COUNT);

	if (!error)
		*result = probe->report.access[access];
	return error;
}

UFFDWP_EXPORT int uffdwp_probe_memory(const struct uffdwp_probe *probe, uint32_t memory,
                                      struct uffdwp_probe_memory *answer)
{
	API_CALL();
	struct uffdwp_probe_memory given = {.sz = sizeof(given)};
	int error = probe_check(answer, memory, "memory", memory, UFFDWP_MEMORY_COUNT);

	if (error)
		return error;
	const struct probe_memory *found = &probe->report.memory[memory];

	given.page_bytes = found->page_bytes;
	given.registered = found->registered;
	given.mechanism = found->mechanism;
	given.inline_works = found->inline_works;
	given.fills = found->fills;
	snprintf(given.reason, sizeof(given.reason), "%s", found->reason);
	api_give_answer(answer, &given, sizeof(given));
	return 0;
}

UFFDWP_EXPORT int uffdwp_probe_trial(const struct uffdwp_probe *probe, uint32_t memory, uint32_t trial,
                                     struct uffdwp_probe_trial *answer)
{
	API_CALL();
	struct uffdwp_probe_trial given = {.sz = sizeof(given)};
	int error = probe_check(answer, memory, "trial", trial, UFFDWP_TRIAL_COUNT);

	if (error)
		return error;
	given.answer = probe->report.memory[memory].answers[trial];
	snprintf(given.reason, sizeof(given.reason), "%s", probe->report.memory[memory].reasons[trial]);
	api_give_answer(answer, &given, sizeof(given));
	return 0;
}

UFFDWP_EXPORT int uffdwp_probe_rung(const struct uffdwp_probe *probe, uint32_t memory, uint32_t mechanism,
                                    struct uffdwp_probe_rung *answer)
{
	API_CALL();
	struct uffdwp_probe_rung given = {.sz = sizeof(given)};
	int error = probe_check(answer, memory, "mechanism", mechanism, UFFDWP_MECHANISM_COUNT);

	if (error)
		return error;
	const struct probe_rung *found = &probe->report.memory[memory].rungs[mechanism];

	given.works = found->works;
	given.thread_works = found->thread_works;
	given.inline_works = found->inline_works;
	given.error = found->error;
	snprintf(given.reason, sizeof(given.reason), "%s", found->reason);
	api_give_answer(answer, &given, sizeof(given));
	return 0;
}

static void probe_give_arming(const struct probe_arming *found, struct uffdwp_probe_arming *answer)
{
	struct uffdwp_probe_arming given = {.sz = sizeof(given), .works = found->works, .error = found->error};

	snprintf(given.reason, sizeof(given.reason), "%s", found->reason);
	api_give_answer(answer, &given, sizeof(given));
}

UFFDWP_EXPORT int uffdwp_probe_arming(const struct uffdwp_probe *probe, uint32_t memory, uint32_t arming,
                                      struct uffdwp_probe_arming *answer)
{
	API_CALL();
	int error = probe_check(answer, memory, "arming", arming, UFFDWP_ARMING_COUNT);

	if (error)
		return error;
	struct probe_arming found =
	        probe_arming_of(&probe->report, (enum uffdwp_memory)memory, (enum uffdwp_arming)arming);

	probe_give_arming(&found, answer);
	return 0;
}

UFFDWP_EXPORT int uffdwp_probe_child(const struct uffdwp_probe *probe, struct uffdwp_probe_arming *answer)
{
	API_CALL();
	int error = api_check_answer(NULL, answer, "the answer");

	if (!error)
		probe_give_arming(&probe->report.child, answer);
	return error;
}
