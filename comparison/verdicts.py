"""What a comparison says, in words: a verdict for each pair, what would change it, and a headline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from comparison.runs import ALPHA, Comparison, Entry, Measure, Pair

if TYPE_CHECKING:
    from comparison.statistics import Difference

FEW_SEEDS = 3
OUT_OF_REACH = 100  # times the data
NOTABLY_FASTER = 1.2  # times; less is the machine's mood
ROUNDING = 1e-24  # a smaller variance is none


def verdict(
    measure: Measure,
    a: Entry,
    b: Entry,
    difference: Difference,
    p_adjusted: float,
    detectable: float,
    mcnemar: float | None,
) -> str:
    """One plain sentence on a pair, ``a`` being the one with the better score.

    Args:
        detectable: the true difference that would have been shown among all pairs, with a power of 80 %.
        mcnemar: the exact McNemar test's p-value, of two single runs.
    """
    if not math.isfinite(difference.standard_error):
        return f"No difference shown between {a.name} and {b.name}: {difference.method}."
    if difference.standard_error == 0 and difference.mean == 0:
        return f"No difference shown between {a.name} and {b.name}: they have the same score on every example."
    low, high = sorted((lead(measure, difference.low), lead(measure, difference.high)))
    size = amount(measure, abs(difference.mean))
    interval = f"95 % CI {number(measure, low)} to {number(measure, high)}"
    test = f"adjusted p {p_text(p_adjusted)}" + ("" if mcnemar is None else f", McNemar p {p_text(mcnemar)}")
    if p_adjusted < ALPHA:
        return f"{a.name} is better than {b.name} by {size} ({interval}; {test})."
    seen = f"; one of {amount(measure, detectable)} would have been seen" if math.isfinite(detectable) else ""
    many = " once all pairs are counted" if difference.p_value < ALPHA else ""
    return f"No difference shown between {a.name} and {b.name}{many} ({size}, {interval}; {test}){seen}."


def lead(measure: Measure, value: float) -> float:
    """A difference as the first one's lead: positive where it is ahead."""
    return value if measure.higher_is_better else -value


def level_of(p_adjusted: Sequence[float]) -> float:
    """The level that the pairs which are not shown had to reach: Holm's procedure stopped at the first of them."""
    return ALPHA / max(1, sum(p >= ALPHA for p in p_adjusted))


# ---------------------------------------------------------------------------------------------------------------------
# What would change a verdict
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variance:
    """Where the variance of a difference comes from, as shares of 1: seeds, examples, and both together (the rest)."""

    seeds: float
    examples: float

    @property
    def rest(self) -> float:
        return max(0.0, 1.0 - self.seeds - self.examples)


def variance_parts(a: np.ndarray, b: np.ndarray) -> Variance:
    """Components of variance of mean(a) - mean(b), by the mean squares of a two-way layout without repetition.

    Args:
        a, b: (n_seeds, n_examples); the examples are the same, the seeds are independent. A side with one row (a single
            run, or a floor) adds nothing to the seeds' part.
    """
    n = a.shape[1]
    rest = sum(_rest(scores) for scores in (a, b))
    seeds = sum(float(scores.mean(axis=1).var(ddof=1)) / len(scores) for scores in (a, b) if len(scores) > 1)
    examples = float((a.mean(axis=0) - b.mean(axis=0)).var(ddof=1)) / n if n > 1 else 0.0
    seeds, examples = max(0.0, seeds - rest), max(0.0, examples - rest)
    total = seeds + examples + rest
    return Variance(seeds / total, examples / total) if total > ROUNDING else Variance(0.0, 0.0)


def _rest(scores: np.ndarray) -> float:
    """The part of the variance of a mean that is the seeds' and the examples' together."""
    n_seeds, n = scores.shape
    if n_seeds < 2 or n < 2:
        return 0.0
    residuals = scores - scores.mean(axis=1, keepdims=True) - scores.mean(axis=0) + scores.mean()
    return float((residuals**2).sum() / ((n_seeds - 1) * (n - 1)) / (n_seeds * n))


def would_change(
    measure: Measure,
    a: Entry,
    b: Entry,
    difference: Difference,
    p_adjusted: float,
    detectable: float,
    parts: Variance,
) -> str:
    """What would change a verdict: more seeds or more examples, and how many. ``detectable`` as for :func:`verdict`."""
    single = [entry.name for entry in (a, b) if len(entry.runs) == 1]
    if single:
        names = " and ".join(single)
        return (
            f"Other seeds of {names} may turn this around: one run each says nothing of them; run {FEW_SEEDS} or more."
        )
    if not math.isfinite(difference.standard_error):
        return "More dev examples would."
    if difference.standard_error == 0:
        return "Other examples might: these show no spread."
    if p_adjusted < ALPHA:
        by_seeds = parts.seeds > parts.examples
        what, share = ("seeds", parts.seeds) if by_seeds else ("examples", parts.examples)
        shrinks = f"{percent(share + parts.rest)} of its variance shrinks with them"
        return f"More {what} would narrow the interval most: {shrinks}."
    wanted = (difference.mean / detectable) ** 2  # the share of its variance that is left where this shows
    if wanted < 1 / OUT_OF_REACH:
        return f"Nothing within reach: so small a difference takes over {OUT_OF_REACH} times the seeds and examples."
    size = amount(measure, abs(difference.mean))
    return f"If the true difference is {size}, {_needed(a, b, difference.n_examples, parts, wanted)} would show it."


