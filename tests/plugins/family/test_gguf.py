"""Models of every family that llama.cpp knows are written as a GGUF and read back: the same spec, the same tensors.

References besides: transformers' own reading of such files, where it has one, and llama.cpp where it is installed.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from lamina.core.build import build
from lamina.core.config_keys import ConfigKeys
from lamina.core.errors import ModelError
from lamina.core.exporting import differences, export_model
from lamina.core.importing import import_model
from lamina.core.model import Model, load, save
from lamina.core.registry import load_plugins
from lamina.core.resolve import resolve_data

pytest.importorskip("gguf")
REGISTRY = load_plugins(only=[])
IDS = torch.randint(60, (1, 24), generator=torch.Generator().manual_seed(1))  # longer than every window


def _cases() -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """(family, config class, name, options) of what the families are tested with."""
    for file in sorted(Path(__file__).parent.glob("cases_*.py")):
        found = importlib.util.spec_from_file_location(file.stem, file)
        assert found is not None
        assert found.loader is not None
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        for family, (config, _, variants) in module.CASES.items():
            yield from ((family, config, name, options) for name, options in variants.items())


CASES = {(family, name): (config, options) for family, config, name, options in _cases()}
KNOWN = [name for name in REGISTRY.names("family") if REGISTRY.get("family", name).component.gguf is not None]  # type: ignore[attr-defined]
# Of each family the cases that a file can say. Where none of those of other tests is so, what is changed in one.
SAID: dict[str, dict[str, dict[str, Any]]] = {
    "bloom": {"plain": {}},
    "cohere": {"plain": {}},
    "cohere2": {"plain": {"head_dim": 8}},
    "falcon": {"7b": {}, "40b": {"activation": "gelu"}, "11b": {}},
    "gemma": {"plain": {}},
    "gemma2": {"plain": {"query_pre_attn_scalar": 12, "tie_word_embeddings": True}},
    "gemma3": {"plain": {"query_pre_attn_scalar": 12}, "scaled": {"query_pre_attn_scalar": 8}},
    "gpt2": {"plain": {}},
    "gpt_bigcode": {"multi_query": {}},
    "gpt_neox": {"parallel": {}},
    "gpt_oss": {"plain": {}},
    "granite": {"plain": {}, "biases": {}},
    "granitemoe": {"plain": {}},
    "llama": {"biases": {"hidden_act": "silu"}, "tied": {}, "linear": {}, "llama3": {}, "yarn": {}, "longrope": {}},
    "mistral": {"full": {}},
    "mixtral": {"plain": {}},
    "mpt": {"plain": {}},
    "olmo": {"plain": {"head_dim": 8}},
    "olmo2": {"plain": {}},
    "olmo3": {"plain": {"head_dim": 8}},
    "olmoe": {"plain": {"num_key_value_heads": 4}},
    "phi": {"plain": {}},
    "phi3": {"plain": {}, "longrope": {}, "partial": {}},
    "qwen2": {"plain": {}},
    "qwen2_moe": {"plain": {}},
    "qwen3": {"plain": {}},
    "qwen3_moe": {"plain": {}},
    "smollm3": {"plain": {}},
    "stablelm": {"plain": {}, "normed": {"tie_word_embeddings": False}},
    "starcoder2": {"plain": {}},
}
WRITTEN = [(family, name) for family, names in SAID.items() for name in names]


def made(folder: Path, family: str, case: str) -> Model:
    """A model directory of this case with random numbers everywhere."""
    config_class, options = CASES[family, case]
    options = {**options, **SAID.get(family, {}).get(case, {})}
    config = {**getattr(transformers, config_class)(**options).to_dict(), **options}
    component: Any = REGISTRY.get("family", family).component
    spec = resolve_data({"lamina": 1, "name": case, **component().read(ConfigKeys(config))}, REGISTRY)
    decoder = build(spec, seed=0).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in decoder.tensors().values():
            tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.2)
    model = Model(decoder, None, spec)
    save(model, folder)
    return model


def logits(model: Model) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.decoder(IDS)
    return found


def test_every_family_with_a_declaration_is_tried() -> None:
    assert sorted(SAID) == sorted(KNOWN)


@pytest.mark.parametrize(("family", "case"), WRITTEN)
def test_a_written_file_is_read_as_the_same_model(family: str, case: str, tmp_path: Path) -> None:
    model = made(tmp_path / "ours", family, case)
    done = export_model(tmp_path / "ours", tmp_path / "m.gguf", format="gguf", family=family, registry=REGISTRY)
    assert (done.family, done.dtype) == (family, "F32")
    read = import_model(tmp_path / "m.gguf", tmp_path / "again", registry=REGISTRY)
    assert read.family == {"mistral": "llama"}.get(family, family)  # llama.cpp has one name for both
    again = load(tmp_path / "again", registry=REGISTRY)
    assert differences(again.spec, model.spec, 1e-6) == []
    expected = logits(model)
    assert (logits(again) - expected).abs().max() < 1e-4 * expected.std()
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "again"))
    assert ours.keys() == theirs.keys()
    # Where weights are written from one on, single precision rounds them once.
    off = 1e-6 if family.startswith("gemma") else 0.0
    assert all(torch.allclose(theirs[name], tensor, rtol=0, atol=off) for name, tensor in ours.items())
    export_model(tmp_path / "again", tmp_path / "twice.gguf", format="gguf", registry=REGISTRY)
    import_model(tmp_path / "twice.gguf", tmp_path / "thrice", registry=REGISTRY)
    twice = load_file(tmp_path / "thrice" / "model.safetensors")
    assert all(twice[name].equal(tensor) for name, tensor in theirs.items())


@pytest.mark.parametrize(
    ("family", "case", "part"),
    [
        ("llama", "dynamic", "position.scaling: dynamic"),
        ("mistral", "window", "attention.mask: sliding"),
        ("gpt2", "by_layer", "layer_1.attention.scale"),
        ("qwen3_moe", "some_dense", "blocks.dense.ffn: gated"),
        ("gemma2", "uncapped", "attention.softcap: none"),
        ("cohere", "normed", "head_dim: 12, where llama.cpp loads none but 8"),
    ],
)
def test_what_a_file_cannot_say_is_named_and_nothing_is_written(
    family: str, case: str, part: str, tmp_path: Path
) -> None:
    made(tmp_path / "ours", family, case)
    with pytest.raises(ModelError, match="cannot say all of it") as caught:
        export_model(tmp_path / "ours", tmp_path / "m.gguf", format="gguf", family=family, registry=REGISTRY)
    assert part in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["ours"]


# What transformers reads of such files in 5.23 without leaving sizes or scalings out.
@pytest.mark.parametrize(
    ("family", "case"),
    [
        ("llama", "tied"),
        ("mistral", "full"),
        ("qwen2", "plain"),
        ("bloom", "plain"),
        ("falcon", "7b"),
        ("stablelm", "plain"),
    ],
)
@torch.no_grad()
def test_transformers_reads_the_file_as_the_same_model(family: str, case: str, tmp_path: Path) -> None:
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    transformers.utils.logging.disable_progress_bar()
    model = made(tmp_path / "ours", family, case)
    file = tmp_path / "m.gguf"
    export_model(tmp_path / "ours", file, format="gguf", family=family, registry=REGISTRY)
    # Of some families it reads no vocab_size.
    config = transformers.AutoConfig.for_model(**{**load_gguf_checkpoint(str(file))["config"], "vocab_size": 61})
    theirs = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    found = load_gguf_checkpoint(str(file), return_tensors=True, model_to_load=theirs)["tensors"]
    missing = theirs.load_state_dict(found, strict=False).missing_keys
    assert missing == (["lm_head.weight"] if model.spec.head.tied else [])
    theirs.tie_weights()
    expected = theirs(IDS, use_cache=False).logits
    assert (logits(model) - expected).abs().max() < 2e-4 * expected.std()


UNLIKE = {
    "gpt_oss": "llama.cpp rounds the ends of YaRN's ramp, which OpenAI's model does not",
    "phi3-plain": "llama.cpp has no windows in this architecture",
}


@pytest.mark.parametrize(("family", "case"), WRITTEN)
def test_llama_cpp_computes_the_same_logits(family: str, case: str, tmp_path: Path) -> None:
    library = pytest.importorskip("llama_cpp")
    if reason := UNLIKE.get(family, UNLIKE.get(f"{family}-{case}")):
        pytest.skip(reason)
    model = made(tmp_path / "ours", family, case)
    export_model(tmp_path / "ours", tmp_path / "m.gguf", format="gguf", family=family, registry=REGISTRY)
    expected = logits(model)[0]
    # Its GELU is read from a table in half precision.
    assert (_by_llama_cpp(library, tmp_path / "m.gguf", IDS[0].tolist()) - expected).abs().max() < 5e-3 * expected.std()


def _by_llama_cpp(library: Any, file: Path, ids: list[int]) -> torch.Tensor:
    loaded = library.llama_model_load_from_file(str(file).encode(), library.llama_model_default_params())
    assert loaded, "llama.cpp refuses the file"
    options = library.llama_context_default_params()
    options.n_ctx = options.n_batch = options.n_ubatch = 64
    options.type_k = options.type_v = 0  # single precision
    context = library.llama_init_from_model(loaded, options)
    batch = library.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for place, token in enumerate(ids):
        batch.token[place], batch.pos[place], batch.n_seq_id[place], batch.logits[place] = token, place, 1, 1
        batch.seq_id[place][0] = 0
    assert library.llama_decode(context, batch) == 0
    size = library.llama_vocab_n_tokens(library.llama_model_get_vocab(loaded))
    rows = [library.llama_get_logits_ith(context, place) for place in range(len(ids))]
    found = torch.tensor([ctypes.cast(row, ctypes.POINTER(ctypes.c_float))[:size] for row in rows])
    library.llama_batch_free(batch)
    library.llama_free(context)
    library.llama_model_free(loaded)
    return found


@pytest.mark.parametrize("dtype", ["float32", "F16", "bfloat16", "Q8_0", "q4_0"])
def test_matrices_are_written_in_the_type_asked_for(dtype: str, tmp_path: Path) -> None:
    import gguf

    made(tmp_path / "ours", "llama", "tied")
    export_model(tmp_path / "ours", tmp_path / "m.gguf", format="gguf", dtype=dtype, registry=REGISTRY)
    kind = {"float32": "F32", "bfloat16": "BF16"}.get(dtype, dtype.upper())
    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    assert types["blk.0.attn_q.weight"] == types["token_embd.weight"] == kind  # rows of 32
    assert types["blk.0.ffn_down.weight"] == (kind if not kind.startswith("Q") else "F16")  # rows of 40
    assert types["blk.0.attn_norm.weight"] == "F32"
    import_model(tmp_path / "m.gguf", tmp_path / "again", registry=REGISTRY)
    stored, original = (load_file(tmp_path / name / "model.safetensors") for name in ("again", "ours"))
    number = gguf.GGMLQuantizationType[kind]
    for name, tensor in original.items():
        if tensor.dim() == 2 and tensor.shape[-1] == 32:
            blocks = gguf.quants.quantize(tensor.numpy(), number)
            assert stored[name].float().equal(torch.from_numpy(gguf.quants.dequantize(blocks, number).copy())), name


def test_half_precision_stays_as_it_is(tmp_path: Path) -> None:
    made(tmp_path / "ours", "llama", "tied")
    file = tmp_path / "ours" / "model.safetensors"
    halves = {name: tensor.bfloat16() for name, tensor in load_file(file).items()}
    save_file(halves, file)
    done = export_model(tmp_path / "ours", tmp_path / "m.gguf", format="gguf", registry=REGISTRY)
    assert done.dtype == "BF16"
    import_model(tmp_path / "m.gguf", tmp_path / "again", registry=REGISTRY)
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert all(again[name].equal(tensor.to(again[name].dtype)) for name, tensor in halves.items())
    assert again["layers.0.attention.qkv.weight"].dtype is torch.bfloat16
