"""Flowcells: the sender's NIC deals parts of a connection to paths, as Presto does."""

from __future__ import annotations

from emulator.nic import PerCell, Unstamped
from traffic.schemes.scheme import ForPrograms, Look, Scheme

_CELL_BYTES = 64 << 10  # the most that segmentation offload takes at once, hence the paper's

PRESTO = Scheme(
    name="presto-64KB",
    says="the sender's NIC has a connection take the next spine after every 64 KB",
    look=Look("#7E57C2", r"$\clubsuit$", (0, (8, 1.5, 1, 1.5))),
    acts="in the sender's NIC, which counts a connection's packets",
    source="Presto: He et al., SIGCOMM 2015",
    nic=Unstamped(PerCell(_CELL_BYTES, but_tagged=True)),
    for_programs=ForPrograms("each connection takes the next path after every 64 KB", Unstamped(PerCell(_CELL_BYTES))),
    spreads=True,  # to within a cell a connection
)
