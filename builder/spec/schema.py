"""The JSON Schema of a spec, for editors; what it cannot say, the loader checks."""

from __future__ import annotations

from typing import Any

from builder.engines import ENGINES
from builder.spec import gpu, model
from builder.spec.model import Cluster
from builder.spec.section import Section
from builder.spec.slots import slots

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of ``cluster.yaml``."""
    made = Cluster.model_json_schema(by_alias=True)
    definitions: dict[str, dict[str, Any]] = made.pop("$defs")
    for name, definition in definitions.items():
        section = getattr(model, name, None) or getattr(gpu, name, None)
        if isinstance(section, type) and issubclass(section, Section) and section.choice:
            word = "oneOf" if section.choice.exactly else "anyOf"
            definition[word] = [{"required": [key]} for key in section.choice.keys]
            _combinations(definition, section)
        if isinstance(section, type) and issubclass(section, Section):
            _as_written(definition, section)
    variants = {kind.options.__name__: kind.options.model_json_schema(by_alias=True) for kind in ENGINES.values()}
    for kind in ENGINES.values():
        variant = variants[kind.options.__name__]
        _as_written(variant, kind.options)
        variant.pop("$defs", None)
        variant["required"] = ["name"]
    definitions |= variants
    del definitions["Engine"]
    description = made["properties"]["engine"].get("description", "")
    made["properties"]["engine"] = {
        "description": description,
        "anyOf": [{"enum": list(ENGINES)}, *({"$ref": f"#/$defs/{name}"} for name in variants)],
    }
    made["title"] = "Cluster spec"
    made["description"] = "What a cluster is: its network, nodes, access, disks, models, firewall and media."
    return {"$schema": DIALECT, **_plain(made), "$defs": _plain(definitions)}


def _as_written(definition: dict[str, Any], section: type[Section]) -> None:
    """Leave out what is no key, and let a single value stand for a group where it may."""
    for name, field in section.model_fields.items():
        if field.exclude:
            del definition["properties"][name]
    for key, slot in slots(section).items():
        if slot.section and slot.section.short:
            group = definition["properties"][key]
            if "anyOf" not in group:  # it is never null, so it is the group alone
                group["anyOf"] = [{"$ref": group.pop("$ref")}]
            group["anyOf"].insert(0, {"type": "string", "minLength": 1})


def _combinations(definition: dict[str, Any], section: type[Section]) -> None:
    """Which keys need which others."""
    for key, other in section.unless.items():
        definition["anyOf"] = [{"required": [key]}, {"required": [other]}]
    for key, partners in section.only_with.items():
        needed = {"anyOf": [{"required": [partner]} for partner in partners]}
        definition.setdefault("dependentSchemas", {})[key] = needed


def _plain(node: Any) -> Any:
    """Without pydantic's per-field titles, which only repeat the key, and without defaults of null."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    fields = {
        key: {name: _plain(_without_title(value)) for name, value in inner.items()}
        if key == "properties"
        else _plain(inner)
        for key, inner in node.items()
    }
    if "default" in fields and fields["default"] is None:
        del fields["default"]
    return fields


def _without_title(value: Any) -> Any:
    return {key: inner for key, inner in value.items() if key != "title"} if isinstance(value, dict) else value
