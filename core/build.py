"""From a resolved spec to a decoder: parts are built from the inside out and handed to those that named them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn

from lamina.core.block import Block
from lamina.core.component import Part, Sized, call_with, parameters_of
from lamina.core.decoder import Decoder, Head, InputEmbedding
from lamina.core.errors import ConfigProblem, LaminaError, RunFailure, SpecError
from lamina.core.machine import available_memory
from lamina.core.module import Embedding, Linear, ModuleComponent, OutLinear
from lamina.core.position import Position
from lamina.core.resolved import SLOTS, BlockConfig, InitConfig, ResolvedSpec
from lamina.core.units import size

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


def build(
    spec: ResolvedSpec,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "float32",
    seed: int = 0,
    initialise: bool = True,
) -> Decoder:
    """The decoder a resolved spec describes, its weights drawn from `seed`. Reads no files and no environment.

    With `initialise=False` weights are left unset, to be loaded. Raises SpecError naming the line of a part that cannot
    be built.
    """
    device, dtype = as_device(device), as_dtype(dtype)
    with _defaults(device, dtype, seed):
        decoder = _Builder(spec).decoder()
        _require_room(decoder, device)
        if initialise and device.type != "meta":
            init_weights(decoder, spec.init)
    return decoder


def as_device(device: str | torch.device) -> torch.device:
    try:
        made = torch.device(device)
        torch.empty(0, device=made)
    except (RuntimeError, AssertionError, ImportError) as error:
        why = str(error).splitlines()[0]
        raise LaminaError(f"device '{device}' cannot be used: {why}", hint="use cpu, cuda or mps") from None
    return made


def working_device(device: str | torch.device) -> torch.device:
    """A device that computes values, which `meta` does not."""
    made = as_device(device)
    if made.type == "meta":
        raise LaminaError("device 'meta' cannot be used: it has no values", hint="use cpu, cuda or mps")
    return made


def _require_room(decoder: Decoder, device: torch.device) -> None:
    """Weights that memory cannot hold are refused before they are touched: the system would end the process later."""
    if device.type != "cpu":
        return
    needed, room = sum(tensor.nbytes for tensor in decoder.tensors().values()), available_memory()
    if room is not None and needed > room:
        raise RunFailure(
            f"the decoder's weights take {size(needed)} and {size(room)} of memory are free",
            hint="take a smaller model or dtype; `lamina inspect` tells what one needs",
        )


def as_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """A dtype that a decoder's weights can have. Raises LaminaError for any other."""
    if dtype in DTYPES.values():
        return cast(torch.dtype, dtype)
    if dtype not in DTYPES:
        raise LaminaError(f"no decoder has dtype '{dtype}'", hint=f"use one of {', '.join(DTYPES)}")
    return DTYPES[dtype]


