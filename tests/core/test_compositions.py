"""Whatever is put together from the whole catalogue is refused with a clear error, or trains and generates."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_specs import CONTEXT, REGISTRY, SEE_THE_FUTURE, catalogue, component, examples, spec_data, tokens

from lamina.core.build import build, build_part
from lamina.core.data import Batch
from lamina.core.dryrun import dry_run
from lamina.core.errors import GenerationError, SpecError
from lamina.core.model import Model
from lamina.core.options import TrainConfig
from lamina.core.resolve import resolve_data, resolve_part
from lamina.core.resolved import ResolvedSpec
from lamina.core.train import train_step

some = settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))

HOSTS: dict[str, Any] = {  # kind -> where in a block a component of that kind stands
    "position": lambda part: {"position": part},
    "attention": lambda part: {"attention": part},
    "ffn": lambda part: {"ffn": part},
    "norm": lambda part: {"norm": part},
    "router": lambda part: {"ffn": {"name": "moe", "n_experts": 4, "expert": "mlp", "router": part}},
    "mask": lambda part: {"attention": {"name": "gqa", "n_heads": 2, "mask": part}},
    "activation": lambda part: {"ffn": {"name": "mlp", "activation": part}},
    "residual": lambda part: {"residual": part},
}


@st.composite
def wild(draw: st.DrawFn) -> dict[str, Any]:
    """A drawn spec with one part exchanged for any of the catalogue, whether it goes there or not."""
    data = draw(spec_data())
    kind, name = draw(st.sampled_from(catalogue()))
    block = data["blocks"][draw(st.sampled_from(sorted(data["blocks"])))]
    block |= HOSTS[kind](draw(st.sampled_from(examples(kind, name))))
    if draw(st.booleans()):
        data["position"] = draw(component("position"))
    return data


def works(spec: ResolvedSpec) -> None:
    """It runs on the meta device, takes a step that changes weights, and generates if it sees no later tokens."""
    assert dry_run(spec).unchecked is None
    decoder = build(spec)
    before = {name: p.detach().clone() for name, p in decoder.named_parameters() if p.requires_grad}
    ids = tokens(2, CONTEXT + 1)
    config = TrainConfig(optimizer=resolve_part("optimizer", "sgd", REGISTRY), batch_size=2, context=CONTEXT)
    optimizer = build_part(config.optimizer).make(
        [(name, p) for name, p in decoder.named_parameters() if p.requires_grad], 0.1
    )
    loss, _ = train_step(decoder.train(), optimizer, Batch(ids[:, :-1], ids[:, 1:], None), config)
    assert loss.isfinite()
    after = dict(decoder.named_parameters())
    assert any(not torch.equal(after[name], was) for name, was in before.items())
    model = Model(decoder.eval(), None, spec)
    refused = ""
    try:
        assert model.generate(ids[:, :4], max_new_tokens=3, sampler="greedy").token_ids.shape == (2, 3)
    except GenerationError as error:
        refused = str(error)
    assert not refused or "later tokens" in refused


@some
@given(data=wild())
def test_it_is_refused_with_a_clear_error_or_it_works(data: dict[str, Any]) -> None:
    try:
        spec = resolve_data(data, REGISTRY)
        build(spec, device="meta")
    except SpecError as error:
        for problem in error.problems:
            assert problem.location is not None
            assert problem.message
        return
    works(spec)


@pytest.mark.parametrize(("kind", "name"), catalogue(), ids=lambda value: value)
def test_each_component_works_in_some_decoder(kind: str, name: str) -> None:
    block = {"attention": {"name": "gqa", "n_heads": 2}, "ffn": "mlp", **HOSTS[kind](examples(kind, name)[0])}
    data = {
        "lamina": 1,
        "vocab_size": 23,
        "dim": 32,
        "context_length": CONTEXT,
        "norm": block.pop("norm", "rms"),
        "position": block.pop("position", "none"),
        "block": block,
        "layers": 2,
    }
    works(resolve_data(data, REGISTRY))


def test_what_sees_later_tokens_is_said_to() -> None:
    for kind, names in SEE_THE_FUTURE.items():
        assert set(names) <= set(REGISTRY.names(kind))
