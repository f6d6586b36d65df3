#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Crash points of a recorded workload: rebuild the delta, recover it, judge it.

    replay.py prepare DIR [NAME]...         images of workloads, and their tables
    replay.py check DIR NAME [OPTION]...    the recorded log of one of them

What is recorded (dm-log-writes): every write to the delta device, when it is known
to be on the medium.  Plain writes and discards that had completed when a flush was
issued are logged when that flush completes, then the flush itself.  A FUA write is
logged when it completes.  Marks come where userspace sent them.  A flush that goes
with a write arrives at the target as two, the flush first.

So the log is a row of intervals, each ended by a flush:

    FUA write or mark ... | plain write, discard ... | flush

What the medium may hold after a power cut, as it is modelled here:

    after    everything up to a flush or FUA write, and the marks behind it
    torn     everything before a FUA write, and any of the 512-byte sectors of that
    cut      everything before the plain writes of an interval, and any of these: all
             of them but one, a few, half of them, a beginning; each whole or torn, in
             any order.  The FUA writes of the interval completed before; that the
             plain ones were issued after them is not certain, but possible
    clean    behind the mark that the clone was closed
    prefix   (--every) after each plain write, as if they came in the log's order

Two traps.  Of two flushes at a time the later one may end first: then the log has that,
and the mark that follows from it, before what the earlier one had taken along.  The
number of operations in the marks tells; what such a mark says counts only behind the
earlier flush's mark.  And a sector may be written by a plain write and then by a FUA
write; if no flush comes between them, the log has the older one behind the newer, though
no medium would let it win.  The sectors' generations tell.

