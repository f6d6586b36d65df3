/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What kmemleak does not see: memory that is still referenced, and whole pages.
 *
 * The kernel's own counts are compared over many lives of a clone: one object too many in
 * each life is a leak, whatever it is.
 */
#ifndef TORTURE_LEAKS_H
#define TORTURE_LEAKS_H

#include "torture.h"

/* Counts.  All that a life needs should have been there once before. */
void leaks_begin(void);

/*
 * Counts again, @lives later, and prints what has grown most.  Return: how many kinds of
 * memory have grown by one in each second life, or more.
 */
unsigned int leaks_end(u32 lives);

#endif /* TORTURE_LEAKS_H */
