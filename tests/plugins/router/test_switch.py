from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.testing import assert_close

from lamina.core import Context, Router
from lamina.plugins.router.switch import Switch, SwitchConfig

D, E = 4, 5


def test_routing_is_that_of_switch_in_transformers(reference: Callable[..., Any], context: Context) -> None:
    options = {"num_experts": E, "hidden_size": D, "expert_capacity": 99}
    other = reference("switch_transformers", "SwitchTransformersTop1Router", "SwitchTransformersConfig", **options)
    router = Switch(SwitchConfig(), D, E).eval()
    router.linear.weight.data.copy_(other.classifier.weight)
    x = torch.randn(9, D)
    one_hot, probability, logits = other(x.unsqueeze(0))
    routing = router(x, context)
    assert_close(routing.logits, logits[0])
    assert_close(routing.weights, probability[0])
    assert routing.indices.tolist() == one_hot[0].argmax(-1, keepdim=True).tolist()


def test_balance_loss_of_an_even_load_is_its_weight(context: Context) -> None:
    router = Switch(SwitchConfig(balance_loss=0.03, jitter=0.0), E, E).train()
    with torch.no_grad():
        router.linear.weight.copy_(3 * torch.eye(E))
    assert_close(router(torch.eye(E), context).losses["router_balance"].item(), 0.03 * Switch.balanced_loss)


def test_balance_loss_is_the_papers_formula(context: Context, draw: Callable[[Router], Router]) -> None:
    router, x = draw(Switch(SwitchConfig(balance_loss=0.7, jitter=0.0), D, E)).train(), torch.randn(11, D)
    p = (x @ router.linear.weight.T).softmax(-1)
    f = [sum(row.argmax() == e for row in p) / 11 for e in range(E)]
    assert_close(router(x, context).losses["router_balance"], 0.7 * E * sum(f[e] * p[:, e].mean() for e in range(E)))


def test_noise_on_the_input_is_small_of_training_alone_and_follows_from_the_seed(
    context: Context, draw: Callable[[Router], Router]
) -> None:
    router, x = draw(Switch(SwitchConfig(jitter=0.1), D, E)), torch.randn(30, D)
    plain = router.eval()(x, context).logits
    torch.manual_seed(3)
    noisy = router.train()(x, context).logits
    torch.manual_seed(3)
    assert router(x, context).logits.equal(noisy)
    assert not noisy.equal(plain)
    most = 0.1 * x.abs() @ router.linear.weight.abs().T
    assert ((noisy - plain).abs() <= most * 1.0001).all()
    assert ((noisy - plain).abs() > most / 4).any()


def test_gradients_are_right_in_float64(float64: Callable[..., None], draw: Callable[[Router], Router]) -> None:
    float64(draw(Switch(SwitchConfig(), D, E)).eval(), torch.randn(5, D))
