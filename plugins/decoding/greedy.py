"""Greedy decoding: every token is the argmax of the chain's output."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from lamina.core import Decoding, Register, Request, Step, hookimpl, one_by_one


class Greedy(Decoding):
    """Take the most likely token each time, the lowest id where several tie."""

    paper = "argmax"

    def decode(self, step: Step, request: Request) -> Iterator[Tensor]:
        return one_by_one(step, request, lambda logits, rows: logits.argmax(-1))


@hookimpl
def register_components(register: Register) -> None:
    register("greedy", Greedy)
