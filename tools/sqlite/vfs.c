/* SPDX-License-Identifier: MIT */
/*
 * The VFS named "uffdwp": main database files that were opened with vfs=uffdwp in their URI live in a store, their
 * journals in memory; everything else (temporary files, attached files, the target of VACUUM INTO, super-journals) goes
 * to the VFS that was the default one before.
 *
 * Names are made absolute as that VFS does it, so that a file on disk and a database in memory cannot be mixed up: a
 * store is refused where a file of its name exists, and a file where a store of its name is open. That is what lets
 * xAccess and xDelete, which get a name only, find out which journal is meant.
 *
 * There is no WAL: images hold the database file alone. Without the methods for shared memory SQLite keeps to a
 * rollback journal; what could still ask for a WAL (an exclusive connection, a backup into the database) is stopped at
 * page 1.
 *
 * INV-NO-WAL: the header of page 1 in a store never says WAL.
 */
#include "extension.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <sqlite3ext.h>

#include "forked.h"
#include "memfile.h"

SQLITE_EXTENSION_INIT3

#define HEADER_WRITE_VERSION 18 /* offset in the file; 2: WAL. https://sqlite.org/fileformat2.html, 1.3.3 */
#define HEADER_READ_VERSION 19
#define SECTOR_BYTES 4096

struct vfs_journal {
	sqlite3_file head;
	struct memfile *memory;
	char *unlink_name; /* not NULL: it goes away with its close */
};

static sqlite3_vfs *disk;
static sqlite3_vfs vfs_ours;

sqlite3_vfs *vfs_disk(void)
{
	return disk;
}

static int vfs_code(int error, int otherwise)
{
	switch (error) {
	case 0:
		return SQLITE_OK;
	case -ENOSPC:
	case -EFBIG:
		return SQLITE_FULL;
	case -ENOMEM:
		return SQLITE_IOERR_NOMEM;
	default:
		return otherwise;
	}
}

/* ------------------------------------------------------------------------------------------- the database file -- */

static struct vfs_file *vfs_file_of_handle(sqlite3_file *file)
{
	return (struct vfs_file *)file;
}

/* In a child of fork() nothing of a store may be touched: not its memory, which is not there, nor its locks. */
static int vfs_file_refuse(const char *what, int code)
{
	sqlite3_log(code, "uffdwp: cannot %s: %s", what, FORKED_TEXT);
	return code;
}

static int vfs_file_close(sqlite3_file *head)
{
	struct vfs_file *file = vfs_file_of_handle(head);
	if (forked_is_child()) /* it is the parent's */
		return SQLITE_OK;
	locks_drop(&file->store->locks, &file->holder, LOCK_NONE);
	pthread_mutex_destroy(&file->joining);
	int result = store_close(file->store);
	if (result < 0)
		sqlite3_log(SQLITE_IOERR, "uffdwp: the last snapshot of a closed database failed: %s",
		            strerror(-result));
	return SQLITE_OK;
}

/* SQLite looks at the header of a file that it has just opened before it takes any lock, and again under one: what a
 * writer was about to change it may see by halves, as with any file. By a name of its own for tests/tsan.supp. */
__attribute__((noinline)) static size_t vfs_file_peek(const struct store *store, void *buffer, size_t length,
                                                      uint64_t offset)
{
	return store_read(store, buffer, length, offset);
}

static uint64_t vfs_least(uint64_t one, uint64_t two)
{
	return one < two ? one : two;
}

/* A page that a lazy load cannot bring is an error for SQLite, where touching it would be a signal. */
static int vfs_refuse_read(const struct store *store, sqlite3_int64 offset, int error)
{
	sqlite3_log(SQLITE_IOERR_READ, "uffdwp: %s: what was loaded lazily cannot be read at byte %lld: %s",
	            store->name, offset, strerror(-error));
	return SQLITE_IOERR_READ;
}

static int vfs_file_read(sqlite3_file *head, void *buffer, int length, sqlite3_int64 offset)
{
	const struct vfs_file *file = vfs_file_of_handle(head);
	if (forked_is_child())
		return vfs_file_refuse("read", SQLITE_IOERR_READ);
	int locked = file->holder.level != LOCK_NONE;
	uint64_t size = file->store->size_bytes;
	if ((uint64_t)offset < size) {
		uint64_t wanted = vfs_least((uint64_t)length, size - (uint64_t)offset);
		int result = store_check(file->store, (uint64_t)offset, wanted);
		if (result < 0)
			return vfs_refuse_read(file->store, offset, result);
	}
	size_t there = (locked ? store_read : vfs_file_peek)(file->store, buffer, (size_t)length, (uint64_t)offset);
	return there < (size_t)length ? SQLITE_IOERR_SHORT_READ : SQLITE_OK;
}

