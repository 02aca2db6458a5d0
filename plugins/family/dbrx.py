"""DBRX: sixteen experts of which each token takes four, queries, keys and values clipped.  Databricks 2024."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from lamina.core import (
    ACTIVATIONS,
    Chain,
    ConfigKeys,
    Each,
    Fixed,
    Inverse,
    Joined,
    Key,
    LlamaLike,
    Move,
    Part,
    Register,
    ResolvedSpec,
    Rope,
    Transposed,
    Within,
    Woven,
    hookimpl,
    llama_template,
    move,
)

NORM, FFN, ATTENTION, THETA = "moe_normalize_expert_weights", "ffn_config", "attn_config", "rope_theta"


class Dbrx(LlamaLike):
    """DBRX. The `rope_theta` of its `attn_config` counts, as it did where DBRX was trained, unless the whole config
    has one or `rope_parameters`."""

    paper = "Databricks 2024, Introducing DBRX: A New State-of-the-Art Open LLM"
    model_types = ("dbrx",)
    architecture = "DbrxForCausalLM"
    base_prefix = "transformer."
    template = llama_template(
        {
            "ffn": {"name": "moe", "router": {"name": "softmax_top_k"}, "expert": {"name": "gated"}, "shared": None},
            "residual": {"name": "plain"},
        },
        norm={"name": "layer", "bias": False, "eps": 1e-5},
        head={"tied": False},
    )
    keys = (
        Key("vocab_size", "vocab_size", default=32000),
        Key("d_model", "dim", default=2048, older=("hidden_size",)),
        Key("max_seq_len", "context_length", default=2048, older=("max_position_embeddings",)),
        Key("n_layers", "n_layers", default=24, older=("num_hidden_layers",)),
        Key("n_heads", "blocks.*.attention.n_heads", default=16, older=("num_attention_heads",)),
        Key("emb_pdrop", "embedding.dropout", default=0.0),
        Key("resid_pdrop", "blocks.*.residual.dropout", default=0.0),
        Fixed("tie_word_embeddings", False),
        Within(
            ATTENTION,
            (
                Key("clip_qkv", "blocks.*.attention.clip"),
                Key("kv_n_heads", "blocks.*.attention.n_kv_heads", default=1),
            ),
            ignored=("attn_pdrop", THETA),
            required=True,
        ),
        Within(
            FFN,
            (
                Within(
                    "ffn_act_fn", (Key("name", "blocks.*.ffn.expert.activation", default="silu", values=ACTIVATIONS),)
                ),
                Key("ffn_hidden_size", "blocks.*.ffn.expert.hidden_dim", default=3584),
                Key("moe_num_experts", "blocks.*.ffn.n_experts", default=4),
                Key("moe_top_k", "blocks.*.ffn.router.experts_per_token", default=1),
                Key("moe_jitter_eps", "blocks.*.ffn.router.jitter"),
                Key(NORM, "blocks.*.ffn.router.norm_order", default=1.0),
            ),
            ignored=("hidden_size", "moe_loss_weight"),
            required=True,
        ),
        Rope(),
    )
    ignored_keys = ("num_key_value_heads", "output_router_logits")
    training_keys = ("router_aux_loss_coef",)

    embedding_name = "transformer.wte"
    layer_name = "transformer.blocks.{}"
    norm_name = "transformer.norm_f"
    norms: ClassVar = {"attention_in": "norm_attn_norm.norm_1", "ffn_in": "norm_attn_norm.norm_2"}
    attention_names: ClassVar = {"qkv": "norm_attn_norm.attn.Wqkv", "out": "norm_attn_norm.attn.out_proj"}

    def read(self, config: ConfigKeys) -> dict[str, Any]:
        attention, ffn = (found if isinstance(found := config.get(key), dict) else {} for key in (ATTENTION, FFN))
        if THETA in attention and not config.get("rope_parameters"):
            config.values.setdefault(THETA, attention[THETA])
        data = super().read(config)
        if ffn.get(NORM, 1.0) is None:
            data["blocks"]["block"]["ffn"]["router"]["renormalise"] = False
        return data

    def write(self, spec: ResolvedSpec) -> dict[str, Any]:
        config = super().write(spec)
        data = self.by_role(spec)[0]["blocks"]["block"]
        if not (data["ffn"] or {}).get("router", {}).get("renormalise", True):
            config[FFN][NORM] = None
        config[ATTENTION][THETA] = config.get("rope_parameters", {}).get(THETA, 10_000.0)
        return config

    def ffn_moves(self, at: str, to: str, ffn: Part) -> Iterable[Move]:
        """Experts lie below one another, gates, ups and downs each in a matrix; downs are kept (in, out)."""
        config: Any = ffn.config
        yield move(f"{to}.router.linear", f"{at}.ffn.router.layer")
        count, width = config.n_experts, config.expert.config.hidden_dim
        mlp = f"{at}.ffn.experts.mlp"
        gate_up = Chain(
            Joined((count * width,) * 2), Inverse(Woven(count, (width,) * 2)), Inverse(Joined((2 * width,) * count))
        )
        down = Chain(Inverse(Joined((width,) * count)), Each(Transposed()))
        names = [f"{to}.experts.{expert}" for expert in range(count)]
        yield move([f"{name}.gate_up" for name in names], (f"{mlp}.w1", f"{mlp}.v1"), gate_up, weight="")
        yield move([f"{name}.down" for name in names], f"{mlp}.w2", down, weight="")


@hookimpl
def register_components(register: Register) -> None:
    register("dbrx", Dbrx)
