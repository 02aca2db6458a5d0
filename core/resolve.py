"""Gives a spec its meaning: every name looked up, every default and derived size filled in, every problem collected.

    tree of nodes -> shorthand spelled out -> Configs read -> sizes derived -> neighbours checked -> ResolvedSpec

All problems are found in one go: what cannot be read is left out and the rest is read on.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lamina.core.component import Component, ComponentConfig, Part, Sized, call_with, slots
from lamina.core.config_reader import ConfigReader, an, say
from lamina.core.describe import say as tell
from lamina.core.errors import ConfigProblem, LaminaError, Location, did_you_mean
from lamina.core.reader import KeyPath, Node, from_data
from lamina.core.registry import Registry, load_plugins
from lamina.core.resolved import SLOTS, BlockConfig, ResolvedSpec, parts_of
from lamina.core.spec import Spec, merge

Facts = Mapping[str, Any]  # about a value in the context's store

# Where each placement puts the block's norm, and how the two sublayers follow each other.
PLACEMENTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "none": ("sequential", ()),
    "pre": ("sequential", ("attention_in", "ffn_in")),
    "post": ("sequential", ("attention_after", "ffn_after")),
    "sandwich": ("sequential", ("attention_in", "attention_out", "ffn_in", "ffn_out")),
    "output": ("sequential", ("attention_out", "ffn_out")),
    "parallel": ("parallel_shared", ("attention_in",)),
    "parallel_two": ("parallel", ("attention_in", "ffn_in")),
}


def resolve(spec: Spec, registry: Registry | None = None) -> ResolvedSpec:
    """Fill in and check. Raises SpecError with every problem. `registry` defaults to what is installed."""
    if spec.resolved is not None and registry in (None, spec.resolved.registry):
        return spec.resolved
    return _Resolver(registry or load_plugins()).spec(spec)


def resolve_data(
    data: Mapping[str, Any], registry: Registry | None = None, *, directory: Path | None = None
) -> ResolvedSpec:
    """Resolve a spec given as plain data."""
    tree = from_data(dict(data), Location("spec"))
    return _Resolver(registry or load_plugins()).spec(Spec(tree, (directory or Path()) / "spec.yaml"))


def resolve_part(kind: str, raw: Any, registry: Registry, *, where: str = "", **sizes: Any) -> Part:
    """One part from what a person would write for it: a name, a mapping, a node of a tree, or a Part already made."""
    if isinstance(raw, Part):
        return raw
    resolver = _Resolver(registry)
    node = resolver.tree = raw if isinstance(raw, Node) else from_data(raw, Location(where or f"{kind} {raw}"))
    part = resolver.part(kind, node, ())
    if part is not None:
        part = resolver.settle(part, sizes)
    resolver.finish()
    assert part is not None
    return part


def resolve_config(config: type[ComponentConfig], raw: Node, registry: Registry) -> Any:
    """Options that are no component's (train options, say) from a tree of nodes."""
    resolver = _Resolver(registry)
    made = resolver.config(config, raw, ())
    resolver.finish()
    return made