static int vfs_header_says_wal(const unsigned char *data, int length, sqlite3_int64 offset)
{
	return offset == 0 && length > HEADER_READ_VERSION &&
	       (data[HEADER_WRITE_VERSION] == 2 || data[HEADER_READ_VERSION] == 2);
}

/* A source of uffdwp_load() may be in WAL mode; its copy is not (INV-NO-WAL). */
static int vfs_file_write_header(struct vfs_file *file, const unsigned char *data, int length)
{
	static const unsigned char versions[] = {1, 1};
	if (!file->loading)
		return -EPERM;
	int result = store_write(file->store, data, HEADER_WRITE_VERSION, 0);
	if (result == 0)
		result = store_write(file->store, versions, sizeof(versions), HEADER_WRITE_VERSION);
	if (result == 0)
		result = store_write(file->store, data + HEADER_READ_VERSION + 1,
		                     (size_t)length - HEADER_READ_VERSION - 1, HEADER_READ_VERSION + 1);
	return result;
}

static int vfs_file_write(sqlite3_file *head, const void *data, int length, sqlite3_int64 offset)
{
	struct vfs_file *file = vfs_file_of_handle(head);
	int result = 0;
	if (forked_is_child())
		return vfs_file_refuse("write", SQLITE_IOERR_WRITE);
	if (vfs_header_says_wal(data, length, offset))
		result = vfs_file_write_header(file, data, length);
	else
		result = store_write(file->store, data, (size_t)length, (uint64_t)offset);
	return vfs_code(result, SQLITE_IOERR_WRITE);
}

static int vfs_file_truncate(sqlite3_file *head, sqlite3_int64 length)
{
	if (forked_is_child())
		return vfs_file_refuse("truncate", SQLITE_IOERR_TRUNCATE);
	return vfs_code(store_truncate(vfs_file_of_handle(head)->store, (uint64_t)length), SQLITE_IOERR_TRUNCATE);
}

static int vfs_file_size(sqlite3_file *head, sqlite3_int64 *size)
{
	if (forked_is_child())
		return vfs_file_refuse("look", SQLITE_IOERR_FSTAT);
	*size = (sqlite3_int64)vfs_file_of_handle(head)->store->size_bytes;
	return SQLITE_OK;
}

static int vfs_file_lock(sqlite3_file *head, int wanted)
{
	struct vfs_file *file = vfs_file_of_handle(head);
	if (forked_is_child())
		return vfs_file_refuse("lock", SQLITE_IOERR_LOCK);
	return store_lock(file->store, &file->holder, (enum lock_level)wanted) < 0 ? SQLITE_BUSY : SQLITE_OK;
}

static int vfs_file_unlock(sqlite3_file *head, int level)
{
	struct vfs_file *file = vfs_file_of_handle(head);
	if (!forked_is_child())
		store_unlock(file->store, &file->holder, (enum lock_level)level);
	return SQLITE_OK;
}

static int vfs_file_check_reserved(sqlite3_file *head, int *reserved)
{
	if (forked_is_child())
		return vfs_file_refuse("look at locks", SQLITE_IOERR_CHECKRESERVEDLOCK);
	*reserved = locks_reserved(&vfs_file_of_handle(head)->store->locks);
	return SQLITE_OK;
}

static int vfs_file_map_limit(struct vfs_file *file, sqlite3_int64 *limit)
{
	sqlite3_int64 before = file->map_limit;
	if (*limit >= 0)
		file->map_limit = *limit;
	*limit = before;
	return SQLITE_OK;
}

/* An exclusive connection could have a WAL without shared memory: refused here, where there is a text to give. */
static int vfs_file_pragma(struct vfs_file *file, char **words)
{
	if (sqlite3_stricmp(words[1], "locking_mode") == 0 && words[2])
		file->exclusive = sqlite3_stricmp(words[2], "exclusive") == 0;
	if (!file->exclusive || sqlite3_stricmp(words[1], "journal_mode") != 0 || !words[2] ||
	    sqlite3_stricmp(words[2], "wal") != 0)
		return SQLITE_NOTFOUND;
	words[0] =
	        sqlite3_mprintf("the VFS " VFS_NAME " has no write-ahead log: its images hold the database file alone");
	return SQLITE_ERROR;
}

