/* SPDX-License-Identifier: MIT */
#include "found.h"

static int found_look_at_memory(const struct uffdwp_probe *probe, uint32_t memory, struct found_memory *found)
{
	int error;

	found->all.sz = sizeof found->all;
	error = uffdwp_probe_memory(probe, memory, &found->all);
	for (uint32_t trial = 0; trial < TRIALS && !error; trial++) {
		found->trials[trial].sz = sizeof found->trials[trial];
		error = uffdwp_probe_trial(probe, memory, trial, &found->trials[trial]);
	}
	for (uint32_t mechanism = 0; mechanism < MECHANISMS && !error; mechanism++) {
		found->rungs[mechanism].sz = sizeof found->rungs[mechanism];
		error = uffdwp_probe_rung(probe, memory, mechanism, &found->rungs[mechanism]);
	}
	for (uint32_t arming = 0; arming < ARMINGS && !error; arming++) {
		found->armings[arming].sz = sizeof found->armings[arming];
		error = uffdwp_probe_arming(probe, memory, arming, &found->armings[arming]);
	}
	return error;
}

int found_look(struct found *found)
{
	struct uffdwp_probe *probe;
	int error = uffdwp_probe_run(&probe);

	if (error)
		return error;
	found->system.sz = sizeof found->system;
	error = uffdwp_probe_system(probe, &found->system);
	for (uint32_t access = 0; access < ACCESSES && !error; access++)
		error = uffdwp_probe_access(probe, access, &found->access[access]);
	for (uint32_t memory = 0; memory < MEMORIES && !error; memory++)
		error = found_look_at_memory(probe, memory, &found->memory[memory]);
	found->child.sz = sizeof found->child;
	if (!error)
		error = uffdwp_probe_child(probe, &found->child);
	(void)uffdwp_probe_free(probe);
	return error;
}
