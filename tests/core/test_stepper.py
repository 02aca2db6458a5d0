"""Decoders run by the kernels have the logits of plain layers, whatever they are made of and however calls are cut."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_specs import DIM, REGISTRY, VOCAB, build_moved, tiny_specs, tokens
from torch import Tensor
from torch.testing import assert_close

from lamina.core import stepper as stepper_module
from lamina.core.attention import Attention
from lamina.core.decoder import Decoder
from lamina.core.native import library, why_not
from lamina.core.product import is_slow
from lamina.core.resolve import resolve_data
from lamina.core.resolved import ResolvedSpec
from lamina.core.stepper import quantise_decoder, use_kernels

pytestmark = pytest.mark.skipif(library() is None, reason=f"no kernels here: {why_not()}")
some = settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
ROPES = [
    "rope",
    {"name": "rope", "layout": "interleaved"},
    {"name": "rope", "fraction": 0.5},
    {"name": "rope", "scaling": {"name": "yarn", "original_context_length": 8, "factor": 2.0}},
]
ACTIVATIONS = ["silu", "gelu", "gelu_tanh", "relu", "relu2", "sigmoid", "quick_gelu", "identity"]
NORMS = ["rms", "layer", {"name": "rms", "offset": 1.0}, {"name": "rms", "affine": False}]


@st.composite
def lowered_specs(draw: st.DrawFn) -> ResolvedSpec:
    """Specs all of whose layers can be said as programs."""
    heads, kv_heads = draw(st.sampled_from([(4, 4), (4, 2), (4, 1), (3, 1)]))
    drawn: dict[str, Any] = {
        "bias": st.booleans(),
        "mask": st.sampled_from(
            [
                "causal",
                {"name": "sliding", "window": 4},
                {"name": "chunked", "size": 5},
                {"name": "dilated", "window": 3, "dilation": 2},
            ]
        ),
        "qk_norm": st.sampled_from(NORMS),
        "qk_norm_over": st.just("head"),
        "clip": st.just(1.5),
        "scale": st.just(0.3),
        "softcap": st.just(2.0),
        "sinks": st.booleans(),
        "value_dim": st.just(12),
    }
    attention = draw(st.fixed_dictionaries({}, optional=drawn))
    if "qk_norm" in attention:
        attention["qk_norm_over"] = draw(st.sampled_from(["head", "all"]))
    else:
        attention.pop("qk_norm_over", None)
    attention |= {"name": "gqa", "n_heads": heads, "n_kv_heads": kv_heads, "head_dim": draw(st.sampled_from([8, 20]))}
    kind = draw(st.sampled_from(["gated", "mlp"]))
    dense = {
        "name": kind,
        "hidden_dim": draw(st.sampled_from([24, 300])),
        "activation": draw(st.sampled_from(ACTIVATIONS)),
    }
    dense |= draw(st.fixed_dictionaries({}, optional={"bias": st.booleans()}))
    router = {"name": "softmax_top_k", "renormalise": draw(st.booleans())}
    mixtures = [
        {"name": "moe", "n_experts": 4, "router": router, "expert": dense},
        {"name": "moe", "n_experts": 3, "router": "top_k_softmax", "expert": dense, "shared": dense},
    ]
    block = {
        "placement": draw(st.sampled_from(["pre", "post", "sandwich", "parallel", "parallel_two", "output"])),
        "norm": draw(st.sampled_from(NORMS)),
        "attention": attention,
        "ffn": draw(st.sampled_from([dense, dense, *mixtures])),
        "residual": draw(st.sampled_from(["plain", {"name": "scaled", "factor": 0.7, "stream_factor": 0.8}])),
    }
    return resolve_data(
        {
            "lamina": 1,
            "vocab_size": VOCAB,
            "dim": DIM,
            "context_length": 64,
            "position": draw(st.sampled_from([*ROPES, "none", "sinusoidal", "learned"])),
            "norm": "rms",
            "block": block,
            "layers": 2,
            "head": {"tied": draw(st.booleans()), "softcap": 5.0},
            "init": {"std": 0.25},
        },
        REGISTRY,
    )


@torch.inference_mode()
def in_calls(decoder: Decoder, ids: Tensor, lengths: list[int], docs: Tensor | None = None) -> Tensor:
    cache, parts, start = decoder.make_cache(len(ids), ids.shape[1]), [], 0
    for length in lengths:
        end = slice(start, start + length)
        parts.append(decoder(ids[:, end], document_ids=None if docs is None else docs[:, end], cache=cache))
        start += length
    return torch.cat(parts, 1)


def by_kernels(decoder: Decoder) -> Decoder:
    made = copy.deepcopy(decoder)
    assert use_kernels(made)
    return made


def few_and_many(monkeypatch: pytest.MonkeyPatch, most: int, many: int) -> None:
    """Take so few rows for many that small texts are cut up too."""
    monkeypatch.setattr(stepper_module, "MOST_ROWS", most)
    monkeypatch.setattr(stepper_module, "MANY_ROWS", many)


splits = st.lists(st.sampled_from([1, 1, 1, 2, 3, 7, 16]), min_size=1, max_size=8)


@some
@given(spec=lowered_specs(), split=splits, cut=st.integers(0, 20), rows=st.integers(1, 3))
def test_programs_give_the_logits_of_the_plain_layers(
    spec: ResolvedSpec, split: list[int], cut: int, rows: int
) -> None:
    plain, ids = build_moved(spec), tokens(rows, sum(split))
    docs = None if not cut else (torch.arange(ids.shape[1]) >= cut).long().expand_as(ids)
    for most, many in ((32, 512), (4, 6)):
        with pytest.MonkeyPatch.context() as patch:
            few_and_many(patch, most, many)
            made = by_kernels(plain)
            assert made.stepper is not None
            assert not made.stepper.why
            found = in_calls(made, ids, split, docs)
        with torch.inference_mode():
            assert_close(found, plain(ids, document_ids=docs), atol=2e-4, rtol=2e-4)


@some
@given(spec=tiny_specs(), split=splits)
def test_layers_that_cannot_be_said_run_among_those_that_can(spec: ResolvedSpec, split: list[int]) -> None:
    split = [min(n, 7) for n in split[:3]]
    plain, ids = build_moved(spec), tokens(2, sum(split))
    assert_close(in_calls(by_kernels(plain), ids, split), in_calls(plain, ids, split), atol=2e-4, rtol=2e-4)


SPEC: dict[str, Any] = {
    "lamina": 1,
    "vocab_size": VOCAB,
    "dim": 64,
    "context_length": 64,
    "position": "rope",
    "norm": "rms",
    "block": {
        "attention": {"name": "gqa", "n_heads": 4, "n_kv_heads": 2},
        "ffn": {"name": "moe", "n_experts": 4, "expert": {"name": "gated", "hidden_dim": 96}},
    },
    "layers": 2,
    "head": {"tied": False},
    "init": {"std": 0.2},
}
DENSE = {**SPEC, "block": {**SPEC["block"], "ffn": {"name": "gated", "hidden_dim": 96}}}


@pytest.mark.parametrize("most", [32, 2])
def test_bfloat16_differs_by_its_own_rounding(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    few_and_many(monkeypatch, most, 5)
    exact = build_moved(resolve_data(DENSE, REGISTRY))  # rounding makes a router choose others
    plain, ids = copy.deepcopy(exact).to(torch.bfloat16), tokens(2, 12)
    made = by_kernels(plain)
    with torch.inference_mode():
        want = exact(ids)
        error = (in_calls(plain, ids, [7, 1, 1, 3]).float() - want).norm()
        ours = (in_calls(made, ids, [7, 1, 1, 3]).float() - want).norm()
    assert made.stepper is not None
    assert not made.stepper.why
    assert 0 < ours < 1.5 * error


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("most", [32, 2])
def test_quantised_programs_multiply_the_rounded_weights(bits: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    few_and_many(monkeypatch, most, 5)
    made, ids = build_moved(resolve_data(SPEC, REGISTRY)), tokens(2, 12)
    exact = copy.deepcopy(made)
    quantise_decoder(made, bits, bits)
    assert made.stepper is not None
    assert not made.stepper.why
    rounded = copy.deepcopy(exact)
    with torch.no_grad():
        for name, module in made.named_modules():
            if hasattr(module, "quantised"):
                rounded.get_submodule(name.replace("head.product", "head")).weight.copy_(
                    module.quantised.plainly_widened()
                )
        assert not rounded.head.weight.equal(exact.head.weight)
    with torch.inference_mode():
        found, want = in_calls(made, ids, [7, 1, 1, 3]), rounded(ids)
    coarse = bits == 8 and not is_slow(torch.bfloat16, torch.device("cpu")) and most == 2
    assert_close(found, want, atol=5e-2 if coarse else 2e-3, rtol=1e-3)


def test_a_window_that_rolls_over_is_read_as_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    attention = {"name": "gqa", "n_heads": 4, "n_kv_heads": 2, "mask": {"name": "sliding", "window": 5}}
    plain = build_moved(resolve_data({**SPEC, "block": {"attention": attention, "ffn": "mlp"}}, REGISTRY))
    ids = tokens(2, 24)
    made = by_kernels(plain)
    split = [3, *[1] * 15, 4, 1, 1]
    assert_close(in_calls(made, ids, split), in_calls(plain, ids, split), atol=2e-4, rtol=2e-4)


def test_a_cache_longer_than_any_before_has_turns_for_all_its_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stepper_module, "LEAST_ROOM", 4)
    plain = build_moved(resolve_data(SPEC, REGISTRY))
    made = by_kernels(plain)
    for length in (3, 30):
        ids = tokens(1, length)
        assert_close(in_calls(made, ids, [length - 1, 1]), in_calls(plain, ids, [length]), atol=2e-4, rtol=2e-4)


def test_a_part_with_another_forward_is_not_run_by_its_base_classes_program() -> None:
    made = build_moved(resolve_data(SPEC, REGISTRY))
    attention = made.blocks[0].attention
    assert isinstance(attention, Attention)

    class Doubled(type(attention)):  # type: ignore[misc]
        def forward(self, *args: Any, **kwargs: Any) -> Tensor:
            found: Tensor = 2 * super().forward(*args, **kwargs)
            return found

    attention.__class__ = Doubled
    ids = tokens(1, 6)
    fast = by_kernels(made)
    assert fast.stepper is not None
    assert list(fast.stepper.why) == [0]
    assert_close(in_calls(fast, ids, [5, 1]), in_calls(made, ids, [5, 1]), atol=2e-4, rtol=2e-4)


def test_weights_that_were_moved_are_not_read_where_they_lay() -> None:
    plain = build_moved(resolve_data(SPEC, REGISTRY))
    made = by_kernels(plain).to(torch.float64)
    ids = tokens(1, 6)
    assert_close(in_calls(made, ids, [5, 1]), in_calls(plain.to(torch.float64), ids, [5, 1]))


def test_gradients_are_left_to_the_plain_layers() -> None:
    made, ids = by_kernels(build_moved(resolve_data(SPEC, REGISTRY))), tokens(1, 4)
    made(ids, cache=made.make_cache(1, 4)).sum().backward()
    assert all(parameter.grad is not None for parameter in made.parameters() if parameter.dim() > 1)
