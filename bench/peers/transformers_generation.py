"""transformers: its own `generate`, padded on the left, watched so that the first token is told from the rest."""

from __future__ import annotations

import argparse
import time

import torch
import transformers
from generation_side import serve


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    model = transformers.AutoModelForCausalLM.from_pretrained(chosen.model, dtype=getattr(torch, chosen.dtype)).eval()

    @torch.inference_mode()
    def generate(prompts: list[list[int]], new_tokens: int) -> tuple[float, float]:
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(row)) + row for row in prompts])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in prompts])
        start = time.perf_counter()
        options = {"do_sample": False, "pad_token_id": 0, "eos_token_id": None}
        watch = Watch()
        model.generate(
            ids, attention_mask=mask, max_new_tokens=new_tokens, streamer=None, logits_processor=[watch], **options
        )
        return watch.first - start, time.perf_counter() - watch.first

    serve(
        generate,
        model.config.vocab_size,
        versions=f"transformers {transformers.__version__}, torch {torch.__version__}",
    )


class Watch(transformers.LogitsProcessor):
    """Notes when the first logits were there."""

    def __init__(self) -> None:
        self.first = 0.0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.first = self.first or time.perf_counter()
        return scores


if __name__ == "__main__":
    main()
