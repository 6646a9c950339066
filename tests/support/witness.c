/* SPDX-License-Identifier: MIT */
/* See witness.h. */
#include "witness.h"

#include <fcntl.h>
#include <stdint.h>
#include <unistd.h>

#include "support.h"

#define ENTRY_ARMED ((uint64_t)1 << 57)
#define ENTRY_SWAPPED ((uint64_t)1 << 62)

static uint64_t entry_of(int pagemap, uintptr_t address)
{
	uint64_t entry = 0;
	uint64_t index = address / (uintptr_t)sysconf(_SC_PAGESIZE);
	must(pread(pagemap, &entry, sizeof(entry), (off_t)(index * sizeof(entry))) == (ssize_t)sizeof(entry));
	return entry;
}

static int open_pagemap(void)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	must(pagemap >= 0);
	return pagemap;
}

size_t witness_armed(const void *base, size_t length, size_t page_bytes)
{
	int pagemap = open_pagemap();
	size_t armed = 0;
	for (size_t offset = 0; offset < length; offset += page_bytes) {
		armed += (entry_of(pagemap, (uintptr_t)base + offset) & ENTRY_ARMED) != 0;
	}
	close(pagemap);
	return armed;
}

int witness_swapped(const void *page)
{
	int pagemap = open_pagemap();
	uint64_t entry = entry_of(pagemap, (uintptr_t)page);
	close(pagemap);
	return (entry & ENTRY_SWAPPED) != 0;
}
