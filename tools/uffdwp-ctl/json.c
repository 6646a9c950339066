/* SPDX-License-Identifier: MIT */
/*
 * The doctor's findings for programs. Names are stable: they are only ever added, and README.md beside this file lists
 * them. A number that could not be read is null, and a reason stands beside it where there is one.
 */
#include <linux/capability.h>

#include "doctor.h"
#include "json_add.h"

static void json_add_flag(struct json_object *object, const char *name, int value)
{
	json_add(object, name, json_object_new_boolean(value));
}

static void json_add_number(struct json_object *object, const char *name, int64_t value)
{
	json_add(object, name, value < 0 ? NULL : json_object_new_int64(value));
}

/* {"works": true, "error": null} */
static struct json_object *json_works_or_not(int error)
{
	struct json_object *object = json_object_new_object();

	json_add_flag(object, "works", error == 0);
	json_add_text(object, "error", error ? word_errno(error) : NULL);
	return object;
}

static struct json_object *json_built_object(void)
{
	struct json_object *object = json_object_new_object();

	for (unsigned i = 0; i < part_count; i++)
		json_add_flag(object, part_table[i].name, (uffdwp_built() & part_table[i].bit) != 0);
	return object;
}

static struct json_object *json_kernel_object(const struct facts *facts)
{
	struct json_object *object = json_object_new_object();

	json_add_text(object, "release", facts->kernel.release);
	json_add_text(object, "machine", facts->kernel.machine);
	return object;
}

static struct json_object *json_user_object(const struct facts *facts)
{
	struct json_object *object = json_object_new_object();

	json_add_number(object, "uid", facts->uid);
	json_add_text(object, "name", facts->user[0] ? facts->user : NULL);
	json_add(object, "cap_sys_ptrace",
	         facts->capabilities_known ? json_object_new_boolean(facts_capable(facts, CAP_SYS_PTRACE)) : NULL);
	json_add(object, "cap_sys_admin",
	         facts->capabilities_known ? json_object_new_boolean(facts_capable(facts, CAP_SYS_ADMIN)) : NULL);
	return object;
}

static struct json_object *json_sysctl_object(const struct doctor *doctor)
{
	struct json_object *object = json_object_new_object();

	json_add_number(object, "vm.unprivileged_userfaultfd", doctor->probe.system.sysctl_unprivileged);
	json_add_number(object, "vm.max_map_count",
	                doctor->probe.system.max_map_count ? (int64_t)doctor->probe.system.max_map_count : -1);
	json_add_number(object, "kernel.io_uring_disabled", doctor->facts.uring_disabled);
	return object;
}

static struct json_object *json_access_object(const struct found *probe)
{
	struct json_object *object = json_object_new_object();

	for (unsigned access = 0; access < ACCESSES; access++)
		json_add(object, word_access_id(access), json_works_or_not(probe->access[access]));
	return object;
}

static struct json_object *json_features_array(const struct found *probe)
{
	struct json_object *array = json_object_new_array();

	for (unsigned i = 0; i < feature_count; i++)
		if (probe->system.features >> feature_table[i].bit & 1)
			(void)json_object_array_add(array, json_object_new_string(feature_table[i].name));
	return array;
}

static struct json_object *json_trial_object(const struct found_memory *memory, unsigned trial)
{
	struct json_object *object = json_object_new_object();

	json_add_text(object, "answer", word_answer(memory->trials[trial].answer));
	json_add_text(object, "reason", memory->trials[trial].reason[0] ? memory->trials[trial].reason : NULL);
	return object;
}

static struct json_object *json_fills_array(const struct found_memory *memory)
{
	struct json_object *array = json_object_new_array();

	for (unsigned bit = 0; bit < FILLS; bit++)
		if (memory->all.fills >> bit & 1)
			(void)json_object_array_add(array, json_object_new_string(word_fill_id(bit)));
	return array;
}

static struct json_object *json_rung_object(const struct found_memory *memory, unsigned mechanism)
{
	const struct uffdwp_probe_rung *rung = &memory->rungs[mechanism];
	struct json_object *object = json_object_new_object();

	json_add_flag(object, "works", rung->works != 0);
	json_add_flag(object, "thread_works", rung->thread_works != 0);
	json_add_flag(object, "inline_works", rung->inline_works != 0);
	json_add_flag(object, "taken", memory->all.mechanism == mechanism);
	json_add_flag(object, "tracks_only", tracks_only(mechanism));
	json_add_text(object, "reason", rung->reason);
	return object;
}

static struct json_object *json_ladder_object(const struct found_memory *memory)
{
	struct json_object *object = json_object_new_object();

	for (unsigned mechanism = UFFDWP_MECHANISM_MARKER; mechanism < MECHANISMS; mechanism++)
		json_add(object, word_mechanism_id(mechanism), json_rung_object(memory, mechanism));
	return object;
}

static struct json_object *json_arming_object(const struct uffdwp_probe_arming *arming)
{
	struct json_object *object = json_object_new_object();

	json_add_flag(object, "works", arming->works != 0);
	json_add_text(object, "reason", arming->reason);
	return object;
}

