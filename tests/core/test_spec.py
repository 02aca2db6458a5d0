"""Specs as files: found, extended, overridden; the merge rule as it stands at the top of core/spec.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.core import spec as spec_module
from lamina.core.errors import Location, SpecError
from lamina.core.reader import from_data
from lamina.core.resolve import resolve
from lamina.core.spec import find_spec, load_spec, merge, read_spec, shipped_specs

BASE = """lamina: 1
name: base
vocab_size: 64
dim: 16
context_length: 16
position: rope
norm: rms
block:
  attention: {name: gqa, n_heads: 2, qk_norm: rms}
  ffn: {name: gated, hidden_dim: 24}
layers: 2
sampler: [{name: temperature, value: 0.8}, greedy]
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "base.yaml").write_text(BASE)
    return tmp_path / "base.yaml"


def read(path: Path, text: str | None = None, **overrides: Any) -> Any:
    if text is not None:
        path.write_text(text)
    return read_spec(path, overrides).tree.plain()


def refusal(path: Path, text: str | None = None, overrides: dict[str, Any] | None = None) -> str:
    if text is not None:
        path.write_text(text)
    with pytest.raises(SpecError) as caught:
        read_spec(path, overrides)
    return str(caught.value)


# The merge rule


def merged(base: Any, over: Any) -> Any:
    """As values below the top of a spec merge."""
    place = Location("t")
    tree = merge(from_data({"x": base}, place), from_data({"x": over}, place))
    return tree.plain()["x"]


@pytest.mark.parametrize(
    ("below", "over", "result"),
    [
        ({"a": 1, "b": 2}, {"b": 3, "c": 4}, {"a": 1, "b": 3, "c": 4}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 5}}, {"a": {"b": 5, "c": 2}}),
        ("gqa", {"n_heads": 2}, {"name": "gqa", "n_heads": 2}),
        ("gqa", {"name": "gqa", "n_heads": 2}, {"name": "gqa", "n_heads": 2}),
        ("gqa", {"name": "mla", "rank": 2}, {"name": "mla", "rank": 2}),
        ({"name": "gqa", "n_heads": 2}, {"name": "gqa", "bias": True}, {"name": "gqa", "n_heads": 2, "bias": True}),
        ({"name": "gqa", "n_heads": 2}, {"name": "mla", "rank": 2}, {"name": "mla", "rank": 2}),
        ({"name": "gqa", "n_heads": 2}, {"n_heads": 4}, {"name": "gqa", "n_heads": 4}),
        ({"name": "gqa", "n_heads": 2}, "mla", "mla"),
        ({"name": "gqa", "n_heads": 2}, None, None),
        ([1, 2], [3], [3]),
        (12, {"n_layers": 3}, {"n_layers": 3}),
        (None, {"n_heads": 3}, {"n_heads": 3}),
    ],
)
def test_the_merge_rule(below: Any, over: Any, result: Any) -> None:
    assert merged(below, over) == result


def test_another_name_of_the_model_replaces_nothing_else(base: Path, tmp_path: Path) -> None:
    found = read(tmp_path / "other.yaml", "extends: base.yaml\nname: other\n")
    assert found["name"] == "other"
    assert found["dim"] == 16


plain = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["name", "a", "b"]), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, derandomize=True)
@given(below=plain, over=plain)
def test_merging_anything_keeps_all_that_is_laid_over(below: Any, over: Any) -> None:
    def holds(found: Any, wanted: Any) -> bool:
        if isinstance(wanted, dict):
            return isinstance(found, dict) and all(holds(found[key], value) for key, value in wanted.items())
        return bool(found == wanted)

    assert holds(merged(below, over), over)
    assert merged(below, below) == below


# Files


def test_a_spec_extends_another_and_every_value_keeps_its_own_place(base: Path, tmp_path: Path) -> None:
    (tmp_path / "wide.yaml").write_text("extends: base.yaml\ndim: 32\nblock:\n  attention: {n_heads: 4}\n")
    tree = read_spec(tmp_path / "wide.yaml").tree
    assert tree.plain()["block"]["attention"] == {"name": "gqa", "n_heads": 4, "qk_norm": "rms"}
    assert str(tree.nearest(("dim",))) == f"{tmp_path}/wide.yaml:2:6"
    assert str(tree.nearest(("block", "attention", "n_heads"))) == f"{tmp_path}/wide.yaml:4:24"
    assert str(tree.nearest(("block", "ffn", "hidden_dim"))) == f"{tmp_path}/base.yaml:10:34"


