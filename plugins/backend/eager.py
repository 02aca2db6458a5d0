"""Plain execution: one torch operator after the other."""

from lamina.core import Backend, ComponentConfig, Decoder, Register, hookimpl


class Eager(Backend):
    """Runs the decoder as it was built. The reference for every other backend."""

    def __init__(self, config: ComponentConfig) -> None:
        self.config = config

    def prepare(self, decoder: Decoder, *, training: bool) -> Decoder:
        return decoder


@hookimpl
def register_components(register: Register) -> None:
    register("eager", Eager)
