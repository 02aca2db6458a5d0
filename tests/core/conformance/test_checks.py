"""Each check catches, by its name, a component that breaks what it is about."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from pydantic import ConfigDict, Field
from torch import Tensor, nn

from lamina.core import (
    FFN,
    Activation,
    Attention,
    Backend,
    Component,
    ComponentConfig,
    ConfigKeys,
    Context,
    Corpus,
    Decoder,
    Decoding,
    FixedScaling,
    History,
    LayerState,
    Linear,
    LlamaLike,
    Mask,
    Norm,
    Optimizer,
    Register,
    Request,
    Residual,
    ResolvedSpec,
    Router,
    RouterLinear,
    Routing,
    Sampler,
    Schedule,
    Span,
    Step,
    Tokenizer,
    hookimpl,
    one_by_one,
)
from lamina.core.conformance import Item, Wrong, checks_of, items_of
from lamina.core.conformance.checks import kinds_with_checks
from lamina.core.conformance.run import run
from lamina.core.registry import Registry, load_plugin, load_plugins

BUILTIN = load_plugins(only=[])
CAUGHT: list[tuple[type[Component], str]] = []


def items(component: type[Component]) -> dict[str, Item]:
    """Its checks by name, registered as a plugin of its own."""

    @hookimpl
    def register_components(register: Register) -> None:
        register("odd", component)

    module = SimpleNamespace(register_components=register_components)
    plugin = load_plugin("odd", "odd", "odd-parts", "1", lambda: module)
    assert plugin.error is None
    registry = Registry.of([*BUILTIN.plugins, plugin])
    return {item.check.name: item for item in items_of(plugin.entries, registry)}


def caught_by(*names: str) -> Callable[[type[Component]], type[Component]]:
    """The class decorated is broken, and these checks say so."""

    def add(component: type[Component]) -> type[Component]:
        CAUGHT.extend((component, name) for name in names)
        return component

    return add


# ---- Attention: a running mean of what came before


class Decay(Attention):
    """Keeps every contract of an attention."""

    def __init__(self, config: Any, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.value = Linear(dim, dim)

    def make_state(self, batch: int, length: int, dtype: torch.dtype, device: torch.device) -> LayerState:
        return LayerState(batch, length, dtype, device, registers={"mean": (self.dim,)})

    def starts(self, context: Context) -> Tensor:
        return context.queries.positions == 0

    def forward(self, x: Tensor, context: Context, cache: LayerState | None = None) -> Tensor:
        v = self.value(x)
        mean = cache.read("mean").to(v.dtype) if cache is not None else torch.zeros_like(v[:, 0])
        starts = self.starts(context).expand(x.shape[0], -1)
        means = []
        for t in range(x.shape[1]):
            mean = torch.lerp(mean.masked_fill(starts[:, t : t + 1], 0.0), v[:, t], 0.5)
            means.append(mean)
        if cache is not None:
            cache.write("mean", mean)
        return torch.stack(means, 1)


@caught_by("no future", "any cache split")
class SeesAll(Decay):
    """Adds the mean of all tokens."""

    def forward(self, x: Tensor, context: Context, cache: LayerState | None = None) -> Tensor:
        return super().forward(x, context, cache) + x.mean(1, keepdim=True)


@caught_by("documents in a cache")
class OneDocumentWhenCached(Decay):
    """Goes on into the next document, in cached calls alone."""

    def forward(self, x: Tensor, context: Context, cache: LayerState | None = None) -> Tensor:
        if cache is None:
            return super().forward(x, context)
        first = Context(context.token_ids, Span(context.queries.positions + cache.used))
        return super().forward(x, first, cache)


@caught_by("documents apart")
class OneDocument(Decay):
    """Goes on into the next document."""

    def starts(self, context: Context) -> Tensor:
        return torch.zeros_like(context.queries.positions, dtype=torch.bool)


@caught_by("rows apart")
class Mingles(Decay):
    """Looks at the other rows."""

    def forward(self, x: Tensor, context: Context, cache: LayerState | None = None) -> Tensor:
        return super().forward(x, context, cache) + x.mean(0, keepdim=True)


@caught_by("any cache split", "mixes tokens")
class Forgets(Decay):
    """Begins anew with each token."""

    def starts(self, context: Context) -> Tensor:
        return torch.ones_like(context.queries.positions, dtype=torch.bool)

    def forward(self, x: Tensor, context: Context, cache: LayerState | None = None) -> Tensor:
        out = super().forward(x, context, cache)
        return out if cache is None else out * 2


@caught_by("cache moves", "cache not advanced")
class OwnMemory(Decay):
    """Keeps its state beside the cache."""

    memory: Tensor | None = None

    def forward(self, x: Tensor, context: Context, cache: LayerState | None = None) -> Tensor:
        if cache is None:
            return super().forward(x, context)
        v, start = self.value(x), self.starts(context)
        if context.queries.start == 0 or self.memory is None:
            self.memory = torch.zeros_like(v[:, 0])
        means = []
        for t in range(x.shape[1]):
            begun = start.expand(x.shape[0], -1)[:, t : t + 1]
            self.memory = torch.lerp(self.memory.masked_fill(begun, 0.0), v[:, t], 0.5)
            means.append(self.memory)
        return torch.stack(means, 1)


@caught_by("cache room")
class WrongRoom(Decay):
    """Makes room for one row whatever the batch."""

    def make_state(self, batch: int, length: int, dtype: torch.dtype, device: torch.device) -> LayerState:
        return super().make_state(1, length, dtype, device)


@caught_by("position sizes")
class NoSizes(Decay):
    """Claims to let a position act, and tells it no sizes."""

    @classmethod
    def provides(cls, config: Any) -> frozenset[str]:
        return frozenset({"queries_keys"})


@caught_by("compiles")
class BreaksTheGraph(Decay):
    """Reads a value."""

    def forward(self, x: Tensor, context: Context, cache: LayerState | None = None) -> Tensor:
        return super().forward(x, context, cache) * (2.0 if float(x.sum()) > 1e9 else 1.0)


@caught_by("repeatable")
class Random(Decay):
    """Is noisy in evaluation."""

    def forward(self, x: Tensor, context: Context, cache: LayerState | None = None) -> Tensor:
        return super().forward(x, context, cache) + torch.rand_like(x)


@caught_by("state dict")
class Hides(Decay):
    """Keeps a drawn tensor where no state dict finds it."""

    def __init__(self, config: Any, dim: int) -> None:
        super().__init__(config, dim)
        self.hidden = torch.randn(dim)

    def forward(self, x: Tensor, context: Context, cache: LayerState | None = None) -> Tensor:
        return super().forward(x, context, cache) * self.hidden.to(x.device, x.dtype)


@caught_by("meta device")
class PlainTensor(Decay):
    """Makes a constant that stays on the meta device."""

    def __init__(self, config: Any, dim: int) -> None:
        super().__init__(config, dim)
        self.scale = torch.linspace(1.0, 2.0, dim)

    def forward(self, x: Tensor, context: Context, cache: LayerState | None = None) -> Tensor:
        return super().forward(x, context, cache) * self.scale.to(x.dtype)


@caught_by("dtype")
class Widens(Decay):
    """Gives float32 for bfloat16."""

    def forward(self, x: Tensor, context: Context, cache: LayerState | None = None) -> Tensor:
        return super().forward(x, context, cache).to(torch.promote_types(x.dtype, torch.float32))


@caught_by("gradients")
class WrongGradient(Decay):
    """Holds back a part of the gradient."""

    def forward(self, x: Tensor, context: Context, cache: LayerState | None = None) -> Tensor:
        out = super().forward(x, context, cache)
        return out + out.detach()


@caught_by("autocast")
class Explodes(Decay):
    """Has no gradient in training."""

    def forward(self, x: Tensor, context: Context, cache: LayerState | None = None) -> Tensor:
        out = super().forward(x, context, cache)
        return out + (out - out).abs().sqrt() if self.training else out


@caught_by("every weight learns")
class Idle(Decay):
    """Has a weight without a use."""

    def __init__(self, config: Any, dim: int) -> None:
        super().__init__(config, dim)
        self.idle = nn.Parameter(torch.ones(3))


# ---- What holds for every kind: a norm


class Half(Norm):
    """Keeps every contract of a norm."""

    def forward(self, x: Tensor) -> Tensor:
        return x / 2


@caught_by("says what it is")
class Silent(Half):
    __doc__ = None


class Undescribed(ComponentConfig):
    eps: float = 1e-6


@caught_by("options described")
class HalfUndescribed(Half):
    """Has an option that nobody explains."""

    Config = Undescribed


class Lax(ComponentConfig):
    model_config = ConfigDict(extra="ignore")


@caught_by("options strict")
class HalfLax(Half):
    """Ignores what it does not know."""

    Config = Lax


@caught_by("asks for what it is told")
class Asks(Half):
    """Asks for what a norm is not told."""

    def __init__(self, config: Any, dim: int = 3) -> None:
        super().__init__()


class Grows(ComponentConfig):
    width: int = Field(1, description="A width.")

    def derive(self) -> dict[str, Any]:
        return {"width": self.width + 1}


@caught_by("resolves to itself")
class HalfGrows(Half):
    """Derives another value each time."""

    Config = Grows


@caught_by("requires and provides")
class Says(Half):
    """Provides a text in place of a set of them."""

    @classmethod
    def provides(cls, config: Any) -> Any:
        return "scores"


@caught_by("each vector by itself")
class Batchwise(Half):
    """Looks at other vectors."""

    def forward(self, x: Tensor) -> Tensor:
        return x / (1 + x.abs().amax())


@caught_by("finite")
class DividesByZero(Half):
    """Has nothing for a vector of zeros."""

    def forward(self, x: Tensor) -> Tensor:
        return x / x.norm(dim=-1, keepdim=True)


class NeedsText(ComponentConfig):
    rates: list[float] = Field(description="Must be given.")


class NoExamples(Half):
    """Has a required option that cannot be guessed."""

    Config = NeedsText


# ---- The other kinds


@caught_by("compiles")
class Peeks(Half):
    """Reads a value."""

    def forward(self, x: Tensor) -> Tensor:
        return x / 2 if float(x.sum()) > 1e9 else x / 3


@caught_by("each number by itself")
class Softmax(Activation):
    """Is no function of one number."""

    def forward(self, x: Tensor) -> Tensor:
        return x.softmax(-1)


@caught_by("finite", "zero at zero")
class Exponential(Activation):
    """Overflows."""

    def forward(self, x: Tensor) -> Tensor:
        return x.exp()


class Halving(FFN):
    """Keeps every contract of an ffn."""

    def __init__(self, config: Any, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor, context: Context) -> Tensor:
        return x * self.weight


@caught_by("each token by itself")
class Shifts(Halving):
    """Reads the token before."""

    def forward(self, x: Tensor, context: Context) -> Tensor:
        return x * self.weight + torch.cat([x[..., :1, :] * 0, x[..., :-1, :]], -2)


@caught_by("shapes")
class OnlyBatches(Halving):
    """Takes three axes and no fewer."""

    def forward(self, x: Tensor, context: Context) -> Tensor:
        batch, length, dim = x.shape
        return (x.reshape(batch * length, dim) * self.weight).view(batch, length, dim)


@caught_by("compiles")
class OtherwiseCompiled(Halving):
    """Is another function once it is compiled."""

    def forward(self, x: Tensor, context: Context) -> Tensor:
        return x * self.weight * (2 if torch.compiler.is_compiling() else 1)


@caught_by("active parameters")
class Boasts(Halving):
    """Counts weights it has not."""

    def active_parameters(self) -> int:
        return 10**6


class Join(Residual):
    """Keeps every contract of a residual."""

    def forward(self, stream: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        return stream + sublayer(stream)


@caught_by("one sublayer call")
class Twice(Join):
    """Calls the sublayer twice."""

    def forward(self, stream: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        return stream + sublayer(stream) + sublayer(stream)


@caught_by("compiles")
class PeeksAtTheStream(Join):
    """Reads a value."""

    def forward(self, stream: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        return stream + sublayer(stream) * (2.0 if float(stream.sum()) > 1e9 else 1.0)


@caught_by("widen and narrow")
class StaysWide(Join):
    """Never narrows what it widened."""

    def widen(self, x: Tensor) -> Tensor:
        return torch.stack([x, x])

    def forward(self, stream: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        return stream + sublayer(stream[0])


@caught_by("sublayer counts")
class Drops(Join):
    """Calls the sublayer for nothing."""

    def forward(self, stream: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        sublayer(stream)
        return stream


class Choose(Router):
    """Keeps every contract of a router."""

    balanced_loss: ClassVar[float] = 1.0
    experts_per_token = 2

    def __init__(self, config: Any, dim: int, n_experts: int) -> None:
        super().__init__()
        self.linear = RouterLinear(dim, n_experts)

    def forward(self, x: Tensor, context: Context) -> Routing:
        logits = self.linear(x)
        scores = logits.softmax(-1)
        weights, indices = scores.topk(2, -1)
        return Routing(logits, scores, weights, indices)


@caught_by("routing")
class OutOfRange(Choose):
    """Names an expert that is not there."""

    def forward(self, x: Tensor, context: Context) -> Routing:
        routing = super().forward(x, context)
        return Routing(routing.logits, routing.scores, routing.weights, routing.indices + 7)


@caught_by("compiles")
class PeeksAtTokens(Choose):
    """Reads a value."""

    def forward(self, x: Tensor, context: Context) -> Routing:
        return super().forward(x * 2 if float(x.sum()) > 1e9 else x, context)


@caught_by("tokens apart")
class Compares(Choose):
    """Weighs tokens against each other."""

    def forward(self, x: Tensor, context: Context) -> Routing:
        return super().forward(x - x.mean(0), context)


@caught_by("losses")
class AlwaysLoses(Choose):
    """Has losses in evaluation too."""

    def forward(self, x: Tensor, context: Context) -> Routing:
        routing = super().forward(x, context)
        routing.losses = {"router_z": routing.logits.square().mean()}
        return routing


@caught_by("weight sum")
class Overweighs(Choose):
    """Says that weights are scaled to sum to one, and leaves them as they are."""

    weight_sum = 1.0


@caught_by("learns")
class Deaf(Choose):
    """Weighs all that it chooses alike, so that nothing tells it what to choose."""

    def forward(self, x: Tensor, context: Context) -> Routing:
        routing = super().forward(x, context)
        return Routing(routing.logits, routing.scores, torch.ones_like(routing.weights), routing.indices)


class Weighed(ComponentConfig):
    balance_loss: float = Field(0.5, description="Weight of the balance loss.")


@caught_by("balanced loss")
class Understates(Choose):
    """Forgets to multiply by the number of experts."""

    Config = Weighed

    def forward(self, x: Tensor, context: Context) -> Routing:
        routing = super().forward(x, context)
        if self.training:
            fractions = routing.load() / routing.indices.numel()
            routing.losses = {"router_balance": 0.5 * (fractions * routing.scores.mean(0)).sum()}
        return routing


class Window(Mask):
    """Keeps every contract of a mask: the last three tokens."""

    def __init__(self, config: Any) -> None:
        pass

    @property
    def reach(self) -> int | None:
        return 3

    def allowed(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        return q_positions - k_positions < 3


@caught_by("sees itself")
class Blind(Window):
    """Sees only what came before."""

    def allowed(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        return k_positions < q_positions


@caught_by("reach is true", "in an attention")
class ReachesFurther(Window):
    """Sees four tokens and says three."""

    def allowed(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        return q_positions - k_positions < 4


@caught_by("reach is true")
class HasGaps(Window):
    """Says that it fills a reach in which it has a gap."""

    @property
    def fills_reach(self) -> bool:
        return True

    def allowed(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        return (q_positions - k_positions) % 2 * 1 + (q_positions - k_positions >= 3) * 1 == 0


@caught_by("dense_up_to is true")
class Overstates(Window):
    """Says that four tokens see each other."""

    @property
    def dense_up_to(self) -> float:
        return 4


@caught_by("positions alone")
class CountsEntries(Window):
    """Counts the entries given in place of the positions they stand at."""

    def allowed(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        q = torch.arange(q_positions.shape[-2]).unsqueeze(-1)
        k = torch.arange(k_positions.shape[-1])
        return (q - k < 3).unsqueeze(0)


class Wide(ComponentConfig):
    wide: bool = Field(False, description="See six tokens.")


@caught_by("pattern is true")
class OnePattern(Window):
    """Shares a pattern between masks that differ."""

    Config = Wide

    def __init__(self, config: Any) -> None:
        self.size = 6 if config.wide else 3

    @property
    def pattern(self) -> Any:
        return "window"

    @property
    def reach(self) -> int | None:
        return None

    def allowed(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        return q_positions - k_positions < self.size


class Stage(Sampler):
    """Keeps every contract of a sampler."""

    only_removes = removes_none = keeps_best = forgetful = True

    def __init__(self, config: Any) -> None:
        pass

    def forward(self, logits: Tensor, history: History) -> Tensor:
        return logits * 1.0


@caught_by("leaves a distribution")
class RemovesAll(Stage):
    """Leaves nothing where all are alike."""

    def forward(self, logits: Tensor, history: History) -> Tensor:
        return logits.masked_fill(logits <= logits.amin(-1, keepdim=True), -torch.inf)


@caught_by("leaves a distribution")
class InPlace(Stage):
    """Changes what it was given."""

    def forward(self, logits: Tensor, history: History) -> Tensor:
        return logits.mul_(2)


@caught_by("rows apart")
class Averages(Stage):
    """Looks at the other rows."""

    def forward(self, logits: Tensor, history: History) -> Tensor:
        return logits + logits.nan_to_num(neginf=0.0).mean(0)


@caught_by("repeatable")
class Noisy(Stage):
    """Draws from torch's own generator."""

    def forward(self, logits: Tensor, history: History) -> Tensor:
        return logits + torch.rand_like(logits)


