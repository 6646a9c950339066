/* SPDX-License-Identifier: MIT */
/*
 * The doctor's findings for people: a page that is read from the top, ends with what to change, and whose last line is
 * the verdict. Lines fit 80 columns; colour only underlines what the words already say.
 */
#include <linux/capability.h>
#include <string.h>

#include "doctor.h"

#define LABEL_WIDTH 28
#define CELL_WIDTH 16
#define RUNG_WIDTH 34 /* the ladder: sign, name and deliveries */
#define LINE_WIDTH 79

struct page {
	FILE *out;
	int color;
};

enum hue { HUE_GOOD = 32, HUE_BAD = 31, HUE_SO_SO = 33, HUE_TITLE = 1 };

static void text_hue_on(const struct page *page, enum hue hue)
{
	if (page->color)
		(void)fprintf(page->out, "\033[%dm", (int)hue);
}

static void text_hue_off(const struct page *page)
{
	if (page->color)
		(void)fputs("\033[0m", page->out);
}

static void text_title(const struct page *page, const char *text)
{
	(void)fputc('\n', page->out);
	text_hue_on(page, HUE_TITLE);
	(void)fputs(text, page->out);
	text_hue_off(page);
	(void)fputc('\n', page->out);
}

static void text_label(const struct page *page, const char *text)
{
	(void)fprintf(page->out, "  %-*s ", LABEL_WIDTH - 1, text);
}

static void text_fact(const struct page *page, const char *name, const char *value)
{
	text_label(page, name);
	(void)fprintf(page->out, "%s\n", value);
}

static void text_number(const struct page *page, const char *name, int64_t value)
{
	text_label(page, name);
	if (value < 0)
		(void)fprintf(page->out, "not known (%s)\n", word_errno((int)value));
	else
		(void)fprintf(page->out, "%lld\n", (long long)value);
}

/* Prints words one after the other, broken before LINE_WIDTH, each line after `indent` columns; `at`: already there. */
static void text_wrap(const struct page *page, const char *text, unsigned indent, unsigned at)
{
	int first = 1;

	while (*text) {
		unsigned length = (unsigned)strcspn(text, " ");

		if (at + 1 + length > LINE_WIDTH) {
			(void)fprintf(page->out, "\n%*s", (int)indent, "");
			at = indent;
		} else if (!first) {
			(void)fputc(' ', page->out);
			at++;
		}
		first = 0;
		(void)fwrite(text, 1, length, page->out);
		at += length;
		text += length;
		text += strspn(text, " ");
	}
	(void)fputc('\n', page->out);
}

/* ----------------------------------------------------------------------------------------------------- sections -- */

static void text_print_user(const struct page *page, const struct facts *facts)
{
	text_label(page, "user");
	(void)fprintf(page->out, "uid %u%s%s\n", (unsigned)facts->uid, facts->user[0] ? ", " : "", facts->user);
	text_label(page, "capabilities");
	if (facts->capabilities_known)
		(void)fprintf(page->out, "CAP_SYS_PTRACE %s, CAP_SYS_ADMIN %s\n",
		              facts_capable(facts, CAP_SYS_PTRACE) ? "yes" : "no",
		              facts_capable(facts, CAP_SYS_ADMIN) ? "yes" : "no");
	else
		(void)fputs("not known\n", page->out);
}

static void text_print_huge_pages(const struct page *page, const struct found *probe, int known)
{
	uint64_t page_bytes = probe->memory[UFFDWP_MEMORY_HUGETLB].all.page_bytes;

	text_label(page, "huge pages");
	if (!known) {
		(void)fputs("not known\n", page->out);
		return;
	}
	(void)fprintf(page->out, "%llu free", (unsigned long long)probe->system.huge_pages_free);
	if (page_bytes)
		(void)fprintf(page->out, ", of %llu KiB", (unsigned long long)page_bytes / 1024);
	(void)fputc('\n', page->out);
}

static uint32_t text_all_parts(void)
{
	uint32_t all = 0;

	for (unsigned i = 0; i < part_count; i++)
		all |= part_table[i].bit;
	return all;
}

/* "io_uring, zstd" */
static void text_print_parts(const struct page *page, const char *label, uint32_t bits)
{
	const char *before = "";

	text_label(page, label);
	for (unsigned i = 0; i < part_count; i++) {
		if (!(bits & part_table[i].bit))
			continue;
		(void)fprintf(page->out, "%s%s", before, part_table[i].name);
		before = ", ";
	}
	(void)fputc('\n', page->out);
}

