"""What parts tell the training log of themselves: every figure is a mean since the line before, across a stop too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lamina.core import Activation, ComponentConfig
from lamina.core.progress import _Lines
from lamina.core.resolve import resolve_data
from lamina.core.train import Progress, Trainer, create_run, means_of_figures, open_run, take_figures

ROUTERS: list[Any] = [
    {"name": "noisy_top_k"},
    {"name": "switch", "jitter": 0.2},
    {"name": "sinkhorn"},
    {"name": "hash"},
]


def spec(router: dict[str, Any], **train: Any) -> Any:
    expert = {"name": "gated", "hidden_dim": 8}
    ffn = {"name": "moe", "n_experts": 4, "router": router, "expert": expert, "capacity_factor": 0.5}
    return resolve_data(
        {
            "lamina": 1,
            "tokenizer": "byte",
            "dim": 8,
            "context_length": 8,
            "norm": "rms",
            "block": {"attention": None, "ffn": ffn},
            "layers": 2,
            "train": {
                "steps": 5,
                "batch_size": 2,
                "log_every": 3,
                "save_every": 2,
                "keep": 9,
                "val_fraction": 0,
                **train,
            },
        }
    )


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    file = tmp_path / "text.txt"
    file.write_text("the cat sat on the mat. " * 60)
    return file


def lines(run: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "tokens_per_second"} for line in found]


@pytest.mark.parametrize("router", ROUTERS, ids=lambda router: router["name"])
def test_a_run_that_was_stopped_between_lines_ends_with_the_same_bits_and_tells_the_same(
    router: dict[str, Any], corpus: Path, tmp_path: Path
) -> None:
    whole, again = tmp_path / "whole", tmp_path / "again"
    Trainer(create_run(spec(router), corpus, whole)).train()
    shutil.copytree(whole, again)
    for folder in (again / "checkpoints").iterdir():
        if folder.name > "step-00000002":
            shutil.rmtree(folder)
    trainer = Trainer(open_run(again))
    assert trainer.step == 2
    trainer.train()
    assert lines(again) == lines(whole)
    for file in ("model.safetensors", "state.safetensors", "state.json"):
        last = Path("checkpoints") / "step-00000005" / file
        assert (again / last).read_bytes() == (whole / last).read_bytes()


def test_each_line_tells_of_every_mixture_and_the_end_of_their_mean(corpus: Path, tmp_path: Path) -> None:
    trainer = Trainer(create_run(spec(ROUTERS[0]), corpus, tmp_path / "run"))
    heard: list[Progress] = []
    trainer.train(heard.append)
    told = [line["parts"] for line in lines(tmp_path / "run")]
    assert [set(parts) for parts in told] == [{"layers.0.ffn", "layers.1.ffn"}] * 2
    for parts in told:
        for figures in parts.values():
            assert sum(figures["load"]) == pytest.approx(1, abs=1e-4)
            assert figures["max_violation"] == pytest.approx(4 * max(figures["load"]) - 1, abs=1e-4)
            assert 0 <= figures["entropy"] <= 1
            assert 0 < figures["dropped"] < 1
    means = means_of_figures(told[-1])
    assert means["dropped"] == sum(figures["dropped"] for figures in told[-1].values()) / 2
    assert [progress.figures for progress in heard] == [{}, {}, means_of_figures(told[0]), {}, means]
    assert {key: value for key, value in trainer.last_figures().items() if key != "loss"} == means


def test_progress_shows_the_newest_figures(capsys: pytest.CaptureFixture[str]) -> None:
    report = _Lines()
    report(Progress(1, 2, 3.0, None, 10.0, {"max_violation": 0.25}))
    report(Progress(2, 2, None, None, 10.0))
    assert "loss 3.000 · max violation 0.250 · 10 tokens/s" in capsys.readouterr().err


class Counting(Activation):
    """Counts the positive numbers it is given."""

    def __init__(self, config: ComponentConfig | None = None) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        self.count(positive=(x > 0).sum(), squares=x.square().sum())
        return x


def test_any_part_may_count_and_is_heard_once() -> None:
    part = Counting()
    part(torch.tensor([1.0, -2.0]))
    part(torch.tensor([3.0], requires_grad=True))
    holder = torch.nn.ModuleDict({"a": part})
    assert take_figures(holder) == {"a": {"positive": 2, "squares": 14.0}}  # type: ignore[arg-type]
    assert take_figures(holder) == {}  # type: ignore[arg-type]


def test_a_figure_that_is_no_number_is_null_in_the_log(tmp_path: Path) -> None:
    trainer = SimpleNamespace(_go_on="")
    with open(tmp_path / "metrics.jsonl", "ab", buffering=0) as file:
        Trainer._log(trainer, file, {"step": 1, "parts": {"a": {"x": float("nan"), "y": [1.0, float("inf")]}}})  # type: ignore[arg-type]
    assert lines(tmp_path) == [{"step": 1, "parts": {"a": {"x": None, "y": [1.0, None]}}}]
