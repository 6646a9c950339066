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
#define RUNG_WIDTH 34 /* the ladder: mark, name and deliveries */
#define LINE_WIDTH 79

struct page {
	FILE *out;
	int color;
};

enum hue { HUE_GOOD = 32, HUE_BAD = 31, HUE_SO_SO = 33, HUE_TITLE = 1 };

static void hue_on(const struct page *page, enum hue hue)
{
	if (page->color)
		(void)fprintf(page->out, "\033[%dm", (int)hue);
}

static void hue_off(const struct page *page)
{
	if (page->color)
		(void)fputs("\033[0m", page->out);
}

static void title(const struct page *page, const char *text)
{
	(void)fputc('\n', page->out);
	hue_on(page, HUE_TITLE);
	(void)fputs(text, page->out);
	hue_off(page);
	(void)fputc('\n', page->out);
}

static void label(const struct page *page, const char *text)
{
	(void)fprintf(page->out, "  %-*s", LABEL_WIDTH, text);
}

static void fact(const struct page *page, const char *name, const char *value)
{
	label(page, name);
	(void)fprintf(page->out, "%s\n", value);
}

static void number(const struct page *page, const char *name, int64_t value)
{
	label(page, name);
	if (value < 0)
		(void)fprintf(page->out, "not to be read: %s\n", word_errno((int)value));
	else
		(void)fprintf(page->out, "%lld\n", (long long)value);
}

/* Prints words one after the other, broken before LINE_WIDTH, each line behind `indent` columns; `at`: already there.
 */
static void wrap(const struct page *page, const char *text, unsigned indent, unsigned at)
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

static void print_user(const struct page *page, const struct facts *facts)
{
	label(page, "user");
	(void)fprintf(page->out, "uid %u%s%s\n", (unsigned)facts->uid, facts->user[0] ? ", " : "", facts->user);
	label(page, "capabilities");
	if (facts->capabilities_known)
		(void)fprintf(page->out, "CAP_SYS_PTRACE %s, CAP_SYS_ADMIN %s\n",
		              facts_capable(facts, CAP_SYS_PTRACE) ? "yes" : "no",
		              facts_capable(facts, CAP_SYS_ADMIN) ? "yes" : "no");
	else
		(void)fputs("not to be read\n", page->out);
}

static void print_huge_pages(const struct page *page, const struct uffdwp_probe_report *probe)
{
	uint64_t page_bytes = probe->memory[UFFDWP_MEMORY_HUGETLB].page_bytes;

	label(page, "huge pages");
	(void)fprintf(page->out, "%llu free", (unsigned long long)probe->huge_pages_free);
	if (page_bytes)
		(void)fprintf(page->out, ", of %llu KiB", (unsigned long long)page_bytes / 1024);
	(void)fputc('\n', page->out);
}

static void print_system(const struct page *page, const struct doctor *doctor)
{
	const struct facts *facts = &doctor->facts;

	title(page, "System");
	label(page, "kernel");
	(void)fprintf(page->out, "%s %s %s\n", facts->kernel.sysname, facts->kernel.release, facts->kernel.machine);
	print_user(page, facts);
	label(page, "container");
	(void)fprintf(page->out, "%s%s\n", facts->container ? "traces of " : "",
	              facts->container ? facts->container : "none seen");
	fact(page, "seccomp", word_seccomp(doctor->probe.seccomp));
	fact(page, "swap", doctor->probe.swap_on ? "on" : "off");
	print_huge_pages(page, &doctor->probe);
	number(page, "vm.unprivileged_userfaultfd", doctor->probe.sysctl_unprivileged);
	label(page, "vm.max_map_count");
	(void)fprintf(page->out, "%llu: bounds the mappings of mprotect\n",
	              (unsigned long long)doctor->probe.max_map_count);
	number(page, "kernel.io_uring_disabled", facts->uring_disabled);
}

/* One line, or more where `otherwise` says what follows from the refusal. */
static void works_or_not(const struct page *page, const char *name, int error, const char *otherwise)
{
	char text[160] = "";
	const char *what = error ? "refused" : "works";

	label(page, name);
	hue_on(page, error ? HUE_SO_SO : HUE_GOOD);
	(void)fputs(what, page->out);
	hue_off(page);
	if (error)
		(void)snprintf(text, sizeof text, ": %s (%s)%s", word_errno(error), strerrordesc_np(-error), otherwise);
	wrap(page, error ? text : otherwise, LABEL_WIDTH + 2, LABEL_WIDTH + 2 + (unsigned)strlen(what));
}

