/* SPDX-License-Identifier: MIT */
/*
 * The SQLite extension as a program uses it: loaded from its file, reached by SQL alone. Images are opened by SQLite's
 * own VFS, which knows nothing of regions.
 */
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include <sqlite3.h>

#include "extension.h"
#include "kernel/probe.h"
#include "scratch.h"
#include "support.h"
#include "uffdwp.h"

#define ROWS 2000
#define WRITERS 3
#define TRANSACTIONS 300
#define IMAGES support_rounds(4, 8)
#define DELTAS support_rounds(8, 20)

/* The variants of a database that snapshots are tested with. */
static const struct variant {
	const char *parameters;
	enum uffdwp_mechanism mechanism;
	enum uffdwp_delivery delivery;
} variants[] = {
        {"mechanism=marker&delivery=thread", UFFDWP_MECHANISM_MARKER, UFFDWP_DELIVERY_THREAD},
        {"mechanism=marker&delivery=inline", UFFDWP_MECHANISM_MARKER, UFFDWP_DELIVERY_INLINE},
        {"mechanism=marker&delivery=thread&prepare=0", UFFDWP_MECHANISM_MARKER, UFFDWP_DELIVERY_THREAD},
        {"mechanism=marker&delivery=inline&prepare=0", UFFDWP_MECHANISM_MARKER, UFFDWP_DELIVERY_INLINE},
        {"mechanism=rearm&delivery=thread", UFFDWP_MECHANISM_REARM, UFFDWP_DELIVERY_THREAD},
        {"mechanism=rearm&delivery=inline", UFFDWP_MECHANISM_REARM, UFFDWP_DELIVERY_INLINE},
        {"mechanism=rearm&delivery=thread&prepare=0", UFFDWP_MECHANISM_REARM, UFFDWP_DELIVERY_THREAD},
        {"mechanism=rearm&delivery=inline&prepare=0", UFFDWP_MECHANISM_REARM, UFFDWP_DELIVERY_INLINE},
        {"mechanism=minor&delivery=thread", UFFDWP_MECHANISM_MINOR, UFFDWP_DELIVERY_THREAD},
        {"mechanism=minor&delivery=inline", UFFDWP_MECHANISM_MINOR, UFFDWP_DELIVERY_INLINE},
        {"mechanism=minor&delivery=thread&prepare=0", UFFDWP_MECHANISM_MINOR, UFFDWP_DELIVERY_THREAD},
        {"mechanism=minor&delivery=inline&prepare=0", UFFDWP_MECHANISM_MINOR, UFFDWP_DELIVERY_INLINE},
        {"mechanism=mprotect&delivery=inline", UFFDWP_MECHANISM_MPROTECT, UFFDWP_DELIVERY_INLINE},
        {"mechanism=mprotect&delivery=inline&prepare=0", UFFDWP_MECHANISM_MPROTECT, UFFDWP_DELIVERY_INLINE},
        {"mechanism=mprotect&delivery=thread", UFFDWP_MECHANISM_MPROTECT, UFFDWP_DELIVERY_THREAD}, /* refused */
};

#define VARIANTS ((int)(sizeof(variants) / sizeof(variants[0])))

static struct probe_report probe = {0};

static char folder[SCRATCH_PATH];

static sqlite3 *open_uri(const char *uri)
{
	sqlite3 *db = NULL;
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI;
	ck_assert_int_eq(sqlite3_open_v2(uri, &db, flags, NULL), SQLITE_OK);
	return db;
}

/* A connection to the database "bank" in memory. */
static sqlite3 *open_bank(const char *parameters)
{
	char uri[256];
	snprintf(uri, sizeof(uri), "file:bank?vfs=uffdwp&%s", parameters);
	sqlite3 *db = open_uri(uri);
	sqlite3_busy_timeout(db, 20000);
	return db;
}

static sqlite3 *open_disk(const char *name)
{
	char path[SCRATCH_PATH];
	sqlite3 *db = NULL;
	scratch_join(path, folder, name);
	ck_assert_int_eq(sqlite3_open(path, &db), SQLITE_OK);
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

/* The statement fails, and says this. */
static void bad(sqlite3 *db, const char *sql, const char *text)
{
	ck_assert_msg(run(db, sql) != SQLITE_OK, "%s", sql);
	ck_assert_msg(strstr(sqlite3_errmsg(db), text) != NULL, "%s: %s", sql, sqlite3_errmsg(db));
}

/* The first column of the first row. */
static void query(sqlite3 *db, const char *sql, char *text, size_t size)
{
	sqlite3_stmt *statement = NULL;
	int result = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);
	ck_assert_msg(result == SQLITE_OK, "%s: %s", sql, sqlite3_errmsg(db));
	result = sqlite3_step(statement);
	ck_assert_msg(result == SQLITE_ROW, "%s: %s", sql, sqlite3_errmsg(db));
	const char *value = (const char *)sqlite3_column_text(statement, 0);
	snprintf(text, size, "%s", value ? value : "");
	sqlite3_finalize(statement);
}

