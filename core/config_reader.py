"""Reads Configs from a tree of nodes: every value checked, every complaint in lamina's words at its own place."""

from __future__ import annotations

from typing import Any, get_args, get_origin

from pydantic import ValidationError

from lamina.core.component import Component, ComponentConfig, Part, slot_kind, slots
from lamina.core.errors import Location, PluginError, Problem, SpecError, did_you_mean
from lamina.core.reader import MAX_PROBLEMS, KeyPath, Node, by_place, from_data
from lamina.core.registry import Registry


class ConfigReader:
    """Collects problems as it reads; `finish` raises them all."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.problems: list[Problem] = []
        self.origins: dict[KeyPath, str] = {}
        self.tree = Node({}, Location("spec"))
        self.broken: set[KeyPath] = set()  # where options stand that could not all be read
        self.told: set[KeyPath] = set()  # what is missing and was told already, with a better reason
        self.explained: list[Node] = []  # values that have been complained about

    def problem(self, message: str, location: Location | None, hint: str = "", note: str = "") -> None:
        found = Problem(message, location, hint, note)
        if found not in self.problems:  # one norm may stand in several slots
            self.problems.append(found)
        if len(self.problems) == MAX_PROBLEMS:
            self.finish()

    def finish(self) -> None:
        if self.problems:
            raise SpecError(sorted(self.problems, key=by_place))

    def config(self, cls: type[ComponentConfig], node: Node, path: KeyPath, label: str = "") -> Any:
        """The Config that `node` describes, or what can be read of it; then its path is in `broken`."""
        if not isinstance(node.value, dict):
            self.problem(f"{label or dotted(path)} must be a mapping, not {say(node.value)}", node.location)
            self.broken.add(path)
            return cls.model_construct(**dict.fromkeys(slots(cls)))
        before = len(self.problems)
        known = [*cls.model_fields, *cls.shorthand]
        for key, value in node.value.items():
            if key not in cls.model_fields:
                self.problem(
                    f"unknown key {say(key)}{f' for {label}' if label else ''}",
                    value.key_location or value.location,
                    did_you_mean(key, known) or self._who_has(key, label),
                    f"known: {', '.join(known) or 'none'}",
                )
        values: dict[str, Any] = {}
        for name, info in cls.model_fields.items():
            child = node.value.get(name)
            self._note_origin((*path, name), child, label)
            if (kind := slot_kind(info)) is not None:
                if child is None and info.is_required():
                    continue
                place = Location(f"default of {label or 'the spec'}", ours=True)
                raw = child or from_data(info.get_default(call_default_factory=True), place)
                values[name] = self._slot(kind, raw, info.annotation, (*path, name))
            elif (nested := _nested(info.annotation)) is not None:
                if child is None and info.is_required():
                    continue
                raw = child or from_data({}, node.location)
                values[name] = self.config(nested, raw, (*path, name))
            elif (nested := _nested_dict(info.annotation)) is not None and child is not None:
                if not isinstance(child.value, dict):
                    self.problem(f"{name} must be a mapping, not {say(child.value)}", child.location)
                    continue
                values[name] = {
                    key: self.config(nested, below, (*path, name, key), f"block '{key}'")
                    for key, below in child.value.items()
                }
            elif child is not None:
                values[name] = child.plain()
        readable = {name: None if value is _PLACEHOLDER else value for name, value in values.items()}
        made = None
        try:
            made = cls.model_validate(values)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                self._explain(detail, cls, node, path, label)
                readable.pop(str(detail["loc"][0]) if detail["loc"] else "", None)
        # A problem that is told already adds none, so their number alone does not say whether all was read.
        unread = made is None or any(value is _PLACEHOLDER for value in values.values())
        if not unread and len(self.problems) == before:
            return made
        self.broken.add(path)
        return cls.model_construct(**readable)

    def _who_has(self, key: str, label: str) -> str:
        """The components with an option of this name, where it is asked of another of their kind."""
        kind, _, named = label.partition(" '")
        having = [entry.name for entry in self.registry.entries(kind) if key in entry.component.Config.model_fields]
        return f"{kind}s with it: {', '.join(dict.fromkeys(having))}" if named and having else ""

    def _note_origin(self, path: KeyPath, child: Node | None, label: str) -> None:
        self.origins[path] = str(child.location) if child is not None else f"default{f' of {label}' if label else ''}"

    def _slot(self, kind: str, node: Node, annotation: Any, path: KeyPath) -> Any:
        if get_origin(annotation) is list:
            if not isinstance(node.value, list):
                node = Node([node], node.location)  # one stage needs no brackets
            return [
                part for i, item in enumerate(node.value) if (part := self.part(kind, item, (*path, i))) is not None
            ]
        if node.value is None and type(None) in get_args(annotation):
            return None
        return self.part(kind, node, path) or _PLACEHOLDER

    def part(self, kind: str, node: Node, path: KeyPath) -> Part | None:
        """The component that `node` names, with its options; None when it cannot be read."""
        named = node.value.get("name") if isinstance(node.value, dict) else node
        if named is None or not isinstance(named.value, str) or not named.value:
            known = ", ".join(self.registry.names(kind))
            what = f"it is {say(node.value)}" if not isinstance(node.value, dict) else "the mapping has no 'name'"
            self.problem(f"{dotted(path) or kind} must name {an(kind)}; {what}", node.location, "", f"known: {known}")
            return None
        try:
            registry = self.registry.ours if named.location.ours else self.registry
            entry = registry.get(kind, named.value)
        except PluginError as error:
            found = error.problems[0]
            self.problem(found.message, named.location, found.hint, found.note)
            return None
        options = (
            {key: value for key, value in node.value.items() if key != "name"} if isinstance(node.value, dict) else {}
        )
        label = f"{kind} '{named.value}'"
        config = self.config(entry.component.Config, Node(options, node.location, node.key_location), path, label)
        if path in self.broken:
            return None
        return Part(kind, named.value, entry.component, config, path)

    def _explain(self, detail: Any, cls: type[ComponentConfig], node: Node, path: KeyPath, label: str) -> None:
        """One pydantic complaint in lamina's words, at the place of the value."""
        location = [
            step for step in detail["loc"] if isinstance(step, int) or step in node.value or step in cls.model_fields
        ]
        field = location[0] if location else None
        value = node.at(tuple(location))
        place = value.location if value is not None else node.nearest(tuple(location))
        owner = f" for {label}" if label else ""
        if detail["type"] == "missing" and (*path, field) in self.told:
            return
        if detail["type"] == "missing":
            info = cls.model_fields.get(str(field))
            hint = (info.description or "") if info is not None else ""
            self.problem(f"'{field}' is missing{owner}", node.location, hint)
            return
        if value is None:
            self.problem(f"{detail['msg']}{owner}", place)
            return
        if any(value is explained for explained in self.explained):
            return  # a union complains once for each of its members, and one node may stand in several slots
        self.explained.append(value)
        given = say(value.value)
        where = f"{dotted(tuple(location))} of {label}" if label else dotted((*path, *location))
        if detail["type"] == "value_error":
            self.problem(f"{where}: {detail['msg'].removeprefix('Value error, ')}", place)
            return
        wanted, hint = _expectation(detail, value.value)
        self.problem(f"{where} must be {wanted}, not {given}", place, hint)


