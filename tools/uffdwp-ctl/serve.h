/* SPDX-License-Identifier: MIT */
/*
 * uffdwp-ctl serve: a handler process for virtual machine monitors and other programs that hand their memory to it over
 * a Unix socket: it restores images there lazily, and takes snapshots, while they run. SERVE.md has the protocols, and
 * what is checked.
 *
 * A client is a process. The first process (serve_loop.c) listens, forks a process for each connection before anything
 * of it was read, and only counts and reaps afterwards. All that a client sends is read, checked and used in the
 * process of that client (serve_client.c), with a runtime of the library of its own. Reasons:
 *  - what a client hands over can end a process that uses it: a memfd that is truncated raises SIGBUS in each process
 *    that reads its mapping. It ends the process of that client.
 *  - a read of a file on a disk that does not answer cannot be interrupted: it keeps the process of one client.
 *  - a client that discards memory in a loop keeps a handler thread busy: its own.
 *  - the first process is small, has one thread and reads nothing of clients: little of it can break. Where it is
 *    killed, clients are served on by their processes, and a new one can listen in its place.
 *  - the kernel counts, limits and shows processes: a control group, top(1) and /proc say what a client costs.
 * It costs a fork of a small process and about 1 MiB a client, and the pool of its snapshots (SERVE.md). Several
 * connections of one monitor are clients, each with its own memory; processes that map one memory join one client.
 *
 * What must never happen: a byte of a client that is used before its length was checked; a file outside of the folders
 * that the command line names; a wait of the first process for a client; a guest that reads zeros in place of
 * content that was not fetched (its pages raise SIGBUS, or its process is killed: serve_loop.c).
 */
#ifndef UFFDWP_CTL_SERVE_H
#define UFFDWP_CTL_SERVE_H

#include <limits.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "stops.h"
#include "uffdwp.h"

struct json_object;

#define SERVE_MESSAGE_MAX 65536 /* bytes of a message, with its newline */
#define SERVE_DESCRIPTORS_MAX 4 /* that come with one */
#define SERVE_NAME_MAX 127      /* bytes of a name of a file, or of a client */
#define SERVE_TEXT 512          /* of an error */
#define SERVE_CLIENTS_MOST 4096
#define SERVE_UNFINISHED_MAX 4 /* handshakes of one process that are under way */

/* What the command line says. */
struct serve_settings {
	const char *socket;
	const char *image;     /* for clients that name none; NULL: none */
	const char *images;    /* the folder of those that clients name; NULL: none */
	const char *snapshots; /* the folder that snapshots go to; NULL: none are taken */
	const char *order;     /* NULL: beside the image */
	const char *record;    /* NULL: beside the image, if none is there */
	int no_order;
	int spare; /* no client is killed */
	int quiet;
	uint64_t memory_max; /* bytes that a client may hand over; 0: any */
	uint64_t pool_bytes; /* of a snapshot; 0: the library's */
	uint32_t threads;    /* of a restore; 0: the library's */
	unsigned clients_max;
	unsigned handshake_ms; /* a handshake is there by then */
	unsigned stop_ms;      /* what runs at SIGTERM may take so long */
};

enum serve_state {
	SERVE_STATE_FREE,
	SERVE_STATE_HANDSHAKE,
	SERVE_STATE_RESTORING, /* content is missing: the guest needs this process */
	SERVE_STATE_SERVING,
};

/* A client, in memory that its process and the first one share: the process writes state and name only. */
struct serve_slot {
	_Atomic uint32_t state; /* enum serve_state */
	char name[SERVE_NAME_MAX + 1];
};

/* -------------------------------------------------------------------------------------------- serve_say.c -- */

/* A line on stderr, at once, its text without control characters. */
__attribute__((format(printf, 1, 2))) void serve_say(const char *format, ...);
/* Forms an error's text; gives the error. */
__attribute__((format(printf, 3, 4))) int serve_fail(char text[SERVE_TEXT], int error, const char *format, ...);
/* The library's error of this thread becomes the text. */
int serve_fail_library(char text[SERVE_TEXT], int error);
uint64_t serve_now_ms(void);

/* ----------------------------------------------------------------------------------------- serve_socket.c -- */

/* A socket that listens there; a leftover is replaced. Or -errno, with text. */
int serve_socket_listen(const char *path, char text[SERVE_TEXT]);
/* Removes the file if it is still that socket's. */
void serve_socket_remove(const char *path, int fd);