static void print_access(const struct page *page, const struct uffdwp_probe_report *probe)
{
	title(page, "Ways to a userfaultfd");
	for (unsigned access = 0; access < UFFDWP_ACCESS_COUNT; access++) {
		works_or_not(page, word_access(access), probe->access[access],
		             (int)access == probe->access_chosen ? "; this one is taken" : "");
	}
}

static void print_feature_line(const struct page *page, const struct uffdwp_probe_report *probe, int offered)
{
	char text[1024] = "";
	size_t used = 0;

	for (unsigned i = 0; i < feature_count && used < sizeof text; i++) {
		const struct feature *feature = &feature_table[i];

		if ((int)(probe->features >> feature->bit & 1) != offered)
			continue;
		used += (size_t)snprintf(text + used, sizeof text - used, offered ? "%s " : "%s (Linux %s) ",
		                         feature->name, feature->since);
	}
	label(page, offered ? "offered" : "not offered");
	wrap(page, used ? text : "none", LABEL_WIDTH + 2, LABEL_WIDTH + 2);
}

static void print_features(const struct page *page, const struct uffdwp_probe_report *probe)
{
	title(page, "Features of userfaultfd (UFFD_FEATURE_...)");
	if (probe->access_chosen < 0) {
		fact(page, "offered", "not to be asked for");
		return;
	}
	print_feature_line(page, probe, 1);
	print_feature_line(page, probe, 0);
}

/* A cell in the column of a memory; the last one ends the line. */
static void cell(const struct page *page, unsigned memory, const char *text, enum hue hue)
{
	int last = memory == UFFDWP_MEMORY_COUNT - 1;

	hue_on(page, hue);
	(void)fputs(text, page->out);
	hue_off(page);
	(void)fprintf(page->out, "%*s", last ? 0 : CELL_WIDTH - (int)strlen(text), "");
	if (last)
		(void)fputc('\n', page->out);
}

static enum hue answer_hue(unsigned answer)
{
	if (answer == UFFDWP_ANSWER_KEPT)
		return HUE_GOOD;
	return answer == UFFDWP_ANSWER_UNTRIED ? HUE_SO_SO : HUE_BAD;
}

static void print_trial(const struct page *page, const struct uffdwp_probe_report *probe, unsigned trial)
{
	label(page, word_trial(trial));
	for (unsigned memory = 0; memory < UFFDWP_MEMORY_COUNT; memory++) {
		uint32_t answer = probe->memory[memory].answers[trial];

		cell(page, memory, word_answer(answer), answer_hue(answer));
	}
}

/* How an empty entry was filled with the mark on. */
static void print_fills(const struct page *page, const struct uffdwp_probe_report *probe)
{
	label(page, "filled with the mark on by");
	for (unsigned memory = 0; memory < UFFDWP_MEMORY_COUNT; memory++) {
		uint32_t fills = probe->memory[memory].fills;
		char text[CELL_WIDTH] = "";

		for (unsigned bit = 0; bit < FILLS; bit++)
			if (fills >> bit & 1)
				(void)snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s",
				               text[0] ? ", " : "", word_fill_id(bit));
		cell(page, memory, fills ? text : "not seen", fills ? HUE_GOOD : HUE_SO_SO);
	}
}

/* Why trials were not done or failed: those only whose reason the ladder does not give. */
static void print_reasons(const struct page *page, const struct uffdwp_probe_memory *memory)
{
	char text[256];

	for (unsigned trial = 0; trial < UFFDWP_TRIAL_COUNT; trial++) {
		const char *reason = memory->reasons[trial];

		if (!reason[0] || strstr(memory->rungs[UFFDWP_MECHANISM_MARKER].reason, reason))
			continue;
		(void)snprintf(text, sizeof text, "%s %s: %s", word_trial(trial), word_answer(memory->answers[trial]),
		               reason);
		(void)fputs("      ", page->out);
		wrap(page, text, 8, 6);
	}
}

static const char *deliveries(const struct uffdwp_probe_rung *rung, unsigned mechanism)
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
static void print_rung(const struct page *page, const struct uffdwp_probe_memory *memory, unsigned mechanism)
{
	const struct uffdwp_probe_rung *rung = &memory->rungs[mechanism];
	const char *how = deliveries(rung, mechanism);

	(void)fprintf(page->out, "    %c %-11s", memory->mechanism == mechanism ? '>' : ' ', word_mechanism(mechanism));
	hue_on(page, rung->works ? HUE_GOOD : HUE_SO_SO);
	(void)fputs(how, page->out);
	hue_off(page);
	(void)fprintf(page->out, "%*s", RUNG_WIDTH - 17 - (int)strlen(how), "");
	wrap(page, rung->reason[0] ? rung->reason : "not tried", RUNG_WIDTH, RUNG_WIDTH);
}

