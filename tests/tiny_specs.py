"""Random tiny specs, drawn from every component that can stand in a decoder."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from lamina.core.build import build
from lamina.core.conformance.case import cases_of
from lamina.core.decoder import Decoder
from lamina.core.errors import SpecError
from lamina.core.registry import load_plugins
from lamina.core.resolve import PLACEMENTS, resolve_data, resolve_part
from lamina.core.resolved import ResolvedSpec

REGISTRY = load_plugins(only=[])
VOCAB, DIM, CONTEXT = 23, 32, 24
KINDS = ("position", "attention", "ffn", "norm", "router", "mask", "activation", "residual")  # those of a decoder
SEE_THE_FUTURE = {"mask": ("bidirectional", "prefix"), "router": ("expert_choice",)}  # as they are meant to

Drawn = st.SearchStrategy[Any]


def options(name: str, **drawn: Drawn) -> Drawn:
    """A component with these options, each left out now and then."""
    return st.fixed_dictionaries({"name": st.just(name)}, optional=drawn)


@cache
def examples(kind: str, name: str) -> list[dict[str, Any]]:
    """Options that a component can be had with: those that its conformance is checked with."""
    cases = cases_of(REGISTRY.get(kind, name), REGISTRY, Path())
    return [{"name": name, **case.options} for case in cases]


def component(kind: str, without: tuple[str, ...] = ()) -> Drawn:
    """Any registered component of `kind`, a new one too: with options it is checked with, or as SPECIAL says."""
    names = [name for name in REGISTRY.names(kind) if name not in (*without, *SEE_THE_FUTURE.get(kind, ()))]
    return st.deferred(lambda: st.sampled_from(names).flatmap(lambda name: one(kind, name)))


def one(kind: str, name: str) -> Drawn:
    special = SPECIAL.get(kind, {}).get(name)
    return st.sampled_from(examples(kind, name)) if special is None else special


@cache
def catalogue() -> list[tuple[str, str]]:
    """Every component that can stand in a decoder, by kind and name."""
    return [(kind, name) for kind in KINDS for name in REGISTRY.names(kind)]


def attention(name: str, required: dict[str, Drawn], optional: dict[str, Drawn]) -> Drawn:
    shared = {"bias": st.booleans(), "mask": component("mask", without=("bidirectional", "prefix"))}
    return st.fixed_dictionaries({"name": st.just(name), **required}, optional={**shared, **optional})


@st.composite
def heads(draw: st.DrawFn) -> dict[str, int]:
    n_kv_heads = draw(st.sampled_from([1, 2]))
    found = {"n_heads": n_kv_heads * draw(st.sampled_from([1, 2])), "n_kv_heads": n_kv_heads}
    return found if draw(st.booleans()) else {**found, "head_dim": 12}


@st.composite
def gqa(draw: st.DrawFn) -> dict[str, Any]:
    rest = {
        "qk_norm": st.none() | component("norm"),
        "softcap": st.none() | st.just(2.0),
        "scale": st.just(0.5),
        "out_bias": st.booleans(),
        "v_norm": component("norm"),
        "clip": st.just(1.0),
        "value_dim": st.sampled_from([4, 12]),
        "sinks": st.booleans(),
        "out_norm": component("norm"),
        "gate": st.sampled_from(["element", "head"]),
    }
    drawn = {**draw(attention("gqa", {}, rest)), **draw(heads())}
    if drawn.get("qk_norm"):
        drawn["qk_norm_over"] = draw(st.sampled_from(["head", "all"]))
        drawn["qk_norm_at"] = draw(st.sampled_from(["before", "after"]))
    return drawn


@st.composite
def sharing(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two attentions, of which the second reads the keys and values that the first has made."""
    first = draw(gqa())
    second = {option: value for option, value in first.items() if option != "v_norm"}
    return {**first, "keep_kv": "shared"}, {**second, "share_kv": "shared"}


