from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from importlib import import_module

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from lamina.core import (
    FFN,
    Activation,
    BiasedTopKConfig,
    ConfigProblem,
    Context,
    Part,
    Router,
    Routing,
    ScoredTopKConfig,
    Span,
)
from lamina.plugins.ffn.gated import Gated, GatedConfig
from lamina.plugins.ffn.moe import MoE, MoEConfig
from lamina.plugins.router.expert_choice import ExpertChoice, ExpertChoiceConfig
from lamina.plugins.router.sigmoid_bias import SigmoidBias
from lamina.plugins.router.softmax_bias import SoftmaxBias
from lamina.plugins.router.softmax_top_k import SoftmaxTopK

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
    router = router or SoftmaxTopK(ScoredTopKConfig(experts_per_token=K), D, config.n_choices)
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
    lambda: SoftmaxTopK(ScoredTopKConfig(balance_loss=0.01, z_loss=0.01), D, E),
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
    moe = make_moe(shared=True, shared_gate=True, expert_scale=True, identity_experts=1).train(training)
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
    router = Part("router", "softmax_top_k", SoftmaxTopK, ScoredTopKConfig())
    parts = MoE.parts(MoEConfig(n_experts=3, expert=expert, router=router))
    assert parts == {"experts": [expert.at()] * 3, "router": router.at(n_experts=3), "shared": None}
    assert MoE.parts(MoEConfig(n_experts=3, expert=expert, router=router, shared=expert))["shared"] == expert.at()


class SiLU(Activation):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.silu(x)


