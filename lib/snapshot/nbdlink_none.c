/* SPDX-License-Identifier: MIT */
/* nbdlink.h in a library that was built without the header of libnbd: opening is refused, so that nothing else is
 * called. */
#include "snapshot/nbdlink.h"

#include <errno.h>

#include "base/text.h"

int nbdlink_built(void)
{
	return 0;
}

int nbdlink_open(const char *uri, struct text *text, struct nbdlink *link)
{
	(void)link;
	return text_fail(text, -EOPNOTSUPP,
	                 "\"%s\" cannot be opened: this library was built without libnbd; build it where the package "
	                 "libnbd-dev is installed",
	                 uri);
}

void nbdlink_close(struct nbdlink *link)
{
	(void)link;
}

int nbdlink_write(struct nbdlink *link, const void *from, size_t length, uint64_t offset, struct nbdlink_answer *answer)
{
	(void)link;
	(void)from;
	(void)length;
	(void)offset;
	(void)answer;
	return -ENOTCONN;
}

int nbdlink_read(struct nbdlink *link, void *to, size_t length, uint64_t offset, struct nbdlink_answer *answer)
{
	(void)link;
	(void)to;
	(void)length;
	(void)offset;
	(void)answer;
	return -ENOTCONN;
}

int nbdlink_zero(struct nbdlink *link, size_t length, uint64_t offset, struct nbdlink_answer *answer)
{
	return nbdlink_read(link, NULL, length, offset, answer);
}

int nbdlink_flush(struct nbdlink *link, struct nbdlink_answer *answer)
{
	return nbdlink_read(link, NULL, 0, 0, answer);
}

int nbdlink_wait(struct nbdlink *link, int timeout_ms)
{
	(void)link;
	(void)timeout_ms;
	return -ENOTCONN;
}

const char *nbdlink_said(void)
{
	return "the library was built without libnbd";
}
