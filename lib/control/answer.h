/* SPDX-License-Identifier: MIT */
/*
 * The answer to a line: what is asked for, may it be done, and by which module.
 *
 * Threads: uffdwp-control.
 */
#ifndef UFFDWP_CONTROL_ANSWER_H
#define UFFDWP_CONTROL_ANSWER_H

#include "control/control.h"
#include "control/say.h"
#include "control/tapped.h"

/* Before the first request. */
void answer_begin(const struct control_calls *calls);

/* Appends one line to `say`; `tapped` is the client's. 0: go on; 1: the connection shall be closed when the line has
 * been sent. */
int answer_line(const struct kernel_ops *k, const char *line, size_t length, struct tapped *tapped, struct say *say);

/* The line of a refusal for which there is no request. */
void answer_refusal(struct say *say, int error, const char *text);

#endif
