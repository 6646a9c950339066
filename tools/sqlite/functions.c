/* SPDX-License-Identifier: MIT */
/*
 * The SQL functions, and the entry point of the extension.
 *
 *   uffdwp_snapshot(path [, how [, schema]])      makes the cut ('wait': and the image; 'keep', 'delta'); JSON as of
 *                                                the status
 *   uffdwp_snapshot_status([schema])             JSON of the running or the last snapshot
 *   uffdwp_load(path [, how [, schema]])         replaces the content by that of a file ('lazy': as it is touched); the
 *                                                number of pages
 *   uffdwp_stats([schema])                       JSON of the region
 *   uffdwp_error()                               why the last open of a database in memory failed
 *
 * They are registered for every connection of the process (an automatic extension): in the sqlite3 shell .load comes
 * before .open, and the second makes a new connection.
 *
 * INV-BOUNDARY: a cut is made with a SHARED of its own, so that no connection holds or takes EXCLUSIVE, by a connection
 * that is not itself in a write transaction, and with no hot journal: the file then is a whole database. Only what the
 * connection alone holds, by locking_mode=exclusive, stands for that SHARED: what a file of a shared cache holds may be
 * another connection's transaction.
 */
#include "extension.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <sqlite3ext.h>

#include "forked.h"
#include "memfile.h"

SQLITE_EXTENSION_INIT1

#define DEFAULT_WAIT_MS 10000
#define NS_PER_MS UINT64_C(1000000)
#define OLDEST_SQLITE 3034000 /* sqlite3_txn_state() */

static void functions_fail(sqlite3_context *context, int code, const char *format, ...)
{
	va_list list;
	va_start(list, format);
	char *text = sqlite3_vmprintf(format, list);
	va_end(list);
	if (!text) {
		sqlite3_result_error_nomem(context);
		return;
	}
	sqlite3_result_error(context, text, -1);
	sqlite3_result_error_code(context, code);
	sqlite3_free(text);
}

/* The argument as text without an inner zero, or NULL. */
static const char *functions_text_argument(sqlite3_value *value)
{
	if (sqlite3_value_type(value) != SQLITE_TEXT)
		return NULL;
	const char *text = (const char *)sqlite3_value_text(value);
	return text && strlen(text) == (size_t)sqlite3_value_bytes(value) ? text : NULL;
}

/* A path argument; NULL: the error is set. */
static const char *functions_path_argument(sqlite3_context *context, const char *function, sqlite3_value *value)
{
	const char *path = functions_text_argument(value);
	if (path && *path)
		return path;
	functions_fail(context, SQLITE_MISUSE, "%s: the path must be a text that is not empty", function);
	return NULL;
}

/* The file that a function is about; NULL: the error is set. */
static struct vfs_file *functions_file_argument(sqlite3_context *context, const char *function, const char *schema)
{
	struct vfs_file *file = vfs_file_of(sqlite3_context_db_handle(context), schema);
	if (file && forked_is_child()) {
		functions_fail(context, SQLITE_ERROR, "%s: %s", function, FORKED_TEXT);
		return NULL;
	}
	if (!file)
		functions_fail(context, SQLITE_ERROR,
		               "%s: '%s' is not in the VFS " VFS_NAME ": open it with file:NAME?vfs=" VFS_NAME,
		               function, schema);
	return file;
}

/* argv[index] as the name of a schema, "main" where it is left out; NULL: the error is set. */
static const char *functions_schema_argument(sqlite3_context *context, const char *function, int argc,
                                             sqlite3_value **argv, int index)
{
	const char *schema = argc > index ? functions_text_argument(argv[index]) : "main";
	if (!schema)
		functions_fail(context, SQLITE_MISUSE, "%s: the schema must be a text, as 'main'", function);
	return schema;
}

/* The busy timeout of the connection, or the default where it has none. */
static int functions_wait_ms(sqlite3 *db)
{
	sqlite3_stmt *statement = NULL;
	int time_ms = 0;
	if (sqlite3_prepare_v2(db, "PRAGMA busy_timeout", -1, &statement, NULL) == SQLITE_OK &&
	    sqlite3_step(statement) == SQLITE_ROW)
		time_ms = sqlite3_column_int(statement, 0);
	sqlite3_finalize(statement);
	return time_ms > 0 ? time_ms : DEFAULT_WAIT_MS;
}

