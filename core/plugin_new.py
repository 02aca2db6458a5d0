"""`lamina plugin new`: a complete package with one component, its test and a README. Imports no torch.

What a kind's package begins with is in `templates/<kind>.txt`: a summary, a line for a spec, the module and its test,
each below a line of the form `=== name`. `Example` and `example` stand for the component's names.
"""

from __future__ import annotations

import keyword
import re
import sys
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

from lamina.core.distribution import canonical
from lamina.core.errors import PluginError, did_you_mean
from lamina.core.files import atomic_directory
from lamina.core.index import Index, read_index

TEMPLATES = Path(__file__).parent / "templates"
LONGEST = 80
# Files and folders that tools look for under these names.
TAKEN = {"build", "conftest", "dist", "docs", "lamina", "noxfile", "pyproject", "pytest", "setup", "src", "tests"}


def kinds_with_templates() -> list[str]:
    return sorted(file.stem for file in TEMPLATES.glob("*.txt"))


def new_plugin(name: str, kind: str, parent: Path) -> Path:
    """Write the package into `parent / name`, which must not exist, and return that folder."""
    kinds = kinds_with_templates()
    if kind not in kinds:
        raise PluginError(
            f"no kind is called '{kind}'", hint=did_you_mean(kind, kinds), note=f"known: {', '.join(kinds)}"
        )
    module = module_name(name)
    _check_free(name, module, kind, read_index())
    folder = parent / name
    if folder.exists() or folder.is_symlink():
        raise PluginError(f"'{folder}' already exists", hint="choose another name, or remove it first")
    with atomic_directory(folder) as place:
        for path, text in files(name, module, kind).items():
            (place / path).parent.mkdir(exist_ok=True)
            (place / path).write_text(text, encoding="utf-8")
    return folder


def module_name(name: str) -> str:
    """The module, and component, that a package called `name` has. PluginError: it can have none."""
    if not re.fullmatch(r"[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9._-]*[A-Za-z0-9]", name):
        wrong = next((c for c in name if not re.fullmatch(r"[A-Za-z0-9._-]", c)), "")
        what = f"{wrong!r} cannot stand in it" if wrong else "it must begin and end with a letter or digit"
        raise PluginError(
            f"'{name}' is no name for a package: {what}" if name else "a package needs a name",
            hint="use letters, digits and hyphens, as in acme-norm",
        )
    module = re.sub(r"[-_.]+", "_", name).lower()
    if len(name) > LONGEST:
        raise PluginError(f"the name has {len(name)} characters; at most {LONGEST} are sensible")
    if module[0].isdigit():
        raise PluginError(f"'{name}' begins with a digit, and a Python module cannot", hint=f"such as n-{name}")
    if keyword.iskeyword(module):
        raise PluginError(f"'{module}' is a word of Python, and cannot be imported", hint=f"such as {module}-plugin")
    if module in TAKEN or module in sys.stdlib_module_names:
        whose = "Python's library has" if module in sys.stdlib_module_names else "tools look for"
        raise PluginError(f"{whose} a module called '{module}'", hint=f"such as {name}-plugin")
    return module


def _check_free(name: str, module: str, kind: str, index: Index) -> None:
    """That neither module nor component stands in the way of what is installed."""
    owners = {canonical(owner): owner for owner in packages_distributions().get(module, [])}
    plugins = {canonical(plugin["distribution"]) for plugin in index.plugins}
    if owners and (canonical(name) not in owners or canonical(name) not in plugins):  # its own, made anew, is no clash
        raise PluginError(f"{', '.join(owners.values())} has a module called '{module}'", hint=f"such as {name}-plugin")
    if not owners and module not in sys.modules and (found := find_spec(module)) is not None and found.origin:
        raise PluginError(f"there is a module called '{module}' already: {found.origin}", hint="choose another name")
    for component in index.components:
        same = component["kind"] == kind and component["name"] == module
        if same and canonical(component["distribution"]) != canonical(name):
            raise PluginError(
                f"{component['distribution']} has a {kind} called '{module}': with both, using that name is an error",
                hint=f"choose another name, such as my-{name}",
            )


def files(name: str, module: str, kind: str) -> dict[str, str]:
    """Every file of the package, by path."""
    parts = _sections((TEMPLATES / f"{kind}.txt").read_text(encoding="utf-8"), module)
    return {
        "pyproject.toml": PYPROJECT.format(name=name, module=module, kind=kind),
        f"{module}.py": parts["module"],
        f"tests/test_{module}.py": TEST.format(module=module) + parts["test"],
        "README.md": README.format(
            title=name, name=name, module=module, kind=kind, about=parts["about"].strip(), spec=parts["spec"].strip()
        ),
    }


def _sections(text: str, module: str) -> dict[str, str]:
    """The parts of a template, the component's names put in."""
    text = re.sub(r"\bExample(?=[A-Z]|\b)", _class_name(text, module), text)
    text = re.sub(r"\bexample\b", module, text)
    pieces = re.split(r"^=== (\w+)\n", text, flags=re.MULTILINE)[1:]
    return {title: body.strip("\n") + "\n" for title, body in zip(pieces[::2], pieces[1::2], strict=True)}


def _class_name(text: str, module: str) -> str:
    """`AcmeNorm` for acme_norm; with `Component` behind it where Python or the template needs that word itself."""
    name = "".join(word.capitalize() for word in module.split("_"))
    words = set(re.findall(r"\w+", text))
    made = {name + word.removeprefix("Example") for word in words if word.startswith("Example")}
    return f"{name}Component" if keyword.iskeyword(name) or made & words else name


PYPROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "{name}"
version = "0.1.0"
description = "A {kind} for lamina."
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["lamina"]

[project.optional-dependencies]
test = ["pytest"]

[project.entry-points.lamina]
{module} = "{module}"

[tool.setuptools]
py-modules = ["{module}"]

[tool.pytest.ini_options]
testpaths = ["tests"]
pythonpath = ["."]

[tool.ruff]
line-length = 120
"""

TEST = '"""The {module} component: lamina\'s conformance kit, and its own formula."""\n\n'

README = """\
# {title}

{about}

```sh
pip install -e .
lamina components {kind} {module}
lamina plugin check {name}
pytest
```

In a spec:

```yaml
{spec}
```

`{module}.py` is the component: its options, what it computes, and the line that registers it. `tests/test_{module}.py`
runs every contract that lamina has for this kind, and compares with the formula.
"""
