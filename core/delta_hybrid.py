"""What Qwen's hybrids share: in most layers gated DeltaNet, in every fourth attention whose query projection makes a
gate on its output too; norms whose weights start from zero, but for those on what gated DeltaNet gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from lamina.core.component import Part
from lamina.core.config_keys import ConfigKeys
from lamina.core.family import ACTIVATIONS, Fixed, Item, Key, without
from lamina.core.layout import SAME, Beside, Chain, Dealt, Either, Joined, Move, Woven, move
from lamina.core.llama_like import LLAMA_KEYS, TypedLayers, llama_template, overlay
from lamina.core.rope_keys import Rope

NORM = {"name": "rms", "offset": 1.0}
MIXERS: Mapping[str, Mapping[str, Any]] = {
    "linear": {"position": "none", "attention": {"name": "gated_deltanet", "norm": {"name": "rms"}}},
    "full": {"attention": {"name": "gqa", "mask": "causal", "qk_norm": NORM, "gate": "element"}},
}
GATED_EXPERTS: Mapping[str, Any] = {
    "name": "moe",
    "router": {"name": "softmax_top_k"},
    "expert": {"name": "gated"},
    "shared": {"name": "gated"},
    "shared_gate": True,
}


def _at(mixer: str, option: str) -> tuple[str, str]:
    return f"blocks.{mixer}.attention.{option}", f"blocks.{mixer}_dense.attention.{option}"


def _of_experts(option: str) -> tuple[str, str]:
    return f"blocks.linear.ffn.{option}", f"blocks.full.ffn.{option}"


def delta_template(ffn: Mapping[str, Any], dense: bool = False) -> dict[str, Any]:
    """Roles `linear` and `full` with this ffn; with `dense` also `linear_dense` and `full_dense` without experts."""
    blocks = {role: overlay(mixer, {"ffn": ffn}) for role, mixer in MIXERS.items()}
    blocks |= {f"{role}_dense": dict(mixer) for role, mixer in MIXERS.items() if dense}
    return llama_template(norm=NORM, blocks=blocks)


DELTA_KEYS: tuple[Item, ...] = (
    *without(
        LLAMA_KEYS,
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "intermediate_size",
        "hidden_act",
        "rms_norm_eps",
        "rope_parameters",
    ),
    Rope(partial=True, fraction=0.25),
    Key("num_attention_heads", *_at("full", "n_heads"), default=16),
    Key("num_key_value_heads", *_at("full", "n_kv_heads"), default=2),
    Key("head_dim", *_at("full", "head_dim"), default=256),
    Key("attention_bias", *_at("full", "bias"), default=False),
    Key("rms_norm_eps", "norm.eps", *_at("full", "qk_norm.eps"), *_at("linear", "norm.eps"), default=1e-6),
    Key("linear_num_value_heads", *_at("linear", "n_heads"), default=32),
    Key("linear_num_key_heads", *_at("linear", "n_qk_heads"), default=16),
    Key("linear_key_head_dim", *_at("linear", "head_dim"), default=128),
    Key("linear_value_head_dim", *_at("linear", "v_head_dim"), default=128),
    Key("linear_conv_kernel_dim", *_at("linear", "conv_width"), default=4),
    Fixed("attn_output_gate", True),
    Fixed("output_gate_type", "swish"),
)


def delta_activation(*dense: str) -> Key:
    """The key of all activations; `dense` are the roles whose ffn has no experts."""
    paths = (f"blocks.{role}.ffn.activation" for role in dense)
    experts = (f"blocks.*.ffn.{part}.activation" for part in ("expert", "shared"))
    return Key("hidden_act", *_at("linear", "activation"), *paths, *experts, default="silu", values=ACTIVATIONS)


DELTA_EXPERT_KEYS: tuple[Item, ...] = (
    Key("moe_intermediate_size", *_of_experts("expert.hidden_dim"), default=512),
    Key("shared_expert_intermediate_size", *_of_experts("shared.hidden_dim"), default=512),
    Key("num_experts", *_of_experts("n_experts"), default=512),
    Key("num_experts_per_tok", *_of_experts("router.experts_per_token"), default=10),
)


class DeltaHybrid(TypedLayers):
    """Layers of gated DeltaNet and of gated attention, told apart by `layer_types` or `full_attention_interval`."""

    types: ClassVar = {"linear_attention": "linear", "full_attention": "full"}
    ignored_keys: ClassVar[tuple[str, ...]] = (
        "intermediate_size",  # where all layers have experts
        "mamba_ssm_dtype",
        "mtp_num_hidden_layers",
        "mtp_use_dedicated_embeddings",
        "output_router_logits",
    )
    training_keys: ClassVar[tuple[str, ...]] = ("attention_dropout", "router_aux_loss_coef")
    ignored_tensors: ClassVar[tuple[str, ...]] = ("*.rotary_emb.inv_freq", "mtp.*")  # which predict further tokens
    mixer_name: ClassVar[str] = "linear_attn"

    def default_types(self, config: ConfigKeys, n_layers: int) -> list[str]:
        every = config.number("full_attention_interval", 4) or 4
        return ["linear_attention" if (layer + 1) % every else "full_attention" for layer in range(n_layers)]

    def roles(self, config: ConfigKeys, n_layers: int) -> list[str]:
        config.get("full_attention_interval")  # idle beside `layer_types`
        return super().roles(config, n_layers)

    def attention_moves(self, at: str, to: str, attention: Part) -> Iterable[Move | Either]:
        config: Any = attention.config
        if attention.name != MIXERS["linear"]["attention"]["name"]:
            yield from self.gated_moves(at, to, config)
            return
        for name in ("A_log", "dt_bias", "norm"):
            yield move(f"{to}.{name}", f"{at}.{self.mixer_name}.{name}")
        yield move(f"{to}.conv_weight", f"{at}.{self.mixer_name}.conv1d.weight")
        yield move(f"{to}.out", f"{at}.{self.mixer_name}.out_proj")
        yield from self.projection_moves(f"{at}.{self.mixer_name}", to, config)

    def projection_moves(self, at: str, to: str, config: Any) -> Iterable[Move]:
        """Of a gated DeltaNet's two projections: queries, keys, values and gate; strengths and decays."""
        qk, v = config.n_qk_heads * config.head_dim, config.n_heads * config.v_head_dim
        yield move(f"{to}.qkvz", (f"{at}.in_proj_qkv", f"{at}.in_proj_z"), Joined((2 * qk + v, v)))
        yield move(f"{to}.ba", (f"{at}.in_proj_b", f"{at}.in_proj_a"), Joined((config.n_heads, config.n_heads)))

    def gated_moves(self, at: str, to: str, config: Any) -> Iterable[Move]:
        """A checkpoint has each head's gate behind its query, the decoder all gates in a projection of their own."""
        width, keys = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        apart = Woven(config.n_heads, (config.head_dim, config.head_dim))
        dealt = Dealt(((width, width), (keys,), (keys,)), ((0, 2, 3), (1,)))
        layout = Chain(Beside((apart, SAME, SAME)), dealt)
        read = [f"{at}.self_attn.{name}_proj" for name in "qkv"]
        yield move((f"{to}.qkv", f"{to}.gate"), read, layout)
        for ours, theirs in (("out", "o_proj"), ("q_norm", "q_norm"), ("k_norm", "k_norm")):
            yield move(f"{to}.{ours}", f"{at}.self_attn.{theirs}")
