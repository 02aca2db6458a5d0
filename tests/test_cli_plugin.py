"""`lamina plugin new` and `lamina plugin check`."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from lamina.cli import main
from lamina.core.conformance import checks_for
from lamina.core.conformance.__main__ import report
from lamina.core.conformance.target import find_target
from lamina.core.errors import PluginError
from lamina.core.plugin_check import check_tables
from lamina.core.plugin_new import kinds_with_templates, module_name, new_plugin
from lamina.core.registry import load_plugins

KINDS = kinds_with_templates()


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def lamina(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_every_kind_has_a_template() -> None:
    assert set(load_plugins(only=[]).kinds()) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_package_is_whole_and_its_component_keeps_its_contract(kind: str, tmp_path: Path) -> None:
    name = f"made-{kind.replace('_', '-')}"
    folder = new_plugin(name, kind, tmp_path)
    module = name.replace("-", "_")
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert found == sorted(["README.md", f"{module}.py", "pyproject.toml", f"tests/test_{module}.py"])
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert module in (folder / "README.md").read_text()
    assert "Example" not in "".join((folder / file).read_text() for file in found)
    tests = ast.parse((folder / f"tests/test_{module}.py").read_text())
    functions = [node.name for node in tests.body if isinstance(node, ast.FunctionDef)]
    assert len([function for function in functions if function.startswith("test_")]) == 2
    items = checks_for(folder)
    assert {str(item).partition(":")[0] for item in items} == {f"{kind}/{module}"}
    for item in items:
        if item.check.name not in ("compiles", "autocast"):  # they take long, and the package's own tests have them
            item(1)


@pytest.mark.parametrize("name", ["None", "path", "norm", "component", "field"])
def test_a_name_that_the_template_needs_itself_makes_a_component_too(name: str, tmp_path: Path) -> None:
    target = find_target(new_plugin(name, "norm", tmp_path))
    target.must_load()
    (entry,) = target.entries
    assert (entry.name, entry.component.__name__) == (name.lower(), f"{name.capitalize()}Component")
    next(item for item in checks_for(tmp_path / name) if item.check.name == "state dict")(1)
    test = (tmp_path / name / "tests" / f"test_{name.lower()}.py").read_text()
    assert f"import {name.capitalize()}Component, {name.capitalize()}ComponentConfig" in test


def test_its_own_tests_pass_as_written(tmp_path: Path) -> None:
    folder = new_plugin("Acme.Steps-2", "schedule", tmp_path)
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


def test_new_tells_what_it_wrote() -> None:
    made = lamina("plugin", "new", "acme-norm", "--kind", "norm", "--json")
    assert made.exit_code == 0
    assert json.loads(made.stdout)["folder"] == "acme-norm"
    assert "acme-norm/acme_norm.py" in json.loads(made.stdout)["files"]
    again = lamina("plugin", "new", "acme-norm", "--kind", "norm")
    assert again.exit_code == 2
    assert "'acme-norm' already exists" in again.stderr


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "a package needs a name"),
        ("a b", "' ' cannot stand in it"),
        ("../x", "'/' cannot stand in it"),
        ("naïve", "'ï' cannot stand in it"),
        ("-x", "it must begin and end with a letter or digit"),
        ("x_", "it must begin and end with a letter or digit"),
        ("3d", "begins with a digit"),
        ("class", "is a word of Python"),
        ("json", "Python's library has a module called 'json'"),
        ("tests", "tools look for a module called 'tests'"),
        ("lamina", "tools look for"),
        ("x" * 200, "at most 80"),
        ("torch", "torch has a module called 'torch'"),
        ("rms", "lamina has a norm called 'rms'"),
        ("RMS", "lamina has a norm called 'rms'"),
    ],
)
def test_a_name_that_cannot_be_is_refused(name: str, why: str, tmp_path: Path) -> None:
    result = lamina("plugin", "new", "--kind", "norm", "--", name)
    assert result.exit_code == 2
    assert why in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_kind_that_is_none_is_refused() -> None:
    result = lamina("plugin", "new", "x", "--kind", "nrm")
    assert result.exit_code == 2
    assert "did you mean 'norm'?" in result.stderr


def test_names_are_those_of_package_indexes() -> None:
    assert module_name("Acme-Parts.v2") == "acme_parts_v2"
    assert module_name("a--b") == "a_b"


def test_check_reads_a_folder_and_says_how_each_check_went(tmp_path: Path) -> None:
    new_plugin("acme-steps", "schedule", tmp_path)
    good = report("acme-steps", quick=True)
    assert good["passed"]
    console = Console(file=StringIO(), width=100)
    console.print(*check_tables(good))
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "✓ schedule acme_steps" in said
    assert "✓ factors" in said
    assert "all passed" in said
    sys.modules.pop("acme_steps")

    file = tmp_path / "acme-steps" / "acme_steps.py"
    file.write_text(file.read_text().replace("        return self", "        return 2 + self"))
    bad = lamina("plugin", "check", "acme-steps/pyproject.toml", "--json")
    assert bad.exit_code == 1
    found = json.loads(bad.stdout)
    assert found["distribution"] == "acme-steps"
    assert not found["passed"]
    (component,) = found["components"]
    (failed,) = [check for check in component["checks"] if check["passed"] is False]
    assert failed["name"] == "factors"
    assert "smallest case: n_steps 1, step 0" in failed["message"]
    assert any("✗" in str(line) for line in check_tables(found))


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise OSError('no such device')", "OSError: no such device"),
        ("import absent_module", "No module named 'absent_module'"),
    ],
)
def test_a_plugin_that_does_not_load_fails_with_the_reason(code: str, why: str, tmp_path: Path) -> None:
    new_plugin("acme-broken", "schedule", tmp_path)
    (tmp_path / "acme-broken" / "acme_broken.py").write_text(code)
    found = report("acme-broken", quick=True)
    assert not found["passed"]
    assert why in found["failed_plugins"][0]["error"]
    with pytest.raises(PluginError, match="failed to load"):
        checks_for(tmp_path / "acme-broken")


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("lamnia", "did you mean 'lamina'?"),
        ("pydantic", "pydantic offers no components"),
        ("./nowhere", "does not exist"),
        ("empty", "does not exist"),
        ("nameless", "has no [project] with a name"),
        ("pointless", "has no entry point in the group 'lamina'"),
        ("torn", "cannot be read"),
    ],
)
def test_a_target_that_is_none_is_the_users_mistake(target: str, why: str, tmp_path: Path) -> None:
    for name, text in (
        ("empty", None),
        ("nameless", "[tool]\n"),
        ("pointless", "[project]\nname = 'pointless'\n"),
        ("torn", "[project\n"),
    ):
        (tmp_path / name).mkdir()
        if text is not None:
            (tmp_path / name / "pyproject.toml").write_text(text)
    with pytest.raises(PluginError) as caught:  # the message is looked at below
        checks_for(target)
    assert why in str(caught.value)
    if target == "lamnia":  # the same through a process of its own
        result = lamina("plugin", "check", target)
        assert result.exit_code == 2
        assert why in result.stderr


def test_help_imports_no_torch() -> None:
    for words in (["plugin", "--help"], ["plugin", "new", "--help"], ["plugin", "check", "--help"]):
        call = f"from lamina.cli import main; main({words}, standalone_mode=False)"
        code = f"import sys; {call}; assert 'torch' not in sys.modules"
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
