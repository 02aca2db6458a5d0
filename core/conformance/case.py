"""A component with options to try it with: how these are found, and how it is built by itself or in a small decoder.

The sizes are small, so that every split of a text can be tried. `dim` is the smallest of a few that the options accept.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import torch
from pydantic.fields import FieldInfo
from torch import Tensor, nn

from lamina.core.build import build, build_part
from lamina.core.component import Component, ComponentConfig, Part, call_with, slot_kind
from lamina.core.conformance.checks import NotApplicable, Wrong
from lamina.core.conformance.letters import Letters
from lamina.core.decoder import Decoder
from lamina.core.decoding import OtherModel
from lamina.core.errors import ConfigProblem, LaminaError
from lamina.core.generate import DecoderStep
from lamina.core.module import Embedding, Linear, ModuleComponent
from lamina.core.position import Position
from lamina.core.registry import Entry, Registry
from lamina.core.resolve import resolve_data, resolve_part
from lamina.core.resolved import ResolvedSpec

VOCAB, CONTEXT, LAYERS = 29, 32, 2
DIMS = (16, 32, 64, 128, 256)
NUMBERS = (4, 2, 8, 1, 16, 3, 64)  # for required whole numbers, all alike, in the order they are tried
ATTENTION: dict[str, Any] = {"name": "gqa", "n_heads": 2, "n_kv_heads": 1}  # what hosts the other kinds
FFN: dict[str, Any] = {"name": "gated", "hidden_dim": 24}

# kind -> the block of a decoder in which a component of that kind stands
HOSTS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "attention": lambda x: {"attention": x, "ffn": None},
    "position": lambda x: {"attention": ATTENTION, "ffn": None, "position": x},
    "mask": lambda x: {"attention": {**ATTENTION, "mask": x}, "ffn": None},
    "ffn": lambda x: {"attention": None, "ffn": x},
    "rope_scaling": lambda x: {"attention": ATTENTION, "ffn": None, "position": {"name": "rope", "scaling": x}},
    "norm": lambda x: {"attention": ATTENTION, "ffn": FFN, "norm": x},
    "activation": lambda x: {"attention": None, "ffn": {**FFN, "activation": x}},
    "residual": lambda x: {"attention": ATTENTION, "ffn": FFN, "residual": x},
    "router": lambda x: {"attention": None, "ffn": {"name": "moe", "n_experts": 8, "expert": FFN, "router": x}},
}
PLAIN: dict[str, Any] = {"attention": ATTENTION, "ffn": FFN}  # for kinds that stand around the decoder


@dataclass(frozen=True)
class Case:
    """A component and one set of options for it."""

    entry: Entry
    registry: Registry
    directory: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    dim: int = DIMS[0]
    position: str = "none"  # of the decoder that hosts it
    varied: bool = False  # one option changed: fewer lengths are tried, the first example having had them all

    def __str__(self) -> str:
        said = ", ".join(f"{name}: {_say(value)}" for name, value in self.options.items())
        beside = f" with position {self.position}" if self.entry.kind == "attention" and self.position != "none" else ""
        return f"{{{said}}}{beside}"

    @property
    def written(self) -> dict[str, Any]:
        """What a spec says to have this component."""
        return {"name": f"{self.entry.distribution}:{self.entry.name}", **self.options}

    @property
    def sizes(self) -> dict[str, Any]:
        """All that a component of any kind may be told."""
        return {
            "dim": self.dim,
            "size": self.dim,
            "head_dim": self.dim // 2,
            "n_heads": 2,
            "n_experts": 8,
            "layer": 0,
            "n_layers": LAYERS,
            "context_length": CONTEXT,
            "vocab_size": VOCAB,
            "position": Position(),
            "theta": 10_000.0,
            "width": self.dim // 2,
            "directory": self.directory,
            "tokenizer": Letters(),
            "generators": generators(range(3)),
            "stop_ids": frozenset({VOCAB - 1}),
            "open_model": self._open_model,
        }

    def _open_model(self, path: Any = None) -> OtherModel:
        """A second model, whatever the path."""
        other = build(replace(self, options={}).plain_spec, seed=7)
        move(other, 7)
        return OtherModel(Letters(), VOCAB, CONTEXT, lambda room: DecoderStep(other.eval(), room))

    @cached_property
    def part(self) -> Part:
        """The component with its options filled in."""
        return resolve_part(self.entry.kind, self.written, self.registry, **self.sizes)

    def build(self, *, dtype: torch.dtype = torch.float64, device: str = "cpu", seed: int = 0, **sizes: Any) -> Any:
        """The component by itself, its weights moved off the values they start at."""
        with defaults(dtype, device, seed):
            made = build_part(self.part, **{**self.sizes, **sizes})
            if isinstance(made, nn.Module) and device != "meta":
                _draw(made)
        if isinstance(made, nn.Module) and device != "meta":
            move(made, seed)
        return made.eval() if isinstance(made, nn.Module) else made

    @cached_property
    def spec(self) -> ResolvedSpec:
        """A decoder of two layers with the component at its place."""
        host = HOSTS.get(self.entry.kind)
        return self._resolve(PLAIN if host is None else host(self.written))

    @cached_property
    def plain_spec(self) -> ResolvedSpec:
        """A decoder without the component, for kinds that work on one."""
        return self._resolve(PLAIN)

    def _resolve(self, block: dict[str, Any]) -> ResolvedSpec:
        block = {"residual": "plain", **block}
        data = {
            "lamina": 1,
            "vocab_size": VOCAB,
            "dim": self.dim,
            "context_length": CONTEXT,
            "position": block.pop("position", self.position),
            "norm": block.pop("norm", "rms"),
            "block": block,
            "layers": LAYERS,
            "head": {"tied": False},
            "init": {"std": 0.25},  # so that in so narrow a decoder every part is felt
        }
        return resolve_data(data, self.registry, directory=self.directory)

    def decoder(self, *, dtype: torch.dtype = torch.float64, device: str = "cpu", seed: int = 0) -> Decoder:
        """The decoder, its weights moved off the values they start at, in evaluation."""
        decoder = build(self.spec, dtype=dtype, device=device, seed=seed)
        if device != "meta":
            move(decoder, seed)
        return decoder.eval()

    def own(self, decoder: nn.Module) -> list[Any]:
        """The instances of this component in a decoder."""
        return [module for module in decoder.modules() if isinstance(module, self.entry.component)]


@contextmanager
def defaults(dtype: torch.dtype, device: str, seed: int) -> Iterator[None]:
    """Tensors are made on `device` in `dtype`, drawn from `seed`; the caller's random state is left as it was."""
    before = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(seed)
        torch.set_default_dtype(dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


def _draw(module: nn.Module) -> None:
    with torch.no_grad():
        for child in module.modules():
            if isinstance(child, (Linear, Embedding)):
                child.weight.normal_(0.0, 0.25)
                if isinstance(child, nn.Linear) and child.bias is not None:
                    child.bias.zero_()
            elif isinstance(child, ModuleComponent):
                child.init_weights(0.25)


def move(module: nn.Module, seed: int = 0) -> None:
    """Add a little noise to every weight: one that starts at zero would hide what it does."""
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for tensor in dict.fromkeys([*module.parameters(), *module.state_dict(keep_vars=True).values()]):
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator).to(tensor.dtype))


