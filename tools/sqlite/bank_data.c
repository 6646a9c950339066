/* SPDX-License-Identifier: MIT */
/*
 * The bank's tables: generated up to a size, or added to a copy of the user's database. Their names begin with
 * uffdwp_bank_, so that no other table has such a name.
 */
#include "bank.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ACCOUNTS_PER_BRANCH 10000
#define BRANCHES_BESIDE_USER_DATA 10
#define GROWTH_SHARE 4 /* the region keeps room for this many times its first size */

int bank_fail(sqlite3 *db, const char *what)
{
	fprintf(stderr, "uffdwp-bank: %s: %s\n", what, db ? sqlite3_errmsg(db) : "no memory");
	return -1;
}

int bank_exec(sqlite3 *db, const char *sql)
{
	return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : bank_fail(db, sql);
}

char *bank_path(const char *folder, const char *name, unsigned number)
{
	return number ? sqlite3_mprintf("%s/%s-%u.db", folder, name, number)
	              : sqlite3_mprintf("%s/%s.db", folder, name);
}

/* The one number that a query gives. */
static int bank_data_query_number(sqlite3 *db, const char *sql, int64_t *number)
{
	sqlite3_stmt *statement = NULL;
	int result = -1;
	if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW) {
		*number = sqlite3_column_int64(statement, 0);
		result = 0;
	} else {
		bank_fail(db, sql);
	}
	sqlite3_finalize(statement);
	return result;
}

char *bank_beside(const char *name)
{
	char program[4096];
	ssize_t length = readlink("/proc/self/exe", program, sizeof(program) - 1);
	if (length < 0)
		return NULL;
	program[length] = 0;
	char *slash = strrchr(program, '/');
	if (slash)
		*slash = 0;
	return sqlite3_mprintf("%s/%s", program, name);
}

static int bank_data_load_extension(const char *path)
{
	sqlite3 *db = NULL;
	char *error = NULL;
	char *own = path ? NULL : bank_beside("../lib/uffdwp_sqlite.so");
	int result = sqlite3_open(":memory:", &db);
	if (result == SQLITE_OK)
		result = sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, NULL);
	if (result == SQLITE_OK)
		result = sqlite3_load_extension(db, path ? path : own, "sqlite3_uffdwpsqlite_init", &error);
	if (result != SQLITE_OK)
		fprintf(stderr, "uffdwp-bank: the extension: %s\n", error ? error : sqlite3_errmsg(db));
	sqlite3_free(error);
	sqlite3_free(own);
	sqlite3_close(db);
	return result == SQLITE_OK ? 0 : -1;
}

/* The one text that a query gives, or NULL; to be freed with sqlite3_free(). */
static char *bank_data_query_text(sqlite3 *db, const char *sql)
{
	sqlite3_stmt *statement = NULL;
	char *text = NULL;
	if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW)
		text = sqlite3_mprintf("%s", sqlite3_column_text(statement, 0));
	sqlite3_finalize(statement);
	return text;
}

/* Why the VFS refused to open. */
static void bank_data_print_open_error(const char *otherwise)
{
	sqlite3 *db = NULL;
	char *text =
	        sqlite3_open(":memory:", &db) == SQLITE_OK ? bank_data_query_text(db, "SELECT uffdwp_error()") : NULL;
	fprintf(stderr, "uffdwp-bank: the database cannot be opened: %s\n", text && *text ? text : otherwise);
	sqlite3_free(text);
	sqlite3_close(db);
}

int bank_connect(const struct bank *bank, sqlite3 **out)
{
	sqlite3 *db = NULL;
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI;
	if (sqlite3_open_v2(bank->uri, &db, flags, NULL) != SQLITE_OK) {
		bank_data_print_open_error(db ? sqlite3_errmsg(db) : "no memory");
		sqlite3_close(db);
		return -1;
	}
	sqlite3_busy_timeout(db, 600 * 1000);
	*out = db;
	return 0;
}

