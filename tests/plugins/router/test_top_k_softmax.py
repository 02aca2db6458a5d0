from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lamina.core import ConfigProblem, Context, Router, ScoredTopKConfig
from lamina.plugins.router.softmax_top_k import SoftmaxTopK
from lamina.plugins.router.top_k_softmax import TopKSoftmax, TopKSoftmaxConfig

D, E = 4, 6


def test_routing_is_that_of_gpt_oss_in_transformers(
    reference: Callable[..., Any], dense: Callable[..., Tensor], context: Context
) -> None:
    options = {"num_local_experts": E, "num_experts_per_tok": 3, "hidden_size": D}
    other = reference("gpt_oss", "GptOssTopKRouter", "GptOssConfig", **options)
    router = TopKSoftmax(TopKSoftmaxConfig(experts_per_token=3, bias=True), D, E)
    router.linear.weight.data.copy_(other.weight)
    router.linear.bias.data.copy_(other.bias)
    x = torch.randn(9, D)
    logits, weights, indices = other(x)
    routing = router(x, context)
    assert_close(routing.logits, logits)
    assert_close(dense(routing.weights, routing.indices, E), dense(weights, indices, E))


def test_without_a_bias_it_is_the_renormalised_softmax(draw: Callable[[Router], Router], context: Context) -> None:
    router, x = draw(TopKSoftmax(TopKSoftmaxConfig(), D, E)), torch.randn(9, D)
    other = SoftmaxTopK(ScoredTopKConfig(), D, E)
    other.load_state_dict(router.state_dict())
    assert_close(router(x, context).weights, other(x, context).weights)
    assert router(x, context).indices.tolist() == other(x, context).indices.tolist()


def test_balance_loss_of_an_even_load_is_its_weight(context: Context) -> None:
    router = TopKSoftmax(TopKSoftmaxConfig(balance_loss=0.5, z_loss=0.1), E, E).train()
    with torch.no_grad():
        router.linear.weight.copy_(20 * torch.eye(E) + 15 * torch.eye(E).roll(1, 0))
    losses = router(torch.eye(E), context).losses
    assert_close(losses["router_balance"].item(), 0.5 * TopKSoftmax.balanced_loss)
    assert_close(losses["router_z"], 0.1 * (torch.tensor([20.0, 15.0, 0, 0, 0, 0]).logsumexp(0) ** 2))
    assert router.eval()(torch.eye(E), context).losses == {}


def test_gradients_are_right_in_float64(float64: Callable[..., None], draw: Callable[[Router], Router]) -> None:
    float64(draw(TopKSoftmax(TopKSoftmaxConfig(bias=True), D, E)), torch.randn(5, D))


@pytest.mark.parametrize(("k", "message"), [(1, "always 1"), (7, r"must be at most n_experts \(6\)")])
def test_a_number_of_choices_that_cannot_work_is_refused(k: int, message: str) -> None:
    with pytest.raises(ConfigProblem, match=message) as caught:
        TopKSoftmaxConfig(experts_per_token=k).derive(n_experts=E)
    assert caught.value.field == "experts_per_token"
