"""LongRoPE against transformers: the function, Phi-3.5-MoE's rotary embedding, and whole forwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lamina.core import Context, Span, SpecError
from lamina.core.context import place_documents
from lamina.plugins.position.rope import RoPE, RoPEConfig

SHORT, LONG = [1.0, 1.1, 1.2, 1.5, 1.7, 2.0], [1.0, 1.5, 3.0, 6.0, 20.0, 40.0]
OPTIONS: dict[str, Any] = {"short_factor": SHORT, "long_factor": LONG}


@pytest.mark.parametrize("length", [4, 8, 9, 40])
@pytest.mark.parametrize("more", [{}, {"factor": 16.0}, {"attention_factor": 1.7}])
def test_longrope_equals_transformers(
    scaling: Any, turns_at: Any, transformers_turns: Any, length: int, more: dict[str, float]
) -> None:
    theirs = transformers_turns(
        "longrope", head_dim=12, original_max_position_embeddings=8, length=length, **OPTIONS, **more
    )
    assert_close(turns_at(scaling("longrope", width=12, original_context_length=8, **OPTIONS, **more), length), theirs)
    fixed = scaling("longrope", width=12, original_context_length=8, length=length, **OPTIONS, **more)
    assert_close(turns_at(fixed, 3), theirs)


@pytest.mark.parametrize("length", [6, 12])
def test_short_texts_may_have_an_attention_factor_of_their_own(scaling: Any, length: int) -> None:
    phimoe: Any = pytest.importorskip("transformers.models.phimoe.modeling_phimoe")
    rope = {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "original_max_position_embeddings": 8,
        "short_mscale": 1.25,
        "long_mscale": 1.5,
        **OPTIONS,
    }
    config = phimoe.PhimoeConfig(
        hidden_size=24, num_attention_heads=2, head_dim=12, max_position_embeddings=64, rope_parameters=rope
    )
    embedding = phimoe.PhimoeRotaryEmbedding(config)
    cos, sin = embedding(torch.zeros(1), torch.arange(length).unsqueeze(0))
    made = scaling(
        "longrope",
        width=12,
        original_context_length=8,
        attention_factor=1.5,
        short_attention_factor=1.25,
        # Phi-3.5-MoE's own code takes the short divisors at every length; its two factors are what is compared.
        **(OPTIONS | {"long_factor": SHORT}),
    )
    position = RoPE(RoPEConfig(), 12, made)
    x = torch.randn(1, 2, length, 12)
    span = Span.run(0, length, torch.device("cpu"))
    ours, _ = position.rotate(x, x, Context(torch.zeros(1, length, dtype=torch.int64), span))
    assert_close(ours, phimoe.apply_rotary_pos_emb(x, x, cos, sin)[0])


def test_long_and_short_documents_share_a_row(scaling: Any, turns_at: Any) -> None:
    made = scaling("longrope", width=12, original_context_length=4, short_attention_factor=1.0, **OPTIONS)
    packed, factors = made.turns(place_documents(torch.tensor([[0] * 3 + [1] * 5])))
    assert isinstance(factors, Tensor)
    for column, length in [(0, 3), (2, 3), (3, 5), (7, 5)]:
        frequencies, factor = turns_at(made, length)
        assert_close(packed[0, column], frequencies)
        assert factors[0, column].item() == pytest.approx(factor)


def test_texts_of_any_length_have_the_logits_of_transformers(llama_pair: Any, check_length_regimes: Any) -> None:
    theirs, decoder = llama_pair(
        {"rope_type": "longrope", "original_max_position_embeddings": 8, **OPTIONS},
        {"name": "longrope", "original_context_length": 8, **OPTIONS},
        32,
    )
    check_length_regimes(theirs, decoder, [5, 8, 9, 14])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"short_factor": [1.0]}, "short_factor has 1 divisors, and 6 pairs of channels are turned"),
        ({"long_factor": [*LONG, 2.0]}, "long_factor has 7 divisors"),
        ({"long_factor": [0.0, *LONG[1:]]}, "every divisor must be greater than 0, and one is 0"),
    ],
)
def test_divisors_that_do_not_fit_are_refused(scaling: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        scaling("longrope", width=12, original_context_length=8, **(OPTIONS | options))
