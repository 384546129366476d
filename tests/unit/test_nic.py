"""The ruleset of a spraying NIC, read as nftables reads it: what tag does each packet leave with?"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.nic import Order, PerCell, cell_ruleset, connection_ruleset, spray_ruleset
from emulator.topology import MAX_LEAVES, MAX_SPINES, LeafSpine, Link

FABRIC = LeafSpine(leaves=4, spines=4, hosts_per_leaf=3)
FAILED: frozenset[Link] = frozenset({(0, 1), (2, 3)})
DATA_BYTES, ACK_BYTES = 9000, 52

quick = settings(max_examples=50, deadline=None, derandomize=True)


@dataclass
class Numgen:
    """`[meta length > LONGER_THAN] numgen HOW mod N vmap { 0 : goto tag1, ... }`, with the counter it keeps."""

    longer_than: int
    how: str
    turn: list[int]
    count: int = 0

    def next(self) -> int:
        assert self.how == "inc"
        self.count += 1
        return self.turn[(self.count - 1) % len(self.turn)]


class Nic:
    """The chains of a ruleset."""

    def __init__(self, ruleset: str) -> None:
        chains: dict[str, list[str]] = {}
        for line in ruleset.splitlines():
            if match := re.fullmatch(r"  chain (\w+) \{(?: (.*) \})?", line):
                rules = chains[match[1]] = [match[2]] if match[2] else []
            elif line.startswith("    "):
                rules.append(line.strip())
        hook, *out = chains["out"]
        assert "type filter hook postrouting" in hook and "policy accept" in hook
        self.tags = {
            name: int(rules[0].removeprefix("ip dscp set ").rstrip(";"))
            for name, rules in chains.items()
            if name.startswith("tag")
        }
        self.leaves = dict(re.findall(r"(10\.\d+\.0\.0/16) : goto (\w+)", " ".join(out)))
        self.rules = {prefix: [self._numgen(rule) for rule in chains[name]] for prefix, name in self.leaves.items()}

    def _numgen(self, rule: str) -> Numgen:
        match = re.fullmatch(r"(?:meta length > (\d+) )?numgen (inc|random) mod (\d+) vmap \{ (.*) \}", rule)
        assert match, rule
        verdicts = dict(re.findall(r"(\d+) : goto (\w+)", match[4]))
        assert sorted(map(int, verdicts)) == list(range(int(match[3]))), "a verdict for every number there is"
        return Numgen(int(match[1] or 0), match[2], [self.tags[verdicts[str(n)]] for n in range(int(match[3]))])

    def tag(self, destination: str, length_bytes: int) -> int:
        """The first rule that matches decides; a packet that no rule matches keeps what it has."""
        for prefix, rules in self.rules.items():
            if ip_address(destination) in ip_network(prefix):
                for rule in rules:
                    if length_bytes > rule.longer_than:
                        return rule.next()
        return 0


def nic(host: int = 0, order: Order = "round-robin", seed: int = 1, failed: frozenset[Link] = frozenset()) -> Nic:
    return Nic(spray_ruleset(FABRIC.without(failed), host, order, seed))


@pytest.mark.parametrize("host", range(FABRIC.hosts))
def test_every_other_leaf_has_a_chain_and_its_own_has_none(host: int) -> None:
    others = {FABRIC.leaf_prefix(leaf) for leaf in range(FABRIC.leaves) if leaf != FABRIC.leaf_of(host)}
    assert set(nic(host).leaves) == others
    assert len(set(nic(host).leaves.values())) == len(others), "each leaf counts for itself"
    for other in FABRIC.hosts_of(FABRIC.leaf_of(host)):
        assert nic(host).tag(FABRIC.host_ip(other), DATA_BYTES) == 0


@quick
@given(st.integers(0, 11), st.integers(0, 2**16 - 1), st.lists(st.sampled_from([ACK_BYTES, DATA_BYTES]), max_size=60))
def test_data_loads_every_spine_alike_whatever_goes_in_between(host: int, seed: int, lengths: list[int]) -> None:
    """Also where data and acknowledgements alternate, which one counter for both would send over half of the paths."""
    sender = nic(host, seed=seed)
    destination = FABRIC.host_ip((host + FABRIC.hosts_per_leaf) % FABRIC.hosts)
    sent = [(length, sender.tag(destination, length)) for length in lengths]
    for kind in (DATA_BYTES, ACK_BYTES):
        tags = [tag for length, tag in sent if length == kind]
        load = Counter({spine + 1: 0 for spine in range(FABRIC.spines)})
        load.update(tags)
        assert set(load) == {1, 2, 3, 4}
        assert max(load.values()) - min(load.values()) <= 1


def test_data_and_acknowledgements_have_counters_of_their_own() -> None:
    for rules in nic().rules.values():
        data, acks = rules
        assert ACK_BYTES + 28 <= data.longer_than < 576, "above an acknowledgement with three SACK blocks"
        assert acks.longer_than == 0


def test_hosts_and_seeds_start_at_different_spines() -> None:
    """Hosts in step would send the same spine their first packets at the same moment."""
    far = FABRIC.host_ip(11)
    assert len({nic(host).tag(far, DATA_BYTES) for host in range(4)}) == 4
    assert len({nic(0, seed=seed).tag(far, DATA_BYTES) for seed in range(4)}) == 4


@quick
@given(st.sets(st.sampled_from(list(FABRIC.links()))), st.integers(0, 11), st.sampled_from(["round-robin", "random"]))
def test_live_spines_are_used_and_failed_ones_never(failed: set[Link], host: int, order: Order) -> None:
    sender = nic(host, order, seed=3, failed=frozenset(failed))
    own = FABRIC.leaf_of(host)
    for leaf in set(range(FABRIC.leaves)) - {own}:
        live = FABRIC.without(failed).live_spines(own, leaf)
        rules = sender.rules.get(FABRIC.leaf_prefix(leaf), [])
        assert bool(rules) == bool(live)
        for rule in rules:
            assert sorted(rule.turn) == [spine + 1 for spine in live]


def test_a_tag_is_kept_only_where_that_is_asked_for() -> None:
    """Other tenants' packets have one; a program's would be no path of the fabric's."""
    kept, taken = (spray_ruleset(FABRIC, 0, "round-robin", 1, but_tagged=each) for each in (True, False))
    assert set(kept.splitlines()) - set(taken.splitlines()) == {"    ip dscp != 0 accept"}
    out = kept.partition("chain out {")[2]
    assert out.index("ip dscp != 0 accept") < out.index("vmap"), "before a path is chosen"


