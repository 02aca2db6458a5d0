"""Shipped specs of published models have the published number of parameters, to the last one.

Each number is compared with the count that transformers' own class gives for the sizes in the published config.json,
so that a literal here, a size in a spec and a module of lamina's cannot be wrong together. A tied head counts once.

Active parameters are all but those of experts that a token does not go to, embedding and head included. Publishers
count differently: where one leaves the embedding out, so does the comparison with what it says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import transformers

from lamina.core.account import active_parameters, parameters_by_kind
from lamina.core.build import build
from lamina.core.decoder import Decoder
from lamina.core.resolve import resolve
from lamina.core.spec import load_spec, shipped_specs

OURS = {"demo", "starter", "nanogpt-char"}  # besides tiny-*: of no published model


@dataclass(frozen=True)
class Published:
    total: int
    source: str  # of the total; a checkpoint's is the sum over its weights, stored masks and rotary frequencies aside
    config: str  # transformers' class, whose defaults are the first model's of its family
    sizes: dict[str, Any]  # where the published config.json differs from them
    billions: float  # active in one token, as the publisher rounds it, where it tells them
    digits: int = 1
    with_embedding: bool = True  # whether the publisher counts the embedding as active


def of(
    total: int,
    source: str,
    config: str,
    *,
    active: float = 0.0,
    digits: int = 1,
    with_embedding: bool = True,
    **sizes: Any,
) -> Published:
    return Published(total, source, f"{config}Config", sizes, active, digits, with_embedding)


def gpt2(dim: int, layers: int, heads: int, **sizes: Any) -> dict[str, Any]:
    return {"n_embd": dim, "n_layer": layers, "n_head": heads, **sizes}


def llama(dim: int, layers: int, heads: int, kv_heads: int, hidden: int, **sizes: Any) -> dict[str, Any]:
    return {
        "hidden_size": dim,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": hidden,
        **sizes,
    }


PUBLISHED = {
    "gpt1": of(116_534_784, "checkpoint openai-community/openai-gpt; paper: 117 M", "OpenAIGPT"),
    "gpt2": of(124_439_808, "checkpoint openai-community/gpt2; repository: 124 M", "GPT2"),
    "gpt2-medium": of(354_823_168, "checkpoint openai-community/gpt2-medium: 355 M", "GPT2", **gpt2(1024, 24, 16)),
    "gpt2-large": of(774_030_080, "checkpoint openai-community/gpt2-large: 774 M", "GPT2", **gpt2(1280, 36, 20)),
    "gpt2-xl": of(1_557_611_200, "checkpoint openai-community/gpt2-xl: 1558 M", "GPT2", **gpt2(1600, 48, 25)),
    "gpt3-175b": of(
        174_604_259_328,
        "arXiv:2005.14165, table D.1: 174,600 M",
        "GPT2",
        **gpt2(12288, 96, 96, n_positions=2048),
    ),
    "megatron-turing-530b": of(
        529_600_819_200,
        "arXiv:2104.04473, table 1: 529.6 B, by a formula that leaves out the last norm's 40,960",
        "GPT2",
        **gpt2(20480, 105, 128, n_positions=2048, vocab_size=51200),
    ),
    "llama-2-7b": of(6_738_415_616, "checkpoint meta-llama/Llama-2-7b-hf", "Llama"),
    "llama-2-70b": of(68_976_648_192, "checkpoint meta-llama/Llama-2-70b-hf", "Llama", **llama(8192, 80, 64, 8, 28672)),
    "llama-3-8b": of(
        8_030_261_248,
        "checkpoint meta-llama/Meta-Llama-3-8B",
        "Llama",
        **llama(4096, 32, 32, 8, 14336, vocab_size=128256),
    ),
    "llama-3-70b": of(
        70_553_706_496,
        "checkpoint meta-llama/Meta-Llama-3-70B",
        "Llama",
        **llama(8192, 80, 64, 8, 28672, vocab_size=128256),
    ),
    "llama-3.1-405b": of(
        405_853_388_800,
        "checkpoint meta-llama/Llama-3.1-405B",
        "Llama",
        **llama(16384, 126, 128, 8, 53248, vocab_size=128256),
    ),
    "llama-3.2-1b": of(
        1_235_814_400,
        "checkpoint meta-llama/Llama-3.2-1B",
        "Llama",
        **llama(2048, 16, 32, 8, 8192, vocab_size=128256, tie_word_embeddings=True),
    ),
    "mistral-7b": of(7_241_732_096, "checkpoint mistralai/Mistral-7B-v0.1", "Mistral"),
    "mixtral-8x7b": of(
        46_702_792_704,
        "checkpoint mistralai/Mixtral-8x7B-v0.1; active: arXiv:2401.04088, 13 B",
        "Mixtral",
        active=12.9,
    ),
    "qwen3-0.6b": of(
        596_049_920,
        "arXiv:2505.09388: 0.6 B; the checkpoint Qwen/Qwen3-0.6B, 751,632,384, holds the tied head twice",
        "Qwen3",
        **llama(1024, 28, 16, 8, 3072, tie_word_embeddings=True),
    ),
    "qwen3-30b-a3b": of(
        30_532_122_624,
        "checkpoint Qwen/Qwen3-30B-A3B; model card: 30.5 B, 3.3 B of them active",
        "Qwen3Moe",
        active=3.35,  # the card cuts the second digit off
        digits=2,
        num_hidden_layers=48,
        head_dim=128,
    ),
    "gemma-2-2b": of(2_614_341_888, "checkpoint google/gemma-2-2b", "Gemma2"),
    "gemma-3-1b": of(
        999_885_952,
        "checkpoint google/gemma-3-1b-pt",
        "Gemma3Text",
        **llama(1152, 26, 4, 1, 6912, vocab_size=262144),
    ),
    "phi-3-mini": of(3_821_079_552, "checkpoint microsoft/Phi-3-mini-4k-instruct", "Phi3"),
    "olmo-2-7b": of(7_298_617_344, "checkpoint allenai/OLMo-2-1124-7B", "Olmo2", vocab_size=100352),
    "deepseek-v3": of(
        671_026_404_352,
        "checkpoint deepseek-ai/DeepSeek-V3 without its layer 61, which predicts a second token, the scales of its "
        "8-bit weights and 58 · 256 selection biases, state that no gradient reaches; active: its README_WEIGHTS.md",
        "DeepseekV3",
        active=36.6,
        with_embedding=False,
    ),
    "gpt-oss-20b": of(
        20_914_757_184,
        "arXiv:2508.10925, table 1: 20.91 B, 3.61 B of them active, the embedding not among these",
        "GptOss",
        active=3.61,
        digits=2,
        with_embedding=False,
        num_hidden_layers=24,
        num_local_experts=32,
    ),
    "gpt-oss-120b": of(
        116_829_156_672,
        "arXiv:2508.10925, table 1: 116.83 B, 5.13 B of them active, the embedding not among these",
        "GptOss",
        active=5.13,
        digits=2,
        with_embedding=False,
    ),
    "smollm2-135m": of(
        134_515_008,
        "checkpoint HuggingFaceTB/SmolLM2-135M",
        "Llama",
        **llama(576, 30, 9, 3, 1536, vocab_size=49152, tie_word_embeddings=True),
    ),
    "falcon-7b": of(
        6_921_720_704,
        "the checkpoint tiiuae/falcon-7b, 7,217,189,760, holds the tied head twice",
        "Falcon",
    ),
    "bloom-176b": of(
        176_247_271_424,
        "checkpoint bigscience/bloom",
        "Bloom",
        hidden_size=14336,
        n_layer=70,
        n_head=112,
        vocab_size=250880,
    ),
}


@pytest.fixture(scope="module", params=PUBLISHED)
def case(request: pytest.FixtureRequest) -> tuple[str, Decoder]:
    return request.param, build(resolve(load_spec(request.param)), device="meta")


def test_every_shipped_spec_of_a_published_model_is_compared() -> None:
    published = {name for name in shipped_specs() if not name.startswith("tiny-")} - OURS
    assert published == set(PUBLISHED)


def test_total_and_active_parameters_are_the_published_ones(case: tuple[str, Decoder]) -> None:
    name, decoder = case
    published = PUBLISHED[name]
    total, active = theirs(published)
    assert sum(parameter.numel() for parameter in decoder.parameters()) == total == published.total
    assert sum(parameters_by_kind(decoder).values()) == total
    assert active_parameters(decoder) == active
    if published.billions:
        told = active - (0 if published.with_embedding else decoder.vocab_size * decoder.dim)
        assert round(told / 1e9, published.digits) == published.billions
    else:
        assert active == total


def theirs(published: Published) -> tuple[int, int]:
    """Total and active, counted by transformers."""
    config = getattr(transformers, published.config)(**published.sizes)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    total = idle = 0
    for name, parameter in model.named_parameters():
        total += parameter.numel()
        if ".experts." in name:  # one tensor for all of them
            n_experts = parameter.shape[0]
            idle += parameter.numel() // n_experts * (n_experts - config.num_experts_per_tok)
    return total, total - idle


def test_the_comment_of_a_spec_tells_its_parameters(case: tuple[str, Decoder]) -> None:
    name, _ = case
    text = shipped_specs()[name].read_text(encoding="utf-8")
    (told,) = re.findall(r"([\d,]{9,}) parameters", text)
    assert int(told.replace(",", "")) == PUBLISHED[name].total
    assert f"\nname: {name}\n" in text
    assert 1 <= len(re.match(r"(#.*\n)+", text)[0].splitlines()) <= 3