static void print_ladder(const struct page *page, const struct uffdwp_probe_report *probe)
{
	title(page, "The ladder: mechanism, its deliveries, and why (> is what AUTO takes)");
	for (unsigned memory = 0; memory < UFFDWP_MEMORY_COUNT; memory++) {
		const struct uffdwp_probe_memory *found = &probe->memory[memory];

		(void)fprintf(page->out, "  %s%s; a track takes %s\n", word_memory(memory),
		              found->mechanism == UFFDWP_MECHANISM_AUTO ? ": nothing works" : "",
		              word_mechanism(track_mechanism(found)));
		for (unsigned mechanism = UFFDWP_MECHANISM_MARKER; mechanism < UFFDWP_MECHANISM_COUNT; mechanism++)
			print_rung(page, found, mechanism);
		if (found->registered == 0)
			print_reasons(page, found);
	}
}

static void print_memory(const struct page *page, const struct uffdwp_probe_report *probe)
{
	title(page, "Does an armed page stay armed? What happened to it before it was written:");
	label(page, "");
	for (unsigned memory = 0; memory < UFFDWP_MEMORY_COUNT; memory++)
		cell(page, memory, word_memory(memory), HUE_TITLE);
	for (unsigned trial = 0; trial < UFFDWP_TRIAL_COUNT; trial++)
		print_trial(page, probe, trial);
	print_fills(page, probe);
	print_ladder(page, probe);
}

static void print_beside(const struct page *page, const struct uffdwp_probe_report *probe)
{
	title(page, "Beside it");
	works_or_not(page, "io_uring", probe->uring, probe->uring ? "; epoll and pwrite take its place" : "");
	works_or_not(page, "PAGEMAP_SCAN", probe->pagemap_scan, probe->pagemap_scan ? "; arrives with Linux 6.7" : "");
	label(page, "mark seen in pagemap");
	if (probe->pagemap_bit57 < 0)
		(void)fprintf(page->out, "not to be tried: %s\n", word_errno(probe->pagemap_bit57));
	else
		(void)fprintf(page->out, "%s\n", probe->pagemap_bit57 ? "yes" : "no (arrives with Linux 5.13)");
}

static void print_advice(const struct page *page, const struct doctor *doctor)
{
	char text[480];

	if (!doctor->advice_count)
		return;
	title(page, "What to change (of several lines marked *, any one helps)");
	for (unsigned i = 0; i < doctor->advice_count; i++) {
		const struct advice *advice = &doctor->advice[i];

		(void)snprintf(text, sizeof text, "%s: %s", word_level(advice->level), advice->what);
		(void)fprintf(page->out, "  %u. ", i + 1);
		wrap(page, text, 5, 5);
		for (unsigned c = 0; c < advice->changes; c++) {
			(void)fputs("     * ", page->out);
			wrap(page, advice->change[c], 7, 7);
		}
	}
}

static void print_verdict(const struct page *page, const struct doctor *doctor)
{
	static const char all[] = "good: every type of memory that is here can be armed";
	static const char limits[] = "works with limits: see what to change";
	static const char nothing[] = "nothing works: no memory can be armed, see what to change";
	const char *text = doctor->verdict == EXIT_ALL ? all : doctor->verdict == EXIT_LIMITS ? limits : nothing;
	enum hue hue = doctor->verdict == EXIT_ALL ? HUE_GOOD : doctor->verdict == EXIT_LIMITS ? HUE_SO_SO : HUE_BAD;

	(void)fputs("\nverdict: ", page->out);
	hue_on(page, hue);
	(void)fputs(text, page->out);
	hue_off(page);
	(void)fputc('\n', page->out);
}

int text_print(const struct doctor *doctor, FILE *out, int color)
{
	const struct page page = {.out = out, .color = color};

	(void)fprintf(out, "libuffdwp %s: what this kernel, this user and this container can do\n", uffdwp_version());
	print_system(&page, doctor);
	print_access(&page, &doctor->probe);
	print_features(&page, &doctor->probe);
	print_memory(&page, &doctor->probe);
	print_beside(&page, &doctor->probe);
	print_advice(&page, doctor);
	print_verdict(&page, doctor);
	return ferror(out) ? -1 : 0;
}
