"""What the components that the tokenizers library runs have in common, where no one component's test shows it."""

from __future__ import annotations

from pathlib import Path

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

from lamina.core import DataError, add_special, told
from lamina.core.library_tokenizer import BYTE_OF, special_of
from lamina.core.registry import load_plugins
from lamina.core.resolve import resolve_data
from lamina.core.tokenizer import show_bytes
from lamina.core.train import create_run, open_run

REGISTRY = load_plugins(only=[])


def test_the_alphabet_of_bytes_is_the_librarys() -> None:
    assert BYTE_OF.keys() == set(pre_tokenizers.ByteLevel.alphabet())
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    text = "".join(map(chr, range(0x250))) + "東😀"
    written = "".join(piece for piece, _ in cut.pre_tokenize_str(text))
    assert bytes(BYTE_OF[character] for character in written) == text.encode()


def test_bytes_are_shown_as_text_where_they_are_text() -> None:
    assert show_bytes(b" a\xe2\x82") == " a<0xE2><0x82>"
    assert show_bytes("é".encode()) == "é"


def test_a_panic_in_the_library_is_an_error_of_the_file_and_an_interrupt_is_not() -> None:
    panic = type("PanicException", (BaseException,), {})
    with pytest.raises(DataError, match="broken: index 3"), told("broken"):
        raise panic("index 3\n")
    with pytest.raises(KeyboardInterrupt), told("broken"):
        raise KeyboardInterrupt
    with pytest.raises(DataError, match=r"^mine$"), told("broken"):
        raise DataError("mine")


def test_making_a_token_special_keeps_every_id() -> None:
    tokenizer = tokenizers.Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    add_special(tokenizer, ["b", "absent", "b"])
    assert tokenizer.get_vocab() == {"a": 0, "b": 1}
    assert special_of(tokenizer) == {"b": 1}


@pytest.mark.parametrize("name", [e.name for e in REGISTRY.entries("tokenizer") if e.component.trainable])  # type: ignore[attr-defined]
def test_a_run_trains_every_trainable_tokenizer_and_opens_it_to_the_same_ids(name: str, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(Path(pytest.__file__).read_text(encoding="utf-8") * 2, encoding="utf-8")
    block = {"attention": {"name": "gqa", "n_heads": 2}, "ffn": "mlp"}
    spec = {"lamina": 1, "dim": 8, "vocab_size": 500, "context_length": 8, "norm": "rms", "block": block, "layers": 1}
    run = create_run(resolve_data({**spec, "tokenizer": name}), text, tmp_path / "run")
    again = open_run(tmp_path / "run")
    assert run.tokenizer is not None
    assert again.tokenizer is not None
    again.data.require_tokenizer(run.tokenizer)
    assert again.tokenizer.encode("import x") == run.tokenizer.encode("import x")
    assert again.spec == run.spec
