"""A results folder made by arithmetic: what `judge` says of runs that never took place, with planted numbers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from synthetic import FABRIC, healthy_run

from experiments.judge.rows import FAIL, Judged, judge_replay
from experiments.results.folder import ResultsFolder
from experiments.spec.experiment import restore_experiment

REASON = "machine: the machine was 100% busy for a second: at most 98% is trusted"
SCHEMES = ("ecmp", "spray", "ethereal")
TRAFFICS = ("permutation", "alltoall")
RATIOS = {"ecmp": 1.75, "spray": 1.02}
"""CCT / bound of a scheme's first seed; others have 1.04. Every next seed takes a hundredth more."""


def manifest_of(name: str = "example", **changes: Any) -> dict[str, Any]:
    """What a run of the synthetic fabric would have written before its first run."""
    experiment = {
        "name": name,
        "fabric": {"leaves": FABRIC.leaves, "spines": FABRIC.spines, "hosts_per_leaf": FABRIC.hosts_per_leaf},
        "traffic": [{"collective": "permutation", "size": "5MB"}, {"collective": "alltoall", "size": "5MB"}],
        "schemes": list(SCHEMES),
        "seeds": [1, 2],
    }
    port = {"rate_bps": 20_000_000, "burst_bytes": 18_028, "queue_bytes": 4_000_000}
    return {
        "experiment": restore_experiment(experiment, "example").as_json(),
        "command": "spraylab run example.yaml --out 'results/an example'",
        "started": "2030-01-02T03:04:05+0000",
        "machine": {"kernel": "6.1.0-example", "cores": 2},
        "versions": {"python": "3.11.2", "spraylab": "0.1.0"},
        "sysctls": {"net.ipv4.tcp_recovery": "5"},
        "fabric": {"dataplane": "ovs-user", "shaping": {f"h{number}-eth0": port for number in range(1, 13)}},
        **changes,
    }


def results_folder(
    path: Path,
    traffics: Sequence[str] = TRAFFICS,
    schemes: Sequence[str] = SCHEMES,
    seeds: Sequence[int] = (1, 2),
    failed: Collection[str] = (),
    manifest: Mapping[str, Any] | None = None,
) -> ResultsFolder:
    """A run for every traffic, scheme and seed, in that order; the ones whose ids are in `failed` cannot be trusted."""
    folder = ResultsFolder.create(path, manifest or manifest_of())
    number = 0
    for traffic in traffics:
        for scheme in schemes:
            for place, seed in enumerate(seeds):
                number += 1
                run_id = f"{number:03d}-{scheme}-s{seed}"
                ratio = RATIOS.get(scheme, 1.04) + 0.01 * place
                row = {
                    **_judged(scheme).row,
                    **{"run_id": run_id, "traffic": traffic, "scheme": scheme, "seed": seed},
                    **{"cct_over_bound": ratio, "cct_s": ratio * _judged(scheme).row["bound_s"]},
                }
                if run_id in failed:
                    row |= {"fidelity": FAIL, "fidelity_reasons": REASON}
                folder.append(replace(_judged(scheme), row=row))
    return folder


@lru_cache
def _judged(scheme: str) -> Judged:
    identity = {"run_id": "?", "experiment": "example", "traffic": "?", "scheme": scheme, "seed": 0}
    return judge_replay(healthy_run(scheme, size_bytes=1_000_000), identity)
