"""Mistral: Llama with a sliding window in every layer, or none.  Jiang et al. 2023, arXiv:2310.06825."""

from __future__ import annotations

from lamina.core import LLAMA_KEYS, ConfigKeys, Key, LlamaLike, Register, hookimpl, llama_template


class Mistral(LlamaLike):
    """Mistral 7B and its successors of the same shape."""

    paper = "Jiang et al. 2023, arXiv:2310.06825"
    model_types = ("mistral",)
    architecture = "MistralForCausalLM"
    rank = 10
    template = llama_template(
        blocks={"full": {"attention": {"mask": "causal"}}, "sliding": {"attention": {"mask": {"name": "sliding"}}}}
    )
    keys = (*LLAMA_KEYS, Key("sliding_window", "blocks.sliding.attention.mask.window"))

    def roles(self, config: ConfigKeys, n_layers: int) -> list[str]:
        return ["full" if config.get("sliding_window", 4096) is None else "sliding"] * n_layers


@hookimpl
def register_components(register: Register) -> None:
    register("mistral", Mistral)
