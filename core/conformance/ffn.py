"""FFNs: each token by itself, in any number of them."""

from __future__ import annotations

import torch

from lamina.core.conformance.case import VOCAB, Case, randn, tokens
from lamina.core.conformance.checks import NotApplicable, Wrong, check
from lamina.core.conformance.texts import same
from lamina.core.context import Context, Span
from lamina.core.ffn import FFN


@check("ffn", name="each token by itself")
@torch.no_grad()
def each_token_by_itself(case: Case) -> None:
    """A token's logits, in a decoder without attention, are those it has alone."""
    if not _tokenwise(case):
        raise NotApplicable("it does not say that it is tokenwise")
    decoder = case.decoder()
    every = torch.arange(VOCAB).unsqueeze(0)
    alone = decoder(every.T)[:, 0]  # (V, V)
    for length in (1, 2, 3, 9, 17):
        ids = tokens(2, length)
        same(decoder(ids), alone[ids], "every token to have the output it has alone", length=length)


@check("ffn", name="shapes")
def any_number_of_tokens(case: Case) -> None:
    """(..., D) -> (..., D), also for no tokens at all, as an expert may get, in training too."""
    ffn, tokenwise = case.build(), _tokenwise(case)
    for training in (False, True):
        ffn.train(training)
        for batch, length in ((1, 1), (1, 0), (2, 3), (1, 7)) if tokenwise else ((1, 1), (2, 3)):
            x = randn(batch, length, case.dim).requires_grad_()
            y = ffn(x, _context(batch, length))
            if y.shape != x.shape:
                raise Wrong(f"the shape {tuple(x.shape)} out", f"{tuple(y.shape)}", training=training)
            if y.requires_grad:
                y.sum().backward()
            if not tokenwise:
                continue
            flat = ffn(x[0], Context(_context(batch, length).token_ids[:1], Span.run(0, length, x.device)))
            if flat.shape != x[0].shape:
                raise Wrong(f"the shape {tuple(x[0].shape)} out, as for an expert", f"{tuple(flat.shape)}")


@check("ffn", name="active parameters")
def active_parameters_are_counted(case: Case) -> None:
    """`active_parameters` is a whole number from 0 to the number there is, on the meta device too."""
    ffn: FFN = case.build()
    total = sum(parameter.numel() for parameter in ffn.parameters())
    active = ffn.active_parameters()
    if not isinstance(active, int) or not 0 <= active <= total:
        raise Wrong(f"active_parameters from 0 to {total}", repr(active))
    if (there := case.build(device="meta").active_parameters()) != active:
        raise Wrong(f"{active} active parameters on the meta device too", repr(there))


def _tokenwise(case: Case) -> bool:
    return "tokenwise" in case.entry.component.provides(case.part.config)


def _context(batch: int, length: int) -> Context:
    return Context(tokens(batch, length), Span.run(0, length, torch.device("cpu")))
