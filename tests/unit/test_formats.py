"""Files of other tools: what each says, what is wrong with it in a sentence, and what is written is read again."""

from __future__ import annotations

from pathlib import Path

import pytest
from format_files import DATA, EXAMPLES, GOAL, INSPECTED, SIMAI, TABLE, inspected, shape

from traffic.collectives import build_schedule
from traffic.formats import FORMATS, FormatError
from traffic.jobs import JOBS, MODELS, Scale, Training, draw_up
from traffic.schedule import Flow, Schedule

RANKS = 4
KEYS = sorted(FORMATS)


def read(key: str, text: str, folder: Path, **options: object) -> Schedule:
    path = folder / f"x{FORMATS[key].suffix}"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    if FORMATS[key].takes("ranks"):
        options.setdefault("ranks", RANKS)
    return FORMATS[key].read(path, **options)


def refused(key: str, text: str, folder: Path, **options: object) -> str:
    with pytest.raises(FormatError) as error:
        read(key, text, folder, **options)
    return str(error.value).replace(f"{folder}/", "")


def seconds(schedule: Schedule, rank: int = 0) -> float:
    return sum(compute.seconds for compute in schedule.computes if compute.rank == rank)


def job() -> Schedule:
    """Computations and collectives on two communicators, as small as a real job can be."""
    training = Training(MODELS["resnet50"], 0.1)
    return draw_up(JOBS["fsdp"], training, 4, iterations=1, scale=Scale(0.001, 1.0))


# All formats


@pytest.mark.parametrize("key", KEYS)
def test_every_format_has_an_example_that_is_a_schedule(key: str, tmp_path: Path) -> None:
    schedule = read(key, EXAMPLES[key], tmp_path)
    assert schedule.flows and len(schedule.order) == len(schedule.tasks)
    assert [task.id for task in schedule.tasks] == list(range(len(schedule.tasks)))
    count = len(schedule.flows)
    assert all(other < flow.id for flow in schedule.flows for other in flow.waits_for if other < count)


@pytest.mark.parametrize("key", KEYS)
def test_what_is_no_file_or_no_text_is_refused(key: str, tmp_path: Path) -> None:
    reader = FORMATS[key]
    options = {"ranks": RANKS} if reader.takes("ranks") else {}
    with pytest.raises(FormatError, match="cannot be read: No such file"):
        reader.read(tmp_path / "none", **options)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(FormatError, match="is no Chakra" if key == "chakra" else "is not text"):
        reader.read(tmp_path / "bytes", **options)
    assert refused(key, "", tmp_path)


# What is written is read again


@pytest.mark.parametrize("algorithm", ["ring", "halving-doubling", "double-binary-tree", "direct"])
@pytest.mark.parametrize("key", ["table", "goal"])
def test_a_collective_that_is_written_is_the_same_when_read(key: str, algorithm: str, tmp_path: Path) -> None:
    schedule = build_schedule("allreduce", algorithm, ranks=4, size_bytes=8000, channels=2)
    text = FORMATS[key].write
    assert text is not None
    options = {"receives": "rendezvous"} if key == "goal" else {}
    assert shape(read(key, text(schedule), tmp_path, **options)) == shape(schedule)


@pytest.mark.parametrize("key", ["table", "goal"])
def test_a_job_that_is_written_is_the_same_when_read(key: str, tmp_path: Path) -> None:
    write = FORMATS[key].write
    assert write is not None
    options = {"receives": "rendezvous"} if key == "goal" else {}
    again = read(key, write(job()), tmp_path, **options)
    assert shape(again) == shape(job())
    assert seconds(again) == pytest.approx(seconds(job()), abs=1e-6)