/* SQLite reports each connection that takes this file, also one that finds it in a shared cache: xOpen is called for
 * the first of them only, and no flag of it says that there may be more. */
static int vfs_file_join(struct vfs_file *file)
{
	pthread_mutex_lock(&file->joining);
	file->joined++;
	pthread_mutex_unlock(&file->joining);
	return SQLITE_OK;
}

int vfs_alone_enter(struct vfs_file *file)
{
	pthread_mutex_lock(&file->joining);
	if (file->joined == 1 && file->holder.level == LOCK_EXCLUSIVE)
		return 1;
	pthread_mutex_unlock(&file->joining);
	return 0;
}

void vfs_alone_leave(struct vfs_file *file)
{
	pthread_mutex_unlock(&file->joining);
}

static int vfs_file_control(sqlite3_file *head, int operation, void *argument)
{
	struct vfs_file *file = vfs_file_of_handle(head);
	if (forked_is_child())
		return SQLITE_NOTFOUND;
	switch (operation) {
	case SQLITE_FCNTL_LOCKSTATE:
		*(int *)argument = (int)file->holder.level;
		return SQLITE_OK;
	case SQLITE_FCNTL_PDB:
		return vfs_file_join(file);
	case SQLITE_FCNTL_SIZE_HINT:
		return vfs_code(store_reserve(file->store, *(uint64_t *)argument), SQLITE_IOERR_WRITE);
	case SQLITE_FCNTL_CHUNK_SIZE:
		return SQLITE_OK;
	case SQLITE_FCNTL_VFSNAME:
		*(char **)argument = sqlite3_mprintf("%s", VFS_NAME);
		return SQLITE_OK;
	case SQLITE_FCNTL_HAS_MOVED:
		*(int *)argument = 0;
		return SQLITE_OK;
	case SQLITE_FCNTL_PRAGMA:
		return vfs_file_pragma(file, argument);
	case SQLITE_FCNTL_MMAP_SIZE:
		return vfs_file_map_limit(file, argument);
	default:
		return SQLITE_NOTFOUND;
	}
}

static int vfs_any_sync(sqlite3_file *head, int flags)
{
	(void)head;
	(void)flags;
	return SQLITE_OK;
}

static int vfs_any_sector_size(sqlite3_file *head)
{
	(void)head;
	return SECTOR_BYTES;
}

