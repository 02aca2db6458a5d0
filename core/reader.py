"""Reads YAML strictly: every value keeps its place, and what YAML leaves loose is an error.

Differs from PyYAML's safe loader: `1e-5` is a number, `no` is a text, a key written twice is an error, tags and merge
keys are refused (a spec can run no code), and documents that would swell through aliases are cut off.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lamina.core.errors import Location, Problem, SpecError

MAX_BYTES = 1_000_000
MAX_DEPTH = 60
MAX_NODES = 100_000
MAX_INT_BITS = 64
MAX_PROBLEMS = 100  # more than anyone reads, and a hostile file may hold a hundred thousand

_INT = re.compile(r"[-+]?(0|[1-9][0-9_]*)\Z|0x[0-9a-fA-F][0-9a-fA-F_]*\Z|0o[0-7][0-7_]*\Z")
_FLOAT = re.compile(r"[-+]?((\.[0-9][0-9_]*|[0-9][0-9_]*\.[0-9_]*)([eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+)\Z")
_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}

KeyPath = tuple["str | int", ...]


@dataclass(eq=False)
class Node:
    """A value of a spec and where it was written. `value` is a scalar, a dict of nodes or a list of nodes."""

    value: Any
    location: Location
    key_location: Location | None = None  # where its key stands, for a value in a mapping

    def plain(self) -> Any:
        """The value as plain data."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def at(self, path: KeyPath) -> Node | None:
        """The node at `path` below this one, None when there is none."""
        node: Node | None = self
        for step in path:
            if node is None:
                return None
            value = node.value
            if isinstance(value, dict):
                node = value.get(step)
            elif isinstance(value, list) and isinstance(step, int) and step < len(value):
                node = value[step]
            else:
                return None
        return node

    def nearest(self, path: KeyPath) -> Location:
        """Where `path` was written, or the closest thing above it that was."""
        node = self
        for step in path:
            below = node.at((step,))
            if below is None:
                break
            node = below
        return node.location

    def walk(self, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Node]]:
        yield path, self
        if isinstance(self.value, dict):
            for key, child in self.value.items():
                yield from child.walk((*path, key))
        elif isinstance(self.value, list):
            for index, child in enumerate(self.value):
                yield from child.walk((*path, index))


def from_data(data: Any, location: Location) -> Node:
    """A node tree of plain data that was written at one place, such as a component's default."""
    if isinstance(data, dict):
        return Node({str(key): from_data(value, location) for key, value in data.items()}, location, location)
    if isinstance(data, (list, tuple)):
        return Node([from_data(value, location) for value in data], location, location)
    return Node(data, location, location)