/* ------------------------------------------------------------------------------------------- serve_loop.c -- */

/* Takes clients until a signal ends it. An exit code. */
int serve_loop(const struct serve_settings *settings, int listener);

/* ----------------------------------------------------------------------------------------- serve_stream.c -- */

/* A connection: what came and was not used yet. */
struct serve_stream {
	int fd; /* -1: closed */
	int is_ended;
	size_t used;
	unsigned descriptor_count;
	size_t descriptors_end; /* the bytes that they came with end there */
	int descriptors[SERVE_DESCRIPTORS_MAX];
	char bytes[SERVE_MESSAGE_MAX + 1]; /* a 0 after what is used */
};

/* Takes what is there without waiting: 1: something; 0: nothing, or the end (is_ended); -errno, with text: more than is
 * taken. */
int serve_stream_receive(struct serve_stream *stream, char text[SERVE_TEXT]);
/* Waits up to a moment of serve_now_ms(). As above; -ETIMEDOUT. */
int serve_stream_wait(struct serve_stream *stream, uint64_t until_ms, char text[SERVE_TEXT]);
/* A line, without its newline, or NULL. It stands until the next receive. *length: of what serve_stream_drop() drops.
 */
char *serve_stream_line(struct serve_stream *stream, size_t *length);
void serve_stream_drop(struct serve_stream *stream, size_t length);
/* Hides the descriptors if they came with a line after the first `length` bytes. How many, for descriptor_count when
 * the line before is done. */
unsigned serve_stream_hold_back(struct serve_stream *stream, size_t length);
/* Closes descriptors that came and were not taken. */
void serve_stream_close_descriptors(struct serve_stream *stream);
void serve_stream_close(struct serve_stream *stream);
/* Sends an object as a line, and frees it. A client that does not read is left. */
void serve_stream_send(struct serve_stream *stream, struct json_object *object);

/* ---------------------------------------------------------------------------------------- serve_message.c -- */

enum serve_kind { SERVE_KIND_UFFD, SERVE_KIND_MEMFD, SERVE_KIND_PIDFD, SERVE_KINDS };

struct serve_memory {
	uint64_t page_bytes; /* 0: the system's */
	uint64_t length;     /* of the region */
	uint64_t memfd_offset;
	unsigned mapping_count;
	struct uffdwp_mapping mappings[UFFDWP_MAPPINGS_MAX];
	int is_registered;         /* by the mapper, which unregisters it */
	unsigned descriptor_count; /* that have to come with it, in this order */
	enum serve_kind kinds[SERVE_KINDS];
};

struct serve_handshake {
	int is_firecracker;
	char name[SERVE_NAME_MAX + 1];
	char image[SERVE_NAME_MAX + 1]; /* empty: none was named */
	int restores;
	int snapshots;
	int tracks;
	struct serve_memory memory;
};

struct serve_command {
	char what[16];
	int64_t id; /* -1: none */
	char path[SERVE_NAME_MAX + 1];
	char parent[SERVE_NAME_MAX + 1];
	int keep;
	uint32_t compress;
	uint64_t rate_bytes;
	struct serve_memory memory; /* of join */
};

/* Looks at what came: 1: a whole handshake, *length bytes of the stream; 0: more has to come; -errno, with text. */
int serve_message_handshake(const struct serve_stream *stream, struct serve_handshake *out, size_t *length,
                            char text[SERVE_TEXT]);
int serve_message_command(const char *line, struct serve_command *out, char text[SERVE_TEXT]);

/* ------------------------------------------------------------------------------------------ serve_names.c -- */

/* The path of a file of a folder: -errno, with text: the name is none. */
int serve_names_path(const char *folder, const char *name, char path[PATH_MAX], char text[SERVE_TEXT]);
uint64_t serve_names_hash(const char *name);
/* As above, of a file that is made; *lock keeps others from making it, until it is closed. is_own: this client made the
 * file that is there. */
int serve_names_reserve(const char *folder, const char *name, int is_own, char path[PATH_MAX], int *lock,
                        char text[SERVE_TEXT]);

/* ------------------------------------------------------------------------------------------ serve_client.c -- */

#define SERVE_OWN_MAX 1024 /* snapshots whose names a client may use again */

