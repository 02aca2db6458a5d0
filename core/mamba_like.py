"""What checkpoints with Mamba's mixers share: config keys, and where the tensors of a mixer lie.

Used by families of such mixers alone, which derive from `MambaLike`, and by those that have attention beside them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from lamina.core.component import Part
from lamina.core.config_keys import ConfigKeys
from lamina.core.family import ACTIVATIONS, Data, Item, Key, pick, put
from lamina.core.layout import SAME, Either, Inverse, Joined, Layout, Move, Reshaped, move
from lamina.core.llama_like import LlamaLike, llama_template
from lamina.core.resolved import ResolvedSpec

# The decoder's modules and tensors -> the checkpoint's, where nothing changes but the name.
MAMBA_NAMES = {
    "project": "in_proj",
    "conv_weight": "conv1d.weight",
    "conv_bias": "conv1d.bias",
    "select": "x_proj",
    "dt_norm": "dt_layernorm",
    "b_norm": "b_layernorm",
    "c_norm": "c_layernorm",
    "dt_weight": "dt_proj.weight",
    "dt_bias": "dt_proj.bias",
    "D": "D",
    "out": "out_proj",
}
MAMBA2_NAMES = {
    "project": "in_proj",
    "conv_weight": "conv1d.weight",
    "conv_bias": "conv1d.bias",
    "A_log": "A_log",
    "dt_bias": "dt_bias",
    "D": "D",
    "out": "out_proj",
}


def mamba_moves(at: str, to: str, config: Any) -> Iterable[Move]:
    """Of a `mamba` with these options; `at` is the mixer in the checkpoint, `to` the attention in the decoder."""
    yield from (move(f"{to}.{ours}", f"{at}.{theirs}") for ours, theirs in MAMBA_NAMES.items())
    flat = Reshaped((config.width, config.state_dim), (config.width * config.state_dim,))
    yield move(f"{to}.A_log", f"{at}.A_log", flat)


def mamba2_moves(at: str, to: str, config: Any) -> Iterable[Move]:
    """The same of a `mamba2`, whose norm the decoder has in parts."""
    yield from (move(f"{to}.{ours}", f"{at}.{theirs}") for ours, theirs in MAMBA2_NAMES.items())
    groups = config.norm_groups or 1
    sizes = (config.n_heads * config.head_dim // groups,) * groups
    layout: Layout = Inverse(Joined(sizes)) if groups > 1 else SAME
    yield move([f"{to}.norms.{group}" for group in range(groups)], f"{at}.norm", layout)


def unless_auto(value: Any) -> Any:
    """A size that a config may leave to what follows from others."""
    return None if value == "auto" else value


@dataclass(frozen=True)
class StepLimit(Item):
    """The least and the largest step Δ. JSON has no infinity, and configs spell it in several ways."""

    name: str = "time_step_limit"
    roles: tuple[str, ...] = ("*",)

    def read(self, config: ConfigKeys, data: Data) -> None:
        limits = config.listed(self.name, [0.0, math.inf], 2)
        for option, limit in zip(("dt_min", "dt_max"), limits, strict=True):
            value = _spelled(limit)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                config.wrong(self.name, f"{value!r} is no number")
            elif value not in (0.0, math.inf):
                for role in self.roles:
                    put(data, f"blocks.{role}.attention.{option}", value)

    def write(self, data: Data, config: dict[str, Any]) -> None:
        for role in self.roles:
            low, high = (pick(data, f"blocks.{role}.attention.{option}") for option in ("dt_min", "dt_max"))
            if low and high and (low[0] or high[0] is not None):
                config[self.name] = [low[0], math.inf if high[0] is None else high[0]]

    def narrowed(self, roles: Sequence[str]) -> StepLimit:
        return replace(self, roles=tuple(roles))


def _spelled(limit: Any) -> Any:
    """A number, infinity in any spelling."""
    spelled = limit.get("__float__") if isinstance(limit, Mapping) else limit
    return math.inf if spelled in ("Infinity", "inf") else limit


def _times(multiple: Any, width: Any) -> int | None:
    """A multiple of a width, where both are numbers that can be."""
    return int(multiple * width) if isinstance(width, int) and multiple and math.isfinite(multiple) else None


@dataclass(frozen=True)
class MambaWidth(Item):
    """Channels of Mamba's recurrence, as a multiple of the stream's; a key called `exact` goes first."""

    name: str = "expand"
    exact: str | None = "intermediate_size"
    roles: tuple[str, ...] = ("*",)

    def read(self, config: ConfigKeys, data: Data) -> None:
        inner = _times(config.number(self.name, 2), data.get("dim"))
        width = None if self.exact is None else config.number(self.exact)
        for role in self.roles:
            put(data, f"blocks.{role}.attention.width", inner if width is None else width)

    def write(self, data: Data, config: dict[str, Any]) -> None:
        widths = [found for role in self.roles for found in pick(data, f"blocks.{role}.attention.width")]
        width = next(iter(widths), None) or 2 * data["dim"]
        config[self.name] = max(1, width // data["dim"])
        if self.exact is not None:
            config[self.exact] = width

    def narrowed(self, roles: Sequence[str]) -> MambaWidth:
        return replace(self, roles=tuple(roles))


@dataclass(frozen=True)
class Mamba2HeadWidth(Item):
    """The width of a head, which may be left to follow from the other sizes."""

    name: str = "mamba_d_head"
    roles: tuple[str, ...] = ("*",)

    def read(self, config: ConfigKeys, data: Data) -> None:
        width, heads = unless_auto(config.get(self.name)), config.number("mamba_n_heads", 128)
        inner = _times(config.number("mamba_expand", 2), data.get("dim"))
        if width is None and inner and heads:
            width = inner // heads
        if width is not None:
            for role in self.roles:
                put(data, f"blocks.{role}.attention.head_dim", width)

    def write(self, data: Data, config: dict[str, Any]) -> None:
        widths = [found for role in self.roles for found in pick(data, f"blocks.{role}.attention.head_dim")]
        config[self.name] = widths[0] if widths else "auto"

    def narrowed(self, roles: Sequence[str]) -> Mamba2HeadWidth:
        return replace(self, roles=tuple(roles))


MAMBA_KEYS: tuple[Item, ...] = (
    Key("vocab_size", "vocab_size", required=True),
    Key("hidden_size", "dim", required=True, older=("d_model",)),
    Key("num_hidden_layers", "n_layers", required=True, older=("n_layer",)),
    Key("max_position_embeddings", "context_length", default=2048),  # of training; the model itself has no limit
    MambaWidth(),
    Key("state_size", "blocks.*.attention.state_dim", default=16),
    Key("conv_kernel", "blocks.*.attention.conv_width", default=4),
    Key("use_bias", "blocks.*.attention.bias", default=False),
    Key("use_conv_bias", "blocks.*.attention.conv_bias", default=True),
    Key("hidden_act", "blocks.*.attention.activation", default="silu", values=ACTIVATIONS),
    Key("layer_norm_epsilon", "norm.eps", default=1e-5),
    Key("residual_in_fp32", "blocks.*.residual", default=True, values={True: "float32", False: "plain"}),
    Key("tie_word_embeddings", "head.tied", default=True),
)
# Of Mamba-2 in models that have attention too.
MAMBA2_KEYS: tuple[Item, ...] = (
    Key("mamba_n_heads", "blocks.*.attention.n_heads", default=128),
    Mamba2HeadWidth(),
    Key("mamba_expand", "blocks.*.attention.expand", default=2, back=float),
    Key("mamba_n_groups", "blocks.*.attention.n_groups", default=1),
    Key("mamba_d_state", "blocks.*.attention.state_dim", default=256),
    Key("mamba_d_conv", "blocks.*.attention.conv_width", default=4),
    Key("mamba_conv_bias", "blocks.*.attention.conv_bias", default=True),
    Key("mamba_proj_bias", "blocks.*.attention.bias", default=False),
    StepLimit(),
)


class MambaLike(LlamaLike):
    """A decoder of state-space mixers alone. Its gate is a SiLU, whatever follows the convolution."""

    template: ClassVar[Mapping[str, Any]] = llama_template(
        {"attention": {"name": "mamba", "gate": "silu"}, "ffn": None}
    )
    keys: ClassVar[tuple[Item, ...]] = MAMBA_KEYS
    base_prefix: ClassVar[str] = "backbone."
    # How weights start, how kernels compute, and what the first release's configs held.
    ignored_keys: ClassVar[tuple[str, ...]] = (
        "chunk_size",
        "d_inner",
        "fused_add_norm",
        "norm_before_gate",
        "pad_vocab_size_multiple",
        "rescale_prenorm_residual",
        "rms_norm",
        "ssm_cfg",
        "time_step_floor",
        "time_step_init_scheme",
        "time_step_max",
        "time_step_min",
        "time_step_scale",
        "use_associative_scan",
        "use_mambapy",
    )
    embedding_name: ClassVar[str] = "backbone.embeddings"
    older_embedding_name: ClassVar[str] = "backbone.embedding"
    layer_name: ClassVar[str] = "backbone.layers.{}"
    norm_name: ClassVar[str] = "backbone.norm_f"
    norms: ClassVar[Mapping[str, str]] = {"attention_in": "norm"}

    def moves(self, spec: ResolvedSpec) -> Iterable[Move | Either]:
        for item in super().moves(spec):
            if isinstance(item, Move) and item.theirs == (self.embedding_name,):
                yield Either(((item,), (move(item.ours, self.older_embedding_name),)))
            else:
                yield item

    def attention_moves(self, at: str, to: str, attention: Part) -> Iterable[Move | Either]:
        return mamba_moves(f"{at}.mixer", to, attention.config)