/* --------------------------------------------------------------------------------------------------------- JSON -- */

static void functions_json_text(sqlite3_str *json, const char *text)
{
	sqlite3_str_appendchar(json, 1, '"');
	for (const char *at = text; *at; at++) {
		unsigned char byte = (unsigned char)*at;
		if (byte < 0x20)
			sqlite3_str_appendf(json, "\\u%04x", byte);
		else if (byte == '"' || byte == '\\')
			sqlite3_str_appendf(json, "\\%c", byte);
		else
			sqlite3_str_appendchar(json, 1, *at);
	}
	sqlite3_str_appendchar(json, 1, '"');
}

static void functions_json_number(sqlite3_str *json, const char *key, uint64_t value)
{
	sqlite3_str_appendf(json, ",\"%s\":%llu", key, (sqlite3_uint64)value);
}

static void functions_json_word(sqlite3_str *json, const char *key, const char *text)
{
	sqlite3_str_appendf(json, ",\"%s\":", key);
	functions_json_text(json, text);
}

static void functions_json_result(sqlite3_context *context, sqlite3_str *json)
{
	sqlite3_str_appendchar(json, 1, '}');
	char *text = sqlite3_str_finish(json);
	if (text)
		sqlite3_result_text(context, text, -1, sqlite3_free);
	else
		sqlite3_result_error_nomem(context);
}

static void functions_json_progress(sqlite3_str *json, const struct uffdwp_snapshot_progress *progress)
{
	functions_json_number(json, "length_bytes", progress->length_bytes);
	functions_json_number(json, "pages_total", progress->pages_total);
	functions_json_number(json, "pages_fault", progress->pages_fault);
	functions_json_number(json, "pages_prepare", progress->pages_prepare);
	functions_json_number(json, "pages_sweep", progress->pages_sweep);
	functions_json_number(json, "pages_hole", progress->pages_hole);
	functions_json_number(json, "faults", progress->faults);
	functions_json_number(json, "waits", progress->waits);
	functions_json_number(json, "pool_peak_bytes", progress->pool_peak_bytes);
	functions_json_number(json, "bytes_written", progress->bytes_written);
	functions_json_number(json, "pause_ns", progress->pause_ns);
	functions_json_number(json, "elapsed_ns", progress->elapsed_ns);
	functions_json_number(json, "direct", progress->direct);
	functions_json_number(json, "uring", progress->uring);
}

static const char *functions_state_name(const struct shot_status *status)
{
	static const char *const names[] = {"running", "committed", "failed"};
	if (!status->id)
		return "none";
	return status->progress.state < 3 ? names[status->progress.state] : "unknown";
}

static void functions_result_status(sqlite3_context *context, const struct shot_status *status)
{
	sqlite3_str *json = sqlite3_str_new(sqlite3_context_db_handle(context));
	sqlite3_str_appendf(json, "{\"id\":%llu", (sqlite3_uint64)status->id);
	functions_json_word(json, "state", functions_state_name(status));
	if (status->id) {
		functions_json_word(json, "path", status->path ? status->path : "");
		if (status->progress.state == UFFDWP_SNAPSHOT_STATE_FAILED) {
			functions_json_word(json, "error", strerror(-status->progress.error));
			functions_json_word(json, "text", status->text);
		}
		functions_json_number(json, "begin_ns", status->begin_ns);
		functions_json_progress(json, &status->progress);
	}
	functions_json_result(context, json);
}

/* ----------------------------------------------------------------------------------------------------- snapshot -- */

/* A journal without an owner. Journals are written under RESERVED only, so both are looked at as one. */
static int functions_journal_is_hot(struct store *store)
{
	char *name = sqlite3_mprintf("%s-journal", store->name);
	int hot = name && locks_free_and(&store->locks, memfile_hot, name);
	sqlite3_free(name);
	return hot;
}

