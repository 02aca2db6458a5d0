"""GLM-4.5: half of each head turned, experts chosen as DeepSeek-V3 does after the first layers.  arXiv:2508.06471."""

from __future__ import annotations

from typing import Any, ClassVar

from lamina.core import (
    FIRST_DENSE_KEYS,
    LLAMA_KEYS,
    ConfigKeys,
    FirstDense,
    Key,
    Register,
    ResolvedSpec,
    Rope,
    defaults,
    first_dense_template,
    hookimpl,
    without,
)

NORMED = "use_qk_norm"


class Glm4MoE(FirstDense):
    """GLM-4.5, 4.6 and 4.7, and their Air. Layers that predict further tokens are left out."""

    paper = "GLM-4.5 team 2025, arXiv:2508.06471"
    model_types = ("glm4_moe",)
    architecture = "Glm4MoeForCausalLM"
    template = first_dense_template({"name": "gqa", "out_bias": False}, "sigmoid_bias")
    keys = (
        *defaults(
            without(LLAMA_KEYS, "intermediate_size", "hidden_act", "rope_parameters"),
            num_key_value_heads=8,
            rms_norm_eps=1e-5,
        ),
        *defaults(
            FIRST_DENSE_KEYS,
            intermediate_size=10944,
            moe_intermediate_size=1408,
            n_routed_experts=128,
            num_experts_per_tok=8,
            n_group=1,
            topk_group=1,
        ),
        Rope(fraction=0.5, partial=True),
        Key("attention_bias", "blocks.*.attention.bias", default=False),
        Key("norm_topk_prob", "blocks.*.ffn.router.renormalise", default=True),
    )
    ignored_keys = ("num_mtp_layers", "num_nextn_predict_layers", "output_router_logits")
    ignored_tensors = ("*.rotary_emb.inv_freq", "model.layers.46.*", "model.layers.92.*")
    first = 1
    router_names: ClassVar = {"linear": "mlp.gate", "bias": "mlp.gate.e_score_correction_bias"}

    def read(self, config: ConfigKeys) -> dict[str, Any]:
        data = super().read(config)
        if config.get(NORMED, False):
            for block in data["blocks"].values():
                block["attention"]["qk_norm"] = {"name": "rms", "eps": data["norm"].get("eps")}
        return data

    def write(self, spec: ResolvedSpec) -> dict[str, Any]:
        blocks = self.by_role(spec)[0]["blocks"].values()
        normed = any((block["attention"] or {}).get("qk_norm") is not None for block in blocks)
        return {**super().write(spec), NORMED: normed}


@hookimpl
def register_components(register: Register) -> None:
    register("glm4_moe", Glm4MoE)
