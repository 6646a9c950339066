/* SPDX-License-Identifier: MIT */
/* uffdwp-ctl serve: the command line; see serve.h. What can be refused is refused before it listens. */
#include "serve.h"

#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "doctor.h"

enum {
	KEY_CLIENTS_MAX = 256,
	KEY_HANDSHAKE,
	KEY_IMAGE,
	KEY_IMAGES,
	KEY_MEMORY_MAX,
	KEY_NO_ORDER,
	KEY_ORDER,
	KEY_POOL,
	KEY_RECORD,
	KEY_SNAPSHOTS,
	KEY_SOCKET,
	KEY_SPARE,
	KEY_STOP,
	KEY_THREADS,
};

static const char serve_doc[] =
        "Serves page faults of other processes, for virtual machine monitors: a process connects to a Unix socket and "
        "hands over a userfaultfd, and where its memory is. Images are restored there lazily while the guest runs, and "
        "snapshots are taken."
        "\v"
        "Firecracker's handshake is understood (an array of mappings, one descriptor; memory is restored from "
        "--image), "
        "and one of this program's own, by which a process also asks for snapshots, increments and dirty pages. Each "
        "client is served by a process of its own. share/doc/uffdwp/uffdwp-ctl-serve.md has the protocol, and what is "
        "checked; uffdwp-ctl-serve(1) is the manual.\n"
        "\n"
        "Sizes are bytes, or end in K, M, G or T; times are seconds. SIGTERM and SIGINT end it: no new clients, what "
        "runs is ended first, for up to --stop seconds; a second signal aborts it.\n"
        "\n"
        "Exit codes:\n"
        "  0  it was ended by a signal\n"
        "  2  the command line was not understood\n"
        "  4  it could not listen, or a folder or an image is not there\n"
        "\n"
        "Examples:\n"
        "  uffdwp-ctl serve --socket /run/vm/uffd.sock --image /images/base.delta\n"
        "  uffdwp-ctl serve --socket vm.sock --images images --snapshots snapshots\n";

static const struct argp_option serve_options[] = {
        {"socket", KEY_SOCKET, "PATH", 0, "Listen there; the file is for this user alone", 0},
        {"image", KEY_IMAGE, "FILE", 0,
         "The image for clients that name none (Firecracker): raw, or the newest delta of a chain", 0},
        {"images", KEY_IMAGES, "FOLDER", 0, "Clients may name images of this folder; the default: that of --image", 0},
        {"snapshots", KEY_SNAPSHOTS, "FOLDER", 0, "Snapshots go there; without it none are taken", 0},
        {"order", KEY_ORDER, "FILE", 0, "Fetch first what this order says; the default: IMAGE.order, if it is there",
         0},
        {"record", KEY_RECORD, "FILE", 0,
         "Record there what was used first; the default: IMAGE.order, if it is not there", 0},
        {"no-order", KEY_NO_ORDER, NULL, 0, "Neither use nor record an order", 0},
        {"memory-max", KEY_MEMORY_MAX, "SIZE", 0, "Most memory of a client; the default: any", 0},
        {"clients-max", KEY_CLIENTS_MAX, "N", 0, "Most clients at a time, 1 to 4096; the default: 64", 0},
        {"pool", KEY_POOL, "SIZE", 0, "Bound on memory for pre-images of a snapshot; the default: 64M", 0},
        {"threads", KEY_THREADS, "N", 0, "Threads that fetch for a client, 1 to 64; the default: 4", 0},
        {"handshake", KEY_HANDSHAKE, "SECONDS", 0, "A handshake has to be there by then; the default: 5", 0},
        {"stop", KEY_STOP, "SECONDS", 0, "What runs may take so long at the end; the default: 60", 0},
        {"spare", KEY_SPARE, NULL, 0,
         "Do not kill a process whose memory lost its handler before all of it was restored", 0},
        {"quiet", 'q', NULL, 0, "Only what went wrong on stderr", 0},
        {0},
};

static uint64_t serve_parse_number(struct argp_state *state, const char *option, const char *text, uint64_t least,
                                   uint64_t most)
{
	char *end;

	errno = 0;
	unsigned long long value = strtoull(text, &end, 10);

	if (errno || end == text || *end || *text == '-' || value < least || value > most)
		argp_error(state, "%s takes a number from %llu to %llu, not '%s'", option, (unsigned long long)least,
		           (unsigned long long)most, text);
	return value;
}

