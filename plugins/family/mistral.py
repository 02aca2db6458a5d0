"""Mistral: Llama with a sliding window in every layer, or none.  Jiang et al. 2023, arXiv:2310.06825."""

from __future__ import annotations

from lamina.core import LLAMA_KEYS, WINDOW, Register, WindowedLayers, defaults, hookimpl, with_default


class Mistral(WindowedLayers):
    """Mistral 7B and its successors of the same shape."""

    paper = "Jiang et al. 2023, arXiv:2310.06825"
    model_types = ("mistral",)
    architecture = "MistralForCausalLM"
    rank = 10
    window = 4096
    keys = (*defaults(LLAMA_KEYS, num_key_value_heads=8), with_default(WINDOW, 4096))


@hookimpl
def register_components(register: Register) -> None:
    register("mistral", Mistral)
