/* SPDX-License-Identifier: MIT */
/* Members of JSON objects, as all programs of tools/ write them. json-c answers NULL when there is no memory; such a
 * member reads as null. */
#ifndef UFFDWP_COMMON_JSON_ADD_H
#define UFFDWP_COMMON_JSON_ADD_H

#include <json-c/json.h>
#include <stdint.h>
#include <stdio.h>

void json_add(struct json_object *object, const char *name, struct json_object *value);
void json_add_bytes(struct json_object *object, const char *name, uint64_t value);

/* A text from outside, valid UTF-8 whatever its bytes are; it is cut at 4096 of them at the least. NULL: null. */
struct json_object *json_text(const char *value);
void json_add_text(struct json_object *object, const char *name, const char *value);

/* Prints the object and releases it. 0, or -1: it could not be. */
int json_write(struct json_object *object, int flags, FILE *out);

#endif