@caught_by("reorder")
class Sticks(Stage):
    """Remembers by row, and does not follow."""

    def __init__(self, config: Any) -> None:
        self.sum: Any = 0.0

    def forward(self, logits: Tensor, history: History) -> Tensor:
        self.sum = self.sum + logits.nan_to_num(neginf=0.0) if isinstance(self.sum, float) else self.sum
        n = min(len(logits), len(self.sum))
        return torch.cat([logits[:n] + self.sum[:n], logits[n:]])


@caught_by("acts as declared")
class Reweighs(Stage):
    """Says that it only removes, and changes what it leaves."""

    removes_none = keeps_best = forgetful = False

    def forward(self, logits: Tensor, history: History) -> Tensor:
        return logits * 0.5


@caught_by("acts as declared")
class Cuts(Stage):
    """Says that it removes nothing, and removes the least likely."""

    only_removes = keeps_best = forgetful = False

    def forward(self, logits: Tensor, history: History) -> Tensor:
        least = logits.masked_fill(logits == -torch.inf, torch.inf).argmin(-1, keepdim=True)
        return logits.scatter(-1, least, -torch.inf)


@caught_by("acts as declared")
class Beheads(Stage):
    """Says that it keeps the best, and removes it."""

    only_removes = removes_none = forgetful = False

    def forward(self, logits: Tensor, history: History) -> Tensor:
        return logits.scatter(-1, logits.argmax(-1, keepdim=True), -torch.inf)


