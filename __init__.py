"""lamina: decoder language models composed from plugins by a YAML spec. Names load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME = {
    "lamina.core.build": ("build",),
    "lamina.core.chat": ("Chat",),
    "lamina.core.model": ("Model", "load", "save"),
    "lamina.core.registry": ("load_plugins",),
    "lamina.core.resolve": ("resolve",),
    "lamina.core.spec": ("load_spec",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}
__all__ = ["Chat", "Model", "build", "load", "load_plugins", "load_spec", "resolve", "save"]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'lamina' has no attribute '{name}'")
    return getattr(import_module(_MODULE_OF[name]), name)


if TYPE_CHECKING:
    from lamina.core.build import build as build
    from lamina.core.chat import Chat as Chat
    from lamina.core.model import Model as Model
    from lamina.core.model import load as load
    from lamina.core.model import save as save
    from lamina.core.registry import load_plugins as load_plugins
    from lamina.core.resolve import resolve as resolve
    from lamina.core.spec import load_spec as load_spec