def test_random_mode_draws() -> None:
    assert {rule.how for rules in nic(order="random").rules.values() for rule in rules} == {"random"}


@dataclass
class TaggingNic:
    """One host's `connection_ruleset`: what tag the first packet of each connection leaves with, and answers take."""

    turns: dict[str, list[int]]
    kept: dict[int, int]

    def __init__(self, host: int = 0, seed: int = 1, failed: frozenset[Link] = frozenset()) -> None:
        ruleset = connection_ruleset(FABRIC.without(failed), host, seed)
        chains = dict(re.findall(r"  chain (\w+) \{\n(.*?)\n  \}", ruleset, re.DOTALL))
        self.turns = {}
        for prefix, name in re.findall(r"(10\.\d+\.0\.0/16) : goto (\w+)", chains.pop("out")):
            choose, apply = chains[name].splitlines()
            match = re.fullmatch(r" *ct state new ct mark 0 ct mark set numgen inc mod (\d+) map \{ (.*) \}", choose)
            assert match, choose
            marks = {int(place): int(mark) for place, mark in re.findall(r"(\d+) : (\d+)", match[2])}
            assert sorted(marks) == list(range(int(match[1]))), "a mark for every number there is"
            assert {int(mark) for mark, tag in re.findall(r"(\d+) : goto tag(\d+)", apply) if mark == tag} == {
                *marks.values()
            }
            self.turns[prefix] = [marks[place] for place in range(len(marks))]
        self.kept = {int(tag): int(mark) for tag, mark in re.findall(r"(\d+) : (\d+)", chains["in"])}


