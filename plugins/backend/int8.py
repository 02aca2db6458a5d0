"""Weights in 8 bits: w = s · q in groups of 32 along the input, q = round(w / s), s = max |w| / 127.

As in llm.int8 (Dettmers et al. 2022, arXiv:2208.07339) the weights are rounded for good. Activations keep their
precision here, so that what is lost is the weights' rounding and nothing else.
"""

from __future__ import annotations

from lamina.core import Backend, ComponentConfig, Decoder, LaminaError, Register, hookimpl, quantise_decoder


class Int8(Backend):
    """Generates from weights rounded to 8 bits; a token reads half the bytes of bfloat16."""

    paper = "Dettmers et al. 2022, arXiv:2208.07339"

    def __init__(self, config: ComponentConfig) -> None:
        self.config = config

    def prepare(self, decoder: Decoder, *, training: bool) -> Decoder:
        if training:
            raise LaminaError("rounded weights cannot be trained", hint="train with backend eager or compile")
        quantise_decoder(decoder, 8, 8)
        return decoder


@hookimpl
def register_components(register: Register) -> None:
    register("int8", Int8)
