"""The strict reader: every value keeps its place, and whatever the text holds the answer is a tree or a SpecError."""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.core.errors import SpecError
from lamina.core.reader import MAX_BYTES, MAX_PROBLEMS, parse_value, read_file, read_text


def refusal(text: str) -> SpecError:
    with pytest.raises(SpecError) as caught:
        read_text(text, "f.yaml")
    return caught.value


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("1e-5", 1e-5),
        ("1E5", 1e5),
        (".5", 0.5),
        ("1.", 1.0),
        ("-2.5e+3", -2500.0),
        ("10_000", 10_000),
        ("-7", -7),
        ("+7", 7),
        ("0x1F", 31),
        ("0o17", 15),
        ("010", "010"),
        ("0x_", "0x_"),
        ("0o", "0o"),
        ("1:30", "1:30"),
        ("no", "no"),
        ("Yes", "Yes"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("2020-01-01", "2020-01-01"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("''", ""),
        (".inf", ".inf"),
    ],
)
def test_a_plain_word_is_what_it_looks_like(word: str, value: object) -> None:
    found = read_text(f"a: {word}", "f").plain()["a"]
    assert found == value
    assert type(found) is type(value)


def test_a_key_without_a_value_is_null() -> None:
    assert read_text("a:\nb: 1", "f").plain() == {"a": None, "b": 1}


def test_every_value_and_key_keeps_its_place() -> None:
    tree = read_text("dim: 64\nblock:\n  attention: {name: gqa, n_heads: 4}\nlist: [1, two]\n", "f.yaml")
    heads = tree.at(("block", "attention", "n_heads"))
    assert heads is not None
    assert (str(heads.location), heads.location.length) == ("f.yaml:3:35", 1)
    assert str(heads.key_location) == "f.yaml:3:26"
    assert str(tree.nearest(("list", 1))) == "f.yaml:4:11"
    assert str(tree.nearest(("block", "attention", "absent", "deeper"))) == "f.yaml:3:14"
    assert tree.at(("list", 2)) is None
    assert tree.at(("dim", "deeper")) is None
    assert [path for path, _ in tree.walk()][-2:] == [("list", 0), ("list", 1)]


def test_a_problem_shows_its_line_with_a_caret_under_the_word() -> None:
    text = str(refusal("dim: 64\nblock:\n  dim: 1\n  norm: x\n  norm: y\n"))
    assert text.splitlines() == [
        "f.yaml:5:3: 'norm' is written twice",
        "  5 |   norm: y",
        "    |   ^^^^ first on line 4",
    ]


def test_all_problems_are_told_at_once_in_the_order_of_their_lines() -> None:
    error = refusal("a: 1\na: 2\nb: !x 3\nc: {<<: 1}\nd: {[1]: 2}\ne: 99999999999999999999\n")
    assert [problem.location.line for problem in error.problems if problem.location] == [2, 3, 4, 5, 6]
    said = str(error)
    for what in ("'a' is written twice", "tags are not read", "merge keys", "a key must be a word", "too large"):
        assert what in said


@pytest.mark.parametrize(
    ("text", "says", "place"),
    [
        ("a: !!python/object/apply:os.system [echo]", "tags are not read", "1:4"),
        ("a: !!str 5", "tags are not read", "1:4"),
        ("a: !!set {x}", "tags are not read", "1:4"),
        ("a: ! 5", "tags are not read", "1:4"),
        ("!thing\na: 1", "tags are not read", "1:1"),
        ("base: &b {x: 1}\nc:\n  <<: *b", "merge keys are not read", "3:3"),
        ("a: &x [*x]", "refers to itself", "1:4"),
        ("&x {b: {c: *x}}", "refers to itself", "1:1"),
        ("a: *nobody", "undefined alias 'nobody'", "1:4"),
        ("a: 1\n---\nb: 2", "more than one YAML document", "3:1"),
        ("a:\n\tb: 1", "indent with spaces", "2:1"),
        ("a: 'x\nb: 1\n", "unexpected end of stream", "3:1"),
        ("a: b: c", "mapping values are not allowed here", "1:5"),
        ("a: [1, 2", "expected ',' or ']'", "1:9"),
        ("a: 5\n b: 6", "mapping values are not allowed here", "2:3"),
        ("a: x\0y", "U+0000", "1:5"),
        ("# fine\nb: \x1b", "U+001B", "2:4"),
        ('a: "\\ud800"', "half a character", "1:4"),
        ('a: "\\U00110000"', "out of range", "1:7"),
        ('a: "\\Uffffffff"', "out of range", "1:7"),
        ('a: "\\q"', "unknown escape character 'q'", "1:6"),
        ("%YAML " + "9" * 5000 + ".1\n---\na: 1", "out of range", "1:7"),
        ("a: " + "9" * 5000, "the number is too large", "1:4"),
        ("a: 0x" + "f" * 16, "the number is too large", "1:4"),
        ("[" * 500, "nested more than 60 deep", "1:62"),
        ("- " * 500 + "x", "nested more than 60 deep", "1:123"),
        ("\n".join(" " * i + "a:" for i in range(500)), "nested more than 60 deep", "61:61"),
    ],
)
def test_what_a_spec_may_not_hold_is_refused_where_it_stands(text: str, says: str, place: str) -> None:
    error = refusal(text)
    assert says in str(error)
    assert str(error.problems[0].location) == f"f.yaml:{place}"