/* What the boundary of a cut needs, and what it refused. */
struct cut {
	struct vfs_file *file;
	int wait_ms;
	int locked;          /* a SHARED was taken */
	int alone;           /* vfs_alone_enter() */
	int code;            /* of SQLite, of a refusal */
	const char *refusal; /* NULL: none */
};

static void functions_cut_leave(void *user)
{
	struct cut *cut = user;
	if (cut->locked)
		locks_cut_leave(&cut->file->store->locks);
	if (cut->alone)
		vfs_alone_leave(cut->file);
}

static int functions_cut_refuse(struct cut *cut, int code, const char *refusal, int error)
{
	cut->code = code;
	cut->refusal = refusal;
	functions_cut_leave(cut);
	return error;
}

/* INV-BOUNDARY: with a SHARED held no connection is in the middle of changing the file. */
static int functions_cut_enter(void *user, uint64_t *length)
{
	struct cut *cut = user;
	struct store *store = cut->file->store;
	cut->alone = vfs_alone_enter(cut->file);
	cut->locked = !cut->alone && locks_cut_enter(&store->locks, (uint64_t)cut->wait_ms * NS_PER_MS) == 0;
	if (!cut->alone && !cut->locked)
		return functions_cut_refuse(cut, SQLITE_BUSY, "a write transaction held its lock for too long", -EBUSY);
	*length = store->size_bytes;
	if (*length == 0)
		return functions_cut_refuse(cut, SQLITE_ERROR, "the database is empty, there is nothing to save",
		                            -EINVAL);
	if (functions_journal_is_hot(store))
		return functions_cut_refuse(
		        cut, SQLITE_BUSY,
		        "a transaction was left unfinished: read the database once, which rolls it back, "
		        "then try again",
		        -EBUSY);
	return 0;
}

static int functions_snapshot_begin(sqlite3_context *context, struct vfs_file *file, const char *path, unsigned how,
                                    struct shot_status *status)
{
	char text[STORE_TEXT_BYTES];
	struct cut cut = {.file = file, .wait_ms = functions_wait_ms(sqlite3_context_db_handle(context))};
	struct shot_boundary boundary = {.enter = functions_cut_enter, .leave = functions_cut_leave, .user = &cut};
	int result = shots_begin(&file->store->shots, file->store->region, path, how, &boundary, status);
	if (cut.refusal) {
		functions_fail(context, cut.code, "uffdwp_snapshot: %s", cut.refusal);
	} else if (result == -EBUSY) {
		functions_fail(context, SQLITE_BUSY, "uffdwp_snapshot: a snapshot of this database is running");
	} else if (result == -ENODATA && !shots_any(&file->store->shots)) {
		functions_fail(context, SQLITE_ERROR, "uffdwp_snapshot: a delta of what? Take one with 'keep' first");
	} else if (result < 0) {
		store_library_text(text, sizeof(text));
		functions_fail(context, SQLITE_ERROR, "uffdwp_snapshot: %s: %s%s%s", path, strerror(-result),
		               *text ? ": " : "", text);
	}
	return result;
}

/* Words, between spaces or commas: SHOT_*; -1: the error is set. */
static int functions_how_argument(sqlite3_context *context, int argc, sqlite3_value **argv)
{
	static const char *const words[] = {"wait", "keep", "delta"};
	const char *at = argc < 2 ? "" : functions_text_argument(argv[1]);
	int how = 0;
	while (at && *(at += strspn(at, " ,"))) {
		size_t length = strcspn(at, " ,");
		int word = 0;
		while (word < 3 && (strlen(words[word]) != length || memcmp(words[word], at, length) != 0))
			word++;
		if (word == 3)
			break;
		how |= 1 << word;
		at += length;
	}
	if (at && !*at)
		return how;
	functions_fail(context, SQLITE_MISUSE,
	               "uffdwp_snapshot: the second argument is made of 'wait', 'keep' and 'delta', or ''");
	return -1;
}

