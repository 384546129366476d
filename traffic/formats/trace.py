"""What a rank's Chakra execution trace holds: its nodes, decoded by hand from the ten fields that matter here.

A file is a GlobalMetadata message and then a Node each, every one behind its length (mlcommons/chakra,
schema/protobuf/et_def.proto).
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO

from traffic.formats.protobuf import Value, WireError, fields, messages, numbers, signed

COMPUTE, SEND, RECEIVE, COLLECTIVE = 4, 5, 6, 7
"""Types of nodes; all others take no time here."""

MOST_NODES = 200_000
_GZIP = b"\x1f\x8b"
_ID, _NAME, _TYPE, _CONTROL, _DATA, _START, _LASTS, _ATTRIBUTE = 1, 2, 3, 4, 5, 6, 7, 10
_DOUBLE, _FLOAT, _STRING, _FIXED = 3, 5, 29, (19, 21, 23, 25)
_ZIGZAG = 15, 17


@dataclass
class Node:
    """`waits` are ids of nodes; `attributes` are numbers or words, by name."""

    id: int = 0
    name: str = ""
    type: int = 0
    waits: list[int] = field(default_factory=list)
    start_us: int = 0
    lasts_us: int = 0
    attributes: dict[str, float | str] = field(default_factory=dict)

    def number(self, name: str) -> int | None:
        """Return an attribute that is a number, also where it is written as a word; None where there is none."""
        value = self.attributes.get(name)
        if isinstance(value, str):
            return int(value) if value.isascii() and value.isdigit() and len(value) < 19 else None
        return None if value is None or not abs(value) < 1e18 else int(value)

    @property
    def on_host(self) -> bool:
        return bool(self.number("is_cpu_op"))


def nodes(data: bytes, most_bytes: int) -> list[Node]:
    """Return the nodes of a file, gzip or not. Raises WireError."""
    if data.startswith(_GZIP):
        try:
            with gzip.open(BytesIO(data)) as file:
                data = file.read(most_bytes + 1)
        except (OSError, EOFError, ValueError) as error:
            raise WireError("it is not whole gzip") from error
        if len(data) > most_bytes:
            raise WireError(f"it is more than {most_bytes} bytes")
    found = []
    for place, message in enumerate(messages(data)):
        if place > MOST_NODES:
            raise WireError(f"it has more than {MOST_NODES} nodes")
        if place:
            found.append(_node(message))
    return found


def _node(message: bytes) -> Node:
    node = Node()
    for number, value in fields(message):
        if number in (_CONTROL, _DATA):
            node.waits += numbers(value)
        elif isinstance(value, bytes):
            if number == _NAME:
                node.name = value.decode(errors="replace")
            elif number == _ATTRIBUTE:
                node.attributes |= _attribute(value)
        elif number == _ID:
            node.id = value
        elif number == _TYPE:
            node.type = value
        elif number == _START:
            node.start_us = value
        elif number == _LASTS:
            node.lasts_us = value
    return node


def _attribute(message: bytes) -> Mapping[str, float | str]:
    name, held = "", dict[int, Value]()
    for number, value in fields(message):
        if number == 1 and isinstance(value, bytes):
            name = value.decode(errors="replace")
        elif number > 2:
            held[number] = value
    known = next(_values(held), None)
    return {} if known is None else {name: known}


def _values(held: Mapping[int, Value]) -> Iterator[float | str]:
    """Yield a number or a word; lists of them matter to nobody here."""
    for number, value in held.items():
        if isinstance(value, bytes):
            if number == _STRING:
                yield value.decode(errors="replace")
        elif number == _DOUBLE:
            yield float(struct.unpack("<d", struct.pack("<q", value))[0])
        elif number == _FLOAT:
            yield float(struct.unpack("<f", struct.pack("<i", value))[0])
        elif number in _ZIGZAG:
            yield value >> 1 ^ -(value & 1)
        else:
            yield value if number in _FIXED else signed(value)