@pytest.mark.parametrize("algorithm", ["ring", "direct"])
def test_a_matrix_that_is_written_is_the_same_when_read(algorithm: str, tmp_path: Path) -> None:
    write = FORMATS["matrix"].write
    assert write is not None
    schedule = build_schedule("allgather", algorithm, ranks=6, size_bytes=6000)
    again = read("matrix", write(schedule), tmp_path)
    assert [(flow.src, flow.dst, flow.size_bytes, flow.waits_for) for flow in again.flows] == [
        (flow.src, flow.dst, flow.size_bytes, flow.waits_for) for flow in schedule.flows
    ]


def test_what_a_format_cannot_say_is_not_written() -> None:
    matrix, goal = FORMATS["matrix"].write, FORMATS["goal"].write
    assert matrix is not None and goal is not None
    with pytest.raises(FormatError, match="a connection matrix has no computations: write a table or GOAL"):
        matrix(job())
    flows = [Flow(0, 0, 1, 1), Flow(1, 0, 2, 1)]
    flows += [Flow(2 + place, 1, 3, 1, waits_for=waits) for place, waits in enumerate([(0,), (0, 1), (0, 2)])]
    with pytest.raises(FormatError, match="3 sets of flows wait for flow 0, and a connection fires 2 triggers at most"):
        matrix(Schedule("x", "x", 4, 1, 1, flows))
    with pytest.raises(FormatError, match="task 1 waits for task 0 of other ranks, which GOAL cannot say"):
        goal(Schedule("x", "x", 4, 1, 1, [Flow(0, 0, 1, 1), Flow(1, 2, 3, 1, waits_for=(0,))]))


# A table


