"""Training: the loop against hand-made steps, and runs that stop and go on."""

from __future__ import annotations

import json
import multiprocessing
import resource
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from lamina.core.build import build
from lamina.core.data import IGNORED, Batch
from lamina.core.errors import DataError, LaminaError, Location, ModelError, RunFailure
from lamina.core.options import TrainConfig
from lamina.core.reader import from_data
from lamina.core.registry import load_plugins
from lamina.core.resolve import resolve_config, resolve_data
from lamina.core.resolved import ResolvedSpec
from lamina.core.train import Progress, RunOptions, Trainer, create_run, open_run, train_step

SPEC: dict[str, Any] = {
    "lamina": 1,
    "name": "small",
    "tokenizer": "byte",
    "dim": 16,
    "context_length": 16,
    "position": "rope",
    "norm": "rms",
    "embedding": {"dropout": 0.1},
    "block": {
        "attention": {"name": "gqa", "n_heads": 2},
        "ffn": {"name": "moe", "n_experts": 4, "router": "sigmoid_bias", "expert": {"name": "gated", "hidden_dim": 8}},
        "residual": {"name": "plain", "dropout": 0.1},
    },
    "layers": 2,
    "train": {"steps": 6, "batch_size": 4, "log_every": 2, "eval_every": 3, "save_every": 2, "keep": 10},
}


def spec(**train: Any) -> ResolvedSpec:
    return resolve_data({**SPEC, "train": {**SPEC["train"], **train}})


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for i in range(24):
        (folder / f"{i:02}.txt").write_text(f"document {i}: " + "the cat sat on the mat. " * (1 + i % 3))
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run at its end, for tests that copy it."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "text.txt").write_text("the cat sat on the mat. " * 40)
    Trainer(create_run(spec(), folder / "text.txt", folder / "run")).train()
    return folder / "run"


def config(**options: Any) -> TrainConfig:
    tree = from_data({"context": 16, **options}, Location("test"))
    made: TrainConfig = resolve_config(TrainConfig, tree, load_plugins())
    return made


def files(run: Path, step: int) -> dict[str, bytes]:
    folder = run / "checkpoints" / f"step-{step:08d}"
    return {name: (folder / name).read_bytes() for name in ("model.safetensors", "state.safetensors", "state.json")}


