"""From a resolved spec to a decoder: sizes told by name, weights drawn from a seed, faults told with their line."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from pydantic import Field
from tiny_specs import REGISTRY, VOCAB, tiny_specs, tokens
from torch import Tensor, nn
from torch.testing import assert_close

from lamina.core import (
    FFN,
    ComponentConfig,
    Context,
    Linear,
    Norm,
    OutLinear,
    Part,
    Parts,
    Register,
    RouterLinear,
    hookimpl,
    slot,
)
from lamina.core.build import build, build_part
from lamina.core.errors import LaminaError, RunFailure, SpecError
from lamina.core.module import Embedding
from lamina.core.registry import Registry, load_plugin
from lamina.core.resolve import resolve, resolve_data, resolve_part
from lamina.core.resolved import ResolvedSpec
from lamina.core.spec import read_spec

some = settings(max_examples=40, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))


def spec(registry: Registry = REGISTRY, **changes: Any) -> ResolvedSpec:
    data: dict[str, Any] = {
        "lamina": 1,
        "vocab_size": VOCAB,
        "dim": 16,
        "context_length": 16,
        "norm": "rms",
        "position": "rope",
        "block": {"attention": {"name": "gqa", "n_heads": 2}, "ffn": "gated"},
        "layers": 3,
    }
    return resolve_data({**data, **changes}, registry)


class Grown(FFN):
    """A stranger's ffn, told everything an ffn may ask for, with a part built at a size of its own."""

    class Config(ComponentConfig):
        norm: Part = slot("norm", "rms", description="Inner norm.")
        width: int = Field(5, description="Inner width.")

    @classmethod
    def parts(cls, config: Any, dim: int) -> Parts:
        return {"inner": config.norm.at(size=config.width + dim), "all": [config.norm.at(size=n) for n in (1, 2)]}

    def __init__(self, config: Any, dim: int, layer: int, n_layers: int, inner: Norm, all: list[Norm]) -> None:
        super().__init__()
        self.told = SimpleNamespace(dim=dim, layer=layer, n_layers=n_layers)
        self.inner, self.all = inner, nn.ModuleList(all)
        self.start = nn.Parameter(torch.empty(3))

    def init_weights(self, std: float) -> None:
        self.start.fill_(std)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        return x


class Greedy(FFN):
    """Asks for what no ffn is told."""

    def __init__(self, config: ComponentConfig, dim: int, moon: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, context: Context) -> Tensor:
        return x


class Broken(FFN):
    """Cannot be built at any size."""

    def __init__(self, config: ComponentConfig, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, -1)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        return x


@hookimpl
def register_components(register: Register) -> None:
    register("grown", Grown)
    register("greedy", Greedy)
    register("broken", Broken)


def strangers() -> Registry:
    module = SimpleNamespace(register_components=register_components)
    return Registry.of([*REGISTRY.plugins, load_plugin("odd", "odd", "odd", "1", lambda: module)])


@some
@given(spec=tiny_specs())
def test_a_seed_gives_the_same_weights_and_leaves_the_callers_random_state(spec: ResolvedSpec) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first, again, other = build(spec, seed=3), build(spec, seed=3), build(spec, seed=4)
    assert torch.get_rng_state().equal(before)
    ids = tokens(1, 5)
    with torch.no_grad():
        assert first.eval()(ids).equal(again.eval()(ids))
    drawn = {name for name, tensor in first.tensors().items() if not tensor.equal(other.tensors()[name])}
    assert "embedding.tokens.weight" in drawn
    assert all(tensor.equal(again.tensors()[name]) for name, tensor in first.tensors().items())


@some
@given(spec=tiny_specs())
def test_on_the_meta_device_everything_has_the_shapes_of_the_real_thing(spec: ResolvedSpec) -> None:
    real, meta = build(spec), build(spec, device="meta")
    shapes = [{name: (t.shape, t.dtype) for name, t in decoder.tensors().items()} for decoder in (real, meta)]
    assert shapes[0] == shapes[1]
    assert {tensor.device.type for tensor in meta.tensors().values()} == {"meta"}
    ids = tokens(2, 5)
    assert meta(ids.to("meta")).shape == real(ids).shape
    cache = meta.make_cache(2, 6)
    for length in (3, 1):
        assert meta(ids[:, :length].to("meta"), cache=cache).shape == (2, length, VOCAB)
    assert cache.nbytes == real.make_cache(2, 6).nbytes


