"""What families share whose first layers are dense and whose others have experts, chosen from groups, beside a network
that all tokens pass: DeepSeek's, and those after it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from lamina.core.component import Part
from lamina.core.config_keys import ConfigKeys
from lamina.core.family import ACTIVATIONS, Data, Item, Key
from lamina.core.layout import Either, Move, move
from lamina.core.llama_like import LlamaLike, llama_template
from lamina.core.resolved import ResolvedSpec

FIRST_DENSE_KEYS: tuple[Item, ...] = (
    Key(
        "hidden_act",
        "blocks.dense.ffn.activation",
        "blocks.moe.ffn.expert.activation",
        "blocks.moe.ffn.shared.activation",
        default="silu",
        values=ACTIVATIONS,
    ),
    Key("intermediate_size", "blocks.dense.ffn.hidden_dim"),
    Key("moe_intermediate_size", "blocks.moe.ffn.expert.hidden_dim"),
    Key("n_routed_experts", "blocks.moe.ffn.n_experts", older=("num_local_experts", "num_experts")),
    Key("num_experts_per_tok", "blocks.moe.ffn.router.experts_per_token"),
    Key("routed_scaling_factor", "blocks.moe.ffn.router.scale", default=1.0),
    Key("n_group", "blocks.moe.ffn.router.n_groups"),
    Key("topk_group", "blocks.moe.ffn.router.groups_per_token"),
)
LATENT_KEYS: tuple[Item, ...] = (
    Key("q_lora_rank", "blocks.*.attention.q_lora_rank", default=1536),
    Key("kv_lora_rank", "blocks.*.attention.kv_lora_rank", default=512),
    Key("qk_nope_head_dim", "blocks.*.attention.qk_nope_head_dim", default=128),
    Key("qk_rope_head_dim", "blocks.*.attention.qk_rope_head_dim", default=64),
    Key("v_head_dim", "blocks.*.attention.v_head_dim", default=128),
)
LATENT_NAMES: Mapping[str, str] = {
    "q_down": "self_attn.q_a_proj",
    "q_norm": "self_attn.q_a_layernorm",
    "kv_down": "self_attn.kv_a_proj_with_mqa",
    "kv_norm": "self_attn.kv_a_layernorm",
    "kv_up": "self_attn.kv_b_proj",
    "out": "self_attn.o_proj",
}


def first_dense_template(attention: Mapping[str, Any], router: str, **changes: Any) -> Data:
    """Roles `dense` and `moe`, with this attention in both."""
    experts = {"name": "moe", "router": {"name": router}, "expert": {"name": "gated"}, "shared": {"name": "gated"}}
    return llama_template({"attention": attention}, blocks={"dense": {}, "moe": {"ffn": experts}}, **changes)


def complete_experts(ffn: Data, n_shared: float | None) -> None:
    """Make `n_shared` experts for all tokens one of their joint width, and leave groups out where all are one."""
    if n_shared:
        width = ffn["expert"].get("hidden_dim")
        ffn["shared"]["hidden_dim"] = n_shared * width if type(width) is int else width
    else:
        ffn["shared"] = None
    if ffn["router"].get("n_groups", 1) == 1:
        ffn["router"].pop("groups_per_token", None)


def count_shared(ffn: Data) -> int:
    """How many experts the network that all tokens pass is as wide as."""
    shared = ffn.get("shared")
    return shared["hidden_dim"] // ffn["expert"]["hidden_dim"] if shared else 0


def latent_moves(names: Mapping[str, str], at: str, to: str, config: Any) -> Iterable[Move]:
    """Of a multi-head latent attention; queries may come straight from the stream."""
    for ours, theirs in names.items():
        yield move(f"{to}.{ours}", f"{at}.{theirs}")
    yield move(f"{to}.q_up", f"{at}.self_attn.{'q_b_proj' if config.q_lora_rank else 'q_proj'}")


def check_latent_heads(config: ConfigKeys) -> None:
    """Refuse a number of key and value heads of its own."""
    heads = config.get("num_attention_heads")
    if config.get("num_key_value_heads", heads) not in (None, heads):
        config.wrong("num_key_value_heads", "heads are all read from one latent, so there are as many")


class FirstDense(LlamaLike):
    """Experts in all layers after the first `first_k_dense_replace`."""

    first: ClassVar[int] = 0  # what a config means that does not say how many layers are dense
    shared_experts: ClassVar[int] = 1  # and how many shared experts there are
    shared_name: ClassVar[str] = "mlp.shared_experts"

    def roles(self, config: ConfigKeys, n_layers: int) -> list[str]:
        first = config.number("first_k_dense_replace", self.first) or 0
        return ["dense" if layer < first else "moe" for layer in range(n_layers)]

    def write_roles(self, roles: list[str], config: dict[str, Any]) -> None:
        config["first_k_dense_replace"] = roles.index("moe") if "moe" in roles else len(roles)

    def read(self, config: ConfigKeys) -> Data:
        data = super().read(config)
        shared = config.number("n_shared_experts", self.shared_experts)
        ffn = data["blocks"].get("moe", {}).get("ffn")
        if ffn is not None:
            complete_experts(ffn, shared)
        return data

    def write(self, spec: ResolvedSpec) -> dict[str, Any]:
        config = super().write(spec)
        blocks = self.by_role(spec)[0]["blocks"]
        if "moe" in blocks:
            ffn = blocks["moe"]["ffn"]
            if config["n_group"] == 1:
                config["topk_group"] = 1
            config["n_shared_experts"] = count_shared(ffn)
        return config


class LatentFirstDense(FirstDense):
    """The same with multi-head latent attention."""

    latent_names: ClassVar[Mapping[str, str]] = LATENT_NAMES

    def read(self, config: ConfigKeys) -> Data:
        data = super().read(config)
        check_latent_heads(config)
        found = config.get("rope_scaling") or config.get("rope_parameters") or {}
        for block in data["blocks"].values():
            attention = block["attention"]
            width = (config.number("qk_nope_head_dim", 128) or 0) + (config.number("qk_rope_head_dim", 64) or 0)
            if width > 0 and (growth := _growth(found)) != 1.0:
                attention["scale"] = width**-0.5 * growth**2
        return data

    def write(self, spec: ResolvedSpec) -> dict[str, Any]:
        """Scores of longer texts are scaled by the square of YaRN's factor, which `mscale_all_dim` says."""
        config = super().write(spec)
        config["num_key_value_heads"] = config["num_attention_heads"]
        found = config.get("rope_parameters", {})
        attention = next(iter(self.by_role(spec)[0]["blocks"].values()))["attention"]
        width = attention.get("qk_nope_head_dim", 0) + attention.get("qk_rope_head_dim", 0)
        if width and "mscale_all_dim" not in found and found.get("factor", 1.0) > 1:
            growth = (attention["scale"] * width**0.5) ** 0.5
            if abs(growth - 1) > 1e-9:
                found["mscale_all_dim"] = round((growth - 1) / (0.1 * math.log(found["factor"])), 9)
        return config

    def attention_moves(self, at: str, to: str, attention: Part) -> Iterable[Move | Either]:
        yield from latent_moves(self.latent_names, at, to, attention.config)


def _growth(found: Any) -> float:
    """YaRN's factor on queries and keys both, 1 where there is none."""
    if not isinstance(found, Mapping) or found.get("rope_type", found.get("type", "default")) == "default":
        return 1.0
    factor, amount = found.get("factor") or 1.0, found.get("mscale_all_dim") or 0.0
    return 1.0 if factor <= 1 else 0.1 * amount * math.log(factor) + 1.0