static void expect(sqlite3 *db, const char *sql, const char *wanted)
{
	char text[256];
	query(db, sql, text, sizeof(text));
	ck_assert_str_eq(text, wanted);
}

static void expect_whole(sqlite3 *db)
{
	expect(db, "PRAGMA integrity_check", "ok");
}

static void fill(sqlite3 *db)
{
	char sql[512];
	snprintf(sql, sizeof(sql),
	         "CREATE TABLE a(id INTEGER PRIMARY KEY, balance INTEGER, filler TEXT);"
	         "CREATE TABLE history(delta INTEGER);"
	         "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)"
	         " INSERT INTO a SELECT i, 0, hex(zeroblob(200)) FROM n",
	         ROWS);
	good(db, sql);
}

static void expect_image(const char *name, const char *sql, const char *wanted)
{
	sqlite3 *db = open_disk(name);
	expect_whole(db);
	expect(db, sql, wanted);
	sqlite3_close(db);
}

static const struct probe_rung *rung_of(const struct variant *variant)
{
	return &probe.memory[UFFDWP_MEMORY_SHMEM].rungs[variant->mechanism];
}

/* Why this machine does not offer a variant, or NULL. */
static const char *impossible(const struct variant *variant)
{
	const struct probe_rung *rung = rung_of(variant);
	int is_inline = variant->delivery == UFFDWP_DELIVERY_INLINE;
	if (!rung->works)
		return rung->reason;
	if (is_inline ? !rung->inline_works : !rung->thread_works)
		return is_inline ? "not by inline delivery" : "not by a handler thread";
	/* As for the other tests: a run may leave out what the thread sanitizer cannot follow. */
	const char *deliveries = getenv("UFFDWP_TEST_DELIVERY");
	return is_inline && deliveries && strcmp(deliveries, "thread") == 0 ? "left out by UFFDWP_TEST_DELIVERY" : NULL;
}

/* Once, for all the loops over the variants. */
static void say_impossible(void)
{
	for (int i = 0; i < VARIANTS; i++) {
		const char *reason = impossible(&variants[i]);
		if (reason)
			support_note(variants[i].parameters, reason);
	}
}

static void setup(void)
{
	extension_load(folder);
}

/* ------------------------------------------------------------------------------------------------------ sharing -- */

START_TEST(test_connections_share_a_database_by_its_name)
{
	sqlite3 *first = open_bank("");
	sqlite3 *second = open_bank("");
	sqlite3 *other = open_uri("file:other?vfs=uffdwp");
	good(first, "CREATE TABLE t(x); INSERT INTO t VALUES(7)");
	expect(second, "SELECT x FROM t", "7");
	expect(other, "SELECT count(*) FROM sqlite_schema", "0");
	good(second, "UPDATE t SET x = 8");
	expect(first, "SELECT x FROM t", "8");
	sqlite3_close(first);
	expect(second, "SELECT x FROM t", "8");
	sqlite3_close(second);
	sqlite3_close(other);
}
END_TEST

START_TEST(test_database_is_gone_after_its_last_close)
{
	sqlite3 *db = open_bank("");
	good(db, "CREATE TABLE t(x)");
	sqlite3_close(db);
	ck_assert_int_ne(access("bank", F_OK), 0);
	db = open_bank("");
	expect(db, "SELECT count(*) FROM sqlite_schema", "0");
	sqlite3_close(db);
}
END_TEST

START_TEST(test_only_an_open_database_can_be_opened_without_create)
{
	sqlite3 *db = NULL;
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_URI;
	ck_assert_int_eq(sqlite3_open_v2("file:bank?vfs=uffdwp", &db, flags, NULL), SQLITE_CANTOPEN);
	sqlite3_close(db);
	sqlite3 *owner = open_bank("");
	good(owner, "CREATE TABLE t(x)");
	ck_assert_int_eq(sqlite3_open_v2("file:bank?vfs=uffdwp&mode=ro", &db, flags, NULL), SQLITE_OK);
	expect(db, "SELECT count(*) FROM t", "0");
	bad(db, "INSERT INTO t VALUES(1)", "readonly");
	sqlite3_close(db);
	sqlite3_close(owner);
}
END_TEST

