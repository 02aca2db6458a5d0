import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from lamina.cli import main
from lamina.core import OutLinear
from lamina.core.bench import Training
from lamina.core.build import build
from lamina.core.decoder import Decoder
from lamina.core.errors import LaminaError
from lamina.core.figures import OTHER
from lamina.core.model import Model, save
from lamina.core.native import library
from lamina.core.profile import Profile, count_flops, profile, read_bytes, visible_bytes
from lamina.core.resolve import resolve_data
from lamina.core.subject import open_subject
from lamina.core.watch import Watch

V, D, H, K, F, LAYERS = 32, 16, 4, 2, 24, 2
MOE = {
    "name": "moe",
    "n_experts": 4,
    "router": {"name": "softmax_top_k", "experts_per_token": 1, "renormalise": False},
    "expert": {"name": "gated", "hidden_dim": F},
}


def spec_of(ffn: object = None, **changes: object) -> dict[str, object]:
    return {
        "lamina": 1,
        "name": "tiny",
        "vocab_size": V,
        "dim": D,
        "context_length": 32,
        "position": "rope",
        "norm": "rms",
        "block": {
            "attention": {"name": "gqa", "n_heads": H, "n_kv_heads": K, "qk_norm": "rms"},
            "ffn": ffn or {"name": "gated", "hidden_dim": F},
        },
        "layers": LAYERS,
        **changes,
    }


@pytest.fixture(scope="module")
def spec_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spec") / "tiny.yaml"
    path.write_text(json.dumps(spec_of(MOE)))
    return path


@pytest.fixture(scope="module")
def report(spec_file: Path) -> Profile:
    return profile(spec_file, batch=2, context=12, seconds=0)


PARTS = {
    "embedding",
    "norms",
    "attention gqa",
    "position rope",
    "ffn moe",
    "ffn moe / gated",
    "activation silu",
    "router softmax_top_k",
    "residual plain",
    "head",
}


def test_every_part_of_the_decoder_is_listed(report: Profile) -> None:
    assert set(report.parts) == PARTS | {"loss", OTHER}
    assert report.parts[-1] == OTHER
    for phase in ("prefill", "decode"):
        assert set(report.phases[phase].shares) == PARTS | {OTHER}


@pytest.mark.parametrize("phase", ["prefill", "decode", "forward", "backward"])
def test_shares_of_a_phase_add_up_to_one(report: Profile, phase: str) -> None:
    assert sum(report.phases[phase].shares.values()) == pytest.approx(1)


@pytest.mark.parametrize("phase", ["prefill", "decode", "forward", "backward"])
def test_every_part_that_works_has_a_share(report: Profile, phase: str) -> None:
    assert all(share > 0 for share in report.phases[phase].shares.values())


def test_figures_are_positive_and_agree(report: Profile) -> None:
    data = report.to_json()
    for name in ("time_to_first_token_s", "prefill_tokens_per_second", "decode_tokens_per_second"):
        assert data[name] > 0
    steps = sum(data["phases"][phase]["seconds"] for phase in ("forward", "backward", "update"))
    assert data["train_tokens_per_second"] == pytest.approx(2 * 12 / steps)
    assert data["phases"]["decode"]["tokens"] == 2
    assert data["decode_share_of_read_peak"] * data["read_peak_bytes_per_second"] == pytest.approx(
        (data["decode_weight_bytes"] + data["decode_cache_bytes"]) / data["phases"]["decode"]["seconds"]
    )
    assert data["peak_rss_bytes"].keys() == {"inference", "training"}


def test_training_can_be_left_out(spec_file: Path) -> None:
    report = profile(spec_file, context=4, seconds=0, training=False)
    assert set(report.phases) == {"prefill", "decode"}
    assert report.to_json()["train_tokens_per_second"] is None


def test_the_command_prints_a_table_and_json(spec_file: Path) -> None:
    run = [str(spec_file), "--context", "4", "--seconds", "0", "--no-training"]
    table = CliRunner().invoke(main, ["profile", *run])
    assert table.exit_code == 0, table.output
    assert "router softmax_top_k" in table.output
    data = json.loads(CliRunner().invoke(main, ["profile", *run, "--json"]).stdout)
    assert {part["name"] for part in data["parts"]} == PARTS | {OTHER}


def test_a_model_directory_is_profiled_with_its_own_weights(tmp_path: Path) -> None:
    spec = resolve_data(spec_of())
    folder = save(Model(build(spec), None, spec), tmp_path / "model")
    assert profile(folder, context=4, seconds=0, training=False).settings["weights"] == "the model's own"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--context", "33"], "a context of 33"),
        (["--context", "1"], "context must be"),
        (["--dtype", "float16"], "training has no dtype float16"),
        (["--seconds", "-1"], "seconds must be"),
        (["--seconds", "nan"], "seconds must be"),
        (["--device", "meta"], "device 'meta' cannot be used"),
    ],
)
def test_a_wrong_request_is_one_clear_error(spec_file: Path, options: list[str], said: str) -> None:
    result = CliRunner().invoke(main, ["profile", str(spec_file), *options])
    assert result.exit_code == 2
    assert said in result.output


@pytest.mark.skipif(library() is None, reason="no kernels here")
def test_what_programs_do_is_told_by_part(spec_file: Path) -> None:
    found = profile(spec_file, batch=2, context=12, seconds=0, backend="native", training=False)
    for phase in ("prefill", "decode"):
        shares = found.phases[phase].shares
        assert sum(shares.values()) == pytest.approx(1)
        for part in ("attention gqa", "ffn moe", "ffn moe / gated", "router softmax_top_k", "norms", "head"):
            assert shares[part] > 0, part


