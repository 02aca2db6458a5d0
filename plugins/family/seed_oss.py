"""Seed-OSS: Llama with biases on q, k and v, and dropout on what joins the stream.  ByteDance Seed 2025."""

from __future__ import annotations

from lamina.core import LLAMA_KEYS, Key, LlamaLike, Register, defaults, hookimpl, llama_template


class SeedOss(LlamaLike):
    """Seed-OSS 36B."""

    paper = "ByteDance Seed 2025, Seed-OSS"
    model_types = ("seed_oss",)
    architecture = "SeedOssForCausalLM"
    template = llama_template({"residual": {"name": "plain"}})
    keys = (
        *defaults(LLAMA_KEYS, num_key_value_heads=8, head_dim=128),
        Key("attention_bias", "blocks.*.attention.bias", default=True),
        Key("attention_out_bias", "blocks.*.attention.out_bias", default=False),
        Key("mlp_bias", "blocks.*.ffn.bias", default=False),
        Key("residual_dropout", "blocks.*.residual.dropout", default=0.1),
    )


@hookimpl
def register_components(register: Register) -> None:
    register("seed_oss", SeedOss)
