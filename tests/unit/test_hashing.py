"""The model's hash is that of Open vSwitch: what `ovs-appctl ofproto/trace` (3.1) makes of the multipath action."""

from __future__ import annotations

import numpy as np
import pytest

from controllers.hashing import lookup3, multipath_link
from emulator.topology import LeafSpine

TRACED = [  # (leaves, spines, hosts a leaf), source and destination host, source port, basis, link
    ((6, 63, 3), 15, 14, 40949, 0, 1),
    ((14, 3, 4), 53, 24, 38361, 0, 2),
    ((2, 16, 9), 3, 10, 12004, 7, 4),
    ((2, 2, 18), 13, 27, 57569, 3, 0),
    ((2, 63, 8), 7, 11, 25130, 3, 33),
    ((9, 16, 10), 71, 82, 16553, 3, 14),
    ((7, 4, 4), 22, 16, 37663, 65535, 0),
    ((18, 3, 10), 127, 129, 35778, 7, 2),
    ((20, 2, 16), 206, 212, 53564, 65535, 0),
    ((7, 4, 18), 56, 84, 43320, 0, 2),
]


@pytest.mark.parametrize(("counts", "src", "dst", "port", "basis", "link"), TRACED)
def test_links_are_those_open_vswitch_picks(
    counts: tuple[int, int, int], src: int, dst: int, port: int, basis: int, link: int
) -> None:
    fabric = LeafSpine(*counts)
    source, destination, port_of, to = (np.array([number]) for number in (src, dst, port, 5000))
    picked = multipath_link(fabric, source, destination, port_of, to, basis, np.array([fabric.spines]))
    assert picked.tolist() == [link]


def test_the_hash_is_lookup3() -> None:
    # the first two of the self-test in http://burtleburtle.net/bob/c/lookup3.c that take a basis alone
    text = np.frombuffer(b"Four score and seven years ago", dtype=np.uint8)[None, :]
    assert [int(lookup3(text, basis)[0]) for basis in (0, 1)] == [0x17770551, 0xCD628161]
