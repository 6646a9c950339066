/* SPDX-License-Identifier: MIT */
/*
 * Requests by json-c. It decides what is JSON, within bounds of length and depth; what it would let pass is looked for
 * here: keys that come twice (the last would count), numbers that are cut to what fits, texts with zeros in them, texts
 * between other quotes.
 */
#include <errno.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/escape.h"
#include "control/ask.h"

#define ASK_DEPTH 4

enum ask_kind { KIND_NUMBER, KIND_TEXT, KIND_BOOL };

static const struct {
	const char *name;
	enum ask_kind kind;
} ask_keys[ASK_KEYS] = {
        [ASK_V] = {"v", KIND_NUMBER},
        [ASK_ID] = {"id", KIND_NUMBER},
        [ASK_DO] = {"do", KIND_TEXT},
        [ASK_REGION] = {"region", KIND_NUMBER},
        [ASK_OF_SNAPSHOT] = {"snapshot", KIND_NUMBER},
        [ASK_OFFSET] = {"offset", KIND_NUMBER},
        [ASK_LENGTH] = {"length", KIND_NUMBER},
        [ASK_PATH] = {"path", KIND_TEXT},
        [ASK_PARENT] = {"parent", KIND_TEXT},
        [ASK_KEEP] = {"keep", KIND_BOOL},
        [ASK_COMPRESS] = {"compress", KIND_NUMBER},
        [ASK_RATE] = {"rate_bytes", KIND_NUMBER},
        [ASK_POOL] = {"pool_bytes", KIND_NUMBER},
        [ASK_ARMING] = {"arming", KIND_TEXT},
        [ASK_MODE] = {"mode", KIND_NUMBER},
        [ASK_PER_SECOND] = {"per_second", KIND_NUMBER},
        [ASK_SECONDS] = {"seconds", KIND_NUMBER},
};

#define ALL (ASK_BIT(ASK_V) | ASK_BIT(ASK_ID) | ASK_BIT(ASK_DO))
#define A_REGION ASK_BIT(ASK_REGION)
#define A_RANGE (A_REGION | ASK_BIT(ASK_OFFSET) | ASK_BIT(ASK_LENGTH))

static const struct {
	const char *name;
	uint32_t keys;   /* that it takes */
	uint32_t wanted; /* of them, those that must be there */
} ask_acts[ASK_ACTS] = {
        [ASK_HELLO] = {"hello", 0, 0},
        [ASK_LIST] = {"list", 0, 0},
        [ASK_STAT] = {"stat", A_REGION, 0},
        [ASK_SNAPSHOT] = {"snapshot",
                          A_REGION | ASK_BIT(ASK_PATH) | ASK_BIT(ASK_PARENT) | ASK_BIT(ASK_KEEP) |
                                  ASK_BIT(ASK_COMPRESS) | ASK_BIT(ASK_RATE) | ASK_BIT(ASK_POOL) | ASK_BIT(ASK_ARMING) |
                                  ASK_BIT(ASK_MODE),
                          A_REGION | ASK_BIT(ASK_PATH)},
        [ASK_ABORT] = {"abort", A_REGION | ASK_BIT(ASK_OF_SNAPSHOT), 0},
        [ASK_AUDIT] = {"audit", A_REGION, A_REGION},
        [ASK_ARM] = {"arm", A_RANGE, A_REGION},
        [ASK_DISARM] = {"disarm", A_RANGE, A_REGION},
        [ASK_TRACE] = {"trace", A_REGION | ASK_BIT(ASK_PER_SECOND) | ASK_BIT(ASK_SECONDS), 0},
};

int ask_built(void)
{
	return 1;
}

/* Keeps a text, names in it escaped, and returns `error`. */
__attribute__((format(printf, 3, 4))) static int ask_refuse(struct ask *ask, int error, const char *format, ...)
{
	char line[sizeof(ask->text)];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	escape_text(ask->text, sizeof(ask->text), line, 0);
	return error;
}

static int ask_key_of(const char *name, size_t length)
{
	for (int key = 0; key < ASK_KEYS; key++) {
		if (strlen(ask_keys[key].name) == length && !memcmp(ask_keys[key].name, name, length))
			return key;
	}
	return -1;
}

