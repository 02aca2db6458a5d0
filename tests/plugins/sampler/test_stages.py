"""What every stage owes the chain, whichever it is."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lamina.core import History, Sampler
from lamina.plugins.sampler.dry import DRY, DRYConfig
from lamina.plugins.sampler.epsilon import Epsilon, EpsilonConfig
from lamina.plugins.sampler.eta import Eta, EtaConfig
from lamina.plugins.sampler.frequency_penalty import FrequencyPenalty, FrequencyPenaltyConfig
from lamina.plugins.sampler.greedy import GreedySampler
from lamina.plugins.sampler.min_p import MinP, MinPConfig
from lamina.plugins.sampler.mirostat import Mirostat, MirostatConfig
from lamina.plugins.sampler.no_repeat_ngram import NoRepeatNgram, NoRepeatNgramConfig
from lamina.plugins.sampler.presence_penalty import PresencePenalty, PresencePenaltyConfig
from lamina.plugins.sampler.repetition_penalty import RepetitionPenalty, RepetitionPenaltyConfig
from lamina.plugins.sampler.temperature import Temperature, TemperatureConfig
from lamina.plugins.sampler.top_k import TopK, TopKConfig
from lamina.plugins.sampler.top_n_sigma import TopNSigma, TopNSigmaConfig
from lamina.plugins.sampler.top_p import TopP, TopPConfig
from lamina.plugins.sampler.typical import Typical, TypicalConfig
from lamina.plugins.sampler.xtc import XTC, XTCConfig

shares = st.floats(0, 1, exclude_min=True)
stages = st.one_of(
    st.builds(GreedySampler),
    st.builds(lambda value: Temperature(TemperatureConfig(value=value)), st.floats(1e-6, 1e6)),
    st.builds(lambda k: TopK(TopKConfig(k=k)), st.integers(1, 20)),
    st.builds(lambda p: TopP(TopPConfig(p=p)), shares),
    st.builds(lambda p: MinP(MinPConfig(p=p)), shares),
    st.builds(lambda value: RepetitionPenalty(RepetitionPenaltyConfig(value=value)), st.floats(0.01, 100)),
    st.builds(lambda p: Typical(TypicalConfig(p=p)), shares),
    st.builds(lambda epsilon: Epsilon(EpsilonConfig(epsilon=epsilon)), st.floats(1e-6, 0.999)),
    st.builds(lambda epsilon: Eta(EtaConfig(epsilon=epsilon)), st.floats(1e-6, 0.999)),
    st.builds(lambda n: TopNSigma(TopNSigmaConfig(n=n)), st.floats(0.01, 10)),
    st.builds(lambda tau: Mirostat(MirostatConfig(tau=tau)), st.floats(0.01, 100)),
    st.builds(lambda n: NoRepeatNgram(NoRepeatNgramConfig(n=n)), st.integers(1, 4)),
    st.builds(lambda value: PresencePenalty(PresencePenaltyConfig(value=value)), st.floats(-100, 100)),
    st.builds(lambda value: FrequencyPenalty(FrequencyPenaltyConfig(value=value)), st.floats(-100, 100)),
    st.builds(
        lambda base, length: DRY(DRYConfig(base=base, allowed_length=length, sequence_breakers=[]), None, 12),
        st.floats(1, 100),
        st.integers(1, 3),
    ),
    st.builds(
        lambda t, p: XTC(XTCConfig(threshold=t, probability=p), [torch.Generator().manual_seed(0) for _ in range(3)]),
        st.floats(0, 1),
        st.floats(0, 1),
    ),
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
    return History(torch.arange(batch * 4).view(batch, 4) % 3 % width, torch.full((batch,), 3), 2)


@given(logits=rows(), chain=st.lists(stages, min_size=1, max_size=4))
@settings(max_examples=120, deadline=None)
def test_any_chain_leaves_a_distribution_and_brings_no_token_back(logits: Tensor, chain: list[Sampler]) -> None:
    before = logits.clone()
    out = logits
    for stage in map(copy.deepcopy, chain):
        stage.reorder(torch.arange(len(logits)))
        previous, out = out, stage.forward(out, history_of(logits))
        assert out.shape == logits.shape
        assert out.dtype == torch.float32
        assert not (out > -torch.inf)[previous == -torch.inf].any()
    probabilities = out.softmax(-1)
    assert torch.allclose(probabilities.sum(-1), torch.ones(len(logits)))
    assert (probabilities >= 0).all()
    assert torch.equal(logits, before)  # a stage changes what it returns, not what it was given


@given(logits=rows(), stage=stages)
@settings(max_examples=100, deadline=None)
def test_a_row_does_not_depend_on_its_neighbours(logits: Tensor, stage: Sampler) -> None:
    history = history_of(logits)
    stage.reorder(torch.arange(len(logits)))
    before = copy.deepcopy(stage)
    together = stage.forward(logits, history)
    for row in range(len(logits)):
        one = copy.deepcopy(before)
        one.reorder(torch.tensor([row]))
        alone = History(history.token_ids[row : row + 1], history.lengths[row : row + 1], history.n_generated)
        assert torch.equal(one.forward(logits[row : row + 1], alone)[0], together[row])


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