START_TEST(test_parameters_that_are_wrong_are_refused_with_a_text)
{
	static const char *const wrong[] = {
	        "size=x",        "size=0",          "size=4X",          "size=2M&capacity=1M",
	        "delivery=post", "mechanism=magic", "mechanismus=auto", "nolock=1"};
	sqlite3 *plain = open_uri(":memory:");
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		char uri[128];
		char text[256];
		sqlite3 *db = NULL;
		snprintf(uri, sizeof(uri), "file:bank?vfs=uffdwp&%s", wrong[i]);
		ck_assert_int_eq(
		        sqlite3_open_v2(uri, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, NULL),
		        SQLITE_CANTOPEN);
		sqlite3_close(db);
		query(plain, "SELECT uffdwp_error()", text, sizeof(text));
		ck_assert_ptr_nonnull(strchr(text, '='));
	}
	sqlite3_close(plain);
}
END_TEST

START_TEST(test_parameters_of_sqlite_itself_are_let_through)
{
	sqlite3 *db = open_bank("mode=rwc&cache=private&psow=1&nolock=0&immutable=0&modeof=.");
	good(db, "CREATE TABLE t(x)");
	sqlite3_close(db);
}
END_TEST

START_TEST(test_mechanism_and_delivery_asked_for_are_had_or_refused_with_the_reason)
{
	const struct variant *variant = &variants[_i];
	const struct probe_rung *rung = rung_of(variant);
	int is_inline = variant->delivery == UFFDWP_DELIVERY_INLINE;
	char uri[128];
	char text[600];
	sqlite3 *db = NULL;
	sqlite3 *plain = open_uri(":memory:");
	snprintf(uri, sizeof(uri), "file:bank?vfs=uffdwp&%s", variant->parameters);
	int result = sqlite3_open_v2(uri, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, NULL);
	if (rung->works && (is_inline ? rung->inline_works : rung->thread_works)) {
		ck_assert_int_eq(result, SQLITE_OK);
		query(db, "SELECT uffdwp_stats() ->> 'mechanism'", text, sizeof(text));
		ck_assert_ptr_nonnull(strstr(variant->parameters, text));
		query(db, "SELECT uffdwp_stats() ->> 'delivery'", text, sizeof(text));
		ck_assert_ptr_nonnull(strstr(variant->parameters, text));
	} else {
		ck_assert_int_eq(result, SQLITE_CANTOPEN);
		query(plain, "SELECT uffdwp_error()", text, sizeof(text));
		ck_assert_str_ne(text, "");
	}
	sqlite3_close(db);
	sqlite3_close(plain);
}
END_TEST

START_TEST(test_file_on_disk_and_database_in_memory_keep_apart)
{
	sqlite3 *disk = open_disk("bank");
	sqlite3 *db = NULL;
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI;
	good(disk, "CREATE TABLE d(x)");
	ck_assert_int_eq(sqlite3_open_v2("file:bank?vfs=uffdwp", &db, flags, NULL), SQLITE_CANTOPEN);
	sqlite3_close(db);
	sqlite3_close(disk);
	ck_assert_int_eq(unlink("bank"), 0);
	db = open_bank("");
	good(db, "CREATE TABLE t(x)");
	bad(db, "ATTACH 'bank' AS d", "unable to open");
	good(db, "ATTACH 'beside.db' AS d; CREATE TABLE d.u(x)");
	good(db, "BEGIN; INSERT INTO t VALUES(1); INSERT INTO d.u VALUES(2); COMMIT");
	good(db, "BEGIN; INSERT INTO t VALUES(1); INSERT INTO d.u VALUES(2); ROLLBACK");
	expect(db, "SELECT (SELECT count(*) FROM t) || (SELECT count(*) FROM d.u)", "11");
	sqlite3_close(db);
	expect_image("beside.db", "SELECT x FROM u", "2");
	ck_assert_uint_eq(scratch_entries(folder), 1);
}
END_TEST

/* --------------------------------------------------------------------------------------------------------- size -- */

START_TEST(test_database_grows_beyond_its_first_size)
{
	sqlite3 *db = open_bank("size=64K");
	good(db, "CREATE TABLE t(x); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40)"
	         " INSERT INTO t SELECT randomblob(1000000) FROM n");
	expect_whole(db);
	expect(db, "SELECT uffdwp_stats() ->> 'length_bytes' > 40000000", "1");
	sqlite3_close(db);
}
END_TEST

