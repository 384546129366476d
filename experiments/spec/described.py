"""Every key of an experiment file: what it is for, what it takes, and what holds without it.

What a key takes and its default come from the schema, so from the fields that check files; here is only what it is for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from inspect import getdoc
from typing import Any, NamedTuple

from experiments.spec.schema import experiment_schema
from traffic.strain import STRAINS

MEANINGS = {
    "name": "the experiment's name; without it, the file's",
    "fabric": "the leaf-spine fabric",
    "fabric.leaves": "leaf switches, each joined to every spine by one link",
    "fabric.spines": "spine switches, so paths between two leaves",
    "fabric.hosts_per_leaf": "hosts at each leaf",
    "fabric.mtu": "the largest IP packet",
    "fabric.host_rate": "rate of a host's link, each way",
    "fabric.fabric_rate": "rate of a link between leaf and spine; without it, the hosts'",
    "fabric.spine_rates": "spines whose links have another rate",
    "fabric.failed": "links that are broken from the start",
    "fabric.queue": "room of every port's queue",
    "fabric.dataplane": "what forwards packets",
    "fabric.burst": "frames of a connection that may travel as one",
    "fabric.scale": "by how much slower than written it is emulated",
    "traffic": "what is sent: one entry a collective, matrix, trace or job, each replayed on its own",
    "traffic.*.collective": "what ranks do together",
    "traffic.*.algorithm": "how they do it; without it, the collective's first",
    "traffic.*.channels": "into how many parts each message is divided, as NCCL's channels do",
    "traffic.*.size": "the message, as nccl-tests counts it",
    "traffic.*.chunks": "into how many pieces a message is cut that follow each other",
    "traffic.*.window": "how many flows a rank has under way at most",
    "traffic.*.order": "in which order a rank serves the others",
    "traffic.*.shift": "how many ranks on a permutation sends",
    "traffic.*.together": "entries that run at the same time",
    "traffic.*.hosts": "where each of them lives",
    "traffic.*.start": "when each of them begins",
    "traffic.*.straggler": "how much slower rank 0 computes",
    "traffic.*.scale": "what bytes are multiplied by",
    "traffic.*.network": "the real cluster's link rate, from which computing follows",
    "traffic.*.job": "how a model is trained",
    "traffic.*.model": "which one",
    "traffic.*.ranks": "how many ranks; without it, one a host; of entries at the same time, whether on the same",
    "traffic.*.compute": "computing of an iteration on the real machine",
    "traffic.*.iterations": "how many are trained",
    "traffic.*.tokens": "tokens a rank and iteration",
    "traffic.*.group": "ranks of a tensor, pipeline or expert group",
    "traffic.*.microbatches": "parts of a pipeline's batch",
    "traffic.*.gradient_bytes": "bytes of a gradient's number",
    "traffic.*.weight_bytes": "bytes of a weight's number",
    "traffic.*.update": "the part of computing after the last gradient",
    "traffic.*.overlap": "whether gradients are sent while others are computed",
    "traffic.*.sequence_parallel": "whether AllGather and ReduceScatter take AllReduce's place",
    "traffic.*.skew": "how much more than the mean the fullest expert gets",
    "traffic.*.requests": "how many requests to a pool of servers",
    "traffic.*.clients": "who asks",
    "traffic.*.pool": "servers",
    "traffic.*.at_once": "requests under way at most",
    "traffic.*.up": "size of a request",
    "traffic.*.down": "size of an answer",
    "traffic.*.serve": "how long one is served",
    "traffic.*.matrix": "an htsim connection matrix",
    "traffic.*.nodes": "which hosts of it are ranks",
    "traffic.*.table": "a plain table of flows and computations",
    "traffic.*.hpcc": "a flow file of HPCC's family of simulators",
    "traffic.*.goal": "a GOAL schedule of LogGOPSim",
    "traffic.*.receives": "whether a send waits for its receive",
    "traffic.*.astra": "a training job as ASTRA-sim's text",
    "traffic.*.simai": "a training job as SimAI's text",
    "traffic.*.inspector": "a real job, as lines of NCCL's inspector",
    "traffic.*.chakra": "Chakra execution traces, a zip of a file a rank",
    "traffic.*.unit": "unit of the file's computing times",
    "traffic.*.allgather": "whether its sizes are a rank's shard or the total",
    "traffic.*.inner": "ranks of the inner dimension",
    "traffic.*.compute_scale": "what the file's computing is multiplied by",
    "schemes": "how bytes meet paths; the verdict compares ecmp, spray and ethereal",
    "transport": "how the hosts' TCP is set up",
    "transport.congestion_control": "which of the kernel's",
    "transport.windows": "fitted: cutting a flow does not multiply what is in flight; default: the kernel's",
    "transport.acknowledgements": "whether they overtake data at every port",
    "transport.reordering": "tolerant: TCP waits for late packets; default: it takes them for lost",
    "replay": "how what sends the traffic is run",
    "replay.processes": "how many processes drive the sockets",
    "placement": "which rank is on which host",
    "seeds": "each fixes every path that is hashed; several show how far results spread",
    "captures": "which ports' packet headers are written to files",
    "faults": "what breaks, when and for how long",
    "reaction": "what is done about links that are down",
    "reaction.network": "whether leaves avoid them",
    "reaction.detect": "how long until that is known",
    "reaction.hosts": "whether senders move a connection that makes no progress",
    "reaction.hosts.repath_after": "how long without progress",
    "reaction.hosts.mask": "how long they then avoid the path",
    "verify": "whether real numbers are carried and sums checked",
    "strain": "what takes away some of what makes a single path do well",
    "stall_timeout": "a run in which nothing arrives for so long ends",
    "sweep": "several values of any keys, by their paths",
    "sweep.zip": "whether first goes with first, instead of every combination",
}
"""What keys are for, by their paths; `*` stands for any entry of a list."""


class Key(NamedTuple):
    """One key: its path, what it is for, what it takes, and its default as a file would have it."""

    path: str
    means: str
    takes: str
    default: str


def described_keys() -> list[Key]:
    """Return every key, in the order of the schema, each once: with what all kinds of entries say that have it."""
    schema = experiment_schema()
    takes: defaultdict[str, list[str]] = defaultdict(list)
    defaults: defaultdict[str, list[str]] = defaultdict(list)
    for path, said in _walked(schema, schema["$defs"], ()):
        if "together.*" not in path:  # the same entries again
            takes[path].append(said.get("description", "true or false"))
            defaults[path].append(_default(said))
    return [Key(path, _meaning(path), _either(takes[path]), _either(defaults[path])) for path in takes]


def _either(said: list[str]) -> str:
    return " or ".join(filter(None, dict.fromkeys(said)))


def _walked(node: Mapping[str, Any], parts: Mapping[str, Any], at: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if "$ref" in node:
        node = parts[node["$ref"].rpartition("/")[2]]
    for other in node.get("anyOf", []):
        yield from _walked(other, parts, at)
    for name, said in node.get("properties", {}).items():
        if said:  # False: there must be no such key
            yield ".".join((*at, name)), said
            yield from _walked(said, parts, (*at, name))
    if isinstance(node.get("items"), dict):
        yield from _walked(node["items"], parts, (*at, "*"))


def _meaning(path: str) -> str:
    strains = {f"strain.{kind.key}": (getdoc(kind) or "").splitlines()[0].rstrip(".") for kind in STRAINS}
    return strains.get(path) or MEANINGS.get(path, "")


def _default(said: Mapping[str, Any]) -> str:
    default = said.get("default")
    if default is None or isinstance(default, dict) or default == []:
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    return f"[{', '.join(map(str, default))}]" if isinstance(default, list) else str(default)
