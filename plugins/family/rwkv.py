"""RWKV-4: means of the past that fade, and an ffn that sees the token before too.  arXiv:2305.13048."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lamina.core import (
    LLAMA_KEYS,
    SAME,
    ConfigKeys,
    Key,
    Move,
    Multiplied,
    Register,
    Reshaped,
    ResolvedSpec,
    TemplateFamily,
    hookimpl,
    llama_template,
    move,
    only,
)

RESCALE = "rescale_every"
HALVED = {"name": "scaled", "factor": 0.5, "stream_factor": 0.5, "learned": False}
# The decoder's modules and tensors -> the checkpoint's.
NORMS = {"attention_in": "ln1", "ffn_in": "ln2"}
MATRICES = {
    "attention.receptance": "attention.receptance",
    "attention.key": "attention.key",
    "attention.value": "attention.value",
    "ffn.receptance": "feed_forward.receptance",
    "ffn.up": "feed_forward.key",
}
FADING = {"attention.decay": "attention.time_decay", "attention.bonus": "attention.time_first"}
MIXES = {
    "attention.receptance_mix": "attention.time_mix_receptance",
    "attention.key_mix": "attention.time_mix_key",
    "attention.value_mix": "attention.time_mix_value",
    "ffn.receptance_mix": "feed_forward.time_mix_receptance",
    "ffn.key_mix": "feed_forward.time_mix_key",
}
OUTPUTS = {"attention.out": "attention.output", "ffn.down": "feed_forward.value"}


class RWKVFamily(TemplateFamily):
    """RWKV-4 of every size.

    With `rescale_every` the stream is halved after every so many layers, and so is what later ones add, as transformers
    does when it does not train: float16 overflows otherwise. Cached steps are right for any batch, where
    transformers has them right for one text alone.
    """

    paper = "Peng et al. 2023, arXiv:2305.13048"
    model_types = ("rwkv",)
    architecture = "RwkvForCausalLM"
    base_prefix = "rwkv."
    template = llama_template(
        {"norm": {"name": "layer"}, "attention": {"name": "rwkv"}, "ffn": {"name": "rwkv_channel_mix"}},
        norm={"name": "layer", "eps": 1e-5},
        embedding={"norm": {"name": "layer"}},
        blocks={"block": {"ffn_residual": None}, "halved": {"ffn_residual": HALVED}},
    )
    keys = (
        *only(LLAMA_KEYS, "vocab_size", "hidden_size", "num_hidden_layers", "tie_word_embeddings"),
        Key("context_length", "context_length", default=1024, older=("max_position_embeddings",)),
        Key("attention_hidden_size", "blocks.*.attention.width"),
        Key("intermediate_size", "blocks.*.ffn.hidden_dim"),
        Key("layer_norm_epsilon", "embedding.norm.eps", "blocks.*.norm.eps", default=1e-5),
    )

    def roles(self, config: ConfigKeys, n_layers: int) -> list[str]:
        every = config.number(RESCALE, 6) or 0
        return ["halved" if every > 0 and not (layer + 1) % every else "block" for layer in range(n_layers)]

    def write_roles(self, roles: list[str], config: dict[str, Any]) -> None:
        config[RESCALE] = roles.index("halved") + 1 if "halved" in roles else 0

    def moves(self, spec: ResolvedSpec) -> Iterable[Move]:
        yield move("embedding.tokens", "rwkv.embeddings")
        yield move("embedding.norm", "rwkv.blocks.0.pre_ln")
        flat = Reshaped((1, 1, spec.dim), (spec.dim,))
        halvings = 0
        for layer, role in enumerate(self.role_names(spec)):
            for names, layout in (
                ({**NORMS, **MATRICES, **FADING}, SAME),
                (MIXES, flat),
                (OUTPUTS, Multiplied(0.5**halvings)),
            ):
                for ours, theirs in names.items():
                    yield move(f"layers.{layer}.{ours}", f"rwkv.blocks.{layer}.{theirs}", layout)
            halvings += role == "halved"
        yield move("norm", "rwkv.ln_out")
        yield move("head", "head")


@hookimpl
def register_components(register: Register) -> None:
    register("rwkv", RWKVFamily)