@contextmanager
def _defaults(device: torch.device, dtype: torch.dtype, seed: int) -> Iterator[None]:
    """Modules are made on `device` in `dtype` with draws from `seed`; the caller's random state is left as it was."""
    before = torch.get_default_dtype()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.device(device):
        torch.manual_seed(seed)
        torch.set_default_dtype(dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


def build_part(part: Part, **sizes: Any) -> Any:
    """One component with its sub-parts, told the sizes it names."""
    return _build(part, sizes, {})


def _build(part: Part, sizes: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    config = part.config.model_copy(update=call_with(part.config.derive, offered=sizes))
    requests = call_with(part.component.parts, config, offered=sizes)
    built: dict[str, Any] = {}
    for name, request in requests.items():
        if isinstance(request, list):
            built[name] = [_child(item, sizes, given) for item in request]
        else:
            built[name] = _child(request, sizes, given)
    offered = {**sizes, **given, **built}
    wanted = parameters_of(part.component)
    missing = [
        name
        for name, p in list(wanted.items())[1:]
        if p.default is p.empty and name not in offered and p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    if missing:
        raise SpecError(
            f"{part.kind} '{part.name}' asks for {', '.join(missing)}, which it is not told",
            hint=f"offered are {', '.join([*part.component.told, 'its own sub-parts'])}",
        )
    component = call_with(part.component, config, offered=offered) if wanted else part.component()
    if isinstance(component, ModuleComponent):
        object.__setattr__(component, "part", part)
    return component


def _child(request: Sized | None, sizes: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    return None if request is None else _build(request.part, {**sizes, **request.sizes}, given)


_UNBUILDABLE = (ValueError, TypeError, RuntimeError, OverflowError, MemoryError)


def _why(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


class _Builder:
    def __init__(self, spec: ResolvedSpec) -> None:
        self.spec = spec
        self.positions: dict[str, Position] = {}  # one instance serves all layers alike
        self.sizes = {
            "dim": spec.dim,
            "context_length": spec.context_length,
            "vocab_size": spec.vocab_size,
            "n_layers": spec.layers.n_layers,
        }

    def part(self, part: Part | None, **sizes: Any) -> Any:
        """A part of the decoder; what it raises is told with its line in the spec."""
        if part is None:
            return None
        try:
            return _build(part, {**self.sizes, **sizes}, {})
        except ConfigProblem as error:
            where = self.spec.location((*part.path, error.field))
            raise SpecError(f"{part.kind} '{part.name}': {error.message}", where=where, hint=error.hint) from None
        except LaminaError:
            raise
        except _UNBUILDABLE as error:
            where = self.spec.location(part.path)
            raise SpecError(f"{part.kind} '{part.name}' cannot be built: {_why(error)}", where=where) from error

    def position(self, part: Part, layer: int | None, **sizes: Any) -> Position:
        """Shared by all layers with the same options and sizes, unless the scheme wants one a layer."""
        if layer is not None and part.component.acts_at() <= {"embeddings"}:  # type: ignore[attr-defined]
            return Position()  # it has done its work at the embedding
        shared = part.component.shared(part.config)  # type: ignore[attr-defined]
        key = repr((part.name, part.dump(), sorted(sizes.items()), None if shared else layer))
        if key not in self.positions:
            self.positions[key] = self.part(part, **sizes)
        return self.positions[key]

    def decoder(self) -> Decoder:
        spec = self.spec
        layers = [self.block(spec.blocks[name], layer) for layer, name in enumerate(spec.layers.names)]
        try:
            embedding = self.embedding()
            head = self.head(embedding)
        except _UNBUILDABLE as error:
            where = self.spec.location(("vocab_size",))
            raise SpecError(f"the embedding cannot be built: {_why(error)}", where=where) from error
        norm = self.part(spec.norm, size=spec.dim)
        return Decoder(embedding, layers, norm, head, spec.context_length, spec.train.recompute)

    def head(self, embedding: InputEmbedding) -> Head:
        spec, head = self.spec, self.spec.head
        tied = cast(nn.Parameter, embedding.tokens.weight) if head.tied else None
        return Head(spec.vocab_size, spec.dim, tied, head.bias, head.scale, head.softcap)

    def embedding(self) -> InputEmbedding:
        spec = self.spec
        scale = math.sqrt(spec.dim) if spec.embedding.scale == "sqrt_dim" else spec.embedding.scale
        position = None
        if "embeddings" in spec.position.component.acts_at():  # type: ignore[attr-defined]
            position = self.position(spec.position, None)
        norm = self.part(spec.embedding.norm, size=spec.dim)
        return InputEmbedding(spec.vocab_size, spec.dim, float(scale), position, norm, spec.embedding.dropout)

    def block(self, block: BlockConfig, layer: int) -> Block:
        attention = None
        if block.attention is not None:
            sizes = block.attention.component.position_sizes(block.attention.config)  # type: ignore[attr-defined]
            position = {} if sizes is None else {"position": self.position(block.position, layer, **sizes)}
            attention = self.part(block.attention, layer=layer, **position)
        ffn = self.part(block.ffn, layer=layer)
        norms = {name: self.part(getattr(block, name), size=self.spec.dim) for name in SLOTS}
        chosen = ((attention, block.residual), (ffn, block.ffn_residual or block.residual))
        joins = [self.part(residual, layer=layer) if sub is not None else None for sub, residual in chosen]
        if block.flow != "sequential":
            joins[1] = None  # one residual joins both
        return Block(block.flow, attention, ffn, joins[0], joins[1], norms)


def init_weights(decoder: Decoder, init: InitConfig) -> None:
    """Draw every weight: normal with the spec's deviation, projections into the stream smaller, biases zero.

    Scaling by 1/sqrt(number of such projections) keeps the stream's variance from growing with depth (GPT-2).
    """
    assert init.std, "set by derive"
    sublayers = sum((block.attention is not None) + (block.ffn is not None) for block in decoder.blocks)
    out_std = init.std / math.sqrt(max(1, sublayers)) if init.scale_out else init.std
    with torch.no_grad():
        for module in decoder.modules():
            if isinstance(module, (Linear, Embedding)):
                module.weight.normal_(0.0, out_std if isinstance(module, OutLinear) else init.std)
                if isinstance(module, nn.Linear) and module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, ModuleComponent):
                module.init_weights(init.std)
        for block in decoder.blocks:
            for sublayer, residual in block.joined():
                for weight in sublayer.carriers() if residual.gain != 1.0 else ():
                    weight.mul_(residual.gain)
        if decoder.head.weight is not decoder.embedding.tokens.weight:
            decoder.head.weight.normal_(0.0, init.std)
