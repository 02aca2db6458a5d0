"""RecurrentGemma: two layers of gated linear recurrence to one of local attention.  arXiv:2404.07839."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch

from lamina.core import (
    ACTIVATIONS,
    LLAMA_KEYS,
    Chain,
    ConfigKeys,
    Each,
    Either,
    Inverse,
    Joined,
    Key,
    LlamaLike,
    Move,
    Part,
    Register,
    Reshaped,
    Rope,
    Stacked,
    defaults,
    hookimpl,
    llama_template,
    move,
    only,
)

KINDS, SCALED = "block_types", "embeddings_scale_by_sqrt_dim"


class RecurrentGemma(LlamaLike):
    """RecurrentGemma 2B and 9B. Embeddings are scaled by the root of the width rounded to bfloat16, as in training."""

    paper = "Griffin, RLHF and Gemma teams 2024, arXiv:2404.07839"
    model_types = ("recurrent_gemma",)
    architecture = "RecurrentGemmaForCausalLM"
    template = llama_template(
        {"ffn": {"name": "gated", "bias": True}},
        norm={"name": "rms", "offset": 1.0},
        blocks={
            "recurrent": {"attention": {"name": "rg_lru", "bias": True}},
            "attention": {"attention": {"name": "gqa", "out_bias": True, "mask": {"name": "sliding"}}},
        },
    )
    keys = (
        *defaults(
            only(LLAMA_KEYS, "vocab_size", "hidden_size", "num_hidden_layers", "rms_norm_eps", "tie_word_embeddings"),
            tie_word_embeddings=True,
        ),
        Key("max_position_embeddings", "context_length", default=8192),  # of training; the model itself has no limit
        Key("num_attention_heads", "blocks.*.attention.n_heads", default=10),
        Key("num_key_value_heads", "blocks.attention.attention.n_kv_heads"),
        Key("head_dim", "blocks.attention.attention.head_dim"),
        Key("attention_bias", "blocks.attention.attention.bias", default=False),
        Key("attention_window_size", "blocks.attention.attention.mask.window", default=2048, older=("sliding_window",)),
        Rope(role="attention", fraction=0.5, partial=True),
        Key("lru_width", "blocks.recurrent.attention.width"),
        Key("conv1d_width", "blocks.recurrent.attention.conv_width", default=4),
        # The width counts gate and up together.
        Key("intermediate_size", "blocks.*.ffn.hidden_dim", default=7680, to=lambda n: n // 2, back=lambda n: 2 * n),
        Key(
            "hidden_activation",
            "blocks.*.ffn.activation",
            "blocks.recurrent.attention.activation",
            default="gelu_pytorch_tanh",
            values=ACTIVATIONS,
        ),
        Key("logits_soft_cap", "head.softcap", default=30.0),
    )
    # How weights start.
    ignored_keys = ("_block_types", "final_w_init_variance_scale", "w_init_variance_scale")
    norm_name = "model.final_norm"
    norms: ClassVar = {"attention_in": "temporal_pre_norm", "ffn_in": "channel_pre_norm"}
    attention_names: ClassVar = {
        "qkv": ("temporal_block.q_proj", "temporal_block.k_proj", "temporal_block.v_proj"),
        "out": "temporal_block.o_proj",
    }
    ffn_names: ClassVar = {
        "gate_up": ("mlp_block.gate_proj", "mlp_block.up_proj"),
        "down": "mlp_block.down_proj",
    }

    def roles(self, config: ConfigKeys, n_layers: int) -> list[str]:
        kinds = config.listed(KINDS, ["recurrent", "recurrent", "attention"])
        if unknown := [kind for kind in kinds if kind not in self.template["blocks"]]:
            config.wrong(KINDS, f"no component honours {unknown[0]!r}; known: {', '.join(self.template['blocks'])}")
            return ["recurrent"] * n_layers
        return [str(kinds[layer % len(kinds)]) for layer in range(n_layers)]

    def write_roles(self, roles: list[str], config: dict[str, Any]) -> None:
        config[KINDS] = roles

    def read(self, config: ConfigKeys) -> dict[str, Any]:
        if not config.get(SCALED, True):
            config.wrong(SCALED, "embeddings of this model are always scaled")
        data = super().read(config)
        if isinstance(dim := data.get("dim"), int) and dim > 0:
            rounded = float(torch.tensor(dim**0.5, dtype=torch.bfloat16))
            data["embedding"]["scale"] = "sqrt_dim" if rounded == dim**0.5 else rounded
        return data

    def attention_moves(self, at: str, to: str, attention: Part) -> Iterable[Move | Either]:
        if attention.name != "rg_lru":
            yield from super().attention_moves(at, to, attention)
            return
        config: Any = attention.config
        block, width = f"{at}.temporal_block", config.width
        gates = [f"{block}.rg_lru.{gate}_gate" for gate in ("input", "recurrent")]
        flat = Reshaped((config.n_heads, width // config.n_heads), (width,))
        yield move(f"{to}.gate_in", (f"{block}.linear_y", f"{block}.linear_x"), Joined((width, width)))
        yield move(f"{to}.conv_weight", f"{block}.conv_1d.weight")
        yield move(f"{to}.conv_bias", f"{block}.conv_1d.bias")
        yield move(f"{to}.gate_weight", [f"{gate}_weight" for gate in gates], Inverse(Stacked()))
        yield move(f"{to}.gate_bias", [f"{gate}_bias" for gate in gates], Chain(Each(flat), Joined((width, width))))
        yield move(f"{to}.decay", f"{block}.rg_lru.recurrent_param")
        yield move(f"{to}.out", f"{block}.linear_out")


@hookimpl
def register_components(register: Register) -> None:
    register("recurrent_gemma", RecurrentGemma)
