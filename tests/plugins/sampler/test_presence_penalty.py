from __future__ import annotations

import torch

from lamina.plugins.sampler.presence_penalty import PresencePenalty, PresencePenaltyConfig


def test_generated_tokens_lose_once_and_the_prompt_is_free(told) -> None:  # type: ignore[no-untyped-def]
    logits = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    out = PresencePenalty(PresencePenaltyConfig(value=0.75)).forward(logits, told([[5, 1, 2, 2, 3], [3, 3, 3]], 3))
    taken = [[0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 0, 0]]
    torch.testing.assert_close(out, logits - 0.75 * torch.tensor(taken))


def test_nothing_generated_nothing_changed(told) -> None:  # type: ignore[no-untyped-def]
    logits = torch.randn(1, 6)
    assert torch.equal(PresencePenalty(PresencePenaltyConfig()).forward(logits, told([[1, 2]])), logits)
