"""The stream in float32 against a sum that float32 keeps and bfloat16 does not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_specs import REGISTRY
from torch.testing import assert_close

from lamina.core import SpecError
from lamina.core.build import build
from lamina.core.decoder import Decoder
from lamina.core.resolve import resolve_data
from lamina.plugins.residual.float32 import Float32

SPEC: dict[str, Any] = {
    "lamina": 1, "vocab_size": 23, "dim": 16, "context_length": 8, "norm": "rms", "layers": 3,
    "block": {"attention": {"name": "gqa", "n_heads": 2}, "ffn": "gated"},
}  # fmt: skip


def decoder(residual: str, dtype: str) -> Decoder:
    return build(
        resolve_data({**SPEC, "block": {**SPEC["block"], "residual": residual}}, REGISTRY), seed=3, dtype=dtype
    )


def test_what_is_added_to_a_large_stream_is_not_rounded_away() -> None:
    residual = Float32().to(torch.bfloat16)
    stream = residual.widen(torch.full((1, 2, 3), 100.0, dtype=torch.bfloat16))
    for _ in range(100):
        stream = residual(stream, lambda x: x * 1e-4)  # beyond bfloat16's digits, of which 100 has three
    assert_close(stream, torch.full((1, 2, 3), 101.0), atol=0.02, rtol=0)
    assert residual.narrow(stream).dtype == torch.bfloat16


def test_sublayers_read_what_the_weights_are_kept_in() -> None:
    residual, read = Float32().to(torch.float16), []

    def sublayer(x: torch.Tensor) -> torch.Tensor:
        read.append(x.dtype)
        return x

    residual(residual.widen(torch.ones(1, 1, 2, dtype=torch.float16)), sublayer)
    assert read == [torch.float16]


def test_where_all_is_float32_it_is_the_plain_residual() -> None:
    ids = torch.randint(23, (2, 7))
    assert torch.equal(decoder("float32", "float32")(ids), decoder("plain", "float32")(ids))
    assert decoder("float32", "bfloat16")(ids).dtype == torch.bfloat16


def test_all_blocks_must_keep_it() -> None:
    block = {**SPEC["block"], "residual": "float32", "ffn_residual": "plain"}
    with pytest.raises(SpecError, match="keeps a stream of another form"):
        resolve_data({**SPEC, "block": block}, REGISTRY)
