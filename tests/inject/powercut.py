#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Power cuts: what a disk may hold when the power fails during a recorded command.

  powercut.py [--points N] [--seed S] LOG BEFORE FILE [BEFORE FILE]... CHECK

LOG is what inject.so recorded (INJECT_LOG); FILE is a file that is looked at, BEFORE
its contents before the command, or "-" if it was not there.  For each point in the
log at which the power may fail, and for some choices of what was lost, each FILE is
made anew (or removed) and the shell command CHECK must succeed.  It finds POINT and
DONE (1: the whole command had ended well before).

A write is durable when a flush of the file that was issued after it has ended.  Any
other is there, not there, or there in part, in units of 512 bytes, and so is a change
of the length.  Names are durable with a flush of their directory, and come in order;
what becomes of one file says nothing about another.
"""
import argparse
import os
import random
import subprocess
import sys

UNIT = 512


class Record:
    def __init__(self, what, ident, offset, length, paths, data):
        self.what = what
        self.ident = ident
        self.offset = offset
        self.length = length
        self.paths = paths
        self.data = data


def read_log(path):
    with open(path, "rb") as f:
        while line := f.readline():
            what, dev, ino, offset, length, names, size = line.decode().split()
            paths = [os.path.realpath(p) for p in
                     f.read(int(names)).decode(errors="surrogateescape").split("\0")]
            data = f.read(int(size))
            if len(data) != int(size):
                sys.exit("powercut: the log ends inside a record")
            yield Record(what, (int(dev), int(ino)), int(offset), int(length), paths,
                         data)


def apply(content, record, keep=None):
    """keep(): is this unit there?  None: all are."""
    if record.what == "truncate":
        if keep is None or keep():
            del content[record.length:]
            content.extend(bytes(record.length - len(content)))
        return
    if record.what == "extend":
        end = record.offset + record.length
        if keep is None or keep():
            content.extend(bytes(max(0, end - len(content))))
        return
    data = record.data
    if record.what in ("zero", "punch"):
        data = bytes(record.length)
        if record.what == "punch":
            data = data[:max(0, len(content) - record.offset)]
    elif record.what != "write":
        sys.exit(f"powercut: the log has a {record.what}")
    # All of it, nothing, or each unit for itself.
    if keep is not None:
        whole = random.random() < 0.7
        there = keep()
    for at in range(0, len(data), UNIT):
        if keep is not None and not (there if whole else keep()):
            continue
        piece = data[at:at + UNIT]
        start = record.offset + at
        content.extend(bytes(max(0, start - len(content))))
        content[start:start + len(piece)] = piece


class Disk:
    """Files by their identity, and which of them has the name."""

    def __init__(self, name, before):
        self.name = os.path.realpath(name)
        self.durable = {}
        self.waiting = {}
        self.names = [None]             # of the name: durable, then what came since
        self.old = None
        if before != "-":
            with open(before, "rb") as f:
                self.old = bytearray(f.read())
            self.names = ["old"]

    def file(self, record):
        # The file that was there is known by its name until it is written to.
        if self.names[-1] == "old" and record.paths[0] == self.name:
            self.names = [record.ident]
            self.durable[record.ident] = self.old
        self.durable.setdefault(record.ident, bytearray())
        return self.waiting.setdefault(record.ident, [])

    def note(self, record):
        what = record.what
        if what == "syncall":
            for ident in list(self.waiting):
                self.flush(ident)
            self.names = self.names[-1:]
        elif what == "sync":
            if record.paths[0] == os.path.dirname(self.name):
                self.names = self.names[-1:]
            else:
                self.file(record)
                self.flush(record.ident)
        elif what in ("rename", "link", "exchange"):
            if record.paths[1] == self.name:
                self.names.append(record.ident)
            elif record.paths[0] == self.name and what == "rename":
                self.names.append(None)
        elif what == "create":
            if record.paths[0] == self.name:
                self.names.append(record.ident)
        elif what == "unlink":
            if record.paths[0] == self.name:
                self.names.append(None)
        elif what not in ("nameless", "mkdir", "symlink"):
            self.file(record).append(record)

    def flush(self, ident):
        for record in self.waiting.pop(ident, []):
            apply(self.durable[ident], record)

    def unflushed(self):
        return sum(len(records) for records in self.waiting.values())

    def cut(self, rate):
        """What is found after the power is back; None: no such file."""
        ident = random.choice(self.names)
        if ident is None:
            return None
        if ident == "old":
            return self.old
        content = bytearray(self.durable.get(ident, b""))
        for record in self.waiting.get(ident, []):
            apply(content, record, lambda: random.random() < rate)
        return content


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("log")
    parser.add_argument("files", nargs="+", metavar="BEFORE FILE")
    parser.add_argument("check")
    args = parser.parse_args()

    records = list(read_log(args.log))
    if not records:
        sys.exit("powercut: the log is empty")
    per_record = max(2, args.points // (len(records) + 1))
    if len(args.files) % 2:
        parser.error("a file without its contents before")
    disks = [Disk(file, before) for before, file in
             zip(args.files[0::2], args.files[1::2])]
    tried = 0
    last = None
    for i in range(len(records) + 1):
        if i:
            for disk in disks:
                disk.note(records[i - 1])
        # Where one write can come before another there is more to try.
        waiting = max(disk.unflushed() for disk in disks)
        for j in range(per_record * (4 if waiting > 1 else 1)):
            random.seed(args.seed * 1000003 + i * 1009 + j)
            # All lost, by chance, all there.
            rate = [0.0, 0.5, 0.8, 0.2, 1.0][j % 5]
            contents = [disk.cut(rate) for disk in disks]
            tried += 1
            if contents == last and i < len(records):
                continue
            last = contents
            for disk, content in zip(disks, contents):
                write(disk.name, content)
            env = dict(os.environ, POINT=f"{i}.{j}", DONE=str(int(i == len(records))))
            if subprocess.run(["bash", "-c", args.check], env=env).returncode:
                sys.exit(f"powercut: seed {args.seed}, point {i}.{j} (after "
                         f"{records[i - 1].what if i else 'nothing'}): not right")
    print(f"{tried} power cuts in {len(records)} calls")


def write(path, content):
    if os.path.lexists(path):
        os.unlink(path)
    if content is None:
        return
    with open(path, "wb") as f:
        # Holes stay holes.
        step = 1 << 16
        for at in range(0, len(content), step):
            piece = content[at:at + step]
            if piece.count(0) != len(piece):
                f.seek(at)
                f.write(piece)
        f.truncate(len(content))


if __name__ == "__main__":
    main()
