"""What every component is: a class with a Config, filed under the kind its base class names. Imports no torch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pluggy
from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

API_VERSION = 1  # raised when a plugin written for the old number could misbehave

hookspec = pluggy.HookspecMarker("lamina")
hookimpl = pluggy.HookimplMarker("lamina")


class Register(Protocol):
    """Handed to a plugin's `register_components`: `register("rms", RMSNorm)`."""

    def __call__(self, name: str, component: type[Component]) -> None: ...


class PluginHooks:
    """The one hook a plugin implements."""

    @hookspec
    def register_components(self, register: Register) -> None:
        """Call `register(name, class)` once for each component the plugin offers."""


class ComponentConfig(BaseModel):
    """The options of one component: frozen, strictly typed, unknown keys refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        arbitrary_types_allowed=True,
        allow_inf_nan=False,
        defer_build=True,  # of well over a hundred Configs a spec reads a dozen
    )

    shorthand: ClassVar[tuple[str, ...]] = ()  # keys a person may write that are spelled out before this is read

    def derive(self, *args: Any, **sizes: Any) -> dict[str, Any]:
        """Values for fields left open, once sizes are known.

        A Config names the sizes it wants as arguments (`def derive(self, dim)`); its kind's `told` lists what may be
        asked for. Raise `ConfigProblem(field, message, hint)` when the sizes do not fit.
        """
        return {}


@dataclass(frozen=True)
class Part:
    """A component chosen and configured by a spec, not yet built."""

    kind: str
    name: str
    component: type[Component] = field(repr=False)
    config: ComponentConfig
    path: tuple[str | int, ...] = field(default=(), compare=False, repr=False)

    def at(self, **sizes: Any) -> Sized:
        """This part, to be built with these sizes on top of those its parent was told."""
        return Sized(self, sizes)

    def dump(self) -> dict[str, Any]:
        """The mapping that stands for this part in a spec: its name and every option."""
        return {"name": self.name, **dump_config(self.config)}

    def with_config(self, **changes: Any) -> Part:
        return replace(self, config=self.config.model_copy(update=changes))

    def children(self) -> Iterator[tuple[str, Part]]:
        """(field, part) for every sub-part named in this part's options."""
        for name in slots(type(self.config)):
            value = getattr(self.config, name)
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, Part):
                    yield name, item


@dataclass(frozen=True)
class Sized:
    """A part and the sizes its parent builds it at."""

    part: Part
    sizes: Mapping[str, Any]


Parts = dict[str, "Sized | list[Sized] | None"]


class Component:
    """One implementation of a kind. Its base class sets `kind`, so it cannot be filed under the wrong one."""

    kind: ClassVar[str]
    told: ClassVar[tuple[str, ...]] = ()  # sizes a component of this kind may ask for in __init__, derive and parts
    Config: ClassVar[type[ComponentConfig]] = ComponentConfig
    paper: ClassVar[str] = ""

    @classmethod
    def parts(cls, config: Any, *args: Any, **sizes: Any) -> Parts:
        """The sub-parts to build, by constructor argument. Default: each slot of the Config once, under its own name.

        Override where a sub-part is wanted at a size only this component knows, or several times:
        `{"q_norm": config.qk_norm.at(size=config.head_dim), …}`. May name sizes as further arguments.
        """
        return {name: default_parts(getattr(config, name)) for name in slots(type(config))}

    @classmethod
    def examples(cls, directory: Path) -> Iterable[Mapping[str, Any]]:
        """Options, small ones, that `lamina plugin check` tries this component with, as a spec would have them.

        None given: it takes the defaults and fills required options in. File names are relative to `directory`, an
        empty folder to write such files into. The first example is the one that single options are varied from.
        """
        return ()

    @classmethod
    def requires(cls, config: Any) -> Mapping[str, frozenset[str]]:
        """What this component needs its neighbours to provide, by kind: `{"attention": frozenset({"scores"})}`."""
        return {}

    @classmethod
    def provides(cls, config: Any) -> frozenset[str]:
        """What this component offers its neighbours."""
        return frozenset()

    @classmethod
    def leaves(cls, config: Any, *args: Any, **place: Any) -> Mapping[str, Mapping[str, Any]]:
        """What a layer with this component leaves in `context.store` for later layers: key -> facts about it.

        May name `position`, the block's part of that kind, as a further argument.
        """
        return {}

    @classmethod
    def reads(cls, config: Any, *args: Any, **place: Any) -> Mapping[str, Mapping[str, Any]]:
        """What it takes from `context.store`: key -> facts it relies on. May name what `leaves` may.

        Some earlier layer must leave the key, and the last of them counts: its facts must hold these.
        """
        return {}


def default_parts(value: Any) -> Sized | list[Sized] | None:
    if isinstance(value, list):
        return [part.at() for part in value]
    return value.at() if value is not None else None


def slot(kind: str, default: Any = ..., *, description: str) -> Any:
    """A Config field filled by a component of `kind`. Annotate it `Part`, `Part | None` or `list[Part]`.

    `default` is what a person would have written: a name, a mapping, a list of these, or None.
    """
    extra: dict[str, Any] = {"slot": kind}
    if isinstance(default, (dict, list)):
        return Field(default_factory=lambda: default, description=description, json_schema_extra=extra)
    return Field(default, description=description, json_schema_extra=extra)


def slot_kind(info: FieldInfo) -> str | None:
    extra = info.json_schema_extra
    kind = extra.get("slot") if isinstance(extra, dict) else None
    return kind if isinstance(kind, str) else None


def slots(config: type[BaseModel]) -> dict[str, str]:
    """Field name -> kind, for every field of `config` that a component fills."""
    return {name: kind for name, info in config.model_fields.items() if (kind := slot_kind(info))}


def dump_config(config: BaseModel) -> dict[str, Any]:
    """The options as plain data, sub-parts as the mappings that stand for them in a spec."""
    return {name: _plain(getattr(config, name)) for name in type(config).model_fields}


def _plain(value: Any) -> Any:
    if isinstance(value, Part):
        return value.dump()
    if isinstance(value, BaseModel):
        return dump_config(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def call_with(function: Callable[..., Any], *args: Any, offered: Mapping[str, Any]) -> Any:
    """Call `function` with `args` and those of `offered` that its signature names."""
    names = parameters_of(function)
    return function(*args, **{name: value for name, value in offered.items() if name in names})


def parameters_of(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters of a function or of a class's constructor by name, of a method with the `self` of its class."""
    return _parameters(getattr(function, "__func__", function))


@lru_cache(maxsize=1024)  # a mixture asks this for each of thousands of experts
def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function).parameters
