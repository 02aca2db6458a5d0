"""`lamina export --format gguf`: a model directory as the one file that llama.cpp loads, written tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lamina.core.checkpoint import Checkpoint, some
from lamina.core.errors import ModelError
from lamina.core.files import atomic_file
from lamina.core.gguf.file import load_gguf
from lamina.core.gguf.mapping import Told
from lamina.core.layout import Move
from lamina.core.plan import Plan, Step

# Matrices that llama.cpp wants in full precision, besides vectors and norms.
FULL = ("ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight", "position_embd.weight")
TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")
OF_DTYPE = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


class DecoderTensors:
    """A model directory's tensors under a family's names, made when they are asked for."""

    def __init__(self, checkpoint: Checkpoint, made: Plan) -> None:
        self.checkpoint = checkpoint
        self.steps = {name: (step, place) for step in made.steps for place, name in enumerate(step.theirs)}
        self._last: tuple[Step, list[Tensor]] | None = None

    def shape(self, name: str) -> tuple[int, ...]:
        step, place = self.steps[name]
        return step.shapes[place]

    def dtype(self, name: str) -> torch.dtype:
        return self.checkpoint.tensors[self.steps[name][0].ours[0]].dtype

    def read(self, name: str) -> Tensor:
        step, place = self.steps[name]
        if self._last is None or self._last[0] is not step:
            self._last = None
            self._last = step, step.layout.theirs([self.checkpoint.read(ours) for ours in step.ours])
        return self._last[1][place]


def write_gguf(
    target: Path,
    name: str,
    architecture: str,
    told: Told,
    moves: Sequence[Move],
    tensors: DecoderTensors,
    beside: Mapping[str, Any],
    kind: str | None,
    tell: Callable[[str], None],
) -> str:
    """Write the file; `beside` are entries besides the architecture's. Returns the type of most of its numbers."""
    library = load_gguf("export to gguf")
    if strange := [move.ours[0] for move in moves if move.ours[0] == move.theirs[0]]:
        raise ModelError(
            f"the architecture '{architecture}' has no tensors for these:"
            + "".join(f"\n  {line}" for line in some(strange))
        )
    plan = [(theirs, move, place) for move in moves for place, theirs in enumerate(move.theirs)]
    types = {theirs: _type(theirs, move, place, tensors, kind) for theirs, move, place in plan}
    counted: dict[str, int] = {}
    with atomic_file(target) as partial:
        writer = library.GGUFWriter(partial, architecture)
        writer.add_type("model")
        writer.add_name(name)
        writer.add_quantization_version(library.GGML_QUANT_VERSION)
        for key, value in told.values.items():
            _add(writer, library, f"{architecture}.{key}", value)
        for theirs, move, place in plan:
            shape = _shape(move, place, tensors)
            counted[types[theirs]] = counted.get(types[theirs], 0) + int(np.prod(shape))
            _announce(writer, library, theirs, shape, types[theirs])
        for theirs, tensor in told.tensors.items():
            _announce(writer, library, theirs, tuple(tensor.shape), "F32")
        most = max(counted, key=lambda one: counted[one])
        writer.add_file_type(int(library.LlamaFileType[{"F32": "ALL_F32"}.get(most, f"MOSTLY_{most}")]))
        for key, value in beside.items():
            _add(writer, library, key, value)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        made: tuple[Move, list[Tensor]] | None = None
        for number, (theirs, move, place) in enumerate(plan, 1):
            if made is None or made[0] is not move:
                made = None
                made = move, move.layout.theirs([tensors.read(ours) for ours in move.ours])
            writer.write_tensor_data(_packed(library, made[1][place], types[theirs]))
            if number % 100 == 0:
                tell(f"{number} of {len(plan)} tensors")
        for tensor in told.tensors.values():
            writer.write_tensor_data(_packed(library, tensor, "F32"))
        writer.close()
    return most


def _shape(move: Move, place: int, tensors: DecoderTensors) -> tuple[int, ...]:
    ours = [torch.empty(tensors.shape(name), device="meta") for name in move.ours]
    return tuple(move.layout.theirs(ours)[place].shape)


def _type(theirs: str, move: Move, place: int, tensors: DecoderTensors, kind: str | None) -> str:
    """The type a tensor is written in: vectors and norms whole, quantised ones only where rows are whole blocks."""
    library = load_gguf("export to gguf")
    shape = _shape(move, place, tensors)
    if len(shape) < 2 or theirs.endswith("_norm.weight") or theirs.endswith(FULL) or not theirs.endswith(".weight"):
        return "F32"
    if kind is None:
        return OF_DTYPE.get(tensors.dtype(move.ours[0]), "F32")
    block, _ = library.GGML_QUANT_SIZES[library.GGMLQuantizationType[kind]]
    return kind if shape[-1] % block == 0 else "F16"


def _announce(writer: Any, library: Any, name: str, shape: tuple[int, ...], kind: str) -> None:
    number = library.GGMLQuantizationType[kind]
    block, size = library.GGML_QUANT_SIZES[number]
    n_bytes = int(np.prod(shape)) // block * size
    if kind in ("F32", "F16"):
        writer.add_tensor_info(name, shape, np.dtype(np.float32 if kind == "F32" else np.float16), n_bytes)
        return
    packed = (*shape[:-1], shape[-1] // block * size)
    writer.add_tensor_info(name, packed, np.dtype(np.uint8), n_bytes, raw_dtype=number)


def _packed(library: Any, tensor: Tensor, kind: str) -> Any:
    """A tensor's numbers as bytes of a type."""
    if kind in ("F32", "F16"):
        return tensor.to(torch.float32 if kind == "F32" else torch.float16).contiguous().numpy()
    if kind == "BF16":
        return tensor.to(torch.bfloat16).contiguous().view(torch.uint8).numpy()
    numbers = tensor.float().contiguous().numpy()
    return library.quants.quantize(numbers, library.GGMLQuantizationType[kind])


def _add(writer: Any, library: Any, key: str, value: Any) -> None:
    """An entry whose type is its value's: numpy's widths are kept."""
    kinds = library.GGUFValueType
    widths = {
        np.uint32: kinds.UINT32,
        np.int32: kinds.INT32,
        np.float32: kinds.FLOAT32,
        bool: kinds.BOOL,
        str: kinds.STRING,
    }
    if isinstance(value, list):
        writer.add_key_value(key, [_plain(one) for one in value], kinds.ARRAY, widths[type(value[0])])
    else:
        writer.add_key_value(key, _plain(value), widths[type(value)])


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