/* Where a snapshot was waited for, only its commit is a success. */
static void functions_snapshot_result(sqlite3_context *context, int wait, const struct shot_status *status)
{
	if (wait && status->progress.state != UFFDWP_SNAPSHOT_STATE_COMMITTED)
		functions_fail(context, SQLITE_ERROR, "uffdwp_snapshot: %s: %s: %s", status->path ? status->path : "",
		               strerror(-status->progress.error), status->text);
	else
		functions_result_status(context, status);
}

static void functions_sql_snapshot(sqlite3_context *context, int argc, sqlite3_value **argv)
{
	static const char function[] = "uffdwp_snapshot";
	struct shot_status status;
	const char *path = functions_path_argument(context, function, argv[0]);
	int how = path ? functions_how_argument(context, argc, argv) : -1;
	const char *schema = how >= 0 ? functions_schema_argument(context, function, argc, argv, 2) : NULL;
	struct vfs_file *file = schema ? functions_file_argument(context, function, schema) : NULL;
	if (!file)
		return;
	if (sqlite3_txn_state(sqlite3_context_db_handle(context), schema) == SQLITE_TXN_WRITE) {
		functions_fail(context, SQLITE_ERROR, "%s: not inside a write transaction: commit it first", function);
		return;
	}
	char *refusal = target_refuse(sqlite3_context_db_handle(context), path);
	if (refusal) {
		functions_fail(context, SQLITE_ERROR, "%s: %s", function, refusal);
		sqlite3_free(refusal);
		return;
	}
	if (functions_snapshot_begin(context, file, path, (unsigned)how, &status) < 0)
		return;
	functions_snapshot_result(context, ((unsigned)how & SHOT_WAIT) != 0, &status);
	free(status.path);
}

static void functions_sql_snapshot_status(sqlite3_context *context, int argc, sqlite3_value **argv)
{
	static const char function[] = "uffdwp_snapshot_status";
	struct shot_status status;
	const char *schema = functions_schema_argument(context, function, argc, argv, 0);
	struct vfs_file *file = schema ? functions_file_argument(context, function, schema) : NULL;
	if (!file)
		return;
	shots_status(&file->store->shots, &status);
	functions_result_status(context, &status);
	free(status.path);
}

/* --------------------------------------------------------------------------------------------------------- load -- */

/* Opens a connection of our own to a store that is open: its locks and journal are then SQLite's own affair. Never by a
 * shared cache: it would get the file of another connection, which is not `loading`. */
static int functions_open_own(const char *name, sqlite3 **db)
{
	sqlite3_str *uri = sqlite3_str_new(NULL);
	sqlite3_str_appendall(uri, "file:");
	for (const char *at = name; *at; at++) {
		if (strchr("%?#", *at))
			sqlite3_str_appendf(uri, "%%%02X", (unsigned)(unsigned char)*at);
		else
			sqlite3_str_appendchar(uri, 1, *at);
	}
	sqlite3_str_appendall(uri, "?vfs=" VFS_NAME "&" VFS_LOADING "=1");
	char *text = sqlite3_str_finish(uri);
	if (!text)
		return SQLITE_NOMEM;
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_URI | SQLITE_OPEN_PRIVATECACHE;
	int result = sqlite3_open_v2(text, db, flags, NULL);
	sqlite3_free(text);
	return result;
}

/* The copy is one write transaction of `to`: an error rolls it back. */
static int functions_copy_database(sqlite3 *from, sqlite3 *to, int *pages)
{
	sqlite3_backup *backup = sqlite3_backup_init(to, "main", from, "main");
	if (!backup)
		return sqlite3_errcode(to);
	int result = sqlite3_backup_step(backup, -1);
	*pages = sqlite3_backup_pagecount(backup);
	int finished = sqlite3_backup_finish(backup);
	if (result == SQLITE_DONE)
		return finished;
	return finished != SQLITE_OK ? finished : result;
}

static void functions_load_between(sqlite3_context *context, const char *path, sqlite3 *from, sqlite3 *to, int time_ms)
{
	int pages = 0;
	sqlite3_busy_timeout(from, time_ms);
	sqlite3_busy_timeout(to, time_ms);
	int result = functions_copy_database(from, to, &pages);
	if (result == SQLITE_OK)
		sqlite3_result_int(context, pages);
	else
		functions_fail(context, result, "uffdwp_load: %s: %s; nothing was changed", path,
		               sqlite3_errstr(result));
}

