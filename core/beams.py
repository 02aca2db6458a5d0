"""The loop of strategies that follow several continuations of a prompt side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lamina.core.decoding import Request, Step
from lamina.core.sampler import History

Penalise = Callable[[Tensor, Tensor], Tensor]


def search_beams(
    step: Step,
    request: Request,
    row: int,
    widths: Sequence[int],
    length_penalty: float,
    penalise: Penalise | None = None,
) -> list[int]:
    """The best continuation of one row that is found by groups of beams, by Σ log p(y_t) / |y|^length_penalty.

    Group g starts with `widths[g]` beams; a continuation that has ended leaves its group, which goes on narrower.
    Groups choose one after the other: `penalise(scores, chosen)` says what a group sorts its continuations by, from
    their sums of log-probabilities (n, V) and the tokens (m,) that the groups before it have just chosen.
    """
    limit = int(request.limits[row])
    prompt = request.only(row)
    seen, start = prompt.token_ids, prompt.token_ids.shape[1]  # (n, start + tokens so far)
    if limit == 0:
        return []
    logits = step.start(seen, prompt.lengths)
    # All groups begin with the prompt. Afterwards the rows of one group stand together, in the order of the groups.
    groups = [torch.zeros(1, dtype=torch.int64, device=seen.device) for _ in widths]
    sums, left = logits.new_zeros(1, dtype=torch.float32), list(widths)
    best, best_score = seen[0], -torch.inf

    for length in range(1, limit + 1):
        history = History(seen, prompt.lengths[:1].expand(len(seen)) + length - 1, length - 1)
        totals = sums.unsqueeze(1) + prompt.shape(logits, history).log_softmax(-1)  # (n, V)
        parents, tokens, owners = _choose(totals, groups, left, penalise)
        sums = totals[parents, tokens]
        prompt.reorder(parents)
        seen = torch.cat([seen[parents], tokens.unsqueeze(1)], 1)

        ended = prompt.ended(History(seen, prompt.lengths[:1].expand(len(seen)) + length, length)) | (length == limit)
        scores = sums.masked_fill(~ended, -torch.inf) / length**length_penalty
        if scores.max() > best_score:
            best, best_score = seen[scores.argmax()], float(scores.max())
        going = (~ended).nonzero().squeeze(1)
        # A sum only falls, so no continuation can come to score more than its sum over the greatest length.
        if len(going) == 0 or best_score >= float(sums[going].max()) / limit**length_penalty:
            break
        left = [n - int((owners[ended] == group).sum()) for group, n in enumerate(left)]
        sums, seen, parents, owners = sums[going], seen[going], parents[going], owners[going]
        groups = [(owners == group).nonzero().squeeze(1) for group in range(len(widths))]
        step.reorder(parents)
        prompt.reorder(going)
        logits = step.advance(tokens[going])

    found: list[int] = best[start:].tolist()
    return found


def _choose(
    totals: Tensor, groups: Sequence[Tensor], widths: Sequence[int], penalise: Penalise | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Each group's best continuations: the row (n,) each goes on from, its next token (n,), and its group (n,)."""
    vocab_size = totals.shape[1]
    chosen: list[tuple[Tensor, Tensor]] = []
    for rows, width in zip(groups, widths, strict=True):
        if width == 0 or len(rows) == 0:
            chosen.append((rows[:0], rows[:0]))
            continue
        scores = totals[rows]  # (n, V)
        if penalise is not None:
            scores = penalise(scores, torch.cat([rows[:0], *(tokens for _, tokens in chosen)]))
        values, flat = scores.flatten().topk(min(width, scores.numel()))
        flat = flat[values > -torch.inf]  # the chain may leave fewer than `width`
        chosen.append((rows[flat // vocab_size], flat % vocab_size))
    parents, tokens = (torch.cat(found) for found in zip(*chosen, strict=True))
    owners = torch.cat([torch.full_like(rows, group) for group, (rows, _) in enumerate(chosen)])
    return parents, tokens, owners
