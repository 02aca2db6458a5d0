"""Beam search: keep the `n_beams` most likely continuations, score(y) = Σ log p(y_t) / |y|^α.

Sutskever et al. 2014, arXiv:1409.3215; length penalty in the manner of Wu et al. 2016, arXiv:1609.08144.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field
from torch import Tensor

from lamina.core import ComponentConfig, Decoding, Register, Request, Step, hookimpl, row_by_row, search_beams


class BeamConfig(ComponentConfig):
    n_beams: int = Field(4, ge=1, description="How many continuations are followed at a time.")
    length_penalty: float = Field(
        1.0, ge=0, le=10, description="α: 0 favours short texts, 1 compares the mean per token."
    )


class Beam(Decoding):
    """Follow the best continuations side by side and give the best one at the end.

    A continuation that meets a stop token leaves the beam, which goes on narrower, so one beam is greedy decoding.
    """

    Config = BeamConfig
    paper = "Sutskever et al. 2014, arXiv:1409.3215"

    def __init__(self, config: BeamConfig) -> None:
        self.n_beams, self.alpha = config.n_beams, config.length_penalty

    def decode(self, step: Step, request: Request) -> Iterator[Tensor]:
        # One prompt at a time: the beams fill the batch, and no prompt waits for another.
        return row_by_row(request, lambda row: [search_beams(step, request, row, [self.n_beams], self.alpha)])


@hookimpl
def register_components(register: Register) -> None:
    register("beam", Beam)
