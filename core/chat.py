"""A conversation with a model: messages laid out by its chat template, answers streamed, the cache kept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lamina.core.cache import Cache
from lamina.core.chat_template import END_PLACES, ChatTemplate, find_template
from lamina.core.errors import DataError, GenerationError
from lamina.core.files import write_atomically
from lamina.core.generate import Choice, DecoderStep, Stream, stream
from lamina.core.rope_scaling import FixedScaling, RopeScaling
from lamina.core.special_files import ROLES, SpecialFiles
from lamina.core.tokenizer import Tokenizer

if TYPE_CHECKING:
    from lamina.core.decoder import Decoder
    from lamina.core.model import Model

ROLE = re.compile("[A-Za-z][A-Za-z_-]*")


class Chat:
    """Messages so far, and the answers a model gives to them.

    `template` is Jinja text, by default what the model's directory has. `variables` are what the template may read
    besides the messages (`tools`, `enable_thinking`, …). Every answer is what `generate` would give for the whole
    conversation; tokens that the cache still holds are not read again.
    """

    def __init__(
        self,
        model: Model,
        template: str | ChatTemplate | None = None,
        *,
        system: str | None = None,
        messages: Iterable[Mapping[str, Any]] = (),
        max_new_tokens: int = 512,
        sampler: Choice | Sequence[Choice] | None = None,
        seed: int = 0,
        variables: Mapping[str, Any] | None = None,
    ) -> None:
        if model.tokenizer is None:
            raise GenerationError("the model has no tokenizer, so there is no way to talk to it")
        self.model, self.tokenizer = model, model.tokenizer
        folder = model.spec.directory
        if template is None:
            template = find_template(folder)
        self.template = ChatTemplate(template) if isinstance(template, str) else template
        self.max_new_tokens, self.sampler, self.seed = max_new_tokens, sampler, seed
        self.variables = {**_special_texts(self.tokenizer, folder), **(variables or {})}
        own = self.template.end_of_turn(self.tokenizer, **self.variables)
        self.stop_ids = _end_ids(self.tokenizer, folder) | ({own} if own is not None else set())
        self._step = KeptStep(model.decoder, self.tokenizer.vocab_size)
        self._reply: Reply | None = None
        self.messages = [checked(message) for message in messages]
        if system is not None:
            if self.system is not None:
                raise GenerationError("the messages have a system message already", hint="give one or the other")
            self.system = system

    @property
    def system(self) -> str | None:
        """The system message, which comes first. Setting it keeps the messages; None takes it away."""
        return next((str(message["content"]) for message in self.messages if message["role"] == "system"), None)

    @system.setter
    def system(self, text: str | None) -> None:
        self._end_reply()
        rest = [message for message in self.messages if message["role"] != "system"]
        self.messages = ([] if text is None else [{"role": "system", "content": text}]) + rest

    def say(self, text: str) -> str:
        """The answer to a message."""
        reply = self.stream(text)
        for _ in reply:
            pass
        return reply.text

    def stream(self, text: str) -> Reply:
        """The answer to a message, piece by piece. When it has come to its end, or `Reply.end` is called, it is a
        message too; a message that cannot be answered is not kept."""
        self._end_reply()
        self.messages.append(checked({"role": "user", "content": text}))
        try:
            return self.answer()
        except BaseException:
            self.messages.pop()
            raise

    def answer(self) -> Reply:
        """The answer to the messages as they are, the last of which is no answer."""
        self._end_reply()
        if not self.messages or self.messages[-1]["role"] == "assistant":
            raise GenerationError("there is no message to answer", hint="the last message must not be the assistant's")
        ids = self.token_ids()
        context = self.model.decoder.context_length
        if len(ids) >= context:
            raise GenerationError(
                f"the conversation takes {len(ids)} tokens, and the context holds {context}, the answer included",
                hint="begin anew (/reset), say less, or use a model with a longer context_length",
            )
        turn = sum(message["role"] == "assistant" for message in self.messages)
        pieces = stream(
            self.model,
            self._step.tensor(ids),
            max_new_tokens=self.max_new_tokens,
            sampler=self.sampler,
            seed=self.seed + turn,  # or every answer would be drawn with the same numbers
            stop_ids=self.stop_ids,
            step=self._step.with_room,
        )
        self._reply = Reply(pieces, self.messages)
        return self._reply

    def token_ids(self) -> list[int]:
        """The conversation, up to where the answer begins."""
        return self.template.encode(self.tokenizer, self.messages, add_generation_prompt=True, **self.variables)

    def reset(self) -> None:
        """Forget all but the system message."""
        self._end_reply()
        self.messages = [message for message in self.messages if message["role"] == "system"]

    def save(self, path: str | Path) -> None:
        """Write the messages as JSON lines."""
        self._end_reply()
        lines = [json.dumps(message, ensure_ascii=False) + "\n" for message in self.messages]
        write_atomically(Path(path), "".join(lines))

    def _end_reply(self) -> None:
        if self._reply is not None:
            self._reply.end()
        self._reply = None


class Reply(Iterator[str]):
    """The pieces of an answer. Once they have all come, or after `end`, what there is to tell of it."""

    def __init__(self, pieces: Stream, messages: list[dict[str, Any]]) -> None:
        self._pieces: Stream | None = pieces
        self._messages = messages
        self.text = ""
        self.token_ids: list[int] = []  # the one that ended the turn included
        self.stop: str = ""  # stop_token, length, context, complete, interrupted; "" while it goes on

    def __next__(self) -> str:
        if self._pieces is None:
            raise StopIteration
        try:
            return next(self._pieces)
        except BaseException:  # the end, an interruption, or a failure: what has come is all there is
            self.end()
            raise

    def end(self) -> None:
        """Say no more; what has been said is kept as a message. When nothing has, the message it was to answer goes."""
        if self._pieces is None:
            return
        (row,) = self._pieces.generation().rows(None)
        self._pieces = None
        self.text, self.token_ids = row.text, row.token_ids
        self.stop = str(row.finish_reason) or "interrupted"
        if self.text or self.stop != "interrupted":
            self._messages.append({"role": "assistant", "content": self.text})
        else:
            self._messages.pop()


class KeptStep(DecoderStep):
    """A decoder whose cache is kept from one prompt to the next: of a prompt only what is new is read.

    `features` after `start` are those of the tokens that were read.
    """

    def __init__(self, decoder: Decoder, n_known: int) -> None:
        super().__init__(decoder, 0, n_known)
        self._held: list[int] = []  # the tokens in the cache; none while a call runs, which may be interrupted
        self.n_read = 0  # tokens of the last prompt that were not in the cache
        # Of such decoders keys depend on how long the text may become, which changes with every message.
        self._keeps = not any(
            isinstance(part, RopeScaling) and not isinstance(part, FixedScaling)
            for module in decoder.modules()
            for part in vars(module).values()
        )

    def tensor(self, ids: list[int]) -> Tensor:
        """(1, T)"""
        return torch.tensor([ids], dtype=torch.int64, device=self._decoder.device)

    def with_room(self, room: int) -> KeptStep:
        """The same with room for so many tokens after the next prompt."""
        self._room = room
        return self

    def start(self, token_ids: Tensor, lengths: Tensor) -> Tensor:
        (ids,) = token_ids.tolist()
        held, self._held = self._held, []
        shared = self._shared(held, ids) if held else 0
        self.n_read = len(ids) - shared
        if shared == 0:
            logits = super().start(token_ids, lengths)
        else:
            self._marked = None
            self._cache.crop(shared)
            needed, cache = len(ids) + self._room, self._cache
            if needed > cache.length:
                cache.grow(min(max(needed, 2 * cache.length), max(needed, self._decoder.context_length)))
            self.features = self._decoder.features(token_ids[:, shared:], cache=cache)
            logits = self.after_prompt()
        self._held = ids
        return logits

    def advance_many(self, token_ids: Tensor) -> Tensor:
        held, self._held = self._held, []
        logits = super().advance_many(token_ids)
        self._held = held + token_ids[0].tolist()
        return logits

    def _shared(self, held: list[int], ids: list[int]) -> int:
        """How many tokens from the beginning the cache need not read again; the last one always is, for its logits."""
        most = min(len(held), len(ids) - 1)
        shared = next((at for at in range(most) if held[at] != ids[at]), most)
        cache: Cache = self._cache
        usable = self._keeps and shared >= self._decoder.lookahead and cache.can_crop(shared)
        return shared if usable else 0


def checked(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as a template takes it, or GenerationError: a role that is a word, a content that is text or parts."""
    if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
        raise GenerationError("a message must have a role and a content", hint='{"role": "user", "content": "Hello"}')
    role, content = message["role"], message["content"]
    # Templates may build special tokens of roles, so a role has no signs in it.
    if not isinstance(role, str) or not ROLE.fullmatch(role):
        raise GenerationError(f"a message's role must be a word such as user or assistant, not {role!r:.80}")
    if not isinstance(content, str | list):
        raise GenerationError(f"a message's content must be a text, not {type(content).__name__}")
    return dict(message)


