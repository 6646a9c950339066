/* SPDX-License-Identifier: MIT */
/*
 * Messages of clients, from JSON to numbers that can be used; see serve.h and SERVE.md. A message is at most
 * SERVE_MESSAGE_MAX bytes, and its JSON at most DEPTH_MAX deep. What a client of ours sends has no unknown names, so
 * that a request that this version does not know is refused; Firecracker's mappings may have more names than are known
 * here, as its documents ask for.
 *
 * Firecracker's message is a JSON array without a length and without a newline: it is whole when it parses.
 */
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "serve.h"

#define DEPTH_MAX 6
#define HUGE_PAGE_MAX (1ull << 30)
#define ADDRESS_MAX (1ull << 56)
#define VERSION 1
#define COMPRESS_MOST 19

/* ---- values ---- */

/* A whole number of [0, most]. absent: what it is where the name is not there; UINT64_MAX: it has to be. */
static int serve_message_number(struct json_object *object, const char *name, uint64_t absent, uint64_t most,
                                uint64_t *out, char text[SERVE_TEXT])
{
	struct json_object *value;

	if (!json_object_object_get_ex(object, name, &value)) {
		*out = absent;
		return absent == UINT64_MAX ? serve_fail(text, -EINVAL, "\"%s\" is missing", name) : 0;
	}
	int64_t number = json_object_get_int64(value);

	if (!json_object_is_type(value, json_type_int) || number < 0 || (uint64_t)number > most)
		return serve_fail(text, -EINVAL, "\"%s\" has to be a whole number from 0 to %llu", name,
		                  (unsigned long long)most);
	*out = (uint64_t)number;
	return 0;
}

static int serve_message_flag(struct json_object *object, const char *name, int absent, int *out, char text[SERVE_TEXT])
{
	struct json_object *value;

	*out = absent;
	if (!json_object_object_get_ex(object, name, &value))
		return 0;
	if (!json_object_is_type(value, json_type_boolean))
		return serve_fail(text, -EINVAL, "\"%s\" has to be true or false", name);
	*out = json_object_get_boolean(value);
	return 0;
}

/* Empty where the name is not there, or is null. */
static int serve_message_text(struct json_object *object, const char *name, char *out, size_t size,
                              char text[SERVE_TEXT])
{
	struct json_object *value;

	*out = '\0';
	if (!json_object_object_get_ex(object, name, &value) || json_object_is_type(value, json_type_null))
		return 0;
	const char *string = json_object_get_string(value);
	size_t length = (size_t)json_object_get_string_len(value);

	if (!json_object_is_type(value, json_type_string) || !length || length >= size || strlen(string) != length)
		return serve_fail(text, -EINVAL, "\"%s\" has to be a text of 1 to %zu bytes", name, size - 1);
	memcpy(out, string, length + 1);
	return 0;
}

/* names: ends with NULL. */
static int serve_message_check_names(struct json_object *object, const char *const *names, char text[SERVE_TEXT])
{
	json_object_object_foreach(object, name, value)
	{
		size_t i = 0;

		(void)value;
		while (names[i] && strcmp(names[i], name) != 0)
			i++;
		if (!names[i])
			return serve_fail(text, -EINVAL, "\"%.64s\" is not known here", name);
	}
	return 0;
}

/* Parses what must be all of `bytes`, but for white space. NULL, with text; *is_part: it is the beginning of something.
 */
