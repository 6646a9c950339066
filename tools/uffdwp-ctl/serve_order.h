/* SPDX-License-Identifier: MIT */
/*
 * The order in which a guest first used its memory after a restore: recorded at the end of one, fetched first by the
 * next one of the same image. It is a file of text:
 *
 *     uffdwp-order 1
 *     length 268435456        of the memory, in bytes
 *     page 4096               granularity of what follows
 *     1048576 8192            offset and length of a range, in the order of first uses
 *     0 4096
 *     end 2                   count of the ranges
 *
 * A wrong order costs time and no content. It is checked all the same when it is read: size, numbers, alignment,
 * bounds, count; a file that does not pass is not used, and a line says so. Threads: the first of a client's process.
 */
#ifndef UFFDWP_CTL_SERVE_ORDER_H
#define UFFDWP_CTL_SERVE_ORDER_H

#include <stddef.h>
#include <stdint.h>

#include "serve.h"

#define SERVE_ORDER_RANGES_MAX (1u << 20)
#define SERVE_ORDER_BYTES_MAX (64u << 20)

/* Reads a file. -ENOENT; -EBADMSG, with text: it is not such a file, or not of memory like this. */
int serve_order_load(const char *path, uint64_t length, uint64_t page_bytes, struct serve_order *order,
                     char text[SERVE_TEXT]);
/* Writes it, complete under its name or not at all. */
int serve_order_save(const char *path, const struct serve_order *order, char text[SERVE_TEXT]);
void serve_order_free(struct serve_order *order);

/* Before a restore begins: what is to be fetched first, and whether accesses are noted. Gives what is to be freed when
 * it has begun. */
uint64_t *serve_order_begin(struct serve_client *client, struct uffdwp_restore_options *options);
/* Before it is freed: what was used first is recorded. */
void serve_order_end(struct serve_client *client, int error);

#endif
