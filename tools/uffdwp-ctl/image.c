/* SPDX-License-Identifier: MIT */
/*
 * uffdwp-ctl image SUBCOMMAND: the command line. All work is the library's; a result appears complete under its name or
 * not at all, also when this program is killed.
 *
 * Exit codes are those of doctor.h, with meanings of this command: 1 is "they differ" (diff).
 */
#include "image.h"

#include <argp.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/escape.h"
#include "doctor.h"
#include "reword.h"

#define COMPRESS_MOST 19
#define IMAGE_LINE 4600 /* bytes of a complaint, with a path */
#define IMAGE_SUBCOMMANDS "info, verify, merge, restore or diff"

/* ------------------------------------------------------------------------------------------------ command lines -- */

enum { KEY_RAW = 256, KEY_BUFFERED, KEY_PROGRESS };

static const struct argp_option image_options[] = {
        {"ancestor", 'a', "FILE", 0, "Look there for an ancestor, too; may be given often", 0},
        {"json", 'j', NULL, 0, "For programs: one JSON object (info, verify, diff)", 0},
        {"output", 'o', "FILE", 0, "The result goes there (merge, restore; diff: a delta)", 0},
        {"deltas", 'd', "N", 0, "merge: the N newest deltas into one delta, instead of all into a raw image", 0},
        {"compress", 'z', "LEVEL", 0, "merge -d, diff -o: compress the delta's pages by zstd, 1 to 19", 0},
        {"raw", KEY_RAW, NULL, 0, "IMAGE is raw, also if it begins as a delta does", 0},
        {"buffered", KEY_BUFFERED, NULL, 0, "merge, restore: write through the page cache", 0},
        {"progress", KEY_PROGRESS, "HOW", 0,
         "How far it is, on stderr: auto (the default: a bar on a terminal, after a second), never, plain (a line each "
         "second) or bar",
         0},
        {0},
};

static uint32_t image_parse_number(struct argp_state *state, const char *option, const char *text, unsigned long least,
                                   unsigned long most)
{
	char *end;

	errno = 0;
	unsigned long value = strtoul(text, &end, 10);

	if (errno || end == text || *end || *text == '-' || value < least || value > most)
		argp_error(state, "%s takes a number from %lu to %lu, not '%s'", option, least, most, text);
	return (uint32_t)value;
}

static error_t image_take_ancestor(struct argp_state *state, struct image_command *command, const char *path)
{
	if (command->path_count == IMAGE_PATHS_MAX)
		argp_error(state, "--ancestor can be given %d times", IMAGE_PATHS_MAX);
	else
		command->paths[command->path_count++] = path;
	return 0;
}

/* How many there should be is the subcommand's to say: image_check(). */
static error_t image_take(struct image_command *command, const char *path)
{
	if (command->image_count < IMAGE_IMAGES_MAX)
		command->images[command->image_count++] = path;
	return 0;
}

static error_t image_take_progress(struct argp_state *state, struct image_command *command, const char *word)
{
	command->is_progress_given = 1;
	if (progress_parse(word, &command->progress) != 0)
		argp_error(state, "--progress takes " PROGRESS_WORDS ", not '%s'", word);
	return 0;
}

