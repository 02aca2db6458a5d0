"""The documentation: what is generated is not stale, and what is written works."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from importlib.abc import Loader
from pathlib import Path
from types import ModuleType

import click
import pytest
from _pytest.mark import ParameterSet

import lamina
from lamina.cli import main
from lamina.core.model import open_tokenizer
from lamina.core.registry import Plugin, Registry, load_plugin, load_plugins
from lamina.core.resolve import resolve
from lamina.core.resolved import BlockConfig, ResolvedSpec
from lamina.core.spec import read_spec, shipped_specs

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    return [code for found, code in FENCE.findall(page.read_text("utf-8")) if found == language]


def is_plugin(code: str) -> bool:
    return "register_components" in code


def is_spec(code: str) -> bool:
    return code.startswith("lamina: 1")


def is_script(code: str) -> bool:
    return not is_plugin(code)


def examples(language: str, wanted: Callable[[str], bool]) -> list[ParameterSet]:
    """Every code block of a language that is wanted, with its page and number as the test's name."""
    return [
        pytest.param(page, code, id=f"{page.relative_to(ROOT)}-{number}")
        for page in PAGES
        for number, code in enumerate(blocks(page, language))
        if wanted(code)
    ]


def module_of(name: str, file: Path) -> tuple[ModuleType, Loader]:
    """The module a file will be, and what runs it."""
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    return importlib.util.module_from_spec(spec), spec.loader


def docs_script() -> ModuleType:
    module, loader = module_of("docs_script", ROOT / "scripts" / "docs.py")
    loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the examples run: what the pages assume to be there is there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(shipped_specs()["starter"].read_text())
    (tmp_path / "book.txt").write_text("It was a dark and stormy night. " * 40)
    (tmp_path / "runs" / "book").mkdir(parents=True)
    (tmp_path / "runs" / "book" / "metrics.jsonl").write_text(json.dumps({"step": 1, "val_loss": 2.0}) + "\n")
    tiny = lamina.resolve(lamina.load_spec("starter", overrides={"dim": 32, "layers": 1}))
    model = lamina.Model(lamina.build(tiny).eval(), open_tokenizer(tiny), tiny)
    for name in ("demo", "first"):
        lamina.save(model, tmp_path / "runs" / name)
    return tmp_path


def documented_plugins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plugin]:
    """The plugins that pages print, each loaded by the entry point printed after it."""
    for page in PAGES:
        sources = [code for code in blocks(page, "python") if is_plugin(code)]
        projects = [tomllib.loads(code) for code in blocks(page, "toml")]
        for source, project in zip(sources, projects, strict=True):
            ((name, module),) = project["project"]["entry-points"]["lamina"].items()
            assert project["tool"]["setuptools"]["py-modules"] == [module]
            file, about = folder / f"{module}.py", project["project"]
            file.write_text(source)
            made, loader = module_of(module, file)
            monkeypatch.setitem(sys.modules, module, made)  # where pydantic looks up what annotations name
            loader.exec_module(made)
            yield load_plugin(name, module, about["name"], about["version"], partial(lambda made: made, made))


@pytest.fixture
def registry(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    return Registry.of([*load_plugins(only=[]).plugins, *documented_plugins(folder, monkeypatch)])


def test_generated_pages_are_not_stale() -> None:
    stale = [page.name for page, text in docs_script().generated().items() if page.read_text("utf-8") != text]
    assert not stale, "run scripts/docs"


def test_a_stale_table_is_noticed() -> None:
    script = docs_script()
    old = "before\n<!-- generated: placements -->\n| old |\n<!-- end -->\nafter\n"
    assert "| old |" not in script.fill(old)
    assert script.fill(script.fill(old)) == script.fill(old)


def command_lines(page: Path) -> Iterator[list[str]]:
    """The words of every `lamina …` in the page's code."""
    text = page.read_text("utf-8")
    shell = "\n".join(code for language, code in FENCE.findall(text) if language in ("sh", "text"))
    lines = [part for line in shell.splitlines() for part in re.split(r"&&|\||;", line.split("  #")[0])]
    lines += re.findall(r"`(lamina [^`]*)`", FENCE.sub("", text))
    for line in lines:
        words = line.strip().removeprefix("$ ").split()
        if words[:1] == ["lamina"] and len(words) > 1:
            yield words[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_flags_in_a_page_exist(page: Path) -> None:
    for words in command_lines(page):
        command: click.Command = main
        rest = words
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            assert rest[0] in command.commands, f"lamina {' '.join(words)}"
            command, rest = command.commands[rest[0]], rest[1:]
        flags = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
        unknown = {word for word in rest if re.match(r"--\w", word)} - flags - {"--help"}
        assert not unknown, f"lamina {' '.join(words)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text("utf-8"))):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = page if not path else page.parent / path
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), target


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(("page", "code"), examples("yaml", is_spec))
def test_specs_in_pages_resolve(page: Path, code: str, folder: Path, registry: Registry) -> None:
    file = folder / "example.yaml"
    file.write_text(code)
    assert isinstance(resolve(read_spec(file), registry), ResolvedSpec)


@pytest.mark.parametrize(("page", "code"), examples("python", is_script))
def test_python_in_pages_runs(page: Path, code: str, folder: Path) -> None:
    exec(compile(code, str(page), "exec"), {"__name__": "example"})


def test_plugins_in_pages_load_and_keep_to_their_kind(registry: Registry) -> None:
    strangers = [entry for entry in registry.entries() if entry.distribution != "lamina"]
    assert not registry.failed
    assert {(entry.kind, entry.name) for entry in strangers} >= {("norm", "tanh"), ("activation", "soft_clip")}


def test_the_plugin_in_the_readme_can_be_built_and_run(folder: Path, registry: Registry) -> None:
    import torch

    from lamina.core.build import build

    file = folder / "tanh.yaml"
    file.write_text("lamina: 1\nextends: starter\nnorm: tanh\ndim: 32\nlayers: 1\n")
    decoder = build(resolve(read_spec(file), registry))
    assert decoder(torch.arange(5).unsqueeze(0)).shape == (1, 5, 257)


def test_every_kind_stands_in_the_page_on_plugins() -> None:
    page = (ROOT / "docs" / "plugins.md").read_text("utf-8")
    assert [kind for kind in load_plugins(only=[]).kinds() if f"| `{kind}` |" not in page] == []


def test_every_key_stands_in_the_page_on_specs() -> None:
    page = (ROOT / "docs" / "specs.md").read_text("utf-8")
    keys = [*ResolvedSpec.model_fields, *BlockConfig.model_fields]
    assert [key for key in keys if f"`{key}`" not in page] == []


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "reference" / "index.html").is_file()
