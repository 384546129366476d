"""How the time and memory of `predict` grow with hosts. Each case runs in a process of its own."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from emulator.proc import peak_memory_bytes
from emulator.topology import MAX_SPINES
from experiments.machine.benchmarks.alone import measured_alone
from experiments.runs.predict import predict
from experiments.spec.experiment import Experiment
from experiments.spec.fabric import FabricSpec
from experiments.spec.traffic import read_entry

HOSTS = (256, 1024, 4096, 16_384, 65_536)
SCHEMES = ("ecmp", "spray", "ethereal")
FLOW_BYTES = 64 * 1024
_RATE_BPS = 400_000_000_000
_TIMEOUT_S = 600.0


def run(hosts: Sequence[int] = HOSTS) -> list[dict[str, Any]]:
    """Return a row for every fabric size and traffic: what it was, by which model, `time_s` and `peak_memory_bytes`.

    Sizes are squares of a whole number: as many leaves as hosts a leaf, and as many spines, up to 63. Time is of the
    prediction of three schemes with one seed; memory is the most the whole process ever held, libraries included.
    """
    cases = [(count, traffic) for traffic in ("permutation", "alltoall") for count in hosts]
    return [measured_alone(__name__, *case, timeout_s=_TIMEOUT_S) for case in cases]


def experiment_of(hosts: int, traffic: str, schemes: Sequence[str] = SCHEMES) -> Experiment:
    """A square fabric of any size, also one larger than experiment files may have, which are meant for emulation."""
    side = round(hosts**0.5)
    if side * side != hosts:
        raise ValueError(f"{hosts} hosts make no square fabric: use a square such as {side * side}")
    entry = {
        "permutation": {"collective": "permutation", "channels": 4, "size": f"{4 * FLOW_BYTES}B"},
        "alltoall": {"collective": "alltoall", "size": f"{hosts * FLOW_BYTES}B"},
    }[traffic]
    fabric = FabricSpec.model_construct(
        leaves=side,
        spines=min(side, MAX_SPINES),
        hosts_per_leaf=side,
        host_rate_bps=_RATE_BPS,
        fabric_rate_bps=_RATE_BPS,
        mtu_bytes=9000,
        queue_bytes=4_000_000,
    )
    return Experiment.model_construct(
        name="bench", fabric=fabric, traffic=(read_entry(entry),), schemes=tuple(schemes), seeds=(1,)
    )


def _here(hosts: int, traffic: str) -> dict[str, Any]:
    experiment = experiment_of(hosts, traffic)
    start = time.perf_counter()
    rows = predict(experiment)
    return {
        "hosts": hosts,
        "leaves": experiment.fabric.leaves,
        "spines": experiment.fabric.spines,
        "traffic": traffic,
        "schemes": list(experiment.schemes),
        "flows": int(rows.flows.max()),
        "model": "counts" if rows.predicted_cct_s.isna().all() else "fluid",
        "time_s": time.perf_counter() - start,
        "peak_memory_bytes": peak_memory_bytes(),
    }


def main(arguments: Sequence[str]) -> None:
    """Print the row of one case as JSON."""
    hosts, traffic = arguments
    print(json.dumps(_here(int(hosts), traffic)))
