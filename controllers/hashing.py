"""The hash by which Open vSwitch picks a spine, so that a seed predicts the very paths an emulation takes.

It is the `multipath` action with fields `symmetric_l4` and algorithm `modulo_n` (ovs-actions(7); lib/flow.c and
lib/multipath.c of Open vSwitch): Bob Jenkins' lookup3 hash (http://burtleburtle.net/bob/c/lookup3.c) of 32 bytes in
which source and destination are combined by exclusive or, started from the basis, modulo the number of links.
"""

from __future__ import annotations

from ipaddress import ip_address

import numpy as np
from numpy.typing import NDArray

from emulator.topology import LeafSpine

_Ints = NDArray[np.intp]
_Words = NDArray[np.uint32]

_ETHERTYPE_IPV4, _PROTOCOL_TCP = 0x0800, 6
# Rotations of lookup3: of each step of its mix of (a, b, c), and of each step of its final mix.
_MIX, _FINAL = (4, 6, 8, 16, 19, 4), (14, 11, 25, 16, 4, 14, 24)


def live_links(fabric: LeafSpine) -> NDArray[np.bool_]:
    """Return an array that says of every link, at [leaf, spine], whether it is up."""
    live = np.ones((fabric.leaves, fabric.spines), dtype=bool)
    for link in fabric.failed:
        live[link] = False
    return live


def hashed_spines(
    fabric: LeafSpine, src_host: _Ints, dst_host: _Ints, src_port: _Ints, dst_port: _Ints, seed: int
) -> _Ints:
    """Return the spine of each TCP connection between two leaves: of those that are live, the one its hash picks."""
    live = live_links(fabric)
    usable = live[src_host // fabric.hosts_per_leaf] & live[dst_host // fabric.hosts_per_leaf]
    place = multipath_link(fabric, src_host, dst_host, src_port, dst_port, seed, usable.sum(axis=1))
    return np.argmax(np.cumsum(usable, axis=1, dtype=np.int8) > place[:, None], axis=1)


def multipath_link(
    fabric: LeafSpine,
    src_host: _Ints,
    dst_host: _Ints,
    src_port: _Ints,
    dst_port: _Ints,
    basis: int,
    links: _Ints,
) -> _Ints:
    """Return which of its `links` live links, counted from 0, each sender's leaf picks for a TCP connection."""
    mac = _octets([int(fabric.host_mac(host).replace(":", ""), 16) for host in range(fabric.hosts)], 6)
    gateway = _octets([int(fabric.gateway_mac(leaf).replace(":", ""), 16) for leaf in range(fabric.leaves)], 6)
    address = _octets([int(ip_address(fabric.host_ip(host))) for host in range(fabric.hosts)], 4)
    header = np.zeros((len(src_host), 32), dtype=np.uint8)
    header[:, 0:4] = address[src_host] ^ address[dst_host]
    header[:, 16:18] = _octets([_ETHERTYPE_IPV4], 2)
    header[:, 20:22] = (src_port ^ dst_port).astype(">u2").view(np.uint8).reshape(-1, 2)
    header[:, 22:28] = mac[src_host] ^ gateway[src_host // fabric.hosts_per_leaf]
    header[:, 28] = _PROTOCOL_TCP
    return (lookup3(header, basis) % np.maximum(links, 1)).astype(np.intp)


def lookup3(rows: NDArray[np.uint8], basis: int) -> _Words:
    """Hash every row of bytes by Jenkins' lookup3, started from `basis`.

    Bytes make words in the order of a little-endian machine.
    """
    length = rows.shape[1]
    blocks = -(-length // 12)
    padded = np.zeros((len(rows), blocks * 12), dtype=np.uint8)
    padded[:, :length] = rows
    words = padded.view("<u4").astype(np.uint32)
    state = [np.full(len(rows), (0xDEADBEEF + length + basis) & 0xFFFFFFFF, dtype=np.uint32) for _ in range(3)]
    for block in range(blocks):
        for place in range(3):
            state[place] = state[place] + words[:, 3 * block + place]
        if block < blocks - 1:
            _mix(state)
    for step, bits in enumerate(_FINAL):
        target, source = (2 + step) % 3, (1 + step) % 3
        state[target] = (state[target] ^ state[source]) - _rotate(state[source], bits)
    return state[2]


def _mix(state: list[_Words]) -> None:
    for step, bits in enumerate(_MIX):
        first, second, third = step % 3, (step + 1) % 3, (step + 2) % 3
        state[first] = (state[first] - state[third]) ^ _rotate(state[third], bits)
        state[third] = state[third] + state[second]


def _rotate(word: _Words, bits: int) -> _Words:
    return (word << np.uint32(bits)) | (word >> np.uint32(32 - bits))


def _octets(numbers: list[int], count: int) -> NDArray[np.uint8]:
    """Each number as `count` bytes in network order."""
    return np.array([list(number.to_bytes(count, "big")) for number in numbers], dtype=np.uint8).reshape(-1, count)
