"""EXAONE 4: norms on what sublayers give; windows and rotation in three layers of four, neither in the fourth.

LG AI Research 2025, arXiv:2507.11407. The small ones have no windows, and turn in every layer.
"""

from __future__ import annotations

from typing import Any, ClassVar

from lamina.core import (
    LLAMA_KEYS,
    WINDOW,
    ConfigKeys,
    Register,
    Rope,
    TypedLayers,
    defaults,
    hookimpl,
    llama_template,
    with_default,
    without,
)

WIDEST = 4096  # the window of a config that does not say


class Exaone4(TypedLayers):
    """EXAONE 4.0 1.2B and 32B."""

    paper = "LG AI Research 2025, arXiv:2507.11407"
    model_types = ("exaone4",)
    architecture = "Exaone4ForCausalLM"
    template = llama_template(
        {"placement": "output", "attention": {"qk_norm": {"name": "rms"}}},
        blocks={
            "sliding": {"position": {"name": "rope"}, "attention": {"mask": {"name": "sliding"}}},
            "full": {"position": {"name": "none"}, "attention": {"mask": "causal"}},
            "turned": {"position": {"name": "rope"}, "attention": {"mask": "causal"}},
        },
    )
    keys = (
        *defaults(without(LLAMA_KEYS, "rope_parameters"), num_key_value_heads=32, rms_norm_eps=1e-5),
        with_default(WINDOW, WIDEST),
        Rope(role="sliding"),
        Rope(role="turned"),
    )
    ignored_keys = ("cache_implementation",)
    norms: ClassVar = {"attention_out": "post_attention_layernorm", "ffn_out": "post_feedforward_layernorm"}

    def default_types(self, config: ConfigKeys, n_layers: int) -> list[str]:
        """By `sliding_window_pattern`: a period, or a letter for each of its layers, the last of all always global."""
        pattern = config.get("sliding_window_pattern", 4)
        if isinstance(pattern, str) and pattern and set(pattern) <= set("LG"):
            local = [pattern[layer % len(pattern)] == "L" and layer < n_layers - 1 for layer in range(n_layers)]
        elif type(pattern) is int and pattern > 0:
            local = [(layer + 1) % pattern != 0 for layer in range(n_layers)]
        else:
            config.wrong("sliding_window_pattern", f"{pattern!r} is neither a period nor letters L and G")
            local = [False] * n_layers
        return ["sliding_attention" if slides else "full_attention" for slides in local]

    def roles(self, config: ConfigKeys, n_layers: int) -> list[str]:
        config.get("sliding_window_pattern")  # which says nothing beside layer_types, or without a window
        if config.get("sliding_window", WIDEST) is not None:
            return super().roles(config, n_layers)
        full = ["full_attention"] * n_layers
        if config.listed("layer_types", full, n_layers) != full:
            config.wrong("layer_types", "some layers slide, and sliding_window is null")
        return ["turned"] * n_layers

    def write_roles(self, roles: list[str], config: dict[str, Any]) -> None:
        """Where layers without a window turn, no layer has one: a mixture of both is found not to fit."""
        config["layer_types"] = ["sliding_attention" if role == "sliding" else "full_attention" for role in roles]
        if "turned" in roles:
            config["sliding_window"] = None


@hookimpl
def register_components(register: Register) -> None:
    register("exaone4", Exaone4)
