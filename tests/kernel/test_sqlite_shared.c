/* SPDX-License-Identifier: MIT */
/*
 * The SQLite extension with a shared cache: connections of one process that have one pager, so that the VFS sees one
 * file and one lock for the transactions of all of them. A snapshot by one of them is a state between transactions of
 * the others, or SQLITE_BUSY. And the lock that a connection keeps between its transactions (locking_mode=exclusive),
 * which looks the same from the VFS.
 */
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include <sqlite3.h>

#include "extension.h"
#include "scratch.h"
#include "support.h"

#define ROWS 2000
#define WRITERS 2
#define IMAGES support_rounds(20, 200)

/* Methods to get a shared cache: a word of the URI, a flag of the open. */
static const struct method {
	const char *uri;
	int flag;
} methods[] = {{"file:bank?vfs=uffdwp&cache=shared", 0}, {"file:bank?vfs=uffdwp", SQLITE_OPEN_SHAREDCACHE}};

static char folder[SCRATCH_PATH];

static sqlite3 *open_flags(const char *uri, int flags)
{
	sqlite3 *db = NULL;
	flags |= SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI;
	must(sqlite3_open_v2(uri, &db, flags, NULL) == SQLITE_OK);
	sqlite3_busy_timeout(db, 50);
	return db;
}

static sqlite3 *open_shared(int method)
{
	return open_flags(methods[method].uri, methods[method].flag);
}

static sqlite3 *open_private(void)
{
	return open_flags("file:bank?vfs=uffdwp", SQLITE_OPEN_PRIVATECACHE);
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

/* The first column of the first row. */
static void expect(sqlite3 *db, const char *sql, const char *wanted)
{
	sqlite3_stmt *statement = NULL;
	int result = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);
	ck_assert_msg(result == SQLITE_OK, "%s: %s", sql, sqlite3_errmsg(db));
	result = sqlite3_step(statement);
	ck_assert_msg(result == SQLITE_ROW, "%s: %s", sql, sqlite3_errmsg(db));
	const char *value = (const char *)sqlite3_column_text(statement, 0);
	ck_assert_str_eq(value ? value : "", wanted);
	sqlite3_finalize(statement);
}

static void expect_image(const char *name, const char *sql, const char *wanted)
{
	char path[SCRATCH_PATH];
	sqlite3 *db = NULL;
	scratch_join(path, folder, name);
	ck_assert_int_eq(sqlite3_open(path, &db), SQLITE_OK);
	expect(db, "PRAGMA integrity_check", "ok");
	expect(db, sql, wanted);
	sqlite3_close(db);
	ck_assert_int_eq(unlink(path), 0);
}

static void fill(sqlite3 *db)
{
	char sql[512];
	(void)snprintf(sql, sizeof(sql),
	               "CREATE TABLE a(id INTEGER PRIMARY KEY, balance INTEGER, filler TEXT);"
	               "CREATE TABLE history(delta INTEGER);"
	               "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)"
	               " INSERT INTO a SELECT i, 0, hex(zeroblob(200)) FROM n",
	               ROWS);
	good(db, sql);
}

static void expect_busy(sqlite3 *db)
{
	ck_assert_int_eq(run(db, "SELECT uffdwp_snapshot('image.db', 'wait')"), SQLITE_BUSY);
	ck_assert_uint_eq(scratch_entries(folder), 0);
}

static void expect_committed(sqlite3 *db)
{
	expect(db, "SELECT uffdwp_snapshot('image.db', 'wait') ->> 'state'", "committed");
}

static void setup(void)
{
	extension_load(folder);
}