static uint64_t serve_parse_size(struct argp_state *state, const char *option, const char *text)
{
	static const char units[] = "KMGT";
	char *end;

	errno = 0;
	unsigned long long value = strtoull(text, &end, 10);
	const char *unit = *end ? strchr(units, *end) : NULL;
	unsigned shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;

	if (errno || end == text || *text == '-' || (*end && (!unit || end[1])) || !value ||
	    value > (UINT64_MAX >> 1) >> shift)
		argp_error(state, "%s takes a size, like 512M, not '%s'", option, text);
	return (uint64_t)value << shift;
}

static int serve_parse_path(int key, char *argument, struct serve_settings *settings)
{
	switch (key) {
	case KEY_SOCKET:
		settings->socket = argument;
		return 1;
	case KEY_IMAGE:
		settings->image = argument;
		return 1;
	case KEY_IMAGES:
		settings->images = argument;
		return 1;
	case KEY_SNAPSHOTS:
		settings->snapshots = argument;
		return 1;
	case KEY_ORDER:
		settings->order = argument;
		return 1;
	case KEY_RECORD:
		settings->record = argument;
		return 1;
	default:
		return 0;
	}
}

static error_t serve_parse(int key, char *argument, struct argp_state *state)
{
	struct serve_settings *settings = state->input;

	if (serve_parse_path(key, argument, settings))
		return 0;
	switch (key) {
	case KEY_NO_ORDER:
		settings->no_order = 1;
		return 0;
	case KEY_SPARE:
		settings->spare = 1;
		return 0;
	case 'q':
		settings->quiet = 1;
		return 0;
	case KEY_MEMORY_MAX:
		settings->memory_max = serve_parse_size(state, "--memory-max", argument);
		return 0;
	case KEY_POOL:
		settings->pool_bytes = serve_parse_size(state, "--pool", argument);
		return 0;
	case KEY_CLIENTS_MAX:
		settings->clients_max =
		        (unsigned)serve_parse_number(state, "--clients-max", argument, 1, SERVE_CLIENTS_MOST);
		return 0;
	case KEY_THREADS:
		settings->threads = (uint32_t)serve_parse_number(state, "--threads", argument, 1, 64);
		return 0;
	case KEY_HANDSHAKE:
		settings->handshake_ms = 1000 * (unsigned)serve_parse_number(state, "--handshake", argument, 1, 3600);
		return 0;
	case KEY_STOP:
		settings->stop_ms = 1000 * (unsigned)serve_parse_number(state, "--stop", argument, 0, 86400);
		return 0;
	case ARGP_KEY_ARG:
		argp_error(state, "serve takes no argument, but got '%s'", argument);
		return 0;
	case ARGP_KEY_END:
		if (!settings->socket)
			argp_error(state, "where to listen is missing: --socket PATH");
		else if (settings->no_order && (settings->order || settings->record))
			argp_error(state, "--no-order contradicts --order and --record");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* ---- what has to be there ---- */

static int serve_check_folder(const char *option, const char *path, int access_mode)
{
	struct stat status;

	if (!path)
		return 0;
	if (stat(path, &status) != 0 || !S_ISDIR(status.st_mode)) {
		serve_say("%s \"%s\": %s", option, path, errno ? strerror(errno) : "it is no folder");
		return -1;
	}
	if (access(path, access_mode) != 0) {
		serve_say("%s \"%s\": %s", option, path, strerror(errno));
		return -1;
	}
	return 0;
}

static int serve_check_image(const char *path)
{
	struct uffdwp_image_options options = UFFDWP_IMAGE_OPTIONS_INIT;
	struct uffdwp_image *image = NULL;
	char text[SERVE_TEXT];

	if (!path)
		return 0;
	int error = uffdwp_image_open(path, &options, &image);

	if (error) {
		(void)serve_fail_library(text, error);
		serve_say("--image: %s", text);
		return -1;
	}
	(void)uffdwp_image_close(image);
	return 0;
}

int run_serve(int argc, char **argv)
{
	static const struct argp argp = {serve_options, serve_parse, "--socket PATH", serve_doc, NULL, NULL, NULL};
	static struct serve_settings settings = {.clients_max = 64, .handshake_ms = 5000, .stop_ms = 60000};
	char text[SERVE_TEXT];

	if (argp_parse(&argp, argc, argv, 0, NULL, &settings) != 0)
		return EXIT_USAGE;
	errno = 0;
	if (serve_check_folder("--images", settings.images, R_OK | X_OK) != 0 ||
	    serve_check_folder("--snapshots", settings.snapshots, W_OK | X_OK) != 0 ||
	    serve_check_image(settings.image) != 0)
		return EXIT_BROKEN;
	int listener = serve_socket_listen(settings.socket, text);

	if (listener < 0) {
		serve_say("%s", text);
		return EXIT_BROKEN;
	}
	return serve_loop(&settings, listener);
}
