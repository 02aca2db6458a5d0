"""Any softmax attention, under any mask, with any position that acts in it: cached or not, packed or not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_specs import REGISTRY, VOCAB, build_moved, tokens
from torch.testing import assert_close

from lamina.core.decoder import Decoder
from lamina.core.resolve import resolve_data

ATTENTIONS: dict[str, dict[str, Any]] = {
    "gqa": {"name": "gqa", "n_heads": 4, "n_kv_heads": 2, "head_dim": 4, "value_dim": 6, "sinks": True},
    "differential": {"name": "differential", "n_heads": 4, "n_kv_heads": 2, "head_dim": 4},
    "mla": {
        "name": "mla",
        "n_heads": 4,
        "kv_lora_rank": 6,
        "qk_nope_head_dim": 4,
        "qk_rope_head_dim": 4,
        "v_head_dim": 5,
    },
}
MASKS: list[dict[str, Any]] = [
    {"name": "bidirectional"},
    {"name": "causal"},
    {"name": "chunked", "size": 3},
    {"name": "dilated", "window": 2, "dilation": 2},
    {"name": "fixed", "stride": 3, "summary": 1},
    {"name": "prefix", "length": 3},
    {"name": "sliding", "window": 3},
    {"name": "strided", "stride": 2},
]
POSITIONS = [
    entry.name
    for entry in REGISTRY.entries("position")
    if entry.name == "none" or entry.component.acts_at() - {"embeddings"}  # type: ignore[attr-defined]
]
LENGTH = 9


def built(attention: str, mask: dict[str, Any], position: str, share: bool = False) -> Decoder:
    mixer = {**ATTENTIONS[attention], "mask": mask}
    own = {"attention": {**mixer, "keep_kv": "a"} if share else mixer, "ffn": None}
    blocks = {"own": own} | ({"reader": {"attention": {**mixer, "share_kv": "a"}, "ffn": None}} if share else {})
    return build_moved(
        resolve_data(
            {
                "lamina": 1,
                "vocab_size": VOCAB,
                "dim": 16,
                "context_length": LENGTH,
                "position": position,
                "norm": "rms",
                "init": {"std": 0.25},
                "blocks": blocks,
                "layers": {"pattern": list(blocks), "n_layers": 2},
            },
            REGISTRY,
        )
    )


def test_every_mask_and_every_softmax_attention_is_tried() -> None:
    assert {mask["name"] for mask in MASKS} == set(REGISTRY.names("mask"))


@pytest.mark.parametrize("position", POSITIONS)
@settings(max_examples=12, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
@torch.no_grad()
def test_they_go_together(position: str, data: st.DataObject) -> None:
    attention = data.draw(st.sampled_from(sorted(ATTENTIONS)))
    mask = data.draw(st.sampled_from(MASKS))
    share = attention == "gqa" and data.draw(st.booleans())
    decoder, ids = built(attention, mask, position, share), tokens(2, LENGTH)
    whole = decoder(ids)

    cuts = data.draw(st.sets(st.integers(1, LENGTH - 1), max_size=4))
    ends = sorted({cut for cut in cuts if cut >= decoder.lookahead} | {LENGTH})
    cache, calls = decoder.make_cache(2, LENGTH), []
    for start, end in zip([0, *ends], ends, strict=False):
        calls.append(decoder(ids[:, start:end], cache=cache))
    assert_close(torch.cat(calls, 1), whole, atol=1e-4, rtol=1e-4)

    at = data.draw(st.integers(1, LENGTH - 1))
    packed = decoder(ids, document_ids=(torch.arange(LENGTH) >= at).long().expand(2, -1))
    assert_close(packed[:, :at], decoder(ids[:, :at]), atol=1e-4, rtol=1e-4)
    assert_close(packed[:, at:], decoder(ids[:, at:]), atol=1e-4, rtol=1e-4)

    if not decoder.lookahead:
        changed = ids.clone()
        changed[:, at] = (changed[:, at] + 1) % VOCAB
        assert_close(decoder(changed)[:, :at], whole[:, :at], atol=1e-5, rtol=1e-5)
