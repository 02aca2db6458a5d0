"""A dry run names the part that does not fit, by its line, and spends no memory."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lamina.core import FFN, ComponentConfig, Context, GenerationError, Linear, Norm, Position, hookimpl
from lamina.core.dryrun import dry_run
from lamina.core.errors import SpecError
from lamina.core.registry import Registry, load_plugin, load_plugins
from lamina.core.resolve import resolve
from lamina.core.resolved import ResolvedSpec
from lamina.core.spec import load_spec

SPEC = """lamina: 1
vocab_size: 96
dim: 32
context_length: 16
position: {position}
norm: {norm}
block:
  attention: {{name: gqa, n_heads: 4, n_kv_heads: 2}}
  ffn: {ffn}
layers: 2
"""


class Misfit(FFN):
    """Its second projection expects another width than its first gives."""

    def __init__(self, config: ComponentConfig, dim: int) -> None:
        super().__init__()
        self.up, self.down = Linear(dim, 3 * dim), Linear(2 * dim, dim)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        out: Tensor = self.down(self.up(x))
        return out


class Halved(Norm):
    def __init__(self, config: ComponentConfig, size: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x[..., ::2]


class OneHeadShort(Position):
    def rotate(self, q: Tensor, k: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        return q[:, 1:], k


class Peeking(FFN):
    """Branches on a tensor's value, which the meta device does not have."""

    def forward(self, x: Tensor, context: Context) -> Tensor:
        return x if x.sum().item() > 0 else -x


class Refusing(FFN):
    def forward(self, x: Tensor, context: Context) -> Tensor:
        raise GenerationError("not on a Tuesday")


@pytest.fixture(scope="module")
def registry() -> Registry:
    class plugin:  # noqa: N801  (stands for a module)
        @staticmethod
        @hookimpl
        def register_components(register: Any) -> None:
            for component in (Misfit, Halved, OneHeadShort, Peeking, Refusing):
                register(component.__name__.lower(), component)

    made = load_plugin("mine", "mine", "mine", "1", lambda: plugin)
    assert made.error is None
    return Registry.of([*load_plugins().plugins, made])


def resolved(
    folder: Path, registry: Registry, *, position: str = "rope", norm: str = "rms", ffn: str = "gated"
) -> ResolvedSpec:
    file = folder / "s.yaml"
    file.write_text(SPEC.format(position=position, norm=norm, ffn=ffn))
    return resolve(load_spec(file, registry=registry))


def problem(spec: ResolvedSpec) -> SimpleNamespace:
    with pytest.raises(SpecError) as caught:
        dry_run(spec)
    found = caught.value.problems[0]
    assert found.location is not None
    return SimpleNamespace(message=found.message, line=found.location.line)


def test_a_spec_whose_parts_fit_runs_and_holds_no_memory(tmp_path: Path, registry: Registry) -> None:
    run = dry_run(resolved(tmp_path, registry))
    assert run.unchecked is None
    assert {parameter.device.type for parameter in run.decoder.parameters()} == {"meta"}
    assert run.parameters == sum(parameter.numel() for parameter in run.decoder.parameters())


def test_a_part_whose_matrices_do_not_fit_is_named_with_its_line(tmp_path: Path, registry: Registry) -> None:
    found = problem(resolved(tmp_path, registry, ffn="misfit"))
    assert found.line == 9
    assert "ffn 'misfit' fails" in found.message


def test_a_part_that_changes_the_shape_is_named_and_not_the_part_after_it(tmp_path: Path, registry: Registry) -> None:
    found = problem(resolved(tmp_path, registry, norm="halved"))
    assert found.line == 6
    assert "norm 'halved'" in found.message
    assert "returned the shape (2, 5, 16) where (2, 5, 32) is due" in found.message


def test_a_position_that_loses_a_head_is_named_and_not_the_attention(tmp_path: Path, registry: Registry) -> None:
    found = problem(resolved(tmp_path, registry, position="oneheadshort"))
    assert found.line == 5
    assert "position 'oneheadshort'" in found.message
    assert "(2, 3, 5, 8) where (2, 4, 5, 8)" in found.message


def test_a_part_inside_another_is_named_at_its_own_place(tmp_path: Path, registry: Registry) -> None:
    found = problem(resolved(tmp_path, registry, ffn="{name: moe, n_experts: 2,\n    expert: misfit}"))
    assert found.line == 10
    assert "ffn 'misfit'" in found.message


def test_what_a_part_refuses_is_told_with_its_line(tmp_path: Path, registry: Registry) -> None:
    found = problem(resolved(tmp_path, registry, ffn="refusing"))
    assert found.line == 9
    assert "not on a Tuesday" in found.message


def test_a_part_that_needs_values_leaves_the_spec_valid_and_says_so(tmp_path: Path, registry: Registry) -> None:
    run = dry_run(resolved(tmp_path, registry, ffn="peeking"))
    assert run.unchecked is not None
    assert "ffn 'peeking' cannot run on the meta device" in run.unchecked


def test_a_mistake_in_no_part_keeps_its_own_exception(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = resolved(tmp_path, registry)
    monkeypatch.setattr("lamina.core.decoder.Decoder.context", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        dry_run(spec)


def test_the_decoder_is_left_without_checks(tmp_path: Path, registry: Registry) -> None:
    decoder = dry_run(resolved(tmp_path, registry)).decoder
    assert not any(module._forward_hooks for module in decoder.modules())
    assert not any("rotate" in vars(module) for module in decoder.modules())
    assert decoder(torch.zeros(1, 4, dtype=torch.int64, device="meta")).shape == (1, 4, 96)
