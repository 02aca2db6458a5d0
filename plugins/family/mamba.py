"""Mamba: selective state-space mixers and nothing else.  Gu & Dao 2023, arXiv:2312.00752."""

from __future__ import annotations

from lamina.core import MAMBA_KEYS, Key, MambaLike, Register, hookimpl, unless_auto


class MambaFamily(MambaLike):
    """Mamba of every size."""

    paper = "Gu & Dao 2023, arXiv:2312.00752"
    model_types = ("mamba",)
    architecture = "MambaForCausalLM"
    keys = (*MAMBA_KEYS, Key("time_step_rank", "blocks.*.attention.dt_rank", to=unless_auto))


@hookimpl
def register_components(register: Register) -> None:
    register("mamba", MambaFamily)
