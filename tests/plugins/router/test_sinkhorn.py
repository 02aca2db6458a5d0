from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.testing import assert_close

from lamina.core import Context, Router
from lamina.plugins.router.sinkhorn import Sinkhorn, SinkhornConfig

D, E, N = 4, 5, 12

Draw = Callable[[Router], Router]


def test_the_plan_is_that_of_scaling_rows_and_columns_in_turn(draw: Draw, context: Context) -> None:
    router, x = draw(Sinkhorn(SinkhornConfig(experts_per_token=2, iterations=5), D, E)).train(), torch.randn(N, D)
    plan = (x @ router.linear.weight.T).detach().double().exp()
    for _ in range(5):
        for row in plan:
            row /= row.sum().item()
        for column in plan.T:
            column *= N / E / column.sum().item()
    for row in plan:
        row /= row.sum().item()
    routing = router(x, context)
    assert_close(routing.scores.exp().double(), plan.detach(), atol=1e-5, rtol=1e-4)
    assert routing.indices.tolist() == plan.topk(2).indices.tolist()


def test_many_scalings_give_every_expert_its_share(draw: Draw, context: Context) -> None:
    router, x = draw(Sinkhorn(SinkhornConfig(iterations=300), D, E)).train(), torch.randn(N, D)
    plan = router(x, context).scores.exp()
    assert_close(plan.sum(1), torch.ones(N))
    assert_close(plan.sum(0), torch.full((E,), N / E), atol=1e-3, rtol=0)


def test_in_training_a_lopsided_router_loads_its_experts_nearly_evenly(draw: Draw, context: Context) -> None:
    torch.manual_seed(0)
    router, x = draw(Sinkhorn(SinkhornConfig(), D, E)), torch.randn(500, D)
    x[:, 0] = 1.0
    router.linear.weight.data[2, 0] += 6.0
    assert router.eval()(x, context).load().max() > 400
    assert router.train()(x, context).load().max() < 150


@pytest.mark.parametrize("score", ["sigmoid", "softmax"])
def test_weights_are_scores_of_the_logits(score: str, draw: Draw, context: Context) -> None:
    for k, renormalise in ((1, False), (2, True)):
        config = SinkhornConfig(experts_per_token=k, renormalise=renormalise, score=score)
        router, x = draw(Sinkhorn(config, D, E)).train(), torch.randn(N, D)
        logits = x @ router.linear.weight.T
        routing = router(x, context)
        scores = (logits.sigmoid() if score == "sigmoid" else logits.softmax(-1)).gather(1, routing.indices)
        assert_close(routing.weights, scores / scores.sum(-1, keepdim=True) if renormalise else scores)


def test_outside_training_each_token_takes_its_own_best_whatever_the_others(draw: Draw, context: Context) -> None:
    router, x = draw(Sinkhorn(SinkhornConfig(), D, E)).eval(), torch.randn(N, D)
    whole = router(x, context).indices
    assert whole.tolist() == (x @ router.linear.weight.T).argmax(-1, keepdim=True).tolist()
    assert [router(row.unsqueeze(0), context).indices.tolist() for row in x] == [[row] for row in whole.tolist()]


def test_large_logits_do_not_overflow(draw: Draw, context: Context) -> None:
    router = draw(Sinkhorn(SinkhornConfig(), D, E)).train()
    routing = router(1e4 * torch.randn(N, D), context)
    assert not routing.scores.isnan().any()
    assert routing.weights.isfinite().all()


def test_gradients_are_right_in_float64(float64: Callable[..., None], draw: Draw) -> None:
    float64(draw(Sinkhorn(SinkhornConfig(), D, E)), torch.randn(5, D))
