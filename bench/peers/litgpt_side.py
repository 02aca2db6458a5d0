"""LitGPT's Llama at the workload's size."""

from __future__ import annotations

from importlib.metadata import version

import torch
from litgpt.config import Config
from litgpt.model import GPT
from side import cross_entropy, options, serve, training_step
from torch import Tensor


def main() -> None:
    chosen = options()
    config = Config(
        block_size=chosen.context,
        vocab_size=chosen.vocab,
        padded_vocab_size=chosen.vocab,
        n_layer=8,
        n_head=8,
        n_embd=512,
        n_query_groups=8,
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        norm_eps=1e-5,
        mlp_class_name="LLaMAMLP",
        intermediate_size=1376,
    )
    model = GPT(config)
    for parameter in model.parameters():
        if parameter.dim() >= 2:
            torch.nn.init.normal_(parameter, 0.0, 0.02)

    def loss_of(token_ids: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(model(token_ids), targets)

    serve(
        training_step(loss_of, model, chosen),
        chosen,
        sum(parameter.numel() for parameter in model.parameters()),
        f"litgpt {version('litgpt')}, torch {torch.__version__}",
    )


if __name__ == "__main__":
    main()
