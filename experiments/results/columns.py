"""What the columns of a results folder mean: of runs.csv, and of the frames behind it.

A name ends in its unit where it has one: `_s` are seconds, `_bps` bits a second, `_bytes` bytes.
"""

from __future__ import annotations

from collections.abc import Mapping

RUNS = {
    "run_id": "names the run, in all files: its number, traffic, scheme and seed",
    "experiment": "the experiment's name",
    "scheme": "how bytes met paths",
    "traffic": "the entry of the experiment's traffic, as the table and the report call it",
    "collective": "the collective, or the kind of the entry",
    "algorithm": "the collective's algorithm",
    "channels": "how many times each rank's message is divided, as NCCL's channels do",
    "ranks": "members of the collective",
    "leaves": "leaf switches",
    "spines": "spine switches, so paths between two leaves",
    "hosts_per_leaf": "hosts at each leaf",
    "host_rate_bps": "rate of a host's link, as emulated",
    "fabric_rate_bps": "rate of a link between leaf and spine, as emulated",
    "uneven": "spines of another rate and links that failed from the start; empty where there are none",
    "mtu_bytes": "the largest IP packet",
    "burst_frames": "frames of a connection that may travel as one",
    "dataplane": "what forwarded packets",
    "size_bytes": "the message's size, as nccl-tests counts it",
    "seed": "fixes every path that is hashed and all that is drawn",
    "strain": "what of the traffic was strained; the column is there only where something was",
    "flows": "flows of the schedule, another tenant's not counted",
    "subflows": "connections that carried them",
    "cut_flows": "flows that were carried by more than one connection",
    "cct_s": "collective completion time: first send to last byte received",
    "bound_s": "the least that any scheme could take on this fabric",
    "cct_over_bound": "cct_s / bound_s; 1.00 is the best there is",
    "predicted_cct_s": "what the fluid model expects of the same paths",
    "predicted_low_s": "the least it expects if sizes vary a little, or sharing is another",
    "predicted_high_s": "the most it expects then",
    "emulated_over_predicted": "cct_s / predicted_cct_s",
    "explained": "yes where cct_s is within 0.95 of the lowest prediction to 1.10 of the highest, else no",
    "step_s": "median length of a training step",
    "step_over_bound": "the same over the bound's part of each iteration",
    "exposed_s": "what of a step the rank with most of it does not compute",
    "exposed_mean_s": "what of a step ranks do not compute on average",
    "overlap": "share of the time that ranks have flows under way in which they compute as well",
    "job_steps": "where several jobs run together, the step of each, in words",
    "request_p50_s": "median time that requests and their answers were under way, without being served",
    "request_p99_s": "the same, 99 %",
    "algbw_bps": "size over CCT, as nccl-tests has it",
    "busbw_bps": "algbw times the collective's factor, as nccl-tests has it",
    "congestion_ratio": "time the fullest fabric link needs, over the same had all been spread by links' rates",
    "fct_p50_s": "median flow completion time",
    "fct_p99_s": "99 % of flows completed within it",
    "retransmitted_segments": "TCP segments that were sent again",
    "timeouts": "retransmission time-outs",
    "out_of_order_segments": "segments that arrived after later ones",
    "drops_packets": "packets that queues dropped",
    "faults": "what broke, in words",
    "destroyed_packets": "packets that faults took",
    "converged_s": "for how long faults took packets, of the fault that did so longest",
    "queue_peak_bytes": "the fullest any port's queue was",
    "cpu_idle_min": "the least idle share of the machine in any second",
    "verified": "right or wrong, where data was checked",
    "fidelity": "pass, or fail where an invariant does not hold",
    "fidelity_reasons": "which do not, and by how much",
}
"""Of runs.csv after `run`, a row a run. `exec` leaves out what a program does not tell."""

PROGRAM_RUNS = {
    "duration_s": "how long the program took, start-up included",
    "loaded_s": "how long some port was loaded: what schemes are compared by",
    "exit_status": "the program's",
    "wire_bytes": "bytes that hosts sent",
}
"""Of runs.csv after `exec`, besides."""

FRAMES = {
    "flows": {
        "run_id": RUNS["run_id"],
        "flow": "the flow's number in the schedule",
        "src": "rank that sends",
        "dst": "rank that receives",
        "src_host": "its host",
        "dst_host": "the receiver's host",
        "step": "the step of the collective",
        "channel": "the channel",
        "size_bytes": "payload",
        "start_s": "when its first byte was sent, from the collective's start",
        "fct_s": "flow completion time: from then to its last byte received",
    },
    "subflows": {
        "run_id": RUNS["run_id"],
        "subflow": "the connection's number",
        "src_host": "host that sends",
        "dst_host": "host that receives",
        "src_port": "TCP port that it sends from, which a hash takes in",
        "path_tag": "spine + 1 that the sender chose; 0: none, so that the leaf chooses",
        "retransmitted_segments": RUNS["retransmitted_segments"],
        "retransmitted_bytes": "bytes that were sent again",
        "timeouts": RUNS["timeouts"],
        "reordering_seen": "how often the sender's TCP saw packets reordered",
        "out_of_order_segments": RUNS["out_of_order_segments"],
        "received_bytes": "payload that arrived",
        "min_rtt_s": "the least round trip its TCP saw",
        "moves": "how often the sender moved it to another path",
    },
    "links": {
        "run_id": RUNS["run_id"],
        "port": "the sending port's name",
        "node": "what it belongs to",
        "peer": "what is at the other end",
        "leaf": "the leaf of the link",
        "spine": "its spine; empty of a host's link",
        "host": "its host; empty of a fabric link",
        "direction": "up, from host to spine, or down",
        "rate_bps": "rate as emulated; 0 if it failed from the start",
        "tx_bytes": "bytes sent, frames' headers included",
        "tx_packets": "packets sent",
        "rx_packets": "packets that arrived at this port, so of the other direction",
        "drops_packets": RUNS["drops_packets"],
        "queue_peak_bytes": "the fullest its queue was",
    },
    "queues": {
        "run_id": RUNS["run_id"],
        "time_s": "when the sample was taken, from the collective's start",
        "sent_bytes": "bytes sent until then",
        "backlog_bytes": "bytes waiting",
        "drops_packets": "packets dropped until then",
        "port": "the port's name",
    },
    "faults": {
        "run_id": RUNS["run_id"],
        "fault": "its number in the experiment",
        "kind": "its kind",
        "event": "begin or end",
        "due_s": "when it was due, from the collective's start",
        "port": "the port that it changed",
        "asked_s": "when the kernel was asked",
        "confirmed_s": "when the kernel had done so",
        "rate_bps": "the port's rate from then on",
        "destroyed_packets": "packets that it took there",
        "destroyed_bytes": "bytes of them",
        "reacted_s": "when leaves avoided what was down; empty where they did not",
        "converged_s": "for how long packets were lost to it; known at its end",
    },
}
"""Of the frames that are parquet folders: a file a run in each."""


def files() -> dict[str, Mapping[str, str]]:
    """Return what has columns in a results folder, each with its columns and what they mean."""
    frames = {f"{name}.parquet": columns for name, columns in FRAMES.items()}
    return {"runs.csv": RUNS, "runs.csv of exec": PROGRAM_RUNS, **frames}
