from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from lamina.core import ConfigProblem, Context
from lamina.plugins.router.hash import Hash, HashConfig

D, E, V = 4, 5, 60


def make(layer: int = 0, vocab_size: int = V, n_experts: int = E, **options: object) -> Hash:
    return Hash(HashConfig(**options), D, n_experts, vocab_size, layer)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_every_expert_gets_as_many_ids_at_every_choice_and_no_id_the_same_expert_twice(k: int) -> None:
    table = make(experts_per_token=k).table
    assert table.shape == (V, k)
    for choice in table.T:
        assert torch.bincount(choice, minlength=E).tolist() == [V // E] * E
    assert all(len(set(row)) == k for row in table.tolist())


def test_ids_that_do_not_divide_evenly_differ_by_one_at_most() -> None:
    load = torch.bincount(make(vocab_size=58).table.flatten(), minlength=E)
    assert load.max() - load.min() == 1


def test_the_table_follows_from_seed_and_layer() -> None:
    assert make(seed=3, experts_per_token=2).table.equal(make(seed=3, experts_per_token=2).table)
    assert not make(seed=3).table.equal(make(seed=4).table)
    assert not make(layer=0).table.equal(make(layer=1).table)


def test_the_tokens_id_alone_decides_and_weights_share_the_scale(context_of: Callable[[Tensor], Context]) -> None:
    router, ids = make(experts_per_token=2, scale=1.5), torch.randint(V, (2, 4))
    routing = router(torch.randn(8, D), context_of(ids))
    assert routing.indices.tolist() == [router.table[i].tolist() for i in ids.flatten()]
    assert_close(routing.weights, torch.full((8, 2), 0.75))
    assert_close(routing.entropy(), torch.full((8,), 2.0).log())
    assert list(router.parameters()) == []


def test_a_gate_weighs_as_deepseek_v4_in_transformers(
    reference: Callable[..., Any], dense: Callable[..., Tensor], context_of: Callable[[Tensor], Context]
) -> None:
    options = {"n_routed_experts": E, "num_experts_per_tok": 3, "routed_scaling_factor": 1.5, "hidden_size": D}
    other = reference("deepseek_v4", "DeepseekV4HashRouter", "DeepseekV4Config", vocab_size=V, **options)
    router = make(experts_per_token=3, score="sqrt_softplus", scale=1.5)
    router.linear.weight.data.copy_(other.weight)
    other.tid2eid.copy_(router.table)
    x, ids = torch.randn(8, D), torch.randint(V, (2, 4))
    _, weights, indices = other(x, ids)
    routing = router(x, context_of(ids))
    assert_close(dense(routing.weights, routing.indices, E), dense(weights, indices, E))


def test_the_table_is_saved_and_outlives_a_change_of_precision() -> None:
    router = make(experts_per_token=2)
    other = make(experts_per_token=2, seed=9)
    other.load_state_dict(router.state_dict())
    assert other.table.equal(router.table)
    assert router.bfloat16().table.dtype == torch.int64


def test_it_is_built_on_the_meta_device_too() -> None:
    with torch.device("meta"):
        router = make(experts_per_token=2, score="softmax")
    assert router.table.is_meta
    assert router.linear.weight.is_meta


def test_a_gates_gradients_are_right_in_float64(context_of: Callable[[Tensor], Context]) -> None:
    router = make(experts_per_token=2, score="softmax").double()
    nn.init.normal_(router.linear.weight)
    x = torch.randn(6, D, dtype=torch.float64, requires_grad=True)
    context = context_of(torch.randint(V, (1, 6)))
    assert torch.autograd.gradcheck(lambda *_: router(x, context).weights, [x, router.linear.weight])


def test_a_gate_of_a_single_choice_is_refused() -> None:
    with pytest.raises(ConfigProblem, match="always 1") as caught:
        HashConfig(score="sigmoid").derive(n_experts=E)
    assert caught.value.field == "score"
    with pytest.raises(ConfigProblem, match="must be at most n_experts"):
        HashConfig(experts_per_token=6).derive(n_experts=E)
