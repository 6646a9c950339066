/* SPDX-License-Identifier: MIT */
/* See track_actors.h. */
#include "track_actors.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernel/abi.h"
#include "pace.h"
#include "place.h"
#include "support.h"

#ifndef MADV_COLLAPSE /* 6.1 */
#define MADV_COLLAPSE 25
#endif

#define SOURCE_BYTES ((size_t)1 << 18)
#define RUN_MOST 24 /* pages that a deed is done to */
#define COPY_PAGES 3
#define PIECE_MOST ((size_t)1 << 16)
#define FORK_ONE_IN 24
#define ANNOUNCED_ONE_IN 16
#define TIME_LIMIT_S 5

const char *deed_name(enum deed deed)
{
	static const char *const names[DEED_COUNT] = {"dontneed", "free",    "pageout", "collapse", "mprotect",
	                                              "move",     "replace", "punch",   "fork",     "thread"};
	return names[deed];
}

/* For people: see judge_note(), and UFFDWP_TRACK_DEEDS. */
static char deed_letter(enum deed deed)
{
	return "DFSCPMRHKT"[deed];
}

/* The deeds that are left by UFFDWP_TRACK_DEEDS: `a` is the changer. */
static int is_left_in(char letter)
{
	const char *letters = getenv("UFFDWP_TRACK_DEEDS");
	return letters == NULL || strchr(letters, letter) != NULL;
}

void actors_open(struct actors *actors, struct field *field, struct judge *judge)
{
	static uint8_t bytes[SOURCE_BYTES];
	struct chance chance = chance_new(77);
	memset(actors, 0, sizeof(*actors));
	actors->field = field;
	actors->judge = judge;
	lock_for_writers_init(&actors->cut_lock);
	must(pthread_mutex_init(&actors->space_lock, NULL) == 0);
	for (size_t i = 0; i < sizeof(bytes); i++) {
		bytes[i] = (uint8_t)(chance_next(&chance) | 1);
	}
	actors->source = memfd_create("source", MFD_CLOEXEC);
	must(actors->source >= 0 && write(actors->source, bytes, sizeof(bytes)) == (ssize_t)sizeof(bytes));
}

void actors_close(struct actors *actors)
{
	close(actors->source);
	must(pthread_rwlock_destroy(&actors->cut_lock) == 0);
	must(pthread_mutex_destroy(&actors->space_lock) == 0);
}

/* --- writers ------------------------------------------------------------------------------------------------------ */

static size_t random_word(const struct field *field, struct chance *chance)
{
	return chance_below(chance, field->page_bytes / 8) * 8;
}

/* Bytes of which none is zero. */
static void fill(struct chance *chance, uint8_t *bytes, size_t length)
{
	chance_fill(chance, bytes, length);
	for (size_t i = 0; i < length; i++) {
		bytes[i] |= 1;
	}
}

static void store_word(struct field *field, struct chance *chance, size_t page)
{
	*(volatile uint64_t *)(void *)(field_address(field, page) + random_word(field, chance)) =
	        chance_next(chance) | 1;
}

