"""DeepSeek-V3 and R1: latent attention, experts chosen by sigmoids and a bias.  DeepSeek-AI 2024, arXiv:2412.19437."""

from __future__ import annotations

from typing import Any, ClassVar

from lamina.core import (
    FIRST_DENSE_KEYS,
    LATENT_KEYS,
    LLAMA_KEYS,
    ConfigKeys,
    Fixed,
    Key,
    LatentFirstDense,
    Register,
    Rope,
    defaults,
    first_dense_template,
    hookimpl,
    without,
)


class DeepSeekV3(LatentFirstDense):
    """DeepSeek-V3, R1, and models saved as them. Layers that predict further tokens are left out."""

    paper = "DeepSeek-AI 2024, arXiv:2412.19437"
    model_types = ("deepseek_v3",)
    architecture = "DeepseekV3ForCausalLM"
    template = first_dense_template({"name": "mla", "norm": {"name": "rms", "eps": 1e-6}}, "sigmoid_bias")
    keys = (
        *without(LLAMA_KEYS, "num_key_value_heads", "head_dim", "intermediate_size", "hidden_act", "rope_parameters"),
        *defaults(
            FIRST_DENSE_KEYS,
            intermediate_size=18432,
            moe_intermediate_size=2048,
            n_routed_experts=256,
            num_experts_per_tok=8,
            routed_scaling_factor=2.5,
            n_group=8,
            topk_group=4,
        ),
        *LATENT_KEYS,
        Rope(),
        Key(
            "rope_interleave",
            "position.layout",
            "blocks.*.position.layout",
            default=True,
            values={True: "interleaved", False: "half"},
        ),
        Key("attention_bias", "blocks.*.attention.bias", default=False),
        Key(
            "norm_topk_prob",
            "blocks.*.ffn.router.renormalise",
            default=True,
            values={True: True, False: False, None: False},
        ),
        Fixed("moe_layer_freq", 1),
        Fixed("scoring_func", "sigmoid"),
        Fixed("topk_method", "noaux_tc"),
    )
    ignored_keys = (
        "ep_size",
        "num_mtp_layers",
        "num_nextn_predict_layers",
        "output_router_logits",
        "pretraining_tp",
        "qk_head_dim",
    )
    training_keys = ("attention_dropout", "aux_loss_alpha", "seq_aux")
    ignored_tensors = ("*.rotary_emb.inv_freq", "model.layers.61.*")
    first = 3
    router_names: ClassVar = {"linear": "mlp.gate", "bias": "mlp.gate.e_score_correction_bias"}

    def read(self, config: ConfigKeys) -> dict[str, Any]:
        turned, told = config.number("qk_rope_head_dim", 64), config.get("head_dim")
        if told not in (None, turned):
            config.wrong("head_dim", f"{turned} channels are turned, as qk_rope_head_dim says, and not {told!r}")
        return super().read(config)


@hookimpl
def register_components(register: Register) -> None:
    register("deepseek_v3", DeepSeekV3)
