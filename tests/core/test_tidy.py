"""A spec that a machine wrote in full, as a person would have written it."""

from __future__ import annotations

from typing import Any

from lamina.core.registry import load_plugins
from lamina.core.resolve import resolve_data
from lamina.core.tidy import meaning, tidy

REGISTRY = load_plugins(only=[])


def test_a_block_that_differs_in_its_position_names_no_more_of_it_than_it_must() -> None:
    ffn = {"name": "gated", "hidden_dim": 24, "activation": "silu"}
    rope = {"name": "rope", "theta": 10_000.0, "layout": "half", "fraction": 0.25}
    data: dict[str, Any] = {
        "lamina": 1,
        "name": "two-kinds",
        "vocab_size": 31,
        "dim": 16,
        "context_length": 32,
        "norm": "rms",
        "blocks": {
            "linear": {"position": "none", "attention": {"name": "linear", "n_heads": 2}, "ffn": ffn},
            "full": {"attention": {"name": "gqa", "n_heads": 2}, "ffn": ffn},
        },
        "layers": {"pattern": ["linear", "full", "linear", "full"], "n_layers": 4},
        "position": rope,
    }
    made = tidy(data, REGISTRY)
    assert made["layers"].pop("pattern") == ["linear", "full"]
    made["layers"]["pattern"] = data["layers"]["pattern"]
    assert meaning(resolve_data(made, REGISTRY)) == meaning(resolve_data(data, REGISTRY))
    assert made["blocks"]["full"]["position"] == {"name": "rope", "fraction": 0.25}
    assert "position" not in made
    assert "position" not in made["blocks"]["linear"]
