"""Records of which each tells where the next one is, walked from many places of a large file at once."""

from __future__ import annotations

import numpy as np

from experiments.captures.containers import MAX_CAPTURED_BYTES, Bytes, Positions, at_every_byte

RECORD_HEADER_BYTES = 16
NOTHING = bytes(RECORD_HEADER_BYTES)  # what a crash leaves: an empty packet has a time at least
LANE_BYTES = 1 << 15
MIN_LANES, MAX_LANES = 64, 1024  # with fewer, one after the other is faster; with more, memory would grow
SEARCHED_BYTES = 512  # from where a lane is to begin; records that hold whole packets are few, and walked one by one
DAY_S = 86_400


def walk_abreast(data: Bytes, order: str, at: int, lane_bytes: int = LANE_BYTES) -> tuple[Positions, int]:
    """Return the records of a pcap file from the one at `at` on, and where to go on one by one.

    The file is cut into lanes, each from what looks like a record to what looks like the next lane's. Whoever walks a
    lane that begins with a record and comes to the next lane's begin has proved it a record; from where one comes
    elsewhere, what was found is thrown away. So looks can cost time, and never a record.
    """
    captured = at_every_byte(data, order + "u4", skip=8)
    found: list[Positions] = []
    while (lanes := min((len(data) - at) // lane_bytes, MAX_LANES)) >= MIN_LANES:
        begins = _look(data, order, at, lanes, lane_bytes)
        if len(begins) <= lanes // 2:
            break
        here, goal = begins[:-1], begins[1:]
        steps = []
        while (walking := here < goal).any():
            steps.append(here)
            ahead = captured[np.minimum(here, len(captured) - 1)].astype(np.int64)
            here = np.where(walking, here + RECORD_HEADER_BYTES + ahead, here)
        missed = np.flatnonzero(here != goal)
        sure = int(missed[0]) + 1 if len(missed) else len(goal)
        trails = np.stack(steps, axis=1)[:sure]
        positions = trails[trails < goal[:sure, np.newaxis]]
        at = int(here[sure - 1])
        for empty in positions[captured[positions] == 0].tolist():
            if bytes(data[empty : empty + RECORD_HEADER_BYTES]) == NOTHING:
                return np.concatenate((*found, positions[positions < empty])), empty
        found.append(positions)
        if sure <= lanes // 2:
            break
    return np.concatenate((*found, np.empty(0, np.int64))), at


def _look(data: Bytes, order: str, at: int, lanes: int, lane_bytes: int) -> Positions:
    """Where lanes begin: the record at `at`, and what has the time and lengths of one near the begin of each lane."""
    fields = (at_every_byte(data, order + "u4", skip) for skip in (0, 4, 8, 12))
    second, fraction, captured, wire = fields
    searched = np.minimum(SEARCHED_BYTES, lane_bytes)
    near = at + lane_bytes * np.arange(1, lanes)[:, np.newaxis] + np.arange(searched)
    near = near[near < len(wire)]
    near = near[np.abs(second[near].astype(np.int64) - int(second[at])) < DAY_S]
    near = near[(fraction[near] < 1_000_000_000) & (captured[near] <= MAX_CAPTURED_BYTES)]
    near = near[captured[near] <= wire[near]]
    _, first = np.unique((near - at) // lane_bytes, return_index=True)
    return np.concatenate(([at], near[first]))
