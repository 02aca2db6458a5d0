"""Llama 1 to 3: RMSNorm, rotary positions, grouped queries, SwiGLU.  Touvron et al. 2023, arXiv:2302.13971."""

from __future__ import annotations

from lamina.core import LLAMA_KEYS, Key, LlamaLike, Register, hookimpl


class Llama(LlamaLike):
    """Llama, and the many models saved as one."""

    paper = "Touvron et al. 2023, arXiv:2302.13971; Grattafiori et al. 2024, arXiv:2407.21783"
    model_types = ("llama",)
    architecture = "LlamaForCausalLM"
    rank = 0
    keys = (
        *LLAMA_KEYS,
        Key("attention_bias", "blocks.*.attention.bias", default=False),
        Key("mlp_bias", "blocks.*.ffn.bias", default=False),
    )


@hookimpl
def register_components(register: Register) -> None:
    register("llama", Llama)
