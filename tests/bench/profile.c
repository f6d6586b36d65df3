// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A plugin for QEMU's TCG: how often each piece of code ran while a load was measured.
 *
 *	-plugin build/profile.so,out=FILE
 *
 * tests/bench/load --mark executes "xchg %bx,%bx", which does nothing else, before and
 * after what it measures.  At the second one of each pair this is appended to FILE:
 * "mark N", then "address instructions" for each translated block that ran between them.
 * A block is a run of code without a branch in it, so it lies in one function.
 *
 * One virtual CPU.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugin.h"

#define EXPORT __attribute__((visibility("default")))

EXPORT int qemu_plugin_version = 1;

struct block {
	uint64_t address;
	uint64_t count;		/* of instructions */
	uint64_t before;	/* the first mark */
	struct block *next;
};

static struct block *blocks;
static FILE *out;
static bool marked;
static unsigned int nr_marks;

static void mark(unsigned int cpu, void *data)
{
	struct block *b;

	(void)cpu;
	(void)data;
	if (marked)
		fprintf(out, "mark %u\n", nr_marks++);
	for (b = blocks; b; b = b->next) {
		if (marked && b->count != b->before)
			fprintf(out, "%016llx %llu\n", (unsigned long long)b->address,
				(unsigned long long)(b->count - b->before));
		b->before = b->count;
	}
	fflush(out);
	marked = !marked;
}

static void translated(qemu_plugin_id id, struct qemu_plugin_tb *tb)
{
	static const uint8_t xchg[] = { 0x66, 0x87, 0xdb };
	size_t i, n = qemu_plugin_tb_n_insns(tb);
	struct block *b = calloc(1, sizeof(*b));

	(void)id;
	if (!b)
		abort();
	b->address = qemu_plugin_tb_vaddr(tb);
	b->next = blocks;
	blocks = b;
	for (i = 0; i < n; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);

		qemu_plugin_register_vcpu_insn_exec_inline(insn, QEMU_PLUGIN_ADD_U64,
							   &b->count, 1);
		if (qemu_plugin_insn_size(insn) == sizeof(xchg) &&
		    !memcmp(qemu_plugin_insn_data(insn), xchg, sizeof(xchg)))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, mark,
							       QEMU_PLUGIN_NO_REGS, NULL);
	}
}

EXPORT int qemu_plugin_install(qemu_plugin_id id, const void *info, int argc, char **argv)
{
	(void)info;
	if (argc != 1 || strncmp(argv[0], "out=", 4))
		return -1;
	out = fopen(argv[0] + 4, "w");
	if (!out)
		return -1;
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
