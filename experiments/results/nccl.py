"""Runs as nccl-tests prints them (NVIDIA/nccl-tests, src/util.cu), for tools that read its table or its JSON.

Medians of the runs whose fidelity is pass, in the emulation's own time. A run has a single buffer, so that what
nccl-tests measures out of place and in place is one number here: the table has it as in place, and JSON too. Bandwidths
have three digits rather than two behind the point, as links are slower here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from experiments.judge.rows import PASS

JSON_VERSION = 2

_ELEMENT_BYTES = 4
_COLLECTIVES = ("allreduce", "allgather", "reducescatter", "alltoall", "broadcast")
_REDUCING = ("allreduce", "reducescatter")
_NAMED, _TOLD = ("size", "count", "type", "redop", "root"), ("time", "algbw", "busbw", "#wrong")
_UNITS = ("(B)", "(elements)", "", "", "", "(us)", "(GB/s)", "(GB/s)", "")
_NOTHING = ("",) * len(_TOLD)  # what nccl-tests prints for what was not run out of place


def results(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a result a collective, size and scheme, with the keys of nccl-tests' JSON; jobs and files have none."""
    columns = {"collective", "algbw_bps", "busbw_bps", "size_bytes"}
    if not columns <= set(runs.columns):
        return []
    plain = runs[(runs.fidelity == PASS) & runs.busbw_bps.notna() & runs.collective.isin(_COLLECTIVES)]
    return [_result(key, alike) for key, alike in plain.groupby(["traffic", "scheme", "size_bytes"], sort=False)]


def _result(key: tuple[str, str, int], alike: pd.DataFrame) -> dict[str, Any]:
    traffic, scheme, size_bytes = key
    collective = alike.collective.iloc[0]
    checked = "verified" in alike and alike.verified.isin(["right", "wrong"]).all()
    return {
        "size": int(size_bytes),
        "count": int(size_bytes) // _ELEMENT_BYTES,
        "type": "int32",
        "redop": "sum" if collective in _REDUCING else "none",
        "root": "0" if collective == "broadcast" else "-1",
        "out_of_place": None,
        "in_place": {
            "time": float(alike.cct_s.median() * 1e6),
            "alg_bw": float(alike.algbw_bps.median() / 8e9),
            "bus_bw": float(alike.busbw_bps.median() / 8e9),
            "nwrong": float((alike.verified == "wrong").sum()) if checked else None,
        },
        "actual_iterations": len(alike),
        "experiment_name": f"{traffic} {scheme}",
    }


def as_json(runs: pd.DataFrame, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what nccl-tests writes with -J, as far as there is such a thing here."""
    found = results(runs)
    mean = sum(each["in_place"]["bus_bw"] for each in found) / len(found) if found else 0.0
    wrong = sum(each["in_place"]["nwrong"] or 0 for each in found)
    return {
        "version": JSON_VERSION,
        "start_time": manifest.get("started", ""),
        "args": [manifest.get("command", "")],
        "results": found,
        "out_of_bounds": {"count": int(wrong), "okay": "false" if wrong else "true"},
        "average_bus_bandwidth": {"bandwidth": mean, "okay": "unchecked"},
    }


def as_table(runs: pd.DataFrame) -> str:
    """Return nccl-tests' table, a block below the other where there are several collectives or schemes."""
    return "\n".join(_lines(results(runs)))


def _lines(found: list[dict[str, Any]]) -> Iterator[str]:
    name = ""
    for each in found:
        if each["experiment_name"] != name:
            name = each["experiment_name"]
            yield f"# {name}"
            for words in ((*_NAMED, *_TOLD), _UNITS):
                yield f"#{_row((*words[: len(_NAMED)], *_NOTHING, *words[len(_NAMED) :]))[1:]}"
        told = each["in_place"]
        wrong = "N/A" if told["nwrong"] is None else f"{told['nwrong']:g}"
        rates = (f"{told[key]:.3g}" for key in ("alg_bw", "bus_bw"))
        yield _row((*(str(each[key]) for key in _NAMED), *_NOTHING, f"{told['time']:.0f}", *rates, wrong))


def _row(cells: tuple[str, ...]) -> str:
    """Widths are those of nccl-tests, which its numbers may exceed as well."""
    widths = (12, 12, 8, 6, 6, *(7, 6, 6, 6) * 2)
    return "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
