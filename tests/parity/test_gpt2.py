"""GPT-2: learned positions, biases everywhere, LayerNorm, gelu by its tanh, a tied head."""

from __future__ import annotations

import torch
from against_transformers import Weights, check, model_with, moved
from transformers import GPT2Config, GPT2LMHeadModel

SPEC = {
    "vocab_size": 61,
    "dim": 24,
    "context_length": 20,
    "position": "learned",
    "norm": {"name": "layer", "eps": 1e-5},
    "block": {
        "attention": {"name": "gqa", "n_heads": 3, "bias": True},
        "ffn": {"name": "mlp", "activation": "gelu_tanh", "bias": True},
    },
    "layers": 2,
}


def convert(theirs: Weights) -> Weights:
    ours = {
        "embedding.tokens.weight": theirs["transformer.wte.weight"],
        "embedding.position.table.weight": theirs["transformer.wpe.weight"],
    }
    for kind in ("weight", "bias"):
        ours[f"norm.{kind}"] = theirs[f"transformer.ln_f.{kind}"]
        for layer in range(2):
            ours |= {
                f"layers.{layer}.{to}.{kind}": theirs[f"transformer.h.{layer}.{name}.{kind}"]
                for to, name in (
                    ("attention_in", "ln_1"),
                    ("ffn_in", "ln_2"),
                    ("attention.qkv", "attn.c_attn"),
                    ("attention.out", "attn.c_proj"),
                    ("ffn.up", "mlp.c_fc"),
                    ("ffn.down", "mlp.c_proj"),
                )
            }
    # Conv1D keeps its matrices (in, out).
    matrices = [name for name in ours if name.endswith((".qkv.weight", ".out.weight", ".up.weight", ".down.weight"))]
    return ours | {name: ours[name].T for name in matrices}


def test_gpt2_has_the_logits_and_the_text_of_transformers() -> None:
    config = GPT2Config(vocab_size=61, n_embd=24, n_layer=2, n_head=3, n_positions=20, attn_implementation="eager")
    torch.manual_seed(1)  # with weights that do not say one token for ever
    theirs, weights = moved(GPT2LMHeadModel(config))
    check(theirs, model_with(SPEC, convert(weights)), length=20)
