/* SPDX-License-Identifier: MIT */
/* See reword.h. No state and no memory of its own: what is preloaded into programs uses it, too. */
#include "reword.h"

#include <string.h>

#define REWORD_RUNS (REWORD_LIVE | REWORD_SERVE)
#define REWORD_ALL (REWORD_LIVE | REWORD_IMAGE | REWORD_SERVE | REWORD_FORK)

/* What is longer comes before what it begins with. */
static const struct {
	unsigned reader;
	const char *from;
	const char *to;
} reword_table[] = {
        /* Something of the region is under way. */
        {REWORD_LIVE, "a snapshot of this region has not been freed: uffdwp_snapshot_free()",
         "another snapshot of this region is under way, or the program keeps one that has ended: wait for it, or end "
         "it by uffdwp-ctl abort"},
        {REWORD_SERVE, "a snapshot of this region has not been freed: uffdwp_snapshot_free()",
         "a snapshot of this memory is under way: ask by \"wait\" until it has ended"},
        {REWORD_FORK, "has not been freed: uffdwp_snapshot_free()", "is under way"},
        {REWORD_RUNS, "has not been freed: uffdwp_restore_free()",
         "is under way, or the program keeps one that has ended: wait for it"},
        {REWORD_FORK, "has not been freed: uffdwp_restore_free()", "is under way"},
        {REWORD_ALL, "has this region: uffdwp_view_close(), or wait for the child",
         "has this region: wait for its end"},
        {REWORD_ALL, "a view of this region is open: uffdwp_view_close()", "the program has a view of this region"},
        {REWORD_ALL, "a track watches this region: uffdwp_track_remove() or uffdwp_track_stop()",
         "a track of the program's watches this region"},
        {REWORD_SERVE, "or it is protected for the next increment: uffdwp_region_disarm()",
         "or it is protected for the next delta: join before the first snapshot with \"keep\""},
        {REWORD_LIVE, ": close it", ": the program has to close it"},

        /* Snapshots. */
        {REWORD_LIVE, "ask for UFFDWP_ARMING_ROUNDS", "--arming=rounds does without"},
        {REWORD_LIVE, "open the region by AUTO, UFFDWP_MECHANISM_MARKER or UFFDWP_MECHANISM_REARM",
         "the program would have to open the region by mechanism auto, marker or rearm; --arming=rounds does without"},
        {REWORD_LIVE, "it needs the file of the mapping: attach with its fd",
         "it needs the file of the mapping, which the program did not name; --arming=rounds does without"},
        {REWORD_LIVE, "take a snapshot of all first, with UFFDWP_SNAPSHOT_KEEP",
         "take one without --parent first, with --keep"},
        {REWORD_SERVE, "take a snapshot of all first, with UFFDWP_SNAPSHOT_KEEP",
         "take one without \"parent\" first, with \"keep\""},
        {REWORD_LIVE, "take snapshots of all, without a parent", "take snapshots without --parent"},
        {REWORD_LIVE, "take a snapshot without a parent", "take one without --parent"},
        {REWORD_LIVE, "name the image of the region's last snapshot",
         "--parent takes the image of the region's last snapshot"},
        {REWORD_RUNS, "content was discarded outside of the library: use uffdwp_region_punch(); or something",
         "the program discarded content without the library, and has to be changed for that; or something"},
        {REWORD_RUNS, "punch or restore the region before", "the program has to restore or discard it before"},
        {REWORD_LIVE,
         "the sink took too long, and a writer waited for pool memory longer than wait_ns: raise wait_ns or "
         "pool_bytes, or use a faster sink",
         "writing the image took too long, and a thread of the program waited too long for memory of the pool: give a "
         "larger --pool, no --rate, or a faster disk"},
        {REWORD_SERVE,
         "the sink took too long, and a writer waited for pool memory longer than wait_ns: raise wait_ns or "
         "pool_bytes, or use a faster sink",
         "writing the image took too long, and a thread of the client waited too long for memory of the pool: give "
         "serve a larger --pool, or a faster disk"},
        {REWORD_RUNS, "raise pool_bytes or use a faster sink", "give a larger --pool, or a faster disk"},
        {REWORD_RUNS, "raise pool_bytes or vm.max_map_count", "give a larger --pool, or raise vm.max_map_count"},
        {REWORD_RUNS, "lower pool_bytes", "give a smaller --pool"},
        {REWORD_RUNS, "pool_bytes", "--pool"},
        {REWORD_LIVE, "rate_bytes", "--rate"},
        {REWORD_LIVE | REWORD_IMAGE, "compress is ", "--compress is "},
        {REWORD_LIVE | REWORD_IMAGE | REWORD_SERVE, "use the stream sink for devices and pipes",
         "an image goes to a file, not to a device or a pipe"},
        {REWORD_LIVE | REWORD_IMAGE | REWORD_SERVE, "use the stream sink", "an image goes to a file with a name"},

        /* Rights, and lists of the control socket. */
        {REWORD_LIVE, "in UFFDWP_CONTROL, or in the options' control",
         "in the program's environment, UFFDWP_CONTROL=look,snapshot,arm, or where it opens its runtime"},
        {REWORD_LIVE, "\"stat\" lists those that do", "uffdwp-ctl stat shows those that do"},
        {REWORD_LIVE, "\"list\" names those that there are", "uffdwp-ctl list shows those that there are"},

        /* Images, and their restores. */
        {REWORD_ALL, " (UFFDWP_ZSTD)", ""},
        {REWORD_IMAGE, "put it there or name its path", "put it there, or name its path by --ancestor=FILE"},
        {REWORD_SERVE, "are punched (uffdwp_region_punch()) or", "are discarded or"},
        {REWORD_SERVE, "leave UFFDWP_MAPPER_REGISTERED out", "leave \"registered\" out"},
        {REWORD_SERVE, "huge_page_bytes of the options is", "\"page_size\" is"},
        {REWORD_SERVE, ": ask for UFFDWP_DELIVERY_THREAD", ""},
        {REWORD_SERVE, "could not raise SIGBUS: ask for UFFDWP_DELIVERY_INLINE when the region is made",
         "could not raise SIGBUS"},

        /* Programs and their environment. */
        {REWORD_ALL, "one that closes what it did not open has to do so before uffdwp_open()",
         "one that closes what it did not open has to do so before it begins to use the library"},
        {REWORD_FORK, "ask for UFFDWP_DELIVERY_THREAD or _AUTO", "take --delivery=thread"},
        {REWORD_FORK, "ask for UFFDWP_DELIVERY_INLINE or _AUTO", "take --delivery=inline"},
        {REWORD_FORK, "ask for UFFDWP_DELIVERY_THREAD", "take --delivery=thread"},
};
#define REWORD_ROWS (sizeof(reword_table) / sizeof(reword_table[0]))

/* The row whose words stand here; REWORD_ROWS: none. */
static size_t reword_find(enum reword_for reader, const char *at)
{
	size_t row = 0;

	while (row < REWORD_ROWS && (!(reword_table[row].reader & (unsigned)reader) ||
	                             strncmp(at, reword_table[row].from, strlen(reword_table[row].from)) != 0))
		row++;
	return row;
}

const char *reword(enum reword_for reader, const char *text, char *buffer, size_t size)
{
	size_t used = 0;

	while (*text && used + 1 < size) {
		size_t row = reword_find(reader, text);
		const char *from = row < REWORD_ROWS ? reword_table[row].to : text;
		size_t length = row < REWORD_ROWS ? strlen(from) : 1;

		length = length < size - 1 - used ? length : size - 1 - used;
		memcpy(buffer + used, from, length);
		used += length;
		text += row < REWORD_ROWS ? strlen(reword_table[row].from) : 1;
	}
	buffer[used] = '\0';
	return buffer;
}
