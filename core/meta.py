"""Shape rules for the meta device, in place of those of torch's that import half a compiler at their first call.

On the meta device torch works out many results in Python code that imports `torch._dynamo` or sympy: once a process,
and as long as importing torch itself. Only shapes, strides and dtypes matter there, so the operations that every
decoder needs are answered here. Those not listed take torch's way, which costs time and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


class QuickShapes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is active, pointwise operations and those of `RULES` are answered here on the meta device."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or the first operation imports torch._dynamo, which never sees the meta device here

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        rule = RULES.get(func) or (_pointwise if torch.Tag.pointwise in func.tags else None)
        if rule is None or not _on_meta(args, kwargs):
            return func(*args, **kwargs)
        if rule is _pointwise:
            return _pointwise(func, *args, **kwargs)
        return rule(*args, **kwargs)


def _on_meta(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    values = [*args, *kwargs.values(), *(args[0] if args and isinstance(args[0], list) else ())]
    tensors = [value for value in values if isinstance(value, Tensor)]
    if tensors or not kwargs.get("device"):
        return bool(tensors) and all(tensor.device.type == "meta" or tensor.dim() == 0 for tensor in tensors)
    return torch.device(kwargs["device"]).type == "meta"


def _pointwise(func: Any, *args: Any, **kwargs: Any) -> Tensor:
    if func._schema.is_mutable:
        target: Tensor = args[0]
        shape = _broadcast(*(value for value in args if isinstance(value, Tensor)))
        if shape != tuple(target.shape):
            raise RuntimeError(f"a tensor of shape {list(target.shape)} cannot be written with one of {list(shape)}")
        return target
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    shape = _broadcast(*tensors)
    # What dtype comes out is asked of the operation itself, on single elements.
    small = [_element(value) for value in args]
    dtype = func(*small, **{name: _element(value) for name, value in kwargs.items()}).dtype
    like = next((tensor for tensor in tensors if tuple(tensor.shape) == shape), None)
    if like is None or kwargs.get("memory_format") is torch.contiguous_format:
        return torch.empty(shape, dtype=dtype, device="meta")
    return _like(like, dtype)


def _like(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor of x's shape whose axes lie in memory in the order of x's, without gaps."""
    strides, below = [0] * x.dim(), 1
    for axis in sorted(range(x.dim()), key=lambda axis: (x.stride(axis), -axis)):
        strides[axis] = below
        below *= max(1, x.shape[axis])
    return torch.empty_strided(x.shape, strides, dtype=dtype or x.dtype, device="meta")


def _broadcast(*tensors: Tensor) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(*(tuple(tensor.shape) for tensor in tensors))
    except ValueError:
        shapes = ", ".join(str(list(tensor.shape)) for tensor in tensors)
        raise RuntimeError(f"shapes do not go together: {shapes}") from None


def _element(value: Any) -> Any:
    return torch.ones([1] * value.dim(), dtype=value.dtype) if isinstance(value, Tensor) else value


