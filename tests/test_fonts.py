"""Letters in pictures: from another font where matplotlib's own lacks them, and one line where no font has them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text

from comparison.drawing import Picture, plain_axes
from training import fonts
from training.classification.plots import plot_confusion

MATRIX, NAMES = [[2, 1], [0, 3]], ["부정", "긍정"]
FAMILY = "Four Letters"


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Nothing is known from before, and no test leaves a font behind."""
    known = list(font_manager.fontManager.ttflist)
    for cached in (fonts.family_with, fonts.warn_once):
        cached.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    font_manager.fontManager.ttflist[:] = known
    for cached in (fonts.family_with, fonts.warn_once):
        cached.cache_clear()


@pytest.fixture(scope="module")
def font_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A font of boxes that has the four letters, which matplotlib has never heard of."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 700), (700, 700), (700, 0)):
        pen.lineTo(corner)
    pen.closePath()
    names = [".notdef", *(f"uni{ord(letter):04X}" for letter in "부정긍")]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(letter): name for letter, name in zip("부정긍", names[1:], strict=True)})
    builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (800, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": FAMILY, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    path = tmp_path_factory.mktemp("fonts") / "four.ttf"
    builder.save(str(path))
    return path


def test_a_font_that_was_installed_after_matplotlib_looked_is_used(
    font_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fonts, "font_files", lambda: [str(font_file)])
    families: list[list[str]] = []
    save = Figure.savefig

    def spy(figure: Figure, *arguments: object, **options: object) -> None:
        families.extend(text.get_fontfamily() for text in figure.findobj(Text) if text.get_text() in NAMES)
        save(figure, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Figure, "savefig", spy)
    plot_confusion(MATRIX, NAMES, "부정, mini, full: dev", tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").exists() and capsys.readouterr().err == ""
    assert len(families) >= 4 and all(family[-1] == FAMILY for family in families)


def test_letters_that_no_font_has_are_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fonts, "font_files", lambda: [str(tmp_path / "broken.ttf")])
    for _ in range(2):
        plot_confusion(MATRIX, NAMES, "dev", tmp_path / "confusion.png")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: no installed font has the letters '긍부정' of confusion.png: ")
    assert "install one that has them, such as Noto Sans CJK" in line and (tmp_path / "confusion.png").exists()


def test_latin_letters_look_for_no_font(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fonts, "font_files", lambda: pytest.fail("fonts were looked for"))
    plot_confusion(MATRIX, ["bad", "é ± − …"], "dev", tmp_path / "confusion.png")
    assert capsys.readouterr().err == ""


def test_dollar_signs_in_names_are_no_mathematics(tmp_path: Path) -> None:
    plot_confusion(MATRIX, ["$bad_$", "good"], r"my$sst, $\x{, full: dev", tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").exists()


def test_a_page_leaves_letters_to_the_browser_and_a_file_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fonts, "font_files", list)
    figure, axes = plain_axes(height=1.0)
    axes.set_title("부정")
    picture = Picture("korean", "", "", (("", figure),))
    assert "부정" in picture.svgs()[0] and capsys.readouterr().err == ""
    picture.write_png(tmp_path)
    assert "'부정' of korean.png" in capsys.readouterr().err
