"""Command R: one norm before two parallel sublayers, pairs of neighbours turned.  Cohere 2024."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from lamina.core import (
    GGUF,
    LAYER_NORM_META,
    LLAMA_KEYS,
    SIZES_META,
    ConfigKeys,
    Either,
    EvenHeads,
    Key,
    LlamaLike,
    Means,
    MetaKey,
    Move,
    Part,
    Register,
    Reshaped,
    ResolvedSpec,
    Rope,
    RopeMeta,
    defaults,
    hookimpl,
    llama_template,
    move,
    without,
)

NORMED = "use_qk_norm"


class Cohere(LlamaLike):
    """Command R and R+ of the first generation. Norms on queries and keys have weights of their own for each head."""

    paper = "Cohere 2024, C4AI Command R"
    model_types = ("cohere",)
    architecture = "CohereForCausalLM"
    template = llama_template({"placement": "parallel"}, norm={"name": "layer", "bias": False})
    keys = (
        *defaults(without(LLAMA_KEYS, "rms_norm_eps", "rope_parameters"), tie_word_embeddings=True),
        Key("layer_norm_eps", "norm.eps", default=1e-5),
        Key("attention_bias", "blocks.*.attention.bias", default=False),
        Key("logit_scale", "head.scale", default=0.0625),
        Rope(layout="interleaved", theta=5e5),
    )
    gguf = GGUF(
        "command-r",
        (
            *SIZES_META,
            EvenHeads(),
            LAYER_NORM_META,
            RopeMeta(),
            MetaKey("logit_scale", "logit_scale", float, default=1.0),
            Means("tie_word_embeddings", True),
        ),
    )
    norms: ClassVar = {"attention_in": "input_layernorm"}

    def read(self, config: ConfigKeys) -> dict[str, Any]:
        data = super().read(config)
        attention = data["blocks"]["block"]["attention"]
        heads, dim, width = attention.get("n_heads"), data.get("dim"), attention.get("head_dim")
        if width is None and isinstance(heads, int) and isinstance(dim, int) and 0 < heads <= dim:
            width = dim // heads
        if config.get(NORMED, False):
            norm = {"name": "group", "group_size": width, "centre": True, "eps": data["norm"].get("eps")}
            attention |= {"qk_norm": norm, "qk_norm_over": "all"}
        return data

    def write(self, spec: ResolvedSpec) -> dict[str, Any]:
        block = self.by_role(spec)[0]["blocks"]["block"]
        return {**super().write(spec), NORMED: (block["attention"] or {}).get("qk_norm") is not None}

    def attention_moves(self, at: str, to: str, attention: Part) -> Iterable[Move | Either]:
        config: Any = attention.config
        heads = {f"{to}.q_norm": config.n_heads, f"{to}.k_norm": config.n_kv_heads}
        for item in super().attention_moves(at, to, attention):
            if isinstance(item, Move) and (number := heads.get(item.ours[0])) is not None:
                shape = (number, config.head_dim)
                yield move(item.ours, item.theirs, Reshaped(shape, (number * config.head_dim,)))
            else:
                yield item


@hookimpl
def register_components(register: Register) -> None:
    register("cohere", Cohere)
