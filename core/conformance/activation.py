"""Activations: a function of one number."""

from __future__ import annotations

import torch

from lamina.core.conformance.case import Case, randn
from lamina.core.conformance.checks import Wrong, check
from lamina.core.conformance.texts import same


@check("activation", name="each number by itself")
@torch.no_grad()
def each_number_by_itself(case: Case) -> None:
    """Any shape is kept, and every number is mapped as it is alone."""
    activation = case.build()
    for shape in ((1,), (6,), (2, 3), (2, 3, 4)):
        x = randn(*shape) * 2
        want = torch.stack([activation(number) for number in torch.split(x.flatten(), 1)]).view(shape)
        same(activation(x), want, "every number mapped as it is alone", shape=shape)


@check("activation", name="zero at zero")
@torch.no_grad()
def zero_is_as_declared(case: Case) -> None:
    """Zero stays zero, unless `zero_at_zero` says that it does not."""
    declared = case.entry.component.zero_at_zero  # type: ignore[attr-defined]
    found = float(case.build()(torch.zeros(1, dtype=torch.float64)))
    if (abs(found) < 1e-4) != declared:
        raise Wrong("zero at zero" if declared else "zero_at_zero = False to be true", f"{found:g}")


@check("activation", name="finite")
def it_stays_finite(case: Case) -> None:
    """Numbers far from zero have finite values and gradients, in float32 and bfloat16."""
    for dtype in (torch.float32, torch.bfloat16):
        activation = case.build(dtype=dtype)
        for number in (0.0, 1.0, -1.0, 30.0, -30.0, 200.0, -200.0, 1e4, -1e4):
            x = torch.full((2,), number, dtype=dtype, requires_grad=True)
            y = activation(x)
            (gradient,) = torch.autograd.grad(y.sum(), x, allow_unused=True)
            if not y.isfinite().all() or (gradient is not None and not gradient.isfinite().all()):
                raise Wrong("a finite value and gradient", f"{y[0].item():g}, {gradient}", dtype=dtype, input=number)