static int vfs_any_characteristics(sqlite3_file *head)
{
	(void)head;
	return SQLITE_IOCAP_ATOMIC | SQLITE_IOCAP_SAFE_APPEND | SQLITE_IOCAP_SEQUENTIAL |
	       SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

/* The region neither moves nor shrinks, so a pointer stays good whatever happens to the file. While a lazy load may
 * still fail none is given: a read can return an error. */
static int vfs_file_fetch(sqlite3_file *head, sqlite3_int64 offset, int length, void **out)
{
	struct vfs_file *file = vfs_file_of_handle(head);
	uint64_t end = (uint64_t)offset + (uint64_t)length;
	*out = NULL;
	if (forked_is_child())
		return vfs_file_refuse("read", SQLITE_IOERR_READ);
	if (end <= (uint64_t)file->map_limit && end <= file->store->size_bytes && store_is_whole(file->store))
		*out = file->store->base + offset;
	return SQLITE_OK;
}

static int vfs_file_unfetch(sqlite3_file *head, sqlite3_int64 offset, void *data)
{
	(void)head;
	(void)offset;
	(void)data;
	return SQLITE_OK;
}

static const sqlite3_io_methods file_methods = {
        .iVersion = 3,
        .xClose = vfs_file_close,
        .xRead = vfs_file_read,
        .xWrite = vfs_file_write,
        .xTruncate = vfs_file_truncate,
        .xSync = vfs_any_sync,
        .xFileSize = vfs_file_size,
        .xLock = vfs_file_lock,
        .xUnlock = vfs_file_unlock,
        .xCheckReservedLock = vfs_file_check_reserved,
        .xFileControl = vfs_file_control,
        .xSectorSize = vfs_any_sector_size,
        .xDeviceCharacteristics = vfs_any_characteristics,
        .xFetch = vfs_file_fetch,
        .xUnfetch = vfs_file_unfetch,
};

struct vfs_file *vfs_file_of(sqlite3 *db, const char *schema)
{
	sqlite3_file *head = NULL;
	if (sqlite3_file_control(db, schema, SQLITE_FCNTL_FILE_POINTER, &head) != SQLITE_OK || !head)
		return NULL;
	return head->pMethods == &file_methods ? vfs_file_of_handle(head) : NULL;
}

/* ------------------------------------------------------------------------------------------------- the journal -- */

static struct vfs_journal *vfs_journal_of(sqlite3_file *file)
{
	return (struct vfs_journal *)file;
}

static int vfs_journal_close(sqlite3_file *head)
{
	struct vfs_journal *journal = vfs_journal_of(head);
	if (forked_is_child())
		return SQLITE_OK;
	if (journal->unlink_name)
		memfile_unlink(journal->unlink_name);
	free(journal->unlink_name);
	memfile_close(journal->memory);
	return SQLITE_OK;
}

static int vfs_journal_read(sqlite3_file *head, void *buffer, int length, sqlite3_int64 offset)
{
	if (forked_is_child())
		return vfs_file_refuse("read a journal", SQLITE_IOERR_READ);
	size_t there = memfile_read(vfs_journal_of(head)->memory, buffer, (size_t)length, (uint64_t)offset);
	return there < (size_t)length ? SQLITE_IOERR_SHORT_READ : SQLITE_OK;
}

static int vfs_journal_write(sqlite3_file *head, const void *data, int length, sqlite3_int64 offset)
{
	if (forked_is_child())
		return vfs_file_refuse("write a journal", SQLITE_IOERR_WRITE);
	int result = memfile_write(vfs_journal_of(head)->memory, data, (size_t)length, (uint64_t)offset);
	return vfs_code(result, SQLITE_IOERR_WRITE);
}

static int vfs_journal_truncate(sqlite3_file *head, sqlite3_int64 length)
{
	if (forked_is_child())
		return vfs_file_refuse("truncate a journal", SQLITE_IOERR_TRUNCATE);
	return vfs_code(memfile_truncate(vfs_journal_of(head)->memory, (uint64_t)length), SQLITE_IOERR_TRUNCATE);
}

static int vfs_journal_size(sqlite3_file *head, sqlite3_int64 *size)
{
	if (forked_is_child())
		return vfs_file_refuse("look at a journal", SQLITE_IOERR_FSTAT);
	*size = (sqlite3_int64)memfile_length(vfs_journal_of(head)->memory);
	return SQLITE_OK;
}

static int vfs_journal_lock(sqlite3_file *head, int level)
{
	(void)head;
	(void)level;
	return SQLITE_OK;
}

static int vfs_journal_check_reserved(sqlite3_file *head, int *reserved)
{
	(void)head;
	*reserved = 0;
	return SQLITE_OK;
}

static int vfs_journal_control(sqlite3_file *head, int operation, void *argument)
{
	(void)head;
	(void)operation;
	(void)argument;
	return SQLITE_NOTFOUND;
}

static const sqlite3_io_methods journal_methods = {
        .iVersion = 1,
        .xClose = vfs_journal_close,
        .xRead = vfs_journal_read,
        .xWrite = vfs_journal_write,
        .xTruncate = vfs_journal_truncate,
        .xSync = vfs_any_sync,
        .xFileSize = vfs_journal_size,
        .xLock = vfs_journal_lock,
        .xUnlock = vfs_journal_lock,
        .xCheckReservedLock = vfs_journal_check_reserved,
        .xFileControl = vfs_journal_control,
        .xSectorSize = vfs_any_sector_size,
        .xDeviceCharacteristics = vfs_any_characteristics,
};

/* ----------------------------------------------------------------------------------------------------- the VFS -- */

static int vfs_is_ours(const char *name)
{
	const char *vfs = name ? sqlite3_uri_parameter(name, "vfs") : NULL;
	return vfs && strcmp(vfs, VFS_NAME) == 0;
}

/* A super-journal names its journals, and a connection that plays it opens them by this flag. */
static int vfs_is_our_journal(const char *name, int flags)
{
	if (flags & SQLITE_OPEN_SUPER_JOURNAL)
		return !forked_is_child() && memfile_exists(name);
	return (flags & SQLITE_OPEN_MAIN_JOURNAL) && vfs_is_ours(name);
}

static int vfs_refuse_open(const char *name, const char *why)
{
	if (!forked_is_child())
		store_error_set(why);
	sqlite3_log(SQLITE_CANTOPEN, "uffdwp: cannot open %s: %s", name, why);
	return SQLITE_CANTOPEN;
}

static int vfs_open_store(const char *name, struct vfs_file *file, int flags)
{
	struct store_config config;
	char text[STORE_TEXT_BYTES];
	if (vfs_config(name, &config, text, sizeof(text)) < 0)
		return vfs_refuse_open(name, text);
	int result = store_open(name, flags & SQLITE_OPEN_CREATE ? &config : NULL, &file->store);
	if (result < 0) {
		store_error_text(text, sizeof(text));
		sqlite3_log(SQLITE_CANTOPEN, "uffdwp: cannot open %s: %s", name, text);
		return result == -ENOMEM ? SQLITE_NOMEM : SQLITE_CANTOPEN;
	}
	file->holder.level = LOCK_NONE;
	pthread_mutex_init(&file->joining, NULL);
	file->joined = 0;
	file->loading = sqlite3_uri_boolean(name, VFS_LOADING, 0);
	file->exclusive = 0;
	file->map_limit = 0;
	file->head.pMethods = &file_methods;
	return SQLITE_OK;
}

static int vfs_open_journal(const char *name, struct vfs_journal *journal, int flags)
{
	journal->unlink_name = NULL;
	if (flags & SQLITE_OPEN_DELETEONCLOSE) {
		journal->unlink_name = strdup(name);
		if (!journal->unlink_name)
			return SQLITE_NOMEM;
	}
	int result = memfile_open(name, flags & SQLITE_OPEN_CREATE, &journal->memory);
	if (result < 0) {
		free(journal->unlink_name);
		return result == -ENOMEM ? SQLITE_NOMEM : SQLITE_CANTOPEN;
	}
	journal->head.pMethods = &journal_methods;
	return SQLITE_OK;
}

/* The file that this thread's last opening of a database made, by its name's hash (FNV-1a); 0: it was there before. For
 * vfs_refuse_connection(), which takes it back. */
static _Thread_local uint64_t made;

static uint64_t vfs_hash_name(const char *name)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);
	for (; *name; name++)
		hash = (hash ^ (unsigned char)*name) * UINT64_C(0x100000001b3);
	return hash | 1;
}

