"""YaRN: fast pairs stay, slow ones turn `factor` times slower, those between are blended.

Peng et al. 2023, arXiv:2309.00071. A pair that turns more than beta_fast times in a text of the training stays as it
is; one that turns fewer than beta_slow times is slowed. Turned channels are multiplied by 0.1 · ln(factor) + 1, or,
with the two options of DeepSeek-V2, by (0.1 · mscale · ln(factor) + 1) / (0.1 · mscale_all_dim · ln(factor) + 1).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from pydantic import Field

from lamina.core import ComponentConfig, ConfigProblem, FixedScaling, Register, hookimpl, rope_frequencies


class YaRNConfig(ComponentConfig):
    original_context_length: int = Field(gt=0, description="Longest text of the training.")
    factor: float | None = Field(
        None, ge=1, description="How many times longer texts become. Default: context_length / original_context_length."
    )
    attention_factor: float | None = Field(
        None, gt=0, description="Multiplies turned channels. Default: from factor, mscale and mscale_all_dim."
    )
    beta_fast: float = Field(32.0, gt=0, description="Turns in a text from which on a pair stays as it is.")
    beta_slow: float = Field(1.0, gt=0, description="Turns in a text up to which a pair is slowed by the whole factor.")
    truncate: bool = Field(True, description="Round the range of blended pairs outwards to whole pairs.")
    mscale: float | None = Field(None, gt=0, description="Weight of ln(factor) in attention_factor's numerator.")
    mscale_all_dim: float | None = Field(None, gt=0, description="Weight of ln(factor) in its denominator.")

    def derive(self, theta: float, context_length: int) -> dict[str, Any]:
        if theta <= 1:
            raise ConfigProblem("original_context_length", f"YaRN needs a theta above 1, and it is {theta:g}")
        if self.beta_fast < self.beta_slow:
            raise ConfigProblem(
                "beta_fast", f"beta_fast ({self.beta_fast:g}) must not be less than beta_slow ({self.beta_slow:g})"
            )
        if (self.mscale is None) != (self.mscale_all_dim is None):
            missing, given = ("mscale", "mscale_all_dim") if self.mscale is None else ("mscale_all_dim", "mscale")
            raise ConfigProblem(given, f"{given} has a meaning together with {missing} only", f"give {missing} too")
        factor = max(1.0, context_length / self.original_context_length) if self.factor is None else self.factor
        implied = _growth(factor, self.mscale or 1.0) / (_growth(factor, self.mscale_all_dim or 0.0))
        if self.attention_factor is None:
            return {"factor": factor, "attention_factor": implied}
        if self.mscale is not None and not math.isclose(self.attention_factor, implied, rel_tol=1e-6):
            raise ConfigProblem(
                "attention_factor",
                f"attention_factor ({self.attention_factor:g}) is not what mscale and mscale_all_dim "
                f"give ({implied:g})",
                "give one or the other",
            )
        return {"factor": factor}


def _growth(factor: float, weight: float) -> float:
    return 0.1 * weight * math.log(factor) + 1


class YaRN(FixedScaling):
    """Slows only those pairs that never turned all the way round in the training."""

    Config = YaRNConfig
    paper = "Peng et al. 2023, arXiv:2309.00071"

    def __init__(self, config: YaRNConfig, theta: float, width: int) -> None:
        assert config.factor is not None, "set by derive"
        assert config.attention_factor is not None, "set by derive"

        def pair_of(turns: float) -> float:
            """The pair, counted with fractions, that turns so often in a text of the training."""
            return width * math.log(config.original_context_length / (turns * 2 * math.pi)) / (2 * math.log(theta))

        low, high = pair_of(config.beta_fast), pair_of(config.beta_slow)
        if config.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, width - 1)
        high += 0.001 if low == high else 0  # a step, where there is no range to blend over
        frequencies = []
        for pair, frequency in enumerate(rope_frequencies(theta, width)):
            slowed = min(max((pair - low) / (high - low), 0.0), 1.0)
            frequencies.append(frequency * (1 - slowed) + frequency / config.factor * slowed)
        super().__init__(frequencies, config.attention_factor)

    @classmethod
    def examples(cls, directory: Path) -> list[dict[str, Any]]:
        return [{"original_context_length": 16, "factor": 2.0}]


@hookimpl
def register_components(register: Register) -> None:
    register("yarn", YaRN)
