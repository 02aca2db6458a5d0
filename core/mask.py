"""The mask kind: which keys a query may see, by position. `visible` adds causality and documents."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import ClassVar

from torch import Tensor

from lamina.core.component import Component


class Mask(Component, ABC):
    """A pattern over positions. Every token must be allowed to see itself."""

    kind = "mask"
    causal: ClassVar[bool] = True  # the core also requires k_position <= q_position

    @abstractmethod
    def allowed(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        """(..., T, 1) and (..., 1, S) int64 -> bool that broadcasts to (..., T, S)"""

    @property
    def pattern(self) -> Hashable:
        """Masks of equal pattern allow the same: it is worked out once for all their layers."""
        return self

    @property
    def reach(self) -> int | None:
        """A query sees no key further back than the last `reach` tokens, itself among them; None when unbounded.

        A cache keeps no more than this.
        """
        return None

    @property
    def fills_reach(self) -> bool:
        """Whether a query sees every one of the last `reach` tokens, wherever it stands."""
        return False

    @property
    def dense_up_to(self) -> float:
        """In a text of up to this many tokens the pattern allows all that causality allows."""
        return 0

    @property
    def lookahead(self) -> float:
        """Later tokens are seen among the first `lookahead` tokens of a document and nowhere else; 0 when never.

        A cache must be given those in one call, and no text can be generated among them.
        """
        return 0 if self.causal else math.inf

    @classmethod
    def requires(cls, config: object) -> dict[str, frozenset[str]]:
        return {"attention": frozenset({"mask"})}


ALWAYS_DENSE = math.inf
