"""htsim connection matrices: what is read, and what is refused with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.topology import LeafSpine
from experiments.spec.traffic import read_entry
from traffic.collectives import build_schedule
from traffic.formats.format import FormatError
from traffic.formats.htsim import load_matrix
from traffic.schedule import Flow, Schedule

DATA = Path(__file__).parent / "data"
quick = settings(max_examples=100, deadline=None, derandomize=True)

HEADER = "Nodes 4\nConnections 2\n"
GOOD = HEADER + "0->1 id 1 start 0 size 100\n1->2 id 2 start 0 size 100\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "some.cm"
    path.write_text(text, encoding="utf-8")
    return path


def format_matrix(schedule: Schedule) -> str:
    """The schedule as a matrix: a trigger for every flow that waits, a barrier if for several.

    A connection has two fields to fire triggers with, so no flow may be waited for by more than two.
    """
    waiting = [flow for flow in schedule.flows if flow.waits_for]
    lines = [f"Nodes {schedule.ranks}", f"Connections {len(schedule.flows)}", f"Triggers {len(waiting)}"]
    for flow in schedule.flows:
        start = f"trigger {flow.id}" if flow.waits_for else f"start {round(flow.start_s * 1e12)}"
        followers = [later.id for later in waiting if flow.id in later.waits_for]
        fires = zip(("send_done_trigger", "recv_done_trigger"), followers, strict=False)
        ends = "".join(f" {key} {follower}" for key, follower in fires)
        lines.append(f"{flow.src}->{flow.dst} id {flow.id + 1} {start} size {flow.size_bytes}{ends}")
    for flow in waiting:
        count = len(flow.waits_for)
        lines.append(f"trigger id {flow.id} " + ("oneshot" if count == 1 else f"barrier count {count}"))
    return "\n".join(lines) + "\n"


@st.composite
def matrices(draw: st.DrawFn) -> Schedule:
    """Any flows, each waited for by at most two."""
    ranks = draw(st.integers(2, 6))
    free: dict[int, int] = {}
    pairs: dict[tuple[int, int], int] = {}
    flows: list[Flow] = []
    for flow_id in range(draw(st.integers(1, 15))):
        src = draw(st.integers(0, ranks - 1))
        dst = (src + draw(st.integers(1, ranks - 1))) % ranks
        candidates = [earlier for earlier, left in free.items() if left]
        waits_for = draw(st.sets(st.sampled_from(candidates), max_size=3)) if candidates else set()
        for earlier in waits_for:
            free[earlier] -= 1
        free[flow_id] = 2
        channel = pairs[src, dst] = pairs.get((src, dst), -1) + 1
        flows.append(
            Flow(
                id=flow_id,
                src=src,
                dst=dst,
                size_bytes=draw(st.integers(1, 10**10)),
                step=1 + max((flows[earlier].step for earlier in waits_for), default=-1),
                channel=channel,
                waits_for=tuple(sorted(waits_for)),
                start_s=0.0 if waits_for else draw(st.integers(0, 10**15)) / 10**12,
            )
        )
    sent = [sum(flow.size_bytes for flow in flows if flow.src == rank) for rank in range(ranks)]
    return Schedule("matrix", "some", ranks, max(pairs.values()) + 1, max(sent), flows)


@quick
@given(schedule=matrices())
def test_a_schedule_written_as_a_matrix_is_read_back_as_it_was(
    schedule: Schedule, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert load_matrix(write(tmp_path_factory.getbasetemp(), format_matrix(schedule))) == schedule


def test_a_ring_survives_the_way_through_a_matrix(tmp_path: Path) -> None:
    ring = build_schedule("allreduce", "ring", ranks=5, size_bytes=5000)
    read = load_matrix(write(tmp_path, format_matrix(ring)))
    assert [(f.src, f.dst, f.size_bytes, f.waits_for, f.step) for f in read.flows] == [
        (f.src, f.dst, f.size_bytes, f.waits_for, f.step) for f in ring.flows
    ]


def test_a_permutation_with_comments_blank_lines_and_fields_in_any_order() -> None:
    schedule = load_matrix(DATA / "shift_4n.cm")
    assert (schedule.collective, schedule.algorithm, schedule.ranks) == ("matrix", "shift_4n", 4)
    assert (schedule.size_bytes, schedule.channels, schedule.busbw_factor) == (1000, 1, 1.0)
    assert [(flow.src, flow.dst) for flow in schedule.flows] == [(0, 1), (1, 2), (2, 3), (3, 0)]
    assert [flow.start_s for flow in schedule.flows] == [0, 0, 2e-6, 0]
    assert {flow.size_bytes for flow in schedule.flows} == {1000}


def test_oneshot_chains_in_a_file_written_on_windows() -> None:
    schedule = load_matrix(DATA / "chains_3n_windows.cm")
    assert [flow.waits_for for flow in schedule.flows] == [(), (0,), (1,), (), (3,), (4,)]
    assert [flow.step for flow in schedule.flows] == [0, 1, 2, 0, 1, 2]
    assert [flow.channel for flow in schedule.flows] == [0, 0, 0, 1, 1, 1]  # a second connection of the same pair
    assert schedule.size_bytes == 8192


def test_barriers_start_all_at_once_and_multishots_one_by_one() -> None:
    schedule = load_matrix(DATA / "barrier_and_multishot.cm")
    ends = {(flow.src, flow.dst, flow.size_bytes): flow for flow in schedule.flows}
    names = {flow.id: (flow.src, flow.dst) for flow in schedule.flows}
    assert [names[flow.id] for flow in schedule.flows[:3]] == [(0, 1), (1, 2), (2, 3)]  # what the barrier waits for
    for end in ((0, 3, 500), (3, 0, 500)):
        assert [names[earlier] for earlier in ends[end].waits_for] == [(0, 1), (1, 2), (2, 3)]
    last = [flow for flow in schedule.flows if flow.size_bytes == 10]
    assert [(flow.dst, [names[earlier] for earlier in flow.waits_for]) for flow in last] == [
        (0, []),
        (1, []),
        (3, [(2, 0)]),
        (0, [(2, 1)]),
    ]


def test_tabs_a_byte_order_mark_and_a_missing_last_newline(tmp_path: Path) -> None:
    assert load_matrix(write(tmp_path, "\ufeff" + GOOD.replace(" ", "\t").rstrip("\n"))).flows == [
        Flow(0, 0, 1, 100),
        Flow(1, 1, 2, 100),
    ]


def test_no_ids_are_needed(tmp_path: Path) -> None:
    read = load_matrix(write(tmp_path, HEADER + "0->3 start 0 size 7\n3->0 start 0 size 9\n"))
    assert [(flow.src, flow.dst, flow.size_bytes) for flow in read.flows] == [(0, 3, 7), (3, 0, 9)]


def test_a_matrix_numbered_for_a_larger_cluster_is_of_those_ranks_that_have_anything_to_do(tmp_path: Path) -> None:
    path = write(tmp_path, "Nodes 1024\nConnections 2\n700->9 start 0 size 7\n9->1023 start 0 size 9\n")
    schedule = load_matrix(path, nodes="active")
    assert schedule.ranks == 3 and [(flow.src, flow.dst) for flow in schedule.flows] == [(1, 0), (0, 2)]
    assert load_matrix(path).ranks == 1024
    entry = read_entry({"matrix": str(path), "nodes": "active"})
    assert entry.schedule(LeafSpine(1, 1, 4), "packed", 1).flows == schedule.flows


def test_messages_of_one_id_share_a_connection_and_fire_triggers_each(tmp_path: Path) -> None:
    text = (
        "Nodes 4\nConnections 4\nTriggers 1\n0->1 id 1 msg 1 start 0 size 7 send_done_trigger 1\n"
        "0->1 id 1 msg start 0 size 8\n0->1 id 2 msg 1 start 0 size 9\n0->1 id 1 msg 3 trigger 1 size 10\n"
        "trigger id 1 oneshot\n"
    )
    flows = load_matrix(write(tmp_path, text)).flows
    assert [(flow.size_bytes, flow.channel) for flow in flows] == [(7, 0), (8, 0), (9, 1), (10, 0)]
    assert [flow.waits_for for flow in flows] == [(), (), (), (0,)]


TWO_WITH_TRIGGER = "Nodes 4\nConnections 2\nTriggers 1\n0->1 id 1 start 0 size 1 {}\n1->2 id 2 {} size 1\n{}\n"


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (GOOD.replace("1->2", "1->4"), 4, "rank 4 is out of range: with Nodes 4, ranks are 0 to 3"),
        (GOOD.replace("1->2", "2->2"), 4, "2->2 sends to itself"),
        (GOOD.replace("1->2", "1->x"), 4, "'1->x' is no connection"),
        (GOOD.replace("1->2", "-1->2"), 4, "'-1->2' is no connection"),
        (GOOD.replace("id 2 start 0 size 100\n", "id 2 start 0 size\n"), 4, "'size' has no value"),
        (GOOD.replace("id 2 start 0 size 100\n", "id 2 start 0\n"), 4, "no size"),
        (GOOD.replace("id 2 start 0 size 100\n", "id 2 size 100\n"), 4, "nothing starts it"),
        (GOOD.replace("id 2", "id 1"), 4, "id 1 is already taken by line 3"),
        (GOOD.replace("id 2", "id 1 msg 2"), 4, "id 1 is already taken by line 3"),
        (GOOD.replace("id 1", "id 1 msg").replace("id 2", "id 1 msg"), 4, "messages of id 1 go 0->1 (line 3)"),
        (GOOD.replace("id 2", "msg 2"), 4, "a message without an id: add 'id N'"),
        (GOOD.replace("id 2", "id 2 msg x"), 4, "msg must be a whole number, 0 or more, not 'x'"),
        (GOOD.replace("id 2", "id two"), 4, "id must be a whole number, 0 or more, not 'two'"),
        (GOOD.replace("id 2 start", "id 2 begin"), 4, "unknown keyword 'begin': use id, start, size"),
        (GOOD.replace("id 2 start 0", "start 0 start 1"), 4, "'start' is given twice"),
        (GOOD.replace("id 2 start 0", "id 2 start -5"), 4, "picoseconds, 0 or more, not '-5'"),
        (GOOD.replace("id 2 start 0", "id 2 start 1e999"), 4, "picoseconds, 0 or more, not '1e999'"),
        (GOOD.replace("id 2 start 0", "id 2 start 0 trigger 1"), 4, "both a start time and a trigger"),
        (GOOD.replace("2 start 0 size 100", "2 start 0 size 0"), 4, "size 0 never ends"),
        (GOOD.replace("2 start 0 size 100", "2 start 0 size -3"), 4, "size must be a whole number"),
        (GOOD.replace("2 start 0 size 100", "2 start 0 size " + "9" * 5000), 4, "size must be a whole number"),
        (GOOD.replace("Connections 2", "Connections 3"), 2, "says Connections 3, but the file has 2"),
        (GOOD.replace("Connections 2", "Connections 2\nTriggers 1"), 3, "says Triggers 1, but the file has 0"),
        (GOOD.replace("Connections 2", "Connections two"), 2, "Connections must be a whole number"),
        (GOOD.replace("Connections 2", "Connections"), 2, "'Connections' takes one number"),
        (GOOD.replace("Connections 2", "Connections 2\nNodes 4"), 3, "a second 'Nodes' line; the first is line 1"),
        (GOOD.replace("Connections 2", "Conections 2"), 2, "unknown keyword 'Conections'"),
        (GOOD.replace("Connections 2", "Connections 2\nFailures 1"), 3, "link failures are not traffic"),
        (GOOD + "failure switch_type TOR\n", 5, "link failures are not traffic"),
        ("0->1 start 0 size 1\n" + GOOD, 1, "before the line 'Nodes N'"),
        (GOOD.replace("Nodes 4\n", "").replace("0->1", "# 0->1").replace("1->2", "# 1->2"), None, "no line 'Nodes N'"),
        (GOOD.replace("Connections 2\n", ""), None, "no line 'Connections 2'"),
        ("Nodes 4\nConnections 0\n", None, "has no connection"),
        ("", None, "no line 'Nodes N'"),
        (GOOD + "trigger id 1 oneshot\n", None, "no line 'Triggers 1'"),
        (TWO_WITH_TRIGGER.format("", "trigger 1", "trigger id 1 oneshot"), 6, "trigger 1 never fires"),
        (TWO_WITH_TRIGGER.format("send_done_trigger 1", "trigger 2", "trigger id 1 oneshot"), 5, "2 is not defined"),
        (TWO_WITH_TRIGGER.format("send_done_trigger 1", "trigger 1", "trigger id 1"), 6, "oneshot, multishot, barrier"),
        (TWO_WITH_TRIGGER.format("send_done_trigger 1", "trigger 1", "trigger oneshot"), 6, "without an id"),
        (TWO_WITH_TRIGGER.format("send_done_trigger 1", "trigger 1", "trigger id 1 barrier"), 6, "barrier count 4"),
        (TWO_WITH_TRIGGER.format("send_done_trigger 1", "trigger 1", "trigger id 1 barrier count 2"), 6, "of count 2"),
        (
            TWO_WITH_TRIGGER.format("send_done_trigger 1", "start 0 send_done_trigger 1", "trigger id 1 oneshot"),
            6,
            "oneshot but 2 connections fire it: make it 'multishot' or 'barrier count 2'",
        ),
        (
            "Nodes 4\nConnections 3\nTriggers 1\n0->1 start 0 size 1 send_done_trigger 1\n1->2 trigger 1 size 1\n"
            "1->3 trigger 1 size 1\ntrigger id 1 multishot\n",
            7,
            "fires 1 times for 2",
        ),
        (
            "Nodes 4\nConnections 3\nTriggers 2\n0->1 start 0 size 1\n1->2 trigger 1 size 1 send_done_trigger 2\n"
            "2->3 trigger 2 size 1 send_done_trigger 1\ntrigger id 1 oneshot\ntrigger id 2 oneshot\n",
            None,
            "circle",
        ),
        (
            TWO_WITH_TRIGGER.format("send_done_trigger 1", "trigger 1", "trigger id 1 oneshot\ntrigger id 1 oneshot"),
            7,
            "trigger 1 is already defined in line 6",
        ),
    ],
)
def test_a_bad_matrix_is_refused_with_file_and_line(tmp_path: Path, text: str, line: int | None, says: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(FormatError) as raised:
        load_matrix(path)
    message = str(raised.value)
    assert says in message
    assert message.startswith(f"{path}:" if line is None else f"{path}:{line}: ")
    assert "\n" not in message


def test_a_circle_of_triggers_names_its_connections(tmp_path: Path) -> None:
    text = "Nodes 3\nConnections 2\nTriggers 2\n0->1 trigger 1 size 1 send_done_trigger 2\n"
    text += "1->2 trigger 2 size 1 send_done_trigger 1\ntrigger id 1 oneshot\ntrigger id 2 oneshot\n"
    with pytest.raises(FormatError) as raised:
        load_matrix(write(tmp_path, text))
    assert "0->1 (line 4)" in str(raised.value)
    assert "1->2 (line 5)" in str(raised.value)


def test_a_file_that_is_missing_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"nowhere.cm: cannot be read: No such file"):
        load_matrix(tmp_path / "nowhere.cm")
    (tmp_path / "binary.cm").write_bytes(b"\xff\xfe\x00N")
    with pytest.raises(FormatError, match=r"binary.cm: is not text"):
        load_matrix(tmp_path / "binary.cm")


@quick
@given(lines=st.lists(st.sampled_from([*GOOD.split(), "->", "trigger", "oneshot", "-1", "\n", "\n"]), max_size=30))
def test_any_text_is_read_or_refused(lines: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = write(tmp_path_factory.getbasetemp(), "Nodes 4\nConnections 1\n" + " ".join(lines))
    try:
        assert load_matrix(path).flows
    except FormatError as error:
        assert str(error).startswith(str(path))
