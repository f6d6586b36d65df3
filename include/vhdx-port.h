/* SPDX-License-Identifier: (GPL-2.0-only OR GPL-2.0-or-later) */
/*
 * The few kernel words that the VHDX format code uses, for userspace too, so
 * that the module, the tool, the unit tests and the fuzzers compile one source.
 */
#ifndef VHDX_PORT_H
#define VHDX_PORT_H

#ifdef __KERNEL__

#include <linux/bug.h>
#include <linux/crc32c.h>
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/string.h>
#include <linux/types.h>
#include <asm/byteorder.h>

/* Raw CRC-32C step: no inversion before or after. */
static inline u32 vhdx_crc32c_step(u32 crc, const void *p, size_t n)
{
	return crc32c(crc, p, n);
}

#else /* !__KERNEL__ */

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <linux/types.h>

typedef __UINT8_TYPE__ u8;
typedef __UINT16_TYPE__ u16;
typedef __UINT32_TYPE__ u32;
typedef unsigned long long u64;	/* as there: %llu prints it */

#define le16_to_cpu(x)	le16toh(x)
#define le32_to_cpu(x)	le32toh(x)
#define le64_to_cpu(x)	le64toh(x)
#define cpu_to_le16(x)	htole16(x)
#define cpu_to_le32(x)	htole32(x)
#define cpu_to_le64(x)	htole64(x)
#define be16_to_cpu(x)	be16toh(x)
#define be32_to_cpu(x)	be32toh(x)
#define be64_to_cpu(x)	be64toh(x)
#define cpu_to_be16(x)	htobe16(x)
#define cpu_to_be32(x)	htobe32(x)
#define cpu_to_be64(x)	htobe64(x)

#ifndef __packed
#define __packed	__attribute__((__packed__))
#endif
#ifndef ARRAY_SIZE
#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))
#endif
#ifndef BITS_PER_LONG
#define BITS_PER_LONG	((unsigned int)(8 * sizeof(long)))
#endif

/* Raw CRC-32C step: no inversion before or after (userspace/lib/crc32c.c). */
u32 vhdx_crc32c_step(u32 crc, const void *p, size_t n);

#endif /* __KERNEL__ */

#endif /* VHDX_PORT_H */
