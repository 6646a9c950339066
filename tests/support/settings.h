/* SPDX-License-Identifier: MIT */
/*
 * Settings of the machine, changed for the time of one test program. Each change is undone by its guardian, a process
 * that waits for the program to end: at exit() the program waits for it, and if the program is killed the guardian
 * undoes the change on its own. Changes are additions (so many huge pages more, one swap file more), so that programs
 * that run side by side do not undo each other's.
 *
 * Called by the process that lives as long as the settings shall: never in a test that Check has forked.
 */
#ifndef SUPPORT_SETTINGS_H
#define SUPPORT_SETTINGS_H

/* `pages` huge pages of the default size more. 0, or -errno with the reason printed and nothing changed. */
int settings_huge_pages(unsigned pages);

/* A swap file, also where there is swap. 0: there is swap; -errno with the reason printed and nothing changed. */
int settings_swap(void);

/* vm.max_map_count, lowered: for programs that run alone. 0, or -errno with the reason printed and nothing changed. */
int settings_mappings(unsigned most);

#endif
