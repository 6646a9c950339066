/* SPDX-License-Identifier: MIT */
/* What the tests of the SQLite extension share. Beside SQLite itself, which only these are linked with. */
#ifndef UFFDWP_TESTS_EXTENSION_H
#define UFFDWP_TESTS_EXTENSION_H

#include <check.h>
#include <stdlib.h>
#include <unistd.h>

#include <sqlite3.h>

#include "scratch.h"

/* A folder for the running test, which works in it from then on, and the extension, as a program loads it: it stays for
 * all connections. */
static inline void extension_load(char folder[SCRATCH_PATH])
{
	sqlite3 *db = NULL;
	char *error = NULL;
	scratch_folder(folder);
	ck_assert_int_eq(chdir(folder), 0);
	ck_assert_int_eq(sqlite3_open(":memory:", &db), SQLITE_OK);
	ck_assert_int_eq(sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, NULL), SQLITE_OK);
	int result = sqlite3_load_extension(db, getenv("UFFDWP_EXTENSION"), "sqlite3_uffdwpsqlite_init", &error);
	ck_assert_msg(result == SQLITE_OK, "%s", error ? error : "");
	sqlite3_close(db);
}

#endif
