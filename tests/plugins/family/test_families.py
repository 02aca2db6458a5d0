"""Checkpoints made by transformers are read, run and written back: the same logits, the same text, the same tensors.

Every `cases_*.py` beside this file has configs of some families. A family is tested with each of its configs.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from lamina.core.exporting import differences, export_model
from lamina.core.family import IGNORED_KEYS, ConfigKeys, Key, Within
from lamina.core.importing import import_model
from lamina.core.model import Model, load
from lamina.core.registry import load_plugins
from lamina.core.resolve import resolve_data
from lamina.core.resolved import ResolvedSpec
from lamina.core.rope_keys import Rope

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

REGISTRY = load_plugins(only=[])
LENGTH = 24  # longer than every window
# transformers saves Kimi Linear's dense layers under its experts' name, which the published checkpoint does not.
RENAMED = re.compile(r"\.block_sparse_moe(\.(gate|up|down)_proj\.)")


def _cases() -> Iterator[Any]:
    for file in sorted(Path(__file__).parent.glob("cases_*.py")):
        found = importlib.util.spec_from_file_location(file.stem, file)
        assert found is not None
        assert found.loader is not None
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        for family, (config, model, variants) in module.CASES.items():
            for name, options in variants.items():
                yield pytest.param(family, config, model, options, id=f"{family}-{name}")


CASES = list(_cases())


def make(config_class: str, model_class: str, options: dict[str, Any]) -> Any:
    """The model in evaluation, no parameter at its initial value."""
    config = getattr(transformers, config_class)(**options, attn_implementation="eager")
    torch.manual_seed(0)
    model = getattr(transformers, model_class)(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in [*model.parameters(), *_learned(model)]:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


def _learned(model: Any) -> list[torch.Tensor]:
    """Buffers that hold what was learned, such as a router's bias."""
    return [tensor for name, tensor in model.named_buffers() if name.endswith("e_score_correction_bias")]


def near(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    """Within 2e-4 of the logits' spread."""
    return bool((ours - theirs).abs().max() < 2e-4 * theirs.std())


@pytest.mark.parametrize(("family", "config_class", "model_class", "options"), CASES)
@torch.no_grad()
def test_a_checkpoint_is_read_run_and_written(
    family: str, config_class: str, model_class: str, options: dict[str, Any], tmp_path: Path
) -> None:
    theirs = make(config_class, model_class, options)
    theirs.save_pretrained(tmp_path / "theirs")
    done = import_model(tmp_path / "theirs", tmp_path / "ours", registry=REGISTRY)
    assert done.family == family
    model = load(tmp_path / "ours", registry=REGISTRY)
    token_ids = torch.randint(model.spec.vocab_size, (2, LENGTH), generator=torch.Generator().manual_seed(1))
    expected = theirs(token_ids, use_cache=False).logits
    assert expected.std() > 0.1, "the comparison would say nothing"
    assert near(model.decoder(token_ids), expected)
    check_cache(model, token_ids)
    check_documents(model, theirs, token_ids)
    check_greedy(model, theirs, token_ids[:, :4])

    export_model(tmp_path / "ours", tmp_path / "back", registry=REGISTRY)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = (
            getattr(transformers, model_class).from_pretrained(tmp_path / "back", attn_implementation="eager").eval()
        )
    assert near(again(token_ids, use_cache=False).logits, expected)
    written, original = load_file(tmp_path / "back/model.safetensors"), load_file(tmp_path / "theirs/model.safetensors")
    original = {RENAMED.sub(r".mlp\1", name): tensor for name, tensor in original.items()}
    assert written.keys() <= original.keys()
    assert all(tensor.equal(original[name]) for name, tensor in written.items())
    import_model(tmp_path / "back", tmp_path / "twice", registry=REGISTRY)
    ours, twice = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "twice"))
    assert ours.keys() == twice.keys()
    assert all(ours[name].equal(twice[name]) for name in ours)
    assert differences(load(tmp_path / "twice", registry=REGISTRY).spec, model.spec) == []


def check_cache(model: Model, token_ids: torch.Tensor) -> None:
    cache = model.decoder.make_cache(2, LENGTH)
    calls = [token_ids[:, :9], *token_ids[:, 9:].split(5, 1)]
    cached = torch.cat([model.decoder(ids, cache=cache) for ids in calls], 1)
    whole = model.decoder(token_ids)
    assert near(cached, whole)


def check_documents(model: Model, theirs: Any, token_ids: torch.Tensor) -> None:
    """Each of two documents in a row has the logits it has by itself."""
    cut = 10
    documents = (torch.arange(LENGTH) >= cut).long().expand(2, -1)
    packed = model.decoder(token_ids, document_ids=documents)
    for part in (slice(0, cut), slice(cut, None)):
        assert near(packed[:, part], theirs(token_ids[:, part], use_cache=False).logits)


def check_greedy(model: Model, theirs: Any, prompt: torch.Tensor) -> None:
    """The text of a loop over transformers' whole calls, whose own cache keeps old rotations of scaled positions."""
    text = prompt
    for _ in range(8):
        text = torch.cat([text, theirs(text, use_cache=False).logits[:, -1:].argmax(-1)], 1)
    ours = model.generate(prompt, max_new_tokens=8, sampler="greedy", stop_ids=())
    if not _depends_on_length(model):
        assert ours.token_ids.equal(text[:, 4:])


def _depends_on_length(model: Model) -> bool:
    """Whether rotation follows from the length a cache was made for, and not from the tokens so far."""
    return any(
        scaling is not None and scaling.name in ("dynamic", "longrope")
        for block in model.spec.blocks.values()
        for scaling in [getattr(block.position.config, "scaling", None)]
    )


