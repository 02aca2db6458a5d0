"""StreamDecoder: the pieces join to the whole text, and no piece holds half a character."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pytest
import tokenizers
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers

from lamina.core import StreamDecoder, Tokenizer
from lamina.plugins.tokenizer.bpe import FILE, BPEConfig, BPETokenizer
from lamina.plugins.tokenizer.byte import ByteTokenizer

BYTES = ByteTokenizer()


@cache
def bpe() -> BPETokenizer:
    # Trained on emoji and CJK without spaces, so that tokens begin and end inside characters.
    return BPETokenizer.train(BPEConfig(), ["😀😃😄😁", "であるから東京都", "a😀b", "the cat"] * 20, 330)


@pytest.fixture(scope="module")
def fallback(tmp_path_factory: pytest.TempPathFactory) -> BPETokenizer:
    """As in Llama 2: words begin with ▁, the first space is dropped, unknown characters are spelt in bytes."""
    vocab = {"<unk>": 0, "▁": 1, "a": 2, "b": 3, "▁a": 4, "é": 5}
    vocab |= {f"<0x{byte:02X}>": len(vocab) + byte for byte in range(256)}
    vocab["</s>"] = len(vocab)
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab, [("▁", "a")], unk_token="<unk>", byte_fallback=True))
    tokenizer.add_special_tokens(["</s>"])
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    directory = tmp_path_factory.mktemp("fallback")
    (directory / FILE).write_text(tokenizer.to_str(), encoding="utf-8")
    return BPETokenizer.open(BPEConfig(path=FILE), directory)


def stream(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    decoder = tokenizer.stream()
    return [*map(decoder.push, ids), decoder.finish()]


TEXT = st.text(
    st.one_of(st.characters(codec="utf-8", exclude_characters="\ufffd"), st.sampled_from("😀😃東京éa \n")), max_size=60
)


@given(TEXT)
@example("😀" * 60)
@example("a" * 200)
@example("あ😀é" * 30)
def test_pieces_of_a_text_join_to_it_without_half_characters(text: str) -> None:
    for tokenizer in (BYTES, bpe()):
        pieces = stream(tokenizer, tokenizer.encode(text))
        assert "".join(pieces) == text
        assert not any("\ufffd" in piece for piece in pieces)


@given(
    st.lists(st.one_of(st.integers(0, 257), st.sampled_from([0xF0, 0x9F, 0x98, 0x80, 0xE2, 0x82, 0xAC])), max_size=120)
)
@example([0xFF] * 7 + [0xE2, 0x82, 0xAC])
@example([0xFF] * 100 + [0xF0, 0x9F, 0x98, 0x80])
@example([0xF0, 0x9F, 256, 0x98, 0x80])
@example([0xC3, *[256] * 50, 0xA9])
def test_pieces_of_any_bytes_join_to_what_decode_gives(ids: list[int]) -> None:
    assert "".join(stream(BYTES, ids)) == BYTES.decode(ids)


@given(st.lists(st.integers(0, 340), max_size=120))
def test_pieces_of_any_tokens_join_to_what_decode_gives(ids: list[int]) -> None:
    assert "".join(stream(bpe(), ids)) == bpe().decode(ids)


@given(TEXT)
@example("😀" * 60)
@example("a b é東" * 30)
@example("0000\x80\x80\x80a\x80𐀀𐀀𐀀")
@example("東" * 60)
@example(" a")
def test_spaces_and_byte_fallback_stream_as_they_decode(fallback: BPETokenizer, text: str) -> None:
    ids = fallback.encode(text)
    pieces = stream(fallback, ids)
    assert "".join(pieces) == fallback.decode(ids)
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_character_comes_with_its_last_byte() -> None:
    assert stream(BYTES, [97, *"€".encode(), 98]) == ["a", "", "", "€", "b", ""]


def test_incomplete_bytes_come_out_at_the_end() -> None:
    assert stream(BYTES, [97, 0xE2, 0x82]) == ["a", "", "", "\ufffd"]


def test_text_before_an_open_character_is_not_held_back() -> None:
    class Pairs(ByteTokenizer):
        """Id n stands for the two bytes of n."""

        @property
        def vocab_size(self) -> int:
            return 1 << 16

        def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
            return b"".join(i.to_bytes(2, "big") for i in ids).decode(errors="replace")

    data = ("a" + "é" * 100 + "b").encode()  # every id but the last ends inside a character
    ids = [int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)]
    assert stream(Pairs(), ids) == ["a", *["é"] * 99, "éb", ""]


def test_special_tokens_are_not_shown() -> None:
    assert stream(BYTES, [97, 256, 98]) == ["a", "", "b", ""]


def test_many_special_tokens_do_not_hide_that_a_text_has_begun(fallback: BPETokenizer) -> None:
    ids = fallback.encode("a")  # a first piece loses its space, a later one keeps it
    assert "".join(stream(fallback, [*ids, *[fallback.special_ids["</s>"]] * 40, *ids])) == "a a"


@given(TEXT, TEXT)
@example("a", " b")
@example("東" * 20, "東京")
@example("😀", "")
def test_a_continuation_streams_what_its_ids_add_to_the_text_before(
    fallback: BPETokenizer, before: str, after: str
) -> None:
    for tokenizer in (BYTES, bpe(), fallback):
        start, ids = tokenizer.encode(before), tokenizer.encode(after)
        if not start:
            continue
        decoder = tokenizer.stream(start)
        pieces = [*map(decoder.push, ids), decoder.finish()]
        assert tokenizer.decode(start) + "".join(pieces) == tokenizer.decode([*start, *ids])
        assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("token", [97, 0xFF, 0xE2, 256, 300])
def test_work_for_a_token_does_not_grow_with_the_text(token: int) -> None:
    class Counting(ByteTokenizer):
        longest = 0

        def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
            self.longest = max(self.longest, len(ids))
            return super().decode(ids, skip_special=skip_special)

    tokenizer = Counting()
    decoder = StreamDecoder(tokenizer)
    for start in [97] * 25 + [0xC3]:
        decoder.push(start)
    for _ in range(2000):
        decoder.push(token)
    assert tokenizer.longest <= 32


def test_work_does_not_grow_with_characters_spelt_in_bytes(fallback: BPETokenizer) -> None:
    decoder = fallback.stream()
    for token in fallback.encode("東京😀" * 100):
        decoder.push(token)
    assert len(decoder._ids) <= 32
