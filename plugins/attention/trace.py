"""Keeps what passes through any attention: y = attention(x), and x, y or what lies between in the context's store."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from lamina.core import (
    Attention,
    AttentionWrapper,
    Context,
    LayerState,
    Part,
    Register,
    TraceConfig,
    check_names,
    hookimpl,
    slot,
    watched,
)


class AttentionTraceConfig(TraceConfig):
    wraps: Part = slot("attention", description="The attention that is watched.")


class AttentionTrace(AttentionWrapper):
    """Leaves `trace/LAYER/attention/NAME` in `context.store` of each pass."""

    Config = AttentionTraceConfig
    one_graph: ClassVar[bool] = False  # it hooks into what it watches

    def __init__(self, config: AttentionTraceConfig, layer: int, wraps: Attention) -> None:
        super().__init__(config, wraps)
        check_names(wraps, config.keep)
        self.keep, self.place = config.keep, f"{layer}/attention"

    def forward(self, x: Tensor, context: Context, cache: LayerState | None = None) -> Tensor:
        with watched(self.wraps, self.keep, self.place, context):
            return super().forward(x, context, cache)


@hookimpl
def register_components(register: Register) -> None:
    register("trace", AttentionTrace)
