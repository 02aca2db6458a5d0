from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from lamina.core import ConfigProblem, Context, Router
from lamina.plugins.router.noisy_top_k import NoisyTopK, NoisyTopKConfig

D, E, K, N = 4, 6, 2, 9

Draw = Callable[[Router], Router]


def variation(amounts: list[float]) -> float:
    mean = sum(amounts) / len(amounts)
    return sum((a - mean) ** 2 for a in amounts) / len(amounts) / mean**2


def by_hand(router: NoisyTopK, x: Tensor, noise: Tensor) -> tuple[Tensor, float, float]:
    """Gates (N, E) and both losses, from the paper's equations one token at a time."""
    gates, importance, load = torch.zeros(len(x), E), [0.0] * E, [0.0] * E
    for t, row in enumerate(x):
        clean = (router.linear.weight @ row).tolist()
        deviation = [math.log1p(math.exp(v)) + 1e-6 for v in (router.noise.weight @ row).tolist()]
        noisy = [clean[e] + noise[t, e].item() * deviation[e] for e in range(E)]
        best = sorted(range(E), key=lambda e: noisy[e], reverse=True)[:K]
        for e in best:
            gates[t, e] = math.exp(noisy[e]) / sum(math.exp(noisy[i]) for i in best)
            importance[e] += gates[t, e].item()
        for e in range(E):
            rival = sorted((noisy[i] for i in range(E) if i != e), reverse=True)[K - 1]
            load[e] += 0.5 * (1 + math.erf((clean[e] - rival) / deviation[e] / math.sqrt(2)))
    return gates, variation(importance), variation(load)


def test_gates_and_losses_are_the_papers_equations(context: Context, draw: Draw, dense: Callable[..., Tensor]) -> None:
    router = draw(NoisyTopK(NoisyTopKConfig(importance_loss=0.3, load_loss=0.7), D, E)).train()
    x = torch.randn(N, D)
    torch.manual_seed(5)
    routing = router(x, context)
    torch.manual_seed(5)
    gates, importance, load = by_hand(router, x, torch.randn(N, E))
    assert_close(dense(routing.weights, routing.indices, E), gates)
    assert_close(routing.losses["router_importance"].item(), 0.3 * importance)
    assert_close(routing.losses["router_load"].item(), 0.7 * load)


def test_outside_training_there_is_no_noise_and_no_loss(context: Context, draw: Draw) -> None:
    router, x = draw(NoisyTopK(NoisyTopKConfig(), D, E)).eval(), torch.randn(N, D)
    routing = router(x, context)
    best = F.linear(x, router.linear.weight).topk(K)
    assert_close(routing.weights, best.values.softmax(-1))
    assert routing.indices.tolist() == best.indices.tolist()
    assert routing.losses == {}


def test_noise_follows_from_the_generator_alone(context: Context, draw: Draw) -> None:
    router, x = draw(NoisyTopK(NoisyTopKConfig(), D, E)).train(), torch.randn(N, D)
    torch.manual_seed(1)
    first = router(x, context)
    again = router(x, context)
    torch.manual_seed(1)
    assert router(x, context).scores.equal(first.scores)
    assert not again.scores.equal(first.scores)


def test_losses_of_an_even_load_are_zero(context: Context) -> None:
    router = NoisyTopK(NoisyTopKConfig(), E, E).train()
    with torch.no_grad():
        router.linear.weight.copy_(40 * torch.eye(E) + 40 * torch.eye(E).roll(1, 0))
        router.noise.weight.fill_(-30.0)  # hardly any noise
    losses = router(torch.eye(E), context).losses
    assert_close(losses["router_importance"].item(), 0.0, atol=1e-6, rtol=0)
    assert_close(losses["router_load"].item(), 0.0, atol=1e-6, rtol=0)


def test_descending_the_losses_evens_the_load(context: Context, draw: Draw) -> None:
    torch.manual_seed(0)
    router, x = draw(NoisyTopK(NoisyTopKConfig(), D, E)), torch.randn(64, D)
    with torch.no_grad():
        x[:, 0] = 1.0
        router.linear.weight[0, 0] += 4.0
    before = router.eval()(x, context).load().float().std()
    optimizer = torch.optim.Adam(router.parameters(), 0.05)
    for _ in range(80):
        optimizer.zero_grad()
        sum(router.train()(x, context).losses.values()).backward()
        optimizer.step()
    assert router.eval()(x, context).load().float().std() < before / 2


def test_gradients_reach_both_matrices_and_are_right_in_float64(draw: Draw, context: Context) -> None:
    router = draw(NoisyTopK(NoisyTopKConfig(), D, E)).train().double()
    x = torch.randn(N, D, dtype=torch.float64, requires_grad=True)

    def losses(*_: Tensor) -> Tensor:
        torch.manual_seed(2)
        routing = router(x, context)
        return torch.cat([routing.weights.flatten(), torch.stack(list(routing.losses.values()))])

    assert torch.autograd.gradcheck(losses, [x, *router.parameters()])
    losses().square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in router.parameters())


@pytest.mark.parametrize(("k", "message"), [(1, "weight of 1"), (E, "where all are"), (E + 1, "must be at most")])
def test_a_number_of_choices_that_cannot_work_is_refused(k: int, message: str) -> None:
    with pytest.raises(ConfigProblem, match=message) as caught:
        NoisyTopKConfig(experts_per_token=k).derive(n_experts=E)
    assert caught.value.field == "experts_per_token"
