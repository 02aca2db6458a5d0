"""What rotary positions share: pairs of channels turned by the token's position, at trained or scaled frequencies."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from lamina.core.component import ComponentConfig, Part, Parts, slot
from lamina.core.context import Context, Span
from lamina.core.errors import ConfigProblem
from lamina.core.position import Position
from lamina.core.program import CannotLower, Program, Turns
from lamina.core.rope_scaling import FixedScaling, RopeScaling, rope_frequencies


class RotaryConfig(ComponentConfig):
    theta: float = Field(10_000.0, gt=0, description="Base of the wavelengths; larger for longer contexts.")
    layout: Literal["half", "interleaved"] = Field("half", description="Which channels form a pair.")
    fraction: float = Field(1.0, gt=0, le=1, description="Share of head_dim, from the front, that is turned.")
    scaling: Part | None = slot("rope_scaling", None, description="Other frequencies, for texts longer than trained.")

    def derive(self, head_dim: int) -> dict[str, Any]:
        width = self.width(head_dim)
        if width < 2 or width % 2:
            raise ConfigProblem(
                "fraction",
                f"channels are turned in pairs, but {self.fraction:g} of head_dim {head_dim} is {width} channels",
                "choose head_dim and fraction so that their product is even",
            )
        return {}

    def width(self, head_dim: int) -> int:
        """Channels of a head that are turned."""
        return int(head_dim * self.fraction + 1e-6)  # 0.3 · 10 is 3 in decimals and a little less in binary


class Rotary(Position):
    """Turns queries and keys by their position.

    Two layouts of the pairs are in use and give different models from the same weights: `half` pairs channel i with
    i + width/2 (Llama, GPT-NeoX), `interleaved` pairs 2i with 2i + 1 (the paper, GPT-J, DeepSeek).
    """

    def __init__(self, config: RotaryConfig, head_dim: int, scaling: RopeScaling | None = None) -> None:
        super().__init__()
        self.width = config.width(head_dim)
        self.partial = self.width < head_dim
        self.interleaved = config.layout == "interleaved"
        self.scaling = scaling or FixedScaling(rope_frequencies(config.theta, self.width))

    @classmethod
    def parts(cls, config: RotaryConfig, head_dim: int) -> Parts:
        scaling = config.scaling.at(theta=config.theta, width=config.width(head_dim)) if config.scaling else None
        return {"scaling": scaling}

    def rotate(self, q: Tensor, k: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        cos, sin = context.once(self, lambda: self._tables(context))
        return self._turn(q, cos, sin), self._turn(k, cos, sin)

    mirrored: ClassVar = ("rotate", "_tables", "_turn")  # the methods that `lower` says

    def lower(self, program: Program) -> Turns:
        return program.once(self, lambda: self._turns(program.room))

    def _turns(self, room: int) -> Turns:
        frequencies, factor = self.scaling.turns(Span.run(0, 1, torch.device("cpu")))
        if not isinstance(self.scaling, FixedScaling) or isinstance(factor, Tensor):
            raise CannotLower("a rope scaling that depends on the text")
        angles = torch.arange(room).unsqueeze(-1) * frequencies  # (L, width/2)
        return Turns(angles.cos() * factor, angles.sin() * factor, self.interleaved)

    def _tables(self, context: Context) -> tuple[Tensor, Tensor]:
        """For this call's tokens: cos, and sin with its sign at that place in the pair; both (1 or B, 1, T, width)."""
        frequencies, factor = self.scaling.turns(context.queries)
        angles = context.queries.positions.unsqueeze(-1) * frequencies  # (1 or B, T, width/2) float32
        cos, sin = angles.cos(), angles.sin()
        if isinstance(factor, Tensor) or factor != 1.0:
            cos, sin = cos * factor, sin * factor
        cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
        return self.join(cos, cos), self.join(-sin, sin)

    def _turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """(B, H, T, head_dim) -> the same: each channel times cos plus its partner times sin, in float32 or wider"""
        front = x[..., : self.width] if self.partial else x
        front = front.to(torch.promote_types(x.dtype, cos.dtype))
        partner = self.join(front[..., 1::2], front[..., ::2]) if self.interleaved else front.roll(self.width // 2, -1)
        turned = partner.mul_(sin).addcmul_(front, cos).to(x.dtype)
        return torch.cat([turned, x[..., self.width :]], -1) if self.partial else turned

    def join(self, first: Tensor, second: Tensor) -> Tensor:
        """The first and the second channels of all pairs (…, width/2), each laid where it belongs: (…, width)"""
        return torch.stack([first, second], -1).flatten(-2) if self.interleaved else torch.cat([first, second], -1)
