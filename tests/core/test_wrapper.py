"""Components around others: for their neighbours they are what they wrap."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import lamina
from lamina.core.build import build
from lamina.core.decoder import Decoder
from lamina.core.errors import ModelError, SpecError
from lamina.core.resolve import resolve_data
from lamina.core.train import Trainer, create_run, open_run

GQA: dict[str, Any] = {"name": "gqa", "n_heads": 2, "n_kv_heads": 1}
MLA: dict[str, Any] = {
    "name": "mla",
    "n_heads": 2,
    "kv_lora_rank": 6,
    "qk_nope_head_dim": 4,
    "qk_rope_head_dim": 4,
    "v_head_dim": 4,
}


def spec(attention: Any = GQA, ffn: Any = "gated", **more: Any) -> Any:
    data = {
        "lamina": 1,
        "vocab_size": 257,
        "dim": 16,
        "context_length": 24,
        "position": "rope",
        "norm": "rms",
        "block": {"attention": attention, "ffn": ffn},
        "layers": 2,
        "tokenizer": "byte",
        **more,
    }
    return resolve_data(data)


def tokens(batch: int = 2, length: int = 9) -> Tensor:
    return torch.randint(257, (batch, length), generator=torch.Generator().manual_seed(0))


def bare(name: str) -> str:
    return re.sub(r"\.wraps(?=\.)", "", name)


def copy_weights(source: Decoder, target: Decoder) -> None:
    there = source.tensors()
    with torch.no_grad():
        for name, tensor in target.tensors().items():
            if "lora_" not in name:
                tensor.copy_(there[bare(name)])


@pytest.mark.parametrize("wrapper", ["trace", "lora"])
@pytest.mark.parametrize("attention", [GQA, MLA], ids=["gqa", "mla"])
@pytest.mark.parametrize("ffn", ["gated", {"name": "moe", "n_experts": 4}], ids=["gated", "moe"])
def test_a_wrapped_decoder_computes_what_the_bare_one_does(wrapper: str, attention: Any, ffn: Any) -> None:
    plain = build(spec(attention, ffn), dtype="float64").eval()
    wrapped = build(
        spec({"name": wrapper, "wraps": attention}, {"name": "trace", "wraps": ffn}), dtype="float64"
    ).eval()
    copy_weights(plain, wrapped)
    torch.testing.assert_close(wrapped(tokens()), plain(tokens()))


@pytest.mark.parametrize("attention", [GQA, MLA, {**GQA, "mask": {"name": "sliding", "window": 3}}], ids=str)
def test_a_wrapped_attention_caches_in_any_split(attention: Any) -> None:
    decoder = build(spec({"name": "trace", "wraps": {"name": "lora", "wraps": attention}}), dtype="float64").eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    full = decoder(tokens())
    for split in range(1, 9):
        cache = decoder.make_cache(2, 9)
        parts = [decoder(tokens()[:, :split], cache=cache), decoder(tokens()[:, split:], cache=cache)]
        torch.testing.assert_close(torch.cat(parts, 1), full)


def test_what_a_position_needs_is_asked_of_the_part_inside() -> None:
    spec({"name": "trace", "wraps": GQA}, position="alibi")
    with pytest.raises(SpecError, match="position 'alibi' needs scores of the attention"):
        spec({"name": "trace", "wraps": {"name": "linear", "n_heads": 2}}, position="alibi")


def test_a_trace_holds_what_passed_through() -> None:
    attention = {"name": "trace", "keep": ["input", "qkv", "output"], "wraps": GQA}
    decoder = build(spec(attention, {"name": "trace", "wraps": "gated"})).eval()
    context = decoder.context(tokens())
    decoder.run(context)
    names = [f"trace/{layer}/{name}" for layer in (0, 1) for name in ("attention/input", "attention/qkv", "ffn/output")]
    assert set(names) < set(context.store)
    layer: Any = decoder.layers[1]
    x = context.store["trace/1/attention/input"]
    torch.testing.assert_close(context.store["trace/1/attention/qkv"], layer.attention.wraps.qkv(x))
    torch.testing.assert_close(context.store["trace/1/attention/output"], layer.attention.wraps(x, context))
    assert not any(value.requires_grad for value in context.store.values())
    assert not layer.attention.wraps._forward_hooks, "a hook was left behind"


def test_names_that_are_not_inside_are_refused_at_their_line() -> None:
    with pytest.raises(SpecError, match="nothing inside is called 'qvk'"):
        build(spec({"name": "trace", "keep": ["qvk"], "wraps": GQA}), device="meta")
    with pytest.raises(SpecError, match="no projection is called 'up'") as caught:
        build(spec(ffn={"name": "lora", "targets": ["up"], "wraps": "gated"}), device="meta")
    assert "down, gate_up" in str(caught.value)


def test_an_adapter_adds_its_low_rank_product() -> None:
    decoder = build(spec(ffn={"name": "lora", "rank": 3, "alpha": 6, "targets": ["down"], "wraps": "gated"}))
    layer: Any = decoder.layers[0]
    down = layer.ffn.wraps.down
    with torch.no_grad():
        down.lora_b.normal_()
    x = torch.randn(5, down.in_features)
    expected = x @ (down.weight + 6 / 3 * down.lora_b @ down.lora_a).T
    torch.testing.assert_close(down(x), expected)


def test_only_adapters_of_an_adapted_part_are_trained() -> None:
    decoder = build(spec({"name": "lora", "wraps": GQA}))
    inside = {n: p.requires_grad for n, p in decoder.named_parameters() if ".attention." in n}
    assert inside
    assert all(trained == ("lora_" in name) for name, trained in inside.items())
    decoder(tokens()).sum().backward()
    moved = {name for name, p in decoder.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert any(name.endswith("lora_b") for name in moved)


# Runs that begin with another model's weights

TRAIN = {"steps": 3, "batch_size": 4, "context": 16, "save_every": 1, "log_every": 1, "val_fraction": 0.2}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    file = tmp_path / "text.txt"
    file.write_text("a stitch in time saves nine. " * 60)
    return file


@pytest.fixture
def base(tmp_path: Path, corpus: Path) -> Path:
    run = create_run(spec(train=TRAIN), corpus, tmp_path / "base")
    Trainer(run).train()
    return run.directory


def adapted(**train: Any) -> Any:
    options = {**TRAIN, "trainable": ["*.lora_*"], **train}
    return spec({"name": "lora", "wraps": GQA}, {"name": "lora", "wraps": "gated"}, train=options)


def test_a_run_begins_with_the_models_weights_and_trains_the_adapters_alone(base: Path, corpus: Path) -> None:
    notes: list[str] = []
    run = create_run(adapted(), corpus, base.parent / "adapted", start=base, note=notes.append)
    assert "took 14 of the 30 tensors" in notes[0]
    assert "beginning anew: layers.0.attention.wraps.out.lora_a" in notes[0]
    trainer = Trainer(run)
    model = lamina.load(base)
    torch.testing.assert_close(trainer.decoder.eval()(tokens()), model.decoder(tokens()))
    trainer.train()
    before, after = model.decoder.tensors(), trainer.decoder.tensors()
    assert all(torch.equal(tensor, before[bare(name)]) for name, tensor in after.items() if "lora_" not in name)
    assert any(name.endswith("lora_b") and bool(tensor.any()) for name, tensor in after.items())


def test_such_a_run_resumes_to_the_same_bits_without_the_model(base: Path, corpus: Path) -> None:
    whole = create_run(adapted(), corpus, base.parent / "whole", start=base)
    Trainer(whole).train()
    cut = create_run(adapted(), corpus, base.parent / "cut", start=base)
    base.rename(base.parent / "elsewhere")
    Trainer(cut).train(stop=lambda: True)
    Trainer(open_run(cut.directory)).train()
    one, other = (lamina.load(run.directory).decoder.tensors() for run in (whole, cut))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_model_of_other_sizes_or_another_tokenizer_is_refused_and_nothing_written(base: Path, corpus: Path) -> None:
    out = base.parent / "out"
    with pytest.raises(ModelError, match=r"embedding.tokens.weight: \(257, 16\) there, \(257, 32\) by the spec"):
        create_run(spec(dim=32, train=TRAIN), corpus, out, start=base)
    with pytest.raises(SpecError, match=r"the spec's tokenizer is 'character', and .* was trained with 'byte'"):
        create_run(spec(tokenizer="character", train=TRAIN), corpus, out, start=base)
    assert not out.exists()


def test_a_pattern_that_fits_no_parameter_is_refused(corpus: Path) -> None:
    with pytest.raises(SpecError, match=r"no parameter's name fits '\*lorra\*'"):
        create_run(adapted(trainable=["*lorra*"]), corpus, corpus.parent / "out")


def test_a_swapped_part_begins_anew_and_the_old_one_is_left(base: Path, corpus: Path) -> None:
    notes: list[str] = []
    create_run(spec(ffn="mlp", train=TRAIN), corpus, base.parent / "swapped", start=base, note=notes.append)
    assert re.search(r"beginning anew: layers\.0\.ffn\.", notes[0])
    assert re.search(r"left there: layers\.0\.ffn\.", notes[0])
    assert json.loads((base.parent / "swapped" / "train.json").read_text())["train"]["steps"] == 3