@caught_by("acts as declared")
class Recalls(Stage):
    """Says that it forgets, and goes by the last token."""

    only_removes = removes_none = keeps_best = False

    def forward(self, logits: Tensor, history: History) -> Tensor:
        return logits.scatter_add(-1, history.token_ids[:, -1:], torch.ones(len(logits), 1))


class Take(Decoding):
    """Keeps every contract of a decoding."""

    def __init__(self, config: Any) -> None:
        pass

    def decode(self, step: Step, request: Request) -> Iterator[Tensor]:
        return one_by_one(step, request, lambda logits, rows: logits.argmax(-1))


@caught_by("greedy limit")
class Worst(Take):
    """Takes the token after the best."""

    def decode(self, step: Step, request: Request) -> Iterator[Tensor]:
        return one_by_one(step, request, lambda logits, rows: (logits.argmax(-1) + 1) % logits.shape[-1])


@caught_by("stops")
class GoesOn(Take):
    """Knows no stop token."""

    def decode(self, step: Step, request: Request) -> Iterator[Tensor]:
        deaf = Request(
            request.token_ids, request.lengths, request.max_new_tokens, request.context_length, request.chain
        )
        return super().decode(step, deaf)


@caught_by("rows apart")
class Agrees(Take):
    """Gives every row the first one's token."""

    def decode(self, step: Step, request: Request) -> Iterator[Tensor]:
        return one_by_one(step, request, lambda logits, rows: logits.argmax(-1)[:1].expand(len(logits)).clone())


