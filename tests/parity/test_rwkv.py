"""RWKV-4: time mixing, channel mixing, LayerNorm with one more at the embeddings, a head of its own."""

from __future__ import annotations

import torch
from against_transformers import Weights, model_with, moved
from torch.testing import assert_close
from transformers import RwkvConfig, RwkvForCausalLM

SPEC = {
    "vocab_size": 61,
    "dim": 16,
    "context_length": 64,
    "embedding": {"norm": "layer"},
    "norm": "layer",
    "block": {"attention": {"name": "rwkv", "width": 24}, "ffn": {"name": "rwkv_channel_mix", "hidden_dim": 40}},
    "layers": 3,
    "head": {"tied": False},
}


def convert(theirs: Weights) -> Weights:
    ours = {"embedding.tokens.weight": theirs["rwkv.embeddings.weight"], "head.weight": theirs["head.weight"]}
    norms = {"embedding.norm": "rwkv.blocks.0.pre_ln", "norm": "rwkv.ln_out"}
    for layer in range(3):
        at, to = f"rwkv.blocks.{layer}", f"layers.{layer}"
        norms |= {f"{to}.attention_in": f"{at}.ln1", f"{to}.ffn_in": f"{at}.ln2"}
        time, channel = f"{at}.attention", f"{at}.feed_forward"
        ours |= {
            f"{to}.attention.decay": theirs[f"{time}.time_decay"],
            f"{to}.attention.bonus": theirs[f"{time}.time_first"],
            f"{to}.attention.out.weight": theirs[f"{time}.output.weight"],
            f"{to}.ffn.receptance.weight": theirs[f"{channel}.receptance.weight"],
            f"{to}.ffn.up.weight": theirs[f"{channel}.key.weight"],
            f"{to}.ffn.down.weight": theirs[f"{channel}.value.weight"],
        }
        for name in ("receptance", "key", "value"):
            ours[f"{to}.attention.{name}.weight"] = theirs[f"{time}.{name}.weight"]
            ours[f"{to}.attention.{name}_mix"] = theirs[f"{time}.time_mix_{name}"].flatten()
        for name in ("receptance", "key"):
            ours[f"{to}.ffn.{name}_mix"] = theirs[f"{channel}.time_mix_{name}"].flatten()
    return ours | {f"{to}.{what}": theirs[f"{at}.{what}"] for to, at in norms.items() for what in ("weight", "bias")}


@torch.no_grad()
def test_rwkv_has_the_logits_of_transformers() -> None:
    config = RwkvConfig(
        vocab_size=61,
        hidden_size=16,
        attention_hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=3,
        context_length=64,
        rescale_every=0,
    )
    theirs, weights = moved(RwkvForCausalLM(config))
    decoder = model_with(SPEC, convert(weights)).decoder
    token_ids = torch.randint(61, (2, 24), generator=torch.Generator().manual_seed(1))
    expected = theirs(token_ids, use_cache=False).logits
    assert expected.std() > 0.1
    assert_close(decoder(token_ids), expected, atol=1e-4, rtol=1e-4)
    cache = decoder.make_cache(2, 24)
    calls = [token_ids[:, :12], *token_ids[:, 12:].split(1, 1)]
    assert_close(torch.cat([decoder(ids, cache=cache) for ids in calls], 1), expected, atol=1e-4, rtol=1e-4)
