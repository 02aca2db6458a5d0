"""The JSON Schema accepts what lamina reads and refuses what it refuses."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from jsonschema import Draft202012Validator

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


def accepts(schema: dict[str, Any], data: Any) -> bool:
    return Draft202012Validator(schema).is_valid(data)


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
        assert accepts(schema, read_text(file.read_text(), name).plain()), name


def test_shorthand_and_full_names_are_accepted(schema: dict[str, Any]) -> None:
    assert accepts(schema, read_text(SPEC, "spec").plain())


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
    assert not accepts(schema, changed(path, value))


def test_what_extends_a_base_may_be_partial(schema: dict[str, Any]) -> None:
    over = {"extends": "gpt2", "block": {"attention": {"n_heads": 6}}}
    assert accepts(schema, over)
    assert not accepts(schema, {**over, "dim": "wide"})
    blocks = {"a": {"attention": {"name": "gqa", "n_heads": 4}, "ffn": "gated"}, "b": {"extends": "a", "ffn": "mlp"}}
    data = read_text(SPEC, "spec").plain()
    del data["block"]
    whole = {**data, "blocks": blocks, "layers": {"pattern": ["a", "b"], "n_layers": 2}}
    assert accepts(schema, whole)
    unfinished = copy.deepcopy(whole)
    del unfinished["blocks"]["a"]["attention"]["name"]
    assert not accepts(schema, unfinished)


def test_every_option_carries_its_description(schema: dict[str, Any]) -> None:
    gqa = next(c for c in schema["$defs"]["attention"]["oneOf"] if "gqa" in c["properties"]["name"]["enum"])
    assert gqa["properties"]["n_heads"]["description"] == "Query heads."
    assert gqa["required"] == ["name", "n_heads"]
