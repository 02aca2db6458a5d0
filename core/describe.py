"""Parts and blocks in a few words: the name, and the options that are not as they come."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pydantic.fields import FieldInfo

from lamina.core.component import ComponentConfig, Part, slot_kind
from lamina.core.resolved import SLOTS, BlockConfig, ResolvedSpec


def describe(part: Part | None, spec: ResolvedSpec | None = None, also: Collection[str] = ()) -> str:
    """`gqa(n_heads 12, n_kv_heads 4)`. With its `spec`, factors that merely follow from sizes are left out.

    Options named in `also` are told as if they were unusual.
    """
    if part is None:
        return "none"
    told = []
    for name, info in type(part.config).model_fields.items():
        value = getattr(part.config, name)
        follows = spec is not None and spec.origins.get((*part.path, name)) == "derived" and type(value) is not int
        if not follows and (name in also or _is_unusual(value, info, spec)):
            told.append(f"{name} {say(value, spec)}")
    return f"{part.name}({', '.join(told)})" if told else part.name


def describe_block(block: BlockConfig, spec: ResolvedSpec) -> str:
    """A layer's parts: position, attention, ffn, norms, and what else is unusual."""
    words = [f"position {describe(block.position, spec)}"] if block.attention is not None else []
    words += [describe(part, spec) for part in (block.attention, block.ffn) if part is not None]
    norms: dict[str, list[str]] = {}
    for name in SLOTS:
        if (norm := getattr(block, name)) is not None:
            norms.setdefault(describe(norm, spec), []).append(name)
    words += [f"{norm} at {', '.join(places)}" for norm, places in norms.items()]
    if describe(block.residual, spec) != BlockConfig.model_fields["residual"].default:
        words.append(f"residual {describe(block.residual, spec)}")
    if block.ffn_residual is not None:
        words.append(f"ffn residual {describe(block.ffn_residual, spec)}")
    if block.flow != BlockConfig.model_fields["flow"].default:
        words.append(f"flow {block.flow}")
    return " · ".join(words)


def _is_unusual(value: Any, info: FieldInfo, spec: ResolvedSpec | None) -> bool:
    default = info.get_default(call_default_factory=True)
    if slot_kind(info) is not None and isinstance(value, Part):
        return bool(describe(value, spec) != default)  # a default is written as a bare name
    return bool(value != default)


def say(value: Any, spec: ResolvedSpec | None = None) -> str:
    """A value of a spec as a person would put it."""
    if isinstance(value, Part):
        return describe(value, spec)
    if isinstance(value, bool) or value is None:
        return {True: "on", False: "off", None: "none"}[value]
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(say(item, spec) for item in value)}]" if value else "none"
    if isinstance(value, ComponentConfig):
        return "(" + ", ".join(f"{name} {say(item, spec)}" for name, item in vars(value).items()) + ")"
    return str(value)
