"""What the sides of a generation comparison share: the loop that answers the harness.

`run BATCH LEAST MOST NEW` generates NEW tokens greedily for BATCH prompts of LEAST to MOST tokens, evenly spread, and
answers with the seconds to the first token of every row and from there to the last; `about` tells versions.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

Generate = Callable[
    [list[list[int]], int], tuple[float, float]
]  # prompts, new tokens -> seconds to the first, the rest


def prompts(vocab_size: int, batch: int, least: int, most: int) -> list[list[int]]:
    """The same for every side: a plain linear congruence."""
    made, state = [], 1
    for row in range(batch):
        ids = []
        for _ in range(round(least + (most - least) * row / max(1, batch - 1))):
            state = (1103515245 * state + 12345) % 2**31
            ids.append(state // 7 % (vocab_size - 100) + 50)
        made.append(ids)
    return made


def serve(generate: Generate, vocab_size: int, **about: object) -> None:
    answer(ready=True)
    for line in sys.stdin:
        word, *rest = line.split()
        if word == "run":
            batch, least, most, new = map(int, rest)
            first, after = generate(prompts(vocab_size, batch, least, most), new)
            answer(first_s=first, rest_s=after)
        elif word == "about":
            answer(**about)
        else:
            return


def answer(**fields: object) -> None:
    print(json.dumps(fields), flush=True)
