from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from lamina.core import FFN, Activation, BiasedTopKConfig, Context, Part, Router, Routing, Span
from lamina.plugins.ffn.gated import Gated, GatedConfig
from lamina.plugins.ffn.moe import MoE, MoEConfig
from lamina.plugins.router.sigmoid_bias import SigmoidBias
from lamina.plugins.router.softmax_top_k import SoftmaxTopK, SoftmaxTopKConfig

D, F, E, K = 8, 12, 5, 2


class Tanh(Activation):
    def forward(self, x: Tensor) -> Tensor:
        return x.tanh()


def make_context() -> Context:
    return Context(torch.zeros(1, 1, dtype=torch.int64), Span.run(0, 1, torch.device("cpu")))


def make_moe(
    *,
    router: Router | None = None,
    n_experts: int = E,
    shared: bool = False,
    activation: Activation | None = None,
    **options: object,
) -> MoE:
    def ffn(hidden_dim: int) -> Gated:
        return Gated(GatedConfig(hidden_dim=hidden_dim), D, activation or Tanh())

    config = MoEConfig(n_experts=n_experts, **options)
    router = router or SoftmaxTopK(SoftmaxTopKConfig(experts_per_token=K), D, config.n_choices)
    moe = MoE(config, D, [ffn(F) for _ in range(n_experts)], router, ffn(2 * F) if shared else None)
    for parameter in moe.parameters():
        nn.init.normal_(parameter, std=0.5)
    return moe


def one_token_at_a_time(moe: MoE, x: Tensor) -> Tensor:
    """The formula, in plain loops."""
    routing = moe.router(x.reshape(-1, D), make_context())
    rows = []
    for row, weights, indices in zip(x.reshape(-1, D), routing.weights, routing.indices, strict=True):
        out = sum(w * moe.experts[int(i)](row, make_context()) for w, i in zip(weights, indices, strict=True))
        rows.append(out if moe.shared is None else out + moe.shared(row, make_context()))
    return torch.stack(rows).view_as(x)


@given(n=st.integers(1, 12), shared=st.booleans(), training=st.booleans(), seed=st.integers(0, 999))
@settings(max_examples=25, deadline=None)
def test_moe_equals_a_loop_over_tokens_and_so_do_its_gradients(n: int, shared: bool, training: bool, seed: int) -> None:
    torch.manual_seed(seed)
    moe = make_moe(shared=shared).train(training)
    x = torch.randn(2, n, D, requires_grad=True)
    seen, expected = moe(x, make_context()), one_token_at_a_time(moe, x)
    assert_close(seen, expected)
    upstream = torch.randn_like(x)
    inputs = [x, *moe.parameters()]
    for a, b in zip(
        torch.autograd.grad(seen, inputs, upstream, materialize_grads=True),
        torch.autograd.grad(expected, inputs, upstream, materialize_grads=True),
        strict=True,
    ):
        assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_a_single_token_takes_the_same_value_as_in_a_batch() -> None:
    moe, x = make_moe(shared=True).eval(), torch.randn(1, 9, D)
    whole = moe(x, make_context())
    for t in range(9):
        assert_close(moe(x[:, t : t + 1], make_context()), whole[:, t : t + 1])


def test_rows_do_not_depend_on_other_rows() -> None:
    moe, x = make_moe().eval(), torch.randn(3, 4, D)
    changed = x.clone()
    changed[1:] = torch.randn(2, 4, D)
    assert_close(moe(changed, make_context())[0], moe(x, make_context())[0])
    order = torch.randperm(12)
    flat = x.view(12, D)
    assert_close(moe(flat[order], make_context()), moe(flat, make_context())[order])


class Counting(FFN):
    """Notes how many rows it was given."""

    def __init__(self, inner: FFN) -> None:
        super().__init__()
        self.inner, self.rows = inner, []

    def forward(self, x: Tensor, context: Context) -> Tensor:
        self.rows.append(x.shape[0])
        return self.inner(x, context)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_each_chosen_expert_runs_once_on_its_rows_and_no_other_runs(n: int) -> None:
    moe = make_moe(n_experts=16).eval()
    moe.experts = nn.ModuleList(Counting(expert) for expert in moe.experts)
    x = torch.randn(n, D)
    moe(x, make_context())
    load = moe.router(x, make_context()).load().tolist()
    assert [expert.rows for expert in moe.experts] == [[count] if count else [] for count in load]


def test_in_training_an_idle_expert_has_a_zero_gradient_and_not_none() -> None:
    moe = make_moe(n_experts=16).train()
    x = torch.randn(1, D)
    moe(x, make_context()).sum().backward()
    idle = moe.router(x, make_context()).load() == 0
    assert idle.any()
    for expert, is_idle in zip(moe.experts, idle, strict=True):
        assert bool((expert.down.weight.grad == 0).all()) == bool(is_idle)