Not modelled, since the log does not tell when a write was issued: a plain write that
was still in flight when a flush was issued and got to the medium before that flush
ended.  Discarded space holds junk.
"""

import argparse
import ctypes
import glob
import json
import mmap
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time

here = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(here), "lib"))
import vhdx                                                 # noqa: E402

MIB = 1 << 20
MAGIC = 0x6a736677736872
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
STAMP = 0x68736172436c6476
JUNK = b"\xd5discarded...\x5d\n" * 64


# ---- workloads --------------------------------------------------------------

def tagged(first, last):
    return {"%d-%d" % (first, last): {"state": 6, "fill": {"tag": "BASE"}}}


# "windows" are sectors of the disk that the writer uses.  "parts" are runs of the
# writer; the clone is closed and opened again between them.  "during": what happens
# meanwhile, see guest.
WORKLOADS = {
    # All kinds of operations; the clone is larger than its base.
    "mixed": {
        "layers": [
            {"type": "differencing", "size": 48 * MIB + 5 * 512, "block_size": "2M",
             "capacity": 110 * MIB, "garbage": True},
            {"type": "dynamic", "size": "41M", "block_size": "8M",
             "blocks": dict(tagged(0, 3), **{"5": {"state": 6, "fill":
                                                   {"tag": "BASE"}}})},
        ],
        "windows": [[0, (48 * MIB >> 9) + 5]],
        "parts": [{"n": 450, "t": 3, "m": 1024}, {"n": 200, "t": 2, "m": 2048}],
    },
    # Many small commits: the ring wraps; two chunks, whose border is in the middle.
    "wrap": {
        "layers": [
            {"type": "differencing", "size": "9G", "block_size": "1M", "gap": 1,
             "capacity": 60 * MIB, "garbage": True, "bitmaps": [0, 1],
             "stale_bits": True, "layout": ["bat", "log", "metadata", "data"]},
            {"type": "differencing", "size": "9G", "block_size": "2M",
             "blocks": {"2046-2050": {"state": 7, "fill": {"tag": "MIDL"},
                                      "sectors": [[5, 700], [2000, 1000]]}}},
            {"type": "dynamic", "size": "9G", "block_size": "32M",
             "blocks": tagged(127, 128)},
        ],
        "windows": [[(4096 - 6) * 2048, 12 * 2048], [18 * MIB - 4096, 4096]],
        "parts": [{"n": 700, "t": 2, "m": 64, "x": "w=60,s=8,f=30,d=1,z=1"},
                  {"n": 150, "t": 3, "m": 64, "x": "w=60,s=8,f=30,d=1,z=1"}],
        "during": "suspend",
    },
    # 4096-byte sectors, large blocks.
    "4k": {
        "layers": [
            {"type": "differencing", "size": "200M", "block_size": "32M", "lss": 4096,
             "capacity": 330 * MIB, "order": "down"},
            {"type": "dynamic", "size": "200M", "block_size": "1M", "lss": 4096,
             "blocks": tagged(0, 40)},
        ],
        "windows": [[0, 16 << 11], [120 << 11, 16 << 11], [196 << 11, 4 << 11]],
        "parts": [{"n": 350, "t": 3, "m": 256, "x": "w=60,s=6,f=14,d=1,z=2"}],
        "during": "suspend",
    },
    # A dynamic image as top, nothing below: blocks are filled with zeros.
    "golden": {
        "layers": [
            {"type": "dynamic", "size": "40M", "block_size": "2M",
             "capacity": 130 * MIB, "garbage": True,
             "blocks": dict(tagged(2, 4), **{"7-9": 2, "12": 3, "13": 1})},
        ],
        "windows": [[0, 40 << 11]],
        "parts": [{"n": 250, "t": 3, "m": 512}, {"n": 120, "t": 2, "m": 512}],
    },
    # Small writes to new blocks all over the disk: pages of the BAT, and chunks.
    "alloc": {
        "layers": [
            {"type": "differencing", "size": "9G", "block_size": "1M",
             "capacity": 120 * MIB, "garbage": True, "order": "shuffle", "seed": 5},
            {"type": "dynamic", "size": "9G", "block_size": "32M",
             "blocks": tagged(0, 0)},
        ],
        "windows": [[i * 600 << 11, 4 << 11] for i in range(15)],
        "parts": [{"n": 350, "t": 3, "m": 64, "x": "w=60,s=4,f=10,d=4,z=3"},
                  {"n": 150, "t": 3, "m": 64, "x": "w=60,s=4,f=20,d=1,z=1"}],
    },
    # Blocks come and go, and the table is loaded anew meanwhile.
    "discard": {
        "layers": [
            {"type": "differencing", "size": "24M", "block_size": "1M",
             "capacity": 420 * MIB, "garbage": True},
            {"type": "dynamic", "size": "24M", "block_size": "2M",
             "blocks": tagged(0, 8)},
        ],
        "windows": [[0, 24 << 11]],
        "parts": [{"n": 450, "t": 3, "m": 512, "x": "w=45,s=4,f=12,d=22,z=17"}],
        "during": "reload",
    },
    # There is room for a third of the blocks.
    "space": {
        "layers": [
            {"type": "differencing", "size": "30M", "block_size": "2M",
             "capacity": 16 * MIB, "garbage": True},
            {"type": "dynamic", "size": "30M", "block_size": "2M",
             "blocks": tagged(0, 9)},
        ],
        "windows": [[0, 30 << 11]],
        "parts": [{"n": 350, "t": 3, "m": 256, "x": "w=60,s=6,f=14,d=6,z=3"},
                  {"n": 150, "t": 2, "m": 256, "x": "w=60,s=6,f=14,d=6,z=3"}],
        "during": "suspend",
    },
    # File systems on a raw base; what journals they have, their kernel replays.
    "xfs": {
        "layers": [
            {"type": "differencing", "size": "320M", "block_size": "2M",
             "capacity": 150 * MIB},
            {"raw": 8 * MIB},
        ],
        "windows": [],
        "files": 40,
        "fs": "xfs",
    },
    "ext4": {
        "layers": [
            {"type": "differencing", "size": "40M", "block_size": "2M",
             "capacity": 64 * MIB, "garbage": True},
            {"raw": 24 * MIB},
        ],
        "windows": [],
        "files": 40,
        "fs": "ext4",
        # It takes its superblock, of 1024 bytes, for written whole or not at all.
        "whole": 1024,
    },
}
SEED = 7


def workload(name):
    """By its name, or that of a variant: other+name."""
    return WORKLOADS[name.rpartition("+")[2]]


def paths_of(directory, spec):
    out = []
    for n, layer in enumerate(spec["layers"]):
        out.append(os.path.join(directory, "%s%d.%s" %
                                ("base" if n else "delta", n,
                                 "raw" if "raw" in layer else "vhdx")))
    return out


def prepare(args):
    for name in args.name or WORKLOADS:
        spec = workload(name)
        directory = os.path.join(args.dir, name)
        os.makedirs(directory)
        paths = paths_of(directory, spec)
        for layer, path, below in list(zip(spec["layers"], paths,
                                           paths[1:] + [None]))[::-1]:
            if "raw" in layer:
                with open(path, "wb") as f:
                    f.write(vhdx.tag_sectors("BASE", 0, layer["raw"] // 512))
                continue
            layer = dict(layer)
            if below and not below.endswith(".raw"):
                layer["parent"] = below
            vhdx.build(layer, path)
        words = [vhdx.layer_words(("raw:" if p.endswith(".raw") else "") + p,
                                  "@%d@" % n)[0] for n, p in enumerate(paths)]
        size = vhdx.Image(paths[0]).virtual_size
        with open(os.path.join(directory, "table"), "w") as f:
            f.write("0 %d vhdclone %d %s\n" %
                    (size // 512, len(words), " ".join(words)))
        block = vhdx.size(spec["layers"][0]["block_size"]) // 512
        unit = spec["layers"][0].get("lss", 512) // 512
        with open(os.path.join(directory, "conf"), "w") as f:
            f.write("layers='%s'\nduring='%s'\nfiles='%s'\nfs='%s'\nparts=()\n" %
                    (" ".join(os.path.basename(p) for p in paths),
                     spec.get("during", ""), spec.get("files", ""),
                     spec.get("fs", "")))
            for part in spec.get("parts", ()):
                words = ["-%s %s" % (k, v) for k, v in part.items()]
                words += ["-w %d:%d" % tuple(w) for w in spec["windows"]]
                f.write("parts+=('-s %d -b %d -u %d %s')\n" %
                        (SEED, block, unit, " ".join(words)))
        # The log, as a disk of the guest.
        with open(os.path.join(directory, "log"), "wb") as f:
            f.truncate(2 << 30)
        print(name)


# ---- the recorded log -------------------------------------------------------

class Entry:
    __slots__ = ("flags", "at", "length", "data", "mark")


def read_log(path):
    """All entries, in order.  Data are views into the mapped file."""
    with open(path, "rb") as f:
        raw = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    magic, version, count, unit = struct.unpack_from("<QQQI", raw, 0)
    if magic != MAGIC or version != 1:
        raise ValueError("%s: not a dm-log-writes log" % path)
    view = memoryview(raw)
    at = unit
    out = []
    for _ in range(count):
        e = Entry()
        sector, sectors, e.flags, size = struct.unpack_from("<QQQQ", raw, at)
        e.mark = None
        if e.flags & MARK:
            e.mark = bytes(view[at + 32:at + 32 + size]).decode()
        at += unit
        e.at, e.length = sector * unit, sectors * unit
        e.data = None
        if not e.flags & DISCARD:
            e.data = view[at:at + e.length]
            at += e.length
        out.append(e)
    if not out or out[-1].mark != "dm-log-writes-end":
        raise ValueError("%s: the log does not end as it should" % path)
    return out


class Medium:
    """The delta's content as a file, that can go back."""

    def __init__(self, source, path):
        subprocess.run(["cp", "--sparse=always", source, path], check=True)
        self.path = path
        self.fd = os.open(path, os.O_RDWR)
        self.undo = None

    def put(self, at, data):
        if self.undo is not None:
            self.undo.append((at, os.pread(self.fd, len(data), at)))
        os.pwrite(self.fd, data, at)

    def apply(self, entry, keep=None):
        """The entry; or only those of its sectors for which keep is true."""
        if not entry.length:
            return
        data = entry.data
        if data is None:
            data = (JUNK * (entry.length // len(JUNK) + 1))[:entry.length]
        if keep is None:
            self.put(entry.at, data)
            return
        n, i = entry.length // 512, 0
        while i < n:
            k = i
            while k < n and keep(k) == keep(i):
                k += 1
            if keep(i):
                self.put(entry.at + i * 512, data[i * 512:k * 512])
            i = k

    def begin(self):
        self.undo = []

    def back(self):
        undo, self.undo = self.undo, None
        for at, data in reversed(undo):
            os.pwrite(self.fd, data, at)


# ---- the judge --------------------------------------------------------------

class Library:
    def __init__(self, path):
        lib = self.lib = ctypes.CDLL(path)
        lib.model_new.restype = ctypes.c_void_p
        lib.model_new.argtypes = [ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint32]
        lib.model_window.argtypes = [ctypes.c_void_p, ctypes.c_uint64,
                                     ctypes.c_uint64, ctypes.c_char_p]
        lib.model_op.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_char,
                                 ctypes.c_uint64, ctypes.c_uint32]
        lib.model_durable.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
        lib.model_issued.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
        lib.model_check.restype = ctypes.c_uint32
        lib.model_check.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32,
                                    ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint32]
        lib.model_crc32c.restype = ctypes.c_uint32
        lib.model_crc32c.argtypes = [ctypes.c_char_p, ctypes.c_uint64]
        for data in (b"123456789", bytes(range(256)) * 17 + b"x"):
            if lib.model_crc32c(data, len(data)) != vhdx.crc32c(data):
                raise ValueError("model_crc32c() is wrong")
        vhdx.crc32c = lambda data: lib.model_crc32c(bytes(data), len(data))