def generators(rows: Iterable[int]) -> list[torch.Generator]:
    """One for each row, its own."""
    return [torch.Generator().manual_seed(1000 + row) for row in rows]


def tokens(batch: int, length: int, seed: int = 0) -> Tensor:
    """(B, T) random ids."""
    return torch.randint(VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))


def randn(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def gap(got: Tensor, want: Tensor) -> float:
    """Largest difference, relative to the size of `want` where that is above one; infinite for NaN."""
    if got.shape != want.shape:
        raise Wrong(f"the shape {tuple(want.shape)}", f"{tuple(got.shape)}")
    if got.numel() == 0:
        return 0.0
    got, want = got.detach().double(), want.detach().double()
    same = (got == want) | (got.isnan() & want.isnan())
    off = torch.where(same, 0.0, (got - want).abs()).max() / want[want.isfinite()].abs().max().clamp(min=1.0)
    return float(off.nan_to_num(nan=float("inf")))


# ---- Which options to try


def cases_of(entry: Entry, registry: Registry, directory: Path) -> list[Case]:
    """The examples the component gives, or one derived from its Config; then the first with one option changed.

    Raises Wrong when there is none that can be built, NotApplicable when what it needs is not installed.
    """
    given = [dict(options) for options in entry.component.examples(directory)]
    bases = [_fitting(Case(entry, registry, directory, options), given=True) for options in given]
    if not bases:
        bases = [_derived(entry, registry, directory)]
    first = bases[0]
    varied = [case for options in _variants(first) if (case := _try(first, options)) is not None]
    others = [replace(first, position=name, varied=True) for name in _positions(first)[1:]]
    return [*bases, *others, *varied]


def _derived(entry: Entry, registry: Registry, directory: Path) -> Case:
    """The empty config, with required options filled in."""
    reason = None
    for number in NUMBERS:
        options: dict[str, Any] = {}
        for name, info in entry.component.Config.model_fields.items():
            if info.is_required():
                found = _guess(info, number, registry, directory)
                if found is None:
                    raise Wrong(
                        f"examples() to give options to check {entry.kind} '{entry.name}' with",
                        f"its option '{name}' is required and no value for it can be guessed",
                    )
                options[name] = found
        try:
            return _fitting(Case(entry, registry, directory, options))
        except Wrong as error:
            reason = reason or error
            if not options:
                break
    assert reason is not None
    # It may be that an option has to be set before the defaults are taken.
    for changed in _variants(Case(entry, registry, directory, options)):
        with suppress(Wrong):
            return _fitting(Case(entry, registry, directory, changed))
    raise reason


def _fitting(case: Case, given: bool = False) -> Case:
    """The case at the first size, and with the first position, that it can be resolved and built at."""
    reason: Exception | None = None
    for dim in DIMS:
        for position in _positions(case):
            tried = replace(case, dim=dim, position=position)
            try:
                _build_once(tried)
                return tried
            except (LaminaError, ConfigProblem, TypeError) as error:
                reason = reason or error
    missing = getattr(reason, "__cause__", None) or getattr(reason, "__context__", None)
    if isinstance(missing, ImportError):
        raise NotApplicable(str(reason))
    what = f"its example {case}" if given else f"the options {case}"
    raise Wrong(f"{what} to resolve and build at one of the widths {', '.join(map(str, DIMS))}", str(reason))


def _build_once(case: Case) -> None:
    """Resolve and build where that needs no files."""
    if case.entry.kind in HOSTS:
        build(case.spec, device="meta")
    elif case.entry.kind not in ("tokenizer", "corpus"):
        case.build(device="meta")
    else:
        _ = case.part


def _try(base: Case, options: dict[str, Any]) -> Case | None:
    """The variant, unless the component itself refuses these options."""
    case = replace(base, options=options, varied=True)
    try:
        _ = case.spec if case.entry.kind in HOSTS else case.part
    except (LaminaError, ConfigProblem):
        return None
    return case


def _positions(case: Case) -> list[str]:
    """Positions to host an attention with: one for each place it lets one act at, and none."""
    component: Any = case.entry.component
    if case.entry.kind != "attention":
        return ["none"]
    try:
        config = component.Config.model_construct(**case.options)
        provided = component.provides(config)
    except Exception:  # a Config that is not filled in may be no use to it
        provided = frozenset({"queries_keys", "scores"})
    found = []
    for place in ("queries_keys", "scores"):
        if place in provided:
            acting = (e for e in case.registry.entries("position") if e.distribution == "lamina")
            found += [e.name for e in acting if e.component.acts_at() == {place} and not _required(e.component)][:1]  # type: ignore[attr-defined]
    return [*found, "none"]


def _required(component: type[Component]) -> bool:
    return any(info.is_required() for info in component.Config.model_fields.values())


def _guess(info: FieldInfo, number: int, registry: Registry, directory: Path) -> Any:
    """A value for a required option, None when there is no telling."""
    kind, annotation = slot_kind(info), info.annotation
    if kind is not None:
        part = next(_parts(kind, registry), None)
        return [part] if get_origin(annotation) is list and part is not None else part
    members = [a for a in get_args(annotation) if a is not type(None)] if _is_union(annotation) else [annotation]
    for member in members:
        if member is int:
            return number
        if member is float:
            return {4: 0.5, 2: 2.0}.get(number, 1.0)
        if member is bool:
            return False
        if member is str:
            return "sample"
        if get_origin(member) is Literal:
            return get_args(member)[0]
        if isinstance(member, type) and issubclass(member, ComponentConfig):
            inner = {
                n: _guess(i, number, registry, directory) for n, i in member.model_fields.items() if i.is_required()
            }
            return None if None in inner.values() else inner
    return None


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, UnionType)


