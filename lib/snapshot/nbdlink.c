/* SPDX-License-Identifier: MIT */
/*
 * See nbdlink.h. The functions of libnbd are looked up by name, once they are needed; their types are those of its
 * header, so that the compiler checks each call all the same.
 *
 * What must never happen: a wait without an end. A server that is there and silent is the caller's matter, which waits
 * in pieces and may give up between them; the kernel finds out when the server's machine is gone (keep-alives), and the
 * link dies.
 */
#include "snapshot/nbdlink.h"

#include <dlfcn.h>
#include <errno.h>
#include <libnbd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>

#include "base/forks.h"
#include "base/math.h"
#include "base/signals.h"
#include "base/text.h"
#include "region/registry.h"

#define LIBRARY "libnbd.so.0"
#define REQUEST_MOST (32u << 20) /* bytes; what every server takes (the protocol's advice) */
#define WAIT_MS 50

/* A peer that acknowledges nothing, or is silent beyond probes, is gone after half a minute. */
#define PEER_GONE_MS 30000
#define PROBE_AFTER_S 10
#define PROBE_EVERY_S 5
#define PROBES 4

#define CALLS(X)                                                                                                       \
	X(create)                                                                                                      \
	X(close)                                                                                                       \
	X(get_error)                                                                                                   \
	X(get_errno)                                                                                                   \
	X(set_uri_allow_local_file)                                                                                    \
	X(aio_connect_uri)                                                                                             \
	X(aio_is_connecting)                                                                                           \
	X(aio_is_negotiating)                                                                                          \
	X(aio_is_ready)                                                                                                \
	X(aio_is_processing)                                                                                           \
	X(aio_in_flight)                                                                                               \
	X(aio_get_fd)                                                                                                  \
	X(aio_pread)                                                                                                   \
	X(aio_pwrite)                                                                                                  \
	X(aio_zero)                                                                                                    \
	X(aio_flush)                                                                                                   \
	X(aio_disconnect)                                                                                              \
	X(poll)                                                                                                        \
	X(get_size)                                                                                                    \
	X(get_block_size)                                                                                              \
	X(is_read_only)                                                                                                \
	X(can_flush)                                                                                                   \
	X(can_zero)

#define CALL_MEMBER(name) __typeof__(nbd_##name) *(name);
#define CALL_PLACE(name) {"nbd_" #name, offsetof(struct nbd_calls, name)},

struct nbd_calls {
	CALLS(CALL_MEMBER)
};

static struct nbd_calls nbd;
static int loaded;
static struct lock load_lock = LOCK_INIT; /* nothing else is locked inside but the text */

/* ---- loading ---- */

static int nbdlink_look_up(void *library, struct text *text)
{
	static const struct {
		const char *name;
		size_t place;
	} calls[] = {CALLS(CALL_PLACE)};

	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		void *found = dlsym(library, calls[i].name);

		if (!found)
			return text_fail(text, -EOPNOTSUPP, "%s has no %s: install libnbd 1.4 or newer", LIBRARY,
			                 calls[i].name);
		memcpy((char *)&nbd + calls[i].place, &found, sizeof(found));
	}
	return 0;
}

static void nbdlink_renew_in_child(void)
{
	lock_init(&load_lock);
}

/* What was not available may have been installed when the program asks again. */
static int nbdlink_load(struct text *text)
{
	int error = 0;

	forks_add(nbdlink_renew_in_child);
	lock_take(&load_lock);
	if (!loaded) {
		void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);

		error = library ? nbdlink_look_up(library, text)
		                : text_fail(text, -EOPNOTSUPP,
		                            "network block devices need libnbd (%s): install the package libnbd0 "
		                            "(elsewhere than on Debian: libnbd)",
		                            dlerror());
		loaded = !error;
		if (error && library)
			dlclose(library);
	}
	lock_give(&load_lock);
	return error;
}

/* ---- opening and closing ---- */

static int nbdlink_said_errno(void)
{
	int error = nbd.get_errno();

	return error > 0 ? -error : -EIO;
}

const char *nbdlink_said(void)
{
	const char *said = loaded ? nbd.get_error() : NULL;

	return said ? said : "libnbd did not say why";
}

static int nbdlink_is_connecting(struct nbd_handle *handle)
{
	return nbd.aio_is_connecting(handle) == 1 || nbd.aio_is_negotiating(handle) == 1;
}

static int nbdlink_connect_to(struct nbd_handle *handle, const char *uri, struct text *text)
{
	uint64_t until_ns = kernel_now_ns() + NBDLINK_CONNECT_MS * 1000000ull;
	int error = 0;

	/* The files are those that the URI names for TLS; the URI is the program's own, as a path is. */
	if (nbd.set_uri_allow_local_file(handle, true) < 0 || nbd.aio_connect_uri(handle, uri) < 0)
		error = nbdlink_said_errno();
	while (!error && nbdlink_is_connecting(handle)) {
		if (kernel_now_ns() >= until_ns)
			return text_fail(text, -ETIMEDOUT, "\"%s\" did not answer for %d s", uri,
			                 NBDLINK_CONNECT_MS / 1000);
		if (nbd.poll(handle, WAIT_MS) < 0)
			error = nbdlink_said_errno();
	}
	if (!error && nbd.aio_is_ready(handle) != 1)
		error = nbdlink_said_errno();
	return error ? text_fail(text, error, "\"%s\" cannot be opened: %s", uri, nbdlink_said()) : 0;
}

