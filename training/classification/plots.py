"""A classifier's results as pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from training.classification.metrics import MANY_CLASSES
from training.terminal import shorten

LONGEST_SIDE = 14.0  # inches


def plot_confusion(matrix: list[list[int]], names: list[str], title: str, path: Path) -> None:
    """Draws a confusion matrix as a PNG: counts, shaded by share of the true class.

    Where there are many classes, the shades stand alone, and some of the classes have their names beside them.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from training.fonts import save_png

    counts = np.array(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(1.6 + 0.95 * len(names), LONGEST_SIDE)
    figure, axes = pyplot.subplots(figsize=(side + 0.9, side), layout="constrained")
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    few = len(names) <= MANY_CLASSES
    for row, column in np.ndindex(counts.shape) if few else ():
        colour = "white" if shares[row, column] > 0.55 else "black"
        axes.text(
            column, row, f"{counts[row, column]}\n{shares[row, column]:.0%}", ha="center", va="center", color=colour
        )
    ticks = range(0, len(names), 1 + (len(names) - 1) // MANY_CLASSES)
    labels = [names[tick].replace(" ", "\n") if few else shorten(names[tick], 20) for tick in ticks]
    axes.set_xticks(ticks, labels, rotation=0 if few else 90)
    axes.set_yticks(ticks, labels)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(title, fontsize=10)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    save_png(figure, path, dpi=130)
    pyplot.close(figure)


def plot_thresholds(curve: list[dict[str, float]], title: str, path: Path) -> None:
    """Draws accuracy, precision, recall and F1 over the threshold on the positive class's probability, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from training.fonts import save_png

    figure, axes = pyplot.subplots(figsize=(6.4, 4.2), layout="constrained")
    thresholds = [row["threshold"] for row in curve]
    for name, style in (("accuracy", "-"), ("f1", "-"), ("precision", "--"), ("recall", ":")):
        axes.plot(thresholds, [row[name] for row in curve], style, label=name)
    axes.axvline(0.5, color="grey", linewidth=0.8)
    axes.set_xlabel("threshold on the probability of the positive class")
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.3)
    axes.legend()
    axes.set_title(title, fontsize=10)
    save_png(figure, path, dpi=130)
    pyplot.close(figure)