def _parts(kind: str, registry: Registry) -> Iterator[Any]:
    """lamina's own components of a kind, as a spec would have them, with required whole numbers filled in."""
    for entry in registry.entries(kind):
        if entry.distribution == "lamina" and not getattr(entry.component, "abstract", False):
            required = {n: i for n, i in entry.component.Config.model_fields.items() if i.is_required()}
            values = {n: 4 for n, i in required.items() if i.annotation is int}
            if len(values) == len(required):
                yield {"name": entry.name, **values} if values else entry.name


def _variants(base: Case) -> Iterator[dict[str, Any]]:
    """The base's options with one changed: switched over, switched on, or another of those named."""
    for name, info in base.entry.component.Config.model_fields.items():
        for value in _others(info, base):
            if base.options.get(name, ...) != value:
                yield {**base.options, name: value}


def _others(info: FieldInfo, base: Case) -> list[Any]:
    kind, annotation = slot_kind(info), info.annotation
    default = None if info.is_required() else info.get_default(call_default_factory=True)
    members = get_args(annotation) if _is_union(annotation) else (annotation,)
    if kind is not None:
        if kind == "mask":
            return [part for part in _parts(kind, base.registry) if _causal(part, base.registry) and part != default]
        return list(itertools.islice(_parts(kind, base.registry), 1)) if default is None else []
    for member in members:
        if member is bool:
            return [not default]
        if get_origin(member) is Literal:
            return [value for value in get_args(member) if value != default]
        if info.is_required():
            return []
        if member is int and default in (None, 0):
            return [2]
        if member is float and default in (None, 0.0):
            return [0.5]
    return []


def _causal(part: Any, registry: Registry) -> bool:
    name = part["name"] if isinstance(part, dict) else part
    return bool(registry.get("mask", name).component.causal)  # type: ignore[attr-defined]


def _say(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_say(item)}" for name, item in value.items()) + "}"
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)


def derive_again(case: Case) -> dict[str, Any]:
    """What `derive` adds once everything is filled in."""
    derived: dict[str, Any] = call_with(case.part.config.derive, offered=case.sizes)
    return derived
