"""Attentions: what they say they honour of their neighbours, they honour."""

from __future__ import annotations

import torch

from lamina.core.conformance.case import Case, tokens
from lamina.core.conformance.checks import Wrong, check
from lamina.core.conformance.texts import other


@check("attention", name="position sizes")
def the_sizes_of_a_position_are_told(case: Case) -> None:
    """`position_sizes` gives head_dim and n_heads from 1, or None for an attention without a position."""
    component = case.entry.component
    sizes = component.position_sizes(case.part.config)  # type: ignore[attr-defined]
    takes = "queries_keys" in (words := component.provides(case.part.config)) or "scores" in words
    if sizes is None:
        if takes:
            raise Wrong("position_sizes of an attention that lets a position act", "None")
        return
    for name in ("head_dim", "n_heads"):
        if not isinstance(sizes.get(name), int) or sizes[name] < 1:
            raise Wrong(f"position_sizes with a whole number '{name}' from 1", repr(sizes))


@check("attention", name="mixes tokens")
@torch.no_grad()
def later_tokens_read_earlier_ones(case: Case) -> None:
    """Some token's logits depend on a token before it."""
    decoder = case.decoder()
    ids = tokens(1, 9)
    changed = torch.cat([other(ids[:, :1]), ids[:, 1:]], 1)
    if torch.equal(decoder(ids)[:, 1:], decoder(changed)[:, 1:]):
        raise Wrong("some later token to read the first", "none does", length=9)
