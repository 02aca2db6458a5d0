"""The registry: each plugin by itself, every entry with where it came from, nothing overwritten."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import Tensor

from lamina.core import API_VERSION, Component, ComponentConfig, Norm, PluginError, Register, Sampler, hookimpl
from lamina.core.registry import Plugin, Registry, iter_sources, load_plugin, load_plugins
from lamina.core.resolve import resolve_part


class Half(Norm):
    """A norm of its own kind."""

    def forward(self, x: Tensor) -> Tensor:
        return x / 2


class Unfinished(Norm):
    """Has no forward."""


class Kindless(Component):
    """Derives from no kind's base class."""


class Misconfigured(Half):
    """Its Config is none."""

    Config = dict  # type: ignore[assignment]


def offering(*components: tuple[Any, Any], **attributes: Any) -> SimpleNamespace:
    """A plugin module that registers these names and classes."""

    @hookimpl
    def register_components(register: Register) -> None:
        for name, component in components:
            register(name, component)

    return SimpleNamespace(register_components=register_components, **attributes)


def loaded(module: Any, name: str = "odd", distribution: str = "odd-parts") -> Plugin:
    return load_plugin(name, f"{name}.module", distribution, "3.1", lambda: module)


def failing(error: BaseException) -> Callable[[], Any]:
    def load() -> Any:
        raise error

    return load


def test_an_entry_knows_where_it_came_from() -> None:
    plugin = loaded(offering(("half", Half)))
    (entry,) = plugin.entries
    assert plugin.error is None
    assert (entry.kind, entry.name, entry.component) == ("norm", "half", Half)
    assert (entry.plugin, entry.distribution, entry.version) == ("odd", "odd-parts", "3.1")
    assert Path(entry.source) == Path(__file__)
    assert str(entry) == "norm/odd-parts:half"


def test_lamina_comes_in_through_the_door_that_is_open_to_all() -> None:
    points = [point for point in entry_points(group="lamina") if point.value == "lamina.plugins"]
    assert [point.name for point in points] == ["builtin"]
    registry = load_plugins(only=[])
    assert [plugin.name for plugin in registry.plugins] == ["builtin"]
    entry = registry.get("norm", "rms")
    assert (entry.distribution, entry.plugin) == ("lamina", "builtin")
    assert entry.source.endswith("plugins/norm/rms.py")
    assert {path.suffix for path in iter_sources(registry)} == {".py"}


@pytest.mark.parametrize(
    ("load", "why"),
    [
        (failing(ImportError("No module named 'einops'")), "No module named 'einops'"),
        (failing(RuntimeError("no GPU\nand more")), "RuntimeError: no GPU and more"),
        (failing(SystemExit(3)), "SystemExit: 3"),
        (failing(ValueError()), "ValueError"),
        (failing(BaseException("of its own")), "BaseException: of its own"),
        (lambda: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda: SimpleNamespace(), "it implements no register_components hook"),
        (lambda: offering(api_version=API_VERSION + 1), f"plugin API {API_VERSION + 1}; this lamina has {API_VERSION}"),
        (lambda: offering(("x", 5)), "'x' is not a Component class but 5"),
        (lambda: offering(("x", ComponentConfig)), "'x' is not a Component class"),
        (lambda: offering(("x", Half.__new__)), "'x' is not a Component class"),
        (lambda: offering(("x", Kindless)), "'x' (Kindless) derives from no kind's base class"),
        (lambda: offering(("x", Unfinished)), "norm 'x' (Unfinished) lacks forward"),
        (lambda: offering(("x", Norm)), "norm 'x' (Norm) lacks forward"),
        (lambda: offering(("x", Misconfigured)), "norm 'x': Config must derive from ComponentConfig"),
        (lambda: offering(("half", Half), ("half", Half)), "it registers the norm 'half' twice"),
        (lambda: offering(("a:b", Half)), "norm 'a:b': a name is letters, digits and underscores"),
        (lambda: offering(("", Half)), "norm '': a name is letters"),
        (lambda: offering(("é", Half)), "norm 'é': a name is letters"),
        (lambda: offering((None, Half)), "norm None: a name is letters"),
    ],
)
def test_a_plugin_that_fails_is_recorded_with_the_reason_and_offers_nothing(load: Callable[[], Any], why: str) -> None:
    plugin = load_plugin("odd", "odd.module", "odd-parts", "1", load)
    assert plugin.entries == ()
    assert plugin.error is not None
    assert why in plugin.error
    assert Registry.of([plugin]).failed == {"odd": plugin.error}


