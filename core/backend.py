"""The backend kind: how a decoder is executed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from lamina.core.component import Component

if TYPE_CHECKING:
    from lamina.core.decoder import Decoder


class Backend(Component, ABC):
    """Readies a built decoder, weights in place, for execution. Results stay those of the eager decoder within the
    precision's own error."""

    kind = "backend"

    @abstractmethod
    def prepare(self, decoder: Decoder, *, training: bool) -> Decoder:
        """The decoder to call; may be the one given, changed in place"""
