#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What the fuzzers begin with: tests/fuzz/seeds.py DIRECTORY

Images made by the tests' own model of VHDX, and those that Windows made if they are
there (VHDCLONE_IMAGES), as lists of pieces (fuzz.h); structures cut out of them; lines.
"""
import json
import lzma
import os
import struct
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
VHDX = os.path.join(TOP, "tests/lib/vhdx")
VHD = os.path.join(TOP, "tests/lib/vhd.py")
MAX_MIB = 10
LONGEST = 24576

LINKAGE = {"parent_linkage": "{11111111-2222-3333-4444-555555555555}",
           "relative_path": ".\\b.vhdx"}
SPECS = [
    {"type": "dynamic", "size": "4M", "block_size": "1M"},
    {"type": "dynamic", "size": "4M", "block_size": "1M", "blocks": {"0-3": 6}},
    {"type": "fixed", "size": "3M", "block_size": "1M"},
    {"type": "dynamic", "size": "4M", "block_size": "1M", "lss": 4096},
    {"size": "4M", "block_size": "1M", "parent": LINKAGE,
     "blocks": {"0-1": {"state": 7, "sectors": [[3, 9]]}, "2": 6, "3": 2}},
    {"size": "4M", "block_size": "1M", "parent": LINKAGE,
     "blocks": {"0": {"state": 7, "sectors": [[3, 9]]}}, "dirty": {"per_entry": 1}},
    {"type": "dynamic", "size": "4M", "block_size": "1M", "default": {"state": 6},
     "dirty": {"per_entry": 3}},
    {"type": "dynamic", "size": "4M", "block_size": "1M", "default": {"state": 6},
     "dirty": {"start": 1044480, "per_entry": 1, "stale": True}, "garbage": True},
    {"type": "dynamic", "size": "4M", "block_size": "1M", "default": {"state": 6},
     "dirty": {"torn": True}},
    {"type": "dynamic", "size": "6M", "block_size": "2M", "blocks": {"0": 6, "2": 6}},
]
VHD_SPECS = [
    {"type": "fixed", "size": 1 << 20},
    {"type": "dynamic", "size": 9 << 20},
    {"type": "differencing", "size": 9 << 20, "relative": ".\\b.vhd",
     "parent_id": "22" * 16, "block_size": 512 << 10,
     "blocks": {"0": {"tag": "TEST", "sectors": [[1, 2], [100, 1]]},
                "17": {"tag": "TEST", "sectors": [[1023, 1]]}}},
]


def pieces(data):
    """Runs of bytes that are not zero, apart by at least 32 zeros."""
    at = 0
    while at < len(data):
        page = data[at:at + 4096]
        if page.count(0) == len(page):
            at += 4096
            continue
        start = at + next(i for i, b in enumerate(page) if b)
        start -= start % 8
        end = data.find(bytes(32), start)
        end = len(data) if end < 0 else end
        end = min(start + 8192, end + -end % 8)
        yield start, data[start:end]
        at = end


def encode(data, limit):
    out = bytes([0x17, min(MAX_MIB, (limit + (1 << 20) - 1) >> 20)])
    for start, piece in pieces(data):
        out += struct.pack("<IH", start, len(piece)) + piece
    return out


def save(directory, kind, name, data):
    path = os.path.join(directory, kind)
    os.makedirs(path, exist_ok=True)
    with open(os.path.join(path, name), "wb") as f:
        f.write(data)


def image(directory, name, data):
    """Metadata only: what comes behind the last region is holes or payload."""
    table = data[0x30000:0x30000 + 4096]
    count = min(8, struct.unpack_from("<I", table, 8)[0])
    regions = [struct.unpack_from("<QI", table, 16 + 32 * i + 16) for i in range(count)]
    log_length, log_offset = struct.unpack_from("<IQ", data, 0x10000 + 68)
    if not regions or max(r[0] for r in regions) > len(data):
        return
    end = max([r[0] + r[1] for r in regions] + [log_offset + log_length])
    encoded = encode(data[:end], len(data))
    if len(encoded) <= LONGEST:
        save(directory, "image", name, encoded)
    # Its parts, for the functions one by one.
    bat, meta = regions[0][0], regions[-1][0]
    if data[meta:meta + 8] != b"metadata":
        bat, meta = meta, bat
    parts = [
        data[0x10000:0x10000 + 88], data[0x30000:0x30000 + 16 + 32 * count],
        data[meta:meta + 32 + 32 * 6],
        struct.pack("<QIBBH", 4 << 20, 1 << 20, 1, 1, 16) + data[bat:bat + 64],
        data[log_offset:log_offset + 3 * 4096].rstrip(b"\0"),
        data[meta + 0x10028:meta + 0x10028 + 512].rstrip(b"\0") + b"\0",
    ]
    for i, part in enumerate(parts):
        save(directory, "format", f"{name}-{i}", bytes([i, 7]) + part)
    # Headers and descriptors alone: the fuzzer adds the sectors.
    save(directory, "format", f"{name}-stamped", bytes([4, 7 | 2 << 3]) + parts[4][:1024])


def vhd_image(directory, name, data):
    """The footer ends the last MiB."""
    data, footer = data[:-512], data[-512:]
    data += bytes(-(len(data) + 512) % (1 << 20)) + footer
    encoded = encode(data, len(data))
    if len(encoded) <= LONGEST:
        save(directory, "image", name, encoded)


def images(directory):
    with tempfile.TemporaryDirectory() as tmp:
        for i, spec in enumerate(SPECS):
            path = os.path.join(tmp, "a.vhdx")
            subprocess.run([VHDX, "build", json.dumps(spec), path], check=True,
                           stdout=subprocess.DEVNULL)
            with open(path, "rb") as f:
                image(directory, f"built-{i}", f.read())
            os.unlink(path)
        for i, spec in enumerate(VHD_SPECS):
            path = os.path.join(tmp, "a.vhd")
            subprocess.run([VHD, "build", json.dumps(spec), path], check=True,
                           stdout=subprocess.DEVNULL)
            with open(path, "rb") as f:
                vhd_image(directory, f"vhd-{i}", f.read())
    theirs = os.environ.get("VHDCLONE_IMAGES", os.path.join(TOP, "../shared/images"))
    for name in sorted(os.listdir(theirs)) if os.path.isdir(theirs) else []:
        if not name.endswith((".vhdx.xz", ".vhd.xz")):
            continue
        with lzma.open(os.path.join(theirs, name)) as f:
            data = f.read(MAX_MIB << 20)
        if data[:8] == b"vhdxfile":
            image(directory, name[:-8], data)
        elif name.endswith(".vhd.xz") and len(data) < MAX_MIB << 20:
            vhd_image(directory, name[:-7] + "-vhd", data)


LINES = [
    "2 vhdx 7:0 41943040 4096 512 6144 2048 2048 vhdx 7:1 41943040 4096 512 6144 2048 2048",
    "2 vhdx 253:1 16384 4096 512 6144 2048 2048 raw /dev/loop1 0 16384 1 read_only",
    "1 vhdx 7:0 16384 65536 4096 6144 2048 4096 3 low_water_mark 10 no_discard_passdown",
    "4096 3/10 1 2048 0 12/256 7 0 rw", "4096 -/- - - - -/- - - rw",
    "1.5G", "64KiB", "{cc0ca12a-9e33-46a4-90da-45680eec92bb}",
]

ARGS = [
    "create\nbase.raw\nout/a.vhdx", "create\n--type\ndynamic\n--size\n4M\nout/b.vhdx",
    "create\n--force\n--json\n--block-size\n1M\nbase.vhdx\nout/c.vhdx",
    "info\n--json\nclone.vhdx", "check\n--json\nclone.vhdx", "check\nbroken.vhdx",
    "recover\ndirty.vhdx", "recover\n--json\nout/a.vhdx", "table\nclone.vhdx",
    "open\n--base\nbase.vhdx\nclone.vhdx\nname", "open\n-r\nclone.vhdx", "close\nname",
    "close\n--deferred\n/dev/mapper/name", "list\n--json", "status\nname", "help\ncheck",
    "--version", "info\n--base-dir\nout\nclone.vhdx",
]


def main():
    directory = sys.argv[1]
    images(directory)
    for i, line in enumerate(LINES):
        save(directory, "lines", str(i), line.encode())
    for i, line in enumerate(ARGS):
        save(directory, "args", str(i), line.encode())


if __name__ == "__main__":
    main()
