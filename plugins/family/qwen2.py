"""Qwen2 and Qwen2.5: Llama with biases on queries, keys and values.  Yang et al. 2024, arXiv:2407.10671."""

from __future__ import annotations

from lamina.core import (
    FULL_OR_SLIDING,
    GGUF,
    LLAMA_KEYS,
    RMS_META,
    SIZES_META,
    WINDOW,
    EvenHeads,
    Register,
    RopeMeta,
    SwitchedWindow,
    hookimpl,
    llama_template,
)


class Qwen2(SwitchedWindow):
    """Qwen2 and Qwen2.5."""

    paper = "Yang et al. 2024, arXiv:2407.10671"
    model_types = ("qwen2",)
    architecture = "Qwen2ForCausalLM"
    template = llama_template({"attention": {"bias": True, "out_bias": False}}, blocks=FULL_OR_SLIDING)
    keys = (*LLAMA_KEYS, WINDOW)
    gguf = GGUF("qwen2", (*SIZES_META, EvenHeads(), RMS_META, RopeMeta()))


@hookimpl
def register_components(register: Register) -> None:
    register("qwen2", Qwen2)
