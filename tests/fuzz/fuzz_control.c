/* SPDX-License-Identifier: MIT */
/*
 * The input is a line that a client of the control socket sent. It lies in memory of exactly its length, so that the
 * address sanitizer sees a read beyond. Whatever it says: no crash, a text with each refusal, texts and numbers within
 * their bounds, and the same answer when it comes once more.
 *
 * fuzz-options: -max_len=4096
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/ask.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int holds)
{
	if (!holds)
		abort();
}

static void check_taken(const struct ask *ask)
{
	check((unsigned)ask->act < ASK_ACTS);
	check((ask->has & ASK_BIT(ASK_V)) && (ask->has & ASK_BIT(ASK_DO)));
	check(memchr(ask->path, '\0', sizeof(ask->path)) != NULL);
	check(memchr(ask->parent, '\0', sizeof(ask->parent)) != NULL);
	check(memchr(ask->arming, '\0', sizeof(ask->arming)) != NULL);
	for (int key = 0; key < ASK_KEYS; key++)
		check(ask->number[key] <= INT64_MAX && (!ask->number[key] || ask->has & ASK_BIT(key)));
	check(ask->number[ASK_V] == 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct ask first;
	static struct ask again;
	char *line = malloc(size ? size : 1);

	check(line != NULL);
	if (size)
		memcpy(line, data, size);
	int error = ask_parse(line, size, &first);

	check(error == 0 || error == -EPROTO || error == -EPROTONOSUPPORT || error == -EINVAL || error == -EOPNOTSUPP);
	check(memchr(first.text, '\0', sizeof(first.text)) != NULL);
	if (error)
		check(first.text[0] != '\0');
	else
		check_taken(&first);
	check(ask_parse(line, size, &again) == error && memcmp(&first, &again, sizeof(first)) == 0);
	free(line);
	return 0;
}
