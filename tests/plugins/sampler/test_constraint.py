from __future__ import annotations

import copy
import json
import re
import sys
from typing import Any

import pytest
import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers

from lamina.core import ConfigProblem, GenerationError, History, LaminaError, Tokenizer
from lamina.core.errors import SpecError
from lamina.core.registry import load_plugins
from lamina.core.resolve import resolve_part
from lamina.plugins.sampler.constraint import Constraint, ConstraintConfig
from lamina.plugins.tokenizer.byte import ByteTokenizer
from lamina.plugins.tokenizer.character import CharacterTokenizer

pytest.importorskip("llguidance")
REGISTRY = load_plugins(only=[])


def bpe(tmp_path: Any) -> Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(['{"name": "äö 12", "age": 12} 12-34-56 abc' * 5], trainer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    part = resolve_part("tokenizer", {"name": "bpe", "path": "tokenizer.json"}, REGISTRY)
    opened: Tokenizer = part.component.open(part.config, tmp_path)  # type: ignore[attr-defined]
    return opened


@pytest.fixture(params=["byte", "character", "bpe"])
def tokenizer(request: pytest.FixtureRequest, tmp_path: Any) -> Tokenizer:
    if request.param == "byte":
        return ByteTokenizer()
    return bpe(tmp_path) if request.param == "bpe" else CharacterTokenizer('{}":, -.0123456789abcdeäöngm\n')


def stage(tokenizer: Tokenizer, **form: Any) -> Constraint:
    stop = () if tokenizer.eos_id is None else (tokenizer.eos_id,)
    return Constraint(ConstraintConfig(**form), tokenizer, stop)


def write(one: Constraint, tokenizer: Tokenizer, seed: int, longest: int = 300) -> tuple[str, bool]:
    """A text drawn token by token, and whether it came to an end."""
    generator, ids, prompt = torch.Generator().manual_seed(seed), [], [1, 2]
    for n in range(longest):
        history = History(torch.tensor([prompt + ids]), torch.tensor([2 + n]), n)
        if n and one.ended(history):
            return tokenizer.decode(ids), True
        p = one.forward(torch.randn(1, tokenizer.vocab_size + 7, generator=generator), history).softmax(-1)
        token = int(torch.multinomial(p[0], 1, generator=generator))
        if token == tokenizer.eos_id:
            return tokenizer.decode(ids), True
        ids.append(token)
    return tokenizer.decode(ids), False


@pytest.mark.parametrize("regex", [r"[0-9]{2}(-[0-9]{2}){2}", r"(abc|ä+ö), (12|34)\.", r"b"])
def test_a_text_matches_its_expression(tokenizer: Tokenizer, regex: str) -> None:
    one = stage(tokenizer, regex=regex)
    for seed in range(8):
        text, ended = write(copy.deepcopy(one), tokenizer, seed)
        assert re.fullmatch(regex, text) if ended else "ä" in regex, text


def test_a_text_is_json_of_the_schema(tokenizer: Tokenizer) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"enum": ["ä", "bc"]}, "age": {"type": "integer", "minimum": 1, "maximum": 99}},
        "required": ["name", "age"],
        "additionalProperties": False,
        "x-guidance": {"whitespace_flexible": False},
    }
    for form in (schema, json.dumps(schema)):
        for seed in range(4):
            text, ended = write(stage(tokenizer, json_schema=form), tokenizer, seed)
            assert ended
            found = json.loads(text)
            assert set(found) == {"name", "age"}
            assert found["name"] in ("ä", "bc")
            assert 1 <= found["age"] <= 99


def test_a_text_follows_its_grammar(tokenizer: Tokenizer) -> None:
    grammar = 'start: "a" start "b" | "a" "b"'  # no regular expression counts
    lengths = set()
    for seed in range(8):
        text, ended = write(stage(tokenizer, grammar=grammar), tokenizer, seed)
        n = len(text) // 2
        assert text == "a" * n + "b" * n if ended else set(text) <= {"a", "b"}
        lengths.add(n)
    assert len(lengths) > 1


