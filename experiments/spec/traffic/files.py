"""Traffic that a file lists, in one of the formats of `traffic.formats`."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, StrictInt, ValidationInfo, create_model

from emulator.topology import LeafSpine
from experiments.spec.messages import shown
from experiments.spec.traffic.entry import TrafficEntry
from experiments.spec.traffic.scaled import Factor, Ranks, ScaledTraffic
from traffic.formats import Format
from traffic.schedule import Schedule

_STRICT = {float: Factor, int: StrictInt, int | None: StrictInt | None}
"""How options are checked that are not one of a few words."""


class FileTraffic(TrafficEntry):
    """The flows of a file. Its path is absolute once read, and written under the key of its format."""

    format: ClassVar[Format]
    path: Path

    def names(self) -> tuple[str, str]:
        return self.key, self.path.stem

    @property
    def file(self) -> Path:
        return self.path

    @property
    def label(self) -> str:
        return self.path.stem

    def settings(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude={"path"})

    def schedule(self, topology: LeafSpine, placement: str, seed: int) -> Schedule:
        """Schedule it for as many ranks as the file has. Raises FormatError where the file is not right."""
        collective, algorithm = self.names()
        given = {name: getattr(self, name) for name in self.format.options}
        if self.format.takes("ranks"):
            given["ranks"] = getattr(self, "ranks", None) or topology.hosts
        if isinstance(self, ScaledTraffic):
            given["scale"] = self.scaling(topology)
        return replace(self.format.read(self.path, **given), collective=collective, algorithm=algorithm)


class JobFileTraffic(FileTraffic, ScaledTraffic):
    """The flows and computations of a file."""


@cache
def file_traffic(form: Format) -> type[FileTraffic]:
    """Return entries that name a file of this format."""
    example = f"perm{form.suffix}"

    def beside_the_experiment(value: object, info: ValidationInfo) -> Path:
        if not isinstance(value, str) or not value.isprintable() or not value:
            raise ValueError(f"{shown(value)} is not a file; write one such as {example}, relative to the experiment's")
        folder: Path = (info.context or {}).get("folder", Path())
        return (folder / value).absolute()

    path = Annotated[Path, BeforeValidator(beside_the_experiment)]
    fields: dict[str, Any] = {"path": (path, Field(alias=form.key, description=f"a file such as {example}"))}
    if form.takes("ranks"):
        fields["ranks"] = (Ranks, Field(default=None, description="a number of ranks"))
    for name, option in form.options.items():
        fields[name] = (_STRICT.get(option.kind, option.kind), Field(default=option.default, description=option.says))
    base = JobFileTraffic if form.takes("scale") else FileTraffic
    model = create_model("FileTraffic", __base__=base, __module__=__name__, **fields)
    model.format, model.key, model.example = form, form.key, f"{{{form.key}: FILE{form.suffix}}}"
    return model
