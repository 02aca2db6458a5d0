"""From corpus to batches: splits, files, and windows that follow from (seed, step)."""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.core import Corpus, DataError, Tokenizer, data
from lamina.core.data import IGNORED, Batch, Batches, Split, TokenData, prepare
from lamina.plugins.tokenizer.byte import ByteTokenizer
from lamina.plugins.tokenizer.character import CharacterConfig, CharacterTokenizer

EOS = 256


class Fake(Corpus):
    """The documents it is given."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def documents(self) -> Iterator[str]:
        yield from self.texts


def characters(text: str) -> CharacterTokenizer:
    return CharacterTokenizer.train(CharacterConfig(), [text], 1000)


def of(split: Split) -> list[list[int]]:
    """The tokens of each document."""
    return [part.tolist() for part in np.split(split.tokens, split.starts[1:])]


def numbers(*lengths: int) -> Split:
    """A split of documents of these lengths whose tokens count up from 0."""
    total = sum(lengths)
    starts = np.cumsum([0, *lengths[:-1]])
    return Split("train", Path("made/train.tokens"), total, np.arange(total, dtype=np.uint32), starts, total)


def equal(a: Batch, b: Batch) -> bool:
    return all(
        (x is None and y is None) or (x is not None and y is not None and torch.equal(x, y))
        for x, y in ((a.token_ids, b.token_ids), (a.targets, b.targets), (a.document_ids, b.document_ids))
    )


# Splits


@given(text=st.text("abcdé\n", min_size=2, max_size=200), fraction=st.sampled_from([0.1, 0.25, 0.5]))
@settings(max_examples=25)
def test_one_document_is_cut_at_its_last_characters(
    tmp_path_factory: pytest.TempPathFactory, text: str, fraction: float
) -> None:
    tokenizer = characters(text)
    made = prepare(Fake(text), tokenizer, tmp_path_factory.mktemp("d") / "data", val_fraction=fraction)
    cut = int(len(text) * (1 - fraction))
    assert tokenizer.decode(made.split("train").tokens) == text[:cut]
    assert tokenizer.decode(made.split("val").tokens) == text[cut:]


def test_the_split_of_one_document_is_that_of_nanogpt(tmp_path: Path) -> None:
    text = "To be, or not to be: that is the question.\n" * 11
    made = prepare(Fake(text), characters(text), tmp_path / "data")
    assert made.split("train").n_tokens == int(len(text) * 0.9)  # nanoGPT's data/shakespeare_char/prepare.py


def test_fewer_than_20_documents_are_cut_where_the_fraction_falls(tmp_path: Path) -> None:
    made = prepare(Fake("aaaa", "", "bbbb", "cccc"), ByteTokenizer(), tmp_path / "data", val_fraction=0.5)
    assert of(made.split("train")) == [[97] * 4 + [EOS], [98] * 2]  # a cut document does not end at the cut
    assert of(made.split("val")) == [[98] * 2 + [EOS], [99] * 4 + [EOS]]


@pytest.mark.parametrize(("n", "fraction"), [(20, 0.1), (47, 0.1), (20, 0.5), (30, 0.01), (40, 0.3)])
def test_from_20_documents_on_every_kth_is_val_and_none_is_in_both(tmp_path: Path, n: int, fraction: float) -> None:
    texts = [f"document {i}" for i in range(n)]
    made = prepare(Fake(*texts), ByteTokenizer(), tmp_path / "data", val_fraction=fraction)
    train, val = ([bytes(ids[:-1]).decode() for ids in of(made.split(name))] for name in ("train", "val"))
    assert sorted(train + val) == sorted(texts)
    assert [texts.index(text) for text in val] == list(range(texts.index(val[0]), n, round(1 / fraction)))


def test_without_val_everything_is_train(tmp_path: Path) -> None:
    made = prepare(Fake("ab", "c"), ByteTokenizer(), tmp_path / "data", val_fraction=0)
    assert of(made.split("train")) == [[97, 98, EOS], [99, EOS]]
    with pytest.raises(DataError, match="no split 'val', only train"):
        made.split("val")


@pytest.mark.parametrize("fraction", [-0.1, 0.6, 1e-320, float("nan")])
def test_an_impossible_fraction_is_an_error(tmp_path: Path, fraction: float) -> None:
    with pytest.raises(DataError, match="val_fraction"):
        prepare(Fake("ab"), ByteTokenizer(), tmp_path / "data", val_fraction=fraction)


@pytest.mark.parametrize(("texts", "says"), [((), "no text"), (("", ""), "no text"), (("a",), "too short")])
def test_a_corpus_with_nothing_to_learn_is_an_error_that_leaves_no_data(
    tmp_path: Path, texts: tuple[str, ...], says: str
) -> None:
    with pytest.raises(DataError, match=says):
        prepare(Fake(*texts), characters("a"), tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_a_long_text_is_tokenised_in_parts_that_end_with_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Noting(ByteTokenizer):
        def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
            seen.append(text)
            return super().encode(text, allow_special=allow_special)

    seen: list[str] = []
    monkeypatch.setattr(data, "LONGEST_PIECE", 5)
    made = prepare(Fake("ab\ncd\nefghijklm"), Noting(), tmp_path / "data", val_fraction=0)
    assert seen == ["ab\n", "cd\n", "efghi", "jklm"]
    assert of(made.split("train")) == [[*b"ab\ncd\nefghijklm", EOS]]


# Files


@pytest.mark.parametrize(("vocab_size", "dtype"), [(1 << 16, "<u2"), ((1 << 16) + 1, "<u4")])
def test_ids_are_stored_as_narrow_as_the_vocabulary_allows(tmp_path: Path, vocab_size: int, dtype: str) -> None:
    class Wide(ByteTokenizer):
        @property
        def vocab_size(self) -> int:
            return vocab_size

        @property
        def eos_id(self) -> int:
            return vocab_size - 1

    made = prepare(Fake("aé", "b"), Wide(), tmp_path / "data", val_fraction=0)
    ids = [97, 0xC3, 0xA9, vocab_size - 1, 98, vocab_size - 1]
    assert made.split("train").tokens.tolist() == ids
    assert np.fromfile(tmp_path / "data" / "train.tokens", dtype).tolist() == ids
    assert made.split("train").text_bytes == 4


def test_tokens_are_read_from_the_disk_as_needed(tmp_path: Path) -> None:
    base = prepare(Fake("ab" * 50), ByteTokenizer(), tmp_path / "data").split("train").tokens.base
    assert isinstance(base, np.memmap)


def test_progress_tells_documents_and_tokens(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    prepare(Fake("ab", "c"), ByteTokenizer(), tmp_path / "data", val_fraction=0, progress=lambda *n: seen.append(n))
    assert seen == [(1, 3), (2, 5)]


def test_a_corpus_that_fails_half_way_leaves_nothing_and_the_old_data_whole(tmp_path: Path) -> None:
    class Torn(Fake):
        def documents(self) -> Iterator[str]:
            yield from ("text",) * 50
            raise DataError("page 51 is torn")

    with pytest.raises(DataError, match="page 51"):
        prepare(Torn(), ByteTokenizer(), tmp_path / "data")
    assert list(tmp_path.iterdir()) == []
    prepare(Fake("old text"), ByteTokenizer(), tmp_path / "data", val_fraction=0)
    with pytest.raises(DataError, match="page 51"):
        prepare(Torn(), ByteTokenizer(), tmp_path / "data")
    assert of(TokenData.open(tmp_path / "data").split("train")) == [[*b"old text", EOS]]
    assert len(list(tmp_path.iterdir())) == 1


def test_prepared_again_the_data_is_the_new_and_other_folders_are_refused(tmp_path: Path) -> None:
    for text in ("old", "new"):
        prepare(Fake(text), ByteTokenizer(), tmp_path / "data", val_fraction=0)
    assert of(TokenData.open(tmp_path / "data").split("train")) == [[*b"new", EOS]]
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(Exception, match="already exists"):
        prepare(Fake("x"), ByteTokenizer(), tmp_path, val_fraction=0)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_preparing_twice_gives_the_same_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        prepare(Fake("text " * 30), ByteTokenizer(), tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["data.json", "train.documents", "train.tokens", "val.documents", "val.tokens"]
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    prepare(Fake(*(f"document {i}" for i in range(25))), ByteTokenizer(), tmp_path / "data")
    return tmp_path / "data"


@pytest.mark.parametrize("name", ["train.tokens", "train.documents", "val.tokens", "val.documents"])
@pytest.mark.parametrize("harm", ["cut", "grown", "altered", "gone"])
def test_a_harmed_file_is_named_when_the_data_is_opened(directory: Path, name: str, harm: str) -> None:
    content = (directory / name).read_bytes()
    harmed = {"cut": content[:-1], "grown": content + b"\0\0", "altered": content[:-1] + b"\x7f"}
    (directory / name).unlink() if harm == "gone" else (directory / name).write_bytes(harmed[harm])
    with pytest.raises(DataError, match=name):
        TokenData.open(directory)


@pytest.mark.parametrize(
    "change",
    [
        {"lamina_data": 2},
        {"dtype": "float64"},
        {"dtype": "uint32"},
        {"vocab_size": "many"},
        {"splits": {"test": {}}},
        {"surprise": 1},
    ],
)
def test_a_manifest_that_lies_is_an_error_that_names_it(directory: Path, change: dict[str, object]) -> None:
    path = directory / "data.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=r"data\.json' is damaged"):
        TokenData.open(directory)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_manifest_that_is_no_json_is_an_error_that_names_it(directory: Path, content: bytes) -> None:
    (directory / "data.json").write_bytes(content)
    with pytest.raises(DataError, match=r"data\.json' is damaged"):
        TokenData.open(directory)


@pytest.mark.parametrize("starts", [[1, 5], [0, 5, 5], [0, 9, 5], [0, 10_000]])
def test_documents_that_begin_nowhere_are_an_error_though_the_manifest_vouches_for_them(
    directory: Path, starts: list[int]
) -> None:
    content, path = np.array(starts, "<i8").tobytes(), directory / "data.json"
    (directory / "train.documents").write_bytes(content)
    manifest = json.loads(path.read_text())
    record = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest["splits"]["train"] |= {"documents": len(starts), "document_file": record}
    path.write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"train\.documents' is damaged"):
        TokenData.open(directory).split("train")


def test_a_folder_without_manifest_is_no_data_directory(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no data directory"):
        TokenData.open(tmp_path)


def test_data_made_with_another_tokenizer_is_refused(tmp_path: Path) -> None:
    made = prepare(Fake("abcabc"), characters("abc"), tmp_path / "data")
    made.require_tokenizer(characters("cba"))
    others: Sequence[Tokenizer] = [characters("abd"), ByteTokenizer()]
    for other in others:
        with pytest.raises(DataError, match="made with another tokenizer"):
            made.require_tokenizer(other)


# Batches


def test_a_batch_follows_from_seed_and_step_alone() -> None:
    split = numbers(30, 170, 1, 99)
    forward = [Batches(split, 3, 8, seed=5).batch(step) for step in range(40)]
    again = Batches(split, 3, 8, seed=5)
    for step in reversed(range(40)):
        assert equal(again.batch(step), forward[step])
    other = Batches(split, 3, 8, seed=6)
    assert not any(equal(other.batch(step), forward[step]) for step in range(5))


@given(st.integers(2, 12), st.integers(1, 9), st.integers(1, 4), st.integers(-3, 3), st.data())
def test_every_token_is_an_input_and_a_target_once_an_epoch(
    context: int, n: int, epochs: int, seed: int, draw: st.DataObject
) -> None:
    total = draw.draw(st.integers(context + 1, context * 12))
    batches = Batches(numbers(total), n, context, seed)
    steps = -(-batches.n_windows * epochs // n)
    drawn = torch.cat([batches.batch(step).token_ids for step in range(steps)])
    targets = torch.cat([batches.batch(step).targets for step in range(steps)])
    assert torch.equal(targets, drawn + 1)  # tokens count up
    for epoch in range(epochs):
        inputs = drawn[epoch * batches.n_windows : (epoch + 1) * batches.n_windows].flatten().sort().values
        assert torch.equal(inputs, torch.arange(len(inputs)) + inputs[0])  # a run without gap or repetition
        assert total - len(inputs) <= 2 * context


def test_epochs_differ_in_phase_and_order() -> None:
    batches = Batches(numbers(1000), 1, 10)
    epochs = [
        [int(batches.batch(e * batches.n_windows + i).token_ids[0, 0]) for i in range(batches.n_windows)]
        for e in range(20)
    ]
    assert len({min(epoch) for epoch in epochs}) > 5
    assert all(epoch != sorted(epoch) for epoch in epochs)
    assert all([a - min(x) for a in x] != [b - min(y) for b in y] for x, y in itertools.combinations(epochs, 2))


def test_every_phase_is_drawn_though_the_windows_would_fit_without_one() -> None:
    batches = Batches(numbers(101), 1, 10)
    steps = range(200 * batches.n_windows)
    assert {int(batches.batch(step).token_ids[0, 0]) % 10 for step in steps} == set(range(10))


def test_every_token_comes_up_though_the_split_is_hardly_a_window() -> None:
    batches = Batches(numbers(15), 4, 8)
    seen = {int(t) for step in range(50) for t in batches.batch(step).token_ids.flatten()}
    assert seen == set(range(14))  # the last token has no successor


@given(st.lists(st.integers(1, 12), min_size=2, max_size=30), st.integers(1, 8), st.integers(1, 3))
def test_documents_are_numbered_and_no_target_crosses_into_the_next(
    lengths: list[int], context: int, batch_size: int
) -> None:
    if sum(lengths) <= context:
        return
    document_of = np.repeat(np.arange(len(lengths)), lengths)
    batches = Batches(numbers(*lengths), batch_size, context)
    for batch in [*(batches.batch(step) for step in range(4)), *batches.evaluation()]:
        assert batch.document_ids is not None
        for tokens, targets, documents in zip(batch.token_ids, batch.targets, batch.document_ids, strict=True):
            true = document_of[tokens.numpy()]
            assert documents.tolist() == (true - true[0]).tolist()
            for token, target in zip(tokens.tolist(), targets.tolist(), strict=True):
                crosses = document_of[token] != document_of[token + 1]
                assert target == (IGNORED if crosses else token + 1)


def test_the_end_of_text_is_a_target_and_what_follows_it_is_not(tmp_path: Path) -> None:
    split = prepare(Fake("ab", "cd"), ByteTokenizer(), tmp_path / "data", val_fraction=0).split("train")
    batch = next(Batches(split, 1, 5).evaluation())
    assert batch.token_ids.tolist() == [[97, 98, EOS, 99, 100]]
    assert batch.targets.tolist() == [[98, EOS, IGNORED, 100, EOS]]


def test_one_document_needs_no_document_ids() -> None:
    assert Batches(numbers(50), 2, 8).batch(0).document_ids is None


def test_batches_are_int64_and_own_their_memory() -> None:
    split = numbers(20, 20)
    batch = Batches(split, 2, 8).batch(0)
    for tensor in (batch.token_ids, batch.targets, batch.document_ids):
        assert tensor is not None
        assert tensor.dtype == torch.int64
        assert tensor.shape == (2, 8)
        assert tensor.is_contiguous()
        tensor.fill_(-1)
    assert split.tokens.tolist() == list(range(40))


def test_evaluation_is_the_same_every_time_and_spread_evenly() -> None:
    batches = Batches(numbers(1001), 4, 10)
    once, twice = list(batches.evaluation(5)), list(batches.evaluation(5))
    assert all(equal(a, b) for a, b in zip(once, twice, strict=True))
    begins = torch.cat([batch.token_ids[:, 0] for batch in once])
    assert torch.equal(begins, torch.arange(20) * 50)


def test_a_whole_evaluation_covers_every_window_once() -> None:
    inputs = torch.cat([batch.token_ids for batch in Batches(numbers(95), 4, 10).evaluation()])
    assert torch.equal(inputs.flatten(), torch.arange(90))
    more_than_there_is = torch.cat([batch.token_ids for batch in Batches(numbers(95), 4, 10).evaluation(99)])
    assert torch.equal(inputs, more_than_there_is)


def test_a_split_shorter_than_a_window_is_an_error() -> None:
    assert Batches(numbers(9), 1, 8).n_windows == 1
    with pytest.raises(DataError, match="has 8 tokens; one window takes 9"):
        Batches(numbers(8), 1, 8)


def test_a_token_outside_the_vocabulary_is_an_error_that_names_the_file() -> None:
    split = Split("train", Path("x/train.tokens"), 20, np.arange(30, dtype=np.uint16), np.array([0]), 30)
    with pytest.raises(DataError, match=r"train\.tokens' holds token \d+; the vocabulary has 20"):
        list(Batches(split, 1, 8).evaluation())


# Ahead


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("batches")]


def test_batches_made_ahead_are_those_of_their_steps() -> None:
    batches = Batches(numbers(100, 100), 3, 8)
    for depth in (1, 2, 5):
        made = list(batches.ahead(7, 19, depth=depth))
        assert len(made) == 12
        assert all(equal(made[i], batches.batch(7 + i)) for i in range(12))
    assert threads() == []


def test_the_thread_ends_with_the_iterator() -> None:
    ahead = Batches(numbers(100), 3, 8).ahead()
    next(ahead)
    assert len(threads()) == 1
    ahead.close()
    assert threads() == []


def test_an_error_made_ahead_reaches_the_step_it_belongs_to() -> None:
    class Failing(Batches):
        def batch(self, step: int) -> Batch:
            if step == 3:
                raise DataError("step 3 is torn")
            return super().batch(step)

    ahead = Failing(numbers(100), 3, 8).ahead(0, 10)
    assert len([next(ahead) for _ in range(3)]) == 3
    with pytest.raises(DataError, match="step 3 is torn"):
        next(ahead)
    assert threads() == []
