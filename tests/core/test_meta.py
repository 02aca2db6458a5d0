"""The quick shape rules give what torch's own meta kernels give: shapes, strides, dtypes, and refusals."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from lamina.core.meta import QuickShapes


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


X, Y, SWAPPED, ROW = meta(2, 3, 4), meta(2, 3, 4), meta(2, 4, 3).transpose(1, 2), meta(4)
HALF, WHOLE = meta(2, 3, 4, dtype=torch.bfloat16), meta(2, 3, 4, dtype=torch.int64)

CALLS: dict[str, Callable[[], Any]] = {
    "arange": lambda: torch.arange(5, device="meta"),
    "arange from, to, by": lambda: torch.arange(1, 8, 3, device="meta"),
    "arange of fractions": lambda: torch.arange(0, 1, 0.3, device="meta"),
    "arange of a dtype": lambda: torch.arange(0, 6, 2, dtype=torch.float32, device="meta"),
    "add": lambda: X + Y,
    "add a row": lambda: X + ROW,
    "add a number": lambda: X + 1,
    "add numbers of other kinds": lambda: WHOLE + 1.5,
    "add swapped axes": lambda: SWAPPED + 1,
    "add dtypes": lambda: HALF + X,
    "add in place": lambda: X.clone().add_(ROW),
    "compare": lambda: WHOLE[..., None] <= WHOLE[..., None, :],
    "and": lambda: (X > 0) & (Y > 0),
    "where": lambda: torch.where(X > 0, X, 0.0),
    "masked fill": lambda: X.masked_fill(X > 0, -torch.inf),
    "power": lambda: HALF.float().square(),
    "to": lambda: SWAPPED.to(torch.bfloat16),
    "clone": lambda: SWAPPED.clone(),
    "contiguous": lambda: SWAPPED.contiguous(),
    "gelu": lambda: F.gelu(SWAPPED),
    "silu": lambda: F.silu(HALF),
    "embedding": lambda: F.embedding(meta(2, 3, dtype=torch.int64), meta(7, 4)),
    "linear": lambda: F.linear(X, meta(5, 4)),
    "linear with a bias": lambda: F.linear(X, meta(5, 4), meta(5)),
    "mm": lambda: meta(3, 4) @ meta(5, 4).T,
    "matmul": lambda: X @ meta(2, 5, 4).mT,
    "mean": lambda: X.mean(-1),
    "mean kept": lambda: X.mean((0, -1), keepdim=True),
    "mean of all": lambda: X.mean((0, 1, 2)),
    "sum": lambda: X.sum(1, keepdim=True),
    "sum of whole numbers": lambda: (X > 0).sum((0, -1)),
    "sum of a dtype": lambda: HALF.sum(-1, dtype=torch.float32),
    "norm": lambda: torch.linalg.vector_norm(X, 1, -1, keepdim=True),
    "norm of all": lambda: torch.linalg.vector_norm(HALF, dtype=torch.float32),
    "ones like": lambda: torch.ones_like(SWAPPED),
    "zeros like of a dtype": lambda: torch.zeros_like(X, dtype=torch.bool),
    "full like": lambda: torch.full_like(WHOLE, 3.0),
    "cat": lambda: torch.cat([X, meta(2, 5, 4)], 1),
    "cat of dtypes": lambda: torch.cat([X, HALF], -1),
    "stack": lambda: torch.stack([X, Y], -1),
    "stack of dtypes": lambda: torch.stack([X, HALF]),
    "roll": lambda: SWAPPED.roll(1, -1),
    "topk": lambda: X.topk(2),
    "topk of another axis": lambda: X.topk(2, 1),
    "gather": lambda: X.gather(-1, meta(2, 3, 2, dtype=torch.int64)),
    "scatter": lambda: X.scatter(-1, meta(2, 3, 2, dtype=torch.int64), Y),
    "scatter a number": lambda: (X > 0).scatter(-1, meta(2, 3, 2, dtype=torch.int64), True),
    "scatter and add": lambda: X.scatter_add(0, meta(2, 3, 4, dtype=torch.int64), Y),
    "scatter and add in place": lambda: X.clone().scatter_add_(0, meta(2, 3, 4, dtype=torch.int64), Y),
    "tril": lambda: meta(3, 3, dtype=torch.bool).tril(),
    "softmax": lambda: X.softmax(-1),
    "softmax, wider": lambda: HALF.softmax(-1, dtype=torch.float32),
    "rms norm": lambda: F.rms_norm(X, (4,), ROW, 1e-6),
    "rms norm without a weight": lambda: F.rms_norm(HALF, (4,)),
    "layer norm": lambda: F.layer_norm(X, (4,), ROW, ROW),
    "layer norm without a bias": lambda: F.layer_norm(SWAPPED, (4,), ROW),
    "attention": lambda: F.scaled_dot_product_attention(meta(2, 4, 5, 8), *[meta(2, 2, 5, 8)] * 2, enable_gqa=True),
}

WRONG: dict[str, Callable[[], Any]] = {
    "add": lambda: X + meta(5),
    "add in place": lambda: meta(4).add_(X),
    "linear": lambda: F.linear(X, meta(5, 6)),
    "matmul": lambda: X @ meta(2, 5, 4),
    "cat": lambda: torch.cat([X, meta(3, 3, 4)], 1),
    "stack": lambda: torch.stack([X, meta(2, 3, 5)]),
    "topk": lambda: X.topk(5),
    "gather": lambda: X.gather(-1, meta(2, 3, dtype=torch.int64)),
    "scatter": lambda: X.scatter(-1, meta(2, 3, dtype=torch.int64), True),
    "rms norm": lambda: F.rms_norm(X, (5,)),
    "layer norm": lambda: F.layer_norm(X, (3,)),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_rules_give_what_torch_gives(name: str) -> None:
    def seen() -> list[tuple[Any, ...]]:
        with torch.no_grad():
            return [(t.shape, t.stride(), t.dtype, t.device) for t in tree_leaves(CALLS[name]())]

    expected = seen()
    with QuickShapes():
        assert seen() == expected


@pytest.mark.parametrize("name", WRONG)
def test_what_torch_refuses_the_rules_refuse(name: str) -> None:
    with pytest.raises(RuntimeError), torch.no_grad():
        WRONG[name]()
    with pytest.raises(RuntimeError), torch.no_grad(), QuickShapes():
        WRONG[name]()


def test_a_product_of_two_dtypes_is_refused_as_it_is_on_a_device() -> None:
    for device in ("cpu", "meta"):
        with pytest.raises(RuntimeError), torch.no_grad(), QuickShapes():
            F.linear(torch.ones(2, 4, dtype=torch.bfloat16, device=device), torch.ones(5, 4, device=device))


def test_tensors_with_content_are_left_alone() -> None:
    x = torch.randn(3, 4)
    with QuickShapes():
        assert torch.equal(x.mean(-1), x.sum(-1) / 4)
        assert torch.arange(3).tolist() == [0, 1, 2]


@pytest.mark.parametrize("spec", ["gpt2", "llama-3-8b", "deepseek-v3"])
def test_a_dry_run_imports_neither_compiler_nor_algebra(spec: str) -> None:
    code = (
        "import sys, lamina; from lamina.core.dryrun import dry_run; "
        f"dry_run(lamina.resolve(lamina.load_spec('{spec}', {{'layers.n_layers': 4}}))); "
        "assert not {'sympy', 'torch._dynamo'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
