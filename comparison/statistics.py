"""Is a difference between two strategies more than luck? Tests and intervals on per-example scores.

Luck has two sources: which examples the dev set holds, and which seeds a strategy was trained with. A test over the
examples alone takes the runs at hand for the strategies themselves and rejects far too often as soon as seeds add noise
(Bouthillier et al. 2021, "Accounting for variance in machine learning benchmarks"; Dror et al. 2018, "The hitchhiker's
guide to testing statistical significance in NLP"). :func:`paired_difference` counts both.

It is the paired bootstrap over examples and seeds (Efron & Tibshirani 1993), each seed's deviation scaled by
sqrt(S / (S - 1)), in closed form: for a mean, the variance over infinitely many resamples is known, so none are drawn.
With u_k the variance of strategy k's seed means over S_k, x the variance over examples of the difference between seed
means over n, and e_k the residual (example by seed) mean square over n S_k,

    variance = max(x, x + u_a + u_b - e_a - e_b)

The residual noise is in x and in u_k; it is taken out once (Owen 2007, "The pigeonhole bootstrap", says how often a
bootstrap of both rows and columns counts it). The variance is never below that of the examples alone. Percentiles would
still be too narrow with three seeds, since three values hardly tell a variance: the quantiles are those of Student's t
with Satterthwaite's (1946) degrees of freedom. `benchmarks/significance.py` simulates how often the test is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaincinv, gammaln, stdtr, stdtrit
from scipy.stats import binomtest

Numbers = float | np.ndarray

POWER = 0.8
ROUNDING = 1e-12  # what is smaller, beside the scores, is rounding and counts as 0

BOTH = "paired test over examples and seeds: the bootstrap's variance in closed form, Satterthwaite's t"
ONE_SEED_EACH = "paired t test over examples; one seed each: says nothing of other seeds"
ONE_SEED = "paired t test over examples; one seed on one side: says nothing of other seeds"
TOO_FEW = "too few examples to say anything of others"


@dataclass(frozen=True)
class Difference:
    """How much better a is than b, in the measure's own unit (accuracy: 0.012 is 1.2 points).

    Attributes:
        mean: a - b.
        low, high: the interval, 95 % by default; it excludes 0 exactly where ``p_value`` is below alpha.
        p_value: two-sided, not adjusted for other comparisons.
        standard_error: of ``mean``.
        detectable: the smallest true difference that data like these show with 80 % power.
        n_examples, n_seeds: what it rests on.
        method: in words, for a report.

    Where there are too few examples to say anything, the interval is infinite, and so are the last two numbers.
    """

    mean: float
    low: float
    high: float
    p_value: float
    standard_error: float
    detectable: float
    n_examples: int
    n_seeds: tuple[int, int]
    method: str


def paired_difference(a: ArrayLike, b: ArrayLike, *, alpha: float = 0.05) -> Difference:
    """Compares two strategies on the same examples; examples are paired, seeds are not, whatever their numbers.

    With a single seed on a side, the noise between seeds can't be estimated: what comes back is about these very runs
    on other examples, and ``method`` says so. What has no seeds (a floor) is given as equal rows.

    Args:
        a, b: scores, (n_seeds, n_examples); column i is the same example in both.
        alpha: the rate of false positives; the interval covers 1 - alpha.

    Raises:
        ValueError: the shapes don't fit, or a score is not finite.
    """
    first, second = _matrix(a), _matrix(b)
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"{first.shape[1]} and {second.shape[1]} examples; both must be scored on the same")
    seeds = (len(first), len(second))
    n = first.shape[1]
    difference = first.mean(axis=0) - second.mean(axis=0)  # (n,)
    method = BOTH if min(seeds) > 1 else ONE_SEED_EACH if seeds == (1, 1) else ONE_SEED
    scale = ROUNDING * max(np.abs(first).max(), np.abs(second).max())
    mean = _without_rounding(float(difference.mean()), scale)

    error, df = _standard_error(difference, (first, second), scale)
    # Equal differences have no spread to learn from; what they show is their sign, n times.
    of_signs = 2.0 ** (1 - n)
    if n == 1 or (error == 0 and mean != 0 and of_signs >= alpha):
        return Difference(mean, -math.inf, math.inf, 1.0, math.inf, math.inf, n, seeds, TOO_FEW)
    critical = -float(stdtrit(df, alpha / 2))
    p_value = of_signs if mean != 0 else 1.0
    if error > 0:
        p_value = 2 * float(stdtr(df, -abs(mean) / error))
    reach = critical * error
    detectable = float(smallest_shown(error, df, alpha))
    return Difference(mean, mean - reach, mean + reach, p_value, error, detectable, n, seeds, method)


def smallest_shown(error: Numbers, df: Numbers, alpha: float) -> np.ndarray:
    """The smallest true difference that a test at ``alpha`` shows with 80 % power.

    Args:
        error, df: an estimated standard error and its degrees of freedom; numbers, or arrays of one shape.
    """
    # With few degrees of freedom a standard error is too small on average.
    return (stdtrit(df, POWER) - stdtrit(df, alpha / 2)) * np.asarray(error) / _mean_of_deviation(df)


def mean_interval(scores: ArrayLike, *, alpha: float = 0.05, is_share: bool = False) -> tuple[float, float]:
    """The interval of one strategy's mean over other examples and, with two seeds or more, other seeds.

    Args:
        scores: (n_seeds, n_examples).
        is_share: they lie between 0 and 1, and so does the interval. Where scores of 0 and 1 show no spread, such as
            where all are right, it is the exact one of a binomial share (Clopper & Pearson 1934).

    Returns:
        low, high; infinite with a single example.

    Raises:
        ValueError: no matrix, or a score is not finite.
    """
    matrix = _matrix(scores)
    if matrix.shape[1] == 1:
        return -math.inf, math.inf
    mean = float(matrix.mean())
    error, df = _standard_error(matrix.mean(axis=0), (matrix,), ROUNDING * np.abs(matrix).max())
    if is_share and error == 0 and np.isin(matrix, (0, 1)).all():
        return _binomial_interval(mean, matrix.shape[1], alpha)
    reach = -float(stdtrit(df, alpha / 2)) * error
    return (max(mean - reach, 0.0), min(mean + reach, 1.0)) if is_share else (mean - reach, mean + reach)


def _binomial_interval(share: float, n: int, alpha: float) -> tuple[float, float]:
    hits = share * n
    low = float(betaincinv(hits, n - hits + 1, alpha / 2)) if hits else 0.0
    return low, float(betaincinv(hits + 1, n - hits, 1 - alpha / 2)) if hits < n else 1.0


def mcnemar_exact(a: ArrayLike, b: ArrayLike) -> float:
    """The exact McNemar test (1947) of two single runs: the two-sided binomial p-value of the discordant examples.

    Args:
        a, b: 1 where a run is right and 0 where it is wrong, (n_examples,).

    Raises:
        ValueError: the shapes differ, or a score is neither 0 nor 1.
    """
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"shapes {first.shape} and {second.shape}; both must be (n_examples,)")
    if not np.isin([first, second], (0, 1)).all():
        raise ValueError("McNemar's test is for scores of 0 and 1")
    only_a, only_b = int((first > second).sum()), int((second > first).sum())
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number, step-down (Holm 1979), in the order given.

    Raises:
        ValueError: one is not between 0 and 1.
    """
    values = np.asarray(p_values, dtype=float)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"p-values lie between 0 and 1, unlike those in {list(p_values)}")
    order = np.argsort(values, kind="stable")
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)))
    return adjusted.tolist()


