"""What components of every kind keep to: options that are strict and described, parts that say what they are."""

from __future__ import annotations

import inspect
from typing import Any

from pydantic import BaseModel, ValidationError

from lamina.core.component import slots
from lamina.core.conformance.case import Case, derive_again
from lamina.core.conformance.checks import ANY, Wrong, check, shorten
from lamina.core.errors import ConfigProblem, LaminaError
from lamina.core.resolve import resolve_part
from lamina.core.tokenizer import Tokenizer


@check(ANY, name="says what it is", once=True)
def says_what_it_is(case: Case) -> None:
    """The class has a docstring of its own, whose first line the lists show."""
    component = case.entry.component
    if not (vars(component).get("__doc__") or "").strip():
        raise Wrong("a docstring that says in a line what the component does", f"none on {component.__name__}")
    if not isinstance(component.paper, str):
        raise Wrong("`paper` to be a text", type(component.paper).__name__)


@check(ANY, name="options described", once=True)
def every_option_is_described(case: Case) -> None:
    """Every option has a description, which is its documentation."""
    for config in nested(case.entry.component.Config):
        bare = [name for name, info in config.model_fields.items() if not (info.description or "").strip()]
        if bare:
            raise Wrong("a description of every option", f"none of {config.__name__}.{bare[0]}")


@check(ANY, name="options strict", once=True)
def options_are_strict(case: Case) -> None:
    """Unknown options and wrong types are refused, and a Config cannot be changed."""
    config = case.part.config
    values = dict(vars(config))
    for inner in nested(type(config)):
        rules = inner.model_config
        for rule, wanted in (("extra", "forbid"), ("frozen", True), ("strict", True)):
            if rules.get(rule) != wanted:
                raise Wrong(f"{inner.__name__} to keep {rule}={wanted!r} of ComponentConfig", f"{rules.get(rule)!r}")
    try:
        type(config).model_validate({**values, "no_such_option": 1})
    except ValidationError:
        return
    raise Wrong("an option the component does not know to be refused", "it was taken", option="no_such_option")


@check(ANY, name="asks for what it is told", once=True)
def asks_only_for_what_it_is_told(case: Case) -> None:
    """`__init__`, `derive` and `parts` name only sizes that the kind is told, and sub-parts."""
    component = case.entry.component
    if issubclass(component, Tokenizer):
        return  # made by `open` or by `train`
    told = set(component.told)
    asked = {"derive": _named(component.Config.derive)[1:], "parts": _named(component.parts)[1:]}
    if "parts" not in vars(component):  # else it names what it builds
        asked["__init__"] = [n for n in _named(component.__init__)[2:] if n not in slots(component.Config)]
    for method, names in asked.items():
        if strange := [name for name in names if name not in told]:
            raise Wrong(
                f"{method} to ask only for what a {component.kind} is told: {shorten(sorted(told))}", strange[0]
            )


@check(ANY, name="resolves to itself")
def resolved_options_resolve_to_themselves(case: Case) -> None:
    """The options as resolved, written into a spec, resolve to the same: a checkpoint relies on it."""
    part = case.part
    try:
        again = resolve_part(part.kind, part.dump(), case.registry, **case.sizes)
    except LaminaError as error:
        raise Wrong("the resolved options to be options again", error.message) from error
    if again.dump() != part.dump():
        unlike = [name for name, value in part.dump().items() if again.dump().get(name) != value]
        raise Wrong("the resolved options to resolve to themselves", f"'{unlike[0]}' changed")
    try:
        derived = derive_again(case)
    except ConfigProblem as error:
        raise Wrong("derive to accept what it has derived", error.message) from error
    changed = [name for name, value in derived.items() if getattr(part.config, name) != value]
    if changed:
        raise Wrong("derive to leave alone what is filled in", f"it changes '{changed[0]}'")


@check(ANY, name="requires and provides")
def names_what_it_needs_and_offers(case: Case) -> None:
    """`requires` maps kinds to sets of words, `provides` is a set of words."""
    component, config = case.entry.component, case.part.config
    provided: Any = component.provides(config)
    if not isinstance(provided, (set, frozenset)) or not all(isinstance(word, str) for word in provided):
        raise Wrong("provides to return a set of texts", repr(provided))
    for kind, words in component.requires(config).items():
        if not isinstance(kind, str) or not isinstance(words, (set, frozenset)):
            raise Wrong("requires to map each kind to a set of words", f"{kind!r}: {words!r}")


def nested(config: type[BaseModel]) -> list[type[BaseModel]]:
    """This Config and those it holds."""
    found = [config]
    for info in config.model_fields.values():
        for annotation in (info.annotation, *getattr(info.annotation, "__args__", ())):
            if isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation not in found:
                found += nested(annotation)
    return found


def _named(function: Any) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