static struct json_object *json_armings_object(const struct found_memory *memory)
{
	struct json_object *object = json_object_new_object();

	json_add(object, "rounds", json_arming_object(&memory->armings[UFFDWP_ARMING_ROUNDS]));
	json_add(object, "move", json_arming_object(&memory->armings[UFFDWP_ARMING_MOVE]));
	return object;
}

static struct json_object *json_memory_object(const struct found_memory *memory)
{
	struct json_object *object = json_object_new_object();
	struct json_object *trials = json_object_new_object();

	for (unsigned trial = 0; trial < TRIALS; trial++)
		json_add(trials, word_trial_id(trial), json_trial_object(memory, trial));
	json_add(object, "registration", json_works_or_not(memory->all.registered));
	json_add_text(object, "mechanism", word_mechanism_id(memory->all.mechanism));
	json_add_text(object, "reason", memory->all.reason);
	json_add_text(object, "track", word_mechanism_id(track_mechanism(memory)));
	json_add_flag(object, "inline_works", memory->all.inline_works != 0);
	json_add(object, "page_bytes",
	         memory->all.page_bytes ? json_object_new_int64((int64_t)memory->all.page_bytes) : NULL);
	json_add(object, "fills", json_fills_array(memory));
	json_add(object, "ladder", json_ladder_object(memory));
	json_add(object, "arming", json_armings_object(memory));
	json_add(object, "trials", trials);
	return object;
}

static struct json_object *json_memories_object(const struct found *probe)
{
	struct json_object *object = json_object_new_object();

	for (unsigned memory = 0; memory < MEMORIES; memory++)
		json_add(object, word_memory_id(memory), json_memory_object(&probe->memory[memory]));
	return object;
}

static struct json_object *json_advice_object(const struct advice *advice)
{
	struct json_object *object = json_object_new_object();
	struct json_object *changes = json_object_new_array();

	for (unsigned i = 0; i < advice->changes; i++)
		(void)json_object_array_add(changes, json_object_new_string(advice->change[i]));
	json_add_text(object, "id", advice->id);
	json_add_text(object, "level", word_level(advice->level));
	json_add_text(object, "what", advice->what);
	json_add(object, "changes", changes);
	return object;
}

static struct json_object *json_advice_array(const struct doctor *doctor)
{
	struct json_object *array = json_object_new_array();

	for (unsigned i = 0; i < doctor->advice_count; i++)
		(void)json_object_array_add(array, json_advice_object(&doctor->advice[i]));
	return array;
}

/* known: there is a /proc to ask for swap and huge pages. */
static void json_add_probe(struct json_object *root, const struct found *probe, int known)
{
	int chosen = probe->system.access_chosen;

	json_add(root, "access", json_access_object(probe));
	json_add_text(root, "access_chosen", chosen < 0 ? NULL : word_access_id((unsigned)chosen));
	json_add(root, "features", json_features_array(probe));
	json_add(root, "memory", json_memories_object(probe));
	json_add(root, "fork", json_arming_object(&probe->child));
	json_add(root, "io_uring", json_works_or_not(probe->system.uring));
	json_add(root, "pagemap_scan", json_works_or_not(probe->system.pagemap_scan));
	json_add(root, "pagemap_wp",
	         probe->system.pagemap_bit57 < 0 ? NULL : json_object_new_boolean(probe->system.pagemap_bit57));
	json_add(root, "swap_on", known ? json_object_new_boolean(probe->system.swap_on != 0) : NULL);
	json_add_number(root, "huge_pages_free", known ? (int64_t)probe->system.huge_pages_free : -1);
}

static struct json_object *json_root_object(const struct doctor *doctor)
{
	struct json_object *root = json_object_new_object();
	int killed = doctor->facts.killed[0] != '\0';

	json_add_text(root, "version", uffdwp_version());
	json_add(root, "built", json_built_object());
	json_add(root, "kernel", json_kernel_object(&doctor->facts));
	json_add(root, "user", json_user_object(&doctor->facts));
	json_add_text(root, "container", doctor->facts.container);
	json_add(root, "user_namespace",
	         doctor->facts.user_namespace < 0 ? NULL : json_object_new_boolean(doctor->facts.user_namespace));
	json_add_text(root, "seccomp_kills", killed ? doctor->facts.killed : NULL);
	json_add_text(root, "seccomp",
	              killed                             ? "filter"
	              : doctor->probe.system.seccomp < 0 ? "unknown"
	                                                 : word_seccomp(doctor->probe.system.seccomp));
	if (!killed) {
		json_add(root, "sysctl", json_sysctl_object(doctor));
		json_add_probe(root, &doctor->probe, !doctor->facts.proc_error);
	}
	json_add(root, "advice", json_advice_array(doctor));
	json_add_text(root, "verdict", word_verdict(doctor->verdict));
	json_add_number(root, "exit_code", doctor->verdict);
	return root;
}

int json_print(const struct doctor *doctor, FILE *out)
{
	return json_write(json_root_object(doctor), JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE, out);
}