@pytest.mark.parametrize("host", range(FABRIC.hosts))
def test_connections_to_each_other_leaf_take_turns_over_all_spines(host: int) -> None:
    own = FABRIC.leaf_of(host)
    turns = TaggingNic(host).turns
    assert set(turns) == {FABRIC.leaf_prefix(leaf) for leaf in range(FABRIC.leaves) if leaf != own}
    assert all(sorted(turn) == [1, 2, 3, 4] for turn in turns.values())


def test_hosts_begin_their_turns_at_different_spines() -> None:
    """One connection a host then loads the spines alike: those of a leaf, and those of all leaves to one."""
    far = FABRIC.leaf_prefix(3)
    firsts = [TaggingNic(host).turns[far][0] for host in FABRIC.hosts_of(0)]
    assert len(set(firsts)) == len(firsts)
    assert len({TaggingNic(0, seed=seed).turns[far][0] for seed in range(4)}) == 4


def test_answers_take_the_path_that_the_connection_came_by() -> None:
    assert TaggingNic().kept == {tag: tag for tag in range(1, FABRIC.spines + 1)}


@quick
@given(st.sets(st.sampled_from(list(FABRIC.links()))), st.integers(0, 11))
def test_connections_avoid_failed_spines(failed: set[Link], host: int) -> None:
    turns, own = TaggingNic(host, failed=frozenset(failed)).turns, FABRIC.leaf_of(host)
    for leaf in set(range(FABRIC.leaves)) - {own}:
        live = [spine + 1 for spine in FABRIC.without(failed).live_spines(own, leaf)]
        assert sorted(turns.get(FABRIC.leaf_prefix(leaf), [])) == live


def _can_ask_nft() -> bool:
    if os.geteuid() != 0 or not (shutil.which("nft") and shutil.which("unshare")):
        return False
    return _nft_check("table ip spray { }\n").returncode == 0


def _nft_check(ruleset: str) -> subprocess.CompletedProcess[str]:
    command = ["unshare", "--net", "nft", "-c", "-f", "-"]
    return subprocess.run(command, input=ruleset, capture_output=True, text=True, timeout=20, check=False)


@pytest.mark.skipif(not _can_ask_nft(), reason="checking with nft takes root and nft")
@pytest.mark.parametrize("order", ["round-robin", "random"])
@pytest.mark.parametrize(
    ("fabric", "failed"),
    [
        (FABRIC, frozenset[Link]()),
        (FABRIC, FAILED),
        (FABRIC, frozenset(FABRIC.links())),
        (LeafSpine(2, 1, 1), frozenset[Link]()),
        (LeafSpine(MAX_LEAVES, MAX_SPINES, 1), frozenset[Link]()),
    ],
    ids=["whole", "failed", "nothing-left", "one-spine", "largest"],
)
def test_nft_accepts_it(fabric: LeafSpine, failed: frozenset[Link], order: Order) -> None:
    fabric = fabric.without(failed)
    for ruleset in (spray_ruleset(fabric, 0, order, 7), connection_ruleset(fabric, 0, 7)):
        checked = _nft_check(ruleset)
        assert checked.returncode == 0, checked.stderr


