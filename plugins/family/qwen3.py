"""Qwen3: Llama with norms on the heads of queries and keys.  Yang et al. 2025, arXiv:2505.09388."""

from __future__ import annotations

from lamina.core import (
    FULL_OR_SLIDING,
    GGUF,
    LLAMA_KEYS,
    LLAMA_META,
    WINDOW,
    Key,
    Register,
    SwitchedWindow,
    defaults,
    hookimpl,
    llama_template,
)


class Qwen3(SwitchedWindow):
    """Qwen3's dense models."""

    paper = "Yang et al. 2025, arXiv:2505.09388"
    model_types = ("qwen3",)
    architecture = "Qwen3ForCausalLM"
    template = llama_template({"attention": {"qk_norm": {"name": "rms"}}}, blocks=FULL_OR_SLIDING)
    keys = (
        *defaults(LLAMA_KEYS, head_dim=128),
        WINDOW,
        Key("attention_bias", "blocks.*.attention.bias", default=False),
    )
    gguf = GGUF("qwen3", LLAMA_META)


@hookimpl
def register_components(register: Register) -> None:
    register("qwen3", Qwen3)
