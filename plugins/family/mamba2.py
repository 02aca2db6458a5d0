"""Mamba-2: state-space mixers of heads with one decay each, and nothing else.  Dao & Gu 2024, arXiv:2405.21060."""

from __future__ import annotations

from collections.abc import Iterable

from lamina.core import (
    MAMBA_KEYS,
    Either,
    Key,
    MambaLike,
    Move,
    Part,
    Register,
    StepLimit,
    defaults,
    hookimpl,
    llama_template,
    mamba2_moves,
    without,
)


class Mamba2Family(MambaLike):
    """Mamba-2 of every size, Codestral Mamba. `time_step_limit` holds in cached steps too, where transformers lets it
    go."""

    paper = "Dao & Gu 2024, arXiv:2405.21060"
    model_types = ("mamba2",)
    architecture = "Mamba2ForCausalLM"
    template = llama_template(
        {
            "attention": {"name": "mamba2", "gate": "silu", "norm": {"name": "rms"}, "norm_before_gate": False},
            "ffn": None,
        }
    )
    keys = (
        *defaults(without(MAMBA_KEYS, "expand", "layer_norm_epsilon"), state_size=128, tie_word_embeddings=False),
        Key("layer_norm_epsilon", "norm.eps", "blocks.*.attention.norm.eps", default=1e-5),
        Key("num_heads", "blocks.*.attention.n_heads", default=128),
        Key("head_dim", "blocks.*.attention.head_dim", default=64),
        Key("expand", "blocks.*.attention.expand", default=2, back=float),
        Key("n_groups", "blocks.*.attention.n_groups", default=8),
        StepLimit(),
    )
    # Widths follow from heads; there is no latent of steps.
    ignored_keys = (*MambaLike.ignored_keys, "intermediate_size", "time_step_rank")

    def attention_moves(self, at: str, to: str, attention: Part) -> Iterable[Move | Either]:
        return mamba2_moves(f"{at}.mixer", to, attention.config)


@hookimpl
def register_components(register: Register) -> None:
    register("mamba2", Mamba2Family)
