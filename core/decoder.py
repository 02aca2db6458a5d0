"""The decoder: embedding, layers, final norm, head. Made from a resolved spec by `build`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lamina.core.attention import Attention
from lamina.core.block import Block, through
from lamina.core.cache import Cache
from lamina.core.context import Context, Span, place_documents
from lamina.core.errors import GenerationError
from lamina.core.module import Embedding, ModuleComponent
from lamina.core.norm import Norm
from lamina.core.position import Position
from lamina.core.product import project
from lamina.core.recompute import run_again_later
from lamina.core.residual import Residual

if TYPE_CHECKING:
    from lamina.core.stepper import Stepper


class InputEmbedding(nn.Module):
    """Token embeddings, scaled, with positions that act there, normed, with dropout in training."""

    def __init__(
        self, vocab_size: int, dim: int, scale: float, position: Position | None, norm: Norm | None, dropout: float
    ) -> None:
        super().__init__()
        self.tokens = Embedding(vocab_size, dim)
        self.scale, self.dropout = scale, dropout
        self.position = position
        self.norm = norm

    def forward(self, token_ids: Tensor, context: Context) -> Tensor:
        """(B, T) int64 -> (B, T, D)"""
        x = self.tokens(token_ids)
        if self.scale != 1.0:
            x = x * self.scale
        if self.position is not None:
            x = self.position.embed(x, context)
        return F.dropout(through(self.norm, x), self.dropout, self.training)


class Head(nn.Module):
    """logits = cap(x · weightᵀ · scale + bias)"""

    def __init__(
        self, vocab_size: int, dim: int, tied_to: nn.Parameter | None, bias: bool, scale: float, softcap: float | None
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, dim)) if tied_to is None else tied_to
        self.bias = nn.Parameter(torch.zeros(vocab_size)) if bias else None
        self.scale, self.softcap = scale, softcap
        self.product: Callable[[Tensor], Tensor] | None = None  # x · weightᵀ + bias another way; set by backends

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., V)"""
        x = x if self.scale == 1.0 else x * self.scale
        logits = project(x, self.weight, self.bias) if self.product is None else self.product(x)
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