def test_a_spec_may_nest_as_deep_as_any_reasonable_one() -> None:
    assert read_text("[" * 50 + "]" * 50, "f").value


def test_an_alias_stands_for_what_it_names_and_keeps_that_place() -> None:
    tree = read_text("a: &x {b: 1}\nc: *x\n", "f")
    assert tree.plain() == {"a": {"b": 1}, "c": {"b": 1}}
    assert str(tree.nearest(("c", "b"))) == "f:1:11"


def test_a_document_that_swells_through_aliases_is_cut_off() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    assert "too large or too deep" in str(refusal("\n".join(lines)))


def test_of_very_many_problems_the_first_are_told() -> None:
    assert len(refusal("a: 1\n" * 5000).problems) == MAX_PROBLEMS


@pytest.mark.parametrize("text", ["", "\n\n", "# a comment\n", "\ufeff"])
def test_an_empty_file_says_how_to_begin(text: str) -> None:
    error = refusal(text)
    assert error.message.endswith("empty")
    assert "lamina new" in str(error)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"dim: \xff\xfe", "not UTF-8 text (byte 5)"),
        ("dim: 1".encode("utf-16"), "not UTF-8"),
        (bytes(range(256)), "not UTF-8"),
        (b"\x7fELF\x00\x01", "U+007F"),
        (b"#" * (MAX_BYTES + 1), "larger than"),
    ],
)
def test_a_file_that_is_no_text_is_refused_by_name(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "odd.yaml"
    file.write_bytes(content)
    with pytest.raises(SpecError) as caught:
        read_file(file)
    assert says in str(caught.value)
    assert "odd.yaml" in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes("dim: 1".encode("utf-8-sig"))
    assert read_file(tmp_path / "a.yaml").plain() == {"dim": 1}


def test_what_is_not_there_or_no_file_is_a_spec_error(tmp_path: Path) -> None:
    for path, says in [
        (tmp_path / "absent.yaml", "no such file"),
        (tmp_path, "a directory"),
        (tmp_path / ("x" * 300), "cannot be read"),
        (tmp_path / "a\0b", "cannot be the name of a file"),
    ]:
        with pytest.raises(SpecError, match=says):
            read_file(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_read_no_further_than_a_spec_is_long(tmp_path: Path) -> None:
    """As `lamina validate <(generate-a-spec)` gives one."""
    os.mkfifo(tmp_path / "pipe")
    for content, fits in ((b"dim: 1", True), (b"#" * (2 * MAX_BYTES), False)):

        def write(content: bytes = content) -> None:
            with suppress(BrokenPipeError):
                (tmp_path / "pipe").write_bytes(content)

        writer = threading.Thread(target=write)
        writer.start()
        if fits:
            assert read_file(tmp_path / "pipe").plain() == {"dim": 1}
        else:
            with pytest.raises(SpecError, match="larger than"):
                read_file(tmp_path / "pipe")
        writer.join()


def test_a_value_from_a_flag_has_the_flag_as_its_place() -> None:
    node = parse_value("{name: rope, theta: 1e6}", "--set position={…}")
    assert node.plain() == {"name": "rope", "theta": 1e6}
    assert {str(below.location) for _, below in node.walk()} == {"--set position={…}"}
    assert parse_value("", "--set name=").value == ""


# Bytes that mean something in YAML, so that random text is often nearly right.
yaml_like = st.text(st.sampled_from(list("ab01:-?[]{},&*!|>'\"%@`#~<= \n\t._exou\\\0\x85\u2028\ud800é")), max_size=40)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
trees = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(scalars, inner, max_size=4), max_leaves=12
)


def read_or_refuse(text: str) -> None:
    try:
        said = repr(read_text(text, "f").plain())
    except SpecError as error:
        said = str(error)
    said.encode()  # what holds half a character cannot be printed


@settings(max_examples=300, derandomize=True)
@given(text=yaml_like | st.text(max_size=30))
def test_any_text_is_a_tree_or_a_spec_error(text: str) -> None:
    read_or_refuse(text)


@settings(max_examples=100, derandomize=True)
@given(tree=trees, flow=st.booleans())
def test_any_yaml_is_a_tree_or_a_spec_error(tree: object, flow: bool) -> None:
    read_or_refuse(yaml.safe_dump(tree, default_flow_style=flow))


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
json_trees = st.recursive(
    st.none() | st.booleans() | numbers | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100, derandomize=True)
@given(tree=json_trees)
def test_json_is_read_as_it_is(tree: object) -> None:
    assert read_text(json.dumps(tree), "f").plain() == tree
