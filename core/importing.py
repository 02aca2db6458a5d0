"""`lamina import`: a Hugging Face directory or a .gguf file becomes a model directory, its weights moved one tensor at
a time.

    config -> family -> spec, tidied -> decoder on the meta device -> plan of tensors -> written

Everything that is wrong is found before anything is written.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml

from lamina.core.checkpoint import Checkpoint, Stored, Writer, copy_files, read_json, some
from lamina.core.component import Part
from lamina.core.config_keys import ConfigKeys
from lamina.core.errors import LaminaError, ModelError, PluginError, did_you_mean
from lamina.core.family import IGNORED_KEYS, Data, Family
from lamina.core.files import atomic_directory
from lamina.core.gguf.reading import GGUFReading
from lamina.core.gguf.tokenizer import write_tokenizer_files
from lamina.core.hub import fetch, is_id
from lamina.core.model import write_manifest
from lamina.core.plan import Plan, decoder_tensors, plan, result_dtypes
from lamina.core.registry import Registry, load_plugins
from lamina.core.resolve import resolve_data
from lamina.core.resolved import ResolvedSpec, SpecDumper
from lamina.core.tidy import tidy
from lamina.core.tokens import recognise

CONFIG, GENERATION = "config.json", "generation_config.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)
LARGEST_TOKENIZER = 200_000_000  # bytes; the largest published ones have a fifth of it
ROLES = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclass
class Imported:
    """What was done, for people and for programs."""

    source: str
    directory: str
    family: str
    parameters: int
    dtype: str
    tokenizer: str | None
    notes: list[str] = field(default_factory=list)


def import_model(
    source: str | Path,
    target: str | Path,
    *,
    family: str | None = None,
    ignore: Iterable[str] = (),
    registry: Registry | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Imported:
    """Read `source`, a Hugging Face directory or a .gguf file, and write the model directory `target`, which must not
    exist. Where there is neither, `source` may be a model's id on the Hub, `org/name` or `org/name@revision`.

    `family` names the component to read it with, where its `model_type` does not; `ignore` names config keys that do
    not matter. Raises ModelError with everything that is wrong; then nothing is written.
    """
    registry, target = (registry or load_plugins()).ours, Path(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ModelError(f"{target}: exists already", hint="choose another directory, or remove this one")
    with open_source(Path(source), registry, family) as origin:
        return _import(origin, target, set(ignore), registry, tell)


class Source(ABC):
    """What is imported: a config, a checkpoint and, in a folder, the files of a tokenizer."""

    name: str  # of the model
    place: Path  # what a person called it
    folder: Path  # holds tokenizer files and a generation config, if there are any
    says: str  # what the config is called in messages
    family: str
    reader: Family
    config: dict[str, Any]

    def problems(self, ignored: set[str]) -> list[str]:
        """What is wrong with it besides what the family finds."""
        return []

    @abstractmethod
    def checkpoint(self, spec: ResolvedSpec) -> Checkpoint:
        """The tensors, named and laid out as the family has them."""


class HFSource(Source):
    """A Hugging Face directory."""

    says = CONFIG

    def __init__(self, folder: Path, registry: Registry, family: str | None) -> None:
        self.place = self.folder = folder
        self.config = read_json(folder / CONFIG)
        self.family, self.reader = find_family(self.config, registry, family)
        path = self.config.get("_name_or_path")
        self.name = Path(path).name if isinstance(path, str) and path.strip("/. ") else folder.resolve().name
        self._checkpoint = Checkpoint.of(folder)

    def checkpoint(self, spec: ResolvedSpec) -> Checkpoint:
        return self._checkpoint


class GGUFSource(Source):
    """A .gguf file. `folder` gets the files that its metadata make."""

    says = "metadata"

    def __init__(self, file: Path, folder: Path, registry: Registry, family: str | None) -> None:
        self.place, self.folder, self.name = file, folder, file.stem
        self._reading = GGUFReading(file, registry, family)
        self.family, self.reader, self.config = self._reading.name, self._reading.family, self._reading.config
        write_tokenizer_files(self._reading.file.metadata, folder)

    def problems(self, ignored: set[str]) -> list[str]:
        return self._reading.problems(ignored)

    def checkpoint(self, spec: ResolvedSpec) -> Checkpoint:
        return self._reading.checkpoint(spec)


@contextmanager
def open_source(source: Path, registry: Registry, family: str | None) -> Iterator[Source]:
    """The source that lies at this path. ModelError says why there is none."""
    if source.is_dir():
        yield HFSource(source, registry, family)
    elif source.is_file():
        with TemporaryDirectory() as folder:
            yield GGUFSource(source, Path(folder), registry, family)
    elif is_id(str(source)):
        origin = HFSource(fetch(str(source)), registry, family)
        origin.place, origin.name = source, source.name.partition("@")[0]  # the folder is called after a commit
        yield origin
    else:
        raise ModelError(
            f"{str(source)!r}: no such file or directory, and no id of a model on the Hub, which is org/name",
            hint="give a directory with a config.json, a .gguf file, or an id such as org/name or org/name@revision",
        )


def _import(
    origin: Source, target: Path, ignore: set[str], registry: Registry, tell: Callable[[str], None]
) -> Imported:
    config, reader, chosen = origin.config, origin.reader, origin.family
    keys = ConfigKeys(config)
    data = reader.read(keys)
    ignored = {*IGNORED_KEYS, *reader.ignored_keys, *reader.training_keys, *ignore}
    problems = origin.problems(ignore) + [f"{origin.says}: {problem}" for problem in keys.problems]
    problems += [
        f"{origin.says}: {key}: no component honours {_short(config[key])} (--ignore {key} leaves it out)"
        for key in keys.left(ignored)
    ]
    spec, made, checkpoint = None, None, None
    try:
        spec = resolve_data(_complete(data, origin.name), registry)
    except LaminaError as error:
        problems += [f"{origin.says}: {problem.message}" for problem in error.problems]
    if spec is not None and not keys.problems:
        checkpoint = origin.checkpoint(spec)
        tensors = decoder_tensors(spec)
        made = plan(reader, spec, tensors, checkpoint.tensors)
        tied = _tied_copies(reader, spec, made, checkpoint)
        problems += [problem for problem in made.problems if problem not in tied]
    if problems or spec is None or made is None or checkpoint is None:
        raise ModelError(
            f"{origin.place}: cannot be imported as {chosen}" + "".join(f"\n  {line}" for line in some(problems, 40))
        )
    source = origin.folder
    tokenizer = _tokenizer(source, registry)
    data = tidy(_complete(data, origin.name), registry)
    notes = _notes(reader, config)
    if tokenizer is not None:
        data["tokenizer"] = {"name": tokenizer.name, "path": f"tokenizer/{tokenizer.dump()['path']}"}
    if stages := sampler_of(source):
        data["sampler"] = stages
    dtype = ""
    with atomic_directory(target) as folder:
        if tokenizer is not None:
            copy_files(_tokenizer_files(source), source, folder / "tokenizer")
        if not copy_files([GENERATION], source, folder) and any(config.get(role) is not None for role in ROLES):
            told = {role: config[role] for role in ROLES if config.get(role) is not None}
            (folder / GENERATION).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        (folder / "spec.yaml").write_text(spec_text(data), encoding="utf-8")
        final = resolve_data(data, registry, directory=folder)
        write_manifest(final, folder, family=chosen)
        dtype = _write(folder / "model.safetensors", made, checkpoint, tell)
    parameters = sum(tensor.numel() for tensor in tensors.values())
    return Imported(
        str(origin.place), str(target), chosen, parameters, dtype, tokenizer.name if tokenizer else None, notes
    )


def find_family(config: Mapping[str, Any], registry: Registry, name: str | None = None) -> tuple[str, Family]:
    """The family component for a config, by its model_type or by name."""
    entries = registry.entries("family")
    if name is not None:
        component: Any = registry.get("family", name).component
        return name, component()
    wanted = config.get("model_type")
    found = [entry for entry in entries if wanted in entry.component.model_types]  # type: ignore[attr-defined]
    if len(found) == 1:
        family: Any = found[0].component
        return found[0].name, family()
    known = sorted({kind for entry in entries for kind in entry.component.model_types})  # type: ignore[attr-defined]
    if found:
        offered = " and ".join(f"{entry.distribution}:{entry.name}" for entry in found)
        raise PluginError(f"{offered} both read model_type {wanted!r}", hint="say which with --family")
    raise ModelError(
        f"{CONFIG}: no family reads model_type {wanted!r}",
        hint=did_you_mean(str(wanted), known),
        note=f"known: {', '.join(known)}",
    )


def _complete(data: Data, name: str) -> Data:
    return {"lamina": 1, "name": re.sub(r"\s+", "-", name) or "imported", **data}


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:80] + "…"


def _notes(reader: Family, config: Mapping[str, Any]) -> list[str]:
    return [
        f"{key} {config[key]} acts in training alone and is not taken over"
        for key in reader.training_keys
        if config.get(key)
    ]


def _tied_copies(reader: Family, spec: ResolvedSpec, made: Plan, checkpoint: Checkpoint) -> set[str]:
    """Problems that are none: a head beside a tied embedding that holds the same numbers."""
    if not spec.head.tied:
        return set()
    heads = {name for item in reader.moves(spec) for name in _head_names(item)}
    embedding = next((step for step in made.steps if step.ours == ("embedding.tokens.weight",)), None)
    forgiven = set()
    for name in heads & checkpoint.tensors.keys():
        if embedding is None or len(embedding.theirs) != 1:
            continue
        source = made.names.get(embedding.theirs[0], embedding.theirs[0])
        alike = source in checkpoint.tensors and checkpoint.tensors[source].shape == checkpoint.tensors[name].shape
        if alike and torch.equal(checkpoint.read(source), checkpoint.read(name)):
            forgiven.add(f"not used: {name}")
    return forgiven


def _head_names(item: Any) -> list[str]:
    ways = item.ways if hasattr(item, "ways") else ((item,),)
    return [f"{name}.weight" for way in ways for move in way if move.ours == ("head",) for name in move.theirs]


def _write(file: Path, made: Plan, checkpoint: Checkpoint, tell: Callable[[str], None]) -> str:
    """The tensors of the plan, each read, laid out and written before the next."""
    shapes: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
    for step in made.steps:
        stored: list[Stored] = [checkpoint.tensors[made.names.get(name, name)] for name in step.theirs]
        dtype = result_dtypes(step, [one.dtype for one in stored])
        ours = step.layout.ours([torch.empty(shape, device="meta") for shape in step.shapes])
        shapes |= {name: (dtype, tuple(t.shape)) for name, t in zip(step.ours, ours, strict=True)}
    with Writer(file, shapes) as writer:
        for number, step in enumerate(made.steps, 1):
            dtype = shapes[step.ours[0]][0]
            theirs = [checkpoint.read(made.names.get(name, name)).to(dtype) for name in step.theirs]
            for name, tensor in zip(step.ours, step.layout.ours(theirs), strict=True):
                writer.write(name, tensor)
            if number % 100 == 0:
                tell(f"{number} of {len(made.steps)} steps")
    kinds = sorted({str(dtype).removeprefix("torch.") for dtype, _ in shapes.values()})
    return ", ".join(kinds)


def _tokenizer_files(source: Path) -> list[str]:
    models = [path.name for path in source.glob("*.model")]
    return [*TOKENIZER_FILES, *(name for name in models if name not in TOKENIZER_FILES)]


def _tokenizer(source: Path, registry: Registry) -> Part | None:
    """The component that opens the directory's tokenizer, opened once to see that it does."""
    names = frozenset(name for name in _tokenizer_files(source) if (source / name).is_file())
    for name in names:
        if (source / name).stat().st_size > LARGEST_TOKENIZER:
            raise ModelError(
                f"{source / name}: has {(source / name).stat().st_size:,} bytes; no tokenizer file is so large"
            )
    if not names & {"tokenizer.json", "vocab.json"} and not any(name.endswith(".model") for name in names):
        return None
    part, folder = recognise(source, registry)
    component: Any = part.component
    component.open(part.config, folder)
    return part