@caught_by("repeatable")
class Dice(Take):
    """Draws from a generator of its own."""

    dice = random.Random(0)

    def decode(self, step: Step, request: Request) -> Iterator[Tensor]:
        def choose(logits: Tensor, rows: Tensor) -> Tensor:
            return torch.tensor([self.dice.randrange(logits.shape[-1]) for _ in rows])

        return one_by_one(step, request, choose)


class Bytes(Tokenizer):
    """Keeps every contract of a tokenizer."""

    @classmethod
    def open(cls, config: Any, directory: Path) -> Any:
        return cls()

    def save(self, directory: Path) -> ComponentConfig:
        return ComponentConfig()

    @property
    def vocab_size(self) -> int:
        return 257

    @property
    def special_ids(self) -> dict[str, int]:
        return {"<end>": 256}

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        pieces = self.split_special(text, ["<end>"] if allow_special else [])
        return [i for p in pieces for i in ([256] if allow_special and p == "<end>" else self.utf8(p))]

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        end = b"" if skip_special else b"<end>"
        return b"".join(bytes([i]) if i < 256 else end if i == 256 else b"" for i in ids).decode(errors="replace")


@caught_by("round trip")
class Lowers(Bytes):
    """Loses capitals without saying so."""

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        return super().encode(text.lower(), allow_special=allow_special)


