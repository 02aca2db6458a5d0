"""Starting a run from the weights of a model that may differ in parts: what fits is taken, what is new begins anew."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import save_file

from lamina.core.build import build
from lamina.core.checkpoint import Checkpoint, some
from lamina.core.component import Part
from lamina.core.decoder import Decoder
from lamina.core.errors import ModelError
from lamina.core.model import find_model, open_tokenizer, read_model_spec
from lamina.core.module import ModuleComponent
from lamina.core.resolved import ResolvedSpec
from lamina.core.tokenizer import Tokenizer

SHOWN = 4  # names of tensors in a note


@dataclass(frozen=True)
class Start:
    """A model directory to begin from."""

    folder: Path
    spec: ResolvedSpec
    tokenizer: Tokenizer | None

    @staticmethod
    def open(directory: str | Path) -> Start:
        """A model directory, or a run's newest checkpoint. Raises ModelError."""
        folder = find_model(directory)
        spec = read_model_spec(folder)
        return Start(folder, spec, open_tokenizer(spec))

    def take(self, spec: ResolvedSpec, file: Path) -> str:
        """Write to `file` the tensors that a decoder of `spec` can begin with; returns a line on what was taken.

        A part inside a wrapper takes the tensors of the part that stood there bare; another component in its place
        begins anew. Raises ModelError naming every tensor of another shape, and when nothing fits at all.
        """
        here, there = build(spec, device="meta"), build(self.spec, device="meta")
        wanted, owners, their_owners = here.tensors(), _owners(here), _owners(there)
        stored = Checkpoint.of(self.folder)
        taken, wrong, unused = {}, [], set(stored.tensors)
        for name, tensor in wanted.items():
            source = name if name in unused else re.sub(r"\.wraps(?=\.)", "", name)
            if source not in unused or owners[name] != their_owners.get(source):
                continue
            shape = stored.tensors[source].shape
            if shape != tuple(tensor.shape):
                wrong.append(f"{source}: {shape} there, {tuple(tensor.shape)} by the spec")
                continue
            taken[name] = stored.read(source).to(torch.float32)
            unused.discard(source)
        if wrong:
            shown = "\n  ".join(some(wrong, 12))
            raise ModelError(f"{self.folder}: sizes differ from the spec's\n  {shown}", hint="give both the same sizes")
        if not taken:
            raise ModelError(f"{self.folder}: none of its tensors stands in the spec's decoder")
        save_file({name: tensor.contiguous() for name, tensor in taken.items()}, file)
        said = f"took {len(taken)} of the {len(wanted)} tensors from {self.folder}"
        for what, names in (("beginning anew", sorted(wanted.keys() - taken.keys())), ("left there", sorted(unused))):
            if names:
                more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
                said += f"; {what}: {', '.join(names[:SHOWN])}{more}"
        return said


def _owners(decoder: Decoder) -> dict[str, tuple[str, str] | None]:
    """For each tensor the component that holds it, by kind and name; None where the decoder itself does."""
    parts = {
        f"{name}.": (module.kind, cast(Part, module.part).name)
        for name, module in decoder.named_modules()
        if isinstance(module, ModuleComponent) and hasattr(module, "part")
    }
    return {
        name: next((parts[prefix] for prefix in sorted(parts, key=len, reverse=True) if name.startswith(prefix)), None)
        for name in decoder.tensors()
    }
