/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Random I/O, each read compared with the model. */
#ifndef ORACLE_LOAD_H
#define ORACLE_LOAD_H

#include "oracle-model.h"

/* All operations, as "o" has them; dies at the first that is wrong. */
void run_threads(void);

/* Read every modelled sector; the number of bad ones. */
u64 verify_all(void);

#endif /* ORACLE_LOAD_H */
