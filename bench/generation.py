"""Generation beside the peers: the same prompts, greedy, each side its own process, rounds in turn, medians.

    python bench/generation.py --model MODEL --gguf f32=A,bf16=B,q8_0=C,q4_0=D --peers PEERS/bin/python

MODEL is a model directory of lamina; the GGUF files hold the same model. `--hf` names what `lamina export MODEL` wrote,
for transformers. Prefill is all prompt tokens over the time to the first new token of every row.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

from harness import Side, processor

HERE = Path(__file__).parent
# precision -> lamina's dtype and backend, llama.cpp's file
PRECISIONS = {
    "float32": ("float32", "native", "f32"),
    "bfloat16": ("bfloat16", "native", "bf16"),
    "int8": ("float32", "int8", "q8_0"),
    "int4": ("float32", "int4", "q4_0"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--gguf", default="", help="file=type pairs of llama.cpp's files: f32=…,bf16=…,q8_0=…,q4_0=…")
    parser.add_argument("--hf", type=Path, help="The same model as transformers reads it.")
    parser.add_argument("--peers", default=sys.executable, help="The python that has the peers installed.")
    parser.add_argument("--precisions", default=",".join(PRECISIONS))
    parser.add_argument("--backend", help="lamina's backend, in place of the precision's own.")
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument(
        "--ragged", type=int, metavar="N", help="Prompts of N to --prompt-tokens tokens, evenly spread."
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="Write the figures here too.")
    parser.add_argument("--verbose", action="store_true", help="Show what the sides print on stderr.")
    chosen = parser.parse_args()
    files = dict(pair.split("=", 1) for pair in chosen.gguf.split(",") if pair)
    found = []
    for precision in chosen.precisions.split(","):
        dtype, backend, kind = PRECISIONS[precision]
        script = HERE / "peers"
        common = ["--threads", str(chosen.threads)]
        commands = {
            "lamina": [sys.executable, str(script / "lamina_generation.py"), "--model", str(chosen.model)],
        }
        commands["lamina"] += ["--dtype", dtype, "--backend", chosen.backend or backend, *common]
        if kind in files:
            commands["llama.cpp"] = [chosen.peers, str(script / "llama_cpp_side.py"), "--model", files[kind], *common]
        if chosen.hf and precision in ("float32", "bfloat16"):
            commands["transformers"] = [chosen.peers, str(script / "transformers_generation.py")]
            commands["transformers"] += ["--model", str(chosen.hf), "--dtype", dtype, *common]
        sides = [Side.start(name, command, chosen.threads, chosen.verbose) for name, command in commands.items()]
        try:
            found += compare(precision, sides, chosen)
        finally:
            for side in sides:
                side.process.kill()
    print(table(found, chosen))
    if chosen.json:
        told = {"machine": processor(), "date": date.today().isoformat(), "rows": found}
        chosen.json.write_text(json.dumps(told, indent=2) + "\n")


def compare(precision: str, sides: list[Side], chosen: argparse.Namespace) -> list[dict[str, Any]]:
    least = chosen.ragged or chosen.prompt_tokens
    work = f"run {chosen.batch} {least} {chosen.prompt_tokens} {chosen.new_tokens}"
    times: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for number in range(chosen.rounds + 1):
        for side in sides if number % 2 == 0 else sides[::-1]:
            told = side.ask(work)
            if number:  # the first is to warm up
                times[side.name].append((told["first_s"], told["rest_s"]))
    rows = []
    for side in sides:
        first, rest = (median(column) for column in zip(*times[side.name], strict=True))
        row = {"precision": precision, "side": side.name, **side.ask("about")}
        row["prefill_tokens_per_second"] = prompt_tokens(chosen) / first
        row["decode_tokens_per_second"] = chosen.batch * (chosen.new_tokens - 1) / rest
        row["total_new_tokens_per_second"] = chosen.batch * chosen.new_tokens / (first + rest)
        rows.append(row)
    return rows


def prompt_tokens(chosen: argparse.Namespace) -> int:
    return sum(lengths(chosen.batch, chosen.ragged or chosen.prompt_tokens, chosen.prompt_tokens))


def lengths(batch: int, least: int, most: int) -> list[int]:
    """Of each row's prompt."""
    return [round(least + (most - least) * row / max(1, batch - 1)) for row in range(batch)]


def table(rows: list[dict[str, Any]], chosen: argparse.Namespace) -> str:
    ragged = f"{chosen.ragged} to {chosen.prompt_tokens}" if chosen.ragged else str(chosen.prompt_tokens)
    head = f"batch {chosen.batch}, prompts of {ragged} tokens, {chosen.new_tokens} new each; {processor()}"
    lines = [head, "", "| precision | side | prefill, tokens/s | decode, tokens/s | lamina: prefill | decode |"]
    lines.append("|---|---|---|---|---|---|")
    for row in rows:
        ours = next(one for one in rows if (one["precision"], one["side"]) == (row["precision"], "lamina"))
        ratios = [f"{ours[key] / row[key]:.2f} ×" for key in ("prefill_tokens_per_second", "decode_tokens_per_second")]
        told = ["", ""] if row is ours else ratios
        speeds = [f"{row['prefill_tokens_per_second']:.0f}", f"{row['decode_tokens_per_second']:.1f}"]
        lines.append(f"| {row['precision']} | {row['side']} | {' | '.join([*speeds, *told])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