static int functions_count_pages(void *user, int columns, char **values, char **names)
{
	(void)columns;
	(void)names;
	*(sqlite3_int64 *)user = values[0] ? strtoll(values[0], NULL, 10) : 0;
	return 0;
}

/* Begins to read, so that what is looked at is what is copied. A file without a page (a copy that failed, a file of
 * /proc) is an empty database to SQLite; here it is none. */
static int functions_begin_source(sqlite3 *from, sqlite3_int64 *pages)
{
	*pages = 0;
	int result = sqlite3_exec(from, "BEGIN", NULL, NULL, NULL);
	if (result == SQLITE_OK)
		result = sqlite3_exec(from, "PRAGMA schema_version", NULL, NULL, NULL);
	if (result == SQLITE_OK)
		result = sqlite3_exec(from, "PRAGMA page_count", functions_count_pages, pages, NULL);
	return result;
}

static void functions_load_file(sqlite3_context *context, const char *path, const char *name)
{
	sqlite3 *from = NULL;
	sqlite3 *to = NULL;
	sqlite3_int64 pages = 0;
	int result = sqlite3_open_v2(path, &from, SQLITE_OPEN_READONLY, vfs_disk()->zName);
	if (result == SQLITE_OK)
		result = functions_begin_source(from, &pages);
	if (result == SQLITE_OK && pages == 0) {
		functions_fail(context, SQLITE_NOTADB,
		               "uffdwp_load: %s: the file is empty, not a database; nothing was changed", path);
	} else if (result != SQLITE_OK) {
		functions_fail(context, result, "uffdwp_load: %s: %s", path,
		               from ? sqlite3_errmsg(from) : sqlite3_errstr(result));
	} else {
		result = functions_open_own(name, &to);
		if (result != SQLITE_OK)
			functions_fail(context, result, "uffdwp_load: %s",
			               to ? sqlite3_errmsg(to) : sqlite3_errstr(result));
		else
			functions_load_between(context, path, from, to,
			                       functions_wait_ms(sqlite3_context_db_handle(context)));
	}
	sqlite3_close(from);
	sqlite3_close(to);
}

/* What SQLite would have to put into the file first. NULL: nothing. */
static const char *functions_unfinished(const char *path)
{
	static const char *const endings[] = {"-journal", "-wal"};
	for (int i = 0; i < 2; i++) {
		struct stat st = {0};
		char *name = sqlite3_mprintf("%s%s", path, endings[i]);
		int there = name && stat(name, &st) == 0 && st.st_size > 0;
		sqlite3_free(name);
		if (there)
			return endings[i];
	}
	return NULL;
}

static void functions_lazy_result(sqlite3_context *context, const struct store *store)
{
	uint64_t page_bytes = (uint64_t)store->base[16] << 8 | store->base[17]; /* of the file format; 1: 65536 */
	sqlite3_result_int64(context, (sqlite3_int64)(store->size_bytes / (page_bytes > 1 ? page_bytes : 65536)));
}

/* With EXCLUSIVE held. */
static void functions_load_locked(sqlite3_context *context, const char *path, struct store *store)
{
	char text[STORE_TEXT_BYTES];
	int result = store_load(store, path, text, sizeof(text));
	if (result == 0 && store_check(store, 0, 100) == 0)
		functions_lazy_result(context, store);
	else if (result == 0)
		sqlite3_result_int(context, 0); /* reading says why */
	else
		functions_fail(context,
		               result == -EMEDIUMTYPE ? SQLITE_NOTADB
		               : result == -ENODATA   ? SQLITE_CORRUPT
		               : result == -ENOSPC    ? SQLITE_FULL
		                                      : SQLITE_ERROR,
		               "uffdwp_load: %s: %s", path, text);
}

