from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.testing import assert_close

from lamina.core import Activation, Context, Router
from lamina.plugins.router.mlp import MLPRouter, MLPRouterConfig

D, F, E = 6, 5, 4

Draw = Callable[[Router], Router]


class GELU(Activation):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.gelu(x)


def make(draw: Draw, **options: object) -> MLPRouter:
    router = draw(MLPRouter(MLPRouterConfig(hidden_dim=F, **options), D, E, GELU()))
    assert isinstance(router, MLPRouter)
    return router


def test_logits_are_those_of_torchs_layers(draw: Draw, context: Context) -> None:
    router, x = make(draw, n_hidden=2), torch.randn(7, D)
    network = nn.Sequential(nn.Linear(D, F), nn.GELU(), nn.Linear(F, F), nn.GELU(), nn.Linear(F, E, bias=False))
    for layer, source in zip(network[::2], (*router.hidden, router.linear), strict=True):
        layer.load_state_dict(source.state_dict())
    routing = router(x, context)
    p = network(x).softmax(-1)
    assert_close(routing.logits, network(x))
    best = p.topk(2).values
    assert_close(routing.weights, best / best.sum(-1, keepdim=True))


def test_without_bias_it_has_matrices_only(draw: Draw) -> None:
    assert set(make(draw, bias=False).state_dict()) == {"hidden.0.weight", "linear.weight"}


def test_groups_scale_and_losses_are_honoured(draw: Draw, context: Context) -> None:
    options = {"n_groups": 2, "groups_per_token": 1, "group_score": "max", "scale": 2.0, "balance_loss": 1.0}
    routing = make(draw, **options).train()(torch.randn(9, D), context)
    assert (routing.indices[:, 0] // 2 == routing.indices[:, 1] // 2).all()
    assert_close(routing.weights.sum(-1), torch.full((9,), 2.0))
    fractions = torch.bincount(routing.indices.flatten(), minlength=E) / 18
    assert_close(routing.losses["router_balance"], E * (fractions * routing.logits.softmax(-1).mean(0)).sum())


def test_it_is_an_eighth_as_wide_inside_unless_told() -> None:
    assert MLPRouterConfig().derive(n_experts=E, dim=96) == {"hidden_dim": 12}
    assert MLPRouterConfig().derive(n_experts=E, dim=4) == {"hidden_dim": 1}
    assert MLPRouterConfig(hidden_dim=7).derive(n_experts=E, dim=96) == {}


def test_gradients_are_right_in_float64(float64: Callable[..., None], draw: Draw) -> None:
    float64(make(draw), torch.randn(5, D))


def test_logits_stay_float32_in_bfloat16(draw: Draw, context: Context) -> None:
    router, x = make(draw).bfloat16(), torch.randn(5, D).bfloat16()
    low = router(x, context).logits
    assert low.dtype == torch.float32
    assert_close(low, router.float()(x.float(), context).logits)
