/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The kernel's own fault injection, by its knobs in debugfs.  What can't be set ends the
 * test.
 */
#ifndef FAULT_INJECT_H
#define FAULT_INJECT_H

enum fault { FAULT_SLAB, FAULT_PAGE, FAULT_IO, NR_FAULTS };

extern const char * const fault_names[NR_FAULTS];

/* Whatever an allocation may do, and of any size, it may fail; and nothing is said. */
void fault_setup(void);
/* From now on only tasks have faults whose names are like @pattern, in sh's words. */
void fault_victims(const char *pattern);
/* This disk may have FAULT_IO. */
void fault_disk(const char *disk);

void fault_set(enum fault fault, const char *knob, const char *value);
/* Return: the knob, for those who must not need memory when they turn it. */
int fault_open(enum fault fault, const char *knob, int flags);

#endif /* FAULT_INJECT_H */
