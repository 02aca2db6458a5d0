"""Phi-1 to Phi-2: parallel sublayers behind one norm, half of each head turned.  Li et al. 2023, arXiv:2309.05463."""

from __future__ import annotations

from typing import ClassVar

from lamina.core import (
    GGUF,
    LAYER_NORM_META,
    LLAMA_KEYS,
    SIZES_META,
    EvenHeads,
    Key,
    LlamaLike,
    Means,
    Register,
    Rope,
    RopeMeta,
    defaults,
    hookimpl,
    llama_template,
    without,
)


class Phi(LlamaLike):
    """Phi before its third version."""

    paper = "Gunasekar et al. 2023, arXiv:2306.11644; Li et al. 2023, arXiv:2309.05463"
    model_types = ("phi",)
    architecture = "PhiForCausalLM"
    template = llama_template(
        {
            "placement": "parallel",
            "attention": {"bias": True},
            "ffn": {"name": "mlp", "bias": True},
            "residual": {"name": "plain"},
        },
        norm={"name": "layer"},
        head={"bias": True},
    )
    keys = (
        *defaults(without(LLAMA_KEYS, "rope_parameters", "rms_norm_eps"), hidden_act="gelu_new"),
        Key("qk_layernorm", "blocks.*.attention.qk_norm", default=False, values={True: "layer", False: None}),
        Key("layer_norm_eps", "norm.eps", "blocks.*.attention.qk_norm.eps", default=1e-5),
        Key("embd_pdrop", "embedding.dropout", default=0.0),
        Key("resid_pdrop", "blocks.*.residual.dropout", default=0.0),
        Rope(partial=True, fraction=0.5),
    )
    gguf = GGUF("phi2", (*SIZES_META, EvenHeads(), LAYER_NORM_META, RopeMeta(), Means("tie_word_embeddings", False)))
    norm_name = "model.final_layernorm"
    norms: ClassVar = {"attention_in": "input_layernorm"}
    attention_names: ClassVar = {
        "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "out": "self_attn.dense",
        "q_norm": "self_attn.q_layernorm",
        "k_norm": "self_attn.k_layernorm",
    }
    ffn_names: ClassVar = {"up": "mlp.fc1", "down": "mlp.fc2"}


@hookimpl
def register_components(register: Register) -> None:
    register("phi", Phi)
