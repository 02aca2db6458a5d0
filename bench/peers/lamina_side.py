"""lamina at a workload: what `lamina train` does in a step, on the harness's batches."""

from __future__ import annotations

from pathlib import Path

import torch
from side import options, serve
from torch import Tensor

import lamina
from lamina.core.build import build, build_part
from lamina.core.data import Batch
from lamina.core.resolve import resolve_part
from lamina.core.train import set_learning_rate, train_step

SPECS = Path(__file__).parent.parent / "specs"


def main() -> None:
    chosen = options()
    spec = lamina.resolve(lamina.load_spec(str(SPECS / f"{chosen.workload}.yaml")))
    config = spec.train.model_copy(update={"dtype": chosen.dtype})
    decoder = build(spec, seed=0)
    if chosen.weights is not None and not chosen.weights.exists():
        from safetensors.torch import save_file

        save_file(decoder.tensors(), chosen.weights)
    optimizer = build_part(config.optimizer).make(decoder.named_parameters(), chosen.learning_rate)
    set_learning_rate(optimizer, chosen.learning_rate, chosen.learning_rate)
    backend = build_part(resolve_part("backend", "compile" if chosen.compile else "eager", spec.registry))
    runner = backend.prepare(decoder.train(), training=True)

    def step(token_ids: Tensor, targets: Tensor) -> Tensor:
        return train_step(runner, optimizer, Batch(token_ids, targets, None), config)[0]

    serve(
        step,
        chosen,
        sum(parameter.numel() for parameter in decoder.parameters()),
        f"torch {torch.__version__}",
    )


if __name__ == "__main__":
    main()
