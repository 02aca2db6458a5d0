"""No position: the causal mask alone tells tokens apart.  Kazemnejad et al. 2023, arXiv:2305.19466."""

from __future__ import annotations

from lamina.core import Position, Register, hookimpl


class NoPosition(Position):
    """NoPE: acts nowhere."""

    paper = "Kazemnejad et al. 2023, arXiv:2305.19466"


@hookimpl
def register_components(register: Register) -> None:
    register("none", NoPosition)
