from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lamina.core import LaminaError
from lamina.core.build import build, build_part
from lamina.core.registry import load_plugins
from lamina.core.resolve import resolve_data, resolve_part

REGISTRY = load_plugins(only=[])
MOE = {"name": "moe", "n_experts": 2, "router": {"name": "softmax_top_k", "experts_per_token": 1, "renormalise": False}}


def decoder(ffn: Any = "mlp", **spec: Any) -> nn.Module:
    block = {"attention": {"name": "gqa", "n_heads": 2, "bias": True}, "ffn": ffn}
    sizes = {"vocab_size": 24, "dim": 8, "context_length": 8, "layers": 2}
    return build(resolve_data({"lamina": 1, "norm": "rms", "position": "learned", **sizes, "block": block, **spec}))


def optimizer(model: nn.Module, learning_rate: float = 0.01, **options: Any) -> torch.optim.Optimizer:
    part = resolve_part("optimizer", {"name": "muon", **options}, REGISTRY)
    made: torch.optim.Optimizer = build_part(part).make(model.named_parameters(), learning_rate)
    return made


def take_steps(model: nn.Module, *optimizers: torch.optim.Optimizer, steps: int = 3) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        model.zero_grad()
        model(torch.randint(0, 24, (2, 8), generator=generator)).square().mean().backward()
        for one in optimizers:
            one.step()


def held(model: nn.Module, group: dict[str, Any]) -> set[str]:
    ids = {id(parameter) for parameter in group["params"]}
    return {name for name, parameter in model.named_parameters() if id(parameter) in ids}


@pytest.mark.parametrize(("scale", "torchs"), [("match_adamw", "match_rms_adamw"), ("original", "original")])
def test_hidden_matrices_step_by_torchs_muon_and_the_rest_by_adamw(scale: str, torchs: str) -> None:
    ours = decoder(head={"tied": False}).double()
    theirs = copy.deepcopy(ours)
    hidden = [p for n, p in theirs.named_parameters() if n.startswith("layers.") and p.ndim == 2]
    outside = [p for n, p in theirs.named_parameters() if not n.startswith("layers.") and p.ndim == 2]
    vectors = [p for p in theirs.parameters() if p.ndim == 1]
    assert len(hidden) == 2 * 4
    assert len(outside) == 3  # tokens, positions, head
    mixed = optimizer(ours, 0.02, scale=scale, weight_decay=0.3, momentum=0.9, nesterov=False, ns_steps=3)
    take_steps(ours, mixed)
    take_steps(
        theirs,
        torch.optim.Muon(
            hidden, lr=0.02, weight_decay=0.3, momentum=0.9, nesterov=False, ns_steps=3, adjust_lr_fn=torchs
        ),
        torch.optim.AdamW(
            [{"params": outside, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
            lr=0.02, betas=(0.9, 0.95),
        ),
    )  # fmt: skip
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert_close(a, b)


def test_a_step_has_singular_values_near_one() -> None:
    model = decoder()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    take_steps(model, optimizer(model, 1.0, scale="original", weight_decay=0.0, ns_steps=8), steps=1)
    for name, parameter in model.named_parameters():
        if name.endswith(("qkv.weight", "out.weight", "up.weight", "down.weight")):
            rows, columns = parameter.shape
            moved = (before[name] - parameter.detach()) / max(1, rows / columns) ** 0.5
            values = torch.linalg.svdvals(moved)
            assert values.min() > 0.5
            assert values.max() < 1.4


def test_patterns_send_matrices_to_the_others() -> None:
    model = decoder(MOE)
    first, *rest = optimizer(model, others_names=["layers.*.router.*"]).param_groups
    assert not any("router" in name for name in held(model, first))
    assert any("router" in name for group in rest for name in held(model, group))
    assert any("router" in name for name in held(model, optimizer(model).param_groups[0]))


def test_a_pattern_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(LaminaError, match=r"no parameter's name matches 'layers\.\*\.gate'") as caught:
        optimizer(decoder(), others_names=["layers.*.gate"])
    assert "layers.0." in str(caught.value)


def test_every_parameter_belongs_to_one_optimizer() -> None:
    model = decoder(MOE, head={"tied": True})
    groups = [held(model, group) for group in optimizer(model, others="lion").param_groups]
    assert sum(map(len, groups)) == len(set().union(*groups)) == len(list(model.named_parameters()))


def test_the_others_may_have_a_learning_rate_of_their_own() -> None:
    first, *rest = optimizer(decoder(), 0.02, others_learning_rate=0.003).param_groups
    assert "base_lr" not in first
    assert [(group["lr"], group["base_lr"]) for group in rest] == [(0.003, 0.003)] * 2


def test_without_hidden_matrices_all_is_the_others() -> None:
    model = nn.Linear(3, 3)
    (matrices, vectors) = optimizer(model).param_groups
    assert held(model, matrices) == {"weight"}
    assert held(model, vectors) == {"bias"}
