"""Sampling: draw each token from softmax(chain output), by inverting the running sum of probabilities."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from lamina.core import Decoding, Register, Request, Step, draw, hookimpl, one_by_one, uniforms


class Sample(Decoding):
    """Draw each token from the distribution the chain leaves, every row with its own generator."""

    paper = "inverse transform sampling"

    def decode(self, step: Step, request: Request) -> Iterator[Tensor]:
        numbers = uniforms(request.generators, request.token_ids.device)
        return one_by_one(step, request, lambda logits, rows: draw(logits.softmax(-1), next(numbers)[rows]))


@hookimpl
def register_components(register: Register) -> None:
    register("sample", Sample)
