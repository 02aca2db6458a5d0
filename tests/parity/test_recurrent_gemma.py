"""RecurrentGemma: recurrent blocks with an attention now and then, scaled embeddings, GeGLU, capped logits."""

from __future__ import annotations

import torch
from against_transformers import Weights, check, model_with, moved
from transformers import RecurrentGemmaConfig, RecurrentGemmaForCausalLM

SPEC = {
    "vocab_size": 61,
    "dim": 16,
    "context_length": 64,
    "embedding": {"scale": "sqrt_dim"},
    "norm": {"name": "rms", "offset": 1.0},
    "blocks": {
        "recurrent": {
            "attention": {"name": "rg_lru", "n_heads": 2},
            "ffn": {"name": "gated", "hidden_dim": 24, "activation": "gelu_tanh", "bias": True},
        },
        "attention": {
            "extends": "recurrent",
            "position": {"name": "rope", "fraction": 0.5},
            "attention": {"name": "gqa", "n_heads": 2, "out_bias": True, "mask": {"name": "sliding", "window": 32}},
        },
    },
    "layers": {"pattern": ["recurrent", "recurrent", "attention"], "n_layers": 3},
    "head": {"tied": False, "softcap": 30.0},
}


def convert(theirs: Weights) -> Weights:
    ours = {
        "embedding.tokens.weight": theirs["model.embed_tokens.weight"],
        "norm.weight": theirs["model.final_norm.weight"],
        "head.weight": theirs["lm_head.weight"],
    }
    for layer in range(3):
        at, to = f"model.layers.{layer}", f"layers.{layer}"
        mixer, mlp = f"{at}.temporal_block", f"{at}.mlp_block"
        ours[f"{to}.attention_in.weight"] = theirs[f"{at}.temporal_pre_norm.weight"]
        ours[f"{to}.ffn_in.weight"] = theirs[f"{at}.channel_pre_norm.weight"]
        fused = {"ffn.gate_up": (f"{mlp}.gate_proj", f"{mlp}.up_proj"), "ffn.down": (f"{mlp}.down_proj",)}
        if layer < 2:
            fused |= {"attention.gate_in": (f"{mixer}.linear_y", f"{mixer}.linear_x")}
            fused |= {"attention.out": (f"{mixer}.linear_out",)}
            ours |= {
                f"{to}.attention.conv_weight": theirs[f"{mixer}.conv_1d.weight"],
                f"{to}.attention.conv_bias": theirs[f"{mixer}.conv_1d.bias"],
                f"{to}.attention.decay": theirs[f"{mixer}.rg_lru.recurrent_param"],
            }
            for what, join in (("weight", torch.stack), ("bias", lambda biases: torch.cat(biases).flatten())):
                gates = [theirs[f"{mixer}.rg_lru.{gate}_gate_{what}"] for gate in ("input", "recurrent")]
                ours[f"{to}.attention.gate_{what}"] = join(gates)
        else:
            fused |= {"attention.out": (f"{mixer}.o_proj",)}
            ours[f"{to}.attention.qkv.weight"] = torch.cat([theirs[f"{mixer}.{name}_proj.weight"] for name in "qkv"])
        for name, parts in fused.items():
            for what in ("weight", "bias"):
                ours[f"{to}.{name}.{what}"] = torch.cat([theirs[f"{part}.{what}"] for part in parts])
    return ours


def test_recurrent_gemma_has_the_logits_and_the_text_of_transformers() -> None:
    config = RecurrentGemmaConfig(
        vocab_size=61,
        hidden_size=16,
        lru_width=16,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=2,
        attention_window_size=32,
        tie_word_embeddings=False,  # or random weights repeat one token for ever
    )
    theirs, weights = moved(RecurrentGemmaForCausalLM(config))
    check(theirs, model_with(SPEC, convert(weights)), length=24)