/* INV-BOUNDARY. A cache of 5 pages spills: the file has pages that are not committed. */
START_TEST(test_snapshot_is_busy_while_a_connection_of_its_cache_has_spilled)
{
	sqlite3 *writer = open_shared(_i);
	sqlite3 *db = open_shared(_i);
	good(writer, "PRAGMA cache_size=5");
	fill(writer);
	good(writer, "BEGIN; UPDATE a SET balance = 1");
	expect_busy(db);
	good(writer, "COMMIT");
	expect_committed(db);
	expect_image("image.db", "SELECT sum(balance) FROM a", "2000");

	good(writer, "BEGIN; UPDATE a SET balance = 2");
	expect_busy(db);
	good(writer, "ROLLBACK");
	expect_committed(db);
	expect_image("image.db", "SELECT sum(balance) FROM a", "2000");
	sqlite3_close(writer);
	sqlite3_close(db);
}
END_TEST

/* RESERVED, and nothing of it in the file yet. */
START_TEST(test_snapshot_beside_a_transaction_of_its_cache_shows_the_state_before_it)
{
	sqlite3 *writer = open_shared(_i);
	sqlite3 *db = open_shared(_i);
	fill(writer);
	good(writer, "BEGIN; UPDATE a SET balance = 1 WHERE id = 7");
	expect_committed(db);
	expect_image("image.db", "SELECT sum(balance) FROM a", "0");
	good(writer, "COMMIT");
	expect_committed(db);
	expect_image("image.db", "SELECT sum(balance) FROM a", "1");
	sqlite3_close(writer);
	sqlite3_close(db);
}
END_TEST

struct counter {
	pthread_t thread;
	_Atomic int *stop;
	int method;
	unsigned number;
};

/* Again while another connection has what it needs: a shared cache refuses its tables by SQLITE_LOCKED, without a wait.
 */
static void again(sqlite3 *db, const char *sql)
{
	int result;
	while ((result = run(db, sql)) == SQLITE_LOCKED || result == SQLITE_BUSY)
		sleep_us(100);
	must(result == SQLITE_OK);
}

/* Adds to rows on all pages what it writes down in the history. */
static void *count(void *argument)
{
	struct counter *counter = argument;
	char sql[256];
	sqlite3 *db = open_shared(counter->method);
	again(db, "PRAGMA cache_size=20");
	for (unsigned i = counter->number; !*counter->stop; i++) {
		again(db, "BEGIN IMMEDIATE");
		(void)snprintf(sql, sizeof(sql), "UPDATE a SET balance = balance + 1 WHERE id %% 20 = %u", i % 20);
		again(db, sql);
		again(db, "INSERT INTO history VALUES(100)");
		again(db, "COMMIT");
	}
	sqlite3_close(db);
	return NULL;
}

/* INV-BOUNDARY */
START_TEST(test_images_under_load_of_their_cache_are_states_between_transactions)
{
	struct counter counters[WRITERS];
	_Atomic int stop = 0;
	sqlite3 *db = open_shared(_i);
	fill(db);
	for (unsigned i = 0; i < WRITERS; i++) {
		counters[i] = (struct counter){.stop = &stop, .method = _i, .number = i};
		counters[i].thread = thread_start(count, &counters[i]);
	}
	for (unsigned i = 0; i < IMAGES; i++) {
		again(db, "SELECT uffdwp_snapshot('image.db', 'wait')");
		expect_image("image.db",
		             "SELECT (SELECT sum(balance) FROM a) = (SELECT coalesce(sum(delta), 0) FROM history)",
		             "1");
	}
	stop = 1;
	for (unsigned i = 0; i < WRITERS; i++)
		thread_join(counters[i].thread);
	sqlite3_close(db);
}
END_TEST

START_TEST(test_load_by_a_connection_of_a_shared_cache)
{
	sqlite3 *disk = NULL;
	sqlite3 *db = open_shared(_i);
	sqlite3 *other = open_shared(_i);
	ck_assert_int_eq(sqlite3_enable_shared_cache(1), SQLITE_OK); /* what the extension opens must not join it */
	ck_assert_int_eq(sqlite3_open("source.db", &disk), SQLITE_OK);
	good(disk, "PRAGMA journal_mode=wal; CREATE TABLE s(x); INSERT INTO s VALUES(7)");
	fill(other);
	good(db, "SELECT uffdwp_load('source.db')");
	expect(db, "SELECT x FROM s", "7");
	expect(other, "SELECT x FROM s", "7");
	expect(other, "PRAGMA journal_mode", "delete");
	sqlite3_close(disk);
	sqlite3_close(db);
	sqlite3_close(other);
}
END_TEST

