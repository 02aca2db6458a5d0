"""The mask that sees everything."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_specs import REGISTRY, VOCAB, build_moved, tokens
from torch.nn import functional as F
from torch.testing import assert_close

from lamina.core import GenerationError, attend
from lamina.core.context import Span
from lamina.core.dryrun import dry_run
from lamina.core.model import Model
from lamina.core.resolve import resolve_data
from lamina.plugins.mask.bidirectional import Bidirectional
from lamina.plugins.mask.causal import Causal


def model() -> Model:
    block = {"attention": {"name": "gqa", "n_heads": 2, "mask": "bidirectional"}, "ffn": "gated"}
    sizes = {"lamina": 1, "vocab_size": VOCAB, "dim": 16, "context_length": 16}
    spec = resolve_data({**sizes, "norm": "rms", "block": block, "layers": 2}, REGISTRY)
    return Model(build_moved(spec), None, spec)


def test_every_token_sees_every_other(follows: Any, keeps_its_word: Any) -> None:
    follows(Bidirectional(), lambda q, k: True)
    keeps_its_word(Bidirectional(), Bidirectional(), Causal())


def test_it_is_torchs_attention_without_a_mask() -> None:
    q, k, v = torch.randn(3, 2, 2, 5, 4)
    span = Span.run(0, 5, torch.device("cpu"))
    ours = attend(q, k, v, mask=Bidirectional(), queries=span, keys=span)
    assert_close(ours, F.scaled_dot_product_attention(q, k, v))


def test_generation_is_refused_because_later_tokens_are_seen() -> None:
    with pytest.raises(GenerationError, match="mask sees later tokens, so there is no next token to generate"):
        model().generate(tokens(1, 3), max_new_tokens=1, sampler="greedy")


@torch.no_grad()
def test_a_cache_takes_a_text_in_one_call_only() -> None:
    decoder, ids = model().decoder, tokens(2, 6)
    cache = decoder.make_cache(2, 8)
    assert_close(decoder(ids, cache=cache), decoder(ids))
    with pytest.raises(GenerationError, match="lets tokens see those after them, so they cannot come in several calls"):
        decoder(tokens(2, 1), cache=cache)


def test_a_dry_run_asks_for_nothing_the_mask_forbids() -> None:
    assert dry_run(model().spec).unchecked is None
