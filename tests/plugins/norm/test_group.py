"""Group norm against torch's module, transformers' grouped RMSNorm and its formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lamina.core import ConfigProblem
from lamina.plugins.norm.group import GroupNorm, GroupNormConfig


def randomised(**options: Any) -> GroupNorm:
    norm = GroupNorm(GroupNormConfig(**options), 12)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    return norm


@pytest.mark.parametrize("n_groups", [1, 3, 4])
def test_the_centred_form_equals_torch(n_groups: int) -> None:
    norm, x = randomised(n_groups=n_groups, centre=True, bias=True, eps=1e-3), torch.randn(5, 12)
    reference = nn.GroupNorm(n_groups, 12, eps=1e-3)
    reference.load_state_dict(norm.state_dict())
    assert_close(norm(x), reference(x))


def test_the_size_of_a_group_may_be_told_instead_of_their_number() -> None:
    x = torch.randn(5, 12)
    by_number, by_size = (GroupNorm(GroupNormConfig(**told), 12) for told in ({"n_groups": 3}, {"group_size": 4}))
    assert_close(by_size(x), by_number(x))
    with pytest.raises(ConfigProblem, match=r"size \(12\) must be a multiple of group_size \(5\)"):
        GroupNormConfig(group_size=5).derive(size=12)
    for told in ({}, {"n_groups": 3, "group_size": 4}):
        with pytest.raises(ConfigProblem, match="n_groups or by group_size"):
            GroupNormConfig(**told).derive(size=12)


@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("eps", [1e-6, 0.1])
def test_each_group_has_a_root_mean_square_of_its_own(offset: float, eps: float) -> None:
    norm, x = randomised(n_groups=3, eps=eps, offset=offset), torch.randn(2, 5, 12)
    groups = [x[..., g : g + 4] for g in (0, 4, 8)]
    normed = torch.cat([group / (group.square().mean(-1, keepdim=True) + eps).sqrt() for group in groups], -1)
    assert norm.weight is not None
    assert_close(norm(x), normed * (norm.weight + offset))


def test_the_offset_form_equals_transformers_grouped_norm() -> None:
    modeling = pytest.importorskip("transformers.models.qwen4_exp.modeling_qwen4_exp")
    norm, x = randomised(n_groups=3, offset=1.0), torch.randn(2, 5, 12)
    reference = modeling.Qwen4ExpTextRMSNorm(12, group_size=4)
    reference.load_state_dict(norm.state_dict())
    assert_close(norm(x), reference(x))


def test_a_new_norm_scales_by_one_and_affine_false_has_no_parameters() -> None:
    x = torch.randn(4, 12)
    bare = GroupNorm(GroupNormConfig(n_groups=3, affine=False), 12)
    assert not list(bare.parameters())
    for offset in (0.0, 1.0):
        assert_close(GroupNorm(GroupNormConfig(n_groups=3, offset=offset), 12)(x), bare(x))


def test_options_that_do_not_fit_are_refused_with_what_would() -> None:
    with pytest.raises(ConfigProblem, match=r"size \(12\) must be a multiple of n_groups \(5\)") as problem:
        GroupNormConfig(n_groups=5).derive(size=12)
    assert problem.value.hint == "use one of 1, 2, 3, 4, 6, 12"
    with pytest.raises(ConfigProblem, match="no place for a bias"):
        GroupNormConfig(n_groups=3, affine=False, bias=True).derive(size=12)
    with pytest.raises(ConfigProblem, match="offset shifts a weight"):
        GroupNormConfig(n_groups=3, affine=False, offset=1.0).derive(size=12)


def test_half_precision_stays_half() -> None:
    assert randomised(n_groups=3, bias=True)(torch.randn(2, 12, dtype=torch.bfloat16)).dtype == torch.bfloat16
