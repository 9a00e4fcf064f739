"""How right an answer is, by the rules of the datasets' own evaluation scripts.

SQuAD 1.1 (Rajpurkar et al. 2016, section 6.1): what matters is words, without case, punctuation and articles.
KorQuAD 1.0 (Lim et al. 2019): what matters is characters, without case, brackets, quotation marks and punctuation,
because Korean words carry particles. Of several right answers the one that fits best counts.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

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
