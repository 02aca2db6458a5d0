from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.testing import assert_close

from lamina.core import BiasedTopKConfig, Context, Router
from lamina.plugins.router.softmax_bias import SoftmaxBias

D, E = 4, 6


def test_routing_is_that_of_longcat_flash_in_transformers(
    reference: Callable[..., Any], dense: Callable[..., Tensor], context: Context
) -> None:
    options = {"n_routed_experts": 4, "zero_expert_num": 2, "moe_topk": 3, "routed_scaling_factor": 6.0}
    other = reference("longcat_flash", "LongcatFlashTopkRouter", "LongcatFlashConfig", hidden_size=D, **options)
    router = SoftmaxBias(BiasedTopKConfig(experts_per_token=3, renormalise=False, scale=6.0), D, E)
    router.linear.weight.data.copy_(other.classifier.weight)
    router.bias.copy_(other.e_score_correction_bias)
    x = torch.randn(9, D)
    logits, weights, indices = other(x)
    routing = router(x, context)
    assert_close(routing.logits, logits)
    assert_close(dense(routing.weights, routing.indices, E), dense(weights, indices, E))


def test_routing_is_that_of_ernie_4_5_in_transformers(
    reference: Callable[..., Any], dense: Callable[..., Tensor], context: Context
) -> None:
    options = {"moe_num_experts": E, "moe_k": 2, "moe_norm_min": 0.9}
    other = reference("ernie4_5_moe", "Ernie4_5_MoeTopKRouter", "Ernie4_5_MoeConfig", hidden_size=D, **options)
    router = SoftmaxBias(BiasedTopKConfig(eps=0.9), D, E)
    router.linear.weight.data.copy_(other.weight)
    router.bias.copy_(other.moe_statics.e_score_correction_bias[0])
    x = torch.randn(40, D)
    _, weights, indices = other(x)
    routing = router(x, context)
    assert_close(dense(routing.weights, routing.indices, E), dense(weights, indices, E))
    assert (routing.weights.sum(-1) < 0.99).any(), "for some tokens the divisor must be eps"


def test_gradients_are_right_in_float64(float64: Callable[..., None], draw: Callable[[Router], Router]) -> None:
    float64(draw(SoftmaxBias(BiasedTopKConfig(), D, E)), torch.randn(5, D))


def test_a_step_moves_the_bias_against_the_load(context: Context, draw: Callable[[Router], Router]) -> None:
    router = draw(SoftmaxBias(BiasedTopKConfig(bias_update_rate=0.01), D, E)).train()
    load = router(torch.randn(11, D), context).load()
    router.after_step()
    assert_close(router.bias, 0.01 * torch.sign(load.sum() / E - load))
