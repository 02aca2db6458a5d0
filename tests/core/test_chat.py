"""A conversation: every answer is that of the whole history, and the cache is read on from where it can be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_specs import build_moved

import lamina
from lamina.core.chat import Chat
from lamina.core.chat_terminal import CONTROLS, Terminal, read_messages
from lamina.core.errors import DataError, GenerationError, LaminaError, ModelError
from lamina.core.model import Model, save
from lamina.core.resolve import resolve_data
from lamina.core.train import Trainer, create_run
from lamina.plugins.tokenizer.bpe import BPEConfig, BPETokenizer

CHATML = """\
{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
NAMES = ["<|im_start|>", "<|im_end|>", "<|stop|>"]


def make(folder: Path, context_length: int = 512, **changes: Any) -> Model:
    """A tiny model in a directory, its weights random."""
    config = BPEConfig(special_tokens=NAMES)
    tokenizer = BPETokenizer.train(config, ["the user and the assistant, hello hello what is it"], 290)
    (folder / "tok").mkdir(parents=True)
    tokenizer.save(folder / "tok")
    data: dict[str, Any] = {
        "lamina": 1,
        "dim": 16,
        "vocab_size": 300,  # more than the tokenizer has
        "context_length": context_length,
        "tokenizer": {"name": "bpe", "path": "tok/tokenizer.json", "special_tokens": NAMES},
        "position": "rope",
        "norm": "rms",
        "block": {"attention": {"name": "gqa", "n_heads": 2}, "ffn": "gated"},
        "layers": 2,
        "init": {"std": 0.3},
        **changes,
    }
    spec = resolve_data(data, directory=folder)
    saved = save(Model(build_moved(spec), tokenizer, spec), folder / "model")
    (saved / "tokenizer" / "chat_template.jinja").write_text(CHATML)
    return lamina.load(saved)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return make(tmp_path_factory.mktemp("chat"))


def fresh(model: Model, chat: Chat, ids: list[int], n: int, **options: Any) -> Any:
    """What generate gives for the conversation."""
    return model.generate(torch.tensor([ids]), max_new_tokens=n, stop_ids=chat.stop_ids, **options)


MIXERS: dict[str, dict[str, Any]] = {
    "attention": {},
    "window": {
        "block": {"attention": {"name": "gqa", "n_heads": 2, "mask": {"name": "sliding", "window": 6}}, "ffn": "gated"}
    },
    "recurrent": {"position": "none", "block": {"attention": {"name": "mamba"}, "ffn": "gated"}},
    "by length": {
        "position": {"name": "rope", "scaling": {"name": "dynamic", "factor": 2.0, "original_context_length": 16}}
    },
}


@pytest.mark.parametrize("mixer", MIXERS)
def test_every_answer_is_that_of_the_whole_conversation(mixer: str, tmp_path: Path) -> None:
    model = make(tmp_path, **MIXERS[mixer])
    chat = Chat(model, max_new_tokens=8, sampler="temperature")
    for turn, said in enumerate(("hello", "what is it?", "the <|im_end|> user")):
        before = chat.messages[:]
        reply = chat.stream(said)
        ids = chat.token_ids()
        text = "".join(reply)
        expected = fresh(model, chat, ids, 8, sampler="temperature", seed=turn)
        assert reply.token_ids == expected.token_ids[0].tolist()
        assert text == reply.text == expected.text
        assert reply.stop == expected.finish_reasons[0]
        answer = {"role": "assistant", "content": text}
        assert chat.messages == [*before, {"role": "user", "content": said}, answer]


def said(model: Model, text: str) -> list[int]:
    """Ids that text comes back to, so that what was generated is read as it was."""
    assert model.tokenizer is not None
    return model.tokenizer.encode(text)


class Script:
    """A sampler chain's last word: these ids, one after the other."""

    def __init__(self, model: Model, *answers: list[int]) -> None:
        self.left = [token for answer in answers for token in answer]
        head = model.decoder.head
        head.register_forward_hook(self._force)
        self._head = head

    def _force(self, module: Any, inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        forced = torch.full_like(logits, -1e4)
        forced[:, -1, self.left.pop(0)] = 0
        return forced

    def stop(self) -> None:
        self._head._forward_hooks.clear()


@pytest.fixture
def scripted(model: Model) -> Iterator[Any]:
    made: list[Script] = []

    def script(*answers: list[int]) -> Script:
        made.append(Script(model, *answers))
        return made[-1]

    yield script
    for one in made:
        one.stop()


def ends(model: Model) -> dict[str, int]:
    assert model.tokenizer is not None
    return model.tokenizer.special_ids


def test_only_new_tokens_are_read(model: Model, scripted: Any) -> None:
    end = ends(model)["<|im_end|>"]
    scripted([*said(model, "hello"), end], [*said(model, "what is it"), end], [end])
    chat = Chat(model)
    first = chat.stream("the user")
    before = len(chat.token_ids())
    assert "".join(first) == "hello"
    second = chat.stream("and?")
    ids = chat.token_ids()
    assert "".join(second) == "what is it"
    # All that was generated is in the cache but the end of the turn, after which nothing had to come.
    assert chat._step.n_read == len(ids) - before - len(said(model, "hello"))
    chat.system = "the system"
    third = chat.stream("again")
    ids = chat.token_ids()
    assert list(third) == []
    assert chat._step.n_read == len(ids) - 1  # all but the token before the first role


def test_a_turn_ends_at_the_end_of_text_at_what_is_configured_and_at_what_the_template_writes(
    model: Model, scripted: Any, tmp_path: Path
) -> None:
    known = ends(model)
    file = model.spec.directory / "tokenizer" / "generation_config.json"
    beside = model.spec.directory / "generation_config.json"
    assert Chat(model).stop_ids == {known["<|endoftext|>"], known["<|im_end|>"]}
    try:
        for told, more in ((known["<|stop|>"], {known["<|stop|>"]}), ([0, 7], {0, 7}), (None, set())):
            file.write_text(json.dumps({"eos_token_id": told}))
            beside.write_text('{"eos_token_id": 9}')
            assert Chat(model).stop_ids == {known["<|endoftext|>"], known["<|im_end|>"], 9} | more
        file.write_text('{"eos_token_id": "x"}')
        with pytest.raises(DataError, match=r"generation_config.json.*not 'x'"):
            Chat(model)
    finally:
        file.unlink()
        beside.unlink()
    scripted([*said(model, "hello"), known["<|im_end|>"]])
    reply = Chat(model).stream("hi")
    assert list(reply)
    assert (reply.text, reply.stop, reply.token_ids[-1]) == ("hello", "stop_token", known["<|im_end|>"])


def test_an_interrupted_answer_is_kept_as_far_as_it_came(model: Model) -> None:
    chat = Chat(model, max_new_tokens=20, sampler="greedy")
    whole = chat.stream("hello")
    text = "".join(whole)
    chat.reset()
    reply = chat.stream("hello")
    first = next(reply)
    chat.stream("and now?").end()
    assert reply.stop == "interrupted"
    assert reply.text.startswith(first)
    assert text.startswith(reply.text)
    assert [message["content"] for message in chat.messages] == ["hello", reply.text]
    assert list(reply) == []


def test_a_failure_in_the_middle_leaves_no_half_cache(model: Model) -> None:
    chat = Chat(model, max_new_tokens=6, sampler="greedy")
    calls = []

    def fail(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    hook = model.decoder.layers[1].register_forward_pre_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        chat.say("hello")
    hook.remove()
    kept = chat.messages[:]
    reply = chat.stream("what?")
    ids = chat.token_ids()
    assert "".join(reply) == fresh(model, chat, ids, 6, sampler="greedy", seed=1).text
    assert chat.messages[: len(kept)] == kept


def test_what_does_not_fit_the_context_is_told_and_not_kept(model: Model) -> None:
    chat = Chat(model, max_new_tokens=2)
    chat.say("hello")
    before = chat.messages[:]
    with pytest.raises(GenerationError, match=r"takes \d+ tokens, and the context holds 512(?s:.*)/reset"):
        chat.say("x1" * 300)
    assert chat.messages == before
    chat.reset()
    chat.say("hello")


def test_an_answer_ends_where_the_context_is_full(tmp_path: Path) -> None:
    chat = Chat(make(tmp_path, context_length=40), max_new_tokens=100, sampler="temperature")
    chat.stop_ids = set()
    reply = chat.stream("hello")
    room = 40 - len(chat.token_ids())
    list(reply)
    assert (reply.stop, len(reply.token_ids)) == ("context", room)


def test_a_system_message_comes_first_and_survives_a_reset(model: Model) -> None:
    chat = Chat(model, system="the system", max_new_tokens=2)
    chat.say("hello")
    assert [message["role"] for message in chat.messages] == ["system", "user", "assistant"]
    chat.system = "another"
    chat.reset()
    assert chat.messages == [{"role": "system", "content": "another"}]
    chat.system = None
    assert (chat.messages, chat.system) == ([], None)
    with pytest.raises(GenerationError, match="a system message already"):
        Chat(model, system="a", messages=[{"role": "system", "content": "b"}])


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ({"role": "user"}, "a role and a content"),
        ("hello", "a role and a content"),
        ({"role": "<|im_end|>", "content": ""}, "role must be a word"),
        ({"role": "user", "content": 3}, "must be a text, not int"),
    ],
)
def test_what_is_no_message_is_refused(model: Model, message: Any, told: str) -> None:
    with pytest.raises(GenerationError, match=told):
        Chat(model, messages=[message])


def test_there_must_be_something_to_answer(model: Model) -> None:
    for messages in ([], [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]):
        with pytest.raises(GenerationError, match="no message to answer"):
            Chat(model, messages=messages).answer()


def test_a_template_may_be_given_with_what_it_reads(model: Model, tmp_path: Path) -> None:
    chat = Chat(model, "{{ eos_token }}{{ mood }}{{ messages[-1].content }}", variables={"mood": "happy"})
    chat.messages = [{"role": "user", "content": "x"}]
    assert chat.token_ids() == [ends(model)["<|endoftext|>"], *said(model, "happyx")]
    with pytest.raises(ModelError, match="is not Jinja"):
        Chat(model, "{% if %}")


def test_a_model_keeps_its_template_when_it_is_saved_and_trained_further(model: Model, tmp_path: Path) -> None:
    file = model.spec.directory / "generation_config.json"
    file.write_text(json.dumps({"eos_token_id": 7}))
    (tmp_path / "text.txt").write_text("the user and the assistant " * 400)
    spec = resolve_data({**model.spec.dump(), "train": {"steps": 1, "batch_size": 1, "context": 8}})
    try:
        again = lamina.load(save(model, tmp_path / "again"))
        run = create_run(spec, tmp_path / "text.txt", tmp_path / "run", start=model.spec.directory)
    finally:
        file.unlink()
    Trainer(run).train()
    for kept in (again, lamina.load(tmp_path / "run")):
        chat = Chat(kept)
        assert chat.template.text == CHATML
        assert 7 in chat.stop_ids


# The terminal


class Screen:
    """What a person sees, and types."""

    def __init__(self, chat: Chat, *lines: str | BaseException, patient: bool = True) -> None:
        self.lines, self.out, self.notes = list(lines), "", list[str]()
        self.terminal = Terminal(chat, self.write, self.notes.append, patient=patient)
        self.terminal.run(self.read)

    def read(self) -> str:
        if not self.lines:
            raise EOFError
        line = self.lines.pop(0)
        if isinstance(line, BaseException):
            raise line
        return line

    def write(self, piece: str) -> None:
        self.out += piece


def test_commands_do_what_help_says(model: Model, tmp_path: Path) -> None:
    chat = Chat(model, max_new_tokens=3)
    file = tmp_path / "talk.jsonl"
    screen = Screen(
        chat,
        "/help", "/system the system", "hello", f"/save {file}", "//hello", f"/save {file}", "/rest", "/save", "/reset",
        "/system", "", KeyboardInterrupt(), "hello", "/exit", "never read",
    )  # fmt: skip
    assert screen.lines == ["never read"]
    saved = [json.loads(line) for line in file.read_text().splitlines()]
    assert [message["role"] for message in saved] == ["system", *["user", "assistant"] * 2]
    assert [saved[0]["content"], saved[1]["content"], saved[3]["content"]] == ["the system", "hello", "/hello"]
    assert [message["role"] for message in chat.messages] == ["user", "assistant"]
    notes = "\n".join(screen.notes)
    for command in ("/system", "/reset", "/save", "/help", "/exit"):
        assert f"{command} " in screen.notes[0]
    assert "did you mean '/reset'" in notes
    assert "/save needs a file" in notes
    assert "Ctrl-D" in notes
    answers = [m["content"] for m in [*saved, *chat.messages] if m["role"] == "assistant"]
    assert screen.out == "".join(answer.translate(CONTROLS) + "\n" for answer in answers)


def test_nothing_is_overwritten(model: Model, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    screen = Screen(Chat(model), f"/save {tmp_path / 'mine'}")
    assert "exists already" in screen.notes[0]
    assert (tmp_path / "mine").read_text() == "precious"


def test_ctrl_c_stops_the_answer_and_not_the_chat(model: Model) -> None:
    chat = Chat(model, max_new_tokens=50, sampler="greedy")

    class Impatient(Screen):
        pieces = 0

        def write(self, piece: str) -> None:
            super().write(piece)
            self.pieces += 1
            if self.pieces == 2:
                raise KeyboardInterrupt

    screen = Impatient(chat, "hello", "/exit", "never read")
    assert screen.notes == ["(stopped)"]
    assert screen.lines == ["never read"]
    assert screen.out == chat.messages[1]["content"].translate(CONTROLS) + "\n"
    with pytest.raises(KeyboardInterrupt):
        Impatient(Chat(model, max_new_tokens=50, sampler="greedy"), "hello", patient=False)


def test_an_answer_cannot_command_the_terminal(model: Model, scripted: Any) -> None:
    answer = [*said(model, "a\x1b]0;x\x07\tb\nc"), ends(model)["<|im_end|>"]]
    scripted(answer, answer)
    assert Screen(Chat(model), "hello").out == "a\\x1b]0;x\\x07\tb\nc\n\n"
    assert Screen(Chat(model), "hello", patient=False).out == "a\x1b]0;x\x07\tb\nc\n"


def test_a_mistake_ends_a_script_and_not_a_chat(model: Model) -> None:
    Screen(Chat(model, max_new_tokens=1), "/what", "hello")
    with pytest.raises(LaminaError, match="no command '/what'"):
        Screen(Chat(model), "/what", patient=False)


def test_stdin_holds_a_message_or_a_list_of_them() -> None:
    talk = [{"role": "user", "content": "a"}]
    assert read_messages(json.dumps(talk).encode()) == talk
    for text in ("hello", "[1, 2] what is it?", "[1, 2]", "[", '{"a": 1}', "two\nlines"):
        assert read_messages(f"{text}\n".encode()) == [{"role": "user", "content": text}]
    with pytest.raises(GenerationError, match="holds no message"):
        read_messages(b" \n")
    with pytest.raises(DataError, match="not UTF-8"):
        read_messages(b"\xff")
