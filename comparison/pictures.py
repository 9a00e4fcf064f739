"""The pictures of a comparison: each answers one question, and says in its caption what to look at.

A picture of which the runs say nothing is left out. A strategy looks the same in all pictures of its comparison.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from comparison.drawing import LIGHT, Picture, Style, add_legend, plain_axes, shaded_matrix, style
from comparison.mistakes import compare_mistakes, contrasted
from comparison.runs import Comparison, Entry
from comparison.tables import measured_in_epochs
from training.classification.metrics import CALIBRATION_BINS, calibration_error, confidence_bins

NO_RUNS = Style(LIGHT["muted"], "o", "-")  # of a floor
MOST_CURVES = 8
MOST_COLUMNS = 8
MOST_NAMED, BEST_NAMED = 16, 8  # beside costs: of more entries, only the front's and the best few have a name
LEGEND_WIDTH = 44  # letters of a name that stands alone in its row
COSTS = {
    "total_seconds": "time of a run",
    "peak_memory_bytes": "peak memory",
    "trainable_parameters": "trained parameters",
}
POEM_MEASURES = {
    "rhyme_accuracy": "pairs that rhyme",
    "near_rhyme": "near rhymes",
    "ten_syllable_lines": "ten-syllable lines",
    "iambic_lines": "iambic lines",
    "lines_14": "fourteen lines",
    "distinct_2": "distinct word pairs",
    "seq_rep_4": "repeated 4-grams",
}


def pictures_of(comparison: Comparison) -> list[Picture]:
    """All pictures that the comparison's runs have something for."""
    styles = styles_of(comparison)
    found = [
        differences(comparison, styles),
        score_against_cost(comparison, styles),
        score_against_examples(comparison),
        learning_curves(comparison, styles),
        confusion_matrices(comparison),
        slices(comparison, styles),
        reliability(comparison, styles),
        disagreement(comparison),
        probes(comparison),
        poem_profile(comparison, styles),
    ]
    return [picture for picture in found if picture is not None]


def write_pictures(comparisons: Sequence[Comparison], folder: Path) -> list[Path]:
    """Writes every picture as PNG files into ``<folder>/<task>-<dataset>/``; the number of a comparison follows where
    several have the same name."""
    paths: list[Path] = []
    taken: list[str] = []
    for comparison in comparisons:
        name = f"{comparison.task}-{comparison.dataset}".replace("/", "-")
        taken.append(name)
        below = folder / (name if taken.count(name) == 1 else f"{name}-{taken.count(name)}")
        below.mkdir(parents=True, exist_ok=True)
        for picture in pictures_of(comparison):
            paths += picture.write_png(below)
    return paths


def styles_of(comparison: Comparison) -> dict[str, Style]:
    """Of every entry with runs, by name: in alphabetical order, so that another result changes no colours."""
    names = sorted(entry.name for entry in comparison.entries if entry.runs)
    return {name: style(number) for number, name in enumerate(names)}


# ---------------------------------------------------------------------------------------------------------------------
# Who is better
# ---------------------------------------------------------------------------------------------------------------------


