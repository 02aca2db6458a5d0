"""The loss in shares of the rows against the loss of all logits at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from lamina.core import loss as loss_module
from lamina.core.data import IGNORED, Batch
from lamina.core.decoder import Head
from lamina.core.loss import head_losses, sum_losses

B, T, D, V = 3, 7, 5, 11
HEADS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bias": {"bias": True},
    "softcap and scale": {"softcap": 1.5, "scale": 0.3},
}


@pytest.fixture(autouse=True)
def small_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_module, "LEAST_ROWS", 4)
    monkeypatch.setattr(loss_module, "LOGITS_AT_ONCE", {"cpu": 1})


def head_of(options: dict[str, Any]) -> Head:
    head = Head(V, D, **{"tied_to": None, "bias": False, "scale": 1.0, "softcap": None, **options}).double()
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    return head


def batch_of(**fields: Any) -> Batch:
    targets = torch.randint(V, (B, T))
    targets[0, :5] = IGNORED  # more than the whole first share
    targets[2, 3] = IGNORED
    return Batch(targets, targets, None, **fields)


def gradients(loss: Tensor, *of: Tensor) -> list[Tensor]:
    return [loss.detach(), *torch.autograd.grad(loss, of)]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("options", HEADS.values(), ids=HEADS.keys())
def test_shares_give_the_loss_and_gradients_of_the_whole(options: dict[str, Any], weighted: bool) -> None:
    head, batch = head_of(options), batch_of(weights=torch.rand(B, T) if weighted else None)
    x = torch.randn(B, T, D, dtype=torch.float64, requires_grad=True)
    logits = (x * head.scale) @ head.weight.T + (0 if head.bias is None else head.bias)
    logits = logits if head.softcap is None else head.softcap * (logits / head.softcap).tanh()
    each = F.cross_entropy(logits.transpose(1, 2).float(), batch.targets, reduction="none", ignore_index=IGNORED)
    plain = (each if batch.weights is None else each * batch.weights).sum()
    shared = head_losses(head, x, batch, V)
    for found, expected in zip(
        gradients(shared * 0.25, x, *head.parameters()), gradients(plain * 0.25, x, *head.parameters()), strict=True
    ):
        assert_close(found, expected, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        assert_close(head_losses(head, x, batch, V), plain, rtol=1e-6, atol=1e-6)


def test_the_head_never_sees_more_than_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    head, seen = head_of({}), []
    head.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0].shape))
    x = torch.randn(B, T, D, dtype=torch.float64, requires_grad=True)
    head_losses(head, x, batch_of(), V).backward()
    assert [shape[0] for shape in seen] == [4, 4, 4, 4, 4, 1]
    monkeypatch.setattr(loss_module, "LOGITS_AT_ONCE", {"cpu": V * B * T})
    seen.clear()
    head_losses(head, x, batch_of(), V)
    assert seen == [(B, T, D)]


def test_a_head_that_is_not_trained_passes_the_gradient_on() -> None:
    head = head_of({"bias": True}).requires_grad_(False)
    x = torch.randn(B, T, D, dtype=torch.float64, requires_grad=True)
    batch = batch_of()
    expected = gradients(sum_losses(head(x), batch), x)
    for found, wanted in zip(gradients(head_losses(head, x, batch, V), x), expected, strict=True):
        assert_close(found, wanted, rtol=1e-6, atol=1e-6)
    assert not head_losses(head, x.detach(), batch, V).requires_grad


def test_a_trained_head_over_features_that_are_not_gets_its_gradient() -> None:
    head, batch, x = head_of({}), batch_of(), torch.randn(B, T, D, dtype=torch.float64)
    expected = gradients(sum_losses(head(x), batch), head.weight)
    for found, wanted in zip(gradients(head_losses(head, x, batch, V), head.weight), expected, strict=True):
        assert_close(found, wanted, rtol=1e-6, atol=1e-6)


def test_in_bfloat16_shares_are_as_near_to_float32_as_the_whole() -> None:
    head, batch = head_of({"bias": True}).float(), batch_of()
    x = torch.randn(B, T, D, requires_grad=True)
    exact = gradients(sum_losses(head(x), batch), x, *head.parameters())
    errors = []
    for run in (lambda: sum_losses(head(x), batch), lambda: head_losses(head, x, batch, V)):
        with torch.autocast("cpu", torch.bfloat16):
            loss = run()
        found = gradients(loss, x, *head.parameters())
        assert all(one.dtype == torch.float32 for one in found)
        errors.append([(one - wanted).norm() / wanted.norm() for one, wanted in zip(found, exact, strict=True)])
    assert all(shared < 2 * whole + 1e-3 for whole, shared in zip(*errors, strict=True))
