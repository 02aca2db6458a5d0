"""Grouped-query attention against torch's attention, transformers' Llama, and its own cache."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from lamina.core import ComponentConfig, ConfigProblem, Mask, Part, Position
from lamina.plugins.attention.gqa import GQA, GQAConfig
from lamina.plugins.mask.causal import Causal
from lamina.plugins.mask.chunked import Chunked, ChunkedConfig
from lamina.plugins.mask.sliding import Sliding, SlidingConfig
from lamina.plugins.norm.rms import RMSNorm, RMSNormConfig
from lamina.plugins.position.alibi import ALiBi, ALiBiConfig, slopes
from lamina.plugins.position.none import NoPosition
from lamina.plugins.position.rope import RoPE, RoPEConfig

DIM = 12
CAUSAL = Part("mask", "causal", Causal, ComponentConfig())
RMS = Part("norm", "rms", RMSNorm, RMSNormConfig())


def gqa(
    n_heads: int = 4,
    n_kv_heads: int | None = None,
    *,
    position: Position | None = None,
    mask: Mask | None = None,
    qk_norm: bool = False,
    **options: Any,
) -> GQA:
    """Built as the core builds it, with random weights."""
    options = {**options, **{name: RMS for name in ("v_norm", "out_norm") if options.get(name)}}
    config = GQAConfig(n_heads=n_heads, n_kv_heads=n_kv_heads, mask=CAUSAL, qk_norm=RMS if qk_norm else None, **options)
    config = config.model_copy(update=config.derive(dim=DIM))
    parts: Any = {name: part for name, part in GQA.parts(config).items() if part is not None and name != "mask"}
    norms: Any = {name: RMSNorm(RMSNormConfig(), part.sizes["size"]) for name, part in parts.items()}
    attention = GQA(config, DIM, position or NoPosition(), mask or Causal(), **norms)
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.5)
    return attention


def by_hand(attention: GQA, x: Tensor, bias: Tensor | None = None, window: int | None = None) -> Tensor:
    """Heads repeated, scores written out."""
    groups = attention.n_heads // attention.n_kv_heads
    q, k, v = (
        part.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
        for part in F.linear(x, attention.qkv.weight, attention.qkv.bias).split(attention.split, -1)
    )
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = q @ k.transpose(-1, -2) / attention.head_dim**0.5
    scores = scores if bias is None else scores + bias
    index = torch.arange(x.shape[1])
    distance = index.unsqueeze(1) - index
    scores[:, :, (distance < 0) | (distance >= (window or 10**9))] = -torch.inf
    return attention.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("n_kv_heads", [None, 2, 1])
@pytest.mark.parametrize("options", [{}, {"bias": True}, {"head_dim": 5}])
def test_heads_share_keys_and_values_in_groups(whole: Any, n_kv_heads: int | None, options: dict[str, Any]) -> None:
    attention, x = gqa(4, n_kv_heads, **options), torch.randn(2, 6, DIM)
    assert_close(whole(attention, x), by_hand(attention, x))


def test_sliding_mask_and_alibi_reach_the_scores(whole: Any) -> None:
    attention = gqa(4, 2, position=ALiBi(ALiBiConfig(), 4), mask=Sliding(SlidingConfig(window=3)))
    x, index = torch.randn(2, 6, DIM), torch.arange(6)
    bias = -torch.tensor(slopes(4, 8.0)).view(1, 4, 1, 1) * (index.unsqueeze(1) - index)
    assert_close(whole(attention, x), by_hand(attention, x, bias, window=3))


def test_multi_head_form_equals_torch(whole: Any) -> None:
    attention, reference = gqa(4, bias=True), nn.MultiheadAttention(DIM, 4, batch_first=True)
    reference.load_state_dict(
        {
            "in_proj_weight": attention.qkv.weight,
            "in_proj_bias": attention.qkv.bias,
            "out_proj.weight": attention.out.weight,
            "out_proj.bias": attention.out.bias,
        }
    )
    x = torch.randn(2, 5, DIM)
    future = torch.ones(5, 5, dtype=torch.bool).triu(1)
    assert_close(whole(attention, x), reference(x, x, x, attn_mask=future)[0])


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2"])
def test_gqa_equals_transformers(whole: Any, family: str) -> None:
    """Llama for rope and groups, Qwen3 for norms on heads, Gemma 2 for scale and softcap."""
    modeling: Any = pytest.importorskip(f"transformers.models.{family}.modeling_{family}")
    title = family.capitalize()
    own = {"gemma2": {"query_pre_attn_scalar": 7, "attn_logit_softcapping": 0.5}}.get(family, {})
    config = getattr(modeling, f"{title}Config")(
        hidden_size=DIM,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=6,
        num_hidden_layers=1,
        layer_types=["full_attention"] if family != "llama" else None,
        attn_implementation="eager",
        **own,
    )
    reference = getattr(modeling, f"{title}Attention")(config, 0).eval()
    options = {"scale": 7**-0.5, "softcap": 0.5} if family == "gemma2" else {}
    attention = gqa(4, 2, head_dim=6, position=RoPE(RoPEConfig(), 6), qk_norm=family == "qwen3", **options)
    q, k, v = attention.qkv.weight.split([24, 12, 12])
    state = {"q_proj.weight": q, "k_proj.weight": k, "v_proj.weight": v, "o_proj.weight": attention.out.weight}
    if attention.q_norm is not None and attention.k_norm is not None:
        state |= {"q_norm.weight": attention.q_norm.weight, "k_norm.weight": attention.k_norm.weight}
    reference.load_state_dict(state)
    x = torch.randn(2, 5, DIM)
    rope = getattr(modeling, f"{title}RotaryEmbedding")(config)(x, torch.arange(5).unsqueeze(0))
    future = torch.full((5, 5), -torch.inf).triu(1).view(1, 1, 5, 5)
    expected, _ = reference(x, position_embeddings=rope, attention_mask=future)
    assert_close(whole(attention, x), expected)


def turns(length: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines (1, T, Dh) as transformers' modules take them."""
    rates = 10_000.0 ** (-torch.arange(0, head_dim, 2) / head_dim)
    angles = torch.arange(length).unsqueeze(1) * rates.repeat(2)
    return angles.cos().unsqueeze(0), angles.sin().unsqueeze(0)


# family: its prefix in transformers, heads, head_dim, its options, ours
OPTIONS: dict[str, tuple[str, tuple[int, int], int, dict[str, Any], dict[str, Any]]] = {
    "olmo2": ("Olmo2", (4, 2), 6, {}, {"qk_norm": True, "qk_norm_over": "all"}),
    "olmoe": ("Olmoe", (2, 2), 6, {"clip_qkv": 0.5}, {"qk_norm": True, "qk_norm_over": "all", "clip": 0.5}),
    "olmo": ("Olmo", (2, 1), 6, {"clip_qkv": 0.7}, {"clip": 0.7}),
    "hunyuan_v1_dense": ("HunYuanDenseV1", (4, 2), 6, {}, {"qk_norm": True, "qk_norm_at": "after"}),
    "qwen3_next": (
        "Qwen3Next",
        (4, 2),
        6,
        {"attention_bias": True},
        {"qk_norm": True, "gate": "element", "bias": True},
    ),
    "laguna": (
        "Laguna",
        (4, 2),
        6,
        {"gating": "per-head"},
        {"qk_norm": True, "gate": "head", "gate_activation": "softplus"},
    ),
    "bitnet": ("BitNet", (2, 1), 6, {}, {"out_norm": True}),
    "gpt_oss": ("GptOss", (4, 2), 6, {"attention_bias": True}, {"sinks": True, "bias": True}),
    "mimo_v2_flash": (
        "MiMoV2Flash",
        (4, 2),
        6,
        {"v_head_dim": 4, "layer_types": ["sliding_attention"], "num_key_value_heads": 1},
        {"value_dim": 4, "sinks": True},
    ),
}


@pytest.mark.parametrize("family", OPTIONS)
def test_what_families_add_equals_transformers(whole: Any, family: str) -> None:
    modeling: Any = pytest.importorskip(f"transformers.models.{family}.modeling_{family}")
    prefix, heads, head_dim, theirs, ours = OPTIONS[family]
    attention = gqa(*heads, head_dim=head_dim, position=RoPE(RoPEConfig(), head_dim), **ours)
    config = getattr(modeling, f"{prefix}Config")(
        **{
            "hidden_size": DIM,
            "num_attention_heads": heads[0],
            "num_key_value_heads": heads[1],
            "head_dim": head_dim,
            "num_hidden_layers": 1,
            "layer_types": ["full_attention"],
            "attention_bias": False,
            "attn_implementation": "eager",
            **theirs,
        }
    )
    build = getattr(modeling, f"{prefix}Attention")
    reference = (build(config, 0, heads[0]) if family == "laguna" else build(config, 0)).eval()
    state = {}
    for name in ["weight", "bias"] if ours.get("bias") else ["weight"]:
        rows = getattr(attention.qkv, name).split(attention.split)
        state |= {f"{which}_proj.{name}": part for which, part in zip("qkv", rows, strict=True)}
        state[f"o_proj.{name}"] = getattr(attention.out, name)
        if attention.gate is not None and family == "qwen3_next":  # each head's query and gate side by side
            gate = getattr(attention.gate, name)
            pairs = [part.unflatten(0, (heads[0], -1)) for part in (state[f"q_proj.{name}"], gate)]
            state[f"q_proj.{name}"] = torch.cat(pairs, 1).flatten(0, 1)
        elif attention.gate is not None:
            state[f"g_proj.{name}"] = getattr(attention.gate, name)
    norms = {"q_norm": attention.q_norm, "k_norm": attention.k_norm, "attn_sub_norm": attention.out_norm}
    if family == "hunyuan_v1_dense":
        norms = {"query_layernorm": attention.q_norm, "key_layernorm": attention.k_norm}
    offset = 1.0 if family == "qwen3_next" else 0.0
    state |= {f"{name}.weight": norm.weight - offset for name, norm in norms.items() if norm is not None}
    state |= {"sinks": attention.sinks} if attention.sinks is not None else {}
    reference.load_state_dict(state)
    for module in reference.modules():  # transformers' norms differ in what eps they start with
        for eps in ("variance_epsilon", "eps"):
            if hasattr(module, eps):
                setattr(module, eps, RMSNormConfig().eps)
    x = torch.randn(2, 5, DIM)
    cos, sin = turns(5, head_dim)
    if family == "gpt_oss":
        cos, sin = cos[..., :3], sin[..., :3]
    future = torch.full((5, 5), -torch.inf).triu(1).view(1, 1, 5, 5)
    expected, _ = reference(x, position_embeddings=(cos, sin), attention_mask=future)
    out = whole(attention, x)
    if family == "mimo_v2_flash":
        out = out * reference.v_scale
    assert_close(out, expected)


def test_temperature_equals_llama_4_in_its_layers_without_rope(whole: Any) -> None:
    modeling: Any = pytest.importorskip("transformers.models.llama4.modeling_llama4")
    config = modeling.Llama4TextConfig(
        hidden_size=DIM,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=6,
        num_hidden_layers=1,
        no_rope_layers=[0],
        floor_scale=3,
        attn_scale=0.4,
        attn_temperature_tuning=True,
        attn_implementation="eager",
    )
    reference = modeling.Llama4TextAttention(config, 0).eval()
    attention = gqa(4, 2, head_dim=6, temperature=0.4, temperature_length=3)
    rows = dict(zip("qkv", attention.qkv.weight.split(attention.split), strict=True))
    weights = {f"{name}_proj.weight": part for name, part in rows.items()}
    reference.load_state_dict({**weights, "o_proj.weight": attention.out.weight})
    x = torch.randn(2, 8, DIM)
    future = torch.full((8, 8), -torch.inf).triu(1).view(1, 1, 8, 8)
    expected, _ = reference(x, position_embeddings=None, attention_mask=future)
    assert_close(whole(attention, x), expected)


options = st.fixed_dictionaries(
    {},
    optional={
        "qk_norm": st.just(True),
        "v_norm": st.just(True),
        "clip": st.just(0.6),
        "value_dim": st.sampled_from([3, 6]),
        "softcap": st.just(1.0),
        "temperature": st.just(0.3),
        "sinks": st.just(True),
        "out_norm": st.just(True),
        "gate": st.sampled_from(["element", "head"]),
        "bias": st.booleans(),
    },
)


