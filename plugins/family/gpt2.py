"""GPT-2: learned positions, biases everywhere, LayerNorm, matrices kept transposed.  Radford et al. 2019."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from lamina.core import (
    ACTIVATIONS,
    GGUF,
    SAME,
    BlockConfig,
    ConfigKeys,
    Fixed,
    Key,
    MetaKey,
    Move,
    Register,
    ResolvedSpec,
    TemplateFamily,
    Transposed,
    hookimpl,
    move,
)

# The decoder's modules -> the checkpoint's, which keeps the matrices of all but the norms (in, out).
NORMS = {"attention_in": "ln_1", "ffn_in": "ln_2"}
MATRICES = {
    "attention.qkv": "attn.c_attn",
    "attention.out": "attn.c_proj",
    "ffn.up": "mlp.c_fc",
    "ffn.down": "mlp.c_proj",
}
BY_LAYER, WEIGHTED = "scale_attn_by_inverse_layer_idx", "scale_attn_weights"


class GPT2(TemplateFamily):
    """GPT-2 of every size."""

    paper = "Radford et al. 2019, Language Models are Unsupervised Multitask Learners"
    model_types = ("gpt2",)
    architecture = "GPT2LMHeadModel"
    rank = 0
    base_prefix = "transformer."
    template: ClassVar[Mapping[str, Any]] = {
        "position": {"name": "learned"},
        "norm": {"name": "layer"},
        "embedding": {},
        "head": {},
        "blocks": {
            "block": {
                "attention": {"name": "gqa", "bias": True},
                "ffn": {"name": "mlp", "bias": True},
                "residual": {"name": "plain"},
            }
        },
    }
    keys = (
        Key("vocab_size", "vocab_size", required=True),
        Key("n_embd", "dim", required=True),
        Key("n_positions", "context_length", required=True),
        Key("n_layer", "n_layers", required=True),
        Key("n_head", "blocks.*.attention.n_heads", required=True),
        Key("n_inner", "blocks.*.ffn.hidden_dim"),
        Key("activation_function", "blocks.*.ffn.activation", default="gelu_new", values=ACTIVATIONS),
        Key("layer_norm_epsilon", "norm.eps", default=1e-5),
        Key("embd_pdrop", "embedding.dropout", default=0.1),
        Key("resid_pdrop", "blocks.*.residual.dropout", default=0.1),
        Key("tie_word_embeddings", "head.tied", default=True),
        Fixed("add_cross_attention", False),
    )
    gguf = GGUF(
        "gpt2",
        (
            MetaKey("context_length", "n_positions"),
            MetaKey("embedding_length", "n_embd"),
            MetaKey("block_count", "n_layer"),
            MetaKey("feed_forward_length", "n_inner"),
            MetaKey("attention.head_count", "n_head"),
            MetaKey("attention.layer_norm_epsilon", "layer_norm_epsilon", float),
        ),
        {name: lambda config: Transposed() for name in ("attn_qkv", "attn_output", "ffn_up", "ffn_down")},
    )
    # Upcasting changes how half precision rounds, and nothing else; the summary serves other heads.
    ignored_keys = (
        "n_ctx",
        "reorder_and_upcast_attn",
        "summary_activation",
        "summary_first_dropout",
        "summary_proj_to_labels",
        "summary_type",
        "summary_use_proj",
    )
    training_keys = ("attn_pdrop",)
    ignored_tensors = ("*.attn.bias", "*.attn.masked_bias")

    def read(self, config: ConfigKeys) -> dict[str, Any]:
        data = super().read(config)
        by_layer, weighted = config.get(BY_LAYER, False), config.get(WEIGHTED, True)
        block = data["blocks"]["block"]
        if not weighted:
            block["attention"]["scale"] = 1.0
        if by_layer and isinstance(data.get("dim"), int) and block["attention"].get("n_heads"):
            head_dim = data["dim"] // block["attention"]["n_heads"]
            scale = head_dim**-0.5 if weighted else 1.0
            names = [f"layer_{layer}" for layer in range(data["layers"]["n_layers"])]
            data["blocks"] = {
                name: {**block, "attention": {**block["attention"], "scale": scale / (layer + 1)}}
                for layer, name in enumerate(names)
            }
            data["layers"]["pattern"] = names
        return data

    def write(self, spec: ResolvedSpec) -> dict[str, Any]:
        config = super().write(spec)
        scales = [_scale(spec.blocks[name]) for name in spec.layers.names]
        config[BY_LAYER] = len(scales) > 1 and scales[1] < 0.75 * scales[0]
        config[WEIGHTED] = scales[0] != 1.0
        return config

    def moves(self, spec: ResolvedSpec) -> Iterable[Move]:
        yield move("embedding.tokens", "transformer.wte")
        yield move("embedding.position.table", "transformer.wpe")
        for layer in range(spec.layers.n_layers):
            for names, layout in ((NORMS, SAME), (MATRICES, Transposed())):
                for ours, theirs in names.items():
                    yield move(f"layers.{layer}.{ours}", f"transformer.h.{layer}.{theirs}", layout)
        yield move("norm", "transformer.ln_f")
        yield move("head", "lm_head")


def _scale(block: BlockConfig) -> float:
    config = None if block.attention is None else block.attention.config
    return float(getattr(config, "scale", None) or 1.0)


@hookimpl
def register_components(register: Register) -> None:
    register("gpt2", GPT2)
