"""Masks: what a pattern says of itself is true of what it allows."""

from __future__ import annotations

import torch
from torch import Tensor

from lamina.core.conformance import decoder as decoders
from lamina.core.conformance.case import Case
from lamina.core.conformance.checks import Wrong, check
from lamina.core.mask import Mask

LENGTHS = (1, 2, 3, 4, 5, 8, 13, 21)


def allowed(mask: Mask, n: int) -> Tensor:
    """(n, n) bool: what a text of n tokens sees, causality included."""
    at = torch.arange(n)
    found = mask.allowed(at.view(1, n, 1), at.view(1, 1, n))
    if found.dtype != torch.bool:
        raise Wrong("allowed to return bool", str(found.dtype), length=n)
    try:
        found = found.expand(1, n, n)[0]
    except RuntimeError as error:
        raise Wrong(f"allowed to broadcast to (…, {n}, {n})", f"{tuple(found.shape)}", length=n) from error
    return found & (at <= at.unsqueeze(1)) if mask.causal else found


@check("mask", name="sees itself")
def every_token_sees_itself(case: Case) -> None:
    """Every token may see itself: a row of scores without any would be NaN."""
    mask: Mask = case.build()
    for n in LENGTHS:
        blind = (~allowed(mask, n).diagonal()).nonzero().flatten().tolist()
        if blind:
            raise Wrong("every token to be allowed to see itself", "one is not", length=n, token=blind[0])


@check("mask", name="reach is true")
def reach_is_true(case: Case) -> None:
    """No query sees further back than `reach`; with `fills_reach` it sees all of that."""
    mask: Mask = case.build()
    reach = mask.reach
    if reach is None:
        if mask.fills_reach:
            raise Wrong("a mask that fills its reach to have one", "reach is None")
        return
    if not isinstance(reach, int) or reach < 1:
        raise Wrong("reach to be a whole number from 1, or None", repr(reach))
    for n in (*LENGTHS, reach + 1, 2 * reach + 3):
        if n > 4096:
            continue
        seen, at = allowed(mask, n), torch.arange(n)
        back = at.unsqueeze(1) - at  # (query, key): how far back the key lies
        far = (seen & (back >= reach)).nonzero().tolist()
        if far:
            raise Wrong(
                f"nothing seen further back than the last {reach} tokens",
                f"token {far[0][0]} sees {far[0][1]}",
                length=n,
                reach=reach,
            )
        hidden = (~seen & (back >= 0) & (back < reach)).nonzero().tolist()
        if mask.fills_reach and hidden:
            raise Wrong(
                f"every one of the last {reach} tokens seen, as fills_reach says",
                f"token {hidden[0][0]} does not see {hidden[0][1]}",
                length=n,
                reach=reach,
            )


@check("mask", name="dense_up_to is true")
def dense_up_to_is_true(case: Case) -> None:
    """In a text of up to `dense_up_to` tokens all that causality allows is allowed."""
    mask: Mask = case.build()
    for n in sorted({*LENGTHS, int(min(mask.dense_up_to, 64))} - {0}):
        if n > mask.dense_up_to:
            break
        missing = (~allowed(mask, n) & torch.ones(n, n, dtype=torch.bool).tril()).nonzero().tolist()
        if missing:
            raise Wrong(
                f"everything allowed in a text of up to {mask.dense_up_to:g} tokens, as dense_up_to says",
                f"token {missing[0][0]} does not see {missing[0][1]}",
                length=n,
            )


@check("mask", name="positions alone")
def it_follows_from_positions_alone(case: Case) -> None:
    """Each pair of positions has one answer, whichever others are asked for and with a batch before them."""
    mask: Mask = case.build()
    n = LENGTHS[-1]
    whole = mask.allowed(torch.arange(n).view(1, n, 1), torch.arange(n).view(1, 1, n)).expand(1, n, n)[0]
    at = torch.tensor([[3, 0, 7, 20], [5, 6, 1, 2]])  # (B, S), in no order, as a ring has them
    got = mask.allowed(at.unsqueeze(-1), at.unsqueeze(-2)).expand(2, 4, 4)
    for row in range(2):
        if not torch.equal(got[row], whole[at[row]][:, at[row]]):
            raise Wrong(
                "positions (B, T, 1) and (B, 1, S) in any order to be answered alike", "another answer", row=row
            )
    twin: Mask = case.build()
    if mask.pattern == twin.pattern and hash(mask.pattern) != hash(twin.pattern):
        raise Wrong("patterns that are equal to have one hash", "two")


@check("mask", name="pattern is true")
def equal_patterns_allow_the_same(case: Case) -> None:
    """Masks of other options that allow something else have another `pattern`: its result is shared between layers."""
    mask: Mask = case.build()
    from lamina.core.conformance.case import cases_of

    for variant in cases_of(case.entry, case.registry, case.directory):
        other: Mask = variant.build()
        if other.pattern == mask.pattern and not torch.equal(allowed(other, 21), allowed(mask, 21)):
            raise Wrong(
                "masks that allow different things to differ in `pattern`", f"the same for {case} and {variant}"
            )


@check("mask", name="in an attention")
def an_attention_keeps_its_invariants(case: Case) -> None:
    """With it an attention sees no future, keeps documents apart and gives in any cache split the same logits."""
    decoders.sees_no_future(case)
    decoders.documents_are_apart(case)
    decoders.any_split_is_one_call(case)
    decoders.documents_stay_apart_in_a_cache(case)
