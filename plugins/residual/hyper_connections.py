"""Hyper-connections: n streams, of which a sublayer reads one mixture and to all of which it writes.

Zhu et al. 2024, arXiv:2409.19606. With H the (n, D) streams of a token,

    h = A_mᵀ H,    H' = A_rᵀ H + Bᵀ f(h)

for learned A_m (n, 1), A_r (n, n), B (1, n); in the dynamic form each gains s · tanh(norm(H) W), so that it depends on
the token. The streams are copies at first and are summed at the end. At the start each sublayer reads one stream, in
turn, and adds its output to all, which is a plain residual.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from lamina.core import ComponentConfig, ConfigProblem, Norm, Part, Parts, Register, Residual, hookimpl, slot


class HyperConnectionsConfig(ComponentConfig):
    n_streams: int = Field(4, gt=0, le=1024, description="Width of the stream in copies of dim.")
    dynamic: bool = Field(True, description="Whether the mixtures depend on the token.")
    norm: Part | None = slot(
        "norm",
        None,
        description="On each stream before the mixtures are read off it. null: LayerNorm without weights.",
    )
    bounded: bool = Field(True, description="Whether a tanh bounds what the token adds to the mixtures.")

    def derive(self) -> dict[str, object]:
        for field, given in (("bounded", not self.bounded), ("norm", self.norm is not None)):
            if given and not self.dynamic:
                raise ConfigProblem(
                    field, f"{field} is about dynamic mixtures, and these are not", f"leave {field} out"
                )
        return {}


class HyperConnections(Residual):
    """The decoder learns which streams each sublayer reads and writes, instead of one sum of all."""

    Config = HyperConnectionsConfig
    paper = "Zhu et al. 2024, arXiv:2409.19606"

    def __init__(self, config: HyperConnectionsConfig, dim: int, layer: int, norm: Norm | None = None) -> None:
        super().__init__()
        n = self.n_streams = config.n_streams
        self.dynamic, self.bounded = config.dynamic, config.bounded
        read = torch.arange(n).eq(layer % n).to(torch.get_default_dtype()).unsqueeze(1)
        # A_m and A_r, (n, 1 + n), laid out flat: no matrix for an optimizer to shrink or orthogonalise.
        self.alpha = nn.Parameter(torch.cat([read, torch.eye(n)], 1).flatten())
        self.beta = nn.Parameter(torch.ones(n))  # B
        self.norm = norm
        if config.dynamic:
            self.weight = nn.Parameter(torch.zeros(dim, n + 2))  # columns: A_m, A_r, B
            self.alpha_scale = nn.Parameter(torch.tensor(0.01))
            self.beta_scale = nn.Parameter(torch.tensor(0.01))

    @classmethod
    def parts(cls, config: HyperConnectionsConfig, dim: int) -> Parts:
        return {"norm": config.norm.at(size=dim) if config.norm is not None else None}

    @classmethod
    def stream(cls, config: HyperConnectionsConfig) -> Hashable:
        return ("streams", config.n_streams)

    def widen(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, n, D)"""
        return x.unsqueeze(-2).expand(*x.shape[:-1], self.n_streams, -1)

    def narrow(self, stream: Tensor) -> Tensor:
        """(B, T, n, D) -> (B, T, D)"""
        return stream.sum(-2)

    def forward(self, stream: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        alpha, beta = self.mixtures(stream)
        mixed = alpha.mT @ stream  # (B, T, 1 + n, D): what is read, then the streams
        out = sublayer(mixed[..., 0, :])
        return mixed[..., 1:, :] + beta.unsqueeze(-1) * out.unsqueeze(-2)

    def mixtures(self, stream: Tensor) -> tuple[Tensor, Tensor]:
        """(A_m, A_r) as (n, 1 + n) and B as (n,), for each token when they are dynamic."""
        dtype = stream.dtype
        alpha, beta = self.alpha.to(dtype).view(self.n_streams, -1), self.beta.to(dtype)
        if not self.dynamic:
            return alpha, beta
        read = F.layer_norm(stream, stream.shape[-1:]) if self.norm is None else self.norm(stream)
        found = read @ self.weight.to(dtype)  # (B, T, n, n + 2)
        if self.bounded:
            found = torch.tanh(found)
        alpha = alpha + self.alpha_scale.to(dtype) * found[..., :-1]
        return alpha, beta + self.beta_scale.to(dtype) * found[..., -1]


@hookimpl
def register_components(register: Register) -> None:
    register("hyper_connections", HyperConnections)
