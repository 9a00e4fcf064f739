"""How much a measure of written texts would vary with other texts: bootstrap intervals (Efron 1979)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

SAMPLES = 2000
AT_ONCE = 2**18  # numbers of texts that are drawn together: measures may hold some 150 bytes for each


def mean_intervals(columns: Mapping[str, Sequence[float]], seed: int) -> dict[str, list[float]]:
    """95 % percentile intervals of means over texts, by name; a column without a number has none.

    Args:
        columns: one value per text; NaN says nothing.
    """
    found = {}
    for name, column in columns.items():
        values = np.array([value for value in column if value == value])
        if len(values):
            found[name] = interval(len(values), lambda rows, values=values: values[rows].mean(axis=1), seed)  # type: ignore[misc]
    return found


def mean_intervals_over(
    groups: Sequence[str], columns: Mapping[str, Sequence[float]], seed: int
) -> dict[str, list[float]]:
    """95 % intervals of means, by name, from a bootstrap that draws whole groups.

    Args:
        groups: what each question belongs to, such as its context: questions about one text are not independent.
        columns: one value per question.
    """
    names, members = np.unique(np.array(groups), return_inverse=True)
    sizes = np.bincount(members)
    found = {}
    for name, column in columns.items():
        sums = np.bincount(members, weights=np.array(column))
        found[name] = interval(len(names), partial(_mean_of_groups, sums, sizes), seed)
    return found


def _mean_of_groups(sums: np.ndarray, sizes: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(samples,): the mean over all members of the groups that each row of ``rows`` names."""
    means: np.ndarray = sums[rows].sum(axis=1) / sizes[rows].sum(axis=1)
    return means


def interval(n: int, measure: Callable[[np.ndarray], np.ndarray], seed: int) -> list[float]:
    """The 95 % interval of a measure.

    Args:
        n: texts.
        measure: (samples, n) numbers of texts, drawn with replacement -> (samples,), whatever the number of samples.
    """
    generator, step = np.random.default_rng(seed), max(AT_ONCE // n, 1)
    parts = [measure(generator.integers(0, n, (min(step, SAMPLES - start), n))) for start in range(0, SAMPLES, step)]
    return [float(x) for x in np.percentile(np.concatenate(parts), [2.5, 97.5])]
