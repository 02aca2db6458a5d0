"""What specs mean: shorthand, defaults, derived sizes, neighbours; and every problem told at once, with its line."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field
from tiny_specs import REGISTRY, resolved, spec_data, tiny_specs

from lamina.core import (
    Attention,
    ComponentConfig,
    ConfigProblem,
    Context,
    LayerState,
    Part,
    Position,
    Register,
    hookimpl,
    slot,
)
from lamina.core.component import Component
from lamina.core.errors import SpecError
from lamina.core.reader import MAX_PROBLEMS, read_text
from lamina.core.registry import Plugin, Registry, load_plugin
from lamina.core.resolve import resolve, resolve_config, resolve_data, resolve_part
from lamina.core.resolved import SLOTS, ResolvedSpec, parts_of
from lamina.core.spec import Spec, load_spec

TOP = """lamina: 1
vocab_size: 64
dim: 16
context_length: 32
position: rope
norm: rms
"""
ONE = "block:\n  attention: {name: gqa, n_heads: 2}\n  ffn: gated\nlayers: 2\n"
some = settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))


def made(text: str, registry: Registry = REGISTRY, folder: Path | None = None) -> ResolvedSpec:
    return resolve(Spec(read_text(text, "s.yaml"), (folder or Path()) / "s.yaml"), registry)


def refusal(text: str, registry: Registry = REGISTRY) -> SpecError:
    with pytest.raises(SpecError) as caught:
        made(text, registry)
    return caught.value


def lines(error: SpecError) -> list[int]:
    return [problem.location.line if problem.location else 0 for problem in error.problems]


def plugin(name: str, **components: type[Component]) -> Plugin:
    @hookimpl
    def register_components(register: Register) -> None:
        for component_name, component in components.items():
            register(component_name, component)

    module = SimpleNamespace(register_components=register_components)
    return load_plugin(name, name, name, "1", lambda: module)


class Deaf(Attention):
    """Takes no position and no mask."""

    def make_state(self, *args: Any) -> LayerState:
        raise NotImplementedError

    def forward(self, x: Any, context: Context, cache: LayerState | None = None) -> Any:
        return x


class Masked(Deaf):
    """Has a mask it does not honour."""

    class Config(ComponentConfig):
        mask: Part = slot("mask", "causal", description="Which keys a query sees.")


class Both(Deaf):
    """Mixes tokens in two ways side by side, of which the second takes no position."""

    class Config(ComponentConfig):
        first: Part = slot("attention", description="Takes the position.")
        second: Part = slot("attention", "deaf", description="Takes none.")

    @classmethod
    def provides(cls, config: Any) -> frozenset[str]:
        return frozenset({"queries_keys"})

    @classmethod
    def position_sizes(cls, config: Any) -> dict[str, int] | None:
        sizes: dict[str, int] | None = config.first.component.position_sizes(config.first.config)
        return sizes


# Reading: every problem at once


def test_all_problems_of_a_spec_come_in_one_error_in_the_order_of_their_lines() -> None:
    error = refusal("""lamina: 1
vocab_size: many
dim: 16
contxt_length: 32
position: rop
norm: {name: rms, eps: -1}
block:
  attention: {name: gqa, n_heads: 3}
  ffn: {name: gated, hiden_dim: 3}
