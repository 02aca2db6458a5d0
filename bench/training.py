"""Training beside the peers: every side its own process, a few steps each in turn, medians over all rounds.

    python bench/training.py gpt-6x384 --peers PEERS/bin/python
    python bench/training.py llama-8x512 --dtype bfloat16 --only lamina,litgpt --json out.json

Each ratio is how many times a side's tokens a second lamina's best side makes. `--curve N` trains sides from lamina's
weights for N steps on a text instead, where they can take them, and compares the losses.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Workload:
    batch: int
    context: int
    vocab: int
    sides: dict[str, tuple[str, list[str]]]  # name -> script in peers/, further options


def both(name: str, script: str, *options: str) -> dict[str, tuple[str, list[str]]]:
    return {name: (script, list(options)), f"{name} compiled": (script, ["--compile", *options])}


LAMINA = both("lamina", "lamina_side.py")
WORKLOADS = {
    "gpt-6x384": Workload(8, 256, 65, LAMINA | both("nanogpt", "nanogpt.py")),
    "llama-8x512": Workload(
        4,
        512,
        8192,
        LAMINA
        | both("litgpt", "litgpt_side.py")
        | both("transformers", "transformers_side.py")
        | both("x-transformers", "x_transformers_side.py"),
    ),
    "moe-4x384": Workload(
        8,
        256,
        65,
        LAMINA
        | both("transformers", "transformers_side.py")
        | both("transformers grouped", "transformers_side.py", "--variant", "grouped_mm"),
    ),
}


@dataclass(eq=False)
class Side:
    name: str
    process: subprocess.Popen[str]
    ready: dict[str, Any] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    peak_rss_bytes: int = 0

    def ask(self, line: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with code {self.process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found


def start(name: str, script: str, options: list[str], chosen: argparse.Namespace) -> Side:
    workload = WORKLOADS[chosen.workload]
    python = sys.executable if script == "lamina_side.py" else chosen.peers
    sizes = {"batch": chosen.batch or workload.batch, "context": workload.context, "vocab": workload.vocab}
    command = [python, str(HERE / "peers" / script), "--workload", chosen.workload, "--dtype", chosen.dtype, *options]
    command += ["--threads", str(chosen.threads), *(f"--{key}={value}" for key, value in sizes.items())]
    command += [f"--text={chosen.text}"] if chosen.text else []
    command += [f"--weights={chosen.weights}"] if chosen.weights else []
    # A thread that waits must not spin: the side whose turn it is needs the core.
    environment = os.environ | {"OMP_NUM_THREADS": str(chosen.threads), "OMP_WAIT_POLICY": chosen.wait_policy}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        stderr=None if chosen.verbose else subprocess.DEVNULL,
    )  # fmt: skip
    side = Side(name, process)
    side.ready = side.answer()
    print(f"{name}: warm in {side.ready['warmup_s']:.1f} s", file=sys.stderr)
    return side


def measure(sides: list[Side], rounds: int, steps: int) -> None:
    for number in range(rounds):
        turn = sides if number % 2 == 0 else sides[::-1]
        for side in turn:
            told = side.ask(f"steps {steps}")
            side.seconds += told["seconds"]
            side.losses += told["losses"]
    for side in sides:
        side.peak_rss_bytes = side.ask("memory")["peak_rss_bytes"]


def report(sides: list[Side], chosen: argparse.Namespace) -> dict[str, Any]:
    workload = WORKLOADS[chosen.workload]
    tokens = (chosen.batch or workload.batch) * workload.context
    speeds = {side.name: tokens / median(side.seconds) for side in sides}
    best = max((speed for name, speed in speeds.items() if name.startswith("lamina")), default=None)
    rows = []
    for side in sides:
        spread = sorted(side.seconds)
        rows.append(
            {
                "side": side.name,
                "tokens_per_second": speeds[side.name],
                "step_s": median(side.seconds),
                "fastest_step_s": spread[0],
                "slowest_step_s": spread[-1],
                "lamina_ratio": best / speeds[side.name] if best else None,
                "peak_rss_bytes": side.peak_rss_bytes,
                "warmup_s": side.ready["warmup_s"],
                "parameters": side.ready["parameters"],
                "versions": side.ready["versions"],
                "steps": len(side.seconds),
                "last_loss": side.losses[-1],
            }
        )
    return {
        "workload": chosen.workload,
        "dtype": chosen.dtype,
        "batch": chosen.batch or workload.batch,
        "context": workload.context,
        "threads": chosen.threads,
        "machine": processor(),
        "date": date.today().isoformat(),
        "sides": rows,
    }


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor()
    lines = cpuinfo.read_text().splitlines()
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    kinds = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return f"{model}, {os.cpu_count()} cores, {' '.join(kinds)}"


def table(found: dict[str, Any]) -> str:
    head = f"{found['workload']}, {found['dtype']}, {found['batch']} × {found['context']} tokens, {found['machine']}"
    lines = [head, "", "| side | tokens/s | step, ms | lamina's best is | peak memory, MB |", "|---|---|---|---|---|"]
    for row in found["sides"]:
        ratio = f"{row['lamina_ratio']:.2f} ×" if row["lamina_ratio"] else ""
        lines.append(
            f"| {row['side']} | {row['tokens_per_second']:.0f} | {row['step_s'] * 1e3:.0f} | {ratio} "
            f"| {row['peak_rss_bytes'] / 1e6:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--peers", default=sys.executable, help="The python that has the peers installed.")
    parser.add_argument("--only", help="Sides to run, by name, with commas between.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="Steps a side takes in a round.")
    parser.add_argument("--batch", type=int, help="Other than the workload's.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--text", type=Path, help="Train on this text instead of random ids.")
    parser.add_argument("--curve", type=int, metavar="N", help="Compare losses over N steps from the same weights.")
    parser.add_argument("--json", type=Path, help="Write the figures here too.")
    parser.add_argument("--verbose", action="store_true", help="Show what the sides print on stderr.")
    parser.add_argument("--wait-policy", default="passive", help="OMP_WAIT_POLICY of every side.")
    chosen = parser.parse_args()
    chosen.weights = Path(tempfile.mkdtemp()) / "weights.safetensors" if chosen.curve else None
    names = WORKLOADS[chosen.workload].sides
    wanted = chosen.only.split(",") if chosen.only else list(names)
    sides = []
    try:
        for name in wanted:
            sides.append(start(name, *names[name], chosen))
        if chosen.curve:
            compare_curves(sides, chosen.curve)
            return
        measure(sides, chosen.rounds, chosen.steps)
        found = report(sides, chosen)
    finally:
        for side in sides:
            side.process.kill()
    print(table(found))
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=2) + "\n")


def compare_curves(sides: list[Side], steps: int) -> None:
    for side in sides:
        side.losses = side.ready["losses"] + side.ask(f"steps {steps}")["losses"]
    first = sides[0]
    for side in sides[1:]:
        apart = max(abs(a - b) for a, b in zip(first.losses, side.losses, strict=True))
        print(
            f"{side.name}: {side.losses[0]:.4f} … {side.losses[-1]:.4f}, "
            f"at most {apart:.2g} from {first.name}'s {first.losses[0]:.4f} … {first.losses[-1]:.4f}"
        )


if __name__ == "__main__":
    main()