def test_specs_extend_in_chains_the_last_word_counting(base: Path, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.yaml").write_text("extends: ../base.yaml\ndim: 32\nvocab_size: 7\n")
    found = read(tmp_path / "c.yaml", "extends: sub/b.yaml\ndim: 64\n")
    assert (found["dim"], found["vocab_size"], found["layers"]) == (64, 7, 2)


def test_a_shipped_spec_is_extended_by_its_name(tmp_path: Path) -> None:
    name = next(iter(shipped_specs()))
    found = read(tmp_path / "mine.yaml", f"extends: {name}\nname: mine\n")
    assert found["name"] == "mine"
    assert found["dim"] == read_spec(name).tree.plain()["dim"]


@pytest.mark.parametrize(
    ("text", "says", "place"),
    [
        ("extends: me.yaml\n", "'me.yaml' extends this spec in turn", "1:10"),
        ("dim: 1\nextends: absent.yaml\n", "no such spec file", "2:10"),
        ("extends: [a, b]\n", "extends names another spec file", "1:10"),
        ("extends: null\n", "extends names another spec file", "1:10"),
        ("extends: .\n", "no such spec file", "1:10"),
        ("extends: /dev/zero\n", "no such spec file", "1:10"),
        ('extends: "a\\0b"\n', "no such spec file", "1:10"),
        (f"extends: {'x' * 400}\n", "no such spec file", "1:10"),
        ("[1, 2]\n", "a spec is a mapping", "1:1"),
        ("just words\n", "a spec is a mapping", "1:1"),
        ("---\n", "a spec is a mapping", "2:1"),
    ],
)
def test_what_cannot_be_extended_is_told_where_it_is_named(tmp_path: Path, text: str, says: str, place: str) -> None:
    said = refusal(tmp_path / "me.yaml", text)
    assert says in said
    assert f"me.yaml:{place}: " in said


def test_a_ring_of_specs_is_found(tmp_path: Path) -> None:
    for name, other in (("a", "b"), ("b", "c"), ("c", "./../" + tmp_path.name + "/a")):
        (tmp_path / f"{name}.yaml").write_text(f"extends: {other}.yaml\n")
    assert "extends this spec in turn" in refusal(tmp_path / "a.yaml")


def test_a_problem_in_the_extended_spec_is_told_in_its_file(base: Path, tmp_path: Path) -> None:
    base.write_text(BASE.replace("dim: 16", "dmi: 16"))
    (tmp_path / "s.yaml").write_text("extends: base.yaml\nlayers: 3\n")
    with pytest.raises(SpecError, match=r"base\.yaml:4:1: unknown key 'dmi'"):
        load_spec(tmp_path / "s.yaml")


def test_a_spec_is_found_as_a_file_or_as_a_shipped_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = shipped_specs()
    name = next(iter(shipped))
    assert find_spec(name) == shipped[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()  # a run of it, say
    assert find_spec(name) == shipped[name]
    (tmp_path / name).rmdir()
    (tmp_path / name).write_text("lamina: 1\n")
    assert find_spec(name) == Path(name)


@pytest.mark.parametrize("path", ["gpt3", "", "x" * 400, "a\0b", "dir/absent", "absent.yaml"])
def test_a_spec_that_is_nowhere_is_a_spec_error(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError):
        load_spec(path)


def test_a_mistyped_name_is_told_what_is_shipped() -> None:
    name = next(iter(shipped_specs()))
    with pytest.raises(SpecError, match=f"did you mean '{name}'") as caught:
        load_spec(name[:-1])
    assert "shipped: " in str(caught.value)


def test_every_shipped_spec_is_read_and_resolves() -> None:
    for path in shipped_specs().values():
        assert load_spec(path).resolved is not None


# Overrides


@pytest.mark.parametrize(
    ("key", "value", "path", "result"),
    [
        ("dim", 32, ("dim",), 32),
        ("dim", "32", ("dim",), 32),
        ("block.attention.n_heads", "4", ("block", "attention"), {"name": "gqa", "n_heads": 4, "qk_norm": "rms"}),
        ("block.attention.qk_norm.eps", "1e-3", ("block", "attention", "qk_norm"), {"name": "rms", "eps": 1e-3}),
        ("position.theta", "5", ("position",), {"name": "rope", "theta": 5}),
        ("position", "{name: rope, theta: 5}", ("position",), {"name": "rope", "theta": 5}),
        ("position", {"theta": 5}, ("position",), {"name": "rope", "theta": 5}),
        ("position.name", "none", ("position",), {"name": "none"}),
        ("block.ffn.name", "mlp", ("block", "ffn"), {"name": "mlp"}),
        ("block.ffn", "mlp", ("block", "ffn"), "mlp"),
        ("sampler.0.value", "0.5", ("sampler",), [{"name": "temperature", "value": 0.5}, "greedy"]),
        ("sampler.1", "{name: top_k, k: 3}", ("sampler", 1), {"name": "top_k", "k": 3}),
        ("sampler", "[greedy]", ("sampler",), ["greedy"]),
        ("train.steps", "7", ("train",), {"steps": 7}),
        ("name", "", ("name",), ""),
        ("name", "no", ("name",), "no"),
        ("block.ffn", "null", ("block", "ffn"), None),
    ],
)
def test_an_override_sets_what_its_dotted_path_names(
    base: Path, key: str, value: Any, path: tuple[str | int, ...], result: Any
) -> None:
    node = read_spec(base, {key: value}).tree.at(path)
    assert node is not None
    assert node.plain() == result


def test_later_overrides_lie_over_earlier_ones(base: Path) -> None:
    found = read_spec(base, {"block.ffn": "mlp", "block.ffn.hidden_dim": "8"}).tree.plain()
    assert found["block"]["ffn"] == {"name": "mlp", "hidden_dim": 8}


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("block..n_heads", "4", "--set block..n_heads=4: write a dotted path"),
        ("", "4", "write a dotted path"),
        ("sampler.2", "greedy", "--set sampler.2=greedy: the list has 2 entries"),
        ("dim", "[1", "--set dim=[1"),
        ("dim", "!!python/name:os.system", "tags are not read"),
        ("sampler.²", "greedy", "--set sampler.²=greedy: the list has 2 entries"),
        ("sampler." + "9" * 5000, "greedy", "the list has 2 entries"),
        ("dim", "x", "--set dim=x: dim must be an integer, not 'x'"),
        ("dmi", "3", "--set dmi=3: unknown key 'dmi'"),
        ("block.attention.n_heads", "5", "--set block.attention.n_heads=5: dim (16) must be a multiple of n_heads (5)"),
        ("extends", "base.yaml", "--set extends=base.yaml: extends is read from a spec file only"),
        ("lamina", "2", "--set lamina=2: format version 2 is not known"),
    ],
)
def test_an_override_that_does_not_fit_is_told_as_it_was_written(base: Path, key: str, value: str, says: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(base, {key: value})
    assert says in str(caught.value)


def test_an_override_from_python_is_told_by_its_path(base: Path) -> None:
    with pytest.raises(SpecError, match=r"override dim: dim must be an integer, not a list"):
        load_spec(base, {"dim": [1]})


def test_the_number_of_layers_can_be_overridden_however_layers_was_written(base: Path) -> None:
    for key in ("layers", "layers.n_layers"):
        resolved = load_spec(base, {key: 5}).resolved
        assert resolved is not None
        assert resolved.layers.names == ["block"] * 5


def test_a_loaded_spec_remembers_how_it_was_resolved_and_resolves_again(base: Path) -> None:
    spec = load_spec(base)
    assert spec.directory == base.parent
    assert resolve(spec) is spec.resolved
    spec.resolved = None
    assert resolve(spec) == resolve(load_spec(base))


def test_shipped_specs_are_those_in_the_folder() -> None:
    folder = Path(spec_module.__file__).parents[1] / "specs"
    assert set(shipped_specs()) == {file.stem for file in folder.glob("*.yaml")}
