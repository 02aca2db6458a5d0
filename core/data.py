"""From a corpus to batches: tokenise once into memory-mapped files, then draw windows of them.

A data directory holds `data.json` (the manifest) and for each split `<split>.tokens` (little-endian uint16 or uint32)
and `<split>.documents` (int64: where each document begins). A batch follows from (seed, step) alone, so a run that is
resumed needs no cursor.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from lamina.core.component import dump_config
from lamina.core.corpus import Corpus
from lamina.core.errors import DataError
from lamina.core.files import atomic_directory
from lamina.core.tokenizer import Tokenizer

MANIFEST = "data.json"
SplitName = Literal["train", "val"]
IGNORED = -100  # the target of a token that has none; torch's cross entropy leaves it out
WHOLE_DOCUMENTS = 20  # from so many on, the val split takes whole documents
LONGEST_PIECE = 1 << 22  # characters tokenised at once: encoding takes many times the text's own memory
HASHED = 1 << 26  # files up to this size are compared with their sha256 at every opening; it takes a moment

Progress = Callable[[int, int], None]  # documents and tokens done so far


class FileRecord(BaseModel):
    """What a file must be to be the one that was written."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    bytes: int = Field(ge=0)
    sha256: str


class SplitRecord(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    tokens: int = Field(ge=0)
    documents: int = Field(ge=0)
    text_bytes: int = Field(ge=0)  # UTF-8 bytes of the text, for bits per byte
    token_file: FileRecord
    document_file: FileRecord


class Manifest(BaseModel):
    """`data.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    lamina_data: Literal[1] = 1
    dtype: Literal["uint16", "uint32"]
    vocab_size: int = Field(gt=0)
    tokenizer: str  # fingerprint
    splits: dict[SplitName, SplitRecord]


def fingerprint(tokenizer: Tokenizer) -> str:
    """The same for two tokenizers of one class with equal options and files."""
    digest = hashlib.sha256(f"{type(tokenizer).__qualname__} {tokenizer.vocab_size}".encode())
    with tempfile.TemporaryDirectory() as name:
        config = tokenizer.save(Path(name))
        digest.update(json.dumps(dump_config(config), sort_keys=True).encode())
        for path in sorted(Path(name).rglob("*")):
            if path.is_file():
                digest.update(f"\0{path.relative_to(name).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def prepare(
    corpus: Corpus,
    tokenizer: Tokenizer,
    directory: Path,
    *,
    val_fraction: float = 0.1,
    progress: Progress | None = None,
) -> TokenData:
    """Tokenise every document into `directory`, which appears when all is done; an older data directory is replaced.

    With `WHOLE_DOCUMENTS` documents or more, every k-th goes to the val split; with fewer, val is the last
    `val_fraction` of the characters, and a document may be cut. Each document is ended by the tokenizer's `eos_id`.
    """
    if val_fraction != 0 and not 1e-6 <= val_fraction <= 0.5:
        raise DataError(f"val_fraction is {val_fraction}; it must be 0, or between 0.000001 and 0.5")
    dtype: Literal["uint16", "uint32"] = "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"
    documents, tokens = 0, 0
    with atomic_directory(directory, replace=(directory / MANIFEST).is_file()) as partial:
        names: list[SplitName] = ["train", "val"] if val_fraction else ["train"]
        writers = {name: _Writer(partial, name, tokenizer, dtype) for name in names}
        try:
            for name, text, ends in _assign(corpus.documents(), val_fraction):
                tokens += writers[name].add(text, ends)
                documents += ends
                if progress is not None:
                    progress(documents, tokens)
        finally:
            records = {name: writer.close() for name, writer in writers.items()}
        if documents == 0:
            raise DataError("the corpus has no text", hint="look into the file or directory it names")
        for name, record in records.items():
            if record.tokens == 0:
                raise DataError(f"the corpus is too short: nothing is left for the {name} split", hint="use more text")
        manifest = Manifest(
            dtype=dtype, vocab_size=tokenizer.vocab_size, tokenizer=fingerprint(tokenizer), splits=records
        )
        (partial / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
    return TokenData.open(directory)


def _assign(documents: Iterable[str], val_fraction: float) -> Iterator[tuple[SplitName, str, bool]]:
    """(split, text, whether its document ends with it) for every document that is not empty."""
    stream = (document for document in documents if document)
    first = list(itertools.islice(stream, WHOLE_DOCUMENTS))
    if val_fraction == 0:
        yield from (("train", document, True) for document in itertools.chain(first, stream))
    elif len(first) == WHOLE_DOCUMENTS:
        k = round(1 / val_fraction)
        chosen = min(k // 2, WHOLE_DOCUMENTS - 1)  # so that val has one even when k is large
        for i, document in enumerate(itertools.chain(first, stream)):
            yield "val" if i % k == chosen else "train", document, True
    else:
        left = int(sum(map(len, first)) * (1 - val_fraction))  # characters still to go to train
        for document in first:
            cut = min(left, len(document))
            left -= cut
            if cut:
                yield "train", document[:cut], cut == len(document)
            if cut < len(document):
                yield "val", document[cut:], True


class _Writer:
    """Writes one split."""

    def __init__(self, directory: Path, split: str, tokenizer: Tokenizer, dtype: str) -> None:
        self._tokenizer, self._dtype = tokenizer, np.dtype(dtype).newbyteorder("<")
        self._tokens = _Hashed(directory / f"{split}.tokens")
        self._documents = _Hashed(directory / f"{split}.documents")
        self._n_tokens = self._n_documents = self._text_bytes = 0

    def add(self, text: str, ends: bool) -> int:
        start = self._n_tokens
        for piece in _pieces(text):
            self._write(self._tokenizer.encode(piece))
            self._text_bytes += len(self._tokenizer.utf8(piece))
        if ends and self._tokenizer.eos_id is not None:
            self._write([self._tokenizer.eos_id])
        if self._n_tokens > start:  # a text that leaves no token is no document
            self._documents.write(np.array([start], "<i8").tobytes())
            self._n_documents += 1
        return self._n_tokens - start

    def _write(self, ids: list[int]) -> None:
        self._tokens.write(np.array(ids, self._dtype).tobytes())
        self._n_tokens += len(ids)

    def close(self) -> SplitRecord:
        return SplitRecord(
            tokens=self._n_tokens,
            documents=self._n_documents,
            text_bytes=self._text_bytes,
            token_file=self._tokens.close(),
            document_file=self._documents.close(),
        )


class _Hashed:
    """A new file whose size and sha256 are known once it is written."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("xb")
        self._digest, self._bytes = hashlib.sha256(), 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._bytes += len(data)

    def close(self) -> FileRecord:
        self._file.close()
        return FileRecord(bytes=self._bytes, sha256=self._digest.hexdigest())


def _pieces(text: str) -> Iterator[str]:
    """`text`, when it is very long in parts that end with a line where they can."""
    start = 0
    while len(text) - start > LONGEST_PIECE:
        end = text.rfind("\n", start, start + LONGEST_PIECE) + 1 or start + LONGEST_PIECE
        yield text[start:end]
        start = end
    yield text[start:]


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a data directory, read as it is needed."""

    name: str
    path: Path
    vocab_size: int
    tokens: NDArray[Any]  # (N,) uint16 or uint32, memory-mapped
    starts: NDArray[np.int64]  # (n_documents,) where each document begins; the first is 0
    text_bytes: int

    @property
    def n_tokens(self) -> int:
        return len(self.tokens)

    @property
    def n_documents(self) -> int:
        return len(self.starts)


@dataclass(frozen=True, eq=False)
class TokenData:
    """A data directory, checked against its manifest."""

    directory: Path
    manifest: Manifest

    @classmethod
    def open(cls, directory: Path) -> Self:
        path = directory / MANIFEST
        mend = "prepare the data again"
        try:
            manifest = Manifest.model_validate_json(path.read_bytes())
        except OSError as error:
            raise DataError(f"'{directory}' is no data directory: {path.name}: {error.strerror}", hint=mend) from error
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise DataError(f"'{path}' is damaged: {place}: {first['msg']}".replace(": : ", ": "), hint=mend) from error
        for name, split in manifest.splits.items():
            width = np.dtype(manifest.dtype).itemsize
            lengths = (split.tokens * width, split.documents * 8)
            if lengths != (split.token_file.bytes, split.document_file.bytes) or not split.documents:
                raise DataError(f"'{path}' is damaged: sizes of split {name} contradict each other", hint=mend)
            _check(directory / f"{name}.tokens", split.token_file)
            _check(directory / f"{name}.documents", split.document_file)
        return cls(directory, manifest)

    def split(self, name: str) -> Split:
        record = next((record for key, record in self.manifest.splits.items() if key == name), None)
        if record is None:
            has = ", ".join(self.manifest.splits)
            raise DataError(
                f"'{self.directory}' has no split '{name}', only {has}", hint="prepare it with val_fraction"
            )
        path = self.directory / f"{name}.tokens"
        dtype = np.dtype(self.manifest.dtype).newbyteorder("<")
        # Plain arrays over the map: np.memmap itself makes every indexing several times slower.
        tokens = np.asarray(np.memmap(path, dtype, mode="r", shape=(record.tokens,)))
        starts_path = self.directory / f"{name}.documents"
        starts = np.asarray(np.memmap(starts_path, np.dtype("<i8"), mode="r", shape=(record.documents,)))
        if starts[0] != 0 or starts[-1] >= record.tokens or not (np.diff(starts) > 0).all():
            raise DataError(f"'{starts_path}' is damaged: documents must begin at 0 and one after the other")
        return Split(name, path, self.manifest.vocab_size, tokens, starts, record.text_bytes)

    def require_tokenizer(self, tokenizer: Tokenizer) -> None:
        """DataError unless the data was made with a tokenizer like this one."""
        if self.manifest.tokenizer != fingerprint(tokenizer):
            raise DataError(
                f"'{self.directory}' was made with another tokenizer", hint="prepare the data again with this one"
            )


def _check(path: Path, record: FileRecord) -> None:
    mend = "prepare the data again"
    try:
        size = path.stat().st_size
        if size != record.bytes:
            raise DataError(f"'{path}' has {size:,} bytes where {record.bytes:,} were written", hint=mend)
        if size <= HASHED and hashlib.sha256(path.read_bytes()).hexdigest() != record.sha256:
            raise DataError(f"'{path}' was changed after it was written: its sha256 is another", hint=mend)
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror}", hint=mend) from error


@dataclass(frozen=True, eq=False)
class Batch:
    """Windows of a split: at each place a token and the one that follows it."""

    token_ids: Tensor  # (B, T) int64
    targets: Tensor  # (B, T) int64, IGNORED where the next token begins another document
    document_ids: Tensor | None  # (B, T) int64, from 0 in each row; None when the split is one document
    weights: Tensor | None = None  # (B, T) float, how much each target counts; None: all the same


class Batches:
    """Windows of `context` tokens and their targets, in an order that follows from `seed`.

    An epoch cuts the split, from a random phase on, into windows that meet without a gap: each token is an input once
    and a target once, up to the remainder at both ends. It visits them in random order.
    """

    def __init__(self, split: Split, batch_size: int, context: int, seed: int = 0) -> None:
        if split.n_tokens <= context:
            raise DataError(
                f"the {split.name} split of '{split.path.parent}' has {split.n_tokens:,} tokens; "
                f"one window takes {context + 1:,}",
                hint="use more text or a shorter context_length",
            )
        self.split, self.batch_size, self.context, self.seed = split, batch_size, context, seed
        # At least a window's worth is left over, so that every phase finds room for as many windows.
        self.n_windows = max(1, (split.n_tokens - context) // context)
        self._latest: tuple[int, int, NDArray[Any]] | None = None  # epoch, phase, order of its windows

    def batch(self, step: int) -> Batch:
        """The batch of `step`, the same whenever it is asked for."""
        epochs, places = np.divmod(np.arange(self.batch_size) + step * self.batch_size, self.n_windows)
        if epochs[0] == epochs[-1]:
            return self._gather(self._order(int(epochs[0]), places))
        return self._gather(
            np.concatenate([self._order(int(e), places[epochs == e]) for e in range(epochs[0], epochs[-1] + 1)])
        )

    def evaluation(self, n_batches: int | None = None) -> Iterator[Batch]:
        """The same windows every time, evenly spread over the split; all of them when `n_batches` is None."""
        n_windows = (self.split.n_tokens - 1) // self.context
        taken = n_windows if n_batches is None else min(n_windows, n_batches * self.batch_size)
        begins = np.arange(taken) * n_windows // taken * self.context
        for start in range(0, taken, self.batch_size):
            yield self._gather(begins[start : start + self.batch_size])

    def ahead(self, step: int = 0, stop: int | None = None, *, depth: int = 2) -> Generator[Batch, None, None]:
        """The batches from `step` on, `depth` of them made in advance by a thread, which ends with the iterator."""
        steps = itertools.count(step) if stop is None else iter(range(step, stop))
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            waiting: deque[Future[Batch]] = deque()
            waiting.extend(pool.submit(self.batch, s) for s in itertools.islice(steps, depth))
            while waiting:
                ready = waiting.popleft().result()
                waiting.extend(pool.submit(self.batch, s) for s in itertools.islice(steps, 1))
                yield ready

    def _order(self, epoch: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the windows at `places` of the epoch's order begin."""
        latest = self._latest  # read once: the thread of `ahead` may replace it
        if latest is None or latest[0] != epoch:
            draw = np.random.default_rng([self.seed % (1 << 64), epoch])
            phase = int(draw.integers(self.split.n_tokens - self.n_windows * self.context))
            order = np.arange(self.n_windows, dtype=np.int32 if self.n_windows < 1 << 31 else np.int64)
            draw.shuffle(order)
            self._latest = latest = (epoch, phase, order)
        return latest[1] + latest[2][places].astype(np.int64) * self.context

    def _gather(self, begins: NDArray[np.int64]) -> Batch:
        """The windows that begin at `begins` (B,)."""
        split, length = self.split, self.context
        tokens = split.tokens[begins[:, None] + np.arange(length + 1)].astype(np.int64)  # (B, T + 1)
        if tokens.max() >= split.vocab_size:
            raise DataError(
                f"'{split.path}' holds token {tokens.max()}; the vocabulary has {split.vocab_size}",
                hint="prepare the data again",
            )
        token_ids, targets = torch.from_numpy(tokens[:, :-1].copy()), tokens[:, 1:].copy()
        if split.n_documents == 1:
            return Batch(token_ids, torch.from_numpy(targets), None)
        opens = self._openings(begins)  # (B, T + 1)
        targets[opens[:, 1:]] = IGNORED
        return Batch(token_ids, torch.from_numpy(targets), torch.from_numpy(opens[:, :-1].cumsum(1)))

    def _openings(self, begins: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Where a document begins inside the windows, their first token apart: (B,) -> (B, T + 1)"""
        starts, length = self.split.starts, self.context
        first = np.searchsorted(starts, begins, "right")  # the next document after each window's first token
        counts = np.searchsorted(starts, begins + length, "right") - first
        rows = np.repeat(np.arange(len(begins)), counts)
        within = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
        opens = np.zeros((len(begins), length + 1), dtype=bool)
        opens[rows, starts[first[rows] + within] - begins[rows]] = True
        return opens