static void text_print_built(const struct page *page)
{
	text_print_parts(page, "library built with", uffdwp_built());
	if (~uffdwp_built() & text_all_parts())
		text_print_parts(page, "library built without", ~uffdwp_built());
}

static void text_print_system(const struct page *page, const struct doctor *doctor)
{
	const struct facts *facts = &doctor->facts;

	text_title(page, "System");
	text_print_built(page);
	text_label(page, "kernel");
	(void)fprintf(page->out, "%s %s %s\n", facts->kernel.sysname, facts->kernel.release, facts->kernel.machine);
	text_print_user(page, facts);
	text_label(page, "container");
	(void)fprintf(page->out, "%s%s\n", facts->container ? "traces of " : "",
	              facts->container    ? facts->container
	              : facts->proc_error ? "not known"
	                                  : "none seen");
	text_fact(page, "user namespace",
	          facts->user_namespace < 0 ? "not known"
	          : facts->user_namespace   ? "yes"
	                                    : "none");
	if (facts->killed[0]) {
		text_fact(page, "seccomp", "filter, which kills");
		return;
	}
	text_fact(page, "seccomp", word_seccomp(doctor->probe.system.seccomp));
	text_fact(page, "swap", facts->proc_error ? "not known" : doctor->probe.system.swap_on ? "on" : "off");
	text_print_huge_pages(page, &doctor->probe, !facts->proc_error);
	text_number(page, "vm.unprivileged_userfaultfd", doctor->probe.system.sysctl_unprivileged);
	text_label(page, "vm.max_map_count");
	if (doctor->probe.system.max_map_count)
		(void)fprintf(page->out, "%llu: bounds the mappings of mprotect\n",
		              (unsigned long long)doctor->probe.system.max_map_count);
	else
		(void)fputs("not known\n", page->out);
	text_number(page, "kernel.io_uring_disabled", facts->uring_disabled);
}

/* One line, or more where `otherwise` says what follows from the refusal. */
static void text_works_or_not(const struct page *page, const char *name, int error, const char *otherwise)
{
	char text[160] = "";
	const char *what = error ? "refused" : "works";

	text_label(page, name);
	text_hue_on(page, error ? HUE_SO_SO : HUE_GOOD);
	(void)fputs(what, page->out);
	text_hue_off(page);
	if (error)
		(void)snprintf(text, sizeof text, ": %s (%s)%s", word_errno(error), strerror(-error), otherwise);
	text_wrap(page, error ? text : otherwise, LABEL_WIDTH + 2, LABEL_WIDTH + 2 + (unsigned)strlen(what));
}

static void text_print_access(const struct page *page, const struct found *probe)
{
	text_title(page, "Access to a userfaultfd");
	for (unsigned access = 0; access < ACCESSES; access++) {
		text_works_or_not(page, word_access(access), probe->access[access],
		                  (int)access == probe->system.access_chosen ? "; this one is taken" : "");
	}
}

static void text_print_feature_line(const struct page *page, const struct found *probe, int offered)
{
	char text[1024] = "";
	size_t used = 0;

	for (unsigned i = 0; i < feature_count && used < sizeof text; i++) {
		const struct feature *feature = &feature_table[i];

		if ((int)(probe->system.features >> feature->bit & 1) != offered)
			continue;
		used += (size_t)snprintf(text + used, sizeof text - used, offered ? "%s " : "%s (Linux %s) ",
		                         feature->name, feature->since);
	}
	text_label(page, offered ? "offered" : "not offered");
	text_wrap(page, used ? text : "none", LABEL_WIDTH + 2, LABEL_WIDTH + 2);
}

static void text_print_features(const struct page *page, const struct found *probe)
{
	text_title(page, "Features of userfaultfd (UFFD_FEATURE_...)");
	if (probe->system.access_chosen < 0) {
		text_fact(page, "offered", "not to be asked for");
		return;
	}
	text_print_feature_line(page, probe, 1);
	text_print_feature_line(page, probe, 0);
}

/* A cell in the column of a memory; the last one ends the line. */
static void text_cell(const struct page *page, unsigned memory, const char *text, enum hue hue)
{
	int last = memory == MEMORIES - 1;

	text_hue_on(page, hue);
	(void)fputs(text, page->out);
	text_hue_off(page);
	(void)fprintf(page->out, "%*s", last ? 0 : CELL_WIDTH - (int)strlen(text), "");
	if (last)
		(void)fputc('\n', page->out);
}