def differences(comparison: Comparison, styles: dict[str, Style]) -> Picture | None:
    """Every entry's distance from the best, with its interval."""
    best = comparison.best
    pairs = [pair for entry in comparison.measured if (pair := comparison.pair(best.name, entry.name))]
    if not pairs:
        return None
    scale, unit = (100.0, "points") if comparison.measure.is_share else (1.0, comparison.measure.label)
    figure, axes = plain_axes(height=0.75 + 0.24 * len(pairs))
    for row, pair in enumerate(pairs):
        sign, other = (1.0, pair.a) if pair.b == best.name else (-1.0, pair.b)  # other - best
        mean = sign * pair.difference.mean * scale
        ends = sorted(sign * end * scale for end in (pair.difference.low, pair.difference.high))
        own = styles.get(other, NO_RUNS)
        if all(map(math.isfinite, ends)):
            axes.plot(ends, [row, row], color=own.colour, linewidth=2, solid_capstyle="butt")
        face = own.colour if pair.is_shown else LIGHT["surface"]
        axes.plot([mean], [row], own.marker, color=own.colour, markerfacecolor=face, markersize=6.5)
    names = [pair.b if pair.a == best.name else pair.a for pair in pairs]
    axes.axvline(0, color=LIGHT["ink"], linewidth=1)
    axes.set_yticks(range(len(names)), [_short(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"difference from {_short(best.name, 24)}, in {unit}", loc="right")  # room is below the names
    return Picture(
        "differences",
        f"How far from {best.name}",
        f"The line at 0 is {best.name}, the best score. A filled mark: shown to differ (after Holm's correction). An "
        "open one: not shown. Bars are 95 % intervals over examples and seeds.",
        ((f"Differences of {_words(names)} from {best.name} with 95 % intervals", figure),),
    )


def score_against_cost(comparison: Comparison, styles: dict[str, Style]) -> Picture | None:
    """The score over time, memory and trained parameters, a panel each, with the Pareto front."""
    entries = [entry for entry in comparison.measured if entry.runs]
    if len(entries) < 2:
        return None
    panels, n_named = [], len(entries) if len(entries) <= MOST_NAMED else BEST_NAMED
    named = {entry.name for entry in entries[:n_named]}
    for cost, label in COSTS.items():
        points = [(entry, value) for entry in entries if (value := entry.cost(cost)) is not None and value > 0]
        if len(points) >= 2:
            panels.append(_cost_panel(comparison, points, styles, named, cost, label))
    if not panels:
        return None
    less = f" Of {len(entries)}, only those on the line and the {n_named} best have names; the others are grey."
    return Picture(
        "cost",
        "Score against cost",
        "The dashed line joins the strategies that none beats at their price: what lies off it is worth its cost only "
        "if memory or something else speaks for it. Bars are 95 % intervals; time is the median of a whole run"
        + (", and the runs were made on different machines." if len(comparison.machines) > 1 else ".")
        + (less if len(entries) > n_named else ""),
        tuple(panels),
    )


def _cost_panel(
    comparison: Comparison, points: list[tuple[Entry, float]], styles: dict[str, Style], named: Set[str], cost: str,
    label: str,
) -> tuple[str, Any]:  # fmt: skip
    """``named``: the entries that have a name and a style; so have those on the front."""
    figure, axes = plain_axes(height=3.3)
    size, unit = unit_of(cost, max(value for _, value in points))
    points = [(entry, value / size) for entry, value in points]
    on_front = pareto_front([(value, entry.value) for entry, value in points], comparison.measure.higher_is_better)
    front = sorted((value, entry.value) for keep, (entry, value) in zip(on_front, points, strict=True) if keep)
    axes.plot(*zip(*front, strict=True), color=LIGHT["muted"], linewidth=1, linestyle=(0, (4, 2)), zorder=1)
    for keep, (entry, value) in zip(on_front, points, strict=True):
        own = styles[entry.name]
        if not keep and entry.name not in named:
            axes.plot([value], [entry.value], "o", color=LIGHT["muted"], markersize=4, alpha=0.5, zorder=2)
            continue
        if entry.interval is not None and all(map(math.isfinite, entry.interval)):
            axes.plot([value, value], entry.interval, color=own.colour, linewidth=1.2, alpha=0.55, zorder=2)
        axes.plot(
            [value], [entry.value], own.marker, color=own.colour, markersize=7, linestyle="none", zorder=3,
            label=_short(entry.name, LEGEND_WIDTH),
        )  # fmt: skip
    values = [value for _, value in points]
    if max(values) > 8 * min(values):
        decades = math.log10(max(values) / min(values))
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(left=0, right=max(values) * 1.08)
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: counted(x)))
    axes.set_xlabel(f"{label} ({unit})" if unit else label)
    axes.set_ylabel(_axis_label(comparison))
    _floors(axes, comparison, [entry.value for entry, _ in points])
    add_legend(figure, axes)
    kept = [entry.name for keep, (entry, _) in zip(on_front, points, strict=True) if keep]
    return f"{comparison.measure.label} against {label}; on the front: {_words(kept)}", figure


