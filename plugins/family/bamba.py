"""Bamba: Mamba-2 with attention in a few layers, half of each head turned.  IBM, Princeton, CMU, UIUC 2024, Bamba."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from lamina.core import (
    ACTIVATIONS,
    LLAMA_KEYS,
    MAMBA2_KEYS,
    ConfigKeys,
    Either,
    Fixed,
    Key,
    LlamaLike,
    Move,
    Part,
    Register,
    Rope,
    hookimpl,
    in_roles,
    llama_template,
    mamba2_moves,
    only,
)

MIXER = {"name": "mamba2", "gate": "silu", "norm": {"name": "rms"}, "norm_before_gate": False}
INDICES = "attn_layer_indices"


class Bamba(LlamaLike):
    """Bamba 9B. `time_step_limit` holds in cached steps too, where transformers lets it go."""

    paper = "IBM, Princeton, CMU and UIUC 2024, Bamba: Inference-Efficient Hybrid Mamba2 Model"
    model_types = ("bamba",)
    architecture = "BambaForCausalLM"
    rank = 200  # models with attention alone are rather said by families of these
    template = llama_template(blocks={"mamba": {"attention": MIXER}, "attention": {}})
    keys = (
        *only(LLAMA_KEYS, "vocab_size", "hidden_size", "num_hidden_layers", "tie_word_embeddings", "intermediate_size"),
        Key("max_position_embeddings", "context_length", default=262_144),
        Key("head_dim", "blocks.attention.attention.head_dim"),
        Key("num_attention_heads", "blocks.attention.attention.n_heads", default=32),
        Key("num_key_value_heads", "blocks.attention.attention.n_kv_heads", default=8),
        Key("attention_bias", "blocks.attention.attention.bias", default=False),
        Key("mlp_bias", "blocks.*.ffn.bias", default=False),
        Key("rms_norm_eps", "norm.eps", "blocks.mamba.attention.norm.eps", default=1e-5),
        Key(
            "hidden_act",
            "blocks.*.ffn.activation",
            "blocks.mamba.attention.activation",
            default="silu",
            values=ACTIVATIONS,
        ),
        *in_roles(MAMBA2_KEYS, "mamba"),
        Rope(role="attention", fraction=0.5, partial=True),
        Fixed("partial_rotary_factor", 0.5),  # which transformers takes it for; within rope_parameters it counts
    )
    # How kernels compute, how many logits a prompt is given, and the width that is turned, which follows.
    ignored_keys = ("attn_rotary_emb", "mamba_chunk_size", "num_logits_to_keep", "use_mamba_kernels")
    training_keys = ("attention_dropout", "z_loss_coefficient")
    norm_name = "model.final_layernorm"
    norms: ClassVar = {"attention_in": "input_layernorm", "ffn_in": "pre_ff_layernorm"}
    ffn_names: ClassVar = {
        "gate_up": ("feed_forward.gate_proj", "feed_forward.up_proj"),
        "down": "feed_forward.down_proj",
    }

    def roles(self, config: ConfigKeys, n_layers: int) -> list[str]:
        attends = config.listed(INDICES, [])
        return ["attention" if layer in attends else "mamba" for layer in range(n_layers)]

    def write_roles(self, roles: list[str], config: dict[str, Any]) -> None:
        config[INDICES] = [layer for layer, role in enumerate(roles) if role == "attention"]

    def attention_moves(self, at: str, to: str, attention: Part) -> Iterable[Move | Either]:
        if attention.name == "mamba2":
            return mamba2_moves(f"{at}.mamba", to, attention.config)
        return super().attention_moves(at, to, attention)


@hookimpl
def register_components(register: Register) -> None:
    register("bamba", Bamba)
