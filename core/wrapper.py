"""Components around another of their kind: `{name: trace, wraps: {name: gqa, …}}`.

A wrapper stands where the wrapped part would stand, and for its neighbours it is that part: what the part provides,
the sizes its position is built at and its cache state are passed on. A subclass changes what it came to change.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from lamina.core.attention import Attention
from lamina.core.cache import LayerState
from lamina.core.context import Context
from lamina.core.ffn import FFN


class AttentionWrapper(Attention):
    """An attention around another. Its Config has a slot `wraps` of kind attention."""

    def __init__(self, config: Any, wraps: Attention) -> None:
        super().__init__()
        self.wraps = wraps

    @classmethod
    def provides(cls, config: Any) -> frozenset[str]:
        return config.wraps.component.provides(config.wraps.config)  # type: ignore[no-any-return]

    @classmethod
    def position_sizes(cls, config: Any) -> dict[str, int] | None:
        return config.wraps.component.position_sizes(config.wraps.config)  # type: ignore[no-any-return]

    def make_state(self, batch: int, length: int, dtype: torch.dtype, device: torch.device) -> LayerState:
        return self.wraps.make_state(batch, length, dtype, device)

    def carriers(self) -> Iterable[Tensor]:
        return self.wraps.carriers()

    def forward(self, x: Tensor, context: Context, cache: LayerState | None = None) -> Tensor:
        return self.wraps(x, context, cache)


class FFNWrapper(FFN):
    """An ffn around another. Its Config has a slot `wraps` of kind ffn."""

    def __init__(self, config: Any, wraps: FFN) -> None:
        super().__init__()
        self.wraps = wraps

    @classmethod
    def provides(cls, config: Any) -> frozenset[str]:
        return config.wraps.component.provides(config.wraps.config)  # type: ignore[no-any-return]

    def make_state(self, batch: int, length: int, dtype: torch.dtype, device: torch.device) -> LayerState | None:
        return self.wraps.make_state(batch, length, dtype, device)

    def carriers(self) -> Iterable[Tensor]:
        return self.wraps.carriers()

    def forward(self, x: Tensor, context: Context, *cache: LayerState | None) -> Tensor:
        return self.wraps(x, context, *cache)

    def active_parameters(self) -> int:
        own = sum(parameter.numel() for parameter in self.parameters())
        return own - sum(parameter.numel() for parameter in self.wraps.parameters()) + self.wraps.active_parameters()
