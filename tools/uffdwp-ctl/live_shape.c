/* SPDX-License-Identifier: MIT */
/* See live_shape.h. */
#include "live_shape.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/escape.h"

/* What a line may make this process allocate: json-c takes some 700 bytes an object and 350 a list. */
#define SHAPE_DEPTH 12
#define SHAPE_OBJECTS_MAX 65536
#define SHAPE_LISTS_MAX 524288
#define SHAPE_VALUES_MAX 2097152
#define SHAPE_KEY_MAX 128

/* ---------------------------------------------------------------------------------------------------- reading -- */

/* Counted also inside texts: a bound, no measure. */
static int shape_costs_too_much(const char *line, size_t length)
{
	size_t objects = 0;
	size_t lists = 0;
	size_t values = 0;

	for (size_t i = 0; i < length; i++) {
		objects += line[i] == '{';
		lists += line[i] == '[';
		values += line[i] == ',';
	}
	return objects > SHAPE_OBJECTS_MAX || lists > SHAPE_LISTS_MAX || values > SHAPE_VALUES_MAX;
}

static struct json_object *shape_clean(struct json_object *dirty);

static struct json_object *shape_clean_text(const char *text)
{
	size_t size = escape_text(NULL, 0, text, 0) + 1;
	char *escaped = malloc(size);
	struct json_object *clean = NULL;

	if (escaped) {
		(void)escape_text(escaped, size, text, 0);
		clean = json_object_new_string(escaped);
	}
	free(escaped);
	return clean;
}

static struct json_object *shape_clean_object(struct json_object *dirty)
{
	struct json_object *clean = json_object_new_object();
	struct json_object_iterator at = json_object_iter_begin(dirty);
	struct json_object_iterator end = json_object_iter_end(dirty);

	for (; clean && !json_object_iter_equal(&at, &end); json_object_iter_next(&at)) {
		char key[SHAPE_KEY_MAX];

		(void)escape_text(key, sizeof(key), json_object_iter_peek_name(&at), 0);
		(void)json_object_object_add(clean, key, shape_clean(json_object_iter_peek_value(&at)));
	}
	return clean;
}

static struct json_object *shape_clean_list(struct json_object *dirty)
{
	struct json_object *clean = json_object_new_array();
	size_t length = json_object_array_length(dirty);

	for (size_t i = 0; clean && i < length; i++)
		(void)json_object_array_add(clean, shape_clean(json_object_array_get_idx(dirty, i)));
	return clean;
}

/* A copy that can be printed. What memory does not suffice for becomes null, which shape_check() reports where it
 * matters. */
static struct json_object *shape_clean(struct json_object *dirty)
{
	switch (json_object_get_type(dirty)) {
	case json_type_string:
		return shape_clean_text(json_object_get_string(dirty));
	case json_type_object:
		return shape_clean_object(dirty);
	case json_type_array:
		return shape_clean_list(dirty);
	case json_type_double: /* NaN is no JSON */
		return isfinite(json_object_get_double(dirty)) ? json_object_get(dirty) : NULL;
	case json_type_null:
		return NULL;
	default:
		return json_object_get(dirty);
	}
}

static struct json_object *shape_parse_ascii(const char *line, size_t length)
{
	struct json_tokener *tokener = json_tokener_new_ex(SHAPE_DEPTH);
	struct json_object *object;

	if (!tokener)
		return NULL;
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);
	object = json_tokener_parse_ex(tokener, line, (int)length);
	if (json_tokener_get_error(tokener) != json_tokener_success) {
		json_object_put(object);
		object = NULL;
	}
	json_tokener_free(tokener);
	return object;
}

static struct json_object *shape_parse(const char *line, size_t length)
{
	int is_utf8;
	size_t size;
	char *ascii = escape_json(line, length, &size, &is_utf8);
	struct json_object *object = ascii ? shape_parse_ascii(ascii, size) : NULL;

	free(ascii);
	return object;
}

struct json_object *shape_read(const char *line, size_t length, char *wrong, size_t size)
{
	struct json_object *dirty;
	struct json_object *clean = NULL;

	if (length > SHAPE_LINE_MAX || shape_costs_too_much(line, length)) {
		(void)snprintf(wrong, size, "the answer is too large");
		return NULL;
	}
	dirty = shape_parse(line, length);
	if (json_object_get_type(dirty) == json_type_object)
		clean = shape_clean(dirty);
	else
		(void)snprintf(wrong, size, "the answer is no object of JSON");
	if (dirty && !clean && json_object_get_type(dirty) == json_type_object)
		(void)snprintf(wrong, size, "no memory for the answer");
	json_object_put(dirty);
	return clean;
}

/* --------------------------------------------------------------------------------------------------- checking -- */

static int shape_is_number(struct json_object *value)
{
	return json_object_get_type(value) == json_type_int && json_object_get_int64(value) >= 0 &&
	       json_object_get_uint64(value) <= INT64_MAX;
}

static int shape_is_pair(struct json_object *value)
{
	return json_object_get_type(value) == json_type_array && json_object_array_length(value) == 2 &&
	       shape_is_number(json_object_array_get_idx(value, 0)) &&
	       shape_is_number(json_object_array_get_idx(value, 1));
}

static int shape_is_text(struct json_object *value)
{
	return json_object_get_type(value) == json_type_string;
}

static int shape_is_list(struct json_object *value, int (*is)(struct json_object *))
{
	if (json_object_get_type(value) != json_type_array)
		return 0;
	for (size_t i = 0; i < json_object_array_length(value); i++) {
		if (!is(json_object_array_get_idx(value, i)))
			return 0;
	}
	return 1;
}

