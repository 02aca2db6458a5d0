"""Components that are part of the decoder's module tree, and the two layers most of them are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from lamina.core.component import Component
from lamina.core.product import project


class ModuleComponent(Component, nn.Module):
    """A component that is an `nn.Module`."""

    keeps_shape: ClassVar[bool] = False  # forward returns its first argument's shape; the dry run checks it
    one_graph: ClassVar[bool] = True  # False: torch.compile has to run it in pieces, as what watches or reads values

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.counted: dict[str, torch.Tensor] = {}

    def init_weights(self, std: float) -> None:
        """Set parameters of this module's own (not of its children) that are neither `Linear` nor `Embedding`.

        The default leaves them as the constructor made them.
        """

    def carriers(self) -> Iterable[torch.Tensor]:
        """Weights, or views of their rows, through which an attention or ffn carries what it reads to what it gives.

        Not those that only steer: queries and keys, gates, routers. Default: every `Linear` and `OutLinear` within.
        """
        linears = (module for module in self.modules() if type(module) in (Linear, OutLinear))
        return [linear.get_parameter("weight") for linear in linears]

    def after_step(self) -> None:
        """Called once after every optimizer step, for what is updated by rule rather than by gradient."""

    def count(self, **amounts: torch.Tensor) -> None:
        """Add to sums that the training log will tell of. They stay on the device, so nothing waits for them."""
        for name, amount in amounts.items():
            self.counted[name] = self.counted[name] + amount.detach() if name in self.counted else amount.detach()

    def figures(self, sums: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """What the log says of what was counted since its last line, as plain data; numbers and lists of them."""
        return {name: value.tolist() for name, value in sums.items()}


class Linear(nn.Linear):
    """`nn.Linear` whose weights are left unset until the decoder initialises or loads them."""

    def reset_parameters(self) -> None:
        pass

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return project(x, self.weight, self.bias)


class OutLinear(Linear):
    """A projection that writes into the residual stream: initialised smaller the more of them there are."""


class Embedding(nn.Embedding):
    """`nn.Embedding` whose weights are left unset until the decoder initialises or loads them."""

    def reset_parameters(self) -> None:
        pass


class DeviceConstant:
    """A tensor that follows from a Config alone, made once per device.

    Unlike a buffer it survives `to(dtype)` and meta-device builds unharmed and is in no checkpoint.
    """

    def __init__(self, values: object, dtype: torch.dtype = torch.float32) -> None:
        self._values, self._dtype = values, dtype
        self._made: dict[torch.device, torch.Tensor] = {}

    def on(self, device: torch.device) -> torch.Tensor:
        if device not in self._made:
            with torch.inference_mode(False):
                self._made[device] = torch.tensor(self._values, dtype=self._dtype, device=device)
        return self._made[device]