def test_a_table_is_flows_and_computations(tmp_path: Path) -> None:
    schedule = read("table", TABLE, tmp_path)
    assert [(flow.src, flow.dst, flow.size_bytes, flow.waits_for) for flow in schedule.flows] == [
        (0, 1, 1000, ()),
        (1, 2, 1000, (2,)),
    ]
    assert [(each.id, each.rank, each.seconds, each.waits_for) for each in schedule.computes] == [(2, 1, 0.25, (0,))]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("0,1,2\n", "x.csv:1: is no table of flows"),
        ("src,dst,bytes\n", "x.csv: has no flow: add a row such as 0,1,1000 below src,dst,bytes"),
        ("src,dst,bytes\n0,0,5\n", "x.csv:2: 0 sends to itself"),
        ("src,dst,bytes\n0,1,x\n", "x.csv:2: bytes must be a whole number, 0 or more, not 'x'"),
        ("src,dst,bytes\n0,1,1,4\n", "x.csv:2: has 4 cells, and the first line names 3 columns"),
        ("src,dst,bytes,waits\n0,1,1,7\n", "x.csv:2: waits for row 7: with 1 rows, they are 0 to 0"),
        ("src,dst,bytes,waits\n0,1,1,1\n0,1,1,0\n", "x.csv:3: this row waits for itself, through others"),
        ("src,dst,bytes,seconds\n0,1,1,3\n", "x.csv:2: has seconds, so it is a computation, and a dst or bytes"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(text: str, sentence: str, tmp_path: Path) -> None:
    assert refused("table", text, tmp_path).startswith(sentence)


# HPCC


def test_of_a_flow_file_the_stated_count_is_read(tmp_path: Path) -> None:
    schedule = read("hpcc", "1\n0 1 3 100 200000 2.0\n1 2 3 100 200000 2.5\n", tmp_path)
    assert [(flow.src, flow.dst, flow.size_bytes, flow.start_s) for flow in schedule.flows] == [(0, 1, 200_000, 2.0)]
    assert refused("hpcc", "2\n0 1 3 100 200000 2.0\n", tmp_path).startswith("x.txt:1: says 2 flows and has 1")


# GOAL


def test_goal_has_sends_wait_for_what_they_require(tmp_path: Path) -> None:
    schedule = read("goal", GOAL, tmp_path)
    assert [(flow.src, flow.dst, flow.size_bytes, flow.channel) for flow in schedule.flows] == [
        (0, 1, 1000, 7),
        (1, 2, 500, 7),
    ]
    [computed] = schedule.computes
    assert computed.rank == 0
    assert computed.seconds == pytest.approx(5e-6)
    assert schedule.flows[0].waits_for == (2,)
    assert schedule.flows[1].waits_for == ()  # only for the start of what waits for nothing of its own rank


def test_goal_matches_sends_and_receives_in_order_and_says_what_is_left(tmp_path: Path) -> None:
    pair = "num_ranks 2\nrank 0 {{\nsend 8b to 1 tag 1\n{send}}}\nrank 1 {{\nrecv 8b from 0 tag 1\n{receive}}}\n"
    assert len(read("goal", pair.format(send="", receive=""), tmp_path).flows) == 1
    assert refused("goal", pair.format(send="send 8b to 1 tag 1\n", receive=""), tmp_path) == (
        "x.goal:4: rank 0 sends to 1 with tag 1 what is never received"
    )
    assert refused("goal", pair.format(send="", receive="recv 8b from 0 tag 1\n"), tmp_path) == (
        "x.goal:7: rank 1 receives from 0 with tag 1 what is never sent"
    )


CROSSED = """num_ranks 2
rank 0 {
l1: send 8b to 1 tag 0
l2: recv 8b from 1 tag 0
l2 requires l1
}
rank 1 {
l1: send 8b to 0 tag 0
l2: recv 8b from 0 tag 0
l2 requires l1
}
"""


def test_goal_that_would_deadlock_by_rendezvous_says_so(tmp_path: Path) -> None:
    assert len(read("goal", CROSSED, tmp_path).flows) == 2
    assert "or have receives eager" in refused("goal", CROSSED, tmp_path, receives="rendezvous")


# ASTRA-sim


def timeline(schedule: Schedule, rank: int = 0) -> list[str]:
    return [each.label for each in schedule.computes if each.rank == rank and each.label]


def test_data_parallel_layers_go_forward_and_back(tmp_path: Path) -> None:
    schedule = read("astra", DATA, tmp_path)
    assert timeline(schedule) == [
        "conv1 forward",
        "conv2 forward",
        "conv2 weight gradient",
        "conv2 update",
        "conv2 input gradient",
        "conv1 weight gradient",
        "conv1 update",
    ]
    assert seconds(schedule) == pytest.approx((5 + 10 + 30 + 20 + 7 + 1 + 2) * 1e-9)
    assert seconds(read("astra", DATA, tmp_path, unit="us", iterations=2)) == pytest.approx(2 * 75e-6)
    assert schedule.size_bytes == 2 * 3 * (4096 + 8192) // 4


def ring_bytes(schedule: Schedule) -> dict[int, int]:
    """Bytes sent by rank 0, by whom they go to."""
    found: dict[int, int] = {}
    for flow in schedule.flows:
        if flow.src == 0:
            found[flow.dst] = found.get(flow.dst, 0) + flow.size_bytes
    return found


@pytest.mark.parametrize(
    ("policy", "sent"),
    [  # by the next rank of a ring: 1 within the inner groups of 2 and among all, 2 across the inner groups
        ("HYBRID_DATA_MODEL", {1: 2 * 2000 + 4000, 2: 2 * 8000}),
        ("HYBRID_MODEL_DATA", {2: 2 * 2000 + 4000, 1: 2 * 8000}),
        ("MODEL", {1: 2 * 3 * 2000 + 6000}),
    ],
)
def test_collectives_are_among_the_ranks_of_their_policy(policy: str, sent: dict[int, int], tmp_path: Path) -> None:
    """An ALLGATHER of shards has each rank send n - 1 of them; layer 0 sends no gradients of its input."""
    layer = "l{} -1 5 ALLGATHER 2000 5 ALLREDUCE 4000 5 ALLREDUCE 8000 0\n"
    text = f"{policy}\n2\n{layer.format(0)}{layer.format(1)}"
    assert ring_bytes(read("astra", text, tmp_path, inner=2)) == sent


def test_the_bytes_of_an_allgather_are_a_shard_or_the_total(tmp_path: Path) -> None:
    text = "MODEL\n1\nl -1 5 ALLGATHER 4000 5 NONE 0 5 NONE 0 0\n"
    assert ring_bytes(read("astra", text, tmp_path)) == {1: 3 * 4000}
    assert ring_bytes(read("astra", text, tmp_path, allgather="total")) == {1: 3 * 1000}


def test_forward_passes_are_run_again_from_the_checkpoint(tmp_path: Path) -> None:
    layers = "".join(f"l{place} -1 1 NONE 0 1 NONE 0 1 ALLREDUCE 4096 0\n" for place in range(4))
    head = (
        "HYBRID_TRANSFORMER_FWD_IN_BCKWD model_parallel_NPU_group: 2 checkpoints: 2 0 2 checkpoint_initiates: 2 3 1\n"
    )
    again = timeline(read("astra", f"{head}4\n{layers}", tmp_path))
    assert again[4:] == [
        *("l2 forward", "l3 input gradient", "l3 weight gradient", "l2 input gradient", "l2 weight gradient"),
        *("l0 forward", "l1 input gradient", "l1 weight gradient", "l0 input gradient", "l0 weight gradient"),
    ]


def test_resnet50_computes_as_long_as_astra_sim_takes_with_communication_hidden(tmp_path: Path) -> None:
    """astra-sim#222: Resnet50_DataParallel.txt, its times as microseconds, takes 1,082,450 us in all."""
    wide = [(3648, 3456, 9984), (10944, 10368, 14144), (3456, 3648, 7488)]  # forward, input and weight gradient
    middle, narrow = [(2592, 2336, 4096), (6480, 5840, 6656)], [(3539, 2832, 1476), (6372, 6372, 2756)]
    deep = [(14156, 8976, 4706), (20196, 20196, 9826)]
    out = [(2336, 2592, 5120), (2832, 3539, 2832), (8976, 14156, 6536)]
    times = [(13003, 12864, 32291), (3456, 3648, 7488), (3456, 3456, 7488), *wide[1:], *wide * 2]
    times += [(2592, 2592, 6144), (3648, 3520, 9984), middle[1], out[0], *[*middle, out[0]] * 2, *middle]
    times += [(3146, 2592, 5120), (5664, 5664, 3856), (3539, 3146, 4096), narrow[1], *[out[1], *narrow] * 5]
    times += [(12583, 3539, 2832), (17952, 17952, 10632), (14156, 12583, 2952), deep[1], *[out[2], *deep] * 2]
    times += [(12288, 14156, 6536), (16416, 27708, 9220)]
    rows = [f"l{n} -1 {f} NONE 0 {i} NONE 0 {w} ALLREDUCE 4096 0" for n, (f, i, w) in enumerate(times)]
    schedule = read("astra", "\n".join(["DATA", "54", *rows]), tmp_path, unit="us")
    assert seconds(schedule) * 1e6 == pytest.approx(1_082_450, abs=1e-3)


def test_a_transformer_of_the_tutorials_computes_as_long_as_astra_sim_says(tmp_path: Path) -> None:
    """astra-sim#139: gpt3.txt of the tutorials with compute-scale 0.41 has a ComputeTime of 575,821.446 us."""
    times = [9072581] * 3 + [756048] * 2 + [9072581] + [36290323] * 2 + [11813]
    rows = [f"l{place} -1 {t} NONE 0 {t} NONE 0 {t} ALLREDUCE 4096 0" for place, t in enumerate(times * 3 + [26579826])]
    head = "model_parallel_NPU_group: 16 checkpoints: 3 0 9 18 checkpoint_initiates: 3 26 17 8"
    text = "\n".join([f"HYBRID_TRANSFORMER_FWD_IN_BCKWD\t{head}", "28", *rows])
    schedule = read("astra", text, tmp_path, ranks=32, compute_scale=0.41)
    assert seconds(schedule) * 1e6 == pytest.approx(575_821.446, abs=0.05)  # it rounds each time to a nanosecond


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("DATA\n", "x.txt: is too short"),
        ("NOVEL\n1\n", "x.txt:1: unknown policy 'NOVEL': use one of MICRO, DATA, MODEL"),
        (DATA.replace("ALLREDUCE\t4096", "ALLREDUCEALLTOALL\t4096"), "x.txt:3: unknown collective 'ALLREDUCEALLTOALL'"),
        (DATA.replace("2\r\n", "3\r\n", 1), "x.txt:2: the file says 3 layers and has 2"),
        (DATA.replace("conv1\t-1\t5", "conv1\t5"), "x.txt:3: a layer has 12 words"),
        (DATA.replace("DATA", "HYBRID_TRANSFORMER"), "x.txt:1: no model_parallel_NPU_group"),
        (DATA.replace("DATA", "HYBRID_DLRM"), "x.txt:1: the last bottom layer must be a whole number"),
        (DATA.replace("DATA", "HYBRID_TRANSFORMER model_parallel_NPU_group: 3"), "x.txt: a group of 3 ranks does not"),
    ],
)
def test_what_is_wrong_with_a_workload_is_said(text: str, sentence: str, tmp_path: Path) -> None:
    assert refused("astra", text, tmp_path).startswith(sentence)


