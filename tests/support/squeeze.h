/* SPDX-License-Identifier: MIT */
/* Compressed pages for tests that make files of their own, as the library makes them. */
#ifndef SUPPORT_SQUEEZE_H
#define SUPPORT_SQUEEZE_H

#include <stddef.h>

/* The length of one frame of zstd; 0: it would not be shorter, not fit, or the library was built without zstd. */
size_t squeeze(void *to, size_t room, const void *from, size_t length);

/* 1: the frame gave exactly `length` bytes. */
int unsqueeze(void *to, size_t length, const void *from, size_t squeezed);

#endif