def _special_texts(tokenizer: Tokenizer, folder: Path) -> dict[str, str]:
    """What templates read as bos_token, eos_token, …"""
    texts = {i: name for name, i in tokenizer.special_ids.items()}
    found = {"bos_token": tokenizer.bos_id, "eos_token": tokenizer.eos_id}
    told = {role: texts[i] for role, i in found.items() if i is not None and i in texts}
    with suppress(DataError):  # these files are the tokenizer's, which says what is wrong with them
        roles = SpecialFiles.read(folder / "tokenizer").roles
        told = {role: text for role in ROLES if (text := roles.get(role))} | told
    return told


def _end_ids(tokenizer: Tokenizer, folder: Path) -> set[int]:
    """The end of text and what the model's generation_config.json calls so."""
    ends = set() if tokenizer.eos_id is None else {tokenizer.eos_id}
    for path in (folder / place for place in END_PLACES):
        if not path.is_file():
            continue
        named = Tokenizer.read_json(path).get("eos_token_id")
        more = named if isinstance(named, list) else [] if named is None else [named]
        wrong = [i for i in more if isinstance(i, bool) or not isinstance(i, int) or i < 0]
        if wrong:
            raise DataError(f"'{path}': eos_token_id must be a token id or a list of them, not {wrong[0]!r}")
        ends |= set(more)
    return ends