/* A connection of our own takes the lock and writes nothing. */
static void functions_load_lazily(sqlite3_context *context, const char *path, struct store *store)
{
	sqlite3 *owner = NULL;
	const char *rest = functions_unfinished(path);
	if (rest) {
		functions_fail(context, SQLITE_ERROR,
		               "uffdwp_load: %s: in use, or left in the middle of a transaction (%s is there): load it "
		               "without "
		               "'lazy'",
		               path, rest);
		return;
	}
	int result = functions_open_own(store->name, &owner);
	if (result == SQLITE_OK)
		result = sqlite3_busy_timeout(owner, functions_wait_ms(sqlite3_context_db_handle(context)));
	if (result == SQLITE_OK)
		result = sqlite3_exec(owner, "BEGIN EXCLUSIVE", NULL, NULL, NULL);
	if (result != SQLITE_OK)
		functions_fail(context, result, "uffdwp_load: %s",
		               owner ? sqlite3_errmsg(owner) : sqlite3_errstr(result));
	else
		functions_load_locked(context, path, store);
	sqlite3_close(owner);
}

/* Only files on disk: ":memory:", "" and devices are databases to SQLite, empty ones. */
static void functions_load_regular(sqlite3_context *context, const char *path, struct store *store, int lazy)
{
	struct stat st = {0};
	char *absolute = realpath(path, NULL);
	int error = absolute && stat(absolute, &st) == 0 ? 0 : errno;
	if (!error && !S_ISREG(st.st_mode))
		error = S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
	if (error)
		functions_fail(context, SQLITE_CANTOPEN, "uffdwp_load: %s: unable to open: %s", path,
		               error == EINVAL ? "not a file on disk" : strerror(error));
	else if (lazy)
		functions_load_lazily(context, absolute, store);
	else
		functions_load_file(context, absolute, store->name);
	free(absolute);
}

static void functions_sql_load(sqlite3_context *context, int argc, sqlite3_value **argv)
{
	static const char function[] = "uffdwp_load";
	const char *path = functions_path_argument(context, function, argv[0]);
	const char *how = argc > 1 ? functions_text_argument(argv[1]) : NULL;
	int lazy = how && strcmp(how, "lazy") == 0;
	if (path && argc > 2 && !lazy && (!how || *how)) {
		functions_fail(context, SQLITE_MISUSE, "%s: the second of three arguments is 'lazy' or ''", function);
		return;
	}
	const char *schema =
	        path ? functions_schema_argument(context, function, argc, argv, lazy || argc > 2 ? 2 : 1) : NULL;
	struct vfs_file *file = schema ? functions_file_argument(context, function, schema) : NULL;
	if (!file)
		return;
	sqlite3 *db = sqlite3_context_db_handle(context);
	if (!sqlite3_get_autocommit(db) || sqlite3_txn_state(db, schema) != SQLITE_TXN_NONE)
		functions_fail(context, SQLITE_ERROR, "%s: not inside a transaction: end it first", function);
	else
		functions_load_regular(context, path, file->store, lazy);
}

/* -------------------------------------------------------------------------------------------------------- stats -- */

static void functions_json_region(sqlite3_str *json, struct uffdwp_region *region)
{
	struct uffdwp_region_info info = {.sz = sizeof(info)};
	struct uffdwp_region_stats stats = {.sz = sizeof(stats)};
	uffdwp_region_info(region, &info);
	uffdwp_region_stats(region, &stats);
	functions_json_word(json, "mechanism", vfs_mechanism_name(info.mechanism));
	functions_json_word(json, "delivery", vfs_delivery_name(info.delivery));
	functions_json_number(json, "length_bytes", info.length_bytes);
	functions_json_number(json, "capacity_bytes", info.capacity_bytes);
	functions_json_number(json, "page_bytes", info.page_bytes);
	functions_json_number(json, "faults", stats.faults);
	functions_json_number(json, "faults_repeated", stats.faults_repeated);
	functions_json_number(json, "pages_disarmed", stats.pages_disarmed);
	functions_json_number(json, "pages_lost", stats.pages_lost);
	functions_json_number(json, "pages_rearmed", stats.pages_rearmed);
	functions_json_number(json, "pages_filled", stats.pages_filled);
	functions_json_number(json, "snapshots", stats.snapshots);
}

