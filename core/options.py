"""Options of a training run: apart from the model's spec, which may carry defaults for them under `train:`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from lamina.core.component import ComponentConfig, Part, slot
from lamina.core.errors import ConfigProblem


class TrainConfig(ComponentConfig):
    """How to train. Everything that changes the result is here."""

    steps: int = Field(1000, ge=1, description="Optimizer steps.")
    batch_size: int = Field(16, ge=1, le=1 << 20, description="Sequences in one step, over all its micro-batches.")
    accumulate: int = Field(1, ge=1, description="Micro-batches a step is split into; the loss does not depend on it.")
    context: int | None = Field(None, ge=1, description="Tokens in a sequence. Default: the spec's context_length.")
    learning_rate: float = Field(1e-3, gt=0, description="Highest learning rate.")
    optimizer: Part = slot("optimizer", "adamw", description="What turns gradients into steps.")
    schedule: Part = slot("schedule", "cosine", description="The learning rate over the run.")
    clip: float | None = Field(1.0, gt=0, description="Largest norm of the gradient; null for no clipping.")
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="Precision of the products; weights and optimizer state stay float32."
    )
    recompute: bool = Field(
        False,
        description="Keep of each layer its input alone and run the layer again in the backward pass: a third more "
        "work for much less memory, the same gradients.",
    )
    trainable: list[str] | None = Field(
        None,
        min_length=1,
        description="Patterns of parameters' names that are trained, such as '*.lora_*'; the rest stays. null: all.",
    )
    seed: int = Field(0, ge=0, lt=1 << 63, description="Seeds weights, data order and dropout.")
    val_fraction: float = Field(0.1, ge=0, lt=1, description="Share of the text kept for validation.")
    eval_every: int = Field(200, ge=0, description="Steps between evaluations; 0 for one at the end only.")
    eval_batches: int | None = Field(
        20, ge=1, description="Batches in one evaluation, evenly spread; null for the whole validation text."
    )
    save_every: int = Field(200, ge=0, description="Steps between checkpoints; 0 for one at the end only.")
    keep: int = Field(2, ge=1, description="Checkpoints kept.")
    log_every: int = Field(10, ge=1, description="Steps between lines in metrics.jsonl.")

    def derive(self, context_length: int) -> dict[str, Any]:
        if self.context is not None and self.context > context_length:
            raise ConfigProblem(
                "context", f"context ({self.context}) must not exceed context_length ({context_length})"
            )
        if self.accumulate > self.batch_size:
            raise ConfigProblem(
                "accumulate", f"accumulate ({self.accumulate}) must not exceed batch_size ({self.batch_size})"
            )
        return {} if self.context is not None else {"context": context_length}
