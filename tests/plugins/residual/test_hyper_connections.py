"""Hyper-connections against a loop written from the paper, and the plain residual they start as."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_specs import REGISTRY, build_moved, tokens
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from lamina.core import ConfigProblem, SpecError
from lamina.core.build import build
from lamina.core.resolve import resolve_data
from lamina.plugins.norm.rms import RMSNorm, RMSNormConfig
from lamina.plugins.residual.hyper_connections import HyperConnections, HyperConnectionsConfig

DIM = 6


def hyper(n_streams: int = 3, layer: int = 1, moved: bool = True, norm: Any = None, **options: Any) -> HyperConnections:
    residual = HyperConnections(HyperConnectionsConfig(n_streams=n_streams, **options), DIM, layer, norm)
    for parameter in residual.parameters() if moved else ():
        nn.init.normal_(parameter, std=0.5)
    return residual


def by_loop(residual: HyperConnections, streams: Tensor, sublayer: Any) -> Tensor:
    """One token's streams (n, D), scalar by scalar."""
    n = streams.shape[0]
    alpha, beta = residual.alpha.view(n, 1 + n).clone(), residual.beta.clone()
    if residual.dynamic:
        bound = torch.tanh if residual.bounded else lambda value: value
        for i in range(n):
            normed = residual.norm(streams[i]) if residual.norm is not None else F.layer_norm(streams[i], (DIM,))
            beta[i] = beta[i] + residual.beta_scale * bound(normed @ residual.weight[:, n + 1])
            for j in range(n + 1):
                alpha[i, j] = alpha[i, j] + residual.alpha_scale * bound(normed @ residual.weight[:, j])
    read = sum(alpha[i, 0] * streams[i] for i in range(n))
    out = sublayer(read)
    rows = [sum(alpha[i, j + 1] * streams[i] for i in range(n)) + beta[j] * out for j in range(n)]
    return torch.stack(rows)


@pytest.mark.parametrize("n_streams", [1, 2, 4])
@pytest.mark.parametrize("options", [{}, {"dynamic": False}, {"bounded": False}, {"norm": "rms"}], ids=str)
@torch.no_grad()
def test_hyper_connections_follow_the_paper(n_streams: int, options: dict[str, Any]) -> None:
    norm = RMSNorm(RMSNormConfig(), DIM) if "norm" in options else None
    rest = {key: value for key, value in options.items() if key != "norm"}
    residual, stream = hyper(n_streams, norm=norm, **rest), torch.randn(2, 3, n_streams, DIM)
    expected = [[by_loop(residual, stream[b, t], torch.sin) for t in range(3)] for b in range(2)]
    assert_close(residual(stream, torch.sin), torch.stack([torch.stack(row) for row in expected]))


@pytest.mark.parametrize("n_streams", [1, 3])
@pytest.mark.parametrize("dynamic", [True, False])
def test_new_ones_are_a_plain_residual_in_every_stream(n_streams: int, dynamic: bool) -> None:
    x = torch.randn(2, 4, DIM)
    stream, expected = hyper(n_streams, moved=False, dynamic=dynamic).widen(x), x
    for layer in range(4):
        residual = hyper(n_streams, layer, moved=False, dynamic=dynamic)
        stream, expected = residual(stream, torch.sin), expected + torch.sin(expected)
    assert_close(stream, expected.unsqueeze(2).expand(-1, -1, n_streams, -1))
    assert_close(residual.narrow(stream), n_streams * expected)


def test_each_layer_reads_another_stream_at_first() -> None:
    stream = torch.randn(1, 1, 3, DIM)
    for layer in range(7):
        seen: list[Tensor] = []
        hyper(3, layer, moved=False)(stream, lambda x, seen=seen: seen.append(x) or x)
        assert_close(seen[0][0, 0], stream[0, 0, layer % 3])


@pytest.mark.parametrize("dynamic", [True, False])
def test_gradients_are_right(dynamic: bool) -> None:
    residual = hyper(2, dynamic=dynamic).double()
    names, parameters = zip(*residual.named_parameters(), strict=True)
    call, x = torch.func.functional_call, torch.randn(1, 2, 2, DIM, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, *given: Tensor) -> Tensor:
        out: Tensor = call(residual, dict(zip(names, given, strict=True)), (x, torch.sin))
        return out

    assert torch.autograd.gradcheck(run, (x, *parameters), fast_mode=True)


def spec(chosen: Any, **more: Any) -> dict[str, Any]:
    block = {"attention": {"name": "gqa", "n_heads": 2}, "ffn": "mlp", "residual": chosen}
    return {
        "lamina": 1,
        "vocab_size": 23,
        "dim": 16,
        "context_length": 8,
        "norm": "rms",
        "blocks": {"a": block, "b": {"extends": "a", **more}},
        "layers": {"pattern": ["a", "b"], "n_layers": 3},
        "init": {"std": 0.25},
    }


@pytest.mark.parametrize("placement", ["pre", "post", "parallel"])
@torch.no_grad()
def test_a_decoder_runs_on_several_streams_with_a_cache_too(placement: str) -> None:
    decoder = build_moved(resolve_data(spec("hyper_connections", placement=placement), REGISTRY))
    ids = tokens(2, 6)
    cache = decoder.make_cache(2, 6)
    calls = [decoder(piece, cache=cache) for piece in ids.split([3, 1, 2], 1)]
    assert_close(torch.cat(calls, 1), decoder(ids), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_new_decoder_with_one_stream_is_one_with_plain_residuals() -> None:
    one = build(resolve_data(spec({"name": "hyper_connections", "n_streams": 1}), REGISTRY))
    plain = build(resolve_data(spec("plain"), REGISTRY))
    assert_close(one(tokens(2, 6)), plain(tokens(2, 6)))


def test_blocks_whose_streams_differ_are_refused() -> None:
    for other in ("plain", {"name": "hyper_connections", "n_streams": 2}):
        with pytest.raises(SpecError, match="keeps a stream of another form than 'hyper_connections'"):
            resolve_data(spec("hyper_connections", residual=other), REGISTRY)
        with pytest.raises(SpecError, match="keeps a stream of another form than 'hyper_connections'"):
            resolve_data(spec("hyper_connections", ffn_residual=other), REGISTRY)


def test_options_of_the_dynamic_form_are_refused_in_the_static_one() -> None:
    with pytest.raises(ConfigProblem, match="bounded is about dynamic mixtures"):
        HyperConnectionsConfig(dynamic=False, bounded=False).derive()
    with pytest.raises(SpecError, match="norm is about dynamic mixtures"):
        resolve_data(spec({"name": "hyper_connections", "dynamic": False, "norm": "rms"}), REGISTRY)


def test_half_precision_stays_half() -> None:
    stream = torch.randn(1, 2, 3, DIM, dtype=torch.bfloat16)
    assert hyper()(stream, torch.sin).dtype == torch.bfloat16