layers: 0
""")
    assert lines(error) == [1, 2, 4, 5, 6, 8, 9, 10]
    said = str(error)
    assert "'context_length' is missing" in said
    assert "s.yaml:2:13: vocab_size must be an integer, not 'many'" in said
    assert "s.yaml:4:1: unknown key 'contxt_length'" in said
    assert "^^^^^^^^^^^^^ did you mean 'context_length'?" in said
    assert "s.yaml:5:11: no position is called 'rop'" in said
    assert "did you mean 'rope'?" in said
    assert "s.yaml:6:24: eps of norm 'rms' must be greater than 0, not -1" in said
    assert "s.yaml:8:35: dim (16) must be a multiple of n_heads (3)" in said
    assert "s.yaml:9:22: unknown key 'hiden_dim' for ffn 'gated'" in said
    assert "s.yaml:10:9: layers.n_layers must be at least 1, not 0" in said


def test_a_fault_that_stands_in_several_slots_is_told_once() -> None:
    error = refusal(TOP.replace("norm: rms", "norm: {name: rms, eps: 0, affin: true}") + ONE)
    assert [problem.message for problem in error.problems] == [
        "eps of norm 'rms' must be greater than 0, not 0",
        "unknown key 'affin' for norm 'rms'",
    ]


def test_a_part_named_at_the_top_and_used_in_blocks_is_told_once() -> None:
    error = refusal(TOP.replace("rope", "roap") + ONE.replace("gqa, n_heads: 2", "gqa, n_heads: 3"))
    assert lines(error) == [5, 8]


def test_of_very_many_problems_the_first_are_told() -> None:
    assert len(refusal(TOP + ONE + "".join(f"odd{i}: 1\n" for i in range(3000))).problems) == MAX_PROBLEMS


def test_an_unknown_component_lists_the_known_and_the_plugins_that_failed() -> None:
    failed = load_plugin("acme", "acme", "acme-parts", "2", lambda: __import__("no_such_module_here"))
    error = refusal(TOP + ONE.replace("gqa", "acme_attention"), Registry.of([*REGISTRY.plugins, failed]))
    assert str(error).startswith("s.yaml:8:21: no attention is called 'acme_attention'")
    assert f"known: {', '.join(REGISTRY.names('attention'))}" in str(error)
    assert "plugin 'acme' failed to load (No module named 'no_such_module_here') and may provide it" in str(error)


def test_missing_everything_is_told_by_name() -> None:
    said = str(refusal("name: x\n"))
    for key in ("lamina", "vocab_size", "dim", "context_length", "blocks", "layers"):
        assert f"'{key}' is missing" in said


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("dim: 16", "dim: [16]"), "s.yaml:3:6: dim must be an integer, not a list"),
        (("dim: 16", "dim: 16.5"), "dim must be an integer, not 16.5"),
        (("dim: 16", "dim:"), "dim must be an integer, not null"),
        (("dim: 16", "dim: true"), "dim must be an integer, not true"),
        (("dim: 16", "dim: 0"), "dim must be at least 1, not 0"),
        (("dim: 16", f"dim: {2**40}"), "dim must be at most 1048576"),
        (("lamina: 1", "lamina: 2"), "s.yaml:1:9: format version 2 is not known"),
        (("lamina: 1", "lamina: true"), "format version true is not known"),
        (("lamina: 1", "lamina: '1'"), "format version '1' is not known"),
        (("norm: rms", "norm: []"), "s.yaml:6:7: norm must name a norm; it is a list"),
        (("norm: rms", "norm: {eps: 1e-5}"), "norm must name a norm; the mapping has no 'name'"),
        (("norm: rms", "norm: 7"), "norm must name a norm; it is 7"),
        (("norm: rms", "norm: ''"), "norm must name a norm; it is ''"),
        (("norm: rms", "norm: {name: rms, eps: .inf}"), "eps of norm 'rms' must be a number, not '.inf'"),
        (("norm: rms", "norm: {name: rms, eps: 1e999}"), "eps of norm 'rms' must be a finite number"),
        (("norm: rms", "norm: {name: rms, affine: no}"), "affine of norm 'rms' must be true or false, not 'no'"),
        (("norm: rms", "norm: {name: rms, 5: no}"), "unknown key '5' for norm 'rms'"),
        (("position: rope", "position:"), "position must name a position; it is null"),
        (
            ("ffn: gated", "ffn: {name: gated, activation: [silu]}"),
            "ffn.activation must name an activation; it is a list",
        ),
        (("n_heads: 2", "n_heads: 2, mask: sliding"), "s.yaml:8:44: 'window' is missing for mask 'sliding'"),
        (("  ffn: gated\n", ""), "'ffn' is missing for block 'block'"),
        (("ffn: gated", "ffn: {name: [gated]}"), "ffn must name an ffn"),
        (("layers: 2", "layers: many"), "layers must be a mapping, not 'many'"),
        (("layers: 2", "layers: -2"), "layers.n_layers must be at least 1, not -2"),
        (("layers: 2", "layers: {pattern: block, n_layers: 2}"), "layers.pattern must be a list, not 'block'"),
        (("layers: 2", "layers: {pattern: [1], n_layers: 2}"), "layers.pattern.0 must be a text, not 1"),
        (("layers: 2", "layers: {pattern: [], n_layers: 2}"), "layers.pattern must be at least 1 long"),
        (("layers: 2", "layers: {pattern: [blok], n_layers: 2}"), "no block is called 'blok'"),
        (("layers: 2", "layers: 2\nembedding: 5"), "embedding must be a mapping, not 5"),
        (("layers: 2", "layers: 2\nembedding: {scale: big}"), "embedding.scale must be "),
        (("layers: 2", "layers: 2\nhead: {softcap: 0}"), "head.softcap must be greater than 0, not 0"),
        (("layers: 2", "layers: 2\ntrain: {steps: 0}"), "train.steps must be at least 1, not 0"),
        (("layers: 2", "layers: 2\ntrain: {optimizer: adam}"), "no optimizer is called 'adam'"),
        (("layers: 2", "layers: 2\nsampler: [{name: top_k, k: 0}]"), "k of sampler 'top_k' must be at least 1, not 0"),
        (("layers: 2", "layers: 2\nsampler: [[greedy]]"), "sampler.0 must name a sampler; it is a list"),
        (("layers: 2", "layers: 2\nextends: x.yaml"), "extends is read from a spec file only"),
        (("block:", "blocks:\n block: x\nblock:"), "both 'block' and 'blocks' are given"),
        (("block:", "blocks: 5\nblok:"), "blocks must be a mapping, not 5"),
        (("block:", "blocks: {}\nblok:"), "blocks must be at least 1 long"),
        (("block:", "blocks: {a: 5}\nblok:"), "block 'a' must be a mapping, not 5"),
        (("ffn: gated", "ffn: gated\n  placement: prae"), "s.yaml:10:14: no placement is called 'prae'"),
        (("ffn: gated", "ffn: gated\n  placement: {name: pre}"), "no placement is called a mapping"),
        (("ffn: gated", "ffn: gated\n  placement:"), "no placement is called null"),
        (("ffn: gated", "ffn: gated\n  extends: [block]"), "no block is called a list"),
        (("ffn: gated", "ffn: gated\n  extends: blokc"), "did you mean 'block'?"),
        (("ffn: gated", "ffn: gated\n  extends: block"), "block 'block' extends itself"),
        (("vocab_size: 64\n", ""), "'vocab_size' is missing"),
        (("vocab_size: 64", "tokenizer: bpe"), "vocab_size is missing"),
        (("vocab_size: 64", "tokenizer: byt"), "no tokenizer is called 'byt'"),
        (("vocab_size: 64", "tokenizer: {name: bpe, path: absent.json}"), "absent.json' does not exist"),
        (("vocab_size: 64", "vocab_size: 256\ntokenizer: byte"), "vocab_size is 256, but the tokenizer has 257 ids"),
    ],
)
def test_what_is_wrong_with_one_value_is_told(change: tuple[str, str], says: str) -> None:
    text = TOP + ONE
    assert change[0] in text
    assert says in str(refusal(text.replace(*change)))


@pytest.mark.parametrize("tokenizer", ["bpe", "{name: bpe, path: absent.json}"])
def test_a_vocabulary_of_unknown_size_is_told_once(tokenizer: str) -> None:
    assert len(refusal(TOP.replace("vocab_size: 64", f"tokenizer: {tokenizer}") + ONE).problems) == 1


def test_long_values_are_not_told_at_length() -> None:
    problem = refusal(TOP.replace("dim: 16", f"dim: {'x' * 5000}") + ONE).problems[0]
    assert len(problem.message) < 100


# Blocks, placements, layers


def slots_of(text: str) -> dict[str, set[str]]:
    """Block -> the slots that hold a norm."""
    resolved = made(text)
    return {name: {slot for slot in SLOTS if getattr(block, slot)} for name, block in resolved.blocks.items()}


@pytest.mark.parametrize(
    ("placement", "slots", "flow"),
    [
        (None, {"attention_in", "ffn_in"}, "sequential"),
        ("pre", {"attention_in", "ffn_in"}, "sequential"),
        ("post", {"attention_after", "ffn_after"}, "sequential"),
        ("sandwich", {"attention_in", "attention_out", "ffn_in", "ffn_out"}, "sequential"),
        ("output", {"attention_out", "ffn_out"}, "sequential"),
        ("parallel", {"attention_in"}, "parallel_shared"),
        ("parallel_two", {"attention_in", "ffn_in"}, "parallel"),
        ("none", set(), "sequential"),
    ],
)
def test_a_placement_stands_for_slots_and_a_flow(placement: str | None, slots: set[str], flow: str) -> None:
    text = TOP + ONE + (f"  placement: {placement}\n" if placement else "")
    text = TOP + ONE.replace("layers", f"  placement: {placement}\nlayers" if placement else "layers")
    assert slots_of(text)["block"] == slots
    assert made(text).blocks["block"].flow == flow


def test_a_norm_named_in_the_block_goes_before_the_one_at_the_top() -> None:
    resolved = made(TOP + ONE.replace("ffn: gated", "ffn: gated\n  norm: layer\n  ffn_in: {name: rms, eps: 0.5}"))
    block = resolved.blocks["block"]
    assert block.attention_in is not None
    assert block.ffn_in is not None
    assert resolved.norm is not None
    assert (block.attention_in.name, block.ffn_in.config.eps, resolved.norm.name) == ("layer", 0.5, "rms")  # type: ignore[attr-defined]


def test_a_placement_without_a_norm_says_where_one_is_wanted() -> None:
    error = refusal(TOP.replace("norm: rms\n", "") + ONE)
    assert "placement 'pre' puts a norm at attention_in and ffn_in, and none is named" in str(error)
    error = refusal(TOP + ONE.replace("ffn:", "placement: post\n  norm: null\n  ffn:"))
    assert "placement 'post' puts a norm at attention_after and ffn_after, and none is named" in str(error)
    assert not any(slots_of(TOP.replace("norm: rms", "norm: null") + ONE).values())


def test_a_norm_that_stands_nowhere_is_an_error() -> None:
    nowhere = ONE.replace("ffn: gated", "ffn: gated\n  placement: none\n  norm: layer")
    assert "s.yaml:11:9: the block's placement puts this norm nowhere" in str(refusal(TOP + nowhere))
    absent = ONE.replace("ffn: gated", "ffn: null\n  ffn_in: layer")
    assert "ffn_in is a norm of an ffn, and the block has none" in str(refusal(TOP + absent))


def test_a_block_may_do_without_attention_or_without_ffn() -> None:
    text = TOP + "blocks:\n  a: {attention: {name: gqa, n_heads: 2}, ffn: null}\n  b: {attention: null, ffn: mlp}\n"
    text += "layers: {pattern: [a, b], n_layers: 3}\n"
    assert slots_of(text) == {"a": {"attention_in"}, "b": {"ffn_in"}}
    assert made(text).layers.names == ["a", "b", "a"]
    parallel = text.replace("ffn: null", "ffn: null, placement: parallel")
    assert "a parallel flow needs an attention and an ffn" in str(refusal(parallel))


def test_blocks_extend_each_other_in_chains() -> None:
    resolved = made(
        TOP
        + """blocks:
  c: {extends: b, ffn: mlp}
  b: {extends: a, attention: {mask: {name: sliding, window: 4}}, position: none}
  a: {attention: {name: gqa, n_heads: 4}, ffn: gated, placement: post}