# generation_config.json's keys -> stages of a sampler, in the order in which transformers applies them, each with the
# option it sets and the value at which it does nothing.
STAGES = (
    ("repetition_penalty", "repetition_penalty", "value", 1.0),
    ("temperature", "temperature", "value", 1.0),
    ("top_k", "top_k", "k", 0),
    ("top_p", "top_p", "p", 1.0),
    ("min_p", "min_p", "p", None),
    ("typical_p", "typical", "p", 1.0),
)


def sampler_of(source: Path) -> list[Data]:
    """The stages that a generation config asks for; none when it has none or does not sample."""
    if not (source / GENERATION).is_file():
        return []
    told = read_json(source / GENERATION)
    if not told.get("do_sample"):
        return []
    stages: list[Data] = []
    for key, stage, option, idle in STAGES:
        value = told.get(key)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value != idle:
            stages.append({"name": stage, option: value})
    return stages


class _Inline(dict):  # type: ignore[type-arg]
    """A mapping that is written on one line."""


class _Writer(SpecDumper):
    pass


_Writer.add_representer(
    _Inline, lambda dumper, data: dumper.represent_mapping("tag:yaml.org,2002:map", data.items(), flow_style=True)
)


def spec_text(data: Data) -> str:
    """YAML as a person would lay it out: a part on one line, where it fits."""
    laid = {key: _lay(value, key not in ("block", "blocks")) for key, value in data.items()}
    if isinstance(blocks := data.get("blocks"), dict):
        laid["blocks"] = {name: _lay(block, False) for name, block in blocks.items()}
    return _dump(laid)


def _dump(data: Any, **how: Any) -> str:
    return str(yaml.dump(data, Dumper=_Writer, sort_keys=False, allow_unicode=True, width=120, **how))


def _lay(value: Any, inline: bool) -> Any:
    if isinstance(value, dict):
        if inline and len(_dump(value, default_flow_style=True)) <= 100:
            return _Inline(value)
        return {key: _lay(item, True) for key, item in value.items()}
    if isinstance(value, list):
        return (
            _List(value) if not any(isinstance(item, dict) for item in value) else [_lay(item, True) for item in value]
        )
    return value


class _List(list):  # type: ignore[type-arg]
    """A list that is written on one line."""


_Writer.add_representer(
    _List, lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", list(data), flow_style=True)
)
