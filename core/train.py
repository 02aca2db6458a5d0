"""Training: a run directory, the loop, its checkpoints, and going on from one.

    RUN/spec.yaml  train.json  tokenizer/  data/  metrics.jsonl  checkpoints/step-00000200/

A step follows from (seed, step) and the state before it alone: batches are a pure function of both and random draws are
seeded anew each step. So a checkpoint holds weights and optimizer state, and a run that was stopped at any instant and
resumed ends with the same bits as one never stopped (on the CPU, with as many threads).
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lamina.core.build import build, build_part, working_device
from lamina.core.chat_template import keep_template
from lamina.core.component import Part, dump_config
from lamina.core.corpus import Corpus
from lamina.core.data import IGNORED, Batch, Batches, TokenData, prepare
from lamina.core.decoder import Decoder
from lamina.core.errors import DataError, Location, ModelError, RunFailure, SpecError
from lamina.core.files import atomic_directory, explained, remove_leftovers, write_atomically
from lamina.core.heap import reused_memory
from lamina.core.loss import head_losses
from lamina.core.model import (
    CHECKPOINTS,
    Model,
    checkpoints,
    load_tensors,
    open_tokenizer,
    read_model_spec,
    save_tokenizer,
    write_manifest,
    write_model,
)
from lamina.core.module import ModuleComponent
from lamina.core.optimizer import Schedule
from lamina.core.options import TrainConfig
from lamina.core.reader import from_data
from lamina.core.registry import Registry
from lamina.core.resolve import resolve_config, resolve_part
from lamina.core.resolved import ResolvedSpec
from lamina.core.start import Start
from lamina.core.tokenizer import Tokenizer

START = "start.safetensors"  # the weights a run begins with, where they come from another model
FORMAT = 1


@dataclass(frozen=True)
class Progress:
    """How far a run is, told after every step."""

    step: int  # steps done
    steps: int
    loss: float | None  # mean over the last logging interval, at its end
    val_loss: float | None  # when there was an evaluation
    tokens_per_second: float
    figures: Mapping[str, float] = field(default_factory=dict)  # of the parts, at the end of a logging interval


@dataclass(frozen=True)
class RunOptions:
    """How a run is executed. It computes the same; another device or thread count may change last bits."""

    device: str = "cpu"
    backend: str | dict[str, Any] = "eager"
    threads: Annotated[int, Field(ge=0, le=1 << 16)] = 0  # 0: as many as torch takes by itself


@dataclass(eq=False)
class Run:
    """A run directory and what is needed to work on it."""

    directory: Path
    spec: ResolvedSpec
    config: TrainConfig
    options: RunOptions
    tokenizer: Tokenizer | None
    data: TokenData


def create_run(
    spec: ResolvedSpec,
    corpus: str | Path | Mapping[str, Any],
    directory: str | Path,
    *,
    options: RunOptions | None = None,
    start: str | Path | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> Run:
    """Train the tokenizer if the spec asks for it, tokenise the corpus, and lay out the run directory.

    `corpus` is a file or directory of text, a corpus component's name, or a mapping with its options. `start` is a
    model or run directory whose weights and tokenizer the run begins with. The directory appears when all is ready,
    or not at all.
    """
    target = Path(directory)
    options = options or RunOptions()
    options = replace(options, threads=options.threads or torch.get_num_threads())
    resolve_part("backend", options.backend, spec.registry)
    working_device(options.device)
    source = open_corpus(corpus, spec.registry)
    _check_trainable(spec)
    begin = None if start is None else Start.open(start)
    with atomic_directory(target) as folder:
        if begin is not None:
            note(begin.take(spec, folder / START))
            spec = _with_tokenizer_of(begin, spec)
        tokenizer, spec = _tokenizer_for(spec, source, folder, note)
        if begin is not None:
            keep_template(begin.folder, folder)
        note("tokenising")
        prepare(source, tokenizer, folder / "data", val_fraction=spec.train.val_fraction)
        try:
            _batches(TokenData.open(folder / "data"), spec.train)
        except DataError as error:  # it names the directory that is about to vanish
            told = error.message.partition("' has ")[2] or error.message
            hint = "use more text, or a smaller train.context"
            raise DataError(f"{corpus}: too short a text; its split has {told}", hint=hint) from None
        (folder / "spec.yaml").write_text(spec.to_yaml(), encoding="utf-8")
        write_manifest(spec, folder)
        record = {"format": FORMAT, "corpus": str(corpus), "options": vars(options), "train": dump_config(spec.train)}
        (folder / "train.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return open_run(target, spec.registry)


def _check_trainable(spec: ResolvedSpec) -> None:
    names = [name for name, _ in build(spec, device="meta").named_parameters()] if spec.train.trainable else []
    for pattern in spec.train.trainable or ():
        if not fnmatch.filter(names, pattern):
            where, hint = spec.location(("train", "trainable")), f"there are, for example, {', '.join(names[-3:])}"
            raise SpecError(f"no parameter's name fits '{pattern}'", where=where, hint=hint)


def _with_tokenizer_of(begin: Start, spec: ResolvedSpec) -> ResolvedSpec:
    """The spec with the starting model's tokenizer: its weights mean nothing with another's ids."""
    own, theirs = spec.tokenizer, begin.spec.tokenizer
    if theirs is None:
        return spec
    if own is not None and own.name != theirs.name:
        raise SpecError(
            f"the spec's tokenizer is '{own.name}', and {begin.folder} was trained with '{theirs.name}'",
            where=spec.location(own.path),
            hint="leave the tokenizer to the model",
        )
    return spec.with_parts(tokenizer=_moved(theirs, begin.folder))


def _moved(tokenizer: Part, folder: Path) -> Part:
    """The same with file names that hold from anywhere."""
    path = getattr(tokenizer.config, "path", None)
    return tokenizer if path is None else tokenizer.with_config(path=str((folder / path).resolve()))


def open_corpus(corpus: str | Path | Mapping[str, Any], registry: Registry) -> Corpus:
    """A path, a corpus component's name, or a mapping with its options."""
    if not corpus or not str(corpus).strip():
        raise DataError("no corpus is named", hint="give a text file, a directory of text files, or a corpus component")
    raw: Any = corpus
    if not isinstance(corpus, Mapping):
        known = registry.names("corpus")
        if Path(corpus).exists() or (str(corpus) not in known and ":" not in str(corpus)):
            if not Path(corpus).exists():
                raise DataError(
                    f"{corpus}: no such file or directory, and no corpus has this name",
                    hint="give a text file, a directory of text files, or a corpus component",
                    note=f"corpora: {', '.join(known)}",
                )
            raw = {"name": "text", "path": str(Path(corpus).resolve())}
    source: Corpus = build_part(resolve_part("corpus", raw, registry), directory=Path())
    return source


