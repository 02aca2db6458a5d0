"""Meters for a pass on the meta device: which products it does, what it keeps for the backward pass, its memory's peak.

On the meta device torch spells attention out as plain products. That is what FLOPs are counted from. Memory is measured
with the kernel that torch would take on a CPU, which the `FusedAttention` mode puts in its place.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

# Products that torch's registry of costs leaves out.
UNCOUNTED = {"mv", "addmv", "dot", "vdot", "addr", "_fft_r2c", "_fft_c2r", "_fft_c2c", "_grouped_mm"}


class Flops(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Floating-point operations of matrix products, two for each multiply-add. Elementwise work is not counted."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0
        self.uncounted: set[str] = set()  # operations met whose cost nobody tells: then `total` is too low

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet, kwargs = func.overloadpacket, kwargs or {}
        out = func(*args, **kwargs)
        if packet in flop_registry:
            self.total += flop_registry[packet](*args, **kwargs, out_val=out)
        elif func.namespace not in ("aten", "prim", "prims") or packet.__name__ in UNCOUNTED:
            self.uncounted.add(f"{func.namespace}.{packet.__name__}")
        return out


class SavedTensors:
    """Bytes that autograd keeps for the backward pass; each storage once, the model's own tensors not at all.

    Asked for while the graph lives: what a graph held that is gone is no longer kept.
    """

    def __init__(self, own: Iterable[Tensor]) -> None:
        self._own = {tensor.untyped_storage()._cdata for tensor in own}
        self._kept: weakref.WeakSet[_Kept] = weakref.WeakSet()
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda kept: kept.tensor)

    def _keep(self, tensor: Tensor) -> _Kept:
        kept = _Kept(tensor.detach())  # not itself: an output that held itself would never be let go
        self._kept.add(kept)
        return kept

    def __enter__(self) -> SavedTensors:
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._hooks.__exit__(*error)

    @property
    def nbytes(self) -> int:
        storages = {kept.tensor.untyped_storage()._cdata: kept.tensor.untyped_storage() for kept in self._kept}
        return sum(storage.nbytes() for cdata, storage in storages.items() if cdata not in self._own)


class _Kept:
    """What autograd holds in a saved tensor's place."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class PeakMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The most bytes that tensors made during the pass held at once."""

    def __init__(self, own: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._own = {tensor.untyped_storage()._cdata for tensor in own}
        self._live: dict[int, weakref.ref[Any]] = {}
        self._now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, Tensor):
                self._meet(tensor.untyped_storage())
        return out

    def _meet(self, storage: torch.UntypedStorage) -> None:
        key, n_bytes = storage._cdata, storage.nbytes()
        if key in self._own or key in self._live:
            return
        self._live[key] = weakref.ref(storage, self._forget(key, n_bytes))
        self._now += n_bytes
        self.peak = max(self.peak, self._now)

    def _forget(self, key: int, n_bytes: int) -> Callable[[Any], None]:
        def gone(_: Any) -> None:
            del self._live[key]
            self._now -= n_bytes

        return gone


class FusedAttention(TorchFunctionMode):
    """On the meta device, take the attention kernel that a CPU would take instead of spelling the products out."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and args[0].is_meta:
            return self._attend(*args, **kwargs)
        return func(*args, **kwargs)

    def _attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        stand_ins = [None if tensor is None else _on_cpu(tensor) for tensor in (q, k, v, attn_mask)]
        options = {"dropout_p": dropout_p, "is_causal": is_causal, "scale": scale, "enable_gqa": enable_gqa}
        if not torch._fused_sdp_choice(*stand_ins, **options):  # type: ignore[arg-type]  # 0: no kernel fits
            return F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask, **options)  # type: ignore[arg-type]
        if attn_mask is not None and attn_mask.dtype == torch.bool:  # the kernel takes what is added to the scores
            attn_mask = torch.where(attn_mask, 0.0, -torch.inf).to(q.dtype)
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out: Tensor = kernel(q, k, v, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]
        return out


def _on_cpu(tensor: Tensor) -> Tensor:
    """A tensor on the CPU of this shape, dtype and need for a gradient that holds one row of memory."""
    row = torch.empty(tensor.shape[-1], dtype=tensor.dtype, device="cpu")
    return row.expand(tensor.shape).requires_grad_(tensor.requires_grad)
