"""How right an answer is, by the rules of the datasets' own evaluation scripts.

SQuAD 1.1 (Rajpurkar et al. 2016, section 6.1): what matters is words, without case, punctuation and articles.
KorQuAD 1.0 (Lim et al. 2019): what matters is characters, without case, brackets, quotation marks and punctuation,
because Korean words carry particles. Of several right answers the one that fits best counts.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

RULES = ("squad", "korquad")
PUNCTUATION = str.maketrans("", "", string.punctuation)  # ASCII's alone, as in both scripts
ARTICLES = re.compile(r"\b(?:a|an|the)\b")
KOREAN_MARKS = str.maketrans(dict.fromkeys("'\"《》<>〈〉()‘’", " "))  # a space takes their place, so words stay apart


def exact_match(answer: str, right: Sequence[str], rules: str) -> float:
    """1.0 where the answer is one of the right ones after normalization, else 0.0."""
    normalize, _ = _RULES[rules]
    return float(normalize(answer) in {normalize(text) for text in right})


def f1_score(answer: str, right: Sequence[str], rules: str) -> float:
    """The best F1 of the answer's units (words or characters) with those of a right answer, repeats counted."""
    normalize, units = _RULES[rules]
    ours = Counter(units(normalize(answer)))
    return max(_f1(ours, Counter(units(normalize(text)))) for text in right)


def normalize_squad(text: str) -> str:
    """Lower case; ASCII punctuation, then the articles a, an, the left out; single spaces."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def normalize_korquad(text: str) -> str:
    """Brackets and quotation marks become spaces; lower case; ASCII punctuation left out; single spaces."""
    return " ".join(text.translate(KOREAN_MARKS).lower().translate(PUNCTUATION).split())


def words(text: str) -> list[str]:
    return text.split()


def characters(text: str) -> list[str]:
    return list("".join(text.split()))


def _f1(ours: Counter[str], theirs: Counter[str]) -> float:
    shared = (ours & theirs).total()
    if shared == 0:
        return 0.0
    precision, recall = shared / ours.total(), shared / theirs.total()
    return 2 * precision * recall / (precision + recall)


_RULES: dict[str, tuple[Callable[[str], str], Callable[[str], list[str]]]] = {
    "squad": (normalize_squad, words),
    "korquad": (normalize_korquad, characters),
}


def mean_intervals_over(
    groups: Sequence[str], columns: Mapping[str, Sequence[float]], seed: int
) -> dict[str, list[float]]:
    """95 % intervals of means, by name, from a bootstrap that draws whole groups.

    Args:
        groups: what each question belongs to, such as its context: questions about one text are not independent.
        columns: one value per question.
    """
    import numpy as np

    from tasks.intervals import interval

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
