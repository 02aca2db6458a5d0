"""Keeps what passes through any ffn: y = ffn(x), and x, y or what lies between in the context's store."""

from __future__ import annotations

from torch import Tensor

from lamina.core import (
    FFN,
    Context,
    FFNWrapper,
    LayerState,
    Part,
    Register,
    TraceConfig,
    check_names,
    hookimpl,
    slot,
    watched,
)


class FFNTraceConfig(TraceConfig):
    wraps: Part = slot("ffn", description="The ffn that is watched.")


class FFNTrace(FFNWrapper):
    """Leaves `trace/LAYER/ffn/NAME` in `context.store` of each pass."""

    Config = FFNTraceConfig

    def __init__(self, config: FFNTraceConfig, layer: int, wraps: FFN) -> None:
        super().__init__(config, wraps)
        check_names(wraps, config.keep)
        self.keep, self.place = config.keep, f"{layer}/ffn"

    def forward(self, x: Tensor, context: Context, *cache: LayerState | None) -> Tensor:
        with watched(self.wraps, self.keep, self.place, context):
            return super().forward(x, context, *cache)


@hookimpl
def register_components(register: Register) -> None:
    register("trace", FFNTrace)
