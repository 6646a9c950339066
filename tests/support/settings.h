/* SPDX-License-Identifier: MIT */
/*
 * Settings of the machine, changed for the time of one test program. Each change is undone by its guardian, a process
 * that waits for the program to end: at exit() the program waits for it, and if the program is killed the guardian
 * undoes the change on its own.
 *
 * Programs run side by side, in one test run and in two that share a machine (two checkouts, two users): each program
 * holds a lock of the machine, shared or alone. Huge pages need no more than the shared lock: so many more are added
 * under a lock of their own, each program uses no more than it added, and as many are taken away again. A program that
 * changes another setting holds the lock alone, from the change on until its guardians have undone it: swapoff(2) would
 * bring in what the program beside it has just swapped out, and two programs that put an old value back would put back
 * each other's. A program that waits for it alone is not overtaken by those that share it. CMake finds these programs
 * by the calls in their sources, and starts nothing beside them.
 *
 * Called by the process that lives as long as the settings shall: never in a test that Check has forked.
 */
#ifndef SUPPORT_SETTINGS_H
#define SUPPORT_SETTINGS_H

/* Takes the lock, shared; programs that a holder starts have it already. */
void settings_begin(void);

/* `pages` huge pages of the default size more. 0, or -errno with the reason printed and nothing changed. */
int settings_huge_pages(unsigned pages);

/* A swap file, also where there is swap. The program runs alone from here on. 0: there is swap; -errno with the reason
 * printed and nothing changed. */
int settings_swap(void);

/* vm.max_map_count, lowered. The program runs alone from here on. 0, or -errno with the reason printed and nothing
 * changed. */
int settings_mappings(unsigned most);

/* KSM runs, and scans much at a time. The program runs alone from here on. 0, or -errno with the reason printed and
 * nothing changed. */
int settings_ksm(void);

#endif
