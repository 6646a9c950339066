/* SPDX-License-Identifier: MIT */
/*
 * The SQLite extension hands pages out of the mapping (xFetch), and SQLite gives them to system calls that read: VACUUM
 * INTO and the backup of a database write to a file from there. Right after a cut that moved page tables away none of
 * these pages is mapped. What was read so is compared, by SQLite's own VFS, with what was there at the cut.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sqlite3.h>

#include "extension.h"
#include "place.h"
#include "scratch.h"
#include "support.h"

#define ROWS 2000

static char folder[SCRATCH_PATH];

static void good(sqlite3 *db, const char *sql)
{
	int result = sqlite3_exec(db, sql, NULL, NULL, NULL);
	ck_assert_msg(result == SQLITE_OK, "%s: %s", sql, sqlite3_errmsg(db));
}

static int64_t number(sqlite3 *db, const char *sql)
{
	sqlite3_stmt *statement = NULL;
	ck_assert_msg(sqlite3_prepare_v2(db, sql, -1, &statement, NULL) == SQLITE_OK, "%s", sqlite3_errmsg(db));
	ck_assert_int_eq(sqlite3_step(statement), SQLITE_ROW);
	int64_t value = sqlite3_column_int64(statement, 0);
	sqlite3_finalize(statement);
	return value;
}

static void expect_file(const char *name, int64_t sum)
{
	sqlite3 *db = NULL;
	ck_assert_int_eq(sqlite3_open(name, &db), SQLITE_OK);
	ck_assert_int_eq(number(db, "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'"), 1);
	ck_assert_int_eq(number(db, "SELECT sum(balance) FROM a"), sum);
	sqlite3_close(db);
	ck_assert_int_eq(unlink(name), 0);
}

static void back_up(sqlite3 *db, const char *name)
{
	sqlite3 *copy = NULL;
	ck_assert_int_eq(sqlite3_open(name, &copy), SQLITE_OK);
	sqlite3_backup *backup = sqlite3_backup_init(copy, "main", db, "main");
	ck_assert_ptr_nonnull(backup);
	ck_assert_int_eq(sqlite3_backup_step(backup, -1), SQLITE_DONE);
	ck_assert_int_eq(sqlite3_backup_finish(backup), SQLITE_OK);
	sqlite3_close(copy);
}

/* Begins a snapshot, after one that runs still. */
static void cut(sqlite3 *db, const char *sql)
{
	int result;
	while ((result = sqlite3_exec(db, sql, NULL, NULL, NULL)) == SQLITE_BUSY) {
		sleep_us(1000);
	}
	ck_assert_msg(result == SQLITE_OK, "%s: %s", sql, sqlite3_errmsg(db));
}

static void setup(void)
{
	extension_load(folder);
}

/* Inline they are not moved unless that is asked for by name, which the extension does not do. */
START_TEST(test_pages_go_to_system_calls_right_after_a_cut)
{
	static const char *const deliveries[] = {"thread", "inline"};
	enum uffdwp_delivery delivery = _i % 2 ? UFFDWP_DELIVERY_INLINE : UFFDWP_DELIVERY_THREAD;
	if (!place_possible((struct place_case){UFFDWP_MEMORY_SHMEM, UFFDWP_MECHANISM_MARKER, delivery})) {
		return;
	}
	char uri[128];
	sqlite3 *db = NULL;
	(void)snprintf(uri, sizeof(uri), "file:bank?vfs=uffdwp&mechanism=marker&delivery=%s", deliveries[_i % 2]);
	ck_assert_int_eq(sqlite3_open_v2(uri, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, NULL),
	                 SQLITE_OK);
	good(db, "PRAGMA mmap_size = 1000000000;"
	         "CREATE TABLE a(id INTEGER PRIMARY KEY, balance INTEGER, filler TEXT);"
	         "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)"
	         " INSERT INTO a SELECT i, 0, hex(zeroblob(200)) FROM n");
	for (int i = 0; i < 3; i++) {
		cut(db, "SELECT uffdwp_snapshot('image.db')");
		good(db, "VACUUM INTO 'into.db'");
		expect_file("into.db", (int64_t)i * ROWS);
		cut(db, "SELECT uffdwp_snapshot('image.db')");
		back_up(db, "backup.db");
		expect_file("backup.db", (int64_t)i * ROWS);
		cut(db, "SELECT uffdwp_snapshot('later.db', 'wait')");
		expect_file("image.db", (int64_t)i * ROWS);
		good(db, "UPDATE a SET balance = balance + 1");
	}
	sqlite3_close(db);
}
END_TEST

int main(void)
{
	support_begin("test_sqlite_calls", &(struct support_needs){0});
	if (!getenv("UFFDWP_EXTENSION")) {
		return support_skip("UFFDWP_EXTENSION does not name the extension");
	}
	place_begin();
	Suite *suite = suite_create("sqlite_calls");
	TCase *tests = tcase_create("sqlite_calls");
	tcase_set_timeout(tests, 300);
	tcase_add_checked_fixture(tests, setup, NULL);
	tcase_add_loop_test(tests, test_pages_go_to_system_calls_right_after_a_cut, 0, 2);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