static enum hue text_answer_hue(unsigned answer)
{
	if (answer == UFFDWP_ANSWER_KEPT)
		return HUE_GOOD;
	return answer == UFFDWP_ANSWER_UNTRIED ? HUE_SO_SO : HUE_BAD;
}

static void text_print_trial(const struct page *page, const struct found *probe, unsigned trial)
{
	text_label(page, word_trial(trial));
	for (unsigned memory = 0; memory < MEMORIES; memory++) {
		uint32_t answer = probe->memory[memory].trials[trial].answer;

		text_cell(page, memory, word_answer(answer), text_answer_hue(answer));
	}
}

/* How an empty entry was filled with the wp bit set. */
static void text_print_fills(const struct page *page, const struct found *probe)
{
	text_label(page, "filled with the wp bit by");
	for (unsigned memory = 0; memory < MEMORIES; memory++) {
		uint32_t fills = probe->memory[memory].all.fills;
		char text[CELL_WIDTH] = "";

		for (unsigned bit = 0; bit < FILLS; bit++)
			if (fills >> bit & 1)
				(void)snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s",
				               text[0] ? ", " : "", word_fill_id(bit));
		text_cell(page, memory, fills ? text : "not seen", fills ? HUE_GOOD : HUE_SO_SO);
	}
}

/* Why trials were not done or failed: those only whose reason the ladder does not give. */
static void text_print_reasons(const struct page *page, const struct found_memory *memory)
{
	char text[256];

	for (unsigned trial = 0; trial < TRIALS; trial++) {
		const char *reason = memory->trials[trial].reason;

		if (!reason[0] || strstr(memory->rungs[UFFDWP_MECHANISM_MARKER].reason, reason))
			continue;
		(void)snprintf(text, sizeof text, "%s %s: %s", word_trial(trial),
		               word_answer(memory->trials[trial].answer), reason);
		(void)fputs("      ", page->out);
		text_wrap(page, text, 8, 6);
	}
}

static const char *text_deliveries(const struct uffdwp_probe_rung *rung, unsigned mechanism)
{
	if (!rung->works)
		return "no";
	if (tracks_only(mechanism))
		return "for tracking";
	if (!rung->thread_works)
		return "inline";
	return rung->inline_works ? "thread, inline" : "thread";
}

/* "  > rearm     thread, inline   why" */
static void text_print_rung(const struct page *page, const struct found_memory *memory, unsigned mechanism)
{
	const struct uffdwp_probe_rung *rung = &memory->rungs[mechanism];
	const char *how = text_deliveries(rung, mechanism);

	(void)fprintf(page->out, "    %c %-11s", memory->all.mechanism == mechanism ? '>' : ' ',
	              word_mechanism(mechanism));
	text_hue_on(page, rung->works ? HUE_GOOD : HUE_SO_SO);
	(void)fputs(how, page->out);
	text_hue_off(page);
	(void)fprintf(page->out, "%*s", RUNG_WIDTH - 17 - (int)strlen(how), "");
	text_wrap(page, rung->reason[0] ? rung->reason : "not tried", RUNG_WIDTH, RUNG_WIDTH);
}

static void text_print_ladder(const struct page *page, const struct found *probe)
{
	text_title(page, "The ladder: mechanism, its deliveries, and why (> is what AUTO takes)");
	for (unsigned memory = 0; memory < MEMORIES; memory++) {
		const struct found_memory *found = &probe->memory[memory];

		(void)fprintf(page->out, "  %s%s; a track takes %s\n", word_memory(memory),
		              found->all.mechanism == UFFDWP_MECHANISM_AUTO ? ": nothing works" : "",
		              word_mechanism(track_mechanism(found)));
		for (unsigned mechanism = UFFDWP_MECHANISM_MARKER; mechanism < MECHANISMS; mechanism++)
			text_print_rung(page, found, mechanism);
		if (found->all.registered == 0)
			text_print_reasons(page, found);
	}
}

/* "    move       no     why" */
static void text_print_arming(const struct page *page, const char *name, const struct uffdwp_probe_arming *arming)
{
	const char *word = arming->works ? "yes" : "no";

	(void)fprintf(page->out, "      %-11s", name);
	text_hue_on(page, arming->works ? HUE_GOOD : HUE_SO_SO);
	(void)fputs(word, page->out);
	text_hue_off(page);
	(void)fprintf(page->out, "%*s", RUNG_WIDTH - 17 - (int)strlen(word), "");
	text_wrap(page, arming->reason[0] ? arming->reason : "not tried", RUNG_WIDTH, RUNG_WIDTH);
}

