/* SPDX-License-Identifier: MIT */
/*
 * SQLite databases that are loaded lazily: `uffdwp_load(path, 'lazy')`. The first query after it is right, writers and
 * snapshots go on while pages come, stock SQLite finds the snapshots whole; and what cannot be read is an I/O error of
 * the statement, never a signal and never zeros.
 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <sqlite3.h>

#include "extension.h"
#include "kernel/abi.h"
#include "kernel/probe.h"
#include "scratch.h"
#include "support.h"
#include "uffdwp.h"

#define ROWS 20000

static const char *const variants[] = {"mechanism=rearm&delivery=thread", "mechanism=rearm&delivery=inline",
                                       "mechanism=rearm&delivery=thread&prepare=0"};

#define VARIANTS 3

static struct probe_report probe = {0};

static int is_possible(int variant)
{
	const struct probe_rung *rung = &probe.memory[UFFDWP_MEMORY_SHMEM].rungs[UFFDWP_MECHANISM_REARM];
	const char *deliveries = getenv("UFFDWP_TEST_DELIVERY");
	int is_inline = strstr(variants[variant], "inline") != NULL;
	if (is_inline && deliveries != NULL && strcmp(deliveries, "thread") == 0) {
		return 0;
	}
	return rung->works &&
	       (is_inline ? rung->inline_works : rung->thread_works && (probe.features & UFFD_FEATURE_POISON) != 0);
}

static sqlite3 *open_uri(const char *name, const char *parameters)
{
	char uri[256];
	sqlite3 *db = NULL;
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI;
	(void)snprintf(uri, sizeof(uri), "file:%s?%s%s", name, parameters != NULL ? "vfs=uffdwp&" : "",
	               parameters != NULL ? parameters : "");
	ck_assert_int_eq(sqlite3_open_v2(uri, &db, flags, NULL), SQLITE_OK);
	sqlite3_busy_timeout(db, 20000);
	return db;
}

static void good(sqlite3 *db, const char *sql)
{
	int result = sqlite3_exec(db, sql, NULL, NULL, NULL);
	ck_assert_msg(result == SQLITE_OK, "%s: %s", sql, sqlite3_errmsg(db));
}

static void bad(sqlite3 *db, const char *sql, const char *text)
{
	ck_assert_msg(sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK, "%s", sql);
	ck_assert_msg(strstr(sqlite3_errmsg(db), text) != NULL, "%s: %s", sql, sqlite3_errmsg(db));
}

/* The first column of the first row is this. */
static void expect(sqlite3 *db, const char *sql, const char *wanted)
{
	sqlite3_stmt *statement = NULL;
	int result = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);
	ck_assert_msg(result == SQLITE_OK, "%s: %s", sql, sqlite3_errmsg(db));
	result = sqlite3_step(statement);
	ck_assert_msg(result == SQLITE_ROW, "%s: %s", sql, sqlite3_errmsg(db));
	ck_assert_str_eq((const char *)sqlite3_column_text(statement, 0), wanted);
	sqlite3_finalize(statement);
}

static void expect_file(const char *name, const char *sql, const char *wanted)
{
	sqlite3 *db = open_uri(name, NULL);
	expect(db, "PRAGMA integrity_check", "ok");
	expect(db, sql, wanted);
	sqlite3_close(db);
}

static void fill(sqlite3 *db)
{
	char sql[512];
	(void)snprintf(sql, sizeof(sql),
	               "CREATE TABLE a(id INTEGER PRIMARY KEY, balance INTEGER, filler TEXT);"
	               "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)"
	               " INSERT INTO a SELECT i, 1, hex(randomblob(100)) FROM n",
	               ROWS);
	good(db, sql);
}

static void make_file(const char *name, const char *mode)
{
	char sql[64];
	sqlite3 *db = open_uri(name, NULL);
	(void)snprintf(sql, sizeof(sql), "PRAGMA journal_mode=%s", mode);
	good(db, sql);
	fill(db);
	sqlite3_close(db);
}

static void setup(void)
{
	char folder[SCRATCH_PATH];
	extension_load(folder);
}

/* --- what is loaded ------------------------------------------------------------------------------------------------
 */

