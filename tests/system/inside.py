"""What the system tests do inside the sandbox. Each function returns plain numbers; the tests assert."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from controllers.dataplane import build as made
from emulator.errors import EmulatorError
from emulator.fabric import Fabric
from emulator.meters.meters import Sampler, read_counters, settled_counters
from emulator.namespaces import inside
from emulator.netlink import interface_up
from emulator.nic import PerPacket, at_work
from emulator.topology import LeafSpine, Link
from experiments.runs.loads.replays import ReplayLoad
from experiments.runs.messages import played
from traffic.connections import NamespaceSockets
from traffic.payload import RealData
from traffic.plan import Connection, Piece, TrafficPlan, plan_traffic
from traffic.replay import Replay
from traffic.schedule import Flow, Schedule
from traffic.schemes import scheme_of
from traffic.transport import Transport
from traffic.watch import Far


def schedule_of(fabric: LeafSpine, pairs: Sequence[tuple[int, int]], size_bytes: int) -> Schedule:
    """One flow for each (source, destination), all at once."""
    flows = [Flow(number, src, dst, size_bytes, channel=number) for number, (src, dst) in enumerate(pairs)]
    return Schedule("test", "test", fabric.hosts, 1, size_bytes, flows)


def tagged(fabric: LeafSpine, src: int, dst: int, spine: int, size_bytes: int) -> TrafficPlan:
    """One flow over one connection whose path is `spine`."""
    connection = Connection(0, src, dst, 10_000, spine + 1)
    schedule = schedule_of(fabric, [(src, dst)], size_bytes)
    return TrafficPlan(schedule, range(fabric.hosts), scheme_of("ethereal"), [connection], [Piece(0, 0, 0, size_bytes)])


def build(topology: LeafSpine, transport: Transport | None = None, seed: int = 1, dataplane: str = "auto") -> Fabric:
    return made((transport or Transport()).order(topology, dataplane), sys.stderr, seed)


def uplink_bytes(fabric: Fabric, before: Any, after: Any) -> np.ndarray:
    """Bytes sent up, by leaf and spine."""
    return _on_uplinks(fabric, after.tx_bytes - before.tx_bytes)


def uplink_packets(fabric: Fabric, before: Any, after: Any) -> np.ndarray:
    """Packets sent up, by leaf and spine."""
    return _on_uplinks(fabric, after.tx_packets - before.tx_packets)


def _on_uplinks(fabric: Fabric, counted: Any) -> np.ndarray:
    loads = np.zeros((fabric.topology.leaves, fabric.topology.spines))
    for number, port in enumerate(fabric.ports):
        if port.spine is not None and port.up:
            loads[port.leaf, port.spine] = counted.iloc[number]
    return loads


def play(fabric: Fabric, plan: TrafficPlan, transport: Transport | None = None) -> tuple[float, np.ndarray]:
    """CCT in seconds and uplink bytes of one replay."""
    sockets = NamespaceSockets(fabric.topology, fabric.host_pids)
    with Replay(plan, fabric.topology, sockets, transport or Transport()) as replay:
        before = settled_counters(fabric)
        result = played(replay.run())
        return result.cct_s, uplink_bytes(fabric, before, settled_counters(fabric))


def verified(topology: LeafSpine, dataplane: str, schedule: Schedule, scheme: str) -> tuple[list[str], int, int]:
    """What is wrong with the data of a replay, how many flows began too early, and how many had to wait for others."""
    fabric = build(topology, dataplane=dataplane)
    plan = plan_traffic(schedule, topology, range(topology.hosts), scheme_of(scheme))
    sockets = NamespaceSockets(topology, fabric.host_pids)
    with Replay(plan, topology, sockets, Transport(), RealData(plan, seed=5)) as replay:
        result = played(replay.run())
    waits = [(flow.id, awaited) for flow in schedule.flows for awaited in flow.waits_for]
    early = sum(result.started_s[flow] < result.finished_s[awaited] for flow, awaited in waits)
    return list(result.data_problems or []), early, len(waits)


def shaping_found(topology: LeafSpine, dataplane: str) -> dict[str, Any]:
    fabric = build(topology, dataplane=dataplane)
    found = fabric.read_shaping()
    shaped = [(port, shaping) for port in fabric.ports if (shaping := found[port.name])]
    return {
        "wrong_rate": [port.name for port, shaping in shaped if shaping.rate_bps != port.shaping.rate_bps],
        "wrong_queue": [port.name for port, shaping in shaped if shaping.queue_bytes != port.shaping.queue_bytes],
        "unshaped": [p.name for p in fabric.ports if found[p.name] is None],
        "ports": len(fabric.ports),
        "dataplane": fabric.plane.name,
        "buffer_bytes": fabric.buffer_bytes,
    }


def saturate_one_link(topology: LeafSpine, dataplane: str, seconds: float) -> list[float]:
    """Wire rate in bits/s of the sending host's port, window by window, while one flow fills it."""
    fabric = build(topology, dataplane=dataplane)
    transport = Transport(windows="default")
    size_bytes = int(topology.host_rate_bps / 8 * seconds)
    sampler = Sampler(fabric, sys.stderr)
    sampler.start()
    play(fabric, tagged(topology, 0, topology.hosts - 1, 0, size_bytes), transport)
    queues = sampler.stop().queues
    number = next(n for n, port in enumerate(fabric.ports) if port.host == 0 and port.up)
    samples = queues[queues.port == number]
    middle = samples[(samples.backlog_bytes > 0)]
    steps = middle.iloc[::10]
    return list(np.diff(steps.sent_bytes) * 8 / np.diff(steps.time_s))


