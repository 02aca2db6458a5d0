"""The position kind: how a token's place reaches the decoder. A scheme overrides the hooks it needs.

Four places, four hooks: the embeddings (learned, sinusoidal), queries and keys before they are kept (rope), queries and
all the keys they meet (xPos), the scores (ALiBi).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lamina.core.context import Context, Span
from lamina.core.module import ModuleComponent
from lamina.core.softmax_attention import Bias

HOOKS = {"embed": "embeddings", "rotate": "queries_keys", "meet": "visible_keys", "bias": "scores"}


class Position(ModuleComponent):
    """The default of every hook is to do nothing.

    One instance serves all layers whose options and sizes agree, so what it works out per pass it works out once
    (see `Context.once`).
    """

    kind = "position"
    told = ("dim", "head_dim", "n_heads", "context_length")

    @classmethod
    def acts_at(cls) -> frozenset[str]:
        """The places whose hooks this class overrides: embeddings, queries_keys, visible_keys, scores."""
        return frozenset(place for hook, place in HOOKS.items() if getattr(cls, hook) is not getattr(Position, hook))

    @classmethod
    def shared(cls, config: Any) -> bool:
        """One instance for all layers alike (True), or one for each layer (False)."""
        return True

    @classmethod
    def requires(cls, config: Any) -> dict[str, frozenset[str]]:
        return {"attention": cls.acts_at() - {"embeddings"}}

    def embed(self, x: Tensor, context: Context) -> Tensor:
        """Token embeddings (B, T, D) -> (B, T, D)"""
        return x

    def rotate(self, q: Tensor, k: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Queries (B, H, T, head_dim) and keys (B, K, T, head_dim) of this call -> the same shapes.

        What becomes of the keys is kept: it must follow from the place of each token alone.
        """
        return q, k

    def meet(self, q: Tensor, k: Tensor, queries: Span, keys: Span) -> tuple[Tensor, Tensor]:
        """Queries (B, H, T, head_dim) and every visible key (B, K, S, head_dim) -> the same shapes; nothing is kept.

        For what depends on the queries too, and would be wrong of a kept key in the next call.
        """
        return q, k

    def bias(self, q: Tensor, queries: Span, keys: Span) -> Bias | None:
        """Queries (B, H, T, head_dim) and the spans of queries and keys -> (B or 1, H, T, S), added to the scores.

        Or a function from `Scores` to that, where it takes the scores themselves, their scale, or which keys are
        visible. An attention hands what it is given to `attend` as it is.
        """
        return None
