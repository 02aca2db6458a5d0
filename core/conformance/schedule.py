"""Schedules: a finite factor from 0 to 1 for every step, the same whenever it is asked for."""

from __future__ import annotations

import math

from lamina.core.conformance.case import Case
from lamina.core.conformance.checks import Wrong, check
from lamina.core.optimizer import Schedule

RUNS = (1, 2, 3, 4, 5, 7, 10, 33, 100, 1000)


@check("schedule", name="factors")
def factors_are_in_range(case: Case) -> None:
    """For step 0 … n_steps - 1 the factor is a number from 0 to 1, and not 0 throughout."""
    schedule: Schedule = case.build()
    for n_steps in RUNS:
        factors = []
        for step in range(n_steps):
            try:
                factor = schedule.factor(step, n_steps)
            except ArithmeticError as error:
                raise Wrong("a factor", f"{type(error).__name__}: {error}", n_steps=n_steps, step=step) from error
            if not isinstance(factor, (int, float)) or not math.isfinite(factor) or not 0 <= factor <= 1 + 1e-12:
                raise Wrong("a factor from 0 to 1", repr(factor), n_steps=n_steps, step=step)
            factors.append(factor)
        if max(factors) == 0:
            raise Wrong("a step whose factor is not 0", "none", n_steps=n_steps)


@check("schedule", name="pure")
def it_is_a_function(case: Case) -> None:
    """The factor follows from step and n_steps alone: a resumed run asks for the middle first."""
    one, other = case.build(), case.build()
    for n_steps in RUNS[:-1]:
        forth = [one.factor(step, n_steps) for step in range(n_steps)]
        back = [other.factor(step, n_steps) for step in reversed(range(n_steps))][::-1]
        for step, (a, b) in enumerate(zip(forth, back, strict=True)):
            if a != b:
                raise Wrong(
                    "one factor for a step, whatever was asked before", f"{a} and {b}", n_steps=n_steps, step=step
                )
