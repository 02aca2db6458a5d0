"""What routers share: groups, weights, losses, noise, float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from lamina.core import (
    BiasedTopKConfig,
    ConfigProblem,
    GroupedTopKConfig,
    RouterLinear,
    Routing,
    best_experts,
    jitter,
    weights_of,
)


def chosen_by_hand(scores: list[float], k: int, n_groups: int, groups_per_token: int, by: str) -> list[int]:
    """From the papers: rank the groups, keep the best, take the best experts of those."""
    size = len(scores) // n_groups
    groups = [list(range(g * size, (g + 1) * size)) for g in range(n_groups)]

    def rank(group: list[int]) -> float:
        best = sorted((scores[e] for e in group), reverse=True)
        return best[0] if by == "max" else best[0] + best[1]

    kept = sorted(groups, key=rank, reverse=True)[:groups_per_token]
    return sorted(sorted((e for group in kept for e in group), key=lambda e: scores[e], reverse=True)[:k])


@given(
    n_groups=st.integers(2, 4),
    size=st.integers(2, 4),
    by=st.sampled_from(["max", "top2_sum"]),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_only_experts_of_the_best_groups_are_chosen(
    n_groups: int, size: int, by: str, seed: int, data: st.DataObject
) -> None:
    groups_per_token = data.draw(st.integers(1, n_groups))
    k = data.draw(st.integers(1, groups_per_token * size))
    config = GroupedTopKConfig(
        experts_per_token=k, renormalise=False, n_groups=n_groups, groups_per_token=groups_per_token, group_score=by
    )
    scores = torch.randn(5, n_groups * size, generator=torch.Generator().manual_seed(seed))  # negative ones too
    found = best_experts(scores, config).sort(-1).values
    assert found.tolist() == [chosen_by_hand(row, k, n_groups, groups_per_token, by) for row in scores.tolist()]


def test_weights_are_renormalised_and_then_scaled() -> None:
    affinities, indices = torch.tensor([[0.1, 0.5, 0.3, 0.1]]), torch.tensor([[1, 3]])
    renormalised = weights_of(affinities, indices, GroupedTopKConfig(scale=3.0))
    assert_close(renormalised, torch.tensor([[2.5, 0.5]]))
    assert_close(weights_of(affinities, indices, GroupedTopKConfig(renormalise=False)), torch.tensor([[0.5, 0.1]]))
    nothing = weights_of(torch.zeros(1, 4), indices, GroupedTopKConfig())
    assert nothing.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("order", [1.0, 2.0, 3.5])
def test_renormalised_weights_have_a_norm_of_one(order: float) -> None:
    affinities, indices = torch.rand(5, 6), torch.tensor([[1, 3, 0]] * 5)
    weights = weights_of(affinities, indices, GroupedTopKConfig(norm_order=order))
    chosen = affinities[:, [1, 3, 0]]
    assert_close(weights, chosen / (chosen**order).sum(-1, keepdim=True) ** (1 / order))


def test_an_order_without_a_norm_is_refused() -> None:
    with pytest.raises(ConfigProblem, match="norm_order says nothing without renormalise") as caught:
        GroupedTopKConfig(norm_order=2.0, renormalise=False).derive(n_experts=4)
    assert caught.value.field == "norm_order"


def test_what_ranks_a_group_is_filled_in_and_stays() -> None:
    groups = {"n_groups": 2, "groups_per_token": 1}
    assert GroupedTopKConfig(**groups).derive(n_experts=4) == {"group_score": "max"}
    assert BiasedTopKConfig(**groups).derive(n_experts=4) == {"group_score": "top2_sum"}
    assert GroupedTopKConfig(**groups, group_score="top2_sum").derive(n_experts=4) == {}
    assert GroupedTopKConfig().derive(n_experts=4) == {}


@pytest.mark.parametrize(("options", "field", "message"), [
    ({"groups_per_token": 1}, "groups_per_token", "says nothing where n_groups is 1"),
    ({"group_score": "max"}, "group_score", "says nothing where n_groups is 1"),
    ({"n_groups": 4}, "n_groups", r"n_experts \(6\) must be a multiple of n_groups \(4\)"),
    ({"n_groups": 3}, "n_groups", r"groups_per_token must be given, from 1 to n_groups \(3\)"),
    ({"n_groups": 3, "groups_per_token": 4}, "groups_per_token", r"from 1 to n_groups \(3\)"),
    ({"n_groups": 3, "groups_per_token": 1, "experts_per_token": 3}, "groups_per_token", "hold 2 experts, fewer than"),
    ({"n_groups": 6, "groups_per_token": 2, "group_score": "top2_sum"}, "group_score", "has no two best"),
    ({"experts_per_token": 7}, "experts_per_token", r"experts_per_token \(7\) must be at most n_experts \(6\)"),
])  # fmt: skip
def test_groups_that_do_not_fit_are_refused_at_their_field(
    options: dict[str, object], field: str, message: str
) -> None:
    with pytest.raises(ConfigProblem, match=message) as caught:
        GroupedTopKConfig(**options).derive(n_experts=6)
    assert caught.value.field == field
    assert caught.value.hint


def test_jitter_multiplies_by_noise_within_its_bounds() -> None:
    noisy = jitter(torch.full((2000,), 3.0), 0.25)
    assert 2.25 <= noisy.min() < 2.3
    assert 3.7 < noisy.max() <= 3.75


@pytest.mark.parametrize("bias", [False, True])
def test_router_logits_have_right_gradients_in_float64(bias: bool) -> None:
    linear = RouterLinear(4, 3, bias=bias).double()
    for parameter in linear.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    assert linear(x).dtype == torch.float64
    assert torch.autograd.gradcheck(linear, x)


def routing(logits: Tensor, indices: list[list[int]], kept: Tensor | None = None) -> Routing:
    found = torch.tensor(indices)
    return Routing(logits, logits, torch.ones_like(found), found, kept=kept)


def test_entropy_is_that_of_the_softmax() -> None:
    even = torch.zeros(1, 4)
    sure = torch.tensor([[0.0, -torch.inf, -torch.inf, -torch.inf]])
    logits = torch.randn(3, 4)
    assert_close(routing(even, [[0]]).entropy(), torch.tensor([4.0]).log())
    assert_close(routing(sure, [[0]]).entropy(), torch.tensor([0.0]))
    assert_close(routing(logits, [[0]]).entropy(), torch.distributions.Categorical(logits=logits).entropy())


def test_load_leaves_out_what_is_no_choice() -> None:
    kept = torch.tensor([[True, False], [True, True]])
    assert routing(torch.zeros(2, 3), [[0, 1], [0, 2]], kept).load().tolist() == [2, 0, 1]
    assert routing(torch.zeros(2, 3), [[0, 1], [0, 2]]).load().tolist() == [2, 1, 1]
