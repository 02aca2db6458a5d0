"""Llama 1 to 3: RMSNorm, rotary positions, grouped queries, SwiGLU.  Touvron et al. 2023, arXiv:2302.13971."""

from __future__ import annotations

from lamina.core import GGUF, LLAMA_KEYS, LLAMA_META, PAIRED, Key, LlamaLike, Present, Register, hookimpl


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
    gguf = GGUF(
        "llama",
        (
            *LLAMA_META,
            Present("attention_bias", "blk.0.attn_q.bias"),
            Present("mlp_bias", "blk.0.ffn_up.bias"),
        ),
        PAIRED,
        serves=lambda meta: not meta.get("expert_count"),
    )


@hookimpl
def register_components(register: Register) -> None:
    register("llama", Llama)