static void text_print_armings(const struct page *page, const struct found *probe)
{
	text_title(page, "How all of a region is armed for a snapshot: in rounds, or by moving its page");
	(void)fputs("tables away at once (which takes the same time at any size)\n", page->out);
	for (unsigned memory = 0; memory < MEMORIES; memory++) {
		(void)fprintf(page->out, "  %s\n", word_memory(memory));
		text_print_arming(page, "rounds", &probe->memory[memory].armings[UFFDWP_ARMING_ROUNDS]);
		text_print_arming(page, "move", &probe->memory[memory].armings[UFFDWP_ARMING_MOVE]);
	}
	text_title(page, "Children that have regions without a copy of page tables: uffdwp_fork()");
	text_print_arming(page, "shmem", &probe->child);
}

static void text_print_memory(const struct page *page, const struct found *probe)
{
	text_title(page, "Does an armed page stay armed? What happened to it before it was written:");
	text_label(page, "");
	for (unsigned memory = 0; memory < MEMORIES; memory++)
		text_cell(page, memory, word_memory(memory), HUE_TITLE);
	for (unsigned trial = 0; trial < TRIALS; trial++)
		text_print_trial(page, probe, trial);
	text_print_fills(page, probe);
	text_print_ladder(page, probe);
	text_print_armings(page, probe);
}

static void text_print_beside(const struct page *page, const struct found *probe)
{
	text_title(page, "Beside it");
	text_works_or_not(page, "io_uring", probe->system.uring,
	                  probe->system.uring ? "; epoll and pwrite take its place" : "");
	text_works_or_not(page, "PAGEMAP_SCAN", probe->system.pagemap_scan,
	                  probe->system.pagemap_scan ? "; arrives with Linux 6.7" : "");
	text_label(page, "wp bit seen in pagemap");
	if (probe->system.pagemap_bit57 < 0)
		(void)fprintf(page->out, "not to be tried: %s\n", word_errno(probe->system.pagemap_bit57));
	else
		(void)fprintf(page->out, "%s\n", probe->system.pagemap_bit57 ? "yes" : "no (arrives with Linux 5.13)");
}

static void text_print_advice(const struct page *page, const struct doctor *doctor)
{
	char text[480];

	if (!doctor->advice_count)
		return;
	text_title(page, "What to change (of several lines with *, any one helps)");
	for (unsigned i = 0; i < doctor->advice_count; i++) {
		const struct advice *advice = &doctor->advice[i];

		(void)snprintf(text, sizeof text, "%s: %s", word_level(advice->level), advice->what);
		(void)fprintf(page->out, "  %u. ", i + 1);
		text_wrap(page, text, 5, 5);
		for (unsigned c = 0; c < advice->changes; c++) {
			(void)fputs("     * ", page->out);
			text_wrap(page, advice->change[c], 7, 7);
		}
	}
}

static void text_print_verdict(const struct page *page, const struct doctor *doctor)
{
	static const char all[] = "good: every type of memory that is here can be armed";
	static const char limits[] = "works with limits: see what to change";
	static const char nothing[] = "nothing works: no memory can be armed, see what to change";
	const char *text = doctor->verdict == EXIT_ALL ? all : doctor->verdict == EXIT_LIMITS ? limits : nothing;
	enum hue hue = doctor->verdict == EXIT_ALL ? HUE_GOOD : doctor->verdict == EXIT_LIMITS ? HUE_SO_SO : HUE_BAD;

	(void)fputs("\nverdict: ", page->out);
	text_hue_on(page, hue);
	(void)fputs(text, page->out);
	text_hue_off(page);
	(void)fputc('\n', page->out);
}

int text_print(const struct doctor *doctor, FILE *out, int color)
{
	const struct page page = {.out = out, .color = color};

	(void)fprintf(out, "libuffdwp %s: what this kernel, this user and this container can do\n", uffdwp_version());
	text_print_system(&page, doctor);
	if (!doctor->facts.killed[0]) {
		text_print_access(&page, &doctor->probe);
		text_print_features(&page, &doctor->probe);
		text_print_memory(&page, &doctor->probe);
		text_print_beside(&page, &doctor->probe);
	}
	text_print_advice(&page, doctor);
	text_print_verdict(&page, doctor);
	return ferror(out) ? -1 : 0;
}
