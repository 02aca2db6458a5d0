"""MiniMax-01: lightning attention, softmax attention in some layers, experts.  MiniMax 2025, arXiv:2501.08313."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from lamina.core import (
    ACTIVATIONS,
    LLAMA_KEYS,
    ConfigKeys,
    Either,
    Key,
    LlamaLike,
    Move,
    Part,
    Register,
    ResolvedSpec,
    Rope,
    TypedLayers,
    defaults,
    hookimpl,
    in_roles,
    llama_template,
    move,
    only,
    without,
)

SOFTMAX = ("full", "sliding")
LIGHTNING_NAMES = {
    "qkv": "qkv_proj",
    "gate_in": "output_gate",
    "norm": "norm",
    "out": "out_proj",
}


def _factors(kind: str, residual: str, *roles: str) -> tuple[Key, Key]:
    """What multiplies the stream, alpha, and what a sublayer adds to it, beta."""
    alpha, beta = ([f"blocks.{role}.{residual}.{option}" for role in roles] for option in ("stream_factor", "factor"))
    return Key(f"{kind}_alpha_factor", *alpha, default=1), Key(f"{kind}_beta_factor", *beta, default=1)


class MiniMax(TypedLayers):
    """MiniMax-Text-01. A layer norms the stream itself before each sublayer: so the first norm is the embedding's, and
    each other stands after the sublayer before it."""

    paper = "MiniMax 2025, arXiv:2501.08313"
    model_types = ("minimax",)
    architecture = "MiniMaxForCausalLM"
    template = llama_template(
        {
            "placement": "post",
            "norm": {"name": "rms"},
            "residual": {"name": "scaled"},
            "ffn_residual": {"name": "scaled"},
            "ffn": {"name": "moe", "router": {"name": "softmax_top_k"}, "expert": {"name": "gated"}, "shared": None},
        },
        norm=None,
        embedding={"norm": {"name": "rms"}},
        blocks={
            "full": {"attention": {"mask": "causal"}},
            "sliding": {"attention": {"mask": {"name": "sliding"}}},
            "lightning": {
                "attention": {"name": "lightning", "gate": "sigmoid", "norm": {"name": "rms", "eps": 1e-6}},
            },
        },
    )
    keys = (
        *without(
            LLAMA_KEYS, "num_key_value_heads", "intermediate_size", "hidden_act", "rms_norm_eps", "rope_parameters"
        ),
        *in_roles(defaults(only(LLAMA_KEYS, "num_key_value_heads"), num_key_value_heads=8), *SOFTMAX),
        Key("rms_norm_eps", "embedding.norm.eps", "blocks.*.norm.eps", default=1e-5),
        Key("sliding_window", "blocks.sliding.attention.mask.window"),
        *(Rope(role=role, theta=1e6) for role in SOFTMAX),
        *_factors("full_attn", "residual", *SOFTMAX),
        *_factors("linear_attn", "residual", "lightning"),
        *_factors("mlp", "ffn_residual", "*"),
        Key(
            "hidden_act",
            "blocks.*.ffn.expert.activation",
            "blocks.lightning.attention.activation",
            default="silu",
            values=ACTIVATIONS,
        ),
        Key("intermediate_size", "blocks.*.ffn.expert.hidden_dim", required=True),
        Key("num_local_experts", "blocks.*.ffn.n_experts", default=8, older=("num_experts",)),
        Key("num_experts_per_tok", "blocks.*.ffn.router.experts_per_token", default=2),
        Key("router_jitter_noise", "blocks.*.ffn.router.jitter", default=0.0),
    )
    ignored_keys = ("block_size", "output_router_logits")  # block_size: of the kernel
    training_keys = ("attention_dropout", "router_aux_loss_coef")
    # Slopes follow from the number of heads and layers.
    ignored_tensors = (
        *LlamaLike.ignored_tensors,
        *(f"*.self_attn.{name}" for name in ("slope_rate", "query_decay", "key_decay", "diagonal_decay")),
    )
    types: ClassVar = {"full_attention": "full", "linear_attention": "lightning"}
    norms: ClassVar = {"attention_after": "post_attention_layernorm"}
    router_names: ClassVar = {"linear": "block_sparse_moe.gate"}
    expert_names = (
        "block_sparse_moe.experts.{}.w1",
        "block_sparse_moe.experts.{}.w3",
        "block_sparse_moe.experts.{}.w2",
    )

    def default_types(self, config: ConfigKeys, n_layers: int) -> list[str]:
        return [("full_attention", "linear_attention")[layer % 2] for layer in range(n_layers)]

    def roles(self, config: ConfigKeys, n_layers: int) -> list[str]:
        roles, slides = super().roles(config, n_layers), config.get("sliding_window") is not None
        return ["sliding" if slides and role == "full" else role for role in roles]

    def write_roles(self, roles: list[str], config: dict[str, Any]) -> None:
        super().write_roles(["full" if role == "sliding" else role for role in roles], config)

    def moves(self, spec: ResolvedSpec) -> Iterable[Move | Either]:
        yield from super().moves(spec)
        last = spec.layers.n_layers
        entrances = [f"{self.layer_name.format(layer)}.input_layernorm" for layer in range(last)]
        yield move("embedding.norm", entrances[0])
        for layer, after in enumerate([*entrances[1:], self.norm_name]):
            yield move(f"layers.{layer}.ffn_after", after)

    def attention_moves(self, at: str, to: str, attention: Part) -> Iterable[Move | Either]:
        if attention.name != "lightning":
            yield from super().attention_moves(at, to, attention)
            return
        for ours, theirs in LIGHTNING_NAMES.items():
            yield move(f"{to}.{ours}", f"{at}.self_attn.{theirs}")


@hookimpl
def register_components(register: Register) -> None:
    register("minimax", MiniMax)
