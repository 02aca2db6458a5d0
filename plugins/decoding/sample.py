"""Sampling: draw each token from softmax(chain output), by inverting the running sum of probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lamina.core import Decoding, Register, Request, Step, hookimpl, one_by_one

BLOCK = 64  # uniform numbers drawn at a time; fixed, so that a text does not depend on how much was asked for


class Sample(Decoding):
    """Draw each token from the distribution the chain leaves, every row with its own generator."""

    paper = "inverse transform sampling"

    def decode(self, step: Step, request: Request) -> Iterator[Tensor]:
        numbers = uniforms(request.generators, request.token_ids.device)
        return one_by_one(step, request, lambda logits, rows: draw(logits.softmax(-1), next(numbers)[rows]))


def uniforms(generators: Sequence[torch.Generator], device: torch.device) -> Iterator[Tensor]:
    """(B,) numbers in [0, 1) without end, row b's from `generators[b]`."""
    while True:
        # Drawn where the generators live and moved in blocks: the same numbers on every device, no wait per token.
        block = torch.stack([torch.rand(BLOCK, generator=g, device=g.device) for g in generators])
        yield from block.to(device).unbind(1)


def draw(probabilities: Tensor, numbers: Tensor) -> Tensor:
    """(B, V), (B,) -> (B,): the first token at which the running sum of probabilities exceeds the number."""
    total = probabilities.cumsum(-1)  # (B, V)
    # Rounded as it is, the product stays below the last sum for every number torch.rand gives, so some token is chosen.
    target = numbers.unsqueeze(1) * total[:, -1:]
    # The second condition matters where a sum made in parallel is not quite monotone.
    return ((total > target) & (probabilities > 0)).int().argmax(-1)


@hookimpl
def register_components(register: Register) -> None:
    register("sample", Sample)
