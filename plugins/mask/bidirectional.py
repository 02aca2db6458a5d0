"""Bidirectional: every token of a document sees all of it, as in an encoder.  Devlin et al. 2019, arXiv:1810.04805.

For encoders and for comparison. A token has seen the one it would predict, so next-token loss says nothing, generation
is refused, and a cache takes a document in one call.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lamina.core import ALWAYS_DENSE, Mask, Register, hookimpl


class Bidirectional(Mask):
    """Allows everything, later tokens too."""

    paper = "Devlin et al. 2019, arXiv:1810.04805"
    causal = False

    @property
    def pattern(self) -> type[Bidirectional]:
        return Bidirectional

    @property
    def dense_up_to(self) -> float:
        return ALWAYS_DENSE

    def allowed(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        return torch.ones_like(k_positions, dtype=torch.bool)  # (..., 1, S)


@hookimpl
def register_components(register: Register) -> None:
    register("bidirectional", Bidirectional)
