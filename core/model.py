"""A decoder with its tokenizer and spec, and the directory that holds one on disk.

    spec.yaml  model.safetensors  tokenizer/  lamina.json

Large weights are several files and a model.safetensors.index.json. They are safetensors only: nothing read from a model
directory can run code.
"""

from __future__ import annotations

import json
import os.path
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lamina.core.build import build, build_part, working_device
from lamina.core.chat_template import keep_template
from lamina.core.checkpoint import INDEX, WEIGHTS, Checkpoint, Writer, read_json, some
from lamina.core.component import ComponentConfig, Part
from lamina.core.decoder import Decoder
from lamina.core.distribution import canonical
from lamina.core.errors import LaminaError, ModelError
from lamina.core.files import atomic_directory
from lamina.core.generate import Generation, generate, stream
from lamina.core.registry import Registry, load_plugins
from lamina.core.resolve import resolve, resolve_part
from lamina.core.resolved import ResolvedSpec, parts_of
from lamina.core.spec import Spec, read_spec, shipped_specs
from lamina.core.tokenizer import Tokenizer

FORMAT = 1
CHECKPOINTS = "checkpoints"


@dataclass(eq=False)
class Model:
    """A decoder that can be talked to."""

    decoder: Decoder
    tokenizer: Tokenizer | None
    spec: ResolvedSpec
    _beside: dict[Path, Model] = field(default_factory=dict, init=False, repr=False)

    @property
    def registry(self) -> Registry:
        return self.spec.registry

    def beside(self, directory: str | Path) -> Model:
        """Another model, in this one's dtype and on its device; kept, so that a second call reads no files."""
        folder = find_model(directory)
        if folder not in self._beside:
            dtype, device = self.decoder.dtype, self.decoder.device
            self._beside[folder] = load(folder, dtype=dtype, device=device, registry=self.registry)
        return self._beside[folder]

    def generate(self, prompt: str | list[str] | Tensor, **options: Any) -> Generation:
        """Continue a text, several texts or token ids (B, T). Options as of `lamina.core.generate.generate`."""
        return generate(self, prompt, **options)

    def stream(self, prompt: str | Tensor, **options: Any) -> Iterator[str]:
        """The text of `generate`, piece by piece."""
        return stream(self, prompt, **options)


def save(model: Model, directory: str | Path) -> Path:
    """Write a model directory; it appears whole or not at all. An existing directory is refused unless it is empty."""
    target = Path(directory)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ModelError(f"{target}: exists already", hint="choose another directory, or remove this one")
    with atomic_directory(target) as folder:
        write_model(model, folder)
    return target


def write_model(model: Model, folder: Path) -> None:
    """The files of a model directory, into `folder`, which exists."""
    spec = model.spec
    if model.tokenizer is not None and spec.tokenizer is not None:
        spec = spec.with_parts(tokenizer=replace(spec.tokenizer, config=save_tokenizer(model.tokenizer, folder)))
    keep_template(spec.directory, folder)
    (folder / "spec.yaml").write_text(spec.to_yaml(), encoding="utf-8")
    tensors = model.decoder.tensors()
    with Writer(folder / WEIGHTS, {name: (t.dtype, tuple(t.shape)) for name, t in tensors.items()}) as writer:
        for name, tensor in tensors.items():
            writer.write(name, tensor)
    write_manifest(spec, folder)


def write_manifest(spec: ResolvedSpec, folder: Path, **more: Any) -> None:
    """`folder`/lamina.json: versions and the distributions of a spec's components, and what else is to be known."""
    (folder / "lamina.json").write_text(json.dumps({**_manifest(spec), **more}, indent=2) + "\n", encoding="utf-8")


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> ComponentConfig:
    """Write `folder`/tokenizer; returns the Config that opens it relative to `folder`."""
    (folder / "tokenizer").mkdir()
    config = tokenizer.save(folder / "tokenizer")
    # A tokenizer names its files relative to where it wrote them; the spec stands one level above.
    moved = {name: f"tokenizer/{value}" for name, value in vars(config).items() if name == "path" and value is not None}
    return config.model_copy(update=moved)


def _manifest(spec: ResolvedSpec) -> dict[str, Any]:
    components = {}
    configs = (*spec.blocks.values(), spec, spec.embedding, spec.train)
    for part in (part for config in configs for part, _ in parts_of(config)):
        entry = spec.registry.entry_of(part)
        components[f"{part.kind}/{part.name}"] = {"distribution": entry.distribution, "version": entry.version}
    return {
        "format": FORMAT,
        "lamina": version("lamina"),
        "torch": torch.__version__,
        "components": dict(sorted(components.items())),
    }


def load(
    directory: str | Path,
    *,
    dtype: str | torch.dtype = "float32",
    device: str | torch.device = "cpu",
    backend: str | dict[str, Any] | Part = "eager",
    registry: Registry | None = None,
) -> Model:
    """Read a model directory, or the newest checkpoint of a run directory. Raises ModelError or SpecError."""
    device, folder = working_device(device), find_model(directory)
    spec = read_model_spec(folder, registry)
    chosen = resolve_part("backend", backend, spec.registry)
    decoder = build(spec, device=device, dtype=dtype, initialise=False)
    load_tensors(decoder, folder)
    decoder.eval()
    decoder = build_part(chosen).prepare(decoder, training=False)
    return Model(decoder, open_tokenizer(spec), spec)


