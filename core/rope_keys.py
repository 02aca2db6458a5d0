"""Rotary positions in config.json, in both spellings: `rope_parameters`, and `rope_theta` beside `rope_scaling`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lamina.core.config_keys import ConfigKeys
from lamina.core.family import Data, Item, pick, put

ORIGINAL = "original_max_position_embeddings"
OLDER_TYPES = {"su": "longrope", "mrope": "default"}
# Keys of a rope_type -> options of the rope_scaling component of that name.
SCALINGS: Mapping[str, Mapping[str, str]] = {
    "linear": {"factor": "factor"},
    "dynamic": {"factor": "factor"},
    "llama3": {
        "factor": "factor",
        ORIGINAL: "original_context_length",
        "low_freq_factor": "low_freq_factor",
        "high_freq_factor": "high_freq_factor",
    },
    "yarn": {
        "factor": "factor",
        ORIGINAL: "original_context_length",
        "attention_factor": "attention_factor",
        "beta_fast": "beta_fast",
        "beta_slow": "beta_slow",
        "truncate": "truncate",
        "mscale": "mscale",
        "mscale_all_dim": "mscale_all_dim",
    },
    "longrope": {
        ORIGINAL: "original_context_length",
        "short_factor": "short_factor",
        "long_factor": "long_factor",
        "factor": "factor",
        "attention_factor": "attention_factor",
    },
    "proportional": {"factor": "factor", "partial_rotary_factor": "fraction"},
}
# Keys that serve other types, or text beside images, and say nothing here.
IDLE = {
    "finetuned",
    "mrope_interleaved",
    "mrope_section",
    ORIGINAL,
    "partial_rotary_factor",
    "rope_theta",
    "rope_type",
    "type",
}


@dataclass(frozen=True)
class Rope(Item):
    """Rotary positions of all layers, or of those with one role.

    `layer_type` names the entry of a `rope_parameters` that has one for each type of layer. `own_original` is for
    configs that keep the trained length beside `rope_parameters` and heed it first (Phi-3).
    """

    role: str | None = None
    theta: float = 10_000.0
    fraction: float = 1.0
    layout: str = "half"
    layer_type: str | None = None
    own_original: bool = False
    partial: bool = False  # whether the model turns a part of each head where its config says so
    flat: bool = True  # whether a `rope_parameters` or `rope_scaling` for all layers is about these
    theta_keys: tuple[str, ...] = ("rope_theta",)
    fraction_keys: tuple[str, ...] = ("partial_rotary_factor",)
    usual: Mapping[str, Any] | None = None  # what a config means that has no `rope_parameters`

    @property
    def name(self) -> str:
        return "rope_parameters"

    def read(self, config: ConfigKeys, data: Data) -> None:
        position = self.position(config, self.parameters(config))
        if self.role is None:
            data["position"] = position
        else:
            put(data, f"blocks.{self.role}.position", position)

    def parameters(self, config: ConfigKeys) -> dict[str, Any]:
        """What the config says of these layers' rotation."""
        newer, older = config.get("rope_parameters"), config.get("rope_scaling")
        found = older or newer or (self.usual if newer is None else None) or {}
        if self.layer_type is not None and isinstance(found, dict) and isinstance(found.get(self.layer_type), dict):
            found = found[self.layer_type]
        elif not self.flat:
            found = {}
        if not isinstance(found, dict):
            config.wrong("rope_parameters", f"{found!r} is no mapping")
            found = {}
        theta, fraction = self.theta, self.fraction
        for key in self.theta_keys:
            theta = config.number(key, theta)
        for key in self.fraction_keys:
            fraction = config.number(key, fraction)
        kept = {key: value for key, value in found.items() if value is not None}
        defaults = {"rope_theta": self.theta if theta is None else theta}
        return {**defaults, "partial_rotary_factor": self.fraction if fraction is None else fraction, **kept}

    def position(self, config: ConfigKeys, found: dict[str, Any]) -> Data:
        """The position component, as a spec has it."""
        told = str(found.get("rope_type", found.get("type", "default")))
        kind = OLDER_TYPES.get(told, told)
        position: Data = {"name": "rope", "theta": found["rope_theta"], "layout": self.layout}
        position["fraction"] = found["partial_rotary_factor"]
        own = config.get(ORIGINAL)
        if not self.partial and kind != "proportional" and position["fraction"] != self.fraction:
            config.wrong("partial_rotary_factor", f"this model turns whole heads, not {position['fraction']!r} of them")
        if kind not in SCALINGS and kind != "default":
            config.wrong("rope_type", f"no component honours {kind!r}; known: default, {', '.join(SCALINGS)}")
            return position
        known = SCALINGS.get(kind, {})
        for key in sorted(found.keys() - known.keys() - IDLE):
            config.wrong(f"rope_parameters.{key}", f"no component honours it with rope_type {kind!r}")
        if kind == "default":
            return position
        if ORIGINAL in known:
            usual = found.get(ORIGINAL, config.get("max_position_embeddings"))
            found[ORIGINAL] = usual if own is None else own
        if not (found.get("mscale") and found.get("mscale_all_dim")) or "attention_factor" in found:
            found = {key: value for key, value in found.items() if key not in ("mscale", "mscale_all_dim")}
        if kind == "proportional":
            position["fraction"] = 1.0
        position["scaling"] = {"name": kind, **{ours: found[key] for key, ours in known.items() if key in found}}
        return position

    def write(self, data: Data, config: dict[str, Any]) -> None:
        places = pick(data, f"blocks.{self.role or '*'}.position")
        position = next((place for place in places if place["name"] == "rope"), None)
        if position is None:
            if self.layer_type is not None:
                usual = {"rope_type": "default", "rope_theta": self.theta}
                config.setdefault("rope_parameters", {})[self.layer_type] = usual
            return
        parameters: dict[str, Any] = {"rope_type": "default", "rope_theta": position["theta"]}
        if position["fraction"] != 1.0 or self.fraction != 1.0:
            parameters["partial_rotary_factor"] = position["fraction"]
        scaling = position["scaling"]
        if scaling is not None and scaling["name"] in SCALINGS:
            known = SCALINGS[scaling["name"]]
            parameters["rope_type"] = scaling["name"]
            parameters |= {key: scaling[ours] for key, ours in known.items() if scaling[ours] is not None}
            if "mscale" in parameters:
                del parameters["attention_factor"]  # it follows
            if self.own_original:
                config[ORIGINAL] = scaling.get("original_context_length")
        if self.layer_type is None:
            config["rope_parameters"] = parameters
        else:
            config.setdefault("rope_parameters", {})[self.layer_type] = parameters
