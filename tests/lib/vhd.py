#!/usr/bin/python3 -SE
# SPDX-License-Identifier: GPL-2.0-or-later
"""VHD, version 1, for tests: builder, reader, mutator.  Written without a look at the C
code of this project.

    vhd.py build SPEC OUT
    vhd.py merge OUT TOP [PARENT...]        content as a raw file
    vhd.py set FILE FIELD=VALUE...          numbers; checksums are put right again

SPEC is JSON:

    type        "fixed", "dynamic", "differencing"
    size        bytes of the disk
    block_size  default 2 MiB
    id, parent_id                       32 hex digits
    relative, absolute                  paths of the parent
    name                                the same, in the header only
    blocks      {"N": {"tag": TEXT, "sectors": [[first, count], ...]}}: without sectors,
                all are there
    cut         true: blocks are in order, and the last one ends with the disk

FIELD is footer.NAME, copy.NAME, header.NAME, or bat[N]; no checksum is put right if
NAME is "checksum".
"""

import json
import os
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
from vhdx import tag_sectors                    # pylint: disable=wrong-import-position

NONE = 0xffffffff
FOOTER = {"features": (8, "I"), "version": (12, "I"), "header_offset": (16, "Q"),
          "current_size": (48, "Q"), "type": (60, "I"), "checksum": (64, "I")}
HEADER = {"bat_offset": (16, "Q"), "version": (24, "I"), "max_entries": (28, "I"),
          "block_size": (32, "I"), "checksum": (36, "I"), "parent_id": (40, "I"),
          "locator_length": (576 + 8, "I"), "locator_offset": (576 + 16, "Q")}


def seal(data, at):
    data = bytearray(data)
    data[at:at + 4] = bytes(4)
    data[at:at + 4] = struct.pack(">I", ~sum(data) & NONE)
    return bytes(data)


def footer(spec, kind):
    dynamic = kind != 2
    return seal(struct.pack(">8sIIQI4sI4sQQHBBII16sB427x", b"conectix", 2, 0x10000,
                            512 if dynamic else (1 << 64) - 1, 0, b"test", 0, b"Wi2k",
                            spec["size"], spec["size"], 1, 1, 1, kind, 0,
                            bytes.fromhex(spec.get("id", "11" * 16)), 0), 64)


def build(spec, path):
    kind = {"fixed": 2, "dynamic": 3, "differencing": 4}[spec["type"]]
    size, block_size = spec["size"], spec.get("block_size", 2 << 20)
    foot = footer(spec, kind)
    blocks = {int(n): b for n, b in spec.get("blocks", {}).items()}
    with open(path, "wb") as out:
        if kind == 2:
            for n, b in blocks.items():
                out.seek(n * block_size)
                count = min(block_size, size - n * block_size) // 512
                out.write(tag_sectors(b["tag"], n * block_size // 512, count))
            out.truncate(size)
            out.seek(size)
            out.write(foot)
            return
        nr = (size + block_size - 1) // block_size
        bitmap = (block_size // 512 // 8 + 511) // 512 * 512
        bat = [NONE] * ((nr + 127) // 128 * 128)
        where = 512 + 1024 + len(bat) * 4
        locators = b""
        for code, key in ((b"W2ru", "relative"), (b"W2ku", "absolute")):
            if key in spec:
                data = spec[key].encode("utf-16-le")
                out.seek(where)
                out.write(data)
                locators += struct.pack(">4sIIIQ", code, 512, len(data), 0, where)
                where += 512
        for n in sorted(blocks, reverse=not spec.get("cut")):
            b = blocks[n]
            bat[n] = where // 512
            first = n * block_size // 512
            bits = bytearray(bitmap)
            runs = b.get("sectors", [[0, block_size // 512]])
            for start, count in runs:
                out.seek(where + bitmap + start * 512)
                out.write(tag_sectors(b["tag"], first + start, count))
                for i in range(start, start + count):
                    bits[i // 8] |= 0x80 >> i % 8
            out.seek(where)
            out.write(bits)
            where += bitmap + block_size
        if spec.get("cut"):
            where -= nr * block_size - size
        out.truncate(where)
        out.seek(where)
        out.write(foot)
        out.seek(0)
        out.write(foot)
        out.write(seal(struct.pack(">8sQQIIII16sII512s192s256x", b"cxsparse",
                                   (1 << 64) - 1, 1536, 0x10000, nr, block_size, 0,
                                   bytes.fromhex(spec.get("parent_id", "00" * 16)), 0, 0,
                                   spec.get("name", "").encode("utf-16-be"), locators),
                       36))
        out.write(struct.pack(">%dI" % len(bat), *bat))


class Disk:
    def __init__(self, path):
        with open(path, "rb") as f:
            self.data = f.read()
        foot = self.data[-512:]
        self.size, = struct.unpack(">Q", foot[48:56])
        self.kind, = struct.unpack(">I", foot[60:64])
        if self.kind == 2:
            return
        head = self.data[512:1536]
        bat, _, entries, self.block_size = struct.unpack(">QIII", head[16:36])
        self.bat = struct.unpack(">%dI" % entries, self.data[bat:bat + entries * 4])
        self.bitmap = (self.block_size // 512 // 8 + 511) // 512 * 512

    def sector(self, n):
        """512 bytes, or None if they are the parent's."""
        if self.kind == 2:
            return self.data[n * 512:n * 512 + 512]
        block, i = divmod(n, self.block_size // 512)
        at = self.bat[block] * 512
        if self.bat[block] == NONE:
            return None
        if self.kind == 4 and not self.data[at + i // 8] & 0x80 >> i % 8:
            return None
        at += self.bitmap + i * 512
        return self.data[at:at + 512]


def merge(path, *names):
    disks = [Disk(name) for name in names]
    with open(path, "wb") as out:
        for n in range(disks[0].size // 512):
            for disk in disks:
                data = disk.sector(n) if n * 512 < disk.size else None
                if data:
                    out.seek(n * 512)
                    out.write(data)
                    break
        out.truncate(disks[0].size)


def set_fields(path, *assignments):
    with open(path, "r+b") as f:
        end = f.seek(0, 2) - 512
        for assignment in assignments:
            field, value = assignment.split("=")
            where, _, name = field.partition(".")
            if where.startswith("bat["):
                f.seek(1536 + 4 * int(where[4:-1]))
                f.write(struct.pack(">I", int(value, 0)))
                continue
            at, size, fields, check = {"footer": (end, 512, FOOTER, 64),
                                       "copy": (0, 512, FOOTER, 64),
                                       "header": (512, 1024, HEADER, 36)}[where]
            f.seek(at)
            data = bytearray(f.read(size))
            place, code = fields[name]
            struct.pack_into(">" + code, data, place, int(value, 0))
            f.seek(at)
            f.write(data if name == "checksum" else seal(data, check))


def main(argv):
    if argv[1] == "build":
        build(json.loads(argv[2]), argv[3])
    else:
        {"merge": merge, "set": set_fields}[argv[1]](*argv[2:])


if __name__ == "__main__":
    main(sys.argv)
