"""Mistral: Llama with a sliding window in every layer, or none.  Jiang et al. 2023, arXiv:2310.06825."""

from __future__ import annotations

from lamina.core import (
    GGUF,
    LLAMA_KEYS,
    LLAMA_META,
    PAIRED,
    WINDOW,
    Means,
    Register,
    WindowedLayers,
    defaults,
    hookimpl,
    with_default,
)


class Mistral(WindowedLayers):
    """Mistral 7B and its successors of the same shape."""

    paper = "Jiang et al. 2023, arXiv:2310.06825"
    model_types = ("mistral",)
    architecture = "MistralForCausalLM"
    rank = 10
    window = 4096
    keys = (*defaults(LLAMA_KEYS, num_key_value_heads=8), with_default(WINDOW, 4096))
    # llama.cpp reads such a file as a Llama, which has no windows.
    gguf = GGUF(
        "llama", (*LLAMA_META, Means("sliding_window", None)), PAIRED, serves=lambda meta: not meta.get("expert_count")
    )


@hookimpl
def register_components(register: Register) -> None:
    register("mistral", Mistral)
