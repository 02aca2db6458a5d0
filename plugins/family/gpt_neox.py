"""GPT-NeoX and Pythia: parallel sublayers, a part of each head turned.  Black et al. 2022, arXiv:2204.06745."""

from __future__ import annotations

from typing import ClassVar

from lamina.core import LLAMA_KEYS, Key, LlamaLike, Register, Rope, defaults, hookimpl, llama_template, without


class GPTNeoX(LlamaLike):
    """GPT-NeoX-20B and Pythia."""

    paper = "Black et al. 2022, arXiv:2204.06745"
    model_types = ("gpt_neox",)
    architecture = "GPTNeoXForCausalLM"
    base_prefix = "gpt_neox."
    template = llama_template(
        {"ffn": {"name": "mlp", "bias": True}, "residual": {"name": "plain"}}, norm={"name": "layer"}
    )
    keys = (
        *defaults(
            without(LLAMA_KEYS, "rope_parameters", "num_key_value_heads", "head_dim", "rms_norm_eps"), hidden_act="gelu"
        ),
        Key("layer_norm_eps", "norm.eps", default=1e-5),
        Key("attention_bias", "blocks.*.attention.bias", default=True),
        Key("use_parallel_residual", "blocks.*.flow", default=True, values={True: "parallel", False: "sequential"}),
        Key("hidden_dropout", "embedding.dropout", "blocks.*.residual.dropout", default=0.0),
        Rope(
            partial=True,
            fraction=0.25,
            fraction_keys=("partial_rotary_factor", "rotary_pct"),
            theta_keys=("rope_theta", "rotary_emb_base"),
        ),
    )
    ignored_keys = ("classifier_dropout",)
    ignored_tensors = ("*.rotary_emb.inv_freq", "*.attention.bias", "*.attention.masked_bias")

    embedding_name = "gpt_neox.embed_in"
    layer_name = "gpt_neox.layers.{}"
    norm_name = "gpt_neox.final_layer_norm"
    head_name = "embed_out"
    attention_names: ClassVar = {"qkv": "attention.query_key_value", "out": "attention.dense"}
    qkv_weave = True
    ffn_names: ClassVar = {"up": "mlp.dense_h_to_4h", "down": "mlp.dense_4h_to_h"}


@hookimpl
def register_components(register: Register) -> None:
    register("gpt_neox", GPTNeoX)
