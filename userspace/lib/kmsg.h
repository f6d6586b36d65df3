/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the kernel logged while we asked it for something. */
#ifndef VC_KMSG_H
#define VC_KMSG_H

#include <stdbool.h>

#define VC_KMSG_MAX	512

/* From here on.  Return: a descriptor, or -1 (then there will be no messages). */
int vc_kmsg_open(void);
void vc_kmsg_close(int fd);

/* The last message with @word in it since; @text has VC_KMSG_MAX bytes. */
bool vc_kmsg_last(int fd, const char *word, char *text);

#endif /* VC_KMSG_H */
