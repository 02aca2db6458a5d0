"""Whatever is put together from the whole catalogue is refused with a clear error, or trains and generates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_specs import (
    CONTEXT,
    REGISTRY,
    SEE_THE_FUTURE,
    VOCAB,
    build_moved,
    catalogue,
    component,
    examples,
    sharing,
    spec_data,
    tokens,
)

from lamina.core.build import build, build_part
from lamina.core.data import Batch
from lamina.core.decoder import Decoder
from lamina.core.dryrun import dry_run
from lamina.core.errors import GenerationError, SpecError
from lamina.core.model import Model
from lamina.core.options import TrainConfig
from lamina.core.resolve import resolve_data, resolve_part
from lamina.core.resolved import ResolvedSpec, parts_of
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
    if len(data["blocks"]) == 2 and draw(st.booleans()):
        for other, attention in zip(data["blocks"].values(), draw(sharing()), strict=True):
            other["attention"] = draw(st.sampled_from([attention, {"name": "trace", "wraps": attention}]))
    return data


@st.composite
def chains(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Stages of a sampler chain; a constraint is one on texts, which these models have none of."""
    names = draw(st.lists(st.sampled_from([n for n in REGISTRY.names("sampler") if n != "constraint"]), max_size=3))
    return [
        {"name": "dry", "sequence_breakers": []} if name == "dry" else draw(st.sampled_from(examples("sampler", name)))
        for name in names
    ]


# How it is trained and generated from. A draft model is a second model's directory.
trainings = st.tuples(component("optimizer"), component("schedule"))
strategies = component("decoding", without=("speculative",))


def works(
    spec: ResolvedSpec, training: Any = ("sgd", "constant"), strategy: Any = "greedy", chain: Sequence[Any] = ()
) -> None:
    """It runs on the meta device, takes a step that changes weights, and, unless it is made to see later tokens, sees
    none, gives the same in cached calls, and generates."""
    assert dry_run(spec).unchecked is None
    decoder = build(spec)
    before = {name: p.detach().clone() for name, p in decoder.named_parameters() if p.requires_grad}
    ids = tokens(2, CONTEXT + 1)
    optimizer, schedule = (
        resolve_part(kind, part, REGISTRY) for kind, part in zip(("optimizer", "schedule"), training, strict=True)
    )
    config = TrainConfig(optimizer=optimizer, schedule=schedule, batch_size=2, context=CONTEXT)
    rate = 0.1 * build_part(schedule).factor(1, 10)
    trained = [(name, p) for name, p in decoder.named_parameters() if p.requires_grad]
    batch = Batch(ids[:, :-1], ids[:, 1:], None)
    loss, _ = train_step(decoder.train(), build_part(optimizer).make(trained, rate), batch, config)
    assert loss.isfinite()
    after = dict(decoder.named_parameters())
    assert any(not torch.equal(after[name], was) for name, was in before.items())
    model = Model(decoder.eval(), None, spec)
    refused = ""
    try:
        found = model.generate(ids[:, :4], max_new_tokens=3, sampler=list(chain), decoding=strategy, seed=0)
        assert found.token_ids.shape == (2, 3)
    except GenerationError as error:
        refused = str(error)
    assert not refused or "later tokens" in refused
    if not refused and not decoder.lookahead and not weighs_tokens(spec):
        is_causal_and_caches(build_moved(spec, dtype=torch.float64))


def weighs_tokens(spec: ResolvedSpec) -> bool:
    """Whether a router in it looks at tokens beside each other."""
    parts = [part for block in spec.blocks.values() for part, _ in parts_of(block) if part.kind == "router"]
    return not all(part.component.tokenwise for part in parts)  # type: ignore[attr-defined]


@torch.no_grad()
def is_causal_and_caches(decoder: Decoder) -> None:
    ids = tokens(2, 9)
    want = decoder(ids)
    changed = torch.cat([ids[:, :5], (ids[:, 5:] + 1) % VOCAB], 1)
    torch.testing.assert_close(decoder(changed)[:, :5], want[:, :5], rtol=1e-6, atol=1e-6)
    for split in ([1, 1, 4, 3], [6, 1, 1, 1]):
        cache = decoder.make_cache(2, 9)
        cached = [decoder(piece, cache=cache) for piece in ids.split(split, 1)]
        torch.testing.assert_close(torch.cat(cached, 1), want, rtol=1e-5, atol=1e-5)


@some
@given(data=wild(), training=trainings, strategy=strategies, chain=chains())
def test_it_is_refused_with_a_clear_error_or_it_works(
    data: dict[str, Any], training: Any, strategy: Any, chain: list[Any]
) -> None:
    try:
        spec = resolve_data(data, REGISTRY)
        build(spec, device="meta")
    except SpecError as error:
        for problem in error.problems:
            assert problem.location is not None
            assert problem.message
        return
    works(spec, training, strategy, chain)


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
