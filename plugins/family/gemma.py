"""Gemma: Llama with scaled embeddings, weights from zero in its norms.  Gemma team 2024, arXiv:2403.08295."""

from __future__ import annotations

from typing import Any

from lamina.core import (
    FROM_ONE,
    GGUF,
    LLAMA_KEYS,
    LLAMA_META,
    ConfigKeys,
    Fixed,
    Key,
    LlamaLike,
    Register,
    defaults,
    hookimpl,
    llama_template,
)


class Gemma(LlamaLike):
    """The first Gemma."""

    paper = "Gemma team 2024, arXiv:2403.08295"
    model_types = ("gemma",)
    architecture = "GemmaForCausalLM"
    template = llama_template(norm={"name": "rms", "offset": 1.0}, embedding={"scale": "sqrt_dim"})
    keys = (
        *defaults(LLAMA_KEYS, head_dim=256, hidden_act="gelu_pytorch_tanh", tie_word_embeddings=True),
        Key("attention_bias", "blocks.*.attention.bias", default=False),
        Fixed("use_bidirectional_attention", None),
    )
    gguf = GGUF("gemma", LLAMA_META, FROM_ONE)

    def read(self, config: ConfigKeys) -> dict[str, Any]:
        if (chosen := config.get("hidden_activation")) is not None:  # an older key, which went before hidden_act
            config.values["hidden_act"] = chosen
        return super().read(config)


@hookimpl
def register_components(register: Register) -> None:
    register("gemma", Gemma)