def _tokenizer_for(
    spec: ResolvedSpec, source: Corpus, folder: Path, note: Callable[[str], None]
) -> tuple[Tokenizer, ResolvedSpec]:
    """The run's tokenizer, saved in its directory, and the spec that names it there."""
    if spec.tokenizer is None:
        raise DataError("the spec names no tokenizer, so there is no way to read text", hint="add `tokenizer: bpe`")
    tokenizer = open_tokenizer(spec)
    if tokenizer is None:
        note(f"training the {spec.tokenizer.name} tokenizer")
        component: Any = spec.tokenizer.component
        tokenizer = component.train(spec.tokenizer.config, source.documents(), spec.vocab_size)
    if tokenizer.vocab_size > spec.vocab_size:
        raise DataError(
            f"the tokenizer has {tokenizer.vocab_size} ids and the spec's vocab_size is {spec.vocab_size}",
            hint=f"set vocab_size: {tokenizer.vocab_size}",
        )
    return tokenizer, spec.with_parts(tokenizer=replace(spec.tokenizer, config=save_tokenizer(tokenizer, folder)))


def open_run(directory: str | Path, registry: Registry | None = None) -> Run:
    """A run directory as it was created. Raises ModelError when it is none or is damaged."""
    folder = Path(directory)
    if lacking := next(
        (name for name in ("train.json", "spec.yaml", "lamina.json") if not (folder / name).is_file()), None
    ):
        what = f"not a run directory (it has no {lacking})" if folder.exists() else "no such directory"
        hint = "give the --out directory of a `lamina train`"
        if folder.parent.name == CHECKPOINTS and (folder.parent.parent / "train.json").is_file():
            what, hint = "a checkpoint, not the run it belongs to", f"lamina resume {folder.parent.parent}"
        raise ModelError(f"{folder}: {what}", hint=hint)
    spec = read_model_spec(folder, registry)
    try:
        record = json.loads((folder / "train.json").read_text(encoding="utf-8"))
        options = TypeAdapter(RunOptions).validate_python(vars(RunOptions(**record["options"])))
        train = from_data(record["train"], Location(str(folder / "train.json")))
        known = record["format"] == FORMAT
    except (ValueError, KeyError, TypeError):
        hint = "its checkpoints still generate; to train on, start a run with --from"
        raise ModelError(f"{folder / 'train.json'}: damaged", hint=hint) from None
    if not known:
        raise ModelError(f"{folder}: written in another format; this lamina reads format {FORMAT}")
    config = resolve_config(TrainConfig, train, spec.registry)
    return Run(folder, spec, config, options, open_tokenizer(spec), TokenData.open(folder / "data"))