@st.composite
def differential(draw: st.DrawFn) -> dict[str, Any]:
    rest = {"qk_norm": component("norm"), "lambda_init": st.just(0.4), "scale": st.just(0.5), "norm": component("norm")}
    return {**draw(attention("differential", {}, rest)), "head_dim": 4, **draw(heads())}


mla = attention(
    "mla",
    {
        "n_heads": st.sampled_from([1, 2]),
        "kv_lora_rank": st.just(6),
        "qk_nope_head_dim": st.just(4),
        "qk_rope_head_dim": st.just(4),
        "v_head_dim": st.sampled_from([4, 6]),
    },
    {"q_lora_rank": st.sampled_from([None, 5]), "norm": component("norm")},
)


def recurrent(name: str, **drawn: Drawn) -> Drawn:
    return options(name, **drawn).map(lambda data: {"n_heads": 2, **data})


kernels = {
    "gated_deltanet": recurrent(
        "gated_deltanet",
        n_qk_heads=st.just(1),
        v_head_dim=st.just(4),
        decay=st.booleans(),
        gate=st.none(),
        norm=component("norm"),
    ),
    "kda": recurrent("kda", rank=st.just(3), norm=component("norm")),
    "lightning": recurrent("lightning", gate=st.none(), norm=component("norm"), layer_decay=st.booleans()),
    "linear": recurrent("linear", feature_map=st.sampled_from(["relu", "softmax"]), norm=component("norm")),
    "mamba": options("mamba", gate=st.none(), norm=component("norm")).map(
        lambda data: {"state_dim": 6, "dt_rank": 2, **data}
    ),
    "mamba2": options("mamba2", n_groups=st.just(2), gate=st.none(), norm=component("norm")).map(
        lambda data: {"head_dim": 4, "state_dim": 6, **data}
    ),
    "retention": recurrent("retention", v_head_dim=st.just(4), gate=st.none(), norm=component("norm")),
}


# A mixture inside a mixture, and ffns that are not tokenwise.
UNFIT_FOR_EXPERTS = ("moe", "trace", "lora", "rwkv_channel_mix")


@st.composite
def moe(draw: st.DrawFn) -> dict[str, Any]:
    dense = component("ffn", without=UNFIT_FOR_EXPERTS)
    router = draw(component("router", without=("expert_choice",)))  # it is not causal
    found = {"name": "moe", "n_experts": 4, "router": router, "expert": draw(dense), "shared": draw(st.none() | dense)}
    more = {
        "identity_experts": st.just(2),
        "zero_experts": st.just(1),
        "capacity_factor": st.just(1.0),
        "weigh": st.just("inputs"),
        "expert_scale": st.booleans(),
    }
    gate = {"shared_gate": st.booleans()} if found["shared"] is not None else {}
    return found | draw(st.fixed_dictionaries({}, optional=more | gate))


def dense(name: str, **more: Drawn) -> Drawn:
    shared = {"hidden_dim": width, "activation": component("activation"), "bias": st.booleans()}
    return options(name, **shared, **more)


def wrapper(name: str, kind: str) -> Drawn:
    """A component around another; around none that has no projection to adapt."""
    inside = component(kind, without=("trace", "lora", "moe"))
    return st.builds(dict, name=st.just(name), wraps=inside)


top_k = {"experts_per_token": st.sampled_from([2, 3]), "renormalise": st.booleans()}
width = st.sampled_from([8, 12])

