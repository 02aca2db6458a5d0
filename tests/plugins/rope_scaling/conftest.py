"""Scaled rotary positions beside those of transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from against_transformers import Weights, model_with, moved
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from lamina.core import Decoder, RopeScaling, Span
from lamina.core.build import build_part
from lamina.core.registry import load_plugins
from lamina.core.resolve import resolve_part

Turns = Callable[..., tuple[Tensor, Tensor | float]]


@pytest.fixture(scope="session")
def scaling() -> Callable[..., RopeScaling]:
    """A scaling built as rope builds it."""
    registry = load_plugins(only=[])

    def make(
        name: str, *, theta: float = 10_000.0, width: int = 16, context_length: int = 64, **options: Any
    ) -> RopeScaling:
        sizes = {"theta": theta, "width": width, "context_length": context_length}
        part = resolve_part("rope_scaling", {"name": name, **options}, registry, **sizes)
        made: RopeScaling = build_part(part, **sizes)
        return made

    return make


@pytest.fixture(scope="session")
def turns_at() -> Turns:
    """What a scaling says of a text of so many tokens."""

    def turns(made: RopeScaling, length: int = 8) -> tuple[Tensor, Tensor | float]:
        frequencies, factor = made.turns(Span.run(0, length, torch.device("cpu")))
        return frequencies.flatten(), factor

    return turns


@pytest.fixture(scope="session")
def transformers_turns() -> Callable[..., tuple[Tensor, float]]:
    """transformers' own inverse frequencies and attention factor."""
    utils: Any = pytest.importorskip("transformers.modeling_rope_utils")
    llama: Any = pytest.importorskip("transformers.models.llama.modeling_llama")

    def turns(
        kind: str,
        *,
        theta: float = 10_000.0,
        head_dim: int = 16,
        context_length: int = 64,
        length: int | None = None,
        **options: Any,
    ) -> tuple[Tensor, float]:
        config = llama.LlamaConfig(
            hidden_size=2 * head_dim,
            num_attention_heads=2,
            head_dim=head_dim,
            max_position_embeddings=context_length,
            rope_parameters={"rope_type": kind, "rope_theta": theta, **options},
        )
        frequencies, factor = utils.ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"), seq_len=length)
        return frequencies, factor

    return turns


N_LAYERS, HEAD_DIM = 2, 12


@pytest.fixture(scope="session")
def llama_pair() -> Callable[..., tuple[Any, Decoder]]:
    """transformers' Llama with these `rope_parameters`, and the decoder with this `scaling` and the same weights."""
    llama: Any = pytest.importorskip("transformers.models.llama.modeling_llama")

    def make(rope_parameters: dict[str, Any], scaling: dict[str, Any], context_length: int) -> tuple[Any, Decoder]:
        config = llama.LlamaConfig(
            vocab_size=31,
            hidden_size=16,
            intermediate_size=20,
            num_hidden_layers=N_LAYERS,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=HEAD_DIM,
            max_position_embeddings=context_length,
            rms_norm_eps=1e-5,
            rope_parameters={"rope_theta": 100.0, **rope_parameters},
            tie_word_embeddings=False,
            attn_implementation="eager",
        )
        theirs, weights = moved(llama.LlamaForCausalLM(config))
        spec = {
            "vocab_size": 31,
            "dim": 16,
            "context_length": context_length,
            "position": {"name": "rope", "theta": 100.0, "scaling": scaling},
            "norm": {"name": "rms", "eps": 1e-5},
            "block": {
                "attention": {"name": "gqa", "n_heads": 2, "n_kv_heads": 1, "head_dim": HEAD_DIM},
                "ffn": {"name": "gated", "hidden_dim": 20, "activation": "silu"},
            },
            "layers": N_LAYERS,
            "head": {"tied": False},
        }
        return theirs, model_with(spec, _converted(weights)).decoder

    return make


def _converted(theirs: Weights) -> Weights:
    ours = {
        "embedding.tokens.weight": theirs["model.embed_tokens.weight"],
        "norm.weight": theirs["model.norm.weight"],
        "head.weight": theirs["lm_head.weight"],
    }
    for layer in range(N_LAYERS):
        at, to = f"model.layers.{layer}", f"layers.{layer}"
        ours |= {
            f"{to}.attention_in.weight": theirs[f"{at}.input_layernorm.weight"],
            f"{to}.attention.qkv.weight": torch.cat([theirs[f"{at}.self_attn.{name}_proj.weight"] for name in "qkv"]),
            f"{to}.attention.out.weight": theirs[f"{at}.self_attn.o_proj.weight"],
            f"{to}.ffn_in.weight": theirs[f"{at}.post_attention_layernorm.weight"],
            f"{to}.ffn.gate_up.weight": torch.cat([theirs[f"{at}.mlp.{name}_proj.weight"] for name in ("gate", "up")]),
            f"{to}.ffn.down.weight": theirs[f"{at}.mlp.down_proj.weight"],
        }
    return ours


@pytest.fixture(scope="session")
def check_length_regimes() -> Callable[[Any, Decoder, list[int]], None]:
    """That texts of these lengths have transformers' logits, read whole, packed, padded, and in cached calls."""

    @torch.no_grad()
    def check(theirs: Any, decoder: Decoder, lengths: list[int]) -> None:
        generator = torch.Generator().manual_seed(0)
        texts = [torch.randint(31, (1, length), generator=generator) for length in lengths]
        # transformers remembers the longest text it has seen; the shortest one makes it forget.
        expected = [(theirs(texts[0]), theirs(text).logits)[1] for text in texts]
        near = {"atol": 1e-4, "rtol": 1e-4}
        for text, logits in zip(texts, expected, strict=True):
            length = text.shape[1]
            assert_close(decoder(text), logits, **near)
            for split in ([length], [1] * length, [length // 2, 1, length - length // 2 - 1]):
                cache = decoder.make_cache(1, length)
                calls = [decoder(ids, cache=cache) for ids in text.split(split, 1)]
                assert_close(torch.cat(calls, 1), logits, **near)
        documents = torch.repeat_interleave(torch.arange(len(texts)), torch.tensor(lengths)).unsqueeze(0)
        assert_close(decoder(torch.cat(texts, 1), document_ids=documents), torch.cat(expected, 1), **near)
        _check_padded(decoder, texts, expected)

    return check


def _check_padded(decoder: Decoder, texts: list[Tensor], expected: list[Tensor]) -> None:
    """Rows of one batch, padded on the left, whose last token comes in a call of its own."""
    longest = max(text.shape[1] for text in texts)
    padded = torch.cat([F.pad(text, (longest - text.shape[1], 0)) for text in texts])
    starts = torch.tensor([longest - text.shape[1] for text in texts])
    documents = (torch.arange(longest) >= starts.unsqueeze(1)).long()
    cache = decoder.make_cache(len(texts), longest)
    decoder(padded[:, :-1], document_ids=documents[:, :-1], cache=cache)
    last = decoder(padded[:, -1:], cache=cache)[:, 0]
    for row, logits in zip(last, expected, strict=True):
        assert_close(row, logits[0, -1], atol=1e-4, rtol=1e-4)
