"""Apertus: an ungated feed-forward network with xIELU of learned curvature, norms on heads.  arXiv:2509.14233."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from lamina.core import (
    ACTIVATIONS,
    LLAMA_KEYS,
    Constants,
    Either,
    Fixed,
    Key,
    LlamaLike,
    Move,
    Part,
    Register,
    Rope,
    defaults,
    hookimpl,
    llama_template,
    move,
    without,
)

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 12_000_000.0,
    "factor": 8.0,
    "original_max_position_embeddings": 8192,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}


class Apertus(LlamaLike):
    """Apertus 8B and 70B."""

    paper = "Swiss AI Initiative 2025, arXiv:2509.14233"
    model_types = ("apertus",)
    architecture = "ApertusForCausalLM"
    template = llama_template({"ffn": {"name": "mlp"}, "attention": {"qk_norm": {"name": "rms"}}})
    keys = (
        *defaults(without(LLAMA_KEYS, "hidden_act", "rope_parameters"), rms_norm_eps=1e-5),
        Key("hidden_act", "blocks.*.ffn.activation", default="xielu", values={"xielu": "xielu", **ACTIVATIONS}),
        Key("attention_bias", "blocks.*.attention.bias", default=False),
        Rope(theta=12_000_000.0, usual=LLAMA3),
        Fixed("mlp_bias", False),
        Fixed("post_norm", False),
        Fixed("qk_norm", True),
    )
    training_keys = ("attention_dropout", "hidden_dropout")
    norms: ClassVar = {"attention_in": "attention_layernorm", "ffn_in": "feedforward_layernorm"}
    ffn_names: ClassVar = {"up": "mlp.up_proj", "down": "mlp.down_proj"}

    def ffn_moves(self, at: str, to: str, ffn: Part) -> Iterable[Move | Either]:
        """Besides the curvatures a checkpoint keeps the slope at zero, and where it counts as zero."""
        yield from super().ffn_moves(at, to, ffn)
        ours = [f"{to}.activation.{name}" for name in ("alpha_p", "alpha_n")]
        theirs = [f"{at}.mlp.act_fn.{name}" for name in ("alpha_p", "alpha_n", "beta", "eps")]
        yield Either(((move(ours, theirs, Constants((0.5, -1e-6))),), (move(ours, theirs[:2]),)))


@hookimpl
def register_components(register: Register) -> None:
    register("apertus", Apertus)
