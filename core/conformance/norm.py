"""Norms: each vector by itself, whatever stands before the last axis."""

from __future__ import annotations

import torch

from lamina.core.conformance.case import Case, randn
from lamina.core.conformance.checks import Wrong, check
from lamina.core.conformance.texts import same


@check("norm", name="each vector by itself")
@torch.no_grad()
def each_vector_by_itself(case: Case) -> None:
    """(..., size) -> (..., size): shapes are kept, and vectors do not see each other."""
    norm = case.build()
    for shape in ((), (1,), (5,), (2, 3), (2, 3, 4)):
        x = randn(*shape, case.dim)
        want = torch.stack([norm(row) for row in x.reshape(-1, case.dim)]).view(x.shape)
        same(norm(x), want, "every vector normed as it is alone", shape=tuple(x.shape))


@check("norm", name="finite")
@torch.no_grad()
def it_stays_finite(case: Case) -> None:
    """Vectors of zeros, and large ones in float16 and bfloat16, give finite numbers."""
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        norm = case.build(dtype=dtype)
        for scale in (0.0, 1e-4, 1.0, 300.0):  # 300² is more than float16 holds
            got = norm(randn(4, case.dim, dtype=dtype) * scale)
            if got.dtype != dtype:
                raise Wrong(f"{dtype} in and out", f"{got.dtype} out")
            if not got.isfinite().all():
                raise Wrong("finite numbers", "others", dtype=dtype, input_of_size=scale)
