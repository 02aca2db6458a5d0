"""Models by their ids on the Hub, with the download replaced: nothing here asks the network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import httpx2
import huggingface_hub
import pytest
import torch
from click.testing import CliRunner
from huggingface_hub import errors
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import save_file

from lamina.cli import main
from lamina.core.errors import LaminaError
from lamina.core.hub import UNWANTED, WANTED, fetch, is_id
from lamina.core.importing import open_source
from lamina.core.registry import load_plugins

FILES = [
    "README.md",
    "config.json",
    "model-00001-of-00002.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer.model",
    "merges.txt",
    "chat_template.jinja",
    "pytorch_model.bin",
    "consolidated.safetensors",
    "original/model.safetensors",
    "onnx/config.json",
]


def fake(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[dict[str, Any]]:
    """The library's download, which answers with a folder or raises; returns what it was asked."""
    asked: list[dict[str, Any]] = []

    def snapshot_download(repo_id: str, **options: Any) -> str:
        asked.append({"repo_id": repo_id, **options})
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


@pytest.mark.parametrize(
    ("source", "valid"),
    [
        ("org/name", True),
        ("org/name-1.5_x@refs/pr/3", True),
        ("name", False),
        ("a/b/c", False),
        ("/org/name", False),
        ("../name", False),
        ("org/name@", False),
        ("org/na me", False),
        ("org/name\n", False),
    ],
)
def test_an_id_is_an_owner_and_a_name_and_maybe_a_revision(source: str, valid: bool) -> None:
    assert is_id(source) is valid


def test_only_the_files_that_are_read_are_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = fake(monkeypatch, tmp_path)
    assert fetch("org/name@v2") == tmp_path
    patterns = {"allow_patterns": WANTED, "ignore_patterns": UNWANTED}
    assert asked == [{"repo_id": "org/name", "revision": "v2", **patterns}]
    assert list(filter_repo_objects(FILES, **patterns)) == FILES[1:8]


def response(code: int) -> Any:
    return httpx2.Response(code, request=httpx2.Request("GET", "https://huggingface.co"))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (errors.LocalEntryNotFoundError("x\ny"), "the Hub cannot be reached, and no copy is kept here"),
        (errors.RepositoryNotFoundError("x", response=response(404)), "the Hub has no such model, or not for you"),
        (errors.GatedRepoError("x", response=response(403)), "its owner lets in only those who asked"),
        (errors.RevisionNotFoundError("x", response=response(404)), "the model has no revision 'v2'"),
        (httpx2.ProxyError("no way\nthrough"), "the download failed (no way)"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_what_stands_in_the_way_is_one_message(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, said: str
) -> None:
    fake(monkeypatch, error)
    run = CliRunner().invoke(main, ["import", "org/name@v2", str(tmp_path / "ours")])
    assert run.exit_code == 2
    assert "'org/name@v2' is no directory here" in run.output
    assert said in run.output
    assert not list(tmp_path.iterdir())


def test_without_the_extra_it_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(LaminaError, match="'org/name' is no directory here; fetching it from the Hub needs") as caught:
        fetch("org/name")
    assert "pip install 'lamina[hub]'" in str(caught.value)


def test_a_bare_name_is_told_what_was_tried(tmp_path: Path) -> None:
    run = CliRunner().invoke(main, ["import", "smollm", str(tmp_path / "ours")])
    assert run.exit_code == 2
    assert "'smollm': no such file or directory, and no id of a model on the Hub, which is org/name" in run.output


def test_a_model_from_the_hub_is_called_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "0a1b2c").mkdir()
    (tmp_path / "0a1b2c/config.json").write_text('{"model_type": "llama"}')
    save_file({"model.norm.weight": torch.ones(4)}, tmp_path / "0a1b2c/model.safetensors")
    fake(monkeypatch, tmp_path / "0a1b2c")
    with open_source(Path("org/name-7@v2"), load_plugins(only=[]), None) as found:
        assert (found.name, str(found.place), found.folder) == ("name-7", "org/name-7@v2", tmp_path / "0a1b2c")


def test_a_directory_goes_before_an_id(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = fake(monkeypatch, tmp_path)
    (tmp_path / "org/name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke(main, ["import", "org/name", "ours"])
    assert run.exit_code == 2
    assert "config.json" in run.output
    assert asked == []
