/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the unit tests of the VHDX format share.
 */
#ifndef UNIT_H
#define UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "vhdx-format.h"

#include <cmocka.h>

/* Hand this to the function under test, and its result to one of the two below. */
extern struct vhdx_fault unit_fault;

#define assert_ok(rc) unit_assert_ok(rc, __FILE__, __LINE__)
#define assert_fault(rc, err, what, at) \
	unit_assert_fault(rc, err, what, at, __FILE__, __LINE__)

void unit_assert_ok(int rc, const char *file, int line);
void unit_assert_fault(int rc, int err, const char *what, u64 at, const char *file,
		       int line);

/* Bit by bit, so that it shares no mistake with what it is compared to. */
u32 unit_crc32c(const void *buf, size_t size);

/* Set the checksum of a structure that was changed. */
void unit_seal(void *buf, size_t size);

void unit_put16(void *p, u16 x);
void unit_put32(void *p, u32 x);
void unit_put64(void *p, u64 x);
u32 unit_get32(const void *p);
u64 unit_get64(const void *p);

/* xorshift: the same bytes in every run. */
void unit_random(void *buf, size_t size, u64 seed);

/* What Windows 10 wrote into the headers of fat-differential.vhdx, @slot 0 and 1. */
void unit_header_info(struct vhdx_header_info *info, unsigned int slot);

/* Its regions. */
extern const struct vhdx_region unit_bat_region;
extern const struct vhdx_region unit_metadata_region;

/* The whole image, to be freed; NULL if the file is not there. */
void *unit_load_image(const char *name, size_t *size);

#endif /* UNIT_H */
