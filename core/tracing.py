"""Keeping what passes through a part, for looking at it afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from lamina.core.component import ComponentConfig
from lamina.core.context import Context
from lamina.core.errors import ConfigProblem

OUTPUT = "output"


class TraceConfig(ComponentConfig):
    """What to keep, whatever the kind of part."""

    keep: list[str] = Field(
        [OUTPUT], min_length=1, description="`input`, `output`, or modules inside the part, whose output is kept: qkv."
    )


def check_names(module: nn.Module, names: list[str]) -> None:
    """ConfigProblem unless each of `names` is a module inside, or the input or output."""
    inside = [name for name, _ in module.named_modules() if name]
    for name in names:
        if name not in ("input", OUTPUT, *inside):
            hint = f"there are input, output, {', '.join(inside)}"
            raise ConfigProblem("keep", f"nothing inside is called '{name}'", hint)


@contextmanager
def watched(module: nn.Module, names: list[str], place: str, context: Context) -> Iterator[None]:
    """For one call of `module`: leaves `context.store["trace/…place/name"]`, detached, (B, T, …)."""

    def keep(name: str, value: Any) -> None:
        if isinstance(value, Tensor):
            context.store[f"trace/{place}/{name}"] = value.detach()

    with ExitStack() as hooks:
        for name in names:
            if name == "input":
                hook = module.register_forward_pre_hook(lambda module, args: keep("input", args[0]))
            else:
                inner = module if name == OUTPUT else module.get_submodule(name)
                hook = inner.register_forward_hook(lambda module, args, value, name=name: keep(name, value))
            hooks.callback(hook.remove)
        yield
