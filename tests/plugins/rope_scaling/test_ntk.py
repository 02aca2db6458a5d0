"""NTK-aware scaling against transformers' Hunyuan and its own definition."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from torch.testing import assert_close

from lamina.core import SpecError, rope_frequencies


@pytest.mark.parametrize("factor", [1.0, 8.0, 1000.0])
def test_ntk_equals_hunyuan(scaling: Any, turns_at: Any, factor: float) -> None:
    hunyuan: Any = pytest.importorskip("transformers.models.hunyuan_v1_dense.modeling_hunyuan_v1_dense")
    config = SimpleNamespace(head_dim=16, rope_parameters={"rope_theta": 500.0, "alpha": factor})
    expected = hunyuan.HunYuanDenseV1RotaryEmbedding.compute_ntk_alpha_rope_parameters(config)
    assert_close(turns_at(scaling("ntk", theta=500.0, factor=factor)), expected)


def test_the_fastest_pair_stays_and_the_slowest_is_slowed_by_the_factor(scaling: Any, turns_at: Any) -> None:
    frequencies, _ = turns_at(scaling("ntk", factor=8.0))
    trained = rope_frequencies(10_000.0, 16)
    assert frequencies[0].item() == trained[0]
    assert frequencies[-1].item() == pytest.approx(trained[-1] / 8)


def test_a_single_pair_is_refused(scaling: Any) -> None:
    with pytest.raises(SpecError, match="only 2 channels are turned"):
        scaling("ntk", width=2, factor=2.0)
