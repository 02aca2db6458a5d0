"""Kimi Linear: three layers of Kimi delta attention to one of latent attention without positions, and DeepSeek-V3's
experts.  Kimi Team 2025, arXiv:2510.26692."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from lamina.core import (
    ACTIVATIONS,
    LATENT_NAMES,
    LLAMA_KEYS,
    ConfigKeys,
    Either,
    Fixed,
    Joined,
    Key,
    Move,
    Part,
    Register,
    Reshaped,
    ResolvedSpec,
    TypedLayers,
    check_latent_heads,
    complete_experts,
    count_shared,
    hookimpl,
    latent_moves,
    llama_template,
    move,
)

EXPERTS = {
    "name": "moe",
    "router": {"name": "sigmoid_bias"},
    "expert": {"name": "gated"},
    "shared": {"name": "gated"},
}
LINEAR = {"name": "kda", "norm": {"name": "rms"}}
FULL = {"name": "mla", "norm": {"name": "rms", "eps": 1e-6}}
# Keys of the published configs' `linear_attn_config`, and those that transformers has for them.
NESTED = {
    "head_dim": "linear_head_dim",
    "num_heads": "linear_num_heads",
    "short_conv_kernel_size": "linear_conv_kernel_dim",
}
LISTS = ("full_attn_layers", "kda_layers")  # in the same, counted from 1


def _of(mixer: str, option: str) -> tuple[str, str]:
    return f"blocks.{mixer}.attention.{option}", f"blocks.{mixer}_dense.attention.{option}"


def _experts(option: str) -> tuple[str, str]:
    return f"blocks.linear.ffn.{option}", f"blocks.full.ffn.{option}"


def _dense(option: str) -> tuple[str, str]:
    return f"blocks.linear_dense.ffn.{option}", f"blocks.full_dense.ffn.{option}"


class KimiLinear(TypedLayers):
    """Kimi-Linear-48B-A3B. Exports name their dense layers as the published checkpoint does."""

    paper = "Kimi Team 2025, arXiv:2510.26692"
    model_types = ("kimi_linear",)
    architecture = "KimiLinearForCausalLM"
    template = llama_template(
        blocks={
            "linear": {"attention": LINEAR, "ffn": EXPERTS},
            "full": {"attention": FULL, "ffn": EXPERTS},
            "linear_dense": {"attention": LINEAR},
            "full_dense": {"attention": FULL},
        }
    )
    keys = (
        *(key for key in LLAMA_KEYS if getattr(key, "name", "") in ("vocab_size", "hidden_size", "num_hidden_layers")),
        Key("tie_word_embeddings", "head.tied", default=False),
        Key("model_max_length", "context_length", default=1_048_576, older=("max_position_embeddings",)),
        Key("rms_norm_eps", "norm.eps", *_of("linear", "norm.eps"), default=1e-5),
        Key("linear_num_heads", *_of("linear", "n_heads"), default=32),
        Key("linear_head_dim", *_of("linear", "head_dim"), default=128),
        Key("linear_conv_kernel_dim", *_of("linear", "conv_width"), default=4),
        Key("num_attention_heads", *_of("full", "n_heads"), default=32),
        Key("attention_bias", *_of("full", "bias"), default=False),
        Key("q_lora_rank", *_of("full", "q_lora_rank")),
        Key("kv_lora_rank", *_of("full", "kv_lora_rank"), default=512),
        Key("qk_nope_head_dim", *_of("full", "qk_nope_head_dim"), default=128),
        Key("qk_rope_head_dim", *_of("full", "qk_rope_head_dim"), default=64),
        Key("v_head_dim", *_of("full", "v_head_dim"), default=128),
        Key("intermediate_size", *_dense("hidden_dim"), default=9216),
        Key(
            "hidden_act",
            *_of("linear", "activation"),
            *_dense("activation"),
            *_experts("expert.activation"),
            *_experts("shared.activation"),
            default="silu",
            values=ACTIVATIONS,
        ),
        Key("moe_intermediate_size", *_experts("expert.hidden_dim"), default=1024),
        Key("num_experts", *_experts("n_experts"), default=256, older=("num_local_experts",)),
        Key(
            "num_experts_per_token",
            *_experts("router.experts_per_token"),
            default=8,
            older=("num_experts_per_tok",),
        ),
        Key("routed_scaling_factor", *_experts("router.scale"), default=2.446),
        Key("num_expert_group", *_experts("router.n_groups"), default=1, older=("n_group",)),
        Key("topk_group", *_experts("router.groups_per_token"), default=1),
        Key("moe_renormalize", *_experts("router.renormalise"), default=True, older=("norm_topk_prob",)),
        Fixed("mla_use_nope", True),
        Fixed("moe_layer_freq", 1),
        Fixed("moe_router_activation_func", "sigmoid"),
    )
    ignored_keys = (
        "head_dim",
        "num_nextn_predict_layers",
        "output_router_logits",
        "pretraining_tp",
        "qk_head_dim",
        "rope_parameters",  # it has no positions
        "rope_scaling",
        "rope_theta",
        "use_grouped_topk",
    )
    types: ClassVar = {"linear_attention": "linear", "full_attention": "full"}
    router_names: ClassVar = {
        "linear": "block_sparse_moe.gate",
        "bias": "block_sparse_moe.gate.e_score_correction_bias",
    }
    expert_names = (
        "block_sparse_moe.experts.{}.w1",
        "block_sparse_moe.experts.{}.w3",
        "block_sparse_moe.experts.{}.w2",
    )
    shared_name = "block_sparse_moe.shared_experts"

    def read(self, config: ConfigKeys) -> dict[str, Any]:
        nested = config.get("linear_attn_config") or {}
        if not isinstance(nested, dict):
            config.wrong("linear_attn_config", f"{nested!r} is no mapping")
            nested = config.values["linear_attn_config"] = {}
        config.values |= {theirs: nested[key] for key, theirs in NESTED.items() if key in nested}
        for key in sorted(nested.keys() - NESTED.keys() - set(LISTS)):
            config.wrong(f"linear_attn_config.{key}", "no component honours it")
        data = super().read(config)
        check_latent_heads(config)
        shared = config.number("num_shared_experts", 1, "n_shared_experts")
        for role, block in data["blocks"].items():
            if not role.endswith("_dense"):
                complete_experts(block["ffn"], shared)
        return data

    def write(self, spec: ResolvedSpec) -> dict[str, Any]:
        config = super().write(spec)
        config["num_key_value_heads"] = config["num_attention_heads"]
        blocks = self.by_role(spec)[0]["blocks"]
        sparse = next((block["ffn"] for role, block in blocks.items() if not role.endswith("_dense")), None)
        config["num_shared_experts"] = 1 if sparse is None else count_shared(sparse)
        if config["num_expert_group"] == 1:
            config["topk_group"] = 1
        return config

    def default_types(self, config: ConfigKeys, n_layers: int) -> list[str]:
        nested = config.get("linear_attn_config") or {}
        if not nested.keys() >= set(LISTS):
            return ["full_attention" if layer and layer % 4 == 0 else "linear_attention" for layer in range(n_layers)]
        full, linear = (nested[key] if isinstance(nested[key], list) else [] for key in LISTS)
        if sorted(map(str, [*full, *linear])) != sorted(map(str, range(1, n_layers + 1))):
            config.wrong("linear_attn_config", f"its lists do not name each of {n_layers} layers once")
        return ["full_attention" if layer + 1 in full else "linear_attention" for layer in range(n_layers)]

    def roles(self, config: ConfigKeys, n_layers: int) -> list[str]:
        first = config.number("first_k_dense_replace", 1) or 0
        usual = ["dense" if layer < first else "sparse" for layer in range(n_layers)]
        kinds = config.listed("mlp_layer_types", usual, n_layers)
        if unknown := [kind for kind in kinds if kind not in ("dense", "sparse")]:
            config.wrong("mlp_layer_types", f"no component honours {unknown[0]!r}; known: dense, sparse")
        pairs = zip(super().roles(config, n_layers), kinds, strict=True)
        return [role if kind == "sparse" else f"{role}_dense" for role, kind in pairs]

    def write_roles(self, roles: list[str], config: dict[str, Any]) -> None:
        super().write_roles([role.removesuffix("_dense") for role in roles], config)
        config["mlp_layer_types"] = ["dense" if role.endswith("_dense") else "sparse" for role in roles]

    def attention_moves(self, at: str, to: str, attention: Part) -> Iterable[Move | Either]:
        config: Any = attention.config
        if attention.name == FULL["name"]:
            yield from latent_moves(LATENT_NAMES, at, to, config)
            return
        at, n_heads, width = f"{at}.self_attn", config.n_heads, config.n_heads * config.head_dim
        yield move(f"{to}.qkv", [f"{at}.{name}_proj" for name in "qkv"], Joined((width,) * 3))
        yield move(f"{to}.conv_weight", [f"{at}.{name}_conv1d.weight" for name in "qkv"], Joined((width,) * 3))
        latents = [f"{at}.{name}_proj" for name in ("f_a", "g_a", "b")]
        yield move(f"{to}.down", latents, Joined((config.rank, config.rank, n_heads)))
        yield move(f"{to}.A_log", f"{at}.A_log", Reshaped((1, 1, n_heads, 1), (n_heads,)))
        names = {"decay_up": "f_b_proj", "gate_up": "g_b_proj", "dt_bias": "dt_bias", "norm": "o_norm", "out": "o_proj"}
        for ours, theirs in names.items():
            yield move(f"{to}.{ours}", f"{at}.{theirs}")

    def ffn_moves(self, at: str, to: str, ffn: Part) -> Iterable[Move | Either]:
        if ffn.name == EXPERTS["name"]:
            yield from super().ffn_moves(at, to, ffn)
            return
        # What transformers writes has the experts' prefix on dense layers too.
        config: Any = ffn.config
        ways = []
        for prefix in (f"{at}.mlp", f"{at}.block_sparse_moe"):
            names = {"gate_up": (f"{prefix}.gate_proj", f"{prefix}.up_proj"), "down": (f"{prefix}.down_proj",)}
            ways.append(tuple(self.dense_moves(names, to, config.hidden_dim)))
        yield Either(tuple(ways))


@hookimpl
def register_components(register: Register) -> None:
    register("kimi_linear", KimiLinear)