def _matrix(scores: ArrayLike) -> np.ndarray:
    matrix = np.asarray(scores, dtype=float)
    if matrix.ndim != 2 or not matrix.size:
        raise ValueError(f"scores of shape {matrix.shape}; they must be (n_seeds, n_examples), at least one of each")
    if not np.isfinite(matrix).all():
        raise ValueError(f"{(~np.isfinite(matrix)).sum()} of {matrix.size} scores are not finite numbers")
    return matrix


def _standard_error(values: np.ndarray, sides: Sequence[np.ndarray], scale: float) -> tuple[float, float]:
    """Of the mean of ``values``, (n,), which the ``sides``, each (n_seeds, n), make; and its degrees of freedom."""
    n = len(values)
    if n == 1:
        return math.inf, 1.0
    of_examples = float(values.var(ddof=1)) / n
    parts = [(of_examples, n - 1)]
    residual = 0.0
    if min(len(side) for side in sides) > 1:
        for side in sides:
            seed_means, example_means = side.mean(axis=1, keepdims=True), side.mean(axis=0)
            rest = side - seed_means - example_means + side.mean()
            parts.append((float(seed_means.var(ddof=1)) / len(side), len(side) - 1))
            residual += float((rest**2).sum()) / ((len(side) - 1) * (n - 1)) / side.size
    variance = max(of_examples, sum(part for part, _ in parts) - residual)
    error = _without_rounding(math.sqrt(variance), scale)
    if error == 0:
        return 0.0, float(n - 1)
    return error, float(degrees_of_freedom(variance, parts))


def degrees_of_freedom(variance: Numbers, parts: Sequence[tuple[Numbers, Numbers]]) -> np.ndarray:
    """Satterthwaite's (1946), and never fewer than those of a part alone.

    Args:
        variance: made up by the ``parts``, each with its degrees of freedom; numbers, or arrays of one shape.
    """
    made_up = np.square(variance) / sum(np.square(part) / part_df for part, part_df in parts)
    return np.maximum(made_up, reduce(np.minimum, [part_df for _, part_df in parts]))


def _mean_of_deviation(df: Numbers) -> np.ndarray:
    """The mean of an estimated standard deviation, by the true one, in normal data."""
    half = np.asarray(df) / 2
    return np.exp(gammaln(half + 0.5) - gammaln(half)) / np.sqrt(half)


def _without_rounding(value: float, scale: float) -> float:
    return value if abs(value) > scale else 0.0
