"""Traffic that a file lists, in one of the formats of `traffic.formats`."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field, ValidationInfo, create_model

from emulator.topology import LeafSpine
from experiments.spec.messages import shown
from experiments.spec.traffic.entry import TrafficEntry
from traffic.formats import Format
from traffic.schedule import Schedule


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

    def schedule(self, topology: LeafSpine, placement: str, seed: int) -> Schedule:
        """Among as many ranks as the file has. Raises FormatError where the file is not right."""
        collective, algorithm = self.names()
        return replace(self.format.read(self.path), collective=collective, algorithm=algorithm)


@cache
def file_traffic(form: Format) -> type[FileTraffic]:
    """Entries that name a file of this format."""
    example = f"perm{form.suffix}"

    def beside_the_experiment(value: object, info: ValidationInfo) -> Path:
        if not isinstance(value, str) or not value.isprintable() or not value:
            raise ValueError(f"{shown(value)} is not a file; write one such as {example}, relative to the experiment's")
        folder: Path = (info.context or {}).get("folder", Path())
        return (folder / value).absolute()

    path = Annotated[Path, BeforeValidator(beside_the_experiment)]
    described = Field(alias=form.key, description=f"a file such as {example}")
    model = create_model("FileTraffic", __base__=FileTraffic, __module__=__name__, path=(path, described))
    model.format, model.key, model.example = form, form.key, f"{{{form.key}: FILE{form.suffix}}}"
    return model
