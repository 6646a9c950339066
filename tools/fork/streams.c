/* SPDX-License-Identifier: MIT */
/* See streams.h. */
#include "streams.h"

#include <stdio.h>

/* A stream whose lock is the program's business (__fsetlocking(3)). */
#define STREAMS_USER_LOCK 0x8000

struct _IO_FILE;
typedef struct _IO_FILE *streams_iterator;

extern void _IO_list_lock(void) __attribute__((weak));
extern void _IO_list_unlock(void) __attribute__((weak));
extern void _IO_list_resetlock(void) __attribute__((weak));
extern streams_iterator _IO_iter_begin(void) __attribute__((weak));
extern streams_iterator _IO_iter_end(void) __attribute__((weak));
extern streams_iterator _IO_iter_next(streams_iterator) __attribute__((weak));
extern FILE *_IO_iter_file(streams_iterator) __attribute__((weak));

/* glibc's _IO_lock_t, a recursive lock. */
struct streams_lock {
	int lock;
	int count;
	void *owner;
};

void streams_lock(void)
{
	if (_IO_list_lock)
		_IO_list_lock();
}

void streams_unlock(void)
{
	if (_IO_list_unlock)
		_IO_list_unlock();
}

static void streams_reset_each(void)
{
	for (streams_iterator i = _IO_iter_begin(); i != _IO_iter_end(); i = _IO_iter_next(i)) {
		FILE *file = _IO_iter_file(i);

		if (!(file->_flags & STREAMS_USER_LOCK) && file->_lock)
			*(struct streams_lock *)file->_lock = (struct streams_lock){0};
	}
}

void streams_reset(void)
{
	if (_IO_iter_begin && _IO_iter_end && _IO_iter_next && _IO_iter_file)
		streams_reset_each();
	if (_IO_list_resetlock)
		_IO_list_resetlock();
}
