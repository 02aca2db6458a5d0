"""x-transformers' decoder at the Llama workload's size."""

from __future__ import annotations

from importlib.metadata import version

import torch
from side import cross_entropy, options, serve, training_step
from torch import Tensor
from x_transformers import Decoder, TransformerWrapper


def main() -> None:
    chosen = options()
    model = TransformerWrapper(
        num_tokens=chosen.vocab,
        max_seq_len=chosen.context,
        use_abs_pos_emb=False,
        attn_layers=Decoder(
            dim=512,
            depth=8,
            heads=8,
            attn_dim_head=64,
            rotary_pos_emb=True,
            rotary_emb_dim=64,
            use_rmsnorm=True,
            ff_swish=True,
            ff_glu=True,
            ff_no_bias=True,
            ff_mult=1376 / 512,
            attn_flash=True,
        ),
    )

    def loss_of(token_ids: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(model(token_ids), targets)

    serve(
        training_step(loss_of, model, chosen),
        chosen,
        sum(parameter.numel() for parameter in model.parameters()),
        f"x-transformers {version('x-transformers')}, torch {torch.__version__}",
    )


if __name__ == "__main__":
    main()
