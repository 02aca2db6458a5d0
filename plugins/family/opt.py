"""OPT: learned positions from row two on, ReLU, norms before sublayers or after.  Zhang 2022, arXiv:2205.01068."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from lamina.core import (
    ACTIVATIONS,
    ConfigKeys,
    Either,
    Key,
    LlamaLike,
    Move,
    Register,
    ResolvedSpec,
    hookimpl,
    llama_template,
    move,
)

BEFORE, BARE, AFFINE = "do_layer_norm_before", "_remove_final_layer_norm", "layer_norm_elementwise_affine"


class OPT(LlamaLike):
    """OPT, but for the size of 350M, whose embedding is narrower than its layers."""

    paper = "Zhang et al. 2022, arXiv:2205.01068"
    model_types = ("opt",)
    architecture = "OPTForCausalLM"
    base_prefix = "model."
    template = llama_template(
        {"ffn": {"name": "mlp"}, "residual": {"name": "plain"}},
        position={"name": "learned", "offset": 2},
        norm={"name": "layer"},
    )
    keys = (
        Key("vocab_size", "vocab_size", required=True),
        Key("hidden_size", "dim", required=True),
        Key("max_position_embeddings", "context_length", required=True),
        Key("num_hidden_layers", "n_layers", required=True),
        Key("num_attention_heads", "blocks.*.attention.n_heads", required=True),
        Key("ffn_dim", "blocks.*.ffn.hidden_dim", required=True),
        Key("activation_function", "blocks.*.ffn.activation", default="relu", values=ACTIVATIONS),
        Key("enable_bias", "blocks.*.attention.bias", "blocks.*.ffn.bias", default=True),
        Key("dropout", "blocks.*.residual.dropout", default=0.1),
        Key("tie_word_embeddings", "head.tied", default=True),
    )
    ignored_keys = ("init_std",)
    training_keys = ("attention_dropout", "layerdrop")

    embedding_name = "model.decoder.embed_tokens"
    layer_name = "model.decoder.layers.{}"
    norm_name = "model.decoder.final_layer_norm"
    norms: ClassVar = {
        "attention_in": "self_attn_layer_norm",
        "attention_after": "self_attn_layer_norm",
        "ffn_in": "final_layer_norm",
        "ffn_after": "final_layer_norm",
    }
    attention_names: ClassVar = {
        "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "out": "self_attn.out_proj",
    }
    ffn_names: ClassVar = {"up": "fc1", "down": "fc2"}

    def read(self, config: ConfigKeys) -> dict[str, Any]:
        data = super().read(config)
        before, bare, affine = config.get(BEFORE, True), config.get(BARE, False), config.get(AFFINE, True)
        if not affine:
            data["norm"]["affine"] = False
        if not before:
            data["blocks"]["block"]["placement"] = "post"
        if bare or not before:
            data["blocks"]["block"]["norm"], data["norm"] = data["norm"], None
        width = config.get("word_embed_proj_dim")
        if width not in (None, data.get("dim")):
            config.wrong("word_embed_proj_dim", f"no component honours {width!r}, only hidden_size")
        return data

    def write(self, spec: ResolvedSpec) -> dict[str, Any]:
        block = self.by_role(spec)[0]["blocks"]["block"]
        norm = block["attention_in"] or block["attention_after"] or {}
        before = block["attention_in"] is not None
        made = {BEFORE: before, BARE: before and spec.norm is None, AFFINE: norm.get("affine", True)}
        return {**super().write(spec), **made, "word_embed_proj_dim": spec.dim}

    def moves(self, spec: ResolvedSpec) -> Iterable[Move | Either]:
        yield from super().moves(spec)
        yield move("embedding.position.table", "model.decoder.embed_positions")


@hookimpl
def register_components(register: Register) -> None:
    register("opt", OPT)
