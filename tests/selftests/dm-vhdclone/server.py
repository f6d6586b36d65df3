#!/usr/bin/python3 -SE
# SPDX-License-Identifier: GPL-2.0-or-later
"""The process behind vx() in lib.sh: vhdx.py's commands, and a few of the kernel's.

In an emulated guest the start of a program costs as much as a hundred I/Os, so what the
tests do over and over is done here: loop devices, and reading the kernel's log.

  loop FILE [ro] [direct] [part] [bs=N]   attach, print the device
  loop-grow DEVICE                 take over the file's new size
  loops-off FOLDER                 detach all whose file lies there
  klog-mark, klog                  the kernel's log since the mark
"""

import fcntl
import os
import struct
import sys

import vhdx

LOOP_SET_FD, LOOP_CLR_FD, LOOP_SET_CAPACITY = 0x4C00, 0x4C01, 0x4C07
LOOP_CONFIGURE, LOOP_CTL_GET_FREE = 0x4C0A, 0x4C82
EBUSY, EAGAIN, EPIPE = 16, 11, 32


def cmd_loop(args):
    path, options = args[0], args[1:]
    read_only = "ro" in options
    flags = (1 if read_only else 0) | (16 if "direct" in options else 0)
    flags |= 8 if "part" in options else 0
    block = 0
    for option in options:
        if option.startswith("bs="):
            block = int(option[3:])
    fd = os.open(path, os.O_RDONLY if read_only else os.O_RDWR)
    control = os.open("/dev/loop-control", os.O_RDWR)
    try:
        while True:
            number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
            name = "/dev/loop%d" % number
            loop = os.open(name, os.O_RDONLY if read_only else os.O_RDWR)
            config = struct.pack("<II5Q4I64s64s32s2Q8Q", fd, block, 0, 0, 0, 0, 0, 0, 0,
                                 0, flags, path.encode()[:63], b"", b"", 0, 0,
                                 *[0] * 8)
            try:
                fcntl.ioctl(loop, LOOP_CONFIGURE, config)
                print(name)
                return 0
            except OSError as err:
                # Somebody else took it meanwhile.
                if err.errno != EBUSY:
                    raise
            finally:
                os.close(loop)
    finally:
        os.close(control)
        os.close(fd)


def _loop_ioctl(name, request):
    fd = os.open(name, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, request, 0)
    finally:
        os.close(fd)


def cmd_loop_grow(args):
    _loop_ioctl(args[0], LOOP_SET_CAPACITY)
    return 0


def cmd_loops_off(args):
    for name in os.listdir("/sys/block"):
        try:
            with open("/sys/block/%s/loop/backing_file" % name) as f:
                if f.read().startswith(args[0]):
                    _loop_ioctl("/dev/" + name, LOOP_CLR_FD)
        except OSError:
            pass
    return 0


KLOG = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
KLOG_LINES = []         # read since the mark


def cmd_klog_mark(_):
    os.lseek(KLOG, 0, os.SEEK_END)
    KLOG_LINES.clear()
    return 0


def cmd_klog(_):
    while True:
        try:
            record = os.read(KLOG, 8192).decode(errors="replace")
        except OSError as err:
            if err.errno == EAGAIN:
                break
            if err.errno == EPIPE:          # overwritten before it was read
                continue
            raise
        KLOG_LINES.append(record.partition(";")[2].split("\n")[0])
    print("\n".join(KLOG_LINES))
    return 0


def main(argv):
    command = globals().get("cmd_" + argv[1].replace("-", "_"))
    if command:
        try:
            return command(argv[2:])
        except OSError as err:
            print("server.py: %s: %s" % (argv[1], err))
            return 2
    return vhdx.main(argv)


vhdx.serve(main)
