"""Pictures in the page's own colours: figures of matplotlib as SVG inside HTML, or as PNG files.

Everything is drawn in the colours of :data:`LIGHT`. In the SVG each of them becomes a CSS variable, so that a page
shows the same picture in light, in dark and in print; text stays text.
"""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from training.fonts import SANS, save_png, take_literally, use_letters, without_glyph_warnings
from training.terminal import display_width

LIGHT = {
    "ink": "#1b1e23",
    "muted": "#5a616b",
    "rule": "#d5d9df",
    "surface": "#fefefe",
    "series-1": "#0067a5",
    "series-2": "#c24e01",
    "series-3": "#007a5a",
    "series-4": "#a8457d",
    "series-5": "#856600",
    "series-6": "#4d4f55",
}
"""The roles that colours play, and what they are on white. Those of series are darker forms of Okabe and Ito's (2008),
which people with any colour vision tell apart; each goes with a marker and a line of its own besides."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (5, 1.5, 1.5, 1.5)))
WIDTH = 3.9  # inches; a phone shows that a little larger
LEGEND_ROW = 0.19  # inches
ROWS_WITHIN = 4  # of a legend, that a figure's height has room for
NARROW = 20  # letters of a name; two columns of longer ones are wider than a figure
DOTS_PER_INCH = 160


@dataclass(frozen=True)
class Picture:
    """One picture, of one or more panels.

    Attributes:
        name: of its files, without ending.
        title: in a few words.
        caption: what to look at, in one sentence.
        panels: what each panel shows, for those who can't see it, and its figure.
    """

    name: str
    title: str
    caption: str
    panels: tuple[tuple[str, Figure], ...]

    def svgs(self, salt: str = "") -> list[str]:
        """Each panel for the inside of an HTML page.

        Args:
            salt: tells equal pictures on one page apart: ids must not occur twice.
        """
        return [_svg(figure, alt, f"{salt}{self.name}{i}") for i, (alt, figure) in enumerate(self.panels)]

    def write_png(self, folder: Path) -> list[Path]:
        """Writes the panels as files, numbered where there are several."""
        paths = []
        for number, (_, figure) in enumerate(self.panels, start=1):
            path = folder / f"{self.name}{f'-{number}' if len(self.panels) > 1 else ''}.png"
            save_png(figure, path, dpi=DOTS_PER_INCH, facecolor="white", metadata={"Software": None})
            paths.append(path)
        return paths


@dataclass(frozen=True)
class Style:
    """How one strategy looks in every picture."""

    colour: str
    marker: str
    dashes: Any


def style(number: int) -> Style:
    """The style of the strategy with this number; the first 48 all differ, in colour and marker alone too."""
    colours = [colour for role, colour in LIGHT.items() if role.startswith("series")]
    return Style(
        colours[number % len(colours)],
        MARKERS[(number + number // 24) % len(MARKERS)],  # 24: after so many, colours and markers meet again
        DASHES[(number // len(colours)) % len(DASHES)],
    )


# ---------------------------------------------------------------------------------------------------------------------
# Figures
# ---------------------------------------------------------------------------------------------------------------------


def plain_axes(height: float, width: float = WIDTH) -> tuple[Figure, Axes]:
    """A transparent figure with one pair of axes, of which only what helps to read is drawn."""
    with rc_context({"font.family": SANS, "font.size": 9.0}):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
    figure.patch.set_facecolor("none")  # a file gives it another; an alpha of 0 would stay
    axes.patch.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LIGHT["muted"])
    axes.tick_params(which="both", colors=LIGHT["muted"], labelcolor=LIGHT["ink"], labelsize=8.5)
    axes.grid(color=LIGHT["rule"], linewidth=0.6)
    axes.set_axisbelow(True)
    axes.xaxis.label.set_color(LIGHT["ink"])
    axes.yaxis.label.set_color(LIGHT["ink"])
    axes.title.set_color(LIGHT["ink"])
    return figure, axes


def add_legend(figure: Figure, axes: Axes) -> None:
    """The legend below the axes, where it covers nothing; the figure grows with its rows."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = 1 if max(map(display_width, labels)) > NARROW else 2
        rows = math.ceil(len(labels) / columns)
        figure.set_figheight(figure.get_figheight() + LEGEND_ROW * max(0, rows - ROWS_WITHIN))
        figure.legend(
            handles, labels, loc="outside lower left", ncols=columns, frameon=False, fontsize=8.5,
            labelcolor=LIGHT["ink"], handlelength=2.6, columnspacing=1.2,
        )  # fmt: skip


def shaded_matrix(
    axes: Axes,
    shares: np.ndarray,
    text: Callable[[int, int], str] | None,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    palest: float = 0.0,
    darkest: float = 1.0,
    deepest: float = 0.5,
) -> None:
    """A table of cells, each shaded by its share.

    Args:
        shares: (rows, columns); a cell with NaN stays empty.
        text: (row, column) -> what stands in the cell.
        palest, darkest: the shares with the palest and the darkest shade.
        deepest: how opaque the darkest shade is; beyond 0.5 ink on it is hard to read.
    """
    from matplotlib.collections import PolyCollection

    cells = [(int(row), int(column)) for row, column in np.argwhere(np.isfinite(shares))]
    corners = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
    width = (darkest - palest) or 1.0
    shades = [0.04 + (deepest - 0.04) * min(max((shares[cell] - palest) / width, 0.0), 1.0) for cell in cells]
    boxes = [corners + (column, row) for row, column in cells]
    colours = [to_rgba(LIGHT["series-1"], round(float(shade), 3)) for shade in shades]
    axes.add_collection(PolyCollection(boxes, facecolors=colours, linewidths=0, antialiaseds=False))
    if text is not None:
        for row, column in cells:
            axes.text(column, row, text(row, column), ha="center", va="center", fontsize=8.5, color=LIGHT["ink"])
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    slanted = max(map(len, columns), default=0) > 28 / max(len(columns), 1)
    turn: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
    axes.set_xticks(range(len(columns)), columns, **turn)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[["left", "bottom"]].set_visible(False)


# ---------------------------------------------------------------------------------------------------------------------
# SVG
# ---------------------------------------------------------------------------------------------------------------------


def _svg(figure: Figure, alt: str, salt: str) -> str:
    """The figure as an ``<svg>`` element: as wide as there is room, without dates, and with ids of its own."""
    buffer = io.StringIO()
    take_literally(figure)
    use_letters(figure)  # to measure them; what no font here has, the browser's may have
    with without_glyph_warnings(), rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})  # savefig would draw everything twice
    found = re.search(r'viewBox="([^"]*)"[^>]*>(.*)</svg>', buffer.getvalue(), re.DOTALL)
    assert found is not None
    view, body = found[1], found[2]
    body = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # figure_1, axes_1: the same in every picture
    body = re.sub(r'style="([^"]*)"', lambda match: f'style="{_page_style(match[1])}"', body)
    body = re.sub(r">\s+<", "><", body.strip())
    label = html.escape(alt, quote=True)
    return f'<svg viewBox="{view}" role="img" aria-label="{label}">{body}</svg>'


def _page_style(declarations: str) -> str:
    """The page's colours and letters instead of the drawing's."""
    for role, colour in LIGHT.items():
        declarations = declarations.replace(colour, f"var(--{role})")
    return re.sub(r"(font(?:-family)?:[^;]*?)'?DejaVu Sans'?[^;]*", r"\1system-ui, sans-serif", declarations)
