"""Flow files of simulators that descend from HPCC's (alibaba-edu/High-Precision-Congestion-Control, flow.txt).

    2                                how many flows follow
    0 1 3 100 200000 2.0             source, destination, priority, port, bytes, start in seconds
    1 2 3 100 200000 2.5

As those simulators do, the stated count is read and no more. Priority and port are checked and not used: each flow is a
connection of its own.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from traffic.formats.format import Format, FormatError
from traffic.formats.text import Line, read_lines
from traffic.jobs.graph import MAX_TASKS
from traffic.schedule import Flow, Schedule

SAYS = "a flow file of HPCC's family"
MAX_RANKS = 65_536


def read_flows(path: Path) -> Schedule:
    """Return the flows of file `path` as a schedule, from the earliest start on. Raises FormatError."""
    lines = list(read_lines(path, SAYS, comment="#"))
    if not lines or len(lines[0].words) != 1:
        raise FormatError(f"{path}: its first line is not how many flows follow, such as 2")
    stated = lines[0].whole("how many flows follow", lines[0].words[0])
    if stated > MAX_TASKS:
        lines[0].fail(f"{stated:,} flows are more than the {MAX_TASKS:,} that are read")
    if not 1 <= stated <= len(lines) - 1:
        lines[0].fail(f"says {stated} flows and has {len(lines) - 1}: they must be as many, and 1 or more")
    pairs: Counter[tuple[int, int]] = Counter()
    sent: Counter[int] = Counter()
    flows = []
    for place, line in enumerate(lines[1 : 1 + stated]):
        src, dst, size, start_s = _flow(line)
        flows.append(Flow(place, src, dst, size, channel=pairs[src, dst], start_s=start_s))
        pairs[src, dst] += 1
        sent[src] += size
    ranks = 1 + max(max(flow.src, flow.dst) for flow in flows)
    return Schedule("hpcc", path.stem, ranks, max(pairs.values()), max(sent.values()), flows)


def _flow(line: Line) -> tuple[int, int, int, float]:
    if len(line.words) not in (5, 6):
        line.fail(f"a flow has 6 words, as in '0 1 3 100 200000 2.0': here are {len(line.words)}")
    src, dst = line.whole("source", line.words[0]), line.whole("destination", line.words[1])
    line.whole("priority", line.words[2])
    *port, size_word, start_word = line.words[3:]
    for word in port:
        line.whole("port", word)
    size = line.whole("bytes", size_word)
    if src == dst:
        line.fail(f"{src} sends to itself: source and destination must differ")
    if max(src, dst) >= MAX_RANKS:
        line.fail(f"rank {max(src, dst)} is too large: write 0 to {MAX_RANKS - 1}")
    if not size:
        line.fail("bytes is 0: write 1 or more")
    return src, dst, size, line.number_of("start", start_word)


FORMAT = Format(key="hpcc", suffix=".txt", says="a flow file of HPCC's family of simulators", read=read_flows)
