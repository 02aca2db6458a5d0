"""The activation kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from torch import Tensor

from lamina.core.module import ModuleComponent


class Activation(ModuleComponent, ABC):
    """A function of one number, applied to each element."""

    kind = "activation"
    keeps_shape = True

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """(...) -> (...), same dtype"""

    if TYPE_CHECKING:
        __call__ = forward
