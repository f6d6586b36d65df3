#!/usr/bin/python3 -SE
# SPDX-License-Identifier: GPL-2.0-or-later
"""VHDX for tests: builder, strict checker, log replay, chain reader, mutator.

Written from [MS-VHDX] v20240423 and from images that Windows made, on purpose
without a look at the C code of this project: if both misunderstood the format in
the same way, no test would show it.  Only the standard library is used, and of that
little, because an import costs time in an emulated guest.

As a library:

    build(spec, path)           write an image (see SPEC below)
    Image(path)                 parse; .problems tells what is wrong
    Chain(path, ...)            top image first; .read(), .map(), .merge()
    set_field(path, name, val)  break one field, checksums put right again

As a command, "vhdx" beside this file: see usage() at the end.

SPEC is a dict (a JSON file, or JSON text):

    type        "fixed", "dynamic" or "differencing"
    size        virtual size; sizes are bytes or text with K, M, G, T
    block_size  default 2M (fixed, differencing), 32M (dynamic)
    lss, pss    sector sizes, default 512 and 4096
    log_size    default 1M
    layout      order of "log", "metadata", "bat", "data"; default that one
    at          {"log": MiB, "bat": MiB, ...}: explicit places
    gap         MiB left free in front of each region and each block
    order       of the blocks in the file: "up", "down", or "shuffle" (by seed)
    seed        for shuffle and for GUIDs not given (default: random GUIDs)
    free        space left free at the end of the file; its size is not rounded
    capacity    or: size of the whole file
    garbage     true: fill free space, unset sectors of partial blocks and the rest
                of the log with junk (a free MiB is never zero by promise)
    stale_bits  true: set all bitmap bits of blocks that are not partial
    tail_bits   true: set bits beyond the virtual end, as Windows does
    bitmaps     [chunk, ...]: chunks that get a bitmap block without need
    blocks      {"N" or "N-M": BLOCK}; blocks not named have "default" (fixed: state 6,
                else 0)
    seq, file_write_guid, data_write_guid, disk_id
    regions     [{"guid": ..., "mib": ..., "length": ..., "required": 0}]: more regions
    parent      path of the parent image, or {"key": "value"} for the locator
    locator     GUID of the locator's type
    dirty       {}: BAT and bitmap pages are only in the log.  Keys:
                  per_entry  pages per entry, default 3
                  start      ring offset of the first entry, default 0
                  tail       entry number that the head's tail names, default 0
                  stale      true: an old entry with another GUID behind the head
                  torn       true: the entry behind the head is half written
                  inplace    "zero" or "old" (default: what was there before, zeros)
    set         {"field": value}: passed to set_field() at the end

    BLOCK       {"state": 0-7, "at": MiB, "fill": FILL, "sectors": [[first, n], ...]}
                or just the state.  sectors: logical ones, from the block's start,
                whose bits are set (state 7).
    FILL        {"tag": "text"}: every 512 bytes hold tag and virtual sector number;
                with "every": N only each Nth sector, others zero
                {"file": path}: what the raw file has at the same virtual offset
                {"byte": n}; null: nothing is written
"""

import os
import struct
import sys

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
PAGE = 4096
HEADER = (64 * KIB, 128 * KIB)
TABLE = (192 * KIB, 256 * KIB)
SB_BITS = 1 << 23

NOT_PRESENT, UNDEFINED, ZERO, UNMAPPED, FULL, PARTIAL = 0, 1, 2, 3, 6, 7

ZERO_GUID = bytes(16)


class VhdxError(Exception):
    """The image cannot be used at all."""


# ---- small things ----------------------------------------------------------

def size(value):
    """Bytes from a number or from text such as 2M."""
    if isinstance(value, str):
        for unit, factor in (("K", KIB), ("M", MIB), ("G", GIB), ("T", TIB)):
            if value.upper().endswith(unit):
                return int(float(value[:-1]) * factor)
        return int(value, 0)
    return int(value)


def guid(text):
    """On-disk bytes of a GUID in text form."""
    if isinstance(text, bytes):
        return text
    raw = bytes.fromhex(text.strip("{}").replace("-", ""))
    if len(raw) != 16:
        raise VhdxError("not a GUID: " + text)
    return raw[3::-1] + raw[5:3:-1] + raw[7:5:-1] + raw[8:]


def guid_text(raw):
    h = (raw[3::-1] + raw[5:3:-1] + raw[7:5:-1] + raw[8:]).hex()
    return "-".join((h[:8], h[8:12], h[12:16], h[16:20], h[20:]))


def new_guid():
    raw = bytearray(os.urandom(16))
    raw[7] = raw[7] & 0x0f | 0x40
    raw[8] = raw[8] & 0x3f | 0x80
    return bytes(raw)


def round_up(value, unit):
    return (value + unit - 1) // unit * unit


G_BAT = guid("2DC27766-F623-4200-9D64-115E9BFD4A08")
G_METADATA = guid("8B7CA206-4790-4B9A-B8FE-575F050F886E")
G_LOCATOR_VHDX = guid("B04AEFB7-D19E-4A81-B789-25B8E9445913")
ITEMS = {
    "file_parameters": (guid("CAA16737-FA36-4D43-B3B6-33F0AA44E76B"), 8, 4),
    "virtual_size": (guid("2FA54224-CD1B-4876-B211-5DBED83BF4B8"), 8, 6),
    "disk_id": (guid("BECA12AB-B2E6-4523-93EF-C309E000C746"), 16, 6),
    "lss": (guid("8141BF1D-A96F-4709-BA47-F233A8FAAB5F"), 4, 6),
    "pss": (guid("CDA348C7-445D-4471-9CC9-E9885251C556"), 4, 6),
    "locator": (guid("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C"), None, 4),
}


# CRC-32C.  Metadata is mostly zeros, and a CRC over a run of zeros is a linear map of
# the register: 256 bytes of zeros cost four look-ups.
_CRC = []
_CRC_SKIP = []
_SKIP = 256
_ZEROS = bytes(_SKIP)


def _crc_init():
    for i in range(256):
        c = i
        for _ in range(8):
            c = c >> 1 ^ (0x82F63B78 if c & 1 else 0)
        _CRC.append(c)
    basis = []
    for bit in range(32):
        c = 1 << bit
        for _ in range(_SKIP):
            c = _CRC[c & 255] ^ c >> 8
        basis.append(c)
    for byte in range(4):
        table = [0] * 256
        for value in range(1, 256):
            low = value & -value
            table[value] = (table[value ^ low] ^
                            basis[8 * byte + low.bit_length() - 1])
        _CRC_SKIP.append(table)


def crc32c(data):
    if not _CRC:
        _crc_init()
    table = _CRC
    s0, s1, s2, s3 = _CRC_SKIP
    c = 0xFFFFFFFF
    for at in range(0, len(data), _SKIP):
        piece = data[at:at + _SKIP]
        if piece == _ZEROS:
            c = s0[c & 255] ^ s1[c >> 8 & 255] ^ s2[c >> 16 & 255] ^ s3[c >> 24]
        else:
            for byte in piece:
                c = table[(c ^ byte) & 255] ^ c >> 8
    return c ^ 0xFFFFFFFF


def checksum(data):
    """CRC of a structure, its checksum field (bytes 4 to 7) taken as zero."""
    return crc32c(bytes(data[:4]) + bytes(4) + bytes(data[8:]))


def seal(data):
    data = bytearray(data)
    data[4:8] = struct.pack("<I", checksum(data))
    return bytes(data)


class Geometry:
    """What follows from virtual size, block size and logical sector size."""

    def __init__(self, virtual_size, block_size, lss, has_parent):
        self.virtual_size = virtual_size
        self.block_size = block_size
        self.lss = lss
        self.ratio = SB_BITS * lss // block_size
        self.blocks = (virtual_size + block_size - 1) // block_size
        self.chunks = (self.blocks + self.ratio - 1) // self.ratio
        if has_parent:
            self.entries = self.chunks * (self.ratio + 1)
        else:
            self.entries = self.blocks + (self.blocks - 1) // self.ratio
        self.spb = block_size // lss            # sectors in a block

    def index(self, block):
        return block + block // self.ratio

    def sb_index(self, chunk):
        return chunk * (self.ratio + 1) + self.ratio

    def bat_bytes(self):
        """Length of a BAT region that also does for a differencing image."""
        return round_up(self.chunks * (self.ratio + 1) * 8, MIB)

    def block_sectors(self, block):
        """Logical sectors of a block that lie inside the disk."""
        rest = self.virtual_size - block * self.block_size
        return min(self.block_size, rest) // self.lss


