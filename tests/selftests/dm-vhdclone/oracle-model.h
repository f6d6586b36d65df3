/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What every sector of a device must hold; the comment in oracle.c tells the idea. */
#ifndef ORACLE_MODEL_H
#define ORACLE_MODEL_H

#include <pthread.h>
#include <time.h>

#include "oracle-device.h"

#define CAN_BASE	1	/* what the base has there */
#define CAN_ZERO	2
#define CAN_STAMP	4	/* a stamp with lo <= generation <= hi */

struct sector {
	/* What it holds now. */
	u32 lo, hi;
	u8 can;
	/* What a crash leaves: these, stamps from dur_lo on, and what late says. */
	u8 dur_can;
	u8 late_can;
	u32 dur_gen;		/* the operation that made it durable */
	u32 dur_lo;
	u32 late_gen;		/* the newest operation that late_can comes from */
};

/* A part of the device that is modelled: a 64 TiB disk does not fit in memory. */
struct window {
	u64 first;
	u64 count;
	u64 index;		/* of its first sector in the model */
};

#define MAX_WINDOWS	64

enum kind { READ, WRITE, DSYNC, DISCARD, ZEROES, PUNCH, FLUSH, NR_KINDS };

/* One of these is in a journal, a mix, a message. */
extern const char * const kind_letter;

struct op {
	u64 sector;
	u32 count;
	u32 gen;
	enum kind kind;
};

struct ops {
	struct op *op;
	size_t nr, max;
};

/* The one run that this process is. */
extern struct oracle {
	struct device dev;
	struct device base;
	bool has_base;
	struct window window[MAX_WINDOWS];
	unsigned int nr_windows;
	struct sector *model;
	u64 nr_sectors;
	u32 gen;
	u64 seed;		/* of the stamps; of the order of things: rnd */
	u64 rnd;
	u32 unit;		/* sectors: alignment of every I/O */
	u64 block;		/* sectors; 0 unknown */
	u32 max;		/* sectors in an I/O */
	u32 weight[NR_KINDS];
	unsigned int threads;
	u64 nr_ops;
	unsigned int seconds;
	unsigned int hot;
	bool errors_ok;
	bool disjoint;
	const char *live_hook, *quiet_hook;
	u64 live_every, quiet_every;
	int journal;
	bool crash;

	pthread_mutex_t lock;	/* model, history, counters */
	pthread_cond_t idle;	/* an operation ended: its sectors are free */
	pthread_rwlock_t open;	/* held shared around I/O, for writing to reopen */
	struct ops done;	/* completed since the last flush was started */
	struct ops history;	/* for the report of a mismatch */
	struct op *active;	/* one a thread */
	u64 issued;
	u64 count[NR_KINDS];
	u64 failed[NR_KINDS];
	bool unsupported[NR_KINDS];
	time_t end;
} o;

void ops_add(struct ops *ops, const struct op *op);

/* What operation @gen writes to a sector. */
void stamp(void *buf, u64 sector, u32 gen);

/* NULL: not modelled. */
struct sector *model_at(u64 sector);

/*
 * An operation has ended, may show from now on even if it has not, is durable.  The
 * lock is held.
 */
void model_now(const struct op *op, bool failed);
void model_late(const struct op *op);
void model_durable(const struct op *op);

/* What unwritten sectors hold. */
void read_base(void *buf, u64 sector, u32 count);

/* The number of bad sectors; some of them are told about. */
unsigned int check_data(u64 sector, u32 count, const u8 *data, const u8 *base);

/* ---- state and journal files --------------------------------------------- */

void add_window(u64 first, u64 count);
void make_model(void);
void save_state(const char *path);
void load_state(const char *path);

/* "d": durable; "a": may show from now on.  Synced before it returns. */
void journal_ops(char what, const struct op *op, size_t nr);
void journal_open(const char *path);

#endif /* ORACLE_MODEL_H */
