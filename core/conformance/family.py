"""Families: whatever a stranger's config says ends in a spec or in problems, and any spec in a config."""

from __future__ import annotations

import json
from typing import Any

from lamina.core.config_keys import ConfigKeys
from lamina.core.conformance.case import Case
from lamina.core.conformance.checks import Wrong, check
from lamina.core.errors import LaminaError
from lamina.core.family import Family

# What a config may hold where a number, a name or a list is due.
STRANGE: tuple[Any, ...] = (None, 0, -1, 10**9, 1.5, "", "none", True, [], ["x"], {}, {"rope_type": 3})


@check("family", name="names what it serves", once=True)
def it_names_what_it_serves(case: Case) -> None:
    """`model_types` lists texts and `architecture` is one."""
    component: Any = case.entry.component
    types = getattr(component, "model_types", None)
    if not isinstance(types, tuple) or not types or not all(isinstance(name, str) and name for name in types):
        raise Wrong("`model_types`, a tuple of model_type values", repr(types))
    if not isinstance(getattr(component, "architecture", None), str):
        raise Wrong("`architecture`, transformers' class for language modelling")


@check("family", name="strange configs", once=True)
def strange_configs_end_in_problems(case: Case) -> None:
    """`read` raises nothing, whatever the values of the keys it asks for."""
    family: Any = case.entry.component
    asked = ConfigKeys({})
    _read(family(), asked)
    for key in sorted(_Asked.names(family())):
        for value in STRANGE:
            _read(family(), ConfigKeys({"num_hidden_layers": 2, "n_layer": 2, key: value}), key=key, value=repr(value))


class _Asked(ConfigKeys):
    """Notes every key that is asked for."""

    def __init__(self) -> None:
        super().__init__({})
        self.asked: set[str] = set()

    def get(self, name: str, default: Any = None, *older: str) -> Any:
        self.asked |= {name, *older}
        return super().get(name, default, *older)

    @classmethod
    def names(cls, family: Family) -> set[str]:
        made = cls()
        family.read(made)
        return made.asked


def _read(family: Family, config: ConfigKeys, **case: Any) -> None:
    try:
        found = family.read(config)
    except Exception as error:
        raise Wrong("a spec, or problems noted", f"{type(error).__name__}: {error}", **case) from error
    if not isinstance(found, dict):
        raise Wrong("a spec as plain data", repr(found), **case)


@check("family", name="any spec", once=True)
def any_spec_is_said_or_refused(case: Case) -> None:
    """`write` makes plain data of a spec that is none of the family's, or refuses it with a LaminaError."""
    family: Any = case.entry.component
    try:
        json.dumps(family().write(case.plain_spec))
    except LaminaError:
        return
    except Exception as error:
        raise Wrong("a config as plain data", f"{type(error).__name__}: {error}") from error