@settings(some, max_examples=20)
@given(spec=tiny_specs())
@torch.no_grad()
def test_a_bfloat16_decoder_runs_and_caches_in_bfloat16(spec: ResolvedSpec) -> None:
    decoder, ids = build(spec, dtype="bfloat16").eval(), tokens(2, 5)
    logits = decoder(ids)
    assert logits.dtype == decoder.dtype == torch.bfloat16
    assert logits.isfinite().all()
    cache = decoder.make_cache(2, 5)
    assert {t.dtype for state in cache.layers if state for t in state.streams.values()} <= {torch.bfloat16}
    decoder(ids[:, :3], cache=cache)
    decoder(ids[:, 3:4], cache=cache)


def test_weights_are_drawn_with_the_deviation_of_the_spec_and_smaller_into_the_stream() -> None:
    decoder = build(spec(dim=64, init={"std": 0.5}, head={"tied": False, "bias": True}))
    checked = set()
    for module in decoder.modules():
        if isinstance(module, (Linear, Embedding)):
            expected = 0.5 / math.sqrt(2 * 3) if isinstance(module, OutLinear) else 0.5
            assert_close(module.weight.std().item(), expected, rtol=0.1, atol=0)
            checked.add(type(module))
    assert checked == {Linear, OutLinear, Embedding}
    assert_close(decoder.head.weight.std().item(), 0.5, rtol=0.1, atol=0)
    assert not decoder.head.bias.any()
    even = build(spec(dim=64, init={"std": 0.5, "scale_out": False}))
    assert_close(even.layers[0].ffn.down.weight.std().item(), 0.5, rtol=0.1, atol=0)


def test_the_head_shares_the_embedding_when_it_is_tied_and_only_then() -> None:
    tied, own = build(spec()), build(spec(head={"tied": False}))
    assert tied.head.weight is tied.embedding.tokens.weight
    assert own.head.weight is not own.embedding.tokens.weight
    assert "head.weight" in own.tensors()
    assert len(own.tensors()) == len(tied.tensors()) + 1


def test_biases_start_at_zero() -> None:
    attention = {"name": "gqa", "n_heads": 2, "bias": True}
    decoder = build(spec(block={"attention": attention, "ffn": {"name": "mlp", "bias": True}}))
    biases = [p for name, p in decoder.named_parameters() if name.endswith(".bias")]
    assert len(biases) == 3 * 4
    assert not any(bias.any() for bias in biases)


def test_layers_alike_share_one_position_and_others_have_their_own() -> None:
    blocks = {
        "a": {"attention": {"name": "gqa", "n_heads": 2}, "ffn": "mlp"},
        "b": {"extends": "a", "position": {"name": "rope", "theta": 5.0}},
        "c": {"extends": "a", "attention": {"head_dim": 4}},
    }
    data = {"lamina": 1, "vocab_size": VOCAB, "dim": 16, "context_length": 16, "norm": "rms", "position": "rope"}
    layers = {"pattern": list("aabc"), "n_layers": 5}
    decoder = build(resolve_data({**data, "blocks": blocks, "layers": layers}, REGISTRY))
    positions = [layer.attention.position for layer in decoder.layers]
    assert positions[0] is positions[1] is positions[4]
    assert len({id(position) for position in positions}) == 3


def test_a_learned_position_is_one_table_at_the_embedding() -> None:
    decoder = build(spec(position="learned"))
    tables = [name for name in decoder.tensors() if name.endswith("table.weight")]
    assert tables == ["embedding.position.table.weight"]


def test_a_component_is_told_what_it_names_and_its_parts_at_the_sizes_it_asks_for() -> None:
    decoder = build(
        spec(strangers(), block={"attention": None, "ffn": {"name": "grown", "width": 4}}, init={"std": 0.5})
    )
    made = [layer.ffn for layer in decoder.layers]
    assert [vars(ffn.told) for ffn in made] == [{"dim": 16, "layer": i, "n_layers": 3} for i in range(3)]
    assert made[0].inner.weight.shape == (20,)
    assert [norm.weight.shape[0] for norm in made[0].all] == [1, 2]
    assert made[0].start.tolist() == [0.5] * 3
    assert made[0].part.name == "grown"
    assert made[0].inner.part.name == "rms"