static struct json_object *serve_message_parse(const char *bytes, size_t length, size_t *used, int *is_part,
                                               char text[SERVE_TEXT])
{
	struct json_tokener *tokener = json_tokener_new_ex(DEPTH_MAX);
	struct json_object *object;

	if (!tokener) {
		*is_part = 0;
		(void)serve_fail(text, -ENOMEM, "no memory");
		return NULL;
	}
	json_tokener_set_flags(tokener, JSON_TOKENER_VALIDATE_UTF8);
	object = json_tokener_parse_ex(tokener, bytes, (int)length);
	enum json_tokener_error error = json_tokener_get_error(tokener);

	*used = json_tokener_get_parse_end(tokener);
	*is_part = error == json_tokener_continue;
	if (error != json_tokener_success)
		(void)serve_fail(text, -EPROTO, "it is no JSON: %s", json_tokener_error_desc(error));
	else if (!object)
		(void)serve_fail(text, -EPROTO, "it is null, and not an object");
	json_tokener_free(tokener);
	return object;
}

/* ---- mappings ---- */

static int serve_message_collide(const struct uffdwp_mapping *one, const struct uffdwp_mapping *other)
{
	return (one->offset < other->offset + other->length && other->offset < one->offset + one->length) ||
	       (one->address < other->address + other->length && other->address < one->address + one->length);
}

static int serve_message_check_mapping(const struct serve_memory *memory, unsigned number, uint64_t page_bytes,
                                       char text[SERVE_TEXT])
{
	const struct uffdwp_mapping *mapping = &memory->mappings[number];

	if (!mapping->length || !mapping->address ||
	    ((mapping->length | mapping->address | mapping->offset) & (page_bytes - 1)))
		return serve_fail(text, -EINVAL, "mapping %u is empty, or not of whole pages of %llu bytes", number,
		                  (unsigned long long)page_bytes);
	if (mapping->length > ADDRESS_MAX - mapping->address || mapping->length > ADDRESS_MAX - mapping->offset)
		return serve_fail(text, -EOVERFLOW, "mapping %u reaches beyond all addresses", number);
	for (unsigned other = 0; other < number; other++) {
		if (serve_message_collide(mapping, &memory->mappings[other]))
			return serve_fail(text, -EINVAL, "mappings %u and %u overlap", other, number);
	}
	return 0;
}

