"""The norm kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from torch import Tensor

from lamina.core.module import ModuleComponent


class Norm(ModuleComponent, ABC):
    """Rescales the last axis. Built as `cls(config, size)`; one class serves blocks, queries and keys, and latents."""

    kind = "norm"
    told = ("size",)
    keeps_shape = True

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """(..., size) -> (..., size), same dtype"""

    if TYPE_CHECKING:
        __call__ = forward