def test_a_run_that_went_on_from_any_checkpoint_ends_with_the_same_bits(corpus: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    Trainer(create_run(spec(), corpus, whole)).train()
    for stopped_at in (0, 2, 4):
        again = tmp_path / f"again-{stopped_at}"
        shutil.copytree(whole, again)
        for folder in (again / "checkpoints").iterdir():
            if int(folder.name.removeprefix("step-")) > stopped_at:
                shutil.rmtree(folder)
        trainer = Trainer(open_run(again))
        assert trainer.step == stopped_at
        assert trainer.train()
        assert files(again, 6) == files(whole, 6)


@pytest.mark.parametrize("optimizer", load_plugins(only=[]).names("optimizer"))
def test_so_does_one_of_any_optimizer_in_bfloat16_and_in_parts(optimizer: str, corpus: Path, tmp_path: Path) -> None:
    whole, again = tmp_path / "whole", tmp_path / "again"
    options = {"steps": 5, "optimizer": optimizer, "dtype": "bfloat16", "accumulate": 3, "eval_every": 0, "seed": 7}
    Trainer(create_run(spec(**options), corpus, whole)).train()
    shutil.copytree(whole, again)
    shutil.rmtree(again / "checkpoints" / "step-00000005")
    trainer = Trainer(open_run(again))
    assert trainer.step == 4
    trainer.train()
    assert files(again, 5) == files(whole, 5)
    shutil.rmtree(again / "checkpoints" / "step-00000005")
    shutil.rmtree(again / "checkpoints" / "step-00000004")
    Trainer(open_run(again)).train()
    assert files(again, 5) == files(whole, 5)


def test_a_killed_run_resumes_to_the_same_bits(corpus: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    Trainer(create_run(spec(steps=24, save_every=0), corpus, whole)).train()
    create_run(spec(steps=24, save_every=1), corpus, killed)
    process = multiprocessing.get_context("fork").Process(target=lambda: Trainer(open_run(killed)).train())
    process.start()
    until = time.monotonic() + 60
    while not list((killed / "checkpoints").glob("step-*")) and time.monotonic() < until:
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    trainer = Trainer(open_run(killed))
    assert 0 < trainer.step < 24
    trainer.config = trainer.config.model_copy(update={"save_every": 0})  # only the end is compared
    trainer.train()
    assert files(killed, 24) == files(whole, 24)
    assert not list((killed / "checkpoints").glob(".lamina-*"))


def test_metrics_of_steps_taken_again_are_not_doubled(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    Trainer(create_run(spec(), corpus, run)).train()
    before = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    shutil.rmtree(run / "checkpoints" / "step-00000006")
    shutil.rmtree(run / "checkpoints" / "step-00000004")
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "lo')  # as a machine that stopped while writing leaves it
    Trainer(open_run(run)).train()
    after = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    timeless = [{k: v for k, v in line.items() if k != "tokens_per_second"} for line in before]
    assert [{k: v for k, v in line.items() if k != "tokens_per_second"} for line in after] == timeless
    assert [line["step"] for line in after if "val_loss" in line] == [3, 6]


def test_a_stop_saves_and_says_so(corpus: Path, tmp_path: Path) -> None:
    trainer = Trainer(create_run(spec(save_every=0), corpus, tmp_path / "run"))
    assert not trainer.train(stop=lambda: trainer.step == 3)
    assert Trainer(open_run(tmp_path / "run")).step == 3


def test_only_the_newest_checkpoints_are_kept(corpus: Path, tmp_path: Path) -> None:
    Trainer(create_run(spec(save_every=1, keep=2), corpus, tmp_path / "run")).train()
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["step-00000005", "step-00000006"]


def test_training_learns(corpus: Path, tmp_path: Path) -> None:
    trainer = Trainer(
        create_run(spec(steps=60, learning_rate=2e-2, eval_every=0, save_every=0), corpus, tmp_path / "r")
    )
    before = trainer.evaluate()
    trainer.train()
    assert trainer.evaluate() < 0.5 * before


def test_evaluation_is_the_mean_over_every_validation_target(corpus: Path, tmp_path: Path) -> None:
    trainer = Trainer(create_run(spec(eval_batches=None), corpus, tmp_path / "run"))
    assert trainer.val_batches is not None
    total, count = 0.0, 0
    trainer.decoder.eval()
    for batch in trainer.val_batches.evaluation(None):
        for row in range(len(batch.token_ids)):
            documents = None if batch.document_ids is None else batch.document_ids[row : row + 1]
            log_p = trainer.decoder(batch.token_ids[row : row + 1], document_ids=documents)[0].log_softmax(-1)
            for place, target in enumerate(batch.targets[row].tolist()):
                if target != IGNORED:
                    total, count = total - log_p[place, target].item(), count + 1
    assert trainer.evaluate() == pytest.approx(total / count, rel=1e-5)
    assert trainer.evaluate() == trainer.evaluate()


def packed_batch() -> Batch:
    ids = torch.randint(0, 256, (4, 16), generator=torch.Generator().manual_seed(0))
    targets = ids.roll(-1, 1)
    targets[0, 3:11] = IGNORED  # rows with unlike numbers of targets
    targets[2, 5] = IGNORED
    documents = torch.zeros_like(ids)
    documents[:, 6:] = 1
    return Batch(ids, targets, documents)


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_a_step_does_not_depend_on_how_the_batch_is_split(parts: int) -> None:
    dense = resolve_data({**SPEC, "embedding": {}, "block": {"attention": {"name": "gqa", "n_heads": 2}, "ffn": "mlp"}})
    results = []
    for accumulate in (1, parts):
        decoder = build(dense, seed=1)
        optimizer = torch.optim.SGD(decoder.parameters(), lr=1.0)
        loss, norm = train_step(decoder, optimizer, packed_batch(), config(accumulate=accumulate, clip=1e9))
        results.append((loss, torch.as_tensor(norm), *decoder.parameters()))
    for one, many in zip(*results, strict=True):
        torch.testing.assert_close(one, many, rtol=1e-4, atol=1e-6)


def test_a_step_is_the_gradient_of_the_mean_loss() -> None:
    dense = resolve_data({**SPEC, "embedding": {}, "block": {"attention": {"name": "gqa", "n_heads": 2}, "ffn": "mlp"}})
    batch = packed_batch()
    decoder, twin = build(dense, seed=1), build(dense, seed=1)
    train_step(decoder, torch.optim.SGD(decoder.parameters(), lr=0.1), batch, config(clip=None))
    logits = twin(batch.token_ids, document_ids=batch.document_ids)
    F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED).backward()
    for moved, still in zip(decoder.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(moved, still - 0.1 * still.grad)


def test_clipping_bounds_the_step() -> None:
    dense = resolve_data({**SPEC, "embedding": {}, "block": {"attention": {"name": "gqa", "n_heads": 2}, "ffn": "mlp"}})
    decoder, start = build(dense, seed=1), build(dense, seed=1)
    train_step(decoder, torch.optim.SGD(decoder.parameters(), lr=1.0), packed_batch(), config(clip=0.01))
    moved = torch.stack([(a - b).norm() for a, b in zip(decoder.parameters(), start.parameters(), strict=True)]).norm()
    assert moved.item() == pytest.approx(0.01, rel=1e-3)


def test_the_routers_bias_moves_once_a_step() -> None:
    decoder = build(spec(), seed=1)
    optimizer = torch.optim.SGD(decoder.parameters(), lr=0.0)
    train_step(decoder, optimizer, packed_batch(), config(accumulate=2))
    biases = [tensor for name, tensor in decoder.tensors().items() if name.endswith("router.bias")]
    assert len(biases) == 2
    rate = biases[0].abs().max().item()
    assert rate > 0
    assert all(set(bias.abs().unique().tolist()) <= {0.0, rate} for bias in biases)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer": None, "vocab_size": 257}, "names no tokenizer"),
        ({"tokenizer": "character", "vocab_size": 5}, "5"),
        ({"context_length": 100_000}, "one window takes 100,001"),
    ],
)
def test_what_cannot_be_trained_is_told_and_leaves_nothing(
    change: dict[str, Any], message: str, corpus: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        create_run(resolve_data({**SPEC, **change}), corpus, tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["texts"]


def test_an_unknown_corpus_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no corpus has this name"):
        create_run(spec(), "nowhere", tmp_path / "run")


def test_an_existing_run_is_not_overwritten(corpus: Path, tmp_path: Path) -> None:
    create_run(spec(), corpus, tmp_path / "run")
    before = sorted((tmp_path / "run").rglob("*"))
    with pytest.raises(ModelError, match="already exists"):
        create_run(spec(), corpus, tmp_path / "run")
    assert sorted((tmp_path / "run").rglob("*")) == before


def test_a_loss_that_is_no_number_ends_the_run(corpus: Path, tmp_path: Path) -> None:
    trainer = Trainer(create_run(spec(), corpus, tmp_path / "run"))
    with torch.no_grad():
        trainer.decoder.head.weight.fill_(float("inf"))
    with pytest.raises(RunFailure, match="the loss is nan"):
        trainer.train()


def test_a_disk_that_fills_up_ends_the_run_and_leaves_what_can_go_on(corpus: Path, tmp_path: Path) -> None:
    trainer = Trainer(create_run(spec(), corpus, tmp_path / "run"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(progress: Progress) -> None:
        if progress.step == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))  # room for metrics and no more

    try:
        with pytest.raises(RunFailure, match="step-00000004' was not written") as caught:
            trainer.train(fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert f"then lamina resume {tmp_path / 'run'}" in str(caught.value)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000002"]
    assert Trainer(open_run(tmp_path / "run")).train()


def test_metrics_that_cannot_be_written_end_the_run_in_one_message(corpus: Path, tmp_path: Path) -> None:
    trainer = Trainer(create_run(spec(log_every=1), corpus, tmp_path / "run"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))  # the first line ends in its middle
    try:
        with pytest.raises(RunFailure, match=r"metrics.jsonl' was not written: File too large"):
            trainer.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_device_without_values_trains_nothing(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(LaminaError, match="device 'meta' cannot be used"):
        create_run(spec(), corpus, tmp_path / "run", options=RunOptions(device="meta"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("damage", ["state.json", "state.safetensors"])
def test_a_damaged_training_state_is_told(damage: str, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    file = tmp_path / "run" / "checkpoints" / "step-00000006" / damage
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ModelError, match="training state cannot be read"):
        Trainer(open_run(tmp_path / "run"))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("groups", 0, "betas"), "x"),
        (("groups", 0, "betas"), [0.9]),
        (("groups", 0, "eps"), None),
        (("groups", 0, "amsgrad"), 3.5),
        (("groups",), []),
        (("step",), 5),
        (("step",), 10**30),
        (("logged",), {"a": 1}),
    ],
)
def test_a_training_state_that_lies_is_told(path: tuple[Any, ...], value: Any, finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    file = run / "checkpoints" / "step-00000006" / "state.json"
    record = json.loads(file.read_text())
    place = record
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    file.write_text(json.dumps(record))
    with pytest.raises(ModelError, match="training state cannot be read"):
        Trainer(open_run(run))


@pytest.mark.parametrize(
    "options", [{"threads": {}}, {"threads": -1}, {"device": []}, {"backend": 5}, {"speed": 1}, None, [1]]
)
def test_options_of_a_run_that_lie_are_told(options: Any, finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    record = json.loads((run / "train.json").read_text())
    (run / "train.json").write_text(json.dumps({**record, "options": options}))
    with pytest.raises(ModelError, match=r"train\.json: damaged"):
        open_run(run)


def test_what_a_killed_writer_left_goes_when_the_run_goes_on(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    shutil.rmtree(run / "checkpoints")
    for left in (run, run / "checkpoints"):
        (left / ".lamina-0123456789abcdef.partial").mkdir(parents=True)
    Trainer(open_run(run))
    assert not list(run.rglob(".lamina-*"))
