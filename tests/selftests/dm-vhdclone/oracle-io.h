/* SPDX-License-Identifier: GPL-2.0-or-later */
/* "oracle io" and "oracle cmp": I/Os exactly as told, no model. */
#ifndef ORACLE_IO_H
#define ORACLE_IO_H

#include "oracle-device.h"

extern const char io_usage[];

/* Exit codes: 0, 1 something was not as it should, 2 wrong usage. */
int oracle_io(int argc, char **argv);
int oracle_cmp(int argc, char **argv);

#endif /* ORACLE_IO_H */
