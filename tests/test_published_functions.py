"""Shipped specs of published models compute what transformers computes from the published config.json.

Widths, layers, heads, experts and windows are made small on both sides; everything else is as shipped and as published:
activations, norms and their eps, biases, rotary bases and scalings, caps, scales, patterns, routing, ties.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from against_transformers import Weights, moved
from tiny_specs import REGISTRY
from torch import Tensor
from torch.testing import assert_close

from lamina.core import Norm, Span
from lamina.core.build import build
from lamina.core.resolve import resolve
from lamina.core.resolved import ResolvedSpec
from lamina.core.spec import load_spec

VOCAB, DIM, HIDDEN, EXPERTS, WINDOW, LENGTH = 61, 32, 24, 8, 5, 14
Small = tuple[dict[str, Any], dict[str, Any]]  # overrides of the spec, changes of transformers' config


def yarn(factor: float, **options: Any) -> dict[str, Any]:
    return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": 4096, **options}


def llama3(factor: float) -> dict[str, Any]:
    return {
        "rope_theta": 500_000.0,
        "rope_type": "llama3",
        "factor": factor,
        "original_max_position_embeddings": 8192,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    }


def theta(base: float) -> dict[str, Any]:
    return {"rope_theta": base, "rope_type": "default"}


# From the published config.json files, sizes apart, where they differ from the defaults of transformers' class.
PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt1": ("OpenAIGPT", {}),
    "gpt2": ("GPT2", {}),
    "gpt2-medium": ("GPT2", {}),
    "gpt2-large": ("GPT2", {}),
    "gpt2-xl": ("GPT2", {}),
    "llama-2-7b": ("Llama", {"rms_norm_eps": 1e-5}),
    "llama-2-70b": ("Llama", {"rms_norm_eps": 1e-5}),
    "llama-3-8b": ("Llama", {"rms_norm_eps": 1e-5, "rope_parameters": theta(500_000.0)}),
    "llama-3-70b": ("Llama", {"rms_norm_eps": 1e-5, "rope_parameters": theta(500_000.0)}),
    "llama-3.1-405b": ("Llama", {"rms_norm_eps": 1e-5, "rope_parameters": llama3(8.0)}),
    "llama-3.2-1b": ("Llama", {"rms_norm_eps": 1e-5, "rope_parameters": llama3(32.0), "tie_word_embeddings": True}),
    "smollm2-135m": (
        "Llama",
        {"rms_norm_eps": 1e-5, "rope_parameters": theta(100_000.0), "tie_word_embeddings": True},
    ),
    "mistral-7b": ("Mistral", {"rms_norm_eps": 1e-5, "rope_parameters": theta(10_000.0)}),
    "mixtral-8x7b": (
        "Mixtral",
        {"rms_norm_eps": 1e-5, "rope_parameters": theta(1_000_000.0), "sliding_window": None},
    ),
    "qwen3-0.6b": ("Qwen3", {"rope_parameters": theta(1_000_000.0), "tie_word_embeddings": True}),
    "qwen3-30b-a3b": ("Qwen3Moe", {"rope_parameters": theta(1_000_000.0), "norm_topk_prob": True}),
    "gemma-2-2b": ("Gemma2", {}),
    "gemma-3-1b": ("Gemma3Text", {"sliding_window": 512}),
    "phi-3-mini": ("Phi3", {"sliding_window": 2047}),
    "olmo-2-7b": ("Olmo2", {"rms_norm_eps": 1e-6, "rope_parameters": theta(500_000.0)}),
    "deepseek-v3": (
        "DeepseekV3",
        {"rope_parameters": {"rope_theta": 10_000.0, **yarn(40.0, mscale=1.0, mscale_all_dim=1.0)}},
    ),
    "gpt-oss-20b": ("GptOss", {}),
    "gpt-oss-120b": ("GptOss", {}),
    "falcon-7b": ("Falcon", {}),
    "bloom-176b": ("Bloom", {}),
}


def small(spec: ResolvedSpec, config: str) -> Small:
    """What makes the spec and transformers' config small, alike."""
    blocks = list(spec.blocks)
    top = "block" if blocks == ["block"] else f"blocks.{blocks[0]}"  # the others extend it
    attention, ffn = spec.blocks[blocks[-1]].attention, spec.blocks[blocks[-1]].ffn
    assert attention is not None
    assert ffn is not None
    layers = min(spec.layers.n_layers, {"dense": 4}.get(blocks[0], 6 if len(blocks) > 1 else 2))
    ours: dict[str, Any] = {"dim": DIM, "vocab_size": VOCAB, "layers.n_layers": layers}
    ours |= {f"{top}.attention.n_heads": 4}
    if len(blocks) == 1:
        ours["layers"] = ours.pop("layers.n_layers")
    if config in ("OpenAIGPT", "GPT2"):
        return ours, {"vocab_size": VOCAB, "n_embd": DIM, "n_layer": layers, "n_head": 4}
    if config in ("Falcon", "Bloom"):
        return ours, {"vocab_size": VOCAB, "hidden_size": DIM, "num_hidden_layers": layers, "num_attention_heads": 4}
    theirs = {"vocab_size": VOCAB, "hidden_size": DIM, "num_hidden_layers": layers, "num_attention_heads": 4}
    theirs |= {"intermediate_size": HIDDEN, "max_position_embeddings": spec.context_length, "num_key_value_heads": 4}
    theirs |= {"pad_token_id": None}
    if attention.name == "mla":
        ours |= {f"{top}.attention.q_lora_rank": 12, f"{top}.attention.kv_lora_rank": 10}
        ours |= {f"{top}.ffn.hidden_dim": HIDDEN, "blocks.sparse.ffn.n_experts": 2 * EXPERTS}
        ours |= {"blocks.sparse.ffn.expert.hidden_dim": HIDDEN, "blocks.sparse.ffn.shared.hidden_dim": HIDDEN}
        theirs |= {"q_lora_rank": 12, "kv_lora_rank": 10, "moe_intermediate_size": HIDDEN}
        return ours, theirs | {"n_routed_experts": 2 * EXPERTS}
    head_dim = 16 if attention.config.head_dim * attention.config.n_heads == spec.dim else attention.config.head_dim
    grouped = attention.config.n_kv_heads < attention.config.n_heads
    ours |= {f"{top}.attention.head_dim": head_dim, f"{top}.attention.n_kv_heads": 2 if grouped else 4}
    theirs |= {"num_key_value_heads": 2 if grouped else 4, "head_dim": head_dim}
    if config in ("Phi3", "Olmo2"):  # whose head_dim follows
        del ours[f"{top}.attention.head_dim"], theirs["head_dim"]
    if ffn.name == "moe":
        ours |= {f"{top}.ffn.n_experts": EXPERTS + 2, f"{top}.ffn.expert.hidden_dim": HIDDEN}
        theirs |= {"num_local_experts": EXPERTS + 2, "moe_intermediate_size": HIDDEN}
    else:
        ours |= {f"{top}.ffn.hidden_dim": HIDDEN}
    mask = spec.blocks[blocks[0]].attention.config.mask
    if mask.name == "sliding":
        ours |= {f"{top}.attention.mask.window": WINDOW}
        theirs |= {"sliding_window": WINDOW}
    return ours, theirs


