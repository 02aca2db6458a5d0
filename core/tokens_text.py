"""Cut texts for people to look at: coloured where there is colour, with separators where there is none."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from lamina.core.tokens import Cut

COLOURS = ("black on cyan", "black on yellow", "black on green", "black on magenta")
SPECIAL = "bold white on red"
SEPARATOR = "│"


def print_cuts(cuts: list[Cut], console: Console) -> None:
    coloured = console.is_terminal and console.color_system is not None and not console.no_color
    for number, cut in enumerate(cuts):
        if number:
            console.print()
        shown = _coloured(cut) if coloured else Text(SEPARATOR.join(map(visible, cut.tokens)))
        console.print(shown, soft_wrap=True)
        for line in figures(cut):
            console.print(Text(line, style="dim" if coloured else ""), soft_wrap=True)


def _coloured(cut: Cut) -> Text:
    special = set(cut.special_ids.values())
    text = Text()
    for number, (token, shown) in enumerate(zip(cut.ids, cut.tokens, strict=True)):
        text.append(visible(shown), SPECIAL if token in special else COLOURS[number % len(COLOURS)])
    return text


def figures(cut: Cut) -> list[str]:
    """What there is to say besides, a line each."""
    rates = [
        f"{len(cut.ids):,} token{'s' * (len(cut.ids) != 1)}",
        f"{_number(cut.per(cut.characters))} a character",
        f"{_number(cut.per(cut.words))} a word",
        f"{_number(cut.bytes_per_token)} bytes a token",
    ]
    special = sorted(cut.special_ids.items(), key=lambda item: item[1])
    listed = ", ".join(f"{visible(name)} {i}" for name, i in special[:8]) or "none"
    more = f", … {len(special):,} in all" if len(special) > 8 else ""
    lines = [
        f"{cut.name} ({cut.component}): {', '.join(rates)}",
        f"vocabulary {cut.vocab_size:,}; special tokens: {listed}{more}",
    ]
    return lines if cut.comes_back else [*lines, "the ids do not decode to this text again"]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def visible(text: str) -> str:
    """Without characters that a terminal would obey: ␛ for an escape; ends of lines are shown and kept."""
    return "".join("⏎\n" if c == "\n" else _harmless(c) for c in text)


def _harmless(character: str) -> str:
    number = ord(character)
    if number < 0x20:
        return chr(0x2400 + number)
    if 0x7F <= number < 0xA0 or number in (0x2028, 0x2029) or 0x202A <= number <= 0x202E or 0x2066 <= number <= 0x2069:
        return f"<U+{number:04X}>"
    return character
