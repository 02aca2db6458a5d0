"""One layer: an attention and an ffn, with the norms around them and the residuals that join them to the stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from torch import Tensor, nn

from lamina.core.attention import Attention
from lamina.core.cache import LayerState
from lamina.core.context import Context
from lamina.core.ffn import FFN
from lamina.core.norm import Norm
from lamina.core.program import Program, Rows, lowering
from lamina.core.residual import Residual


class Block(nn.Module):
    """Slots are norms or None. `flow` says whether the ffn reads what the attention left, or what it read."""

    def __init__(
        self,
        flow: str,
        attention: Attention | None,
        ffn: FFN | None,
        attention_residual: Residual | None,
        ffn_residual: Residual | None,
        norms: dict[str, Norm | None],
    ) -> None:
        super().__init__()
        self.flow = flow
        self.attention_in = norms["attention_in"]
        self.attention = attention
        self.attention_out = norms["attention_out"]
        self.attention_residual = attention_residual
        self.attention_after = norms["attention_after"]
        self.ffn_in = norms["ffn_in"]
        self.ffn = ffn
        self.ffn_out = norms["ffn_out"]
        self.ffn_residual = ffn_residual
        self.ffn_after = norms["ffn_after"]

    def joined(self) -> Iterator[tuple[Attention | FFN, Residual]]:
        """Each sublayer with the residual that joins it to the stream; in a parallel flow one joins both."""
        for sublayer, residual in (
            (self.attention, self.attention_residual),
            (self.ffn, self.ffn_residual or self.attention_residual),
        ):
            if sublayer is not None and residual is not None:
                yield sublayer, residual

    def forward(
        self, stream: Tensor, context: Context, state: LayerState | None = None, ffn_state: LayerState | None = None
    ) -> Tensor:
        """The stream, (B, T, D) unless the residual keeps several, -> the same shape"""
        kept = () if ffn_state is None else (ffn_state,)  # an ffn without a state knows of none

        def attend(x: Tensor) -> Tensor:
            return through(self.attention_out, cast(Attention, self.attention)(x, context, state))

        def feed(x: Tensor) -> Tensor:
            return through(self.ffn_out, cast(FFN, self.ffn)(x, context, *kept))

        def both(x: Tensor) -> Tensor:
            read = through(self.attention_in, x)
            return attend(read) + feed(read if self.flow == "parallel_shared" else through(self.ffn_in, x))

        if self.flow != "sequential":
            stream = cast(Residual, self.attention_residual)(stream, both)
            return through(self.ffn_after, through(self.attention_after, stream))
        if self.attention_residual is not None:
            stream = self.attention_residual(stream, lambda x: attend(through(self.attention_in, x)))
            stream = through(self.attention_after, stream)
        if self.ffn_residual is not None:
            stream = self.ffn_residual(stream, lambda x: feed(through(self.ffn_in, x)))
            stream = through(self.ffn_after, stream)
        return stream

    def lower(self, program: Program, layer: int) -> None:
        """`forward`, written into a program; `layer` is the one whose cache it is."""
        stream = program.stream

        def normed(norm: Norm | None, x: Rows) -> Rows:
            made: Rows = x if norm is None else lowering(norm)(program, x)
            return made

        def attend(x: Rows) -> Rows:
            return normed(self.attention_out, lowering(self.attention)(program, x, layer))

        def feed(x: Rows) -> Rows:
            return normed(self.ffn_out, lowering(self.ffn)(program, x))

        def both(x: Rows) -> Rows:
            read = normed(self.attention_in, x)
            found = attend(read)
            program.add(found, feed(read if self.flow == "parallel_shared" else normed(self.ffn_in, x)))
            return found

        def after(norm: Norm | None) -> None:
            if norm is not None:
                lowering(norm)(program, stream, out=stream)

        if self.flow != "sequential":
            lowering(self.attention_residual)(program, stream, both)
            after(self.attention_after)
            after(self.ffn_after)
            return
        if self.attention_residual is not None:
            lowering(self.attention_residual)(program, stream, lambda x: attend(normed(self.attention_in, x)))
            after(self.attention_after)
            program.free()
        if self.ffn_residual is not None:
            lowering(self.ffn_residual)(program, stream, lambda x: feed(normed(self.ffn_in, x)))
            after(self.ffn_after)


def through(norm: Norm | None, x: Tensor) -> Tensor:
    return x if norm is None else norm(x)
