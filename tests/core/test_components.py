"""What every component keeps to, lamina's own and those added later."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from tiny_specs import REGISTRY

from lamina.core import Component, ComponentConfig, Part, Sized, Tokenizer, slot
from lamina.core.component import call_with, default_parts, dump_config, slot_kind, slots
from lamina.core.options import TrainConfig
from lamina.core.registry import Entry
from lamina.core.resolve import resolve_part
from lamina.core.resolved import ResolvedSpec

ENTRIES = REGISTRY.entries()
each = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.kind}/{entry.name}")


def nested(config: type[BaseModel]) -> list[type[BaseModel]]:
    """This Config and those it holds."""
    found = [config]
    for info in config.model_fields.values():
        for annotation in (info.annotation, *getattr(info.annotation, "__args__", ())):
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                found += nested(annotation)
    return found


@pytest.mark.parametrize(
    "config",
    [*nested(ResolvedSpec), TrainConfig, *dict.fromkeys(entry.component.Config for entry in ENTRIES)],  # in one order
    ids=lambda c: c.__name__,
)
def test_every_option_is_described_and_every_config_is_strict(config: type[BaseModel]) -> None:
    for name, info in config.model_fields.items():
        assert info.description, name
        assert info.description[-1] in ".;:)", name
    assert config.model_config["frozen"]
    assert config.model_config["strict"]
    assert config.model_config["extra"] == "forbid"


@each
def test_a_component_says_what_it_is_and_whose_idea_it_was(entry: Entry) -> None:
    component = entry.component
    assert component.__doc__, "say in a line what it does"
    assert component.__doc__ != inspect.getdoc(component.__mro__[1])
    assert isinstance(component.paper, str)
    assert issubclass(component.Config, ComponentConfig)
    assert inspect.getmodule(component).__doc__  # type: ignore[union-attr]


@each
def test_a_component_asks_only_for_what_its_kind_is_told_or_its_parts(entry: Entry) -> None:
    component = entry.component
    if issubclass(component, Tokenizer):
        return  # made by `open` or by `train`
    asked = {*named(component.Config.derive)[1:], *named(component.parts)[1:]} - {"args", "sizes"}
    assert asked <= set(component.told)
    if "parts" not in vars(component):  # else it names what it builds
        assert set(named(component.__init__)[2:]) <= {*component.told, *slots(component.Config)}


def named(function: Any) -> list[str]:
    return [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]


@each
def test_a_default_that_names_a_part_names_one_there_is(entry: Entry) -> None:
    for name, kind in slots(entry.component.Config).items():
        info = entry.component.Config.model_fields[name]
        if not info.is_required() and (default := info.get_default(call_default_factory=True)) is not None:
            for raw in default if isinstance(default, list) else [default]:
                assert resolve_part(kind, raw, REGISTRY, **dict.fromkeys(("dim", "n_experts", "size"), 8)).kind == kind


# The pieces they are made of


class Options(ComponentConfig):
    inner: Part | None = slot("norm", None, description="A part.")
    many: list[Part] = slot("norm", ["rms"], description="Some parts.")
    rates: tuple[float, float] = (0.5, 0.25)


def part(name: str = "rms", **options: Any) -> Part:
    return resolve_part("norm", {"name": name, **options}, REGISTRY)


def test_a_config_is_frozen_strict_and_closed() -> None:
    config = Options(many=[])
    with pytest.raises(ValidationError, match="frozen"):
        config.inner = part()  # type: ignore[misc]
    for wrong in ({"unknown": 1}, {"rates": ["0.5", 1.0]}, {"inner": "rms"}, {"rates": (float("nan"), 0.0)}):
        with pytest.raises(ValidationError):
            Options(**{"many": [], **wrong})


def test_slots_are_found_with_their_kind() -> None:
    assert slots(Options) == {"inner": "norm", "many": "norm"}
    assert slot_kind(Options.model_fields["rates"]) is None
    required = type("R", (ComponentConfig,), {"__annotations__": {"x": Part}, "x": slot("ffn", description="Must be.")})
    assert required.model_fields["x"].is_required()


def test_a_config_is_dumped_as_what_a_person_would_write() -> None:
    config = Options(inner=part(eps=0.5), many=[part("layer")])
    assert dump_config(config) == {
        "inner": {"name": "rms", "eps": 0.5, "offset": 0.0, "affine": True, "round_first": False},
        "many": [{"name": "layer", "eps": 1e-5, "offset": 0.0, "affine": True, "bias": True}],
        "rates": [0.5, 0.25],
    }
    outer = Part("odd", "odd", Component, config)
    assert outer.dump() == {"name": "odd", **dump_config(config)}
    assert [(name, child.name) for name, child in outer.children()] == [("inner", "rms"), ("many", "layer")]


def test_parts_are_built_as_they_stand_unless_a_component_says_otherwise() -> None:
    inner, listed = part(), part("layer")
    assert Component.parts(Options(inner=inner, many=[listed])) == {"inner": inner.at(), "many": [listed.at()]}
    assert default_parts(None) is None
    assert inner.at(size=3) == Sized(inner, {"size": 3})
    assert inner.with_config(eps=0.25).config.eps == 0.25  # type: ignore[attr-defined]
    assert inner.config.eps == 1e-6  # type: ignore[attr-defined]


def test_a_function_is_called_with_what_it_names() -> None:
    def named(a: int, *, b: int = 0) -> tuple[int, int]:
        return a, b

    assert call_with(named, 1, offered={"b": 2, "c": 3}) == (1, 2)
    assert call_with(named, offered={"a": 5}) == (5, 0)
    with pytest.raises(TypeError):
        call_with(named, offered={"b": 2})
