"""Phi-3 and Phi-4: Llama with fused projections, LongRoPE and dropout.  Abdin et al. 2024, arXiv:2404.14219."""

from __future__ import annotations

from typing import ClassVar

from lamina.core import (
    FULL_OR_SLIDING,
    GGUF,
    LLAMA_KEYS,
    RMS_META,
    SIZES_META,
    WINDOW,
    EvenHeads,
    Key,
    MetaKey,
    Register,
    Rope,
    RopeMeta,
    WindowedLayers,
    defaults,
    hookimpl,
    llama_template,
    without,
)


class Phi3(WindowedLayers):
    """Phi-3, Phi-3.5 and Phi-4 of the dense kind."""

    paper = "Abdin et al. 2024, arXiv:2404.14219"
    model_types = ("phi3",)
    architecture = "Phi3ForCausalLM"
    template = llama_template({"residual": {"name": "plain"}}, blocks=FULL_OR_SLIDING)
    keys = (
        *defaults(without(LLAMA_KEYS, "rope_parameters"), rms_norm_eps=1e-5),
        WINDOW,
        Rope(partial=True, own_original=True),
        Key("resid_pdrop", "blocks.*.residual.dropout", default=0.0),
        Key("embd_pdrop", "embedding.dropout", default=0.0),
    )
    gguf = GGUF(
        "phi3",
        (
            *SIZES_META,
            EvenHeads(),
            RMS_META,
            RopeMeta(original=True),
            MetaKey("attention.sliding_window", "sliding_window", to=lambda n: n or None, unheeded=True),
        ),
    )
    attention_names: ClassVar = {"qkv": "self_attn.qkv_proj", "out": "self_attn.o_proj"}
    ffn_names: ClassVar = {"gate_up": "mlp.gate_up_proj", "down": "mlp.down_proj"}


@hookimpl
def register_components(register: Register) -> None:
    register("phi3", Phi3)