def test_a_part_that_asks_for_what_it_is_not_told_is_named() -> None:
    with pytest.raises(SpecError, match="ffn 'greedy' asks for moon, which it is not told") as caught:
        build(spec(strangers(), block={"attention": None, "ffn": "greedy"}))
    assert "offered are dim, layer, " in str(caught.value)


def test_a_part_that_cannot_be_built_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        "lamina: 1\nvocab_size: 9\ndim: 8\ncontext_length: 8\nnorm: rms\nlayers: 1\nblock:\n  attention: null\n"
        "  ffn: broken\n"
    )
    resolved = resolve(read_spec(file), strangers())
    with pytest.raises(SpecError, match="ffn 'broken' cannot be built") as caught:
        build(resolved)
    assert f"{file}:9:8" in str(caught.value)


HUGE_FFN: dict[str, Any] = {"block": {"attention": None, "ffn": {"name": "mlp", "hidden_dim": 2**62}}}
HUGE_TABLE: dict[str, Any] = {"position": {"name": "learned", "size": 2**62}}


@pytest.mark.parametrize(
    ("changes", "device"),
    [
        ({"vocab_size": 2**31, "dim": 2**20}, "cpu"),
        (HUGE_FFN, "cpu"),
        (HUGE_FFN, "meta"),
        (HUGE_TABLE, "cpu"),
        (HUGE_TABLE, "meta"),
    ],
)
def test_sizes_no_machine_has_are_a_spec_error(changes: dict[str, Any], device: str) -> None:
    with pytest.raises(SpecError, match="cannot be built"):
        build(spec(**changes), device=device)


@pytest.mark.parametrize("name", ["int64", "bfloat17", "nn", ""])
def test_a_dtype_that_is_none_or_holds_no_weights_is_refused(name: str) -> None:
    with pytest.raises(LaminaError, match=f"no decoder has dtype '{name}'"):
        build(spec(), dtype=name)


@pytest.mark.parametrize("name", ["gpu", "cpu:x", "cuda:99", "", "hpu"])
def test_a_device_that_is_not_there_is_a_users_mistake(name: str) -> None:
    with pytest.raises(LaminaError, match=f"device '{name}' cannot be used"):
        build(spec(), device=name)


def test_weights_that_memory_cannot_hold_are_refused_before_they_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = sum(tensor.nbytes for tensor in build(spec()).tensors().values())
    monkeypatch.setattr("lamina.core.build.available_memory", lambda: needed)
    build(spec())
    monkeypatch.setattr("lamina.core.build.available_memory", lambda: needed - 1)
    monkeypatch.setattr("lamina.core.build.init_weights", lambda *_: pytest.fail("weights were touched"))
    with pytest.raises(RunFailure, match="of memory are free"):
        build(spec())
    build(spec(), device="meta")


def test_the_default_dtype_and_device_of_the_caller_are_left_alone() -> None:
    with pytest.raises(SpecError):
        build(spec(strangers(), block={"attention": None, "ffn": "broken"}), dtype="bfloat16", device="meta")
    assert torch.get_default_dtype() == torch.float32
    assert torch.empty(0).device.type == "cpu"


def test_without_initialising_only_what_constructors_set_is_set() -> None:
    decoder = build(spec(), initialise=False)
    assert decoder.norm.weight.equal(torch.ones(16))
    assert {name: t.shape for name, t in decoder.tensors().items()} == {
        name: t.shape for name, t in build(spec()).tensors().items()
    }


def test_a_part_is_built_alone_when_its_sizes_are_given() -> None:
    norm = build_part(resolve_part("norm", {"name": "rms", "eps": 0.5}, REGISTRY), size=3)
    assert norm.weight.shape == (3,)
    moe = build_part(resolve_part("ffn", {"name": "moe", "n_experts": 3}, REGISTRY, dim=6), dim=6)
    assert isinstance(moe.router.linear, RouterLinear)
    assert len(moe.experts) == 3