# SimAI


def test_simai_groups_are_by_suffix_and_its_input_gradients_hold_what_follows(tmp_path: Path) -> None:
    schedule = read("simai", SIMAI, tmp_path, ranks=8)
    groups = [(each.collective, each.ranks, each.size_bytes) for each in schedule.collectives]
    assert groups == [
        *[("allreduce", 2, 4096)] * 4,  # 16 bytes forward count as 4096
        *[("alltoall", 2, 8192)] * 4,
        *[("allgather", 2, 8192)] * 4,  # of 8 ranks, 4 groups of 2, experts over 2 of these: 2 ranks have the same
        *[("allreduce", 2, 8192)] * 4,
    ]
    pairs = {(flow.src, flow.dst) for flow in schedule.flows if flow.src == 0}
    assert pairs == {(0, 1), (0, 2), (0, 4)}
    assert refused("simai", SIMAI, tmp_path, ranks=6).startswith("x.txt: ep 2 does not divide 3 groups of 2")


# NCCL's inspector


def test_gaps_between_collectives_are_computing(tmp_path: Path) -> None:
    schedule = read("inspector", INSPECTED, tmp_path)
    assert [(each.collective, each.ranks) for each in schedule.collectives] == [("allreduce", 2)] * 2
    assert seconds(schedule, 0) == pytest.approx(500e-6) and seconds(schedule, 1) == pytest.approx(499e-6)
    assert schedule.repairs == ("1 lines without a collective are left out",)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([inspected(0, 1, 1000)], "communicator '0x7f' has 2 ranks and the file lines of 1"),
        (
            [inspected(0, 1, 1000), inspected(1, 1, 1000, "AllGather")],
            "x.jsonl:2: collective 1 of communicator '0x7f' is allgather of 4096 bytes here, and allreduce of 4096 in",
        ),
        ([inspected(0, 1, 1000), inspected(1, 2, 1000)], "is there 1 times instead of once for each of 2 ranks"),
        (
            [inspected(0, 1, 1000), inspected(0, 2, 2000), inspected(1, 1, 2000), inspected(1, 2, 1000)],
            "in orders that no run can have",
        ),
        ([inspected(0, 1, 1000, "Gather")], "coll: Gather instead of one of"),
        (["{"], "x.jsonl:1: is no JSON"),
    ],
)
def test_what_is_wrong_with_inspected_lines_is_said(lines: list[str], sentence: str, tmp_path: Path) -> None:
    assert sentence in refused("inspector", "\n".join(lines), tmp_path)
