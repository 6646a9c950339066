/* SPDX-License-Identifier: MIT */
/*
 * The maps of a process, as uffdwp-dirty reads them, hold any bytes. What it tracks are mappings that are not empty, in
 * the order of addresses as the text has them, with names inside of the text; a text that is not understood is refused.
 *
 * fuzz-options: -max_len=2048 -len_control=0
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../tools/dirty/maps.h"
#include "forge.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct maps *maps)
{
	for (size_t i = 0; i < maps->count; i++) {
		const struct mapping *one = &maps->list[i];

		forge_must(one->start < one->end, "a mapping is not empty");
		forge_must(strlen(one->name) < maps->text_size, "its name ends inside of the text");
		forge_must(area_kind_name(one->kind) != NULL, "it is of a kind");
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const excluded[] = {"/excluded*", "data", NULL};
	struct maps maps = {.excluded = size & 1 ? excluded : NULL};
	int fd = memfd_create("maps", MFD_CLOEXEC);

	forge_must(fd >= 0 && write(fd, data, size) == (ssize_t)size, "a file can be written");
	/* Exactly as large as the text and its end: the sanitizer sees what looks beyond. */
	maps.text_size = size + 2;
	maps.text = malloc(maps.text_size);
	for (unsigned again = 0; again < 2; again++) {
		if (maps_read(&maps, fd, getpid()) == 0)
			check(&maps);
	}
	maps_fini(&maps);
	(void)close(fd);
	return 0;
}
