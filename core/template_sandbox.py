"""Renders chat templates in a process of its own, started by `chat_template`. Imports jinja2 and nothing of lamina.

Reads one JSON object from stdin and writes the list of what each rendering gave: `{"text": …}` or `{"kind", "message",
"line"}`. A template is a stranger's program. jinja2's sandbox keeps it from attributes and from changing what it is
given; what a sandbox cannot bound (time, memory, size of the text) the operating system does: the process is ended.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any

import jinja2
import jinja2.debug  # loaded before the limits are set: jinja2 would load it when a template fails
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

FILE = "<template>"  # what jinja2 calls a template that is no file


class Refused(jinja2.TemplateError):
    """What a template says with `raise_exception`."""


class TooLong(Exception):
    """The text has grown past what it may."""


class Sandbox(ImmutableSandboxedEnvironment):
    """An unsafe attribute is refused where it is reached for; jinja2 would wait until something is done with it."""

    def unsafe_undefined(self, obj: Any, attribute: str) -> jinja2.Undefined:
        raise SecurityError(f"access to attribute {attribute!r} of an object of type {type(obj).__name__!r}")


class GenerationBlock(Extension):
    """`{% generation %}…{% endgeneration %}` marks what an assistant said, for training: here its content alone."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        # A call, because names that are set inside stay inside.
        return nodes.CallBlock(self.call_method("_content"), [], [], body).set_lineno(line)

    def _content(self, caller: Callable[[], str]) -> str:
        return caller()


def environment(now: datetime) -> Sandbox:
    """What templates may use, as the transformers library has it."""
    made = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlock, loopcontrols])
    made.filters["tojson"] = to_json
    made.globals["raise_exception"] = refuse
    made.globals["strftime_now"] = now.strftime
    return made


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is; jinja2's own filter would write it for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def refuse(message: str) -> None:
    raise Refused(message)


def render(template: jinja2.Template, variables: Mapping[str, Any], longest: int) -> str:
    pieces, length = [], 0
    for piece in template.generate(**variables):
        pieces.append(piece)
        length += len(piece)
        if length > longest:
            raise TooLong(f"its text is longer than {longest:,} characters")
    return "".join(pieces)


def attempt(give: Callable[[], Any]) -> dict[str, Any]:
    """`{"text": what it gives}`, or what went wrong and in which line of the template."""
    try:
        return {"text": give()}
    except Exception as error:  # whatever a stranger's template brings about
        line = error.lineno if isinstance(error, jinja2.TemplateSyntaxError) else _line(error.__traceback__)
        message = str(error.message if isinstance(error, jinja2.TemplateSyntaxError) else error)
        return {"kind": type(error).__name__, "message": message[:500], "line": line}


def _line(trace: TracebackType | None) -> int | None:
    """The last line of the template that was at work. jinja2 has put the template's lines into the traceback."""
    found = None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == FILE:
            found = trace.tb_lineno
        trace = trace.tb_next
    return found


def limit(seconds: float, n_bytes: int) -> None:
    """End this process when it has worked for `seconds`; let no allocation exceed `n_bytes` in all.

    The timer's signal is left to its default action: a handler in Python would wait for a single long operation.
    """
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)
    with suppress(ImportError, OSError, ValueError):  # where there are no such limits, time alone is one
        import resource  # not on every system

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (n_bytes, n_bytes))


def main() -> None:
    request = json.load(sys.stdin.buffer)
    limit(request["seconds"], request["bytes"])
    made = environment(datetime.fromisoformat(request["now"]))
    compiled = attempt(lambda: made.from_string(request["template"]))
    if "text" in compiled:
        template, longest = compiled["text"], request["longest"]
        found = [attempt(partial(render, template, given, longest)) for given in request["renderings"]]
    else:
        found = [compiled] * len(request["renderings"])
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