class Decoder(nn.Module):
    """Token ids to next-token logits."""

    def __init__(
        self,
        embedding: InputEmbedding,
        layers: list[Block],
        norm: Norm | None,
        head: Head,
        context_length: int,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.recompute = recompute  # in training, keep of a layer its input alone and run it again in the backward pass
        self.embedding = embedding
        self.layers = nn.ModuleList(layers)
        self.norm = norm
        self.head = head
        self.context_length = context_length
        self.vocab_size, self.dim = head.weight.shape
        self.last_context: Context | None = None
        self.stepper: Stepper | None = None  # runs a few tokens faster than the layers do; set by backends
        mixers = [layer.attention for layer in layers if isinstance(layer.attention, Attention)]
        # As `Mask.lookahead`, of all layers.
        self.lookahead = max((mixer.lookahead for mixer in mixers), default=0)

    @property
    def device(self) -> torch.device:
        return self.embedding.tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embedding.tokens.weight.dtype

    def forward(self, token_ids: Tensor, *, document_ids: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """(B, T) int64 -> logits (B, T, V).

        `document_ids` (B, T): tokens see their own document only and positions restart in each; a document ends where
        the id changes. With a `cache` the tokens follow those it has seen, and without ids they go on with the last
        document; the cache moves on past them.
        """
        logits: Tensor = self.head(self.features(token_ids, document_ids=document_ids, cache=cache))
        return logits

    def features(self, token_ids: Tensor, *, document_ids: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """(B, T) int64 -> what the head reads, (B, T, D). Takes what `forward` takes."""
        return self.run(self.context(token_ids, document_ids, cache), cache)

    def context(self, token_ids: Tensor, document_ids: Tensor | None = None, cache: Cache | None = None) -> Context:
        """What the layers are told of one call's tokens."""
        if token_ids.dim() != 2 or token_ids.dtype not in (torch.int64, torch.int32):
            raise ValueError(f"token_ids must be (B, T) integers, not {tuple(token_ids.shape)} {token_ids.dtype}")
        if document_ids is not None and document_ids.shape != token_ids.shape:
            raise ValueError(f"document_ids {tuple(document_ids.shape)} must match token_ids {tuple(token_ids.shape)}")
        batch, length = token_ids.shape
        if cache is not None:
            queries = cache.place(batch, length, document_ids)
            self._check_lookahead(queries)
            return Context(token_ids, queries)
        if document_ids is not None:
            return Context(token_ids, place_documents(document_ids))
        return Context(token_ids, Span.run(0, length, token_ids.device))

    def _check_lookahead(self, queries: Span) -> None:
        """Refuse to go on, from the cache, with a document whose earlier tokens had to see these."""
        if not self.lookahead or queries.positions.is_meta:
            return
        first = queries.positions[:, 0]  # (1 or B,)
        if bool(((first > 0) & (first < self.lookahead)).any()):
            which = "tokens" if self.lookahead == math.inf else f"the first {self.lookahead} tokens of a text"
            raise GenerationError(
                f"a mask lets {which} see those after them, so they cannot come in several calls of a cache",
                hint="give them in one call",
            )

    def run(self, context: Context, cache: Cache | None = None) -> Tensor:
        """The layers, (B, T, D). Leaves losses of the layers in `context.losses`."""
        if cache is not None and self.stepper is not None:
            features = self.stepper(context, cache)
            if features is not None:
                cache.advance(context.token_ids.shape[1])
                return features
        stream = self.embedding(context.token_ids, context)
        ends = self._ends
        if ends is not None:
            stream = ends[0].widen(stream)
        states = cache.layers if cache is not None else [None] * len(self.layers)
        ffn_states = states[len(self.layers) :] or [None] * len(self.layers)
        recompute = self.recompute and self.training and torch.is_grad_enabled() and cache is None
        for layer, state, ffn_state in zip(self.layers, states, ffn_states, strict=False):
            stream = run_again_later(layer, stream, context) if recompute else layer(stream, context, state, ffn_state)
        if ends is not None:
            stream = ends[1].narrow(stream)
        if cache is not None:
            cache.advance(context.token_ids.shape[1])
        return through(self.norm, stream)

    @property
    def _ends(self) -> tuple[Residual, Residual] | None:
        """The first and the last residual, which open and close a stream of several."""
        first = next((r for b in self.blocks for r in (b.attention_residual, b.ffn_residual) if r is not None), None)
        last = next(
            (r for b in reversed(self.blocks) for r in (b.ffn_residual, b.attention_residual) if r is not None), None
        )
        return None if first is None or last is None else (first, last)

    @property
    def reshapes_stream(self) -> bool:
        """Whether a residual keeps a stream of another shape than (B, T, D)."""
        ends = self._ends
        return ends is not None and (
            type(ends[0]).widen is not Residual.widen or type(ends[1]).narrow is not Residual.narrow
        )

    @property
    def blocks(self) -> list[Block]:
        return [layer for layer in self.layers if isinstance(layer, Block)]

    def make_cache(self, batch: int, length: int) -> Cache:
        """Room for `batch` sequences of up to `length` tokens, in the decoder's own dtype and on its device."""
        size = (batch, length, self.dtype, self.device)
        states = [
            layer.attention.make_state(*size) if isinstance(layer.attention, Attention) else None
            for layer in self.blocks
        ]
        ffn_states = [layer.ffn.make_state(*size) if layer.ffn is not None else None for layer in self.blocks]
        # Those of the ffns after those of the attentions, where any ffn keeps something.
        states += ffn_states if any(state is not None for state in ffn_states) else []
        return Cache(states, batch, length, self.device)

    def after_step(self) -> None:
        """Tell every part that the optimizer has taken a step."""
        for module in self.modules():
            if isinstance(module, ModuleComponent):
                module.after_step()

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds: parameters and persistent buffers by name, each once however often it is used."""
        kept = self.state_dict(keep_vars=True)
        seen: set[int] = set()
        found: dict[str, Tensor] = {}
        for name, tensor in kept.items():
            if id(tensor) not in seen:
                seen.add(id(tensor))
                found[name] = tensor
        return found
