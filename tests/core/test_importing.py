"""What comes of directories from strangers: older spellings are read, and what is wrong is refused by name."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
import transformers
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from tokenizers import decoders, models, pre_tokenizers, trainers

from lamina.cli import main
from lamina.core.build import build
from lamina.core.checkpoint import INDEX, WEIGHTS
from lamina.core.errors import LaminaError
from lamina.core.exporting import export_model
from lamina.core.importing import import_model, sampler_of
from lamina.core.model import Model, load, save
from lamina.core.registry import load_plugins
from lamina.core.resolve import resolve_data

REGISTRY = load_plugins(only=[])
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 31,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500.0,
    "rope_scaling": {"type": "linear", "factor": 2.0},
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "bos_token_id": 1,
    "eos_token_id": [2, 3],
}
SHAPES = {
    "model.embed_tokens": (31, 16),
    "model.norm": (16,),
    "lm_head": (31, 16),
    **{
        f"model.layers.{layer}.{name}": shape
        for layer in range(2)
        for name, shape in {
            "input_layernorm": (16,),
            "post_attention_layernorm": (16,),
            "self_attn.q_proj": (16, 16),
            "self_attn.k_proj": (8, 16),
            "self_attn.v_proj": (8, 16),
            "self_attn.o_proj": (16, 16),
            "mlp.gate_proj": (24, 16),
            "mlp.up_proj": (24, 16),
            "mlp.down_proj": (16, 24),
        }.items()
    },
}


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {f"{name}.weight": torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def checkpoint(folder: Path, weights: dict[str, torch.Tensor] | None = None, **config: Any) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}), encoding="utf-8")
    save_file(tensors() if weights is None else weights, folder / WEIGHTS)
    return folder


def shard(folder: Path) -> Path:
    weights = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(weights)
    files = {"one.safetensors": names[:9], "two.safetensors": names[9:]}
    for file, held in files.items():
        save_file({name: weights[name] for name in held}, folder / file)
    told = {"weight_map": {name: file for file, held in files.items() for name in held}}
    (folder / INDEX).write_text(json.dumps(told), encoding="utf-8")
    return folder


def logits(model: Path) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = load(model, registry=REGISTRY).decoder(torch.arange(20).view(1, -1))
    return found


def brought(source: Path, target: Path, **options: Any) -> torch.Tensor:
    import_model(source, target, registry=REGISTRY, **options)
    return logits(target)


@pytest.fixture
def plain(tmp_path: Path) -> torch.Tensor:
    return brought(checkpoint(tmp_path / "plain"), tmp_path / "plain-ours")


def test_older_and_newer_spellings_of_rotation_are_one_model(tmp_path: Path, plain: torch.Tensor) -> None:
    newer = {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}, "dtype": "float32"}
    source = checkpoint(tmp_path / "new", **newer)
    config = {k: v for k, v in json.loads((source / "config.json").read_text()).items() if k not in OLDER}
    (source / "config.json").write_text(json.dumps(config))
    assert brought(source, tmp_path / "ours").equal(plain)
    other = checkpoint(tmp_path / "other", rope_scaling=None)
    assert not brought(other, tmp_path / "others").equal(plain)


OLDER = ("rope_theta", "rope_scaling", "torch_dtype")


def test_shards_a_bare_model_and_idle_tensors_are_read(tmp_path: Path, plain: torch.Tensor) -> None:
    assert brought(shard(checkpoint(tmp_path / "shards")), tmp_path / "a").equal(plain)
    bare = {name.removeprefix("model."): tensor for name, tensor in tensors().items()}
    assert brought(checkpoint(tmp_path / "bare", bare), tmp_path / "b").equal(plain)
    idle = tensors() | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    assert brought(checkpoint(tmp_path / "idle", idle), tmp_path / "c").equal(plain)


def test_half_precision_stays_as_it_is(tmp_path: Path) -> None:
    halves = {name: tensor.bfloat16() for name, tensor in tensors().items()}
    done = import_model(checkpoint(tmp_path / "half", halves), tmp_path / "ours", registry=REGISTRY)
    assert done.dtype == "bfloat16"
    kept = load_file(tmp_path / "ours" / WEIGHTS)
    rows = [halves[f"model.layers.1.self_attn.{name}_proj.weight"] for name in "qkv"]
    assert kept["layers.1.attention.qkv.weight"].equal(torch.cat(rows))
    export_model(tmp_path / "ours", tmp_path / "back", registry=REGISTRY)
    assert json.loads((tmp_path / "back/config.json").read_text())["dtype"] == "bfloat16"
    back = load_file(tmp_path / "back" / WEIGHTS)
    assert back.keys() == halves.keys()
    assert all(back[name].equal(halves[name]) for name in halves)


def test_a_head_saved_beside_a_tied_embedding_must_be_its_copy(tmp_path: Path) -> None:
    weights = tensors()
    with pytest.raises(LaminaError, match=r"not used: lm_head\.weight"):
        brought(checkpoint(tmp_path / "other", weights, tie_word_embeddings=True), tmp_path / "a")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    brought(checkpoint(tmp_path / "copy", weights, tie_word_embeddings=True), tmp_path / "b")


def test_everything_wrong_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    weights = tensors()
    del weights["model.norm.weight"]
    weights["model.layers.0.mlp.up_proj.weight"] = torch.ones(23, 16)
    weights["model.layers.1.self_attn.q_proj.bias"] = torch.ones(16)
    source = checkpoint(tmp_path / "wrong", weights, logit_scale=0.5)
    run = CliRunner().invoke(main, ["import", str(source), str(tmp_path / "ours")])
    assert run.exit_code == 2
    for said in (
        "logit_scale: no component honours 0.5",
        "missing: model.norm.weight",
        "mlp.up_proj.weight: [23, 16] in the checkpoint, [24, 16] by its config",
        "not used: model.layers.1.self_attn.q_proj.bias",
    ):
        assert said in run.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wrong"]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "lama"}, "no family reads model_type 'lama'\n  did you mean 'llama'"),
        ({"hidden_act": "telu"}, "hidden_act: no component honours 'telu'"),
        ({"rope_scaling": {"type": "spiral", "factor": 2.0}}, "rope_type: no component honours 'spiral'"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0, "phase": 1}}, "rope_parameters.phase: no component"),
        ({"partial_rotary_factor": 0.5}, "this model turns whole heads"),
        ({"num_attention_heads": None}, "num_attention_heads: missing"),
        ({"num_hidden_layers": "many"}, "the number of layers"),
        ({"num_attention_heads": 3}, "dim \\(16\\) must be a multiple of n_heads \\(3\\)"),
        ({"quantization_config": {"bits": 4}}, "quantization_config: no component honours"),
    ],
)
def test_a_config_that_is_not_honoured_is_refused(tmp_path: Path, config: dict[str, Any], said: str) -> None:
    with pytest.raises(LaminaError, match=said):
        brought(checkpoint(tmp_path / "source", **config), tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_a_key_may_be_said_not_to_matter(tmp_path: Path, plain: torch.Tensor) -> None:
    source = checkpoint(tmp_path / "source", my_note="trained on a Sunday")
    assert brought(source, tmp_path / "ours", ignore=["my_note"]).equal(plain)


def lie(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    data = (folder / WEIGHTS).read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def test_files_that_lie_are_refused_by_name(tmp_path: Path) -> None:
    def refused(name: str, said: str, damage: Callable[[Path], None]) -> None:
        folder = checkpoint(tmp_path / name)
        damage(folder)
        with pytest.raises(LaminaError, match=said):
            brought(folder, tmp_path / "ours")
        assert not (tmp_path / "ours").exists()

    def grow(header: dict[str, Any]) -> None:
        header["lm_head.weight"]["shape"] = [310, 16]

    def overlap(header: dict[str, Any]) -> None:
        header["lm_head.weight"]["data_offsets"] = header["model.embed_tokens.weight"]["data_offsets"]

    def negative(header: dict[str, Any]) -> None:
        header["lm_head.weight"]["shape"] = [-31, -16]

    def listed(header: dict[str, Any]) -> None:
        header["lm_head.weight"]["dtype"] = []

    def endless(header: dict[str, Any]) -> None:
        header["lm_head.weight"]["shape"] = [10**4000, 10**4000]

    def cut(folder: Path) -> None:
        (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])

    def pickled(folder: Path) -> None:
        (folder / WEIGHTS).rename(folder / "pytorch_model.bin")

    def outside(folder: Path) -> None:
        shard(folder)
        told = json.loads((folder / INDEX).read_text())
        told["weight_map"]["lm_head.weight"] = "../plain/model.safetensors"
        (folder / INDEX).write_text(json.dumps(told))

    def cut_shard(folder: Path) -> None:
        shard(folder)
        (folder / "two.safetensors").write_bytes((folder / "two.safetensors").read_bytes()[:-8])

    refused("sizes", "'lm_head.weight' is F32 \\[310, 16\\]", lambda folder: lie(folder, grow))
    refused("overlap", "over another tensor", lambda folder: lie(folder, overlap))
    refused("negative", "says of 'lm_head.weight' what cannot be", lambda folder: lie(folder, negative))
    refused("listed", "says of 'lm_head.weight' what cannot be", lambda folder: lie(folder, listed))
    refused("endless", "says of 'lm_head.weight' what cannot be", lambda folder: lie(folder, endless))
    refused("cut", "model.safetensors: cut short", cut)
    refused("pickle", "a pickle can run code", pickled)
    refused("outside", "lies outside the folder", outside)
    refused("shard", "two.safetensors: cut short", cut_shard)
    refused("header", "its header cannot have", lambda folder: (folder / WEIGHTS).write_bytes(b"\xff" * 40))
    refused("json", "config.json: not JSON", lambda folder: (folder / "config.json").write_text("{"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EIO])
def test_a_disk_that_fills_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    source = checkpoint(tmp_path / "source")

    class Full(io.BytesIO):
        def seek(self, *place: int) -> int:
            raise OSError(number, os.strerror(number))

    def opened(file: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
        return Full() if mode == "xb" and str(file).endswith(WEIGHTS) else open(file, mode, *rest, **more)

    monkeypatch.setattr("lamina.core.checkpoint.open", opened, raising=False)
    run = CliRunner().invoke(main, ["import", str(source), str(tmp_path / "ours")])
    assert run.exit_code == 1
    assert os.strerror(number) in run.output
    assert "Traceback" not in run.output
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_an_interrupted_import_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    source = checkpoint(tmp_path / "source")
    monkeypatch.setattr("lamina.core.checkpoint.Writer.write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        import_model(source, tmp_path / "ours", registry=REGISTRY)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_what_is_exported_in_shards_is_read_by_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import_model(checkpoint(tmp_path / "source"), tmp_path / "ours", registry=REGISTRY)
    monkeypatch.setattr("lamina.core.checkpoint.SHARD_BYTES", 4000)
    export_model(tmp_path / "ours", tmp_path / "back", registry=REGISTRY)
    assert len(list((tmp_path / "back").glob("*.safetensors"))) > 2
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "back").state_dict()
    assert all(theirs[name].equal(tensor) for name, tensor in tensors().items())


def with_tokenizer(folder: Path) -> Path:
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())[:20]
    trainer = trainers.BpeTrainer(vocab_size=30, initial_alphabet=alphabet, special_tokens=special, show_progress=False)
    made.train_from_iterator(["the cat"], trainer)
    made.save(str(folder / "tokenizer.json"))
    told = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    told = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 50, "eos_token_id": [2, 3]}
    (folder / "generation_config.json").write_text(json.dumps(told))
    return folder


def test_the_tokenizer_its_template_and_the_sampler_come_along_and_go_back(tmp_path: Path) -> None:
    source = with_tokenizer(checkpoint(tmp_path / "source"))
    import_model(source, tmp_path / "ours", registry=REGISTRY)
    model = load(tmp_path / "ours", registry=REGISTRY)
    assert model.tokenizer is not None
    assert model.tokenizer.eos_id == 2
    assert [(stage.name, *vars(stage.config).values()) for stage in model.spec.sampler] == [
        ("temperature", 0.6),
        ("top_k", 50),
        ("top_p", 0.9),
    ]
    export_model(tmp_path / "ours", tmp_path / "back", registry=REGISTRY)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (tmp_path / "back" / name).read_bytes() == (source / name).read_bytes()


def test_a_config_that_does_not_sample_makes_no_sampler(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"temperature": 0.5}')
    assert sampler_of(tmp_path) == []


def test_a_decoder_that_is_no_familys_says_which_part_does_not_fit(tmp_path: Path) -> None:
    import_model(checkpoint(tmp_path / "source"), tmp_path / "ours", registry=REGISTRY)
    model = load(tmp_path / "ours", registry=REGISTRY)
    shutil.rmtree(tmp_path / "ours")
    data = model.spec.dump()
    data["blocks"]["block"]["attention"]["sinks"] = True
    data["blocks"]["block"]["ffn"]["gate_scale"] = 2.0
    other = resolve_data(data, REGISTRY)
    save(Model(build(other), None, other), tmp_path / "other")
    with pytest.raises(LaminaError) as caught:
        export_model(tmp_path / "other", tmp_path / "out", family="llama", registry=REGISTRY)
    assert "blocks.block.attention.sinks: true, where the family has false" in str(caught.value)
    assert "blocks.block.ffn.gate_scale: 2.0, where the family has 1.0" in str(caught.value)
    run = CliRunner().invoke(main, ["export", str(tmp_path / "other"), str(tmp_path / "out")])
    assert run.exit_code == 2
    assert "where the family has" in run.output  # the nearest is none whose config for the spec cannot be read
    assert not (tmp_path / "out").exists()


def test_a_decoder_made_here_exports_where_it_fits(tmp_path: Path) -> None:
    data = {
        "lamina": 1, "vocab_size": 31, "dim": 16, "context_length": 32, "position": "rope", "norm": "rms", "layers": 2,
        "block": {
            "attention": {"name": "gqa", "n_heads": 2}, "ffn": "gated", "residual": {"name": "plain", "dropout": 0.1},
        },
    }  # fmt: skip
    spec = resolve_data(data, REGISTRY)
    save(Model(build(spec), None, spec), tmp_path / "ours")
    run = CliRunner().invoke(main, ["export", str(tmp_path / "ours"), str(tmp_path / "out"), "--json"])
    assert run.exit_code == 0, run.output
    assert json.loads(run.stdout)["family"] == "llama"
    run = CliRunner().invoke(main, ["import", str(tmp_path / "out"), str(tmp_path / "again"), "--json"])
    assert run.exit_code == 0, run.output
    assert logits(tmp_path / "again").equal(logits(tmp_path / "ours"))
    text = (tmp_path / "again/spec.yaml").read_text()
    assert "block:\n  attention: {name: gqa, n_heads: 2}\n" in text
