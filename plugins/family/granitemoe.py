"""Granite with experts: weights are a softmax over the chosen alone.  IBM 2024, arXiv:2408.13359."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lamina.core import (
    ACTIVATIONS,
    LLAMA_KEYS,
    Either,
    Key,
    LlamaLike,
    Move,
    Part,
    Register,
    Stacked,
    hookimpl,
    llama_template,
    move,
    without,
)


class GraniteMoE(LlamaLike):
    """Granite 3's models with experts."""

    paper = "Shen et al. 2024, arXiv:2408.13359"
    model_types = ("granitemoe",)
    architecture = "GraniteMoeForCausalLM"
    template = llama_template(
        {
            "residual": {"name": "scaled"},
            "ffn": {"name": "moe", "router": {"name": "top_k_softmax"}, "expert": {"name": "gated"}, "shared": None},
        }
    )
    keys = (
        *without(LLAMA_KEYS, "head_dim", "intermediate_size", "hidden_act"),
        Key("attention_bias", "blocks.*.attention.bias", default=False),
        Key("embedding_multiplier", "embedding.scale", default=1.0),
        Key("residual_multiplier", "blocks.*.residual.factor", default=1.0),
        Key("attention_multiplier", "blocks.*.attention.scale", default=1.0),
        Key("logits_scaling", "head.scale", default=1.0, to=lambda n: 1 / n, back=lambda s: 1 / s),
        Key("intermediate_size", "blocks.*.ffn.expert.hidden_dim", default=11008),
        Key("hidden_act", "blocks.*.ffn.expert.activation", default="silu", values=ACTIVATIONS),
        Key("num_local_experts", "blocks.*.ffn.n_experts", default=8),
        Key("num_experts_per_tok", "blocks.*.ffn.router.experts_per_token", default=2),
    )
    ignored_keys = ("output_router_logits",)
    training_keys = ("attention_dropout", "router_aux_loss_coef")

    def ffn_moves(self, at: str, to: str, ffn: Part) -> Iterable[Move | Either]:
        """Experts are stacked, under names that checkpoints have had in two ways."""
        config: Any = ffn.config
        ways = (
            ("router.layer.weight", "input_linear.weight", "output_linear.weight"),
            ("router.weight", "experts.gate_up_proj", "experts.down_proj"),
        )
        moved = []
        for router, up, down in ways:
            below = f"{at}.block_sparse_moe"
            moves = [move(f"{to}.router.linear", f"{below}.{router}", weight="")]
            for ours, theirs in (("gate_up", up), ("down", down)):
                names = [f"{to}.experts.{expert}.{ours}" for expert in range(config.n_experts)]
                moves.append(move(names, f"{below}.{theirs}", Stacked(), weight=""))
            moved.append(tuple(moves))
        yield Either(tuple(moved))


@hookimpl
def register_components(register: Register) -> None:
    register("granitemoe", GraniteMoE)
