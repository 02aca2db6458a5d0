"""What the architectures built like Llama have in common in a GGUF: their metadata, and how rows are paired."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from lamina.core.gguf.mapping import Config, Metadata, MetaItem, MetaKey, Told
from lamina.core.gguf.rope import RopeMeta
from lamina.core.layout import Layout, Offset


@dataclass(frozen=True)
class EvenHeads(MetaItem):
    """Heads that share the width evenly, where llama.cpp loads no others. A file may have others all the same."""

    def read(self, meta: Metadata, config: dict[str, Any]) -> None:
        dim, heads = config.get("hidden_size"), config.get("num_attention_heads")
        for name in ("attention.key_length", "attention.value_length"):
            width = meta.number(name, None)
            if width is not None and dim and heads and width != dim // heads:
                config["head_dim"] = width

    def write(self, config: Config, told: Told) -> None:
        dim, heads = config["hidden_size"], config["num_attention_heads"]
        if config.get("head_dim", dim // heads) not in (None, dim // heads):
            told.problems.append(f"head_dim: {config['head_dim']}, where llama.cpp loads none but {dim // heads}")


# Sizes, in the words of most configs.
SIZES_META: tuple[MetaItem, ...] = (
    MetaKey("context_length", "max_position_embeddings"),
    MetaKey("embedding_length", "hidden_size"),
    MetaKey("block_count", "num_hidden_layers"),
    MetaKey("feed_forward_length", "intermediate_size"),
    MetaKey("attention.head_count", "num_attention_heads"),
    MetaKey("attention.head_count_kv", "num_key_value_heads"),
)
HEAD_META = MetaKey("attention.key_length", "head_dim", also=("attention.value_length",))
RMS_META = MetaKey("attention.layer_norm_rms_epsilon", "rms_norm_eps", float)
LAYER_NORM_META = MetaKey("attention.layer_norm_epsilon", "layer_norm_eps", float)
EXPERTS_META: tuple[MetaItem, ...] = (
    MetaKey("expert_count", "num_experts"),
    MetaKey("expert_used_count", "num_experts_per_tok"),
)
LLAMA_META: tuple[MetaItem, ...] = (*SIZES_META, HEAD_META, RMS_META, RopeMeta())


@dataclass(frozen=True)
class Paired(Layout):
    """Rows of the file that are turned together lie side by side, those of the checkpoint half a head apart."""

    n_heads: int

    def ours(self, theirs: list[Tensor]) -> list[Tensor]:
        return [t.reshape(self.n_heads, -1, 2, *t.shape[1:]).transpose(1, 2).reshape(t.shape) for t in theirs]

    def theirs(self, ours: list[Tensor]) -> list[Tensor]:
        return [t.reshape(self.n_heads, 2, -1, *t.shape[1:]).transpose(1, 2).reshape(t.shape) for t in ours]


def paired(key: str) -> Callable[[Config], Layout]:
    """The layout of as many heads as the config says under `key`."""
    return lambda config: Paired(int(config.get(key) or config["num_attention_heads"]))


Layouts = Mapping[str, Callable[[Config], Layout]]
PAIRED: Layouts = {"attn_q": paired("num_attention_heads"), "attn_k": paired("num_key_value_heads")}
# Norms whose weights the checkpoint has from zero on, the file from one on.
FROM_ONE: Layouts = {"*_norm": lambda config: Offset(-1.0)}


@dataclass(frozen=True)
class Windows(MetaItem):
    """Sliding windows: their length, and which layers have one, in the config `layer_types`.

    A file may leave the layers out; then of every `period` the last one sees everything. `window` is what it means
    that says no length, None for no windows at all.
    """

    period: int
    window: int | None = None
    switch: Mapping[str, Any] = field(default_factory=dict)  # further keys of a config with windows

    def read(self, meta: Metadata, config: dict[str, Any]) -> None:
        window = meta.number("attention.sliding_window", self.window) or None
        told = meta.get("attention.sliding_window_pattern", self.period)
        n_layers = config.get("num_hidden_layers")
        if not isinstance(n_layers, int):
            return  # which the family tells
        if isinstance(told, list):
            slides = [bool(one) for one in told]
            if len(slides) != n_layers:
                meta.wrong("attention.sliding_window_pattern", f"has {len(slides)} layers of {n_layers}")
                return
        else:
            slides = [told == 0 or (layer + 1) % told != 0 for layer in range(n_layers)]
        if window is None:
            slides = [False] * n_layers
        config["sliding_window"] = window
        config["layer_types"] = ["sliding_attention" if one else "full_attention" for one in slides]
        config.update(self.switch if any(slides) else {})

    def write(self, config: Config, told: Told) -> None:
        slides = [kind == "sliding_attention" for kind in config.get("layer_types") or []]
        if any(slides) and config.get("sliding_window"):
            told.put("attention.sliding_window", config["sliding_window"], int)
            told.put("attention.sliding_window_pattern", slides, bool)
