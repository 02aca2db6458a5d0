"""What the parity tests share: a transformers model with every parameter moved, a lamina decoder that must agree."""

from __future__ import annotations

from typing import Any

import torch
from tiny_specs import REGISTRY
from torch import Tensor
from torch.testing import assert_close

from lamina.core.build import build
from lamina.core.model import Model
from lamina.core.resolve import resolve_data

Weights = dict[str, Tensor]


def moved(theirs: Any) -> tuple[Any, Weights]:
    """The model in evaluation with no parameter at its initial value, and its weights by name."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return theirs.eval(), {name: tensor.detach() for name, tensor in theirs.named_parameters()}


def model_with(spec: dict[str, Any], weights: Weights) -> Model:
    """The decoder of `spec` holding exactly these weights."""
    resolved = resolve_data({"lamina": 1, **spec}, REGISTRY)
    decoder = build(resolved, initialise=False).eval()
    tensors = decoder.tensors()
    assert tensors.keys() == weights.keys()
    with torch.no_grad():
        for name, tensor in tensors.items():
            assert tensor.shape == weights[name].shape, name
            tensor.copy_(weights[name])
    return Model(decoder, None, resolved)


@torch.no_grad()
def check(theirs: Any, model: Model, length: int) -> None:
    """Logits of a whole text and of cached calls, and greedy text token for token."""
    token_ids = torch.randint(model.spec.vocab_size, (2, length), generator=torch.Generator().manual_seed(1))
    expected = theirs(token_ids).logits
    assert expected.std() > 0.1, "the comparison would say nothing"
    assert_close(model.decoder(token_ids), expected, atol=1e-4, rtol=1e-4)
    cache = model.decoder.make_cache(2, length)
    half = length // 2
    calls = [token_ids[:, :half], *token_ids[:, half:].split(1, 1)]
    assert_close(torch.cat([model.decoder(ids, cache=cache) for ids in calls], 1), expected, atol=1e-4, rtol=1e-4)

    prompt = token_ids[:, :4]
    theirs.generation_config.eos_token_id = None  # random weights would end the text somewhere
    everything = torch.ones_like(prompt)  # else it takes the pad id for padding
    text = theirs.generate(
        prompt, attention_mask=everything, max_new_tokens=length - 4, do_sample=False, pad_token_id=0
    )
    ours = model.generate(prompt, max_new_tokens=length - 4, sampler="greedy", stop_ids=())
    assert ours.token_ids.equal(text[:, 4:])
    assert ours.token_ids.unique().numel() > 2
