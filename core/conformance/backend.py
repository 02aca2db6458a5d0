"""Backends: the logits of the eager decoder, within what their precision costs."""

from __future__ import annotations

import copy

import torch

from lamina.core.backend import Backend
from lamina.core.build import build
from lamina.core.conformance.case import Case, move, tokens
from lamina.core.conformance.checks import Wrong, check
from lamina.core.conformance.texts import run
from lamina.core.decoder import Decoder

CLOSE = 0.25  # largest error of the logits, relative, of a backend that gives up precision; four bits cost this much


def decoders(case: Case) -> tuple[Decoder, Decoder]:
    """(eager, prepared) with the same weights."""
    eager = build(case.plain_spec, dtype=torch.float32)
    move(eager)
    backend: Backend = case.build(dtype=torch.float32)
    return eager.eval(), backend.prepare(copy.deepcopy(eager), training=False)


@check("backend", name="eager logits", once=True)
@torch.no_grad()
def the_logits_are_those_of_eager(case: Case) -> None:
    """Full calls and cached ones give the eager logits, within the precision's own error."""
    eager, prepared = decoders(case)
    for split in ((1,), (3,), (3, 1, 1)):
        ids = tokens(2, sum(split))
        want = eager(ids)
        for what, got in (("full call", prepared(ids)), ("cached calls", run(prepared, ids, split))):
            if got.shape != want.shape or not got.isfinite().all():
                raise Wrong(f"finite logits {tuple(want.shape)}", f"{tuple(got.shape)}", call=what)
            off = float((got.float() - want).norm() / want.norm())
            if off > CLOSE:
                raise Wrong("the eager logits", f"a relative error of {off:.2g}", call=what, length=sum(split))


@check("backend", name="trains", once=True)
def it_trains(case: Case) -> None:
    """Prepared for training, a decoder has the parameters it had, and they get gradients; or it is refused."""
    from lamina.core.errors import LaminaError

    eager = build(case.plain_spec, dtype=torch.float32)
    move(eager)
    backend: Backend = case.build(dtype=torch.float32)
    try:
        prepared = backend.prepare(copy.deepcopy(eager), training=True)
    except LaminaError:
        return
    if list(prepared.tensors()) != list(eager.tensors()):
        raise Wrong("the weights to keep their names, which checkpoints hold", "other names")
    ids = tokens(2, 5)
    for decoder in (eager.train(), prepared.train()):
        decoder(ids).square().mean().backward()
    for (name, a), b in zip(eager.named_parameters(), prepared.parameters(), strict=True):
        if a.grad is not None and (
            b.grad is None or float((a.grad - b.grad).norm()) > CLOSE * float(a.grad.norm()) + 1e-6
        ):
            raise Wrong("the eager gradients", f"others in '{name}'")
