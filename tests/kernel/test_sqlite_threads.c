/* SPDX-License-Identifier: MIT */
/*
 * Connections of the SQLite extension in several threads, each of which must get the answer that is its own: the end of
 * the snapshot that it began, and the time that it asked to be waited.
 */
#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <sqlite3.h>

#include "extension.h"
#include "scratch.h"
#include "support.h"

static char folder[SCRATCH_PATH];

static sqlite3 *open_bank(int timeout_ms)
{
	sqlite3 *db = NULL;
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI;
	must(sqlite3_open_v2("file:bank?vfs=uffdwp", &db, flags, NULL) == SQLITE_OK);
	sqlite3_busy_timeout(db, timeout_ms);
	return db;
}

static int run(sqlite3 *db, const char *sql)
{
	return sqlite3_exec(db, sql, NULL, NULL, NULL);
}

static void good(sqlite3 *db, const char *sql)
{
	int result = run(db, sql);
	ck_assert_msg(result == SQLITE_OK, "%s: %s", sql, sqlite3_errmsg(db));
}

static void setup(void)
{
	extension_load(folder);
}

/* ---- whose snapshot it is ---- */

#define SAVERS 3
#define FAILURES support_rounds(40, 1000)

static _Atomic int stop;

/* Waits until no snapshot of another thread runs. The first column of the row, or "" and the error. */
static int save(sqlite3 *db, const char *sql, char *text, size_t size)
{
	sqlite3_stmt *statement = NULL;
	int result;
	text[0] = 0;
	do {
		must(sqlite3_prepare_v2(db, sql, -1, &statement, NULL) == SQLITE_OK);
		result = sqlite3_step(statement);
		if (result == SQLITE_ROW)
			(void)snprintf(text, size, "%s", (const char *)sqlite3_column_text(statement, 0));
		sqlite3_finalize(statement);
		if (result == SQLITE_BUSY)
			sleep_us(100);
	} while (result == SQLITE_BUSY);
	return result;
}

/* Saves where there is room, by turns with a wait for the end and without. */
static void *save_well(void *argument)
{
	static const char *const hows[] = {"wait", ""};
	const char *name = argument;
	char sql[128];
	char text[128];
	sqlite3 *db = open_bank(20000);
	for (unsigned i = 0; !stop; i++) {
		(void)snprintf(sql, sizeof(sql), "SELECT uffdwp_snapshot('%s', '%s') ->> 'path'", name, hows[i % 2]);
		must(save(db, sql, text, sizeof(text)) == SQLITE_ROW);
		must(strcmp(text, name) == 0);
	}
	sqlite3_close(db);
	return NULL;
}

/* A file system of 64 KiB; all threads of this process have it. 0: not here. */
static int mount_small(const char *name)
{
	must(mkdir(name, 0700) == 0);
	return unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount("tmpfs", name, "tmpfs", 0, "size=64k") == 0;
}

/* One processor for this thread and those that it starts: they come between any two steps of each other. */
static void share_a_processor(void)
{
	cpu_set_t one;
	CPU_ZERO(&one);
	CPU_SET((size_t)sched_getcpu(), &one);
	must(sched_setaffinity(0, sizeof(one), &one) == 0);
}

START_TEST(test_snapshot_that_is_waited_for_fails_by_its_own_end)
{
	static char names[SAVERS][16];
	pthread_t savers[SAVERS];
	char text[256];
	if (!mount_small("small")) {
		support_note("test_snapshot_that_is_waited_for_fails_by_its_own_end", strerror(errno));
		return;
	}
	share_a_processor();
	sqlite3 *db = open_bank(20000);
	good(db, "CREATE TABLE t(x); INSERT INTO t VALUES(randomblob(300000))");
	for (int i = 0; i < SAVERS; i++) {
		(void)snprintf(names[i], sizeof(names[i]), "large%d", i);
		savers[i] = thread_start(save_well, names[i]);
	}
	for (unsigned i = 0; i < FAILURES; i++) {
		int result = save(db, "SELECT uffdwp_snapshot('small/image', 'wait')", text, sizeof(text));
		ck_assert_msg(result == SQLITE_ERROR, "round %u: %s", i, text);
		ck_assert_msg(strstr(sqlite3_errmsg(db), strerror(ENOSPC)) != NULL, "%s", sqlite3_errmsg(db));
	}
	stop = 1;
	for (int i = 0; i < SAVERS; i++)
		thread_join(savers[i]);
	sqlite3_close(db);
}
END_TEST

