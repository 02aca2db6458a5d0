"""The shipped specs: each is sound, the tiny ones train and generate, and between them they use every component."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from lamina.core.component import Part, slot_kind
from lamina.core.dryrun import dry_run
from lamina.core.errors import GenerationError
from lamina.core.reader import read_file
from lamina.core.registry import Entry, load_plugins
from lamina.core.resolve import resolve
from lamina.core.resolved import LayersConfig, ResolvedSpec
from lamina.core.spec import read_spec, shipped_specs
from lamina.core.train import Trainer, create_run

REGISTRY = load_plugins(only=[])
NAMES = list(shipped_specs())
TINY = [name for name in NAMES if name.startswith("tiny-")]
SMALL = {
    "vocab_size": 300,
    "train.steps": 2,
    "train.batch_size": 2,
    "train.context": 24,
    "train.eval_every": 0,
    "train.eval_batches": 1,
    "train.save_every": 0,
}


def resolved(name: str, **overrides: Any) -> ResolvedSpec:
    return resolve(read_spec(name, overrides), REGISTRY)


def a_layer_of_each_kind(spec: ResolvedSpec) -> ResolvedSpec:
    """The same parts in fewer layers: those of a large spec's are all alike."""
    kinds = list(dict.fromkeys(spec.layers.names))
    return spec.with_parts(layers=LayersConfig(pattern=kinds, n_layers=len(kinds)))


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_spec_resolves_and_its_parts_fit(name: str) -> None:
    assert dry_run(a_layer_of_each_kind(resolved(name))).unchecked is None


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_spec_is_called_as_its_file_and_begins_by_saying_what_it_is(name: str) -> None:
    file = shipped_specs()[name]
    tree = read_file(file).value
    assert tree["name"].value == name
    comment = [line for line in file.read_text("utf-8").partition("lamina: 1")[0].splitlines() if line]
    assert 1 <= len(comment) <= 3
    assert all(line.startswith("# ") and len(line) <= 160 for line in comment)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("text") / "text.txt"
    words = "the cat sat on a mat and looked at Seven = 7 of its (other) toys: 'all mine', it said.\n"
    file.write_text("".join(words[i:] + words[:i] for i in range(30)))
    return file


@pytest.mark.parametrize("name", TINY)
def test_a_tiny_spec_trains_and_generates(
    name: str, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.fsync", lambda file: None)  # no power is lost here
    spec = resolved(name, **SMALL)
    trainer = Trainer(create_run(spec, text, tmp_path / "run"))
    assert trainer.train()
    assert math.isfinite(trainer.last_figures()["val_loss"])
    model, prompt = trainer.model, text.read_text()[:85]
    if trainer.decoder.lookahead >= spec.context_length:
        with pytest.raises(GenerationError, match="later tokens"):
            model.generate(prompt, max_new_tokens=3)
    else:
        assert model.generate(prompt, max_new_tokens=3).token_ids.shape == (1, 3)


def parts(config: BaseModel) -> Iterator[Part]:
    """Every part a config holds, and those inside them."""
    for field in type(config).model_fields:
        value = getattr(config, field)
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]:
            if isinstance(item, Part):
                yield item
                yield from parts(item.config)
            elif isinstance(item, BaseModel):
                yield from parts(item)


def kinds_in_specs() -> set[str]:
    """The kinds that have a place in a spec, in its own keys or in the options of what stands there."""
    found: set[str] = set()

    def look(config: type[BaseModel]) -> None:
        for info in config.model_fields.values():
            kind = slot_kind(info)
            if kind is not None and kind not in found:
                found.add(kind)
                for entry in REGISTRY.entries():
                    if entry.kind == kind:
                        look(entry.component.Config)
            for inner in (info.annotation, *getattr(info.annotation, "__args__", ())):
                if isinstance(inner, type) and issubclass(inner, BaseModel):
                    look(inner)

    look(ResolvedSpec)
    return found


def needs_a_file(entry: Entry) -> bool:
    """A component that cannot do without a file of the user's has no place in a spec that is shipped."""
    path = entry.component.Config.model_fields.get("path")
    return path is not None and path.is_required()


def test_every_component_stands_in_a_shipped_spec() -> None:
    used = {(part.kind, part.name) for name in NAMES for part in parts(resolved(name))}
    kinds = kinds_in_specs()
    assert kinds >= {"attention", "mask", "router", "rope_scaling", "optimizer", "tokenizer", "sampler"}
    missing = [
        f"{entry.kind} '{entry.name}'"
        for entry in REGISTRY.entries()
        if entry.kind in kinds and not needs_a_file(entry) and (entry.kind, entry.name) not in used
    ]
    assert not missing