/* 1: it may come outside of a text. */
static int ask_is_plain(unsigned char byte)
{
	return (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') ||
	       (byte && strchr(" \t\r{}[]:,+-.E", byte));
}

/* 1: nothing but what JSON has: json-c takes texts between other quotes and comments as well, where keys would not be
 * found. */
static int ask_is_text(const char *line, size_t length)
{
	int is_inside = 0;

	for (size_t i = 0; i < length; i++) {
		unsigned char byte = (unsigned char)line[i];

		if (byte < 0x20 && byte != '\t' && byte != '\r')
			return 0;
		if (byte == '"')
			is_inside = !is_inside;
		else if (!is_inside && !ask_is_plain(byte))
			return 0;
		else if (is_inside && byte == '\\')
			i++;
	}
	return 1;
}

static struct json_object *ask_parse_ascii(const char *line, size_t length)
{
	struct json_tokener *tokener = json_tokener_new_ex(ASK_DEPTH);

	if (!tokener)
		return NULL;
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);
	/* With the zero after it: a number at the end of the text is whole only then. */
	struct json_object *object = json_tokener_parse_ex(tokener, line, (int)length + 1);
	int is_whole = json_tokener_get_error(tokener) == json_tokener_success;

	json_tokener_free(tokener);
	if (object && (!is_whole || !json_object_is_type(object, json_type_object))) {
		json_object_put(object);
		return NULL;
	}
	return object;
}

static struct json_object *ask_read(const char *line, size_t length)
{
	int is_utf8;
	size_t size;
	char *ascii = escape_json(line, length, &size, &is_utf8);
	struct json_object *object = ascii && is_utf8 ? ask_parse_ascii(ascii, size) : NULL;

	free(ascii);
	return object;
}

/* The end of a text that begins after `at`: its closing quote, or the end of all. */
static size_t ask_text_end(const char *line, size_t length, size_t at)
{
	while (at < length && line[at] != '"')
		at += line[at] == '\\' ? 2 : 1;
	return at < length ? at : length;
}

static int ask_take_key(struct ask *ask, const char *name, size_t length)
{
	int key = ask_key_of(name, length);

	if (key < 0)
		return ask_refuse(ask, -EINVAL, "unknown key \"%.*s\": PROTOCOL.md has the keys of each request",
		                  (int)(length < 64 ? length : 64), name);
	if (ask->has & ASK_BIT(key))
		return ask_refuse(ask, -EINVAL, "key \"%s\" comes twice: give it once", ask_keys[key].name);
	ask->has |= ASK_BIT(key);
	return 0;
}

/* Which keys the outermost object has, of a line that is JSON: a text followed by a colon. */
static int ask_take_keys(struct ask *ask, const char *line, size_t length)
{
	int depth = 0;
	int error = 0;

	for (size_t at = 0; at < length && !error; at++) {
		depth += line[at] == '{' || line[at] == '[';
		depth -= line[at] == '}' || line[at] == ']';
		if (line[at] != '"')
			continue;
		size_t start = at + 1;
		size_t end = ask_text_end(line, length, start);
		size_t after = end + 1;

		while (after < length && strchr(" \t\r", line[after]))
			after++;
		if (depth == 1 && after < length && line[after] == ':')
			error = ask_take_key(ask, line + start, end - start);
		at = end;
	}
	return error;
}

static int ask_take_number(struct ask *ask, enum ask_key key, struct json_object *value)
{
	if (!json_object_is_type(value, json_type_int) || json_object_get_int64(value) < 0 ||
	    json_object_get_uint64(value) > INT64_MAX)
		return ask_refuse(ask, -EINVAL, "\"%s\" must be a whole number from 0 to 2^63-1", ask_keys[key].name);
	ask->number[key] = json_object_get_uint64(value);
	return 0;
}

static int ask_take_text(struct ask *ask, enum ask_key key, struct json_object *value, char *to, size_t size)
{
	size_t length = json_object_is_type(value, json_type_string) ? (size_t)json_object_get_string_len(value) : 0;
	const char *text = length ? json_object_get_string(value) : "";

	if (!length || strlen(text) != length)
		return ask_refuse(ask, -EINVAL, "\"%s\" must be a text, and not empty", ask_keys[key].name);
	if (length >= size)
		return ask_refuse(ask, -EINVAL, "\"%s\" is too long: at most %zu bytes", ask_keys[key].name, size - 1);
	memcpy(to, text, length + 1);
	return 0;
}

