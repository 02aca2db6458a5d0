"""Arcee's AFM: Llama with an ungated feed-forward network and squared ReLU.  Arcee AI 2025."""

from __future__ import annotations

from typing import ClassVar

from lamina.core import ACTIVATIONS, LLAMA_KEYS, Key, LlamaLike, Register, defaults, hookimpl, llama_template, without


class Arcee(LlamaLike):
    """AFM-4.5B."""

    paper = "Arcee AI 2025, AFM-4.5B; So et al. 2021, arXiv:2109.08668"
    model_types = ("arcee",)
    architecture = "ArceeForCausalLM"
    template = llama_template({"ffn": {"name": "mlp"}})
    keys = (
        *defaults(without(LLAMA_KEYS, "hidden_act"), rms_norm_eps=1e-5),
        Key("hidden_act", "blocks.*.ffn.activation", default="relu2", values=ACTIVATIONS),
        Key("attention_bias", "blocks.*.attention.bias", default=False),
        Key("mlp_bias", "blocks.*.ffn.bias", default=False),
    )
    ffn_names: ClassVar = {"up": "mlp.up_proj", "down": "mlp.down_proj"}


@hookimpl
def register_components(register: Register) -> None:
    register("arcee", Arcee)
