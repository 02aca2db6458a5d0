"""Figures against published ones, closed forms, and what a real decoder on the CPU holds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lamina.core import FFN, Context, SpecError, hookimpl
from lamina.core.account import account, active_parameters
from lamina.core.build import build, build_part
from lamina.core.meters import Flops, PeakMemory
from lamina.core.registry import Registry, load_plugin, load_plugins
from lamina.core.report import LayerGroup
from lamina.core.resolve import resolve, resolve_data
from lamina.core.resolved import ResolvedSpec
from lamina.core.spec import load_spec

LAYERS, DIM, VOCAB, CONTEXT = 2, 32, 96, 24


def tiny(registry: Registry | None = None, **changes: Any) -> ResolvedSpec:
    data: dict[str, Any] = {"lamina": 1, "vocab_size": VOCAB, "dim": DIM, "context_length": CONTEXT}
    data |= {"position": "rope", "norm": "rms", "layers": LAYERS, "head": {"tied": False}}
    data["block"] = {"attention": {"name": "gqa", "n_heads": 4, "n_kv_heads": 2}, "ffn": "gated"}
    block = {**data["block"], **changes.pop("block", {})}
    return resolve_data({**data, **changes, "block": block}, registry)


def test_the_report_tells_what_is_counted_on_the_decoder() -> None:
    resolved = resolve(load_spec("mixtral-8x7b"))
    report, decoder = account(resolved, context=16), build(resolved, device="meta")
    assert report.total == sum(report.parameters.values()) == sum(p.numel() for p in decoder.parameters())
    idle = 32 * 6 * 3 * 4096 * 14336  # six of eight experts in each layer
    assert report.active == active_parameters(decoder) == report.total - idle


def test_flops_are_two_for_each_multiply_add_of_every_product() -> None:
    report = account(tiny())
    attention = DIM * 8 * 8 + DIM * DIM
    ffn = 3 * DIM * 88
    scores_and_values = 2 * CONTEXT * DIM  # a query meets every key of the context, then every value
    forward = 2 * (LAYERS * (attention + ffn + scores_and_values) + DIM * VOCAB)
    assert report.flops_forward == forward
    assert report.flops_training == 3 * forward


def test_idle_experts_cost_nothing() -> None:
    few, many = (
        account(tiny(block={"ffn": {"name": "moe", "n_experts": n, "expert": {"name": "gated", "hidden_dim": 16}}}))
        for n in (2, 6)
    )
    assert few.flops_forward is not None
    assert many.flops_forward is not None
    router = 2 * 4 * DIM * LAYERS  # it must look at the other four
    assert many.flops_forward - few.flops_forward == router
    assert many.total > few.total


def test_an_operation_whose_cost_nobody_tells_makes_flops_unknown() -> None:
    @torch.library.custom_op("lamina_test::twice", mutates_args=())
    def twice(x: Tensor) -> Tensor:
        return x * 2

    @twice.register_fake
    def _(x: Tensor) -> Tensor:
        return torch.empty_like(x)

    twice.register_autograd(lambda ctx, grad: grad * 2)

    class Twice(FFN):
        def forward(self, x: Tensor, context: Context) -> Tensor:
            out: Tensor = twice(x)
            return out

    class plugin:  # noqa: N801  (stands for a module)
        @staticmethod
        @hookimpl
        def register_components(register: Any) -> None:
            register("twice", Twice)

    registry = Registry.of([*load_plugins().plugins, load_plugin("mine", "mine", "mine", "1", lambda: plugin)])
    report = account(tiny(registry, block={"ffn": "twice"}))
    assert report.flops_forward is None
    assert report.flops_training is None
    assert any("lamina_test.twice" in note for note in report.notes)
    assert report.total > 0
    assert report.training.total is not None


def test_products_that_torch_does_not_count_are_noticed() -> None:
    with Flops() as flops:
        torch.mv(torch.empty(3, 4, device="meta"), torch.empty(4, device="meta"))
    assert flops.uncounted == {"aten.mv"}


def test_cache_bytes_are_keys_and_values_of_every_layer() -> None:
    report = account(tiny(), batch=3, dtype="bfloat16")
    assert report.cache is not None
    per_token = LAYERS * 2 * 2 * 8 * 2  # keys and values, two heads of 8 channels, two bytes
    assert (report.cache.per_token, report.cache.per_token_at_context) == (per_token, per_token)
    assert report.cache.total == report.inference.uses["cache"] == 3 * CONTEXT * per_token


def test_a_rolling_window_stops_growing_before_the_contexts_end() -> None:
    windowed = {"attention": {"name": "gqa", "n_heads": 4, "mask": {"name": "sliding", "window": 8}}}
    report = account(tiny(block=windowed), dtype="float32")
    assert report.cache is not None
    assert report.cache.per_token_at_context == 0
    assert report.cache.total == 8 * report.cache.per_token


COMPOSITIONS: dict[str, dict[str, Any]] = {
    "gqa": {"block": {"attention": {"name": "gqa", "n_heads": 4, "n_kv_heads": 2, "qk_norm": "rms"}}},
    "learned, tied": {"position": "learned", "norm": "layer", "block": {"ffn": "mlp"}, "head": {"tied": True}},
    "window": {"block": {"attention": {"name": "gqa", "n_heads": 4, "mask": {"name": "sliding", "window": 8}}}},
    "bias on scores": {"position": "alibi"},
    "capped scores": {"block": {"attention": {"name": "gqa", "n_heads": 4, "softcap": 20.0}}},
    "dropout": {"block": {"residual": {"name": "plain", "dropout": 0.1}}},
}


@pytest.mark.parametrize("composition", COMPOSITIONS.values(), ids=COMPOSITIONS.keys())
def test_training_activations_are_what_autograd_keeps_on_the_cpu(composition: dict[str, Any]) -> None:
    spec = tiny(**composition)
    decoder = build(spec)
    own = {parameter.untyped_storage().data_ptr() for parameter in decoder.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    token_ids = torch.randint(VOCAB, (3, CONTEXT))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        F.cross_entropy(decoder(token_ids).flatten(0, 1), token_ids.flatten())
    measured = sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in own)
    assert account(spec, batch=3).training.uses["activations"] == measured


def test_optimizer_state_is_what_the_specs_optimizer_keeps() -> None:
    for name in ("adamw", "sgd"):
        spec = tiny(train={"optimizer": name})
        decoder = build(spec)
        decoder(torch.zeros(1, 4, dtype=torch.int64)).sum().backward()
        optimizer = build_part(spec.train.optimizer).make(decoder.named_parameters(), 1e-3)
        optimizer.step()
        kept = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
        assert account(spec).training.uses["optimizer"] == sum(value.nbytes for value in kept)


def test_weights_and_gradients_are_counted_at_their_own_width() -> None:
    report = account(tiny(), dtype="bfloat16")
    assert report.inference.uses["weights"] == 2 * report.total
    assert report.training.uses["weights"] == report.training.uses["gradients"] == 4 * report.total


def test_peak_memory_forgets_what_is_freed_and_counts_views_once() -> None:
    own = torch.empty(1000, device="meta")
    with PeakMemory([own]) as memory:
        first = own + 1
        second = first.view(10, 100) + 1
        del first
        third = second + 1
        del second, third
        torch.empty(500, device="meta")
    assert memory.peak == 2 * 1000 * 4


def test_layers_that_are_alike_stand_together() -> None:
    group = {"attention": {"name": "gqa", "n_heads": 4}, "ffn": "gated"}
    spec = tiny()
    data = spec.dump() | {"blocks": {"a": group, "b": {**group, "ffn": "mlp"}}}
    data["layers"] = {"pattern": ["a", "a", "b"], "n_layers": 7}
    groups = account(resolve_data(data)).layers
    assert [(g.ranges, g.block) for g in groups] == [("0-1, 3-4, 6", "a"), ("2, 5", "b")]
    assert "gated(hidden_dim 88)" in groups[0].parts


def test_ranges_name_single_layers_singly() -> None:
    assert LayerGroup((0, 2, 3, 4, 9), "a", "", 1).ranges == "0, 2-4, 9"


def test_a_tied_head_is_counted_once() -> None:
    tied, untied = (account(tiny(head={"tied": tied})) for tied in (True, False))
    assert untied.total - tied.total == VOCAB * DIM
    assert untied.parameters["head"] == VOCAB * DIM
    assert "head" not in tied.parameters


def test_parts_that_do_not_fit_are_told_before_anything_is_counted() -> None:
    class Short(FFN):
        def forward(self, x: Tensor, context: Context) -> Tensor:
            return x[..., :-1]

    class plugin:  # noqa: N801  (stands for a module)
        @staticmethod
        @hookimpl
        def register_components(register: Any) -> None:
            register("short", Short)

    registry = Registry.of([*load_plugins().plugins, load_plugin("mine", "mine", "mine", "1", lambda: plugin)])
    with pytest.raises(SpecError, match="ffn 'short' fails"):
        account(tiny(registry, block={"ffn": "short"}))