class Store:
    """A file or block device, with 4 KiB pages laid over it by a log replay."""

    def __init__(self, path, writable=False):
        self.path = path
        self.fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) |
                          os.O_CLOEXEC)
        self.size = os.lseek(self.fd, 0, os.SEEK_END)
        self.pages = {}
        self.zeroed = []
        mode = os.fstat(self.fd).st_mode
        self.regular = mode & 0o170000 == 0o100000
        if not self.regular:
            # The target's own bios go past this device's page cache.
            os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self):
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self):
        if getattr(self, "fd", -1) >= 0:
            self.close()

    def raw(self, offset, length):
        out = []
        while length > 0:
            piece = os.pread(self.fd, min(length, 1 << 30), offset)
            if not piece:
                out.append(bytes(length))
                break
            out.append(piece)
            offset += len(piece)
            length -= len(piece)
        return b"".join(out)

    def read(self, offset, length):
        data = self.raw(offset, length)
        if not self.pages:
            return data
        first, last = offset // PAGE, (offset + length - 1) // PAGE
        if last - first > len(self.pages):
            hits = [p for p in self.pages if first <= p <= last]
        else:
            hits = [p for p in range(first, last + 1) if p in self.pages]
        if not hits:
            return data
        data = bytearray(data)
        for page in hits:
            at = page * PAGE - offset
            lo, hi = max(at, 0), min(at + PAGE, length)
            data[lo:hi] = self.pages[page][lo - at:hi - at]
        return bytes(data)

    def write(self, offset, data):
        view = memoryview(data)
        while view:
            done = os.pwrite(self.fd, view, offset)
            offset += done
            view = view[done:]

    def next_data(self, offset, end):
        """The first byte at or after offset that may not be zero, or end."""
        for page in self.pages:
            if offset <= page * PAGE < end:
                end = page * PAGE
        if not self.regular or offset >= end:
            return offset
        if any(p * PAGE <= offset < (p + 1) * PAGE for p in self.pages):
            return offset
        try:
            return min(os.lseek(self.fd, offset, os.SEEK_DATA), end)
        except OSError as err:
            return end if err.errno == 6 else offset    # ENXIO: only a hole

    def pieces(self, offset, length, step=MIB):
        """(offset, data) of what is not zero, in pieces of at most step bytes."""
        end = offset + length
        zero = bytes(step)
        while offset < end:
            offset = self.next_data(offset, end)
            if offset >= end:
                return
            n = min(step - offset % step, end - offset)
            data = self.read(offset, n)
            if data != zero[:n]:
                yield offset, data
            offset += n


def tag_sectors(tag, first, count):
    """The content that {"tag": ...} stands for: count sectors of 512 bytes."""
    head = ("%-4.4s" % tag).encode()
    return b"".join([(head + b"%012x" % (first + i)) * 32 for i in range(count)])


# ---- log --------------------------------------------------------------------

class LogEntry:
    """One entry as read from the ring; .bad tells why it is not valid."""

    def __init__(self, ring, at, log_guid):
        self.at = at
        self.bad = ""
        self.pages = []         # (file offset, 4096 bytes)
        self.zeros = []         # (file offset, length)
        self.order = []         # both, in descriptor order
        head = ring[at:at + 64]
        (sig, crc, self.length, self.tail, self.seq, count, _,
         self.guid, self.ff, self.lf) = struct.unpack("<4sIIIQII16sQQ", head)
        if sig != b"loge":
            self.bad = "signature"
            return
        if self.guid != log_guid:
            self.bad = "guid"
            return
        if (not self.length or self.length % PAGE or self.length > len(ring) or
                self.tail % PAGE or self.tail >= len(ring) or not self.seq):
            self.bad = "length, tail or sequence number"
            return
        data = ring[at:at + self.length]
        data += ring[:self.length - len(data)]
        if checksum(data) != crc:
            self.bad = "checksum"
            return
        area = round_up(64 + 32 * count, PAGE)
        if area > self.length:
            self.bad = "descriptor count"
            return
        at = area
        for i in range(count):
            desc = data[64 + 32 * i:96 + 32 * i]
            sig, low, high, offset, seq = struct.unpack("<4sIQQQ", desc)
            if seq != self.seq or offset % PAGE:
                self.bad = "descriptor %d" % i
                return
            if sig == b"zero":
                if high % PAGE:
                    self.bad = "zero length"
                    return
                self.order.append((offset, None, high))
                self.zeros.append((offset, high))
            elif sig == b"desc":
                sector = data[at:at + PAGE]
                at += PAGE
                if (len(sector) < PAGE or sector[:4] != b"data" or
                        sector[4:8] != struct.pack("<I", seq >> 32) or
                        sector[4092:] != struct.pack("<I", seq & 0xffffffff)):
                    self.bad = "data sector %d" % i
                    return
                page = (struct.pack("<Q", high) + sector[8:4092] +
                        struct.pack("<I", low))
                self.order.append((offset, page, PAGE))
                self.pages.append((offset, page))
            else:
                self.bad = "descriptor signature"
                return
        if at != self.length:
            self.bad = "length does not fit its descriptors"


def active_sequence(ring, log_guid):
    """The entries that count, oldest first, from the head's tail on; or []."""
    best = []
    cache = {}

    def entry(at):
        if at not in cache:
            cache[at] = LogEntry(ring, at, log_guid)
        return cache[at]

    start = 0
    while start < len(ring):
        chain = []
        at = start
        used = 0
        while used < len(ring):
            e = entry(at)
            if e.bad or (chain and e.seq != chain[-1].seq + 1):
                break
            if used + e.length > len(ring):
                break
            chain.append(e)
            used += e.length
            at = (at + e.length) % len(ring)
        if chain:
            places = [e.at for e in chain]
            if chain[-1].tail in places:
                if not best or chain[-1].seq > best[-1].seq:
                    best = chain[places.index(chain[-1].tail):]
                if start + used >= len(ring):
                    break
                start += used
                continue
        start += PAGE
    return best


def log_entry(log_guid, seq, tail, pages=(), zeros=(), ff=0, lf=0):
    """Bytes of one entry."""
    count = len(pages) + len(zeros)
    area = round_up(64 + 32 * count, PAGE)
    descs = b"".join([struct.pack("<4sIQQQ", b"zero", 0, n, at, seq)
                      for at, n in zeros])
    sectors = []
    for at, page in pages:
        descs += struct.pack("<4s4s8sQQ", b"desc", page[4092:], page[:8], at, seq)
        sectors.append(struct.pack("<4sI", b"data", seq >> 32) + page[8:4092] +
                       struct.pack("<I", seq & 0xffffffff))
    head = struct.pack("<4sIIIQII16sQQ", b"loge", 0, area + PAGE * len(pages), tail,
                       seq, count, 0, log_guid, ff, lf)
    return seal((head + descs).ljust(area, b"\0") + b"".join(sectors))


# ---- parser -----------------------------------------------------------------

