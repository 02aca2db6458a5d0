"""The family kind: how the checkpoints of one published architecture and lamina's specs say the same thing.

A family is one small file. It declares once, for import and for export,

- which `model_type` of a config.json it serves, and the class that transformers loads its exports with;
- a `template`: the spec as a person would write it, with one block for each *role* a layer may have (`sliding` and
  `full`, `dense` and `moe`, or one alone), holding what never changes;
- `keys`: for each key of the config the places of the spec that it sets, with the default of the config class;
- `moves`: for each tensor of the decoder the tensors of the checkpoint that hold it, and their layout.

How to add one, for a model like Llama (most are):

1. Copy `plugins/family/olmo2.py`, which has every part in a few lines. Derive from `LlamaLike` (core/llama_like.py),
   which knows a Llama's keys and tensor names, or from `TemplateFamily`, which knows none (`plugins/family/gpt2.py`).
2. Write the template with `llama_template({...})`, whose argument is laid over Llama's block. What differs from layer
   to layer is a role: `llama_template(blocks={"full": {...}, "sliding": {...}})`. Return each layer's from `roles`, and
   say in `write_roles` which keys tell of them again (`TypedLayers` does both for `layer_types`). Templates must
   differ in what they fix, since that is how an exported spec's blocks are told apart.
3. List the keys: `Key("rms_norm_eps", "norm.eps", default=1e-6)`. A path may begin with `blocks.*` for all roles; where
   a template has no part at a path the key sets nothing there. Take keys from the base by name with
   `without(LLAMA_KEYS, "num_key_value_heads")`, give them other defaults with
   `defaults(LLAMA_KEYS, rms_norm_eps=1e-5)`, and where roles have other attentions, say which roles a key is about:
   `in_roles(MAMBA2_KEYS, "mamba")`. Keys inside of another are a `Within`. What cannot be said so is an `Item` of your
   own with `read` and `write`, or code in `read` and `write` of the family after `super()`.
4. A key that changes nothing lamina computes goes into `ignored_keys`, one that acts in training alone into
   `training_keys`. Any other key of a config that no one took is refused by name. A value that a key may not have is
   refused by `values`, or by `Fixed("pretraining_tp", 1)` where only one is honoured.
5. Say where tensors lie: `norms` by slot, `attention_names`, `ffn_names`, `expert_names`, or override `layer_moves`,
   `attention_moves` and `ffn_moves`, which yield `move("attention.qkv", (…q, …k, …v), Joined(sizes))`. Layouts are in
   core/layout.py. Tensors that a checkpoint may have besides, and that say nothing, are named in `ignored_tensors`.
6. Name the module in `plugins/__init__.py` (or offer it by an entry point of your own), and add configs to the CASES of
   a `tests/plugins/family/cases_*.py`.

Export needs nothing more. It matches the spec's blocks with the template's roles, reads the keys' places, and imports
what it has written: where that gives another spec, those parts are named as what the family cannot say.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lamina.core.component import Component
from lamina.core.config_keys import ConfigKeys
from lamina.core.gguf.mapping import GGUF
from lamina.core.layout import Either, Move
from lamina.core.resolved import ResolvedSpec

Data = dict[str, Any]  # a spec, or a part of one, as plain data

# Keys that every config class has, or once had, and that change nothing a decoder computes.
IGNORED_KEYS = frozenset(
    """
    _attn_implementation _attn_implementation_autoset _commit_hash _name_or_path add_cross_attention architectures
    attn_implementation auto_map bad_words_ids begin_suppress_tokens bos_token_id chunk_size_feed_forward
    cross_attention_hidden_size decoder_start_token_id diversity_penalty do_sample dtype early_stopping
    encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty finetuning_task forced_bos_token_id
    forced_eos_token_id id2label initializer_range is_decoder is_encoder_decoder label2id length_penalty max_length
    min_length model_type no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_attentions
    output_hidden_states output_past output_scores pad_token_id prefix problem_type pruned_heads
    remove_invalid_values repetition_penalty return_dict return_dict_in_generate sep_token_id suppress_tokens
    task_specific_params temperature tf_legacy_loss tie_encoder_decoder tokenizer_class top_k top_p torch_dtype
    torchscript transformers_version typical_p unsloth_fixed unsloth_version use_bfloat16 use_cache
    """.split()  # noqa: SIM905 a list of eighty strings is harder to read
)

# transformers' names of activations -> lamina's. The first of several is what exports have.
ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu2",
    "leaky_relu": "leaky_relu",
    "hardswish": "hardswish",
    "quick_gelu": "quick_gelu",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "mish": "mish",
    "linear": "identity",
}
_ABSENT: Any = object()
ALL = "blocks.*."  # begins a path that is about the blocks of all roles


class Family(Component, ABC):
    """A published architecture: its configs and checkpoints as lamina's specs and decoders, and back."""

    kind = "family"
    model_types: ClassVar[tuple[str, ...]]  # of config.json; exports have the first
    architecture: ClassVar[str]  # transformers' class for language modelling
    rank: ClassVar[int] = 100  # of several families that can say a spec, the one with the lowest is exported
    base_prefix: ClassVar[str] = ""  # what a checkpoint of the model without its head leaves out of names
    ignored_keys: ClassVar[tuple[str, ...]] = ()  # config keys that change nothing lamina computes
    training_keys: ClassVar[tuple[str, ...]] = (
        "attention_dropout",
    )  # that act in training alone, and are not taken over
    ignored_tensors: ClassVar[tuple[str, ...]] = ("*.rotary_emb.inv_freq",)  # patterns of tensors that say nothing
    gguf: ClassVar[GGUF | None] = None  # how llama.cpp's files say it, where llama.cpp knows it

    @abstractmethod
    def read(self, config: ConfigKeys) -> Data:
        """A config -> the spec as plain data, in full; what equals a default is left out later."""

    @abstractmethod
    def write(self, spec: ResolvedSpec) -> dict[str, Any]:
        """A spec -> the config. It need not check that the spec fits: that is found by reading what it has written."""

    @abstractmethod
    def moves(self, spec: ResolvedSpec) -> Iterable[Move | Either]:
        """Where the checkpoint keeps each tensor of the decoder. Moves of tensors that it has not are left out."""


