"""From a raw measurement to numbers with a verdict: one row of `runs.csv`, and the frames behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from emulator.ports import Port
from emulator.topology import LeafSpine
from experiments.judge.fidelity import Observed, Run, drops_packets, failures, least_idle, samples_within
from experiments.theory.loads import LinkBytes, ratio_to_ideal
from experiments.theory.prediction import Predicted, agreement, predicted_columns

PASS, FAIL = "pass", "fail"


@dataclass(frozen=True)
class Judged:
    """One run: its row, and per flow, subflow, port and queue sample what it is made of."""

    row: Mapping[str, Any]
    flows: pd.DataFrame
    subflows: pd.DataFrame
    links: pd.DataFrame
    queues: pd.DataFrame

    captures: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    def frames(self) -> dict[str, pd.DataFrame]:
        """By the name under which results keep them."""
        own = {"flows": self.flows, "subflows": self.subflows, "links": self.links, "queues": self.queues}
        return {**own, **{f"captured_{name}": frame for name, frame in self.captures.items()}}


def judge(run: Run, fabric: LeafSpine, identity: Mapping[str, Any], predicted: Predicted | None = None) -> Judged:
    """Make the row of `run` and the frames behind it.

    `identity` is what the row says of the run before it ran: its id, experiment, scheme, seed, data plane; `predicted`
    is what theory expected of it, and its columns stay empty for None.
    """
    schedule, replay = run.plan.schedule, run.measured.replay
    flows = _flows(run)
    links = links_of(run)
    failed = failures(run)
    row = {
        **identity,
        "flows": len(schedule.flows),
        "subflows": len(run.plan.subflows),
        "cut_flows": run.plan.cut_flows,
        "cct_s": replay.cct_s,
        "bound_s": run.bound_s,
        "cct_over_bound": replay.cct_s / run.bound_s,
        **predicted_columns(predicted),
        **agreement(replay.cct_s, predicted),
        "algbw_bps": schedule.size_bytes * 8 / replay.cct_s,
        "busbw_bps": schedule.size_bytes * 8 / replay.cct_s * schedule.busbw_factor,
        "congestion_ratio": measured_congestion_ratio(run.ports, links, fabric),
        "fct_p50_s": flows.fct_s.quantile(0.5),
        "fct_p99_s": flows.fct_s.quantile(0.99),
        "retransmitted_segments": sum(subflow.retransmitted_segments for subflow in replay.subflows),
        "timeouts": sum(subflow.timeouts for subflow in replay.subflows),
        "out_of_order_segments": sum(subflow.out_of_order_segments for subflow in replay.subflows),
        "drops_packets": int(links.drops_packets.sum()),
        "queue_peak_bytes": int(links.queue_peak_bytes.max()),
        "cpu_idle_min": least_idle(samples_within(run)),
        "verified": "" if replay.data_problems is None else "wrong" if replay.data_problems else "right",
        "fidelity": FAIL if failed else PASS,
        "fidelity_reasons": summary(failed),
    }
    captures = run.captured.frames if run.captured else {}
    return Judged(row, flows, _subflows(run), links, _queues(run), captures)


def measured_congestion_ratio(ports: Sequence[Port], links: pd.DataFrame, fabric: LeafSpine) -> float:
    """Most loaded fabric link's bytes over what the fullest would carry had each leaf's bytes been spread equally."""
    loads = LinkBytes(np.zeros((fabric.leaves, fabric.spines)), np.zeros((fabric.leaves, fabric.spines)))
    for port, sent_bytes in zip(ports, links.tx_bytes, strict=True):
        if port.spine is not None:
            (loads.up if port.up else loads.down)[port.leaf, port.spine] = sent_bytes
    return ratio_to_ideal(loads, LinkBytes(*(load.mean(axis=1, keepdims=True) for load in loads)))


def summary(failed: Mapping[str, Sequence[str]]) -> str:
    """The invariants that failed, each with its first reason."""
    return "; ".join(
        f"{name}: {reasons[0]}" + (f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else "")
        for name, reasons in failed.items()
    )


def _flows(run: Run) -> pd.DataFrame:
    replay, plan = run.measured.replay, run.plan
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
            "start_s": replay.started_s[flow.id] - run.start_s,
            "fct_s": replay.finished_s[flow.id] - replay.started_s[flow.id],
        }
        for flow in plan.schedule.flows
    )


def _subflows(run: Run) -> pd.DataFrame:
    results = pd.DataFrame(run.measured.replay.subflows)
    planned = pd.DataFrame(run.plan.subflows).rename(columns={"id": "subflow"})
    return pd.concat([planned, results], axis=1)


def links_of(run: Observed) -> pd.DataFrame:
    """What every port carried and lost, a row each."""
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
            "rate_bps": [port.shaping.rate_bps for port in run.ports],
            "tx_bytes": delta.tx_bytes,
            "tx_packets": delta.tx_packets,
            "rx_packets": delta.rx_packets,
            "drops_packets": drops_packets(run.measured, len(run.ports)),
            "queue_peak_bytes": peaks.reindex(range(len(run.ports)), fill_value=0).to_numpy(),
        }
    )


def _queues(run: Run) -> pd.DataFrame:
    queues = run.measured.samples.queues
    names = np.array([port.name for port in run.ports])
    return queues.assign(time_s=queues.time_s - run.start_s, port=names[queues.port.to_numpy(int)])