# kind -> name -> how to draw one, where a bare name will not do or has more to show.
SPECIAL: dict[str, dict[str, Drawn]] = {
    "attention": {"differential": differential(), "gqa": gqa(), "mla": mla, **kernels},
    "ffn": {
        "clamped_gated": options("clamped_gated", limit=st.just(1.0), out_bias=st.booleans()),
        "gated": dense(
            "gated",
            out_bias=st.booleans(),
            inner_norm=component("norm"),
            gate_scale=st.just(0.5),
            out_scale=st.just(0.7),
        ),
        "mlp": dense("mlp", out_bias=st.booleans(), inner_norm=component("norm")),
        "sparse_gated": dense("sparse_gated").map(lambda ffn: ffn | {"sparsity": 0.3}),
        "moe": moe(),
        "trace": wrapper("trace", "ffn"),
        "lora": wrapper("lora", "ffn"),
    },
    "mask": {
        "chunked": st.builds(dict, name=st.just("chunked"), size=st.integers(1, 5)),
        "dilated": st.builds(dict, name=st.just("dilated"), window=st.integers(1, 3), dilation=st.integers(1, 3)),
        "fixed": st.builds(
            dict,
            name=st.just("fixed"),
            stride=st.integers(2, 4),
            summary=st.integers(1, 2),
            part=st.sampled_from(["both", "block", "summary"]),
        ),
        "prefix": st.builds(dict, name=st.just("prefix"), length=st.integers(1, 5)),
        "sliding": st.builds(dict, name=st.just("sliding"), window=st.integers(1, 5)),
        "strided": st.builds(
            dict,
            name=st.just("strided"),
            stride=st.integers(1, 4),
            part=st.sampled_from(["both", "local", "strided"]),
        ),
    },
    "norm": {
        "rms": options("rms", offset=st.just(1.0)) | st.just({"name": "rms", "affine": False}),
        "layer": options("layer", affine=st.booleans()),
        "group": st.builds(dict, name=st.just("group"), n_groups=st.just(2), centre=st.booleans()),
    },
    "position": {
        "rope": options(
            "rope",
            layout=st.sampled_from(["half", "interleaved"]),
            fraction=st.just(0.5),
            theta=st.just(100.0),
            scaling=st.sampled_from(
                [
                    {"name": "linear", "factor": 2.0},
                    {"name": "yarn", "original_context_length": 8, "factor": 2.0},
                    {"name": "llama3", "original_context_length": 8},
                ]
            ),
        ),
        "t5": options("t5", n_buckets=st.just(6), max_distance=st.just(8), shared=st.booleans()),
        "kerple": options("kerple", variant=st.just("power")),
        "fire": options("fire", hidden_dim=st.just(4), threshold=st.just(3.0)),
        "shaw": options("shaw", max_distance=st.just(3)),
        "cope": options("cope", n_positions=st.just(3)),
        "xpos": options("xpos", scale_base=st.just(4.0)),
        "learned": options("learned", offset=st.just(2)),
    },
    "residual": {
        "hyper_connections": options("hyper_connections", n_streams=st.just(2), norm=component("norm"))
        | st.just({"name": "hyper_connections", "dynamic": False}),
        "laurel": options("laurel", norm=component("norm"), norm_in=component("norm"), add_input=st.booleans()),
        "layer_scale": st.builds(dict, name=st.just("layer_scale"), start=st.just(0.5), learn_stream=st.booleans()),
        "scaled": st.builds(
            dict,
            name=st.just("scaled"),
            factor=st.just(0.7),
            learned=st.booleans(),
            stream_factor=st.sampled_from([1.0, 0.8]),
        ),
    },
    "router": {
        "hash": st.builds(
            dict, name=st.just("hash"), experts_per_token=st.just(2), score=st.sampled_from([None, "sqrt_softplus"])
        ),
        "mlp": options("mlp", hidden_dim=width, activation=component("activation"), n_hidden=st.just(2), **top_k),
        "softmax_bias": options("softmax_bias", scale=st.just(1.5), **top_k),
        "softmax_top_k": options("softmax_top_k", **top_k),
        "sigmoid_bias": options("sigmoid_bias", scale=st.just(1.5), **top_k),
    },
}


@st.composite
def blocks(draw: st.DrawFn, experts: bool) -> dict[str, Any]:
    placement = draw(st.sampled_from(sorted(PLACEMENTS)))
    block: dict[str, Any] = {
        "placement": placement,
        "attention": draw(component("attention")),
        "ffn": draw(component("ffn", without=() if experts else ("moe",))),
        "residual": draw(component("residual")),
    }
    if draw(st.booleans()) and placement not in ("parallel", "parallel_two"):
        block["ffn_residual"] = draw(component("residual"))
    if placement not in ("none", "parallel", "parallel_two"):
        block |= draw(st.sampled_from([{}, {}, {}, {"attention": None}, {"ffn": None}]))
    if block["ffn"] is None:
        block.pop("ffn_residual", None)
    return block