/* Other sockets than TCP's refuse this, and need it not. */
static void nbdlink_watch_peer(int fd)
{
	static const struct {
		int level;
		int name;
		int value;
	} settings[] = {
	        {SOL_SOCKET, SO_KEEPALIVE, 1},
	        {IPPROTO_TCP, TCP_KEEPIDLE, PROBE_AFTER_S},
	        {IPPROTO_TCP, TCP_KEEPINTVL, PROBE_EVERY_S},
	        {IPPROTO_TCP, TCP_KEEPCNT, PROBES},
	        {IPPROTO_TCP, TCP_USER_TIMEOUT, PEER_GONE_MS},
	};

	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++)
		(void)setsockopt(fd, settings[i].level, settings[i].name, &settings[i].value,
		                 sizeof(settings[i].value));
}

static int nbdlink_ask_export(struct nbdlink *link, const char *uri, struct text *text)
{
	struct nbd_handle *handle = link->handle;
	int64_t size = nbd.get_size(handle);
	int64_t least = nbd.get_block_size(handle, LIBNBD_SIZE_MINIMUM);
	int64_t most = nbd.get_block_size(handle, LIBNBD_SIZE_MAXIMUM);

	if (size < 0)
		return text_fail(text, nbdlink_said_errno(), "\"%s\" does not say how large it is: %s", uri,
		                 nbdlink_said());
	link->size_bytes = (uint64_t)size;
	link->block_least = least > 0 ? (uint32_t)least : 0;
	link->block_most = (uint32_t)math_min_u64(most > 0 ? (uint64_t)most : REQUEST_MOST, REQUEST_MOST);
	link->read_only = nbd.is_read_only(handle) != 0;
	link->can_flush = nbd.can_flush(handle) == 1;
	link->can_zero = nbd.can_zero(handle) == 1;
	nbdlink_watch_peer(nbd.aio_get_fd(handle));
	return 0;
}

/* As far as can be seen: where libnbd's handle was allocated the rest will be, too. */
static int nbdlink_heap_is_protected(const void *allocated)
{
	sigset_t before;

	signals_block(&before); /* no thread may wait while it is inside the epoch */
	epoch_ticket ticket = epoch_enter(&fault_epoch);
	int inside = registry_find((uintptr_t)allocated) != NULL;

	epoch_leave(ticket);
	signals_restore(&before);
	return inside;
}

int nbdlink_built(void)
{
	return 1;
}

int nbdlink_open(const char *uri, struct text *text, struct nbdlink *link)
{
	int error = nbdlink_load(text);

	if (error)
		return error;
	*link = (struct nbdlink){.handle = nbd.create()};
	if (!link->handle)
		return text_fail(text, nbdlink_said_errno(), "libnbd: %s", nbdlink_said());
	if (nbdlink_heap_is_protected(link->handle))
		error = text_fail(text, -EOPNOTSUPP,
		                  "the heap lies in a region, and libnbd allocates from it: use a stream to a program");
	if (!error)
		error = nbdlink_connect_to(link->handle, uri, text);
	if (!error)
		error = nbdlink_ask_export(link, uri, text);
	if (error)
		nbdlink_close(link);
	return error;
}

/* With nothing under way the server is notified, and has a moment to take notice. */
static void nbdlink_say_good_bye(struct nbd_handle *handle)
{
	uint64_t until_ns = kernel_now_ns() + NBDLINK_CLOSE_MS * 1000000ull;

	if (nbd.aio_is_ready(handle) != 1 || nbd.aio_in_flight(handle) != 0 || nbd.aio_disconnect(handle, 0) < 0)
		return;
	while (kernel_now_ns() < until_ns && (nbd.aio_is_ready(handle) == 1 || nbd.aio_is_processing(handle) == 1)) {
		if (nbd.poll(handle, WAIT_MS) < 0)
			return;
	}
}

void nbdlink_close(struct nbdlink *link)
{
	if (!link->handle)
		return;
	nbdlink_say_good_bye(link->handle);
	nbd.close(link->handle);
	link->handle = NULL;
}

/* ---- requests ---- */

/* Called by libnbd inside of a call of ours. 1: the request needs no further attention. */
static int nbdlink_answered(void *user, int *error)
{
	struct nbdlink_answer *answer = user;

	answer->error = *error > 0 ? -*error : 0;
	answer->done = 1;
	return 1;
}

static nbd_completion_callback nbdlink_expect(struct nbdlink_answer *answer)
{
	*answer = (struct nbdlink_answer){0, 0};
	return (nbd_completion_callback){.callback = nbdlink_answered, .user_data = answer};
}

static int nbdlink_begun(int64_t cookie)
{
	return cookie < 0 ? nbdlink_said_errno() : 0;
}

int nbdlink_write(struct nbdlink *link, const void *from, size_t length, uint64_t offset, struct nbdlink_answer *answer)
{
	return nbdlink_begun(nbd.aio_pwrite(link->handle, from, length, offset, nbdlink_expect(answer), 0));
}

int nbdlink_read(struct nbdlink *link, void *to, size_t length, uint64_t offset, struct nbdlink_answer *answer)
{
	return nbdlink_begun(nbd.aio_pread(link->handle, to, length, offset, nbdlink_expect(answer), 0));
}

int nbdlink_zero(struct nbdlink *link, size_t length, uint64_t offset, struct nbdlink_answer *answer)
{
	return nbdlink_begun(nbd.aio_zero(link->handle, length, offset, nbdlink_expect(answer), 0));
}

int nbdlink_flush(struct nbdlink *link, struct nbdlink_answer *answer)
{
	return nbdlink_begun(nbd.aio_flush(link->handle, nbdlink_expect(answer), 0));
}

int nbdlink_wait(struct nbdlink *link, int timeout_ms)
{
	if (nbd.poll(link->handle, timeout_ms) >= 0 &&
	    (nbd.aio_is_ready(link->handle) == 1 || nbd.aio_is_processing(link->handle) == 1))
		return 0;
	return -ENOTCONN;
}
