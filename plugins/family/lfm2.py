"""LFM2: gated short convolutions with an attention now and then.  Liquid AI 2025, arXiv:2511.23404."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from lamina.core import (
    LLAMA_KEYS,
    ConfigKeys,
    Either,
    Fixed,
    Key,
    Move,
    Part,
    Register,
    ResolvedSpec,
    Rope,
    TypedLayers,
    defaults,
    hookimpl,
    in_roles,
    llama_template,
    move,
    only,
)

INNER, ADJUSTED = "intermediate_size", "block_auto_adjust_ff_dim"
# What published configs say twice, and where they say it the other time.
TWICE = {
    "block_dim": "hidden_size",
    "block_norm_eps": "norm_eps",
    "conv_dim": "hidden_size",
    "conv_dim_out": "hidden_size",
    "num_heads": "num_attention_heads",
}


class Lfm2(TypedLayers):
    """LFM2."""

    paper = "Liquid AI 2025, arXiv:2511.23404"
    model_types = ("lfm2",)
    architecture = "Lfm2ForCausalLM"
    rank = 200  # models with attention alone are rather said by families of these
    template = llama_template(
        blocks={
            "full": {"attention": {"mask": "causal", "qk_norm": {"name": "rms"}}},
            "conv": {"attention": {"name": "short_conv"}, "position": {"name": "none"}},
        }
    )
    types: ClassVar = {"full_attention": "full", "conv": "conv"}
    keys = (
        *defaults(
            only(
                LLAMA_KEYS,
                "vocab_size",
                "hidden_size",
                "max_position_embeddings",
                "num_hidden_layers",
                "tie_word_embeddings",
            ),
            tie_word_embeddings=True,
        ),
        *in_roles(
            defaults(only(LLAMA_KEYS, "num_attention_heads", "num_key_value_heads", "head_dim"), num_key_value_heads=8),
            "full",
        ),
        Key("norm_eps", "norm.eps", "blocks.full.attention.qk_norm.eps", default=1e-5),
        Key("conv_L_cache", "blocks.conv.attention.width", default=3),
        Key("conv_bias", "blocks.conv.attention.bias", default=False),
        Rope(role="full", theta=1e6),
        Fixed("block_use_swiglu", True),
        Fixed("use_pos_enc", True),
    )
    # How weights started.
    ignored_keys = ("block_mlp_init_scale", "block_out_init_scale", "block_use_xavier_init", "conv_use_xavier_init")
    norm_name = "model.embedding_norm"
    norms: ClassVar = {"attention_in": "operator_norm", "ffn_in": "ffn_norm"}
    attention_names: ClassVar = {
        "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "out": "self_attn.out_proj",
        "q_norm": "self_attn.q_layernorm",
        "k_norm": "self_attn.k_layernorm",
    }
    conv_names: ClassVar = {
        "gates_in": "conv.in_proj",
        "conv_weight": "conv.conv.weight",
        "conv_bias": "conv.conv.bias",
        "out": "conv.out_proj",
    }
    ffn_names: ClassVar = {"gate_up": ("feed_forward.w1", "feed_forward.w3"), "down": "feed_forward.w2"}

    def default_types(self, config: ConfigKeys, n_layers: int) -> list[str]:
        full = config.get("full_attn_idxs")
        full = range(n_layers) if full is None else config.listed("full_attn_idxs", [])
        return ["full_attention" if layer in full else "conv" for layer in range(n_layers)]

    def read(self, config: ConfigKeys) -> dict[str, Any]:
        for older, key in (("block_ff_dim", INNER), ("tie_embedding", "tie_word_embeddings")):
            if older in config.values:  # it goes before the newer name
                config.values[key] = config.get(older)
        data = super().read(config)
        for block in data["blocks"].values():
            block["ffn"]["hidden_dim"] = self.inner(config)
        for key, other in TWICE.items():
            if config.get(key) not in (None, config.get(other)):
                config.wrong(key, f"{config.get(key)!r} is not {other}")
        return data

    def inner(self, config: ConfigKeys) -> int:
        width, step = config.number(INNER, 12288) or 0, config.number("block_multiple_of", 256) or 1
        growth = config.number("block_ffn_dim_multiplier", 1.0)
        if not config.get(ADJUSTED, True):
            return width
        width = int(2 * width / 3)
        return width if growth is None else -(-int(growth * width) // step) * step

    def write(self, spec: ResolvedSpec) -> dict[str, Any]:
        ffn = next(iter(self.by_role(spec)[0]["blocks"].values()))["ffn"] or {}
        return {**super().write(spec), INNER: ffn.get("hidden_dim"), ADJUSTED: False}

    def attention_moves(self, at: str, to: str, attention: Part) -> Iterable[Move | Either]:
        if attention.name != "short_conv":
            yield from super().attention_moves(at, to, attention)
            return
        for ours, theirs in self.conv_names.items():
            yield move(f"{to}.{ours}", f"{at}.{theirs}")


@hookimpl
def register_components(register: Register) -> None:
    register("lfm2", Lfm2)
