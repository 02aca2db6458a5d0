from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from lamina.core import BiasedTopKConfig, Context, Span
from lamina.plugins.router.sigmoid_bias import SigmoidBias

CONTEXT = Context(torch.zeros(1, 1, dtype=torch.int64), Span.run(0, 1, torch.device("cpu")))


def make_router(dim: int = 4, n_experts: int = 6, **options: object) -> SigmoidBias:
    router = SigmoidBias(BiasedTopKConfig(**options), dim, n_experts)
    nn.init.normal_(router.linear.weight)
    return router


def test_weights_are_the_chosen_sigmoids_scaled_to_sum_to_scale() -> None:
    router, x = make_router(scale=2.5, experts_per_token=3), torch.randn(7, 4)
    routing = router(x, CONTEXT)
    sigmoids = torch.sigmoid(x @ router.linear.weight.T)
    chosen = sigmoids.topk(3).values
    assert_close(routing.weights, 2.5 * chosen / chosen.sum(-1, keepdim=True))
    assert_close(routing.weights.sum(-1), torch.full((7,), 2.5))
    plain = make_router(renormalise=False)
    routing = plain(x, CONTEXT)
    assert_close(routing.weights, torch.sigmoid(x @ plain.linear.weight.T).gather(1, routing.indices))


def test_bias_changes_who_is_chosen_and_not_their_weights() -> None:
    router, x = make_router(experts_per_token=2), torch.randn(7, 4)
    before = router(x, CONTEXT)
    router.bias[3] = 10.0
    after = router(x, CONTEXT)
    assert (after.indices == 3).any(-1).all()
    assert not (before.indices == 3).any(-1).all()
    sigmoids = torch.sigmoid(x @ router.linear.weight.T).gather(1, after.indices)
    assert_close(after.weights, sigmoids / sigmoids.sum(-1, keepdim=True))
    router.bias.fill_(10.0)  # the same for all: nothing changes
    again = router(x, CONTEXT)
    assert_close(again.weights, before.weights)
    assert again.indices.tolist() == before.indices.tolist()


def test_gradients_reach_the_router_and_not_the_bias() -> None:
    router = make_router()
    router(torch.randn(6, 4), CONTEXT).weights[:, 0].sum().backward()
    assert router.linear.weight.grad.abs().sum() > 0
    assert not router.bias.requires_grad


def test_a_step_moves_the_bias_by_the_rate_against_the_load_of_all_passes_since_the_last() -> None:
    router = make_router(bias_update_rate=0.01).train()
    loads = sum(router(torch.randn(11, 4), CONTEXT).load() for _ in range(3))
    router.after_step()
    mean = loads.sum() / 6
    expected = [0.01 if load < mean else -0.01 if load > mean else 0.0 for load in loads]
    assert_close(router.bias, torch.tensor(expected))
    router.after_step()  # no pass since
    assert_close(router.bias, torch.tensor(expected))


def test_steps_even_out_a_lopsided_load() -> None:
    torch.manual_seed(0)
    router, x = make_router(dim=8, bias_update_rate=0.02).train(), torch.randn(128, 8)
    router.linear.weight.data[0] *= 0.01
    x[:, 0] += 1.5
    before = router(x, CONTEXT).load().float().std()
    for _ in range(100):
        router(x, CONTEXT)
        router.after_step()
    assert router(x, CONTEXT).load().float().std() < before / 3


def test_passes_outside_training_move_nothing() -> None:
    router = make_router().eval()
    router(torch.randn(11, 4), CONTEXT)
    router.train().after_step()
    assert not router.bias.any()


def test_bias_is_saved_and_the_load_is_not() -> None:
    router = make_router().train()
    router(torch.randn(11, 4), CONTEXT)
    assert set(router.state_dict()) == {"bias", "linear.weight"}


def test_initialising_zeroes_the_bias() -> None:
    router = make_router()
    router.bias.fill_(float("nan"))
    router.init_weights(0.02)
    assert router.bias.tolist() == [0.0] * 6


@pytest.mark.parametrize(("n_groups", "groups_per_token"), [(1, 1), (3, 2)])
def test_routing_is_that_of_deepseek_v3_in_transformers(
    n_groups: int, groups_per_token: int, reference: Callable[..., Any], dense: Callable[..., Tensor]
) -> None:
    options = {"num_experts_per_tok": 3, "n_routed_experts": 6, "hidden_size": 4, "routed_scaling_factor": 2.5}
    groups = {"n_group": n_groups, "topk_group": groups_per_token, "norm_topk_prob": True}
    other = reference("deepseek_v3", "DeepseekV3TopkRouter", "DeepseekV3Config", **groups, **options)
    own = (
        {"n_groups": n_groups, "groups_per_token": groups_per_token, "group_score": "top2_sum"} if n_groups > 1 else {}
    )
    router = make_router(experts_per_token=3, scale=2.5, **own)
    router.bias.copy_(other.e_score_correction_bias)
    router.linear.weight.data.copy_(other.weight)
    x = torch.randn(9, 4)
    logits, weights, indices = other(x)
    routing = router(x, CONTEXT)
    assert_close(routing.logits, logits)
    assert_close(dense(routing.weights, routing.indices, 6), dense(weights, indices, 6))


def test_gradients_are_right_in_float64(float64: Callable[..., None]) -> None:
    float64(make_router(), torch.randn(5, 4))
