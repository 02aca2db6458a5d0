"""A block against its formula, written out for every placement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_specs import REGISTRY, build_moved, tokens
from torch import Tensor
from torch.testing import assert_close

from lamina.core.block import Block
from lamina.core.context import Context, Span
from lamina.core.errors import SpecError
from lamina.core.resolve import PLACEMENTS, resolve_data

Formula = Callable[..., Tensor]


def block(placement: str, residual: Any = "plain", **changes: Any) -> Block:
    data = {
        "lamina": 1,
        "vocab_size": 23,
        "dim": 16,
        "context_length": 16,
        "norm": "rms",
        "block": {
            "attention": {"name": "gqa", "n_heads": 2},
            "ffn": "mlp",
            "placement": placement,
            "residual": residual,
            **changes,
        },
        "layers": 1,
        "init": {"std": 0.3},
    }
    return build_moved(resolve_data(data, REGISTRY)).blocks[0]


def run(made: Block, formula: Formula, join: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """What the block gives and what the formula gives."""
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(3))
    context = Context(tokens(2, 5), Span.run(0, 5, torch.device("cpu")))
    parts: dict[str, Any] = {"a": lambda h: made.attention(h, context), "f": lambda h: made.ffn(h, context)}
    norms = [n for n in (made.attention_in, made.attention_out, made.attention_after) if n is not None]
    norms += [n for n in (made.ffn_in, made.ffn_out, made.ffn_after) if n is not None]
    return made(x, context), formula(x, join, parts["a"], parts["f"], *norms)


FORMULAS: dict[str, Formula] = {
    "none": lambda x, j, a, f: j(y := j(x, a(x)), f(y)),
    "pre": lambda x, j, a, f, n, m: j(y := j(x, a(n(x))), f(m(y))),
    "post": lambda x, j, a, f, n, m: m(j(y := n(j(x, a(x))), f(y))),
    "output": lambda x, j, a, f, n, m: j(y := j(x, n(a(x))), m(f(y))),
    "sandwich": lambda x, j, a, f, n, o, m, p: j(y := j(x, o(a(n(x)))), p(f(m(y)))),
    "parallel": lambda x, j, a, f, n: j(x, a(n(x)) + f(n(x))),
    "parallel_two": lambda x, j, a, f, n, m: j(x, a(n(x)) + f(m(x))),
}


@pytest.mark.parametrize("placement", FORMULAS)
@pytest.mark.parametrize("factor", [None, 0.5])
@torch.no_grad()
def test_a_placement_is_its_formula(placement: str, factor: float | None) -> None:
    residual = "plain" if factor is None else {"name": "scaled", "factor": factor}
    found, expected = run(block(placement, residual), FORMULAS[placement], lambda x, y: x + y * (factor or 1.0))
    assert_close(found, expected)


def test_every_placement_has_a_formula() -> None:
    assert FORMULAS.keys() == PLACEMENTS.keys()


@torch.no_grad()
def test_the_ffn_may_join_by_a_residual_of_its_own() -> None:
    made = block("pre", {"name": "scaled", "factor": 0.5}, ffn_residual={"name": "scaled", "factor": 0.25})
    x = torch.randn(2, 5, 16)
    context = Context(tokens(2, 5), Span.run(0, 5, torch.device("cpu")))
    assert made.attention_in is not None
    assert made.ffn_in is not None
    y = x + 0.5 * made.attention(made.attention_in(x), context)  # type: ignore[misc]
    assert_close(made(x, context), y + 0.25 * made.ffn(made.ffn_in(y), context))  # type: ignore[misc]


def test_an_ffn_residual_that_joins_nothing_is_refused() -> None:
    with pytest.raises(SpecError, match="ffn_residual joins nothing: the block has no ffn"):
        block("pre", ffn=None, ffn_residual="plain")
    with pytest.raises(SpecError, match="ffn_residual joins nothing: in a parallel flow one residual joins both"):
        block("parallel", ffn_residual="plain")


@torch.no_grad()
def test_slots_may_be_filled_one_by_one() -> None:
    made = block("none", attention_after="rms", ffn_in="layer")
    found, expected = run(made, lambda x, j, a, f, n, m: j(y := n(j(x, a(x))), f(m(y))), torch.add)
    assert_close(found, expected)
    made = block("none", flow="parallel", attention_out="rms", ffn_after="layer")
    found, expected = run(made, lambda x, j, a, f, n, m: m(j(x, n(a(x)) + f(x))), torch.add)
    assert_close(found, expected)


@torch.no_grad()
def test_what_a_block_lacks_it_leaves_out() -> None:
    found, expected = run(block("pre", ffn=None), lambda x, j, a, f, n: j(x, a(n(x))), torch.add)
    assert_close(found, expected)
    found, expected = run(block("pre", attention=None), lambda x, j, a, f, n: j(x, f(n(x))), torch.add)
    assert_close(found, expected)
    found, expected = run(block("pre", attention=None, ffn=None), lambda x, j, a, f: x, torch.add)
    assert_close(found, expected)
