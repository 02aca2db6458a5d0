from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from lamina.core import ConfigProblem, Context, ScoredTopKConfig, Span
from lamina.plugins.router.softmax_top_k import SoftmaxTopK

CONTEXT = Context(torch.zeros(1, 1, dtype=torch.int64), Span.run(0, 1, torch.device("cpu")))


def make_router(dim: int, n_experts: int, **options: object) -> SoftmaxTopK:
    router = SoftmaxTopK(ScoredTopKConfig(**options), dim, n_experts)
    nn.init.normal_(router.linear.weight)
    return router


@given(n_experts=st.integers(1, 9), data=st.data())
@settings(max_examples=25, deadline=None)
def test_weights_are_the_largest_probabilities_scaled_to_sum_to_one(n_experts: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n_experts))
    router, x = make_router(4, n_experts, experts_per_token=k), torch.randn(6, 4)
    routing = router(x, CONTEXT)
    probabilities = torch.softmax(x @ router.linear.weight.T, -1)
    assert_close(routing.weights.sum(-1), torch.ones(6))
    assert all(len(set(row)) == k for row in routing.indices.tolist())
    chosen = probabilities.gather(1, routing.indices)
    left_out = probabilities.scatter(1, routing.indices, -1.0).amax(-1)
    assert (chosen.amin(-1) >= left_out).all()
    assert_close(routing.weights, chosen / chosen.sum(-1, keepdim=True))


def test_weights_stay_probabilities_when_not_renormalised() -> None:
    router, x = make_router(4, 5, renormalise=False), torch.randn(6, 4)
    routing = router(x, CONTEXT)
    assert_close(routing.weights, (x @ router.linear.weight.T).softmax(-1).gather(1, routing.indices))
    assert (routing.weights.sum(-1) < 1).all()


def test_gradients_reach_the_router() -> None:
    router = make_router(4, 5)
    router(torch.randn(6, 4), CONTEXT).weights[:, 0].sum().backward()
    assert router.linear.weight.grad.abs().sum() > 0


def one_hot_routing(rows: list[int], **options: object) -> dict[str, torch.Tensor]:
    """The losses when row i strongly prefers expert rows[i] and next to it the one after, of four."""
    router = make_router(4, 4, **options).train()
    with torch.no_grad():
        router.linear.weight.copy_(20 * torch.eye(4) + 15 * torch.eye(4).roll(1, 0))
    return router(torch.eye(4)[rows], CONTEXT).losses


def test_balance_loss_of_an_even_load_is_the_constant_on_the_class_for_any_k() -> None:
    for k in (1, 2, 3):
        losses = one_hot_routing([0, 1, 2, 3], experts_per_token=k, balance_loss=0.5, renormalise=False)
        assert_close(losses["router_balance"].item(), 0.5 * SoftmaxTopK.balanced_loss)


def test_balance_loss_of_a_collapsed_router_is_n_experts_over_k() -> None:
    losses = one_hot_routing([2, 2, 2, 2], experts_per_token=2, balance_loss=1.0)
    assert_close(losses["router_balance"].item(), 2.0)  # f is 1/2 on two experts that hold all the probability: 4 · 1/2


def test_balance_loss_is_the_formula_counted_by_hand() -> None:
    router, x = make_router(3, 4, balance_loss=0.7).train(), torch.randn(5, 3)
    routing = router(x, CONTEXT)
    chosen = routing.indices.flatten().tolist()
    probabilities = (x @ router.linear.weight.T).softmax(-1)
    by_hand = sum(chosen.count(e) / 10 * probabilities[:, e].mean() for e in range(4)) * 4
    assert_close(routing.losses["router_balance"], 0.7 * by_hand)


def test_descending_the_balance_loss_evens_the_load() -> None:
    torch.manual_seed(0)
    router, x = make_router(4, 4, balance_loss=1.0).train(), torch.randn(64, 4)
    with torch.no_grad():
        router.linear.weight[0] += 2 * router.linear.weight[0].sign()
    before = router(x, CONTEXT).load().float().std()
    optimizer = torch.optim.Adam(router.parameters(), 0.05)
    for _ in range(60):
        optimizer.zero_grad()
        router(x, CONTEXT).losses["router_balance"].backward()
        optimizer.step()
    assert router(x, CONTEXT).load().float().std() < before / 2


def test_z_loss_of_equal_logits_is_the_squared_log_of_their_number() -> None:
    router = make_router(4, 8, z_loss=0.3).train()
    nn.init.zeros_(router.linear.weight)
    loss = router(torch.randn(5, 4), CONTEXT).losses["router_z"]
    assert_close(loss, 0.3 * torch.tensor(8.0).log() ** 2)


