"""Numbers as people read them."""

from __future__ import annotations


def count(number: float) -> str:
    """124439808 -> '124.4 M'"""
    return _scaled(number, 1000, ("", " K", " M", " B", " T", " P", " E"))


def size(n_bytes: float) -> str:
    """1536 -> '1.5 KiB'"""
    return _scaled(n_bytes, 1024, (" B", " KiB", " MiB", " GiB", " TiB", " PiB"))


def _scaled(number: float, step: int, units: tuple[str, ...]) -> str:
    power = 0
    while abs(number) >= step * 0.9995 and power < len(units) - 1:  # 999_960 is 1.0 M and not 1000.0 K
        number, power = number / step, power + 1
    return f"{number:.1f}{units[power]}" if power or number % 1 else f"{number:.0f}{units[0]}"
