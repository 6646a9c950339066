/* SPDX-License-Identifier: MIT */
/*
 * The doctor's findings for programs. Names are stable: they are only ever added, and README.md beside this file lists
 * them. A number that could not be had is null, and a reason stands beside it where there is one.
 */
#include <json-c/json.h>
#include <linux/capability.h>

#include "doctor.h"

/* json-c answers NULL when there is no memory; such a member reads as null, and the last check is ferror(). */
static void add(struct json_object *object, const char *name, struct json_object *value)
{
	(void)json_object_object_add(object, name, value);
}

static void add_text(struct json_object *object, const char *name, const char *value)
{
	add(object, name, value ? json_object_new_string(value) : NULL);
}

static void add_flag(struct json_object *object, const char *name, int value)
{
	add(object, name, json_object_new_boolean(value));
}

static void add_number(struct json_object *object, const char *name, int64_t value)
{
	add(object, name, value < 0 ? NULL : json_object_new_int64(value));
}

/* {"works": true, "error": null} */
static struct json_object *works_or_not(int error)
{
	struct json_object *object = json_object_new_object();

	add_flag(object, "works", error == 0);
	add_text(object, "error", error ? word_errno(error) : NULL);
	return object;
}

static struct json_object *kernel_object(const struct facts *facts)
{
	struct json_object *object = json_object_new_object();

	add_text(object, "release", facts->kernel.release);
	add_text(object, "machine", facts->kernel.machine);
	return object;
}

static struct json_object *user_object(const struct facts *facts)
{
	struct json_object *object = json_object_new_object();

	add_number(object, "uid", facts->uid);
	add_text(object, "name", facts->user[0] ? facts->user : NULL);
	add(object, "cap_sys_ptrace",
	    facts->capabilities_known ? json_object_new_boolean(facts_capable(facts, CAP_SYS_PTRACE)) : NULL);
	add(object, "cap_sys_admin",
	    facts->capabilities_known ? json_object_new_boolean(facts_capable(facts, CAP_SYS_ADMIN)) : NULL);
	return object;
}

static struct json_object *sysctl_object(const struct doctor *doctor)
{
	struct json_object *object = json_object_new_object();

	add_number(object, "vm.unprivileged_userfaultfd", doctor->probe.sysctl_unprivileged);
	add_number(object, "vm.max_map_count", doctor->probe.max_map_count ? (int64_t)doctor->probe.max_map_count : -1);
	add_number(object, "kernel.io_uring_disabled", doctor->facts.uring_disabled);
	return object;
}

static struct json_object *access_object(const struct uffdwp_probe_report *probe)
{
	struct json_object *object = json_object_new_object();

	for (unsigned access = 0; access < UFFDWP_ACCESS_COUNT; access++)
		add(object, word_access_id(access), works_or_not(probe->access[access]));
	return object;
}

static struct json_object *features_array(const struct uffdwp_probe_report *probe)
{
	struct json_object *array = json_object_new_array();

	for (unsigned i = 0; i < feature_count; i++)
		if (probe->features >> feature_table[i].bit & 1)
			(void)json_object_array_add(array, json_object_new_string(feature_table[i].name));
	return array;
}

static struct json_object *trial_object(const struct uffdwp_probe_memory *memory, unsigned trial)
{
	struct json_object *object = json_object_new_object();

	add_text(object, "answer", word_answer(memory->answers[trial]));
	add_text(object, "reason", memory->reasons[trial][0] ? memory->reasons[trial] : NULL);
	return object;
}

static struct json_object *fills_array(const struct uffdwp_probe_memory *memory)
{
	struct json_object *array = json_object_new_array();

	for (unsigned bit = 0; bit < FILLS; bit++)
		if (memory->fills >> bit & 1)
			(void)json_object_array_add(array, json_object_new_string(word_fill_id(bit)));
	return array;
}

static struct json_object *rung_object(const struct uffdwp_probe_memory *memory, unsigned mechanism)
{
	const struct uffdwp_probe_rung *rung = &memory->rungs[mechanism];
	struct json_object *object = json_object_new_object();

	add_flag(object, "works", rung->works != 0);
	add_flag(object, "thread_works", rung->thread_works != 0);
	add_flag(object, "inline_works", rung->inline_works != 0);
	add_flag(object, "taken", memory->mechanism == mechanism);
	add_flag(object, "tracks_only", tracks_only(mechanism));
	add_text(object, "reason", rung->reason);
	return object;
}

