"""ECMP: what fabrics do anyhow."""

from __future__ import annotations

from dataclasses import dataclass

from traffic.schemes.scheme import ForPrograms, Look, Scheme


@dataclass(frozen=True, eq=False, kw_only=True)
class Ecmp(Scheme):
    """Every connection stays on the spine that a hash picks."""

    def estimate_factor(self, *, reordering_tolerant: bool) -> float:
        return 1.6  # the hash puts two flows on one path sooner or later


ECMP = Ecmp(
    name="ecmp",
    says="each connection stays on the spine that a hash of its addresses and ports picks",
    look=Look("#D55E00", "o", (0, (1.2, 1.2))),
    role="plain",
    source="RFC 2992; in Ethernet fabrics the hash of Open vSwitch's multipath action, seeded",
    for_programs=ForPrograms("switches hash each connection"),
)
