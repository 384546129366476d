"""From a raw measurement to numbers with a verdict: one row of `runs.csv`, and the frames behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from emulator.ports import Port
from emulator.topology import LeafSpine
from experiments.judge.evidence import Evidence, ProgramEvidence, ReplayEvidence
from experiments.judge.invariants import failures, summary
from experiments.judge.network import drops_packets, sent_bytes
from experiments.judge.windows import least_idle, samples_within
from experiments.theory.loads import LinkBytes, live_rates_bps, over_ideal
from experiments.theory.prediction import Predicted, agreement, predicted_columns
from experiments.theory.steps import step_columns

PASS, FAIL = "pass", "fail"

_FAULT_COLUMNS = [
    "fault", "kind", "event", "due_s", "port", "asked_s", "confirmed_s", "rate_bps", "destroyed_packets",
    "destroyed_bytes", "reacted_s", "converged_s",
]  # fmt: skip


@dataclass(frozen=True)
class Judged:
    """One run: its row, and the frames it is made of, by the name under which results keep them."""

    row: Mapping[str, Any]
    frames: Mapping[str, pd.DataFrame]


def judge_replay(run: ReplayEvidence, identity: Mapping[str, Any], predicted: Predicted | None = None) -> Judged:
    """Make the row of a replay and the frames behind it: flows, subflows, links, queues, and what captures tell.

    `identity` is what the row says of the run before it ran: its id, experiment, scheme, seed, data plane; `predicted`
    is what theory expected of it, and its columns stay empty for None.
    """
    schedule, result = run.plan.schedule, run.measured.result
    flows, links = _flows(run), links_of(run)
    row = {
        **identity,
        "flows": len(schedule.own.flows),
        "subflows": len(run.plan.connections),
        "cut_flows": run.plan.cut_flows,
        "cct_s": result.cct_s,
        "bound_s": run.bound_s,
        "cct_over_bound": result.cct_s / run.bound_s,
        **predicted_columns(predicted),
        **agreement(result.cct_s, predicted),
        **step_columns(schedule, result.started_s, result.finished_s, run.bound_s),
        "algbw_bps": schedule.size_bytes * 8 / result.cct_s,
        "busbw_bps": schedule.size_bytes * 8 / result.cct_s * schedule.busbw_factor,
        "congestion_ratio": _congestion_ratio(run.ports, links, run.topology),
        "fct_p50_s": flows.fct_s[: schedule.own_tasks].quantile(0.5),
        "fct_p99_s": flows.fct_s[: schedule.own_tasks].quantile(0.99),
        "retransmitted_segments": sum(connection.retransmitted_segments for connection in result.connections),
        "timeouts": sum(connection.timeouts for connection in result.connections),
        "out_of_order_segments": sum(connection.out_of_order_segments for connection in result.connections),
        **_network_columns(run, links),
        "verified": "" if result.data_problems is None else "wrong" if result.data_problems else "right",
        **_fidelity_columns(run),
    }
    return Judged(row, {"flows": flows, "subflows": _subflows(run), **_frames(run, links)})


def judge_program(run: ProgramEvidence, identity: Mapping[str, Any]) -> Judged:
    """Make the row of a program's run and the frames behind it; `identity` is as for a replay.

    `loaded_s` is how long some port was loaded, `duration_s` how long the program took, start-up included.
    """
    result, links = run.measured.result, links_of(run)
    ended = result.ended
    wire_bytes = sent_bytes(run)
    row = {
        **identity,
        "duration_s": ended.ended_s - ended.started_s,
        "loaded_s": run.loaded_s,
        "exit_status": ended.status,
        "congestion_ratio": _congestion_ratio(run.ports, links, run.topology) if wire_bytes else None,
        "wire_bytes": wire_bytes,
        "retransmitted_segments": result.retransmitted_segments,
        **_network_columns(run, links),
        **_fidelity_columns(run),
    }
    return Judged(row, _frames(run, links))


def _network_columns(run: Evidence[Any], links: pd.DataFrame) -> dict[str, Any]:
    converged_s = [happened.converged_s for happened in run.measured.faults]
    return {
        "drops_packets": int(links.drops_packets.sum()),
        "faults": "; ".join(fault.words(run.topology) for fault in run.faults),
        "destroyed_packets": int(run.timeline.destroyed_packets.sum()),
        "converged_s": max((each for each in converged_s if each is not None), default=None),
        "queue_peak_bytes": int(links.queue_peak_bytes.max()),
        "cpu_idle_min": least_idle(samples_within(run)),
    }


def _fidelity_columns(run: Evidence[Any]) -> dict[str, Any]:
    failed = failures(run)
    return {"fidelity": FAIL if failed else PASS, "fidelity_reasons": summary(failed)}


def _congestion_ratio(ports: Sequence[Port], links: pd.DataFrame, fabric: LeafSpine) -> float:
    """How long the fullest fabric link was at work, over the same had each leaf's bytes been spread by links' rates."""
    loads = LinkBytes(np.zeros((fabric.leaves, fabric.spines)), np.zeros((fabric.leaves, fabric.spines)))
    for port, sent in zip(ports, links.tx_bytes, strict=True):
        if port.spine is not None:
            (loads.up if port.up else loads.down)[port.leaf, port.spine] = sent
    most = np.nanmax(over_ideal(loads, live_rates_bps(fabric)))
    return float(most) if most else 1.0  # nothing crossed


def _frames(run: Evidence[Any], links: pd.DataFrame) -> dict[str, pd.DataFrame]:
    frames = {"links": links, "queues": _queues(run)}
    if run.measured.faults:
        frames["faults"] = _faults(run)
    captured = run.captured.frames if run.captured else {}
    return frames | {f"captured_{name}": frame for name, frame in captured.items()}


def _flows(run: ReplayEvidence) -> pd.DataFrame:
    result, plan = run.measured.result, run.plan
    return pd.DataFrame(
        {
            "flow": flow.id,
            "src": flow.src,
            "dst": flow.dst,
            "src_host": plan.hosts[flow.src],
            "dst_host": plan.hosts[flow.dst],
            "step": flow.step,
            "channel": flow.channel,
            "size_bytes": flow.size_bytes,
            "start_s": result.started_s[flow.id] - run.start_s,
            "fct_s": result.finished_s[flow.id] - result.started_s[flow.id],
        }
        for flow in plan.schedule.flows
    )


def _subflows(run: ReplayEvidence) -> pd.DataFrame:
    results = pd.DataFrame(run.measured.result.connections)
    planned = pd.DataFrame(run.plan.connections).rename(columns={"id": "subflow"})
    return pd.concat([planned, results], axis=1)


def links_of(run: Evidence[Any]) -> pd.DataFrame:
    """Return what every port carried and lost, a row each; the rate of a link that failed from the start is 0."""
    failed = run.topology.failed
    delta = run.measured.after - run.measured.before
    peaks = run.measured.samples.queues.groupby("port").backlog_bytes.max()
    return pd.DataFrame(
        {
            "port": [port.name for port in run.ports],
            "node": [port.node for port in run.ports],
            "peer": [port.peer for port in run.ports],
            "leaf": [port.leaf for port in run.ports],
            "spine": pd.array([port.spine for port in run.ports], dtype="Int64"),
            "host": pd.array([port.host for port in run.ports], dtype="Int64"),
            "direction": ["up" if port.up else "down" for port in run.ports],
            "rate_bps": [0 if (port.leaf, port.spine) in failed else port.shaping.rate_bps for port in run.ports],
            "tx_bytes": delta.tx_bytes,
            "tx_packets": delta.tx_packets,
            "rx_packets": delta.rx_packets,
            "drops_packets": drops_packets(run.measured, len(run.ports)),
            "queue_peak_bytes": peaks.reindex(range(len(run.ports)), fill_value=0).to_numpy(),
        }
    )


def _faults(run: Evidence[Any]) -> pd.DataFrame:
    """What every fault changed, port by port, and when, in seconds from when the run is judged.

    By `reacted_s`, leaves avoided what was down then; it is missing where the network did nothing about it. Packets
    were lost to the fault for `converged_s`, which is known at its end, where any were.
    """
    rows = []
    for number, happened in enumerate(run.measured.faults):
        fault = happened.fault
        origin_s = happened.due_s - fault.at_s - run.start_s
        to_begin, to_end = happened.reacted
        for event, at_s, changes, reacted in (
            ("begin", fault.at_s, happened.begun, to_begin),
            ("end", fault.end_s, happened.ended, to_end),
        ):
            reacted_s = reacted.confirmed_s - run.start_s if reacted else None
            converged_s = happened.converged_s if event == "end" else None
            for each in changes:
                asked_s, confirmed_s = each.asked_s - run.start_s, each.confirmed_s - run.start_s
                taken = each.destroyed_packets, each.destroyed_bytes, reacted_s, converged_s
                port = "controller" if each.port is None else run.ports[each.port].name
                rows.append(
                    (number, fault.kind, event, origin_s + at_s, port, asked_s, confirmed_s, each.rate_bps, *taken)
                )
    types = {"fault": int, "confirmed_s": float, "rate_bps": "Int64", "reacted_s": float, "converged_s": float}
    return pd.DataFrame(rows, columns=_FAULT_COLUMNS).astype(types)


def _queues(run: Evidence[Any]) -> pd.DataFrame:
    queues = run.measured.samples.queues
    names = np.array([port.name for port in run.ports])
    return queues.assign(time_s=queues.time_s - run.start_s, port=names[queues.port.to_numpy(int)])