class Item(ABC):
    """Something that a config and a spec both say."""

    @abstractmethod
    def read(self, config: ConfigKeys, data: Data) -> None:
        """Take keys of `config` and set what they mean in `data`."""

    @abstractmethod
    def write(self, data: Data, config: dict[str, Any]) -> None:
        """Set keys of `config` from `data`, a resolved spec with its blocks by role."""

    def narrowed(self, roles: Sequence[str]) -> Item:
        """The same, about the blocks of these roles, where this is about all blocks."""
        return self


@dataclass(frozen=True)
class Key(Item):
    """One key and the places of the spec that hold its value.

    `values` translates, and refuses what it does not have; `to` and its inverse `back` are for numbers said in another
    way. `older` are names the key once had.
    """

    name: str
    paths: tuple[str, ...]
    default: Any = None
    values: Mapping[Any, Any] | None = None
    older: tuple[str, ...] = ()
    required: bool = False
    to: Callable[[Any], Any] | None = None
    back: Callable[[Any], Any] | None = None

    def __init__(
        self,
        name: str,
        *paths: str,
        default: Any = None,
        values: Mapping[Any, Any] | None = None,
        older: Sequence[str] = (),
        required: bool = False,
        to: Callable[[Any], Any] | None = None,
        back: Callable[[Any], Any] | None = None,
    ) -> None:
        given = {"name": name, "paths": paths, "default": default, "values": values, "older": tuple(older)}
        for key, value in {**given, "required": required, "to": to, "back": back}.items():
            object.__setattr__(self, key, value)

    def read(self, config: ConfigKeys, data: Data) -> None:
        value = config.get(self.name, self.default, *self.older)
        if value is None and self.required:
            config.wrong(self.name, "missing")
        if self.values is not None:
            if isinstance(value, (list, dict)) or value not in self.values:
                known = ", ".join(map(str, self.values))
                config.wrong(self.name, f"no component honours {value!r}; known: {known}")
                return
            value = self.values[value]
        if value is not None and self.to is not None:
            try:
                value = self.to(value)
            except (TypeError, ValueError, ArithmeticError):
                config.wrong(self.name, f"{value!r} cannot be")
                return
        if value is not None:
            for path in self.paths:
                put(data, path, value)

    def write(self, data: Data, config: dict[str, Any]) -> None:
        value = next((found for path in self.paths for found in pick(data, path)), _ABSENT)
        if value is _ABSENT:
            config[self.name] = self.default
        elif self.values is None:
            config[self.name] = value if self.back is None or value is None else exact(self.back(value))
        else:
            name = value["name"] if isinstance(value, dict) else value
            config[self.name] = next((theirs for theirs, ours in self.values.items() if ours == name), self.default)

    def narrowed(self, roles: Sequence[str]) -> Key:
        made = copy.copy(self)
        paths = [
            f"blocks.{role}.{path.removeprefix(ALL)}" if path.startswith(ALL) else path
            for path in self.paths
            for role in roles
        ]
        object.__setattr__(made, "paths", tuple(dict.fromkeys(paths)))
        return made


