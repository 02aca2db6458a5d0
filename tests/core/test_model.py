"""Model directories: what is saved is loaded to the bit, and what is damaged or lying is refused by name."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from safetensors.torch import load_file, save_file
from tiny_specs import REGISTRY, build_moved, tiny_specs, tokens

import lamina
from lamina.core.errors import LaminaError, ModelError
from lamina.core.model import Model, find_model, load, open_tokenizer, read_model_spec, save
from lamina.core.resolve import resolve_data
from lamina.core.resolved import ResolvedSpec
from lamina.core.tokenizer import Tokenizer

some = settings(max_examples=30, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
SPEC: dict[str, Any] = {
    "lamina": 1,
    "name": "tiny",
    "tokenizer": "byte",
    "dim": 16,
    "context_length": 24,
    "position": "rope",
    "norm": "rms",
    "block": {"attention": {"name": "gqa", "n_heads": 2}, "ffn": "gated"},
    "layers": 2,
}


def model(**changes: Any) -> Model:
    spec = resolve_data({**SPEC, **changes}, REGISTRY)
    return Model(build_moved(spec), open_tokenizer(spec), spec)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(model(), tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    shutil.copytree(saved, tmp_path / "model")
    return tmp_path / "model"


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load(folder, registry=REGISTRY)
    return str(caught.value)


@some
@given(spec=tiny_specs())
@torch.no_grad()
def test_a_loaded_model_has_the_bits_of_the_saved_one(spec: ResolvedSpec, tmp_path_factory: Any) -> None:
    target = tmp_path_factory.mktemp("any") / "model"
    decoder, ids = build_moved(spec), tokens(2, 8)
    save(Model(decoder, None, spec), target)
    again = load(target, registry=REGISTRY)
    assert again.spec == spec
    assert not again.decoder.training
    assert again.decoder(ids).equal(decoder(ids))
    assert (again.decoder.head.weight is again.decoder.embedding.tokens.weight) == spec.head.tied
    save(again, target.parent / "again")
    for name in ("spec.yaml", "model.safetensors", "lamina.json"):
        assert (target / name).read_bytes() == (target.parent / "again" / name).read_bytes()


def test_a_model_directory_holds_what_it_should_and_each_tensor_once(saved: Path) -> None:
    assert {path.name for path in saved.iterdir()} == {"spec.yaml", "model.safetensors", "tokenizer", "lamina.json"}
    tensors = load_file(saved / "model.safetensors")
    assert set(tensors) == set(model().decoder.tensors())
    assert "head.weight" not in tensors
    manifest = json.loads((saved / "lamina.json").read_text())
    assert manifest["format"] == 1
    assert manifest["components"]["attention/gqa"]["distribution"] == "lamina"
    assert {"norm/rms", "mask/causal", "tokenizer/byte"} <= set(manifest["components"])
    assert {"optimizer/adamw", "schedule/cosine"} <= set(manifest["components"])


def test_the_public_functions_save_and_load(tmp_path: Path) -> None:
    made = model()
    assert lamina.save(made, str(tmp_path / "deep" / "m")) == tmp_path / "deep" / "m"
    again = lamina.load(str(tmp_path / "deep" / "m"))
    assert again.tokenizer is not None
    assert again.tokenizer.encode("hé") == [104, 195, 169]
    one, other = (m.generate("ab", max_new_tokens=5, sampler="greedy", stop_ids=()) for m in (made, again))
    assert one.token_ids.equal(other.token_ids)


def test_a_trained_tokenizer_travels_with_its_model(tmp_path: Path) -> None:
    component: Any = REGISTRY.get("tokenizer", "bpe").component
    tokenizer: Tokenizer = component.train(component.Config(), ["to be or not to be"] * 3, 270)
    spec = resolve_data({**SPEC, "tokenizer": "bpe", "vocab_size": tokenizer.vocab_size}, REGISTRY)
    save(Model(build_moved(spec), tokenizer, spec), tmp_path / "m")
    shutil.move(tmp_path / "m", tmp_path / "moved")
    again = load(tmp_path / "moved", registry=REGISTRY)
    assert again.tokenizer is not None
    assert again.tokenizer.encode("not to be") == tokenizer.encode("not to be")
    assert again.spec.directory == tmp_path / "moved"
    save(again, tmp_path / "second")
    assert load(tmp_path / "second", registry=REGISTRY).tokenizer is not None


def test_weights_are_read_in_the_dtype_that_is_asked_for(saved: Path) -> None:
    half = load(saved, dtype="bfloat16", registry=REGISTRY).decoder
    full = load(saved, registry=REGISTRY).decoder
    assert half.dtype == torch.bfloat16
    assert half.head.weight.equal(full.head.weight.to(torch.bfloat16))


def test_saving_over_something_is_refused_and_leaves_it_alone(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    for name in ("full", "file"):
        with pytest.raises(ModelError, match="exists already"):
            save(model(), tmp_path / name)
    assert (tmp_path / "full" / "precious").read_text() == "mine"
    assert load(save(model(), tmp_path / "empty"), registry=REGISTRY)
    assert {path.name for path in tmp_path.iterdir()} == {"full", "file", "empty"}


def test_a_save_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr("lamina.core.model.Writer.write", fail)
    with pytest.raises(RuntimeError, match="no"):
        save(model(), tmp_path / "m")
    assert not list(tmp_path.iterdir())


# Shards


@torch.no_grad()
def test_large_weights_are_several_files_that_load_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lamina.core.checkpoint.SHARD_BYTES", 6000)
    whole = model()
    target = save(whole, tmp_path / "m")
    index = json.loads((target / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in target.glob("*.safetensors"))
    assert len(files) > 2
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    assert sorted(set(index["weight_map"].values())) == files
    held = {name: load_file(target / name) for name in files}
    assert all(name in held[file] for name, file in index["weight_map"].items())
    sizes = {file: sum(t.nbytes for t in tensors.values()) for file, tensors in held.items()}
    assert index["metadata"]["total_size"] == sum(sizes.values())
    assert all(size <= 6000 or len(held[file]) == 1 for file, size in sizes.items())
    again = load(target, registry=REGISTRY).decoder.tensors()
    assert all(again[name].equal(tensor) for name, tensor in whole.decoder.tensors().items())
    (target / files[1]).unlink()
    assert f"'{files[1]}' does not exist" in refusal(target)


# What is no model directory


def test_a_place_that_holds_no_model_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    for name, says in (
        ("absent", "no such directory"),
        ("file", "a file, not a model directory"),
        ("empty", "not a model directory"),
        ("a\0b", "no such directory"),
        ("x" * 400, "no such directory"),
    ):
        assert says in refusal(tmp_path / name)


@pytest.mark.parametrize("name", ["spec.yaml", "lamina.json", "model.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert name in refusal(folder)
    (folder / name).mkdir()
    assert name in refusal(folder)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"format": 1}',
        '{"format": 1, "components": 5}',
        '{"format": 1, "components": {"norm/rms": 5}}',
        '{"format": 1, "components": {"norm/rms": {}}}',
        '{"format": 1, "components": [["a", "b"]]}',
        "[" * 100_000,
        "\x00\x01",
    ],
)
def test_a_damaged_manifest_is_named(folder: Path, content: str) -> None:
    (folder / "lamina.json").write_text(content)
    assert re.search(r"lamina\.json: (damaged|not JSON|not a JSON object)", refusal(folder))


def test_a_manifest_that_is_no_text_is_damaged(folder: Path) -> None:
    (folder / "lamina.json").write_bytes(b"\xff\xfe{}")
    assert re.search(r"lamina\.json: (damaged|not JSON|not a JSON object)", refusal(folder))


def test_a_format_of_the_future_is_told(folder: Path) -> None:
    manifest = json.loads((folder / "lamina.json").read_text())
    (folder / "lamina.json").write_text(json.dumps({**manifest, "format": 99}))
    assert "written in format 99; this lamina reads format 1" in refusal(folder)


def test_a_part_that_is_not_installed_is_told_with_who_has_it(folder: Path) -> None:
    manifest = json.loads((folder / "lamina.json").read_text())
    manifest["components"]["norm/odd"] = {"distribution": "odd-parts", "version": "3.1"}
    (folder / "lamina.json").write_text(json.dumps(manifest))
    text = (folder / "spec.yaml").read_text()
    (folder / "spec.yaml").write_text(text.replace("name: rms", "name: odd", 1))
    said = refusal(folder)
    assert "no norm is called 'odd'" in said
    assert "the model was made with: odd-parts 3.1 (norm/odd)" in said
    assert "pip install odd-parts==3.1" in said


# Weights


@pytest.mark.parametrize("kept", [0, 4, 100, -1, -1000])
def test_weights_that_were_cut_are_refused(folder: Path, kept: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    said = refusal(folder)
    assert "model.safetensors: " in said
    assert "cut short" in said


@pytest.mark.parametrize("content", [b"\xff" * 8 + b"{}", b"\x02" + b"\0" * 7 + b"{]", b"PK\x03\x04" + b"\0" * 99])
def test_weights_that_are_no_safetensors_are_refused(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    assert "no safetensors file" in refusal(folder)


def test_every_tensor_that_does_not_fit_is_named(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["extra"] = torch.zeros(1)
    del tensors["norm.weight"]
    tensors["layers.0.attention.out.weight"] = torch.zeros(16, 15)
    tensors["layers.1.attention.out.weight"] = torch.zeros(256)
    tensors["embedding.tokens.weight"] = torch.zeros(257, 16, dtype=torch.int64)
    save_file(tensors, file)
    said = refusal(folder)
    assert "model.safetensors: does not fit its spec.yaml" in said
    for line in (
        "missing: norm.weight",
        "not in the spec: extra",
        "layers.0.attention.out.weight: (16, 15) in the file, (16, 16) by the spec",
        "layers.1.attention.out.weight: (256,) in the file, (16, 16) by the spec",
        "embedding.tokens.weight: torch.int64 in the file, torch.float32 by the spec",
    ):
        assert line in said


def test_of_many_tensors_that_do_not_fit_the_first_are_named(folder: Path) -> None:
    save_file({f"x{i}": torch.zeros(1) for i in range(50)}, folder / "model.safetensors")
    assert "more" in refusal(folder)


# Paths


@pytest.mark.parametrize("path", ["../outside.json", "/etc/hostname", "tokenizer/../../outside.json", "..", "a\0b"])
@pytest.mark.parametrize("vocab_size", ["vocab_size: 300\n", ""])
def test_a_tokenizer_outside_the_directory_is_refused_unread(folder: Path, path: str, vocab_size: str) -> None:
    (folder.parent / "outside.json").write_text("{}")
    text = (folder / "spec.yaml").read_text().replace("vocab_size: 257\n", vocab_size)
    named = json.dumps(path)
    (folder / "spec.yaml").write_text(text.replace("tokenizer: byte", f"tokenizer: {{name: bpe, path: {named}}}"))
    with pytest.raises(LaminaError) as caught:
        load(folder, registry=REGISTRY)
    assert ("leads out of the model directory" in str(caught.value)) != ("\0" in path)


def test_files_that_are_links_are_followed(folder: Path, tmp_path: Path) -> None:
    """Download caches keep the files elsewhere and link to them."""
    for name in ("model.safetensors", "spec.yaml"):
        (folder / name).rename(tmp_path / f"blob-{name}")
        (folder / name).symlink_to(tmp_path / f"blob-{name}")
    assert load(folder, registry=REGISTRY).spec.name == "tiny"


# Runs


def test_of_a_run_the_newest_whole_checkpoint_is_meant(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "train.json").write_text("{}")
    assert "a run with no checkpoint yet" in refusal(run)
    for step in ("step-00000002", "step-00000010"):
        shutil.copytree(folder, run / "checkpoints" / step)
    (run / "checkpoints" / ".lamina-0.partial").mkdir()
    assert find_model(run).name == "step-00000010"
    assert read_model_spec(find_model(run), REGISTRY).name == "tiny"


def test_an_unknown_backend_is_a_users_mistake(saved: Path) -> None:
    with pytest.raises(LaminaError, match="no backend is called 'fast'"):
        load(saved, backend="fast", registry=REGISTRY)
