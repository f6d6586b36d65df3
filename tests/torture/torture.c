// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What the torture tests share; see torture.h.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <linux/loop.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "torture.h"

void die(const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	va_start(ap, fmt);
	fputs("torture: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	_exit(2);
}

unsigned int complaints;
char subject[160];

static void print_line(const char *begin, const char *fmt, va_list ap)
{
	char line[600];

	vsnprintf(line, sizeof(line), fmt, ap);
	printf("%s%s\n", begin, line);
	fflush(stdout);
}

void complain(const char *fmt, ...)
{
	char begin[sizeof(subject) + 4];
	va_list ap;

	if (inc(&complaints) > 20)
		return;
	snprintf(begin, sizeof(begin), "# %s%s", subject, subject[0] ? ": " : "");
	va_start(ap, fmt);
	print_line(begin, fmt, ap);
	va_end(ap);
}

bool verbose;

void note(const char *fmt, ...)
{
	va_list ap;

	if (!verbose)
		return;
	va_start(ap, fmt);
	print_line("#   ", fmt, ap);
	va_end(ap);
}

char **options(int argc, char **argv, const struct opt *opts, int least, int most,
	       const char *usage)
{
	const struct opt *opt;
	char letters[64] = "";
	int c;

	for (opt = opts; opt->letter; opt++)
		sprintf(letters + strlen(letters), "%c%s", opt->letter, opt->flag ? "" : ":");
	while ((c = getopt(argc, argv, letters)) != -1) {
		for (opt = opts; opt->letter && opt->letter != c; opt++)
			;
		if (opt->number)
			*opt->number = strtoull(optarg, NULL, 0);
		else if (opt->flag)
			*opt->flag = true;
		else if (opt->text)
			*opt->text = optarg;
		else
			die("usage: %s", usage);
	}
	if (argc - optind < least || argc - optind > most)
		die("usage: %s", usage);
	return argv + optind;
}

pthread_t start_thread(void *(*run)(void *data), void *data)
{
	pthread_t id;

	if (pthread_create(&id, NULL, run, data))
		die("no thread");
	return id;
}

void *alloc_aligned(size_t size)
{
	void *p;

	if (posix_memalign(&p, 4096, size))
		die("no memory");
	return p;
}

/* ---- random numbers --------------------------------------------------------- */

static u64 mix(u64 x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

void rng_init(struct rng *r, u64 seed, u64 stream)
{
	r->x = mix(seed * 0x9e3779b97f4a7c15ULL + 1) ^ mix(stream + 0x2545f4914f6cdd1dULL);
}

u64 rng_next(struct rng *r)
{
	r->x += 0x9e3779b97f4a7c15ULL;
	return mix(r->x);
}

u64 rng_below(struct rng *r, u64 below)
{
	return below ? rng_next(r) % below : 0;
}

void stamp(u8 *p, u64 sector, u64 id)
{
	u64 words[SECTOR / 8] = { STAMP, sector, id };
	struct rng r;

	rng_init(&r, id, sector);
	for (int i = 3; i < SECTOR / 8; i++)
		words[i] = rng_next(&r);
	memcpy(p, words, SECTOR);
}

bool is_stamp(const u8 *p, u64 sector, u64 id)
{
	u8 want[SECTOR];

	stamp(want, sector, id);
	return !memcmp(want, p, SECTOR);
}

bool is_zero(const u8 *p)
{
	return !p[0] && !memcmp(p, p + 1, SECTOR - 1);
}

/* ---- device-mapper ------------------------------------------------------------- */

#define DM_BUFFER	32768

static int dm_call(unsigned long request, struct dm_ioctl *io)
{
	static int control = -1;

	if (control < 0)
		control = open("/dev/mapper/control", O_RDWR | O_CLOEXEC);
	if (control < 0)
		die("/dev/mapper/control: %s", strerror(errno));
	return ioctl(control, request, io);
}

static struct dm_ioctl *dm_request(const char *name)
{
	struct dm_ioctl *io = calloc(1, DM_BUFFER);

	if (!io)
		die("no memory");
	io->version[0] = DM_VERSION_MAJOR;
	io->data_size = DM_BUFFER;
	io->data_start = sizeof(*io);
	snprintf(io->name, sizeof(io->name), "%s", name);
	return io;
}

static int dm_simple(const char *name, unsigned long request, u32 flags)
{
	struct dm_ioctl *io = dm_request(name);
	int r, saved;

	io->flags = flags;
	r = dm_call(request, io);
	saved = errno;
	free(io);
	errno = saved;
	return r;
}

int dm_create(const char *name)
{
	return dm_simple(name, DM_DEV_CREATE, 0);
}

int dm_resume(const char *name)
{
	return dm_simple(name, DM_DEV_SUSPEND, 0);
}

int dm_suspend(const char *name)
{
	return dm_simple(name, DM_DEV_SUSPEND, DM_SUSPEND_FLAG);
}

int dm_remove(const char *name)
{
	int r, tries = 0;

	/* Somebody may look at the device for a moment. */
	while ((r = dm_simple(name, DM_DEV_REMOVE, 0)) && errno == EBUSY && tries++ < 50)
		usleep(20000);
	return r;
}

/* "START LENGTH TYPE PARAMETERS", a line for each target */
static int dm_add_targets(struct dm_ioctl *io, const char *table)
{
	char *lines = strdup(table), *save, *line;
	u32 at = sizeof(*io);

	if (!lines)
		die("no memory");
	for (line = strtok_r(lines, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		struct dm_target_spec *spec = (void *)((char *)io + at);
		unsigned long long start, length;
		int type = 0, type_end = 0;
		u32 need;

		if (sscanf(line, "%llu %llu %n%*s%n", &start, &length, &type, &type_end) < 2 ||
		    !type_end)
			die("bad table: %s", line);
		need = sizeof(*spec) + strlen(line + type_end) + 8;
		if (at + need > DM_BUFFER)
			die("table too long");
		spec->sector_start = start;
		spec->length = length;
		snprintf(spec->target_type, sizeof(spec->target_type), "%.*s",
			 type_end - type, line + type);
		strcpy((char *)(spec + 1), line[type_end] ? line + type_end + 1 : "");
		spec->next = (need + 7) & ~7U;
		at += spec->next;
		io->target_count++;
	}
	free(lines);
	return 0;
}

int dm_load(const char *name, const char *table, bool read_only)
{
	struct dm_ioctl *io = dm_request(name);
	int r, saved;

	if (read_only)
		io->flags |= DM_READONLY_FLAG;
	dm_add_targets(io, table);
	r = dm_call(DM_TABLE_LOAD, io);
	saved = errno;
	free(io);
	errno = saved;
	return r;
}

int dm_message(const char *name, const char *message, char *out, size_t size)
{
	struct dm_ioctl *io = dm_request(name);
	struct dm_target_msg *msg = (void *)(io + 1);
	int r, saved;

	strcpy(msg->message, message);
	r = dm_call(DM_TARGET_MSG, io);
	saved = errno;
	if (!r && out)
		snprintf(out, size, "%s", io->flags & DM_DATA_OUT_FLAG ?
			 (char *)io + io->data_start : "");
	free(io);
	errno = saved;
	return r;
}

int dm_status(const char *name, char *out, size_t size)
{
	struct dm_ioctl *io = dm_request(name);
	int r, saved;

	r = dm_call(DM_TABLE_STATUS, io);
	saved = errno;
	if (!r && out)
		snprintf(out, size, "%s", io->target_count ? (char *)io + io->data_start +
			 sizeof(struct dm_target_spec) : "");
	free(io);
	errno = saved;
	return r;
}

void dm_make(const char *name, const char *table)
{
	if (dm_create(name) || dm_load(name, table, false) || dm_resume(name))
		die("%s: %s: %s", name, table, strerror(errno));
}

const char *dm_devno(const char *name)
{
	static __thread char text[32];
	struct dm_ioctl *io = dm_request(name);

	if (dm_call(DM_DEV_STATUS, io))
		die("%s: %s", name, strerror(errno));
	snprintf(text, sizeof(text), "%u:%u", major(io->dev), minor(io->dev));
	free(io);
	return text;
}

int dm_open(const char *name, int flags)
{
	unsigned int major, minor;
	char path[64];
	int fd;

	if (sscanf(dm_devno(name), "%u:%u", &major, &minor) != 2)
		die("%s: no number", name);
	snprintf(path, sizeof(path), "/dev/torture-%u-%u", major, minor);
	unlink(path);
	if (mknod(path, S_IFBLK | 0600, makedev(major, minor)))
		die("%s: %s", path, strerror(errno));
	fd = open(path, flags | O_CLOEXEC);
	unlink(path);
	return fd;
}

/* ---- loop devices ---- */

void loop_make(const char *path, size_t size, bool read_only, u8 **map, char *dev)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600), ctl, loop, nr, ro = fd;
	struct loop_info64 info = { 0 };

	if (fd < 0 || ftruncate(fd, size))
		die("%s: %s", path, strerror(errno));
	*map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (*map == MAP_FAILED)
		die("%s: mmap: %s", path, strerror(errno));
	if (read_only)
		ro = open(path, O_RDONLY | O_CLOEXEC);
	ctl = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	nr = ioctl(ctl, LOOP_CTL_GET_FREE);
	if (nr < 0)
		die("no loop device: %s", strerror(errno));
	sprintf(dev, "/dev/loop%d", nr);
	loop = open(dev, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	if (loop < 0 || ioctl(loop, LOOP_SET_FD, ro))
		die("%s: %s", dev, strerror(errno));
	info.lo_flags = LO_FLAGS_AUTOCLEAR;
	if (ioctl(loop, LOOP_SET_STATUS64, &info))
		die("%s: %s", dev, strerror(errno));
	close(ctl);
	/* It stays open: the device goes with the process. */
}

u64 reads_of(const char *dev)
{
	char path[100], text[200] = "";
	int fd;

	snprintf(path, sizeof(path), "/sys/block/%.30s/stat", dev + strlen("/dev/"));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		die("%s: %s", path, strerror(errno));
	close(fd);
	return strtoull(text, NULL, 10);
}

/* ---- the kernel's log ---- */

bool kmsg_is_trouble(const char *text)
{
	static const char * const words[] = {
		"BUG:", "BUG ", "kernel BUG", "WARNING:", "Oops", "KASAN:", "UBSAN:", "KCSAN:",
		"INFO: task", "possible circular", "possible recursive", "corruption",
		"beyond end of device", "read-only block-device", "general protection",
		"refcount_t:", "ODEBUG:", "inconsistent lock", "suspicious RCU",
		"sleeping function",
	};

	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
		if (strstr(text, words[i]))
			return true;
	return false;
}

void kmsg_read(void (*line)(const char *text))
{
	static int fd = -1;
	char record[8192];
	bool first = fd < 0;
	ssize_t n;

	if (first) {
		fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
		if (fd < 0)
			die("/dev/kmsg: %s", strerror(errno));
		lseek(fd, 0, SEEK_END);
	}
	while ((n = read(fd, record, sizeof(record) - 1)) > 0 || (n < 0 && errno == EPIPE)) {
		char *text, *end;

		if (n < 0)
			continue;
		record[n] = 0;
		text = strchr(record, ';');
		if (!text)
			continue;
		end = strchr(++text, '\n');
		if (end)
			*end = 0;
		if (line)
			line(text);
	}
}

static void complain_of_trouble(const char *text)
{
	if (kmsg_is_trouble(text))
		complain("the kernel says: %s", text);
}

void kmsg_check(void)
{
	kmsg_read(complain_of_trouble);
}

/* ---- the watchdog ---- */

static struct {
	unsigned int limit;
	unsigned int left;
	int sysrq;
	char text[200];
} dog;

static void *watchdog(void *unused)
{
	static const char script[] =
		"for t in /proc/[0-9]*/task/[0-9]*; do\n"
		"	case \"$(sed 's/.*) //' $t/stat)\" in\n"
		"	D*) echo $t $(cat $t/comm); cat $t/stack ;;\n"
		"	esac\n"
		"done >&2\n";

	for (;;) {
		sleep(1);
		if (dec(&dog.left))
			continue;
		fprintf(stderr, "torture: hangs: %s\n", dog.text);
		/* Who is it?  A shell needs memory, which there may not be; the kernel none. */
		if (write(dog.sysrq, "w", 1) != 1 || write(dog.sysrq, "m", 1) != 1)
			perror("sysrq-trigger");
		/* Then the end, which a task in the kernel may not reach. */
		fflush(stdout);
		if (system(script))
			perror("sh");
		_exit(3);
	}
	return unused;
}

void watchdog_start(unsigned int seconds)
{
	dog.sysrq = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC);
	dog.limit = seconds;
	dog.left = seconds;
	start_thread(watchdog, NULL);
}

void watchdog_feed(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(dog.text, sizeof(dog.text), fmt, ap);
	va_end(ap);
	store(&dog.left, dog.limit);
}

/* ---- the rest ---- */

u32 crc32c(const void *data, size_t size)
{
	static u32 table[256];
	const u8 *p = data;
	u32 crc = ~0U;

	if (!table[1])
		for (u32 i = 0; i < 256; i++) {
			u32 c = i;

			for (int k = 0; k < 8; k++)
				c = c >> 1 ^ (c & 1 ? 0x82f63b78 : 0);
			table[i] = c;
		}
	while (size--)
		crc = crc >> 8 ^ table[(crc ^ *p++) & 255];
	return ~crc;
}

void *read_file(const char *path, size_t *size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	u8 *data;

	if (fd < 0 || fstat(fd, &st))
		die("%s: %s", path, strerror(errno));
	data = malloc(st.st_size + 1);
	*size = 0;
	while (data && *size < (size_t)st.st_size) {
		ssize_t n = read(fd, data + *size, st.st_size - *size);

		if (n <= 0)
			die("%s: %s", path, strerror(errno));
		*size += n;
	}
	close(fd);
	if (!data)
		die("no memory");
	return data;
}
