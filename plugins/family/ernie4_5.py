"""ERNIE 4.5, dense: Llama with neighbouring channels turned together, and biases everywhere or nowhere.  Baidu 2025."""

from __future__ import annotations

from lamina.core import LLAMA_KEYS, Key, LlamaLike, Register, Rope, defaults, hookimpl, without


class Ernie45(LlamaLike):
    """ERNIE-4.5-0.3B."""

    paper = "Baidu ERNIE Team 2025, ERNIE 4.5 Technical Report"
    model_types = ("ernie4_5",)
    architecture = "Ernie4_5ForCausalLM"
    keys = (
        *defaults(
            without(LLAMA_KEYS, "rope_parameters"),
            num_key_value_heads=2,
            head_dim=128,
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
        ),
        Key("use_bias", "blocks.*.attention.bias", "blocks.*.ffn.bias", default=False),
        Rope(theta=500_000.0, layout="interleaved"),
    )


@hookimpl
def register_components(register: Register) -> None:
    register("ernie4_5", Ernie45)
