/* SPDX-License-Identifier: MIT */
/*
 * See digest.h: each word is mixed in by a multiplication with an odd constant and a rotation, both of which can be
 * undone, so that two texts that differ in one word never collide.
 */
#include "digest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

#define CHUNK_BYTES (1u << 20)

uint64_t digest_bytes(uint64_t digest, const void *bytes, size_t length)
{
	const char *from = bytes;

	for (size_t at = 0; at < length; at += sizeof(digest)) {
		uint64_t word;

		memcpy(&word, from + at, sizeof(word));
		digest = (digest ^ word) * 0xff51afd7ed558ccdu;
		digest = digest << 31 | digest >> 33;
	}
	return digest;
}

uint64_t digest_file(const char *path, uint64_t length)
{
	char *chunk = malloc(CHUNK_BYTES);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint64_t digest = DIGEST_START;
	uint64_t read_bytes = 0;
	ssize_t got = 0;

	if (!chunk || fd < 0)
		bench_die("%s: %s", path, strerror(errno));
	while ((got = read(fd, chunk, CHUNK_BYTES)) > 0) {
		digest = digest_bytes(digest, chunk, (size_t)got);
		read_bytes += (uint64_t)got;
	}
	if (got < 0 || read_bytes != length)
		bench_die("%s: %llu bytes where %llu were expected", path, (unsigned long long)read_bytes,
		          (unsigned long long)length);
	close(fd);
	free(chunk);
	return digest;
}
