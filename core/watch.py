"""Divides the time of a pass among the decoder's parts, without gaps: at any moment one part is at work, or none.

Forward, a part is at work from its call to its return, save while a part it calls is. Backward, autograd runs the nodes
that the forward pass left one after the other; each belongs to the part that was at work when it was made, told by its
sequence number. So no part is taken apart, none has to cooperate, and the times add up to the whole.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from lamina.core.decoder import Decoder
from lamina.core.figures import OTHER
from lamina.core.machine import clock
from lamina.core.module import ModuleComponent
from lamina.core.norm import Norm
from lamina.core.position import HOOKS, Position


def part_names(decoder: Decoder) -> dict[nn.Module, str]:
    """What each part's time is counted under: its kind and name, parts alike taken together.

    A part within one of its own kind has both names, as an expert in a mixture: "ffn moe / gated".
    """
    names: dict[nn.Module, str] = {decoder.embedding: "embedding", decoder.head: "head"}
    for module in decoder.modules():
        if not isinstance(module, ModuleComponent) or "part" not in vars(module):
            continue
        if isinstance(module, Position) and not module.acts_at():
            continue
        own = "norms" if isinstance(module, Norm) else f"{module.kind} {vars(module)['part'].name}"
        name = names.setdefault(module, own)
        for inner in module.modules():
            if inner is not module and isinstance(inner, ModuleComponent) and inner.kind == module.kind:
                names[inner] = f"{name} / {vars(inner)['part'].name}"
    return names


class Watch:
    """Keeps the time of every part of a decoder while `watching`."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.names = part_names(decoder)
        self._now = clock(decoder.device)
        self._seconds: dict[str, float] = defaultdict(float)
        self._at_work, self._since = OTHER, 0.0
        self._turns: list[tuple[int, str]] = []  # (number of the next autograd node, the part at work from there)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Parts are watched within, and left as they were."""
        watched = [(module, method) for module in self.names for method in _methods(module)]
        for module, method in watched:
            object.__setattr__(module, method, self._timed(self.names[module], getattr(module, method)))
        stepper = self.decoder.stepper
        try:
            with nullcontext() if stepper is None else stepper.timing():
                yield
        finally:
            for module, method in watched:
                object.__delattr__(module, method)

    def take(self, run: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
        """What `run` returns, and the seconds each part was at work in it. Every part is named, the idle ones too."""
        self._seconds = defaultdict(float, dict.fromkeys([*self.names.values(), OTHER], 0.0))
        self._at_work, self._since = OTHER, self._now()
        if torch.is_grad_enabled():
            self._turns = [(0, OTHER)]
        result = run()
        self._turn(OTHER)
        for part, seconds in () if self.decoder.stepper is None else self.decoder.stepper.take_seconds():
            self._seconds[self.names.get(part, OTHER)] += seconds  # of a program, which nobody's `forward` has run
            self._seconds[OTHER] -= seconds
        return result, dict(self._seconds)

    def part(self, name: str, run: Callable[[], Any]) -> Any:
        """`run()`, its time counted under `name`."""
        return self._timed(name, run)()

    def backward(self, loss: Tensor) -> dict[str, float]:
        """Seconds of each part in `loss.backward()`, by the nodes it made in the forward pass taken last."""
        starts, names = [start for start, _ in self._turns], [name for _, name in self._turns]
        for node in _nodes(loss):
            part = names[bisect_right(starts, node._sequence_nr()) - 1]
            node.register_prehook(self._turner(part))
        return self.take(loss.backward)[1]

    def _timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            before = self._at_work
            self._turn(name)
            try:
                return call(*args, **kwargs)
            finally:
                self._turn(before)

        return timed

    def _turner(self, name: str) -> Callable[[Any], None]:
        return lambda gradients: self._turn(name)

    def _turn(self, name: str) -> None:
        """From now on `name` is at work."""
        now = self._now()
        self._seconds[self._at_work] += now - self._since
        self._at_work, self._since = name, now
        if torch.is_grad_enabled():
            self._turns.append((torch._C._autograd._get_sequence_nr(), name))


def _methods(module: nn.Module) -> list[str]:
    """What the decoder calls a part by."""
    if isinstance(module, Position):
        return [hook for hook, place in HOOKS.items() if place in module.acts_at()]
    return ["forward"]


def _nodes(loss: Tensor) -> Iterator[Any]:
    """The nodes of the graph behind `loss`, save those that only add to a parameter's gradient.

    Those run at once after the node that feeds them, so their time falls to the part the parameter belongs to.
    """
    assert loss.grad_fn is not None
    seen, waiting = {loss.grad_fn}, [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        yield node
        for following, _ in node.next_functions:
            if following is not None and following not in seen and following.next_functions:
                seen.add(following)
                waiting.append(following)