static int ask_take_do(struct ask *ask, struct json_object *value)
{
	char name[32];
	int error = ask_take_text(ask, ASK_DO, value, name, sizeof(name));

	for (int act = 0; act < ASK_ACTS && !error; act++) {
		ask->act = (enum ask_act)act;
		if (!strcmp(ask_acts[act].name, name))
			return 0;
	}
	return error ? error : ask_refuse(ask, -EOPNOTSUPP, "there is no request \"%s\" here", name);
}

static int ask_take_value(struct ask *ask, enum ask_key key, struct json_object *value)
{
	if (ask_keys[key].kind == KIND_NUMBER)
		return ask_take_number(ask, key, value);
	if (key == ASK_DO)
		return ask_take_do(ask, value);
	if (key == ASK_PATH)
		return ask_take_text(ask, key, value, ask->path, sizeof(ask->path));
	if (key == ASK_PARENT)
		return ask_take_text(ask, key, value, ask->parent, sizeof(ask->parent));
	if (key == ASK_ARMING)
		return ask_take_text(ask, key, value, ask->arming, sizeof(ask->arming));
	if (!json_object_is_type(value, json_type_boolean))
		return ask_refuse(ask, -EINVAL, "\"%s\" must be true or false", ask_keys[key].name);
	ask->number[key] = (uint64_t)json_object_get_boolean(value);
	return 0;
}

static int ask_take_values(struct ask *ask, struct json_object *object)
{
	int error = 0;

	for (int key = 0; key < ASK_KEYS && !error; key++) {
		struct json_object *value = NULL;

		if (!(ask->has & ASK_BIT(key)))
			continue;
		json_object_object_get_ex(object, ask_keys[key].name, &value);
		error = ask_take_value(ask, (enum ask_key)key, value);
	}
	return error;
}

/* The first of a set of keys. */
static const char *ask_name_of(uint32_t keys)
{
	return ask_keys[__builtin_ctz(keys)].name;
}

static int ask_check(struct ask *ask)
{
	uint32_t foreign = ask->has & ~(ALL | ask_acts[ask->act].keys);
	uint32_t missing = ask_acts[ask->act].wanted & ~ask->has;

	if (foreign)
		return ask_refuse(ask, -EINVAL, "\"%s\" takes no key \"%s\"", ask_acts[ask->act].name,
		                  ask_name_of(foreign));
	if (missing)
		return ask_refuse(ask, -EINVAL, "\"%s\" needs the key \"%s\"", ask_acts[ask->act].name,
		                  ask_name_of(missing));
	return 0;
}

/* In the order in which a client of another version can make use of it: the id, the version, the rest. */
static int ask_take(struct ask *ask, const char *line, size_t length, struct json_object *object)
{
	struct json_object *id = NULL;
	struct json_object *version = NULL;

	if (json_object_object_get_ex(object, "id", &id) && !ask_take_number(ask, ASK_ID, id))
		ask->has = ASK_BIT(ASK_ID);
	if (!json_object_object_get_ex(object, "v", &version) || !json_object_is_type(version, json_type_int) ||
	    json_object_get_int64(version) != 1)
		return ask_refuse(ask, -EPROTONOSUPPORT, "this is version 1 of the protocol: begin with \"v\":1");
	uint32_t has_id = ask->has;

	ask->has = 0;
	int error = ask_take_keys(ask, line, length);

	if (!error)
		error = ask_take_values(ask, object);
	if (!error && !(ask->has & ASK_BIT(ASK_DO)))
		error = ask_refuse(ask, -EINVAL, "the key \"do\" is missing: it says what to do");
	if (!error)
		error = ask_check(ask);
	ask->has |= has_id;
	return error;
}

int ask_parse(const char *line, size_t length, struct ask *ask)
{
	char text[ASK_BYTES_MOST + 1];

	memset(ask, 0, sizeof(*ask));
	if (length >= sizeof(text) || !ask_is_text(line, length))
		return ask_refuse(ask, -EPROTO, "no JSON: a request is one line of text");
	memcpy(text, line, length);
	text[length] = '\0';
	struct json_object *object = ask_read(text, length);

	if (!object)
		return ask_refuse(ask, -EPROTO, "no JSON object of at most %d levels in one line of UTF-8", ASK_DEPTH);
	int error = ask_take(ask, text, length, object);

	json_object_put(object);
	return error;
}
