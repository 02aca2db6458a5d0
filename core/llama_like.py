"""What the families built like Llama share: its config keys and its names of tensors, each open to change.

Used by most `family` components; how is told in core/family.py.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from lamina.core.component import Part
from lamina.core.config_keys import ConfigKeys
from lamina.core.family import ACTIVATIONS, Item, Key, TemplateFamily
from lamina.core.layout import SAME, Either, Joined, Layout, Move, Stacked, Woven, move
from lamina.core.resolved import BlockConfig, ResolvedSpec
from lamina.core.rope_keys import Rope

LLAMA_KEYS: tuple[Item, ...] = (
    Key("vocab_size", "vocab_size", required=True),
    Key("hidden_size", "dim", required=True),
    Key("max_position_embeddings", "context_length", required=True),
    Key("num_hidden_layers", "n_layers", required=True),
    Key("num_attention_heads", "blocks.*.attention.n_heads", required=True),
    Key("num_key_value_heads", "blocks.*.attention.n_kv_heads"),
    Key("head_dim", "blocks.*.attention.head_dim"),
    Key("intermediate_size", "blocks.*.ffn.hidden_dim", required=True),
    Key("hidden_act", "blocks.*.ffn.activation", default="silu", values=ACTIVATIONS),
    Key("rms_norm_eps", "norm.eps", "blocks.*.attention.qk_norm.eps", default=1e-6),
    Key("tie_word_embeddings", "head.tied", default=False),
    Rope(),
)
# The two roles of most models with windows.
FULL_OR_SLIDING: Mapping[str, Any] = {
    "full": {"attention": {"mask": "causal"}},
    "sliding": {"attention": {"mask": {"name": "sliding"}}},
}
WINDOW = Key("sliding_window", "blocks.sliding.attention.mask.window")
TYPES = {"full_attention": "full", "sliding_attention": "sliding"}


def llama_template(block: Mapping[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Llama's spec without sizes. `block` is laid over its block; `blocks`, by role, has one such each."""
    roles = changes.pop("blocks", None) or {"block": {}}
    base = {"attention": {"name": "gqa"}, "ffn": {"name": "gated"}}
    blocks = {role: overlay(overlay(base, block or {}), own) for role, own in roles.items()}
    return {"norm": {"name": "rms"}, "embedding": {}, "head": {}, **changes, "blocks": blocks}


