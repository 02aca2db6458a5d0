"""Muon: a matrix moves by its momentum made orthogonal, all singular values near one.  Jordan et al. 2024,
https://kellerjordan.github.io/posts/muon; weight decay and the scale of steps: Liu et al. 2025, arXiv:2502.16982.

b ← μb + (1-μ)g,  o = NewtonSchulz((1-μ)g + μb),  w ← w · (1 - lr · weight_decay) - lr · s · o, s by the matrix's shape.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lamina.core import (
    ComponentConfig,
    JointOptimizer,
    LaminaError,
    Optimizer,
    Part,
    Register,
    hidden_matrices,
    hookimpl,
    slot,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

Names = Annotated[str, Field(min_length=1)]


class MuonConfig(ComponentConfig):
    momentum: float = Field(0.95, ge=0, lt=1, description="Share of the past in the running mean of the gradient.")
    nesterov: bool = Field(True, description="Look ahead: mix the mean with the gradient once more.")
    ns_steps: int = Field(5, ge=1, lt=100, description="Newton-Schulz iterations towards an orthogonal matrix.")
    weight_decay: float = Field(0.1, ge=0, description="Pull of hidden matrices towards zero, times the learning rate.")
    scale: Literal["match_adamw", "original"] = Field(
        "match_adamw",
        description="match_adamw: steps as large as AdamW's, 0.2 · √(longer side), so one learning rate serves all; "
        "original: √(max(1, rows / columns)), which wants about ten times AdamW's rate.",
    )
    others: Part = slot("optimizer", "adamw", description="Takes embeddings, head, vectors and all that is no matrix.")
    others_learning_rate: float | None = Field(
        None,
        gt=0,
        description="Highest learning rate of the others. Default: the run's, which is that of the matrices.",
    )
    others_names: list[Names] = Field(
        [], description="Matrices that go to the others too, by name or pattern: 'layers.*.router.*'."
    )


class Muon(Optimizer):
    """torch's Muon for the hidden matrices (two axes, inside a layer), another optimizer for everything else.

    Each stored matrix is made orthogonal as a whole: a fused projection, such as queries, keys and values in one, is
    one matrix here and not three.
    """

    Config = MuonConfig
    paper = "Jordan et al. 2024; Liu et al. 2025, arXiv:2502.16982"

    def __init__(self, config: MuonConfig, others: Optimizer) -> None:
        self.config, self.others = config, others

    def make(self, parameters: Iterable[tuple[str, nn.Parameter]], learning_rate: float) -> torch.optim.Optimizer:
        import torch  # here, so that the plugin lists without it

        if not hasattr(torch.optim, "Muon"):
            raise LaminaError(
                f"optimizer 'muon' needs torch 2.9; this is {torch.__version__}", hint="pip install -U torch"
            )
        config, named = self.config, list(parameters)
        chosen = {name for name, _ in hidden_matrices(named)[0]}
        for pattern in config.others_names:
            matched = {name for name, _ in named if fnmatchcase(name, pattern)}
            if not matched:
                example = next(iter(sorted(chosen)), "layers.0.ffn.up.weight")
                raise LaminaError(
                    f"optimizer 'muon': no parameter's name matches '{pattern}'", hint=f"a name is such as {example}"
                )
            chosen -= matched
        made: list[torch.optim.Optimizer] = []
        if chosen:
            made.append(
                torch.optim.Muon(
                    [parameter for name, parameter in named if name in chosen],
                    lr=learning_rate, weight_decay=config.weight_decay, momentum=config.momentum,
                    nesterov=config.nesterov, ns_steps=config.ns_steps,
                    adjust_lr_fn="match_rms_adamw" if config.scale == "match_adamw" else "original",
                )
            )  # fmt: skip
        if rest := [(name, parameter) for name, parameter in named if name not in chosen]:
            rate = config.others_learning_rate or learning_rate
            made.append(self.others.make(rest, rate))
            if rate != learning_rate:
                for group in made[-1].param_groups:
                    group.setdefault("base_lr", rate)
        return JointOptimizer(made)


@hookimpl
def register_components(register: Register) -> None:
    register("muon", Muon)
