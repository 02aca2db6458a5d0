from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.testing import assert_close

from lamina.core import Context, Router, ScoredTopKConfig
from lamina.plugins.router.sigmoid_top_k import SigmoidTopK

D, E = 4, 6


def test_routing_is_that_of_llama4_in_transformers(
    reference: Callable[..., Any], dense: Callable[..., Tensor], context: Context
) -> None:
    options = {"num_local_experts": E, "num_experts_per_tok": 3, "hidden_size": D, "num_attention_heads": 1}
    other = reference("llama4", "Llama4Router", "Llama4TextConfig", **options)
    router = SigmoidTopK(ScoredTopKConfig(experts_per_token=3, renormalise=False), D, E)
    router.linear.weight.data.copy_(other.weight)
    x = torch.randn(9, D)
    scores, _ = other(x)
    routing = router(x, context)
    assert_close(dense(routing.weights, routing.indices, E), scores)


def test_the_balance_loss_is_of_scores_that_sum_to_one(context: Context, draw: Callable[[Router], Router]) -> None:
    router, x = draw(SigmoidTopK(ScoredTopKConfig(balance_loss=0.5), D, E)).train(), torch.randn(7, D)
    routing = router(x, context)
    scores = 1 / (1 + (-x @ router.linear.weight.T).exp())
    shares = (scores / scores.sum(-1, keepdim=True)).mean(0)
    chosen = routing.indices.flatten().tolist()
    by_hand = E * sum(chosen.count(e) / 14 * shares[e] for e in range(E))
    assert_close(routing.losses["router_balance"], 0.5 * by_hand)


def test_gradients_are_right_in_float64(float64: Callable[..., None], draw: Callable[[Router], Router]) -> None:
    float64(draw(SigmoidTopK(ScoredTopKConfig(), D, E)), torch.randn(5, D))