class _Resolver(ConfigReader):
    """Reads a whole spec."""

    opened: tuple[Any, Any] | None = None  # a tokenizer's Config and what it opened, to know its size

    def spec(self, spec: Spec) -> ResolvedSpec:
        self.tree = spec.tree
        self._version()
        self._spell_out()
        self._vocab_size(spec)
        made = self.config(ResolvedSpec, self.tree, ())
        self._check_layers(made)
        made = self._settle_spec(made)
        self._check_neighbours(made)
        self._check_streams(made)
        self._check_store(made)
        self._check_name(made)
        self.finish()
        assert isinstance(made, ResolvedSpec)
        made._directory, made._tree, made._registry = spec.directory, self.tree, self.registry
        made._origins, made._opened = self.origins, self.opened
        return made

    def _version(self) -> None:
        version = self.tree.value.get("lamina")
        if version is None:
            self.problem(
                "the key 'lamina' is missing", self.tree.location, "begin with `lamina: 1`, the format's version"
            )
        elif version.value != 1 or type(version.value) is not int:
            self.problem(
                f"format version {say(version.value)} is not known", version.location, "this lamina reads version 1"
            )

    def _spell_out(self) -> None:
        """Replace shorthand by what it stands for: block, layers as a number, extends within blocks, placement."""
        top: dict[str, Node] = {key: node for key, node in self.tree.value.items() if key != "lamina"}
        if (base := top.pop("extends", None)) is not None:
            self.problem("extends is read from a spec file only", base.location, "write it at the top of the file")
        if (block := top.pop("block", None)) is not None:
            if "blocks" in top:
                self.problem("both 'block' and 'blocks' are given", block.location, "keep one of them")
            top["blocks"] = Node({"block": block}, block.location, block.key_location)
        blocks = top.get("blocks")
        if (layers := top.get("layers")) is not None:
            top["layers"] = self._layers(layers, blocks)
        if blocks is not None and isinstance(blocks.value, dict):
            extended = {name: self._extend(name, blocks.value, ()) for name in blocks.value}
            spelled = {name: self._placement(node, top) for name, node in extended.items()}
            top["blocks"] = Node(spelled, blocks.location, blocks.key_location)
        self.tree = Node(top, self.tree.location)

    def _layers(self, layers: Node, blocks: Node | None) -> Node:
        """A number, or a mapping without a pattern, where there is one kind of block."""
        names = list(blocks.value) if blocks is not None and isinstance(blocks.value, dict) else ["block"]
        spelled = {"n_layers": layers} if type(layers.value) is int else layers.value
        if not isinstance(spelled, dict) or "pattern" in spelled:
            return layers
        if len(names) > 1:
            hint = "write {pattern: […], n_layers: …}"
            self.problem("there are several blocks, and layers has no pattern of them", layers.location, hint)
        pattern = Node([Node(name, layers.location) for name in names[:1]], layers.location, layers.key_location)
        return Node({"pattern": pattern, **spelled}, layers.location, layers.key_location)

    def _extend(self, name: str, blocks: dict[str, Node], above: tuple[str, ...]) -> Node:
        node = blocks[name]
        if not isinstance(node.value, dict) or "extends" not in node.value:
            return node
        own = Node(
            {key: value for key, value in node.value.items() if key != "extends"}, node.location, node.key_location
        )
        base = node.value["extends"]
        if not isinstance(base.value, str) or base.value not in blocks:
            hint = did_you_mean(base.value, list(blocks)) if isinstance(base.value, str) else "name another block"
            self.problem(f"no block is called {say(base.value)}", base.location, hint)
            return own
        if base.value in (name, *above):
            self.problem(f"block '{name}' extends itself", base.location)
            return own
        return merge(self._extend(base.value, blocks, (*above, name)), own)

    def _placement(self, block: Node, top: dict[str, Node]) -> Node:
        if not isinstance(block.value, dict):
            return block
        spelled = dict(block.value)
        placement = spelled.pop("placement", None)
        chosen = "pre" if placement is None else placement.value
        own_norm = spelled.pop("norm", None)
        norm = own_norm or top.get("norm")
        if not isinstance(chosen, str) or chosen not in PLACEMENTS:
            assert placement is not None
            self.problem(
                f"no placement is called {say(chosen)}",
                placement.location,
                did_you_mean(str(chosen), list(PLACEMENTS)),
                f"known: {', '.join(PLACEMENTS)}",
            )
            chosen = "none"
        flow, filled = PLACEMENTS[chosen]
        absent = {slot_name.split("_")[0] for slot_name in SLOTS} - {
            name for name in ("attention", "ffn") if (node := spelled.get(name)) is not None and node.value is not None
        }
        filled = tuple(name for name in filled if name.split("_")[0] not in absent)
        nameless = norm is None or (norm.value is None and placement is not None)
        if filled and nameless and not all(name in spelled for name in filled):
            self.problem(
                f"the block's placement '{chosen}' puts a norm at {' and '.join(filled)}, and none is named",
                (placement or block).location,
                "add `norm: rms` to the block or to the spec, or write `placement: none`",
            )
        elif norm is not None:
            for name in filled:
                spelled.setdefault(name, norm)
        if own_norm is not None and own_norm.value is not None and not filled:
            self.problem(
                "the block's placement puts this norm nowhere", own_norm.location, "remove it or the placement"
            )
        if flow != "sequential" and "flow" not in spelled:
            spelled["flow"] = Node(flow, (placement or block).location)
        if "position" not in spelled and "position" in top:
            spelled["position"] = top["position"]
        return Node(spelled, block.location, block.key_location)

    def _vocab_size(self, spec: Spec) -> None:
        """Take the vocabulary's size from a tokenizer that exists already, or see that its ids have room."""
        top: dict[str, Node] = self.tree.value
        node, given = top.get("tokenizer"), top.get("vocab_size")
        if node is None:
            return
        part = _Resolver(self.registry).part("tokenizer", node, ())
        if part is None:
            return  # the reason is found again when the spec is read
        tokenizer: Any = part.component
        if tokenizer.untrained(part.config):
            if given is None:
                self.told.add(("vocab_size",))
                self.problem("vocab_size is missing", node.location, "the tokenizer will be trained to this size")
            return
        try:
            self.opened = part.config, tokenizer.open(part.config, spec.directory)
            size = self.opened[1].vocab_size
        except LaminaError as error:
            if given is None:
                self.told.add(("vocab_size",))
                self.problem(error.message, node.location, "or write vocab_size, and the file can come later")
            return
        if given is None:
            top["vocab_size"] = Node(size, Location(f"the {part.name} tokenizer"))
        elif type(given.value) is int and given.value < size:
            self.problem(f"vocab_size is {given.value}, but the tokenizer has {size} ids", given.location)

    def _check_layers(self, spec: ResolvedSpec) -> None:
        blocks, layers = vars(spec).get("blocks"), vars(spec).get("layers")
        if not blocks or layers is None or ("layers",) in self.broken:
            return
        for index, name in enumerate(layers.pattern):
            if name not in blocks:
                place = self.tree.nearest(("layers", "pattern", index))
                self.problem(f"no block is called '{name}'", place, did_you_mean(name, list(blocks)))
        for name in blocks:
            if name not in layers.names:
                place = self.tree.nearest(("blocks", name))
                self.problem(f"no layer is a '{name}' block", place, "add it to layers.pattern, or remove it")

    def _settle_spec(self, spec: ResolvedSpec) -> ResolvedSpec:
        """Fill in what follows from sizes. What could not be read is absent or None here, and its sizes are unknown."""
        found = vars(spec)
        names = spec.layers.names if ("layers",) not in self.broken and "layers" in found else []
        sizes: dict[str, Any] = {name: found[name] for name in ("dim", "context_length", "vocab_size") if name in found}
        sizes |= {"n_layers": len(names)} if names else {}
        at_dim = {**sizes, "size": sizes["dim"]} if "dim" in sizes else sizes
        top: dict[str, Any] = {
            "blocks": {
                name: self._settle_block(
                    block, ("blocks", name), {**at_dim, "layer": names.index(name) if name in names else 0}
                )
                for name, block in found.get("blocks", {}).items()
            },
            "embedding": self._settle_fields(spec.embedding, ("embedding",), at_dim),
            "init": self._settle_fields(spec.init, ("init",), sizes),
            "train": self._settle_fields(spec.train, ("train",), sizes),
            "tokenizer": spec.tokenizer and self.settle(spec.tokenizer, sizes),
            "sampler": [self.settle(stage, sizes) for stage in spec.sampler],
            "norm": spec.norm and self.settle(spec.norm, at_dim),
        }
        if spec.position is not None and "embeddings" in acts_at(spec.position):
            top["position"] = self.settle(spec.position, sizes)
        return spec.model_copy(update=top)

    def _settle_block(self, block: BlockConfig, path: KeyPath, sizes: dict[str, Any]) -> BlockConfig:
        before = len(self.problems)
        updates = {
            name: self.settle(part, sizes)
            for name, part in vars(block).items()
            if isinstance(part, Part) and part.kind != "position"
        }
        if len(self.problems) > before:
            self.broken.add(path)
        attention = updates.get("attention")
        if block.position is None or (attention is not None and attention.path in self.broken):
            return block.model_copy(update=updates)
        own = attention and attention.component.position_sizes(attention.config)  # type: ignore[attr-defined]
        if own is not None or acts_at(block.position) <= {"embeddings"}:
            updates["position"] = self.settle(block.position, {**sizes, **(own or {})})
        return block.model_copy(update=updates)

    def _settle_fields(self, config: ComponentConfig, path: KeyPath, sizes: Mapping[str, Any]) -> Any:
        """The same for options that are no component's."""
        updates = {name: self.settle(value, sizes) for name, value in vars(config).items() if isinstance(value, Part)}
        derived = self._ask(config.derive, path=path, sizes=sizes) or {}
        self.origins |= {(*path, name): "derived" for name in _changed(config, derived)}
        return config.model_copy(update={**updates, **derived})

    def settle(self, part: Part, sizes: Mapping[str, Any]) -> Part:
        """Fill in what follows from the sizes, in this part and in those below it."""
        derived = self._ask(part.config.derive, path=part.path, sizes=sizes)
        config = part.config.model_copy(update=derived)
        requests = None if derived is None else self._ask(part.component.parts, config, path=part.path, sizes=sizes)
        if derived is None or requests is None:
            self.broken.add(part.path)
            return part
        self.origins |= {(*part.path, name): "derived" for name in _changed(part.config, derived)}
        asked = [request for value in requests.values() for request in (value if isinstance(value, list) else [value])]
        updates: dict[str, Any] = {}
        for name in slots(type(config)):
            value = getattr(config, name)
            if isinstance(value, Part):
                updates[name] = self._settle_child(value, asked, sizes)
            elif isinstance(value, list):
                updates[name] = [self._settle_child(child, asked, sizes) for child in value]
        settled = replace(part, config=config.model_copy(update=updates))
        if any(child.path in self.broken for _, child in settled.children()):
            self.broken.add(part.path)  # it may ask its sub-parts for what could not be worked out
        return settled

    def _ask(self, function: Callable[..., Any], *args: Any, path: KeyPath, sizes: Mapping[str, Any]) -> Any:
        """What a part makes of the sizes; None when they do not fit it or, after other problems, are not known."""
        if self.broken and _lacks(function, args, sizes):
            return None
        try:
            return call_with(function, *args, offered=sizes)
        except ConfigProblem as error:
            place = self.tree.at((*path, error.field))
            where = place.location if place is not None else self.tree.nearest(path)
            if all((problem.message, problem.location) != (error.message, where) for problem in self.problems):
                self.problem(error.message, where, error.hint, self._inherited(path, where))
            return None

    def _inherited(self, path: KeyPath, where: Location) -> str:
        """A note on which block is meant, where another one, which it extends, wrote the value."""
        blocks = self.tree.at(("blocks",))
        if path[:1] != ("blocks",) or blocks is None or not where.line:
            return ""
        begun = {name: node.location for name, node in blocks.value.items() if node.location.file == where.file}
        places = {(place.line, place.column): name for name, place in reversed(begun.items())}
        before = [place for place in places if place <= (where.line, where.column)]
        if not before or begun[writer := places[max(before)]] == begun.get(path[1]):
            return ""
        return f"block '{path[1]}' has this from block '{writer}'"

    def _settle_child(self, child: Part, asked: list[Sized | None], sizes: Mapping[str, Any]) -> Part:
        own = next((request.sizes for request in asked if request is not None and request.part is child), {})
        return self.settle(child, {**sizes, **own})

    def _check_neighbours(self, spec: ResolvedSpec) -> None:
        for name, block in vars(spec).get("blocks", {}).items():
            if ("blocks", name) in self.broken:
                continue
            parts = parts_of(block)
            top = [part for part, inside in parts if not inside]
            for part, inside in parts:
                if block.attention is None and part.kind == "position":
                    continue
                for kind, needs in part.component.requires(part.config).items():
                    for other in _asked(part, kind, inside, top):
                        if missing := needs - other.component.provides(other.config):
                            self._misfit(part, _to_blame(other, missing), missing)
            place = block.position
            if spec.position and "embeddings" in acts_at(place) and place.dump() != spec.position.dump():
                self.problem(
                    f"block '{name}': position '{place.name}' acts at the embeddings, which all blocks share",
                    self.tree.nearest(place.path),
                    "name it at the top of the spec",
                )
            for slot_name in SLOTS:
                kind = slot_name.split("_")[0]
                if getattr(block, kind) is None and getattr(block, slot_name) is not None:
                    place_in = self.tree.nearest(("blocks", name, slot_name))
                    self.problem(f"{slot_name} is a norm of {an(kind)}, and the block has none", place_in, "remove it")
            if block.flow != "sequential" and (block.attention is None or block.ffn is None):
                self.problem(
                    f"block '{name}': a parallel flow needs an attention and an ffn",
                    self.tree.nearest(("blocks", name)),
                )
            if block.ffn_residual is not None and (block.flow != "sequential" or block.ffn is None):
                why = "the block has no ffn" if block.ffn is None else "in a parallel flow one residual joins both"
                place_in = self.tree.nearest(("blocks", name, "ffn_residual"))
                self.problem(f"ffn_residual joins nothing: {why}", place_in, "remove it")
            if block.flow == "parallel_shared" and block.ffn_in is not None:
                place_in = self.tree.nearest(("blocks", name, "ffn_in"))
                self.problem(
                    "in a parallel_shared flow the ffn reads the attention's norm",
                    place_in,
                    "use placement: parallel_two",
                )

    def _check_name(self, spec: ResolvedSpec) -> None:
        name = vars(spec).get("name")
        if isinstance(name, str) and not (name.strip() and name.isprintable()):
            self.problem("the name must be a text that can be shown", self.tree.nearest(("name",)), "use letters")

    def _check_store(self, spec: ResolvedSpec) -> None:
        """What a layer reads of the context's store, an earlier one has left, and in the form wanted."""
        blocks = vars(spec).get("blocks", {})
        if "layers" not in vars(spec) or any(path[0] in ("blocks", "layers") for path in self.broken if path):
            return
        uses = {name: _store_uses(block) for name, block in blocks.items()}
        if not any(reads for use in uses.values() for _, reads, _ in use):
            return
        left: dict[str, tuple[Part, Facts]] = {}  # key -> who left it last, and facts about it
        for name in spec.layers.names:
            for part, reads, _ in uses.get(name, []):
                for key, wanted in reads.items():
                    self._check_read(part, key, wanted, left)
            left |= {key: (part, facts) for part, _, leaves in uses.get(name, []) for key, facts in leaves.items()}

    def _check_read(self, reader: Part, key: str, wanted: Facts, left: Mapping[str, tuple[Part, Facts]]) -> None:
        who, here = f"{reader.kind} '{reader.name}'", self.tree.nearest(reader.path)
        if key not in left:
            hint = f"earlier layers leave {', '.join(left) or 'nothing'}"
            self.problem(
                f"{who} reads '{key}', which no earlier layer leaves", here, did_you_mean(key, [*left]) or hint
            )
            return
        writer, facts = left[key]
        for fact, value in wanted.items():
            if facts.get(fact) != value:
                self.problem(
                    f"{who} reads '{key}' with {fact} {tell(value)}, and {writer.kind} '{writer.name}' "
                    f"({self.tree.nearest(writer.path)}) leaves it with {fact} {tell(facts.get(fact))}",
                    here,
                    "make the two alike",
                )

    def _check_streams(self, spec: ResolvedSpec) -> None:
        """All residuals must keep a stream of one form."""
        forms: dict[Hashable, Part] = {}
        for name, block in vars(spec).get("blocks", {}).items():
            if ("blocks", name) in self.broken:
                continue
            for part in (block.residual, block.ffn_residual):
                if part is not None:
                    form = part.component.stream(part.config)
                    forms.setdefault(form, part)
        if len(forms) > 1:
            first, *others = forms.values()
            for other in others:
                self.problem(
                    f"residual '{other.name}' keeps a stream of another form than '{first.name}' "
                    f"({self.tree.nearest(first.path)})",
                    self.tree.nearest(other.path),
                    "use one residual in all blocks",
                )

    def _misfit(self, part: Part, other: Part, missing: frozenset[str]) -> None:
        fitting = [
            entry.name
            for entry in self.registry.entries(other.kind)
            if missing <= _provides_by_default(entry.component)
        ]
        other_place = self.tree.nearest(other.path)
        self.problem(
            f"{part.kind} '{part.name}' needs {' and '.join(sorted(missing))} of the {other.kind}, "
            f"and '{other.name}' ({other_place}) does not provide it",
            self.tree.nearest(part.path),
            f"{other.kind}s that do: {', '.join(fitting)}" if fitting else "",
        )


