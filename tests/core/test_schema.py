"""The JSON Schema accepts what lamina reads and refuses what it refuses."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from lamina.core.index import make_index
from lamina.core.reader import read_text
from lamina.core.registry import load_plugins
from lamina.core.schema import spec_schema
from lamina.core.spec import shipped_specs

SPEC = """
lamina: 1
vocab_size: 96
dim: 32
context_length: 16
position: rope
norm: {name: rms, eps: 1e-5}
block:
  placement: sandwich
  attention: {name: "lamina:gqa", n_heads: 4, mask: {name: sliding, window: 4}}
  ffn: {name: moe, n_experts: 4, expert: {name: gated, hidden_dim: 8}}
layers: 2
sampler: [greedy]
"""


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return spec_schema(make_index(load_plugins())["components"])


TYPES = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool}


def accepts(schema: Any, data: Any, root: dict[str, Any]) -> bool:
    """The keywords of JSON Schema that lamina's schema uses; an unknown one fails the test."""
    if isinstance(schema, bool):
        return schema

    def ok(below: Any, value: Any = data) -> bool:
        return accepts(below, value, root)

    rules: dict[str, Any] = {
        "$ref": lambda ref: ok(root["$defs"][ref.removeprefix("#/$defs/")]),
        "type": lambda name: (
            data is None
            if name == "null"
            else isinstance(data, TYPES[name]) and (name == "boolean" or not isinstance(data, bool))
        ),
        "enum": lambda values: data in values,
        "const": lambda value: data == value,
        "oneOf": lambda options: sum(ok(option) for option in options) == 1,
        "anyOf": lambda options: any(ok(option) for option in options),
        "not": lambda below: not ok(below),
        "if": lambda below: ok(schema["then"] if ok(below) else schema["else"]),
        "required": lambda names: not isinstance(data, dict) or all(name in data for name in names),
        "properties": lambda p: (
            not isinstance(data, dict) or all(ok(p[key], value) for key, value in data.items() if key in p)
        ),
        "additionalProperties": lambda rest: (
            not isinstance(data, dict)
            or all(ok(rest, value) for key, value in data.items() if key not in schema.get("properties", {}))
        ),
        "items": lambda below: not isinstance(data, list) or all(ok(below, item) for item in data),
        "prefixItems": lambda items: all(ok(below, item) for below, item in zip(items, data, strict=False)),
        "minItems": lambda n: not isinstance(data, list) or len(data) >= n,
        "maxItems": lambda n: not isinstance(data, list) or len(data) <= n,
        "minLength": lambda n: not isinstance(data, str) or len(data) >= n,
        "minProperties": lambda n: not isinstance(data, dict) or len(data) >= n,
        "minimum": lambda n: not isinstance(data, (int, float)) or data >= n,
        "maximum": lambda n: not isinstance(data, (int, float)) or data <= n,
        "exclusiveMinimum": lambda n: not isinstance(data, (int, float)) or data > n,
        "exclusiveMaximum": lambda n: not isinstance(data, (int, float)) or data < n,
    }
    silent = {"then", "else", "description", "default", "title", "$schema", "$defs"}
    return all(rules[word](value) for word, value in schema.items() if word not in silent)


def changed(path: str, value: Any) -> Any:
    data = read_text(SPEC, "spec").plain()
    *above, last = path.split(".")
    place = data
    for step in above:
        place = place[step]
    place[last] = value
    return data


def test_every_shipped_spec_is_accepted(schema: dict[str, Any]) -> None:
    for name, file in shipped_specs().items():
        assert accepts(schema, read_text(file.read_text(), name).plain(), schema), name


def test_shorthand_and_full_names_are_accepted(schema: dict[str, Any]) -> None:
    assert accepts(schema, read_text(SPEC, "spec").plain(), schema)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("dimm", 3),
        ("dim", "32"),
        ("dim", 0),
        ("norm", "rsm"),
        ("norm.epz", 1),
        ("block.attention", "gqa"),  # n_heads has no default
        ("block.attention.name", "moe"),
        ("block.ffn.expert.name", "rms"),
        ("block.placement", "inside"),
        ("blocks", {}),  # beside block
    ],
)
def test_what_lamina_refuses_is_refused(schema: dict[str, Any], path: str, value: Any) -> None:
    assert not accepts(schema, changed(path, value), schema)


def test_what_extends_a_base_may_be_partial(schema: dict[str, Any]) -> None:
    over = {"extends": "gpt2", "block": {"attention": {"n_heads": 6}}}
    assert accepts(schema, over, schema)
    assert not accepts(schema, {**over, "dim": "wide"}, schema)
    blocks = {"a": {"attention": {"name": "gqa", "n_heads": 4}, "ffn": "gated"}, "b": {"extends": "a", "ffn": "mlp"}}
    data = read_text(SPEC, "spec").plain()
    del data["block"]
    whole = {**data, "blocks": blocks, "layers": {"pattern": ["a", "b"], "n_layers": 2}}
    assert accepts(schema, whole, schema)
    unfinished = copy.deepcopy(whole)
    del unfinished["blocks"]["a"]["attention"]["name"]
    assert not accepts(schema, unfinished, schema)


def test_every_option_carries_its_description(schema: dict[str, Any]) -> None:
    gqa = next(c for c in schema["$defs"]["attention"]["oneOf"] if "gqa" in c["properties"]["name"]["enum"])
    assert gqa["properties"]["n_heads"]["description"] == "Query heads."
    assert gqa["required"] == ["name", "n_heads"]
