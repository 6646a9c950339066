/* SPDX-License-Identifier: MIT */
/*
 * The two signals that inline delivery needs, SIGBUS and SIGSEGV, and the handlers of the program beside ours.
 *
 * Ours stands in front: it resolves what is the library's, and calls the handler that it found when it was installed
 * for all else. A program, a plugin or a language runtime may install a handler later, over ours. If that one passes on
 * what is not its own, nothing changes; if not, the next write to an armed page would end in it. So each call that is
 * about to arm looks (trap_install()), and puts ours in front again.
 *
 * The later handler may pass on to the one of before, which is ours. So ours is not one function but a layer for each
 * installation, each with the handler that it found: layer 1 -> theirs -> layer 0 -> the first handler. A layer is
 * taken again where the same handler is found again. A circle (theirs was installed twice, and remembers our upper
 * layer) is broken by a tag in the signal's siginfo_t, which says what layers this signal has met; what belongs to no
 * handler then gets the default action.
 *
 * Threads: trap_install() from any, the layers are entered by signals. Part of the fault path.
 */
#ifndef UFFDWP_FAULT_TRAP_H
#define UFFDWP_FAULT_TRAP_H

#include <signal.h>

/* Handlers of others, of one signal, that are in front of or beside each other. */
#define TRAP_LAYERS 8

/* 1: the access may be tried again; 0: the signal is not ours. (signal) */
typedef int (*trap_resolve_fn)(int number, const siginfo_t *info, const void *context);

/* Sees to it that a layer of ours is what the kernel calls for SIGBUS or SIGSEGV; it stays. 0: it was; 1: it was put
 * there now; -EMLINK: more than TRAP_LAYERS different handlers were installed over ours; -EBUSY: another thread
 * installs again and again; or -errno. */
int trap_install(int number, trap_resolve_fn resolve);

#endif
