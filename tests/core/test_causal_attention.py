"""Attention in blocks against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from lamina.core import causal_attention as module
from lamina.core import softmax_attention
from lamina.core.build import build
from lamina.core.causal_attention import causal_attention
from lamina.core.resolve import resolve_data

B, H, T, D = 2, 4, 11, 6


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 4)


def heads(n: int, width: int = D) -> Tensor:
    """(B, n, T, width) as a projection leaves it: not contiguous."""
    return torch.randn(B, T, n, width, dtype=torch.float64).transpose(1, 2).requires_grad_()


def hidden_keys(reach: int | None, documents: bool) -> Tensor:
    ages = torch.arange(T).view(-1, 1) - torch.arange(T)
    allowed = (ages >= 0) & (ages < (reach or T))
    ids = (torch.arange(T) >= torch.tensor([[3], [7]])) if documents else torch.zeros(1, T)
    return allowed & (ids.unsqueeze(-1) == ids.unsqueeze(-2))


@pytest.mark.parametrize("value_width", [D, 3])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize(("reach", "documents"), [(None, False), (None, True), (3, False), (6, True)])
def test_outputs_and_gradients_are_those_of_torchs_attention(
    kv_heads: int, value_width: int, reach: int | None, documents: bool
) -> None:
    q, k, v = heads(H), heads(kv_heads), heads(kv_heads, value_width)
    allowed = hidden_keys(reach, documents)
    plain = reach is None and not documents
    found = causal_attention(q, k, v, 0.3, None if plain else allowed, reach)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed.unsqueeze(1), scale=0.3, enable_gqa=True)
    assert_close(found, expected)
    gradient = torch.randn_like(expected)
    assert_close(torch.autograd.grad(found, (q, k, v), gradient), torch.autograd.grad(expected, (q, k, v), gradient))


def test_the_operator_keeps_torchs_rules_for_operators() -> None:
    q, k, v = heads(H), heads(2), heads(2, 3)
    torch.library.opcheck(torch.ops.lamina.causal_attention.default, (q, k, v, 0.3, None, None))
    assert torch.autograd.gradcheck(
        lambda *inputs: causal_attention(*inputs, 0.3, hidden_keys(3, True), 3), (q, k, v), fast_mode=True
    )


def test_autocast_leaves_what_is_inside_alone() -> None:
    q, k, v = (heads(H).detach().float().requires_grad_() for _ in range(3))
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = causal_attention(q, k, v, D**-0.5)
    assert_close(found, expected)
    found.sum().backward()
    assert_close(q.grad, torch.autograd.grad(expected.sum(), q)[0])


@pytest.mark.parametrize("mask", ["causal", {"name": "sliding", "window": 3}])
@pytest.mark.parametrize("documents", [False, True])
def test_a_decoder_trains_in_blocks_as_it_does_without(
    mask: object, documents: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = resolve_data(
        {
            "lamina": 1,
            "vocab_size": 16,
            "dim": 8,
            "context_length": T,
            "position": "rope",
            "norm": "rms",
            "block": {"attention": {"name": "gqa", "n_heads": 2, "n_kv_heads": 1, "mask": mask}, "ffn": "mlp"},
            "layers": 2,
        }
    )
    ids = torch.randint(16, (B, T))
    document_ids = torch.arange(T).expand(B, T) // 4 if documents else None
    found, called = [], []
    in_blocks = softmax_attention.causal_attention
    monkeypatch.setattr(softmax_attention, "causal_attention", lambda *a: (called.append(1), in_blocks(*a))[1])
    for length in (T + 1, T):
        monkeypatch.setattr(softmax_attention, "BLOCKS_FROM", length)
        decoder = build(spec, seed=1).train()
        logits = decoder(ids, document_ids=document_ids)
        logits.logsumexp(-1).sum().backward()
        found.append([logits.detach(), *(parameter.grad for parameter in decoder.parameters())])
        assert len(called) == (0 if length > T else 2)
    assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        decoder(ids, document_ids=document_ids)
    assert len(called) == 2
