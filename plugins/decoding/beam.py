"""Beam search: keep the `n_beams` most likely continuations, score(y) = Σ log p(y_t) / |y|^α.

Sutskever et al. 2014, arXiv:1409.3215; length penalty in the manner of Wu et al. 2016, arXiv:1609.08144.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor

from lamina.core import ComponentConfig, Decoding, History, Register, Request, Step, hookimpl


class BeamConfig(ComponentConfig):
    n_beams: int = Field(4, ge=1, description="How many continuations are followed at a time.")
    length_penalty: float = Field(
        1.0, ge=0, le=10, description="α: 0 favours short texts, 1 compares the mean per token."
    )


class Beam(Decoding):
    """Follow the best continuations side by side and give the best one at the end.

    A continuation that meets a stop token leaves the beam, which goes on narrower, so one beam is greedy decoding.
    """

    Config = BeamConfig
    paper = "Sutskever et al. 2014, arXiv:1409.3215"

    def __init__(self, config: BeamConfig) -> None:
        self.n_beams, self.alpha = config.n_beams, config.length_penalty

    def decode(self, step: Step, request: Request) -> Iterator[Tensor]:
        # One prompt at a time: the beams fill the batch, and no prompt waits for another.
        found = [
            self._search(step, request, row, limit) if limit > 0 else []
            for row, limit in enumerate(request.limits.tolist())
        ]
        longest = max(map(len, found), default=0)
        if longest:
            padded = [tokens + [-1] * (longest - len(tokens)) for tokens in found]
            yield torch.tensor(padded, device=request.token_ids.device)

    def _search(self, step: Step, request: Request, row: int, limit: int) -> list[int]:
        prompt = request.only(row)
        seen, start = prompt.token_ids, prompt.token_ids.shape[1]  # (n, start + tokens so far)
        stop = torch.tensor(sorted(request.stop_ids), dtype=torch.int64, device=seen.device)
        logits = step.start(seen, prompt.lengths)
        sums = logits.new_zeros(1, dtype=torch.float32)  # (n,) log-probability of each continuation
        best, best_score, width = seen[0], -torch.inf, self.n_beams

        for length in range(1, limit + 1):
            history = History(seen, prompt.lengths.expand(len(seen)) + length - 1, length - 1)
            totals = sums.unsqueeze(1) + prompt.shape(logits, history).log_softmax(-1)  # (n, V)
            sums, flat = totals.flatten().topk(min(width, totals.numel()))
            sums, flat = sums[sums > -torch.inf], flat[sums > -torch.inf]  # the chain may leave fewer than `width`
            parents, tokens = flat // totals.shape[1], flat % totals.shape[1]
            seen = torch.cat([seen[parents], tokens.unsqueeze(1)], 1)

            ended = torch.isin(tokens, stop) | (length == limit)
            scores = sums.masked_fill(~ended, -torch.inf) / length**self.alpha
            if scores.max() > best_score:
                best, best_score = seen[scores.argmax()], float(scores.max())
            going = (~ended).nonzero().squeeze(1)
            width -= len(tokens) - len(going)
            # A sum only falls, so no continuation can come to score more than its sum over the greatest length.
            if len(going) == 0 or best_score >= float(sums[going].max()) / limit**self.alpha:
                break
            sums, seen, parents = sums[going], seen[going], parents[going]
            step.reorder(parents)
            for stage in prompt.chain:
                stage.reorder(parents)
            logits = step.advance(tokens[going])

        found: list[int] = best[start:].tolist()
        return found


@hookimpl
def register_components(register: Register) -> None:
    register("beam", Beam)
