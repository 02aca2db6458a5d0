"""The corpus kind: where training text comes from. Imports no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lamina.core.component import Component


class Corpus(Component, ABC):
    """A sequence of documents, the same at every reading. Built as `cls(config, directory)`."""

    kind = "corpus"
    told = ("directory",)

    def __init__(self, config: Any, directory: Path) -> None:
        self.config, self.directory = config, directory

    @abstractmethod
    def documents(self) -> Iterator[str]:
        """Each document's text, in a fixed order. Raises DataError when there is nothing to read."""