int bank_open(struct bank *bank, const struct bank_options *options)
{
	*bank = (struct bank){.db = NULL};
	if (bank_data_load_extension(options->extension) < 0)
		return -1;
	bank->uri = sqlite3_mprintf("file:uffdwp-bank-%d?vfs=uffdwp&size=%llu&mechanism=%s&delivery=%s&prepare=%d",
	                            (int)getpid(), (sqlite3_uint64)options->size_bytes, options->mechanism,
	                            options->delivery, options->prepare);
	if (!bank->uri)
		return bank_fail(NULL, "bank");
	if (bank_connect(bank, &bank->db) < 0)
		return -1;
	bank->mechanism = bank_data_query_text(bank->db, "SELECT uffdwp_stats() ->> 'mechanism'");
	bank->delivery = bank_data_query_text(bank->db, "SELECT uffdwp_stats() ->> 'delivery'");
	return bank->mechanism && bank->delivery ? 0 : bank_fail(bank->db, "uffdwp_stats()");
}

void bank_close(struct bank *bank)
{
	for (char **name = bank->tables; name && *name; name++)
		sqlite3_free(*name);
	free(bank->tables);
	sqlite3_close(bank->db);
	sqlite3_free(bank->mechanism);
	sqlite3_free(bank->delivery);
	sqlite3_free(bank->uri);
}

static int bank_data_create_tables(sqlite3 *db)
{
	return bank_exec(db,
	                 "CREATE TABLE uffdwp_bank_branches(id INTEGER PRIMARY KEY, balance INTEGER, filler TEXT);"
	                 "CREATE TABLE uffdwp_bank_tellers(id INTEGER PRIMARY KEY, branch INTEGER, balance INTEGER,"
	                 " filler TEXT);"
	                 "CREATE TABLE uffdwp_bank_accounts(id INTEGER PRIMARY KEY, branch INTEGER, balance INTEGER,"
	                 " filler TEXT);"
	                 "CREATE TABLE uffdwp_bank_history(id INTEGER PRIMARY KEY, teller INTEGER, branch INTEGER,"
	                 " account INTEGER, delta INTEGER, time_ns INTEGER)");
}

/* One branch, its 10 tellers, its accounts: rows of about 100 bytes, as TPC-B wants them. */
static int bank_data_add_branch(struct bank *bank)
{
	char *sql = sqlite3_mprintf(
	        "BEGIN;"
	        "INSERT INTO uffdwp_bank_branches VALUES(%lld, 0, printf('%%.*c', 88, 'b'));"
	        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10)"
	        " INSERT INTO uffdwp_bank_tellers SELECT %lld * 10 + i, %lld, 0, printf('%%.*c', 84, 't') FROM n;"
	        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)"
	        " INSERT INTO uffdwp_bank_accounts SELECT %lld + i, %lld, 0, printf('%%.*c', 84, 'a') FROM n;"
	        "COMMIT",
	        (sqlite3_int64)bank->branches + 1, (sqlite3_int64)bank->branches, (sqlite3_int64)bank->branches + 1,
	        ACCOUNTS_PER_BRANCH, (sqlite3_int64)bank->accounts, (sqlite3_int64)bank->branches + 1);
	int result = sql ? bank_exec(bank->db, sql) : bank_fail(NULL, "bank");
	sqlite3_free(sql);
	bank->branches++;
	bank->accounts += ACCOUNTS_PER_BRANCH;
	return result;
}

int bank_generate(struct bank *bank, uint64_t size_bytes)
{
	int64_t bytes = 0;
	int result = bank_data_create_tables(bank->db);
	while (result == 0 && (uint64_t)bytes < size_bytes) {
		result = bank_data_add_branch(bank);
		if (result == 0)
			result = bank_data_query_number(
			        bank->db, "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size",
			        &bytes);
	}
	return result;
}

/* Takes over the tables that an image of a former run holds. */
static int bank_data_adopt_tables(struct bank *bank)
{
	int64_t wrong = 0;
	if (bank_data_query_number(bank->db,
	                           "SELECT (SELECT total(balance) FROM uffdwp_bank_accounts) <>"
	                           " (SELECT total(delta) FROM uffdwp_bank_history)",
	                           &wrong) < 0 ||
	    bank_data_query_number(bank->db, "SELECT coalesce(max(id), 0) FROM uffdwp_bank_branches", &bank->branches) <
	            0 ||
	    bank_data_query_number(bank->db, "SELECT coalesce(max(id), 0) FROM uffdwp_bank_accounts", &bank->accounts) <
	            0)
		return -1;
	if (!wrong && bank->branches > 0 && bank->accounts > 0)
		return 0;
	fprintf(stderr, "uffdwp-bank: the database has tables named uffdwp_bank_*, but they are not a bank\n");
	return -1;
}

