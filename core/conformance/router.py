"""Routers: shapes, indices in range, tokens apart, losses that are numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from lamina.core.conformance.case import VOCAB, Case, randn
from lamina.core.conformance.checks import NotApplicable, Wrong, check
from lamina.core.conformance.texts import same
from lamina.core.context import Context, Span
from lamina.core.router import Router, RouterLinear, Routing

EXPERTS = 8  # as Case.sizes says


def route(router: Router, x: Tensor) -> Routing:
    """(N, D) -> Routing, of tokens whose ids are 0, 1, …"""
    ids = (torch.arange(x.shape[0]) % VOCAB).unsqueeze(0)
    return router(x, Context(ids, Span.run(0, x.shape[0], x.device)))


@check("router", name="routing")
@torch.no_grad()
def a_routing_is_whole(case: Case) -> None:
    """Logits and scores (N, E), weights and indices (N, k), experts from 0 to E - 1, weights finite."""
    router: Router = case.build(dtype=torch.float32)
    k = router.experts_per_token
    if not isinstance(k, int) or not 1 <= k <= EXPERTS:
        raise Wrong(f"experts_per_token from 1 to {EXPERTS}", repr(k))
    fixed = case.entry.component.tokenwise  # type: ignore[attr-defined]
    for n in (1, 2, 7):
        routing = route(router, randn(n, case.dim, dtype=torch.float32))
        most = k if fixed else routing.indices.shape[-1]  # a mean of k where tokens differ
        for name, shape in (("logits", EXPERTS), ("scores", EXPERTS), ("weights", most), ("indices", most)):
            tensor: Tensor = getattr(routing, name)
            if tuple(tensor.shape) != (n, shape):
                raise Wrong(f"{name} of the shape {(n, shape)}", f"{tuple(tensor.shape)}", tokens=n)
        if routing.indices.dtype != torch.int64:
            raise Wrong("indices of int64", str(routing.indices.dtype))
        if int(routing.indices.min()) < 0 or int(routing.indices.max()) >= EXPERTS:
            raise Wrong(f"indices from 0 to {EXPERTS - 1}", f"{routing.indices.tolist()}", tokens=n)
        if not routing.weights.isfinite().all():
            raise Wrong("finite weights", f"{routing.weights.tolist()}", tokens=n)


@check("router", name="tokens apart")
@torch.no_grad()
def tokens_are_apart(case: Case) -> None:
    """In evaluation a token's experts and weights are those it has alone, and the same every time."""
    router: Router = case.build(dtype=torch.float32)
    if not router.tokenwise:
        raise NotApplicable("it says that it weighs tokens against each other")
    for n in (2, 3, 9):
        x = randn(n, case.dim, dtype=torch.float32)
        routing, again = route(router, x), route(router, x)
        if not torch.equal(routing.indices, again.indices) or not torch.equal(routing.weights, again.weights):
            raise Wrong("the same routing every time in evaluation", "another", tokens=n)
        first = route(router, x[:1])  # its id, 0, is that of the first in the row too
        same(first.weights, routing.weights[:1], "a token to be routed as it is alone", 1e-4, tokens=n)
        if not torch.equal(first.indices, routing.indices[:1]):
            raise Wrong("a token to be routed as it is alone", f"{routing.indices[0].tolist()}", tokens=n)


@check("router", name="losses")
def losses_are_numbers(case: Case) -> None:
    """In training losses are finite scalars with finite gradients; in evaluation there are none."""
    router: Router = case.build(dtype=torch.float32)
    x = randn(7, case.dim, dtype=torch.float32).requires_grad_()
    if losses := route(router.eval(), x).losses:
        raise Wrong("no losses in evaluation", f"{', '.join(losses)}")
    router.train()
    routing = route(router, x)
    for name, loss in routing.losses.items():
        if loss.shape != () or not loss.isfinite():
            raise Wrong("losses that are finite scalars", f"'{name}' is {loss.detach().tolist()}")
    total = routing.weights.sum() + sum(routing.losses.values())
    if total.requires_grad:
        total.backward()  # type: ignore[no-untyped-call]
    for parameter, value in router.named_parameters():
        if value.grad is not None and not value.grad.isfinite().all():
            raise Wrong("finite gradients", f"'{parameter}' has others")
    router.after_step()
    with torch.no_grad():
        route(router.eval(), x)


@check("router", name="weight sum")
@torch.no_grad()
def weights_add_up_as_stated(case: Case) -> None:
    """A token's weights add up to what `weight_sum` says, in training too."""
    router: Router = case.build(dtype=torch.float32)
    stated = router.weight_sum
    if stated is None:
        raise NotApplicable("it says that they add up to this or that")
    for training in (False, True):
        for n in (1, 7):
            weights = route(router.train(training), randn(n, case.dim, dtype=torch.float32)).weights
            why = f"weights that add up to {stated:g}"
            same(weights.sum(-1), torch.full((n,), stated), why, 1e-4, tokens=n, training=training)


@check("router", name="learns")
def some_gradient_reaches_it(case: Case) -> None:
    """Where a router has parameters, its weights or losses have a gradient that is not zero."""
    router: Router = case.build(dtype=torch.float32).train()
    parameters = [parameter for parameter in router.parameters() if parameter.requires_grad]
    if not parameters:
        raise NotApplicable("it has nothing to learn")
    routing = route(router, randn(7, case.dim, dtype=torch.float32))
    # Each weight counts otherwise, as each expert does: the sum of renormalised weights is the same whatever it learns.
    total = (routing.weights * randn(*routing.weights.shape, dtype=torch.float32)).sum() + sum(routing.losses.values())
    if total.requires_grad:
        total.backward()  # type: ignore[no-untyped-call]
    if not any(p.grad is not None and bool(p.grad.any()) for p in parameters):
        raise Wrong("a gradient that is not zero for some parameter", "none", tokens=7)


@check("router", name="balanced loss")
def the_stated_constant_is_true(case: Case) -> None:
    """At an even load the balance loss is what `balanced_loss` says, times its weight."""
    stated = getattr(case.entry.component, "balanced_loss", None)
    if stated is None:
        raise NotApplicable("it declares no balanced_loss")
    router: Router = case.build(dtype=torch.float32).train()
    last = [module for module in router.modules() if isinstance(module, RouterLinear) and len(module.weight) == EXPERTS]
    if len(last) != 1:
        raise NotApplicable("it has not one RouterLinear whose logits could be set to an even load")
    with torch.no_grad():
        for name, buffer in router.named_buffers():
            if buffer.is_floating_point() and name:
                buffer.zero_()
    ranked = torch.linspace(2.0, -2.0, EXPERTS)
    logits = torch.stack([ranked.roll(shift) for shift in range(EXPERTS)])  # every expert first of one token
    object.__setattr__(last[0], "forward", lambda x: logits)
    losses = route(router, randn(EXPERTS, case.dim, dtype=torch.float32)).losses
    weighted = {name: weight for name in losses if (weight := _weight(case, name)) is not None}
    if not weighted:
        raise NotApplicable("with these options it has no balance loss")
    for name, weight in weighted.items():
        same(losses[name].detach(), torch.tensor(stated * weight), f"{stated:g} · {weight:g} at an even load", 1e-4)


def _weight(case: Case, loss: str) -> float | None:
    """The option that weighs a loss: `balance_loss` for a loss whose name ends in `balance`."""
    options = {name: value for name, value in vars(case.part.config).items() if name.endswith("_loss")}
    found = [
        value for name, value in options.items() if "balance" in name and loss.endswith(name.removesuffix("_loss"))
    ]
    return float(found[0]) if found else None
