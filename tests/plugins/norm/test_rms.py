"""RMSNorm against its formula, torch and Gemma's own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.testing import assert_close

from lamina.core import ConfigProblem
from lamina.plugins.norm.rms import RMSNorm, RMSNormConfig


def randomised(norm: RMSNorm) -> RMSNorm:
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    return norm


@given(eps=st.sampled_from([1e-6, 1e-5, 0.1]), size=st.integers(1, 9), offset=st.sampled_from([0.0, 1.0]))
def test_rms_follows_its_formula(eps: float, size: int, offset: float) -> None:
    norm = randomised(RMSNorm(RMSNormConfig(eps=eps, offset=offset), size))
    x = torch.randn(2, 3, size) * 0.3
    rows = [row / (sum(float(e) ** 2 for e in row) / size + eps) ** 0.5 for row in x.view(-1, size)]
    assert_close(norm(x), torch.stack(rows).view_as(x) * (norm.weight + offset))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gemma_form_equals_transformers(dtype: torch.dtype) -> None:
    gemma = pytest.importorskip("transformers.models.gemma.modeling_gemma")
    reference, norm = gemma.GemmaRMSNorm(16, eps=1e-6), randomised(RMSNorm(RMSNormConfig(offset=1.0), 16))
    reference.load_state_dict(norm.state_dict())
    x = torch.randn(2, 3, 16).to(dtype)
    assert_close(norm.to(dtype)(x), reference.to(dtype)(x), atol=1e-6, rtol=1e-6)  # to the bit in bfloat16


@pytest.mark.parametrize("offset", [0.0, 1.0, 0.5])
def test_a_new_norm_scales_by_one_whatever_the_offset(offset: float) -> None:
    x = torch.randn(4, 8)
    assert_close(RMSNorm(RMSNormConfig(offset=offset), 8)(x), F.rms_norm(x, (8,), eps=1e-6))


def test_affine_false_has_no_parameters() -> None:
    norm = RMSNorm(RMSNormConfig(affine=False), 8)
    assert not list(norm.parameters())
    x = torch.randn(4, 8)
    assert_close(norm(x).square().mean(-1), torch.ones(4))


def test_an_offset_without_a_weight_is_refused() -> None:
    with pytest.raises(ConfigProblem, match="affine: false has none"):
        RMSNormConfig(affine=False, offset=1.0).derive()


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_half_precision_takes_its_mean_in_float32(offset: float) -> None:
    norm = RMSNorm(RMSNormConfig(offset=offset), 256).to(torch.bfloat16)
    x = (torch.randn(4, 256) * 1e3).to(torch.bfloat16)
    out = norm(x)
    assert out.dtype == torch.bfloat16
    assert_close(out, F.rms_norm(x.double(), (256,), eps=1e-6).to(torch.bfloat16), rtol=1e-2, atol=0)


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_gradients_are_right(offset: float) -> None:
    norm = randomised(RMSNorm(RMSNormConfig(offset=offset), 5)).double()
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    call = torch.func.functional_call
    assert torch.autograd.gradcheck(lambda x, weight: call(norm, {"weight": weight}, x), (x, norm.weight))


def test_a_weight_kept_in_float32_serves_half_precision_without_a_warning() -> None:
    assert RMSNorm(RMSNormConfig(), 8)(torch.randn(2, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize(("family", "options"), [("llama", {"round_first": True}), ("gpt_oss", {})])
def test_bfloat16_rounds_where_the_family_does(family: str, options: dict[str, bool]) -> None:
    """Bit for bit: Llama rounds, then multiplies; GPT-OSS and Gemma multiply in float32, then round."""
    modeling = pytest.importorskip(f"transformers.models.{family}.modeling_{family}")
    theirs = getattr(modeling, {"llama": "LlamaRMSNorm", "gpt_oss": "GptOssRMSNorm"}[family])(64, eps=1e-6)
    norm = randomised(RMSNorm(RMSNormConfig(**options), 64))
    theirs.load_state_dict(norm.state_dict())
    x = torch.randn(64, 64).to(torch.bfloat16)
    assert norm.to(torch.bfloat16)(x).equal(theirs.to(torch.bfloat16)(x))


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_rounding_first_changes_nothing_in_float32(offset: float) -> None:
    norm, x = randomised(RMSNorm(RMSNormConfig(offset=offset, round_first=True), 8)), torch.randn(3, 8)
    assert_close(norm(x), F.rms_norm(x, (8,), norm.weight + offset, 1e-6))


def test_rounding_first_without_a_weight_is_refused() -> None:
    with pytest.raises(ConfigProblem, match="round_first is about the weight"):
        RMSNormConfig(affine=False, round_first=True).derive()
