from __future__ import annotations

import pytest

from lamina.core.chain import parse_chain, parse_strategy
from lamina.core.errors import LaminaError, SpecError
from lamina.core.registry import load_plugins

REGISTRY = load_plugins(only=[])


def dumped(*texts: str) -> list[object]:
    return [part.dump() for part in parse_chain(texts, REGISTRY)]


def test_a_stage_is_a_name_with_the_value_of_its_first_option() -> None:
    wanted = [{"name": "temperature", "value": 0.5}, {"name": "top_p", "p": 0.95}, {"name": "greedy"}]
    assert dumped("temperature=0.5,top_p,greedy") == wanted
    assert dumped(" temperature = 0.5 ", "top_p=0.95 , greedy") == wanted


def test_a_mapping_or_a_list_of_them_says_everything() -> None:
    assert dumped("{name: xtc, probability: 0.2}") == [{"name": "xtc", "threshold": 0.1, "probability": 0.2}]
    assert dumped("[{name: top_k, k: 3}, greedy]") == [{"name": "top_k", "k": 3}, {"name": "greedy"}]
    assert dumped('{name: constraint, regex: "[ab]{1,3}, c"}')[0]["regex"] == "[ab]{1,3}, c"  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (",", "--sampler ',' names no stage\n.*write --sampler"),
        ("", "--sampler '' names no stage"),
        (" , ,", "names no stage"),
        ("greedy,", "has a comma with no stage before or after it"),
        ("top_q", "no sampler is called 'top_q'"),
        ("top_k=two", "k of sampler 'top_k' must be an integer, not 'two'"),
        ("greedy=1", "unknown key 'value' for sampler 'greedy'"),
    ],
)
def test_what_is_no_chain_is_refused(text: str, message: str) -> None:
    with pytest.raises(LaminaError, match=message):
        parse_chain([text], REGISTRY)


def test_a_strategy_is_a_name_or_a_mapping() -> None:
    assert parse_strategy("greedy", REGISTRY).dump() == {"name": "greedy"}
    assert parse_strategy("{name: beam, n_beams: 2}", REGISTRY).config.n_beams == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--decoding '' names no strategy\n.*\nknown: .*beam"),
        ("beem", "did you mean 'beam'"),
        ("{name: diverse_beam, n_beams: 5}", r"^--decoding \{name: diverse_beam, n_beams: 5\}: n_beams \(5\) must be"),
    ],
)
def test_what_is_no_strategy_is_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_strategy(text, REGISTRY)
