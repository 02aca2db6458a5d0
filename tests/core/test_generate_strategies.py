"""Strategies and stages over real decoders, whatever their memory, by way of `generate` and `stream`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from lamina.core.build import build
from lamina.core.errors import GenerationError
from lamina.core.generate import generate, stream
from lamina.core.model import Model, save
from lamina.core.registry import load_plugins
from lamina.core.resolve import resolve_data
from lamina.core.tokenizer import Tokenizer
from lamina.plugins.tokenizer.byte import ByteTokenizer
from lamina.plugins.tokenizer.character import CharacterTokenizer

REGISTRY = load_plugins(only=[])
FULL = {"name": "gqa", "n_heads": 2}
WINDOW = {**FULL, "mask": {"name": "sliding", "window": 4}}
RECURRENT = {"name": "gated_deltanet", "n_heads": 2}
MEMORIES = {"full": [FULL], "ring": [WINDOW, FULL], "recurrent": [RECURRENT, FULL]}


def made(attentions: list[Any], tokenizer: Tokenizer | None = None, seed: int = 0, context_length: int = 28) -> Model:
    blocks = {
        f"b{at}": {"attention": attention, "ffn": "gated", "position": "rope" if attention["name"] == "gqa" else "none"}
        for at, attention in enumerate(attentions)
    }
    spec = resolve_data(
        {
            "lamina": 1,
            "vocab_size": 260,
            "dim": 16,
            "context_length": context_length,
            "tokenizer": "byte",
            "norm": "rms",
            "blocks": blocks,
            "layers": {"pattern": list(blocks), "n_layers": 2},
            "init": {"std": 0.3},
        },
        REGISTRY,
    )
    return Model(build(spec, seed=seed).eval(), tokenizer or ByteTokenizer(), spec)


@pytest.fixture(scope="module", params=MEMORIES)
def model(request: pytest.FixtureRequest) -> Model:
    return made(MEMORIES[request.param])


def alike(model: Model, like: float) -> Model:
    """A draft model: the decoder itself, its weights a little off."""
    other = Model(build(model.spec, seed=1).eval(), model.tokenizer, model.spec)
    with torch.no_grad():
        for mine, its in zip(other.decoder.parameters(), model.decoder.parameters(), strict=True):
            mine.copy_(like * its + (1 - like) * mine)
    return other


PROMPTS = ["ab", "a longer prompt", "x"]


@pytest.mark.parametrize("like", [1.0, 0.97, 0.0])
def test_speculation_gives_the_greedy_text_whatever_the_memory(
    model: Model, like: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Model, "beside", lambda self, directory: alike(model, like))
    options: dict[str, Any] = {"max_new_tokens": 16, "sampler": "greedy", "stop_ids": ()}
    plain = generate(model, PROMPTS, **options)
    for decoding in ({"name": "speculative", "draft": "small", "n_draft": 3}, "prompt_lookup"):
        found = generate(model, PROMPTS, decoding=decoding, **options)
        assert torch.equal(found.token_ids, plain.token_ids)
        assert found.finish_reasons == plain.finish_reasons == ["length", "context", "length"]
        if decoding != "prompt_lookup":
            drafted, accepted = (sum(row[what] for row in found.statistics) for what in ("drafted", "accepted"))
            assert drafted > 0
            assert (accepted == drafted) == (like == 1.0)
            assert (accepted == 0) <= (like == 0.0)


@pytest.mark.parametrize("decoding", ["contrastive", "diverse_beam", "prompt_lookup"])
def test_a_ragged_batch_gives_what_its_prompts_give_alone(model: Model, decoding: str) -> None:
    options: dict[str, Any] = {"max_new_tokens": 6, "decoding": decoding, "sampler": "greedy"}
    if decoding != "prompt_lookup":
        options["sampler"] = {"name": "top_k", "k": 20}
    together = generate(model, PROMPTS, **options)
    assert together.text == [generate(model, prompt, **options).text for prompt in PROMPTS]


def test_contrastive_search_is_that_of_full_passes(model: Model) -> None:
    ids, k, alpha = torch.tensor([[97, 98, 99]]), 3, 0.5
    options = {"name": "contrastive", "k": k, "alpha": alpha}
    found = generate(model, ids, max_new_tokens=8, decoding=options, sampler=[], stop_ids=())
    with torch.no_grad():
        for _ in range(8):
            logits = model.decoder(ids)[0, -1, : ByteTokenizer().vocab_size]
            likely, tokens = logits.softmax(-1).topk(k)
            tried = torch.cat([ids.expand(k, -1), tokens.unsqueeze(1)], 1)
            h = torch.nn.functional.normalize(model.decoder.features(tried), dim=-1)  # (k, T + 1, D)
            likeness = (h[:, :-1] * h[:, -1:]).sum(-1).amax(-1)
            ids = tried[((1 - alpha) * likely - alpha * likeness).argmax()].unsqueeze(0)
    assert torch.equal(found.token_ids, ids[:, 3:])


def test_a_draft_model_is_read_from_its_directory(tmp_path: Path) -> None:
    model, small = made([FULL]), made([WINDOW], seed=1)
    save(small, tmp_path / "small")
    decoding = {"name": "speculative", "draft": str(tmp_path / "small")}
    options: dict[str, Any] = {"max_new_tokens": 10, "sampler": "greedy"}
    found = generate(model, "ab", decoding=decoding, **options)
    assert found.text == generate(model, "ab", **options).text
    assert found.statistics[0]["drafted"] > 0
    first = model.beside(tmp_path / "small")
    assert model.beside(str(tmp_path / "small")) is first
    assert torch.equal(first.decoder.head.weight, small.decoder.head.weight)


def test_a_draft_model_of_another_tokenizer_is_refused(tmp_path: Path) -> None:
    letters = CharacterTokenizer("abc")
    folder = save(made([FULL]), tmp_path / "bytes")
    with pytest.raises(GenerationError, match=r"bytes' has a tokenizer of 257 tokens, the decoder one of 3\n.*same"):
        generate(made([FULL], letters), "a", decoding={"name": "speculative", "draft": str(folder)})


# Stages that need more than logits


def test_a_constraint_holds_under_every_strategy(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llguidance")
    monkeypatch.setattr(Model, "beside", lambda self, directory: alike(model, 0.9))
    chain = [{"name": "constraint", "regex": "[0-9]{3}(, [a-c]{2})?;"}, {"name": "temperature", "value": 2.0}]
    speculative = {"name": "speculative", "draft": "small"}
    for decoding in ("sample", "greedy", "beam", "diverse_beam", "contrastive", "prompt_lookup", speculative):
        out = generate(model, ["ab", "numbers: "], max_new_tokens=20, sampler=chain, decoding=decoding)
        for text, reason in zip(out.text, out.finish_reasons, strict=True):
            assert re.fullmatch("[0-9]{3}(, [a-c]{2})?;", text), decoding
            assert reason == "complete"


def test_a_row_that_is_complete_ends_and_the_others_go_on() -> None:
    pytest.importorskip("llguidance")
    model = made([FULL], CharacterTokenizer("ab"))
    chain = [{"name": "constraint", "regex": "a|b{9}"}]
    out = generate(model, ["a"] * 8, max_new_tokens=20, sampler=chain)
    assert set(out.text) == {"a", "b" * 9}
    assert out.finish_reasons == ["complete"] * 8
    assert "".join(stream(model, "a", max_new_tokens=20, sampler=chain, stop=["azzz"])) == out.text[0]


def test_a_streamed_text_has_its_generation_at_the_end(model: Model) -> None:
    options: dict[str, Any] = {"max_new_tokens": 12, "decoding": "prompt_lookup", "seed": 3, "trace": True}
    pieces = stream(model, "abcabc", **options)
    text, whole = "".join(pieces), generate(model, "abcabc", **options)
    found = pieces.generation()
    assert found.text == text == whole.text
    assert found.statistics == whole.statistics
    assert found.trace == whole.trace
    assert found.finish_reasons == ["length"]


# Traces


CHAIN = [{"name": "top_k", "k": 8}, {"name": "temperature", "value": 3.0}, {"name": "top_p", "p": 0.7}]


def test_a_trace_tells_what_each_stage_did_at_each_token(model: Model) -> None:
    ids = torch.tensor([[97, 98, 99], [3, 4, 5]])
    out = generate(model, ids, max_new_tokens=6, sampler=CHAIN, stop_ids=(), trace=True)
    assert out.trace is not None
    whole = torch.cat([ids, out.token_ids], 1)
    with torch.no_grad():
        logits = model.decoder(whole)[..., : ByteTokenizer().vocab_size]
    for row in range(2):
        assert len(out.trace[row]) == 6
        for at, stages in enumerate(out.trace[row]):
            top = logits[row, 2 + at].softmax(-1).topk(8).values
            hot = (top.log() / 3).softmax(-1)
            kept = int((hot.cumsum(0) < 0.7).sum()) + 1
            assert [(stage.stage, stage.n_left) for stage in stages] == [
                ("top_k", 8),
                ("temperature", 8),
                ("top_p", kept),
            ]
            removed = torch.tensor([stage.removed for stage in stages])
            torch.testing.assert_close(removed, torch.stack([1 - top.sum(), top.sum() * 0, hot[kept:].sum()]))
            moved = torch.tensor([stage.moved for stage in stages])
            cool = top / top.sum()
            torch.testing.assert_close(moved[1], (hot - cool).abs().sum() / 2)
            assert (moved >= removed - 1e-6).all()


@pytest.mark.parametrize("decoding", ["beam", "contrastive", "prompt_lookup", "greedy"])
def test_every_strategy_can_be_traced_and_gives_the_same_text(model: Model, decoding: str) -> None:
    options: dict[str, Any] = {"max_new_tokens": 6, "sampler": CHAIN, "decoding": decoding, "stop_ids": ()}
    out = generate(model, PROMPTS, trace=True, **options)
    assert out.text == generate(model, PROMPTS, **options).text
    assert out.trace is not None
    for row, prompt in enumerate(PROMPTS):
        for at, stages in enumerate(out.trace[row]):
            before = torch.tensor([[*prompt.encode(), *out.token_ids[row, :at].tolist()]])
            with torch.no_grad():
                p = model.decoder(before)[0, -1, : ByteTokenizer().vocab_size].softmax(-1)
            assert abs(stages[0].removed - (1 - float(p.topk(8).values.sum()))) < 1e-4


def test_rows_of_one_prompt_are_traced_apart() -> None:
    model = made([FULL])
    chain = [{"name": "xtc", "threshold": 0.0, "probability": 0.5}]
    out = generate(model, ["ab"] * 20, max_new_tokens=1, sampler=chain, trace=True, stop_ids=())
    assert out.trace is not None
    left = [stages[0].n_left for ((stages),) in out.trace]
    assert set(left) == {1, 257}
    assert generate(model, "ab", max_new_tokens=1).trace is None


def test_rows_tell_what_they_are_made_of() -> None:
    model = made([FULL])
    out = generate(model, ["ab", "c"], max_new_tokens=3, sampler="greedy", trace=True, stop_ids=())
    rows = out.rows(model.tokenizer)
    for at, row in enumerate(rows):
        told = row.to_json()
        assert told["text"] == out.text[at]
        assert [entry["token_id"] for entry in told["trace"]] == told["token_ids"] == out.token_ids[at].tolist()
        assert [entry["text"] for entry in told["trace"]] == ByteTokenizer().token_texts(row.token_ids)
        assert all(entry["stages"][0]["stage"] == "greedy" for entry in told["trace"])
        assert "statistics" not in told


@pytest.mark.parametrize("seed", [-1, 0.5, True, "1"])
def test_a_seed_is_a_number_from_zero(seed: Any) -> None:
    with pytest.raises(GenerationError, match="seed must be a whole number from 0, not"):
        generate(made([FULL]), "a", seed=seed)


def test_what_a_stage_refuses_is_told_with_its_name() -> None:
    with pytest.raises(GenerationError, match=r"sampler 'logit_bias': bias: there is no token 999\n.*0 to 259"):
        generate(made([FULL]), "a", sampler={"name": "logit_bias", "bias": {"999": 1.0}})
