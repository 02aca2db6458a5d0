"""Falcon: parallel sublayers behind one norm (7B) or two (40B); RefinedWeb's in turn, with ALiBi.  arXiv:2311.16867."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from lamina.core import (
    ACTIVATIONS,
    GGUF,
    BlockConfig,
    ConfigKeys,
    Either,
    Inverse,
    Key,
    LlamaLike,
    Means,
    MetaKey,
    Move,
    Present,
    Register,
    ResolvedSpec,
    Rope,
    RopeMeta,
    Woven,
    hookimpl,
    llama_template,
    move,
)


def _woven(config: Mapping[str, Any]) -> Woven:
    """Rows of queries, keys and values by group, where a GGUF has all queries first."""
    heads, groups = config["num_attention_heads"], config["num_kv_heads"]
    head_dim = config["hidden_size"] // heads
    return Woven(groups, (heads // groups * head_dim, head_dim, head_dim))


class Falcon(LlamaLike):
    """Falcon 7B, 40B and 180B, and Falcon-RW.

    The slopes of ALiBi are divided by the root of a head's width, as where Falcon-RW was trained; transformers rounds
    them to bfloat16 besides, and adds them twice in its eager attention.
    """

    paper = "Almazrouei et al. 2023, arXiv:2311.16867; Penedo et al. 2023, arXiv:2306.01116"
    model_types = ("falcon",)
    architecture = "FalconForCausalLM"
    base_prefix = "transformer."
    template = llama_template({"ffn": {"name": "mlp"}, "residual": {"name": "plain"}}, norm={"name": "layer"})
    keys = (
        Key("vocab_size", "vocab_size", required=True),
        Key("hidden_size", "dim", required=True, older=("n_embed",)),
        Key("max_position_embeddings", "context_length", default=2048),
        Key("num_hidden_layers", "n_layers", required=True),
        Key("num_attention_heads", "blocks.*.attention.n_heads", required=True),
        Key("ffn_hidden_size", "blocks.*.ffn.hidden_dim"),
        Key("activation", "blocks.*.ffn.activation", default="gelu", values=ACTIVATIONS),
        Key("bias", "blocks.*.attention.bias", "blocks.*.ffn.bias", default=False),
        Key("layer_norm_epsilon", "norm.eps", default=1e-5),
        Key("hidden_dropout", "blocks.*.residual.dropout", default=0.0),
        Key("tie_word_embeddings", "head.tied", default=True),
        Rope(),
    )
    gguf = GGUF(
        "falcon",
        (
            MetaKey("context_length", "max_position_embeddings"),
            MetaKey("embedding_length", "hidden_size"),
            MetaKey("block_count", "num_hidden_layers"),
            MetaKey("feed_forward_length", "ffn_hidden_size"),
            MetaKey("attention.head_count", "num_attention_heads"),
            MetaKey("attention.head_count_kv", "num_kv_heads", default=1),
            MetaKey("attention.layer_norm_epsilon", "layer_norm_epsilon", float),
            RopeMeta(),
            Means("new_decoder_architecture", lambda config: config["num_kv_heads"] != 1),
            Present("num_ln_in_parallel_attn", "blk.0.attn_norm_2.weight", 2, 1),
        ),
        {"attn_qkv": lambda config: Inverse(_woven(config))},
        {
            "transformer.h.{}.ln_attn": "blk.{}.attn_norm_2",
            "transformer.h.{}.ln_mlp": "blk.{}.attn_norm",
            "transformer.h.{}.input_layernorm": "blk.{}.attn_norm",
        },
    )

    embedding_name = "transformer.word_embeddings"
    layer_name = "transformer.h.{}"
    norm_name = "transformer.ln_f"
    norms: ClassVar = {}
    attention_names: ClassVar = {"qkv": "self_attention.query_key_value", "out": "self_attention.dense"}
    qkv_weave = True
    ffn_names: ClassVar = {"up": "mlp.dense_h_to_4h", "down": "mlp.dense_4h_to_h"}

    def read(self, config: ConfigKeys) -> dict[str, Any]:
        data = super().read(config)
        block: dict[str, Any] = data["blocks"]["block"]
        heads: Any = block["attention"].get("n_heads")
        newer, parallel = config.get("new_decoder_architecture", False), config.get("parallel_attn", True)
        norms, kv_heads = config.get("num_ln_in_parallel_attn"), config.get("num_kv_heads")
        multi_query = config.get("multi_query", True)
        two = newer and norms in (None, 2)
        if newer and not parallel:
            config.wrong("parallel_attn", "no component honours false beside new_decoder_architecture")
        if norms not in ((None, 1, 2) if newer else (None, 1)):
            config.wrong("num_ln_in_parallel_attn", f"no component honours {norms!r}")
        block["placement"] = "parallel_two" if two else "parallel" if parallel else "pre"
        block["attention"]["n_kv_heads"] = (heads if kv_heads is None else kv_heads) if newer else 1
        if not newer and not multi_query:
            block["attention"]["n_kv_heads"] = heads
        if config.get("alibi", False):
            width = data["dim"] // heads if isinstance(heads, int) and heads > 0 and data.get("dim") else 1
            data["position"] = {"name": "alibi", "scale": width**-0.5}
        return data

    def write(self, spec: ResolvedSpec) -> dict[str, Any]:
        config = super().write(spec)
        block = self.by_role(spec)[0]["blocks"]["block"]
        attention, flow = block["attention"] or {}, block["flow"]
        heads, kv_heads = attention.get("n_heads"), attention.get("n_kv_heads")
        newer = flow == "parallel" or (flow == "parallel_shared" and kv_heads not in (1, heads))
        made = {
            "alibi": block["position"]["name"] == "alibi",
            "new_decoder_architecture": newer,
            "parallel_attn": flow != "sequential",
            "multi_query": kv_heads == 1,
            "num_kv_heads": kv_heads,
            "num_ln_in_parallel_attn": (2 if flow == "parallel" else 1) if newer else None,
        }
        return {**config, **made}

    def layer_moves(self, at: str, to: str, block: BlockConfig) -> list[Move | Either]:
        two = block.flow == "parallel"
        names = ("ln_attn", "ln_mlp") if two else ("input_layernorm", "post_attention_layernorm")
        norms = [
            move(f"{to}.{slot}", f"{at}.{name}") for slot, name in zip(("attention_in", "ffn_in"), names, strict=True)
        ]
        return [*norms, *super().layer_moves(at, to, block)]


@hookimpl
def register_components(register: Register) -> None:
    register("falcon", Falcon)
