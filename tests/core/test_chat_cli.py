"""`lamina chat` as a script calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from tiny_specs import build_moved

import lamina
from lamina.cli import main
from lamina.core.chat import Chat
from lamina.core.model import Model, save
from lamina.core.resolve import resolve_data
from lamina.plugins.tokenizer.byte import ByteTokenizer

TEMPLATE = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}<|endoftext|>{% endfor %}a:"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = {
        "lamina": 1,
        "dim": 16,
        "vocab_size": 257,
        "context_length": 128,
        "tokenizer": "byte",
        "position": "rope",
        "norm": "rms",
        "block": {"attention": {"name": "gqa", "n_heads": 2}, "ffn": "gated"},
        "layers": 1,
        "init": {"std": 0.3},
    }
    spec = resolve_data(data)
    saved = save(Model(build_moved(spec), ByteTokenizer(), spec), tmp_path_factory.mktemp("chat") / "model")
    (saved / "tokenizer" / "chat_template.jinja").write_text(TEMPLATE)
    return saved


def call(*arguments: str | Path, stdin: str | bytes = "") -> Result:
    return CliRunner().invoke(main, ["chat", *map(str, arguments)], input=stdin)


def test_json_gives_one_turn(folder: Path) -> None:
    flags = ("--json", "--max-new-tokens", "6", "--seed", "3", "--system", "be kind")
    done = call(folder, *flags, stdin="hello<|endoftext|>\n")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    ids = [*b"s:be kind", 256, *b"u:hello<|endoftext|>", 256, *b"a:"]
    alone = lamina.load(folder).generate(torch.tensor([ids]), max_new_tokens=6, seed=3)
    assert told["content"] == alone.text
    assert told["token_ids"] == alone.token_ids[0].tolist()
    assert told["stop"] == alone.finish_reasons[0]
    assert told.keys() == {"content", "token_ids", "stop"}
    talk = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hello<|endoftext|>"}]
    assert json.loads(call(folder, *flags[:-2], stdin=json.dumps(talk)).stdout) == told


def test_piped_lines_are_messages(folder: Path) -> None:
    done = call(folder, "--sampler", "greedy", "--max-new-tokens", "4", stdin="hello\n\n/reset\nwhat?\nand so\n")
    chat = Chat(lamina.load(folder), sampler="greedy", max_new_tokens=4)
    answers = [chat.say("hello")]
    chat.reset()
    answers += [chat.say("what?"), chat.say("and so")]
    assert done.exit_code == 0, done.output
    assert done.stdout == "".join(f"{answer}\n" for answer in answers)


def test_a_template_may_be_given(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text("{{ raise_exception('not today') }}")
    done = call(folder, "--template", tmp_path / "own.jinja", stdin="hello\n")
    assert done.exit_code == 2
    assert "own.jinja" in done.stderr
    assert "refuses these messages: not today" in done.stderr


@pytest.mark.parametrize(
    ("stdin", "flags", "told"),
    [
        ("", ["--json"], "stdin holds no message"),
        ("x" * 200, ["--json"], "takes 205 tokens, and the context holds 128"),
        ("hi", ["--json", "--max-new-tokens", "0"], "0 is not in the range"),
        ('[{"role": "user"}]', ["--json"], "a role and a content"),
        (b"\xff", ["--json"], "not UTF-8"),
        (b"\xff", [], "not UTF-8"),
        ("hi", ["--template", "absent.jinja"], "'absent.jinja' cannot be read"),
    ],
)
def test_mistakes_are_told(folder: Path, stdin: str | bytes, flags: list[str], told: str) -> None:
    done = call(folder, *flags, stdin=stdin)
    assert done.exit_code == 2, done.output
    assert told in done.stderr
    assert not done.stdout.strip()


def test_a_model_without_a_template_is_told_before_anything_is_read(folder: Path, tmp_path: Path) -> None:
    model = lamina.load(folder)
    bare = save(
        Model(model.decoder, model.tokenizer, resolve_data(model.spec.dump(), directory=tmp_path)), tmp_path / "m"
    )
    done = call(bare, stdin="hello\n")
    assert done.exit_code == 2
    assert "no chat template" in done.stderr
    assert "--template FILE" in done.stderr
