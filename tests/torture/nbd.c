// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A disk that is a program; see nbd.h.
 *
 * A write is in the cache (data) until a flush that came after it, or is on the medium
 * (stable) at once with FUA.  A write that fails leaves any part of itself; a flush that
 * fails loses any of what it was to save, and no later one brings it back.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/nbd.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "nbd.h"

#define MAX_PENDING	65536

const char * const sick_names[SICK_KINDS] = {
	"none", "all", "writes", "flushes", "reads", "one", "lies",
};

struct server {
	struct disk *disk;
	int fd;
	int sock[2];
	struct { u64 at; u32 size; } pending[MAX_PENDING];
	unsigned int nr_pending;
	/* The late read */
	u8 *late_data;
	u32 late_size;
	struct nbd_reply late_reply;
	struct timespec late_until;
};

static struct server *server;

static bool is_sick(struct disk *d, u32 kind, bool fua)
{
	u32 nr = d->count++;
	bool fails;

	switch (d->sick) {
	case SICK_ALL:
		fails = nr >= d->from;
		break;
	case SICK_WRITES:
		fails = nr >= d->from && kind != NBD_CMD_READ;
		break;
	case SICK_FLUSHES:
		fails = nr >= d->from && (kind == NBD_CMD_FLUSH || fua);
		break;
	case SICK_READS:
		fails = nr >= d->from && kind == NBD_CMD_READ;
		break;
	case SICK_ONE:
		fails = nr == d->from;
		break;
	default:
		fails = false;
		break;
	}
	d->failed += fails;
	return fails;
}

static void settle(struct server *s, u64 at, u32 size)
{
	memcpy(s->disk->stable + at, s->disk->data + at, size);
}

/* All that is in the cache gets to the medium; or any of it, and the rest never will. */
static void flush(struct server *s, bool fails)
{
	for (unsigned int i = 0; i < s->nr_pending; i++)
		if (!fails || rng_below(&s->disk->rng, 2))
			settle(s, s->pending[i].at, s->pending[i].size);
	s->nr_pending = 0;
}

static void written(struct server *s, u64 at, u32 size, const u8 *data, bool fua,
		    bool fails)
{
	struct disk *d = s->disk;

	for (u32 i = 0; i < size; i += SECTOR)
		if (!fails || (d->sick != SICK_ALL && rng_below(&d->rng, 2))) {
			if (data)
				memcpy(d->data + at + i, data + i, SECTOR);
			else
				memset(d->data + at + i, 0, SECTOR);
		}
	if (fua && !fails) {
		settle(s, at, size);
		return;
	}
	if (s->nr_pending == MAX_PENDING)
		die("too much is not flushed");
	s->pending[s->nr_pending].at = at;
	s->pending[s->nr_pending++].size = size;
}

static void transfer(int fd, void *buf, size_t size, bool out)
{
	while (size) {
		ssize_t n = out ? send(fd, buf, size, MSG_NOSIGNAL) : recv(fd, buf, size, 0);

		if (n < 0 && (errno == EINTR || errno == ENOMEM || errno == ENOBUFS))
			continue;
		if (n <= 0)
			die("nbd: %s", strerror(errno));
		buf = (char *)buf + n;
		size -= n;
	}
}

static void answer(struct server *s, u64 at, u32 size, u8 *buf, u32 nr)
{
	struct disk *d = s->disk;
	u32 wrong;

	if (d->sick != SICK_LIES || nr != d->from || size > 32 << 20) {
		transfer(s->sock[1], d->data + at, size, true);
		return;
	}
	memcpy(buf, d->data + at, size);
	wrong = rng_below(&d->rng, size);
	buf[wrong] ^= 1 << rng_below(&d->rng, 8);
	d->lie = at + wrong;
	d->failed++;
	transfer(s->sock[1], buf, size, true);
}

/* Is this to be the late one?  Then it is put aside. */
static bool is_late(struct server *s, u64 at, u32 size, const struct nbd_reply *reply)
{
	struct disk *d = s->disk;
	u64 bytes = load(&d->late_bytes);

	if (!bytes || at < d->late_at || at - d->late_at >= bytes)
		return false;
	s->late_data = realloc(s->late_data, size);
	if (!s->late_data)
		die("no memory");
	memcpy(s->late_data, d->data + at, size);
	s->late_size = size;
	s->late_reply = *reply;
	clock_gettime(CLOCK_MONOTONIC, &s->late_until);
	s->late_until.tv_sec += d->late_ms / 1000;
	s->late_until.tv_nsec += d->late_ms % 1000 * 1000000;
	store(&d->late, true);
	store(&d->late_bytes, 0);
	return true;
}

