"""ERNIE 4.5 with experts: chosen by a softmax and a bias, in some of the layers.  Baidu 2025."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lamina.core import (
    ACTIVATIONS,
    LLAMA_KEYS,
    ConfigKeys,
    Either,
    Key,
    LlamaLike,
    Move,
    Part,
    Register,
    Reshaped,
    ResolvedSpec,
    Rope,
    defaults,
    hookimpl,
    llama_template,
    move,
    without,
)

EXPERTS = {
    "name": "moe",
    "router": {"name": "softmax_bias"},
    "expert": {"name": "gated"},
}


class Ernie45MoE(LlamaLike):
    """ERNIE-4.5-21B-A3B and 300B-A47B."""

    paper = "Baidu ERNIE Team 2025, ERNIE 4.5 Technical Report"
    model_types = ("ernie4_5_moe",)
    architecture = "Ernie4_5_MoeForCausalLM"
    template = llama_template(blocks={"dense": {}, "moe": {"ffn": EXPERTS}})
    keys = (
        *defaults(
            without(LLAMA_KEYS, "intermediate_size", "hidden_act", "rope_parameters"),
            num_key_value_heads=4,
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
        ),
        Rope(theta=500_000.0, layout="interleaved"),
        Key("intermediate_size", "blocks.dense.ffn.hidden_dim", default=12288),
        Key(
            "hidden_act",
            "blocks.dense.ffn.activation",
            "blocks.moe.ffn.expert.activation",
            default="silu",
            values=ACTIVATIONS,
        ),
        Key(
            "use_bias",
            "head.bias",
            "blocks.*.attention.bias",
            "blocks.dense.ffn.bias",
            default=False,
        ),
        Key("moe_intermediate_size", "blocks.moe.ffn.expert.hidden_dim", default=1536),
        Key("moe_k", "blocks.moe.ffn.router.experts_per_token", default=6, older=("num_experts_per_tok",)),
        Key("moe_num_experts", "blocks.moe.ffn.n_experts", default=64, older=("num_experts",)),
        Key("moe_norm_min", "blocks.moe.ffn.router.eps", default=1e-12),
    )
    ignored_keys = ("output_router_logits",)
    training_keys = ("attention_dropout", "router_aux_loss_coef")
    shared_name = "mlp.shared_experts"

    def read(self, config: ConfigKeys) -> dict[str, Any]:
        data = super().read(config)
        shared = config.number("moe_num_shared_experts", 2)
        if "moe" in data["blocks"]:
            ffn = data["blocks"]["moe"]["ffn"]
            if shared:
                expert = ffn["expert"]
                ffn["shared"] = {
                    "name": "gated",
                    "hidden_dim": shared * (config.number("moe_intermediate_size", 1536) or 0),
                    "activation": expert.get("activation"),
                    "bias": config.get("use_bias", False),
                }
        return data

    def write(self, spec: ResolvedSpec) -> dict[str, Any]:
        config = super().write(spec)
        blocks = self.by_role(spec)[0]["blocks"]
        if "moe" in blocks:
            ffn = blocks["moe"]["ffn"]
            shared = ffn.get("shared")
            config["moe_num_shared_experts"] = shared["hidden_dim"] // ffn["expert"]["hidden_dim"] if shared else 0
        return config

    def roles(self, config: ConfigKeys, n_layers: int) -> list[str]:
        every = config.number("moe_layer_interval", 1) or 1
        first = config.number("moe_layer_start_index", 1) or 0
        end = config.number("moe_layer_end_index", -1)
        last = -1 if end is None else end
        last = n_layers - 1 if last == -1 else last
        return ["moe" if not (layer + 1) % every and first <= layer <= last else "dense" for layer in range(n_layers)]

    def write_roles(self, roles: list[str], config: dict[str, Any]) -> None:
        found = [layer for layer, role in enumerate(roles) if role == "moe"]
        config["moe_layer_start_index"] = found[0] if found else len(roles)
        config["moe_layer_end_index"] = found[-1] if found else len(roles) - 1
        config["moe_layer_interval"] = found[1] - found[0] if len(found) > 1 else 1

    def ffn_moves(self, at: str, to: str, ffn: Part) -> Iterable[Move | Either]:
        yield from super().ffn_moves(at, to, ffn)
        if ffn.name == self.template["blocks"]["moe"]["ffn"]["name"]:
            config: Any = ffn.config
            n = config.n_experts
            yield move(
                f"{to}.router.bias",
                f"{at}.mlp.moe_statics.e_score_correction_bias",
                Reshaped((1, n), (n,)),
            )


@hookimpl
def register_components(register: Register) -> None:
    register("ernie4_5_moe", Ernie45MoE)
