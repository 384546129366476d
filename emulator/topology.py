"""A leaf-spine fabric as pure data: counts, rates, names, addresses, ports.

Everything here is arithmetic on small integers; nothing needs privileges. Hosts are numbered 0 .. hosts-1 across the
fabric, leaf by leaf; leaves and spines from 0. Names shown to people count from 1 (h1, leaf1, spine1), as Mininet's do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from emulator.weights import turn, weights

MAX_SPINES = 63  # a path tag is a 6-bit DSCP value and 0 means untagged
MAX_LEAVES = 256  # one 10.<leaf>.0.0/16 prefix each
MAX_HOSTS_PER_LEAF = 256
MAX_EMULATED_HOSTS = 1024  # a model takes more; a machine does not
MAX_EMULATED_LEAVES = 250  # failed links can ask for a table for every other leaf, and OpenFlow numbers 255

SPINE_DPID_BASE = 0x10000
FABRIC_PREFIX = "10.0.0.0/8"  # of all hosts and gateways
ETHERNET_HEADER_BYTES = 14
IP_TCP_HEADER_BYTES = 52  # 20 IP, 20 TCP, 12 TCP timestamps

Link = tuple[int, int]
"""A fabric link by its ends: (leaf, spine)."""


@dataclass(frozen=True)
class LeafSpine:
    """A leaf-spine fabric: `leaves` of `hosts_per_leaf` hosts, each joined to every one of `spines` by one link.

    Rates are of the wire: Ethernet frames without preamble, gap and checksum, as Linux counts them. Up to
    `burst_frames` frames of a connection travel as one, as Linux's segmentation offload has them; one under spraying.
    `failed` are the links that carry nothing: see `without`. `spine_rates_bps` are those of every spine's links; empty
    where all are of `fabric_rate_bps`.
    """

    leaves: int
    spines: int
    hosts_per_leaf: int
    host_rate_bps: int = 20_000_000
    fabric_rate_bps: int = 20_000_000
    mtu_bytes: int = 9000
    queue_bytes: int = 4_000_000
    burst_frames: int = 1
    failed: frozenset[Link] = frozenset()
    spine_rates_bps: tuple[int, ...] = ()

    @property
    def hosts(self) -> int:
        return self.leaves * self.hosts_per_leaf

    def leaf_of(self, host: int) -> int:
        return host // self.hosts_per_leaf

    def hosts_of(self, leaf: int) -> range:
        return range(leaf * self.hosts_per_leaf, (leaf + 1) * self.hosts_per_leaf)

    def links(self) -> Iterator[Link]:
        """Return every fabric link: all (leaf, spine) pairs."""
        return ((leaf, spine) for leaf in range(self.leaves) for spine in range(self.spines))

    def spine_rate_bps(self, spine: int) -> int:
        """Return the rate of each link of a spine, and so of a path by it between two leaves."""
        return self.spine_rates_bps[spine] if self.spine_rates_bps else self.fabric_rate_bps

    @property
    def slowest_bps(self) -> int:
        """The rate of the slowest link."""
        return min(self.host_rate_bps, *map(self.spine_rate_bps, range(self.spines)))

    @property
    def fastest_bps(self) -> int:
        """The rate of the fastest link."""
        return max(self.host_rate_bps, *map(self.spine_rate_bps, range(self.spines)))

    @property
    def rates_differ(self) -> bool:
        """Whether paths between leaves differ in their rates."""
        return len(set(self.spine_rates_bps)) > 1

    @property
    def uneven(self) -> bool:
        """Whether fabric links differ, in their rates or because some have failed."""
        return bool(self.failed) or self.rates_differ

    def weights(self, spines: Sequence[int]) -> list[int]:
        """Return what share paths by `spines` have by their rates, as whole numbers: see `emulator.weights`."""
        return weights([self.spine_rate_bps(spine) for spine in spines])

    def turn(self, spines: Sequence[int]) -> list[int]:
        """Return an order in which each of `spines` comes as often as its weight."""
        return turn(spines, self.weights(spines))

    def without(self, links: Iterable[Link]) -> LeafSpine:
        """Return the same fabric after `links` have failed, on top of those that had."""
        return replace(self, failed=self.failed | frozenset(links))

    def avoiding(self, links: Iterable[Link]) -> LeafSpine:
        """Return the same fabric without those of `links` that all leaves can do without.

        Where no spine would be left between two leaves, nothing is won by avoiding the last one.
        """
        left = self
        for leaf, spine in sorted(links):
            fewer = left.without([(leaf, spine)])
            if all(fewer.live_spines(leaf, other) for other in range(self.leaves) if other != leaf):
                left = fewer
        return left

    def live_spines(self, source_leaf: int, destination_leaf: int) -> list[int]:
        """Return the spines whose links to both leaves are up, ascending."""
        return [
            spine
            for spine in range(self.spines)
            if (source_leaf, spine) not in self.failed and (destination_leaf, spine) not in self.failed
        ]

    def wire_bytes(self, payload_bytes: float) -> float:
        """Return the bytes on the wire of TCP payload in full-sized segments: payload x (MTU + 14) / (MTU - 52)."""
        return payload_bytes * (self.mtu_bytes + ETHERNET_HEADER_BYTES) / (self.mtu_bytes - IP_TCP_HEADER_BYTES)

    # Names and OpenFlow ports. Port p of a switch is the interface <switch>-eth<p>.

    def host_name(self, host: int) -> str:
        return f"h{host + 1}"

    def leaf_name(self, leaf: int) -> str:
        return f"leaf{leaf + 1}"

    def spine_name(self, spine: int) -> str:
        return f"spine{spine + 1}"

    def leaf_port_to_host(self, host: int) -> int:
        return host % self.hosts_per_leaf + 1

    def leaf_port_to_spine(self, spine: int) -> int:
        return self.hosts_per_leaf + spine + 1

    def spine_port_to_leaf(self, leaf: int) -> int:
        return leaf + 1

    def leaf_dpid(self, leaf: int) -> int:
        """Return OpenFlow's number of a leaf (datapath id)."""
        return leaf + 1

    def spine_dpid(self, spine: int) -> int:
        return SPINE_DPID_BASE + spine + 1

    # Addresses: a /16 a leaf, the leaf's last address as the gateway of its hosts.

    def host_ip(self, host: int) -> str:
        number = host % self.hosts_per_leaf + 1
        return f"10.{self.leaf_of(host)}.{number >> 8}.{number & 255}"

    def leaf_prefix(self, leaf: int) -> str:
        return f"10.{leaf}.0.0/16"

    def gateway_ip(self, leaf: int) -> str:
        return f"10.{leaf}.255.254"

    def host_mac(self, host: int) -> str:
        """Return a host's MAC: locally administered, unique in the fabric."""
        return f"02:00:00:{host >> 16 & 255:02x}:{host >> 8 & 255:02x}:{host & 255:02x}"

    def gateway_mac(self, leaf: int) -> str:
        return f"02:01:00:00:{leaf >> 8:02x}:{leaf & 255:02x}"
