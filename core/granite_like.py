"""What IBM's Granite families share: multipliers, and where stacked experts lie."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lamina.core.family import Item, Key
from lamina.core.layout import Either, Move, Stacked, move

GRANITE_KEYS: tuple[Item, ...] = (
    Key("attention_bias", "blocks.*.attention.bias", default=False),
    Key("embedding_multiplier", "embedding.scale", default=1.0),
    Key("residual_multiplier", "blocks.*.residual.factor", default=1.0),
    Key("attention_multiplier", "blocks.*.attention.scale", default=1.0),
    Key("logits_scaling", "head.scale", default=1.0, to=lambda n: 1 / n, back=lambda s: 1 / s),
)


def granite_experts(at: str, to: str, config: Any) -> Iterable[Move | Either]:
    """Of a `moe` with these options, without what is shared: stacked, under names that have been of two kinds."""
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
