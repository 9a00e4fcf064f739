"""What a comparison says, in words: a verdict for each pair, what would change it, and a headline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from comparison.runs import ALPHA, Comparison, Entry, Measure, Pair
from comparison.statistics import Difference, degrees_of_freedom, smallest_shown

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
    if has_same_scores(a, b, difference):
        return f"No difference shown between {a.name} and {b.name}: they have the same score on every example."
    low, high = sorted((lead(measure, difference.low), lead(measure, difference.high)))
    size = amount(measure, abs(difference.mean))
    interval = f"95 % CI {number(measure, low)} to {number(measure, high)}; " if low < high else ""
    test = f"adjusted p {p_text(p_adjusted)}" + ("" if mcnemar is None else f", McNemar p {p_text(mcnemar)}")
    if p_adjusted < ALPHA:
        return f"{a.name} is better than {b.name} by {size} ({interval}{test})."
    seen = ""
    if is_out_of_range(measure, detectable):
        seen = "; so few seeds and examples could hardly have shown any difference"
    elif math.isfinite(detectable):
        seen = f"; one of {amount(measure, detectable)} would have been seen"
    many = " once all pairs are counted" if difference.p_value < ALPHA else ""
    return f"No difference shown between {a.name} and {b.name}{many} ({size}, {interval}{test}){seen}."


def has_same_scores(a: Entry, b: Entry, difference: Difference) -> bool:
    """Whether two entries have the same score on every example, run by run or in the mean over seeds."""
    return a.scores_like(b) or (difference.standard_error == 0 and difference.mean == 0)


def is_out_of_range(measure: Measure, detectable: float) -> bool:
    """Whether only a difference that two shares can't have would have been shown."""
    return measure.is_share and 1 < detectable < math.inf


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
    """Where the variance of a difference comes from, as shares of 1: seeds, examples, and both together (the rest).

    Attributes:
        n_examples: how many there are.
        sides: of each side with several seeds: the share of its seeds, which may be estimated below 0, the rest, and
            how many seeds it has.
    """

    seeds: float
    examples: float
    n_examples: int
    sides: tuple[tuple[float, float, int], ...] = ()

    @property
    def rest(self) -> float:
        return max(0.0, 1.0 - self.seeds - self.examples)

    def smallest_shown(self, error: float, seeds: np.ndarray, examples: np.ndarray, level: float) -> np.ndarray:
        """The smallest true differences that so many times the seeds and examples would show at ``level``.

        Not only the error shrinks with more seeds: their noise is known better, so that its quantile shrinks, too.

        Args:
            error: the standard error now.
            seeds, examples: (n_choices,), how many times those of today.
        """
        of_examples = self.examples / examples + self.rest / (seeds * examples)
        parts = [(of_examples, self.n_examples * examples - 1)]
        for own, rest, n_seeds in self.sides:
            parts.append((np.maximum(own + rest / examples, 0.0) / seeds, n_seeds * seeds - 1))
        share = of_examples + self.seeds / seeds
        return smallest_shown(error * np.sqrt(share), degrees_of_freedom(share, parts), level)


def variance_parts(a: np.ndarray, b: np.ndarray) -> Variance:
    """Components of variance of mean(a) - mean(b), by the mean squares of a two-way layout without repetition.

    Args:
        a, b: (n_seeds, n_examples); the examples are the same, the seeds are independent. A side with one row (a single
            run, or a floor) adds nothing to the seeds' part.
    """
    n = a.shape[1]
    several = [scores for scores in (a, b) if len(scores) > 1]
    rests = [_rest(scores) for scores in several]
    gross = [float(scores.mean(axis=1).var(ddof=1)) / len(scores) for scores in several]
    own, rest = np.subtract(gross, rests).tolist(), sum(rests)
    examples = float((a.mean(axis=0) - b.mean(axis=0)).var(ddof=1)) / n if n > 1 else 0.0
    seeds, examples = max(0.0, sum(own)), max(0.0, examples - rest)
    total = seeds + examples + rest
    if total <= ROUNDING:
        return Variance(0.0, 0.0, n)
    sides = [
        (of_seeds / total, of_both / total, len(scores))
        for of_seeds, of_both, scores in zip(own, rests, several, strict=True)
    ]
    return Variance(seeds / total, examples / total, n, tuple(sides))


