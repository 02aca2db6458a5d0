from pathlib import Path

import pytest
from click.testing import CliRunner

from lamina.cli import main
from lamina.core.bench import bench_generation, bench_training, prompt_lengths
from lamina.core.errors import LaminaError

SPEC = """
lamina: 1
name: tiny
vocab_size: 32
dim: 16
context_length: 40
position: rope
norm: rms
block:
  attention: {name: gqa, n_heads: 2, n_kv_heads: 1}
  ffn: gated
layers: 2
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(SPEC)
    return path


FIGURES = {
    "prefill_tokens_per_second",
    "decode_tokens_per_second",
    "time_to_first_token_s",
    "load_s",
    "warmup_s",
    "peak_rss_bytes",
}


def test_generation_is_told_in_positive_figures_with_its_settings(spec: Path) -> None:
    data = bench_generation(spec, prompt_tokens=8, new_tokens=3, batch=2, repeat=1).to_json()
    assert all(data[name] > 0 for name in FIGURES)
    settings = {"model": str(spec), "batch": 2, "prompt_tokens": 8, "new_tokens": 3, "dtype": "float32", "repeat": 1}
    assert settings.items() <= data.items()
    assert data["backend"] == {"name": "eager"}
    assert {"lamina", "torch", "threads", "device"} <= data.keys()


def test_rates_follow_from_the_times_they_come_with(spec: Path) -> None:
    data = bench_generation(spec, prompt_tokens=8, new_tokens=3, batch=4, ragged=True, repeat=1).to_json()
    assert data["prefill_tokens_per_second"] * data["time_to_first_token_s"] == pytest.approx(2 + 4 + 6 + 8)


def test_ragged_prompts_spread_from_a_quarter_to_the_whole() -> None:
    assert prompt_lengths(16, 4, ragged=True) == [4, 8, 12, 16]
    assert prompt_lengths(16, 3, ragged=False) == [16, 16, 16]
    assert prompt_lengths(2, 2, ragged=True) == [1, 2]


def test_ragged_figures_count_real_tokens_only(spec: Path) -> None:
    data = bench_generation(spec, prompt_tokens=16, new_tokens=2, batch=4, ragged=True, repeat=1).to_json()
    assert data["prompt_lengths"] == [4, 8, 12, 16]
    assert data["total_prompt_tokens"] == 40


def test_the_prompt_takes_what_the_context_leaves_when_no_length_is_given(spec: Path) -> None:
    assert bench_generation(spec, new_tokens=4, repeat=1).to_json()["prompt_tokens"] == 36


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_training_is_told_in_positive_figures_with_its_settings(spec: Path, dtype: str) -> None:
    data = bench_training(spec, batch=2, context=6, dtype=dtype, steps=1).to_json()
    assert all(data[name] > 0 for name in ("train_tokens_per_second", "warmup_s", "peak_rss_bytes"))
    assert {"batch": 2, "context": 6, "dtype": dtype, "steps": 1}.items() <= data.items()
    assert data["train_tokens_per_second"] * data["step_s"] == pytest.approx(2 * 6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--prompt-tokens", "39", "--new-tokens", "2"], "a context of 41"),
        (["--dtype", "floaty"], "no decoder has dtype 'floaty'"),
        (["--backend", "eagr"], "did you mean 'eager'?"),
        (["--new-tokens", "1"], "new_tokens must be a whole number from 2"),
        (["--batch", "0"], "batch must be"),
        (["--ragged"], "a batch of one"),
        (["--train", "--ragged"], "--ragged"),
        (["--steps", "3"], "--steps"),
        (["--train", "--context", "41"], "a context of 41"),
        (["--train", "--dtype", "float16"], "training has no dtype float16"),
        (["--set", "dim"], "'dim' is not of the form"),
    ],
)
def test_a_wrong_request_is_one_clear_error(spec: Path, options: list[str], said: str) -> None:
    result = CliRunner().invoke(main, ["bench", str(spec), *options])
    assert result.exit_code == 2
    assert said in result.output
    assert "Traceback" not in result.output


def test_a_model_directory_takes_no_overrides(tmp_path: Path) -> None:
    with pytest.raises(LaminaError, match="--set changes a spec"):
        bench_generation(tmp_path, overrides={"dim": 8})