@caught_by("round trip")
class Basic(Bytes):
    """Loses what lies far beyond the letters in use."""

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        near = "".join("?" if 0x2FFFF < ord(letter) < 0x10FFFF else letter for letter in text)
        return super().encode(near, allow_special=allow_special)


@caught_by("special tokens")
class Trusting(Bytes):
    """Takes every text that looks special for a special token."""

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        return super().encode(text, allow_special=True)


@caught_by("save and open")
class Forgetful(Bytes):
    """Opens to something else."""

    shift = 0

    @classmethod
    def open(cls, config: Any, directory: Path) -> Any:
        made = cls()
        made.shift = 1 if (directory / "saved").exists() else 0
        return made

    def save(self, directory: Path) -> ComponentConfig:
        (directory / "saved").touch()
        return ComponentConfig()

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        return [min(255, i + self.shift) for i in super().encode(text, allow_special=allow_special)]


@caught_by("streaming")
class StartsWithSpace(Bytes):
    """Decodes otherwise at the beginning of every call."""

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        text = super().decode(ids, skip_special=skip_special)
        return text if len(ids) < 30 else text[:-1]


@caught_by("unknown ids")
class Strict(Bytes):
    """Fails for an id of a padded vocabulary."""

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        return super().decode([list(range(257))[i] for i in ids], skip_special=skip_special)


