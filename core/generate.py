"""From a prompt to text: check the request, run a strategy over the decoder, turn each row to text as it grows."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from lamina.core.build import build_part
from lamina.core.cache import Cache
from lamina.core.component import Part
from lamina.core.config_reader import say
from lamina.core.continuation import Continuation
from lamina.core.decoding import Decoding, OtherModel, Request, Step
from lamina.core.errors import ConfigProblem, GenerationError
from lamina.core.resolve import resolve_part
from lamina.core.sampler import Sampler
from lamina.core.tokenizer import Tokenizer
from lamina.core.trace import StageTrace, Trace

if TYPE_CHECKING:
    from lamina.core.decoder import Decoder
    from lamina.core.model import Model

WORTH_SHARING = 8  # tokens several prompts begin with

Prompt = str | Sequence[str] | Tensor
Choice = str | Mapping[str, Any] | Part  # a component: its name, its options with its name, or resolved
FinishReason = Literal["stop_token", "stop_string", "length", "context", "complete"]  # complete: by a sampler's word


@dataclass(frozen=True, eq=False)
class Generation:
    """What was generated, without the prompt. `text` is a list when the prompt was more than one."""

    text: str | list[str]  # up to the stop string or token; "" when the model has no tokenizer
    token_ids: Tensor  # (B, new tokens) int64, the stop token included, padded with -1
    finish_reasons: list[FinishReason]  # one a row
    statistics: list[dict[str, float]]  # of each row's decoding, what the strategy has to tell
    trace: list[list[list[StageTrace]]] | None = None  # of each row, of each of its tokens: what the stages did

    def rows(self, tokenizer: Tokenizer | None) -> list[GeneratedRow]:
        """Row by row, with what each token stands for."""
        texts = self.text if isinstance(self.text, list) else [self.text]
        ids = [[token for token in row if token >= 0] for row in self.token_ids.tolist()]
        return [
            GeneratedRow(
                texts[row],
                tokens,
                tokenizer.token_texts(tokens) if tokenizer is not None else list(map(str, tokens)),
                self.finish_reasons[row],
                self.statistics[row],
                None if self.trace is None else self.trace[row],
            )
            for row, tokens in enumerate(ids)
        ]


@dataclass(frozen=True)
class GeneratedRow:
    """What was generated for one prompt."""

    text: str
    token_ids: list[int]
    token_texts: list[str]
    finish_reason: FinishReason
    statistics: dict[str, float]
    trace: list[list[StageTrace]] | None

    def to_json(self) -> dict[str, Any]:
        told: dict[str, Any] = {"text": self.text, "token_ids": self.token_ids, "finish_reason": self.finish_reason}
        if self.statistics:
            told["statistics"] = self.statistics
        if self.trace is not None:
            told["trace"] = [
                {"token_id": token, "text": text, "stages": [asdict(stage) for stage in stages]}
                for token, text, stages in zip(self.token_ids, self.token_texts, self.trace, strict=True)
            ]
        return told


def generate(
    model: Model,
    prompt: Prompt,
    *,
    max_new_tokens: int = 128,
    sampler: Choice | Sequence[Choice] | None = None,
    decoding: Choice | None = None,
    seed: int = 0,
    stop: str | Sequence[str] = (),
    stop_ids: Iterable[int] | None = None,
    trace: bool = False,
) -> Generation:
    """Continue `prompt`: a text, several texts, or token ids (B, T).

    `sampler` is a stage or a chain of stages, by default the spec's own; `decoding` a strategy, by default `sample`.
    A row ends after a token of `stop_ids` (by default the tokenizer's end of text), before a string of `stop`, after
    `max_new_tokens`, where the decoder's context is full, or when a stage says that its text is complete. Row b
    depends on its own prompt, `seed` and b alone. With `trace` the result tells what each stage did at each token.
    """
    run = _Run(model, prompt, max_new_tokens, sampler, decoding, seed, stop, stop_ids, trace)
    for _ in run.pieces():
        pass
    return run.generation()


def stream(
    model: Model,
    prompt: str | Tensor,
    *,
    max_new_tokens: int = 128,
    sampler: Choice | Sequence[Choice] | None = None,
    decoding: Choice | None = None,
    seed: int = 0,
    stop: str | Sequence[str] = (),
    stop_ids: Iterable[int] | None = None,
    trace: bool = False,
    step: Callable[[int], Step] | None = None,
) -> Stream:
    """The text of `generate` with the same arguments, piece by piece as it becomes final; for one prompt.

    `step`: room for so many new tokens -> what runs the decoder, by default with a cache of its own.
    """
    run = _Run(model, prompt, max_new_tokens, sampler, decoding, seed, stop, stop_ids, trace, step)
    if len(run.rows) != 1:
        raise GenerationError(f"only one prompt can be streamed, not {len(run.rows)}", hint="call generate instead")
    if model.tokenizer is None:
        raise GenerationError("a model without a tokenizer has no text to stream", hint="call generate instead")
    return Stream(run)


class Stream(Iterator[str]):
    """The pieces of a text, and once they have all come, all that `generate` tells of it."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._pieces = (piece for pieces in run.pieces() if (piece := pieces[0]))

    def __next__(self) -> str:
        return next(self._pieces)

    def generation(self) -> Generation:
        """What has come so far."""
        return self._run.generation()


class DecoderStep:
    """The `Step` a strategy is given: a decoder and the cache that follows along."""

    def __init__(self, decoder: Decoder, room: int, n_known: int | None = None) -> None:
        """`room` new tokens fit the cache. Ids from `n_known` on have no token and are never to be chosen."""
        self._decoder, self._room = decoder, room
        self._n_known = decoder.vocab_size if n_known is None else min(n_known, decoder.vocab_size)
        self._cache: Cache
        self._marked: int | Cache | None = None  # where the mark is, or what the cache was there
        self._since: list[Tensor] = []  # tokens (B, n) since the mark
        self.features: Tensor

    def start(self, token_ids: Tensor, lengths: Tensor) -> Tensor:
        batch, length = token_ids.shape
        sizes: list[int] = lengths.tolist()
        self._check_lookahead(min(sizes))
        self._cache = self._decoder.make_cache(batch, length + self._room)
        self._cache.grow(length + self._room)  # with its padding a row may take more room than a context
        prompts = [token_ids[row : row + 1, length - size :] for row, size in enumerate(sizes)]
        shared = _shared(prompts)
        shared = shared if shared >= max(WORTH_SHARING, self._decoder.lookahead) else 0
        if not shared and min(sizes) == length:
            self.features = self._decoder.features(token_ids, cache=self._cache)  # (B, L, D)
            return self.after_prompt()
        # Each prompt by itself, so that padding costs nothing; what all begin with, once.
        beginning = self._beginning(prompts[sizes.index(length)][:, :shared]) if shared else None
        self._cache.stand_at(length)
        found = []
        for row, ids in enumerate(prompts):
            if beginning is None:
                cache = self._decoder.make_cache(1, ids.shape[1] + self._room)
                cache.grow(ids.shape[1] + self._room)
                features = self._decoder.features(ids, cache=cache)
            else:
                cache = beginning[1].clone()
                features = torch.cat([beginning[0], self._decoder.features(ids[:, shared:], cache=cache)], 1)
            self._cache.put(row, cache)
            found.append(F.pad(features, (0, 0, length - ids.shape[1], 0)))
        self.features = torch.cat(found)
        return self.after_prompt()

    def _beginning(self, token_ids: Tensor) -> tuple[Tensor, Cache] | None:
        """Features and cache of what several prompts (1, T) begin with; None where these depend on how they go on."""
        length = self._cache.length
        cache = self._decoder.make_cache(1, length)
        cache.grow(length)
        context = self._decoder.context(token_ids, cache=cache)
        features = self._decoder.run(context, cache)
        return None if context.queries.length_asked else (features, cache)

    def after_prompt(self) -> Tensor:
        """Logits (B, V) after the last token of the prompts that `features` are of."""
        logits = self._known(self._decoder.head(self.features[:, -1:])[:, 0])
        if not bool((logits.amax(-1).isfinite() & ~logits.isnan().any(-1)).all()):
            raise GenerationError(
                "the decoder's logits after the prompt are not numbers",
                hint="its weights are broken, or too large for this dtype: try dtype float32",
            )
        return logits

    def _check_lookahead(self, shortest: int) -> None:
        known = self._decoder.lookahead
        if known == math.inf:
            raise GenerationError(
                "this decoder's mask sees later tokens, so there is no next token to generate",
                hint="generate with a causal mask; encoders are for comparison",
            )
        if shortest < known:
            raise GenerationError(
                f"this decoder's mask sees later tokens among the first {known}, and a prompt has {shortest}",
                hint=f"give prompts of {known} tokens or more",
            )

    def advance(self, token_ids: Tensor) -> Tensor:
        return self.advance_many(token_ids.unsqueeze(1))[:, 0]

    def advance_many(self, token_ids: Tensor) -> Tensor:
        if self._marked is not None:
            self._since.append(token_ids)
        self.features = self._decoder.features(token_ids, cache=self._cache)  # (B, n, D)
        return self._known(self._decoder.head(self.features))

    def reorder(self, rows: Tensor) -> None:
        self._cache.reorder(rows)
        self._marked = None

    def mark(self, n_tokens: int) -> None:
        self._since = []
        croppable = self._cache.can_take_back(n_tokens)
        self._marked = self._cache.used if croppable else self._cache.clone()

    def keep(self, n_tokens: int) -> None:
        if self._marked is None:
            raise ValueError("keep is for tokens since a mark, and rows have been reordered since")
        marked, self._marked = self._marked, None
        if n_tokens == sum(tokens.shape[1] for tokens in self._since):
            return
        if isinstance(marked, int):
            self._cache.crop(marked + n_tokens)
            return
        self._cache = marked
        if n_tokens:
            self._decoder.features(torch.cat(self._since, 1)[:, :n_tokens], cache=self._cache)

    def _known(self, logits: Tensor) -> Tensor:
        if self._n_known < logits.shape[-1]:
            logits[..., self._n_known :] = -torch.inf
        return logits


def _shared(prompts: list[Tensor]) -> int:
    """How many tokens several prompts (1, T) begin with alike; the last of each is left to itself."""
    if len(prompts) == 1:
        return 0
    size = min(ids.shape[1] for ids in prompts) - 1
    alike = torch.stack([ids[0, :size] == prompts[0][0, :size] for ids in prompts]).all(0)
    return int(alike.cumprod(0).sum())


class _Run:
    """One call of `generate` or `stream`: everything a person gave is checked before anything is computed."""

    def __init__(
        self,
        model: Model,
        prompt: Prompt,
        max_new_tokens: int,
        sampler: Choice | Sequence[Choice] | None,
        decoding: Choice | None,
        seed: int,
        stop: str | Sequence[str],
        stop_ids: Iterable[int] | None,
        trace: bool,
        step: Callable[[int], Step] | None = None,
    ) -> None:
        decoder, tokenizer = model.decoder, model.tokenizer
        for name, number, least in (("max_new_tokens", max_new_tokens, 1), ("seed", seed, 0)):
            if isinstance(number, bool) or not isinstance(number, int) or number < least:
                raise GenerationError(f"{name} must be a whole number from {least}, not {say(number)}")
        stops = [stop] if isinstance(stop, str) else list(stop)
        wrong = [text for text in stops if not isinstance(text, str) or not text]
        if wrong:
            raise GenerationError(f"a stop string must be a text that is not empty, not {say(wrong[0])}")
        if stops and tokenizer is None:
            raise GenerationError("a model without a tokenizer cannot look for stop strings", hint="give stop_ids")
        if stop_ids is None:
            end = None if tokenizer is None else tokenizer.eos_id
            stop_ids = () if end is None else (end,)

        prompts = _prompt_ids(model, prompt)
        self.many = not isinstance(prompt, str) and (not isinstance(prompt, Tensor) or len(prompts) > 1)
        longest, device = max(map(len, prompts)), decoder.device
        stop_ids = frozenset(stop_ids)
        told = {"tokenizer": tokenizer, "vocab_size": decoder.vocab_size}
        parts = _chain(model, sampler)
        chain: list[Sampler] = [
            _built(
                part,
                stop_ids=stop_ids,
                generators=[_generator(seed, row, place) for row in range(len(prompts))],
                **told,
            )
            for place, part in enumerate(parts)
        ]
        self.trace = Trace() if trace else None
        if self.trace is not None:
            names = [part.name for part in parts]
            chain = self.trace.wrap(list(zip(names, chain, strict=True)), len(prompts))
        self.request = Request(
            # Any id may fill the left: padding is told apart by the lengths alone.
            token_ids=torch.tensor([[0] * (longest - len(ids)) + ids for ids in prompts], device=device),
            lengths=torch.tensor([len(ids) for ids in prompts], device=device),
            max_new_tokens=max_new_tokens,
            context_length=decoder.context_length,
            chain=chain,
            generators=[_generator(seed, row) for row in range(len(prompts))],
            stop_ids=stop_ids,
        )
        strategy = _part(model, "decoding", "lamina:sample" if decoding is None else decoding)
        self.strategy: Decoding = _built(strategy, open_model=lambda directory: _other(model, directory), **told)
        self.step = step
        self.decoder, self.n_known = decoder, None if tokenizer is None else tokenizer.vocab_size
        self.rows = [
            Continuation(
                limit,
                "length" if limit == max_new_tokens else "context",
                self.request.stop_ids,
                stops,
                # Ids given as a tensor may end within a character, so their text is none to go on from.
                None if tokenizer is None else tokenizer.stream(() if isinstance(prompt, Tensor) else ids),
            )
            for ids, limit in zip(prompts, self.request.limits.tolist(), strict=True)
        ]

    # As a decorator it holds while tokens are computed and not, as a `with` would, in the caller's code between them.
    @torch.inference_mode()
    def pieces(self) -> Iterator[list[str]]:
        """Run the strategy; each time tokens are final, the text every row can show now."""
        if all(row.reason for row in self.rows):
            return
        training = [module for module in self.decoder.modules() if module.training]
        self.decoder.eval()
        try:
            room = int(self.request.limits.max())
            step = DecoderStep(self.decoder, room, self.n_known) if self.step is None else self.step(room)
            for tokens in self.strategy.decode(step, self.request):
                for column in tokens.T.tolist():  # (B,)
                    yield [row.push(token) if token >= 0 else "" for row, token in zip(self.rows, column, strict=True)]
                if all(row.reason for row in self.rows):
                    return
            yield [row.end("complete") for row in self.rows]  # the strategy ended them because a stage said so
        finally:
            for module in training:
                module.training = True

    def generation(self) -> Generation:
        texts = [row.text for row in self.rows]
        longest = max(len(row.token_ids) for row in self.rows)
        padded = [row.token_ids + [-1] * (longest - len(row.token_ids)) for row in self.rows]
        return Generation(
            text=texts if self.many else texts[0],
            token_ids=torch.tensor(padded, dtype=torch.int64).view(len(padded), longest),
            finish_reasons=[cast(FinishReason, row.reason) for row in self.rows],
            statistics=[dict(self.strategy.statistics(row)) for row in range(len(self.rows))],
            trace=None
            if self.trace is None
            else [self.trace.of(place, row.token_ids) for place, row in enumerate(self.rows)],
        )


def _prompt_ids(model: Model, prompt: Prompt) -> list[list[int]]:
    """The token ids of every prompt, checked against vocabulary and context."""
    decoder = model.decoder
    prompts = _given_ids(prompt) if isinstance(prompt, Tensor) else _encoded(model, prompt)
    for row, ids in enumerate(prompts):
        which = f"prompt {row + 1}" if len(prompts) > 1 else "the prompt"
        if not ids:
            start = _start_id(model)
            if start is None:
                raise GenerationError(f"{which} is empty and the model has no token to begin with", hint="give a text")
            ids.append(start)
        wrong = next((token for token in ids if not 0 <= token < decoder.vocab_size), None)
        if wrong is not None:
            raise GenerationError(
                f"{which} holds token id {wrong}, but the decoder's ids go from 0 to {decoder.vocab_size - 1}",
                hint="were these ids made by another tokenizer?",
            )
        if len(ids) > decoder.context_length:
            raise GenerationError(
                f"{which} has {len(ids)} tokens, but the context holds {decoder.context_length}",
                hint="shorten the prompt, or use a model with a longer context_length",
            )
    return prompts


def _given_ids(token_ids: Tensor) -> list[list[int]]:
    if token_ids.dtype != torch.int64:
        raise GenerationError(f"token ids must be int64, not {token_ids.dtype}", hint="call .long() on them")
    if token_ids.ndim != 2 or not len(token_ids):
        shape = tuple(token_ids.shape)
        raise GenerationError(f"token ids must have the shape (batch, tokens), not {shape}", hint="one row a prompt")
    ids: list[list[int]] = token_ids.tolist()
    return ids


def _encoded(model: Model, prompt: str | Sequence[str]) -> list[list[int]]:
    texts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise GenerationError("a prompt must be a text, a list of texts, or a tensor of token ids (batch, tokens)")
    if not texts:
        raise GenerationError("the list of prompts is empty")
    if model.tokenizer is None:
        raise GenerationError("the model has no tokenizer", hint="give token ids, a tensor (batch, tokens)")
    bos = model.tokenizer.bos_id
    begin = [bos] if bos is not None and model.tokenizer.adds_bos else []
    return [begin + model.tokenizer.encode(text) for text in texts]


def _start_id(model: Model) -> int | None:
    """What stands before a text when nothing else does."""
    if model.tokenizer is None:
        return None
    return model.tokenizer.eos_id if model.tokenizer.bos_id is None else model.tokenizer.bos_id


def _chain(model: Model, sampler: Choice | Sequence[Choice] | None) -> list[Part]:
    if sampler is None:
        return list(model.spec.sampler)
    stages = [sampler] if isinstance(sampler, str | Mapping | Part) else sampler
    return [_part(model, "sampler", stage) for stage in stages]


def _part(model: Model, kind: str, choice: Choice) -> Part:
    if not isinstance(choice, Part):
        raw = choice if isinstance(choice, str) else dict(choice)
        name = raw if isinstance(raw, str) else raw.get("name", "")
        return resolve_part(kind, raw, model.registry, where=f"{kind} {say(name)}")
    if choice.kind != kind:
        raise GenerationError(f"'{choice.name}' is of the kind {choice.kind}, where a {kind} is wanted")
    return choice


def _built(part: Part, **told: Any) -> Any:
    """A stage or a strategy for this request; what it finds wrong with its options is told with its name."""
    try:
        return build_part(part, **told)
    except ConfigProblem as problem:
        message = f"{part.kind} '{part.name}': {problem.field}: {problem.message}"
        raise GenerationError(message, hint=problem.hint) from None


def _other(model: Model, directory: str) -> OtherModel:
    other = model.beside(directory)
    known = None if other.tokenizer is None else other.tokenizer.vocab_size
    return OtherModel(
        other.tokenizer,
        other.decoder.vocab_size,
        other.decoder.context_length,
        lambda room: DecoderStep(other.decoder, room, known),
    )


def _generator(seed: int, *place: int) -> torch.Generator:
    """A row's own, or that of a row and a stage. Hashed because torch keeps 32 bits of a CPU seed, and seed + row would
    repeat other seeds' rows."""
    digest = hashlib.blake2b("/".join(map(str, (seed, *place))).encode(), digest_size=4).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))
