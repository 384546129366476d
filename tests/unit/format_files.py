"""Small files of every format, written here for tests; and what makes two graphs the same."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from io import BytesIO

from traffic.schedule import Flow, Schedule

TABLE = "src,dst,bytes,seconds,waits\n0,1,1000,,\n1,,,0.25,0\n1,2,1000,,1\n"
HPCC = "2\n0 1 3 100 200000 2.0\n1 2 3 100 200000 2.5\n"
GOAL = """\
num_ranks 3
rank 0 { // sends
l1: calc 5000
l2: send 1000b to 1 tag 7
l2 requires l1
}
rank 1 {
l1: recv 1000b from 0 tag 7
l2: send 500b to 2 tag 7 cpu 1
/* only once it
   has begun */
l2 irequires l1
}
rank 2 { l1: recv 500b from 1 tag 7 }
"""
DATA = (
    "DATA\r\n2\r\nconv1\t-1\t5\tNONE\t0\t6\tNONE\t0\t7\t\tALLREDUCE\t4096\t1\t\r\n"
    "conv2 -1 10 NONE 0 20 NONE 0 30 ALLREDUCE 8192 2"
)
MATRIX = "Nodes 4\nConnections 1\n0->1 id 1 start 0 size 1000\n"

SIMAI = """\
HYBRID_TRANSFORMER_FWD_IN_BCKWD model_parallel_NPU_group: 2 ep: 2 pp: 1 ga: 1 all_gpus: 4 checkpoints: 0 pp_comm: 0
2
embedding -1 5000 ALLREDUCE 16 1 ALLREDUCE 8192 1 NONE 0 1
moe\t-1\t2000\tALLTOALL_EP\t8192\t1\tNONE\t0\t1\tALLGATHER_DP_EP\t8192\t1
"""


def inspected(rank: int, number: int, end_us: float, collective: str = "AllReduce", size_bytes: int = 4096) -> str:
    """A line of NCCL's inspector: two processes, one communicator, 100 us a collective."""
    header = {"id": "0x7f", "rank": rank, "n_ranks": 2, "nnodes": 1}
    metadata = {"hostname": "a", "pid": 7 + rank, "dump_timestamp_us": end_us}
    perf = {"coll": collective, "coll_sn": number, "coll_msg_size_bytes": size_bytes, "coll_exec_time_us": 100}
    return json.dumps({"header": header, "metadata": metadata, "coll_perf": perf})


INSPECTED = "\n".join(
    [*(inspected(rank, 1, 1000 + rank) for rank in (0, 1)), "{}", *(inspected(rank, 2, 1600) for rank in (0, 1))]
)


def _varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + _varint(number >> 7)


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def node(id: int, type: int, *waits: int, lasts_us: int = 0, start_us: int = 0, **attributes: int | str) -> bytes:
    """A node of a Chakra execution trace."""
    message = _field(1, id) + _field(2, b"n%d" % id) + _field(3, type)
    message += b"".join(_field(5, other) for other in waits) + _field(6, start_us) + _field(7, lasts_us)
    for name, value in attributes.items():
        held = _field(29, value.encode()) if isinstance(value, str) else _field(9, value)
        message += _field(10, _field(1, name.encode()) + held)
    return message


def trace(*nodes: bytes) -> bytes:
    """A rank's file."""
    return b"".join(_varint(len(message)) + message for message in (_field(1, b"0.0.4"), *nodes))


def zipped(**files: bytes) -> bytes:
    """A job's file: traces by their rank, as in r0, and groups."""
    held = BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, data in files.items():
            archive.writestr("comm_group.json" if name == "groups" else f"job.{name[1:]}.et", data)
    return held.getvalue()


CHAKRA = trace(node(1, 4, lasts_us=100), node(2, 7, 1, comm_type=0, comm_size=64)).decode()

EXAMPLES = {"matrix": MATRIX, "table": TABLE, "hpcc": HPCC, "goal": GOAL, "astra": DATA}
EXAMPLES |= {"simai": SIMAI, "inspector": INSPECTED, "chakra": CHAKRA}
"""By the key of the format."""


def shape(schedule: Schedule) -> Counter[object]:
    """What a graph is, whatever its tasks are called: every task with all that led to it, counted."""
    tasks = schedule.tasks
    found: dict[int, int] = {}
    for id in schedule.order:
        task = tasks[id]
        before = tuple(sorted(found[other] for other in set(task.waits_for)))
        what = (
            (task.src, task.dst, task.size_bytes, task.channel, task.start_s)
            if isinstance(task, Flow)
            else (task.rank, round(task.seconds * 1e9))
        )
        found[id] = hash((what, before))
    return Counter(found.values())
