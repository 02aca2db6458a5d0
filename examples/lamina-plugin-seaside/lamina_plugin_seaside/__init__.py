"""Parts for lamina from three kinds: position `sandwich`, activation `snake`, sampler `tail_free`."""

from __future__ import annotations

from lamina.core import Register, hookimpl

api_version = 1


@hookimpl
def register_components(register: Register) -> None:
    from lamina_plugin_seaside.sandwich import Sandwich
    from lamina_plugin_seaside.snake import Snake
    from lamina_plugin_seaside.tail_free import TailFree

    register("sandwich", Sandwich)
    register("snake", Snake)
    register("tail_free", TailFree)
