"""Optimizers: they descend, honour the rate of every step, and go on from a saved state to the same bits."""

from __future__ import annotations

import copy
import io

import torch
from torch import nn

from lamina.core.conformance.case import Case, randn
from lamina.core.conformance.checks import Wrong, check
from lamina.core.optimizer import Optimizer

RATE = 1e-2
SHAPES = {  # as a decoder's parameters are called
    "embedding.tokens.weight": (7, 8),
    "layers.0.attention.qkv.weight": (12, 8),
    "layers.0.attention_in.weight": (8,),
    "layers.0.ffn.experts": (2, 8, 4),
    "layers.0.ffn_residual.factor": (),
    "layers.0.ffn.down.bias": (8,),
    "head.weight": (7, 8),
}


def parameters() -> dict[str, nn.Parameter]:
    """Away from the minimum at zero."""
    return {
        name: nn.Parameter(randn(*shape, seed=i, dtype=torch.float32) + 2.0)
        for i, (name, shape) in enumerate(SHAPES.items())
    }


def make(case: Case, named: dict[str, nn.Parameter], rate: float = RATE) -> torch.optim.Optimizer:
    optimizer: Optimizer = case.build(dtype=torch.float32)
    return optimizer.make(list(named.items()), rate)


def loss(named: dict[str, nn.Parameter]) -> torch.Tensor:
    return torch.stack([(parameter.float() ** 2).sum() for parameter in named.values()]).sum()


def step(named: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, factor: float = 1.0) -> None:
    """As the trainer does it."""
    for group in optimizer.param_groups:
        group["lr"] = group.get("base_lr", RATE) * factor
    optimizer.zero_grad()
    loss(named).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


@check("optimizer", name="descends")
def it_descends(case: Case) -> None:
    """Some steps on a quadratic lower it, and move every parameter."""
    named = parameters()
    before, first = {name: p.detach().clone() for name, p in named.items()}, float(loss(named).detach())
    optimizer = make(case, named)
    for _ in range(30):
        step(named, optimizer)
    last = float(loss(named).detach())
    if not last < first:
        raise Wrong("30 steps to lower Σ w²", f"{first:.4g} became {last:.4g}")
    still = [name for name, p in named.items() if torch.equal(before[name], p)]
    if still:
        raise Wrong("every parameter to move", f"'{still[0]}' did not", shape=SHAPES[still[0]])


@check("optimizer", name="groups")
def every_parameter_has_one_group(case: Case) -> None:
    """Every parameter stands in one group, and each group has its `lr`."""
    named = parameters()
    optimizer = make(case, named)
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    for name, parameter in named.items():
        if held.count(id(parameter)) != 1:
            raise Wrong("every parameter in one group", f"'{name}' in {held.count(id(parameter))}")
    if not all("lr" in group for group in optimizer.param_groups):
        raise Wrong("an `lr` in each group", "one has none")


@check("optimizer", name="rate of the step")
def the_rate_of_the_step_is_honoured(case: Case) -> None:
    """A group's `lr` set to 0 leaves the weights as they are, decay included; a parameter without gradient stays."""
    named = parameters()
    optimizer = make(case, named)
    step(named, optimizer)
    before = {name: p.detach().clone() for name, p in named.items()}
    step(named, optimizer, factor=0.0)
    moved = [name for name, p in named.items() if not torch.equal(before[name], p)]
    if moved:
        raise Wrong("a rate of 0 to move nothing", f"'{moved[0]}' moved")
    optimizer.zero_grad(set_to_none=True)
    optimizer.step()


@check("optimizer", name="resumes")
def it_resumes_to_the_same_bits(case: Case) -> None:
    """Its state, saved and loaded into a new one, goes on to the same bits."""
    for done in (0, 1, 3):
        named = parameters()
        optimizer = make(case, named)
        for i in range(done):
            step(named, optimizer, 1.0 / (i + 1))
        file = io.BytesIO()
        torch.save(optimizer.state_dict(), file)
        file.seek(0)
        twins = copy.deepcopy(named)
        for twin in twins.values():
            twin.grad = None
        resumed = make(case, twins)
        try:
            resumed.load_state_dict(torch.load(file, weights_only=True))
        except Exception as error:
            raise Wrong("its state to load again", f"{type(error).__name__}: {error}", steps_before=done) from error
        for i in range(3):
            step(named, optimizer, 0.5 / (i + 1))
            step(twins, resumed, 0.5 / (i + 1))
        unlike = [name for name in named if not torch.equal(named[name], twins[name])]
        if unlike:
            raise Wrong("the same bits from a state saved and loaded", f"others in '{unlike[0]}'", steps_before=done)


@check("optimizer", name="repeatable")
def the_same_again(case: Case) -> None:
    """The same gradients give the same bits."""
    found = []
    for _ in range(2):
        named = parameters()
        optimizer = make(case, named)
        for _ in range(3):
            step(named, optimizer)
        found.append(named)
    unlike = [name for name in SHAPES if not torch.equal(found[0][name], found[1][name])]
    if unlike:
        raise Wrong("the same bits again", f"others in '{unlike[0]}'")