def pareto_front(points: Sequence[tuple[float, float]], higher_is_better: bool = True) -> list[bool]:
    """Of each (cost, score), whether no other is at least as good in both and better in one."""
    sign = 1.0 if higher_is_better else -1.0
    goods = [(-cost, sign * score) for cost, score in points]
    return [
        not any(a >= cost and b >= score and (a, b) != (cost, score) for a, b in goods) for cost, score in goods
    ]  # fmt: skip


def score_against_examples(comparison: Comparison) -> Picture | None:
    """A line per strategy over the number of training examples, where entries differ in it."""
    lines = by_examples(comparison)
    if not lines:
        return None
    figure, axes = plain_axes(height=3.5)
    several_models = len({model for _, model in lines}) > 1
    for number, ((strategy, model), found) in enumerate(sorted(lines.items())):
        own = style(number)
        sizes = [rows for rows, _ in found]
        name = f"{strategy}, {model}" if several_models else strategy
        axes.plot(
            sizes, [entry.value for _, entry in found], marker=own.marker, color=own.colour, linestyle=own.dashes,
            markersize=5.5, linewidth=1.6, label=_short(name, LEGEND_WIDTH),
        )  # fmt: skip
        if all(entry.interval is not None and all(map(math.isfinite, entry.interval)) for _, entry in found):
            ends = np.array([entry.interval for _, entry in found])  # (sizes, 2)
            axes.fill_between(sizes, ends[:, 0], ends[:, 1], color=own.colour, alpha=0.13, linewidth=0)
    every = sorted({rows for found in lines.values() for rows, _ in found})
    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(every, [f"{rows:,}" for rows in every], minor=False)
    axes.minorticks_off()
    if len(every) > 6:
        axes.tick_params(axis="x", rotation=35)
    axes.set_xlabel("training examples")
    axes.set_ylabel(_axis_label(comparison))
    values = [entry.value for found in lines.values() for _, entry in found]
    if comparison.floors_by_rows:
        _floor_curves(axes, comparison.floors_by_rows, values)
    else:
        _floors(axes, comparison, values)
    add_legend(figure, axes)
    names = list(dict.fromkeys(strategy for strategy, _ in lines))
    return Picture(
        "examples",
        "Score against training examples",
        "Which line is on top at the left is what small data wants; where lines cross, the advice changes. Bands are "
        "95 % intervals over examples and seeds; dotted, what needs no GPT-2 makes of as many.",
        ((f"{comparison.measure.label} with {every[0]} to {every[-1]} training examples: {_words(names)}", figure),),
    )  # fmt: skip


def by_examples(comparison: Comparison) -> dict[tuple[str, str], list[tuple[int, Entry]]]:
    """(strategy, model) -> its entries by number of training examples, of those that were run with several numbers."""
    groups: dict[tuple[str, str], list[tuple[int, Entry]]] = {}
    for entry in comparison.measured:
        rows = training_rows(entry)
        if rows is not None and not entry.settings.keys() - {"train-fraction", "limit-train"}:
            groups.setdefault((entry.strategy, entry.model), []).append((rows, entry))
    lines = {key: sorted(found, key=lambda item: item[0]) for key, found in groups.items()}
    return {key: found for key, found in lines.items() if len({rows for rows, _ in found}) > 1}


def training_rows(entry: Entry) -> int | None:
    """How many examples its runs trained on, None if they do not say or do not agree."""
    found = {run.training_rows for run in entry.runs}
    return found.pop() if len(found) == 1 else None


# ---------------------------------------------------------------------------------------------------------------------
# How they learn
# ---------------------------------------------------------------------------------------------------------------------


