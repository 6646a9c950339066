/* SPDX-License-Identifier: MIT */
/*
 * What comes from a process: JSON of another program's making, which is hostile until it was checked. Three steps, each
 * before the next: shape_read() bounds what a line may cost, parses it and makes every text in it safe to print;
 * shape_check() compares it with a table of what must be there; only then shape_number() and its like read it, and
 * need not fail. What the tables do not name is passed on by --json, and else ignored.
 */
#ifndef UFFDWP_CTL_LIVE_SHAPE_H
#define UFFDWP_CTL_LIVE_SHAPE_H

#include <json-c/json.h>
#include <stddef.h>
#include <stdint.h>

#define SHAPE_LINE_MAX ((size_t)16 << 20) /* bytes of an answer */

enum shape_type {
	SHAPE_NUMBER, /* whole, 0 to 2^63-1 */
	SHAPE_TEXT,
	SHAPE_FLAG,    /* true, false */
	SHAPE_TRUTH,   /* the same, or a number */
	SHAPE_OBJECT,  /* as `inner` says */
	SHAPE_LIST,    /* of objects, each as `inner` says */
	SHAPE_NUMBERS, /* a list of numbers */
	SHAPE_TEXTS,   /* a list of texts */
	SHAPE_PAIRS,   /* a list of pairs of numbers, the first ones ascending */
	SHAPE_COUNTS   /* an object of numbers, by names that are not known beforehand */
};

#define SHAPE_NULL 1   /* may be null */
#define SHAPE_ABSENT 2 /* may not be there, nor be null */
#define SHAPE_ANY 3    /* either */

/* A table ends with a row without a key. */
struct shape {
	const char *key;
	enum shape_type type;
	unsigned may; /* SHAPE_NULL, SHAPE_ABSENT */
	const struct shape *inner;
};

/* The object in a line without its newline; its texts are valid UTF-8 without control characters. NULL, and what is
 * wrong in `wrong`. */
struct json_object *shape_read(const char *line, size_t length, char *wrong, size_t size);

/* 0, or -1, and what is wrong in `wrong`: "regions[2].length is no whole number". */
int shape_check(struct json_object *object, const struct shape *shape, char *wrong, size_t size);

/* Of what was checked. A number, text or object that is not there or null is 0, "", NULL. */
uint64_t shape_number(struct json_object *object, const char *key);
const char *shape_text(struct json_object *object, const char *key);
int shape_flag(struct json_object *object, const char *key);
int shape_has(struct json_object *object, const char *key); /* there, and not null */
struct json_object *shape_object(struct json_object *object, const char *key);
/* The list of that name, and its length: 0 where there is none. */
size_t shape_length(struct json_object *object, const char *key);
struct json_object *shape_item(struct json_object *object, const char *key, size_t index);
/* A number of a pair, or of a list of numbers. */
uint64_t shape_at(struct json_object *list, size_t index);

/* Prints a line of JSON. 0, or -1: no memory. */
int shape_print(struct json_object *object);

#endif
