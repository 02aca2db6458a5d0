from __future__ import annotations

from collections import Counter

import torch

from lamina.plugins.sampler.frequency_penalty import FrequencyPenalty, FrequencyPenaltyConfig


def test_generated_tokens_lose_each_time_and_the_prompt_is_free(told) -> None:  # type: ignore[no-untyped-def]
    logits = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    rows = [[5, 5, 1, 2, 2, 3], [2, 4, 4, 4]]
    out = FrequencyPenalty(FrequencyPenaltyConfig(value=0.5)).forward(logits, told(rows, 4))
    for row in range(2):
        counts = Counter(rows[row][-4:])
        for token in range(6):
            assert out[row, token] == logits[row, token] - 0.5 * counts[token]
