"""Falcon Mamba: Mamba whose steps, inputs and outputs are normed.  Zuo et al. 2024, arXiv:2410.05355."""

from __future__ import annotations

from lamina.core import (
    MAMBA_KEYS,
    Key,
    MambaLike,
    Register,
    defaults,
    hookimpl,
    llama_template,
    unless_auto,
)


class FalconMamba(MambaLike):
    """Falcon Mamba 7B."""

    paper = "Zuo et al. 2024, arXiv:2410.05355"
    model_types = ("falcon_mamba",)
    architecture = "FalconMambaForCausalLM"
    template = llama_template(
        {"attention": {"name": "mamba", "gate": "silu", "norm": {"name": "rms", "affine": False}}, "ffn": None}
    )
    keys = (
        *defaults(MAMBA_KEYS, max_position_embeddings=8192),
        Key("time_step_rank", "blocks.*.attention.dt_rank", to=unless_auto),
        Key("mixer_rms_eps", "blocks.*.attention.norm.eps", default=1e-6),
    )
    ignored_keys = (*MambaLike.ignored_keys, "use_falcon_mambapy")


@hookimpl
def register_components(register: Register) -> None:
    register("falcon_mamba", FalconMamba)