static int late_left_ms(const struct server *s)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (s->late_until.tv_sec - now.tv_sec) * 1000 +
	       (s->late_until.tv_nsec - now.tv_nsec) / 1000000;
}

/* Until there is a request; the late read is answered when its time has come. */
static void wait_for_request(struct server *s)
{
	struct pollfd fd = { .fd = s->sock[1], .events = POLLIN };
	int left;

	while (s->disk->late) {
		left = late_left_ms(s);
		if (left > 0 && poll(&fd, 1, left) > 0)
			return;
		if (left > 0)
			continue;
		transfer(s->sock[1], &s->late_reply, sizeof(s->late_reply), true);
		transfer(s->sock[1], s->late_data, s->late_size, true);
		store(&s->disk->late, false);
	}
}

static void *serve(void *data)
{
	static u8 buf[32 << 20];
	struct server *s = data;
	struct disk *d = s->disk;

	for (;;) {
		struct nbd_request request;
		struct nbd_reply reply = { .magic = htonl(NBD_REPLY_MAGIC) };
		u32 type, kind, size;
		bool fua, fails;
		u64 at;

		wait_for_request(s);
		transfer(s->sock[1], &request, sizeof(request), false);
		type = ntohl(request.type);
		kind = type & 0xffff;
		fua = type & NBD_CMD_FLAG_FUA;
		at = be64toh(request.from);
		size = ntohl(request.len);
		if (kind == NBD_CMD_DISC)
			return NULL;
		if (at > d->size || size > d->size - at ||
		    (kind == NBD_CMD_WRITE && size > sizeof(buf)))
			die("nbd: request %u of %u bytes at %llu", kind, size, at);
		if (kind == NBD_CMD_WRITE)
			transfer(s->sock[1], buf, size, false);
		fails = is_sick(d, kind, fua);
		if (kind == NBD_CMD_WRITE)
			written(s, at, size, buf, fua, fails);
		else if (kind == NBD_CMD_TRIM && !fails)
			written(s, at, size, NULL, fua, false);
		else if (kind == NBD_CMD_FLUSH)
			flush(s, fails);
		reply.error = htonl(fails ? EIO : 0);
		memcpy(&reply.handle, &request.handle, sizeof(reply.handle));
		if (kind == NBD_CMD_READ && !fails && is_late(s, at, size, &reply))
			continue;
		transfer(s->sock[1], &reply, sizeof(reply), true);
		if (kind == NBD_CMD_READ && !fails)
			answer(s, at, size, buf, d->count - 1);
	}
}

static void *do_it(void *data)
{
	struct server *s = data;

	ioctl(s->fd, NBD_DO_IT);
	return NULL;
}

void nbd_start(struct disk *disk, unsigned int nr, size_t size)
{
	struct server *s = server = calloc(1, sizeof(*s));
	char path[32];

	disk->size = size;
	disk->data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS |
			  MAP_POPULATE, -1, 0);
	disk->stable = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS |
			    MAP_POPULATE, -1, 0);
	if (!s || disk->data == MAP_FAILED || disk->stable == MAP_FAILED)
		die("no memory");
	s->disk = disk;
	rng_init(&disk->rng, 1, 1);
	snprintf(path, sizeof(path), "/dev/nbd%u", nr);
	s->fd = open(path, O_RDWR | O_CLOEXEC);
	if (s->fd < 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, s->sock))
		die("%s: %s", path, strerror(errno));
	if (ioctl(s->fd, NBD_SET_BLKSIZE, 512UL) ||
	    ioctl(s->fd, NBD_SET_SIZE_BLOCKS, size / 512) ||
	    ioctl(s->fd, NBD_SET_FLAGS, (unsigned long)(NBD_FLAG_HAS_FLAGS |
		  NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM)) ||
	    ioctl(s->fd, NBD_SET_SOCK, (unsigned long)s->sock[0]))
		die("%s: ioctl: %s", path, strerror(errno));
	start_thread(serve, s);
	start_thread(do_it, s);
	/* Connected when it answers. */
	for (int i = 0; i < 200; i++) {
		u8 sector[SECTOR];

		if (disk->count && pread(s->fd, sector, sizeof(sector), 0) > 0)
			return;
		if (pread(s->fd, sector, sizeof(sector), 4096 * (i % 16)) > 0)
			return;
		usleep(20000);
	}
	die("%s does not come up", path);
}

void nbd_set(struct disk *disk, const u8 *image)
{
	disk->sick = SICK_NOT;
	disk->count = 0;
	disk->failed = 0;
	disk->lie = 0;
	server->nr_pending = 0;
	memcpy(disk->data, image, disk->size);
	memcpy(disk->stable, image, disk->size);
}

void nbd_power_cut(void)
{
	flush(server, true);
}
