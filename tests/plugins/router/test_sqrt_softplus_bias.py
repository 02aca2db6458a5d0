from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.testing import assert_close

from lamina.core import BiasedTopKConfig, Context, Router
from lamina.plugins.router.sqrt_softplus_bias import SqrtSoftplusBias

D, E = 4, 6


def test_routing_is_that_of_deepseek_v4_in_transformers(
    reference: Callable[..., Any], dense: Callable[..., Tensor], context: Context
) -> None:
    options = {"n_routed_experts": E, "num_experts_per_tok": 3, "routed_scaling_factor": 1.5, "hidden_size": D}
    other = reference("deepseek_v4", "DeepseekV4TopKRouter", "DeepseekV4Config", **options)
    router = SqrtSoftplusBias(BiasedTopKConfig(experts_per_token=3, scale=1.5), D, E)
    router.linear.weight.data.copy_(other.weight)
    router.bias.copy_(other.e_score_correction_bias)
    x = torch.randn(9, D)
    _, weights, indices = other(x)
    routing = router(x, context)
    assert_close(dense(routing.weights, routing.indices, E), dense(weights, indices, E))


def test_scores_are_the_root_of_a_softplus(context: Context, draw: Callable[[Router], Router]) -> None:
    router, x = draw(SqrtSoftplusBias(BiasedTopKConfig(renormalise=False), D, E)), torch.randn(7, D)
    scores = (1 + (x @ router.linear.weight.T).exp()).log().sqrt()
    routing = router(x, context)
    assert_close(routing.weights, scores.topk(2).values)


def test_gradients_are_right_in_float64(float64: Callable[..., None], draw: Callable[[Router], Router]) -> None:
    float64(draw(SqrtSoftplusBias(BiasedTopKConfig(), D, E)), torch.randn(5, D))
