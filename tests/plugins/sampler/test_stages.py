"""What every stage owes the chain, whichever it is."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lamina.core import History, Sampler
from lamina.plugins.sampler.greedy import GreedySampler
from lamina.plugins.sampler.min_p import MinP, MinPConfig
from lamina.plugins.sampler.repetition_penalty import RepetitionPenalty, RepetitionPenaltyConfig
from lamina.plugins.sampler.temperature import Temperature, TemperatureConfig
from lamina.plugins.sampler.top_k import TopK, TopKConfig
from lamina.plugins.sampler.top_p import TopP, TopPConfig

shares = st.floats(0, 1, exclude_min=True)
stages = st.one_of(
    st.builds(GreedySampler),
    st.builds(lambda value: Temperature(TemperatureConfig(value=value)), st.floats(1e-6, 1e6)),
    st.builds(lambda k: TopK(TopKConfig(k=k)), st.integers(1, 20)),
    st.builds(lambda p: TopP(TopPConfig(p=p)), shares),
    st.builds(lambda p: MinP(MinPConfig(p=p)), shares),
    st.builds(lambda value: RepetitionPenalty(RepetitionPenaltyConfig(value=value)), st.floats(0.01, 100)),
)
number = st.one_of(st.floats(-1e4, 1e4, width=32), st.just(-torch.inf), st.integers(-2, 2).map(float))


@st.composite
def rows(draw: st.DrawFn) -> Tensor:
    """Logits (B, V), each row with at least one token left."""
    width = draw(st.integers(1, 12))
    row = st.lists(number, min_size=width, max_size=width).filter(lambda values: max(values) > -torch.inf)
    return torch.tensor(draw(st.lists(row, min_size=1, max_size=3)))


def history_of(logits: Tensor) -> History:
    batch, width = logits.shape
    return History(torch.arange(batch * 4).view(batch, 4) % width, torch.full((batch,), 3))


@given(logits=rows(), chain=st.lists(stages, min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
def test_any_chain_leaves_a_distribution_and_brings_no_token_back(logits: Tensor, chain: list[Sampler]) -> None:
    before = logits.clone()
    out = logits
    for stage in chain:
        previous, out = out, stage.forward(out, history_of(logits))
        assert out.shape == logits.shape
        assert out.dtype == torch.float32
        assert not (out > -torch.inf)[previous == -torch.inf].any()
    probabilities = out.softmax(-1)
    assert torch.allclose(probabilities.sum(-1), torch.ones(len(logits)))
    assert (probabilities >= 0).all()
    assert torch.equal(logits, before)  # a stage changes what it returns, not what it was given


@given(logits=rows(), stage=stages)
@settings(max_examples=200, deadline=None)
def test_a_row_does_not_depend_on_its_neighbours(logits: Tensor, stage: Sampler) -> None:
    history = history_of(logits)
    together = stage.forward(logits, history)
    for row in range(len(logits)):
        alone = History(history.token_ids[row : row + 1], history.lengths[row : row + 1])
        assert torch.equal(stage.forward(logits[row : row + 1], alone)[0], together[row])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Temperature(TemperatureConfig(value=4.0)), TopP(TopPConfig(p=0.6))),
        (TopK(TopKConfig(k=2)), TopP(TopPConfig(p=0.6))),
    ],
)
def test_the_order_of_stages_matters(first: Sampler, second: Sampler) -> None:
    logits = torch.tensor([[0.5, 0.25, 0.15, 0.1]]).log()
    history = history_of(logits)
    one = second.forward(first.forward(logits, history), history).softmax(-1)
    other = first.forward(second.forward(logits, history), history).softmax(-1)
    assert not torch.allclose(one, other)
