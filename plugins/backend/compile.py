"""Execution through torch.compile: each layer becomes one compiled function, so alike layers are compiled once."""

from typing import Literal

from pydantic import Field

from lamina.core import Backend, ComponentConfig, Decoder, Register, hookimpl


class CompileConfig(ComponentConfig):
    dynamic: bool | None = Field(
        None, description="Compile for any shape (true), one shape (false), or as torch sees fit."
    )
    mode: Literal["default", "reduce-overhead", "max-autotune-no-cudagraphs"] = Field(
        "default", description="torch.compile's mode."
    )


class Compile(Backend):
    """Compiles every layer with inductor; needs a C++ compiler on the CPU."""

    Config = CompileConfig
    paper = "Ansel et al. 2024, PyTorch 2 (ASPLOS)"

    def __init__(self, config: CompileConfig) -> None:
        self.config = config

    def prepare(self, decoder: Decoder, *, training: bool) -> Decoder:
        for layer in decoder.layers:
            layer.compile(dynamic=self.config.dynamic, mode=self.config.mode)
        return decoder


@hookimpl
def register_components(register: Register) -> None:
    register("compile", Compile)