@caught_by("repeatable")
class Counts(Bytes):
    """Is another one each time it is opened."""

    made = itertools.count()

    def __init__(self) -> None:
        self.number = next(self.made) % 200

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        return [*super().encode(text, allow_special=allow_special), self.number]


class Descend(Optimizer):
    """Keeps every contract of an optimizer."""

    def __init__(self, config: Any) -> None:
        pass

    def make(self, parameters: Iterable[tuple[str, nn.Parameter]], learning_rate: float) -> torch.optim.Optimizer:
        return torch.optim.SGD([p for _, p in parameters], lr=learning_rate, momentum=0.9)


@caught_by("descends")
class Climbs(Descend):
    """Goes up."""

    def make(self, parameters: Iterable[tuple[str, nn.Parameter]], learning_rate: float) -> torch.optim.Optimizer:
        return torch.optim.SGD([p for _, p in parameters], lr=learning_rate, maximize=True)


@caught_by("groups", "descends")
class Overlooks(Descend):
    """Leaves out what is no matrix."""

    def make(self, parameters: Iterable[tuple[str, nn.Parameter]], learning_rate: float) -> torch.optim.Optimizer:
        return torch.optim.SGD([p for _, p in parameters if p.ndim == 2], lr=learning_rate)


class Fixed(torch.optim.SGD):
    """Knows one rate."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["lr"] = 0.01
        return super().step(closure)


@caught_by("rate of the step")
class Stubborn(Descend):
    """Ignores the rate it is given for a step."""

    def make(self, parameters: Iterable[tuple[str, nn.Parameter]], learning_rate: float) -> torch.optim.Optimizer:
        return Fixed([p for _, p in parameters], lr=learning_rate)


class Unsaved(torch.optim.SGD):
    """Counts its steps where no state dict finds them."""

    steps = 0

    def step(self, closure: Any = None) -> Any:
        self.steps += 1
        kept = [group["lr"] for group in self.param_groups]
        for group in self.param_groups:
            group["lr"] /= self.steps
        super().step(closure)
        for group, rate in zip(self.param_groups, kept, strict=True):
            group["lr"] = rate


@caught_by("resumes")
class Loses(Descend):
    """Loses its count when it is resumed."""

    def make(self, parameters: Iterable[tuple[str, nn.Parameter]], learning_rate: float) -> torch.optim.Optimizer:
        return Unsaved([p for _, p in parameters], lr=learning_rate)


class Shaky(torch.optim.SGD):
    """Adds a little noise to its rate."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["lr"] *= 1 + 0.1 * random.random()
        return super().step(closure)


