"""Persimmon: GPT-NeoX one sublayer after the other, heads of queries and keys normed, squared ReLU.  Adept 2023."""

from __future__ import annotations

from typing import Any, ClassVar

from lamina.core import (
    LLAMA_KEYS,
    ConfigKeys,
    Key,
    LlamaLike,
    Register,
    Rope,
    defaults,
    hookimpl,
    llama_template,
    without,
)


class Persimmon(LlamaLike):
    """Persimmon 8B."""

    paper = "Adept 2023, Releasing Persimmon-8B"
    model_types = ("persimmon",)
    architecture = "PersimmonForCausalLM"
    rank = 200  # heads without norms, all of them turned, are rather other families'
    template = llama_template(
        {"attention": {"bias": True}, "ffn": {"name": "mlp", "bias": True}}, norm={"name": "layer"}
    )
    keys = (
        *defaults(
            without(LLAMA_KEYS, "num_key_value_heads", "head_dim", "rope_parameters", "rms_norm_eps"),
            hidden_act="relu2",
        ),
        Key("qk_layernorm", "blocks.*.attention.qk_norm", default=True, values={True: "layer", False: None}),
        Key("layer_norm_eps", "norm.eps", "blocks.*.attention.qk_norm.eps", default=1e-5),
        Rope(partial=True, fraction=0.5),
    )
    training_keys = ("attention_dropout", "hidden_dropout")  # the latter on the ffn alone
    norm_name = "model.final_layernorm"
    attention_names: ClassVar = {
        "qkv": "self_attn.query_key_value",
        "out": "self_attn.dense",
        "q_norm": "self_attn.q_layernorm",
        "k_norm": "self_attn.k_layernorm",
    }
    qkv_weave = True
    ffn_names: ClassVar = {"up": "mlp.dense_h_to_4h", "down": "mlp.dense_4h_to_h"}

    def read(self, config: ConfigKeys) -> dict[str, Any]:
        heads = config.get("num_attention_heads")
        if (given := config.get("num_key_value_heads")) not in (None, heads):
            config.wrong("num_key_value_heads", f"{given!r} is not num_attention_heads")
        return super().read(config)


@hookimpl
def register_components(register: Register) -> None:
    register("persimmon", Persimmon)
