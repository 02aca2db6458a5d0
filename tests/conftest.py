"""Shared by all tests: one thread, one seed, no surprises from the environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# No test is about time, and this machine may be busy with others.
settings.register_profile("lamina", deadline=None)
settings.load_profile("lamina")

os.environ.pop("LAMINA_PLUGINS", None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """As many processes as there are cores; for a file alone none, which costs more to start than it saves."""
    alone = len(config.args) == 1 and Path(config.args[0].partition("::")[0]).is_file()
    return 0 if alone else None


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    """Random weights and inputs are alike whatever ran before."""
    import torch

    torch.manual_seed(0)
