"""Rotary positions in a GGUF: entries for the base, the turned width and the scaling, and tensors of divisors.

A config's `rope_parameters` says the same. Two kinds of scaling are tensors in a file: Llama 3's leaves its divisors
alone, which tell of its options, and LongRoPE its two lists.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lamina.core.gguf.mapping import Config, Metadata, MetaItem, Told, shortest
from lamina.core.rope_keys import ORIGINAL

BASE, WIDTH, SCALING = "rope.freq_base", "rope.dimension_count", "rope.scaling"
FACTOR, TRAINED, ATTENTION = f"{SCALING}.factor", f"{SCALING}.original_context_length", f"{SCALING}.attn_factor"
BETAS = {"beta_fast": (f"{SCALING}.yarn_beta_fast", 32.0), "beta_slow": (f"{SCALING}.yarn_beta_slow", 1.0)}
DIVISORS, LONG, SHORT = "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"
CLOSE = 1e-5


@dataclass(frozen=True)
class RopeMeta(MetaItem):
    """The rotation of all layers, or of those with one type, whose entry in `rope_parameters` is `layer_type`."""

    theta: float = 10_000.0
    layer_type: str | None = None
    base: str = BASE
    scaled: bool = True  # whether the file's scaling is about these
    original: bool = False  # whether the config has the trained length beside `rope_parameters` (Phi-3)
    yarn: Mapping[str, Any] = field(default_factory=dict)  # keys that YaRN's scaling has in every config

    def read(self, meta: Metadata, config: dict[str, Any]) -> None:
        heads, dim = config.get("num_attention_heads"), config.get("hidden_size")
        if not heads or not dim:
            return  # which the family tells
        theta = shortest(meta.number(self.base, self.theta))
        found: dict[str, Any] = {"rope_type": "default", "rope_theta": theta}
        head_dim = config.get("head_dim") or dim // heads
        width = meta.number(WIDTH, head_dim)
        found["partial_rotary_factor"] = width / head_dim
        if self.scaled:
            found |= self.scaling(meta, config, theta, int(width))
        if self.original and ORIGINAL in found:
            config[ORIGINAL] = found[ORIGINAL]
        if self.layer_type is None:
            config["rope_parameters"] = found
        else:
            config.setdefault("rope_parameters", {})[self.layer_type] = found

    def scaling(self, meta: Metadata, config: Config, theta: float, width: int) -> dict[str, Any]:
        """The keys of `rope_parameters` for what the file says of scaling, none where it has none."""
        kind = meta.get(f"{SCALING}.type", "linear")
        factor = meta.number(FACTOR, 0.0, "rope.scale_linear") or 1.0
        trained = meta.number(TRAINED, config.get("max_position_embeddings"))
        attention = meta.number(ATTENTION, 1.0)
        betas = {key: shortest(meta.number(name, usual)) for key, (name, usual) in BETAS.items()}
        divisors, long, short = (meta.tensor(name) for name in (DIVISORS, LONG, SHORT))
        if divisors is not None:
            return llama3(divisors, theta, width, trained) or _lists(divisors, divisors, trained, 1.0)
        if long is not None and short is not None:
            return _lists(long, short, trained, attention)
        if kind not in ("none", "linear", "yarn", "longrope"):
            meta.wrong(f"{SCALING}.type", f"no component honours {kind!r}")
        if factor == 1.0 or kind not in ("linear", "yarn"):
            return {}
        found = {"rope_type": kind, "factor": shortest(factor)}
        if kind == "linear":
            return found
        usual = 1 + 0.1 * math.log(factor)
        if abs(attention - 1) > CLOSE:
            found["attention_factor"] = attention * usual
        return {**found, ORIGINAL: trained, **betas, **self.yarn}

    def write(self, config: Config, told: Told) -> None:
        found = config.get("rope_parameters") or {}
        if self.layer_type is not None:
            found = found.get(self.layer_type, {})
        if not found:
            return
        told.put(self.base, found["rope_theta"], float)
        head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        width = round(head_dim * found.get("partial_rotary_factor", 1.0))
        told.put(WIDTH, width, int)
        if not self.scaled:
            return
        kind = found["rope_type"]
        if kind in ("linear", "yarn", "longrope"):
            told.put(f"{SCALING}.type", kind, str)
        if kind in ("linear", "yarn"):
            told.put(FACTOR, found["factor"], float)
        if ORIGINAL in found:
            told.put(TRAINED, found[ORIGINAL], int)
        if kind == "yarn":
            usual = 1 + 0.1 * math.log(found["factor"])
            if abs(found.get("attention_factor", usual) / usual - 1) > CLOSE:
                told.put(ATTENTION, found["attention_factor"] / usual, float)
            for key, (name, _) in BETAS.items():
                if found.get(key) is not None:
                    told.put(name, found[key], float)
        elif kind == "llama3":
            options = (found[ORIGINAL], found["factor"], found["low_freq_factor"], found["high_freq_factor"])
            told.tensors[DIVISORS] = torch.tensor(llama3_divisors(found["rope_theta"], width, *options))
        elif kind == "longrope":
            told.tensors[LONG], told.tensors[SHORT] = (
                torch.tensor(found[key]) for key in ("long_factor", "short_factor")
            )
            told.put(ATTENTION, found["attention_factor"], float)


def _lists(long: Tensor, short: Tensor, trained: Any, attention: float) -> dict[str, Any]:
    """LongRoPE's keys."""
    lists = {"long_factor": long, "short_factor": short}
    return {
        "rope_type": "longrope",
        ORIGINAL: trained,
        "attention_factor": shortest(attention),
        **{key: [shortest(one) for one in tensor.tolist()] for key, tensor in lists.items()},
    }


