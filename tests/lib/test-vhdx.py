#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Is vhdx.py right?  Against Windows' images, qemu-img and libvhdi; prints TAP.

usage: test-vhdx.py [IMAGES]

IMAGES is a folder with the xz/bz2-packed images (default: $VHDX_IMAGES).  What is
not installed is skipped.
"""

import bz2
import hashlib
import lzma
import os
import shutil
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import vhdx                                                         # noqa: E402

MIB = vhdx.MIB
TESTS = []
IMAGES = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("VHDX_IMAGES", "")


class Skip(Exception):
    pass


def test(func):
    TESTS.append(func)
    return func


def same(got, want, what=""):
    if got != want:
        raise AssertionError("%s: got %r, want %r" % (what, got, want))


def sha(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def digest(path):
    """As good as sha() to compare, and does not read the holes."""
    store = vhdx.Store(path)
    out = hashlib.sha256(b"%d" % store.size)
    for at, data in store.pieces(0, store.size):
        out.update(b"%d" % at + data)
    store.close()
    return out.hexdigest()


def unpack(name):
    out = name.rsplit(".", 1)[0]
    if not os.path.exists(out):
        path = os.path.join(IMAGES, name)
        if not IMAGES or not os.path.exists(path):
            raise Skip("no " + name)
        opener = lzma.open if name.endswith("xz") else bz2.open
        with opener(path) as src, open(out, "wb") as dst:
            shutil.copyfileobj(src, dst)
    return out


def merged(*chain, hashed=digest):
    vhdx.Chain(*chain).merge("merged.raw")
    return hashed("merged.raw")


@test
def checksum_vectors():
    same(vhdx.crc32c(b"123456789"), 0xE3069283)
    # Zeros take the short way, which must give what the long one gives.
    same(vhdx.crc32c(bytes(4096)), 0x98F94189)
    data = bytes(700) + b"x" + bytes(3000)
    c = 0xFFFFFFFF
    for byte in data:
        c = vhdx._CRC[(c ^ byte) & 255] ^ c >> 8
    same(vhdx.crc32c(data), c ^ 0xFFFFFFFF)


@test
def geometry_vectors():
    for size, block, lss, ratio, blocks, chunks, dyn, diff, mib in (
            ("4M", "2M", 512, 2048, 2, 1, 2, 2049, 1),
            ("4G", "2M", 512, 2048, 2048, 1, 2048, 2049, 1),
            ((4 << 30) + 512, "2M", 512, 2048, 2049, 2, 2050, 4098, 1),
            ("10G", "1M", 512, 4096, 10240, 3, 10242, 12291, 1),
            ("100G", "2M", 4096, 16384, 51200, 4, 51203, 65540, 1),
            ("2T", "2M", 512, 2048, 1048576, 512, 1049087, 1049088, 9),
            ("64T", "2M", 512, 2048, 33554432, 16384, 33570815, 33570816, 257),
            ("64T", "1M", 512, 4096, 67108864, 16384, 67125247, 67125248, 513)):
        for parent, entries in ((False, dyn), (True, diff)):
            g = vhdx.Geometry(vhdx.size(size), vhdx.size(block), lss, parent)
            same((g.ratio, g.blocks, g.chunks, g.entries, g.bat_bytes() // MIB),
                 (ratio, blocks, chunks, entries, mib), size)


@test
def windows_fixed():
    image = unpack("fat-parent.vhdx.xz")
    same(vhdx.Image(image).problems, [])
    same(vhdx.Image(image).clean_problems(), [])
    same(merged(image, hashed=sha),
         "2d1954fec68faefe81dd3687282a9b387bf8417f6d2cf0da3825fa1445b64cfb")


@test
def windows_differencing():
    base, image = unpack("fat-parent.vhdx.xz"), unpack("fat-differential.vhdx.xz")
    same(vhdx.Image(image).problems, [])
    same(vhdx.Image(image).locator["parent_linkage"],
         "{%s}" % vhdx.guid_text(vhdx.Image(base).header["data_write_guid"]))
    same(merged(image, base, hashed=sha),
         "a538161f34bc44c12bf9a542ce9218741c62728723ea18d0e4f6ea92e9f32e93")


@test
def windows_dynamic():
    image = unpack("iotest-dynamic-1G.vhdx.bz2")
    same(vhdx.Image(image).problems, [])
    same(merged(image, hashed=sha),
         "d3d112d8dab7fd360609f7d5a7b769904b7a2a7d7b6b8c535f65a23293c05478")


@test
def windows_log():
    """The ring of a closed image still holds the entries of its last session."""
    i = vhdx.Image(unpack("fat-differential.vhdx.xz"))
    ring = i.store.raw(i.header["log_offset"], i.header["log_length"])
    entries = vhdx.active_sequence(ring, ring[32:48])
    # The head's tail names the entry behind the empty first one.
    same([len(e.pages) for e in entries], [3])
    again = {}
    for e in entries:
        for at, page in e.pages:
            again[at] = page
            data = ring[e.at:e.at + e.length]
            same(vhdx.log_entry(e.guid, e.seq, e.tail, e.pages, e.zeros, e.ff, e.lf),
                 data, "entry built again")
    for at, page in again.items():
        same(i.store.raw(at, 4096), page, "page %#x" % at)


SHAPES = [
    {"size": "20M", "block_size": "1M"},
    {"size": "33M", "block_size": "2M", "order": "down", "gap": 1},
    {"size": "100M", "block_size": "32M", "order": "shuffle"},
    {"size": "17M", "block_size": "2M", "layout": ["data", "bat", "metadata", "log"]},
    {"size": "5G", "block_size": "2M", "log_size": "3M"},
]


def content(geo, seed, states):
    """Pseudo-random blocks; of large disks only a few on both sides of each chunk."""
    rng = vhdx._Rng(seed)
    some = set(range(min(geo.blocks, 24)))
    for c in range(1, geo.chunks):
        some |= {c * geo.ratio - 1, c * geo.ratio}
    some.add(geo.blocks - 1)
    blocks = {}
    for b in some:
        state = states[rng.next() % len(states)]
        block = {"state": state, "fill": {"tag": "L%d" % (seed % 1000), "every": 7}}
        if state == 7:
            n = geo.block_sectors(b)
            runs, at = [], 0
            while at < n and len(runs) < 40:
                at += rng.next() % (n // 16)
                length = 1 + rng.next() % (n // 8 if rng.next() % 2 else 5)
                if at < n:
                    runs.append([at, min(length, n - at)])
                at += length + 1
            block["sectors"] = runs
            block["fill"].pop("every")
        blocks[str(b)] = block
    return blocks


@test
def built_against_qemu():
    if not shutil.which("qemu-img"):
        raise Skip("no qemu-img")
    for n, shape in enumerate(SHAPES):
        for kind in ("dynamic", "fixed"):
            if kind == "fixed" and vhdx.size(shape["size"]) > 200 * MIB:
                continue
            spec = dict(shape, type=kind, seed=n + 1, garbage=True)
            geo = vhdx.Geometry(vhdx.size(spec["size"]), vhdx.size(spec["block_size"]),
                                512, False)
            # qemu takes states 1 and 3 as zeros as well, and stores 0 and 2.
            spec["blocks"] = content(geo, 100 + n, [6] if kind == "fixed"
                                     else [0, 1, 2, 3, 6, 6])
            vhdx.build(spec, "q.vhdx")
            same(vhdx.Image("q.vhdx").errors(), [], "check")
            subprocess.run(["qemu-img", "check", "-q", "q.vhdx"], check=True)
            subprocess.run(["qemu-img", "convert", "-O", "raw", "q.vhdx", "q.raw"],
                           check=True)
            same(merged("q.vhdx"), digest("q.raw"), "%s %s" % (kind, shape))


@test
def qemu_made():
    if not shutil.which("qemu-img"):
        raise Skip("no qemu-img")
    for option in ("block_size=1M", "block_size=2M", "block_size=32M,log_size=4M",
                   "subformat=fixed,block_size=8M"):
        subprocess.run(["qemu-img", "create", "-q", "-f", "vhdx", "-o", option,
                        "m.vhdx", "70M"], check=True)
        subprocess.run(["qemu-io", "-c", "write -P 7 1M 3M", "-c",
                        "write -P 9 69M 512k", "-c", "write -P 3 33553920 1024",
                        "m.vhdx"], check=True, stdout=subprocess.DEVNULL)
        same(vhdx.Image("m.vhdx").errors(), [], option)
        subprocess.run(["qemu-img", "convert", "-O", "raw", "m.vhdx", "q.raw"],
                       check=True)
        same(merged("m.vhdx"), digest("q.raw"), option)


@test
def dirty_log_against_qemu():
    if not shutil.which("qemu-img"):
        raise Skip("no qemu-img")
    spec = {"type": "dynamic", "size": "40M", "block_size": "1M", "seed": 5,
            "default": {"state": 6, "fill": {"tag": "DLOG"}}}
    vhdx.build(spec, "clean.vhdx")
    for n, dirty in enumerate(({"per_entry": 1}, {"per_entry": 1, "start": 1044480},
                               {"stale": True}, {"torn": True, "start": 1040384})):
        vhdx.build(dict(spec, dirty=dirty), "dirty.vhdx")
        same(vhdx.Image("dirty.vhdx").errors(), [])
        same(merged("dirty.vhdx"), merged("clean.vhdx"), "in memory %d" % n)
        shutil.copy("dirty.vhdx", "mine.vhdx")
        same(vhdx.replay("mine.vhdx") > 0, True)
        same(vhdx.Image("mine.vhdx").clean_problems(), [])
        same(merged("mine.vhdx"), merged("clean.vhdx"), "replayed")
        subprocess.run(["qemu-img", "check", "-q", "-r", "all", "dirty.vhdx"],
                       check=True)
        same(merged("dirty.vhdx"), merged("clean.vhdx"), "qemu replayed %d" % n)


def vhdi_sha(paths):
    import pyvhdi
    files = []
    for path in paths:
        f = pyvhdi.file()
        f.open(path)
        files.append(f)
    for child, parent in zip(files, files[1:]):
        child.set_parent(parent)
    digest = hashlib.sha256()
    top, left = files[0], files[0].get_media_size()
    while left:
        data = top.read_buffer(min(left, MIB))
        digest.update(data)
        left -= len(data)
    for f in files:
        f.close()
    return digest.hexdigest()


@test
def chains_against_libvhdi():
    try:
        import pyvhdi                                       # noqa: F401
    except ImportError:
        raise Skip("no pyvhdi") from None
    for n, (block, child_block) in enumerate((("1M", "1M"), ("2M", "1M"), ("2M", "32M"),
                                              ("32M", "2M"))):
        # libvhdi returns garbage for state 0 without a parent, so the bottom is fixed.
        # In a child it looks at the bits of every block, so there are no stale ones
        # here; without a bitmap block it takes what lies at the file's start for one;
        # and it shows the parent for states 1, 2 and 3.
        size = "67M"
        chain = ["l2.vhdx", "l1.vhdx", "l0.vhdx"]
        spec = {"type": "fixed", "size": size, "block_size": block, "seed": n,
                "default": {"state": 6, "fill": {"tag": "BASE"}}}
        vhdx.build(spec, "l0.vhdx")
        for depth, name in ((1, "l1.vhdx"), (2, "l2.vhdx")):
            spec = {"size": size, "block_size": child_block, "seed": 10 * n + depth,
                    "parent": "l%d.vhdx" % (depth - 1), "bitmaps": [0],
                    "garbage": True, "tail_bits": True, "order": "shuffle"}
            geo = vhdx.Geometry(vhdx.size(size), vhdx.size(child_block), 512, True)
            spec["blocks"] = content(geo, 50 * n + depth, [0, 0, 6, 7, 7])
            vhdx.build(spec, name)
            same(vhdx.Image(name).errors(), [], name)
        # Every layer is held in a list: libvhdi keeps no reference to a parent.
        same(merged(*chain, hashed=sha), vhdi_sha(chain), "block sizes %s, %s" %
             (block, child_block))


@test
def sectors_4096():
    """No other reader here does 4 KiB sectors in chains: against plain arithmetic."""
    vhdx.build({"size": "40M", "block_size": "1M", "lss": 4096, "garbage": True,
                "blocks": {"3": {"state": 7, "fill": {"tag": "KKKK"},
                                 "sectors": [[1, 2], [200, 56]]},
                           "39": {"state": 7, "fill": {"tag": "KKKK"},
                                  "sectors": [[255, 1]]}}}, "k.vhdx")
    with open("k.raw", "wb") as f:
        f.write(vhdx.tag_sectors("BASE", 0, 40 * 2048))
    want = bytearray(vhdx.tag_sectors("BASE", 0, 40 * 2048))
    for block, first, count in ((3, 1, 2), (3, 200, 56), (39, 255, 1)):
        at = block * MIB + first * 4096
        want[at:at + count * 4096] = vhdx.tag_sectors("KKKK", at // 512, count * 8)
    same(vhdx.Chain("k.vhdx", "k.raw").read(0, 40 * MIB), bytes(want))
    image = vhdx.Image("k.vhdx")
    raw = image.store.raw(image.sb_place(0) + 3 * 32, 32)
    same(raw, (0b110 | ((1 << 56) - 1) << 200).to_bytes(32, "little"))


@test
def chunk_borders():
    """Bits and BAT slots on both sides of 4 GiB."""
    s = 1 << 23
    vhdx.build({"size": "9G", "block_size": "2M",
                "blocks": {"2047": {"state": 7, "fill": {"tag": "A"},
                                    "sectors": [[4095, 1]]},
                           "2048": {"state": 7, "fill": {"tag": "B"},
                                    "sectors": [[0, 1]]}}}, "c.vhdx")
    image = vhdx.Image("c.vhdx")
    same(sorted(image.bat), [2047, 2048, 2049, 4097])
    with open("c.raw", "wb") as f:
        f.truncate(9 << 30)
    same(vhdx.Chain("c.vhdx", "c.raw").read((s - 2) * 512, 2048),
         bytes(512) + vhdx.tag_sectors("A", s - 1, 1) + vhdx.tag_sectors("B", s, 1) +
         bytes(512))


GOOD = {"size": "12M", "block_size": "1M", "free": "4M", "seed": 3,
        "blocks": {"0": {"state": 7, "sectors": [[3, 4]], "fill": {"tag": "P"}},
                   "1": 6, "2": 2, "5": 6, "11": 6}}

# field, value, and what the checker must say (None: refuses to parse)
BROKEN = [
    ("identifier", "vhdxfilf", "file identifier"),
    ("headers.signature", "haed", "no valid header"),
    ("headers.version", 2, "header version"),
    ("headers.log_length", 4096, "log length"),
    ("headers.log_offset", MIB + 4096, "log offset"),
    ("headers.log_offset", 0, "log offset"),
    ("headers.log_offset", 1 << 40, "behind the end"),
    ("headers.log_guid", "11111111-2222-3333-4444-555555555555", "no valid sequence"),
    ("regions.signature", "rege", "no valid region table"),
    ("region1.signature", "rege", "region table 1"),
    ("region2.bat.offset", "+1M", "region tables differ"),
    ("regions.count", 3000, "no valid region table"),
    ("regions.bat.offset", MIB + 512, "offset"),
    ("regions.bat.offset", 0, "offset"),
    ("regions.bat.offset", MIB, "overlaps"),
    ("regions.bat.offset", 1 << 45, "behind the end"),
    ("regions.bat.length", 0, "BAT of 0 bytes"),
    ("regions.bat.guid", "11111111-2222-3333-4444-555555555555",
     "unknown required region"),
    ("regions.metadata.guid", "2DC27766-F623-4200-9D64-115E9BFD4A08", "no metadata"),
    ("table.signature", "metadatA", "metadata table"),
    ("table.count", 3000, "metadata entries"),
    ("table.count", 4, "is missing"),
    ("item.lss.id", "11111111-2222-3333-4444-555555555555", "unknown required"),
    ("item.lss.length", 8, "has length"),
    ("item.lss.offset", 65536, "sector sizes"),
    ("item.disk_id.offset", 65536 + 16, "overlap"),
    ("item.lss.offset", 4096, "is missing"),
    ("block_size", 3 * MIB, "block size"),
    ("block_size", 512 * MIB, "block size"),
    ("virtual_size", 12 * MIB + 100, "virtual size"),
    ("virtual_size", 1 << 47, "virtual size"),
    ("lss", 1024, "sector sizes"),
    ("flags", 0, "parent"),
    ("block[1].state", 4, "reserved state"),
    ("block[1].state", 5, "reserved state"),
    ("block[1]", 6 | 1 << 45, "behind the end"),
    ("block[1]", 6, "without place"),
    ("block[1]", "+8", "reserved bits"),
    ("block[1]", "+4096", "reserved bits"),
    ("block[2]", "+1M", "state 2 with a place"),
    ("block[3]", "+1M", "state 0 with a place"),
    ("block[5].mib", 1, "overlaps"),
    ("block[5].mib", 3, "overlaps"),
    ("chunk[0].state", 0, "without a bitmap"),
    ("chunk[0].state", 7, "state 7"),
    ("chunk[0].mib", 1, "overlaps"),
]


@test
def checker_sees_each_fault():
    vhdx.build(GOOD, "good.vhdx")
    same(vhdx.Image("good.vhdx").problems, [])
    for field, value, want in BROKEN:
        shutil.copy("good.vhdx", "bad.vhdx")
        vhdx.set_field("bad.vhdx", field, value)
        try:
            found = "; ".join(p[2] for p in vhdx.Image("bad.vhdx").errors())
        except vhdx.VhdxError as err:
            found = str(err)
        assert want in found, "%s=%s: %s" % (field, value, found or "nothing found")
    for at, length in ((65536, 2), (192 << 10, 2)):
        # One bit anywhere in a header or table makes that copy invalid.
        for bit in (40, 79 * 8 + 3, 4095 * 8):
            shutil.copy("good.vhdx", "bad.vhdx")
            with open("bad.vhdx", "r+b") as f:
                f.seek(at + bit // 8)
                byte = f.read(1)[0] ^ 1 << bit % 8
                f.seek(at + bit // 8)
                f.write(bytes([byte]))
            assert vhdx.Image("bad.vhdx").problems, "bit %d at %#x" % (bit, at)


@test
def checker_sees_doubled_place():
    vhdx.build(GOOD, "bad.vhdx")
    i = vhdx.Image("bad.vhdx")
    vhdx.set_field("bad.vhdx", "block[5].mib", i.place(1) // MIB)
    assert "overlaps" in vhdx.Image("bad.vhdx").errors()[0][2]


@test
def log_sequences():
    """Validity rules of the log, each broken once."""
    g = vhdx.new_guid()
    page = vhdx.JUNK[:4096]

    def ring(*entries, length=MIB):
        raw = bytearray(length)
        for at, data in entries:
            for i in range(0, len(data), 4096):
                p = (at + i) % length
                raw[p:p + 4096] = data[i:i + 4096]
        return bytes(raw)

    def heads(raw):
        return [e.seq for e in vhdx.active_sequence(raw, g)]

    e = vhdx.log_entry
    one = e(g, 7, 0)
    two = e(g, 8, 0, [(3 * MIB, page)])
    three = e(g, 9, 4096, [(3 * MIB, page), (3 * MIB + 4096, page)])
    same(heads(ring((0, one))), [7])
    same(heads(ring((0, one), (4096, two))), [7, 8])
    same(heads(ring((0, one), (4096, two), (12288, three))), [8, 9])
    # The head's tail outside the chain: that chain does not count.
    same(heads(ring((4096, e(g, 8, 0)))), [])
    # A gap in the numbers ends a chain; the newer one wins.
    same(heads(ring((0, one), (4096, e(g, 20, 4096)))), [20])
    # Wrapped around the ring's end.
    at = MIB - 8192
    same(heads(ring((at, e(g, 7, at)), (MIB - 4096, e(g, 8, at, [(3 * MIB, page)])))),
         [7, 8])
    for cut in (4, 12, 16, 40, 80, 5000, 8191):
        raw = bytearray(ring((0, one), (4096, two)))
        raw[4096 + cut] ^= 1
        same(heads(bytes(raw)), [7], "bit flipped at %d" % cut)
    zero = e(g, 8, 0, [], [(5 * MIB, MIB)])
    same(vhdx.active_sequence(ring((0, one), (4096, zero)), g)[1].zeros,
         [(5 * MIB, MIB)])
    same(struct.unpack_from("<I", zero, 24)[0], 1)


@test
def layouts_do_not_matter():
    spec = {"type": "dynamic", "size": "9M", "block_size": "1M", "seed": 1,
            "blocks": {"1-7": {"state": 6, "fill": {"tag": "X"}}}}
    vhdx.build(spec, "a.vhdx")
    want = merged("a.vhdx")
    for extra in ({"layout": ["bat", "data", "log", "metadata"]}, {"order": "down"},
                  {"order": "shuffle", "gap": 3, "garbage": True},
                  {"at": {"log": 40, "bat": 20}, "free": "9M"},
                  {"log_size": "16M"}):
        vhdx.build(dict(spec, **extra), "b.vhdx")
        same(vhdx.Image("b.vhdx").errors(), [], str(extra))
        same(merged("b.vhdx"), want, str(extra))


@test
def stale_bits_do_not_matter():
    """Bits of blocks that are not partial mean nothing."""
    spec = {"size": "8M", "block_size": "1M", "garbage": True, "seed": 1,
            "blocks": {"1": 2, "2": {"state": 6, "fill": {"tag": "F"}}, "4": 1, "5": 3,
                       "3": {"state": 7, "sectors": [[5, 9]], "fill": {"tag": "P"}}}}
    with open("s.raw", "wb") as f:
        f.write(vhdx.tag_sectors("BASE", 0, 16384))
    want = bytearray(vhdx.tag_sectors("BASE", 0, 16384))
    for b in (1, 4, 5):
        want[b * MIB:(b + 1) * MIB] = bytes(MIB)
    want[2 * MIB:3 * MIB] = vhdx.tag_sectors("F", 4096, 2048)
    want[3 * MIB + 2560:3 * MIB + 7168] = vhdx.tag_sectors("P", 6149, 9)
    for stale in (False, True):
        vhdx.build(dict(spec, stale_bits=stale), "s.vhdx")
        same(vhdx.Image("s.vhdx").errors(), [])
        same(vhdx.Chain("s.vhdx", "s.raw").read(0, 8 * MIB) == bytes(want), True)


@test
def sparse_64_tib():
    """Fast and small, or the tests in the guest would not be."""
    vhdx.build({"size": "64T", "block_size": "256M",
                "blocks": {"262143": {"state": 7, "sectors": [[524287, 1]],
                                      "fill": {"tag": "END"}}}}, "h.vhdx")
    with open("h.raw", "wb") as f:
        f.truncate(1 << 20)
    chain = vhdx.Chain("h.vhdx", "h.raw", strict=True)
    same(chain.layers[0].errors(), [])
    same(chain.read((64 << 40) - 512, 512),
         vhdx.tag_sectors("END", (64 << 31) - 1, 1))


def main():
    print("TAP version 13\n1..%d" % len(TESTS))
    failed = 0
    fast = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=fast) as where:
        os.chdir(where)
        for n, func in enumerate(TESTS):
            try:
                func()
                print("ok %d %s" % (n + 1, func.__name__))
            except Skip as err:
                print("ok %d %s # SKIP %s" % (n + 1, func.__name__, err))
            except Exception as err:                # pylint: disable=broad-except
                failed += 1
                print("not ok %d %s" % (n + 1, func.__name__))
                print("# %s: %s" % (type(err).__name__, err))
            sys.stdout.flush()
        os.chdir("/")
    return 1 if failed else 0


sys.exit(main())
