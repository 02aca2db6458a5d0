"""Names of distributions. Imports no torch."""

from __future__ import annotations

import re


def canonical(name: str) -> str:
    """As package indexes compare names: `Acme_Parts` and `acme-parts` are one."""
    return re.sub(r"[-_.]+", "-", name).lower()
