"""`lamina export`: a model directory as others read it.

A format is a way of writing; `hf` writes what transformers loads, `gguf` what llama.cpp does. A family says the spec in
a config's words; that it says all of it is found by reading the config again and comparing the two specs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lamina.core.chat_template import stored_template
from lamina.core.checkpoint import DTYPES, Checkpoint, Writer, copy_files, read_json, some
from lamina.core.config_keys import ConfigKeys
from lamina.core.errors import LaminaError, ModelError
from lamina.core.family import Family
from lamina.core.files import atomic_directory
from lamina.core.gguf.file import load_gguf
from lamina.core.gguf.reading import HEAD, name_map
from lamina.core.gguf.tokenizer import NO_TOKENIZER, tokenizer_entries
from lamina.core.gguf.writing import TYPES, DecoderTensors, write_gguf
from lamina.core.importing import GENERATION, ROLES, TOKENIZER_FILES
from lamina.core.model import find_model, open_tokenizer, read_model_spec
from lamina.core.plan import Plan, decoder_tensors, plan, result_dtypes
from lamina.core.registry import Registry, load_plugins
from lamina.core.resolve import resolve_data
from lamina.core.resolved import ResolvedSpec
from lamina.core.tidy import meaning

SINGLE = 1e-6  # how near numbers are that single precision has rounded
# Options that change nothing but training, or the rounding of a half-precision product: a family need not say them.
IDLE = ("dropout", "balance_loss", "z_loss", "jitter", "bias_update_rate", "capacity_factor", "round_first")


@dataclass
class Exported:
    """What was done, for people and for programs."""

    source: str
    directory: str
    format: str
    family: str
    parameters: int
    dtype: str
    notes: list[str] = field(default_factory=list)


def export_model(
    source: str | Path,
    target: str | Path,
    *,
    format: str = "hf",
    family: str | None = None,
    dtype: str | None = None,
    registry: Registry | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Exported:
    """Write the model (or run) directory `source` into `target`, which must not exist. Raises ModelError.

    `dtype` is what matrices are kept in: float32, bfloat16 or float16, in a GGUF also a quantised type such as Q8_0.
    Default: what they are kept in here.
    """
    if format not in FORMATS:
        raise ModelError(f"no export format is called '{format}'", hint=f"known: {', '.join(FORMATS)}")
    write, known = FORMATS[format]
    kind = None if dtype is None else ALIASES.get(dtype.lower(), dtype.upper())
    if kind is not None and kind not in known:
        raise ModelError(f"the format {format} has no type '{dtype}'", hint=f"known: {', '.join(known)}")
    target = Path(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ModelError(f"{target}: exists already", hint="choose another place, or remove this one")
    registry = (registry or load_plugins()).ours
    folder = find_model(source)
    spec = read_model_spec(folder, registry)
    return write(_Asked(folder, target, spec, family, kind, registry, tell))


@dataclass(frozen=True)
class _Asked:
    """What is to be exported, and how."""

    folder: Path
    target: Path
    spec: ResolvedSpec
    family: str | None
    dtype: str | None
    registry: Registry
    tell: Callable[[str], None]

    @property
    def hint(self) -> str | None:
        """The family it was imported as."""
        found = read_json(self.folder / "lamina.json").get("family")
        return found if isinstance(found, str) else None


def _export_hf(asked: _Asked) -> Exported:
    folder, target, spec, tell = asked.folder, asked.target, asked.spec, asked.tell
    name, writer, config = choose_family(spec, asked.registry, asked.family, asked.hint)
    tensors = decoder_tensors(spec)
    made = plan(writer, spec, tensors)
    if made.problems:
        raise ModelError(
            f"{folder}: cannot be exported as {name}" + "".join(f"\n  {line}" for line in some(made.problems))
        )
    checkpoint = Checkpoint.of(folder)
    with atomic_directory(target) as out:
        dtype = _write(out / "model.safetensors", made, checkpoint, tell, DTYPES.get(asked.dtype or ""))
        roles = _special_ids(folder, spec)
        head = {"architectures": [writer.architecture], "model_type": writer.model_types[0], "dtype": dtype}
        whole = {**head, **roles, **config}
        (out / "config.json").write_text(json.dumps(whole, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        if not copy_files([GENERATION], folder, out):
            told = json.dumps({role: value for role, value in roles.items() if value is not None}, indent=2)
            (out / GENERATION).write_text(told + "\n", encoding="utf-8")
        notes = _write_tokenizer(folder, out, spec)
    parameters = sum(tensor.numel() for tensor in tensors.values())
    return Exported(str(folder), str(target), "hf", name, parameters, dtype, notes)


def _export_gguf(asked: _Asked) -> Exported:
    folder, spec = asked.folder, asked.spec
    load_gguf("export to gguf")
    name, writer, config = choose_family(
        spec, asked.registry, asked.family, asked.hint, lambda family: family.gguf is not None, "llama.cpp knows"
    )
    gguf = writer.gguf
    assert gguf is not None, "chosen so"
    made, checkpoint = plan(writer, spec, decoder_tensors(spec)), Checkpoint.of(folder)
    tensors = DecoderTensors(checkpoint, made)
    moves = gguf.moves(tensors.steps, config, name_map(gguf.architecture, spec.layers.n_layers))
    names = {theirs for move in moves for theirs in move.theirs}
    told = gguf.write(config)
    told.put("vocab_size", spec.vocab_size, int)
    again = {"tie_word_embeddings": HEAD not in names, **gguf.read(told.metadata(names))}
    again["vocab_size"] = spec.vocab_size
    lost = made.problems or told.problems or _lost(writer, again, spec, asked.registry)
    if lost:
        raise ModelError(
            f"{folder}: a GGUF of the architecture '{gguf.architecture}' cannot say all of it"
            + "".join(f"\n  {line}" for line in some(lost)),
            hint="change these parts, or export it as hf",
        )
    tokenizer, template, notes = open_tokenizer(spec), stored_template(folder), told.notes
    entries = tokenizer_entries(
        tokenizer, spec.vocab_size, _special_ids(folder, spec), None if template is None else template.text
    )
    if entries is None and spec.tokenizer is not None:
        notes.append(f"the tokenizer '{spec.tokenizer.name}' has no form that llama.cpp reads, and was left out")
    dtype = write_gguf(
        asked.target,
        spec.name,
        gguf.architecture,
        told,
        moves,
        tensors,
        entries or NO_TOKENIZER,
        asked.dtype,
        asked.tell,
    )
    parameters = sum(tensor.numel() for tensor in decoder_tensors(spec).values())
    return Exported(str(folder), str(asked.target), "gguf", name, parameters, dtype, notes)


def _lost(family: Family, config: dict[str, Any], spec: ResolvedSpec, registry: Registry) -> list[str]:
    """The parts of a spec that another config, read back from a file with single precision, does not say."""
    keys = ConfigKeys(config)
    try:
        again = resolve_data({"lamina": 1, "name": spec.name, **family.read(keys)}, registry)
    except LaminaError as error:
        return [problem.message for problem in error.problems]
    return keys.problems or differences(spec, again, SINGLE)


ALIASES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
# How to write each format, and in which types.
FORMATS: Mapping[str, tuple[Callable[[_Asked], Exported], Sequence[str]]] = {
    "hf": (_export_hf, ("F32", "F16", "BF16")),
    "gguf": (_export_gguf, TYPES),
}


def choose_family(
    spec: ResolvedSpec,
    registry: Registry,
    name: str | None = None,
    hint: str | None = None,
    among: Callable[[Any], bool] = lambda family: True,
    which: str = "is installed",
) -> tuple[str, Family, dict[str, Any]]:
    """The family that says the spec, and its config. ModelError says of the nearest which part does not fit.

    Families are taken from `among` those installed; `which` says in words what they are.
    """
    entries = [registry.get("family", name)] if name is not None else registry.entries("family")
    entries = [entry for entry in entries if among(entry.component)]
    entries.sort(key=lambda entry: entry.name != hint)
    tried: list[tuple[tuple[bool, int, int, str], Family, dict[str, Any], list[str]]] = []
    for entry in entries:
        component: Any = entry.component
        family: Family = component()
        config, misfits = say(family, spec, registry)
        # Of a family that has no config for the spec, nobody knows how near it is.
        nearness = (not config, len(misfits), -1 if entry.name == hint else family.rank, entry.name)
        tried.append((nearness, family, config, misfits))
        if entry.name == hint and not misfits:
            break  # nothing could suit better
    if not tried:
        raise ModelError(f"no family {which}" if name is None else f"the family {name} is none that {which}")
    (*_, found), family, config, misfits = min(tried, key=lambda one: one[0])
    if misfits:
        which = f"the family {found}" if name is not None else f"any family; the nearest is {found}"
        raise ModelError(
            f"the spec does not fit {which}" + "".join(f"\n  {line}" for line in some(misfits)),
            hint="change these parts, or use the model with lamina",
        )
    return found, family, config


def say(family: Family, spec: ResolvedSpec, registry: Registry) -> tuple[dict[str, Any], list[str]]:
    """The config for a spec, and the parts of the spec that it does not say."""
    try:
        config = family.write(spec)
        keys = ConfigKeys(config)
        again = resolve_data({"lamina": 1, "name": spec.name, **family.read(keys)}, registry)
    except LaminaError as error:
        return {}, [problem.message for problem in error.problems]
    if keys.problems:
        return {}, keys.problems
    return config, differences(spec, again)


def differences(spec: ResolvedSpec, again: ResolvedSpec, tolerance: float = 1e-9) -> list[str]:
    """Where the second spec says something else than the first, for all that a decoder computes."""
    ours, theirs = _said(spec), _said(again)
    found = []
    for key in ours.keys() | theirs.keys():
        if key != "layers":
            found += _differences(ours.get(key), theirs.get(key), (key,), tolerance)
    for index, (block, other) in enumerate(zip(ours["layers"], theirs["layers"], strict=False)):
        name = spec.layers.names[index]
        found += _differences(block, other, ("blocks", name), tolerance)
    return list(dict.fromkeys(sorted(found)))


def _said(spec: ResolvedSpec) -> dict[str, Any]:
    data = meaning(spec)
    kept = ("vocab_size", "dim", "context_length", "embedding", "position", "norm", "head")
    return {**{key: data[key] for key in kept}, "layers": [data["blocks"][name] for name in spec.layers.names]}


def _differences(ours: Any, theirs: Any, path: tuple[str, ...], tolerance: float) -> list[str]:
    if path[-1] in IDLE:
        return []
    if isinstance(ours, dict) and isinstance(theirs, dict) and ours.get("name") == theirs.get("name"):
        return [
            line
            for key in ours.keys() | theirs.keys()
            for line in _differences(ours.get(key), theirs.get(key), (*path, key), tolerance)
        ]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs, strict=True))
        return [line for index, (a, b) in pairs for line in _differences(a, b, (*path, str(index)), tolerance)]
    if isinstance(ours, (int, float)) and isinstance(theirs, (int, float)) and type(ours) is not bool:
        same = math.isclose(ours, theirs, rel_tol=tolerance)
    else:
        same = ours == theirs
    return [] if same else [f"{'.'.join(path)}: {_short(ours)}, where the family has {_short(theirs)}"]


def _short(value: Any) -> str:
    if isinstance(value, dict) and "name" in value:
        return str(value["name"])
    return (
        {True: "true", False: "false"}.get(value, str(value))
        if isinstance(value, bool)
        else ("none" if value is None else str(value)[:60])
    )


def _write(
    file: Path, made: Plan, checkpoint: Checkpoint, tell: Callable[[str], None], wanted: torch.dtype | None
) -> str:
    shapes: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
    for step in made.steps:
        dtype = result_dtypes(step, [checkpoint.tensors[name].dtype for name in step.ours])
        dtype = wanted if wanted is not None and dtype.is_floating_point else dtype
        shapes |= {name: (dtype, shape) for name, shape in zip(step.theirs, step.shapes, strict=True)}
    with Writer(file, shapes) as writer:
        for number, step in enumerate(made.steps, 1):
            dtype = shapes[step.theirs[0]][0]
            ours = [checkpoint.read(name).to(dtype) for name in step.ours]
            for name, tensor in zip(step.theirs, step.layout.theirs(ours), strict=True):
                writer.write(name, tensor)
            if number % 100 == 0:
                tell(f"{number} of {len(made.steps)} steps")
    dtypes = [dtype for dtype, _ in shapes.values() if dtype.is_floating_point]
    return str(max(set(dtypes), key=dtypes.count)).removeprefix("torch.")


def _special_ids(folder: Path, spec: ResolvedSpec) -> dict[str, Any]:
    """Ids that begin, end and fill texts: as kept from an import, or else the tokenizer's. Null where there is none,
    since a config class would put in an id of its own."""
    kept = read_json(folder / GENERATION) if (folder / GENERATION).is_file() else None
    if kept is not None:
        return {role: kept.get(role) for role in ROLES}
    tokenizer = open_tokenizer(spec)
    ids = (None, None) if tokenizer is None else (tokenizer.bos_id, tokenizer.eos_id)
    return {**dict(zip(ROLES[:2], ids, strict=True)), "pad_token_id": None}


def _write_tokenizer(folder: Path, out: Path, spec: ResolvedSpec) -> list[str]:
    names = TOKENIZER_FILES
    path = None if spec.tokenizer is None else getattr(spec.tokenizer.config, "path", None)
    kept = folder / (Path(path).parent if isinstance(path, str) else "tokenizer")
    own = [Path(path).name] if isinstance(path, str) else []
    copied = copy_files(dict.fromkeys([*names, *own]), kept, out)
    if spec.tokenizer is None:
        return []
    if not copied:
        return [f"the tokenizer '{spec.tokenizer.name}' has no form that transformers reads, and was left out"]
    if "tokenizer.json" in copied:
        described = read_json(out / "tokenizer_config.json") if "tokenizer_config.json" in copied else {}
        if "tokenizer_class" not in described:
            tokenizer = open_tokenizer(spec)
            texts = {} if tokenizer is None else {i: text for text, i in tokenizer.special_ids.items()}
            ids = {} if tokenizer is None else {"bos_token": tokenizer.bos_id, "eos_token": tokenizer.eos_id}
            told = {role: texts[i] for role, i in ids.items() if i is not None and i in texts}
            described = {"tokenizer_class": "PreTrainedTokenizerFast", **told, **described}
            text = json.dumps(described, indent=2, ensure_ascii=False) + "\n"
            (out / "tokenizer_config.json").write_text(text, encoding="utf-8")
    return []
