"""The index of what is installed: made by a child, kept while it holds, and no stranger's mistake stops it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lamina.core import PluginError, index
from lamina.core.index import Index, read_index
from lamina.core.registry import load_plugins

GOOD = """
from pydantic import Field
from lamina.core import ComponentConfig, Norm, hookimpl
print("a plugin may print")
class Config(ComponentConfig):
    strength: float = Field(0.5, gt=0, description="How strong.")
class Mine(Norm):
    '''Does as it likes.

    At length.'''
    Config = Config
    paper = "Me 2020"
    def __init__(self, config, size): super().__init__()
    def forward(self, x): return x
@hookimpl
def register_components(register):
    register("{name}", Mine)
"""
PLUGINS = {
    "good": GOOD.replace("{name}", "mine"),
    "clashing": GOOD.replace("{name}", "rms"),
    "broken": "import a_module_nobody_has",
    "mistyped": GOOD.replace("{name}", "other").replace("def register_components", "def register_component"),
    "future": "api_version = 99\n" + GOOD.replace("{name}", "another"),
}


def install(site: Path, name: str, source: str) -> None:
    (site / f"{name}_plugin.py").write_text(source)
    info = site / f"{name}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[lamina]\n{name} = {name}_plugin\n")


def run(code: str, site: Path, cache: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(site), "LAMINA_CACHE": str(cache)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


READ = """
import json, sys
from lamina.core.index import read_index
index = read_index()
assert "torch" not in sys.modules
print(json.dumps([index.plugins, index.components]))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Index:
    site = tmp_path_factory.mktemp("site")
    for name, source in PLUGINS.items():
        install(site, name, source)
    return Index(*json.loads(run(READ, site, tmp_path_factory.mktemp("cache"))))


def plugin(found: Index, name: str) -> dict[str, Any]:
    return next(plugin for plugin in found.plugins if plugin["name"] == name)


def test_a_strangers_component_is_listed_with_its_options_and_where_it_is_from(found: Index) -> None:
    (mine,) = found.find("norm", "mine")
    assert (mine["summary"], mine["paper"]) == ("Does as it likes.", "Me 2020")
    assert (mine["distribution"], mine["version"]) == ("good", "1.2")
    assert Path(mine["source"]).name == "good_plugin.py"
    (option,) = mine["options"]
    assert (option["name"], option["type"], option["default"]) == ("strength", "number, > 0", 0.5)
    assert option["description"] == "How strong."


def test_a_failed_plugin_is_listed_with_its_reason_and_stops_no_other(found: Index) -> None:
    assert "a_module_nobody_has" in plugin(found, "broken")["error"]
    assert "register_component" in plugin(found, "mistyped")["error"]
    assert "plugin API 99" in plugin(found, "future")["error"]
    assert plugin(found, "good")["error"] is None
    assert plugin(found, "builtin")["error"] is None


def test_a_name_that_two_offer_is_listed_for_both(found: Index) -> None:
    assert {one["distribution"] for one in found.find("norm", "rms")} == {"lamina", "clashing"}
    assert plugin(found, "clashing")["clashes"] == plugin(found, "builtin")["clashes"] == ["norm/rms"]
    assert [one["distribution"] for one in found.find("norm", "clashing:rms")] == ["clashing"]


def test_the_index_holds_what_the_registry_holds(found: Index) -> None:
    builtin = {(e.kind, e.name) for e in load_plugins(only=[]).entries()}
    assert {(c["kind"], c["name"]) for c in found.components if c["distribution"] == "lamina"} == builtin


def test_what_is_not_there_is_told_with_the_nearest_name(found: Index) -> None:
    with pytest.raises(PluginError, match="no kind is called 'nrm'\n  did you mean 'norm'"):
        found.find("nrm")
    with pytest.raises(PluginError, match="no norm is called 'mien'\n  did you mean 'mine'"):
        found.find("norm", "mien")
    with pytest.raises(PluginError, match=r"pip install acme\n.*\n.*'broken' failed to load .* and may provide it"):
        found.find("norm", "acme:rms")
    assert found.find("norm", "Clashing:rms") == found.find("norm", "clashing:rms")


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Reads the index and says how often a child has been asked; its answer follows from one source file."""
    source = tmp_path / "plugin.py"
    source.write_text("# one")
    times = [0]

    def ask() -> dict[str, Any]:
        times[0] += 1
        error = "broken" if "broken" in source.read_text() else None
        return {"plugins": [{"name": "p", "error": error}], "components": [], "sources": [str(source)]}

    monkeypatch.setattr(index, "_ask_child", ask)
    monkeypatch.setenv("LAMINA_CACHE", str(tmp_path / "cache"))

    def read() -> int:
        read_index()
        return times[0]

    return read


def test_the_index_is_kept_until_a_source_changes(asked: Callable[[], int], tmp_path: Path) -> None:
    assert [asked(), asked()] == [1, 1]
    (tmp_path / "plugin.py").write_text("# two, longer")
    assert [asked(), asked()] == [2, 2]
    (tmp_path / "plugin.py").unlink()
    (tmp_path / "plugin.py").write_text("# three, longer still")
    assert asked() == 3


def test_the_index_depends_on_which_plugins_are_asked_for(
    asked: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked() == 1
    monkeypatch.setenv("LAMINA_PLUGINS", "")
    assert asked() == 2


def test_the_index_depends_on_what_is_installed(
    asked: Callable[[], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    assert asked() == 1
    install(site, "good", PLUGINS["good"])
    os.utime(site, (1, 1))  # importlib keeps a folder's listing for as long as its time stays the same
    assert asked() == 2


def test_a_plugin_that_failed_is_tried_again(asked: Callable[[], int], tmp_path: Path) -> None:
    (tmp_path / "plugin.py").write_text("broken")
    assert [asked(), asked()] == [1, 2]


def test_a_damaged_or_unwritable_cache_costs_time_only(asked: Callable[[], int], tmp_path: Path) -> None:
    assert asked() == 1
    (file,) = (tmp_path / "cache").glob("*.json")
    for damage in ("{", "[]", '{"plugins": 3}'):
        file.write_text(damage)
        before = asked()
        assert before == asked()
    file.unlink()
    (tmp_path / "cache").rmdir()
    (tmp_path / "cache").write_text("a file where the folder should be")
    before = asked()
    assert asked() == before + 1


def test_plugins_that_end_python_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(tmp_path, "fatal", "import os, sys\nsys.stderr.write('no luck today\\n')\nos._exit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("LAMINA_CACHE", str(tmp_path / "cache"))
    with pytest.raises(PluginError, match=r"code 3: no luck today[\s\S]*LAMINA_PLUGINS"):
        read_index()


def test_listing_commands_never_import_torch(tmp_path: Path) -> None:
    code = """
import sys
from click.testing import CliRunner
from lamina.cli import main
for command in (["--help"], ["plugins"], ["components"], ["components", "norm", "rms"], ["schema"]):
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip()
print("torch" in sys.modules)
"""
    assert run(code, tmp_path, tmp_path / "cache").strip() == "False"
