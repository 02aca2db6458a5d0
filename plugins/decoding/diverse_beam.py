"""Diverse beam search: groups of beams; group g sorts by Σ log p(y) − λ · (times the groups before it just chose y_t).

Vijayakumar et al. 2016, arXiv:1610.02424, with Hamming diversity.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor

from lamina.core import (
    ComponentConfig,
    ConfigProblem,
    Decoding,
    Register,
    Request,
    Step,
    hookimpl,
    row_by_row,
    search_beams,
)


class DiverseBeamConfig(ComponentConfig):
    n_beams: int = Field(6, ge=1, description="How many continuations are followed at a time, of all groups.")
    n_groups: int = Field(3, ge=1, description="Groups the beams are split into evenly.")
    diversity_penalty: float = Field(
        0.5, ge=0, le=100, description="λ: what a token costs for each beam of an earlier group that just chose it."
    )
    length_penalty: float = Field(
        1.0, ge=0, le=10, description="α: 0 favours short texts, 1 compares the mean per token."
    )

    def derive(self) -> dict[str, object]:
        if self.n_beams % self.n_groups:
            message = f"n_beams ({self.n_beams}) must be a multiple of n_groups ({self.n_groups})"
            raise ConfigProblem("n_beams", message, f"use {self.n_groups * (self.n_beams // self.n_groups + 1)}")
        return {}


class DiverseBeam(Decoding):
    """Follow groups of beams that keep out of each other's way, and give the best text any of them found.

    The penalty steers what is followed; texts are compared by their own log-probabilities.
    """

    Config = DiverseBeamConfig
    paper = "Vijayakumar et al. 2016, arXiv:1610.02424"

    def __init__(self, config: DiverseBeamConfig) -> None:
        self.config = config

    def decode(self, step: Step, request: Request) -> Iterator[Tensor]:
        config = self.config
        widths = [config.n_beams // config.n_groups] * config.n_groups
        return row_by_row(
            request,
            lambda row: [search_beams(step, request, row, widths, config.length_penalty, self._penalise)],
        )

    def _penalise(self, scores: Tensor, chosen: Tensor) -> Tensor:
        """(n, V), (m,) -> (n, V)"""
        counts = torch.bincount(chosen, minlength=scores.shape[1])  # (V,)
        return scores - self.config.diversity_penalty * counts


@hookimpl
def register_components(register: Register) -> None:
    register("diverse_beam", DiverseBeam)
