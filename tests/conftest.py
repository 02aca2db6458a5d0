"""Shared by all tests: one thread, one seed, no surprises from the environment."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# No test is about time, and this machine may be busy with others.
settings.register_profile("lamina", deadline=None)
settings.load_profile("lamina")

os.environ.pop("LAMINA_PLUGINS", None)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    """Random weights and inputs are alike whatever ran before."""
    import torch

    torch.manual_seed(0)