/* ---- locks that are kept ---- */

START_TEST(test_connection_that_keeps_its_lock_saves_between_its_transactions)
{
	sqlite3 *db = open_private();
	good(db, "PRAGMA locking_mode=exclusive");
	fill(db);
	expect_committed(db);
	expect_image("image.db", "SELECT sum(balance) FROM a", "0");
	good(db, "BEGIN; UPDATE a SET balance = 1; ROLLBACK; BEGIN; SELECT * FROM a LIMIT 1");
	expect_committed(db);
	good(db, "COMMIT");
	expect_image("image.db", "SELECT sum(balance) FROM a", "0");
	good(db, "UPDATE a SET balance = 1; PRAGMA locking_mode=normal"); /* the lock goes by the next read */
	expect_committed(db);
	expect_image("image.db", "SELECT sum(balance) FROM a", "2000");
	sqlite3_close(db);
}
END_TEST

START_TEST(test_attached_database_whose_lock_is_kept_is_saved)
{
	sqlite3 *db = open_flags(":memory:", 0);
	good(db, "ATTACH 'file:bank?vfs=uffdwp' AS b; PRAGMA locking_mode=exclusive;"
	         "CREATE TABLE b.a(balance); INSERT INTO b.a VALUES(1)");
	expect(db, "SELECT uffdwp_snapshot('image.db', 'wait', 'b') ->> 'state'", "committed");
	expect_image("image.db", "SELECT sum(balance) FROM a", "1");
	sqlite3_close(db);
}
END_TEST

/* The lock that is kept may be that of a transaction of the other one. */
START_TEST(test_snapshot_is_busy_while_its_shared_cache_keeps_the_lock)
{
	sqlite3 *writer = open_shared(_i);
	sqlite3 *db = open_shared(_i);
	good(writer, "PRAGMA locking_mode=exclusive; PRAGMA cache_size=5");
	fill(writer);
	expect_busy(db);
	good(writer, "BEGIN; UPDATE a SET balance = 1");
	expect_busy(db);
	good(writer, "COMMIT; PRAGMA locking_mode=normal");
	expect(db, "SELECT sum(balance) FROM a", "2000");
	expect_committed(db);
	expect_image("image.db", "SELECT sum(balance) FROM a", "2000");
	sqlite3_close(writer);
	sqlite3_close(db);
}
END_TEST

int main(void)
{
	static const struct support_needs needs = {.huge_pages = 0, .swap = 0};
	const char *extension = getenv("UFFDWP_EXTENSION");
	support_begin(TEST_NAME, &needs);
	if (!extension || access(extension, R_OK) != 0)
		return support_skip("the SQLite extension was not built (UFFDWP_EXTENSION says where it is)");
	Suite *suite = suite_create("sqlite-shared");
	TCase *all = tcase_create("extension");
	tcase_add_checked_fixture(all, setup, NULL);
	tcase_set_timeout(all, 120);
	tcase_add_loop_test(all, test_snapshot_is_busy_while_a_connection_of_its_cache_has_spilled, 0, 2);
	tcase_add_loop_test(all, test_snapshot_beside_a_transaction_of_its_cache_shows_the_state_before_it, 0, 2);
	tcase_add_loop_test(all, test_images_under_load_of_their_cache_are_states_between_transactions, 0, 2);
	tcase_add_loop_test(all, test_load_by_a_connection_of_a_shared_cache, 0, 2);
	tcase_add_test(all, test_connection_that_keeps_its_lock_saves_between_its_transactions);
	tcase_add_test(all, test_attached_database_whose_lock_is_kept_is_saved);
	tcase_add_loop_test(all, test_snapshot_is_busy_while_its_shared_cache_keeps_the_lock, 0, 2);
	suite_add_tcase(suite, all);
	return support_run(suite);
}
