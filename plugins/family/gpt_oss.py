"""gpt-oss: sinks, windows in every other layer, biases everywhere, clamped experts.  OpenAI 2025, arXiv:2508.10925."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lamina.core import (
    FULL_OR_SLIDING,
    GGUF,
    HEAD_META,
    LLAMA_KEYS,
    RMS_META,
    SIZES_META,
    WINDOW,
    Alternating,
    Chain,
    ConfigKeys,
    Each,
    Fixed,
    Key,
    Means,
    MetaKey,
    Move,
    Part,
    Register,
    Rope,
    RopeMeta,
    Stacked,
    Transposed,
    TypedLayers,
    Windows,
    Woven,
    defaults,
    hookimpl,
    llama_template,
    move,
    with_default,
    without,
)

YARN = {"rope_type": "yarn", "factor": 32.0, "truncate": False, "original_max_position_embeddings": 4096}


class GptOss(TypedLayers):
    """gpt-oss-20b and 120b."""

    paper = "OpenAI 2025, arXiv:2508.10925"
    model_types = ("gpt_oss",)
    architecture = "GptOssForCausalLM"
    template = llama_template(
        {
            "attention": {"sinks": True},
            "ffn": {
                "name": "moe",
                "router": {"name": "top_k_softmax", "bias": True},
                "expert": {"name": "clamped_gated", "offset": 1.0, "bias": True},
                "shared": None,
            },
        },
        blocks=FULL_OR_SLIDING,
    )
    keys = (
        *defaults(
            without(LLAMA_KEYS, "intermediate_size", "hidden_act", "rope_parameters"),
            head_dim=64,
            num_key_value_heads=8,
            rms_norm_eps=1e-5,
        ),
        with_default(WINDOW, 128),
        Rope(theta=150_000.0, usual=YARN),
        Key("attention_bias", "blocks.*.attention.bias", default=True),
        Fixed("hidden_act", "silu"),
        Key("intermediate_size", "blocks.*.ffn.expert.hidden_dim", default=2880),
        Key("swiglu_alpha", "blocks.*.ffn.expert.alpha", default=1.702),
        Key("swiglu_limit", "blocks.*.ffn.expert.limit", default=7.0),
        Key("num_local_experts", "blocks.*.ffn.n_experts", default=128, older=("num_experts",)),
        Key("num_experts_per_tok", "blocks.*.ffn.router.experts_per_token", default=4, older=("experts_per_token",)),
    )
    gguf = GGUF(
        "gpt-oss",
        (
            *SIZES_META,
            HEAD_META,
            RMS_META,
            RopeMeta(150_000.0, yarn={"truncate": False}),
            Windows(2),
            MetaKey("expert_feed_forward_length", "intermediate_size"),
            MetaKey("expert_count", "num_local_experts"),
            MetaKey("expert_used_count", "num_experts_per_tok"),
            Means("tie_word_embeddings", False),
        ),
        {"ffn_down_exps.weight": lambda config: Transposed()},
        {
            "model.layers.{}.self_attn.sinks": "blk.{}.attn_sinks.weight",
            "model.layers.{}.mlp.experts.down_proj": "blk.{}.ffn_down_exps.weight",
            "model.layers.{}.mlp.experts.down_proj_bias": "blk.{}.ffn_down_exps.bias",
        },
        {
            "model.layers.{}.mlp.experts.gate_up_proj": (
                ("blk.{}.ffn_gate_exps.weight", "blk.{}.ffn_up_exps.weight"),
                lambda config: Chain(Alternating(axis=1), Transposed()),
            ),
            "model.layers.{}.mlp.experts.gate_up_proj_bias": (
                ("blk.{}.ffn_gate_exps.bias", "blk.{}.ffn_up_exps.bias"),
                lambda config: Alternating(axis=1),
            ),
        },
    )
    # The length its rotation was trained with stands with the rotation too.
    ignored_keys = ("initial_context_length", "output_router_logits")
    training_keys = ("attention_dropout", "router_aux_loss_coef")

    def default_types(self, config: ConfigKeys, n_layers: int) -> list[str]:
        return [("sliding_attention", "full_attention")[layer % 2] for layer in range(n_layers)]

    def ffn_moves(self, at: str, to: str, ffn: Part) -> Iterable[Move]:
        """Experts are stacked and kept (in, out); rows of gate and up take turns."""
        config: Any = ffn.config
        yield move(f"{to}.router.linear", f"{at}.mlp.router")
        woven = Woven(config.expert.config.hidden_dim, (1, 1))
        for ours, theirs, layouts in (
            ("gate_up", "gate_up_proj", (Each(Transposed()), Each(woven))),
            ("down", "down_proj", (Each(Transposed()),)),
        ):
            names = [f"{to}.experts.{expert}.{ours}" for expert in range(config.n_experts)]
            yield move(names, f"{at}.mlp.experts.{theirs}", Chain(Stacked(), *layouts), weight="", bias="_bias")


@hookimpl
def register_components(register: Register) -> None:
    register("gpt_oss", GptOss)
