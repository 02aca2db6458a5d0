"""The example package as a stranger would have it: installed, used from a spec, removed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import entry_points
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "lamina-plugin-seaside"


class Environment:
    """A virtual environment of its own that also sees the packages of the one the tests run in."""

    def __init__(self, folder: Path, work: Path) -> None:
        self.work = work
        self.python = folder / "bin" / "python"
        venv.create(folder)  # pip and setuptools are those it sees
        here = sysconfig.get_path("purelib")
        there = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
        (Path(there) / "lamina-of-the-tests.pth").write_text(f"import site; site.addsitedir({here!r})\n")

    def run(self, *arguments: object, fails: int = 0) -> str:
        """Standard output, or where it is to fail standard error."""
        command = [str(self.python), "-P", *map(str, arguments)]
        environment = {"OMP_NUM_THREADS": "1", "LAMINA_CACHE": str(self.work / "cache"), "PATH": "/usr/bin:/bin"}
        done = subprocess.run(command, cwd=self.work, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == fails, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done.stderr if fails else done.stdout

    def lamina(self, *arguments: object, fails: int = 0) -> str:
        return self.run("-c", "from lamina.cli import main; main()", *arguments, fails=fails)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    work = tmp_path_factory.mktemp("work")
    (work / "text.txt").write_text("the tide comes in, the tide goes out. " * 200)
    shutil.copy(EXAMPLE / "seaside.yaml", work)
    shutil.copytree(EXAMPLE, work / "package")
    return Environment(tmp_path_factory.mktemp("environment") / "venv", work)


def test_a_package_is_installed_used_and_missed(environment: Environment) -> None:
    lamina = environment.lamina
    assert "no position is called 'sandwich'" in lamina("validate", "seaside.yaml", fails=2)

    environment.run("-m", "pip", "install", "--no-deps", "--no-index", "--no-build-isolation", "./package")
    listed = {plugin["distribution"]: plugin for plugin in json.loads(lamina("plugins", "--json"))}
    assert listed["lamina-plugin-seaside"]["version"] == "0.1.0"
    assert "Chi et al. 2022" in lamina("components", "position", "sandwich")
    assert "valid" in lamina("validate", "seaside.yaml")
    train = ("--data", "text.txt", "--steps", 2, "--batch-size", 2, "--context", 16, "--set", "train.eval_batches=1")
    lamina("train", "seaside.yaml", *train, "--out", "run")
    assert lamina("generate", "run", "the", "--max-new-tokens", 4, "--json")
    record = json.loads(next((environment.work / "run" / "checkpoints").glob("*/lamina.json")).read_text())
    assert record["components"]["position/sandwich"] == {"distribution": "lamina-plugin-seaside", "version": "0.1.0"}

    environment.run("-m", "pip", "uninstall", "-y", "lamina-plugin-seaside")
    said = lamina("generate", "run", "the", fails=2)
    assert "no position is called 'sandwich'" in said
    assert "the model was made with: lamina-plugin-seaside 0.1.0 (activation/snake)" in said
    assert "Traceback" not in said
    said = lamina("resume", "run", fails=2)
    assert "to have what is missing: pip install lamina-plugin-seaside==0.1.0" in said


def test_its_own_tests_pass() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLE)]
    done = subprocess.run(command, cwd=EXAMPLE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


def test_pytest_itself_can_run_the_checks(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--lamina-check", str(EXAMPLE)]
    command += ["-p", "lamina.core.pytest_plugin"] if not any(entry_points(group="pytest11", name="lamina")) else []
    done = subprocess.run([*command, "-k", "snake"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "bad"\nversion = "1"\n[project.entry-points.lamina]\nbad = "bad"\n'
    )
    (tmp_path / "bad.py").write_text(BAD)
    command[command.index(str(EXAMPLE))] = str(tmp_path)
    done = subprocess.run([*command, "-k", "dtype"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "activation/bad: dtype" in done.stdout


BAD = """
from lamina.core import Activation, hookimpl

class Bad(Activation):
    \"\"\"Widens whatever it is given.\"\"\"
    def forward(self, x):
        return x.double()

@hookimpl
def register_components(register):
    register("bad", Bad)
"""
