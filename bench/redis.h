/* SPDX-License-Identifier: MIT */
/*
 * What the files of the question `redis` share: a server that the benchmark has started, and what one side, the plain
 * server or the one under `uffdwp-ctl fork`, showed.
 *
 * redis_server.c starts a server, talks to it and looks at its memory; redis_trial.c measures one side in one round;
 * redis.c chooses, reports and prints; redis_plot.c makes a picture.
 */
#ifndef UFFDWP_BENCH_REDIS_H
#define UFFDWP_BENCH_REDIS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "openloop.h"
#include "picture.h"
#include "report.h"
#include "rounds.h"

enum redis_side_number { REDIS_PLAIN, REDIS_UFFDWP, REDIS_NICE, REDIS_SIDES };

/* What all sides have in common. */
struct redis_plan {
	const char *server;  /* a path, or a name that is looked up in PATH */
	const char *ctl;     /* path of uffdwp-ctl */
	const char *folder;  /* for the socket and the dump; ours */
	uint64_t size_bytes; /* of all values */
	unsigned rounds;
	unsigned saves;          /* in a round */
	uint64_t rest_ns;        /* at rest, before the first save; as long for the closed loop */
	uint64_t gap_ns;         /* between saves */
	uint64_t requests_per_s; /* 0: half of what the plain server does in the first round */
	uint64_t seed;
};

/* ------------------------------------------------------------------------------------------------------ server -- */

struct redis_server {
	const struct redis_plan *plan;
	enum redis_side_number side;
	pid_t started;  /* which the benchmark waits for */
	pid_t process;  /* the server itself */
	int connection; /* for commands */
};

/* Ends the program by bench_skip() where a side cannot be run here. */
void redis_server_try(const struct redis_plan *plan, enum redis_side_number side);

void redis_server_start(struct redis_server *server, const struct redis_plan *plan, enum redis_side_number side);
void redis_server_stop(struct redis_server *server);

/* A connection more, not blocking; the caller closes it. */
int redis_server_connect(const struct redis_server *server);

/* One command, and its reply as text, terminated; an error ends the program. */
void redis_server_command(const struct redis_server *server, const char *name, const char *argument, char *text,
                          size_t size);

/* A number of INFO. */
long long redis_server_info(const struct redis_server *server, const char *section, const char *field);

struct redis_memory {
	uint64_t pss_bytes;    /* of the server and its children, page tables included */
	uint64_t system_bytes; /* anonymous and shared memory and page tables of all programs */
};

void redis_server_memory(const struct redis_server *server, struct redis_memory *memory);

/* Ends the program unless redis-check-rdb is content with the dump. 0: there is no such program. */
int redis_server_check_dump(const struct redis_server *server);

/* ------------------------------------------------------------------------------------------------------- trial -- */

enum redis_figure {
	REDIS_FORK_NS, /* latest_fork_usec, median of the saves of a round */
	REDIS_SAVE_NS, /* from BGSAVE until the server knows that it is done */
	REDIS_SAVE_P50_NS,
	REDIS_SAVE_P99_NS,
	REDIS_SAVE_P999_NS,
	REDIS_SAVE_MAX_NS,
	REDIS_REST_P50_NS,
	REDIS_REST_P99_NS,
	REDIS_REST_P999_NS,
	REDIS_REST_MAX_NS,
	REDIS_REST_OPS, /* a second, closed loop, no save */
	REDIS_PEAK_PSS_BYTES,
	REDIS_PEAK_SYSTEM_BYTES,
	REDIS_PEAK_SERVER_BYTES, /* VmHWM of the server */
	REDIS_FIGURES
};

struct redis_row {
	const char *name;
	struct picture_look look;
	struct rounds figures[REDIS_FIGURES];
	unsigned dumps_checked;
	struct openloop loop; /* of the last round */
};

/* One round of one side. The first of the plain server sets the rate, where the plan has none. */
void redis_trial(struct redis_plan *plan, enum redis_side_number side, unsigned round, struct redis_row *row);

/* ---------------------------------------------------------------------------------------------------- picture -- */

/* The latency over time, of the last round of each side. */
void redis_plot(const char *folder, const char *size_name, const struct redis_row *rows, size_t count);

#endif
