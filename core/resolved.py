"""What a spec resolves to: every option of a decoder, filled in. `resolve` makes it, `build` reads it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml
from pydantic import Field, PrivateAttr

from lamina.core.component import ComponentConfig, Part, dump_config, slot, slots
from lamina.core.errors import Location
from lamina.core.options import TrainConfig
from lamina.core.reader import KeyPath, Node, plain_scalar
from lamina.core.registry import Registry

SLOTS = ("attention_in", "attention_out", "attention_after", "ffn_in", "ffn_out", "ffn_after")


class EmbeddingConfig(ComponentConfig):
    """The token embedding."""

    scale: float | Literal["sqrt_dim"] = Field(
        1.0, description="Multiplies the embeddings; sqrt_dim is the square root of dim."
    )
    norm: Part | None = slot("norm", None, description="Applied to the embeddings, positions included.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the embeddings in training.")


class HeadConfig(ComponentConfig):
    """From the last hidden state to logits."""

    tied: bool = Field(True, description="Whether the head uses the embedding's weights.")
    bias: bool = Field(False, description="Whether logits get a learned bias.")
    scale: float = Field(1.0, description="Multiplies the logits.")
    softcap: float | None = Field(None, gt=0, description="Bounds the logits: softcap · tanh(logits / softcap).")


class BlockConfig(ComponentConfig):
    """One kind of layer: attention and ffn, each with norms around it and a residual that joins it to the stream."""

    shorthand: ClassVar[tuple[str, ...]] = ("norm", "placement", "extends")

    flow: Literal["sequential", "parallel", "parallel_shared"] = Field(
        "sequential",
        description="sequential: the ffn reads what the attention left. parallel: both read the stream. "
        "parallel_shared: the ffn reads the attention's normed input.",
    )
    attention_in: Part | None = slot("norm", None, description="On what the attention reads.")
    attention_out: Part | None = slot(
        "norm", None, description="On what the attention gives, before it joins the stream."
    )
    attention_after: Part | None = slot("norm", None, description="On the stream after the attention has joined it.")
    ffn_in: Part | None = slot("norm", None, description="On what the ffn reads.")
    ffn_out: Part | None = slot("norm", None, description="On what the ffn gives, before it joins the stream.")
    ffn_after: Part | None = slot("norm", None, description="On the stream after the ffn has joined it.")
    position: Part = slot("position", "none", description="How the attention of this block learns of positions.")
    attention: Part | None = slot("attention", description="What mixes tokens; null for a block without one.")
    ffn: Part | None = slot("ffn", description="What mixes channels; null for a block without one.")
    residual: Part = slot("residual", "plain", description="How a sublayer joins the stream.")
    ffn_residual: Part | None = slot("residual", None, description="How the ffn joins it; null: as `residual` says.")


class LayersConfig(ComponentConfig):
    """Which block each layer is."""

    pattern: list[str] = Field(min_length=1, description="Names of blocks, repeated until every layer has one.")
    n_layers: int = Field(ge=1, le=10_000, description="Number of layers.")

    @property
    def names(self) -> list[str]:
        return [self.pattern[layer % len(self.pattern)] for layer in range(self.n_layers)]


class InitConfig(ComponentConfig):
    """How weights start."""

    std: float | None = Field(
        None,
        gt=0,
        description="Standard deviation of every weight matrix. Default: sqrt(2 / (5 · dim)), "
        "the small initialisation of Nguyen & Salazar 2019, arXiv:1910.05895.",
    )
    scale_out: bool = Field(
        True, description="Whether projections into the stream start smaller by sqrt(number of such projections)."
    )

    def derive(self, dim: int) -> dict[str, Any]:
        return {} if self.std is not None else {"std": math.sqrt(2 / (5 * dim))}


class ResolvedSpec(ComponentConfig):
    """A spec with every default and derived size filled in: frozen, printable, enough to build from."""

    shorthand: ClassVar[tuple[str, ...]] = ("lamina", "extends", "block")

    name: str = Field("unnamed", description="What people call the model.")
    vocab_size: int = Field(
        ge=1,
        le=2**31,
        description="Rows of the embedding and of the head. Default: the tokenizer's, where it is known.",
    )
    dim: int = Field(ge=1, le=2**20, description="Width of the residual stream.")
    context_length: int = Field(ge=1, le=2**31, description="Most tokens in one text.")
    tokenizer: Part | None = slot("tokenizer", None, description="Cuts text into ids.")
    embedding: EmbeddingConfig = Field(
        default_factory=EmbeddingConfig.model_construct, description="The token embedding."
    )
    position: Part = slot(
        "position", "none", description="The embedding's position scheme, and every block's that names none."
    )
    blocks: dict[str, BlockConfig] = Field(
        min_length=1, description="The kinds of layer, by name; `block` when there is one."
    )
    layers: LayersConfig = Field(description="Which block each layer is.")
    norm: Part | None = slot(
        "norm", None, description="Applied before the head, and every block's norm that names none."
    )
    head: HeadConfig = Field(
        default_factory=HeadConfig.model_construct, description="From the last hidden state to logits."
    )
    init: InitConfig = Field(default_factory=InitConfig.model_construct, description="How weights start.")
    sampler: list[Part] = slot("sampler", [], description="The stages that shape the next token's distribution.")
    train: TrainConfig = Field(default_factory=TrainConfig.model_construct, description="Defaults for `lamina train`.")

    _directory: Path = PrivateAttr(Path())
    _tree: Node | None = PrivateAttr(None)
    _origins: dict[KeyPath, str] = PrivateAttr(default_factory=dict)
    _registry: Registry | None = PrivateAttr(None)
    _opened: tuple[Any, Any] | None = PrivateAttr(None)

    @property
    def directory(self) -> Path:
        """What file names in the spec are relative to."""
        return self._directory

    @property
    def registry(self) -> Registry:
        assert self._registry is not None
        return self._registry

    @property
    def opened_tokenizer(self) -> Any:
        """The tokenizer, if it had to be opened to know its size; else None."""
        if self._opened is None or self.tokenizer is None or self._opened[0] != self.tokenizer.config:
            return None
        return self._opened[1]

    @property
    def origins(self) -> Mapping[KeyPath, str]:
        """Where each value came from: `file:line:column`, a default, or a derivation."""
        return self._origins

    def location(self, path: KeyPath) -> Location | None:
        """Where the value at `path` was written, or the nearest thing above it."""
        return self._tree.nearest(path) if self._tree is not None else None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ResolvedSpec) and self.dump() == other.dump()

    __hash__ = None  # type: ignore[assignment]

    def dump(self) -> dict[str, Any]:
        """Plain data that resolves to this spec again."""
        data: dict[str, Any] = {"lamina": 1, **dump_config(self)}
        for block in data["blocks"].values():
            block["placement"] = "none"
        return data

    def to_yaml(self) -> str:
        """The text of a spec that resolves to this one."""
        return yaml.dump(_compact(self.dump()), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)

    def with_parts(self, **changes: Any) -> ResolvedSpec:
        """A copy with some top-level values replaced."""
        return self.model_copy(update=changes)


def parts_of(config: ComponentConfig) -> list[tuple[Part, tuple[Part, ...]]]:
    """Every part that stands in the slots of a block, say, and the parts it is inside of, the innermost first."""
    found: list[tuple[Part, tuple[Part, ...]]] = []

    def add(part: Part, inside: tuple[Part, ...]) -> None:
        found.append((part, inside))
        for _, child in part.children():
            add(child, (part, *inside))

    for name in slots(type(config)):
        value = getattr(config, name)
        for part in value if isinstance(value, list) else [value]:
            if part is not None:
                add(part, ())
    return found


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.Node:
        """Quoted where the reader, whose rules are not PyYAML's, would see something else in it."""
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if _is_text(text) else "'")


_Dumper.add_representer(str, _Dumper.represent_text)
SpecDumper = _Dumper  # for others that write specs


def _is_text(word: str) -> bool:
    try:
        return isinstance(plain_scalar(word), str)
    except OverflowError:
        return False


def _compact(data: Any) -> Any:
    """A mapping that holds nothing but a component's name becomes the bare name."""
    if isinstance(data, dict):
        bare = set(data) == {"name"} and isinstance(data["name"], str)  # and not a block that is called so
        return data["name"] if bare else {key: _compact(value) for key, value in data.items()}
    return [_compact(item) for item in data] if isinstance(data, list) else data