START_TEST(test_database_at_its_capacity_is_full_and_stays_usable)
{
	sqlite3 *db = open_bank("size=1M&capacity=2M");
	good(db, "CREATE TABLE t(x); INSERT INTO t VALUES(randomblob(500000))");
	ck_assert_int_eq(run(db, "INSERT INTO t VALUES(zeroblob(3000000))"), SQLITE_FULL);
	expect(db, "SELECT count(*) FROM t", "1");
	good(db, "INSERT INTO t VALUES(randomblob(500000))");
	expect_whole(db);
	sqlite3_close(db);
}
END_TEST

START_TEST(test_vacuumed_database_shrinks_and_grows_again)
{
	sqlite3 *db = open_bank("");
	sqlite3 *reader = open_bank("");
	fill(db);
	for (int i = 0; i < 3; i++) {
		good(db, "CREATE TABLE t(x); INSERT INTO t VALUES(randomblob(5000000))");
		expect(reader, "SELECT uffdwp_stats() ->> 'size_bytes' > 5000000", "1");
		good(db, "DROP TABLE t; VACUUM");
		expect(reader, "SELECT uffdwp_stats() ->> 'size_bytes' < 3000000", "1");
		expect_whole(reader);
	}
	sqlite3_close(reader);
	sqlite3_close(db);
}
END_TEST

START_TEST(test_mapped_reads_see_what_others_write)
{
	sqlite3 *writer = open_bank("");
	sqlite3 *reader = open_bank("");
	good(reader, "PRAGMA mmap_size=100000000");
	expect(reader, "PRAGMA mmap_size", "100000000");
	fill(writer);
	expect(reader, "SELECT sum(balance) FROM a", "0");
	good(writer, "UPDATE a SET balance = 1; DELETE FROM a WHERE id > 100; VACUUM");
	expect(reader, "SELECT sum(balance) FROM a", "100");
	expect_whole(reader);
	sqlite3_close(reader);
	sqlite3_close(writer);
}
END_TEST

/* -------------------------------------------------------------------------------------------------------- locks -- */

START_TEST(test_locks_refuse_as_sqlite_defines_them)
{
	sqlite3 *one = open_bank("");
	sqlite3 *two = open_bank("");
	sqlite3 *three = open_bank("");
	good(one, "CREATE TABLE t(x)");
	sqlite3_busy_timeout(one, 0);
	sqlite3_busy_timeout(two, 0);
	sqlite3_busy_timeout(three, 0);

	good(one, "BEGIN IMMEDIATE; INSERT INTO t VALUES(1)");
	ck_assert_int_eq(run(two, "BEGIN IMMEDIATE"), SQLITE_BUSY);
	good(two, "BEGIN");
	expect(two, "SELECT count(*) FROM t", "0");        /* SHARED beside RESERVED */
	ck_assert_int_eq(run(one, "COMMIT"), SQLITE_BUSY); /* PENDING now */
	ck_assert_int_eq(run(three, "SELECT * FROM t"), SQLITE_BUSY);
	expect(two, "SELECT count(*) FROM t", "0");
	good(two, "COMMIT");
	good(one, "COMMIT");
	expect(three, "SELECT count(*) FROM t", "1");

	good(one, "BEGIN EXCLUSIVE");
	ck_assert_int_eq(run(two, "SELECT * FROM t"), SQLITE_BUSY);
	good(one, "ROLLBACK");
	good(two, "INSERT INTO t VALUES(2)");
	sqlite3_close(one);
	sqlite3_close(two);
	sqlite3_close(three);
}
END_TEST

struct counter {
	pthread_t thread;
	_Atomic int *stop; /* NULL: TRANSACTIONS of them */
	unsigned number;
};

/* Adds to one row what it writes down in the history: the rule of the bank (INV-BANK) in small. */
static void *count(void *argument)
{
	struct counter *counter = argument;
	char sql[256];
	sqlite3 *db = open_bank("");
	for (int i = 0; counter->stop ? !*counter->stop : i < TRANSACTIONS; i++) {
		unsigned row = (counter->number * 7919U + (unsigned)i * 104729U) % ROWS + 1;
		snprintf(sql, sizeof(sql),
		         "BEGIN IMMEDIATE; UPDATE a SET balance = balance + %d WHERE id = %u;"
		         "INSERT INTO history VALUES(%d); COMMIT",
		         i, row, i);
		must(run(db, sql) == SQLITE_OK);
	}
	sqlite3_close(db);
	return NULL;
}

