"""DeepNorm: its weighted stream and the weights it starts smaller."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_specs import REGISTRY
from torch.testing import assert_close

from lamina.core.build import build
from lamina.core.decoder import Decoder
from lamina.core.resolve import resolve_data
from lamina.plugins.residual.deepnorm import DeepNorm, DeepNormConfig


@pytest.mark.parametrize("n_layers", [1, 6, 100])
def test_alpha_and_beta_are_those_of_the_papers_decoder_only_column(n_layers: int) -> None:
    derived = DeepNormConfig().derive(n_layers=n_layers)
    assert derived["alpha"] ** 4 == pytest.approx(2 * n_layers)
    assert derived["beta"] ** -4 == pytest.approx(8 * n_layers)
    assert DeepNormConfig(alpha=2.0, beta=0.5).derive(n_layers=n_layers) == {}


def test_alpha_multiplies_the_stream_and_not_the_sublayer() -> None:
    x = torch.randn(2, 3, 4)
    assert_close(DeepNorm(DeepNormConfig(alpha=1.7, beta=0.5))(x, lambda h: h**2), 1.7 * x + x**2)


def decoder(residual: Any, attention: Any, **block: Any) -> Decoder:
    spec = {
        "lamina": 1,
        "vocab_size": 23,
        "dim": 16,
        "context_length": 8,
        "norm": "layer",
        "block": {"attention": attention, "ffn": "mlp", "residual": residual, "placement": "post", **block},
        "layers": 3,
    }
    return build(resolve_data(spec, REGISTRY), seed=3)


GQA = {"name": "gqa", "n_heads": 4, "n_kv_heads": 2}
MLA = {"name": "mla", "n_heads": 2, "kv_lora_rank": 6, "qk_nope_head_dim": 4, "qk_rope_head_dim": 2, "v_head_dim": 5}


@pytest.mark.parametrize("attention", [GQA, MLA], ids=["gqa", "mla"])
def test_what_carries_the_stream_starts_smaller_by_beta_and_what_steers_does_not(attention: Any) -> None:
    plain, deep = (decoder(residual, attention) for residual in ("plain", "deepnorm"))
    beta, steering = 24**-0.25, {"attention.qkv.weight": 16 + 8, "attention.kv_up.weight": None}
    for (name, small), large in zip(deep.tensors().items(), plain.tensors().values(), strict=True):
        local = name.split(".", 2)[-1] if name.startswith("layers.") else name
        factor = torch.ones_like(large)
        if local in ("attention.out.weight", "ffn.up.weight", "ffn.down.weight"):
            factor *= beta
        elif local == "attention.qkv.weight":
            factor[steering[local] :] = beta
        elif local == "attention.kv_up.weight":
            factor.view(2, 4 + 5, 6)[:, 4:] = beta
        assert_close(small, large * factor, msg=name)


def test_in_a_parallel_flow_the_one_residual_speaks_for_both_sublayers() -> None:
    plain, deep = (decoder(residual, GQA, placement="parallel") for residual in ("plain", "deepnorm"))
    ours, theirs = deep.blocks[0], plain.blocks[0]
    for sublayer in ("attention.out", "ffn.down"):
        assert_close(ours.get_submodule(sublayer).weight, theirs.get_submodule(sublayer).weight * 24**-0.25)


def test_each_sublayer_follows_its_own_residual() -> None:
    plain, mixed = decoder("plain", GQA), decoder("plain", GQA, ffn_residual={"name": "deepnorm", "beta": 0.5})
    ours, theirs = mixed.blocks[1], plain.blocks[1]
    assert_close(ours.get_submodule("attention.out").weight, theirs.get_submodule("attention.out").weight)
    assert_close(ours.get_submodule("ffn.up").weight, theirs.get_submodule("ffn.up").weight * 0.5)


def test_a_wrapped_attention_starts_as_it_does_unwrapped() -> None:
    bare, wrapped = decoder("deepnorm", GQA), decoder("deepnorm", {"name": "trace", "wraps": GQA})
    for ours, theirs in zip(wrapped.tensors().values(), bare.tensors().values(), strict=True):
        assert_close(ours, theirs)
