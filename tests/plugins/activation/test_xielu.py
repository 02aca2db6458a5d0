"""XIELU against transformers' own, its formula, and finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from lamina.core import ConfigProblem
from lamina.plugins.activation.xielu import XIELU, XIELUConfig


@pytest.mark.filterwarnings("ignore")  # transformers tells that it found no kernel
def test_xielu_equals_transformers() -> None:
    theirs = pytest.importorskip("transformers.activations").XIELUActivation(dtype=torch.float32)
    ours, x = XIELU(XIELUConfig()), torch.linspace(-4, 4, 33)
    assert_close(ours(x), theirs(x))
    state = {"alpha_p": torch.tensor([0.3]), "alpha_n": torch.tensor([-0.7])}
    ours.load_state_dict(state)
    theirs.load_state_dict(state, strict=False)
    assert_close(ours(x), theirs(x))


def test_a_new_xielu_follows_its_formula_at_the_given_start() -> None:
    config = XIELUConfig(positive=0.6, negative=1.1, beta=0.25)
    x = torch.linspace(-4, 4, 32, dtype=torch.float64)
    expected = [0.25 * z + (0.6 * z * z if z > 0 else 1.1 * (math.expm1(z) - z)) for z in x.tolist()]
    assert_close(XIELU(config).double()(x), torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=1e-6)


def test_gradients_are_right() -> None:
    xielu = XIELU(XIELUConfig()).double()
    x = torch.tensor([-3.0, -0.5, 0.4, 2.0], dtype=torch.float64, requires_grad=True)
    names, parameters = zip(*xielu.named_parameters(), strict=True)
    call = torch.func.functional_call
    assert torch.autograd.gradcheck(
        lambda x, *given: call(xielu, dict(zip(names, given, strict=True)), x), (x, *parameters)
    )


def test_a_large_input_has_a_finite_gradient() -> None:
    x = torch.tensor([1000.0, -1000.0], requires_grad=True)
    XIELU(XIELUConfig())(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_a_depth_that_no_parameter_gives_is_refused() -> None:
    with pytest.raises(ConfigProblem, match=r"negative \(0.5\) must be above beta \(0.5\)"):
        XIELUConfig(negative=0.5).derive()


def test_half_precision_stays_half() -> None:
    assert XIELU(XIELUConfig())(torch.randn(4, dtype=torch.bfloat16)).dtype == torch.bfloat16