def read_file(path: Path, *, ours: bool = False) -> Node:
    """The node tree of a YAML file, one of `ours` or somebody's. Raises SpecError with every problem found."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)  # it may be a pipe or a device, whose size nobody knows
    except FileNotFoundError:
        raise SpecError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise SpecError(f"{path}: a directory, not a YAML file") from None
    except OSError as error:
        raise SpecError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise SpecError(f"{str(path)!r} cannot be the name of a file") from None
    if len(raw) > MAX_BYTES:
        raise SpecError(f"{path}: larger than {MAX_BYTES:,} bytes, which no spec is")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: not UTF-8 text (byte {error.start})", hint="save the file as UTF-8") from None
    return read_text(text, str(path), ours=ours)


def read_text(text: str, file: str, *, ours: bool = False) -> Node:
    """The node tree of YAML text; `file` names it in messages."""
    return _Reader(text, file, ours).read()


def parse_value(text: str, file: str) -> Node:
    """A value as written on a command line: YAML, an empty text being the empty text."""
    node = read_text(text, file) if text.strip() else Node("", Location(file))
    for _, below in node.walk():
        below.location = below.key_location = Location(file)
    return node


class _Loader(yaml.SafeLoader):
    """Keeps the places of tags, which the nodes it makes no longer show, and stops where nesting is too deep."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.tagged: list[yaml.NodeEvent] = []
        self.depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) is not None:
            self.tagged.append(event)
        if self.depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"nested more than {MAX_DEPTH} deep", problem_mark=event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Reader:
    def __init__(self, text: str, file: str, ours: bool) -> None:
        self.text, self.file, self.ours = text, file, ours
        self.lines = text.splitlines()
        self.problems: list[Problem] = []
        self.count = 0

    def read(self) -> Node:
        documents: list[Any] = []
        loader = None
        try:
            loader = _Loader(self.text)  # looks at the first characters
            while loader.check_node():
                documents.append(loader.get_node())
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            said = f"{error.problem or 'not YAML'} {error.context or ''}".rstrip()
            hint = "indent with spaces" if r"'\t'" in said else ""
            raise SpecError([Problem(f"not YAML: {said}", self._place(mark) if mark else None, hint)]) from None
        except yaml.reader.ReaderError as error:
            before = self.text[: error.position]
            place = Location(self.file, before.count("\n") + 1, len(before) - before.rfind("\n"))
            raise SpecError([Problem(f"not YAML: it holds the character U+{error.character:04X}", place)]) from None
        except (ValueError, OverflowError):  # what PyYAML does with an escape of no character
            place = self._place(loader.get_mark()) if loader is not None else Location(self.file)
            raise SpecError([Problem("not YAML: a number out of range", place)]) from None
        if len(documents) > 1:
            raise SpecError([Problem("more than one YAML document", self._place(documents[1].start_mark), "keep one")])
        if not documents:
            raise SpecError(f"{self.file}: empty", hint="`lamina new` writes a spec to start from")
        for event in loader.tagged:
            self._problem("tags are not read", self._place(event.start_mark), "a spec holds plain data; quote a text")
        node = self._node(documents[0], 0, ())
        if self.problems:
            raise self._error()
        return node

    def _problem(self, message: str, place: Location, hint: str = "") -> None:
        self.problems.append(Problem(message, place, hint))
        if len(self.problems) == MAX_PROBLEMS:
            raise self._error()

    def _error(self) -> SpecError:
        return SpecError(sorted(self.problems, key=by_place))

    def _place(self, mark: Any, length: int = 1) -> Location:
        text = self.lines[mark.line] if mark.line < len(self.lines) else ""
        return Location(self.file, mark.line + 1, mark.column + 1, text, max(1, length), self.ours)

    def _span(self, node: yaml.Node) -> Location:
        start, end = node.start_mark, node.end_mark
        return self._place(start, end.column - start.column if end.line == start.line else 1)

    def _node(self, node: Any, depth: int, above: tuple[int, ...]) -> Node:
        place = self._span(node)
        self.count += 1
        if self.count > MAX_NODES or depth > MAX_DEPTH or id(node) in above:
            why = "refers to itself" if id(node) in above else "is too large or too deep"
            self.problems.append(Problem(f"the document {why}", place))
            raise self._error()
        above = (*above, id(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place, depth, above)
        if isinstance(node, yaml.SequenceNode):
            return Node([self._node(child, depth + 1, above) for child in node.value], place)
        text = self._text(node, place)
        if node.style is not None:  # quoted or a block: a text whatever it looks like
            return Node(text, place)
        try:
            return Node(plain_scalar(text), place)
        except OverflowError:
            self._problem("the number is too large", place, f"numbers here have at most {MAX_INT_BITS} bits")
            return Node(0, place)

    def _mapping(self, node: yaml.MappingNode, place: Location, depth: int, above: tuple[int, ...]) -> Node:
        found: dict[str, Node] = {}
        for key, value in node.value:
            key_place = self._span(key)
            if not isinstance(key, yaml.ScalarNode):
                self._problem("a key must be a word", key_place)
                continue
            name = self._text(key, key_place)
            if name == "<<" and key.style is None:
                self._problem("merge keys are not read", key_place, "use `extends:`")
            elif name in found:
                first = found[name].key_location
                self._problem(f"'{name}' is written twice", key_place, f"first on line {first.line if first else 0}")
            child = self._node(value, depth + 1, above)
            child.key_location = key_place
            found.setdefault(name, child)
        return Node(found, place)

    def _text(self, node: yaml.ScalarNode, place: Location) -> str:
        text: str = node.value
        try:
            # JSON writes some characters as two escapes, of half a character each.
            return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            self._problem("an escape stands for half a character", place, "write the character itself")
            return ""  # printing it would fail


def plain_scalar(text: str) -> Any:
    """What an unquoted word stands for. OverflowError: an integer that no machine word holds."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.match(text):
        if len(text) > MAX_INT_BITS:  # long before Python refuses to read it
            raise OverflowError
        value = int(text.replace("_", ""), 0 if text.startswith(("0x", "0o")) else 10)
        if value.bit_length() >= MAX_INT_BITS:
            raise OverflowError
        return value
    if _FLOAT.match(text):
        return float(text.replace("_", ""))
    return text


def by_place(problem: Problem) -> tuple[str, int, int]:
    """For sorting problems in the order they are met in the file."""
    place = problem.location or Location("")
    return place.file, place.line, place.column
