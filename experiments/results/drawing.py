"""A drawing of the fabric, as its experiment has it: spines above, leaves below them, hosts at the bottom."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

_MOST = 8  # switches a row; of more, the first ones and the last
_BROKEN, _FAILED = "4 3", "1 3"  # dashes
_STEP, _MARGIN = 44.0, 34.0
_SPINES_Y, _LEAVES_Y, _HOSTS_Y = 14.0, 78.0, 108.0


def fabric_drawing(fabric: Mapping[str, Any], broken: str = "") -> str:
    """Return the fabric as an <svg> element; nothing where its counts are not known.

    `broken` is what experiments say of faults: links named there, such as leaf1-spine2, are dashed. Those that have
    failed from the start are dotted, and a spine whose links have another rate has it above.
    """
    counts = [fabric.get(key) for key in ("leaves", "spines", "hosts_per_leaf")]
    if not all(type(count) is int and count > 0 for count in counts):
        return ""
    leaves, spines, hosts = (int(count or 0) for count in counts)
    spine_rates, failed = _uneven(fabric)
    above, below = _shown(spines), _shown(leaves)
    width = 2 * _MARGIN + _STEP * max(len(above), len(below), 3)
    x_of = {
        kind: {number: width / 2 + (place - (len(row) - 1) / 2) * _STEP for place, number in enumerate(row)}
        for kind, row in (("spine", above), ("leaf", below))
    }
    parts = []
    for leaf, x in x_of["leaf"].items():
        for spine, to_x in x_of["spine"].items():
            if leaf and spine:
                names = {f"leaf{leaf}-spine{spine}", f"spine{spine}"}
                dashes = _FAILED if names & failed else _BROKEN if names & set(broken.split()) else ""
                look = f'stroke="#D55E00" stroke-dasharray="{dashes}" stroke-width="1.6"' if dashes else ""
                parts.append(_line(x, _LEAVES_Y - 9, to_x, _SPINES_Y + 9, look))
        if leaf:
            parts += [_line(x, _LEAVES_Y + 9, to_x, _HOSTS_Y - 3) for to_x in _spread(x, hosts)]
            parts += [f'<circle cx="{to_x:g}" cy="{_HOSTS_Y:g}" r="3"/>' for to_x in _spread(x, hosts)]
    for kind, y in (("spine", _SPINES_Y), ("leaf", _LEAVES_Y)):
        parts += [_switch(number, x, y) for number, x in x_of[kind].items()]
    for spine, x in x_of["spine"].items():
        if rate := spine_rates.get(f"spine{spine}"):
            text = f'x="{x:g}" y="{_SPINES_Y - 12:g}" font-size="9" text-anchor="middle"'
            parts.append(f"<text {text}>{escape(str(rate))}</text>")
    rates = [escape(str(fabric.get(key, ""))) for key in ("fabric_rate", "host_rate")]
    words = [
        (_SPINES_Y, f"{spines} spine{'s' * (spines > 1)}"),
        ((_SPINES_Y + _LEAVES_Y) / 2, rates[0]),
        (_LEAVES_Y, f"{leaves} leaves" if leaves > 1 else "1 leaf"),
        (_HOSTS_Y, f"{hosts} host{'s' * (hosts > 1)} each"),
        ((_LEAVES_Y + _HOSTS_Y) / 2 + 1, rates[1]),
    ]
    parts += [f'<text x="{width:g}" y="{y + 4:g}" font-size="11">{text}</text>' for y, text in words if text]
    about = f"{leaves} leaves, {spines} spines, {hosts} hosts a leaf"
    top = 10 if spine_rates else 0
    box = f'viewBox="0 {-top:g} {width + 84:g} {116 + top:g}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{about}" {box} fill="currentColor">'
    return f"{head}{''.join(parts)}</svg>"


def _uneven(fabric: Mapping[str, Any]) -> tuple[Mapping[str, Any], set[str]]:
    """The rates of spines that differ, and the names of what has failed; nothing of what is damaged."""
    rates, failed = fabric.get("spine_rates"), fabric.get("failed")
    return rates if isinstance(rates, Mapping) else {}, set(map(str, failed)) if isinstance(failed, list) else set()


def _shown(count: int) -> list[int]:
    """The numbers that are drawn, from 1; a 0 stands for those left out."""
    return [*range(1, count + 1)] if count <= _MOST else [*range(1, _MOST - 1), 0, count]


def _spread(x: float, hosts: int) -> list[float]:
    drawn = min(hosts, 4)
    return [x + (place - (drawn - 1) / 2) * 9 for place in range(drawn)]


def _line(x: float, y: float, to_x: float, to_y: float, look: str = "") -> str:
    look = look or 'stroke="currentColor" stroke-opacity=".45" stroke-width=".8"'
    return f'<path d="M{x:g} {y:g}L{to_x:g} {to_y:g}" {look}/>'


def _switch(number: int, x: float, y: float) -> str:
    if not number:
        return f'<text x="{x:g}" y="{y + 4:g}" font-size="11" text-anchor="middle">...</text>'
    box = f'x="{x - 15:g}" y="{y - 9:g}" width="30" height="18" rx="3" fill="none" stroke="currentColor"'
    return f'<rect {box}/><text x="{x:g}" y="{y + 4:g}" font-size="11" text-anchor="middle">{number}</text>'