def test_each_range_of_ports_begins_a_path_further() -> None:
    """So that the subflows of one connection, one of each range, have paths of their own."""
    ports = ((10_000, 15_999), (16_000, 21_999), (22_000, 27_999))
    text = connection_ruleset(FABRIC, host=0, seed=7, ports=ports)
    for prefix in (FABRIC.leaf_prefix(1), FABRIC.leaf_prefix(3)):
        [chain] = re.findall(rf"{re.escape(prefix)} : goto (\w+)", text)
        [body] = re.findall(rf"chain {chain} \{{\n(.*?)\n  \}}", text, re.DOTALL)
        dealt = re.findall(
            r"tcp sport (\d+)-(\d+) ct state new ct mark 0 ct mark set numgen inc mod 4 map \{ (.*?) \}", body
        )
        assert [(int(first), int(last)) for first, last, _ in dealt] == list(ports)
        turns = [[int(mark) for mark in re.findall(r": (\d+)", marks)] for _, _, marks in dealt]
        for turn, after in pairwise(turns):
            assert after == [*turn[1:], turn[0]] and sorted(turn) == [1, 2, 3, 4]


# Flowcells


class CellNic:
    """The chain of a ruleset that packets to one leaf go through, as nftables runs it."""

    def __init__(self, ruleset: str, leaf: int) -> None:
        verdicts = dict(re.findall(r"(10\.\d+\.0\.0/16) : goto (\w+)", ruleset))
        chain = ruleset.split(f"  chain {verdicts[FABRIC.leaf_prefix(leaf)]} {{\n")[1].split("\n  }")[0]
        begin, onward, cells = (re.findall(r"([\d-]+) : (?:goto tag)?(\d+)", rule) for rule in chain.splitlines())
        self._begin = [int(mark) for _, mark in begin]
        self._onward = {int(mark): int(following) for mark, following in onward}
        self._cells = [(*map(int, marks.split("-")), int(tag)) for marks, tag in cells]
        self._begun = 0

    def connection(self, packets: int) -> list[int]:
        """The tags of a new connection's packets."""
        mark = self._begin[self._begun % len(self._begin)]
        self._begun += 1
        tags = []
        for _ in range(packets):
            mark = self._onward[mark]
            (tag,) = (tag for first, last, tag in self._cells if first <= mark <= last)
            tags.append(tag)
        return tags


@quick
@given(st.integers(0, 11), st.integers(0, 2**16 - 1), st.integers(2, 9), st.sampled_from([frozenset(), FAILED]))
def test_a_connection_goes_on_to_the_next_live_path_after_every_cell(
    host: int, seed: int, frames: int, failed: frozenset[Link]
) -> None:
    fabric = FABRIC.without(failed)
    near = fabric.leaf_of(host)
    far = (near + 1) % fabric.leaves
    live = [spine + 1 for spine in fabric.live_spines(near, far)]
    sender = CellNic(cell_ruleset(fabric, host, frames, seed), far)
    beginnings = set()
    for _ in live:
        tags = sender.connection(3 * frames * len(live))
        beginnings.add(tags[0])
        turns = [tags[frames - 1 + frames * cell : 2 * frames - 1 + frames * cell] for cell in range(2 * len(live))]
        assert all(len(set(turn)) == 1 for turn in turns), "the first packet is the handshake's"
        for (before, *_), (after, *_) in pairwise(turns):
            assert after == live[(live.index(before) + 1) % len(live)]
    assert beginnings == set(live)


def test_a_cell_has_as_many_frames_as_its_bytes_fill() -> None:
    assert PerCell(64 << 10).frames(FABRIC) == 7  # of 8948 bytes
    assert PerCell(64 << 10).frames(LeafSpine(2, 2, 2, mtu_bytes=1500)) == 45
    assert PerCell(1000).frames(FABRIC) == 1


def test_what_has_a_path_keeps_it_where_replays_say_so() -> None:
    first, *_ = cell_ruleset(FABRIC, 0, 7, 1, but_tagged=True).split("policy accept;\n")[1].splitlines()
    assert first.strip() == "ip dscp != 0 accept"
    assert "ip dscp !=" not in cell_ruleset(FABRIC, 0, 7, 1)
