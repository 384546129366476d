"""The JSON Schema of experiment files, for editors: made of the fields that check them, and of the registries.

It admits every file that is read without an error, and refuses what no file may say. What only the whole can tell, such
as a burst that does not fit the queue, it does not know: `spraylab run --dry-run` does.
"""

from __future__ import annotations

from typing import Any

from pydantic import PlainSerializer
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from experiments.spec.experiment import Experiment
from experiments.spec.fields import Keys, keys
from experiments.spec.strain import kind_of_strain
from experiments.spec.sweep import LISTS, NOT_SWEPT, TOGETHER
from experiments.spec.traffic import kinds
from experiments.spec.traffic.collective import CollectiveTraffic
from experiments.spec.traffic.several import SeveralTraffic
from traffic.collectives import COLLECTIVES
from traffic.schemes import FAMILIES, SCHEMES

SCHEMA_FILE = "spraylab.schema.json"
"""What the schema is called beside a starter."""

EDITOR_LINE = "# yaml-language-server: $schema="
"""How the line of a YAML file begins that tells editors where its schema is."""

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


class _OfFields(GenerateJsonSchema):
    """Says of every key what errors say of it, and writes defaults as a file would."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        made = super().model_schema(schema)
        for noise in ("title", "description"):  # of the code; what the key says follows
            made.pop(noise, None)
        if issubclass(model := schema["cls"], Keys):
            for (key, says), field in zip(keys(model).items(), model.model_fields.values(), strict=True):
                said = made["properties"][key]
                said["description"] = says
                for part in field.metadata:
                    if isinstance(part, PlainSerializer) and "default" in said:
                        said["default"] = part.func(field.default)  # type: ignore[call-arg]
        return made


def experiment_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of an experiment file."""
    made = Experiment.model_json_schema(schema_generator=_OfFields)
    made["required"].remove("name")  # a file without one is called as itself
    entries = {key: kind.model_json_schema(schema_generator=_OfFields) for key, kind in kinds().items()}
    for entry in entries.values():
        made["$defs"] |= entry.pop("$defs", {})
    _name_collectives(entries[CollectiveTraffic.key])
    several = entries[SeveralTraffic.key]["properties"][SeveralTraffic.key]
    several["items"] = {"anyOf": [entry for key, entry in entries.items() if key != SeveralTraffic.key]}
    lists = made["properties"]
    lists["traffic"]["items"] = {"anyOf": list(entries.values())}
    lists["schemes"]["items"] = {"anyOf": _schemes()}
    lists["strain"] |= {"anyOf": [_strain(), {"type": "null"}]}
    lists["sweep"] |= {"anyOf": [_sweep(), {"type": "null"}]}
    for name in ("traffic", "schemes", "seeds"):
        lists[name]["minItems"] = 1
    return {"$schema": _DIALECT, "title": "An experiment of spraylab", **made}


def _name_collectives(entry: JsonSchemaValue) -> None:
    """Add to the schema of an entry which collectives there are, and which algorithms each has."""
    entry["properties"]["collective"]["enum"] = list(COLLECTIVES)
    del entry["properties"]["algorithm"]["default"]  # the collective's first
    entry["allOf"] = [
        {
            "if": {"properties": {"collective": {"const": name}}, "required": ["collective"]},
            "then": {"properties": {"algorithm": {"enum": list(collective.algorithms)}}},
        }
        for name, collective in COLLECTIVES.items()
    ]


def _strain() -> JsonSchemaValue:
    """Return which strains there are, each a mapping of options or its first option by itself."""
    strains = {key: {"description": says} for key, says in keys(kind_of_strain()).items()}
    return {"type": "object", "properties": strains, "additionalProperties": False}


def _sweep() -> JsonSchemaValue:
    """Return what a sweep looks like, whose keys are paths that nobody could list."""
    never = [*NOT_SWEPT, *LISTS]
    return {
        "type": "object",
        "properties": {TOGETHER: {"type": "boolean"}, **dict.fromkeys(never, False)},
        "additionalProperties": {"type": "array", "minItems": 1, "uniqueItems": True},
        "minProperties": 1,
    }


def _schemes() -> list[JsonSchemaValue]:
    return [
        *({"const": scheme.name, "description": scheme.says} for scheme in SCHEMES),
        *(
            {
                "type": "string",
                "pattern": f"^{family.pattern}$",
                "description": f"{family.name} {family.limits}: {family.says}",
            }
            for family in FAMILIES
        ),
    ]