def tagged_paths(topology: LeafSpine, dataplane: str, size_bytes: int) -> list[tuple[int, np.ndarray]]:
    """For every spine: the uplink bytes of a connection pinned to it, both leaves."""
    fabric = build(topology, dataplane=dataplane)
    return [
        (spine, play(fabric, tagged(topology, 0, topology.hosts - 1, spine, size_bytes))[1])
        for spine in range(topology.spines)
    ]


def sprayed(topology: LeafSpine, dataplane: str, size_bytes: int) -> np.ndarray:
    """Uplink bytes when every host sprays to the host in the same place of the next leaf."""
    fabric = build(topology, dataplane=dataplane)
    with at_work(PerPacket("round-robin"), fabric, seed=1):
        return play(fabric, shifted(topology, "spray", size_bytes))[1]


def on_uplinks(
    topology: LeafSpine, dataplane: str, scheme: str, pairs: Sequence[tuple[int, int]], size_bytes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Packets and bytes on every uplink under a scheme: of one flow for each (source, destination)."""
    fabric = build(topology, dataplane=dataplane)
    schedule = schedule_of(topology, pairs, size_bytes)
    load = ReplayLoad(plan_traffic(schedule, topology, range(topology.hosts), scheme_of(scheme)), Transport())
    before = settled_counters(fabric)
    fabric.program(1, load.hashed, forwarding=load.forwarding)
    with load.ready(fabric, 1) as ready:
        for _ in ready():
            pass
    after = settled_counters(fabric)
    return uplink_packets(fabric, before, after), uplink_bytes(fabric, before, after)


def refused_flowlets(topology: LeafSpine) -> str:
    """What a run of flowlets says on Open vSwitch."""
    try:
        on_uplinks(topology, "ovs", "flowlet-100ms", [(0, topology.hosts - 1)], 1000)
    except EmulatorError as error:
        return str(error)
    return "it ran"


def overtaken(topology: LeafSpine, dataplane: str, bulk: int) -> int:
    """How many of `bulk` waiting datagrams of a host one as short as an acknowledgement overtakes."""
    fabric = build(topology, dataplane=dataplane)
    ends = []
    for host in (0, 0, topology.hosts - 1):
        with inside(fabric.host_pids[host]):
            ends.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    ordinary, urgent, receiver = ends
    receiver.bind(("", 4000))
    receiver.settimeout(10)
    address = (topology.host_ip(topology.hosts - 1), 4000)
    for _ in range(bulk):
        ordinary.sendto(bytes(8000), address)
    urgent.sendto(b"urgent", address)
    arrived = [receiver.recv(9000) for _ in range(bulk + 1)]
    for end in ends:
        end.close()
    return bulk - arrived.index(b"urgent")


def sent_by_hosts(topology: LeafSpine, dataplane: str, size_bytes: int) -> dict[str, tuple[float, float]]:
    """By scheme: bytes that a host sent, as its port counted them, and bytes a packet, as its interface saw them."""
    fabric = build(topology, dataplane=dataplane)
    ports = [number for number, port in enumerate(fabric.ports) if port.at_host]
    found = {}
    for scheme in ("ethereal", "spray", "ethereal"):  # and afterwards, frames travel together again
        plan = shifted(topology, scheme, size_bytes)
        with at_work(plan.scheme.nic, fabric, seed=1):
            before = read_counters(fabric)
            play(fabric, plan)
            delta = (settled_counters(fabric) - before).iloc[ports].mean()
        found[scheme] = (float(delta.tx_bytes), float(delta.tx_bytes / delta.tx_packets))
    return found


def shifted(topology: LeafSpine, scheme: str, size_bytes: int) -> TrafficPlan:
    hosts = topology.hosts
    pairs = [(host, (host + topology.hosts_per_leaf) % hosts) for host in range(hosts)]
    return plan_traffic(schedule_of(topology, pairs, size_bytes), topology, range(hosts), scheme_of(scheme))


def subflows_by_uplink(
    topology: LeafSpine,
    dataplane: str,
    runs: Sequence[tuple[str, int]],
    size_bytes: int,
    failed: frozenset[Link] = frozenset(),
) -> list[np.ndarray]:
    """Subflows on every uplink, as bytes tell, when every host sends to its counterpart, for each (scheme, seed)."""
    fabric = build(topology, seed=runs[0][1], dataplane=dataplane)
    loads = []
    for scheme, seed in runs:
        left = topology.without(failed)
        plan = shifted(left, scheme, size_bytes)
        replay = ReplayLoad(plan, Transport())
        fabric.program(seed, replay.hashed, left, replay.forwarding)
        _, load = play(fabric, plan)
        # Acknowledgements, and what TCP sends twice, are less than a subflow.
        loads.append(np.floor(load / topology.wire_bytes(plan.pieces[0].size_bytes)))
    return loads


def switch_comes_back(topology: LeafSpine) -> tuple[int, int, int]:
    """Rules of a leaf before it is told to forget them and its controller, right after, and once it is back."""
    build(topology, dataplane="ovs")

    def rules() -> int:
        flows = subprocess.run(
            ["ovs-ofctl", "-OOpenFlow13", "dump-flows", "leaf1"], capture_output=True, text=True, check=True, timeout=10
        ).stdout
        return flows.count("priority=")

    before = rules()
    subprocess.run(["ovs-vsctl", "del-controller", "leaf1"], check=True, timeout=10)
    subprocess.run(["ovs-ofctl", "-OOpenFlow13", "del-flows", "leaf1"], check=True, timeout=10)
    forgotten = rules()
    subprocess.run(["ovs-vsctl", "set-controller", "leaf1", "tcp:127.0.0.1:6653"], check=True, timeout=10)
    deadline = time.monotonic() + 10
    while rules() < before and time.monotonic() < deadline:
        time.sleep(0.05)
    return before, forgotten, rules()


def late_switch(topology: LeafSpine) -> int:
    """Rules of a spine that first connects after the fabric was programmed."""
    kind = "system" if build(topology, dataplane="ovs").plane.name == "ovs-kernel" else "netdev"
    name, dpid = "late", f"{topology.spine_dpid(topology.spines):016x}"
    subprocess.run(
        [
            "ovs-vsctl", "add-br", name, "--", "set", "bridge", name, f"datapath_type={kind}", "protocols=OpenFlow13",
            f"other-config:datapath-id={dpid}", "fail_mode=secure", "--", "set-controller", name, "tcp:127.0.0.1:6653",
        ],
        check=True, timeout=10,
    )  # fmt: skip
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        flows = subprocess.run(
            ["ovs-ofctl", "-OOpenFlow13", "dump-flows", name], capture_output=True, text=True, check=True, timeout=10
        ).stdout
        if count := flows.count("priority="):
            return count
        time.sleep(0.05)
    return 0


def cut_off(topology: LeafSpine) -> str:
    """What a run says whose receiver loses its link half-way."""
    fabric = build(topology)
    plan = tagged(topology, 0, topology.hosts - 1, 0, topology.host_rate_bps // 8 * 4)
    port = next(port for port in fabric.ports if port.host == topology.hosts - 1 and not port.up)
    sockets = NamespaceSockets(topology, fabric.host_pids)
    try:
        with Replay(plan, topology, sockets, Transport(stall_timeout_s=1.0)) as replay:
            for far in replay.run():
                if far.share > 0.1:
                    fabric.netlink[port.node].send([interface_up(port.index, up=False)])
    except EmulatorError as error:
        return str(error)
    return "it finished"


def stray_packets(topology: LeafSpine, dataplane: str, seconds: float) -> int:
    """Packets that cross any port of an idle fabric."""
    fabric = build(topology, dataplane=dataplane)
    before = settled_counters(fabric)
    time.sleep(seconds)
    return int((read_counters(fabric) - before).to_numpy().sum())


def no_such_congestion_control(topology: LeafSpine) -> str:
    fabric = build(topology)
    try:
        play(fabric, tagged(topology, 0, topology.hosts - 1, 0, 1000), Transport(congestion_control="nosuch"))
    except EmulatorError as error:
        return str(error)
    return "it ran"


def unknown_address(topology: LeafSpine, dataplane: str) -> int:
    """Bytes that a datagram to an address nobody has causes on all fabric links."""
    fabric = build(topology, dataplane=dataplane)
    before = settled_counters(fabric)
    with inside(fabric.host_pids[0]), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x" * 1000, ("10.1.0.200", 9))
    return int(uplink_bytes(fabric, before, settled_counters(fabric)).sum())


def by_command_line(topology: LeafSpine, dataplane: str) -> tuple[str, str, set[str]]:
    """What Mininet's own commands say: a host's addresses, a leaf's last port, the state of all links."""
    net = build(topology, dataplane=dataplane).net
    leaf = topology.leaf_name(topology.leaves - 1)
    last_port = f"{leaf}-eth{topology.leaf_port_to_spine(topology.spines - 1)}"
    return (
        net[topology.host_name(0)].cmd("ip -o -4 addr"),
        net[leaf].cmd("ip", "-o", "link", "show", last_port),
        {link.status() for link in net.links},
    )


def reprogrammed(topology: LeafSpine, dataplane: str) -> tuple[int, int, int]:
    """How often leaves were told to avoid a link and to use it again while a connection used another; packets that left
    no trace meanwhile, and segments sent again.
    """
    fabric = build(topology, dataplane=dataplane)
    plan = tagged(topology, 0, topology.hosts - 1, topology.spines - 1, topology.host_rate_bps // 8)
    before = settled_counters(fabric)
    with Replay(plan, topology, NamespaceSockets(topology, fabric.host_pids), Transport()) as replay:
        times = 0

        def again(_far: Far) -> None:
            nonlocal times
            for links in ([(0, 0)], []):
                fabric.avoid(links)
                times += 1

        result = played(replay.run(), again)
    delta = settled_counters(fabric) - before
    at_switches = [number for number, port in enumerate(fabric.ports) if not port.at_host]
    astray = int(delta.rx_packets.iloc[at_switches].sum() - delta.tx_packets.iloc[at_switches].sum())
    return times, astray, sum(each.retransmitted_segments for each in result.connections)


def controller_returns(topology: LeafSpine) -> tuple[float, float, int]:
    """How old a switch's youngest rule is once its controller was killed while a connection played, and has come back;
    how long ago it was killed; and segments sent again.
    """
    fabric = build(topology, dataplane="ovs")
    plan = tagged(topology, 0, topology.hosts - 1, 0, topology.host_rate_bps // 8 * 2)
    with Replay(plan, topology, NamespaceSockets(topology, fabric.host_pids), Transport()) as replay:
        steps, begun_s = replay.run(), time.monotonic()
        while time.monotonic() < begun_s + 1:  # so that rules are older than what happens then
            next(steps)
        killed_s = time.monotonic()
        fabric.plane.lose_controller()
        next(steps)
        fabric.plane.restore_controller()
        result = played(steps)
        fabric.avoid(())
    said = [
        subprocess.run(
            ["ovs-ofctl", "-OOpenFlow13", "dump-flows", switch], capture_output=True, text=True, check=True, timeout=10
        ).stdout
        for switch in ("leaf1", "spine1")
    ]
    ages_s = [float(age) for each in said for age in re.findall(r"duration=([\d.]+)s", each)]
    return min(ages_s), time.monotonic() - killed_s, sum(each.retransmitted_segments for each in result.connections)