static error_t image_parse(int key, char *argument, struct argp_state *state)
{
	struct image_command *command = state->input;

	switch (key) {
	case 'a':
		return image_take_ancestor(state, command, argument);
	case 'j':
		command->json = 1;
		return 0;
	case 'o':
		if (!*argument)
			argp_error(state, "--output takes the name of a file, not ''");
		command->output = argument;
		return 0;
	case 'd':
		command->deltas = image_parse_number(state, "--deltas", argument, 1, 511);
		return 0;
	case 'z':
		command->compress = image_parse_number(state, "--compress", argument, 1, COMPRESS_MOST);
		return 0;
	case KEY_RAW:
		command->raw = 1;
		return 0;
	case KEY_BUFFERED:
		command->buffered = 1;
		return 0;
	case KEY_PROGRESS:
		return image_take_progress(state, command, argument);
	case ARGP_KEY_ARG:
		return image_take(command, argument);
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* ------------------------------------------------------------------------------------------------------- images -- */

static int image_complain(void)
{
	char text[1024] = "";
	char said[REWORD_BYTES];

	(void)uffdwp_error_text(text, sizeof(text));
	(void)fprintf(stderr, "uffdwp-ctl image: %s\n", reword(REWORD_IMAGE, text, said, sizeof(said)));
	return EXIT_BROKEN;
}

static struct uffdwp_image *image_open_number(const struct image_command *command, unsigned which)
{
	struct uffdwp_image_options options = UFFDWP_IMAGE_OPTIONS_INIT;
	struct uffdwp_image *image = NULL;

	options.flags = command->raw ? UFFDWP_IMAGE_OPEN_RAW : 0;
	options.paths = command->paths;
	options.path_count = command->path_count;
	if (uffdwp_image_open(command->images[which], &options, &image) != 0)
		(void)image_complain();
	return image;
}

static int image_report(void *user, uint64_t done_bytes, uint64_t total_bytes)
{
	progress_total(user, total_bytes);
	return progress_at(user, done_bytes);
}

/* Before a call that reads all of the image; progress_end() follows, before anything is printed. */
static void image_begin_progress(const struct image_command *command, struct uffdwp_image *image,
                                 struct progress *progress)
{
	progress_begin(progress, command->name, 0, command->progress);
	(void)uffdwp_image_progress(image, image_report, progress);
}

static int image_run_info(const struct image_command *command)
{
	struct uffdwp_image *image = image_open_number(command, 0);

	if (!image)
		return EXIT_BROKEN;
	int failed = image_print_info(image, command->json, stdout);

	(void)uffdwp_image_close(image);
	return failed ? EXIT_BROKEN : EXIT_ALL;
}

static int image_run_verify(const struct image_command *command)
{
	struct uffdwp_image_verified verified = {.sz = sizeof(verified)};
	struct uffdwp_image *image = image_open_number(command, 0);
	struct progress progress;
	char text[1024] = "";

	if (!image)
		return EXIT_BROKEN;
	image_begin_progress(command, image, &progress);
	int error = uffdwp_image_verify(image, &verified);

	progress_end(&progress);
	if (error) {
		(void)uffdwp_error_text(text, sizeof(text));
		(void)image_complain();
	}
	int failed = image_print_verified(image, &verified, error ? text : NULL, command->json, stdout);

	(void)uffdwp_image_close(image);
	return error || failed ? EXIT_BROKEN : EXIT_ALL;
}

static int image_run_merge(const struct image_command *command)
{
	struct uffdwp_image_merge_options options = UFFDWP_IMAGE_MERGE_OPTIONS_INIT;
	struct uffdwp_image *image = image_open_number(command, 0);
	struct progress progress;

	if (!image)
		return EXIT_BROKEN;
	options.deltas = command->deltas;
	options.compress = command->compress;
	options.flags = command->buffered ? UFFDWP_IMAGE_MERGE_BUFFERED : 0;
	image_begin_progress(command, image, &progress);
	int error = uffdwp_image_merge(image, command->output, &options);

	progress_end(&progress);
	int code = error ? image_complain() : EXIT_ALL;

	(void)uffdwp_image_close(image);
	return code;
}

static int image_keep_range(void *user, uint64_t offset, uint64_t length)
{
	struct image_ranges *ranges = user;

	if (ranges->count == ranges->room) {
		size_t room = ranges->room ? 2 * ranges->room : 1024;
		void *more = realloc(ranges->ranges, room * sizeof(*ranges->ranges));

		if (!more)
			return -ENOMEM;
		ranges->ranges = more;
		ranges->room = room;
	}
	ranges->ranges[ranges->count][0] = offset;
	ranges->ranges[ranges->count++][1] = length;
	return 0;
}

static uint64_t image_length_of(const struct uffdwp_image *image)
{
	struct uffdwp_image_info info = {.sz = sizeof(info)};

	(void)uffdwp_image_info(image, 0, &info); /* of an open image: it has a link 0 */
	return info.length_bytes;
}

static int image_compare(const struct image_command *command, struct uffdwp_image *from, struct uffdwp_image *to)
{
	struct uffdwp_image_diff diff = UFFDWP_IMAGE_DIFF_INIT;
	struct image_ranges ranges = {.from_bytes = image_length_of(from), .to_bytes = image_length_of(to)};
	struct progress progress;
	int code;

	diff.path = command->output;
	diff.compress = command->compress;
	diff.callback = image_keep_range;
	diff.user = &ranges;
	image_begin_progress(command, from, &progress);
	int error = uffdwp_image_diff(from, to, &diff);

	progress_end(&progress);
	if (error)
		code = image_complain();
	else if (image_print_diff(&diff, &ranges, command->json, stdout) != 0)
		code = EXIT_BROKEN;
	else
		code = image_ranges_differ(&ranges) && !command->output ? EXIT_NOTHING : EXIT_ALL;
	free(ranges.ranges);
	return code;
}

static int image_run_diff(const struct image_command *command)
{
	struct uffdwp_image *from = image_open_number(command, 0);
	struct uffdwp_image *to = from ? image_open_number(command, 1) : NULL;
	int code = to ? image_compare(command, from, to) : EXIT_BROKEN;

	(void)uffdwp_image_close(to);
	(void)uffdwp_image_close(from);
	return code;
}

/* -------------------------------------------------------------------------------------------------- subcommands -- */

enum {
	TAKES_OUTPUT = 1,
	NEEDS_OUTPUT = 2,
	TAKES_JSON = 4,
	TAKES_DELTAS = 8,
	TAKES_COMPRESS = 16,
	TAKES_BUFFERED = 32,
	TAKES_PROGRESS = 64
};

struct subcommand {
	const char *name;
	int (*run)(const struct image_command *command);
	unsigned images;
	unsigned takes;
};

static const struct subcommand subcommands[] = {
        {"info", image_run_info, 1, TAKES_JSON},
        {"verify", image_run_verify, 1, TAKES_JSON | TAKES_PROGRESS},
        {"merge", image_run_merge, 1,
         TAKES_OUTPUT | NEEDS_OUTPUT | TAKES_DELTAS | TAKES_COMPRESS | TAKES_BUFFERED | TAKES_PROGRESS},
        {"restore", image_run_merge, 1, TAKES_OUTPUT | NEEDS_OUTPUT | TAKES_BUFFERED | TAKES_PROGRESS},
        {"diff", image_run_diff, 2, TAKES_OUTPUT | TAKES_JSON | TAKES_COMPRESS | TAKES_PROGRESS},
};
#define SUBCOMMANDS (sizeof subcommands / sizeof subcommands[0])

static const char image_doc[] =
        "Looks at images of memory and at the deltas between them, checks them, and makes single files of chains. "
        "SUBCOMMAND is one of:\n"
        "  info IMAGE               what the image and its ancestors are\n"
        "  verify IMAGE             read all of them and check every byte\n"
        "  restore IMAGE -o FILE    write what the chain shows as a raw file,\n"
        "                           with holes where zeros are\n"
        "  merge IMAGE -o FILE      the same; with -d N one delta for the N newest\n"
        "  diff FROM TO [-o DELTA]  which ranges differ; or the delta between them"
        "\v"
        "A raw image is a plain file of the memory's bytes. A delta holds what was written since its parent, which is "
        "looked for beside it under the name that the delta knows, then among the files given by -a. Where several of "
        "these "
        "may be the raw image, by their length, they are read to find the right one.\n"
        "\n"
        "A result appears complete and synced under its name, or not at all; until then it is .uffdwp-PID-N.tmp in "
        "the same folder, which a command that is interrupted removes. All that goes into a result is checked, the raw "
        "image as a whole.\n"
        "\n"
        "Exit codes:\n"
        "  0  done; verify: all is whole; diff: no difference, or the delta is written\n"
        "  1  diff: they differ, if only by their lengths\n"
        "  2  the command line was not understood\n"
        "  4  it could not be done: a file is missing, damaged or not the one that is\n"
        "     meant, no room, output not writable\n"
        "\n"
        "Examples:\n"
        "  uffdwp-ctl image info monday.delta\n"
        "  uffdwp-ctl image verify --json monday.delta | jq .whole\n"
        "  uffdwp-ctl image restore monday.delta -o monday.raw\n"
        "  uffdwp-ctl image merge -d 7 -z 3 sunday.delta -o week.delta\n"
        "  uffdwp-ctl image diff before.raw after.raw -o change.delta\n";

static const struct subcommand *image_find_subcommand(const char *name)
{
	for (size_t i = 0; i < SUBCOMMANDS; i++) {
		if (strcmp(subcommands[i].name, name) == 0)
			return &subcommands[i];
	}
	return NULL;
}

/* `name` is a subcommand's, or NULL: there is none. */
__attribute__((format(printf, 2, 3))) static int image_refuse(const char *name, const char *format, ...)
{
	char what[IMAGE_LINE];
	char plain[4 * IMAGE_LINE];
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(what, sizeof(what), format, arguments);
	va_end(arguments);
	(void)escape_text(plain, sizeof(plain), what, 0);
	(void)fprintf(stderr, "uffdwp-ctl image%s%s: %s\nTry `uffdwp-ctl image --help' for more information.\n",
	              name ? " " : "", name ? name : "", plain);
	return EXIT_USAGE;
}

static int image_refuse_count(const struct subcommand *subcommand, const struct image_command *command)
{
	const char *name = subcommand->name;
	unsigned images = subcommand->images;

	if (command->image_count > images && images == 2)
		return image_refuse(name, "'%s' is one image too many: it compares two, FROM and TO",
		                    command->images[images]);
	if (command->image_count > images)
		return image_refuse(
		        name,
		        "'%s' is one image too many: it takes one image, the newest of a chain, whose ancestors "
		        "are found by the names in it or by --ancestor=FILE; other images take a command each",
		        command->images[images]);
	if (images == 2)
		return image_refuse(name, "%s is missing: it takes two images, uffdwp-ctl image %s FROM TO",
		                    command->image_count ? "TO" : "FROM", name);
	return image_refuse(name, "IMAGE is missing: it takes one image, uffdwp-ctl image %s IMAGE%s", name,
	                    subcommand->takes & NEEDS_OUTPUT ? " -o FILE" : "");
}

/* 0, or an exit code after a complaint: before anything is opened. */
static int image_check(const struct subcommand *subcommand, const struct image_command *command)
{
	const char *name = subcommand->name;
	unsigned takes = subcommand->takes;

	if (command->image_count != subcommand->images)
		return image_refuse_count(subcommand, command);
	if ((takes & NEEDS_OUTPUT) && !command->output)
		return image_refuse(name, "where the result goes is missing: -o FILE");
	if (command->output && !(takes & TAKES_OUTPUT))
		return image_refuse(name, "it writes no file: --output is not for it");
	if (command->json && !(takes & TAKES_JSON))
		return image_refuse(name, "--json is for info, verify and diff");
	if (command->deltas && !(takes & TAKES_DELTAS))
		return image_refuse(name, "--deltas is for merge");
	if (command->buffered && !(takes & TAKES_BUFFERED))
		return image_refuse(name, "--buffered is for merge and restore");
	if (command->is_progress_given && !(takes & TAKES_PROGRESS))
		return image_refuse(name, "--progress is for verify, merge, restore and diff");
	if (command->compress && !((takes & TAKES_COMPRESS) && (command->deltas || (takes & TAKES_JSON))))
		return image_refuse(name, "only deltas are compressed: --compress is for merge -d and diff -o");
	if (command->compress && !command->output)
		return image_refuse(name, "--compress needs a delta to write: -o FILE");
	return 0;
}

/* The first word is the subcommand, the rest are its images. */
int run_image(int argc, char **argv)
{
	static const struct argp argp = {image_options, image_parse, "SUBCOMMAND IMAGE...", image_doc, NULL,
	                                 NULL,          NULL};
	static struct image_command command;
	const struct subcommand *subcommand = argc > 1 ? image_find_subcommand(argv[1]) : NULL;

	if (argc > 1 && !subcommand && argv[1][0] != '-')
		return image_refuse(NULL, "'%s' is no subcommand: " IMAGE_SUBCOMMANDS, argv[1]);
	if (subcommand) {
		argv[1] = argv[0];
		argc--;
		argv++;
	}
	if (argp_parse(&argp, argc, argv, 0, NULL, &command) != 0)
		return EXIT_USAGE;
	if (!subcommand)
		return argc > 1 ? image_refuse(NULL, "'%s' stands where the subcommand does, first: " IMAGE_SUBCOMMANDS,
		                               argv[1])
		                : image_refuse(NULL, "a subcommand is missing: " IMAGE_SUBCOMMANDS);
	command.name = subcommand->name;
	int code = image_check(subcommand, &command);

	return code ? code : subcommand->run(&command);
}
