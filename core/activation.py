"""The activation kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from lamina.core.module import ModuleComponent


class Activation(ModuleComponent, ABC):
    """A function of one number, applied to each element."""

    kind = "activation"
    keeps_shape = True
    zero_at_zero: ClassVar[bool] = True  # what is zero stays zero

    @classmethod
    def provides(cls, config: Any) -> frozenset[str]:
        return frozenset({"zero_at_zero"} if cls.zero_at_zero else ())

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """(...) -> (...), same dtype"""

    if TYPE_CHECKING:
        __call__ = forward
