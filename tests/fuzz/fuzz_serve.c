/* SPDX-License-Identifier: MIT */
/*
 * What clients send to `uffdwp-ctl serve`, and files of orders: the first byte says which of the three parsers gets the
 * rest. What is accepted must be what serve.h promises: mappings of whole pages within the memory, names that end,
 * ranges of an order within it.
 *
 * fuzz-options: -max_len=8192
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "serve.h"
#include "serve_order.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define LENGTH ((uint64_t)1 << 30)
#define PAGE 4096

static void require(int holds)
{
	if (!holds)
		abort();
}

static void look_at_memory(const struct serve_memory *memory)
{
	require(memory->mapping_count >= 1 && memory->mapping_count <= UFFDWP_MAPPINGS_MAX);
	require(memory->descriptor_count >= 1 && memory->descriptor_count <= SERVE_KINDS);
	for (unsigned i = 0; i < memory->mapping_count; i++) {
		const struct uffdwp_mapping *mapping = &memory->mappings[i];

		require(mapping->length && mapping->address && mapping->address + mapping->length > mapping->address);
		require(mapping->offset + mapping->length <= memory->length);
		require((mapping->length | mapping->address | mapping->offset) % (uint64_t)sysconf(_SC_PAGESIZE) == 0);
	}
}

static void try_handshake(const uint8_t *data, size_t size)
{
	static struct serve_stream stream;
	static struct serve_handshake handshake;
	char text[SERVE_TEXT] = "";
	size_t length = 0;

	stream.used = size;
	memcpy(stream.bytes, data, size);
	stream.bytes[size] = '\0';
	int got = serve_message_handshake(&stream, &handshake, &length, text);

	require(got >= 0 || text[0]);
	if (got != 1)
		return;
	require(length > 0 && length <= size);
	require(strlen(handshake.name) <= SERVE_NAME_MAX && strlen(handshake.image) <= SERVE_NAME_MAX);
	look_at_memory(&handshake.memory);
}

static void try_command(const uint8_t *data, size_t size)
{
	static char line[SERVE_MESSAGE_MAX + 1];
	struct serve_command command;
	char text[SERVE_TEXT] = "";
	char path[PATH_MAX];

	memcpy(line, data, size);
	line[size] = '\0';
	if (serve_message_command(line, &command, text) != 0) {
		require(text[0] != '\0');
		return;
	}
	if (strcmp(command.what, "join") == 0)
		look_at_memory(&command.memory);
	if (strcmp(command.what, "snapshot") == 0 && serve_names_path("folder", command.path, path, text) == 0)
		require(!strchr(path + strlen("folder/"), '/') && path[strlen("folder/")] != '.');
}

static void try_order(const uint8_t *data, size_t size)
{
	struct serve_order order;
	char text[SERVE_TEXT] = "";
	char path[64];
	int fd = memfd_create("order", MFD_CLOEXEC);

	require(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (serve_order_load(path, LENGTH, PAGE, &order, text) == 0) {
		for (size_t i = 0; i < order.count; i++)
			require(order.ranges[i].length && order.ranges[i].offset + order.ranges[i].length <= LENGTH &&
			        (order.ranges[i].offset | order.ranges[i].length) % PAGE == 0);
		serve_order_free(&order);
	}
	(void)close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1 || size > SERVE_MESSAGE_MAX)
		return 0;
	static void (*const parsers[])(const uint8_t *data, size_t size) = {try_handshake, try_command, try_order};

	parsers[data[0] % 3](data + 1, size - 1);
	return 0;
}
