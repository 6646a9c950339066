/* SPDX-License-Identifier: MIT */
/*
 * Files of a test: one scratch folder for the program (in TMPDIR, else /var/tmp, which is a disk on most machines and
 * so can do O_DIRECT), removed when the program that made it ends; each test takes a folder of its own inside.
 */
#ifndef SUPPORT_SCRATCH_H
#define SUPPORT_SCRATCH_H

#include <stddef.h>
#include <stdint.h>

#define SCRATCH_PATH 512

/* 0, or -1 and errno. */
int scratch_begin(void);

/* A new, empty folder that every user may use; its path is copied. */
void scratch_folder(char path[SCRATCH_PATH]);

/* "folder/name" */
void scratch_join(char path[SCRATCH_PATH], const char *folder, const char *name);

/* How many entries a folder has, besides . and .. */
size_t scratch_entries(const char *folder);

/* Reads a whole file, which must be `length` bytes long. 1: it was. */
int scratch_read(const char *path, void *buffer, size_t length);
void scratch_write(const char *path, const void *buffer, size_t length);

/* Descriptors that this process has open. */
size_t scratch_open_files(void);

#endif
