from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lamina.core.build import build
from lamina.core.component import ComponentConfig, Part
from lamina.core.errors import GenerationError
from lamina.core.generate import DecoderStep, Generation, generate, stream
from lamina.core.registry import Registry, load_plugins
from lamina.core.resolve import resolve_data, resolve_part
from lamina.core.tokenizer import Tokenizer

EOS = 1


class Cache:
    """What the fake decoder keeps: tokens and documents."""

    croppable = True

    def __init__(self, batch: int, length: int) -> None:
        self.length = length
        self.tokens = self.documents = torch.zeros(batch, 0, dtype=torch.int64)

    def grow(self, length: int) -> None:
        self.length = max(self.length, length)

    def reorder(self, rows: Tensor) -> None:
        self.tokens, self.documents = self.tokens[rows], self.documents[rows]

    @property
    def used(self) -> int:
        return self.tokens.shape[1]

    def can_take_back(self, n_tokens: int) -> bool:
        return self.croppable

    def crop(self, n_tokens: int) -> None:
        assert self.croppable
        self.tokens, self.documents = self.tokens[:, :n_tokens], self.documents[:, :n_tokens]

    def clone(self) -> Cache:
        return copy.copy(self)

    def stand_at(self, used: int) -> None:
        self.tokens = self.documents = torch.zeros(len(self.tokens), used, dtype=torch.int64)
        self.documents = self.documents - 1

    def put(self, row: int, other: Cache) -> None:
        self.tokens[row, self.used - other.used :] = other.tokens[0]
        self.documents[row, self.used - other.used :] = other.documents[0]


