"""Texts laid out in the columns of a terminal, durations, and warnings."""

from __future__ import annotations

import sys
import unicodedata
from functools import cache


def display_width(text: str) -> int:
    """Columns that a text takes in a terminal: wide East Asian characters take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def pad(text: str, width: int) -> str:
    """Fills a text with spaces up to so many terminal columns."""
    return text + " " * max(0, width - display_width(text))


def shorten(text: str, width: int) -> str:
    """Cuts a text to so many terminal columns, with an ellipsis."""
    if display_width(text) <= width:
        return text
    while display_width(text) > width - 1:
        text = text[:-1]
    return text + "…"


def duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


@cache
def warn_once(warning: str) -> None:
    """Several parts of a command may find the same, but the user needs to be told once."""
    print(f"warning: {warning}", file=sys.stderr)