static int vfs_open_disk(const char *name, sqlite3_file *file, int flags, int *flags_out)
{
	int was_there = 1;
	if (!name || !(flags & SQLITE_OPEN_MAIN_DB))
		return disk->xOpen(disk, name, file, flags, flags_out);
	if (!forked_is_child() && store_named(name))
		return vfs_refuse_open(name, "a database in memory of this name is open");
	if (disk->xAccess(disk, name, SQLITE_ACCESS_EXISTS, &was_there) != SQLITE_OK)
		was_there = 1;
	made = was_there ? 0 : vfs_hash_name(name);
	return disk->xOpen(disk, name, file, flags, flags_out);
}

int vfs_refuse_connection(sqlite3 *db)
{
	sqlite3_vfs *vfs = NULL;
	const char *name = sqlite3_db_filename(db, "main");
	if (sqlite3_file_control(db, "main", SQLITE_FCNTL_VFS_POINTER, &vfs) != SQLITE_OK || vfs != &vfs_ours ||
	    !name || !*name || vfs_file_of(db, "main"))
		return 0;
	if (made == vfs_hash_name(name))
		disk->xDelete(disk, name, 0);
	made = 0;
	return 1;
}

static int vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *flags_out)
{
	(void)vfs;
	int result;
	file->pMethods = NULL;
	if (forked_is_child() && vfs_is_ours(name))
		result = vfs_refuse_open(name, FORKED_TEXT);
	else if ((flags & SQLITE_OPEN_MAIN_DB) && vfs_is_ours(name))
		result = vfs_open_store(name, vfs_file_of_handle(file), flags);
	else if (vfs_is_our_journal(name, flags))
		result = vfs_open_journal(name, vfs_journal_of(file), flags);
	else if ((flags & SQLITE_OPEN_WAL) && vfs_is_ours(name))
		result = vfs_refuse_open(name, "there is no write-ahead log in memory");
	else
		return vfs_open_disk(name, file, flags, flags_out);
	if (result == SQLITE_OK && flags_out)
		*flags_out = flags;
	return result;
}