def _needed(a: Entry, b: Entry, n_examples: int, parts: Variance, wanted: float) -> str:
    """More of what carries more of the variance; of the other, where that alone can't do; else of both."""
    by_seeds = _times(parts.seeds + parts.rest, parts.examples, wanted)
    by_examples = _times(parts.examples + parts.rest, parts.seeds, wanted)
    choices = [(by_seeds, "seeds"), (by_examples, "examples")]
    if parts.examples >= parts.seeds:
        choices.reverse()
    for times, what in choices:
        if times < OUT_OF_REACH:
            return _more_seeds(a, b, times) if what == "seeds" else _more_examples(n_examples, times)
    times = 1 / wanted
    return f"about {times:.0f} times as many seeds and as many examples"


def _times(shrinking: float, staying: float, wanted: float) -> float:
    """By how much a number must grow for the variance to be ``wanted``; infinite where what stays is too much."""
    return shrinking / (wanted - staying) if wanted > staying else math.inf


def _more_seeds(a: Entry, b: Entry, times: float) -> str:
    numbers = sorted({len(entry.runs) for entry in (a, b) if entry.runs})
    if len(numbers) == 1:
        return f"about {math.ceil(numbers[0] * times)} seeds each instead of {numbers[0]}"
    return f"about {times:.1f} times as many seeds of each"


def _more_examples(n_examples: int, times: float) -> str:
    return f"about {_rounded_up(n_examples * times):,} dev examples instead of {n_examples:,}"


def _rounded_up(value: float) -> int:
    """To two digits: more would claim a precision that is not there."""
    step = 10 ** max(0, math.floor(math.log10(max(value, 1))) - 1)
    return math.ceil(value / step) * step


# ---------------------------------------------------------------------------------------------------------------------
# The headline
# ---------------------------------------------------------------------------------------------------------------------


def headline(comparison: Comparison) -> str:
    """Which entry is best, how sure that is, and what it costs."""
    best, measured = comparison.best, comparison.measured
    text = f"{best.name} has the best {comparison.measure.label}, {score_text(comparison.measure, best)}"
    others = [entry.name for entry in measured if entry.name in comparison.not_worse and entry is not best]
    if len(measured) == 1:
        return f"{text}; there is nothing to compare it with."
    if not others:
        whom = "the other" if len(measured) == 2 else "all others"
        untested = not best.runs and sum(not entry.runs for entry in measured) > 1  # two floors are no pair
        return f"{text}, and is shown to be better than {'all runs' if untested else whom}."
    cheapest = _cheapest([best, *(entry for entry in measured if entry.name in others)])
    text += f"; not shown to be worse: {', '.join(others)}."
    if cheapest is not None and cheapest is not best and len(comparison.machines) < 2:
        times = (best.cost("total_seconds") or 0.0) / (cheapest.cost("total_seconds") or 1.0)
        if times >= NOTABLY_FASTER:
            text += f" The quickest of these is {cheapest.name}, {times:.1f} times as fast."
    return text


def _cheapest(entries: Sequence[Entry]) -> Entry | None:
    """The quickest run; None unless all are runs whose time is known."""
    known = [entry for entry in entries if entry.cost("total_seconds")]
    return (
        min(known, key=lambda entry: entry.cost("total_seconds") or math.inf, default=None)
        if entries[0] in known
        else None
    )


def pair_lines(comparison: Comparison, pairs: Sequence[Pair]) -> list[str]:
    """Each pair's verdict, and what would change it."""
    return [f"{pair.verdict} {pair.would_change}" for pair in pairs]


def leading_pairs(comparison: Comparison) -> list[Pair]:
    """The pairs of the best entry with all others, those of the best run where a floor is best, and the baseline's."""
    best_run = next((entry.name for entry in comparison.measured if entry.runs), None)
    names = {comparison.best.name, best_run, comparison.baseline}
    return [pair for pair in comparison.pairs if {pair.a, pair.b} & names]


# ---------------------------------------------------------------------------------------------------------------------
# Numbers
# ---------------------------------------------------------------------------------------------------------------------


def number(measure: Measure, value: float) -> str:
    """A difference without its unit: of shares, in points."""
    if not measure.is_share:
        return f"{value:.3g}"
    text = f"{100 * value:.1f}"
    return "0.0" if text == "-0.0" else text


def amount(measure: Measure, value: float) -> str:
    """A difference with its unit."""
    return f"{number(measure, value)} points" if measure.is_share else number(measure, value)


def score(measure: Measure, value: float) -> str:
    return f"{value:.3f}" if measure.is_share else f"{value:.4g}"


def score_text(measure: Measure, entry: Entry) -> str:
    """``0.401 ± 0.010 (3 seeds)``."""
    text = score(measure, entry.value)
    if entry.std is not None:
        return f"{text} ± {score(measure, entry.std)} ({len(entry.runs)} seeds)"
    return f"{text} (1 seed)" if entry.runs else text


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def p_text(p_value: float) -> str:
    return "below 0.001" if p_value < 0.001 else f"{p_value:.3f}" if p_value < 0.1 else f"{p_value:.2f}"
