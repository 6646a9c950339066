/* SPDX-License-Identifier: MIT */
/* Small arithmetic that every module wants alike. */
#ifndef UFFDWP_BASE_MATH_H
#define UFFDWP_BASE_MATH_H

#include <stdint.h>

static inline uint64_t math_min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline int math_is_power_of_two(uint64_t value)
{
	return value != 0 && (value & (value - 1)) == 0;
}

static inline int math_is_aligned(uint64_t value, uint64_t unit)
{
	return (value & (unit - 1)) == 0;
}

static inline uint64_t math_round_up(uint64_t value, uint64_t unit)
{
	return (value + unit - 1) & ~(unit - 1);
}

/* The lowest `count` bits; 64 and more: all. */
static inline uint64_t math_low_bits(uint64_t count)
{
	return count < 64 ? (1ull << count) - 1 : UINT64_MAX;
}

/* A bitmap is made of whole words of 64 bits. */
static inline uint64_t math_bitmap_bytes(uint64_t bits)
{
	return math_round_up(bits, 64) / 8;
}

static inline uint32_t math_next_power_of_two(uint32_t value)
{
	uint32_t power = 1;

	while (power < value)
		power <<= 1;
	return power;
}

#endif