static int vfs_delete(sqlite3_vfs *vfs, const char *name, int sync_folder)
{
	(void)vfs;
	if (forked_is_child())
		return disk->xDelete(disk, name, sync_folder);
	if (memfile_unlink(name) == 0)
		return SQLITE_OK;
	if (store_sidecar(name))
		return SQLITE_IOERR_DELETE_NOENT;
	return disk->xDelete(disk, name, sync_folder);
}

static int vfs_access(sqlite3_vfs *vfs, const char *name, int flags, int *result)
{
	(void)vfs;
	if (forked_is_child())
		return disk->xAccess(disk, name, flags, result);
	*result = memfile_exists(name) || store_named(name);
	if (*result || store_sidecar(name))
		return SQLITE_OK;
	return disk->xAccess(disk, name, flags, result);
}

static int vfs_full_pathname(sqlite3_vfs *vfs, const char *name, int size, char *out)
{
	(void)vfs;
	return disk->xFullPathname(disk, name, size, out);
}

static void *vfs_dl_open(sqlite3_vfs *vfs, const char *name)
{
	(void)vfs;
	return disk->xDlOpen(disk, name);
}

static void vfs_dl_error(sqlite3_vfs *vfs, int size, char *text)
{
	(void)vfs;
	disk->xDlError(disk, size, text);
}

static void (*vfs_dl_sym(sqlite3_vfs *vfs, void *handle, const char *symbol))(void)
{
	(void)vfs;
	return disk->xDlSym(disk, handle, symbol);
}

static void vfs_dl_close(sqlite3_vfs *vfs, void *handle)
{
	(void)vfs;
	disk->xDlClose(disk, handle);
}

static int vfs_randomness(sqlite3_vfs *vfs, int size, char *out)
{
	(void)vfs;
	return disk->xRandomness(disk, size, out);
}

/* What SQLite's busy handler sleeps with. */
static int vfs_sleep(sqlite3_vfs *vfs, int time_us)
{
	(void)vfs;
	if (time_us > 0 && !forked_is_child() && store_sleep((uint64_t)time_us * 1000))
		return time_us;
	return disk->xSleep(disk, time_us);
}

static int vfs_current_time(sqlite3_vfs *vfs, double *time_days)
{
	(void)vfs;
	return disk->xCurrentTime(disk, time_days);
}

static int vfs_current_time_ms(sqlite3_vfs *vfs, sqlite3_int64 *time_ms)
{
	(void)vfs;
	return disk->xCurrentTimeInt64(disk, time_ms);
}

static int vfs_last_error(sqlite3_vfs *vfs, int size, char *text)
{
	(void)vfs;
	return disk->xGetLastError ? disk->xGetLastError(disk, size, text) : 0;
}

static sqlite3_vfs vfs_ours = {
        .iVersion = 2,
        .szOsFile = (int)sizeof(struct vfs_file),
        .zName = VFS_NAME,
        .xOpen = vfs_open,
        .xDelete = vfs_delete,
        .xAccess = vfs_access,
        .xFullPathname = vfs_full_pathname,
        .xDlOpen = vfs_dl_open,
        .xDlError = vfs_dl_error,
        .xDlSym = vfs_dl_sym,
        .xDlClose = vfs_dl_close,
        .xRandomness = vfs_randomness,
        .xSleep = vfs_sleep,
        .xCurrentTime = vfs_current_time,
        .xGetLastError = vfs_last_error,
        .xCurrentTimeInt64 = vfs_current_time_ms,
};

static int vfs_register_locked(void)
{
	if (sqlite3_vfs_find(VFS_NAME))
		return SQLITE_OK;
	disk = sqlite3_vfs_find(NULL);
	if (!disk || disk->iVersion < 2)
		return SQLITE_ERROR;
	if (vfs_ours.szOsFile < disk->szOsFile)
		vfs_ours.szOsFile = disk->szOsFile;
	vfs_ours.mxPathname = disk->mxPathname;
	return sqlite3_vfs_register(&vfs_ours, 0);
}

int vfs_register(void)
{
	static pthread_mutex_t once = PTHREAD_MUTEX_INITIALIZER;
	pthread_mutex_lock(&once);
	int result = vfs_register_locked();
	pthread_mutex_unlock(&once);
	return result;
}