static void counters_start(struct counter *counters, _Atomic int *stop)
{
	for (unsigned i = 0; i < WRITERS; i++) {
		counters[i] = (struct counter){.stop = stop, .number = i};
		counters[i].thread = thread_start(count, &counters[i]);
	}
}

static void counters_join(struct counter *counters)
{
	for (unsigned i = 0; i < WRITERS; i++)
		thread_join(counters[i].thread);
}

START_TEST(test_writers_in_threads_wait_for_each_other)
{
	struct counter counters[WRITERS];
	char wanted[32];
	sqlite3 *db = open_bank("");
	fill(db);
	counters_start(counters, NULL);
	counters_join(counters);
	snprintf(wanted, sizeof(wanted), "%d", WRITERS * TRANSACTIONS);
	expect(db, "SELECT count(*) FROM history", wanted);
	expect(db, "SELECT (SELECT sum(balance) FROM a) = (SELECT sum(delta) FROM history)", "1");
	expect_whole(db);
	sqlite3_close(db);
}
END_TEST

/* INV-NO-WAL */
START_TEST(test_write_ahead_log_is_not_taken_and_breaks_nothing)
{
	sqlite3 *db = open_bank("");
	sqlite3 *other = open_bank("");
	fill(db);
	expect(db, "PRAGMA journal_mode=wal", "delete");
	good(db, "PRAGMA locking_mode=exclusive");
	bad(db, "PRAGMA journal_mode=wal", "no write-ahead log");
	good(db, "PRAGMA locking_mode=normal; UPDATE a SET balance = 0");
	expect(other, "SELECT count(*) > 1 FROM a", "1");
	expect_whole(other);
	sqlite3_close(db);
	sqlite3_close(other);
}
END_TEST

START_TEST(test_every_journal_mode_rolls_back)
{
	static const char *const modes[] = {"delete", "truncate", "persist", "memory"};
	sqlite3 *db = open_bank("");
	fill(db);
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		char sql[128];
		snprintf(sql, sizeof(sql), "PRAGMA journal_mode=%s", modes[i]);
		expect(db, sql, modes[i]);
		good(db, "PRAGMA cache_size=5; BEGIN; UPDATE a SET balance = 5; ROLLBACK"); /* spills */
		expect(db, "SELECT sum(balance) FROM a", "0");
		good(db, "BEGIN; UPDATE a SET balance = 1; COMMIT; UPDATE a SET balance = 0");
		expect_whole(db);
	}
	sqlite3_close(db);
}
END_TEST

/* ---------------------------------------------------------------------------------------------------- snapshots -- */

/* INV-BOUNDARY */
START_TEST(test_images_under_load_are_states_between_transactions)
{
	struct counter counters[WRITERS];
	_Atomic int stop = 0;
	char images[16];
	if (impossible(&variants[_i]))
		return;
	sqlite3 *db = open_bank(variants[_i].parameters);
	fill(db);
	counters_start(counters, &stop);
	for (unsigned i = 0; i < IMAGES; i++) {
		expect(db, "SELECT uffdwp_snapshot('image.db', 'wait') ->> 'state'", "committed");
		expect_image("image.db",
		             "SELECT (SELECT sum(balance) FROM a) = (SELECT coalesce(sum(delta), 0) FROM history)",
		             "1");
	}
	stop = 1;
	counters_join(counters);
	snprintf(images, sizeof(images), "%u", IMAGES);
	expect(db, "SELECT uffdwp_stats() ->> 'snapshots'", images);
	expect_whole(db);
	sqlite3_close(db);
}
END_TEST

START_TEST(test_image_shows_the_cut_and_not_what_was_written_after_it)
{
	if (impossible(&variants[_i]))
		return;
	sqlite3 *db = open_bank(variants[_i].parameters);
	fill(db);
	for (int i = 0; i < 5; i++) {
		char wanted[32];
		snprintf(wanted, sizeof(wanted), "%d", i * ROWS);
		good(db, "SELECT uffdwp_snapshot('image.db')");
		good(db,
		     "UPDATE a SET balance = balance + 1; CREATE TABLE t(x); INSERT INTO t VALUES(zeroblob(900000))");
		good(db, "DROP TABLE t; VACUUM");
		while (run(db, "SELECT uffdwp_snapshot('later.db', 'wait')") == SQLITE_BUSY)
			sleep_us(1000);
		expect_image("image.db", "SELECT sum(balance) FROM a", wanted);
		expect_image("image.db", "SELECT count(*) FROM sqlite_schema", "2");
	}
	sqlite3_close(db);
}
END_TEST

