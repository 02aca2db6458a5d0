"""Granite with experts: weights are a softmax over the chosen alone.  IBM 2024, arXiv:2408.13359."""

from __future__ import annotations

from collections.abc import Iterable

from lamina.core import (
    ACTIVATIONS,
    GGUF,
    GRANITE_KEYS,
    HEAD_META,
    LLAMA_KEYS,
    PAIRED,
    RMS_META,
    SIZES_META,
    Either,
    Joined,
    Key,
    LlamaLike,
    MetaKey,
    Move,
    Part,
    Present,
    Register,
    RopeMeta,
    granite_experts,
    hookimpl,
    llama_template,
    without,
)


class GraniteMoE(LlamaLike):
    """Granite 3's models with experts."""

    paper = "Shen et al. 2024, arXiv:2408.13359"
    model_types = ("granitemoe",)
    architecture = "GraniteMoeForCausalLM"
    template = llama_template(
        {
            "residual": {"name": "scaled"},
            "ffn": {"name": "moe", "router": {"name": "top_k_softmax"}, "expert": {"name": "gated"}, "shared": None},
        }
    )
    keys = (
        *without(LLAMA_KEYS, "intermediate_size", "hidden_act"),
        *GRANITE_KEYS,
        Key("intermediate_size", "blocks.*.ffn.expert.hidden_dim", default=11008),
        Key("hidden_act", "blocks.*.ffn.expert.activation", default="silu", values=ACTIVATIONS),
        Key("num_local_experts", "blocks.*.ffn.n_experts", default=8),
        Key("num_experts_per_tok", "blocks.*.ffn.router.experts_per_token", default=2),
    )
    gguf = GGUF(
        "granitemoe",
        (
            *SIZES_META,
            HEAD_META,
            RMS_META,
            RopeMeta(),
            MetaKey("expert_count", "num_local_experts"),
            MetaKey("expert_used_count", "num_experts_per_tok"),
            MetaKey("embedding_scale", "embedding_multiplier", float),
            MetaKey("residual_scale", "residual_multiplier", float),
            MetaKey("attention.scale", "attention_multiplier", float),
            MetaKey("logit_scale", "logits_scaling", float),
            Present("attention_bias", "blk.0.attn_q.bias"),
        ),
        PAIRED,
        {"model.layers.{}.block_sparse_moe.output_linear": "blk.{}.ffn_down_exps"},
        {
            "model.layers.{}.block_sparse_moe.input_linear.weight": (
                ("blk.{}.ffn_gate_exps.weight", "blk.{}.ffn_up_exps.weight"),
                lambda config: Joined((config["intermediate_size"],) * 2, axis=1),
            )
        },
    )
    ignored_keys = ("output_router_logits",)
    training_keys = ("attention_dropout", "router_aux_loss_coef")

    def ffn_moves(self, at: str, to: str, ffn: Part) -> Iterable[Move | Either]:
        return granite_experts(at, to, ffn.config)


@hookimpl
def register_components(register: Register) -> None:
    register("granitemoe", GraniteMoE)
