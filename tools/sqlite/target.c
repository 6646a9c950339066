/* SPDX-License-Identifier: MIT */
/*
 * Where an image may appear. It takes the place of a file of its name, so it must not be a name that means something
 * else to this process: a database in memory, or a file that the connection has attached (which would go on with a file
 * that cannot be opened any more). Nor may a journal be beside it: the next program that opens the image would play it.
 *
 * Files of connections that do not use this VFS are beyond its sight.
 */
#include "extension.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sqlite3ext.h>

SQLITE_EXTENSION_INIT3

static char *target_refuse_sidecar(const char *path)
{
	static const char *const endings[] = {"-journal", "-wal"};
	for (int i = 0; i < 2; i++) {
		char *name = sqlite3_mprintf("%s%s", path, endings[i]);
		int there = name && access(name, F_OK) == 0;
		sqlite3_free(name);
		if (there)
			return sqlite3_mprintf("%s%s is there: it would be taken for the image's; remove it", path,
			                       endings[i]);
	}
	return NULL;
}

static char *target_refuse_memory(const char *path)
{
	sqlite3_vfs *disk = vfs_disk();
	char *full = sqlite3_malloc(disk->mxPathname + 1);
	int taken =
	        full && disk->xFullPathname(disk, path, disk->mxPathname + 1, full) == SQLITE_OK && store_named(full);
	sqlite3_free(full);
	return taken ? sqlite3_mprintf("%s is the name of a database in memory: choose another one", path) : NULL;
}

static int target_is_same_file(const char *one, const char *two)
{
	struct stat a;
	struct stat b;
	return one && *one && stat(one, &a) == 0 && stat(two, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static char *target_refuse_attached(sqlite3 *db, const char *path)
{
	sqlite3_stmt *list = NULL;
	char *text = NULL;
	if (sqlite3_prepare_v2(db, "PRAGMA database_list", -1, &list, NULL) == SQLITE_OK)
		while (!text && sqlite3_step(list) == SQLITE_ROW)
			if (target_is_same_file((const char *)sqlite3_column_text(list, 2), path))
				text = sqlite3_mprintf("%s is attached as %s: detach it, or choose another name", path,
				                       sqlite3_column_text(list, 1));
	sqlite3_finalize(list);
	return text;
}

char *target_refuse(sqlite3 *db, const char *path)
{
	char *text = target_refuse_sidecar(path);
	if (!text)
		text = target_refuse_memory(path);
	return text ? text : target_refuse_attached(db, path);
}
