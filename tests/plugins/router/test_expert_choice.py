from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from lamina.core import ConfigProblem, Context, Router, Span
from lamina.plugins.router.expert_choice import ExpertChoice, ExpertChoiceConfig

D, E = 4, 5
CONTEXT = Context(torch.zeros(1, 1, dtype=torch.int64), Span.run(0, 1, torch.device("cpu")))


def make(k: int = 2) -> ExpertChoice:
    router = ExpertChoice(ExpertChoiceConfig(experts_per_token=k, allow_non_causal=True), D, E)
    nn.init.normal_(router.linear.weight)
    return router


@settings(max_examples=30)
@given(n=st.integers(1, 17), k=st.integers(1, E), seed=st.integers(0, 99))
def test_every_expert_takes_the_tokens_that_suit_it_best(n: int, k: int, seed: int) -> None:
    torch.manual_seed(seed)
    router, x = make(k), torch.randn(n, D)
    routing = router(x, CONTEXT)
    scores = (x @ router.linear.weight.T).softmax(-1)
    capacity = -(-n * k // E)
    expected = torch.zeros(n, E)
    for expert in range(E):
        for token in sorted(range(n), key=lambda t: scores[t, expert].item(), reverse=True)[:capacity]:
            expected[token, expert] = scores[token, expert]
    found = torch.zeros(n, E)
    for t in range(n):
        for weight, expert, kept in zip(routing.weights[t], routing.indices[t], routing.kept[t], strict=True):
            found[t, expert] += weight * kept
    assert_close(found, expected)
    assert routing.load().tolist() == [capacity] * E
    assert routing.indices.shape[1] == max(1, int((expected > 0).sum(1).max()))


def test_on_the_meta_device_a_token_has_as_many_experts_as_on_average() -> None:
    with torch.device("meta"):
        routing = ExpertChoice(ExpertChoiceConfig(allow_non_causal=True), D, E)(torch.empty(7, D), CONTEXT)
    assert routing.indices.shape == routing.weights.shape == (7, 2)


def test_it_is_refused_unless_the_spec_says_that_it_need_not_be_causal() -> None:
    with pytest.raises(ConfigProblem, match="ranks each token against later ones") as caught:
        ExpertChoiceConfig().derive(n_experts=E)
    assert caught.value.field == "allow_non_causal"
    assert "allow_non_causal: true" in caught.value.hint
    assert ExpertChoiceConfig(allow_non_causal=True).derive(n_experts=E) == {}
    with pytest.raises(ConfigProblem, match="must be at most n_experts"):
        ExpertChoiceConfig(experts_per_token=6, allow_non_causal=True).derive(n_experts=E)


def test_what_it_is_refused_for_is_true() -> None:
    """A later token takes an earlier one's expert."""
    router = ExpertChoice(ExpertChoiceConfig(experts_per_token=1, allow_non_causal=True), 2, 2)
    with torch.no_grad():
        router.linear.weight.copy_(torch.eye(2))
    before = router(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), CONTEXT)
    after = router(torch.tensor([[1.0, 0.0], [2.0, 0.0]]), CONTEXT)
    assert (before.indices[0, 0], after.indices[0, 0]) == (0, 1)


def test_gradients_are_right_in_float64(float64: Callable[[Router, Tensor], None]) -> None:
    torch.manual_seed(0)
    float64(make(), torch.randn(6, D))