def _batches(data: TokenData, config: TrainConfig) -> tuple[Batches, Batches | None]:
    assert config.context is not None
    train = Batches(data.split("train"), config.batch_size, config.context, config.seed)
    val = Batches(data.split("val"), config.batch_size, config.context) if config.val_fraction else None
    return train, val


class Trainer:
    """One run at work: decoder, optimizer, and how far they have come."""

    def __init__(self, run: Run) -> None:
        self.run, self.config = run, run.config
        if run.options.threads:
            torch.set_num_threads(run.options.threads)
        self.device = working_device(run.options.device)
        self.decoder = build(run.spec, device=self.device, seed=self.config.seed)
        self._begin()
        self.optimizer = build_part(self.config.optimizer).make(
            ((name, p) for name, p in self.decoder.named_parameters() if p.requires_grad), self.config.learning_rate
        )
        self.schedule: Schedule = build_part(self.config.schedule)
        self.train_batches, self.val_batches = _batches(run.data, self.config)
        self.step = 0
        self._logged: list[Tensor] = []  # losses since the last line in metrics.jsonl
        self._restore()
        backend = build_part(resolve_part("backend", run.options.backend, run.spec.registry))
        self.runner: Decoder = backend.prepare(self.decoder, training=True)

    @property
    def model(self) -> Model:
        return Model(self.decoder, self.run.tokenizer, self.run.spec)

    def describe(self) -> str:
        """One line on what is about to happen."""
        config, data = self.config, self.run.data.split("train")
        n_parameters = sum(parameter.numel() for parameter in self.decoder.parameters())
        n_trained = sum(parameter.numel() for parameter in self.decoder.parameters() if parameter.requires_grad)
        trained = f" ({n_trained:,} trained)" if n_trained < n_parameters else ""
        begin = f"from step {self.step} " if self.step else ""
        return (
            f"{self.run.spec.name}: {n_parameters:,} parameters{trained}, {data.n_tokens:,} tokens of text, "
            f"training {begin}to step {config.steps}, {config.batch_size} × {config.context} tokens each"
        )

    def last_figures(self) -> dict[str, float]:
        """The newest loss and validation loss of the run, and what its parts tell of themselves."""
        found: dict[str, float] = {}
        for line in (self.run.directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
            known = json.loads(line)
            found |= {key: value for key, value in known.items() if key in ("loss", "val_loss")}
            found |= means_of_figures(known.get("parts", {}))
        return found

    def train(
        self,
        report: Callable[[Progress], None] = lambda progress: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Go on to the last step. True when it was reached; False when `stop` asked for an end, after saving."""
        with reused_memory():
            return self._train(report, stop)

    def _train(self, report: Callable[[Progress], None], stop: Callable[[], bool]) -> bool:
        config = self.config
        self.decoder.train()
        metrics = self._open_metrics()
        since, tokens = time.perf_counter(), 0
        batches = self.train_batches.ahead(self.step, config.steps)
        try:
            for batch in batches:
                batch = to_device(batch, self.device)
                torch.manual_seed(_step_seed(config.seed, self.step))
                rate = config.learning_rate * self.schedule.factor(self.step, config.steps)
                set_learning_rate(self.optimizer, rate, config.learning_rate)
                loss, norm = train_step(self.runner, self.optimizer, batch, config)
                self._logged.append(loss)
                self.step += 1
                tokens += batch.token_ids.numel()
                last = self.step == config.steps
                mean = val_loss = None
                figures: dict[str, Any] = {}
                if self.step % config.log_every == 0 or last:
                    mean = torch.stack(self._logged).double().mean().item()
                    self._logged.clear()
                    seconds = time.perf_counter() - since
                    line = {"step": self.step, "loss": mean, "learning_rate": rate, "gradient_norm": norm}
                    figures = take_figures(self.decoder)
                    told = {"parts": figures} if figures else {}
                    self._log(metrics, line | {"tokens_per_second": tokens / seconds} | told)
                    self._require_finite("loss", mean)
                if self.val_batches is not None and (last or _due(self.step, config.eval_every)):
                    started = time.perf_counter()
                    val_loss = self.evaluate()
                    self._require_finite("validation loss", val_loss)
                    self._log(metrics, {"step": self.step, "val_loss": val_loss} | self._bits_per_byte(val_loss))
                    since += time.perf_counter() - started
                stopping = stop() and not last
                if last or stopping or _due(self.step, config.save_every):
                    started = time.perf_counter()
                    for unseen in self._logged:
                        self._require_finite("loss", unseen.item())
                    self.save()
                    since += time.perf_counter() - started
                speed = tokens / (time.perf_counter() - since)
                report(Progress(self.step, config.steps, mean, val_loss, speed, means_of_figures(figures)))
                if stopping:
                    return False
        finally:
            batches.close()
            metrics.close()
        return True

    def _require_finite(self, what: str, value: float) -> None:
        """Ends a run that has diverged before its weights are saved."""
        if not math.isfinite(value):
            hint = f"lower the learning rate (now {self.config.learning_rate:g})"
            hint += "" if self.config.clip is not None else ", or use clipping"
            raise RunFailure(f"the {what} is {value} at step {self.step}", hint=hint)

    @torch.no_grad()
    def evaluate(self) -> float:
        """Mean loss a token over the validation batches, the same at every call."""
        assert self.val_batches is not None
        self.decoder.eval()
        total, count = 0.0, 0
        for batch in self.val_batches.evaluation(self.config.eval_batches):
            batch = to_device(batch, self.device)
            with autocast(self.device, self.config.dtype):
                loss, _ = token_losses(self.runner, batch)
            total, count = total + loss.item(), count + n_targets(batch)
        self.decoder.train()
        return total / max(1, count)

    def _bits_per_byte(self, loss: float) -> dict[str, float]:
        split = self.run.data.split("val")
        if not split.text_bytes:
            return {}
        return {"val_bits_per_byte": loss / math.log(2) * split.n_tokens / split.text_bytes}

    # Checkpoints

    @property
    def _go_on(self) -> str:
        return f"lamina resume {self.run.directory}"

    def save(self) -> Path:
        """A checkpoint of this step: a model directory and the training state. Older ones beyond `keep` are removed."""
        folder = self.run.directory / CHECKPOINTS / checkpoint_name(self.step)
        if not folder.exists():
            state = self.optimizer.state_dict()
            tensors: dict[str, Tensor] = {}
            scalars: dict[str, Any] = {}
            for index, slots in state["state"].items():
                for name, value in slots.items():
                    (tensors if isinstance(value, Tensor) else scalars)[f"{index}.{name}"] = value
            record = {
                "step": self.step,
                "groups": state["param_groups"],
                "scalars": scalars,
                "logged": [loss.item() for loss in self._logged],
                "counted": {
                    name: {key: amount.tolist() for key, amount in module.counted.items()}
                    for name, module in counting(self.decoder).items()
                },
            }
            with atomic_directory(folder, then=self._go_on) as partial:
                write_model(self.model, partial)
                save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, partial / "state.safetensors")
                (partial / "state.json").write_text(json.dumps(record) + "\n", encoding="utf-8")
        for old in checkpoints(self.run.directory)[: -self.config.keep]:
            doomed = old.with_name(f".lamina-{old.name}.partial")
            old.rename(doomed)  # half removed, it would pass for a checkpoint
            shutil.rmtree(doomed, ignore_errors=True)
        return folder

    def _begin(self) -> None:
        """The weights the run starts with, where it has some, and which of them are trained."""
        file = self.run.directory / START
        if file.is_file():
            tensors = self.decoder.tensors()
            with torch.no_grad():
                for name, value in load_file(file).items():
                    tensors[name].copy_(value)
        if self.config.trainable is not None:
            for name, parameter in self.decoder.named_parameters():
                if not any(fnmatch.fnmatch(name, pattern) for pattern in self.config.trainable):
                    parameter.requires_grad_(False)

    def _restore(self) -> None:
        for place in (self.run.directory, self.run.directory / CHECKPOINTS):
            remove_leftovers(place)
        found = checkpoints(self.run.directory)
        if not found:
            return
        folder = found[-1]
        read_model_spec(folder, self.run.spec.registry)
        load_tensors(self.decoder, folder)
        try:
            record = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            state: dict[int, dict[str, Any]] = {}
            for key, value in (load_file(folder / "state.safetensors") | record["scalars"]).items():
                index, _, name = key.partition(".")
                state.setdefault(int(index), {})[name] = value
            if not alike(record["groups"], json.loads(json.dumps(self.optimizer.state_dict()["param_groups"]))):
                raise ValueError("its optimizer's options are not those of the run")
            self.optimizer.load_state_dict({"state": state, "param_groups": record["groups"]})
            self.step = int(record["step"])
            if folder.name != checkpoint_name(self.step) or self.step > self.config.steps:
                raise ValueError(f"it tells of step {self.step}")
            self._logged = [torch.tensor(loss) for loss in record["logged"]]
            for name, sums in record.get("counted", {}).items():
                module = self.decoder.get_submodule(name)
                if isinstance(module, ModuleComponent):
                    module.counted = {key: torch.tensor(value, device=self.device) for key, value in sums.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            raise ModelError(
                f"{folder}: its training state cannot be read ({error})", hint="remove it to go on from the one before"
            ) from None

    def _open_metrics(self) -> Any:
        """metrics.jsonl, without the lines of steps that will be taken again."""
        path = self.run.directory / "metrics.jsonl"
        if path.exists():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            kept = [line for line in lines if _step_of(line) <= self.step]
            write_atomically(path, "".join(f"{line}\n" for line in kept))
        with explained(path, then=self._go_on):
            return open(path, "ab", buffering=0)  # what did not get written is not tried again when it is closed

    def _log(self, file: Any, line: dict[str, Any]) -> None:
        with explained(Path(file.name), then=self._go_on):
            left = (json.dumps({key: _number(value) for key, value in line.items()}) + "\n").encode()
            while left:  # a disk that fills up takes a part before it refuses
                left = left[file.write(left) :]


def checkpoint_name(step: int) -> str:
    return f"step-{step:08d}"


def alike(kept: Any, fresh: Any) -> bool:
    """Whether plain data has the shape and the types of other plain data, whatever its numbers."""
    if isinstance(fresh, dict):
        return (
            isinstance(kept, dict)
            and kept.keys() == fresh.keys()
            and all(alike(value, fresh[key]) for key, value in kept.items())
        )
    if isinstance(fresh, list):
        same = isinstance(kept, list) and len(kept) == len(fresh)
        return same and all(alike(one, other) for one, other in zip(kept, fresh, strict=True))
    if type(fresh) in (int, float):
        return type(kept) in (int, float)
    return type(kept) is type(fresh)


def counting(decoder: Decoder) -> dict[str, ModuleComponent]:
    """The parts that have counted something for the log, by name."""
    return {
        name: module
        for name, module in decoder.named_modules()
        if isinstance(module, ModuleComponent) and module.counted
    }


def take_figures(decoder: Decoder) -> dict[str, dict[str, Any]]:
    """What the parts tell of themselves since this was asked last. Reads from the device."""
    found = {}
    for name, module in counting(decoder).items():
        found[name] = module.figures({key: amount.cpu() for key, amount in module.counted.items()})
        module.counted = {}
    return found


def means_of_figures(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Each figure that is a single number, as the mean over the parts that tell it."""
    found: dict[str, list[float]] = {}
    for told in figures.values():
        for key, value in told.items():
            if isinstance(value, float):
                found.setdefault(key, []).append(value)
    return {key: sum(values) / len(values) for key, values in found.items()}


def _number(value: Any) -> Any:
    """Plain JSON, which has no NaN and no infinity: null stands for both."""
    value = value.item() if isinstance(value, Tensor) else value
    if isinstance(value, Mapping):
        return {key: _number(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_number(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _step_of(line: str) -> float:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf  # a line cut short


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _step_seed(seed: int, step: int) -> int:
    digest = hashlib.blake2b(f"{seed}/{step}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little")


# One step: functions on their own, so that a benchmark runs what training runs


def train_step(
    decoder: Decoder, optimizer: torch.optim.Optimizer, batch: Batch, config: TrainConfig
) -> tuple[Tensor, Tensor | float]:
    """One optimizer step on `batch`, split into `config.accumulate` parts. Returns the mean loss a token and the
    gradient's norm before clipping. Every token weighs the same, however the batch is split."""
    total = max(1, n_targets(batch))
    n_tokens = batch.token_ids.numel()
    loss = torch.zeros((), device=batch.token_ids.device)
    for part in split_batch(batch, config.accumulate):
        with autocast(part.token_ids.device, config.dtype):
            part_loss, extra = token_losses(decoder, part)
            objective = part_loss / total
            for value in extra.values():
                objective = objective + value * (part.token_ids.numel() / n_tokens)
        objective.backward()  # type: ignore[no-untyped-call]
        loss += part_loss.detach() / total
    return loss, update(decoder, optimizer, config.clip)


def update(decoder: Decoder, optimizer: torch.optim.Optimizer, clip: float | None) -> Tensor | float:
    """Turn gradients into a step and let go of them. Returns their norm before clipping."""
    norm: Tensor | float = math.nan
    if clip is not None:
        norm = nn.utils.clip_grad_norm_(decoder.parameters(), clip).detach()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    after_step(decoder)
    return norm


def token_losses(decoder: Decoder, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum of every target's cross-entropy in float32, and the losses the layers add in training."""
    context = decoder.context(batch.token_ids, batch.document_ids)
    return head_losses(decoder.head, decoder.run(context), batch, decoder.vocab_size), context.losses


def n_targets(batch: Batch) -> int:
    """Targets that count."""
    if batch.document_ids is None:
        return batch.targets.numel()
    return int((batch.targets != IGNORED).sum())


def split_batch(batch: Batch, parts: int) -> Iterable[Batch]:
    """At most `parts` batches of nearly equal size."""
    if parts == 1:
        return [batch]
    size = -(-batch.token_ids.shape[0] // parts)
    fields = (batch.token_ids, batch.targets, batch.document_ids, batch.weights)
    pieces = [field.split(size) if field is not None else None for field in fields]  # type: ignore[no-untyped-call]
    count = len(batch.token_ids.split(size))  # type: ignore[no-untyped-call]
    return [Batch(*(piece[i] if piece is not None else None for piece in pieces)) for i in range(count)]  # type: ignore[arg-type]


def to_device(batch: Batch, device: torch.device) -> Batch:
    if device.type == "cpu":
        return batch
    fields = (batch.token_ids, batch.targets, batch.document_ids, batch.weights)
    return Batch(*(field.to(device, non_blocking=True) if field is not None else None for field in fields))  # type: ignore[arg-type]


def autocast(device: torch.device, dtype: str) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == "bfloat16")


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float, highest: float) -> None:
    """The schedule's rate for every group; a group with a `base_lr` of its own keeps its proportion."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("base_lr", highest) / highest


def after_step(decoder: Decoder) -> None:
    """Tell the parts that are updated by rule that the optimizer has taken a step."""
    for module in decoder.modules():
        if isinstance(module, ModuleComponent) and type(module).after_step is not ModuleComponent.after_step:
            module.after_step()
