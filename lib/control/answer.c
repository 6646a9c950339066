/* SPDX-License-Identifier: MIT */
/* See answer.h. What a client may do is asked of the runtime that a region belongs to. */
#include "control/answer.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control/acts.h"
#include "control/ask.h"
#include "control/look.h"
#include "kernel/roster.h"

#define ANSWER_SCHEMA 1

static const struct {
	uint32_t bit;
	const char *name;
} answer_rights[] = {{UFFDWP_CONTROL_LOOK, "look"}, {UFFDWP_CONTROL_SNAPSHOT, "snapshot"}, {UFFDWP_CONTROL_ARM, "arm"}};

#define RIGHTS (sizeof(answer_rights) / sizeof(answer_rights[0]))

static const uint32_t answer_needs[ASK_ACTS] = {
        [ASK_LIST] = UFFDWP_CONTROL_LOOK,      [ASK_STAT] = UFFDWP_CONTROL_LOOK,
        [ASK_TRACE] = UFFDWP_CONTROL_LOOK,     [ASK_SNAPSHOT] = UFFDWP_CONTROL_SNAPSHOT,
        [ASK_ABORT] = UFFDWP_CONTROL_SNAPSHOT, [ASK_AUDIT] = UFFDWP_CONTROL_SNAPSHOT,
        [ASK_ARM] = UFFDWP_CONTROL_ARM,        [ASK_DISARM] = UFFDWP_CONTROL_ARM,
};

void answer_begin(const struct control_calls *calls)
{
	look_begin(calls);
	acts_begin(calls);
}

static void answer_open(struct say *say, const struct ask *ask, int is_ok)
{
	say_open(say, NULL, '{');
	say_number(say, "v", 1);
	if (ask && ask->has & ASK_BIT(ASK_ID))
		say_number(say, "id", ask->number[ASK_ID]);
	say_bool(say, "ok", is_ok);
}

static void answer_error(struct say *say, const struct ask *ask, int error, const char *text)
{
	answer_open(say, ask, 0);
	say_errno(say, "error", error);
	say_text(say, "text", text);
	say_close(say, '}');
	say_line_end(say);
}

void answer_refusal(struct say *say, int error, const char *text)
{
	answer_error(say, NULL, error, text);
}

/* What all runtimes together allow. */
static uint32_t answer_allowed(const struct kernel_ops *k)
{
	struct roster_entry *entry;
	uint32_t allowed = 0;

	for (uint64_t from = 0; (entry = roster_take(ROSTER_RUNTIME, from, NULL)) != NULL;) {
		from = entry->number + 1;
		allowed |= ((const struct uffdwp *)entry->thing)->control;
		roster_give(k, entry);
	}
	return allowed;
}

static int answer_not_allowed(struct ask *ask, uint32_t missing)
{
	const char *name = answer_rights[__builtin_ctz(missing)].name;

	snprintf(ask->text, sizeof(ask->text),
	         "the program does not allow this: it takes \"%s\" in UFFDWP_CONTROL, or in the options' control",
	         name);
	return -EPERM;
}

static void answer_hello(const struct kernel_ops *k, struct say *say)
{
	uint32_t allowed = answer_allowed(k);

	look_say_process(say);
	say_number(say, "schema", ANSWER_SCHEMA);
	say_open(say, "allowed", '[');
	for (size_t i = 0; i < RIGHTS; i++) {
		if (allowed & answer_rights[i].bit)
			say_text(say, NULL, answer_rights[i].name);
	}
	say_close(say, ']');
}

/* The entry of the region that is asked about. NULL: there is none, with a text. */
static struct roster_entry *answer_take_region(const struct kernel_ops *k, struct ask *ask)
{
	uint64_t number = ask->number[ASK_REGION];

