"""SmolLM3: Llama with one layer in four without positions.  Bakouch et al. 2025."""

from __future__ import annotations

from typing import Any

from lamina.core import (
    GGUF,
    HEAD_META,
    LLAMA_KEYS,
    PAIRED,
    RMS_META,
    SIZES_META,
    ConfigKeys,
    Key,
    LlamaLike,
    Register,
    Rope,
    RopeMeta,
    defaults,
    hookimpl,
    llama_template,
    without,
)


class SmolLM3(LlamaLike):
    """SmolLM3."""

    paper = "Bakouch et al. 2025, SmolLM3; Yang et al. 2025, arXiv:2501.18795"
    model_types = ("smollm3",)
    architecture = "SmolLM3ForCausalLM"
    template = llama_template(
        blocks={
            "turned": {"position": {"name": "rope"}, "attention": {"mask": "causal"}},
            "plain": {"position": {"name": "none"}, "attention": {"mask": "causal"}},
            "turned_sliding": {"position": {"name": "rope"}, "attention": {"mask": {"name": "sliding"}}},
            "plain_sliding": {"position": {"name": "none"}, "attention": {"mask": {"name": "sliding"}}},
        }
    )
    keys = (
        *defaults(without(LLAMA_KEYS, "rope_parameters"), num_key_value_heads=4, tie_word_embeddings=True),
        Rope(role="turned", theta=2e6),
        Rope(role="turned_sliding", theta=2e6),
        Key(
            "sliding_window",
            "blocks.turned_sliding.attention.mask.window",
            "blocks.plain_sliding.attention.mask.window",
        ),
        Key("attention_bias", "blocks.*.attention.bias", default=False),
        Key("mlp_bias", "blocks.*.ffn.bias", default=False),
    )
    gguf = GGUF("smollm3", (*SIZES_META, HEAD_META, RMS_META, RopeMeta(2e6)), PAIRED)

    def roles(self, config: ConfigKeys, n_layers: int) -> list[str]:
        period = int(config.number("no_rope_layer_interval", 4) or n_layers + 1) or 1
        usual = [(layer + 1) % period != 0 for layer in range(n_layers)]
        turned = config.listed("no_rope_layers", usual, n_layers)
        slides = bool(config.get("use_sliding_window", False)) and config.get("sliding_window") is not None
        plain = ["sliding_attention" if slides and not flag else "full_attention" for flag in turned]
        types = config.listed("layer_types", plain, n_layers)
        slide = [slides and kind == "sliding_attention" for kind in types]
        return [
            ("turned" if flag else "plain") + ("_sliding" if window else "")
            for flag, window in zip(turned, slide, strict=True)
        ]

    def write_roles(self, roles: list[str], config: dict[str, Any]) -> None:
        slide = [role.endswith("_sliding") for role in roles]
        config["no_rope_layers"] = [int(role.startswith("turned")) for role in roles]
        config["layer_types"] = ["sliding_attention" if window else "full_attention" for window in slide]
        config["use_sliding_window"] = any(slide)


@hookimpl
def register_components(register: Register) -> None:
    register("smollm3", SmolLM3)