/* Of serve_order.h. */
struct serve_order_range {
	uint64_t offset;
	uint64_t length;
};

struct serve_order {
	uint64_t length; /* of the memory */
	uint64_t page_bytes;
	size_t count;
	struct serve_order_range *ranges;
};

struct serve_client {
	const struct serve_settings *settings;
	struct serve_slot *slot;
	int channel; /* to the first process; -1: closed */
	struct serve_stream stream;
	struct serve_handshake handshake;
	pid_t peer;
	int pidfd; /* of the process that has the memory; -1: none */
	int signals;
	struct uffdwp *runtime;
	struct uffdwp_region *region;
	struct uffdwp_restore *restore; /* NULL: none, or all is there */
	uint64_t restore_begin_ms;
	uint64_t missing_pages; /* of a restore that failed */
	struct uffdwp_track *track;
	char image[PATH_MAX];
	uint64_t image_length;
	uint64_t page_bytes;
	struct serve_order order; /* that is followed; count 0: none */
	int records;              /* what is used first goes to --record, or to `record` */
	char record[PATH_MAX];
	struct uffdwp_snapshot *snapshot; /* NULL: none runs */
	int64_t snapshot_number;          /* of the last one; 0: none */
	int snapshot_error;
	char snapshot_text[SERVE_TEXT];
	char snapshot_name[SERVE_NAME_MAX + 1];
	int snapshot_lock; /* -1: none */
	struct uffdwp_snapshot_progress snapshot_progress;
	uint64_t own[SERVE_OWN_MAX]; /* hashes of the names of its snapshots */
	unsigned own_count;
	int uffd;              /* of the memory, for looks alone; -1: none */
	int memfd;             /* likewise */
	int lost_error;        /* 0: the memory is as it was handed over */
	char lost[SERVE_TEXT]; /* what became of it */
	int waits;             /* "wait" or "bye" is answered when the snapshot ended; 2: bye */
	int64_t wait_id;
	int leaves;            /* when nothing runs any more */
	struct stops stops[2]; /* from others, and from the first process */
	uint64_t stop_at_ms;   /* what runs is aborted then; 0: never */
	int is_other;          /* another process than the one that connected has the memory */
	int is_gone;           /* the process that connected */
	char text[SERVE_TEXT]; /* of the last error */
};

/* The life of the process of a client. pidfd: of the process that connected; -1: it is not known. An exit code. */
int serve_client(const struct serve_settings *settings, struct serve_slot *slot, int connection, int channel,
                 pid_t peer, int pidfd);

/* -------------------------------------------------------------------------------------- serve_region.c -- */

/* Adopts the memory, and begins the restore. 0, or -errno, with text. */
int serve_region_open(struct serve_client *client);
int serve_region_join(struct serve_client *client, const struct serve_memory *memory);
/* All content is there, or raises SIGBUS by itself: the first process needs no userfaultfd of the client any more. */
void serve_region_release_guard(struct serve_client *client);
/* Ends of what ran. */
void serve_region_end_restore(struct serve_client *client);
void serve_region_end_snapshot(struct serve_client *client);
void serve_region_close(struct serve_client *client);
/* Descriptors of the stream that are of the right number and kinds; -1 where there is none. -errno, with text. */
int serve_region_check_descriptors(const struct serve_stream *stream, const struct serve_memory *memory,
                                   int found[SERVE_KINDS], char text[SERVE_TEXT]);

/* -------------------------------------------------------------------------------------------- serve_lost.c -- */

/* Keeps descriptors of its own for looks, and answers by a signal handler where a read of the memory raises SIGBUS. */
void serve_lost_watch(struct serve_client *client, int uffd, int memfd);
/* What that answer has as its id, from then on; -1: none. */
void serve_lost_prepare(const struct serve_client *client, int64_t id);
/* 0: the memory is as it was handed over; else an error, the same ever after, and its text in client->lost. */
int serve_lost_look(struct serve_client *client);

/* -------------------------------------------------------------------------------------- serve_command.c -- */

void serve_command_run(struct serve_client *client, const char *line);
/* Answers a command that waits for the snapshot's end. */
void serve_command_finish(struct serve_client *client);
void serve_command_refuse(struct serve_client *client, int64_t id, int error);

/* Ends with an exit code of doctor.h. */
int run_serve(int argc, char **argv);

#endif