static int bank_data_add_tables(struct bank *bank)
{
	int result = bank_data_create_tables(bank->db);
	while (result == 0 && bank->branches < BRANCHES_BESIDE_USER_DATA)
		result = bank_data_add_branch(bank);
	return result;
}

static int bank_data_list_add(char ***list, size_t *count, const char *name)
{
	char **longer = realloc(*list, (*count + 2) * sizeof(*longer));
	if (!longer)
		return -1;
	*list = longer;
	longer[*count] = sqlite3_mprintf("%s", name);
	longer[*count + 1] = NULL;
	return longer[(*count)++] ? 0 : -1;
}

static int bank_data_list_tables(struct bank *bank)
{
	sqlite3_stmt *statement = NULL;
	size_t count = 0;
	int result = 0;
	if (sqlite3_prepare_v2(
	            bank->db,
	            "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0"
	            " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE 'uffdwp\\_bank\\_%' ESCAPE '\\'"
	            " ORDER BY name",
	            -1, &statement, NULL) != SQLITE_OK)
		return bank_fail(bank->db, "the list of tables");
	while (result == 0 && sqlite3_step(statement) == SQLITE_ROW)
		result = bank_data_list_add(&bank->tables, &count, (const char *)sqlite3_column_text(statement, 0));
	sqlite3_finalize(statement);
	return result;
}

static int bank_data_copy_file(struct bank *bank, const char *path)
{
	sqlite3_stmt *statement = NULL;
	int result = sqlite3_prepare_v2(bank->db, "SELECT uffdwp_load(?1)", -1, &statement, NULL);
	if (result == SQLITE_OK)
		result = sqlite3_bind_text(statement, 1, path, -1, SQLITE_STATIC);
	if (result == SQLITE_OK)
		result = sqlite3_step(statement);
	if (result != SQLITE_ROW)
		bank_fail(bank->db, "load");
	sqlite3_finalize(statement);
	return result == SQLITE_ROW ? 0 : -1;
}

static int bank_data_copy_pages(sqlite3 *from, sqlite3 *to)
{
	sqlite3_backup *backup = sqlite3_backup_init(to, "main", from, "main");
	int result = backup ? sqlite3_backup_step(backup, -1) : sqlite3_errcode(to);
	int finished = sqlite3_backup_finish(backup);
	if (backup && result == SQLITE_DONE)
		return finished;
	return finished != SQLITE_OK ? finished : result;
}

int bank_copy_file(const char *from, const char *to)
{
	sqlite3 *source = NULL;
	sqlite3 *target = NULL;
	int result = sqlite3_open_v2(from, &source, SQLITE_OPEN_READONLY, NULL);
	if (result == SQLITE_OK)
		result = sqlite3_open_v2(to, &target, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL);
	if (result == SQLITE_OK) {
		sqlite3_busy_timeout(source, 60 * 1000);
		result = bank_data_copy_pages(source, target);
	}
	/* So that readers of the copy need no log beside it. */
	if (result == SQLITE_OK)
		result = sqlite3_exec(target, "PRAGMA journal_mode=delete", NULL, NULL, NULL);
	if (result != SQLITE_OK)
		fprintf(stderr, "uffdwp-bank: %s cannot be read: %s\n", from, sqlite3_errstr(result));
	sqlite3_close(source);
	sqlite3_close(target);
	return result == SQLITE_OK ? 0 : -1;
}

int bank_load(struct bank *bank, const char *path)
{
	int64_t there = 0;
	if (bank_data_copy_file(bank, path) < 0 ||
	    bank_data_query_number(bank->db,
	                           "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'uffdwp\\_bank\\_%' ESCAPE '\\'",
	                           &there) < 0 ||
	    bank_data_list_tables(bank) < 0)
		return -1;
	return there ? bank_data_adopt_tables(bank) : bank_data_add_tables(bank);
}