def learning_curves(comparison: Comparison, styles: dict[str, Style]) -> Picture | None:
    """The dev score of each epoch and the training loss, a panel each; bands from the lowest to the highest seed."""
    entries = [entry for entry in comparison.measured if any(len(run.history) > 1 for run in entry.runs)]
    if not entries:
        return None
    shown = entries[:MOST_CURVES]
    name = comparison.measure.name
    if not all(name in epoch.get("dev", {}) for entry in shown for run in entry.runs for epoch in run.history):
        name = "loss"
    dev_label = comparison.measure.label if name == comparison.measure.name else "loss"
    dev = None
    if name != comparison.measure.name or measured_in_epochs(comparison):
        dev = _curves(shown, styles, lambda epoch: epoch.get("dev", {}).get(name), f"{dev_label} on dev")
    train = _curves(shown, styles, lambda epoch: epoch.get("train_loss"), "training loss")
    less = f" The {MOST_CURVES} best of {len(entries)} are drawn." if len(entries) > MOST_CURVES else ""
    bands = " Bands reach from the lowest to the highest seed." if any(len(entry.runs) > 1 for entry in shown) else ""
    return Picture(
        "curves",
        "Learning curves",
        "A dev curve that falls while the training loss still falls has overfitted; one that still rises at the end "
        f"wants more epochs.{bands}{less}",
        tuple(
            (f"{label} per epoch of {_words([entry.name for entry in shown])}", figure)
            for label, figure in ((f"{dev_label} on dev", dev), ("training loss", train))
            if figure is not None
        ),
    )


def _curves(
    entries: Sequence[Entry], styles: dict[str, Style], value: Callable[[Any], float | None], label: str
) -> Any | None:
    figure, axes = plain_axes(height=3.3)
    drawn = False
    for entry in entries:
        runs = [[value(epoch) for epoch in run.history] for run in entry.runs if run.history]
        length = min(map(len, runs), default=0)
        rows = np.array([[math.nan if x is None else x for x in run[:length]] for run in runs], dtype=float)
        if not length or not np.isfinite(rows).all():
            continue
        epochs, own, drawn = np.arange(1, length + 1), styles[entry.name], True
        axes.plot(
            epochs, rows.mean(axis=0), marker=own.marker, color=own.colour, linestyle=own.dashes, markersize=4.5,
            linewidth=1.6, label=_short(entry.name, LEGEND_WIDTH),
        )  # fmt: skip
        if len(rows) > 1:
            axes.fill_between(epochs, rows.min(axis=0), rows.max(axis=0), color=own.colour, alpha=0.15, linewidth=0)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    add_legend(figure, axes)
    return figure if drawn else None


# ---------------------------------------------------------------------------------------------------------------------
# Where they err
# ---------------------------------------------------------------------------------------------------------------------


def contrasting(comparison: Comparison) -> list[tuple[str, Entry]]:
    """The best, the baseline and the worst entry with runs, each once: (what it is, entry)."""
    entries = [entry for entry in comparison.measured if entry.runs]
    if not entries:
        return []
    named = [entry for entry in entries if entry.name == comparison.baseline]
    full = [entry for entry in entries if entry.strategy == "full" and entry.kind == "run"]
    chosen = [("best", entries[0]), *(("baseline", entry) for entry in (named or full)[:1]), ("worst", entries[-1])]
    kept: dict[str, tuple[str, Entry]] = {}
    for what, entry in chosen:
        kept.setdefault(entry.name, (what, entry))
    return list(kept.values())


def confusion_matrices(comparison: Comparison) -> Picture | None:
    """Best, baseline and worst side by side: where the examples of each class end up."""
    labels, names = comparison.labels, comparison.label_names
    if labels is None or not names:
        return None
    panels = []
    for what, entry in contrasting(comparison):
        if entry.predicted is None:
            continue
        shares = confusion_shares(labels, entry.predicted, len(names))
        short = [_short(name, 14) for name in names]
        side = 1.15 + 0.5 * len(names)
        figure, axes = plain_axes(height=side, width=max(side + 0.55, 2.9))
        shaded_matrix(axes, shares, _percent(shares), short, short)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.set_title(f"{_short(entry.name)} ({what})", fontsize=9, color=LIGHT["ink"])
        hits = ", ".join(
            f"{name} {shares[i, i]:.0%}" for i, name in enumerate(names) if np.isfinite(shares[i, i])
        )  # fmt: skip
        panels.append((f"Confusion matrix of {entry.name}, the {what}; right: {hits}", figure))
    if not panels:
        return None
    return Picture(
        "confusion",
        "Which classes are mistaken for which",
        "Each row is a true class and adds up to 100 %; the diagonal is right. Look for dark cells off it, and for a "
        "column that swallows everything. Mean over seeds.",
        tuple(panels),
    )


