"""Fonts for pictures: letters that matplotlib's own font lacks, such as Hangul, are taken from another one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Set
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text

from storage import replacing
from training.terminal import warn_once

SANS = "DejaVu Sans"  # comes with matplotlib
PREFERRED = ("notosanscjk", "notosanskr", "nanumgothic", "malgun", "applegothic", "applesdgothic")  # upright, plain


def save_png(figure: Figure, path: Path, **options: Any) -> None:
    """Writes a figure, whole or not at all, with all its letters; where no font has them, a line on stderr says so.

    Args:
        options: of ``Figure.savefig``.
    """
    take_literally(figure)
    lacking = use_letters(figure)
    if lacking:
        warn_once(
            f"no installed font has the letters {lacking!r} of {path.name}: they are drawn as boxes; install one that "
            "has them, such as Noto Sans CJK (on Debian and Ubuntu: apt install fonts-noto-cjk)"
        )
    with without_glyph_warnings(), replacing(path) as file:
        figure.savefig(file, format="png", **options)


def take_literally(figure: Figure) -> None:
    """What stands between two dollar signs in a name or a token is no formula."""
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_parse_math(False)


def use_letters(figure: Figure) -> str:
    """Lets a figure's texts take what the usual font lacks from another one.

    Returns:
        Some of the letters that no font has; empty if there are none.
    """
    texts = figure.findobj(Text)
    letters = {letter for text in texts for letter in text.get_text() if letter.isprintable()}
    lacking = frozenset(letters - _letters_of(font_manager.findfont(SANS)))
    if not lacking:
        return ""
    family = family_with(lacking)
    if family is None:
        return "".join(sorted(lacking)[:5])
    for text in texts:
        text.set_fontfamily([*text.get_fontfamily(), family])
    return ""


@cache
def family_with(letters: Set[str]) -> str | None:
    """The family of a font that has all these letters, known to matplotlib or not; None if there is none.

    matplotlib lists fonts once and keeps the list: one that was installed since is added here.
    """
    known = {str(Path(font.fname)): font.name for font in font_manager.fontManager.ttflist}
    for path in sorted(font_files(), key=_preference):
        if not letters <= _letters_of(path):
            continue
        if path not in known:
            font_manager.fontManager.addfont(path)
        return known.get(path) or font_manager.get_font(path).family_name
    return None


def font_files() -> list[str]:
    """The font files that are installed now."""
    return font_manager.findSystemFonts()


def _preference(path: str) -> tuple[int, bool, str]:
    """The usual Korean fonts first, regular weights before others, then by name."""
    name = Path(path).stem.lower().replace("-", "").replace("_", "")
    place = next((i for i, start in enumerate(PREFERRED) if name.startswith(start)), len(PREFERRED))
    return place, not (name.endswith("regular") or name in PREFERRED), path


@cache
def _letters_of(path: str) -> frozenset[str]:
    """Those that a font file has glyphs for; none where it can't be read."""
    try:
        return frozenset(map(chr, font_manager.get_font(path).get_charmap()))
    except (OSError, RuntimeError):
        return frozenset()


@contextmanager
def without_glyph_warnings() -> Iterator[None]:
    """What matplotlib says of each letter that it has no glyph for, whenever it draws it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield
