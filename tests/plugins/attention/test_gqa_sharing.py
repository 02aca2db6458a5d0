"""Keys and values that several layers share: transformers' Gemma 3n, the formula, the cache, and the spec's check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_specs import REGISTRY, VOCAB, build_moved, tokens
from torch.nn import functional as F
from torch.testing import assert_close

from lamina.core import Context, Span, SpecError
from lamina.core.dryrun import dry_run
from lamina.core.reader import read_text
from lamina.core.resolve import resolve, resolve_data
from lamina.core.resolved import ResolvedSpec
from lamina.core.spec import Spec

CPU = torch.device("cpu")


def shared(pattern: list[str], own: dict[str, Any] | None = None, reader: dict[str, Any] | None = None) -> ResolvedSpec:
    """Layers of two kinds of block: `own` keeps keys and values as 'a', `reader` reads those."""
    attention = {"name": "gqa", "n_heads": 4, "n_kv_heads": 2, "head_dim": 4, **(own or {})}
    blocks = {
        "own": {"attention": {**attention, "keep_kv": "a"}, "ffn": None},
        "reader": {"attention": {**attention, "share_kv": "a", "v_norm": None, **(reader or {})}, "ffn": None},
    }
    return resolve_data(
        {
            "lamina": 1,
            "vocab_size": VOCAB,
            "dim": 16,
            "context_length": 24,
            "position": "rope",
            "norm": "rms",
            "init": {"std": 0.25},
            "blocks": {name: block for name, block in blocks.items() if name in pattern},
            "layers": {"pattern": pattern, "n_layers": len(pattern)},
        },
        REGISTRY,
    )


@torch.no_grad()
def test_it_equals_gemma_3n(whole: Any) -> None:
    modeling: Any = pytest.importorskip("transformers.models.gemma3n.modeling_gemma3n")
    config = modeling.Gemma3nTextConfig(
        hidden_size=16,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=4,
        num_hidden_layers=2,
        num_kv_shared_layers=1,
        layer_types=["full_attention"] * 2,
        intermediate_size=[4, 4],
        activation_sparsity_pattern=[0.0, 0.0],
        attention_bias=False,
        attn_implementation="eager",
    )
    norms = {"qk_norm": "rms", "scale": 1.0, "v_norm": {"name": "rms", "affine": False}}
    ours = [block.attention for block in build_moved(shared(["own", "reader"], norms)).blocks]
    x, later = torch.randn(2, 2, 5, 16)
    rates = 10_000.0 ** (-torch.arange(0, 4, 2) / 4)
    angles = (torch.arange(5).unsqueeze(1) * rates.repeat(2)).unsqueeze(0)
    future = torch.full((5, 5), -torch.inf).triu(1).view(1, 1, 5, 5)
    kept: dict[str, Any] = {}
    context = Context(torch.zeros(2, 5, dtype=torch.int64), Span.run(0, 5, CPU))
    for layer, here in enumerate((x, later)):
        attention: Any = ours[layer]
        theirs = modeling.Gemma3nTextAttention(config, layer).eval()
        rows = attention.qkv.weight.split(attention.split)
        state = {f"{name}_proj.weight": part for name, part in zip("qkv", rows, strict=False)}
        state |= {f"{name}.weight": getattr(attention, name).weight for name in ("q_norm", "k_norm")[: len(rows)]}
        theirs.load_state_dict({**state, "o_proj.weight": attention.out.weight})
        turns = (angles.cos(), angles.sin())
        expected, _ = theirs(here, position_embeddings=turns, attention_mask=future, shared_kv_states=kept)
        assert_close(attention(here, context), expected)


@torch.no_grad()
def test_a_reader_takes_what_the_last_layer_before_it_kept() -> None:
    decoder, ids = build_moved(shared(["own", "reader", "own", "reader"])), tokens(1, 6)
    inputs: list[Any] = []
    for block in decoder.blocks:
        block.attention.register_forward_hook(lambda module, args, out: inputs.append((module, args[0], out)))
    context = decoder.context(ids)
    decoder.run(context)
    for writer, reader in ((0, 1), (2, 3)):
        (own, x, _), (attention, y, out) = inputs[writer], inputs[reader]
        _, k, v = own.qkv(x).split(own.split, -1)
        q, k, v = (part.unflatten(-1, (-1, 4)).transpose(1, 2) for part in (attention.qkv(y), k, v))
        q, k = attention.position.rotate(q, k, context)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        assert_close(out, attention.out(mixed.transpose(1, 2).flatten(2)))


masks = st.sampled_from(
    [
        "causal",
        {"name": "sliding", "window": 3},
        {"name": "chunked", "size": 3},
        {"name": "dilated", "window": 2, "dilation": 2},
    ]
)


@settings(max_examples=30)
@given(
    mask=masks,
    split=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    pattern=st.sampled_from(
        [["own", "reader"], ["own", "reader", "own", "reader"], ["own", "own", "reader", "reader"]]
    ),
    cut=st.none() | st.integers(1, 6),
)
@torch.no_grad()
def test_any_split_into_cached_calls_gives_one_full_call(
    mask: Any, split: list[int], pattern: list[str], cut: int | None
) -> None:
    decoder, ids = build_moved(shared(pattern, {"mask": mask})), tokens(2, sum(split))
    docs = None if cut is None else (torch.arange(sum(split)) >= cut).long().expand(2, -1)
    cache, calls, start = decoder.make_cache(2, sum(split)), [], 0
    for new in split:
        here = slice(start, start + new)
        calls.append(decoder(ids[:, here], document_ids=None if docs is None else docs[:, here], cache=cache))
        start += new
    assert_close(torch.cat(calls, 1), decoder(ids, document_ids=docs), atol=1e-4, rtol=1e-4)


def test_a_reader_has_no_weights_for_keys_and_no_cache_of_its_own() -> None:
    decoder = build_moved(shared(["own", "reader"]))
    own, reader = (block.attention for block in decoder.blocks)
    assert own is not None
    assert reader is not None
    assert own.qkv.weight.shape == (4 * 4 + 2 * 2 * 4, 16)
    assert reader.qkv.weight.shape == (4 * 4, 16)
    one = build_moved(shared(["own"])).make_cache(2, 10).nbytes
    assert decoder.make_cache(2, 10).nbytes == one > 0
    assert dry_run(shared(["own", "reader"])).unchecked is None


def test_gradients_of_readers_reach_the_keys_they_read() -> None:
    decoder = build_moved(shared(["own", "reader"]))
    decoder(tokens(2, 5)).square().sum().backward()
    own = decoder.blocks[0].attention
    assert own is not None
    before = own.qkv.weight.grad.clone()
    decoder.zero_grad()
    with torch.no_grad():
        decoder.blocks[1].attention.out.weight.zero_()  # type: ignore[union-attr]
    decoder(tokens(2, 5)).square().sum().backward()
    assert not before.allclose(own.qkv.weight.grad)


def test_a_reader_before_any_keeper_is_refused() -> None:
    with pytest.raises(SpecError, match="attention 'gqa' reads 'kv a', which no earlier layer leaves") as error:
        shared(["reader", "own"])
    assert error.value.problems[0].hint == "earlier layers leave nothing"


YAML = """\
lamina: 1
vocab_size: 23
dim: 16
context_length: 24
position: rope
norm: rms
blocks:
  own:
    attention: {name: gqa, n_heads: 4, n_kv_heads: 2, keep_kv: first}
    ffn: null
  reader:
    attention: {name: gqa, n_heads: 4, n_kv_heads: 2, share_kv: first}
    ffn: null
layers: {pattern: [own, reader], n_layers: 2}
"""


def resolve_text(text: str) -> ResolvedSpec:
    return resolve(Spec(read_text(text, "spec.yaml"), Path("spec.yaml")), REGISTRY)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("n_kv_heads: 2, share", "n_kv_heads: 4, share", "n_kv_heads 4, and .* leaves it with n_kv_heads 2"),
        ("n_kv_heads: 2, keep", "n_kv_heads: 2, value_dim: 8, keep", "value_dim 4, and .* leaves it with value_dim 8"),
        (
            "2, share",
            "2, mask: {name: sliding, window: 4}, share",
            r"mask sliding\(window 4\), and .* leaves it with mask causal",
        ),
        ("  reader:", "  reader:\n    position: none", r"position none, and .* leaves it with position rope"),
    ],
)
def test_a_reader_that_wants_another_form_is_refused_with_both_lines(old: str, new: str, said: str) -> None:
    text = YAML.replace(old, new)
    assert text != YAML
    resolve_text(YAML)
    with pytest.raises(SpecError, match=said) as error:
        resolve_text(text)
    problem = error.value.problems[0]
    assert problem.location is not None
    reader_line = next(n for n, line in enumerate(text.splitlines(), 1) if "share_kv" in line)
    assert problem.location.line == reader_line
    assert "attention 'gqa' (spec.yaml:9:16)" in problem.message


def test_a_misspelt_name_is_recognised() -> None:
    with pytest.raises(SpecError, match="reads 'kv frist'") as error:
        resolve_text(YAML.replace("share_kv: first", "share_kv: frist"))
    assert error.value.problems[0].hint == "did you mean 'kv first'?"