class FakeDecoder(nn.Module):
    """Features are a sum over the document so far, each token weighted by its position in it."""

    device = torch.device("cpu")
    lookahead = 0

    def __init__(self, vocab_size: int, context_length: int = 64) -> None:
        super().__init__()
        self.vocab_size, self.context_length = vocab_size, context_length
        generator = torch.Generator().manual_seed(0)
        self.embedding = torch.randn(vocab_size, 16, generator=generator)
        self.dropout = nn.Dropout(0.9)
        self.head_rows = 0

    def make_cache(self, batch: int, length: int) -> Cache:
        return Cache(batch, min(length, self.context_length))

    def features(self, token_ids: Tensor, document_ids: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        batch, new = token_ids.shape
        cache = cache or Cache(batch, new)
        if document_ids is None:
            document_ids = cache.documents[:, -1:].expand(batch, new) if cache.documents.numel() else token_ids * 0
        cache.tokens = torch.cat([cache.tokens, token_ids], 1)
        cache.documents = torch.cat([cache.documents, document_ids], 1)
        assert cache.tokens.shape[1] <= cache.length
        out = []
        for tokens, documents in zip(cache.tokens, cache.documents, strict=True):
            state, position, states = torch.zeros(16), 0, []
            for at, token in enumerate(tokens):
                if at and documents[at] != documents[at - 1]:
                    state, position = torch.zeros(16), 0
                assert position < self.context_length
                state = 0.7 * state + (1 + 0.3 * (position % 7)) * self.embedding[token]
                states.append(state)
                position += 1
            out.append(torch.stack(states[-new:]))
        return self.dropout(torch.stack(out))

    def head(self, x: Tensor) -> Tensor:
        self.head_rows += x.shape[0] * x.shape[1]
        self.inference = torch.is_inference_mode_enabled()
        return torch.sin(3 * x @ self.embedding.T)

    def forward(self, token_ids: Tensor, document_ids: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        return self.head(self.features(token_ids, document_ids, cache))


class Letters(Tokenizer):
    """Ids 2… are the bytes of an alphabet with a two-byte character and a piece of several letters; 1 ends a text."""

    PIECES = (b"", b"", b"a", b"b", b"c", b" ", b"\xc3", b"\xa4", b"bc", b".")

    bos: int | None = None
    eos: int | None = EOS

    @classmethod
    def open(cls, config: Any, directory: Any) -> Letters:
        raise NotImplementedError

    def save(self, directory: Any) -> ComponentConfig:
        raise NotImplementedError

    @property
    def vocab_size(self) -> int:
        return len(self.PIECES)

    @property
    def special_ids(self) -> dict[str, int]:
        return {"<pad>": 0, "<end>": EOS}

    @property
    def bos_id(self) -> int | None:
        return self.bos

    @property
    def eos_id(self) -> int | None:
        return self.eos

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        return [self.PIECES.index(bytes([byte])) for byte in text.encode()]

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        return b"".join(self.PIECES[token] for token in ids).decode(errors="replace")


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_plugins()


@dataclass
class FakeModel:
    registry: Registry
    tokenizer: Letters | None = field(default_factory=Letters)
    decoder: FakeDecoder = field(default_factory=lambda: FakeDecoder(len(Letters.PIECES)))
    spec: Any = field(default_factory=lambda: SimpleNamespace(sampler=[]))


@pytest.fixture
def model(registry: Registry) -> Any:
    return FakeModel(registry)


def test_greedy_is_the_argmax_of_a_full_pass_over_everything_so_far(model: Any) -> None:
    prompt = torch.tensor([[2, 3, 4]])
    out = generate(model, prompt, max_new_tokens=20, sampler="greedy", stop_ids=())
    whole = prompt
    model.decoder.eval()
    for _ in range(20):
        whole = torch.cat([whole, model.decoder(whole)[:, -1:].argmax(-1)], 1)
    assert torch.equal(out.token_ids, whole[:, 3:])
    assert out.finish_reasons == ["length"]


def test_sampler_and_decoding_greedy_agree(model: Any) -> None:
    by_chain = generate(model, "ab", max_new_tokens=20, sampler="greedy")
    by_strategy = generate(model, "ab", max_new_tokens=20, decoding="greedy")
    assert torch.equal(by_chain.token_ids, by_strategy.token_ids)


@pytest.mark.parametrize("decoding", ["sample", "greedy", {"name": "beam", "n_beams": 3}])
def test_a_ragged_batch_gives_what_its_prompts_give_alone(model: Any, decoding: Any) -> None:
    prompts = ["a", "abc abc", "c."]
    model.decoder.context_length = 18
    together = generate(model, prompts, max_new_tokens=15, decoding=decoding, stop=["bb"])
    assert isinstance(together.text, list)
    for row, prompt in enumerate(prompts):
        # Row 0 draws alike in every batch, so each prompt takes a turn as row 0.
        others = prompts[:row] + prompts[row + 1 :]
        first = generate(model, [prompt, *others], max_new_tokens=15, decoding=decoding, stop=["bb"])
        alone = generate(model, prompt, max_new_tokens=15, decoding=decoding, stop=["bb"])
        assert alone.text == first.text[0]
        assert alone.finish_reasons[0] == first.finish_reasons[0]
        if decoding != "sample":
            assert together.text[row] == alone.text
    assert len(set(together.finish_reasons)) > 1 or decoding != "sample"


def test_what_prompts_begin_with_alike_is_read_once(real: Any) -> None:
    beginning, ends = "abc.ab c.b", ["", " ab", "bc.", "a"]
    alone = [generate(real, beginning + end, max_new_tokens=5, decoding="greedy") for end in ends]
    rows, whole = [], real.decoder.features

    def watched(token_ids: Tensor, **how: Any) -> Tensor:
        rows.append(token_ids.numel())
        return whole(token_ids, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(real.decoder, "features", watched)
        together = generate(real, [beginning + end for end in ends], max_new_tokens=5, decoding="greedy")
    assert together.text == [one.text for one in alone]
    assert max(rows) < len(beginning)


def test_a_seed_reproduces_and_rows_draw_differently(model: Any) -> None:
    first, again, other = (generate(model, ["ab", "ab"], max_new_tokens=30, seed=seed) for seed in (3, 3, 4))
    assert first.text == again.text != other.text
    assert first.text[0] != first.text[1]
    # Neighbouring seeds and rows do not share their draws.
    assert generate(model, "ab", max_new_tokens=30, seed=4).text != first.text[1]


def test_the_specs_own_chain_is_the_default(model: Any, registry: Registry) -> None:
    greedy = generate(model, "ab", max_new_tokens=20, sampler="greedy").text
    assert generate(model, "ab", max_new_tokens=20).text != greedy
    entry = Part("sampler", "greedy", _component(registry, "sampler", "greedy"), ComponentConfig())
    model.spec.sampler = [entry]
    assert generate(model, "ab", max_new_tokens=20).text == greedy
    assert generate(model, "ab", max_new_tokens=20, sampler=[]).text != greedy


def _component(registry: Registry, kind: str, name: str) -> Any:
    return resolve_part(kind, name, registry).component


def test_a_chain_may_mix_names_and_options(model: Any) -> None:
    chain = [{"name": "temperature", "value": 5.0}, "greedy"]
    assert generate(model, "ab", sampler=chain).text == generate(model, "ab", sampler="greedy").text
    one = generate(model, "ab", sampler={"name": "top_k", "k": 1})
    assert one.text == generate(model, "ab", sampler="greedy").text


@pytest.mark.parametrize("seed", range(15))
def test_streamed_pieces_join_to_the_generated_text(model: Any, seed: int) -> None:
    options: dict[str, Any] = {"max_new_tokens": 40, "seed": seed, "stop": ["ab", "ca."]}
    whole = generate(model, "abc", **options)
    pieces = list(stream(model, "abc", **options))
    assert "".join(pieces) == whole.text
    assert all(pieces)


def test_text_ends_before_a_stop_string_that_spans_tokens(model: Any) -> None:
    whole = generate(model, "abc", max_new_tokens=60, seed=2, stop_ids=()).text
    assert isinstance(whole, str)
    stop = whole[10:14]
    out = generate(model, "abc", max_new_tokens=60, seed=2, stop_ids=(), stop=stop)
    assert out.text == whole[: whole.index(stop)]
    assert out.finish_reasons == ["stop_string"]
    assert out.token_ids.shape[1] < 60


def test_what_only_began_like_a_stop_string_is_shown_at_the_end(model: Any) -> None:
    options: dict[str, Any] = {"max_new_tokens": 9, "stop_ids": (), "decoding": "greedy"}
    whole = generate(model, "abc", **options).text
    assert isinstance(whole, str)
    assert generate(model, "abc", stop=whole[-2:] + "zzz", **options).text == whole
    assert "".join(stream(model, "abc", stop=whole[-2:] + "zzz", **options)) == whole


def test_text_goes_on_from_the_prompts_text(model: Any) -> None:
    class TrimsSpace(Letters):  # as tokenizers do whose pieces carry the space before a word
        def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
            return super().decode(ids).removeprefix(" ")

    options: dict[str, Any] = {"max_new_tokens": 9, "stop_ids": ()}
    seed = next(seed for seed in range(99) if generate(model, "abc", seed=seed, **options).text.startswith(" "))
    plain = generate(model, "abc", seed=seed, **options).text
    model.tokenizer = TrimsSpace()
    assert generate(model, "abc", seed=seed, **options).text == plain


def test_a_stop_token_ends_the_row_and_is_not_text(model: Any) -> None:
    free = generate(model, "abc", max_new_tokens=60, seed=1, stop_ids=())
    at = free.token_ids[0].tolist().index(4)
    out = generate(model, "abc", max_new_tokens=60, seed=1, stop_ids=[4])
    assert out.token_ids.tolist() == free.token_ids[:, : at + 1].tolist()
    assert out.finish_reasons == ["stop_token"]
    assert out.text == Letters().decode(free.token_ids[0, :at].tolist())


def test_the_tokenizers_end_of_text_stops_by_default(model: Any) -> None:
    out = generate(model, ["abc"] * 8, max_new_tokens=60)
    ended = [ids for ids, reason in zip(out.token_ids.tolist(), out.finish_reasons, strict=True) if reason != "length"]
    assert ended
    for ids in ended:
        assert ids[ids.index(EOS) + 1 :] == [-1] * (len(ids) - ids.index(EOS) - 1)


def test_a_prompt_goes_on_to_the_end_of_the_context(model: Any) -> None:
    model.decoder.context_length = 10
    out = generate(model, ["abc", "abcabcab", "abcabcabca"], max_new_tokens=7, stop_ids=())
    assert [(row >= 0).sum().item() for row in out.token_ids] == [7, 2, 0]
    assert out.finish_reasons == ["length", "context", "context"]
    full = generate(model, "abcabcabca", max_new_tokens=7)
    assert (full.text, full.token_ids.shape, full.finish_reasons) == ("", (1, 0), ["context"])


def test_the_prompt_is_read_once_and_its_head_only_at_the_end(model: Any) -> None:
    generate(model, "abcabc", max_new_tokens=5, stop_ids=())
    assert model.decoder.head_rows == 5


def test_text_is_given_as_the_prompt_was(model: Any) -> None:
    assert isinstance(generate(model, "a", max_new_tokens=2).text, str)
    assert isinstance(generate(model, ["a"], max_new_tokens=2).text, list)
    assert isinstance(generate(model, torch.tensor([[2]]), max_new_tokens=2).text, str)
    assert isinstance(generate(model, torch.tensor([[2], [3]]), max_new_tokens=2).text, list)


def test_without_a_tokenizer_ids_are_generated_from_ids(model: Any) -> None:
    with_text = generate(model, torch.tensor([[2, 3]]), max_new_tokens=9, stop_ids=())
    model.tokenizer = None
    out = generate(model, torch.tensor([[2, 3]]), max_new_tokens=9)
    assert torch.equal(out.token_ids, with_text.token_ids)
    assert out.text == ""
    for call in (lambda: generate(model, "ab"), lambda: generate(model, torch.tensor([[2]]), stop="a")):
        with pytest.raises(GenerationError, match="tokenizer"):
            call()
    with pytest.raises(GenerationError, match="no text to stream"):
        stream(model, torch.tensor([[2]]))


def test_an_empty_prompt_begins_with_the_tokenizers_begin_or_end_token(model: Any) -> None:
    expected = generate(model, torch.tensor([[EOS]]), max_new_tokens=9).token_ids
    assert torch.equal(generate(model, "", max_new_tokens=9).token_ids, expected)
    assert torch.equal(generate(model, torch.zeros(1, 0).long(), max_new_tokens=9).token_ids, expected)
    model.tokenizer.eos = None
    with pytest.raises(GenerationError, match="the prompt is empty"):
        generate(model, "")
    with pytest.raises(GenerationError, match="prompt 2 is empty"):
        generate(model, ["a", ""])


def test_a_begin_token_stands_before_every_text(model: Any) -> None:
    model.tokenizer.bos = 9
    expected = generate(model, torch.tensor([[9, 2, 3]]), max_new_tokens=9, stop_ids=()).token_ids
    assert torch.equal(generate(model, "ab", max_new_tokens=9, stop_ids=()).token_ids, expected)


def test_ids_without_a_token_are_never_generated(model: Any) -> None:
    model.decoder = FakeDecoder(64)  # padded far beyond the ten ids the tokenizer has
    out = generate(model, ["a"] * 8, max_new_tokens=20, stop_ids=())
    assert out.token_ids.max() < 10
    model.tokenizer = None
    assert generate(model, torch.tensor([[2]] * 8), max_new_tokens=20).token_ids.max() >= 10


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ("abc" * 30, {}, "the prompt has 90 tokens, but the context holds 64\n.*shorten"),
        (["a", "abc" * 30], {}, "prompt 2 has 90 tokens"),
        (torch.tensor([[2, 10]]), {}, "token id 10, but the decoder's ids go from 0 to 9"),
        (torch.tensor([[-1, 2]]), {}, "token id -1"),
        (torch.tensor([[2.0]]), {}, "int64, not torch.float32"),
        (torch.tensor([[2]], dtype=torch.int32), {}, "int64, not torch.int32"),
        (torch.tensor([2, 3]), {}, r"\(batch, tokens\), not \(2,\)"),
        (torch.zeros(0, 3).long(), {}, r"not \(0, 3\)"),
        ([], {}, "list of prompts is empty"),
        ([2, 3], {}, "a text, a list of texts"),
        (None, {}, "a text, a list of texts"),
        ("a", {"max_new_tokens": 0}, "max_new_tokens must be a whole number from 1, not 0"),
        ("a", {"max_new_tokens": 2.5}, "not 2.5"),
        ("a", {"stop": ""}, "stop string"),
        ("a", {"stop": ["b", ""]}, "stop string"),
    ],
)
def test_a_request_that_cannot_be_served_is_refused(model: Any, prompt: Any, options: Any, message: str) -> None:
    with pytest.raises(GenerationError, match=message):
        generate(model, prompt, **options)
    with pytest.raises(GenerationError):  # at the call, not at the first piece
        stream(model, prompt, **options)


def test_a_part_of_another_kind_is_refused(model: Any, registry: Registry) -> None:
    part = Part("decoding", "greedy", _component(registry, "decoding", "greedy"), ComponentConfig())
    with pytest.raises(GenerationError, match="'greedy' is of the kind decoding, where a sampler is wanted"):
        generate(model, "a", sampler=[part])


def test_only_one_prompt_can_be_streamed(model: Any) -> None:
    with pytest.raises(GenerationError, match="only one prompt can be streamed, not 2"):
        stream(model, torch.tensor([[2], [3]]))


def test_broken_weights_are_named(model: Any) -> None:
    model.decoder.embedding[:] = torch.nan
    with pytest.raises(GenerationError, match="not numbers"):
        generate(model, "a")


def test_modes_are_as_they_were_afterwards_and_between_pieces(model: Any) -> None:
    model.decoder.train()
    model.decoder.dropout.eval()
    generate(model, "abc", max_new_tokens=3)
    assert (model.decoder.training, model.decoder.dropout.training) == (True, False)
    model.decoder.train()
    pieces = stream(model, "abc", max_new_tokens=30, stop_ids=())
    next(pieces)
    assert model.decoder.inference
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert not model.decoder.dropout.training  # dropout would change the text
    del pieces
    assert model.decoder.training


def test_generating_leaves_the_global_random_state_alone(model: Any) -> None:
    before = torch.get_rng_state()
    generate(model, "abc", max_new_tokens=20)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("croppable", [True, False])
@pytest.mark.parametrize("kept", [0, 1, 2, 3])
def test_a_step_can_go_back_and_take_several_tokens_at_once(
    model: Any, kept: int, croppable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cache, "croppable", croppable)
    model.decoder.eval()
    step = DecoderStep(model.decoder, room=20)
    tokens = torch.tensor([[2, 3, 4, 5, 6, 7], [4, 4, 4, 4, 4, 5]])
    tried = torch.cat([tokens[:, : 2 + kept], tokens[:, 2 + kept :].flip(0)], 1)
    whole, other = model.decoder(tokens), model.decoder(tried)  # (B, T, V)
    torch.testing.assert_close(step.start(tokens[:, :2], torch.tensor([2, 2])), whole[:, 1])
    step.mark(3)
    torch.testing.assert_close(step.advance_many(tried[:, 2:4]), other[:, 2:4])
    torch.testing.assert_close(step.advance(tried[:, 4]), other[:, 4])
    step.keep(kept)
    for at in range(2 + kept, 6):
        torch.testing.assert_close(step.advance(tokens[:, at]), whole[:, at])
    step.reorder(torch.tensor([1, 1, 0]))
    again = torch.cat([tokens, tokens[:, :1]], 1)[[1, 1, 0]]
    torch.testing.assert_close(step.advance(again[:, -1]), model.decoder(again)[:, -1])


def test_a_step_tells_what_the_head_read(model: Any) -> None:
    model.decoder.eval()
    step = DecoderStep(model.decoder, room=20)
    tokens = torch.tensor([[2, 3, 4, 5, 6]])
    whole = model.decoder.features(tokens)
    step.start(tokens[:, :3], torch.tensor([3]))
    torch.testing.assert_close(step.features, whole[:, :3])
    step.advance(tokens[:, 3])
    torch.testing.assert_close(step.features, whole[:, 3:4])


@pytest.fixture(scope="module", params=["rope", "learned", "alibi"])
def real(request: pytest.FixtureRequest, registry: Registry) -> Any:
    """A tiny decoder with a sliding window in every other layer."""
    block = {
        "attention": {"name": "gqa", "n_heads": 4, "n_kv_heads": 2, "head_dim": 8},
        "ffn": {"name": "gated", "hidden_dim": 32},
        "norm": "rms",
    }
    window = {**block, "attention": {**block["attention"], "mask": {"name": "sliding", "window": 4}}}  # type: ignore[dict-item]
    spec = resolve_data(
        {
            "lamina": 1,
            "vocab_size": len(Letters.PIECES),
            "dim": 32,
            "context_length": 20,
            "position": request.param,
            "norm": "rms",
            "blocks": {"window": window, "full": block},
            "layers": {"pattern": ["window", "full"], "n_layers": 4},
            "init": {"std": 0.4},  # logits far enough apart for rounding not to matter
        },
        registry,
    )
    return FakeModel(registry, decoder=build(spec), spec=spec)  # type: ignore[arg-type]


def test_a_real_decoder_gives_with_its_cache_what_full_passes_give(real: Any) -> None:
    prompt = torch.tensor([[2, 3, 4]])
    out = generate(real, prompt, max_new_tokens=99, sampler="greedy", stop_ids=())
    whole = prompt
    with torch.no_grad():
        while whole.shape[1] < 20:
            whole = torch.cat([whole, real.decoder(whole)[:, -1:].argmax(-1)], 1)
    assert torch.equal(out.token_ids, whole[:, 3:])
    assert len(out.token_ids.unique()) > 2
    assert out.finish_reasons == ["context"]


@pytest.mark.parametrize("decoding", ["greedy", "sample", {"name": "beam", "n_beams": 3}])
def test_a_ragged_batch_of_a_real_decoder_gives_what_its_prompts_give_alone(real: Any, decoding: Any) -> None:
    prompts = ["a", "abc abc.ab", "c.b"]
    for turn in range(3):
        turned = prompts[turn:] + prompts[:turn]
        together = generate(real, turned, max_new_tokens=16, decoding=decoding, seed=turn)
        alone = generate(real, turned[0], max_new_tokens=16, decoding=decoding, seed=turn)
        assert [token for token in together.token_ids[0].tolist() if token >= 0] == alone.token_ids[0].tolist()
        assert together.text[0] == alone.text
        assert together.finish_reasons[0] == alone.finish_reasons[0]


def test_a_real_decoder_streams_what_it_generates(real: Any) -> None:
    options: dict[str, Any] = {"max_new_tokens": 16, "seed": 5}
    assert "".join(stream(real, "abc", **options)) == generate(real, "abc", **options).text


def test_results_are_ordinary_tensors(model: Any) -> None:
    out = generate(model, "abc", max_new_tokens=3)
    assert isinstance(out, Generation)
    assert not out.token_ids.is_inference()
