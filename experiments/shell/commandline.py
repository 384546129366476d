"""Mininet's command line on the running fabric, with commands that look at it: links, queues, paths."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import numpy as np
from mininet.cli import CLI
from mininet.log import lg, output, setLogLevel

from controllers.hashing import hashed_spines
from emulator.errors import EmulatorError
from emulator.fabric import Fabric
from emulator.faults import Down, Reaction
from emulator.faults.fault import InForce
from emulator.faults.reaction import Reactor
from emulator.meters.meters import Sampler, read_counters
from emulator.topology import Link
from experiments.shell.throughput import SECONDS, goodput_bps

_LOOK_S = 0.12  # two samples


class SpraylabCLI(CLI):
    """Reads commands from standard input; with `lines`, performs those instead."""

    prompt = "spraylab> "
    helpStr = (
        "On a host:  h1 ping -c1 h5    names of hosts stand for their addresses\n"
        "The fabric: links             every fabric link: bytes so far, part of its rate used since last asked\n"
        "            queues            what waits at every port now, and what was ever dropped\n"
        "            link leaf1 spine1 down    it fails, and who reacts is up to the experiment; up mends it\n"
        "            iperf h1 h9       how fast one TCP connection between two hosts is\n"
        "            paths h1 h9       every path between two hosts, and the tag that names it\n"
        "            paths h1 h9 40000 5201    and which of them ECMP picks for these TCP ports\n"
    )

    def __init__(
        self,
        fabric: Fabric,
        sampler: Sampler,
        reaction: Reaction | None,
        seed: int,
        lines: Sequence[str] | None,
    ) -> None:
        self._reactor, self._down = Reactor(reaction, fabric), dict[Link, InForce]()
        self._fabric, self._sampler, self._seed, self._lines = fabric, sampler, seed, lines
        self._looked_s, self._sent = time.monotonic(), read_counters(fabric).tx_bytes.to_numpy()
        self._first = self._sent
        super().__init__(fabric.net, stdin=sys.stdin, stdout=sys.stdout)

    @classmethod
    def initReadline(cls) -> None:
        """Editing and history, but no file of it: the fabric's end is the end of everything."""
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401

    def run(self) -> None:
        if self._lines is None:
            super().run()
            return
        for line in self._lines:
            if self.onecmd(self.precmd(line)):
                return

    def do_links(self, _line: str) -> None:
        """Every fabric link, each way: bytes since the fabric was made, part of the rate used since the last call."""
        now, sent, waiting = time.monotonic(), read_counters(self._fabric).tx_bytes.to_numpy(), self._queues()[0]
        passed_s = max(now - self._looked_s, 1e-3)
        used = (sent - self._sent) * 8 / passed_s
        total = sent - self._first
        self._looked_s, self._sent = now, sent
        output(f"utilisation over the last {passed_s:.1f} s\n")
        ways = "".join(f"{f'{way}: MB':>12}{'used':>7}{'queue KB':>10}" for way in ("up", "down"))
        output(f"{'link':16}{'rate':>10}{ways}\n")
        for number, port in enumerate(self._fabric.ports):
            if port.spine is None or not port.up:
                continue
            rate_bps = port.shaping.rate_bps
            row = f"{port.node}-{port.peer.partition('-')[0]:<10}"
            output(f"{row:16}{rate_bps / 1e6:>5g} Mb/s")
            for end in (number, number + 1):  # the two ends of a link follow each other
                part = used[end] / rate_bps
                output(f"{total[end] / 1e6:>12.3f}{part:>7.0%}{waiting[end] / 1e3:>10.1f}")
            down = {*self._down, *self._fabric.topology.failed}
            output("  down\n" if (port.leaf, port.spine) in down else "\n")

    def do_link(self, line: str) -> None:
        """Take a link out of use, or into it again. Usage: link leaf1 spine1 down

        A fabric link loses all that it is given, and the network reacts as the experiment says; a host's goes down as
        Mininet's do.
        """
        words, topology = line.split(), self._fabric.topology
        named = {
            (topology.leaf_name(leaf), topology.spine_name(spine)): (leaf, spine) for leaf, spine in topology.links()
        }
        link = next((named[ends] for ends in (tuple(words[:2]), tuple(words[1::-1])) if ends in named), None)
        if link is None or words[2:] not in (["down"], ["up"]):
            super().do_link(line)
            return
        if link in topology.failed:
            output(f"{'-'.join(words[:2])} has failed from the start (fabric.failed), and stays so\n")
            return
        try:
            if words[2] == "down" and link not in self._down:
                self._down[link] = Down(at_s=0.0, links=(link,)).begin(self._fabric)
            elif words[2] == "up" and link in self._down:
                self._down.pop(link).end()
            self._reactor.heard(time.monotonic(), self._down)
        except EmulatorError as error:
            output(f"{error}\n")

    def do_iperf(self, line: str) -> None:
        """How fast one TCP connection is, in two seconds. Usage: iperf HOST HOST"""
        words = line.split()
        if len(words) != 2:
            output("usage: iperf HOST HOST, such as: iperf h1 h9\n")
            return
        try:
            sender, receiver = self._path_arguments(words)
            rate_bps = goodput_bps(self._fabric, sender, receiver)
        except (ValueError, EmulatorError) as error:
            output(f"{error}\n")
            return
        output(f"{rate_bps / 1e6:.3g} Mb/s of payload arrived in {SECONDS:g} s\n")

    def do_queues(self, _line: str) -> None:
        """What waits at every port now, and packets dropped so far. Ports with neither are left out."""
        waiting, drops = self._queues()
        busy = [number for number in range(len(waiting)) if waiting[number] or drops[number]]
        if not busy:
            output(f"nothing waits at any of {len(waiting)} ports, and nothing was ever dropped\n")
            return
        output(f"{'port':16}{'to':16}{'waiting KB':>12}{'of KB':>8}{'dropped packets':>17}\n")
        for number in busy:
            port = self._fabric.ports[number]
            kept = f"{waiting[number] / 1e3:>12.1f}{port.shaping.queue_bytes / 1e3:>8g}"
            output(f"{port.name:16}{port.peer:16}{kept}{drops[number]:>17}\n")

    def do_paths(self, line: str) -> None:
        """Every path between two hosts. Usage: paths HOST HOST [SOURCE-PORT DESTINATION-PORT]"""
        try:
            sender, receiver, *ports = self._path_arguments(line.split())
        except ValueError as error:
            output(f"{error}\n")
            return
        topology = self._fabric.topology
        src_leaf, dst_leaf = topology.leaf_of(sender), topology.leaf_of(receiver)
        ends = {(port.leaf, port.spine, port.host, port.up): port for port in self._fabric.ports}
        first, last = ends[src_leaf, None, sender, True].name, ends[dst_leaf, None, receiver, False].name
        if src_leaf == dst_leaf:
            output(f"one path, within {topology.leaf_name(src_leaf)}: {first} -> {last}\n")
            return
        output(f"{'tag':>4} {'DSCP':>5} {'ToS':>5}  interfaces that send\n")
        for spine in topology.live_spines(src_leaf, dst_leaf):
            up, down = ends[src_leaf, spine, None, True].name, ends[dst_leaf, spine, None, False].name
            tag = spine + 1
            output(f"{tag:>4} {tag:>5} {tag << 2:>#5x}  {first} -> {up} -> {down} -> {last}\n")
        if ports:
            output(self._hashed(sender, receiver, ports) + "\n")

    def do_xterm(self, *_: Any, **__: Any) -> None:
        """There is none here."""
        output("no windows here: type HOST COMMAND, such as h1 ping -c1 h5\n")

    do_x = do_gterm = do_xterm

    def _path_arguments(self, words: list[str]) -> list[int]:
        topology = self._fabric.topology
        hosts = {topology.host_name(host): host for host in range(topology.hosts)}
        if len(words) not in (2, 4):
            raise ValueError("usage: paths HOST HOST [SOURCE-PORT DESTINATION-PORT], such as: paths h1 h9 40000 5201")
        for name in words[:2]:
            if name not in hosts:
                raise ValueError(f"{name} is no host: they are h1 to h{topology.hosts}")
        for port in words[2:]:
            if not (port.isdecimal() and int(port) <= 65_535):
                raise ValueError(f"{port} is no TCP port: write a number up to 65535")
        if words[0] == words[1]:
            raise ValueError(f"{words[0]} reaches itself without a path: name two hosts")
        return [*(hosts[name] for name in words[:2]), *map(int, words[2:])]

    def _hashed(self, sender: int, receiver: int, ports: Sequence[int]) -> str:
        if not self._fabric.plane.hashes_as_predicted:
            return "the Linux routers' hash cannot be asked: look at links, or use Open vSwitch (fabric.dataplane=ovs)"
        src, dst, src_port, dst_port = (np.array([value]) for value in (sender, receiver, *ports))
        (spine,) = hashed_spines(self._fabric.topology, src, dst, src_port, dst_port, self._seed)
        name = self._fabric.topology.spine_name(int(spine))
        return f"without a tag, ECMP sends TCP port {ports[0]} to {ports[1]} by {name}"

    def _queues(self) -> tuple[np.ndarray, np.ndarray]:
        """Of every port: bytes waiting now, packets dropped so far."""
        self._sampler.start()
        time.sleep(_LOOK_S)
        last = self._sampler.stop().queues.groupby("port").last()
        last = last.reindex(range(len(self._fabric.ports)), fill_value=0)
        return last.backlog_bytes.to_numpy(int), last.drops_packets.to_numpy(int)