def _rest(scores: np.ndarray) -> float:
    """The part of the variance of a mean that is the seeds' and the examples' together."""
    n_seeds, n = scores.shape
    if n < 2:
        return 0.0
    residuals = scores - scores.mean(axis=1, keepdims=True) - scores.mean(axis=0) + scores.mean()
    return float((residuals**2).sum() / ((n_seeds - 1) * (n - 1)) / (n_seeds * n))


def would_change(
    measure: Measure,
    a: Entry,
    b: Entry,
    difference: Difference,
    p_adjusted: float,
    level: float,
    parts: Variance,
) -> str:
    """What would change a verdict: more seeds or more examples, and how many; empty for equal scores of several seeds.

    Args:
        level: what the p-value of a pair that is not shown had to be below.
    """
    single = [entry.name for entry in (a, b) if len(entry.runs) == 1]
    if single:
        names = " and ".join(single)
        return (
            f"Other seeds of {names} may turn this around: one run each says nothing of them; run {FEW_SEEDS} or more."
        )
    if not math.isfinite(difference.standard_error):
        return "More dev examples would."
    if has_same_scores(a, b, difference):
        return ""
    if difference.standard_error == 0:
        return "Other examples might: these show no spread."
    if p_adjusted < ALPHA:
        by_seeds = parts.seeds > parts.examples
        what, share = ("seeds", parts.seeds) if by_seeds else ("examples", parts.examples)
        shrinks = f"{percent(share + parts.rest)} of its variance shrinks with them"
        return f"More {what} would narrow the interval most: {shrinks}."
    needed = _needed(a, b, difference, level, parts)
    if needed is None:
        return f"Nothing within reach: so small a difference takes over {OUT_OF_REACH} times the seeds and examples."
    return f"If the true difference is {amount(measure, abs(difference.mean))}, {needed} would show it."


def _needed(a: Entry, b: Entry, difference: Difference, level: float, parts: Variance) -> str | None:
    """More of what carries more of the variance; of the other, where that alone can't do; else of both."""
    n, numbers = difference.n_examples, sorted({len(entry.runs) for entry in (a, b) if entry.runs})

    def first(choices: Sequence[float], more_seeds: bool, more_examples: bool) -> float | None:
        """Of how many times as many, the fewest that show the difference."""
        times = np.array(choices)
        seeds, examples = (times if more else np.ones_like(times) for more in (more_seeds, more_examples))
        shown = parts.smallest_shown(difference.standard_error, seeds, examples, level) <= abs(difference.mean)
        return float(times[shown.argmax()]) if shown.any() else None

    def by_seeds() -> str | None:
        per_side = numbers[0] if len(numbers) == 1 else 10  # else in tenths
        times = first([k / per_side for k in range(per_side + 1, OUT_OF_REACH * per_side + 1)], True, False)
        if times is None:
            return None
        if len(numbers) == 1:
            return f"about {round(per_side * times)} seeds each instead of {per_side}"
        return f"about {times:.1f} times as many seeds of each"

    def by_examples() -> str | None:
        times = first([k / n for k in _round_numbers(n, OUT_OF_REACH * n)], False, True)
        return None if times is None else f"about {round(n * times):,} dev examples instead of {n:,}"

    found = by_seeds() or by_examples() if parts.seeds > parts.examples else by_examples() or by_seeds()
    if found is None and (times := first(range(2, OUT_OF_REACH + 1), True, True)):
        found = f"about {times:.0f} times as many seeds and as many examples"
    return found


def _round_numbers(above: int, most: int) -> list[int]:
    """Those of two digits and zeros: more digits would claim a precision that is not there."""
    steps = [10**i for i in range(len(str(most)))]
    return [k * step for step in steps for k in range(10 if step > 1 else 1, 100) if above < k * step <= most]


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
    """The quickest of those with runs; None unless the first is one of them, and the time of each is known."""
    runs = [entry for entry in entries if entry.runs]
    if not entries[0].runs or not all(entry.cost("total_seconds") for entry in runs):
        return None
    return min(runs, key=lambda entry: entry.cost("total_seconds") or math.inf)


def pair_lines(comparison: Comparison, pairs: Sequence[Pair]) -> list[str]:
    """Each pair's verdict, and what would change it."""
    return [f"{pair.verdict} {pair.would_change}".rstrip() for pair in pairs]


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
    """With so many digits that it is on the side of 0.05 on which it is."""
    if p_value < 0.001:
        return "below 0.001"
    digits = 3 if p_value < 0.1 else 2
    while p_value != ALPHA and float(f"{p_value:.{digits}f}") == ALPHA:
        digits += 1
    return f"{p_value:.{digits}f}"
