"""Layouts that regroup rows: what a checkpoint holds one way and the decoder another, and back."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from lamina.core.layout import SAME, Beside, Chain, Dealt, Woven


def test_pieces_are_dealt_anew_and_back() -> None:
    a, b = torch.arange(10.0).view(5, 2), torch.arange(6.0).view(3, 2) + 100
    layout = Dealt(((2, 3), (1, 2)), ((3, 0), (2, 1)))
    first, second = layout.ours([a, b])
    assert_close(first, torch.cat([b[1:], a[:2]]))
    assert_close(second, torch.cat([b[:1], a[2:]]))
    for back, tensor in zip(layout.theirs([first, second]), (a, b), strict=True):
        assert_close(back, tensor)


def test_each_of_several_tensors_may_have_a_layout_of_its_own() -> None:
    a, b = torch.arange(6), torch.arange(4)
    layout = Chain(Beside((Woven(3, (1, 1)), SAME)))
    assert layout.ours([a, b])[0].tolist() == [0, 2, 4, 1, 3, 5]
    assert layout.ours([a, b])[1].equal(b)
    assert layout.theirs(layout.ours([a, b]))[0].equal(a)
