/* SPDX-License-Identifier: MIT */
/* A region that takes no snapshot now, since something else of it is under way. */
#ifndef UFFDWP_CTL_SNAP_BUSY_H
#define UFFDWP_CTL_SNAP_BUSY_H

#include "live.h"

/* Asks for a snapshot, and again for some seconds while that may end by itself: a cut is being made for a fork or a
 * view, or a snapshot has ended and is not freed yet. What is refused for good was said. */
enum live_end snap_busy_ask(const struct live_command *command, struct live_peer *peer, struct json_object *request,
                            struct json_object **answer);

#endif