@dataclass(frozen=True)
class Fixed(Item):
    """A key of which one value alone is honoured."""

    name: str
    value: Any

    def read(self, config: ConfigKeys, data: Data) -> None:
        found = config.get(self.name, self.value)
        if found != self.value and (found or self.value):
            config.wrong(self.name, f"no component honours {found!r}, only {self.value!r}")

    def write(self, data: Data, config: dict[str, Any]) -> None:
        config[self.name] = self.value


@dataclass(frozen=True)
class Within(Item):
    """Keys inside of a mapping that is itself one."""

    name: str
    items: tuple[Item, ...]
    ignored: tuple[str, ...] = ()
    required: bool = False

    def read(self, config: ConfigKeys, data: Data) -> None:
        found = config.get(self.name) or {}
        if self.required and not found:
            config.wrong(self.name, "missing")
        if not isinstance(found, dict):
            config.wrong(self.name, f"{found!r} is no mapping")
            return
        keys = ConfigKeys(found)
        for item in self.items:
            item.read(keys, data)
        for problem in keys.problems:
            config.wrong(self.name, problem)
        for key in keys.left({*IGNORED_KEYS, *self.ignored}):
            config.wrong(f"{self.name}.{key}", f"no component honours {found[key]!r}")

    def write(self, data: Data, config: dict[str, Any]) -> None:
        made = config.setdefault(self.name, {})
        for item in self.items:
            item.write(data, made)


def exact(value: float) -> float:
    """A number that came out of roots and quotients, as the whole number next to it if there is one."""
    return round(value) if abs(value - round(value)) < 1e-9 * abs(value) else value


def inverse_root(value: float) -> float:
    """1 / sqrt(value): a scale of scores from the width it stands for."""
    return float(value**-0.5)


def inverse_square(value: float) -> float:
    """1 / value², which undoes `inverse_root`."""
    return float(value**-2)


def without(items: Iterable[Item], *names: str) -> tuple[Item, ...]:
    """Those that are not called one of `names`."""
    return tuple(item for item in items if getattr(item, "name", None) not in names)


def with_default(key: Key, default: Any) -> Key:
    """The same key with another default."""
    made = copy.copy(key)
    object.__setattr__(made, "default", default)
    return made


def defaults(items: Iterable[Item], **values: Any) -> tuple[Item, ...]:
    """The same, keys called by these names having these defaults."""
    return tuple(
        with_default(item, values[item.name]) if isinstance(item, Key) and item.name in values else item
        for item in items
    )


