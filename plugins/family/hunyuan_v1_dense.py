"""Hunyuan, dense: Llama with a larger base for longer texts, queries and keys normed after they are turned.

Tencent 2025. A checkpoint calls the larger base `dynamic`; with an `alpha` it depends on no text's length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lamina.core import (
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
    pick,
    without,
)

ALPHA = "alpha"
# Of YaRN, which these configs have at values that say nothing beside an alpha.
BESIDE = ("factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim")


@dataclass(frozen=True)
class AlphaRope(Rope):
    """Rotation that a fixed `alpha` may have given a larger base."""

    def position(self, config: ConfigKeys, found: dict[str, Any]) -> dict[str, Any]:
        alpha = found.pop(ALPHA, None)
        if not alpha or found.get("rope_type", found.get("type")) != "dynamic":
            if alpha and alpha != 1:
                config.wrong(f"rope_parameters.{ALPHA}", "no component honours it without rope_type 'dynamic'")
            return super().position(config, found)
        plain = {key: value for key, value in found.items() if key not in BESIDE}
        position = super().position(config, {**plain, "rope_type": "default"})
        return {**position, "scaling": {"name": "ntk", "factor": alpha}}

    def write(self, data: dict[str, Any], config: dict[str, Any]) -> None:
        super().write(data, config)
        scaling = next((found for found in pick(data, "blocks.*.position.scaling") if found is not None), None)
        if scaling is not None and scaling["name"] == "ntk":
            config["rope_parameters"] |= {"rope_type": "dynamic", ALPHA: scaling["factor"], "factor": 1.0}


class HunyuanV1Dense(LlamaLike):
    """Hunyuan 0.5B, 1.8B, 4B and 7B."""

    paper = "Tencent Hunyuan Team 2025, Hunyuan dense models"
    model_types = ("hunyuan_v1_dense",)
    architecture = "HunYuanDenseV1ForCausalLM"
    template = llama_template({"attention": {"qk_norm": {"name": "rms"}, "qk_norm_at": "after"}})
    keys = (
        *defaults(without(LLAMA_KEYS, "rope_parameters", "head_dim"), rms_norm_eps=1e-5),
        Key("head_dim", "blocks.*.attention.head_dim", older=("attention_head_dim",)),
        Key("attention_bias", "blocks.*.attention.bias", default=False),
        AlphaRope(),
        Fixed("mlp_bias", False),
        Fixed("norm_type", "rms"),
        Fixed("use_cla", False),
        Fixed("use_qk_norm", True),
        Fixed("use_rotary_pos_emb", True),
        Fixed("xdrope_section", None),
    )
    # Of other models and other tasks of the same config class.
    ignored_keys = (
        "add_classification_head",
        "cla_share_factor",
        "class_num",
        "dense_list",
        "eod_token_id",
        "im_end_id",
        "im_newline_id",
        "im_start_id",
        "image_token_id",
        "mask_init_id",
        "org_vocab_size",
        "pad_id",
        "pool_type",
        "pretraining_tp",
        "text_end_id",
        "text_start_id",
    )
    attention_names: ClassVar = {
        "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "out": "self_attn.o_proj",
        "q_norm": "self_attn.query_layernorm",
        "k_norm": "self_attn.key_layernorm",
    }


@hookimpl
def register_components(register: Register) -> None:
    register("hunyuan_v1_dense", HunyuanV1Dense)
