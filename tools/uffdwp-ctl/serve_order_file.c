/* SPDX-License-Identifier: MIT */
/* Files of orders; see serve_order.h. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "serve_order.h"

#define HEAD "uffdwp-order 1\n"

/* ---- reading ---- */

/* A number of digits alone, followed by `end`. */
static int serve_order_number(const char **at, char end, uint64_t *out)
{
	char *after;

	if (**at < '0' || **at > '9')
		return -EBADMSG;
	errno = 0;
	*out = strtoull(*at, &after, 10);
	if (errno || *after != end)
		return -EBADMSG;
	*at = after + 1;
	return 0;
}

static int serve_order_word(const char **at, const char *word)
{
	size_t length = strlen(word);

	if (strncmp(*at, word, length) != 0)
		return -EBADMSG;
	*at += length;
	return 0;
}

static int serve_order_parse_head(const char **at, struct serve_order *order)
{
	if (serve_order_word(at, HEAD) != 0 || serve_order_word(at, "length ") != 0 ||
	    serve_order_number(at, '\n', &order->length) != 0 || serve_order_word(at, "page ") != 0)
		return -EBADMSG;
	return serve_order_number(at, '\n', &order->page_bytes);
}

static int serve_order_parse_range(const char **at, const struct serve_order *order, struct serve_order_range *range)
{
	if (serve_order_number(at, ' ', &range->offset) != 0 || serve_order_number(at, '\n', &range->length) != 0)
		return -EBADMSG;
	return !range->length || (range->offset | range->length) % order->page_bytes ||
	                       range->offset >= order->length || range->length > order->length - range->offset
	               ? -EBADMSG
	               : 0;
}

/* The text ends with a 0. */
static int serve_order_parse(const char *at, struct serve_order *order)
{
	uint64_t count = 0;

	while (*at != 'e') {
		if (order->count == SERVE_ORDER_RANGES_MAX ||
		    serve_order_parse_range(&at, order, &order->ranges[order->count]) != 0)
			return -EBADMSG;
		order->count++;
	}
	if (serve_order_word(&at, "end ") != 0 || serve_order_number(&at, '\n', &count) != 0)
		return -EBADMSG;
	return *at || count != order->count ? -EBADMSG : 0;
}

/* All of a file, with a 0 at its end; NULL: -errno in *error. */
static char *serve_order_read(int fd, size_t *length, int *error)
{
	struct stat status;
	char *bytes = NULL;

	*length = 0;
	*error = -EBADMSG;
	if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size > (off_t)SERVE_ORDER_BYTES_MAX)
		return NULL;
	bytes = calloc((size_t)status.st_size + 1, 1);
	*error = bytes ? 0 : -ENOMEM;
	while (!*error && *length < (size_t)status.st_size) {
		ssize_t got = read(fd, bytes + *length, (size_t)status.st_size - *length);

		if (got <= 0)
			*error = got < 0 ? -errno : -EBADMSG;
		else
			*length += (size_t)got;
	}
	if (*error) {
		free(bytes);
		return NULL;
	}
	bytes[*length] = '\0';
	return bytes;
}

static int serve_order_take(const char *bytes, uint64_t length, uint64_t page_bytes, struct serve_order *order)
{
	const char *at = bytes;
	int error = serve_order_parse_head(&at, order);

	if (!error && (order->length != length || order->page_bytes != page_bytes))
		error = -EBADMSG;
	if (error)
		return error;
	size_t most = strlen(at) / 4 + 1; /* a line has at least four bytes */

	order->ranges = calloc(most < SERVE_ORDER_RANGES_MAX ? most : SERVE_ORDER_RANGES_MAX, sizeof(*order->ranges));
	return order->ranges ? serve_order_parse(at, order) : -ENOMEM;
}

int serve_order_load(const char *path, uint64_t length, uint64_t page_bytes, struct serve_order *order,
                     char text[SERVE_TEXT])
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	size_t bytes_length;
	int error;

	memset(order, 0, sizeof(*order));
	if (fd < 0)
		return serve_fail(text, -errno, "\"%s\": %s", path, strerror(errno));
	char *bytes = serve_order_read(fd, &bytes_length, &error);

	(void)close(fd);
	if (!error && strlen(bytes) != bytes_length)
		error = -EBADMSG;
	if (!error)
		error = serve_order_take(bytes, length, page_bytes, order);
	free(bytes);
	if (!error)
		return 0;
	serve_order_free(order);
	return serve_fail(text, error,
	                  error == -EBADMSG ? "\"%s\" is no order of memory of this length and pages"
	                                    : "\"%s\" cannot be read",
	                  path);
}

void serve_order_free(struct serve_order *order)
{
	free(order->ranges);
	order->ranges = NULL;
	order->count = 0;
}

/* ---- writing ---- */

static int serve_order_print(FILE *file, const struct serve_order *order)
{
	(void)fprintf(file, HEAD "length %" PRIu64 "\npage %" PRIu64 "\n", order->length, order->page_bytes);
	for (size_t i = 0; i < order->count; i++)
		(void)fprintf(file, "%" PRIu64 " %" PRIu64 "\n", order->ranges[i].offset, order->ranges[i].length);
	(void)fprintf(file, "end %zu\n", order->count);
	return fflush(file) != 0 || ferror(file) || fsync(fileno(file)) != 0 ? -EIO : 0;
}

int serve_order_save(const char *path, const struct serve_order *order, char text[SERVE_TEXT])
{
	char aside[PATH_MAX];
	int error;

	if (snprintf(aside, sizeof(aside), "%s.%d.tmp", path, (int)getpid()) >= (int)sizeof(aside))
		return serve_fail(text, -ENAMETOOLONG, "\"%s\" is too long", path);
	(void)unlink(aside);
	int fd = open(aside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	FILE *file = fd >= 0 ? fdopen(fd, "w") : NULL;

	if (!file) {
		error = -errno;
		if (fd >= 0)
			(void)close(fd);
		return serve_fail(text, error, "\"%s\": %s", aside, strerror(-error));
	}
	error = serve_order_print(file, order);
	if (fclose(file) != 0 && !error)
		error = -errno;
	if (!error && rename(aside, path) != 0)
		error = -errno;
	if (!error)
		return 0;
	(void)unlink(aside);
	return serve_fail(text, error, "\"%s\": %s", path, strerror(-error));
}
