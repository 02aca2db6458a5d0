from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from tiny_specs import REGISTRY, build_moved
from torch.nn import functional as F

from lamina.cli import main
from lamina.core.evaluate import evaluate
from lamina.core.model import Model, load, open_tokenizer, save
from lamina.core.resolve import resolve_data

TEXT = "How far a jump goes, nobody knows: äöü — until it is made. " * 6


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    spec = resolve_data(
        {
            "lamina": 1,
            "dim": 64,
            "context_length": 48,
            "tokenizer": "byte",
            "position": "rope",
            "norm": "rms",
            "block": {"attention": {"name": "gqa", "n_heads": 4}, "ffn": "gated"},
            "layers": 2,
            "init": {"std": 0.2},
        },
        REGISTRY,
    )
    folder = tmp_path_factory.mktemp("eval")
    save(Model(build_moved(spec), open_tokenizer(spec), spec), folder / "model")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    return folder / "model", folder / "text.txt"


def by_hand(model: Path, context: int, most: int | None = None) -> tuple[float, int]:
    """Summed loss and number of the tokens predicted, window by window, by plain calls."""
    loaded = load(model)
    assert loaded.tokenizer is not None
    ids = torch.tensor(loaded.tokenizer.encode(TEXT))[: None if most is None else most + 1]
    total = 0.0
    with torch.no_grad():
        for first in range(0, len(ids) - 1, context):
            window = ids[first : first + context + 1]
            total += F.cross_entropy(loaded.decoder(window[None, :-1])[0], window[1:], reduction="sum").item()
    return total, len(ids) - 1


@pytest.mark.parametrize(("context", "most"), [(None, None), (17, None), (17, 40)])
def test_every_token_is_predicted_once_from_its_window(
    files: tuple[Path, Path], context: int | None, most: int | None
) -> None:
    (found,) = evaluate(*files, context=context, max_tokens=most, registry=REGISTRY)
    total, n_tokens = by_hand(files[0], context or 48, most)
    assert found.n_tokens == n_tokens
    assert found.loss == pytest.approx(total / n_tokens, rel=1e-4)
    assert found.perplexity == pytest.approx(math.exp(total / n_tokens), rel=1e-3)
    assert n_tokens - 2 <= found.n_bytes <= n_tokens  # a byte a token; a last character may be cut
    assert found.n_bytes == n_tokens or most is not None
    assert found.bits_per_byte == pytest.approx(total / math.log(2) / found.n_bytes, rel=1e-4)


def test_backends_are_told_side_by_side(files: tuple[Path, Path]) -> None:
    backends: list[Any] = ["eager", "native", "int8", {"name": "int4", "head_bits": 4}]
    found = {one.backend: one for one in evaluate(*files, backends=backends, registry=REGISTRY)}
    exact = found["eager"].loss
    assert found["native"].loss == pytest.approx(exact, rel=1e-4)
    assert 0 < abs(found["int8"].loss - exact) < abs(found["int4 head_bits=4"].loss - exact)


def run(*arguments: object) -> Any:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_command_tells_what_the_function_does(files: tuple[Path, Path]) -> None:
    model, text = files
    done = run("eval", model, "--data", text, "--backend", "eager", "--backend", "int8", "--json")
    told = json.loads(done.stdout)
    want = evaluate(model, text, backends=["eager", "int8"], registry=REGISTRY)
    assert [one["loss"] for one in told] == pytest.approx([one.loss for one in want])
    shown = run("eval", model, "--data", text, "--backend", "eager", "--backend", "int8").stdout
    assert f"perplexity {want[0].perplexity:.3f}" in shown
    assert "% perplexity" in shown.splitlines()[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "absent.txt"], "no such file"),
        (["--context", 99], "longer than the context of 48"),
        (["--backend", "intt8"], "did you mean 'int8'?"),
        (["--dtype", "int8"], "no decoder has dtype 'int8'"),
    ],
)
def test_a_users_mistake_is_told(files: tuple[Path, Path], arguments: list[object], message: str) -> None:
    model, text = files
    done = run("eval", model, *(["--data", text] if "--data" not in arguments else []), *arguments)
    assert done.exit_code == 2
    assert message in done.stderr


def test_a_text_of_nothing_is_told(files: tuple[Path, Path], tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("x")
    done = run("eval", files[0], "--data", empty)
    assert done.exit_code == 2
    assert "no token to predict" in done.stderr