def _nested(annotation: Any) -> type[ComponentConfig] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, ComponentConfig) else None


def _nested_dict(annotation: Any) -> type[ComponentConfig] | None:
    return _nested(get_args(annotation)[1]) if get_origin(annotation) is dict else None


_PLACEHOLDER = Part("placeholder", "placeholder", Component, ComponentConfig())


def dotted(path: KeyPath) -> str:
    return ".".join(str(step) for step in path)


def an(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" or word == "ffn" else f"a {word}"


def say(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    said = str(value) if len(str(value)) <= 60 else f"{str(value)[:57]}…"
    return f"'{said}'" if isinstance(value, str) else said


_TYPES = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "a text",
    "list_type": "a list",
    "dict_type": "a mapping",
    "none_required": "null",
}


def _expectation(detail: Any, value: Any) -> tuple[str, str]:
    """What was wanted and how to mend it, for one pydantic complaint."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "bool_type" and isinstance(value, str) and value.lower() in ("yes", "no", "on", "off"):
        return "true or false", f"write {'true' if value.lower() in ('yes', 'on') else 'false'}"
    if kind in _TYPES:
        return _TYPES[kind], ""
    if kind == "literal_error":
        allowed = [word.strip("'") for word in context["expected"].replace(" or ", ", ").split(", ")]
        return f"one of {', '.join(allowed)}", did_you_mean(str(value), allowed)
    for name, words in (("gt", "greater than"), ("ge", "at least"), ("lt", "less than"), ("le", "at most")):
        if name in context:
            return f"{words} {_number(context[name])}", ""
    if "min_length" in context:
        return f"at least {context['min_length']} long", ""
    return detail["msg"], ""


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)
