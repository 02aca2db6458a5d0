"""Llama: RMSNorm, rotary positions in halves, grouped queries, SwiGLU, a head of its own."""

from __future__ import annotations

import torch
from against_transformers import Weights, check, model_with, moved
from transformers import LlamaConfig, LlamaForCausalLM

SPEC = {
    "vocab_size": 61,
    "dim": 32,
    "context_length": 64,
    "position": {"name": "rope", "theta": 500.0},
    "norm": {"name": "rms", "eps": 1e-5},
    "block": {
        "attention": {"name": "gqa", "n_heads": 4, "n_kv_heads": 2, "head_dim": 12},
        "ffn": {"name": "gated", "hidden_dim": 40, "activation": "silu"},
    },
    "layers": 3,
    "head": {"tied": False},
}


def convert(theirs: Weights) -> Weights:
    ours = {
        "embedding.tokens.weight": theirs["model.embed_tokens.weight"],
        "norm.weight": theirs["model.norm.weight"],
        "head.weight": theirs["lm_head.weight"],
    }
    for layer in range(3):
        at, to = f"model.layers.{layer}", f"layers.{layer}"
        projections = [theirs[f"{at}.self_attn.{name}_proj.weight"] for name in "qkv"]
        ours |= {
            f"{to}.attention_in.weight": theirs[f"{at}.input_layernorm.weight"],
            f"{to}.attention.qkv.weight": torch.cat(projections),
            f"{to}.attention.out.weight": theirs[f"{at}.self_attn.o_proj.weight"],
            f"{to}.ffn_in.weight": theirs[f"{at}.post_attention_layernorm.weight"],
            f"{to}.ffn.gate_up.weight": torch.cat([theirs[f"{at}.mlp.{name}_proj.weight"] for name in ("gate", "up")]),
            f"{to}.ffn.down.weight": theirs[f"{at}.mlp.down_proj.weight"],
        }
    return ours


def test_llama_has_the_logits_and_the_text_of_transformers() -> None:
    config = LlamaConfig(
        vocab_size=61,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=12,
        max_position_embeddings=64,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
        tie_word_embeddings=False,
        attn_implementation="eager",
    )
    theirs, weights = moved(LlamaForCausalLM(config))
    check(theirs, model_with(SPEC, convert(weights)), length=24)
