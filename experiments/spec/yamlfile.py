"""YAML that remembers where every key stands, and `KEY=VALUE` overrides of it.

Of YAML, experiments need mappings, lists and plain values; anchors, aliases and merge keys (`<<`) are followed. Only
the library's parser is used: what its constructors make of odd tags and keys is nothing that an experiment could mean.

A key's path is a tuple of mapping keys and list indices, written with dots: traffic.0.size.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from emulator.inputs import InputError, quote, read_input

KeyPath = tuple[str | int, ...]

MOST_BYTES = 128 * 1024
MOST_NODES = 50_000
"""Keys and values of a file, each counted as often as aliases repeat it."""

_DEEPEST = 20  # nesting; an alias may contain itself
_LONGEST_KEY = 40  # that is shown as it is
_MOST_SAID = 120  # of what the library says, which quotes the file
_MOST_DIGITS = 30  # of a whole number: no key takes one of as many
_MERGE = "<<"
_YAML = "tag:yaml.org,2002:"
_PLAIN = frozenset(_YAML + kind for kind in ("str", "int", "float", "bool", "null", "seq", "map", "timestamp", "merge"))


class YamlFileError(Exception):
    """One sentence that begins with its place: `file.yaml:7: ...` or `--set KEY=VALUE: ...`."""


def dotted(path: KeyPath) -> str:
    """Return `path` as people write it, as short as a sentence can take."""
    return ".".join(key if _plain_key(key := str(part)) else quote(key) for part in path)


def _plain_key(key: str) -> bool:
    return len(key) <= _LONGEST_KEY and key.isprintable()


class YamlFile:
    """A YAML mapping read from a file, with overrides applied to it.

    `name` is how the file is called in messages.
    """

    def __init__(self, path: Path, name: str | None = None) -> None:
        """Raises YamlFileError where the file cannot be read or is no YAML mapping."""
        self.name = name or str(path)
        try:
            text = read_input(path, MOST_BYTES).decode("utf-8-sig")
        except InputError as error:
            raise YamlFileError(f"{self.name}: {error}") from error
        except UnicodeDecodeError as error:
            raise YamlFileError(f"{self.name}: is not UTF-8 text, so not YAML") from error
        self._overrides: dict[KeyPath, str] = {}
        root = self._parse(text)
        if not isinstance(root, MappingNode):
            what = "is empty" if root is None else "is not a mapping"
            raise YamlFileError(f"{self.name}:1: the file {what}; write keys and values such as 'name: quick'")
        plain = _Plain(self.name)
        self._root: dict[str, Any] = plain.value(root, ())
        self._lines = plain.lines

    def _parse(self, text: str) -> Node | None:
        try:
            return _compose(text)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            problem = _said(", ".join(part for part in (error.context, error.problem) if part))
            tab = "; indent with spaces, not tabs" if "\\t" in problem else ""
            raise YamlFileError(f"{self.name}:{mark.line + 1}: not valid YAML: {problem}{tab}") from error
        except RecursionError as error:
            raise YamlFileError(f"{self.name}: is nested too deeply for an experiment") from error
        except Exception as error:  # the library's own bugs, such as a TypeError for a directive it does not know
            said = str(error).splitlines() or [type(error).__name__]
            raise YamlFileError(f"{self.name}: not valid YAML: {_said(said[0])}") from error

    def override(self, assignment: str) -> None:
        """Apply one KEY=VALUE, the value read as YAML; mappings on the way are made where they are missing.

        Raises YamlFileError where it is not KEY=VALUE, the value is not YAML, or the path leads nowhere.
        """
        place, parts, value = assigned(assignment, "fabric.spines=8")
        try:
            path, created = put(self._root, parts, value)
        except ValueError as error:
            raise YamlFileError(f"{place}: {error}") from error
        self._overrides = {at: text for at, text in self._overrides.items() if at[: len(path)] != path}
        self._overrides[created] = place

    def plain(self) -> dict[str, Any]:
        """Return the content as dict, list, str, int, float, bool and None; mapping keys as str."""
        return self._root

    def place(self, path: KeyPath) -> str:
        """Return where `path` was written, or its nearest parent: `file.yaml:7` or `--set KEY=VALUE`."""
        override = self._override_of(path)
        return override or f"{self.name}:{self.line(path)}"

    def line(self, path: KeyPath) -> int:
        """Return the line of `path`, or of its nearest parent; 0 where an override wrote it."""
        if self._override_of(path):
            return 0
        return next((self._lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in self._lines), 1)

    def _override_of(self, path: KeyPath) -> str | None:
        for length in range(len(path), 0, -1):
            if path[:length] in self._overrides:
                return self._overrides[path[:length]]
        return None


def assigned(assignment: str, such_as: str) -> tuple[str, list[str], Any]:
    """Return what errors call it, the path of keys, and the value of one KEY=VALUE, `such_as`. Raises YamlFileError."""
    place = f"--set {assignment if assignment.isprintable() else quote(assignment, _MOST_SAID)}"
    key, equals, value_text = assignment.partition("=")
    parts = key.split(".")
    if not equals or not all(parts) or not _is_text(key):
        raise YamlFileError(f"{place}: write KEY=VALUE, such as {such_as}")
    if len(parts) > _DEEPEST:
        raise YamlFileError(f"{place}: no key of an experiment is nested so deeply")
    try:
        value_node = _compose(value_text)
    except Exception as error:  # as in `_parse`
        raise YamlFileError(f"{place}: the value is not valid YAML") from error
    return place, parts, None if value_node is None else _Plain(place, numbered=False).value(value_node, tuple(parts))


def put(root: dict[str, Any], parts: Sequence[str], value: object) -> tuple[KeyPath, KeyPath]:
    """Set the key that `parts` lead to in `root`; mappings on the way are made where they are missing.

    Returns its path, and that of the outermost mapping that was made, the same where none was. Raises ValueError where
    the path leads nowhere.
    """
    node: Any = root
    path: KeyPath = ()
    created: KeyPath | None = None
    for depth, part in enumerate(parts):
        step = _step(node, part, path)
        path = (*path, step)
        if depth == len(parts) - 1:
            node[step] = value
        elif isinstance(step, str) and node.get(step) is None:
            created = created or path
            node[step] = {}
        node = node[step]
    return path, created or path


def _step(node: Any, part: str, path: KeyPath) -> str | int:
    """The key or index that `part` means in `node`."""
    if isinstance(node, dict):
        return part
    if not isinstance(node, list):
        raise ValueError(f"{dotted(path)} is a single value, so there is no {quote(part)} in it")
    if part not in map(str, range(len(node))):
        known = f"{dotted(path)}.0 to {dotted(path)}.{len(node) - 1}" if node else "none, the list is empty"
        raise ValueError(f"{dotted(path)} has no item {quote(part)}; its items are {known}")
    return int(part)


def _is_text(word: str) -> bool:
    """Whether it can be written at all; half a character, or what a shell passed on as it was, cannot."""
    return not any("\ud800" <= letter <= "\udfff" for letter in word)


def _said(words: str) -> str:
    """What the library says, which may quote a file at length, or what a terminal would act upon."""
    short = words if len(words) <= _MOST_SAID else f"{words[: _MOST_SAID - 3]}..."
    return "".join(letter if letter.isprintable() else "?" for letter in short)


def _compose(text: str) -> Node | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an anchor that is used again, which YAML allows
        node: Node | None = YAML(typ="safe", pure=True).compose(text)
    return node


class _Plain:
    """Makes plain values of parsed nodes, noting the line of each path. Raises YamlFileError, `place` and all."""

    def __init__(self, place: str, numbered: bool = True) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._place, self._numbered = place, numbered
        self._nodes = 0

    def value(self, node: Node, path: KeyPath) -> Any:
        self._nodes += 1
        if self._nodes > MOST_NODES:
            raise self._error(node, path[:1], f"stands for more than {MOST_NODES} keys and values, aliases repeated")
        if len(path) > _DEEPEST:
            raise self._error(node, path[:1], "is nested too deeply")
        if node.tag not in _PLAIN:
            tag = quote(str(node.tag).replace(_YAML, "!!"))
            raise self._error(node, path, f"has the tag {tag}; write a plain value, list or mapping")
        if isinstance(node, MappingNode):
            return {key: self.value(value, (*path, key)) for key, value in self._pairs(node, path)}
        if isinstance(node, SequenceNode):
            items = []
            for index, item in enumerate(node.value):
                self.lines[*path, index] = item.start_mark.line + 1
                items.append(self.value(item, (*path, index)))
            return items
        assert isinstance(node, ScalarNode)
        return self._scalar(node, path)

    def _pairs(self, node: MappingNode, path: KeyPath) -> Iterator[tuple[str, Node]]:
        """Keys and values of a mapping, after those that it merges and does not have itself."""
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode) or key_node.tag not in _PLAIN:
                raise self._error(key_node, path, "has a key that is no plain word")
            key = self._word(key_node, path)
            if key == _MERGE and not key_node.style:
                merged = {**self._merged(value_node, (*path, key)), **merged}
                continue
            if key in own:
                raise self._error(key_node, (*path, key), "the key is there twice; keep one")
            own[key] = value_node
            self.lines[*path, key] = key_node.start_mark.line + 1
        for key in merged.keys() - own.keys():
            self.lines[*path, key] = node.start_mark.line + 1
        yield from {**merged, **own}.items()

    def _merged(self, node: Node, path: KeyPath) -> dict[str, Node]:
        """What `<<` brings; of several mappings, the first that has a key counts (yaml.org/type/merge.html)."""
        self._nodes += 1
        sources = node.value if isinstance(node, SequenceNode) else [node]
        if len(path) > _DEEPEST:
            raise self._error(node, path[:1], "is nested too deeply")
        if not all(isinstance(source, MappingNode) for source in sources):
            raise self._error(node, path, "merges what is no mapping; write an alias of one such as *defaults")
        found: dict[str, Node] = {}
        for source in sources:
            assert isinstance(source, MappingNode)
            self._nodes += len(source.value)
            if self._nodes > MOST_NODES:
                raise self._error(node, path[:1], f"stands for more than {MOST_NODES} keys and values")
            found = {**dict(self._pairs(source, path)), **found}
        return found

    def _scalar(self, node: ScalarNode, path: KeyPath) -> Any:
        """As YAML 1.2 means it; dates and the like stay words: no key takes one."""
        text = self._word(node, path)
        kind = str(node.tag).removeprefix(_YAML)
        try:
            match kind:
                case "null":
                    return None
                case "bool":
                    return {"true": True, "false": False}[text.lower()]
                case "int" if len(text) <= _MOST_DIGITS:
                    digits = text.replace("_", "")
                    return int(digits, 0 if digits.lstrip("+-")[1:2] in ("x", "o", "b", "X", "O", "B") else 10)
                case "float":
                    return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
                case "int":
                    raise ValueError
        except (KeyError, ValueError) as error:
            known = {"int": "a whole number", "float": "a number", "bool": "true or false"}[kind]
            raise self._error(node, path, f"{quote(text)} is not {known} that an experiment takes") from error
        return text

    def _word(self, node: ScalarNode, path: KeyPath) -> str:
        text = str(node.value)
        if not _is_text(text):
            raise self._error(node, path, f"{quote(text)} is no text: half a character, as \\ud800 is")
        return text

    def _error(self, node: Node, path: KeyPath, message: str) -> YamlFileError:
        place = f"{self._place}:{node.start_mark.line + 1}" if self._numbered else self._place
        key = dotted(path)
        return YamlFileError(f"{place}: {key}: {message}" if key else f"{place}: the file {message}")


def read_yaml(path: Path, name: str | None = None, overrides: Sequence[str] = ()) -> YamlFile:
    """Return the file with every KEY=VALUE of `overrides` applied in order. Raises YamlFileError."""
    file = YamlFile(path, name)
    for assignment in overrides:
        file.override(assignment)
    return file