layers: {pattern: [a, b, c], n_layers: 3}
"""
    )
    block = resolved.blocks["c"]
    assert block.attention is not None
    assert block.ffn is not None
    assert block.attention.config.n_heads == 4  # type: ignore[attr-defined]
    assert block.attention.config.mask.name == "sliding"  # type: ignore[attr-defined]
    assert (block.ffn.name, block.position.name, resolved.blocks["a"].position.name) == ("mlp", "none", "rope")
    assert block.ffn_after is not None


def test_a_mistake_made_of_anothers_values_says_whose_it_is() -> None:
    blocks = """blocks:
  a: {attention: {name: gqa, n_heads: 4, qk_norm: rms, qk_norm_at: after}, ffn: gated}
  b: {extends: a, attention: {qk_norm: null}}
  c: {extends: a}
layers: {pattern: [a, b, c], n_layers: 3}
"""
    (inherited,) = refusal(TOP + blocks).problems
    assert inherited.message == "qk_norm_at has no meaning without qk_norm"
    assert inherited.note == "block 'b' has this from block 'a'"
    (own,) = refusal(TOP + blocks.replace("null", "rms").replace("n_heads: 4", "n_heads: 5")).problems
    assert (own.message.partition(" (")[0], own.note) == ("dim", "")


def test_blocks_that_extend_each_other_in_a_ring_are_told() -> None:
    ring = "blocks:\n  a: {extends: b}\n  b: {extends: a}\nlayers: {pattern: [a, b], n_layers: 2}\n"
    assert "extends itself" in str(refusal(TOP + ring))


def test_a_pattern_repeats_until_every_layer_has_a_block() -> None:
    blocks = "blocks:\n  a: &a {attention: {name: gqa, n_heads: 2}, ffn: mlp}\n  b: *a\n"
    text = TOP + blocks + "layers: {pattern: [a, a, b], n_layers: 7}\n"
    assert made(text).layers.names == list("aabaaba")
    unused = refusal(TOP + blocks + "layers: {pattern: [a, a, b], n_layers: 2}\n")
    assert "no layer is a 'b' block" in str(unused)
    assert "there are several blocks" in str(refusal(TOP + blocks + "layers: 4\n"))
    assert made(TOP + ONE.replace("layers: 2", "layers: {n_layers: 3}")).layers.names == ["block"] * 3


def test_a_block_may_have_any_name_that_yaml_can_write() -> None:
    for name in ("name", "1e5", "no", "a b", "é", "null"):
        spec = resolve_data(
            {
                **yaml.safe_load(TOP),
                "blocks": {name: {"attention": None, "ffn": "mlp"}},
                "layers": {"pattern": [name], "n_layers": 1},
                "name": name,
            },
            REGISTRY,
        )
        assert made(spec.to_yaml()) == spec


# Sizes and defaults


def test_sizes_left_open_are_worked_out_and_defaults_written_down() -> None:
    resolved = made(TOP + ONE)
    attention = resolved.blocks["block"].attention
    assert attention is not None
    expected = {
        "name": "gqa",
        "n_heads": 2,
        "n_kv_heads": 2,
        "head_dim": 8,
        "value_dim": 8,
        "bias": False,
        "out_bias": False,
        "mask": {"name": "causal"},
        "qk_norm": None,
        "scale": 8**-0.5,
        "softcap": None,
    }
    assert expected.items() <= attention.dump().items()
    assert resolved.train.context == 32


def test_every_value_knows_where_it_came_from() -> None:
    origins = made(TOP + ONE).origins
    block = ("blocks", "block")
    assert origins[("dim",)] == "s.yaml:3:6"
    assert origins[(*block, "attention", "n_heads")] == "s.yaml:8:35"
    assert origins[(*block, "attention", "head_dim")] == "derived"
    assert origins[(*block, "ffn", "bias")] == "default of ffn 'gated'"
    assert origins[("train", "context")] == "derived"


def test_what_was_written_is_not_called_derived_where_it_could_have_been() -> None:
    position = "position: {name: rope, scaling: {name: yarn, original_context_length: 16, factor: 4}}"
    origins = made(TOP.replace("position: rope", position) + ONE).origins
    path = ("blocks", "block", "position", "scaling")
    assert origins[(*path, "factor")].startswith("s.yaml:")
    assert origins[(*path, "attention_factor")] == "derived"


def test_the_size_of_the_vocabulary_is_the_tokenizers_where_it_is_known() -> None:
    assert made(TOP.replace("vocab_size: 64", "tokenizer: byte") + ONE).vocab_size == 257
    assert made(TOP.replace("vocab_size: 64", "vocab_size: 300\ntokenizer: byte") + ONE).vocab_size == 300


def _open_fields(config: ComponentConfig) -> set[tuple[str, str]]:
    """Fields that are None although their description tells what stands in for a value left out."""
    found = set()
    for name, info in type(config).model_fields.items():
        value = getattr(config, name)
        if value is None and "Default:" in (info.description or ""):
            found.add((type(config).__name__, name))
        values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
        for below in values:
            inner = below.config if isinstance(below, Part) else below
            unused = isinstance(below, Part) and below.kind == "position"  # unless some attention takes it
            if isinstance(inner, ComponentConfig) and not unused:
                found |= _open_fields(inner)
    return found


@some
@given(spec=tiny_specs())
def test_after_resolving_no_value_is_left_to_be_worked_out(spec: ResolvedSpec) -> None:
    assert not _open_fields(spec)
    for block in spec.blocks.values():
        attention: Any = block.attention
        if attention is not None and attention.component.position_sizes(attention.config) is not None:
            assert not _open_fields(block.position.config)


@some
@given(spec=tiny_specs())
def test_a_resolved_spec_written_as_yaml_resolves_to_itself(spec: ResolvedSpec) -> None:
    again = made(spec.to_yaml())
    assert again == spec
    assert again.to_yaml() == spec.to_yaml()
    assert resolve_data(spec.dump(), REGISTRY) == spec


@settings(max_examples=100, derandomize=True)
@given(name=st.text(st.characters(exclude_categories=["Cs"]), max_size=12))
def test_any_name_that_can_be_shown_survives_being_written(name: str) -> None:
    if not (name.strip() and name.isprintable()):
        with pytest.raises(SpecError, match="the name must be a text that can be shown"):
            resolve_data({**yaml.safe_load(TOP + ONE), "name": name}, REGISTRY)
        return
    spec = resolve_data({**yaml.safe_load(TOP + ONE), "name": name}, REGISTRY)
    assert made(spec.to_yaml()).name == name


def test_resolving_changes_neither_the_tree_nor_the_data() -> None:
    spec = Spec(read_text(TOP + ONE, "s.yaml"), Path("s.yaml"))
    before = spec.tree.plain()
    assert resolve(spec, REGISTRY) == resolve(spec, REGISTRY)
    assert spec.tree.plain() == before
    data = yaml.safe_load(TOP + ONE)
    kept = copy.deepcopy(data)
    resolve_data(data, REGISTRY)
    assert data == kept


def test_another_registry_resolves_a_loaded_spec_anew(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(TOP + ONE)
    spec = load_spec(tmp_path / "s.yaml", registry=REGISTRY)
    other = Registry.of([*REGISTRY.plugins, plugin("deaf", deaf=Deaf)])
    assert resolve(spec, other).registry is other
    assert resolve(spec, other) == spec.resolved


def test_what_lamina_wrote_itself_means_its_own_parts_whoever_else_offers_the_names(tmp_path: Path) -> None:
    twins = {("norm", "rms"), ("mask", "causal"), ("residual", "plain"), ("ffn", "gated"), ("optimizer", "adamw")}
    others = [type(name, (REGISTRY.get(kind, name).component,), {"__doc__": "Another."}) for kind, name in twins]
    acme = plugin("acme", **{name: other for (_, name), other in zip(twins, others, strict=True)})
    assert acme.error is None
    registry = Registry.of([*REGISTRY.plugins, acme])
    shipped = load_spec("starter", registry=registry).resolved
    assert shipped is not None
    assert {registry.entry_of(part).distribution for part, _ in parts_of(shipped.blocks["block"])} == {"lamina"}
    error = refusal(TOP + ONE, registry)
    assert {problem.message for problem in error.problems} == {
        "lamina and acme both offer the norm 'rms'",
        "lamina and acme both offer the ffn 'gated'",
    }
    mended = made((TOP + ONE).replace("rms", "acme:rms").replace("gated", "lamina:gated"), registry)
    assert mended.norm is not None
    assert registry.entry_of(mended.norm).distribution == "acme"
    (tmp_path / "s.yaml").write_text("lamina: 1\nextends: starter\nnorm: rms\n")
    with pytest.raises(SpecError, match=r"s.yaml:3:7: lamina and acme both offer the norm 'rms'"):
        load_spec(tmp_path / "s.yaml", registry=registry)


def test_an_option_that_others_of_the_kind_have_is_told_with_those() -> None:
    error = refusal(TOP + "block:\n  attention: {name: rwkv, mask: causal}\n  ffn: mlp\nlayers: 1\n")
    assert "unknown key 'mask' for attention 'rwkv'" in str(error)
    assert "attentions with it: differential, gqa, mla" in str(error)


# Neighbours


def test_parts_that_do_not_fit_are_named_with_both_lines_and_what_would_fit() -> None:
    registry = Registry.of([*REGISTRY.plugins, plugin("deaf", deaf=Deaf)])
    error = refusal(
        TOP.replace("rope", "none") + "block:\n  position: alibi\n  attention: deaf\n  ffn: mlp\nlayers: 1\n", registry
    )
    assert "s.yaml:8:13: position 'alibi' needs scores of the attention, and 'deaf' (s.yaml:9:14)" in str(error)
    assert re.search("attentions that do: .*gqa, .*mla", str(error))


def test_a_mask_that_an_attention_does_not_honour_is_an_error() -> None:
    registry = Registry.of([*REGISTRY.plugins, plugin("masked", masked=Masked)])
    text = TOP.replace("rope", "none") + "block:\n  attention: {name: masked, mask: {name: sliding, window: 2}}\n"
    error = refusal(text + "  ffn: mlp\nlayers: 1\n", registry)
    assert "mask 'sliding' needs mask of the attention, and 'masked' (s.yaml:8:14) does not provide it" in str(error)
    made(text.replace("{name: sliding, window: 2}", "causal") + "  ffn: mlp\nlayers: 1\n", registry)


def test_the_innermost_part_that_lacks_something_is_blamed_and_once() -> None:
    registry = Registry.of([*REGISTRY.plugins, plugin("deaf", deaf=Deaf)])
    wrapped = "{name: trace, wraps: {name: trace, wraps: deaf}}"
    text = TOP.replace("rope", "alibi") + f"block:\n  attention: {wrapped}\n  ffn: mlp\nlayers: 1\n"
    error = refusal(text, registry)
    assert "position 'alibi' needs scores of the attention, and 'deaf' (s.yaml:8:56) does not" in str(error)
    assert len(error.problems) == 1


def test_a_part_speaks_for_those_it_holds() -> None:
    registry = Registry.of([*REGISTRY.plugins, plugin("acme", deaf=Deaf, both=Both)])
    made(TOP + "block:\n  attention: {name: both, first: {name: gqa, n_heads: 2}}\n  ffn: mlp\nlayers: 1\n", registry)
    masked = "{name: both, first: {name: gqa, n_heads: 2, mask: {name: sliding, window: 3}}}"
    made(TOP + f"block:\n  attention: {masked}\n  ffn: mlp\nlayers: 1\n", registry)
    inside = "{name: moe, n_experts: 2, expert: {name: trace, wraps: rwkv_channel_mix}}"
    error = refusal(TOP + f"block:\n  attention: {{name: gqa, n_heads: 2}}\n  ffn: {inside}\nlayers: 1\n", registry)
    assert "ffn 'moe' needs tokenwise of the ffn, and 'rwkv_channel_mix'" in str(error)


def test_an_attention_that_takes_no_position_may_stand_beside_others() -> None:
    registry = Registry.of([*REGISTRY.plugins, plugin("deaf", deaf=Deaf)])
    for position in ("learned", "sinusoidal", "none"):
        text = (
            TOP.replace("rope", position)
            + "blocks:\n  a: {attention: deaf, ffn: mlp}\n  b: {attention: null, ffn: mlp}\n"
        )
        resolved = made(text + "layers: {pattern: [a, b], n_layers: 2}\n", registry)
        assert resolved.blocks["a"].position == resolved.position
        assert made(resolved.to_yaml(), registry) == resolved


def test_a_position_that_acts_at_the_embeddings_belongs_at_the_top() -> None:
    error = refusal(TOP + ONE.replace("ffn:", "position: learned\n  ffn:"))
    assert "s.yaml:9:13: block 'block': position 'learned' acts at the embeddings" in str(error)
    made(TOP.replace("rope", "learned") + ONE)


def test_a_shared_flow_has_one_norm() -> None:
    error = refusal(TOP + ONE.replace("ffn: gated", "ffn: gated\n  placement: parallel\n  ffn_in: rms"))
    assert "in a parallel_shared flow the ffn reads the attention's norm" in str(error)


# Parts by themselves


def test_a_part_is_resolved_alone_with_the_place_it_was_asked_for() -> None:
    part = resolve_part("ffn", {"name": "mlp", "bias": True}, REGISTRY, dim=6)
    assert part.config.hidden_dim == 24  # type: ignore[attr-defined]
    assert resolve_part("ffn", part, REGISTRY) is part
    with pytest.raises(SpecError, match="sampler topk: no sampler is called 'topk'"):
        resolve_part("sampler", "topk", REGISTRY)
    with pytest.raises(SpecError, match=r"--mask: 'window' is missing for mask 'sliding'"):
        resolve_part("mask", "sliding", REGISTRY, where="--mask")


def test_options_of_no_component_are_read_the_same_way() -> None:
    class Options(ComponentConfig):
        steps: int = Field(3, ge=1, description="How many.")

        def derive(self) -> dict[str, Any]:
            raise ConfigProblem("steps", "never asked")

    assert resolve_config(Options, read_text("steps: 5", "f"), REGISTRY).steps == 5
    with pytest.raises(SpecError, match="f:1:8: steps must be at least 1, not 0"):
        resolve_config(Options, read_text("steps: 0", "f"), REGISTRY)


class OneHook(Position):
    """Acts at the scores only."""

    def bias(self, q: Any, queries: Any, keys: Any) -> None:
        return None


def test_a_position_acts_where_it_overrides_a_hook() -> None:
    assert OneHook.acts_at() == {"scores"}
    assert OneHook.requires(None) == {"attention": frozenset({"scores"})}


# Whatever is written, the answer is a resolved spec or a SpecError


junk = st.sampled_from(
    [
        None, True, 0, -1, 3, 2**40, 1.5, float("nan"), float("inf"), "", "x", "rope", "gqa", "no", "a\0b", "a" * 300,
        "silu:", ":rms", "lamina:rms", [], [[]], ["x"], [None], {}, {"name": "gqa"}, {"name": "rms"}, {"name": None},
        {"x": 1}, {"extends": "a"}, {"": ""}, {"name": ["gqa"]}, {"name": {"name": "gqa"}},
    ]
)  # fmt: skip
keys = st.sampled_from(
    ["name", "", "x", "extends", "block", "blocks", "norm", "placement", "position", "lamina", "path", "n_layers", "1"]
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in below for place in _places(child, (*path, key)))]


@st.composite
def damaged(draw: st.DrawFn) -> dict[str, Any]:
    """A valid spec with one to three values replaced, removed or added."""
    data: Any = copy.deepcopy(draw(spec_data().filter(lambda data: resolved(data) is not None)))
    if draw(st.booleans()):
        data = resolve_data(data, REGISTRY).dump()
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(_places(data)[1:] or [("lamina",)]))
        above = data
        for step in path[:-1]:
            above = above[step]
        action = draw(st.sampled_from(["replace", "remove", "add"]))
        if action == "add" and isinstance(above, dict):
            above[draw(keys)] = copy.deepcopy(draw(junk))
        elif action == "remove":
            above.pop(path[-1], None) if isinstance(above, dict) else above.pop()
        else:
            above[path[-1]] = copy.deepcopy(draw(junk))
    return dict(data)


def told(data: dict[str, Any]) -> str:
    try:
        resolve_data(data, REGISTRY)
    except SpecError as error:
        return str(error)
    return ""


@settings(some, max_examples=400)
@given(data=damaged())
def test_a_damaged_spec_resolves_or_is_a_spec_error(data: dict[str, Any]) -> None:
    said = told(data)
    assert "Node(" not in said
    assert "placeholder" not in said


@settings(some, max_examples=150)
@given(data=damaged())
def test_a_damaged_file_resolves_or_is_a_spec_error_with_lines_in_order(data: dict[str, Any]) -> None:
    try:
        made(yaml.safe_dump(data, sort_keys=False))
    except SpecError as error:
        places = lines(error)
    else:
        places = []
    assert places == sorted(places)
