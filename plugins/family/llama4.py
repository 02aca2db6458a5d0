"""Llama 4, text: positions within chunks, none where all is seen, experts with a sigmoid on their input.  Meta 2025."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from lamina.core import (
    ACTIVATIONS,
    LLAMA_KEYS,
    Chain,
    ConfigKeys,
    Each,
    Key,
    LlamaLike,
    Register,
    ResolvedSpec,
    Rope,
    Stacked,
    Transposed,
    defaults,
    hookimpl,
    llama_template,
    overlay,
    without,
)

POSITIONS: Mapping[str, Mapping[str, Any]] = {
    "turned": {"position": {"name": "rope", "layout": "interleaved"}},
    "plain": {"position": {"name": "none"}},
}
MASKS: Mapping[str, Mapping[str, Any]] = {
    "chunked": {"attention": {"mask": {"name": "chunked"}}},
    "full": {"attention": {"mask": "causal"}},
}
NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "moe": {
        "ffn": {
            "name": "moe",
            "router": {"name": "sigmoid_top_k", "renormalise": False},
            "expert": {"name": "gated"},
            "shared": {"name": "gated"},
            "weigh": "inputs",
        }
    },
    "dense": {},
}
BLOCKS = {
    f"{position}_{mask}_{network}": overlay(overlay(POSITIONS[position], MASKS[mask]), NETWORKS[network])
    for position in POSITIONS
    for mask in MASKS
    for network in NETWORKS
}
INTERVAL, STEP = "no_rope_layer_interval", "interleave_moe_layer_step"
NORMED, TUNED = "use_qk_norm", "attn_temperature_tuning"
TEMPERATURE = {"attn_scale": 0.1, "floor_scale": 8192}


def _paths(word: str, *options: str) -> tuple[str, ...]:
    """An option of all roles with a word in their names."""
    return tuple(f"blocks.{role}.{option}" for option in options for role in BLOCKS if word in role.split("_"))


class Llama4(LlamaLike):
    """Llama 4's text models."""

    paper = "Meta 2025, The Llama 4 herd"
    model_types = ("llama4_text",)
    architecture = "Llama4ForCausalLM"
    rank = 200  # models without any of its peculiarities are rather said by others
    template = llama_template(blocks=BLOCKS)
    keys = (
        *defaults(
            without(LLAMA_KEYS, "intermediate_size", "hidden_act", "rope_parameters"),
            head_dim=128,
            num_key_value_heads=8,
            rms_norm_eps=1e-5,
        ),
        *(Rope(role=role, theta=500_000.0, layout="interleaved") for role in BLOCKS if role.startswith("turned")),
        Key("attention_bias", "blocks.*.attention.bias", default=False),
        Key("attention_chunk_size", *_paths("chunked", "attention.mask.size"), default=8192),
        Key("attn_scale", *_paths("plain", "attention.temperature"), default=TEMPERATURE["attn_scale"]),
        Key("floor_scale", *_paths("plain", "attention.temperature_length"), default=TEMPERATURE["floor_scale"]),
        Key("intermediate_size", *_paths("moe", "ffn.expert.hidden_dim", "ffn.shared.hidden_dim"), default=8192),
        Key("intermediate_size_mlp", *_paths("dense", "ffn.hidden_dim"), default=16384),
        Key(
            "hidden_act",
            *_paths("moe", "ffn.expert.activation", "ffn.shared.activation"),
            *_paths("dense", "ffn.activation"),
            default="silu",
            values=ACTIVATIONS,
        ),
        Key("num_local_experts", *_paths("moe", "ffn.n_experts"), default=16),
        Key("num_experts_per_tok", *_paths("moe", "ffn.router.experts_per_token"), default=1),
    )
    ignored_keys = ("cache_implementation", "for_llm_compressor", "output_router_logits", "pretraining_tp")
    training_keys = ("attention_dropout", "router_aux_loss_coef", "router_jitter_noise")
    ffn_names: ClassVar = {
        "gate_up": ("feed_forward.gate_proj", "feed_forward.up_proj"),
        "down": "feed_forward.down_proj",
    }
    router_names: ClassVar = {"linear": "feed_forward.router"}
    expert_names = ()
    stacked_names = ("feed_forward.experts.gate_up_proj", "feed_forward.experts.down_proj")
    stacked_layout = Chain(Stacked(), Each(Transposed()))
    shared_name = "feed_forward.shared_expert"

    def roles(self, config: ConfigKeys, n_layers: int) -> list[str]:
        period, step = (_interval(config, key, at) for key, at in ((INTERVAL, 4), (STEP, 1)))
        turned = config.listed("no_rope_layers", [int((layer + 1) % period != 0) for layer in range(n_layers)])
        if len(turned) < n_layers:
            config.wrong("no_rope_layers", f"has {len(turned)} entries for {n_layers} layers")
            turned = [1] * n_layers
        masks = ["chunked_attention" if flag else "full_attention" for flag in turned[:n_layers]]
        types = config.listed("layer_types", masks, n_layers)
        if unknown := [kind for kind in types if kind not in ("chunked_attention", "full_attention")]:
            config.wrong(
                "layer_types", f"no component honours {unknown[0]!r}; known: chunked_attention, full_attention"
            )
        sparse = config.get("moe_layers")
        sparse = range(step - 1, n_layers, step) if sparse is None else config.listed("moe_layers", [])
        return [
            f"{'turned' if turned[layer] else 'plain'}_"
            f"{'chunked' if types[layer] == 'chunked_attention' else 'full'}_"
            f"{'moe' if layer in sparse else 'dense'}"
            for layer in range(n_layers)
        ]

    def write_roles(self, roles: list[str], config: dict[str, Any]) -> None:
        config["no_rope_layers"] = [int(role.startswith("turned")) for role in roles]
        config["layer_types"] = ["chunked_attention" if "chunked" in role else "full_attention" for role in roles]
        config["moe_layers"] = [layer for layer, role in enumerate(roles) if role.endswith("moe")]

    def read(self, config: ConfigKeys) -> dict[str, Any]:
        data = super().read(config)
        normed, tuned = config.get(NORMED, True), config.get(TUNED, True) and config.get("attn_scale", 0.1)
        for role, block in data["blocks"].items():
            attention = block["attention"]
            if role.startswith("turned") and normed:
                norm = {"name": "rms", "affine": False, "eps": data["norm"].get("eps")}
                attention |= {"qk_norm": norm, "qk_norm_at": "after"}
            if role.startswith("plain") and not tuned:
                attention.pop("temperature", None)
                attention.pop("temperature_length", None)
        return data

    def write(self, spec: ResolvedSpec) -> dict[str, Any]:
        config, blocks = super().write(spec), self.by_role(spec)[0]["blocks"]

        def any_has(option: str, position: str) -> bool:
            found = [block["attention"] or {} for role, block in blocks.items() if role.startswith(position)]
            return not found or any(attention.get(option) is not None for attention in found)

        config[NORMED], config[TUNED] = any_has("qk_norm", "turned"), any_has("temperature", "plain")
        return config if config[TUNED] else {**config, **TEMPERATURE}


def _interval(config: ConfigKeys, name: str, usual: int) -> int:
    """Every how many layers one is special."""
    found = config.number(name, usual)
    if type(found) is int and found > 0:
        return found
    config.wrong(name, f"{found!r} is no number of layers")
    return usual


@hookimpl
def register_components(register: Register) -> None:
    register("llama4", Llama4)
