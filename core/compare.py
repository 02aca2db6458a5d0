"""What two specs cost, side by side."""

from __future__ import annotations

from lamina.core.account import account
from lamina.core.explain import Figure
from lamina.core.resolved import ResolvedSpec


def figures(a: ResolvedSpec, b: ResolvedSpec, context: int) -> list[Figure]:
    """Parameters, cache and FLOPs of both; per token at `context`, so that they can be compared."""
    one, two = (account(spec, context=context) for spec in (a, b))
    cache = [None if report.cache is None else report.cache.per_token_at_context for report in (one, two)]
    return [
        Figure("parameters", one.total, two.total),
        Figure("active parameters", one.active, two.active),
        Figure("cache bytes per token", cache[0], cache[1]),
        Figure("FLOPs per token, forward", one.flops_forward, two.flops_forward),
        Figure("FLOPs per token, training", one.flops_training, two.flops_training),
    ]
