"""A sampler chain as it is written on a command line.

`temperature=0.8,top_p=0.95` names stages, each with the value of its first option; `{name: top_p, p: 0.95}` or a list
of such mappings says everything.
"""

from __future__ import annotations

from collections.abc import Iterable

from lamina.core.component import Part
from lamina.core.errors import Location
from lamina.core.reader import Node, parse_value
from lamina.core.registry import Registry
from lamina.core.resolve import resolve_part


def parse_chain(texts: Iterable[str], registry: Registry, flag: str = "--sampler") -> list[Part]:
    """The stages that `texts` name, in order. Raises SpecError."""
    return [resolve_part("sampler", node, registry) for text in texts for node in _stages(text, registry, flag)]


def _stages(text: str, registry: Registry, flag: str) -> list[Node]:
    if text.lstrip().startswith(("{", "[")):
        node = parse_value(text, f"{flag} {text}")
        return node.value if isinstance(node.value, list) else [node]
    return [_stage(piece.strip(), registry, flag) for piece in text.split(",")]


def _stage(text: str, registry: Registry, flag: str) -> Node:
    name, equals, value = text.partition("=")
    place = Location(f"{flag} {text}")
    named = Node(name.strip(), place, place)
    if not equals:
        return named
    fields = list(registry.get("sampler", named.value).component.Config.model_fields)
    option = fields[0] if fields else "value"  # a stage without options says that it has none
    return Node({"name": named, option: parse_value(value, f"{flag} {text}")}, place, place)