def reference(model: str, block: str, config: str, **options: object) -> nn.Module:
    """A block of transformers with weights drawn anew, and its experts run one after the other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = import_module(f"transformers.models.{model}.modeling_{model}")
        made = getattr(import_module("transformers"), config)(hidden_size=D, **options)
        made._experts_implementation = "eager"
        found: nn.Module = getattr(module, block)(made).eval()
    for tensor in (*found.parameters(), *found.buffers()):
        nn.init.normal_(tensor, std=0.5)
    return found


@torch.no_grad()
def take_experts(moe: MoE, gate_up: Tensor, down: Tensor) -> None:
    """(E, 2F, D) and (E, D, F)"""
    for i, expert in enumerate(moe.experts):
        expert.gate_up.weight.copy_(gate_up[i])
        expert.down.weight.copy_(down[i])


@torch.no_grad()
def take_shared(moe: MoE, other: nn.Module) -> None:
    moe.shared.gate_up.weight.copy_(torch.cat([other.gate_proj.weight, other.up_proj.weight]))
    moe.shared.down.weight.copy_(other.down_proj.weight)


both = pytest.mark.parametrize("n", [1, 10])


@both
def test_moe_matches_mixtral_of_transformers(n: int) -> None:
    sizes = {"intermediate_size": F, "num_local_experts": E, "num_experts_per_tok": K}
    block = reference("mixtral", "MixtralSparseMoeBlock", "MixtralConfig", **sizes)
    moe = make_moe(activation=SiLU()).eval()
    moe.router.linear.weight.data.copy_(block.gate.weight)
    take_experts(moe, block.experts.gate_up_proj, block.experts.down_proj)
    x = torch.randn(1, n, D)
    assert_close(moe(x, make_context()), block(x))


@both
def test_moe_with_a_gated_shared_expert_matches_qwen2_moe_of_transformers(n: int) -> None:
    sizes = {"moe_intermediate_size": F, "num_experts": E, "num_experts_per_tok": K, "norm_topk_prob": False}
    block = reference(
        "qwen2_moe", "Qwen2MoeSparseMoeBlock", "Qwen2MoeConfig", shared_expert_intermediate_size=2 * F, **sizes
    )
    router = SoftmaxTopK(ScoredTopKConfig(experts_per_token=K, renormalise=False), D, E)
    moe = make_moe(router=router, shared=True, shared_gate=True, activation=SiLU()).eval()
    moe.router.linear.weight.data.copy_(block.gate.weight)
    moe.shared_gate.weight.data.copy_(block.shared_expert_gate.weight)
    take_experts(moe, block.experts.gate_up_proj, block.experts.down_proj)
    take_shared(moe, block.shared_expert)
    x = torch.randn(1, n, D)
    assert_close(moe(x, make_context()), block(x))


@both
def test_moe_with_groups_and_a_shared_expert_matches_deepseek_v3_of_transformers(n: int) -> None:
    sizes = {"moe_intermediate_size": F, "n_routed_experts": 6, "num_experts_per_tok": K, "n_shared_experts": 2}
    groups = {"n_group": 3, "topk_group": 2, "norm_topk_prob": True, "routed_scaling_factor": 2.5}
    block = reference("deepseek_v3", "DeepseekV3MoE", "DeepseekV3Config", **sizes, **groups)
    config = BiasedTopKConfig(scale=2.5, n_groups=3, groups_per_token=2, group_score="top2_sum")
    moe = make_moe(router=SigmoidBias(config, D, 6), n_experts=6, shared=True, activation=SiLU()).eval()
    moe.router.linear.weight.data.copy_(block.gate.weight)
    moe.router.bias.copy_(block.gate.e_score_correction_bias)
    take_experts(moe, block.experts.gate_up_proj, block.experts.down_proj)
    take_shared(moe, block.shared_experts)
    x = torch.randn(1, n, D)
    assert_close(moe(x, make_context()), block(x))


@both
def test_moe_with_identity_experts_matches_longcat_flash_of_transformers(n: int) -> None:
    sizes = {"expert_ffn_hidden_size": F, "n_routed_experts": 3, "zero_expert_num": 2, "moe_topk": 3}
    block = reference("longcat_flash", "LongcatFlashMoE", "LongcatFlashConfig", routed_scaling_factor=6.0, **sizes)
    router = SoftmaxBias(BiasedTopKConfig(experts_per_token=3, renormalise=False, scale=6.0), D, 5)
    moe = make_moe(router=router, n_experts=3, identity_experts=2, activation=SiLU()).eval()
    moe.router.linear.weight.data.copy_(block.router.classifier.weight)
    moe.router.bias.copy_(block.router.e_score_correction_bias)
    take_experts(moe, block.experts.gate_up_proj, block.experts.down_proj)
    x = torch.randn(1, n, D)
    assert (moe.router(x[0], make_context()).indices >= 3).any()
    assert_close(moe(x, make_context()), block(x))


@both
def test_moe_that_weighs_inputs_matches_llama4_of_transformers(n: int) -> None:
    sizes = {"intermediate_size": F, "num_local_experts": E, "num_experts_per_tok": 1}
    block = reference("llama4", "Llama4TextMoe", "Llama4TextConfig", **sizes)
    router = SigmoidBias(BiasedTopKConfig(experts_per_token=1, renormalise=False), D, E)
    moe = make_moe(router=router, weigh="inputs", activation=SiLU()).eval()
    moe.shared = Gated(GatedConfig(hidden_dim=F), D, SiLU())
    moe.router.bias.zero_()
    moe.router.linear.weight.data.copy_(block.router.weight)
    take_experts(moe, block.experts.gate_up_proj.transpose(1, 2), block.experts.down_proj.transpose(1, 2))
    take_shared(moe, block.shared_expert)
    x = torch.randn(1, n, D)
    assert_close(moe(x, make_context()), block(x)[0].view_as(x))


def with_gate(moe: MoE, row: Tensor) -> Tensor:
    return moe.shared(row, make_context()) * torch.sigmoid(moe.shared_gate.weight[0] @ row)


def plain(moe: MoE, x: Tensor, served: Tensor | None = None) -> Tensor:
    """Every option's formula, one token and one choice at a time."""
    config, routing = moe.config, moe.router(x.reshape(-1, D), make_context())
    rows = []
    for t, row in enumerate(x.reshape(-1, D)):
        out = torch.zeros(D)
        for j, expert in enumerate(routing.indices[t].tolist()):
            weight = routing.weights[t, j]
            if moe.expert_scale is not None:
                weight = weight * moe.expert_scale[expert]
            if served is not None and not served[t, j]:
                continue
            if expert < config.n_experts and config.weigh == "inputs":
                out = out + moe.experts[expert](weight * row, make_context())
            elif expert < config.n_experts:
                out = out + weight * moe.experts[expert](row, make_context())
            elif expert < config.n_experts + config.identity_experts:
                out = out + weight * row
        if moe.shared is not None:
            out = out + (moe.shared(row, make_context()) if moe.shared_gate is None else with_gate(moe, row))
        rows.append(out)
    return torch.stack(rows).view_as(x)