class Disk:
    """What the disk's sectors may hold, as far as the marks tell."""

    def __init__(self, library, directory, spec, paths):
        self.lib = library.lib
        self.windows = spec["windows"]
        top = spec["layers"][0]
        self.model = self.lib.model_new(vhdx.size(top["size"]) // 512,
                                        vhdx.size(top["block_size"]) // 512, SEED)
        chain = vhdx.Chain(*paths)
        for first, count in self.windows:
            below = chain.read(first * 512, count * 512)
            if self.lib.model_window(self.model, first, count, below):
                raise MemoryError
        self.order = []
        self.zeroes = []
        with open(os.path.join(directory, "history")) as f:
            for line in f:
                gen, kind, sector, count, done = line.split()
                if self.lib.model_op(self.model, int(gen), kind.encode(), int(sector),
                                     int(count)):
                    raise MemoryError
                if int(done) >= 0:
                    self.order.append((int(done), int(gen)))
                if kind == "z":
                    self.zeroes.append((int(gen), int(sector), int(count)))
        self.order.sort()
        self.durable = 0
        self.issued = 0
        self.flushed = []
        self.later = []
        self.overtaken = 0

    def look_ahead(self, log):
        """What the marks of flushes that are still to come say at least, for each."""
        least = float("inf")
        for e in reversed(log):
            if e.mark and e.mark.startswith("f:"):
                self.later.append(least)
                least = min(least, int(e.mark[2:]))

    def mark(self, text):
        letter, _, number = text.partition(":")
        if letter == "s":
            self.lib.model_durable(self.model, int(number))
        elif letter == "i":
            self.lib.model_issued(self.model, int(number))
            self.issued = max(self.issued, int(number))
        elif letter in ("f", "c"):
            end = int(number) if letter == "f" else self.closed(text)
            if letter == "f":
                later = self.later.pop()
                self.flushed.append(end)
                self.overtaken += later < end
                end = max([n for n in self.flushed if n < later], default=0)
                self.flushed = [n for n in self.flushed if n >= later]
            while (self.durable < len(self.order) and
                   self.order[self.durable][0] < end):
                self.lib.model_durable(self.model, self.order[self.durable][1])
                self.durable += 1

    def supersedes(self, data, stamp):
        """Is this sector, not stamped or older, what a FUA write had replaced?"""
        magic, sector, gen = struct.unpack_from("<QQQ", data)
        if magic == stamp[0]:
            return sector == stamp[1] and gen < stamp[2]
        # Zeros then: are there any younger ones?
        return not any(stamp[2] & 0xffffffff < g <= self.issued and
                       first <= stamp[1] < first + n for g, first, n in self.zeroes)

    def closed(self, text):
        """A close makes all durable that the parts so far have done."""
        return int(text.split(":")[1])

    def judge(self, chain, _):
        why = ctypes.create_string_buffer(400)
        bad, first = 0, None
        for start, count in self.windows:
            for at, n, store, place in chain.map(start * 512, count * 512):
                data = store.read(place, n) if store else bytes(n)
                k = self.lib.model_check(self.model, at // 512, n // 512, data, why, 400)
                if k and not bad:
                    first = why.value.decode()
                bad += k
        return "%d bad sectors: %s" % (bad, first) if bad else None


class Files:
    """A file system, and files in it that were fsynced."""

    supersedes = None
    overtaken = 0

    def look_ahead(self, log):
        pass

    def __init__(self, *_):
        self.count = 0
        self.made = False

    def mark(self, text):
        letter, _, number = text.partition(":")
        if letter == "e":
            self.count = int(number)
        elif letter == "m":
            self.made = True

    @staticmethod
    def content(n):
        size = n * 1009 % 40000 + 1
        text = b"".join([b"%010d %010d %08d\n." % (n, SEED, i)
                         for i in range(0, size, 32)])
        return text[:size]

    def judge(self, chain, scratch):
        if not self.made:
            return None
        raw = scratch + ".raw"
        chain.merge(raw)
        p = subprocess.run(["e2fsck", "-fp", raw], stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, check=False)
        # 1: it had a journal to replay
        if p.returncode > 1:
            return "e2fsck: %d: %s" % (p.returncode, p.stdout.decode(errors="replace"))
        out = scratch + ".d"
        shutil.rmtree(out, ignore_errors=True)
        os.mkdir(out)
        p = subprocess.run(["debugfs", "-R", "rdump / " + out, raw],
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           check=False)
        for n in range(self.count):
            try:
                with open(os.path.join(out, "f%d" % n), "rb") as f:
                    if f.read() != self.content(n):
                        return "file f%d has not its content" % n
            except FileNotFoundError:
                return "file f%d is missing" % n
        return None


class Mounted(Files):
    """A file system of which only its own kernel can replay the journal: what is left
    at some points is kept, and mounted in a guest in the end."""

    def judge(self, chain, _):
        return None


ORACLES = {None: Disk, "ext4": Files, "xfs": Mounted}


def legible(chain, at):
    """Does libvhdi read what is there?  It looks at the bitmap whatever the BAT says."""
    for layer in chain.layers:
        if isinstance(layer, vhdx.Raw) or at >= layer.virtual_size:
            return False
        if not layer.has_parent:
            return True
        block = at // layer.block_size
        state = layer.state(block)
        if state not in (vhdx.NOT_PRESENT, vhdx.FULL, vhdx.PARTIAL):
            return False
        if not layer.sb_place(block // layer.geo.ratio):
            return False
        if state == vhdx.PARTIAL:
            # What is not here is in the next one.
            continue
        bits = layer.bits_set(block)
        if state == vhdx.FULL:
            return bits == layer.geo.block_sectors(block)
        if bits:
            return False
    return False


class Checker:
    def __init__(self, args):
        self.args = args
        self.directory = os.path.join(args.dir, args.name)
        self.spec = workload(args.name)
        self.paths = paths_of(self.directory, self.spec)
        self.library = Library(args.library)
        self.oracle = ORACLES[self.spec.get("fs")](self.library, self.directory, self.spec, self.paths)
        self.log = read_log(os.path.join(self.directory, "log"))
        self.oracle.look_ahead(self.log)
        self.failures = 0
        self.count = {}
        self.fua = {}
        self.mounts = os.path.join(self.directory, "mount")
        self.bases = None
        self.place = tempfile.mkdtemp(prefix=args.name + ".", dir=args.scratch)
        self.python = None
        for python in ("/usr/bin/python3", "python3"):
            if subprocess.run([python, "-c", "import pyvhdi"], check=False,
                              stderr=subprocess.DEVNULL).returncode == 0:
                self.python = python
                break

    # which points there are

    def all_points(self):
        """(entry number, kind): the state that the entries before it leave, and
        whatever kind makes of the entry or of the interval that begins there."""
        points = []
        special = []
        start = None
        for i, e in enumerate(self.log):
            if e.flags & MARK:
                if e.mark.startswith("c:"):
                    special.append((i + 1, "clean"))
                continue
            if e.flags & FUA and e.length:
                points += [(i + 1, "after"), (i, "torn"), (i, "torn")]
                if e.at < vhdx.TABLE[0]:
                    special += [(i + 1, "after")] + [(i, "torn")] * 3
            elif e.flags & FLUSH:
                points.append((i + 1, "after"))
                if start is not None:
                    points += [(start, "cut")] * 3
            elif start is None:
                start = i
            if e.flags & (FLUSH | FUA):
                start = None
        return points, special

    def choose_points(self):
        points, special = self.all_points()
        if self.args.every:
            special = [(i + 1, "prefix" if not e.flags & (FLUSH | FUA) else "after")
                       for i, e in enumerate(self.log) if not e.flags & MARK]
            self.args.points = max(self.args.points, 3 * len(special))
        rng = random.Random("%s %d" % (self.args.name, self.args.seed))
        # Headers are few and matter: all of these, but not more than a third.
        if len(special) > self.args.points // 3:
            special = rng.sample(special, self.args.points // 3)
        n = self.args.points - len(special)
        # More than there are: then some again, with other sectors lost.
        again = points * (n // len(points))
        chosen = special + again + rng.sample(points, n % len(points))
        chosen.sort(key=lambda p: p[0])
        self.possible = len(points) + len(special)
        return chosen

    # the medium

    def remember(self, e):
        """What FUA writes put where since the last flush."""
        if e.flags & FLUSH:
            self.fua.clear()
        elif e.flags & FUA and self.oracle.supersedes:
            for k in range(0, e.length, 512):
                stamp = struct.unpack_from("<QQQ", e.data, k)
                if stamp[0] == STAMP:
                    self.fua[e.at + k] = stamp

    def keep(self, e):
        """Which sectors of a plain write are not older than a FUA write's."""
        if not self.fua or e.flags & (FLUSH | FUA | DISCARD):
            return None
        lost = set(k for k in range(e.length // 512) if e.at + 512 * k in self.fua and
                   self.oracle.supersedes(e.data[512 * k:512 * k + 512],
                                          self.fua[e.at + 512 * k]))
        return (lambda k: k not in lost) if lost else None

    # one point

    def tear(self, e, keep):
        """The same, but for what the workload takes for written whole."""
        whole = self.spec.get("whole", 512)
        return lambda k: keep(max(0, (e.at // 512 + k) // (whole // 512) * (whole // 512) -
                                  e.at // 512))

    def lose(self, medium, start, kind, rng):
        """Apply what a power cut may leave of the entries from start on."""
        if kind == "torn":
            e = self.log[start]
            n = e.length // 512
            mode = rng.randrange(4)
            if mode == 0:
                cut = rng.randrange(n)
                medium.apply(e, self.tear(e, lambda k: k < cut))
            elif mode == 1:
                lost = rng.randrange(n)
                medium.apply(e, self.tear(e, lambda k: k != lost))
            elif mode == 2:
                cut = rng.randrange(n)
                medium.apply(e, self.tear(e, lambda k: k > cut))
            else:
                have = [rng.random() < .5 for _ in range(n)]
                medium.apply(e, self.tear(e, lambda k: have[k]))
            return "entry %d torn" % start
        batch = []
        for i in range(start, len(self.log)):
            e = self.log[i]
            if e.flags & FLUSH:
                break
            if not e.flags & MARK:
                batch.append(e)
        mode = rng.randrange(5)
        if mode == 0:
            chosen = batch[:rng.randrange(len(batch) + 1)]
        elif mode == 1:
            lost = rng.randrange(len(batch))
            chosen = batch[:lost] + batch[lost + 1:]
        elif mode == 2:
            chosen = rng.sample(batch, min(len(batch), rng.randrange(1, 4)))
        else:
            chosen = [e for e in batch if rng.random() < .5]
            rng.shuffle(chosen)
        for e in chosen:
            keep = self.keep(e)
            if e.flags & DISCARD or rng.random() < .6:
                medium.apply(e, keep)
                continue
            have = [rng.random() < .6 and (not keep or keep(k))
                    for k in range(e.length // 512)]
            medium.apply(e, self.tear(e, lambda k, have=have: have[k]))
        return "%d of %d writes from entry %d on" % (len(chosen), len(batch), start)

    def chain(self, path):
        """This delta on the bases, which do not change, and are parsed once."""
        if self.bases is None:
            chain = vhdx.Chain(path, *self.paths[1:])
            self.bases = chain.layers[1:]
            return chain
        chain = vhdx.Chain(path)
        chain.layers += self.bases
        return chain

    def judge_image(self, path, clean=False):
        """What is wrong with this image, or None."""
        try:
            image = vhdx.Image(path)
        except vhdx.VhdxError as err:
            return str(err)
        errors = ["at %#x: %s" % (at, text) for _, at, text in image.errors()]
        if clean:
            errors += image.clean_problems()
        image.close()
        if errors:
            return "%d errors: %s" % (len(errors), errors[0])
        chain = self.chain(path)
        why = self.oracle.judge(chain, os.path.join(self.args.scratch, "fs"))
        chain.layers[0].store.close()
        return why

    def judge_recovered(self, medium):
        """The same, with the log replayed for good by two programs."""
        # Beside copies of its bases, where the tool looks for them.
        copy = os.path.join(self.place, "crashed.vhdx")
        subprocess.run(["cp", "--sparse=always", medium.path, copy], check=True)
        image = vhdx.Image(copy, strict=False)
        # Without a log to replay nobody writes to it: a torn header stays.
        dirty = image.dirty
        image.close()
        try:
            vhdx.replay(copy)
        except vhdx.VhdxError as err:
            return "vhdx.py replay: %s" % err
        why = self.judge_image(copy, clean=dirty)
        if why:
            return "after vhdx.py replay: " + why
        if not self.args.tool:
            return None
        subprocess.run(["cp", "--sparse=always", medium.path, copy], check=True)
        # vhdx.py's locator names no raw base.
        raw = self.paths[-1].endswith(".raw")
        for verb in ("recover", "check"):
            words = ["--no-chain"] if verb == "check" and raw else []
            p = subprocess.run([self.args.tool, verb, *words, copy], check=False,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            # Leaks (3) are no harm.
            if p.returncode and not (verb == "check" and p.returncode == 3):
                return "vhdclone %s: status %d: %s" % (
                    verb, p.returncode, p.stdout.decode(errors="replace")[-300:])
        why = self.judge_image(copy, clean=dirty)
        if why:
            return "after vhdclone recover: " + why
        if isinstance(self.oracle, Mounted):
            self.keep_mount(copy)
        return self.judge_by_libvhdi(copy)

    def keep_mount(self, image):
        if not self.oracle.made or self.count.get("mounted", 0) >= self.args.mounts:
            return
        os.makedirs(self.mounts, exist_ok=True)
        n = self.count["mounted"] = self.count.get("mounted", 0) + 1
        name = os.path.join(self.mounts, "%d" % n)
        subprocess.run(["cp", "--sparse=always", image, name + ".vhdx"], check=True)
        with open(name + ".count", "w") as f:
            f.write("%d\n" % self.oracle.count)

    def mount_all(self):
        """The module opens what was kept; a kernel mounts it, and finds its files."""
        top = os.path.dirname(os.path.dirname(here))
        p = subprocess.run([os.path.join(top, "tests/uml/run"), "--share", self.args.dir,
                            "--timeout", "600", "--", "env", "PATH=/share/bin:" +
                            os.environ["PATH"], "bash", os.path.join(here, "guest"),
                            "mount", self.args.name], check=False,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        shutil.rmtree(self.mounts)
        if p.returncode:
            self.failures += 1
            print("# %s: mounted in a guest: status %d\n# %s" %
                  (self.args.name, p.returncode, p.stdout.decode(errors="replace")
                   [-3000:].replace("\n", "\n# ")))

    def judge_by_libvhdi(self, path):
        """A reader that shares nothing with us sees the same, where it can."""
        if not self.python or self.paths[-1].endswith(".raw"):
            return None
        chain = self.chain(path)
        step = min(layer.block_size for layer in chain.layers)
        ranges = []
        for first, count in self.spec["windows"]:
            at, end = first * 512, min((first + count) * 512, chain.size)
            while at < end:
                n = min(step - at % step, end - at)
                if legible(chain, at) and legible(chain, at + n - 1):
                    ranges.append((at, n))
                at += n
        out = os.path.join(self.args.scratch, self.args.name + ".vhdi")
        p = subprocess.run([self.python, os.path.join(here, "vhdi-read"), out, path,
                            *self.paths[1:]], check=False, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT,
                           input="".join("%d %d\n" % r for r in ranges).encode())
        why = None
        if p.returncode:
            why = "libvhdi: " + p.stdout.decode(errors="replace")[-300:]
        else:
            with open(out, "rb") as f:
                for at, n in ranges:
                    if f.read(n) != chain.read(at, n) and not why:
                        why = "libvhdi reads something else in %d+%d" % (at, n)
        os.unlink(out)
        self.count["libvhdi"] = self.count.get("libvhdi", 0) + 1
        self.count["blocks"] = self.count.get("blocks", 0) + len(ranges)
        chain.layers[0].store.close()
        return why

    def point(self, medium, number, start, kind):
        rng = random.Random("%s %d %d" % (self.args.name, self.args.seed, number))
        if self.args.only is not None and number != self.args.only:
            return
        text = "entries before %d" % start
        medium.begin()
        if kind in ("torn", "cut"):
            text += ", " + self.lose(medium, start, kind, rng)
        why = self.judge_image(medium.path, kind == "clean")
        if not why and number % self.args.share == 0:
            self.count["recovered"] = self.count.get("recovered", 0) + 1
            why = self.judge_recovered(medium)
        self.count[kind] = self.count.get(kind, 0) + 1
        if why:
            self.failures += 1
            if self.failures <= 10:
                print("# %s: point %d (%s: %s): %s" %
                      (self.args.name, number, kind, text, why))
            if self.args.only is not None:
                keep = os.path.join(self.directory, "point.vhdx")
                subprocess.run(["cp", "--sparse=always", medium.path, keep], check=True)
                print("# kept as " + keep)
        medium.back()

    def run(self):
        began = time.time()
        scratch = os.path.join(self.args.scratch, self.args.name + ".vhdx")
        medium = Medium(self.paths[0], scratch)
        for path in self.paths[1:]:
            subprocess.run(["cp", "--sparse=always", path, self.place], check=True)
        at = 0
        points = self.choose_points()
        for number, (start, kind) in enumerate(points):
            while at < start:
                e = self.log[at]
                if e.mark:
                    self.oracle.mark(e.mark)
                else:
                    medium.apply(e, self.keep(e))
                    self.remember(e)
                at += 1
            # Marks say what was true before anything that follows.
            while at < len(self.log) and self.log[at].mark and kind == "after":
                self.oracle.mark(self.log[at].mark)
                at += 1
            self.point(medium, number, start, kind)
        if os.path.exists(self.mounts):
            self.mount_all()
        if self.args.only is None:
            kinds = ", ".join("%d %s" % (self.count.get(k, 0), k)
                              for k in ("after", "prefix", "torn", "cut", "clean",
                                      "recovered"))
            if self.count.get("libvhdi"):
                kinds += ", %d read by libvhdi: %d blocks" % (self.count["libvhdi"],
                                                              self.count["blocks"])
            if self.oracle.overtaken:
                kinds += ", %d flushes overtook another" % self.oracle.overtaken
            if self.count.get("mounted"):
                kinds += ", %d mounted" % self.count["mounted"]
            print("# %s: %d entries, %d points of %d possible (%s), seed %d, %.0f s: "
                  "%d bad" % (self.args.name, len(self.log), len(points), self.possible,
                              kinds, self.args.seed, time.time() - began,
                              self.failures))
        if self.failures:
            # Which points there are depends on all of these.
            print("# again: %s check %s %s --seed %d --points %d%s --share %d%s "
                  "--library %s --only NUMBER" %
                  (os.path.abspath(__file__), self.args.dir, self.args.name,
                   self.args.seed, self.args.points, " --every" * self.args.every,
                   self.args.share,
                   " --tool " + self.args.tool if self.args.tool else "",
                   self.args.library))
        os.unlink(scratch)
        shutil.rmtree(self.place)
        for path in glob.glob(os.path.join(self.args.scratch, "fs.raw")):
            os.unlink(path)
        return 1 if self.failures else 0


def main():
    parser = argparse.ArgumentParser()
    verbs = parser.add_subparsers(dest="verb", required=True)
    p = verbs.add_parser("prepare")
    p.add_argument("dir")
    p.add_argument("name", nargs="*")
    p = verbs.add_parser("check")
    p.add_argument("dir")
    p.add_argument("name")
    p.add_argument("--points", type=int, default=80)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--only", type=int, help="this point, and keep its image")
    p.add_argument("--share", type=int, default=8,
                   help="one in SHARE points is recovered for good as well")
    p.add_argument("--every", action="store_true",
                   help="all flushes and entries, and twice as many others")
    p.add_argument("--mounts", type=int, default=6,
                   help="so many file systems are mounted in a guest")
    p.add_argument("--tool", help="vhdclone, for that")
    p.add_argument("--library", required=True, help="model.so")
    p.add_argument("--scratch", default="/dev/shm")
    args = parser.parse_args()
    if args.verb == "prepare":
        return prepare(args)
    return Checker(args).run()


if __name__ == "__main__":
    sys.exit(main())
