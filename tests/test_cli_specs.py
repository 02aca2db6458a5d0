"""The commands that read specs and list parts: what they print, and how they end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from lamina.cli import main
from lamina.core.errors import Problem, SpecError

SPEC = """lamina: 1
name: tiny
vocab_size: 96
dim: 32
context_length: 16
position: rope
norm: rms
block:
  attention: {name: gqa, n_heads: 4, n_kv_heads: 2}
  ffn: gated
layers: 2
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    file = tmp_path / "s.yaml"
    file.write_text(SPEC)
    return file


def run(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def run_json(*args: object) -> Any:
    result = run(*args, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_validate_counts_layers_and_parameters(spec: Path) -> None:
    result = run("validate", spec)
    assert result.exit_code == 0
    embedding, norms, attention, ffn = 96 * 32, 32, 32 * 8 * 8 + 32 * 32, 3 * 32 * 88
    parameters = embedding + norms + 2 * (2 * norms + attention + ffn)
    assert result.stdout == f"{spec}: valid — 2 layers, {parameters / 1000:.1f} K parameters\n"
    assert run_json("validate", spec)["parameters"] == parameters


def test_validate_tells_every_problem_by_line_and_ends_with_2(spec: Path) -> None:
    spec.write_text(SPEC.replace("dim: 32", "dim: yes").replace("gated", "gatd"))
    result = run("validate", spec)
    assert result.exit_code == 2
    assert f"{spec}:4:6:" in result.stderr
    assert f"{spec}:10:8: no ffn is called 'gatd'" in result.stderr
    assert "did you mean 'gated'?" in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""


def test_validate_json_lists_problems_for_editors(spec: Path) -> None:
    result = run("validate", spec, "--json", "--set", "block.attention.n_heads=5")
    assert result.exit_code == 2
    answer = json.loads(result.stdout)
    assert answer["valid"] is False
    assert [(p["line"], p["message"]) for p in answer["problems"]] == [
        (9, "n_heads (5) must be a multiple of n_kv_heads (2)")
    ]


def test_validate_applies_overrides(spec: Path) -> None:
    assert run_json("validate", spec, "--set", "layers=5")["n_layers"] == 5


def test_a_flag_that_is_no_assignment_is_refused(spec: Path) -> None:
    result = run("validate", spec, "--set", "layers")
    assert result.exit_code == 2
    assert "not of the form a.b=c" in result.stderr


@pytest.mark.parametrize("arguments", [("validate", ""), ("new", ""), ("train", "demo", "--data", "x", "--out", " ")])
def test_an_empty_name_is_told_in_a_line(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "no spec is named" in result.stderr or "an empty text is no path" in result.stderr


def test_a_flags_mistake_names_the_flag(spec: Path, tmp_path: Path) -> None:
    result = run("train", spec, "--data", "python_stdlib", "--batch-size", "x", "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert result.stderr.startswith("--batch-size x: train.batch_size must be an integer")
    assert not (tmp_path / "run").exists()


def test_of_a_long_line_what_is_around_the_mistake_is_shown(spec: Path) -> None:
    spec.write_text(f"{SPEC}sampler: [{'greedy, ' * 200}gredy]\n")
    lines = run("validate", spec).stderr.splitlines()
    assert max(len(text) for text in lines if " | " in text[:6]) < 160
    line = next(index for index, text in enumerate(lines) if "gredy]" in text)
    assert lines[line][lines[line + 1].index("^") :].startswith("gredy")


def test_a_note_that_problems_share_is_said_once() -> None:
    problems = [{"note": "n"}, {"note": "m"}, {"note": "n"}]
    said = str(SpecError([Problem("wrong", **fields) for fields in problems]))
    assert said.count("\nn") == 1
    assert said.count("\nm") == 1


def test_a_spec_that_does_not_exist_is_told_in_a_line(tmp_path: Path) -> None:
    result = run("validate", tmp_path / "none.yaml")
    assert result.exit_code == 2
    assert result.stderr == f"{tmp_path / 'none.yaml'}: no such file\n"


def test_inspect_prints_what_the_report_holds(spec: Path) -> None:
    report = run_json("inspect", spec, "--batch", 2, "--context", 8, "--dtype", "float32")
    assert (report["batch"], report["context"], report["dtype"]) == (2, 8, "float32")
    text = run("inspect", spec).stdout
    assert f"{report['total']:,}" in text
    assert "gqa(n_heads 4, n_kv_heads 2, head_dim 8" in text


def test_inspect_has_one_row_for_a_head(spec: Path) -> None:
    for setting, said in (("false", "0  tied to the embedding"), ("true", "%, its weights tied to the embedding's")):
        rows = run("inspect", spec, "--set", f"head.bias={setting}").stdout.splitlines()
        (row,) = (row for row in rows if row.split()[:1] == ["head"])
        assert said in row


def test_inspect_reads_a_model_directory(spec: Path, tmp_path: Path) -> None:
    import lamina

    resolved = lamina.resolve(lamina.load_spec(spec))
    model = lamina.Model(lamina.build(resolved), None, resolved)
    lamina.save(model, tmp_path / "model")
    assert run_json("inspect", tmp_path / "model")["total"] == run_json("inspect", spec)["total"]
    assert run_json("inspect", tmp_path / "model", "--set", "layers.n_layers=1")["n_layers"] == 1


def test_inspect_refuses_a_dtype_and_a_context_that_cannot_be(spec: Path) -> None:
    result = run("inspect", spec, "--dtype", "int3")
    assert (result.exit_code, "no decoder has dtype 'int3'" in result.stderr) == (2, True)
    result = run("inspect", "gpt2", "--context", 2000)
    assert (result.exit_code, "longer than the 1024 positions" in result.stderr) == (2, True)


def test_explain_tells_where_each_value_comes_from(spec: Path) -> None:
    told = {one["path"]: one for one in run_json("explain", spec, "--set", "block.ffn.hidden_dim=64")}
    assert told["dim"]["origin"] == f"{spec}:4:6"
    assert told["blocks.block.attention.head_dim"]["origin"] == "derived"
    assert told["blocks.block.attention.bias"]["origin"] == "default of attention 'gqa'"
    assert told["blocks.block.ffn.hidden_dim"]["origin"] == "--set block.ffn.hidden_dim=64"
    assert told["blocks.block.attention_in.name"]["origin"] == f"{spec}:7:7"


def test_explain_narrows_to_a_path_in_two_columns(spec: Path) -> None:
    lines = run("explain", spec, "block.attention").stdout.splitlines()
    assert all(line.startswith("blocks.block.attention.") for line in lines)
    origin = f"{spec}:9:35"
    (n_heads,) = (line for line in lines if ".n_heads: 4 " in line)
    (bias,) = (line for line in lines if ".bias: false " in line)
    assert n_heads.index(origin) == bias.index("default of")


def test_explain_suggests_a_path_for_one_that_is_not_there(spec: Path) -> None:
    result = run("explain", spec, "head.tide")
    assert result.exit_code == 2
    assert "nothing at 'head.tide'" in result.stderr
    assert "did you mean 'head.tied'?" in result.stderr


def test_diff_tells_changes_in_words_and_what_they_cost(spec: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    text = SPEC.replace("position: rope", "position: {name: rope, theta: 1e6}").replace(
        "n_kv_heads: 2", "n_kv_heads: 1"
    )
    other.write_text(text)
    answer = run_json("diff", spec, other)
    changes = {tuple(change["paths"]): (change["before"], change["after"]) for change in answer["changes"]}
    assert changes["position", "blocks.block.position"] == ("rope(theta 10000)", "rope(theta 1e+06)")
    before, after = changes[("blocks.block.attention",)]
    assert before.replace("n_kv_heads 2", "n_kv_heads 1") == after
    cache = next(figure for figure in answer["figures"] if figure["what"] == "cache bytes per token")
    assert (cache["before"] / 2, cache["change"]) == (cache["after"], -0.5)
    said = run("diff", spec, other).stdout
    assert "position, blocks.block.position: rope(theta 10000) → rope(theta 1e+06)" in said
    assert "cache bytes per token: 128 → 64  (-50.0%)" in said


def test_diff_names_the_norm_once_for_all_its_places(spec: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(SPEC.replace("norm: rms", "norm: layer"))
    (change,) = run_json("diff", spec, other)["changes"]
    assert set(change["paths"]) == {"norm", "blocks.block.attention_in", "blocks.block.ffn_in"}
    assert (change["before"], change["after"]) == ("rms", "layer")


def test_a_spec_does_not_differ_from_itself(spec: Path) -> None:
    answer = run_json("diff", spec, spec)
    assert answer["changes"] == []
    assert all(figure["change"] == 0 for figure in answer["figures"])
    assert "no difference" in run("diff", spec, spec).stdout


def test_components_are_told_in_whole_sentences() -> None:
    assert [one["name"] for one in run_json("components") if not one["summary"].endswith(".")] == []


def test_new_writes_a_commented_spec_that_is_valid(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    assert run("new", file).exit_code == 0
    assert "#" in file.read_text()
    assert run_json("validate", file)["valid"] is True


def test_new_overwrites_nothing(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("precious")
    result = run("new", file)
    assert (result.exit_code, file.read_text()) == (2, "precious")
    assert "exists already" in result.stderr


def test_new_copies_a_shipped_spec_by_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    assert run("new", file, "--from", "gpt2").exit_code == 0
    assert run_json("validate", file)["parameters"] == 124_439_808
    result = run("new", tmp_path / "x.yaml", "--from", "gtp2")
    assert result.exit_code == 2
    assert "did you mean 'gpt2'?" in result.stderr


def shell(command: str) -> tuple[int, str]:
    """Exit code and stderr of `lamina …` in a shell."""
    line = f"{sys.executable} -m lamina.cli {command}"
    done = subprocess.run(["sh", "-c", line], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def test_output_that_nobody_takes_ends_in_a_line_or_in_silence() -> None:
    said = "the output cannot be written: No space left on device\n"
    assert shell("--help > /dev/full") == (1, said)
    assert shell("plugins > /dev/full") == (1, said)
    assert shell("plugins >&- ") == (0, "")
    assert shell("plugins <&- 2>&-") == (0, "")
    code, stderr = shell("schema | true")
    assert (code, stderr) == (0, "")


def test_memory_that_runs_out_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(said: str) -> Result:
        def raises(*_: object) -> None:
            raise RuntimeError(said)

        monkeypatch.setattr("lamina.core.index.read_index", raises)
        return run("plugins")

    out = fail("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.\nmore")
    assert out.exit_code == 1
    assert out.stderr.startswith("not enough memory: [enforce fail] DefaultCPUAllocator: can't allocate memory")
    assert "more" not in out.stderr
    assert isinstance(fail("a mistake of ours").exception, RuntimeError)