class Image:
    """A parsed image.  problems: (severity, offset, text), "error" or "warning"."""

    def __init__(self, path, strict=True):
        self.store = Store(path)
        self.path = path
        self.problems = []
        self.strict = strict
        self.bat = {}
        self.entries = []
        self._present = None
        if self.store.raw(0, 8) != b"vhdxfile":
            raise VhdxError("%s: file identifier: signature is wrong" % path)
        self._headers()
        self._log()
        self._regions()
        self._metadata()
        self._bat()
        self._log_targets()

    def error(self, offset, text):
        self.problems.append(("error", offset, text))

    def warning(self, offset, text):
        self.problems.append(("warning", offset, text))

    def errors(self):
        return [p for p in self.problems if p[0] == "error"]

    # headers

    def _headers(self):
        self.headers = []
        for slot, at in enumerate(HEADER):
            raw = self.store.raw(at, PAGE)
            h = dict(zip(("signature", "checksum", "seq", "file_write_guid",
                          "data_write_guid", "log_guid", "log_version", "version",
                          "log_length", "log_offset"),
                         struct.unpack("<4sIQ16s16s16sHHIQ", raw[:80])))
            h["raw"] = raw
            h["slot"] = slot
            h["valid"] = (h["signature"] == b"head" and
                          checksum(raw) == h["checksum"])
            if not h["valid"]:
                self.warning(at, "header %d: signature or checksum is wrong" %
                             (slot + 1))
            elif any(raw[80:]):
                self.warning(at + 80, "header %d: reserved bytes are set" % (slot + 1))
            self.headers.append(h)
        valid = [h for h in self.headers if h["valid"]]
        if not valid:
            raise VhdxError("%s: no valid header" % self.path)
        if len(valid) == 2 and valid[0]["seq"] == valid[1]["seq"]:
            if valid[0]["raw"] != valid[1]["raw"]:
                raise VhdxError("%s: two different headers with one sequence number" %
                                self.path)
        h = self.header = max(valid, key=lambda v: v["seq"])
        at = HEADER[h["slot"]]
        if h["version"] != 1:
            raise VhdxError("%s: header version %d" % (self.path, h["version"]))
        self.dirty = h["log_guid"] != ZERO_GUID
        if h["log_version"] and self.dirty:
            raise VhdxError("%s: log version %d" % (self.path, h["log_version"]))
        if h["log_length"] % MIB or not h["log_length"]:
            self.error(at + 68, "log length %#x" % h["log_length"])
        if h["log_offset"] % MIB or not h["log_offset"]:
            self.error(at + 72, "log offset %#x" % h["log_offset"])
        if h["log_offset"] + h["log_length"] > self.store.size:
            self.error(at + 72, "log ends behind the end of the file")

    def clean_problems(self):
        """What a clean close promises beyond a valid file."""
        out = []
        a, b = self.headers
        if self.dirty:
            out.append("LogGuid is not zero")
        if not a["valid"] or not b["valid"]:
            out.append("one header is not valid")
        elif a["raw"] != b["raw"]:
            if abs(a["seq"] - b["seq"]) != 1:
                out.append("header sequence numbers %d and %d" % (a["seq"], b["seq"]))
            if a["raw"][16:] != b["raw"][16:]:
                out.append("headers differ in more than the sequence number")
        return out

    # log

    def _log(self):
        h = self.header
        if not self.dirty:
            return
        ring = self.store.raw(h["log_offset"], h["log_length"])
        self.entries = active_sequence(ring, h["log_guid"])
        if not self.entries:
            raise VhdxError("%s: LogGuid is set but the log has no valid sequence" %
                            self.path)
        head = self.entries[-1]
        if head.ff % MIB or head.lf % MIB:
            self.error(h["log_offset"] + head.at + 48, "file offsets of an entry "
                       "are not aligned to 1 MiB")
        if self.store.size < head.ff:
            raise VhdxError("%s: file is shorter than FlushedFileOffset %#x" %
                            (self.path, head.ff))
        for e in self.entries:
            for at, page, length in e.order:
                if (at < TABLE[0] or
                        (at < h["log_offset"] + h["log_length"] and
                         at + length > h["log_offset"])):
                    self.error(h["log_offset"] + e.at,
                               "log entry aims at %#x" % at)
                for p in range(at // PAGE, (at + length) // PAGE):
                    self.store.pages[p] = page or bytes(PAGE)
        self.store.size = max(self.store.size, head.lf)

    # regions

    def _regions(self):
        tables = []
        for n, at in enumerate(TABLE):
            raw = self.store.read(at, 65536)
            sig, crc, count, _ = struct.unpack("<4sIII", raw[:16])
            if sig != b"regi" or crc != checksum(raw):
                self.error(at, "region table %d: signature or checksum is wrong" %
                           (n + 1))
                continue
            if count > 2047:
                self.error(at + 8, "region table %d: %d entries" % (n + 1, count))
                continue
            tables.append((at, raw, count))
        if not tables:
            raise VhdxError("%s: no valid region table" % self.path)
        if len(tables) == 2 and tables[0][1] != tables[1][1]:
            self.error(TABLE[1], "region tables differ")
        at, raw, count = tables[0]
        self.regions = {}
        seen = set()
        for i in range(count):
            g, offset, length, flags = struct.unpack_from("<16sQII", raw, 16 + 32 * i)
            where = at + 16 + 32 * i
            if g in seen:
                self.error(where, "region %s twice" % guid_text(g))
            seen.add(g)
            name = {G_BAT: "bat", G_METADATA: "metadata"}.get(g, guid_text(g))
            if name not in ("bat", "metadata") and flags & 1:
                raise VhdxError("%s: unknown required region %s" % (self.path, name))
            if flags & ~1:
                self.warning(where + 28, "reserved region flags %#x" % flags)
            if offset % MIB or not offset or length % MIB or not length:
                self.error(where + 16, "region %s: offset %#x, length %#x" %
                           (name, offset, length))
            if offset + length > self.store.size:
                self.error(where + 16, "region %s ends behind the end of the file" %
                           name)
            self.regions[name] = (offset, length, where)
        for name in ("bat", "metadata"):
            if name not in self.regions:
                raise VhdxError("%s: no %s region" % (self.path, name))

    # metadata

    def _metadata(self):
        base, length, _ = self.regions["metadata"]
        raw = self.store.read(base, 65536)
        if raw[:8] != b"metadata":
            raise VhdxError("%s: metadata table: signature is wrong" % self.path)
        count, = struct.unpack_from("<H", raw, 10)
        if count > 2047:
            raise VhdxError("%s: %d metadata entries" % (self.path, count))
        if any(raw[8:10]) or any(raw[12:32]):
            self.warning(base + 8, "reserved bytes of the metadata table are set")
        known = {v[0]: k for k, v in ITEMS.items()}
        self.items = {}
        self.item_entry = {}
        spans = []
        seen = set()
        for i in range(count):
            where = base + 32 + 32 * i
            g, offset, n, flags, rest = struct.unpack_from("<16sIIII", raw,
                                                           32 + 32 * i)
            if (g, flags & 1) in seen:
                self.error(where, "metadata item %s twice" % guid_text(g))
            seen.add((g, flags & 1))
            if rest or flags & ~7:
                self.warning(where + 24, "reserved bits of a metadata entry are set")
            if n == 0:
                if offset:
                    self.error(where + 16, "empty item with an offset")
            elif offset < 65536 or n > MIB or offset + n > length:
                self.error(where + 16, "metadata item at %#x, length %#x" % (offset, n))
                continue
            else:
                spans.append((offset, n, where))
            name = known.get(g) if not flags & 1 else None
            if not name:
                if flags & 4:
                    raise VhdxError("%s: unknown required metadata item %s" %
                                    (self.path, guid_text(g)))
                continue
            want = ITEMS[name][1]
            if want is not None and n != want:
                raise VhdxError("%s: item %s has length %d" % (self.path, name, n))
            if flags & 7 != ITEMS[name][2]:
                self.warning(where + 24, "item %s: flags %d" % (name, flags))
            self.items[name] = (base + offset, n)
            self.item_entry[name] = where
        spans.sort()
        for one, two in zip(spans, spans[1:]):
            if one[0] + one[1] > two[0]:
                self.error(two[2] + 16, "metadata items overlap")
        for name in ITEMS:
            if name != "locator" and name not in self.items:
                raise VhdxError("%s: item %s is missing" % (self.path, name))

        def value(name, form):
            return struct.unpack(form, self.store.read(*self.items[name]))

        self.block_size, self.flags = value("file_parameters", "<II")
        self.virtual_size, = value("virtual_size", "<Q")
        self.lss, = value("lss", "<I")
        self.pss, = value("pss", "<I")
        self.disk_id = self.store.read(*self.items["disk_id"])
        self.has_parent = bool(self.flags & 2)
        self.type = ("differencing" if self.has_parent else
                     "fixed" if self.flags & 1 else "dynamic")
        if self.flags & ~3:
            self.warning(self.items["file_parameters"][0] + 4,
                         "reserved file parameter flags %#x" % self.flags)
        bs = self.block_size
        if bs & (bs - 1) or not MIB <= bs <= 256 * MIB:
            raise VhdxError("%s: block size %d" % (self.path, bs))
        if self.lss not in (512, 4096) or self.pss not in (512, 4096):
            raise VhdxError("%s: sector sizes %d, %d" % (self.path, self.lss, self.pss))
        if (self.virtual_size % self.lss or not self.virtual_size or
                self.virtual_size > 64 * TIB):
            raise VhdxError("%s: virtual size %d" % (self.path, self.virtual_size))
        self.geo = Geometry(self.virtual_size, bs, self.lss, self.has_parent)
        self.locator = {}
        self.locator_type = None
        if self.has_parent != ("locator" in self.items):
            self.error(self.items["file_parameters"][0] + 4,
                       "has-parent flag and parent locator do not agree")
        if "locator" in self.items:
            self._locator()

    def _locator(self):
        at, length = self.items["locator"]
        raw = self.store.read(at, length)
        if length < 20:
            self.error(at, "parent locator too short")
            return
        self.locator_type = raw[:16]
        count, = struct.unpack_from("<H", raw, 18)
        if self.locator_type != G_LOCATOR_VHDX:
            self.warning(at, "parent locator type %s" % guid_text(raw[:16]))
        for i in range(count):
            where = 20 + 12 * i
            if where + 12 > length:
                self.error(at + where, "parent locator entry outside the item")
                return
            ko, vo, kn, vn = struct.unpack_from("<IIHH", raw, where)
            if (not ko or not vo or not kn or not vn or kn % 2 or vn % 2 or
                    ko + kn > length or vo + vn > length):
                self.error(at + where, "parent locator entry %d" % i)
                continue
            try:
                key = raw[ko:ko + kn].decode("utf-16-le")
                val = raw[vo:vo + vn].decode("utf-16-le")
            except UnicodeDecodeError:
                self.error(at + where, "parent locator entry %d is not UTF-16" % i)
                continue
            if "\0" in key + val:
                self.error(at + where, "NUL in the parent locator")
            if key in self.locator:
                self.error(at + where, "key %s twice" % key)
            self.locator[key] = val
        if self.locator_type == G_LOCATOR_VHDX:
            if "parent_linkage" not in self.locator:
                self.error(at, "no parent_linkage")
            if not {"relative_path", "volume_path",
                    "absolute_win32_path"} & set(self.locator):
                self.error(at, "no path of the parent")

    # BAT

    def _bat(self):
        base, length, _ = self.regions["bat"]
        geo = self.geo
        if geo.entries * 8 > length:
            raise VhdxError("%s: BAT of %d bytes for %d entries" %
                            (self.path, length, geo.entries))
        bat = self.bat
        for at, data in self.store.pieces(base, geo.entries * 8):
            first = (at - base) // 8
            n = len(data) // 8
            for i, v in enumerate(struct.unpack("<%dQ" % n, data[:8 * n])):
                if v:
                    bat[first + i] = v
        if not self.strict:
            return
        claims = [(0, MIB, 0, "header section"),
                  (self.header["log_offset"], self.header["log_length"],
                   HEADER[self.header["slot"]] + 72, "log")]
        for name, (offset, n, where) in self.regions.items():
            claims.append((offset, n, where + 16, "region " + name))
        partial = set()
        self.sb_places = []
        for index in sorted(bat):
            entry = bat[index]
            where = base + 8 * index
            state, place = entry & 7, entry & ~(MIB - 1)
            chunk, slot = divmod(index, geo.ratio + 1)
            if entry & 0xffff8:
                self.error(where, "BAT entry %d: reserved bits set: %#x" %
                           (index, entry))
            if slot == geo.ratio:
                if state not in (0, 6):
                    self.error(where, "bitmap entry %d: state %d" % (index, state))
                if not self.has_parent and entry:
                    self.error(where, "bitmap entry %d: set without parent" % index)
                if state == 6 and not place:
                    self.error(where, "bitmap entry %d: no place" % index)
                if state != 6 and place:
                    self.error(where, "bitmap entry %d: place in state %d" %
                               (index, state))
                if place:
                    claims.append((place, MIB, where, "bitmap %d" % chunk))
                    self.sb_places.append(place)
                continue
            block = chunk * geo.ratio + slot
            if block >= geo.blocks:
                self.warning(where, "BAT entry %d: padding is set: %#x" %
                             (index, entry))
                continue
            if state in (4, 5):
                self.error(where, "block %d: reserved state %d" % (block, state))
            if state in (NOT_PRESENT, ZERO) and place:
                self.error(where, "block %d: state %d with a place" % (block, state))
            if state in (FULL, PARTIAL) and not place:
                self.error(where, "block %d: state %d without place" % (block, state))
            if state == PARTIAL:
                if not self.has_parent:
                    self.error(where, "block %d: partial without parent" % block)
                partial.add(chunk)
            if place:
                claims.append((place, self.block_size, where, "block %d" % block))
        for chunk in sorted(partial):
            if bat.get(geo.sb_index(chunk), 0) & 7 != 6 and self.has_parent:
                self.error(base + 8 * geo.sb_index(chunk),
                           "chunk %d: partial blocks without a bitmap" % chunk)
        if self.type == "fixed":
            missing = geo.blocks - sum(1 for b in self.present())
            if missing:
                self.warning(base, "fixed image with %d blocks not present" % missing)
        self._claims(claims)
        for block in self.present():
            if self.state(block) == PARTIAL and self.has_parent:
                n = self.bits_set(block)
                if n == 0:
                    self.warning(base + 8 * geo.index(block),
                                 "block %d: partial, but no bit is set" % block)

    def _claims(self, claims):
        claims.sort()
        before = None
        for claim in claims:
            offset, length, where, name = claim
            if before and before[0] + before[1] > offset:
                self.error(where, "%s at %#x overlaps %s at %#x" %
                           (name, offset, before[3], before[0]))
            if not before or offset + length > before[0] + before[1]:
                before = claim
            if offset + length > self.store.size:
                # Some writers cut the last block at the virtual end.
                last = name == "block %d" % (self.geo.blocks - 1)
                need = self.virtual_size - (self.geo.blocks - 1) * self.block_size
                if last and offset + need <= self.store.size:
                    self.warning(where, "%s is cut by the end of the file" % name)
                else:
                    self.error(where, "%s at %#x ends behind the end of the file" %
                               (name, offset))
        self.claims = claims

    def _log_targets(self):
        """No payload in the log: entries may only aim at metadata."""
        if not self.entries or not self.strict:
            return
        allowed = [(TABLE[0], 2 * 65536)]
        allowed += [(o, n) for o, n, _ in self.regions.values()]
        allowed += [(p, MIB) for p in self.sb_places]
        for e in self.entries:
            for at, _, length in e.order:
                if not any(o <= at and at + length <= o + n for o, n in allowed):
                    self.error(self.header["log_offset"] + e.at,
                               "log entry %d aims at %#x, which is no metadata" %
                               (e.seq, at))

    # content

    def present(self):
        """Blocks with a nonzero entry, in order."""
        if self._present is None:
            ratio = self.geo.ratio
            out = []
            for index in sorted(self.bat):
                chunk, slot = divmod(index, ratio + 1)
                if slot < ratio and chunk * ratio + slot < self.geo.blocks:
                    out.append(chunk * ratio + slot)
            self._present = out
        return self._present

    def state(self, block):
        return self.bat.get(self.geo.index(block), 0) & 7

    def place(self, block):
        return self.bat.get(self.geo.index(block), 0) & ~(MIB - 1)

    def sb_place(self, chunk):
        entry = self.bat.get(self.geo.sb_index(chunk), 0)
        return entry & ~(MIB - 1) if entry & 7 == 6 else 0

    def bitmap(self, block):
        """The block's bits as bytes, or None without a bitmap block."""
        place = self.sb_place(block // self.geo.ratio)
        if not place:
            return None
        n = self.geo.spb // 8
        return self.store.read(place + block % self.geo.ratio * n, n)

    def bits_set(self, block):
        bits = self.bitmap(block)
        if bits is None:
            return 0
        n = self.geo.block_sectors(block)
        return bin(int.from_bytes(bits, "little") & (1 << n) - 1).count("1")

    def runs(self, block):
        """(first sector, count, bit) over the sectors inside the disk."""
        bits = self.bitmap(block)
        if bits is None:
            raise VhdxError("%s: block %d is partial without a bitmap" %
                            (self.path, block))
        end = self.geo.block_sectors(block)
        first, value, at = 0, bits[0] & 1, 0
        while at < end:
            byte = bits[at >> 3]
            if at & 7 == 0 and byte == (255 if value else 0):
                at += 8
                continue
            if (byte >> (at & 7)) & 1 != value:
                yield first, at - first, value
                first, value = at, 1 - value
            at += 1
        yield first, end - first, value

    def close(self):
        self.store.close()


class Raw:
    """A raw layer: only the bottom of a chain."""

    def __init__(self, path):
        self.path = path
        self.store = Store(path)
        self.virtual_size = self.store.size


class Chain:
    """Layers, top first; the last may be a raw file or device."""

    def __init__(self, *paths, strict=False):
        self.layers = []
        for i, path in enumerate(paths):
            raw = path.startswith("raw:")
            path = path[4:] if raw else path
            if not raw and i == len(paths) - 1 and i:
                with open(path, "rb") as f:
                    raw = f.read(8) != b"vhdxfile"
            self.layers.append(Raw(path) if raw else Image(path, strict=strict))
        for layer in self.layers[:-1]:
            if isinstance(layer, Image) and not layer.has_parent:
                raise VhdxError("%s has no parent, but a layer follows" % layer.path)
        self.size = self.layers[0].virtual_size

    def map(self, offset=0, length=None, layer=0):
        """(offset, length, store or None for zeros, offset in store), in order."""
        if length is None:
            length = self.size - offset
        if length <= 0:
            return
        if layer >= len(self.layers):
            yield offset, length, None, 0
            return
        top = self.layers[layer]
        inside = min(length, max(0, top.virtual_size - offset))
        rest = length - inside
        end = offset + inside
        if isinstance(top, Raw):
            if inside:
                yield offset, inside, top.store, offset
        else:
            for piece in self._map_image(top, offset, end, layer):
                yield piece
        if rest:
            yield end, rest, None, 0

    def _map_image(self, top, offset, end, layer):
        geo, bs = top.geo, top.block_size
        below = layer + 1 if top.has_parent else len(self.layers)
        present = top.present()
        lo, hi = 0, len(present)
        while lo < hi:                          # bisect without the import
            mid = (lo + hi) // 2
            if present[mid] < offset // bs:
                lo = mid + 1
            else:
                hi = mid
        while offset < end:
            block = present[lo] if lo < len(present) else None
            if block is None or block * bs >= end:
                yield from self.map(offset, end - offset, below)
                return
            if offset < block * bs:
                yield from self.map(offset, block * bs - offset, below)
                offset = block * bs
            stop = min(end, (block + 1) * bs)
            state, place = top.state(block), top.place(block)
            if state == FULL:
                yield offset, stop - offset, top.store, place + offset - block * bs
            elif state == PARTIAL:
                for first, count, bit in top.runs(block):
                    a = max(offset, block * bs + first * geo.lss)
                    b = min(stop, block * bs + (first + count) * geo.lss)
                    if a >= b:
                        continue
                    if bit:
                        yield a, b - a, top.store, place + a - block * bs
                    else:
                        yield from self.map(a, b - a, below)
            elif state == NOT_PRESENT:
                yield from self.map(offset, stop - offset, below)
            else:
                yield offset, stop - offset, None, 0
            offset = stop
            lo += 1

    def read(self, offset, length):
        out = []
        inside = max(0, min(length, self.size - offset))
        for _, n, store, at in self.map(offset, inside):
            out.append(store.read(at, n) if store else bytes(n))
        return b"".join(out)

    def merge(self, path):
        """The clone's content as a sparse raw file."""
        with open(path, "wb") as out:
            out.truncate(self.size)
            fd = out.fileno()
            for at, n, store, place in self.map():
                if not store:
                    continue
                for where, data in store.pieces(place, n):
                    os.pwrite(fd, data, at + where - place)


def compare(expected, chain):
    """Offset of the first sector in which chain and a raw file differ, or None."""
    want = Store(expected)
    if want.size != chain.size:
        raise VhdxError("sizes differ: %d, want %d" % (chain.size, want.size))
    for at, n, store, place in chain.map():
        end = at + n
        while at < end:
            skip = want.next_data(at, end) - at
            if store:
                skip = min(skip, store.next_data(place, place + end - at) - place)
            at, place = at + skip, place + skip
            n = min(MIB - at % MIB, end - at)
            if n <= 0:
                break
            a = want.read(at, n)
            b = store.read(place, n) if store else bytes(n)
            if a != b:
                for i in range(0, n, 512):
                    if a[i:i + 512] != b[i:i + 512]:
                        return at + i, b[i:i + 16], a[i:i + 16]
            at, place = at + n, place + n
    return None


# ---- builder ------------------------------------------------------------------

class _Rng:
    """A small generator: random is a dear import, and must not change with Python."""

    def __init__(self, seed):
        self.x = seed & (1 << 64) - 1 or 1

    def next(self):
        self.x ^= self.x << 13 & (1 << 64) - 1
        self.x ^= self.x >> 7
        self.x ^= self.x << 17 & (1 << 64) - 1
        return self.x

    def shuffle(self, items):
        for i in range(len(items) - 1, 0, -1):
            j = self.next() % (i + 1)
            items[i], items[j] = items[j], items[i]


JUNK = (b"*JUNK*" + bytes(range(0x81, 0x81 + 58))) * (MIB // 64)


def locator_item(pairs, kind=G_LOCATOR_VHDX):
    """Bytes of a parent locator."""
    pairs = list(pairs.items())
    head = kind + struct.pack("<HH", 0, len(pairs))
    at = 20 + 12 * len(pairs)
    table, strings = b"", b""
    for key, value in pairs:
        k, v = key.encode("utf-16-le"), value.encode("utf-16-le")
        table += struct.pack("<IIHH", at, at + len(k), len(k), len(v))
        strings += k + v
        at += len(k) + len(v)
    return head + table + strings


def header_bytes(seq, file_write, data_write, log_guid, log_length, log_offset,
                 version=1):
    return seal(struct.pack("<4sIQ16s16s16sHHIQ", b"head", 0, seq, file_write,
                            data_write, log_guid, 0, version, log_length,
                            log_offset).ljust(PAGE, b"\0"))


def region_table(regions):
    """regions: (guid, offset, length, required)"""
    raw = struct.pack("<4sIII", b"regi", 0, len(regions), 0)
    for g, offset, length, required in regions:
        raw += struct.pack("<16sQII", g, offset, length, required)
    return seal(raw.ljust(65536, b"\0"))


def metadata_region(block_size, flags, virtual_size, disk_id, lss, pss, locator):
    values = [("file_parameters", struct.pack("<II", block_size, flags)),
              ("virtual_size", struct.pack("<Q", virtual_size)),
              ("lss", struct.pack("<I", lss)),
              ("pss", struct.pack("<I", pss)),
              ("disk_id", disk_id)]
    if locator is not None:
        values.append(("locator", locator))
    table = struct.pack("<8sHH20s", b"metadata", 0, len(values), bytes(20))
    items = b""
    for name, value in values:
        g, _, item_flags = ITEMS[name]
        table += struct.pack("<16sIIII", g, 65536 + len(items), len(value),
                             item_flags, 0)
        items += value
    return table.ljust(65536, b"\0") + items


class _Builder:
    def __init__(self, spec, path):
        known = {"type", "size", "block_size", "lss", "pss", "log_size", "layout", "at",
                 "gap", "order", "seed", "free", "capacity", "garbage", "stale_bits",
                 "tail_bits", "bitmaps", "blocks", "default", "seq",
                 "file_write_guid", "data_write_guid", "disk_id", "parent", "locator",
                 "dirty", "set", "regions"}
        if set(spec) - known:
            raise VhdxError("unknown key in spec: %s" % ", ".join(set(spec) - known))
        self.spec = spec
        self.path = path
        self.type = spec.get("type", "differencing")
        if self.type not in ("fixed", "dynamic", "differencing"):
            raise VhdxError("unknown type %s" % self.type)
        self.virtual_size = size(spec["size"])
        default = "32M" if self.type == "dynamic" else "2M"
        self.block_size = size(spec.get("block_size", default))
        self.lss = size(spec.get("lss", 512))
        self.pss = size(spec.get("pss", 4096))
        self.geo = Geometry(self.virtual_size, self.block_size, self.lss,
                            self.type == "differencing")
        self.rng = _Rng(spec["seed"] * 2654435761 + 1) if "seed" in spec else None
        self.garbage = spec.get("garbage", False)
        self.gap = spec.get("gap", 0)

    def make_guid(self, key):
        if key in self.spec:
            return guid(self.spec[key])
        if self.rng:
            return struct.pack("<QQ", self.rng.next(), self.rng.next())
        return new_guid()

    def parse_blocks(self):
        blocks = {}
        default = self.spec.get("default", 6 if self.type == "fixed" else 0)
        if default != 0:
            for b in range(self.geo.blocks):
                blocks[b] = default
        for name, block in self.spec.get("blocks", {}).items():
            first, _, last = str(name).partition("-")
            for b in range(int(first), int(last or first) + 1):
                if b >= self.geo.blocks:
                    raise VhdxError("block %d of %d" % (b, self.geo.blocks))
                blocks[b] = block
        self.blocks = {}
        for b, block in blocks.items():
            if not isinstance(block, dict):
                block = {"state": block}
            block = dict(block)
            block["number"] = b
            self.blocks[b] = block

    def lay_out(self):
        """Give every region and block its place."""
        spec = self.spec
        self.lengths = {"log": size(spec.get("log_size", MIB)), "metadata": MIB,
                        "bat": self.geo.bat_bytes()}
        self.places = {}
        fixed = spec.get("at", {})
        chunks = set(spec.get("bitmaps", ()))
        objects = []
        for b in sorted(self.blocks):
            block = self.blocks[b]
            if block["state"] == PARTIAL and self.type == "differencing":
                chunks.add(b // self.geo.ratio)
            if block["state"] in (FULL, PARTIAL) and "at" not in block:
                objects.append(("block", b))
        for c in sorted(chunks):
            objects.append(("chunk", c))
        order = spec.get("order", "up")
        if order == "down":
            objects.reverse()
        elif order == "shuffle":
            (self.rng or _Rng(1)).shuffle(objects)
        used = sorted([(fixed[n] * MIB, self.lengths[n]) for n in self.lengths
                       if n in fixed] +
                      [(b["at"] * MIB, self.block_size) for b in self.blocks.values()
                       if b.get("at")])
        cursor = MIB

        def take(length):
            nonlocal cursor
            cursor += self.gap * MIB
            for at, n in used:
                if cursor < at + n and at < cursor + length:
                    cursor = at + n
            at = cursor
            cursor += length
            return at

        self.chunk_at = {}
        self.block_at = {b: v["at"] * MIB for b, v in self.blocks.items() if "at" in v}
        for name in spec.get("layout", ("log", "metadata", "bat", "data")):
            if name == "data":
                for kind, n in objects:
                    if kind == "chunk":
                        self.chunk_at[n] = take(MIB)
                    else:
                        self.block_at[n] = take(self.block_size)
            else:
                self.places[name] = (fixed[name] * MIB if name in fixed
                                     else take(self.lengths[name]))
        ends = ([self.places[n] + self.lengths[n] for n in self.lengths] +
                [at + MIB for at in self.chunk_at.values()] +
                [at + self.block_size for at in self.block_at.values() if at])
        self.end = max(ends)
        self.capacity = self.end + size(spec.get("free", 0))
        if "capacity" in spec:
            self.capacity = size(spec["capacity"])
            if self.capacity < self.end:
                raise VhdxError("capacity %d, but %d are needed" %
                                (self.capacity, self.end))

    def fill(self, store, place, block):
        """Write a block's payload."""
        bs = self.block_size
        if self.garbage:
            for at in range(place, place + bs, MIB):
                store.write(at, JUNK)
        fill = block.get("fill")
        if not fill:
            if self.garbage and block["state"] == FULL:
                for at in range(place, place + bs, MIB):
                    store.write(at, bytes(MIB))
            return
        b = block["number"]
        if "sectors" in block and block["state"] == PARTIAL:
            ranges = [(a * self.lss, n * self.lss) for a, n in block["sectors"]]
        else:
            ranges = [(0, bs)]
        for first, length in ranges:
            virtual = b * bs + first
            if "tag" in fill:
                every = fill.get("every", 1)
                if every == 1:
                    store.write(place + first, tag_sectors(fill["tag"], virtual // 512,
                                                           length // 512))
                else:
                    store.write(place + first, bytes(length))
                    for s in range(virtual // 512, (virtual + length) // 512):
                        if s % every == 0:
                            store.write(place + s * 512 - b * bs,
                                        tag_sectors(fill["tag"], s, 1))
            elif "file" in fill:
                with open(fill["file"], "rb") as f:
                    f.seek(virtual)
                    store.write(place + first, f.read(length).ljust(length, b"\0"))
            else:
                for at in range(first, first + length, MIB):
                    n = min(MIB, first + length - at)
                    store.write(place + at, bytes([fill["byte"]]) * n)

    def bitmap_pages(self):
        """{file offset: bytearray(4096)} of all bitmap blocks; zero pages left out."""
        geo = self.geo
        pages = {}

        def set_bits(chunk, first, count):
            base = self.chunk_at[chunk]
            while count > 0:
                page, bit = divmod(first, PAGE * 8)
                n = min(count, PAGE * 8 - bit)
                raw = pages.setdefault(base + page * PAGE, bytearray(PAGE))
                value = int.from_bytes(raw, "little") | ((1 << n) - 1) << bit
                raw[:] = value.to_bytes(PAGE, "little")
                first += n
                count -= n

        for chunk in self.chunk_at:
            for slot in range(geo.ratio):
                b = chunk * geo.ratio + slot
                if b >= geo.blocks:
                    break
                block = self.blocks.get(b, {"state": 0})
                if block["state"] == PARTIAL:
                    for first, count in block.get("sectors", ()):
                        set_bits(chunk, slot * geo.spb + first, count)
                elif self.spec.get("stale_bits"):
                    set_bits(chunk, slot * geo.spb, geo.spb)
            if self.spec.get("tail_bits") and chunk == geo.chunks - 1:
                end = self.virtual_size // self.lss % SB_BITS
                if end:
                    set_bits(chunk, end, -end % (PAGE * 8))
        return pages

    def bat_pages(self):
        geo = self.geo
        pages = {}

        def put(index, entry):
            page, slot = divmod(index * 8, PAGE)
            raw = pages.setdefault(self.places["bat"] + page * PAGE, bytearray(PAGE))
            struct.pack_into("<Q", raw, slot, entry)

        for b, block in self.blocks.items():
            put(geo.index(b), block["state"] | self.block_at.get(b, 0))
        for c, at in self.chunk_at.items():
            put(geo.sb_index(c), 6 | at)
        return pages

    def parent_item(self):
        if self.type != "differencing":
            return None
        parent = self.spec.get("parent")
        if isinstance(parent, str):
            p = Image(parent, strict=False)
            pairs = {"parent_linkage": "{%s}" % guid_text(p.header["data_write_guid"]),
                     "relative_path": ".\\" + os.path.basename(parent),
                     "parent_linkage2": "{%s}" % guid_text(ZERO_GUID)}
            p.close()
        else:
            pairs = parent or {"parent_linkage": "{%s}" % guid_text(new_guid()),
                               "relative_path": ".\\base.vhdx"}
        kind = guid(self.spec["locator"]) if "locator" in self.spec else G_LOCATOR_VHDX
        return locator_item(pairs, kind)

    def write_log(self, store, pages, log_guid, seq):
        """Put pages into the log as entries; returns nothing, fails if too many."""
        dirty = self.spec["dirty"]
        length, base = self.lengths["log"], self.places["log"]
        per = dirty.get("per_entry", 3)
        offsets = sorted(pages)
        groups = [offsets[i:i + per] for i in range(0, len(offsets), per)] or [[]]
        cuts = self.capacity // MIB * MIB
        at = dirty.get("start", 0) % length
        starts = [at]
        sizes = [len(log_entry(log_guid, 1, 0, [(o, bytes(PAGE)) for o in g]))
                 for g in [[]] + groups]
        if sum(sizes) + 4 * PAGE > length:
            raise VhdxError("%d pages do not fit the log" % len(pages))
        for n in sizes:
            starts.append((starts[-1] + n) % length)
        tail = dirty.get("tail", 0)

        def put(offset, data):
            first = min(len(data), length - offset)
            store.write(base + offset, data[:first])
            store.write(base, data[first:])

        for i, group in enumerate([[]] + groups):
            last = i == len(groups)
            put(starts[i], log_entry(log_guid, seq + i, starts[tail if last else 0],
                                     [(o, bytes(pages[o])) for o in group],
                                     ff=cuts, lf=cuts))
        end = starts[len(groups) + 1]
        if dirty.get("torn"):
            # What a crash in the middle of the next entry leaves.
            data = bytearray(log_entry(log_guid, seq + len(groups) + 1, starts[0],
                                       [(self.places["bat"], JUNK[:PAGE])],
                                       ff=cuts, lf=cuts))
            data[PAGE + 512:] = bytes(len(data) - PAGE - 512)
            put(end, data)
        elif dirty.get("stale"):
            put(end, log_entry(new_guid(), seq + len(groups) + 1, end,
                               [(self.places["bat"], JUNK[:PAGE])], ff=cuts, lf=cuts))

    def build(self):
        spec = self.spec
        self.parse_blocks()
        self.lay_out()
        file_write = self.make_guid("file_write_guid")
        data_write = self.make_guid("data_write_guid")
        disk_id = self.make_guid("disk_id")
        parent = self.parent_item()
        flags = {"fixed": 1, "dynamic": 0, "differencing": 2}[self.type]
        is_dev = os.path.exists(self.path) and not os.path.isfile(self.path)
        if not is_dev:
            with open(self.path, "wb") as f:
                f.truncate(self.capacity)
        store = Store(self.path, writable=True)
        if is_dev:
            if store.size < self.capacity:
                raise VhdxError("%s is too small" % self.path)
            store.write(0, bytes(MIB))
            for name in ("log", "metadata", "bat"):
                for at in range(0, self.lengths[name], MIB):
                    store.write(self.places[name] + at, bytes(MIB))
        if self.garbage:
            self.junk(store)
        for b, at in self.block_at.items():
            if at:
                self.fill(store, at, self.blocks[b])
        for at in self.chunk_at.values():
            store.write(at, bytes(MIB))
        meta = {}
        meta.update(self.bat_pages())
        meta.update(self.bitmap_pages())
        log_guid, seq = ZERO_GUID, spec.get("seq", 0x1234)
        if "dirty" in spec:
            log_guid = self.make_guid("log_guid")
            self.write_log(store, meta, log_guid, 0x6a5b_0000_0000_ffff)
            if spec["dirty"].get("inplace") == "old":
                meta = {}
            else:
                for at in meta:
                    store.write(at, bytes(PAGE))
                meta = {}
        for at, page in meta.items():
            store.write(at, page)
        store.write(self.places["metadata"],
                    metadata_region(self.block_size, flags, self.virtual_size, disk_id,
                                    self.lss, self.pss, parent))
        regions = [(G_BAT, self.places["bat"], self.lengths["bat"], 1),
                   (G_METADATA, self.places["metadata"], self.lengths["metadata"], 1)]
        for r in spec.get("regions", ()):
            regions.append((guid(r["guid"]), r["mib"] * MIB, size(r["length"]),
                            r.get("required", 0)))
        table = region_table(regions)
        for at in TABLE:
            store.write(at, table)
        store.write(0, b"vhdxfile" + "vhdclone tests".encode("utf-16-le"))
        for n, at in enumerate(HEADER):
            store.write(at, header_bytes(seq + n, file_write, data_write, log_guid,
                                         self.lengths["log"], self.places["log"]))
        os.fsync(store.fd)
        store.close()
        for name, value in spec.get("set", {}).items():
            set_field(self.path, name, value)
        return self.words()

    def junk(self, store):
        """Fill what belongs to nobody, and the empty log."""
        taken = [(0, MIB)]
        taken += [(self.places[n], self.lengths[n]) for n in ("metadata", "bat")]
        taken += [(at, MIB) for at in self.chunk_at.values()]
        taken += [(at, self.block_size) for at in self.block_at.values()]
        taken.sort()
        cursor = 0
        # Some of the free end will do: it may be as large as a disk.
        for at, n in taken + [(min(self.capacity, self.end + 64 * MIB), 0)]:
            while cursor < at:
                step = min(MIB, at - cursor)
                store.write(cursor, JUNK[:step])
                cursor += step
            cursor = max(cursor, at + n)

    def words(self):
        return ("vhdx @ %d %d %d %d %d %d" %
                (self.virtual_size // 512, self.block_size // 512, self.lss,
                 self.places["bat"] // 512, self.places["log"] // 512,
                 self.lengths["log"] // 512))


def build(spec, path):
    """Write an image; returns its layer words with @ for the device."""
    return _Builder(spec, path).build()


# ---- mutator --------------------------------------------------------------------

_HEADER_FIELDS = {"signature": (0, "4s"), "checksum": (4, "<I"), "seq": (8, "<Q"),
                  "file_write_guid": (16, "16s"), "data_write_guid": (32, "16s"),
                  "log_guid": (48, "16s"), "log_version": (64, "<H"),
                  "version": (66, "<H"), "log_length": (68, "<I"),
                  "log_offset": (72, "<Q")}
_TABLE_FIELDS = {"signature": (0, "4s"), "checksum": (4, "<I"), "count": (8, "<I")}
_REGION_FIELDS = {"guid": (0, "16s"), "offset": (16, "<Q"), "length": (24, "<I"),
                  "flags": (28, "<I")}
_ITEM_FIELDS = {"id": (0, "16s"), "offset": (16, "<I"), "length": (20, "<I"),
                "flags": (24, "<I")}


def _pack(form, value):
    if form.endswith("s"):
        if isinstance(value, str):
            value = guid(value) if form == "16s" else value.encode()
        return struct.pack(form, value)
    return struct.pack(form, size(value))


def set_field(path, name, value, fix=True):
    """Set one field, whatever the rules say, and put the checksum right.

    name: identifier, header1.F, header2.F, headers.F, region1.F, region2.F, regions.F
    (F also: bat.G, metadata.G), table.signature, table.count, item.NAME.F, NAME (of an
    item's value), block_size, flags, bat[INDEX], block[N], block[N].state,
    block[N].mib, chunk[N], chunk[N].state, chunk[N].mib, bits[FIRST-LAST] (of logical
    sectors, 0 or 1), bytes@OFFSET (hex).  Values that end in @OLD keep the old one:
    "+N" adds to it.
    """
    where, _, field = name.partition(".")
    store = Store(path, writable=True)

    def update(at, form, val):
        if isinstance(val, str) and val[:1] == "+" and not form.endswith("s"):
            old, = struct.unpack(form, store.raw(at, struct.calcsize(form)))
            val = (old + size(val[1:])) & (1 << 8 * struct.calcsize(form)) - 1
        store.write(at, _pack(form, val))

    def sealed(at, length):
        if fix and field != "checksum":
            store.write(at, seal(store.raw(at, length)))

    if where.startswith("bytes@"):
        store.write(size(where[6:]), bytes.fromhex(value))
    elif where == "identifier":
        store.write(0, value.encode())
    elif where in ("header1", "header2", "headers"):
        for slot in ((0, 1) if where == "headers" else (int(where[-1]) - 1,)):
            off, form = _HEADER_FIELDS[field]
            update(HEADER[slot] + off, form, value)
            sealed(HEADER[slot], PAGE)
    elif where in ("region1", "region2", "regions"):
        for n in ((0, 1) if where == "regions" else (int(where[-1]) - 1,)):
            at = TABLE[n]
            region, _, sub = field.partition(".")
            if sub:
                g = {"bat": G_BAT, "metadata": G_METADATA}[region]
                count, = struct.unpack("<I", store.raw(at + 8, 4))
                for i in range(count):
                    if store.raw(at + 16 + 32 * i, 16) == g:
                        off, form = _REGION_FIELDS[sub]
                        update(at + 16 + 32 * i + off, form, value)
                        break
                else:
                    raise VhdxError("no region " + region)
            else:
                off, form = _TABLE_FIELDS[field]
                update(at + off, form, value)
            sealed(at, 65536)
    else:
        image = Image(path, strict=False)
        _set_inner(image, store, update, where, field, value)
        image.close()
    os.fsync(store.fd)
    store.close()


def _set_inner(image, store, update, where, field, value):
    """Fields whose place only the parsed image tells."""
    geo = image.geo
    name, _, number = where.partition("[")
    number = number.rstrip("]")
    bat = image.regions["bat"][0]
    if where == "table":
        off, form = {"signature": (0, "8s"), "count": (10, "<H")}[field]
        update(image.regions["metadata"][0] + off, form, value)
    elif where == "item":
        item, _, sub = field.partition(".")
        off, form = _ITEM_FIELDS[sub]
        update(image.item_entry[item] + off, form, value)
    elif where == "block_size":
        update(image.items["file_parameters"][0], "<I", value)
    elif where == "flags":
        update(image.items["file_parameters"][0] + 4, "<I", value)
    elif where in ITEMS:
        form = {"virtual_size": "<Q", "lss": "<I", "pss": "<I"}.get(where, "16s")
        update(image.items[where][0], form, value)
    elif name in ("bat", "block", "chunk"):
        index = int(number)
        if name == "block":
            index = geo.index(index)
        elif name == "chunk":
            index = geo.sb_index(index)
        at = bat + 8 * index
        old, = struct.unpack("<Q", store.raw(at, 8))
        if field == "state":
            value = old & ~7 | size(value)
        elif field == "mib":
            value = old & (MIB - 1) | size(value) << 20
        update(at, "<Q", value)
    elif name == "bits":
        first, _, last = number.partition("-")
        for s in range(int(first), int(last or first) + 1):
            chunk, bit = divmod(s, SB_BITS)
            at = image.sb_place(chunk) + (bit >> 3)
            byte = store.raw(at, 1)[0] & ~(1 << (bit & 7)) | int(value) << (bit & 7)
            store.write(at, bytes([byte]))
    else:
        raise VhdxError("unknown field " + where)


# ---- commands ---------------------------------------------------------------------

def layer_words(path, dev=None):
    """The words of a layer in the target's table line."""
    if path.startswith("raw:"):
        path = path[4:]
        first, count = 0, Store(path).size // 512
        return "raw %s %d %d" % (dev or path, first, count), count
    i = Image(path, strict=False)
    h = i.header
    return ("vhdx %s %d %d %d %d %d %d" %
            (dev or path, i.virtual_size // 512, i.block_size // 512, i.lss,
             i.regions["bat"][0] // 512, h["log_offset"] // 512,
             h["log_length"] // 512)), i.virtual_size // 512


def info(path):
    """What `info` prints, as a dict."""
    i = Image(path)
    counts = [0] * 8
    for b in i.present():
        counts[i.state(b)] += 1
    counts[0] = i.geo.blocks - sum(counts)
    h = i.header
    return {"type": i.type, "size": i.virtual_size, "block_size": i.block_size,
            "lss": i.lss, "pss": i.pss, "blocks": i.geo.blocks,
            "chunks": i.geo.chunks, "states": counts,
            "bitmaps": sum(1 for c in range(i.geo.chunks) if i.sb_place(c))
            if i.has_parent else 0,
            "dirty": i.dirty, "log_entries": len(i.entries), "seq": h["seq"],
            "log_guid": guid_text(h["log_guid"]),
            "file_write_guid": guid_text(h["file_write_guid"]),
            "data_write_guid": guid_text(h["data_write_guid"]),
            "disk_id": guid_text(i.disk_id), "file_size": i.store.size,
            "locator": i.locator, "errors": len(i.errors())}


def usage():
    sys.stderr.write("""usage: vhdx COMMAND ...
  build SPEC OUT [SPEC OUT]...  write images; SPEC is a JSON file or JSON text; prints
                                each one's layer words with @ for the device
  check [--clean] [--quiet] FILE...
                                structure of each image, its log replayed in memory;
                                --clean: closed cleanly, too.  0 good, 2 not
  info FILE                     JSON
  blocks FILE [FIRST [LAST]]    a line per block: number, state, MiB, bits set;
                                and per bitmap block: c<chunk>, state, MiB
  states FILE [FIRST [LAST]]    the states in one line, a digit per block
  read [--hex] OFFSET LENGTH TOP [LAYER...] [raw:BASE]
  merge OUT TOP [LAYER...] [raw:BASE]
                                content as a sparse raw file
  compare RAW TOP [LAYER...] [raw:BASE]
                                is that the content?
  map TOP [LAYER...]            extents: offset, length, layer (or -), offset there
  table [--line] DEV...         layer words of images on devices, or raw:DEV; IMAGE=DEV
                                reads IMAGE but names DEV; --line: a whole table line
  set [--no-crc] FILE FIELD=VALUE...
  log FILE                      the entries that a replay would use
  replay FILE                   the same, for good: writes the pages, empties the log
  tag TAG FIRST COUNT           sectors as {"tag": ...} fills them, on stdout
  serve                         commands from stdin, a line each: a number and the
                                words, separated by US (037); the output of each lies
                                between a line with RS (036) and the number and one
                                with RS and the status.  Starting Python costs much
                                in an emulated guest
""")
    return 1


def load_spec(text):
    if text.lstrip()[:1] != "{":
        with open(text) as f:
            text = f.read()
    # JSON is Python but for three words, and to import json takes longer than all else
    # here.  What is built is what a test wrote.
    return eval(text, {"true": True, "false": False, "null": None})


def cmd_build(args):
    if len(args) % 2 or not args:
        return usage()
    for spec, out in zip(args[::2], args[1::2]):
        print(build(load_spec(spec), out))
    return 0


def cmd_check(args):
    clean = quiet = False
    while args and args[0].startswith("--"):
        clean |= args[0] == "--clean"
        quiet |= args[0] == "--quiet"
        args = args[1:]
    bad = False
    for path in args:
        try:
            image = Image(path)
        except VhdxError as err:
            print(err)
            bad = True
            continue
        for kind, offset, text in image.problems:
            if kind == "error" or not quiet:
                print("%s: %s at %#x: %s" % (path, kind, offset, text))
            bad |= kind == "error"
        if clean:
            for text in image.clean_problems():
                print("%s: not clean: %s" % (path, text))
                bad = True
    return 2 if bad else 0


def cmd_info(args):
    import json
    print(json.dumps(info(args[0]), indent=1))
    return 0


def _range(image, args):
    first = int(args[1]) if len(args) > 1 else 0
    last = int(args[2]) if len(args) > 2 else image.geo.blocks - 1
    return first, min(last, image.geo.blocks - 1)


def cmd_blocks(args):
    image = Image(args[0], strict=False)
    first, last = _range(image, args)
    for b in image.present():
        if first <= b <= last:
            bits = image.bits_set(b) if image.state(b) == PARTIAL else "-"
            print(b, image.state(b), image.place(b) // MIB, bits)
    for c in range(first // image.geo.ratio, last // image.geo.ratio + 1):
        entry = image.bat.get(image.geo.sb_index(c), 0) if image.has_parent else 0
        if entry:
            print("c%d %d %d" % (c, entry & 7, entry >> 20))
    return 0


def cmd_states(args):
    image = Image(args[0], strict=False)
    first, last = _range(image, args)
    print("".join([str(image.state(b)) for b in range(first, last + 1)]))
    return 0


def cmd_read(args):
    hexa = args[0] == "--hex"
    args = args[1:] if hexa else args
    data = Chain(*args[2:]).read(size(args[0]), size(args[1]))
    if hexa:
        print(data.hex())
    else:
        sys.stdout.buffer.write(data)
    return 0


def cmd_merge(args):
    Chain(*args[1:]).merge(args[0])
    return 0


def cmd_compare(args):
    bad = compare(args[0], Chain(*args[1:]))
    if bad:
        print("sector %d: found %r, want %r" % (bad[0] // 512, bad[1], bad[2]))
        return 2
    return 0


def cmd_map(args):
    chain = Chain(*args)
    stores = [layer.store for layer in chain.layers]
    last = None
    out = []
    for at, n, store, place in chain.map():
        layer = stores.index(store) if store else "-"
        if last and last[2] == layer and (layer == "-" or last[3] + last[1] == place):
            last[1] += n
            continue
        last = [at, n, layer, place]
        out.append(last)
    for line in out:
        print(*line)
    return 0


def cmd_table(args):
    line = args[0] == "--line"
    args = args[1:] if line else args
    words, length = [], 0
    for n, arg in enumerate(args):
        path, _, dev = arg.partition("=")
        text, sectors = layer_words(path, dev or None)
        length = length if n else sectors
        words.append(text)
    if line:
        print("0 %d vhdclone %d %s" % (length, len(words), " ".join(words)))
    else:
        print("\n".join(words))
    return 0


def cmd_set(args):
    fix = args[0] != "--no-crc"
    args = args if fix else args[1:]
    for assignment in args[1:]:
        # bits[1-2]=1: the first = that is not inside the name
        name, _, value = assignment.partition("=")
        set_field(args[0], name, value, fix)
    return 0


def cmd_log(args):
    image = Image(args[0], strict=False)
    for e in image.entries:
        print("entry %#x seq %d tail %#x length %#x ff %#x lf %#x" %
              (e.at, e.seq, e.tail, e.length, e.ff, e.lf))
        for at, page, n in e.order:
            print("  %s %#x %#x" % ("page" if page else "zero", at, n))
    return 0


def replay(path):
    """Replay the log for good.  Returns the number of pages written."""
    image = Image(path, strict=False)
    if not image.dirty:
        return 0
    h = image.header
    out = Store(path, writable=True)
    if out.regular and out.size < image.store.size:
        os.ftruncate(out.fd, image.store.size)
    for page, data in image.store.pages.items():
        out.write(page * PAGE, data)
    os.fsync(out.fd)
    fw = new_guid()
    for n in (1, 2):
        slot = (h["slot"] + n) % 2
        out.write(HEADER[slot], header_bytes(h["seq"] + n, fw, h["data_write_guid"],
                                             ZERO_GUID, h["log_length"],
                                             h["log_offset"]))
        os.fsync(out.fd)
    out.close()
    count = len(image.store.pages)
    image.close()
    return count


def cmd_replay(args):
    print("%d pages" % replay(args[0]))
    return 0


def cmd_tag(args):
    first, count = int(args[1]), int(args[2])
    while count:
        n = min(count, 4096)
        sys.stdout.buffer.write(tag_sectors(args[0], first, n))
        first += n
        count -= n
    return 0


def serve(function):
    """Commands from stdin, a line each, to function as main() would get them."""
    for line in sys.stdin:
        words = line.rstrip("\n").split("\x1f")
        # A caller that was killed in the middle has left its answer behind.
        print("\x1e" + words[0])
        try:
            status = function(["vhdx.py"] + words[1:])
        except Exception as err:                    # pylint: disable=broad-except
            print("vhdx.py: %s: %s" % (type(err).__name__, err))
            status = 1
        print("\x1e%d" % status)
        sys.stdout.flush()


def cmd_serve(_):
    serve(main)
    return 0


def main(argv):
    command = globals().get("cmd_" + (argv[1] if len(argv) > 1 else ""))
    if not command:
        return usage()
    try:
        return command(argv[2:])
    except IndexError:
        if len(argv) > 2:
            raise
        return usage()
    except (VhdxError, OSError) as err:
        print("vhdx.py: %s" % err, file=sys.stderr)
        sys.stderr.flush()
        return 2


if __name__ == "__main__":
    # The same as the command beside it, but compiled each time.
    sys.exit(main(sys.argv))
