"""nanochat: no weights in norms, one on the embedding, squared ReLU, queries and keys normed after they are turned.

Karpathy 2025. It turns pairs of channels backwards, which is forwards for the pair taken the other way round.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from lamina.core import (
    ACTIVATIONS,
    LLAMA_KEYS,
    Dealt,
    Either,
    Joined,
    Key,
    LlamaLike,
    Move,
    Part,
    Register,
    hookimpl,
    llama_template,
    move,
    without,
)

BARE = {"name": "rms", "affine": False}


class NanoChat(LlamaLike):
    """nanochat's models, d20 to d34."""

    paper = "Karpathy 2025, nanochat"
    model_types = ("nanochat",)
    architecture = "NanoChatForCausalLM"
    template = llama_template(
        {"ffn": {"name": "mlp"}, "attention": {"qk_norm": BARE, "qk_norm_at": "after"}},
        norm=BARE,
        embedding={"norm": BARE},
    )
    keys = (
        *without(LLAMA_KEYS, "hidden_act", "rms_norm_eps"),
        Key("hidden_act", "blocks.*.ffn.activation", default="relu2", values=ACTIVATIONS),
        Key("rms_norm_eps", "norm.eps", "embedding.norm.eps", "blocks.*.attention.qk_norm.eps", default=1e-6),
        Key("attention_bias", "blocks.*.attention.bias", default=False, older=("qkv_bias",)),
        Key("final_logit_softcapping", "head.softcap", default=15.0, older=("logits_soft_cap",)),
    )
    ffn_names: ClassVar = {"up": "mlp.fc1", "down": "mlp.fc2"}

    def attention_moves(self, at: str, to: str, attention: Part) -> Iterable[Move | Either]:
        """Of queries and keys the halves of each head change places."""
        config: Any = attention.config
        half = config.head_dim // 2
        queries, keys = 2 * config.n_heads, 2 * config.n_kv_heads
        cuts = ((half,) * queries, (half,) * keys, (config.n_kv_heads * config.value_dim,))
        swapped = Dealt(cuts, ((*(number ^ 1 for number in range(queries + keys)), queries + keys),))
        for item in super().attention_moves(at, to, attention):
            if isinstance(item, Move) and isinstance(item.layout, Joined):
                yield move(item.ours, item.theirs, swapped)
            else:
                yield item


@hookimpl
def register_components(register: Register) -> None:
    register("nanochat", NanoChat)
