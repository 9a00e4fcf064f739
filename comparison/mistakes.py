"""Which examples one entry gets right and another wrong: by class, length and confidence, and the clearest of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from comparison.runs import Comparison, Entry, read_records
from comparison.verdicts import percent

QUARTILES = 4


@dataclass(frozen=True)
class Slice:
    """Some of the examples, and how many of them each entry gets right in the majority of its seeds.

    Attributes:
        label: such as "very negative" or "9 to 14 words".
    """

    label: str
    n: int
    a_right: int
    b_right: int
    only_a: int
    only_b: int


@dataclass(frozen=True)
class Disagreement:
    """An example that one entry gets right and the other wrong.

    Attributes:
        text: empty where the data files are gone.
        label, a_says, b_says: names of classes, or answers: the first right one, and what a run of each wrote; empty
            where its file is gone.
        a_probability, b_probability: of the true class, mean over seeds; None where there are no classes.
    """

    id: str
    text: str
    label: str
    a_says: str
    b_says: str
    a_probability: float | None = None
    b_probability: float | None = None


@dataclass(frozen=True)
class Mistakes:
    """Two entries, example by example.

    Attributes:
        only_a, only_b: examples that only one of them gets right, those first on which they are furthest apart.
        n_only_a, n_only_b, n_both, n_neither: how many there are.
        slices: "class", "length" and "confidence" -> its parts; by length only where there are texts, of answers by
            that alone; the confidence is that of ``a``.
    """

    a: str
    b: str
    only_a: tuple[Disagreement, ...]
    only_b: tuple[Disagreement, ...]
    n_only_a: int
    n_only_b: int
    n_both: int
    n_neither: int
    slices: dict[str, tuple[Slice, ...]]


def compare_mistakes(comparison: Comparison, a: str, b: str, count: int = 10) -> Mistakes | None:
    """What sets two entries apart; None where their task knows no right and wrong.

    Args:
        a, b: names of entries that were measured here.
        count: how many examples of each kind.
    """
    first, second = comparison.entry(a), comparison.entry(b)
    right_a, right_b = majority_right(comparison, first), majority_right(comparison, second)
    if right_a is None or right_b is None:
        return None
    truth_a, truth_b = _of_truth(comparison, first), _of_truth(comparison, second)
    gap = truth_a - truth_b
    written = cache(_written)
    only_a, only_b = np.flatnonzero(right_a & ~right_b), np.flatnonzero(right_b & ~right_a)

    def examples(rows: np.ndarray, order: np.ndarray) -> tuple[Disagreement, ...]:
        chosen = rows[np.argsort(order[rows], kind="stable")][:count]
        if first.exact is not None and second.exact is not None:
            return tuple(_other_answers(comparison, first, second, int(i), written) for i in chosen)
        return tuple(_disagreement(comparison, first, second, int(i), truth_a, truth_b) for i in chosen)

    return Mistakes(
        a=a,
        b=b,
        only_a=examples(only_a, -gap),
        only_b=examples(only_b, gap),
        n_only_a=len(only_a),
        n_only_b=len(only_b),
        n_both=int((right_a & right_b).sum()),
        n_neither=int((~right_a & ~right_b).sum()),
        slices=_slices(comparison, first, right_a, right_b),
    )


def majority_right(comparison: Comparison, entry: Entry) -> np.ndarray | None:
    """(n_examples,) bool: whether more than half of the seeds chose the true class, or wrote a right answer; None where
    there is neither."""
    if entry.exact is not None:
        return entry.exact.mean(axis=0) > 0.5
    if entry.predicted is None or comparison.labels is None:
        return None
    return (entry.predicted == comparison.labels).mean(axis=0) > 0.5


def _of_truth(comparison: Comparison, entry: Entry) -> np.ndarray:
    """(n_examples,) the true class's probability, or the score of the answer, mean over seeds."""
    if entry.exact is not None:
        assert entry.scores is not None
        return entry.scores.mean(axis=0) * (1 if comparison.measure.higher_is_better else -1)
    assert entry.probabilities is not None and comparison.labels is not None
    return entry.probabilities[:, np.arange(len(comparison.ids)), comparison.labels].mean(axis=0)


def _other_answers(
    comparison: Comparison, a: Entry, b: Entry, i: int, written: Callable[[Path], Mapping[str, tuple[str, str]]]
) -> Disagreement:
    """Of each entry, what the first run wrote that is right or wrong as most of its runs are."""
    id_, said, truth = comparison.ids[i], [], ""
    for entry in (a, b):
        assert entry.exact is not None
        right = entry.exact[:, i] > 0.5
        run = entry.runs[int(np.argmax(right == (right.mean() > 0.5)))]
        own_truth, answer = written(run.folder).get(id_, ("", ""))
        truth = truth or own_truth
        said.append(answer)
    return Disagreement(id_, comparison.texts.get(id_, ""), truth, said[0], said[1])