def test_one_bad_component_takes_its_plugin_along_and_no_other() -> None:
    bad, good = loaded(offering(("half", Half), ("x", 5)), "bad"), loaded(offering(("half", Half)), "good")
    registry = Registry.of([bad, good])
    assert registry.names("norm") == ["half"]
    assert registry.get("norm", "half").plugin == "good"
    assert list(registry.failed) == ["bad"]


def test_a_mistyped_hook_is_an_error() -> None:
    @hookimpl
    def register_component(register: Register) -> None:
        register("half", Half)

    error = loaded(SimpleNamespace(register_component=register_component)).error
    assert error is not None
    assert "register_component" in error


def test_a_hook_with_another_signature_is_an_error() -> None:
    @hookimpl
    def register_components(registry: Register) -> None:
        registry("half", Half)

    error = loaded(SimpleNamespace(register_components=register_components)).error
    assert error is not None
    assert "registry" in error


def test_an_interrupt_is_not_swallowed() -> None:
    with pytest.raises(KeyboardInterrupt):
        load_plugin("odd", "odd", "odd", "1", failing(KeyboardInterrupt()))


def test_a_class_without_a_source_file_may_be_registered() -> None:
    made: dict[str, Any] = {"Norm": Norm, "__name__": "nowhere"}
    exec("class Made(Norm):\n    'Made.'\n    def forward(self, x):\n        return x", made)
    plugin = loaded(offering(("made", made["Made"])))
    assert plugin.error is None
    assert plugin.entries[0].source == ""


def test_two_plugins_that_offer_one_name_are_both_named_and_either_can_be_picked() -> None:
    here, there = (loaded(offering(("half", Half)), name, name) for name in ("here", "there"))
    registry = Registry.of([here, there])
    with pytest.raises(PluginError, match="here and there both offer the norm 'half'") as caught:
        registry.get("norm", "half")
    assert "write 'here:half' or 'there:half'" in str(caught.value)
    for name in ("here", "there"):
        assert registry.get("norm", f"{name}:half").distribution == name
        assert resolve_part("norm", f"{name}:half", registry).dump() == {"name": f"{name}:half"}
    assert len(registry.entries("norm")) == 2


def test_a_preference_settles_a_clash_and_nothing_else() -> None:
    here, there = (loaded(offering(("half", Half)), name, name) for name in ("here", "there"))
    registry = Registry.of([here, there]).preferring({("norm", "half"): "there"})
    assert registry.get("norm", "half").distribution == "there"
    assert registry.get("norm", "here:half").distribution == "here"
    alone = Registry.of([here]).preferring({("norm", "half"): "there"})
    assert alone.get("norm", "half").distribution == "here"
    third = Registry.of([here, there]).preferring({("norm", "half"): "gone"})
    with pytest.raises(PluginError, match="here and there both offer"):
        third.get("norm", "half")


def test_names_of_different_kinds_do_not_clash() -> None:
    class Stage(Sampler):
        """A sampler of the same name."""

        def forward(self, logits: Tensor, history: Any) -> Tensor:
            return logits

    registry = Registry.of([loaded(offering(("half", Half), ("half", Stage)))])
    assert registry.kinds() == ["norm", "sampler"]
    assert registry.get("sampler", "half").component is Stage


