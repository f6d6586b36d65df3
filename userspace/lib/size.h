/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sizes as people write and read them. */
#ifndef VC_SIZE_H
#define VC_SIZE_H

#include "vhdx-port.h"

#define VC_SIZE_TEXT	24

/* "512", "64K", "2M", "1.5G": binary suffixes up to T, "iB" or "B" may follow. */
bool vc_size_parse(const char *text, u64 *bytes);

/* "1.5 GiB"; @text has VC_SIZE_TEXT bytes.  Return: @text. */
const char *vc_size_format(u64 bytes, char *text);

#endif /* VC_SIZE_H */
