/* SPDX-License-Identifier: MIT */
/*
 * Accesses that may raise SIGBUS, and come back with a result. Each thread has a place to come back to of its own.
 *
 * bus_begin() comes before the first region with inline delivery: the library's handler then passes on to this one.
 */
#ifndef SUPPORT_BUS_H
#define SUPPORT_BUS_H

#include <stddef.h>
#include <stdint.h>

void bus_begin(void);

/* 1: [address, address + length) could be read, and is in `buffer`; 0: SIGBUS. */
int bus_read(const void *address, void *buffer, size_t length);

/* 1: a byte could be written; 0: SIGBUS. */
int bus_write(void *address, uint8_t byte);

#endif