def overlay(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid over `base`, mappings key by key. A mapping with another `name` replaces the whole."""
    merged = copy.deepcopy(dict(base))
    for key, value in over.items():
        old = merged.get(key)
        if (
            isinstance(value, Mapping)
            and isinstance(old, dict)
            and value.get("name", old.get("name")) == old.get("name")
        ):
            merged[key] = overlay(old, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


class LlamaLike(TemplateFamily):
    """A decoder whose checkpoint is laid out as Llama's. Class attributes say where it differs."""

    template: ClassVar[Mapping[str, Any]] = llama_template()
    keys: ClassVar[tuple[Item, ...]] = LLAMA_KEYS
    base_prefix: ClassVar[str] = "model."
    ignored_keys: ClassVar[tuple[str, ...]] = ("pretraining_tp",)

    embedding_name: ClassVar[str] = "model.embed_tokens"
    layer_name: ClassVar[str] = "model.layers.{}"
    norm_name: ClassVar[str] = "model.norm"
    head_name: ClassVar[str] = "lm_head"
    # Slots, and the checkpoint's names of their norms.
    norms: ClassVar[Mapping[str, str]] = {
        "attention_in": "input_layernorm",
        "ffn_in": "post_attention_layernorm",
    }
    # Of queries, keys and values, as three or as one; of the output, and of what an attention may have besides.
    attention_names: ClassVar[Mapping[str, str | tuple[str, ...]]] = {
        "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "out": "self_attn.o_proj",
        "q_norm": "self_attn.q_norm",
        "k_norm": "self_attn.k_norm",
        "sinks": "self_attn.sinks",
    }
    qkv_weave: ClassVar[bool] = False  # whether a fused projection has its rows by group of query heads
    ffn_names: ClassVar[Mapping[str, str | tuple[str, ...]]] = {
        "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
        "up": "mlp.up_proj",
        "down": "mlp.down_proj",
    }
    # Of a mixture of experts: `{}` is the expert's number; gate, up and down, none where checkpoints have stacked ones
    # alone; and stacked, where checkpoints have that.
    router_names: ClassVar[Mapping[str, str]] = {"linear": "mlp.gate"}
    expert_names: ClassVar[tuple[str, ...]] = (
        "mlp.experts.{}.gate_proj",
        "mlp.experts.{}.up_proj",
        "mlp.experts.{}.down_proj",
    )
    stacked_names: ClassVar[tuple[str, str]] = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")
    stacked_layout: ClassVar[Layout] = Stacked()
    shared_name: ClassVar[str] = "mlp.shared_expert"
    shared_gate_name: ClassVar[str] = "mlp.shared_expert_gate"

    def moves(self, spec: ResolvedSpec) -> Iterable[Move | Either]:
        yield move("embedding.tokens", self.embedding_name)
        for layer, name in enumerate(spec.layers.names):
            at, to = self.layer_name.format(layer), f"layers.{layer}"
            yield from self.layer_moves(at, to, spec.blocks[name])
        yield move("norm", self.norm_name)
        yield move("head", self.head_name)

    def layer_moves(self, at: str, to: str, block: BlockConfig) -> Iterable[Move | Either]:
        for slot, name in self.norms.items():
            yield move(f"{to}.{slot}", f"{at}.{name}")
        if block.attention is not None:
            yield from self.attention_moves(at, f"{to}.attention", block.attention)
        if block.ffn is not None:
            yield from self.ffn_moves(at, f"{to}.ffn", block.ffn)

    def attention_moves(self, at: str, to: str, attention: Part) -> Iterable[Move | Either]:
        """`at` is the layer in the checkpoint, `to` the attention in the decoder."""
        config: Any = attention.config
        sizes = tuple(
            heads * width
            for heads, width in (
                (config.n_heads, config.head_dim),
                (config.n_kv_heads, config.head_dim),
                (config.n_kv_heads, config.value_dim),
            )
        )
        for ours, theirs in self.attention_names.items():
            names = [f"{at}.{name}" for name in ([theirs] if isinstance(theirs, str) else theirs)]
            layout: Layout = SAME
            if ours == "qkv":
                woven = Woven(config.n_kv_heads, tuple(size // config.n_kv_heads for size in sizes))
                layout = Joined(sizes) if len(names) > 1 else woven if self.qkv_weave else SAME
            yield move(f"{to}.{ours}", names, layout)

    def ffn_moves(self, at: str, to: str, ffn: Part) -> Iterable[Move | Either]:
        config: Any = ffn.config
        if ffn.name != "moe":
            yield from self.dense_moves({k: _at(at, v) for k, v in self.ffn_names.items()}, to, config.hidden_dim)
            return
        for ours, theirs in self.router_names.items():
            yield move(f"{to}.router.{ours}", f"{at}.{theirs}")
        single = (tuple(self.single_experts(at, to, config)),) if self.expert_names else ()
        yield Either((*single, tuple(self.stacked_experts(at, to, config))))
        if config.shared is not None:
            names = {k: _swap(v, f"{at}.{self.shared_name}") for k, v in self.ffn_names.items()}
            yield from self.dense_moves(names, f"{to}.shared", config.shared.config.hidden_dim)
            yield move(f"{to}.shared_gate", f"{at}.{self.shared_gate_name}")

    def dense_moves(self, names: Mapping[str, tuple[str, ...]], to: str, width: int) -> Iterable[Move]:
        for ours, theirs in names.items():
            yield move(f"{to}.{ours}", theirs, Joined((width, width)) if len(theirs) == 2 else SAME)

    def single_experts(self, at: str, to: str, config: Any) -> Iterable[Move]:
        gate, up, down = (f"{at}.{name}" for name in self.expert_names)
        width = config.expert.config.hidden_dim
        for expert in range(config.n_experts):
            below = f"{to}.experts.{expert}"
            yield move(f"{below}.gate_up", (gate.format(expert), up.format(expert)), Joined((width, width)))
            yield move(f"{below}.down", down.format(expert))

    def stacked_experts(self, at: str, to: str, config: Any) -> Iterable[Move]:
        for ours, theirs in zip(("gate_up", "down"), self.stacked_names, strict=True):
            names = [f"{to}.experts.{expert}.{ours}" for expert in range(config.n_experts)]
            yield move(names, f"{at}.{theirs}", self.stacked_layout, weight="", bias="_bias")


class WindowedLayers(LlamaLike):
    """All layers have a sliding window, or none has; roles `full` and `sliding`."""

    template: ClassVar[Mapping[str, Any]] = llama_template(blocks=FULL_OR_SLIDING)
    window: ClassVar[int | None] = None  # what a config means that says nothing

    def roles(self, config: ConfigKeys, n_layers: int) -> list[str]:
        return ["full" if config.get("sliding_window", self.window) is None else "sliding"] * n_layers

    def write_roles(self, roles: list[str], config: dict[str, Any]) -> None:
        if "sliding" not in roles:  # which a config says in words where the class takes it to have one
            config["sliding_window"] = None


class TypedLayers(LlamaLike):
    """Layers told apart by `layer_types`; roles `full` and `sliding`."""

    types: ClassVar[Mapping[str, str]] = TYPES

    def default_types(self, config: ConfigKeys, n_layers: int) -> list[str]:
        """What a config means that has no `layer_types`."""
        return ["full_attention"] * n_layers

    def roles(self, config: ConfigKeys, n_layers: int) -> list[str]:
        found = [str(name) for name in config.listed("layer_types", self.default_types(config, n_layers), n_layers)]
        if unknown := [name for name in found if name not in self.types]:
            config.wrong("layer_types", f"no component honours {unknown[0]!r}; known: {', '.join(self.types)}")
        return [self.types.get(name, next(iter(self.types.values()))) for name in found]

    def write_roles(self, roles: list[str], config: dict[str, Any]) -> None:
        names = {role: name for name, role in self.types.items()}
        config["layer_types"] = [names[role] for role in roles]


class SwitchedWindow(TypedLayers):
    """The same, where `use_sliding_window` switches windows on, in Qwen's way from layer `max_window_layers` on."""

    def default_types(self, config: ConfigKeys, n_layers: int) -> list[str]:
        first = config.number("max_window_layers", 28) or 0
        slides = config.get("use_sliding_window", False) and config.get("sliding_window") is not None
        return ["sliding_attention" if slides and layer >= first else "full_attention" for layer in range(n_layers)]

    def roles(self, config: ConfigKeys, n_layers: int) -> list[str]:
        config.get("max_window_layers")
        roles = super().roles(config, n_layers)
        return roles if config.get("use_sliding_window", False) else ["full"] * n_layers

    def write_roles(self, roles: list[str], config: dict[str, Any]) -> None:
        super().write_roles(roles, config)
        config["use_sliding_window"] = "sliding" in roles


def sparse_layers(config: ConfigKeys, n_layers: int) -> list[bool]:
    """Which layers have experts: every `decoder_sparse_step`-th, those of `mlp_only_layers` left out."""
    every, dense = config.number("decoder_sparse_step", 1), config.listed("mlp_only_layers", [])
    return [layer not in dense and bool(every) and not (layer + 1) % every for layer in range(n_layers)]


def write_sparse_layers(sparse: Iterable[bool], config: dict[str, Any]) -> None:
    """The keys that `sparse_layers` reads."""
    config["decoder_sparse_step"] = 1
    config["mlp_only_layers"] = [layer for layer, chosen in enumerate(sparse) if not chosen]


def _at(at: str, names: str | tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{at}.{name}" for name in ([names] if isinstance(names, str) else names))


def _swap(names: str | tuple[str, ...], first: str) -> tuple[str, ...]:
    """Each name with its first part replaced."""
    listed = [names] if isinstance(names, str) else names
    return tuple(".".join((first, *name.split(".")[1:])) for name in listed)
