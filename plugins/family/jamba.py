"""Jamba: Mamba with attention once in a while, experts in every other layer, no positions.  arXiv:2403.19887."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from lamina.core import (
    ACTIVATIONS,
    LLAMA_KEYS,
    ConfigKeys,
    Either,
    Fixed,
    Key,
    LlamaLike,
    MambaWidth,
    Move,
    Part,
    Register,
    hookimpl,
    llama_template,
    mamba_moves,
    only,
    unless_auto,
)

MIXER = {"name": "mamba", "gate": "silu", "norm": {"name": "rms"}}
EXPERTS = {
    "name": "moe",
    "router": {"name": "softmax_top_k", "renormalise": False},
    "expert": {"name": "gated"},
    "shared": None,
}
MAMBA, ATTENTION = ("mamba", "mamba_moe"), ("attention", "attention_moe")
DENSE, MOE = ("mamba", "attention"), ("mamba_moe", "attention_moe")


def _in_each(roles: Iterable[str], option: str) -> list[str]:
    return [f"blocks.{role}.{option}" for role in roles]


class Jamba(LlamaLike):
    """Jamba, 1.5 and after."""

    paper = "Lieber et al. 2024, arXiv:2403.19887"
    model_types = ("jamba",)
    architecture = "JambaForCausalLM"
    rank = 200  # models with attention alone are rather said by families of these
    template = llama_template(
        position={"name": "none"},
        blocks={
            "mamba": {"attention": MIXER},
            "mamba_moe": {"attention": MIXER, "ffn": EXPERTS},
            "attention": {},
            "attention_moe": {"ffn": EXPERTS},
        },
    )
    keys = (
        *only(LLAMA_KEYS, "vocab_size", "hidden_size", "num_hidden_layers", "tie_word_embeddings"),
        Key("max_position_embeddings", "context_length", default=262_144),
        Key("head_dim", *_in_each(ATTENTION, "attention.head_dim")),
        Key("num_attention_heads", *_in_each(ATTENTION, "attention.n_heads"), default=32),
        Key("num_key_value_heads", *_in_each(ATTENTION, "attention.n_kv_heads"), default=8),
        Key("rms_norm_eps", "norm.eps", *_in_each(MAMBA, "attention.norm.eps"), default=1e-6),
        Key(
            "hidden_act",
            *_in_each(MAMBA, "attention.activation"),
            *_in_each(DENSE, "ffn.activation"),
            *_in_each(MOE, "ffn.expert.activation"),
            default="silu",
            values=ACTIVATIONS,
        ),
        Key(
            "intermediate_size",
            *_in_each(DENSE, "ffn.hidden_dim"),
            *_in_each(MOE, "ffn.expert.hidden_dim"),
            required=True,
        ),
        Key("num_experts", *_in_each(MOE, "ffn.n_experts"), default=16, older=("num_local_experts",)),
        Key("num_experts_per_tok", *_in_each(MOE, "ffn.router.experts_per_token"), default=2),
        MambaWidth("mamba_expand", None, MAMBA),
        Key("mamba_d_state", *_in_each(MAMBA, "attention.state_dim"), default=16),
        Key("mamba_d_conv", *_in_each(MAMBA, "attention.conv_width"), default=4),
        Key("mamba_dt_rank", *_in_each(MAMBA, "attention.dt_rank"), to=unless_auto),
        Key("mamba_conv_bias", *_in_each(MAMBA, "attention.conv_bias"), default=True),
        Key("mamba_proj_bias", *_in_each(MAMBA, "attention.bias"), default=False),
        Fixed("mamba_inner_layernorms", True),
    )
    # How many logits a prompt is given, and which kernels compute.
    ignored_keys = (
        "calc_logits_for_entire_prompt",
        "num_logits_to_keep",
        "output_router_logits",
        "use_associative_scan",
        "use_mamba_kernels",
        "use_mambapy",
    )
    training_keys = ("attention_dropout", "router_aux_loss_coef")
    norm_name = "model.final_layernorm"
    norms: ClassVar = {"attention_in": "input_layernorm", "ffn_in": "pre_ff_layernorm"}
    ffn_names: ClassVar = {
        "gate_up": ("feed_forward.gate_proj", "feed_forward.up_proj"),
        "down": "feed_forward.down_proj",
    }
    router_names: ClassVar = {"linear": "feed_forward.router"}
    expert_names = (
        "feed_forward.experts.{}.gate_proj",
        "feed_forward.experts.{}.up_proj",
        "feed_forward.experts.{}.down_proj",
    )
    stacked_names = ("feed_forward.experts.gate_up_proj", "feed_forward.experts.down_proj")

    def roles(self, config: ConfigKeys, n_layers: int) -> list[str]:
        attends = _beat(config, "attn_layer", (8, 4), n_layers)
        expert = _beat(config, "expert_layer", (2, 1), n_layers)
        several = config.get("num_experts", 16, "num_local_experts") != 1
        return [
            ("attention" if one else "mamba") + ("_moe" if other and several else "")
            for one, other in zip(attends, expert, strict=True)
        ]

    def write_roles(self, roles: list[str], config: dict[str, Any]) -> None:
        for name, chosen in (("attn_layer", ATTENTION), ("expert_layer", MOE)):
            found = [layer for layer, role in enumerate(roles) if role in chosen]
            last = len(roles) if found else len(roles) + 1
            config[f"{name}_period"] = found[1] - found[0] if len(found) > 1 else last
            config[f"{name}_offset"] = found[0] if found else len(roles)

    def attention_moves(self, at: str, to: str, attention: Part) -> Iterable[Move | Either]:
        if attention.name == "mamba":
            return mamba_moves(f"{at}.mamba", to, attention.config)
        return super().attention_moves(at, to, attention)


def _beat(config: ConfigKeys, name: str, usual: tuple[int, int], n_layers: int) -> list[bool]:
    """Whether each layer is one of those that come every `_period` layers from `_offset` on."""
    period, offset = (config.number(f"{name}_{key}", at) for key, at in zip(("period", "offset"), usual, strict=True))
    if not period:
        config.wrong(f"{name}_period", "no number of layers")
        return [False] * n_layers
    return [layer % period == offset for layer in range(n_layers)]


@hookimpl
def register_components(register: Register) -> None:
    register("jamba", Jamba)
