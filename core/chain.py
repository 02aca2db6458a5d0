"""A sampler chain and a strategy as they are written on a command line.

`temperature=0.8,top_p=0.95` names stages, each with the value of its first option; `{name: top_p, p: 0.95}` or a list
of such mappings says everything.
"""

from __future__ import annotations

from collections.abc import Iterable

from lamina.core.component import Part
from lamina.core.errors import Location, SpecError
from lamina.core.reader import Node, parse_value
from lamina.core.registry import Registry
from lamina.core.resolve import resolve_part


def parse_chain(texts: Iterable[str], registry: Registry, flag: str = "--sampler") -> list[Part]:
    """The stages that `texts` name, in order. Raises SpecError."""
    return [resolve_part("sampler", node, registry) for text in texts for node in _stages(text, registry, flag)]


def parse_strategy(text: str, registry: Registry, flag: str = "--decoding") -> Part:
    """The strategy that `text` names: a name, or a YAML mapping. Raises SpecError."""
    if not text.strip():
        known = ", ".join(registry.names("decoding"))
        raise SpecError(
            f"{flag} '{text}' names no strategy", hint=f"write {flag} beam, or leave it out", note=f"known: {known}"
        )
    return resolve_part("decoding", parse_value(text, f"{flag} {text}"), registry)


def _stages(text: str, registry: Registry, flag: str) -> list[Node]:
    if text.lstrip().startswith(("{", "[")):
        node = parse_value(text, f"{flag} {text}")
        return node.value if isinstance(node.value, list) else [node]
    pieces = [piece.strip() for piece in text.split(",")]
    if not all(pieces):
        what = "names no stage" if not any(pieces) else "has a comma with no stage before or after it"
        raise SpecError(f"{flag} '{text}' {what}", hint=f"write {flag} temperature=0.8,top_p=0.95, or {flag} greedy")
    return [_stage(piece, registry, flag) for piece in pieces]


def _stage(text: str, registry: Registry, flag: str) -> Node:
    name, equals, value = text.partition("=")
    place = Location(f"{flag} {text}")
    named = Node(name.strip(), place, place)
    if not equals:
        return named
    fields = list(registry.get("sampler", named.value).component.Config.model_fields)
    option = fields[0] if fields else "value"  # a stage without options says that it has none
    return Node({"name": named, option: parse_value(value, f"{flag} {text}")}, place, place)