def _written(folder: Path) -> dict[str, tuple[str, str]]:
    """Dev example -> the first right answer, and what a run wrote; nothing where the file is gone or broken."""
    try:
        records = read_records(folder / "predictions" / "dev-written.jsonl")
        return {str(record["id"]): (record["target"].strip(), record["written"]) for record in records}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _disagreement(
    comparison: Comparison, a: Entry, b: Entry, i: int, truth_a: np.ndarray, truth_b: np.ndarray
) -> Disagreement:
    assert comparison.labels is not None and a.probabilities is not None and b.probabilities is not None
    id_ = comparison.ids[i]
    return Disagreement(
        id=id_,
        text=comparison.texts.get(id_, ""),
        label=class_name(comparison, int(comparison.labels[i])),
        a_says=class_name(comparison, _most_said(a, i)),
        b_says=class_name(comparison, _most_said(b, i)),
        a_probability=float(truth_a[i]),
        b_probability=float(truth_b[i]),
    )


def _most_said(entry: Entry, i: int) -> int:
    """The class that most seeds chose; of several, the one with the most probability."""
    assert entry.predicted is not None and entry.probabilities is not None
    votes = np.bincount(entry.predicted[:, i], minlength=entry.probabilities.shape[2])
    return int(np.lexsort((entry.probabilities[:, i].mean(axis=0), votes))[-1])


def class_name(comparison: Comparison, label: int) -> str:
    return comparison.label_names[label] if label < len(comparison.label_names) else str(label)


# ---------------------------------------------------------------------------------------------------------------------
# Slices
# ---------------------------------------------------------------------------------------------------------------------


def _slices(comparison: Comparison, a: Entry, right_a: np.ndarray, right_b: np.ndarray) -> dict[str, tuple[Slice, ...]]:
    def part(label: str, rows: np.ndarray) -> Slice:
        one, other = right_a[rows], right_b[rows]
        only_one, only_other = int((one & ~other).sum()), int((other & ~one).sum())
        return Slice(label, int(rows.sum()), int(one.sum()), int(other.sum()), only_one, only_other)

    labels = comparison.labels
    found: dict[str, list[tuple[str, np.ndarray]]] = {}
    if labels is not None:
        found["class"] = [(class_name(comparison, int(k)), labels == k) for k in np.unique(labels)]
    if all(id_ in comparison.texts for id_ in comparison.ids):
        words = np.array([len(comparison.texts[id_].split()) for id_ in comparison.ids])
        found["length"] = [(f"{_range(words[rows], '{:.0f}')} words", rows) for rows in quartiles(words)]
    if a.probabilities is not None:
        confidence = a.probabilities.max(axis=2).mean(axis=0)
        found["confidence"] = [
            (f"{a.name} sure by {_range(confidence[rows], '{:.2f}')}", rows) for rows in quartiles(confidence)
        ]
    return {name: tuple(part(label, rows) for label, rows in parts) for name, parts in found.items()}


def quartiles(values: np.ndarray) -> list[np.ndarray]:
    """Four masks, from the lowest values to the highest; equal values are never parted, so there may be fewer."""
    edges = np.quantile(values, [i / QUARTILES for i in range(1, QUARTILES)])
    place = np.searchsorted(edges, values, side="left")
    return [place == i for i in range(QUARTILES) if (place == i).any()]


def _range(values: np.ndarray, form: str) -> str:
    low, high = form.format(values.min()), form.format(values.max())
    return low if low == high else f"{low} to {high}"


# ---------------------------------------------------------------------------------------------------------------------
# In words
# ---------------------------------------------------------------------------------------------------------------------


def contrasted(comparison: Comparison) -> tuple[str, str] | None:
    """The two entries that are worth setting side by side: the best run and the next one, or the user's baseline."""
    first = next((entry for entry in comparison.measured if entry.runs), None)
    if first is None:
        return None
    if comparison.baseline and comparison.baseline != first.name:
        return first.name, comparison.baseline
    second = comparison.runner_up(first)
    return (first.name, second.name) if second else None


def mistakes_text(comparison: Comparison) -> list[str]:
    """A few sentences on the contrasted pair."""
    pair = contrasted(comparison)
    found = compare_mistakes(comparison, *pair) if pair else None
    if found is None:
        return []
    n = len(comparison.ids)
    what = "examples" if comparison.labels is not None else "questions, by exact match"
    lines = [
        f"of {n:,} {what}, {found.n_only_a:,} are right with {found.a} only, {found.n_only_b:,} with {found.b} only, "
        f"{found.n_both:,} with both and {found.n_neither:,} with neither (in the majority of seeds)"
    ]
    for name, parts in found.slices.items():
        if len(parts) > 1 and found.n_only_a + found.n_only_b:
            furthest = max(parts, key=lambda one: abs(one.only_a - one.only_b) / one.n)
            lines.append(f"by {name}, they are furthest apart on {_slice_text(furthest, found.a, found.b)}")
    return lines


def _slice_text(one: Slice, a: str, b: str) -> str:
    shares = [percent(right / one.n) for right in (one.a_right, one.b_right)]
    return f"{one.label} ({one.n:,} examples): {a} {shares[0]} right, {b} {shares[1]}"
