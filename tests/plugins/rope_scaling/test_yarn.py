"""YaRN against transformers: the function, Llama's and DeepSeek-V3's rotary embeddings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from lamina.core import Context, Span, SpecError
from lamina.plugins.position.rope import RoPE, RoPEConfig

OPTIONS: list[dict[str, Any]] = [
    {"factor": 4.0},
    {"factor": 40.0, "mscale": 1.0, "mscale_all_dim": 0.707},
    {"factor": 40.0, "mscale": 0.5, "mscale_all_dim": 0.5, "beta_fast": 16.0, "beta_slow": 2.0},
    {"factor": 8.0, "attention_factor": 1.3, "truncate": False},
    {"factor": 32.0, "beta_fast": 3.0, "beta_slow": 2.9, "truncate": False},
    {"factor": 2.0, "beta_fast": 1e6, "beta_slow": 1e5},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("original", [32, 4096])
@pytest.mark.parametrize("width", [64, 8])
def test_yarn_equals_transformers(
    scaling: Any, turns_at: Any, transformers_turns: Any, options: dict[str, Any], original: int, width: int
) -> None:
    ours = turns_at(scaling("yarn", width=width, original_context_length=original, **options))
    theirs = transformers_turns("yarn", head_dim=width, original_max_position_embeddings=original, **options)
    assert_close(ours, theirs)


def test_the_factor_follows_from_the_context(scaling: Any, turns_at: Any, transformers_turns: Any) -> None:
    ours = turns_at(scaling("yarn", context_length=256, original_context_length=64))
    assert_close(ours, transformers_turns("yarn", original_max_position_embeddings=64, factor=4.0))


@pytest.mark.parametrize("family", ["llama", "deepseek_v3"])
def test_queries_and_keys_are_turned_as_in_transformers(scaling: Any, family: str) -> None:
    """DeepSeek's own rotation leaves its channels sorted by halves of the pairs; its scores are what counts."""
    modeling: Any = pytest.importorskip(f"transformers.models.{family}.modeling_{family}")
    title = {"llama": "Llama", "deepseek_v3": "DeepseekV3"}[family]
    options: dict[str, Any] = {"factor": 40.0, "mscale": 1.0, "mscale_all_dim": 0.5}
    rope = {"rope_type": "yarn", "rope_theta": 1e4, "original_max_position_embeddings": 32, **options}
    sizes = {"qk_rope_head_dim": 16} if family == "deepseek_v3" else {"head_dim": 16}
    config = getattr(modeling, f"{title}Config")(rope_parameters=rope, max_position_embeddings=1280, **sizes)
    q, k = torch.randn(2, 4, 6, 16), torch.randn(2, 4, 6, 16)
    cos, sin = getattr(modeling, f"{title}RotaryEmbedding")(config)(q, torch.arange(50, 56).unsqueeze(0))
    interleaved = family == "deepseek_v3"
    apply = modeling.apply_rotary_pos_emb_interleave if interleaved else modeling.apply_rotary_pos_emb
    theirs_q, theirs_k = apply(q, k, cos, sin)
    made = scaling("yarn", original_context_length=32, **options)
    position = RoPE(RoPEConfig(layout="interleaved" if interleaved else "half"), 16, made)
    span = Span.run(50, 6, torch.device("cpu"))
    ours_q, ours_k = position.rotate(q, k, Context(torch.zeros(2, 6, dtype=torch.int64), span))
    assert_close(ours_q @ ours_k.mT, theirs_q @ theirs_k.mT, atol=1e-4, rtol=1e-4)
    if not interleaved:
        assert_close((ours_q, ours_k), (theirs_q, theirs_k), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mscale": 1.0}, "mscale has a meaning together with mscale_all_dim only"),
        ({"mscale_all_dim": 1.0}, "mscale_all_dim has a meaning together with mscale only"),
        ({"beta_fast": 1.0, "beta_slow": 2.0}, r"beta_fast \(1\) must not be less than beta_slow \(2\)"),
        ({"mscale": 1.0, "mscale_all_dim": 1.0, "attention_factor": 2.0}, r"attention_factor \(2\) is not what"),
        ({"theta": 1.0}, "needs a theta above 1"),
    ],
)
def test_options_that_do_not_go_together_are_refused(scaling: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        scaling("yarn", original_context_length=32, factor=2.0, **options)
