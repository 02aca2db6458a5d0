"""A spec as a person would write it: what a machine wrote in full, without all that goes without saying.

Nothing here knows a component. A value is left out where the spec without it resolves to the same.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

from lamina.core.errors import LaminaError
from lamina.core.registry import Registry
from lamina.core.resolve import resolve_data
from lamina.core.resolved import ResolvedSpec

Data = dict[str, Any]
KEPT = {
    ("lamina",),
    ("name",),
    ("vocab_size",),
    ("dim",),
    ("context_length",),
    ("layers",),
    ("tokenizer",),
    ("sampler",),
}


def tidy(data: Data, registry: Registry) -> Data:
    """The least that resolves to the same spec, with blocks that extend each other and the shortest pattern."""
    data = _shorten_layers(copy.deepcopy(data))
    wanted = meaning(resolve_data(data, registry))
    blocks = data["blocks"]
    if len(blocks) > 1:
        first = next(iter(blocks))
        for name in list(blocks)[1:]:
            plain = blocks[name]
            blocks[name] = {"extends": first, **_over(plain, blocks[first], wanted["blocks"][name])}
            if not _means(data, wanted, registry):
                blocks[name] = plain
    for path in sorted(_paths(data), key=len):  # what is for all blocks before what one says
        if path in KEPT or path[-1] == "extends" or path[0] in ("layers", "tokenizer", "sampler"):
            continue
        above: Any = data
        for key in path[:-1]:
            above = above.get(key) if isinstance(above, dict) else None
        if not isinstance(above, dict) or path[-1] not in above:
            continue
        value = above.pop(path[-1])
        if not _means(data, wanted, registry):
            kept = dict(above)  # put it back where it stood
            above.clear()
            above |= {path[-1]: value, **kept} if path[-1] in ("name",) else {**kept, path[-1]: value}
    if len(blocks) == 1:
        (block,) = blocks.values()
        data["block"] = block
        del data["blocks"]
        data["layers"] = data["layers"]["n_layers"]
    return _order(data)


def _over(block: Data, base: Data, resolved: Data) -> Data:
    """A block that says all its base says, so that it inherits no value that it has not."""
    made = dict(block)
    for key, value in base.items():
        if key not in made and key in resolved:
            made[key] = copy.deepcopy(resolved[key])
            continue
        mappings = all(isinstance(part, dict) for part in (value, made.get(key), resolved.get(key)))
        if mappings and made[key].get("name") == value.get("name"):
            made[key] = _over(made[key], value, resolved[key])
    return made


def meaning(spec: ResolvedSpec) -> Data:
    """Plain data that is alike for two specs that say the same in other words."""
    data = spec.dump()
    at_embedding = "embeddings" in spec.position.component.acts_at()  # type: ignore[attr-defined]
    for block in data["blocks"].values():
        if block["attention"] is None or (at_embedding and block["position"]["name"] == data["position"]["name"]):
            block["position"] = None
    if not at_embedding:
        data["position"] = None  # it stands in the blocks
    if data["embedding"]["scale"] == "sqrt_dim":
        data["embedding"]["scale"] = math.sqrt(spec.dim)
    return data


def _means(data: Data, wanted: Data, registry: Registry) -> bool:
    try:
        return meaning(resolve_data(data, registry)) == wanted
    except LaminaError:
        return False


def _paths(data: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key of nested mappings; those that hold others first, since leaving out the whole is shortest."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield (*above, key)
            yield from _paths(value, (*above, key))


def _shorten_layers(data: Data) -> Data:
    names, n_layers = data["layers"]["pattern"], data["layers"]["n_layers"]
    period = next(p for p in range(1, n_layers + 1) if all(names[i] == names[i % p] for i in range(n_layers)))
    data["layers"]["pattern"] = names[:period]
    if len(data["blocks"]) == 1:
        data["blocks"] = {"block": next(iter(data["blocks"].values()))}
        data["layers"]["pattern"] = ["block"]
    return data


ORDER = (
    "lamina", "name", "vocab_size", "dim", "context_length", "tokenizer", "embedding", "position", "norm", "block",
    "blocks", "layers", "head", "init", "sampler", "train",
)  # fmt: skip
BLOCK_ORDER = ("extends", "norm", "placement", "flow", "position", "attention", "ffn", "residual")


def _order(data: Data) -> Data:
    made = {key: _numbers(data[key]) for key in sorted(data, key=lambda key: _at(ORDER, key))}
    for block in [made["block"]] if "block" in made else made["blocks"].values():
        sorted_block = {key: block[key] for key in sorted(block, key=lambda key: _at(BLOCK_ORDER, key))}
        block.clear()
        block |= sorted_block
    return made


def _at(order: tuple[str, ...], key: str) -> int:
    return order.index(key) if key in order else len(order)


def _numbers(value: Any) -> Any:
    """500000.0 as 500000, and a part that is nothing but a name as the name."""
    if isinstance(value, dict):
        made = {key: _numbers(value[key]) for key in sorted(value, key=lambda key: key != "name")}
        return made["name"] if set(made) == {"name"} else made
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) >= 1000:
        return int(value)
    return value