START_TEST(test_snapshot_waits_for_the_writer_and_gives_up_in_time)
{
	sqlite3 *writer = open_bank("");
	sqlite3 *db = open_bank("");
	fill(writer);
	sqlite3_busy_timeout(db, 50);
	good(writer, "BEGIN EXCLUSIVE; UPDATE a SET balance = 1");
	ck_assert_int_eq(run(db, "SELECT uffdwp_snapshot('image.db')"), SQLITE_BUSY);
	ck_assert_uint_eq(scratch_entries(folder), 0);
	good(writer, "ROLLBACK; BEGIN IMMEDIATE; UPDATE a SET balance = 2");
	expect(db, "SELECT uffdwp_snapshot('image.db', 'wait') ->> 'state'", "committed"); /* beside RESERVED */
	good(writer, "COMMIT");
	expect_image("image.db", "SELECT sum(balance) FROM a", "0");
	sqlite3_close(writer);
	sqlite3_close(db);
}
END_TEST

START_TEST(test_last_close_waits_for_a_running_snapshot)
{
	sqlite3 *db = open_bank("");
	fill(db);
	good(db, "INSERT INTO a SELECT id + 100000, 0, randomblob(4000) FROM a");
	good(db, "SELECT uffdwp_snapshot('image.db')");
	sqlite3_close(db);
	expect_image("image.db", "SELECT count(*) FROM a", "4000");
}
END_TEST

/* What a chain shows, as a file that SQLite knows. */
static void merge(const char *name)
{
	struct uffdwp_image *image = NULL;
	ck_assert_int_eq(uffdwp_image_open(name, NULL, &image), 0);
	ck_assert_int_eq(uffdwp_image_merge(image, "merged.db", NULL), 0);
	ck_assert_int_eq(uffdwp_image_close(image), 0);
}

START_TEST(test_deltas_under_load_are_states_between_transactions)
{
	struct counter counters[WRITERS];
	_Atomic int stop = 0;
	char sql[128];
	if (impossible(&variants[_i]) || variants[_i].mechanism > UFFDWP_MECHANISM_REARM)
		return;
	sqlite3 *db = open_bank(variants[_i].parameters);
	fill(db);
	bad(db, "SELECT uffdwp_snapshot('delta0', 'delta')", "of what");
	expect(db, "SELECT uffdwp_snapshot('delta0', 'wait') ->> 'state'", "committed");
	bad(db, "SELECT uffdwp_snapshot('delta1', 'delta')", "UFFDWP_SNAPSHOT_KEEP");
	expect(db, "SELECT uffdwp_snapshot('delta0', 'keep, wait') ->> 'state'", "committed");
	counters_start(counters, &stop);
	for (unsigned i = 1; i <= DELTAS; i++) {
		snprintf(sql, sizeof(sql), "SELECT uffdwp_snapshot('delta%u', 'delta wait') ->> 'state'", i);
		expect(db, sql, "committed");
	}
	stop = 1;
	counters_join(counters);
	for (unsigned i = 0; i <= DELTAS; i += 4) {
		snprintf(sql, sizeof(sql), "delta%u", i);
		merge(sql);
		expect_image("merged.db",
		             "SELECT (SELECT sum(balance) FROM a) = (SELECT coalesce(sum(delta), 0) FROM history)",
		             "1");
	}
	expect_whole(db);
	sqlite3_close(db);
}
END_TEST

