"""Activation checkpointing: of a layer its input alone is kept, and the backward pass runs it again.  Chen et al. 2016,
arXiv:1604.06174.

The gradients are those of a layer run once, to the bit: the second run draws the same random numbers, sees what earlier
layers had left at the time, and leaves nothing to later ones. A part that counts or keeps something outside of the
context leaves it be where `context.again` says that the run is a second one.
"""

from __future__ import annotations

from contextlib import nullcontext

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lamina.core.context import Context


def run_again_later(layer: nn.Module, stream: Tensor, context: Context) -> Tensor:
    """`layer(stream, context)`"""
    again = context.rerun()
    # Let go of after the first run: what the layer leaves in it holds the graph, which holds this function.
    first = [context]

    def run(stream: Tensor) -> Tensor:
        with nullcontext(first.pop()) if first else again() as seen:
            out: Tensor = layer(stream, seen)
        return out

    out: Tensor = checkpoint(run, stream, use_reentrant=False)
    return out
