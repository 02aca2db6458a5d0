"""The strided pattern, set by set as the paper writes it."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lamina.plugins.mask.strided import Strided, StridedConfig

PARTS: Any = ("both", "local", "strided")
strides, parts = st.integers(1, 9), st.sampled_from(PARTS)


def strided(stride: int, part: Any) -> Strided:
    return Strided(StridedConfig(stride=stride, part=part))


@given(stride=strides, part=parts)
def test_heads_see_the_papers_sets(follows: Any, stride: int, part: str) -> None:
    def rule(i: int, j: int) -> bool:
        local = set(range(max(0, i - stride), i + 1))
        jumps = {j for j in range(i + 1) if (i - j) % stride == 0}
        return j in {"both": local | jumps, "local": local, "strided": jumps}[part]

    follows(strided(stride, part), rule)


@given(stride=strides, part=parts)
def test_what_the_mask_says_of_itself_is_true(keeps_its_word: Any, stride: int, part: str) -> None:
    others = [strided(stride + 1, part), *(strided(stride, other) for other in PARTS if other != part)]
    keeps_its_word(strided(stride, part), strided(stride, part), *others)
