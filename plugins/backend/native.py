"""Decoding by lamina's own kernels: the layers of a token are one call, reading each weight once from where it lies."""

from __future__ import annotations

from lamina.core import Backend, ComponentConfig, Decoder, Register, hookimpl, use_kernels


class Native(Backend):
    """Runs a few tokens at a time as programs of compiled kernels, and everything else as `eager` does.

    Needs a C++ compiler once; without one it is `eager`. Parts that cannot be said as a program run as they are.
    """

    def __init__(self, config: ComponentConfig) -> None:
        self.config = config

    def prepare(self, decoder: Decoder, *, training: bool) -> Decoder:
        if not training:
            use_kernels(decoder)
        return decoder


@hookimpl
def register_components(register: Register) -> None:
    register("native", Native)
