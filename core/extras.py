"""Libraries that only some components need: loaded when one of these is used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from lamina.core.errors import LaminaError


def load_extra(module: str, extra: str, needed_by: str) -> Any:
    """The module, or a LaminaError that says which extra of lamina, or which package by itself, brings it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise LaminaError(
            f"{needed_by} needs the package {module}, which cannot be imported ({error})",
            hint=f"pip install {extra}",
        ) from None
