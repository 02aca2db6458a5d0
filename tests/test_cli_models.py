"""The commands that train and generate, as a person or a script calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import lamina
from lamina.cli import file_name, main

SPEC = """\
lamina: 1
name: small
tokenizer: byte
dim: 16
context_length: 32
position: rope
norm: rms
block:
  attention: {name: gqa, n_heads: 2}
  ffn: gated
layers: 1
"""


def call(*arguments: str | Path, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a spec, a text and a finished run."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "spec.yaml").write_text(SPEC)
    (folder / "text.txt").write_text("to be or not to be, that is the question. " * 40)
    options = ("--steps", 4, "--out", folder / "run", "--seed", 1, "--save-every", 2, "--eval-every", 2)
    done = call("train", folder / "spec.yaml", "--data", folder / "text.txt", *map(str, options), "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["step"] == 4
    assert report["val_loss"] > 0
    return folder


def test_metrics_hold_the_validation_loss(place: Path) -> None:
    lines = [json.loads(line) for line in (place / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "val_loss" in line] == [2, 4]


def test_generate_prints_what_python_gives(place: Path) -> None:
    out = call("generate", place / "run", "to be", "--max-new-tokens", "8", "--sampler", "greedy")
    model = lamina.load(place / "run")
    text = model.generate("to be", max_new_tokens=8, sampler="greedy").text
    assert out.exit_code == 0
    assert out.stdout == f"{text}\n"
    assert "".join(model.stream("to be", max_new_tokens=8, sampler="greedy")) == text


def test_several_prompts_give_what_each_gives_alone(place: Path) -> None:
    many = json.loads(call("generate", place / "run", "to", "not to be", "--sampler", "greedy", "--json").stdout)
    alone = [
        json.loads(call("generate", place / "run", p, "--sampler", "greedy", "--json").stdout)
        for p in ("to", "not to be")
    ]
    assert many == alone


def test_a_seed_fixes_the_text_and_the_chain_shapes_it(place: Path) -> None:
    def text(*flags: str) -> str:
        return call("generate", place / "run", "to", "--max-new-tokens", "12", *flags).stdout

    assert text("--seed", "1") == text("--seed", "1") != text("--seed", "2")
    assert text("--sampler", "top_k=1") == text("--sampler", "greedy") == text("--sampler", "{name: top_k, k: 1}")
    assert text("--decoding", "{name: beam, n_beams: 1}") == text("--sampler", "temperature=0.5,greedy")


def test_a_prompt_is_read_from_stdin(place: Path) -> None:
    flags = ("--max-new-tokens", "5", "--sampler", "greedy")
    assert (
        call("generate", place / "run", "-", *flags, stdin="to be").stdout
        == call("generate", place / "run", "to be", *flags).stdout
    )


def test_a_trace_goes_to_stderr_or_into_the_json(place: Path) -> None:
    flags = ("--max-new-tokens", "5", "--sampler", "top_k=9,top_p=0.8")
    plain = call("generate", place / "run", "to be", *flags)
    traced = call("generate", place / "run", "to be", *flags, "--trace")
    assert traced.stdout == plain.stdout
    assert plain.stderr == ""
    assert "top_k" in traced.stderr
    assert " / 9" in traced.stderr
    told = json.loads(call("generate", place / "run", "to be", *flags, "--trace", "--json").stdout)
    assert [[stage["stage"] for stage in entry["stages"]] for entry in told["trace"]] == [["top_k", "top_p"]] * 5
    assert [entry["token_id"] for entry in told["trace"]] == told["token_ids"]
    assert call("generate", place / "run", "to", "be", *flags, "--trace").stderr.count("top_p") == 2


def test_how_drafted_tokens_fared_is_told(place: Path) -> None:
    flags = ("--max-new-tokens", "9", "--sampler", "greedy")
    plain = call("generate", place / "run", "to be", *flags)
    for decoding in ("prompt_lookup", f"{{name: speculative, draft: '{place / 'run'}'}}"):
        told = call("generate", place / "run", "to be", *flags, "--decoding", decoding)
        assert told.stdout == plain.stdout
        assert "acceptance rate" in told.stderr
        data = json.loads(call("generate", place / "run", "to be", *flags, "--decoding", decoding, "--json").stdout)
        assert data["statistics"]["decoder_calls"] >= 2
    assert data["statistics"]["acceptance_rate"] == 1


def test_resume_of_a_finished_run_changes_nothing(place: Path) -> None:
    before = (place / "run" / "metrics.jsonl").read_text()
    assert call("resume", place / "run").exit_code == 0
    assert (place / "run" / "metrics.jsonl").read_text() == before


def test_every_mistake_is_one_message_with_exit_code_two(place: Path, tmp_path: Path) -> None:
    spec, text, run = place / "spec.yaml", place / "text.txt", place / "run"
    (tmp_path / "wrong.yaml").write_text(SPEC.replace("gqa", "gqaa").replace("gated", "gatd"))
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "cut").mkdir()
    for name in ("spec.yaml", "lamina.json"):
        (tmp_path / "cut" / name).write_bytes((run / "checkpoints/step-00000004" / name).read_bytes())
    weights = (run / "checkpoints/step-00000004/model.safetensors").read_bytes()
    (tmp_path / "cut" / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    cases: list[tuple[tuple[object, ...], str]] = [
        (("train", tmp_path / "wrong.yaml", "--data", text), "did you mean 'gqa'?"),
        (("train", tmp_path / "wrong.yaml", "--data", text), "did you mean 'gated'?"),
        (("train", tmp_path / "none.yaml", "--data", text), "no such file"),
        (("train", spec, "--data", tmp_path / "none.txt"), "no such file or directory"),
        (("train", spec, "--data", tmp_path / "empty.txt", "--out", tmp_path / "r"), "empty"),
        (("train", spec, "--data", text, "--out", text / "run"), "text.txt"),
        (("train", spec, "--data", text, "--steps", "none", "--out", tmp_path / "r"), "must be an integer"),
        (("train", spec, "--data", text, "--backend", "eagr", "--out", tmp_path / "r"), "did you mean 'eager'?"),
        (("generate", run, "x", "--device", "meta"), "device 'meta' cannot be used"),
        (("bench", run, "--device", "meta"), "device 'meta' cannot be used"),
        (("resume", tmp_path / "folder"), "not a run directory"),
        (("generate", tmp_path / "none", "x"), "no such directory"),
        (("generate", tmp_path / "folder", "x"), "not a model directory"),
        (("generate", tmp_path / "cut", "x"), "cut short"),
        (("generate", run, "x" * 33), "the context holds 32"),
        (("generate", run, "x", "--sampler", "top_q=1"), "no sampler is called 'top_q'"),
        (("generate", run, "x", "--sampler", "top_p=2"), "at most 1"),
        (("generate", run, "x", "--max-new-tokens", "0"), "max_new_tokens"),
        (("generate", run, "x", "--decoding", "beem"), "did you mean 'beam'?"),
        (("generate", run, "x", "--decoding", ""), "names no strategy"),
        (("generate", run, "x", "--sampler", ","), "names no stage"),
        (("generate", run, "x", "--seed", "-1"), "seed must be a whole number from 0, not -1"),
        (
            ("generate", run, "x", "--decoding", f"{{name: speculative, draft: '{tmp_path / 'none'}'}}"),
            "no such directory",
        ),
        (("generate", "demo", "x"), "train it first: lamina train demo"),
        (("generate", spec, "x"), "train it first: lamina train"),
        (("resume", run / "checkpoints" / "step-00000004"), f"lamina resume {run}"),
    ]
    for arguments, message in cases:
        result = call(*map(str, arguments))
        assert result.exit_code == 2, (arguments, result.output, result.exception)
        assert message in result.stderr, (arguments, result.stderr)
        assert "Traceback" not in result.output
        assert not (tmp_path / "r").exists()


def test_a_text_that_the_context_cuts_short_is_told(place: Path) -> None:
    assert call("generate", place / "run", "x" * 30, "--stop", "never").stderr == (
        "ended after 2 tokens, where the model's context is full\n"
    )


@pytest.mark.parametrize(
    ("name", "file"), [("../../up", "up"), ("a b/c", "a-b-c"), ("…", "run"), ("llama-3.1+x", "llama-3.1+x")]
)
def test_a_models_name_makes_a_file_name_that_stays_where_it_is(name: str, file: str) -> None:
    assert file_name(name) == file
