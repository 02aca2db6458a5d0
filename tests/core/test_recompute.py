"""Layers run again in the backward pass against layers run once."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from lamina.core.account import account
from lamina.core.build import build
from lamina.core.context import Context, Span
from lamina.core.decoder import Decoder
from lamina.core.recompute import run_again_later
from lamina.core.resolve import resolve_data
from lamina.core.resolved import ResolvedSpec

GQA = {"name": "gqa", "n_heads": 2}
SPECS: dict[str, dict[str, Any]] = {
    "dropout": {"block": {"attention": GQA, "ffn": "gated", "residual": {"name": "plain", "dropout": 0.3}}},
    "a mixture with losses": {
        "block": {
            "attention": GQA,
            "ffn": {
                "name": "moe",
                "n_experts": 4,
                "router": {"name": "noisy_top_k", "load_loss": 0.1},
                "expert": {"name": "gated", "hidden_dim": 8},
            },
        }
    },
    "a mixture that counts": {
        "block": {
            "attention": GQA,
            "ffn": {"name": "moe", "n_experts": 4, "router": "sigmoid_bias", "expert": {"name": "mlp"}},
        }
    },
    "a bias that layers share": {"position": "t5", "block": {"attention": GQA, "ffn": "mlp"}},
    "keys that layers share": {
        "blocks": {
            "one": {"attention": {**GQA, "keep_kv": "a"}, "ffn": "mlp"},
            "two": {"attention": {**GQA, "share_kv": "a"}, "ffn": "mlp"},
        },
        "layers": {"pattern": ["one", "two", "two"], "n_layers": 3},
    },
    "several streams": {"block": {"attention": GQA, "ffn": "mlp", "residual": {"name": "hyper_connections"}}},
}


def spec_of(changes: dict[str, Any], recompute: bool) -> ResolvedSpec:
    base = {"lamina": 1, "vocab_size": 32, "dim": 16, "context_length": 12, "position": "rope", "norm": "rms"}
    layers = {} if "layers" in changes else {"layers": 3}
    return resolve_data({**base, **layers, "train": {"recompute": recompute}, **changes})


def a_step(decoder: Decoder) -> list[Tensor]:
    """The loss and every gradient, and what the parts have counted."""
    token_ids = torch.arange(24).view(2, 12)
    torch.manual_seed(3)
    context = decoder.train().context(token_ids)
    logits = decoder.head(decoder.run(context))
    loss = logits.logsumexp(-1).mean() + sum(context.losses.values())
    loss.backward()
    counted = [value for module in decoder.modules() for value in getattr(module, "counted", {}).values()]
    loads = [module._load for module in decoder.modules() if getattr(module, "_load", None) is not None]
    return [loss.detach(), *(p.grad for p in decoder.parameters() if p.grad is not None), *counted, *loads]


@pytest.mark.parametrize("changes", SPECS.values(), ids=SPECS.keys())
def test_gradients_losses_and_counts_are_those_of_layers_run_once(changes: dict[str, Any]) -> None:
    once, again = (a_step(build(spec_of(changes, recompute), seed=1)) for recompute in (False, True))
    assert len(once) > 10
    for expected, found in zip(once, again, strict=True):
        assert_close(found, expected, rtol=0, atol=0)


def test_what_is_kept_is_one_stream_a_layer() -> None:
    changes: dict[str, Any] = {"block": {"attention": GQA, "ffn": "gated"}}

    def kept(n_layers: int, recompute: bool) -> int:
        found = account(spec_of({**changes, "layers": n_layers}, recompute), batch=2).training.uses["activations"]
        assert found is not None
        return found

    stream = 2 * 12 * 16 * 4
    assert kept(5, True) - kept(4, True) == stream
    assert kept(5, False) - kept(4, False) > 8 * stream


def test_in_evaluation_and_without_gradients_layers_run_once() -> None:
    decoder = build(spec_of({"block": {"attention": GQA, "ffn": "mlp"}}, True), seed=1)
    runs: list[nn.Module] = []
    for layer in decoder.layers:
        layer.register_forward_pre_hook(lambda module, inputs: runs.append(module))  # a second run ends early
    token_ids = torch.arange(12).view(1, 12)
    decoder.eval()(token_ids).sum().backward()
    assert len(runs) == 3
    with torch.no_grad():
        decoder.train()(token_ids)
    assert len(runs) == 6
    decoder(token_ids).sum().backward()
    assert len(runs) == 12


def test_a_graph_is_let_go_of_without_the_garbage_collector() -> None:
    class Keeps(nn.Module):
        def forward(self, x: Tensor, context: Context) -> Tensor:
            context.store["kept"] = x * 2
            context.add_loss("some", context.store["kept"].sum())
            return x.sin()

    gc.disable()
    try:
        x = torch.randn(3, requires_grad=True)
        ids = torch.zeros(1, 3, dtype=torch.int64)
        context = Context(ids, Span.run(0, 3, ids.device))
        out = run_again_later(Keeps(), x, context)
        (out.sum() + context.losses["some"]).backward()
        alive = weakref.ref(context)
        del out, context
        assert alive() is None
    finally:
        gc.enable()
    assert_close(x.grad, x.detach().cos() + 2)
