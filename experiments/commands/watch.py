"""What `run --watch` shows on a terminal: every fabric link's load and the queues, a second ago."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from rich.console import Group
from rich.live import Live
from rich.text import Text

from emulator.meters.meters import decode, namespaces
from emulator.ports import Port
from experiments.commands.output import Console
from experiments.commands.progress import Bar
from experiments.judge.evidence import Built
from experiments.runs.messages import Glance
from experiments.runs.plan import Run
from experiments.runs.work import Work
from traffic.watch import Far

_MOST_LEAVES = 16  # rows; of more, those with the fullest links
_MOST_NUMBERS = 12  # spines a row has room for as numbers; more are shades
_SHADES = " \u2591\u2592\u2593\u2588"
_FULL, _BUSY = 0.97, 0.6  # of a link's rate
_REFRESH_HZ = 2


class Watched(Bar):
    """The bar of runs, and below it what the links of the fabric carry."""

    def __init__(self, console: Console, work: Work, todo: Sequence[Run]) -> None:
        super().__init__(console, work, todo)
        self._ports: Sequence[Port] = ()
        self._before: tuple[str, pd.DataFrame] | None = None
        self._far: Far | None = None
        self._view = Live(self._bar, console=console.terminal, transient=True, refresh_per_second=_REFRESH_HZ)

    def __enter__(self) -> Watched:
        self._view.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._view.stop()

    def built(self, built: Built) -> None:
        self._ports, self._before = built.ports, None

    def at(self, run_id: str, far: Far) -> None:
        super().at(run_id, far)
        self._far = far

    def glance(self, glance: Glance) -> None:
        """Show what came between this sample and the one before it of the same run."""
        queues = decode([glance.sample], namespaces(self._ports), self._ports).queues.set_index("port")
        before, self._before = self._before, (glance.run_id, queues)
        if before and before[0] == glance.run_id:
            loads = link_loads(before[1], queues, self._ports)
            self._view.update(Group(self._bar, *drawing(loads, self._far)))


def link_loads(before: pd.DataFrame, now: pd.DataFrame, ports: Sequence[Port]) -> pd.DataFrame:
    """Return a row a port of fabric links: its place, rate_bps, load (its share of that rate) and backlog_bytes.

    `before` and `now` are samples of queues (time_s, sent_bytes, backlog_bytes), by the ports' places in `ports`.
    """
    rows = [
        (port.name, port.leaf, port.spine, port.up, port.shaping.rate_bps) for port in ports if port.spine is not None
    ]
    places = [place for place, port in enumerate(ports) if port.spine is not None]
    links = pd.DataFrame(rows, columns=["name", "leaf", "spine", "up", "rate_bps"], index=places)
    seconds = (now.time_s - before.time_s).where(lambda s: s > 0)
    sent_bps = (now.sent_bytes - before.sent_bytes) * 8 / seconds
    return links.assign(load=(sent_bps / links.rate_bps).fillna(0.0), backlog_bytes=now.backlog_bytes).fillna(0)


def drawing(loads: pd.DataFrame, far: Far | None = None) -> list[Text]:
    """Return the lines that show `loads`: a row a leaf, a column a spine, up and down; then the fullest queue.

    The last line also says how `far` the run is, where that is known.
    """
    up, down = (
        loads[loads.up == way].pivot_table(index="leaf", columns="spine", values="load") for way in (True, False)
    )
    if up.empty:
        return []
    fullest = up.max(axis=1).combine(down.max(axis=1), max)
    shown = sorted(fullest.nlargest(_MOST_LEAVES).index)
    width = 4 if up.shape[1] <= _MOST_NUMBERS else 1
    head = f"% of rate  {'up, by spine'.ljust(up.shape[1] * width)}  down"
    lines = [Text(head, "dim")]
    for leaf in shown:
        line = Text(f"leaf{leaf + 1}".ljust(10))
        for way in (up, down):
            line.append(" ")
            for load in way.loc[leaf]:
                line.append(*_cell(float(load), width))
            line.append(" ")
        lines.append(line)
    if len(fullest) > len(shown):
        lines.append(Text(f"and {len(fullest) - len(shown)} leaves whose links are less full", "dim"))
    queue = loads.loc[loads.backlog_bytes.idxmax()]
    carried_bps = (loads.load * loads.rate_bps).sum() / 2  # what goes up comes down
    way = "to" if queue.up else "from"
    where = f"leaf{queue.leaf + 1} {way} spine{queue.spine + 1}"
    ended = f"{far.flows:,} of {far.of:,} flows have ended; " if far else ""
    said = f"{ended}carries {carried_bps / 1e6:.1f} Mb/s; fullest queue {queue.backlog_bytes / 1e3:.0f} kB, {where}"
    return [*lines, Text(said)]


def _cell(load: float, width: int) -> tuple[str, str]:
    style = "bold red" if load >= _FULL else "yellow" if load >= _BUSY else "green" if load > 0 else "dim"
    if width == 1:
        return _SHADES[min(len(_SHADES) - 1, round(load * (len(_SHADES) - 1)))], style
    return f"{load:>{width}.0%}".replace("%", "").rjust(width), style
