"""LFM2: gated short convolutions with an attention now and then, norms on heads, SwiGLU."""

from __future__ import annotations

import torch
from against_transformers import Weights, check, model_with, moved
from transformers import Lfm2Config, Lfm2ForCausalLM

SPEC = {
    "vocab_size": 61,
    "dim": 16,
    "context_length": 64,
    "norm": {"name": "rms", "eps": 1e-5},
    "blocks": {
        "conv": {"attention": "short_conv", "ffn": {"name": "gated", "hidden_dim": 40}},
        "attention": {
            "extends": "conv",
            "position": {"name": "rope", "theta": 1_000_000.0},
            "attention": {"name": "gqa", "n_heads": 4, "n_kv_heads": 2, "qk_norm": {"name": "rms", "eps": 1e-5}},
        },
    },
    "layers": {"pattern": ["conv", "attention", "conv"], "n_layers": 3},
    "head": {"tied": False},
}


def convert(theirs: Weights) -> Weights:
    ours = {
        "embedding.tokens.weight": theirs["model.embed_tokens.weight"],
        "norm.weight": theirs["model.embedding_norm.weight"],
        "head.weight": theirs["lm_head.weight"],
    }
    for layer in range(3):
        at, to = f"model.layers.{layer}", f"layers.{layer}"
        ours |= {
            f"{to}.attention_in.weight": theirs[f"{at}.operator_norm.weight"],
            f"{to}.ffn_in.weight": theirs[f"{at}.ffn_norm.weight"],
            f"{to}.ffn.gate_up.weight": torch.cat([theirs[f"{at}.feed_forward.{n}.weight"] for n in ("w1", "w3")]),
            f"{to}.ffn.down.weight": theirs[f"{at}.feed_forward.w2.weight"],
        }
        if layer == 1:
            ours |= {
                f"{to}.attention.qkv.weight": torch.cat([theirs[f"{at}.self_attn.{n}_proj.weight"] for n in "qkv"]),
                f"{to}.attention.out.weight": theirs[f"{at}.self_attn.out_proj.weight"],
                f"{to}.attention.q_norm.weight": theirs[f"{at}.self_attn.q_layernorm.weight"],
                f"{to}.attention.k_norm.weight": theirs[f"{at}.self_attn.k_layernorm.weight"],
            }
        else:
            ours |= {
                f"{to}.attention.gates_in.weight": theirs[f"{at}.conv.in_proj.weight"],
                f"{to}.attention.conv_weight": theirs[f"{at}.conv.conv.weight"],
                f"{to}.attention.out.weight": theirs[f"{at}.conv.out_proj.weight"],
            }
    return ours


def test_lfm2_has_the_logits_and_the_text_of_transformers() -> None:
    config = Lfm2Config(
        vocab_size=61,
        hidden_size=16,
        intermediate_size=40,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        block_auto_adjust_ff_dim=False,
        layer_types=["conv", "full_attention", "conv"],
        max_position_embeddings=64,
        tie_word_embeddings=False,  # or random weights repeat one token for ever
        attn_implementation="eager",
    )
    theirs, weights = moved(Lfm2ForCausalLM(config))
    check(theirs, model_with(SPEC, convert(weights)), length=24)
