/* SPDX-License-Identifier: MIT */
/*
 * See zipf.h. Building: the ranks whose share is below the mean wait on one pile, the others on a second one; a cell is
 * made of one of each, which uses up the small one, until a pile is empty. What is left is 1 but for rounding.
 */
#include "zipf.h"

#include <math.h>
#include <stdlib.h>

#include "bench.h"

static void *allocate(uint32_t count, size_t size)
{
	void *memory = calloc(count, size);

	if (!memory)
		bench_die("no memory for a Zipf distribution over %u pages", count);
	return memory;
}

/* R. Durstenfeld's shuffle. */
static void permute(uint32_t *pages, uint32_t count, uint64_t seed)
{
	uint64_t state = seed;

	for (uint32_t i = 0; i < count; i++)
		pages[i] = i;
	for (uint32_t i = count; i > 1; i--) {
		uint32_t other = (uint32_t)(bench_random(&state) % i);
		uint32_t page = pages[i - 1];

		pages[i - 1] = pages[other];
		pages[other] = page;
	}
}

/* Shares in units of the mean. */
static void fill_shares(double *shares, uint32_t count, double theta)
{
	double sum = 0;

	for (uint32_t rank = 0; rank < count; rank++)
		sum += shares[rank] = pow(rank + 1.0, -theta);
	for (uint32_t rank = 0; rank < count; rank++)
		shares[rank] *= count / sum;
}

static void set_cell(struct zipf *zipf, uint32_t rank, double share, uint32_t other)
{
	zipf->cells[rank].keep = share >= 1.0 ? UINT32_MAX : (uint32_t)(share * 4294967296.0);
	zipf->cells[rank].own = zipf->pages[rank];
	zipf->cells[rank].other = zipf->pages[other];
}

/* `piles` holds the small ranks from its start and the large ones from its end. */
static void fill_cells(struct zipf *zipf, double *shares, uint32_t *piles)
{
	uint32_t small = 0;
	uint32_t large = zipf->count;

	for (uint32_t rank = 0; rank < zipf->count; rank++)
		piles[shares[rank] < 1.0 ? small++ : --large] = rank;
	while (small > 0 && large < zipf->count) {
		uint32_t less = piles[--small];
		uint32_t more = piles[large];

		set_cell(zipf, less, shares[less], more);
		shares[more] -= 1.0 - shares[less];
		if (shares[more] < 1.0) {
			large++;
			piles[small++] = more;
		}
	}
	while (small-- > 0)
		set_cell(zipf, piles[small], 1.0, piles[small]);
	for (; large < zipf->count; large++)
		set_cell(zipf, piles[large], 1.0, piles[large]);
}

void zipf_init(struct zipf *zipf, uint32_t count, double theta, uint64_t seed)
{
	double *shares = allocate(count, sizeof(*shares));
	uint32_t *piles = allocate(count, sizeof(*piles));

	zipf->count = count;
	zipf->cells = allocate(count, sizeof(*zipf->cells));
	zipf->pages = allocate(count, sizeof(*zipf->pages));
	permute(zipf->pages, count, seed);
	fill_shares(shares, count, theta);
	fill_cells(zipf, shares, piles);
	free(piles);
	free(shares);
}

void zipf_fini(struct zipf *zipf)
{
	free(zipf->cells);
	free(zipf->pages);
	zipf->cells = NULL;
	zipf->pages = NULL;
}

uint32_t zipf_draw(const struct zipf *zipf, uint64_t *random)
{
	uint64_t drawn = bench_random(random);
	const struct zipf_cell *cell = &zipf->cells[((drawn >> 32) * zipf->count) >> 32];

	return (uint32_t)drawn < cell->keep ? cell->own : cell->other;
}
