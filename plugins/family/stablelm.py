"""StableLM: Llama with LayerNorm, a part of each head turned, and norms of each head of its own.  arXiv:2402.17834."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from lamina.core import (
    GGUF,
    LAYER_NORM_META,
    LLAMA_KEYS,
    SIZES_META,
    ConfigKeys,
    Either,
    EvenHeads,
    Joined,
    Key,
    LlamaLike,
    Means,
    MetaKey,
    Move,
    Part,
    Present,
    Register,
    ResolvedSpec,
    Rope,
    RopeMeta,
    hookimpl,
    llama_template,
    move,
    without,
)

PARALLEL, NORMED = "use_parallel_residual", "qk_layernorm"


class StableLM(LlamaLike):
    """StableLM 3B, StableLM 2 1.6B and 12B."""

    paper = "Bellagente et al. 2024, arXiv:2402.17834"
    model_types = ("stablelm",)
    architecture = "StableLmForCausalLM"
    template = llama_template({"attention": {"out_bias": False}}, norm={"name": "layer"})
    keys = (
        *without(LLAMA_KEYS, "rope_parameters", "rms_norm_eps", "head_dim"),
        Key("layer_norm_eps", "norm.eps", default=1e-5),
        Key("use_qkv_bias", "blocks.*.attention.bias", default=False),
        Rope(partial=True, fraction=0.25, fraction_keys=("rope_pct", "partial_rotary_factor")),
    )
    gguf = GGUF(
        "stablelm",
        (
            *SIZES_META,
            EvenHeads(),
            LAYER_NORM_META,
            RopeMeta(),
            MetaKey("use_parallel_residual", "use_parallel_residual", bool),
            Present("use_qkv_bias", "blk.0.attn_q.bias"),
            Present("qk_layernorm", "blk.0.attn_q_norm.weight"),
            Means("tie_word_embeddings", False),
        ),
        names={f"model.layers.{{}}.self_attn.{one}_layernorm.norms": f"blk.{{}}.attn_{one}_norm" for one in "qk"},
    )
    training_keys = ("attention_dropout", "hidden_dropout")  # the latter on the ffn alone
    attention_names: ClassVar = {
        "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "out": "self_attn.o_proj",
    }

    def read(self, config: ConfigKeys) -> dict[str, Any]:
        data = super().read(config)
        block: dict[str, Any] = data["blocks"]["block"]
        block["placement"] = "parallel" if config.get(PARALLEL, False) else "pre"
        heads, dim = block["attention"].get("n_heads"), data.get("dim")
        if config.get(NORMED, False) and isinstance(heads, int) and isinstance(dim, int) and 0 < heads <= dim:
            norm = {"name": "group", "group_size": dim // heads, "centre": True, "eps": data["norm"].get("eps")}
            block["attention"] |= {"qk_norm": norm, "qk_norm_over": "all"}
        return data

    def write(self, spec: ResolvedSpec) -> dict[str, Any]:
        block = self.by_role(spec)[0]["blocks"]["block"]
        normed = (block["attention"] or {}).get("qk_norm") is not None
        return {**super().write(spec), PARALLEL: block["flow"] != "sequential", NORMED: normed}

    def attention_moves(self, at: str, to: str, attention: Part) -> Iterable[Move | Either]:
        config: Any = attention.config
        yield from super().attention_moves(at, to, attention)
        for which, heads in (("q", config.n_heads), ("k", config.n_kv_heads)):
            names = [f"{at}.self_attn.{which}_layernorm.norms.{head}" for head in range(heads)]
            yield move(f"{to}.{which}_norm", names, Joined((config.head_dim,) * heads))


@hookimpl
def register_components(register: Register) -> None:
    register("stablelm", StableLM)
