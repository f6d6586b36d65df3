// SPDX-License-Identifier: GPL-2.0-or-later
/* Kernel messages: see kmsg.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kmsg.h"

#define VC_KMSG_RECORD	8192		/* the kernel's limit of one record */

int vc_kmsg_open(void)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (fd >= 0)
		lseek(fd, 0, SEEK_END);
	return fd;
}

void vc_kmsg_close(int fd)
{
	if (fd >= 0)
		close(fd);
}

bool vc_kmsg_last(int fd, const char *word, char *text)
{
	char record[VC_KMSG_RECORD];
	bool found = false;
	char *message;
	ssize_t n;

	if (fd < 0)
		return false;
	for (;;) {
		n = read(fd, record, sizeof(record) - 1);
		/* EPIPE: records were overwritten before they were read. */
		if (n < 0 && (errno == EPIPE || errno == EINTR))
			continue;
		if (n <= 0)
			return found;
		record[n] = '\0';
		message = strchr(record, ';');
		if (!message || !strstr(message, word))
			continue;
		message++;
		message[strcspn(message, "\n")] = '\0';
		snprintf(text, VC_KMSG_MAX, "%.*s", VC_KMSG_MAX - 1, message);
		found = true;
	}
}