@given(
    n=st.integers(1, 9),
    identity=st.integers(0, 2),
    zero=st.integers(0, 2),
    weigh=st.sampled_from(["inputs", "outputs"]),
    scaled=st.booleans(),
    gate=st.sampled_from([None, False, True]),
    training=st.booleans(),
    seed=st.integers(0, 999),
)
@settings(max_examples=30, deadline=None)
def test_every_option_equals_plain_loops_and_so_do_the_gradients(
    n: int, identity: int, zero: int, weigh: str, scaled: bool, gate: bool | None, training: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    options = {"identity_experts": identity, "zero_experts": zero, "weigh": weigh, "expert_scale": scaled}
    moe = make_moe(n_experts=2, shared=gate is not None, shared_gate=gate or False, **options).train(training)
    x = torch.randn(1, n, D, requires_grad=True)
    seen, expected = moe(x, make_context()), plain(moe, x)
    assert_close(seen, expected, atol=1e-5, rtol=1e-4)
    inputs, upstream = [x, *moe.parameters()], torch.randn_like(x)
    for a, b in zip(
        torch.autograd.grad(seen, inputs, upstream, materialize_grads=True),
        torch.autograd.grad(expected, inputs, upstream, materialize_grads=True),
        strict=True,
    ):
        assert_close(a, b, atol=1e-4, rtol=1e-3)


def served_by_hand(moe: MoE, x: Tensor) -> Tensor:
    """Tokens queue at their experts in order, each row by itself, until the capacity is reached."""
    config, (n_rows, length, _) = moe.config, x.shape
    indices = moe.router(x.reshape(-1, D), make_context()).indices.view(n_rows, length, K).tolist()
    capacity = math.ceil(config.capacity_factor * length * K / config.n_choices)
    served = []
    for row in indices:
        taken = [0] * config.n_choices
        for token in row:
            for expert in token:
                taken[expert] += 1
                served.append(config.n_experts <= expert or taken[expert] <= capacity)
    return torch.tensor(served).view(-1, K)


@given(
    rows=st.integers(1, 3),
    length=st.integers(1, 9),
    factor=st.sampled_from([0.25, 0.5, 1.0, 1.5, 99.0]),
    identity=st.integers(0, 1),
    seed=st.integers(0, 999),
)
@settings(max_examples=30, deadline=None)
def test_in_training_choices_beyond_the_capacity_add_nothing_and_are_told(
    rows: int, length: int, factor: float, identity: int, seed: int
) -> None:
    torch.manual_seed(seed)
    moe, x = make_moe(capacity_factor=factor, identity_experts=identity).train(), torch.randn(rows, length, D)
    served = served_by_hand(moe, x)
    assert_close(moe(x, make_context()), plain(moe, x, served))
    told = moe.figures(moe.counted)
    weights = moe.router(x.reshape(-1, D), make_context()).weights
    assert told["dropped"] == pytest.approx(1 - served.float().mean().item(), abs=1e-6)
    assert told["lost"]["weight"] == pytest.approx((weights * ~served).sum().item() / weights.sum().item(), abs=1e-6)
    assert told["lost"]["tokens"] == pytest.approx((~served.any(1)).float().mean().item(), abs=1e-6)
    assert_close(moe.eval()(x, make_context()), plain(moe, x))  # outside training nothing is dropped


def test_what_is_dropped_depends_on_no_other_row_and_no_later_token() -> None:
    moe, x = make_moe(capacity_factor=0.5).train(), torch.randn(3, 8, D)
    before, changed = moe(x, make_context()), x.clone()
    changed[0, 5:] = torch.randn(3, D)
    changed[2] = torch.randn(8, D)
    after = moe(changed, make_context())
    assert_close(after[1], before[1])
    assert_close(after[0, :5], before[0, :5])


def test_a_mixture_of_experts_that_choose_equals_plain_loops() -> None:
    router = ExpertChoice(ExpertChoiceConfig(allow_non_causal=True), D, E)
    for training in (True, False):
        moe, x = make_moe(router=router).train(training), torch.randn(2, 7, D)
        kept = router(x.reshape(-1, D), make_context()).kept
        assert not kept.all()
        assert_close(moe(x, make_context()), plain(moe, x, kept))
        one = torch.randn(1, 1, D)
        assert_close(moe(one, make_context()), plain(moe, one, router(one[0], make_context()).kept))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", [{}, {"capacity_factor": 1.0, "identity_experts": 1}])
def test_no_tokens_give_no_tokens(training: bool, options: dict[str, object]) -> None:
    moe = make_moe(shared=True, **options).train(training)
    for shape in ((0, D), (2, 0, D), (0, 5, D)):
        x = torch.empty(shape, requires_grad=True)
        out = moe(x, make_context())
        assert out.shape == shape
        out.sum().backward()
    assert moe.counted == {}


def test_gradients_are_right_in_float64() -> None:
    torch.manual_seed(0)
    options = {"identity_experts": 1, "expert_scale": True, "shared_gate": True, "capacity_factor": 1.0}
    moe = make_moe(n_experts=3, shared=True, **options).double().train()
    x = torch.randn(1, 4, D, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *_: moe(x, make_context()), [x, moe.router.linear.weight, moe.expert_scale])


def test_figures_are_those_of_all_passes_in_training() -> None:
    moe, logits, chosen = make_moe(identity_experts=1).train(), [], []
    for n in (3, 5):
        x = torch.randn(1, n, D)
        moe(x, make_context())
        routing = moe.router(x[0], make_context())
        logits.append(routing.logits)
        chosen += routing.indices.flatten().tolist()
    moe.eval()(torch.randn(1, 4, D), make_context())  # not counted
    told = moe.figures(moe.counted)
    shares = [chosen.count(e) / 16 for e in range(E + 1)]
    assert told["load"] == pytest.approx(shares, abs=1e-5)
    assert told["max_violation"] == pytest.approx(max(shares) * (E + 1) - 1)
    entropy = torch.distributions.Categorical(logits=torch.cat(logits)).entropy().mean() / math.log(E + 1)
    assert told["entropy"] == pytest.approx(entropy.item(), rel=1e-5)
    assert "dropped" not in told
    assert not any(value.requires_grad for value in moe.counted.values())
    assert not any("counted" in name for name in moe.state_dict())


def test_active_parameters_count_a_gate_and_the_scales_of_the_chosen() -> None:
    expert = 3 * D * F
    moe = make_moe(shared=True, shared_gate=True, expert_scale=True, identity_experts=2)
    assert moe.active_parameters() == D * (E + 2) + K * (expert + 1) + 2 * expert + D


def test_a_gate_without_a_shared_network_is_refused() -> None:
    with pytest.raises(ConfigProblem, match="no shared network to gate") as caught:
        MoEConfig(n_experts=2, shared_gate=True).derive()
    assert caught.value.field == "shared_gate"


def test_the_router_chooses_among_experts_without_weights_too() -> None:
    expert, router = (Part("x", "y", Gated, GatedConfig(hidden_dim=F)) for _ in range(2))
    parts = MoE.parts(MoEConfig(n_experts=3, identity_experts=2, zero_experts=1, expert=expert, router=router))
    assert parts["router"] == router.at(n_experts=6)
    assert len(parts["experts"]) == 3