START_TEST(test_queries_are_right_at_once)
{
	if (!is_possible(_i)) {
		return;
	}
	make_file("source.db", "delete");
	for (int round = 0; round < 2; round++) {
		sqlite3 *db = open_uri("bank", variants[_i]);
		sqlite3 *other = open_uri("bank", variants[_i]);
		if (round) {
			good(db, "PRAGMA mmap_size=100000000");
		}
		expect(other, "SELECT count(*) FROM sqlite_schema", "0");
		good(db, "SELECT uffdwp_load('source.db', 'lazy')");
		expect(other, "SELECT count(*) || ' ' || sum(balance) FROM a", "20000 20000");
		good(db, "UPDATE a SET balance = 2 WHERE id % 7 = 0");
		good(other, "SELECT uffdwp_snapshot('image.db', 'keep, wait')");
		good(db, "DELETE FROM a WHERE id > 10000; VACUUM");
		expect(db, "PRAGMA integrity_check", "ok");
		good(db, "SELECT uffdwp_snapshot('delta', 'delta, wait')");
		expect_file("image.db", "SELECT sum(balance) FROM a", "22857");
		sqlite3_close(db);
		sqlite3_close(other);
	}
	expect_file("source.db", "SELECT sum(balance) FROM a", "20000");
	printf("%s: queries were right at once\n", variants[_i]);
}
END_TEST

/* Under a writer, at once after the load. */
START_TEST(test_a_snapshot_at_once_is_whole)
{
	if (!is_possible(_i)) {
		return;
	}
	make_file("source.db", "delete");
	sqlite3 *db = open_uri("bank", variants[_i]);
	good(db, "SELECT uffdwp_load('source.db', 'lazy')");
	good(db, "SELECT uffdwp_snapshot('image.db')");
	good(db, "UPDATE a SET balance = 5");
	expect(db, "SELECT sum(balance) FROM a", "100000");
	sqlite3_close(db); /* waits for the image */
	expect_file("image.db", "SELECT sum(balance) FROM a", "20000");
}
END_TEST

START_TEST(test_a_chain_is_loaded)
{
	if (!is_possible(_i)) {
		return;
	}
	sqlite3 *first = open_uri("first", variants[_i]);
	fill(first);
	good(first, "SELECT uffdwp_snapshot('base.db', 'keep, wait')");
	good(first, "UPDATE a SET balance = 3 WHERE id <= 100");
	good(first, "SELECT uffdwp_snapshot('delta', 'delta, wait')");
	sqlite3_close(first);
	sqlite3 *second = open_uri("second", variants[_i]);
	good(second, "SELECT uffdwp_load('delta', 'lazy', 'main')");
	expect(second, "SELECT sum(balance) FROM a", "20200");
	expect(second, "PRAGMA integrity_check", "ok");
	sqlite3_close(second);
}
END_TEST

START_TEST(test_a_file_in_wal_mode_has_none_in_memory)
{
	if (!is_possible(_i)) {
		return;
	}
	make_file("wal.db", "wal"); /* its last close puts the log into it */
	sqlite3 *db = open_uri("bank", variants[_i]);
	good(db, "SELECT uffdwp_load('wal.db', 'lazy')");
	expect(db, "SELECT count(*) FROM a", "20000");
	expect(db, "PRAGMA journal_mode", "delete");
	good(db, "SELECT uffdwp_snapshot('image.db', 'wait')");
	sqlite3_close(db);
	expect_file("image.db", "SELECT count(*) FROM a", "20000");
}
END_TEST

/* --- what cannot be ------------------------------------------------------------------------------------------------
 */

/* A bit of the last page that the delta holds as it is. */
static void damage(const char *path)
{
	struct uffdwp_image *image = NULL;
	struct uffdwp_image_extent extent = {.sz = sizeof(extent)};
	uint64_t at = 0;
	uint64_t place = 0;
	ck_assert_int_eq(uffdwp_image_open(path, NULL, &image), 0);
	while (uffdwp_image_next(image, at, &extent) == 1) {
		if (extent.link == 0 && extent.kind == UFFDWP_EXTENT_DATA) {
			place = extent.file_offset + extent.length - 1;
		}
		at += extent.length;
	}
	ck_assert_int_eq(uffdwp_image_close(image), 0);
	ck_assert_uint_gt(place, 0);
	uint8_t byte = 0;
	int fd = open(path, O_RDWR | O_CLOEXEC);
	ck_assert_int_eq(pread(fd, &byte, 1, (off_t)place), 1);
	byte ^= 1;
	ck_assert_int_eq(pwrite(fd, &byte, 1, (off_t)place), 1);
	close(fd);
}

