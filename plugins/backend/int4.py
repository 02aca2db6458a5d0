"""Weights in 4 bits: w = s · q + m in groups of 32 along the input, q from 0 to 15.

s and m are those with the least squared error, fitted to the q of several trial ranges (as in HQQ, Badri & Shaji 2023,
without its prior). Activations keep their precision.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lamina.core import Backend, ComponentConfig, Decoder, LaminaError, Register, hookimpl, quantise_decoder


class Int4Config(ComponentConfig):
    head_bits: Literal[4, 8] = Field(8, description="Bits of the head's weights, which choose among all tokens.")


class Int4(Backend):
    """Generates from weights rounded to 4 bits; a token reads a third of the bytes of bfloat16."""

    Config = Int4Config
    paper = "Badri & Shaji 2023, Half-Quadratic Quantization"

    def __init__(self, config: Int4Config) -> None:
        self.config = config

    def prepare(self, decoder: Decoder, *, training: bool) -> Decoder:
        if training:
            raise LaminaError("rounded weights cannot be trained", hint="train with backend eager or compile")
        quantise_decoder(decoder, 4, self.config.head_bits)
        return decoder


@hookimpl
def register_components(register: Register) -> None:
    register("int4", Int4)
