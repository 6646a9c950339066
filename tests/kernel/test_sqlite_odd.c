/* SPDX-License-Identifier: MIT */
/*
 * What programs do with the SQLite extension that it is not made for: loads of files that are no database, a connection
 * that is used in a child of fork(), a VFS that is asked for by its name alone. Each is an error with a text, and what
 * was there stays as it was.
 */
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sqlite3.h>

#include "extension.h"
#include "scratch.h"
#include "support.h"
#include "uffdwp.h"

static char folder[SCRATCH_PATH];
static char last_log[8192]; /* all lines since it was emptied */

static void keep_log(void *user, int code, const char *text)
{
	(void)user;
	(void)code;
	size_t length = strlen(last_log);
	(void)snprintf(last_log + length, sizeof(last_log) - length, "%s\n", text);
}

static int open_by(const char *name, const char *vfs, sqlite3 **db)
{
	return sqlite3_open_v2(name, db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, vfs);
}

static sqlite3 *open_memory(const char *parameters)
{
	char uri[256];
	sqlite3 *db = NULL;
	(void)snprintf(uri, sizeof(uri), "file:bank?vfs=uffdwp%s", parameters);
	ck_assert_int_eq(open_by(uri, NULL, &db), SQLITE_OK);
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

static void bad(sqlite3 *db, const char *sql, const char *text)
{
	ck_assert_msg(run(db, sql) != SQLITE_OK, "%s", sql);
	ck_assert_msg(strstr(sqlite3_errmsg(db), text) != NULL, "%s: %s", sql, sqlite3_errmsg(db));
}

static void expect_rows(sqlite3 *db, int wanted)
{
	sqlite3_stmt *statement = NULL;
	ck_assert_msg(sqlite3_prepare_v2(db, "SELECT count(*) FROM t", -1, &statement, NULL) == SQLITE_OK, "%s",
	              sqlite3_errmsg(db));
	ck_assert_int_eq(sqlite3_step(statement), SQLITE_ROW);
	ck_assert_int_eq(sqlite3_column_int(statement, 0), wanted);
	sqlite3_finalize(statement);
}

/* ---- loads ---- */

/* A database of some pages on disk, of which the first `bytes` are kept; 0: all. */
static size_t make_file(const char *name, size_t bytes)
{
	char path[SCRATCH_PATH];
	sqlite3 *db = NULL;
	struct stat st;
	scratch_join(path, folder, name);
	ck_assert_int_eq(sqlite3_open(path, &db), SQLITE_OK);
	good(db, "CREATE TABLE t(x); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)"
	         " INSERT INTO t SELECT hex(zeroblob(100)) FROM n");
	ck_assert_int_eq(sqlite3_close(db), SQLITE_OK);
	if (bytes > 0) {
		ck_assert_int_eq(truncate(path, (off_t)bytes), 0);
	}
	ck_assert_int_eq(stat(path, &st), 0);
	return (size_t)st.st_size;
}

static void make_bytes(const char *name, const void *bytes, size_t length)
{
	char path[SCRATCH_PATH];
	scratch_join(path, folder, name);
	scratch_write(path, bytes, length);
}

static void make_bad_files(void)
{
	static unsigned char bytes[8192];
	make_file("whole", 0);
	make_file("cut", 5 * 4096);
	make_file("cut-in-a-page", 5 * 4096 + 100);
	make_file("header-alone", 100);
	make_bytes("empty", "", 0);
	make_bytes("byte", "S", 1);
	make_bytes("text", "SQLite format 3", 15);
	make_bytes("zeros", bytes, sizeof(bytes));
	memcpy(bytes, "SQLite format 3", 16);
	make_bytes("no-page-size", bytes, sizeof(bytes));
}

static const char *const bad_files[] = {"empty", "/proc/version", "/proc/self/stat", "byte",    "text",
                                        "zeros", "no-page-size",  "header-alone",    "cut",     "cut-in-a-page",
                                        ".",     "/dev/null",     "/dev/zero",       "nowhere", ""};

static void load_bad(sqlite3 *db, const char *name, const char *how)
{
	char sql[256];
	(void)snprintf(sql, sizeof(sql), "SELECT uffdwp_load('%s'%s)", name, how);
	ck_assert_msg(run(db, sql) != SQLITE_OK, "%s", sql);
	ck_assert_msg(strstr(sqlite3_errmsg(db), "uffdwp_load") != NULL, "%s: %s", sql, sqlite3_errmsg(db));
}

START_TEST(test_files_that_are_no_database_change_nothing)
{
	make_bad_files();
	sqlite3 *db = open_memory("");
	good(db, "CREATE TABLE t(x); INSERT INTO t VALUES(1), (2)");
	for (size_t i = 0; i < sizeof(bad_files) / sizeof(*bad_files); i++) {
		load_bad(db, bad_files[i], "");
		expect_rows(db, 2);
		good(db, "INSERT INTO t VALUES(3); DELETE FROM t WHERE x = 3");
	}
	good(db, "SELECT uffdwp_load('whole')");
	expect_rows(db, 500);
	sqlite3_close(db);
}
END_TEST

/* Into a database that is empty, as lazy loads are: it still is, and takes a whole one. */
START_TEST(test_lazy_loads_of_files_that_are_no_database_change_nothing)
{
	make_bad_files();
	sqlite3 *db = NULL;
	if (open_by("file:bank?vfs=uffdwp&mechanism=rearm&delivery=inline", NULL, &db) != SQLITE_OK) {
		support_note("test_lazy_loads_of_files_that_are_no_database_change_nothing", sqlite3_errmsg(db));
		sqlite3_close(db);
		return;
	}
	for (size_t i = 0; i < sizeof(bad_files) / sizeof(*bad_files); i++) {
		load_bad(db, bad_files[i], ", 'lazy'");
		bad(db, "SELECT count(*) FROM t", "no such table");
	}
	good(db, "SELECT uffdwp_load('whole', 'lazy')");
	expect_rows(db, 500);
	sqlite3_close(db);
}
END_TEST

/* ---- children ---- */

struct inherited {
	sqlite3 *db;
	sqlite3_stmt *half; /* a statement that is in the middle of its rows */
	int mapped;
};

static void expect_child_error(sqlite3 *db, const char *sql)
{
	last_log[0] = 0;
	int result = run(db, sql);
	if (result == SQLITE_OK || !strstr(last_log, "child of")) {
		fprintf(stderr, "%s: %d, %s; the log: %s\n", sql, result, sqlite3_errmsg(db), last_log);
	}
	must(result != SQLITE_OK);
	must(strstr(last_log, "child of fork()") != NULL || strstr(sqlite3_errmsg(db), "child of fork()") != NULL);
}

static void use_in_child(void *argument)
{
	struct inherited *inherited = argument;
	sqlite3 *db = inherited->db;
	sqlite3 *other = NULL;
	expect_child_error(db, "SELECT count(*) FROM t");
	expect_child_error(db, "INSERT INTO t VALUES(1)");
	expect_child_error(db, "BEGIN IMMEDIATE");
	expect_child_error(db, "SELECT uffdwp_stats()");
	expect_child_error(db, "SELECT uffdwp_snapshot('child.db', 'wait')");
	expect_child_error(db, "SELECT uffdwp_load('whole')");
	last_log[0] = 0;
	must(open_by("file:bank?vfs=uffdwp", NULL, &other) != SQLITE_OK && strstr(last_log, "child of fork()") != NULL);
	sqlite3_close(other);
	must(open_by("file:new?vfs=uffdwp", NULL, &other) != SQLITE_OK);
	sqlite3_close(other);
	int steps = 0;
	while (inherited->half != NULL && sqlite3_step(inherited->half) == SQLITE_ROW) {
		must(++steps < 1000); /* what was read before may come, then an error */
	}
	sqlite3_finalize(inherited->half);
	sqlite3_close(db);
	/* what is on disk works as ever */
	must(open_by("child-disk", NULL, &other) == SQLITE_OK);
	must(run(other, "CREATE TABLE t(x); INSERT INTO t VALUES(1)") == SQLITE_OK);
	sqlite3_close(other);
}

static void check_child(const char *parameters, int in_transaction)
{
	struct inherited inherited = {.db = open_memory(parameters)};
	make_file("whole", 0);
	good(inherited.db, "SELECT uffdwp_load('whole')");
	if (in_transaction) {
		ck_assert_int_eq(sqlite3_prepare_v2(inherited.db, "SELECT x FROM t", -1, &inherited.half, NULL),
		                 SQLITE_OK);
		ck_assert_int_eq(sqlite3_step(inherited.half), SQLITE_ROW);
	}
	int status = child_run(use_in_child, &inherited);
	ck_assert_msg(status == 0, "the child ended with status 0x%x", (unsigned)status);
	sqlite3_finalize(inherited.half);
	expect_rows(inherited.db, 500); /* the parent goes on */
	good(inherited.db, "DELETE FROM t");
	ck_assert_int_eq(sqlite3_close(inherited.db), SQLITE_OK);
}

START_TEST(test_connection_in_a_child_is_an_error)
{
	static const char *const parameters[] = {"", "&delivery=thread", "&delivery=inline&mechanism=mprotect"};
	check_child(parameters[_i / 2], _i % 2);
}
END_TEST

/* ---- the VFS by its name ---- */

static void expect_refused(const char *name)
{
	sqlite3 *db = NULL;
	ck_assert_int_ne(open_by(name, "uffdwp", &db), SQLITE_OK);
	ck_assert_msg(strstr(sqlite3_errmsg(db), "vfs=uffdwp") != NULL, "%s: %s", name, sqlite3_errmsg(db));
	sqlite3_close(db);
}

START_TEST(test_vfs_by_its_name_alone_makes_no_file)
{
	sqlite3 *db = NULL;
	expect_refused("bank");
	expect_refused("file:bank");
	ck_assert_int_ne(access("bank", F_OK), 0);
	make_file("whole", 0);
	expect_refused("whole"); /* which was there before, and stays */
	ck_assert_int_eq(access("whole", F_OK), 0);
	ck_assert_int_eq(open_by("file:bank?vfs=uffdwp", "uffdwp", &db), SQLITE_OK);
	good(db, "CREATE TABLE t(x)");
	ck_assert_int_ne(access("bank", F_OK), 0);
	/* files beside it are where they were asked for, and their own journals too */
	good(db, "ATTACH 'side' AS side; CREATE TABLE side.u(x); BEGIN; INSERT INTO t VALUES(1); INSERT INTO side.u "
	         "VALUES(1);"
	         "COMMIT; VACUUM INTO 'copy'; CREATE TEMP TABLE v AS SELECT 1");
	ck_assert_int_eq(access("side", F_OK), 0);
	ck_assert_int_eq(access("copy", F_OK), 0);
	sqlite3_close(db);
	ck_assert_int_eq(open_by(":memory:", "uffdwp", &db), SQLITE_OK);
	sqlite3_close(db);
	ck_assert_int_eq(open_by("", "uffdwp", &db), SQLITE_OK);
	sqlite3_close(db);
}
END_TEST

START_TEST(test_read_only_connections_only_read)
{
	sqlite3 *db = open_memory("");
	sqlite3 *reader = NULL;
	good(db, "CREATE TABLE t(x); INSERT INTO t VALUES(1)");
	int flags = SQLITE_OPEN_READONLY | SQLITE_OPEN_URI;
	ck_assert_int_eq(sqlite3_open_v2("file:bank?vfs=uffdwp", &reader, flags, NULL), SQLITE_OK);
	expect_rows(reader, 1);
	bad(reader, "INSERT INTO t VALUES(2)", "readonly");
	bad(reader, "SELECT uffdwp_load('whole')", "");
	expect_rows(db, 1);
	sqlite3_close(reader);
	sqlite3_close(db);
}
END_TEST

static void setup(void)
{
	ck_assert_int_eq(sqlite3_config(SQLITE_CONFIG_LOG, keep_log, NULL), SQLITE_OK);
	extension_load(folder);
}

int main(void)
{
	static const struct support_needs needs = {.huge_pages = 0, .swap = 0};
	const char *extension = getenv("UFFDWP_EXTENSION");
	support_begin(TEST_NAME, &needs);
	if (!extension || access(extension, R_OK) != 0)
		return support_skip("the SQLite extension was not built (UFFDWP_EXTENSION says where it is)");
	Suite *suite = suite_create("sqlite-odd");
	TCase *all = tcase_create("extension");
	tcase_add_checked_fixture(all, setup, NULL);
	tcase_set_timeout(all, 60);
	tcase_add_test(all, test_files_that_are_no_database_change_nothing);
	tcase_add_test(all, test_lazy_loads_of_files_that_are_no_database_change_nothing);
	tcase_add_loop_test(all, test_connection_in_a_child_is_an_error, 0, 6);
	tcase_add_test(all, test_vfs_by_its_name_alone_makes_no_file);
	tcase_add_test(all, test_read_only_connections_only_read);
	suite_add_tcase(suite, all);
	return support_run(suite);
}