@caught_by("repeatable")
class Shakes(Descend):
    """Is not the same twice."""

    def make(self, parameters: Iterable[tuple[str, nn.Parameter]], learning_rate: float) -> torch.optim.Optimizer:
        return Shaky([p for _, p in parameters], lr=learning_rate)


class Constant(Schedule):
    """Keeps every contract of a schedule."""

    def __init__(self, config: Any) -> None:
        pass

    def factor(self, step: int, n_steps: int) -> float:
        return 1.0


@caught_by("factors")
class DividesByLast(Constant):
    """Fails for a run of one step."""

    def factor(self, step: int, n_steps: int) -> float:
        return 1 - step / (n_steps - 1)


@caught_by("pure")
class Remembers(Constant):
    """Falls with every call."""

    now = 1.0

    def factor(self, step: int, n_steps: int) -> float:
        self.now *= 0.99
        return self.now


@caught_by("documents")
class Empty(Corpus):
    """Has nothing, and does not say so."""

    def documents(self) -> Iterator[str]:
        return iter(())


@caught_by("repeatable")
class Once(Corpus):
    """Can be read once."""

    def __init__(self, config: Any, directory: Path) -> None:
        super().__init__(config, directory)
        self.left = iter(["a", "b", "c"])

    def documents(self) -> Iterator[str]:
        return self.left