def in_roles(items: Iterable[Item], *roles: str) -> tuple[Item, ...]:
    """The same, about the blocks of these roles alone."""
    return tuple(item.narrowed(roles) for item in items)


def only(items: Iterable[Item], *names: str) -> tuple[Item, ...]:
    """Those that are called one of `names`."""
    return tuple(item for item in items if getattr(item, "name", None) in names)


def put(data: Data, path: str, value: Any) -> None:
    """Set what stands at a dotted path, where there is a part to hold it; `*` stands for every key."""
    head, _, rest = path.partition(".")
    if not rest:
        data[head] = value
        return
    for key in list(data) if head == "*" else [head]:
        below = data.get(key)
        if isinstance(below, str):
            below = data[key] = {"name": below}
        if isinstance(below, dict):
            put(below, rest, value)


def pick(data: Any, path: str) -> list[Any]:
    """What stands at a dotted path; `*` stands for every key. Nothing where a part is missing."""
    if not path:
        return [data]
    head, _, rest = path.partition(".")
    if not isinstance(data, dict):
        return []
    return [found for key in (data if head == "*" else [head]) if key in data for found in pick(data[key], rest)]


class TemplateFamily(Family):
    """A family that is said by a template and a list of keys."""

    template: ClassVar[Mapping[str, Any]]  # a spec; `blocks` has one for each role
    keys: ClassVar[tuple[Item, ...]]

    def roles(self, config: ConfigKeys, n_layers: int) -> list[str]:
        """The role of each layer. Default: the template has one."""
        return [next(iter(self.template["blocks"]))] * n_layers

    def write_roles(self, roles: list[str], config: dict[str, Any]) -> None:
        """Set the keys that tell the layers' roles."""

    def read(self, config: ConfigKeys) -> Data:
        data = copy.deepcopy(dict(self.template))
        for item in self.keys:
            item.read(config, data)
        n_layers = data.pop("n_layers", None)
        if type(n_layers) is not int or not 0 < n_layers <= 10_000:
            config.wrong("the number of layers", f"{n_layers!r}")
            n_layers = 1
        roles = self.roles(config, n_layers)
        data["blocks"] = {role: block for role, block in data["blocks"].items() if role in roles}
        data["layers"] = {"pattern": roles, "n_layers": n_layers}
        return data

    def write(self, spec: ResolvedSpec) -> dict[str, Any]:
        data, roles = self.by_role(spec)
        config: dict[str, Any] = {}
        for item in self.keys:
            item.write(data, config)
        self.write_roles(roles, config)
        return config

    def by_role(self, spec: ResolvedSpec) -> tuple[Data, list[str]]:
        """The spec as plain data with a block for each role that some layer has, and each layer's role."""
        data = spec.dump()
        templates = self.template["blocks"]
        role_of = {
            name: min(templates, key=lambda role: mismatches(templates[role], block))
            for name, block in data["blocks"].items()
        }
        blocks: Data = {}
        for name in spec.layers.names:
            blocks.setdefault(role_of[name], data["blocks"][name])
        data["blocks"] = {role: blocks[role] for role in templates if role in blocks}
        data["n_layers"] = spec.layers.n_layers
        return data, [role_of[name] for name in spec.layers.names]

    def role_names(self, spec: ResolvedSpec) -> list[str]:
        return self.by_role(spec)[1]


def mismatches(template: Any, found: Any) -> int:
    """How many of the values that a template fixes are others in a part of a resolved spec."""
    if isinstance(template, str) and isinstance(found, dict):
        return int(found.get("name") != template)
    if isinstance(template, dict):
        if not isinstance(found, dict):
            return 1 + len(template)
        return sum(mismatches(value, found[key]) for key, value in template.items() if key in found) + sum(
            value is not None
            for key, value in template.items()
            if key not in found and key not in ("norm", "placement")
        )
    return int(template != found)