def _asked(part: Part, kind: str, inside: tuple[Part, ...], top: list[Part]) -> list[Part]:
    """Whose `provides` has to hold what `part` requires of a kind: the parts of that kind inside it; where there are
    none the nearest it is inside of, which speaks for what that holds; else those that stand in the block beside it."""
    own = _outermost(part, kind)
    return own or [holder for holder in inside if holder.kind == kind][:1] or [o for o in top if o.kind == kind]


def _outermost(part: Part, kind: str) -> list[Part]:
    return [
        found for _, child in part.children() for found in ([child] if child.kind == kind else _outermost(child, kind))
    ]


def _to_blame(part: Part, missing: frozenset[str]) -> Part:
    """The part itself, or the one inside it that it lacks this for, as a wrapper does."""
    for child in _outermost(part, part.kind):
        if not missing & child.component.provides(child.config):
            return _to_blame(child, missing)
    return part


def _store_uses(block: BlockConfig) -> list[tuple[Part, Mapping[str, Facts], Mapping[str, Facts]]]:
    """Every part of a block that uses the context's store, what it reads and what it leaves."""
    place = {"position": block.position}
    found = [
        (part, *(call_with(ask, part.config, offered=place) for ask in (part.component.reads, part.component.leaves)))
        for part, _ in parts_of(block)
    ]
    return [use for use in found if use[1] or use[2]]


def acts_at(position: Part) -> frozenset[str]:
    acts: frozenset[str] = position.component.acts_at()  # type: ignore[attr-defined]
    return acts


def _changed(config: ComponentConfig, derived: Mapping[str, Any]) -> list[str]:
    """What was worked out, and not merely given back as it was written."""
    return [name for name, value in derived.items() if getattr(config, name) != value]


def _provides_by_default(component: type[Component]) -> frozenset[str]:
    try:
        return component.provides(component.Config.model_construct())
    except AttributeError:  # what it provides depends on options that have no default
        return frozenset()


def _lacks(function: Callable[..., Any], args: tuple[Any, ...], sizes: Mapping[str, Any]) -> bool:
    """Whether `function` asks for a size that is not known."""
    asked = list(inspect.signature(function).parameters.values())[len(args) :]
    return any(p.default is p.empty and p.name not in sizes for p in asked if p.kind is p.POSITIONAL_OR_KEYWORD)