/* Sets the length, where none was given. */
static int serve_message_check_mappings(struct serve_memory *memory, char text[SERVE_TEXT])
{
	uint64_t page_bytes = memory->page_bytes ? memory->page_bytes : (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t end = 0;
	int error = 0;

	if (page_bytes < (uint64_t)sysconf(_SC_PAGESIZE) || page_bytes > HUGE_PAGE_MAX ||
	    (page_bytes & (page_bytes - 1)))
		return serve_fail(text, -EINVAL, "there are no pages of %llu bytes", (unsigned long long)page_bytes);
	for (unsigned i = 0; i < memory->mapping_count && !error; i++) {
		error = serve_message_check_mapping(memory, i, page_bytes, text);
		if (memory->mappings[i].offset + memory->mappings[i].length > end)
			end = memory->mappings[i].offset + memory->mappings[i].length;
	}
	if (error)
		return error;
	if (!memory->length)
		memory->length = end;
	if (memory->length < end || (memory->length & (page_bytes - 1)))
		return serve_fail(text, -EINVAL, "mappings reach up to %llu, and the length is %llu",
		                  (unsigned long long)end, (unsigned long long)memory->length);
	return 0;
}

struct serve_message_names {
	const char *address;
	const char *length;
	const char *offset;
};

static int serve_message_take_mappings(struct json_object *array, const struct serve_message_names *names,
                                       struct serve_memory *memory, char text[SERVE_TEXT])
{
	size_t count = json_object_is_type(array, json_type_array) ? json_object_array_length(array) : 0;
	int error = 0;

	if (count < 1 || count > UFFDWP_MAPPINGS_MAX)
		return serve_fail(text, -EINVAL, "there have to be 1 to %d mappings in an array", UFFDWP_MAPPINGS_MAX);
	memory->mapping_count = (unsigned)count;
	for (size_t i = 0; i < count && !error; i++) {
		struct json_object *entry = json_object_array_get_idx(array, i);
		struct uffdwp_mapping *mapping = &memory->mappings[i];

		if (!json_object_is_type(entry, json_type_object))
			return serve_fail(text, -EINVAL, "mapping %zu is no object", i);
		error = serve_message_number(entry, names->address, UINT64_MAX, ADDRESS_MAX, &mapping->address, text);
		if (!error)
			error = serve_message_number(entry, names->length, UINT64_MAX, ADDRESS_MAX, &mapping->length,
			                             text);
		if (!error)
			error = serve_message_number(entry, names->offset, UINT64_MAX, ADDRESS_MAX, &mapping->offset,
			                             text);
	}
	return error;
}

/* ---- Firecracker ---- */

/* "page_size", or as older versions have it "page_size_kib", which is in bytes, too. */
static int serve_message_take_page_sizes(struct json_object *array, struct serve_memory *memory, char text[SERVE_TEXT])
{
	for (size_t i = 0; i < memory->mapping_count; i++) {
		struct json_object *entry = json_object_array_get_idx(array, i);
		uint64_t size = 0;
		int error = serve_message_number(entry, "page_size", 0, HUGE_PAGE_MAX, &size, text);

		if (!error && !size)
			error = serve_message_number(entry, "page_size_kib", UINT64_MAX, HUGE_PAGE_MAX, &size, text);
		if (error)
			return error;
		if (!size || (i > 0 && size != memory->page_bytes))
			return serve_fail(text, -EINVAL, "mappings have pages of several sizes, or of none");
		memory->page_bytes = size;
	}
	return 0;
}

static int serve_message_take_firecracker(struct json_object *array, struct serve_handshake *out, char text[SERVE_TEXT])
{
	static const struct serve_message_names names = {"base_host_virt_addr", "size", "offset"};
	int error;

	out->is_firecracker = 1;
	out->restores = 1;
	out->memory.descriptor_count = 1;
	out->memory.kinds[0] = SERVE_KIND_UFFD;
	error = serve_message_take_mappings(array, &names, &out->memory, text);
	if (!error)
		error = serve_message_take_page_sizes(array, &out->memory, text);
	return error ? error : serve_message_check_mappings(&out->memory, text);
}

/* ---- ours ---- */

static const char *const serve_message_kinds[SERVE_KINDS] = {"uffd", "memfd", "pidfd"};

static int serve_message_take_kind(struct json_object *value, struct serve_memory *memory, char text[SERVE_TEXT])
{
	const char *name = json_object_is_type(value, json_type_string) ? json_object_get_string(value) : "";
	unsigned kind = 0;

	while (kind < SERVE_KINDS && strcmp(serve_message_kinds[kind], name) != 0)
		kind++;
	for (unsigned i = 0; i < memory->descriptor_count; i++) {
		if (memory->kinds[i] == kind)
			kind = SERVE_KINDS;
	}
	if (kind == SERVE_KINDS)
		return serve_fail(text, -EINVAL,
		                  "\"descriptors\" has to name \"uffd\", \"memfd\" and \"pidfd\", each "
		                  "once at most");
	memory->kinds[memory->descriptor_count++] = (enum serve_kind)kind;
	return 0;
}

/* Without the name: uffd, and memfd where `memfd`. */
static int serve_message_take_kinds(struct json_object *object, int memfd, struct serve_memory *memory,
                                    char text[SERVE_TEXT])
{
	struct json_object *array;
	int error = 0;

	memory->descriptor_count = 0;
	if (!json_object_object_get_ex(object, "descriptors", &array)) {
		memory->kinds[memory->descriptor_count++] = SERVE_KIND_UFFD;
		if (memfd)
			memory->kinds[memory->descriptor_count++] = SERVE_KIND_MEMFD;
		return 0;
	}
	if (!json_object_is_type(array, json_type_array) || json_object_array_length(array) > SERVE_KINDS)
		return serve_fail(text, -EINVAL, "\"descriptors\" has to be an array of 1 to %d names", SERVE_KINDS);
	for (size_t i = 0; i < json_object_array_length(array) && !error; i++)
		error = serve_message_take_kind(json_object_array_get_idx(array, i), memory, text);
	if (error)
		return error;
	for (unsigned i = 0; i < memory->descriptor_count; i++) {
		if (memory->kinds[i] == SERVE_KIND_UFFD)
			return 0;
	}
	return serve_fail(text, -EINVAL, "\"descriptors\" has to name \"uffd\"");
}

static int serve_message_take_memory(struct json_object *object, int memfd, struct serve_memory *memory,
                                     char text[SERVE_TEXT])
{
	static const struct serve_message_names names = {"address", "length", "offset"};
	struct json_object *mappings;
	int error;

	if (!json_object_object_get_ex(object, "mappings", &mappings))
		return serve_fail(text, -EINVAL, "\"mappings\" is missing");
	error = serve_message_take_mappings(mappings, &names, memory, text);
	if (!error)
		error = serve_message_take_kinds(object, memfd, memory, text);
	if (!error)
		error = serve_message_number(object, "page_size", 0, HUGE_PAGE_MAX, &memory->page_bytes, text);
	if (!error)
		error = serve_message_number(object, "length", 0, ADDRESS_MAX, &memory->length, text);
	if (!error)
		error = serve_message_number(object, "memfd_offset", 0, ADDRESS_MAX, &memory->memfd_offset, text);
	if (!error)
		error = serve_message_flag(object, "registered", 0, &memory->is_registered, text);
	return error ? error : serve_message_check_mappings(memory, text);
}

static int serve_message_take_ours(struct json_object *object, struct serve_handshake *out, char text[SERVE_TEXT])
{
	static const char *const names[] = {"uffdwp",       "mappings",   "descriptors", "page_size", "length",
	                                    "memfd_offset", "registered", "name",        "image",     "restore",
	                                    "snapshot",     "track",      NULL};
	uint64_t version = 0;
	int error = serve_message_number(object, "uffdwp", UINT64_MAX, INT64_MAX, &version, text);

	if (!error && version != VERSION)
		error = serve_fail(text, -EPROTONOSUPPORT, "this is version %d of the protocol, and not %llu", VERSION,
		                   (unsigned long long)version);
	if (!error)
		error = serve_message_check_names(object, names, text);
	if (!error)
		error = serve_message_text(object, "name", out->name, sizeof(out->name), text);
	if (!error)
		error = serve_message_text(object, "image", out->image, sizeof(out->image), text);
	if (!error)
		error = serve_message_flag(object, "restore", out->image[0] != '\0', &out->restores, text);
	if (!error && out->image[0] && !out->restores)
		error = serve_fail(text, -EINVAL, "\"image\" is given, and \"restore\" is false");
	if (!error)
		error = serve_message_flag(object, "snapshot", 1, &out->snapshots, text);
	if (!error)
		error = serve_message_flag(object, "track", 0, &out->tracks, text);
	return error ? error : serve_message_take_memory(object, 1, &out->memory, text);
}

static int serve_message_take(struct json_object *object, struct serve_handshake *out, char text[SERVE_TEXT])
{
	if (json_object_is_type(object, json_type_array))
		return serve_message_take_firecracker(object, out, text);
	if (json_object_is_type(object, json_type_object))
		return serve_message_take_ours(object, out, text);
	return serve_fail(text, -EPROTO, "a handshake is an array of mappings, or an object");
}

/* 1: only white space from there on. */
static int serve_message_is_blank(const char *bytes, size_t length)
{
	return strspn(bytes, " \t\r\n") >= length;
}

int serve_message_handshake(const struct serve_stream *stream, struct serve_handshake *out, size_t *length,
                            char text[SERVE_TEXT])
{
	size_t blank = strspn(stream->bytes, " \t\r\n");
	const char *newline = memchr(stream->bytes, '\n', stream->used);
	int is_array = stream->bytes[blank] == '[';
	size_t used = 0;
	int is_part = 0;

	if (blank == stream->used)
		return 0;
	if (stream->bytes[blank] != '{' && !is_array)
		return serve_fail(text, -EPROTO, "a handshake begins with [ or {");
	if (!is_array && !newline)
		return 0;
	*length = is_array ? stream->used : (size_t)(newline - stream->bytes) + 1;
	struct json_object *object = serve_message_parse(stream->bytes, *length, &used, &is_part, text);

	if (!object)
		return is_part && is_array ? 0 : -EPROTO;
	memset(out, 0, sizeof(*out));
	int error = serve_message_is_blank(stream->bytes + used, *length - used)
	                    ? serve_message_take(object, out, text)
	                    : serve_fail(text, -EPROTO, "more than a handshake came");

	(void)json_object_put(object);
	return error ? error : 1;
}

/* ---- commands ---- */

static int serve_message_take_snapshot(struct json_object *object, struct serve_command *out, char text[SERVE_TEXT])
{
	uint64_t compress = 0;
	int error = serve_message_text(object, "path", out->path, sizeof(out->path), text);

	if (!error && !out->path[0])
		error = serve_fail(text, -EINVAL, "\"path\" is missing");
	if (!error)
		error = serve_message_text(object, "parent", out->parent, sizeof(out->parent), text);
	if (!error)
		error = serve_message_flag(object, "keep", 0, &out->keep, text);
	if (!error)
		error = serve_message_number(object, "compress", 0, COMPRESS_MOST, &compress, text);
	if (!error)
		error = serve_message_number(object, "rate_bytes", 0, INT64_MAX, &out->rate_bytes, text);
	out->compress = (uint32_t)compress;
	return error;
}

static const char *const serve_message_plain[] = {"do", "id", NULL};
static const char *const serve_message_snapshot[] = {"do",   "id",       "path",       "parent",
                                                     "keep", "compress", "rate_bytes", NULL};
static const char *const serve_message_join[] = {"do",        "id",         "mappings", "descriptors",
                                                 "page_size", "registered", NULL};

static int serve_message_take_command(struct json_object *object, struct serve_command *out, char text[SERVE_TEXT])
{
	uint64_t id = INT64_MAX;
	int error = serve_message_number(object, "id", INT64_MAX, INT64_MAX, &id, text);

	if (error)
		return error;
	out->id = id == INT64_MAX ? -1 : (int64_t)id;
	error = serve_message_text(object, "do", out->what, sizeof(out->what), text);
	if (error)
		return error;
	if (strcmp(out->what, "snapshot") == 0) {
		error = serve_message_check_names(object, serve_message_snapshot, text);
		return error ? error : serve_message_take_snapshot(object, out, text);
	}
	if (strcmp(out->what, "join") == 0) {
		error = serve_message_check_names(object, serve_message_join, text);
		return error ? error : serve_message_take_memory(object, 0, &out->memory, text);
	}
	return serve_message_check_names(object, serve_message_plain, text);
}

int serve_message_command(const char *line, struct serve_command *out, char text[SERVE_TEXT])
{
	size_t length = strlen(line);
	size_t used = 0;
	int is_part = 0;

	memset(out, 0, sizeof(*out));
	out->id = -1;
	struct json_object *object = serve_message_parse(line, length + 1, &used, &is_part, text);

	if (!object)
		return is_part ? serve_fail(text, -EPROTO, "it is no whole JSON") : -EPROTO;
	int error = !json_object_is_type(object, json_type_object) ? serve_fail(text, -EPROTO, "a command is an object")
	            : !serve_message_is_blank(line + used, length - used)
	                    ? serve_fail(text, -EPROTO, "more than an object stands in the line")
	                    : serve_message_take_command(object, out, text);

	(void)json_object_put(object);
	return error;
}