START_TEST(test_bad_snapshots_are_refused_and_leave_all_usable)
{
	sqlite3 *db = open_bank("");
	sqlite3 *plain = open_uri(":memory:");
	bad(db, "SELECT uffdwp_snapshot('image.db')", "empty");
	fill(db);
	bad(plain, "SELECT uffdwp_snapshot('image.db')", "not in the VFS");
	bad(db, "SELECT uffdwp_snapshot('no/such/folder/image.db')", "No such file");
	bad(db, "SELECT uffdwp_snapshot('')", "path");
	bad(db, "SELECT uffdwp_snapshot(NULL)", "path");
	bad(db, "SELECT uffdwp_snapshot(x'00')", "path");
	bad(db, "SELECT uffdwp_snapshot('a' || char(0) || 'b')", "path");
	bad(db, "SELECT uffdwp_snapshot('image.db', 'now')", "'wait'");
	bad(db, "SELECT uffdwp_snapshot('image.db', 'wait', 'nowhere')", "not in the VFS");
	bad(db, "SELECT uffdwp_snapshot()", "arguments");
	bad(db, "SELECT uffdwp_snapshot('.')", "directory");
	scratch_write("image.db-journal", "x", 1);
	bad(db, "SELECT uffdwp_snapshot('image.db')", "it would be taken for the image's");
	ck_assert_int_eq(unlink("image.db-journal"), 0);
	bad(db, "SELECT uffdwp_snapshot('bank')", "a database in memory");
	good(db, "ATTACH 'beside.db' AS side; CREATE TABLE side.t(x)");
	bad(db, "SELECT uffdwp_snapshot('./beside.db')", "attached as side");
	good(db, "DETACH side");
	ck_assert_int_eq(unlink("beside.db"), 0);
	good(db, "BEGIN; UPDATE a SET balance = 1");
	bad(db, "SELECT uffdwp_snapshot('image.db')", "write transaction");
	good(db, "ROLLBACK");
	ck_assert_uint_eq(scratch_entries(folder), 0);
	expect(db, "SELECT uffdwp_snapshot_status() ->> 'state'", "none");
	expect(db, "SELECT uffdwp_snapshot('image.db', 'wait') ->> 'state'", "committed");
	expect_image("image.db", "SELECT sum(balance) FROM a", "0");
	sqlite3_close(plain);
	sqlite3_close(db);
}
END_TEST

START_TEST(test_status_and_stats_report_the_last_snapshot)
{
	sqlite3 *db = open_bank("size=8M&delivery=inline");
	bad(db, "SELECT uffdwp_stats('nowhere')", "not in the VFS");
	bad(db, "SELECT uffdwp_snapshot_status(1)", "schema");
	fill(db);
	good(db, "SELECT uffdwp_snapshot('im\"age.db', 'wait')");
	expect(db, "SELECT uffdwp_snapshot_status() ->> 'id'", "1");
	expect(db, "SELECT uffdwp_snapshot_status() ->> 'path'", "im\"age.db");
	expect(db, "SELECT uffdwp_snapshot_status() ->> 'length_bytes' = uffdwp_stats() ->> 'size_bytes'", "1");
	/* The pause is a part of begin. */
	expect(db, "SELECT j ->> 'pause_ns' BETWEEN 1 AND j ->> 'begin_ns' FROM (SELECT uffdwp_snapshot_status() AS j)",
	       "1");
	expect(db, "SELECT uffdwp_stats() ->> 'delivery'", "inline");
	expect(db, "SELECT uffdwp_stats('main') ->> 'length_bytes'", "8388608");
	sqlite3_close(db);
}
END_TEST

/* --------------------------------------------------------------------------------------------------------- load -- */

START_TEST(test_load_takes_a_file_of_another_page_size_with_a_write_ahead_log)
{
	char parameters[128];
	if (impossible(&variants[_i]))
		return;
	snprintf(parameters, sizeof(parameters), "size=64K&%s", variants[_i].parameters);
	sqlite3 *disk = open_disk("source.db");
	sqlite3 *db = open_bank(parameters);
	sqlite3 *other = open_bank("");
	good(disk, "PRAGMA page_size=512; PRAGMA journal_mode=wal; CREATE TABLE s(x)");
	good(disk,
	     "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) INSERT INTO s SELECT i"
	     " FROM n");
	good(other, "CREATE TABLE gone(x)");
	expect(other, "SELECT count(*) FROM gone", "0");
	good(db, "SELECT uffdwp_load('source.db')"); /* while the source is open: part of it is in its log */
	expect(db, "SELECT sum(x) FROM s", "12502500");
	expect(other, "SELECT sum(x) FROM s", "12502500");
	expect(other, "PRAGMA page_size", "512");
	expect(other, "PRAGMA journal_mode", "delete");
	good(other, "INSERT INTO s VALUES(1)");
	expect_whole(db);
	expect(db, "SELECT uffdwp_snapshot('image.db', 'wait') ->> 'state'", "committed");
	expect_image("image.db", "SELECT count(*) FROM s", "5001");
	sqlite3_close(disk);
	sqlite3_close(db);
	sqlite3_close(other);
}
END_TEST

