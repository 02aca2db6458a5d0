"""The prefix LM: its pattern, and what it costs a cache and generation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_specs import REGISTRY, VOCAB, build_moved, tokens
from torch.testing import assert_close

from lamina.core import GenerationError
from lamina.core.model import Model
from lamina.core.resolve import resolve_data
from lamina.plugins.mask.prefix import Prefix, PrefixConfig

LENGTH = 4


def prefix(length: int) -> Prefix:
    return Prefix(PrefixConfig(length=length))


def model(mask: Any) -> Model:
    spec = resolve_data(
        {
            "lamina": 1,
            "vocab_size": VOCAB,
            "dim": 16,
            "context_length": 24,
            "position": "rope",
            "norm": "rms",
            "init": {"std": 0.25},
            "block": {"attention": {"name": "gqa", "n_heads": 2, "mask": mask}, "ffn": "gated"},
            "layers": 2,
        },
        REGISTRY,
    )
    return Model(build_moved(spec), None, spec)


@given(length=st.integers(1, 20))
def test_the_prefix_sees_itself_and_the_rest_is_causal(follows: Any, length: int) -> None:
    follows(prefix(length), lambda q, k: k <= q or (q < length and k < length))


@given(length=st.integers(1, 20))
def test_what_the_mask_says_of_itself_is_true(keeps_its_word: Any, length: int) -> None:
    keeps_its_word(prefix(length), prefix(length), prefix(length + 1))


@torch.no_grad()
def test_a_change_within_the_prefix_is_felt_before_it_and_one_behind_it_is_not() -> None:
    decoder, ids = model({"name": "prefix", "length": LENGTH}).decoder, tokens(1, 8)
    was, after = decoder(ids), ids.clone()
    after[:, LENGTH - 1] = (after[:, LENGTH - 1] + 1) % VOCAB
    assert (decoder(after) - was).abs().amax(-1).gt(1e-4).all()
    after = ids.clone()
    after[:, LENGTH] = (after[:, LENGTH] + 1) % VOCAB
    assert_close(decoder(after)[:, :LENGTH], was[:, :LENGTH])


@settings(max_examples=25)
@given(first=st.integers(LENGTH, 9), rest=st.lists(st.integers(1, 3), max_size=3))
def test_a_cache_given_the_whole_prefix_at_once_goes_on_in_any_split(first: int, rest: list[int]) -> None:
    decoder, split = model({"name": "prefix", "length": LENGTH}).decoder, [first, *rest]
    ids = tokens(2, sum(split))
    with torch.no_grad():
        cache, whole = decoder.make_cache(2, sum(split)), decoder(ids)
        parts = [decoder(part, cache=cache) for part in ids.split(split, 1)]
    assert_close(torch.cat(parts, 1), whole, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_prefix_in_two_calls_is_refused() -> None:
    decoder = model({"name": "prefix", "length": LENGTH}).decoder
    cache = decoder.make_cache(1, 9)
    decoder(tokens(1, LENGTH - 1), cache=cache)
    with pytest.raises(GenerationError, match="lets the first 4 tokens of a text see those after them"):
        decoder(tokens(1, 2), cache=cache)
    cache.crop(0)
    decoder(tokens(1, LENGTH), cache=cache)
    decoder(tokens(1, 1), cache=cache)


@torch.no_grad()
def test_a_document_has_a_prefix_of_its_own_to_be_given_whole() -> None:
    decoder = model({"name": "prefix", "length": LENGTH}).decoder
    cache, ids = decoder.make_cache(1, 12), tokens(1, 12)
    docs = torch.tensor([[0] * 5 + [1] * 7])
    whole = decoder(ids, document_ids=docs)
    first = decoder(ids[:, :5], document_ids=docs[:, :5], cache=cache)
    second = decoder(ids[:, 5:9], document_ids=docs[:, 5:9], cache=cache)
    third = decoder(ids[:, 9:], cache=cache)
    assert_close(torch.cat([first, second, third], 1), whole, atol=1e-4, rtol=1e-4)
    cache = decoder.make_cache(1, 12)
    decoder(ids[:, :7], document_ids=docs[:, :7], cache=cache)
    with pytest.raises(GenerationError, match="cannot come in several calls"):
        decoder(ids[:, 7:], document_ids=docs[:, 7:], cache=cache)


def test_generation_needs_a_prompt_that_holds_the_prefix() -> None:
    made = model({"name": "prefix", "length": LENGTH})
    with pytest.raises(GenerationError, match="sees later tokens among the first 4, and a prompt has 3") as problem:
        made.generate(tokens(1, 3), max_new_tokens=2, sampler="greedy")
    assert problem.value.problems[0].hint == "give prompts of 4 tokens or more"
    prompt = tokens(2, 6)
    out = made.generate(prompt, max_new_tokens=3, sampler="greedy", stop_ids=()).token_ids
    text = torch.cat([prompt, out], 1)
    with torch.no_grad():
        assert made.decoder(text)[:, 5:-1].argmax(-1).equal(out)