def test_rounded_weights_are_read_as_they_lie_and_not_trained(tmp_path: Path) -> None:
    file = tmp_path / "wide.yaml"
    file.write_text(json.dumps(spec_of({"name": "mlp", "hidden_dim": 64, "bias": False}, dim=64, head={"tied": True})))
    eager, int8 = (profile(file, context=8, seconds=0, backend=b, training=False) for b in ("eager", "int8"))
    assert eager.weight_bytes is not None
    assert int8.weight_bytes is not None
    matrices = LAYERS * (2 * 64 * 64 + 2 * 64 * K * 16 + 2 * 64 * 64) + V * 64
    assert eager.weight_bytes - int8.weight_bytes == matrices * 4 - matrices * 17 // 16 - 64 * 4  # and a row looked up
    with pytest.raises(LaminaError, match="cannot be trained"):
        profile(file, context=8, seconds=0, backend="int8")


def test_flops_are_those_of_the_products() -> None:
    batch, prompt, at, context = 2, 5, 7, 12
    found = count_flops(resolve_data(spec_of()), batch, prompt, at, context, training=True)
    head_dim = D // H
    weights = D * (H + 2 * K) * head_dim + H * head_dim * D + 3 * D * F

    def forward(queries: int, keys: int, logits: int) -> int:
        layer = queries * weights + 2 * queries * keys * H * head_dim
        return 2 * batch * (LAYERS * layer + logits * D * V)

    assert found["prefill"] == forward(prompt, prompt, 1)
    assert found["decode"] == forward(1, at, 1)
    assert found["forward"] == forward(context, context, context)
    assert found["backward"] == 2 * forward(context, context, context)


def build_tiny(**changes: object) -> Decoder:
    return build(resolve_data(spec_of(**changes)))


def test_decoding_reads_every_weight_once_and_of_idle_experts_none() -> None:
    dense, mixture = build_tiny(), build_tiny(ffn=MOE)
    assert read_bytes(dense, 1) == 4 * sum(p.numel() for p in dense.parameters())
    routers = LAYERS * 4 * 4 * D
    assert read_bytes(mixture, 1) == read_bytes(dense, 1) + routers


def test_an_embedding_that_is_not_the_head_is_read_by_the_row() -> None:
    tied, untied = build_tiny(), build_tiny(head={"tied": False})
    assert read_bytes(untied, 3) == read_bytes(tied, 3) + 4 * 3 * D


def test_the_cache_is_read_as_far_as_it_is_filled() -> None:
    decoder = build_tiny()
    cache = decoder.make_cache(1, 10)
    decoder(torch.zeros(1, 4, dtype=torch.int64), cache=cache)
    assert visible_bytes(cache) == 4 * LAYERS * 4 * 2 * K * (D // H)
    assert cache.nbytes == visible_bytes(cache) * 10 // 4


class TicksPerCall:
    """A clock by which only the calls of one module take time."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def test_a_parts_time_is_without_that_of_the_parts_it_calls() -> None:
    decoder = build_tiny()
    watch, clock = Watch(decoder), TicksPerCall()
    watch._now = clock

    def tick(*args: object) -> None:
        clock.time += 1

    for module in decoder.modules():  # the attention's output projection: a second in each layer
        if isinstance(module, OutLinear) and module.in_features == D:
            module.register_forward_hook(tick)
    with watch.watching(), torch.no_grad():
        _, found = watch.take(lambda: decoder(torch.zeros(1, 3, dtype=torch.int64)))
    assert found["attention gqa"] == LAYERS
    assert sum(found.values()) == LAYERS


def test_a_backward_node_counts_for_the_part_that_made_it(spec_file: Path) -> None:
    training = Training(open_subject(spec_file, training=True), 1, 4, torch.float32)
    watch, clock = Watch(training.decoder), TicksPerCall()
    watch._now = clock

    class Slow(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:
            clock.time += 1
            return gradient

    training.decoder.layers[0].attention_in.register_forward_hook(lambda module, args, out: Slow.apply(out))
    for layer in training.decoder.layers:
        layer.ffn.router.linear.register_forward_hook(lambda module, args, out: Slow.apply(out))
    with watch.watching():
        loss, _ = watch.take(training.forward)
        found = watch.backward(loss)
    assert found["router softmax_top_k"] == LAYERS
    assert sum(found.values()) == LAYERS + 1


def test_a_loaded_model_can_be_profiled_and_is_left_as_it_was() -> None:
    spec = resolve_data(spec_of())
    model = Model(build(spec, dtype="bfloat16").eval(), None, spec)
    before = {name: tensor.clone() for name, tensor in model.decoder.tensors().items()}
    report = profile(model, context=4, seconds=0)
    assert report.settings["model"] == "tiny"
    assert report.settings["weights"] == "the model's own"
    assert not model.decoder.training
    for name, tensor in model.decoder.tensors().items():
        assert torch.equal(tensor, before[name])
        assert tensor.dtype == torch.bfloat16


def test_watching_leaves_the_decoder_as_it_was() -> None:
    decoder = build_tiny().eval()
    ids = torch.arange(6).view(1, 6)
    before = decoder(ids)
    watch = Watch(decoder)
    with watch.watching():
        assert torch.equal(decoder(ids), before)
    assert not any("forward" in vars(module) or "rotate" in vars(module) for module in decoder.modules())
