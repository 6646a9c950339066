/* SPDX-License-Identifier: MIT */
/* A client of the control socket in the process that it is of, for the tests of kernel_control*. The runtime `place`
 * and its socket `path`, in a folder of the test's own. */
#ifndef KERNEL_TEST_CONTROL_H
#define KERNEL_TEST_CONTROL_H

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "place.h"
#include "scratch.h"
#include "support.h"
#include "uffdwp.h"

#define PAGES 256
#define CLIENTS_MOST 16
#define ALL (UFFDWP_CONTROL_LOOK | UFFDWP_CONTROL_SNAPSHOT | UFFDWP_CONTROL_ARM)

static struct place place;
static char folder[SCRATCH_PATH];
static char path[SCRATCH_PATH];

/* --- a client ------------------------------------------------------------------------------------------------- */

struct client {
	int fd;
	size_t used;
	char bytes[1 << 20];
};

static inline int connect_to(const char *where)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(fd >= 0 && strlen(where) < sizeof(address.sun_path));
	memcpy(address.sun_path, where, strlen(where));
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
		int error = errno;
		close(fd);
		return -error;
	}
	return fd;
}

static inline struct client *client_new(void)
{
	struct client *client = calloc(1, sizeof(*client));
	must(client != NULL);
	client->fd = connect_to(path);
	must(client->fd >= 0);
	return client;
}

static inline void client_free(struct client *client)
{
	close(client->fd);
	free(client);
}

static inline void client_send(struct client *client, const char *text)
{
	must(send(client->fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text));
}

/* The next line, as JSON; NULL: the connection was closed. */
static inline struct json_object *client_read(struct client *client)
{
	char *end;
	while ((end = memchr(client->bytes, '\n', client->used)) == NULL) {
		must(client->used < sizeof(client->bytes));
		ssize_t got = recv(client->fd, client->bytes + client->used, sizeof(client->bytes) - client->used, 0);
		if (got <= 0)
			return NULL;
		client->used += (size_t)got;
	}
	*end = '\0';
	struct json_object *object = json_tokener_parse(client->bytes);
	must(object != NULL);
	client->used -= (size_t)(end + 1 - client->bytes);
	memmove(client->bytes, end + 1, client->used);
	return object;
}

static inline struct json_object *member(struct json_object *object, const char *name)
{
	struct json_object *value = NULL;
	ck_assert_msg(json_object_object_get_ex(object, name, &value), "no \"%s\" in %s", name,
	              json_object_to_json_string(object));
	return value;
}

static inline uint64_t number(struct json_object *object, const char *name)
{
	struct json_object *value = member(object, name);
	ck_assert_msg(json_object_is_type(value, json_type_int), "%s is %s", name, json_object_to_json_string(value));
	return (uint64_t)json_object_get_int64(value);
}

static inline const char *words(struct json_object *object, const char *name)
{
	const char *text = json_object_get_string(member(object, name));
	return text ? text : "null";
}

static inline struct json_object *first_region(struct json_object *answer)
{
	ck_assert_uint_eq(json_object_array_length(member(answer, "regions")), 1);
	return json_object_array_get_idx(member(answer, "regions"), 0);
}

/* Asks for one thing on a connection of its own; the members are given without the outer braces. */
static inline struct json_object *ask(const char *members)
{
	struct client *client = client_new();
	char line[8192];
	(void)snprintf(line, sizeof(line), "{\"v\":1,\"id\":9,%s}\n", members);
	client_send(client, line);
	struct json_object *answer = client_read(client);
	ck_assert_ptr_nonnull(answer);
	ck_assert_uint_eq(number(answer, "id"), 9);
	client_free(client);
	return answer;
}

static inline struct json_object *ask_well(const char *members)
{
	struct json_object *answer = ask(members);
	ck_assert_msg(json_object_get_boolean(member(answer, "ok")), "%s: %s", members,
	              json_object_to_json_string(answer));
	return answer;
}

static inline void expect_refused(const char *members, const char *error)
{
	struct json_object *answer = ask(members);
	ck_assert(!json_object_get_boolean(member(answer, "ok")));
	ck_assert_str_eq(words(answer, "error"), error);
	ck_assert_str_ne(words(answer, "text"), "");
	json_object_put(answer);
}

/* --- the process ---------------------------------------------------------------------------------------------- */

static inline int open_runtime(uint32_t control, struct uffdwp **runtime)
{
	struct uffdwp_options options = UFFDWP_OPTIONS_INIT;
	options.flags = UFFDWP_OPEN_CONTROL;
	options.control = control;
	options.control_path = path;
	return uffdwp_open(&options, runtime);
}

static inline void open_place(enum uffdwp_delivery delivery, uint32_t control)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	place.page_bytes = place_page_bytes(UFFDWP_MEMORY_SHMEM);
	place.pages = PAGES;
	place.length_bytes = PAGES * place.page_bytes;
	options.delivery = delivery;
	ck_assert_int_eq(open_runtime(control, &place.runtime), 0);
	ck_assert_int_eq(uffdwp_region_create(place.runtime, place.length_bytes, &options, &place.region), 0);
	place.base = uffdwp_region_base(place.region);
	memset(place.base, 1, place.length_bytes);
}

static inline void close_place_now(void)
{
	ck_assert_int_eq(uffdwp_region_close(place.region), 0);
	ck_assert_int_eq(uffdwp_close(place.runtime), 0);
	ck_assert_int_eq(access(path, F_OK), -1);
}

static inline void setup(void)
{
	scratch_folder(folder);
	scratch_join(path, folder, "c.sock");
	must(strlen(path) < 104);
}

static inline void setup_open(void)
{
	setup();
	open_place(UFFDWP_DELIVERY_AUTO, ALL);
}

#endif
