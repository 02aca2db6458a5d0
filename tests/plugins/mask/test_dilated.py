"""The dilated window."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lamina.plugins.mask.dilated import Dilated, DilatedConfig

sizes = {"window": st.integers(1, 6), "dilation": st.integers(1, 5)}


def dilated(window: int, dilation: int) -> Dilated:
    return Dilated(DilatedConfig(window=window, dilation=dilation))


@given(**sizes)
def test_a_window_of_w_is_w_keys_that_far_apart(follows: Any, window: int, dilation: int) -> None:
    follows(dilated(window, dilation), lambda q, k: k in [q - n * dilation for n in range(window)])


@given(**sizes)
def test_what_the_mask_says_of_itself_is_true(keeps_its_word: Any, window: int, dilation: int) -> None:
    others = dilated(window + 1, dilation), dilated(window, dilation + 1)
    keeps_its_word(dilated(window, dilation), dilated(window, dilation), *others)