def test_the_end_of_text_is_allowed_where_the_form_may_end_and_only_there() -> None:
    tokenizer = ByteTokenizer()
    one = stage(tokenizer, regex="ab*c?")
    allowed = []
    ids = list(b"xyabbc")
    for n in range(5):
        history = History(torch.tensor([ids[: 2 + n]]), torch.tensor([2 + n]), n)
        assert not one.ended(history) or n == 4
        allowed.append(set((one.forward(torch.zeros(1, 260), history)[0] == 0).nonzero().flatten().tolist()))
    end = tokenizer.eos_id
    assert allowed == [{97}, {98, 99, end}, {98, 99, end}, {98, 99, end}, {end}]


def test_without_an_end_of_text_a_whole_text_ends_by_itself() -> None:
    tokenizer = CharacterTokenizer("abc")
    one = stage(tokenizer, regex="ab")
    histories = [History(torch.tensor([[0, 0, 1][: 1 + n]]), torch.tensor([1 + n]), n) for n in range(3)]
    assert [bool(one.ended(history)) for history in histories] == [False, False, True]


def test_rows_and_beams_go_their_own_ways() -> None:
    tokenizer = CharacterTokenizer("abcxyz")
    one = stage(tokenizer, regex="(ax|by|cz)+")

    def allowed(rows: list[str]) -> list[str]:
        ids = torch.tensor([tokenizer.encode("a" + row) for row in rows])
        n = len(rows[0])
        out = one.forward(torch.zeros(len(rows), 6), History(ids, torch.full((len(rows),), 1 + n), n))
        return ["".join(tokenizer.decode([i]) for i in range(6) if row[i] == 0) for row in out]

    assert allowed(["", ""]) == ["abc", "abc"]
    assert allowed(["a", "b"]) == ["x", "y"]
    one.reorder(torch.tensor([1, 0, 1]))
    trial = copy.deepcopy(one)
    assert allowed(["by", "ax", "by"]) == ["abc"] * 3
    assert allowed(["bya", "axb", "byc"]) == ["x", "y", "z"]
    one = trial
    assert allowed(["by", "ax", "by"]) == ["abc"] * 3


def test_what_an_earlier_stage_has_left_must_agree() -> None:
    one = stage(CharacterTokenizer("abc"), regex="a+")
    with pytest.raises(GenerationError, match=r"removed every token it allows\n.*first in the chain"):
        one.forward(torch.tensor([[-torch.inf, 0.0, 0.0]]), History(torch.tensor([[0]]), torch.tensor([1])))


@pytest.mark.parametrize("form", [{"regex": "[0-9]+"}, {"json_schema": {"type": "object"}}, {"regex": "ad"}])
def test_a_form_that_the_tokenizer_cannot_spell_is_refused(form: Any) -> None:
    tokenizer = CharacterTokenizer("abc")
    with pytest.raises(GenerationError, match="no token of the tokenizer goes on here"):
        write(stage(tokenizer, **form), tokenizer, 0)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"regex": "("}, "unclosed group"),
        ({"grammar": "start: nothing"}, 'unknown name: "nothing"'),
        ({"json_schema": "{"}, "not a JSON schema"),
        ({"json_schema": "[1]"}, "a schema is a mapping"),
        ({"json_schema": {"type": "nothing"}}, "Invalid type"),
    ],
)
def test_a_form_that_is_none_is_refused(form: Any, message: str) -> None:
    with pytest.raises(ConfigProblem, match=message):
        stage(ByteTokenizer(), **form)


@pytest.mark.parametrize("form", [{}, {"regex": "a", "grammar": 'start: "a"'}])
def test_one_form_is_wanted(form: Any) -> None:
    with pytest.raises(SpecError, match="one of regex, json_schema, grammar is needed"):
        resolve_part("sampler", {"name": "constraint", **form}, REGISTRY)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GenerationError, match="without a tokenizer"):
        Constraint(ConstraintConfig(regex="a"), None, ())
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(LaminaError, match=r"llguidance.*\n.*pip install 'lamina\[constraints\]'"):
        stage(ByteTokenizer(), regex="a")