/* ---- how long they wait ---- */

#define WRITERS 4
#define UPDATES support_rounds(25000, 250000) /* of each writer */
#define TIMEOUT_MS 100
#define EARLY_MS 10 /* by so much SQLite's delays may be off */

static uint64_t now_ms(void)
{
	struct timespec now;
	must(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Done, or busy after all the time that was asked for. 1: busy. */
static int run_in_time(sqlite3 *db, const char *sql)
{
	uint64_t from_ms = now_ms();
	int result = run(db, sql);
	uint64_t passed_ms = now_ms() - from_ms;
	must(result == SQLITE_OK || result == SQLITE_BUSY);
	if (result == SQLITE_BUSY && passed_ms < TIMEOUT_MS - EARLY_MS)
		fprintf(stderr, "busy after %u ms: %s\n", (unsigned)passed_ms, sql);
	must(result == SQLITE_OK || passed_ms >= TIMEOUT_MS - EARLY_MS);
	return result == SQLITE_BUSY;
}

static _Atomic int ended;

static void *write_on(void *argument)
{
	sqlite3 *db = open_bank(TIMEOUT_MS);
	(void)argument;
	for (unsigned i = 0; i < UPDATES; i++)
		run_in_time(db, "UPDATE t SET x = x + 1 WHERE id = 7");
	sqlite3_close(db);
	ended++;
	return NULL;
}

START_TEST(test_busy_comes_when_the_time_that_was_asked_for_is_over)
{
	pthread_t writers[WRITERS];
	sqlite3 *db = open_bank(TIMEOUT_MS);
	good(db, "CREATE TABLE t(id INTEGER PRIMARY KEY, x INTEGER);"
	         "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)"
	         " INSERT INTO t SELECT i, 0 FROM n");
	for (int i = 0; i < WRITERS; i++)
		writers[i] = thread_start(write_on, NULL);
	while (ended < WRITERS)
		run_in_time(db, "SELECT x FROM t WHERE id = 1");
	for (int i = 0; i < WRITERS; i++)
		thread_join(writers[i]);
	sqlite3_close(db);
}
END_TEST

/* SHARED beside EXCLUSIVE, RESERVED beside RESERVED, EXCLUSIVE beside a reader. */
START_TEST(test_busy_comes_no_earlier_for_a_lock_that_is_held_all_the_time)
{
	static const char *const cases[][3] = {
	        {"BEGIN EXCLUSIVE", "", "SELECT * FROM t"},
	        {"BEGIN IMMEDIATE", "", "INSERT INTO t VALUES(1)"},
	        {"BEGIN; SELECT * FROM t", "BEGIN IMMEDIATE; INSERT INTO t VALUES(1)", "COMMIT"},
	};
	sqlite3 *holder = open_bank(0);
	sqlite3 *db = open_bank(TIMEOUT_MS);
	good(holder, "CREATE TABLE t(x)");
	good(holder, cases[_i][0]);
	good(db, cases[_i][1]);
	ck_assert_int_eq(run_in_time(db, cases[_i][2]), 1);
	ck_assert_int_eq(run_in_time(db, cases[_i][2]), 1);
	good(holder, "ROLLBACK");
	ck_assert_int_eq(run_in_time(db, cases[_i][2]), 0);
	sqlite3_close(db);
	sqlite3_close(holder);
}
END_TEST

int main(void)
{
	static const struct support_needs needs = {.huge_pages = 0, .swap = 0};
	const char *extension = getenv("UFFDWP_EXTENSION");
	support_begin(TEST_NAME, &needs);
	if (!extension || access(extension, R_OK) != 0)
		return support_skip("the SQLite extension was not built (UFFDWP_EXTENSION says where it is)");
	Suite *suite = suite_create("sqlite-threads");
	TCase *all = tcase_create("extension");
	tcase_add_checked_fixture(all, setup, NULL);
	tcase_set_timeout(all, 300);
	tcase_add_test(all, test_snapshot_that_is_waited_for_fails_by_its_own_end);
	tcase_add_test(all, test_busy_comes_when_the_time_that_was_asked_for_is_over);
	tcase_add_loop_test(all, test_busy_comes_no_earlier_for_a_lock_that_is_held_all_the_time, 0, 3);
	suite_add_tcase(suite, all);
	return support_run(suite);
}
