"""The command line: parse, call the core, print.

Results go to stdout, progress and notes to stderr. Exit codes: 0 done, 1 failed at run time, 2 the user's input.
Each command imports what it needs when it runs, so that `--help` stays quick: the one reason for imports in functions.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

if TYPE_CHECKING:
    from lamina.core.generate import GeneratedRow
    from lamina.core.resolved import ResolvedSpec
    from lamina.core.train import Run

Function = TypeVar("Function", bound=Callable[..., Any])


class Lamina(click.Group):
    """A group that tells a user's mistake in one message and never with a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order they are written below, not of the alphabet

    def main(self, *args: Any, **kwargs: Any) -> Any:
        open_streams()
        with told():  # what `--help` prints is written while the command line is still being read
            return super().main(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        with told():
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result


def open_streams() -> None:
    """Streams that whoever started us has closed (`>&-`) lead nowhere, lest the next file opened stands for them."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)  # the lowest that is free: the stream's own
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8"))


@contextmanager
def told() -> Iterator[None]:
    """What a person can mend ends in one message and an exit code; a mistake of ours keeps its traceback."""
    from lamina.core.errors import LaminaError

    try:
        yield
    except LaminaError as error:
        leave(str(error), error.exit_code)
    except KeyboardInterrupt:
        leave("\ninterrupted", 130)
    except BrokenPipeError:  # the reader of our output has gone
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        if error.errno == errno.ENOSPC and error.filename is None:
            with suppress(OSError):
                sys.stdout.close()  # or its buffer is tried again at the end
            leave(f"the output cannot be written: {error.strerror}", 1)
        place = "" if error.filename is None else f"'{error.filename}': "
        leave(f"{place}{error.strerror or error}", 2 if isinstance(error, MISNAMED) else 1)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not NO_MEMORY.search(str(error)):
            raise
        why = str(error).splitlines()[0] if str(error) else ""
        leave(f"not enough memory: {why}\n  use smaller sizes: batch_size, context, or the model's own", 1)


# What is wrong with a file that a person named.
MISNAMED = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
# How torch says that memory has run out, on the processor and on devices.
NO_MEMORY = re.compile("can't allocate memory|out of memory", re.IGNORECASE)


def leave(message: str, code: int) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(code)


@click.group(cls=Lamina, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="lamina", prog_name="lamina")
def main() -> None:
    """Compose decoder language models from plugins by a YAML spec; train, profile and generate from them.

    SPEC is a YAML file or the name of a shipped spec; MODEL is a model directory or a run directory.
    """


class PlacePath(click.ParamType[Path]):
    """A path that names something."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if not str(value).strip():
            self.fail("an empty text is no path", param, ctx)
        return Path(value)


def json_option(function: Function) -> Function:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")(function)


def set_option(function: Function) -> Function:
    return click.option(
        "--set", "overrides", multiple=True, metavar="A.B=C", help="Override a value of the spec; may be repeated."
    )(function)


def read_overrides(overrides: Sequence[str]) -> dict[str, str]:
    """`--set a.b=c` flags as a mapping."""
    pairs = [flag.partition("=") for flag in overrides]
    for flag, (key, equals, _) in zip(overrides, pairs, strict=True):
        if not equals or not key.strip():
            raise click.BadParameter(f"'{flag}' is not of the form a.b=c", param_hint="--set")
    return {key.strip(): value.strip() for key, _, value in pairs}


def resolve_spec(spec: str, overrides: Sequence[str] = (), flags: Mapping[str, str] | None = None) -> ResolvedSpec:
    from lamina.core.resolve import resolve
    from lamina.core.spec import load_spec

    return resolve(load_spec(spec, read_overrides(overrides), flags=flags))


def resolve_any(name: str, overrides: Sequence[str] = ()) -> ResolvedSpec:
    """The spec of a file, of a shipped name, or of a model directory."""
    if not Path(name).is_dir():
        return resolve_spec(name, overrides)
    from lamina.core.model import find_model, read_model_spec

    folder = find_model(name)
    return resolve_spec(str(folder / "spec.yaml"), overrides) if overrides else read_model_spec(folder)


def component_choice(text: str, flag: str) -> Any:
    """`eager`, or `{name: compile, dynamic: true}`: a component as a spec would have it."""
    from lamina.core.reader import parse_value

    return parse_value(text, flag).plain()


def print_rich(*things: Any) -> None:
    """Tables on stdout, as wide as the terminal; where there is none, wide enough for a log."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False, soft_wrap=False)
    for thing in things:
        console.print(thing)


def print_json(data: Any) -> None:
    import json

    click.echo(json.dumps(data, indent=2, ensure_ascii=False))


# ---- begin: demo, new


@main.command()
@click.option("--out", type=PlacePath(), help="Run directory. Default: runs/demo, or the next free name.")
@click.option("--steps", type=int, help="Optimizer steps, for a shorter or longer demo.")
def demo(out: Path | None, steps: int | None) -> None:
    """Train a small decoder on Python's own sources for about a minute, then generate and profile."""
    from lamina.core.model import load
    from lamina.core.profile import profile as measure

    overrides = {} if steps is None else {"train.steps": str(steps)}
    target = out or next(path for path in _demo_names() if not path.exists())
    resolved = resolve_spec("demo", [f"{key}={value}" for key, value in overrides.items()])
    run_training(resolved, "python_stdlib", target, as_json=False)
    model = load(target)
    prompt = "def read_file(path):\n"
    click.echo(f"\nA continuation of {prompt!r}:\n")
    click.echo(prompt + str(model.generate(prompt, max_new_tokens=80, seed=0).text) + "\n")
    print_rich(measure(str(target), seconds=5).to_table())
    click.echo(
        f"""
Next:
  lamina generate {target} "class Stack:" --max-new-tokens 100
  lamina inspect demo
  lamina new my.yaml && lamina train my.yaml --data python_stdlib --steps 200 --out runs/mine"""
    )


def _demo_names() -> Iterator[Path]:
    yield Path("runs/demo")
    yield from (Path(f"runs/demo-{number}") for number in itertools.count(2))


@main.command()
@click.argument("file", type=PlacePath(), default="spec.yaml")
@click.option("--from", "shipped", metavar="NAME", default="starter", show_default=True, help="A shipped spec to copy.")
def new(file: Path, shipped: str) -> None:
    """Write a spec to start from into FILE (spec.yaml). Never overwrites."""
    from lamina.core.spec import copy_shipped

    copy_shipped(shipped, file)
    click.echo(f"wrote {file}; next: lamina validate {file}", err=True)


# ---- specs: validate, inspect, explain, diff


@main.command()
@click.argument("spec")
@set_option
@json_option
def validate(spec: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Check SPEC, its parts' shapes included, without spending memory."""
    from lamina.core.errors import LaminaError

    try:
        resolved = resolve_spec(spec, overrides)

        from lamina.core.dryrun import dry_run  # torch loads here: not for a spec that cannot be read
        from lamina.core.units import count

        run = dry_run(resolved)
    except LaminaError as error:
        if not as_json:
            raise
        print_json({"valid": False, "spec": spec, "problems": [problem.to_dict() for problem in error.problems]})
        sys.exit(error.exit_code)
    n_layers = resolved.layers.n_layers
    if as_json:
        summary = {"n_layers": n_layers, "parameters": run.parameters, "unchecked": run.unchecked}
        print_json({"valid": True, "spec": spec, "name": resolved.name, **summary})
        return
    click.echo(f"{spec}: valid — {n_layers} layer{'s' * (n_layers > 1)}, {count(run.parameters)} parameters")
    if run.unchecked:
        click.echo(f"note: shapes are checked in part only; {run.unchecked}", err=True)


@main.command()
@click.argument("spec", metavar="SPEC|MODEL")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Sequences at once.")
@click.option("--context", type=click.IntRange(1), help="Tokens in each. Default: the spec's context_length.")
@click.option("--dtype", default="bfloat16", show_default=True, help="What inference runs in.")
@set_option
@json_option
def inspect(spec: str, batch: int, context: int | None, dtype: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show what SPEC costs: parameters, FLOPs, cache and memory, counted and not estimated."""
    from lamina.core.account import account
    from lamina.core.report_text import tables

    report = account(resolve_any(spec, overrides), batch=batch, context=context, dtype=dtype)
    if as_json:
        print_json(report.to_json())
    else:
        print_rich(*tables(report))


@main.command()
@click.argument("spec", metavar="SPEC|MODEL")
@click.argument("path", default="")
@set_option
@json_option
def explain(spec: str, path: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show every value of SPEC, or those below PATH (a.b), and where each came from."""
    from dataclasses import asdict

    from lamina.core.explain import explain as explained

    found = explained(resolve_any(spec, overrides), path)
    if as_json:
        print_json([asdict(one) for one in found])
        return
    lines = [(one.line, one.origin) for one in found]
    width = min(72, max(len(left) for left, _ in lines))
    for left, origin in lines:
        click.echo(f"{left:<{width}}  {origin}".rstrip())


@main.command()
@click.argument("a", metavar="SPEC|MODEL")
@click.argument("b", metavar="SPEC|MODEL")
@json_option
def diff(a: str, b: str, as_json: bool) -> None:
    """Show what differs between two specs, in words and in cost."""
    from dataclasses import asdict

    from lamina.core.compare import figures
    from lamina.core.explain import differences
    from lamina.core.units import count

    one, two = resolve_any(a), resolve_any(b)
    context = min(one.context_length, two.context_length)
    changes, costs = differences(one, two), figures(one, two, context)
    if as_json:
        told = [{**asdict(figure), "change": figure.change} for figure in costs]
        print_json({"changes": [asdict(change) for change in changes], "context": context, "figures": told})
        return
    for change in changes:
        click.echo(f"{', '.join(change.paths)}: {change.before} → {change.after}")
    click.echo(f"{'' if changes else 'no difference'}\nat a context of {context:,} tokens:")
    for figure in costs:
        numbers = ["unknown" if n is None else count(n) for n in (figure.before, figure.after)]
        share = "" if figure.change is None else f"  ({figure.change:+.1%})"
        same = figure.before == figure.after
        click.echo(f"  {figure.what}: " + (numbers[0] if same else f"{numbers[0]} → {numbers[1]}{share}"))


# ---- parts: components, plugins, schema


@main.command()
@click.argument("kind", required=False)
@click.argument("name", required=False)
@json_option
def components(kind: str | None, name: str | None, as_json: bool) -> None:
    """List what is installed: every component, those of a KIND, or one with its options."""
    from lamina.core.index import read_index
    from lamina.core.index_text import component_list, component_page

    index = read_index()
    found = index.find(kind, name)
    if as_json:
        print_json(found)
    elif name is not None:
        print_rich(*component_page(found))
    else:
        print_rich(*component_list(found))


@main.command()
@json_option
def plugins(as_json: bool) -> None:
    """List plugins, what each registers, and which failed and why."""
    from lamina.core.index import read_index
    from lamina.core.index_text import plugin_list

    index = read_index()
    if as_json:
        print_json(index.plugins)
    else:
        print_rich(*plugin_list(index.plugins))


@main.command()
def schema() -> None:
    """Print a JSON Schema of specs, made of what is installed, for editors."""
    from lamina.core.index import read_index
    from lamina.core.schema import spec_schema

    print_json(spec_schema(read_index().components))


# ---- plugin: new, check


@main.group()
def plugin() -> None:
    """Begin a plugin, and check that one keeps to its contracts."""


@plugin.command("new")
@click.argument("name")
@click.option("--kind", required=True, metavar="KIND", help="What its component is: norm, attention, sampler, …")
@json_option
def plugin_new(name: str, kind: str, as_json: bool) -> None:
    """Write a package with one working component, its test and a README into the new folder NAME."""
    from lamina.core.plugin_new import new_plugin

    folder = new_plugin(name, kind, Path())
    written = sorted(str(path) for path in folder.rglob("*") if path.is_file())
    if as_json:
        print_json({"folder": str(folder), "files": written})
        return
    click.echo("\n".join(written))
    click.echo(f"\nNext:\n  pip install -e {folder}\n  lamina plugin check {folder}\n  pytest {folder}", err=True)


@plugin.command("check")
@click.argument("target", metavar="DIST_OR_PATH")
@click.option("--quick", is_flag=True, help="Try the first example of each component alone.")
@json_option
def plugin_check(target: str, quick: bool, as_json: bool) -> None:
    """Check every component of an installed distribution, or of the folder of its pyproject.toml."""
    from lamina.core.plugin_check import check_plugin, check_tables

    report = check_plugin(target, quick=quick)
    if as_json:
        print_json(report)
    else:
        print_rich(*check_tables(report))
    if not report["passed"]:
        sys.exit(1)


# ---- models: train, resume, generate, chat, tokens


@main.command()
@click.argument("spec")
@click.option(
    "--data",
    required=True,
    metavar="PATH_OR_CORPUS",
    help="A text file, a directory of them, a corpus, or {name: CORPUS, …}.",
)
@click.option("--out", type=PlacePath(), help="Run directory. Default: runs/ and the spec's name.")
@click.option("--from", "start", type=PlacePath(), metavar="MODEL", help="Begin with the weights of a model or run.")
@click.option("--steps", help="Optimizer steps.")
@click.option("--batch-size", help="Sequences in a step.")
@click.option("--context", help="Tokens in a sequence.")
@click.option("--accumulate", help="Parts a step is split into.")
@click.option("--learning-rate", help="Highest learning rate.")
@click.option("--dtype", help="float32, or bfloat16 for products in bfloat16.")
@click.option("--seed", help="Seeds weights, data order and dropout.")
@click.option("--save-every", metavar="K", help="Steps between checkpoints.")
@click.option("--eval-every", metavar="K", help="Steps between evaluations.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--backend", default="eager", show_default=True, help="How the decoder is executed.")
@set_option
@json_option
def train(
    spec: str,
    data: str,
    out: Path | None,
    start: Path | None,
    device: str,
    backend: str,
    overrides: tuple[str, ...],
    as_json: bool,
    **options: str | None,
) -> None:
    """Train the decoder of SPEC on text. Options not given come from the spec's `train:`.

    Ctrl-C saves and ends; `lamina resume` goes on.
    """
    given = [f"train.{name}={value}" for name, value in options.items() if value is not None]
    flags = {f"train.{name}": f"--{name.replace('_', '-')}" for name in options}
    resolved = resolve_spec(spec, (*overrides, *given), flags)
    target = out or Path("runs") / file_name(resolved.name)
    run_training(resolved, data, target, as_json=as_json, start=start, device=device, backend=backend)


@main.command()
@click.argument("run", type=PlacePath())
@json_option
def resume(run: Path, as_json: bool) -> None:
    """Go on with the training of RUN from its newest checkpoint."""
    from lamina.core.train import open_run

    finish_training(open_run(run), as_json)


def file_name(name: str) -> str:
    """What a model is called, as the name of one file below any directory."""
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.") or "run"


def run_training(
    resolved: ResolvedSpec,
    data: str,
    out: Path,
    *,
    as_json: bool,
    start: Path | None = None,
    device: str = "cpu",
    backend: str = "eager",
) -> None:
    from lamina.core.progress import note
    from lamina.core.train import RunOptions, create_run

    corpus = component_choice(data, "--data") if data.lstrip().startswith("{") else data
    options = RunOptions(device=device, backend=component_choice(backend, "--backend"))
    run = create_run(resolved, corpus, out, options=options, start=start, note=note)
    finish_training(run, as_json)


def finish_training(run: Run, as_json: bool) -> None:
    """Train a run to its end, or until Ctrl-C."""
    from lamina.core.progress import note, stop_on_signal, training_progress
    from lamina.core.train import Trainer

    with stop_on_signal() as stop:
        trainer = Trainer(run)
        if trainer.step == run.config.steps:
            note(f"{run.directory} has taken its {trainer.step} steps; to train longer, start a run with more --steps")
        note(trainer.describe())
        with training_progress() as report:
            finished = trainer.train(report, stop)
    if not finished:
        note(f"stopped and saved at step {trainer.step} of {run.config.steps}; to go on: lamina resume {run.directory}")
        sys.exit(130)
    figures = {"run": str(run.directory), "step": trainer.step, **trainer.last_figures()}
    if as_json:
        print_json(figures)
    else:
        click.echo("  ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items()))


@main.command()
@click.argument("model")
@click.argument("prompts", metavar="PROMPT...", nargs=-1, required=True)
@click.option("--max-new-tokens", type=click.IntRange(0, 2**31 - 1), default=128, show_default=True)
@click.option(
    "--sampler",
    "chain",
    multiple=True,
    metavar="STAGES",
    help="Stages such as greedy, or temperature=0.8,top_p=0.95, or a YAML mapping. Default: the spec's.",
)
@click.option("--decoding", help="sample, greedy, beam, prompt_lookup, … or a YAML mapping. Default: sample.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--stop", multiple=True, metavar="TEXT", help="End before this text; may be repeated.")
@click.option("--trace", is_flag=True, help="Tell what each stage did at each token: on stderr, or in the JSON.")
@click.option("--dtype", default="float32", show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--backend", default="eager", show_default=True, help="How the decoder is executed.")
@json_option
def generate(
    model: str,
    prompts: tuple[str, ...],
    max_new_tokens: int,
    chain: tuple[str, ...],
    decoding: str | None,
    seed: int,
    stop: tuple[str, ...],
    trace: bool,
    dtype: str,
    device: str,
    backend: str,
    as_json: bool,
) -> None:
    """Continue PROMPT with MODEL; `-` reads a prompt from stdin. Several prompts make one batch.

    One prompt's continuation is printed as it comes; several are each printed after a line with their prompt.
    """
    from lamina.core.chain import parse_chain, parse_strategy
    from lamina.core.generate import generate as generated
    from lamina.core.generate import stream
    from lamina.core.model import load

    texts = [sys.stdin.read() if prompt == "-" else prompt for prompt in prompts]
    loaded = load(model, dtype=dtype, device=device, backend=component_choice(backend, "--backend"))
    options: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "sampler": parse_chain(chain, loaded.registry) if chain else None,
        "decoding": None if decoding is None else parse_strategy(decoding, loaded.registry),
        "seed": seed,
        "stop": stop,
        "trace": trace,
    }
    if len(texts) == 1 and not as_json:
        pieces = stream(loaded, texts[0], **options)
        for piece in pieces:
            click.echo(piece, nl=False)
        click.echo()
        print_rows_notes(pieces.generation().rows(loaded.tokenizer))
        return
    rows = generated(loaded, texts, **options).rows(loaded.tokenizer)
    told = [{"prompt": prompt, **row.to_json()} for prompt, row in zip(texts, rows, strict=True)]
    if as_json:
        print_json(told[0] if len(told) == 1 else told)
        return
    for prompt, row in zip(texts, rows, strict=True):
        click.echo(f"=== {prompt}\n{row.text}\n")
    print_rows_notes(rows)


def print_rows_notes(rows: Sequence[GeneratedRow]) -> None:
    """What there is to tell of generated rows besides their text, on stderr."""
    from rich.console import Console

    for number, row in enumerate(rows, 1):
        which = f"prompt {number}: " if len(rows) > 1 else ""
        if row.finish_reason == "context":
            click.echo(f"{which}ended after {len(row.token_ids)} tokens, where the model's context is full", err=True)
        if row.statistics:
            figures = (f"{name.replace('_', ' ')} {figure:.3g}" for name, figure in row.statistics.items())
            click.echo(which + ", ".join(figures), err=True)
        if row.trace is not None:
            from lamina.core.trace_text import LEGEND, trace_table

            click.echo(which + LEGEND, err=True)
            Console(stderr=True, width=None if sys.stderr.isatty() else 160, highlight=False).print(
                trace_table(row.token_texts, row.trace)
            )


@main.command()
@click.argument("model")
@click.option("--template", type=PlacePath(), metavar="FILE", help="A Jinja chat template. Default: the model's own.")
@click.option("--system", metavar="TEXT", help="The system message.")
@click.option(
    "--max-new-tokens", type=click.IntRange(1, 2**31 - 1), default=512, show_default=True, help="Tokens in an answer."
)
@click.option(
    "--sampler",
    "chain",
    multiple=True,
    metavar="STAGES",
    help="Stages such as greedy, or temperature=0.8,top_p=0.95, or a YAML mapping. Default: the spec's.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--dtype", default="float32", show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--backend", default="eager", show_default=True, help="How the decoder is executed.")
@click.option("--json", "as_json", is_flag=True, help="One turn: a message or a JSON list of messages from stdin.")
def chat(
    model: str,
    template: Path | None,
    system: str | None,
    max_new_tokens: int,
    chain: tuple[str, ...],
    seed: int,
    dtype: str,
    device: str,
    backend: str,
    as_json: bool,
) -> None:
    """Talk with MODEL. /help lists what can be typed besides messages; piped lines are messages too.

    --json answers what stdin holds with {"content": …, "token_ids": …, "stop": …}.
    """
    from lamina.core.chain import parse_chain
    from lamina.core.chat import Chat
    from lamina.core.chat_template import ChatTemplate
    from lamina.core.chat_terminal import Terminal, piped_lines, read_messages, typed_lines
    from lamina.core.model import load

    own = None if template is None else ChatTemplate.read(template)
    loaded = load(model, dtype=dtype, device=device, backend=component_choice(backend, "--backend"))
    talk = Chat(
        loaded,
        own,
        system=system,
        messages=read_messages(sys.stdin.buffer.read()) if as_json else (),
        max_new_tokens=max_new_tokens,
        sampler=parse_chain(chain, loaded.registry) if chain else None,
        seed=seed,
    )
    if as_json:
        reply = talk.answer()
        for _ in reply:
            pass
        print_json({"content": reply.text, "token_ids": reply.token_ids, "stop": reply.stop})
        return
    typed = sys.stdin.isatty()
    if typed:
        click.echo("/help lists the commands, Ctrl-C stops an answer, Ctrl-D ends the chat", err=True)
    terminal = Terminal(
        talk, lambda piece: click.echo(piece, nl=False), lambda text: click.echo(text, err=True), patient=typed
    )
    terminal.run(typed_lines() if typed else piped_lines())


@main.command()
@click.argument("file", required=False)
@click.option("--text", help="A text, in place of FILE.")
@click.option(
    "--tokenizer",
    "tokenizers",
    multiple=True,
    required=True,
    metavar="WHICH",
    help="A model, run or tokenizer directory, a tokenizer.json, .model, .tiktoken or tekken.json, a spec, a "
    "tokenizer's name, or '{name: bpe, path: FILE}'; may be repeated.",
)
@click.option("--allow-special", is_flag=True, help="Take the text of special tokens for special tokens.")
@json_option
def tokens(file: str | None, text: str | None, tokenizers: tuple[str, ...], allow_special: bool, as_json: bool) -> None:
    """Show how tokenizers cut the text of FILE, `-` for stdin.

    --json prints {"ids": …, "tokens": …}, for several tokenizers a list of these with their names.
    """
    from lamina.core.tokens import cut, read_text

    if (file is None) == (text is None):
        raise click.UsageError("give a FILE or --text" if file is None else "give FILE or --text, not both")
    chosen = [component_choice(one, "--tokenizer") if one.lstrip().startswith("{") else one for one in tokenizers]
    cuts = cut(read_text(file) if text is None else text, chosen, allow_special=allow_special)  # type: ignore[arg-type]
    if as_json:
        print_json(cuts[0].to_json() if len(cuts) == 1 else [{"name": one.name, **one.to_json()} for one in cuts])
        return
    from rich.console import Console

    from lamina.core.tokens_text import print_cuts

    print_cuts(cuts, Console(highlight=False))


# ---- figures: profile, bench


def print_figures(report: Any, as_json: bool) -> None:
    if as_json:
        print_json(report.to_json())
    else:
        print_rich(report.to_table())


@main.command()
@click.argument("model", metavar="SPEC|MODEL")
@click.option("--batch", default=1, show_default=True, metavar="N", help="Texts at once.")
@click.option("--context", type=int, metavar="N", help="Tokens in a text. Default: 256, or what the decoder holds.")
@click.option(
    "--dtype", default="float32", show_default=True, help="Of the products; in training bfloat16 is autocast."
)
@click.option("--device", default="cpu", show_default=True)
@click.option("--backend", default="eager", show_default=True, help="How the decoder is executed.")
@click.option("--seconds", default=10.0, show_default=True, metavar="S", help="How long to measure, about.")
@click.option("--training/--no-training", default=True, show_default=True, help="Profile training steps too.")
@set_option
@json_option
def profile(model: str, overrides: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Show where the time of SPEC (random weights) or MODEL goes, and how far it is from what this machine can do."""
    from lamina.core.profile import profile

    print_figures(profile(model, overrides=read_overrides(overrides), **options), as_json)


@main.command("eval")
@click.argument("model")
@click.option(
    "--data",
    required=True,
    metavar="PATH_OR_CORPUS",
    help="A text file, a directory of them, a corpus, or {name: CORPUS, …}.",
)
@click.option("--backend", "backends", multiple=True, help="How the decoder is executed; several are compared.")
@click.option(
    "--context", type=click.IntRange(1), help="Tokens of a window.  [default: 1024, or the decoder's context]"
)
@click.option("--max-tokens", type=click.IntRange(1), metavar="N", help="Stop after so many tokens of the text.")
@click.option("--dtype", default="float32", show_default=True, help="Of the weights, before a backend rounds them.")
@click.option("--device", default="cpu", show_default=True)
@json_option
def evaluate(model: str, data: str, backends: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Tell how well MODEL predicts a text: loss, perplexity, bits a byte; with several backends, what each costs."""
    from lamina.core.evaluate import evaluate
    from lamina.core.progress import note

    corpus = component_choice(data, "--data") if data.lstrip().startswith("{") else data
    chosen = [component_choice(one, "--backend") for one in backends or ("eager",)]
    found = evaluate(model, corpus, backends=chosen, tell=note, **options)
    if as_json:
        print_json([one.to_json() for one in found])
        return
    first = found[0]
    for one in found:
        more = "" if one is first else f"  {one.perplexity / first.perplexity - 1:+.2%} perplexity"
        click.echo(
            f"{one.backend}: loss {one.loss:.4f}  perplexity {one.perplexity:.3f}  "
            f"{one.bits_per_byte:.4f} bits a byte{more}"
        )
    click.echo(f"{first.n_tokens:,} tokens, {first.n_bytes:,} bytes", err=True)


@main.command()
@click.argument("model", metavar="MODEL|SPEC")
@click.option("--train", is_flag=True, help="Time training steps instead of generation.")
@click.option("--prompt-tokens", type=int, metavar="N", help="Default: 512, or what the context leaves room for.")
@click.option("--new-tokens", type=int, metavar="N", help="Tokens to generate in each row.  [default: 64]")
@click.option("--ragged", is_flag=True, help="Prompts of different lengths, from a quarter of --prompt-tokens to all.")
@click.option("--repeat", type=int, metavar="N", help="Runs to take the median of.  [default: 3]")
@click.option(
    "--context", type=int, metavar="N", help="With --train: tokens in a text. Default: the decoder's context."
)
@click.option("--steps", type=int, metavar="N", help="With --train: steps to take the median of.  [default: 10]")
@click.option("--batch", type=int, metavar="N", help="Rows at once.  [default: 1, with --train 8]")
@click.option(
    "--dtype", default="float32", show_default=True, help="Of the weights; with --train bfloat16 is autocast."
)
@click.option("--device", default="cpu", show_default=True)
@click.option("--backend", default="eager", show_default=True, help="How the decoder is executed.")
@set_option
@json_option
def bench(
    model: str, train: bool, ragged: bool, backend: str, overrides: tuple[str, ...], as_json: bool, **options: Any
) -> None:
    """Time generation, or with --train training steps, of MODEL or of SPEC with random weights."""
    from lamina.core.bench import bench_generation, bench_training

    given = {name: value for name, value in options.items() if value is not None}
    foreign = ("prompt_tokens", "new_tokens", "repeat") if train else ("context", "steps")
    wrong = [f"--{name.replace('_', '-')}" for name in foreign if name in given] + ["--ragged"] * (train and ragged)
    if wrong:
        raise click.UsageError(f"{', '.join(wrong)}: not an option {'of' if train else 'without'} --train")
    common = {"overrides": read_overrides(overrides), "backend": component_choice(backend, "--backend"), **given}
    print_figures(
        bench_training(model, **common) if train else bench_generation(model, ragged=ragged, **common), as_json
    )


# ---- checkpoints: import, export


@main.command("import")
@click.argument("source", metavar="SRC", type=PlacePath())
@click.argument("target", metavar="DEST", type=PlacePath())
@click.option("--family", metavar="NAME", help="The family to read it as. Default: the one for its model_type.")
@click.option("--ignore", multiple=True, metavar="KEY", help="A key of config.json that does not matter; repeatable.")
@json_option
def import_command(source: Path, target: Path, family: str | None, ignore: tuple[str, ...], as_json: bool) -> None:
    """Make the model directory DEST of SRC: a directory with safetensors, a .gguf file, or a Hub id org/name."""
    from dataclasses import asdict

    from lamina.core.importing import import_model
    from lamina.core.units import count

    done = import_model(source, target, family=family, ignore=ignore, tell=lambda line: click.echo(line, err=True))
    for note in done.notes:
        click.echo(f"note: {note}", err=True)
    if as_json:
        print_json(asdict(done))
    else:
        what = f"{done.family}, {count(done.parameters)} parameters, {done.dtype}, tokenizer {done.tokenizer or 'none'}"
        click.echo(f"{target}: {what}; next: lamina inspect {target}")


@main.command("export")
@click.argument("source", metavar="MODEL", type=PlacePath())
@click.argument("target", metavar="OUT", type=PlacePath())
@click.option(
    "--format", default="hf", show_default=True, help="hf: what transformers loads; gguf: what llama.cpp loads."
)
@click.option("--family", metavar="NAME", help="The family to write it as. Default: one that its spec fits.")
@click.option(
    "--dtype",
    metavar="TYPE",
    help="Of the matrices: float32, bfloat16, float16; in a gguf also Q8_0, Q5_0, Q4_0, … Default: as they are here.",
)
@json_option
def export_command(
    source: Path, target: Path, format: str, family: str | None, dtype: str | None, as_json: bool
) -> None:
    """Write MODEL into OUT as other libraries read it, where its spec fits a published family."""
    from dataclasses import asdict

    from lamina.core.exporting import export_model
    from lamina.core.units import count

    done = export_model(
        source, target, format=format, family=family, dtype=dtype, tell=lambda line: click.echo(line, err=True)
    )
    for note in done.notes:
        click.echo(f"note: {note}", err=True)
    if as_json:
        print_json(asdict(done))
    else:
        click.echo(f"{target}: {done.family}, {count(done.parameters)} parameters, {done.dtype}")


if __name__ == "__main__":
    main()