def run_shell(
    fabric: Fabric,
    sampler: Sampler,
    reaction: Reaction | None,
    seed: int,
    terminal: int,
    lines: Sequence[str] | None,
) -> None:
    """Inside the sandbox: the command line on the open file `terminal`; `lines` are performed and shown there.

    The network reacts by `reaction` to links that are taken down.
    Raises EmulatorError if what should be a terminal is none, or cannot be written.
    """
    with _standing_at(terminal, controlling=lines is None), _unwritable_is_raised():
        setLogLevel("output")
        try:
            SpraylabCLI(fabric, sampler, reaction, seed, lines)
        finally:
            setLogLevel("error")


@contextlib.contextmanager
def _unwritable_is_raised() -> Iterator[None]:
    """Mininet prints by handlers of logging, which would say themselves, with a traceback, what they could not."""

    def again(_record: object) -> NoReturn:
        raise  # it is called where an exception is handled

    with contextlib.ExitStack() as as_before:
        for handler in lg.handlers:
            as_before.callback(setattr, handler, "handleError", handler.handleError)
            handler.handleError = again
        yield


@contextlib.contextmanager
def _standing_at(terminal: int, *, controlling: bool) -> Iterator[None]:
    """Standard input, output and error are `terminal`; as the controlling one, its Ctrl-C interrupts us."""
    before = [os.dup(number) for number in range(3)]
    streams = sys.stdin, sys.stdout, sys.stderr
    silence, writer = os.pipe()  # an input in which nothing ever comes
    try:
        for stream in streams[1:]:
            stream.flush()
        if controlling:
            os.login_tty(terminal)
        else:
            for number, source in enumerate((silence, terminal, terminal)):
                os.dup2(source, number)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.stdout = io.TextIOWrapper(open(1, "wb", 0, closefd=False), write_through=True)  # noqa: SIM115
        yield
    except OSError as error:
        what = "the terminal cannot be used" if controlling else "standard output cannot be written"
        raise EmulatorError(f"{what}: {error.strerror}") from error
    finally:
        sys.stdin, sys.stdout, sys.stderr = streams
        for number, descriptor in enumerate(before):
            os.dup2(descriptor, number)
        for descriptor in (*before, silence, writer):
            os.close(descriptor)
