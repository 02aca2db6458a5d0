"""One side of a comparison: a process that trains one model, a few steps at each word from the harness.

A side is started with its options and says `{"ready": …}` once it is compiled and warm. Then it reads lines: `steps N`
takes N steps and answers with their seconds and losses, `memory` with the most memory held since it was ready, `quit`
ends it. Batches are windows of a text, one id a byte modulo the vocabulary, the same for every side.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BETAS, WEIGHT_DECAY, CLIP = (0.9, 0.99), 0.1, 1.0
WARMUP_STEPS = 2

Step = Callable[[Tensor, Tensor], Tensor]  # (token_ids, targets), (B, T) each -> the loss


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workload", required=True)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--context", type=int, required=True)
    parser.add_argument("--vocab", type=int, required=True)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--text", type=Path, help="Text to train on; random ids without it.")
    parser.add_argument("--weights", type=Path, help="safetensors to start with, as the spec names its tensors.")
    parser.add_argument("--variant", default="", help="What else a side may do one way or another.")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    return chosen


def training_step(loss_of: Step, model: nn.Module, chosen: argparse.Namespace) -> Step:
    """The plain loop every peer gets: autocast, clip, fused AdamW with decay on matrices alone."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=chosen.learning_rate, betas=BETAS, fused=True
    )
    if chosen.compile:
        loss_of = torch.compile(loss_of)

    def step(token_ids: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=chosen.dtype == "bfloat16"):
            loss = loss_of(token_ids, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.view(-1, logits.shape[-1]).float(), targets.reshape(-1))


def batches(chosen: argparse.Namespace) -> Callable[[int], tuple[Tensor, Tensor]]:
    if chosen.text is not None:
        ids = torch.frombuffer(bytearray(chosen.text.read_bytes()), dtype=torch.uint8).long()
        ids = ids.unique(return_inverse=True)[1] % chosen.vocab
    else:
        ids = torch.randint(chosen.vocab, (1 << 18,), generator=torch.Generator().manual_seed(1))

    def batch(step: int) -> tuple[Tensor, Tensor]:
        draw = torch.Generator().manual_seed(step)
        begins = torch.randint(len(ids) - chosen.context - 1, (chosen.batch,), generator=draw)
        windows = ids[begins[:, None] + torch.arange(chosen.context + 1)]
        return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()

    return batch


def serve(step: Step, chosen: argparse.Namespace, n_parameters: int, versions: str) -> None:
    batch, taken = batches(chosen), 0

    def run(n: int) -> tuple[list[float], list[float]]:
        nonlocal taken
        seconds, losses = [], []
        for _ in range(n):
            token_ids, targets = batch(taken)
            start = time.perf_counter()
            loss = step(token_ids, targets)
            seconds.append(time.perf_counter() - start)
            losses.append(loss.item())
            taken += 1
        return seconds, losses

    start = time.perf_counter()
    _, losses = run(WARMUP_STEPS)
    answer(
        ready=True,
        parameters=n_parameters,
        versions=versions,
        warmup_s=time.perf_counter() - start,
        losses=losses,
        peak_to_here=_peak(),
    )
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on, without what compiling took
    for line in sys.stdin:
        word, *rest = line.split()
        if word == "steps":
            seconds, losses = run(int(rest[0]))
            answer(seconds=seconds, losses=losses)
        elif word == "memory":
            answer(peak_rss_bytes=_peak())
        else:
            return


def answer(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


def _peak() -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmHWM:")).split()[1]) * 1024
