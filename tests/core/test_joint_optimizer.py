"""Several optimizers as one: the steps of each, and state that is saved and loaded as one optimizer's."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lamina.core import JointOptimizer
from lamina.core.resolve import resolve_data
from lamina.core.train import Trainer, create_run, open_run, set_learning_rate


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def parts(model: nn.Sequential) -> list[torch.optim.Optimizer]:
    return [
        torch.optim.SGD(model[0].parameters(), lr=0.1, momentum=0.9),
        torch.optim.AdamW(model[1].parameters(), lr=0.2),
    ]


def take_steps(model: nn.Module, *optimizers: torch.optim.Optimizer, steps: int = 3, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        model.zero_grad()
        model(torch.randn(5, 3, generator=generator)).square().sum().backward()
        for optimizer in optimizers:
            optimizer.step()


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_it_steps_as_its_optimizers_would_apart() -> None:
    together, apart = model(), model()
    take_steps(together, JointOptimizer(parts(together)))
    take_steps(apart, *parts(apart))
    assert same(together, apart)


def test_its_state_goes_through_a_file_and_on_to_the_same_bits() -> None:
    straight = model()
    optimizer = JointOptimizer(parts(straight))
    take_steps(straight, optimizer)
    resumed = copy.deepcopy(straight)
    state = copy.deepcopy(optimizer.state_dict())
    state["param_groups"] = json.loads(json.dumps(state["param_groups"]))
    other = JointOptimizer(parts(resumed))
    other.load_state_dict(state)
    take_steps(straight, optimizer, seed=1)
    take_steps(resumed, other, seed=1)
    assert same(straight, resumed)


def test_a_copy_goes_on_by_itself() -> None:
    first = model()
    optimizer = JointOptimizer(parts(first))
    take_steps(first, optimizer)
    second, other = copy.deepcopy((first, optimizer))
    take_steps(second, other, seed=1)
    assert not same(first, second)
    take_steps(first, optimizer, seed=1)
    assert same(first, second)


def test_learning_rates_reach_its_optimizers_after_loading_too() -> None:
    trained = model()
    optimizer = JointOptimizer(parts(trained))
    for _ in range(2):
        before = copy.deepcopy(trained)
        set_learning_rate(optimizer, 0.0, 0.1)
        take_steps(trained, optimizer)
        assert same(before, trained)
        optimizer.load_state_dict(optimizer.state_dict())


def test_a_parameter_in_two_optimizers_is_refused() -> None:
    shared = model()
    with pytest.raises(ValueError, match="more than one parameter group"):
        JointOptimizer([*parts(shared), torch.optim.SGD(shared[0].parameters(), lr=0.1)])


SPEC: dict[str, Any] = {
    "lamina": 1,
    "name": "small",
    "tokenizer": "byte",
    "dim": 8,
    "context_length": 8,
    "position": "learned",
    "norm": "rms",
    "block": {"attention": {"name": "gqa", "n_heads": 2}, "ffn": {"name": "mlp", "bias": True}},
    "layers": 1,
}
OPTIMIZERS = [
    "adafactor",
    "lion",
    {"name": "muon", "others_learning_rate": 2e-3},
    {"name": "muon", "others": "adafactor"},
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_a_run_that_was_stopped_ends_with_the_same_bits(optimizer: Any, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat. " * 40)
    options = {"steps": 4, "batch_size": 2, "save_every": 2, "eval_every": 0, "schedule": "wsd", "optimizer": optimizer}
    whole, again = tmp_path / "whole", tmp_path / "again"
    Trainer(create_run(resolve_data({**SPEC, "train": options}), text, whole)).train()
    shutil.copytree(whole, again)
    shutil.rmtree(again / "checkpoints" / "step-00000004")
    trainer = Trainer(open_run(again))
    assert trainer.step == 2
    assert trainer.optimizer.state_dict()["state"]
    trainer.train()
    for name in ("model.safetensors", "state.safetensors", "state.json"):
        last = Path("checkpoints", "step-00000004", name)
        assert (again / last).read_bytes() == (whole / last).read_bytes(), name