def _arange(start: float, end: float, step: float = 1, *, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
    if dtype is None:
        whole = all(isinstance(number, int) for number in (start, end, step))
        dtype = torch.int64 if whole else torch.get_default_dtype()
    return torch.empty(max(0, math.ceil((end - start) / step)), dtype=dtype, device="meta")


def _embedding(weight: Tensor, ids: Tensor, *_: Any) -> Tensor:
    return weight.new_empty([*ids.shape, weight.shape[-1]])


def _product(a: Tensor, b: Tensor) -> Tensor:
    """(…, n, k) · (…, k, m)"""
    if a.dtype != b.dtype:
        raise RuntimeError(f"a product of {a.dtype} and {b.dtype}: both must have one dtype")
    if a.shape[-1] != b.shape[-2] or a.shape[:-2] != b.shape[:-2]:
        raise RuntimeError(f"shapes do not fit for a product: {list(a.shape)} and {list(b.shape)}")
    return a.new_empty([*a.shape[:-1], b.shape[-1]])


def _sum_and_product(bias: Tensor, a: Tensor, b: Tensor, **_: Any) -> Tensor:
    product = _product(a, b)
    _broadcast(bias, product)
    return product


def _reduce(x: Tensor, dims: Sequence[int] | None, keep: bool = False, *, dtype: torch.dtype | None = None) -> Tensor:
    gone = {dim % x.dim() for dim in dims} if dims else set(range(x.dim()))
    sizes = [1 if dim in gone else size for dim, size in enumerate(x.shape) if keep or dim not in gone]
    return x.new_empty(sizes, dtype=dtype)


def _sum(x: Tensor, dims: Sequence[int] | None, keep: bool = False, *, dtype: torch.dtype | None = None) -> Tensor:
    whole = not (x.is_floating_point() or x.is_complex())
    return _reduce(x, dims, keep, dtype=dtype or (torch.int64 if whole else x.dtype))


def _norm(
    x: Tensor,
    order: float = 2,
    dims: Sequence[int] | None = None,
    keep: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Tensor:
    if not x.is_floating_point():
        raise RuntimeError(f"the norm of a tensor of {x.dtype}")
    return _reduce(x, dims, keep, dtype=dtype)


def _filled(x: Tensor, *_: Any, dtype: torch.dtype | None = None, **__: Any) -> Tensor:
    return _like(x, dtype)


def _cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    first = tensors[0]
    dim %= first.dim()
    for tensor in tensors[1:]:
        if (*tensor.shape[:dim], *tensor.shape[dim + 1 :]) != (*first.shape[:dim], *first.shape[dim + 1 :]):
            raise RuntimeError(f"cannot join {list(first.shape)} and {list(tensor.shape)} along axis {dim}")
    sizes = [*first.shape[:dim], sum(tensor.shape[dim] for tensor in tensors), *first.shape[dim + 1 :]]
    dtype = first.dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return torch.empty(sizes, dtype=dtype, device="meta")


def _stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    first = tensors[0]
    dim %= first.dim() + 1
    for tensor in tensors[1:]:
        if tensor.shape != first.shape:
            raise RuntimeError(f"cannot stack {list(first.shape)} and {list(tensor.shape)}")
    sizes = [*first.shape[:dim], len(tensors), *first.shape[dim:]]
    dtype = first.dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return torch.empty(sizes, dtype=dtype, device="meta")


def _contiguous(x: Tensor, *_: Any) -> Tensor:
    return x.new_empty(x.shape)


def _topk(x: Tensor, k: int, dim: int = -1, *_: Any) -> tuple[Tensor, Tensor]:
    if not 0 <= k <= x.shape[dim]:
        raise RuntimeError(f"the {k} largest were asked for of {x.shape[dim]}")
    sizes = list(x.shape)
    sizes[dim] = k
    return x.new_empty(sizes), x.new_empty(sizes, dtype=torch.int64)


def _gather(x: Tensor, dim: int, index: Tensor, **_: Any) -> Tensor:
    if index.dim() != x.dim():
        raise RuntimeError(f"a tensor of shape {list(x.shape)} cannot be gathered from by one of {list(index.shape)}")
    return x.new_empty(index.shape)


def _scatter(x: Tensor, dim: int, index: Tensor, *_: Any, **__: Any) -> Tensor:
    _gather(x, dim, index)
    return x.new_empty(x.shape)


def _scatter_in_place(x: Tensor, dim: int, index: Tensor, *_: Any, **__: Any) -> Tensor:
    _gather(x, dim, index)
    return x


def _softmax(x: Tensor, dim: int, *options: Any, **_: Any) -> Tensor:
    wider = options[0] if options else False
    return x.new_empty(x.shape, dtype=torch.float32 if wider is True else wider or x.dtype)


def _rms_norm(x: Tensor, shape: Sequence[int], weight: Tensor | None, eps: float | None) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), _per_row(x, shape)


def _layer_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), _per_row(x, shape), _per_row(x, shape)


def _per_row(x: Tensor, shape: Sequence[int]) -> Tensor:
    if tuple(x.shape[-len(shape) :]) != tuple(shape):
        raise RuntimeError(f"a norm of width {list(shape)} was given a tensor of shape {list(x.shape)}")
    sizes = [*x.shape[: -len(shape)], *[1] * len(shape)]
    return torch.empty(sizes, dtype=torch.promote_types(x.dtype, torch.float32), device="meta")


RULES: Mapping[Any, Callable[..., Any]] = {
    aten.arange.default: lambda end, **options: _arange(0, end, **options),
    aten.arange.start: _arange,
    aten.arange.start_step: _arange,
    aten.cat.default: _cat,
    aten.embedding.default: _embedding,
    aten.mm.default: _product,
    aten.bmm.default: _product,
    aten.addmm.default: _sum_and_product,
    aten.gather.default: _gather,
    aten.linalg_vector_norm.default: _norm,
    aten.mean.dim: _reduce,
    aten.sum.dim_IntList: _sum,
    aten.full_like.default: _filled,
    aten.ones_like.default: _filled,
    aten.zeros_like.default: _filled,
    aten.roll.default: _contiguous,
    aten.scatter.src: _scatter,
    aten.scatter.value: _scatter,
    aten.scatter_add.default: _scatter,
    aten.scatter_add_.default: _scatter_in_place,
    aten.stack.default: _stack,
    aten.topk.default: _topk,
    aten.tril.default: _contiguous,
    aten.triu.default: _contiguous,
    aten._softmax.default: _softmax,
    aten._safe_softmax.default: _softmax,
    aten._fused_rms_norm.default: _rms_norm,
    aten.native_layer_norm.default: _layer_norm,
}
