"""Nemotron-4: LayerNorm whose weight starts at zero, squared ReLU, half of each head turned.  arXiv:2402.16819."""

from __future__ import annotations

from typing import ClassVar

from lamina.core import (
    ACTIVATIONS,
    LLAMA_KEYS,
    Key,
    LlamaLike,
    Register,
    Rope,
    hookimpl,
    llama_template,
    without,
)


class Nemotron(LlamaLike):
    """Nemotron-4 15B and 340B, Minitron."""

    paper = "Parmar et al. 2024, arXiv:2402.16819"
    model_types = ("nemotron",)
    architecture = "NemotronForCausalLM"
    template = llama_template({"ffn": {"name": "mlp"}}, norm={"name": "layer", "offset": 1.0})
    keys = (
        *without(LLAMA_KEYS, "hidden_act", "rms_norm_eps", "rope_parameters"),
        Key("hidden_act", "blocks.*.ffn.activation", default="relu2", values=ACTIVATIONS),
        Key("norm_eps", "norm.eps", default=1e-5),
        Key("attention_bias", "blocks.*.attention.bias", default=False),
        Key("mlp_bias", "blocks.*.ffn.bias", default=False),
        Rope(fraction=0.5, partial=True),
    )
    ffn_names: ClassVar = {"up": "mlp.up_proj", "down": "mlp.down_proj"}


@hookimpl
def register_components(register: Register) -> None:
    register("nemotron", Nemotron)
