"""MPT: ALiBi, norms without a shift, no bias, queries, keys and values clipped.  MosaicML 2023, Introducing MPT-7B."""

from __future__ import annotations

from typing import Any, ClassVar

from lamina.core import (
    GGUF,
    Always,
    ConfigKeys,
    Fixed,
    Key,
    LlamaLike,
    MetaKey,
    Register,
    ResolvedSpec,
    Within,
    hookimpl,
    llama_template,
)

RATIO, LOGITS, ROOT = "expansion_ratio", "logit_scale", "inv_sqrt_d_model"


class MPT(LlamaLike):
    """MPT of every size. `alibi_bias_max` and `logit_scale` count, as they did where MPT was trained."""

    paper = "MosaicML 2023, Introducing MPT-7B: A New Standard for Open-Source, Commercially Usable LLMs"
    model_types = ("mpt",)
    architecture = "MptForCausalLM"
    base_prefix = "transformer."
    template = llama_template(
        {"ffn": {"name": "mlp", "activation": "gelu"}, "residual": {"name": "plain"}},
        position={"name": "alibi"},
        norm={"name": "layer", "bias": False},
    )
    keys = (
        Key("vocab_size", "vocab_size", required=True),
        Key("d_model", "dim", required=True, older=("hidden_size",)),
        Key("max_seq_len", "context_length", default=2048),
        Key("n_layers", "n_layers", required=True, older=("num_hidden_layers",)),
        Key("n_heads", "blocks.*.attention.n_heads", required=True, older=("num_attention_heads",)),
        Key("layer_norm_epsilon", "norm.eps", default=1e-5),
        Key("emb_pdrop", "embedding.dropout", default=0.0),
        Key("resid_pdrop", "blocks.*.residual.dropout", default=0.0),
        Key("tie_word_embeddings", "head.tied", default=True),
        Fixed("no_bias", True),
        Fixed("embedding_fraction", 1.0),
        Within(
            "attn_config",
            (
                Key("clip_qkv", "blocks.*.attention.clip"),
                Key("softmax_scale", "blocks.*.attention.scale"),
                Key("alibi_bias_max", "position.max_bias", "blocks.*.position.max_bias", default=8, back=float),
                Fixed("attn_type", "multihead_attention"),
                Fixed("prefix_lm", False),
                Fixed("qk_ln", False),
                Fixed("alibi", True),
            ),
            ignored=("attn_impl", "attn_pdrop", "attn_uses_sequence_id"),
        ),
    )
    gguf = GGUF(
        "mpt",
        (
            MetaKey("context_length", "max_seq_len"),
            MetaKey("embedding_length", "d_model"),
            MetaKey("block_count", "n_layers"),
            Always("feed_forward_length", lambda config: round(config.get(RATIO, 4) * config["d_model"])),
            MetaKey("attention.head_count", "n_heads"),
            MetaKey("attention.layer_norm_epsilon", "layer_norm_epsilon", float),
            MetaKey("attention.clamp_kqv", "attn_config.clip_qkv", float),
            MetaKey("attention.max_alibi_bias", "attn_config.alibi_bias_max", float, to=int),
        ),
    )
    # With ALiBi there are no learned positions, whatever learned_pos_emb says. The rest is about devices, precision
    # and how weights started.
    ignored_keys = (
        "init_config",
        "init_device",
        "learned_pos_emb",
        "norm_type",
        "verbose",
    )

    embedding_name = "transformer.wte"
    layer_name = "transformer.blocks.{}"
    norm_name = "transformer.norm_f"
    norms: ClassVar = {"attention_in": "norm_1", "ffn_in": "norm_2"}
    attention_names: ClassVar = {"qkv": "attn.Wqkv", "out": "attn.out_proj"}
    ffn_names: ClassVar = {"up": "ffn.up_proj", "down": "ffn.down_proj"}

    def read(self, config: ConfigKeys) -> dict[str, Any]:
        data = super().read(config)
        ratio, dim, scale = config.number(RATIO, 4), data.get("dim"), config.get(LOGITS)
        if isinstance(dim, int) and ratio is not None:
            data["blocks"]["block"]["ffn"]["hidden_dim"] = round(ratio * dim)
        if scale == ROOT and isinstance(dim, int):
            data["head"]["scale"] = dim**-0.5
        elif scale is not None:
            data["head"]["scale"] = config.number(LOGITS)
        return data

    def write(self, spec: ResolvedSpec) -> dict[str, Any]:
        config = super().write(spec)
        hidden = (self.by_role(spec)[0]["blocks"]["block"]["ffn"] or {}).get("hidden_dim", 4 * spec.dim)
        config[RATIO] = hidden // spec.dim if hidden % spec.dim == 0 else hidden / spec.dim
        config[LOGITS] = None if spec.head.scale == 1.0 else spec.head.scale
        return config


@hookimpl
def register_components(register: Register) -> None:
    register("mpt", MPT)
