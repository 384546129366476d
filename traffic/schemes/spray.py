"""Packet spraying, by the sending hosts' NICs or by the leaves."""

from __future__ import annotations

from dataclasses import dataclass

from emulator.forwarding import Spraying
from emulator.nic import PerPacket, SingleFrames, Unstamped
from traffic.schemes.scheme import ForPrograms, Look, Scheme


@dataclass(frozen=True, eq=False, kw_only=True)
class Spray(Scheme):
    """Every packet has a path of its own."""

    def estimate_factor(self, *, reordering_tolerant: bool) -> float:
        return 1.05 if reordering_tolerant else 1.8


SPRAY = Spray(
    name="spray",
    says="the sender's NIC gives every packet the next spine in turn",
    look=Look("#0072B2", "s", (0, (4, 1.5))),
    role="spraying",
    acts="in the sender's NIC",
    source="Dixit et al., INFOCOM 2013; by NICs, Ultra Ethernet",
    nic=PerPacket("round-robin", but_tagged=True),
    for_programs=ForPrograms("each packet gets the next path in turn", PerPacket("round-robin")),
    spreads=True,
)

SPRAY_RANDOM = Spray(
    name="spray-random",
    says="the sender's NIC gives every packet a random spine",
    look=Look("#CC79A7", "D", (0, (4, 1.5, 1, 1.5))),
    role="spraying",
    acts="in the sender's NIC",
    source="Dixit et al., INFOCOM 2013",
    nic=PerPacket("random", but_tagged=True),
    for_programs=ForPrograms("each packet gets a random path", PerPacket("random")),
    spreads=True,
)

SPRAY_WEIGHTED = Spray(
    name="spray-weighted",
    says="the sender's NIC gives packets the spines in turn, each as often as the rate of its links says",
    look=Look("#7A6FD0", "d", (0, (2.5, 1.5))),
    role="spraying",
    acts="in the sender's NIC, which knows the fabric's rates",
    source="as weighted ECMP (WCMP, EuroSys 2014), for packets",
    nic=PerPacket("round-robin", but_tagged=True, weighted=True),
    for_programs=ForPrograms("each packet gets a path in turn, by weight", PerPacket("round-robin", weighted=True)),
    spreads=True,
    weighted=True,
)

SWITCH_SPRAY = Spray(
    name="switch-spray",
    says="the leaf gives every packet of a connection the next spine in turn",
    look=Look("#8A6D1B", "h", (0, (4, 1.5, 1, 1.5, 1, 1.5))),
    role="spraying",
    acts="in the leaf, which counts a connection's packets in its connection tracker",
    source="Dixit et al., INFOCOM 2013; by switches as adaptive or per-packet load balancing",
    nic=Unstamped(SingleFrames()),
    switch=Spraying(),
    for_programs=ForPrograms("leaves give each packet the next path in turn", Unstamped(SingleFrames())),
    spreads=True,
)
