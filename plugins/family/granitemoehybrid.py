"""Granite 4: Mamba-2 with attention in some layers, and an ffn, alone or beside experts.  IBM 2025, Granite 4.0."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from lamina.core import (
    ACTIVATIONS,
    GRANITE_KEYS,
    LLAMA_KEYS,
    MAMBA2_KEYS,
    ConfigKeys,
    Either,
    Key,
    Move,
    Part,
    Register,
    ResolvedSpec,
    Rope,
    TypedLayers,
    granite_experts,
    hookimpl,
    in_roles,
    llama_template,
    mamba2_moves,
    move,
    only,
    without,
)

MIXER = {"name": "mamba2", "gate": "silu", "norm": {"name": "rms"}, "norm_before_gate": False}
EXPERTS = {
    "name": "moe",
    "router": {"name": "top_k_softmax"},
    "expert": {"name": "gated"},
    "shared": {"name": "gated"},
}
MAMBA, ATTENTION = ("mamba", "mamba_moe"), ("attention", "attention_moe")
DENSE, MOE = ("mamba", "attention"), ("mamba_moe", "attention_moe")
OF_ATTENTION = ("attention_bias", "attention_multiplier")
POSITIONS, EXPERT_COUNT = "position_embedding_type", "num_local_experts"


def _in_each(roles: Iterable[str], option: str) -> list[str]:
    return [f"blocks.{role}.{option}" for role in roles]


class GraniteMoEHybrid(TypedLayers):
    """Granite 4. `time_step_limit` holds in cached steps too, where transformers lets it go."""

    paper = "IBM 2025, Granite 4.0; Shen et al. 2024, arXiv:2408.13359"
    model_types = ("granitemoehybrid",)
    architecture = "GraniteMoeHybridForCausalLM"
    rank = 200  # models with attention alone are rather said by families of these
    template = llama_template(
        {"residual": {"name": "scaled"}},
        blocks={
            "mamba": {"attention": MIXER},
            "mamba_moe": {"attention": MIXER, "ffn": EXPERTS},
            "attention": {},
            "attention_moe": {"ffn": EXPERTS},
        },
    )
    keys = (
        *only(LLAMA_KEYS, "vocab_size", "hidden_size", "num_hidden_layers", "max_position_embeddings"),
        *only(LLAMA_KEYS, "tie_word_embeddings"),
        *without(GRANITE_KEYS, *OF_ATTENTION),
        *in_roles(only(GRANITE_KEYS, *OF_ATTENTION), *ATTENTION),
        *in_roles(only(LLAMA_KEYS, "num_key_value_heads", "head_dim"), *ATTENTION),
        Key("num_attention_heads", *_in_each(ATTENTION, "attention.n_heads"), default=32),
        Key("rms_norm_eps", "norm.eps", *_in_each(MAMBA, "attention.norm.eps"), default=1e-6),
        Key(
            "hidden_act",
            *_in_each(MAMBA, "attention.activation"),
            *_in_each(DENSE, "ffn.activation"),
            *_in_each(MOE, "ffn.expert.activation"),
            *_in_each(MOE, "ffn.shared.activation"),
            default="silu",
            values=ACTIVATIONS,
        ),
        Key("intermediate_size", *_in_each(MOE, "ffn.expert.hidden_dim"), default=11008),
        Key(
            "shared_intermediate_size",
            *_in_each(DENSE, "ffn.hidden_dim"),
            *_in_each(MOE, "ffn.shared.hidden_dim"),
            default=1024,
        ),
        Key(EXPERT_COUNT, *_in_each(MOE, "ffn.n_experts"), default=8),
        Key("num_experts_per_tok", *_in_each(MOE, "ffn.router.experts_per_token"), default=2),
        *in_roles(MAMBA2_KEYS, *MAMBA),
        *(Rope(role=role) for role in ATTENTION),
    )
    # How kernels compute and weights start, and what never was anything else.
    ignored_keys = ("init_method", "mamba_chunk_size", "normalization_function", "output_router_logits")
    training_keys = ("attention_dropout", "router_aux_loss_coef")
    # Either kind of layer has an older name.
    types: ClassVar = {
        "mamba": "mamba",
        "attention": "attention",
        "linear_attention": "mamba",
        "full_attention": "attention",
    }
    ffn_names: ClassVar = {"gate_up": "shared_mlp.input_linear", "down": "shared_mlp.output_linear"}

    def default_types(self, config: ConfigKeys, n_layers: int) -> list[str]:
        return ["linear_attention"] * n_layers

    def roles(self, config: ConfigKeys, n_layers: int) -> list[str]:
        experts = "_moe" if config.get(EXPERT_COUNT, 8) else ""
        return [role + experts for role in super().roles(config, n_layers)]

    def write_roles(self, roles: list[str], config: dict[str, Any]) -> None:
        super().write_roles([role.removesuffix("_moe") for role in roles], config)
        if not set(MOE) & set(roles):
            config[EXPERT_COUNT] = 0

    def read(self, config: ConfigKeys) -> dict[str, Any]:
        if (kinds := config.get("layers_block_type")) is not None:
            config.values.setdefault("layer_types", kinds)
        data, kind = super().read(config), config.get(POSITIONS)
        if kind not in (None, "nope", "rope"):
            config.wrong(POSITIONS, f"no component honours {kind!r}; known: rope, nope")
        for role in ATTENTION:
            if kind != "rope" and role in data["blocks"]:
                data["blocks"][role]["position"] = "none"
        return data

    def write(self, spec: ResolvedSpec) -> dict[str, Any]:
        turned = any(block.position is not None and block.position.name == "rope" for block in spec.blocks.values())
        return {**super().write(spec), POSITIONS: "rope" if turned else None}

    def attention_moves(self, at: str, to: str, attention: Part) -> Iterable[Move | Either]:
        if attention.name == "mamba2":
            return mamba2_moves(f"{at}.mamba", to, attention.config)
        return super().attention_moves(at, to, attention)

    def ffn_moves(self, at: str, to: str, ffn: Part) -> Iterable[Move | Either]:
        if ffn.name == "moe":
            yield from granite_experts(at, to, ffn.config)
        always = f"{to}.shared" if ffn.name == "moe" else to
        for ours, theirs in self.ffn_names.items():
            yield move(f"{always}.{ours}", f"{at}.{theirs}")


@hookimpl
def register_components(register: Register) -> None:
    register("granitemoehybrid", GraniteMoEHybrid)