@given(options=options, over=st.sampled_from(["head", "all"]), at=st.sampled_from(["before", "after"]))
def test_options_go_together_as_the_formula_says(whole: Any, options: dict[str, Any], over: str, at: str) -> None:
    """Token by token and head by head."""
    if options.get("qk_norm"):
        options = {**options, "qk_norm_over": over, "qk_norm_at": at}
    if options.get("temperature"):
        options = {**options, "temperature_length": 2}
    attention, x = gqa(4, 2, head_dim=4, position=RoPE(RoPEConfig(), 4), **options), torch.randn(1, 5, DIM)
    cos, sin = turns(5, 4)

    def rms(norm: Any, row: Tensor) -> Tensor:
        return row / (row.square().mean() + 1e-6).sqrt() * norm.weight

    def normed(norm: Any, rows: Tensor) -> Tensor:
        if norm is None:
            return rows
        if over == "all":
            return rms(norm, rows.flatten()).view_as(rows)
        return torch.stack([rms(norm, row) for row in rows])

    def turned(rows: Tensor, t: int) -> Tensor:
        half = torch.cat([-rows[:, 2:], rows[:, :2]], -1)
        return rows * cos[0, t] + half * sin[0, t]

    tokens = []
    for t in range(5):
        q, k, v = attention.qkv(x[0, t]).split(attention.split)
        q, k, v = q.view(4, 4), k.view(2, 4), v.view(2, -1)
        if at == "before":
            q, k = normed(attention.q_norm, q), normed(attention.k_norm, k)
        if attention.v_norm is not None:
            v = torch.stack([rms(attention.v_norm, row) for row in v])
        if attention.clip:
            q, k, v = (part.clamp(-attention.clip, attention.clip) for part in (q, k, v))
        q, k = turned(q, t), turned(k, t)
        if at == "after":
            q, k = normed(attention.q_norm, q), normed(attention.k_norm, k)
        if attention.temperature:
            q = q * (1 + attention.temperature * math.log((t + 1) // 2 + 1))
        tokens.append((q, k, v))
    rows = []
    for t in range(5):
        mixed = []
        for h in range(4):
            scores = torch.stack([tokens[t][0][h] @ tokens[s][1][h // 2] / 2 for s in range(t + 1)])
            scores = attention.softcap * (scores / attention.softcap).tanh() if attention.softcap else scores
            weights = scores.exp()
            total = weights.sum() + (attention.sinks[h].exp() if attention.sinks is not None else 0)
            mixed.append(sum(w / total * tokens[s][2][h // 2] for s, w in enumerate(weights)))
        row = torch.cat(mixed)
        row = row if attention.out_norm is None else rms(attention.out_norm, row)
        if attention.gate is not None:
            gate = attention.gate(x[0, t]).sigmoid()
            row = row * (gate if options["gate"] == "element" else gate.repeat_interleave(len(row) // 4))
        rows.append(attention.out(row))
    assert_close(whole(attention, x)[0], torch.stack(rows))


@given(options=options, split=st.lists(st.integers(1, 4), min_size=1, max_size=4), chunk=st.integers(1, 5))
def test_every_option_goes_through_the_cache_and_a_ring_of_chunks(
    whole: Any, in_calls: Any, options: dict[str, Any], split: list[int], chunk: int
) -> None:
    mask = Chunked(ChunkedConfig(size=chunk))
    options |= {"temperature_length": 2} if options.get("temperature") else {}
    attention = gqa(4, 2, head_dim=4, position=RoPE(RoPEConfig(), 4), mask=mask, **options)
    x = torch.randn(2, sum(split), DIM)
    assert_close(in_calls(attention, x, split), whole(attention, x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"qk_norm_over": "all"},
        {"qk_norm_at": "after"},
        {"gate_activation": "softplus"},
        {"temperature_length": 4},
        {"gate_bias": True},
        {"share_kv": "a", "v_norm": RMS},
        {"share_kv": "a", "keep_kv": "a"},
    ],
    ids=lambda wrong: [*wrong][-1],
)
def test_an_option_that_would_do_nothing_is_refused(wrong: dict[str, Any]) -> None:
    field = [*wrong][-1]
    with pytest.raises(ConfigProblem, match=f"{field} has no meaning") as problem:
        GQAConfig(n_heads=4, mask=CAUSAL, **wrong).derive(dim=DIM)
    assert problem.value.field == field


positions = st.sampled_from(["none", "rope", "alibi"])


def positioned(name: str, n_heads: int) -> Position:
    return {"none": NoPosition(), "rope": RoPE(RoPEConfig(), 4), "alibi": ALiBi(ALiBiConfig(), n_heads)}[name]


@given(
    split=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    heads=st.sampled_from([(4, 4), (4, 2), (3, 1)]),
    window=st.one_of(st.none(), st.integers(1, 6)),
    position=positions,
    qk_norm=st.booleans(),
    softcap=st.sampled_from([None, 1.0]),
    documents=st.booleans(),
    data=st.data(),
)
def test_any_split_into_cached_calls_gives_one_full_call(
    whole: Any,
    in_calls: Any,
    split: list[int],
    heads: tuple[int, int],
    window: int | None,
    position: str,
    qk_norm: bool,
    softcap: float | None,
    documents: bool,
    data: st.DataObject,
) -> None:
    mask = Sliding(SlidingConfig(window=window)) if window else Causal()
    scheme = positioned(position, heads[0])
    attention = gqa(*heads, head_dim=4, position=scheme, mask=mask, qk_norm=qk_norm, softcap=softcap)
    length = sum(split)
    row = st.lists(st.integers(0, 1), min_size=length, max_size=length)
    ids = torch.tensor([data.draw(row), data.draw(row)]) if documents else None
    x = torch.randn(2, length, DIM)
    assert_close(in_calls(attention, x, split, ids), whole(attention, x, ids), atol=1e-4, rtol=1e-4)


def test_a_document_is_blind_to_the_others(whole: Any) -> None:
    attention, x = gqa(4, 2, position=RoPE(RoPEConfig(), 3 + 1), head_dim=4), torch.randn(1, 7, DIM)
    packed = whole(attention, x, torch.tensor([[0, 0, 0, 1, 1, 1, 1]]))
    assert_close(packed[:, :3], whole(attention, x[:, :3]))
    assert_close(packed[:, 3:], whole(attention, x[:, 3:]))


def test_reordered_and_cloned_caches_go_on_as_their_rows(whole: Any, in_calls: Any) -> None:
    attention, x = gqa(4, 2, position=RoPE(RoPEConfig(), 4), head_dim=4), torch.randn(2, 5, DIM)
    x[1, 3:] = x[0, 3:] = torch.randn(2, DIM)

    def swap(cache: Any) -> None:
        if cache.used == 3:
            cache.layers[0].owner.reorder(torch.tensor([1, 0]))

    out = in_calls(attention, x, [3, 1, 1], None, swap)
    assert_close(out[:, 3:], whole(attention, x)[[1, 0], 3:])


def test_a_window_bounds_the_cache() -> None:
    attention = gqa(4, 2, mask=Sliding(SlidingConfig(window=3)), head_dim=5)
    state = attention.make_state(2, 100, torch.bfloat16, torch.device("cpu"))
    assert {name: tuple(stream.shape) for name, stream in state.streams.items()} == dict.fromkeys("kv", (2, 2, 3, 5))


def test_sizes_left_open_follow_from_the_others() -> None:
    assert GQAConfig(n_heads=4, bias=True).derive(dim=12) == {
        "n_kv_heads": 4,
        "head_dim": 3,
        "value_dim": 3,
        "out_bias": True,
        "gate_bias": False,
        "scale": 3**-0.5,
    }
    given = {"n_kv_heads": 2, "head_dim": 16, "value_dim": 8, "out_bias": True, "gate_bias": False, "scale": 1.0}
    assert GQAConfig(n_heads=4, **given).derive(dim=12) == {}
    assert GQAConfig(n_heads=4, bias=True, gate="head").derive(dim=12)["gate_bias"] is True


def test_sizes_that_do_not_fit_are_refused_with_what_would() -> None:
    with pytest.raises(ConfigProblem, match=r"n_heads \(12\) must be a multiple of n_kv_heads \(5\)") as problem:
        GQAConfig(n_heads=12, n_kv_heads=5).derive(dim=12)
    assert (problem.value.field, problem.value.hint) == ("n_kv_heads", "use one of 1, 2, 3, 4, 6, 12")
    with pytest.raises(ConfigProblem, match=r"dim \(12\) must be a multiple of n_heads \(5\)") as problem:
        GQAConfig(n_heads=5).derive(dim=12)
    assert problem.value.field == "n_heads"


def test_every_parameter_gets_a_gradient(whole: Any) -> None:
    attention = gqa(4, 2, qk_norm=True, bias=True, position=RoPE(RoPEConfig(), 4), head_dim=4)
    whole(attention, torch.randn(2, 5, DIM)).square().sum().backward()
    for name, parameter in attention.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