@pytest.mark.parametrize("name", PUBLISHED)
@torch.no_grad()
def test_a_spec_computes_what_the_published_model_computes(name: str) -> None:
    config, published = PUBLISHED[name]
    family, spec = getattr(transformers, f"{config}Config"), load_spec(name, registry=REGISTRY).resolved
    assert spec is not None
    masks = [block.attention.config.mask for block in spec.blocks.values() if block.attention.name == "gqa"]
    windows = {mask.config.window for mask in masks if mask.name == "sliding"}
    assert windows == {getattr(family(**published), "sliding_window", None)} - {None}
    ours, sizes = small(spec, config)
    made = family(**{**published, **sizes}, attn_implementation="eager")
    theirs, weights = moved(transformers.AutoModelForCausalLM.from_config(made))
    for key, buffer in theirs.named_buffers():
        if key.endswith("e_score_correction_bias"):
            weights[key] = buffer.normal_(generator=torch.Generator().manual_seed(2)).mul_(0.2)
    decoder = build(resolve(load_spec(name, ours, registry=REGISTRY), REGISTRY), initialise=False).eval()
    tensors, converted = decoder.tensors(), convert(weights, config)
    assert tensors.keys() == converted.keys()
    for key, tensor in tensors.items():
        tensor.copy_(converted[key].view_as(tensor))
    token_ids = torch.randint(VOCAB, (2, LENGTH), generator=torch.Generator().manual_seed(1))
    expected = theirs(token_ids, use_cache=False).logits
    assert expected.std() > 0.1, "the comparison would say nothing"
    assert_close(decoder(token_ids), expected, atol=1e-4, rtol=1e-4)
    # What a short text with values of ordinary size would not show.
    eps = (getattr(module, "variance_epsilon", getattr(module, "eps", None)) for module in theirs.modules())
    assert {module.eps for module in decoder.modules() if isinstance(module, Norm)} == {*eps} - {None}
    if rotary := getattr(theirs.base_model, "rotary_emb", None):
        types = getattr(made, "layer_types", None) or [""] * len(decoder.layers)
        for layer, kind in zip(decoder.blocks, types, strict=True):
            frequencies, factor = layer.attention.position.scaling.turns(Span.run(0, LENGTH, decoder.device))
            prefix = f"{kind}_" if hasattr(rotary, f"{kind}_inv_freq") else ""
            assert_close(frequencies, getattr(rotary, f"{prefix}inv_freq"))
            assert factor == pytest.approx(getattr(rotary, f"{prefix}attention_scaling"))


