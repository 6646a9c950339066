/* SPDX-License-Identifier: MIT */
/*
 * What the commands for live processes share: their command line, the processes it means, and how they complain. Each
 * command has a file of its own, and is a row of the table in main.c.
 */
#ifndef UFFDWP_CTL_LIVE_H
#define UFFDWP_CTL_LIVE_H

#include <argp.h>

#include "live_answers.h"
#include "live_find.h"
#include "live_talk.h"

/* What a command takes as its first argument. */
enum live_takes {
	LIVE_TAKES_NONE,
	LIVE_TAKES_PID,   /* [PID] */
	LIVE_TAKES_ANY,   /* [PID[:REGION]] */
	LIVE_TAKES_ONE,   /* PID[:REGION] */
	LIVE_TAKES_REGION /* PID:REGION */
};

struct live_command {
	const char *name;
	enum live_takes takes;
	int json;
	const char *socket;
	int has_target;
	int64_t pid;    /* 0: all */
	int64_t region; /* -1: all */
};

/* Parsers of what all take, whose input is the first member of each command's own: --socket and the first argument; and
 * with --json. */
extern const struct argp_child live_children[];
extern const struct argp_child live_children_json[];

/* At ARGP_KEY_INIT of a command's parser. */
#define live_parse_init(state) ((state)->child_inputs[0] = (state)->input)

/* The processes that the command line means; LIVE_DONE if there is one. What is wrong was said. */
enum live_end live_meet(const struct live_command *command, struct live_peers *peers);

/* Says what was wrong with a process; returns the code to end with. */
enum live_end live_fail(const struct live_command *command, struct live_peer *peer);
/* The same after a request that names a region: asks whether there is one. */
enum live_end live_fail_region(const struct live_command *command, struct live_peer *peer);

/* Whether it answers at all, and its name: before a request that may take longer than this does. What is wrong was
 * said. */
enum live_end live_greet(const struct live_command *command, struct live_peer *peer);

/* What a process makes of the end of a command: nothing, where it is one of all and another user's, for no user can
 * make root's command fail. It is named all the same. */
enum live_end live_weigh(const struct live_peer *peer, enum live_end end);

/* The worse of two ends: what the process did is worse than what is not there. */
enum live_end live_worse(enum live_end a, enum live_end b);

/* Both answers of a process: list and stat, only of the command's region if it names one. */
struct live_state {
	struct json_object *list;
	struct json_object *stat;
};
enum live_end live_look(const struct live_command *command, struct live_peer *peer, struct live_state *state);
void live_state_free(struct live_state *state);
/* The region's row of `list` for one of `stat`; NULL: it began or ended between the two. */
struct json_object *live_list_row(const struct live_state *state, uint64_t region);
struct json_object *live_stat_row(const struct live_state *state, uint64_t region);

/* "bank 4711, region 2" */
#define LIVE_TITLE 192
const char *live_title(char *title, const struct live_peer *peer, uint64_t region);

/* Pages of a snapshot that are saved: in the image, or preserved for it in the pool. */
uint64_t live_saved(struct json_object *progress);
/* Of these, those that the sink has: all but what waits in the pool. `pool` may be NULL. */
uint64_t live_written(struct json_object *progress, struct json_object *pool);

/* The commands. Each ends with an enum live_end. */
int run_list(int argc, char **argv);
int run_stat(int argc, char **argv);
int run_watch(int argc, char **argv);
int run_snapshot(int argc, char **argv);
int run_abort(int argc, char **argv);
int run_audit(int argc, char **argv);
int run_arm(int argc, char **argv);
int run_disarm(int argc, char **argv);
int run_trace(int argc, char **argv);
int run_metrics(int argc, char **argv);

#endif
