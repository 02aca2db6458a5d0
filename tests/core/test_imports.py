"""Imports point one way, cli → core ← plugins, and what needs no tensors loads no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import lamina.core
import lamina.plugins

ROOT = Path(__file__).parents[2]
CORE = sorted((ROOT / "core").rglob("*.py"))
PLUGINS = sorted((ROOT / "plugins").rglob("*.py"))
TORCHLESS = ("component", "errors", "files", "options", "reader", "registry", "resolve", "spec", "tokenizer")


def imported(file: Path) -> Iterator[tuple[str, str]]:
    """(module, name) for every import, those inside functions and under TYPE_CHECKING too; "" for a whole module."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((f"{'.' * node.level}{node.module or ''}", alias.name) for alias in node.names)


def run(code: str) -> None:
    """In an interpreter of its own, away from the repository, where `lamina` is the installed one."""
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/", capture_output=True)


@pytest.mark.parametrize(
    "file", [*CORE, *PLUGINS, ROOT / "cli.py", ROOT / "__init__.py"], ids=lambda f: f"{f.parent.name}/{f.name}"
)
def test_imports_are_absolute_and_point_towards_the_core(file: Path) -> None:
    for module, name in imported(file):
        assert not module.startswith("."), "a relative import makes a second copy under pytest's name of the root"
        whole = f"{module}.{name}"
        if file.parent.name == "core":
            assert not whole.startswith(("lamina.plugins", "lamina.cli"))
        if "plugins" in file.parts and module.split(".")[0] == "lamina":
            assert module == "lamina.core", "plugins import as strangers must"
            assert name in lamina.core.__all__, f"{name} is not public"


def test_every_public_name_is_there_and_exported_to_type_checkers() -> None:
    assert all(getattr(lamina.core, name) is not None for name in lamina.core.__all__)
    typed = {name for module, name in imported(ROOT / "core" / "__init__.py") if module.startswith("lamina.core.")}
    assert typed == set(lamina.core.__all__)
    typed = {name for module, name in imported(ROOT / "__init__.py") if module.startswith("lamina.")}
    assert typed == set(lamina.__all__)
    for name in lamina.__all__:
        assert callable(getattr(lamina, name))
    for package in (lamina, lamina.core):
        with pytest.raises(AttributeError, match="no attribute 'absent'"):
            package.absent  # noqa: B018


@pytest.mark.parametrize(
    "code",
    [
        "from lamina.cli import main; main(['--help'], standalone_mode=False)",
        "from lamina.cli import main; main(['train', '--help'], standalone_mode=False)",
        "import lamina, lamina.plugins",
        *(f"import lamina.core.{name}" for name in TORCHLESS),
    ],
)
def test_what_needs_no_tensors_imports_no_torch(code: str) -> None:
    run(f"import sys; {code}; assert 'torch' not in sys.modules")


def test_the_root_is_imported_under_one_name() -> None:
    assert lamina.core.Norm is sys.modules["lamina.core.norm"].Norm
    assert Path(lamina.core.__file__) == Path(lamina.__file__).parent / "core" / "__init__.py"


def test_every_plugin_file_is_registered_and_every_folder_packaged() -> None:
    files = {".".join(file.relative_to(ROOT / "plugins").with_suffix("").parts) for file in PLUGINS}
    modules = {name for name in files if "__init__" not in name}
    assert list(lamina.plugins.MODULES) == sorted(modules)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packaged = set(project["tool"]["setuptools"]["packages"])
    folders = {file.parent for file in [*CORE, *PLUGINS]}
    assert {"lamina", *(".".join(("lamina", *folder.relative_to(ROOT).parts)) for folder in folders)} <= packaged
    assert all((ROOT / "/".join(package.split(".")[1:])).is_dir() for package in packaged)
