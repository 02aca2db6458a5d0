"""JSON Schema of Configs and of whole specs, for editors. Imports no torch.

A slot is a reference to its kind; a kind is one of its components' names, or a mapping with the name and that
component's own options. Where something is extended, a mapping may leave the name out, because it adds to the base.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, get_args, get_origin

from pydantic import PydanticUserError, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from lamina.core.component import ComponentConfig, slot_kind
from lamina.core.resolve import PLACEMENTS
from lamina.core.resolved import BlockConfig, LayersConfig, ResolvedSpec

Json = dict[str, Any]


def config_schema(config: type[ComponentConfig], *, partial: bool = False) -> Json:
    """The options of one Config. `partial`: for laying over a base, so that nothing is required."""
    properties = {name: _field(info, partial) for name, info in config.model_fields.items()}
    required = [name for name, info in config.model_fields.items() if info.is_required()]
    made: Json = {"type": "object", "properties": properties, "additionalProperties": False}
    return made if partial or not required else {**made, "required": required}


def _field(info: FieldInfo, partial: bool) -> Json:
    described = {"description": info.description} if info.description else {}
    annotation: Any = info.annotation
    if (kind := slot_kind(info)) is not None:
        made: Json = {"$ref": f"#/$defs/{kind}{' over' if partial else ''}"}
        if get_origin(annotation) is list:
            made = {"anyOf": [made, {"type": "array", "items": {"$ref": f"#/$defs/{kind}"}}]}
        elif type(None) in get_args(annotation):
            made = {"anyOf": [made, {"type": "null"}]}
        return {**made, **described}
    if isinstance(annotation, type) and issubclass(annotation, ComponentConfig):
        return {**config_schema(annotation, partial=partial), **described}
    wanted = annotation
    for rule in info.metadata:
        wanted = Annotated[wanted, rule]
    try:
        made = {key: value for key, value in TypeAdapter(wanted).json_schema().items() if key != "title"}
        if not info.is_required():
            made["default"] = to_jsonable_python(info.get_default(call_default_factory=True))
    except PydanticUserError:  # a type of a plugin's own: anything may stand there
        return described
    return {**made, **described}


def kind_schemas(components: Iterable[Mapping[str, Any]]) -> dict[str, Json]:
    """`$defs` for the kinds of these components, as the index lists them: each by name, and each laid over a base."""
    by_kind: dict[str, list[Mapping[str, Any]]] = {}
    for component in components:
        by_kind.setdefault(component["kind"], []).append(component)
    made: dict[str, Json] = {}
    for kind, found in by_kind.items():
        names = [component["name"] for component in found]
        choices: list[Json] = []
        for component in found:
            full = f"{component['distribution']}:{component['name']}"
            # A name that two distributions offer must say whose it is.
            called = [full] if names.count(component["name"]) > 1 else [component["name"], full]
            schema = component["schema"]
            about = {"description": component["summary"]} if component["summary"] else {}
            if "required" not in schema:
                choices.append({"enum": called, **about})
            properties = {"name": {"enum": called, **about}, **schema["properties"]}
            required = ["name", *schema.get("required", [])]
            choices.append({**schema, "properties": properties, "required": required, **about})
        made[kind] = {"oneOf": choices}
        nameless = {"type": "object", "not": {"required": ["name"]}}
        made[f"{kind} over"] = {"anyOf": [{"$ref": f"#/$defs/{kind}"}, nameless]}
    return made


def spec_schema(components: Iterable[Mapping[str, Any]]) -> Json:
    """The schema of a spec file, made of what is installed."""
    kinds = kind_schemas(components)
    for kind in _kinds_named([*(component["schema"] for component in components), _spec(False)]) - kinds.keys():
        kinds[kind] = kinds[f"{kind} over"] = False  # type: ignore[assignment]  # nothing of this kind is installed
    blocks = {"block": _block(False), "block over": _block(True)}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "lamina spec",
        "if": {"required": ["extends"]},
        "then": _spec(True),
        "else": _spec(False),
        "$defs": {**blocks, **kinds},
    }


def _spec(partial: bool) -> Json:
    """Of a spec that extends another (`partial`) or stands alone, shorthand included."""
    made = config_schema(ResolvedSpec, partial=partial)
    block = {"$ref": f"#/$defs/block{' over' if partial else ''}"}
    extending = {"if": {"required": ["extends"]}, "then": {"$ref": "#/$defs/block over"}, "else": block}
    properties = {"lamina": {"const": 1, "description": "The format's version."}, **made["properties"]}
    properties["extends"] = {
        "type": "string",
        "description": "A spec file or a shipped spec that this one is laid over.",
    }
    properties["block"] = {**block, "description": "The one kind of layer."}
    properties["blocks"] = {**properties["blocks"], "additionalProperties": extending}
    layers = config_schema(LayersConfig, partial=True)
    properties["layers"] = {"anyOf": [{"type": "integer", "minimum": 1}, layers], "description": "Number of layers."}
    whole = {**made, "properties": properties}
    if partial:
        return whole
    required = [name for name in made["required"] if name not in ("blocks", "vocab_size")]
    either = {"oneOf": [{"required": ["block"]}, {"required": ["blocks"]}]}
    return {**whole, "required": ["lamina", *required], **either}


def _block(partial: bool) -> Json:
    made = config_schema(BlockConfig, partial=partial)
    shorthand = {
        "norm": {"anyOf": [{"$ref": "#/$defs/norm"}, {"type": "null"}], "description": "The norm that placement puts."},
        "placement": {"enum": list(PLACEMENTS), "description": "Where norms stand: shorthand for the six norm slots."},
        "extends": {"type": "string", "description": "Another block of this spec that this one is laid over."},
    }
    return {**made, "properties": {**made["properties"], **shorthand}}


def _kinds_named(schema: Any) -> set[str]:
    """Kinds that a schema refers to."""
    if isinstance(schema, dict):
        own = {schema["$ref"].removeprefix("#/$defs/").removesuffix(" over")} if "$ref" in schema else set()
        return own.union(*(_kinds_named(value) for value in schema.values())) - {"block"}
    return set().union(*(_kinds_named(item) for item in schema)) if isinstance(schema, list) else set()