static struct json_object *ladder_object(const struct uffdwp_probe_memory *memory)
{
	struct json_object *object = json_object_new_object();

	for (unsigned mechanism = UFFDWP_MECHANISM_MARKER; mechanism < UFFDWP_MECHANISM_COUNT; mechanism++)
		add(object, word_mechanism_id(mechanism), rung_object(memory, mechanism));
	return object;
}

static struct json_object *memory_object(const struct uffdwp_probe_memory *memory)
{
	struct json_object *object = json_object_new_object();
	struct json_object *trials = json_object_new_object();

	for (unsigned trial = 0; trial < UFFDWP_TRIAL_COUNT; trial++)
		add(trials, word_trial_id(trial), trial_object(memory, trial));
	add(object, "registration", works_or_not(memory->registered));
	add_text(object, "mechanism", word_mechanism_id(memory->mechanism));
	add_text(object, "reason", memory->reason);
	add_text(object, "track", word_mechanism_id(track_mechanism(memory)));
	add_flag(object, "inline_works", memory->inline_works != 0);
	add(object, "page_bytes", memory->page_bytes ? json_object_new_int64((int64_t)memory->page_bytes) : NULL);
	add(object, "fills", fills_array(memory));
	add(object, "ladder", ladder_object(memory));
	add(object, "trials", trials);
	return object;
}

static struct json_object *memories_object(const struct uffdwp_probe_report *probe)
{
	struct json_object *object = json_object_new_object();

	for (unsigned memory = 0; memory < UFFDWP_MEMORY_COUNT; memory++)
		add(object, word_memory_id(memory), memory_object(&probe->memory[memory]));
	return object;
}

static struct json_object *advice_object(const struct advice *advice)
{
	struct json_object *object = json_object_new_object();
	struct json_object *changes = json_object_new_array();

	for (unsigned i = 0; i < advice->changes; i++)
		(void)json_object_array_add(changes, json_object_new_string(advice->change[i]));
	add_text(object, "id", advice->id);
	add_text(object, "level", word_level(advice->level));
	add_text(object, "what", advice->what);
	add(object, "changes", changes);
	return object;
}

static struct json_object *advice_array(const struct doctor *doctor)
{
	struct json_object *array = json_object_new_array();

	for (unsigned i = 0; i < doctor->advice_count; i++)
		(void)json_object_array_add(array, advice_object(&doctor->advice[i]));
	return array;
}

static void add_probe(struct json_object *root, const struct uffdwp_probe_report *probe)
{
	int chosen = probe->access_chosen;

	add(root, "access", access_object(probe));
	add_text(root, "access_chosen", chosen < 0 ? NULL : word_access_id((unsigned)chosen));
	add(root, "features", features_array(probe));
	add(root, "memory", memories_object(probe));
	add(root, "io_uring", works_or_not(probe->uring));
	add(root, "pagemap_scan", works_or_not(probe->pagemap_scan));
	add(root, "pagemap_mark", probe->pagemap_bit57 < 0 ? NULL : json_object_new_boolean(probe->pagemap_bit57));
	add_flag(root, "swap_on", probe->swap_on != 0);
	add_number(root, "huge_pages_free", (int64_t)probe->huge_pages_free);
}

static struct json_object *root_object(const struct doctor *doctor)
{
	struct json_object *root = json_object_new_object();

	add_text(root, "version", uffdwp_version());
	add(root, "kernel", kernel_object(&doctor->facts));
	add(root, "user", user_object(&doctor->facts));
	add_text(root, "container", doctor->facts.container);
	add_text(root, "seccomp", word_seccomp(doctor->probe.seccomp));
	add(root, "sysctl", sysctl_object(doctor));
	add_probe(root, &doctor->probe);
	add(root, "advice", advice_array(doctor));
	add_text(root, "verdict", word_verdict(doctor->verdict));
	add_number(root, "exit_code", doctor->verdict);
	return root;
}

int json_print(const struct doctor *doctor, FILE *out)
{
	struct json_object *root = root_object(doctor);
	const char *text =
	        json_object_to_json_string_ext(root, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE);
	int failed = !text || fprintf(out, "%s\n", text) < 0;

	json_object_put(root);
	return failed ? -1 : 0;
}
