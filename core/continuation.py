"""One row's generated tokens on their way to text: streamed decoding, stop strings, why the row ended."""

from __future__ import annotations

from collections.abc import Sequence

from lamina.core.tokenizer import StreamDecoder


class StopStrings:
    """Lets text through up to the stop string that is complete first, and never a part of one.

    Where the text is cut into pieces makes no difference.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""  # the end of the text so far, which may be the beginning of a stop string
        self.found = False

    def push(self, piece: str) -> str:
        """The text that can be shown now."""
        text = self._held + piece
        # (where it ends, where it begins): of those that end together the longest counts
        places = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if places:
            self.found, self._held = True, ""
            return text[: min(places)[1]]
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def finish(self) -> str:
        """What was held back, now that nothing follows."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)


class Continuation:
    """What one row has generated so far."""

    def __init__(
        self,
        limit: int,
        limit_reason: str,
        stop_ids: frozenset[int],
        stops: Sequence[str],
        decoder: StreamDecoder | None,
    ) -> None:
        self._limit, self._limit_reason, self._stop_ids = limit, limit_reason, stop_ids
        self._decoder, self._stops = decoder, StopStrings(stops)
        self.token_ids: list[int] = []
        self.text = ""
        self.reason = "" if limit else limit_reason  # why the row has ended, "" while it goes on

    def push(self, token: int) -> str:
        """Take the next token; returns the text that can be shown now. A row that has ended takes no more."""
        if self.reason:
            return ""
        self.token_ids.append(token)
        stopped = token in self._stop_ids
        piece = "" if stopped or not self._decoder else self._stops.push(self._decoder.push(token))
        self.text += piece
        if self._stops.found:
            self.reason = "stop_string"
        elif stopped or len(self.token_ids) == self._limit:
            piece += self.end("stop_token" if stopped else self._limit_reason)
        return piece

    def end(self, reason: str) -> str:
        """Nothing follows, because of `reason` unless the row has ended already; returns the text held back so far."""
        if self.reason:
            return ""
        piece = ""
        if self._decoder:
            piece = self._stops.push(self._decoder.finish()) + self._stops.finish()
        self.reason = "stop_string" if self._stops.found else reason
        self.text += piece
        return piece
