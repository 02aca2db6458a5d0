"""RWKV-4's channel mixing against transformers' own, and its cache within a decoder."""

from __future__ import annotations

from ast import literal_eval
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_specs import REGISTRY, build_moved, tokens
from torch import nn
from torch.testing import assert_close

from lamina.core import Context, OutLinear, Span, SpecError
from lamina.core.decoder import Decoder
from lamina.core.resolve import resolve_data
from lamina.plugins.ffn.rwkv_channel_mix import RWKVChannelMix, RWKVChannelMixConfig

DIM = 6


def channel_mix(layer: int = 1) -> RWKVChannelMix:
    ffn = RWKVChannelMix(RWKVChannelMixConfig(hidden_dim=10), DIM, layer, 3)
    for parameter in ffn.parameters():
        nn.init.normal_(parameter, std=0.7)
    return ffn


def decoder(ffn: Any = "rwkv_channel_mix", attention: Any = "rwkv") -> Decoder:
    return _decoder(repr(ffn), repr(attention))


@cache
def _decoder(ffn: str, attention: str) -> Decoder:
    spec = {
        "lamina": 1,
        "vocab_size": 23,
        "dim": 16,
        "context_length": 24,
        "norm": "layer",
        "block": {"attention": literal_eval(attention), "ffn": literal_eval(ffn)},
        "layers": 2,
        "init": {"std": 0.25},
    }
    return build_moved(resolve_data(spec, REGISTRY))


def test_channel_mix_equals_transformers() -> None:
    modeling = pytest.importorskip("transformers.models.rwkv.modeling_rwkv")
    config = modeling.RwkvConfig(hidden_size=DIM, intermediate_size=10, num_hidden_layers=1)
    ffn, theirs = channel_mix(), modeling.RwkvFeedForward(config, 0)
    theirs.load_state_dict(
        {
            "time_mix_receptance": ffn.receptance_mix.view(1, 1, -1),
            "time_mix_key": ffn.key_mix.view(1, 1, -1),
            "receptance.weight": ffn.receptance.weight,
            "key.weight": ffn.up.weight,
            "value.weight": ffn.down.weight,
        }
    )
    x = torch.randn(2, 5, DIM)
    ids = torch.zeros(2, 5, dtype=torch.int64)
    assert_close(ffn(x, Context(ids, Span.run(0, 5, torch.device("cpu")))), theirs(x)[0])


@settings(max_examples=40)
@given(
    split=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    attention=st.sampled_from(["rwkv", {"name": "gqa", "n_heads": 2}, None]),
    ids=st.lists(st.integers(0, 1), min_size=20, max_size=20),
)
@torch.no_grad()
def test_any_split_into_cached_calls_gives_one_full_call(split: list[int], attention: Any, ids: list[int]) -> None:
    model, length = decoder(attention=attention), sum(split)
    token_ids, documents = tokens(2, length), torch.tensor([ids[:length], ids[-length:]])
    state, calls = model.make_cache(2, length), []
    for new in split:
        here = slice(state.used, state.used + new)
        calls.append(model(token_ids[:, here], document_ids=documents[:, here], cache=state))
    assert_close(torch.cat(calls, 1), model(token_ids, document_ids=documents), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_its_state_is_cloned_reordered_and_counted_with_the_cache() -> None:
    model, ids = decoder(attention=None), tokens(2, 6)
    whole = model(ids)
    state = model.make_cache(2, 6)
    assert state.nbytes == 2 * 2 * 16 * 4  # layers, batch, dim, bytes
    model(ids[:, :3], cache=state)
    twin = state.clone()
    model(ids[:, 4:5], cache=state)
    twin.reorder(torch.tensor([1, 0]))
    assert_close(model(ids[[1, 0], 3:], cache=twin), whole[[1, 0], 3:])
    assert not twin.can_crop(2)


@torch.no_grad()
def test_a_document_is_blind_to_the_others() -> None:
    model, ids = decoder(), tokens(1, 7)
    packed = model(ids, document_ids=torch.tensor([[0, 0, 0, 1, 1, 1, 1]]))
    assert_close(packed[:, :3], model(ids[:, :3]))
    assert_close(packed[:, 3:], model(ids[:, 3:]))


def test_a_decoder_without_such_an_ffn_keeps_nothing_for_its_ffns() -> None:
    assert len(decoder({"name": "gated"}).make_cache(1, 4).layers) == 2


def test_it_cannot_be_an_expert_which_sees_single_tokens() -> None:
    with pytest.raises(SpecError, match=r"needs tokenwise of the ffn, and 'rwkv_channel_mix'.* does not provide it"):
        decoder({"name": "moe", "n_experts": 2, "expert": "rwkv_channel_mix"})


@pytest.mark.parametrize("layer", [0, 2])
def test_initial_weights_are_those_of_transformers(layer: int) -> None:
    modeling = pytest.importorskip("transformers.models.rwkv.modeling_rwkv")
    config = modeling.RwkvConfig(hidden_size=DIM, num_hidden_layers=3, vocab_size=4)
    theirs, ffn = modeling.RwkvModel(config).blocks[layer].feed_forward, channel_mix(layer)
    ffn.init_weights(0.02)
    for name in ("receptance", "key"):
        assert_close(ffn.get_parameter(f"{name}_mix"), theirs.get_parameter(f"time_mix_{name}").flatten())


def test_its_width_and_its_writing_projection_are_those_of_an_mlp() -> None:
    assert RWKVChannelMixConfig().derive(dim=6) == {"hidden_dim": 24}
    assert RWKVChannelMixConfig(hidden_dim=7).derive(dim=6) == {}
    assert isinstance(channel_mix().down, OutLinear)
