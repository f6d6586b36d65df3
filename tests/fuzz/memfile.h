/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the linker puts in the place of others, see --wrap in the Makefile. */
#ifndef FUZZ_MEMFILE_H
#define FUZZ_MEMFILE_H

#include <sys/stat.h>
#include <sys/types.h>

#include "vhdx-port.h"

int __wrap_fstat64(int fd, struct stat *st);
int __real_fstat64(int fd, struct stat *st);
ssize_t __wrap_pread64(int fd, void *buf, size_t len, off_t at);
ssize_t __wrap_pwrite64(int fd, const void *buf, size_t len, off_t at);
off_t __wrap_lseek64(int fd, off_t at, int whence);
int __wrap_ftruncate64(int fd, off_t size);
int __wrap_fallocate64(int fd, int mode, off_t at, off_t len);
int __wrap_fsync(int fd);
void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
void __real_free(void *p);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);
void __wrap_free(void *p);
u32 __wrap_vhdx_crc32c_step(u32 crc, const void *buf, size_t len);
u32 __real_vhdx_crc32c_step(u32 crc, const void *buf, size_t len);

#endif /* FUZZ_MEMFILE_H */
