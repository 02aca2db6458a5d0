"""transformers' Llama and Mixtral at the workloads' sizes. `--variant` names the implementation of the experts."""

from __future__ import annotations

import torch
import transformers
from side import cross_entropy, options, serve, training_step
from torch import Tensor


def main() -> None:
    chosen = options()
    common = dict(
        vocab_size=chosen.vocab,
        max_position_embeddings=chosen.context,
        tie_word_embeddings=False,
        rms_norm_eps=1e-5,
        use_cache=False,
        attn_implementation="sdpa",
        rope_theta=10_000.0,
    )
    if chosen.workload.startswith("llama"):
        config = transformers.LlamaConfig(
            hidden_size=512, intermediate_size=1376, num_hidden_layers=8, num_attention_heads=8, **common
        )
        model = transformers.LlamaForCausalLM(config)
    else:
        config = transformers.MixtralConfig(
            hidden_size=384,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=6,
            num_key_value_heads=6,
            num_local_experts=8,
            num_experts_per_tok=2,
            router_aux_loss_coef=0.0,
            experts_implementation=chosen.variant or "eager",
            **common,
        )
        model = transformers.MixtralForCausalLM(config)
    model.train()

    def loss_of(token_ids: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(model(token_ids, use_cache=False).logits, targets)

    serve(
        training_step(loss_of, model, chosen),
        chosen,
        sum(parameter.numel() for parameter in model.parameters()),
        f"transformers {transformers.__version__}, torch {torch.__version__}",
    )


if __name__ == "__main__":
    main()
