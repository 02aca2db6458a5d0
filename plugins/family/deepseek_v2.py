"""DeepSeek-V2: latent attention, experts chosen by a softmax.  DeepSeek-AI 2024, arXiv:2405.04434."""

from __future__ import annotations

from typing import Any

from lamina.core import (
    FIRST_DENSE_KEYS,
    LATENT_KEYS,
    LLAMA_KEYS,
    ConfigKeys,
    Fixed,
    Key,
    LatentFirstDense,
    Register,
    ResolvedSpec,
    Rope,
    defaults,
    first_dense_template,
    hookimpl,
    without,
)

METHODS = ("greedy", "group_limited_greedy")


class DeepSeekV2(LatentFirstDense):
    """DeepSeek-V2, V2-Lite and V2.5."""

    paper = "DeepSeek-AI 2024, arXiv:2405.04434"
    model_types = ("deepseek_v2",)
    architecture = "DeepseekV2ForCausalLM"
    template = first_dense_template(
        {"name": "mla", "norm": {"name": "rms", "eps": 1e-6}},
        "softmax_top_k",
    )
    keys = (
        *without(LLAMA_KEYS, "num_key_value_heads", "head_dim", "intermediate_size", "hidden_act", "rope_parameters"),
        *defaults(FIRST_DENSE_KEYS, intermediate_size=11008, moe_intermediate_size=1407, n_routed_experts=64),
        *LATENT_KEYS,
        Rope(layout="interleaved"),
        Key("attention_bias", "blocks.*.attention.bias", default=False),
        Key("mlp_bias", "blocks.dense.ffn.bias", "blocks.moe.ffn.shared.bias", default=False),
        Fixed("moe_layer_freq", 1),
        Fixed("norm_topk_prob", False),
        Fixed("scoring_func", "softmax"),
    )
    ignored_keys = ("ep_size", "head_dim", "output_router_logits", "pretraining_tp", "qk_head_dim")
    training_keys = ("attention_dropout", "aux_loss_alpha", "seq_aux")
    shared_experts = 2

    def read(self, config: ConfigKeys) -> dict[str, Any]:
        data = super().read(config)
        method = config.get("topk_method", METHODS[0])
        if method not in METHODS:
            config.wrong("topk_method", f"no component honours {method!r}; known: {', '.join(METHODS)}")
        if "moe" in data["blocks"]:
            router = data["blocks"]["moe"]["ffn"]["router"]
            router["renormalise"] = False
            if method != METHODS[1]:
                for key in ("n_groups", "groups_per_token"):
                    router.pop(key, None)
        return data

    def write(self, spec: ResolvedSpec) -> dict[str, Any]:
        config = super().write(spec)
        config["topk_method"] = METHODS[(config["n_group"] or 1) > 1]
        return config


@hookimpl
def register_components(register: Register) -> None:
    register("deepseek_v2", DeepSeekV2)
