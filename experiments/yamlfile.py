"""YAML that remembers where every key stands, and `KEY=VALUE` overrides of it.

A key's path is a tuple of mapping keys and list indices, written with dots: traffic.0.size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarbool import ScalarBoolean

KeyPath = tuple[str | int, ...]

_DEEPEST = 20  # nesting; an alias may contain itself


class YamlFileError(Exception):
    """One sentence that begins with its place: `file.yaml:7: ...` or `--set KEY=VALUE: ...`."""


def dotted(path: KeyPath) -> str:
    return ".".join(str(part) for part in path)


class YamlFile:
    """A YAML mapping read from a file, with overrides applied to it.

    `name` is how the file is called in messages.
    """

    def __init__(self, path: Path, name: str | None = None) -> None:
        """Raises YamlFileError where the file cannot be read or is no YAML mapping."""
        self.name = name or str(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise YamlFileError(f"{self.name}: cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise YamlFileError(f"{self.name}: is not UTF-8 text, so not YAML") from error
        self._root = self._parse(text)
        self._overrides: dict[KeyPath, str] = {}

    def _parse(self, text: str) -> CommentedMap:
        try:
            root = YAML(typ="rt").load(text)
        except DuplicateKeyError as error:
            key = str(error.problem).split('"')[1]
            line = error.problem_mark.line + 1
            raise YamlFileError(f"{self.name}:{line}: {key}: the key is there twice; keep one") from error
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            problem = ", ".join(part for part in (error.context, error.problem) if part)
            tab = "; indent with spaces, not tabs" if "\\t" in problem else ""
            raise YamlFileError(f"{self.name}:{mark.line + 1}: not valid YAML: {problem}{tab}") from error
        except RecursionError as error:
            raise YamlFileError(f"{self.name}: is nested too deeply for an experiment") from error
        except (YAMLError, ValueError) as error:  # ValueError: a date such as 2024-99-99
            raise YamlFileError(f"{self.name}: not valid YAML: {str(error).splitlines()[0]}") from error
        if not isinstance(root, CommentedMap):
            what = "is empty" if root is None else "is not a mapping"
            raise YamlFileError(f"{self.name}:1: the file {what}; write keys and values such as 'name: quick'")
        return root

    def override(self, assignment: str) -> None:
        """Apply one KEY=VALUE, the value read as YAML; mappings on the way are made where they are missing.

        Raises YamlFileError where it is not KEY=VALUE, the value is not YAML, or the path leads nowhere.
        """
        place = f"--set {assignment}"
        key, equals, value_text = assignment.partition("=")
        if not equals or not all(key.split(".")):
            raise YamlFileError(f"{place}: write KEY=VALUE, such as fabric.spines=8")
        try:
            value = YAML(typ="rt").load(value_text)
        except (YAMLError, ValueError, RecursionError) as error:
            raise YamlFileError(f"{place}: the value is not valid YAML") from error
        node: Any = self._root
        path: KeyPath = ()
        created: KeyPath | None = None
        parts = key.split(".")
        for depth, part in enumerate(parts):
            step = self._step(node, part, path, place)
            path = (*path, step)
            if depth == len(parts) - 1:
                node[step] = value
            elif isinstance(step, str) and node.get(step) is None:
                created = created or path
                node[step] = CommentedMap()
            node = node[step]
        self._overrides = {at: text for at, text in self._overrides.items() if at[: len(path)] != path}
        self._overrides[created or path] = place

    def _step(self, node: Any, part: str, path: KeyPath, place: str) -> str | int:
        """The key or index that `part` means in `node`."""
        if isinstance(node, CommentedMap):
            return part
        if not isinstance(node, CommentedSeq):
            raise YamlFileError(f"{place}: {dotted(path)} is a single value, so there is no {part!r} in it")
        if part not in map(str, range(len(node))):
            known = f"{dotted(path)}.0 to {dotted(path)}.{len(node) - 1}" if node else "none, the list is empty"
            raise YamlFileError(f"{place}: {dotted(path)} has no item {part!r}; its items are {known}")
        return int(part)

    def plain(self) -> dict[str, Any]:
        """The content as dict, list, str, int, float, bool and None; mapping keys as str."""
        return {str(key): self._plain(value, (str(key),)) for key, value in self._root.items()}

    def _plain(self, node: Any, path: KeyPath) -> Any:
        if len(path) > _DEEPEST:
            raise YamlFileError(f"{self.place(path[:1])}: {path[0]}: is nested too deeply")
        if isinstance(node, CommentedMap):
            return {str(key): self._plain(value, (*path, str(key))) for key, value in node.items()}
        if isinstance(node, CommentedSeq):
            return [self._plain(value, (*path, index)) for index, value in enumerate(node)]
        if node is None:
            return None
        if isinstance(node, bool | ScalarBoolean):
            return bool(node)
        # The loader's own kinds of scalar remember how they were written: keep the value only.
        for kind in (int, float):
            if isinstance(node, kind):
                return kind(node)
        return str(node)  # dates and tagged values too: no key takes one

    def place(self, path: KeyPath) -> str:
        """Where `path` was written, or its nearest parent: `file.yaml:7` or `--set KEY=VALUE`."""
        override = self._override_of(path)
        return override or f"{self.name}:{self.line(path)}"

    def line(self, path: KeyPath) -> int:
        """The line of `path`, or of its nearest parent; 0 where an override wrote it."""
        if self._override_of(path):
            return 0
        node, line = self._root, 1
        for step in path:
            try:
                line = (node.lc.key(step) if isinstance(node, CommentedMap) else node.lc.item(step))[0] + 1
                node = node[step]
            except (AttributeError, KeyError, IndexError, TypeError):  # nothing written there
                break
        return line

    def _override_of(self, path: KeyPath) -> str | None:
        for length in range(len(path), 0, -1):
            if path[:length] in self._overrides:
                return self._overrides[path[:length]]
        return None


def read_yaml(path: Path, name: str | None = None, overrides: Sequence[str] = ()) -> YamlFile:
    """The file with every KEY=VALUE of `overrides` applied in order. Raises YamlFileError."""
    file = YamlFile(path, name)
    for assignment in overrides:
        file.override(assignment)
    return file