static void functions_sql_stats(sqlite3_context *context, int argc, sqlite3_value **argv)
{
	static const char function[] = "uffdwp_stats";
	const char *schema = functions_schema_argument(context, function, argc, argv, 0);
	struct vfs_file *file = schema ? functions_file_argument(context, function, schema) : NULL;
	if (!file)
		return;
	sqlite3_str *json = sqlite3_str_new(sqlite3_context_db_handle(context));
	sqlite3_str_appendall(json, "{\"name\":");
	functions_json_text(json, file->store->name);
	functions_json_word(json, "library", uffdwp_version());
	functions_json_number(json, "size_bytes", file->store->size_bytes);
	functions_json_number(json, "prepare", (uint64_t)file->store->prepare);
	functions_json_region(json, file->store->region);
	functions_json_result(context, json);
}

static void functions_sql_error(sqlite3_context *context, int argc, sqlite3_value **argv)
{
	char text[STORE_TEXT_BYTES];
	(void)argc;
	(void)argv;
	store_error_text(text, sizeof(text));
	sqlite3_result_text(context, text, -1, SQLITE_TRANSIENT);
}

/* ------------------------------------------------------------------------------------------------- registration -- */

struct function {
	const char *name;
	int arguments;
	void (*call)(sqlite3_context *context, int argc, sqlite3_value **argv);
};

static const struct function functions[] = {
        {"uffdwp_snapshot", 1, functions_sql_snapshot},
        {"uffdwp_snapshot", 2, functions_sql_snapshot},
        {"uffdwp_snapshot", 3, functions_sql_snapshot},
        {"uffdwp_snapshot_status", 0, functions_sql_snapshot_status},
        {"uffdwp_snapshot_status", 1, functions_sql_snapshot_status},
        {"uffdwp_load", 1, functions_sql_load},
        {"uffdwp_load", 2, functions_sql_load},
        {"uffdwp_load", 3, functions_sql_load},
        {"uffdwp_stats", 0, functions_sql_stats},
        {"uffdwp_stats", 1, functions_sql_stats},
        {"uffdwp_error", 0, functions_sql_error},
};

int functions_register(sqlite3 *db)
{
	int result = SQLITE_OK;
	for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]) && result == SQLITE_OK; i++)
		result = sqlite3_create_function_v2(db, functions[i].name, functions[i].arguments,
		                                    SQLITE_UTF8 | SQLITE_DIRECTONLY, NULL, functions[i].call, NULL,
		                                    NULL, NULL);
	return result;
}

/* A new connection whose main database came to us by the VFS's name alone. The URI is what names a database in memory;
 * without it the VFS has to pass the name on to the disk, as it does for what is attached, so that the program would
 * have a file where it wanted memory. Only here the two can be distinguished. */
static int functions_register_automatically(sqlite3 *db, char **error, const sqlite3_api_routines *api)
{
	(void)api;
	if (vfs_refuse_connection(db)) {
		*error = sqlite3_mprintf("the VFS " VFS_NAME " takes databases by URI: open file:NAME?vfs=" VFS_NAME
		                         " with SQLITE_OPEN_URI (files on disk: by another VFS)");
		return SQLITE_CANTOPEN;
	}
	return functions_register(db);
}

/* What sqlite3_load_extension() looks for in uffdwp_sqlite.so. */
__attribute__((visibility("default"))) int sqlite3_uffdwpsqlite_init(sqlite3 *db, char **error,
                                                                     const sqlite3_api_routines *api);

int sqlite3_uffdwpsqlite_init(sqlite3 *db, char **error, const sqlite3_api_routines *api)
{
	SQLITE_EXTENSION_INIT2(api);
	if (sqlite3_libversion_number() < OLDEST_SQLITE) {
		*error = sqlite3_mprintf("uffdwp needs SQLite 3.34 or newer, this is %s", sqlite3_libversion());
		return SQLITE_ERROR;
	}
	int result = vfs_register();
	if (result == SQLITE_OK)
		result = sqlite3_auto_extension((void (*)(void))functions_register_automatically);
	if (result == SQLITE_OK)
		result = functions_register(db);
	return result == SQLITE_OK ? SQLITE_OK_LOAD_PERMANENTLY : result;
}