# From transformers' names of weights to lamina's; what is not here is put together in `convert`.
NAMES = {
    "embedding.tokens": (
        "model.embed_tokens",
        "transformer.wte",
        "transformer.tokens_embed",
        "transformer.word_embeddings",
    ),
    "embedding.norm": ("transformer.word_embeddings_layernorm",),
    "embedding.position.table": ("transformer.wpe", "transformer.positions_embed"),
    "norm": ("model.norm", "transformer.ln_f"),
    "head": ("lm_head",),
    "attention_in": ("input_layernorm",),
    "ffn_in": ("post_attention_layernorm", "ln_2"),
    "attention.out": ("self_attn.o_proj", "self_attention.dense", "attn.c_proj"),
    "attention.q_norm": ("self_attn.q_norm", "self_attn.q_a_layernorm"),
    "attention.k_norm": ("self_attn.k_norm",),
    "attention.q_down": ("self_attn.q_a_proj",),
    "attention.q_up": ("self_attn.q_b_proj",),
    "attention.kv_down": ("self_attn.kv_a_proj_with_mqa",),
    "attention.kv_norm": ("self_attn.kv_a_layernorm",),
    "attention.kv_up": ("self_attn.kv_b_proj",),
    "attention.qkv": ("self_attn.qkv_proj", "attn.c_attn", "self_attention.query_key_value"),
    "ffn.gate_up": ("mlp.gate_up_proj",),
    "ffn.up": ("mlp.dense_h_to_4h", "mlp.c_fc"),
    "ffn.down": ("mlp.down_proj", "mlp.dense_4h_to_h", "mlp.c_proj"),
    "ffn.shared.down": ("mlp.shared_experts.down_proj",),
    "ffn.router.linear": ("mlp.gate", "mlp.router"),
}
ALSO = {
    "OpenAIGPT": {"attention_after": "ln_1", "ffn_after": "ln_2"},
    "GPT2": {"attention_in": "ln_1"},
    "Olmo2": {"attention_out": "post_attention_layernorm", "ffn_out": "post_feedforward_layernorm"},
}
ALSO["Gemma2"] = ALSO["Gemma3Text"] = {
    "attention_out": "post_attention_layernorm",
    "ffn_in": "pre_feedforward_layernorm",
    "ffn_out": "post_feedforward_layernorm",
}


def convert(theirs: Weights, config: str) -> Weights:
    names = {old: new for new, olds in NAMES.items() for old in olds}
    names |= {old: new for new, old in ALSO.get(config, {}).items()}
    ours: Weights = {}
    joined: dict[str, dict[str, Tensor]] = {}
    for key, tensor in theirs.items():
        name, _, leaf = key.rpartition(".")
        path = name.split(".")
        layer, local = "", name
        if len(path) > 3 and path[2].isdigit():
            layer, local = f"layers.{path[2]}.", ".".join(path[3:])
        if local == "self_attn" and leaf == "sinks":
            ours[f"{layer}attention.sinks"] = tensor
        elif leaf == "e_score_correction_bias":
            ours[f"{layer}ffn.router.bias"] = tensor
        elif local == "mlp.experts":
            joined.setdefault(layer, {})[leaf] = tensor
        elif local.rpartition(".")[2] in ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"):
            joined.setdefault(f"{layer}{local.rpartition('.')[0]}.{leaf}", {})[local.rpartition(".")[2][0]] = tensor
        else:
            if config in ("OpenAIGPT", "GPT2") and local.rpartition(".")[2].startswith("c_") and leaf == "weight":
                tensor = tensor.T  # Conv1D
            if config == "Bloom" and local.endswith("query_key_value"):
                tensor = tensor.unflatten(0, (4, 3, -1)).transpose(0, 1).flatten(0, 2)  # stored head by head
            ours[f"{layer}{names[local]}.{leaf}"] = tensor
    for key, parts in joined.items():
        if "q" in parts:
            layer, _, leaf = key.replace("self_attn.", "attention.qkv.").rpartition(".")
            ours[f"{layer}.{leaf}"] = torch.cat([parts[part] for part in "qkv"])
        elif "g" in parts:
            ours[key.replace("mlp.shared_experts.", "ffn.shared.gate_up.").replace("mlp.", "ffn.gate_up.")] = torch.cat(
                [parts["g"], parts["u"]]
            )
        else:
            ours |= experts(key, parts, config)
    return ours


def experts(layer: str, parts: dict[str, Tensor], config: str) -> Weights:
    ours: Weights = {}
    for name, leaf in (("gate_up", "weight"), ("down", "weight"), ("gate_up", "bias"), ("down", "bias")):
        stacked = parts.get(f"{name}_proj" + ("_bias" if leaf == "bias" else ""))
        for expert, tensor in enumerate(stacked if stacked is not None else ()):
            if config == "GptOss":
                tensor = tensor.T if leaf == "weight" else tensor
                if name == "gate_up":  # stored by turns
                    tensor = torch.cat([tensor[::2], tensor[1::2]])
            ours[f"{layer}ffn.experts.{expert}.{name}.{leaf}"] = tensor
    return ours