def confusion_shares(labels: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """(n,) and (n_seeds, n) -> (n_classes, n_classes), the share of each true class; NaN where a class has none."""
    counts = np.zeros((n_classes, n_classes))
    for row in predicted:
        np.add.at(counts, (labels, row), 1)
    totals = counts.sum(axis=1, keepdims=True)
    return np.where(totals > 0, counts / np.maximum(totals, 1), np.nan)


def reliability(comparison: Comparison, styles: dict[str, Style]) -> Picture | None:
    """Confidence against accuracy, of best, baseline and worst."""
    if comparison.labels is None:
        return None
    entries = [(what, entry) for what, entry in contrasting(comparison) if entry.probabilities is not None]
    if not entries:
        return None
    figure, axes = plain_axes(height=3.7)
    lowest, said = 1.0, []
    for what, entry in entries:
        assert entry.probabilities is not None
        confidence, right, share = reliability_curve(comparison.labels, entry.probabilities)
        error = _mean(calibration_error(comparison.labels, of_run) for of_run in entry.probabilities)
        own = styles[entry.name]
        axes.plot(
            confidence, right, color=own.colour, linestyle=own.dashes, linewidth=1.4,
            label=f"{_short(entry.name)} ({what}), calibration error {error:.3f}",
        )  # fmt: skip
        axes.scatter(confidence, right, s=12 + 160 * share, marker=own.marker, color=own.colour, linewidths=0)
        lowest = min(lowest, float(confidence.min()), float(right.min()))
        said.append(f"{entry.name} {error:.3f}")
    low = max(0.0, math.floor(lowest * 10) / 10 - 0.05)
    axes.plot([low, 1], [low, 1], color=LIGHT["muted"], linewidth=1, linestyle=(0, (1, 2)))
    axes.set_xlim(low, 1.02)
    axes.set_ylim(low, 1.02)
    axes.set_xlabel("confidence in the chosen class")
    axes.set_ylabel("share that is right")
    add_legend(figure, axes)
    return Picture(
        "reliability",
        "Can the probabilities be believed?",
        "On the dotted line confidence is what it says. Below it a model is surer than it should be. Larger marks "
        "stand for more examples. The calibration error is the mean distance from the line, of each seed.",
        ((f"Reliability diagram; calibration error: {_words(said)}", figure),),
    )


def reliability_curve(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each bin of confidence that has examples: mean confidence, share right, share of all examples.

    Args:
        labels: (n,).
        probabilities: (n_seeds, n, n_classes).
    """
    confidence = probabilities.max(axis=2).ravel()
    right = (probabilities.argmax(axis=2) == labels).ravel()
    bins = confidence_bins(confidence)
    counts = np.bincount(bins, minlength=CALIBRATION_BINS)
    filled = counts > 0
    sums = [np.bincount(bins, weights=values, minlength=CALIBRATION_BINS)[filled] for values in (confidence, right)]
    return sums[0] / counts[filled], sums[1] / counts[filled], counts[filled] / len(confidence)


def slices(comparison: Comparison, styles: dict[str, Style]) -> Picture | None:
    """How often the two contrasted entries are right, by class, length and confidence."""
    pair = contrasted(comparison)
    found = compare_mistakes(comparison, *pair, count=0) if pair else None
    if found is None:
        return None
    groups = [(name, parts) for name, parts in found.slices.items() if len(parts) > 1]
    if not groups:
        return None
    height = 1.1 + 0.23 * sum(len(parts) + 1 for _, parts in groups)
    figure, axes = plain_axes(height=height)
    labels: list[str] = []
    for name, parts in groups:
        labels.append(f"by {name}")
        for part in parts:
            shares = (part.a_right / part.n, part.b_right / part.n)
            axes.plot(shares, [len(labels)] * 2, color=LIGHT["muted"], alpha=0.4, linewidth=3, zorder=1)
            for share, entry in zip(shares, (found.a, found.b), strict=True):
                own, name_once = styles.get(entry, NO_RUNS), _short(entry, LEGEND_WIDTH) if len(labels) == 1 else None
                axes.plot(
                    [share], [len(labels)], own.marker, color=own.colour, markersize=6.5, linestyle="none",
                    label=name_once,
                )  # fmt: skip
            labels.append(f"{part.label.removeprefix(f'{found.a} ')} ({part.n:,})")
    axes.set_yticks(range(len(labels)), [_short(label, 34) for label in labels])
    for label in axes.get_yticklabels():
        if label.get_text().startswith("by "):
            label.set_fontweight("bold")
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_xlim(-0.03, 1.03)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0%}"))
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("right in the majority of seeds")
    add_legend(figure, axes)
    return Picture(
        "slices",
        f"Where {found.a} and {found.b} differ",
        "A long grey line: here the choice between the two matters. "
        + (f"“Sure” is the confidence of {found.a}; the" if "confidence" in dict(groups) else "The")
        + " number of examples is in brackets.",
        ((f"Share right of {found.a} and {found.b} by {_words([name for name, _ in groups])}", figure),),
    )


def disagreement(comparison: Comparison) -> Picture | None:
    """On how many examples two entries answer differently."""
    entries = [entry for entry in comparison.measured if entry.runs and entry.predicted is not None][:MOST_COLUMNS]
    if len(entries) < 2:
        return None
    shares = np.array([[_disagreement(a, b) for b in entries] for a in entries])
    names = [_short(entry.name) for entry in entries]
    figure, axes = plain_axes(height=1.3 + 0.37 * len(names))
    low, high = float(np.nanmin(shares)), float(np.nanmax(shares))
    shaded_matrix(axes, shares, _percent(shares), names, names, palest=min(low, high - 0.1), darkest=high)
    pairs = [(shares[i, j], f"{entries[i].name} and {entries[j].name}") for i in range(len(names)) for j in range(i)]
    share, apart = max(pairs, key=lambda pair: pair[0])
    return Picture(
        "disagreement",
        "Where strategies disagree",
        "The share of dev examples that get different answers. "
        + ("On the diagonal, for scale: two seeds of one strategy. " if np.isfinite(np.diag(shares)).any() else "")
        + "What is shown of two strategies stands under “Are the differences real?”.",
        ((f"Pairwise disagreement; most between {apart}, {share:.0%}", figure),),
    )


def _disagreement(a: Entry, b: Entry) -> float:
    """Mean over pairs of runs; of an entry with itself, of two different runs."""
    assert a.predicted is not None and b.predicted is not None
    rates = [
        float((one != other).mean())
        for i, one in enumerate(a.predicted)
        for j, other in enumerate(b.predicted)
        if a.name != b.name or i < j
    ]
    return statistics.fmean(rates) if rates else math.nan


def probes(comparison: Comparison) -> Picture | None:
    """Accuracy on each kind of the probe set."""
    entries = [entry for entry in comparison.measured if any(run.probes for run in entry.runs)][:MOST_COLUMNS]
    if not entries:
        return None
    kinds = list(dict.fromkeys(kind for entry in entries for run in entry.runs for kind in run.probes))
    kinds = [kind for kind in kinds if kind != "all"] + [kind for kind in kinds if kind == "all"]
    values = np.array(
        [[_mean(run.probes.get(kind, {}).get("accuracy") for run in entry.runs) for entry in entries] for kind in kinds]
    )
    figure, axes = plain_axes(height=1.2 + 0.3 * len(kinds))
    shaded_matrix(axes, values, _percent(values), kinds, [_short(entry.name) for entry in entries])
    low, column = min((float(np.nanmin(values[:, j])), j) for j in range(len(entries)))
    worst = kinds[int(np.nanargmin(values[:, column]))]
    return Picture(
        "probes",
        "What the dev score hides",
        "Accuracy on pairs made to test one thing each. Pale cells are kinds that a strategy gets wrong however good "
        "its dev score is. Mean over seeds.",
        ((f"Accuracy per kind of probe; lowest: {entries[column].name} on {worst}, {low:.0%}", figure),),
    )


def poem_profile(comparison: Comparison, styles: dict[str, Style]) -> Picture | None:
    """Rhyme, meter and variety of generated poems, a row per measure."""
    entries = [entry for entry in comparison.measured if entry.runs and "iambic_lines" in entry.runs[0].dev]
    if not entries:
        return None
    shown = entries[:MOST_CURVES]
    names = [name for name in POEM_MEASURES if all(name in run.dev for entry in shown for run in entry.runs)]
    figure, axes = plain_axes(height=1.3 + 0.33 * len(names))
    for number, entry in enumerate(shown):
        own = styles[entry.name]
        shift = (number - (len(shown) - 1) / 2) * min(0.12, 0.6 / len(shown))  # equal scores stay visible
        axes.plot(
            [_mean(run.dev[name] for run in entry.runs) for name in names], [row + shift for row in range(len(names))],
            own.marker, color=own.colour, markersize=6, linestyle="none", label=_short(entry.name, LEGEND_WIDTH),
        )  # fmt: skip
    given = _mean(run.dev.get("given_rhyme") for entry in shown for run in entry.runs)
    if given == given and "rhyme_accuracy" in names:
        row = names.index("rhyme_accuracy")
        axes.plot([given, given], [row - 0.42, row + 0.42], color=LIGHT["ink"], linewidth=1.4, label="the given lines")
    axes.set_yticks(range(len(names)), [POEM_MEASURES[name] for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(-0.03, 1.03)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0%}"))
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    add_legend(figure, axes)
    return Picture(
        "poems",
        "Rhyme and meter",
        "The upper rows are form: further right is nearer to a sonnet. Variety and repetition below tell whether form "
        "was bought by saying the same again. Mean over seeds.",
        ((f"Rhyme, meter and variety of the poems of {_words([entry.name for entry in shown])}", figure),),
    )


# ---------------------------------------------------------------------------------------------------------------------
# Words and numbers
# ---------------------------------------------------------------------------------------------------------------------


def unit_of(cost: str, largest: float) -> tuple[float, str]:
    """How large a cost's unit is, and its name: one in which the largest value is easily read."""
    if cost == "total_seconds":
        return (1.0, "seconds") if largest < 300 else (60.0, "minutes") if largest < 3 * 3600 else (3600.0, "hours")
    if cost == "peak_memory_bytes":
        return (2.0**30, "GiB") if largest >= 2**29 else (2.0**20, "MiB")
    return 1.0, ""


def counted(value: float) -> str:
    """5.4 M, 20 k, 300, 0.5."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"


def _axis_label(comparison: Comparison) -> str:
    return comparison.measure.label + ("" if comparison.measure.higher_is_better else " (lower is better)")


def _fits(score: float, values: Sequence[float]) -> bool:
    """Whether it would not press everything else together."""
    spread = max(values) - min(values) or abs(max(values)) or 1.0
    return min(values) - 1.5 * spread <= score <= max(values) + 1.5 * spread


def _floor_curves(axes: Axes, floors: Mapping[str, Sequence[tuple[int, float]]], values: Sequence[float]) -> None:
    """A line for each floor over the number of training examples that it is made from."""
    for name, points in floors.items():
        if all(_fits(score, values) for _, score in points):
            axes.plot(*zip(*points, strict=True), color=LIGHT["muted"], linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
            is_flat = len({score for _, score in points}) == 1
            axes.annotate(
                _short(name),
                points[0],
                xytext=(0, 2 if is_flat else -9),
                textcoords="offset points",
                fontsize=7.5,
                color=LIGHT["muted"],
            )


def _floors(axes: Axes, comparison: Comparison, values: Sequence[float]) -> None:
    """A line for each floor, unless it would press everything else together."""
    for entry in comparison.measured:
        if entry.kind == "floor" and _fits(entry.value, values):
            axes.axhline(entry.value, color=LIGHT["muted"], linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
            axes.text(
                0.01, entry.value, _short(entry.name), transform=axes.get_yaxis_transform(), fontsize=7.5,
                color=LIGHT["muted"], va="bottom",
            )  # fmt: skip


def _percent(shares: np.ndarray) -> Callable[[int, int], str]:
    return lambda row, column: f"{100 * shares[row, column]:.0f}"


def _mean(values: Iterable[float | None]) -> float:
    found = [float(value) for value in values if value is not None]
    return statistics.fmean(found) if found else math.nan


def _short(name: str, width: int = 30) -> str:
    """Without its middle, where it is long: names of one strategy differ at their end."""
    end = width * 8 // 15
    return name if len(name) <= width else f"{name[: width - 1 - end]}…{name[-end:]}"


def _words(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