@caught_by("eager logits")
class Scales(Backend):
    """Gives other logits."""

    def __init__(self, config: Any) -> None:
        pass

    def prepare(self, decoder: Decoder, *, training: bool) -> Decoder:
        decoder.head.scale = 2.0
        return decoder


@caught_by("trains")
class Freezes(Scales):
    """Takes the gradients away."""

    def prepare(self, decoder: Decoder, *, training: bool) -> Decoder:
        for parameter in decoder.layers.parameters():
            parameter.requires_grad_(False)
        return decoder


@caught_by("turns")
class WrongWidth(FixedScaling):
    """Has a frequency too many."""

    def __init__(self, config: Any, width: int) -> None:
        super().__init__([1.0] * (width // 2 + 1))


class Small(LlamaLike):
    """Keeps every contract of a family."""

    model_types = ("small",)
    architecture = "SmallForCausalLM"


@caught_by("names what it serves")
class Nameless(Small):
    """Serves nothing."""

    model_types = ()


@caught_by("strange configs")
class Credulous(Small):
    """Takes a number to be one."""

    def read(self, config: ConfigKeys) -> dict[str, Any]:
        return {**super().read(config), "dim": config.get("hidden_size", 1) * 2 + 1}


@caught_by("any spec")
class Narrow(Small):
    """Knows only what it wrote itself."""

    def write(self, spec: ResolvedSpec) -> dict[str, Any]:
        return {"hidden_size": spec.blocks["sliding"]}


GOOD = (Small, Decay, Half, Halving, Join, Choose, Window, Stage, Take, Bytes, Descend, Constant)


@pytest.mark.parametrize(("component", "name"), CAUGHT, ids=lambda value: getattr(value, "__name__", value))
def test_a_broken_component_is_caught_by_the_check_of_that_name(component: type[Component], name: str) -> None:
    (result,) = run([items(component)[name]], None if name == "pattern is true" else 1)
    assert result.passed is False
    assert result.message.startswith(("expected: ", "it raised "))


@pytest.mark.parametrize("component", GOOD, ids=lambda component: component.__name__)
def test_what_the_broken_ones_are_made_of_passes_every_check(component: type[Component]) -> None:
    for result in run(items(component).values()):
        assert result.passed is not False, f"{result.check}: {result.message}"


def test_every_check_is_shown_to_catch_something() -> None:
    shown = {(component.kind, name) for component, name in CAUGHT}
    names = {name for _, name in shown}
    for kind in kinds_with_checks() & set(BUILTIN.kinds()):
        for check in checks_of(kind):
            shared = sum(check.run is other.run for k in kinds_with_checks() for other in checks_of(k)) > 1
            assert (kind, check.name) in shown or (shared and check.name in names), f"{kind}: {check.name}"


def test_every_kind_has_checks() -> None:
    assert set(BUILTIN.kinds()) <= kinds_with_checks()


def test_options_that_cannot_be_guessed_are_asked_for() -> None:
    results = list(run(items(NoExamples).values()))
    assert [result.check for result in results] == ["examples"]
    assert "examples()" in results[0].message
    assert "'rates'" in results[0].message


def test_a_failure_names_the_smallest_case_it_fails_in() -> None:
    with pytest.raises(Wrong) as caught:
        items(SeesAll)["no future"]()
    assert caught.value.case == {"length": 2, "changed_from": 1, "options": "{}"}
    with pytest.raises(Wrong) as caught:
        items(Forgets)["any cache split"]()
    assert caught.value.case == {"length": 2, "calls_of": (1, 1), "options": "{}"}
    assert "smallest case: length 2, calls_of (1, 1)" in str(caught.value)
