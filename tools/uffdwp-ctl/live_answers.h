/* SPDX-License-Identifier: MIT */
/* What a process must answer to be believed, by request; see live_shape.h. Version 1 of the protocol. */
#ifndef UFFDWP_CTL_LIVE_ANSWERS_H
#define UFFDWP_CTL_LIVE_ANSWERS_H

#include "live_shape.h"

extern const struct shape answer_none[];     /* abort */
extern const struct shape answer_hello[];    /* hello */
extern const struct shape answer_list[];     /* list */
extern const struct shape answer_stat[];     /* stat */
extern const struct shape answer_snapshot[]; /* snapshot */
extern const struct shape answer_audit[];    /* audit */
extern const struct shape answer_pages[];    /* arm, disarm */
extern const struct shape answer_event[];    /* the lines after trace: any of them */
extern const struct shape answer_write[];    /* those whose event is "write" */
extern const struct shape answer_tick[];     /* those whose event is "tick" */

#endif
