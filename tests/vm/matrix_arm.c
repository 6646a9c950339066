/* SPDX-License-Identifier: MIT */
/*
 * The job "arm": each first write to an armed page is caught, once. See matrix.h.
 *
 * The ledger is the witness: a page that it holds for armed after the page was written is a write that was not seen.
 * Counted is what faults unprotect, before the writer goes on: so a second write must not count again.
 */
#include <stdio.h>
#include <string.h>

#include "matrix.h"

#define ROUNDS 2
#define ROUNDS_HUGE 12 /* of few pages, which see few treatments a round */

struct arm {
	struct place *place;
	struct outcome *outcome;
	unsigned writes;
	unsigned early; /* unprotected before its write: reads count as writes, or a neighbour's fault */
	unsigned treated[TREAT_COUNT];
	unsigned absent; /* treatments that this kernel does not have */
};

static uint64_t armed(const struct place *place, size_t page, size_t count)
{
	uint64_t pages = UINT64_MAX;

	if (uffdwp_region_armed(place->region, page * place->page_bytes, count * place->page_bytes, &pages))
		return UINT64_MAX;
	return pages;
}

static enum treatment treat(struct arm *arm, size_t page)
{
	struct place *place = arm->place;
	enum treatment treatment = (enum treatment)chance_below(&place->chance, TREAT_COUNT);

	if (!place_may_treat(place, treatment))
		return TREAT_NOTHING;
	if (place_treat(place, treatment, page, page + 1)) {
		arm->absent++;
		return TREAT_NOTHING;
	}
	arm->treated[treatment]++;
	return treatment;
}

/* One page: its treatment, a read perhaps, its first write. */
static int write_page(struct arm *arm, size_t page)
{
	struct place *place = arm->place;
	enum treatment treatment = treat(arm, page);
	int reads = chance_below(&place->chance, 2) == 0;

	if (reads && !place_agrees(place, page))
		return outcome_fail(arm->outcome, "page %zu: content is wrong after %s", page,
		                    treatment_name(treatment));
	arm->early += armed(place, page, 1) == 0;
	place_write(place, &place->chance, page);
	arm->writes++;
	if (armed(place, page, 1) != 0)
		return outcome_fail(arm->outcome, "page %zu: a write after %s%s was not seen", page,
		                    treatment_name(treatment), reads ? " and a read" : "");
	if (!place_agrees(place, page))
		return outcome_fail(arm->outcome, "page %zu: the write after %s did not last", page,
		                    treatment_name(treatment));
	return 1;
}

/* Every page, in random order. */
static int write_all(struct arm *arm, const size_t *order)
{
	for (size_t i = 0; i < arm->place->pages; i++)
		if (!write_page(arm, order[i]))
			return 0;
	return 1;
}

/* A page that was unprotected is written freely. */
static int write_again(struct arm *arm)
{
	struct place *place = arm->place;
	uint64_t before = place_stats(place).pages_disarmed;

	for (size_t page = 0; page < place->pages; page++)
		place_write(place, &place->chance, page);
	if (place_stats(place).pages_disarmed != before)
		return outcome_fail(arm->outcome, "second writes were counted as first ones");
	return 1;
}

static void shuffle(struct chance *chance, size_t *order, size_t count)
{
	for (size_t i = 0; i < count; i++)
		order[i] = i;
	for (size_t i = count; i > 1; i--) {
		size_t other = chance_below(chance, i);
		size_t kept = order[i - 1];

		order[i - 1] = order[other];
		order[other] = kept;
	}
}

static int arm_round(struct arm *arm)
{
	struct place *place = arm->place;
	size_t order[512] = {0};
	uint64_t before = place_stats(place).pages_disarmed;
	int error = uffdwp_region_arm(place->region, 0, place->length_bytes);

	if (error)
		return outcome_fail(arm->outcome, "uffdwp_region_arm: %s", strerror(-error));
	if (armed(place, 0, place->pages) != place->pages)
		return outcome_fail(arm->outcome, "not all pages are armed");
	shuffle(&place->chance, order, place->pages);
	if (!write_all(arm, order))
		return 0;
	uint64_t caught = place_stats(place).pages_disarmed - before;

	if (caught != place->pages)
		return outcome_fail(arm->outcome, "%zu pages were written, %llu were caught", place->pages,
		                    (unsigned long long)caught);
	return write_again(arm);
}

void arm_job(struct place *place, struct outcome *outcome)
{
	struct arm arm = {.place = place, .outcome = outcome};

	int rounds = place->cell.memory == UFFDWP_MEMORY_HUGETLB ? ROUNDS_HUGE : ROUNDS;

	for (int round = 0; round < rounds; round++)
		if (!arm_round(&arm))
			return;
	struct uffdwp_region_stats stats = place_stats(place);

	(void)snprintf(outcome->text, sizeof(outcome->text),
	               "writes=%u early=%u punch=%u zap=%u swap=%u absent=%u lost=%llu rearmed=%llu", arm.writes,
	               arm.early, arm.treated[TREAT_PUNCH], arm.treated[TREAT_ZAP], arm.treated[TREAT_SWAP], arm.absent,
	               (unsigned long long)stats.pages_lost, (unsigned long long)stats.pages_rearmed);
	outcome->verdict = PROVED;
}
