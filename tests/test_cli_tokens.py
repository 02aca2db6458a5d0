"""lamina tokens: what is printed for people and for programs."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from lamina.cli import main
from lamina.core.tokens import cut
from lamina.core.tokens_text import COLOURS, print_cuts, visible


def run(*arguments: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(main, ["tokens", *arguments], input=stdin)


def test_json_of_one_tokenizer_is_ids_and_tokens() -> None:
    result = run("--text", "hé", "--tokenizer", "byte", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"ids": [104, 0xC3, 0xA9], "tokens": ["h", "<0xC3>", "<0xA9>"]}


def test_json_of_several_is_a_list_with_their_names() -> None:
    result = run("--text", "h", "--tokenizer", "byte", "--tokenizer", "{name: byte}", "--json")
    each = {"name": "byte", "ids": [104], "tokens": ["h"]}
    assert json.loads(result.stdout) == [each, each]


def test_a_file_and_stdin_are_read(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes("a\r\né".encode())
    for result in (
        run(str(file), "--tokenizer", "byte", "--json"),
        run("-", "--tokenizer", "byte", "--json", stdin="a\r\né".encode()),
    ):
        assert json.loads(result.stdout)["ids"] == list("a\r\né".encode())


def test_special_tokens_are_text_unless_allowed() -> None:
    arguments = ("--text", "<|endoftext|>", "--tokenizer", "byte", "--json")
    assert json.loads(run(*arguments).stdout)["ids"] == list(b"<|endoftext|>")
    assert json.loads(run(*arguments, "--allow-special").stdout)["ids"] == [256]


def test_without_a_terminal_tokens_stand_between_separators_with_the_figures_below() -> None:
    lines = run("--text", "a b", "--tokenizer", "byte").stdout.splitlines()
    assert lines == [
        "a│ │b",
        "byte (byte): 3 tokens, 1.00 a character, 1.50 a word, 1.00 bytes a token",
        "vocabulary 257; special tokens: <|endoftext|> 256",
    ]


def test_long_texts_are_not_broken_into_lines_of_their_own() -> None:
    assert run("--text", "x" * 500, "--tokenizer", "byte").stdout.splitlines()[0] == "│".join("x" * 500)


def test_markup_and_control_characters_of_the_text_are_shown_and_not_obeyed() -> None:
    shown = run("--text", "[red]\x1b[2J\u202ex\n[/nope]", "--tokenizer", "byte").stdout
    assert "\x1b" not in shown
    assert "[│r│e│d│]│␛│[│2│J" in shown
    assert visible("a\tb\x7f\u202e\n") == "a␉b<U+007F><U+202E>⏎\n"


@pytest.mark.parametrize(("no_color", "coloured"), [(False, True), (True, False)])
def test_a_terminal_shows_tokens_in_colours_or_where_there_are_none_with_separators(
    no_color: bool, coloured: bool
) -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, color_system="standard", no_color=no_color)
    print_cuts(cut("ab<|endoftext|>", ["byte"], allow_special=True), console)
    assert ("│" in written.getvalue()) is not coloured
    assert ("\x1b[30;4" in written.getvalue()) is coloured
    assert len(COLOURS) > 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Missing option '--tokenizer'"),
        (("--tokenizer", "byte"), "give a FILE or --text"),
        (("x", "--text", "y", "--tokenizer", "byte"), "not both"),
        (("--text", "y", "--tokenizer", "nope"), "neither a tokenizer nor a shipped spec"),
        (("--text", "y", "--tokenizer", "{name: nope}"), "no tokenizer is called 'nope'"),
        (("--text", "y", "--tokenizer", "{name: [}"), "--tokenizer"),
        (("nowhere.txt", "--tokenizer", "byte"), "nowhere.txt"),
    ],
)
def test_a_users_mistake_is_one_message_and_exit_code_2(arguments: tuple[str, ...], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output
