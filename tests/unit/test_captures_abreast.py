"""Walking a file from many places at once finds what a walk from its beginning does, or hands over to it."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.captures.abreast import NOTHING, walk_abreast

LANE_BYTES = 512


def records(rng: np.random.Generator, order: str, count: int, noise: int) -> bytes:
    """Records whose bytes may look like headers of records themselves."""
    decoy = struct.pack(order + "4I", 1_700_000_000, 0, 40, 40)
    parts = []
    for number in range(count):
        body = rng.integers(0, 256, int(rng.choice([66, 78, 128]))).astype(np.uint8).tobytes()
        if rng.integers(0, 100) < noise:
            body = body[:20] + decoy + body[36:]
        parts.append(struct.pack(order + "4I", 1_700_000_000 + number // 9, number, len(body), 9000) + body)
    return b"".join(parts)


def one_by_one(data: bytes, order: str) -> list[int]:
    at, found = 0, []
    while at + 16 <= len(data) and data[at : at + 16] != NOTHING:
        found.append(at)
        at += 16 + struct.unpack_from(order + "8xI", data, at)[0]
    return [*found, at]


def walked(data: bytes, order: str) -> tuple[list[int], int]:
    positions, at = walk_abreast(np.frombuffer(data, np.uint8), order, 0, LANE_BYTES)
    return positions.tolist(), at


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("noise", [0, 10])
def test_most_of_a_file_is_walked_abreast(order: str, noise: int) -> None:
    data = records(np.random.default_rng(1), order, 2000, noise)
    positions, at = walked(data, order)
    assert [*positions, at] == one_by_one(data, order)[: len(positions) + 1]
    assert at > 0.8 * len(data) or noise


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 99), noise=st.sampled_from([0, 5, 100]), place=st.floats(0, 1),
    damage=st.sampled_from([b"", b"\xff" * 16, bytes(16), bytes(5000), bytes(range(200))]),
)  # fmt: skip
def test_damage_is_met_as_one_by_one(seed: int, noise: int, place: float, damage: bytes) -> None:
    data = records(np.random.default_rng(seed), "<", 500, noise)
    chain = one_by_one(data, "<")
    hit = chain[int(place * (len(chain) - 1))] if seed % 2 else int(place * len(data))
    data = data[:hit] + damage + data[hit + len(damage) * (seed % 3 == 0) :]
    positions, at = walked(data, "<")
    assert [*positions, at] == one_by_one(data, "<")[: len(positions) + 1]