def find_model(directory: str | Path) -> Path:
    """The model directory meant: the one given, or a run's newest checkpoint."""
    folder = Path(directory)
    if not os.path.exists(folder):  # which, unlike Path.exists, takes any text
        if str(directory) in shipped_specs():
            raise _is_spec(str(directory))
        raise ModelError(f"{str(folder)!r}: no such directory", hint="give a model directory or a run directory")
    if not folder.is_dir():
        if folder.suffix in (".yaml", ".yml"):
            raise _is_spec(str(folder))
        raise ModelError(f"{folder}: a file, not a model directory")
    if any((folder / name).exists() for name in (WEIGHTS, INDEX)):
        return folder
    found = checkpoints(folder)
    if found:
        return found[-1]
    if (folder / "train.json").exists():
        raise ModelError(f"{folder}: a run with no checkpoint yet", hint=f"lamina resume {folder}")
    raise ModelError(
        f"{folder}: not a model directory (it has no model.safetensors) "
        f"and not a run directory (it has no {CHECKPOINTS})"
    )


def _is_spec(name: str) -> ModelError:
    run = Path("runs") / Path(name).stem
    hint = f"train it first: lamina train {name} --data FILE --out {run}; then use {run}"
    return ModelError(f"'{name}' is a spec, and no model has its weights yet", hint=hint)


def checkpoints(run: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    return sorted(path for path in (run / CHECKPOINTS).glob("step-*") if path.is_dir())


def read_model_spec(folder: Path, registry: Registry | None = None) -> ResolvedSpec:
    """The spec of a model directory; a part that is not installed is told with the distribution that has it."""
    for name in ("spec.yaml", "lamina.json"):
        if not (folder / name).is_file():
            raise ModelError(f"{folder}: not a model directory (it has no {name})")
    manifest: Any = read_json(folder / "lamina.json")
    try:
        made_by = manifest["format"]
        needed = sorted(
            f"{made['distribution']} {made['version']} ({name})"
            for name, made in manifest["components"].items()
            if made["distribution"] != "lamina"
        )
        made_in = {made["distribution"]: made["version"] for made in manifest["components"].values()}
        origins = {
            (kind, name): made["distribution"]
            for (kind, _, name), made in ((key.partition("/"), made) for key, made in manifest["components"].items())
        }
    except (LookupError, TypeError, AttributeError, ValueError):
        raise ModelError(f"{folder / 'lamina.json'}: damaged", hint="it should be the JSON that lamina wrote") from None
    if made_by != FORMAT:
        raise ModelError(f"{folder}: written in format {made_by!r}; this lamina reads format {FORMAT}")
    spec = read_spec(folder / "spec.yaml")
    _stay_inside(spec)
    try:
        return resolve(spec, (registry or load_plugins()).preferring(origins))
    except LaminaError as error:
        if not needed:
            raise
        here = {canonical(plugin.distribution) for plugin in (registry or load_plugins()).plugins}
        missing = [f"{name}=={number}" for name, number in sorted(made_in.items()) if canonical(name) not in here]
        mend = f"\nto have what is missing: pip install {' '.join(missing)}" if missing else ""
        raise ModelError(f"{error}", note=f"the model was made with: {', '.join(needed)}{mend}") from None


def _stay_inside(spec: Spec) -> None:
    """A model directory's tokenizer files must be its own. Links may lead out: download caches are made of them."""
    named = spec.tree.at(("tokenizer", "path"))
    if named is not None and isinstance(named.value, str):
        path = Path(named.value)
        if path.is_absolute() or ".." in path.parts:
            raise ModelError(f"the tokenizer's path '{path}' leads out of the model directory", where=named.location)


def open_tokenizer(spec: ResolvedSpec) -> Tokenizer | None:
    """The tokenizer a spec names, None when it names none or one that is yet to be trained."""
    if spec.tokenizer is None:
        return None
    component: Any = spec.tokenizer.component
    if component.untrained(spec.tokenizer.config):
        return None
    tokenizer: Tokenizer = spec.opened_tokenizer or component.open(spec.tokenizer.config, spec.directory)
    return tokenizer


def load_tensors(decoder: Decoder, folder: Path) -> None:
    """Fill a decoder's tensors from a model directory, one at a time. All that does not fit is named at once."""
    wanted, checkpoint = decoder.tensors(), Checkpoint.of(folder)
    found = checkpoint.tensors
    wrong = [f"missing: {name}" for name in sorted(wanted.keys() - found.keys())]
    wrong += [f"not in the spec: {name}" for name in sorted(found.keys() - wanted.keys())]
    for name in sorted(wanted.keys() & found.keys()):
        stored, tensor = found[name], wanted[name]
        if stored.shape != tuple(tensor.shape):
            wrong.append(f"{name}: {stored.shape} in the file, {tuple(tensor.shape)} by the spec")
        if stored.dtype.is_floating_point != tensor.is_floating_point():
            wrong.append(f"{name}: {stored.dtype} in the file, {tensor.dtype} by the spec")
    if wrong:
        file = folder / (WEIGHTS if (folder / WEIGHTS).exists() else INDEX)
        raise ModelError(f"{file}: does not fit its spec.yaml\n  " + "\n  ".join(some(wrong, 12)))
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(checkpoint.read(name))
