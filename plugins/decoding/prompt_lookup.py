"""Prompt lookup: guess that what followed the last few tokens before follows them again, and check the guess.

Speculative decoding (Leviathan et al. 2022, arXiv:2211.17192) without a draft model; Saxena 2023, Prompt Lookup
Decoding.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor

from lamina.core import ComponentConfig, Drafter, History, Register, Request, Speculation, hookimpl


class PromptLookupConfig(ComponentConfig):
    n_draft: int = Field(8, ge=1, description="How many tokens are guessed at a time, at most.")
    max_ngram: int = Field(3, ge=1, description="How many of the last tokens must have come before, at best.")


class PromptLookup(Speculation):
    """Several tokens a call where a text repeats itself; the distribution of each stays as it was.

    The longest run of last tokens that came before is looked for, its latest place wins.
    """

    Config = PromptLookupConfig
    paper = "Saxena 2023, Prompt Lookup Decoding; Leviathan et al. 2022, arXiv:2211.17192"

    def __init__(self, config: PromptLookupConfig) -> None:
        super().__init__()
        self.config = config

    def drafter(self, request: Request) -> Drafter:
        return _Lookup(self.config)


class _Lookup:
    def __init__(self, config: PromptLookupConfig) -> None:
        self.config = config

    def guess(self, request: Request, history: History, most: int) -> tuple[Sequence[int], Tensor | None]:
        tokens = history.token_ids[0]  # (L,)
        for n in range(min(self.config.max_ngram, len(tokens) - 1), 0, -1):
            ends = (tokens[:-1].unfold(0, n, 1) == tokens[-n:]).all(-1).nonzero().squeeze(1) + n  # what followed
            if len(ends):
                follows: list[int] = tokens[int(ends[-1]) :][: min(self.config.n_draft, most)].tolist()
                return follows, None
        return [], None


@hookimpl
def register_components(register: Register) -> None:
    register("prompt_lookup", PromptLookup)