def _wavelengths(theta: float, width: int) -> list[float]:
    return [2 * math.pi * theta ** (i / width) for i in range(0, width, 2)]


def llama3_divisors(theta: float, width: int, trained: float, factor: float, low: float, high: float) -> list[float]:
    """What Llama 3's scaling divides the frequency of each pair by (see the rope_scaling component)."""
    kept = [min(max((trained / wave - low) / (high - low), 0.0), 1.0) for wave in _wavelengths(theta, width)]
    return [1 / (share + (1 - share) / factor) for share in kept]


def llama3(divisors: Tensor, theta: float, width: int, trained: Any) -> dict[str, Any] | None:
    """The options that have these divisors; None when none have."""
    found = divisors.double().tolist()
    if len(found) != width // 2 or min(found) <= 0:
        return None
    factor = shortest(max(found))
    for length, low, high in _candidates(found, theta, width, factor, trained):
        if high <= low or length <= 0:
            continue
        made = llama3_divisors(theta, width, length, factor, low, high)
        if all(abs(a / b - 1) < CLOSE for a, b in zip(made, found, strict=True)):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low,
                "high_freq_factor": high,
                ORIGINAL: length,
            }
    return None


def _candidates(
    divisors: list[float], theta: float, width: int, factor: float, trained: Any
) -> Iterator[tuple[int, float, float]]:
    """Trained lengths, low and high factors that may have been meant, the likelier first.

    The share that stays grows with a pair's turns in the trained text: it is `slope / wavelength + at_none`, of which
    the pairs between tell, with slope = length / (high - low) and at_none = -low / (high - low).
    """
    yield from ((length, 1.0, 4.0) for length in (trained, 8192, 4096, 2048) if isinstance(length, int))
    waves = _wavelengths(theta, width)
    shares = [(1 / d - 1 / factor) / (1 - 1 / factor) if factor > 1 else 1.0 for d in divisors]
    between = [(1 / wave, share) for wave, share in zip(waves, shares, strict=True) if 1e-3 < share < 1 - 1e-3]
    if not between:
        return
    (x, share), (x2, share2) = between[0], between[-1]
    yield round((3 * share + 1) / x), 1.0, 4.0
    if len(between) == 1:
        return
    slope = (share - share2) / (x - x2)
    at_none = share - slope * x
    lengths = [trained] if isinstance(trained, int) else []
    if at_none < 0:
        lengths.append(round(-slope / at_none))  # where low is 1
    for length in lengths:
        span = length / slope if slope else 0.0
        yield length, float(f"{-at_none * span:.4g}"), float(f"{(1 - at_none) * span:.4g}")