def test_losses_are_worked_out_only_in_training_and_only_when_weighted() -> None:
    x = torch.randn(5, 4)
    assert make_router(4, 4, balance_loss=1.0, z_loss=1.0).eval()(x, CONTEXT).losses == {}
    assert make_router(4, 4).train()(x, CONTEXT).losses == {}
    assert set(make_router(4, 4, balance_loss=1.0, z_loss=1.0).train()(x, CONTEXT).losses) == {
        "router_balance",
        "router_z",
    }


def test_logits_are_float32_under_autocast_and_for_bfloat16_inputs() -> None:
    router, x = make_router(16, 4), torch.randn(5, 16)
    exact = x @ router.linear.weight.T
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(router(x, CONTEXT).logits, exact)
    low = router(x.bfloat16(), CONTEXT).logits
    assert_close(low, x.bfloat16().float() @ router.linear.weight.T)


def test_load_counts_choices() -> None:
    routing = make_router(4, 6)(torch.randn(9, 4), CONTEXT)
    assert routing.load().tolist() == torch.bincount(routing.indices.flatten(), minlength=6).tolist()


def test_more_experts_a_token_than_there_are_is_refused() -> None:
    with pytest.raises(ConfigProblem, match=r"experts_per_token \(3\) must be at most n_experts \(2\)") as caught:
        ScoredTopKConfig(experts_per_token=3).derive(n_experts=2)
    assert caught.value.field == "experts_per_token"


def test_renormalising_a_single_choice_is_refused_because_the_router_would_not_learn() -> None:
    with pytest.raises(ConfigProblem, match="always 1") as caught:
        ScoredTopKConfig(experts_per_token=1).derive(n_experts=4)
    assert caught.value.field == "renormalise"
    assert ScoredTopKConfig(experts_per_token=1, renormalise=False).derive(n_experts=4) == {}


def test_routing_is_that_of_deepseek_v2_in_transformers(
    reference: Callable[..., Any], dense: Callable[..., torch.Tensor]
) -> None:
    groups = {"n_group": 3, "topk_group": 2, "topk_method": "group_limited_greedy", "routed_scaling_factor": 16.0}
    options = {"n_routed_experts": 9, "num_experts_per_tok": 4, "hidden_size": 4, "num_attention_heads": 1}
    other = reference("deepseek_v2", "DeepseekV2TopkRouter", "DeepseekV2Config", **groups, **options)
    own = {"n_groups": 3, "groups_per_token": 2, "group_score": "max", "scale": 16.0}
    router = make_router(4, 9, experts_per_token=4, renormalise=False, **own)
    router.linear.weight.data.copy_(other.weight)
    x = torch.randn(30, 4)
    _, weights, indices = other(x)
    routing = router(x, CONTEXT)
    assert_close(dense(routing.weights, routing.indices, 9), dense(weights, indices, 9))
    free = make_router(4, 9, experts_per_token=4, renormalise=False, scale=16.0)
    free.load_state_dict(router.state_dict())
    assert not dense(routing.weights, routing.indices, 9).equal(dense(*vars_of(free, x), 9)), "groups must matter"


def vars_of(router: SoftmaxTopK, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    routing = router(x, CONTEXT)
    return routing.weights, routing.indices


@pytest.mark.parametrize("renormalise", [True, False])
def test_routing_is_that_of_qwen2_moe_in_transformers(
    renormalise: bool, reference: Callable[..., Any], dense: Callable[..., torch.Tensor]
) -> None:
    options = {"num_experts": 6, "num_experts_per_tok": 3, "hidden_size": 4, "norm_topk_prob": renormalise}
    other = reference("qwen2_moe", "Qwen2MoeTopKRouter", "Qwen2MoeConfig", **options)
    router = make_router(4, 6, experts_per_token=3, renormalise=renormalise)
    router.linear.weight.data.copy_(other.weight)
    x = torch.randn(9, 4)
    _, weights, indices = other(x)
    assert_close(dense(*vars_of(router, x), 6), dense(weights, indices, 6))


def test_jitter_is_noise_of_training_alone() -> None:
    router, x = make_router(4, 6, jitter=0.5), torch.randn(9, 4)
    plain = router.eval()(x, CONTEXT).logits
    assert_close(plain, x @ router.linear.weight.T)
    torch.manual_seed(3)
    noisy = router.train()(x, CONTEXT).logits
    assert not noisy.allclose(plain)
    torch.manual_seed(3)
    assert router(x, CONTEXT).logits.equal(noisy)


def test_gradients_are_right_in_float64(float64: Callable[..., None]) -> None:
    float64(make_router(4, 5), torch.randn(5, 4))
