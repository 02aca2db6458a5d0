"""GPT-J: parallel sublayers behind one norm, neighbouring channels turned in pairs.  Wang & Komatsuzaki 2021."""

from __future__ import annotations

from typing import Any, ClassVar

from lamina.core import ACTIVATIONS, ConfigKeys, Key, LlamaLike, Register, ResolvedSpec, hookimpl, llama_template


class GPTJ(LlamaLike):
    """GPT-J."""

    paper = "Wang & Komatsuzaki 2021, GPT-J-6B: A 6 Billion Parameter Autoregressive Language Model"
    model_types = ("gptj",)
    architecture = "GPTJForCausalLM"
    base_prefix = "transformer."
    template = llama_template(
        {"placement": "parallel", "ffn": {"name": "mlp", "bias": True}, "residual": {"name": "plain"}},
        position={"name": "rope", "layout": "interleaved"},
        norm={"name": "layer"},
        head={"bias": True},
    )
    keys = (
        Key("vocab_size", "vocab_size", required=True),
        Key("n_embd", "dim", required=True),
        Key("n_positions", "context_length", required=True),
        Key("n_layer", "n_layers", required=True),
        Key("n_head", "blocks.*.attention.n_heads", required=True),
        Key("n_inner", "blocks.*.ffn.hidden_dim"),
        Key("activation_function", "blocks.*.ffn.activation", default="gelu_new", values=ACTIVATIONS),
        Key("layer_norm_epsilon", "norm.eps", default=1e-5),
        Key("embd_pdrop", "embedding.dropout", default=0.0),
        Key("resid_pdrop", "blocks.*.residual.dropout", default=0.0),
        Key("tie_word_embeddings", "head.tied", default=False),
    )
    ignored_keys = (
        "gradient_checkpointing",
        "n_ctx",
        "rotary",
        "scale_attn_weights",
        "summary_activation",
        "summary_first_dropout",
        "summary_proj_to_labels",
        "summary_type",
        "summary_use_proj",
    )
    training_keys = ("attn_pdrop",)
    ignored_tensors = ("*.attn.bias", "*.attn.masked_bias")

    embedding_name = "transformer.wte"
    layer_name = "transformer.h.{}"
    norm_name = "transformer.ln_f"
    norms: ClassVar = {"attention_in": "ln_1"}
    attention_names: ClassVar = {"qkv": ("attn.q_proj", "attn.k_proj", "attn.v_proj"), "out": "attn.out_proj"}
    ffn_names: ClassVar = {"up": "mlp.fc_in", "down": "mlp.fc_out"}

    def read(self, config: ConfigKeys) -> dict[str, Any]:
        data = super().read(config)
        turned, heads, dim = (config.number(key) for key in ("rotary_dim", "n_head", "n_embd"))
        turned = 64 if "rotary_dim" not in config.values else turned
        if turned is not None and heads and dim:
            if not 0 < turned <= dim // heads:
                config.wrong("rotary_dim", f"{turned} of a head's {dim // heads} channels cannot be turned")
            else:
                data["position"]["fraction"] = turned / (dim // heads)
        return data

    def write(self, spec: ResolvedSpec) -> dict[str, Any]:
        config = super().write(spec)
        data = self.by_role(spec)[0]["blocks"]["block"]
        width = (data["attention"] or {}).get("head_dim", 0)
        return {**config, "rotary_dim": round(width * data["position"].get("fraction", 1.0))}


@hookimpl
def register_components(register: Register) -> None:
    register("gptj", GPTJ)