static void change_atomically(struct field *field, struct chance *chance, size_t page)
{
	uint64_t *word = (uint64_t *)(void *)(field_address(field, page) + random_word(field, chance));
	uint64_t value = chance_next(chance) | 1;
	switch (chance_below(chance, 3)) {
	case 0:
		(void)__atomic_fetch_or(word, value, __ATOMIC_SEQ_CST);
		break;
	case 1:
		(void)__atomic_exchange_n(word, value, __ATOMIC_RELAXED);
		break;
	default: {
		uint64_t before = __atomic_load_n(word, __ATOMIC_RELAXED);
		while (!__atomic_compare_exchange_n(word, &before, value, 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
		}
	}
	}
}

/* What is written at once of a page: not all of a huge one. */
static size_t piece_bytes(const struct field *field)
{
	return field->page_bytes < PIECE_MOST ? field->page_bytes : PIECE_MOST;
}

/* A length that reaches into each of the pages, if it begins at `from` in the first. */
static size_t random_length(const struct field *field, struct chance *chance, size_t from, size_t pages)
{
	size_t piece = piece_bytes(field);
	size_t least = pages == 1 ? 1 : (pages - 1) * piece - from + 1;
	return least + chance_below(chance, pages * piece - from - least + 1);
}

static void copy_over(struct field *field, struct chance *chance, size_t page, size_t pages)
{
	static _Thread_local uint8_t bytes[COPY_PAGES * PIECE_MOST];
	size_t from = chance_below(chance, piece_bytes(field));
	size_t length = random_length(field, chance, from, pages);
	fill(chance, bytes, 8);
	memset(bytes, bytes[0], length);
	memcpy(field_address(field, page) + from, bytes, length);
}

static void read_into(struct actors *actors, struct chance *chance, size_t page, size_t pages)
{
	size_t length = random_length(actors->field, chance, 0, pages);
	off_t offset = (off_t)chance_below(chance, SOURCE_BYTES - length);
	must(pread(actors->source, field_address(actors->field, page), length, offset) == (ssize_t)length);
	atomic_fetch_add_explicit(&actors->by_system_calls, 1, memory_order_relaxed);
}

/* A writer that says what it is about to write: that write, and those of others beside it, must be reported as any. */
static void announce(struct actors *actors, size_t page, size_t pages)
{
	struct field *field = actors->field;
	uint64_t start = (uintptr_t)field_address(field, page);
	struct uffdwp_written range = {start, start + pages * field->page_bytes, 0};
	must(uffdwp_track_prepare(field->track, &range, 1) == 0);
}

static void write_pages(struct actors *actors, struct chance *chance, size_t page, size_t pages)
{
	struct field *field = actors->field;
	size_t kind = chance_below(chance, 16);
	if (kind == 0 && field_system_calls_work(field)) {
		read_into(actors, chance, page, pages);
	} else if (pages > 1 || kind < 3) {
		copy_over(field, chance, page, pages);
	} else if (kind < 7) {
		change_atomically(field, chance, page);
	} else {
		store_word(field, chance, page);
	}
}

/* The first page of a block's own, and how many of them. */
static size_t random_run(const struct field *field, struct chance *chance, size_t most, size_t *pages)
{
	size_t block = chance_below(chance, field->blocks);
	size_t first = chance_below(chance, field->block_pages);
	size_t room = field->block_pages - first;
	*pages = 1 + chance_below(chance, room < most ? room : most);
	return block * field->block_pages + first;
}

void actor_write(struct actors *actors, struct chance *chance, size_t role)
{
	struct field *field = actors->field;
	size_t pages = 1;
	size_t page = random_run(field, chance, chance_below(chance, 8) == 0 ? COPY_PAGES : 1, &pages);
	must(pthread_rwlock_rdlock(&actors->cut_lock) == 0);
	field_share(field, field_block(field, page));
	for (size_t i = 0; i < pages; i++) {
		judge_begin(actors->judge, role, page + i);
	}
	if (chance_below(chance, ANNOUNCED_ONE_IN) == 0) {
		announce(actors, page, pages);
	}
	write_pages(actors, chance, page, pages);
	for (size_t i = 0; i < pages; i++) {
		judge_end(actors->judge, role, page + i);
	}
	field_leave(field, field_block(field, page));
	must(pthread_rwlock_unlock(&actors->cut_lock) == 0);
	atomic_fetch_add_explicit(&actors->writes, 1, memory_order_relaxed);
}

/* --- changer ------------------------------------------------------------------------------------------------------ */

static void count_as_written(struct actors *actors, size_t role, size_t page, size_t pages, int is_done)
{
	for (size_t i = page; i < page + pages; i++) {
		if (is_done) {
			judge_end(actors->judge, role, i);
		} else {
			judge_begin(actors->judge, role, i);
		}
	}
}

/* 1: memory that is not there is not reported, and is zeros. */
static int leaves_out_holes(const struct field *field)
{
	return field_is_private(field) && (field->method->flags & UFFDWP_TRACK_START_POPULATED) != 0;
}

/* What is added counts as written. `may_be_busy`: 1 where the track may have followed the kernel and have it already.
 */
static void add(struct actors *actors, size_t role, size_t page, size_t pages)
{
	struct field *field = actors->field;
	size_t written = leaves_out_holes(field) ? 0 : pages;
	count_as_written(actors, role, page, written, 0);
	int error = uffdwp_track_add(field->track, field_address(field, page), pages * field->page_bytes, 0);
	if (error != 0) {
		char text[256] = "";
		(void)uffdwp_error_text(text, sizeof(text));
		fprintf(stderr, "adding pages %zu to %zu: %s: %s\n", page, page + pages, strerror(-error), text);
		must(error == 0);
	}
	count_as_written(actors, role, page, written, 1);
	judge_note(actors->judge, page, pages, 'a');
	judge_watch(actors->judge, page, pages);
	atomic_fetch_add_explicit(&actors->adds, 1, memory_order_relaxed);
}

static void add_clean(struct actors *actors, size_t page, size_t pages)
{
	struct field *field = actors->field;
	must(uffdwp_track_add(field->track, field_address(field, page), pages * field->page_bytes,
	                      UFFDWP_TRACK_ADD_CLEAN) == 0);
	judge_excuse(actors->judge, page, pages);
	judge_note(actors->judge, page, pages, 'c');
	judge_watch(actors->judge, page, pages);
	atomic_fetch_add_explicit(&actors->adds, 1, memory_order_relaxed);
}

static void take_out(struct actors *actors, size_t page, size_t pages)
{
	struct field *field = actors->field;
	judge_unwatch(actors->judge, page, pages);
	judge_note(actors->judge, page, pages, 'r');
	int error = uffdwp_track_remove(field->track, field_address(field, page), pages * field->page_bytes);
	/* A region hears in a thread of the library where it was moved to. */
	for (unsigned i = 0; i < pace_seconds(TIME_LIMIT_S) * 1000 && error == -ENOENT && !field_is_async(field); i++) {
		sleep_us(1000);
		error = uffdwp_track_remove(field->track, field_address(field, page), pages * field->page_bytes);
	}
	if (error != 0) {
		fprintf(stderr, "removing pages %zu to %zu: %s\n", page, page + pages, strerror(-error));
		must(error == 0);
	}
	atomic_fetch_add_explicit(&actors->removes, 1, memory_order_relaxed);
}

/* As many of the pages as are tracked or untracked as the first one is. */
static size_t alike(const struct actors *actors, size_t page, size_t pages)
{
	size_t count = 1;
	while (count < pages && judge_watches(actors->judge, page + count) == judge_watches(actors->judge, page)) {
		count++;
	}
	return count;
}

/* Regions are added and removed whole. Half of what is removed would soon be all: what is out is added first. */
void actor_change(struct actors *actors, struct chance *chance)
{
	struct field *field = actors->field;
	size_t pages = 0;
	size_t page = random_run(field, chance, field->block_pages, &pages);
	if (!is_left_in('a')) {
		return;
	}
	if (!field_is_async(field)) {
		page = field_block(field, page) * field->block_pages;
		pages = field->block_pages;
	}
	must(pthread_mutex_lock(&actors->space_lock) == 0);
	field_share(field, field_block(field, page));
	pages = alike(actors, page, pages);
	if (judge_watches(actors->judge, page)) {
		take_out(actors, page, pages);
	} else if (chance_below(chance, 3) == 0) {
		add_clean(actors, page, pages);
	} else {
		add(actors, STAGE_CHANGER, page, pages);
	}
	field_leave(field, field_block(field, page));
	must(pthread_mutex_unlock(&actors->space_lock) == 0);
}

/* --- spoiler ------------------------------------------------------------------------------------------------------ */

/* The kernel does not report what it discards. */
static int sees_discards(const struct field *field)
{
	return field->method->mechanism != UFFDWP_MECHANISM_MPROTECT &&
	       field->method->mechanism != UFFDWP_MECHANISM_SOFT_DIRTY;
}

static int is_hugetlb(const struct field *field)
{
	return field->memory == FIELD_HUGETLB || field->memory == FIELD_REGION_HUGETLB;
}

static int may_do(const struct actors *actors, enum deed deed)
{
	const struct field *field = actors->field;
	switch (deed) {
	case DEED_DONTNEED:
		if (is_hugetlb(field)) {
			return !actors->snapshots && place_takes_dontneed(UFFDWP_MEMORY_HUGETLB);
		}
		return !field_is_private(field) || (sees_discards(field) && !actors->snapshots);
	case DEED_FREE:
		return field_is_private(field) && sees_discards(field) && !actors->snapshots;
	case DEED_PAGEOUT:
		return !is_hugetlb(field) && (support_has_swap() || field->memory == FIELD_FILE);
	case DEED_COLLAPSE:
		return field->memory == FIELD_THP;
	case DEED_MPROTECT:
		return sees_discards(field);
	case DEED_MOVE:
		return field_may_move(field);
	case DEED_REPLACE:
		return field_may_move(field) && field_is_async(field) && field->memory != FIELD_SHARED;
	case DEED_PUNCH:
		return field->region != NULL;
	default:
		return 1;
	}
}

/* The content of private memory goes: by default that counts as a write. */
static int discard(struct actors *actors, size_t page, size_t pages)
{
	struct field *field = actors->field;
	int is_written = field_is_private(field) && !leaves_out_holes(field);
	if (is_written) {
		count_as_written(actors, STAGE_SPOILER, page, pages, 0);
	}
	int result = madvise(field_address(field, page), pages * field->page_bytes, MADV_DONTNEED);
	if (is_written) {
		count_as_written(actors, STAGE_SPOILER, page, pages, 1);
	} else if (field_is_private(field)) {
		judge_may_zero(actors->judge, page, pages);
		judge_excuse(actors->judge, page, pages);
	}
	return result;
}

void actors_write_all(struct actors *actors, struct chance *chance)
{
	for (size_t page = 0; page < actors->field->pages; page++) {
		count_as_written(actors, STAGE_SPOILER, page, 1, 0);
		change_atomically(actors->field, chance, page);
		count_as_written(actors, STAGE_SPOILER, page, 1, 1);
	}
}

/* The content goes when the kernel likes, if no thread writes before. */
static int free_lazily(struct actors *actors, size_t page, size_t pages)
{
	struct field *field = actors->field;
	uint8_t *start = field_address(field, page);
	judge_may_zero(actors->judge, page, pages);
	int result = madvise(start, pages * field->page_bytes, MADV_FREE);
	(void)madvise(start, pages * field->page_bytes, MADV_PAGEOUT);
	if (leaves_out_holes(field)) {
		judge_excuse(actors->judge, page, pages);
	}
	return result;
}

/* What was punched is written at once: a snapshot cannot know what a page of zeros is that was only read. */
static int punch(struct actors *actors, struct chance *chance, size_t page)
{
	struct field *field = actors->field;
	count_as_written(actors, STAGE_SPOILER, page, 1, 0);
	int result = uffdwp_region_punch(field->region, page * field->page_bytes, field->page_bytes);
	if (result == -EOPNOTSUPP) { /* attached shared memory */
		result = 0;
	}
	store_word(field, chance, page);
	count_as_written(actors, STAGE_SPOILER, page, 1, 1);
	return result;
}

/* Beside all accesses. */
static int do_to_pages(struct actors *actors, enum deed deed, struct chance *chance, size_t page, size_t pages)
{
	struct field *field = actors->field;
	uint8_t *start = field_address(field, page);
	size_t length = pages * field->page_bytes;
	switch (deed) {
	case DEED_DONTNEED:
		return discard(actors, page, pages);
	case DEED_FREE:
		return free_lazily(actors, page, pages);
	case DEED_PAGEOUT:
		return madvise(start, length, MADV_PAGEOUT);
	case DEED_COLLAPSE:
		start = field_address(field, field_block(field, page) * field->block_pages);
		return madvise(start, field->block_bytes, MADV_COLLAPSE);
	default:
		return punch(actors, chance, page);
	}
}

static int protect_and_back(struct actors *actors, size_t page, size_t pages)
{
	struct field *field = actors->field;
	uint8_t *start = field_address(field, page);
	must(mprotect(start, pages * field->page_bytes, PROT_READ) == 0);
	(void)*(volatile uint8_t *)start;
	must(mprotect(start, pages * field->page_bytes, PROT_READ | PROT_WRITE) == 0);
	return 0;
}

/* Only what is tracked or untracked as a whole: among several mappings the kernel may move some and refuse the rest. */
static int move(struct actors *actors, size_t page)
{
	struct field *field = actors->field;
	size_t first = field_block(field, page) * field->block_pages;
	if (alike(actors, first, field->block_pages) != field->block_pages) {
		return -EAGAIN;
	}
	int result = field_move(field, field_block(field, page));
	judge_note(actors->judge, first, field->block_pages, 'M');
	if (!field_is_async(field)) {
		judge_allow_delay(actors->judge, first, field->block_pages);
	}
	return result;
}

static void map_again(struct field *field, size_t page, uint8_t *start, size_t length)
{
	int flags = field->fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
	off_t offset = field->fd < 0 ? 0 : (off_t)(page * field->page_bytes);
	must(mmap(start, length, PROT_READ | PROT_WRITE, flags | MAP_FIXED_NOREPLACE, field->fd, offset) == start);
	(void)madvise(start, length, field->memory == FIELD_THP ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
}

/* The end of a block is unmapped, and comes back: as a new mapping, or because what is before it grows. */
static int replace(struct actors *actors, struct chance *chance, size_t page)
{
	struct field *field = actors->field;
	size_t block = field_block(field, page) * field->block_pages;
	size_t pages = block + field->block_pages - page;
	size_t length = pages * field->page_bytes;
	uint8_t *start = field_address(field, page);
	for (size_t i = page; i < page + pages; i++) {
		if (judge_watches(actors->judge, i)) {
			judge_unwatch(actors->judge, i, 1);
		}
	}
	must(munmap(start, length) == 0);
	judge_note(actors->judge, page, pages, 'R');
	int grows = page != block && chance_below(chance, 2) == 0;
	size_t before = (page - block) * field->page_bytes;
	if (!grows || mremap(start - before, before, before + length, 0) == MAP_FAILED) {
		grows = 0;
		map_again(field, page, start, length);
	}
	if (leaves_out_holes(field)) {
		judge_may_zero(actors->judge, page, pages);
		judge_excuse(actors->judge, page, pages);
	}
	/* What grew is registered by the kernel, and what the track had there may have lived on. */
	if (grows) {
		int error = uffdwp_track_remove(field->track, start, length);
		must(error == 0 || error == -ENOENT);
	}
	add(actors, STAGE_SPOILER, page, pages);
	return 0;
}

/* While no other thread is in the block. */
static int do_to_block(struct actors *actors, enum deed deed, struct chance *chance, size_t page, size_t pages)
{
	switch (deed) {
	case DEED_MPROTECT:
		return protect_and_back(actors, page, pages);
	case DEED_MOVE:
		return move(actors, page);
	default:
		return replace(actors, chance, page);
	}
}

/* In private memory the child writes to its own copy. It does nothing that a child of threads may not do. */
static void be_child(struct field *field, size_t page, size_t pages)
{
	for (size_t i = page; i < page + pages && field_is_private(field); i++) {
		*(volatile uint64_t *)(void *)field_address(field, i) = i | 1;
	}
	_exit(0);
}

static int fork_child(struct actors *actors, size_t page, size_t pages)
{
	pid_t child = fork();
	if (child == 0) {
		be_child(actors->field, page, pages);
	}
	int status = -1;
	must(child > 0 && waitpid(child, &status, 0) == child);
	if (status != 0) {
		fprintf(stderr, "a child that wrote to its own copy ended with %#x\n", (unsigned)status);
	}
	must(status == 0);
	return 0;
}

struct visit {
	struct actors *actors;
	struct chance chance;
};

static void *visit(void *argument)
{
	struct visit *one = argument;
	for (unsigned i = 0; i < 8; i++) {
		actor_write(one->actors, &one->chance, STAGE_VISITOR);
	}
	return NULL;
}

static int run_thread(struct actors *actors, struct chance *chance)
{
	struct visit one = {actors, {chance_next(chance)}};
	must(pthread_mutex_lock(&actors->space_lock) == 0);
	pthread_t thread = thread_start(visit, &one);
	must(pthread_mutex_unlock(&actors->space_lock) == 0);
	thread_join(thread);
	return 0;
}

static int do_alone(struct actors *actors, enum deed deed, struct chance *chance, size_t page, size_t pages)
{
	struct field *field = actors->field;
	must(pthread_mutex_lock(&actors->space_lock) == 0);
	size_t block = field_block(field, page) * field->block_pages;
	field_take(field, field_block(field, page));
	judge_stir(actors->judge, block, field->block_pages);
	int result = do_to_block(actors, deed, chance, page, pages);
	judge_stir(actors->judge, block, field->block_pages);
	field_leave(field, field_block(field, page));
	must(pthread_mutex_unlock(&actors->space_lock) == 0);
	return result;
}

static int do_beside(struct actors *actors, enum deed deed, struct chance *chance, size_t page, size_t pages)
{
	struct field *field = actors->field;
	must(pthread_rwlock_rdlock(&actors->cut_lock) == 0);
	field_share(field, field_block(field, page));
	size_t first = deed == DEED_COLLAPSE ? field_block(field, page) * field->block_pages : page;
	size_t count = deed == DEED_COLLAPSE ? field->block_pages : pages;
	judge_stir(actors->judge, first, count);
	int result = do_to_pages(actors, deed, chance, page, pages);
	if (!field_is_async(field)) {
		judge_allow_delay(actors->judge, first, count);
	}
	judge_stir(actors->judge, first, count);
	field_leave(field, field_block(field, page));
	must(pthread_rwlock_unlock(&actors->cut_lock) == 0);
	return result;
}

/* The kernel may refuse any of it: then it was not done. */
void actor_spoil(struct actors *actors, struct chance *chance)
{
	enum deed deed = (enum deed)chance_below(chance, DEED_COUNT);
	size_t pages = 0;
	size_t page = random_run(actors->field, chance, RUN_MOST, &pages);
	int result = 0;
	if (!may_do(actors, deed) || !is_left_in(deed_letter(deed)) ||
	    (deed == DEED_FORK && chance_below(chance, FORK_ONE_IN) != 0)) {
		return;
	}
	if (deed != DEED_MOVE && deed != DEED_REPLACE) {
		judge_note(actors->judge, page, pages, deed_letter(deed));
	}
	if (deed == DEED_FORK) {
		result = fork_child(actors, page, pages);
	} else if (deed == DEED_THREAD) {
		result = run_thread(actors, chance);
	} else if (deed == DEED_MPROTECT || deed == DEED_MOVE || deed == DEED_REPLACE) {
		result = do_alone(actors, deed, chance, page, pages);
	} else {
		result = do_beside(actors, deed, chance, page, pages);
	}
	if (result == 0) {
		atomic_fetch_add_explicit(&actors->deeds[deed], 1, memory_order_relaxed);
	}
}