static int shape_ascends(struct json_object *pairs)
{
	for (size_t i = 1; i < json_object_array_length(pairs); i++) {
		if (shape_at(json_object_array_get_idx(pairs, i - 1), 0) >=
		    shape_at(json_object_array_get_idx(pairs, i), 0))
			return 0;
	}
	return 1;
}

static int shape_is_counts(struct json_object *value)
{
	if (json_object_get_type(value) != json_type_object)
		return 0;
	json_object_object_foreach(value, key, count)
	{
		(void)key;
		if (!shape_is_number(count))
			return 0;
	}
	return 1;
}

static int shape_fits(struct json_object *value, enum shape_type type)
{
	switch (type) {
	case SHAPE_NUMBER:
		return shape_is_number(value);
	case SHAPE_TEXT:
		return shape_is_text(value);
	case SHAPE_FLAG:
		return json_object_get_type(value) == json_type_boolean;
	case SHAPE_TRUTH:
		return json_object_get_type(value) == json_type_boolean || shape_is_number(value);
	case SHAPE_OBJECT:
		return json_object_get_type(value) == json_type_object;
	case SHAPE_LIST:
		return json_object_get_type(value) == json_type_array;
	case SHAPE_NUMBERS:
		return shape_is_list(value, shape_is_number);
	case SHAPE_TEXTS:
		return shape_is_list(value, shape_is_text);
	case SHAPE_PAIRS:
		return shape_is_list(value, shape_is_pair) && shape_ascends(value);
	case SHAPE_COUNTS:
		return shape_is_counts(value);
	}
	return 0;
}

static const char *shape_type_name(enum shape_type type)
{
	static const char *const names[] = {
	        [SHAPE_NUMBER] = "whole number from 0 to 2^63-1",
	        [SHAPE_TEXT] = "text",
	        [SHAPE_FLAG] = "true or false",
	        [SHAPE_TRUTH] = "true, false or number",
	        [SHAPE_OBJECT] = "object",
	        [SHAPE_LIST] = "list",
	        [SHAPE_NUMBERS] = "list of numbers",
	        [SHAPE_TEXTS] = "list of texts",
	        [SHAPE_PAIRS] = "list of pairs of numbers that ascends",
	        [SHAPE_COUNTS] = "object of numbers",
	};

	return names[type];
}

/* Puts a place before what is wrong there. */
static int shape_prefix(char *wrong, size_t size, const char *key, size_t index, const char *joint)
{
	char inner[512];

	(void)snprintf(inner, sizeof(inner), "%s", wrong);
	if (index == SIZE_MAX)
		(void)snprintf(wrong, size, "%s%s%s", key, joint, inner);
	else
		(void)snprintf(wrong, size, "%s[%zu]%s%s", key, index, joint, inner);
	return -1;
}

static int shape_check_list(struct json_object *list, const struct shape *row, char *wrong, size_t size)
{
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		struct json_object *item = json_object_array_get_idx(list, i);

		(void)snprintf(wrong, size, "is no object");
		if (json_object_get_type(item) != json_type_object)
			return shape_prefix(wrong, size, row->key, i, " ");
		if (shape_check(item, row->inner, wrong, size))
			return shape_prefix(wrong, size, row->key, i, ".");
	}
	return 0;
}

static int shape_check_row(struct json_object *object, const struct shape *row, char *wrong, size_t size)
{
	struct json_object *value = NULL;
	int there = json_object_object_get_ex(object, row->key, &value);

	if (!value && (row->may & (there ? SHAPE_NULL : SHAPE_ABSENT)))
		return 0;
	(void)snprintf(wrong, size, "%s%s", there ? "is no " : "is missing", there ? shape_type_name(row->type) : "");
	if (!there || !shape_fits(value, row->type))
		return shape_prefix(wrong, size, row->key, SIZE_MAX, " ");
	if (row->type == SHAPE_OBJECT && row->inner && shape_check(value, row->inner, wrong, size))
		return shape_prefix(wrong, size, row->key, SIZE_MAX, ".");
	return row->type == SHAPE_LIST ? shape_check_list(value, row, wrong, size) : 0;
}

int shape_check(struct json_object *object, const struct shape *shape, char *wrong, size_t size)
{
	for (; shape->key; shape++) {
		if (shape_check_row(object, shape, wrong, size))
			return -1;
	}
	return 0;
}

/* ---------------------------------------------------------------------------------------------------- looking -- */

struct json_object *shape_object(struct json_object *object, const char *key)
{
	struct json_object *value = NULL;

	if (json_object_get_type(object) == json_type_object)
		(void)json_object_object_get_ex(object, key, &value);
	return value;
}

uint64_t shape_number(struct json_object *object, const char *key)
{
	return json_object_get_uint64(shape_object(object, key));
}

const char *shape_text(struct json_object *object, const char *key)
{
	const char *text = json_object_get_string(shape_object(object, key));

	return text ? text : "";
}

int shape_flag(struct json_object *object, const char *key)
{
	return json_object_get_boolean(shape_object(object, key));
}

int shape_has(struct json_object *object, const char *key)
{
	return shape_object(object, key) != NULL;
}

size_t shape_length(struct json_object *object, const char *key)
{
	struct json_object *list = shape_object(object, key);

	return json_object_get_type(list) == json_type_array ? json_object_array_length(list) : 0;
}

struct json_object *shape_item(struct json_object *object, const char *key, size_t index)
{
	return json_object_array_get_idx(shape_object(object, key), index);
}

uint64_t shape_at(struct json_object *list, size_t index)
{
	return json_object_get_uint64(json_object_array_get_idx(list, index));
}

int shape_print(struct json_object *object)
{
	const char *text =
	        json_object_to_json_string_ext(object, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);

	return text && puts(text) != EOF ? 0 : -1;
}
