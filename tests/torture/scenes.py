#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Good images for the test of bad ones: a directory for each chain of layers.

    scenes.py DIR NAME...
"""

import os
import sys

here = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(here), "lib"))
import vhdx                                                 # noqa: E402

MIB = 1 << 20
FOREIGN = [{"guid": "99999999-2222-3333-4444-555555555555", "mib": 10, "length": "1M"}]


def fill(tag):
    return {"fill": {"tag": tag}}


def whole(tag):
    return dict(fill(tag), state=6)


def part(tag, *runs):
    return dict(fill(tag), state=7, sectors=[list(r) for r in runs])


SCENES = {
    # All states, and a region of somebody else's
    "raw": [
        {"type": "differencing", "size": "8M", "block_size": "1M", "free": "6M",
         "garbage": True, "at": {"log": 1, "metadata": 2, "bat": 3}, "regions": FOREIGN,
         "blocks": {"0": part("P", [3, 4], [100, 1]), "1": whole("F"), "2": 2,
                    "3": {"state": 1}, "4": {"state": 3}, "7": part("P", [2000, 48])}},
        {"raw": 8 * MIB},
    ],
    # Three layers of different blocks; 4096-byte sectors
    "4k": [
        {"type": "differencing", "size": "9M", "block_size": "2M", "lss": 4096,
         "free": "5M", "order": "down", "tail_bits": True,
         "blocks": {"1": part("T", [0, 9], [400, 112]), "4": whole("T")}},
        {"type": "differencing", "size": "8M", "block_size": "1M", "lss": 4096,
         "stale_bits": True, "bitmaps": [0],
         "blocks": {"1": part("M", [5, 7]), "2": whole("M"), "6": 2}},
        {"type": "dynamic", "size": "6M", "block_size": "4M", "lss": 4096,
         "blocks": {"1": whole("B")}},
    ],
    # Nothing below; the last block is cut by the end
    "dynamic": [
        {"type": "dynamic", "size": 6 * MIB + 100 * 512, "block_size": "2M",
         "free": "4M", "blocks": {"0": whole("D"), "2": 2, "3": whole("D")}},
    ],
    "fixed": [
        {"type": "fixed", "size": "4M", "block_size": "1M", "free": "1M"},
    ],
    # Two chunks, and blocks on both sides of the border
    "chunks": [
        {"type": "differencing", "size": "5G", "block_size": "1M", "free": "3M",
         "bitmaps": [0, 1],
         "blocks": {"0": whole("C"), "4095": part("C", [7, 30]), "4096": part("C", [1, 1]),
                    "5119": whole("C")}},
        {"type": "dynamic", "size": "5G", "block_size": "32M", "blocks": {}},
    ],
    # A log with entries: some lose their GUID
    "dirty": [
        {"type": "differencing", "size": "4M", "block_size": "1M", "free": "2M",
         "blocks": {"0": part("P", [3, 4]), "1": whole("F")}, "dirty": {}},
        {"raw": 4 * MIB},
    ],
    # For races: blocks of which many share a page of the bitmap, and a small log
    "race": [
        {"type": "differencing", "size": "32M", "block_size": "1M", "capacity": "160M",
         "garbage": True, "blocks": {"3": part("R", [0, 100]), "5": whole("R")}},
        {"type": "differencing", "size": "32M", "block_size": "2M", "stale_bits": True,
         "blocks": {"0-9": part("M", [7, 1000], [2000, 96]), "12": whole("M"), "14": 2}},
        {"raw": 32 * MIB},
    ],
    # For pages: 32 of the bitmap, each with a block that is present in part; below: zeros
    "bits": [
        {"type": "differencing", "size": "512M", "block_size": "1M",
         "blocks": {str(16 * i): part("E", [0, 1], [2, 1]) for i in range(32)}},
        {"type": "dynamic", "size": "512M", "block_size": "32M", "blocks": {}},
    ],
    # and 8 chunks without any
    "fresh": [
        {"type": "differencing", "size": "32G", "block_size": "1M", "free": "160M",
         "blocks": {}},
        {"type": "dynamic", "size": "32G", "block_size": "32M", "blocks": {}},
    ],
    # For swap: nothing yet, and room for all of it
    "empty": [
        {"type": "differencing", "size": "48M", "block_size": "1M", "free": "50M",
         "blocks": {}},
        {"raw": 48 * MIB},
    ],
}


def main():
    for name in sys.argv[2:]:
        layers = SCENES[name]
        directory = os.path.join(sys.argv[1], name)
        os.makedirs(directory)
        for i in reversed(range(len(layers))):
            spec = dict(layers[i], seed=i + 1)
            if "raw" in spec:
                with open(os.path.join(directory, "%d.raw" % i), "wb") as f:
                    f.write(vhdx.tag_sectors("BASE", 0, spec["raw"] // 512))
                continue
            below = os.path.join(directory, "%d.vhdx" % (i + 1))
            if os.path.exists(below):
                spec["parent"] = below
            vhdx.build(spec, os.path.join(directory, "%d.vhdx" % i))


if __name__ == "__main__":
    main()