START_TEST(test_bad_loads_change_nothing)
{
	static char text[5000];
	sqlite3 *db = open_bank("capacity=16M");
	sqlite3 *reader = open_bank("");
	sqlite3 *disk = open_disk("large.db");
	fill(db);
	good(disk, "CREATE TABLE l(x); INSERT INTO l VALUES(randomblob(20000000))");
	sqlite3_close(disk);
	memset(text, 't', sizeof(text));
	scratch_write("text.db", text, sizeof(text));
	bad(db, "SELECT uffdwp_load('none.db')", "unable to open");
	bad(db, "SELECT uffdwp_load(':memory:')", "unable to open");
	bad(db, "SELECT uffdwp_load('/dev/null')", "not a file on disk");
	bad(db, "SELECT uffdwp_load('text.db')", "not a database");
	bad(db, "SELECT uffdwp_load('.')", "uffdwp_load: .: ");
	bad(db, "SELECT uffdwp_load('')", "path");
	bad(db, "SELECT uffdwp_load(7)", "path");
	bad(db, "SELECT uffdwp_load('large.db', 'temp')", "not in the VFS");
	bad(db, "SELECT uffdwp_load('large.db')", "full");
	good(db, "BEGIN; SELECT count(*) FROM a");
	bad(db, "SELECT uffdwp_load('large.db')", "transaction");
	good(db, "COMMIT; PRAGMA busy_timeout=50");
	good(reader, "BEGIN; SELECT count(*) FROM a");
	ck_assert_int_eq(run(db, "SELECT uffdwp_load('large.db')") == SQLITE_OK, 0);
	good(reader, "COMMIT");
	expect(db, "SELECT count(*) FROM a", "2000");
	expect_whole(reader);
	good(db, "UPDATE a SET balance = 1");
	sqlite3_close(reader);
	sqlite3_close(db);
}
END_TEST

static Suite *suite_new(void)
{
	Suite *suite = suite_create("sqlite");
	TCase *all = tcase_create("extension");
	tcase_add_checked_fixture(all, setup, NULL);
	tcase_set_timeout(all, 120);
	tcase_add_test(all, test_connections_share_a_database_by_its_name);
	tcase_add_test(all, test_database_is_gone_after_its_last_close);
	tcase_add_test(all, test_only_an_open_database_can_be_opened_without_create);
	tcase_add_test(all, test_parameters_that_are_wrong_are_refused_with_a_text);
	tcase_add_test(all, test_parameters_of_sqlite_itself_are_let_through);
	tcase_add_loop_test(all, test_mechanism_and_delivery_asked_for_are_had_or_refused_with_the_reason, 0, VARIANTS);
	tcase_add_test(all, test_file_on_disk_and_database_in_memory_keep_apart);
	tcase_add_test(all, test_database_grows_beyond_its_first_size);
	tcase_add_test(all, test_database_at_its_capacity_is_full_and_stays_usable);
	tcase_add_test(all, test_vacuumed_database_shrinks_and_grows_again);
	tcase_add_test(all, test_mapped_reads_see_what_others_write);
	tcase_add_test(all, test_locks_refuse_as_sqlite_defines_them);
	tcase_add_test(all, test_writers_in_threads_wait_for_each_other);
	tcase_add_test(all, test_write_ahead_log_is_not_taken_and_breaks_nothing);
	tcase_add_test(all, test_every_journal_mode_rolls_back);
	tcase_add_loop_test(all, test_images_under_load_are_states_between_transactions, 0, VARIANTS);
	tcase_add_loop_test(all, test_deltas_under_load_are_states_between_transactions, 0, VARIANTS);
	tcase_add_loop_test(all, test_image_shows_the_cut_and_not_what_was_written_after_it, 0, VARIANTS);
	tcase_add_test(all, test_snapshot_waits_for_the_writer_and_gives_up_in_time);
	tcase_add_test(all, test_last_close_waits_for_a_running_snapshot);
	tcase_add_test(all, test_bad_snapshots_are_refused_and_leave_all_usable);
	tcase_add_test(all, test_status_and_stats_report_the_last_snapshot);
	tcase_add_loop_test(all, test_load_takes_a_file_of_another_page_size_with_a_write_ahead_log, 0, VARIANTS);
	tcase_add_test(all, test_bad_loads_change_nothing);
	suite_add_tcase(suite, all);
	return suite;
}

int main(void)
{
	static const struct support_needs needs = {.huge_pages = 0, .swap = 0};
	const char *extension = getenv("UFFDWP_EXTENSION");
	support_begin(TEST_NAME, &needs);
	if (!extension || access(extension, R_OK) != 0)
		return support_skip("the SQLite extension was not built (UFFDWP_EXTENSION says where it is)");
	must(probe_run(&kernel_real, &probe) == 0);
	if (probe.memory[UFFDWP_MEMORY_SHMEM].mechanism == UFFDWP_MECHANISM_AUTO)
		return support_skip(probe.memory[UFFDWP_MEMORY_SHMEM].reason);
	say_impossible();
	return support_run(suite_new());
}