FAMILIES = {case.values[0]: case.values[1] for case in CASES}


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_key_left_out_means_what_the_config_class_takes_it_to_mean(family: str) -> None:
    component: Any = REGISTRY.get("family", family).component
    theirs = getattr(transformers, FAMILIES[family])().to_dict()
    for item in getattr(component, "keys", ()):
        if isinstance(item, Key) and not item.required and theirs.get(item.name) is not None:
            assert item.default == theirs[item.name] or item.default is None, item.name
        if isinstance(item, Rope) and item.layer_type is None:
            assert item.theta == theirs["rope_parameters"]["rope_theta"]
            assert item.fraction == theirs["rope_parameters"].get("partial_rotary_factor", 1.0)


# Whose config class has by default a width that its heads do not divide, or weighs a single expert.
UNEVEN: dict[str, dict[str, Any]] = {
    "dbrx": {"attn_config": {"rope_theta": 10_000.0}, "ffn_config": {"moe_top_k": 2}},
    "glm4_moe": {"num_attention_heads": 64},
}


def spec_of(family: str, config: dict[str, Any]) -> ResolvedSpec:
    keys = ConfigKeys(config)
    component: Any = REGISTRY.get("family", family).component
    data = component().read(keys)
    assert not keys.problems
    return resolve_data({"lamina": 1, **data}, REGISTRY)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_config_that_says_its_sizes_alone_means_what_the_config_class_makes_of_it(family: str) -> None:
    component: Any = REGISTRY.get("family", family).component
    theirs = getattr(transformers, FAMILIES[family])(**UNEVEN.get(family, {})).to_dict()
    sizes = {item.name for item in getattr(component, "keys", ()) if isinstance(item, (Key, Within)) and item.required}
    little = {key: value for key, value in theirs.items() if key in sizes}
    assert differences(spec_of(family, theirs), spec_of(family, little)) == []


def _flat_rope(options: dict[str, Any]) -> bool:
    return "rope_theta" in options.get("rope_parameters", {})


@pytest.mark.parametrize(
    ("family", "config_class", "model_class", "options"), [case for case in CASES if _flat_rope(case.values[3])]
)
def test_rotation_is_read_as_older_configs_spell_it(
    family: str, config_class: str, model_class: str, options: dict[str, Any]
) -> None:
    component: Any = REGISTRY.get("family", family).component
    rope = next(item for item in component.keys if isinstance(item, Rope))
    told = dict(options["rope_parameters"])
    kind, outside = told.pop("rope_type"), {rope.theta_keys[-1]: told.pop("rope_theta")}
    if "partial_rotary_factor" in told:
        outside[rope.fraction_keys[-1]] = told.pop("partial_rotary_factor")
    scaling = None if kind == "default" else {"type": kind, **told}
    older = {key: value for key, value in options.items() if key != "rope_parameters"} | outside
    older["rope_scaling"] = scaling
    theirs = getattr(transformers, config_class)(**copy.deepcopy(older)).to_dict()
    assert differences(spec_of(family, theirs), spec_of(family, older)) == []


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_key_of_the_config_class_is_taken_or_said_to_be_idle(family: str, tmp_path: Path) -> None:
    case = next(case for case in CASES if case.values[0] == family)
    theirs = getattr(transformers, FAMILIES[family])(**case.values[3]).to_dict()
    component: Any = REGISTRY.get("family", family).component
    (tmp_path / "config.json").write_text(json.dumps(theirs), encoding="utf-8")
    known = {*IGNORED_KEYS, *component.ignored_keys, *component.training_keys}
    keys = ConfigKeys(theirs)
    component().read(keys)
    assert not keys.problems
    assert [key for key in theirs if key not in known and key not in keys.taken] == []


def test_every_family_has_cases() -> None:
    assert {entry.name for entry in REGISTRY.entries("family")} == set(FAMILIES)


def test_a_mistral_without_windows_is_written_as_one(tmp_path: Path) -> None:
    config_class, model_class, options = next(
        case.values[1:] for case in CASES if case.values[0] == "mistral" and case.values[3]["sliding_window"] is None
    )
    make(config_class, model_class, options).save_pretrained(tmp_path / "theirs")
    import_model(tmp_path / "theirs", tmp_path / "ours", registry=REGISTRY)
    assert export_model(tmp_path / "ours", tmp_path / "back", registry=REGISTRY).family == "mistral"


def test_deepseek_v3_takes_a_null_for_no_and_one_width_of_what_is_turned() -> None:
    options = next(case.values[3] for case in CASES if case.values[0] == "deepseek_v3")
    said = spec_of("deepseek_v3", {**options, "norm_topk_prob": None})
    assert differences(spec_of("deepseek_v3", {**options, "norm_topk_prob": False}), said) == []
    keys = ConfigKeys({**options, "head_dim": 2})
    component: Any = REGISTRY.get("family", "deepseek_v3").component
    component().read(keys)
    assert keys.problems == ["head_dim: 4 channels are turned, as qk_rope_head_dim says, and not 2"]


def test_caps_on_scores_that_gemma3_does_not_heed_are_refused() -> None:
    keys = ConfigKeys({"model_type": "gemma3_text", "attn_logit_softcapping": 50.0})
    component: Any = REGISTRY.get("family", "gemma3").component
    component().read(keys)
    assert any("attn_logit_softcapping: no component honours 50.0" in problem for problem in keys.problems)