	if (ask->act == ASK_ABORT && ask->has & ASK_BIT(ASK_OF_SNAPSHOT))
		number = acts_region_of(ask->number[ASK_OF_SNAPSHOT]);
	struct roster_entry *entry = number ? roster_take(ROSTER_REGION, number, NULL) : NULL;

	if (entry && entry->number == number)
		return entry;
	if (entry)
		roster_give(k, entry);
	snprintf(ask->text, sizeof(ask->text), "%s",
	         ask->act == ASK_ABORT && !ask->number[ASK_REGION]
	                 ? "no such snapshot runs that a client began: \"stat\" lists those that do"
	                 : "there is no such region: \"list\" names those that there are");
	return NULL;
}

static int answer_of_region(struct ask *ask, struct uffdwp_region *region, struct tapped *tapped, struct say *say)
{
	uint32_t needs = answer_needs[ask->act];

	/* What the program began is the program's. */
	if (ask->act == ASK_ABORT && ask->has & ASK_BIT(ASK_REGION))
		needs |= UFFDWP_CONTROL_ARM;
	uint32_t missing = needs & ~region->runtime->control;

	if (missing)
		return answer_not_allowed(ask, missing);
	switch (ask->act) {
	case ASK_STAT:
		look_stat(region->k, region, say);
		return 0;
	case ASK_TRACE:
		return tapped_begin(tapped, region->k, ask);
	case ASK_SNAPSHOT:
		return acts_snapshot(ask, region, say);
	case ASK_ABORT:
		return acts_abort(ask, region, say);
	case ASK_AUDIT:
		return acts_audit(ask, region, say);
	default:
		return acts_arm(ask, region, say);
	}
}

static int answer_about_region(const struct kernel_ops *k, struct ask *ask, struct tapped *tapped, struct say *say)
{
	if (ask->act == ASK_ABORT && !(ask->has & (ASK_BIT(ASK_REGION) | ASK_BIT(ASK_OF_SNAPSHOT)))) {
		snprintf(ask->text, sizeof(ask->text), "\"abort\" needs the key \"snapshot\" or \"region\"");
		return -EINVAL;
	}
	struct roster_entry *entry = answer_take_region(k, ask);

	if (!entry)
		return -ESRCH;
	int error = answer_of_region(ask, entry->thing, tapped, say);

	roster_give(k, entry);
	return error;
}

/* What is about all, or no region. */
static int answer_members(const struct kernel_ops *k, struct ask *ask, struct tapped *tapped, struct say *say)
{
	if (ask->act == ASK_HELLO) {
		answer_hello(k, say);
		return 0;
	}
	int is_about_all = ask->act == ASK_LIST ||
	                   ((ask->act == ASK_STAT || ask->act == ASK_TRACE) && !(ask->has & ASK_BIT(ASK_REGION)));

	if (!is_about_all)
		return answer_about_region(k, ask, tapped, say);
	if (!(answer_allowed(k) & UFFDWP_CONTROL_LOOK))
		return answer_not_allowed(ask, UFFDWP_CONTROL_LOOK);
	if (ask->act == ASK_TRACE)
		return tapped_begin(tapped, k, ask);
	if (ask->act == ASK_LIST)
		look_list(k, say);
	else
		look_stat(k, NULL, say);
	return 0;
}

int answer_line(const struct kernel_ops *k, const char *line, size_t length, struct tapped *tapped, struct say *say)
{
	size_t before = say->length;
	struct ask ask;
	int error = ask_parse(line, length, &ask);

	if (!error) {
		answer_open(say, &ask, 1);
		error = answer_members(k, &ask, tapped, say);
		say_close(say, '}');
		say_line_end(say);
	}
	if (!error && say->error) {
		error = say->error;
		snprintf(ask.text, sizeof(ask.text), "the answer is too large for this process: ask about one region");
	}
	if (error) {
		say_back_to(say, before);
		answer_error(say, &ask, error, ask.text);
	}
	return error == -EPROTO || error == -EPROTONOSUPPORT;
}
