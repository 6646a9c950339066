/* SPDX-License-Identifier: MIT */
/* See json_add.h. */
#include "json_add.h"

#include "base/escape.h"

#define TEXT_BYTES 16400

void json_add(struct json_object *object, const char *name, struct json_object *value)
{
	(void)json_object_object_add(object, name, value);
}

void json_add_bytes(struct json_object *object, const char *name, uint64_t value)
{
	json_add(object, name, json_object_new_uint64(value));
}

struct json_object *json_text(const char *value)
{
	char text[TEXT_BYTES];

	if (!value)
		return NULL;
	(void)escape_text(text, sizeof(text), value, ESCAPE_KEEP_CONTROLS);
	return json_object_new_string(text);
}

void json_add_text(struct json_object *object, const char *name, const char *value)
{
	json_add(object, name, json_text(value));
}

int json_write(struct json_object *object, int flags, FILE *out)
{
	const char *text = object ? json_object_to_json_string_ext(object, flags) : NULL;
	int failed = !text || fprintf(out, "%s\n", text) < 0;

	(void)json_object_put(object);
	return failed ? -1 : 0;
}
