"""DiffLlama: Llama with differential attention, half of its heads subtracted from the other half.  arXiv:2410.05258."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from lamina.core import (
    LLAMA_KEYS,
    SAME,
    Beside,
    Chain,
    Either,
    Fixed,
    Inverse,
    Joined,
    Key,
    LlamaLike,
    Move,
    Part,
    Register,
    Woven,
    hookimpl,
    llama_template,
    move,
    without,
)

LAMBDAS = ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2")


def half(heads: int) -> int:
    """Heads of two queries, or of two keys, from the count of queries or keys."""
    if heads % 2:
        raise ValueError("odd")
    return heads // 2


def double(heads: int) -> int:
    return 2 * heads


class DiffLlama(LlamaLike):
    """DiffLlama."""

    paper = "Ye et al. 2024, arXiv:2410.05258"
    model_types = ("diffllama",)
    architecture = "DiffLlamaForCausalLM"
    template = llama_template({"attention": {"name": "differential", "norm": {"name": "rms", "affine": False}}})
    keys = (
        *without(LLAMA_KEYS, "num_attention_heads", "num_key_value_heads", "rms_norm_eps"),
        Key("num_attention_heads", "blocks.*.attention.n_heads", required=True, to=half, back=double),
        Key("num_key_value_heads", "blocks.*.attention.n_kv_heads", to=half, back=double),
        Key("rms_norm_eps", "norm.eps", "blocks.*.attention.norm.eps", default=1e-5),
        Key("attention_bias", "blocks.*.attention.bias", default=False),
        Fixed("mlp_bias", False),
    )
    ignored_keys = ("lambda_std_dev", "pretraining_tp")
    attention_names: ClassVar = {"out": "self_attn.o_proj", **{name: f"self_attn.{name}" for name in LAMBDAS}}

    def attention_moves(self, at: str, to: str, attention: Part) -> Iterable[Move | Either]:
        """All first queries stand before all second ones, and so do keys and halves of values; ours has the two
        halves of a head's value side by side."""
        config: Any = attention.config
        heads, width = config.n_kv_heads, config.head_dim
        values = Inverse(Woven(heads, (width, width)))
        sizes = (2 * config.n_heads * width, 2 * heads * width, 2 * heads * width)
        names = [f"{at}.self_attn.{which}_proj" for which in "qkv"]
        yield move(f"{to}.qkv", names, Chain(Beside((SAME, SAME, values)), Joined(sizes)))
        for ours, theirs in self.attention_names.items():
            yield move(f"{to}.{ours}", f"{at}.{theirs}")


@hookimpl
def register_components(register: Register) -> None:
    register("diffllama", DiffLlama)
