"""The fixed pattern, set by set as the paper writes it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.core import ConfigProblem
from lamina.plugins.mask.fixed import Fixed, FixedConfig

PARTS: Any = ("both", "block", "summary")
parts = st.sampled_from(PARTS)
sizes = st.integers(1, 9).flatmap(lambda stride: st.tuples(st.just(stride), st.integers(1, stride)))


def fixed(stride: int, summary: int, part: Any) -> Fixed:
    return Fixed(FixedConfig(stride=stride, summary=summary, part=part))


@given(sizes=sizes, part=parts)
def test_heads_see_the_papers_sets(follows: Any, sizes: tuple[int, int], part: str) -> None:
    stride, summary = sizes

    def rule(i: int, j: int) -> bool:
        block = {j for j in range(i + 1) if j // stride == i // stride}
        ends = {j for j in range(i + 1) if j % stride in range(stride - summary, stride)}
        return j in {"both": block | ends, "block": block, "summary": ends | {i}}[part]

    follows(fixed(*sizes, part), rule)


@given(sizes=sizes, part=parts)
def test_what_the_mask_says_of_itself_is_true(keeps_its_word: Any, sizes: tuple[int, int], part: str) -> None:
    others = [fixed(sizes[0] + 1, sizes[1], part), *(fixed(*sizes, other) for other in PARTS if other != part)]
    keeps_its_word(fixed(*sizes, part), fixed(*sizes, part), *others)


def test_a_summary_longer_than_its_block_is_refused() -> None:
    with pytest.raises(ConfigProblem, match="a block of 3 tokens has no 4 last ones") as problem:
        FixedConfig(stride=3, summary=4).derive()
    assert problem.value.field == "summary"
