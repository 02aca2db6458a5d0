from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.core.continuation import Continuation, StopStrings

texts = st.text("abc", max_size=20)


def cut(text: str, stops: list[str]) -> str:
    """`text` up to the stop string that ends first, by looking at one more character at a time."""
    for end in range(len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - max(map(len, found))]
    return text


@given(text=texts, stops=st.lists(st.text("abc", min_size=1, max_size=4), max_size=3), data=st.data())
@settings(max_examples=300, deadline=None)
def test_text_is_cut_at_the_first_complete_stop_string_however_it_comes_in_pieces(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    scanner, shown = StopStrings(stops), ""
    for start, end in zip([0, *places], [*places, len(text)], strict=True):
        shown += scanner.push(text[start:end])
        assert cut(text, stops).startswith(shown)  # nothing is shown that would have to be taken back
        if scanner.found:
            break
    assert scanner.found == any(stop in text for stop in stops)
    assert shown + scanner.finish() == cut(text, stops)


def test_what_cannot_begin_a_stop_string_is_shown_at_once() -> None:
    scanner = StopStrings(["\n\nUser:"])
    assert [scanner.push(piece) for piece in ("Yes", ".\n", "\nUs", "ed\n", "\nUser: no")] == [
        "Yes",
        ".",
        "",
        "\n\nUsed",
        "",
    ]
    assert scanner.found


def test_a_row_without_text_still_ends_and_says_why() -> None:
    row = Continuation(3, "context", frozenset({9}), [], None)
    assert [row.push(token) for token in (1, 2, 3, 4)] == [""] * 4
    assert (row.token_ids, row.reason) == ([1, 2, 3], "context")
    row = Continuation(3, "length", frozenset({9}), [], None)
    row.push(9)
    assert (row.token_ids, row.reason) == ([9], "stop_token")


def test_a_row_ended_from_outside_shows_what_it_held_back() -> None:
    class Plain:
        def push(self, token: int) -> str:
            return "abc"[token]

        def finish(self) -> str:
            return "."

    row = Continuation(9, "length", frozenset(), ["cd"], Plain())  # type: ignore[arg-type]
    assert [row.push(token) for token in (0, 1, 2)] == ["a", "b", ""]
    assert row.end("complete") == "c."
    assert (row.text, row.reason) == ("abc.", "complete")
    assert row.end("again") == row.push(0) == ""
    assert row.reason == "complete"