def _streams(residual: Any) -> Any:
    """What kind of stream a residual keeps; those of a decoder must agree."""
    part = resolve_part("residual", residual, REGISTRY, dim=DIM, n_layers=1)
    return part.component.stream(part.config)  # type: ignore[attr-defined]


def _fits(position: Any, attention: Any) -> bool:
    """Whether the position may act in this attention."""
    scheme = REGISTRY.get("position", position if isinstance(position, str) else position["name"]).component
    part = resolve_part("attention", attention, REGISTRY, dim=DIM)
    wanted: frozenset[str] = scheme.acts_at() - {"embeddings"}  # type: ignore[attr-defined]
    return wanted <= part.component.provides(part.config)


@st.composite
def spec_data(draw: st.DrawFn, experts: bool = True) -> dict[str, Any]:
    """A spec as plain data: one or two kinds of block in up to three layers."""
    kinds = {name: draw(blocks(experts)) for name in ("a", "b")[: draw(st.integers(1, 2))]}
    first = kinds["a"]["residual"]
    for block in kinds.values():
        for slot in {"residual", "ffn_residual"} & block.keys():
            if _streams(block[slot]) != _streams(first):
                block[slot] = first
    position = draw(component("position"))
    here = REGISTRY.get("position", position if isinstance(position, str) else position["name"]).component
    if "b" in kinds and "embeddings" not in here.acts_at():  # type: ignore[attr-defined]
        other = draw(st.sampled_from(["none", "alibi", {"name": "rope", "theta": 50.0}]))
        kinds["b"]["position"] = other
    for block in kinds.values():
        if block.get("attention") is not None and not _fits(block.get("position", position), block["attention"]):
            block["position"] = "none"
    return {
        "lamina": 1,
        "vocab_size": VOCAB,
        "dim": DIM,
        "context_length": CONTEXT,
        "position": position,
        "norm": draw(component("norm")),
        "blocks": kinds,
        "layers": {"pattern": list(kinds), "n_layers": draw(st.integers(len(kinds), 3))},
        "embedding": draw(
            st.fixed_dictionaries({}, optional={"scale": st.sampled_from(["sqrt_dim", 0.5]), "norm": component("norm")})
        ),
        "head": draw(
            st.fixed_dictionaries(
                {"tied": st.booleans()},
                optional={"bias": st.booleans(), "scale": st.just(0.5), "softcap": st.just(3.0)},
            )
        ),
        "init": {"std": 0.25},  # so that in so narrow a decoder every part is felt
    }


def resolved(data: dict[str, Any]) -> ResolvedSpec | None:
    """None where the parts do not go together."""
    try:
        spec = resolve_data(data, REGISTRY)
        build(spec, device="meta")
    except SpecError:
        return None
    return spec


def tiny_specs(experts: bool = True) -> st.SearchStrategy[ResolvedSpec]:
    """Specs whose parts go together."""
    return spec_data(experts).map(resolved).filter(lambda spec: spec is not None)


def has_experts(spec: ResolvedSpec) -> bool:
    return any(block.ffn is not None and block.ffn.name == "moe" for block in spec.blocks.values())


def build_moved(spec: ResolvedSpec, **options: Any) -> Decoder:
    """The decoder in evaluation, with every tensor moved off the value it starts at."""
    decoder = build(spec, **options).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in decoder.tensors().values():
            noise = torch.randn(tensor.shape, generator=generator)
            if tensor.is_floating_point():
                tensor.add_(0.1 * noise)
    return decoder


def tokens(batch: int, length: int, seed: int = 0) -> Tensor:
    """(B, T) random ids."""
    return torch.randint(VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))
