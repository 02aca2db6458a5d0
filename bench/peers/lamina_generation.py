"""lamina generating: `lamina.load` and the loop behind `lamina generate`."""

from __future__ import annotations

import argparse
import time

import torch
from generation_side import serve

import lamina
from lamina.core.build import build_part
from lamina.core.decoding import Request
from lamina.core.generate import DecoderStep
from lamina.core.resolve import resolve_part


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--backend", default="native")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    model = lamina.load(chosen.model, dtype=chosen.dtype, backend=chosen.backend)
    greedy = build_part(resolve_part("decoding", "greedy", model.spec.registry))

    @torch.inference_mode()
    def generate(prompts: list[list[int]], new_tokens: int) -> tuple[float, float]:
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(row)) + row for row in prompts])
        request = Request(ids, torch.tensor([len(row) for row in prompts]), new_tokens)
        start = time.perf_counter()
        tokens = greedy.decode(DecoderStep(model.decoder, new_tokens), request)
        next(tokens)
        first = time.perf_counter()
        for _ in tokens:
            pass
        return first - start, time.perf_counter() - first

    about = {"versions": f"lamina, torch {torch.__version__}", "backend": chosen.backend, "dtype": chosen.dtype}
    serve(generate, model.decoder.vocab_size, **about)


if __name__ == "__main__":
    main()
