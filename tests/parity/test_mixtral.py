"""Mixtral: a sliding window, and experts of which each token takes the two best, their weights renormalised."""

from __future__ import annotations

import torch
from against_transformers import Weights, check, model_with, moved
from transformers import MixtralConfig, MixtralForCausalLM

N_EXPERTS, WINDOW = 5, 6
SPEC = {
    "vocab_size": 61,
    "dim": 24,
    "context_length": 64,
    "position": {"name": "rope", "theta": 1000.0},
    "norm": {"name": "rms", "eps": 1e-5},
    "block": {
        "attention": {"name": "gqa", "n_heads": 4, "n_kv_heads": 2, "mask": {"name": "sliding", "window": WINDOW}},
        "ffn": {
            "name": "moe",
            "n_experts": N_EXPERTS,
            "router": {"name": "softmax_top_k", "experts_per_token": 2},
            "expert": {"name": "gated", "hidden_dim": 20},
        },
    },
    "layers": 2,
    "head": {"tied": False},
}


def convert(theirs: Weights) -> Weights:
    ours = {
        "embedding.tokens.weight": theirs["model.embed_tokens.weight"],
        "norm.weight": theirs["model.norm.weight"],
        "head.weight": theirs["lm_head.weight"],
    }
    for layer in range(2):
        at, to = f"model.layers.{layer}", f"layers.{layer}"
        projections = [theirs[f"{at}.self_attn.{name}_proj.weight"] for name in "qkv"]
        ours |= {
            f"{to}.attention_in.weight": theirs[f"{at}.input_layernorm.weight"],
            f"{to}.attention.qkv.weight": torch.cat(projections),
            f"{to}.attention.out.weight": theirs[f"{at}.self_attn.o_proj.weight"],
            f"{to}.ffn_in.weight": theirs[f"{at}.post_attention_layernorm.weight"],
            f"{to}.ffn.router.linear.weight": theirs[f"{at}.mlp.gate.weight"],
        }
        for expert in range(N_EXPERTS):
            ours |= {
                f"{to}.ffn.experts.{expert}.gate_up.weight": theirs[f"{at}.mlp.experts.gate_up_proj"][expert],
                f"{to}.ffn.experts.{expert}.down.weight": theirs[f"{at}.mlp.experts.down_proj"][expert],
            }
    return ours


def test_mixtral_has_the_logits_and_the_text_of_transformers_past_its_window() -> None:
    config = MixtralConfig(
        vocab_size=61,
        hidden_size=24,
        intermediate_size=20,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=N_EXPERTS,
        num_experts_per_tok=2,
        sliding_window=WINDOW,
        max_position_embeddings=64,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
        tie_word_embeddings=False,
        attn_implementation="eager",
    )
    theirs, weights = moved(MixtralForCausalLM(config))
    check(theirs, model_with(SPEC, convert(weights)), length=4 * WINDOW)
