"""GPT-Neo: GPT-2 with windows in every other layer and scores that nothing divides.  Black et al. 2021, GPT-Neo."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from lamina.core import (
    ACTIVATIONS,
    FULL_OR_SLIDING,
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

TYPES = {"global": "full", "local": "sliding"}


class GPTNeo(LlamaLike):
    """GPT-Neo of every size."""

    paper = "Black et al. 2021, GPT-Neo: Large Scale Autoregressive Language Modeling with Mesh-Tensorflow"
    model_types = ("gpt_neo",)
    architecture = "GPTNeoForCausalLM"
    base_prefix = "transformer."
    template = llama_template(
        {
            "attention": {"out_bias": True, "scale": 1.0},
            "ffn": {"name": "mlp", "bias": True},
            "residual": {"name": "plain"},
        },
        position={"name": "learned"},
        norm={"name": "layer"},
        blocks=FULL_OR_SLIDING,
    )
    keys = (
        Key("vocab_size", "vocab_size", required=True),
        Key("hidden_size", "dim", required=True),
        Key("max_position_embeddings", "context_length", required=True),
        Key("num_layers", "n_layers", required=True),
        Key("num_heads", "blocks.*.attention.n_heads", required=True),
        Key("window_size", "blocks.sliding.attention.mask.window", default=256),
        Key("intermediate_size", "blocks.*.ffn.hidden_dim"),
        Key("activation_function", "blocks.*.ffn.activation", default="gelu_new", values=ACTIVATIONS),
        Key("layer_norm_epsilon", "norm.eps", default=1e-5),
        Key("embed_dropout", "embedding.dropout", default=0.0),
        Key("resid_dropout", "blocks.*.residual.dropout", default=0.0),
        Key("tie_word_embeddings", "head.tied", default=True),
    )
    # The summary and the classifier are other heads.
    ignored_keys = (
        "classifier_dropout",
        "gradient_checkpointing",
        "summary_activation",
        "summary_first_dropout",
        "summary_proj_to_labels",
        "summary_type",
        "summary_use_proj",
    )
    ignored_tensors = ("*.attn.attention.bias", "*.attn.attention.masked_bias")

    embedding_name = "transformer.wte"
    layer_name = "transformer.h.{}"
    norm_name = "transformer.ln_f"
    norms: ClassVar = {"attention_in": "ln_1", "ffn_in": "ln_2"}
    attention_names: ClassVar = {
        "qkv": ("attn.attention.q_proj", "attn.attention.k_proj", "attn.attention.v_proj"),
        "out": "attn.attention.out_proj",
    }
    ffn_names: ClassVar = {"up": "mlp.c_fc", "down": "mlp.c_proj"}

    def roles(self, config: ConfigKeys, n_layers: int) -> list[str]:
        given = config.get("attention_types") or [[["global", "local"], 12]]
        config.get("attention_layers")  # the same, said layer by layer
        try:
            names = [str(name) for kinds, times in given for _ in range(min(times, n_layers)) for name in kinds]
        except (TypeError, ValueError):
            config.wrong("attention_types", f"{given!r} is no list of [[kinds of layer], times]")
            names = ["global"] * n_layers
        if len(names) != n_layers:
            config.wrong("attention_types", f"tells of {len(names)} layers, and there are {n_layers}")
        if unknown := [name for name in names if name not in TYPES]:
            config.wrong("attention_types", f"no component honours {unknown[0]!r}; known: {', '.join(TYPES)}")
        return [TYPES.get(name, "full") for name in (names + ["global"] * n_layers)[:n_layers]]

    def write_roles(self, roles: list[str], config: dict[str, Any]) -> None:
        names = {role: name for name, role in TYPES.items()}
        config["attention_types"] = [[[names[role]], 1] for role in roles]

    def moves(self, spec: ResolvedSpec) -> Iterable[Move | Either]:
        yield from super().moves(spec)
        yield move("embedding.position.table", "transformer.wpe")


@hookimpl
def register_components(register: Register) -> None:
    register("gpt_neo", GPTNeo)
