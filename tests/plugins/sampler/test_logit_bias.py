from __future__ import annotations

import pytest
import torch
from transformers import SequenceBiasLogitsProcessor

from lamina.core import ConfigProblem
from lamina.core.errors import SpecError
from lamina.core.registry import load_plugins
from lamina.core.resolve import resolve_part
from lamina.plugins.sampler.logit_bias import LogitBias, LogitBiasConfig


def test_agrees_with_transformers(told) -> None:  # type: ignore[no-untyped-def]
    logits = torch.randn(3, 10, generator=torch.Generator().manual_seed(0))
    history = told([[1], [2], [3]])
    ours = LogitBias(LogitBiasConfig(bias={"3": -100.0, "0": 2.5}), 10).forward(logits, history)
    theirs = SequenceBiasLogitsProcessor([[[3], -100.0], [[0], 2.5]])
    assert torch.equal(ours, theirs(history.token_ids, logits))


def test_no_tokens_named_none_changed(told) -> None:  # type: ignore[no-untyped-def]
    logits = torch.randn(1, 5)
    assert torch.equal(LogitBias(LogitBiasConfig(bias={}), 5).forward(logits, told([[1]])), logits)


def test_a_token_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigProblem, match="there is no token 10"):
        LogitBias(LogitBiasConfig(bias={"10": 1.0}), 10)


@pytest.mark.parametrize(
    ("bias", "message"),
    [({"the": 1.0}, "'the' is none"), ({"-1": 1.0}, "'-1' is none"), ({"5": 101.0}, "at most 100")],
)
def test_keys_are_ids_and_numbers_moderate(bias: dict[str, float], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        resolve_part("sampler", {"name": "logit_bias", "bias": bias}, load_plugins(only=[]))
