"""MiniMax-M2: experts chosen by sigmoids and a bias, heads normed side by side and turned in part.  MiniMax 2025."""

from __future__ import annotations

from typing import Any, ClassVar

from lamina.core import (
    ACTIVATIONS,
    LLAMA_KEYS,
    ConfigKeys,
    Fixed,
    Key,
    LlamaLike,
    Register,
    Rope,
    defaults,
    hookimpl,
    llama_template,
    without,
)

TURNED = "rotary_dim"  # of a head's channels; published configs say so and not what fraction that is


class MiniMaxM2(LlamaLike):
    """MiniMax-M2 and M2.1. Modules that predict further tokens are left out."""

    paper = "MiniMax 2025, MiniMax-M2: A Model Built for Max Coding and Agentic Workflows"
    model_types = ("minimax_m2",)
    architecture = "MiniMaxM2ForCausalLM"
    template = llama_template(
        {
            "attention": {"qk_norm": {"name": "rms"}, "qk_norm_over": "all"},
            "ffn": {"name": "moe", "router": "sigmoid_bias", "expert": "gated", "shared": None},
        }
    )
    keys = (
        *defaults(
            without(LLAMA_KEYS, "intermediate_size", "hidden_act", "rope_parameters"),
            head_dim=128,
            num_key_value_heads=8,
        ),
        Rope(theta=5e6, partial=True),
        Key("intermediate_size", "blocks.*.ffn.expert.hidden_dim", required=True),
        Key("hidden_act", "blocks.*.ffn.expert.activation", default="silu", values=ACTIVATIONS),
        Key("num_local_experts", "blocks.*.ffn.n_experts", default=256, older=("num_experts",)),
        Key("num_experts_per_tok", "blocks.*.ffn.router.experts_per_token", default=8),
        Fixed("qk_norm_type", "per_layer"),
        Fixed("scoring_func", "sigmoid"),
        Fixed("shared_intermediate_size", 0),
        Fixed("sliding_window", None),
        Fixed("use_qk_norm", True),
        Fixed("use_routing_bias", True),
    )
    # Published configs have keys of MiniMax-Text-01 besides, which say nothing here.
    ignored_keys = (
        "layernorm_full_attention_beta",
        "layernorm_linear_attention_beta",
        "layernorm_mlp_beta",
        "mlp_intermediate_size",
        "mtp_transformer_layers",
        "num_mtp_modules",
        "output_router_logits",
        "shared_moe_mode",
        "use_mtp",
    )
    training_keys = ("attention_dropout", "router_aux_loss_coef", "router_jitter_noise")
    router_names: ClassVar = {
        "linear": "block_sparse_moe.gate",
        "bias": "block_sparse_moe.e_score_correction_bias",
    }
    expert_names = (
        "block_sparse_moe.experts.{}.w1",
        "block_sparse_moe.experts.{}.w3",
        "block_sparse_moe.experts.{}.w2",
    )

    def read(self, config: ConfigKeys) -> dict[str, Any]:
        turned, width = config.number(TURNED), config.number("head_dim", 128)
        if turned is not None and width:
            config.values.setdefault("partial_rotary_factor", turned / width)
        if any(kind != 1 for kind in config.listed("attn_type_list", [])):
            config.wrong("attn_type_list", "all layers have softmax attention, 1")
        return super().read(config)


@hookimpl
def register_components(register: Register) -> None:
    register("minimax_m2", MiniMaxM2)