START_TEST(test_a_damaged_page_is_an_error_and_no_signal)
{
	if (!is_possible(_i)) {
		return;
	}
	sqlite3 *first = open_uri("first", variants[_i]);
	fill(first);
	good(first, "CREATE TABLE small(x); INSERT INTO small VALUES(7)");
	good(first, "SELECT uffdwp_snapshot('base.db', 'keep, wait')");
	good(first, "UPDATE a SET balance = 3 WHERE id BETWEEN 9000 AND 9100");
	good(first, "SELECT uffdwp_snapshot('delta', 'delta, wait')");
	sqlite3_close(first);
	damage("delta");
	for (int round = 0; round < 2; round++) {
		sqlite3 *db = open_uri("second", variants[_i]);
		if (round) {
			good(db, "PRAGMA mmap_size=100000000");
		}
		good(db, "SELECT uffdwp_load('delta', 'lazy')");
		bad(db, "SELECT sum(balance) FROM a", "disk I/O error");
		ck_assert_int_eq(sqlite3_extended_errcode(db), SQLITE_IOERR_READ);
		bad(db, "UPDATE a SET balance = 1", "disk I/O error");
		expect(db, "SELECT x FROM small", "7");
		bad(db, "SELECT uffdwp_snapshot('image.db', 'wait')", "image.db");
		ck_assert_int_ne(access("image.db", F_OK), 0);
		sqlite3_close(db);
	}
}
END_TEST

static void write_text(const char *name)
{
	char text[4096];
	memset(text, 'x', sizeof(text));
	scratch_write(name, text, sizeof(text));
}

START_TEST(test_what_a_lazy_load_refuses)
{
	if (!is_possible(0)) {
		return;
	}
	make_file("source.db", "delete");
	make_file("used.db", "wal");
	write_text("text.db");
	sqlite3 *user = open_uri("used.db", NULL);
	good(user, "UPDATE a SET balance = 7 WHERE id = 1"); /* in its log */
	sqlite3 *db = open_uri("bank", variants[0]);
	bad(db, "SELECT uffdwp_load('used.db', 'lazy')", "-wal is there");
	bad(db, "SELECT uffdwp_load('text.db', 'lazy')", "not a database");
	bad(db, "SELECT uffdwp_load('none.db', 'lazy')", "none.db");
	bad(db, "SELECT uffdwp_load('source.db', 'lazily', 'main')", "'lazy' or ''");
	bad(db, "SELECT uffdwp_load('source.db', 'lazy', 'temp')", "not in the VFS");
	bad(db, "BEGIN; SELECT uffdwp_load('source.db', 'lazy')", "transaction");
	good(db, "ROLLBACK");
	good(db, "SELECT uffdwp_load('source.db', 'lazy')");
	bad(db, "SELECT uffdwp_load('source.db', 'lazy')", "empty");
	expect(db, "SELECT sum(balance) FROM a", "20000");
	sqlite3_close(db);
	sqlite3_close(user);
	db = open_uri("little", "mechanism=rearm&size=64K&capacity=128K");
	bad(db, "SELECT uffdwp_load('source.db', 'lazy')", "capacity");
	good(db, "CREATE TABLE t(x)");
	sqlite3_close(db);
	if (probe.memory[UFFDWP_MEMORY_SHMEM].rungs[UFFDWP_MECHANISM_MARKER].works) {
		db = open_uri("by_marker", "mechanism=marker");
		bad(db, "SELECT uffdwp_load('source.db', 'lazy')", "mechanism=rearm");
		good(db, "SELECT uffdwp_load('source.db', '', 'main')");
		expect(db, "SELECT sum(balance) FROM a", "20000");
		sqlite3_close(db);
	}
}
END_TEST

int main(void)
{
	support_begin("test_sqlite_lazy", &(struct support_needs){.huge_pages = 0, .swap = 0});
	const char *extension = getenv("UFFDWP_EXTENSION");
	if (extension == NULL || access(extension, R_OK) != 0) {
		return support_skip("the SQLite extension is not built (UFFDWP_EXTENSION)");
	}
	must(probe_run(&kernel_real, &probe) == 0);
	for (int i = 0; i < VARIANTS; i++) {
		if (!is_possible(i)) {
			support_note(variants[i], "not available here");
		}
	}
	Suite *suite = suite_create("sqlite_lazy");
	TCase *tests = tcase_create("sqlite_lazy");
	tcase_set_timeout(tests, 120);
	tcase_add_checked_fixture(tests, setup, NULL);
	tcase_add_loop_test(tests, test_queries_are_right_at_once, 0, VARIANTS);
	tcase_add_loop_test(tests, test_a_snapshot_at_once_is_whole, 0, VARIANTS);
	tcase_add_loop_test(tests, test_a_chain_is_loaded, 0, VARIANTS);
	tcase_add_loop_test(tests, test_a_file_in_wal_mode_has_none_in_memory, 0, VARIANTS);
	tcase_add_loop_test(tests, test_a_damaged_page_is_an_error_and_no_signal, 0, VARIANTS);
	tcase_add_test(tests, test_what_a_lazy_load_refuses);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