class Losing(Router):
    """Sends all to expert 0 and 1 and always reports a loss."""

    experts_per_token = 2

    def forward(self, x: Tensor, context: Context) -> Routing:
        indices = torch.tensor([[0, 1]]).expand(len(x), 2)
        return Routing(torch.zeros(len(x), E), torch.zeros(len(x), E), torch.ones(len(x), 2), indices, {"z": x.sum()})


def test_router_losses_reach_the_context_in_training_only_and_add_up_over_layers() -> None:
    moe, x, context = make_moe(router=Losing()), torch.randn(3, D), make_context()
    moe.eval()(x, context)
    assert context.losses == {}
    moe.train()(x, context)
    moe(x, context)
    assert_close(context.losses["z"], 2 * x.sum())


@pytest.mark.parametrize("make_router", [
    lambda: SoftmaxTopK(SoftmaxTopKConfig(balance_loss=0.01, z_loss=0.01), D, E),
    lambda: SigmoidBias(BiasedTopKConfig(), D, E),
], ids=["softmax_top_k", "sigmoid_bias"])  # fmt: skip
def test_on_the_meta_device_shapes_and_flops_are_those_of_a_real_run(make_router: Callable[[], Router]) -> None:
    moe = make_moe(router=make_router(), shared=True)
    meta = make_moe(router=make_router(), shared=True).to("meta")
    counted = []
    for module, x in [(moe, torch.randn(2, 3, D)), (meta, torch.empty(2, 3, D, device="meta"))]:
        with FlopCounterMode(display=False) as counter:
            out = module(x, make_context())
            out.sum().backward()
        assert out.shape == x.shape
        counted.append(counter.get_total_flops())
    assert counted[0] == counted[1]


@pytest.mark.parametrize("n", [1, 6])
@pytest.mark.parametrize("training", [False, True])
def test_bfloat16_in_bfloat16_out_close_to_float32(n: int, training: bool) -> None:
    torch.manual_seed(0)
    moe = make_moe(shared=True).train(training)
    x = torch.randn(n, D).bfloat16()
    moe.bfloat16()
    low = moe(x, make_context())
    assert low.dtype == torch.bfloat16
    low.float().sum().backward()
    moe.float()
    assert_close(low.float(), moe(x.float(), make_context()), atol=0.25, rtol=0.05)


@pytest.mark.parametrize("n", [1, 6])
@pytest.mark.parametrize("training", [False, True])
def test_autocast_keeps_the_dtype_of_x_and_the_choice_of_experts(n: int, training: bool) -> None:
    torch.manual_seed(0)
    moe, x = make_moe(shared=True).train(training), torch.randn(n, D)
    exact = moe(x, make_context())
    with torch.autocast("cpu", torch.bfloat16):
        low = moe(x, make_context())
    low.sum().backward()
    assert low.dtype == torch.float32
    assert_close(low, exact, atol=0.25, rtol=0.05)


def test_active_parameters_are_the_router_the_shared_and_k_experts() -> None:
    expert = 3 * D * F
    assert make_moe().active_parameters() == D * E + K * expert
    assert make_moe(shared=True).active_parameters() == D * E + K * expert + 2 * expert


def test_moe_builds_alike_experts_and_tells_the_router_how_many() -> None:
    expert = Part("ffn", "gated", Gated, GatedConfig(hidden_dim=F))
    router = Part("router", "softmax_top_k", SoftmaxTopK, SoftmaxTopKConfig())
    parts = MoE.parts(MoEConfig(n_experts=3, expert=expert, router=router))
    assert parts == {"experts": [expert.at()] * 3, "router": router.at(n_experts=3), "shared": None}
    assert MoE.parts(MoEConfig(n_experts=3, expert=expert, router=router, shared=expert))["shared"] == expert.at()


@pytest.mark.parametrize("n", [1, 10])
def test_moe_matches_mixtral_of_transformers(n: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import MixtralConfig
        from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock
    config = MixtralConfig(hidden_size=D, intermediate_size=F, num_local_experts=E, num_experts_per_tok=K)
    config._experts_implementation = "eager"
    block = MixtralSparseMoeBlock(config).eval()

    class SiLU(Activation):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.silu(x)

    moe = make_moe(activation=SiLU()).eval()
    with torch.no_grad():
        block.gate.weight.copy_(moe.router.linear.weight)
        for i, expert in enumerate(moe.experts):
            block.experts.gate_up_proj[i] = expert.gate_up.weight
            block.experts.down_proj[i] = expert.down.weight
    x = torch.randn(1, n, D)
    assert_close(moe(x, make_context()), block(x))
