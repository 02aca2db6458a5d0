"""What every attention with a state of fixed size keeps: cached calls, documents, dtypes, gradients, bytes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_specs import REGISTRY
from torch import nn
from torch.testing import assert_close

from lamina.core import Attention
from lamina.core.account import account
from lamina.core.build import build, build_part
from lamina.core.errors import SpecError
from lamina.core.resolve import resolve_data, resolve_part
from lamina.plugins.position.none import NoPosition
from lamina.plugins.position.rope import RoPE, RoPEConfig

DIM, HEADS = 16, 4
FORMS: dict[str, dict[str, Any]] = {
    "linear": {"name": "linear", "n_heads": HEADS},
    "linear_bare": {"name": "linear", "n_heads": HEADS, "feature_map": "identity", "normalise": False, "norm": "rms"},
    "retention": {"name": "retention", "n_heads": HEADS},
    "lightning": {"name": "lightning", "n_heads": HEADS},
    "gated_deltanet": {"name": "gated_deltanet", "n_heads": HEADS, "n_qk_heads": 2, "head_dim": 4, "v_head_dim": 6},
    "deltanet": {"name": "gated_deltanet", "n_heads": HEADS, "decay": False, "gate": None},
    "kda": {"name": "kda", "n_heads": HEADS, "head_dim": 5, "rank": 3},
    "mamba": {"name": "mamba", "state_dim": 6},
    "mamba_bare": {"name": "mamba", "state_dim": 6, "gate": None, "norm": "rms"},
    "mamba2": {"name": "mamba2", "head_dim": 8, "state_dim": 6, "n_groups": 2},
    "mamba2_bare": {"name": "mamba2", "head_dim": 8, "state_dim": 6, "gate": None, "norm": None, "conv_width": 1},
}
every_form = pytest.mark.parametrize("form", FORMS)


def made(form: str, dtype: torch.dtype = torch.float32, rope: bool = False) -> Attention:
    """With every parameter moved off the value it starts at."""
    part = resolve_part("attention", FORMS[form], REGISTRY, dim=DIM)
    sizes: Any = part.component.position_sizes(part.config) or {"head_dim": 4}  # type: ignore[attr-defined]
    position = RoPE(RoPEConfig(), sizes["head_dim"]) if rope else NoPosition()
    attention: Attention = build_part(part, dim=DIM, layer=0, n_layers=2, context_length=64, position=position)
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.5)
    return attention.to(dtype)


@settings(max_examples=60)
@given(
    form=st.sampled_from(list(FORMS)),
    split=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    rope=st.booleans(),
    documents=st.booleans(),
    data=st.data(),
)
def test_any_split_into_cached_calls_gives_one_full_call(
    whole: Any, in_calls: Any, form: str, split: list[int], rope: bool, documents: bool, data: st.DataObject
) -> None:
    attention, length = made(form, torch.float64, rope), sum(split)
    row = st.lists(st.integers(0, 1), min_size=length, max_size=length)
    ids = torch.tensor([data.draw(row), data.draw(row)]) if documents else None
    x = torch.randn(2, length, DIM, dtype=torch.float64)
    assert_close(in_calls(attention, x, split, ids), whole(attention, x, ids), atol=1e-6, rtol=1e-6)


@every_form
def test_a_document_is_blind_to_the_others(whole: Any, form: str) -> None:
    attention, x = made(form, torch.float64), torch.randn(1, 150, DIM, dtype=torch.float64)
    packed = whole(attention, x, (torch.arange(150) >= 70).long().unsqueeze(0))
    assert_close(packed[:, :70], whole(attention, x[:, :70]), atol=1e-6, rtol=1e-6)
    assert_close(packed[:, 70:], whole(attention, x[:, 70:]), atol=1e-6, rtol=1e-6)


@every_form
def test_another_document_does_not_change_a_bit(whole: Any, form: str) -> None:
    attention, x = made(form), torch.randn(1, 100, DIM)
    ids = ((torch.arange(100) >= 40).long() + (torch.arange(100) >= 60)).unsqueeze(0)
    changed = x.clone()
    changed[:, 40:60] = torch.randn(1, 20, DIM)
    before, after = whole(attention, x, ids), whole(attention, changed, ids)
    assert torch.equal(before[:, :40], after[:, :40])
    assert torch.equal(before[:, 60:], after[:, 60:])
    assert not torch.equal(before[:, 40:60], after[:, 40:60])


@every_form
def test_no_token_reads_a_later_one_and_earlier_ones_are_read(whole: Any, form: str) -> None:
    attention, x = made(form), torch.randn(1, 12, DIM).requires_grad_()
    out = whole(attention, x)
    for t in (0, 5):
        (slope,) = torch.autograd.grad(out[0, t].square().sum(), x, retain_graph=True)
        assert not slope[0, t + 1 :].any()
        assert slope[0, : t + 1].abs().sum(-1).all()


@every_form
def test_the_state_has_one_size_and_is_float32(form: str) -> None:
    attention = made(form, torch.bfloat16)
    short, long = (attention.make_state(2, length, torch.bfloat16, torch.device("cpu")) for length in (1, 1000))
    assert not long.streams
    assert {name: r.shape for name, r in short.registers.items()} == {
        name: r.shape for name, r in long.registers.items()
    }
    assert {register.dtype for register in long.registers.values()} == {torch.float32}


@every_form
def test_bfloat16_runs_and_decodes_near_float32(whole: Any, in_calls: Any, form: str) -> None:
    attention, x = made(form, torch.bfloat16), torch.randn(1, 9, DIM).bfloat16()
    exact = whole(attention.float(), x.float())
    attention.bfloat16()
    for found in (whole(attention, x), in_calls(attention, x, [4, 1, 3, 1])):
        assert found.dtype == torch.bfloat16
        assert_close(found.float(), exact, atol=0.06 * float(exact.detach().abs().max()), rtol=0.1)


@every_form
def test_every_parameter_gets_a_finite_gradient(whole: Any, form: str) -> None:
    attention = made(form)
    whole(attention, torch.randn(2, 70, DIM)).square().sum().backward()
    for name, parameter in attention.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@every_form
def test_what_is_no_matrix_has_not_two_axes(form: str) -> None:
    """By which optimizers tell them apart: a weight with two axes is read by a product, and nothing else has two."""
    attention = made(form)
    products = {id(module.weight) for module in attention.modules() if isinstance(module, nn.Linear)}
    odd = {name for name, p in attention.named_parameters() if p.dim() == 2 and id(p) not in products}
    assert odd <= {"dt_weight"}


def spec(form: str, **changes: Any) -> dict[str, Any]:
    block = {"attention": FORMS[form], "ffn": "gated"}
    sizes = {"vocab_size": 13, "dim": DIM, "context_length": 70}
    return {"lamina": 1, **sizes, "norm": "rms", "position": "none", "block": block, "layers": 2, **changes}


@every_form
def test_fresh_weights_draw_from_the_seed_and_give_moving_finite_logits(form: str) -> None:
    resolved = resolve_data(spec(form), REGISTRY)
    token_ids = torch.randint(13, (2, 70))
    logits = [build(resolved, seed=seed)(token_ids) for seed in (0, 0, 1)]
    assert logits[0].isfinite().all()
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])


@every_form
def test_what_inspect_counts_is_known(form: str) -> None:
    report = account(resolve_data(spec(form), REGISTRY))
    assert not report.notes
    assert report.flops_forward
    assert report.cache is not None
    assert report.cache.per_token == 0
    assert report.cache.total > 0


@pytest.mark.parametrize(
    ("form", "position"), [(f, p) for f in ("mamba2", "deltanet") for p in ("rope", "alibi")] + [("retention", "alibi")]
)
def test_a_position_that_cannot_act_is_refused(form: str, position: str) -> None:
    with pytest.raises(SpecError, match=position):
        resolve_data(spec(form, position=position), REGISTRY)