def test_a_name_that_nobody_offers_is_told_with_the_nearest_and_who_may_have_it() -> None:
    registry = Registry.of(
        [loaded(offering(("half", Half))), load_plugin("bad", "b", "b", "1", failing(ValueError("x")))]
    )
    with pytest.raises(PluginError, match="no norm is called 'hlf'") as caught:
        registry.get("norm", "hlf")
    said = str(caught.value)
    assert "did you mean 'half'?" in said
    assert "known: half" in said
    assert "plugin 'bad' failed to load (ValueError: x) and may provide it" in said
    with pytest.raises(PluginError, match="no norm is called 'acme:x'") as caught:
        registry.get("norm", "acme:x")
    assert "pip install acme" in str(caught.value)
    with pytest.raises(PluginError, match="known: none"):
        registry.get("ffn", "mlp")


def test_where_a_component_may_be_had_is_told() -> None:
    registry = Registry.of([loaded(offering(("half", Half)), "odd", "Odd_Parts")])
    for name, hint in (
        ("other:half", "pip install other"),
        ("odd-parts:hlf", "did you mean 'half'?"),
        ("nothing_like_it", "pip install the plugin that offers it, or use one of these"),
    ):
        with pytest.raises(PluginError) as caught:
            registry.get("norm", name)
        assert caught.value.problems[0].hint == hint
    with pytest.raises(PluginError) as caught:
        registry.get("norm", "odd-parts:unlike_any")
    assert caught.value.problems[0].hint == ""


def test_a_distribution_is_one_however_its_name_is_spelt() -> None:
    here, there = (loaded(offering(("half", Half)), name, name) for name in ("Acme_Parts", "there"))
    registry = Registry.of([here, there])
    for name in ("Acme_Parts:half", "acme-parts:half", "acme.parts:half"):
        assert registry.get("norm", name).distribution == "Acme_Parts"
    assert registry.preferring({("norm", "half"): "acme-parts"}).get("norm", "half").distribution == "Acme_Parts"


def test_the_registry_is_frozen() -> None:
    registry = load_plugins(only=[])
    for target, attribute in ((registry, "plugins"), (registry.entries()[0], "name"), (registry.plugins[0], "error")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(target, attribute, None)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two distributions more: one that works, and one that does not import."""
    for name, code in (
        ("acme", ACME),
        ("broken", "print('a greeting')\nraise OSError('no such device')"),
    ):
        (tmp_path / f"{name}_parts.py").write_text(code)
        info = tmp_path / f"{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[lamina]\n{name}_point = {name}_parts\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("LAMINA_PLUGINS", raising=False)
    for name in ("acme_parts", "broken_parts"):
        monkeypatch.delitem(sys.modules, name, raising=False)


ACME = '''
"""A stranger's plugin."""
from lamina.core import Norm, hookimpl

class Same(Norm):
    """Does nothing."""
    def forward(self, x):
        return x

@hookimpl
def register_components(register):
    register("same", Same)
'''


@pytest.mark.usefixtures("installed")
def test_an_installed_distribution_is_found_and_a_broken_one_does_no_harm(capsys: pytest.CaptureFixture[str]) -> None:
    registry = load_plugins()
    entry = registry.get("norm", "same")
    assert (entry.distribution, entry.version, entry.plugin) == ("acme", "1.2", "acme_point")
    assert entry.source.endswith("acme_parts.py")
    assert registry.failed == {"broken_point": "OSError: no such device"}
    assert registry.plugins[0].name == "builtin"
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "a greeting\n")


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("limit", "names"),
    [
        ("", {"builtin"}),
        ("acme", {"builtin", "acme_point"}),
        ("acme_point", {"builtin", "acme_point"}),
        ("ACME-point", {"builtin", "acme_point"}),
        ("broken, acme", {"builtin", "acme_point", "broken_point"}),
        ("nobody", {"builtin"}),
    ],
)
def test_the_environment_limits_what_is_loaded(monkeypatch: pytest.MonkeyPatch, limit: str, names: set[str]) -> None:
    monkeypatch.setenv("LAMINA_PLUGINS", limit)
    assert {plugin.name for plugin in load_plugins().plugins} == names
    assert "broken_parts" not in sys.modules
    monkeypatch.delenv("LAMINA_PLUGINS")
    assert {plugin.name for plugin in load_plugins(only=limit.replace(" ", "").split(",")).plugins} == names
