"""x · weightᵀ + bias, by the quickest way there is. Off the CPU that is torch's own; on it two things are worth doing.

Decoding multiplies one row, or a few, with every weight there is, and reading the weights is the whole cost. torch
hands such a product to a BLAS that works with a single thread; oneDNN, which comes with torch, reads with all.

A processor without instructions for bfloat16 or float16 multiplies them fifty times slower than float32. Widening them
first gives the same product, summed and rounded no worse.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEW_ROWS = 16  # more make the product worth a BLAS's while
MANY_WEIGHTS = 2**18  # fewer are read before a second thread has woken up
ROWS_TO_WIDEN = 4  # with fewer it costs more to widen the weights than to multiply them as they are

_ONEDNN = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
_NARROW = {torch.bfloat16: "bf16", torch.float16: "fp16"}
_SLOW = {
    dtype
    for dtype, name in _NARROW.items()
    if _ONEDNN and not getattr(torch.ops.mkldnn, f"_is_mkldnn_{name}_supported")()
}


def is_slow(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether products at this dtype are far slower than in float32."""
    return dtype in _SLOW and device.type == "cpu"


def project(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(..., in), (out, in), (out,) -> (..., out), as `F.linear`"""
    # A subclass, quantised weights say, has its own way of multiplying.
    if not x.is_cpu or type(weight) not in (Tensor, nn.Parameter):
        return F.linear(x, weight, bias)
    autocast = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if autocast else x.dtype
    rows = x.numel() // max(1, x.shape[-1])
    if dtype in _SLOW and rows >= ROWS_TO_WIDEN and (autocast or weight.dtype == dtype):
        with torch.autocast("cpu", enabled=False):
            wide = [None if tensor is None else tensor.to(dtype).float() for tensor in (x, weight, bias)]
            return F.linear(*wide).to(dtype)  # type: ignore[arg-type]
    if (
        weight.numel() < MANY_WEIGHTS
        or not 0 < rows <= FEW_ROWS
        or autocast
        or not (_ONEDNN and x.dtype == weight.dtype == torch.float32)
        or torch.is_grad_enabled()  # oneDNN's kernel has no gradient
        or torch.compiler.is_compiling()  # the compiler chooses for itself
        or type(x) is not Tensor
        or torch.get_num_threads() == 1
    ):
        return F.linear(x, weight, bias)
    out: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, "none", [], "")
    return out
